"""What calibration batches say about a model: which inputs its layers see, which weights its outputs depend on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional

from compression.quantization.convolution import PQConv2d, pads
from compression.quantization.layers import DENSE

Batch = Mapping[str, torch.Tensor] | torch.Tensor
"""Keyword arguments of a model, or its only argument."""

Layer = TypeVar("Layer", bound=nn.Module)

_FLOOR = 1e-3


def logits_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the outputs of a model as (n, classes): its ``logits`` if it has them, else the output itself.

    Logits of positions that an ``attention_mask`` marks as padding are left out.
    """
    return real_rows(batch, logits_in(model(**batch) if isinstance(batch, Mapping) else model(batch)))


def real_rows(batch: Batch, rows: torch.Tensor) -> torch.Tensor:
    """Return the rows without those of padding, if there is one for each position of the ``attention_mask``."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if mask is None or mask.ndim != 2 or mask.numel() != len(rows):
        return rows
    return rows[mask.reshape(-1).bool().to(rows.device)]


def logits_in(output: Any) -> torch.Tensor:
    """Return the logits in what a model returned, see `logits_of`."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor) or logits.ndim < 2:
        raise ValueError(
            "Argument `model` must return logits of shape (n, ..., classes), or an object that has them as `logits`, "
            f"but returned {type(logits).__name__}."
        )
    return logits.flatten(0, -2).float()


@torch.inference_mode()
def all_logits(model: nn.Module, batches: Iterable[Batch]) -> list[torch.Tensor]:
    """Return the logits of a model on each batch, in evaluation mode."""
    with evaluating(model):
        return [logits_of(model, batch) for batch in batches]


def divergence(reference: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Return the mean Kullback-Leibler divergence, in nats a row, of the distributions of two lists of logits.

    Logits of several columns are those of classes. One column is a regression's estimate: the distributions are then
    normal, with the variance of the reference's estimates, and the divergence is the mean squared difference over twice
    that variance.
    """
    first, second = (torch.cat(list(part)).double() for part in (reference, other))
    if first.shape[1] == 1:
        variance = float(first.var(correction=0)) or 1.0
        return float((first - second).square().mean() / (2 * variance))
    first, second = (functional.log_softmax(part, 1) for part in (first, second))
    return float(functional.kl_div(second, first, reduction="batchmean", log_target=True))


@contextmanager
def evaluating(model: Layer) -> Any:
    """Put a model into evaluation mode for a block, and each of its modules back into the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        model.train(modes[model])
        for module, training in modes.items():
            module.training = training


def check_batches(batches: Iterable[Batch]) -> list[Batch]:
    """Return the batches as a list, or raise an error that says what they must be."""
    found = list(batches)
    if not found or not all(isinstance(batch, Mapping | torch.Tensor) for batch in found):
        kinds = ", ".join(sorted({type(batch).__name__ for batch in found})) or "nothing"
        raise ValueError(
            "Argument `calibration` must hold at least one batch, each a mapping of the model's keyword arguments or a "
            f"tensor, but held {kinds}."
        )
    return found


@torch.inference_mode()
def each_input(
    model: nn.Module,
    batches: Iterable[Batch],
    layers: Mapping[str, nn.Module],
    consume: Callable[[str, torch.Tensor], None],
) -> None:
    """Run a model, in evaluation mode, and show what its layers are given.

    Parameters
    ----------
    model
        Any module.
    batches
        Batches. Positions that an ``attention_mask`` marks as padding are left out.
    layers
        Modules of the model by name.
    consume
        Called with the name and the input of a layer each time it is used: (n,) row numbers for an embedding, the whole
        input of a convolution, and (n, features) for others.
    """
    mask: torch.Tensor | None = None

    def record(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], by_name: dict[str, Any]) -> None:
            x = arguments[0] if arguments else by_name["input"]
            if not x.is_floating_point():
                lead, rows = x.shape, x.reshape(-1)
            elif isinstance(module, nn.Conv2d | PQConv2d):
                lead, rows = x.shape[:0], x
            else:
                lead, rows = x.shape[:-1], x.reshape(-1, x.shape[-1])
            if mask is not None and lead and mask.shape[1:] == lead[1:] and mask.shape[0] in (1, lead[0]):
                rows = rows[mask.expand(lead).bool().reshape(-1)]
            if len(rows):
                consume(name, rows)

        return hook

    handles = [layer.register_forward_pre_hook(record(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        with evaluating(model):
            for batch in batches:
                mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
                mask = mask if mask is not None and mask.ndim == 2 else None
                logits_of(model, batch)
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def activation_weights(
    model: nn.Module, calibration: Iterable[Batch], names: Sequence[str] | None = None
) -> dict[str, torch.Tensor]:
    """Return weights for the clustering from what the layers are given.

    A linear layer's squared output error is sum_ij E[x_j^2] dW_ij^2 if its inputs are uncorrelated, so that the weight
    of entry (i, j) is the second moment of input feature j; the features of a convolution are the cells of the patches
    that its filter meets, padding included. The output error of an embedding is that of the rows that are looked up, so
    that the weight of an entry is how often its row is (plus one half: a row that the batches lack is not a row that
    never comes).

    Parameters
    ----------
    model
        Any module; used in evaluation mode.
    calibration
        Batches. Positions that an ``attention_mask`` marks as padding do not count.
    names
        Linear layers, embeddings and convolutions; all if ``None``.

    Returns
    -------
    dict
        For each layer float32 of its weight's shape with mean 1, at least 0.001 of it everywhere. For a layer that no
        batch reached: ones.
    """
    batches = check_batches(calibration)
    layers = _layers(model, names)
    totals: dict[str, torch.Tensor] = {}

    def add(name: str, x: torch.Tensor) -> None:
        layer = layers[name]
        if isinstance(layer, nn.Embedding):
            seen = torch.bincount(x.cpu(), minlength=len(layer.weight))[:, None].float()
        elif isinstance(layer, nn.Conv2d):
            seen = _patch_squares(layer, x.cpu().float())
        else:
            seen = x.cpu().float().square().sum(0)
        totals[name] = totals.get(name, 0.0) + seen

    each_input(model, batches, layers, add)
    weights = {}
    for name, layer in layers.items():
        total = totals.get(name, torch.zeros(()))
        if isinstance(layer, nn.Embedding):
            total = total + 0.5
        weights[name] = _positive(total).expand(layer.weight.shape)
    return weights


def fisher_weights(
    model: nn.Module, calibration: Iterable[Batch], names: Sequence[str] | None = None, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return weights for the clustering from the diagonal of the Fisher information.

    To second order the Kullback-Leibler divergence that a change dW causes is 1/2 sum_ij F_ij dW_ij^2 (off-diagonal
    terms aside) with F_ij the mean squared gradient of the log likelihood of labels drawn from the model itself. Such
    gradients of two sentences are uncorrelated, so that the squared gradient of a batch's sum estimates the sum of
    squares without bias. Labels of a regression (one output column) are drawn from a normal distribution around it.
    Source: Martens, arXiv:1412.1193.

    Parameters
    ----------
    model, calibration, names
        As in `activation_weights`.
    seed
        Of the labels.

    Returns
    -------
    dict
        As `activation_weights`.
    """
    batches = check_batches(calibration)
    layers = _layers(model, names)
    generator = torch.Generator().manual_seed(seed)
    with evaluating(model), torch.enable_grad(), _differentiable(layers.values()) as weights:
        totals = {name: torch.zeros(weight.shape) for name, weight in zip(layers, weights, strict=True)}
        for batch in batches:
            logits = logits_of(model, batch)
            if logits.shape[1] == 1:
                noise = torch.randn(logits.shape, generator=generator).to(logits.device)
                loss = (logits - (logits.detach() + noise)).square().sum() / 2
            else:
                labels = torch.multinomial(logits.detach().cpu().softmax(1), 1, generator=generator)[:, 0]
                loss = functional.cross_entropy(logits, labels.to(logits.device), reduction="sum")
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for name, gradient in zip(layers, gradients, strict=True):
                if gradient is not None:
                    totals[name] += gradient.detach().float().cpu().square()
    return {name: _positive(total) for name, total in totals.items()}


@contextmanager
def _differentiable(layers: Iterable[Any]) -> Iterator[list[torch.Tensor]]:
    """Let gradients of the weights of layers, of frozen ones too, be computed for a block, and return the weights."""
    weights = [layer.weight for layer in layers]
    frozen = [weight for weight in weights if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        yield weights
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def _patch_squares(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Sums over images and places of the squared inputs of the entries of each filter (of one, if all see the same)."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    squares = x.square().reshape(-1, *x.shape[-3:]).sum(0, keepdim=True)
    padded = functional.pad(squares, pads(layer), mode=mode)
    size, step, dilation = ((pair[0], pair[1]) for pair in (layer.kernel_size, layer.stride, layer.dilation))
    sums = functional.unfold(padded, size, dilation=dilation, stride=step).sum(-1)
    grouped = sums.reshape(layer.groups, *layer.weight.shape[1:])
    return grouped if layer.groups == 1 else grouped.repeat_interleave(len(layer.weight) // layer.groups, 0)


def _layers(model: nn.Module, names: Sequence[str] | None) -> dict[str, nn.Linear | nn.Embedding | nn.Conv2d]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, DENSE)}
    if names is None:
        return found
    unknown = [name for name in names if name not in found]
    if unknown:
        raise ValueError(
            f"Argument `names` must hold names of linear layers, embeddings and convolutions, but has {unknown[0]!r}."
        )
    return {name: found[name] for name in names}


def _positive(totals: torch.Tensor) -> torch.Tensor:
    mean = totals.mean()
    return (totals / mean).clamp_(min=_FLOOR) if mean > 0 else torch.ones_like(totals)
