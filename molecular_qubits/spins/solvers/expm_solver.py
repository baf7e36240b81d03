"""Exact exponential of the generator on each piece, with the fast phases taken out analytically.

In the eigenbasis of the Hamiltonian the generator is -i diag(w) + K, with w up to THz and K of the size of the
relaxation rates. Coherences whose frequencies differ by much more than K are decoupled exactly by an invariant-subspace
iteration; their phases exp(-i w t) are then numbers, and only blocks as small as the rates go through scaling and
squaring. Plain scaling and squaring would lose eps * w * t, 1e-6 after a microsecond of a 600 cm^-1 splitting.
"""

import numpy as np
from scipy.linalg import expm

from molecular_qubits.spins.liouvillian import ReducedPiece, reduce_problem
from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.problem import Problem

SEPARATION = 16.0
"""Clusters of frequencies lie apart by this many times the norm of K at least."""


def solve(problem: Problem) -> ComplexArray:
    """Propagate by exact exponentials.

    Parameters
    ----------
    problem
        The checked problem.

    Returns
    -------
    ndarray of complex, shape (n, D, D)
    """
    reduced = reduce_problem(problem)
    values = reduced.initial
    found = [values]
    for piece, generator in zip(problem.pieces, reduced.pieces, strict=True):
        propagator = PiecePropagator(generator)
        now = piece.start_ns
        for time in piece.times_ns:
            values = propagator.step(values, float(time - now))
            found.append(values)
            now = time
        if now < piece.stop_ns:
            values = propagator.step(values, float(piece.stop_ns - now))
    return reduced.density(np.array(found))


class PiecePropagator:
    """Propagator of one constant piece; steps of equal length reuse the exponential.

    Parameters
    ----------
    generator
        Frequencies and dissipator of the piece.
    """

    def __init__(self, generator: ReducedPiece) -> None:
        self._to_blocks: ComplexArray | None = None
        clusters, transform, blocks = decouple(generator.frequencies, generator.dissipator)
        self._clusters, self._blocks = clusters, blocks
        if len(clusters) > 1:
            self._from_blocks = transform
            self._to_blocks = np.asarray(np.linalg.inv(transform), dtype=complex)
        self._steps: dict[str, list[ComplexArray]] = {}

    def step(self, values: ComplexArray, duration_ns: float) -> ComplexArray:
        """Return the elements (n,) after `duration_ns`."""
        key = f"{duration_ns:.12e}"
        if key not in self._steps:
            self._steps[key] = [self._exponential(block, duration_ns) for block in self._blocks]
        inner = values if self._to_blocks is None else self._to_blocks @ values
        result = np.empty_like(inner)
        for members, exponential in zip(self._clusters, self._steps[key], strict=True):
            result[members] = exponential @ inner[members]
        return result if self._to_blocks is None else self._from_blocks @ result

    @staticmethod
    def _exponential(block: tuple[float, ComplexArray], duration_ns: float) -> ComplexArray:
        frequency, matrix = block
        return np.exp(-1j * frequency * duration_ns) * expm(matrix * duration_ns)


def decouple(
    frequencies: np.ndarray, dissipator: ComplexArray
) -> tuple[list[np.ndarray], ComplexArray, list[tuple[float, ComplexArray]]]:
    """Bring -i diag(w) + K to block-diagonal form by an exact change of basis.

    Parameters
    ----------
    frequencies
        w, shape (n,), rad/ns.
    dissipator
        K, shape (n, n), 1/ns.

    Returns
    -------
    clusters : list of ndarray
        Indices of each cluster of frequencies.
    transform : ndarray, shape (n, n)
        T with (-i diag(w) + K) T = T B and B block-diagonal.
    blocks : list of (float, ndarray)
        For each cluster its mean frequency f and B + i f.
    """
    size = len(frequencies)
    norm = float(np.sqrt(np.abs(dissipator).sum(axis=0).max() * np.abs(dissipator).sum(axis=1).max())) if size else 0.0
    separation = max(SEPARATION * norm, 1e-9)
    while True:
        order = np.argsort(frequencies, kind="stable")
        cuts = np.flatnonzero(np.diff(frequencies[order]) > separation) + 1
        clusters = [np.sort(part) for part in np.split(order, cuts)]
        transform = _invariant_subspaces(frequencies, dissipator, clusters)
        if transform is not None:
            break
        separation *= 4
    coupling = dissipator @ transform
    blocks = []
    for members in clusters:
        mean = float(frequencies[members].mean()) if size else 0.0
        matrix = coupling[np.ix_(members, members)] - 1j * np.diag(frequencies[members] - mean)
        blocks.append((mean, matrix))
    return clusters, transform, blocks


def _invariant_subspaces(
    frequencies: np.ndarray, dissipator: ComplexArray, clusters: list[np.ndarray]
) -> ComplexArray | None:
    """Solve L (1 + X) = (1 + X) B for X without elements inside a cluster; None if the iteration does not settle."""
    size = len(frequencies)
    identity = np.eye(size, dtype=complex)
    if len(clusters) == 1:
        return identity
    label = np.empty(size, dtype=int)
    for number, members in enumerate(clusters):
        label[members] = number
    outside = label[:, None] != label[None, :]
    difference = np.where(outside, frequencies[None, :] - frequencies[:, None], 1.0)
    mixing = np.zeros_like(identity)
    last = np.inf
    for _ in range(60):
        coupling = dissipator + dissipator @ mixing
        inner = np.where(outside, 0, coupling)
        updated = np.where(outside, 1j * (coupling - mixing @ inner) / difference, 0)
        change = float(np.abs(updated - mixing).max())
        mixing = updated
        if change <= 1e-17 or (change < 1e-15 and change >= last):
            return identity + mixing
        last = change
    return None
