"""The simulators: analytic cases, and each against the one below it on the same circuits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits import evolve
from molecular_qubits.control.fidelity import target_gate
from molecular_qubits.network import simulate_channels, simulate_levels, simulate_mps, simulate_stim, transfer
from molecular_qubits.network.clifford import NotCliffordError, clifford_steps, twirled_program
from molecular_qubits.network.coupler_gate import CouplerGate, CouplerNoise
from molecular_qubits.network.examples import random_layers, square_edges
from molecular_qubits.network.lattice import MolecularNetwork
from molecular_qubits.network.levels import LevelModel, LightSwitch, Segment
from molecular_qubits.network.molecules import Coupler, Microwaves
from molecular_qubits.network.noise import SOURCES, GateChannels, NoiseSettings, RadicalNoise
from molecular_qubits.network.program import build_program
from molecular_qubits.network.result import ideal_ket
from molecular_qubits.network.schedule import Operation, Schedule, ideal_matrix
from molecular_qubits.network.simulate import program_of, run_circuit
from molecular_qubits.spins.channels.optical import OpticalPulse
from molecular_qubits.spins.channels.relaxation import RadicalRelaxation
from molecular_qubits.spins.channels.transfer import Emission, IntersystemCrossing, TripletDecay
from molecular_qubits.spins.unit import TwoQubitUnit

CZ = target_gate("cz")
PERFECT = NoiseSettings(off=SOURCES)
"""No noise at all; what a test wants is set by hand."""


def pairs_of(n: int) -> list[tuple[int, int]]:
    return [(k, k + 1) for k in range(n - 1)] + ([(0, n - 1)] if n > 3 else [])


def layers(
    n: int, depth: int, seed: int, *, clifford: bool = False, entangler: np.ndarray = CZ, hold: float = 0.728
) -> Schedule:
    """Rotations on all sites, then couplers on disjoint pairs; the frames are turned at random on the way."""
    rng = np.random.default_rng(seed)
    operations, time, phase = [], 0.0, np.zeros(n)
    for _ in range(depth):
        for site in range(n):
            theta, phi = rng.uniform(0, np.pi), rng.uniform(0, 6)
            if clifford:
                theta, phi = np.pi / 2 * rng.integers(1, 3), np.pi / 2 * rng.integers(4)
            operations.append(Operation("rotation", (site,), (theta, phi + phase[site]), time, 10.0))
            turn = rng.uniform(0, 6)
            operations.append(Operation("rz", (site,), (turn,), time + 10.0))
            phase[site] += turn
        time += 10.0
        used: set[int] = set()
        for first, second in rng.permutation(pairs_of(n)):
            if not used & {first, second}:
                used |= {first, second}
                order = (int(first), int(second)) if rng.random() < 0.5 else (int(second), int(first))
                operations.append(Operation("coupler", order, (), time, hold))
        time += hold
    sites = tuple(int(site) for site in rng.permutation(n))
    return Schedule(n, tuple(operations), sites, sites, entangler)


def noisy(n: int, *, entangler: np.ndarray = CZ, hold: float = 0.728, **coupler: Any) -> GateChannels:
    radicals = [
        RadicalNoise(t1_ns=800.0, t2_ns=400.0, polarisation=0.95, equilibrium=0.05, readout=(0.97, 0.94),
                     frequency_ghz=9.5 + 0.07 * site)
        for site in range(n)
    ]  # fmt: skip
    values: dict[str, Any] = {"j_on_cm1": (0.24, 0.24), "share_z": 0.98, "j_off_cm1": 2e-5} | coupler
    couplers = {pair: CouplerNoise(**values) for pair in pairs_of(n)}
    holds = dict.fromkeys(couplers, hold)
    light = {pairs_of(n)[0]: {pairs_of(n)[-1]: 0.02}} if n > 2 else {}
    return GateChannels(radicals, couplers, entangler, holds_ns=holds, light_crosstalk=light)


def test_ideal_program_is_the_product_of_the_ideal_matrices() -> None:
    schedule = layers(4, 3, 0)
    program = build_program(schedule, noisy(4))
    state = np.zeros(16, dtype=complex)
    state[0] = 1
    tensor = state.reshape((2,) * 4)
    for operation in schedule.operations:
        gate, k = ideal_matrix(operation, CZ), len(operation.sites)
        tensor = np.tensordot(gate.reshape((2,) * (2 * k)), tensor, axes=(range(k, 2 * k), operation.sites))
        tensor = np.moveaxis(tensor, range(k), operation.sites)
    assert abs(np.vdot(tensor.reshape(-1), ideal_ket(program))) == pytest.approx(1, abs=1e-12)
    perfect = GateChannels(
        [RadicalNoise()] * 4, {pair: CouplerNoise() for pair in pairs_of(4)}, CZ, settings=PERFECT,
        holds_ns=dict.fromkeys(pairs_of(4), 0.728),
    )  # fmt: skip
    found = run_circuit(perfect, schedule, method="channels")
    assert found.fidelity == pytest.approx(1, abs=1e-9)
    order = np.abs(tensor) ** 2
    assert found.probabilities == pytest.approx(order.transpose(schedule.final_sites).reshape(-1), abs=1e-9)


@pytest.mark.parametrize("method", ["channels", "mps"])
def test_one_radical_decays_by_t1_and_t2(method: Any) -> None:
    settings_ = NoiseSettings(off=tuple(name for name in SOURCES if name != "relaxation"))
    radical = RadicalNoise(t1_ns=300.0, t2_ns=200.0, equilibrium=0.1)
    channels = GateChannels([radical], {}, CZ, settings=settings_)
    flip = (np.pi, 0.0)
    times = (0.0, 50.0, 400.0)
    for time in times:
        operations = (Operation("rotation", (0,), flip, 0.0, 0.0), Operation("measure", (0,), (), time))
        found = run_circuit(channels, Schedule(1, operations, (0,), (0,), CZ), method=method)
        assert found.z[0] == pytest.approx(0.1 - 1.1 * np.exp(-time / 300), abs=1e-9)
        half = (np.pi / 2, np.pi / 2)
        echo = (
            Operation("rotation", (0,), half, 0.0, 0.0),
            Operation("rotation", (0,), (-np.pi / 2, np.pi / 2), time, 0.0),
        )  # fmt: skip
        found = run_circuit(channels, Schedule(1, echo, (0,), (0,), CZ), method=method)
        assert found.z[0] == pytest.approx(np.exp(-time / 200), abs=1e-9)


def bell_schedule(n: int, entangler_ns: float = 1.0) -> Schedule:
    """GHZ by a chain of CZ with Hadamards as rotations about y."""
    operations, time = [Operation("rotation", (0,), (np.pi / 2, np.pi / 2), 0.0, 0.0)], 0.0
    for site in range(1, n):
        operations.append(Operation("rotation", (site,), (-np.pi / 2, np.pi / 2), time, 0.0))
        operations.append(Operation("coupler", (site - 1, site), (), time, entangler_ns))
        time += entangler_ns
        operations.append(Operation("rotation", (site,), (np.pi / 2, np.pi / 2), time, 0.0))
    corrected = (Operation("rz", (site,), (0.0,), time) for site in range(n))
    return Schedule(n, (*operations, *corrected), tuple(range(n)), tuple(range(n)), CZ)


@settings(max_examples=10, deadline=None)
@given(p=st.floats(0, 1), n=st.integers(2, 4))
def test_depolarised_ghz_has_the_fidelity_of_the_formula(p: float, n: int) -> None:
    depolarised = np.diag([1.0] + [1 - p] * 15) @ transfer.from_unitary(CZ)
    channels = GateChannels(
        [RadicalNoise()] * n, {(k, k + 1): CouplerNoise() for k in range(n - 1)}, CZ, settings=PERFECT
    )
    for k in range(n - 1):
        channels.set_gate(k, k + 1, CouplerGate(1.0, depolarised, (0, 0, 0, 0), 1.0))
    found = run_circuit(channels, bell_schedule(n), method="channels")
    q = 1 - p
    if n == 2:
        assert found.fidelity == pytest.approx(q + p / 4, abs=1e-9)
    flipped = run_circuit(channels, bell_schedule(n), method="stim", shots=20_000)
    assert flipped.fidelity == pytest.approx(found.fidelity, abs=5 * flipped.fidelity_error + 1e-9)
    assert found.fidelity >= q ** (n - 1) - 1e-9


def test_rungs_agree_on_a_noisy_circuit() -> None:
    channels, schedule = noisy(5), layers(5, 4, 3)
    exact = run_circuit(channels, schedule, method="channels", shots=20_000)
    chain = run_circuit(channels, schedule, method="mps", shots=20_000)
    kets = run_circuit(channels, schedule, method="trajectories", shots=4000)
    assert 0.02 < exact.fidelity < 0.9
    assert chain.fidelity == pytest.approx(exact.fidelity, abs=1e-8)
    assert np.allclose(chain.probabilities, exact.probabilities, atol=1e-8)
    assert np.allclose(chain.z, exact.z, atol=1e-8)
    assert kets.fidelity == pytest.approx(exact.fidelity, abs=5 * kets.fidelity_error)
    assert np.all(np.abs(kets.z - exact.z) < 5 * kets.z_error)
    for found in (exact, chain, kets):
        drawn = 1 - 2 * found.samples.mean(axis=0)
        assert np.all(np.abs(drawn - exact.z) < 5 / np.sqrt(found.shots))
        assert sum(found.counts.values()) == found.shots
        assert np.sum(found.probabilities) == pytest.approx(1, abs=1e-9)
    assert exact.hellinger_fidelity() < 1
    again = run_circuit(channels, schedule, method="trajectories", shots=4000)
    assert np.array_equal(again.samples, kets.samples)


def test_error_of_trajectories_falls_with_the_root_of_the_shots() -> None:
    channels, schedule = noisy(4), layers(4, 3, 1)
    few, many = (run_circuit(channels, schedule, method="trajectories", shots=n) for n in (500, 8000))
    assert few.fidelity_error / many.fidelity_error == pytest.approx(4, rel=0.25)


def test_matrix_product_error_falls_with_the_bond() -> None:
    channels, schedule = noisy(6), layers(6, 6, 5)
    exact = run_circuit(channels, schedule, method="channels")
    errors = [
        np.abs(run_circuit(channels, schedule, method="mps", max_bond=bond).z - exact.z).max() for bond in (4, 16, 64)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-7


@pytest.mark.slow
def test_eight_radicals_by_matrix_products_agree_to_1e_4() -> None:
    channels, schedule = noisy(8), layers(8, 10, 2)
    exact = run_circuit(channels, schedule, method="channels")
    chain = run_circuit(channels, schedule, method="mps", cutoff=1e-12)
    assert abs(chain.fidelity - exact.fidelity) < 1e-4
    assert np.abs(chain.z - exact.z).max() < 1e-4
    assert np.abs(chain.probabilities - exact.probabilities).max() < 1e-4


@pytest.mark.parametrize("name", ["cz", "iswap"])
def test_stabilisers_agree_with_exact_channels(name: str) -> None:
    entangler = target_gate(name)
    if name == "cz":
        channels, schedule = noisy(5), layers(5, 3, 4, clifford=True)
    else:  # changes of frame do not commute with it: keep them out
        hold = 16.92
        channels = noisy(5, entangler=entangler, hold=hold, j_on_cm1=(0.1, 0.1))
        schedule = layers_without_frames(5, 3, entangler, hold)
    shots = 40_000
    program = build_program(schedule, channels)
    exact = run_circuit(channels, schedule, method="channels")
    twirled = simulate_channels.simulate(twirled_program(program), 1, 0)
    found = run_circuit(channels, schedule, method="stim", shots=shots)
    assert found.fidelity == pytest.approx(twirled.fidelity, abs=4.5 * found.fidelity_error)
    chi2 = np.sum((found.probabilities - twirled.probabilities) ** 2 / twirled.probabilities) * shots / 31
    assert 0.3 < chi2 < 2.2  # counting errors alone
    assert np.abs(twirled.probabilities - exact.probabilities).sum() / 2 < 0.05  # what the twirl leaves out
    assert twirled.fidelity == pytest.approx(exact.fidelity, rel=0.05)


def layers_without_frames(n: int, depth: int, entangler: np.ndarray, hold: float) -> Schedule:
    rng = np.random.default_rng(8)
    operations, time = [], 0.0
    for _ in range(depth):
        for site in range(n):
            angles = (np.pi / 2, np.pi / 2 * rng.integers(4))
            operations.append(Operation("rotation", (site,), angles, time, 10.0))
        for first, second in ((0, 1), (2, 3)):
            operations.append(Operation("coupler", (first, second), (), time + 10.0, hold))
        time += 10.0 + hold
    return Schedule(n, tuple(operations), tuple(range(n)), tuple(range(n)), entangler)


def test_fidelity_of_stabilisers_is_that_of_the_logical_qubits() -> None:
    """A qubit is moved to another site by a swap; what happens to the site that it left does not count."""
    channels = GateChannels(
        [RadicalNoise(t1_ns=300.0, t2_ns=200.0, polarisation=0.9)] * 3, {pair: CouplerNoise() for pair in pairs_of(3)},
        target_gate("iswap"), settings=NoiseSettings().only("initialisation", "relaxation"),
    )  # fmt: skip
    noise = np.diag([1.0] + [0.95] * 15)
    channels.set_gate(0, 1, CouplerGate(1.0, noise @ transfer.from_unitary(target_gate("iswap")), (0, 0, 0, 0), 1.0))
    operations = (
        Operation("rotation", (0,), (np.pi / 2, np.pi / 2), 0.0, 0.0), Operation("rotation", (2,), (np.pi, 0.0)),
        Operation("coupler", (0, 1), (), 0.0, 1.0), Operation("rotation", (0,), (np.pi / 2, 0.0), 50.0, 0.0),
    )  # fmt: skip
    schedule = Schedule(3, operations, (0,), (1,), target_gate("iswap"))
    exact = run_circuit(channels, schedule, method="channels")
    found = run_circuit(channels, schedule, method="stim", shots=40_000)
    assert found.fidelity == pytest.approx(exact.fidelity, abs=4 * found.fidelity_error)
    whole = run_circuit(channels, replace(schedule, initial_sites=(0, 1, 2), final_sites=(1, 0, 2)), method="channels")
    assert whole.fidelity < exact.fidelity - 0.05
    entangled = Schedule(2, bell_schedule(2).operations, (0,), (0,), CZ)
    with refused("must leave the sites that hold no qubit apart"):
        run_circuit(noisy(2, hold=1.0), entangled, method="stim")


def test_twirled_pauli_noise_is_exact_in_stim() -> None:
    """With Pauli channels the twirl changes nothing: the tables agree within counting errors alone."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet([40.0] + [1.0] * 15)
    noise = transfer.from_kraus(np.sqrt(p)[:, None, None] * transfer.pauli_basis(2))
    channels = GateChannels([RadicalNoise(polarisation=0.9)] * 4, {pair: CouplerNoise() for pair in pairs_of(4)}, CZ,
                            settings=NoiseSettings().only("initialisation"))  # fmt: skip
    for pair in pairs_of(4):
        channels.set_gate(*pair, CouplerGate(0.728, noise @ transfer.from_unitary(CZ), (0, 0, 0, 0), 1.0))
    schedule, shots = layers(4, 4, 7, clifford=True), 50_000
    exact = run_circuit(channels, schedule, method="channels")
    found = run_circuit(channels, schedule, method="stim", shots=shots)
    expected = exact.probabilities
    chi2 = np.sum((found.probabilities - expected) ** 2 * shots / np.maximum(expected, 1e-12)) / 15
    assert 0.2 < chi2 < 3
    assert found.fidelity == pytest.approx(exact.fidelity, abs=5 * found.fidelity_error)


def test_steps_that_are_not_clifford_are_named() -> None:
    with pytest.raises(NotCliffordError, match=r"must be Clifford for method 'stim', but step \d+ on sites"):
        run_circuit(noisy(4), layers(4, 2, 0), method="stim")
    program = build_program(layers(4, 3, 0, clifford=True), noisy(4))
    for step in clifford_steps(program.blocks.steps):
        assert np.array_equal(np.abs(step.transfer).sum(axis=0), np.ones(len(step.transfer)))
        assert step.probabilities.sum() == pytest.approx(1)


def test_compiled_clifford_circuits_are_recognised_whatever_frames_the_compiler_leaves() -> None:
    """Crosstalk between the couplers of one gate, and rotations that only cancel over several steps."""
    edges = square_edges(3, 3)
    for entangler, j in (("cz", 0.24), ("sqrt-iswap", 0.1)):
        couplers = Coupler(linewidth_cm1=60.0, j_on_cm1=j)
        network = MolecularNetwork.square(
            3, 3, 4.0, couplers=couplers, microwaves=Microwaves(addressing="local"), entangler=entangler
        )
        for seed in (22, 1) if entangler == "cz" else (0,):
            circuit = random_layers(9, edges, 10 if entangler == "cz" else 4, seed, clifford=True)
            program = program_of(network, circuit)
            twirled = simulate_channels.simulate(twirled_program(program), 1, 0)
            exact = simulate_channels.simulate(program, 1, 0)
            assert twirled.fidelity == pytest.approx(exact.fidelity, rel=0.1)
            limit = 0.05 if entangler == "cz" else 0.2  # coherent errors, which the twirl turns into random ones
            assert np.abs(twirled.z - exact.z).max() < limit
            assert twirled.ideal_probabilities == pytest.approx(exact.ideal_probabilities, abs=1e-6)


def test_stim_circuit_carries_the_probabilities() -> None:
    program = build_program(layers(3, 2, 0, clifford=True), noisy(3))
    circuits = simulate_stim.build_circuits(program)
    assert "X_ERROR(0.025" in str(circuits.noisy)
    assert str(circuits.noisy).count("PAULI_CHANNEL_2") == sum(len(s.sites) == 2 for s in program.blocks.steps)
    tableau = circuits.ideal.to_tableau(ignore_noise=True)
    state = tableau.to_state_vector(endian="big")
    assert np.abs(state) ** 2 == pytest.approx(np.abs(ideal_ket(program)) ** 2, abs=1e-6)  # last frames are left out


def test_levels_agree_with_evolve() -> None:
    """The generator on blocks is that of `evolve` on the whole space."""
    noise = CouplerNoise(j_on_cm1=(0.3, 0.3), j_off_cm1=2e-4, share_z=0.8, triplet_lifetime_ns=40.0)
    switch = LightSwitch(3.0, 2.0, 1.0, 0.5, 0.9)
    model = LevelModel(((90.0, 70.0, 0.0), (60.0, 100.0, 0.0)), (((0, 1), noise, switch),))
    ket = np.array([1, 0.5j, 0.2, -0.7]) / np.linalg.norm([1, 0.5, 0.2, 0.7])
    start = np.outer(ket, ket.conj())
    state = model.start(start)
    for part in (Segment(1.0, light=((0, "pump"),)), Segment(2.0, light=((0, "hold"),))):
        state = model.propagate(state, part)
    unit = TwoQubitUnit(0.3, j_rr_ground_cm1=2e-4, j_rr_s1_cm1=2e-4, j_rr_triplet_cm1=2e-4, d_t_cm1=0.07)
    channels = [
        OpticalPulse(0.0, 1.0, 3.0), Emission(0.1 / 0.5), IntersystemCrossing(0.9 / 0.5, (0.1, 0.1, 0.8)),
        TripletDecay((1 / 40, 1 / 40, 1 / 40)), RadicalRelaxation("radical_1", 90.0, 300.0, 70.0),
        RadicalRelaxation("radical_2", 60.0, 300.0, 100.0),
    ]  # fmt: skip
    isometry = unit.level_embedding("S0")
    whole = evolve(unit, isometry @ start @ isometry.conj().T, [0.0, 3.0], channels=channels, solver="expm")
    assert np.allclose(model.radicals(state), whole.reduced(("radical_1", "radical_2"))[-1], atol=1e-9)
    dark = whole.expectation(unit.level_projector("S0"))[-1]
    assert model.dark_probability(state)[0] == pytest.approx(dark, abs=1e-9)


def test_levels_drive_and_large_blocks() -> None:
    """A driven radical follows qutip; Taylor sums on the blocks of three radicals agree with matrices of two."""
    noise, switch = CouplerNoise(j_on_cm1=(0.02, 0.02), share_z=0.7), LightSwitch(3.0, 4.0, 0.5, 0.4, 0.9)
    ends = ((90.0, 70.0, 0.2),) * 3
    pair = LevelModel(ends[:2], (((0, 1), noise, switch),))
    chain = LevelModel(ends, (((0, 1), noise, switch), ((1, 2), noise, switch)))
    assert (pair.n_elements, chain.n_elements) == (176, 7744)
    up = np.diag([1.0, 0.0]).astype(complex)
    two, three = pair.start(np.kron(up, up)), chain.start(np.kron(np.kron(up, up), up))
    drive = ((0, 0.3, 0.4), (1, 0.1, 1.0))
    for light, length in (("pump", 0.5), ("hold", 1.5), ("quench", 0.5)):
        segment = Segment(length, drive, ((0, light),))
        two, three = pair.propagate(two, segment), chain.propagate(three, segment)
    reduced = chain.radicals(three).reshape((2,) * 6).trace(axis1=2, axis2=5).reshape(4, 4)
    assert np.allclose(reduced, pair.radicals(two), atol=1e-9)
    alone = LevelModel(ends[:1], ())
    state = alone.propagate(alone.start(up), Segment(7.0, ((0, 0.3, 0.4),)))
    x, y = qutip.sigmax() / 2, qutip.sigmay() / 2
    raising = qutip.basis(2, 0) * qutip.basis(2, 1).dag()
    jumps = [np.sqrt(0.6 / 90) * raising, np.sqrt(0.4 / 90) * raising.dag(),
             np.sqrt((1 / 70 - 1 / 180) / 2) * qutip.sigmaz()]  # fmt: skip
    drive_operator = 0.3 * (np.cos(0.4) * x + np.sin(0.4) * y)
    wanted = qutip.mesolve(
        drive_operator, qutip.basis(2, 0).proj(), [0, 7.0], jumps, options={"atol": 1e-12, "rtol": 1e-10}
    )
    assert np.allclose(alone.radicals(state), wanted.states[-1].full(), atol=1e-8)


@pytest.mark.parametrize("n", [2, 3])
def test_full_levels_agree_with_channels_of_the_same_light(n: int) -> None:
    network = MolecularNetwork.chain(n, couplers=Coupler(share_z=0.97, triplet_lifetime_ns=50.0))
    off = NoiseSettings().without(*simulate_levels.NOT_IN_LEVELS)
    channels = GateChannels.from_network(network, off)
    gates = simulate_levels.use_level_gates(channels, simulate_levels.switches(network))
    gate = gates[0, 1].gate
    transfer.check_channel(gate.transfer)
    assert gate.hold_ns == pytest.approx(network.coupler_ns(0))
    assert 0 < gate.leakage < 1e-4
    schedule = layers(n, 3, 0, hold=gate.hold_ns)
    levels = run_circuit(network, schedule, method="lindblad")
    exact = run_circuit(channels, schedule, method="channels")
    assert np.abs(levels.probabilities - exact.probabilities).max() < 1e-8
    assert abs(levels.fidelity - exact.fidelity) < 1e-8
    assert levels.details["trace"] == pytest.approx(1, abs=1e-9)
    switched = run_circuit(network, schedule, method="channels", noise=off)
    assert abs(switched.fidelity - levels.fidelity) < 0.02  # the formula for the switched gate knows no light


def test_radicals_that_are_read_do_not_relax_in_the_levels() -> None:
    network = MolecularNetwork.chain(2, readout={"fidelity_0": 1.0, "fidelity_1": 1.0})
    operations = (
        Operation("rotation", (0,), (np.pi / 2, 0.0), 0.0, 40.0), Operation("measure", (0,), (), 50.0, 500.0),
        Operation("rotation", (1,), (np.pi / 2, 1.0), 300.0, 40.0), Operation("measure", (1,), (), 350.0, 500.0),
    )  # fmt: skip
    schedule = Schedule(2, operations, (0, 1), (0, 1), CZ)
    only = NoiseSettings().only("relaxation", "hold")
    for read in (operations, operations[:3]):
        circuit = replace(schedule, operations=read)
        levels = run_circuit(network, circuit, method="lindblad", noise=only)
        exact = run_circuit(network, circuit, method="channels", noise=only)
        assert levels.fidelity == pytest.approx(exact.fidelity, abs=1e-8)
        assert levels.z == pytest.approx(exact.z, abs=1e-8)


@contextmanager
def refused(text: str) -> Iterator[None]:
    with pytest.raises(ValueError, match=text):
        yield


def test_bad_input_is_refused() -> None:
    channels, schedule = noisy(3), layers(3, 1, 0)
    with refused("must be one of"):
        run_circuit(channels, schedule, method="exact")  # type: ignore[arg-type]
    with refused("`shots` must be a whole number of at least 1"):
        run_circuit(channels, schedule, shots=0)
    with refused("`seed` must be a whole number"):
        run_circuit(channels, schedule, seed=-1)
    with refused("`max_bond` must be at least 1"):
        run_circuit(channels, schedule, method="mps", max_bond=0)
    with refused("`cutoff` must be from 0"):
        run_circuit(channels, schedule, method="mps", cutoff=2.0)
    with refused("must be a MolecularNetwork for method 'lindblad'"):
        run_circuit(channels, schedule, method="lindblad")
    with refused("`noise` must be None with gate channels"):
        run_circuit(channels, schedule, noise=NoiseSettings())
    with refused("as many sites as the network, 3, but has 4"):
        run_circuit(channels, layers(4, 1, 0), method="channels")
    with refused("must be a Schedule"):
        run_circuit(channels, "OPENQASM 2.0;")
    other = Schedule(3, schedule.operations, schedule.initial_sites, schedule.final_sites, target_gate("iswap"))
    with refused("made for the network's entangling gate"):
        run_circuit(channels, other)
    twice = tuple(Operation("rotation", (0,), (1.0, 0.0), start, 10.0) for start in (0.0, 5.0))
    with refused("where it is busy until 10 ns"):
        run_circuit(channels, Schedule(3, twice, (0,), (0,), CZ))


def test_too_many_radicals_are_refused_with_the_memory_and_the_rung_to_use() -> None:
    sites = tuple(range(16))
    schedule = Schedule(16, tuple(Operation("rotation", (s,), (1.0, 0.0), 0.0, 10.0) for s in sites), sites, sites, CZ)
    channels = GateChannels([RadicalNoise()] * 16, {}, CZ)
    with refused("needs about 96 GiB for 16 radicals, more than `memory_limit_gib` = 4; use 'trajectories' or 'mps'"):
        run_circuit(channels, schedule, method="channels")
    network = MolecularNetwork.chain(6)
    operations = tuple(Operation("coupler", (k, k + 1), (), 20.0 * k, network.coupler_ns(k)) for k in range(5))
    with refused("for 6 radicals and 5 couplers.*use 'channels' or 'trajectories'"):
        run_circuit(network, Schedule(6, operations, tuple(range(6)), tuple(range(6)), CZ), method="lindblad")


def test_simulators_of_one_site_and_routed_qubits() -> None:
    channels = noisy(4)
    operations = (Operation("rotation", (2,), (0.7, 0.0), 0.0, 10.0), Operation("coupler", (1, 2), (), 10.0, 0.728))
    schedule = Schedule(4, operations, (2,), (2,), CZ)
    exact = run_circuit(channels, schedule, method="channels")
    assert (exact.n_qubits, exact.n_sites) == (1, 2)
    for method in ("trajectories", "mps"):
        found = run_circuit(channels, schedule, method=method, shots=4000)  # type: ignore[arg-type]
        assert found.z == pytest.approx(exact.z, abs=5 * found.z_error.max() + 1e-9)
        assert found.fidelity == pytest.approx(exact.fidelity, abs=5 * found.fidelity_error + 1e-9)
    alone = Schedule(4, operations[:1], (2,), (2,), CZ)
    one = run_circuit(channels, alone, method="channels")
    kets = run_circuit(channels, alone, method="trajectories", shots=4000)
    assert kets.z == pytest.approx(one.z, abs=5 * kets.z_error.max())
    assert simulate_mps.chain_order(build_program(alone, channels)) == [0]
    assert simulate_channels.memory_gib(9) < 0.01


def test_numbers_of_numpy_are_numbers() -> None:
    flips = tuple(Operation("rotation", (s,), (np.pi / 2, 0.0), 0.0, 0.0) for s in (0, 1))
    schedule = Schedule(2, flips, (0, 1), (0, 1), CZ)
    found = run_circuit(noisy(2), schedule, method="channels", shots=np.int64(50), seed=np.uint8(3))  # type: ignore[arg-type]
    assert np.array_equal(found.samples, run_circuit(noisy(2), schedule, method="channels", shots=50, seed=3).samples)
    with refused("`shots` must be a whole number"):
        run_circuit(noisy(2), schedule, shots=True)
