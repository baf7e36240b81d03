"""Channels beyond the local ones: pulses in both pictures, the eigenbasis, shared noise, recombination, Redfield."""

import numpy as np
import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits.spins.channels.correlated import CorrelatedDephasing
from molecular_qubits.spins.channels.optical import CoherentPulse, OpticalPulse, pump_rate
from molecular_qubits.spins.channels.recombination import Haberkorn, Recombination
from molecular_qubits.spins.channels.redfield import Redfield, redfield_tensor
from molecular_qubits.spins.channels.relaxation import PureDephasing, RadicalRelaxation, ThermalRelaxation
from molecular_qubits.spins.evolution import evolve
from molecular_qubits.spins.liouvillian import dissipator
from molecular_qubits.spins.operators import triplet_kets
from molecular_qubits.spins.radical_pair import RadicalPair
from molecular_qubits.spins.spectral_density import LorentzianBath, OhmicBath
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import zfs_tensor
from molecular_qubits.spins.unit import TwoQubitUnit
from molecular_qubits.units import CM1_TO_RAD_PER_NS, KELVIN_TO_CM1, MILLITESLA_TO_CM1

SOLVERS = ("qutip", "expm", "jax")
THERMAL_RAD_NS_PER_K = KELVIN_TO_CM1 * CM1_TO_RAD_PER_NS


def one_state(unit):
    """Both radicals up, so that only S0 and S1 of that state take part."""
    return np.kron(np.kron([1, 0], unit.coupler_ket("S0")), [1, 0])


def lit_share(unit, pulse, times=(0.0, 2.0), solver="expm"):
    found = evolve(unit, one_state(unit), times, channels=[pulse], solver=solver)
    return found.expectation(unit.level_projector("S1"))[-1]


# -- pulses ------------------------------------------------------------------------------------------------------------


def test_a_detuned_coherent_pulse_follows_rabis_formula():
    unit = TwoQubitUnit(0.0)
    rabi, detuning, duration = 2.0, 1.5, 1.7
    expected = rabi**2 / (rabi**2 + detuning**2) * np.sin(np.hypot(rabi, detuning) * duration / 2) ** 2
    pulse = CoherentPulse(0.0, duration, rabi, detuning_rad_per_ns=detuning)
    for solver in SOLVERS:
        assert lit_share(unit, pulse, solver=solver) == pytest.approx(expected, abs=1e-8)


def test_overlapping_coherent_pulses_share_one_frame():
    """Two halves of a detuned or chirped pulse at the same time are the whole pulse; other frames are refused."""
    unit = TwoQubitUnit(0.0)
    for options in ({"detuning_rad_per_ns": 4.0}, {"chirp_rad_per_ns2": 3.0, "slices": 8}):
        whole, half = CoherentPulse(0.0, 1.0, np.pi, **options), CoherentPulse(0.0, 1.0, np.pi / 2, **options)
        expected = lit_share(unit, whole, (0.0, 1.0))
        for solver in ("expm", "jax"):
            found = evolve(unit, one_state(unit), [0.0, 1.0], channels=[half, half], solver=solver)
            assert found.expectation(unit.level_projector("S1"))[-1] == pytest.approx(expected, abs=1e-10)
        with pytest.raises(ValueError, match="overlap with different detunings"):
            evolve(unit, one_state(unit), [0.0, 1.0], channels=[CoherentPulse(0.5, 1.0, 1.0), half], solver="expm")
    later = CoherentPulse(1.0, 1.0, 1.0, detuning_rad_per_ns=2.0)
    assert 0 < lit_share(unit, later) < 1
    evolve(unit, one_state(unit), [0.0, 2.0], channels=[later, CoherentPulse(0.0, 1.0, 1.0)], solver="expm")


def test_a_gaussian_coherent_pulse_turns_by_its_area():
    unit = TwoQubitUnit(0.0)
    pulse = CoherentPulse(0.0, 2.0, 1.3, shape="gaussian", slices=100)
    area = 1.3 * sum((stop - start) * np.sqrt(factor) for start, stop, factor in pulse.segments())
    assert lit_share(unit, pulse) == pytest.approx(np.sin(area / 2) ** 2, abs=1e-10)
    analytic = 1.3 * np.sqrt(np.pi / (4 * np.log(2)))  # full width at half maximum 1 ns; the tails cut off are 2%
    assert area == pytest.approx(analytic, rel=0.02)


def test_a_chirped_pulse_inverts_as_landau_and_zener_say():
    unit = TwoQubitUnit(0.0)
    chirp = 400.0
    for rabi in (10.0, 30.0):
        pulse = CoherentPulse(0.0, 2.0, rabi, chirp_rad_per_ns2=chirp, slices=200)
        expected = 1 - np.exp(-np.pi * rabi**2 / (2 * chirp))
        assert lit_share(unit, pulse) == pytest.approx(expected, abs=0.1)
    robust = [
        lit_share(unit, CoherentPulse(0.0, 2.0, rabi, shape="gaussian", chirp_rad_per_ns2=60.0, slices=80))
        for rabi in (30.0, 36.0, 42.0)
    ]
    assert min(robust) > 0.999  # whatever the area, where without chirp it swings from 0 to 1


@pytest.mark.parametrize("detuning", [0.0, 30.0])
def test_a_fast_dephasing_coherent_pulse_becomes_the_rate_picture(detuning):
    unit = TwoQubitUnit(0.0)
    rabi, dephasing = 1.0, 60.0
    coherent = CoherentPulse(0.0, 1.0, rabi, detuning_rad_per_ns=detuning, dephasing_per_ns=dephasing)
    incoherent = OpticalPulse(0.0, 1.0, pump_rate(rabi, dephasing, detuning))
    detuned = OpticalPulse(
        0.0, 1.0, pump_rate(rabi, dephasing), detuning_rad_per_ns=detuning, linewidth_rad_per_ns=dephasing
    )
    shares = [lit_share(unit, pulse) for pulse in (coherent, incoherent, detuned)]
    assert shares[0] == pytest.approx(shares[1], rel=0.02)
    assert shares[2] == pytest.approx(shares[1], rel=1e-12)


def test_a_chirped_rate_pulse_pumps_only_while_the_light_crosses_the_line():
    unit = TwoQubitUnit(0.0)
    pulse = OpticalPulse(0.0, 4.0, 0.5, slices=250, chirp_rad_per_ns2=50.0, linewidth_rad_per_ns=2.0)
    dose = 0.5 * 2.0 / 50.0 * 2 * np.arctan(2 * 50.0 / 2.0)  # integral of the Lorentzian over the sweep
    expected = (1 - np.exp(-2 * dose)) / 2
    assert lit_share(unit, pulse, (0.0, 5.0)) == pytest.approx(expected, rel=1e-4)


# -- relaxation in the eigenbasis --------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [0.34, (0.2, 0.1, 0.3), 0.0])
def test_t1_and_t2_of_a_lone_spin_are_the_same_in_the_eigenbasis(field):
    spin = SpinSystem((0.5,), g=[(2.0, 2.05, 2.1)], names=("r",))
    ket = np.array([np.cos(0.4), np.exp(0.7j) * np.sin(0.4)])
    times = [0.0, 7.0, 60.0]
    local, eigen = (
        evolve(
            spin,
            ket,
            times,
            channels=[RadicalRelaxation("r", 40.0, 0.5, t2_ns=15.0, basis=basis)],
            solver="expm",
            field_tesla=field,
        )
        for basis in ("local", "eigen")
    )
    if np.any(field):
        np.testing.assert_allclose(eigen.states, local.states, atol=1e-12)
    else:  # degenerate levels: the same T1 and T2, seen along the axis and in the magnitude of the coherence
        np.testing.assert_allclose(eigen.populations(), local.populations(), atol=1e-12)


def test_radicals_relaxing_in_the_eigenbasis_reach_the_gibbs_state_of_the_coupled_pair():
    pair = SpinSystem((0.5, 0.5), g=(2.0, 2.01), exchange_cm1={(0, 1): -0.4}, names=("a", "b"))
    gibbs = pair.thermal_state(0.5, 0.34)
    start = np.zeros(4)
    start[0] = 1
    final = {}
    for basis in ("eigen", "local"):
        channels = [RadicalRelaxation(name, 30.0, 0.5, t2_ns=10.0, basis=basis) for name in pair.names]
        final[basis] = evolve(pair, start, [0.0, 1e4], channels=channels, solver="expm", field_tesla=0.34).states[-1]
    np.testing.assert_allclose(final["eigen"], gibbs, atol=1e-10)
    assert np.max(np.abs(final["local"] - gibbs)) > 0.1


@pytest.mark.parametrize(("axis", "start", "partner", "idle"), [(0, 1, 2, 0), (1, 0, 2, 1), (2, 1, 0, 2)])
def test_sublevels_of_a_triplet_exchange_pairwise_and_in_detailed_balance(axis, start, partner, idle):
    triplet = SpinSystem((1,), zfs={0: zfs_tensor(0.06, 0.01)}, names=("t",))
    kets = triplet_kets()
    energies = np.einsum("ki,ij,kj->k", kets.conj(), triplet.hamiltonian_matrix(), kets).real
    rate, temperature = 0.02, 0.05
    bath = ThermalRelaxation(("t",), rate, temperature, axes="xyz"[axis])
    found = evolve(triplet, kets[start], [0.0, 10.0, 1e5], channels=[bath], solver="expm").populations(kets)
    boltzmann = np.exp(-(energies[start] - energies[partner]) / (temperature * THERMAL_RAD_NS_PER_K))
    assert found[-1, start] / found[-1, partner] == pytest.approx(boltzmann, rel=1e-9)
    decay = (found[1, start] - found[-1, start]) / (1 - found[-1, start])
    assert decay == pytest.approx(np.exp(-2 * rate * 10.0), rel=1e-9)
    np.testing.assert_allclose(found[:, idle], 0, atol=1e-13)


# -- correlated dephasing ----------------------------------------------------------------------------------------------

PAIR = SpinSystem((0.5, 0.5), names=("a", "b"))


@pytest.mark.parametrize("correlation", [-1.0, -0.3, 0.0, 0.6, 1.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_shared_noise_protects_one_coherence_and_kills_the_other(correlation, solver):
    rate, times = 0.05, np.array([0.0, 3.0, 10.0])
    ket = np.ones(4) / 2
    noise = CorrelatedDephasing(("a", "b"), (rate, rate), correlation)
    found = evolve(PAIR, ket, times, channels=[noise], solver=solver).states
    np.testing.assert_allclose(found[:, 1, 2], np.exp(-2 * rate * (1 - correlation) * times) / 4, atol=1e-10)
    np.testing.assert_allclose(found[:, 0, 3], np.exp(-2 * rate * (1 + correlation) * times) / 4, atol=1e-10)
    np.testing.assert_allclose(found[:, 0, 1], np.exp(-rate * times) / 4, atol=1e-10)


def test_uncorrelated_noise_is_pure_dephasing_of_each_spin():
    system = SpinSystem((0.5, 1), names=("a", "b"))
    axis = (0.3, -0.5, 0.8)
    shared = CorrelatedDephasing(("a", "b"), (0.1, 0.03), 0.0, axis).jumps(system, 0.0)
    single = np.concatenate(
        [PureDephasing(name, rate, axis).jumps(system, 0.0) for name, rate in (("a", 0.1), ("b", 0.03))]
    )
    np.testing.assert_allclose(dissipator(shared), dissipator(single), atol=1e-14)


# -- recombination -----------------------------------------------------------------------------------------------------

HYPERFINE = {(0, 2): 0.9 * MILLITESLA_TO_CM1, (1, 2): -0.2 * MILLITESLA_TO_CM1}


def pair_with_proton(j_mt=0.1):
    return SpinSystem(
        (0.5, 0.5, 0.5),
        exchange_cm1={(0, 1): j_mt * MILLITESLA_TO_CM1},
        isotopes={2: "1H"},
        hyperfine=HYPERFINE,
        names=("a", "b", "h"),
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_recombination_to_products_is_haberkorn_with_the_trace_kept(solver):
    spins = pair_with_proton()
    pair = RadicalPair(spins, ("a", "b"))
    start = pair.initial_state("singlet")
    alive = pair.dims[-1]
    times = np.linspace(0.0, 400.0, 6)
    whole = evolve(pair, start, times, channels=[Recombination(0.01, 0.003)], solver=solver, field_tesla=1e-3)
    lost = evolve(
        spins,
        start[::alive, ::alive],
        times,
        channels=[Haberkorn(("a", "b"), 0.01, 0.003)],
        solver=solver,
        field_tesla=1e-3,
    )
    np.testing.assert_allclose(whole.states[:, ::alive, ::alive], lost.states, atol=1e-9)
    np.testing.assert_allclose(np.trace(whole.states, axis1=1, axis2=2), 1, atol=1e-10)
    survival = np.trace(lost.states, axis1=1, axis2=2).real
    assert survival[-1] < 0.2
    shares = [
        whole.expectation(pair.product_projector(name)) for name in ("pair", "singlet_product", "triplet_product")
    ]
    np.testing.assert_allclose(shares[0], survival, atol=1e-9)
    np.testing.assert_allclose(sum(shares), 1, atol=1e-10)
    assert shares[2][-1] > 0.1


def test_equal_recombination_rates_give_an_exponential_whatever_the_spins_do():
    spins = pair_with_proton(0.7)
    start = RadicalPair(spins, ("a", "b")).initial_state("triplet")[::3, ::3]
    times = np.array([0.0, 30.0, 200.0])
    found = evolve(spins, start, times, channels=[Haberkorn(("a", "b"), 0.01, 0.01)], solver="expm", field_tesla=0.05)
    np.testing.assert_allclose(np.trace(found.states, axis1=1, axis2=2), np.exp(-0.01 * times), atol=1e-12)


def test_a_singlet_that_nothing_mixes_goes_to_the_singlet_product_alone():
    pair = RadicalPair(SpinSystem((0.5, 0.5), exchange_cm1={(0, 1): 0.3}, names=("a", "b")), ("a", "b"))
    found = evolve(pair, pair.initial_state("singlet"), [0.0, 50.0], channels=[Recombination(0.02, 5.0)], solver="expm")
    assert found.expectation(pair.product_projector("singlet_product"))[-1] == pytest.approx(1 - np.exp(-1), abs=1e-12)
    assert found.expectation(pair.product_projector("triplet_product"))[-1] == pytest.approx(0, abs=1e-12)


def test_the_nucleus_keeps_its_field_in_the_product_and_the_electrons_do_not():
    pair = RadicalPair(pair_with_proton(), ("a", "b"))
    matrix = pair.hamiltonian_matrix(0.3)
    product = matrix[1::3, 1::3]
    proton = SpinSystem((0.5,), isotopes={0: "1H"}).hamiltonian_matrix(0.3)
    np.testing.assert_allclose(product, np.kron(np.eye(4), proton), atol=1e-14)
    np.testing.assert_array_equal(matrix[0::3, 1::3], 0)


# -- Redfield ----------------------------------------------------------------------------------------------------------


def coupled(seed):
    rng = np.random.default_rng(seed)
    return SpinSystem(
        (0.5, 1),
        g=(2.0, 2.01),
        exchange_cm1={(0, 1): float(rng.normal())},
        zfs={1: zfs_tensor(0.06, 0.01)},
        names=("r", "t"),
    ), rng.uniform(-0.5, 0.5, size=3)


@given(seed=st.integers(0, 2**32 - 1), tau=st.sampled_from([0.0, 0.02]))
@settings(max_examples=10, deadline=None)
def test_redfield_tensor_of_a_real_coupling_is_that_of_qutip(seed, tau):
    # real in the eigenbasis only: that of QuTiP 5.3 depends on the phases of the eigenvectors when it is complex
    system, field = coupled(seed)
    field = (field[0], 0.0, field[2])
    bath = LorentzianBath(0.3, 5.0, tau)
    hamiltonian = system.hamiltonian_matrix(field)
    coupling = system.spin(1)[0] + 0.3 * system.spin(0)[2]
    mine = redfield_tensor(hamiltonian, coupling[None], bath)
    other = qutip.core.blochredfield.brterm(
        qutip.Qobj(hamiltonian), qutip.Qobj(coupling), lambda w: float(bath(w)), sec_cutoff=-1, fock_basis=True
    )
    turned = other.full().reshape(6, 6, 6, 6).transpose(1, 0, 3, 2).reshape(36, 36)  # QuTiP stacks columns
    np.testing.assert_allclose(mine, turned, atol=1e-10)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_redfield_tensor_turns_with_the_basis(seed):
    rng = np.random.default_rng(seed)
    energies, coupling = np.diag(rng.normal(size=3)), rng.normal(size=(3, 3))
    coupling = coupling + coupling.T
    turn = np.linalg.qr(rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3)))[0]
    bath = LorentzianBath(0.3, 0.05)
    turned = redfield_tensor(turn @ energies @ turn.conj().T, (turn @ coupling @ turn.conj().T)[None], bath)
    change = np.kron(turn, turn.conj())
    expected = change @ redfield_tensor(energies, coupling[None], bath) @ change.conj().T
    np.testing.assert_allclose(turned, expected, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_secular_redfield_with_white_noise_is_davies(seed):
    system, field = coupled(seed)
    davies = dissipator(ThermalRelaxation(("r", "t"), 0.2, 3.0).jumps(system, field))
    secular = Redfield(("r", "t"), LorentzianBath(0.2, 3.0), secular_cutoff_rad_per_ns=0.0)
    np.testing.assert_allclose(secular.superoperator(system, field), davies, atol=1e-11)


def test_redfield_and_lindblad_come_together_as_the_bath_weakens():
    system, field = coupled(7)
    ket = np.array([1, 1j, 0.5, -0.2, 0.3, 0.1])
    ket = ket / np.linalg.norm(ket)
    differences = []
    for rate in (4e-2, 4e-3, 4e-4, 4e-5):
        times = np.linspace(0.0, 2 / rate, 21)
        both = [
            evolve(system, ket, times, channels=[channel], solver="expm", field_tesla=field).states
            for channel in (Redfield(("r", "t"), LorentzianBath(rate, 3.0)), ThermalRelaxation(("r", "t"), rate, 3.0))
        ]
        differences.append(np.abs(both[0] - both[1]).max())
    assert differences[0] > 1e-3
    assert differences[-2] / differences[-1] == pytest.approx(10, rel=0.25)  # first order in the rate
    assert differences[-1] < 1e-4


@pytest.mark.parametrize("bath", [LorentzianBath(0.05, 2.0, 0.01), OhmicBath(1e-3, 200.0, 2.0)])
def test_redfield_keeps_the_gibbs_state_to_first_order_and_the_secular_one_exactly(bath):
    system, field = coupled(3)
    gibbs = system.thermal_state(2.0, field).ravel()
    secular = Redfield(("r", "t"), bath, secular_cutoff_rad_per_ns=0.0).superoperator(system, field)
    np.testing.assert_allclose(secular @ gibbs, 0, atol=1e-12)
    whole = Redfield(("r", "t"), bath).superoperator(system, field)
    end = evolve(
        system, system.thermal_state(50.0), [0.0, 3e3], channels=[Redfield(("r", "t"), bath)], solver="expm",
        field_tesla=field,
    ).states[-1]  # fmt: skip
    assert np.abs(end.ravel() - gibbs).max() < 0.02
    trace = np.zeros(36)
    trace[:: 6 + 1] = 1
    np.testing.assert_allclose(trace @ whole, 0, atol=1e-12)


def test_redfield_loses_positivity_where_the_bath_is_as_fast_as_the_spins_and_lindblad_does_not():
    spin = SpinSystem((0.5,), names=("r",))
    field = 1e-3  # 0.18 rad/ns
    ket = np.array([1, -1]) / np.sqrt(2)
    times = np.linspace(0.0, 30.0, 61)
    lowest = {}
    for rate in (1.0, 1e-3):
        bath = LorentzianBath(rate, 5e-4)
        for name, channel in (
            ("redfield", Redfield(("r",), bath, axes="x")),
            ("lindblad", ThermalRelaxation(("r",), rate, 5e-4, axes="x")),
        ):
            found = evolve(spin, ket, times, channels=[channel], solver="expm", field_tesla=field)
            lowest[name, rate] = float(np.linalg.eigvalsh(found.states).min())
    assert lowest["redfield", 1.0] < -1e-2
    assert lowest["redfield", 1e-3] > -1e-3
    assert lowest["lindblad", 1.0] > -1e-12
    assert lowest["lindblad", 1e-3] > -1e-12


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_solvers_agree_on_redfield(solver):
    system, field = coupled(5)
    channels = [Redfield(("r", "t"), OhmicBath(2e-3, 300.0, 4.0)), PureDephasing("r", 0.02)]
    times = [0.0, 0.05, 0.2]
    states = evolve(system, np.eye(6)[1], times, channels=channels, solver=solver, field_tesla=field).states
    exact = evolve(system, np.eye(6)[1], times, channels=channels, solver="expm", field_tesla=field).states
    np.testing.assert_allclose(states, exact, atol=1e-8)


@pytest.mark.parametrize("bath", [LorentzianBath(0.05, 2.0, 0.01), OhmicBath(1e-3, 200.0, 2.0)])
def test_spectral_densities_obey_detailed_balance(bath):
    w = np.linspace(0, 500, 101)
    np.testing.assert_allclose(bath(-w), bath(w) * np.exp(-w / (2.0 * THERMAL_RAD_NS_PER_K)), rtol=1e-12)
    assert bath(0.0) == pytest.approx(bath(1e-7), rel=1e-6)
    assert bath(0.0) > 0


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CoherentPulse(0.0, -1.0, 1.0), "duration_ns"),
        (lambda: CoherentPulse(0.0, 1.0, 1.0, dephasing_per_ns=-1.0), "dephasing_per_ns"),
        (lambda: CoherentPulse(0.0, 1.0, 1.0, shape="sinc"), "one of"),
        (lambda: CoherentPulse(0.0, 1.0, 1.0, slices=0), "slices"),
        (lambda: CoherentPulse(0.0, 1.0, 1.0, slices=2.5), "slices"),
        (
            lambda: OpticalPulse(0.0, 1.0, 1.0, detuning_rad_per_ns=-2.0, chirp_rad_per_ns2=2.0),
            "`linewidth_rad_per_ns`",
        ),
        (lambda: OpticalPulse(0.0, 1.0, 1.0, chirp_rad_per_ns2=1.0), "linewidth_rad_per_ns"),
        (lambda: OpticalPulse(0.0, 1.0, -1.0), "must not be negative"),
        (lambda: pump_rate(1.0, 0.0), "dephasing_per_ns"),
        (lambda: RadicalRelaxation("r", 1.0, 300.0, t2_ns=2.1, basis="eigen"), "at most 2 T1"),
        (lambda: RadicalRelaxation("r", 1.0, 0.0, basis="eigen"), "temperature_k"),
        (lambda: RadicalRelaxation("r", 1.0, 1.0, basis="both"), "one of"),
        (lambda: CorrelatedDephasing(("a", "b"), (0.1, -0.1)), r"rates_per_ns\[1\].*negative"),
        (lambda: CorrelatedDephasing(("a", "b"), (0.1,)), "2 rates"),
        (lambda: CorrelatedDephasing(("a", "b", "c"), (0.1,) * 3, -0.8), "need one from -0.5 to 1"),
        (lambda: CorrelatedDephasing(("a", "b"), (0.1,) * 2, [[1, 0.5], [0.2, 1]]), "symmetric"),
        (lambda: CorrelatedDephasing(("a", "b"), (0.1,) * 2, 1.2), "positive"),
        (lambda: CorrelatedDephasing(("a",), (0.1,)), "two or more"),
        (lambda: CorrelatedDephasing(("a", "b"), (0.1,) * 2, axis=(0, 0, 0)), "axis"),
        (lambda: Recombination(-0.1, 0.0), "singlet_rate_per_ns"),
        (lambda: Haberkorn(("a", "b"), 0.1, float("nan")), "triplet_rate_per_ns"),
        (lambda: LorentzianBath(0.1, 0.0), "temperature_k"),
        (lambda: OhmicBath(0.1, 10.0, -1.0), "temperature_k"),
        (lambda: OhmicBath(-0.1, 10.0, 1.0), "coupling"),
        (lambda: Redfield(("r",), 0.1), "spectral_density"),
        (lambda: Redfield(("r",), LorentzianBath(0.1, 1.0), axes="q"), "axes"),
        (lambda: RadicalPair(SpinSystem((0.5, 1), names=("a", "b")), ("a", "b")), "spin 1/2"),
        (lambda: RadicalPair(pair_with_proton(), ("a", "h")), "'h' is not one"),
        (lambda: RadicalPair(PAIR, ("a", "a")), "two different"),
        (lambda: Redfield(("r",), lambda w: -np.abs(w)).superoperator(coupled(1)[0], 0.1), "none negative"),
        (lambda: redfield_tensor(np.eye(2), np.array([[[0, 1], [0, 0]]]), LorentzianBath(1.0, 1.0)), "Hermitian"),
    ],
)
def test_wrong_channels_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_recombination_names_the_system_it_needs():
    with pytest.raises(TypeError, match="RadicalPair"):
        evolve(PAIR, np.eye(4) / 4, [0.0, 1.0], channels=[Recombination(0.1, 0.1)], solver="expm")
    with pytest.raises(TypeError, match="SpinSystem"):
        unit = TwoQubitUnit(1.0)
        evolve(unit, unit.thermal_state(1.0), [0.0, 1.0], channels=[Haberkorn(("a", "b"), 1, 1)], solver="expm")
