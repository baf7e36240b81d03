import numpy as np
import pytest
import qutip
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.dynamics.laws import violations
from molecular_qubits.spins.channels.optical import CoherentPulse, OpticalPulse
from molecular_qubits.spins.channels.relaxation import PureDephasing, RadicalRelaxation, ThermalRelaxation
from molecular_qubits.spins.channels.transfer import Emission, IntersystemCrossing, TripletDecay
from molecular_qubits.spins.evolution import evolve, evolve_sweep
from molecular_qubits.spins.multiplets import radical_triplet_radical_multiplets
from molecular_qubits.spins.problem import build_problem
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import axial_coupling_tensor, zfs_tensor
from molecular_qubits.spins.trajectory import Trajectory, sweep_dataset
from molecular_qubits.spins.unit import TwoQubitUnit
from molecular_qubits.units import CM1_TO_RAD_PER_NS, KELVIN_TO_CM1

ELECTRON = SpinSystem((0.5,), names=("radical",))
PLUS = np.array([1, 1]) / np.sqrt(2)
MIXED = np.diag([0.7, 0.3])


def unit(j_rt_cm1=68.0, **changes):
    values = {
        "d_t_cm1": 0.063,
        "e_t_cm1": 0.005,
        "j_rr_ground_cm1": 1e-4,
        "g_radical": [2.004, 2.0045],
        "dipolar_rt": axial_coupling_tensor(0.0075),
    }
    return TwoQubitUnit(j_rt_cm1, **{**values, **changes})


def all_channels(temperature_k=30.0):
    return [
        OpticalPulse(0.0, 0.5, 20.0),
        Emission(0.2),
        IntersystemCrossing(2.0, (0.05, 0.05, 0.9)),
        TripletDecay((1e-3, 1e-3, 5e-4)),
        ThermalRelaxation(("radical_1", "coupler", "radical_2"), 1.0, temperature_k, axes="z", level="T"),
        ThermalRelaxation(("coupler",), 1e-3, temperature_k, axes="xy"),
        RadicalRelaxation("radical_1", 1e4, temperature_k, t2_ns=2e3),
        RadicalRelaxation("radical_2", 1e4, temperature_k, t2_ns=2e3),
    ]


@pytest.mark.parametrize("solver", ["qutip", "expm", "jax"])
def test_t1_and_t2_decay_analytically(solver):
    t1, t2, temperature, field = 40.0, 15.0, 0.4, 0.34
    times = np.linspace(0, 60, 7)
    channel = RadicalRelaxation("radical", t1, temperature, t2_ns=t2)
    found = evolve(ELECTRON, PLUS, times, channels=[channel], solver=solver, field_tesla=field)
    lower, upper = np.linalg.eigvalsh(ELECTRON.hamiltonian_matrix(field))
    polarisation = -np.tanh((upper - lower) / (2 * temperature * KELVIN_TO_CM1 * CM1_TO_RAD_PER_NS))
    z = found.expectation(np.diag([1.0, -1.0]))
    np.testing.assert_allclose(z, polarisation * (1 - np.exp(-times / t1)), atol=1e-8)
    coherence = np.exp(-times / t2 - 1j * (upper - lower) * times) / 2
    np.testing.assert_allclose(found.states[:, 0, 1], coherence, atol=1e-8)


def test_pure_dephasing_goes_with_the_square_of_the_change_of_m():
    system = SpinSystem((1,), names=("triplet",))
    ket = np.ones(3) / np.sqrt(3)
    times = np.array([0.0, 2.0, 5.0])
    found = evolve(system, ket, times, channels=[PureDephasing("triplet", 0.1)], solver="expm")
    np.testing.assert_allclose(found.states[:, 0, 1].real, np.exp(-0.1 * times) / 3, atol=1e-12)
    np.testing.assert_allclose(found.states[:, 0, 2].real, np.exp(-0.4 * times) / 3, atol=1e-12)
    np.testing.assert_allclose(found.populations(), 1 / 3, atol=1e-12)


def test_triplet_decay_and_emission_are_exponential():
    system = unit()
    start = np.kron(np.kron([1, 0], system.coupler_ket("Tz")), [1, 0])
    times = np.array([0.0, 100.0, 500.0])
    found = evolve(unit(0.0, d_t_cm1=0.0, e_t_cm1=0.0, dipolar_rt=None), start, times,
                   channels=[TripletDecay((1e-3, 5e-4, 2e-3))], solver="expm")  # fmt: skip
    lit = found.expectation(system.level_projector("T"))
    np.testing.assert_allclose(lit, np.exp(-2e-3 * times), atol=1e-12)
    excited = np.kron(np.kron([1, 0], system.coupler_ket("S1")), [1, 0])
    found = evolve(system, excited, times, channels=[Emission(0.01), IntersystemCrossing(0.03)], solver="expm")
    np.testing.assert_allclose(found.expectation(system.level_projector("S1")), np.exp(-0.04 * times), atol=1e-12)
    assert found.expectation(system.level_projector("T"))[-1] == pytest.approx(0.75, abs=1e-7)


def test_intersystem_crossing_fills_the_zero_field_sublevels_as_asked():
    system = unit(0.0, dipolar_rt=None)
    start = np.kron(np.kron([1, 0], system.coupler_ket("S1")), [0, 1])
    found = evolve(system, start, [0, 50.0], channels=[IntersystemCrossing(1.0, (0.2, 0.1, 0.7))], solver="expm")
    coupler = found.reduced("coupler")[-1]
    shares = [(system.coupler_ket(k).conj() @ coupler @ system.coupler_ket(k)).real for k in ("Tx", "Ty", "Tz")]
    np.testing.assert_allclose(shares, (0.2, 0.1, 0.7), atol=1e-10)


def test_incoherent_pump_saturates_and_a_coherent_pi_pulse_inverts():
    system = unit()
    start = system.thermal_state(30.0)
    times = np.array([0.0, 1.0, 2.0])
    pumped = evolve(system, start, times, channels=[OpticalPulse(0, 1.0, 3.0)], solver="expm")
    excited = pumped.expectation(system.level_projector("S1"))
    np.testing.assert_allclose(excited, [0, (1 - np.exp(-6)) / 2, (1 - np.exp(-6)) / 2], atol=1e-12)
    flipped = evolve(unit(j_rr_ground_cm1=0.0), start, times, channels=[CoherentPulse(0, 1.0, np.pi)], solver="expm")
    np.testing.assert_allclose(flipped.expectation(system.level_projector("S1")), [0, 1, 1], atol=1e-10)


def test_a_gaussian_pulse_is_a_list_of_pieces_with_the_area_of_the_gaussian():
    pulse = OpticalPulse(1.0, 4.0, 1.0, shape="gaussian", slices=200)
    area = sum((stop - start) * factor for start, stop, factor in pulse.segments())
    assert area == pytest.approx(2.0 * np.sqrt(np.pi / (4 * np.log(2))), rel=0.03)
    problem = build_problem(unit(), unit().thermal_state(30.0), [0.0, 10.0], [pulse])
    assert len(problem.pieces) == 202


def test_a_pulse_between_two_output_times_is_not_missed():
    system = unit()
    channel = OpticalPulse(10.0, 1.0, 5.0)
    for solver in ("qutip", "expm", "jax"):
        found = evolve(unit(0.001), system.thermal_state(30.0), [0.0, 40.0], channels=[channel], solver=solver)
        assert found.expectation(system.level_projector("S1"))[-1] == pytest.approx((1 - np.exp(-10)) / 2, abs=1e-8)


def test_thermal_relaxation_in_the_eigenbasis_reaches_gibbs_and_local_does_not():
    system = SpinSystem((0.5, 1), exchange_cm1={(0, 1): 100.0}, zfs={1: zfs_tensor(0.06, 0.01)}, names=("r", "t"))
    start = np.zeros(6)
    start[0] = 1
    gibbs = system.thermal_state(300.0, 0.34)
    quartet = np.linalg.eigh(SpinSystem((0.5, 1), exchange_cm1={(0, 1): 100.0}).hamiltonian_matrix())[1][:, :4]
    shares = {}
    for basis in ("eigen", "local"):
        bath = ThermalRelaxation(("r", "t"), 0.1, 300.0, basis=basis)
        found = evolve(system, start, [0.0, 1e5], channels=[bath], solver="expm", field_tesla=0.34)
        shares[basis] = found.expectation(quartet @ quartet.conj().T)[-1]
        if basis == "eigen":
            np.testing.assert_allclose(found.states[-1], gibbs, atol=1e-8)
    assert shares["eigen"] == pytest.approx(0.894, abs=5e-4)
    assert shares["local"] == pytest.approx(0.667, abs=1e-3)


@given(
    j=st.tuples(*[st.floats(-150, 150)] * 3),
    temperature=st.floats(20, 400),
    field=st.tuples(*[st.floats(-1, 1)] * 3),
)
@settings(max_examples=15, deadline=None)
def test_the_gibbs_state_is_stationary_under_davies(j, temperature, field):
    system = SpinSystem(
        (0.5, 1, 0.5), exchange_cm1={(0, 1): j[0], (1, 2): j[1], (0, 2): j[2]}, zfs={1: zfs_tensor(0.06)}
    )
    gibbs = system.thermal_state(temperature, field)
    bath = ThermalRelaxation(system.names, 0.01, temperature)
    found = evolve(system, gibbs, [0.0, 1e3], channels=[bath], solver="expm", field_tesla=field)
    np.testing.assert_allclose(found.states[-1], gibbs, atol=1e-8)


def random_system(seed):
    rng = np.random.default_rng(seed)
    symmetric = rng.normal(size=(2, 3, 3))
    symmetric = symmetric + symmetric.transpose(0, 2, 1)
    zfs = symmetric[0] - np.trace(symmetric[0]) * np.eye(3) / 3
    system = SpinSystem(
        (0.5, 1),
        g=(rng.normal(2, 0.1), rng.normal(2, 0.1, size=3)),
        exchange_cm1={(0, 1): float(rng.choice([1e-3, 1.0, 100.0]) * rng.normal())},
        zfs={1: 0.05 * zfs},
        dipolar={(0, 1): 0.01 * symmetric[1]},
        names=("r", "t"),
    )
    temperature = float(rng.uniform(1, 300))
    channels = [
        RadicalRelaxation("r", 50.0, temperature, t2_ns=float(rng.uniform(1, 100))),
        ThermalRelaxation(("r", "t"), float(rng.uniform(0, 1)), temperature, axes="xz"),
        ThermalRelaxation(("t",), float(rng.uniform(0, 1)), temperature, basis="local"),
        PureDephasing("t", float(rng.uniform(0, 0.1)), rng.normal(size=3)),
    ]
    ket = rng.normal(size=6) + 1j * rng.normal(size=6)
    return system, channels, ket / np.linalg.norm(ket), rng.uniform(-0.5, 0.5, size=3)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_trace_hermiticity_and_positivity_are_kept(seed):
    system, channels, ket, field = random_system(seed)
    found = evolve(system, ket, [0.0, 0.3, 20.0, 5e3], channels=channels, solver="expm", field_tesla=field)
    np.testing.assert_allclose(np.trace(found.states, axis1=1, axis2=2), 1, atol=1e-10)
    np.testing.assert_allclose(found.states, found.states.conj().transpose(0, 2, 1), atol=1e-14)
    assert np.linalg.eigvalsh(found.states).min() > -1e-10


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None)
def test_solvers_agree_on_short_windows_of_random_systems(seed):
    system, channels, ket, field = random_system(seed)
    times = [0.0, 0.01, 0.05]
    exact = evolve(system, ket, times, channels=channels, solver="expm", field_tesla=field)
    for solver in ("qutip", "jax"):
        other = evolve(system, ket, times, channels=channels, solver=solver, field_tesla=field)
        np.testing.assert_allclose(other.states, exact.states, atol=1e-8)


def test_mesolve_agrees_with_the_exponential_on_the_unit_with_a_pulse():
    system = unit(1.0)
    times = np.array([-0.1, 0.0, 0.2, 0.7])
    start = system.thermal_state(30.0, 0.34)
    found = {
        solver: evolve(system, start, times, channels=all_channels(), solver=solver, field_tesla=0.34)
        for solver in ("qutip", "expm")
    }
    np.testing.assert_allclose(found["qutip"].states, found["expm"].states, atol=1e-8)
    assert found["expm"].expectation(system.level_projector("T"))[-1] > 0.3


@pytest.mark.parametrize("field", [0.34, (0.1, 0.05, 0.3)])
def test_exponential_and_jax_agree_on_stiff_problems(field):
    system = unit(100.0)
    times = np.array([0.0, 0.2, 10.0, 5e3])
    start = np.kron(np.kron([0, 1], system.coupler_ket("Tz")), [1, 0])
    channels = all_channels()[3:]
    found = {
        solver: evolve(system, start, times, channels=channels, solver=solver, field_tesla=field)
        for solver in ("expm", "jax")
    }
    np.testing.assert_allclose(found["jax"].states, found["expm"].states, atol=1e-8)
    np.testing.assert_allclose(np.trace(found["expm"].states, axis1=1, axis2=2), 1, atol=1e-10)


@pytest.mark.parametrize("solver", ["expm", "jax"])
@pytest.mark.parametrize("t1_ns", [1e8, 1e10])
def test_slow_relaxation_beside_fast_crossing_keeps_its_law(solver, t1_ns):
    """Rates 14 orders apart, the fast one on levels without population: exp(-1) after T1, exp(-1/2) of a coherence."""
    system = TwoQubitUnit(10.0)
    channels = [
        IntersystemCrossing(1e4), TripletDecay((1e-3,) * 3), RadicalRelaxation("radical_1", t1_ns, 300.0)
    ]  # fmt: skip
    spin = system.site_operator(system.site_spin("radical_1")[2], "radical_1")
    across = system.site_operator(system.site_spin("radical_1")[0], "radical_1")
    for radical, operator, expected in (([1, 0], spin, np.exp(-1)), (np.sqrt([0.5, 0.5]), across, np.exp(-0.5))):
        ket = np.kron(np.kron(radical, system.coupler_ket("S0")), [1, 0])
        found = evolve(system, ket, [0.0, t1_ns], channels=channels, solver=solver)
        assert 2 * found.expectation(operator)[-1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("duration_ns", [1e2, 1e4, 1e6])
def test_undamped_coherences_are_off_by_no_more_than_their_rounded_angle(duration_ns):
    """Radical and triplet, J = 600 cm^-1: the doublet's phase 3 J t taken modulo 2 pi in extended precision."""
    pair = SpinSystem((0.5, 1), exchange_cm1={(0, 1): 600.0})
    ket = np.kron([1, 0], [0, 0, 1])
    energies, vectors = np.linalg.eigh(pair.hamiltonian_matrix())
    doublet = vectors[:, energies > energies.mean()] @ vectors[:, energies > energies.mean()].conj().T
    angle = np.longdouble(1800.0) * np.longdouble(CM1_TO_RAD_PER_NS) * np.longdouble(duration_ns)
    moved = ket + (np.exp(-1j * float(np.fmod(angle, 2 * np.longdouble(np.pi)))) - 1) * doublet @ ket
    for solver, rounding in (("expm", 5e-16), ("jax", 3e-15)):
        found = evolve(pair, ket, [0.0, duration_ns], solver=solver).states[-1]
        assert np.max(np.abs(found - np.outer(moved, moved.conj()))) < rounding * float(angle)


def test_channels_may_come_one_by_one():
    bath = RadicalRelaxation("radical", 10.0, 300.0)
    for solver in ("expm", "jax"):
        listed = evolve(ELECTRON, [1, 0], [0.0, 50.0], channels=[bath], solver=solver)
        generated = evolve(ELECTRON, [1, 0], [0.0, 50.0], channels=(each for each in [bath]), solver=solver)
        np.testing.assert_array_equal(generated.states, listed.states)


def test_a_sweep_takes_a_state_of_qutip():
    found = evolve_sweep([ELECTRON, ELECTRON], qutip.basis(2, 0), [0.0, 1.0])
    np.testing.assert_allclose(found[1].states[-1], np.diag([1, 0]), atol=1e-12)


def test_a_sweep_equals_its_systems_one_by_one():
    systems = [unit(j) for j in (0.0, 1.0, 68.0)]
    start = systems[0].thermal_state(30.0, 0.34)
    times = [0.0, 1.0, 30.0]
    sweep = evolve_sweep(systems, start, times, channels=all_channels(), field_tesla=0.34, batch_size=2)
    for system, found in zip(systems, sweep, strict=True):
        alone = evolve(system, start, times, channels=all_channels(), solver="expm", field_tesla=0.34)
        np.testing.assert_allclose(found.states, alone.states, atol=1e-9)


def test_the_triplet_entangles_the_radicals_and_the_dark_unit_does_not():
    system = unit(68.0, e_t_cm1=0.0, g_radical=2.0043)
    start = system.thermal_state(30.0, 0.34)
    channels = all_channels()[1:5]
    pulse = OpticalPulse(0.0, 5.0, 5.0)
    times = [0.0, 5.0, 15.0]
    lit = evolve(system, start, times, channels=[*channels, pulse], solver="expm", field_tesla=0.34)
    dark = evolve(system, start, times, channels=channels, solver="expm", field_tesla=0.34)
    assert lit.concurrence()[-1] > 0.05
    np.testing.assert_array_equal(dark.concurrence(), 0)
    kets = radical_triplet_radical_multiplets()["quintet"].kets @ system.level_embedding("T").T
    assert lit.populations(kets)[-1].sum() > 0.6


def test_trajectory_goes_to_netcdf_and_back(tmp_path):
    system = unit()
    found = evolve(system, system.thermal_state(30.0), [0.0, 1.0], channels=[Emission(0.1)], solver="expm")
    found.save(tmp_path / "run.nc")
    again = Trajectory.load(tmp_path / "run.nc")
    np.testing.assert_array_equal(again.states, found.states)
    np.testing.assert_array_equal(again.times_ns, found.times_ns)
    assert (again.dims, again.names, again.solver) == (found.dims, found.names, "expm")
    assert [path.name for path in tmp_path.iterdir()] == ["run.nc"]
    data = found.to_xarray()
    assert data["time_ns"].attrs["units"] == "ns"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RadicalRelaxation("r", 10.0, 300.0, t2_ns=20.1), "at most 2 T1"),
        (lambda: RadicalRelaxation("r", -1.0, 300.0), "t1_ns"),
        (lambda: RadicalRelaxation("r", 10.0, 0.0), "temperature_k"),
        (lambda: ThermalRelaxation(("r",), -0.1, 300.0), "rate_per_ns"),
        (lambda: ThermalRelaxation(("r",), 0.1, -5.0), "temperature_k"),
        (lambda: ThermalRelaxation("r", 0.1, 300.0), "list of site names"),
        (lambda: ThermalRelaxation(("r",), 0.1, 300.0, axes="xx"), "each once"),
        (lambda: ThermalRelaxation(("r",), 0.1, 300.0, basis="global"), "one of"),
        (lambda: PureDephasing("r", -1.0), "rate_per_ns"),
        (lambda: IntersystemCrossing(1.0, (0.5, 0.5, 0.5)), "sum to 1"),
        (lambda: IntersystemCrossing(1.0, (1.5, -0.5, 0.0)), "negative"),
        (lambda: TripletDecay((1.0, 1.0)), "3 numbers"),
        (lambda: Emission(float("nan")), "finite"),
        (lambda: OpticalPulse(0.0, 0.0, 1.0), "duration_ns"),
    ],
)
def test_wrong_channels_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times_ns": [0.0, 2.0, 1.0]}, "goes back at index 2"),
        ({"times_ns": [0.0, 1.0, 1.0]}, "repeats at index 2"),
        ({"times_ns": [0.0, np.nan]}, "finite"),
        ({"times_ns": []}, "list of times"),
        ({"initial_state": np.eye(3) / 3}, "dimension 2"),
        ({"initial_state": [1.0, 1.0]}, "normalise"),
        ({"initial_state": np.diag([1.2, -0.2])}, "positive"),
        ({"initial_state": [[0.5, 0.5], [0.0, 0.5]]}, "Hermitian"),
        ({"solver": "euler"}, "one of"),
        ({"field_tesla": [1.0, 2.0]}, "field_tesla"),
    ],
)
def test_wrong_problems_are_refused(arguments, message):
    valid = {"initial_state": MIXED, "times_ns": [0.0, 1.0], "solver": "expm"}
    with pytest.raises(ValueError, match=message):
        evolve(ELECTRON, **{**valid, **arguments})


def test_channels_of_another_system_are_refused():
    with pytest.raises(TypeError, match="TwoQubitUnit"):
        evolve(ELECTRON, MIXED, [0.0, 1.0], channels=[Emission(0.1)], solver="expm")
    with pytest.raises(ValueError, match="one of"):
        evolve(ELECTRON, MIXED, [0.0, 1.0], channels=[RadicalRelaxation("other", 1.0, 1.0)], solver="expm")
    with pytest.raises(TypeError, match="entry 0"):
        evolve(ELECTRON, MIXED, [0.0, 1.0], channels=["noise"], solver="expm")


def test_too_large_a_dimension_names_the_memory_and_the_solver():
    system = SpinSystem((0.5,) * 9)
    ket = np.zeros(512)
    ket[0] = 1
    with pytest.raises(ValueError, match=r"'qutip'.*GiB"):
        evolve(system, ket, [0.0, 1.0], solver="expm")


def test_too_many_density_matrices_name_the_memory_and_the_remedy():
    large = SpinSystem((0.5,) * 12)
    with pytest.raises(ValueError, match=r"4.2\d* GiB for density matrices of dimension 4096 at 1 times.*trajectories"):
        evolve(large, np.eye(4096)[0], [0.0], solver="qutip")
    with pytest.raises(ValueError, match=r"'trajectories' needs about .* fewer times"):
        evolve(large, np.eye(4096)[0], np.linspace(0, 1, 100), solver="trajectories")


def test_too_long_a_window_names_the_exponential():
    system = unit(100.0)
    with pytest.raises(ValueError, match="'expm'"):
        evolve(system, system.thermal_state(30.0), [0.0, 1e6], solver="qutip")


def test_trajectories_approach_the_exponential_and_repeat():
    """A radical that relaxes in a field: within five standard errors, the same numbers for the same seed."""
    bath = RadicalRelaxation("radical", 5.0, 300.0, 4.0)
    state = np.array([[0.7, 0.2 - 0.1j], [0.2 + 0.1j, 0.3]])
    times = np.linspace(0, 6, 4)
    problem = (ELECTRON, state, times)
    exact = evolve(*problem, channels=[bath], solver="expm", field_tesla=0.01).states
    found = [
        evolve(*problem, channels=[bath], solver="trajectories", field_tesla=0.01, n_trajectories=400, seed=seed).states
        for seed in (3, 3, 4)
    ]
    assert np.max(np.abs(found[0] - exact)) < 5 * 0.5 / np.sqrt(400)
    assert np.array_equal(found[0], found[1])
    assert np.max(np.abs(found[0] - found[2])) > 1e-6


def test_trajectories_meet_a_pulse_between_the_output_times():
    system = unit(0.02)
    channels = [OpticalPulse(0.5, 1.0, 2.0), Emission(0.3), IntersystemCrossing(0.5)]
    state = system.thermal_state(30.0)
    times = [0.0, 0.4, 2.0]
    exact = evolve(system, state, times, channels=channels, solver="expm").expectation(system.level_projector("S0"))
    run = evolve(system, state, times, channels=channels, solver="trajectories", n_trajectories=200)
    found = run.expectation(system.level_projector("S0"))
    assert found[1] == pytest.approx(1, abs=1e-6)  # nothing happens before the pulse
    assert found[2] == pytest.approx(exact[2], abs=0.15)
    assert exact[2] < 0.8


def test_edges_that_differ_by_rounding_are_one():
    """A pulse starts where another ends, 0.1 + 0.2 against 0.3: no piece of 1e-17 ns to stop the trajectories."""
    system = unit(0.02)
    state = system.thermal_state(30.0)
    for second in (0.3, 0.1 + 0.2):
        channels = [OpticalPulse(0.1, 0.2, 3.0), OpticalPulse(second, 0.2, 3.0)]
        problem = build_problem(system, state, [0.0, 0.1, 0.5], channels)
        assert [piece.stop_ns for piece in problem.pieces] == pytest.approx([0.1, 0.3, 0.5], abs=1e-12)
        assert (problem.pieces[0].start_ns, problem.pieces[-1].stop_ns) == (0.0, 0.5)
        found = evolve(system, state, [0.0, 0.1, 0.5], channels=channels, solver="trajectories", n_trajectories=20)
        share = found.expectation(system.level_projector("S1"))
        assert share[1] == pytest.approx(0, abs=1e-9)
        assert share[2] == pytest.approx((1 - np.exp(-2 * 3.0 * 0.4)) / 2, abs=0.4)


def test_trajectories_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="`n_trajectories`"):
        evolve(ELECTRON, MIXED, [0.0, 1.0], solver="trajectories", n_trajectories=0)


def test_a_sweep_as_labelled_data(tmp_path):
    grid = {"field_tesla": [0.1, 0.2], "t1_ns": [5.0, 10.0, 20.0]}
    points = [(field, t1) for field in grid["field_tesla"] for t1 in grid["t1_ns"]]
    runs = evolve_sweep(
        [ELECTRON] * 6, [1, 0], [0.0, 3.0],
        channels=lambda index: [RadicalRelaxation("radical", points[index][1], 300.0)],
        field_tesla=lambda index: points[index][0],
    )  # fmt: skip
    data = sweep_dataset(
        runs, grid, {"up": lambda run: run.populations()[:, 0], "trace": lambda run: run.expectation(np.eye(2))}
    )
    assert data.up.dims == ("field_tesla", "t1_ns", "time_ns")
    data.to_netcdf(tmp_path / "sweep.nc", engine="h5netcdf")
    assert float(data.up.sel(field_tesla=0.2, t1_ns=10.0, time_ns=3.0)) == runs[4].populations()[-1, 0]
    assert np.all(np.diff(data.up.isel(time_ns=-1), axis=1) > 0)  # the longer T1, the more is left
    with pytest.raises(ValueError, match="`trajectories`"):
        sweep_dataset(runs[:5], grid, {})


def test_trace_hermiticity_and_positivity_of_random_systems():
    """As ``python -m benchmarks.dynamics.laws`` checks for 100,000 of them."""
    worst = violations(200, seed=1)
    assert max(worst.values()) < 1e-10


@pytest.mark.parametrize("field", [0.0, 0.34, (0.1, 0.05, 0.3)])
@pytest.mark.parametrize("basis", ["eigen", "local"])
def test_a_sweep_of_degenerate_systems_agrees_with_the_exponential(field, basis):
    """Equal couplings and zero field leave degenerate levels and transitions of equal frequency, others do not."""
    rng = np.random.default_rng(7)
    systems = [
        SpinSystem((0.5, 1, 0.5), exchange_cm1={(0, 1): j, (1, 2): j}, zfs={1: zfs_tensor(d)}, names=("a", "t", "b"))
        for j, d in ((0.0, 0.06), (1.0, 0.0), (1.0, 0.06), (40.0, 0.06))
    ]
    kets = rng.normal(size=(4, 12)) + 1j * rng.normal(size=(4, 12))
    states = kets / np.linalg.norm(kets, axis=1, keepdims=True)
    states[0] = np.eye(12)[3]
    temperatures = (2.0, 30.0, 30.0, 300.0)

    def channels(index):
        kelvin = temperatures[index]
        return [
            ThermalRelaxation(("a", "t"), 0.2, kelvin, axes="xz"),
            RadicalRelaxation("a", 40.0, kelvin, 30.0, basis=basis),
            RadicalRelaxation("b", 50.0, kelvin, 60.0, basis=basis),
            PureDephasing("t", 0.01 * (1 + index)),
        ]

    times = [0.0, 0.2, 30.0, 1e4]
    sweep = evolve_sweep(
        systems, lambda index: states[index], times, channels=channels, field_tesla=field, batch_size=3
    )
    for index, (system, found) in enumerate(zip(systems, sweep, strict=True)):
        alone = evolve(system, states[index], times, channels=channels(index), solver="expm", field_tesla=field)
        np.testing.assert_allclose(found.states, alone.states, atol=1e-9)
        np.testing.assert_allclose(np.trace(found.states, axis1=1, axis2=2), 1, atol=1e-12)


def test_a_sweep_with_a_drive_and_channels_of_its_own_agrees_with_the_exponential():
    units = [unit(0.5), unit(2.0)]
    starts = [units[0].thermal_state(30.0, 0.34), units[1].thermal_state(5.0, 0.34)]

    def channels(index):
        pulse = CoherentPulse(0.1, 0.4, 9.0 + index, 3.0, 0.5, shape="gaussian", slices=4)
        return [pulse, *all_channels()[1:], ThermalRelaxation(("coupler",), 0.1 + index, 30.0, level="T")]

    times = [0.0, 0.2, 1.0]
    sweep = evolve_sweep(units, lambda index: starts[index], times, channels=channels, field_tesla=0.34)
    for index, found in enumerate(sweep):
        alone = evolve(units[index], starts[index], times, channels=channels(index), solver="expm", field_tesla=0.34)
        np.testing.assert_allclose(found.states, alone.states, atol=1e-9)


def test_a_sweep_of_unlike_systems_is_refused():
    with pytest.raises(ValueError, match="`systems` must share their sites, but number 1"):
        evolve_sweep([SpinSystem((0.5,)), SpinSystem((1,))], [1, 0], [0.0, 1.0])
    with pytest.raises(ValueError, match="`systems` must hold at least one"):
        evolve_sweep([], [1, 0], [0.0, 1.0])
