"""Coupler gates, depth and seconds of this compiler beside Qiskit's (SABRE, level 3) and qutip-qip's.

Qiskit is not in the pinned environment. Install it into another one, ``python -m venv F; F/bin/pip install qiskit``,
and give its folder: ``python -m benchmarks.network --peers F/lib/python3.11/site-packages``. Without it its rows are
left out. All compile for the same graph and the same entangling gate, with free rotations about z; medians over seeds.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.network.circuits import ON_CHAIN, ON_LATTICE
from molecular_qubits import Microwaves, MolecularNetwork, Optics, compile_circuit
from molecular_qubits.network.schedule import Schedule
from shared.artifacts import provenance, versions, write_json
from shared.cli import run_command
from shared.progress import track
from shared.results import markdown_table

COMPARED = ("coupler gates", "depth", "seconds")


def lattice(rows: int, entangler: str) -> MolecularNetwork:
    """Return a square lattice whose wavelengths suffice; tips may overlap, as other compilers know of no such limit."""
    microwaves, optics = Microwaves(addressing="local"), Optics(apart_nm=0.0)
    return MolecularNetwork.square(rows, rows, 5.0, entangler=entangler, microwaves=microwaves, optics=optics)


def depth(pairs: Sequence[Sequence[int]], n: int) -> int:
    """Return how many two-qubit gates follow each other at most."""
    level = [0] * n
    for a, b in pairs:
        level[a] = level[b] = max(level[a], level[b]) + 1
    return max(level)


def timed(work: Callable[[int], Any], seeds: int) -> tuple[list[Any], float]:
    """Return the results for each seed and the median seconds, after one run to warm up."""
    work(0)
    results, seconds = [], []
    for seed in range(seeds):
        start = time.perf_counter()
        results.append(work(seed))
        seconds.append(time.perf_counter() - start)
    return results, statistics.median(seconds)


def of_schedules(schedules: Sequence[Schedule]) -> dict[str, float]:
    """Return the median coupler gates, their depth, and rotations."""
    pairs = [[o.sites for o in s.operations if o.name == "coupler"] for s in schedules]
    return {
        "coupler gates": statistics.median(map(len, pairs)),
        "depth": statistics.median(depth(p, s.n_sites) for p, s in zip(pairs, schedules, strict=True)),
        "rotations": statistics.median(sum(o.name == "rotation" for o in s.operations) for s in schedules),
    }


def ours(program: str, network: MolecularNetwork, seeds: int) -> dict[str, float]:
    """Compile with this package, the schedule of light and microwaves included."""
    schedules, seconds = timed(lambda seed: compile_circuit(program, network, seed=seed), seeds)
    return of_schedules(schedules) | {"seconds": seconds}


def with_qiskit(program: str, network: MolecularNetwork, seeds: int) -> dict[str, float]:
    """Compile with Qiskit at its highest level, from text as we do."""
    from qiskit import QuantumCircuit, transpile

    edges = [[a, b] for bond in network.bonds for a, b in (bond.sites, bond.sites[::-1])]
    basis = [network.entangler, "rz", "sx", "x", "rx"]

    def work(seed: int) -> Any:
        circuit = QuantumCircuit.from_qasm_str(program)
        return transpile(circuit, basis_gates=basis, coupling_map=edges, optimization_level=3, seed_transpiler=seed)

    compiled, seconds = timed(work, seeds)
    pairs = [[[c.find_bit(q).index for q in step.qubits] for step in c.data if len(step.qubits) == 2] for c in compiled]
    return {
        "coupler gates": statistics.median(map(len, pairs)),
        "depth": statistics.median(depth(p, network.n_sites) for p in pairs),
        "rotations": statistics.median(
            sum(len(step.qubits) == 1 and step.operation.name != "rz" for step in c.data) for c in compiled
        ),
        "seconds": seconds,
    }


def with_qutip(program: str, n_sites: int) -> dict[str, float]:
    """Compile with the linear spin chain of qutip-qip: SWAPs along the chain, iSWAP and its root."""
    from qutip_qip.device import LinearSpinChain
    from qutip_qip.qasm import read_qasm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        circuit = read_qasm(program.replace('include "qelib1.inc";', ""), strmode=True)
        made = LinearSpinChain(n_sites).transpile(circuit)
        seconds = time.perf_counter() - start
    pairs = [gate.targets for gate in made.gates if gate.name in ("ISWAP", "SQRTISWAP")]
    return {
        "coupler gates": len(pairs),
        "depth": depth(pairs, n_sites),
        "rotations": sum(gate.name == "RX" for gate in made.gates),
        "seconds": seconds,
    }


def compared(name: str, entangler: str, mine: dict[str, float], peer: str, theirs: dict[str, float]) -> dict[str, Any]:
    """Return a row of the table: ours, theirs, and ours over theirs."""
    row: dict[str, Any] = {"circuit": name, "gate": entangler, "peer": peer}
    for key in ("coupler gates", "depth", "rotations"):
        row |= {key: mine[key], f"{key}, peer": theirs[key]}
    ratio = mine["coupler gates"] / theirs["coupler gates"]
    return row | {
        "gates ratio": ratio,
        "seconds": mine["seconds"],
        "seconds, peer": theirs["seconds"],
        "seconds ratio": mine["seconds"] / theirs["seconds"],
    }


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Return our numbers over each peer's: geometric mean, least and most."""
    lines = []
    for peer in dict.fromkeys(row["peer"] for row in rows):
        parts = []
        for key in COMPARED:
            ratios = [row[key] / row[f"{key}, peer"] for row in rows if row["peer"] == peer]
            parts.append(f"{key} {statistics.geometric_mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(f"over {peer}: " + ", ".join(parts))
    return "\n".join(lines)


def run(out: Path, seeds: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Compile everything and write ``compiler.json``."""
    start = time.monotonic()
    rows = []
    try:
        import qiskit  # noqa: F401
    except ImportError:
        print("qiskit is not installed: its rows are left out", file=sys.stderr)
    else:
        cases = [
            (name, entangler) for entangler in ("cz", "iswap") for name in ON_LATTICE if not names or name in names
        ]
        for name, entangler in track(cases, "beside Qiskit"):
            size, make = ON_LATTICE[name]
            network = lattice(size, entangler)
            program = make()
            theirs = with_qiskit(program, network, seeds)
            rows.append(compared(name, entangler, ours(program, network, seeds), "qiskit", theirs))
    for name, (n_sites, make) in ON_CHAIN.items():
        if names and name not in names:
            continue
        settings = {"microwaves": Microwaves(addressing="local"), "optics": Optics(apart_nm=0.0)}
        network = MolecularNetwork.chain(n_sites, 5.0, entangler="iswap", **settings)
        theirs = with_qutip(make(), n_sites)
        rows.append(compared(f"{name}, chain", "iswap", ours(make(), network, seeds), "qutip-qip", theirs))
    record = {"rows": rows, "peers": versions(("qiskit", "qutip-qip"))}
    write_json(out / "compiler.json", record | {"provenance": provenance({"seeds": seeds}, time.monotonic() - start)})
    return rows


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/network"), help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--peers", type=Path, default=None, metavar="FOLDER", help="site-packages that hold qiskit")
    names = tuple(ON_LATTICE | ON_CHAIN)
    text = f"of {', '.join(map(repr, names))} (default: all)"
    parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="NAME", help=text)
    arguments = parser.parse_args()
    if arguments.peers is not None:
        sys.path.append(str(arguments.peers))

    def work() -> None:
        rows = run(arguments.out, arguments.seeds, arguments.only)
        print(markdown_table(rows, digits=3), summary(rows), sep="\n\n")

    return run_command(work, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
