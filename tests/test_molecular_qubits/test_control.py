"""Gate fidelities and bounds against closed forms; the switched gate against the Lindblad equation; the commands."""

import json

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits import SpinSystem, TwoQubitUnit, cli, evolve
from molecular_qubits.control.fidelity import (
    PAULI_PRODUCTS,
    TARGETS,
    average_gate_fidelity,
    best_local_fidelity,
    canonical_gate,
    decay_bound,
    local_only_fidelity,
    target_gate,
    transfer_matrix,
)
from molecular_qubits.control.local_rotations import LocalRotations, proper_rotations
from molecular_qubits.control.switched_gate import GateConditions, best_fidelities, gate_channels
from molecular_qubits.experiments import gate as gate_experiment
from molecular_qubits.spins.channels.relaxation import RadicalRelaxation
from molecular_qubits.spins.channels.transfer import TripletDecay
from molecular_qubits.spins.tensors import zfs_tensor

IDENTITY = np.eye(4)


def random_unitary(seed, dimension=4):
    """Return a Haar-random unitary."""
    rng = np.random.default_rng(seed)
    q, r = np.linalg.qr(rng.normal(size=(dimension, dimension)) + 1j * rng.normal(size=(dimension, dimension)))
    return q * (np.diag(r) / np.abs(np.diag(r)))


def random_local(seed):
    """Return a product of two random rotations."""
    return np.kron(random_unitary((seed, 1), 2), random_unitary((seed, 2), 2))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_fidelity_of_two_unitaries(seed):
    """F = (|Tr U^+ V|^2 + d) / (d (d + 1)), d = 4 (Pedersen 2007)."""
    first, second = random_unitary((seed, 0)), random_unitary((seed, 1))
    expected = (abs(np.trace(first.conj().T @ second)) ** 2 + 4) / 20
    found = average_gate_fidelity(transfer_matrix(first), transfer_matrix(second))
    assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_transfer_matrices_multiply_as_their_gates(seed):
    first, second = random_unitary((seed, 0)), random_unitary((seed, 1))
    product = transfer_matrix(first) @ transfer_matrix(second)
    assert product == pytest.approx(transfer_matrix(first @ second), abs=1e-12)
    assert transfer_matrix(first) @ transfer_matrix(first).T == pytest.approx(np.eye(16), abs=1e-12)


def test_depolarising_channel_and_leakage():
    shrunk = np.diag([1.0, *[0.9] * 15])
    with pytest.raises(ValueError, match=r"`channel` must be a Pauli transfer matrix .* \(4, 4\): `transfer_matrix`"):
        average_gate_fidelity(np.eye(4), transfer_matrix(IDENTITY))
    assert average_gate_fidelity(shrunk, transfer_matrix(IDENTITY)) == pytest.approx(1 - 0.1 * 3 / 4, abs=1e-12)
    # one qubit state of four is lost: F = (|Tr M|^2 + Tr M^+ M) / 20 of the operator M that remains (Pedersen 2007)
    kept = np.diag([1.0, 1.0, 1.0, 0.0])
    assert average_gate_fidelity(transfer_matrix(kept), transfer_matrix(IDENTITY)) == pytest.approx((9 + 3) / 20)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(TARGETS)))
def test_local_rotations_are_undone(seed, name):
    target = target_gate(name)
    channel = transfer_matrix(random_local((seed, 5)) @ target @ random_local((seed, 6)))
    fidelity, reached = best_local_fidelity(channel, target)
    assert fidelity == pytest.approx(1, abs=1e-9)
    assert reached == pytest.approx(channel, abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(TARGETS)))
def test_no_sweep_over_the_local_rotations_loses_overlap(seed, name):
    rng = np.random.default_rng(seed)
    channels, gate = rng.normal(size=(3, 16, 16)), transfer_matrix(target_gate(name))
    start = proper_rotations(rng.normal(size=(3, 4, 3, 3)))
    np.testing.assert_allclose(start @ start.swapaxes(-1, -2), np.broadcast_to(np.eye(3), start.shape), atol=1e-12)
    assert np.linalg.det(start) == pytest.approx(1)
    rotations, overlaps = LocalRotations(channels, gate, start), []
    for _ in range(6):
        rotated = rotations.rotated_gates()
        assert rotated @ rotated.swapaxes(1, 2) == pytest.approx(np.broadcast_to(np.eye(16), rotated.shape), abs=1e-12)
        overlaps.append((rotated * channels).sum(axis=(1, 2)))
        rotations.improve(1)
    assert np.diff(overlaps, axis=0).min() > -1e-10
    together = LocalRotations(channels, gate, start)
    together.improve(5)
    assert (together.rotated_gates() * channels).sum(axis=(1, 2)) == pytest.approx(overlaps[-1], abs=1e-10)


@pytest.mark.parametrize(("name", "expected"), [("cz", 0.6), ("iswap", 0.4), ("sqrt-iswap", None), ("sqrt-swap", None)])
def test_local_rotations_alone(name, expected):
    """CZ has the Schmidt coefficients 1/sqrt 2 twice, iSWAP 1/2 four times; the search from random starts agrees."""
    floor = local_only_fidelity(target_gate(name))
    if expected is not None:
        assert floor == pytest.approx(expected, abs=1e-12)
    found, _ = best_local_fidelity(transfer_matrix(IDENTITY), target_gate(name), restarts=12)
    assert found <= floor + 1e-9
    assert found == pytest.approx(floor, abs=1e-6)


def test_canonical_gates():
    assert canonical_gate(np.pi / 4, np.pi / 4, np.pi / 4) == pytest.approx(
        np.exp(1j * np.pi / 4) * np.eye(4)[[0, 2, 1, 3]], abs=1e-12
    )
    assert target_gate("sqrt-iswap") @ target_gate("sqrt-iswap") == pytest.approx(target_gate("iswap"), abs=1e-12)


def tomography(evolved):
    """Return the Pauli transfer matrix of a map on states (4, 4), from its action on 16 product states."""
    singles = [np.outer(k, np.conj(k)) for k in ([1, 0], [0, 1], [2**-0.5, 2**-0.5], [2**-0.5, 2**-0.5 * 1j])]
    states = [np.kron(a, b) for a in singles for b in singles]
    before = np.einsum("aij,nji->an", PAULI_PRODUCTS, states).real
    after = np.einsum("aij,nji->an", PAULI_PRODUCTS, [evolved(state) for state in states]).real
    return after @ np.linalg.inv(before)


def lindblad_channel(j_on, d_t, hold_ns, channels, share_z=0.9):
    """Return the channel on two radicals of a triplet that is present for a time, by the Lindblad equation."""
    system = SpinSystem(
        (0.5, 1, 0.5), exchange_cm1={(0, 1): j_on, (1, 2): j_on}, zfs={1: zfs_tensor(d_t)},
        names=("radical_1", "coupler", "radical_2"),
    )  # fmt: skip
    side = (1 - share_z) / 2

    def evolved(state):
        four = state.reshape(2, 2, 2, 2)
        whole = np.einsum("abcd,mn->ambcnd", four, np.diag([side, share_z, side])).reshape(12, 12)
        found = evolve(system, whole, [0, hold_ns], channels=channels, solver="expm")
        return found.reduced(("radical_1", "radical_2"))[-1]

    return tomography(evolved)


def test_switched_gate_is_that_of_the_lindblad_equation():
    """Exactly without relaxation; with it to first order in hold / T2, since the model lets radicals decay alone."""
    hold, j_on = 0.37, 0.8
    calm = GateConditions(jitter_ns=0.0, t1_ns=1e12, t2_ns=1e12, d_t_cm1=0.07)
    (model,) = gate_channels(j_on, 0.0, np.array([hold]), calm)
    assert lindblad_channel(j_on, 0.07, hold, ()) == pytest.approx(model, abs=1e-8)
    decays = [RadicalRelaxation(name, 3e3, 300.0, 2e3) for name in ("radical_1", "radical_2")]
    real = GateConditions(jitter_ns=0.0, t1_ns=3e3, t2_ns=2e3, d_t_cm1=0.07)
    (model,) = gate_channels(j_on, 0.0, np.array([hold]), real)
    assert lindblad_channel(j_on, 0.07, hold, decays) == pytest.approx(model, abs=4 * hold / 2e3)


def test_triplets_that_decay_on_their_own():
    """The whole unit with a decaying triplet, what is left of it taken away at the end, by the Lindblad equation."""
    hold, j_on, lifetime = 0.6, 0.5, 0.9
    unit = TwoQubitUnit(j_on, d_t_cm1=0.07)
    conditions = GateConditions(jitter_ns=0.0, t1_ns=1e12, t2_ns=1e12, d_t_cm1=0.07, triplet_lifetime_ns=lifetime)
    (model,) = gate_channels(j_on, 0.0, np.array([hold]), conditions)
    start = np.diag([0, 0, 0.05, 0.9, 0.05])

    def evolved(state):
        whole = np.einsum("abcd,mn->ambcnd", state.reshape(2, 2, 2, 2), start).reshape(20, 20)
        found = evolve(unit, whole, [0, hold], channels=[TripletDecay((1 / lifetime,) * 3)], solver="expm")
        return found.reduced(("radical_1", "radical_2"))[-1]

    assert tomography(evolved) == pytest.approx(model, abs=1e-8)


def test_decay_bound_is_what_idle_radicals_have():
    t1, t2, hold = 50.0, 30.0, 12.0
    decays = [RadicalRelaxation(name, t1, 1e5, t2) for name in ("radical_1", "radical_2")]
    channel = lindblad_channel(0.0, 0.0, hold, decays)
    assert average_gate_fidelity(channel, transfer_matrix(IDENTITY)) == pytest.approx(
        decay_bound(hold, t1, t2), abs=1e-8
    )


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_control_beats_the_decay_bound(seed):
    """Random pulses on both radicals with random exchange between them, then the best local rotations."""
    rng = np.random.default_rng(seed)
    t1, t2, hold = 40.0, 25.0, 6.0
    decays = [RadicalRelaxation(name, t1, 1e6, t2) for name in ("radical_1", "radical_2")]
    steps = [
        SpinSystem(
            (0.5, 0.5), g=[tuple(rng.normal(2, 1, 3)), tuple(rng.normal(2, 1, 3))],
            exchange_cm1={(0, 1): rng.normal(0, 0.05)}, names=("radical_1", "radical_2"),
        )
        for _ in range(3)
    ]  # fmt: skip
    fields = rng.normal(0, 0.02, (3, 3))

    def evolved(state):
        for system, field in zip(steps, fields, strict=True):
            state = evolve(system, state, [0, hold / 3], channels=decays, solver="expm", field_tesla=field).states[-1]
        return state

    fidelity, _ = best_local_fidelity(tomography(evolved), target_gate("sqrt-swap"), restarts=3)
    assert fidelity <= decay_bound(hold, t1, t2) + 1e-6


def test_bad_times_of_the_bound():
    for arguments, name in (((1, 0, 1), "t1_ns"), ((1, 1, -1), "t2_ns"), ((-1, 1, 1), "duration_ns")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            decay_bound(*arguments)
    with pytest.raises(ValueError, match="at most 2 T1"):
        decay_bound(1, 1, 3)
    with pytest.raises(ValueError, match="`target`"):
        target_gate("cnott")


# --- the commands -------------------------------------------------------------------------------------------------


SMALL_MAP = [
    word for key in ("map_j_cm1=[1, 100]", "map_t2_ns=[1, 1e3]", "map_lifetime_ns=[1, 1e3]") for word in ("--set", key)
]


def test_gate_of_a_committed_exchange_result(tmp_path, capsys):
    """J and its error come from the file: the fidelity's interval is that of J one error up and down."""
    settings = ["--set", f"exchange={gate_experiment.MONO_EXCHANGE}", "--set", "conditions.jitter_ns=1e-6", *SMALL_MAP]
    assert cli.main(["gate", *settings, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "gate.json").read_text(encoding="utf-8"))
    assert record["j_on_cm1"] == pytest.approx(95.276, abs=1e-3)
    assert record["j_on_error_cm1"] > 1
    assert record["local_rotations_alone"] < record["fidelity"] < record["decay_bound"] <= 1
    assert f"{record['fidelity']:.4f}" in printed
    assert record["projection"] == pytest.approx([95.276, 96.6, 64.4], abs=0.1)
    assert (tmp_path / "gate.png").stat().st_size > 5000
    with xarray.open_dataset(tmp_path / "gate.nc", engine="h5netcdf") as saved:
        assert set(saved.dims) == {"j_on_cm1", "t2_ns", "triplet_lifetime_ns", "hold_ns"}
        for name in ("fidelity_t2", "fidelity_lifetime"):  # a longer T2 or lifetime never makes the gate worse
            assert np.all(np.diff(saved[name].values, axis=0) > -1e-3)
            assert float(saved[name].max()) <= 1
        here = float(saved.fidelity_t2.sel(j_on_cm1=record["j_on_cm1"], t2_ns=2100.0))  # the map holds the molecule
        assert here == pytest.approx(record["fidelity"], abs=2 * record["fidelity_error"] + 1e-3)
        assert float(saved.fidelity.sel(hold_ns=record["hold_ns"])) == pytest.approx(here, abs=1e-3)


def test_local_rotations_of_many_channels_at_once_are_those_of_each():
    holds, target = np.linspace(2.5, 2.6, 9), target_gate("sqrt-swap")
    channels = gate_channels(0.25, 0.0, holds, GateConditions())
    each = [best_local_fidelity(channel, target, restarts=8)[0] for channel in channels]
    assert best_fidelities(channels, target) == pytest.approx(each, abs=1e-4)


@pytest.mark.slow
def test_gate_from_smiles_in_one_command(tmp_path, capsys):
    """Structure, quartet geometry, both determinants, J and the gate of a small aminoxyl with an alkene."""
    options = [
        "--centres",
        "0,1",
        "3,4",
        "--spins",
        "0.5",
        "1",
        "--basis",
        "sto-3g",
        "--grid-level",
        "1",
        "--no-stability",
    ]
    settings = ["--set", "molecule='[O]NCC=C'", "--set", f"exchange_options={json.dumps(options)}", *SMALL_MAP]
    assert cli.main(["gate", *settings, "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 0
    record = json.loads((tmp_path / "gate.json").read_text(encoding="utf-8"))
    exchange = json.loads((tmp_path / "exchange.json").read_text(encoding="utf-8"))
    assert record["j_on_cm1"] == exchange["j_yamaguchi_cm1"][0][1]
    assert record["j_on_error_cm1"] == pytest.approx(exchange["error_bars"][0]["error_cm1"])
    assert "J_on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("exchange=absent.json", "absent.json"),
        ("j_on_cm1=1", "but exchange and j_on_cm1 were given"),
        ("conditions.target=cnott", "target"),
        ("conditions.t2_ns=-1", "t2_ns"),
        ("condition.t2_ns=1", "conditions"),
    ],
)
def test_bad_gate_input(override, word, capsys, tmp_path):
    settings = ["--set", f"exchange={gate_experiment.MONO_EXCHANGE}", "--set", override]
    assert cli.main(["gate", *settings, "--out", str(tmp_path / "out")]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_evolve_command(tmp_path, capsys):
    arguments = [
        "evolve",
        "--out",
        str(tmp_path),
        "--set",
        "times_ns=[0, 5, 50, 500]",
        "--set",
        "unit.temperature_k=20",
    ]
    assert cli.main(arguments) == 0
    assert "concurrence" in capsys.readouterr().out
    with xarray.open_dataset(tmp_path / "observables.nc", engine="h5netcdf") as saved:
        total = saved.level.sum("electronic_level")
        assert total.values == pytest.approx(np.ones(4), abs=1e-9)
        assert float(saved.level.sel(electronic_level="T")[1]) > 0.5
        assert saved.concurrence.values[0] == pytest.approx(0, abs=1e-12)
    assert cli.main(["evolve", "--set", "times_ns=[0, 5, 5]"]) == 2
    assert "times" in capsys.readouterr().err
