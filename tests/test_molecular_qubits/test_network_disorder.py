"""Molecules that differ: what is drawn reaches the gates, and the study of it."""

import json

import numpy as np
import pytest

from molecular_qubits import Coupler, Disorder, Microwaves, MolecularNetwork, run_circuit
from molecular_qubits.experiments import processor
from molecular_qubits.experiments.disorder import Sweep, sweep_rows
from molecular_qubits.network import addressing, examples
from molecular_qubits.network.noise import GateChannels

LOCAL = Microwaves(addressing="local")


def fidelities(network: MolecularNetwork) -> np.ndarray:
    channels = GateChannels.from_network(network)
    return np.array([channels.gate(*bond.sites).fidelity for bond in network.bonds])


def test_a_gate_is_the_worse_the_smaller_the_yield_that_was_drawn():
    drawn = MolecularNetwork.chain(8).with_disorder(Disorder(isc_logit=1.0), 3)
    yields = np.array([bond.isc_yield for bond in drawn.bonds])
    order = np.argsort(yields)
    assert np.all(np.diff(addressing.triplets_made(drawn)[order]) > 0)
    assert np.all(np.diff(fidelities(drawn)[order]) > 0)
    assert np.ptp(yields) > 0.02


@pytest.mark.parametrize("isc_yield", [0.94, 0.99])
def test_light_made_for_another_yield_makes_more_or_fewer_triplets(isc_yield):
    network = MolecularNetwork.chain(2)
    (bond,) = network.bonds
    changed = {"isc_yield": isc_yield, "dose": float(addressing.doses(network)[0])}
    other = network.model_copy(update={"bonds": (bond.model_copy(update=changed),)})
    made, wanted = addressing.triplets_made(other)[0], network.optics.triplet_probability
    assert (made > wanted) == (isc_yield > 0.98)
    assert addressing.crosstalk(other)[0, 0] == pytest.approx(made, abs=1e-12)
    assert (fidelities(other)[0] > fidelities(network)[0]) == (isc_yield > 0.98)


def test_no_draw_of_the_yield_refuses_the_network():
    network = MolecularNetwork.chain(10)
    for seed in range(20):
        for calibrated in (False, True):
            drawn = network.with_disorder(Disorder(isc_logit=1.0, calibrated=calibrated), seed)
            assert np.all(addressing.triplets_made(drawn) > 0.5)


def test_own_light_is_stronger_where_the_yield_is_low_and_makes_what_can_be_reached():
    network = MolecularNetwork.chain(10)
    kept = network.with_disorder(Disorder(isc_logit=0.5), 0)
    own = network.with_disorder(Disorder(isc_logit=0.5, calibrated=True), 0)
    assert np.ptp(addressing.doses(kept)) == 0
    low = np.array([bond.isc_yield for bond in own.bonds]) < 0.98
    assert np.all((addressing.doses(own) > addressing.doses(network)) == low)
    assert np.all(addressing.triplets_made(own) <= network.optics.triplet_probability + 1e-12)
    assert np.all((addressing.triplets_made(own) > addressing.triplets_made(kept)) == low)


def test_a_coupler_of_the_yield_of_anthracene_has_a_worse_gate_but_is_one():
    network = MolecularNetwork.chain(3, couplers=Coupler(isc_yield=0.7))
    made = addressing.triplets_made(network)
    assert np.all((made > 0.9) & (made < 0.98))
    assert np.all(fidelities(network) < fidelities(MolecularNetwork.chain(3)))
    assert run_circuit(network, examples.ghz(3)).fidelity > 0.5


def test_study_of_disorder_loses_with_its_size():
    network = MolecularNetwork.square(2, 2, 4.0, couplers=Coupler(linewidth_cm1=60.0), microwaves=LOCAL)
    sweeps = (
        Sweep(quantity="j_relative", sizes=(0.003, 0.03)),
        Sweep(quantity="j_relative", sizes=(0.03,), calibrated=True),
        Sweep(quantity="dead", sizes=(0.5,)),
    )
    rows = sweep_rows(network, examples.ghz(4, examples.square_edges(2, 2)), sweeps, 4)
    fixed, own = (
        [row for row in rows if row["disorder"] == "j_relative" and row["calibrated"] is c] for c in (False, True)
    )
    assert fixed[0]["fidelity"] > fixed[1]["fidelity"] > fixed[2]["fidelity"]
    assert fixed[0]["gate"] > fixed[1]["gate"] > fixed[2]["gate"]
    assert own[1]["fidelity"] > fixed[2]["fidelity"] + 0.3
    assert all(row["lowest"] <= row["fidelity"] for row in fixed)
    dead = [row for row in rows if row["disorder"] == "dead"][1]
    assert 0 < dead["not possible"] <= 4
    with pytest.raises(ValueError, match="dead"):
        Sweep(quantity="dead", sizes=(1.5,))


def test_committed_disorder_shows_what_each_kind_costs():
    rows = json.loads(processor.COMMITTED.read_text(encoding="utf-8"))["disorder"]
    table = {(row["disorder"], row["calibrated"], row["by frequency"], row["size"]): row for row in rows}
    alike = table["j_relative", False, False, 0.0]["fidelity"]
    assert table["j_relative", False, False, 0.03]["fidelity"] < 0.05
    assert table["j_relative", True, False, 0.03]["fidelity"] > 0.9 * alike
    assert table["g", False, False, 1e-3]["fidelity"] == pytest.approx(alike, rel=0.02)
    assert table["isc_logit", False, False, 2.0]["fidelity"] < table["isc_logit", False, False, 0.2]["fidelity"] < alike
    assert table["dead", False, False, 0.3]["not possible"] > table["dead", False, False, 0.03]["not possible"]
    assert {row["networks"] for row in rows if row["size"]} == {8}
