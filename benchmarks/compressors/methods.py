"""Other compressors: each gives a matrix back as it decodes it, and the bytes that it keeps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from shared.artifacts import versions

Compressor = Callable[[torch.Tensor], tuple[torch.Tensor, int]]

HALF_BYTES = 2
"""Of a scale or an offset: the smallest type that the libraries keep them in."""


def hqq(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, int]:
    """Half-quadratic quantization (`hqq`), groups of 64 values of a row, its default, each value in `bits` bits.

    Its own packing takes only some shapes, and 3.2 bits for 3.
    """
    from hqq.core.quantize import Quantizer

    codes, meta = Quantizer.quantize(
        weight, nbits=bits, group_size=64, axis=1, bitpack=False, compute_dtype=torch.float32, device="cpu"
    )
    n_scales = meta["scale"].numel() + meta["zero"].numel()
    return Quantizer.dequantize(codes, meta), -(-bits * weight.numel() // 8) + HALF_BYTES * n_scales


def quanto(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, int]:
    """Rounding to the nearest (`optimum-quanto`): a scale for each row at 8 bits, groups of 128 values below."""
    from optimum.quanto import freeze, qint2, qint4, qint8, quantize

    model = _as_layer(weight)
    quantize(model, weights={2: qint2, 4: qint4, 8: qint8}[bits])
    freeze(model)
    kept = {name: value for name, value in model.state_dict().items() if name.startswith("0.weight")}
    size = sum(
        value.numel() * (HALF_BYTES if value.is_floating_point() else value.element_size()) for value in kept.values()
    )
    found: Any = model[0].weight
    return found.dequantize().detach(), size


def torchao(weight: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Int8 with a scale for each row (`torchao`). Its four bits have no packed form on CPUs."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = _as_layer(weight)
    quantize_(model, Int8WeightOnlyConfig())
    found: Any = model[0].weight
    return found.dequantize().detach(), found.qdata.numel() + HALF_BYTES * found.scale.numel()


def _as_layer(weight: torch.Tensor) -> nn.Sequential:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return nn.Sequential(layer)


METHODS: dict[str, tuple[str, Compressor]] = {
    "torchao, 8 bits": ("torchao", torchao),
    "quanto, 8 bits": ("optimum-quanto", partial(quanto, bits=8)),
    "quanto, 4 bits": ("optimum-quanto", partial(quanto, bits=4)),
    "quanto, 2 bits": ("optimum-quanto", partial(quanto, bits=2)),
    "HQQ, 4 bits": ("hqq", partial(hqq, bits=4)),
    "HQQ, 3 bits": ("hqq", partial(hqq, bits=3)),
    "HQQ, 2 bits": ("hqq", partial(hqq, bits=2)),
    "HQQ, 1 bit": ("hqq", partial(hqq, bits=1)),
}
"""By name: the package that must be there, and the compressor."""

PACKAGES = tuple(sorted({package for package, _ in METHODS.values()}))


def available() -> dict[str, Compressor]:
    """Return the methods whose package is installed."""
    installed = versions(PACKAGES)
    return {name: method for name, (package, method) in METHODS.items() if package in installed}


def compress_(model: nn.Module, method: Compressor, embeddings: bool) -> int:
    """Put the decoded matrices in a model's place, round the rest to float16, and return the bytes of all tensors.

    Parameters
    ----------
    model
        A classifier; its weights are changed.
    method
        What compresses a matrix.
    embeddings
        Whether embeddings are compressed as linear layers are; by themselves the libraries leave them.
    """
    kinds = (nn.Linear, nn.Embedding) if embeddings else nn.Linear
    size = 0
    compressed = set()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, kinds):
                decoded, kept = method(module.weight.detach())
                module.weight.copy_(decoded)
                size += kept
                compressed.add(module.weight)
        for parameter in model.parameters():
            if parameter not in compressed:
                parameter.copy_(parameter.half())
                size += HALF_BYTES * parameter.numel()
    return size
