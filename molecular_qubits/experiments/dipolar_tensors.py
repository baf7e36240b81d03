"""Dipolar coupling of radical and triplet and the triplet's zero-field splitting in the paper's molecules.

``python -m molecular_qubits.experiments.dipolar_tensors`` prints the committed file ``data/dipolar_tensors.json``;
``--measure`` makes it: the quartets of `CALCULATIONS` are computed where the cache lacks them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits.electronic.exchange import ExchangeResult
from molecular_qubits.electronic.spin_density import plane_frame
from molecular_qubits.electronic.spin_spin import partial_spin_tensors
from molecular_qubits.experiments.exchange_report import EXPERIMENTS
from molecular_qubits.experiments.exchange_rows import Calculation, compute
from molecular_qubits.experiments.exchange_studies import STUDIES
from molecular_qubits.fields.populations import atom_of_orbital, lowdin_spins
from molecular_qubits.spins.tensors import point_dipole_tensor
from molecular_qubits.spins.zfs import zfs_quartet
from molecular_qubits.structure.pyscf_input import build_mole
from shared.artifacts import Cache, provenance, write_json
from shared.cli import show_committed

PATH = Path(__file__).resolve().parent / "data" / "dipolar_tensors.json"
CALCULATIONS: tuple[Calculation, ...] = (STUDIES["mono-torsion"][0], STUDIES["verdazyl"][0])
"""A radical and the anthracene triplet each: iminonitroxide, oxoverdazyl."""

MEMORY_MB = 8000.0
"""For the fitted integrals of 55 atoms."""

MEASURED = {"mono": "D_T_plus_D_RT_iminonitroxide", "verdazyl-mono": "D_T_plus_D_RT_verdazyl"}
"""Keys of D_T + D_RT, three times the measured D of the quartet, in ``molecular_experiments.json``."""


def tensors_row(calculation: Calculation, result: ExchangeResult) -> dict[str, Any]:
    """Return D_T and D_RT of the high-spin state of a radical (first centre) and a triplet.

    From its natural orbitals: with all of the unrestricted spin density D_T of an aromatic triplet has the wrong sign.

    Parameters
    ----------
    calculation
        What was computed, for the names.
    result
        Its result, with orbitals.

    Returns
    -------
    dict
        Axial parameters 3/2 D_zz in cm^-1 with z normal to the chromophore's plane, of the triplet, of the coupling and
        of three times the quartet; the coupling also of point dipoles that are the Löwdin spins of the atoms; the
        principal values of the coupling and the angle of its axis to the normal; how much spin is on the parts.
    """
    density, radical, triplet = result.solutions[0].density, *result.centres
    places = np.asarray(result.molecule.coordinates)
    normal = plane_frame(places[list(triplet)])[2]
    parts = partial_spin_tensors(
        result.molecule,
        calculation.basis,
        density,
        result.centres,
        result.spins,
        max_memory_mb=MEMORY_MB,
    )
    local, coupling = parts.zfs_cm1[1], parts.dipolar_cm1[0, 1]
    mole = build_mole(result.molecule, calculation.basis, result.molecule.n_electrons % 2)
    spins = lowdin_spins(density, mole.intor_symmetric("int1e_ovlp"), atom_of_orbital(mole))
    points = point_dipoles_cm1(places[list(radical)], spins[list(radical)], places[list(triplet)], spins[list(triplet)])
    values, vectors = np.linalg.eigh(coupling)
    axis = vectors[:, np.argmax(np.abs(values))]

    def axial(tensor: np.ndarray) -> float:
        return 1.5 * float(normal @ tensor @ normal)

    return {
        "molecule": calculation.molecule,
        "method": f"{calculation.xc}/{calculation.basis}",
        "D_T (cm^-1)": axial(local),
        "D_RT (cm^-1)": axial(coupling),
        "D_RT, point dipoles (cm^-1)": axial(points),
        "3 D of the quartet (cm^-1)": 3 * axial(zfs_quartet(local, coupling)),
        "D_RT, principal values (cm^-1)": [float(value) for value in values],
        "axis of D_RT to the normal (°)": float(np.degrees(np.arccos(min(1.0, abs(axis @ normal))))),
        "spin of the radical": parts.populations[0],
        "spin of the triplet": parts.populations[1],
    }


def point_dipoles_cm1(
    first: np.ndarray, first_spins: np.ndarray, second: np.ndarray, second_spins: np.ndarray
) -> np.ndarray:
    """Return the coupling tensor ``(3, 3)`` of two sets of point spins (g = 2), each normalised, in cm^-1.

    Parameters
    ----------
    first, second
        Places in Å, ``(n, 3)`` and ``(m, 3)``.
    first_spins, second_spins
        Spin populations ``(n,)`` and ``(m,)``.
    """
    weights = np.outer(first_spins / first_spins.sum(), second_spins / second_spins.sum())
    pairs = [(i, j) for i in range(len(first)) for j in range(len(second))]
    tensors = [weights[i, j] * point_dipole_tensor(second[j] - first[i], 2.0, 2.0) for i, j in pairs]
    return np.sum(tensors, axis=0)


def measure(cache: Cache | None = None) -> dict[str, Any]:
    """Return ``rows``, one for each of `CALCULATIONS`, and ``provenance``."""
    start = time.monotonic()
    rows = [tensors_row(calculation, compute(calculation, cache, stability=False)) for calculation in CALCULATIONS]
    settings = {"calculations": [calculation.key() for calculation in CALCULATIONS]}
    return {"rows": rows, "provenance": provenance(settings, time.monotonic() - start)}


def read() -> dict[str, Any]:
    """Return the committed ``rows`` and ``provenance``."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def compared_rows() -> list[dict[str, Any]]:
    """Return the committed rows with D_T + D_RT from the measured D of the quartet, 3 D."""
    measured = json.loads(EXPERIMENTS.read_text(encoding="utf-8"))["inverted_from_experiment"]
    return [row | {"3 D measured (cm^-1)": measured[MEASURED[row["molecule"]]]} for row in read()["rows"]]


def main(argv: list[str] | None = None) -> int:
    """Print the committed rows beside measured ones, computed anew with ``--measure``."""
    program = "python -m molecular_qubits.experiments.dipolar_tensors"
    return show_committed(argv, program, str(__doc__), lambda: write_json(PATH, measure()), _table)


def _table() -> list[dict[str, Any]]:
    names = "D_RT, principal values (cm^-1)"
    return [row | {names: ", ".join(f"{value:+.4f}" for value in row[names])} for row in compared_rows()]


if __name__ == "__main__":
    sys.exit(main())
