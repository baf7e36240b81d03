"""Batched propagation with JAX in double precision: one compiled program for all problems of a sweep.

Each problem goes to the eigenbasis of its Hamiltonian, where only the elements of the density matrix that are ever
reached are kept (`real_generator`). Equal pieces and equal steps share one exponential. Double precision is switched on
inside these functions only (`jax.enable_x64`), not for the process.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.problem import Piece, Problem
from molecular_qubits.spins.solvers.real_generator import (
    Elements,
    FramedProblem,
    assemble,
    expm1_real,
    frame_problem,
    gains,
    jump_places,
    reached_elements,
)
from shared.progress import progress


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
        Problems handed to the compiled program at once, which bounds the memory.

    Returns
    -------
    list of ndarray of complex, shape (n, D, D)

    Raises
    ------
    ValueError
        If the times, the pieces or the dimensions differ.
    """
    if batch_size < 1:
        raise ValueError(f"Argument `batch_size` must be at least 1, but was {batch_size}.")
    check_alike(problems)
    if not problems[0].pieces:
        return [problem.initial[None] for problem in problems]
    states: list[ComplexArray] = []
    with progress("sweep", total=len(problems)) as step:
        for begin in range(0, len(problems), batch_size):
            chunk = problems[begin : begin + batch_size]
            states += _solve_chunk(chunk, min(batch_size, len(problems)))
            step(len(chunk))
    return states


def _solve_chunk(problems: Sequence[Problem], size: int) -> Iterator[ComplexArray]:
    import jax

    different, piece_of = _different_pieces(problems)
    framed = [frame_problem(problem, different) for problem in problems]
    places = jump_places(framed)
    gain = np.array([gains(problem, places) for problem in framed])
    rest = _rest(framed)
    elements = _elements(framed, gain, places, rest)
    unique, steps, wanted = _plan(problems[0], piece_of)
    initial = elements.vector(np.array([problem.initial for problem in framed]))
    stack = [
        np.array([problem.effective for problem in framed]), gain, initial,
        np.array([problem.vectors for problem in framed]),
    ]  # fmt: skip
    if rest is not None:
        stack.append(rest)
    # A shorter last chunk is filled up, so that it does not compile another program.
    missing = size - len(problems)
    fill = [np.concatenate([part, np.repeat(part[:1], missing, axis=0)]) if missing else part for part in stack]
    with jax.enable_x64(True):
        program = _program(
            places.tobytes(), elements.dimension,
            *(part.tobytes() for part in (elements.populations, elements.rows, elements.columns)),
        )  # fmt: skip
        plan = (np.array([p for p, _ in unique]), np.array([t for _, t in unique]), np.array(steps))
        found = program((*plan, np.array(wanted, dtype=int)), *fill)
    return (
        np.concatenate([problem.initial[None], values])
        for problem, values in zip(problems, np.asarray(found), strict=False)
    )


@lru_cache(maxsize=64)
def _program(places: bytes, dimension: int, populations: bytes, rows: bytes, columns: bytes) -> Any:
    import jax

    positions = np.frombuffer(places, dtype=int)
    elements = Elements(dimension, *(np.frombuffer(part, dtype=int) for part in (populations, rows, columns)))

    def one(plan: tuple[Any, ...], effective: Any, gain: Any, initial: Any, vectors: Any, *rest: Any) -> Any:
        pieces, durations, steps, wanted = plan
        generators = jax.vmap(lambda e, g, *r: assemble(e, g, positions, elements, *r))(effective, gain, *rest)
        increments = jax.lax.map(lambda step: expm1_real(generators[step[0]] * step[1]), (pieces, durations))

        def advance(values: Any, step: Any) -> tuple[Any, Any]:
            after = values + increments[step] @ values
            return after, after

        states = elements.density(jax.lax.scan(advance, initial, steps)[1][wanted])
        return vectors @ states @ vectors.conj().T

    def many(plan: tuple[Any, ...], *problems: Any) -> Any:
        # One after another, not vmap: large single products run faster than batched ones on a CPU.
        return jax.lax.map(lambda each: one(plan, *each), problems)

    return jax.jit(many)


def _elements(
    framed: Sequence[FramedProblem], gain: ComplexArray, places: np.ndarray, rest: ComplexArray | None
) -> Elements:
    initial = np.any([problem.initial for problem in framed], axis=0)
    effective = np.any([problem.effective for problem in framed], axis=(0, 1))
    return reached_elements(
        initial, effective, np.any(gain, axis=(0, 1)), places, None if rest is None else np.any(rest, axis=(0, 1))
    )


def _rest(framed: Sequence[FramedProblem]) -> ComplexArray | None:
    """Return the generators that are not of Lindblad form of all problems, 0 where a problem has none."""
    shapes = [problem.rest.shape for problem in framed if problem.rest is not None]
    if not shapes:
        return None
    return np.array([np.zeros(shapes[0], complex) if problem.rest is None else problem.rest for problem in framed])


def check_alike(problems: Sequence[Problem]) -> None:
    """Refuse problems that do not share dimensions, times and pulse times."""
    if not problems:
        raise ValueError("Argument `problems` must hold at least one problem, but was empty.")
    first = problems[0]
    cuts = [(piece.start_ns, piece.stop_ns) for piece in first.pieces]
    for number, problem in enumerate(problems[1:], start=1):
        if problem.dims != first.dims or not np.array_equal(problem.times_ns, first.times_ns):
            raise ValueError(f"Argument `problems` must share dimensions and times, but problem {number} differs.")
        if [(piece.start_ns, piece.stop_ns) for piece in problem.pieces] != cuts:
            raise ValueError(f"Argument `problems` must share pulse times, but problem {number} differs.")


def _different_pieces(problems: Sequence[Problem]) -> tuple[list[int], list[int]]:
    """Return the pieces that equal no earlier one in some problem, and for each piece which of these it equals."""
    different: list[int] = []
    piece_of: list[int] = []
    for index in range(len(problems[0].pieces)):
        for place, earlier in enumerate(different):
            if all(_same(problem.pieces[index], problem.pieces[earlier]) for problem in problems):
                piece_of.append(place)
                break
        else:
            piece_of.append(len(different))
            different.append(index)
    return different, piece_of


def _same(one: Piece, other: Piece) -> bool:
    parts = ("hamiltonian", "jumps", "superoperator")
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


def _plan(problem: Problem, piece_of: Sequence[int]) -> tuple[list[tuple[int, float]], list[int], list[int]]:
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
            key = f"{piece_of[number]}:{time - now:.12e}"
            if key not in keys:
                keys[key] = len(unique)
                unique.append((piece_of[number], time - now))
            steps.append(keys[key])
            if is_output:
                wanted.append(len(steps) - 1)
            now = time
    return unique, steps, wanted
