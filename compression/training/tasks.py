"""Classification and regression tasks: the nine of GLUE, and the two that come from packages."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.config import check_name


@dataclass(frozen=True)
class Task:
    """What the rows of a task hold, and how predictions are judged.

    Parameters
    ----------
    name
        Name, for GLUE that of the configuration on the hub.
    sentence_keys
        Column of the sentence, or of both sentences of a pair.
    label_names
        Name of each class in the order of the labels; empty for regression.
    metrics
        Names of `compression.training.metrics.METRICS`. The score of the task is their mean, as in GLUE.
    more_metrics
        Names of metrics that are reported but not part of the score.
    evaluation_splits
        Labelled splits that models are evaluated on.
    test_splits
        Splits whose labels are hidden (-1).
    label_range
        Least and largest label of a regression.
    packaged
        Whether the rows come from a package that ``pg-ipq fetch-data`` gets, not from the hub.
    """

    name: str
    sentence_keys: tuple[str, ...]
    label_names: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    more_metrics: tuple[str, ...] = ()
    evaluation_splits: tuple[str, ...] = ("validation",)
    test_splits: tuple[str, ...] = ("test",)
    label_range: tuple[float, float] = (-np.inf, np.inf)
    packaged: bool = False

    @property
    def regression(self) -> bool:
        """Whether labels are numbers on a scale."""
        return not self.label_names

    @property
    def num_labels(self) -> int:
        """Outputs of a model: the number of classes, 1 for regression."""
        return max(1, len(self.label_names))

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits, the training part first."""
        return ("train", *self.evaluation_splits, *self.test_splits)

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return every metric of the task for predictions and labels of shape (n,)."""
        from compression.training.metrics import METRICS  # not above: it loads torch, which a wrong name need not

        return {name: METRICS[name](predictions, labels) for name in (*self.metrics, *self.more_metrics)}

    def main_score(self, predictions: np.ndarray, labels: np.ndarray) -> float:
        """Return the score of the task: the mean of `metrics`."""
        scores = self.score(predictions, labels)
        return float(np.mean([scores[name] for name in self.metrics]))

    def majority(self, train_labels: np.ndarray, n: int) -> np.ndarray:
        """Return the `n` predictions of no model at all: the commonest training label, or the mean for regression."""
        if self.regression:
            return np.full(n, np.mean(train_labels))
        return np.full(n, np.bincount(train_labels).argmax())


_ENTAILMENT = ("entailment", "not_entailment")
_MATCHED = ("validation_matched", "validation_mismatched")
_MATCHED_TESTS = ("test_matched", "test_mismatched")

GLUE = {
    task.name: task
    for task in (
        Task("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
        Task("sst2", ("sentence",), ("negative", "positive")),
        Task("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
        Task("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
        Task("stsb", ("sentence1", "sentence2"), (), ("pearson", "spearman"), label_range=(0.0, 5.0)),
        Task(
            "mnli",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            evaluation_splits=_MATCHED,
            test_splits=_MATCHED_TESTS,
        ),
        Task("qnli", ("question", "sentence"), _ENTAILMENT),
        Task("rte", ("sentence1", "sentence2"), _ENTAILMENT),
        Task("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment")),
    )
}
"""The tasks of GLUE with columns, labels and metrics of the data set ``nyu-mll/glue``.

Source: Wang et al., GLUE, arXiv:1804.07461.
"""

PACKAGED = {
    task.name: task
    for task in (
        Task(name, keys, labels, more_metrics=("matthews",), test_splits=(), packaged=True)
        for name, keys, labels in (
            ("rt", ("sentence",), ("negative", "positive")),
            ("boolq", ("question", "passage"), ("no", "yes")),
        )
    )
}
"""Tasks without a hub: Rotten Tomatoes against VADER snippets, and BoolQ."""

TASKS = GLUE | PACKAGED


def find_task(name: str) -> Task:
    """Return a task by its name.

    Raises
    ------
    ValueError
        If there is no such task; the nearest name is given.
    """
    return TASKS[check_name(name, tuple(TASKS), "Key `task`")]


def model_label_order(task: Task, model_names: Sequence[str]) -> tuple[int, ...] | None:
    """Return the model's label of each of the task's labels, by name.

    Parameters
    ----------
    task
        The task.
    model_names
        The model's label names in the order of its outputs.

    Returns
    -------
    tuple of int or None
        For each label of the task the model's label of the same name, letter case aside. ``None`` where the names do
        not correspond (``LABEL_0``, for instance), so that the order of the task has to be taken.
    """
    ours, theirs = ([name.lower().replace("-", "_") for name in names] for names in (task.label_names, model_names))
    if task.regression or sorted(ours) != sorted(theirs):
        return None
    return tuple(theirs.index(name) for name in ours)
