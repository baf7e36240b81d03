import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyscf.data.nucprop import ISOTOPE_GYRO
from scipy.spatial.transform import Rotation

from molecular_qubits.spins import quantities
from molecular_qubits.spins.frames import euler_angles, euler_frame, oriented
from molecular_qubits.spins.point_dipoles import point_dipole_tensors
from molecular_qubits.spins.quantities import parse_field_tesla, parse_quantity
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import point_dipole_tensor, zfs_tensor
from molecular_qubits.structure.elements import ELEMENTS
from molecular_qubits.structure.nuclei import ISOTOPES, isotope
from molecular_qubits.units import CM1_TO_RAD_PER_NS, MHZ_TO_CM1, MILLITESLA_TO_CM1


def test_nuclear_g_factors_agree_with_an_independent_table():
    compared = 0
    for element, number in ELEMENTS.items():
        mass, spin, g = ISOTOPE_GYRO[number][0]
        if f"{mass}{element}" in ISOTOPES:
            found = ISOTOPES[f"{mass}{element}"]
            assert (found.spin, found.g_factor) == (spin, pytest.approx(g, rel=1e-6)), found.symbol
            compared += 1
    assert compared > 25
    assert pytest.approx(ISOTOPES["1H"].g_factor, rel=1e-8) == 5.5856946893  # CODATA 2022


def test_a_proton_turns_at_its_larmor_frequency_and_against_the_electron():
    proton = SpinSystem((0.5,), isotopes={0: "1H"}).hamiltonian_matrix(1.0)
    frequency_mhz = (proton[0, 0] - proton[1, 1]).real / (2 * np.pi) * 1e3
    assert frequency_mhz == pytest.approx(-42.577478615, rel=1e-8)  # CODATA 2022: the shielding-free proton
    assert SpinSystem((0.5,)).hamiltonian_matrix(1.0)[0, 0].real > 0


def test_hyperfine_levels_of_hydrogen_follow_breit_and_rabi():
    a, field = 1420.4057518, 0.05
    system = SpinSystem((0.5, 0.5), isotopes={1: "1H"}, hyperfine={(1, 0): a * MHZ_TO_CM1})
    levels = np.linalg.eigvalsh(system.hamiltonian_matrix(field)) / (2 * np.pi) * 1e3
    zeeman = np.diff(np.linalg.eigvalsh(SpinSystem((0.5,)).hamiltonian_matrix(field)))[0] / (2 * np.pi) * 1e3
    nuclear = 42.577478615 * field
    mixed = 0.5 * np.hypot(a, zeeman + nuclear)
    expected = np.sort([a / 4 + (zeeman - nuclear) / 2, a / 4 - (zeeman - nuclear) / 2, -a / 4 + mixed, -a / 4 - mixed])
    np.testing.assert_allclose(levels, expected, rtol=1e-8)


def test_quadrupole_splitting_of_a_deuteron_at_zero_field():
    kappa = 0.2 * MHZ_TO_CM1
    tensor = kappa * np.diag([-1, -1, 2]) / 4
    levels = np.linalg.eigvalsh(SpinSystem((1,), isotopes={0: "2H"}, zfs={0: tensor}).hamiltonian_matrix())
    assert levels[2] - levels[0] == pytest.approx(0.75 * kappa * CM1_TO_RAD_PER_NS, rel=1e-12)


def test_an_own_nuclear_g_factor_takes_the_place_of_the_table():
    system = SpinSystem((0.5, 0.5), g=(2.0, 3.0), isotopes={1: "1H"})
    ratio = (
        SpinSystem((0.5,), isotopes={0: "1H"}).hamiltonian_matrix(1.0)[0, 0]
        / system.site_hamiltonian("spin_1", 1.0)[0, 0]
    )
    assert ratio.real == pytest.approx(ISOTOPES["1H"].g_factor / 3.0, rel=1e-12)
    assert system.nuclear_g(1) == 3.0
    assert system.electrons == (0,)


def test_a_millitesla_is_the_splitting_of_a_free_electron():
    levels = np.linalg.eigvalsh(SpinSystem((0.5,)).hamiltonian_matrix(1e-3))
    assert levels[1] - levels[0] == pytest.approx(MILLITESLA_TO_CM1 * CM1_TO_RAD_PER_NS, rel=1e-12)


@given(angles=st.tuples(st.floats(-179, 179), st.floats(0.01, 179.9), st.floats(-179, 179)))
@settings(max_examples=60, deadline=None)
def test_euler_angles_are_those_of_scipy_and_come_back(angles):
    frame = euler_frame(angles)
    np.testing.assert_allclose(frame, Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix(), atol=1e-14)
    np.testing.assert_allclose(euler_angles(frame), angles, atol=1e-6)
    np.testing.assert_allclose(euler_frame(euler_angles(frame)), frame, atol=1e-12)


@pytest.mark.parametrize("angles", [(30, 0, 40), (30, 180, 40), (0, 0, 0), (200, 90, -170)])
def test_frames_with_the_axis_along_z_come_back(angles):
    frame = euler_frame(angles)
    np.testing.assert_allclose(euler_frame(euler_angles(frame)), frame, atol=1e-12)


def test_a_tensor_turns_with_its_frame():
    frame = euler_frame((20, 50, 0))
    polar = [np.sin(np.radians(50)) * np.cos(np.radians(20)), np.sin(np.radians(50)) * np.sin(np.radians(20))]
    np.testing.assert_allclose(frame[:2, 2], polar, atol=1e-14)
    np.testing.assert_allclose(oriented((-0.02 + 0.001, -0.02 - 0.001, 0.04), frame), zfs_tensor(0.06, 0.001, frame))


def test_point_dipoles_from_coordinates():
    positions = [(0, 0, 0), None, (0, 3.0, 4.0), (0, 0, 2.0)]
    found = point_dipole_tensors(positions, g=(2.0, 2.0, (2.0, 2.1, 2.2), None), isotopes={3: "1H"})
    assert set(found) == {(0, 2), (0, 3), (2, 3)}
    np.testing.assert_allclose(found[0, 2], point_dipole_tensor((0, 3, 4), 2.0, 2.1))
    # T_zz of a proton 2 angstrom from an electron of g = 2.0023 is 2 x 79.06 MHz / r^3 = 19.8 MHz
    assert found[0, 3][2, 2] / MHZ_TO_CM1 == pytest.approx(2 * 79.06 / 8 * 2.0 / 2.0023, rel=1e-3)
    for tensor in found.values():
        np.testing.assert_allclose([np.trace(tensor), np.max(np.abs(tensor - tensor.T))], 0, atol=1e-15)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("350 mT", "field", 0.35),
        ("3400G", "field", 0.34),
        (" -1.5e-1 T ", "field", -0.15),
        ("29.9792458 GHz", "energy", 1.0),
        ("1 cm^-1", "energy", 1.0),
        ("5 us", "time", 5000.0),
        ("10 K", "temperature", 10.0),
        (".5 nm", "length", 5.0),
    ],
)
def test_quantities_with_a_unit_are_read(text, kind, value):
    assert parse_quantity(text, kind) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (0.35, r"`field` must state its unit \(T, mT.*write '0.35 T'"),
        ("0.35", "must state its unit"),
        ("350 mt", "did you mean 'mT'"),
        ("much T", "a number with a unit, such as '1 T'"),
        ("350 ns", "a unit of field"),
        ("1e999 T", "finite"),
        (None, "a number with a unit"),
        (True, "a number with a unit"),
    ],
)
def test_fields_without_a_unit_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_field_tesla(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spins": (0.5, 1), "isotopes": {1: "1H"}}, "nuclear spin 0.5 of 1H at index 1, but holds 1.0"),
        ({"spins": (0.5, 0.5), "isotopes": {1: "14n"}}, "did you mean '14N'"),
        ({"spins": (0.5, 0.5), "isotopes": {2: "1H"}}, "keys from 0 to 1"),
        ({"spins": (0.5, 0.5), "hyperfine": {(0, 1): 1e-3}}, "an electron and a nucleus"),
        ({"spins": (0.5, 0.5), "isotopes": {1: "1H"}, "hyperfine": {(0, 1): np.ones((2, 2))}}, r"shape \(3, 3\)"),
        (
            {"spins": (0.5, 0.5), "isotopes": {1: "1H"}, "hyperfine": {(0, 1): np.triu(np.ones((3, 3)))}},
            "hyperfine.*symmetric",
        ),
        ({"spins": (0.5, 0.5), "isotopes": {1: "1H"}, "g": (2.0, "x")}, r"g\[1\]"),
    ],
)
def test_wrong_nuclei_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpinSystem(**arguments)


def test_wrong_frames_positions_and_fields_are_refused():
    with pytest.raises(ValueError, match="angles_deg"):
        euler_frame((1, 2))
    with pytest.raises(ValueError, match="are both at"):
        point_dipole_tensors([(0, 0, 1), (0, 0, 1)])
    with pytest.raises(ValueError, match=r"positions_angstrom\[1\]"):
        point_dipole_tensors([(0, 0, 1), (0, 1)])
    with pytest.raises(ValueError, match="parse_field_tesla"):
        SpinSystem((0.5,)).hamiltonian_matrix("350 mT")
    with pytest.raises(ValueError, match="must be that of a nucleus"):
        SpinSystem((0.5,)).nuclear_g(0)
    with pytest.raises(ValueError, match="up to krypton"):
        isotope("235U")


def test_the_example_of_the_parser_holds():
    outcome = doctest.testmod(quantities)
    assert outcome.failed == 0
    assert outcome.attempted > 0
