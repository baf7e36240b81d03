"""Compiled quantum trajectories: one ket after another goes through all steps, a Kraus operator drawn in each."""

import math

import numpy as np
from numba import njit, prange

_njit = njit(cache=True, error_model="numpy", fastmath={"contract"})


@_njit
def _apply_two(ket: np.ndarray, first: int, second: int, k: np.ndarray) -> None:
    """Apply k (4, 4) to the bits of value `first` and `second` of the index."""
    low, high = min(first, second), max(first, second)
    for upper in range(0, ket.size, 2 * high):
        for middle in range(upper, upper + high, 2 * low):
            for i in range(middle, middle + low):
                a, b, c, d = ket[i], ket[i + second], ket[i + first], ket[i + first + second]
                ket[i] = k[0, 0] * a + k[0, 1] * b + k[0, 2] * c + k[0, 3] * d
                ket[i + second] = k[1, 0] * a + k[1, 1] * b + k[1, 2] * c + k[1, 3] * d
                ket[i + first] = k[2, 0] * a + k[2, 1] * b + k[2, 2] * c + k[2, 3] * d
                ket[i + first + second] = k[3, 0] * a + k[3, 1] * b + k[3, 2] * c + k[3, 3] * d


@_njit
def _local_two(ket: np.ndarray, first: int, second: int, rho: np.ndarray) -> None:
    """Write the reduced state (4, 4) of two sites."""
    rho[:] = 0
    low, high = min(first, second), max(first, second)
    part = np.zeros(10, dtype=np.complex128)
    for upper in range(0, ket.size, 2 * high):
        for middle in range(upper, upper + high, 2 * low):
            for i in range(middle, middle + low):
                a, b, c, d = ket[i], ket[i + second], ket[i + first], ket[i + first + second]
                part[0] += a.real * a.real + a.imag * a.imag
                part[1] += a * b.conjugate()
                part[2] += a * c.conjugate()
                part[3] += a * d.conjugate()
                part[4] += b.real * b.real + b.imag * b.imag
                part[5] += b * c.conjugate()
                part[6] += b * d.conjugate()
                part[7] += c.real * c.real + c.imag * c.imag
                part[8] += c * d.conjugate()
                part[9] += d.real * d.real + d.imag * d.imag
    place = 0
    for row in range(4):
        for column in range(row, 4):
            rho[row, column] = part[place]
            rho[column, row] = part[place].conjugate()
            place += 1


@_njit
def _draw(rho: np.ndarray, effects: np.ndarray, start: int, stop: int, uniform: float) -> tuple[int, float]:
    """Return which Kraus operator acts, and its probability, from K^+ K (n, 4, 4) and the reduced state."""
    total = 0.0
    for row in range(4):
        total += rho[row, row].real
    left = uniform * total
    chosen, probability = start, 0.0
    for which in range(start, stop):
        weight = 0.0
        for row in range(4):
            for column in range(4):
                e, r = effects[which, row, column], rho[column, row]
                weight += e.real * r.real - e.imag * r.imag
        if weight > 0:
            chosen, probability = which, weight
            left -= weight
            if left <= 0:
                break
    return chosen, probability


@njit(cache=True, error_model="numpy", fastmath={"contract"}, parallel=True)
def run(
    start: np.ndarray,
    sites: np.ndarray,
    offsets: np.ndarray,
    kraus: np.ndarray,
    effects: np.ndarray,
    uniforms: np.ndarray,
    logical: np.ndarray,
    other: np.ndarray,
    ideal: np.ndarray,
    z: np.ndarray,
    overlaps: np.ndarray,
    samples: np.ndarray,
    table: np.ndarray,
) -> None:
    """Run trajectories and write what is read off them.

    Parameters
    ----------
    start
        Probability of |0> of each site at the start, (n,).
    sites
        Bit values of the two sites of each step, (s, 2).
    offsets
        Where the Kraus operators of each step begin, (s + 1,).
    kraus, effects
        K and K^+ K of all steps, (k, 4, 4).
    uniforms
        Random numbers (shots, n + s + 1) in [0, 1).
    logical, other
        For each index of the ket that of the logical qubits and that of the other sites, (2^n,).
    ideal
        Ideal state of the logical qubits, (2^m,).
    z, overlaps, samples
        Results: <Z> of each logical qubit (shots, m), |<ideal|ket>|^2 (shots,), index read (shots,).
    table
        Sum over blocks of shots of the probabilities of the readings, (blocks, 2^m); not filled if it has no columns.
    """
    n_steps, n, n_logical = len(sites), len(start), z.shape[1]
    blocks = len(table)
    shots = len(uniforms)
    for block in prange(blocks):
        ket = np.empty(1 << n, dtype=np.complex128)
        rho = np.empty((4, 4), dtype=np.complex128)
        parts = np.empty(ket.size // ideal.size, dtype=np.complex128)
        for shot in range(block * shots // blocks, (block + 1) * shots // blocks):
            index = 0
            for site in range(n):
                if uniforms[shot, site] >= start[site]:
                    index |= 1 << (n - 1 - site)
            ket[:] = 0
            ket[index] = 1
            for step in range(n_steps):
                first, second = sites[step, 0], sites[step, 1]
                which, probability = offsets[step], 1.0
                if offsets[step + 1] - offsets[step] > 1:
                    _local_two(ket, first, second, rho)
                    which, probability = _draw(rho, effects, offsets[step], offsets[step + 1], uniforms[shot, n + step])
                _apply_two(ket, first, second, kraus[which] / math.sqrt(probability))
            parts[:] = 0
            norm = 0.0
            z[shot] = 0
            for i in range(ket.size):
                weight = ket[i].real * ket[i].real + ket[i].imag * ket[i].imag
                norm += weight
                place = logical[i]
                parts[other[i]] += ideal[place].conjugate() * ket[i]
                for qubit in range(n_logical):
                    z[shot, qubit] += weight * (1 - 2 * ((place >> (n_logical - 1 - qubit)) & 1))
                if table.shape[1]:
                    table[block, place] += weight
            z[shot] /= norm
            overlap = 0.0
            for part in parts:
                overlap += part.real * part.real + part.imag * part.imag
            overlaps[shot] = overlap / norm
            left = uniforms[shot, n + n_steps] * norm
            chosen = ket.size - 1
            for i in range(ket.size):
                left -= ket[i].real * ket[i].real + ket[i].imag * ket[i].imag
                if left <= 0:
                    chosen = i
                    break
            samples[shot] = logical[chosen]
