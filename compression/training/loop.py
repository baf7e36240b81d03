"""A training loop whose result does not depend on where it was interrupted."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from compression.training.distributed import average_gradients, mean_over_processes, rank
from shared.artifacts import atomic_path
from shared.progress import progress, say

NamedParameters = dict[str, torch.nn.Parameter] | dict[str, torch.Tensor]
"""Leaf tensors that need gradients, by name."""

_SEED_STRIDE = 1_000_003


class Schedule:
    """Linear warm-up to a peak, then linear or cosine decay to zero.

    Parameters
    ----------
    n_steps
        Number of steps.
    warmup_fraction
        Part of the steps in which the rate rises.
    decay
        ``"linear"`` or ``"cosine"``.
    """

    def __init__(self, n_steps: int, warmup_fraction: float, decay: str = "linear") -> None:
        self.n_steps = n_steps
        self.decay = decay
        self.n_warmup = math.ceil(n_steps * warmup_fraction)

    def __call__(self, step: int) -> float:
        """Return the factor of the learning rate in step `step` (from 0), in (0, 1]."""
        if step < self.n_warmup:
            return (step + 1) / self.n_warmup
        left = (self.n_steps - step) / max(1, self.n_steps - self.n_warmup)
        return left if self.decay == "linear" else math.sin(left * math.pi / 2) ** 2


def parameter_groups(
    parameters: NamedParameters, lr: float, weight_decay: float, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return AdamW groups by weight decay (only matrices decay, not biases and layer norms) and learning rate."""
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for name, parameter in parameters.items():
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((decay, rates.get(name, lr)), []).append(parameter)
    return [{"params": members, "weight_decay": decay, "peak": rate} for (decay, rate), members in groups.items()]


def run_steps(
    parameters: NamedParameters,
    loss: Callable[[int], torch.Tensor],
    n_steps: int,
    *,
    lr: float,
    rates: Mapping[str, float] | None = None,
    weight_decay: float = 0.0,
    warmup_fraction: float = 0.1,
    decay: str = "linear",
    max_grad_norm: float = 1.0,
    seed: int = 0,
    buffers: Mapping[str, torch.Tensor] | None = None,
    before_step: Callable[[int], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 50,
    key: str = "",
    description: str = "Training",
) -> list[float]:
    """Minimise a loss with AdamW over named parameters, in place.

    The random numbers of a step (dropout) come from `seed` and the step's number alone, so that a run that continues
    from a checkpoint gives the same result, bit for bit, as one that was never interrupted (same machine and number
    of threads). PyTorch's global random state is left as it was.

    In a group of processes (see `compression.training.distributed`) gradients and losses are averaged over them, and
    process 0 writes the checkpoints.

    Parameters
    ----------
    parameters
        What to change, by name.
    loss
        Returns the loss of step i as a scalar tensor.
    n_steps
        Number of steps.
    lr
        Peak learning rate, see `Schedule`.
    rates
        Other peak learning rates for some parameters, by name.
    weight_decay
        Decoupled weight decay of tensors with two or more dimensions.
    warmup_fraction
        Part of the steps with a rising learning rate.
    decay
        Of the learning rate after it, see `Schedule`.
    max_grad_norm
        Largest norm of the whole gradient; longer ones are scaled down.
    seed
        Seed of the random numbers that the loss draws.
    buffers
        Tensors besides the parameters that `before_step` changes, by name; they are part of a checkpoint.
    before_step
        Called with the number of each step before it; a function of parameters and buffers.
    checkpoint
        File (safetensors) for the state of an unfinished run, or ``None``. It is read when it is there and fits `key`.
    checkpoint_every
        Steps between two checkpoints.
    key
        Names the work; a checkpoint of other work is not used.
    description
        Shown with the progress.

    Returns
    -------
    list of float
        The loss of each step.

    Raises
    ------
    FloatingPointError
        If a loss or a gradient is not finite.
    """
    if not parameters:
        raise ValueError("Argument `parameters` must hold at least one parameter, but was empty.")
    fused = all(parameter.device.type == "cpu" for parameter in parameters.values())  # an eighth of the time there
    optimizer = torch.optim.AdamW(parameter_groups(parameters, lr, weight_decay, rates or {}), lr=lr, fused=fused)
    schedule = Schedule(n_steps, warmup_fraction, decay)
    buffers = buffers or {}
    losses = _restore(checkpoint, key, parameters, buffers, optimizer) if checkpoint is not None else []
    devices = sorted({p.device for p in parameters.values() if p.device.type == "cuda"}, key=str)
    with progress(description, total=n_steps) as advance:
        advance(len(losses))
        for step in range(len(losses), n_steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(step)
            if before_step is not None:
                before_step(step)
            with _random_numbers(seed * _SEED_STRIDE + step, devices):
                value = loss(step)
            mean = mean_over_processes(value)
            if not torch.isfinite(mean):
                raise FloatingPointError(f"The loss of step {step} is {mean.item()}. Lower the learning rate ({lr}).")
            value.backward()
            average_gradients(parameters.values())
            norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), max_grad_norm)
            if not torch.isfinite(norm):
                raise FloatingPointError(
                    f"The gradient of step {step} is {norm.item()}. Lower the learning rate ({lr})."
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(mean.item())
            advance(note=f"loss {sum(losses[-20:]) / len(losses[-20:]):.3f}")
            due = len(losses) % checkpoint_every == 0 and len(losses) < n_steps
            if checkpoint is not None and due and rank() == 0:
                save_checkpoint(checkpoint, key, parameters, buffers, optimizer, losses)
    return losses


@contextmanager
def _random_numbers(seed: int, devices: list[torch.device]) -> Iterator[None]:
    """Seed PyTorch's default generators for a block and put their state back after it."""
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def save_checkpoint(
    path: Path,
    key: str,
    parameters: NamedParameters,
    buffers: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    losses: list[float],
) -> None:
    """Write parameters, buffers, optimizer moments and losses as one safetensors file, atomically."""
    tensors = {f"parameter:{name}": parameter.detach() for name, parameter in parameters.items()}
    tensors |= {f"buffer:{name}": buffer for name, buffer in buffers.items()}
    steps = {}  # of each parameter: one that gets no gradient in a step is passed over
    for name, parameter in parameters.items():
        state = optimizer.state.get(parameter, {})
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in state:
                tensors[f"{moment}:{name}"] = state[moment]
                steps[name] = float(state["step"])
    metadata = {"key": key, "losses": json.dumps(losses), "steps": json.dumps(steps)}
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def _restore(
    path: Path,
    key: str,
    parameters: NamedParameters,
    buffers: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> list[float]:
    """Set parameters and optimizer to a checkpoint and return its losses, or leave them and return no losses."""
    if not path.is_file():
        return []
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = set(file.keys())
            needed = {f"parameter:{name}" for name in parameters} | {f"buffer:{name}" for name in buffers}
            if metadata.get("key") != key or not needed <= names:
                say(f"The checkpoint {path} is of other work and is not used.")
                return []
            steps = json.loads(metadata["steps"])
            if not isinstance(steps, dict):  # as checkpoints were once written
                steps = dict.fromkeys(parameters, steps)
            with torch.no_grad():
                for name, buffer in buffers.items():
                    buffer.copy_(file.get_tensor(f"buffer:{name}"))
                for name, parameter in parameters.items():
                    parameter.copy_(file.get_tensor(f"parameter:{name}"))
                    if f"exp_avg:{name}" in names:
                        moments = {m: file.get_tensor(f"{m}:{name}") for m in ("exp_avg", "exp_avg_sq")}
                        moments = {m: tensor.to(parameter.device) for m, tensor in moments.items()}
                        optimizer.state[parameter] = {"step": torch.tensor(steps[name]), **moments}
    except SafetensorError as error:
        say(f"The checkpoint {path} cannot be read ({error}) and is not used.")
        return []
    return [float(value) for value in json.loads(metadata["losses"])]
