"""One model on one task: fine-tune, quantize in stages, write the file, evaluate what it holds."""

import copy
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from compression.experiments.origin import origin
from compression.experiments.run_config import Prepared, RunConfig, file_header, prepare
from compression.experiments.run_folder import check_same, locked
from compression.experiments.run_plan import clustering_weights, planned_rules
from compression.quantization.budget import write_pareto
from compression.quantization.folder import CARD, model_card, save_folder
from compression.quantization.quant_noise import QuantNoise, add_quant_noise
from compression.quantization.rules import Rule
from compression.quantization.storage import load_compressed_, round_
from compression.training.batches import EncodedData
from compression.training.distillation import LastTeacher
from compression.training.distributed import rank, wait_for_all
from compression.training.evaluate import predict_logits
from compression.training.finetune import finetune, load_classifier, save_classifier
from compression.training.ipq import IPQConfig, ipq
from compression.training.metrics import score_difference
from compression.training.tasks import Task
from shared.artifacts import atomic_path, content_hash, provenance, remove, sha256_file, write_json, write_text
from shared.progress import say

NoiseHook = Callable[[nn.Module, Sequence[Rule]], AbstractContextManager[QuantNoise | None]]
"""Enters training noise on the layers of some rules and takes it off again, the weights as trained.

A `QuantNoise` that it gives is drawn anew for each step."""


def run_task(
    config: RunConfig,
    out: str | Path,
    *,
    folder: str | Path | None = None,
    noise: NoiseHook | None = None,
    dense: str | Path | None = None,
    plan: str | Path | None = None,
    plan_settings: RunConfig | None = None,
    n_workers: int | None = 1,
    teach_last: LastTeacher | None = None,
) -> dict[str, Any]:
    """Fine-tune a model on a task, quantize it in stages, write the file, read it back and evaluate it.

    In a group of processes (see `compression.training.distributed.process_group`) they train together, and process 0
    writes and evaluates.

    Parameters
    ----------
    config
        Settings.
    out
        Folder of the run: ``dense/`` (fp32 model and tokenizer), ``compressed/`` and ``report.json``; with a budget
        ``plan.json`` and its Pareto curve, the table and figure ``pareto``. A run that was interrupted is continued
        there with the same result; a finished one is read.
    folder
        Cache folder of packaged models and data.
    noise
        Training noise of another kind than `RunConfig.noise`, in place of it.
    dense
        Folder of the fp32 model in place of ``out/dense``, for runs that share it. It is made if it is missing;
        otherwise it must be of a run with the same fine-tuning, which is not checked.
    plan
        File of the rules chosen for a budget, in place of ``out/plan.json``, for runs that share it in the same way.
    plan_settings
        Settings with which these are chosen; `config` if ``None``.
    n_workers
        Processes that cluster, see `compression.quantize_`; the result is the same for any number.
    teach_last
        Keeps the teacher's outputs in memory for the next run, which asks again only if the fp32 model, the sentences
        or what the loss needs of them is another.

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
    check_same(out, {"config": json.loads(config.to_json())})
    plan = Path(plan or out / "plan.json")
    prepared = prepare(config, folder, plan)
    with locked(out):
        check_same(out, prepared.identity)
        if (out / "report.json").is_file():
            say(f"{out / 'report.json'} is there already: this run is finished.")
            return json.loads((out / "report.json").read_text(encoding="utf-8"))
        if rank() == 0:
            write_json(out / "run.json", prepared.identity)
        start = time.monotonic()
        home = Path(dense or out / "dense")
        _make_dense(prepared, home, out / "work", noise)
        wait_for_all()
        teacher = load_classifier(home)
        _move(teacher, prepared.device)
        if not prepared.rules:
            if rank() == 0:
                chosen_with = prepared if plan_settings is None else replace(prepared, config=plan_settings)
                planned_rules(chosen_with, teacher, plan, n_workers)
            wait_for_all()
            prepared = replace(prepared, rules=planned_rules(prepared, teacher, plan))
        _make_compressed(prepared, home, out, teacher, teach_last, n_workers)
        if rank() == 0:
            compressed = load_compressed_(load_classifier(home), out / "compressed" / "model.safetensors")
            _move(compressed, prepared.device)
            report = _report(prepared, home, out, teacher, compressed)
            report["provenance"] = provenance(config, time.monotonic() - start)
            card = model_card(compressed, out / "compressed", results=report["rows"], **_about(prepared, home))
            write_text(out / "compressed" / CARD, card)
            if config.budget is not None:
                _write_curve(plan, out)
            remove(out / "work")  # before the report, with which the run counts as finished
            write_json(out / "report.json", report)
        wait_for_all()
        return json.loads((out / "report.json").read_text(encoding="utf-8"))


def finished_report(config: RunConfig, out: str | Path) -> dict[str, Any] | None:
    """Return the report of the run in `out` (see `run_task`), or ``None`` if it is not finished.

    Raises
    ------
    ValueError
        If `out` holds a run with other settings.
    """
    out = Path(out)
    check_same(out, {"config": json.loads(config.to_json())})
    path = out / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


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
    if rank() != 0:
        return
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


def _make_compressed(
    prepared: Prepared,
    home: Path,
    out: Path,
    dense: PreTrainedModel,
    teach_last: LastTeacher | None,
    n_workers: int | None,
) -> None:
    """Quantize in stages with the dense model as teacher and write the file with configuration and tokenizer."""
    if (out / "compressed").is_dir():
        return
    config, train = prepared.config, prepared.train
    model = copy.deepcopy(dense)
    data = train if config.n_distil is None else train.sample(min(config.n_distil, len(train)))
    layers = config.ipq.distillation.needed_layers
    report = ipq(
        model,
        prepared.rules,
        train_data=data,
        teacher=dense if teach_last is None else teach_last(dense, data, layers, config.ipq.precision),
        config=_with_rules(config.ipq, prepared.rules),
        sample_weights=clustering_weights(prepared, dense, prepared.rules),
        n_workers=n_workers,
        checkpoints=out / "work" / "ipq",
    )
    if rank() != 0:
        return
    round_(model)
    with atomic_path(out / "compressed") as target:
        target.mkdir()
        _move(model, "cpu")
        save_folder(
            model,
            target,
            tokenizer=prepared.tokenizer,
            extra=file_header(prepared.task, dense.config),
            **_about(prepared, home),
        )
        write_json(target / "stages.json", report.to_dict())


def _write_curve(plan: Path, out: Path) -> None:
    """Write the Pareto curve of a plan, if it has one; what a study took from another machine has only the rules."""
    chosen = json.loads(plan.read_text(encoding="utf-8"))
    if "curve" in chosen:
        size = (out / "compressed" / "model.safetensors").stat().st_size
        predicted = sum(layer["predicted loss"] for layer in chosen["layers"])
        write_pareto(chosen["curve"], size, {"predicted": predicted}, out)


_LICENCE = "Those of the uncompressed weights and of the task's data apply."


def _about(prepared: Prepared, home: Path) -> dict[str, Any]:
    """What the model card says besides the results."""
    config = prepared.config
    seeds = {} if config.finetune is None else {"fine-tuning": config.finetune.seed}
    source = origin(
        prepared.source,
        sha256={"the fp32 weights that were compressed": sha256_file(home / "model.safetensors")},
        task=prepared.task.name,
        seeds=seeds | {"compression": config.ipq.seed},
    )
    texts = {"data": _about_data(prepared), "licence": _LICENCE, "method": _about_method(prepared)}
    return texts | {"source": source}


def _about_data(prepared: Prepared) -> str:
    n = len(prepared.train)
    used = n if prepared.config.n_distil is None else min(prepared.config.n_distil, n)
    return f"Distilled on {used:,} of the {n:,} training sentences of {prepared.train.name}."


def _about_method(prepared: Prepared) -> str:
    config = prepared.config
    stages = _with_rules(config.ipq, prepared.rules).stages
    weights = "none" if config.weighting is None else f"{config.weighting}, from {config.n_calibration:,} sentences"
    noise, inputs = "none" if config.noise is None else config.noise.kind, config.ipq.activations
    return (
        f"Product quantization of a fine-tuned classifier by k-means (seeding: {config.pq.init}; empty clusters: "
        f"{config.pq.empty}; weights: {weights}) in the stages {', '.join(stages)}. After each, "
        f"{config.ipq.steps_per_stage} steps of distillation from the uncompressed model on the centroids; "
        f"re-assignment of codes: {config.ipq.reassign}. Quant-Noise: {noise}. Inputs of linear layers: {inputs}."
    )


def _with_rules(config: IPQConfig, rules: Sequence[Rule]) -> IPQConfig:
    """Leave out the stages that a plan has no layer for; layers of no stage come last."""
    known = dict.fromkeys(rule.stage for rule in rules)
    stages = ["+".join(part for part in stage.split("+") if part in known) for stage in config.stages]
    stages.append("+".join(stage for stage in known if stage not in config.parts))
    return config.model_copy(update={"stages": tuple(filter(None, stages))})


def _move(model: nn.Module, device: torch.device | str) -> None:
    model.to(device)


def predict(model: nn.Module, data: EncodedData, description: str = "") -> np.ndarray:
    """Return predicted classes, int64, or values, float32, of shape (n,)."""
    logits = predict_logits(model, data, description=description)
    return (logits[:, 0] if data.labels.is_floating_point() else logits.argmax(1)).numpy()


def _predict_dense(model: nn.Module, data: EncodedData, home: Path, work: Path, description: str) -> np.ndarray:
    """Predict with the model in `home`, once for all runs that share it: what it finds is kept there.

    Written in `work`, the run's own, so that a run that is killed leaves nothing in the shared folder.
    """
    key = content_hash([sha256_file(home / "model.safetensors"), data.sha256])
    kept = home / f"predictions-{key[:16]}.json"
    if not kept.is_file():
        write_json(work / kept.name, predict(model, data, description).tolist())
        os.replace(work / kept.name, kept)
    return np.array(json.loads(kept.read_text(encoding="utf-8")))


def _report(prepared: Prepared, home: Path, out: Path, dense: nn.Module, compressed: nn.Module) -> dict[str, Any]:
    task, task_labels = prepared.task, prepared.source.task_labels  # F1 is that of one class
    files = {"fp32": home / "model.safetensors", "iPQ": out / "compressed" / "model.safetensors"}
    sizes: dict[str, int | None] = {name: path.stat().st_size for name, path in files.items()}
    name = "mean" if task.regression else "majority class"
    predictions: dict[str, dict[str, np.ndarray]] = {name: {}, "fp32": {}, "iPQ": {}}
    for split, data in prepared.evaluation.items():
        predictions[name][split] = task.majority(task_labels(prepared.train.labels.numpy()), len(data))
        by_dense = _predict_dense(dense, data, home, out / "work", f"Evaluating fp32 on {split}")
        predictions["fp32"][split] = task_labels(by_dense)
        predictions["iPQ"][split] = task_labels(predict(compressed, data, f"Evaluating the file on {split}"))
    labels = {split: task_labels(data.labels.numpy()) for split, data in prepared.evaluation.items()}
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
        "of fp32": (ratio := None if size is None or dense_size is None else dense_size / size),
        "of fp16": None if ratio is None else ratio / 2,
        **{metric: 100 * value for metric, value in task.score(found, labels).items()},
        "score, 95 %": f"{100 * score.low:.1f} to {100 * score.high:.1f}",
        "lost (points)": None if lost is None else 100 * lost.difference,
        "lost, 95 %": None if lost is None else f"{100 * lost.low:.1f} to {100 * lost.high:.1f}",
        "sentences": len(labels),
    }
