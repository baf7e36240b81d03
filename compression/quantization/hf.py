"""Registration with `transformers`: importing this module lets ``from_pretrained`` load compressed folders.

``AutoModelForSequenceClassification.from_pretrained(folder)`` then gives a model with `PQLinear`, `PQEmbedding` and
`PQConv2d` layers, and its ``save_pretrained`` writes packed codes.
"""

import copy
import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from compression.quantization.compact import compact_
from compression.quantization.configuration import check_configuration
from compression.quantization.files import FORMAT, VERSION, CompressedFileError, read_tensors, sealed
from compression.quantization.layers import decode_, pq_modules
from compression.quantization.placing import layer_places, placed
from compression.quantization.storage import build_layers, packed_state


@register_quantization_config(FORMAT)
class PGIPQConfig(QuantizationConfigMixin):
    """Entry ``quantization_config`` of a compressed model's ``config.json``; sizes of layers are in the weights' file.

    Parameters
    ----------
    version
        Of the file format.
    quant_method
        ``"pg-ipq"``.
    """

    def __init__(self, version: int = VERSION, quant_method: str = FORMAT) -> None:
        if quant_method != FORMAT:
            raise ValueError(f"Argument `quant_method` must be {FORMAT!r}, but was {quant_method!r}.")
        self.quant_method = quant_method  # type: ignore[assignment]  # an enumeration in transformers
        self.version = version


@register_quantizer(FORMAT)
class PGIPQQuantizer(HfQuantizer):
    """Loads and saves product-quantized layers for `transformers`; made by ``from_pretrained``.

    Layers that the file holds as codes are taken out of the model before `transformers` loads the rest, and put in,
    built from the verified file, afterwards. The file of a classifier gives an encoder too, and the other way round,
    with the warnings of `transformers` on what was not used or drawn anew. A configuration that computes something else
    than the one in the file is refused, see `compression.quantization.configuration`.
    """

    requires_calibration = True  # a dense model is quantized by `compression.quantize_`, not while it is loaded

    def __init__(self, quantization_config: Any, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._where: Path | None = None
        self._dense: dict[str, nn.Module] = {}
        self._stored: tuple[dict[str, Any], dict[str, torch.Tensor]] = ({}, {})

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Refuse to spread a model over several devices."""
        if isinstance(device_map, dict) and len(set(map(str, device_map.values()))) > 1:
            raise ValueError(f"Argument `device_map` must name one device for a {FORMAT} model, but is {device_map}.")

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        if not checkpoint_files:
            raise CompressedFileError(f"A {FORMAT} model needs a safetensors file, but none was given.")
        first = Path(checkpoint_files[0])
        self._where = first if len(checkpoint_files) == 1 else first.parent
        header, tensors = read_tensors(checkpoint_files)
        check_configuration(header, model, self._where)
        places = layer_places(header["layers"], tensors, model, first)
        self._stored = placed(header["layers"], tensors, places)
        ignored = set(model._keys_to_ignore_on_load_unexpected or ())
        for name, place in places.items():
            self._dense[place] = model.get_submodule(place)
            model.set_submodule(place, _without_parameters(self._dense[place]))
            ignored.add(rf"^{re.escape(name)}\.(codes|centroids|bias)$")
        model._keys_to_ignore_on_load_unexpected = ignored

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        if self._where is None:
            raise RuntimeError("The quantizer has no file: it was not used by `from_pretrained`.")
        device = next(model.parameters()).device
        for name, module in self._dense.items():
            model.set_submodule(name, module)
        for name, layer in build_layers(*self._stored, model, self._where).items():
            model.set_submodule(name, layer.to(device))
        self._stored = ({}, {})
        self._dense = {}
        model.config.quantization_config = self.quantization_config.to_dict()  # `from_pretrained` takes no object
        attach_quantizer_(compact_(model.eval()))  # to the encoder in the model, too
        return model

    def _dequantize(self, model: PreTrainedModel, dtype: torch.dtype | str | None = None) -> PreTrainedModel:
        decode_(model)
        if dtype is not None:  # by its name in a configuration that was saved
            torch.nn.Module.to(model, dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return model

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Return what ``save_pretrained`` writes."""
        # Otherwise it renames tensors as in the original checkpoint, merges some or leaves some out after the sealing.
        model._weight_conversions = []  # type: ignore[assignment]
        model._keys_to_ignore_on_save = set()
        tensors, header = packed_state(model)
        return tensors, sealed(tensors, header)

    def is_serializable(self) -> bool:
        """Return True."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Centroids, biases and norms can be trained."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """Centroids, biases and norms can be trained."""
        return True


def attach_quantizer_(model: nn.Module) -> nn.Module:
    """Let ``save_pretrained`` write packed codes, in place.

    `compression.quantize_`, `compression.ipq`, `compression.compress` and `compression.load_compressed_` do this to the
    model that they are given. It is needed only where layers were put in by hand, or where a part of a model was
    quantized and the whole is to be saved.

    Parameters
    ----------
    model
        A model of `transformers`, or a module that holds some. Each gets a quantizer, and a configuration of its own
        that names the format: models that were made from one configuration object do not change together.

    Raises
    ------
    ValueError
        If the model has no product-quantized layer.
    """
    if not pq_modules(model):
        raise ValueError("Argument `model` must have product-quantized layers, but has none: call `quantize_` first.")
    parts = [part for part in _pretrained(model) if not isinstance(getattr(part, "hf_quantizer", None), PGIPQQuantizer)]
    configs = {id(part.config): (part.config, copy.deepcopy(part.config)) for part in parts}
    for module in model.modules():  # attention layers and encoders hold the same configuration
        if id(getattr(module, "config", None)) in configs:
            cast(Any, module).config = configs[id(module.config)][1]
    for part in parts:
        part.hf_quantizer = PGIPQQuantizer(PGIPQConfig())
        part.config.quantization_config = PGIPQConfig().to_dict()
    return model


def detach_quantizer_(model: nn.Module) -> nn.Module:
    """Undo `attach_quantizer_`, in place; a model without a quantizer of this format is left as it is."""
    for part in _pretrained(model):
        if isinstance(getattr(part, "hf_quantizer", None), PGIPQQuantizer):
            part.hf_quantizer.remove_quantization_config(part)
            part._weight_conversions = None  # dense weights get the original names again
    return model


def _without_parameters(layer: Any) -> nn.Module:
    """A copy of a layer with weight and bias as plain attributes: some models read them when they draw new weights."""
    for parameter in layer.parameters():
        parameter._is_hf_initialized = True  # not drawn
    placeholder = copy.copy(layer)
    placeholder._parameters = {}
    vars(placeholder).update(layer._parameters)
    return placeholder


def _pretrained(model: nn.Module) -> list[Any]:
    """The models of `transformers` that a module is or holds."""
    return [module for module in model.modules() if isinstance(module, PreTrainedModel)]


def architecture(config: Any) -> dict[str, Any]:
    """Return a `transformers` configuration as JSON-able values, without the path from which it was read."""
    values = {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}
    values.pop("quantization_config", None)
    return values


def longest_input(config: Any) -> int:
    """Return the number of tokens for which a `transformers` configuration of an encoder has positions."""
    # RoBERTa, XLM-R and MPNet count positions from pad_token_id + 1.
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "mpnet") else 0
    return int(config.max_position_embeddings) - offset
