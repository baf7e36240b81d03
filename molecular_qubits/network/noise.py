"""The noise that the chemistry gives: for every native operation of a network a channel on its radicals.

Relaxation is that of kT far above the level splitting: up and down are as fast but for the small polarisation of the
equilibrium. Every channel keeps the trace.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from molecular_qubits.control.switched_gate import dark_unitaries
from molecular_qubits.network import transfer
from molecular_qubits.network.coupler_gate import (
    EXCHANGE_SPREAD,
    CouplerGate,
    CouplerNoise,
    best_frames,
    calibrate,
    framed_gate,
    relaxed,
)
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.units import cm1_to_rad_per_ns
from shared.config import FrozenConfig

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork

Source = Literal[
    "initialisation",
    "readout",
    "relaxation",
    "amplitude",
    "microwave crosstalk",
    "light crosstalk",
    "dark exchange",
    "triplet birth",
    "triplet yield",
    "switching jitter",
    "triplet lifetime",
    "exchange spread",
    "hold",
]
SOURCES: tuple[Source, ...] = Source.__args__  # type: ignore[attr-defined]
"""Where errors come from. ``"hold"`` is what the best hold leaves when all else of the coupler is perfect."""

OF_THE_COUPLER: tuple[Source, ...] = (
    "triplet birth", "triplet yield", "switching jitter", "triplet lifetime", "exchange spread",
)  # fmt: skip
"""Sources inside the coupler's gate, besides the hold."""


PULSE_CUT = 2.5
"""Microwave pulses are Gaussians cut this many standard deviations from their middle."""


class NoiseSettings(FrozenConfig):
    """What a network does not say about its noise, and what of it is left out.

    Parameters
    ----------
    amplitude_spread
        Relative standard deviation of the microwave amplitude from pulse to pulse; assumed.
    exchange_spread
        Relative standard deviation of J around the value that the hold is made for; assumed.
    smallest_crosstalk
        Couplers that light for another one excites less probably than this are left out.
    off
        Sources of error that are left out, of `SOURCES`. The hold can be left out only together with all sources of
        the coupler's gate (`OF_THE_COUPLER`).
    """

    amplitude_spread: float = Field(0.005, ge=0)
    exchange_spread: float = Field(EXCHANGE_SPREAD, ge=0)
    smallest_crosstalk: float = Field(1e-6, ge=0)
    off: tuple[Source, ...] = ()

    def only(self, *sources: Source) -> NoiseSettings:
        """Return these settings with all other sources off."""
        return self.model_copy(update={"off": tuple(name for name in SOURCES if name not in sources)})

    def without(self, *sources: Source) -> NoiseSettings:
        """Return these settings with some more sources off."""
        return self.model_copy(update={"off": tuple(name for name in SOURCES if name in (*self.off, *sources))})


class RadicalNoise(FrozenConfig):
    """What is known of one radical.

    Parameters
    ----------
    t1_ns, t2_ns
        Relaxation times, T2 at most 2 T1.
    polarisation, equilibrium
        p0 - p1 at the start and in equilibrium.
    readout
        Probability to report 0 of |0>, and 1 of |1>.
    frequency_ghz
        Resonance, for crosstalk of the microwaves.
    """

    t1_ns: float = Field(1e5, gt=0)
    t2_ns: float = Field(2.1e3, gt=0)
    polarisation: float = Field(1.0, ge=-1, le=1)
    equilibrium: float = Field(0.0, ge=-1, le=1)
    readout: tuple[float, float] = (1.0, 1.0)
    frequency_ghz: float | None = None

    def model_post_init(self, _: object) -> None:
        """Refuse what is not physical."""
        if self.t2_ns > 2 * self.t1_ns * (1 + 1e-12):
            raise ValueError(f"t2_ns must be at most 2 T1 = {2 * self.t1_ns:g} ns, but was {self.t2_ns:g} ns")
        if not all(0 <= value <= 1 for value in self.readout):
            raise ValueError(f"readout must hold two probabilities, but was {self.readout}")


class GateChannels:
    """The channel of every native operation on every site and bond.

    Parameters
    ----------
    radicals
        One entry for each site.
    couplers
        For each pair of sites with a coupler its noise; `j_on_cm1` in the order of the pair.
    entangler
        The ideal gate (4, 4).
    holds_ns
        Hold of each pair; the best one where it is not given.
    light_crosstalk
        For each pair, other pairs that its light puts into the triplet, and with what probability.
    settings
        The rest.

    Raises
    ------
    ValueError
        If a pair names a site that there is not, or the sources that are off do not fit together.
    """

    def __init__(
        self,
        radicals: Iterable[RadicalNoise],
        couplers: dict[tuple[int, int], CouplerNoise],
        entangler: ComplexArray,
        *,
        holds_ns: dict[tuple[int, int], float] | None = None,
        light_crosstalk: dict[tuple[int, int], dict[tuple[int, int], float]] | None = None,
        settings: NoiseSettings | None = None,
    ) -> None:
        self.settings = NoiseSettings() if settings is None else settings
        self.radicals = tuple(radicals)
        self.n_sites = len(self.radicals)
        self.entangler = np.asarray(entangler, dtype=complex)
        for pair in couplers:
            if len(set(pair)) != 2 or not all(0 <= site < self.n_sites for site in pair):
                raise ValueError(
                    f"Argument `couplers` must have pairs of sites from 0 to {self.n_sites - 1}, but has {pair}."
                )
        off = self._off = frozenset(self.settings.off)
        if "hold" in off and not off.issuperset(OF_THE_COUPLER):
            raise ValueError(
                f"Argument `off` may hold 'hold' only with {', '.join(OF_THE_COUPLER)}, but was {self.settings.off}."
            )
        self.couplers = {pair: self._chosen(coupler) for pair, coupler in couplers.items()}
        self._holds = dict(holds_ns or {})
        self._light = {} if "light crosstalk" in off else dict(light_crosstalk or {})
        self._gates: dict[tuple[int, int], CouplerGate] = {}
        self._flips: dict[tuple[int, float, float], FloatArray] = {}

    @classmethod
    def from_network(cls, network: MolecularNetwork, settings: NoiseSettings | None = None) -> GateChannels:
        """Return the channels of a network; dead couplers are left out but for their dark exchange."""
        from molecular_qubits.network.addressing import crosstalk

        settings = NoiseSettings() if settings is None else settings
        start, rest, frequencies = (
            network.initial_polarisation,
            network.equilibrium_polarisation,
            network.frequencies_ghz,
        )
        alone = getattr(network.microwaves, "addressing", "frequency") == "local"
        read = (network.readout.fidelity_0, network.readout.fidelity_1)
        radicals = [
            RadicalNoise(
                t1_ns=site.t1_ns, t2_ns=site.t2_ns, polarisation=float(start[number]), equilibrium=float(rest[number]),
                readout=read, frequency_ghz=None if alone else float(frequencies[number]),
            )
            for number, site in enumerate(network.sites)
        ]  # fmt: skip
        living = [number for number, bond in enumerate(network.bonds) if bond.alive]
        pairs = [(bond.sites[0], bond.sites[1]) for bond in network.bonds]
        found = crosstalk(network, living)
        made = dict(zip(living, found[np.arange(len(living)), living].tolist(), strict=True)) if living else {}
        couplers = {
            pairs[number]: CouplerNoise(
                j_on_cm1=(bond.j_on_cm1, bond.j_on_cm1), j_off_cm1=bond.j_off_cm1, d_t_cm1=bond.d_t_cm1,
                share_z=bond.share_z, jitter_ns=bond.jitter_ns, triplet_lifetime_ns=bond.triplet_lifetime_ns,
                j_spread=settings.exchange_spread, max_hold_ns=network.max_hold_ns, isc_yield=made.get(number, 0.0),
                difference_mhz=1e3 * float(frequencies[bond.sites[0]] - frequencies[bond.sites[1]]),
            )
            for number, bond in enumerate(network.bonds)
        }  # fmt: skip
        light = {
            pairs[lit]: {
                pairs[other]: float(row[other])
                for other in np.flatnonzero(row > settings.smallest_crosstalk)
                if other != lit
            }
            for lit, row in zip(living, found, strict=True)
        }
        holds = {pairs[number]: float(network.hold_ns(number)) for number in living}
        return cls(
            radicals, couplers, network.entangler_matrix, holds_ns=holds, light_crosstalk=light, settings=settings
        )

    def _chosen(self, coupler: CouplerNoise) -> CouplerNoise:
        """Return the coupler's noise without what is off."""
        perfect: dict[Source, dict[str, object]] = {
            "triplet birth": {"share_z": 1.0},
            "triplet yield": {"isc_yield": 1.0},
            "switching jitter": {"jitter_ns": 0.0},
            "triplet lifetime": {"triplet_lifetime_ns": None},
            "exchange spread": {"j_spread": 0.0},
            "dark exchange": {"j_off_cm1": 0.0},
        }
        for source, update in perfect.items():
            if source in self._off:
                coupler = coupler.model_copy(update=update)
        return coupler

    @cached_property
    def initial(self) -> FloatArray:
        """1, <X>, <Y>, <Z> of every site at the start, (n, 4)."""
        found = np.zeros((self.n_sites, 4))
        found[:, 0] = 1
        found[:, 3] = [1.0 if "initialisation" in self._off else radical.polarisation for radical in self.radicals]
        return found

    @cached_property
    def confusion(self) -> FloatArray:
        """Probability to report a (row) of b (column), (n, 2, 2)."""
        found = np.array([radical.readout for radical in self.radicals]).reshape(-1, 2)
        if "readout" in self._off:
            found = np.ones_like(found)
        zero, one = found.T
        return np.array([[zero, 1 - one], [1 - zero, one]]).transpose(2, 0, 1)

    def relaxation_ns(self, site: int) -> tuple[float, float]:
        """Return T1 and T2 of a site; without end if relaxation is off."""
        if "relaxation" in self._off:
            return (1e30, 1e30)
        return (self.radicals[site].t1_ns, self.radicals[site].t2_ns)

    def idle(self, site: int, time_ns: float) -> FloatArray:
        """Return what time does to a radical left alone, (4, 4)."""
        return _idle(*self.relaxation_ns(site), self.radicals[site].equilibrium, float(time_ns))

    def rotation(self, site: int, theta: float, phi: float, duration_ns: float, parts: int = 1) -> FloatArray:
        """Return a microwave rotation under relaxation with a spread of its amplitude, (4, 4).

        Of a pulse in equal `parts` it is one of them: the spread of all together is that of the pulse.
        """
        spread = 0.0 if "amplitude" in self._off else self.settings.amplitude_spread * np.sqrt(parts)
        return _rotation(*self.relaxation_ns(site), self.radicals[site].equilibrium, theta, phi, duration_ns, spread)

    def bystander_flips(self, site: int, theta: float, duration_ns: float) -> FloatArray | None:
        """Return the probability (n,) with which the pulse for one radical flips each other one; ``None``: nothing.

        The Gaussian pulse, cut 2.5 standard deviations s from its middle, turns a radical that is off by d by about
        theta exp(-(2 pi d s)^2 / 2). The phase of that is taken as random and the shift of the frequency as corrected:
        with a flip of probability p, Z is multiplied with 1 - 2 p, X and Y with 1 - p.
        """
        if "microwave crosstalk" in self._off or not duration_ns or not theta:
            return None
        key = (site, abs(theta), duration_ns)
        if key not in self._flips:
            sigma = duration_ns / (2 * PULSE_CUT)
            detuning = 2 * np.pi * (self._frequencies - self._frequencies[site])
            turned = abs(theta) * np.exp(-((detuning * sigma) ** 2) / 2)
            flips = np.nan_to_num(np.sin(turned / 2) ** 2)
            flips[site] = 0
            self._flips[key] = flips
        return self._flips[key]

    @cached_property
    def _frequencies(self) -> FloatArray:
        return np.array([np.nan if r.frequency_ghz is None else r.frequency_ghz for r in self.radicals])

    def gate(self, first: int, second: int) -> CouplerGate:
        """Return the gate of the bond between two sites, in the order in which it was given."""
        pair = self.bond(first, second)
        if pair not in self._gates and pair in self._holds:
            self._make_gates()
        if pair not in self._gates:
            times = (self.relaxation_ns(pair[0]), self.relaxation_ns(pair[1]))
            found = calibrate(self.couplers[pair], self.entangler, times)
            self._gates[pair] = self._perfect(found, times) if "hold" in self._off else found
        return self._gates[pair]

    def _make_gates(self) -> None:
        """Make the gates of all bonds whose hold is given, their frames all at once."""
        pairs = [pair for pair in self._holds if pair in self.couplers and pair not in self._gates]
        times = [(self.relaxation_ns(first), self.relaxation_ns(second)) for first, second in pairs]
        holds = [self._holds[pair] for pair in pairs]
        raw = np.array([
            relaxed(_raw(self.couplers[pair], hold)[None], np.array([hold]), time)[0]
            for pair, hold, time in zip(pairs, holds, times, strict=True)
        ])  # fmt: skip
        ideal = transfer.from_unitary(self.entangler)
        angles, _ = best_frames(raw, ideal, starts=6)
        for pair, hold, channel, frames, time in zip(pairs, holds, raw, angles, times, strict=True):
            first, second, third, fourth = (float(angle) for angle in frames)
            found = framed_gate(channel, ideal, hold, (first, second, third, fourth))
            self._gates[pair] = self._perfect(found, time) if "hold" in self._off else found

    def planned_hold_ns(self, first: int, second: int) -> float:
        """Return the hold that was given for a bond, or the best one, whatever gate was set since."""
        pair = self.bond(first, second)
        if pair not in self._holds:
            self._holds[pair] = self.gate(*pair).hold_ns
        return self._holds[pair]

    def set_gate(self, first: int, second: int, gate: CouplerGate) -> None:
        """Use another gate on a bond: of an optimised pulse, or of the full levels."""
        self._gates[self.bond(first, second)] = gate

    def coupler(self, first: int, second: int, duration_ns: float | None = None) -> FloatArray:
        """Return the coupler's gate, (16, 16), the first site being the first factor.

        What `duration_ns` is longer than the hold the radicals spend idle.
        """
        gate = self.gate(first, second)
        found = gate.transfer if self.bond(first, second) == (first, second) else transfer.swap_sites(gate.transfer)
        rest = 0.0 if duration_ns is None else max(duration_ns - gate.hold_ns, 0.0)
        if rest:
            idle = transfer.on_both(self.idle(first, rest / 2), self.idle(second, rest / 2))
            found = idle @ found @ idle
        return found

    def lit_by_accident(self, first: int, second: int) -> dict[tuple[int, int], float]:
        """Return the other bonds that a bond's light excites, and with what probability."""
        return self._light.get(self.bond(first, second), {})

    def lit(self, pair: tuple[int, int], probability: float, hold_ns: float, start_ns: float = 0.0) -> FloatArray:
        """Return what light by accident does to the radicals of a bond, each in its own frame, (16, 16).

        Parameters
        ----------
        pair
            The bond, in the order in which it was given.
        probability
            Of its triplet.
        hold_ns
            Time until the triplet is quenched.
        start_ns
            When it is born, the frames being one at 0.
        """
        coupler = self.couplers[pair]
        found = _raw(coupler.model_copy(update={"isc_yield": 1.0}), hold_ns)
        found = _in_own_frames(found, coupler.difference_mhz, start_ns, start_ns + hold_ns)
        return np.asarray((1 - probability) * np.eye(16) + probability * found)

    def dark(self, first: int, second: int, start_ns: float, stop_ns: float) -> FloatArray:
        """Return what the exchange of two radicals through the dark coupler does between two times, (16, 16).

        Each radical is in its own frame: where their resonances differ by far more than J, only Z Z acts.
        """
        return transfer.from_unitary(self.dark_unitary(first, second, start_ns, stop_ns))

    def dark_unitary(self, first: int, second: int, start_ns: float, stop_ns: float) -> ComplexArray:
        """Return the unitary (4, 4) of `dark`."""
        pair = self.bond(first, second)
        coupler = self.couplers[pair]
        difference = coupler.difference_mhz if pair == (first, second) else -coupler.difference_mhz
        (found,) = dark_unitaries(coupler.j_off_cm1, np.array([stop_ns - start_ns]), difference)
        apart = 1e-3j * np.pi * difference * np.array([0.0, 1.0, -1.0, 0.0])
        return np.asarray(np.exp(apart * stop_ns)[:, None] * found * np.exp(-apart * start_ns))

    def dark_angle(self, site: int, time_ns: float, but: Collection[int] = ()) -> float:
        """Return the angle (rad) by which dark exchange turns a site in a time at most, some neighbours left out."""
        others = [other for other in self.dark_neighbours.get(site, ()) if other not in but]
        rates = [abs(self.couplers[self.bond(site, other)].j_off_cm1) for other in others]
        return float(cm1_to_rad_per_ns(sum(rates))) * time_ns

    @cached_property
    def dark_neighbours(self) -> dict[int, tuple[int, ...]]:
        """For each site the sites with which it has a dark exchange."""
        found: dict[int, list[int]] = {}
        for (first, second), coupler in self.couplers.items():
            if coupler.j_off_cm1:
                found.setdefault(first, []).append(second)
                found.setdefault(second, []).append(first)
        return {site: tuple(others) for site, others in found.items()}

    def bond(self, first: int, second: int) -> tuple[int, int]:
        """Return the pair of two sites in the order in which their coupler was given."""
        for pair in ((first, second), (second, first)):
            if pair in self.couplers:
                return pair
        raise ValueError(f"Sites {first} and {second} must have a coupler between them, but have none.")

    def _perfect(self, gate: CouplerGate, times: tuple[tuple[float, float], tuple[float, float]]) -> CouplerGate:
        ideal = transfer.from_unitary(self.entangler)
        (found,) = relaxed(ideal[None], np.array([gate.hold_ns]), times)
        return CouplerGate(gate.hold_ns, found, gate.frames, transfer.average_fidelity(found, ideal))


def _in_own_frames(channel: FloatArray, difference_mhz: float, start_ns: float, stop_ns: float) -> FloatArray:
    """Return a channel (16, 16) on two radicals in the frame of their mean as it is in each radical's own frame."""
    half = 1e-3 * np.pi * difference_mhz
    before = transfer.on_both(transfer.frame(half * start_ns), transfer.frame(-half * start_ns))
    after = transfer.on_both(transfer.frame(-half * stop_ns), transfer.frame(half * stop_ns))
    return np.asarray(after @ channel @ before) if difference_mhz else channel


def parts_needed(first: float, second: float, tolerance: float) -> int:
    """Return in how many parts two turns about different axes, by angles in rad, can be done alternately.

    Half of the one, the other and half of the one, as often: the state is off by less than about `tolerance`, as the
    error is of second order in the length of a part.
    """
    return max(int(np.ceil(np.sqrt(first * second * (first + second) / (24 * tolerance)))), 1)


@lru_cache(maxsize=4096)
def _idle(t1_ns: float, t2_ns: float, equilibrium: float, time_ns: float) -> FloatArray:
    return transfer.relaxation(time_ns, t1_ns, t2_ns, equilibrium)


@lru_cache(maxsize=4096)
def _rotation(
    t1_ns: float, t2_ns: float, equilibrium: float, theta: float, phi: float, duration_ns: float, spread: float
) -> FloatArray:
    return transfer.driven(theta, phi, duration_ns, t1_ns, t2_ns, equilibrium, spread)


@lru_cache(maxsize=4096)
def _raw(coupler: CouplerNoise, hold_ns: float) -> FloatArray:
    return np.asarray(coupler.raw_channels(np.array([hold_ns]))[0])
