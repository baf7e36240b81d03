"""Any two-qubit gate from the fewest lit couplers: local gates around and between uses of the entangling gate.

How many uses a gate needs follows from its place (x, y, z) in the Weyl chamber:

==========  ===  ==========================================================================
entangler   n    reached by n uses (fewer where fewer do)
==========  ===  ==========================================================================
cz          2    z = 0
cz          3    all; F. Vatan, C. Williams, Phys. Rev. A 69, 032315 (2004)
iswap       2    z = 0 (two SWAPs cancel)
iswap       3    all (iSWAP = SWAP x CZ up to local gates: what three CZ do for the gate times SWAP)
sqrt-iswap  2    x >= y + |z|; C. Huang et al., Phys. Rev. Lett. 130, 070601 (2023)
sqrt-iswap  3    all
sqrt-swap   2    (pi/4, t, t)
sqrt-swap   3    parts of the planes x + y - z = 3 pi/8 and x - y - z = pi/8
sqrt-swap   4    x + y + |z| <= pi/2
sqrt-swap   5    all
==========  ===  ==========================================================================

The rows of sqrt-swap were found numerically and are tested on random gates. Where the numerical search for the local
gates of sqrt-iswap and sqrt-swap fails (seen only within 1e-6 of no gate at all), CZ takes its place, made of two uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from molecular_qubits.control.fidelity import canonical_gate, target_gate
from molecular_qubits.network.interleave import interleave, rotations
from molecular_qubits.network.weyl import EIGHTH, Canonical, canonical
from molecular_qubits.spins.operators import ComplexArray

_CLOSE = 1e-10
"""Coordinates this near are taken to be equal; the gate made is off by as much at most."""

SWAP: ComplexArray = np.eye(4, dtype=complex)[[0, 2, 1, 3]]
_HADAMARD: ComplexArray = np.array([[1, 1], [1, -1]]) / np.sqrt(2) + 0j
_ZZ = np.diag([1.0 + 0j, -1, -1, 1])

Coordinates = tuple[float, float, float]


@dataclass(frozen=True)
class Synthesis:
    """A two-qubit gate as local gates with the entangler between: L_n G L_(n-1) ... G L_0.

    Attributes
    ----------
    layers
        L_0, ..., L_n, each (2, 2, 2): one (2, 2) for each qubit.
    """

    layers: tuple[ComplexArray, ...]

    @property
    def n_gates(self) -> int:
        """How often the entangler is used."""
        return len(self.layers) - 1

    def matrix(self, entangler: ComplexArray) -> ComplexArray:
        """Return the product (4, 4)."""
        return _product(self.layers, entangler)


def synthesise(unitary: ComplexArray, entangler: str) -> Synthesis:
    """Return a two-qubit gate (4, 4) from the fewest uses of an entangler, equal up to a phase to about 1e-12.

    Parameters
    ----------
    unitary
        The gate.
    entangler
        Name in `molecular_qubits.control.fidelity.TARGETS`.

    Raises
    ------
    ValueError
        If `unitary` is not unitary or the name is unknown.
    """
    unitary = np.asarray(unitary, dtype=complex)
    target_gate(entangler)
    return _synthesise(unitary.tobytes(), unitary.shape, entangler)


@lru_cache(maxsize=4096)
def _synthesise(data: bytes, shape: tuple[int, ...], entangler: str) -> Synthesis:
    gate = target_gate(entangler)
    wanted = canonical(np.frombuffer(data, dtype=complex).reshape(shape))
    inner = _inner(_rounded(wanted.coordinates), entangler)
    if inner is None:
        return Synthesis((wanted.after @ wanted.before * _single_phase(wanted),))
    made = canonical(_product((np.array([np.eye(2)] * 2), *inner, np.array([np.eye(2)] * 2)), gate))
    if not np.allclose(made.coordinates, wanted.coordinates, rtol=0, atol=1e-8):  # a defect: never return a wrong gate
        raise RuntimeError(f"The gate {wanted.coordinates} was not reached by {len(inner) + 1} x {entangler}.")
    first = made.before.conj().swapaxes(-1, -2) @ wanted.before
    last = wanted.after @ made.after.conj().swapaxes(-1, -2)
    return Synthesis((first, *inner, last))


def coupler_count(coordinates: Coordinates, entangler: str) -> int:
    """Return how many uses of an entangler `synthesise` needs for a gate at a place of the Weyl chamber.

    On the planes that three uses of sqrt-swap reach in part, this looks for the local gates.
    """
    if np.allclose(coordinates, 0, rtol=0, atol=_CLOSE):
        return 0
    if np.allclose(coordinates, canonical(target_gate(entangler)).coordinates, rtol=0, atol=_CLOSE):
        return 1
    return next(n for n in _possible(coordinates, entangler) if _attempt(_rounded(coordinates), entangler, n))


def _rounded(coordinates: Coordinates) -> Coordinates:
    """Return coordinates to 14 digits after the point: gates that differ by round-off share what was found for them."""
    x, y, z = (round(c, 14) + 0.0 for c in coordinates)
    return x, y, z


def _possible(coordinates: Coordinates, entangler: str) -> Iterable[int]:
    """Return the numbers of uses, two or more, that can do."""
    x, y, z = coordinates
    if entangler in ("cz", "iswap"):
        return (2, 3) if abs(z) < _CLOSE else (3,)
    through_cz = 4 if abs(z) < 1e-12 else 6
    if entangler == "sqrt-iswap":
        return (2, 3, through_cz) if x >= y + abs(z) - _CLOSE else (3, through_cz)
    found = []
    if EIGHTH - x < _CLOSE and abs(y - z) < _CLOSE:
        found.append(2)
    if min(abs(x + y - z - 3 * np.pi / 8), abs(x - y - z - np.pi / 8)) < _CLOSE:
        found.append(3)
    if x + y + abs(z) <= np.pi / 2 + _CLOSE:
        found.append(4)
    return (*found, 5, through_cz)


@lru_cache(maxsize=65536)
def _inner(coordinates: Coordinates, entangler: str) -> tuple[ComplexArray, ...] | None:
    """Return the layers between the uses; ``None`` if no use is needed."""
    count = coupler_count(coordinates, entangler)
    if count == 0:
        return None
    if count == 1:
        return ()
    return _attempt(coordinates, entangler, count)


@lru_cache(maxsize=65536)
def _attempt(coordinates: Coordinates, entangler: str, count: int) -> tuple[ComplexArray, ...] | None:
    """Return the layers between a number of uses, or ``None`` if that many do not reach the gate."""
    x, y, z = coordinates
    if entangler == "cz":
        return _between_cz(coordinates, count)
    if entangler == "iswap":
        goal = coordinates if count == 2 else canonical(canonical_gate(*coordinates) @ SWAP).coordinates
        layers = _between_cz(goal, count)
        # iSWAP = SWAP exp(-i pi/4 ZZ) up to a phase, and exp(-i pi/4 ZZ) = -i ZZ exp(i pi/4 ZZ)
        turned = [layer @ np.diag([1, -1]) for layer in layers]
        return tuple(layer[::-1] if (count - k) % 2 == 0 else layer for k, layer in enumerate(turned))
    if entangler == "sqrt-swap" and count == 2:
        return (np.array([np.diag(np.exp([-0.5j * (np.pi - 4 * y), 0.5j * (np.pi - 4 * y)])), np.eye(2)]),)
    found = interleave(canonical_gate(x, y, z), target_gate(entangler), count)
    if found is not None:
        return tuple(found[1:-1])
    return _through_cz(coordinates, entangler) if count == (4 if abs(z) < 1e-12 else 6) else None


def _through_cz(coordinates: Coordinates, entangler: str) -> tuple[ComplexArray, ...]:
    """Return the layers when every exp(i pi/4 ZZ) is made of two uses: always possible, seldom the fewest."""
    first, middle, last = synthesise(target_gate("cz"), entangler).layers
    outer = _between_cz(coordinates, 2 if abs(coordinates[2]) < 1e-12 else 3)
    layers = [middle]
    for layer in outer:
        layers += [first @ layer @ last, middle]
    return tuple(layers)


def _between_cz(coordinates: Coordinates, count: int) -> tuple[ComplexArray, ...]:
    """Return the layers between two or three exp(i pi/4 ZZ)."""
    x, y, z = coordinates
    if count == 2:
        return (rotations(np.array([[2 * x, 0, 0], [2 * y, 0, 0]])),)
    quarter = rotations(np.array([0, 0, -np.pi / 2]))  # CZ = exp(i pi/4 ZZ) and this on both
    turn = rotations(np.array([[0, 0, np.pi / 2 + 2 * z], [0, 2 * x - np.pi / 2, 0], [0, np.pi / 2 - 2 * y, 0]]))
    first = np.array([turn[0] @ _HADAMARD @ quarter, _HADAMARD @ turn[1] @ quarter])
    second = np.array([_HADAMARD @ quarter, turn[2] @ _HADAMARD @ quarter])
    return first, second


def _single_phase(wanted: Canonical) -> ComplexArray:
    return np.array([wanted.phase, 1.0])[:, None, None]


def _product(layers: Iterable[ComplexArray], gate: ComplexArray) -> ComplexArray:
    first, *rest = layers
    matrix = np.kron(first[0], first[1])
    for layer in rest:
        matrix = np.kron(layer[0], layer[1]) @ gate @ matrix
    return matrix
