"""Accuracy of a fine-tuned encoder against the size of its file: fp32, iPQ with the released k-means, iPQ with PG."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from compression.experiments.code_hash import PACKAGES, code_hash
from compression.experiments.empty_clusters import METHODS, totals
from compression.experiments.minilm_sizes import check_sizes
from compression.quantization.blocks import PQConfig
from compression.quantization.budget import compress
from compression.quantization.calibration import activation_weights
from compression.quantization.hf import architecture
from compression.quantization.rules import STAGES, Rule, preset_rules
from compression.quantization.storage import dense_bytes, load_compressed_, round_, save_compressed
from compression.training.batches import EncodedData, calibration_batches
from compression.training.data import load_sentiment
from compression.training.distillation import TeacherOutputs, teach
from compression.training.evaluate import Evaluation, evaluate, paired_bootstrap
from compression.training.finetune import FinetuneConfig, FinetunedModel, finetuned_minilm, load_classifier
from compression.training.ipq import IPQConfig, IPQReport, ipq
from shared.artifacts import Cache, provenance, sha256_file, versions, write_json
from shared.config import FrozenConfig, check_left_out
from shared.results import ResultsWriter

COMMITTED = Path(__file__).parent / "data" / "accuracy_seeds.json"
"""Result over several seeds, made by ``pg-ipq accuracy``."""


class AccuracyConfig(FrozenConfig):
    """What to train, compress and evaluate.

    Attributes
    ----------
    finetune
        Fine-tuning of the fp32 model.
    ipq
        Stages and distillation of the compressed models.
    block_sizes
        One file size for each block size d; every layer has the same.
    n_centroids
        Codewords of each layer.
    budgets
        More file sizes, such as ``"15x"`` or ``"6MB"``: block size and codewords of each layer as
        `compression.compress` chooses them, with clusterings weighted by activations.
    n_calibration
        Training sentences on which it measures.
    seeds
        One compression of each kind for each: seeds of the clustering and of the order of the sentences.
    n_distil
        Training sentences used for the distillation.
    max_train, max_validation
        Use only so many sentences (for quick runs); all if ``None``.
    """

    finetune: FinetuneConfig = FinetuneConfig()
    ipq: IPQConfig = IPQConfig(stages=("+".join(STAGES),), steps_per_stage=100)
    block_sizes: tuple[int, ...] = (4, 8)
    n_centroids: int = Field(256, ge=2)
    budgets: tuple[str, ...] = ()
    n_calibration: int = Field(256, ge=8)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    n_distil: int = Field(3200, ge=8)
    max_train: int | None = Field(None, ge=8)
    max_validation: int | None = Field(None, ge=8)

    @model_validator(mode="after")
    def _seeds_are_given_once(self) -> "AccuracyConfig":
        check_left_out(self, {"ipq.seed": "seeds"})
        return self


@dataclass(frozen=True)
class CompressedRun:
    """One compressed model.

    Attributes
    ----------
    method
        Of `compression.experiments.empty_clusters.METHODS`.
    size
        Block size d, or the budget.
    seed
        Of `AccuracyConfig.seeds`.
    path
        The compressed file.
    file_bytes
        Its size.
    evaluation
        Of the model read back from the file.
    work
        Work on empty clusters over all layers.
    relative_errors
        (layers,) squared error of each layer's weight over its squared norm, after the clustering.
    seconds
        Quantization and distillation.
    """

    method: str
    size: int | str
    seed: int
    path: Path
    file_bytes: int
    evaluation: Evaluation
    work: dict[str, int]
    relative_errors: np.ndarray
    seconds: float

    @property
    def block_size(self) -> int | str:
        """Block size d, or that it was chosen for a budget."""
        return self.size if isinstance(self.size, int) else f"chosen for {self.size}"


class Experiment:
    """The fp32 model, its teacher outputs and the compressed runs, each made once and cached.

    Parameters
    ----------
    config
        Settings.
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Raises
    ------
    ValueError
        If the sizes do not fit the model; nothing has been trained then.
    """

    def __init__(self, config: AccuracyConfig, folder: str | Path | None = None) -> None:
        check_sizes(config.block_sizes, config.n_centroids, budgets=config.budgets, ipq=config.ipq)
        self.config = config
        self.folder = folder

    @cached_property
    def dense(self) -> FinetunedModel:
        """The fine-tuned fp32 model with its data."""
        train, validation = load_sentiment(self.folder)
        data = train.sample(self.config.max_train), validation.sample(self.config.max_validation)
        return finetuned_minilm(self.config.finetune, data=data, folder=self.folder)

    @cached_property
    def dense_evaluation(self) -> Evaluation:
        """Predictions of the fp32 model."""
        return self.dense.evaluate()

    @cached_property
    def distilled(self) -> EncodedData:
        """Training sentences of the distillation, a sample."""
        train = self.dense.train
        return train.sample(min(self.config.n_distil, len(train)))

    @cached_property
    def teacher(self) -> TeacherOutputs:
        """Outputs of the fp32 model on the sentences of the distillation."""
        return teach(self.dense.model, self.distilled, hidden_layers=self.config.ipq.distillation.needed_layers)

    @cached_property
    def dense_file_bytes(self) -> int:
        """Size of the fp32 file."""
        return (self.dense.folder / "model.safetensors").stat().st_size

    @cached_property
    def calibration(self) -> list[dict[str, torch.Tensor]]:
        """Batches on which layers are measured: other sentences than validation ones, without labels."""
        return calibration_batches(self.dense.train, self.config.n_calibration)

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """Weights of the clusterings of the budgets."""
        return activation_weights(self.dense.model, self.calibration)

    def plan(self, budget: str) -> dict[str, Any]:
        """Return the choice for a budget: ``rules``, ``layers``, ``curve``, ``predicted`` and ``measured`` loss."""
        cache = Cache(self.folder, name="plans")
        key = {
            "budget": budget,
            "weights": sha256_file(self.dense.folder / "model.safetensors"),
            "data": [self.dense.train.sha256, self.config.n_calibration],
            "code": code_hash(),
            "versions": versions(PACKAGES),
        }

        def make() -> dict[str, Any]:
            extra = {"architecture": self.dense.model.config.to_dict()}
            base = PQConfig(tol=0.0)
            result = compress(self.dense.model, budget, calibration=self.calibration, base=base, extra=extra)
            return {
                "rules": [json.loads(rule.to_json()) for rule in result.rules],
                "layers": result.table(),
                "curve": result.curve,
                "predicted": result.predicted_loss,
                "measured": result.measured_loss,
            }

        return cache.record("plan.json", key, make)

    def rules(self, method: str, size: int | str) -> tuple[Rule, ...]:
        """Rules for every layer of the encoder and the head, the last projection aside where `size` is a block size."""
        base = PQConfig(tol=0.0)
        base = base.as_baseline() if method == "released" else base
        if isinstance(size, int):
            return preset_rules("roberta", block_size=size, n_centroids=self.config.n_centroids, base=base)
        rules = tuple(Rule.build(rule) for rule in self.plan(size)["rules"])
        if method == "released":
            rules = tuple(rule.model_copy(update={"config": rule.config.as_baseline()}) for rule in rules)
        return rules

    def compressed(self, method: str, size: int | str, seed: int) -> CompressedRun:
        """Compress the model, write the file, read it back and evaluate it.

        Parameters
        ----------
        method
            ``"released"`` or ``"PG"``: the k-means of every layer. All else is the same.
        size
            Block size d of every layer, or a budget.
        seed
            Seed of the clustering and of the order of the sentences.
        """
        dense = self.dense
        settings = self.config.ipq.model_copy(update={"seed": seed})
        rules = self.rules(method, size)
        if isinstance(size, str):  # layers are not sorted into stages
            settings = settings.model_copy(update={"stages": ("all",)})
        weights = None if isinstance(size, int) else self.weights
        cache = Cache(self.folder, name="compressed")
        key = {
            "rules": [json.loads(rule.to_json()) for rule in rules],
            "ipq": json.loads(settings.to_json()),
            "weights": sha256_file(dense.folder / "model.safetensors"),
            "data": [self.distilled.sha256, dense.validation.sha256],
            "calibration": None if weights is None else [dense.train.sha256, self.config.n_calibration],
            "code": code_hash(),
            "versions": versions(PACKAGES),
        }

        def make(target: Path) -> None:
            label = f"{method} k-means, {f'd={size}' if isinstance(size, int) else size}, seed {seed}"
            model = load_classifier(dense.folder)
            report = ipq(
                model,
                rules,
                train_data=self.distilled,
                teacher=self.teacher,
                config=settings,
                sample_weights=weights,
                checkpoints=cache.work_folder(key),
                description=label,
            )
            round_(model)
            extra = {"architecture": architecture(dense.model.config)}
            save_compressed(model, target / "model.safetensors", extra=extra)
            self._finish(target, report, label)

        target = cache.get_or_make(key, make)
        record = json.loads((target / "report.json").read_text(encoding="utf-8"))
        labels = dense.validation.labels.numpy()
        return CompressedRun(
            method=method,
            size=size,
            seed=seed,
            path=target / "model.safetensors",
            file_bytes=(target / "model.safetensors").stat().st_size,
            evaluation=Evaluation(np.array(record["predictions"]), labels),
            work=record["work"],
            relative_errors=np.array(record["relative_errors"]),
            seconds=record["provenance"]["seconds"],
        )

    def _finish(self, target: Path, report: IPQReport, label: str) -> None:
        """Evaluate what the file holds and write the record."""
        model = load_compressed_(load_classifier(self.dense.folder), target / "model.safetensors")
        if dense_bytes(model) != dense_bytes(self.dense.model):
            raise RuntimeError("The compressed file does not hold as many weights as the dense model.")
        evaluation = evaluate(model, self.dense.validation, description=f"Evaluating {label}")
        layers = [totals(layer.history) for layer in report.layers]
        record = {
            "predictions": evaluation.predictions.tolist(),
            "work": {name: sum(layer[name] for layer in layers) for name in layers[0]},
            "relative_errors": [layer.relative_error for layer in report.layers],
            "layers": report.to_dict(),
            "provenance": provenance(self.config, report.seconds),
        }
        write_json(target / "report.json", record)


def run(experiment: Experiment) -> list[CompressedRun]:
    """Return the compressed runs of every size and seed, each with both methods, in the order of `METHODS`."""
    config = experiment.config
    sizes: tuple[int | str, ...] = (*config.block_sizes, *config.budgets)
    kinds = [(size, seed, method) for size in sizes for seed in config.seeds for method in METHODS]
    return [experiment.compressed(method, size, seed) for size, seed, method in kinds]


def by_kind(runs: Sequence[CompressedRun]) -> dict[tuple[int | str, str], list[CompressedRun]]:
    """Return the runs of each block size (or choice for a budget) and method, in the order of the seeds."""
    groups: dict[tuple[int | str, str], list[CompressedRun]] = {}
    for item in runs:
        groups.setdefault((item.block_size, item.method), []).append(item)
    return groups


def correct(runs: Sequence[CompressedRun]) -> np.ndarray:
    """Return whether each prediction is right, (seeds, sentences)."""
    return np.stack([item.evaluation.correct for item in runs])


def accuracy_rows(experiment: Experiment, runs: Sequence[CompressedRun]) -> list[dict[str, Any]]:
    """Return the accuracy table: a row for the fp32 model and one for each kind of compressed file.

    Accuracies are means over seeds. ``lost`` is in points against the fp32 model. Intervals are 95 % bootstrap
    intervals over sentences, and over seeds if there are several.
    """
    reference = experiment.dense_evaluation.correct[None]
    dense = experiment.dense_file_bytes
    rows = [_row("fp32", None, dense, dense, reference, None)]
    for (block_size, method), group in by_kind(runs).items():
        size = max(item.file_bytes for item in group)
        rows.append(_row(f"iPQ, {method} k-means", block_size, size, dense, correct(group), reference))
    return rows


def _row(
    model: str, block_size: int | str | None, size: int, dense: int, right: np.ndarray, reference: np.ndarray | None
) -> dict[str, Any]:
    accuracy = paired_bootstrap(right, np.zeros_like(right))
    lost = None if reference is None else paired_bootstrap(np.repeat(reference, len(right), axis=0), right)
    return {
        "model": model,
        "block size": block_size,
        "file (MB)": size / 1e6,
        "of fp32": dense / size,
        "of fp16": dense / 2 / size,
        "seeds": len(right),
        "accuracy (%)": 100 * accuracy.difference,
        "95 % interval": f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}",
        "lost (points)": None if lost is None else 100 * lost.difference,
        "lost, 95 %": None if lost is None else f"{100 * lost.low:.1f} to {100 * lost.high:.1f}",
    }


def gains(runs: Sequence[CompressedRun]) -> list[dict[str, Any]]:
    """Return PG against the released k-means: a row for each size, from runs paired by seed.

    ``gain`` is the accuracy of PG minus that of the released rule in points, with its 95 % bootstrap interval over
    sentences (and seeds); ``error ratio`` is `error_ratio`.
    """
    groups = by_kind(runs)
    rows = []
    for block_size in dict.fromkeys(item.block_size for item in runs):
        released, ours = (groups[block_size, method] for method in METHODS)
        gain = paired_bootstrap(correct(ours), correct(released))
        rows.append(
            {
                "block size": block_size,
                "seeds": len(ours),
                "gain (points)": 100 * gain.difference,
                "gain, 95 %": f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}",
                "error ratio": float(np.exp(np.mean(np.log(list(map(error_ratio, released, ours)))))),
            }
        )
    return rows


def run_rows(runs: Sequence[CompressedRun]) -> list[dict[str, Any]]:
    """Return a row for each run: work on empty clusters, error of the weights, accuracy and seconds."""
    return [
        {
            "k-means": item.method,
            "block size": item.block_size,
            "seed": item.seed,
            **item.work,
            "mean relative error of the weights": float(item.relative_errors.mean()),
            "accuracy (%)": 100 * item.evaluation.accuracy,
            "seconds": item.seconds,
        }
        for item in runs
    ]


def record(experiment: Experiment) -> dict[str, Any]:
    """Run the experiment and return its tables with provenance, for a file that can be committed."""
    runs = run(experiment)
    return {
        "accuracy": accuracy_rows(experiment, runs),
        "gain": gains(runs),
        "runs": run_rows(runs),
        "provenance": provenance(experiment.config, sum(item.seconds for item in runs)),
    }


def write_committed(writer: ResultsWriter) -> None:
    """Write the section on the committed result over several seeds."""
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    source = committed["provenance"]
    n_seeds = committed["gain"][0]["seeds"]
    writer.section(
        f"Accuracy over {n_seeds} seeds",
        f"Committed result, not computed in this run: `{source['command']}` ({source['time_utc'][:10]}, "
        f"{source['seconds'] / 60:.0f} minutes). The seeds are those of the clustering and of the order of the "
        "sentences; the fp32 model is the same for all. Intervals are over seeds and sentences.",
    )
    writer.table(committed["accuracy"], "accuracy_seeds", "Accuracy and size, means over seeds (committed).")
    writer.table(committed["gain"], "accuracy_gain_seeds", "PG against the released k-means (committed).")
    columns = ("k-means", "block size", "seed", "mean relative error of the weights", "accuracy (%)", "seconds")
    single = [{name: row[name] for name in columns} for row in committed["runs"]]
    writer.table(single, "accuracy_runs_seeds", "The single runs (committed).")


def write_accuracy(writer: ResultsWriter, experiment: Experiment) -> list[dict[str, Any]]:
    """Run the experiment and write its sections; return the rows of the accuracy table."""
    runs = run(experiment)
    rows, differences = accuracy_rows(experiment, runs), gains(runs)
    validation: EncodedData = experiment.dense.validation
    majority = 100 * float(np.bincount(validation.labels.numpy()).max() / len(validation))
    n_seeds = len(experiment.config.seeds)
    scope = (
        f"Means over {n_seeds} seeds of the compression; the fp32 model is the same for all. Intervals are over "
        "sentences and seeds."
        if n_seeds > 1
        else "One seed: the intervals are over sentences only, so a difference between the two rules also holds the "
        "scatter between seeds."
    )
    writer.section(
        "Accuracy against file size",
        "MiniLM weights in the RoBERTa architecture (6 layers, 384 wide), fine-tuned on Rotten Tomatoes sentences and "
        f"validated on {len(validation):,} disjoint snippets (majority class {majority:.1f} %). Every linear layer and "
        "every embedding is quantized (with sizes chosen for a budget, all but the smallest), with centroids "
        "fine-tuned by distillation; the rest is stored in fp16. Sizes "
        f"are those of the files, and each accuracy is that of the model read back from its file.\n\n{scope}",
    )
    writer.figure(
        lambda: draw_accuracy(rows),
        "accuracy_against_size",
        "Accuracy against the size of the file, with 95 % bootstrap intervals.",
    )
    writer.table(rows, "accuracy_against_size", "Accuracy and size. Lost: against fp32, on the same sentences.")
    caption = "PG against the released k-means: gain in accuracy, and squared error of the weights (geometric mean)."
    writer.table(differences, "accuracy_gain", caption)
    write_committed(writer)
    work = run_rows(runs)
    found = {method: sum(item.work["empty at first"] for item in runs if item.method == method) for method in METHODS}
    left = {method: sum(item.work["left empty"] for item in runs if item.method == method) for method in METHODS}
    writer.section(
        "Empty clusters on healthy weights",
        f"The same runs, over all layers of the fine-tuned model: the released k-means met {found['released']} empty "
        f"clusters at the first assignment and left {left['released']}; PG k-means met {found['PG']} and left "
        f"{left['PG']}. Healthy weights hardly make empty clusters: what PG removes there is small.",
    )
    writer.table(work, "empty_clusters_healthy", "Work on empty clusters, summed over all layers of the model.")
    return rows


def error_ratio(released: CompressedRun, ours: CompressedRun) -> float:
    """Return PG's squared error over the released rule's: geometric mean over the layers that have any."""
    some = (released.relative_errors > 0) & (ours.relative_errors > 0)
    return float(np.exp(np.mean(np.log(ours.relative_errors[some] / released.relative_errors[some]))))


def draw_accuracy(rows: Sequence[dict[str, Any]]) -> Any:
    """Draw accuracy with its interval against file size on a logarithmic axis."""
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure("column", aspect=0.75)
    looks = (("fp32", COLOURS[3], "D", 1.0), ("released", COLOURS[1], "o", 0.985), ("PG", COLOURS[0], "^", 1.015))
    for name, colour, marker, shift in looks:
        some = [row for row in rows if name in row["model"]]
        bounds = np.array([[float(part) for part in row["95 % interval"].split(" to ")] for row in some])
        accuracy = np.array([row["accuracy (%)"] for row in some])
        size = shift * np.array([row["file (MB)"] for row in some])
        label = "fp32" if name == "fp32" else f"iPQ, {name} k-means"
        axes.errorbar(
            size, accuracy, np.abs(bounds.T - accuracy), color=colour, marker=marker, label=label, linewidth=1
        )
    axes.set_xscale("log")
    ticks = sorted({round(row["file (MB)"], 1) for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="file (MB)", ylabel="accuracy (%)")
    axes.legend(loc="lower right")
    return figure
