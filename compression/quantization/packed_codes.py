"""Codes of 9 to 15 bits in memory as in the file: one byte each, and the bits above it together."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compression.quantization.blocks import code_bits, code_dtype


@dataclass(frozen=True)
class PackedCodes:
    """Codes (rows, blocks) of more than 256 codewords.

    Attributes
    ----------
    low
        (rows, blocks) uint8: the lowest eight bits of each.
    high
        (bytes,) uint8: the bits above them, code after code, from the lowest bit of a byte on; and one byte more, so
        that two can be read at every place.
    n_centroids
        Codewords.
    """

    low: torch.Tensor
    high: torch.Tensor
    n_centroids: int

    @classmethod
    def of(cls, codes: torch.Tensor, n_centroids: int) -> "PackedCodes":
        """Pack integers below `n_centroids`."""
        numbers, bits = codes.to(torch.int32), code_bits(n_centroids) - 8
        places = torch.arange(bits, dtype=torch.int32, device=codes.device)
        flags = (numbers.flatten()[:, None] >> 8 >> places & 1).flatten()
        flags = nn.functional.pad(flags, (0, -len(flags) % 8 + 8)).view(-1, 8)
        weights = 1 << torch.arange(8, dtype=torch.int32, device=codes.device)
        return cls((numbers & 255).to(torch.uint8), (flags * weights).sum(1).to(torch.uint8), n_centroids)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, blocks)."""
        rows, blocks = self.low.shape
        return rows, blocks

    @property
    def bits(self) -> int:
        """Bits of a code in `high`."""
        return code_bits(self.n_centroids) - 8

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the codes of rows: (...) integers to (..., blocks), in the type of `code_dtype`."""
        low = nn.functional.embedding(ids, self.low)  # refuses ids that are none
        blocks = self.low.shape[1]
        places = (ids.long().unsqueeze(-1) * blocks + torch.arange(blocks, device=ids.device)) * self.bits
        byte = places >> 3
        words = self.high[byte].to(torch.int32) | self.high[byte + 1].to(torch.int32) << 8
        above = words >> (places & 7).to(torch.int32) & (1 << self.bits) - 1
        return (low.to(torch.int32) | above << 8).to(code_dtype(self.n_centroids))

    def unpacked(self) -> torch.Tensor:
        """Return all codes, (rows, blocks)."""
        return self.rows(torch.arange(self.low.shape[0], device=self.low.device))


Codes = torch.Tensor | PackedCodes


def describe_codes(kernel: Any, about: Any, codes: Codes) -> list[torch.Tensor]:
    """Tell a kernel where codes are, on the CPU; the tensors that are returned are to be kept until it is done.

    Its places CODES and WIDTH, and HIGH and HIGH_BITS of packed ones, are filled in.
    """
    numbers = codes.low if isinstance(codes, PackedCodes) else codes
    kept = [(numbers.to(torch.int32) if numbers.element_size() == 8 else numbers).contiguous()]
    about[kernel.CODES], about[kernel.WIDTH] = kept[0].data_ptr(), kept[0].element_size()
    if isinstance(codes, PackedCodes):
        kept.append(codes.high)
        about[kernel.HIGH], about[kernel.HIGH_BITS] = codes.high.data_ptr(), codes.bits
    return kept
