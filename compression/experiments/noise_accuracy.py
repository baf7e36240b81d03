"""Whether Quant-Noise raises the accuracy after product quantization: an encoder trained on with noise, or without.

The same models are quantized by PG k-means and by the released rule, each with and without weights from activations.
"""

import copy
import json
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from compression.experiments.code_hash import PACKAGES, code_hash
from compression.experiments.minilm_sizes import check_sizes
from compression.experiments.study_tables import packed, unpacked
from compression.quantization.blocks import PQConfig
from compression.quantization.calibration import activation_weights
from compression.quantization.quant_noise import NoiseConfig, add_quant_noise
from compression.quantization.rules import STAGES, Rule, match_rules, preset_rules
from compression.quantization.storage import file_bytes, round_
from compression.training.batches import EncodedData, calibration_batches
from compression.training.data import load_sentiment
from compression.training.distillation import DistillationConfig, teach
from compression.training.evaluate import evaluate, paired_bootstrap
from compression.training.finetune import (
    FinetuneConfig,
    FinetunedModel,
    finetune,
    finetuned_minilm,
    load_classifier,
    save_classifier,
)
from compression.training.ipq import IPQConfig, ipq
from shared.artifacts import Cache, provenance, sha256_file, versions, write_json
from shared.config import FrozenConfig, check_left_out

COMMITTED = Path(__file__).parent / "data" / "noise_accuracy.json"
"""Result over several seeds, made by ``pg-ipq noise --measure --json``."""

STATES = ("fp32", "quantized", "distilled")

_NOISES = (
    NoiseConfig(kind="pq", p=0.0),
    NoiseConfig(kind="pq", p=0.1, refresh_every=40),
    NoiseConfig(kind="pq", p=0.3, refresh_every=40),
    NoiseConfig(kind="proxy", p=0.1),
    NoiseConfig(kind="proxy", p=0.3),
    NoiseConfig(kind="int8", p=0.1),
)


class Clustering(FrozenConfig):
    """How the weights are clustered.

    Attributes
    ----------
    name
        What rows call it. Others are compared with the one that is named ``"released"``.
    pq
        Settings; the numbers of codewords and features in a block are those of the experiment.
    weighting
        ``"activation"``: errors are weighted by the activations of calibration sentences.
    """

    name: str
    pq: PQConfig = PQConfig()
    weighting: Literal["activation"] | None = None


_RELEASED = PQConfig().as_baseline()
_CLUSTERINGS = (
    Clustering(name="PG"),
    Clustering(name="released", pq=_RELEASED),
    Clustering(name="PG", weighting="activation"),
    Clustering(name="released", pq=_RELEASED, weighting="activation"),
)


class NoiseAccuracyConfig(FrozenConfig):
    """What to train, with which noise, and how to compress it.

    Attributes
    ----------
    base
        Fine-tuning of the fp32 model that all runs start from.
    further
        The training with noise; its seed is replaced by the run's.
    n_train
        Training sentences of it, a sample that depends on the seed.
    noises
        One kind of run each, the first without noise: what the others are compared with.
    clusterings
        With each of them the models are quantized.
    n_compared
        With all but the first of them only the models of so many noises, the first ones.
    n_calibration
        Training sentences that weights are measured with.
    block_sizes, n_centroids
        File sizes: the same in every layer. The noise has the blocks of the file.
    ipq
        Quantization and distillation from the uncompressed model of the same run.
    n_distil
        Training sentences of the distillation.
    seeds
        Of everything: order of the sentences, dropout, noise, clustering.
    max_train, max_validation
        Use only so many sentences (for quick runs); all if ``None``.
    """

    base: FinetuneConfig = FinetuneConfig()
    further: FinetuneConfig = FinetuneConfig(lr=5e-5)
    n_train: int = Field(2560, ge=8)
    noises: tuple[NoiseConfig, ...] = Field(_NOISES, min_length=2)
    clusterings: tuple[Clustering, ...] = Field(_CLUSTERINGS, min_length=1)
    n_compared: int = Field(2, ge=1)
    n_calibration: int = Field(1024, ge=1)
    block_sizes: tuple[int, ...] = (4, 8)
    n_centroids: int = Field(256, ge=2)
    ipq: IPQConfig = IPQConfig(
        stages=("+".join(STAGES),),
        steps_per_stage=40,
        distillation=DistillationConfig(hidden_weight=1.0, hidden_layers=(1, 2, 3, 4, 5, 6)),
    )
    n_distil: int = Field(1280, ge=8)
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    max_train: int | None = Field(None, ge=8)
    max_validation: int | None = Field(None, ge=8)

    @model_validator(mode="after")
    def _seeds_are_given_once(self) -> "NoiseAccuracyConfig":
        check_left_out(self, {"further.seed": "seeds", "ipq.seed": "seeds"})
        return self

    @model_validator(mode="after")
    def _clusterings_differ(self) -> "NoiseAccuracyConfig":
        names = [(clustering.name, clustering.weighting) for clustering in self.clusterings]
        if len(set(names)) < len(names):
            raise ValueError(f"Key `clusterings` must have each name and weighting once, but has {names}.")
        return self


class NoiseExperiment:
    """The runs of a configuration, each made once and cached.

    Parameters
    ----------
    config
        Settings.
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.
    """

    def __init__(self, config: NoiseAccuracyConfig, folder: str | Path | None = None) -> None:
        if config.noises[0].p != 0:
            raise ValueError(f"Key `noises` must begin with one of `p` 0, but begins with {config.noises[0].p}.")
        check_sizes(config.block_sizes, config.n_centroids, ipq=config.ipq)
        self.config = config
        self.folder = folder

    @cached_property
    def dense(self) -> FinetunedModel:
        """The fp32 model that the runs start from, with its data."""
        train, validation = load_sentiment(self.folder)
        data = train.sample(self.config.max_train), validation.sample(self.config.max_validation)
        return finetuned_minilm(self.config.base, data=data, folder=self.folder)

    def run(self, noise: NoiseConfig, block_size: int, seed: int, clustering: Clustering) -> dict[str, Any]:
        """Train on with noise, quantize and distil.

        Returns
        -------
        dict
            ``fp32``, ``quantized``, ``distilled``: for each validation sentence whether the prediction is right, as
            hexadecimal digits of packed bits; ``of_fp32``: size of the fp32 weights over that of the compressed file;
            ``relative_error``: mean squared error of the weights over their squared norms; ``seconds``.
        """
        trained = self._trained(noise, None if noise.p == 0 or noise.kind == "int8" else block_size, seed)
        config = self.config
        settings = config.ipq.model_copy(update={"seed": seed})
        key = {
            "weights": sha256_file(trained / "model.safetensors"),
            "block_size": block_size,
            "n_centroids": config.n_centroids,
            "ipq": json.loads(settings.to_json()),
            "n_distil": config.n_distil,
            "data": [self.dense.train.sha256, self.dense.validation.sha256],
            "code": code_hash(),
            "versions": versions(PACKAGES),
        }
        if clustering.pq != PQConfig():
            key["pq"] = json.loads(clustering.pq.to_json())
        if clustering.weighting is not None:
            key["weighting"] = [clustering.weighting, config.n_calibration]

        def make(target: Path) -> None:
            dense = load_classifier(trained)
            n_centroids = config.n_centroids
            rules = preset_rules("roberta", block_size=block_size, n_centroids=n_centroids, base=clustering.pq)
            weights = self._weights(dense, rules) if clustering.weighting else None
            data = self.dense.train.sample(min(config.n_distil, len(self.dense.train)), seed)
            teacher = teach(dense, data, hidden_layers=settings.distillation.needed_layers)
            found: dict[str, Any] = {"fp32": self._correct(dense, "fp32")}
            errors, seconds = 0.0, 0.0
            for name, steps in (("quantized", 0), ("distilled", settings.steps_per_stage)):
                model = copy.deepcopy(dense)
                changed = settings.model_copy(update={"steps_per_stage": steps})
                report = ipq(
                    model,
                    rules,
                    train_data=data,
                    teacher=teacher,
                    config=changed,
                    sample_weights=weights,
                    description=name,
                )
                round_(model)
                found[name] = self._correct(model, name)
                errors = float(np.mean([layer.relative_error for layer in report.layers]))
                seconds += report.seconds
            size = (trained / "model.safetensors").stat().st_size / file_bytes(model)
            write_json(target / "run.json", found | {"of_fp32": size, "relative_error": errors, "seconds": seconds})

        target = Cache(self.folder, name="noise_runs").get_or_make(key, make)
        return json.loads((target / "run.json").read_text(encoding="utf-8"))

    def _trained(self, noise: NoiseConfig, block_size: int | None, seed: int) -> Path:
        """Folder of the model after the further training; without noise it does not depend on the block size."""
        config = self.config
        settings = config.further.model_copy(update={"seed": seed})
        noise = noise.model_copy(update={"seed": seed})
        cache = Cache(self.folder, name="noise_trained")
        key = {
            "weights": sha256_file(self.dense.folder / "model.safetensors"),
            "noise": None if noise.p == 0 else json.loads(noise.to_json()),
            "block_size": block_size,
            "n_centroids": config.n_centroids,
            "further": json.loads(settings.to_json()),
            "data": [self.dense.train.sha256, config.n_train],
            "code": code_hash(),
            "versions": versions(PACKAGES),
        }

        def make(target: Path) -> None:
            model = load_classifier(self.dense.folder)
            data: EncodedData = self.dense.train.sample(min(config.n_train, len(self.dense.train)), seed)
            base = PQConfig(max_iter=8)  # of the codebooks of the noise
            rules = preset_rules("roberta", block_size=block_size or 8, n_centroids=config.n_centroids, base=base)
            label = f"{noise.kind} noise, p = {noise.p}, seed {seed}"
            checkpoint = cache.work_folder(key) / "state.safetensors"
            with add_quant_noise(model, rules, noise) as active:
                finetune(model, data, settings, noise=active, checkpoint=checkpoint, description=label)
            save_classifier(model, target)

        return cache.get_or_make(key, make)

    def _weights(self, dense: nn.Module, rules: Sequence[Rule]) -> dict[str, torch.Tensor]:
        batches = calibration_batches(self.dense.train, self.config.n_calibration, batch_size=64)
        return activation_weights(dense, batches, [name for name, _ in match_rules(dense, rules)])

    def _correct(self, model: nn.Module, name: str) -> str:
        evaluation = evaluate(model, self.dense.validation, description=f"Evaluating {name}")
        return packed(evaluation.correct)


def measure(config: NoiseAccuracyConfig, folder: str | Path | None = None) -> dict[str, Any]:
    """Make all runs and return ``runs``, ``sentences`` (how many there are) and ``provenance``, JSON-able.

    ``folder`` as for `NoiseExperiment`.
    """
    start = time.monotonic()
    experiment = NoiseExperiment(config, folder)
    runs = []
    for number, clustering in enumerate(config.clusterings):
        for noise in config.noises[: config.n_compared] if number else config.noises:
            for seed in config.seeds:
                for block_size in config.block_sizes:
                    about = {
                        "k-means": clustering.name,
                        "weights": clustering.weighting,
                        "kind": noise.kind if noise.p else "none",
                        "p": noise.p,
                        "block_size": block_size,
                        "seed": seed,
                    }
                    runs.append(about | experiment.run(noise, block_size, seed, clustering))
    found = {"runs": runs, "sentences": len(experiment.dense.validation)}
    return found | {"provenance": provenance(config, time.monotonic() - start)}


def noise_rows(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each clustering, noise, block size and state of the model.

    All else equal, ``gain`` is in points against the runs without noise (those with `p` 0), ``over released`` against
    the released rule and ``over no weights`` against the runs without weights, with 95 % intervals of paired bootstraps
    over seeds and sentences.
    """
    n_sentences = measured["sentences"]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in measured["runs"]:
        names = ("k-means", "weights", "kind", "p", "block_size")
        groups.setdefault(tuple(run[name] for name in names), []).append(run)
    first = next(iter(groups))[:2]
    rows = []
    for (kmeans, weights, kind, p, block_size), group in groups.items():
        references = {
            "gain": None if p == 0 else (kmeans, weights, "none", 0.0, block_size),
            "over released": ("released", weights, kind, p, block_size) if kmeans != "released" else None,
            "over no weights": (kmeans, None, kind, p, block_size) if weights else None,
        }
        for state in STATES:
            is_dense = state == "fp32"
            if is_dense and (kmeans, weights) != first:
                continue  # it is the same model
            right = unpacked([run[state] for run in group], n_sentences)
            accuracy = paired_bootstrap(right, np.zeros_like(right))
            row = {
                "block size": block_size,
                "of fp32": (ratio := 1.0 if is_dense else group[0]["of_fp32"]),
                "of fp16": ratio / 2,
                "state": state,
                "k-means": None if is_dense else kmeans,
                "weights": None if is_dense else weights,
                "noise": kind,
                "p": p,
                "seeds": len(group),
                "accuracy (%)": 100 * accuracy.difference,
                "95 % interval": f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}",
            }
            for name, reference in references.items():
                other = groups.get(reference) if reference and not (is_dense and name != "gain") else None
                row[name] = other and _difference(right, unpacked([run[state] for run in other], n_sentences))
            rows.append(row | {"weight error": float(np.mean([run["relative_error"] for run in group]))})
    return sorted(rows, key=lambda row: (row["block size"], STATES.index(row["state"])))


def _difference(right: np.ndarray, other: np.ndarray) -> str:
    """The points gained over other runs, with their 95 % interval."""
    gain = paired_bootstrap(right, other)
    return f"{100 * gain.difference:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
