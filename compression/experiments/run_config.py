"""Settings of a run, and everything it needs read and checked before any training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from compression.quantization.blocks import PQConfig
from compression.quantization.hf import architecture
from compression.quantization.plan import check_budget
from compression.quantization.quant_noise import NoiseConfig
from compression.quantization.rules import FAMILIES, STAGES, Rule, preset_rules, quantizable
from compression.training.batches import EncodedData
from compression.training.classifiers import ModelSource, encode_for, find_model
from compression.training.data import TextData, load_boolq, load_sentiment
from compression.training.distillation import check_layers
from compression.training.finetune import FinetuneConfig
from compression.training.glue import check_labelled, load_glue
from compression.training.ipq import IPQConfig
from compression.training.tasks import Task, find_task
from shared.config import FrozenConfig


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
    budget
        Bytes of the file in place of `block_size` and `n_centroids`, such as ``"15x"`` or ``"6MB"``: those of each
        layer are chosen by measured sensitivity, see `compression.compress`.
    n_plan
        Training sentences on which it is measured, a sample.
    share
        With a budget, let layers share a codebook where that is predicted to be better.
    pq
        Other options of every layer.
    rules
        Rules in place of the preset of the model's family and all of the above; not with a budget. Stages that `ipq`
        does not name come last, together; those that no rule has are left out.
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
    budget: str | None = None
    n_plan: int = Field(256, ge=8)
    # Left out of what runs are known by where it is the default, so that runs of before it can be continued.
    share: bool = Field(False, exclude_if=lambda value: value is False)
    pq: PQConfig = PQConfig()
    rules: tuple[Rule, ...] | None = Field(None, min_length=1)
    weighting: Literal["activation", "fisher"] | None = None
    n_calibration: int = Field(1024, ge=8)
    n_distil: int | None = Field(3200, ge=8)
    max_train: int | None = Field(None, ge=8)
    max_validation: int | None = Field(None, ge=8)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_given_that_is_replaced(cls, values: Any) -> Any:
        """Refuse a budget where there are rules, and sizes in `pq`, which those of the run replace.

        A saved configuration has the latter at their defaults.
        """
        if not isinstance(values, Mapping):
            return values
        if values.get("budget") is not None and values.get("rules") is not None:
            raise ValueError(f"Key `budget` must be null where `rules` are given, but was {values['budget']!r}.")
        options = values.get("pq")
        given = dict(options) if isinstance(options, (Mapping, PQConfig)) else {}
        saved = given.keys() >= PQConfig.model_fields.keys()
        replaced = {"block_size": "set `block_size`", "n_centroids": "set `n_centroids`"}
        if values.get("budget") is not None:
            replaced["codebook_dtype"] = "a budget chooses it"
        for name, why in replaced.items():
            if name in given and not (saved and given[name] == PQConfig.model_fields[name].default):
                raise ValueError(f"Key `pq.{name}` must be left out ({why}), but was {given[name]!r}.")
        return values


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, read and checked before any training.

    With a budget, ``rules`` are empty until they are chosen.
    """

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
        identity = {"config": json.loads(self.config.to_json()), "data": data}
        return identity | ({"weights": self.source.weights} if self.source.weights else {})


def check_settings(
    config: RunConfig, folder: str | Path | None = None, plan: Path | None = None
) -> tuple[Task, ModelSource, tuple[Rule, ...]]:
    """Return task, model and rules of a run after checking that they fit; no data are read. See `prepare`."""
    task = find_task(config.task)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("Key `device` must be 'cpu' or 'auto' on a machine without a CUDA device, but was 'cuda'.")
    source = find_model(config.model, task, new_head=config.new_head, folder=folder)
    if config.finetune is None and source.new_head:
        raise ValueError(f"Key `finetune` must not be null: model {config.model!r} has no head for {task.name!r} yet.")
    if config.finetune is None and config.noise is not None:
        raise ValueError("Key `noise` must be null where `finetune` is: nothing is trained that it could act on.")
    if config.share and config.budget is None:
        raise ValueError("Key `share` must be left out without a `budget`, which chooses what to share, but was True.")
    check_layers(config.ipq.distillation, source.config, "ipq.distillation")
    rules = _rules(config, source, plan)
    skeleton = source.empty()
    if not rules:
        _check_budget(config, skeleton, file_header(task, skeleton.config))
    elif config.budget is None:
        _check_rules(config, rules, skeleton)
    return task, source, rules


def prepare(config: RunConfig, folder: str | Path | None = None, plan: Path | None = None) -> Prepared:
    """Read model configuration, rules, data and tokenizer, and check that they fit.

    Parameters
    ----------
    config
        Settings.
    folder
        Cache folder of packaged models and data; `shared.artifacts.default_cache_dir` if ``None``.
    plan
        File of the rules chosen for a budget; read if it is there.

    Raises
    ------
    ValueError
        If anything does not fit: an unknown task, a rule that matches nothing, a block size that does not divide, a
        label out of range, a missing column, a head with another number of labels.
    compression.training.packages.DataError
        If the hub cannot be reached or a package has not been fetched.
    """
    task, source, rules = check_settings(config, folder, plan)
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


def read_rules(plan: Path, base: PQConfig) -> tuple[Rule, ...]:
    """Return the rules of a plan for a budget: sizes and codebook types from the file, other options from `base`."""
    rules = [Rule.build(rule) for rule in json.loads(plan.read_text(encoding="utf-8"))["rules"]]
    chosen = ("block_size", "n_centroids", "codebook_dtype")
    configs = [base.model_copy(update={key: getattr(rule.config, key) for key in chosen}) for rule in rules]
    return tuple(rule.model_copy(update={"config": config}) for rule, config in zip(rules, configs, strict=True))


def file_header(task: Task, config: Any) -> dict[str, Any]:
    """Return what the header of the compressed file holds besides the layers, for a model of some configuration."""
    return {"architecture": architecture(config), "task": task.name}


def _check_budget(config: RunConfig, skeleton: Any, header: dict[str, Any]) -> None:
    """Refuse a budget that no choice of rules meets; it is only known after the fine-tuning which they are."""
    assert config.budget is not None
    if config.noise is not None:
        raise ValueError(
            "Key `noise` must be null with a budget, as the layers and blocks are chosen after the fine-tuning: give "
            "`rules` in place of `budget`, for instance those in the plan.json of a run without noise."
        )
    try:
        check_budget(skeleton, config.budget, header, share=config.share)
    except ValueError as error:
        raise ValueError(str(error).replace("Argument `budget`", "Key `budget`")) from error


def _check_rules(config: RunConfig, rules: Sequence[Rule], skeleton: Any) -> None:
    """Refuse rules that do not fit the model, those of stages that are not named included, and unknown stages."""
    stages = dict.fromkeys(rule.stage for rule in rules)
    unknown = [part for part in config.ipq.parts if part not in (*STAGES, *stages)]
    if unknown:
        raise ValueError(
            f"Key `ipq.stages` must hold stages of the rules ({', '.join(stages)}), but has {unknown[0]!r}."
        )
    for stage in stages:
        quantizable(skeleton, rules, stage=stage)


def _rules(config: RunConfig, source: ModelSource, plan: Path | None) -> tuple[Rule, ...]:
    if config.rules is not None:
        return config.rules
    if config.budget is not None:
        return read_rules(plan, config.pq) if plan is not None and plan.is_file() else ()
    family = source.config.model_type
    if family not in FAMILIES:
        raise ValueError(
            f"Key `rules` must be given for model {config.model!r}: its type {family!r} has no preset (these have: "
            f"{', '.join(FAMILIES)})."
        )
    stages = config.ipq.parts
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ValueError(f"Key `ipq.stages` must hold only {', '.join(STAGES)}, but has {unknown[0]!r}.")
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
