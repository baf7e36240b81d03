"""What the fine-tuning of iPQ minimises: distillation on token sequences or any batches, or a step of one's own."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import sha256
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from compression.quantization.calibration import Batch, evaluating, logits_in, real_rows
from compression.quantization.files import state_digest
from compression.training.batches import EncodedData, calibration_batches, training_batches
from compression.training.distillation import (
    DistillationConfig,
    TeacherOutputs,
    distillation_loss,
    hidden_loss,
    logit_loss,
    teach,
)
from compression.training.distributed import from_first, rank, shard, world_size
from compression.training.losses import check_labels
from compression.training.precision import Precision, autocast
from shared.artifacts import content_hash

TrainStep = Callable[[nn.Module, Any], torch.Tensor]
"""Returns the loss of a model on a batch as a scalar tensor; ``Trainer.compute_loss`` of `transformers` is one."""

_N_CALIBRATION = 256


class Objective(Protocol):
    """Data and loss of the fine-tuning."""

    def identity(self) -> dict[str, str]:
        """Return hashes by which a run is known, by argument of `compression.ipq`."""

    def losses(self, model: nn.Module, n_steps: int, seed: int) -> Callable[[int], torch.Tensor]:
        """Return the loss of each of `n_steps` steps, a function of the model, the arguments and PyTorch's generator.

        In a group of processes its mean over them is the loss of the step.
        """

    def calibration(self, seed: int, device: torch.device) -> list[Batch]:
        """Return random batches of about 256 rows, or of all there are, on a device."""


class SequenceDistillation:
    """Distillation on token sequences, from outputs of a teacher that are computed once.

    Parameters
    ----------
    data
        Token sequences.
    teacher
        A sequence classifier of the `transformers` kind, or its outputs on `data`.
    distillation, precision, batch_size
        As in `compression.IPQConfig`.

    Raises
    ------
    ValueError
        If the outputs are not of as many sequences, or lack hidden states that the loss uses, or it uses labels for
        which the teacher has no output.
    """

    def __init__(
        self,
        data: EncodedData,
        teacher: nn.Module | TeacherOutputs,
        distillation: DistillationConfig,
        precision: Precision,
        batch_size: int,
    ) -> None:
        if distillation.label_weight > 0:
            check_labels(data.labels, teacher, "train_data")
        if isinstance(teacher, nn.Module):
            teacher = teach(teacher, data, hidden_layers=distillation.needed_layers, precision=precision)
        if len(teacher.logits) != len(data):
            raise ValueError(
                f"Argument `teacher` must hold outputs on the {len(data)} rows of `train_data`, "
                f"but holds {len(teacher.logits)}."
            )
        missing = set(distillation.needed_layers) - set(teacher.hidden)
        if missing:
            raise ValueError(f"Argument `teacher` must hold the hidden states {sorted(missing)} that the loss uses.")
        self._data, self._teacher, self._distillation = data, teacher, distillation
        self._precision, self._batch_size = precision, batch_size

    def identity(self) -> dict[str, str]:
        """Return hashes of the sequences and of the teacher's logits."""
        return {"train_data": self._data.sha256, "teacher": state_digest({"logits": self._teacher.logits})}

    def losses(self, model: nn.Module, n_steps: int, seed: int) -> Callable[[int], torch.Tensor]:
        """Return the loss of each step; each process takes part of every batch."""
        batches = training_batches(self._data.lengths, self._batch_size, n_steps, seed)

        def loss(step: int) -> torch.Tensor:
            rows, factor = shard(batches[step])
            with autocast(self._precision, next(model.parameters()).device):
                return factor * distillation_loss(model, self._data, rows, self._teacher, self._distillation)

        return loss

    def calibration(self, seed: int, device: torch.device) -> list[Batch]:
        """Return 256 random sequences, sorted by length."""
        batches = calibration_batches(self._data, min(_N_CALIBRATION, len(self._data)), seed=seed)
        return [_moved(batch, device) for batch in batches]


class BatchDistillation:
    """Distillation on a model's own batches: the teacher is asked in every step, and nothing is kept of its outputs.

    The loss is `logit_loss` over all rows of the logits, whose classes are the last dimension, and the mean
    `hidden_loss` of the layers with its weight. Positions that an ``attention_mask`` marks as padding are left out.

    Parameters
    ----------
    teacher
        The uncompressed model.
    distillation
        As in `compression.IPQConfig`.
    """

    def __init__(self, teacher: nn.Module, distillation: DistillationConfig) -> None:
        self._teacher, self._distillation = teacher, distillation

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss on a batch."""
        layers = self._distillation.needed_layers
        with torch.no_grad(), evaluating(self._teacher):
            expected, *expected_hidden = _outputs(self._teacher, _moved(batch, _device(self._teacher)), layers)
        found, *found_hidden = _outputs(model, batch, layers)
        if found.shape != expected.shape:
            raise ValueError(
                f"Argument `teacher` must give logits as `model` does, {tuple(found.shape)} on a batch, "
                f"but gives {tuple(expected.shape)}."
            )
        loss = logit_loss(found, expected.to(found.device), self._distillation.temperature)
        if layers:
            pairs = zip(found_hidden, expected_hidden, strict=True)
            parts = torch.stack([hidden_loss(states, target.to(states.device)) for states, target in pairs])
            loss = loss + self._distillation.hidden_weight * parts.mean()
        return loss

    def identity(self) -> dict[str, str]:
        """Return the hash of the teacher's state."""
        return {"teacher": state_digest(self._teacher.state_dict())}


class BatchObjective:
    """A loss on batches that are all in memory, each epoch in an order of its own.

    In a group of n processes each takes another batch, so that a step averages over n of them.

    Parameters
    ----------
    batches
        Batches.
    step
        The loss of a model on a batch.
    precision
        As in `compression.IPQConfig`.
    """

    def __init__(self, batches: list[Any], step: BatchDistillation | TrainStep, precision: Precision) -> None:
        self._batches, self._step, self._precision = batches, step, precision

    def identity(self) -> dict[str, str]:
        """Return hashes of the batches and of the teacher, or in its place what the step is known by."""
        parts = {"train_data": content_hash([_description(batch) for batch in self._batches])}
        if isinstance(self._step, BatchDistillation):
            return parts | self._step.identity()
        return parts | {"train_step": from_first(_step_identity(self._step))}

    def check(self, model: nn.Module) -> None:
        """Compute the loss of the first batch and refuse it if it cannot be minimised."""
        device = _device(model)
        frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
        try:
            for parameter in frozen:  # the codebooks of a frozen layer are trained nevertheless
                parameter.requires_grad_(True)
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                loss = self._loss(model, self._batches[0])
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
        if not isinstance(loss, torch.Tensor) or loss.ndim > 0 or not loss.requires_grad:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            if isinstance(loss, torch.Tensor) and loss.ndim == 0:
                what = "one that depends on none of them"
            raise ValueError(
                "Argument `train_step` must return a scalar tensor that depends on the model's parameters, "
                f"but returned {what}."
            )
        if not torch.isfinite(loss):
            raise ValueError(f"The loss of the uncompressed model on the first batch must be finite, but is {loss}.")
        if model.training:
            raise ValueError("Argument `train_step` must leave the model in evaluation mode, but called its `train()`.")

    def losses(self, model: nn.Module, n_steps: int, seed: int) -> Callable[[int], torch.Tensor]:
        """Return the loss of each step."""
        n = world_size()
        order = [row for (row,) in training_batches(torch.ones(len(self._batches)), 1, n * n_steps, seed)]
        return lambda step: self._loss(model, self._batches[order[n * step + rank()]])

    def calibration(self, seed: int, device: torch.device) -> list[Batch]:
        """Return random batches, each whole, with 256 rows or some more."""
        chosen: list[Batch] = []
        n_rows = 0
        for number in torch.randperm(len(self._batches), generator=torch.Generator().manual_seed(seed)).tolist():
            batch = self._batches[number]
            if n_rows < _N_CALIBRATION:
                chosen.append(_moved(batch, device))
                n_rows += len(batch if isinstance(batch, torch.Tensor) else next(iter(batch.values())))
        return chosen

    def _loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        device = _device(model)
        with autocast(self._precision, device):
            return self._step(model, _moved(batch, device))


def objective_of(
    train_data: EncodedData | Iterable[Any],
    teacher: nn.Module | TeacherOutputs | None,
    train_step: TrainStep | None,
    *,
    distillation: DistillationConfig,
    precision: Precision,
    batch_size: int,
    activations: str = "float32",
) -> SequenceDistillation | BatchObjective:
    """Return the objective that arguments of `compression.ipq` ask for.

    Raises
    ------
    ValueError
        If they do not go together, or a batch is not as it must be.
    """
    if (teacher is None) == (train_step is None):
        raise ValueError(
            "One of the arguments `teacher` (for distillation) and `train_step` (for a loss of your own, which may ask "
            f"a teacher itself) must be given, but {'neither was' if teacher is None else 'both were'}."
        )
    if isinstance(train_data, EncodedData):
        if teacher is None:
            raise ValueError("Argument `train_data` must be batches where there is a `train_step`, not `EncodedData`.")
        return SequenceDistillation(train_data, teacher, distillation, precision, batch_size)
    if isinstance(train_data, torch.Tensor | Mapping | str) or not isinstance(train_data, Iterable):
        raise ValueError(
            "Argument `train_data` must be `EncodedData` or several batches, in a list or a `DataLoader`, "
            f"but was {type(train_data).__name__}; a tensor `x` of all rows can be given as `x.split(32)`."
        )
    batches = list(train_data)
    if not batches:
        raise ValueError("Argument `train_data` must hold at least one batch, but was empty.")
    plain = all(isinstance(batch, Mapping | torch.Tensor) and len(batch) > 0 for batch in batches)
    if not plain and (train_step is None or activations == "int8"):
        kinds = ", ".join(sorted({type(batch).__name__ for batch in batches}))
        why = "Give a `train_step` for others" if train_step is None else "Others cannot calibrate `activations`"
        raise ValueError(
            "Argument `train_data` must hold batches that are tensors or mappings of the model's keyword arguments, "
            f"not empty, but held {kinds}. {why}."
        )
    if train_step is not None:
        if distillation != DistillationConfig():
            raise ValueError("Key `distillation` must be the default where `train_step` returns the loss.")
        return BatchObjective(batches, train_step, precision)
    if not isinstance(teacher, nn.Module):
        raise ValueError(f"Argument `teacher` must be a module where there are batches, not {type(teacher).__name__}.")
    if distillation.label_weight > 0:
        raise ValueError("Key `label_weight` must be 0 with batches: a `train_step` can compare with labels.")
    return BatchObjective(batches, BatchDistillation(teacher, distillation), precision)


def _step_identity(step: Any) -> str:
    """Name of a step with a hash of its code and of what it captured, the same in every process.

    Captured are defaults of arguments, variables of the function around it, and the parts of a `functools.partial`.
    They count where they are plain: numbers, texts, bytes, None, types and devices of PyTorch, tensors, arrays,
    functions (with what these captured), names of classes, and tuples, lists, dictionaries and sets of such. Of any
    other value, an object or a module, only the name of its type counts: what is in its attributes is not covered,
    those of a method's own object included, nor are globals, which a function looks up by name.
    """
    name = getattr(step, "__qualname__", type(step).__qualname__)
    return f"{name} {content_hash(_known_by(step))[:16]}"


def _known_by(value: Any, within: tuple[int, ...] = ()) -> Any:
    """What of a value counts in `_step_identity`, JSON-able; `within` are the ids of the values it is a part of."""
    if id(value) in within:  # of a function that calls itself
        return ["above", within.index(id(value))]

    def parts(*values: Any) -> list[Any]:
        return [_known_by(part, (*within, id(value))) for part in values]

    kind = type(value).__qualname__
    if isinstance(value, CodeType):
        return [value.co_code.hex(), list(value.co_names), parts(*value.co_consts)]
    if isinstance(value, FunctionType):
        return [kind, parts(value.__code__, value.__defaults__, value.__kwdefaults__, *(value.__closure__ or ()))]
    if isinstance(value, CellType):
        return [kind, [] if value == CellType() else parts(value.cell_contents)]
    if isinstance(value, MethodType):
        return [kind, parts(value.__func__, value.__self__)]
    if isinstance(value, partial):
        return [kind, parts(value.func, value.args, value.keywords)]
    if isinstance(value, tuple | list):
        return [kind, parts(*value)]
    if isinstance(value, set | frozenset | dict):  # in an order that is the same in every process
        return [kind, sorted(parts(*(value.items() if isinstance(value, dict) else value)), key=content_hash)]
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
        return [kind, state_digest({"": value})]
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return [str(value.dtype), list(value.shape), sha256(value.tobytes()).hexdigest()]
    if value is None or isinstance(value, str | bytes | int | float | complex | torch.dtype | torch.device):
        return repr(value)
    return [kind, value.__qualname__ if isinstance(value, type | BuiltinFunctionType) else ""]


def _device(module: nn.Module) -> torch.device:
    parameter = next(module.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _moved(value: Any, device: torch.device) -> Any:
    """Tensors on a device, in a copy of the mappings, lists and tuples that hold them."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(part, device) for name, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_moved(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _outputs(model: nn.Module, batch: Batch, layers: tuple[int, ...]) -> list[torch.Tensor]:
    """Logits and hidden states of all rows that are no padding, each float32 as (rows, features)."""
    options: dict[str, Any] = {"output_hidden_states": True} if layers else {}
    output = model(**batch, **options) if isinstance(batch, Mapping) else model(batch, **options)
    tensors = [logits_in(output)] + [output.hidden_states[layer].flatten(0, -2).float() for layer in layers]
    return [real_rows(batch, tensor) for tensor in tensors]


def _description(value: Any) -> Any:
    """What stands for a batch in the hash of a run, JSON-able."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, torch.Tensor):
        return ["tensor", state_digest({"": value})]
    if isinstance(value, Mapping):
        return ["mapping", [[str(name), _description(part)] for name, part in value.items()]]
    if isinstance(value, list | tuple):
        return ["sequence", [_description(part) for part in value]]
    if value is None or isinstance(value, str | int | float | bool):
        return repr(value)
    raise ValueError(
        "Argument `train_data` must hold tensors, arrays, texts and numbers (in mappings, lists and tuples) for a run "
        f"with `checkpoints`, which is known by them, but holds {type(value).__name__}."
    )
