"""Quantized layers as an ONNX graph has them: packed codes and codebooks, decoded by a few standard operations."""

from typing import Any

import numpy as np
import onnxscript
import torch
from onnx import TensorProto
from onnxscript import opset18
from torch import nn
from torch.nn import functional

from compression.quantization.blocks import code_bits, int8_scale, pack_codes, round_codebook, unpack_codes
from compression.quantization.convolution import PQConv2d
from compression.quantization.layers import PQEmbedding, _PQWeight

op: Any = opset18  # what its functions return depends on how they are called
_GROUP = 8  # codes of b bits that are b whole bytes together


@torch.library.custom_op("pg_ipq::decode", mutates_args=())
def _decode(packed: torch.Tensor, book: torch.Tensor, bits: int, blocks: int, step: float) -> torch.Tensor:
    """Rows (..., blocks * d) float32 of rows of packed codes (..., bytes) uint8 and a codebook (K, d)."""
    rows = packed.reshape(-1, packed.shape[-1]).numpy()
    width = -(-blocks // _GROUP) * _GROUP
    codes = np.stack([unpack_codes(row, bits, width) for row in rows]) if bits else np.zeros((len(rows), width), int)
    values = book.float() * step if step else book.float()
    return values[torch.from_numpy(codes[:, :blocks])].reshape(*packed.shape[:-1], -1)


@_decode.register_fake
def _(packed: torch.Tensor, book: torch.Tensor, bits: int, blocks: int, step: float) -> torch.Tensor:
    return packed.new_empty((*packed.shape[:-1], blocks * book.shape[1]), dtype=torch.float32)


def _decode_in_graph(packed: Any, book: Any, bits: int, blocks: int, step: float) -> Any:
    """The operations of `_decode`."""
    lead = [0] * (len(packed.shape) - 1)  # 0 keeps a dimension
    numbers = op.Cast(packed, to=TensorProto.INT32)
    if bits not in (0, 8):
        # A code lies within three bytes of its group; those after the group's end are not needed.
        starts = np.arange(_GROUP) * bits
        groups = op.Reshape(numbers, op.Constant(value_ints=[*lead, -1, bits]))
        high, middle, low = (
            op.Gather(groups, op.Constant(value_ints=np.minimum(starts // 8 + n, bits - 1).tolist()), axis=-1)
            for n in range(3)
        )
        window = op.Add(op.Add(op.Mul(high, _int32(1 << 16)), op.Mul(middle, _int32(1 << 8))), low)
        codes = op.Mod(op.Div(window, _int32(*(1 << (24 - bits - starts % 8)).tolist())), _int32(1 << bits))
        codes = op.Reshape(codes, op.Constant(value_ints=[*lead, -1]))
        ends = (op.Constant(value_ints=[end]) for end in (0, blocks, -1))
        numbers = op.Slice(codes, *ends)
    values = op.Cast(book, to=TensorProto.FLOAT)
    if step:
        values = op.Mul(values, op.Constant(value_float=step))
    return op.Reshape(op.Gather(values, numbers, axis=0), op.Constant(value_ints=[*lead, -1]))


def _int32(*values: int) -> Any:
    array = np.array(values if len(values) > 1 else values[0], np.int32)
    return op.Constant(value=onnxscript.ir.serde.serialize_tensor(onnxscript.ir.tensor(array)))


TRANSLATIONS: dict[Any, Any] = {torch.ops.pg_ipq.decode.default: _decode_in_graph}
"""What `torch.onnx.export` needs to know of this module."""


class _Decoder(nn.Module):
    """Rows of a weight from packed codes.

    Each row of codes is packed by itself, most significant bit first, to groups of eight codes, so that rows can be
    looked up. The codebook is in the smallest type in which its values are exact.
    """

    packed: torch.Tensor
    book: torch.Tensor

    def __init__(self, layer: _PQWeight) -> None:
        super().__init__()
        self.bits, self.blocks = code_bits(layer.n_centroids), layer.codes.shape[1]
        codes = layer.codes.cpu().numpy().astype(np.int64)
        if self.bits == 8:
            packed = codes.astype(np.uint8)
        elif self.bits == 0:
            packed = np.zeros((len(codes), self.blocks), np.uint8)
        else:
            codes = np.pad(codes, ((0, 0), (0, -self.blocks % _GROUP)))
            packed = np.stack([pack_codes(row, self.bits) for row in codes])
        self.register_buffer("packed", torch.from_numpy(packed))
        self.step, book = _stored(layer)
        self.register_buffer("book", book)

    def forward(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Decode rows, (...) integers, or all of them."""
        packed = self.packed if rows is None else functional.embedding(rows, self.packed)
        return torch.ops.pg_ipq.decode(packed, self.book, self.bits, self.blocks, self.step)


def _stored(layer: _PQWeight) -> tuple[float, torch.Tensor]:
    """Step (0 for none) and numbers of the codebook."""
    centroids = layer.centroids.detach().float().cpu()
    if layer.codebook_dtype == "int8" and torch.equal(round_codebook(centroids, "int8"), centroids):
        step = int8_scale(centroids)
        if step > 0:
            return step, (centroids / step).round().to(torch.int8)
    half = centroids.half()
    return 0.0, half if torch.equal(half.float(), centroids) else centroids.clone()


class _Weighted(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.decoder = _Decoder(layer)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().float(), requires_grad=False)
        self.grid = layer.activations

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.grid is None else self.grid.simulate(x)


class _Linear(_Weighted):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(self.rounded(x), self.decoder(), self.bias)


class _Conv2d(_Weighted):
    def __init__(self, layer: PQConv2d) -> None:
        super().__init__(layer)
        self.layer: Any = layer.dense()
        self.shape = tuple(self.layer.weight.shape[1:])
        for name in ("weight", "bias"):  # only the way of convolving is taken from it
            self.layer.register_parameter(name, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.decoder().unflatten(-1, self.shape)
        return self.layer._conv_forward(self.rounded(x), weight, self.bias)


class _Embedding(nn.Module):
    def __init__(self, layer: PQEmbedding) -> None:
        super().__init__()
        self.decoder = _Decoder(layer)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.decoder(ids)


def in_operations(layer: _PQWeight) -> nn.Module:
    """Return a module that computes what a quantized layer does, and that `torch.onnx.export` can translate.

    Its state is what the file of the layer holds: packed codes, the codebook, the bias.
    """
    if isinstance(layer, PQEmbedding):
        return _Embedding(layer)
    return _Conv2d(layer) if isinstance(layer, PQConv2d) else _Linear(layer)
