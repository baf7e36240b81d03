"""Packaged weights, for work without a model hub: MiniLM in the RoBERTa architecture, and MPNet."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertModel,
    MPNetConfig,
    MPNetForSequenceClassification,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from compression.training.packages import DataError, model_folder

MAX_TOKENS = 512
"""Longest input of the packaged models."""

_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def minilm_roberta_config(num_labels: int = 2) -> RobertaConfig:
    """Return the RoBERTa configuration that computes what the packaged MiniLM BERT computes.

    RoBERTa counts positions from ``pad_token_id + 1``, BERT from 0: with pad token 0 (BERT's) the positions are one
    higher, so the table has one more row than BERT's.
    """
    if num_labels < 1:
        raise ValueError(f"Argument `num_labels` must be at least 1, but was {num_labels}.")
    return RobertaConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=MAX_TOKENS + 1,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        pad_token_id=0,
        bos_token_id=101,
        eos_token_id=102,
        id2label={label: f"LABEL_{label}" for label in range(num_labels)},
        label2id={f"LABEL_{label}": label for label in range(num_labels)},
    )


def minilm_skeleton() -> RobertaForSequenceClassification:
    """Return the model of `load_minilm_roberta` without memory for its weights, to look up its layers."""
    with torch.device("meta"):
        return RobertaForSequenceClassification(minilm_roberta_config())


def load_minilm_roberta(
    num_labels: int = 2, seed: int = 0, folder: str | Path | None = None
) -> RobertaForSequenceClassification:
    """Return a sequence classifier with the MiniLM encoder and a new head.

    The encoder computes exactly what the packaged BERT encoder does. The tokenizer that belongs to it is
    `load_minilm_tokenizer`.

    Parameters
    ----------
    num_labels
        Number of classes.
    seed
        Seed of the head's weights (normal with standard deviation 0.02; biases zero).
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Returns
    -------
    RobertaForSequenceClassification
        In evaluation mode, float32.

    Raises
    ------
    DataError
        If the package has not been fetched or its weights do not fit.
    """
    config = minilm_roberta_config(num_labels)
    path = model_folder("minilm", folder) / "model.safetensors"
    state = {f"roberta.{name}": tensor for name, tensor in _encoder_weights(path).items()}
    positions = state["roberta.embeddings.position_embeddings.weight"]
    padding_row = torch.zeros(1, positions.shape[1], dtype=positions.dtype)
    state["roberta.embeddings.position_embeddings.weight"] = torch.cat([padding_row, positions])
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are replaced below
        model = RobertaForSequenceClassification(config)
    state.update(_new_head(config, num_labels, seed))
    _load(model, state, path)
    return model.eval()


def load_minilm_bert(folder: str | Path | None = None) -> BertModel:
    """Return the packaged MiniLM encoder in its own architecture (no pooler), in evaluation mode.

    Raises
    ------
    DataError
        If the package has not been fetched or its weights do not fit.
    """
    target = model_folder("minilm", folder)
    with torch.random.fork_rng(devices=[]):
        model = BertModel(BertConfig.from_pretrained(target), add_pooling_layer=False)
    _load(model, _encoder_weights(target / "model.safetensors"), target)
    return model.eval()


def load_mpnet(folder: str | Path | None = None) -> MPNetModel:
    """Return the packaged all-mpnet-base-v2 encoder: 12 layers, 768 wide, 109 M parameters, in evaluation mode.

    Raises
    ------
    DataError
        If the package has not been fetched (`fetch_data` with the name ``"mpnet"``) or its weights do not fit.
    """
    target = model_folder("mpnet", folder)
    with torch.random.fork_rng(devices=[]):
        model = MPNetModel(MPNetConfig.from_pretrained(target), add_pooling_layer=False)
    _load(model, _encoder_weights(target / "model.safetensors"), target)
    return model.eval()


def mpnet_config(num_labels: int = 2, folder: str | Path | None = None) -> MPNetConfig:
    """Return the configuration of the packaged MPNet with a number of classes.

    Raises
    ------
    DataError
        If the package has not been fetched.
    """
    return MPNetConfig.from_pretrained(model_folder("mpnet", folder), num_labels=num_labels)


def load_mpnet_classifier(
    num_labels: int = 2, seed: int = 0, folder: str | Path | None = None
) -> MPNetForSequenceClassification:
    """Return a sequence classifier with the packaged MPNet encoder and a new head.

    Parameters and errors are those of `load_minilm_roberta`; the tokenizer is `load_mpnet_tokenizer`.
    """
    config = mpnet_config(num_labels, folder)
    path = model_folder("mpnet", folder) / "model.safetensors"
    state = {f"mpnet.{name}": tensor for name, tensor in _encoder_weights(path).items()}
    with torch.random.fork_rng(devices=[]):
        model = MPNetForSequenceClassification(config)
    state.update(_new_head(config, num_labels, seed))
    _load(model, state, path)
    return model.eval()


def load_minilm_tokenizer(folder: str | Path | None = None) -> PreTrainedTokenizerFast:
    """Return the WordPiece tokenizer of the packaged MiniLM (lower case, 30,522 tokens, padding with token 0).

    Raises
    ------
    DataError
        If the package has not been fetched.
    """
    path = model_folder("minilm", folder) / "tokenizer.json"
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        model_max_length=MAX_TOKENS,
        padding_side="right",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **_SPECIAL_TOKENS,
    )


def load_mpnet_tokenizer(folder: str | Path | None = None) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the packaged MPNet.

    Raises
    ------
    DataError
        If the package has not been fetched.
    """
    target = model_folder("mpnet", folder)
    names = json.loads((target / "special_tokens_map.json").read_text(encoding="utf-8"))
    special = {name: token if isinstance(token, str) else token["content"] for name, token in names.items()}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(target / "tokenizer.json"),
        model_max_length=MAX_TOKENS,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


def _encoder_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights without the pooler and without the index buffer that older files hold."""
    return {
        name: tensor
        for name, tensor in load_file(path).items()
        if not name.startswith("pooler.") and not name.endswith("position_ids")
    }


def _new_head(config: Any, num_labels: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"dense": (config.hidden_size, config.hidden_size), "out_proj": (num_labels, config.hidden_size)}
    head = {}
    for name, shape in shapes.items():
        head[f"classifier.{name}.weight"] = torch.randn(shape, generator=generator) * config.initializer_range
        head[f"classifier.{name}.bias"] = torch.zeros(shape[0])
    return head


def _load(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[min(1, len(str(error).splitlines()) - 1)].strip()[:200]
        raise DataError(f"The weights in {path} do not fit {type(model).__name__}: {first}") from error
