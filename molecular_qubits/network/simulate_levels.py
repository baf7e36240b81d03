"""The lowest rung: the master equation of radicals and couplers with all their levels, light pulse by light pulse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.control.fidelity import PAULI_PRODUCTS
from molecular_qubits.network import result as outcome
from molecular_qubits.network.coupler_gate import CouplerGate, CouplerNoise, best_frames, framed_gate
from molecular_qubits.network.levels import LevelModel, LightSwitch, Segment
from molecular_qubits.network.noise import GateChannels, Source, parts_needed
from molecular_qubits.network.optics import QUENCH_DOSE
from molecular_qubits.network.program import build_program
from molecular_qubits.network.schedule import Operation, Schedule
from molecular_qubits.network.simulate_channels import logical_expectations, pure_expectations, table
from molecular_qubits.network.transfer import PAULIS, from_unitary
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.units import cm1_to_rad_per_ns
from shared.progress import track

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork


def memory_gib(n_radicals: int, n_couplers: int) -> float:
    """Return what the simulation takes, about: the generator, some 60 numbers a row, twice, and work vectors."""
    return 2 * 60 * 24 * 4.0**n_radicals * 11.0**n_couplers / 2**30


TOLERANCE = 1e-4
"""How far an interval, done in parts with the dark exchange between them, may leave the state from where it should be.
"""

NOT_IN_LEVELS: tuple[Source, ...] = ("amplitude", "microwave crosstalk", "light crosstalk", "exchange spread")
"""Sources of error that the master equation leaves out."""


@dataclass(frozen=True)
class LevelGate:
    """A coupler's gate by its light pulses.

    Attributes
    ----------
    gate
        The channel, from the dark coupler at the start to whatever state of it at the end.
    quench_ns
        When the quenching pulse begins, the pump beginning at 0.
    """

    gate: CouplerGate
    quench_ns: float


def switches(network: MolecularNetwork) -> dict[tuple[int, int], LightSwitch]:
    """Return the light of each living coupler of a network."""
    from molecular_qubits.network.addressing import doses

    pulse = network.optics.pulse_ns
    return {
        (bond.sites[0], bond.sites[1]): LightSwitch(
            float(dose) / pulse, QUENCH_DOSE / pulse, pulse, bond.isc_time_ns, bond.isc_yield
        )
        for bond, dose in zip(network.bonds, doses(network), strict=True)
        if bond.alive
    }


def level_gate(
    coupler: CouplerNoise,
    switch: LightSwitch,
    entangler: ComplexArray,
    hold_ns: float,
    relaxation_ns: tuple[tuple[float, float, float], tuple[float, float, float]],
) -> LevelGate:
    """Return the gate that the light pulses make: frames and begin of the quench near a hold chosen for the best gate.

    Parameters
    ----------
    coupler, switch
        Chemistry and light.
    entangler
        The ideal gate (4, 4).
    hold_ns
        About how long the triplet should be there; the whole gate takes this and two pulses.
    relaxation_ns
        (T1, T2, equilibrium polarisation) of both radicals.
    """
    return _level_gate(coupler, switch, np.asarray(entangler, dtype=complex).tobytes(), hold_ns, relaxation_ns)


@lru_cache(maxsize=256)
def _level_gate(
    coupler: CouplerNoise,
    switch: LightSwitch,
    entangler: bytes,
    hold_ns: float,
    relaxation_ns: tuple[tuple[float, float, float], tuple[float, float, float]],
) -> LevelGate:
    target = from_unitary(np.frombuffer(entangler, dtype=complex).reshape(4, 4))
    model = LevelModel(relaxation_ns, (((0, 1), coupler, switch),))
    pulse, total = switch.pulse_ns, hold_ns + 2 * switch.pulse_ns
    pumped = model.propagate(model.start(PAULI_PRODUCTS), Segment(pulse, light=((0, "pump"),)))
    middle = max(hold_ns - pulse, pulse)
    width = min(2 * pulse, middle / 2)
    quenches = np.linspace(middle - width, min(middle + width, total - 2 * pulse), 161)

    def channel(quench_ns: float) -> tuple[FloatArray, float]:
        state = model.propagate(pumped, Segment(float(quench_ns) - pulse, light=((0, "hold"),)))
        state = model.propagate(state, Segment(pulse, light=((0, "quench"),)))
        state = model.propagate(state, Segment(total - float(quench_ns) - pulse, light=((0, "hold"),)))
        found = np.einsum("kab,lba->lk", model.radicals(state), PAULI_PRODUCTS).real / 4
        return found, float(1 - model.dark_probability(state)[0, 0] / 4)

    state = model.propagate(pumped, Segment(float(quenches[0]) - pulse, light=((0, "hold"),)))
    channels = []
    step = Segment(float(quenches[1] - quenches[0]), light=((0, "hold"),))
    quench = Segment(pulse, light=((0, "quench"),))
    for _ in quenches:
        after = model.radicals(model.propagate(state, quench))
        channels.append(np.einsum("kab,lba->lk", after, PAULI_PRODUCTS).real / 4)
        state = model.propagate(state, step)
    best = float(quenches[int(np.argmax(best_frames(np.array(channels), target, sweeps=60)[1]))])
    found, leakage = channel(best)
    return LevelGate(framed_gate(found, target, total, leakage=leakage), best)


def use_level_gates(
    channels: GateChannels, light: dict[tuple[int, int], LightSwitch]
) -> dict[tuple[int, int], LevelGate]:
    """Give the channels the gates of the full levels, for comparison at the level of channels, and return them."""
    found = {}
    for pair, switch in light.items():
        hold = channels.planned_hold_ns(*pair)
        ends = tuple((*channels.relaxation_ns(site), channels.radicals[site].equilibrium) for site in pair)
        found[pair] = level_gate(channels.couplers[pair], switch, channels.entangler, hold, ends)  # type: ignore[arg-type]
        channels.set_gate(*pair, found[pair].gate)
    return found


def segments(
    schedule: Schedule, gates: dict[tuple[int, int], LevelGate], couplers: Sequence[tuple[int, int]], pulse_ns: float
) -> list[tuple[float, Segment | None, dict[int, float]]]:
    """Return what is on between any two events, and the changes of frame at them.

    Returns
    -------
    list
        (time, segment that begins there or ``None`` at the end, angle of each site's change of frame before it).
    """
    drives: list[tuple[float, float, tuple[int, float, float]]] = []
    light: list[tuple[float, float, tuple[int, str]]] = []
    frames: list[tuple[float, int, float]] = []
    for operation in schedule.operations:
        start, stop = operation.start_ns, operation.end_ns
        if operation.name == "rz":
            frames.append((start, operation.sites[0], operation.angles[0]))
        elif operation.name == "rotation" and operation.duration_ns:
            theta, phi = operation.angles
            drives.append((start, stop, (operation.sites[0], theta / operation.duration_ns, phi)))
        elif operation.name == "coupler":
            pair, found = _found(operation, gates)
            number = couplers.index(pair)
            quench = start + found.quench_ns
            light += [
                (start, start + pulse_ns, (number, "pump")),
                (start + pulse_ns, quench, (number, "hold")),
                (quench, quench + pulse_ns, (number, "quench")),
                (quench + pulse_ns, stop, (number, "hold")),
            ]
            for site, before, after in zip(pair, found.gate.frames[:2], found.gate.frames[2:], strict=True):
                frames += [(start, site, before), (stop, site, after)]
    reads = [operation.start_ns for operation in schedule.operations if operation.name == "measure"]
    events = (t for d in (*drives, *light) for t in d[:2])
    times = sorted({0.0, schedule.duration_ns, *events, *(f[0] for f in frames), *reads})
    found_segments: list[tuple[float, Segment | None, dict[int, float]]] = []
    for number, time in enumerate(times):
        turns: dict[int, float] = {}
        for when, site, angle in frames:
            if when == time:
                turns[site] = turns.get(site, 0.0) + angle
        segment = None
        if number + 1 < len(times):
            middle, length = (time + times[number + 1]) / 2, times[number + 1] - time
            segment = Segment(
                float(f"{length:.9e}"),
                tuple(sorted(drive for start, stop, drive in drives if start < middle < stop)),
                tuple(sorted(lit for start, stop, lit in light if start < middle < stop)),
            )
        found_segments.append((time, segment, turns))
    return found_segments


def _found(operation: Operation, gates: dict[tuple[int, int], LevelGate]) -> tuple[tuple[int, int], LevelGate]:
    pair = (operation.sites[0], operation.sites[1])
    pair = pair if pair in gates else (pair[1], pair[0])
    if pair not in gates:
        raise ValueError(f"Sites {operation.sites} must have a living coupler between them, but have none.")
    found = gates[pair]
    if abs(operation.duration_ns - found.gate.hold_ns) > 1e-9 * max(found.gate.hold_ns, 1):
        raise ValueError(
            f"Argument `schedule` must give the coupler of sites {pair} {found.gate.hold_ns:.9g} ns, but gives it "
            f"{operation.duration_ns:.9g} ns."
        )
    return pair, found


def simulate(
    schedule: Schedule, channels: GateChannels, light: dict[tuple[int, int], LightSwitch], shots: int, seed: int
) -> outcome.CircuitResult:
    """Run a schedule by the master equation of all levels; no crosstalk and no spread of amplitude or exchange.

    The exchange through couplers that get no light acts between short parts of each interval, each radical in its own
    frame. A radical whose readout has begun does not relax any more, and two such radicals have no exchange.
    """
    gates = use_level_gates(channels, {pair: light[pair] for pair in _used(schedule, light)})
    program = build_program(schedule, channels, split=False)
    place = {label: number for number, label in enumerate(program.labels)}
    couplers = list(gates)
    model = LevelModel(
        tuple((*channels.relaxation_ns(site), channels.radicals[site].equilibrium) for site in program.labels),
        tuple(((place[a], place[b]), channels.couplers[a, b], light[a, b]) for a, b in couplers),
    )
    state = model.start(_product(program.initial))
    pulse = max((switch.pulse_ns for switch in light.values()), default=0.0)

    def exchanged(state: ComplexArray, pairs: Iterable[tuple[int, int]], start: float, stop: float) -> ComplexArray:
        for a, b in pairs:
            state = model.turn_pair(state, (place[a], place[b]), channels.dark_unitary(a, b, start, stop))
        return state

    read_at = {o.sites[0]: o.start_ns for o in schedule.operations if o.name == "measure"}
    for time, segment, turns in track(segments(schedule, gates, couplers, pulse), "master equation"):
        state = model.turn_frames(state, {place[site]: angle for site, angle in turns.items()})
        if segment is not None:
            read = {site for site, start in read_at.items() if start <= time}
            model = _without(model, [place[site] for site in read])
            busy = [couplers[number] for number, _ in segment.light]
            apart = [
                (a, b) for a in place for b in channels.dark_neighbours.get(a, ())
                if a < b and b in place and not {(a, b), (b, a)} & {*busy} and not {a, b} <= read
            ]  # fmt: skip
            n = _parts(channels, segment, busy, apart)
            step, length = segment.duration_ns / n, float(f"{segment.duration_ns / n:.9e}")
            drives = tuple((place[site], rabi, phase) for site, rabi, phase in segment.drives)
            for k in range(n):
                start, middle, stop = (time + part * step for part in (k, k + 0.5, k + 1))
                state = exchanged(state, apart, start, middle)
                state = model.propagate(state, Segment(length, drives, segment.light))
                state = exchanged(state, reversed(apart), middle, stop)
    expectations = _expectations(model.radicals(state))
    n, confusion = len(program.read), program.confusion[list(program.read)]
    kept = logical_expectations(expectations, program.read)
    exact = table(kept)
    ideal = outcome.ideal_logical_ket(program)
    probabilities = outcome.read_table(exact, confusion)
    dark = model.dark_probability(state)
    return outcome.CircuitResult(
        "lindblad", n, program.n_sites, shots, seed, outcome.read_z(outcome.z_of_table(exact), confusion), np.zeros(n),
        float(np.sum(pure_expectations(ideal) * kept)) / 2**n, 0.0, probabilities, np.abs(ideal) ** 2,
        outcome.draw_table(probabilities, shots, np.random.default_rng(seed)),
        {
            "elements": model.n_elements, "couplers": len(couplers), "trace": float(expectations.flat[0]),
            "couplers not dark at the end": [float(1 - value) for value in dark],
        },
    )  # fmt: skip


def _without(model: LevelModel, read: Sequence[int]) -> LevelModel:
    """Return a model in which some radicals do not relax."""
    never = (1e30, 1e30, 0.0)
    ends = tuple(never if number in read else end for number, end in enumerate(model.relaxation_ns))
    return model if ends == model.relaxation_ns else replace(model, relaxation_ns=ends, _kept={})


def _parts(
    channels: GateChannels, segment: Segment, busy: Sequence[tuple[int, int]], dark: Sequence[tuple[int, int]]
) -> int:
    """Return in how many parts an interval is done, with the exchange through dark couplers before and after each.

    Their frames turn by a quarter at most in each part of a pulse: else its parts would look like other frequencies.
    """
    if not dark:
        return 1
    time, sites = segment.duration_ns, {site for pair in dark for site in pair}
    gate = {site: [other for pair in busy if site in pair for other in pair] for site in sites}
    exchanged = max(channels.dark_angle(site, time, gate[site]) for site in sites)
    turned = sum(abs(rabi) for _, rabi, _ in segment.drives) * time
    turned += max(time / channels.relaxation_ns(site)[1] for site in sites)
    turned += sum(cm1_to_rad_per_ns(3 * max(map(abs, channels.couplers[pair].j_on_cm1))) for pair in busy) * time
    apart = max(abs(channels.couplers[channels.bond(*pair)].difference_mhz) for pair in dark) if segment.drives else 0.0
    return max(parts_needed(exchanged, turned, TOLERANCE), int(np.ceil(4e-3 * apart * time)))


def _used(schedule: Schedule, light: dict[tuple[int, int], LightSwitch]) -> list[tuple[int, int]]:
    used = {frozenset(operation.sites) for operation in schedule.operations if operation.name == "coupler"}
    return [pair for pair in light if frozenset(pair) in used]


def _product(initial: FloatArray) -> ComplexArray:
    state = np.ones((1, 1), dtype=complex)
    for row in initial:
        state = np.kron(state, np.einsum("a,aij->ij", row, PAULIS) / 2)
    return state


def _expectations(state: ComplexArray) -> FloatArray:
    n = int(np.log2(len(state)))
    tensor = state.reshape((2,) * (2 * n))
    for done in range(n):
        tensor = np.tensordot(tensor, PAULIS, axes=((0, n - done), (2, 1)))
    return np.asarray(tensor.real)
