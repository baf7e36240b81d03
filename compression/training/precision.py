"""Mixed precision: matrix products of the training in bfloat16 where the machine has them in hardware."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Precision = Literal["float32", "bfloat16", "auto"]
"""Of the matrix products in training; parameters, their gradients and the optimizer are float32 always.

``"auto"`` is bfloat16 where `multiplies_bfloat16`, else float32.
"""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 matrices in hardware, and so faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, Any] = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute a forward pass in the given precision.

    On a processor, attention is written out as products and a softmax: PyTorch's fused kernel takes nine times as long
    for its backward pass in bfloat16 as in float32.
    """
    low = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(device))
    if not low:
        yield
        return
    with torch.autocast(device.type, torch.bfloat16):
        if device.type != "cpu":
            yield
            return
        with sdpa_kernel(SDPBackend.MATH):
            yield
