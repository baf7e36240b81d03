"""The straight-through estimator (Bengio, Léonard and Courville 2013, arXiv:1308.3432)."""

from typing import Any

import torch


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def straight_through(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return `value` in place of `x`; its gradient goes to `x` unchanged."""
    return _StraightThrough.apply(x, value)
