"""Spin of a determinant: total <S^2>, spin populations of atoms and local products <S_i.S_j>."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def checked_density(density: Any, mole: Any, basis: str) -> np.ndarray:
    """Return density matrices of α and β ``(2, n_ao, n_ao)`` of a PySCF molecule; a `ValueError` if they are none."""
    found = np.asarray(density, dtype=float)
    if found.shape != (2, mole.nao, mole.nao):
        raise ValueError(
            f"Argument `density` must have shape (2, {mole.nao}, {mole.nao}) in {basis}, but has {found.shape}."
        )
    if not np.isfinite(found).all():
        raise ValueError("Argument `density` must be finite, but holds NaN or infinity.")
    electrons = float(np.einsum("sij,ji->", found, mole.intor_symmetric("int1e_ovlp")))
    if abs(electrons - mole.nelectron) > 0.1:
        raise ValueError(
            f"Argument `density` must hold the {mole.nelectron} electrons of the molecule, but holds {electrons:.2f}."
        )
    return found


def spin_squared(density: np.ndarray, overlap: np.ndarray) -> float:
    """Return <S^2> of an unrestricted determinant.

    Parameters
    ----------
    density
        Density matrices of α and β ``(2, n_ao, n_ao)``.
    overlap
        ``(n_ao, n_ao)``.

    Returns
    -------
    float
        <S^2> = M(M + 1) + n_β - tr(P_α S P_β S) with M = (n_α - n_β)/2.
    """
    alpha, beta = density[0] @ overlap, density[1] @ overlap
    n_alpha, n_beta = np.trace(alpha), np.trace(beta)
    m = (n_alpha - n_beta) / 2
    return float(m * (m + 1) + n_beta - np.einsum("ij,ji->", alpha, beta))


def spin_polarisation(mo_coeff: np.ndarray, mo_occ: np.ndarray, overlap: np.ndarray, n_magnetic: int) -> float:
    """Return how far the paired electrons of an unrestricted determinant are polarised.

    Parameters
    ----------
    mo_coeff, mo_occ
        Orbitals ``(2, n_ao, n_mo)`` and their occupations ``(2, n_mo)``.
    overlap
        ``(n_ao, n_ao)``.
    n_magnetic
        β electrons that are the down spins of centres. They are taken to be those that overlap least with the α
        electrons, and left out.

    Returns
    -------
    float
        Sum of 1 - s² over the pairs of corresponding orbitals, with s their overlap: what <S^2> is beyond that of
        separate spins, without the overlap of magnetic orbitals, which lowers it.

    References
    ----------
    Neese, J. Phys. Chem. Solids 65, 781 (2004), for corresponding orbitals of broken-symmetry states.
    """
    alpha, beta = (c[:, occupied > 0] for c, occupied in zip(mo_coeff, mo_occ, strict=True))
    overlaps = np.linalg.svd(alpha.T @ overlap @ beta, compute_uv=False)
    return float((1 - overlaps[: len(overlaps) - n_magnetic] ** 2).sum())


def atom_of_orbital(mole: Any) -> np.ndarray:
    """Return the atom index of each atomic orbital ``(n_ao,)``."""
    owner = np.empty(mole.nao, dtype=int)
    for atom, (_, _, first, last) in enumerate(mole.aoslice_by_atom()):
        owner[first:last] = atom
    return owner


def square_root(overlap: np.ndarray) -> np.ndarray:
    """Return the symmetric square root of an overlap matrix ``(n_ao, n_ao)``."""
    values, vectors = np.linalg.eigh(overlap)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def mulliken_spins(density: np.ndarray, overlap: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return the Mulliken spin population n_α - n_β of each atom ``(n_atoms,)``."""
    gross = np.einsum("ij,ji->i", density[0] - density[1], overlap)
    return np.bincount(owner, weights=gross)


def lowdin_spins(density: np.ndarray, overlap: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return the Löwdin spin population n_α - n_β of each atom ``(n_atoms,)``."""
    root = square_root(overlap)
    gross = np.einsum("ij,jk,ki->i", root, density[0] - density[1], root, optimize=True)
    return np.bincount(owner, weights=gross)


def local_spin_products(
    density: np.ndarray, overlap: np.ndarray, owner: np.ndarray, centres: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return <S_i.S_j> between spin centres for one determinant.

    Parameters
    ----------
    density
        Density matrices of α and β ``(2, n_ao, n_ao)``.
    overlap
        ``(n_ao, n_ao)``.
    owner
        Atom of each atomic orbital ``(n_ao,)``.
    centres
        Atom indices of each centre; ``n`` disjoint sets.

    Returns
    -------
    ndarray
        ``(n, n)``, symmetric, zero diagonal. Löwdin orthogonalised orbitals; a bond between two centres contributes
        about -3/8. It tells how spins are aligned; couplings do not follow from it, see `projection.map_yamaguchi`.

    References
    ----------
    Clark, Davidson, J. Chem. Phys. 115, 7382 (2001), for spins projected on orthogonal orbital sets.
    """
    root = square_root(overlap)
    alpha, beta = root @ density[0] @ root, root @ density[1] @ root
    spin = np.diag(alpha - beta)
    products = np.outer(spin, spin) / 4 - (alpha**2 + beta**2) / 4 - alpha * beta
    member = np.array([np.isin(owner, list(atoms)) for atoms in centres], dtype=float)
    matrix = member @ products @ member.T
    np.fill_diagonal(matrix, 0.0)
    return matrix


def occupation_changes(first: np.ndarray, second: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """Return by how much the occupations of orbitals differ between the total densities of two determinants.

    Parameters
    ----------
    first, second
        Density matrices of α and β ``(2, n_ao, n_ao)`` of both.
    overlap
        ``(n_ao, n_ao)``.

    Returns
    -------
    ndarray
        Eigenvalues of the first minus the second total density in orthogonal orbitals ``(n_ao,)``, ascending. An
        electron in another orbital has -1 and +1 of them.
    """
    root = square_root(overlap)
    return np.linalg.eigvalsh(root @ (first[0] + first[1] - second[0] - second[1]) @ root)


def promotion(first: np.ndarray, second: np.ndarray, overlap: np.ndarray) -> float:
    """Return how many electrons must move to turn the total density of one determinant into that of another.

    Parameters as for `occupation_changes`.

    Returns
    -------
    float
        Half the sum of the absolute `occupation_changes` (the promotion number of difference densities). Determinants
        that differ in the alignment of their spins only have nearly the same total density; another orbital occupation
        moves an electron or more.

    References
    ----------
    Head-Gordon, Grana, Maurice, White, J. Phys. Chem. 99, 14261 (1995), for attachment and detachment densities.
    """
    return float(np.abs(occupation_changes(first, second, overlap)).sum() / 2)
