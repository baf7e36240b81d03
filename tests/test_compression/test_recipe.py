"""The comparison of fp32 recipes: the split, a tiny real run that is kept, refused settings, the committed result."""

import json

import pytest

from compression.cli import main
from compression.experiments import recipe
from compression.experiments.presets import config_file
from compression.experiments.recipe import COMMITTED, RecipeConfig, measure, recipe_rows, split
from compression.training.data import load_sentiment, normalise
from compression.training.models import load_minilm_roberta, load_minilm_tokenizer
from shared.config import ConfigError, load_config

TINY = {"epochs": 1, "max_length": 8, "lr": 1e-3}


@pytest.fixture
def few(real_data, monkeypatch):
    """Leave 96 of the training sentences."""
    text, validation = load_sentiment()
    monkeypatch.setattr(recipe, "load_sentiment", lambda folder=None: (text.subset(range(96)), validation))


@pytest.mark.data
def test_nothing_of_the_validation_sentences_and_no_training_sentence_is_held_out(real_data):
    train, held_out = split(1514)
    whole, validation = load_sentiment()
    assert len(held_out.texts) == 1514
    assert 0 <= len(whole.texts) - len(train.texts) - 1514 < 10  # twins of held-out sentences are left out
    assert {*train.texts, *held_out.texts} <= {*whole.texts}
    kept = {normalise(text) for text in held_out.texts}
    assert not kept & {normalise(text) for text in (*train.texts, *validation.texts)}


@pytest.mark.data
def test_recipes_are_compared_and_runs_are_kept(few, monkeypatch, tmp_path):
    config = RecipeConfig(held_out=32, finetune=TINY, variants={"slow": {"lr": 1e-5}}, seeds=(3, 4))
    monkeypatch.setattr(recipe, "load_minilm_tokenizer", lambda folder: load_minilm_tokenizer())
    monkeypatch.setattr(recipe, "load_minilm_roberta", lambda labels, seed, folder: load_minilm_roberta(labels, seed))
    found = measure(config, tmp_path)
    monkeypatch.setattr(recipe, "finetune", None)
    again = measure(config, tmp_path)
    assert again["runs"] == found["runs"]
    assert [(run["recipe"], run["seed"]) for run in found["runs"]] == [
        ("first", 3), ("first", 4), ("slow", 3), ("slow", 4),
    ]  # fmt: skip
    first, slow = recipe_rows(json.loads(json.dumps(found)))
    assert slow["first gains (points)"] == pytest.approx(first["accuracy (%)"] - slow["accuracy (%)"])
    assert (first["settings"], slow["settings"]) == (
        "epochs 1, batch_size 32, lr 0.001, weight_decay 0.01, average_from 1.0",
        "lr 1e-05",
    )


def test_without_committed_data_the_command_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(recipe, "COMMITTED", tmp_path / "none.json")
    assert main(["recipe"]) == 2
    assert "no committed data of this command yet: give `--measure`" in capsys.readouterr().err


@pytest.mark.data
def test_bad_settings_are_refused_before_any_training(few, tmp_path):
    with pytest.raises(ConfigError, match=r"`finetune.seed` must be left out \(set `seeds`\)"):
        RecipeConfig.build({"finetune": {"seed": 1}})
    with pytest.raises(ConfigError, match="learning"):
        measure(RecipeConfig(held_out=32, finetune=TINY, variants={"new": {"learning": 1}}), tmp_path)
    with pytest.raises(ValueError, match="`held_out` must leave sentences to train on, but was 95 of 96"):
        measure(RecipeConfig(held_out=95, finetune=TINY), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_study_has_the_first_recipe_and_no_other_is_better():
    measured = json.loads(COMMITTED.read_text(encoding="utf-8"))
    config = load_config(RecipeConfig, config_file("recipe"))
    assert measured["provenance"]["config"] == json.loads(config.to_json())
    study = json.loads((COMMITTED.parent / "study-minilm-rt.json").read_text(encoding="utf-8"))
    assert study["provenance"]["config"]["run"]["finetune"] == json.loads(config.finetune.to_json())
    for row in recipe_rows(measured)[1:]:
        assert float(row["gain, 95 %"].split(" to ")[1]) > 0, row
