"""Inputs of layers in 8 bits: grids from calibration batches, and their simulation in floating point."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from compression.quantization.calibration import Batch, check_batches, each_input
from compression.quantization.convolution import PQConv2d
from compression.quantization.layers import PQLinear
from compression.quantization.straight_through import straight_through

LOWEST, HIGHEST = -128, 127
_BINS = 2048
_SHARES = tuple(1 - 0.02 * step for step in range(40))


@dataclass(frozen=True)
class ActivationGrid:
    """The 256 values ``scale * (n - zero_point)``, n from -128 to 127, to which the inputs of a layer are rounded.

    Attributes
    ----------
    scale
        Step, positive.
    zero_point
        The n of the value 0, from -128 to 127.
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"Argument `scale` must be positive and finite, but was {self.scale}.")
        if self.zero_point != int(self.zero_point) or not LOWEST <= self.zero_point <= HIGHEST:
            raise ValueError(
                f"Argument `zero_point` must be an integer in {LOWEST}..{HIGHEST}, but was {self.zero_point}."
            )

    @classmethod
    def spanning(cls, low: float, high: float) -> "ActivationGrid":
        """Return the grid that spans `low` to `high`, and 0, with 0 on it."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / (HIGHEST - LOWEST), torch.finfo(torch.float32).tiny)
        return cls(scale, min(max(round(LOWEST - low / scale), LOWEST), HIGHEST))

    @property
    def low(self) -> float:
        """Smallest value."""
        return self.scale * (LOWEST - self.zero_point)

    @property
    def high(self) -> float:
        """Largest value."""
        return self.scale * (HIGHEST - self.zero_point)

    def numbers(self, x: torch.Tensor) -> torch.Tensor:
        """Return the n of the values nearest to `x`, in the type of `x`; values outside take the nearest end."""
        return (x * (1 / self.scale)).round_().add_(self.zero_point).clamp_(LOWEST, HIGHEST)

    def simulate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the values nearest to `x`; the gradient goes straight through, but for values outside the grid."""
        rounded = self.numbers(x.detach()).sub_(self.zero_point).mul_(self.scale)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return rounded
        return straight_through(x.clamp(self.low, self.high), rounded)


@dataclass(frozen=True)
class ActivationReport:
    """What became of the inputs of one layer.

    Attributes
    ----------
    name
        Module name.
    low, high
        Smallest and largest input in the calibration batches.
    scale, zero_point
        See `ActivationGrid`.
    relative_error
        Squared error of the inputs over their squared norm, from a histogram.
    """

    name: str
    low: float
    high: float
    scale: float
    zero_point: int
    relative_error: float


def quantize_activations_(
    model: nn.Module,
    calibration: Iterable[Batch],
    *,
    names: Sequence[str] | None = None,
    method: Literal["mse", "range"] = "mse",
) -> list[ActivationReport]:
    """Round the inputs of product-quantized linear layers and convolutions to 8 bits from now on, in place.

    One grid for each layer (per tensor, asymmetric, static), chosen from the inputs that calibration batches give it in
    the model as it is, so that codebooks trained afterwards adapt to it. Where the codebook lies on an int8 grid too
    (`compression.PQConfig.codebook_dtype`) and the processor has instructions for it, values are computed in integers
    (see `compression.quantization.integers`); else the rounding is simulated, to the same values but for the order of
    the sums. The grids are stored with the model.

    Parameters
    ----------
    model
        A model with product-quantized layers.
    calibration
        Batches. Positions that an ``attention_mask`` marks as padding do not count.
    names
        Layers; all product-quantized linear layers and convolutions if ``None``.
    method
        ``"range"`` spans the smallest to the largest input. ``"mse"`` moves the ends in, in steps of 2 %, for the least
        squared error: a few large inputs would make the grid coarse for all.

    Returns
    -------
    list of ActivationReport
        One for each layer that a batch reached, in the order of the model's modules.

    Raises
    ------
    ValueError
        If there is no such layer, no batch, or the method is unknown; or if an input is not finite.

    Notes
    -----
    Stock et al. (arXiv:2004.07320, section 4.3) combine iPQ with int8 in this way.
    """
    if method not in ("mse", "range"):
        raise ValueError(f"Argument `method` must be 'mse' or 'range', but was {method!r}.")
    layers = _layers(model, names)
    batches = check_batches(calibration)
    for layer in layers.values():
        layer.activations = None
    spans: dict[str, tuple[float, float]] = {}

    def widen(name: str, x: torch.Tensor) -> None:
        low, high = (float(value) for value in x.aminmax())
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise ValueError(f"Argument `calibration` must give finite inputs, but those of layer {name!r} are not.")
        before = spans.get(name, (low, high))
        spans[name] = min(low, before[0]), max(high, before[1])

    each_input(model, batches, layers, widen)
    counts = {name: torch.zeros(_BINS, dtype=torch.float64) for name in spans}

    def count(name: str, x: torch.Tensor) -> None:
        low, high = _widened(spans[name])
        counts[name] += torch.histc(x.float(), _BINS, low, high).double().cpu()

    each_input(model, batches, {name: layers[name] for name in spans}, count)
    reports = []
    for name, (low, high) in spans.items():
        grid, error = _chosen(low, high, counts[name], method == "mse")
        layers[name].activations = grid
        reports.append(ActivationReport(name, low, high, grid.scale, grid.zero_point, error))
    return sorted(reports, key=lambda report: list(layers).index(report.name))


def _layers(model: nn.Module, names: Sequence[str] | None) -> dict[str, PQLinear | PQConv2d]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, PQLinear | PQConv2d)}
    unknown = [] if names is None else [name for name in names if name not in found]
    if unknown or not found:
        what = "Argument `names` must hold names of" if unknown else "Argument `model` must have"
        but = f"has {unknown[0]!r}" if unknown else "has none: call `quantize_` first"
        raise ValueError(f"{what} product-quantized linear layers or convolutions, but {but}.")
    return found if names is None else {name: module for name, module in found.items() if name in names}


def _widened(span: tuple[float, float]) -> tuple[float, float]:
    """A span of some width, for a histogram."""
    low, high = span
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _chosen(low: float, high: float, counts: torch.Tensor, shrink: bool) -> tuple[ActivationGrid, float]:
    """The grid of a histogram, with its squared error over the squared norm."""
    start, end = _widened((low, high))
    centres = start + (end - start) * (torch.arange(_BINS, dtype=torch.float64) + 0.5) / _BINS
    norm = float((counts * centres.square()).sum()) or 1.0

    def error(ends: tuple[float, float]) -> float:
        grid = ActivationGrid.spanning(*ends)
        return float((counts * (grid.simulate(centres) - centres).square()).sum()) / norm

    ends = (low, high)
    for _ in range(2 if shrink else 0):  # one end, then the other, twice
        ends = min(((ends[0], high * share) for share in _SHARES), key=error)
        ends = min(((low * share, ends[1]) for share in _SHARES), key=error)
    return ActivationGrid.spanning(*ends), error(ends)
