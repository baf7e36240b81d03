"""Frames of tensors by Euler angles.

The columns of a frame are the axes of the tensor in the laboratory. For the angles (alpha, beta, gamma) in the zyz
convention it is Rz(alpha) Ry(beta) Rz(gamma) of active rotations: the z axis of the tensor has the polar angles
(beta, alpha). The angles are those of EasySpin's ``gFrame``, ``DFrame``, ``AFrame``, there in radians.
"""

from typing import Any

import numpy as np

from molecular_qubits.spins.operators import FloatArray
from molecular_qubits.spins.tensors import rotation_frame


def euler_frame(angles_deg: Any) -> FloatArray:
    """Return the frame of Euler angles.

    Parameters
    ----------
    angles_deg
        alpha, beta, gamma in degrees, zyz.

    Returns
    -------
    ndarray, shape (3, 3)
        Rotation matrix whose columns are the tensor's axes.

    Raises
    ------
    ValueError
        If they are not three finite numbers.
    """
    angles = np.asarray(angles_deg, dtype=float)
    if angles.shape != (3,) or not np.all(np.isfinite(angles)):
        raise ValueError(
            f"Argument `angles_deg` must be 3 finite numbers (alpha, beta, gamma), but was {angles_deg!r}."
        )
    alpha, beta, gamma = np.radians(angles)
    return _about_z(alpha) @ _about_y(beta) @ _about_z(gamma)


def euler_angles(frame: Any) -> FloatArray:
    """Return alpha, beta, gamma in degrees of a frame, with beta from 0 to 180 and gamma 0 where only a sum counts.

    Parameters
    ----------
    frame
        Rotation matrix (3, 3) whose columns are the tensor's axes.
    """
    axes = rotation_frame(frame)
    beta = np.arctan2(np.hypot(axes[0, 2], axes[1, 2]), axes[2, 2])
    if np.sin(beta) < 1e-12:
        sign = np.sign(axes[2, 2])
        return np.degrees([np.arctan2(sign * axes[1, 0], sign * axes[0, 0]), beta, 0.0])
    return np.degrees([np.arctan2(axes[1, 2], axes[0, 2]), beta, np.arctan2(axes[2, 1], -axes[2, 0])])


def oriented(principal: Any, frame: Any = None) -> FloatArray:
    """Return the symmetric tensor (3, 3) of three principal values in a frame (the identity by default)."""
    values = np.asarray(principal, dtype=float)
    if values.shape != (3,) or not np.all(np.isfinite(values)):
        raise ValueError(f"Argument `principal` must be 3 finite numbers, but was {principal!r}.")
    axes = rotation_frame(frame)
    tensor = axes @ np.diag(values) @ axes.T
    return (tensor + tensor.T) / 2


def _about_z(angle: float) -> FloatArray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _about_y(angle: float) -> FloatArray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
