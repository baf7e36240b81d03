"""Distillation: the uncompressed model teaches the compressed one, through logits and, on request, hidden states."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from compression.quantization.calibration import evaluating
from compression.quantization.files import state_digest
from compression.training.batches import EncodedData, evaluation_batches
from compression.training.losses import label_loss
from compression.training.precision import Precision, autocast
from shared.config import FrozenConfig
from shared.progress import progress


class DistillationConfig(FrozenConfig):
    """What the student is to match.

    Parameters
    ----------
    temperature
        Divides the logits of both models before the Kullback-Leibler divergence, which is multiplied by its square.
    hidden_weight
        Weight of the mean squared difference of hidden states, in units of their mean square; 0 for logits alone.
    hidden_layers
        Which hidden states, counted as `transformers` does: 0 is the embedding, -1 the last layer.
    label_weight
        Weight of the cross entropy (for regression the squared error) with the true labels.
    """

    temperature: float = Field(2.0, gt=0)
    hidden_weight: float = Field(0.0, ge=0)
    hidden_layers: tuple[int, ...] = (-1,)
    label_weight: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _weighted_layers_are_named(self) -> "DistillationConfig":
        if self.hidden_weight > 0 and not self.hidden_layers:
            raise ValueError(
                f"Key `hidden_layers` must name a layer where `hidden_weight` is {self.hidden_weight:g}, but is empty."
            )
        return self

    @property
    def needed_layers(self) -> tuple[int, ...]:
        """The hidden states that the loss uses."""
        return self.hidden_layers if self.hidden_weight > 0 else ()


def check_layers(distillation: DistillationConfig, model: Any, key: str = "distillation") -> None:
    """Refuse hidden states that a model of `transformers`, or of such a configuration, does not have.

    Parameters
    ----------
    distillation
        What the loss uses.
    model
        The configuration, or the model; not checked if it does not say how many layers it has.
    key
        What the message calls `distillation`.
    """
    n_layers = getattr(getattr(model, "config", model), "num_hidden_layers", None)
    if not isinstance(n_layers, int):
        return
    for layer in distillation.needed_layers:
        if not -n_layers - 1 <= layer <= n_layers:
            raise ValueError(
                f"Key `{key}.hidden_layers` must hold numbers from {-n_layers - 1} to {n_layers} for a model of "
                f"{n_layers} layers, but holds {layer}."
            )


@dataclass(frozen=True)
class TeacherOutputs:
    """Outputs of a teacher on n sentences, computed once and kept in memory.

    Parameters
    ----------
    logits
        float32, shape (n, classes).
    hidden
        For each layer the hidden states of all real tokens of all sentences, float16, shape (tokens, width).
    offsets
        First token of each sentence in `hidden`, and the number of tokens, int64, shape (n + 1,).
    """

    logits: torch.Tensor
    hidden: dict[int, torch.Tensor]
    offsets: torch.Tensor

    def hidden_of(self, layer: int, rows: Sequence[int]) -> torch.Tensor:
        """Return the hidden states of the real tokens of some sentences, one sentence after the other, float32."""
        bounds = self.offsets
        # Widened before they are joined: autocasting on a processor has no concatenation of float16.
        return torch.cat([self.hidden[layer][bounds[row] : bounds[row + 1]].float() for row in rows])


@torch.inference_mode()
def teach(
    teacher: nn.Module,
    data: EncodedData,
    *,
    hidden_layers: Sequence[int] = (),
    batch_size: int = 64,
    precision: Precision = "float32",
) -> TeacherOutputs:
    """Run a teacher once over some sentences.

    Parameters
    ----------
    teacher
        A sequence classifier of the `transformers` kind. It is used in evaluation mode and left in the mode it had.
    data
        Token sequences.
    hidden_layers
        Hidden states to keep, see `DistillationConfig`. One layer takes 2·tokens·width bytes.
    batch_size
        Sentences at once.
    precision
        Of the matrix products, see `compression.training.precision.Precision`.
    """
    device = next(teacher.parameters()).device
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), data.lengths.cumsum(0)])
    logits: torch.Tensor | None = None
    hidden: dict[int, torch.Tensor] = {}
    batches = evaluation_batches(data.lengths, batch_size)
    with evaluating(teacher), progress("Asking the teacher", total=len(batches)) as step:
        for rows in batches:
            inputs = data.batch(rows, device)
            with autocast(precision, device):
                output = teacher(**inputs, output_hidden_states=bool(hidden_layers))
            if logits is None:
                logits = torch.empty(len(data), output.logits.shape[1])
            logits[torch.tensor(rows)] = output.logits.float().cpu()
            for layer in hidden_layers:
                states = output.hidden_states[layer].half().cpu()
                if layer not in hidden:
                    hidden[layer] = torch.empty(int(offsets[-1]), states.shape[2], dtype=torch.float16)
                for state, row in zip(states, rows, strict=True):
                    length = int(data.lengths[row])
                    hidden[layer][offsets[row] : offsets[row + 1]] = state[:length]
            step()
    if logits is None:
        raise ValueError("Argument `data` must have at least one row, but is empty.")
    return TeacherOutputs(logits, hidden, offsets)


class LastTeacher:
    """Outputs of the last teacher that was asked, so that runs in a row that share it call `teach` once."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._outputs: TeacherOutputs | None = None

    def __call__(
        self, teacher: nn.Module, data: EncodedData, hidden_layers: Sequence[int], precision: Precision
    ) -> TeacherOutputs:
        """Return what `teach` returns."""
        key = (state_digest(teacher.state_dict()), data.sha256, tuple(hidden_layers), precision)
        if self._outputs is None or key != self._key:
            self._outputs = None  # freed before the next are made
            self._outputs = teach(teacher, data, hidden_layers=hidden_layers, precision=precision)
            self._key = key
        return self._outputs


def logit_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T² KL(teacher ‖ student) of logits divided by T, averaged over the batch.

    A model with a single output is a regression: there it is the mean squared difference of the outputs.

    Parameters
    ----------
    student, teacher
        Logits, shape (batch, classes).
    temperature
        T. Source: Hinton, Vinyals and Dean, arXiv:1503.02531.
    """
    if student.shape[1] == 1:
        return functional.mse_loss(student, teacher)
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def hidden_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of hidden states, shape (tokens, width), over the teacher's mean square."""
    return functional.mse_loss(student, teacher) / teacher.square().mean()


def distillation_loss(
    student: nn.Module, data: EncodedData, rows: Sequence[int], teacher: TeacherOutputs, config: DistillationConfig
) -> torch.Tensor:
    """Return the loss of a student on the sentences `rows`.

    Parameters
    ----------
    student
        A sequence classifier of the `transformers` kind.
    data
        Token sequences.
    rows
        Rows of `data` in the batch.
    teacher
        The teacher's outputs on all of `data`.
    config
        Parts of the loss and their weights.

    Returns
    -------
    torch.Tensor
        Scalar: `logit_loss`, plus the mean `hidden_loss` of the layers and the cross entropy, each with its weight.
    """
    device = next(student.parameters()).device
    inputs = data.batch(rows, device)
    output = student(**inputs, output_hidden_states=bool(config.needed_layers))
    loss = logit_loss(output.logits.float(), teacher.logits[torch.as_tensor(rows)].to(device), config.temperature)
    if config.needed_layers:
        real = inputs["attention_mask"].bool()
        parts = [
            hidden_loss(output.hidden_states[layer][real].float(), teacher.hidden_of(layer, rows).to(device))
            for layer in config.needed_layers
        ]
        loss = loss + config.hidden_weight * torch.stack(parts).mean()
    if config.label_weight > 0:
        labels = data.labels[torch.as_tensor(rows)].to(device)
        loss = loss + config.label_weight * label_loss(output.logits.float(), labels)
    return loss
