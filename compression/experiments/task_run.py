"""One model on one task: fine-tune, quantize in stages, write the file, evaluate what it holds."""

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from pydantic import Field
from torch import nn

from compression.quantization.blocks import PQConfig
from compression.quantization.calibration import activation_weights, fisher_weights
from compression.quantization.folder import save_folder
from compression.quantization.hf import architecture
from compression.quantization.quant_noise import NoiseConfig, QuantNoise, add_quant_noise
from compression.quantization.rules import FAMILIES, STAGES, Rule, match_rules, preset_rules
from compression.quantization.storage import load_compressed_, round_
from compression.training.batches import EncodedData, calibration_batches
from compression.training.classifiers import ModelSource, encode_for, find_model
from compression.training.data import TextData, load_boolq, load_sentiment
from compression.training.evaluate import predict_logits
from compression.training.finetune import FinetuneConfig, finetune, load_classifier, save_classifier
from compression.training.glue import check_labelled, load_glue
from compression.training.ipq import IPQConfig, ipq
from compression.training.metrics import score_difference
from compression.training.tasks import Task, find_task
from shared.artifacts import atomic_path, provenance, remove, write_json
from shared.config import FrozenConfig, nearest
from shared.progress import say

PRESETS = ("minilm-rt", "minilm-boolq", "mpnet-rt")
"""Runs that need no hub, only packages that ``pg-ipq fetch-data`` gets."""

NoiseHook = Callable[[nn.Module, Sequence[Rule]], AbstractContextManager[QuantNoise | None]]
"""Enters training noise on the layers of some rules and takes it off again, the weights as trained.

A `QuantNoise` that it gives is drawn anew for each step."""


class RunConfig(FrozenConfig):
    """What to train, compress and evaluate.

    Attributes
    ----------
    model
        ``minilm`` or ``mpnet`` (packaged), a local folder, or a name on the hub.
    task
        A name of `compression.training.tasks.TASKS`.
    data
        For GLUE a local folder or a name on the hub, see `compression.training.glue.load_glue`.
    new_head
        Replace the classification head of a model that has one.
    finetune
        Fine-tuning of the fp32 model; ``None`` for a model that has been fine-tuned on the task.
    noise
        Quant-Noise during the fine-tuning, on the layers of all rules; none if ``None``.
    ipq
        Stages and distillation.
    block_size, n_centroids
        One value, or one for each stage of the preset rules.
    pq
        Other options of every layer.
    rules
        Rules in place of the preset of the model's family; then `block_size`, `n_centroids` and `pq` are not used.
    weighting
        Weights of the clustering, see `compression.quantization.calibration`: ``"activation"``, ``"fisher"``, or
        ``None`` for none.
    n_calibration
        Training sentences on which they are measured, a sample.
    n_distil
        Training sentences used for the distillation, a sample; all if ``None``.
    max_train, max_validation
        Use only so many sentences of each split, a sample; all if ``None``.
    device
        ``"auto"`` takes a GPU where there is one.
    """

    model: str = Field(min_length=1)
    task: str = Field(min_length=1)
    data: str | None = None
    new_head: bool = False
    finetune: FinetuneConfig | None = FinetuneConfig()
    noise: NoiseConfig | None = None
    ipq: IPQConfig = IPQConfig(stages=("+".join(STAGES),), steps_per_stage=100)
    block_size: int | dict[str, int] = 8
    n_centroids: int | dict[str, int] = 256
    pq: PQConfig = PQConfig()
    rules: tuple[Rule, ...] | None = Field(None, min_length=1)
    weighting: Literal["activation", "fisher"] | None = None
    n_calibration: int = Field(1024, ge=8)
    n_distil: int | None = Field(3200, ge=8)
    max_train: int | None = Field(None, ge=8)
    max_validation: int | None = Field(None, ge=8)
    device: Literal["auto", "cpu", "cuda"] = "auto"


def preset(name: str | None = None) -> Path:
    """Return the configuration file of a preset, or that for models and tasks named by the user.

    Raises
    ------
    ValueError
        If there is no such preset; the nearest name is given.
    """
    if name is not None and name not in PRESETS:
        raise ValueError(
            f"Argument `preset` must be one of {', '.join(PRESETS)}, but was {name!r}: {nearest(name, PRESETS)}"
        )
    return Path(str(resources.files("compression.experiments") / "configs" / f"{name or 'task'}.yaml"))


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, read and checked before any training."""

    config: RunConfig
    task: Task
    source: ModelSource
    tokenizer: Any
    rules: tuple[Rule, ...]
    train: EncodedData
    evaluation: dict[str, EncodedData]

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        if self.config.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.config.device)

    @property
    def identity(self) -> dict[str, Any]:
        """What a run that is continued must share with the one that was interrupted."""
        data = {"train": self.train.sha256} | {split: part.sha256 for split, part in self.evaluation.items()}
        return {"config": json.loads(self.config.to_json()), "data": data}


def prepare(config: RunConfig, folder: str | Path | None = None) -> Prepared:
    """Read model configuration, rules, data and tokenizer, and check that they fit.

    Parameters
    ----------
    config
        Settings.
    folder
        Cache folder of packaged models and data; `shared.artifacts.default_cache_dir` if ``None``.

    Raises
    ------
    ValueError
        If anything does not fit: an unknown task, a rule that matches nothing, a block size that does not divide, a
        label out of range, a missing column, a head with another number of labels.
    compression.training.packages.DataError
        If the hub cannot be reached or a package has not been fetched.
    """
    task = find_task(config.task)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("Key `device` must be 'cpu' or 'auto' on a machine without a CUDA device, but was 'cuda'.")
    source = find_model(config.model, task, new_head=config.new_head, folder=folder)
    if config.finetune is None and source.new_head:
        raise ValueError(f"Key `finetune` must not be null: model {config.model!r} has no head for {task.name!r} yet.")
    if config.finetune is None and config.noise is not None:
        raise ValueError("Key `noise` must be null where `finetune` is: nothing is trained that it could act on.")
    rules = _rules(config, source)
    skeleton = source.empty()
    for stage in config.ipq.stages:
        for part in stage.split("+"):
            match_rules(skeleton, rules, stage=part)
    texts = _load(task, config.data, folder)
    tokenizer = source.tokenizer()
    max_length = min(128, source.max_tokens) if config.finetune is None else config.finetune.max_length
    encoded = {}
    for split, data in texts.items():
        check_labelled(data)
        count = config.max_train if split == "train" else config.max_validation
        if count is not None and count < len(data):
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
            data = data.subset(sorted(order[:count].tolist()))
        encoded[split] = encode_for(source, data, tokenizer, max_length)
    return Prepared(config, task, source, tokenizer, rules, encoded.pop("train"), encoded)


def _rules(config: RunConfig, source: ModelSource) -> tuple[Rule, ...]:
    if config.rules is not None:
        return config.rules
    family = source.config.model_type
    if family not in FAMILIES:
        raise ValueError(
            f"Key `rules` must be given for model {config.model!r}: its type {family!r} has no preset (these have: "
            f"{', '.join(FAMILIES)})."
        )
    stages = [part for stage in config.ipq.stages for part in stage.split("+")]
    for name in ("block_size", "n_centroids"):
        sizes = getattr(config, name)
        if not isinstance(sizes, int) and set(sizes) != set(stages):
            raise ValueError(
                f"Key `{name}` must be a number or have the stages {', '.join(stages)}, but has {', '.join(sizes)}."
            )
    return preset_rules(
        family, block_size=config.block_size, n_centroids=config.n_centroids, base=config.pq, stages=stages
    )


def _load(task: Task, data: str | None, folder: str | Path | None) -> dict[str, TextData]:
    if not task.packaged:
        return {split: load_glue(task, split, data) for split in ("train", *task.evaluation_splits)}
    if data is not None:
        raise ValueError(f"Key `data` must be null for task {task.name!r}, which comes from a package, not {data!r}.")
    load = load_sentiment if task.name == "rt" else load_boolq
    return dict(zip(("train", "validation"), load(folder), strict=True))


def run_task(
    config: RunConfig,
    out: str | Path,
    *,
    folder: str | Path | None = None,
    noise: NoiseHook | None = None,
    dense: str | Path | None = None,
) -> dict[str, Any]:
    """Fine-tune a model on a task, quantize it in stages, write the file, read it back and evaluate it.

    Parameters
    ----------
    config
        Settings.
    out
        Folder of the run: ``dense/`` (fp32 model and tokenizer), ``compressed/`` and ``report.json``. A run that was
        interrupted is continued there with the same result; a finished one is read.
    folder
        Cache folder of packaged models and data.
    noise
        Training noise of another kind than `RunConfig.noise`, in place of it.
    dense
        Folder of the fp32 model in place of ``out/dense``, for runs that share it. It is made if it is missing;
        otherwise it must be of a run with the same fine-tuning, which is not checked.

    Returns
    -------
    dict
        The report: ``rows`` (a table), ``predictions`` of each model and split, ``stages`` and ``provenance``.

    Raises
    ------
    ValueError
        See `prepare`; or if `out` holds a run with other settings or data.
    RuntimeError
        If another process works in `out`.
    """
    out = Path(out)
    _check_same_config(out, {"config": json.loads(config.to_json())})
    prepared = prepare(config, folder)
    with _locked(out):
        _check_same_config(out, prepared.identity)
        if (out / "report.json").is_file():
            say(f"{out / 'report.json'} is there already: this run is finished.")
            return json.loads((out / "report.json").read_text(encoding="utf-8"))
        write_json(out / "run.json", prepared.identity)
        start = time.monotonic()
        home = Path(dense or out / "dense")
        _make_dense(prepared, home, out / "work", noise)
        teacher = load_classifier(home)
        _move(teacher, prepared.device)
        _make_compressed(prepared, out, teacher)
        compressed = load_compressed_(load_classifier(home), out / "compressed" / "model.safetensors")
        _move(compressed, prepared.device)
        report = _report(prepared, home, out, teacher, compressed)
        report["provenance"] = provenance(config, time.monotonic() - start)
        write_json(out / "report.json", report)
        remove(out / "work")
    return report


def _make_dense(prepared: Prepared, home: Path, work: Path, noise: NoiseHook | None) -> None:
    """Fine-tune, or take the model as it is, and write it with its tokenizer into `home`."""
    if home.is_dir():
        return
    settings, task = prepared.config.finetune, prepared.task
    model = prepared.source.load(0 if settings is None else settings.seed)
    _move(model, prepared.device)
    losses: list[float] = []
    if settings is not None:
        say(f"Fine-tuning {prepared.config.model} on {task.name} ({len(prepared.train):,} sentences).")
        checkpoint = work / "finetune.safetensors"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with _noisy(prepared, model, noise) as active:
            losses = finetune(model, prepared.train, settings, noise=active, checkpoint=checkpoint)
    with atomic_path(home) as target:
        target.mkdir()
        _move(model, "cpu")
        save_classifier(model, target)
        prepared.tokenizer.save_pretrained(target)
        write_json(target / "losses.json", losses)


def _noisy(prepared: Prepared, model: nn.Module, hook: NoiseHook | None) -> AbstractContextManager[QuantNoise | None]:
    if hook is not None:
        return hook(model, prepared.rules)
    settings = prepared.config.noise
    return nullcontext() if settings is None else add_quant_noise(model, prepared.rules, settings)


def _make_compressed(prepared: Prepared, out: Path, dense: nn.Module) -> None:
    """Quantize in stages with the dense model as teacher and write the file with configuration and tokenizer."""
    if (out / "compressed").is_dir():
        return
    config, train = prepared.config, prepared.train
    model = copy.deepcopy(dense)
    data = train if config.n_distil is None else train.sample(min(config.n_distil, len(train)))
    report = ipq(
        model,
        prepared.rules,
        train_data=data,
        teacher=dense,
        config=config.ipq,
        sample_weights=_weights(prepared, dense),
        checkpoints=out / "work" / "ipq",
    )
    round_(model)
    with atomic_path(out / "compressed") as target:
        target.mkdir()
        extra = {"architecture": architecture(model.config), "task": prepared.task.name}
        _move(model, "cpu")
        save_folder(
            model,
            target,
            tokenizer=prepared.tokenizer,
            extra=extra,
            data=f"Distilled on {len(data):,} training sentences of {data.name}; scores: `report.json` of the run.",
            licence="Those of the uncompressed weights and of the task's data apply.",
        )
        write_json(target / "stages.json", report.to_dict())


def _weights(prepared: Prepared, dense: nn.Module) -> dict[str, torch.Tensor] | None:
    """Weights of the clustering for the layers of the rules."""
    config = prepared.config
    if config.weighting is None:
        return None
    names = [name for name, _ in match_rules(dense, prepared.rules)]
    names = [name for name in names if isinstance(dense.get_submodule(name), nn.Linear | nn.Embedding)]
    # Of a batch the Fisher information takes the gradient of the sum: small ones make it less noisy.
    size, measure = (64, activation_weights) if config.weighting == "activation" else (8, fisher_weights)
    batches = calibration_batches(prepared.train, config.n_calibration, batch_size=size)
    batches = [{name: values.to(prepared.device) for name, values in batch.items()} for batch in batches]
    return measure(dense, batches, names)


def _move(model: nn.Module, device: torch.device | str) -> None:
    model.to(device)


def predict(model: nn.Module, data: EncodedData, description: str = "") -> np.ndarray:
    """Return predicted classes, int64, or values, float32, of shape (n,)."""
    logits = predict_logits(model, data, description=description)
    return (logits[:, 0] if data.labels.is_floating_point() else logits.argmax(1)).numpy()


def _report(prepared: Prepared, home: Path, out: Path, dense: nn.Module, compressed: nn.Module) -> dict[str, Any]:
    task = prepared.task
    files = {"fp32": home / "model.safetensors", "iPQ": out / "compressed" / "model.safetensors"}
    sizes: dict[str, int | None] = {name: path.stat().st_size for name, path in files.items()}
    name = "mean" if task.regression else "majority class"
    predictions: dict[str, dict[str, np.ndarray]] = {name: {}, "fp32": {}, "iPQ": {}}
    for split, data in prepared.evaluation.items():
        predictions[name][split] = task.majority(prepared.train.labels.numpy(), len(data))
        predictions["fp32"][split] = predict(dense, data, f"Evaluating fp32 on {split}")
        predictions["iPQ"][split] = predict(compressed, data, f"Evaluating the file on {split}")
    labels = {split: data.labels.numpy() for split, data in prepared.evaluation.items()}
    rows = [
        _row(task, model, split, sizes.get(model), sizes["fp32"], found, predictions["fp32"][split], labels[split])
        for split in labels
        for model, found in ((model, by_split[split]) for model, by_split in predictions.items())
    ]
    return {
        "rows": rows,
        "predictions": {model: {s: p.tolist() for s, p in parts.items()} for model, parts in predictions.items()},
        "labels": {split: values.tolist() for split, values in labels.items()},
        "losses": json.loads((home / "losses.json").read_text(encoding="utf-8")),
        "compression": json.loads((out / "compressed" / "stages.json").read_text(encoding="utf-8")),
    }


def _row(
    task: Task,
    model: str,
    split: str,
    size: int | None,
    dense_size: int | None,
    found: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
) -> dict[str, Any]:
    """One line of the table: scores in percent, and points lost against fp32 on the same sentences."""
    score = score_difference(task.main_score, found, None, labels)
    lost = None if model == "fp32" else score_difference(task.main_score, reference, found, labels)
    return {
        "model": model,
        "split": split,
        "file (MB)": None if size is None else size / 1e6,
        "of fp32": None if size is None or dense_size is None else dense_size / size,
        **{metric: 100 * value for metric, value in task.score(found, labels).items()},
        "score, 95 %": f"{100 * score.low:.1f} to {100 * score.high:.1f}",
        "lost (points)": None if lost is None else 100 * lost.difference,
        "lost, 95 %": None if lost is None else f"{100 * lost.low:.1f} to {100 * lost.high:.1f}",
        "sentences": len(labels),
    }


def _check_same_config(out: Path, identity: Mapping[str, Any]) -> None:
    """Raise `ValueError` if `out` holds a run that differs in any of the keys of `identity`."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"Argument `out` must be a folder, but {str(out)!r} is a file.")
    if not (out / "run.json").is_file():
        return
    before = json.loads((out / "run.json").read_text(encoding="utf-8"))
    old, new = (dict(_flat({key: values[key] for key in identity})) for values in (before, identity))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if changed:
        key = changed[0].removeprefix("config.")
        was, now = (json.dumps(values.get(changed[0])) for values in (old, new))
        more = f" ({len(changed) - 1} more differ)" if len(changed) > 1 else ""
        raise ValueError(
            f"Folder {str(out)!r} holds a run with another `{key}`: {was} there, {now} now{more}. Give the same "
            "settings to continue it, or another folder (--out)."
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            for leftover in out.glob(".*.tmp"):  # of a killed process: the lock is ours
                remove(leftover)
            yield
    except Timeout as error:
        raise RuntimeError(f"Another process works in {str(out)!r}: wait for it, or take another folder.") from error
