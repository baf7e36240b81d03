"""Trace, hermiticity and positivity over many random systems: the largest violation of each."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits import SpinSystem, evolve_sweep
from molecular_qubits.spins.channels.relaxation import PureDephasing, RadicalRelaxation, ThermalRelaxation
from molecular_qubits.spins.tensors import zfs_tensor
from shared.artifacts import provenance, write_json
from shared.cli import run_command
from shared.progress import progress
from shared.results import markdown_table

TIMES_NS = np.array([0.0, 0.3, 20.0, 1e4])
BATCH = 200


def random_batch(seed: int, first: int, count: int) -> tuple[list[SpinSystem], Any, Any, Any]:
    """Return systems of a radical and a triplet, their states, channels and fields; each from a seed of its own."""
    systems, states, channels, fields = [], [], [], []
    for number in range(first, first + count):
        rng = np.random.default_rng((seed, number))
        d = rng.normal(0, 0.1)
        systems.append(
            SpinSystem(
                (0.5, 1),
                g=[tuple(rng.normal(2, 0.01, 3)), tuple(rng.normal(2, 0.01, 3))],
                exchange_cm1={(0, 1): 10 ** rng.uniform(-4, 2) * rng.choice((-1, 1))},
                zfs={1: zfs_tensor(d, rng.uniform(-1, 1) * d / 3)},
                names=("radical", "triplet"),
            )
        )
        root = rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6))
        root = root[:, : rng.integers(1, 7)]
        state = root @ root.conj().T
        states.append(state / np.trace(state).real)
        t1, kelvin = 10 ** rng.uniform(0, 5), 10 ** rng.uniform(0, 2.5)
        channels.append(
            [
                RadicalRelaxation("radical", t1, kelvin, t1 * rng.uniform(0.1, 2)),
                ThermalRelaxation(("radical", "triplet"), 10 ** rng.uniform(-5, -1), kelvin),
                PureDephasing("triplet", 10 ** rng.uniform(-5, -1), tuple(rng.normal(size=3))),
            ]
        )
        fields.append(rng.normal(0, 0.3, 3))
    return systems, states, channels, fields


def violations(systems: int, seed: int) -> dict[str, float]:
    """Return the largest violation of each law over all systems and times."""
    worst = {"trace": 0.0, "hermiticity": 0.0, "positivity": 0.0}
    with progress("random systems", total=systems) as step:
        for first in range(0, systems, BATCH):
            count = min(BATCH, systems - first)
            batch, states, channels, fields = random_batch(seed, first, count)
            runs = evolve_sweep(
                batch, lambda index, s=states: s[index], TIMES_NS, channels=lambda index, c=channels: c[index],
                field_tesla=lambda index, f=fields: f[index],
            )  # fmt: skip
            found = np.array([run.states for run in runs])
            adjoint = found.conj().swapaxes(-1, -2)
            worst["trace"] = max(worst["trace"], float(np.abs(np.einsum("ntii->nt", found) - 1).max()))
            worst["hermiticity"] = max(worst["hermiticity"], float(np.abs(found - adjoint).max()))
            lowest = np.linalg.eigvalsh((found + adjoint) / 2).min()
            worst["positivity"] = max(worst["positivity"], float(max(-lowest, 0.0)))
            step(count)
    return worst


def main(argv: list[str] | None = None) -> int:
    """Evolve random systems, print the largest violations and write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dynamics.laws", description=__doc__)
    parser.add_argument("--systems", type=int, default=100_000, help="number of systems (default 100,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("results/benchmarks/dynamics_laws.json"), help="results")
    arguments = parser.parse_args(argv)
    if arguments.systems < 1:
        parser.error(f"--systems must be at least 1, but was {arguments.systems}")
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    start = time.perf_counter()
    worst = violations(arguments.systems, arguments.seed)
    rows = [{"law": name, "systems": arguments.systems, "largest violation": value} for name, value in worst.items()]
    print(markdown_table(rows))
    record = {"rows": rows, "seed": arguments.seed}
    write_json(arguments.json, record | {"provenance": provenance(None, time.perf_counter() - start)})


if __name__ == "__main__":
    sys.exit(main())
