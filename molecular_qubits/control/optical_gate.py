"""The optically switched gate with everything open: light, crossing, triplet, return, microwaves and relaxation.

A sequence is a pump pulse (S0 <-> S1), a hold during which the triplet couples the radicals and microwaves may act, and
a dump pulse that returns the triplet to S0. Durations, rates and microwave amplitudes are all free within limits; JAX
differentiates the average gate fidelity through the Lindblad equation of the 20 levels. What is not back in S0 at the
end counts as leakage. The field lies along the triplet's axis and the frame turns with the microwaves, which is exact
for equal g factors and axial zero-field splitting; coherences between electronic levels decay at once (rate picture).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from pydantic import Field, model_validator
from scipy.optimize import minimize

from molecular_qubits.control.fidelity import (
    PAULI_PRODUCTS,
    average_gate_fidelity,
    best_local_fidelity,
    decay_bound,
    target_gate,
)
from molecular_qubits.control.pulses import filter_rows
from molecular_qubits.control.switched_gate import GateConditions, best_hold
from molecular_qubits.spins.operators import ComplexArray, FloatArray, embed, spin_matrices
from molecular_qubits.spins.solvers.real_generator import Elements, assemble, expm1_fixed
from molecular_qubits.units import CM1_TO_RAD_PER_NS
from shared.config import FrozenConfig
from shared.progress import progress

DIMS = (2, 5, 2)
_TRIPLET = slice(2, 5)
_LARGEST_STEP = 0.35  # norm of a generator times its duration after scaling, see `expm1_fixed`


class OpticalGateConditions(FrozenConfig):
    """Molecule, relaxation and limits of the pulses; every value is an assumption that can be set.

    Parameters
    ----------
    target
        Entangling gate, up to local rotations.
    j_on_cm1, j_off_cm1
        Exchange of each radical with the triplet, and of the radicals with each other in S0 and S1; H = -2 J S.S.
    d_t_cm1
        Axial zero-field splitting of the triplet.
    share_z
        Share of Tz in intersystem crossing; Tx and Ty have equal shares of the rest.
    isc_rate_per_ns, emission_rate_per_ns
        S1 -> T (1 ps: crossing enhanced by the radicals) and S1 -> S0.
    triplet_lifetime_ns, triplet_t1_ns
        Of its own decay to S0, and of spin-lattice relaxation among its sublevels at high temperature.
    t1_ns, t2_ns
        Relaxation of each radical, kT far above its level splitting; T2 at most 2 T1.
    max_pump_per_ns, max_dump_per_ns
        Largest rates of S0 <-> S1 and of T -> S0 under the two light pulses; the second is assumed to act on all
        sublevels alike.
    max_light_ns, max_hold_ns
        Longest duration of each light pulse, and of the hold.
    max_rad_per_ns, bandwidth_ghz, slices
        Largest amplitude of the microwaves along x and y, frequency at which a filter halves it, pieces of the hold.
    """

    target: str = "cz"
    j_on_cm1: float = 0.03
    j_off_cm1: float = 0.0
    d_t_cm1: float = 0.063
    share_z: float = Field(0.9, ge=0, le=1)
    isc_rate_per_ns: float = Field(1e3, gt=0)
    emission_rate_per_ns: float = Field(0.1, ge=0)
    triplet_lifetime_ns: float = Field(1e4, gt=0)
    triplet_t1_ns: float = Field(1e4, gt=0)
    t1_ns: float = Field(1e5, gt=0)
    t2_ns: float = Field(2.1e3, gt=0)
    max_pump_per_ns: float = Field(1e4, gt=0)
    max_dump_per_ns: float = Field(1e3, gt=0)
    max_light_ns: float = Field(0.02, gt=0)
    max_hold_ns: float = Field(50.0, gt=0)
    max_rad_per_ns: float = Field(0.3, ge=0)
    bandwidth_ghz: float = Field(0.2, gt=0)
    slices: int = Field(10, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> OpticalGateConditions:
        target_gate(self.target)
        decay_bound(0.0, self.t1_ns, self.t2_ns)
        return self


@dataclass(frozen=True)
class Member:
    """One member of an ensemble: factors of J and of all amplitudes (pulse area), and its weight."""

    j_factor: float = 1.0
    area_factor: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True)
class GateSequence:
    """A sequence and what it reaches.

    Attributes
    ----------
    pump_ns, hold_ns, dump_ns
        Durations.
    pump_per_ns, dump_per_ns
        Rates under the light.
    microwaves_rad_per_ns
        Amplitudes along x and y in equal slices of the hold, (n, 2).
    fidelity, leakage
        Mean over the ensemble; leakage is the share that is not in S0 at the end.
    fidelities
        Of each member.
    history
        Mean fidelity after each iteration.
    target
        Pauli transfer matrix (16, 16) of the gate that is reached, with the best local rotations.
    variables
        Of the optimiser, (5 + 2 n,): logarithms of the durations, relative rates and amplitudes before the filter.
    """

    pump_ns: float
    hold_ns: float
    dump_ns: float
    pump_per_ns: float
    dump_per_ns: float
    microwaves_rad_per_ns: FloatArray
    fidelity: float
    leakage: float
    fidelities: FloatArray
    history: tuple[float, ...]
    target: FloatArray
    variables: FloatArray

    @property
    def duration_ns(self) -> float:
        """Length of the whole sequence."""
        return self.pump_ns + self.hold_ns + self.dump_ns


class OpticalGate:
    """The channel of a sequence on the radicals, and the derivative of its fidelity; compiled once.

    Parameters
    ----------
    conditions
        Molecule, relaxation, limits.
    ensemble
        Members over which fidelities are averaged; one by default.
    """

    def __init__(self, conditions: OpticalGateConditions, ensemble: tuple[Member, ...] = (Member(),)) -> None:
        if not ensemble or sum(member.weight for member in ensemble) <= 0:
            raise ValueError("Argument `ensemble` must hold at least one member of weight above 0.")
        self.conditions, self.ensemble = conditions, ensemble
        self.gate = target_gate(conditions.target)
        weights = np.array([member.weight for member in ensemble])
        self.weights = weights / weights.sum()
        self._elements = _elements()
        self._fixed, self._exchange, self._driven = _generators(conditions, self._elements)
        coupler = np.zeros((5, 5))
        coupler[0, 0] = 1
        pauli = np.array([_with_coupler(one, coupler) for one in PAULI_PRODUCTS])
        vectors = self._elements.vector(pauli)
        members = np.array([(member.j_factor, member.area_factor) for member in ensemble])
        limits = np.array([conditions.max_pump_per_ns, conditions.max_dump_per_ns, conditions.max_rad_per_ns])
        self._data = (
            members, limits, conditions.bandwidth_ghz, self._fixed, self._exchange, self._driven, vectors.T, vectors / 4
        )  # fmt: skip
        self._program = _program(conditions.slices, self._doublings())

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """Bounds of the optimiser's variables."""
        light, hold = np.log(self.conditions.max_light_ns), np.log(self.conditions.max_hold_ns)
        durations = [(light - 7, light), (hold - 9, hold), (light - 7, light)]
        return durations + [(0.0, 1.0)] * 2 + [(-1.0, 1.0)] * (2 * self.conditions.slices)

    def channels(self, variables: FloatArray) -> FloatArray:
        """Return the Pauli transfer matrices (m, 16, 16) of the members."""
        import jax

        with jax.enable_x64(True):
            return np.array(self._program["channels"](np.asarray(variables, dtype=float), *self._data))

    def mean_channel(self, variables: FloatArray) -> FloatArray:
        """Return the mean over the ensemble, (16, 16)."""
        return np.einsum("m,mab->ab", self.weights, self.channels(variables))

    def value_and_gradient(self, variables: FloatArray, target: FloatArray) -> tuple[float, FloatArray]:
        """Return the mean fidelity to a gate given as its Pauli transfer matrix, and its derivative."""
        import jax

        with jax.enable_x64(True):
            value, slope = self._program["gradient"](
                np.asarray(variables, dtype=float), target, self.weights, *self._data
            )
            return float(value), np.array(slope)

    def microwaves(self, variables: FloatArray) -> FloatArray:
        """Return the amplitudes (n, 2) in rad/ns behind the filter."""
        hold = float(np.exp(variables[1]))
        rows = filter_rows(self.conditions.slices, hold, self.conditions.bandwidth_ghz)
        return self.conditions.max_rad_per_ns * rows @ np.asarray(variables[5:]).reshape(-1, 2)

    def _doublings(self) -> int:
        conditions = self.conditions

        def norm(matrix: FloatArray) -> float:
            return float(np.abs(matrix).sum(axis=1).max())

        scale = max(member.area_factor for member in self.ensemble)
        still = norm(self._fixed) + max(abs(member.j_factor) for member in self.ensemble) * norm(self._exchange)
        light = max(
            conditions.max_pump_per_ns * norm(self._driven[0]), conditions.max_dump_per_ns * norm(self._driven[1])
        )
        waves = conditions.max_rad_per_ns * (norm(self._driven[2]) + norm(self._driven[3]))
        largest = max(
            conditions.max_light_ns * (still + scale * light),
            conditions.max_hold_ns / conditions.slices * (still + scale * waves),
        )
        return max(0, int(np.ceil(np.log2(largest / _LARGEST_STEP))))


@lru_cache(maxsize=16)
def _program(count: int, doublings: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    def channels(
        variables: Any, members: Any, limits: Any, bandwidth: Any, fixed: Any, exchange: Any, driven: Any, before: Any,
        after: Any,
    ) -> Any:  # fmt: skip
        pump, hold, dump = jnp.exp(variables[0]), jnp.exp(variables[1]), jnp.exp(variables[2])
        waves = limits[2] * filter_rows(count, hold, bandwidth, jnp) @ variables[5:].reshape(count, 2)
        amplitudes = jnp.zeros((count + 2, 4)).at[1:-1, 2:].set(waves)
        amplitudes = amplitudes.at[0, 0].set(limits[0] * variables[3]).at[-1, 1].set(limits[1] * variables[4])
        durations = jnp.full(count + 2, hold / count).at[0].set(pump).at[-1].set(dump)

        def of_member(member: Any) -> Any:
            still = fixed + member[0] * exchange

            def advance(vectors: Any, piece: Any) -> tuple[Any, None]:
                matrix = piece[1] * (still + member[1] * jnp.tensordot(piece[0], driven, 1))
                return vectors + expm1_fixed(matrix, doublings) @ vectors, None

            return after @ jax.lax.scan(jax.checkpoint(advance), before, (amplitudes, durations))[0]

        return jax.lax.map(of_member, members)

    def value(variables: Any, target: Any, weights: Any, *data: Any) -> Any:
        return weights @ average_gate_fidelity(channels(variables, *data), target)

    return {"channels": jax.jit(channels), "gradient": jax.jit(jax.value_and_grad(value))}


def optimise_sequence(
    gate: OpticalGate,
    *,
    starts: int = 4,
    iterations: int = 60,
    seed: int = 0,
    start: FloatArray | None = None,
) -> GateSequence:
    """Maximise the mean fidelity over durations, rates and microwaves, up to local rotations of the radicals.

    Parameters
    ----------
    gate
        The gate, its limits and its ensemble.
    starts
        Starts from the best holds of ideal switching over ranges of different length; the best after a quarter of the
        iterations goes on.
    iterations
        Of L-BFGS, at most.
    seed
        Of the starts.
    start
        Variables to begin with in place of the random starts.

    Returns
    -------
    GateSequence
        A local optimum: what is found is a lower bound of what the limits allow.
    """
    if starts < 1 or iterations < 1:
        raise ValueError(f"Arguments `starts`, `iterations` must be at least 1, but were {starts}, {iterations}.")
    low, high = np.array(gate.bounds).T
    rng = np.random.default_rng(seed)
    before: tuple[float, ...] = ()
    if start is None:
        short = max(iterations // 4, 1)
        tried = [_climb(gate, _first(gate, rng, number), short, seed) for number in range(starts)]
        start, before = max(tried, key=lambda one: one[1][-1] if one[1] else 0.0)
    variables, history = _climb(gate, np.clip(start, low, high), iterations, seed)
    history = (*before, *history)
    mean = gate.mean_channel(variables)
    fidelity, reached = best_local_fidelity(mean, gate.gate, seed=seed)
    channels = gate.channels(variables)
    pump, hold, dump = np.exp(variables[:3])
    return GateSequence(
        float(pump), float(hold), float(dump),
        float(gate.conditions.max_pump_per_ns * variables[3]), float(gate.conditions.max_dump_per_ns * variables[4]),
        gate.microwaves(variables), fidelity, float(1 - mean[0, 0]),
        np.array([average_gate_fidelity(channel, reached) for channel in channels]), history, reached, variables,
    )  # fmt: skip


def _first(gate: OpticalGate, rng: np.random.Generator, number: int) -> FloatArray:
    """Return a start: the best hold of ideal switching, later ones from a shorter range; light as long as allowed."""
    conditions = gate.conditions
    light = conditions.max_light_ns / 2
    longest = conditions.max_hold_ns / 1.05 / 2**number
    ideal = GateConditions(
        target=conditions.target, d_t_cm1=conditions.d_t_cm1, share_z=conditions.share_z,
        jitter_ns=min(1 / conditions.isc_rate_per_ns, longest / 10),
        max_hold_ns=longest, t1_ns=conditions.t1_ns, t2_ns=conditions.t2_ns,
        triplet_lifetime_ns=conditions.triplet_lifetime_ns,
    )  # fmt: skip
    hold = best_hold(conditions.j_on_cm1, conditions.j_off_cm1, ideal)[1]
    waves = rng.uniform(-0.05, 0.05, 2 * conditions.slices)
    return np.concatenate([[np.log(light), np.log(hold), np.log(light), 0.9, 0.9], waves])


def _climb(gate: OpticalGate, start: FloatArray, iterations: int, seed: int) -> tuple[FloatArray, tuple[float, ...]]:
    history: list[float] = []
    last = 0.0
    with progress("optical gate", total=iterations) as step:

        def loss(variables: FloatArray) -> Any:
            nonlocal last  # the best rotations change, but add nothing to the gradient there (envelope theorem)
            target = best_local_fidelity(gate.mean_channel(variables), gate.gate, restarts=2, seed=seed)[1]
            last, slope = gate.value_and_gradient(variables, target)
            return 1 - last, -slope

        def note(_: Any) -> None:
            history.append(last)
            step(1, f"fidelity {last:.5f}")

        found = minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=gate.bounds, callback=note,
            options={"maxiter": iterations, "ftol": 1e-10, "gtol": 1e-8},
        )  # fmt: skip
    return np.asarray(found.x, dtype=float), tuple(history)


def _elements() -> Elements:
    """Return the elements of the density matrix without coherences between electronic levels, 176 real numbers."""
    coupler = np.arange(20) // 2 % 5
    level = np.minimum(coupler, 2)
    rows, columns = np.nonzero(np.triu(level[:, None] == level[None, :], 1))
    return Elements(20, np.arange(20), rows, columns)


def _generators(conditions: OpticalGateConditions, elements: Elements) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Real generators: fixed (n, n), exchange per member factor (n, n), and of pump, dump, x and y, (4, n, n)."""
    first, second = (embed(spin_matrices(0.5), index, DIMS) for index in (0, 2))
    in_triplet = np.zeros((3, 5, 5), dtype=complex)
    in_triplet[:, _TRIPLET, _TRIPLET] = spin_matrices(1)
    triplet = embed(in_triplet, 1, DIMS)
    dark = embed(np.diag([1.0, 1, 0, 0, 0]), 1, DIMS)
    lit = embed(np.diag([0.0, 0, 1, 1, 1]), 1, DIMS)
    exchange = sum(np.einsum("aij,ajk->ik", radical, triplet) for radical in (first, second))
    direct = np.einsum("aij,ajk->ik", first, second) @ dark
    splitting = triplet[2] @ triplet[2] - 2 / 3 * lit
    side = (1 - conditions.share_z) / 2

    def moves(rates: Any, pairs: Any) -> ComplexArray:
        found = np.zeros((len(pairs), 5, 5), dtype=complex)
        for number, (rate, (final, initial)) in enumerate(zip(rates, pairs, strict=True)):
            found[number, final, initial] = np.sqrt(rate)
        return embed(found, 1, DIMS)

    to_ground = [(0, 2), (0, 3), (0, 4)]
    pure = 1 / conditions.t2_ns - 1 / (2 * conditions.t1_ns)
    jumps = [
        moves(conditions.isc_rate_per_ns * np.array([side, conditions.share_z, side]), [(2, 1), (3, 1), (4, 1)]),
        moves([conditions.emission_rate_per_ns], [(0, 1)]),
        moves([1 / conditions.triplet_lifetime_ns] * 3, to_ground),
        np.sqrt(1 / conditions.triplet_t1_ns) * triplet,
    ]
    for radical in (first, second):
        jumps += [np.sqrt(1 / (2 * conditions.t1_ns)) * 2 * radical[:2] / np.sqrt(2), np.sqrt(2 * pure) * radical[2:]]

    def real(hamiltonian: ComplexArray | None, operators: ComplexArray) -> FloatArray:
        flat = operators.reshape(len(operators), 400)
        loss = np.einsum("qba,qbc->ac", operators.conj(), operators)
        effective = -0.5j * loss if hamiltonian is None else hamiltonian - 0.5j * loss
        return np.asarray(assemble(effective, flat.T @ flat.conj(), np.arange(400), elements))

    none = np.zeros((0, 20, 20), dtype=complex)
    scale = CM1_TO_RAD_PER_NS
    fixed = real(scale * (-2 * conditions.j_off_cm1 * direct + conditions.d_t_cm1 * splitting), np.concatenate(jumps))
    coupling = real(-2 * scale * conditions.j_on_cm1 * exchange, none)
    light = [real(None, moves([1, 1], [(1, 0), (0, 1)])), real(None, moves([1] * 3, to_ground))]
    waves = [real(first[axis] + second[axis] + triplet[axis], none) for axis in (0, 1)]
    return fixed, coupling, np.array(light + waves)


def _with_coupler(operator: ComplexArray, coupler: FloatArray) -> ComplexArray:
    four = np.asarray(operator).reshape(2, 2, 2, 2)
    return np.asarray(np.einsum("abcd,mn->ambcnd", four, coupler).reshape(20, 20))
