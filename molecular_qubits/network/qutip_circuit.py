"""Circuits of qutip-qip as ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from molecular_qubits.network.circuits import Circuit, Instruction
from shared.config import nearest


def from_qutip(source: Any) -> Circuit:
    """Return a `qutip_qip.circuit.QubitCircuit` as a `Circuit`.

    Raises
    ------
    ValueError
        If it has systems that are not qubits, classical controls, or gates that are neither qutip-qip's nor among its
        ``user_gates``; the message gives the number of the gate.
    """
    from qutip import Qobj
    from qutip_qip.circuit import QubitCircuit
    from qutip_qip.operations import GATE_CLASS_MAP, Measurement

    assert isinstance(source, QubitCircuit)
    if any(dim != 2 for dim in source.dims):
        raise ValueError(f"Argument `circuit` must hold qubits only, but has the dimensions {source.dims}.")
    instructions = []
    for number, gate in enumerate(source.gates):
        if isinstance(gate, Measurement):
            instructions += [Instruction("measure", (qubit,)) for qubit in gate.targets]
            continue
        if gate.classical_controls:
            raise ValueError(f"Gate {number} ({gate.name}) must not depend on a readout, but has classical controls.")
        qubits = (*(gate.controls or []), *(gate.targets or []))
        if gate.name in ("GLOBALPHASE", "IDLE"):
            continue
        if gate.name in source.user_gates:
            made = source.user_gates[gate.name]
            if not isinstance(made, Qobj) and callable(made):  # a `Qobj` can be called, too
                made = made() if gate.arg_value is None else made(gate.arg_value)
            matrix = made.full()
        elif gate.name in GATE_CLASS_MAP:
            matrix = gate.get_compact_qobj().full()
        else:
            known = nearest(gate.name, [*GATE_CLASS_MAP, *source.user_gates])
            raise ValueError(f"Gate {number} has the unknown name {gate.name!r}: {known}")
        instructions.append(Instruction(gate.name.lower(), qubits, np.asarray(matrix, dtype=complex)))
    return Circuit(source.N, tuple(instructions))
