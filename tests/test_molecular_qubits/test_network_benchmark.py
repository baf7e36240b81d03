import json
from pathlib import Path

import pytest

from benchmarks.network import __main__ as bench
from benchmarks.network import circuits
from molecular_qubits import MolecularNetwork, compile_circuit, read_circuit
from tests.test_molecular_qubits.circuit_helpers import infidelity

DATA = Path(bench.__file__).parent / "data" / "compiler.json"


@pytest.mark.parametrize("name", [name for name, (size, _) in circuits.ON_LATTICE.items() if size == 3])
def test_circuits_of_the_benchmark_are_compiled_exactly(name):
    circuit = read_circuit(circuits.ON_LATTICE[name][1]())
    assert infidelity(circuit, compile_circuit(circuit, bench.lattice(3, "cz"), trials=1)) < 1e-9


def test_the_adder_adds():
    circuit = read_circuit(circuits.adder(2))
    column = abs(circuit.unitary()[:, 0])
    (reached,) = (column > 0.5).nonzero()[0]
    bits = f"{reached:06b}"  # carry, b0, a0, b1, a1, last carry
    a, b, carry = int(bits[4] + bits[2], 2), int(bits[3] + bits[1], 2), int(bits[5])
    assert (a, 4 * carry + b) == (3, 3 + 1)


def test_no_more_couplers_than_the_chain_of_qutip_qip():
    n_sites, make = circuits.ON_CHAIN["qft, 5"]
    theirs = bench.with_qutip(make(), n_sites)
    mine = bench.ours(make(), MolecularNetwork.chain(n_sites, entangler="iswap"), 1)
    row = bench.compared("qft, 5", "iswap", mine, "qutip-qip", theirs)
    assert row["gates ratio"] < 0.5
    assert mine["depth"] <= mine["coupler gates"]


def test_the_committed_table_has_all_circuits():
    rows = json.loads(DATA.read_text())["rows"]
    for entangler in ("cz", "iswap"):
        found = {row["circuit"] for row in rows if row["peer"] == "qiskit" and row["gate"] == entangler}
        assert found == set(circuits.ON_LATTICE)
    assert all(row["gates ratio"] < 1.02 for row in rows)


def test_the_summary_is_the_geometric_mean_of_the_ratios():
    def row(mine, theirs):
        return dict.fromkeys(bench.COMPARED, mine) | {f"{key}, peer": theirs for key in bench.COMPARED}

    rows = [{"peer": "a"} | row(1, 4), {"peer": "a"} | row(4, 4)]
    assert bench.summary(rows).startswith("over a: coupler gates 0.50 (0.25 to 1.00), depth 0.50")
