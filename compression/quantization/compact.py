"""Layers that hold codes of 9 to 15 bits in so many bits, for inference in as little memory as the file takes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from compression.quantization.blocks import code_bits
from compression.quantization.layers import PQEmbedding, PQLinear, _compiled, _PQWeight, pq_modules
from compression.quantization.packed_codes import PackedCodes


class _Compact(_PQWeight):
    """A layer with packed codes in place of ``codes``, which are unpacked where they are asked for.

    In the state dict they are ``codes``, as those of any other layer. ``train()`` makes it the layer that it was, and
    so does a move to a device that has no kernels for packed codes.
    """

    low: torch.Tensor
    high: torch.Tensor
    _plain: type[_PQWeight]
    _k: int

    @property
    def n_centroids(self) -> int:
        """Codewords K; kept as a number, since a tracer gives sizes as tensors."""
        return self._k

    @property
    def codes(self) -> torch.Tensor:  # type: ignore[override]  # a buffer in the other layers
        """All codes, unpacked anew."""
        return self._stored_codes.unpacked()

    @property
    def _stored_codes(self) -> PackedCodes:
        return PackedCodes(self.low, self.high, self.n_centroids)

    @property
    def _decodes_plainly(self) -> bool:
        recorded = torch.is_grad_enabled() and self.centroids.requires_grad
        return not recorded and _compiled(self.low, self.centroids.dtype)

    def _codes_of(self, ids: torch.Tensor) -> torch.Tensor:
        return self._stored_codes.rows(ids)

    def _take(self, layer: _PQWeight) -> None:
        """Become what another layer is."""
        nn.Module.__init__(self)
        self.centroids, self._k = layer.centroids, layer.n_centroids
        for name, buffer in self._buffers_of(layer.codes).items():
            self.register_buffer(name, buffer)
        self.codebook_dtype, self.activations = layer.codebook_dtype, layer.activations
        self.training = False

    def _unpack(self) -> None:
        """Become the layer with plain codes, in place."""
        codes = self.codes
        del self.low, self.high, self._k
        self.__class__ = self._plain  # type: ignore[assignment]
        self.register_buffer("codes", codes)

    def train(self, mode: bool = True) -> "_Compact":
        """Set the mode; for training the codes are unpacked for good."""
        if mode:
            self._unpack()
        super(_PQWeight, self).train(mode)
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "_Compact":
        if fn(self.low[:0]).device.type != "cpu":
            self._unpack()
        super(_PQWeight, self)._apply(fn, recurse)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("low", "high"):
            del destination[f"{prefix}{name}"]
        destination[f"{prefix}codes"] = self.codes

    def _buffers_of(self, codes: torch.Tensor) -> dict[str, torch.Tensor]:
        packed = PackedCodes.of(codes, self.n_centroids)
        return {"low": packed.low, "high": packed.high}


class CompactLinear(_Compact, PQLinear):
    """A `PQLinear` with packed codes."""

    _plain = PQLinear

    def __init__(self, layer: PQLinear) -> None:
        self._take(layer)
        self.bias = layer.bias

    @property
    def in_features(self) -> int:
        """Features of the input."""
        return self.low.shape[1] * self.block_size

    @property
    def out_features(self) -> int:
        """Features of the output."""
        return self.low.shape[0]


class CompactEmbedding(_Compact, PQEmbedding):
    """A `PQEmbedding` with packed codes; those of the rows that are looked up are unpacked."""

    _plain = PQEmbedding

    def __init__(self, layer: PQEmbedding) -> None:
        self._take(layer)
        self.padding_idx = layer.padding_idx

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return self.low.shape[0]

    @property
    def embedding_dim(self) -> int:
        """Features of a row."""
        return self.low.shape[1] * self.block_size


def compact_(model: nn.Module) -> nn.Module:
    """Let linear layers and embeddings of more than 256 codewords hold their codes in as many bits as the file does.

    For inference: values and files are the same, and so is the time (the kernels unpack codes where they need them).
    ``model.train()`` unpacks them for good, and so does a move to another device than the CPU. ``from_pretrained`` does
    this to what it loads.

    Parameters
    ----------
    model
        A model with product-quantized layers, changed in place. Codebooks that layers share stay shared. Layers in
        training mode, on another device than the CPU, or that compute in integers stay as they are.

    Returns
    -------
    torch.nn.Module
        `model`.
    """
    kinds: dict[type, type] = {PQLinear: CompactLinear, PQEmbedding: CompactEmbedding}
    for name, layer in pq_modules(model).items():
        in_integers = layer.activations is not None and layer.codebook_dtype == "int8"
        stays = layer.training or layer.latent is not None or in_integers or layer.codes.device.type != "cpu"
        if type(layer) in kinds and 8 < code_bits(layer.n_centroids) < 16 and not stays:
            model.set_submodule(name, kinds[type(layer)](layer))
    return model
