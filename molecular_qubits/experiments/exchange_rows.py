"""One exchange calculation of a study: geometry, spin centres, method; computed once, kept as one row."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from molecular_qubits.electronic.errors import SCFNotConvergedError, WrongStateError
from molecular_qubits.electronic.exchange import ExchangeResult, exchange_couplings
from molecular_qubits.structure.library import library_entry, start_geometry
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.relaxation import GeometryNotConvergedError, cached_relaxation, gfn2_energy_cm1
from molecular_qubits.structure.scans import cached_at_torsions
from molecular_qubits.structure.step_field import SpinContaminationError, UnstableFieldError
from shared.artifacts import Cache

STATES = ("excited", "ground")


@dataclass(frozen=True)
class Calculation:
    """What one row computes.

    Attributes
    ----------
    molecule
        Name in the library.
    state
        ``"excited"``: all centres of the library entry, the chromophore as a triplet; ``"ground"``: the radicals alone.
    xc, basis, grid_level
        Method.
    torsion_degrees
        The torsions at the chromophore are held at this angle (its sign follows the relaxed geometry); ``None``:
        relaxed.
    geometry
        State in which the geometry is relaxed: as `state` (its high spin), or ``"antiparallel"``, the broken-symmetry
        state of two radicals, by UKS; ``None``: that of `state`.
    torsion_atoms
        The torsion that is held, if it is not that between chromophore and its substituents.
    level
        ``"gfn2"`` or ``"uks"`` (B3LYP/6-31G*, after GFN2), see `Molecule.optimize`; torsions are held by GFN2 only.
    """

    molecule: str
    state: str = "excited"
    xc: str = "b3lyp"
    basis: str = "6-31g*"
    grid_level: int = 2
    torsion_degrees: float | None = None
    geometry: str | None = None
    conv_tol: float = 1e-8
    torsion_atoms: tuple[int, int, int, int] | None = None
    level: str = "gfn2"

    def __post_init__(self) -> None:
        for name, known in (("state", STATES), ("geometry", (*STATES, "antiparallel", None))):
            if getattr(self, name) not in known:
                raise ValueError(f"Argument `{name}` must be one of {known}, but is {getattr(self, name)!r}.")
        relaxed_by_uks = self.level == "uks" and self.torsion_degrees is None
        if self.geometry == "antiparallel" and not (relaxed_by_uks and self.spins == (0.5, 0.5)):
            raise ValueError(
                "Argument `geometry` can be 'antiparallel' only for two radicals and `level` 'uks', no torsion held."
            )

    @property
    def spins(self) -> tuple[float, ...]:
        """Spin of each centre."""
        return tuple(spin for spin in library_entry(self.molecule).spins if self._counts(spin))

    @property
    def centres(self) -> tuple[tuple[int, ...], ...]:
        """Atoms of each centre."""
        entry = library_entry(self.molecule)
        return tuple(atoms for atoms, spin in zip(entry.centres, entry.spins, strict=True) if self._counts(spin))

    def _counts(self, spin: float) -> bool:
        return self.state == "excited" or spin == 0.5

    def key(self) -> dict[str, Any]:
        """Return a JSON-able record that tells calculations apart."""
        later = {"torsion_atoms": None, "level": "gfn2"}
        record = {name: value for name, value in asdict(self).items() if later.get(name, ...) != value}
        return record if self.torsion_atoms is None else record | {"torsion_atoms": list(self.torsion_atoms)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Calculation:
        """Return the calculation that a row belongs to."""
        known = {field.name: row[field.name] for field in fields(cls) if field.name in row}
        if "torsion_atoms" in known:
            known["torsion_atoms"] = tuple(known["torsion_atoms"])
        return cls(**known)


def geometry(calculation: Calculation, cache: Cache | None = None) -> Molecule:
    """Return the geometry of a calculation (cached), relaxed in the spin state and at the level that it names."""
    cache = Cache.of(cache, "geometry")
    entry = library_entry(calculation.molecule)
    state = calculation.geometry or calculation.state
    spins = [spin for spin in entry.spins if state == "excited" or spin == 0.5]
    multiplicity = round(2 * sum(spins)) + 1
    relaxed = cached_relaxation(start_geometry(Molecule.from_smiles(entry.smiles)), "gfn2", multiplicity, cache)
    if calculation.torsion_degrees is None:
        if calculation.level == "uks":
            relaxed = cached_relaxation(relaxed, "uks", multiplicity, cache)
        if state == "antiparallel":
            relaxed = cached_relaxation(relaxed, "uks", 1, cache, centres=calculation.centres)
        return relaxed
    held = (calculation.torsion_atoms,) if calculation.torsion_atoms else _chromophore_torsions(relaxed, calculation)
    signs = {atoms: -1.0 if relaxed.torsion(atoms) < 0 else 1.0 for atoms in held}
    torsions = {atoms: sign * calculation.torsion_degrees for atoms, sign in signs.items()}
    return cached_at_torsions(relaxed, torsions, cache)


def chromophore_torsions(molecule: Molecule, chromophore: tuple[int, ...]) -> tuple[tuple[int, int, int, int], ...]:
    """Return the ring-ring torsions about the bonds of a chromophore."""
    inside = set(chromophore)
    return tuple(atoms for atoms in molecule.ring_torsions() if (atoms[1] in inside) != (atoms[2] in inside))


def _chromophore_torsions(molecule: Molecule, calculation: Calculation) -> tuple[tuple[int, int, int, int], ...]:
    entry = library_entry(calculation.molecule)
    return chromophore_torsions(molecule, entry.centres[int(np.argmax(entry.spins))])


def _of_geometries(cache: Cache | None) -> Cache | None:
    """Return the cache of geometries beside one of determinants; ``None``, the user's, for the user's."""
    return None if cache is None else Cache(cache.folder.parent, name="geometry")


def compute(calculation: Calculation, cache: Cache | None = None, *, stability: bool = True) -> ExchangeResult:
    """Return the exchange couplings of a calculation; states that were finished before come from the cache.

    ``stability``: analyse that of each state, also of cached ones.
    """
    return exchange_couplings(
        geometry(calculation, _of_geometries(cache)),
        calculation.centres,
        spins=calculation.spins,
        xc=calculation.xc,
        basis=calculation.basis,
        grid_level=calculation.grid_level,
        conv_tol=calculation.conv_tol,
        stability=stability,
        cache=cache,
    )


def row(calculation: Calculation, cache: Cache | None = None, *, stability: bool = True) -> dict[str, Any]:
    """Return the couplings, determinants and geometry of a calculation as a JSON-able row; arguments as for `compute`.

    A state or relaxation that does not converge to the one asked for gives a row with ``error`` in place of couplings.
    """
    try:
        molecule = geometry(calculation, _of_geometries(cache))
    except (GeometryNotConvergedError, SpinContaminationError, UnstableFieldError) as error:
        return calculation.key() | {"error": str(error)}
    start = {
        **calculation.key(),
        "torsions_degrees": [round(molecule.torsion(atoms), 2) for atoms in molecule.ring_torsions()],
        "held_torsions_degrees": [
            round(molecule.torsion(atoms), 2)
            for atoms in (
                [calculation.torsion_atoms]
                if calculation.torsion_atoms
                else _chromophore_torsions(molecule, calculation)
            )
        ],
        "gfn2_energy_cm1": round(gfn2_energy_cm1(molecule), 2),
        "coordinates_angstrom": [[round(x, 5) for x in place] for place in molecule.coordinates],
    }
    try:
        found = compute(calculation, cache, stability=stability)
    except (SCFNotConvergedError, WrongStateError) as error:
        return start | {"error": str(error)}
    return start | {
        "j_yamaguchi_cm1": found.j_yamaguchi_cm1.tolist(),
        "j_noodleman_cm1": found.j_noodleman_cm1.tolist(),
        "j_unprojected_cm1": found.j_unprojected_cm1.tolist(),
        "j_local_cm1": found.j_local_cm1.tolist() if len(found.spins) > 2 else None,
        "residual_cm1": found.residual_cm1.tolist() if found.overdetermined else None,
        "residual_s2": found.residual_s2.tolist() if found.overdetermined else None,
        "states": [
            {
                "label": state.label,
                "determinant": list(state.determinant),
                "energy_hartree": state.energy_hartree,
                "s2": round(state.s2, 5),
                "lowdin_spins": [round(spin, 4) for spin in state.lowdin_spins],
                "cycles": state.cycles,
                "guess": state.guess,
                "solver": state.solver,
                "stable": state.stable,
                "promoted_electrons": state.promoted_electrons,
                "polarisation": state.polarisation,
                "seconds": state.seconds,
            }
            for state in found.states
        ],
        "seconds": found.provenance["seconds"],
    }
