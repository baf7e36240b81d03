import json
from importlib.resources import files

import numpy as np
import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits.spins.multiplets import DIMS, radical_triplet_radical_multiplets
from molecular_qubits.spins.observables import (
    concurrence,
    correlator_witness,
    fidelity,
    log_negativity,
    purity,
    reduced_state,
    spin_correlators,
)
from molecular_qubits.spins.operators import spin_matrices
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import axial_coupling_tensor, d_and_e, zfs_tensor
from molecular_qubits.spins.zfs import multiplet_zfs_tensor, zfs_quartet, zfs_quintet, zfs_triplet
from molecular_qubits.units import CM1_TO_RAD_PER_NS

LAWS = json.loads(files("molecular_qubits").joinpath("reference/spin_laws.json").read_text(encoding="utf-8"))
MULTIPLETS = radical_triplet_radical_multiplets()
SEEDS = st.integers(0, 2**32 - 1)


def random_ket(seed, dimension):
    rng = np.random.default_rng(seed)
    ket = rng.normal(size=dimension) + 1j * rng.normal(size=dimension)
    return ket / np.linalg.norm(ket)


def random_density(seed, dimension, rank):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(dimension, rank)) + 1j * rng.normal(size=(dimension, rank))
    matrix = root @ root.conj().T
    return matrix / np.trace(matrix)


def radicals(state):
    return reduced_state(state, DIMS, (0, 2))


@pytest.mark.parametrize(
    ("law", "multiplet", "magnetic"),
    [
        ("quintet M=0", "quintet", [0]),
        ("quintet |M|=1", "quintet", [1, -1]),
        ("singlet S=0", "singlet", [0]),
        ("S=1 from radicals in triplet, M=0", "triplet_t", [0]),
        ("S=1 from radicals in triplet, |M|=1", "triplet_t", [1, -1]),
        ("S=1 from radicals in singlet", "triplet_s", [1, 0, -1]),
    ],
)
def test_radical_concurrence_of_the_multiplets(law, multiplet, magnetic):
    expected = LAWS["radical_radical_concurrence_after_tracing_out_the_triplet"][law]
    found = MULTIPLETS[multiplet]
    for m in magnetic:
        assert concurrence(radicals(found.kets[found.spin - m])) == pytest.approx(expected, abs=1e-10)


def quintet_state(populations, angle_deg=0.0):
    kets = MULTIPLETS["quintet"].kets
    state = np.diag(populations).astype(complex)
    spin = spin_matrices(2)
    angle = np.radians(angle_deg)
    _, vectors = np.linalg.eigh(np.sin(angle) * spin[0] + np.cos(angle) * spin[2])
    kept = np.einsum("ia,ij,ja->a", vectors.conj(), state, vectors)
    return kets.T @ ((vectors * kept) @ vectors.conj().T) @ kets.conj()


def test_radical_concurrence_of_diagonal_quintets():
    laws = LAWS["radical_radical_concurrence_after_tracing_out_the_triplet"]
    equal = concurrence(radicals(quintet_state([0.2] * 5)))
    assert equal == pytest.approx(laws["diagonal quintet with equal populations"], abs=1e-10)
    measured = [0, 0.35, 0.3, 0.35, 0]
    assert concurrence(radicals(quintet_state(measured))) == pytest.approx(0.1, abs=1e-10)
    assert concurrence(radicals(quintet_state(measured, 15))) == pytest.approx(0.057, abs=6e-4)
    assert concurrence(radicals(quintet_state(measured, 30))) == 0
    assert concurrence(radicals(quintet_state(measured, 60))) == 0


@given(p0=st.floats(0, 1), share=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_diagonal_quintet_concurrence_has_its_closed_form(p0, share):
    p1, p2 = (1 - p0) / 2 * share, (1 - p0) / 2 * (1 - share)
    expected = max(0, p0 / 3 - 2 * p2)
    assert concurrence(radicals(quintet_state([p2, p1, p0, p1, p2]))) == pytest.approx(expected, abs=1e-12)


@given(seed=SEEDS)
@settings(max_examples=100, deadline=None)
def test_concurrence_of_pure_states_is_exact(seed):
    ket = random_ket(seed, 4)
    exact = 2 * abs(ket[0] * ket[3] - ket[1] * ket[2])
    assert concurrence(ket) == pytest.approx(exact, abs=1e-14)


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_product_states_have_no_concurrence_and_no_negativity(seed):
    first, second = random_density(seed, 2, 2), random_density(seed + 1, 2, 1)
    state = np.kron(first, second)
    assert concurrence(state) == pytest.approx(0, abs=1e-12)
    assert log_negativity(state) == pytest.approx(0, abs=1e-12)


@given(seed=SEEDS, rank=st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_concurrence_of_mixed_states_agrees_with_qutip(seed, rank):
    state = random_density(seed, 4, rank)
    other = qutip.concurrence(qutip.Qobj(state, dims=[[2, 2], [2, 2]]))
    assert concurrence(state) == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize("weight", [0.2, 1 / 3, 0.5, 0.9, 1.0])
def test_werner_states_have_their_closed_forms(weight):
    bell = np.array([0, 1, -1, 0]) / np.sqrt(2)
    state = weight * np.outer(bell, bell) + (1 - weight) * np.eye(4) / 4
    assert concurrence(state) == pytest.approx(max(0, (3 * weight - 1) / 2), abs=1e-14)
    assert log_negativity(state) == pytest.approx(max(0, np.log2((1 + 3 * weight) / 2)), abs=1e-14)
    assert purity(state) == pytest.approx((1 + 3 * weight**2) / 4, abs=1e-14)
    assert fidelity(state, bell) == pytest.approx((1 + 3 * weight) / 4, abs=1e-12)


def test_log_negativity_of_a_pure_state_across_a_partition():
    ghz = np.zeros(12)
    ghz[0] = ghz[11] = np.sqrt(0.5)
    for partition in ((0,), (1,), (2,), (0, 2)):
        assert log_negativity(ghz, DIMS, partition) == pytest.approx(1, abs=1e-13)


def test_reduced_states_agree_with_qutip_and_broadcast():
    states = np.array([random_density(seed, 12, 3) for seed in range(4)])
    found = reduced_state(states, DIMS, (0, 2))
    for state, small in zip(states, found, strict=True):
        expected = qutip.Qobj(state, dims=[list(DIMS)] * 2).ptrace([0, 2]).full()
        np.testing.assert_allclose(small, expected, atol=1e-14)
    assert concurrence(found).shape == (4,)


def test_wrong_states_are_refused():
    with pytest.raises(ValueError, match="trace 1"):
        concurrence(np.eye(4))
    with pytest.raises(ValueError, match="positive"):
        concurrence(np.diag([1.5, -0.5, 0, 0]))
    with pytest.raises(ValueError, match="Hermitian"):
        concurrence(np.eye(4) / 4 + np.triu(np.ones((4, 4)), 1))
    with pytest.raises(ValueError, match="density matrices"):
        concurrence(np.eye(3) / 3)
    with pytest.raises(ValueError, match="partition"):
        log_negativity(np.eye(4) / 4, (2, 2), (2,))


COUPLINGS = {"d_t_cm1": 0.063, "d_r1t_cm1": 0.0075, "d_r2t_cm1": 0.004, "d_rr_cm1": -0.0012}


def test_projected_zero_field_splittings():
    assert zfs_quartet(0.063, 0.0075) == pytest.approx(0.0235, abs=1e-15)
    assert zfs_quintet(0.063, 0.0075, 0.0075) == pytest.approx(0.013, abs=1e-15)
    expected = (0.063 + 0.0075 + 0.004) / 6 - 0.0012 / 12
    assert zfs_quintet(**COUPLINGS) == pytest.approx(expected, abs=1e-15)
    assert zfs_triplet(**COUPLINGS) == pytest.approx(-0.0315 + 0.0115 / 2 + 0.0003, abs=1e-15)
    assert zfs_triplet(**COUPLINGS, radical_spin=0) == 0.063


@pytest.mark.parametrize(("j_cm1", "tolerance"), [(1e2, 2e-5), (1e4, 2e-7), (1e6, 2e-9)])
def test_full_hamiltonian_reaches_the_projection_under_strong_exchange(j_cm1, tolerance):
    system = SpinSystem(
        (0.5, 1, 0.5),
        exchange_cm1={(0, 1): j_cm1, (1, 2): j_cm1, (0, 2): -0.1 * j_cm1},
        zfs={1: zfs_tensor(COUPLINGS["d_t_cm1"])},
        dipolar={
            (0, 1): axial_coupling_tensor(COUPLINGS["d_r1t_cm1"]),
            (1, 2): axial_coupling_tensor(COUPLINGS["d_r2t_cm1"]),
            (0, 2): axial_coupling_tensor(COUPLINGS["d_rr_cm1"]),
        },
    )
    for spin, number, expected in (
        (2, 0, zfs_quintet(**COUPLINGS)),
        (1, 0, zfs_triplet(**COUPLINGS, radical_spin=0)),
        (1, 1, zfs_triplet(**COUPLINGS)),
    ):
        assert d_and_e(multiplet_zfs_tensor(system, spin, number))[0] == pytest.approx(expected, abs=tolerance)


def test_full_hamiltonian_gives_the_quartet_with_turned_tensors():
    frame = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0.0]])
    triplet, coupling = zfs_tensor(0.063, 0.008), axial_coupling_tensor(0.0075, frame)
    system = SpinSystem((0.5, 1), exchange_cm1={(0, 1): 1e5}, zfs={1: triplet}, dipolar={(0, 1): coupling})
    np.testing.assert_allclose(multiplet_zfs_tensor(system, 1.5), zfs_quartet(triplet, coupling), atol=1e-7)


def test_mixed_multiplets_are_refused():
    system = SpinSystem((0.5, 1), exchange_cm1={(0, 1): 0.001}, zfs={1: zfs_tensor(0.063)})
    with pytest.raises(ValueError, match="exchange separates"):
        multiplet_zfs_tensor(system, 1.5)


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS, rank=st.integers(1, 4))
def test_witness_is_at_most_the_concurrence(seed, rank):
    state = random_density(seed, 4, rank)
    assert correlator_witness(spin_correlators(state)) <= concurrence(state) + 1e-9


@settings(max_examples=50, deadline=None)
@given(shares=st.lists(st.floats(0.01, 1), min_size=4, max_size=4), seed=SEEDS)
def test_witness_is_the_concurrence_of_rotated_bell_diagonal_states(shares, seed):
    bell = np.array([[1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0]]) / np.sqrt(2)
    shares = np.array(shares) / np.sum(shares)
    rng = np.random.default_rng(seed)
    local = [np.linalg.qr(rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2)))[0] for _ in range(2)]
    kets = np.kron(*local) @ bell.T
    state = (kets * shares) @ kets.conj().T
    assert correlator_witness(spin_correlators(state)) == pytest.approx(max(0, 2 * shares.max() - 1), abs=1e-9)


def test_witness_of_product_states_is_zero():
    for seed in range(30):
        ket = np.kron(random_ket((seed, 1), 2), random_ket((seed, 2), 2))
        assert correlator_witness(spin_correlators(ket)) == pytest.approx(0, abs=1e-12)


def test_bad_correlators():
    for bad in (np.eye(2), 2 * np.eye(3), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="`correlators`"):
            correlator_witness(bad)


@pytest.mark.parametrize(
    ("multiplet", "law"),
    [("quintet", zfs_quintet(**COUPLINGS)), ("triplet_t", zfs_triplet(**COUPLINGS)),
     ("triplet_s", zfs_triplet(**COUPLINGS, radical_spin=0))],
)  # fmt: skip
def test_projection_of_the_tensors_on_each_multiplet_is_the_law(multiplet, law):
    """The limit of strong exchange itself: zero-field and dipolar terms within the kets of one multiplet."""
    system = SpinSystem(
        (0.5, 1, 0.5),
        zfs={1: zfs_tensor(COUPLINGS["d_t_cm1"])},
        dipolar={
            (0, 1): axial_coupling_tensor(COUPLINGS["d_r1t_cm1"]),
            (1, 2): axial_coupling_tensor(COUPLINGS["d_r2t_cm1"]),
            (0, 2): axial_coupling_tensor(COUPLINGS["d_rr_cm1"]),
        },
    )
    kets = MULTIPLETS[multiplet].kets
    inside = kets.conj() @ system.hamiltonian_matrix() @ kets.T / CM1_TO_RAD_PER_NS
    m = MULTIPLETS[multiplet].spin - np.arange(len(kets))
    expected = law * (m**2 - np.mean(m**2))
    np.testing.assert_allclose(inside, np.diag(expected), atol=1e-12)


def test_projection_of_the_tensors_on_the_quartet_is_the_law():
    tensors = {"d_t_cm1": COUPLINGS["d_t_cm1"], "d_rt_cm1": COUPLINGS["d_r1t_cm1"]}
    system = SpinSystem(
        (0.5, 1),
        zfs={1: zfs_tensor(tensors["d_t_cm1"])},
        dipolar={(0, 1): axial_coupling_tensor(tensors["d_rt_cm1"])},
    )
    large, small = np.sqrt(2 / 3), np.sqrt(1 / 3)  # Clebsch-Gordan; rows by falling M, columns ↑1 ↑0 ↑-1 ↓1 ↓0 ↓-1
    kets = np.array([[1, 0, 0, 0, 0, 0], [0, large, 0, small, 0, 0], [0, 0, small, 0, large, 0], [0, 0, 0, 0, 0, 1]])
    inside = kets @ system.hamiltonian_matrix() @ kets.T / CM1_TO_RAD_PER_NS
    m = 1.5 - np.arange(4)
    expected = zfs_quartet(*tensors.values()) * (m**2 - np.mean(m**2))
    np.testing.assert_allclose(inside, np.diag(expected), atol=1e-12)
