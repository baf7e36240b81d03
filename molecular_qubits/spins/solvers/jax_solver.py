"""Batched propagation with JAX in double precision: the same generators, one compiled program for many problems.

exp(A) - 1 is built by a Taylor series of A / 2^s and s doublings F -> 2 F + F^2. Carrying exp(A) - 1 in place of
exp(A) keeps the relative precision of slow decays that would drown beside 1. Double precision is switched on inside
these functions only (`jax.enable_x64`), not for the process.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from molecular_qubits.spins.liouvillian import ReducedProblem, reduce_problem
from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.problem import Problem

TAYLOR_ORDER = 8
SCALED_NORM = 1 / 16


def solve(problem: Problem) -> ComplexArray:
    """Propagate one problem; see `solve_batch`.

    Returns
    -------
    ndarray of complex, shape (n, D, D)
    """
    return solve_batch([problem])[0]


def solve_batch(problems: Sequence[Problem], batch_size: int = 32) -> list[ComplexArray]:
    """Propagate problems with the same times and the same pieces, e.g. a sweep over a parameter.

    Parameters
    ----------
    problems
        Their Hamiltonians, jump operators and initial states may differ.
    batch_size
        Problems propagated at once, which bounds the memory.

    Returns
    -------
    list of ndarray of complex, shape (n, D, D)

    Raises
    ------
    ValueError
        If the times, the pieces or the dimensions differ.
    """
    import jax

    if batch_size < 1:
        raise ValueError(f"Argument `batch_size` must be at least 1, but was {batch_size}.")
    _check_alike(problems)
    first = problems[0]
    if not first.pieces:
        return [problem.initial[None] for problem in problems]
    reduced = [reduce_problem(problem) for problem in problems]
    elements = np.unique(np.concatenate([one.elements for one in reduced]))
    unique, steps, wanted = _plan(first)
    states: list[ComplexArray] = []
    for begin in range(0, len(problems), batch_size):
        chunk = reduced[begin : begin + batch_size]
        generators, initial = zip(*(_on_elements(one, elements) for one in chunk), strict=True)
        stack = np.array(generators)
        norms = np.abs(stack).sum(axis=-1).max(axis=(0, 2))
        longest = max(float(norms[piece]) * duration for piece, duration in unique)
        squarings = max(0, int(np.ceil(np.log2(max(longest, 1e-300) / SCALED_NORM))))
        with jax.enable_x64(True):
            found = _compiled(squarings)(
                stack,
                np.array(initial),
                np.array([piece for piece, _ in unique]),
                np.array([duration for _, duration in unique]),
                np.array(steps),
            )
        for one, values in zip(chunk, np.asarray(found), strict=True):
            whole = np.zeros((len(wanted) + 1, first.dimension**2), dtype=complex)
            whole[0, one.elements] = one.initial
            whole[1:, elements] = values[wanted]
            states.append(one.density(whole[:, one.elements]))
    return states


def expm1(matrix: Any, squarings: int) -> Any:
    """Return exp(matrix) - 1, differentiable.

    Parameters
    ----------
    matrix
        JAX array (n, n).
    squarings
        Number s of doublings; the norm of matrix / 2^s should be at most 1/16 for double precision.
    """
    import jax
    import jax.numpy as jnp

    scaled = matrix * (0.5**squarings)
    identity = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    series = identity
    for order in range(TAYLOR_ORDER, 1, -1):
        series = identity + scaled @ series / order
    return jax.lax.fori_loop(0, squarings, lambda _, f: 2 * f + f @ f, scaled @ series)


def propagate(generators: Any, initial: Any, pieces: Any, durations_ns: Any, steps: Any, squarings: int) -> Any:
    """Propagate element values over steps; pure JAX, so that it can be batched and differentiated.

    Parameters
    ----------
    generators
        (p, n, n) generators in 1/ns.
    initial
        (n,) values at the start.
    pieces, durations_ns
        (u,) the different steps: which generator and how long.
    steps
        (k,) the order in which they are taken, indices into the different steps.
    squarings
        See `expm1`.

    Returns
    -------
    jax.Array, shape (k, n)
        Values after each step.
    """
    import jax

    increments = jax.lax.map(lambda one: expm1(generators[one[0]] * one[1], squarings), (pieces, durations_ns))

    def advance(values: Any, step: Any) -> tuple[Any, Any]:
        after = values + increments[step] @ values
        return after, after

    return jax.lax.scan(advance, initial, steps)[1]


_PROGRAMS: dict[int, Any] = {}


def _compiled(squarings: int) -> Any:
    import jax

    if squarings not in _PROGRAMS:
        one = partial(propagate, squarings=squarings)
        _PROGRAMS[squarings] = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None)))
    return _PROGRAMS[squarings]


def _check_alike(problems: Sequence[Problem]) -> None:
    if not problems:
        raise ValueError("Argument `problems` must hold at least one problem, but was empty.")
    first = problems[0]
    cuts = [(piece.start_ns, piece.stop_ns) for piece in first.pieces]
    for number, problem in enumerate(problems[1:], start=1):
        if problem.dims != first.dims or not np.array_equal(problem.times_ns, first.times_ns):
            raise ValueError(f"Argument `problems` must share dimensions and times, but problem {number} differs.")
        if [(piece.start_ns, piece.stop_ns) for piece in problem.pieces] != cuts:
            raise ValueError(f"Argument `problems` must share pulse times, but problem {number} differs.")


def _plan(problem: Problem) -> tuple[list[tuple[int, float]], list[int], list[int]]:
    """Return the different steps, their order, and after which of them a state is wanted."""
    keys: dict[str, int] = {}
    unique: list[tuple[int, float]] = []
    steps: list[int] = []
    wanted: list[int] = []
    for number, piece in enumerate(problem.pieces):
        now = piece.start_ns
        stops = [(float(time), True) for time in piece.times_ns]
        if not stops or stops[-1][0] < piece.stop_ns:
            stops.append((piece.stop_ns, False))
        for time, is_output in stops:
            key = f"{number}:{time - now:.12e}"
            if key not in keys:
                keys[key] = len(unique)
                unique.append((number, time - now))
            steps.append(keys[key])
            if is_output:
                wanted.append(len(steps) - 1)
            now = time
    return unique, steps, wanted


def _on_elements(reduced: ReducedProblem, elements: np.ndarray) -> tuple[ComplexArray, ComplexArray]:
    place = np.searchsorted(elements, reduced.elements)
    size = len(elements)
    generators = np.zeros((len(reduced.pieces), size, size), dtype=complex)
    for number, piece in enumerate(reduced.pieces):
        generators[number][np.ix_(place, place)] = piece.dissipator - 1j * np.diag(piece.frequencies)
    initial = np.zeros(size, dtype=complex)
    initial[place] = reduced.initial
    return generators, initial
