"""Linear layers computed from codes, without the weight: from the codewords, or by tables of partial products."""

import ctypes
from typing import Any

import torch

from compression.quantization import compiled_lookup as tables
from compression.quantization import compiled_product as product
from compression.quantization.compiled_vectors import HAS_AVX512
from compression.quantization.packed_codes import Codes, PackedCodes, describe_codes
from compression.quantization.torch_threads import in_threads, scratch

# How many products of the dense weight take as long as to fetch a line of a table and add it: with AVX-512 a product
# takes half of the time, and a fetch does not.
_SUM_COST = 3.0 if HAS_AVX512 else 1.6

LIMIT = 0.85
"""Estimate below which tables are chosen, about what codewords take."""

MOST_CENTROIDS = 1024
"""Codewords up to which there are tables: more would fill the second-level cache."""


def linear_from_codes(
    x: torch.Tensor, centroids: torch.Tensor, codes: Codes, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return ``x @ weight.T + bias`` from the codewords or by tables, whichever the layer's shape makes faster.

    The number of tokens plays no part, so that a token has the same result in every batch. Parameters and what is
    returned are those of `linear_by_codewords`.
    """
    k, d = centroids.shape
    return (linear_by_tables if tables_pay(k, d, codes.shape[0]) else linear_by_codewords)(x, centroids, codes, bias)


def tables_pay(n_centroids: int, block_size: int, n_rows: int) -> bool:
    """Whether tables of partial products are faster than products with the codewords.

    Parameters
    ----------
    n_centroids, block_size
        Codewords K and features d in a block.
    n_rows
        Output features.
    """
    return n_centroids <= MOST_CENTROIDS and estimate(n_centroids, block_size, max(1, n_rows)) < LIMIT


def estimate(n_centroids: int, block_size: int, n_rows: int) -> float:
    """Return the time with tables over that of the dense product, as a formula of the shape.

    Tables take K products where the dense product takes one for each row. Then a line is fetched for each row and block
    of d features, and writing each of the K lines takes as long as fetching two. See `benchmarks.inference.shapes`.
    """
    share = n_centroids / n_rows
    return share + (1 + 2 * share) * _SUM_COST / block_size


def linear_by_codewords(
    x: torch.Tensor, centroids: torch.Tensor, codes: Codes, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return ``x @ weight.T + bias`` without the weight, whose numbers are read from the codewords.

    Every sum goes through the features in their order: it depends neither on the number of threads nor on what else is
    in the batch. No gradients.

    Parameters
    ----------
    x
        (..., blocks * d) float32 on the CPU.
    centroids
        (K, d) float32.
    codes
        (rows, blocks) integers, or packed.
    bias
        (rows,) float32 or ``None``.

    Returns
    -------
    torch.Tensor
        (..., rows).
    """
    n_rows, n_blocks = codes.shape
    d = centroids.shape[1]
    about, kept = _described(product, x, centroids, codes, bias)
    n_units = -(-about[product.N_TOKENS] // product.LANES)
    if n_units and n_rows:
        n_threads = torch.get_num_threads()
        about[product.UNITS] = n_panel = min(product.PANEL, -(-n_units // n_threads))
        about[product.PANELS] = n_panels = -(-n_units // n_panel)
        about[product.PARTS] = n_parts = _parts(n_panels, n_threads, -(-n_rows // product.CHUNK))
        n_threads = min(n_threads, n_panels * n_parts)
        about[product.SCRATCH_SIZE] = size = product.scratch_bytes(n_blocks, d)
        about[product.SCRATCH] = scratch(n_threads * size).ctypes.data
        in_threads(product.multiply, about, n_threads)
    return kept[-1].reshape(*x.shape[:-1], n_rows)


def _parts(n_panels: int, n_threads: int, most: int) -> int:
    """Return into how many parts to cut the rows, so that threads have equally much to do."""
    if n_panels % n_threads == 0 or n_panels >= 8 * n_threads:
        return 1
    return min(most, -(-4 * n_threads // n_panels))


def linear_by_tables(x: torch.Tensor, centroids: torch.Tensor, codes: Codes, bias: torch.Tensor | None) -> torch.Tensor:
    """Return ``x @ weight.T + bias`` without the weight.

    For each codeword and each block of an input its product is computed once, and every output is a sum of such
    products, one for each block (Jégou, Douze and Schmid, IEEE TPAMI 33, 117 (2011), for distances). Sums are in
    another order than the dense product's, so that results differ from its by rounding; they do not depend on the
    number of threads, nor on what else is in the batch. Parameters and what is returned are those of
    `linear_by_codewords`, for K of at most 32,768.
    """
    if not isinstance(codes, PackedCodes) and codes.element_size() > 2:
        codes = codes.to(torch.int16)
    n_rows, n_blocks = codes.shape
    k, d = centroids.shape
    about, kept = _described(tables, x, centroids, codes, bias)
    if n_tokens := about[tables.N_TOKENS]:
        n_tickets = -(-n_tokens // tables.LANES)
        n_threads = min(torch.get_num_threads(), n_tickets)
        wide = isinstance(codes, PackedCodes) or codes.element_size() == 2
        lines = -(-k // 16) * 16 if wide else 256
        size = tables.scratch_bytes(n_blocks * d, n_rows, lines)
        memory = scratch(n_threads * size + (1 + wide) * n_rows * n_blocks).ctypes.data
        about[tables.K], about[tables.WIDTH], about[tables.LINES] = k, 1 + wide, lines
        about[tables.SCRATCH], about[tables.SCRATCH_SIZE] = memory, size
        about[tables.TURNED] = memory + n_threads * size
        about[tables.N_TICKETS] = n_threads
        in_threads(tables.turn_wide_codes if wide else tables.turn_codes, about, n_threads)
        about[tables.TICKET], about[tables.N_TICKETS] = 0, n_tickets
        in_threads(tables.multiply, about, n_threads)
    return kept[-1].reshape(*x.shape[:-1], n_rows)


def _described(
    kernel: Any, x: torch.Tensor, centroids: torch.Tensor, codes: Codes, bias: torch.Tensor | None
) -> tuple[Any, list[torch.Tensor]]:
    """Describe a product to a kernel; what it computes with are the addresses of the tensors, the last one the output.

    The tensors are to be kept until it is done.
    """
    n_rows, n_blocks = codes.shape
    d = centroids.shape[1]
    rows = x.detach().resolve_neg().reshape(-1, n_blocks * d).contiguous()
    # Type and device are named: PyTorch's defaults may be others.
    added = torch.zeros(n_rows, dtype=torch.float32, device="cpu") if bias is None else bias.detach().contiguous()
    out = torch.empty((len(rows), n_rows), dtype=torch.float32, device="cpu")
    given = [rows, centroids.detach().contiguous(), added, out]
    about = (ctypes.c_int64 * kernel.PLACES)()
    for place, tensor in zip((kernel.X, kernel.CENTROIDS, kernel.BIAS, kernel.OUT), given, strict=True):
        about[place] = tensor.data_ptr()  # an error for one that has no memory of its own
    about[kernel.N_TOKENS], about[kernel.D] = len(rows), d
    about[kernel.N_ROWS], about[kernel.N_BLOCKS] = n_rows, n_blocks
    return about, [*describe_codes(kernel, about, codes), *given]
