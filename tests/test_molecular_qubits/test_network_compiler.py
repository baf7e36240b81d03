import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molecular_qubits import Circuit, Coupler, Disorder, Microwaves, MolecularNetwork, Optics, compile_circuit
from molecular_qubits.network import addressing
from molecular_qubits.network.blocks import collect_blocks
from molecular_qubits.network.circuits import Instruction
from molecular_qubits.network.compiler import _unrolled, route_circuit
from molecular_qubits.network.examples import random_layers, square_edges
from molecular_qubits.network.gates import STANDARD
from molecular_qubits.network.pulses import flip_probability, rotation_times
from molecular_qubits.network.schedule import Schedule
from molecular_qubits.network.scheduling import frame_rule
from tests.test_molecular_qubits.circuit_helpers import infidelity, random_circuit

SEEDS = st.integers(0, 2**32 - 1)
SLOW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def gate(name, *qubits, angles=()):
    return Instruction(name, qubits, STANDARD[name][2](*angles))


def ghz(n):
    return Circuit(n, (gate("h", 0), *(gate("cx", k, k + 1) for k in range(n - 1))))


def network_of(seed, n_sites, entangler="cz"):
    """Return a random connected network with dead couplers that leave it connected."""
    rng = np.random.default_rng(seed)
    tree = nx.random_labeled_tree(n_sites, seed=int(rng.integers(2**31)))
    places = {k: tuple(3.0 * rng.permutation(60)[:2] + k * 0.01) for k in range(n_sites)}
    graph = nx.Graph(tree.edges)
    graph.add_nodes_from(range(n_sites))
    extra = [tuple(int(s) for s in rng.permutation(n_sites)[:2]) for _ in range(n_sites)]
    graph.add_edges_from(extra)
    ordered = nx.Graph()
    ordered.add_nodes_from(range(n_sites))
    ordered.add_edges_from(graph.edges)
    network = MolecularNetwork.from_graph(ordered, positions_nm=places, entangler=entangler)
    kept = {frozenset(edge) for edge in tree.edges}
    bonds = tuple(
        bond.model_copy(update={"alive": frozenset(bond.sites) in kept or bool(rng.random() < 0.5)})
        for bond in network.bonds
    )
    return network.model_copy(update={"bonds": bonds})


def check_times(network, schedule):
    """Check everything that no schedule may do."""
    used = {site for operation in schedule.operations for site in operation.sites} | set(schedule.initial_sites)
    ends: dict[int, float] = {}
    starts = [operation.start_ns for operation in schedule.operations]
    assert starts == sorted(starts)
    for operation in schedule.operations:
        for site in operation.sites:
            assert operation.start_ns >= ends.get(site, 0.0) - 1e-9
            ends[site] = operation.end_ns
    lit = [operation for operation in schedule.operations if operation.name == "coupler"]
    bonds = [network.bond_between(*operation.sites) for operation in lit]
    assert all(network.bonds[bond].alive for bond in bonds)
    stray = addressing.crosstalk(network)
    for moment in sorted({operation.start_ns for operation in lit}):
        now = [b for b, o in zip(bonds, lit, strict=True) if o.start_ns <= moment < o.end_ns]
        sites = [site for bond in now for site in network.bonds[bond].sites]
        assert len(set(sites)) == len(sites)
        if network.optics.beams is not None:
            assert len(now) <= network.optics.beams
        places = network.bond_positions_nm[now]
        apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(places, 2)]
        assert min(apart, default=np.inf) >= network.optics.least_distance_nm - 1e-6
    for (one, a), (other, b) in itertools.combinations(zip(lit, bonds, strict=True), 2):
        apart = np.linalg.norm(network.bond_positions_nm[a] - network.bond_positions_nm[b])
        if a != b and (apart < network.optics.least_distance_nm - 1e-6 or network.optics.beams == 1):
            gap = max(other.start_ns - one.end_ns, one.start_ns - other.end_ns)
            assert gap >= network.optics.retarget_ns - 1e-9
        for dark, bond in enumerate(network.bonds):
            if dark not in now and used & set(bond.sites):
                assert stray[now, dark].sum() <= network.optics.crosstalk_limit + 1e-5
    turns = [operation for operation in schedule.operations if operation.name == "rotation"]
    _, classes = rotation_times(network, sorted(used))
    mates = {site: set(members) for members in classes for site in members}
    for operation in turns:
        together = {o.sites[0]: o for o in turns if o.start_ns == operation.start_ns}
        assert mates[operation.sites[0]] <= set(together)
        now = {min(mates[o.sites[0]]) for o in turns if o.start_ns <= operation.start_ns < o.end_ns}
        if network.microwaves.tones is not None:
            assert len(now) <= network.microwaves.tones


@pytest.mark.parametrize("entangler", ["cz", "iswap", "sqrt-iswap", "sqrt-swap"])
@SLOW
@given(seed=SEEDS, n_sites=st.integers(2, 7), n_gates=st.integers(1, 12))
def test_a_schedule_is_its_circuit_on_random_graphs_with_dead_couplers(entangler, seed, n_sites, n_gates):
    network = network_of(seed, n_sites, entangler)
    n_qubits = int(np.random.default_rng(seed).integers(1, n_sites + 1))
    circuit = random_circuit(n_qubits, n_gates, seed)
    schedule = compile_circuit(circuit, network, trials=2)
    assert infidelity(circuit, schedule) < 1e-10
    check_times(network, schedule)


@SLOW
@given(seed=SEEDS)
def test_limits_of_beams_and_tones_are_kept(seed):
    light = Optics(beams=1, retarget_ns=float(seed % 3) * 30.0)
    network = MolecularNetwork.square(3, 3, optics=light, microwaves=Microwaves(tones=2))
    circuit = random_circuit(6, 10, seed)
    schedule = compile_circuit(circuit, network, trials=2)
    assert infidelity(circuit, schedule) < 1e-10
    check_times(network, schedule)


@pytest.mark.parametrize("entangler", ["cz", "iswap"])
@SLOW
@given(seed=SEEDS)
def test_tips_do_not_overlap_and_take_time_to_go_on(entangler, seed):
    light = Optics(tip_radius_nm=(2.0, 5.0)[seed % 2], retarget_ns=50.0)
    network = MolecularNetwork.square(
        3, 4, 4.0, optics=light, entangler=entangler, couplers=Coupler(linewidth_cm1=60.0)
    )
    circuit = random_circuit(8, 10, seed)
    schedule = compile_circuit(circuit, network, trials=2)
    assert infidelity(circuit, schedule) < 1e-10
    check_times(network, schedule)


@SLOW
@given(seed=SEEDS)
def test_a_layout_given_is_where_the_qubits_start(seed):
    network = MolecularNetwork.square(2, 3)
    layout = [int(s) for s in np.random.default_rng(seed).permutation(6)[:4]]
    circuit = random_circuit(4, 8, seed)
    schedule = compile_circuit(circuit, network, layout=layout)
    assert list(schedule.initial_sites) == layout
    assert infidelity(circuit, schedule) < 1e-10


@SLOW
@given(seed=SEEDS, n_sites=st.integers(2, 7), n_gates=st.integers(2, 12))
def test_the_cost_of_a_routing_is_the_couplers_that_are_lit(seed, n_sites, n_gates):
    network = network_of(seed, n_sites)
    gates = random_circuit(n_sites, n_gates, seed).instructions
    rng = np.random.default_rng(seed)
    fences = [Instruction("barrier", tuple(int(q) for q in rng.permutation(n_sites)[:2])) for _ in gates]
    circuit = Circuit(n_sites, tuple(step for pair in zip(gates, fences, strict=True) for step in pair))
    blocks = collect_blocks(step for gate in circuit.instructions for step in _unrolled(gate))
    layout = [int(site) for site in rng.permutation(n_sites)]
    routed = route_circuit(blocks, n_sites, network, layout=layout, seed=seed)
    schedule = compile_circuit(circuit, network, layout=layout, seed=seed)
    assert sum(operation.name == "coupler" for operation in schedule.operations) == routed.cost
    assert infidelity(circuit, schedule) < 1e-10


def test_a_routing_is_the_same_for_the_same_seed_and_never_worse_with_more_layouts():
    circuit = random_circuit(9, 40, 5)
    network = MolecularNetwork.square(3, 3)
    costs = [len(compile_circuit(circuit, network, trials=trials).operations) for trials in (3, 3)]
    assert costs[0] == costs[1]
    blocks = collect_blocks(step for gate in circuit.instructions for step in _unrolled(gate))
    found = [route_circuit(blocks, 9, network, trials=trials).cost for trials in (1, 4, 16)]
    assert found == sorted(found, reverse=True)


def test_a_chain_of_gates_on_a_lattice_needs_no_swap():
    schedule = compile_circuit(ghz(9), MolecularNetwork.square(3, 3))
    assert sum(operation.name == "coupler" for operation in schedule.operations) == 8
    assert schedule.initial_sites == schedule.final_sites


def test_a_circuit_drawn_on_its_lattice_stays_where_it_is():
    rows = 8  # too many qubits with too few pairs between them for a search to fit
    edges = square_edges(rows, rows)
    network = MolecularNetwork.square(rows, rows, 4.0, couplers=Coupler(linewidth_cm1=60.0))
    schedule = compile_circuit(random_layers(rows * rows, edges, 3, seed=1, clifford=True), network)
    pairs = [operation.sites for operation in schedule.operations if operation.name == "coupler"]
    assert schedule.initial_sites == schedule.final_sites == tuple(range(rows * rows))
    assert len(pairs) < 3 * len(edges) / 2
    assert {tuple(sorted(pair)) for pair in pairs} <= {tuple(sorted(edge)) for edge in edges}


def test_a_swap_behind_a_gate_of_its_pair_costs_one_coupler_not_three():
    circuit = Circuit(3, (gate("cx", 0, 1), gate("cx", 1, 2), gate("cx", 0, 2)))
    schedule = compile_circuit(circuit, MolecularNetwork.chain(3))
    assert sum(operation.name == "coupler" for operation in schedule.operations) == 4
    assert infidelity(circuit, schedule) < 1e-12


def test_gates_that_undo_each_other_light_nothing():
    circuit = Circuit(2, (gate("cx", 0, 1), gate("rz", 0, angles=(0.3,)), gate("cx", 0, 1)))
    schedule = compile_circuit(circuit, MolecularNetwork.chain(2))
    assert {operation.name for operation in schedule.operations} <= {"rz"}
    assert schedule.duration_ns == 0


def test_a_barrier_keeps_gates_apart_and_in_order():
    circuit = Circuit(2, (gate("cx", 0, 1), Instruction("barrier", (0, 1)), gate("cx", 0, 1)))
    schedule = compile_circuit(circuit, MolecularNetwork.chain(2))
    assert sum(operation.name == "coupler" for operation in schedule.operations) == 2
    split = Circuit(2, (gate("x", 0), Instruction("barrier", (0, 1)), gate("x", 1)))
    first, second = compile_circuit(split, MolecularNetwork.chain(2)).operations
    assert second.start_ns >= first.end_ns
    free = compile_circuit(Circuit(2, (gate("x", 0), gate("x", 1))), MolecularNetwork.chain(2)).operations
    assert free[0].start_ns == free[1].start_ns == 0


def test_first_pulses_end_where_their_radical_is_needed():
    chain = ghz(5)
    schedule = compile_circuit(chain, MolecularNetwork.chain(5), layout=[0, 1, 2, 3, 4])
    for site in range(5):
        steps = [operation for operation in schedule.operations if site in operation.sites]
        coupler = next(operation for operation in steps if operation.name == "coupler")
        first = next(operation for operation in steps if operation.name == "rotation")
        assert first.end_ns == pytest.approx(coupler.start_ns)
    assert infidelity(chain, schedule) < 1e-12


def test_first_pulses_cross_no_barrier():
    steps = (gate("h", 2), Instruction("barrier", (0, 1, 2)), gate("cx", 0, 1), gate("cx", 1, 2))
    schedule = compile_circuit(Circuit(3, steps), MolecularNetwork.chain(3), layout=[0, 1, 2])
    turned = next(o for o in schedule.operations if o.name == "rotation" and o.sites == (2,))
    assert turned.end_ns <= next(o for o in schedule.operations if o.sites == (1,)).start_ns
    assert infidelity(Circuit(3, steps), schedule) < 1e-12


def test_readouts_come_last_on_the_final_sites():
    circuit = Circuit(4, (*ghz(4).instructions, gate("cx", 0, 3), *(Instruction("measure", (k,)) for k in range(4))))
    network = MolecularNetwork.chain(4)
    schedule = compile_circuit(circuit, network)
    read = [operation for operation in schedule.operations if operation.name == "measure"]
    assert sorted(operation.sites[0] for operation in read) == sorted(schedule.final_sites)
    assert all(operation.duration_ns == network.readout.duration_ns for operation in read)


@SLOW
@given(seed=SEEDS)
def test_blocks_are_the_circuit_and_never_follow_each_other_on_a_pair(seed):
    circuit = random_circuit(4, 15, seed, largest=2)
    blocks = collect_blocks(circuit.instructions)
    assert np.abs(Circuit(4, tuple(blocks)).unitary() - circuit.unitary()).max() < 1e-12
    last: dict[int, tuple[int, ...]] = {}
    for block in blocks:
        if len(block.qubits) == 2:
            assert len({last.get(q) for q in block.qubits}) == 2 or last.get(block.qubits[0]) is None
        for qubit in block.qubits:
            last[qubit] = block.qubits
    assert sum(len(block.qubits) == 1 for block in blocks) <= 4


def test_rotations_are_long_enough_for_the_radical_beside():
    network = MolecularNetwork.square(3, 3)
    duration, classes = rotation_times(network, range(9))
    frequency = 1e3 * network.frequencies_ghz
    assert len(classes) == 9
    for site in range(9):
        nearest = np.sort(np.abs(frequency - frequency[site]))[1]
        assert flip_probability(duration[site] / 5, nearest) <= network.microwaves.crosstalk_limit * (1 + 1e-9)


@pytest.mark.parametrize("separation_mhz", [20.0, 60.0])
def test_the_bloch_equations_flip_the_other_radical_as_little_as_promised(separation_mhz):
    from molecular_qubits.network.pulses import CUT, selective_sigma_ns

    sigma = selective_sigma_ns(separation_mhz, 0.01)
    times = np.linspace(-CUT * sigma, CUT * sigma, 4001)
    shape = np.exp(-(times**2) / (2 * sigma**2))
    shape *= np.pi / np.trapezoid(shape, times)
    step = times[1] - times[0]
    flips = []
    for offset in (0.0, 2e-3 * np.pi * separation_mhz):
        state = np.array([1.0 + 0j, 0.0])
        for amplitude in shape:
            length = np.hypot(amplitude, offset)
            axis = np.array([[offset, amplitude], [amplitude, -offset]]) / max(length, 1e-30)
            turn = np.cos(length * step / 2) * np.eye(2) - 1j * np.sin(length * step / 2) * axis
            state = turn @ state
        flips.append(abs(state[1]) ** 2)
    assert flips[0] > 0.999
    assert flips[1] < 0.01


def test_radicals_of_one_frequency_turn_together_or_not_at_all():
    network = MolecularNetwork.chain(3, gradient_tesla_per_m=(0.0, 0.0))
    everywhere = Circuit(3, tuple(gate("h", k) for k in range(3)))
    schedule = compile_circuit(everywhere, network)
    assert {operation.start_ns for operation in schedule.operations if operation.name == "rotation"} == {0.0}
    with pytest.raises(ValueError, match=r"radicals \[0, 1, 2\] lie within .* MHz and turn together, but the circuit"):
        compile_circuit(Circuit(3, (gate("h", 0), gate("cx", 0, 1), gate("cx", 1, 2))), network, layout=[0, 1, 2])
    local = network.model_copy(update={"microwaves": Microwaves(addressing="local")})
    assert infidelity(ghz(3), compile_circuit(ghz(3), local)) < 1e-12


def test_radicals_that_hold_no_qubit_may_turn_along():
    network = MolecularNetwork.chain(3, gradient_tesla_per_m=(0.0, 0.0))
    assert compile_circuit(Circuit(1, (gate("h", 0),)), network).duration_ns > 0


@pytest.mark.parametrize(("name", "rule"), [("cz", "commutes"), ("iswap", "exchanges"), ("sqrt-swap", "mixes")])
def test_rule_of_frames(name, rule):
    assert frame_rule(MolecularNetwork.chain(2, entangler=name).entangler_matrix) == rule


@pytest.mark.parametrize("gradient", [3e6, 5e3, 0.0])
def test_couplers_that_mix_frames_start_when_the_frames_agree(gradient):
    microwaves = Microwaves(addressing="local")
    network = MolecularNetwork.chain(
        3, entangler="sqrt-swap", gradient_tesla_per_m=(gradient, 0.0), microwaves=microwaves
    )
    circuit = random_circuit(3, 6, 5)
    schedule = compile_circuit(circuit, network)
    assert infidelity(circuit, schedule) < 1e-10
    frame = np.zeros(3)
    turns = 0
    for operation in schedule.operations:
        if operation.name == "rz":
            frame[operation.sites[0]] += operation.angles[0]
        if operation.name == "coupler":
            a, b = operation.sites
            apart = network.frequencies_ghz[a] - network.frequencies_ghz[b]
            phase = -2 * np.pi * apart * operation.start_ns - (frame[a] - frame[b])
            assert abs(np.angle(np.exp(1j * phase))) < 1e-5
            turns += 1
    assert turns > 2


@pytest.mark.parametrize(
    ("circuit", "network", "message"),
    [
        (ghz(10), MolecularNetwork.square(3, 3), "must have at most 9 qubits, one a site, but has 10"),
        (ghz(3), MolecularNetwork.from_graph(nx.Graph([(0, 1), (2, 3)])), "connected part of the network has 2 of 4"),
        (ghz(4), MolecularNetwork.chain(4).with_disorder(Disorder(dead=1.0), 0), "3 couplers are dead"),
        ("OPENQASM 3; qubit q; foo q;", MolecularNetwork.chain(2), "Line 1: the gate 'foo' is unknown"),
        (ghz(6), MolecularNetwork.square(2, 3, optics=Optics(longest_nm=351.0)), "cannot be lit without others"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(circuit, network, message):
    with pytest.raises(ValueError, match=message):
        compile_circuit(circuit, network)


def test_bad_arguments_are_named():
    network = MolecularNetwork.from_graph(nx.Graph([(0, 1), (1, 2), (3, 4)]))
    with pytest.raises(ValueError, match="`layout` must hold 2 different sites"):
        compile_circuit(ghz(2), network, layout=[0, 0])
    with pytest.raises(ValueError, match="`layout` puts the qubits 0 and 1 on parts that no couplers join"):
        compile_circuit(ghz(2), network, layout=[0, 3])
    with pytest.raises(ValueError, match="`trials` must be at least 1"):
        compile_circuit(ghz(2), network, trials=0)
    with pytest.raises(TypeError, match="`circuit` must be a Circuit"):
        compile_circuit(3, network)


def test_the_same_seed_gives_the_same_schedule():
    network = MolecularNetwork.square(3, 3)
    circuit = random_circuit(8, 20, 1)
    first, second = (compile_circuit(circuit, network, seed=4) for _ in range(2))
    assert isinstance(first, Schedule)
    assert first.operations == second.operations
