"""The package's central results: empty clusters, and accuracy against real file size."""

from pathlib import Path
from typing import Any

import numpy as np

from compression.experiments.accuracy import AccuracyConfig, Experiment, write_accuracy
from compression.experiments.empty_clusters import EmptyClustersConfig, write_stress
from shared.config import FrozenConfig
from shared.results import ResultsWriter

_STRESSED = "roberta.encoder.layer.0.intermediate.dense.weight"


class ReproduceConfig(FrozenConfig):
    """Settings of ``pg-ipq reproduce``; the files in ``compression/experiments/configs`` hold the two presets.

    Attributes
    ----------
    empty_clusters
        Clustering of stress weights.
    accuracy
        Training, compression and evaluation.
    """

    empty_clusters: EmptyClustersConfig = EmptyClustersConfig()
    accuracy: AccuracyConfig = AccuracyConfig()


def stressed_layer(experiment: Experiment) -> np.ndarray:
    """Return the real weight (rows, features) that is pruned for the stress sets."""
    return stressed_layer_of(experiment.dense.model)


def stressed_layer_of(model: Any) -> np.ndarray:
    """Return the weight (rows, features) of a RoBERTa classifier that is pruned for the stress sets."""
    return model.get_parameter(_STRESSED).detach().numpy()


def reproduce(root: str | Path, config: ReproduceConfig, folder: str | Path | None = None) -> Path:
    """Compute everything and write it under ``root/compression``.

    Parameters
    ----------
    root
        Folder of results.
    config
        Settings.
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Returns
    -------
    Path
        The summary, from which ``python -m shared.report`` makes a page.
    """
    experiment = Experiment(config.accuracy, folder)
    layer = stressed_layer(experiment)  # missing data are found out here, before anything is written
    writer = ResultsWriter(root, "compression", config)
    write_stress(writer, config.empty_clusters, layer)
    write_accuracy(writer, experiment)
    return writer.finish()
