"""Gates on three and more qubits as gates on two, and a gate on one qubit as one microwave pulse.

C^n(U) after A. Barenco et al., Phys. Rev. A 52, 3457 (1995); anything else by the quantum Shannon decomposition, V. V.
Shende, S. S. Bullock, I. L. Markov, IEEE Trans. CAD 25, 1000 (2006).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.linalg

from molecular_qubits.network.circuits import Instruction
from molecular_qubits.network.gates import STANDARD, controlled, power
from molecular_qubits.spins.operators import ComplexArray, FloatArray

_TINY = 1e-12


def pulse_angles(unitary: ComplexArray) -> tuple[float, float, float]:
    """Return (theta, phi, lam) of a gate on one qubit, U = phase Rz(lam) R(theta, phi), theta in [0, pi].

    R is the microwave pulse of `molecular_qubits.network.schedule.rotation`, Rz a change of the frame: one pulse makes
    any gate, none a diagonal one (then theta = 0).
    """
    (a, b), (c, d) = unitary
    theta = float(2 * np.arctan2(abs(b), abs(a)))
    if theta < _TINY:
        return 0.0, 0.0, float(np.angle(d / a))
    if np.pi - theta < _TINY:  # phase and frame are one: no change of the frame
        return np.pi, float(np.angle(c / b)) / 2, 0.0
    lam = float(np.angle(d / a))
    if theta < np.pi / 2:
        return theta, float(-np.angle(1j * b / a)), lam
    phi = (float(np.angle(c / b)) - lam) / 2  # from the large elements; the small ones only choose between two
    return theta, phi if (1j * b / a * np.exp(1j * phi)).real > 0 else phi + np.pi, lam


def unroll(gate: Instruction) -> Iterator[Instruction]:
    """Yield gates on one and two qubits whose product is a gate, up to a phase."""
    assert gate.matrix is not None
    if len(gate.qubits) <= 2:
        yield gate
    elif gate.name == "cswap" and np.allclose(gate.matrix, STANDARD["cswap"][2](), rtol=0, atol=_TINY):
        control, first, second = gate.qubits
        yield _cx(second, first)
        yield from _multi_controlled(STANDARD["x"][2](), (control, first), second)
        yield _cx(second, first)
    elif _is_controlled(gate.matrix):
        yield from _multi_controlled(gate.matrix[-2:, -2:], gate.qubits[:-1], gate.qubits[-1])
    else:
        yield from _shannon(gate.matrix, gate.qubits)


def _cx(control: int, target: int) -> Instruction:
    return Instruction("cx", (control, target), STANDARD["cx"][2]())


def _is_controlled(matrix: ComplexArray) -> bool:
    size = len(matrix) - 2
    return bool(np.allclose(matrix[:size], np.eye(len(matrix))[:size], rtol=0, atol=_TINY))


def _multi_controlled(target_gate: ComplexArray, controls: Sequence[int], target: int) -> Iterator[Instruction]:
    """Yield C^n(U) with the last qubit as target."""
    if len(controls) == 1:
        yield Instruction("cu", (controls[0], target), controlled(target_gate))
    elif len(controls) == 2 and np.allclose(target_gate, STANDARD["x"][2](), rtol=0, atol=_TINY):
        yield from _toffoli(controls[0], controls[1], target)
    else:
        *others, last = controls
        root = power(target_gate, 0.5)
        flip = STANDARD["x"][2]()
        yield Instruction("cu", (last, target), controlled(root))
        yield from _multi_controlled(flip, others, last)
        yield Instruction("cu", (last, target), controlled(root.conj().T))
        yield from _multi_controlled(flip, others, last)
        yield from _multi_controlled(root, others, target)


def _toffoli(first: int, second: int, target: int) -> Iterator[Instruction]:
    """Yield CCX from six CX."""

    def one(name: str, qubit: int) -> Instruction:
        return Instruction(name, (qubit,), STANDARD[name][2]())

    yield one("h", target)
    yield _cx(second, target)
    yield one("tdg", target)
    yield _cx(first, target)
    yield one("t", target)
    yield _cx(second, target)
    yield one("tdg", target)
    yield _cx(first, target)
    yield from (one("t", second), one("t", target), one("h", target))
    yield _cx(first, second)
    yield from (one("t", first), one("tdg", second))
    yield _cx(first, second)


def _shannon(matrix: ComplexArray, qubits: Sequence[int]) -> Iterator[Instruction]:
    """Yield any gate: cosine-sine decomposition, multiplexed gates taken apart by eigenvectors, recursion."""
    if len(qubits) <= 2:
        yield Instruction("block", tuple(qubits), matrix)
        return
    half = len(matrix) // 2
    (u1, u2), angles, (v1, v2) = scipy.linalg.cossin(matrix, p=half, q=half, separate=True)
    yield from _multiplexed(v1, v2, qubits)
    yield from _uniform_rotation("ry", 2 * angles, qubits[1:], qubits[0])
    yield from _multiplexed(u1, u2, qubits)


def _multiplexed(zero: ComplexArray, one: ComplexArray, qubits: Sequence[int]) -> Iterator[Instruction]:
    """Yield the gate that is `zero` or `one` on the other qubits, as the first is 0 or 1."""
    form, left = scipy.linalg.schur(zero @ one.conj().T, output="complex")
    phases = np.angle(np.diag(form)) / 2
    right = np.diag(np.exp(1j * phases)) @ left.conj().T @ one
    yield from _shannon(right, qubits[1:])
    yield from _uniform_rotation("rz", -2 * phases, qubits[1:], qubits[0])
    yield from _shannon(left, qubits[1:])


def _uniform_rotation(kind: str, angles: FloatArray, controls: Sequence[int], target: int) -> Iterator[Instruction]:
    """Yield a rotation of the target by an angle that depends on the controls, (2^k,) with the first most significant.

    2^k rotations and 2^k CX in Gray order; M. Moettoenen et al., Phys. Rev. Lett. 93, 130502 (2004).
    """
    k = len(controls)
    size = 2**k
    gray = [n ^ (n >> 1) for n in range(size)]
    signs = np.array([[(-1) ** bin(b & g).count("1") for b in range(size)] for g in gray])
    turns = signs @ angles / size
    for n in range(size):
        yield Instruction(kind, (target,), STANDARD[kind][2](float(turns[n])))
        changed = (gray[n] ^ gray[(n + 1) % size]).bit_length() - 1
        yield _cx(controls[k - 1 - changed], target)
