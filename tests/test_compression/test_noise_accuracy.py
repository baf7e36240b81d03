"""What Quant-Noise gains: a tiny real run that is kept, and the committed result."""

from unittest.mock import Mock

import pytest

from compression.cli import main
from compression.experiments import noise_accuracy
from compression.experiments.noise_accuracy import (
    NoiseAccuracyConfig,
    NoiseExperiment,
    measure,
    noise_rows,
)
from compression.training.finetune import FinetunedModel, save_classifier
from shared.artifacts import default_cache_dir

TINY = {
    "base": {"epochs": 1, "max_length": 8},
    "further": {"epochs": 1, "max_length": 8},
    "n_train": 32,
    "noises": [{"kind": "pq", "p": 0.0}, {"kind": "proxy", "p": 0.5}],
    "block_sizes": [8],
    "n_centroids": 16,
    "ipq": {"stages": ["ffn+embeddings+attention+head"], "steps_per_stage": 1},
    "n_distil": 16,
    "clusterings": [
        {"name": "PG"},
        {"name": "released", "pq": {"init": "random", "empty": "perturb", "tol": 0.0}},
        {"name": "PG", "weighting": "activation"},
    ],
    "n_compared": 1,
    "n_calibration": 32,
    "seeds": [0],
    "max_train": 64,
    "max_validation": 32,
}


@pytest.mark.slow
def test_a_tiny_measurement_has_every_state_and_is_kept(real_data, tmp_path, monkeypatch):
    (tmp_path / "packages").symlink_to(default_cache_dir() / "packages")
    config = NoiseAccuracyConfig.model_validate(TINY)
    found = measure(config, tmp_path)
    rows = noise_rows(found)
    assert [(row["k-means"], row["weights"], row["noise"]) for row in rows if row["state"] == "distilled"] == [
        ("PG", None, "none"),
        ("PG", None, "proxy"),
        ("released", None, "none"),
        ("PG", "activation", "none"),
    ]
    assert [row["noise"] for row in rows if row["state"] == "fp32"] == ["none", "proxy"]
    for name, number in (("gain", 3), ("over released", 2), ("over no weights", 2)):
        assert sum(row[name] is not None for row in rows) == number
    assert len({run["fp32"] for run in found["runs"]}) == 2  # noise changes what is trained
    by_way = {(run["k-means"], run["weights"]): run for run in found["runs"] if run["kind"] == "none"}
    assert len({run["relative_error"] for run in by_way.values()}) == 3
    # Weights trade the plain error for that of the output.
    assert by_way["PG", "activation"]["relative_error"] > by_way["PG", None]["relative_error"]
    assert all(40 < run["of_fp32"] < 64 for run in found["runs"])  # four bits for eight weights of 32
    monkeypatch.setattr(noise_accuracy, "finetune", None)
    monkeypatch.setattr(noise_accuracy, "ipq", None)
    assert measure(config, tmp_path)["runs"] == found["runs"]


def test_results_of_other_code_are_not_taken_from_the_cache(tiny_roberta, tiny_data, tmp_path, monkeypatch):
    experiment = NoiseExperiment(NoiseAccuracyConfig.model_validate(TINY), tmp_path)
    experiment.dense = FinetunedModel(tiny_roberta(0), None, tiny_data, tiny_data, tmp_path, {})
    save_classifier(experiment.dense.model, tmp_path)
    calls = [Mock(wraps=getattr(noise_accuracy, name)) for name in ("finetune", "ipq")]
    for name, call in zip(("finetune", "ipq"), calls, strict=True):
        monkeypatch.setattr(noise_accuracy, name, call)
    for code, times in (("this", 1), ("this", 1), ("other", 2)):
        monkeypatch.setattr(noise_accuracy, "code_hash", lambda code=code: code)
        experiment.run(experiment.config.noises[1], 8, 0, experiment.config.clusterings[0])
        assert [call.call_count for call in calls] == [times, 2 * times]


def test_the_committed_runs_are_shown_and_settings_need_a_measurement(capsys):
    assert main(["noise"]) == 0
    names, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line
    ]
    table = [dict(zip(names, row, strict=True)) for row in rows]
    assert len(table) == 2 * (6 + 2 * (6 + 3 * 2))  # sizes, and noises of fp32 models and of the files
    assert {row["state"] for row in table} == {"fp32", "quantized", "distilled"}
    assert all((row["gain"] == "–") == (row["p"] == "0") for row in table)
    assert main(["noise", "--set", "seeds=[0]"]) == 2
    assert "need `--measure`" in capsys.readouterr().err
