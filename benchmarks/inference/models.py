"""The models compared: one random encoder, dense, product-quantized, decoded, and by other packages' int8."""

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import RobertaConfig, RobertaForSequenceClassification

from compression.quantization.activations import quantize_activations_
from compression.quantization.compact import compact_
from compression.quantization.layers import PQEmbedding, PQLinear, decode_
from compression.quantization.storage import file_bytes, round_
from compression.training.models import minilm_roberta_config


class DecodingLinear(PQLinear):
    """The layer with its weight decoded, to show what tables and codewords give."""

    def _computes_from_codes(self, x: torch.Tensor) -> bool:
        return False


def base_config() -> RobertaConfig:
    """Return the configuration of RoBERTa-base."""
    return RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)


CONFIGS: dict[str, Callable[[], RobertaConfig]] = {"minilm": minilm_roberta_config, "roberta-base": base_config}


def dense(name: str) -> nn.Module:
    """Return the random dense classifier; times do not depend on the values."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return RobertaForSequenceClassification(CONFIGS[name]()).eval()


def quantized(name: str, d: int, k: int = 256, linear: type[PQLinear] = PQLinear) -> nn.Module:
    """Return the classifier with random codes in all linear layers and embeddings but the last layer and the types."""
    model = dense(name)
    generator = torch.Generator().manual_seed(0)
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | nn.Embedding) and not path.endswith(("out_proj", "token_type_embeddings")):
            _replace(model, path, d, k, generator, linear)
    round_(model, remainder=torch.float32)
    return model.eval()


def _replace(
    model: nn.Module, path: str, d: int, k: int, generator: torch.Generator, linear: type[PQLinear] = PQLinear
) -> PQLinear | PQEmbedding:
    """Put a quantized layer with random codes in the place of a dense one."""
    module: Any = model.get_submodule(path)
    rows, features = module.weight.shape
    k = min(k, rows * features // d)
    codes = torch.randint(0, k, (rows, features // d), generator=generator)
    centroids = 0.02 * torch.randn(k, d, generator=generator)
    new: PQLinear | PQEmbedding
    if isinstance(module, nn.Linear):
        new = linear(centroids, codes, module.bias)
    else:
        new = PQEmbedding(centroids, codes, module.padding_idx)
    model.set_submodule(path, new)
    return new


def planned(name: str, ratio: str) -> nn.Module:
    """Return the classifier with the sizes of layers that a budget chose, codes packed as in the file."""
    plan = json.loads((Path(__file__).parent / "plans" / f"{name}_{ratio}.json").read_text(encoding="utf-8"))
    model = dense(name)
    generator = torch.Generator().manual_seed(0)
    for path, (d, k, dtype) in plan["layers"].items():
        _replace(model, path, d, k, generator).codebook_dtype = dtype
    round_(model, remainder=torch.float32)
    return compact_(model.eval())


def in_integers(name: str, d: int) -> nn.Module:
    """Return the quantized classifier with codebooks and inputs of its linear layers in int8."""
    model = quantized(name, d)
    round_(model, codebooks="int8", remainder=torch.float32)
    quantize_activations_(model, [sentence_batch(2, 64)])
    return model


def _torchao(name: str) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = dense(name)
    quantize_(model, Int8WeightOnlyConfig())
    return model


def _torchao_dynamic(name: str) -> nn.Module:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = dense(name)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


def _quanto(name: str) -> nn.Module:
    from optimum.quanto import freeze, qint8, quantize

    model = dense(name)
    quantize(model, weights=qint8)
    freeze(model)
    return model


METHODS: dict[str, Callable[[str], nn.Module]] = {
    "dense": dense,
    "PQ d=8": lambda name: quantized(name, 8),
    "PQ d=4": lambda name: quantized(name, 4),
    "PQ at 1/15": lambda name: planned(name, "15x"),
    "PQ at 1/28": lambda name: planned(name, "28x"),
    "PQ d=8, int8": lambda name: in_integers(name, 8),
    "PQ d=4, int8": lambda name: in_integers(name, 4),
    "PQ d=8, decoded whole": lambda name: quantized(name, 8, linear=DecodingLinear),
    "PQ d=8, decode_": lambda name: decode_(quantized(name, 8)),
    "torchao int8": _torchao,
    "torchao int8, inputs too": _torchao_dynamic,
    "quanto int8": _quanto,
}
"""Methods by name; the first is what the others are compared with."""

_PEERS = {"torchao int8": "torchao", "torchao int8, inputs too": "torchao", "quanto int8": "optimum.quanto"}


PLANNED = ("PQ at 1/15", "PQ at 1/28")
"""Methods for which there is a plan, of MiniLM only."""


def available(names: Sequence[str], model: str) -> list[str]:
    """Return those methods whose package is installed, or whose plan is there."""
    planned_too = model == "minilm"
    names = [name for name in names if planned_too or name not in PLANNED]
    return [name for name in names if name not in _PEERS or _installed(_PEERS[name])]


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def make(method: str, name: str) -> nn.Module:
    """Return the model of a method."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peers, about their own future
        return METHODS[method](name)


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, those inside the tensors of peers too."""
    return sum(_tensor_bytes(tensor) for tensor in [*model.parameters(), *model.buffers()])


def disk_bytes(model: nn.Module) -> int:
    """Return the bytes of the file: our format (dense: fp32 safetensors), and what `torch.save` writes of peers."""
    plain = all(type(tensor) in (torch.Tensor, nn.Parameter) for tensor in model.state_dict().values())
    if plain:
        return file_bytes(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def _tensor_bytes(tensor: Any) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_tensor_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()


def sentence_batch(batch: int, length: int) -> dict[str, torch.Tensor]:
    """Return token numbers and a mask without padding."""
    ids = torch.randint(5, 1000, (batch, length), generator=torch.Generator().manual_seed(batch))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
