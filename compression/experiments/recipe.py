"""The fp32 recipe of ``minilm-rt``: fine-tuning settings compared on training sentences that are held out."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from compression.experiments.study_tables import DATA, packed, unpacked
from compression.training.batches import EncodedData, encode
from compression.training.data import TextData, load_sentiment, without
from compression.training.evaluate import evaluate, paired_bootstrap
from compression.training.finetune import FinetuneConfig, finetune
from compression.training.models import load_minilm_roberta, load_minilm_tokenizer
from shared.artifacts import Cache, provenance, versions
from shared.config import FrozenConfig, changed, check_left_out

COMMITTED = DATA / "recipe.json"
"""Written by ``pg-ipq recipe --measure --json``."""


class RecipeConfig(FrozenConfig):
    """What to compare.

    Attributes
    ----------
    held_out
        Training sentences that no recipe is trained on and all are measured on, a sample.
    finetune
        The first recipe, with which the others are compared.
    variants
        What the others change of it, by name.
    seeds
        Of the fine-tuning.
    """

    held_out: int = Field(1514, ge=2)
    finetune: FinetuneConfig
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field((0, 1), min_length=1)

    @model_validator(mode="after")
    def _seeds_are_given_once(self) -> "RecipeConfig":
        check_left_out(self, {"finetune.seed": "seeds"})
        return self


def split(n_held_out: int, folder: str | Path | None = None) -> tuple[TextData, TextData]:
    """Return the training sentences of ``minilm-rt`` in two parts, those trained on and those held out, with no
    sentence in both.

    Raises
    ------
    ValueError
        If fewer than two sentences are left to train on.
    """
    text, _ = load_sentiment(folder)
    if n_held_out > len(text.texts) - 2:
        raise ValueError(f"Key `held_out` must leave sentences to train on, but was {n_held_out} of {len(text.texts)}.")
    order = torch.randperm(len(text.texts), generator=torch.Generator().manual_seed(0)).tolist()
    held_out = text.subset(order[:n_held_out])
    return without(text.subset(order[n_held_out:]), held_out), held_out


def measure(config: RecipeConfig, folder: str | Path | None = None) -> dict[str, Any]:
    """Fine-tune with every recipe and seed, and say which held-out sentences come out right.

    Returns
    -------
    dict
        ``runs`` (recipe, seed, ``right`` as `packed` bits, seconds), ``sentences`` and ``provenance``, JSON-able. Every
        finished run is kept in the cache, an unfinished one continues from its checkpoint.
    """
    recipes = {"first": config.finetune}
    recipes |= {name: changed(config.finetune, change) for name, change in config.variants.items()}
    texts, tokenizer = split(config.held_out, folder), load_minilm_tokenizer(folder)
    cache = Cache(folder, name="recipes")
    runs: list[dict[str, Any]] = []
    for name, recipe in recipes.items():
        train, held_out = (encode(part, tokenizer, recipe.max_length) for part in texts)
        for seed in config.seeds:
            run = _run(changed(recipe, {"seed": seed}), train, held_out, cache, folder, f"{name}, seed {seed}")
            runs.append({"recipe": name, "seed": seed} | run)
    seconds = sum(run["seconds"] for run in runs)
    return {"runs": runs, "sentences": config.held_out, "provenance": provenance(config, seconds)}


def _run(
    recipe: FinetuneConfig, train: EncodedData, held_out: EncodedData, cache: Cache, folder: Any, label: str
) -> dict[str, Any]:
    key = {
        "recipe": json.loads(recipe.to_json()),
        "data": [train.sha256, held_out.sha256],
        "versions": versions(("torch", "transformers")),
    }

    def make() -> dict[str, Any]:
        start = time.monotonic()
        model = load_minilm_roberta(2, recipe.seed, folder)
        checkpoint = cache.work_folder(key) / "state.safetensors"
        finetune(model, train, recipe, checkpoint=checkpoint, description=f"Fine-tuning ({label})")
        found = evaluate(model, held_out, description=f"Evaluating ({label})")
        return {"right": packed(found.correct), "seconds": round(time.monotonic() - start, 1)}

    return cache.record("run.json", key, make)


def recipe_rows(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each recipe: accuracy on the held-out sentences, and points gained over it by the first.

    Intervals are of a paired bootstrap over seeds and sentences.
    """
    groups: dict[str, list[str]] = {}
    for run in measured["runs"]:
        groups.setdefault(run["recipe"], []).append(run["right"])
    right = {name: unpacked(digits, measured["sentences"]) for name, digits in groups.items()}
    config = measured["provenance"]["config"]
    rows = []
    for name, found in right.items():
        score, gain = paired_bootstrap(found, np.zeros_like(found)), paired_bootstrap(right["first"], found)
        change = config["finetune"] if name == "first" else config["variants"][name]
        rows.append(
            {
                "recipe": name,
                "settings": ", ".join(f"{key} {value}" for key, value in change.items() if key in _SHOWN),
                "seeds": len(found),
                "accuracy (%)": 100 * score.difference,
                "95 % interval": f"{100 * score.low:.1f} to {100 * score.high:.1f}",
                "first gains (points)": None if name == "first" else 100 * gain.difference,
                "gain, 95 %": None if name == "first" else f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}",
            }
        )
    return rows


_SHOWN = ("epochs", "batch_size", "lr", "weight_decay", "average_from")
