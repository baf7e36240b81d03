"""Named gates of OpenQASM as matrices, and what modifiers do to them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from molecular_qubits.spins.operators import ComplexArray

_LARGEST_PRODUCT = 1000
"""Largest whole power that is a product: rounding grows with the power, and a huge one would not be unitary."""


def u3(theta: float, phi: float, lam: float) -> ComplexArray:
    """Return the gate U of OpenQASM 2, (2, 2): first element real and not negative for theta in [0, pi]."""
    cos, sin = math.cos(theta / 2), math.sin(theta / 2)
    return np.array(
        [[cos, -np.exp(1j * lam) * sin], [np.exp(1j * phi) * sin, np.exp(1j * (phi + lam)) * cos]], dtype=complex
    )


def builtin_u(theta: float, phi: float, lam: float) -> ComplexArray:
    """Return the built-in U of OpenQASM 3, (2, 2), which has the phase exp(i theta / 2) besides."""
    return np.exp(0.5j * theta) * u3(theta, phi, lam)


def controlled(matrix: ComplexArray, controls: int = 1, *, value: bool = True) -> ComplexArray:
    """Return a gate that acts if all of some controls, before its qubits, are 1 (or all 0)."""
    size = matrix.shape[0]
    whole = np.eye(size * 2**controls, dtype=complex)
    place = slice(-size, None) if value else slice(0, size)
    whole[place, place] = matrix
    return whole


def power(matrix: ComplexArray, exponent: float) -> ComplexArray:
    """Return the principal power of a unitary matrix."""
    import scipy.linalg

    if exponent == int(exponent) and abs(exponent) <= _LARGEST_PRODUCT:
        return np.asarray(np.linalg.matrix_power(matrix, int(exponent)))
    form, vectors = scipy.linalg.schur(matrix, output="complex")  # diagonal, as the matrix is normal
    return np.asarray((vectors * np.exp(1j * exponent * np.angle(np.diag(form)))) @ vectors.conj().T)


def _rotation(axis: str) -> Callable[[float], ComplexArray]:
    generator = {"x": _X, "y": _Y, "z": _Z}[axis]
    return lambda theta: np.cos(theta / 2) * np.eye(2) - 1j * np.sin(theta / 2) * generator


def _ising(first: ComplexArray, second: ComplexArray) -> Callable[[float], ComplexArray]:
    generator = np.kron(first, second)
    return lambda theta: np.cos(theta / 2) * np.eye(4) - 1j * np.sin(theta / 2) * generator


def _phase(angle: float) -> ComplexArray:
    return np.diag(np.array([1, np.exp(1j * angle)]))


def _symmetric_u3(theta: float, phi: float, lam: float) -> ComplexArray:
    """Return u3 of stdgates.inc, (2, 2), of determinant 1: gphase(-(phi + lam + theta) / 2) and the built-in U."""
    return np.exp(-0.5j * (phi + lam)) * u3(theta, phi, lam)


_X: ComplexArray = np.array([[0, 1], [1, 0]], dtype=complex)
_Y: ComplexArray = np.array([[0, -1j], [1j, 0]])
_Z: ComplexArray = np.diag([1, -1]).astype(complex)
_H: ComplexArray = np.array([[1, 1], [1, -1]]).astype(complex) / np.sqrt(2)
_SX: ComplexArray = np.array([[0.5 + 0.5j, 0.5 - 0.5j], [0.5 - 0.5j, 0.5 + 0.5j]])
_SWAP: ComplexArray = np.eye(4, dtype=complex)[[0, 2, 1, 3]]


def _fixed(matrix: ComplexArray) -> Callable[[], ComplexArray]:
    return lambda: matrix


STANDARD: dict[str, tuple[int, int, Callable[..., ComplexArray]]] = {
    "id": (0, 1, _fixed(np.eye(2, dtype=complex))),
    "x": (0, 1, _fixed(_X)),
    "y": (0, 1, _fixed(_Y)),
    "z": (0, 1, _fixed(_Z)),
    "h": (0, 1, _fixed(_H)),
    "s": (0, 1, _fixed(_phase(np.pi / 2))),
    "sdg": (0, 1, _fixed(_phase(-np.pi / 2))),
    "t": (0, 1, _fixed(_phase(np.pi / 4))),
    "tdg": (0, 1, _fixed(_phase(-np.pi / 4))),
    "sx": (0, 1, _fixed(_SX)),
    "p": (1, 1, _phase),
    "phase": (1, 1, _phase),
    "rx": (1, 1, _rotation("x")),
    "ry": (1, 1, _rotation("y")),
    "rz": (1, 1, _rotation("z")),
    "u1": (1, 1, _phase),
    "u2": (2, 1, lambda phi, lam: _symmetric_u3(np.pi / 2, phi, lam)),
    "u3": (3, 1, _symmetric_u3),
    "cx": (0, 2, _fixed(controlled(_X))),
    "CX": (0, 2, _fixed(controlled(_X))),
    "cy": (0, 2, _fixed(controlled(_Y))),
    "cz": (0, 2, _fixed(controlled(_Z))),
    "ch": (0, 2, _fixed(controlled(_H))),
    "swap": (0, 2, _fixed(_SWAP)),
    "cp": (1, 2, lambda angle: controlled(_phase(angle))),
    "cphase": (1, 2, lambda angle: controlled(_phase(angle))),
    "crx": (1, 2, lambda angle: controlled(_rotation("x")(angle))),
    "cry": (1, 2, lambda angle: controlled(_rotation("y")(angle))),
    "crz": (1, 2, lambda angle: controlled(_rotation("z")(angle))),
    "cu": (4, 2, lambda theta, phi, lam, gamma: controlled(np.exp(1j * gamma) * u3(theta, phi, lam))),
    "ccx": (0, 3, _fixed(controlled(_X, 2))),
    "cswap": (0, 3, _fixed(controlled(_SWAP))),
}
"""stdgates.inc of OpenQASM 3, with the global phases that a control sees: number of angles and of qubits, matrix."""

QELIB1: dict[str, tuple[int, int, Callable[..., ComplexArray]]] = {
    **STANDARD,
    "u": (3, 1, u3),
    "u2": (2, 1, lambda phi, lam: u3(np.pi / 2, phi, lam)),
    "u3": (3, 1, u3),
    "u0": (1, 1, lambda _: np.eye(2, dtype=complex)),
    "sxdg": (0, 1, _fixed(_SX.conj().T)),
    "csx": (0, 2, _fixed(controlled(_SX))),
    "cu1": (1, 2, lambda angle: controlled(_phase(angle))),
    "cu3": (3, 2, lambda theta, phi, lam: controlled(u3(theta, phi, lam))),
    "rxx": (1, 2, _ising(_X, _X)),
    "ryy": (1, 2, _ising(_Y, _Y)),
    "rzz": (1, 2, _ising(_Z, _Z)),
    "c3x": (0, 4, _fixed(controlled(_X, 3))),
    "c4x": (0, 5, _fixed(controlled(_X, 4))),
    "c3sqrtx": (0, 4, _fixed(controlled(_SX, 3))),
}
"""qelib1.inc of OpenQASM 2 and what Qiskit adds to it, up to phases that no other gate sees.

cu3 is u3 under control, as Qiskit has it; the first qelib1.inc had another phase between the values of the control.
"""
