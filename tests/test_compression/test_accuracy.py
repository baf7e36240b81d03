"""The cache of compressed models: a result is taken only for what it was made from."""

from unittest.mock import Mock

import pytest

from compression.experiments import accuracy
from compression.experiments.accuracy import AccuracyConfig, Experiment
from compression.experiments.code_hash import PACKAGES
from compression.quantization.rules import STAGES, preset_rules
from compression.training.finetune import FinetunedModel, save_classifier
from shared.artifacts import versions
from tests.test_compression.conftest import make_tiny_data


@pytest.fixture
def made(monkeypatch):
    """Count how often a model is compressed and not taken from the cache."""
    made = Mock(wraps=accuracy.ipq)
    monkeypatch.setattr(accuracy, "ipq", made)
    return made


@pytest.fixture
def compress(tiny_roberta, tiny_data, tmp_path, monkeypatch):
    """Return a function that compresses a tiny model to a size, with so many sentences of `train` for calibration."""
    model = tiny_roberta(0)
    save_classifier(model, tmp_path)
    by_stage = preset_rules("roberta", block_size=8, n_centroids=4)
    for_budget = tuple(rule.model_copy(update={"stage": "all"}) for rule in by_stage)
    monkeypatch.setattr(Experiment, "rules", lambda _, method, size: by_stage if size == 8 else for_budget)

    def run(size, n_calibration=8, train=tiny_data):
        values = {"ipq": {"stages": ["+".join(STAGES)], "steps_per_stage": 1}, "n_calibration": n_calibration}
        experiment = Experiment(AccuracyConfig.build(values), tmp_path)
        experiment.dense = FinetunedModel(model, None, train, tiny_data, tmp_path, {})
        experiment.distilled = tiny_data.sample(8)
        return experiment.compressed("PG", size, 0).path

    return run


def test_weighted_clusterings_depend_on_the_sentences_that_they_were_measured_on(compress, made):
    others = make_tiny_data(seed=1)
    paths = {compress("15x"), compress("15x"), compress("15x", 16), compress("15x", 8, others)}
    assert made.call_count == len(paths) == 3
    assert len({compress(8), compress(8, 16), compress(8, 8, others)}) == 1  # without weights


def test_results_depend_on_the_packages_that_compute_them():
    assert set(versions(PACKAGES)) == {"python", "torch", "transformers", "numba", "numpy"}
