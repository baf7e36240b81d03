"""Davies' generator: baths that couple to some operators and drive a system to its thermal state.

For each coupling A and each transition frequency w of the Hamiltonian, the part A(w) of A that lowers the energy by w
is a jump operator with the rate gamma(w) = 2 rate / (1 + exp(-w / kT)), which obeys detailed balance.

E. B. Davies, Commun. Math. Phys. 39, 91 (1974).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from molecular_qubits.spins.operators import ComplexArray, change_basis

FREQUENCY_TOLERANCE_RAD_PER_NS = 1e-6
"""Transition frequencies closer than this are treated as one."""


@dataclass(frozen=True, eq=False)
class Davies:
    """Baths of one temperature and strength, without the Hamiltonian that they thermalise.

    Attributes
    ----------
    couplings
        Hermitian operators (m, D, D), without unit.
    rate_per_ns
        gamma(0).
    thermal_rad_ns
        k T / h-bar.
    """

    couplings: ComplexArray
    rate_per_ns: float
    thermal_rad_ns: float

    def jumps(self, hamiltonian: ComplexArray) -> ComplexArray:
        """Return the jump operators (k, D, D) for a Hamiltonian (D, D) in rad/ns."""
        return davies_jumps(hamiltonian, self.couplings, self.rate_per_ns, self.thermal_rad_ns)


def davies_jumps(
    hamiltonian: ComplexArray, couplings: ComplexArray, rate_per_ns: float, thermal_rad_ns: float
) -> ComplexArray:
    """Return the jump operators of Davies' generator.

    Parameters
    ----------
    hamiltonian
        Hermitian (D, D), rad/ns.
    couplings
        Hermitian operators (m, D, D), without unit.
    rate_per_ns
        gamma(0).
    thermal_rad_ns
        k T / h-bar.

    Returns
    -------
    ndarray of complex, shape (k, D, D)
        In ns^-1/2: for each transition frequency one for each coupling that acts at it, or as many as it has
        elements if these are fewer.
    """
    energies, vectors = np.linalg.eigh(hamiltonian)
    lowering = energies[None, :] - energies[:, None]
    flat = lowering.ravel()
    order = np.argsort(flat)
    groups = np.empty(flat.size, dtype=int)
    groups[order] = np.cumsum(np.diff(flat[order], prepend=flat[order[0]]) > FREQUENCY_TOLERANCE_RAD_PER_NS)
    frequency = np.bincount(groups, weights=flat) / np.bincount(groups)
    label = groups.reshape(lowering.shape)
    gamma = 2 * rate_per_ns / (1 + np.exp(-frequency / thermal_rad_ns))
    elements = change_basis(np.asarray(couplings, dtype=complex), vectors)
    size = np.abs(elements).max(axis=(1, 2), keepdims=True)
    elements = np.where(np.abs(elements) < 1e-13 * np.maximum(size, 1.0), 0, elements).reshape(len(couplings), -1)
    active = np.flatnonzero(np.any(elements, axis=0))
    active = active[np.argsort(label.ravel()[active], kind="stable")]
    groups, first = np.unique(label.ravel()[active], return_index=True)
    rows = []
    for group, places in zip(groups, np.split(active, first[1:]), strict=True):
        amplitudes: Any = elements[:, places]
        if len(places) == 1:  # the same sum of A rho A^+ by no more operators than elements
            amplitudes = np.linalg.norm(amplitudes, axis=0, keepdims=True)
        elif len(amplitudes) > len(places):
            amplitudes = np.linalg.qr(amplitudes, mode="r")
        row = np.zeros((len(amplitudes), flat.size), dtype=complex)
        row[:, places] = np.sqrt(gamma[group]) * amplitudes
        rows.append(row[np.any(amplitudes, axis=1)])
    dimension = len(energies)
    parts = np.concatenate([np.zeros((0, flat.size), dtype=complex), *rows]).reshape(-1, dimension, dimension)
    return change_basis(parts, vectors.conj().T)
