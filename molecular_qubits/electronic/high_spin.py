"""Whether a density is that of a high-spin determinant, which the spin tensors of a whole molecule need."""

from __future__ import annotations

import numpy as np

from molecular_qubits.fields.alignments import S2_TOLERANCE
from molecular_qubits.fields.populations import spin_squared


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
    spin = n_unpaired / 2
    s2, expected = spin_squared(density, overlap), spin * (spin + 1)
    if abs(s2 - expected) > S2_TOLERANCE:
        raise ValueError(
            f"Argument `density` must be that of a high-spin determinant, <S^2> = {expected:.2f} for {n_unpaired} more "
            f"α than β electrons (tolerance {S2_TOLERANCE}), but has <S^2> = {s2:.3f}, as a broken-symmetry state has. "
            "Take the high-spin state."
        )
