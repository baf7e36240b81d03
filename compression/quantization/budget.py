"""Compression to a number of bytes: the model quantized as `compression.quantization.plan` chooses."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from compression.quantization.blocks import PQConfig
from compression.quantization.calibration import Batch, all_logits, check_batches, divergence
from compression.quantization.plan import Plan, plan
from compression.quantization.rules import LayerReport, quantize_
from compression.quantization.sensitivity import SIZES
from compression.quantization.storage import file_bytes, round_

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CompressionResult(Plan):
    """What `compress` returns: the plan and what came of it.

    Attributes
    ----------
    model
        The compressed model, in evaluation mode, its values as they will be stored: `save_compressed` writes
        `file_bytes` bytes.
    reports
        Of the clusterings.
    file_bytes
        The size of the file.
    measured_loss
        Mean Kullback-Leibler divergence from the original model's outputs on the calibration batches, in nats (for a
        regression, see `compression.quantization.calibration.divergence`);
        `predicted_loss` is the prediction (with ``sensitivity="output"`` a sum of relative output errors).
    """

    model: nn.Module
    reports: tuple[LayerReport, ...]
    file_bytes: int
    measured_loss: float

    def figure(self) -> "Figure":
        """Return the Pareto curve with this result on it; call it inside `shared.plotting.style`."""
        return _pareto_figure(self.curve, self.file_bytes, self.losses)

    @property
    def losses(self) -> dict[str, float]:
        """Predicted and measured loss, for `write_pareto`."""
        return {"predicted": self.predicted_loss, "measured": self.measured_loss}


def write_pareto(
    curve: Sequence[Mapping[str, float]], file_bytes: int, losses: Mapping[str, float], folder: str | Path
) -> None:
    """Write the curve of a `Plan` as the table and the figure ``pareto``.

    Parameters
    ----------
    curve
        See `Plan`.
    file_bytes
        The size of the file that was made.
    losses
        What it loses, by how that is known (``predicted``, ``measured``); marked in the figure.
    folder
        Where ``pareto.csv``, ``.md``, ``.png`` and ``.pdf`` are written.
    """
    from shared.plotting import save_figure, style
    from shared.results import write_table

    write_table(curve, Path(folder) / "pareto", digits=6)
    with style():
        save_figure(_pareto_figure(curve, file_bytes, losses), Path(folder) / "pareto")


def _pareto_figure(curve: Sequence[Mapping[str, float]], file_bytes: int, losses: Mapping[str, float]) -> "Figure":
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure()
    inside = [row for row in curve if row["predicted_loss"] > 0]
    axes.loglog([row["file_bytes"] / 1e6 for row in inside], [row["predicted_loss"] for row in inside], label="best")
    for number, (label, loss) in enumerate(losses.items(), start=1):
        marker = "o" if label == "predicted" else "s"
        axes.plot(file_bytes / 1e6, loss, marker, color=COLOURS[number], label=f"chosen, {label}")
    axes.set_xlabel("file (MB)")
    axes.set_ylabel("divergence on calibration (nats)")
    axes.legend()
    return figure


def compress(
    model: nn.Module,
    budget: str | int,
    *,
    calibration: Iterable[Batch],
    exclude: Sequence[str] = (),
    sizes: Sequence[tuple[int, int]] = SIZES,
    weighting: str | None = "activation",
    sensitivity: str = "loss",
    base: PQConfig | None = None,
    seed: int = 0,
    n_workers: int | None = 1,
    extra: dict[str, Any] | None = None,
    share: bool = True,
) -> CompressionResult:
    """Compress a model to a file of at most so many bytes, with block size, K, codebook type and sharing chosen.

    Every linear layer, embedding and convolution is clustered in all ways that fit it, and those that differ in the
    numbers in their names only (the queries of all layers of an encoder) together too, to share a codebook. How much a
    layer matters is measured on the calibration batches; the choice that minimises the sum of the predicted losses
    within the budget is found by dynamic programming. Nothing is trained: `compression.ipq` with the result's ``rules``
    does that. Weights that several layers share (an embedding tied to the output) stay in float16, and so do embeddings
    with `max_norm` and layers of a class with a ``forward`` of its own.

    Parameters
    ----------
    model
        A module that returns logits (or an object with ``logits``). It is not changed.
    budget
        Bytes of the whole file: an integer, a text such as ``"6MB"``, ``"500 kB"`` or ``"5.7 MiB"``, or ``"12x"`` for a
        twelfth of the fp32 weights.
    calibration
        Batches, each a mapping of the model's keyword arguments or a tensor. Labels are not needed.
    exclude
        Regular expressions for the whole names of layers that are kept in float16.
    sizes
        Pairs of block size and codewords to try, besides keeping the weight in float16.
    weighting
        Weights of the clustering: ``"activation"``, ``"fisher"`` (see `compression.quantization.calibration`) or
        ``None``.
    sensitivity
        ``"loss"``: the divergence of the outputs when the layer alone is quantized, scaled by the error of the weight;
        ``"output"``: the relative squared output error of the layer.
    base
        Other options of the clustering.
    seed
        Of the clustering.
    n_workers
        Processes that cluster; all usable processors if ``None``. The result is the same for any number.
    extra
        Description kept in the file's header, see `save_compressed`; it counts.
    share
        Whether layers may share a codebook where that is predicted to be better.

    Returns
    -------
    CompressionResult

    Raises
    ------
    ValueError
        If an argument is not as described, or the budget is below the smallest file possible, which is named.
    """
    batches = check_batches(calibration)
    made = plan(
        model,
        budget,
        calibration=batches,
        exclude=exclude,
        sizes=sizes,
        weighting=weighting,
        sensitivity=sensitivity,
        base=base,
        seed=seed,
        n_workers=n_workers,
        extra=extra,
        share=share,
    )
    return carry_out(model, made, calibration=batches, seed=seed, n_workers=n_workers, extra=extra)


def carry_out(
    model: nn.Module,
    made: Plan,
    *,
    calibration: Sequence[Batch],
    seed: int = 0,
    n_workers: int | None = 1,
    extra: dict[str, Any] | None = None,
) -> CompressionResult:
    """Quantize a copy of a model as a plan for it says; arguments are those of `compress`."""
    model = copy.deepcopy(model).eval()
    reference = all_logits(model, calibration)
    reports = []
    if made.rules:
        reports = quantize_(model, made.rules, seed=seed, sample_weights=made.weights, n_workers=n_workers)
    round_(model)
    return CompressionResult(
        **vars(made),
        model=model,
        reports=tuple(reports),
        file_bytes=file_bytes(model, extra=extra),
        measured_loss=divergence(reference, all_logits(model, calibration)),
    )
