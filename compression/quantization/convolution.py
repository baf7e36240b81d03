"""Convolutions whose weight is codes and a codebook."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from compression.quantization.layers import _filled, _PQWeight


class PQConv2d(_PQWeight):
    """Convolution with a product-quantized weight.

    A filter (in_channels / groups, height, width) is a row of in_channels / groups * height * width features, one
    channel's kernel after the other, and is cut into blocks of d features. Stock et al. (arXiv:1907.05686) take d = 4
    or 8, that is so many input channels, for 1 x 1 kernels, and one or two whole kernels (d = 9 or 18 for 3 x 3) for
    others; any divisor of the row is allowed.

    Parameters
    ----------
    centroids
        (K, d) codebook, trainable.
    codes
        (out_channels, in_channels / groups * height * width / d) integers below K.
    bias
        (out_channels,) or ``None``.
    kernel_size, stride, padding, dilation, groups, padding_mode
        As in `torch.nn.Conv2d`.

    Notes
    -----
    The gradient of a centroid is the average over the blocks that use it.
    """

    def __init__(
        self,
        centroids: torch.Tensor,
        codes: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        padding_mode: Any = "zeros",
    ) -> None:
        super().__init__(centroids, codes)
        if bias is not None and bias.shape != codes.shape[:1]:
            raise ValueError(f"Argument `bias` must have shape ({len(codes)},), but has {tuple(bias.shape)}.")
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        features = codes.shape[1] * self.block_size
        if features % (height * width):
            raise ValueError(
                f"Argument `kernel_size` must divide the {features} features of a filter, but is {height} x {width}."
            )
        in_channels = features // (height * width) * groups
        # PyTorch's layer checks the rest and completes it.
        sizes = ((height, width), stride, padding, dilation, groups)
        plain = nn.Conv2d(in_channels, len(codes), *sizes, padding_mode=padding_mode, device="meta")
        self.in_channels, self.out_channels, self.groups = in_channels, len(codes), groups
        self.kernel_size, self.stride, self.dilation = plain.kernel_size, plain.stride, plain.dilation
        self.padding, self.padding_mode = plain.padding, plain.padding_mode
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @classmethod
    def like(
        cls,
        layer: "nn.Conv2d | PQConv2d",
        centroids: torch.Tensor,
        codes: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> "PQConv2d":
        """Return a layer with the kernel size, stride, padding, dilation and groups of another."""
        return cls(
            centroids,
            codes,
            bias,
            kernel_size=(layer.kernel_size[0], layer.kernel_size[1]),
            stride=(layer.stride[0], layer.stride[1]),
            padding=layer.padding if isinstance(layer.padding, str) else (layer.padding[0], layer.padding[1]),
            dilation=(layer.dilation[0], layer.dilation[1]),
            groups=layer.groups,
            padding_mode=layer.padding_mode,
        )

    @property
    def weight(self) -> torch.Tensor:
        """The decoded weight, (out_channels, in_channels / groups, height, width)."""
        return super().weight.unflatten(1, (-1, *self.kernel_size))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Apply the layer: (batch, in_channels, height, width) to (batch, out_channels, ...)."""
        x = input  # named as in `torch.nn.Conv2d`
        padding: Any = self.padding
        if self.activations is not None:
            x = self.activations.simulate(x)
        if self.padding_mode != "zeros":
            x = functional.pad(x, pads(self), mode=self.padding_mode)
            padding = 0
        return functional.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def dense(self) -> nn.Conv2d:
        """Return a convolution with the decoded weight."""
        layer = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            (self.kernel_size[0], self.kernel_size[1]),
            (self.stride[0], self.stride[1]),
            self.padding if isinstance(self.padding, str) else (self.padding[0], self.padding[1]),
            (self.dilation[0], self.dilation[1]),
            self.groups,
            self.bias is not None,
            self.padding_mode,
            device="meta",
        )
        return _filled(layer, self.weight, self.bias).train(self.training)

    def extra_repr(self) -> str:
        """Return the sizes for the printed form."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, groups={self.groups}, n_centroids={self.n_centroids}, "
            f"block_size={self.block_size}, bias={self.bias is not None}"
        )


def pads(layer: nn.Conv2d | PQConv2d) -> list[int]:
    """Return how many cells a convolution adds left, right, above and below its input."""
    cells: list[int] = []
    for axis in (1, 0):
        if layer.padding == "valid":
            cells += [0, 0]
        elif layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            cells += [total // 2, total - total // 2]
        else:
            cells += [int(layer.padding[axis])] * 2
    return cells
