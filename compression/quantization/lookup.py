"""Linear layers computed from codes, without the weight: by tables of partial products, or decoded tile by tile."""

import ctypes
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from compression.clustering.threads import run_all
from compression.quantization import compiled_lookup as compiled
from compression.quantization.compiled_decode import decode

TILE_BYTES = 1 << 24
"""Most bytes of a weight that are decoded at once, what a third-level cache holds: smaller products are slower."""

# Time of a table and of its sums over that of the dense product, for K codewords as many as there are rows and for
# blocks of one feature, see `benchmarks.inference.shapes`; tables are chosen where their estimate is below the limit,
# which leaves room for processors whose dense product is the faster.
_TABLE_COST, _SUM_COST, _LIMIT = 0.56, 1.4, 0.8


def tables_pay(n_centroids: int, block_size: int, n_rows: int) -> bool:
    """Whether tables of partial products are faster than decoding, by the shape of the layer alone.

    The number of tokens plays no part, so that a sentence has the same result in every batch.

    Parameters
    ----------
    n_centroids, block_size
        Codewords K, at most 256, and features d in a block.
    n_rows
        Output features.
    """
    if n_centroids > 256 or sys.byteorder != "little":
        return False
    return estimate(n_centroids, block_size, n_rows) < _LIMIT


def estimate(n_centroids: int, block_size: int, n_rows: int) -> float:
    """Return the time with tables over that of the dense product, as fitted to measurements."""
    return _TABLE_COST * n_centroids / n_rows + _SUM_COST / block_size


def linear_by_tables(
    x: torch.Tensor, centroids: torch.Tensor, codes: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return ``x @ weight.T + bias`` without the weight.

    For each codeword and each block of an input its product is computed once, and every output is a sum of such
    products, one for each block (Jégou, Douze and Schmid, IEEE TPAMI 33, 117 (2011), for distances). Sums are in
    another order than the dense product's, so that results differ from its by rounding; they do not depend on the
    number of threads, nor on what else is in the batch.

    Parameters
    ----------
    x
        (..., blocks * d) float32 on the CPU.
    centroids
        (K, d) float32, K at most 256.
    codes
        (rows, blocks) uint8.
    bias
        (rows,) float32 or ``None``.

    Returns
    -------
    torch.Tensor
        (..., rows).
    """
    n_rows, n_blocks = codes.shape
    k, d = centroids.shape
    # Kept by name until the end: what is computed with are their addresses.
    rows = x.detach().reshape(-1, n_blocks * d).contiguous()
    book, numbers = centroids.detach().contiguous(), codes.contiguous()
    added = torch.zeros(n_rows) if bias is None else bias.detach().contiguous()
    n_tokens = len(rows)
    out = torch.empty((n_tokens, n_rows))
    if n_tokens:
        n_tickets = -(-n_tokens // compiled.LANES)
        n_threads = min(torch.get_num_threads(), n_tickets)
        size = compiled.scratch_bytes(n_blocks * d, n_rows)
        scratch = _scratch(n_threads * size + codes.numel()).ctypes.data
        about = _Description()
        about[compiled.X], about[compiled.CENTROIDS], about[compiled.CODES] = map(_address, (rows, book, numbers))
        about[compiled.BIAS], about[compiled.OUT] = map(_address, (added, out))
        about[compiled.N_TOKENS], about[compiled.K], about[compiled.D] = n_tokens, k, d
        about[compiled.N_ROWS], about[compiled.N_BLOCKS] = n_rows, n_blocks
        about[compiled.SCRATCH], about[compiled.SCRATCH_SIZE] = scratch, size
        about[compiled.TURNED] = scratch + n_threads * size
        about[compiled.N_TICKETS] = n_threads
        _in_threads(compiled.turn_codes, about, n_threads)
        about[compiled.TICKET], about[compiled.N_TICKETS] = 0, n_tickets
        _in_threads(compiled.multiply, about, n_threads)
    return out.reshape(*x.shape[:-1], n_rows)


def linear_by_tiles(
    x: torch.Tensor, centroids: torch.Tensor, codes: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return ``x @ weight.T + bias``, with at most `TILE_BYTES` of the weight decoded at a time.

    Parameters are those of `linear_by_tables`, but for codes of any integer type and any K. No gradients: the memory of
    a decoded tile is used again.
    """
    n_rows, n_blocks = codes.shape
    features = n_blocks * centroids.shape[1]
    tile = min(n_rows, max(1, TILE_BYTES // max(1, 4 * features)))
    # In memory that is kept: the system takes as long to give the pages of new memory as the decoding takes.
    memory = torch.from_numpy(_scratch(4 * tile * features).view(np.float32)).view(tile, features)
    if n_rows <= tile:
        return functional.linear(x, decode(centroids, codes, memory), bias)
    rows = x.reshape(-1, x.shape[-1])
    out = rows.new_empty((len(rows), n_rows))
    for start in range(0, n_rows, tile):
        part = slice(start, start + tile)
        weight = decode(centroids, codes[part], memory[: len(codes[part])])
        if bias is None:
            torch.mm(rows, weight.T, out=out[:, part])
        else:
            torch.addmm(bias[part], rows, weight.T, out=out[:, part])
    return out.reshape(*x.shape[:-1], n_rows)


_Description = ctypes.c_int64 * compiled.PLACES


def _address(tensor: torch.Tensor) -> int:
    """Where the numbers of a tensor are; an error for one that has no memory of its own."""
    return tensor.data_ptr()


def _in_threads(kernel: Any, about: Any, n_threads: int) -> None:
    """Run a kernel in the threads of torch, which wait for it anyway; others would have to share cores with them."""
    place = ctypes.addressof(about)
    if n_threads == 1:
        _function(kernel)(place)
    elif (parallel := _torch_threads()) is not None:
        parallel(kernel.address, place, n_threads, 0)
    else:
        run_all(_function(kernel), [(place,)] * n_threads)


@cache
def _function(kernel: Any) -> Callable[[int], None]:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel.address)


@cache
def _torch_threads() -> Callable[[int, int, int, int], None] | None:
    """The function of OpenMP's library by which torch runs loops in threads, or ``None`` without that library."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            function = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        function.restype = None
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        return function
    return None


_local = threading.local()


def _scratch(size: int) -> np.ndarray:
    """Memory of `size` bytes from the start of a cache line on, of this thread and kept for its next call."""
    if getattr(_local, "size", 0) < size:
        _local.memory, _local.size = np.empty(size + 64, np.uint8), size
    start = -_local.memory.ctypes.data % 64
    return _local.memory[start : start + size]
