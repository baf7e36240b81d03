"""Orbital Hessian of a ramped field by its cheap field: density-fitted, single precision, on its grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from molecular_qubits.electronic.ramp import CheapField
from molecular_qubits.fields.guesses import density_of, occupied_orbitals
from molecular_qubits.fields.stability import OrbitalHessian


def cheap_hessian(cheap: CheapField, fock: np.ndarray, mo_coeff: np.ndarray, mo_occ: np.ndarray) -> OrbitalHessian:
    """Return the orbital Hessian of a determinant; relative error about 1e-7 on the same grid.

    Parameters
    ----------
    cheap
        Cheap field of the molecule.
    fock
        Fock matrices of the determinant ``(2, n_ao, n_ao)``.
    mo_coeff, mo_occ
        Orbitals ``(2, n_ao, n_mo)`` and occupations ``(2, n_mo)``.
    """
    occupied, empty = occupied_orbitals(mo_coeff, mo_occ), _empty(mo_coeff, mo_occ)
    lower = [c.T @ f @ c for c, f in zip(occupied, fock, strict=True)]
    upper = [c.T @ f @ c for c, f in zip(empty, fock, strict=True)]
    gaps = [(u.diagonal()[:, None] - o.diagonal()).ravel() for u, o in zip(upper, lower, strict=True)]
    respond = cheap.response(density_of(*occupied))

    def product(vector: np.ndarray) -> np.ndarray:
        parts = np.split(vector, [len(gaps[0])])
        rotations = [part.reshape(len(u), len(o)) for part, u, o in zip(parts, upper, lower, strict=True)]
        potential = respond([c @ x for c, x in zip(empty, rotations, strict=True)])
        found = [
            u @ x - x @ o + c.T @ v @ d
            for u, x, o, c, v, d in zip(upper, rotations, lower, empty, potential, occupied, strict=True)
        ]
        return 2.0 * np.concatenate([part.ravel() for part in found])

    return OrbitalHessian(product, 2.0 * np.concatenate(gaps), (len(gaps[0]), len(gaps[1])))


def newton_terms(
    cheap: CheapField, mo_coeff: np.ndarray, mo_occ: np.ndarray, fock: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """Return gradient, product with the Hessian and its diagonal, as ``gen_g_hop`` of PySCF's second-order solver.

    Arguments as for `cheap_hessian`.
    """
    pairs = zip(_empty(mo_coeff, mo_occ), fock, occupied_orbitals(mo_coeff, mo_occ), strict=True)
    gradient = np.concatenate([(upper.T @ matrix @ lower).ravel() for upper, matrix, lower in pairs])
    hessian = cheap_hessian(cheap, fock, mo_coeff, mo_occ)
    return gradient, lambda vector: 0.5 * hessian.product(vector), 0.5 * hessian.diagonal


def _empty(mo_coeff: Any, mo_occ: Any) -> list[np.ndarray]:
    return [orbitals[:, n == 0] for orbitals, n in zip(mo_coeff, mo_occ, strict=True)]
