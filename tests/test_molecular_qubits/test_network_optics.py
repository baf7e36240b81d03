import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.linalg import expm

from molecular_qubits import Coupler, MolecularNetwork, Optics, TwoQubitUnit, evolve
from molecular_qubits.network import addressing, optics
from molecular_qubits.spins.channels.optical import OpticalPulse
from molecular_qubits.spins.channels.transfer import Emission, IntersystemCrossing

RATES = (st.floats(1e-3, 40), st.floats(0.01, 20), st.floats(0.02, 20), st.floats(0.05, 1))


def test_a_spot_of_about_300_nm():
    assert Optics(spot="diffraction").spot_nm(400.0) == pytest.approx(294, abs=1)
    half = optics.gaussian_profile(147.0, 294.0)
    assert half == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("spot", ["diffraction", "plasmonic"])
def test_profiles_are_one_in_the_middle_half_at_half_the_width_and_have_the_area_stated(spot):
    light = Optics(spot=spot)
    width = light.spot_nm(500.0)
    assert light.profile([0.0, width / 2, 50 * width], 500.0) == pytest.approx([1.0, 0.5, 0.0], abs=1e-4)
    area, _ = quad(lambda r: 2 * np.pi * r * float(light.profile(r, 500.0)), 0, np.inf)
    assert area == pytest.approx(light.spot_area_nm2(500.0), rel=1e-6)


def test_tip_profile_is_the_field_of_a_dipole():
    moment = np.array([0.0, 0.0, 1.0])
    for r in (0.0, 3.0, 11.0):
        place = np.array([r, 0.0, -6.0])
        s = np.linalg.norm(place)
        field = (3 * place * (place @ moment) / s**2 - moment) / s**3
        assert optics.tip_profile(r, 6.0) == pytest.approx(field @ field / (4 / 6.0**6), rel=1e-12)


@given(*RATES)
def test_triplet_probability_solves_the_rate_equations(dose, pulse, life, share):
    k = dose / pulse
    matrix = np.array([[-k, k + (1 - share) / life], [k, -k - 1 / life]])
    s0, s1 = expm(matrix * pulse) @ [1.0, 0.0]
    assert optics.triplet_probability(dose, pulse, life, share) == pytest.approx(1 - s0 - (1 - share) * s1, abs=1e-12)


@given(*RATES)
def test_triplet_probability_rises_with_light_to_its_largest_value(dose, pulse, life, share):
    low, high = optics.triplet_probability([dose, 1.1 * dose], pulse, life, share)
    most = optics.largest_triplet_probability(pulse, life, share)
    assert 0 <= low < high + 1e-15
    assert high <= most + 1e-12
    assert optics.triplet_probability(1e7 * (1 + pulse / life), pulse, life, share) == pytest.approx(most, abs=1e-5)


def test_few_photons_give_yield_times_dose_and_none_give_none():
    assert optics.triplet_probability(1e-7, 1.0, 0.3, 0.6) == pytest.approx(0.6e-7, rel=1e-6)
    assert optics.triplet_probability(0.0, 1.0, 0.3, 0.6) == 0


def test_the_spin_dynamics_of_the_unit_give_the_same_triplet():
    unit = TwoQubitUnit(0.0)
    dose, pulse, life, share = 2.5, 0.05, 0.02, 0.7
    channels = [
        OpticalPulse(0.0, pulse, dose / pulse),
        IntersystemCrossing(share / life),
        Emission((1 - share) / life),
    ]
    start = unit.thermal_state(100.0, 0.3)
    found = evolve(unit, start, [0.0, pulse, 60 * life], channels=channels, solver="expm", field_tesla=0.3)
    triplet = np.trace(unit.level_projector("T") @ found.states[-1]).real
    assert triplet == pytest.approx(float(optics.triplet_probability(dose, pulse, life, share)), abs=1e-6)


@given(st.floats(0.01, 0.97))
def test_needed_dose_inverts_the_probability(probability):
    dose = optics.needed_dose(probability, 1e-3, 1e-4, 0.98)
    assert optics.triplet_probability(dose, 1e-3, 1e-4, 0.98) == pytest.approx(probability, abs=1e-12)


def test_a_pulse_too_short_for_its_singlet_is_refused():
    with pytest.raises(ValueError, match=r"`triplet_probability` must be below 0\.4902"):
        optics.needed_dose(0.98, 1e-4, 1e-1, 0.98)


def test_line_shape_of_narrow_light_falls_to_half_at_half_the_width_and_keeps_its_area_when_folded():
    assert optics.line_shape([0.0, 100.0], 200.0, pulse_ns=10.0) == pytest.approx([1.0, 0.5], rel=1e-6)
    offsets = np.linspace(-4000, 4000, 4001)
    areas = [np.trapezoid(optics.line_shape(offsets, 200.0, pulse_ns=t), offsets) for t in (1e-4, 1e-3, 10.0)]
    assert areas == pytest.approx([areas[0]] * 3, rel=1e-9)


def test_progression_has_poisson_heights_above_the_origin_only():
    shape = optics.line_shape([-1400.0, 0.0, 1400.0, 2800.0], 50.0, pulse_ns=10.0, huang_rhys=0.8, vibration_cm1=1400.0)
    assert shape == pytest.approx([0.0, 1.0, 0.8, 0.32], abs=1e-9)


def test_pulse_bandwidth_and_cross_section_are_the_textbook_numbers():
    assert optics.pulse_bandwidth_cm1(1e-4) == pytest.approx(147.2, abs=0.1)  # 100 fs Gaussian
    assert optics.cross_section_cm2(1.0) == pytest.approx(3.8235e-21, rel=1e-4)
    assert optics.photon_energy_j(400.0) == pytest.approx(4.966e-19, rel=1e-3)


def test_energy_of_a_pulse_counts_its_photons():
    dose, extinction, wavelength = 3.0, 1e4, 400.0
    fluence = optics.peak_fluence_j_per_cm2(dose, extinction, wavelength)
    photons = fluence / optics.photon_energy_j(wavelength)
    assert photons * optics.cross_section_cm2(extinction) == pytest.approx(dose, rel=1e-12)
    assert optics.pulse_energy_j(fluence, 1e14) == pytest.approx(fluence, rel=1e-12)


def test_heat_is_conserved_while_it_spreads():
    for time_ns in (1e-3, 1.0):
        reach = np.sqrt(4e-3 * time_ns * 1e-9) * 1e7
        energy, _ = quad(
            lambda r, t: 1.5 * 4 * np.pi * (r * 1e-7) ** 2 * float(optics.temperature_rise_k(5e-19, r, t)) * 1e-7,
            0, 12 * reach, args=(time_ns,),
        )  # fmt: skip
        assert energy == pytest.approx(5e-19, rel=1e-6)


def test_crosstalk_on_its_own_coupler_is_the_probability_wanted_and_symmetric_for_equal_molecules():
    network = MolecularNetwork.square(3, 3, colour=False)
    found = addressing.crosstalk(network)
    assert np.diag(found) == pytest.approx(network.optics.triplet_probability, abs=1e-12)
    assert found == pytest.approx(found.T, abs=1e-14)


def test_couplers_at_the_same_place_are_alike_and_far_apart_untouched():
    network = MolecularNetwork.chain(3, 1e-6, colour=False, gradient_tesla_per_m=(0.0, 0.0))
    assert addressing.crosstalk(network) == pytest.approx(np.full((2, 2), 0.98), abs=1e-9)
    network = MolecularNetwork.chain(3, 5e3, colour=False, gradient_tesla_per_m=(0.0, 0.0))
    assert addressing.crosstalk(network) == pytest.approx(0.98 * np.eye(2), abs=1e-9)


def test_crosstalk_of_faint_light_is_dose_times_overlaps():
    network = MolecularNetwork.chain(3, 10.0, optics=Optics(triplet_probability=1e-6), colour=False)
    first, second = network.bonds
    moved = network.model_copy(
        update={"bonds": (first, second.model_copy(update={"absorption_nm": 403.0, "extinction_per_m_cm": 3e4}))}
    )
    on, off = optics.line_shape([0.0, 1e7 / 400 - 1e7 / 403], 200.0, pulse_ns=network.optics.pulse_ns)
    expected = 1e-6 * 3 * float(off / on) * float(optics.tip_profile(10.0, 6.0))
    assert addressing.crosstalk(moved)[0, 1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("spot", "spacing"), [("plasmonic", 4.0), ("diffraction", 260.0)])
def test_wavelength_classes_leave_no_coupler_that_cannot_be_lit_alone(spot, spacing):
    network = MolecularNetwork.square(6, 6, spacing, optics=Optics(spot=spot), gradient_tesla_per_m=(1e3, 3e2))
    conflicts = addressing.conflict_graph(network)
    assert conflicts.number_of_edges() > 0
    for a, b in conflicts.edges:
        assert network.bonds[a].wavelength_class != network.bonds[b].wavelength_class
    assert max(bond.wavelength_class for bond in network.bonds) < addressing.available_classes(network)
    assert addressing.not_alone(network) == []


def test_conflicts_are_those_of_the_exact_crosstalk():
    kinds = [Coupler(isc_yield=0.98, extinction_per_m_cm=1e4), Coupler(isc_yield=0.9, extinction_per_m_cm=3e4)]
    light = Optics(triplet_probability=0.9)
    network = MolecularNetwork.square(5, 5, 5.0, couplers=kinds, colour=False, optics=light)
    found = addressing.crosstalk(network) > light.crosstalk_limit / 4
    expected = {frozenset((int(a), int(b))) for a, b in np.argwhere(found) if a != b}
    assert {frozenset(edge) for edge in addressing.conflict_graph(network).edges} == expected


def test_a_spot_of_300_nm_cannot_tell_couplers_at_2_nm_apart_by_place():
    network = MolecularNetwork.square(12, 12, 2.0, optics=Optics(spot="diffraction"))
    classes = addressing.colour_classes(network)
    assert len(set(classes)) == len(network.bonds)  # every coupler its own wavelength
    assert len(network.bonds) > addressing.available_classes(network)
    assert addressing.not_alone(network)


def test_a_progression_lights_couplers_of_longer_wavelength_too():
    network = MolecularNetwork.square(3, 3)
    bonds = tuple(bond.model_copy(update={"huang_rhys": 1.0}) for bond in network.bonds)
    pairs = addressing.not_alone(network.model_copy(update={"bonds": bonds}))
    assert pairs
    assert all(bonds[a].absorption_nm < bonds[b].absorption_nm for a, b, _ in pairs)


def test_lines_that_are_given_are_kept_and_the_others_keep_clear_of_them():
    given = [Coupler(absorption_nm=500.0), Coupler(absorption_nm=600.0)]
    network = MolecularNetwork.chain(5, couplers=given)
    assert {bond.absorption_nm for bond in network.bonds} == {500.0, 600.0}
    assert {bond.absorption_nm: bond.wavelength_class for bond in network.bonds} == {600.0: 0, 500.0: 1}
    free = addressing.wavelengths_nm(MolecularNetwork.chain(5))
    mixed = MolecularNetwork.square(2, 3, couplers=[Coupler(absorption_nm=float(free[1]) + 0.5), Coupler()])
    kept = [bond.absorption_nm == float(free[1]) + 0.5 for bond in mixed.bonds]
    assert 0 < sum(kept) < len(kept)
    assert not {0, 1} & {bond.wavelength_class for bond, own in zip(mixed.bonds, kept, strict=True) if not own}
    assert all(kept[a] and kept[b] for a, b, _ in addressing.not_alone(mixed))
    assert MolecularNetwork.build(mixed.model_dump()) == mixed


def test_dead_couplers_take_no_part_in_crosstalk():
    network = MolecularNetwork.chain(3, 1.0, colour=False)
    bonds = (network.bonds[0], network.bonds[1].model_copy(update={"alive": False}))
    assert addressing.crosstalk(network.model_copy(update={"bonds": bonds}))[0, 1] == 0


def test_the_triplet_is_born_by_the_rate_equations_and_as_surely_as_wanted():
    dose, pulse, life, share = 12.0, 1.3, 0.4, 0.8
    times, born = optics.triplet_birth(dose, pulse, life, share)
    assert born[0] == pytest.approx(0, abs=1e-12)
    assert np.all(np.diff(born) >= -1e-12)
    assert born[-1] == pytest.approx(float(optics.triplet_probability(dose, pulse, life, share)), abs=1e-8)
    k = dose / pulse
    matrix = np.array([[-k, k + (1 - share) / life], [k, -k - 1 / life]])
    for when in (0.2, 0.9):
        assert np.interp(when, times, born) == pytest.approx(1 - (expm(matrix * when) @ [1.0, 0.0]).sum(), abs=1e-5)


def test_faint_long_light_makes_births_uniform_over_the_pulse():
    light = Optics(pulse_ns=10.0, triplet_probability=1e-3)
    found = addressing.light_of(MolecularNetwork.chain(2, optics=light, colour=False), 0)
    assert found.birth_spread_ns == pytest.approx(10 / np.sqrt(12), rel=1e-2)


def test_the_defaults_agree_with_each_other():
    network = MolecularNetwork.square(3, 3)
    found = addressing.light_of(network, 0)
    assert found.birth_spread_ns <= network.bonds[0].jitter_ns
    assert found.switching_ns < network.hold_ns(0) / 100
    fluence = optics.peak_fluence_j_per_cm2(found.dose, 1e4, network.bonds[0].absorption_nm)
    assert found.fluence_j_per_cm2 == pytest.approx(fluence, rel=0.01)
    assert found.energy_j < 1e-12
    assert addressing.not_alone(network) == []
