"""Relaxation of spins by surroundings at a temperature: local, or in the eigenbasis of the coupled system (Davies)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from molecular_qubits.spins.channels.base import Channel
from molecular_qubits.spins.channels.davies import Davies, davies_jumps
from molecular_qubits.spins.channels.transfer import coupler_level
from molecular_qubits.spins.checks import field_vector, known_name, non_negative, positive, thermal_frequency
from molecular_qubits.spins.operators import ComplexArray, embed
from molecular_qubits.spins.system import QuantumSystem


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
        if self.basis == "eigen":
            return super().jumps(system, field_tesla)
        lower, upper, splitting = _two_levels(system, self.site, field_tesla)
        lowering = np.outer(lower, upper.conj())
        polarisation = np.outer(upper, upper.conj()) - np.outer(lower, lower.conj())
        pure = self._pure_rate()
        boltzmann = np.exp(-splitting / thermal_frequency(self.temperature_k))
        down = 1 / (self.t1_ns * (1 + boltzmann))
        local = np.array(
            [
                np.sqrt(down) * lowering,
                np.sqrt(down * boltzmann) * lowering.conj().T,
                np.sqrt(pure / 2) * polarisation,
            ]
        )
        return embed(local, system.names.index(self.site), system.dims)

    def davies(self, system: QuantumSystem, field_tesla: Any) -> tuple[Davies, ...]:
        """Return the baths of flips and of dephasing, none with ``basis="local"``."""
        if self.basis == "local":
            return ()
        lower, upper, _ = _two_levels(system, self.site, field_tesla)
        lowering = np.outer(lower, upper.conj())
        flips = np.array([lowering + lowering.conj().T, 1j * (lowering - lowering.conj().T)]) / 2
        levels = np.outer(upper, upper.conj()) - np.outer(lower, lower.conj())
        fluctuation = np.asarray(levels[None] / 2, dtype=complex)
        index, thermal = system.names.index(self.site), thermal_frequency(self.temperature_k)
        return (
            Davies(embed(np.asarray(flips, dtype=complex), index, system.dims), 1 / self.t1_ns, thermal),
            Davies(embed(fluctuation, index, system.dims), 2 * self._pure_rate(), thermal),
        )

    def _pure_rate(self) -> float:
        t2 = 2 * self.t1_ns if self.t2_ns is None else self.t2_ns
        return max(1 / t2 - 1 / (2 * self.t1_ns), 0.0)


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
        if self.basis == "eigen":
            return super().jumps(system, field_tesla)
        thermal = thermal_frequency(self.temperature_k)
        stacks = []
        for site, index, spin in self._spins(system):
            local = davies_jumps(system.site_hamiltonian(site, field_tesla), spin, self.rate_per_ns, thermal)
            stacks.append(embed(local, index, system.dims))
        return np.concatenate(stacks)

    def davies(self, system: QuantumSystem, field_tesla: Any) -> tuple[Davies, ...]:
        """Return the baths, none with ``basis="local"``."""
        if self.basis == "local":
            return ()
        couplings = np.concatenate([embed(spin, index, system.dims) for _, index, spin in self._spins(system)])
        if self.level is not None:
            projector = coupler_level(system, self.level)
            couplings = projector @ couplings @ projector
        return (Davies(couplings, self.rate_per_ns, thermal_frequency(self.temperature_k)),)

    def _spins(self, system: QuantumSystem) -> list[tuple[str, int, ComplexArray]]:
        """Return name, index and coupling spin components (m, d, d) of each site."""
        axes = ["xyz".index(axis) for axis in self.axes]
        return [
            (site, system.names.index(known_name(site, system.names, "sites")), system.site_spin(site)[axes])
            for site in self.sites
        ]


def _two_levels(system: QuantumSystem, site: str, field_tesla: Any) -> tuple[ComplexArray, ComplexArray, float]:
    """Return the lower and the upper Zeeman ket of a spin 1/2 and their splitting; along z without a field."""
    position = system.names.index(known_name(site, system.names, "site"))
    if system.dims[position] != 2:
        raise ValueError(f"Argument `site` must name a spin 1/2, but {site!r} has dimension {system.dims[position]}.")
    if not np.any(field_vector(field_tesla)):
        return np.array([0, 1], dtype=complex), np.array([1, 0], dtype=complex), 0.0
    energies, vectors = np.linalg.eigh(system.site_hamiltonian(site, field_tesla))
    return vectors[:, 0], vectors[:, 1], float(energies[1] - energies[0])
