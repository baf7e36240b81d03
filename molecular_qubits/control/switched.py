"""The two-radical gate by switching the coupler's triplet on and off with light, as a channel on the radicals.

At t = 0 a short light pulse brings the coupler to S1; intersystem crossing brings it to the triplet at a random moment;
the triplet couples the radicals during the hold; then light brings the triplet back to S0, again at random moments. The
field lies along the triplet's z axis and everything is in the frame that rotates at the radicals' mean frequency, which
is exact for an axial triplet whose g is the radicals'.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from molecular_qubits.control.fidelity import PAULI_PRODUCTS, best_local_fidelity, decay_bound, target_gate
from molecular_qubits.spins.channels.relaxation import RadicalRelaxation
from molecular_qubits.spins.channels.transfer import Emission, IntersystemCrossing, TripletDecay
from molecular_qubits.spins.checks import finite_number, non_negative, positive
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.spins.solvers.real_generator import Elements, assemble, expm1_real
from molecular_qubits.spins.tensors import axial_coupling_tensor
from molecular_qubits.spins.unit import LEVELS, TwoQubitUnit

OFF_TIMES = 12.0
"""Length of the switching-off stage in units of the inverse switching-off rate."""


@dataclass(frozen=True)
class SwitchedGate:
    """Parameters of the gate; every default that is not measured is an assumption.

    Parameters
    ----------
    j_rt_cm1
        Exchange of each radical with the triplet, H = -2 J S_R.S_T; one number or two.
    d_t_cm1, d_rt_cm1
        Axial zero-field splitting of the triplet and axial radical-triplet dipolar coupling (3/2 D_zz).
    j_rr_ground_cm1, j_rr_triplet_cm1
        Radical-radical exchange in S0 and S1, and in T.
    detuning_rad_per_ns
        Difference of the radicals' Larmor frequencies.
    excitation
        Probability that the light pulse leaves the coupler in S1, sin^2(area / 2); the optical coherence is taken as
        lost (femtoseconds to picoseconds in a solid).
    isc_rate_per_ns, isc_share_z
        Intersystem crossing S1 -> T and the share that goes to Tz; Tx and Ty have equal shares of the rest. An infinite
        rate stands for an instant switch.
    emission_rate_per_ns
        S1 -> S0.
    triplet_lifetime_ns
        Spontaneous decay T -> S0, the same from each sublevel.
    off_rate_per_ns
        Rate T -> S0 and S1 -> S0 in the light that ends the gate; infinity for an instant switch. 0: no such light, the
        hold is the whole gate and what has not decayed by its end is leakage.
    t1_ns, t2_ns, temperature_k, field_tesla
        Relaxation of each radical.
    echo
        Whether both radicals are turned by pi about x in the middle of the hold and once more at its end (ideal, and
        selective: the triplet is off resonance by its zero-field splitting).

    Raises
    ------
    ValueError
        If a value is out of range, or T2 > 2 T1.
    """

    j_rt_cm1: float | tuple[float, float]
    d_t_cm1: float = 0.063
    d_rt_cm1: float = 0.0075
    j_rr_ground_cm1: float = 0.0
    j_rr_triplet_cm1: float = 0.0
    detuning_rad_per_ns: float = 0.0
    excitation: float = 1.0
    isc_rate_per_ns: float = 1.0
    isc_share_z: float = 0.9
    emission_rate_per_ns: float = 0.01
    triplet_lifetime_ns: float = 1e4
    off_rate_per_ns: float = 1.0
    t1_ns: float = 1e5
    t2_ns: float = 2.1e3
    temperature_k: float = 30.0
    field_tesla: float = 0.34
    echo: bool = True

    def __post_init__(self) -> None:
        for name in ("d_t_cm1", "d_rt_cm1", "detuning_rad_per_ns", "j_rr_ground_cm1", "j_rr_triplet_cm1"):
            finite_number(getattr(self, name), name)
        for name in ("excitation", "isc_share_z"):
            if non_negative(getattr(self, name), name) > 1:
                raise ValueError(f"Argument `{name}` must be between 0 and 1, but was {getattr(self, name)}.")
        non_negative(self.emission_rate_per_ns, "emission_rate_per_ns")
        positive(self.triplet_lifetime_ns, "triplet_lifetime_ns")
        for name in ("isc_rate_per_ns", "off_rate_per_ns"):
            if getattr(self, name) != np.inf:
                non_negative(getattr(self, name), name)
        RadicalRelaxation("radical_1", self.t1_ns, self.temperature_k, t2_ns=self.t2_ns)

    def unit(self) -> TwoQubitUnit:
        """Return the two-qubit unit."""
        return TwoQubitUnit(
            self.j_rt_cm1,
            d_t_cm1=self.d_t_cm1,
            dipolar_rt=axial_coupling_tensor(self.d_rt_cm1),
            j_rr_ground_cm1=self.j_rr_ground_cm1,
            j_rr_s1_cm1=self.j_rr_ground_cm1,
            j_rr_triplet_cm1=self.j_rr_triplet_cm1,
        )

    def hamiltonian(self) -> ComplexArray:
        """Return the Hamiltonian (20, 20) in rad/ns in the rotating frame."""
        unit = self.unit()
        z_1, z_2 = (unit.site_operator(unit.site_spin(name)[2], name) for name in ("radical_1", "radical_2"))
        return np.asarray(unit.hamiltonian_matrix() + self.detuning_rad_per_ns / 2 * (z_1 - z_2))

    def jumps(self, *, off: bool = False) -> ComplexArray:
        """Return the jump operators (k, 20, 20), with the switching-off light or without."""
        unit = self.unit()
        side = (1 - self.isc_share_z) / 2
        channels: list[Any] = [
            Emission(self.emission_rate_per_ns),
            TripletDecay((1 / self.triplet_lifetime_ns,) * 3),
            *(
                RadicalRelaxation(name, self.t1_ns, self.temperature_k, t2_ns=self.t2_ns)
                for name in ("radical_1", "radical_2")
            ),
        ]
        if self.isc_rate_per_ns != np.inf:
            channels.append(IntersystemCrossing(self.isc_rate_per_ns, (side, side, self.isc_share_z)))
        if off and self.off_rate_per_ns != np.inf:
            channels += [TripletDecay((self.off_rate_per_ns,) * 3), Emission(self.off_rate_per_ns)]
        return np.concatenate([channel.jumps(unit, self.field_tesla) for channel in channels])

    def coupler_start(self) -> ComplexArray:
        """Return the coupler (5, 5) right after the light pulse."""
        unit = self.unit()
        side = (1 - self.isc_share_z) / 2
        shares = {"S1": 1.0} if self.isc_rate_per_ns != np.inf else {"Tx": side, "Ty": side, "Tz": self.isc_share_z}
        shares = {"S0": 1 - self.excitation, **{key: self.excitation * share for key, share in shares.items()}}
        kets = {key: unit.coupler_ket(key) for key in shares}
        return np.asarray(sum(share * np.outer(kets[key], kets[key].conj()) for key, share in shares.items()))


def level_elements() -> Elements:
    """Return the elements of the 20-level unit without coherence between electronic levels."""
    level = np.zeros(5, dtype=int)
    for number, places in enumerate(LEVELS.values()):
        level[places] = number
    of_state = np.kron(np.kron(np.zeros(2, dtype=int) + 1, level), [1, 1])
    rows, columns = np.nonzero(np.triu(of_state[:, None] == of_state[None, :], 1))
    return Elements(20, np.arange(20), rows, columns)


ELEMENTS = level_elements()


@dataclass(frozen=True)
class HeldGate:
    """The gate at a hold time.

    Attributes
    ----------
    hold_ns, duration_ns
        Hold, and hold with the switching off.
    fidelity, leakage
        Average gate fidelity with the best local rotations, and the probability not to end in S0.
    bound
        `decay_bound` of the duration.
    channel, target
        Pauli transfer matrices (16, 16) of what happens and of the rotated gate that it comes closest to.
    """

    hold_ns: float
    duration_ns: float
    fidelity: float
    leakage: float
    bound: float
    channel: FloatArray
    target: FloatArray


def gate_channels(gate: SwitchedGate, hold_step_ns: float, steps: int) -> FloatArray:
    """Return the channel on the radicals after holds of 0, 1, ..., `steps` steps (two steps each with an echo).

    Parameters
    ----------
    gate
        Parameters.
    hold_step_ns
        Step of the hold, above 0.
    steps
        Number of steps, at least 1.

    Returns
    -------
    ndarray, shape (steps + 1, 16, 16)
        Pauli transfer matrices; hold k hold_step_ns, twice that with an echo.
    """
    import jax

    positive(hold_step_ns, "hold_step_ns")
    if steps < 1:
        raise ValueError(f"Argument `steps` must be at least 1, but was {steps}.")
    instant = gate.off_rate_per_ns in (0.0, np.inf)
    on, off = lindblad_parts(gate.hamiltonian(), gate.jumps()), lindblad_parts(gate.hamiltonian(), gate.jumps(off=True))
    off_ns = 0.0 if instant else OFF_TIMES / gate.off_rate_per_ns
    inputs = np.array([_unit_operator(pauli, gate.coupler_start()) for pauli in PAULI_PRODUCTS])
    with jax.enable_x64(True):
        program = _channel_program(on[2].tobytes(), off[2].tobytes(), steps, gate.echo)
        return np.asarray(
            program(*on[:2], *off[:2], hold_step_ns, off_ns, ELEMENTS.vector(inputs).T, _readout(gate))
        )


def scan_hold(gate: SwitchedGate, longest_ns: float, steps: int = 100, target: str = "iswap") -> list[HeldGate]:
    """Return the gate at hold times from 0 to the longest, each with its best local rotations.

    Parameters
    ----------
    gate
        Parameters.
    longest_ns
        Longest hold.
    steps
        Number of steps.
    target
        Entangling gate, a name in `fidelity.TARGETS`.
    """
    halves = 2 if gate.echo else 1
    step = positive(longest_ns, "longest_ns") / steps / halves
    channels = gate_channels(gate, step, steps)
    instant = gate.off_rate_per_ns in (0.0, np.inf)
    off_ns = 0.0 if instant else OFF_TIMES / gate.off_rate_per_ns
    found = []
    for number, channel in enumerate(channels):
        hold = number * step * halves
        fidelity, rotated = best_local_fidelity(channel, target_gate(target), restarts=4)
        mean_off = off_ns / OFF_TIMES
        bound = decay_bound(hold + mean_off, gate.t1_ns, gate.t2_ns)
        found.append(
            HeldGate(hold, hold + off_ns, fidelity, float(1 - channel[0, 0]), float(bound), channel, rotated)
        )
    return found


def best_gate(gate: SwitchedGate, longest_ns: float, steps: int = 100, target: str = "iswap") -> HeldGate:
    """Return the gate at its best hold time; see `scan_hold`."""
    return max(scan_hold(gate, longest_ns, steps, target), key=lambda held: held.fidelity)


def error_budget(gate: SwitchedGate, hold_ns: float, target: FloatArray) -> dict[str, float]:
    """Return the infidelity at a hold with all processes, with none, and with each one alone.

    Parameters
    ----------
    gate
        Parameters.
    hold_ns
        Hold time.
    target
        Pauli transfer matrix (16, 16) aimed at.

    Returns
    -------
    dict
        ``all``, ``none`` (only the exchange dynamics), ``random crossing``, ``random switching off``,
        ``wrong sublevel``, ``emission``, ``triplet decay``, ``radical T1 and T2``.
    """
    from molecular_qubits.control.fidelity import average_gate_fidelity

    ideal = replace(
        gate, isc_rate_per_ns=np.inf, off_rate_per_ns=np.inf, isc_share_z=1.0, emission_rate_per_ns=0.0,
        triplet_lifetime_ns=1e15, t1_ns=1e15, t2_ns=1e15, excitation=1.0,
    )  # fmt: skip
    cases = {
        "all": gate,
        "none": ideal,
        "random crossing": replace(ideal, isc_rate_per_ns=gate.isc_rate_per_ns),
        "random switching off": replace(ideal, off_rate_per_ns=gate.off_rate_per_ns),
        "wrong sublevel": replace(ideal, isc_share_z=gate.isc_share_z),
        "triplet decay": replace(ideal, triplet_lifetime_ns=gate.triplet_lifetime_ns),
        "radical T1 and T2": replace(ideal, t1_ns=gate.t1_ns, t2_ns=gate.t2_ns),
    }
    half = hold_ns / (2 if gate.echo else 1)
    return {
        name: 1 - float(average_gate_fidelity(gate_channels(case, half, 1)[-1], target)) for name, case in cases.items()
    }


def lindblad_parts(hamiltonian: ComplexArray, jumps: ComplexArray) -> tuple[ComplexArray, ComplexArray, np.ndarray]:
    """Return the effective Hamiltonian, the gain and its places, as `real_generator.assemble` takes them."""
    places = np.flatnonzero(np.any(jumps, axis=0))
    stacked = jumps.reshape(-1, len(hamiltonian))
    flat = jumps.reshape(len(jumps), -1)[:, places]
    return hamiltonian - 0.5j * (stacked.conj().T @ stacked), flat.T @ flat.conj(), places


def radical_turn() -> ComplexArray:
    """Return the turn (20, 20) of both radicals by pi about x, the coupler untouched."""
    turn = np.array([[0, -1j], [-1j, 0]])
    return np.kron(np.kron(turn, np.eye(5)), turn)


@lru_cache(maxsize=32)
def _channel_program(on_places: bytes, off_places: bytes, steps: int, echo: bool) -> Any:
    import jax
    import jax.numpy as jnp

    places, places_off = np.frombuffer(on_places, dtype=int), np.frombuffer(off_places, dtype=int)

    def run(on: Any, gain: Any, off: Any, gain_off: Any, step: Any, off_ns: Any, inputs: Any, readout: Any) -> Any:
        increment = expm1_real(assemble(on, gain, places, ELEMENTS) * step)
        ending = readout + readout @ expm1_real(assemble(off, gain_off, places_off, ELEMENTS) * off_ns)
        turn = _turn_matrix()

        def advance(state: tuple[Any, Any], _: Any) -> tuple[Any, Any]:
            left, right = state
            right = right + increment @ right
            left = left + left @ increment
            return (left, right), (left, right)

        first = (ending, inputs)
        _, (lefts, rights) = jax.lax.scan(advance, first, None, length=steps)
        lefts = jnp.concatenate([ending[None], lefts])
        rights = jnp.concatenate([inputs[None], rights])
        return (lefts * turn) @ rights if echo else ending @ rights

    return jax.jit(run)


def _turn_matrix() -> FloatArray:
    """Return the factors of ... """
    raise NotImplementedError


def _unit_operator(pauli: ComplexArray, coupler: ComplexArray) -> ComplexArray:
    placed = np.einsum("acbd,kl->akcbld", pauli.reshape(2, 2, 2, 2), coupler)
    return placed.reshape(20, 20)


def _readout(gate: SwitchedGate) -> FloatArray:
    raise NotImplementedError


Pair = Sequence[float]
