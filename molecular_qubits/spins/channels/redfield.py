"""Bloch-Redfield relaxation from a spectral density, the alternative to the Lindblad form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from molecular_qubits.spins.channels.base import Channel
from molecular_qubits.spins.channels.davies import FREQUENCY_TOLERANCE_RAD_PER_NS
from molecular_qubits.spins.checks import known_name, non_negative
from molecular_qubits.spins.operators import ComplexArray, FloatArray, embed
from molecular_qubits.spins.spectral_density import SpectralDensity
from molecular_qubits.spins.system import QuantumSystem


@dataclass(frozen=True)
class Redfield(Channel):
    """Relaxation by baths with a spectral density, each coupled to one spin component of one site.

    The Bloch-Redfield equation keeps the terms between transitions of different frequency which `ThermalRelaxation`
    (Davies) leaves out, so that it holds also where frequencies differ by no more than the rates. The price: it does
    not keep density matrices positive. Where the rates are small beside all differences of frequencies the two agree,
    to first order in their ratio; negative populations of that order mean that the bath is too strong for it. The
    energy shift by the bath is left out, as in QuTiP.

    Parameters
    ----------
    sites
        Names of the sites, each with its own baths.
    spectral_density
        S(w) in 1/ns, for w > 0 the rate at which energy is given to the bath: `LorentzianBath`, `OhmicBath` or another
        function of an array. With white noise, ``LorentzianBath(rate, temperature)``, and a secular cutoff of 0
        it is `ThermalRelaxation`.
    axes
        Components of the spin that couple, in the laboratory: letters of ``"xyz"``.
    secular_cutoff_rad_per_ns
        Terms between transitions whose frequencies differ by more are dropped; None keeps all, 0 is the secular
        approximation.

    References
    ----------
    A. G. Redfield, IBM J. Res. Dev. 1, 19 (1957); H.-P. Breuer and F. Petruccione, The Theory of Open Quantum Systems
    (Oxford, 2002), section 3.3.
    """

    sites: Sequence[str]
    spectral_density: SpectralDensity
    axes: str = "xyz"
    secular_cutoff_rad_per_ns: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.sites, str) or len(self.sites) == 0:
            raise ValueError(f"Argument `sites` must be a list of site names, but was {self.sites!r}.")
        if not callable(self.spectral_density):
            raise ValueError(
                f"Argument `spectral_density` must be a function of the frequency, such as LorentzianBath(...), but "
                f"was {self.spectral_density!r}."
            )
        if not self.axes or set(self.axes) - set("xyz") or len(set(self.axes)) != len(self.axes):
            raise ValueError(f"Argument `axes` must hold letters of 'xyz', each once, but was {self.axes!r}.")
        if self.secular_cutoff_rad_per_ns is not None:
            non_negative(self.secular_cutoff_rad_per_ns, "secular_cutoff_rad_per_ns")

    local = False

    def superoperator(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the Redfield tensor (D^2, D^2) in 1/ns."""
        couplings = np.concatenate(
            [
                embed(
                    system.site_spin(known_name(site, system.names, "sites"))[["xyz".index(a) for a in self.axes]],
                    system.names.index(site),
                    system.dims,
                )
                for site in self.sites
            ]
        )
        return redfield_tensor(
            system.hamiltonian_matrix(field_tesla), couplings, self.spectral_density, self.secular_cutoff_rad_per_ns
        )


def redfield_tensor(
    hamiltonian: ComplexArray,
    couplings: ComplexArray,
    spectral_density: SpectralDensity,
    secular_cutoff_rad_per_ns: float | None = None,
) -> ComplexArray:
    """Return the Bloch-Redfield tensor of independent baths without their energy shift.

    With G = sum_w S(w) A(w) / 2 and A(w) the part of a coupling A that lowers the energy by w,
    R rho = G rho A + A rho G^+ - A G rho - rho G^+ A, summed over the couplings.

    Parameters
    ----------
    hamiltonian
        Hermitian (D, D), rad/ns.
    couplings
        Hermitian operators (m, D, D), without unit.
    spectral_density
        S(w) in 1/ns.
    secular_cutoff_rad_per_ns
        See `Redfield`.

    Returns
    -------
    ndarray of complex, shape (D^2, D^2)
        On row-major vec(rho), in 1/ns.

    Raises
    ------
    ValueError
        If a coupling is not Hermitian, or the spectral density is negative or not finite at a transition.
    """
    energies, vectors = np.linalg.eigh(hamiltonian)
    frequency = energies[None, :] - energies[:, None]
    density = np.asarray(spectral_density(frequency), dtype=float)
    _check_density(density, frequency)
    d = len(energies)
    identity = np.eye(d)
    tensor = np.zeros((d * d, d * d), dtype=complex)
    for number, coupling in enumerate(couplings):
        asymmetry = float(np.max(np.abs(coupling - coupling.conj().T)))
        if asymmetry > 1e-12 * max(1.0, float(np.max(np.abs(coupling)))):
            raise ValueError(f"Argument `couplings[{number}]` must be Hermitian, but is off by {asymmetry:.3g}.")
        a = vectors.conj().T @ coupling @ vectors
        g = 0.5 * density * a
        tensor += np.kron(g, a.T) + np.kron(a, g.conj()) - np.kron(a @ g, identity) - np.kron(identity, (a @ g).conj())
    if secular_cutoff_rad_per_ns is not None:
        coherence = (energies[:, None] - energies[None, :]).ravel()
        far = np.abs(coherence[:, None] - coherence[None, :])
        tensor[far > max(secular_cutoff_rad_per_ns, FREQUENCY_TOLERANCE_RAD_PER_NS)] = 0
    back = np.kron(vectors, vectors.conj())
    return back @ tensor @ back.conj().T


def _check_density(density: FloatArray, frequency: FloatArray) -> None:
    if density.shape != frequency.shape or not np.all(np.isfinite(density)) or np.any(density < 0):
        raise ValueError(
            "Argument `spectral_density` must return finite rates, none negative, for an array of frequencies in "
            "rad/ns, but did not at the transition frequencies of this system."
        )
