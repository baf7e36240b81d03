"""Light that strays to another coupler: the pair channel that stands for it beside the master equation."""

import numpy as np
import pytest

from molecular_qubits.control.fidelity import target_gate
from molecular_qubits.network import optics, result, simulate_levels
from molecular_qubits.network.coupler_gate import CouplerNoise
from molecular_qubits.network.levels import LevelModel, LightSwitch, Segment
from molecular_qubits.network.noise import GateChannels, NoiseSettings, RadicalNoise
from molecular_qubits.network.program import build_program
from molecular_qubits.network.schedule import Operation, Schedule
from molecular_qubits.network.simulate_channels import pure_expectations

PULSE_NS, ISC_NS, YIELD = 8e-4, 1e-4, 0.98
STRAY_DOSE = 0.01


def losses(lit: tuple[int, int], other: tuple[int, int], j_other: float) -> tuple[float, float, float]:
    """Return the fidelity without stray light, and what it loses by the levels and by the channels."""
    n = max(*lit, *other) + 1
    dose = optics.needed_dose(0.97, PULSE_NS, ISC_NS, YIELD)
    quench = optics.QUENCH_DOSE / PULSE_NS
    switch = LightSwitch(dose / PULSE_NS, quench, PULSE_NS, ISC_NS, YIELD)
    stray = LightSwitch(STRAY_DOSE / PULSE_NS, quench, PULSE_NS, ISC_NS, YIELD)
    probability = float(optics.triplet_probability(STRAY_DOSE, PULSE_NS, ISC_NS, YIELD))
    first = CouplerNoise(j_on_cm1=(0.24, 0.24), share_z=1.0, jitter_ns=2e-4)
    couplers = {lit: first, other: first.model_copy(update={"j_on_cm1": (j_other, j_other)})}
    off = [source for source in simulate_levels.NOT_IN_LEVELS if source != "light crosstalk"]
    radicals, entangler = [RadicalNoise() for _ in range(n)], target_gate("cz")
    programs = []
    for light in ({lit: {other: probability}}, {}):
        channels = GateChannels(
            radicals, couplers, entangler, light_crosstalk=light, settings=NoiseSettings().without(*off)
        )
        gates = simulate_levels.use_level_gates(channels, {lit: switch})
        turns = [Operation("rotation", (site,), (np.pi / 2, 0.3 * site), 0.0, 40.0) for site in range(n)]
        gate = Operation("coupler", lit, (), 40.0, gates[lit].gate.hold_ns)
        sites = tuple(range(n))
        schedule = Schedule(n, (*turns, gate), sites, sites, entangler)
        programs.append(build_program(schedule, channels))
    ends = tuple((*channels.relaxation_ns(site), 0.0) for site in range(n))
    model = LevelModel(ends, ((lit, couplers[lit], switch), (other, couplers[other], stray)))
    state = model.start(simulate_levels._product(programs[0].initial))
    for _, segment, frames in simulate_levels.segments(schedule, gates, [lit], PULSE_NS):
        state = model.turn_frames(state, frames)
        if segment is not None:  # the other coupler gets the same pulses, the pump by its stray dose
            both = tuple((number, kind) for _, kind in segment.light for number in (0, 1))
            state = model.propagate(state, Segment(segment.duration_ns, segment.drives, both))
    levels = simulate_levels._expectations(model.radicals(state))
    ideal = pure_expectations(result.ideal_logical_ket(programs[0]))
    with_light, without = (applied(program) for program in programs)
    fidelity = [float(np.sum(ideal * found)) / 2**n for found in (without, levels, with_light)]
    return fidelity[0], fidelity[0] - fidelity[1], fidelity[0] - fidelity[2]


def applied(program) -> np.ndarray:
    """Return all products of Pauli operators after a program."""
    found = program.initial[0]
    for row in program.initial[1:]:
        found = np.multiply.outer(found, row)
    for step in program.steps:
        m = len(step.sites)
        channel = step.channel.reshape((4,) * (2 * m))
        found = np.moveaxis(np.tensordot(channel, found, axes=(range(m, 2 * m), step.sites)), range(m), step.sites)
    return found


def test_couplers_without_a_common_radical_lose_what_the_master_equation_says():
    fidelity, levels, channels = losses((0, 1), (2, 3), 0.02)
    assert 0.9 < fidelity < 1
    assert levels > 1e-3
    assert channels == pytest.approx(levels, rel=0.05)


@pytest.mark.parametrize("j_other", [0.24, 0.1, 0.02])
def test_couplers_with_a_common_radical_lose_about_as_much(j_other):
    """Both triplets act at once there, in the channels one after the other."""
    fidelity, levels, channels = losses((0, 1), (1, 2), j_other)
    assert 0.9 < fidelity < 1
    assert levels > 1e-3
    assert 0.6 < channels / levels < 1.6
