"""Linear layers in 8-bit integers: codebooks and inputs of int8, sums of int32."""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from compression.quantization.blocks import int8_scale

if TYPE_CHECKING:
    from compression.quantization.activations import ActivationGrid

_PRODUCTS = 1 << 19  # int32 that are computed at a time: 2 MB


@cache
def multiplies_int8() -> bool:
    """Return whether this processor multiplies int8 and adds int32 in one instruction, without overflow between."""
    capabilities: Any = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def linear_in_integers(
    x: torch.Tensor,
    grid: "ActivationGrid",
    centroids: torch.Tensor,
    codes: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor | None:
    """Return ``grid.simulate(x) @ weight.T + bias`` from products and sums of integers, which are exact.

    With x = s (n - z) and centroids t m, n and m integers, the product is s t (sum n m - z sum m); the weight is
    decoded to m, a quarter of the bytes of float32.

    Parameters
    ----------
    x
        (..., blocks * d) float32 on the CPU.
    grid
        Of the input.
    centroids
        (K, d) float32.
    codes
        (rows, blocks) integers.
    bias
        (rows,) float32 or ``None``.

    Returns
    -------
    torch.Tensor or None
        (..., rows) float32; ``None`` if the centroids do not lie on an int8 grid.
    """
    from compression.quantization.compiled_decode import decode_int8

    step = int8_scale(centroids)
    decoded = decode_int8(centroids, step, codes) if step > 0 else None
    if decoded is None:
        return None
    weight, sums = decoded
    rows = x.detach().reshape(-1, x.shape[-1])
    scale = grid.scale * step
    added = sums * (-grid.zero_point * scale)
    if bias is not None:
        added += bias.detach()
    out = torch.empty((len(rows), len(codes)), dtype=torch.float32, device="cpu")
    part = max(1, _PRODUCTS // max(1, len(codes)))
    for start in range(0, len(rows), part):
        numbers = grid.numbers(rows[start : start + part]).to(torch.int8)
        torch.add(added, torch._int_mm(numbers, weight.T), alpha=scale, out=out[start : start + part])
    return out.reshape(*x.shape[:-1], len(codes))
