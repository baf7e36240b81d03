import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molecular_qubits import Coupler, Disorder, MolecularNetwork, Optics, Preparation, Radical
from molecular_qubits.experiments.gate import MONO_EXCHANGE
from molecular_qubits.network.lattice import GHZ_PER_TESLA


def test_square_lattice_has_the_bonds_and_distances_of_a_grid():
    network = MolecularNetwork.square(3, 4, spacing_nm=2.5)
    assert network.n_sites == 12
    assert nx.is_isomorphic(network.graph(), nx.grid_2d_graph(3, 4))
    ends = network.positions_nm[np.array([bond.sites for bond in network.bonds])]
    assert np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) == pytest.approx(2.5, rel=1e-12)


def test_places_may_be_lists():
    network = MolecularNetwork.place([(0, 0), (2, 0)], [(0, 1)])
    assert network == MolecularNetwork.place(np.array([[0.0, 0.0], [2.0, 0.0]]), [(0, 1)])


def test_honeycomb_has_three_neighbours_inside_and_equal_bonds():
    network = MolecularNetwork.honeycomb(2, 3, spacing_nm=1.5)
    assert nx.is_isomorphic(network.graph(), nx.hexagonal_lattice_graph(2, 3))
    ends = network.positions_nm[np.array([bond.sites for bond in network.bonds])]
    assert np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) == pytest.approx(1.5, rel=1e-9)


@given(st.integers(0, 10**6), st.integers(2, 9), st.floats(0.5, 20))
def test_free_graphs_keep_their_edges_and_the_mean_length_of_their_bonds(seed, n, spacing):
    graph = nx.gnp_random_graph(n, 0.6, seed=seed)
    network = MolecularNetwork.from_graph(graph, spacing, colour=False)
    assert {frozenset(bond.sites) for bond in network.bonds} == {frozenset(edge) for edge in graph.edges}
    if network.bonds:
        ends = network.positions_nm[np.array([bond.sites for bond in network.bonds])]
        assert np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).mean() == pytest.approx(spacing, rel=1e-9)


def test_two_kinds_of_radicals_alternate_and_so_do_kinds_of_couplers_at_each_site():
    kinds = [Radical(molecule="a", g=2.0043), Radical(molecule="b", g=2.0035)]
    bridges = [Coupler(molecule=name) for name in "wxyz"]
    network = MolecularNetwork.square(4, 4, radicals=kinds, couplers=bridges)
    assert all(
        network.sites[a].molecule != network.sites[b].molecule for a, b in (bond.sites for bond in network.bonds)
    )
    used = {bond.molecule for bond in network.bonds}
    assert used == set("wxyz")


def test_frequencies_follow_g_field_gradient_and_offset():
    network = MolecularNetwork.chain(3, 2.0, field_tesla=0.35, gradient_tesla_per_m=(1e6, 0.0))
    step = GHZ_PER_TESLA * network.sites[0].g * 2e-3
    assert np.diff(network.frequencies_ghz) == pytest.approx([step, step], rel=1e-9)
    assert network.frequencies_ghz[1] == pytest.approx(GHZ_PER_TESLA * 2.0043 * 0.35, rel=1e-12)
    assert pytest.approx(13.99624, rel=1e-6) == GHZ_PER_TESLA


def test_thermal_polarisation_is_that_of_the_boltzmann_populations():
    network = MolecularNetwork.chain(2, temperature_k=0.5, preparation=Preparation(method="thermal"))
    ratio = np.exp(-0.0479924307 * network.frequencies_ghz / 0.5)  # h / k_B in K per GHz
    assert network.initial_polarisation == pytest.approx((1 - ratio) / (1 + ratio), rel=1e-6)
    hot = network.model_copy(update={"temperature_k": 300.0})
    assert np.all(hot.initial_polarisation < 1e-3)


def test_json_round_trip_keeps_everything(tmp_path):
    network = MolecularNetwork.square(2, 3, optics=Optics(spot="diffraction"), entangler="iswap")
    network = network.with_disorder(Disorder(j_relative=0.1, g=1e-4, isc_logit=0.5, dead=0.3, offset_mhz=1.0), 7)
    network.save(tmp_path / "network.json")
    assert MolecularNetwork.load(tmp_path / "network.json") == network


def test_disorder_has_the_spreads_asked_for_and_depends_on_the_seed_alone():
    network = MolecularNetwork.chain(4000, colour=False, gradient_tesla_per_m=(0.0, 0.0))
    disorder = Disorder(j_relative=0.1, g=2e-4, isc_logit=0.3, dead=0.2, offset_mhz=3.0)
    drawn = network.with_disorder(disorder, 3)
    assert drawn == network.with_disorder(disorder, 3)
    assert drawn != network.with_disorder(disorder, 4)
    assert np.std(np.log([bond.j_on_cm1 for bond in drawn.bonds])) == pytest.approx(0.1, rel=0.05)
    assert np.std([site.g for site in drawn.sites]) == pytest.approx(2e-4, rel=0.05)
    assert np.std([site.offset_mhz for site in drawn.sites]) == pytest.approx(3.0, rel=0.05)
    assert np.mean([bond.alive for bond in drawn.bonds]) == pytest.approx(0.8, abs=0.03)
    yields = np.array([bond.isc_yield for bond in drawn.bonds])
    assert np.std(np.log(yields / (1 - yields))) == pytest.approx(0.3, rel=0.05)


def test_one_kind_of_disorder_leaves_the_draws_of_the_others():
    network = MolecularNetwork.chain(20)
    only = network.with_disorder(Disorder(j_relative=0.1), 5)
    both = network.with_disorder(Disorder(j_relative=0.1, dead=0.5, g=1e-4), 5)
    assert [bond.j_on_cm1 for bond in only.bonds] == [bond.j_on_cm1 for bond in both.bonds]
    assert network.with_disorder(Disorder(calibrated=True), 5) == network


def test_holds_stay_those_of_the_nominal_coupler_unless_calibrated():
    network = MolecularNetwork.chain(3)
    fixed = network.with_disorder(Disorder(j_relative=0.2), 1)
    own = network.with_disorder(Disorder(j_relative=0.2, calibrated=True), 1)
    assert fixed.hold_ns(0) == network.hold_ns(0)
    assert own.hold_ns(0) != own.hold_ns(1)
    assert network.coupler_ns(0) > network.hold_ns(0)


def test_dead_couplers_are_not_in_the_graph():
    network = MolecularNetwork.square(2, 2)
    bonds = (network.bonds[0].model_copy(update={"alive": False}), *network.bonds[1:])
    broken = network.model_copy(update={"bonds": bonds})
    assert broken.graph().number_of_edges() == 3
    assert broken.graph(dead=True).number_of_edges() == 4
    assert broken.bond_between(1, 0) == 0
    assert broken.bond_between(0, 3) is None


def test_coupler_from_an_exchange_result_has_its_j():
    coupler = Coupler.from_exchange(MONO_EXCHANGE, d_t_cm1=0.071)
    assert coupler.j_on_cm1 == pytest.approx(95, abs=1)
    assert coupler.d_t_cm1 == 0.071


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MolecularNetwork.square(3, 3, spacing_nm=-2.0), "`spacing_nm` must be above 0, but was -2.0"),
        (lambda: MolecularNetwork.square(3, 3, spacing_nm=float("nan")), "`spacing_nm` must be finite"),
        (lambda: MolecularNetwork.square(0, 3), "`rows` must be a whole number of at least 1, but was 0"),
        (lambda: MolecularNetwork.chain(2.5), "`n_sites` must be a whole number"),
        (lambda: MolecularNetwork.honeycomb(2, True), "`columns` must be a whole number"),
        (lambda: MolecularNetwork.from_graph(nx.DiGraph([(0, 1)])), "undirected simple graph"),
        (lambda: MolecularNetwork.from_graph(nx.Graph([(0, 0)])), "no loops"),
        (lambda: MolecularNetwork.from_graph(nx.Graph()), "must have nodes"),
        (lambda: MolecularNetwork.from_graph(nx.path_graph(2), positions_nm={0: (0, 0)}), "lacks 1"),
        (lambda: MolecularNetwork.from_graph(nx.path_graph(2), positions_nm={0: (0, 0), 1: (0, 0)}), "are both at"),
        (lambda: MolecularNetwork.square(2, 2, entangler="cnot"), "entangler must be one of"),
        (lambda: MolecularNetwork.square(2, 2, temprature_k=3), "did you mean 'temperature_k'"),
        (lambda: MolecularNetwork.chain(2, gradient_tesla_per_m=(1e9, 0)), "leave no field at site 0"),
        (
            lambda: MolecularNetwork.build({"sites": [{"position_nm": (0, 0)}], "bonds": [{"sites": (0, 1)}]}),
            "join two",
        ),
        (lambda: Radical(t1_ns=10, t2_ns=21), "t2_ns must be at most"),
        (lambda: Coupler.from_exchange("nowhere.json"), "no file 'nowhere.json'"),
        (lambda: MolecularNetwork.load("nowhere.json"), "cannot be read"),
        (lambda: MolecularNetwork.chain(2).with_disorder(Disorder(), -1), "`seed` must not be negative"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_two_bonds_of_one_pair_are_refused():
    sites = [{"position_nm": (0, 0)}, {"position_nm": (1, 0)}]
    with pytest.raises(ValueError, match="bonds 0 and 1 both join the sites 0 and 1"):
        MolecularNetwork.build({"sites": sites, "bonds": [{"sites": (0, 1)}, {"sites": (1, 0)}]})
