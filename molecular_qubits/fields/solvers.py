"""Solvers of a PySCF field, from the fast one to the robust one, and the internal stability of what they find."""

from __future__ import annotations

from typing import Any

import numpy as np

LADDER: tuple[str, ...] = ("diis", "level shift", "newton")
"""Solvers, tried in this order: Pulay's DIIS; DIIS with level shift and damping; second order (co-iterative AH)."""


def with_solver(mean_field: Any, solver: str) -> Any:
    """Return a PySCF field, not yet run, with one of the solvers of `LADDER`."""
    if solver == "level shift":
        mean_field.level_shift = 0.3
        mean_field.damp = 0.3
        mean_field.diis_start_cycle = 4
    elif solver == "newton":
        return mean_field.newton()
    return mean_field


def is_minimum(mean_field: Any, mo_coeff: np.ndarray, mo_occ: np.ndarray) -> bool:
    """Return whether a determinant is a minimum against real unrestricted orbital rotations.

    Only the sign of the lowest Hessian eigenvalue matters: one root is sought, and the density-functional part is
    integrated on PySCF's coarsest grid, which is several times cheaper. The search starts from a vector that is not
    symmetric in the spins: from PySCF's default one it finds no singlet instability but by rounding. A solvent follows
    the rotations.

    Parameters
    ----------
    mean_field
        PySCF field of the state, not run; it is of no use afterwards.
    mo_coeff, mo_occ
        Converged orbitals ``(2, n_ao, n_mo)`` and occupations ``(2, n_mo)``.
    """
    from pyscf.scf.stability import uhf_internal

    n_occupied = (mo_occ > 0).sum(axis=1)
    if not (n_occupied * (mo_occ.shape[1] - n_occupied)).any():
        return True  # nothing to rotate: no spin has both occupied and empty orbitals
    mean_field = mean_field.to_cpu() if hasattr(mean_field, "to_cpu") else mean_field
    mean_field.mo_coeff, mean_field.mo_occ = mo_coeff, mo_occ
    if hasattr(mean_field, "grids"):
        mean_field.grids = type(mean_field.grids)(mean_field.mol)
        mean_field.grids.level = 0
    if hasattr(mean_field, "with_solvent"):
        mean_field.with_solvent.equilibrium_solvation = True
    return bool(uhf_internal(mean_field, with_symmetry=False, return_status=True, nroots=1)[1])
