"""Start densities: broken-symmetry guesses from a high-spin determinant, and projection from a smaller basis."""

from __future__ import annotations

from typing import Any

import numpy as np

from molecular_qubits.fields.populations import square_root


def swap_density(density: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """Return the high-spin density with α and β exchanged on the flipped orbitals.

    Parameters
    ----------
    density
        High-spin density matrices ``(2, n_ao, n_ao)``.
    flipped
        True for the atomic orbitals of the flipped centres ``(n_ao,)``.

    Returns
    -------
    ndarray
        ``(2, n_ao, n_ao)``. The blocks between flipped and other orbitals lose their spin density; the total density
        is unchanged.
    """
    sign = np.where(flipped, -1.0, 1.0)
    total, spin = density[0] + density[1], density[0] - density[1]
    spin = spin * (sign[:, None] + sign[None, :]) / 2
    return np.array([total + spin, total - spin]) / 2


def magnetic_orbitals(mo_coeff: np.ndarray, mo_occ: np.ndarray, overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a high-spin determinant into a paired part and its unpaired α orbitals (corresponding orbitals).

    Parameters
    ----------
    mo_coeff, mo_occ
        Orbitals ``(2, n_ao, n_mo)`` and occupations ``(2, n_mo)``.
    overlap
        ``(n_ao, n_ao)``.

    Returns
    -------
    paired, unpaired
        α orbitals ``(n_ao, n_beta)`` that pair with the β space, and the ``n_alpha - n_beta`` orthogonal to it.

    References
    ----------
    Amos, Hall, Proc. R. Soc. A 263, 483 (1961).
    """
    alpha, beta = occupied_orbitals(mo_coeff, mo_occ)
    left, _, _ = np.linalg.svd(alpha.T @ overlap @ beta, full_matrices=True)
    rotated = alpha @ left
    return rotated[:, : beta.shape[1]], rotated[:, beta.shape[1] :]


def fragment_density(
    mo_coeff: np.ndarray, mo_occ: np.ndarray, overlap: np.ndarray, flipped: np.ndarray, n_flipped: int
) -> np.ndarray:
    """Return the broken-symmetry determinant made of the magnetic orbitals localised on the centres.

    Parameters
    ----------
    mo_coeff, mo_occ
        High-spin orbitals ``(2, n_ao, n_mo)`` and occupations ``(2, n_mo)``.
    overlap
        ``(n_ao, n_ao)``.
    flipped
        True for the atomic orbitals of the flipped centres ``(n_ao,)``.
    n_flipped
        Unpaired electrons of the flipped centres: they move from α to β.

    Returns
    -------
    ndarray
        Density matrices ``(2, n_ao, n_ao)`` of a proper determinant. The unpaired orbitals are rotated among
        themselves so that ``n_flipped`` of them lie on the flipped centres as far as possible (Löwdin populations).
    """
    paired, unpaired = magnetic_orbitals(mo_coeff, mo_occ, overlap)
    weight = square_root(overlap)[flipped] @ unpaired
    _, rotation = np.linalg.eigh(weight.T @ weight)  # ascending population on the flipped centres
    localised = unpaired @ rotation
    kept, moved = localised[:, : -n_flipped or None], localised[:, localised.shape[1] - n_flipped :]
    beta = occupied_orbitals(mo_coeff, mo_occ)[1]
    return density_of(np.hstack([paired, kept]), np.hstack([beta, moved]))


def aligned_density(mo_coeff: np.ndarray, mo_occ: np.ndarray, overlap: np.ndarray, n_flipped: int) -> np.ndarray:
    """Return a broken-symmetry determinant with its flipped spins turned back, a guess for the high-spin state.

    Parameters
    ----------
    mo_coeff, mo_occ
        Broken-symmetry orbitals ``(2, n_ao, n_mo)`` and occupations ``(2, n_mo)``.
    overlap
        ``(n_ao, n_ao)``.
    n_flipped
        Unpaired β electrons: the corresponding β orbitals that overlap least with the α space become α.

    Returns
    -------
    ndarray
        Density matrices ``(2, n_ao, n_ao)`` of a proper determinant.
    """
    alpha, beta = occupied_orbitals(mo_coeff, mo_occ)
    _, _, right = np.linalg.svd(alpha.T @ overlap @ beta, full_matrices=True)  # descending overlap
    rotated = beta @ right.T
    kept, moved = rotated[:, : rotated.shape[1] - n_flipped], rotated[:, rotated.shape[1] - n_flipped :]
    moved = moved - alpha @ (alpha.T @ overlap @ moved)
    return density_of(np.hstack([alpha, moved @ _inverse_root(moved.T @ overlap @ moved)]), kept)


def occupied_orbitals(mo_coeff: Any, mo_occ: Any) -> list[np.ndarray]:
    """Return the occupied orbitals of α and of β, ``(n_ao, n_alpha)`` and ``(n_ao, n_beta)``."""
    return [orbitals[:, n > 0] for orbitals, n in zip(mo_coeff, mo_occ, strict=True)]


def density_of(alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Return the density matrices ``(2, n_ao, n_ao)`` of occupied orbitals ``(n_ao, n_alpha)`` and ``(n_ao, n_beta)``.

    The orbitals travel with the array, as in PySCF: exchange integrals by density fitting are several times cheaper
    from them.
    """
    from pyscf import lib

    width = max(alpha.shape[1], beta.shape[1])
    coefficients, occupations = np.zeros((2, len(alpha), width)), np.zeros((2, width))
    for spin, orbitals in enumerate((alpha, beta)):
        coefficients[spin, :, : orbitals.shape[1]] = orbitals
        occupations[spin, : orbitals.shape[1]] = 1.0
    density = np.array([alpha @ alpha.T, beta @ beta.T])
    return lib.tag_array(density, mo_coeff=coefficients, mo_occ=occupations)


def project_density(mo_coeff: np.ndarray, mo_occ: np.ndarray, small: Any, large: Any) -> np.ndarray:
    """Return the density ``(2, n, n)`` in the basis of ``large`` of a determinant converged in that of ``small``."""
    from pyscf.scf import addons

    occupied = [addons.project_mo_nr2nr(small, orbitals, large) for orbitals in occupied_orbitals(mo_coeff, mo_occ)]
    overlap = large.intor_symmetric("int1e_ovlp")
    alpha, beta = (orbitals @ _inverse_root(orbitals.T @ overlap @ orbitals) for orbitals in occupied)
    return density_of(alpha, beta)


def _inverse_root(metric: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(metric)
    return (vectors / np.sqrt(values)) @ vectors.T
