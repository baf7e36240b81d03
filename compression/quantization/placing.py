"""Where the layers of a compressed file go in a `transformers` model that may have another head, or none."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from compression.quantization.files import CompressedFileError


def layer_places(layers: Iterable[str], tensors: Iterable[str], model: Any, path: str | Path) -> dict[str, str]:
    """Return the names in a model of the layers of a file that it has, by their names in the file.

    As in `transformers`, names may differ by the prefix of the encoder (``roberta.``), and the layers of a head (and a
    pooler) that the model does not have are left out.

    Parameters
    ----------
    layers, tensors
        Names of the quantized layers and of all tensors in the file.
    model
        A `transformers` model.
    path
        For messages.

    Raises
    ------
    CompressedFileError
        If the model has no place for a layer of the encoder, or ties the weight of one to another's.
    """
    prefix = f"{model.base_model_prefix}."
    has_head = any(name.startswith(prefix) for name in tensors)
    modules = {name for name, _ in model.named_modules()}
    places = {}
    for name in layers:
        found = [place for place in (name, name.removeprefix(prefix), prefix + name) if place in modules]
        if found:
            places[name] = found[0]
        elif not (has_head and not name.startswith(prefix)) and name.removeprefix(prefix).split(".")[0] != "pooler":
            raise CompressedFileError(
                f"File {str(path)!r} does not fit {type(model).__name__}: it has no layer {name!r}."
            )
    for pair in (getattr(model, "all_tied_weights_keys", None) or {}).items():
        for own, other in (pair, pair[::-1]):
            if own.rpartition(".")[0] in places.values():
                raise CompressedFileError(
                    f"File {str(path)!r} does not fit {type(model).__name__}: it has {own!r} as codes, but the model "
                    f"shares this weight with {other!r}."
                )
    return places


def placed(
    layers: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, torch.Tensor], places: Mapping[str, str]
) -> tuple[dict[str, dict[str, Any]], dict[str, torch.Tensor]]:
    """Return description and tensors of the layers that have a place, under the names of their places.

    A codebook whose first layer has no place goes to the next layer that shares it.
    """
    described: dict[str, dict[str, Any]] = {}
    moved: dict[str, torch.Tensor] = {}
    owners: dict[str, str] = {}
    for name, place in places.items():
        described[place] = dict(layers[name])
        book = described[place].pop("codebook", name)
        owner = owners.setdefault(book, place)
        if owner != place:
            described[place]["codebook"] = owner
        leaves = {"codes": name, "bias": name} | ({"centroids": book} if owner == place else {})
        for leaf, source in leaves.items():
            if f"{source}.{leaf}" in tensors:
                moved[f"{place}.{leaf}"] = tensors[f"{source}.{leaf}"]
    return described, moved
