"""The gate that a candidate promises: a triplet that is present for a time known to some jitter couples two radicals.

The field lies along the triplet's z axis, and everything is in the frame that rotates at the radicals' frequency: with
equal g factors and axial zero-field splitting that is exact. The average over a Gaussian jitter is exact too: it damps
each coherence between eigenstates by exp(-(w sigma)^2 / 2). So is that over triplets which decay on their own, with a
lifetime, before they are switched off.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from molecular_qubits.control.fidelity import (
    PAULI_PRODUCTS,
    average_gate_fidelity,
    best_local_fidelity,
    decay_bound,
    local_only_fidelity,
    target_gate,
    transfer_matrix,
)
from molecular_qubits.control.local_rotations import LocalRotations
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from shared.config import FrozenConfig

_SIGMA_POINTS = (
    (0.0, 0.0, 1 / 3),
    *((sign * np.sqrt(3), 0.0, 1 / 6) for sign in (-1, 1)),
    *((0.0, sign * np.sqrt(3), 1 / 6) for sign in (-1, 1)),
)
"""Points and weights of two independent normal distributions, exact for polynomials up to degree 3 (unscented)."""

_HOLDS = 240
"""Hold times tried first; the best `_KEPT` are looked at more closely, and the surroundings of the best of them."""

_KEPT = 16


class GateConditions(FrozenConfig):
    """What a candidate's gate is judged under; every value is an assumption that can be set.

    Parameters
    ----------
    target
        Entangling gate, up to local rotations (`molecular_qubits.control.fidelity.TARGETS`).
    d_t_cm1
        Axial zero-field splitting of the triplet (anthracene's is about 0.07 cm^-1).
    share_z
        Share of Tz among the freshly formed triplets; Tx and Ty have equal shares of the rest.
    jitter_ns
        Standard deviation of the time for which the triplet is present; 100 fs is about what the fastest intersystem
        crossings allow. Exchange beyond 1 / jitter is averaged out.
    max_hold_ns
        Longest such time.
    triplet_lifetime_ns
        Of the triplet's own decay to S0, the same for all sublevels; ``None``: it lasts until it is switched off.
    t1_ns, t2_ns
        Relaxation of each radical, kT far above its level splitting; T2 at most 2 T1.
    """

    target: str = "sqrt-swap"
    d_t_cm1: float = 0.07
    share_z: float = Field(0.9, ge=0, le=1)
    jitter_ns: float = Field(1e-4, ge=0)
    max_hold_ns: float = Field(20.0, gt=0)
    triplet_lifetime_ns: float | None = Field(None, gt=0)
    t1_ns: float = Field(1e5, gt=0)
    t2_ns: float = Field(2.1e3, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> GateConditions:
        target_gate(self.target)
        decay_bound(0.0, self.t1_ns, self.t2_ns)
        if 3 * self.jitter_ns >= self.max_hold_ns:
            raise ValueError("max_hold_ns must be more than three times jitter_ns")
        return self


@dataclass(frozen=True)
class GatePrediction:
    """Predicted fidelity of one gate and one idle slot of the same length.

    Attributes
    ----------
    fidelity, error
        Mean and standard deviation over the errors of both couplings, each with its own best hold.
    hold_ns
        Best hold at the couplings themselves.
    floor
        What local rotations alone reach: a fidelity not above it means no gate.
    """

    fidelity: float
    error: float
    hold_ns: float
    floor: float


def predict_gate(
    j_on_cm1: float, j_off_cm1: float, *, on_error_cm1: float, off_error_cm1: float, conditions: GateConditions
) -> GatePrediction:
    """Predict the fidelity of the switched gate from the couplings with lit and with dark coupler.

    Parameters
    ----------
    j_on_cm1, on_error_cm1
        Exchange of each radical with the triplet, H = -2 J S_R.S_T, and its standard error.
    j_off_cm1, off_error_cm1
        Exchange of the two radicals through the dark coupler, and its standard error. It acts during the gate and in
        the idle slot after it.
    conditions
        The rest.

    Returns
    -------
    GatePrediction

    Raises
    ------
    ValueError
        If a coupling is not finite or an error is negative.
    """
    numbers = (j_on_cm1, j_off_cm1, on_error_cm1, off_error_cm1)
    if not np.all(np.isfinite(numbers)) or on_error_cm1 < 0 or off_error_cm1 < 0:
        raise ValueError(f"Couplings and errors must be finite and errors not negative, but are {numbers}.")
    found = [
        best_hold(j_on_cm1 + on * on_error_cm1, j_off_cm1 + off * off_error_cm1, conditions)
        for on, off, _ in _SIGMA_POINTS
    ]
    values, weights = np.array([fidelity for fidelity, _ in found]), [weight for _, _, weight in _SIGMA_POINTS]
    mean = float(np.average(values, weights=weights))
    error = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    return GatePrediction(mean, error, found[0][1], _floor(conditions.target))


@cache
def _floor(target: str) -> float:
    return local_only_fidelity(target_gate(target))


def best_hold(j_on_cm1: float, j_off_cm1: float, conditions: GateConditions) -> tuple[float, float]:
    """Return the best fidelity over the hold times, and that hold in ns.

    Exchange and zero-field splitting beat, so that very good holds can be rare: what the search finds is a lower bound.
    """
    target = target_gate(conditions.target)
    holds, period = hold_times(j_on_cm1, conditions), exchange_period_ns(j_on_cm1)

    def rough(times: FloatArray, sweeps: int) -> FloatArray:
        return _rough_fidelities(gate_channels(j_on_cm1, j_off_cm1, times, conditions), target, sweeps)

    kept = holds[np.argsort(rough(holds, 4))[-_KEPT:]]
    best = kept[np.argmax(rough(kept, 40))]
    width = min(period, best / 8)
    near = np.append(best + np.linspace(-width, width, 2 * _KEPT), best)
    near = near[(near >= holds[0]) & (near <= holds[-1])]
    found = rough(near, 40)
    best = near[np.argmax(found)]
    (channel,) = gate_channels(j_on_cm1, j_off_cm1, np.array([best]), conditions)
    return max(float(found.max()), best_local_fidelity(channel, target, restarts=3)[0]), float(best)


def best_fidelities(
    channels: FloatArray, target: ComplexArray, starts: int = 6, sweeps: int = 40, seed: int = 0
) -> FloatArray:
    """Return the best fidelities (n,) over local rotations, all channels at once.

    Parameters
    ----------
    channels
        Pauli transfer matrices (n, 16, 16).
    target
        Gate (4, 4).
    starts
        From no rotation and, for the rest, from random ones, the same for all channels.
    sweeps
        Over the four rotations.
    seed
        Of the random starts.
    """
    from scipy.spatial.transform import Rotation

    found = _rough_fidelities(channels, target, sweeps)
    rng = np.random.default_rng(seed)
    for _ in range(starts - 1):
        turned = Rotation.random(4, rng=rng).as_matrix()
        found = np.maximum(found, _rough_fidelities(channels, target, sweeps, turned))
    return found


def _rough_fidelities(
    channels: FloatArray, target: ComplexArray, sweeps: int, start: FloatArray | None = None
) -> FloatArray:
    """Return the fidelities (n,) after some sweeps of `LocalRotations` from rotations (4, 3, 3) or from none."""
    rotations = LocalRotations(channels, transfer_matrix(target), start)
    rotations.improve(sweeps)
    return np.asarray(average_gate_fidelity(channels, rotations.rotated_gates()))


def exchange_period_ns(j_on_cm1: float) -> float:
    """Return the period of the slowest beat between the multiplets, pi / |J| in angular units."""
    from molecular_qubits.units import cm1_to_rad_per_ns

    return float(np.pi / max(abs(cm1_to_rad_per_ns(j_on_cm1)), 1e-9))


def hold_times(j_on_cm1: float, conditions: GateConditions) -> FloatArray:
    """Return the hold times tried first, ns: over two exchange periods, and from there to the longest hold.

    The times do not depend on the jitter but for the shortest, three times it: more jitter never finds a better hold.
    """
    period = min(exchange_period_ns(j_on_cm1), conditions.max_hold_ns)
    fast = np.linspace(period / 12, 2 * period, _HOLDS // 6)
    slow = np.geomspace(period / 12, conditions.max_hold_ns, _HOLDS - _HOLDS // 6)
    holds = np.unique(np.concatenate([fast, slow, [3 * conditions.jitter_ns]]))
    possible = (holds > 0) & (holds >= 3 * conditions.jitter_ns) & (holds <= conditions.max_hold_ns)
    return np.asarray(holds[possible])


def gate_channels(j_on_cm1: float, j_off_cm1: float, holds_ns: FloatArray, conditions: GateConditions) -> FloatArray:
    """Return the channels on the radicals of a gate and an idle slot as long, Pauli transfer matrices (n, 16, 16)."""
    gates = lit_channels((j_on_cm1, j_on_cm1), j_off_cm1, holds_ns, conditions)
    idle = dark_channels(j_off_cm1, holds_ns)
    decay = _decay(holds_ns, conditions)
    return np.asarray(decay[:, :, None] * (idle @ (decay[:, :, None] * gates)))


def lit_channels(
    j_on_cm1: tuple[float, float],
    j_off_cm1: float,
    holds_ns: FloatArray,
    conditions: GateConditions,
    difference_mhz: float = 0.0,
    project: ComplexArray | None = None,
) -> Any:
    """Return the channels on radicals that do not relax while the triplet is there, (n, 16, 16).

    Parameters
    ----------
    j_on_cm1
        Exchange of the first and of the second radical with the triplet.
    j_off_cm1
        Exchange of the radicals with each other.
    holds_ns
        Times (n,) for which the triplet is present.
    conditions
        Of them the triplet's zero-field splitting, populations, jitter and lifetime.
    difference_mhz
        Resonance of the first radical minus that of the second; the triplet's is in the middle.
    project
        (256, k): which combinations of the elements, rows first, are wanted in place of all; the result is (n, k).
    """
    from molecular_qubits.units import cm1_to_rad_per_ns

    spin_1, triplet, spin_2 = _spins()
    exchange = sum(
        j * a @ b for j, r in zip(j_on_cm1, (spin_1, spin_2), strict=True) for a, b in zip(r, triplet, strict=True)
    )
    direct = sum(a @ b for a, b in zip(spin_1, spin_2, strict=True))
    splitting = triplet[2] @ triplet[2] - 2 / 3 * np.eye(12)
    hamiltonian = cm1_to_rad_per_ns(1.0) * (-2 * exchange - 2 * j_off_cm1 * direct + conditions.d_t_cm1 * splitting)
    hamiltonian = hamiltonian + 1e-3 * np.pi * difference_mhz * (spin_1[2] - spin_2[2])
    energies, vectors = np.linalg.eigh(hamiltonian)
    side = (1 - conditions.share_z) / 2
    start = np.diag([side, conditions.share_z, side]).astype(complex)  # Tz is m = 0; Tx, Ty average to m = +1, -1
    before = np.array([_with_coupler(pauli, start) for pauli in PAULI_PRODUCTS])
    after = np.array([_with_coupler(pauli, np.eye(3)) for pauli in PAULI_PRODUCTS])
    before, after = (vectors.conj().T @ stack @ vectors for stack in (before, after))
    gaps = energies[:, None] - energies[None, :]
    decay_rate = 0.0 if conditions.triplet_lifetime_ns is None else 1 / conditions.triplet_lifetime_ns
    turning = decay_rate + 1j * gaps
    phases = np.exp(-turning * holds_ns[:, None, None]) * np.exp((turning * conditions.jitter_ns) ** 2 / 2)
    weights = np.einsum("lba,kab->ablk", after, before) / 4

    def found_from(phases: ComplexArray, weights: ComplexArray) -> ComplexArray:
        flat = weights.reshape(144, 256)
        return np.asarray(phases.reshape(-1, 144) @ (flat if project is None else flat @ project))

    found = found_from(phases, weights)
    if decay_rate > 0:  # those that decay at t < hold and leave the radicals to the dark exchange for the rest of it:
        # integral of exp(-t / tau) / tau over exp(-i w t) exp(-i v (hold - t)), for each gap v of the dark radicals
        levels, states = _dark_levels(j_off_cm1, difference_mhz)
        paulis = states.conj().T @ PAULI_PRODUCTS @ states
        dark_gaps = np.round(levels[:, None] - levels[None, :], 12)
        for gap in np.unique(dark_gaps):
            turned = np.einsum("mn,cnm,amn->ca", dark_gaps == gap, paulis, paulis) / 4
            left = np.exp(-1j * gap * holds_ns - (gap * conditions.jitter_ns) ** 2 / 2)[:, None, None]
            found += found_from(decay_rate * (left - phases) / (turning - 1j * gap), turned @ weights)
    return found.real.reshape(-1, 16, 16) if project is None else found


def dark_channels(j_off_cm1: float, times_ns: FloatArray, difference_mhz: float = 0.0) -> FloatArray:
    """Return the channels (n, 16, 16) of `dark_unitaries`."""
    return np.asarray(transfer_matrix(dark_unitaries(j_off_cm1, times_ns, difference_mhz)))


def dark_unitaries(j_off_cm1: float, times_ns: FloatArray, difference_mhz: float = 0.0) -> ComplexArray:
    """Return what the exchange of two radicals through the dark coupler does in some times, (n, 4, 4).

    Both are in one frame; with a difference of their resonances it is that of the mean.
    """
    levels, states = _dark_levels(j_off_cm1, difference_mhz)
    return np.asarray((states * np.exp(-1j * levels * times_ns[:, None])[:, None, :]) @ states.conj().T)


def _dark_levels(j_off_cm1: float, difference_mhz: float) -> tuple[FloatArray, ComplexArray]:
    """Return the levels (rad/ns) of two radicals beside a dark coupler and their states in columns."""
    from molecular_qubits.units import cm1_to_rad_per_ns

    dark = -2 * j_off_cm1 * cm1_to_rad_per_ns(1.0) * sum(np.kron(p, p) for p in _PAULI) / 4
    apart = 1e-3 * np.pi * difference_mhz * (np.kron(_PAULI[2], np.eye(2)) - np.kron(np.eye(2), _PAULI[2])) / 2
    levels, states = np.linalg.eigh(dark + apart)
    return levels, states


def _decay(times_ns: FloatArray, conditions: GateConditions) -> FloatArray:
    transverse, longitudinal = np.exp(-times_ns / conditions.t2_ns), np.exp(-times_ns / conditions.t1_ns)
    single = np.stack([np.ones_like(times_ns), transverse, transverse, longitudinal], axis=-1)
    return np.asarray((single[:, :, None] * single[:, None, :]).reshape(-1, 16))


_PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=complex)


@cache
def _spins() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return the spin vectors of radical, triplet and radical in the product space of 2 x 3 x 2 states."""
    up = np.sqrt(2) * np.diag([1.0, 1.0], 1)
    triplet = [(up + up.T) / 2, (up - up.T) / 2j, np.diag([1.0, 0.0, -1.0]).astype(complex)]
    half = _PAULI / 2
    one, two = np.eye(3), np.eye(2)
    return (
        [np.kron(np.kron(s, one), two) for s in half],
        [np.kron(np.kron(two, s), two) for s in triplet],
        [np.kron(np.kron(two, one), s) for s in half],
    )


def _with_coupler(operator: np.ndarray, coupler: np.ndarray) -> np.ndarray:
    """Return an operator (4, 4) on the radicals times one (3, 3) on the coupler, in the order 2 x 3 x 2."""
    four = np.asarray(operator).reshape(2, 2, 2, 2)
    return np.einsum("abcd,mn->ambcnd", four, coupler).reshape(12, 12)
