"""Whether a density is that of a high-spin determinant, which the spin tensors of a whole molecule need."""

from __future__ import annotations

import numpy as np

from molecular_qubits.fields.alignments import S2_TOLERANCE
from molecular_qubits.fields.populations import spin_squared


def is_high_spin(density: np.ndarray, overlap: np.ndarray, n_unpaired: int) -> bool:
    """Return whether <S^2> is that of all `n_unpaired` spins parallel; arguments as for `check_high_spin_density`."""
    spin = n_unpaired / 2
    return abs(spin_squared(density, overlap) - spin * (spin + 1)) <= S2_TOLERANCE


def check_high_spin_density(density: np.ndarray, overlap: np.ndarray, n_unpaired: int) -> None:
    """Raise a `ValueError` if a determinant with `n_unpaired` more α than β electrons has further spins, turned.

    Parameters
    ----------
    density
        Density matrices of α and β ``(2, n_ao, n_ao)``.
    overlap
        ``(n_ao, n_ao)``.
    n_unpaired
        n_α - n_β.
    """
    if not is_high_spin(density, overlap, n_unpaired):
        s2, expected = spin_squared(density, overlap), n_unpaired / 2 * (n_unpaired / 2 + 1)
        raise ValueError(
            f"Argument `density` must be that of a high-spin determinant, <S^2> = {expected:.2f} for {n_unpaired} more "
            f"α than β electrons (tolerance {S2_TOLERANCE}), but has <S^2> = {s2:.3f}, as a broken-symmetry state has. "
            "Take the high-spin state."
        )
