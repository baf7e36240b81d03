"""Powder spectra: seconds for 5,000 orientations, and resonance fields beside Belford's eigenfields.

Eigenfields are the exact fields of every pair of levels from one generalised eigenvalue problem of dimension D^2 for
each orientation; both sides run on the same orientations in turn, and the largest difference of their fields is given.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg

from molecular_qubits import SpinSystem, epr_spectrum
from molecular_qubits.experiments.epr import measured_multiplets, multiplet_system, unit_system
from molecular_qubits.spins.epr.orientations import powder_orientations
from molecular_qubits.spins.epr.resonances import find_resonances
from molecular_qubits.spins.epr.spectrum import level_populations
from molecular_qubits.spins.tensors import zfs_tensor
from shared.artifacts import provenance, write_json
from shared.cli import run_command
from shared.results import markdown_table

FREQUENCY_GHZ = 9.5
RANGE_TESLA = (0.28, 0.40)


def systems() -> dict[str, SpinSystem]:
    """Return the spin systems by name."""
    quintet = next(row for row in measured_multiplets() if row["S"] == 2)
    return {
        "quintet, axial": multiplet_system(quintet),
        "quintet, rhombic": SpinSystem((2,), g=2.0043, zfs={0: zfs_tensor(0.013, 0.002)}),
        "quintet, no symmetry": SpinSystem(
            (2,), g=[np.diag([2.002, 2.004, 2.006])], zfs={0: zfs_tensor(0.013, 0.002, _turned(0.4))}
        ),
        "radical, triplet, radical (12 levels)": unit_system(quintet, 300.0),
    }


def _turned(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def spectrum_seconds(system: SpinSystem, rounds: int, n_orientations: int) -> float:
    """Return the median seconds of a thermal powder spectrum of 1,201 fields, after one call to warm up."""
    fields = np.linspace(*RANGE_TESLA, 1201)
    seconds = []
    for count in [100] + [n_orientations] * rounds:
        start = time.perf_counter()
        epr_spectrum(system, fields, FREQUENCY_GHZ, temperature_k=80.0, n_orientations=count)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def against_eigenfields(system: SpinSystem, rounds: int, n_orientations: int) -> dict[str, float]:
    """Return seconds an orientation of both, and the largest distance of our fields from the nearest eigenfield."""
    directions = powder_orientations(system, n_orientations).directions
    populations = level_populations(system, 80.0)
    ours, theirs = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        lines = find_resonances(system, FREQUENCY_GHZ, RANGE_TESLA, directions, populations)
        ours.append((time.perf_counter() - start) / len(directions))
        start = time.perf_counter()
        exact = [eigenfields(system, direction) for direction in directions]
        theirs.append((time.perf_counter() - start) / len(directions))
    pairs = zip(lines.direction, lines.field_tesla, strict=True)
    return {
        "ours (ms an orientation)": 1e3 * statistics.median(ours),
        "eigenfields (ms an orientation)": 1e3 * statistics.median(theirs),
        "times faster": statistics.median(theirs) / statistics.median(ours),
        "largest difference (T)": max(float(np.min(np.abs(exact[n] - field))) for n, field in pairs),
    }


def eigenfields(system: SpinSystem, direction: np.ndarray) -> np.ndarray:
    """Return the real eigenfields, see R. L. Belford et al., J. Magnetic Resonance 11, 251 (1973)."""
    zero = system.hamiltonian_matrix(0.0)
    slope = system.hamiltonian_matrix(direction) - zero
    one = np.eye(len(zero))
    left = 2 * np.pi * FREQUENCY_GHZ * np.eye(len(zero) ** 2) - np.kron(zero, one) + np.kron(one, zero.conj())
    fields = scipy.linalg.eigvals(left, np.kron(slope, one) - np.kron(one, slope.conj()))
    return fields[np.isfinite(fields) & (np.abs(fields.imag) < 1e-6)].real


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print its tables and write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epr", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side (default 5)")
    parser.add_argument("--orientations", type=int, default=5000, help="of the spectra (default 5,000)")
    parser.add_argument("--json", type=Path, default=Path("results/benchmarks/epr.json"), help="file of the results")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1 or arguments.orientations < 1:
        parser.error("--rounds and --orientations must be at least 1")
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    start = time.perf_counter()
    spectra: list[dict[str, Any]] = []
    fields: list[dict[str, Any]] = []
    for name, system in systems().items():
        seconds = spectrum_seconds(system, arguments.rounds, arguments.orientations)
        spectra.append({"system": name, "orientations": arguments.orientations, "seconds": seconds})
        compared = min(arguments.orientations, 40 if system.dimension > 5 else 400)
        fields.append({"system": name} | against_eigenfields(system, arguments.rounds, compared))
    print(f"\n{markdown_table(spectra)}\n\n{markdown_table(fields)}")
    record = {"spectra": spectra, "eigenfields": fields}
    write_json(arguments.json, record | {"provenance": provenance(None, time.perf_counter() - start)})


if __name__ == "__main__":
    sys.exit(main())
