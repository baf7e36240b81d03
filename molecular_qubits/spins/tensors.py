"""Zero-field splitting, g and dipolar tensors: built from D and E, axes and positions, and read back."""

from typing import Any

import numpy as np

from molecular_qubits.spins.checks import finite_number, symmetric_tensor
from molecular_qubits.spins.operators import FloatArray
from molecular_qubits.units import (
    BOHR_TO_ANGSTROM,
    FINE_STRUCTURE,
    G_ELECTRON,
    HARTREE_TO_CM1,
)


def rotation_frame(value: Any, name: str = "frame") -> FloatArray:
    """Return `value` as a proper rotation matrix, its columns being the tensor's axes in the laboratory.

    Raises
    ------
    ValueError
        If it is not a real orthogonal 3x3 matrix of determinant +1 (to 1e-9).
    """
    frame = np.eye(3) if value is None else np.asarray(value, dtype=float)
    if frame.shape != (3, 3) or not np.all(np.isfinite(frame)):
        raise ValueError(f"Argument `{name}` must be a finite (3, 3) matrix, but has shape {frame.shape}.")
    if np.max(np.abs(frame.T @ frame - np.eye(3))) > 1e-9 or np.linalg.det(frame) < 0:
        raise ValueError(
            f"Argument `{name}` must be a rotation (orthogonal, determinant +1), but was {frame.tolist()}."
        )
    return frame


def zfs_tensor(d_cm1: float, e_cm1: float = 0.0, frame: Any = None) -> FloatArray:
    """Return the zero-field splitting tensor of H = S.D.S = D (Sz^2 - S(S+1)/3) + E (Sx^2 - Sy^2).

    Parameters
    ----------
    d_cm1, e_cm1
        Axial and rhombic parameters in cm^-1.
    frame
        Rotation matrix (3, 3) whose columns are the tensor's x, y, z axes in the laboratory; identity by default.

    Returns
    -------
    ndarray, shape (3, 3)
        Symmetric and traceless, cm^-1, in the laboratory frame.
    """
    d, e = finite_number(d_cm1, "d_cm1"), finite_number(e_cm1, "e_cm1")
    axes = rotation_frame(frame)
    return axes @ np.diag([e - d / 3, -e - d / 3, 2 * d / 3]) @ axes.T


def d_and_e(tensor_cm1: Any) -> tuple[float, float, FloatArray]:
    """Return D, E and the axes of a traceless tensor, with |Dz| >= |Dy| >= |Dx|.

    Parameters
    ----------
    tensor_cm1
        Symmetric, traceless (3, 3) tensor in cm^-1.

    Returns
    -------
    d_cm1, e_cm1 : float
        D = 3/2 Dz and E = (Dx - Dy) / 2, so that E has the sign of D or is 0, and |E| <= |D| / 3.
    frame : ndarray, shape (3, 3)
        Columns are the x, y, z axes, right-handed.
    """
    tensor = symmetric_tensor(tensor_cm1, "tensor_cm1", traceless=True)
    values, vectors = np.linalg.eigh(tensor)
    order = np.argsort(np.abs(values), kind="stable")
    values, vectors = values[order], vectors[:, order]
    if np.linalg.det(vectors) < 0:
        vectors[:, 0] *= -1
    return 1.5 * float(values[2]), float(values[0] - values[1]) / 2, vectors


def point_dipole_tensor(
    displacement_angstrom: Any, g_first: float = G_ELECTRON, g_second: float = G_ELECTRON
) -> FloatArray:
    """Return the dipolar tensor of H = S_i.D_ij.S_j for two point spins.

    D_ij = (alpha^2 g_i g_j / 4) (1 - 3 n n^T) / r^3 in hartree with r in bohr; its zz element along the axis is
    negative, and the axial parameter in the tables of this package is 3/2 of it.

    Parameters
    ----------
    displacement_angstrom
        Vector (3,) from one spin to the other, in angstrom.
    g_first, g_second
        Isotropic g factors.

    Returns
    -------
    ndarray, shape (3, 3)
        Symmetric and traceless, cm^-1.

    Raises
    ------
    ValueError
        If the displacement is not three finite numbers or vanishes.
    """
    vector = np.asarray(displacement_angstrom, dtype=float)
    if vector.shape != (3,) or not np.all(np.isfinite(vector)) or not np.any(vector):
        raise ValueError(
            f"Argument `displacement_angstrom` must be 3 finite numbers, not all 0, but was {displacement_angstrom!r}."
        )
    distance = float(np.linalg.norm(vector))
    axis = vector / distance
    strength = FINE_STRUCTURE**2 * g_first * g_second / 4 / (distance / BOHR_TO_ANGSTROM) ** 3 * HARTREE_TO_CM1
    return strength * (np.eye(3) - 3 * np.outer(axis, axis))


def axial_coupling_tensor(d_cm1: float, frame: Any = None) -> FloatArray:
    """Return the axial tensor of S_i.D_ij.S_j whose axial parameter is D = 3/2 D_zz.

    Parameters
    ----------
    d_cm1
        Axial parameter in cm^-1.
    frame
        Rotation matrix (3, 3) whose third column is the axis; identity by default.

    Returns
    -------
    ndarray, shape (3, 3)
        cm^-1.
    """
    return zfs_tensor(d_cm1, 0.0, frame)


def g_tensor(value: Any, name: str = "g") -> FloatArray:
    """Return a g factor or g tensor as a (3, 3) tensor.

    Parameters
    ----------
    value
        A number (isotropic), three numbers (diagonal in the laboratory frame) or a (3, 3) tensor, which need not be
        symmetric.
    name
        Name in error messages.

    Raises
    ------
    ValueError
        If it has another shape or is not finite.
    """
    tensor = np.asarray(value, dtype=float)
    if tensor.ndim == 0:
        tensor = float(tensor) * np.eye(3)
    elif tensor.shape == (3,):
        tensor = np.diag(tensor)
    if tensor.shape != (3, 3) or not np.all(np.isfinite(tensor)):
        raise ValueError(f"Argument `{name}` must be a number, 3 numbers or a (3, 3) tensor, finite; was {value!r}.")
    return tensor
