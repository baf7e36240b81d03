"""Sequence classifiers by name: from the hub, from a local folder, or packaged; and whether they fit a task."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from compression.quantization.hf import longest_input
from compression.training.batches import EncodedData, encode
from compression.training.data import TextData
from compression.training.models import (
    load_minilm_roberta,
    load_minilm_tokenizer,
    load_mpnet_classifier,
    load_mpnet_tokenizer,
    minilm_roberta_config,
    mpnet_config,
)
from compression.training.sources import hub_error, hub_or_cache, local_folder
from compression.training.tasks import Task, model_label_order
from shared.artifacts import sha256_file

PACKAGED_MODELS = ("minilm", "mpnet")
"""Models that ``pg-ipq fetch-data`` gets."""


@dataclass(frozen=True)
class ModelSource:
    """A model that has been found and fits a task, its weights not read yet.

    Parameters
    ----------
    name
        As given by the user.
    config
        `transformers` configuration with the labels of the task.
    new_head
        Whether the classification head is drawn anew.
    label_order
        The model's label of each of the task's labels, if its head is kept and has another order.
    folder
        Cache folder of packaged models.
    """

    name: str
    config: Any
    new_head: bool
    label_order: tuple[int, ...] | None = None
    folder: str | Path | None = None

    def task_labels(self, labels: np.ndarray) -> np.ndarray:
        """Return the task's labels of the model's (n,); values of a regression as they are."""
        return labels if self.label_order is None else np.argsort(self.label_order)[labels]

    @property
    def max_tokens(self) -> int:
        """Longest input that the model's position embeddings allow."""
        return longest_input(self.config)

    @cached_property
    def weights(self) -> dict[str, str]:
        """SHA-256 of the files of a local folder, or the commit of a name on the hub; empty for a packaged model.

        Those are pinned, see `compression.training.packages.PACKAGES`.
        """
        if self.name in PACKAGED_MODELS:
            return {}
        folder = local_folder(self.name, "model")
        if folder is None:
            commit = getattr(self.config, "_commit_hash", None)
            return {} if commit is None else {"commit": commit}
        return {
            path.name: sha256_file(path) for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
        }

    def empty(self) -> PreTrainedModel:
        """Return the model without memory for its weights (on the ``meta`` device), to look up its layers."""
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(self.config)

    def tokenizer(self) -> Any:
        """Return the tokenizer."""
        if self.name in PACKAGED_MODELS:
            return (load_minilm_tokenizer if self.name == "minilm" else load_mpnet_tokenizer)(self.folder)
        with _read_errors(self.name, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(self.name)
        if tokenizer.pad_token_id is None:
            raise ValueError(f"The tokenizer of model {self.name!r} must have a pad token, but has none.")
        return tokenizer

    def load(self, seed: int) -> PreTrainedModel:
        """Return the model in evaluation mode, float32; a new head is a function of `seed` alone.

        Raises
        ------
        ValueError
            If the weights do not fit the configuration.
        """
        if self.name in PACKAGED_MODELS:
            make = load_minilm_roberta if self.name == "minilm" else load_mpnet_classifier
            model = make(self.config.num_labels, seed, self.folder)
            model.config.id2label, model.config.label2id = self.config.id2label, self.config.label2id
            return model
        with torch.random.fork_rng(devices=[]), _read_errors(self.name, "weights"):
            torch.default_generator.manual_seed(seed)
            model, found = AutoModelForSequenceClassification.from_pretrained(
                self.name,
                config=self.config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=self.new_head,
                output_loading_info=True,
            )
        head = {name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")}
        fresh = head if self.new_head else set()
        # Masked language models are published without a pooler.
        missing = {name for name in found["missing_keys"] if name not in fresh and ".pooler." not in name}
        if missing:
            raise ValueError(f"The weights of model {self.name!r} lack {min(missing)!r}: they are of another model.")
        if self.new_head:
            _draw(model, head, seed)
        return model.eval()


def find_model(name: str, task: Task, *, new_head: bool = False, folder: str | Path | None = None) -> ModelSource:
    """Look up a model and check that it fits a task, before its weights are read.

    Parameters
    ----------
    name
        ``"minilm"`` or ``"mpnet"`` (packaged), a local folder, or a name on the hub.
    task
        The task.
    new_head
        Replace a classification head that is there (of a model fine-tuned on MNLI, for instance). A model without
        one always gets a new head.
    folder
        Cache folder of packaged models; `shared.artifacts.default_cache_dir` if ``None``.

    Raises
    ------
    ValueError
        If the model does not exist or its head has another number of labels than the task.
    DataError
        If the hub cannot be reached, or a package has not been fetched.
    """
    if name in PACKAGED_MODELS:
        config = minilm_roberta_config() if name == "minilm" else mpnet_config(folder=folder)
        return ModelSource(name, _with_labels(config, task, task.label_names), True, folder=folder)
    name, config, trained = _configuration(name)
    if new_head or not trained:
        return ModelSource(name, _with_labels(config, task, task.label_names), True)
    if config.num_labels != task.num_labels:
        raise ValueError(
            f"The head of model {name!r} has {config.num_labels} labels, but task {task.name!r} needs "
            f"{task.num_labels}. Name a model that fits, or set `new_head=true` to train a new head."
        )
    theirs = tuple(config.id2label[label] for label in range(config.num_labels))
    order = model_label_order(task, theirs)
    return ModelSource(name, _with_labels(config, task, theirs if order else task.label_names), False, order)


def find_trained(name: str) -> ModelSource:
    """Look up a fine-tuned classifier, a local folder or a name on the hub, before its weights are read.

    Raises
    ------
    ValueError
        If it does not exist or has no head.
    DataError
        If the hub cannot be reached.
    """
    name, config, trained = _configuration(name)
    if not trained:
        raise ValueError(
            f"Model {name!r} must be a fine-tuned sequence classifier, but its configuration names "
            f"{', '.join(config.architectures or ()) or 'no architecture'}: it has no head."
        )
    return ModelSource(name, config, False)


def _configuration(name: str) -> tuple[str, Any, bool]:
    """Folder or name on the hub, the configuration there, and whether a classification head belongs to it."""
    name = str(local_folder(name, "model") or name)
    with _read_errors(name, "configuration"):
        config = AutoConfig.from_pretrained(name)
    if type(config) not in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"Key `model` must name an encoder with a sequence classifier, but {name!r} is {config.model_type}."
        )
    return name, config, any(str(kind).endswith("ForSequenceClassification") for kind in config.architectures or ())


def encode_for(source: ModelSource, data: TextData, tokenizer: Any, max_length: int) -> EncodedData:
    """Encode sentences for a model: its label order, segments only if it has them, no token that it does not know.

    Raises
    ------
    ValueError
        If `max_length` is longer than the model's positions, or the tokenizer is not the model's.
    """
    if max_length > source.max_tokens:
        raise ValueError(
            f"Key `finetune.max_length` must be at most {source.max_tokens} for model {source.name!r}, "
            f"but was {max_length}."
        )
    encoded = encode(data, tokenizer, max_length)
    largest = max(max(ids) for ids in encoded.input_ids)
    if largest >= source.config.vocab_size:
        raise ValueError(
            f"The tokenizer of model {source.name!r} makes token {largest}, but the model has only "
            f"{source.config.vocab_size}: they do not belong together."
        )
    if encoded.token_type_ids is not None and not _has_segments(source):
        encoded = replace(encoded, token_type_ids=None)
    if source.label_order is not None:
        encoded = replace(encoded, labels=torch.tensor(source.label_order)[encoded.labels])
    return encoded


def _has_segments(source: ModelSource) -> bool:
    kind: Any = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(source.config)]
    return (
        "token_type_ids" in inspect.signature(kind.forward).parameters
        and getattr(source.config, "type_vocab_size", 0) > 1
    )


def _with_labels(config: Any, task: Task, names: tuple[str, ...]) -> Any:
    names = names or ("score",)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: label for label, name in enumerate(names)}
    config.problem_type = "regression" if task.regression else "single_label_classification"
    return config


def _draw(model: PreTrainedModel, names: set[str], seed: int) -> None:
    """Draw a head: matrices normal with the model's standard deviation, biases zero, scales of norms one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names and parameter.ndim > 1:
                deviation = getattr(model.config, "initializer_range", 0.02)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
            elif name in names:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


@contextmanager
def _read_errors(name: str, part: str) -> Iterator[None]:
    """Turn what `transformers` raises into one sentence, and keep its notes on new heads to itself."""
    folder = local_folder(name, "model")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if folder is not None:
        logging.disable_progress_bar()
    try:
        with hub_or_cache() if folder is None else nullcontext():
            yield
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        if isinstance(error, OSError) and folder is None:
            raise hub_error("model", name, error, "`model`") from error
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The {part} of model {name!r} cannot be read: {reason}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
