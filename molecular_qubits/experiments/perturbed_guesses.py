"""Does any start density lead to a wrong state that no check notices? Guesses with random rotations of their orbitals.

``python -m molecular_qubits.experiments.perturbed_guesses`` writes the committed file ``data/perturbed_guesses.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import expm

from molecular_qubits.electronic.broken_symmetry import StateRunner
from molecular_qubits.electronic.errors import SCFNotConvergedError, WrongStateError
from molecular_qubits.electronic.scf import SCFSettings, Workspace
from molecular_qubits.fields.alignments import enumerate_determinants
from molecular_qubits.fields.guesses import density_of
from molecular_qubits.fields.populations import square_root
from molecular_qubits.structure.library import library_entry, start_geometry
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.relaxation import cached_relaxation
from molecular_qubits.units import HARTREE_TO_CM1
from shared.artifacts import Cache, provenance, write_json
from shared.cli import run_command
from shared.parallel import seeds_for
from shared.progress import track

PATH = Path(__file__).resolve().parent / "data" / "perturbed_guesses.json"
SYSTEMS = ("h-he-h", "formylmethyl-nitroxide", "methylene-bis-nitroxide", "tetramethyleneethane")
STRENGTHS = (0.1, 0.3, 1.0)
"""Standard deviation of the rotation generator between each occupied and each virtual orbital, times the root of their
number: the whole rotation of an occupied orbital in radians."""

_EXACT = SCFSettings(basis="6-31g", grid_level=1, conv_tol=1e-8)

FIELDS = {"exact": _EXACT, "fitted, ramped": replace(_EXACT, density_fit=True, ramp=True)}
"""B3LYP with exact integrals, and as larger molecules are run (`exchange_couplings`)."""

COLUMNS = ("system", "field", "rotation (rad)", "seeds", "right", "refused", "wrong")
"""Of the rows, those that tables show."""

SAME_CM1 = 1.0
"""Two ends within this energy are the same state."""


@dataclass(frozen=True)
class Outcome:
    """End of one run: ``right``, ``refused`` (an error was raised) or ``wrong`` (another energy, and no error)."""

    kind: str
    deviation_cm1: float | None
    message: str = ""


class PerturbedRunner(StateRunner):
    """Takes the usual guess of each state, rotates its occupied into its virtual orbitals at random."""

    def __init__(self, *arguments: Any, strength: float, seed: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.strength, self.random = strength, np.random.default_rng(seed)

    def _guess(self, name: str, determinant: tuple[int, ...], n_unpaired: int) -> np.ndarray | None:
        density = super()._guess(name, determinant, n_unpaired)
        if density is None:
            density = np.asarray(self.workspace.mean_field(n_unpaired).get_init_guess())
        counts = self.workspace.mean_field(n_unpaired).mol.nelec
        return perturbed(np.asarray(density), self.overlap, counts, self.strength, self.random)


def perturbed(
    density: np.ndarray, overlap: np.ndarray, counts: tuple[int, int], strength: float, random: np.random.Generator
) -> np.ndarray:
    """Return a determinant near a density, its occupied orbitals rotated at random into the virtual ones.

    Parameters
    ----------
    density
        Density matrices ``(2, n_ao, n_ao)``; of each the natural orbitals with the largest occupations are taken.
    overlap
        ``(n_ao, n_ao)``.
    counts
        Number of α and β electrons.
    strength
        Root mean square angle in radians by which an occupied orbital is turned, for small angles.
    random
        Generator.
    """
    root = square_root(overlap)
    back = np.linalg.inv(root)
    orbitals = []
    for matrix, n in zip(density, counts, strict=True):
        _, vectors = np.linalg.eigh(root @ matrix @ root)
        vectors = vectors[:, ::-1]
        size = len(vectors)
        generator = np.zeros((size, size))
        generator[:n, n:] = strength / np.sqrt(size - n) * random.standard_normal((n, size - n))
        orbitals.append(back @ (vectors @ expm(generator - generator.T))[:, :n])
    return density_of(*orbitals)


def system(name: str) -> tuple[Molecule, tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """Return molecule, spin centres and spins of one of `SYSTEMS`."""
    if name == "h-he-h":
        return Molecule(("H", "He", "H"), ((0, 0, -1.5), (0, 0, 0), (0, 0, 1.5))), ((0,), (2,)), (0.5, 0.5)
    entry = library_entry(name)
    molecule = cached_relaxation(start_geometry(Molecule.from_smiles(entry.smiles)), "gfn2", entry.multiplicity)
    return molecule, entry.centres, entry.spins


def run(name: str, seeds: int, strength: float, field: str = "exact") -> list[Outcome]:
    """Run both states of a system from perturbed guesses and compare them with those from the usual guesses.

    Parameters
    ----------
    name
        One of `SYSTEMS`.
    seeds
        Number of seeds.
    strength
        See `STRENGTHS`.
    field
        One of `FIELDS`.

    Returns
    -------
    list of Outcome
        One for each seed: ``wrong`` if any of its states passed every check with another energy than the usual one.
    """
    import tempfile

    molecule, centres, spins = system(name)
    workspace = Workspace(molecule, FIELDS[field])
    determinants = enumerate_determinants(spins)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        usual = StateRunner(workspace, centres, spins, Cache(folder, name="usual"), stability=False)
        expected = [usual.run(determinant)[0].energy_hartree for determinant in determinants]
        for seed in track(seeds_for(20, seeds), f"{name}, rotations of {strength:g}"):
            runner = PerturbedRunner(
                workspace, centres, spins, Cache(folder, name=f"{strength}-{seed}"), stability=False,
                strength=strength, seed=seed,
            )  # fmt: skip
            try:
                found = [runner.run(determinant)[0].energy_hartree for determinant in determinants]
            except (SCFNotConvergedError, WrongStateError) as error:
                outcomes.append(Outcome("refused", None, str(error)))
                continue
            off = max((a - b) * HARTREE_TO_CM1 for a, b in zip(found, expected, strict=True))
            low = min((a - b) * HARTREE_TO_CM1 for a, b in zip(found, expected, strict=True))
            deviation = off if abs(off) > abs(low) else low
            outcomes.append(Outcome("right" if abs(deviation) < SAME_CM1 else "wrong", deviation))
    return outcomes


def count(outcomes: list[Outcome]) -> dict[str, int]:
    """Return how many runs ended right, refused and wrong."""
    return {kind: sum(found.kind == kind for found in outcomes) for kind in ("right", "refused", "wrong")}


def read() -> dict[str, Any]:
    """Return the committed rows: runs that ended right, refused and wrong for each system, field and strength."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> int:
    """Run systems and strengths and write the committed file; rows of other systems and strengths stay in it."""
    parser = argparse.ArgumentParser(
        prog="python -m molecular_qubits.experiments.perturbed_guesses", description=__doc__
    )
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--strengths", nargs="+", type=float, default=list(STRENGTHS), metavar="RADIANS")
    parser.add_argument("--field", choices=tuple(FIELDS), default="exact")
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1 or min(arguments.strengths) <= 0:
        parser.error("--seeds must be at least 1 and --strengths positive")

    def compute() -> None:
        for name in arguments.systems:
            for strength in arguments.strengths:
                keep(name, strength, run(name, arguments.seeds, strength, arguments.field), arguments.field)

    return run_command(compute)


def keep(name: str, strength: float, outcomes: list[Outcome], field: str = "exact") -> None:
    """Write the row of one system, field and strength, in place of an older one."""
    wrong = [found.deviation_cm1 for found in outcomes if found.kind == "wrong"]
    row: dict[str, Any] = {"system": name, "field": field, "rotation (rad)": strength, "seeds": len(outcomes)}
    row |= count(outcomes)
    row["deviations_cm1"] = [round(x, 3) for x in wrong if x is not None]
    row["provenance"] = provenance()
    rows = read()["rows"] if PATH.exists() else []
    places = [(SYSTEMS.index(found["system"]), found["field"], found["rotation (rad)"]) for found in (*rows, row)]
    kept = dict(zip(places, (*rows, row), strict=True))  # a new row takes the place of an old one
    rows = [kept[place] for place in sorted(kept)]
    write_json(PATH, {"rows": rows})


if __name__ == "__main__":
    raise SystemExit(main())
