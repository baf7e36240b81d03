"""Neighbouring gates on the same pair of qubits as one gate: fewer couplers to light."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from molecular_qubits.network.circuits import Instruction
from molecular_qubits.spins.operators import ComplexArray

_EXCHANGED = np.array([0, 2, 1, 3])


def exchanged(matrix: ComplexArray) -> ComplexArray:
    """Return a two-qubit gate (4, 4) with its qubits in the other order."""
    return np.asarray(matrix[np.ix_(_EXCHANGED, _EXCHANGED)])


def collect_blocks(instructions: Iterable[Instruction]) -> list[Instruction]:
    """Return gates on one and two qubits merged as far as order allows, without reordering any.

    Gates on one qubit go into the block before them, or into the next one; what is left has no block between it and the
    start, a barrier or a readout. Blocks of two qubits are named ``"block"``, of one ``"local"``.
    """
    done: list[Instruction | None] = []
    matrices: dict[int, ComplexArray] = {}
    last: dict[int, int] = {}  # qubit -> number in `done` of the block that is open on it
    waiting: dict[int, ComplexArray] = {}

    def close(qubit: int) -> None:
        last.pop(qubit, None)
        if qubit in waiting:
            done.append(Instruction("local", (qubit,), waiting.pop(qubit)))

    for instruction in instructions:
        qubits, matrix = instruction.qubits, instruction.matrix
        if matrix is None:
            for qubit in qubits:
                close(qubit)
            done.append(instruction)
        elif len(qubits) == 1:
            (qubit,) = qubits
            if qubit in last:
                block = done[last[qubit]]
                assert block is not None
                pair = (matrix, np.eye(2)) if block.qubits[0] == qubit else (np.eye(2), matrix)
                matrices[last[qubit]] = np.kron(*pair) @ matrices[last[qubit]]
            else:
                waiting[qubit] = matrix @ waiting.get(qubit, np.eye(2))
        elif len(qubits) == 2:
            a, b = qubits
            if a in last and last[a] == last.get(b):
                block = done[last[a]]
                assert block is not None
                matrices[last[a]] = (matrix if block.qubits == qubits else exchanged(matrix)) @ matrices[last[a]]
            else:
                before = np.kron(waiting.pop(a, np.eye(2)), waiting.pop(b, np.eye(2)))
                last[a] = last[b] = len(done)
                matrices[len(done)] = matrix @ before
                done.append(Instruction("block", qubits))
        else:
            raise ValueError(f"Gates must act on one or two qubits, but {instruction.name} acts on {len(qubits)}.")
    for qubit in list(waiting):
        close(qubit)
    return [
        Instruction(step.name, step.qubits, matrices[number]) if number in matrices else step
        for number, step in enumerate(done)
        if step is not None
    ]
