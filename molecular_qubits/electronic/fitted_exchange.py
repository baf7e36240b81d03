"""Coulomb matrices and exact exchange in single precision from fitted integrals that are read once for both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from molecular_qubits.fields.threads import workers
from molecular_qubits.structure.memory import BATCH_BYTES, SHARE_BYTES

_TILE = 32
"""Rows of a matrix that are in the cache when they are written once more as columns."""


def coulomb_and_exchange(
    fit: Any, density: np.ndarray | None, occupied: Sequence[np.ndarray], changes: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a Coulomb matrix, and the exchange matrices of both spins in single precision or their changes.

    The integrals are read once for all, and unpacked once for both spins.

    Parameters
    ----------
    fit
        PySCF ``DF`` of the molecule, or its range-separated part.
    density
        Symmetric density of the Coulomb matrix ``(n_ao, n_ao)``; ``None``: not wanted, 0.
    occupied
        Occupied orbitals C of each spin ``(n_ao, n_occupied)``.
    changes
        First-order changes X of the orbitals, for those of the exchange matrices.

    Returns
    -------
    coulomb, exchange : ndarray
        ``(n_ao, n_ao)``, in double precision, and ``(n_spins, n_ao, n_ao)``, float64 sums of float32 products:
        K = Σ_Q (B_Q C)(B_Q C)ᵀ, or Σ_Q (B_Q X)(B_Q C)ᵀ and its transpose. The relative error is about 1e-6. They do not
        depend on the number of threads.
    """
    from pyscf import lib

    n_ao = len(occupied[0])
    share = max(1, SHARE_BYTES // (4 * n_ao * n_ao))
    batch = share * max(1, BATCH_BYTES // (4 * share * n_ao * (n_ao + 1)))
    part = partial(_part, [_rows(c) for c in occupied], None if changes is None else [_rows(x) for x in changes])
    total, coulomb = np.zeros((len(occupied), n_ao, n_ao)), np.zeros(n_ao * (n_ao + 1) // 2)
    twice = None if density is None else lib.pack_tril(2 * density - np.diag(np.diag(density)))
    with workers() as pool:
        for packed in fit.loop(batch):
            more = None if twice is None else pool.submit(_coulomb, packed, twice)
            for found in pool.map(part, [packed[i : i + share] for i in range(0, len(packed), share)]):
                total += found
            if more is not None:
                coulomb += more.result()
    return lib.unpack_tril(coulomb), total if changes is None else total + total.transpose(0, 2, 1)


def _rows(orbitals: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(orbitals.T, dtype=np.float32)


def _coulomb(packed: np.ndarray, density: np.ndarray) -> np.ndarray:
    return (packed @ density) @ packed


def _part(occupied: list[np.ndarray], changes: list[np.ndarray] | None, packed: np.ndarray) -> np.ndarray:
    """Return what some of the integrals add, in single precision."""
    n_ao = occupied[0].shape[1]
    square = np.empty((len(packed), n_ao, n_ao), dtype=np.float32)
    _unpack(packed, square, _TILE)
    found = np.empty((len(occupied), n_ao, n_ao), dtype=np.float32)
    for spin, orbitals in enumerate(occupied):
        half = _half(orbitals, square)
        np.matmul(half.T, half if changes is None else _half(changes[spin], square), out=found[spin])
    return found


def _half(orbitals: np.ndarray, square: np.ndarray) -> np.ndarray:
    return np.matmul(orbitals, square).reshape(len(square) * len(orbitals), square.shape[2])


@njit(nogil=True, cache=True, error_model="numpy")
def _unpack(packed: Any, square: Any, tile: int) -> None:
    """Write symmetric matrices from their packed lower triangles."""
    n = square.shape[1]
    for q in range(packed.shape[0]):
        for first in range(0, n, tile):
            last = min(first + tile, n)
            for i in range(first, last):
                position = i * (i + 1) // 2
                for j in range(i + 1):
                    square[q, i, j] = packed[q, position + j]
            for j in range(last):
                for i in range(max(first, j + 1), last):
                    square[q, j, i] = square[q, i, j]
