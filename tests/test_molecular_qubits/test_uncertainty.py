"""Torsion averages with analytic results, the combined error bar, and bounds of ratios."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import iv

from molecular_qubits.electronic.thermal_average import boltzmann_average
from molecular_qubits.electronic.uncertainty import combine_errors, ratio_or_bound
from molecular_qubits.units import KELVIN_TO_CM1

SCAN = np.arange(0.0, 180.0, 10.0)


@settings(max_examples=30, deadline=None)
@given(barrier=st.floats(-900, 900).map(lambda v: round(v, 6)), temperature=st.floats(80, 600), j0=st.floats(-200, 200))
def test_cosine_profiles_give_bessel_functions(barrier, temperature, j0):
    """E = V/2 (1 - cos 2θ), J = J0 cos² θ: <J> = J0/2 (1 + I1(x)/I0(x)) with x = V / 2kT."""
    theta = np.radians(SCAN)
    x = barrier / 2 / (KELVIN_TO_CM1 * temperature)
    result = boltzmann_average(
        SCAN, barrier / 2 * (1 - np.cos(2 * theta)), j0 * np.cos(theta) ** 2, temperature, period_degrees=180.0
    )
    first, second = iv(1, x) / iv(0, x), iv(2, x) / iv(0, x)
    assert result.mean_cm1 == pytest.approx(j0 / 2 * (1 + first), rel=2e-3, abs=2e-3 * abs(j0) + 1e-12)
    assert result.mean_angle_cosine2 == pytest.approx((1 + first) / 2, abs=2e-3)
    variance = j0**2 / 4 * ((1 + second) / 2 - first**2)
    assert result.standard_deviation_cm1**2 == pytest.approx(variance, rel=2e-2, abs=2e-4 * j0**2 + 1e-12)
    assert result.population_per_degree.sum() * 180 / len(result.grid_degrees) == pytest.approx(1)


def test_narrow_wells_between_the_points_of_the_scan_are_found():
    """A harmonic well at 33° with σ = 4° on a 10° scan: <J> of J = θ² is 33² + σ²; no point of the scan is in it."""
    angles = np.arange(-60.0, 61.0, 10.0)
    energy = 0.5 * KELVIN_TO_CM1 * 100 / 4**2 * (angles - 33.0) ** 2
    result = boltzmann_average(angles, energy, angles**2, 100.0, period_degrees=None)
    assert result.mean_cm1 == pytest.approx(33**2 + 4**2, rel=1e-4)


def test_limits_of_temperature():
    theta = np.radians(SCAN)
    energy, j = 500 * np.cos(2 * theta), 40 * np.cos(theta) ** 2 + 3
    cold, hot = (boltzmann_average(SCAN, energy, j, t, period_degrees=180.0) for t in (0.0, 1e9))
    assert cold.mean_cm1 == pytest.approx(3, abs=0.05)  # perpendicular
    assert hot.mean_cm1 == pytest.approx(23, abs=1e-3)
    shifted = boltzmann_average(SCAN, energy + 1e6, j, 300.0, period_degrees=180.0)
    assert shifted.mean_cm1 == pytest.approx(
        boltzmann_average(SCAN, energy, j, 300.0, period_degrees=180.0).mean_cm1, rel=1e-6
    )


def test_a_repeated_end_point_changes_nothing():
    energy = 300 * np.cos(2 * np.radians(SCAN))
    j = np.cos(np.radians(SCAN)) ** 2
    closed = boltzmann_average(
        np.append(SCAN, 180.0), np.append(energy, energy[0]), np.append(j, j[0]), 200.0, period_degrees=180.0
    )
    assert closed.mean_cm1 == pytest.approx(
        boltzmann_average(SCAN, energy, j, 200.0, period_degrees=180.0).mean_cm1, abs=1e-12
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"angles_degrees": SCAN[::-1]}, "must increase"),
        ({"energies_cm1": np.zeros(3)}, "one common shape"),
        ({"j_cm1": np.full(18, np.nan)}, "whose calculation failed"),
        ({"temperature_k": -1.0}, "`temperature_k` must be 0 or more"),
        ({"period_degrees": 90.0}, "at least the scanned 170"),
        ({"period_degrees": 360.0}, "leaves 190 out"),
        ({"period_degrees": -1.0}, "must be positive"),
        (
            {"period_degrees": 170.0, "j_cm1": np.arange(18.0)},
            "`period_degrees` must be a period .* is 0 at .* and 17 ",
        ),
    ],
)
def test_bad_scans_are_refused(change, words):
    arguments = {
        "angles_degrees": SCAN, "energies_cm1": np.zeros(18), "j_cm1": np.ones(18), "temperature_k": 300.0,
        "period_degrees": 180.0,
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=words):
        boltzmann_average(**arguments)


def test_parts_add_in_squares_and_missing_ones_are_named():
    bar = combine_errors(
        68.0,
        projections_cm1=[68.0, 68.0 + np.sqrt(12) * 3],
        functionals_cm1={"b3lyp": 68.0, "pbe0": 76.0},
        bases_cm1=[50.0, 64.0, 68.0],
    )
    assert bar.parts_cm1 == pytest.approx({"projection": 3.0, "functional": 8 / np.sqrt(2), "basis": 4.0})
    assert bar.total_cm1 == pytest.approx(np.sqrt(9 + 32 + 16))
    assert bar.missing == ("grid", "geometry", "convergence")
    assert bar.resolved
    assert str(bar) == "+68 ± 7.5 cm^-1 (projection 3, functional 5.7, basis 4; without grid, geometry, convergence)"
    assert bar.to_dict()["error_cm1"] == pytest.approx(bar.total_cm1)


def test_a_coupling_below_its_error_is_not_resolved_and_thermal_spread_is_apart():
    thermal = boltzmann_average(SCAN, np.zeros(18), np.cos(np.radians(SCAN)) ** 2, 300.0, period_degrees=180.0)
    bar = combine_errors(thermal.mean_cm1, grids_cm1=[0.0, 0.3], thermal=thermal)
    assert not bar.resolved
    assert bar.total_cm1 == pytest.approx(0.3)
    assert bar.thermal_spread_cm1 == pytest.approx(np.sqrt(1 / 8), rel=1e-3)  # variance of cos²


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"functionals_cm1": {"b3lyp": 1.0}}, "`functionals_cm1` must hold at least 2"),
        ({"grids_cm1": [1.0, np.inf]}, "`grids_cm1`"),
        ({"value_cm1": np.nan}, "`value_cm1`"),
        ({"convergence_cm1": -1.0}, "`convergence_cm1`"),
    ],
)
def test_bad_parts_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        combine_errors(**({"value_cm1": 1.0} | arguments))


@given(on=st.floats(1, 1e3), off=st.floats(0.01, 10), error=st.floats(0.001, 10))
def test_the_bound_of_a_ratio_never_exceeds_the_ratio(on, off, error):
    ratio, uncertainty = ratio_or_bound(on, 0.01, off, error)
    assert 0 <= ratio <= on / off * (1 + 1e-12)
    assert (uncertainty is None) == (off <= 2 * error)


def test_ratio_by_hand():
    assert ratio_or_bound(80.0, 8.0, -0.4, 0.02) == pytest.approx((200, 200 * np.hypot(0.1, 0.05)))
    assert ratio_or_bound(80.0, 8.0, 0.01, 0.1) == (pytest.approx(64 / 0.21), None)
    with pytest.raises(ValueError, match="state the resolution"):
        ratio_or_bound(1.0, 0.1, 0.0, 0.0)
