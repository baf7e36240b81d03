"""The entangling gate of one bond: from its chemistry to a channel on the two radicals, with the best hold and frames.

With the triplet's axis along the field everything that the coupler does commutes with the total S_z, and changes of
the frames before and after it, which cost nothing, are all the local correction that the gate needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from molecular_qubits.control.fidelity import PAULI_PRODUCTS
from molecular_qubits.control.switched_gate import GateConditions, dark_channels, lit_channels
from molecular_qubits.network.transfer import average_fidelity, frame, from_unitary, on_both, relaxation
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from shared.config import FrozenConfig

if TYPE_CHECKING:
    from molecular_qubits.control.pulses import ControlProblem, OptimisedPulse

MAX_HOLDS = 30_000
"""Most hold times that are tried."""

EXCHANGE_SPREAD = 1e-3
"""Default relative standard deviation of J around the value that a hold is made for; assumed."""

_CHUNK = 4_000
_SLIGHT = 1.0
"""Phases (rad) no more uncertain than this are averaged over half as many values of J, to 1e-13."""

_LOST = 3.0
"""Holds in which the fastest beat has a phase as uncertain as this (rad) are not tried."""


class CouplerNoise(FrozenConfig):
    """What the gate of one bond depends on; every value is an assumption that can be set.

    Parameters
    ----------
    j_on_cm1
        Exchange of the first and of the second radical with the triplet, H = -2 J S_R.S_T.
    j_off_cm1
        Exchange of the two radicals, lit or dark.
    j_spread
        Relative standard deviation of `j_on_cm1` around the value that the hold is made for, both radicals alike.
    d_t_cm1, share_z, jitter_ns, triplet_lifetime_ns
        As in `molecular_qubits.control.switched_gate.GateConditions`.
    isc_yield
        Probability that light makes the triplet; otherwise the coupler stays dark and nobody knows.
    difference_mhz
        Resonance of the first radical minus that of the second; frames follow each radical's own.
    max_hold_ns
        Longest time for which the triplet may be present.
    """

    j_on_cm1: tuple[float, float] = (1.0, 1.0)
    j_off_cm1: float = 0.0
    j_spread: float = Field(0.0, ge=0)
    d_t_cm1: float = 0.07
    share_z: float = Field(0.9, ge=0, le=1)
    jitter_ns: float = Field(1e-4, ge=0)
    triplet_lifetime_ns: float | None = Field(None, gt=0)
    isc_yield: float = Field(1.0, ge=0, le=1)
    difference_mhz: float = 0.0
    max_hold_ns: float = Field(20.0, gt=0)

    def conditions(self) -> GateConditions:
        """Return the triplet's part as the control layer takes it."""
        return GateConditions(
            d_t_cm1=self.d_t_cm1,
            share_z=self.share_z,
            jitter_ns=self.jitter_ns,
            triplet_lifetime_ns=self.triplet_lifetime_ns,
            max_hold_ns=self.max_hold_ns,
        )

    def raw_channels(self, holds_ns: FloatArray) -> FloatArray:
        """Return what lighting the coupler does to radicals that do not relax, (n, 16, 16), frames left alone."""
        holds = np.atleast_1d(np.asarray(holds_ns, dtype=float))
        if self.j_spread:
            nodes, weights = _normal(self.phase_spread(float(holds.max(initial=0.0))))
            found = sum(
                weight * self._lit(holds, 1 + self.j_spread * node) for node, weight in zip(nodes, weights, strict=True)
            )
        else:
            found = self._lit(holds)
        if self.isc_yield < 1:
            dark = dark_channels(self.j_off_cm1, holds, self.difference_mhz)
            found = self.isc_yield * found + (1 - self.isc_yield) * dark
        return np.asarray(found)

    def phase_spread(self, hold_ns: float) -> float:
        """Return the standard deviation (rad) that the spread of J gives the phase of the fastest beat."""
        from molecular_qubits.units import cm1_to_rad_per_ns

        return float(cm1_to_rad_per_ns(6 * max(abs(j) for j in self.j_on_cm1)) * hold_ns * self.j_spread)

    def _lit(self, holds: FloatArray, factor: float = 1.0) -> FloatArray:
        scaled = (self.j_on_cm1[0] * factor, self.j_on_cm1[1] * factor)
        return np.asarray(lit_channels(scaled, self.j_off_cm1, holds, self.conditions(), self.difference_mhz))

    def hold_grid(self) -> FloatArray:
        """Return the hold times to try: eight in each period of the fastest beat, up to `max_hold_ns`.

        Where that would be more than `MAX_HOLDS`, the later half is spread out evenly in the logarithm.
        """
        from molecular_qubits.units import cm1_to_rad_per_ns

        fastest = cm1_to_rad_per_ns(3 * max(abs(j) for j in self.j_on_cm1) + abs(self.d_t_cm1) + abs(self.j_off_cm1))
        step = 2 * np.pi / max(2 * fastest, 1e-9) / 8
        start = max(3 * self.jitter_ns, step)
        count = int(min((self.max_hold_ns - start) / step + 1, MAX_HOLDS)) if self.max_hold_ns > start else 0
        if count < MAX_HOLDS:
            return np.append(start + step * np.arange(count), self.max_hold_ns)
        even = start + step * np.arange(MAX_HOLDS // 2)
        return np.append(even, np.geomspace(even[-1], self.max_hold_ns, MAX_HOLDS // 2 + 1)[1:])


@dataclass(frozen=True)
class CouplerGate:
    """The gate of one bond.

    Attributes
    ----------
    hold_ns
        How long the triplet is there.
    transfer
        What the gate does, frames changed and radicals relaxed, (16, 16).
    frames
        Angles (4,) in rad of the changes of frame: before on both sites, after on both sites.
    fidelity
        Average gate fidelity to the ideal gate.
    leakage
        Probability that the coupler is not dark at the end.
    """

    hold_ns: float
    transfer: FloatArray = field(repr=False)
    frames: tuple[float, float, float, float]
    fidelity: float
    leakage: float = 0.0


def calibrate(
    coupler: CouplerNoise,
    entangler: ComplexArray,
    relaxation_ns: tuple[tuple[float, float], tuple[float, float]] = ((1e5, 2.1e3), (1e5, 2.1e3)),
) -> CouplerGate:
    """Return the gate with the hold and the frames that bring it nearest to an ideal one.

    Parameters
    ----------
    coupler
        The chemistry of the bond.
    entangler
        The ideal gate, unitary (4, 4).
    relaxation_ns
        (T1, T2) of both radicals, equilibrium polarisation 0.

    Raises
    ------
    ValueError
        If the entangler is not unitary or no hold is possible.
    """
    entangler = np.ascontiguousarray(entangler, dtype=complex)
    if entangler.shape != (4, 4) or not np.allclose(entangler @ entangler.conj().T, np.eye(4), rtol=0, atol=1e-9):
        raise ValueError(f"Argument `entangler` must be a unitary matrix (4, 4), but has shape {entangler.shape}.")
    hold, frames = _best_hold(coupler, entangler.tobytes(), relaxation_ns)
    return gate_at(coupler, entangler, hold, frames, relaxation_ns)


def gate_at(
    coupler: CouplerNoise,
    entangler: ComplexArray,
    hold_ns: float,
    frames: tuple[float, float, float, float] | None = None,
    relaxation_ns: tuple[tuple[float, float], tuple[float, float]] = ((1e5, 2.1e3), (1e5, 2.1e3)),
) -> CouplerGate:
    """Return the gate at a given hold, with the best frames unless they are given."""
    target = from_unitary(entangler)
    (raw,) = relaxed(coupler.raw_channels(np.array([hold_ns])), np.array([hold_ns]), relaxation_ns)
    return framed_gate(raw, target, hold_ns, frames)


def framed_gate(
    raw: FloatArray,
    target: FloatArray,
    hold_ns: float,
    frames: tuple[float, float, float, float] | None = None,
    leakage: float = 0.0,
) -> CouplerGate:
    """Return the gate of a channel (16, 16) without frames, for a target given as its transfer matrix."""
    angles = best_frames(raw[None], target, starts=6)[0][0] if frames is None else np.array(frames)
    found = on_both(frame(angles[2]), frame(angles[3])) @ raw @ on_both(frame(angles[0]), frame(angles[1]))
    first, second, third, fourth = (float(angle) for angle in angles)
    return CouplerGate(hold_ns, found, (first, second, third, fourth), average_fidelity(found, target), leakage)


def pulse_gate(
    problem: ControlProblem, pulse: OptimisedPulse, entangler: ComplexArray, *, dark: ComplexArray | None = None
) -> CouplerGate:
    """Return the gate of an optimised microwave pulse, averaged over its ensemble.

    Parameters
    ----------
    problem, pulse
        What `molecular_qubits.control.pulses.optimise_pulse` took and returned.
    entangler
        The ideal gate (4, 4).
    dark
        Projector (d, d) on the states of the other sites in which they count as dark; what is outside at the end is the
        leakage. ``None``: no leakage is counted.
    """
    from molecular_qubits.control.pulses import pulse_channels

    weights = np.ones(len(problem.static)) if problem.weights is None else np.asarray(problem.weights, dtype=float)
    mean = np.einsum("m,mab->ab", weights / weights.sum(), pulse_channels(problem, pulse))
    leakage = 0.0
    if dark is not None:
        kept = np.einsum("m,mab->ab", weights / weights.sum(), pulse_channels(problem, pulse, rest_effect=dark))
        leakage = 1 - float(kept[0, 0])
    return framed_gate(mean, from_unitary(entangler), pulse.duration_ns, leakage=leakage)


def relaxed(
    transfers: FloatArray, times_ns: FloatArray, relaxation_ns: tuple[tuple[float, float], tuple[float, float]]
) -> FloatArray:
    """Return channels (n, 16, 16) with half the radicals' relaxation before and half after them.

    The error of this splitting is of third order in time; where T1 = T2 it is none, as relaxation then commutes.
    """
    decays = [relaxation(times_ns / 2, t1, t2) for t1, t2 in relaxation_ns]
    diagonal = np.einsum("naa,nbb->nab", *decays).reshape(-1, 16)
    return np.asarray(diagonal[:, :, None] * transfers * diagonal[:, None, :])


@lru_cache(maxsize=512)
def _best_hold(
    coupler: CouplerNoise, entangler: bytes, relaxation_ns: tuple[tuple[float, float], tuple[float, float]]
) -> tuple[float, tuple[float, float, float, float]]:
    target = from_unitary(np.frombuffer(entangler, dtype=complex).reshape(4, 4))
    lit = coupler.model_copy(update={"isc_yield": 1.0})  # what stays dark does not tell holds apart
    holds, width = _trial_holds(lit)
    if not np.all(holds >= 3 * coupler.jitter_ns):
        raise ValueError(
            f"Argument `max_hold_ns` must be at least three times the jitter of {coupler.jitter_ns:g} ns, but was "
            f"{coupler.max_hold_ns:g} ns."
        )

    def score(times: FloatArray, sweeps: int, starts: int) -> tuple[FloatArray, FloatArray]:
        return best_frames(relaxed(_raw_at(lit, times), times, relaxation_ns), target, sweeps=sweeps, starts=starts)

    alone = [(1 + np.exp(-holds / t1) + 2 * np.exp(-holds / t2)) / 4 for t1, t2 in relaxation_ns]
    kept = holds[_candidates(holds, _rough_overlaps(lit, entangler) * alone[0] * alone[1])]
    best = float(kept[np.argmax(score(kept, 60, 4)[1])])
    for _ in range(3):
        near = np.clip(best + np.linspace(-width, width, 17), 3 * coupler.jitter_ns, coupler.max_hold_ns)
        best = float(near[np.argmax(score(near, 60, 2)[1])])
        width /= 4
    angles, _ = score(np.array([best]), 200, 8)
    first, second, third, fourth = (float(angle) for angle in angles[0])
    return best, (first, second, third, fourth)


@lru_cache(maxsize=4)
def _trial_holds(lit: CouplerNoise) -> tuple[FloatArray, float]:
    """Return the holds worth trying, (n,), and their distance at the start."""
    holds = lit.hold_grid()
    width = float(holds[1] - holds[0]) if len(holds) > 1 else 0.0
    if lit.phase_spread(float(holds[0])) <= _LOST:
        holds = holds[lit.phase_spread(1.0) * holds <= _LOST]
    return holds, width


@lru_cache(maxsize=4)
def _known(lit: CouplerNoise) -> dict[float, FloatArray]:
    return {}


def _raw_at(lit: CouplerNoise, times: FloatArray) -> FloatArray:
    """Return `CouplerNoise.raw_channels`; those of the last few couplers are kept, as only relaxation may differ."""
    known = _known(lit)
    new = np.array([time for time in dict.fromkeys(times.tolist()) if time not in known])
    long = lit.phase_spread(1.0) * new > _SLIGHT
    for some in (new[~long], new[long]):
        if some.size:
            known.update(zip(some.tolist(), lit.raw_channels(some), strict=True))
    return np.array([known[time] for time in times.tolist()])


def _normal(phase: float) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of a normal average of functions no faster than exp(i phase x).

    Gauss-Hermite; trapezoids that are exact to 1e-8 where it would see the oscillation as a slow one; for more than 500
    nodes quantiles in the irregular order of the golden ratio.
    """
    if phase <= _LOST:
        nodes, weights = np.polynomial.hermite_e.hermegauss(11 if phase <= _SLIGHT else 21)
        return nodes, weights / weights.sum()
    count = int(np.ceil(12 * (phase + 7) / (2 * np.pi))) + 1
    if count <= 500:
        nodes = np.linspace(-6, 6, count)
        weights = np.exp(-(nodes**2) / 2)
        return nodes, weights / weights.sum()
    from scipy.stats import norm

    nodes = norm.ppf((0.5 + np.arange(500) * (np.sqrt(5) - 1) / 2) % 1)
    return np.asarray(nodes), np.full(500, 1 / 500)


def _candidates(holds: FloatArray, rough: FloatArray) -> np.ndarray:
    """Return which holds are worth a closer look: the best of all, and the best of each octave.

    The rough scores know nothing of the spread of J, which is the worse the longer the hold.
    """
    order = np.argsort(rough)[::-1]
    octaves = np.floor(np.log2(holds / holds[0]))[order]
    best = [order[:32], *(order[octaves == octave][:8] for octave in np.unique(octaves))]
    return np.unique(np.concatenate(best))


@lru_cache(maxsize=4)
def _rough_overlaps(coupler: CouplerNoise, gate: bytes) -> FloatArray:
    """Return the process fidelity (n,) of the holds of `_trial_holds` but for relaxation and the spread of J.

    It takes no more elements than the ideal gate has.

    With the elements U_p = <o|U|i> that are not 0, the overlap is sum_pq U_p^* U_q <o_p|E(|i_p><i_q|)|o_q>, and a frame
    turns the phase of U_p.
    """
    holds, _ = _trial_holds(coupler)
    entangler = np.frombuffer(gate, dtype=complex).reshape(4, 4)
    outs, ins = np.nonzero(np.abs(entangler) > 1e-9)
    values = entangler[outs, ins]
    units = np.eye(4)
    after = np.einsum("lab,pa,qb->lpq", PAULI_PRODUCTS, units[outs], units[outs])  # <o_p|P_l|o_q>
    before = np.einsum("kab,pa,qb->kpq", PAULI_PRODUCTS.conj(), units[ins], units[ins]) / 4
    project = np.einsum("lpq,kpq,p,q->lkpq", after, before, values.conj(), values).reshape(256, -1)
    half = 0.5 - np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # S_z of both sites
    powers = np.concatenate([half[ins], half[outs]], axis=1).T
    powers = powers[:, :, None] - powers[:, None, :]  # of exp(i angle) of each frame, (4, p, q)
    found = []
    for times in np.split(holds, range(_CHUNK, len(holds), _CHUNK)):
        elements = lit_channels(
            coupler.j_on_cm1, coupler.j_off_cm1, times, coupler.conditions(), coupler.difference_mhz, project
        )
        best = np.full(len(times), -np.inf)
        for start in ((0.0, 0.0, 0.0, 0.0), (0.7, 2.9, 1.9, -1.3)):
            angles = np.tile(start, (len(times), 1))
            for _ in range(4):
                for which in range(4):
                    others = np.delete(np.arange(4), which)
                    phase = np.exp(1j * np.tensordot(angles[:, others], powers[others], axes=1))
                    turned = elements * phase.reshape(len(times), -1)
                    rising = turned @ (powers[which].ravel() > 0.5)
                    angles[:, which] = -np.angle(rising)
            value = (turned @ (np.abs(powers[which].ravel()) < 0.5)).real + 2 * np.abs(rising)
            best = np.maximum(best, value)
        found.append(best / 16)
    return np.concatenate(found)


def best_frames(
    transfers: FloatArray, target: FloatArray, *, sweeps: int = 100, starts: int = 4
) -> tuple[FloatArray, FloatArray]:
    """Return the changes of frame that bring channels nearest to a target, and the process fidelity then.

    The overlap is a constant plus a sine of each angle alone; the angles are set to its maximum in turn.

    Parameters
    ----------
    transfers
        Channels (n, 16, 16).
    target
        Transfer matrix (16, 16).
    sweeps
        Rounds over the four angles, at most.
    starts
        Starting points, the first from no change, the others random but the same in every call.

    Returns
    -------
    angles : ndarray, shape (n, 4)
        Before on both sites, after on both sites.
    process : ndarray, shape (n,)
    """
    rng = np.random.default_rng(0)
    found, wanted = transfers.reshape(-1, 4, 4, 4, 4), target.reshape(4, 4, 4, 4)
    best, best_angles = np.full(len(found), -np.inf), np.zeros((len(found), 4))
    for start in range(starts):
        angles = np.tile(np.zeros(4) if start == 0 else rng.uniform(-np.pi, np.pi, 4), (len(found), 1))
        last = np.full(len(found), -np.inf)
        for _ in range(sweeps):
            for which in range(4):
                slope = _slope(found, wanted, angles, which)
                along = slope[:, 1, 1] + slope[:, 2, 2]
                across = slope[:, 2, 1] - slope[:, 1, 2]
                angles[:, which] = np.arctan2(across, along)
            value = slope[:, 0, 0] + slope[:, 3, 3] + np.hypot(along, across)
            if np.all(value - last < 1e-12):
                break
            last = value
        better = value > best + 1e-12
        best[better], best_angles[better] = value[better], angles[better]
    return best_angles, best / 16


def _slope(found: FloatArray, wanted: FloatArray, angles: FloatArray, which: int) -> FloatArray:
    """Return the derivative (n, 4, 4) of the overlap by the frame `which`: 0, 1 before, 2, 3 after, by site."""
    frames = [frame(angles[:, k]) for k in range(4)]
    site = which % 2
    if which < 2:  # wanted_pqrs after_pa after_qb found_abcd before_cr before_ds
        left = np.einsum("pqrs,npa->naqrs", wanted, frames[2], optimize=True)
        left = np.einsum("naqrs,nqb->nabrs", left, frames[3], optimize=True)
        both = left.reshape(-1, 16, 16).swapaxes(1, 2) @ found.reshape(-1, 16, 16)
        both = both.reshape(-1, 4, 4, 4, 4)  # rs, cd
        rule = "nrscd,nds->ncr" if site == 0 else "nrscd,ncr->nds"
        return np.asarray(np.einsum(rule, both, frames[1 - which], optimize=True))
    right = np.einsum("nabcd,ncr->nabrd", found, frames[0], optimize=True)
    right = np.einsum("nabrd,nds->nabrs", right, frames[1], optimize=True)
    both = right.reshape(-1, 16, 16) @ wanted.reshape(16, 16).T
    both = both.reshape(-1, 4, 4, 4, 4)  # ab, pq
    rule = "nabpq,nqb->npa" if site == 0 else "nabpq,npa->nqb"
    return np.asarray(np.einsum(rule, both, frames[3 - (which - 2)], optimize=True))


__all__ = [
    "EXCHANGE_SPREAD",
    "MAX_HOLDS",
    "CouplerGate",
    "CouplerNoise",
    "best_frames",
    "calibrate",
    "framed_gate",
    "gate_at",
    "pulse_gate",
    "relaxed",
]
