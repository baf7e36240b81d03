"""The generator of the master equation as a matrix, in the eigenbasis of the Hamiltonian and on the states reached.

Density matrices are vectors in row-major order: vec(A rho B) = (A x B^T) vec(rho).
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.problem import Problem

NEGLIGIBLE = 1e-13
"""Elements below this fraction of the largest are rounding noise of the change of basis and are set to 0. The generator
of each channel is taken on its own: beside the largest rate of all, those of a slow channel would be lost.
"""


def dissipator(*channels: ComplexArray) -> ComplexArray:
    """Return sum_k D[L_k] as a matrix.

    Parameters
    ----------
    *channels
        Jump operators (k, D, D) of one channel each.

    Returns
    -------
    ndarray of complex, shape (D^2, D^2)
        In 1/ns.
    """
    d = channels[0].shape[-1]
    gain, loss = np.zeros((d * d, d * d), dtype=complex), np.zeros((d, d), dtype=complex)
    for jumps in channels:
        places = np.flatnonzero(np.any(jumps, axis=0))
        gain[np.ix_(places, places)] += gram(jumps.reshape(-1, d * d)[:, places].conj())
        loss += gram(jumps.reshape(-1, d))
    gain = gain.reshape(d, d, d, d).transpose(0, 2, 1, 3).reshape(d * d, d * d)
    return np.asarray(gain - 0.5 * (np.kron(loss, np.eye(d)) + np.kron(np.eye(d), loss.T)), dtype=complex)


def clean(matrices: ComplexArray, axis: tuple[int, ...] | None = (-2, -1)) -> ComplexArray:
    """Return matrices (..., m, n) without elements below 1e-13 of the largest of each, or of all with ``axis=None``."""
    size = np.abs(matrices)
    return np.where(size > NEGLIGIBLE * size.max(axis=axis, keepdims=True, initial=0.0), matrices, 0)


def gram(rows: ComplexArray) -> ComplexArray:
    """Return A^+ A of a matrix A (k, n), cleaned, (n, n)."""
    return clean(rows.conj().T @ rows)


def liouvillian(hamiltonian: ComplexArray, jumps: ComplexArray) -> ComplexArray:
    """Return the generator -i [H, .] + sum_k D[L_k] as a matrix (D^2, D^2) in 1/ns."""
    identity = np.eye(len(hamiltonian))
    return dissipator(jumps) - 1j * (np.kron(hamiltonian, identity) - np.kron(identity, hamiltonian.T))


def block_eigenvectors(hamiltonian: ComplexArray) -> ComplexArray:
    """Return eigenvectors (D, D), as columns, that stay within the blocks of the Hamiltonian; see `block_frames`."""
    return block_frames(hamiltonian[None])[1][0]


def block_frames(hamiltonians: ComplexArray) -> tuple[np.ndarray, ComplexArray, np.ndarray]:
    """Return energies and eigenvectors of several Hamiltonians that stay within their common blocks.

    States that no Hamiltonian connects are never mixed, whatever degeneracies there are, so that zeros of the generator
    stay zeros.

    Parameters
    ----------
    hamiltonians
        (n, D, D), Hermitian.

    Returns
    -------
    energies : ndarray, shape (n, D)
    vectors : ndarray of complex, shape (n, D, D)
        As columns, in the places of the states of their block.
    labels : ndarray of int, shape (D,)
        Number of the block of each state.
    """
    size = np.abs(hamiltonians)
    scale = np.maximum(size.max(axis=(1, 2), keepdims=True), 1e-300)
    connected = csr_array(np.any(size > NEGLIGIBLE * scale, axis=0))
    count, labels = connected_components(connected, directed=False)
    energies, vectors = np.zeros(hamiltonians.shape[:2]), np.zeros_like(hamiltonians)
    for block in range(count):
        members = np.flatnonzero(labels == block)
        rows, columns = np.ix_(members, members)
        if len(members) == 1:
            energies[:, members] = hamiltonians[:, members, members].real
            vectors[:, members, members] = 1
        else:
            energies[:, members], vectors[:, rows, columns] = np.linalg.eigh(hamiltonians[:, rows, columns])
    return energies, vectors, labels


@dataclass(frozen=True)
class ReducedPiece:
    """Generator of one piece on the elements of the density matrix that are ever reached.

    Attributes
    ----------
    frequencies
        Frequencies -i (E_a - E_b) of the elements, as real numbers (n,) in rad/ns: the Hamiltonian part is diagonal.
    dissipator
        (n, n) in 1/ns, including what a drive adds to the Hamiltonian of the frame.
    """

    frequencies: np.ndarray
    dissipator: ComplexArray


@dataclass(frozen=True)
class ReducedProblem:
    """The problem in the eigenbasis of the Hamiltonian of its last piece, on the elements that are ever reached.

    Attributes
    ----------
    vectors
        Eigenvectors (D, D) that define the frame.
    elements
        Indices (n,) of the density-matrix elements, in row-major order, that can become nonzero.
    initial
        Their values (n,) at the first time.
    pieces
        One generator for each piece of the problem.
    """

    vectors: ComplexArray
    elements: np.ndarray
    initial: ComplexArray
    pieces: tuple[ReducedPiece, ...]

    def density(self, values: ComplexArray) -> ComplexArray:
        """Return density matrices (..., D, D) in the original basis from element values (..., n)."""
        d = len(self.vectors)
        framed = np.zeros((*values.shape[:-1], d * d), dtype=complex)
        framed[..., self.elements] = values
        framed = framed.reshape(*values.shape[:-1], d, d)
        states = self.vectors @ framed @ self.vectors.conj().T
        return (states + np.swapaxes(states.conj(), -1, -2)) / 2


def reduce_problem(problem: Problem) -> ReducedProblem:
    """Change to the eigenbasis of the Hamiltonian and keep only what the initial state can reach.

    Parameters
    ----------
    problem
        The checked problem.

    Returns
    -------
    ReducedProblem
        The restriction is exact: the elements left out stay zero.
    """
    d = problem.dimension
    reference = problem.pieces[-1].hamiltonian if problem.pieces else np.zeros((d, d), dtype=complex)
    vectors = block_eigenvectors(reference)
    initial = clean(vectors.conj().T @ problem.initial @ vectors).ravel()
    generators = []
    for piece in problem.pieces:
        framed = clean(vectors.conj().T @ piece.hamiltonian @ vectors)
        energies = framed.diagonal().real
        rest = framed - np.diag(framed.diagonal())
        stacks = [clean(vectors.conj().T @ jumps @ vectors, axis=None) for jumps in piece.all_jumps]
        matrix = dissipator(*stacks)
        if np.any(rest):
            matrix = matrix + liouvillian(rest, stacks[0][:0])
        matrix = _keep_trace(matrix, d)
        for generator in piece.superoperators:  # apart: they need not conserve the trace
            change = np.kron(vectors.conj().T, vectors.T)
            matrix = matrix + clean(change @ generator @ change.conj().T)
        frequencies = (energies[:, None] - energies[None, :]).ravel()
        generators.append((frequencies, matrix))
    elements = _reached(initial, [matrix for _, matrix in generators])
    pieces = tuple(ReducedPiece(w[elements], m[np.ix_(elements, elements)]) for w, m in generators)
    return ReducedProblem(vectors, elements, initial[elements], pieces)


def _keep_trace(matrix: ComplexArray, d: int) -> ComplexArray:
    """Give each population back what rounding took, so that the trace is conserved."""
    populations = np.arange(d) * (d + 1)
    matrix[populations, populations] -= matrix[np.ix_(populations, populations)].sum(axis=0)
    return matrix


def _reached(initial: ComplexArray, generators: list[ComplexArray]) -> np.ndarray:
    start = np.flatnonzero(initial)
    size = len(initial)
    if not generators or not start.size:
        return start
    links = np.zeros((size + 1, size + 1), dtype=bool)
    for matrix in generators:
        links[:size, :size] |= (matrix != 0).T
    links[size, start] = True
    order = breadth_first_order(csr_array(links), size, directed=True, return_predecessors=False)
    return np.sort(order[order != size])
