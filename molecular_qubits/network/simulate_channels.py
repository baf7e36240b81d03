"""Exact density matrices at the level of gate channels: 4^n real numbers, the expectation values of all Paulis."""

from __future__ import annotations

import numpy as np

from molecular_qubits.network import result as outcome
from molecular_qubits.network.program import Program
from molecular_qubits.network.transfer import PAULIS
from molecular_qubits.spins.operators import ComplexArray, FloatArray


def memory_gib(n_sites: int) -> float:
    """Return what the simulation takes: the state, and twice as much while a step is done."""
    return 3 * 8 * 4.0**n_sites / 2**30


def expectations(program: Program) -> FloatArray:
    """Return the expectation values of all Pauli products at the end, shape (4,) * n_sites."""
    state = np.ones(())
    for row in program.initial:
        state = np.multiply.outer(state, row)
    for step in program.fused.steps:
        k = len(step.sites)
        state = np.tensordot(step.channel.reshape((4,) * (2 * k)), state, axes=(range(k, 2 * k), step.sites))
        state = np.moveaxis(state, range(k), step.sites)
    return np.asarray(state)


def logical_expectations(state: FloatArray, read: tuple[int, ...]) -> FloatArray:
    """Return the expectation values of the logical qubits alone, (4,) * len(read), in their order."""
    n = state.ndim
    rest = tuple(0 if site not in read else slice(None) for site in range(n))
    kept = [site for site in range(n) if site in read]
    return np.asarray(state[rest].transpose([kept.index(site) for site in read]))


def table(state: FloatArray) -> FloatArray:
    """Return the probabilities (2^n,) of the bit strings from the expectation values (4,) * n."""
    split = np.array([[0.5, 0, 0, 0.5], [0.5, 0, 0, -0.5]])
    for qubit in range(state.ndim):
        state = np.moveaxis(np.tensordot(split, state, axes=(1, qubit)), 0, qubit)
    return np.asarray(state.reshape(-1))


def pure_expectations(ket: ComplexArray) -> FloatArray:
    """Return the expectation values (4,) * n of a pure state (2^n,)."""
    n = int(np.log2(len(ket)))
    tensor = ket.reshape((2,) * n)
    state = np.multiply.outer(tensor, tensor.conj())
    for done in range(n):  # the first axis of the ket and that of the bra go, that of the Pauli comes last
        state = np.tensordot(state, PAULIS, axes=((0, n - done), (2, 1)))
    return np.asarray(state.real)


def simulate(program: Program, shots: int, seed: int) -> outcome.CircuitResult:
    """Run a program exactly; the samples are drawn from the exact table."""
    state = logical_expectations(expectations(program), program.read)
    n = len(program.read)
    confusion = program.confusion[list(program.read)]
    exact = table(state)
    probabilities = outcome.read_table(exact, confusion)
    ideal = outcome.ideal_logical_ket(program)
    fidelity = float(np.sum(pure_expectations(ideal) * state)) / 2**n
    z = outcome.read_z(outcome.z_of_table(exact), confusion)
    return outcome.CircuitResult(
        "channels", n, program.n_sites, shots, seed, z, np.zeros(n), fidelity, 0.0, probabilities,
        np.abs(ideal) ** 2, outcome.draw_table(probabilities, shots, np.random.default_rng(seed)),
        {"steps": len(program.fused.steps)},
    )  # fmt: skip
