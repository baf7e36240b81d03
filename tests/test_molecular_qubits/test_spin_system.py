import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from molecular_qubits.spins import evolution as evolution_module
from molecular_qubits.spins import system as system_module
from molecular_qubits.spins.multiplets import radical_triplet_radical_multiplets
from molecular_qubits.spins.operators import embed, spin_matrices, triplet_kets
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import axial_coupling_tensor, d_and_e, point_dipole_tensor, zfs_tensor
from molecular_qubits.spins.unit import TwoQubitUnit
from molecular_qubits.units import CM1_TO_RAD_PER_NS, MU_B_RAD_PER_NS_PER_T


@pytest.mark.parametrize("spin", [0, 0.5, 1, 1.5, 2, 3.5])
def test_spin_matrices_obey_the_commutators_and_the_square(spin):
    x, y, z = spin_matrices(spin)
    np.testing.assert_allclose(x @ y - y @ x, 1j * z, atol=1e-14)
    np.testing.assert_allclose(y @ z - z @ y, 1j * x, atol=1e-14)
    np.testing.assert_allclose(x @ x + y @ y + z @ z, spin * (spin + 1) * np.eye(len(z)), atol=1e-13)


def test_embedding_is_the_kronecker_product():
    operator = spin_matrices(1)[0]
    expected = np.kron(np.kron(np.eye(2), operator), np.eye(4))
    np.testing.assert_array_equal(embed(operator, 1, (2, 3, 4)), expected)


def test_zero_field_kets_are_annihilated_by_their_spin_component_in_any_frame():
    frame = Rotation.from_euler("zyz", [0.3, 1.1, -0.7]).as_matrix()
    kets = triplet_kets(frame)
    np.testing.assert_allclose(kets @ kets.conj().T, np.eye(3), atol=1e-14)
    for axis, ket in zip(frame.T, kets, strict=True):
        np.testing.assert_allclose(np.einsum("a,aij,j->i", axis, spin_matrices(1), ket), 0, atol=1e-14)


def test_zeeman_splitting_of_a_free_spin():
    levels = np.linalg.eigvalsh(SpinSystem((0.5,), g=2.0043).hamiltonian_matrix(0.34))
    assert levels[1] - levels[0] == pytest.approx(2.0043 * MU_B_RAD_PER_NS_PER_T * 0.34, rel=1e-12)
    assert levels[1] - levels[0] == pytest.approx(2 * np.pi * 9.537, rel=1e-3)


def test_zeeman_of_a_g_tensor_takes_the_field_from_the_left():
    g = np.array([[2.0, 0.1, 0.0], [0.0, 2.1, 0.0], [0.0, 0.0, 2.2]])
    levels = np.linalg.eigvalsh(SpinSystem((0.5,), g=[g]).hamiltonian_matrix((0.3, 0.0, 0.0)))
    assert levels[1] - levels[0] == pytest.approx(MU_B_RAD_PER_NS_PER_T * 0.3 * np.hypot(2.0, 0.1), rel=1e-12)


def test_radical_triplet_exchange_puts_the_quartet_3j_below_the_doublet():
    levels = np.linalg.eigvalsh(SpinSystem((0.5, 1), exchange_cm1={(0, 1): 68.0}).hamiltonian_matrix())
    expected = CM1_TO_RAD_PER_NS * np.array([-68.0] * 4 + [136.0] * 2)
    np.testing.assert_allclose(levels, expected, rtol=1e-12)


@given(j_rt=st.floats(-200, 200), j_rr=st.floats(-20, 20))
@settings(max_examples=25, deadline=None)
def test_multiplet_energies_of_three_spins(j_rt, j_rr):
    matrix = SpinSystem((0.5, 1, 0.5), exchange_cm1={(0, 1): j_rt, (1, 2): j_rt, (0, 2): j_rr}).hamiltonian_matrix()
    closed_form = {
        "quintet": -2 * j_rt - j_rr / 2,
        "triplet_t": 2 * j_rt - j_rr / 2,
        "singlet": 4 * j_rt - j_rr / 2,
        "triplet_s": 1.5 * j_rr,
    }
    for name, multiplet in radical_triplet_radical_multiplets().items():
        assert multiplet.energy_cm1(j_rt, j_rr) == pytest.approx(closed_form[name], abs=1e-10)
        for ket in multiplet.kets:
            np.testing.assert_allclose(matrix @ ket, CM1_TO_RAD_PER_NS * closed_form[name] * ket, atol=1e-8)


@given(d=st.floats(-1, 1), ratio=st.floats(0, 1 / 3), angles=st.tuples(*[st.floats(-3, 3)] * 3))
@settings(max_examples=50, deadline=None)
def test_d_and_e_are_read_back_from_the_tensor(d, ratio, angles):
    frame = Rotation.from_euler("zyz", angles).as_matrix()
    tensor = zfs_tensor(d, ratio * d, frame)
    found_d, found_e, axes = d_and_e(tensor)
    if ratio < 1 / 3 - 1e-6:
        assert found_d == pytest.approx(d, abs=1e-12)
        assert found_e == pytest.approx(ratio * d, abs=1e-12)
    np.testing.assert_allclose(zfs_tensor(found_d, found_e, axes), tensor, atol=1e-12)


def test_two_electrons_at_ten_angstrom_have_the_point_dipole_splitting():
    pair = SpinSystem((0.5, 0.5), exchange_cm1={(0, 1): 50.0}, dipolar={(0, 1): point_dipole_tensor((0, 0, 10), 2, 2)})
    levels = np.linalg.eigvalsh(pair.hamiltonian_matrix()) / CM1_TO_RAD_PER_NS
    assert levels[0] - levels[1] == pytest.approx(-0.00259782, abs=1e-8) or levels[2] - levels[0] == pytest.approx(
        0.00259782, abs=1e-8
    )


def test_hamiltonian_is_a_hermitian_qobj_with_the_dimensions_of_the_sites():
    frame = Rotation.from_euler("zyz", [0.4, 0.2, 0.9]).as_matrix()
    system = SpinSystem(
        (0.5, 1), g=(2.0, (2.0, 2.01, 2.02)), exchange_cm1={(1, 0): 3}, zfs={1: zfs_tensor(0.06, 0.01, frame)}
    )
    hamiltonian = system.hamiltonian((0.1, 0.2, 0.3))
    assert hamiltonian.isherm
    assert hamiltonian.dims == [[2, 3], [2, 3]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spins": ()}, "at least one spin"),
        ({"spins": (0.4,)}, "must be 0, 1/2"),
        ({"spins": (0.5, 1), "exchange_cm1": {(0, 2): 1.0}}, "from 0 to 1"),
        ({"spins": (0.5, 1), "exchange_cm1": {(0, 1): 1.0, (1, 0): 2.0}}, "each pair once"),
        ({"spins": (0.5, 1), "exchange_cm1": {(0, 1): float("nan")}}, "finite"),
        ({"spins": (0.5, 1), "zfs": {0: np.zeros((3, 3))}}, "spins of 1 or more"),
        ({"spins": (0.5, 1), "zfs": {1: np.eye(3)}}, "traceless"),
        ({"spins": (0.5, 1), "zfs": {1: [[0, 1, 0], [0, 0, 0], [0, 0, 0]]}}, "symmetric"),
        ({"spins": (0.5, 1), "zfs": {1: np.zeros(3)}}, r"shape \(3, 3\)"),
        ({"spins": (0.5, 1), "dipolar": {(0, 1): np.full((3, 3), np.inf)}}, "finite"),
        ({"spins": (0.5, 1), "exchange_cm1": {0: 1.0}}, "`exchange_cm1` must have keys"),
        ({"spins": (0.5, 1), "exchange_cm1": {(0.0, 1.0): 1.0}}, "`exchange_cm1` must have keys"),
        ({"spins": (0.5, 1), "zfs": {1.0: np.zeros((3, 3))}}, "`zfs` must have keys"),
        ({"spins": (0.5, 1), "g": (2.0,)}, "one for each spin"),
        ({"spins": (0.5, 1), "names": ("a", "a")}, "different names"),
    ],
)
def test_wrong_systems_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpinSystem(**arguments)


def test_one_g_for_all_in_each_of_its_forms():
    for one in (2.1, np.float64(2.1), np.array(2.1)):
        np.testing.assert_array_equal(SpinSystem((0.5, 0.5), g=one).g, [2.1 * np.eye(3)] * 2)
    tensor = np.array([[2.0, 0.01, 0.0], [0.0, 2.01, 0.0], [0.0, 0.0, 2.02]])
    forms = [(2.1, 2.1 * np.eye(3)), (np.array(2.1), 2.1 * np.eye(3)), ((2, 2.01, 2.02), np.diag((2, 2.01, 2.02)))]
    for one, expected in [*forms, (tensor, tensor)]:
        for both in (one, [one, one]):
            g = TwoQubitUnit(1.0, g_radical=both).levels["T"].g
            np.testing.assert_array_equal((g[0], g[2]), (expected, expected))
    for wrong in ([2.0], [2.0] * 4):
        with pytest.raises(ValueError, match="`g_radical`"):
            TwoQubitUnit(1.0, g_radical=wrong)


def test_a_field_without_three_components_is_refused():
    with pytest.raises(ValueError, match="field_tesla"):
        SpinSystem((0.5,)).hamiltonian_matrix((0.1, 0.2))


def test_the_unit_is_dark_in_s0_and_coupled_in_t():
    unit = TwoQubitUnit(68.0, j_rr_ground_cm1=0.01, d_t_cm1=0.063, dipolar_rt=axial_coupling_tensor(0.0075))
    matrix = unit.hamiltonian_matrix(0.34)
    assert matrix.shape == (20, 20)
    for level, spins in (("S0", (0.5, 0.5)), ("T", (0.5, 1, 0.5))):
        isometry = unit.level_embedding(level)
        block = isometry.conj().T @ matrix @ isometry
        couplings = (
            {"exchange_cm1": {(0, 1): 0.01}}
            if level == "S0"
            else {
                "exchange_cm1": {(0, 1): 68.0, (1, 2): 68.0},
                "zfs": {1: zfs_tensor(0.063)},
                "dipolar": {(0, 1): axial_coupling_tensor(0.0075), (1, 2): axial_coupling_tensor(0.0075)},
            }
        )
        np.testing.assert_allclose(block, SpinSystem(spins, **couplings).hamiltonian_matrix(0.34), atol=1e-9)
    lit, dark = unit.level_projector("T"), unit.level_projector("S0")
    np.testing.assert_array_equal(lit @ matrix @ dark, 0)
    assert unit.hamiltonian(0.34).dims == [[2, 5, 2], [2, 5, 2]]


def test_thermal_state_of_the_unit_is_gibbs_in_one_level():
    unit = TwoQubitUnit(68.0)
    state = unit.thermal_state(30.0, 0.34, level="T")
    assert np.trace(state).real == pytest.approx(1, abs=1e-13)
    assert np.trace(unit.level_projector("T") @ state).real == pytest.approx(1, abs=1e-13)
    with pytest.raises(ValueError, match="temperature_k"):
        unit.thermal_state(0.0)


@pytest.mark.parametrize("module", [system_module, evolution_module])
def test_examples_in_the_docstrings_hold(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_large_systems_have_the_hamiltonian_of_their_terms():
    """Beyond the dimension up to which products of spins are kept, and below: the sum of Kronecker products."""
    for count in (4, 7):
        couplings = {(k, k + 1): 0.1 * (k + 1) for k in range(count - 1)}
        system = SpinSystem((0.5,) * count, exchange_cm1=couplings, dipolar={(0, 2): np.diag([1e-3, 2e-3, -3e-3])})
        half = spin_matrices(0.5)
        expected = sum(
            CM1_TO_RAD_PER_NS * weight * embed(half, i, system.dims)[axis] @ embed(half, j, system.dims)[axis]
            for (i, j), weights in [
                *((pair, [-2 * j] * 3) for pair, j in couplings.items()),
                ((0, 2), (1e-3, 2e-3, -3e-3)),
            ]
            for axis, weight in enumerate(weights)
        )
        np.testing.assert_allclose(system.hamiltonian_matrix(), expected, atol=1e-9)
