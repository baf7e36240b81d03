import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import unitary_group

from molecular_qubits.control.fidelity import TARGETS, canonical_gate
from molecular_qubits.network.circuits import Circuit, Instruction
from molecular_qubits.network.decompose import pulse_angles, unroll
from molecular_qubits.network.gates import QELIB1, STANDARD, controlled
from molecular_qubits.network.routing import mirrored
from molecular_qubits.network.schedule import frame_change, rotation
from molecular_qubits.network.synthesis import SWAP, coupler_count, synthesise
from molecular_qubits.network.weyl import canonical

QUARTER = np.pi / 4
SEEDS = st.integers(0, 2**32 - 1)


def haar(size, seed):
    return np.asarray(unitary_group.rvs(size, random_state=np.random.default_rng(seed)))


def difference(first, second):
    phase = np.trace(second.conj().T @ first)
    return float(np.abs(first - second * phase / abs(phase)).max())


@given(SEEDS)
def test_canonical_form_is_the_gate_and_lies_in_the_chamber(seed):
    gate = haar(4, seed)
    form = canonical(gate)
    x, y, z = form.coordinates
    assert QUARTER + 1e-9 >= x >= y >= abs(z)
    assert np.abs(form.matrix() - gate).max() < 1e-12


@given(SEEDS)
def test_coordinates_do_not_change_under_local_gates(seed):
    rng = np.random.default_rng(seed)
    one, two, three, four = (haar(2, rng.integers(2**32)) for _ in range(4))
    gate = haar(4, seed)
    turned = np.kron(one, two) @ gate @ np.kron(three, four)
    assert canonical(turned).coordinates == pytest.approx(canonical(gate).coordinates, abs=1e-10)


@pytest.mark.parametrize(
    ("gate", "coordinates"),
    [
        (np.eye(4), (0, 0, 0)),
        (STANDARD["cx"][2](), (QUARTER, 0, 0)),
        (SWAP, (QUARTER, QUARTER, QUARTER)),
        (STANDARD["cx"][2]() @ SWAP, (QUARTER, QUARTER, 0)),
        (controlled(np.diag([1, np.exp(0.6j)])), (0.15, 0, 0)),
        (canonical_gate(0.3, 0.2, -0.1), (0.3, 0.2, -0.1)),
        (canonical_gate(QUARTER, 0.2, -0.1), (QUARTER, 0.2, 0.1)),
    ],
)
def test_known_gates_have_their_place_in_the_chamber(gate, coordinates):
    assert canonical(np.asarray(gate, dtype=complex)).coordinates == pytest.approx(coordinates, abs=1e-12)


@given(SEEDS)
def test_mirrored_coordinates_are_those_of_the_gate_times_swap(seed):
    gate = haar(4, seed)
    assert mirrored(canonical(gate).coordinates) == pytest.approx(canonical(gate @ SWAP).coordinates, abs=1e-9)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25)
@given(seed=SEEDS)
def test_any_gate_is_made_exactly(name, seed):
    gate = haar(4, seed)
    made = synthesise(gate, name)
    assert difference(made.matrix(TARGETS[name]), gate) < 1e-11
    assert made.n_gates == coupler_count(canonical(gate).coordinates, name)


NAMES = ("id", "cx", "swap", "cx-swap", "cp", "xx-yy", "xx-yy-zz", "quarter", "three")
COUNTS = {
    "cz": (0, 1, 3, 2, 2, 2, 3, 3, 3),
    "iswap": (0, 2, 3, 1, 2, 2, 3, 3, 3),
    "sqrt-iswap": (0, 2, 3, 2, 2, 2, 3, 3, 2),
    "sqrt-swap": (0, 2, 2, 4, 4, 4, 4, 1, 4),
}


@pytest.mark.parametrize("name", TARGETS)
def test_known_gates_need_as_many_uses_as_they_must(name):
    gates = {
        "id": np.kron(haar(2, 1), haar(2, 2)),
        "cx": STANDARD["cx"][2](),
        "swap": SWAP,
        "cx-swap": STANDARD["cx"][2]() @ SWAP,
        "cp": controlled(np.diag([1, np.exp(0.3j)])),
        "xx-yy": canonical_gate(0.3, 0.2, 0.0),
        "xx-yy-zz": canonical_gate(0.3, 0.25, 0.2),
        "quarter": TARGETS["sqrt-swap"],
        "three": canonical_gate(0.5, 0.2, 0.1),
    }
    found = {}
    for gate_name, gate in gates.items():
        made = synthesise(gate, name)
        assert difference(made.matrix(TARGETS[name]), gate) < 1e-11
        found[gate_name] = made.n_gates
    assert found == dict(zip(NAMES, COUNTS[name], strict=True))
    assert synthesise(np.kron(haar(2, 3), haar(2, 4)) @ TARGETS[name], name).n_gates == 1


@settings(max_examples=30)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1))
def test_four_root_swaps_reach_what_the_table_says(a, b, c):
    from molecular_qubits.network.interleave import interleave

    x, y, z = sorted([QUARTER * a, QUARTER * b, QUARTER * abs(c)], reverse=True)
    z = z if c >= 0 else -z
    inside = np.pi / 2 - x - y - abs(z)
    if abs(inside) < 0.05 or x < 0.02:
        return
    found = interleave(canonical_gate(x, y, z), TARGETS["sqrt-swap"], 4, rounds=8 if inside > 0 else 2)
    assert (found is not None) == (inside > 0)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("size", [1e-11, 1e-9, 1e-7, 1e-5, 1e-3])
def test_gates_near_special_ones_are_exact_too(name, size):
    rng = np.random.default_rng(3)
    for base in (np.eye(4), STANDARD["cx"][2](), SWAP, TARGETS["sqrt-swap"], TARGETS["iswap"]):
        x, y, z = np.sort(rng.random(3))[::-1] * size
        gate = np.kron(haar(2, 1), haar(2, 2)) @ canonical_gate(x, y, -z) @ base
        assert difference(synthesise(gate, name).matrix(TARGETS[name]), gate) < 2e-10


def test_a_matrix_that_is_not_unitary_and_an_unknown_entangler_are_refused():
    with pytest.raises(ValueError, match="`unitary` must be a unitary matrix"):
        synthesise(np.ones((4, 4)), "cz")
    with pytest.raises(ValueError, match="must be one of"):
        synthesise(np.eye(4), "cnot")


@given(SEEDS)
def test_one_pulse_and_a_frame_change_make_any_gate_on_one_qubit(seed):
    gate = haar(2, seed)
    theta, phi, lam = pulse_angles(gate)
    assert 0 <= theta <= np.pi
    assert difference(frame_change(lam) @ rotation(theta, phi), gate) < 1e-12


@pytest.mark.parametrize("off", [1e-14, 1e-11, 1e-9, 1e-6])
@pytest.mark.parametrize("middle", [0.0, np.pi / 2, np.pi])
def test_pulses_near_none_and_near_pi_are_exact(middle, off):
    for theta in (middle - off, middle + off):
        gate = frame_change(1.1) @ rotation(theta, 0.4) @ frame_change(-2.3) @ np.eye(2)
        gate = gate + 1e-17 * np.arange(4).reshape(2, 2)
        found, phi, lam = pulse_angles(gate)
        assert difference(frame_change(lam) @ rotation(found, phi), gate) < 5e-12


@pytest.mark.parametrize("name", ["id", "z", "s", "t", "x", "y", "h", "sx"])
def test_diagonal_gates_take_no_pulse(name):
    gate = STANDARD[name][2]()
    theta, phi, lam = pulse_angles(gate)
    assert difference(frame_change(lam) @ rotation(theta, phi), gate) < 1e-12
    assert (theta == 0) == (name in ("id", "z", "s", "t"))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(3, 4))
def test_gates_on_three_and_four_qubits_are_taken_apart_exactly(seed, n):
    gate = haar(2**n, seed)
    parts = tuple(unroll(Instruction("random", tuple(range(n)), gate)))
    assert all(len(part.qubits) <= 2 for part in parts)
    assert difference(Circuit(n, parts).unitary(), gate) < 1e-11


@pytest.mark.parametrize(("name", "most"), [("ccx", 6), ("cswap", 8), ("c3x", 20), ("c4x", 60), ("c3sqrtx", 20)])
def test_named_gates_on_many_qubits(name, most):
    _, n, make = QELIB1[name]
    parts = tuple(unroll(Instruction(name, tuple(range(n)), make())))
    assert sum(len(part.qubits) == 2 for part in parts) <= most
    assert difference(Circuit(n, parts).unitary(), make()) < 1e-11
