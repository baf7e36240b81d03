"""Compiled decoding of weights, and its adjoint: means by code."""

import ctypes
from typing import Any

import numpy as np
import torch
from numba import njit

from compression.quantization import compiled_moves as compiled
from compression.quantization.packed_codes import Codes, describe_codes
from compression.quantization.torch_threads import in_threads

_njit = njit(nogil=True, cache=True, error_model="numpy")


_SHARE = 1 << 13  # codes that are worth a thread


def decode(centroids: torch.Tensor, codes: Codes, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the weight (rows, blocks * d) of centroids (K, d) float32 and codes (rows, blocks), both on the CPU.

    It is written to `out`, contiguous, if that is given.
    """
    n_rows, blocks = codes.shape
    d = centroids.shape[1]
    if out is None:
        out = torch.empty((n_rows, blocks * d), dtype=centroids.dtype, device="cpu")
    table = centroids.detach().contiguous()
    if (wide := compiled.stride(d)) != d:
        table = torch.nn.functional.pad(table, (0, wide - d)).contiguous()
    about = _Description()
    about[compiled.N_CODES] = n_codes = n_rows * blocks
    kept = describe_codes(compiled, about, codes)
    about[compiled.TABLE], about[compiled.STRIDE], about[compiled.D] = table.data_ptr(), wide, d
    about[compiled.OUT] = out.data_ptr()
    about[compiled.N_TICKETS] = n_threads = max(1, min(torch.get_num_threads(), n_codes // _SHARE))
    in_threads(compiled.decode_codes, about, n_threads)
    del kept  # until here the kernel has had their addresses
    return out


_Description = ctypes.c_int64 * compiled.PLACES


def decode_int8(centroids: torch.Tensor, step: float, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the weight over `step` as int8 (rows, blocks * d), and its sums over the features, int32 (rows,).

    ``None`` if the centroids (K, d) float32 are no multiples of `step` from -127 to 127.
    """
    rows, blocks = codes.shape
    k, d = centroids.shape
    table, exact = np.empty((k, d), np.int8), np.zeros(1, np.bool_)
    _to_int8(centroids.detach().contiguous().numpy(), np.float32(step), table, exact)
    if not exact[0]:
        return None
    weight, sums = torch.empty((rows, blocks * d), dtype=torch.int8), torch.empty(rows, dtype=torch.int32)
    by_code = table.sum(1, dtype=np.int32)
    about = _Description()
    kept = describe_codes(compiled, about, codes)
    about[compiled.TABLE], about[compiled.BY_CODE], about[compiled.D] = table.ctypes.data, by_code.ctypes.data, d
    about[compiled.OUT], about[compiled.SUMS] = weight.data_ptr(), sums.data_ptr()
    about[compiled.N_ROWS], about[compiled.N_BLOCKS] = rows, blocks
    about[compiled.N_TICKETS] = n_threads = max(1, min(torch.get_num_threads(), rows * blocks // _SHARE))
    in_threads(compiled.decode_bytes, about, n_threads)
    del kept
    return weight, sums


@_njit
def _to_int8(centroids: Any, step: Any, table: Any, exact: Any) -> None:
    exact[0] = True
    for k in range(centroids.shape[0]):
        for j in range(centroids.shape[1]):
            number = np.rint(centroids[k, j] / step)
            if not (abs(number) <= 127 and number * step == centroids[k, j]):
                exact[0] = False
                return
            table[k, j] = np.int8(number)


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
