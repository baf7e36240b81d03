"""Codes on a network: fault distance, determinism, matching against brute force, known failure rates."""

import itertools
from math import comb

import numpy as np
import pytest
import stim

from molecular_qubits.network.codes import code_memory, code_network, template
from molecular_qubits.network.decode import LogicalError, MatchingGraph, logical_error
from molecular_qubits.network.molecules import Coupler, Microwaves, Preparation, Readout
from molecular_qubits.network.noise import SOURCES, NoiseSettings
from molecular_qubits.units import cm1_to_rad_per_ns

SETTINGS = {"couplers": Coupler(linewidth_cm1=60.0), "microwaves": Microwaves(addressing="local")}


@pytest.mark.parametrize(("code", "distance", "sites", "bonds"), [("repetition", 5, 9, 8), ("surface", 3, 17, 24)])
def test_networks_have_the_lattice_of_the_code(code: str, distance: int, sites: int, bonds: int) -> None:
    network = code_network(code, distance, 3.0, **SETTINGS)  # type: ignore[arg-type]
    assert (network.n_sites, len(network.bonds)) == (sites, bonds)
    ends = network.positions_nm[np.array([bond.sites for bond in network.bonds])]
    assert np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) == pytest.approx(3.0)


@pytest.mark.parametrize(("code", "distance"), [("repetition", 3), ("repetition", 5), ("surface", 3)])
def test_memory_keeps_its_bit_without_noise_and_needs_d_faults(code: str, distance: int) -> None:
    network = code_network(code, distance, **SETTINGS)  # type: ignore[arg-type]
    quiet = code_memory(code, distance, network=network, noise=NoiseSettings(off=SOURCES))  # type: ignore[arg-type]
    assert logical_error(quiet.circuit, quiet.rounds, 50, decoder="networkx").failures == 0
    settled = NoiseSettings().without("light crosstalk")  # it couples pairs at the wrong time: one fault less is needed
    noisy = code_memory(code, distance, network=network, noise=settled)  # type: ignore[arg-type]
    model = noisy.circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)
    assert model.num_observables == 1
    assert len(noisy.circuit.shortest_graphlike_error()) == distance  # also: every detector is certain without noise
    ideal = template(code, distance, noisy.rounds)  # type: ignore[arg-type]
    assert noisy.circuit.num_detectors == ideal.num_detectors
    assert noisy.circuit.num_measurements == ideal.num_measurements
    assert noisy.cycle_ns > network.readout.duration_ns


def test_better_networks_fail_less() -> None:
    network = code_network("surface", 3, **SETTINGS)
    rates = []
    for scale in (1.0, 0.3, 0.05):
        memory = code_memory("surface", 3, network=network, scale=scale)
        rates.append(logical_error(memory.circuit, 3, 600, seed=1, decoder="networkx").per_round)
    assert rates[0] > 3 * rates[1] > 9 * rates[2]


def test_code_with_flips_alone_fails_as_the_binomial_says() -> None:
    """One round, perfect checks, independent flips of the data: the majority decides."""
    p, distance, shots = 0.15, 5, 40_000
    circuit = stim.Circuit(f"R 0 1 2 3 4\nX_ERROR({p}) 0 1 2 3 4\nM 0 1 2 3 4")
    for k in range(4):
        circuit.append("DETECTOR", [stim.target_rec(k - 5), stim.target_rec(k - 4)])
    circuit.append("OBSERVABLE_INCLUDE", [stim.target_rec(-5)], 0)
    found = logical_error(circuit, 1, shots, seed=2, decoder="networkx")
    wanted = sum(comb(distance, k) * p**k * (1 - p) ** (distance - k) for k in range(3, 6))
    assert found.per_shot == pytest.approx(wanted, abs=4 * np.sqrt(wanted / shots))
    low, high = found.interval
    assert low < found.per_round < high


def test_matching_is_of_minimum_weight() -> None:
    rng = np.random.default_rng(0)
    n = 6
    edges = [(a, b, bool(rng.integers(2)), float(rng.uniform(0.01, 0.3)))
             for a, b in itertools.combinations(range(n), 2) if rng.random() < 0.6]  # fmt: skip
    edges += [(a, n, bool(rng.integers(2)), float(rng.uniform(0.01, 0.3))) for a in range(n)]
    lines = [f"error({p}) D{a} {'' if b == n else f'D{b}'} {'L0' if flips else ''}" for a, b, flips, p in edges]
    graph = MatchingGraph.from_model(stim.DetectorErrorModel("\n".join(lines)))
    weights = np.array([np.log((1 - p) / p) for *_, p in edges])
    best: dict[tuple[int, ...], tuple[float, bool]] = {}
    for chosen in itertools.product((False, True), repeat=len(edges)):  # all sets of errors
        mask = np.array(chosen)
        syndrome = np.zeros(n + 1, dtype=int)
        for on, (a, b, _, _) in zip(chosen, edges, strict=True):
            if on:
                syndrome[a] ^= 1
                syndrome[b] ^= 1
        key = tuple(np.flatnonzero(syndrome[:n]))
        weight = float(weights[mask].sum())
        if weight < best.get(key, (np.inf, False))[0]:
            parity = bool(sum(flips for on, (*_, flips, _) in zip(chosen, edges, strict=True) if on) % 2)
            best[key] = (weight, parity)
    assert len(best) == 2**n
    for key, (_, parity) in best.items():
        events = np.isin(np.arange(n), key)[None]
        assert graph.decode(events)[0] == parity, key


def test_agrees_with_pymatching() -> None:
    pytest.importorskip("pymatching")
    memory = code_memory("surface", 3, network=code_network("surface", 3, **SETTINGS))
    ours, theirs = (logical_error(memory.circuit, 3, 1000, 3, decoder) for decoder in ("networkx", "pymatching"))
    assert abs(ours.failures - theirs.failures) <= 2  # ties


def test_rate_per_round() -> None:
    found = LogicalError(1000, 95, 10)
    e = found.per_round
    assert 1 - (1 - 2 * e) ** 10 == pytest.approx(2 * 0.095)
    assert LogicalError(100, 60, 3).per_round == 0.5


def test_errors_of_the_network_reach_the_circuit() -> None:
    network = code_network(
        "repetition", 3, preparation=Preparation(polarisation=0.8), readout=Readout(fidelity_0=0.9, fidelity_1=0.96),
        **SETTINGS,
    )  # fmt: skip
    text = str(code_memory("repetition", 3, rounds=2, network=network).circuit)
    assert "X_ERROR(0.1) 0" in text
    assert "MR(0.07) 1" in text
    half = str(code_memory("repetition", 3, rounds=2, network=network, scale=0.5).circuit)
    assert "MR(0.035) 1" in half
    assert text.count("CZ") == 2 * 4


def test_radicals_that_wait_exchange_through_dark_couplers() -> None:
    """Between unequal radicals the exchange is Z Z: exp(i J t Z Z / 2), as Paulis Z Z with sin^2(J t / 2)."""
    network = code_network(
        "repetition", 3, couplers=Coupler(linewidth_cm1=60.0, j_off_cm1=2e-6), readout=Readout(duration_ns=500.0)
    )
    only = NoiseSettings().only("dark exchange", "hold")
    circuit = code_memory("repetition", 3, rounds=3, network=network, noise=only).circuit
    channels = [(step.gate_args_copy(), step.target_groups()) for step in circuit if step.name == "PAULI_CHANNEL_2"]
    found = [p for (*others, p), pairs in channels for _ in pairs if sum(others) < 0.01 * p]  # others: of the gate
    wanted = np.sin(cm1_to_rad_per_ns(2e-6) * 500.0 / 2) ** 2
    assert max(found) == pytest.approx(wanted, rel=0.01)  # the longest wait is the readout: nothing meets in it
    assert sum(abs(p - wanted) < 0.01 * wanted for p in found) == 3 * 4  # every pair, after each of three readouts
    total = sum(np.arcsin(np.sqrt(p)) for p in found)
    waits = code_memory("repetition", 3, rounds=3, network=network, noise=only).cycle_ns * 3
    assert 2 * total / cm1_to_rad_per_ns(2e-6) == pytest.approx(4 * waits, rel=0.02)  # all of the time counts once
    off = NoiseSettings().only("hold")
    assert "PAULI_CHANNEL_2" not in str(code_memory("repetition", 3, network=network, noise=off, scale=0.0).circuit)
    patch = code_network("surface", 3, couplers=Coupler(j_off_cm1=1e-5))
    worse, better = (
        logical_error(code_memory("surface", 3, network=patch, noise=noise).circuit, 3, 500, 1, "networkx")
        for noise in (only, off)
    )
    assert worse.failures > better.failures + 20


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="one of repetition, surface"):
        template("steane", 3, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="odd and at least 3, but was 4"):
        template("surface", 4, 1)
    with pytest.raises(ValueError, match="`rounds` must be at least 1"):
        code_memory("surface", 3, rounds=0)
    network = code_network("repetition", 3, **SETTINGS)
    with pytest.raises(ValueError, match="must have 17 sites, but has 5"):
        code_memory("surface", 3, network=network)
    with pytest.raises(ValueError, match="`scale` must not be negative"):
        code_memory("repetition", 3, network=network, scale=-1.0)
    with pytest.raises(ValueError, match="entangler 'cz'"):
        code_memory("repetition", 3, network=network.model_copy(update={"entangler": "iswap"}))
    dead = network.model_copy(
        update={"bonds": (network.bonds[0].model_copy(update={"alive": False}), *network.bonds[1:])}
    )
    with pytest.raises(ValueError, match="living coupler between sites"):
        code_memory("repetition", 3, network=dead)
    memory = code_memory("repetition", 3, network=network)
    with pytest.raises(ValueError, match="`shots` must be at least 1"):
        logical_error(memory.circuit, 3, 0)
    with pytest.raises(ValueError, match="auto, networkx or pymatching"):
        logical_error(memory.circuit, 3, 1, decoder="union-find")  # type: ignore[arg-type]
