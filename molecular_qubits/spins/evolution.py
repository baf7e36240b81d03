"""One interface to all solvers of the Lindblad equation."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from molecular_qubits.spins.channels.base import Channel
from molecular_qubits.spins.checks import density_matrix, field_vector, known_name, time_grid
from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.problem import Problem, build_problem, checked_channels, problem_of
from molecular_qubits.spins.system import QuantumSystem
from molecular_qubits.spins.trajectory import Trajectory

Solver = Literal["qutip", "expm", "jax", "trajectories"]

MEMORY_LIMIT_GIB = 4.0
"""Default limit of what a solver with dense generators may need."""


def evolve(
    system: QuantumSystem,
    initial_state: Any,
    times_ns: Any,
    *,
    channels: Sequence[Channel] = (),
    solver: Solver = "qutip",
    field_tesla: Any = 0.0,
    memory_limit_gib: float = MEMORY_LIMIT_GIB,
    n_trajectories: int = 500,
    seed: int = 0,
) -> Trajectory:
    """Solve d rho / dt = -i [H, rho] + sum_k D[L_k] rho.

    Parameters
    ----------
    system
        A `SpinSystem` or `TwoQubitUnit` of dimension D.
    initial_state
        Ket (D,) or density matrix (D, D), array or `qutip.Qobj`, at the first time.
    times_ns
        Strictly increasing times (n,).
    channels
        What acts besides the Hamiltonian: light, decay, relaxation.
    solver
        ``"qutip"``: ODE solver, for short windows (the fastest coherence may turn by 1e7 rad at most) and large
        dimensions. ``"expm"``: exact exponential of the generator, for any time, dense. ``"jax"``: the same by another
        algorithm, compiled and batched; `evolve_sweep` runs many at once. Energies and angles are rounded: a coherence
        that turned by a rad is off by about 1e-16 a with ``"expm"`` and up to 1e-15 a with ``"jax"``, so that they
        agree to 1e-8 up to some 1e7 rad and, for a splitting of 1800 cm^-1 that nothing damps, to 1.4e-6 after 10 us
        and 4e-5 after 0.1 ms (see `jax_solver`). ``"trajectories"``: mean over quantum jumps
        with an error of about 1/sqrt(n), for dimensions whose density matrix is too large to propagate.
    field_tesla
        Field along z (a number) or a vector of three.
    memory_limit_gib
        Memory the dense solvers may need.
    n_trajectories, seed
        Of ``"trajectories"``.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If the state, the times, the field or the solver is not as required, if the dense generator would need more
        than `memory_limit_gib`, if the window is too long for the ODE solver, or if coherent pulses overlap that share
        no frame.
    TypeError
        If a channel does not fit the system.

    Examples
    --------
    >>> from molecular_qubits import SpinSystem, evolve
    >>> from molecular_qubits.spins.channels.relaxation import RadicalRelaxation
    >>> spin = SpinSystem((0.5,), names=("radical",))
    >>> bath = RadicalRelaxation("radical", t1_ns=100.0, temperature_k=300.0)
    >>> evolve(spin, [1, 0], [0.0, 50.0], channels=[bath], solver="expm").populations()[-1].round(6)
    array([0.803265, 0.196735])
    """
    known_name(solver, ("qutip", "expm", "jax", "trajectories"), "solver")
    if solver in ("expm", "jax"):
        check_memory(system.dims, solver, memory_limit_gib)
    else:
        check_states_memory(system.dims, solver, int(np.size(times_ns)), memory_limit_gib)
    problem = build_problem(system, initial_state, times_ns, channels, field_tesla)
    if solver == "trajectories":
        from molecular_qubits.spins.solvers import trajectory_solver

        states = trajectory_solver.solve(problem, n_trajectories, seed)
    else:
        states = _solver(solver)(problem)
    return Trajectory(problem.times_ns, states, problem.dims, problem.names, solver)


def evolve_sweep(
    systems: Sequence[QuantumSystem],
    initial_state: Any,
    times_ns: Any,
    *,
    channels: Sequence[Channel] | Callable[[int], Sequence[Channel]] = (),
    field_tesla: Any = 0.0,
    batch_size: int = 64,
    memory_limit_gib: float = MEMORY_LIMIT_GIB,
) -> list[Trajectory]:
    """Solve the same experiment on many systems at once with JAX.

    Parameters
    ----------
    systems
        Systems with the same sites.
    initial_state
        One state for all, as in `evolve`, or a function of the system's index.
    times_ns
        Times as in `evolve`.
    channels
        Channels for all, or a function of the system's index; pulses must have the same times in all.
    field_tesla
        Field as in `evolve`, or a function of the system's index.
    batch_size
        Systems that a processor propagates at once.
    memory_limit_gib
        As in `evolve`, for each system.

    Returns
    -------
    list of Trajectory

    Raises
    ------
    ValueError
        As in `evolve`, or if the systems differ in their sites or pulse times.
    """
    from molecular_qubits.spins.solvers.jax_solver import solve_batch

    if not systems:
        raise ValueError("Argument `systems` must hold at least one system, but was empty.")
    problems = []
    known: dict[Any, Any] = {}
    times = time_grid(times_ns)
    read_state = _for_each(initial_state, lambda state: density_matrix(state, math.prod(systems[0].dims)))
    read_channels, read_field = _for_each(channels, checked_channels), _for_each(field_tesla, field_vector)
    for index, system in enumerate(systems):
        if system.dims != systems[0].dims:
            raise ValueError(
                f"Argument `systems` must share their sites, but number {index} has the dimensions {system.dims} and "
                f"the first {systems[0].dims}."
            )
        check_memory(system.dims, "jax", memory_limit_gib)
        problems.append(problem_of(system, read_state(index), times, read_channels(index), read_field(index), known))
    states = solve_batch(problems, batch_size)
    return [
        Trajectory(problem.times_ns, found, problem.dims, problem.names, "jax")
        for problem, found in zip(problems, states, strict=True)
    ]


def _for_each(value: Any, check: Callable[[Any], Any]) -> Callable[[int], Any]:
    """Return a function of the index: of a value for all, checked once, or of a function, checked each time."""
    if callable(value) and not hasattr(value, "full"):  # a Qobj is callable, too
        return lambda index: check(value(index))
    checked = check(value)
    return lambda _: checked


def check_memory(dims: Sequence[int], solver: str, limit_gib: float) -> None:
    """Refuse a dimension whose dense generator, with its work space, would exceed a limit.

    Raises
    ------
    ValueError
        With the memory it would take and the solver to use instead.
    """
    dimension = 1
    for d in dims:
        dimension *= d
    needed = 6 * 16 * dimension**4 / 2**30
    if needed > limit_gib:
        raise ValueError(
            f"Argument `solver` must be 'qutip' or 'trajectories' for a system of dimension {dimension}, but was "
            f"{solver!r}: its dense "
            f"generator of {dimension**2} x {dimension**2} needs about {needed:.3g} GiB, more than the limit of "
            f"{limit_gib:g} GiB (`memory_limit_gib`)."
        )


def check_states_memory(dims: Sequence[int], solver: str, n_times: int, limit_gib: float) -> None:
    """Refuse density matrices at all times, with the work space of an ODE solver, that would exceed a limit.

    Raises
    ------
    ValueError
        With the memory it would take and what to do instead.
    """
    dimension = math.prod(dims)
    copies = n_times + (16 if solver == "qutip" else 2)
    needed = 16 * copies * dimension**2 / 2**30
    if needed > limit_gib:
        remedy = "use solver='trajectories' or fewer times" if solver == "qutip" else "use fewer times"
        raise ValueError(
            f"Argument `solver` {solver!r} needs about {needed:.3g} GiB for density matrices of dimension {dimension} "
            f"at {n_times} times, more than the limit of {limit_gib:g} GiB (`memory_limit_gib`); {remedy}, or a "
            f"smaller system."
        )


def _solver(name: str) -> Callable[[Problem], ComplexArray]:
    if name == "qutip":
        from molecular_qubits.spins.solvers.qutip_solver import solve
    elif name == "expm":
        from molecular_qubits.spins.solvers.expm_solver import solve
    else:
        from molecular_qubits.spins.solvers.jax_solver import solve
    return solve
