"""What the chemistry must reach: J, T2 and the lifetime of the triplet at once."""

import json

import numpy as np
import pytest

from molecular_qubits.experiments import processor
from molecular_qubits.network.coupler_gate import CouplerNoise
from molecular_qubits.network.operating_region import (
    Cycles,
    cycle_error,
    kept_intervals,
    operating_region,
    smallest,
    smallest_together,
)

COUPLER = CouplerNoise(share_z=1.0, jitter_ns=2e-4)


def test_cycle_error_is_that_of_relaxation_for_a_perfect_coupler() -> None:
    """Each radical loses (2/5) t / T2 of the average fidelity in a time t, driven or not."""
    coupler = CouplerNoise(j_on_cm1=(0.24, 0.24), share_z=1.0, jitter_ns=0.0, max_hold_ns=3.0)
    quiet, _ = cycle_error(coupler, "cz", 1e12, 1e12, 20.0)
    gate, cycle = cycle_error(coupler, "cz", 1e9, 1e4, 20.0)
    assert 0 < quiet < gate < cycle
    assert cycle - gate == pytest.approx(2 * 0.4 * 20.0 / 1e4, rel=0.02)


@pytest.fixture(scope="module")
def cycles() -> Cycles:
    return Cycles(COUPLER, "cz", 20.0, 1.0)


@pytest.fixture(scope="module")
def region(cycles: Cycles):
    return operating_region(
        cycles, j_cm1=(0.05, 0.24), t2_ns=(200.0, 2000.0, 20_000.0), lifetime_ns=(20.0, 200.0, 2000.0, 20_000.0)
    )


def test_region_improves_with_t2_and_lifetime(region) -> None:
    assert dict(region.sizes) == {"t2_ns": 3, "lifetime_ns": 4, "j_cm1": 2}
    for axis in (0, 1):
        assert np.all(np.diff(region["gate"].values, axis=axis) < 0)
        assert np.all(np.diff(region["cycle"].values, axis=axis) < 0)
    assert np.all(region["cycle"].values > region["gate"].values)


@pytest.mark.parametrize("limit", [0.03, 0.015])
def test_what_is_needed_together_keeps_the_limit_and_a_tenth_less_of_both_does_not(cycles, region, limit) -> None:
    point = smallest_together(cycles, region, limit)
    assert point is not None
    assert cycles.errors(point.j_cm1, point.t2_ns, point.lifetime_ns)[1] == point.error <= limit
    assert cycles.errors(point.j_cm1, 0.88 * point.t2_ns, 0.88 * point.lifetime_ns)[1] > limit
    k = region["j_cm1"].values.tolist().index(point.j_cm1)
    errors, t2, lifetime = region["cycle"].values[..., k], region["t2_ns"].values, region["lifetime_ns"].values
    alone = smallest(errors[:, -1], t2.tolist(), limit), smallest(errors[-1], lifetime.tolist(), limit)
    assert cycles.errors(point.j_cm1, *alone)[1] > limit  # each with the other without end: not both


def test_nothing_is_needed_together_where_nothing_is_enough(cycles, region) -> None:
    assert smallest_together(cycles, region, 1e-5) is None


def test_smallest_value_that_keeps_an_error_rate() -> None:
    axis = [1.0, 10.0, 100.0]
    assert smallest(np.array([1e-1, 1e-2, 1e-3]), axis, 1e-2) == pytest.approx(10.0)
    assert smallest(np.array([1e-1, 1e-2, 1e-3]), axis, np.sqrt(1e-5)) == pytest.approx(10**1.5)
    assert smallest(np.array([1e-1, 1e-2, 1e-3]), axis, 1e-4) is None
    assert smallest(np.array([1e-5, 1e-5, 1e-5]), axis, 1e-4) == 1.0
    assert smallest(np.array([1e-3, 1e-1, 1e-3]), axis, 1e-2) == pytest.approx(10**1.5)


def test_intervals_show_islands_and_the_ends_of_the_axis() -> None:
    axis = [1.0, 10.0, 100.0, 1000.0]
    assert kept_intervals(np.array([1e-3, 1e-1, 1e-3, 1e-3]), axis, 1e-2) == [
        (None, pytest.approx(10**0.5)),
        (pytest.approx(10**1.5), None),
    ]
    assert kept_intervals(np.array([1e-1, 1e-3, 1e-1, 1e-1]), axis, 1e-2) == [
        (pytest.approx(10**0.5), pytest.approx(10**1.5))
    ]
    assert kept_intervals(np.full(4, 1e-1), axis, 1e-2) == []
    assert kept_intervals(np.full(4, 1e-3), axis, 1e-2) == [(None, None)]


def test_committed_points_keep_their_error_rates_with_the_rotations_of_the_network() -> None:
    found = json.loads(processor.COMMITTED.read_text(encoding="utf-8"))
    study = processor.ProcessorStudy.build(found["study"])
    cycles = processor.cycles_of(study)
    assert found["region"]["rotation (ns)"] == cycles.rotation_ns == pytest.approx(39.9, abs=0.1)
    for row in found["region"]["smallest"]:
        assert row["J"] is not None
        _, error = cycles.errors(row["J"], row["T2 (ns)"], row["lifetime (ns)"])
        assert error == pytest.approx(row["error there"], abs=1e-9)
        assert error <= row["error rate"]
        assert study.t2_ns[0] < row["T2 (ns)"] < study.t2_ns[-1]
        assert study.lifetime_ns[0] < row["lifetime (ns)"] < study.lifetime_ns[-1]
