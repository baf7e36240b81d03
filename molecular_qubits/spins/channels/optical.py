"""Light on the coupler: transitions between S0 and S1, as rates or as a coherent drive."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from molecular_qubits.spins.channels.base import Channel, ChannelPiece
from molecular_qubits.spins.channels.transfer import coupler_transition
from molecular_qubits.spins.checks import finite_number, known_name, non_negative, positive
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.spins.system import QuantumSystem

Shape = Literal["square", "gaussian"]


def pump_rate(rabi_rad_per_ns: float, dephasing_per_ns: float, detuning_rad_per_ns: float = 0.0) -> float:
    """Return the rate S0 <-> S1 to which a coherent drive comes down when its coherence decays fast.

    Parameters
    ----------
    rabi_rad_per_ns
        Rabi frequency W.
    dephasing_per_ns
        Decay rate g of the optical coherence, much larger than W.
    detuning_rad_per_ns
        Detuning d of the light.

    Returns
    -------
    float
        W^2 g / (2 (g^2 + d^2)), in 1/ns, from the adiabatic elimination of the coherence.
    """
    width = positive(dephasing_per_ns, "dephasing_per_ns")
    return rabi_rad_per_ns**2 * width / (2 * (width**2 + detuning_rad_per_ns**2))


@dataclass(frozen=True)
class OpticalPulse(Channel):
    """Incoherent pumping of S0 to S1 and stimulated emission back, at the same rate: the rate picture.

    The right limit when the optical coherence of the coupler (femtoseconds to picoseconds in a solid) is much shorter
    than the pulse: the populations then obey rate equations. Spins are untouched by the transition. `CoherentPulse` is
    the other picture, and `pump_rate` leads from it to this one.

    Parameters
    ----------
    start_ns, duration_ns
        Begin and length of the pulse. A Gaussian has its full width at half maximum equal to half the length and is
        cut at both ends.
    pump_rate_per_ns
        Rate S0 -> S1 (and S1 -> S0) at the maximum and on resonance: absorption cross section times photon flux.
    shape
        ``"square"`` or ``"gaussian"``, the latter as `slices` constant pieces.
    slices
        Number of pieces of a Gaussian or of a chirped pulse.
    detuning_rad_per_ns
        Transition frequency minus light frequency in the middle of the pulse.
    chirp_rad_per_ns2
        Rate at which the light frequency rises during the pulse.
    linewidth_rad_per_ns
        Half width at half maximum of the Lorentzian line by which detuning and chirp lower the rate; needed with them.
    """

    start_ns: float
    duration_ns: float
    pump_rate_per_ns: float
    shape: Shape = "square"
    slices: int = 20
    detuning_rad_per_ns: float = 0.0
    chirp_rad_per_ns2: float = 0.0
    linewidth_rad_per_ns: float | None = None

    def __post_init__(self) -> None:
        _check_pulse(self.start_ns, self.duration_ns, self.shape, self.slices)
        non_negative(self.pump_rate_per_ns, "pump_rate_per_ns")
        off = abs(finite_number(self.detuning_rad_per_ns, "detuning_rad_per_ns"))
        off += abs(finite_number(self.chirp_rad_per_ns2, "chirp_rad_per_ns2"))
        if self.linewidth_rad_per_ns is not None:
            positive(self.linewidth_rad_per_ns, "linewidth_rad_per_ns")
        elif off:
            raise ValueError("Argument `linewidth_rad_per_ns` must be given with a detuning or a chirp, but was None.")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operators of absorption and stimulated emission, shape (2, D, D)."""
        up = coupler_transition(system, "S1", "S0")
        return np.sqrt(self.pump_rate_per_ns) * np.array([up, up.conj().T])

    def segments(self) -> tuple[tuple[float, float, float], ...]:
        """Return the pieces of the pulse."""
        segments = pulse_segments(
            self.start_ns, self.duration_ns, self.shape, self.slices, steps=self.chirp_rad_per_ns2 != 0
        )
        if self.linewidth_rad_per_ns is None:
            return segments
        centre = self.start_ns + self.duration_ns / 2
        detuned = [
            (start, stop, self.detuning_rad_per_ns - self.chirp_rad_per_ns2 * ((start + stop) / 2 - centre), factor)
            for start, stop, factor in segments
        ]
        width = self.linewidth_rad_per_ns
        return tuple((start, stop, factor * width**2 / (width**2 + off**2)) for start, stop, off, factor in detuned)


@dataclass(frozen=True)
class CoherentPulse(Channel):
    """Coherent drive of S0 and S1: H = (W(t) / 2)(|S1><S0| + |S0><S1|) + d(t) |S1><S1|, the amplitude picture.

    The frame turns with the phase of the light, so that a chirp is a detuning that changes with time,
    d(t) = detuning - chirp (t - middle); populations and spins do not depend on the frame. Pulses that overlap must
    share d(t), which then counts once, while their Rabi frequencies add up; others are refused. The phase of the light
    starts anew with each pulse.

    Parameters
    ----------
    start_ns, duration_ns
        Begin and length of the pulse.
    rabi_rad_per_ns
        Rabi frequency at the maximum; a square resonant pulse with rabi * duration = pi inverts the levels when
        nothing decays.
    detuning_rad_per_ns
        Transition frequency minus light frequency in the middle of the pulse.
    dephasing_per_ns
        Decay rate of the optical coherence during the pulse.
    shape
        ``"square"``, or ``"gaussian"``: a Rabi frequency with its full width at half maximum equal to half the length,
        cut at both ends.
    chirp_rad_per_ns2
        Rate at which the light frequency rises during the pulse. With chirp >> 1/duration^2 and rabi^2 >> chirp the
        passage is adiabatic and inverts the levels whatever the pulse area.
    slices
        Number of constant pieces of a Gaussian or chirped pulse; the error falls with their square.
    """

    start_ns: float
    duration_ns: float
    rabi_rad_per_ns: float
    detuning_rad_per_ns: float = 0.0
    dephasing_per_ns: float = 0.0
    shape: Shape = "square"
    chirp_rad_per_ns2: float = 0.0
    slices: int = 50

    def __post_init__(self) -> None:
        _check_pulse(self.start_ns, self.duration_ns, self.shape, self.slices)
        finite_number(self.rabi_rad_per_ns, "rabi_rad_per_ns")
        finite_number(self.detuning_rad_per_ns, "detuning_rad_per_ns")
        finite_number(self.chirp_rad_per_ns2, "chirp_rad_per_ns2")
        non_negative(self.dephasing_per_ns, "dephasing_per_ns")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operator of the optical dephasing, shape (1, D, D)."""
        excited = coupler_transition(system, "S1", "S1")
        return np.sqrt(2 * self.dephasing_per_ns) * excited[None]

    def hamiltonian(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the drive (D, D) in rad/ns in the middle of the pulse."""
        up = coupler_transition(system, "S1", "S0")
        drive = self.rabi_rad_per_ns / 2 * (up + up.conj().T)
        return drive + self.detuning_rad_per_ns * coupler_transition(system, "S1", "S1")

    def segments(self) -> tuple[tuple[float, float, float], ...]:
        """Return the pieces in which the pulse acts, with the square of the relative Rabi frequency."""
        return pulse_segments(
            self.start_ns, self.duration_ns, self.shape, self.slices, steps=self.chirp_rad_per_ns2 != 0, power=2
        )

    def pieces(self, system: QuantumSystem, field_tesla: Any) -> tuple[ChannelPiece, ...]:
        """Return the pieces: the Rabi frequency follows the shape, the detuning the chirp, the dephasing stays."""
        up = coupler_transition(system, "S1", "S0")
        drive = self.rabi_rad_per_ns / 2 * (up + up.conj().T)
        excited = coupler_transition(system, "S1", "S1")
        jumps = self.jumps(system, field_tesla)
        centre = self.start_ns + self.duration_ns / 2
        found = []
        for start, stop, factor in self.segments():
            detuning = self.detuning_rad_per_ns - self.chirp_rad_per_ns2 * ((start + stop) / 2 - centre)
            found.append(ChannelPiece(start, stop, jumps, np.sqrt(factor) * drive, frame=detuning * excited))
        return tuple(found)


def pulse_segments(
    start_ns: float, duration_ns: float, shape: Shape, slices: int, *, steps: bool = False, power: float = 1.0
) -> tuple[tuple[float, float, float], ...]:
    """Return (start, stop, factor) of a square pulse, or of a Gaussian cut into equal slices.

    The factor of a slice is the value of the Gaussian at its middle to the given power, 1 at the maximum. A square
    pulse is one slice unless `steps` asks for more.
    """
    if shape == "square" and not steps:
        return ((start_ns, start_ns + duration_ns, 1.0),)
    edges = start_ns + duration_ns * np.arange(slices + 1) / slices
    middle = (edges[1:] + edges[:-1]) / 2
    factors: FloatArray = np.ones(slices)
    if shape == "gaussian":
        factors = np.exp(-4 * power * np.log(2) * ((middle - start_ns - duration_ns / 2) / (duration_ns / 2)) ** 2)
    return tuple(zip(edges[:-1].tolist(), edges[1:].tolist(), factors.tolist(), strict=True))


def _check_pulse(start_ns: float, duration_ns: float, shape: str, slices: int) -> None:
    finite_number(start_ns, "start_ns")
    positive(duration_ns, "duration_ns")
    known_name(shape, ("square", "gaussian"), "shape")
    if int(slices) != slices or slices < 1:
        raise ValueError(f"Argument `slices` must be an integer of at least 1, but was {slices}.")
