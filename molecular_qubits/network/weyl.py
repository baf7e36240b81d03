"""Two-qubit gates up to local ones: U = phase (A1 x A2) exp(i (x XX + y YY + z ZZ)) (B1 x B2), the Weyl chamber.

J. Zhang, J. Vala, S. Sastry, K. B. Whaley, Phys. Rev. A 67, 042313 (2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molecular_qubits.control.fidelity import canonical_gate
from molecular_qubits.spins.operators import ComplexArray, FloatArray

EIGHTH = np.pi / 4
"""Largest coordinate of the chamber."""

_EDGE = 1e-9
"""Coordinates this near the face x = pi/4 of the chamber are taken to lie on it."""

_PAULI: ComplexArray = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
_MAGIC: ComplexArray = np.array([[1, 0, 0, 1j], [0, 1j, 1, 0], [0, 1j, -1, 0], [1, 0, 0, -1j]]) / np.sqrt(2)
_SIGNS: FloatArray = np.real(
    np.array([np.diag(_MAGIC.conj().T @ np.kron(p, p) @ _MAGIC) for p in _PAULI])
)  # XX, YY, ZZ are diagonal in the magic basis


@dataclass(frozen=True)
class Canonical:
    """A gate as local ones around the canonical one.

    Attributes
    ----------
    coordinates
        (x, y, z) with pi/4 >= x >= y >= |z|, and z >= 0 where x = pi/4.
    after, before
        The local gates A and B, each (2, 2, 2): one (2, 2) for each qubit.
    phase
        Of modulus 1.
    """

    coordinates: tuple[float, float, float]
    after: ComplexArray
    before: ComplexArray
    phase: complex

    def matrix(self) -> ComplexArray:
        """Return the gate (4, 4)."""
        return self.phase * (np.kron(*self.after) @ canonical_gate(*self.coordinates) @ np.kron(*self.before))


def canonical(unitary: ComplexArray) -> Canonical:
    """Return the canonical form of a two-qubit gate (4, 4).

    Raises
    ------
    ValueError
        If it is not unitary to 1e-8.
    """
    unitary = np.asarray(unitary, dtype=complex)
    if unitary.shape != (4, 4) or not np.abs(unitary @ unitary.conj().T - np.eye(4)).max() < 1e-8:
        raise ValueError(
            f"Argument `unitary` must be a unitary matrix (4, 4), but was not; its shape: {unitary.shape}."
        )
    phase = np.linalg.det(unitary) ** 0.25
    magic = _MAGIC.conj().T @ (unitary / phase) @ _MAGIC
    right, angles = _diagonal(magic)
    left = magic @ right * np.exp(-1j * angles)
    if np.linalg.det(left.real) < 0:  # both factors must be rotations to be local gates
        left[:, 0], angles[0] = -left[:, 0], angles[0] + np.pi
    after = _factors(_MAGIC @ left @ _MAGIC.conj().T)
    before = _factors(_MAGIC @ right.T @ _MAGIC.conj().T)
    mean = angles.mean()
    coordinates = _SIGNS @ (angles - mean) / 4
    return _into_chamber(coordinates, after, before, complex(phase * np.exp(1j * mean)))


def _diagonal(magic: ComplexArray) -> tuple[FloatArray, FloatArray]:
    """Return the rotation R and the angles a with M^T M = R diag(exp(2 i a)) R^T."""
    square = magic.T @ magic
    best: tuple[float, FloatArray] | None = None
    rng = np.random.default_rng(0)
    for mix in (0.37, 1.91, *rng.uniform(0.1, 10.0, size=14)):
        _, vectors = np.linalg.eigh(square.real + mix * square.imag)
        left = vectors.T @ square @ vectors
        error = float(np.abs(left - np.diag(np.diag(left))).max())
        if best is None or error < best[0]:
            best = (error, vectors)
        if error < 1e-13:
            break
    assert best is not None
    vectors = best[1]
    if np.linalg.det(vectors) < 0:
        vectors[:, 0] *= -1
    return vectors, np.angle(np.diag(vectors.T @ square @ vectors)) / 2


def _factors(product: ComplexArray) -> ComplexArray:
    """Return the two unitary factors (2, 2, 2) of A x B, the second of determinant 1."""
    blocks = product.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3)
    row, column = np.unravel_index(np.argmax([np.linalg.norm(b) for b in blocks.reshape(4, 2, 2)]), (2, 2))
    second = blocks[row, column]
    second = second / np.sqrt(np.linalg.det(second) + 0j)
    first = np.einsum("abij,ij->ab", blocks, second.conj()) / 2
    return np.array([first, second])


def _into_chamber(coordinates: FloatArray, after: ComplexArray, before: ComplexArray, phase: complex) -> Canonical:
    """Return an equal gate with its coordinates in the chamber."""
    c = np.array(coordinates, dtype=float)
    after, before = after.copy(), before.copy()

    def shift(axis: int, times: int) -> None:  # exp(i pi/2 PP) = i P x P
        nonlocal phase
        c[axis] -= times * np.pi / 2
        if times % 2:
            after[:] = after @ _PAULI[axis]
        phase *= 1j**times

    def flip(axis: int) -> None:  # a pi turn of one qubit about an axis changes the two other signs
        c[[k for k in range(3) if k != axis]] *= -1
        after[0], before[0] = after[0] @ _PAULI[axis], _PAULI[axis] @ before[0]

    def exchange(first: int, second: int) -> None:  # a pi turn of both about the bisector
        c[[first, second]] = c[[second, first]]
        turn = (_PAULI[first] + _PAULI[second]) / np.sqrt(2)
        after[:], before[:] = after @ turn, turn @ before

    for axis in range(3):
        shift(axis, round(float(c[axis] / (np.pi / 2))))  # into [-pi/4, pi/4]
    for first, second in ((0, 1), (1, 2), (0, 1)):
        if abs(c[first]) < abs(c[second]):
            exchange(first, second)
    if c[0] < 0:
        flip(1 if c[1] >= 0 else 2)
    if c[1] < 0:
        flip(0)
    if c[2] < 0 and c[0] > EIGHTH - _EDGE:
        shift(0, 1)
        flip(1)  # (x - pi/2, y, z) -> (pi/2 - x, y, -z)
    return Canonical((float(c[0]), float(c[1]), float(c[2])), after, before, phase)
