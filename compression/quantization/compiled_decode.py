"""Compiled decoding of weights, codewords copied in pieces of 16 or 8 bytes, and its adjoint: means by code."""

from typing import Any

import numpy as np
import torch
from numba import njit

_njit = njit(nogil=True, cache=True, error_model="numpy")


def decode(centroids: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Return the weight (rows, blocks * d) of centroids (K, d) float32 and codes (rows, blocks), both on the CPU."""
    rows, blocks = codes.shape
    d = centroids.shape[1]
    out = torch.empty((rows, blocks * d), dtype=centroids.dtype)
    # Integers, not floats, so that no bit of a value can change on the way.
    kind = np.int64 if d % 2 == 0 else np.int32
    table = centroids.detach().contiguous().numpy().view(kind)
    _copy(codes.contiguous().numpy().reshape(-1), table, out.numpy().reshape(rows * blocks, d).view(kind))
    return out


@_njit
def _copy(codes: Any, table: Any, out: Any) -> None:
    width = table.shape[1]
    if width == 4:  # the copy of a whole codeword in two vector moves
        for i in range(codes.size):
            c = codes[i]
            out[i, 0] = table[c, 0]
            out[i, 1] = table[c, 1]
            out[i, 2] = table[c, 2]
            out[i, 3] = table[c, 3]
    elif width == 2:
        for i in range(codes.size):
            c = codes[i]
            out[i, 0] = table[c, 0]
            out[i, 1] = table[c, 1]
    else:
        for i in range(codes.size):
            c = codes[i]
            for j in range(width):
                out[i, j] = table[c, j]


def mean_by_code(values: torch.Tensor, codes: torch.Tensor, k: int) -> torch.Tensor:
    """Return the mean of the rows of values (n, d) float32 that have each code (n,) below k: (k, d), 0 where none has.

    Sums are kept in double precision.
    """
    out = torch.empty((k, values.shape[1]), dtype=values.dtype)
    _means(values.detach().contiguous().numpy(), codes.contiguous().numpy(), out.numpy())
    return out


@_njit
def _means(values: Any, codes: Any, out: Any) -> None:
    k, d = out.shape
    sums = np.zeros((k, d))
    counts = np.zeros(k, np.int64)
    for i in range(codes.size):
        c = codes[i]
        counts[c] += 1
        for j in range(d):
            sums[c, j] += values[i, j]
    for c in range(k):
        for j in range(d):
            out[c, j] = sums[c, j] / max(counts[c], 1)
