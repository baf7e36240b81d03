"""A sweep of the 20-level unit beside a loop over `qutip.mesolve`, and the gradient of a pulse beside its forward run.

The sweep changes J around 1 cm^-1 over 10 ns with a light pulse, where an ODE solver works. All sides start from the
same systems and end with density matrices; mesolve is timed on some points of the sweep, spread evenly, and its time
is scaled to all of them. Of QuTiP's methods that reach an error of 1e-8, Verner's of order 7 was the fastest here; the
default, Adams, is timed at tolerances that bring it near. The exponential solver is the reference of the errors.
"""

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
from shared.artifacts import provenance, write_json
from shared.cli import run_command
from shared.progress import say
from shared.results import markdown_table

CENTRE_CM1, SPREAD_CM1 = 1.0, 0.2
TIMES_NS = np.linspace(0.0, 10.0, 11)


def sweep_rows(points: int, rounds: int, looped: int) -> list[dict[str, Any]]:
    """Return rows for QuTiP and JAX: seconds of the whole sweep, ratio, largest error of an element."""
    configs = [DynamicsConfig(j_rt_cm1=float(j)) for j in CENTRE_CM1 + SPREAD_CM1 * np.linspace(-1, 1, points)]
    chosen = np.unique(np.linspace(0, points - 1, looped).astype(int))
    units = [build_unit(config) for config in configs]
    field = configs[0].field_tesla

    def start(index: int) -> np.ndarray:
        return units[index].thermal_state(configs[index].temperature_k, field)

    def channels(index: int) -> Any:
        return build_channels(configs[index])

    def alone(solve: Any, index: int) -> np.ndarray:
        return solve(build_problem(units[index], start(index), TIMES_NS, channels(index), field))

    seconds: dict[str, list[float]] = {}
    states: dict[str, list[np.ndarray]] = {}
    for number in range(rounds + 1):
        begin = time.perf_counter()
        swept = evolve_sweep(units, start, TIMES_NS, channels=channels, field_tesla=field)
        taken = time.perf_counter() - begin
        if number == 0:
            say(f"first sweep, with compilation: {taken:.2f} s")
            continue
        seconds.setdefault(SWEEP, []).append(taken)
        for label, solve in LOOPS.items():
            begin = time.perf_counter()
            states[label] = [alone(solve, k) for k in chosen]
            seconds.setdefault(label, []).append((time.perf_counter() - begin) * points / len(chosen))
    states[SWEEP] = [swept[k].states for k in chosen]
    medians = {label: statistics.median(values) for label, values in seconds.items()}
    return [
        {
            "method": label,
            "points": points,
            "seconds": medians[label],
            "mesolve vern7 / this": medians[VERN7] / medians[label],
            "largest error": max(
                float(np.max(np.abs(a - b))) for a, b in zip(states[label], states[EXACT], strict=True)
            ),
        }
        for label in (*LOOPS, SWEEP)
    ]


def mesolve(problem: Problem, method: str, atol: float, rtol: float) -> np.ndarray:
    """Return the states (n, D, D) of `qutip.mesolve`, piece by piece."""
    import qutip

    dims = [list(problem.dims), list(problem.dims)]
    options = {"method": method, "atol": atol, "rtol": rtol, "nsteps": 10**7, "progress_bar": "", "store_states": True}

    def sparse(matrix: np.ndarray) -> Any:
        return qutip.Qobj(np.where(np.abs(matrix) > 1e-14 * np.abs(matrix).max(), matrix, 0), dims=dims).to("CSR")

    state, states = qutip.Qobj(problem.initial, dims=dims), [problem.initial]
    for piece in problem.pieces:
        generator = qutip.liouvillian(sparse(piece.hamiltonian), [sparse(jump) for jump in piece.jumps])
        times = np.unique(np.concatenate([[piece.start_ns], piece.times_ns, [piece.stop_ns]]))
        found = qutip.mesolve(generator, state, times, options=options).states
        states += [one.full() for time_ns, one in zip(times, found, strict=True) if time_ns in piece.times_ns]
        state = found[-1]
    return np.array(states)


VERN7, EXACT, SWEEP = "mesolve, vern7 (atol 1e-11, rtol 1e-9)", "exponential, one by one", "JAX sweep"
LOOPS: dict[str, Any] = {
    VERN7: lambda problem: mesolve(problem, "vern7", 1e-11, 1e-9),
    "mesolve, adams (atol 1e-13, rtol 1e-10)": lambda problem: mesolve(problem, "adams", 1e-13, 1e-10),
    EXACT: solve_expm,
}


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
    parser.add_argument("--json", type=Path, default=Path("results/benchmarks/dynamics.json"), help="results")
    arguments = parser.parse_args(argv)
    for name in ("points", "looped", "slices", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, but was {getattr(arguments, name)}")
    return run_command(lambda: _run(arguments))


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
    record = {"sweep": sweep, "gradient": gradient, "provenance": provenance(None, time.perf_counter() - start)}
    write_json(arguments.json, record)


if __name__ == "__main__":
    sys.exit(main())
