"""Channels on one or two radicals as Pauli transfer matrices: made, checked, taken apart, twirled.

R_ab = Tr(P_a E(P_b)) / d over the products of 1, X, Y, Z, real, (4, 4) or (16, 16), first site slowest. A channel that
keeps the trace has the first row 1, 0, 0, ...; one that loses part of the state has a smaller R_00.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from molecular_qubits.control.fidelity import PAULI_PRODUCTS
from molecular_qubits.spins.operators import ComplexArray, FloatArray

PAULIS: ComplexArray = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
"""1, X, Y, Z, shape (4, 2, 2)."""

_SIGNS: FloatArray = np.array([[1.0, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
"""Sign of P_b under conjugation with P_a, one site."""


def pauli_basis(n_sites: int) -> ComplexArray:
    """Return the products of Paulis on one or two sites, (4, 2, 2) or (16, 4, 4)."""
    return PAULIS if n_sites == 1 else PAULI_PRODUCTS


def sites_of(transfer: FloatArray) -> int:
    """Return the number of sites (1 or 2) that a transfer matrix acts on."""
    return {4: 1, 16: 2}[transfer.shape[-1]]


def from_unitary(unitary: ComplexArray) -> FloatArray:
    """Return the transfer matrix (..., 4, 4) or (..., 16, 16) of operators (..., 2, 2) or (..., 4, 4)."""
    return from_kraus(np.asarray(unitary)[..., None, :, :])


def from_kraus(kraus: ComplexArray) -> FloatArray:
    """Return the transfer matrix (..., d^2, d^2) of Kraus operators (..., k, d, d)."""
    kraus = np.asarray(kraus, dtype=complex)
    d = kraus.shape[-1]
    basis = pauli_basis(1 if d == 2 else 2)
    moved = kraus[..., None, :, :] @ basis @ kraus.conj().swapaxes(-1, -2)[..., None, :, :]
    moved = moved.sum(axis=-4).reshape(*kraus.shape[:-3], d * d, d * d)
    return np.asarray((moved @ basis.conj().reshape(d * d, d * d).T).real.swapaxes(-1, -2) / d)


def choi(transfer: FloatArray) -> ComplexArray:
    """Return the Choi matrix sum_ij E(|i><j|) x |i><j|, (d^2, d^2), of trace d for a channel that keeps the trace."""
    basis = pauli_basis(sites_of(transfer))
    d = basis.shape[-1]
    tensor = np.einsum("ab,aij,blk->ikjl", transfer, basis, basis, optimize=True) / d
    return np.asarray(tensor.reshape(d * d, d * d))


def to_kraus(transfer: FloatArray, tolerance: float = 1e-12) -> ComplexArray:
    """Return Kraus operators (k, d, d), orthogonal to each other, the heaviest first.

    Raises
    ------
    ValueError
        If the map is not completely positive.
    """
    check_channel(transfer)
    values, vectors = np.linalg.eigh(choi(transfer))
    kept = values > tolerance
    d = math.isqrt(len(values))
    kraus = (vectors[:, kept] * np.sqrt(values[kept])).T.reshape(-1, d, d)
    return np.asarray(kraus[::-1])


def check_channel(transfer: FloatArray, tolerance: float = 1e-9, name: str = "transfer") -> None:
    """Refuse a map that is not completely positive or that makes states of a trace above 1.

    Raises
    ------
    ValueError
        With the eigenvalue or the trace that is wrong.
    """
    if transfer.shape not in ((4, 4), (16, 16)) or not np.all(np.isfinite(transfer)):
        raise ValueError(f"Argument `{name}` must be finite, (4, 4) or (16, 16), but has shape {transfer.shape}.")
    lowest = float(np.linalg.eigvalsh(choi(transfer))[0])
    if lowest < -tolerance:
        raise ValueError(f"Argument `{name}` must be completely positive, but its Choi matrix has {lowest:.3g}.")
    kept = np.einsum("b,bij->ij", transfer[0], pauli_basis(sites_of(transfer)))
    highest = float(np.linalg.eigvalsh(kept)[-1])
    if highest > 1 + tolerance:
        raise ValueError(f"Argument `{name}` must not raise the trace, but does to {highest:.12g}.")


def relaxation(time_ns: Any, t1_ns: float, t2_ns: float, polarisation: float = 0.0) -> FloatArray:
    """Return T1 and T2 of a radical left alone, (..., 4, 4) for times (...).

    Z goes to `polarisation` (<Z> in equilibrium) in T1, X and Y to 0 in T2: at kT far above the level splitting both
    directions are as fast and the polarisation is 0.
    """
    times = np.asarray(time_ns, dtype=float)
    found = np.zeros((*times.shape, 4, 4))
    found[..., 0, 0] = 1
    found[..., 1, 1] = found[..., 2, 2] = np.exp(-times / t2_ns)
    found[..., 3, 3] = np.exp(-times / t1_ns)
    found[..., 3, 0] = polarisation * (1 - found[..., 3, 3])
    return found


def driven(
    theta: float, phi: float, time_ns: float, t1_ns: float, t2_ns: float, polarisation: float = 0.0, spread: float = 0.0
) -> FloatArray:
    """Return a microwave rotation under relaxation, (4, 4), exact for a pulse of constant amplitude.

    Parameters
    ----------
    theta, phi
        Angle and phase, rad.
    time_ns
        Length of the pulse.
    t1_ns, t2_ns, polarisation
        As in `relaxation`.
    spread
        Relative standard deviation of the amplitude, normally distributed from pulse to pulse.
    """
    from scipy.linalg import expm

    generator = np.zeros((4, 4))
    generator[1, 1] = generator[2, 2] = -time_ns / t2_ns
    generator[3, 3] = -time_ns / t1_ns
    generator[3, 0] = polarisation * time_ns / t1_ns
    axis = np.array([np.cos(phi), np.sin(phi)])
    turn = np.zeros((4, 4))
    turn[3, 1], turn[3, 2] = -axis[1], axis[0]
    turn[1, 3], turn[2, 3] = axis[1], -axis[0]
    found = expm(generator + theta * turn)
    if spread:  # the spread commutes with the rotation: it damps what lies across the axis
        width = spread * theta
        found = found @ (np.eye(4) + (1 - math.exp(-(width**2) / 2)) * (turn @ turn))
    return np.asarray(found)


def frame(angle: Any) -> FloatArray:
    """Return the change of frame exp(-i angle/2 Z), (..., 4, 4) for angles (...)."""
    angle = np.asarray(angle, dtype=float)
    found = np.zeros((*angle.shape, 4, 4))
    found[..., 0, 0] = found[..., 3, 3] = 1
    found[..., 1, 1] = found[..., 2, 2] = np.cos(angle)
    found[..., 2, 1] = np.sin(angle)
    found[..., 1, 2] = -found[..., 2, 1]
    return found


def twirled(transfer: FloatArray) -> FloatArray:
    """Return the probabilities (4,) or (16,) of the Paulis when a channel near the identity is averaged over Paulis.

    The average is sum_a p_a P_a rho P_a with p = W diag(R) / d^2 and W the signs of conjugation; the trace that the
    channel loses counts as full depolarisation.
    """
    size = len(transfer)
    found = pauli_signs(sites_of(transfer)) @ np.diag(transfer) / size + (1 - transfer[0, 0]) / size
    found = np.clip(found, 0, None)
    return np.asarray(found / found.sum())


def pauli_signs(n_sites: int) -> FloatArray:
    """Return the sign of Pauli product b under conjugation with a, (4, 4) or (16, 16)."""
    return _SIGNS if n_sites == 1 else np.asarray(np.kron(_SIGNS, _SIGNS), dtype=float)


def swap_sites(transfer: FloatArray) -> FloatArray:
    """Return a two-site channel with the sites exchanged."""
    return np.asarray(transfer.reshape(4, 4, 4, 4).transpose(1, 0, 3, 2).reshape(16, 16))


def on_both(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the product of two one-site channels, (..., 16, 16)."""
    product = np.einsum("...ac,...bd->...abcd", first, second)
    return np.asarray(product.reshape(*product.shape[:-4], 16, 16))


def average_fidelity(channel: FloatArray, ideal: FloatArray) -> float:
    """Return the fidelity of a channel to a gate over all pure states, for one or two sites; lost trace is lost.

    F = (d F_pro + R_00) / (d + 1) with the process fidelity F_pro = Tr(R_ideal^T R) / d^2.
    """
    d = 2 ** sites_of(channel)
    return float((d * np.sum(ideal * channel) / d**2 + channel[0, 0]) / (d + 1))


@functools.cache
def identity(n_sites: int) -> FloatArray:
    """Return the transfer matrix that does nothing; not to be written to."""
    found = np.eye(4**n_sites)
    found.flags.writeable = False
    return found
