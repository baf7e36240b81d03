"""Light on the coupler: transitions between S0 and S1."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from molecular_qubits.spins.channels.base import Channel
from molecular_qubits.spins.channels.transfer import coupler_transition
from molecular_qubits.spins.checks import finite_number, known_name, non_negative, positive
from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.system import QuantumSystem

Shape = Literal["square", "gaussian"]


@dataclass(frozen=True)
class OpticalPulse(Channel):
    """Incoherent pumping of S0 to S1 and stimulated emission back, at the same rate.

    The right limit when the optical coherence of the coupler (femtoseconds to picoseconds in a solid) is much shorter
    than the pulse: the populations then obey rate equations. Spins are untouched by the transition.

    Parameters
    ----------
    start_ns, duration_ns
        Begin and length of the pulse. A Gaussian has its full width at half maximum equal to half the length and is
        cut at both ends.
    pump_rate_per_ns
        Rate S0 -> S1 (and S1 -> S0) at the maximum: absorption cross section times photon flux.
    shape
        ``"square"`` or ``"gaussian"``, the latter as `slices` constant pieces.
    slices
        Number of pieces of a Gaussian.
    """

    start_ns: float
    duration_ns: float
    pump_rate_per_ns: float
    shape: Shape = "square"
    slices: int = 20

    def __post_init__(self) -> None:
        finite_number(self.start_ns, "start_ns")
        positive(self.duration_ns, "duration_ns")
        non_negative(self.pump_rate_per_ns, "pump_rate_per_ns")
        known_name(self.shape, ("square", "gaussian"), "shape")
        if self.slices < 1:
            raise ValueError(f"Argument `slices` must be at least 1, but was {self.slices}.")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operators of absorption and stimulated emission, shape (2, D, D)."""
        up = coupler_transition(system, "S1", "S0")
        return np.sqrt(self.pump_rate_per_ns) * np.array([up, up.conj().T])

    def segments(self) -> tuple[tuple[float, float, float], ...]:
        """Return the pieces of the pulse."""
        return pulse_segments(self.start_ns, self.duration_ns, self.shape, self.slices)


@dataclass(frozen=True)
class CoherentPulse(Channel):
    """Coherent resonant drive of S0 and S1: H = (rabi / 2)(|S1><S0| + |S0><S1|) + detuning |S1><S1|.

    Parameters
    ----------
    start_ns, duration_ns
        Begin and length of the square pulse.
    rabi_rad_per_ns
        Rabi frequency; a pulse with rabi * duration = pi inverts the levels when nothing decays.
    detuning_rad_per_ns
        Transition frequency minus light frequency, applied during the pulse.
    dephasing_per_ns
        Decay rate of the optical coherence during the pulse.
    """

    start_ns: float
    duration_ns: float
    rabi_rad_per_ns: float
    detuning_rad_per_ns: float = 0.0
    dephasing_per_ns: float = 0.0

    def __post_init__(self) -> None:
        finite_number(self.start_ns, "start_ns")
        positive(self.duration_ns, "duration_ns")
        finite_number(self.rabi_rad_per_ns, "rabi_rad_per_ns")
        finite_number(self.detuning_rad_per_ns, "detuning_rad_per_ns")
        non_negative(self.dephasing_per_ns, "dephasing_per_ns")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operator of the optical dephasing, shape (1, D, D)."""
        excited = coupler_transition(system, "S1", "S1")
        return np.sqrt(2 * self.dephasing_per_ns) * excited[None]

    def hamiltonian(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the drive (D, D) in rad/ns."""
        up = coupler_transition(system, "S1", "S0")
        drive = self.rabi_rad_per_ns / 2 * (up + up.conj().T)
        return drive + self.detuning_rad_per_ns * coupler_transition(system, "S1", "S1")

    def segments(self) -> tuple[tuple[float, float, float], ...]:
        """Return the piece in which the pulse acts."""
        return pulse_segments(self.start_ns, self.duration_ns, "square", 1)


def pulse_segments(
    start_ns: float, duration_ns: float, shape: Shape, slices: int
) -> tuple[tuple[float, float, float], ...]:
    """Return (start, stop, factor) of a square pulse, or of a Gaussian cut into equal slices.

    The factor of a slice is the value of the Gaussian at its middle, 1 at the maximum.
    """
    if shape == "square":
        return ((start_ns, start_ns + duration_ns, 1.0),)
    edges = start_ns + duration_ns * np.arange(slices + 1) / slices
    middle = (edges[1:] + edges[:-1]) / 2
    factors = np.exp(-4 * np.log(2) * ((middle - start_ns - duration_ns / 2) / (duration_ns / 2)) ** 2)
    return tuple(zip(edges[:-1].tolist(), edges[1:].tolist(), factors.tolist(), strict=True))
