"""Linear layers computed from codes, without the weight: by tables of partial products, or decoded tile by tile."""

import ctypes
import sys

import numpy as np
import torch
from torch.nn import functional

from compression.quantization import compiled_lookup as compiled
from compression.quantization.compiled_decode import decode
from compression.quantization.packed_codes import Codes, PackedCodes
from compression.quantization.torch_threads import in_threads, scratch

TILE_BYTES = 1 << 24
"""Most bytes of a weight that are decoded at once, what a third-level cache holds: smaller products are slower."""

# Time of a table and of its sums over that of the dense product, for K codewords as many as there are rows and for
# blocks of one feature, see `benchmarks.inference.shapes`; sums take longer where the tables of more than 256 codewords
# leave the first-level cache. Tables are chosen where their estimate is below the limit, which leaves room for
# processors whose dense product is the faster.
_TABLE_COST, _SUM_COST, _WIDE_SUM_COST, _LIMIT = 0.56, 1.4, 2.0, 0.9

MOST_CENTROIDS = 1024
"""Codewords up to which there are tables: more would fill the second-level cache."""


def tables_pay(n_centroids: int, block_size: int, n_rows: int) -> bool:
    """Whether tables of partial products are faster than decoding, by the shape of the layer alone.

    The number of tokens plays no part, so that a sentence has the same result in every batch.

    Parameters
    ----------
    n_centroids, block_size
        Codewords K and features d in a block.
    n_rows
        Output features.
    """
    if n_centroids > MOST_CENTROIDS or sys.byteorder != "little":
        return False
    return estimate(n_centroids, block_size, n_rows) < _LIMIT


def estimate(n_centroids: int, block_size: int, n_rows: int) -> float:
    """Return the time with tables over that of the dense product, as fitted to measurements."""
    sums = _SUM_COST if n_centroids <= 256 else _WIDE_SUM_COST
    return _TABLE_COST * n_centroids / n_rows + sums / block_size


def linear_by_tables(x: torch.Tensor, centroids: torch.Tensor, codes: Codes, bias: torch.Tensor | None) -> torch.Tensor:
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
        (K, d) float32, K at most 32,768.
    codes
        (rows, blocks) uint8 or int16, or packed.
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
    book = centroids.detach().contiguous()
    numbers = (codes.low if isinstance(codes, PackedCodes) else codes).contiguous()
    # Type and device are named: PyTorch's defaults may be others.
    added = torch.zeros(n_rows, dtype=torch.float32, device="cpu") if bias is None else bias.detach().contiguous()
    n_tokens = len(rows)
    out = torch.empty((n_tokens, n_rows), dtype=torch.float32, device="cpu")
    if n_tokens:
        n_tickets = -(-n_tokens // compiled.LANES)
        n_threads = min(torch.get_num_threads(), n_tickets)
        wide = isinstance(codes, PackedCodes) or codes.element_size() == 2
        lines = -(-k // 16) * 16 if wide else 256
        size = compiled.scratch_bytes(n_blocks * d, n_rows, lines)
        memory = scratch(n_threads * size + (1 + wide) * numbers.numel()).ctypes.data
        about = _Description()
        about[compiled.X], about[compiled.CENTROIDS], about[compiled.CODES] = map(_address, (rows, book, numbers))
        about[compiled.BIAS], about[compiled.OUT] = map(_address, (added, out))
        about[compiled.N_TOKENS], about[compiled.K], about[compiled.D] = n_tokens, k, d
        about[compiled.N_ROWS], about[compiled.N_BLOCKS] = n_rows, n_blocks
        about[compiled.WIDTH], about[compiled.LINES] = 1 + wide, lines
        if isinstance(codes, PackedCodes):
            about[compiled.HIGH], about[compiled.HIGH_BITS] = _address(codes.high), codes.bits
        about[compiled.SCRATCH], about[compiled.SCRATCH_SIZE] = memory, size
        about[compiled.TURNED] = memory + n_threads * size
        about[compiled.N_TICKETS] = n_threads
        in_threads(compiled.turn_wide_codes if wide else compiled.turn_codes, about, n_threads)
        about[compiled.TICKET], about[compiled.N_TICKETS] = 0, n_tickets
        in_threads(compiled.multiply, about, n_threads)
    return out.reshape(*x.shape[:-1], n_rows)


def linear_by_tiles(x: torch.Tensor, centroids: torch.Tensor, codes: Codes, bias: torch.Tensor | None) -> torch.Tensor:
    """Return ``x @ weight.T + bias``, with at most `TILE_BYTES` of the weight decoded at a time.

    Parameters are those of `linear_by_tables`, but for codes of any integer type and any K. No gradients: the memory of
    a decoded tile is used again.
    """
    n_rows, n_blocks = codes.shape
    features = n_blocks * centroids.shape[1]
    tile = min(n_rows, max(1, TILE_BYTES // max(1, 4 * features)))
    # In memory that is kept: the system takes as long to give the pages of new memory as the decoding takes.
    memory = torch.from_numpy(scratch(4 * tile * features).view(np.float32)).view(tile, features)
    if n_rows <= tile:
        return functional.linear(x, decode(centroids, codes, memory), bias)
    rows = x.reshape(-1, x.shape[-1])
    out = rows.new_empty((len(rows), n_rows))
    for start in range(0, n_rows, tile):
        part = slice(start, start + tile)
        weight = decode(centroids, codes, memory[: min(tile, n_rows - start)], part)
        if bias is None:
            torch.mm(rows, weight.T, out=out[:, part])
        else:
            torch.addmm(bias[part], rows, weight.T, out=out[:, part])
    return out.reshape(*x.shape[:-1], n_rows)


_Description = ctypes.c_int64 * compiled.PLACES


def _address(tensor: torch.Tensor) -> int:
    """Where the numbers of a tensor are; an error for one that has no memory of its own."""
    return tensor.data_ptr()
