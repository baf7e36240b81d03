"""Published compressors beside ours: ratios and points lost by hand, and the command on committed data."""

import pytest

from compression.cli import main
from compression.experiments import reviews
from compression.experiments.presets import study_file
from compression.experiments.reviews import our_rows, published_rows
from compression.experiments.study import StudyConfig, plan
from compression.experiments.study_tables import gain_rows, load_study
from shared.config import load_config


def test_losses_are_against_the_own_fp32_model():
    rows = {(row["method"], row["base model"]): row for row in reversed(published_rows())}
    noise = rows["iPQ + Quant-Noise", "RoBERTa-base"]
    assert (noise["of fp32"], noise["MNLI"]) == (12.6, 83.6)
    assert noise["MNLI lost"] == pytest.approx(87.6 - 83.6)
    assert noise["RTE lost"] is None
    bit = rows["BiT 1-1-4", "BERT-base"]
    assert bit["of fp32"] == pytest.approx(418 / 13.4)
    assert bit["RTE lost"] == pytest.approx(72.2 - 66.4)
    assert rows["fp32", "BERT-base"]["MNLI lost"] is None


def test_ours_are_the_compressed_models():
    rows = our_rows(load_study("minilm-rt"))
    assert {"PG", "released"} <= {row["method"] for row in rows}
    assert "fp32" not in {row["method"] for row in rows}
    assert min(row["of fp32"] for row in rows) > 14


def test_command_prints_what_there_is(capsys, monkeypatch):
    assert main(["reviews"]) == 0
    printed = capsys.readouterr().out
    assert "| iPQ + Quant-Noise | RoBERTa-base | 12.6" in printed
    assert "gain (points)" in printed
    assert "| 28x | faiss |" in printed
    monkeypatch.setattr(reviews, "STUDY", "none")
    assert main(["reviews"]) == 0
    assert "not run yet" in capsys.readouterr().out


def test_committed_study_is_of_the_shipped_settings():
    study = load_study(reviews.STUDY)
    config = load_config(StudyConfig, study_file(reviews.STUDY))
    planned = {(item.variant, item.size, item.seed) for item in plan(config)}
    assert study["planned"] == len(planned)
    done = {(run["variant"], run["size"], run["seed"]) for run in study["runs"]}
    assert len(done) == len(study["runs"])
    assert done == planned
    for row in gain_rows(study["runs"]):
        assert row["bytes ratio"] == pytest.approx(1, abs=0.12)
