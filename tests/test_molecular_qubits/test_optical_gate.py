import json

import numpy as np
import pytest

from molecular_qubits import cli
from molecular_qubits.control.fidelity import best_local_fidelity, decay_bound, local_only_fidelity, target_gate
from molecular_qubits.control.optical_gate import (
    Member,
    OpticalGate,
    OpticalGateConditions,
    _first,
    optimise_sequence,
)
from molecular_qubits.experiments import addressing, optical_gate
from molecular_qubits.spins.channels.relaxation import PureDephasing
from molecular_qubits.spins.channels.transfer import Emission
from molecular_qubits.spins.evolution import evolve
from molecular_qubits.spins.unit import TwoQubitUnit
from shared.artifacts import Cache
from shared.config import ConfigError

SMALL = OpticalGateConditions(target="sqrt-iswap", j_on_cm1=0.01, max_hold_ns=5.0, max_light_ns=0.01, slices=2)


def variables(gate, hold=1.0, waves=0.3):
    rng = np.random.default_rng(1)
    limits = gate.conditions
    return np.concatenate(
        [np.log([limits.max_light_ns, hold, limits.max_light_ns]), [0.8, 0.9], rng.uniform(-waves, waves, 4)]
    )


def test_gradient_is_that_of_differences():
    gate = OpticalGate(SMALL, (Member(), Member(1.05, 0.9, 0.5)))
    x = variables(gate)
    target = best_local_fidelity(gate.mean_channel(x), gate.gate)[1]
    value, slope = gate.value_and_gradient(x, target)
    for place in range(len(x)):
        step = 1e-5 * np.eye(len(x))[place]
        up, down = (gate.value_and_gradient(x + sign * step, target)[0] for sign in (1, -1))
        assert slope[place] == pytest.approx((up - down) / 2e-5, abs=1e-7)
    assert 0 < value < 1


def test_without_microwaves_it_is_the_lindblad_equation_of_the_unit():
    """The hold alone from the triplet on: the evolution of the two-qubit unit, which knows nothing of this module."""
    conditions = SMALL.model_copy(
        update={"max_rad_per_ns": 0.0, "t1_ns": 1e9, "t2_ns": 5.0, "triplet_t1_ns": 1e12, "triplet_lifetime_ns": 1e12}
    )
    gate = OpticalGate(conditions)
    elements = gate._elements
    unit = TwoQubitUnit(conditions.j_on_cm1, d_t_cm1=conditions.d_t_cm1, g_radical=0.0, g_triplet=0.0)
    channels = [PureDephasing(name, 1 / 5.0) for name in ("radical_1", "radical_2")]
    channels.append(Emission(conditions.emission_rate_per_ns))
    rng = np.random.default_rng(0)
    ket = np.kron(np.kron(rng.normal(size=2), [0, 0, 0.6, 0.8, 0.0]), rng.normal(size=2)).astype(complex)
    ket /= np.linalg.norm(ket)
    found = evolve(unit, ket, [0.0, 0.7], channels=channels, solver="expm").states[-1]
    from scipy.linalg import expm

    moved = expm(0.7 * (gate._fixed + gate._exchange)) @ elements.vector(np.outer(ket, ket.conj()))
    assert np.asarray(elements.density(moved)) == pytest.approx(found, abs=1e-8)


def test_slow_crossing_has_starts():
    """A crossing as slow as the shortest range of holds: every start takes a jitter that its own range allows."""
    gate = OpticalGate(OpticalGateConditions(isc_rate_per_ns=0.1, slices=1))
    rng = np.random.default_rng(0)
    longest = np.array([bound[1] for bound in gate.bounds])
    for number in range(4):
        start = _first(gate, rng, number)
        assert start[1] <= longest[1] - number * np.log(2)
        assert np.all(np.isfinite(start))


def test_light_brings_the_coupler_there_and_back():
    gate = OpticalGate(SMALL)
    x = variables(gate)
    lit = gate.mean_channel(x)
    dark = gate.mean_channel(np.where(np.arange(len(x)) == 4, 0.0, x))  # no dump: the triplet stays
    assert lit[0, 0] > 0.99
    assert dark[0, 0] < 0.1
    assert np.abs(lit[0, 1:]).max() < 1e-3


def test_optimum_beats_local_rotations_and_stays_below_the_bound():
    gate = OpticalGate(SMALL.model_copy(update={"share_z": 1.0}))
    found = optimise_sequence(gate, starts=1, iterations=8)
    assert local_only_fidelity(target_gate("sqrt-iswap")) < found.fidelity
    assert found.fidelity <= decay_bound(found.duration_ns, SMALL.t1_ns, SMALL.t2_ns)
    assert found.history[-1] >= found.history[0]
    assert found.hold_ns <= SMALL.max_hold_ns * (1 + 1e-9)
    assert np.abs(found.microwaves_rad_per_ns).max() <= SMALL.max_rad_per_ns + 1e-12


@pytest.mark.slow
def test_a_small_study_is_kept_and_drawn(tmp_path):
    study = optical_gate.OpticalGateStudy(
        conditions=SMALL, j_cm1=(0.003, 0.01), t2_ns=(10.0, 1000.0), lifetime_ns=(3.0, 1000.0), starts=1, iterations=2,
        follow_iterations=1,
    )  # fmt: skip
    found = optical_gate.write(study, tmp_path)
    assert (tmp_path / "optical_gate.png").stat().st_size > 20_000
    assert np.all(np.diff(np.array(found["map_t2"]), axis=1) > -1e-3)
    again = optical_gate.write(study, tmp_path / "again", committed=tmp_path / "optical_gate.json")
    assert again["best"] == json.loads((tmp_path / "optical_gate.json").read_text(encoding="utf-8"))["best"]


def test_committed_study_is_that_of_the_defaults():
    known = json.loads(optical_gate.COMMITTED.read_text(encoding="utf-8"))
    study = optical_gate.OpticalGateStudy()
    assert known["study"] == json.loads(json.dumps(study.model_dump(mode="json")))
    best = known["best"]
    gate = OpticalGate(OpticalGateConditions.build(best["conditions"]))
    channel = gate.mean_channel(np.array(best["variables"]))
    assert best_local_fidelity(channel, gate.gate)[0] == pytest.approx(best["fidelity"], abs=1e-6)
    assert known["local_only"] < best["fidelity"] < best["bound_t1_t2"]


def test_bad_input():
    for update, word in (({"t2_ns": -1}, "t2_ns"), ({"target": "cnott"}, "target"), ({"share_z": 2}, "share_z")):
        with pytest.raises(ConfigError, match=word):
            OpticalGateConditions.build(update)
    with pytest.raises(ValueError, match="`ensemble`"):
        OpticalGate(SMALL, ())
    with pytest.raises(ValueError, match="starts"):
        optimise_sequence(OpticalGate(SMALL), starts=0)


def test_a_gradient_and_turned_tensors_separate_frequencies():
    assert addressing.gradient_difference_mhz(1e6, 1.0, 2.0) == pytest.approx(27.99, abs=0.01)
    directions = np.array([[1.0, 0, 0], [0, 1, 0], [0, np.sqrt(0.5), np.sqrt(0.5)]])
    found = addressing.orientation_differences_mhz(directions, 0.34, twist_deg=90.0)
    assert found[:2] == pytest.approx([0, 0], abs=1e-6)  # along the common axis, and midway between the planes
    largest = (2.0050 - 2.0020) * 13.996 * 0.34 * 1e3
    assert abs(found[2]) == pytest.approx(largest, rel=0.01)
    assert np.abs(addressing.orientation_differences_mhz(directions, 0.34, twist_deg=0.0)).max() < 1e-9


def test_committed_addressing_is_that_of_the_settings_and_is_shown_at_once(tmp_path, monkeypatch, capsys):
    known = json.loads(addressing.COMMITTED.read_text(encoding="utf-8"))
    assert known["settings"] == addressing.settings()
    assert known["ways"] == addressing.ways_rows(known["fidelities"])
    (again,) = addressing.fidelity_rows((0.0,), (25.0,))
    assert again["fidelity"] == pytest.approx(known["fidelities"][0]["fidelity"], abs=2e-4)
    monkeypatch.setattr(addressing, "addressing_rows", None)  # nothing may be computed
    monkeypatch.setattr(addressing, "optimise_pulse", None)
    assert cli.main(["control", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Ways of addressing one of two equal radicals" in printed
    assert "The best sequence at other temperatures" in printed
    assert json.loads((tmp_path / "addressing.json").read_text(encoding="utf-8")) == known
    assert (tmp_path / "addressing.png").is_file()


def test_addressing_continues_from_the_cache(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    found = addressing.fidelity_rows((0.0,), (25.0,), cache)
    monkeypatch.setattr(addressing, "addressing_rows", None)
    assert addressing.fidelity_rows((0.0,), (25.0,), cache) == found


@pytest.mark.slow
def test_a_lit_coupler_addresses_the_radical_that_it_couples_to():
    rows = addressing.lit_rows((0.0, 1e-3), duration_ns=40.0, triplets={"M = 1": (1, 0, 0)}, iterations=25)
    assert rows[0]["fidelity"] == pytest.approx(0.4, abs=0.01)
    assert rows[1]["fidelity"] > 0.9
