"""The local rotations before and after a gate that bring channels nearest to it, found for all channels at once.

The process fidelity is linear in each of the four rotations, so the best one with the others held is a polar
decomposition; the four are updated in turn, which never loses fidelity.
"""

import numpy as np

from molecular_qubits.spins.operators import FloatArray


class LocalRotations:
    """Rotations (n, 4, 4) as Pauli transfer matrices: after the gate on both qubits, then before it on both.

    Parameters
    ----------
    channels
        Pauli transfer matrices (n, 16, 16).
    gate
        Pauli transfer matrix (16, 16) of the gate wanted.
    start
        Rotations (n, 4, 3, 3) to start from, (4, 3, 3) the same for all; none if ``None``.
    """

    def __init__(self, channels: FloatArray, gate: FloatArray, start: FloatArray | None = None) -> None:
        self.channels, self.gate = channels, gate
        self._rotations = [np.broadcast_to(np.eye(4), (len(channels), 4, 4)).copy() for _ in range(4)]
        if start is not None:
            for which, rotation in enumerate(self._rotations):
                rotation[:, 1:, 1:] = start[..., which, :, :]

    def improve(self, sweeps: int, tolerance: float | None = None) -> None:
        """Update the four rotations in turn `sweeps` times, or until no overlap grows by `tolerance` (relative)."""
        after_1, after_2, before_1, before_2 = self._rotations
        last = np.full(len(self.channels), -np.inf)
        for _ in range(sweeps):
            inner = self.channels @ (self.gate @ _product(before_1, before_2)).swapaxes(1, 2)
            _update(after_1, after_2, inner)
            inner = self.gate.T @ _product(after_1, after_2).swapaxes(1, 2) @ self.channels
            _update(before_1, before_2, inner)
            if tolerance is not None:
                now = (inner * _product(before_1, before_2)).sum(axis=(1, 2))
                if np.all(now - last < tolerance * np.maximum(np.abs(now), 1)):
                    break
                last = now

    def rotated_gates(self) -> FloatArray:
        """Return the Pauli transfer matrices (n, 16, 16) of the gate with its rotations."""
        after_1, after_2, before_1, before_2 = self._rotations
        return np.asarray(_product(after_1, after_2) @ self.gate @ _product(before_1, before_2))


def proper_rotations(slopes: FloatArray) -> FloatArray:
    """Return the proper rotations O (..., 3, 3) that maximise Tr(O^T slope)."""
    left, _, right = np.linalg.svd(slopes)
    left[..., 2] *= np.sign(np.linalg.det(left @ right))[..., None]
    return np.asarray(left @ right)


def _product(one: FloatArray, two: FloatArray) -> FloatArray:
    """Return the Kronecker products (n, 16, 16) of matrices (n, 4, 4)."""
    return (one[:, :, None, :, None] * two[:, None, :, None, :]).reshape(-1, 16, 16)


def _update(one: FloatArray, two: FloatArray, inner: FloatArray) -> None:
    """Change two rotations in turn so that the sum over their product times `inner` (n, 16, 16) is largest."""
    by_qubit = inner.reshape(-1, 4, 4, 4, 4).swapaxes(2, 3).reshape(-1, 16, 16)
    one[:, 1:, 1:] = proper_rotations((by_qubit @ two.reshape(-1, 16, 1)).reshape(-1, 4, 4)[:, 1:, 1:])
    two[:, 1:, 1:] = proper_rotations((one.reshape(-1, 1, 16) @ by_qubit).reshape(-1, 4, 4)[:, 1:, 1:])
