"""A sweep of the 20-level unit beside a loop over `qutip.mesolve`, and the gradient of a pulse beside its forward run.

The sweep changes J around 1 cm^-1 over 10 ns with a light pulse, where an ODE solver works. `evolve_sweep` starts from
the systems, the channels and the state, mesolve from Hamiltonians and jump operators that are ready; both end with
density matrices. mesolve is timed on some points of the sweep, spread evenly, and its time is scaled to all of them. It
is called on each constant piece with the Liouvillian of sparse matrices (with H and c_ops it takes twenty times longer
here), by the default method, Adams, by the fastest ODE method that reaches an error of 1e-8, Verner's of order 7, and
by Krylov subspaces, which are exact once they hold all that is reached. How much of the time passes inside mesolve is
given, too: the rest is making Liouvillians. The exponential solver is the reference of the errors. ``--methods`` times
all methods of mesolve at several tolerances on one point. Linear algebra has one thread, as it is fastest here.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits.control.fidelity import target_gate, transfer_matrix
from molecular_qubits.control.pulses import ControlProblem, PulseFidelity
from molecular_qubits.experiments.dynamics import DynamicsConfig, build_channels, build_unit
from molecular_qubits.spins.evolution import evolve_sweep
from molecular_qubits.spins.operators import embed, spin_matrices
from molecular_qubits.spins.problem import Problem, build_problem
from molecular_qubits.spins.solvers.expm_solver import solve as solve_expm
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import zfs_tensor
from molecular_qubits.spins.trajectory import Trajectory
from shared.artifacts import provenance, write_json
from shared.cli import run_command
from shared.progress import say
from shared.results import markdown_table

CENTRE_CM1, SPREAD_CM1 = 1.0, 0.2
TIMES_NS = np.linspace(0.0, 10.0, 11)
SWEEP, EXACT = "evolve_sweep (JAX)", "evolve, exponential"
MESOLVE: dict[str, dict[str, Any]] = {
    "mesolve, adams": {"method": "adams", "atol": 1e-13, "rtol": 1e-10},
    "mesolve, vern7": {"method": "vern7", "atol": 1e-11, "rtol": 1e-9},
    "mesolve, krylov": {"method": "krylov", "atol": 1e-9, "krylov_dim": 60},
}


def mesolve(problem: Problem, options: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Return the states (n, D, D) of `qutip.mesolve`, piece by piece, and the seconds spent inside it."""
    import qutip

    dims = [list(problem.dims), list(problem.dims)]
    steps = {} if options["method"] in ("krylov", "diag") else {"nsteps": 10**7}
    chosen = {"progress_bar": "", "store_states": True} | steps | options

    def sparse(matrix: np.ndarray) -> Any:
        return qutip.Qobj(np.where(np.abs(matrix) > 1e-14 * np.abs(matrix).max(), matrix, 0), dims=dims).to("CSR")

    state, states, inside = qutip.Qobj(problem.initial, dims=dims), [problem.initial], 0.0
    for piece in problem.pieces:
        generator = qutip.liouvillian(sparse(piece.hamiltonian), [sparse(jump) for jump in piece.jumps])
        times = np.unique(np.concatenate([[piece.start_ns], piece.times_ns, [piece.stop_ns]]))
        begin = time.perf_counter()
        found = qutip.mesolve(generator, state, times, options=chosen).states
        inside += time.perf_counter() - begin
        states += [one.full() for time_ns, one in zip(times, found, strict=True) if time_ns in piece.times_ns]
        state = found[-1]
    return np.array(states), inside


class Sweep:
    """The systems of the sweep, with what they share."""

    def __init__(self, points: int) -> None:
        span = CENTRE_CM1 + SPREAD_CM1 * np.linspace(-1, 1, points)
        self.units = [build_unit(DynamicsConfig(j_rt_cm1=float(j))) for j in span]
        config = DynamicsConfig()
        self.field = config.field_tesla
        self.channels = build_channels(config)
        self.start = self.units[0].thermal_state(config.temperature_k, self.field)  # dark: the same for all

    def problem(self, index: int) -> Problem:
        """Return the problem of one point."""
        return build_problem(self.units[index], self.start, TIMES_NS, self.channels, self.field)

    def all(self) -> list[Trajectory]:
        """Return the trajectories of all points."""
        return evolve_sweep(self.units, self.start, TIMES_NS, channels=self.channels, field_tesla=self.field)


def sweep_rows(points: int, rounds: int, looped: int) -> list[dict[str, Any]]:
    """Return rows for QuTiP and JAX: seconds of the whole sweep, ratio, largest error of an element."""
    sweep = Sweep(points)
    chosen = np.unique(np.linspace(0, points - 1, looped).astype(int))
    seconds: dict[str, list[float]] = {}
    inside: dict[str, list[float]] = {}
    states: dict[str, list[np.ndarray]] = {}
    scale = points / len(chosen)
    problems = [sweep.problem(k) for k in chosen]
    for piece in (piece for problem in problems for piece in problem.pieces):
        _ = piece.jumps, piece.hamiltonian  # kept from now on
    for number in range(rounds + 1):
        begin = time.perf_counter()
        swept = sweep.all()
        taken = time.perf_counter() - begin
        if number == 0:
            say(f"first sweep, with compilation: {taken:.2f} s")
            for options in MESOLVE.values():
                mesolve(problems[0], options)
            continue
        seconds.setdefault(SWEEP, []).append(taken)
        states[SWEEP] = [swept[k].states for k in chosen]
        for label, options in MESOLVE.items():
            begin = time.perf_counter()
            found = [mesolve(problem, options) for problem in problems]
            seconds.setdefault(label, []).append((time.perf_counter() - begin) * scale)
            inside.setdefault(label, []).append(sum(part for _, part in found) * scale)
            states[label] = [one for one, _ in found]
        begin = time.perf_counter()
        states[EXACT] = [solve_expm(problem) for problem in problems]
        seconds.setdefault(EXACT, []).append((time.perf_counter() - begin) * scale)
    medians = {label: statistics.median(values) for label, values in seconds.items()}
    return [
        {
            "method": label,
            "options": _shown(MESOLVE.get(label, {})),
            "points": points,
            "seconds": medians[label],
            "of it inside mesolve": statistics.median(inside[label]) if label in inside else None,
            "this / sweep": medians[label] / medians[SWEEP],
            "largest error": max(
                float(np.max(np.abs(a - b))) for a, b in zip(states[label], states[EXACT], strict=True)
            ),
        }
        for label in (*MESOLVE, EXACT, SWEEP)
    ]


def method_rows() -> list[dict[str, Any]]:
    """Return seconds and errors of all methods of mesolve on one point, at tolerances around an error of 1e-8."""
    sweep = Sweep(2)
    problem = sweep.problem(1)
    exact = solve_expm(problem)
    tried: list[dict[str, Any]] = [
        {"method": method, "atol": 10.0**-power, "rtol": 10.0 ** (2 - power)}
        for method in ("adams", "bdf", "dop853", "tsit5", "vern7", "vern9")
        for power in (10, 11, 12, 13)
    ]
    tried += [{"method": "krylov", "atol": 1e-9, "krylov_dim": size} for size in (20, 40, 50, 60, 100)]
    tried.append({"method": "diag"})
    rows = []
    for options in tried:
        mesolve(problem, options)
        begin = time.perf_counter()
        states, inside = mesolve(problem, options)
        rows.append(
            {
                "method": options["method"],
                "options": _shown(options),
                "seconds": time.perf_counter() - begin,
                "of it inside mesolve": inside,
                "largest error": float(np.max(np.abs(states - exact))),
            }
        )
    return rows


def _shown(options: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in options.items() if key != "method")


def gradient_rows(slices: int, rounds: int) -> list[dict[str, Any]]:
    """Return rows for two radicals, and for radical, triplet and radical: forward run and gradient of a pulse."""
    half = spin_matrices(0.5)
    triple = SpinSystem((0.5, 1, 0.5), exchange_cm1={(0, 1): 0.05, (1, 2): 0.05}, zfs={1: zfs_tensor(0.01)})
    pair = SpinSystem((0.5, 0.5), exchange_cm1={(0, 1): 0.001})
    cases: dict[str, tuple[SpinSystem, tuple[int, int], Any]] = {
        "two radicals (4 levels)": (pair, (0, 1), None),
        "radical, triplet, radical (12 levels)": (triple, (0, 2), np.eye(3, dtype=complex) / 3),
    }
    rows = []
    target = transfer_matrix(target_gate("sqrt-swap"))
    for name, (system, qubits, rest) in cases.items():
        controls = np.array(
            [sum(embed(half, qubit, system.dims)[axis] for qubit in qubits) for axis in (0, 1)], dtype=complex
        )
        static = system.hamiltonian_matrix()[None]
        jumps = np.concatenate([0.1 * embed(half[2:], qubit, system.dims) for qubit in qubits])
        problem = ControlProblem(static, controls, system.dims, qubits, rest, jumps)
        fidelity = PulseFidelity(problem, 20.0, slices, 0.5)
        x = np.random.default_rng(0).normal(0, 0.2, (slices, 2))
        forward, gradient = [], []
        for number in range(rounds + 1):
            begin = time.perf_counter()
            fidelity.value(x, target)
            middle = time.perf_counter()
            fidelity.value_and_gradient(x, target)
            if number:
                forward.append(middle - begin)
                gradient.append(time.perf_counter() - middle)
        both = statistics.median(forward), statistics.median(gradient)
        rows.append(
            {
                "system": name,
                "slices": slices,
                "forward (s)": both[0],
                "value and gradient (s)": both[1],
                "gradient / forward": both[1] / both[0],
            }
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print its tables and write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dynamics", description=__doc__)
    parser.add_argument("--points", type=int, default=1000, help="of the sweep (default 1,000)")
    parser.add_argument("--looped", type=int, default=10, help="points that mesolve is timed on (default 10)")
    parser.add_argument("--slices", type=int, default=100, help="of the pulse (default 100)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, taking turns (default 3)")
    parser.add_argument("--methods", action="store_true", help="time all methods of mesolve on one point as well")
    parser.add_argument("--json", type=Path, default=Path("results/benchmarks/dynamics.json"), help="results")
    arguments = parser.parse_args(argv)
    for name in ("points", "looped", "slices", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, but was {getattr(arguments, name)}")
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    start = time.perf_counter()
    config = DynamicsConfig(j_rt_cm1=CENTRE_CM1)
    print(
        f"J = {CENTRE_CM1 - SPREAD_CM1:g} to {CENTRE_CM1 + SPREAD_CM1:g} cm^-1, field {config.field_tesla:g} T, 10 ns "
        f"with {len(TIMES_NS)} times, light pulse of {config.pulse_duration_ns:g} ns"
    )
    sweep = sweep_rows(arguments.points, arguments.rounds, arguments.looped)
    gradient = gradient_rows(arguments.slices, arguments.rounds)
    print(f"\n{markdown_table(sweep)}\n\n{markdown_table(gradient)}")
    record: dict[str, Any] = {"sweep": sweep, "gradient": gradient}
    if arguments.methods:
        record["methods"] = method_rows()
        print(f"\n{markdown_table(record['methods'])}")
    write_json(arguments.json, record | {"provenance": provenance(None, time.perf_counter() - start)})


if __name__ == "__main__":
    sys.exit(main())
