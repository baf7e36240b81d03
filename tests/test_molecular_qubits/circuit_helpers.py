"""Random circuits and what a schedule does to a state, for the tests of the network."""

import numpy as np
from scipy.stats import unitary_group

from molecular_qubits.network.circuits import Circuit, Instruction, apply
from molecular_qubits.network.schedule import ideal_matrix


def random_circuit(n_qubits, n_gates, seed, largest=3):
    """Return Haar-random gates on one to three random qubits."""
    rng = np.random.default_rng(seed)
    steps = []
    for _ in range(n_gates):
        k = int(rng.choice([1, 2, 3], p=[0.3, 0.6, 0.1]))
        k = min(k, n_qubits, largest)
        qubits = tuple(int(q) for q in rng.permutation(n_qubits)[:k])
        matrix = unitary_group.rvs(2**k, random_state=rng) if k else np.eye(1)
        steps.append(Instruction("random", qubits, np.asarray(matrix)))
    return Circuit(n_qubits, tuple(steps))


def spread(state, sites, n_sites):
    """Return a state of qubits on some sites, the other sites being 0."""
    whole = np.zeros((2,) * n_sites, dtype=complex)
    place = [slice(None) if site in sites else 0 for site in range(n_sites)]
    whole[tuple(place)] = state.reshape((2,) * len(sites)).transpose(np.argsort(sites))
    return whole.reshape(-1)


def infidelity(circuit, schedule, seed=0):
    """Return 1 - |<wanted|scheduled>| for a random state: zero for all states if only a phase is left."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=2**circuit.n_qubits) + 1j * rng.normal(size=2**circuit.n_qubits)
    state /= np.linalg.norm(state)
    found = spread(state, schedule.initial_sites, schedule.n_sites)
    for operation in schedule.operations:
        if operation.name != "measure":
            matrix = ideal_matrix(operation, schedule.entangler)
            found = apply(matrix, operation.sites, found, schedule.n_sites)
    for gate in circuit.gates:
        state = apply(gate.matrix, gate.qubits, state, circuit.n_qubits)
    wanted = spread(state, schedule.final_sites, schedule.n_sites)
    phase = np.vdot(wanted, found)
    return float(np.abs(found - wanted * phase / abs(phase)).max())
