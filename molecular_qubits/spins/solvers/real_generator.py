"""Generators as real matrices on the elements of the density matrix that are ever reached, assembled with JAX.

A Hermitian rho is the real vector x of its populations and of sqrt 2 times the real and the imaginary parts of its
elements above the diagonal: an orthonormal basis, in which the Hamiltonian part of the generator is antisymmetric. A
real product costs a quarter of a complex one.

What does not depend on the Hamiltonian of the system is assembled in the product basis, once for all systems of a sweep
(`assemble`), and turned to the eigenbasis of each (`rotation`); Davies' baths are assembled there (`assemble_davies`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from molecular_qubits.spins.channels.davies import FREQUENCY_TOLERANCE_RAD_PER_NS

TAYLOR_NORM = 0.35
"""Norm up to which the Taylor series of degree 12 has a relative error below 1e-15."""


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

    @cached_property
    def indices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows a (m, 1) and b (m, 1) of rho_aa and rho_ab, and c (1, n), e (1, n) of rho_aa, rho_ab, rho_ba."""
        a = np.concatenate([self.populations, self.rows])[:, None]
        b = np.concatenate([self.populations, self.columns])[:, None]
        c = np.concatenate([self.populations, self.rows, self.columns])[None, :]
        e = np.concatenate([self.populations, self.columns, self.rows])[None, :]
        return a, b, c, e

    def density(self, vectors: Any) -> Any:
        """Return the Hermitian matrices (..., D, D) of real vectors (..., n); NumPy or JAX."""
        xp = _namespace(vectors)
        d, n_p, n_c, n = self.dimension, len(self.populations), len(self.rows), self.size
        real, imag, sign = np.full((d, d), n), np.full((d, d), n), np.zeros((d, d))
        real[self.populations, self.populations] = np.arange(n_p)
        for rows, columns, direction in ((self.rows, self.columns, 1), (self.columns, self.rows, -1)):
            real[rows, columns] = n_p + np.arange(n_c)
            imag[rows, columns] = n_p + n_c + np.arange(n_c)
            sign[rows, columns] = direction
        scale = np.full(n, np.sqrt(0.5))
        scale[:n_p] = 1
        scaled = vectors * scale
        padded = xp.concatenate([scaled, xp.zeros_like(scaled[..., :1])], axis=-1)
        return padded[..., real] + 1j * (padded[..., imag] * sign)


def all_elements(dimension: int) -> Elements:
    """Return all elements of a (D, D) matrix."""
    rows, columns = np.triu_indices(dimension, 1)
    return Elements(dimension, np.arange(dimension), rows, columns)


def assemble(effective: Any, gain: Any, places: np.ndarray, elements: Elements, rest: Any = None) -> Any:
    """Return the generator as a real matrix; NumPy or JAX, linear in `gain` and `rest`, real-linear in `effective`.

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
    array, shape (n, n)
        In 1/ns.
    """
    xp = _namespace(effective)
    d, n_p, n_c = elements.dimension, len(elements.populations), len(elements.rows)
    a, b, c, e = elements.indices
    position = np.full(d * d, len(places))
    position[places] = np.arange(len(places))
    padded = xp.pad(gain, ((0, 1), (0, 1)))
    complex_rows = padded[position[a * d + c], position[b * d + e]]
    complex_rows = complex_rows - 1j * effective[a, c] * (b == e) + 1j * effective.conj()[b, e] * (a == c)
    generator = conserve_trace(_real_rows(complex_rows, n_p, n_c), n_p)
    return generator if rest is None else generator + assemble_rest(rest, elements)


def assemble_rest(rest: Any, elements: Elements) -> Any:
    """Return a generator (D^2, D^2) on row-major vec(rho) that keeps rho Hermitian as a real matrix (n, n)."""
    d = elements.dimension
    a, b, c, e = elements.indices
    return _real_rows(rest[a * d + b, c * d + e], len(elements.populations), len(elements.rows))


def precession(energies: Any, elements: Elements) -> Any:
    """Return -i [H, .] in the eigenbasis of H, energies (D,) in rad/ns, as a real matrix (n, n); pure JAX."""
    import jax.numpy as jnp

    n_p, n_c = len(elements.populations), len(elements.rows)
    turning = jnp.diag(energies[elements.rows] - energies[elements.columns])
    nothing = jnp.zeros((n_c, n_c))
    return jnp.pad(jnp.block([[nothing, turning], [-turning, nothing]]), ((n_p, 0), (n_p, 0)))


def bath_places(elements: Elements, alike: tuple[np.ndarray, np.ndarray], bathed: np.ndarray, size: int) -> np.ndarray:
    """Return what `assemble_davies` needs to know of the places at which baths act, integers (11, size).

    Rows: flat row and column, a, b, c, e; whether the row is a population; the columns of Gamma_ac and Gamma_be where
    they count, else one beyond the last; flat places of A_ac and A_be among the bathed states, else one beyond.
    """
    d = elements.dimension
    a, b, c, e = (index.ravel() for index in elements.indices)
    row, column = alike
    column_of = np.full((d, d), len(c))
    column_of[c, e] = np.arange(len(c))
    a, b, c, e = a[row], b[row], c[column], e[column]
    left, right = np.where(b == e, column_of[c, a], column_of.max()), np.where(a == c, column_of[e, b], column_of.max())
    count = len(bathed)
    position = np.full(d, count)
    position[bathed] = np.arange(count)
    amplitudes = [
        np.where((position[i] < count) & (position[j] < count), position[i] * count + position[j], count**2)
        for i, j in ((a, c), (b, e))
    ]
    found = np.array([row, column, a, b, c, e, a == b, left, right, *amplitudes], dtype=np.int32)
    filled = np.zeros((11, size), dtype=np.int32)
    filled[0], filled[7:9] = len(elements.indices[0]), column_of.max()  # a row beyond the last: dropped
    filled[:, : len(row)] = found
    return filled


def assemble_davies(
    energies: Any, couplings: Any, bathed: np.ndarray, rates: Any, thermals: Any, places: Any, elements: Elements
) -> Any:
    """Return Davies' generator in the eigenbasis of H as a real matrix (n, n); pure JAX.

    With the amplitudes B_ij = A_ij sqrt(gamma(E_j - E_i)), the gain links rho_ab to rho_ce of the same frequency, and
    the loss Gamma_ac = sum_i gain_(ii)(ca) follows from the conservation of the trace.

    Parameters
    ----------
    energies
        (D,) in rad/ns.
    couplings
        Between the bathed states in the eigenbasis, (m, d, d), without unit.
    bathed
        Indices of these states, (d,), static.
    rates, thermals
        gamma(0) in 1/ns and k T / h-bar in rad/ns of each coupling, (m,).
    places
        Of `bath_places`.
    elements
        The reached elements, static.
    """
    import jax.numpy as jnp

    row, column, a, b, c, e, population, left, right, first, second = places
    lowered = energies[bathed][None, :] - energies[bathed][:, None]
    gamma = 2 * rates[:, None, None] / (1 + jnp.exp(-lowered / thermals[:, None, None]))
    amplitudes = jnp.pad((jnp.sqrt(gamma) * couplings).reshape(len(rates), -1), ((0, 0), (0, 1)))
    width = elements.indices[2].size
    gain = (amplitudes[:, first] * amplitudes[:, second].conj()).sum(axis=0)
    alike = jnp.abs(energies[a] - energies[b] - energies[c] + energies[e]) < FREQUENCY_TOLERANCE_RAD_PER_NS
    gain = jnp.where(alike, gain, 0)
    loss = jnp.zeros(width + 1, dtype=complex).at[column].add(gain * population)
    values = jnp.where(alike, gain - (loss[left] + loss[right].conj()) / 2, 0)
    complex_rows = jnp.zeros((elements.indices[0].size, width), dtype=complex).at[row, column].add(values, mode="drop")
    n_p = len(elements.populations)
    return conserve_trace(_real_rows(complex_rows, n_p, len(elements.rows)), n_p)


def rotation(vectors: Any, outer: Elements, inner: Elements) -> Any:
    """Return the real matrix (n_outer, n_inner) that takes rho in the frame V to V rho V^+; orthonormal columns.

    Parameters
    ----------
    vectors
        V, (D, D); NumPy or JAX.
    outer, inner
        Elements in the basis that V leads to, which must hold all that `inner` becomes, and in the frame.
    """
    n_p, n_c = len(inner.populations), len(inner.rows)
    i, j, _, _ = outer.indices
    _, _, c, e = inner.indices
    return _real_rows(vectors[i, c] * vectors.conj()[j, e], len(outer.populations), len(outer.rows), n_p, n_c)


def conserve_trace(generator: Any, n_p: int) -> Any:
    """Take from each column what rounding left of the sum of its `n_p` populations."""
    xp = _namespace(generator)
    left = generator[:n_p].sum(axis=0)
    taken = xp.concatenate([xp.diag(left[:n_p]), xp.broadcast_to(left[n_p:] / n_p, (n_p, len(left) - n_p))], axis=1)
    return xp.concatenate([generator[:n_p] - taken, generator[n_p:]])


def _real_rows(complex_rows: Any, n_p: int, n_c: int, m_p: int | None = None, m_c: int | None = None) -> Any:
    """Return the real matrix from the rows of rho_aa and rho_ab in the columns rho_aa, rho_ab, rho_ba.

    The rows have `n_p` populations and `n_c` elements above the diagonal, the columns `m_p` and `m_c`; the same if not
    given.
    """
    xp = _namespace(complex_rows)
    root = np.sqrt(2)
    m_p, m_c = n_p if m_p is None else m_p, n_c if m_c is None else m_c
    on_populations, on_upper = complex_rows[:, :m_p], complex_rows[:, m_p : m_p + m_c]
    on_lower = complex_rows[:, m_p + m_c :]
    plus, minus = on_upper[n_p:] + on_lower[n_p:], on_upper[n_p:] - on_lower[n_p:]
    from_populations = root * on_populations[n_p:]
    return xp.block(
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
