"""Loss of a model against true labels."""

import torch
from torch.nn import functional


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
