"""A circuit as matrices on qubits: what every input format becomes and every pass of the compiler reads.

Qubit 0 is the first factor of a product, as in QuTiP.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits.spins.operators import ComplexArray
from shared.files import reason


@dataclass(frozen=True)
class Instruction:
    """A gate, a readout or a barrier.

    Attributes
    ----------
    name
        Name of the gate, ``"measure"`` or ``"barrier"``.
    qubits
        The qubits, the first being the first factor of the matrix.
    matrix
        (2^k, 2^k) of a gate on k qubits, ``None`` for the others.
    """

    name: str
    qubits: tuple[int, ...]
    matrix: ComplexArray | None = None


@dataclass(frozen=True)
class Circuit:
    """Instructions on qubits, in order.

    Attributes
    ----------
    n_qubits
        Number of qubits.
    instructions
        What is done to them.

    Raises
    ------
    ValueError
        If an instruction names a qubit that there is not or one twice, a matrix is not unitary or of the wrong size,
        or a qubit is used after its readout.
    """

    n_qubits: int
    instructions: tuple[Instruction, ...]

    def __post_init__(self) -> None:
        if self.n_qubits < 1:
            raise ValueError(f"Argument `n_qubits` must be at least 1, but was {self.n_qubits}.")
        read: set[int] = set()
        for instruction in self.instructions:
            name, qubits = instruction.name, instruction.qubits
            if any(not 0 <= qubit < self.n_qubits for qubit in qubits) or len(set(qubits)) < len(qubits):
                raise ValueError(
                    f"Instruction {name} must name different qubits from 0 to {self.n_qubits - 1}, but names {qubits}."
                )
            again = read & set(qubits)
            if again and name != "barrier":
                raise ValueError(f"Qubit {min(again)} must not be used after its readout, but {name} does.")
            if name == "measure":
                read |= set(qubits)
            if instruction.matrix is not None:
                check_unitary(instruction.matrix, len(qubits), name)

    @property
    def gates(self) -> tuple[Instruction, ...]:
        """The instructions that are gates."""
        return tuple(instruction for instruction in self.instructions if instruction.matrix is not None)

    def unitary(self) -> ComplexArray:
        """Return the product of all gates, (2^n, 2^n)."""
        matrix = np.eye(2**self.n_qubits, dtype=complex)
        for gate in self.gates:
            assert gate.matrix is not None
            matrix = apply(gate.matrix, gate.qubits, matrix, self.n_qubits)
        return matrix


def check_unitary(matrix: ComplexArray, n_qubits: int, name: str) -> None:
    """Refuse a matrix that is not unitary to 1e-8 or does not fit its qubits."""
    size = 2**n_qubits
    if np.shape(matrix) != (size, size):
        raise ValueError(f"Gate {name} on {n_qubits} qubits must have shape ({size}, {size}), but has {matrix.shape}.")
    if not np.abs(matrix @ matrix.conj().T - np.eye(size)).max() < 1e-8:
        raise ValueError(f"Gate {name} must be unitary, but is not.")


def apply(gate: ComplexArray, qubits: Sequence[int], state: ComplexArray, n_qubits: int) -> ComplexArray:
    """Return a gate on some qubits times states or operators, (2^n,) or (2^n, m)."""
    tail = state.shape[1:]
    tensor = state.reshape((2,) * n_qubits + tail)
    k = len(qubits)
    moved = np.tensordot(gate.reshape((2,) * (2 * k)), tensor, axes=(range(k, 2 * k), qubits))
    return np.asarray(np.moveaxis(moved, range(k), qubits).reshape(state.shape))


def read_circuit(source: Any) -> Circuit:
    """Return the circuit of any of the formats understood.

    Parameters
    ----------
    source
        A `Circuit`; a `qutip_qip.circuit.QubitCircuit`; OpenQASM 2 or 3 as text or as a `Path`.

    Raises
    ------
    ValueError
        If it cannot be read; the message names the line.
    TypeError
        If it is none of these.
    """
    if isinstance(source, Circuit):
        return source
    if isinstance(source, Path):
        try:
            source = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"The circuit file {str(source)!r} cannot be read: {reason(error)}.") from error
    if isinstance(source, str):
        if "\n" not in source.strip() and (source.strip().endswith(".qasm") or os.path.isfile(source)):
            raise ValueError(
                f"Argument `circuit` must be OpenQASM text or the Path of a file, but was the text {source!r}: give a "
                "file as `Path`."
            )
        from molecular_qubits.network.qasm import read_qasm

        return read_qasm(source)
    if hasattr(source, "gates") and hasattr(source, "N"):
        from molecular_qubits.network.qutip_circuit import from_qutip

        return from_qutip(source)
    raise TypeError(
        "Argument `circuit` must be a Circuit, a QubitCircuit, OpenQASM text or the Path of an OpenQASM file, but was "
        f"a {type(source).__name__}."
    )
