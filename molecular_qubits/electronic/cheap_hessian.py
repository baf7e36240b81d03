"""Orbital Hessian of a ramped field by its cheap field: density-fitted, single precision, coarse grid."""

from __future__ import annotations

import numpy as np

from molecular_qubits.electronic.ramp import CheapField
from molecular_qubits.fields.guesses import density_of
from molecular_qubits.fields.stability import OrbitalHessian


def cheap_hessian(cheap: CheapField, core: np.ndarray, mo_coeff: np.ndarray, mo_occ: np.ndarray) -> OrbitalHessian:
    """Return the orbital Hessian of a determinant; relative error about 1e-7 on the same grid.

    Parameters
    ----------
    cheap
        Cheap field of the molecule.
    core
        One-electron Hamiltonian ``(n_ao, n_ao)``.
    mo_coeff, mo_occ
        Converged orbitals ``(2, n_ao, n_mo)`` and occupations ``(2, n_mo)``.
    """
    occupied = [orbitals[:, n > 0] for orbitals, n in zip(mo_coeff, mo_occ, strict=True)]
    empty = [orbitals[:, n == 0] for orbitals, n in zip(mo_coeff, mo_occ, strict=True)]
    density = density_of(*occupied)
    fock = core + cheap(density).potential
    lower = [c.T @ f @ c for c, f in zip(occupied, fock, strict=True)]
    upper = [c.T @ f @ c for c, f in zip(empty, fock, strict=True)]
    gaps = [(u.diagonal()[:, None] - o.diagonal()).ravel() for u, o in zip(upper, lower, strict=True)]
    respond = cheap.response(density)

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
