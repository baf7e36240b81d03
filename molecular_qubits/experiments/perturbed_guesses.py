"""Does any start density lead to a wrong state that no check notices? Guesses with random rotations of their orbitals.

``python -m molecular_qubits.experiments.perturbed_guesses`` adds the rows that are missing to the committed file
``data/perturbed_guesses.json``. Every run of a row is kept: a killed one continues.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache as call_once
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import expm

from molecular_qubits import electronic, fields
from molecular_qubits.electronic.broken_symmetry import StateRunner
from molecular_qubits.electronic.errors import SCFNotConvergedError, WrongStateError
from molecular_qubits.electronic.scf import SCFSettings, Workspace
from molecular_qubits.fields.alignments import enumerate_determinants
from molecular_qubits.fields.guesses import density_of
from molecular_qubits.fields.populations import square_root
from molecular_qubits.structure import pyscf_input
from molecular_qubits.structure.library import library_entry, start_geometry
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.relaxation import cached_relaxation
from molecular_qubits.units import HARTREE_TO_CM1
from shared.artifacts import Cache, hash_code, provenance, versions, write_json
from shared.cli import run_command
from shared.parallel import seeds_for
from shared.progress import say, track

PATH = Path(__file__).resolve().parent / "data" / "perturbed_guesses.json"
SYSTEMS = (
    "h-he-h", "formylmethyl-nitroxide", "naphthylmethyl-nitroxide", "methylene-bis-nitroxide", "tetramethyleneethane",
)  # fmt: skip
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

    Each outcome is kept in the user's cache folder for the same code: an interrupted run continues after its last seed.

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
    molecule, centres, spins = system(name)
    settings, strength = FIELDS[field], float(strength)
    determinants = enumerate_determinants(spins)
    cache = Cache(name="guesses")
    key = {
        "kind": "perturbed guesses",
        "molecule": molecule.to_dict(),
        "centres": centres,
        "spins": spins,
        "settings": settings.to_dict(),
        "strength": strength,
        "seeds": seeds,
        "versions": versions(("numpy", "scipy", "pyscf")),
        "code": _code(),
    }

    def make() -> list[dict[str, Any]]:
        folder = cache.work_folder(key)
        path = folder / "finished.json"
        outcomes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        if outcomes:
            say(f"{name}, rotations of {strength:g}: continues after {len(outcomes)} of {seeds} seeds.")
        workspace = Workspace(molecule, settings)
        usual = StateRunner(workspace, centres, spins, Cache(folder, name="usual"), stability=False)
        expected = [usual.run(determinant)[0].energy_hartree for determinant in determinants]
        for seed in track(seeds_for(20, seeds)[len(outcomes) :], f"{name}, rotations of {strength:g}"):
            with tempfile.TemporaryDirectory() as temporary:  # from a checkpoint it would draw other random numbers
                runner = PerturbedRunner(
                    workspace, centres, spins, Cache(temporary), stability=False, strength=strength, seed=seed
                )
                outcomes.append(asdict(_outcome(runner, determinants, expected)))
            write_json(path, outcomes)
        return outcomes

    return [Outcome(**outcome) for outcome in cache.record("outcomes.json", key, make)]


def _outcome(runner: StateRunner, determinants: Sequence[tuple[int, ...]], expected: Sequence[float]) -> Outcome:
    """Run the determinants and compare their energies with the expected ones in hartree."""
    try:
        found = [runner.run(determinant)[0].energy_hartree for determinant in determinants]
    except (SCFNotConvergedError, WrongStateError) as error:
        return Outcome("refused", None, str(error))
    deviation = max(((a - b) * HARTREE_TO_CM1 for a, b in zip(found, expected, strict=True)), key=abs)
    return Outcome("right" if abs(deviation) < SAME_CM1 else "wrong", deviation)


@call_once
def _code() -> str:
    """Return the hash of the code that outcomes depend on, as it was when the process began with them."""
    folders = (Path(str(package.__file__)).parent for package in (electronic, fields))
    return hash_code(__file__, pyscf_input.__file__, *folders)


def count(outcomes: list[Outcome]) -> dict[str, int]:
    """Return how many runs ended right, refused and wrong."""
    return {kind: sum(found.kind == kind for found in outcomes) for kind in ("right", "refused", "wrong")}


def read() -> dict[str, Any]:
    """Return the committed rows: runs that ended right, refused and wrong for each system, field and strength."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> int:
    """Run systems and strengths and write the committed file; all other rows stay in it."""
    parser = argparse.ArgumentParser(
        prog="python -m molecular_qubits.experiments.perturbed_guesses", description=__doc__
    )
    parser.add_argument("--seeds", type=int, default=50, help="runs of each row; one of fewer is made again")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--strengths", nargs="+", type=float, default=list(STRENGTHS), metavar="RADIANS")
    parser.add_argument("--field", choices=tuple(FIELDS), default="exact")
    parser.add_argument(
        "--again", action="store_true", help="make rows that are there, too; runs of the same code come from the cache"
    )
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1 or min(arguments.strengths) <= 0:
        parser.error("--seeds must be at least 1 and --strengths positive")

    def compute() -> None:
        for name in arguments.systems:
            for strength in arguments.strengths:
                known = _rows().get((SYSTEMS.index(name), arguments.field, strength))
                if known is not None and known["seeds"] >= arguments.seeds and not arguments.again:
                    say(f"{name}, {arguments.field}, rotations of {strength:g}: the row is there; see --again.")
                    continue
                keep(name, strength, run(name, arguments.seeds, strength, arguments.field), arguments.field)

    return run_command(compute)


def keep(name: str, strength: float, outcomes: list[Outcome], field: str = "exact") -> None:
    """Write the row of one system, field and strength, in place of an older one."""
    wrong = [found.deviation_cm1 for found in outcomes if found.kind == "wrong"]
    row: dict[str, Any] = {"system": name, "field": field, "rotation (rad)": strength, "seeds": len(outcomes)}
    row |= count(outcomes)
    row["deviations_cm1"] = [round(x, 3) for x in wrong if x is not None]
    row["provenance"] = provenance()
    rows = _rows() | {_place(row): row}
    write_json(PATH, {"rows": [rows[place] for place in sorted(rows)]})


def _rows() -> dict[tuple[int, str, float], dict[str, Any]]:
    """Return the rows of the committed file, if there is one, by their places."""
    return {_place(row): row for row in (read()["rows"] if PATH.exists() else [])}


def _place(row: dict[str, Any]) -> tuple[int, str, float]:
    return SYSTEMS.index(row["system"]), row["field"], row["rotation (rad)"]


if __name__ == "__main__":
    raise SystemExit(main())
