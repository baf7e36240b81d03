"""The configuration of a `transformers` model in the header of its file, and its comparison with another model's."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from compression.quantization.files import CompressedFileError

_FREE = re.compile(
    r"_?name_or_path|_commit_hash|transformers_version|architectures|auto_map|tokenizer_class"  # where it is from
    r"|transformers\.js_config|sentence_transformers|task_specific_params|finetuning_task"  # notes of other programs
    r"|(torch_|_pre_quantization_)?dtype|quantization_config|_?(attn|experts)_implementation\w*"  # how to compute
    r"|chunk_size_feed_forward|reference_compile|deterministic_flash_attn|gradient_checkpointing|use_cache|torchscript"
    r"|output_(attentions|hidden_states|router_logits)|(use_)?return_dict"  # what is returned
    r"|id2label|label2id|_?num_labels|problem_type"  # of labels only the number counts, as a shape
    r"|(\w+_)?initializer_(range|factor|std)|init_std"  # training
    r"|(?!\w*token_drop)\w*(dropout|layerdrop|pdrop|drop_rate|drop_path_rate)(_prob|_rate|_p)?"
)
"""Keys, as whole names, that do not change what a loaded model computes, or that `transformers` may set on loading."""


def computing_keys(model: nn.Module) -> dict[str, Any]:
    """Return the entry ``architecture`` for the header of a model's file: all keys that enter its computation.

    Parameters
    ----------
    model
        Any module.

    Returns
    -------
    dict
        JSON-able; empty if the module has no configuration of `transformers`.
    """
    config = _config(model)
    return {} if config is None else {"architecture": _without_free(_as_json(config.to_dict()))}


def check_configuration(header: Mapping[str, Any], model: nn.Module, path: str | Path) -> None:
    """Refuse a model with another configuration than the one that was saved with a file.

    Both are read by the same class of `transformers`, so that a file stays readable where a newer release has renamed
    keys or added some. Nothing is compared if the header has no configuration, as in older files.

    Parameters
    ----------
    header
        Of the file; ``header["extra"]["architecture"]`` is a configuration as ``to_dict`` of `transformers` gives it.
    model
        The model into which the file is loaded.
    path
        For the message.

    Raises
    ------
    CompressedFileError
        If a key that enters the computation has another value; it is named with both values.
    """
    config, extra = _config(model), header.get("extra")
    saved = extra.get("architecture") if isinstance(extra, Mapping) else None
    if config is None or not isinstance(saved, Mapping) or "model_type" not in saved:
        return
    found = _as_json(config.to_dict())
    if saved["model_type"] == found.get("model_type"):
        saved, found = (_as_json(type(config).from_dict(_as_json(values)).to_dict()) for values in (saved, found))
    else:
        saved, found = ({"model_type": values.get("model_type")} for values in (saved, found))
    for key, was, now in _differences(_without_free(saved), _without_free(found)):
        raise CompressedFileError(
            f"File {str(path)!r} does not fit the model: key `{key}` of its configuration must be {was!r}, as when the "
            f"file was saved, but was {now!r}. Take the config.json that belongs to the file, unchanged."
        )


def _config(model: nn.Module) -> Any:
    """The configuration of a model of `transformers`, which is loaded if there is one."""
    module = sys.modules.get("transformers.configuration_utils")
    config = getattr(model, "config", None)
    return config if module is not None and isinstance(config, module.PretrainedConfig) else None


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy as it is read back from the header: lists for tuples, texts for numbers as keys."""
    return dict(json.loads(json.dumps(values)))


def _without_free(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_free(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if not _FREE.fullmatch(key)
    }


def _differences(
    saved: Mapping[str, Any], found: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Keys with another value, those of nested configurations joined by dots, and both values; ``None`` if missing."""
    for key in sorted(saved.keys() | found.keys()):
        was, now = saved.get(key), found.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, f"{prefix}{key}.")
        elif was != now:
            yield f"{prefix}{key}", was, now
