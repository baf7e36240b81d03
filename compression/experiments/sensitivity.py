"""Which prediction of a plan's loss is the better one: rank correlation with the loss that is measured."""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from compression.quantization.calibration import Batch, all_logits, divergence
from compression.quantization.rules import Rule, quantize_
from compression.quantization.sensitivity import LayerOptions
from shared.progress import track


def compare_predictions(
    model: nn.Module,
    calibration: Sequence[Batch],
    held_out: Sequence[Batch],
    layers: Mapping[str, Sequence[LayerOptions]],
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
    n_plans: int = 12,
    max_bits: float = 4.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Quantize a model in random ways and set the measured loss beside the predicted ones.

    Parameters
    ----------
    model
        Not changed.
    calibration, held_out
        Batches: those on which the predictions were made, and others.
    layers
        For each kind of prediction what `compression.quantization.sensitivity.measure_layers` returned.
    weights
        Weights of the clusterings.
    n_plans
        Random plans: each draws a mean number of bits, and for each layer one of the options near it.
    max_bits
        Options of more bits a weight are not drawn.
    seed
        Of the draws.

    Returns
    -------
    list of dict
        A row for each kind of prediction: Spearman correlation and geometric mean ratio of measured to predicted loss,
        on the calibration batches and on the others.
    """
    rng = np.random.default_rng(seed)
    kinds = list(layers)
    references = [all_logits(model, batches) for batches in (calibration, held_out)]
    predicted: dict[str, list[float]] = {kind: [] for kind in kinds}
    measured: list[list[float]] = []
    for _ in track(range(n_plans), "Quantizing random plans"):
        target = np.exp(rng.uniform(np.log(0.7), np.log(3.0)))
        rules, totals = [], dict.fromkeys(kinds, 0.0)
        for number, layer in enumerate(layers[kinds[0]]):
            bits = np.array([8 * option.bytes / np.prod(layer.shape) for option in layer.options])
            allowed = np.flatnonzero(bits <= max_bits)
            if not len(allowed):
                continue
            wanted = np.log(target) + rng.normal(0, 0.4)
            pick = int(allowed[np.argmin(np.abs(np.log(bits[allowed]) - wanted))])
            config = layer.options[pick].config
            if config is None:
                continue
            rules.append(Rule(pattern=re.escape(layer.name), config=config))
            for kind in kinds:
                same = [option for option in layers[kind][number].options if option.config == config]
                totals[kind] += same[0].loss
        quantized = copy.deepcopy(model)
        quantize_(quantized, rules, sample_weights=weights)
        parts = zip(references, (calibration, held_out), strict=True)
        measured.append([divergence(reference, all_logits(quantized, batches)) for reference, batches in parts])
        for kind in kinds:
            predicted[kind].append(totals[kind])
    true = np.array(measured)
    rows = []
    for kind in kinds:
        guess = np.array(predicted[kind])
        rows.append(
            {
                "prediction": kind,
                "plans": n_plans,
                "rank correlation": float(spearmanr(guess, true[:, 0]).statistic),
                "rank correlation, held out": float(spearmanr(guess, true[:, 1]).statistic),
                "measured over predicted": float(np.exp(np.mean(np.log(true[:, 0] / guess)))),
                "scatter (factor)": float(np.exp(np.std(np.log(true[:, 0] / guess)))),
            }
        )
    return rows
