"""Internal stability of a field by linear response: density-fitted, single precision, coarse grid, as its cheap cycles.

Only the sign of the lowest eigenvalue of the orbital Hessian is asked for. A Ritz value is an upper bound of it: one
below zero ends the search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from molecular_qubits.electronic.ramp import CheapField
from molecular_qubits.fields.guesses import density_of
from shared.progress import progress

NEGATIVE_HARTREE = -1e-4
"""Eigenvalues of the orbital Hessian below this count as negative; single precision and grid leave 1e-5."""

RESIDUAL_HARTREE = 3e-3
"""Norm of the residual at which the lowest Ritz pair counts as found: its value is then right to its square."""

STARTS_PER_SPIN = 4
"""Single excitations of lowest orbital energy difference that the search starts from, for each spin."""

MAX_PRODUCTS = 100

Response = Callable[[np.ndarray], np.ndarray]


def lowest_curvature(cheap: CheapField, core: np.ndarray, mo_coeff: np.ndarray, mo_occ: np.ndarray) -> float:
    """Return the lowest eigenvalue of the orbital Hessian, or a bound of it that is below zero.

    Parameters
    ----------
    cheap
        Cheap field of the molecule.
    core
        One-electron Hamiltonian ``(n_ao, n_ao)``.
    mo_coeff, mo_occ
        Converged orbitals ``(2, n_ao, n_mo)`` and occupations ``(2, n_mo)``.

    Returns
    -------
    float
        Hartree, for real rotations of α and of β orbitals, scaled as PySCF's: about twice an energy difference of
        orbitals. Infinite where there is nothing to rotate.
    """
    product, diagonal, sizes = orbital_hessian(cheap, core, mo_coeff, mo_occ)
    if not len(diagonal):
        return float("inf")
    starts = _starts(diagonal, sizes)
    space, images = np.empty((0, len(diagonal))), np.empty((0, len(diagonal)))
    with progress("Stability") as step:
        while True:
            for start in starts:
                vector = start - space.T @ (space @ start)
                vector -= space.T @ (space @ vector)
                norm = float(np.linalg.norm(vector))
                if norm > 1e-6 * np.linalg.norm(start):
                    space = np.vstack([space, vector / norm])
                    images = np.vstack([images, product(space[-1])])
                    step(1)
            values, vectors = np.linalg.eigh(0.5 * (space @ images.T + images @ space.T))
            lowest, weights = float(values[0]), vectors[:, 0]
            residual = weights @ images - lowest * (weights @ space)
            norm = float(np.linalg.norm(residual))
            step(0, f"lowest curvature {lowest:.4f} hartree, residual {norm:.1e}")
            done = lowest < NEGATIVE_HARTREE or norm < RESIDUAL_HARTREE
            if done or len(space) >= min(MAX_PRODUCTS, len(diagonal)):
                return lowest
            gap = diagonal - lowest
            starts = [residual / np.where(np.abs(gap) < 1e-2, 1e-2, gap)]


def orbital_hessian(
    cheap: CheapField, core: np.ndarray, mo_coeff: np.ndarray, mo_occ: np.ndarray
) -> tuple[Response, np.ndarray, tuple[int, int]]:
    """Return the product of the orbital Hessian with a vector, its diagonal of orbital energies, and its parts' sizes.

    A vector holds the rotations ``(n_empty, n_occupied)`` of α, then those of β, flattened. Arguments as for
    `lowest_curvature`.
    """
    occupied = [orbitals[:, n > 0] for orbitals, n in zip(mo_coeff, mo_occ, strict=True)]
    empty = [orbitals[:, n == 0] for orbitals, n in zip(mo_coeff, mo_occ, strict=True)]
    density = density_of(*occupied)
    fock = core + cheap(density).potential
    lower = [c.T @ f @ c for c, f in zip(occupied, fock, strict=True)]
    upper = [c.T @ f @ c for c, f in zip(empty, fock, strict=True)]
    gaps = [u.diagonal()[:, None] - o.diagonal() for u, o in zip(upper, lower, strict=True)]
    diagonal = np.concatenate([gap.ravel() for gap in gaps])
    sizes = (len(upper[0]) * len(lower[0]), len(upper[1]) * len(lower[1]))
    respond = cheap.response(density)

    def product(vector: np.ndarray) -> np.ndarray:
        parts = np.split(vector, [sizes[0]])
        rotations = [part.reshape(len(u), len(o)) for part, u, o in zip(parts, upper, lower, strict=True)]
        potential = respond([c @ x for c, x in zip(empty, rotations, strict=True)])
        found = [
            u @ x - x @ o + c.T @ v @ d
            for u, x, o, c, v, d in zip(upper, rotations, lower, empty, potential, occupied, strict=True)
        ]
        return 2.0 * np.concatenate([part.ravel() for part in found])

    return product, 2.0 * diagonal, sizes


def _starts(diagonal: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Return single excitations of either spin, and a vector of no symmetry that meets what those may miss."""
    starts, first = [], 0
    for size in sizes:
        for place in first + np.argsort(diagonal[first : first + size], kind="stable")[:STARTS_PER_SPIN]:
            starts.append(np.zeros(len(diagonal)))
            starts[-1][place] = 1.0
        first += size
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(diagonal))
    return [*starts, signs / np.maximum(np.abs(diagonal), 1e-2)]
