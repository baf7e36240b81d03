"""Weights as blocks, and the configuration of a product quantizer."""

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from compression.clustering.lloyd import KMeansResult, kmeans, pg_kmeans
from shared.config import FrozenConfig

if TYPE_CHECKING:
    import torch


class PQConfig(FrozenConfig):
    """How the blocks of a layer become codes and a codebook.

    Attributes
    ----------
    n_centroids
        Codewords K; a layer with fewer distinct blocks gets that many.
    block_size
        Consecutive input features d in a block.
    codebook_dtype
        Data type to which centroids are rounded and in which they are stored; ``"int8"`` with one scale a codebook.
    init, empty, split, consolidate, max_iter, tol
        k-means options, see `compression.pg_kmeans` and `compression.kmeans`.
    version
        Version of this schema.
    """

    n_centroids: int = Field(256, ge=1, le=65_536)
    block_size: int = Field(8, ge=1)
    codebook_dtype: Literal["float16", "float32", "int8"] = "float16"
    init: Literal["random", "k-means++", "k-means||", "bisecting", "partition"] = "partition"
    empty: Literal["keep", "perturb", "perturb-batched", "faiss", "farthest", "partition"] = "partition"
    split: Literal["principal", "farthest", "widest"] = "principal"
    consolidate: float | None = Field(None, gt=0)
    max_iter: int = Field(15, ge=1)
    tol: float = Field(1e-4, ge=0)
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _only_pg_consolidates(self) -> "PQConfig":
        if self.consolidate is not None and not self.init == self.empty == "partition":
            raise ValueError(
                "Key `consolidate` must be null unless `init` and `empty` are both 'partition', but was "
                f"{self.consolidate:g} with {self.init!r} and {self.empty!r}."
            )
        return self

    def as_baseline(self) -> "PQConfig":
        """Return the same sizes with the released iPQ's k-means: random seeding, perturbation, 15 iterations."""
        return self.model_copy(
            update={"init": "random", "empty": "perturb", "consolidate": None, "max_iter": 15, "tol": 0.0}
        )

    def cluster(self, blocks: Any, seed: int, sample_weight: Any = None, device: Any = None) -> KMeansResult:
        """Cluster blocks (N, d), an array or a tensor, with these options; K is lowered to N if that is less."""
        k = min(self.n_centroids, len(blocks))
        options: dict[str, Any] = {
            "sample_weight": sample_weight,
            "max_iter": self.max_iter,
            "tol": self.tol,
            "split": self.split,
            "seed": seed,
            "device": device,
        }
        if self.init == self.empty == "partition":
            return pg_kmeans(blocks, k, consolidate=self.consolidate, **options)
        return kmeans(blocks, k, init=self.init, empty=self.empty, **options)


def check_divides(block_size: int, n_features: int, where: str) -> None:
    """Raise a `ValueError` that names near divisors unless `block_size` divides `n_features`."""
    if n_features % block_size:
        divisors = [d for d in range(1, min(n_features, 4 * block_size) + 1) if n_features % d == 0]
        near = sorted(sorted(divisors, key=lambda d: abs(d - block_size))[:3])
        raise ValueError(
            f"Key `block_size` must divide the {n_features} input features of {where}, but was {block_size}; "
            f"near divisors are {', '.join(map(str, near))}."
        )


def to_blocks(weight: Any, block_size: int) -> Any:
    """Cut a weight (rows, features) into blocks (rows * features / d, d) of consecutive features, row by row.

    A torch tensor or a NumPy array; the result has the same kind. The features of a convolution's filter, (channels,
    height, width), are consecutive as they lie in memory: a channel's kernel after the other.
    """
    check_divides(block_size, math.prod(weight.shape[1:]), f"a weight of shape {tuple(weight.shape)}")
    return weight.reshape(-1, block_size)


def code_dtype(n_centroids: int) -> "torch.dtype":
    """Return the smallest torch integer type that holds codes 0 to K - 1."""
    import torch

    if n_centroids <= 256:
        return torch.uint8
    return torch.int16 if n_centroids <= 32_768 else torch.int32


def code_bits(n_centroids: int) -> int:
    """Return ceil(log2 K), the bits of a packed code; 0 for a single codeword."""
    return (n_centroids - 1).bit_length()


CODEBOOK_TYPES = {"float32": 4, "float16": 2, "int8": 1}
"""Bytes of a number of a codebook of each type."""


def codebook_bytes(n_centroids: int, block_size: int, codebook_dtype: str) -> int:
    """Return the bytes of a codebook; the scale of an int8 codebook is part of the file's header."""
    return n_centroids * block_size * CODEBOOK_TYPES[codebook_dtype]


def int8_scale(centroids: "torch.Tensor") -> float:
    """Return the step of a codebook's int8 grid: its largest absolute value over 127, rounded to 11 significant bits.

    The rounding makes 127 steps exact in float32, so that a codebook on its grid gives the same step again.
    """
    mantissa, exponent = math.frexp(float(centroids.detach().abs().max()) / 127)
    return math.ldexp(round(mantissa * 2048), exponent - 11)


def round_to(tensor: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """Return a tensor at the values that `dtype` can store, in its own type; as it is if one would become infinite."""
    rounded = tensor.to(dtype).to(tensor.dtype)
    return rounded if bool((rounded.isfinite() == tensor.isfinite()).all()) else tensor


def round_codebook(centroids: "torch.Tensor", codebook_dtype: str) -> "torch.Tensor":
    """Return centroids (K, d) at the values that `codebook_dtype` can store, see `round_to`, in their own type."""
    import torch

    if codebook_dtype != "int8":
        return round_to(centroids, getattr(torch, codebook_dtype))
    scale = int8_scale(centroids)
    return (centroids / scale).round().clamp(-127, 127) * scale if scale else centroids


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Pack non-negative integers into a byte string of `bits` bits each, most significant bit first.

    Parameters
    ----------
    codes
        (n,) integers below ``2**bits``.
    bits
        0 to 16.

    Returns
    -------
    numpy.ndarray
        (ceil(n * bits / 8),) uint8.
    """
    codes = np.ascontiguousarray(codes).ravel()
    if bits == 8:
        return codes.astype(np.uint8)
    if bits == 16:
        return codes.astype(">u2").view(np.uint8)
    pieces = [_pack_exact(codes[start : start + _PACK_CHUNK], bits) for start in range(0, len(codes), _PACK_CHUNK)]
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint8)


def unpack_codes(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the `count` codes that `pack_codes` packed, as (count,) int64.

    Raises
    ------
    ValueError
        If the length of `packed` does not fit `count` and `bits`.
    """
    expected = -(-count * bits // 8)
    if len(packed) != expected:
        raise ValueError(
            f"Argument `packed` must hold {expected} bytes for {count} codes of {bits} bits, not {len(packed)}."
        )
    if bits == 8:
        return packed.astype(np.int64)
    if bits == 16:
        return packed.view(">u2").astype(np.int64)
    codes = np.zeros(count, np.int64)
    step = _PACK_CHUNK * bits // 8
    for number, start in enumerate(range(0, count, _PACK_CHUNK)):
        n = min(_PACK_CHUNK, count - start)
        unpacked = np.unpackbits(packed[number * step : (number + 1) * step])[: n * bits].reshape(n, bits)
        for column in unpacked.T:
            codes[start : start + n] = codes[start : start + n] << 1 | column
    return codes


_PACK_CHUNK = 1 << 16  # a multiple of 8, so that each chunk ends on a whole byte


def _pack_exact(codes: np.ndarray, bits: int) -> np.ndarray:
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((codes.astype(np.int64)[:, None] >> shifts & 1).astype(np.uint8).ravel())
