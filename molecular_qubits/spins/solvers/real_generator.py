"""Generators as real matrices on the elements of the density matrix that are ever reached, assembled with JAX.

A Hermitian rho is the real vector x of its populations and of sqrt 2 times the real and the imaginary parts of its
elements above the diagonal: an orthonormal basis, in which the Hamiltonian part of the generator is antisymmetric. A
real product costs a quarter of a complex one. The host passes what is small, the effective Hamiltonian (D, D) and the
gain sum_k vec(L_k) vec(L_k)^+ on the nonzero places of the jump operators; the (n, n) generator exists only inside the
compiled program.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from molecular_qubits.spins.liouvillian import NEGLIGIBLE, block_eigenvectors
from molecular_qubits.spins.operators import ComplexArray, change_basis
from molecular_qubits.spins.problem import Problem

TAYLOR_NORM = 0.35
"""Norm up to which the Taylor series of degree 12 has a relative error below 1e-15."""


@dataclass(frozen=True)
class FramedProblem:
    """A problem in the eigenbasis of the Hamiltonian of its last piece, with rounding noise set to 0.

    Attributes
    ----------
    vectors
        The frame (D, D), columns.
    initial
        (D, D).
    effective
        H - i/2 sum_k L_k^+ L_k of each different piece, (p, D, D) in rad/ns.
    jumps
        Of each different piece, (k, D, D).
    rest
        Generators of what is not of Lindblad form, of each different piece, (p, D^2, D^2) in 1/ns on row-major
        vec(rho), or None if no piece has any.
    """

    vectors: ComplexArray
    initial: ComplexArray
    effective: ComplexArray
    jumps: tuple[ComplexArray, ...]
    rest: ComplexArray | None


def frame_problem(problem: Problem, different: Sequence[int]) -> FramedProblem:
    """Change to the eigenbasis of the Hamiltonian of the last piece.

    Parameters
    ----------
    problem
        The checked problem, with at least one piece.
    different
        Indices of the pieces to keep; pieces that equal one of these are left out.
    """
    vectors = block_eigenvectors(problem.pieces[-1].hamiltonian)
    adjoint = vectors.conj().T
    effective, jumps = [], []
    last, framed = np.zeros((0, *vectors.shape), dtype=complex), np.zeros((0, *vectors.shape), dtype=complex)
    for index in different:
        piece = problem.pieces[index]
        shared = _equal_first(piece.jumps, last)  # what acts in both pieces comes first in both
        framed = np.concatenate([framed[:shared], clean(change_basis(piece.jumps[shared:], vectors))])
        last = piece.jumps
        stacked = framed.reshape(-1, problem.dimension)
        loss = clean(stacked.conj().T @ stacked)
        effective.append(clean(adjoint @ piece.hamiltonian @ vectors) - 0.5j * loss)
        jumps.append(framed)
    initial = clean(adjoint @ problem.initial @ vectors)
    return FramedProblem(vectors, initial, np.array(effective), tuple(jumps), _rest(problem, different, vectors))


def _equal_first(one: ComplexArray, other: ComplexArray) -> int:
    """Return how many matrices of two stacks are equal before the first that differs."""
    count = min(len(one), len(other))
    differs = np.any(one[:count] != other[:count], axis=(1, 2))
    return int(differs.argmax()) if differs.any() else count


def _rest(problem: Problem, different: Sequence[int], vectors: ComplexArray) -> ComplexArray | None:
    found = [problem.pieces[index].superoperator for index in different]
    if all(part is None for part in found):
        return None
    change = np.kron(vectors, vectors.conj())
    nothing = np.zeros_like(change)
    return np.array([nothing if part is None else clean(change.conj().T @ part @ change) for part in found])


def clean(matrices: ComplexArray) -> ComplexArray:
    """Set elements below 1e-13 of the largest of each matrix (..., m, n) to 0."""
    size = np.abs(matrices)
    return np.where(size > NEGLIGIBLE * size.max(axis=(-1, -2), keepdims=True, initial=0.0), matrices, 0)


def jump_places(problems: Sequence[FramedProblem]) -> np.ndarray:
    """Return the flat indices (m,) at which any jump operator of any problem is not 0."""
    d = len(problems[0].vectors)
    found = np.zeros((d, d), dtype=bool)
    for problem in problems:
        for jumps in problem.jumps:
            found |= np.any(jumps, axis=0)
    return np.flatnonzero(found)


def gains(problem: FramedProblem, places: np.ndarray) -> ComplexArray:
    """Return sum_k vec(L_k) vec(L_k)^+ on the given places, for each piece: (p, m, m)."""
    flat = [jumps.reshape(len(jumps), len(problem.vectors) ** 2)[:, places] for jumps in problem.jumps]
    return np.array([clean(rows.T @ rows.conj()) for rows in flat])


@dataclass(frozen=True)
class Elements:
    """The reached elements rho_ab: populations first, then those above the diagonal.

    Attributes
    ----------
    dimension
        D.
    populations
        Indices a (n_p,) of rho_aa.
    rows, columns
        Indices a < b (n_c,) of rho_ab.
    """

    dimension: int
    populations: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @property
    def size(self) -> int:
        """Length n_p + 2 n_c of the real vector."""
        return len(self.populations) + 2 * len(self.rows)

    def vector(self, states: Any) -> Any:
        """Return the real vectors (..., n) of Hermitian matrices (..., D, D); NumPy or JAX."""
        xp = _namespace(states)
        upper = states[..., self.rows, self.columns] * np.sqrt(2)
        populations = states[..., self.populations, self.populations]
        return xp.concatenate([populations.real, upper.real, upper.imag], axis=-1)

    def density(self, vectors: Any) -> Any:
        """Return the Hermitian matrices (..., D, D) of real vectors (..., n), as JAX arrays."""
        import jax.numpy as jnp

        n_p, n_c = len(self.populations), len(self.rows)
        upper = (vectors[..., n_p : n_p + n_c] + 1j * vectors[..., n_p + n_c :]) / np.sqrt(2)
        states = jnp.zeros((*vectors.shape[:-1], self.dimension, self.dimension), dtype=complex)
        states = states.at[..., self.populations, self.populations].set(vectors[..., :n_p].astype(complex))
        states = states.at[..., self.rows, self.columns].set(upper)
        return states.at[..., self.columns, self.rows].set(upper.conj())


def all_elements(dimension: int) -> Elements:
    """Return all elements of a (D, D) matrix."""
    rows, columns = np.triu_indices(dimension, 1)
    return Elements(dimension, np.arange(dimension), rows, columns)


def reached_elements(
    initial: np.ndarray, effective: np.ndarray, gain: np.ndarray, places: np.ndarray, rest: np.ndarray | None = None
) -> Elements:
    """Return the elements that can become nonzero, by a search along the nonzero elements of the generator.

    Parameters
    ----------
    initial, effective
        Where the initial states and the effective Hamiltonians are not 0, bool (D, D).
    gain
        Where the gains are not 0, bool (m, m), on `places`.
    places
        Of `jump_places`, (m,).
    rest
        Where the generators that are not of Lindblad form are not 0, bool (D^2, D^2), if there are any.
    """
    d = len(initial)
    identity = np.eye(d, dtype=bool)
    links = np.zeros((d * d + 1, d * d + 1), dtype=bool)
    links[:-1, :-1] = np.kron(effective, identity) | np.kron(identity, effective)
    left, right = np.nonzero(gain)
    to_row, from_row = np.divmod(places[left], d)
    to_column, from_column = np.divmod(places[right], d)
    links[to_row * d + to_column, from_row * d + from_column] = True
    if rest is not None:
        links[:-1, :-1] |= rest
    links[np.flatnonzero(initial | initial.T), -1] = True
    order = breadth_first_order(csr_array(links.T), d * d, directed=True, return_predecessors=False)
    reached = np.zeros(d * d, dtype=bool)
    reached[order[order != d * d]] = True
    square = reached.reshape(d, d)
    square = square | square.T
    rows, columns = np.nonzero(np.triu(square, 1))
    return Elements(d, np.flatnonzero(square.diagonal()), rows, columns)


def assemble(effective: Any, gain: Any, places: np.ndarray, elements: Elements, rest: Any = None) -> Any:
    """Return the generator as a real matrix; pure JAX, linear in `gain` and `rest`, real-linear in `effective`.

    Parameters
    ----------
    effective
        H - i/2 sum_k L_k^+ L_k, (D, D) in rad/ns.
    gain
        sum_k vec(L_k) vec(L_k)^+ on `places`, (m, m) in 1/ns.
    places
        Flat indices (m,), static.
    elements
        The reached elements, static.
    rest
        Generator (D^2, D^2) in 1/ns of what is not of Lindblad form and need not conserve the trace, or None.

    Returns
    -------
    jax.Array, shape (n, n)
        In 1/ns.
    """
    import jax.numpy as jnp

    d, n_p = elements.dimension, len(elements.populations)
    a = np.concatenate([elements.populations, elements.rows])[:, None]
    b = np.concatenate([elements.populations, elements.columns])[:, None]
    c = np.concatenate([elements.populations, elements.rows, elements.columns])[None, :]
    e = np.concatenate([elements.populations, elements.columns, elements.rows])[None, :]
    position = np.full(d * d, len(places))
    position[places] = np.arange(len(places))
    padded = jnp.pad(gain, ((0, 1), (0, 1)))
    complex_rows = padded[position[a * d + c], position[b * d + e]]
    complex_rows += -1j * effective[a, c] * (b == e) + 1j * effective.conj()[b, e] * (a == c)
    # Column sums of the populations vanish; rounding in the change of frame must not leak through.
    complex_rows -= jnp.pad(
        jnp.diag(complex_rows[:n_p, :n_p].real.sum(axis=0)),
        ((0, len(a) - n_p), (0, c.size - n_p)),
    )
    if rest is not None:
        complex_rows += rest[a * d + b, c * d + e]
    return _real_rows(complex_rows, n_p, len(elements.rows))


def _real_rows(complex_rows: Any, n_p: int, n_c: int) -> Any:
    """Return the real matrix (n, n) from the rows of rho_aa and rho_ab in the columns rho_aa, rho_ab, rho_ba."""
    import jax.numpy as jnp

    root = np.sqrt(2)
    on_populations, on_upper, on_lower = jnp.split(complex_rows, [n_p, n_p + n_c], axis=1)
    plus, minus = on_upper[n_p:] + on_lower[n_p:], on_upper[n_p:] - on_lower[n_p:]
    from_populations = root * on_populations[n_p:]
    return jnp.block(
        [
            [on_populations[:n_p].real, root * on_upper[:n_p].real, -root * on_upper[:n_p].imag],
            [from_populations.real, plus.real, -minus.imag],
            [from_populations.imag, plus.imag, minus.real],
        ]
    )


def expm1_real(matrix: Any) -> Any:
    """Return exp(matrix) - 1 of a real JAX array (n, n): Taylor of degree 12, then doublings F -> 2 F + F^2.

    Carrying exp(A) - 1 keeps the relative precision of slow decays that would drown beside 1. The number of doublings
    follows from the norm at run time, so that one compiled program serves all; reverse-mode derivatives need
    `expm1_fixed`.
    """
    import jax
    import jax.numpy as jnp

    norm = jnp.abs(matrix).sum(axis=-1).max()
    doublings = jnp.ceil(jnp.log2(jnp.maximum(norm / TAYLOR_NORM, 1.0))).astype(int)
    series = _taylor(matrix * jnp.exp2(-doublings.astype(matrix.dtype)))
    return jax.lax.fori_loop(0, doublings, lambda _, f: 2 * f + f @ f, series)


def expm1_fixed(matrix: Any, doublings: int) -> Any:
    """Return exp(matrix) - 1 with a given number of doublings, differentiable in both modes.

    The norm of matrix / 2^doublings should be at most 0.35.
    """
    series = _taylor(matrix * 0.5**doublings)
    for _ in range(doublings):
        series = 2 * series + series @ series
    return series


def _taylor(matrix: Any) -> Any:
    """Return the Taylor polynomial of exp - 1 of degree 12 by five products (Paterson and Stockmeyer)."""
    import jax.numpy as jnp

    inverse = 1 / np.cumprod([1.0, *range(1, 13)])
    identity = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    second = matrix @ matrix
    third, fourth = second @ matrix, second @ second
    powers = (identity, matrix, second, third)

    def part(start: int) -> Any:
        return sum(inverse[start + k] * power for k, power in enumerate(powers))

    inner = part(4) + fourth @ (part(8) + inverse[12] * fourth)
    return matrix + inverse[2] * second + inverse[3] * third + fourth @ inner


def _namespace(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return np
    import jax.numpy as jnp

    return jnp
