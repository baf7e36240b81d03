"""Spin matrices and the one way to place an operator of a site into the whole system."""

import math
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

ComplexArray = NDArray[np.complex128]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def spin_dimension(spin: float) -> int:
    """Return 2S + 1.

    Raises
    ------
    ValueError
        If `spin` is not 0, 1/2, 1, 3/2, ...
    """
    doubled = 2.0 * float(spin)
    if not math.isfinite(doubled) or doubled < 0 or abs(doubled - round(doubled)) > 1e-9:
        raise ValueError(f"Argument `spin` must be 0, 1/2, 1, 3/2, ..., but was {spin}.")
    return round(doubled) + 1


def spin_matrices(spin: float) -> ComplexArray:
    """Return Sx, Sy, Sz of one spin in the basis M = S, S-1, ..., -S.

    Parameters
    ----------
    spin
        Spin quantum number S: 0, 1/2, 1, ...

    Returns
    -------
    ndarray of complex, shape (3, 2S+1, 2S+1)
        In units of h-bar.
    """
    return _spin_matrices(spin_dimension(spin)).copy()


@cache
def _spin_matrices(dimension: int) -> ComplexArray:
    m = (dimension - 1) / 2 - np.arange(dimension)
    s = (dimension - 1) / 2
    raising = np.diag(np.sqrt(s * (s + 1) - m[1:] * (m[1:] + 1)), 1)
    return np.array([(raising + raising.T) / 2, (raising - raising.T) / 2j, np.diag(m)], dtype=complex)


def embed(operator: ComplexArray, position: int, dims: Sequence[int]) -> ComplexArray:
    """Place the operator of one site into the product space of all sites.

    Parameters
    ----------
    operator
        Matrix of shape (dims[position], dims[position]), or a stack (..., dims[position], dims[position]).
    position
        Index of the site.
    dims
        Dimension of each site, the first varying slowest.

    Returns
    -------
    ndarray of complex, shape (..., D, D)
        With D the product of `dims`.

    Raises
    ------
    ValueError
        If the operator does not have the dimension of the site.
    """
    operator = np.asarray(operator, dtype=complex)
    size = dims[position]
    if operator.shape[-2:] != (size, size):
        raise ValueError(f"Argument `operator` must have shape (..., {size}, {size}), but has {operator.shape}.")
    before, after = math.prod(dims[:position]), math.prod(dims[position + 1 :])
    placed = np.einsum("ab,...cd,ef->...acebdf", np.eye(before), operator, np.eye(after))
    total = before * size * after
    return placed.reshape(*operator.shape[:-2], total, total)


@lru_cache(maxsize=256)
def embedded_spin(dims: tuple[int, ...], position: int) -> ComplexArray:
    """Return Sx, Sy, Sz of the spin at a position in the whole space, (3, D, D); kept, and not to be written to."""
    found = embed(_spin_matrices(dims[position]), position, dims)
    found.flags.writeable = False
    return found


def bilinear(dims: tuple[int, ...], first: int, tensor: FloatArray, second: int) -> ComplexArray:
    """Return S_first.T.S_second of two spins in the whole space, flat (D^2,)."""
    if math.prod(dims) <= _KEPT_DIMENSION:
        return tensor.ravel() @ _spin_products(dims, first, second)
    turned = np.einsum("ab,bjk->ajk", tensor, embedded_spin(dims, second))
    return np.einsum("aij,ajk->ik", embedded_spin(dims, first), turned).ravel()


_KEPT_DIMENSION = 64


@lru_cache(maxsize=256)
def _spin_products(dims: tuple[int, ...], first: int, second: int) -> ComplexArray:
    """Return the products S_a S_b, a row for each, (9, D^2)."""
    return (embedded_spin(dims, first)[:, None] @ embedded_spin(dims, second)[None]).reshape(9, -1)


def change_basis(matrices: ComplexArray, vectors: ComplexArray) -> ComplexArray:
    """Return V^+ A V of a stack of matrices (k, D, D) by two large products; V is (D, D)."""
    k, d, _ = matrices.shape
    right = (matrices.reshape(k * d, d) @ vectors).reshape(k, d, d)
    both = vectors.conj().T @ right.transpose(1, 0, 2).reshape(d, k * d)
    return np.ascontiguousarray(both.reshape(d, k, d).transpose(1, 0, 2))


def triplet_kets(frame: FloatArray | None = None) -> ComplexArray:
    """Return the zero-field kets Tx, Ty, Tz of a spin 1 in the basis M = 1, 0, -1.

    Tx = (|-1> - |1>) / sqrt 2, Ty = i (|-1> + |1>) / sqrt 2, Tz = |0>, so that S_k |T_k> = 0.

    Parameters
    ----------
    frame
        Rotation matrix (3, 3) whose columns are the x, y, z axes of the zero-field tensor in the laboratory; the
        identity by default.

    Returns
    -------
    ndarray of complex, shape (3, 3)
        Row k is the ket T_k.
    """
    half = math.sqrt(0.5)
    kets = np.array([[-half, 0, half], [1j * half, 0, 1j * half], [0, 1, 0]], dtype=complex)
    return kets if frame is None else np.asarray(frame, dtype=float).T @ kets


def thermal_density(hamiltonian: ComplexArray, thermal_rad_ns: float) -> ComplexArray:
    """Return exp(-H / kT) / Z.

    Parameters
    ----------
    hamiltonian
        Hermitian matrix (D, D) in rad/ns.
    thermal_rad_ns
        k T / h-bar in rad/ns.

    Returns
    -------
    ndarray of complex, shape (D, D)
    """
    energies, vectors = np.linalg.eigh(hamiltonian)
    weights = np.exp(-(energies - energies[0]) / thermal_rad_ns)
    weights /= weights.sum()
    return (vectors * weights) @ vectors.conj().T
