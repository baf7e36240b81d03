"""Local gates between entangling gates, found numerically: L_n G L_(n-1) ... G L_0 = target to machine precision.

Levenberg-Marquardt on the matrix itself from several starts at once. The matrix is a smooth function of the local gates
also where Weyl coordinates fold, so that targets on the rim of what n gates reach converge too, only more slowly.
"""

from __future__ import annotations

import numpy as np

from molecular_qubits.spins.operators import ComplexArray, FloatArray

_PAULI: ComplexArray = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
_GENERATORS: ComplexArray = 0.5j * np.array(
    [np.kron(p, np.eye(2)) for p in _PAULI] + [np.kron(np.eye(2), p) for p in _PAULI]
)
_STARTS = 3
_EXACT = 2e-13


def interleave(
    target: ComplexArray, entangler: ComplexArray, n_gates: int, *, rounds: int = 8, seed: int = 0
) -> list[ComplexArray] | None:
    """Return the local gates L_0, ..., L_n, each (2, 2, 2), or ``None`` if they were not found.

    Parameters
    ----------
    target, entangler
        Two-qubit gates (4, 4).
    n_gates
        How often the entangler is used.
    rounds
        Sets of random starts tried.
    seed
        Of the starts.

    Returns
    -------
    list of ndarray or None
        The product is the target up to a phase, every element to about 1e-13.
    """
    rng = np.random.default_rng(seed)
    goal = target / np.linalg.det(target) ** 0.25
    gate = entangler / np.linalg.det(entangler) ** 0.25
    for _ in range(rounds):
        layers = rotations(2 * rng.normal(size=(n_gates + 1, _STARTS, 2, 3)))
        error, layers = _descend(goal, gate, layers)
        best = int(np.argmin(error))
        if error[best] < _EXACT:
            return [layer[best] for layer in layers]
    return None


def rotations(vectors: FloatArray) -> ComplexArray:
    """Return exp(i v.sigma / 2), (..., 2, 2), of vectors (..., 3)."""
    half = np.linalg.norm(vectors, axis=-1)[..., None, None] / 2
    turned = np.einsum("...i,ijk->...jk", vectors, _PAULI)
    return np.asarray(np.cos(half) * np.eye(2) + 0.5j * np.sinc(half / np.pi) * turned)


def _kron(pairs: ComplexArray) -> ComplexArray:
    product = pairs[..., 0, :, None, :, None] * pairs[..., 1, None, :, None, :]
    return product.reshape(*pairs.shape[:-3], 4, 4)


def _product(gate: ComplexArray, layers: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
    """Return the products up to every layer and those after it, (n + 1, s, 4, 4) each."""
    locals_ = _kron(layers)
    upto = [locals_[0]]
    for layer in locals_[1:]:
        upto.append(layer @ (gate @ upto[-1]))
    after = [np.broadcast_to(np.eye(4, dtype=complex), upto[0].shape)]
    for layer in locals_[:0:-1]:
        after.append(after[-1] @ layer @ gate)
    return np.array(upto), np.array(after[::-1])


def _residual(goal: ComplexArray, found: ComplexArray) -> ComplexArray:
    """Return found minus the goal times the fourth root of 1 that is nearest, (s, 4, 4)."""
    overlap = np.einsum("ij,sij->s", goal.conj(), found)
    return found - goal * (1j ** np.round(np.angle(overlap) / (np.pi / 2)))[:, None, None]


def _descend(goal: ComplexArray, gate: ComplexArray, layers: ComplexArray) -> tuple[FloatArray, ComplexArray]:
    """Return the largest error of each start and its layers after as many steps as help."""
    n_layers, n_starts = layers.shape[:2]
    damping = np.full(n_starts, 1e-2)
    upto, after = _product(gate, layers)
    residual = _residual(goal, upto[-1])
    cost = np.linalg.norm(residual, axis=(1, 2))
    history = [cost]
    eye = np.eye(6 * n_layers)
    for step in range(200):
        slopes = np.einsum("lsab,gbc,lscd->slgad", after, _GENERATORS, upto, optimize=True)
        slopes = slopes.reshape(n_starts, 6 * n_layers, 16)
        slopes = np.concatenate([slopes.real, slopes.imag], axis=2)
        flat = residual.reshape(n_starts, 16)
        flat = np.concatenate([flat.real, flat.imag], axis=1)
        normal = slopes @ slopes.swapaxes(1, 2) + damping[:, None, None] * eye
        moves = -np.linalg.solve(normal, np.einsum("spk,sk->sp", slopes, flat)[..., None])[..., 0]
        turns = rotations(moves.reshape(n_starts, n_layers, 2, 3).swapaxes(0, 1))
        tried = turns @ layers
        new_upto, new_after = _product(gate, tried)
        new_residual = _residual(goal, new_upto[-1])
        new_cost = np.linalg.norm(new_residual, axis=(1, 2))
        better = new_cost < cost
        layers = np.where(better[None, :, None, None, None], tried, layers)
        upto = np.where(better[None, :, None, None], new_upto, upto)
        after = np.where(better[None, :, None, None], new_after, after)
        residual = np.where(better[:, None, None], new_residual, residual)
        cost = np.where(better, new_cost, cost)
        damping = np.clip(np.where(better, damping / 8, damping * 4), 1e-12, 1e8)
        history.append(cost)
        if cost.min() < _EXACT / 2:
            break
        if step > 15 and np.all(history[-10] - cost < 0.02 * cost):
            break
    return np.abs(residual).max(axis=(1, 2)), layers
