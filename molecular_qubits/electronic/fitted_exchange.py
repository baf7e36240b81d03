"""Coulomb matrices and exact exchange from fitted integrals that are read once for both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit

from molecular_qubits.fields.guesses import occupied_orbitals
from molecular_qubits.fields.threads import workers
from molecular_qubits.structure.memory import BATCH_BYTES, SHARE_BYTES

_TILE = 32
"""Rows of a matrix that are in the cache when they are written once more as columns."""


def one_pass(fit: Any) -> Any:
    """Return a PySCF ``DF`` with the integrals of another, whose unrestricted fields are of `coulomb_and_exchange`.

    In double precision, for densities that are tagged with their orbitals, each empty or full; others take PySCF's way,
    and so do range-separated parts that the other has built.
    """
    from pyscf.df import DF

    class OnePassDF(DF):
        def get_jk(
            self,
            dm: Any,
            hermi: int = 1,
            with_j: bool = True,
            with_k: bool = True,
            direct_scf_tol: float = 1e-13,
            omega: float | None = None,
        ) -> Any:
            if omega is not None:
                with self.range_coulomb(omega) as attenuated:
                    return attenuated.get_jk(dm, hermi, with_j, with_k, direct_scf_tol)
            tagged = np.ndim(dm) == 3 and getattr(dm, "mo_coeff", None) is not None
            if not with_k or not tagged or not np.all(np.isin(dm.mo_occ, (0, 1))):
                return super().get_jk(dm, hermi, with_j, with_k, direct_scf_tol)
            density = np.asarray(dm) if with_j else None
            occupied = occupied_orbitals(dm.mo_coeff, dm.mo_occ)
            coulomb, exchange = coulomb_and_exchange(self, density, occupied, dtype=np.float64)
            return coulomb if with_j else None, exchange

    return fit.view(OnePassDF)


def coulomb_and_exchange(
    fit: Any,
    density: np.ndarray | None,
    occupied: Sequence[np.ndarray],
    changes: Sequence[np.ndarray] | None = None,
    *,
    dtype: Any = np.float32,
    overlap: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return Coulomb matrices, and the exchange matrices of both spins or their changes.

    The integrals are read once for all, and unpacked once for both spins.

    Parameters
    ----------
    fit
        PySCF ``DF`` of the molecule, or its range-separated part.
    density
        Symmetric density of the Coulomb matrix ``(n_ao, n_ao)``, or several ``(n, n_ao, n_ao)``; ``None``: not wanted,
        0.
    occupied
        Occupied orbitals C of each spin ``(n_ao, n_occupied)``.
    changes
        First-order changes X of the orbitals, for those of the exchange matrices.
    dtype
        Precision of the products of the exchange.
    overlap
        Of the atomic orbitals ``(n_ao, n_ao)``. With it, exchange between unoccupied orbitals is left out: energy and
        gradient are the same, in four fifths of the operations ("occ-RI-K", S. Manzer, P. R. Horn, N. Mardirossian,
        M. Head-Gordon, J. Chem. Phys. 143, 024113 (2015)). The occupied orbitals must be orthonormal; not for changes.

    Returns
    -------
    coulomb, exchange : ndarray
        As ``density``, in double precision, and ``(n_spins, n_ao, n_ao)``, float64 sums of products:
        K = Σ_Q (B_Q C)(B_Q C)ᵀ, or Σ_Q (B_Q X)(B_Q C)ᵀ and its transpose. The relative error in single precision is
        about 1e-6. They do not depend on the number of threads.
    """
    from pyscf import lib

    n_ao = len(occupied[0])
    share = max(1, SHARE_BYTES // (4 * n_ao * n_ao))
    batch = share * max(1, BATCH_BYTES // (4 * share * n_ao * (n_ao + 1)))
    changed = None if changes is None else _rows(changes, dtype)
    limits = [0, *np.cumsum([c.shape[1] for c in occupied])]
    part = partial(_part, _rows(occupied, dtype), changed, limits, overlap is not None)
    twice = None if density is None else lib.pack_tril((density * (2 - np.eye(n_ao))).reshape(-1, n_ao, n_ao))
    totals = [np.zeros((n_ao, n_ao if overlap is None else c.shape[1])) for c in occupied]
    coulomb = np.zeros(0 if twice is None else twice.shape)
    if fit._cderi is None:
        fit.build()  # with all threads, which `workers` keeps for itself
    with workers() as pool:
        for packed in fit.loop(batch):
            more = None if twice is None else pool.submit(_coulomb, packed, twice)
            for found in pool.map(part, [packed[i : i + share] for i in range(0, len(packed), share)]):
                for total, one in zip(totals, found, strict=True):
                    total += one
            if more is not None:
                coulomb += more.result()
    matrices = np.zeros((n_ao, n_ao)) if density is None else lib.unpack_tril(coulomb).reshape(density.shape)
    if overlap is not None:
        totals = [_from_occupied(total, c, overlap @ c) for total, c in zip(totals, occupied, strict=True)]
    exchange = np.array(totals)
    return matrices, exchange if changes is None else exchange + exchange.transpose(0, 2, 1)


def _from_occupied(product: np.ndarray, occupied: np.ndarray, dual: np.ndarray) -> np.ndarray:
    """Return K without its part among unoccupied orbitals from K C, C and S C."""
    half = dual @ (product - 0.5 * dual @ (occupied.T @ product)).T
    return half + half.T


def _rows(orbitals: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    """Return the orbitals of all spins as rows of one matrix: a product with integrals is one for all."""
    return np.ascontiguousarray(np.hstack(orbitals).T, dtype=dtype)


def _coulomb(packed: np.ndarray, densities: np.ndarray) -> np.ndarray:
    return (densities @ packed.T) @ packed


def _part(
    occupied: np.ndarray, changes: np.ndarray | None, limits: Sequence[int], projected: bool, packed: np.ndarray
) -> list[np.ndarray]:
    """Return what some of the integrals add to K of each spin, or to K C if projected, in the orbitals' precision.

    Rows of ``occupied`` and ``changes`` are the orbitals of all spins, divided at ``limits``.
    """
    n_ao = occupied.shape[1]
    square = np.empty((len(packed), n_ao, n_ao), dtype=occupied.dtype)
    _unpack(packed, square, _TILE)
    halves = np.matmul(occupied, square)
    others = halves if changes is None else np.matmul(changes, square)
    found = []
    for first, last in pairwise(limits):
        half = other = halves[:, first:last].reshape(-1, n_ao)
        if projected:
            other = half @ occupied[first:last].T
        elif changes is not None:
            other = others[:, first:last].reshape(-1, n_ao)
        found.append(half.T @ other)
    return found


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
