import math

import pytest

from molecular_qubits import units


def test_hartree_in_wavenumbers_is_the_codata_value():
    assert pytest.approx(219474.63136314, rel=1e-10) == units.HARTREE_TO_CM1


def test_boltzmann_and_bohr_magneton_in_wavenumbers_are_the_codata_values():
    assert pytest.approx(0.695034800, rel=1e-8) == units.KELVIN_TO_CM1
    assert pytest.approx(0.46686447719, rel=1e-8) == units.MU_B_CM1_PER_T


def test_one_electronvolt_in_every_unit():
    assert pytest.approx(8065.543937, rel=1e-9) == units.EV_TO_CM1
    assert units.cm1_to_mev(units.EV_TO_CM1) == pytest.approx(1000.0, rel=1e-12)
    assert units.cm1_to_kelvin(units.EV_TO_CM1) == pytest.approx(11604.51812, rel=1e-9)
    assert units.cm1_to_ghz(units.EV_TO_CM1) == pytest.approx(241798.9242, rel=1e-9)


def test_angular_frequency_is_two_pi_times_frequency():
    assert units.cm1_to_rad_per_ns(3.0) == pytest.approx(2 * math.pi * units.cm1_to_ghz(3.0), rel=1e-14)
