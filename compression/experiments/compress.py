"""``pg-ipq compress``: a folder with a classifier becomes a folder with a file of at most so many bytes."""

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import nn

from compression.experiments.origin import origin
from compression.experiments.run_folder import check_same, locked
from compression.quantization.budget import CompressionResult, carry_out, write_pareto
from compression.quantization.calibration import activation_weights, all_logits, divergence
from compression.quantization.files import state_digest
from compression.quantization.folder import Source, save_folder
from compression.quantization.hf import architecture
from compression.quantization.plan import Plan, check_budget, parse_budget, plan
from compression.quantization.storage import CompressedFileError, file_bytes, round_
from compression.training.batches import EncodedData, calibration_batches, encode
from compression.training.classifiers import PACKAGED_MODELS, encode_for, find_trained
from compression.training.data import TextData, load_sentiment
from compression.training.distillation import DistillationConfig
from compression.training.evaluate import evaluate
from compression.training.finetune import finetuned_minilm
from compression.training.ipq import IPQConfig, ipq
from shared.artifacts import content_hash, provenance, remove, sha256_file, write_json
from shared.config import FrozenConfig
from shared.files import check_folder, reason
from shared.results import write_table

PRESETS = ("minilm-rt",)

LICENCE = (
    "The licence of the uncompressed weights applies. Those of the preset `minilm-rt` are Apache-2.0 (package: MIT); "
    "the sentences it is trained and calibrated on belong to third parties."
)
"""Licence lines of the model card."""


class CompressConfig(FrozenConfig):
    """How `compress_folder` works.

    Attributes
    ----------
    budget
        See `compression.compress`.
    n_calibration
        Sentences on which layers are measured.
    steps
        Steps of distilling the centroids (and the remainder) afterwards, on all sentences that there are.
    lr
        Learning rate of the distillation.
    max_length
        Longest token sequence; that of the model if it is shorter.
    seed
        Of the clustering and of the order of the sentences.
    """

    budget: str
    n_calibration: int = Field(256, ge=1)
    steps: int = Field(0, ge=0)
    lr: float = Field(5e-4, gt=0)
    max_length: int = Field(64, ge=4, le=512)
    seed: int = Field(0, ge=0)


def compress_folder(
    model: str | Path,
    out: str | Path,
    config: CompressConfig,
    *,
    calibration: str | Path | None = None,
    n_workers: int | None = 1,
    folder: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Compress a classifier and write the file with its configuration, tokenizer, tables and Pareto curve.

    Parameters
    ----------
    model
        Folder that ``save_pretrained`` of a `transformers` sequence classifier and its tokenizer wrote, the name of one
        on the hub, or a preset of `PRESETS`.
    out
        Folder for ``model.safetensors`` (see `compression.load_compressed_`), ``config.json``, the tokenizer, the model
        card (``README.md``), ``layers`` and ``pareto`` tables and figure, and ``provenance.json``. What was killed or
        interrupted is continued there (``work/``) with the same result.
    config
        Settings.
    calibration
        Text file with one sentence a line, or for a model of pairs two with a tab between; the training sentences of
        ``minilm-rt`` if ``None``.
    n_workers
        Processes that cluster.
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Returns
    -------
    list of dict
        One row each for the fp32 weights, the compressed and (with `CompressConfig.steps`) the distilled model; of a
        preset with the accuracy on its validation sentences.

    Raises
    ------
    ValueError
        Before any long work, if the model, the text or the budget cannot be used, or `out` holds unfinished work with
        other settings.
    RuntimeError
        If another process works in `out`.
    """
    out = Path(out)
    check_folder(out)
    parse_budget(config.budget, 10**12)  # as text; whether the model can meet it is asked below
    classifier, tokenizer, data, validation, source = _loaded(model, calibration, config, folder)
    extra = {"architecture": architecture(classifier.config)}
    check_budget(classifier, config.budget, extra)
    work = out / "work"
    identity = {
        "config": json.loads(config.to_json()),
        "inputs": {"model": state_digest(classifier.state_dict()), "calibration": data.sha256},
    }
    check_same(work, identity)
    with locked(work):
        check_same(work, identity)
        write_json(work / "run.json", identity)
        unfinished = work / content_hash(identity)[:16]
        for leftover in out.glob(".*.tmp"):
            remove(leftover)
        batches = calibration_batches(data, config.n_calibration, seed=config.seed)
        made = _planned(classifier, batches, config, extra, unfinished / "plan.json", n_workers)
        result = carry_out(classifier, made, calibration=batches, seed=config.seed, n_workers=n_workers, extra=extra)
        compressed, dense = result.model, result.dense_bytes
        rows = [_row("fp32", dense, dense, 0.0, classifier, validation)]
        rows.append(_row("compressed", result.file_bytes, dense, result.measured_loss, compressed, validation))
        if config.steps > 0:
            compressed = _distilled(classifier, result, data, batches, config, n_workers, unfinished / "ipq")
            loss = divergence(all_logits(classifier, batches), all_logits(compressed, batches))
            rows.append(_row("distilled", file_bytes(compressed, extra=extra), dense, loss, compressed, validation))
        n_calibration = sum(len(batch["input_ids"]) for batch in batches)
        size = save_folder(
            compressed,
            out,
            tokenizer=tokenizer,
            extra=extra,
            data=f"Calibrated on {n_calibration:,} of the {len(data):,} sentences of {data.name}.",
            licence=LICENCE,
            results=rows,
            method=_about_method(config, result, validation),
            source=source,
        )
        if size > result.budget_bytes:
            raise CompressedFileError(f"The file has {size:,} bytes, more than the budget of {result.budget_bytes:,}.")
        write_table(result.table(), out / "layers")
        write_pareto(result.curve, result.file_bytes, result.losses, out)
        write_json(out / "provenance.json", provenance(config))
        finished = work.rename(out / f".work.{os.getpid()}.tmp")  # at once, and with the lock still held
    remove(finished)
    return rows


def _planned(
    classifier: nn.Module,
    batches: list[Any],
    config: CompressConfig,
    extra: Mapping[str, Any],
    path: Path,
    n_workers: int | None,
) -> Plan:
    """Measure and choose, or read what was chosen before an interruption."""
    if path.is_file():
        values = json.loads(path.read_text(encoding="utf-8"))
        return Plan.from_dict(values, activation_weights(classifier, batches, [o["name"] for o in values["layers"]]))
    made = plan(
        classifier, config.budget, calibration=batches, seed=config.seed, n_workers=n_workers, extra=dict(extra)
    )
    write_json(path, made.to_dict())
    return made


def _about_method(config: CompressConfig, result: CompressionResult, validation: EncodedData | None) -> str:
    after = "Nothing was trained afterwards."
    if config.steps > 0:
        after = (
            f"Afterwards {config.steps:,} steps of distillation from the uncompressed model (logits, hidden states), "
            f"learning rate {config.lr:g}, on the centroids and all that is not quantized."
        )
    metric = "" if validation is not None else " No labels were given: the metric of the task was not measured."
    return (
        f"Block size, codewords, codebook type and sharing of each layer were chosen for a budget of "
        f"{result.budget_bytes:,} bytes by the measured divergence of the outputs; PG k-means, activation weights. "
        f"{after}{metric}"
    )


def _loaded(
    model: str | Path, calibration: str | Path | None, config: CompressConfig, folder: str | Path | None
) -> tuple[Any, Any, EncodedData, EncodedData | None, Source]:
    """The classifier, its tokenizer, the sentences, those with labels to evaluate on (if any), and its source."""
    text = None if calibration is None else _sentences(Path(calibration))
    if str(model) in PRESETS:
        found = finetuned_minilm(folder=folder)
        data = found.train if text is None else encode(text, found.tokenizer, config.max_length)
        weights = {"the fp32 weights": sha256_file(found.folder / "model.safetensors")}
        come_from = Source(str(model), sha256=weights, task="rt", seeds={"compression": config.seed})
        return found.model, found.tokenizer, data, found.validation, come_from
    if str(model) in PACKAGED_MODELS or (Path(model).is_dir() and not (Path(model) / "config.json").is_file()):
        raise ValueError(
            f"Argument `model` must be a preset ({', '.join(PRESETS)}), a folder with a config.json, or a name on the "
            f"hub, but was {str(model)!r}."
        )
    source = find_trained(str(model))
    tokenizer = source.tokenizer()
    longest = min(config.max_length, source.max_tokens)
    data = encode_for(source, text if text is not None else load_sentiment(folder)[0], tokenizer, longest)
    return source.load(seed=0), tokenizer, data, None, origin(source, seeds={"compression": config.seed})


def _sentences(path: Path) -> TextData:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Argument `calibration` must name a text file, but {str(path)!r} cannot be read: {reason(error)}."
        ) from error
    rows = {
        number: tuple(map(str.strip, line.split("\t"))) for number, line in enumerate(lines, start=1) if line.strip()
    }
    if not rows:
        raise ValueError(f"Argument `calibration` must hold at least one sentence, but {str(path)!r} holds none.")
    first, *_ = rows.values()
    for number, row in rows.items():
        if len(row) != len(first) or len(row) > 2:
            raise ValueError(
                "Argument `calibration` must hold one sentence in each line, or in each a pair with a tab between, but "
                f"line {number} of {str(path)!r} has {len(row) - 1} tabs, the first {len(first) - 1}."
            )
    texts, *second = (tuple(column) for column in zip(*rows.values(), strict=True))
    return TextData(path.name, texts, (0,) * len(texts), *second)


def _distilled(
    classifier: nn.Module,
    result: CompressionResult,
    data: EncodedData,
    batches: list[Any],
    config: CompressConfig,
    n_workers: int | None,
    checkpoints: Path,
) -> nn.Module:
    student = copy.deepcopy(classifier)
    n_layers = getattr(classifier.config, "num_hidden_layers", 0)
    settings = IPQConfig(
        stages=("all",),
        steps_per_stage=config.steps,
        lr=config.lr,
        remainder_lr=config.lr,
        decay="cosine",
        seed=config.seed,
        distillation=DistillationConfig(hidden_weight=1.0, hidden_layers=tuple(range(1, int(n_layers) + 1))),
    )
    ipq(
        student,
        result.rules,
        train_data=data,
        teacher=classifier,
        config=settings,
        sample_weights=activation_weights(classifier, batches),
        n_workers=n_workers,
        checkpoints=checkpoints,
    )
    round_(student)
    return student


def _row(
    name: str, size: int, dense: int, loss: float, model: nn.Module, validation: EncodedData | None
) -> dict[str, Any]:
    measured = {} if validation is None else {"accuracy (%)": 100 * evaluate(model, validation).accuracy}
    return {
        "model": name,
        "bytes": size,
        "of fp32": dense / size,
        "of fp16": dense / 2 / size,
        "divergence on calibration (nats)": loss,
        **measured,
    }
