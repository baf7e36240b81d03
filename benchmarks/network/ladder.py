"""The simulators of a network, each beside the one below it on the same circuits; what they cost; the targets.

``python -m benchmarks.network.ladder`` runs all parts (some minutes), ``--only targets`` one; ``--figures`` draws the
committed data.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.network.ladder_figures import draw_agreement, draw_cost
from molecular_qubits import Coupler, Microwaves, MolecularNetwork, Optics, run_circuit
from molecular_qubits.network import simulate_channels, simulate_levels, simulate_mps
from molecular_qubits.network.clifford import twirled_program
from molecular_qubits.network.examples import random_layers, square_edges
from molecular_qubits.network.noise import GateChannels, NoiseSettings
from molecular_qubits.network.result import CircuitResult
from molecular_qubits.network.schedule import Schedule
from molecular_qubits.network.simulate import compiled, memory_needed, program_of
from shared.artifacts import provenance, versions, write_json
from shared.cli import run_command
from shared.progress import track
from shared.results import markdown_table

DATA = Path(__file__).resolve().parent / "data"
PARTS = ("agreement", "cost", "targets")
CHAIN = 4
"""Up to so many radicals a chain, beyond that a lattice."""

SHAPES = {
    "lindblad": ((1, 2), (1, 3), (1, 4)),
    "channels": ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 3), (2, 5), (3, 4)),
    "trajectories": ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 3), (2, 5), (3, 4), (2, 7), (4, 4)),
    "mps": ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 3), (2, 5), (3, 4), (2, 7), (2, 10)),
    "stim": ((1, 4), (2, 4), (3, 3), (4, 4), (6, 6), (10, 10), (18, 18), (32, 32), (50, 50)),
}
"""Rows and columns of the networks of each rung."""


def lattice(rows: int, columns: int) -> MolecularNetwork:
    """Return a square lattice of 4 nm whose narrow lines let the wavelengths suffice; one row is a chain.

    Tips may overlap, so that as much happens at once as the circuit allows: the harder case for the simulators.
    """
    settings: dict[str, Any] = {
        "couplers": Coupler(linewidth_cm1=60.0),
        "microwaves": Microwaves(addressing="local"),
        "optics": Optics(apart_nm=0.0),
    }
    if rows == 1:
        return MolecularNetwork.chain(columns, 4.0, **settings)
    return MolecularNetwork.square(rows, columns, 4.0, **settings)


def circuit(rows: int, columns: int, depth: int, *, clifford: bool, seed: int = 1) -> str:
    """Return random layers on the bonds of a lattice."""
    return random_layers(rows * columns, square_edges(rows, columns), depth, seed, clifford=clifford)


def difference(found: CircuitResult, exact: CircuitResult) -> dict[str, float | None]:
    """Return how far two results are apart; the standard error is that of the fidelity."""
    assert found.fidelity is not None
    assert exact.fidelity is not None
    error = float(np.hypot(found.fidelity_error, exact.fidelity_error))
    worst = None
    if found.probabilities is not None and exact.probabilities is not None:
        worst = float(np.abs(found.probabilities - exact.probabilities).max())
    return {
        "fidelity": exact.fidelity,
        "error of F": abs(found.fidelity - exact.fidelity),
        "largest error of <Z>": float(np.abs(found.z - exact.z).max()),
        "largest error of p": worst,
        "standard error of F": error,
    }


def agreement(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Yield one row for each pair of neighbouring rungs and each circuit."""
    shots = 500 if quick else 4000
    off = NoiseSettings().without(*simulate_levels.NOT_IN_LEVELS)
    for n in (2,) if quick else (2, 3, 4):
        network = lattice(1, n)
        schedule = compiled(network, circuit(1, n, 4, clifford=False))
        levels = run_circuit(network, schedule, method="lindblad")
        own = GateChannels.from_network(network, off)
        simulate_levels.use_level_gates(own, simulate_levels.switches(network))
        exact = run_circuit(own, schedule, method="channels")
        yield row("channels (gates of the levels)", "lindblad", 1, n, 4, difference(exact, levels))
        formula = run_circuit(network, schedule, method="channels", noise=off)
        yield row("channels (gates by formula)", "lindblad", 1, n, 4, difference(formula, levels))
    for rows, columns, depth in ((2, 2, 4),) if quick else ((2, 2, 20), (2, 3, 20), (2, 4, 20), (3, 3, 20), (2, 5, 10)):
        network = lattice(rows, columns)
        schedule = compiled(network, circuit(rows, columns, depth, clifford=False))
        exact = run_circuit(network, schedule, method="channels")
        kets = run_circuit(network, schedule, method="trajectories", shots=shots)
        yield row("trajectories", "channels", rows, columns, depth, difference(kets, exact))
        chain = run_circuit(network, schedule, method="mps")
        yield row("mps", "channels", rows, columns, depth, difference(chain, exact))
        cut = run_circuit(network, schedule, method="mps", max_bond=64)
        yield row("matrix products (bond 64)", "channels", rows, columns, depth, difference(cut, exact))
    if not quick:
        network = lattice(2, 7)  # too many for the density matrix
        schedule = compiled(network, circuit(2, 7, 6, clifford=False))
        kets = run_circuit(network, schedule, method="trajectories", shots=shots)
        chain = run_circuit(network, schedule, method="mps", max_bond=256, cutoff=1e-10)
        yield row("matrix products (bond 256)", "trajectories", 2, 7, 6, difference(chain, kets))
    for rows, columns, depth in ((2, 2, 4),) if quick else ((2, 2, 20), (2, 4, 20), (3, 3, 10), (2, 7, 4), (2, 12, 4)):
        network = lattice(rows, columns)
        program = program_of(network, circuit(rows, columns, depth, clifford=True))
        small = rows * columns <= 10
        below = simulate_channels.simulate if small else simulate_mps.simulate
        exact = below(program, 1, 0)
        twirled = below(twirled_program(program), 1, 0)
        found = run_circuit(network, circuit(rows, columns, depth, clifford=True), method="stim", shots=20 * shots)
        rung = "channels" if small else "mps"
        yield row("stim", f"{rung}, twirled", rows, columns, depth, difference(found, twirled))
        yield row("twirl", rung, rows, columns, depth, difference(twirled, exact))


def row(rung: str, below: str, rows: int, columns: int, depth: int, values: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table of agreement."""
    return {"rung": rung, "beside": below, "radicals": rows * columns, "layers": depth, **values}


def timed(network: MolecularNetwork, schedule: Schedule, method: Any, shots: int) -> dict[str, Any]:
    """Return the seconds of one run and the memory that it was expected to take."""
    start = time.perf_counter()
    found = run_circuit(network, schedule, method=method, shots=shots, memory_limit_gib=16.0)
    sites = {site for operation in schedule.operations for site in operation.sites}
    bonds = {frozenset(operation.sites) for operation in schedule.operations if operation.name == "coupler"}
    return {
        "seconds": time.perf_counter() - start,
        "GiB expected": memory_needed(method, len(sites), len(bonds), shots),
        "fidelity": found.fidelity,
        "standard error of F": found.fidelity_error,
    }


def cost(quick: bool = False, depth: int = 4, shots: int = 1000, longest: float = 60.0) -> Iterator[dict[str, Any]]:
    """Yield the seconds of each rung against the number of radicals, same circuits (Clifford, so that all can)."""
    for method, shapes in SHAPES.items():
        for rows, columns in shapes[:2] if quick else shapes:
            network = lattice(rows, columns)
            schedule = compiled(network, circuit(rows, columns, depth, clifford=True))
            if not quick and rows * columns <= CHAIN + 2:
                timed(network, schedule, method, 10)  # compiled kernels and tables of gates are made once
            found = timed(network, schedule, method, shots)
            yield {"rung": method, "radicals": rows * columns, "layers": depth, "shots": shots, **found}
            if found["seconds"] > longest:
                break


def targets(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Yield one row for each target of the specification: what it took or differed, and what was allowed."""
    size, depth = (2, 4) if quick else (3, 20)
    network = lattice(size, size)
    for method in ("channels", "trajectories", "mps"):
        start = time.perf_counter()
        found = run_circuit(network, circuit(size, size, depth, clifford=False), method=method, shots=1000)
        seconds = time.perf_counter() - start
        yield target(f"{size} x {size}, {depth} layers, {method}", seconds, 300.0, "s", found)
    size = 4 if quick else 32
    seconds_of = []
    for _ in range(1 if quick else 3):
        start = time.perf_counter()
        network = lattice(size, size)
        found = run_circuit(network, circuit(size, size, 10, clifford=True), method="stim", shots=1000)
        seconds_of.append(time.perf_counter() - start)
    name = f"{size * size} radicals, 10 twirled layers, 1000 shots, network and compiler included"
    yield target(name, statistics.median(seconds_of), 60.0, "s", found)
    network = lattice(2, 2 if quick else 4)
    schedule = compiled(network, circuit(2, network.n_sites // 2, depth, clifford=False))
    chain, exact = (run_circuit(network, schedule, method=method) for method in ("mps", "channels"))
    values = difference(chain, exact)
    worst = max(float(values[key] or 0.0) for key in ("error of F", "largest error of <Z>", "largest error of p"))
    yield target(f"matrix products beside exact channels, {network.n_sites} radicals", worst, 1e-4, "", chain)


def target(name: str, value: float, limit: float, unit: str, found: CircuitResult) -> dict[str, Any]:
    """Return a row of the table of targets."""
    return {
        "target": name, "found": value, "allowed": limit, "unit": unit, "holds": value <= limit,
        "fidelity": found.fidelity, "standard error of F": found.fidelity_error,
    }  # fmt: skip


def run(out: Path, parts: Sequence[str], quick: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Run parts and write ``agreement.json``, ``cost.json``, ``targets.json`` and the figures."""
    made = {"agreement": agreement, "cost": cost, "targets": targets}
    found = {}
    for part in parts:
        start = time.monotonic()
        rows = list(track(made[part](quick), part))
        record = {"rows": rows, "packages": versions(("numpy", "numba", "quimb", "stim"))}
        write_json(out / f"{part}.json", record | {"provenance": provenance({}, time.monotonic() - start)})
        found[part] = rows
        print(markdown_table(rows, digits=3))
    draw(out, out)
    return found


def draw(data: Path, out: Path) -> None:
    """Draw the figures of the parts that a folder holds."""
    from shared.plotting import save_figure, style

    with style():
        for part, figure in (("agreement", draw_agreement), ("cost", draw_cost)):
            if (data / f"{part}.json").is_file():
                rows = json.loads((data / f"{part}.json").read_text(encoding="utf-8"))["rows"]
                save_figure(figure(rows), out / f"ladder_{part}")


def main() -> int:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network.ladder", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/network"), help="(default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--figures", action="store_true", help="draw the committed data only")
    arguments = parser.parse_args()
    if arguments.figures:
        return run_command(lambda: draw(DATA, arguments.out))
    return run_command(lambda: run(arguments.out, arguments.only))


if __name__ == "__main__":
    raise SystemExit(main())
