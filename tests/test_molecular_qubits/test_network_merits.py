"""Example circuits against exact results, error budgets."""

import numpy as np
import pytest

from molecular_qubits import Coupler, Microwaves, MolecularNetwork, read_circuit, run_circuit
from molecular_qubits.network import examples
from molecular_qubits.network.merits import error_budget
from molecular_qubits.network.noise import SOURCES, NoiseSettings


def lattice(rows: int, columns: int) -> MolecularNetwork:
    return MolecularNetwork.square(
        rows, columns, 4.0, couplers=Coupler(linewidth_cm1=60.0), microwaves=Microwaves(addressing="local")
    )


@pytest.mark.parametrize("shape", [(1, 5), (2, 3), (3, 3)])
def test_ghz_circuits_make_ghz_states_in_as_many_rounds_as_the_radius(shape: tuple[int, int]) -> None:
    n = shape[0] * shape[1]
    circuit = read_circuit(examples.ghz(n, examples.square_edges(*shape)))
    column = circuit.unitary()[:, 0]
    assert abs(column[0]) ** 2 == pytest.approx(0.5)
    assert abs(column[-1]) ** 2 == pytest.approx(0.5)
    depth = [0] * n
    for gate in circuit.gates:
        if len(gate.qubits) == 2:
            a, b = gate.qubits
            depth[a] = depth[b] = max(depth[a], depth[b]) + 1
    radius = shape[0] // 2 + shape[1] // 2
    assert max(depth) <= radius + 2
    with pytest.raises(ValueError, match="must join all 3 qubits, but joins 2"):
        examples.ghz(3, [(0, 1)])


def test_qaoa_of_the_ring_reaches_the_known_ratio() -> None:
    """MaxCut of a ring: (2 p + 1) / (2 p + 2) of the edges for p rounds (Farhi et al.)."""
    n = 8
    ring = [(k, (k + 1) % n) for k in range(n)]
    for rounds in (1, 2, 3):
        gammas, betas, best = examples.best_qaoa_angles(n, ring, rounds)
        assert best / n == pytest.approx((2 * rounds + 1) / (2 * rounds + 2), abs=1e-4)
        column = read_circuit(examples.qaoa(n, ring, gammas, betas)).unitary()[:, 0]
        assert np.abs(column) ** 2 @ examples.cut_sizes(n, ring) == pytest.approx(best, abs=1e-8)


def test_trotter_error_falls_with_the_square_of_the_step() -> None:
    n, edges, time = 4, examples.square_edges(2, 2), 0.8
    exact = examples.ising_magnetisation(n, edges, 1.0, 0.7, [0.0, time])
    assert exact[0] == pytest.approx(1)
    z = np.array([n - 2 * bin(index).count("1") for index in range(2**n)]) / n
    errors = []
    for steps in (4, 8):
        program = examples.trotter_ising(n, edges, 1.0, 0.7, time, steps)
        column = read_circuit(program).unitary()[:, 0]
        errors.append(abs(np.abs(column) ** 2 @ z - exact[1]))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


def test_clifford_layers_are_clifford() -> None:
    circuit = examples.random_layers(4, examples.square_edges(2, 2), 3, 0, clifford=True)
    assert 0 < (run_circuit(lattice(2, 2), circuit, method="stim").fidelity or 0) < 1


def test_budget_adds_up_to_the_loss() -> None:
    network = lattice(2, 2)
    circuit = examples.ghz(4, examples.square_edges(2, 2))
    budget = error_budget(network, circuit)
    exact = run_circuit(network, circuit, method="channels").fidelity
    assert budget.fidelity == pytest.approx(exact)
    assert set(budget.alone) == set(SOURCES) - {"readout"}
    assert abs(budget.unexplained) < 0.05 * budget.total
    assert all(value > -1e-9 for value in budget.alone.values())
    assert budget.alone["initialisation"] == pytest.approx(-4 * np.log(0.95), rel=0.12)
    assert budget.readout == pytest.approx(-4 * np.log(0.98))
    for name in ("relaxation", "triplet yield"):
        assert budget.removed[name] == pytest.approx(budget.alone[name], rel=0.2)
    rows = budget.to_rows()
    assert rows[-2]["-ln F alone"] == pytest.approx(-np.log(exact))
    only = error_budget(network, circuit, NoiseSettings().only("relaxation"))
    assert set(only.alone) == {"relaxation"}
    assert only.unexplained == pytest.approx(0, abs=1e-9)
