"""Batched propagation with JAX in double precision: one compiled program for all problems of a sweep.

Each problem goes to the eigenbasis of the Hamiltonian of its system, where only the elements of the density matrix that
are ever reached are kept (`reached`, `real_generator`). The host passes energies, eigenvectors and what the systems
share; generators and exponentials exist only inside the compiled program, one problem at a time on each processor.
Equal pieces and equal steps share one exponential. Double precision is switched on inside these functions only
(`jax.enable_x64`), not for the process.

Unlike `expm_solver` this squares phases along with decays. Rounding grows with the angle a that the fastest coherence
turns by in a step, to 1e-15 a at most: 5e-9 at 3e7 rad; at 3e11 rad (1800 cm^-1 for 1 ms, nothing damped) 2e-5 in the
elements and 3e-5 in the purity.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from molecular_qubits.spins.channels.base import ChannelPiece
from molecular_qubits.spins.liouvillian import block_frames, clean
from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.problem import Piece, Problem
from molecular_qubits.spins.solvers.local_generator import LocalGenerator, all_baths
from molecular_qubits.spins.solvers.reached import Reached, reached_elements
from molecular_qubits.spins.solvers.real_generator import (
    Elements,
    assemble,
    assemble_davies,
    assemble_rest,
    bath_places,
    conserve_trace,
    expm1_real,
    precession,
    rotation,
)
from shared.parallel import cpu_count
from shared.progress import progress


def solve(problem: Problem) -> ComplexArray:
    """Propagate one problem; see `solve_batch`.

    Returns
    -------
    ndarray of complex, shape (n, D, D)
    """
    return solve_batch([problem])[0]


def solve_batch(problems: Sequence[Problem], batch_size: int = 64) -> list[ComplexArray]:
    """Propagate problems with the same times and the same pieces, e.g. a sweep over a parameter.

    Parameters
    ----------
    problems
        Their Hamiltonians, channels and initial states may differ.
    batch_size
        Problems handed to the compiled program at once, which bounds the memory; as many batches run at a time as there
        are processors.

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
    size = min(batch_size, len(problems))
    chunks = [problems[begin : begin + size] for begin in range(0, len(problems), size)]
    known: dict[Any, Any] = {}
    states: list[ComplexArray] = []
    with ThreadPoolExecutor(min(cpu_count(), len(chunks))) as pool, progress("sweep", total=len(problems)) as step:
        try:
            solved = pool.map(lambda each: _solve_chunk(each, size, known), chunks)
            for chunk, found in zip(chunks, solved, strict=True):
                states += found
                step(len(chunk))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return states


def _solve_chunk(problems: Sequence[Problem], size: int, known: dict[Any, Any]) -> list[ComplexArray]:
    import jax

    unique, piece_of = _different_pieces(problems)
    energies, vectors, labels = block_frames(np.array([problem.pieces[0].system_hamiltonian for problem in problems]))
    initial = clean(vectors.conj().swapaxes(1, 2) @ np.array([problem.initial for problem in problems]) @ vectors)
    generators = _local_generators([[problem.pieces[index] for index in unique] for problem in problems], known)
    reached = reached_elements(np.any(initial, axis=0), energies, labels, [one for each in generators for one in each])
    width = 1 << max(len(reached.alike[0]) - 1, 0).bit_length()
    shared: dict[str, Any] = {"places": bath_places(reached.inner, reached.alike, reached.bathed, width)}
    each: dict[str, Any] = {"energies": energies, "vectors": vectors, "initial": reached.inner.vector(initial)}
    made = [_arrays(one, reached, known) for one in generators]
    for name in made[0]:
        if len(made) == 1:
            shared[name] = made[0][name]
        else:
            each[name] = np.array([one[name] for one in made])
    # A shorter last chunk is filled up, so that it does not compile another program.
    missing = size - len(problems)
    if missing:
        each = {name: np.concatenate([part, np.repeat(part[:1], missing, axis=0)]) for name, part in each.items()}
    steps, order, wanted = _plan(problems[0], piece_of)
    plan = (np.array([p for p, _ in steps]), np.array([t for _, t in steps]), np.array(order), np.array(wanted))
    with jax.enable_x64(True):
        program = _program(reached.bathed.tobytes(), *_static(reached.inner), *_static(reached.outer))
        found = np.asarray(program(plan, shared, each))
    return list(found[: len(problems)])


def _local_generators(pieces: Sequence[Sequence[Piece]], known: dict[Any, Any]) -> list[list[LocalGenerator]]:
    """Return the local generators of the pieces of each problem, or of one if they are the same in all."""
    keys = [[tuple(id(part) for part in piece.parts) for piece in each] for each in pieces]
    chosen = pieces[:1] if all(key == keys[0] for key in keys) else pieces
    found = []
    for each, key in zip(chosen, keys, strict=False):
        for piece, one in zip(each, key, strict=True):
            if one not in known:
                known[one] = LocalGenerator.of(piece)
        found.append([known[one] for one in key])
    return found


def _arrays(generators: Sequence[LocalGenerator], reached: Reached, known: dict[Any, Any]) -> dict[str, np.ndarray]:
    """Return what the compiled program needs of the pieces of a problem.

    ``lindblad`` and ``rest`` (p, n, n) in the product basis, ``rest`` only if there is any; ``couplings`` (q, m, d, d)
    of the bathed states, ``rates`` and ``thermals`` (q, m) of each different set of baths; ``bath_of`` (p,), the set of
    each piece.
    """
    outer, bathed = reached.outer, reached.bathed
    key = (tuple(id(one) for one in generators), _static(outer), bathed.tobytes())
    if key in known:
        return known[key]
    baths, bath_of = all_baths(generators)
    most = max(len(one.rates) for one in baths)
    couplings = np.zeros((len(baths), most, len(bathed), len(bathed)), dtype=complex)
    rates, thermals = np.zeros((len(baths), most)), np.ones((len(baths), most))
    for number, one in enumerate(baths):  # those with fewer are filled up with couplings of 0
        count = len(one.rates)
        couplings[number, :count] = one.couplings[:, bathed[:, None], bathed]
        rates[number, :count], thermals[number, :count] = one.rates, one.thermals
    found = {
        "lindblad": np.array([assemble(one.effective, one.gain, one.places, outer) for one in generators]),
        "couplings": couplings,
        "rates": rates,
        "thermals": thermals,
        "bath_of": np.array(bath_of),
    }
    if any(one.rest is not None for one in generators):
        nothing = np.zeros((outer.size, outer.size))
        rests = [one.rest for one in generators]
        found["rest"] = np.array([nothing if rest is None else assemble_rest(rest, outer) for rest in rests])
    known[key] = found
    return found


def _static(elements: Elements) -> tuple[int, bytes, bytes, bytes]:
    return (
        elements.dimension, elements.populations.tobytes(), elements.rows.tobytes(), elements.columns.tobytes()
    )  # fmt: skip


@lru_cache(maxsize=64)
def _program(
    bath_states: bytes, dimension: int, populations: bytes, rows: bytes, columns: bytes,
    _: int, outer_populations: bytes, outer_rows: bytes, outer_columns: bytes,
) -> Any:  # fmt: skip
    import jax

    inner = Elements(dimension, *(np.frombuffer(part, dtype=int) for part in (populations, rows, columns)))
    outer = Elements(
        dimension, *(np.frombuffer(part, dtype=int) for part in (outer_populations, outer_rows, outer_columns))
    )

    bathed = np.frombuffer(bath_states, dtype=int)

    def one(plan: tuple[Any, ...], data: dict[str, Any]) -> Any:
        pieces, durations, steps, wanted = plan
        energies, vectors = data["energies"], data["vectors"]
        turn, some = rotation(vectors, outer, inner), vectors[np.ix_(bathed, bathed)]

        def of_baths(baths: tuple[Any, Any, Any]) -> Any:
            couplings = some.conj().T @ baths[0] @ some
            return assemble_davies(energies, couplings, bathed, *baths[1:], data["places"], inner)

        whole = precession(energies, inner)[None].repeat(len(data["rates"]), axis=0)
        if data["rates"].shape[1]:
            whole += jax.lax.map(of_baths, (data["couplings"], data["rates"], data["thermals"]))

        def generator(part: dict[str, Any]) -> Any:
            found = conserve_trace(turn.T @ part["lindblad"] @ turn, len(inner.populations)) + whole[part["bath_of"]]
            return found + turn.T @ part["rest"] @ turn if "rest" in part else found

        parts = {name: data[name] for name in ("lindblad", "bath_of", "rest") if name in data}
        generators = jax.lax.map(generator, parts)
        increments = jax.lax.map(lambda step: expm1_real(generators[step[0]] * step[1]), (pieces, durations))

        def advance(values: Any, step: Any) -> tuple[Any, Any]:
            after = values + increments[step] @ values
            return after, after

        later = jax.lax.scan(advance, data["initial"], steps)[1][wanted]
        return outer.density(jax.numpy.concatenate([data["initial"][None], later]) @ turn.T)

    def many(plan: tuple[Any, ...], shared: dict[str, Any], each: dict[str, Any]) -> Any:
        # One after another, not vmap: large single products run faster than batched ones on a CPU.
        return jax.lax.map(lambda problem: one(plan, shared | problem), each)

    return jax.jit(many)


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
    if len(one.parts) != len(other.parts):
        return False
    return all(a is b or _same_part(a, b) for a, b in zip(one.parts, other.parts, strict=True))


def _same_part(one: ChannelPiece, other: ChannelPiece) -> bool:
    arrays = ("jumps", "hamiltonian", "superoperator", "frame")
    return one.davies == other.davies and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in arrays)


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
