"""Optimised pulses: gradients against differences, analytic rotations, limits, decay bounds, addressing."""

import numpy as np
import pytest
import scipy.linalg

from molecular_qubits import SpinSystem
from molecular_qubits.control.fidelity import decay_bound, target_gate, transfer_matrix
from molecular_qubits.control.pulses import ControlProblem, PulseFidelity, low_pass, optimise_pulse
from molecular_qubits.spins.channels.relaxation import RadicalRelaxation
from molecular_qubits.spins.operators import embed, spin_matrices
from molecular_qubits.units import CM1_TO_RAD_PER_NS

HALF = spin_matrices(0.5)
SPINS = [embed(HALF, site, (2, 2)) for site in (0, 1)]
X_ON_FIRST = np.kron([[0, 1], [1, 0]], np.eye(2)).astype(complex)


def detuned(difference_rad_per_ns, j_cm1=0.0):
    """Return two radicals in the frame of their mean frequency."""
    exchange = -2 * j_cm1 * CM1_TO_RAD_PER_NS * np.einsum("aij,ajk->ik", *SPINS)
    return exchange + difference_rad_per_ns / 2 * (SPINS[0][2] - SPINS[1][2])


def whole(axis):
    """Return the sum of a spin component over both radicals: what one microwave field reaches."""
    return SPINS[0][axis] + SPINS[1][axis]


def random_problem(**changed):
    """Return an ensemble of two members with relaxation."""
    names = ("a", "b")
    system = SpinSystem((0.5, 0.5), names=names)
    jumps = np.concatenate([RadicalRelaxation(name, 300.0, 50.0, 100.0).jumps(system, 0.34) for name in names])
    fields = {
        "static": np.array([detuned(0.3, 1e-3), detuned(0.2, 2e-3)]), "controls": np.array([whole(0), whole(1)]),
        "dims": (2, 2), "jumps": jumps, "weights": (1.0, 2.0), "scales": (1.0, 0.9),
    }  # fmt: skip
    return ControlProblem(**(fields | changed))


def test_gradient_is_that_of_differences():
    fidelity = PulseFidelity(random_problem(), 20.0, 7, 0.5, bandwidth_ghz=0.2)
    target = transfer_matrix(target_gate("sqrt-swap"))
    x = np.random.default_rng(1).normal(0, 0.2, (7, 2))
    value, slope = fidelity.value_and_gradient(x, target)
    assert value == pytest.approx(fidelity.value(x, target), abs=1e-14)
    for place in ((0, 0), (3, 1), (6, 0)):
        change = np.zeros_like(x)
        change[place] = 1e-5
        difference = (fidelity.value(x + change, target) - fidelity.value(x - change, target)) / 2e-5
        assert slope[place] == pytest.approx(difference, rel=1e-6, abs=1e-9)


def test_channel_is_that_of_the_exponentials():
    """Unitary evolution slice by slice, computed by another algorithm."""
    problem = random_problem(jumps=None)
    x = np.random.default_rng(2).normal(0, 0.3, (5, 2))
    found = PulseFidelity(problem, 10.0, 5, 1.0).channels(x)
    for member, scale in enumerate(problem.scales):
        unitary = np.eye(4, dtype=complex)
        for slice_amplitudes in x:
            generator = problem.static[member] + scale * np.tensordot(slice_amplitudes, problem.controls, 1)
            unitary = scipy.linalg.expm(-2j * generator) @ unitary
        assert found[member] == pytest.approx(transfer_matrix(unitary), abs=1e-11)


def test_pi_pulse_on_one_of_two_radicals_that_differ():
    """With a difference of frequencies the pulse turns one radical and leaves the other; limits are kept."""
    problem = ControlProblem(detuned(0.6)[None], np.array([whole(0), whole(1)]), (2, 2))
    pulse = optimise_pulse(problem, X_ON_FIRST, 40.0, 40, max_rad_per_ns=0.4, iterations=150)
    assert pulse.fidelity > 0.999
    assert np.max(np.abs(pulse.amplitudes_rad_per_ns)) <= 0.4 + 1e-12
    assert pulse.history[-1] > pulse.history[0]
    assert pulse.fidelity == pytest.approx(pulse.history[-1], abs=1e-6)


def test_equal_radicals_cannot_be_told_apart_by_one_field():
    """U x U, with any exchange between them: the process fidelity to X x 1 is at most 1/4, F = (4/4 + 1)/5."""
    for j_cm1 in (0.0, 5e-3):
        problem = ControlProblem(detuned(0.0, j_cm1)[None], np.array([whole(0), whole(1)]), (2, 2))
        found = [
            optimise_pulse(problem, X_ON_FIRST, 30.0, 20, max_rad_per_ns=0.5, iterations=60, seed=seed).fidelity
            for seed in range(3)
        ]
        assert max(found) < 0.45
        if j_cm1 == 0:
            assert max(found) == pytest.approx(0.4, abs=1e-3)


def test_relaxation_keeps_pulses_below_the_bound():
    problem = random_problem(static=detuned(0.3)[None], weights=None, scales=None)
    pulse = optimise_pulse(problem, X_ON_FIRST, 30.0, 30, max_rad_per_ns=0.5, iterations=80)
    bound = decay_bound(30.0, 300.0, 100.0)
    assert 0.95 * bound < pulse.fidelity < bound


def test_entangling_gate_up_to_local_rotations():
    """Two detuned radicals, their exchange and one field: any of the gates in 50 ns, whatever the start."""
    problem = ControlProblem(detuned(0.25, 5e-4)[None], np.array([whole(0), whole(1)]), (2, 2))
    for name, seed in (("cz", 0), ("sqrt-iswap", 0), ("sqrt-swap", 1)):
        pulse = optimise_pulse(
            problem, target_gate(name), 50.0, 25, max_rad_per_ns=0.5, up_to_local=True, iterations=60, seed=seed
        )
        assert pulse.fidelity > 0.9999
        assert np.linalg.norm(pulse.target) == pytest.approx(4)  # still a unitary


def test_robust_pulse_is_better_over_the_ensemble():
    """Optimised over the spread of amplitude and frequency, against optimised at its middle."""
    spread = [(d, s) for d in (0.55, 0.6, 0.65) for s in (0.95, 1.05)]
    static = np.array([detuned(d) for d, _ in spread])
    controls = np.array([whole(0), whole(1)])
    ensemble = ControlProblem(static, controls, (2, 2), scales=[s for _, s in spread])
    options = {"max_rad_per_ns": 0.5, "iterations": 120}
    sharp = optimise_pulse(ControlProblem(detuned(0.6)[None], controls, (2, 2)), X_ON_FIRST, 40.0, 40, **options)
    robust = optimise_pulse(ensemble, X_ON_FIRST, 40.0, 40, **options)
    judge = PulseFidelity(ensemble, 40.0, 40, 0.5)
    of_sharp = judge.value(sharp.amplitudes_rad_per_ns, transfer_matrix(X_ON_FIRST))
    assert robust.fidelity > of_sharp + 0.003


def test_filter_limits_the_bandwidth():
    n, duration, bandwidth = 400, 100.0, 0.2
    rows = low_pass(n, duration, bandwidth)
    assert rows.sum(axis=1) == pytest.approx(np.ones(n))
    assert rows.min() >= 0
    times = (np.arange(n) + 0.5) * duration / n
    for frequency, passed in ((0.02, 0.993), (bandwidth, 0.5), (2 * bandwidth, 1 / 16)):
        wave = np.cos(2 * np.pi * frequency * times)
        middle = slice(n // 4, 3 * n // 4)
        gain = (rows @ wave)[middle] @ wave[middle] / (wave[middle] @ wave[middle])
        assert gain == pytest.approx(passed, abs=2e-3)


def test_radicals_around_a_triplet():
    """Radical, triplet, radical: the lit coupler alone, no pulse, gives the channel of the switched gate's model."""
    from molecular_qubits.control.switched_gate import GateConditions, gate_channels
    from molecular_qubits.spins.tensors import zfs_tensor

    system = SpinSystem((0.5, 1, 0.5), exchange_cm1={(0, 1): 0.4, (1, 2): 0.4}, zfs={1: zfs_tensor(0.07)})
    control = embed(HALF, 0, (2, 3, 2))[0] + embed(HALF, 2, (2, 3, 2))[0]
    problem = ControlProblem(
        system.hamiltonian_matrix()[None], control[None], (2, 3, 2), (0, 2), np.diag([0.05, 0.9, 0.05]).astype(complex)
    )
    found = PulseFidelity(problem, 0.5, 4, 1.0).channels(np.zeros((4, 1)))
    calm = GateConditions(jitter_ns=0.0, t1_ns=1e12, t2_ns=1e12, d_t_cm1=0.07)
    assert found[0] == pytest.approx(gate_channels(0.4, 0.0, np.array([0.5]), calm)[0], abs=1e-9)


@pytest.mark.parametrize("rest", [np.eye(3), np.diag([2.0, -1, 0]), np.triu(np.ones((3, 3))) / 3])
def test_what_is_no_state_of_the_other_sites_is_refused(rest):
    good = {"static": np.zeros((1, 12, 12)), "controls": np.zeros((1, 12, 12)), "dims": (2, 3, 2), "qubits": (0, 2)}
    with pytest.raises(ValueError, match="`rest_state`"):
        ControlProblem(**good, rest_state=rest)


def test_bad_input():
    good = {"static": detuned(0.1)[None], "controls": whole(0)[None], "dims": (2, 2)}
    for changed, name in (
        ({"static": np.zeros((4, 4))}, "static"), ({"controls": 1j * whole(0)[None]}, "controls"),
        ({"qubits": (0, 0)}, "qubits"), ({"qubits": (0, 2)}, "qubits"), ({"rest_state": np.eye(2)}, "rest_state"),
        ({"weights": (1.0, 2.0)}, "weights"), ({"scales": (-1.0,)}, "scales"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"`{name}`"):
            ControlProblem(**(good | changed))
    problem = ControlProblem(**good)
    for arguments, options, name in (
        ((X_ON_FIRST, -1.0, 5), {}, "duration_ns"), ((X_ON_FIRST, 1.0, 0), {}, "n_slices"),
        ((2 * X_ON_FIRST, 1.0, 5), {}, "target"), ((X_ON_FIRST, 1.0, 5), {"max_rad_per_ns": 0}, "max_rad_per_ns"),
        ((X_ON_FIRST, 1.0, 5), {"bandwidth_ghz": 0}, "bandwidth_ghz"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"`{name}`"):
            optimise_pulse(problem, *arguments, **({"max_rad_per_ns": 1.0} | options))
