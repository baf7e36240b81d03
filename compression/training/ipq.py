"""iPQ: quantize a model stage by stage, and after each stage fine-tune the centroids by distillation."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from compression.clustering.lloyd import Iteration
from compression.quantization.activations import quantize_activations_
from compression.quantization.blocks import PQConfig
from compression.quantization.convolution import PQConv2d
from compression.quantization.files import state_digest
from compression.quantization.layers import PQLinear, pq_modules
from compression.quantization.rules import LayerReport, Rule, as_rules, match_rules, quantizable, quantize_
from compression.quantization.storage import CompressedFileError, load_compressed_, read_header, save_compressed
from compression.training.batches import EncodedData
from compression.training.distillation import DistillationConfig, TeacherOutputs, check_layers
from compression.training.distributed import broadcast_, from_first, rank, wait_for_all, world_size
from compression.training.loop import run_steps
from compression.training.objectives import BatchObjective, Objective, TrainStep, objective_of
from compression.training.precision import Precision
from compression.training.reassignment import Latents
from shared.artifacts import atomic_path, content_hash, remove, write_json
from shared.config import FrozenConfig
from shared.files import check_folder
from shared.progress import say

_SEED_STRIDE = 1009


class IPQConfig(FrozenConfig):
    """How to quantize in stages.

    Parameters
    ----------
    stages
        Stages of the rules in order; ``"a+b"`` quantizes two stages together, then fine-tunes once. Where they are not
        given, `ipq` takes those of the rules in order of appearance.
    steps_per_stage
        Fine-tuning steps after each stage; 0 for none.
    batch_size
        Sentences in a step; batches that are given as such stay as they are.
    lr, warmup_fraction, decay, max_grad_norm
        AdamW on the centroids, with linear warm-up and linear or cosine decay in each stage.
    remainder_lr
        Learning rate of the parameters that are not quantized (yet); 0 leaves them as they are. Biases, layer norms
        and the classifier are stored in full anyway, so that training them costs no bytes.
    reassign
        ``"never"``: codes stay as the clustering made them. ``"stage"``: after each stage each block goes to the
        fine-tuned codeword nearest to its uncompressed weight. ``"steps"``: every `reassign_every` steps of the
        fine-tuning, to the codeword nearest to a latent weight, which starts as the uncompressed one and is trained
        straight-through. Distances are weighted as the clustering is.
    reassign_every
        Steps between two re-assignments; none is done in the last tenth of a stage, so that the centroids settle.
    latent_lr
        Learning rate of the latent weights.
    distillation
        The loss.
    seed
        Of clustering and of the order of the sentences or batches.
    precision
        Of the matrix products in the fine-tuning, see `compression.training.precision.Precision`.
    activations
        ``"int8"`` rounds the inputs of quantized linear layers to 8 bits, on grids that are chosen after each
        quantization, so that the fine-tuning sees the rounding, and again after each fine-tuning, from 256 training
        sentences; see `compression.quantization.activations`. With ``codebook_dtype="int8"`` in the rules the model
        then computes in integers.
    checkpoint_every
        Steps between two checkpoints within a stage.
    """

    stages: tuple[str, ...] = Field(("ffn", "embeddings", "attention"), min_length=1)
    steps_per_stage: int = Field(40, ge=0)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(1e-3, gt=0)
    remainder_lr: float = Field(1e-3, ge=0)
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    decay: Literal["linear", "cosine"] = "linear"
    reassign: Literal["never", "stage", "steps"] = "never"
    reassign_every: int = Field(20, ge=1)
    latent_lr: float = Field(3e-5, gt=0)
    max_grad_norm: float = Field(1.0, gt=0)
    distillation: DistillationConfig = DistillationConfig()
    seed: int = Field(0, ge=0)
    precision: Precision = "float32"
    # Left out of what runs are known by where it is the default, so that runs of before it can be continued.
    activations: Literal["float32", "int8"] = Field("float32", exclude_if=lambda value: value == "float32")
    checkpoint_every: int = Field(50, ge=1)

    @field_validator("stages")
    @classmethod
    def _each_stage_is_named_once(cls, stages: tuple[str, ...]) -> tuple[str, ...]:
        parts = _parts(stages)
        twice = [part for part in parts if parts.count(part) > 1]
        if twice:
            raise ValueError(f"must name each stage once, but names {twice[0]!r} more than once")
        return stages

    @property
    def parts(self) -> tuple[str, ...]:
        """The stages of the rules in order, those that are quantized together one by one."""
        return _parts(self.stages)


@dataclass(frozen=True)
class StageReport:
    """What one stage did.

    Parameters
    ----------
    stage
        Name, as in `IPQConfig.stages`.
    layers
        Report of each quantized layer.
    losses
        Loss of each step.
    seconds
        Wall time of quantization and fine-tuning.
    accuracy
        What `after_stage` returned, or ``None``.
    """

    stage: str
    layers: tuple[LayerReport, ...]
    losses: tuple[float, ...]
    seconds: float
    accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StageReport":
        """Read what `to_dict` wrote."""
        layers = [
            LayerReport(**{**layer, "shape": tuple(layer["shape"]), "history": _history(layer["history"])})
            for layer in values["layers"]
        ]
        return cls(**{**values, "layers": tuple(layers), "losses": tuple(values["losses"])})


@dataclass(frozen=True)
class IPQReport:
    """What a whole run did.

    Parameters
    ----------
    stages
        Report of each stage.
    """

    stages: tuple[StageReport, ...]

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        """Reports of all quantized layers."""
        return tuple(layer for stage in self.stages for layer in stage.layers)

    @property
    def seconds(self) -> float:
        """Wall time of all stages, those of an earlier, interrupted run included."""
        return sum(stage.seconds for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {"stages": [stage.to_dict() for stage in self.stages], "seconds": self.seconds}


def ipq(
    model: nn.Module,
    rules: Sequence[Rule] | Mapping[str, PQConfig],
    *,
    train_data: EncodedData | Iterable[Any],
    teacher: nn.Module | TeacherOutputs | None = None,
    train_step: TrainStep | None = None,
    config: IPQConfig | None = None,
    sample_weights: Mapping[str, torch.Tensor] | None = None,
    n_workers: int | None = 1,
    checkpoints: str | Path | None = None,
    after_stage: Callable[[nn.Module], float] | None = None,
    description: str = "iPQ",
) -> IPQReport:
    """Quantize a model stage by stage, in place, with centroids fine-tuned after each stage, as a rule by distillation.

    Dropout is off throughout, running statistics stay, and the model is left in evaluation mode. In a group of
    processes, as ``torchrun`` and ``accelerate launch`` start them (see
    `compression.training.distributed.process_group`), each takes part of every batch of sentences, or other batches
    than the rest; gradients are averaged, and process 0 clusters and writes the checkpoints; all end with the same
    model.

    Parameters
    ----------
    model
        With `EncodedData` a sequence classifier of the `transformers` kind, with batches any module.
    rules
        Which layers to quantize and how, see `compression.quantize_`. A mapping has the single stage ``"all"``.
    train_data
        Token sequences for the distillation, whose labels are used only if the loss asks for them; or batches, for
        instance a ``DataLoader``. These are read once, kept in memory and come in an order of their own in each epoch,
        so that the loader need not shuffle (and must not, for a run with `checkpoints` to continue). All processes of
        a group are given the same ones.
        For a teacher a batch is a tensor, or a mapping of the model's keyword arguments; for a `train_step` anything.
    teacher
        The uncompressed model (not the object `model`), or its outputs on token sequences from
        `compression.training.distillation.teach`, so that several runs can share them. On batches the model returns
        logits, of shape (n, ..., classes), or an object with ``logits``; a single column is a regression. Hidden
        states are taken from ``hidden_states``, which the model returns when called with ``output_hidden_states``.
    train_step
        For any other loss, in place of a teacher: called with the model and a batch (on the model's device), returns
        the loss as a scalar tensor. ``Trainer.compute_loss`` of `transformers` is such a step. The gradient, the update
        and the random numbers are not its business: it draws from PyTorch's generators, which are seeded anew for each
        step.
    config
        Settings; the defaults if ``None``.
    sample_weights
        Importance of weight entries for the clustering, see `compression.quantize_` and
        `compression.quantization.calibration`.
    n_workers
        Processes that cluster, see `compression.quantize_`.
    checkpoints
        Folder for the model after each stage and the state within a stage. A run that finds them continues there, with
        the same result as one that was never interrupted, at whatever moment it was killed (same machine and number of
        threads). ``None`` for none. A `train_step` is known by its name, its code and the plain values that it captured
        (defaults, closure, ``functools.partial``), not by globals or by attributes of objects. One that changes what it
        captured, a list of its losses for instance, is another step afterwards: let an object hold that.
    after_stage
        Called with the model after each stage; returns a number for the report, for instance an accuracy.
    description
        Shown with the progress.

    Returns
    -------
    IPQReport
        Clustering and loss of each stage.

    Raises
    ------
    ValueError
        Before any clustering, if a rule or a stage does not fit the model, there are no batches or a batch is not as
        described, both or neither of `teacher` and `train_step` are given, the loss of the first batch is not a finite
        scalar that depends on the parameters, or `checkpoints` holds a run with other arguments.

    Examples
    --------
    Any module, here a convolutional network, taught by the uncompressed one:

    >>> import copy, torch
    >>> from torch import nn
    >>> from compression import IPQConfig, PQConfig, ipq
    >>> net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
    >>> teacher, images = copy.deepcopy(net), torch.rand(64, 1, 8, 8)
    >>> config = IPQConfig(stages=("all",), steps_per_stage=5)
    >>> report = ipq(net, {"3": PQConfig(n_centroids=16)}, train_data=images.split(16), teacher=teacher, config=config)
    >>> len(report.stages[0].losses)
    5
    """
    config = IPQConfig.of(config)
    if checkpoints is not None:
        check_folder(checkpoints, "Argument `checkpoints`")
    rules = as_rules(rules)
    if "stages" not in config.model_fields_set:
        config = config.model_copy(update={"stages": tuple(dict.fromkeys(rule.stage for rule in rules))})
    if teacher is model:
        raise ValueError("Argument `teacher` must be another object than `model`, which is changed in place.")
    check_stages(model, rules, config)
    for one in (model, teacher):
        check_layers(config.distillation, one)
    model.eval()
    objective = objective_of(
        train_data,
        teacher,
        train_step,
        distillation=config.distillation,
        precision=config.precision,
        batch_size=config.batch_size,
        activations=config.activations,
    )
    if isinstance(objective, BatchObjective):
        objective.check(model)
    store = None
    if checkpoints is not None:
        store = _Store(Path(checkpoints), model, rules, config, objective, sample_weights)
    latents = None if config.reassign == "never" else Latents(sample_weights)
    reports = [] if store is None else store.restore(model, latents)
    for number in range(len(reports), len(config.stages)):
        start = time.monotonic()
        stage = config.stages[number]
        say(f"{description}: stage {stage} ({number + 1} of {len(config.stages)})")
        layers: list[LayerReport] = []
        for part in _parts([stage]):
            if latents is not None:
                names = [name for name, _ in match_rules(model, rules, stage=part)]
                latents.add({name: model.get_parameter(f"{name}.weight") for name in names})
            seed = config.seed * _SEED_STRIDE + number
            layers += _quantize(model, rules, part, seed, sample_weights, n_workers)
        broadcast_([*model.parameters(), *(module.codes for module in pq_modules(model).values())])
        _round_inputs(model, objective, config)
        steps_file = None if store is None else store.steps_file(number)
        losses = _fine_tune(model, objective, config, number, latents, steps_file, f"{description}: {stage}")
        if latents is not None and config.reassign == "stage":
            latents.reassign(model)
        _round_inputs(model, objective, config)
        accuracy = None if after_stage is None else float(after_stage(model))
        reports.append(StageReport(stage, tuple(layers), tuple(losses), time.monotonic() - start, accuracy))
        if store is not None:
            store.save(model, latents, reports)
    wait_for_all()
    return IPQReport(tuple(reports))


def _quantize(
    model: nn.Module,
    rules: Sequence[Rule],
    stage: str,
    seed: int,
    sample_weights: Mapping[str, torch.Tensor] | None,
    n_workers: int | None,
) -> list[LayerReport]:
    """Quantize a stage; of a group of processes the first clusters for all."""
    reports: list[LayerReport] = []
    if rank() == 0:
        reports = quantize_(model, rules, stage=stage, seed=seed, sample_weights=sample_weights, n_workers=n_workers)
    if world_size() == 1:
        return reports
    device = next(model.parameters()).device
    made = [(report.name, model.get_submodule(report.name)) for report in reports]
    reports, made = from_first((reports, made))  # in one pickle: shared codebooks stay shared
    if rank() > 0:
        for name, module in made:
            model.set_submodule(name, module.to(device))
    return reports


def _round_inputs(model: nn.Module, objective: Objective, config: IPQConfig) -> None:
    """Choose the grids of the inputs, if they are rounded, from the model as it is."""
    rounded = any(isinstance(layer, PQLinear | PQConv2d) for layer in pq_modules(model).values())
    if config.activations == "int8" and rounded:
        quantize_activations_(model, objective.calibration(config.seed, next(model.parameters()).device))


def _fine_tune(
    model: nn.Module,
    objective: Objective,
    config: IPQConfig,
    number: int,
    latents: Latents | None,
    checkpoint: Path | None,
    description: str,
) -> list[float]:
    """Fine-tune centroids, and the remainder if asked, after stage `number`."""
    if config.steps_per_stage == 0:
        return []
    modules = pq_modules(model)
    centroids = {f"{name}.centroids" for name in modules}
    parameters = dict(model.named_parameters())
    trained: dict[str, torch.Tensor] = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.requires_grad and (name in centroids or config.remainder_lr > 0)
    }
    rates = {name: config.remainder_lr for name in trained if name not in centroids}
    frozen = [p for name, p in parameters.items() if p.requires_grad and name not in trained]
    seed = config.seed * _SEED_STRIDE + number
    n_steps = config.steps_per_stage
    before_step: Callable[[int], None] | None = None
    if latents is not None and config.reassign == "steps":
        moving = latents.attach(model)
        trained |= moving
        rates |= dict.fromkeys(moving, config.latent_lr)
        before_step = _reassigning(model, latents, config)

    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        return run_steps(
            trained,
            objective.losses(model, n_steps, seed),
            n_steps,
            lr=config.lr,
            rates=rates,
            warmup_fraction=config.warmup_fraction,
            decay=config.decay,
            max_grad_norm=config.max_grad_norm,
            seed=seed,
            buffers={} if before_step is None else {f"{name}.codes": module.codes for name, module in modules.items()},
            before_step=before_step,
            checkpoint=checkpoint,
            checkpoint_every=config.checkpoint_every,
            key="" if checkpoint is None else checkpoint.stem,
            description=description,
        )
    finally:
        if latents is not None:
            latents.detach(model)
        for parameter in frozen:
            parameter.requires_grad_(True)


def _reassigning(model: nn.Module, latents: Latents, config: IPQConfig) -> Callable[[int], None]:
    """What is done before a step: a re-assignment now and then."""

    def before_step(step: int) -> None:
        if step > 0 and step % config.reassign_every == 0 and step <= 0.9 * config.steps_per_stage:
            latents.reassign(model)

    return before_step


class _Store:
    """Checkpoints of one run: the model after the last finished stage, and the state within the next.

    The names hold a hash of everything that the result depends on. Every file is complete or absent; the file of a
    stage is written last of what belongs to it, and what is left of an earlier moment is not read.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        rules: Sequence[Rule],
        config: IPQConfig,
        objective: Objective,
        sample_weights: Mapping[str, torch.Tensor] | None,
    ) -> None:
        self.folder = folder
        parts = {
            "model": _digest(model),
            "rules": content_hash([json.loads(rule.to_json()) for rule in rules]),
            "config": json.loads(config.to_json()),
            **objective.identity(),
            "sample_weights": state_digest(sample_weights or {}),
        }
        self.key = content_hash(parts)[:16]
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / "run.json"
        if about.is_file():
            _check_same(json.loads(about.read_text(encoding="utf-8")), parts, folder)
        elif rank() == 0:
            write_json(about, parts)
        if rank() == 0:
            for leftover in folder.glob(".*.tmp"):
                remove(leftover)  # half-written when the run was killed

    @property
    def stage_file(self) -> Path:
        return self.folder / f"{self.key}-stages.safetensors"

    def steps_file(self, number: int) -> Path:
        return self.folder / f"{self.key}-steps-{number}.safetensors"

    def latents_file(self, number: int) -> Path:
        return self.folder / f"{self.key}-latents-{number}.safetensors"

    def restore(self, model: nn.Module, latents: Latents | None) -> list[StageReport]:
        """Read the model and the latent weights after the last finished stage; nothing happens if there is none."""
        if not self.stage_file.is_file():
            return []
        try:
            stages = read_header(self.stage_file)["extra"]["stages"]
            weights = {} if latents is None else load_file(self.latents_file(len(stages) - 1))
            device = next(model.parameters()).device
            load_compressed_(model, self.stage_file).to(device)
        except (CompressedFileError, SafetensorError, FileNotFoundError) as error:
            say(f"{error} The run starts again.")
            return []
        if latents is not None:
            latents.add({name: weight.to(device) for name, weight in weights.items()})
        return [StageReport.from_dict(stage) for stage in stages]

    def save(self, model: nn.Module, latents: Latents | None, reports: Sequence[StageReport]) -> None:
        if rank() != 0:
            return
        number = len(reports) - 1
        if latents is not None:
            with atomic_path(self.latents_file(number)) as temporary:
                save_file({name: weight.contiguous() for name, weight in latents.weights.items()}, temporary)
        save_compressed(model, self.stage_file, extra={"stages": [report.to_dict() for report in reports]})
        for earlier in range(number + 1):
            remove(self.steps_file(earlier))
        for earlier in range(number):
            remove(self.latents_file(earlier))


def _digest(model: nn.Module) -> str:
    """Hash of the state and of which parameters are frozen."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    state = state_digest(model.state_dict())
    return content_hash([state, frozen]) if frozen else state


def _check_same(found: Mapping[str, Any], parts: Mapping[str, Any], folder: Path) -> None:
    """Refuse to continue a run with other arguments."""
    for name, value in parts.items():
        if name != "config" and found.get(name) != value:
            raise ValueError(
                f"Argument `{name}` must be that of the run whose checkpoints are in {str(folder)!r}, but is another. "
                "Give the same, or another folder, or delete this one."
            )
    left_out = {name: field.default for name, field in IPQConfig.model_fields.items() if field.exclude_if is not None}
    before, now = (left_out | config for config in (found["config"], parts["config"]))
    for name in now:
        if before.get(name) != now[name]:
            raise ValueError(
                f"Key `{name}` must be {before.get(name)!r} as in the run whose checkpoints are in {str(folder)!r}, "
                f"but is {now[name]!r}. Give the same value, or another folder, or delete this one."
            )


def check_stages(model: nn.Module, rules: Sequence[Rule], config: IPQConfig) -> None:
    """Refuse rules that do not fit the model, stage by stage; see `quantizable`. Stages that are not named may lack."""
    for part in config.parts:
        quantizable(model, rules, stage=part)


def _parts(stages: Sequence[str]) -> tuple[str, ...]:
    return tuple(part for stage in stages for part in stage.split("+"))


def _history(rows: Sequence[Mapping[str, Any]]) -> tuple[Iteration, ...]:
    return tuple(Iteration(**row) for row in rows)
