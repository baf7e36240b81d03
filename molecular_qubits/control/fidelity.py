"""How good a two-qubit gate is: Pauli transfer matrices, average gate fidelity with leakage, bounds.

A channel on two qubits is its Pauli transfer matrix R_ab = Tr(P_a E(P_b)) / 4, real, (16, 16), over the products of
1, X, Y, Z. A channel that loses part of the state (leakage) has R_00 < 1.
"""

import itertools
from typing import Any

import numpy as np

from molecular_qubits.control.local_rotations import LocalRotations, proper_rotations
from molecular_qubits.spins.checks import known_name, non_negative, positive
from molecular_qubits.spins.operators import ComplexArray, FloatArray

_SINGLE = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=complex)
PAULI_PRODUCTS: ComplexArray = np.array([np.kron(a, b) for a, b in itertools.product(_SINGLE, _SINGLE)])
"""The products 11, 1X, 1Y, 1Z, X1, ..., ZZ, shape (16, 4, 4)."""


def canonical_gate(c_x: float, c_y: float, c_z: float) -> ComplexArray:
    """Return exp(i (c_x XX + c_y YY + c_z ZZ)), shape (4, 4); every two-qubit gate is one of these up to local ones."""
    generator = sum(c * np.kron(pauli, pauli) for c, pauli in zip((c_x, c_y, c_z), _SINGLE[1:], strict=True))
    values, vectors = np.linalg.eigh(generator)
    return np.asarray((vectors * np.exp(1j * values)) @ vectors.conj().T, dtype=complex)


TARGETS: dict[str, ComplexArray] = {
    "iswap": canonical_gate(np.pi / 4, np.pi / 4, 0),
    "sqrt-iswap": canonical_gate(np.pi / 8, np.pi / 8, 0),
    "cz": canonical_gate(0, 0, np.pi / 4),
    "sqrt-swap": canonical_gate(np.pi / 8, np.pi / 8, np.pi / 8),
}
"""Entangling gates by name, each standing for all gates that differ by local rotations."""


def target_gate(name: str) -> ComplexArray:
    """Return the gate (4, 4) of a name in `TARGETS`."""
    return TARGETS[known_name(name, tuple(TARGETS), "target")]


def transfer_matrix(unitary: Any) -> Any:
    """Return the Pauli transfer matrix (..., 16, 16) of operators (..., 4, 4), NumPy or JAX."""
    moved = unitary[..., None, :, :] @ PAULI_PRODUCTS @ unitary.conj().swapaxes(-1, -2)[..., None, :, :]
    return (moved.reshape(*moved.shape[:-2], 16) @ PAULI_PRODUCTS.conj().reshape(16, 16).T).real.swapaxes(-1, -2) / 4


def average_gate_fidelity(channel: Any, target: Any) -> Any:
    """Return the fidelity of a channel to a gate, averaged over all pure states of two qubits.

    F = (d F_pro + 1 - L) / (d + 1) with d = 4, the process fidelity F_pro = Tr(R_target^T R) / 16 and the leakage
    L = 1 - R_00, the mean probability to end outside the qubits' space; what leaks counts as lost.

    Parameters
    ----------
    channel
        Pauli transfer matrices (..., 16, 16); NumPy or JAX.
    target
        Pauli transfer matrix (16, 16) of the gate wanted.

    Returns
    -------
    array, shape (...)

    Raises
    ------
    ValueError
        If one is no such matrix, a unitary for instance.

    References
    ----------
    L. H. Pedersen, N. M. Moeller, K. Moelmer, Phys. Lett. A 367, 47 (2007), for maps that lose norm;
    C. J. Wood, J. M. Gambetta, Phys. Rev. A 97, 032306 (2018), eq. (12), with leakage.
    """
    for name, matrix in (("channel", channel), ("target", target)):
        if matrix.shape[-2:] != (16, 16):
            raise ValueError(
                f"Argument `{name}` must be a Pauli transfer matrix (16, 16), but has shape {tuple(matrix.shape)}: "
                "`transfer_matrix` makes one of a unitary."
            )
    process = (channel * target).sum(axis=(-2, -1)) / 16
    return (4 * process + channel[..., 0, 0]) / 5


def best_local_fidelity(
    channel: FloatArray, target: ComplexArray, *, restarts: int = 6, seed: int = 0
) -> tuple[float, FloatArray]:
    """Return the average gate fidelity with the best local rotations before and after the gate.

    The four rotations are improved in turn (`LocalRotations`) until nothing is gained, from several starts.

    Parameters
    ----------
    channel
        Pauli transfer matrix (16, 16).
    target
        The entangling gate (4, 4).
    restarts
        Starts, the first from no rotation, the others from random ones.
    seed
        Of the random starts.

    Returns
    -------
    fidelity : float
    target_matrix : ndarray, shape (16, 16)
        Pauli transfer matrix of the rotated gate that is reached best.

    Raises
    ------
    ValueError
        If the target is not unitary, or `restarts` below 1.
    """
    gate = np.asarray(target)
    if gate.shape != (4, 4) or not np.allclose(gate @ gate.conj().T, np.eye(4), atol=1e-8):
        raise ValueError(f"Argument `target` must be a unitary matrix (4, 4), but is not: {gate.tolist()}.")
    if restarts < 1:
        raise ValueError(f"Argument `restarts` must be at least 1, but was {restarts}.")
    core, found = transfer_matrix(target), np.asarray(channel)
    turns = proper_rotations(np.random.default_rng(seed).normal(size=(restarts - 1, 4, 3, 3)))
    start = np.concatenate([np.broadcast_to(np.eye(3), (1, 4, 3, 3)), turns])
    rotations = LocalRotations(np.broadcast_to(found, (restarts, 16, 16)), core, start)
    rotations.improve(200, tolerance=1e-13)
    gates = rotations.rotated_gates()
    overlaps = (gates * found).sum(axis=(1, 2))
    best = gates[np.argmax(overlaps > overlaps.max() - 1e-12)]  # of equally good ones the first
    return float(average_gate_fidelity(found, best)), best


def local_only_fidelity(target: ComplexArray) -> float:
    """Return what the best local rotations alone reach of an entangling gate: the value below which nothing is gained.

    The process fidelity is the square of the largest operator-Schmidt coefficient, which bounds all products.
    """
    schmidt = np.linalg.svd(target.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4), compute_uv=False)
    return float((4 * (schmidt[0] / 2) ** 2 + 1) / 5)


def decay_bound(duration_ns: Any, t1_ns: float, t2_ns: float) -> Any:
    """Return the fidelity that T1 and T2 of the two radicals leave to any gate of a given duration on them.

    F = (4 p^2 + 1) / 5 with p = (1 + exp(-t/T1) + 2 exp(-t/T2)) / 4, the process fidelity of each radical left alone in
    the limit kT >> h-bar omega. No control on the radicals can raise it: there the relaxation is self-adjoint, and the
    trace of a product of unitary and decay maps is at most the sum of the products of their singular values (Horn),
    which is what the decay alone gives. Holds while the qubits stay on the radicals.

    Parameters
    ----------
    duration_ns
        Number or array.
    t1_ns, t2_ns
        Relaxation times of each radical; T2 at most 2 T1.

    Raises
    ------
    ValueError
        If a time is not above 0 or T2 > 2 T1.
    """
    t1, t2 = positive(t1_ns, "t1_ns"), positive(t2_ns, "t2_ns")
    if t2 > 2 * t1 * (1 + 1e-12):
        raise ValueError(f"Argument `t2_ns` must be at most 2 T1 = {2 * t1:g} ns, but was {t2:g} ns.")
    t = np.asarray(duration_ns, dtype=float)
    non_negative(np.min(t), "duration_ns")
    single = (1 + np.exp(-t / t1) + 2 * np.exp(-t / t2)) / 4
    bound = (4 * single**2 + 1) / 5
    return float(bound) if bound.ndim == 0 else bound
