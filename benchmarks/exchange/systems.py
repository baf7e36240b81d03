"""The molecules of the benchmark: a radical and a triplet chromophore or two radicals, from 10 to 46 heavy atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from molecular_qubits.structure.library import library_entry, start_geometry
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.relaxation import cached_relaxation
from shared.artifacts import Cache


@dataclass(frozen=True)
class System:
    """A molecule with a radical (first) and a triplet or a second radical; the first centre is the flipped one."""

    name: str
    smiles: str | None
    centres: tuple[tuple[int, ...], ...]
    spins: tuple[float, ...]
    xyz: str | None = None

    def molecule(self, cache: Cache) -> Molecule:
        """Return the geometry: as given, or relaxed by GFN2 in the high-spin state (cached)."""
        if self.xyz is not None:
            return Molecule.from_xyz_text(self.xyz)
        start = start_geometry(Molecule.from_smiles(str(self.smiles)))
        return cached_relaxation(start, "gfn2", round(2 * sum(self.spins)) + 1, cache)


def _acene(name: str, smiles: str, n_ring_atoms: int) -> System:
    return System(name, smiles, ((0, 1, 2, 3), tuple(range(4, 4 + n_ring_atoms))), (0.5, 1.0))


def _library(name: str) -> System:
    entry = library_entry(name)
    return System(name, entry.smiles, entry.centres, entry.spins)


def _ground_state(name: str) -> System:
    """Return the two radicals of a radical-triplet-radical molecule, its chromophore in the ground state."""
    entry = library_entry(name)
    return System(f"{name}-ground", entry.smiles, (entry.centres[0], entry.centres[2]), (0.5, 0.5))


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System("h-he-h", None, ((0,), (2,)), (0.5, 0.5), "3\n\nH 0 0 -1.5\nHe 0 0 0\nH 0 0 1.5\n"),
        _acene("benzylmethyl-nitroxide", "[O]N(C)Cc1ccccc1", 6),
        _acene("naphthylmethyl-nitroxide", "[O]N(C)Cc1cccc2ccccc12", 10),
        _acene("anthrylmethyl-nitroxide", "[O]N(C)Cc1c2ccccc2cc2ccccc12", 14),
        _library("mono"),
        _ground_state("bi"),
    )
}
"""Systems by name. ``anthrylmethyl-nitroxide``, 18 heavy atoms, is the fixed molecule of the comparison; ``h-he-h`` is
there to try the benchmark itself."""

FIXED = "anthrylmethyl-nitroxide"


def job(system: System, molecule: Molecule, xc: str, basis: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what both scripts read: one geometry, one functional, one basis."""
    total, first = 2 * sum(system.spins), 2 * system.spins[0]
    return {
        "atoms": [[s, list(row)] for s, row in zip(molecule.symbols, molecule.coordinates, strict=True)],
        "molecule": molecule.to_dict(),
        "charge": molecule.charge,
        "centres": [list(atoms) for atoms in system.centres],
        "flipped_atoms": list(system.centres[0]),
        "spins": list(system.spins),
        "n_unpaired_hs": round(total),
        "n_unpaired_bs": round(total - 2 * first),
        "xc": xc,
        "basis": basis,
        "options": options,
    }
