"""Metrics of classification and regression tasks, and their paired comparison by bootstrap."""

from collections.abc import Callable

import numpy as np

from compression.training.evaluate import PairedDifference, matthews_correlation

Score = Callable[[np.ndarray, np.ndarray], float]


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of predictions (n,) that equal the labels (n,)."""
    return float((_checked(predictions, labels)[0] == labels).mean())


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return F1 of class 1, the harmonic mean of precision and recall; 0 where nothing is, or is called, positive."""
    predictions, labels = _checked(predictions, labels)
    positive = int((predictions == 1).sum() + (labels == 1).sum())
    return float(2 * ((predictions == 1) & (labels == 1)).sum() / positive) if positive else 0.0


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return Pearson's correlation of predictions (n,) and labels (n,), 0 where either is constant."""
    from scipy import stats  # here: its import takes most of a second, and few tasks need it

    predictions, labels = _checked(predictions, labels)
    return 0.0 if _constant(predictions, labels) else float(stats.pearsonr(predictions, labels).statistic)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return Spearman's rank correlation of predictions (n,) and labels (n,), 0 where either is constant."""
    from scipy import stats

    predictions, labels = _checked(predictions, labels)
    return 0.0 if _constant(predictions, labels) else float(stats.spearmanr(predictions, labels).statistic)


METRICS: dict[str, Score] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
}
"""Metrics by name; each takes predictions and labels of shape (n,) and is better when larger."""


def score_difference(
    score: Score,
    predictions_a: np.ndarray,
    predictions_b: np.ndarray | None,
    labels: np.ndarray,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> PairedDifference:
    """Return a score of model A minus that of model B, with a bootstrap interval over the sentences.

    Parameters
    ----------
    score
        Any function of predictions and labels.
    predictions_a, predictions_b
        Predictions on the same sentences, shape (n,). Without the second the score of A alone is returned.
    labels
        Labels, shape (n,).
    n_resamples
        Number of bootstrap samples of sentences.
    seed
        Seed of the resampling.

    Returns
    -------
    PairedDifference
        Percentile interval. For accuracy over several seeds see `compression.training.evaluate.paired_bootstrap`.
    """
    if n_resamples < 1:
        raise ValueError(f"Argument `n_resamples` must be at least 1, but was {n_resamples}.")

    def difference(rows: np.ndarray | slice) -> float:
        other = 0.0 if predictions_b is None else score(predictions_b[rows], labels[rows])
        return score(predictions_a[rows], labels[rows]) - other

    rng = np.random.default_rng(seed)
    n = len(labels)
    samples = np.array([difference(rng.integers(0, n, n)) for _ in range(n_resamples)])
    low, high = np.quantile(samples, [0.025, 0.975])
    tail = min((samples <= 0).mean(), (samples >= 0).mean())
    return PairedDifference(difference(slice(None)), float(low), float(high), float(min(1.0, 2 * tail)))


def _checked(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or labels.ndim != 1 or len(labels) == 0:
        raise ValueError(
            f"Argument `predictions` must have the shape (n,) of `labels` with n > 0, but has {predictions.shape} "
            f"beside {labels.shape}."
        )
    return predictions, labels


def _constant(*arrays: np.ndarray) -> bool:
    return any(len(array) < 2 or np.ptp(array) == 0 for array in arrays)
