"""A compressed model as a folder: weights, configuration, tokenizer and model card."""

import copy
import inspect
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from compression.quantization.files import FORMAT, SINGLE, file_sizes
from compression.quantization.layers import pq_modules
from compression.quantization.storage import dense_bytes, layer_bytes, save_compressed
from shared.artifacts import provenance, write_text
from shared.results import markdown_table

CARD = "README.md"


@dataclass(frozen=True)
class Source:
    """Where the weights of a compressed model come from, for its card.

    Attributes
    ----------
    model
        A name, or a folder, of which the card has the last part only.
    on_hub
        Whether it is a name on the hub.
    revision
        Commit there; not in the card if ``None``.
    sha256
        SHA-256 of files of weights, by what they are.
    task
        What the model was trained for; not in the card if ``None``.
    seeds
        By what they are of.
    """

    model: str
    on_hub: bool = False
    revision: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    task: str | None = None
    seeds: Mapping[str, int] = field(default_factory=dict)


def save_folder(
    model: Any,
    folder: str | Path,
    *,
    tokenizer: Any = None,
    extra: dict[str, Any] | None = None,
    data: str = "not stated",
    licence: str = "that of the original weights; not stated by who made this file",
    results: Sequence[Mapping[str, Any]] = (),
    method: str = "",
    source: Source | None = None,
    max_shard_bytes: int | None = None,
) -> int:
    """Write a compressed `transformers` model so that ``from_pretrained`` loads it, with its model card.

    Parameters
    ----------
    model
        The model; see `compression.quantization.storage.round_`.
    folder
        Made if it is missing. It gets ``model.safetensors`` (or several files), ``config.json``, ``README.md`` and the
        tokenizer's files.
    tokenizer
        Its tokenizer.
    extra
        See `compression.save_compressed`.
    data, licence, results
        For the card: the data that were used, the licence lines, and rows of a table of results.
    method
        For the card, in sentences: how the model was quantized and trained. The layers are described anyway.
    source
        For the card: the uncompressed model.
    max_shard_bytes
        See `compression.save_compressed`.

    Returns
    -------
    int
        Bytes of the weights' files.
    """
    from compression.quantization.hf import PGIPQConfig

    folder = Path(folder)
    size = save_compressed(model, folder / SINGLE, extra=extra, max_shard_bytes=max_shard_bytes)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(model.dtype).removeprefix("torch.")
    config.quantization_config = PGIPQConfig()
    config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    card = model_card(model, folder, data=data, licence=licence, results=results, method=method, source=source)
    write_text(folder / CARD, card)
    return size


def load_folder(folder: str | Path) -> tuple[Any, tuple[str, ...]]:
    """Read a compressed classifier from a folder that `save_folder` wrote.

    Returns
    -------
    tuple of transformers.PreTrainedModel and tuple of str
        The model, in evaluation mode, and the names of its inputs that its tokenizer makes (``input_ids`` and
        ``attention_mask`` if the folder has no tokenizer).

    Raises
    ------
    ValueError
        If the folder holds no compressed classifier.
    CompressedFileError
        If its file is damaged, or its ``config.json`` is not the one that was saved with it.
    """
    import compression.quantization.hf  # noqa: F401  (registers the format)

    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        method = config["quantization_config"]["quant_method"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Argument `folder` must hold a compressed model with its config.json, as `pg-ipq compress` and "
            f"`pg-ipq run` write it, but {str(folder)!r} does not."
        ) from error
    if method != FORMAT:
        raise ValueError(f"Argument `folder` must hold a {FORMAT} model, but {str(folder)!r} holds one of {method!r}.")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, loaded = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    if missing := sorted(loaded["missing_keys"]):
        raise ValueError(
            f"Argument `folder` must hold a compressed classifier, but the weights in {str(folder)!r} lack "
            f"{missing[0]!r}: it holds another kind of model."
        )
    names: tuple[str, ...] = ("input_ids", "attention_mask")
    if (folder / "tokenizer_config.json").is_file():
        made = AutoTokenizer.from_pretrained(folder, local_files_only=True).model_input_names
        taken = inspect.signature(model.forward).parameters
        names = tuple(name for name in made if name in taken)
    return model.eval(), names


def model_card(
    model: nn.Module,
    path: str | Path,
    *,
    data: str,
    licence: str,
    results: Sequence[Mapping[str, Any]] = (),
    method: str = "",
    source: Source | None = None,
) -> str:
    """Return the model card of a compressed file, in Markdown with the front matter of the model hub.

    Parameters
    ----------
    model
        The compressed model, for the size without compression.
    path
        Its file or folder, from which the bytes are taken.
    data, licence, results, method, source
        See `save_folder`.
    """
    size, dense = file_sizes(path), dense_bytes(model)
    rows = [
        {
            "tensor": row["name"],
            "stored": row["stored"],
            "codebook": row["codebook"],
            "inputs": row["inputs"],
            "shape": " x ".join(map(str, row["shape"])),
            "bits a weight": row["bits"] if row["shape"] and math.prod(row["shape"]) else None,
            "bytes": row["bytes"],
        }
        for row in layer_bytes(path)
    ]
    made = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    program = made["command"].removesuffix(shlex.join(sys.argv[1:]))
    command = program + shlex.join(map(_without_folders, sys.argv[1:]))
    base = f"base_model: {source.model}\n" if source is not None and source.on_hub else ""
    sizes = [
        {"weights": "fp32", "bytes": dense, "times the file": dense / size},
        {"weights": "fp16", "bytes": dense // 2, "times the file": dense / 2 / size},
        {"weights": "this file", "bytes": size, "times the file": 1.0},
    ]
    parts = [
        f"---\nlibrary_name: transformers\n{base}tags:\n- pg-ipq\n- product-quantization\n---",
        f"# {type(model).__name__}, product-quantized",
        "Each layer in the table below that is stored as `PQ KxD` is a codebook of K codewords for blocks of D "
        "consecutive weights, and a packed code for each block; one stored as `shared KxD` has codes for the codebook "
        "of another layer. Other tensors are stored as they are. Every tensor has a checksum, which is verified on "
        "loading.",
        "```python\nimport compression.quantization.hf  # registers the format with transformers\n"
        "from transformers import AutoModelForSequenceClassification\n\n"
        "model = AutoModelForSequenceClassification.from_pretrained(FOLDER)\n```",
        f"## Source\n\n{'Not stated.' if source is None else _about_source(source)}",
        f"## Size\n\n{markdown_table(sizes)}".rstrip(),
    ]
    parts.append(f"## Method\n\n{' '.join(filter(None, (_about_layers(model), method)))}")
    if results:
        parts.append(f"## Results\n\n{markdown_table(results)}".rstrip())
    parts += [
        f"## Data\n\n{data}",
        f"## Licence\n\n{licence}",
        f"## Made by\n\n`{command}`, {made['time_utc']}; commit {made['git_commit']}; {versions}.",
        f"## Bytes\n\n{markdown_table(rows)}".rstrip(),
    ]
    return "\n\n".join(parts) + "\n"


def _about_layers(model: nn.Module) -> str:
    """What can be told of the method from the layers alone."""
    layers = pq_modules(model)
    sizes = sorted({(layer.n_centroids, layer.block_size) for layer in layers.values()})
    books = sorted({layer.codebook_dtype for layer in layers.values()})
    shown = ", ".join(f"{k} x {d}" for k, d in sizes[:8]) + (f" and {len(sizes) - 8} more" if len(sizes) > 8 else "")
    inputs = " Their inputs are rounded to int8." if any(layer.activations for layer in layers.values()) else ""
    return (
        f"Product quantization of {len(layers)} layers (codewords x block size: {shown}; codebooks: "
        f"{', '.join(books)}).{inputs}"
    )


def _about_source(source: Source) -> str:
    model = source.model if source.on_hub else os.path.basename(os.path.abspath(source.model))
    lines = [f"model: `{model}`{' on the hub' if source.on_hub else ''}"]
    if source.revision is not None:
        lines.append(f"revision: `{source.revision}`")
    lines += [f"SHA-256 of {name}: `{digest}`" for name, digest in source.sha256.items()]
    if source.task is not None:
        lines.append(f"task: `{source.task}`")
    lines += [f"seed of the {name}: {seed}" for name, seed in source.seeds.items()]
    return "\n".join(f"- {line}" for line in lines)


def _without_folders(word: str) -> str:
    """A word of a command without the folders of absolute paths, which say more of a machine than of the model."""
    path = r"(?:(?<=[\s=:,\"'\[({])|^)~?/(?!/)[^\"',\])}]*"
    return re.sub(path, lambda found: Path(found[0]).name, word)
