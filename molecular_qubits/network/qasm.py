"""OpenQASM 2 and 3: gates, also the user's own and modified ones, readout and barriers.

Both are read by the reference parser of OpenQASM 3, whose grammar keeps the old statements. What has no meaning on the
network (classical control, reset, loops, timing) is refused with its line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from molecular_qubits.network.circuits import Circuit, Instruction, apply
from molecular_qubits.network.gates import QELIB1, STANDARD, builtin_u, controlled, power, u3
from molecular_qubits.network.qasm_text import QasmError, statements
from molecular_qubits.spins.operators import ComplexArray
from shared.config import nearest

MAX_REGISTER = 1_000_000
"""Qubits or bits of one register at most."""

MOST_CONTROLLED = 8
"""Qubits of the largest gate that is kept as one matrix: gates under modifiers."""

LARGEST = 1e300
"""Largest number: sums of a few angles stay finite."""

_CONSTANTS = {
    "pi": math.pi, "π": math.pi, "tau": 2 * math.pi, "τ": 2 * math.pi, "euler": math.e, "ℇ": math.e,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "sin": math.sin, "cos": math.cos, "tan": math.tan, "exp": math.exp, "ln": math.log, "log": math.log,
    "sqrt": math.sqrt, "arcsin": math.asin, "arccos": math.acos, "arctan": math.atan, "floor": math.floor,
    "ceiling": math.ceil, "abs": abs,
}  # fmt: skip


@dataclass
class _Program:
    version: int
    gates: dict[str, tuple[int, int, Any]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=lambda: dict(_CONSTANTS))
    registers: dict[str, list[int]] = field(default_factory=dict)
    bits: dict[str, list[int]] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    n_qubits: int = 0
    instructions: list[Instruction] = field(default_factory=list)


def read_qasm(text: str) -> Circuit:
    """Read a program.

    Parameters
    ----------
    text
        OpenQASM 2.0 or 3.x. The first line must state the version; ``qelib1.inc`` or ``stdgates.inc`` bring the named
        gates.

    Returns
    -------
    Circuit
        Qubits in the order of their declarations.

    Raises
    ------
    QasmError
        A `ValueError` that names the line and what is wrong there.
    ModuleNotFoundError
        If the extra ``network`` is not installed.
    """
    version = _version(text)
    program = _Program(version)
    if version == 2:
        text = re.sub(r"\^", "**", text)
    for statement in statements(text):
        _Reader(program, statement.span.start_line).statement(statement)
    if not program.n_qubits:
        raise QasmError("Line 1: the program must declare qubits, but declares none.")
    return Circuit(program.n_qubits, tuple(program.instructions))


def _version(text: str) -> int:
    bare = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
    found = re.match(r"\s*OPENQASM\s+(\d+)(\.\d+)?\s*;", bare)
    if found is None:
        raise QasmError("Line 1: an OpenQASM program must begin with its version, such as OPENQASM 3;")
    if found[1] not in ("2", "3"):
        raise QasmError(f"Line 1: the version must be 2 or 3, but is {found[1]}.")
    return int(found[1])


@dataclass
class _Reader:
    """Reads one statement; `line` is where it stands."""

    program: _Program
    line: int

    def fail(self, message: str) -> QasmError:
        return QasmError(f"Line {self.line}: {message}")

    def statement(self, node: Any) -> None:
        kind = type(node).__name__
        handler = {
            "Include": self.include,
            "QubitDeclaration": self.qubits_declared,
            "ClassicalDeclaration": self.bits_declared,
            "ConstantDeclaration": self.constant,
            "QuantumGateDefinition": self.definition,
            "QuantumGate": self.gate,
            "QuantumPhase": self.phase,
            "QuantumBarrier": self.barrier,
            "QuantumMeasurementStatement": self.measure,
        }.get(kind)
        if handler is None:
            what = re.sub(r"(?<!^)(?=[A-Z])", " ", kind).lower()
            raise self.fail(f"a {what} is not supported: the network runs gates, barriers and final readouts only.")
        handler(node)

    def include(self, node: Any) -> None:
        files = {"stdgates.inc": STANDARD, "qelib1.inc": QELIB1}
        if node.filename not in files:
            raise self.fail(f"only {' and '.join(files)} can be included, but {node.filename!r} was asked for.")
        self.program.gates.update(files[node.filename])

    def qubits_declared(self, node: Any) -> None:
        size = self.size(node.qubit.name, node.size, "qubit")
        self.program.registers[node.qubit.name] = list(range(self.program.n_qubits, self.program.n_qubits + size))
        self.program.n_qubits += size

    def size(self, name: str, size: Any, what: str) -> int:
        """Return the size of a new register."""
        if name in self.program.registers or name in self.program.bits:
            raise self.fail(f"the {what}s {name!r} are declared twice.")
        found = 1 if size is None else self.whole(size)
        if found < 1:
            raise self.fail(f"a register must have at least 1 {what}, but {name!r} has {found}.")
        if found > MAX_REGISTER:
            raise self.fail(f"a register must have at most {MAX_REGISTER:,} {what}s, but {name!r} has {found:,}.")
        return found

    def bits_declared(self, node: Any) -> None:
        if type(node.type).__name__ != "BitType":
            raise self.fail("only bits and constants can be declared.")
        name = node.identifier.name
        self.program.bits[name] = list(range(self.size(name, node.type.size, "bit")))
        if node.init_expression is not None:
            if type(node.init_expression).__name__ != "QuantumMeasurement":
                raise self.fail("bits can be set by readouts only.")
            self.read(node.init_expression, node.identifier)

    def constant(self, node: Any) -> None:
        self.program.values[node.identifier.name] = self.number(node.init_expression, self.program.values)

    def definition(self, node: Any) -> None:
        name = node.name.name
        if name in self.program.own or name in ("U", "gphase"):
            raise self.fail(f"the gate {name!r} is defined twice.")
        for step in node.body:
            if type(step).__name__ == "QuantumGate":
                self.line = step.span.start_line
                if step.name.name == name:
                    raise self.fail(f"the gate {name!r} must not call itself.")
                self.known(step.name.name)
        self.program.own.add(name)
        self.program.gates[name] = (len(node.arguments), len(node.qubits), node)

    def gate(self, node: Any) -> None:
        for qubits in self.broadcast(node.name.name, node.qubits):
            self.program.instructions += self.call(node, qubits, self.program.values)[0]

    def broadcast(self, name: str, operands: Sequence[Any]) -> list[list[int]]:
        """Return the qubits of each call that a call with registers stands for."""
        registers = [self.operand(qubit) for qubit in operands]
        lengths = {len(places) for places in registers if len(places) > 1}
        if len(lengths) > 1:
            raise self.fail(f"the registers of {name!r} must be equally long, but have {sorted(lengths)}.")
        return [
            [places[k if len(places) > 1 else 0] for places in registers]
            for k in range(lengths.pop() if lengths else 1)
        ]

    def phase(self, node: Any) -> None:
        for qubits in self.broadcast("gphase", node.qubits):
            self.program.instructions += self.turned(node, qubits, self.program.values)[0]

    def turned(
        self, node: Any, qubits: Sequence[int], values: Mapping[str, float]
    ) -> tuple[list[Instruction], complex]:
        """Return what a gphase does to given qubits, and its phase."""
        if (count := self.controls(node.modifiers)) > MOST_CONTROLLED:
            raise self.fail(f"gphase must have at most {MOST_CONTROLLED} controls, but has {count}.")
        if len(qubits) != count:
            raise self.fail(f"gphase with {count} controls acts on {count} qubits, but was given {len(qubits)}.")
        self.distinct("gphase", qubits)
        matrix = np.array([[np.exp(1j * self.number(node.argument, values))]])
        matrix = self.modified(node.modifiers, matrix, values)
        return ([Instruction("gphase", tuple(qubits), matrix)], 1.0) if qubits else ([], complex(matrix[0, 0]))

    def barrier(self, node: Any) -> None:
        qubits = [place for qubit in node.qubits for place in self.operand(qubit)] or list(range(self.program.n_qubits))
        self.program.instructions.append(Instruction("barrier", tuple(dict.fromkeys(qubits))))

    def measure(self, node: Any) -> None:
        self.read(node.measure, node.target)

    def read(self, node: Any, target: Any) -> None:
        qubits = self.operand(node.qubit)
        if target is not None and (size := len(self.operand(target, "bit"))) != len(qubits):
            raise self.fail(f"{len(qubits)} qubits need as many bits for their readout, but were given {size}.")
        for qubit in qubits:
            if any(done.name == "measure" and done.qubits == (qubit,) for done in self.program.instructions):
                raise self.fail("a qubit must not be read twice.")
            self.program.instructions.append(Instruction("measure", (qubit,)))

    def operand(self, node: Any, what: str = "qubit") -> list[int]:
        """Return the qubits, or bits, that an operand stands for."""
        name = getattr(node.name, "name", node.name)
        if name.startswith("$"):
            raise self.fail(f"qubits of the hardware such as {name} cannot be named.")
        registers = self.program.registers if what == "qubit" else self.program.bits
        if name not in registers:
            raise self.fail(f"the {what}s {name!r} are not declared.")
        places = registers[name]
        for index in getattr(node, "indices", []):
            places = self.selected(places, index, name)
        return places

    def selected(self, places: list[int], index: Any, name: str) -> list[int]:
        if type(index).__name__ == "DiscreteSet":
            return [self.one(places, value, name) for value in index.values]
        if len(index) != 1:
            raise self.fail(f"a register has one index, but {name!r} was given {len(index)}.")
        if type(index[0]).__name__ != "RangeDefinition":
            return [self.one(places, index[0], name)]
        span = index[0]
        step = 1 if span.step is None else self.whole(span.step)
        if step == 0:
            raise self.fail("a range must have a step that is not 0.")
        first = (0 if step > 0 else len(places) - 1) if span.start is None else self.whole(span.start)
        last = (len(places) - 1 if step > 0 else 0) if span.end is None else self.whole(span.end)
        first, last = (k + len(places) if k < 0 else k for k in (first, last))
        return [self.at(places, k, name) for k in range(first, last + (1 if step > 0 else -1), step)]

    def one(self, places: list[int], node: Any, name: str) -> int:
        return self.at(places, self.whole(node), name)

    def at(self, places: list[int], index: int, name: str) -> int:
        if not -len(places) <= index < len(places):
            what = "bit" if name in self.program.bits else "qubit"
            raise self.fail(f"{name!r} has {len(places)} {what}s, but its {what} {index} was asked for.")
        return places[index]

    def call(self, node: Any, qubits: Sequence[int], values: Mapping[str, float]) -> tuple[list[Instruction], complex]:
        """Return what a call of a gate does to given qubits, and its phase."""
        name = node.name.name
        self.distinct(name, qubits)
        arguments = [self.number(argument, values) for argument in node.arguments]
        if not node.modifiers:
            return self.named(name, arguments, qubits)
        inner = len(qubits) - self.controls(node.modifiers)
        if inner < 1 or len(qubits) > MOST_CONTROLLED:
            raise self.fail(f"{name!r} under these modifiers must act on 1 to {MOST_CONTROLLED} qubits.")
        done, phase = self.named(name, arguments, range(inner))
        matrix = np.eye(2**inner, dtype=complex) * phase
        for instruction in done:
            if instruction.matrix is not None:
                matrix = apply(instruction.matrix, instruction.qubits, matrix, inner)
        return [Instruction(name, tuple(qubits), self.modified(node.modifiers, matrix, values))], 1.0

    def distinct(self, name: str, qubits: Sequence[int]) -> None:
        if len(set(qubits)) < len(qubits):
            raise self.fail(f"{name} must act on different qubits.")

    def controls(self, modifiers: Sequence[Any]) -> int:
        """Return the number of qubits that modifiers add."""
        counts = [
            1 if modifier.argument is None else self.whole(modifier.argument)
            for modifier in modifiers
            if modifier.modifier.name in ("ctrl", "negctrl")
        ]
        if min(counts, default=1) < 1:
            raise self.fail(f"a modifier needs at least 1 control, but was given {min(counts)}.")
        return sum(counts)

    def modified(self, modifiers: Sequence[Any], matrix: ComplexArray, values: Mapping[str, float]) -> ComplexArray:
        for modifier in reversed(modifiers):
            kind = modifier.modifier.name
            if kind == "inv":
                matrix = matrix.conj().T
            elif kind == "pow":
                matrix = power(matrix, self.number(modifier.argument, values))
            else:
                matrix = controlled(matrix, self.controls([modifier]), value=kind == "ctrl")
        return matrix

    def known(self, name: str) -> tuple[int, int, Any]:
        """Return number of angles, number of qubits and meaning of a gate."""
        if name == "U":
            return 3, 1, u3 if self.program.version == 2 else builtin_u
        if name in self.program.gates:
            return self.program.gates[name]
        if name == "CX" and self.program.version == 2:
            return STANDARD["CX"]
        hint = nearest(name, [*self.program.gates, "U"])
        if not self.program.gates and name in QELIB1:
            hint = 'include "stdgates.inc"; (OpenQASM 3) or include "qelib1.inc"; (OpenQASM 2) defines it.'
        raise self.fail(f"the gate {name!r} is unknown: {hint}")

    def named(self, name: str, arguments: Sequence[float], qubits: Sequence[int]) -> tuple[list[Instruction], complex]:
        n_arguments, n_qubits, body = self.known(name)
        if len(arguments) != n_arguments:
            raise self.fail(f"the gate {name!r} needs {n_arguments} angles, but was given {len(arguments)}.")
        if len(qubits) != n_qubits:
            raise self.fail(f"the gate {name!r} acts on {n_qubits} qubits, but was given {len(qubits)}.")
        if callable(body):
            return [Instruction(name, tuple(qubits), body(*arguments))], 1.0
        inside = {**self.program.values, **{a.name: v for a, v in zip(body.arguments, arguments, strict=True)}}
        where = {qubit.name: place for qubit, place in zip(body.qubits, qubits, strict=True)}
        done: list[Instruction] = []
        phase = 1.0 + 0j
        for step in body.body:
            kind = type(step).__name__
            places = [self.local(qubit, where) for qubit in step.qubits] if hasattr(step, "qubits") else []
            if kind == "QuantumGate":
                more, turned = self.call(step, places, inside)
                done, phase = done + more, phase * turned
            elif kind == "QuantumBarrier":
                done.append(Instruction("barrier", tuple(dict.fromkeys(places))))
            elif kind == "QuantumPhase":
                more, turned = self.turned(step, places, inside)
                done, phase = done + more, phase * turned
            else:
                raise self.fail(f"the gate {name!r} must consist of gates and barriers only.")
        return done, phase

    def local(self, node: Any, where: Mapping[str, int]) -> int:
        name = getattr(node.name, "name", node.name)
        if name not in where or getattr(node, "indices", None):
            raise self.fail(f"{name!r} is no qubit of the gate.")
        return where[name]

    def whole(self, node: Any) -> int:
        value = self.number(node, self.program.values)
        if value != int(value):
            raise self.fail(f"a whole number is needed here, but {value} was given.")
        return int(value)

    def number(self, node: Any, values: Mapping[str, float]) -> float:
        """Return the value of an expression."""
        kind = type(node).__name__
        if kind == "Identifier":
            if node.name not in values:
                raise self.fail(f"the number {node.name!r} is not known.")
            return values[node.name]
        try:
            if kind in ("IntegerLiteral", "FloatLiteral"):
                return self.sized(float(node.value))
            if kind == "UnaryExpression" and node.op.name in ("-", "+"):
                value = self.number(node.expression, values)
                return -value if node.op.name == "-" else value
            if kind == "BinaryExpression" and node.op.name in _OPERATORS:
                left, right = self.number(node.lhs, values), self.number(node.rhs, values)
                return self.sized(float(_OPERATORS[node.op.name](left, right)))
            if kind == "FunctionCall" and node.name.name in _FUNCTIONS and len(node.arguments) == 1:
                return self.sized(float(_FUNCTIONS[node.name.name](self.number(node.arguments[0], values))))
        except (ArithmeticError, ValueError, TypeError) as error:
            if isinstance(error, QasmError):
                raise
            raise self.fail(f"an expression has no value: {error}.") from None
        raise self.fail("an expression is not understood; numbers, + - * / ** % and functions of one number are.")

    def sized(self, value: float) -> float:
        if not abs(value) <= LARGEST:
            raise self.fail(f"a number must be at most {LARGEST:g}, but is {value:g}.")
        return value


_OPERATORS: dict[str, Callable[[float, float], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    "%": lambda a, b: a % b,
}
