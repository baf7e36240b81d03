"""The exchange of radicals through dark couplers: every simulator beside Schrodinger's equation."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from molecular_qubits import Coupler, MolecularNetwork, NoiseSettings, compile_circuit, run_circuit
from molecular_qubits.control.fidelity import target_gate
from molecular_qubits.network import simulate_levels
from molecular_qubits.network.coupler_gate import CouplerNoise
from molecular_qubits.network.levels import LevelModel, LightSwitch, Segment
from molecular_qubits.network.noise import GateChannels, RadicalNoise
from molecular_qubits.network.program import build_program
from molecular_qubits.network.schedule import Operation, Schedule, rotation
from molecular_qubits.units import cm1_to_rad_per_ns

ONLY = NoiseSettings().only("dark exchange", "hold")
HALF = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]) / 2
HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\n'
FLIPS = HEAD + "x q[0]; barrier q; " + "x q[1]; barrier q; " * 4
APART: dict[str, Any] = {}
ALIKE: dict[str, Any] = {"gradient_tesla_per_m": (0.0, 0.0), "microwaves": {"addressing": "local"}}


def chain(n: int, j_off_cm1: float, **settings: Any) -> MolecularNetwork:
    exact = {"fidelity_0": 1.0, "fidelity_1": 1.0}
    return MolecularNetwork.chain(n, couplers=Coupler(j_off_cm1=j_off_cm1), readout=exact, **settings)


def integrated(network: MolecularNetwork, schedule: Schedule) -> np.ndarray:
    """Return <Z> of all sites from |0...0>: pulses and dark exchange in the frames of the radicals, no coupler lit."""
    n, angular = network.n_sites, 2 * np.pi * network.frequencies_ghz
    spins = np.array([
        [np.kron(np.kron(np.eye(2**site), s), np.eye(2 ** (n - 1 - site))) for s in HALF] for site in range(n)
    ])  # fmt: skip
    up = spins[:, 0] + 1j * spins[:, 1]
    pulses = [o for o in schedule.operations if o.name == "rotation"]

    def slope(time: float, ket: np.ndarray, on: list[Operation]) -> np.ndarray:
        hamiltonian = np.zeros((2**n, 2**n), dtype=complex)
        for bond in network.bonds:
            a, b = bond.sites
            flip = np.exp(1j * (angular[a] - angular[b]) * time) * up[a] @ up[b].conj().T / 2
            whole = spins[a, 2] @ spins[b, 2] + flip + flip.conj().T
            hamiltonian -= 2 * cm1_to_rad_per_ns(bond.j_off_cm1) * whole
        for pulse in on:
            theta, phi = pulse.angles
            x, y, _ = spins[pulse.sites[0]]
            hamiltonian += theta / pulse.duration_ns * (np.cos(phi) * x + np.sin(phi) * y)
        return np.asarray(-1j * hamiltonian @ ket)

    ket = np.eye(2**n, dtype=complex)[0]
    times = sorted({0.0, schedule.duration_ns, *(t for o in pulses for t in (o.start_ns, o.end_ns))})
    for start, stop in pairwise(times):
        on = [o for o in pulses if o.start_ns < (start + stop) / 2 < o.end_ns]
        ket = solve_ivp(slope, (start, stop), ket, args=(on,), rtol=1e-8, atol=1e-9).y[:, -1]
    return np.einsum("siab,a,b->si", spins, ket.conj(), ket).real[:, 2] * 2


@pytest.mark.parametrize(("method", "within"), [("lindblad", 3e-4), ("channels", 2.5e-3), ("mps", 2.5e-3)])
@pytest.mark.parametrize("settings", [APART, ALIKE], ids=["frequencies apart", "frequencies alike"])
def test_pulses_with_dark_exchange_agree_with_schrodinger(method: Any, within: float, settings: dict[str, Any]) -> None:
    """Four pulses by pi miss what they should turn: the exchange detunes the radical."""
    network = chain(2, 1.7e-4, **settings)
    schedule = compile_circuit(FLIPS, network)
    wanted = integrated(network, schedule)
    assert abs(wanted[0] + 1) > 0.3
    found = run_circuit(network, schedule, method=method, shots=1, noise=ONLY)
    assert found.z == pytest.approx(wanted, abs=within)


def test_two_neighbours_and_pulses_at_the_same_time() -> None:
    network = chain(3, 5e-5)
    pulses = (
        Operation("rotation", (0,), (np.pi / 2, 0.3), 0.0, 40.0), Operation("rotation", (1,), (np.pi, 1.0), 10.0, 50.0),
        Operation("rotation", (2,), (np.pi / 2, 2.0), 15.0, 30.0),
        Operation("rotation", (0,), (np.pi / 2, 1.0), 60.0, 40.0), Operation("rotation", (2,), (2.0, 0.0), 60.0, 25.0),
        Operation("rotation", (1,), (np.pi / 2, 0.0), 85.0, 40.0),
    )  # fmt: skip
    schedule = Schedule(3, pulses, (0, 1, 2), (0, 1, 2), network.entangler_matrix)
    wanted = integrated(network, schedule)
    alone = run_circuit(network, schedule, method="channels", shots=1, noise=NoiseSettings().only("hold"))
    assert np.abs(alone.z - wanted).max() > 0.1
    for method, within in (("lindblad", 5e-4), ("channels", 1e-2)):
        found = run_circuit(network, schedule, method=method, shots=1, noise=ONLY)  # type: ignore[arg-type]
        assert found.z == pytest.approx(wanted, abs=within), method


@pytest.mark.parametrize("settings", [APART, ALIKE], ids=["frequencies apart", "frequencies alike"])
def test_levels_wait_in_the_frames_of_the_radicals(settings: dict[str, Any]) -> None:
    """|10> and a wait: nothing happens but what sin^2 allows between unequal radicals, all where they are equal."""
    network, wait = chain(2, 1.7e-4, **settings), 98.0
    turns = (Operation("rotation", (0,), (np.pi, 0.0), 0.0, 0.0), Operation("rotation", (1,), (0.0, 0.0), wait, 0.0))
    flipped = Schedule(2, turns, (0, 1), (0, 1), network.entangler_matrix)
    channels = run_circuit(network, flipped, method="channels", shots=1, noise=ONLY)
    apart = 2 * np.pi * float(network.frequencies_ghz[0] - network.frequencies_ghz[1])
    coupling = 2 * cm1_to_rad_per_ns(1.7e-4)
    rate = np.hypot(apart, coupling)
    moved = (coupling / rate * np.sin(rate * wait / 2)) ** 2
    assert channels.z == pytest.approx([2 * moved - 1, 1 - 2 * moved], abs=1e-9)
    quick = 1e-4  # the master equation takes pulses of some length
    turns = (Operation("rotation", (0,), (np.pi, 0.0), 0.0, quick), Operation("measure", (1,), (), wait, 0.0))
    schedule = Schedule(2, turns, (0, 1), (0, 1), network.entangler_matrix)
    levels = run_circuit(network, schedule, method="lindblad", shots=1, noise=ONLY)
    assert levels.z == pytest.approx(channels.z, abs=1e-4)


def test_exchange_ends_with_the_readout_of_both() -> None:
    network = chain(2, 1.7e-4, **ALIKE)
    pulse = Operation("rotation", (0,), (np.pi, 0.0), 0.0, 20.0)
    reads = tuple(Operation("measure", (site,), (), 30.0, 500.0) for site in (0, 1))
    schedule = Schedule(2, (pulse, *reads), (0, 1), (0, 1), network.entangler_matrix)
    channels = run_circuit(network, schedule, method="channels", shots=1, noise=ONLY)
    levels = run_circuit(network, schedule, method="lindblad", shots=1, noise=ONLY)
    assert levels.z == pytest.approx(channels.z, abs=2.5e-3)


def test_levels_agree_with_channels_of_the_same_light_with_dark_exchange() -> None:
    """Three radicals, of which one coupler is never lit."""
    network = MolecularNetwork.chain(3, couplers=Coupler(j_off_cm1=5e-5, share_z=0.97))
    off = NoiseSettings().without(*simulate_levels.NOT_IN_LEVELS)
    channels = GateChannels.from_network(network, off)
    gates = simulate_levels.use_level_gates(channels, {(0, 1): simulate_levels.switches(network)[0, 1]})
    hold = gates[0, 1].gate.hold_ns
    turns = [Operation("rotation", (site,), (np.pi / 2, 0.4 * site), 0.0, 40.0) for site in range(3)]
    later = [Operation("rotation", (site,), (np.pi / 2, 1.0), 60.0 + hold, 40.0) for site in range(3)]
    gate = Operation("coupler", (0, 1), (), 50.0, hold)
    schedule = Schedule(3, (*turns, gate, *later), (0, 1, 2), (0, 1, 2), network.entangler_matrix)
    levels = run_circuit(network, schedule, method="lindblad", shots=1)
    exact = run_circuit(channels, schedule, method="channels", shots=1)
    assert np.abs(levels.probabilities - exact.probabilities).max() < 2e-3
    without = run_circuit(network, schedule, method="lindblad", shots=1, noise=NoiseSettings().without("dark exchange"))
    assert np.abs(levels.probabilities - without.probabilities).max() > 0.02


def test_pairs_are_turned_in_all_blocks() -> None:
    """Radicals 2 and 0 of three, with a coupler that is in all its levels, against the product of the parts."""
    rng = np.random.default_rng(0)
    unitary = np.linalg.qr(rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4)))[0]
    switch = LightSwitch(1.0, 2.0, 1.0, 0.5)
    model = LevelModel(((1e9, 1e9, 0.0),) * 3, (((0, 1), CouplerNoise(j_on_cm1=(0.01, 0.02)), switch),))
    kets = rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2))
    states = [np.outer(ket, ket.conj()) / np.vdot(ket, ket) for ket in kets]
    lit = model.propagate(model.start(np.kron(np.kron(*states[:2]), states[2])), Segment(1.0, light=((0, "pump"),)))
    found = model.turn_pair(np.array([lit, 2 * lit]), (2, 0), unitary)
    both = model.radicals(lit).reshape((2,) * 6).transpose(2, 0, 1, 5, 3, 4).reshape(8, 8)
    whole = np.kron(unitary, np.eye(2))
    wanted = (whole @ both @ whole.conj().T).reshape((2,) * 6).transpose(1, 2, 0, 4, 5, 3).reshape(8, 8)
    assert np.allclose(model.radicals(found[0]), wanted, atol=1e-12)
    assert np.allclose(found[1], 2 * found[0])
    assert np.allclose(model.dark_probability(found[0]), model.dark_probability(lit), atol=1e-12)


def test_parts_of_a_pulse_have_the_spread_of_the_pulse() -> None:
    """Without a Z of the neighbour to see, the parts make up the pulse, with all its noise."""
    noise = {(0, 1): CouplerNoise(j_off_cm1=1e-12, difference_mhz=500.0)}
    radicals = [RadicalNoise(frequency_ghz=9.5), RadicalNoise(frequency_ghz=9.0)]
    channels = GateChannels(radicals, noise, target_gate("cz"))
    parts = np.linalg.matrix_power(channels.rotation(0, np.pi / 7, 0.4, 40.0 / 7, 7), 7)
    assert np.allclose(parts, channels.rotation(0, np.pi, 0.4, 40.0), atol=1e-6)
    pulse = Operation("rotation", (0,), (np.pi, 0.4), 0.0, 40.0)
    program = build_program(Schedule(2, (pulse,), (0, 1), (0, 1), target_gate("cz")), channels)
    (ideal,) = {step.ideal.shape for step in program.steps if len(step.sites) == 1}
    whole = np.eye(2)
    for step in program.steps:
        whole = step.ideal @ whole if step.sites == (0,) else whole
    assert ideal == (2, 2)
    assert np.allclose(whole, rotation(np.pi, 0.4), atol=1e-12)


def test_stabilisers_see_the_exchange_between_pulses() -> None:
    """Pulses by pi/2, a wait, and back: Z Z flips both bits, where it did nothing if it came before the pulses."""
    network = chain(2, 2e-5)
    half = (np.pi / 2, np.pi / 2)
    back = (-np.pi / 2, np.pi / 2)
    pulses = [Operation("rotation", (site,), half, 0.0, 0.0) for site in (0, 1)]
    pulses += [Operation("rotation", (site,), back, 50.0, 0.0) for site in (0, 1)]
    schedule = Schedule(2, tuple(pulses), (0, 1), (0, 1), network.entangler_matrix)
    exact = run_circuit(network, schedule, method="channels", shots=1, noise=ONLY)
    found = run_circuit(network, schedule, method="stim", shots=100_000, noise=ONLY)
    angle = cm1_to_rad_per_ns(2e-5) * 50.0
    assert 1 - exact.fidelity == pytest.approx(np.sin(angle / 2) ** 2, rel=2e-2)
    assert found.fidelity == pytest.approx(exact.fidelity, abs=5 * found.fidelity_error)
