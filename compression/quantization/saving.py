"""What ``save_pretrained`` of `transformers` models writes, kept to the layers that they have."""

import sys

from torch import nn


def follow_layers_(model: nn.Module) -> nn.Module:
    """Let ``save_pretrained`` write packed codes if a model has product-quantized layers, and dense weights if not.

    Parameters
    ----------
    model
        A model of `transformers`, or any module that holds some; each of them is changed, in place. Nothing is done,
        nor `transformers` imported, if there is none.

    Returns
    -------
    torch.nn.Module
        `model`.
    """
    modeling = sys.modules.get("transformers.modeling_utils")  # loaded, if a model of it exists
    if modeling is not None and any(isinstance(module, modeling.PreTrainedModel) for module in model.modules()):
        from compression.quantization.hf import attach_quantizer_, detach_quantizer_
        from compression.quantization.layers import pq_modules

        (attach_quantizer_ if pq_modules(model) else detach_quantizer_)(model)
    return model
