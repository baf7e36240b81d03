"""Codes that follow the training: latent weights, and blocks moved to the codeword nearest to them."""

from collections.abc import Mapping

import torch
from torch import nn

from compression.clustering.assignment import nearest_centroids
from compression.quantization.blocks import to_blocks
from compression.quantization.layers import pq_modules


class Latents:
    """The weights that the codes of a model stand for: at first the uncompressed ones.

    Trained straight-through (Bengio, Léonard and Courville, arXiv:1308.3432) a latent weight takes the gradient of the
    weight that is decoded in its place; `reassign` then moves its blocks to the codewords that are nearest to it.

    Parameters
    ----------
    sample_weights
        For some layers, weights of the entries in the distance, of the weight's shape.
    """

    def __init__(self, sample_weights: Mapping[str, torch.Tensor] | None = None) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self._sample_weights = sample_weights or {}

    def add(self, dense: Mapping[str, torch.Tensor]) -> None:
        """Take the weights of layers before they are quantized."""
        self.weights |= {name: weight.detach().clone() for name, weight in dense.items()}

    def attach(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Let the latent weights receive gradients, and return them by the names ``<layer>.latent``.

        In alphabetical order: the norm of the gradient is a sum over them, and a resumed run must round it alike.
        """
        modules = pq_modules(model)
        for name, weight in self.weights.items():
            modules[name].latent = weight.requires_grad_(True)
        return {f"{name}.latent": self.weights[name] for name in sorted(self.weights)}

    def detach(self, model: nn.Module) -> None:
        """Undo `attach`; the values stay."""
        modules = pq_modules(model)
        for name, weight in self.weights.items():
            modules[name].latent = None
            self.weights[name] = weight.detach()

    @torch.no_grad()
    def reassign(self, model: nn.Module) -> float:
        """Give every block the codeword nearest to its latent weight; return the share of the codes that changed."""
        modules = pq_modules(model)
        changed = total = 0
        for name, latent in self.weights.items():
            module = modules[name]
            blocks = to_blocks(latent.detach(), module.block_size)
            entries = self._sample_weights.get(name)
            weights = None if entries is None else to_blocks(entries, module.block_size)
            if weights is not None and bool((weights == weights[:, :1]).all()):
                weights = None  # one weight a block changes no nearest codeword
            if blocks.dtype == torch.bfloat16:  # which NumPy does not have
                blocks = blocks.float()
            codes = nearest_centroids(blocks, module.centroids.detach().to(blocks.dtype), sample_weight=weights)
            codes = codes.reshape(module.codes.shape).to(module.codes.dtype)
            changed += int((codes != module.codes).sum())
            total += codes.numel()
            module.codes.copy_(codes)
        return changed / max(total, 1)
