"""Exact exchange from fitted integrals in single precision, for the cycles before the last ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

WORK_BYTES = 2**28
"""Memory of one batch of integrals and half-transformed integrals."""


def exchange_matrix(fit: Any, occupied: np.ndarray, changes: np.ndarray | None = None) -> np.ndarray:
    """Return the exchange matrix of one spin in single precision, or its first-order change.

    Parameters
    ----------
    fit
        PySCF ``DF`` of the molecule, or its range-separated part.
    occupied
        Occupied orbitals C ``(n_ao, n_occupied)``.
    changes
        First-order changes X of the orbitals, for the change of the exchange matrix.

    Returns
    -------
    ndarray
        ``(n_ao, n_ao)``, float64 sums of float32 products: K = Σ_Q (B_Q C)(B_Q C)ᵀ, or
        Σ_Q (B_Q X)(B_Q C)ᵀ and its transpose. The relative error is about 1e-6.
    """
    n_ao, n_occupied = occupied.shape
    total = np.zeros((n_ao, n_ao))
    if n_occupied == 0:
        return total
    transposed = np.ascontiguousarray(occupied.T, dtype=np.float32)
    moved = None if changes is None else np.ascontiguousarray(changes.T, dtype=np.float32)
    count = max(1, WORK_BYTES // (4 * n_ao * (n_ao + n_occupied)))
    square = np.empty((count, n_ao, n_ao), dtype=np.float32)
    half = np.empty((count, n_occupied, n_ao), dtype=np.float32)
    for packed in fit.loop(count):
        n = len(packed)
        _unpack(packed, square)
        np.matmul(transposed, square[:n], out=half[:n])
        flat = half[:n].reshape(n * n_occupied, n_ao)
        total += flat.T @ (flat if moved is None else np.matmul(moved, square[:n]).reshape(flat.shape))
    return total if moved is None else total + total.T


@njit(nogil=True, cache=True, error_model="numpy")
def _unpack(packed: Any, square: Any) -> None:
    """Write symmetric matrices from their packed lower triangles."""
    for q in range(packed.shape[0]):
        position = 0
        for i in range(square.shape[1]):
            for j in range(i + 1):
                value = packed[q, position]
                square[q, i, j] = value
                square[q, j, i] = value
                position += 1
