"""What a run gives: readout, expectation values and fidelity, each with its statistical error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from molecular_qubits.network.program import Program
from molecular_qubits.spins.operators import ComplexArray, FloatArray

ENTANGLED = "The circuit must leave the sites that hold no qubit apart, but entangles them with others."

LARGEST_TABLE = 20
"""Most qubits for which a table of 2^n probabilities is made."""


@dataclass(frozen=True)
class CircuitResult:
    """The outcome of a circuit on a network.

    Attributes
    ----------
    method
        Which simulator.
    n_qubits, n_sites
        Logical qubits, and sites simulated.
    shots, seed
        Of the samples and, where the method has any, of the random numbers in the simulation.
    z, z_error
        <Z> of each logical qubit as it is read, (n,), and its standard error; 0 for deterministic methods.
    fidelity, fidelity_error
        <psi|rho|psi> of the logical qubits before readout, psi being what the circuit makes without noise; ``None``
        where the method cannot say. Standard error 0 for deterministic methods.
    probabilities
        Of each reading, (2^n,), first qubit most significant; ``None`` where there are too many.
    ideal_probabilities
        The same without any noise.
    samples
        Readings, bool (shots, n).
    details
        Bond dimension, truncation and the like, by name.
    seconds
        Wall time of the simulation.
    """

    method: str
    n_qubits: int
    n_sites: int
    shots: int
    seed: int
    z: FloatArray = field(repr=False)
    z_error: FloatArray = field(repr=False)
    fidelity: float | None = None
    fidelity_error: float = 0.0
    probabilities: FloatArray | None = field(default=None, repr=False)
    ideal_probabilities: FloatArray | None = field(default=None, repr=False)
    samples: np.ndarray | None = field(default=None, repr=False)
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Number of times that each bit string was read, first qubit first, the most frequent first."""
        if self.samples is None:
            return {}
        rows, numbers = np.unique(self.samples, axis=0, return_counts=True)
        order = np.argsort(-numbers, kind="stable")
        return {"".join("01"[int(bit)] for bit in rows[k]): int(numbers[k]) for k in order}

    def hellinger_fidelity(self) -> float | None:
        """Return (sum_x sqrt(p_x q_x))^2 of the readings with and without noise, or ``None`` without both tables."""
        if self.probabilities is None or self.ideal_probabilities is None:
            return None
        return float(np.sum(np.sqrt(np.clip(self.probabilities * self.ideal_probabilities, 0, None))) ** 2)


def read_table(probabilities: FloatArray, confusion: FloatArray) -> FloatArray:
    """Return the probabilities (2^n,) of the readings from those of the states, given the confusion (n, 2, 2)."""
    n = len(confusion)
    table = probabilities.reshape((2,) * n)
    for qubit in range(n):
        table = np.moveaxis(np.tensordot(confusion[qubit], table, axes=(1, qubit)), 0, qubit)
    return np.asarray(table.reshape(-1))


def read_z(z: FloatArray, confusion: FloatArray) -> FloatArray:
    """Return <Z> as it is read from <Z> of the states, (..., n)."""
    difference = confusion[:, 0, :] - confusion[:, 1, :]
    return np.asarray((difference[:, 0] + difference[:, 1]) / 2 + (difference[:, 0] - difference[:, 1]) / 2 * z)


def draw_table(probabilities: FloatArray, shots: int, rng: np.random.Generator) -> np.ndarray:
    """Return readings (shots, n) drawn from a table of probabilities."""
    n = int(np.log2(len(probabilities)))
    weights = np.clip(probabilities, 0, None)
    drawn = rng.choice(len(weights), size=shots, p=weights / weights.sum())
    return bits(drawn, n)


def bits(numbers: np.ndarray, n: int) -> np.ndarray:
    """Return the bits (..., n) of numbers (...), the most significant first."""
    return (np.asarray(numbers)[..., None] >> np.arange(n - 1, -1, -1)) & 1 == 1


def misread(samples: np.ndarray, confusion: FloatArray, rng: np.random.Generator) -> np.ndarray:
    """Return samples (shots, n) with readout errors."""
    one = np.where(samples, confusion[:, 1, 1], confusion[:, 1, 0])
    return rng.random(samples.shape) < one


def z_of_table(probabilities: FloatArray) -> FloatArray:
    """Return <Z> of each bit of a table (2^n,)."""
    n = int(np.log2(len(probabilities)))
    table = probabilities.reshape((2,) * n)
    marginals = [table.sum(axis=tuple(k for k in range(n) if k != qubit)) for qubit in range(n)]
    return np.array([m[0] - m[1] for m in marginals])


def ideal_ket(program: Program) -> ComplexArray:
    """Return the state (2^n,) that the program makes of |0...0> without noise, sites in their order."""
    n = program.n_sites
    state = np.zeros((2,) * n, dtype=complex)
    state[(0,) * n] = 1
    for step in program.fused.steps:
        k = len(step.sites)
        gate = step.ideal.reshape((2,) * (2 * k))
        state = np.tensordot(gate, state, axes=(range(k, 2 * k), step.sites))
        state = np.moveaxis(state, range(k), step.sites)
    return np.asarray(state.reshape(-1))


def ideal_logical_ket(program: Program) -> ComplexArray:
    """Return the ideal state (2^m,) of the logical qubits, in their order.

    Raises
    ------
    ValueError
        If the circuit leaves them entangled with sites that hold no logical qubit.
    """
    n, read = program.n_sites, program.read
    rest = [site for site in range(n) if site not in read]
    matrix = ideal_ket(program).reshape((2,) * n).transpose(*read, *rest).reshape(2 ** len(read), -1)
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    if values[0] < 1 - 1e-6:
        raise ValueError(ENTANGLED)
    return np.asarray(left[:, 0])
