import numpy as np
import pytest

from molecular_qubits.experiments import dynamics
from molecular_qubits.experiments.dynamics import DynamicsConfig
from molecular_qubits.experiments.dynamics_tables import quintet_over_zeeman
from molecular_qubits.experiments.entanglement_maps import draw_maps, entanglement_map, summary_rows
from shared.config import ConfigError
from shared.results import ResultsWriter

FAST = DynamicsConfig(fast=True, j_rt_cm1=68.0)


def test_the_experiment_writes_its_figures_and_tables(tmp_path):
    writer = ResultsWriter(tmp_path, package="molecular_qubits", config=FAST)
    results = dynamics.run(writer, FAST)
    writer.finish()
    folder = tmp_path / "molecular_qubits"
    for name in ("against_time", "against_angle", "against_temperature", "maps"):
        assert (folder / f"concurrence_{name}.png").stat().st_size > 10_000
        assert (folder / f"concurrence_{name}.pdf").exists()
    trajectories = results["trajectories"]
    assert trajectories["lit"].concurrence().max() > 0.05
    for name in ("dark", "unselective", "mixed"):
        assert trajectories[name].concurrence().max() == 0
    assert trajectories["measured"].concurrence()[0] == pytest.approx(0.1, abs=1e-10)
    np.testing.assert_allclose(np.trace(trajectories["lit"].states, axis1=1, axis2=2), 1, atol=1e-10)
    largest = results["temperature"]["largest"]
    assert largest[0] > 0.05
    assert largest[-1] == 0
    (limit,) = results["temperature_limits"]
    assert 30 < limit["relaxation as T^2 (K)"] <= limit["rates kept (K)"] * 1.02 < 200
    controls = {row["control"]: row for row in results["controls"]}
    share = controls["share of Tz in the crossing"]
    assert share["concurrence"] < share["as configured"] < share["concurrence "]
    assert controls["angle of the field (degrees)"]["concurrence"] == 0
    for row in results["multiplets"]:
        assert row["computed"] == pytest.approx(row["law"], abs=1e-9)
    for row in results["thermal"]:
        assert row["quartet share, computed"] == pytest.approx(row["quartet share, known"], abs=5e-4)
    for row in results["zfs"]:
        assert row["D full Hamiltonian (cm^-1)"] == pytest.approx(row["D projected (cm^-1)"], abs=2e-5)
        assert row["D full Hamiltonian (cm^-1)"] == pytest.approx(row["D measured (cm^-1)"], abs=5e-4)


def test_intersystem_crossing_alone_shares_the_population_as_the_coupling_coefficients_say():
    config = FAST.model_copy(
        update={"isc_populations_xyz": (0.0, 0.0, 1.0), "multiplet_rate_per_ns": 0.0, "lattice_rate_per_ns": 0.0}
    )
    unit = dynamics.build_unit(config)
    lit = dynamics.switching(config)["lit"]
    populations = lit.populations(dynamics.quintet_kets(unit))
    after = populations[np.searchsorted(lit.times_ns, 20.0)]
    np.testing.assert_allclose(after / after.sum(), [0, 0.3, 0.4, 0.3, 0], atol=0.01)
    share = after.sum() / lit.expectation(unit.level_projector("T"))[np.searchsorted(lit.times_ns, 20.0)]
    assert share == pytest.approx(5 / 12, abs=0.01)


def test_rotation_of_the_field_ends_the_concurrence():
    populations = dynamics.measured_populations()
    values = [dynamics.rotated_concurrence(populations, angle) for angle in (0, 10, 15, 20, 30, 45, 90)]
    assert values[0] == pytest.approx(0.1, abs=1e-10)
    assert values[2] == pytest.approx(0.057, abs=6e-4)
    assert np.all(np.diff(values) <= 0)
    assert values[4:] == [0, 0, 0]


def test_configuration_refuses_unknown_keys_and_impossible_values():
    with pytest.raises(ConfigError, match="temperature_k"):
        DynamicsConfig.build({"temperatur_k": 10.0})
    with pytest.raises(ConfigError, match="temperature_k"):
        DynamicsConfig.build({"temperature_k": 0.0})


def test_a_sublevel_that_never_decays_and_no_field():
    config = DynamicsConfig(j_rt_cm1=95.0, triplet_decay_rates_per_ns_xyz=(1e-4, 1e-4, 0))
    maps = {
        "field": entanglement_map(config, ("angle_deg", (0.0, 60.0)), ("field_tesla", (0.34, 3.0))),
        "lifetime": entanglement_map(config, ("d_t_cm1", (0.05, 0.1)), ("triplet_lifetime_ns", (1e2, 1e4))),
    }
    assert float(maps["field"].concurrence.sel(angle_deg=0.0, field_tesla=0.34)) > 0.05
    draw_maps(maps, config).canvas.draw()
    left = [row["largest concurrence left when the triplet is gone"] for row in summary_rows(maps)]
    assert np.isnan(left).tolist() == [True, False]
    with pytest.raises(ValueError, match="`field_tesla` must not be 0"):
        quintet_over_zeeman(DynamicsConfig(field_tesla=0.0))


def test_entanglement_map_obeys_its_limits():
    """Cold and short-lived against warm and long-lived: entangled or not; the witness never above the concurrence."""
    config = DynamicsConfig(j_rt_cm1=95.0)
    found = entanglement_map(config, ("temperature_k", (10.0, 300.0)), ("triplet_lifetime_ns", (1e2, 1e4)))
    assert found.concurrence.dims == ("temperature_k", "triplet_lifetime_ns")
    assert np.all(found.concurrence.sel(temperature_k=10.0) > 0.05)
    assert np.all(found.concurrence.sel(temperature_k=300.0) < 1e-9)
    assert np.all(found.witness <= found.concurrence + 1e-9)
    assert np.all(found.left <= found.concurrence + 1e-9)
    assert float(found.radical_triplet.max()) > 0
    turned = entanglement_map(config, ("angle_deg", (0.0, 60.0)), ("field_tesla", (0.34, 3.0)))
    assert float(turned.concurrence.sel(angle_deg=0.0, field_tesla=0.34)) > 0.05
    assert np.all(turned.concurrence.sel(angle_deg=60.0) < 0.01)
