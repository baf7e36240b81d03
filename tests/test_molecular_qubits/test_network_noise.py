"""Channels of a network: laws, analytic cases, and what is refused."""

import numpy as np
import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits.control.fidelity import TARGETS, best_local_fidelity, target_gate
from molecular_qubits.control.switched_gate import GateConditions, dark_channels, gate_channels, lit_channels
from molecular_qubits.network import transfer
from molecular_qubits.network.coupler_gate import CouplerNoise, best_frames, calibrate, gate_at, relaxed
from molecular_qubits.network.lattice import MolecularNetwork
from molecular_qubits.network.molecules import Coupler
from molecular_qubits.network.noise import OF_THE_COUPLER, SOURCES, GateChannels, NoiseSettings, RadicalNoise
from molecular_qubits.network.program import build_program
from molecular_qubits.network.schedule import Operation, Schedule, frame_change, rotation


def random_unitary(rng: np.random.Generator, d: int) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(d, d)) + 1j * rng.normal(size=(d, d)))
    return q * (r.diagonal() / abs(r.diagonal()))


def random_channel(rng: np.random.Generator, d: int) -> np.ndarray:
    isometry = np.linalg.qr(rng.normal(size=(3 * d, d)) + 1j * rng.normal(size=(3 * d, d)))[0]
    return transfer.from_kraus(isometry.reshape(3, d, d))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]))
def test_transfer_matrices_compose_and_come_apart(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_unitary(rng, d), random_unitary(rng, d)
    assert np.allclose(transfer.from_unitary(a @ b), transfer.from_unitary(a) @ transfer.from_unitary(b), atol=1e-12)
    channel = random_channel(rng, d)
    kraus = transfer.to_kraus(channel)
    assert np.allclose(transfer.from_kraus(kraus), channel, atol=1e-10)
    assert np.allclose(np.einsum("kba,kbc->ac", kraus.conj(), kraus), np.eye(d), atol=1e-10)
    overlap = np.einsum("kab,lab->kl", kraus.conj(), kraus)
    assert np.allclose(overlap, np.diag(overlap.diagonal()), atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]))
def test_twirl_gives_the_probabilities_of_a_pauli_channel(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.dirichlet(np.ones(d * d))
    basis = transfer.pauli_basis(1 if d == 2 else 2)
    channel = transfer.from_kraus(np.sqrt(wanted)[:, None, None] * basis)
    assert np.allclose(transfer.twirled(channel), wanted, atol=1e-12)
    other = random_channel(rng, d)  # the twirl keeps the fidelity
    kept = np.zeros_like(other)
    np.fill_diagonal(kept, other.diagonal())
    pauli = transfer.from_kraus(np.sqrt(transfer.twirled(other))[:, None, None] * basis)
    assert np.allclose(pauli, kept, atol=1e-10)
    assert transfer.average_fidelity(pauli, np.eye(d * d)) == pytest.approx(
        transfer.average_fidelity(other, np.eye(d * d)), abs=1e-12
    )


def test_maps_that_are_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="completely positive"):
        transfer.check_channel(np.diag([1.0, 1.0, -1.0, 1.0]))
    with pytest.raises(ValueError, match="raise the trace"):
        transfer.check_channel(1.1 * np.eye(16))
    transfer.check_channel(0.9 * np.eye(16))


def test_relaxation_and_driven_rotation() -> None:
    found = transfer.relaxation(30.0, 100.0, 50.0, polarisation=0.2)
    assert found[3, 3] == pytest.approx(np.exp(-0.3))
    assert found[1, 1] == pytest.approx(np.exp(-0.6))
    assert (found @ [1, 0, 0, 0.2])[3] == pytest.approx(0.2)
    free = transfer.driven(1.1, 0.4, 10.0, 1e30, 1e30)
    assert np.allclose(free, transfer.from_unitary(rotation(1.1, 0.4)), atol=1e-12)
    assert np.allclose(transfer.frame(0.7), transfer.from_unitary(frame_change(0.7)), atol=1e-12)
    slow = transfer.driven(0.0, 0.0, 30.0, 100.0, 50.0, 0.2)
    assert np.allclose(slow, found, atol=1e-12)
    lossy = transfer.driven(np.pi / 2, 0.3, 20.0, 300.0, 80.0, 0.0, spread=0.1)
    transfer.check_channel(lossy)
    nodes = np.linspace(-6, 6, 2001)  # the spread as a mean over pulses
    weights = np.exp(-(nodes**2) / 2)
    mean = sum(
        w * transfer.from_unitary(rotation(1.1 * (1 + 0.1 * x), 0.4)) for x, w in zip(nodes, weights, strict=True)
    )
    assert np.allclose(transfer.driven(1.1, 0.4, 1.0, 1e30, 1e30, 0.0, 0.1), mean / weights.sum(), atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    j=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    off=st.floats(-0.01, 0.01),
    share=st.floats(0, 1),
    lifetime=st.one_of(st.none(), st.floats(0.5, 100)),
    made=st.floats(0, 1),
    spread=st.floats(0, 0.3),
    difference=st.floats(-300, 300),
    hold=st.floats(0.01, 20),
)
def test_coupler_channels_are_channels_and_turn_with_the_frames(
    j: tuple[float, float], off: float, share: float, lifetime: float | None, made: float, spread: float,
    difference: float, hold: float,
) -> None:  # fmt: skip
    coupler = CouplerNoise(
        j_on_cm1=j, j_off_cm1=off, share_z=share, triplet_lifetime_ns=lifetime, isc_yield=made, j_spread=spread,
        difference_mhz=difference,
    )  # fmt: skip
    (found,) = relaxed(coupler.raw_channels(np.array([hold])), np.array([hold]), ((100.0, 80.0), (50.0, 90.0)))
    transfer.check_channel(found)
    assert np.allclose(found[0], np.eye(16)[0], atol=1e-10)
    turn = transfer.on_both(transfer.frame(0.9), transfer.frame(0.9))
    assert np.allclose(turn @ found, found @ turn, atol=1e-9)


def test_gate_and_idle_slot_are_the_old_channel() -> None:
    conditions = GateConditions(t1_ns=1e15, t2_ns=1e15, triplet_lifetime_ns=30.0, share_z=0.8)
    holds = np.array([0.3, 2.0])
    coupler = CouplerNoise(j_on_cm1=(0.5, 0.5), j_off_cm1=1e-3, share_z=0.8, triplet_lifetime_ns=30.0)
    times = ((1e15, 1e15), (1e15, 1e15))
    both = relaxed(dark_channels(1e-3, holds) @ relaxed(coupler.raw_channels(holds), holds, times), holds, times)
    assert np.allclose(both, gate_channels(0.5, 1e-3, holds, conditions), atol=1e-12)


@pytest.mark.parametrize(("name", "j"), [("cz", 0.24), ("iswap", 0.003), ("sqrt-iswap", 0.01), ("sqrt-swap", 0.03)])
def test_changes_of_frame_are_all_the_local_correction_needed(name: str, j: float) -> None:
    coupler = CouplerNoise(j_on_cm1=(j, j), share_z=0.97)
    gate = calibrate(coupler, target_gate(name))
    (raw,) = relaxed(coupler.raw_channels(np.array([gate.hold_ns])), np.array([gate.hold_ns]), ((1e5, 2.1e3),) * 2)
    assert gate.fidelity == pytest.approx(best_local_fidelity(raw, TARGETS[name], restarts=10)[0], abs=1e-7)
    assert transfer.average_fidelity(gate.transfer, transfer.from_unitary(TARGETS[name])) == gate.fidelity
    _, process = best_frames(gate.transfer[None], transfer.from_unitary(TARGETS[name]))
    assert (4 * process[0] + 1) / 5 == pytest.approx(gate.fidelity, abs=1e-9)  # nothing left to gain


def test_hold_is_the_best_of_a_fine_scan() -> None:
    coupler = CouplerNoise(j_on_cm1=(0.01, 0.01), share_z=0.99)
    gate = calibrate(coupler, target_gate("iswap"))
    holds = np.linspace(0.1, 20, 801)
    raw = relaxed(coupler.raw_channels(holds), holds, ((1e5, 2.1e3),) * 2)
    process = best_frames(raw, transfer.from_unitary(TARGETS["iswap"]), starts=3)[1]
    assert gate.fidelity >= (4 * process.max() + 1) / 5 - 1e-9
    assert gate.fidelity > 0.95


@pytest.mark.parametrize("j", [0.2451, 0.05, 2.0])
def test_hold_is_made_for_the_spread_of_the_exchange(j: float) -> None:
    """The best hold for one J beats well after a long time, which no ensemble does."""
    spread = CouplerNoise(j_on_cm1=(j, j), share_z=1.0, jitter_ns=2e-4, j_spread=1e-3)
    found = calibrate(spread, target_gate("cz"))
    naive = calibrate(spread.model_copy(update={"j_spread": 0.0}), target_gate("cz"))
    assert found.fidelity >= gate_at(spread, target_gate("cz"), naive.hold_ns).fidelity - 1e-9
    assert found.hold_ns < naive.hold_ns


@pytest.mark.parametrize("hold", [0.7, 3.0, 12.0, 400.0])
def test_average_over_the_exchange_is_right_for_any_hold(hold: float) -> None:
    """Few nodes see fast oscillations as slow ones; here they are compared with so many that none is."""
    coupler = CouplerNoise(j_on_cm1=(2.0, 2.0), share_z=1.0, jitter_ns=0.0, j_spread=1e-3)
    (found,) = coupler.raw_channels(np.array([hold]))
    steps = np.linspace(-7, 7, 8001)
    weights = np.exp(-(steps**2) / 2)
    rigid = coupler.model_copy(update={"j_spread": 0.0})
    wanted = sum(
        weight * rigid.model_copy(update={"j_on_cm1": (j, j)}).raw_channels(np.array([hold]))[0]
        for weight, j in zip(weights / weights.sum(), 2.0 * (1 + 1e-3 * steps), strict=True)
    )
    assert np.abs(found - wanted).max() < (1e-7 if hold < 100 else 0.1)
    transfer.check_channel(found)


def test_more_of_any_fault_makes_the_gate_worse() -> None:
    start = CouplerNoise(j_on_cm1=(0.24, 0.24), share_z=1.0)
    best = calibrate(start, target_gate("cz")).fidelity
    for update in (
        {"share_z": 0.9}, {"jitter_ns": 1e-3}, {"triplet_lifetime_ns": 5.0}, {"isc_yield": 0.95}, {"j_spread": 0.01},
    ):  # fmt: skip
        worse = calibrate(start.model_copy(update=update), target_gate("cz")).fidelity
        assert 0.25 < worse < best - 1e-4, update


def test_dark_exchange_between_unequal_radicals_is_z_z() -> None:
    network = MolecularNetwork.chain(2, couplers=Coupler(j_off_cm1=1e-5), gradient_tesla_per_m=(1e6, 0.0))
    channels = GateChannels.from_network(network)
    found = channels.dark(0, 1, 13.0, 213.0)
    transfer.check_channel(found)
    secular = 4e-5 * np.pi * 29.9792458  # 2 J in rad/ns; exp(2 i J t S_z S_z)
    wanted = transfer.from_unitary(np.diag(np.exp(0.25j * secular * 200.0 * np.array([1, -1, -1, 1]))))
    assert np.allclose(found, wanted, atol=2e-2)
    assert np.allclose(
        found, channels.dark(1, 0, 13.0, 213.0).reshape(4, 4, 4, 4).transpose(1, 0, 3, 2).reshape(16, 16)
    )
    split = channels.dark(0, 1, 100.0, 213.0) @ channels.dark(0, 1, 13.0, 100.0)
    assert np.allclose(split, found, atol=1e-12)  # the frames follow the clock


@pytest.mark.parametrize("j_on", [(0.0, 0.0), (0.24, 0.1)])
def test_stray_light_leaves_each_radical_in_its_own_frame(j_on: tuple[float, float]) -> None:
    """Against Schrodinger's equation in the frames of the radicals, where the exchange with the triplet turns."""
    coupler = CouplerNoise(j_on_cm1=j_on, share_z=1.0, jitter_ns=0.0, difference_mhz=-168.0)
    channels = GateChannels([RadicalNoise()] * 2, {(0, 1): coupler}, target_gate("cz"))
    start, hold, steps = 3.7, 1.5, 3000
    found = channels.lit((0, 1), 1.0, hold, start)
    if j_on == (0.0, 0.0):
        assert np.allclose(found, np.eye(16), atol=1e-12)
    half, one = (qutip_spins(j) for j in (0.5, 1))
    triplet = [np.kron(np.eye(4), s) for s in one]
    flips, along = [], coupler.d_t_cm1 * (triplet[2] @ triplet[2])
    for site, j in enumerate(j_on):
        x, y, z = (np.kron(np.kron(s, np.eye(2)) if site == 0 else np.kron(np.eye(2), s), np.eye(3)) for s in half)
        flips.append(-j * (x + 1j * y) @ (triplet[0] - 1j * triplet[1]))
        along = along - 2 * j * z @ triplet[2]
    whole, dt = np.eye(12, dtype=complex), hold / steps
    for step in range(steps):
        phase = np.exp(-1j * np.pi * 0.168 * (start + (step + 0.5) * dt))
        turning = phase * flips[0] + np.conj(phase) * flips[1]
        levels, states = np.linalg.eigh(2 * np.pi * 29.9792458 * (along + turning + turning.conj().T))
        whole = (states * np.exp(-1j * levels * dt)) @ states.conj().T @ whole
    kraus = whole.reshape(4, 3, 4, 3)[:, :, :, 1].transpose(1, 0, 2)  # born in m = 0
    assert np.allclose(found, transfer.from_kraus(kraus), atol=2e-5)


def qutip_spins(spin: float) -> list[np.ndarray]:
    return [qutip.jmat(spin, axis).full() for axis in "xyz"]


def test_sources_switched_off_only_help_and_all_off_is_ideal() -> None:
    network = MolecularNetwork.square(2, 2, couplers=Coupler(share_z=0.95, triplet_lifetime_ns=100.0, j_off_cm1=1e-5))
    full = GateChannels.from_network(network)
    ideal = transfer.from_unitary(full.entangler)
    for source in OF_THE_COUPLER:
        better = GateChannels.from_network(network, NoiseSettings().without(source))
        assert better.gate(0, 1).fidelity > full.gate(0, 1).fidelity, source
    perfect = GateChannels.from_network(network, NoiseSettings().only())
    assert np.allclose(perfect.coupler(0, 1, 1.0), ideal, atol=1e-9)
    assert np.allclose(perfect.rotation(0, 1.0, 0.2, 10.0), transfer.from_unitary(rotation(1.0, 0.2)), atol=1e-12)
    assert np.allclose(perfect.idle(0, 100.0), np.eye(4), atol=1e-12)
    assert perfect.bystander_flips(0, 1.0, 10.0) is None
    assert perfect.lit_by_accident(0, 1) == {}
    assert perfect.dark_neighbours == {}
    assert np.all(perfect.initial[:, 3] == 1)
    assert np.array_equal(perfect.confusion, np.tile(np.eye(2), (4, 1, 1)))


def test_bystanders_are_turned_by_the_spectrum_of_the_pulse() -> None:
    """Against the Bloch equations of a Gaussian pulse, cut 2.5 standard deviations from its middle."""
    detunings = np.array([0.0, 0.004, 0.02, 0.03])
    radicals = [RadicalNoise(frequency_ghz=9.5 + d) for d in detunings]
    channels = GateChannels(radicals, {}, target_gate("cz"))
    theta, sigma, slices = 0.5, 8.0, 2000
    times = np.linspace(-20, 20, slices + 1)
    shape = np.exp(-((times[1:] + times[:-1]) ** 2) / (8 * sigma**2))
    shape *= theta / (shape.sum() * (times[1] - times[0]))
    wanted = []
    for detuning in 2 * np.pi * detunings:
        state = np.array([1.0, 0.0], dtype=complex)
        for rabi in shape:
            state = rotated(state, rabi, detuning, times[1] - times[0])
        wanted.append(abs(state[1]) ** 2)
    flips = channels.bystander_flips(0, theta, 40.0)
    assert flips is not None
    assert flips[0] == 0
    assert flips[1:] == pytest.approx(wanted[1:], abs=3e-3)
    assert wanted[0] == pytest.approx(np.sin(theta / 2) ** 2)
    same = GateChannels([RadicalNoise(frequency_ghz=9.5)] * 2, {}, target_gate("cz"))
    together = tuple(Operation("rotation", (s,), (1.0, 0.0), 0.0, 40.0) for s in (0, 1))
    program = build_program(Schedule(2, together, (0, 1), (0, 1), target_gate("cz")), same)
    assert all(np.allclose(step.channel, same.rotation(0, 1.0, 0.0, 40.0)) for step in program.fused.steps)
    program = build_program(Schedule(2, together[:1], (0, 1), (0, 1), target_gate("cz")), same)
    assert min(step.channel[3, 3] for step in program.fused.steps) == pytest.approx(
        np.cos(1.0) * np.exp(-40 / 1e5), abs=1e-3
    )


def rotated(state: np.ndarray, rabi: float, detuning: float, time: float) -> np.ndarray:
    effective = np.hypot(rabi, detuning)
    cos, sin = np.cos(effective * time / 2), np.sin(effective * time / 2)
    matrix = np.array([[detuning, rabi], [rabi, -detuning]]) / max(effective, 1e-300)
    return (cos * np.eye(2) - 1j * sin * matrix) @ state


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pairs of sites from 0 to 1, but has \(0, 2\)"):
        GateChannels([RadicalNoise()] * 2, {(0, 2): CouplerNoise()}, target_gate("cz"))
    with pytest.raises(ValueError, match="'hold' only with triplet birth"):
        GateChannels([RadicalNoise()], {}, target_gate("cz"), settings=NoiseSettings(off=("hold",)))
    with pytest.raises(ValueError, match="at most 2 T1"):
        RadicalNoise(t1_ns=1.0, t2_ns=3.0)
    with pytest.raises(ValueError, match="two probabilities"):
        RadicalNoise(readout=(1.2, 1.0))
    with pytest.raises(ValueError, match="off"):
        NoiseSettings.build({"off": ["jitters"]})
    with pytest.raises(ValueError, match="coupler between them"):
        GateChannels([RadicalNoise()] * 2, {}, target_gate("cz")).coupler(0, 1)
    with pytest.raises(ValueError, match="unitary"):
        calibrate(CouplerNoise(), np.ones((4, 4)))
    with pytest.raises(ValueError, match="three times the jitter"):
        calibrate(CouplerNoise(jitter_ns=10.0, max_hold_ns=20.0), target_gate("cz"))
    assert set(OF_THE_COUPLER) < set(SOURCES)


@pytest.mark.parametrize(("j_off", "difference"), [(0.0, 0.0), (0.0, -337.0), (0.02, 0.0), (0.03, 150.0)])
def test_radicals_go_on_through_the_dark_coupler_when_its_triplet_has_decayed(j_off, difference):
    """Beside a quadrature over the time of decay."""
    hold, lifetime = 1.7, 2.5
    conditions = GateConditions(jitter_ns=0.0, triplet_lifetime_ns=lifetime)
    j_on = (0.2, 0.15)
    (found,) = lit_channels(j_on, j_off, np.array([hold]), conditions, difference)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    times = hold * (nodes + 1) / 2
    living = conditions.model_copy(update={"triplet_lifetime_ns": None})
    lit = lit_channels(j_on, j_off, np.append(times, hold), living, difference)
    decayed = dark_channels(j_off, hold - times, difference) @ lit[:-1]
    expected = np.tensordot(hold / 2 * weights * np.exp(-times / lifetime) / lifetime, decayed, 1)
    expected += np.exp(-hold / lifetime) * lit[-1]
    assert np.allclose(found, expected, atol=1e-10)
    assert np.allclose(found[0], np.eye(16)[0], atol=1e-12)
