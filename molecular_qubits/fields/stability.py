"""Internal stability of a field: the lowest eigenvalue of its orbital Hessian, and the way down from a saddle point.

Only the sign of the eigenvalue is asked for. A Ritz value is an upper bound of it: one below zero ends the search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from shared.progress import progress

NEGATIVE_HARTREE = -1e-3
"""Eigenvalues below this count as negative. Those of a degenerate state, such as OH, are zero but for the grid: -1e-4
on `GRID_LEVEL`."""

GRID_LEVEL = 1
"""PySCF grid of the response: several times cheaper than that of the field."""

RESIDUAL_HARTREE = 3e-3
"""Norm of the residual at which the lowest Ritz pair counts as found: its value is then right to its square."""

STARTS_PER_SPIN = 4
"""Single excitations of lowest orbital energy difference that the search starts from, for each spin."""

MAX_PRODUCTS = 100


class StabilityNotDecidedError(RuntimeError):
    """The lowest eigenvalue was not found: the bound of it is not negative, and says nothing."""


@dataclass(frozen=True)
class OrbitalHessian:
    """Second derivatives of the energy for real rotations of α and of β orbitals.

    Vectors hold the rotations ``(n_empty, n_occupied)`` of α, then those of β, flattened; ``sizes`` are their numbers.
    Values are scaled as PySCF's: about twice the difference of two orbital energies, which ``diagonal`` holds.
    """

    product: Callable[[np.ndarray], np.ndarray]
    diagonal: np.ndarray
    sizes: tuple[int, int]


def pyscf_hessian(mean_field: Any, mo_coeff: np.ndarray, mo_occ: np.ndarray) -> OrbitalHessian:
    """Return the orbital Hessian of a determinant by PySCF, on a coarse grid.

    Parameters
    ----------
    mean_field
        PySCF field of the state, not run; it is of no use afterwards. A solvent follows the rotations.
    mo_coeff, mo_occ
        Orbitals ``(2, n_ao, n_mo)`` and occupations ``(2, n_mo)``.
    """
    from pyscf.soscf.newton_ah import gen_g_hop_uhf

    mean_field = mean_field.to_cpu() if hasattr(mean_field, "to_cpu") else mean_field
    mean_field.mo_coeff, mean_field.mo_occ = mo_coeff, mo_occ
    if hasattr(mean_field, "grids"):
        mean_field.grids = type(mean_field.grids)(mean_field.mol)
        mean_field.grids.level = GRID_LEVEL
    if hasattr(mean_field, "with_solvent"):
        mean_field.with_solvent.equilibrium_solvation = True
    n_occupied = (mo_occ > 0).sum(axis=1)
    n_alpha, n_beta = n_occupied * (mo_occ.shape[1] - n_occupied)
    if n_alpha + n_beta == 0:
        return OrbitalHessian(lambda vector: vector, np.zeros(0), (0, 0))
    _, product, diagonal = gen_g_hop_uhf(mean_field, mo_coeff, mo_occ, with_symmetry=False)
    return OrbitalHessian(lambda vector: 2.0 * product(vector), 2.0 * diagonal, (int(n_alpha), int(n_beta)))


def lowest_mode(hessian: OrbitalHessian) -> tuple[float, np.ndarray]:
    """Return the lowest eigenvalue of an orbital Hessian in hartree and its vector, or a negative bound of it.

    Davidson's method. The value is infinite where there is nothing to rotate.

    Raises
    ------
    StabilityNotDecidedError
        If the residual of a bound that is not negative is above `RESIDUAL_HARTREE` after `MAX_PRODUCTS` products.
    """
    diagonal = hessian.diagonal
    if not len(diagonal):
        return float("inf"), diagonal
    starts = _starts(hessian)
    space, images = np.empty((0, len(diagonal))), np.empty((0, len(diagonal)))
    with progress("Stability") as step:
        while True:
            for start in starts:
                vector = start - space.T @ (space @ start)
                vector -= space.T @ (space @ vector)
                norm = float(np.linalg.norm(vector))
                if norm > 1e-6 * np.linalg.norm(start):
                    space = np.vstack([space, vector / norm])
                    images = np.vstack([images, hessian.product(space[-1])])
                    step(1)
            values, vectors = np.linalg.eigh(0.5 * (space @ images.T + images @ space.T))
            lowest, weights = float(values[0]), vectors[:, 0]
            mode = weights @ space
            residual = weights @ images - lowest * mode
            norm = float(np.linalg.norm(residual))
            step(0, f"lowest curvature {lowest:.4f} hartree, residual {norm:.1e}")
            if lowest < NEGATIVE_HARTREE or norm < RESIDUAL_HARTREE or len(space) == len(diagonal):
                return lowest, mode
            if len(space) >= MAX_PRODUCTS:
                raise StabilityNotDecidedError(
                    f"The stability is not decided: after {len(space)} products with the orbital Hessian the lowest "
                    f"curvature is at most {lowest:.4f} hartree, with a residual of {norm:.1e}."
                )
            gap = diagonal - lowest
            starts = [residual / np.where(np.abs(gap) < 1e-2, 1e-2, gap)]


def is_minimum(hessian: OrbitalHessian) -> bool:
    """Return whether a determinant is a minimum against real unrestricted orbital rotations.

    Raises
    ------
    StabilityNotDecidedError
        See `lowest_mode`.
    """
    return lowest_mode(hessian)[0] > NEGATIVE_HARTREE


def rotated(mo_coeff: np.ndarray, mo_occ: np.ndarray, mode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the occupied orbitals of α and of β, turned by a vector of `OrbitalHessian`, in radians."""
    found, first = [], 0
    for orbitals, occupations in zip(mo_coeff, mo_occ, strict=True):
        full, empty = np.flatnonzero(occupations > 0), np.flatnonzero(occupations == 0)
        generator = np.zeros((orbitals.shape[1],) * 2)
        generator[np.ix_(empty, full)] = mode[first : first + len(empty) * len(full)].reshape(len(empty), len(full))
        found.append((orbitals @ scipy.linalg.expm(generator - generator.T))[:, full])
        first += len(empty) * len(full)
    return found[0], found[1]


def _starts(hessian: OrbitalHessian) -> list[np.ndarray]:
    """Return single excitations of either spin, and a vector of no symmetry that meets what those may miss."""
    starts, first, diagonal = [], 0, hessian.diagonal
    for size in hessian.sizes:
        for place in first + np.argsort(diagonal[first : first + size], kind="stable")[:STARTS_PER_SPIN]:
            starts.append(np.zeros(len(diagonal)))
            starts[-1][place] = 1.0
        first += size
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(diagonal))
    return [*starts, signs / np.maximum(np.abs(diagonal), 1e-2)]
