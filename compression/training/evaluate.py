"""Accuracy and Matthews correlation with intervals, and paired comparison of two models on the same sentences."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from compression.quantization.calibration import evaluating
from compression.training.batches import EncodedData, evaluation_batches
from shared.progress import progress

_RESAMPLES_AT_ONCE = 256


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a model on n sentences and what follows from them.

    Parameters
    ----------
    predictions
        Predicted labels in the order of the data, int64, shape (n,).
    labels
        True labels, int64, shape (n,).
    """

    predictions: np.ndarray
    labels: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is right, bool, shape (n,)."""
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        """Fraction of right predictions."""
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the accuracy."""
        return wilson_interval(int(self.correct.sum()), len(self.labels))

    @property
    def matthews(self) -> float:
        """Matthews correlation of predictions and labels."""
        return matthews_correlation(self.predictions, self.labels)

    def summary(self) -> dict[str, float]:
        """Return accuracy, its 95 % interval, the Matthews correlation and the number of sentences."""
        low, high = self.interval
        return {
            "accuracy": self.accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "matthews": self.matthews,
            "sentences": len(self.labels),
        }


@torch.inference_mode()
def predict_logits(model: nn.Module, data: EncodedData, *, batch_size: int = 64, description: str = "") -> torch.Tensor:
    """Return the logits of a model, float32 on the CPU, shape (n, classes), in the order of the data.

    Parameters
    ----------
    model
        A sequence classifier of the `transformers` kind. It is used in evaluation mode and left in the mode it had.
    data
        Token sequences.
    batch_size
        Sentences at once.
    description
        Shown with the progress; nothing is shown if empty.
    """
    if len(data) == 0:
        raise ValueError("Argument `data` must have at least one row, but is empty.")
    device = next(model.parameters()).device
    rows: list[int] = []
    parts: list[torch.Tensor] = []
    batches = evaluation_batches(data.lengths, batch_size)
    with evaluating(model):
        if description:
            with progress(description, total=len(batches)) as step:
                for batch in batches:
                    parts.append(model(**data.batch(batch, device)).logits.float().cpu())
                    step()
        else:
            parts = [model(**data.batch(batch, device)).logits.float().cpu() for batch in batches]
    rows = [row for batch in batches for row in batch]
    found = torch.cat(parts)
    logits = torch.empty_like(found)
    logits[torch.tensor(rows)] = found
    return logits


def evaluate(model: nn.Module, data: EncodedData, *, batch_size: int = 64, description: str = "") -> Evaluation:
    """Return the predictions of a sequence classifier on labelled data; arguments as in `predict_logits`."""
    logits = predict_logits(model, data, batch_size=batch_size, description=description)
    return Evaluation(logits.argmax(1).numpy(), data.labels.numpy())


def wilson_interval(n_right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    Parameters
    ----------
    n_right, n
        Successes and trials.
    z
        Standard normal quantile; the default gives 95 %.

    Returns
    -------
    tuple of float
        Lower and upper end. Source: Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    if not 0 <= n_right <= n or n == 0:
        raise ValueError(f"Arguments must satisfy 0 <= n_right <= n and n > 0, but were n_right={n_right} and n={n}.")
    p = n_right / n
    centre = p + z * z / (2 * n)
    half_width = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half_width) / scale), min(1.0, (centre + half_width) / scale)


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the Matthews correlation for any number of classes, 0 where it is not defined.

    Parameters
    ----------
    predictions, labels
        Integer classes, shape (n,).

    Returns
    -------
    float
        From -1 to 1. Source: Gorodkin, Comput. Biol. Chem. 28, 367 (2004).
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or predictions.ndim != 1:
        raise ValueError(f"Argument `predictions` must have the shape {labels.shape}, but has {predictions.shape}.")
    classes = np.union1d(predictions, labels)
    predicted = (predictions[:, None] == classes).astype(float)
    true = (labels[:, None] == classes).astype(float)
    n = len(labels)
    covariance = n * (predicted * true).sum() - predicted.sum(0) @ true.sum(0)
    spread = (n * n - (predicted.sum(0) ** 2).sum()) * (n * n - (true.sum(0) ** 2).sum())
    return float(covariance / math.sqrt(spread)) if spread > 0 else 0.0


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of model A minus that of model B on the same sentences, of one task or as the mean over several.

    Parameters
    ----------
    difference
        In fractions (0.01 is one point).
    low, high
        95 % bootstrap interval.
    p_value
        Two-sided bootstrap probability that the difference has the other sign.
    """

    difference: float
    low: float
    high: float
    p_value: float

    def summary(self) -> dict[str, float]:
        """Return the fields as a dictionary."""
        return asdict(self)


def paired_bootstrap(
    correct_a: np.ndarray, correct_b: np.ndarray, *, n_resamples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compare two models by resampling the sentences (and seeds) on which both were run.

    Parameters
    ----------
    correct_a, correct_b
        Whether each prediction is right, of the same shape: (n,) for one run of each model, (seeds, n) for several
        runs. Seeds and sentences are resampled independently; the runs are paired by seed.
    n_resamples
        Number of bootstrap samples.
    seed
        Seed of the resampling.

    Returns
    -------
    PairedDifference
        Percentile interval. Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    return pooled_bootstrap([(correct_a, correct_b)], n_resamples=n_resamples, seed=seed)


def pooled_bootstrap(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], *, n_resamples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compare two models on several tasks: the mean over tasks of each one's difference.

    Parameters
    ----------
    pairs
        ``correct_a`` and ``correct_b`` of each task, see `paired_bootstrap`. Seeds and sentences are resampled within
        each task, of one independently of the others.
    n_resamples, seed
        As for `paired_bootstrap`.

    Returns
    -------
    PairedDifference
        As of `paired_bootstrap`.
    """
    if len(pairs) == 0:
        raise ValueError("Argument `pairs` must hold at least one task, but is empty.")
    if n_resamples < 1:
        raise ValueError(f"Argument `n_resamples` must be at least 1, but was {n_resamples}.")
    gains = [_gain(*pair) for pair in pairs]
    rng = np.random.default_rng(seed)
    samples = sum((_resampled(gain, n_resamples, rng) for gain in gains), np.zeros(n_resamples)) / len(gains)
    low, high = np.quantile(samples, [0.025, 0.975])
    tail = min((samples <= 0).mean(), (samples >= 0).mean())
    difference = float(np.mean([gain.mean() for gain in gains]))
    return PairedDifference(difference, float(low), float(high), float(min(1.0, 2 * tail)))


def _gain(correct_a: np.ndarray, correct_b: np.ndarray) -> np.ndarray:
    """Right predictions of A minus those of B, float64, shape (seeds, n)."""
    a, b = np.atleast_2d(np.asarray(correct_a)), np.atleast_2d(np.asarray(correct_b))
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise ValueError(f"Argument `correct_b` must have the shape of `correct_a` {a.shape}, but has {b.shape}.")
    return a.astype(np.float64) - b.astype(np.float64)


def _resampled(gain: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of a gain (seeds, n) over seeds and sentences drawn with replacement, shape (n_resamples,)."""
    n_seeds, n = gain.shape
    # Sentences on which all runs did alike are drawn together: a sum of a multinomial's parts is one of fewer parts.
    _, first, number = np.unique(gain, axis=1, return_index=True, return_counts=True)
    order = np.argsort(first)  # by the first sentence of a kind, so that the sign of the gain does not matter
    kinds, share = gain[:, first[order]], number[order] / n
    samples = np.empty(n_resamples)
    for start in range(0, n_resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, n_resamples - start)
        sentences = rng.multinomial(n, share, size=size)
        seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=size)
        samples[start : start + size] = np.einsum("rs,sk,rk->r", seeds, kinds, sentences, optimize=True) / (n_seeds * n)
    return samples
