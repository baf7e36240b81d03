import numpy as np
import pytest
from qutip import basis, ket2dm, rand_ket, tensor
from qutip_qip.circuit import QubitCircuit

from molecular_qubits import Coupler, Microwaves, MolecularNetwork, NoiseSettings, Preparation, Radical, run_circuit
from molecular_qubits.network import examples
from molecular_qubits.network.processor import NetworkProcessor, ThermalRelaxation
from molecular_qubits.network.schedule import Operation, Schedule
from tests.test_molecular_qubits.circuit_helpers import random_circuit

TIGHT = {"atol": 1e-10, "rtol": 1e-8, "nsteps": 100_000}


def idle(network, sites, duration_ns):
    """A schedule in which nothing happens for a while."""
    wait = Operation("measure", (0,), (), 0.0, duration_ns)
    return Schedule(network.n_sites, (wait,), sites, sites, network.entangler_matrix)


@pytest.mark.parametrize("entangler", ["cz", "iswap", "sqrt-iswap", "sqrt-swap"])
def test_without_noise_the_pulses_make_the_circuit(entangler):
    network = MolecularNetwork.chain(3, entangler=entangler)
    circuit = random_circuit(3, 6, 2)
    processor = NetworkProcessor(network)
    processor.load_circuit(circuit)
    start = rand_ket([2, 2, 2], seed=1)
    state = processor.generate_init_processor_state(start)
    for step in processor.run_analytically(init_state=None):
        state = step * state
    found = processor.get_final_circuit_state(state).full()
    wanted = circuit.unitary() @ start.full()
    assert (wanted.conj().T @ found @ wanted).real.item() == pytest.approx(1, abs=1e-10)


def test_mesolve_without_noise_agrees_with_the_exponentials():
    circuit = QubitCircuit(2)
    circuit.add_gate("SNOT", targets=0)
    circuit.add_gate("CNOT", targets=1, controls=0)
    processor = NetworkProcessor(MolecularNetwork.chain(2))
    processor.load_circuit(circuit)
    start = processor.generate_init_processor_state(basis([2, 2], [0, 0]))
    result = processor.run_state(start, noisy=False, options=dict(TIGHT))
    bell = (basis([2, 2], [0, 0]) + basis([2, 2], [1, 1])).unit()
    final = processor.get_final_circuit_state(result.states[-1])
    assert (bell.dag() * final * bell).real == pytest.approx(1, abs=1e-6)


def test_relaxation_is_exponential_towards_the_polarisation_at_the_temperature():
    radical = Radical(t1_ns=200.0, t2_ns=150.0)
    network = MolecularNetwork.chain(1, radicals=radical, temperature_k=0.3)
    processor = NetworkProcessor(network)
    processor.load_schedule(idle(network, (0,), 100.0))
    times = np.linspace(0, 100.0, 11)
    (equilibrium,) = network.equilibrium_polarisation
    assert 0.6 < equilibrium < 0.7
    noise = ThermalRelaxation(network.t1_ns, network.t2_ns, network.equilibrium_polarisation)
    assert processor.noise[0].polarisation == pytest.approx(noise.polarisation)
    plus = (basis(2, 0) + basis(2, 1)).unit()
    from qutip import mesolve, qzero

    jumps = [
        qobj.get_qobj([2]) if hasattr(qobj, "get_qobj") else qobj
        for pulse in processor.get_noisy_pulses(device_noise=True)
        for qobj in pulse.lindblad_noise
    ]
    result = mesolve(qzero(2), ket2dm(plus), times, c_ops=jumps, options=dict(TIGHT))
    matrices = np.array([state.full() for state in result.states])
    assert 2 * matrices[:, 0, 1].real == pytest.approx(np.exp(-times / 150.0), abs=1e-7)
    polarisation = (matrices[:, 0, 0] - matrices[:, 1, 1]).real
    assert polarisation == pytest.approx(equilibrium * (1 - np.exp(-times / 200.0)), abs=1e-7)


def test_noise_lowers_a_superposition_by_the_analytic_decay():
    radical = Radical(t1_ns=3000.0, t2_ns=400.0)
    network = MolecularNetwork.chain(1, radicals=radical, temperature_k=300.0)
    circuit = QubitCircuit(1)
    circuit.add_gate("SNOT", targets=0)
    processor = NetworkProcessor(network)
    processor.load_circuit(circuit)
    pulse = processor.schedule.duration_ns
    start = processor.generate_init_processor_state(basis(2, 0))
    result = processor.run_state(start, options=dict(TIGHT))
    length = np.linalg.norm([2 * result.states[-1].full()[0, 1], np.diff(np.diag(result.states[-1].full()))[0]])
    assert np.exp(-pulse / 400.0) < length < np.exp(-pulse / 3000.0)
    quiet = NetworkProcessor(network.model_copy(update={"sites": (network.sites[0].model_copy(update={
        "t1_ns": 1e12, "t2_ns": 1e12}),)}))  # fmt: skip
    quiet.load_circuit(circuit)
    state = quiet.run_state(start, options=dict(TIGHT)).states[-1]
    assert quiet.get_final_circuit_state(state).full() == pytest.approx(np.full((2, 2), 0.5), abs=1e-5)


def test_qubits_are_put_on_their_sites_and_found_where_they_end():
    network = MolecularNetwork.chain(4)
    processor = NetworkProcessor(network)
    schedule = idle(network, (2, 0), 1.0)
    moved = Schedule(4, schedule.operations, (2, 0), (2, 0), network.entangler_matrix)
    processor.load_schedule(moved)
    first, second = rand_ket(2, seed=3), rand_ket(2, seed=4)
    state = processor.generate_init_processor_state(tensor(first, second))
    zero = basis(2, 0)
    assert abs(tensor(second, zero, first, zero).dag() * state) == pytest.approx(1)
    found = processor.get_final_circuit_state(state)
    assert (found - ket2dm(tensor(first, second))).norm() < 1e-12
    assert processor.populations(state) == pytest.approx([abs(ket[1, 0]) ** 2 for ket in (first, second)])


def test_the_start_has_the_polarisation_of_the_preparation():
    network = MolecularNetwork.chain(2, preparation=Preparation(polarisation=0.6))
    state = NetworkProcessor(network).generate_init_processor_state()
    assert np.diag(state.full()).real == pytest.approx([0.64, 0.16, 0.16, 0.04])


def test_wrong_input_is_named():
    processor = NetworkProcessor(MolecularNetwork.chain(2))
    with pytest.raises(ValueError, match="`schedule` must be one of 2 sites"):
        processor.load_schedule(Schedule(3, (), (0,), (0,), np.eye(4)))
    with pytest.raises(ValueError, match="`init_circuit_state` must be a state of 2 qubits"):
        processor.generate_init_processor_state(basis(2, 0))
    with pytest.raises(ValueError, match="`schedule_mode` and `compiler`"):
        processor.load_circuit(QubitCircuit(1), schedule_mode="ALAP")


def test_a_ghz_state_with_relaxation_is_that_of_the_gate_channels():
    """Two descriptions of the same noise: Lindblad equation of the pulses, and a channel for each operation."""
    network = MolecularNetwork.chain(
        3, 4.0, couplers=Coupler(linewidth_cm1=60.0), microwaves=Microwaves(addressing="local"),
        radicals=Radical(t1_ns=3e3, t2_ns=8e2),
    )  # fmt: skip
    processor = NetworkProcessor(network)
    processor.load_circuit(examples.ghz(3))
    noise = NoiseSettings().only("relaxation", "initialisation")
    channels = run_circuit(network, processor.schedule, method="channels", noise=noise)
    final = processor.run_state(processor.generate_init_processor_state(), options=TIGHT).states[-1]
    ghz = (basis([2] * 3, [0] * 3) + basis([2] * 3, [1] * 3)).unit()
    found = (ghz.dag() * processor.get_final_circuit_state(final) * ghz).real
    assert 0.5 < channels.fidelity < 0.85  # the gates found, and their times, differ among processors
    assert found == pytest.approx(channels.fidelity, abs=1e-6)
