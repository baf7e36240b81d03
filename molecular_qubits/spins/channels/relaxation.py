"""Relaxation of spins by surroundings at a temperature: local, or in the eigenbasis of the coupled system (Davies)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from molecular_qubits.spins.channels.base import Channel
from molecular_qubits.spins.channels.transfer import coupler_level
from molecular_qubits.spins.checks import field_vector, known_name, non_negative, positive, thermal_frequency
from molecular_qubits.spins.operators import ComplexArray, change_basis, embed
from molecular_qubits.spins.system import QuantumSystem

FREQUENCY_TOLERANCE_RAD_PER_NS = 1e-6
"""Transition frequencies closer than this are treated as one."""


@dataclass(frozen=True)
class RadicalRelaxation(Channel):
    """T1 and T2 of one spin 1/2 at a temperature.

    With ``basis="local"`` populations relax with T1 towards their Boltzmann values in the field at the spin, coherences
    with T2, as if the spin were alone; this does not bring an exchange-coupled system to its equilibrium. With
    ``basis="eigen"`` the same baths act between the eigenstates of the whole system (Davies): the thermal state of the
    coupled system is stationary, and T1 and T2 are those of the spin when it is uncoupled.

    Parameters
    ----------
    site
        Name of the site.
    t1_ns
        Longitudinal relaxation time.
    temperature_k
        Temperature, above 0.
    t2_ns
        Transverse relaxation time, at most 2 T1, which is the default.
    basis
        ``"local"`` or ``"eigen"``.

    Raises
    ------
    ValueError
        If a time or the temperature is not above 0, or T2 > 2 T1.
    """

    site: str
    t1_ns: float
    temperature_k: float
    t2_ns: float | None = None
    basis: Literal["eigen", "local"] = "local"

    def __post_init__(self) -> None:
        positive(self.t1_ns, "t1_ns")
        thermal_frequency(self.temperature_k)
        known_name(self.basis, ("local", "eigen"), "basis")
        if self.t2_ns is not None and positive(self.t2_ns, "t2_ns") > 2 * self.t1_ns * (1 + 1e-12):
            raise ValueError(
                f"Argument `t2_ns` must be at most 2 T1 = {2 * self.t1_ns} ns, but was {self.t2_ns} ns; "
                f"a longer one would make populations negative."
            )

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operators: down, up and dephasing of the spin, or those of Davies, shape (k, D, D)."""
        lower, upper, splitting = _two_levels(system, self.site, field_tesla)
        t2 = 2 * self.t1_ns if self.t2_ns is None else self.t2_ns
        pure = max(1 / t2 - 1 / (2 * self.t1_ns), 0.0)
        lowering = np.outer(lower, upper.conj())
        polarisation = np.outer(upper, upper.conj()) - np.outer(lower, lower.conj())
        index, thermal = system.names.index(self.site), thermal_frequency(self.temperature_k)
        if self.basis == "eigen":
            flips = np.array([lowering + lowering.conj().T, 1j * (lowering - lowering.conj().T)]) / 2
            whole = system.hamiltonian_matrix(field_tesla)
            jumps = davies_jumps(
                whole, embed(np.asarray(flips, dtype=complex), index, system.dims), 1 / self.t1_ns, thermal
            )
            fluctuation = embed(np.asarray(polarisation[None] / 2, dtype=complex), index, system.dims)
            return np.concatenate([jumps, davies_jumps(whole, fluctuation, 2 * pure, thermal)])
        boltzmann = np.exp(-splitting / thermal)
        down = 1 / (self.t1_ns * (1 + boltzmann))
        local = np.array(
            [
                np.sqrt(down) * lowering,
                np.sqrt(down * boltzmann) * lowering.conj().T,
                np.sqrt(pure / 2) * polarisation,
            ]
        )
        return embed(local, index, system.dims)


@dataclass(frozen=True)
class PureDephasing(Channel):
    """Loss of coherence without change of populations along an axis: L = sqrt(2 rate) S.n.

    A coherence between M and M' along the axis decays at rate (M - M')^2.

    Parameters
    ----------
    site
        Name of the site.
    rate_per_ns
        Decay rate of the coherence between neighbouring M.
    axis
        Direction in the laboratory, z by default; it is normalised.
    """

    site: str
    rate_per_ns: float
    axis: Sequence[float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        non_negative(self.rate_per_ns, "rate_per_ns")
        axis = np.asarray(self.axis, dtype=float)
        if axis.shape != (3,) or not np.all(np.isfinite(axis)) or not np.any(axis):
            raise ValueError(f"Argument `axis` must be 3 finite numbers, not all 0, but was {self.axis!r}.")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operator, shape (1, D, D)."""
        known_name(self.site, system.names, "site")
        axis = np.asarray(self.axis, dtype=float) / np.linalg.norm(self.axis)
        local = np.sqrt(2 * self.rate_per_ns) * np.einsum("a,aij->ij", axis, system.site_spin(self.site))
        return embed(local[None], system.names.index(self.site), system.dims)


@dataclass(frozen=True)
class ThermalRelaxation(Channel):
    """Relaxation by baths at one temperature, each coupled to one spin component of one site.

    The generator is Davies': for each coupling A and each transition frequency w of the Hamiltonian, the part A(w) of
    A that lowers the energy by w is a jump operator with the rate gamma(w) = 2 rate / (1 + exp(-w / kT)). It obeys
    detailed balance, gamma(-w) = gamma(w) exp(-w / kT), and gamma(0) = rate. With ``basis="eigen"`` the frequencies
    are those of the whole system, and the thermal state exp(-H/kT)/Z is stationary; with ``basis="local"`` those of
    the site alone, as if it were uncoupled. For a spin 1/2 with the axes ``"xy"`` in a field along z,
    T1 = 1 / rate. For a spin 1 at zero field with the axis ``"x"`` of its zero-field tensor, populations of T_y and T_z
    exchange at the summed rate 2 rate, so that three channels of one axis each set the spin-lattice relaxation between
    the sublevels one by one.

    Transitions closer than 1e-6 rad/ns count as one. Sound when frequencies that differ do so by much more than the
    rates (the secular approximation).

    Parameters
    ----------
    sites
        Names of the sites, each with its own baths.
    rate_per_ns
        The rate above.
    temperature_k
        Temperature, above 0.
    axes
        Components of the spin that couple, in the laboratory: letters of ``"xyz"``.
    basis
        ``"eigen"`` or ``"local"``.
    level
        Electronic level of the coupler (``"S0"``, ``"S1"``, ``"T"``) in which alone the baths act, for a
        `TwoQubitUnit` with ``basis="eigen"``; None for all.

    References
    ----------
    E. B. Davies, Commun. Math. Phys. 39, 91 (1974).
    """

    sites: Sequence[str]
    rate_per_ns: float
    temperature_k: float
    axes: str = "xyz"
    basis: Literal["eigen", "local"] = "eigen"
    level: str | None = None

    def __post_init__(self) -> None:
        non_negative(self.rate_per_ns, "rate_per_ns")
        thermal_frequency(self.temperature_k)
        known_name(self.basis, ("eigen", "local"), "basis")
        if isinstance(self.sites, str) or len(self.sites) == 0:
            raise ValueError(f"Argument `sites` must be a list of site names, but was {self.sites!r}.")
        if not self.axes or set(self.axes) - set("xyz") or len(set(self.axes)) != len(self.axes):
            raise ValueError(f"Argument `axes` must hold letters of 'xyz', each once, but was {self.axes!r}.")
        if self.level is not None and self.basis == "local":
            raise ValueError(f"Argument `level` must be None with basis='local', but was {self.level!r}.")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operators of all couplings, shape (k, D, D)."""
        thermal = thermal_frequency(self.temperature_k)
        axes = ["xyz".index(axis) for axis in self.axes]
        indices = [system.names.index(known_name(site, system.names, "sites")) for site in self.sites]
        if self.basis == "local":
            stacks = []
            for index, site in zip(indices, self.sites, strict=True):
                alone = system.site_hamiltonian(site, field_tesla)
                local = davies_jumps(alone, system.site_spin(site)[axes], self.rate_per_ns, thermal)
                stacks.append(embed(local, index, system.dims))
            return np.concatenate(stacks)
        couplings = np.concatenate(
            [embed(system.site_spin(site)[axes], i, system.dims) for i, site in zip(indices, self.sites, strict=True)]
        )
        if self.level is not None:
            projector = coupler_level(system, self.level)
            couplings = projector @ couplings @ projector
        return davies_jumps(system.hamiltonian_matrix(field_tesla), couplings, self.rate_per_ns, thermal)


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


def _two_levels(system: QuantumSystem, site: str, field_tesla: Any) -> tuple[ComplexArray, ComplexArray, float]:
    """Return the lower and the upper Zeeman ket of a spin 1/2 and their splitting; along z without a field."""
    position = system.names.index(known_name(site, system.names, "site"))
    if system.dims[position] != 2:
        raise ValueError(f"Argument `site` must name a spin 1/2, but {site!r} has dimension {system.dims[position]}.")
    if not np.any(field_vector(field_tesla)):
        return np.array([0, 1], dtype=complex), np.array([1, 0], dtype=complex), 0.0
    energies, vectors = np.linalg.eigh(system.site_hamiltonian(site, field_tesla))
    return vectors[:, 0], vectors[:, 1], float(energies[1] - energies[0])
