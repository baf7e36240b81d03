"""The list of pulses of a schedule."""

import json

import numpy as np
import pytest
from scipy.integrate import quad

from molecular_qubits import MolecularNetwork, compile_circuit
from molecular_qubits.experiments import network as experiment
from molecular_qubits.network import addressing, optics
from molecular_qubits.network.page import page_data
from molecular_qubits.network.pulse_list import peak_rabi_mhz, pulse_list, schedule_record
from molecular_qubits.network.pulses import CUT
from molecular_qubits.network.schedule import Operation, Schedule
from shared.config import load_config


@pytest.fixture(scope="module")
def network():
    return experiment.make_network(load_config(experiment.NetworkConfig, experiment.CONFIGS / "network.yaml"))


@pytest.fixture(scope="module")
def schedule(network):
    return compile_circuit(experiment.CONFIGS / "network_ghz.qasm", network, trials=2)


def test_every_gate_of_a_coupler_is_a_pump_and_a_quench_on_it(network, schedule):
    pulses = pulse_list(schedule, network)
    assert [pulse.start_ns for pulse in pulses] == sorted(pulse.start_ns for pulse in pulses)
    gates = [operation for operation in schedule.operations if operation.name == "coupler"]
    pumps, quenches = ([pulse for pulse in pulses if pulse.kind == kind] for kind in ("pump", "quench"))
    assert len(pumps) == len(quenches) == len(gates) == schedule.n_couplers
    for gate in gates:
        bond = network.bond_between(*gate.sites)
        (pump,) = [pulse for pulse in pumps if pulse.start_ns == gate.start_ns and {*pulse.sites} == {*gate.sites}]
        (quench,) = [
            pulse
            for pulse in quenches
            if pulse.start_ns + pulse.duration_ns == pytest.approx(gate.end_ns) and {*pulse.sites} == {*gate.sites}
        ]
        coupler = network.bonds[bond]
        assert pump.wavelength_nm == coupler.absorption_nm
        assert pump.energy_j == addressing.light_of(network, bond).energy_j > 0
        assert pump.position_nm == quench.position_nm == pytest.approx(network.bond_positions_nm[bond])
        assert pump.duration_ns == quench.duration_ns == network.optics.pulse_ns
        assert quench.wavelength_nm == coupler.quench_nm
        photons = quench.energy_j / optics.photon_energy_j(coupler.quench_nm)
        area_cm2 = 1e-14 * network.optics.spot_area_nm2(coupler.quench_nm)
        absorbed = photons / area_cm2 * float(optics.cross_section_cm2(coupler.quench_extinction_per_m_cm))
        assert absorbed == pytest.approx(optics.QUENCH_DOSE)


def test_microwaves_have_the_frequency_of_their_radical_and_the_area_of_their_angle(network, schedule):
    pulses = [pulse for pulse in pulse_list(schedule, network) if pulse.kind == "microwave"]
    turns = [operation for operation in schedule.operations if operation.name == "rotation"]
    assert sum(len(pulse.sites) for pulse in pulses) == len(turns)
    for pulse in pulses:
        assert pulse.frequency_ghz == pytest.approx(network.frequencies_ghz[list(pulse.sites)].mean())
        (turn,) = [o for o in turns if o.sites[0] == pulse.sites[0] and o.start_ns == pulse.start_ns]
        sigma = pulse.duration_ns / (2 * CUT)
        area, _ = quad(
            lambda t, pulse=pulse, sigma=sigma: 2e-3 * np.pi * pulse.rabi_mhz * np.exp(-((t / sigma) ** 2) / 2),
            -pulse.duration_ns / 2, pulse.duration_ns / 2,
        )  # fmt: skip
        assert area == pytest.approx(abs(turn.angles[0]), rel=1e-6)
        assert pulse.rabi_mhz <= 1.02 * network.microwaves.rabi_mhz
    assert peak_rabi_mhz(-1.0, 10.0) == peak_rabi_mhz(1.0, 10.0)
    assert len([pulse for pulse in pulse_list(schedule, network) if pulse.kind == "readout"]) == 9


def test_changes_of_frame_are_in_the_phases_and_radicals_that_turn_together_have_one_pulse():
    alike = MolecularNetwork.chain(2, gradient_tesla_per_m=(0.0, 0.0))
    steps = (
        Operation("rotation", (0,), (1.0, 0.2), 0.0, 40.0),
        Operation("rotation", (1,), (1.0, 0.2), 0.0, 40.0),
    )
    (pulse,) = pulse_list(Schedule(2, steps, (0, 1), (0, 1), alike.entangler_matrix), alike)
    assert pulse.sites == (0, 1)
    assert pulse.phase_rad == pytest.approx(0.2)
    single = MolecularNetwork.chain(1)
    steps = (Operation("rz", (0,), (0.7,)), Operation("rotation", (0,), (1.0, 0.2), 0.0, 40.0))
    (turned,) = pulse_list(Schedule(1, steps, (0,), (0,), np.eye(4)), single)
    assert turned.phase_rad == pytest.approx((0.2 - 0.7) % (2 * np.pi))


def test_the_file_holds_the_pulses_and_is_still_a_schedule(network, schedule):
    text = json.dumps(schedule_record(schedule, network), allow_nan=False)
    assert Schedule.from_json(text).operations == schedule.operations
    kinds = {pulse["kind"] for pulse in json.loads(text)["pulses"]}
    assert kinds == {"pump", "quench", "microwave", "readout"}
    with pytest.raises(ValueError, match="`schedule` must be one of 9 sites"):
        pulse_list(Schedule(2, (), (0,), (0,), np.eye(4)), network)


def test_the_page_and_the_numbers_of_the_network_have_the_energies_of_living_couplers(network, schedule):
    data = page_data(network, schedule)
    living = [k for k, bond in enumerate(network.bonds) if bond.alive]
    energies = [1e12 * addressing.light_of(network, k).energy_j for k in living]
    assert [1e-3 * data["bonds"][k]["fj"] for k in living] == pytest.approx(energies, rel=5e-3)
    found = experiment.describe(network)
    assert found["pulse energy (pJ), least"] == pytest.approx(min(energies))
    assert found["pulse energy (pJ), most"] == pytest.approx(max(energies))
    dead = network.bonds[0].model_copy(update={"alive": False, "extinction_per_m_cm": 1.0, "isc_yield": 0.1})
    other = network.model_copy(update={"bonds": (dead, *network.bonds[1:])})
    assert experiment.describe(other)["pulse energy (pJ), most"] <= max(energies)
    assert found["quenching pulse energy (pJ)"] > 0
