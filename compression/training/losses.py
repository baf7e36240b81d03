"""Loss of a model against true labels."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

IGNORED = -100
"""Label that PyTorch's cross entropy leaves out."""


def check_labels(labels: torch.Tensor, model: Any, name: str = "data") -> None:
    """Refuse classes for which a model has no output.

    Parameters
    ----------
    labels
        int64 classes or float32 values, shape (n,).
    model
        A sequence classifier of the `transformers` kind, or its outputs with ``logits``, shape (n, outputs).
    name
        Argument that holds the labels.

    Raises
    ------
    ValueError
        If a class is not one of 0 to ``n_outputs - 1``, or there is not one output for values.
    """
    if isinstance(model, nn.Module):
        n_outputs = getattr(getattr(getattr(model, "module", model), "config", None), "num_labels", None)
        if n_outputs is None:  # not of `transformers`: PyTorch finds out
            return
    else:
        n_outputs = model.logits.shape[1]
    if labels.is_floating_point():
        if n_outputs != 1:
            raise ValueError(
                f"Argument `{name}` must hold int64 classes for a model of {n_outputs} outputs, not values."
            )
        return
    outside = labels[((labels < 0) | (labels >= n_outputs)) & (labels != IGNORED)]
    if len(outside):
        raise ValueError(
            f"Argument `{name}` must hold labels from 0 to {n_outputs - 1}, the outputs of the model, but has "
            f"{int(outside[0])}: give the model a head with as many outputs as there are classes."
        )


def label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy with classes, or for floating-point labels the mean squared error.

    Parameters
    ----------
    logits
        Shape (batch, classes), for regression (batch, 1).
    labels
        int64 classes or float32 values, shape (batch,).
    """
    if labels.is_floating_point():
        return functional.mse_loss(logits[:, 0], labels)
    return functional.cross_entropy(logits, labels)
