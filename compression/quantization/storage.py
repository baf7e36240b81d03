"""The compressed file: packed codes and half-precision codebooks in safetensors, written, sized and read."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compression.quantization.activations import ActivationGrid
from compression.quantization.blocks import (
    CODEBOOK_TYPES,
    code_bits,
    int8_scale,
    pack_codes,
    round_codebook,
    round_to,
    unpack_codes,
)
from compression.quantization.configuration import check_configuration, computing_keys
from compression.quantization.convolution import PQConv2d
from compression.quantization.files import (
    SHARING,
    CompressedFileError,
    file_sizes,
    read_header,
    read_tensors,
    serialized_bytes,
    write_tensors,
)
from compression.quantization.layers import PQEmbedding, PQLinear, _PQWeight, pq_modules
from compression.quantization.saving import follow_layers_
from shared.files import check_file

__all__ = [
    "CompressedFileError",
    "dense_bytes",
    "file_bytes",
    "layer_bytes",
    "load_compressed_",
    "read_header",
    "round_",
    "save_compressed",
    "size_report",
]


def round_(model: nn.Module, *, codebooks: str | None = None, remainder: torch.dtype = torch.float16) -> None:
    """Round parameters in place to the types in which they will be stored, so that the file equals the model.

    Parameters
    ----------
    model
        A model with product-quantized layers.
    codebooks
        Type of all codebooks: ``"float16"``, ``"float32"`` or ``"int8"``; each layer's own (`PQConfig`) if ``None``.
    remainder
        Type of all other floating-point tensors that the file will hold.

    Notes
    -----
    A tensor with values beyond the range of its type stays as it is, and is stored in its own type. Buffers that are no
    part of the state (rotary frequencies) stay too: they are not in the file, and a loaded model has them exact.
    """
    if codebooks not in (None, *CODEBOOK_TYPES):
        raise ValueError(f"Argument `codebooks` must be None or one of {tuple(CODEBOOK_TYPES)}, but was {codebooks!r}.")
    layers = pq_modules(model).values()
    for module in layers:
        module.codebook_dtype = codebooks or module.codebook_dtype
    books = {id(module.centroids): module for module in layers}
    with torch.no_grad():
        for module in books.values():
            module.centroids.copy_(round_codebook(module.centroids, module.codebook_dtype))
        for tensor in _state(model).values():
            if tensor.is_floating_point() and id(tensor) not in books:
                tensor.copy_(round_to(tensor, remainder))


def save_compressed(
    model: nn.Module, path: str | Path, *, extra: dict[str, Any] | None = None, max_shard_bytes: int | None = None
) -> int:
    """Write a model's state with packed codes.

    Parameters
    ----------
    model
        A model; tensors that are exact in float16 (codebooks: in the type they are meant for) are stored so, others in
        their own type. Call `round_` first to make all of them exact.
    path
        The file, ``NAME.safetensors``; written atomically, with a checksum of each tensor.
    extra
        JSON-able description kept in the header. The configuration of a model of `transformers` is kept there anyway,
        as ``architecture``.
    max_shard_bytes
        Write several files with an index if there are more bytes of tensors than this, see
        `compression.quantization.files.write_tensors`. One file if ``None``.

    Returns
    -------
    int
        Size of the file, or of all files, in bytes.
    """
    check_file(path, "Argument `path`")
    if extra is not None and not isinstance(extra, dict):
        raise TypeError(f"Argument `extra` must be a dict or None, but was a {type(extra).__name__}.")
    tensors, header = packed_state(model, extra)
    return write_tensors(tensors, header, path, max_shard_bytes)


def file_bytes(model: nn.Module, *, extra: dict[str, Any] | None = None) -> int:
    """Return the size of the file that `save_compressed` would write with the same arguments."""
    return serialized_bytes(*packed_state(model, extra))


def packed_state(
    model: nn.Module, extra: dict[str, Any] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return a model's tensors as they are stored, and their description for `compression.quantization.files`."""
    tensors, layers = _compressed_state(model)
    shared = {"version": SHARING} if any("codebook" in layer for layer in layers.values()) else {}
    return tensors, {"layers": layers, "extra": computing_keys(model) | (extra or {}), **shared}


def size_report(model: nn.Module) -> dict[str, int]:
    """Return bytes in the file without its header: ``codes``, ``codebooks``, ``remainder`` and ``total``."""
    tensors, layers = _compressed_state(model)
    size = {"codes": 0, "codebooks": 0, "remainder": 0}
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        part = {"codes": "codes", "centroids": "codebooks"}.get(leaf, "remainder") if owner in layers else "remainder"
        size[part] += tensor.numel() * tensor.element_size()
    return size | {"total": sum(size.values())}


def dense_bytes(model: nn.Module, bytes_per_value: int = 4) -> int:
    """Return the bytes of the same model without quantization, at 4 (fp32) or 2 (fp16) bytes a value.

    A tensor that has several names (tied weights) counts once, as it is stored.
    """
    layers = pq_modules(model).values()
    books = {id(module.centroids) for module in layers}
    rest = {id(tensor): tensor for tensor in _state(model).values() if id(tensor) not in books}  # tied ones once
    values = sum(tensor.numel() for tensor in rest.values() if tensor.is_floating_point())
    return bytes_per_value * (values + sum(module.codes.numel() * module.block_size for module in layers))


def load_compressed_(model: nn.Module, path: str | Path) -> nn.Module:
    """Read a compressed file into a model, in place.

    Parameters
    ----------
    model
        The same architecture; layers stored as codes are replaced by `PQLinear` or `PQEmbedding`.
    path
        File that `save_compressed` wrote, or its folder.

    Returns
    -------
    torch.nn.Module
        `model`. It is changed only after the whole file has been read and checked.

    Raises
    ------
    CompressedFileError
        If the file is truncated, changed in any bit (the tensor is named), foreign or does not fit the model, such as
        one of `transformers` with another configuration (the key is named). No code in the file is ever run.
    ValueError
        If the model is on the ``meta`` device.
    """
    state = _state(model)
    if any(tensor.is_meta for tensor in state.values()):
        raise ValueError("Argument `model` must have its weights in memory, but has some on the `meta` device.")
    header, tensors = read_tensors(path)
    check_configuration(header, model, path)
    replaced = build_layers(header["layers"], tensors, model, path)
    owned = tuple(f"{name}." for name in replaced)
    expected = {name: tensor for name, tensor in state.items() if not name.startswith(owned)}
    stored = {name: tensor for name, tensor in tensors.items() if not name.startswith(owned)}
    for name, first in _first_names(expected).items():  # tied weights are stored once
        if first in stored and not torch.equal(stored.setdefault(name, stored[first]), stored[first]):
            raise CompressedFileError(
                f"File {str(path)!r} does not fit the model: {name!r} differs from {first!r}, to which it is tied."
            )
    missing, foreign = expected.keys() - stored.keys(), stored.keys() - expected.keys()
    if missing or foreign:
        word, names = ("lacks", missing) if missing else ("has the unknown", foreign)
        raise CompressedFileError(f"File {str(path)!r} does not fit the model: it {word} tensor {min(names)!r}.")
    for name, tensor in expected.items():
        if stored[name].shape != tensor.shape:
            raise CompressedFileError(
                f"File {str(path)!r} does not fit the model: {name!r} has shape {tuple(stored[name].shape)}, "
                f"but the model needs {tuple(tensor.shape)}."
            )
    with torch.no_grad():
        for name, module in replaced.items():
            model.set_submodule(name, module.to(next(model.get_submodule(name).parameters()).device))
        for name, tensor in expected.items():
            tensor.copy_(stored[name])
    return follow_layers_(model)


def layer_bytes(path: str | Path) -> list[dict[str, Any]]:
    """Return what each part of a compressed file takes.

    Parameters
    ----------
    path
        File that `save_compressed` wrote.

    Returns
    -------
    list of dict
        ``name``, ``stored`` (how), type of the ``codebook`` and of rounded ``inputs`` (``None`` where there is none),
        dense ``shape``, ``bits`` a weight and ``bytes``: a row for each quantized layer (codes and codebook; ``shared``
        are codes for the codebook of a layer before it), one for each other tensor and one for the header.

    Raises
    ------
    CompressedFileError
        As `read_header`.
    """
    header, tensors = read_tensors(path)
    layers = header["layers"]
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    rows = []
    for name, layer in layers.items():
        k, d = shapes[f"{layer.get('codebook', name)}.centroids"]
        shape = (layer["shape"][0], layer["shape"][1] * d)
        size = sizes.pop(f"{name}.codes") + sizes.pop(f"{name}.centroids", 0)
        kind = "shared" if "codebook" in layer else "PQ"
        book = _dtype_name(tensors[f"{layer.get('codebook', name)}.centroids"])
        inputs = "int8" if "activations" in layer else None
        rows.append(_size_row(f"{name}.weight", f"{kind} {k}x{d}", shape, size, book, inputs))
    for name, size in sizes.items():
        rows.append(_size_row(name, _dtype_name(tensors[name]), shapes[name], size))
    rest = file_sizes(path) - sum(row["bytes"] for row in rows)
    return [*sorted(rows, key=lambda row: -row["bytes"]), _size_row("(header)", "JSON", (), rest)]


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _size_row(
    name: str, stored: str, shape: tuple[int, ...], size: int, codebook: str | None = None, inputs: str | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "stored": stored,
        "codebook": codebook,
        "inputs": inputs,
        "shape": shape,
        "bits": 8 * size / max(int(np.prod(shape)), 1),
        "bytes": size,
    }


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model; a tensor with several names is one object."""
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}


def _first_names(state: dict[str, torch.Tensor]) -> dict[str, str]:
    """For each name the first of the names that its tensor has."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}


def _compressed_state(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """Tensors as stored, and the description of each quantized layer."""
    layers: dict[str, dict[str, Any]] = {}
    modules = pq_modules(model)
    owners: dict[int, str] = {}
    for name, module in modules.items():
        owners.setdefault(id(module.centroids), name)
    tensors: dict[str, torch.Tensor] = {}
    state = _state(model)
    first_names = _first_names({k: tensor for k, tensor in state.items() if k.rpartition(".")[0] not in modules})
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        if first_names.get(name, name) != name:
            continue  # stored under its first name
        tensor = tensor.detach().cpu()
        if owner in modules and leaf == "codes":
            bits = code_bits(modules[owner].n_centroids)
            tensors[name] = torch.from_numpy(pack_codes(tensor.numpy(), bits))
            layers[owner] = {"shape": list(tensor.shape), "bits": bits, **_kind(modules[owner])}
            if (first := owners[id(modules[owner].centroids)]) != owner:
                layers[owner]["codebook"] = first
            if modules[owner].codebook_dtype != "float16":
                layers[owner]["codebook_dtype"] = modules[owner].codebook_dtype
            if (scale := _grid(modules[owner])) is not None:
                layers[owner]["scale"] = scale
            if (inputs := modules[owner].activations) is not None:
                layers[owner]["activations"] = {"scale": inputs.scale, "zero_point": inputs.zero_point}
        elif owner in modules and leaf == "centroids" and owners[id(modules[owner].centroids)] != owner:
            continue  # stored with the first layer that has it
        elif owner in modules and leaf == "centroids" and (scale := _grid(modules[owner])) is not None:
            tensors[name] = (tensor / scale).round().to(torch.int8)
        else:
            tensors[name] = _smallest(tensor)
    return tensors, layers


def _kind(module: _PQWeight) -> dict[str, Any]:
    if isinstance(module, PQEmbedding):
        return {"kind": "embedding", "padding_idx": module.padding_idx}
    if isinstance(module, PQConv2d):
        return {"kind": "conv2d", "kernel_size": list(module.kernel_size)}
    return {"kind": "linear"}


def _grid(module: _PQWeight) -> float | None:
    """Step of the int8 grid on which a codebook lies, if it is meant for one and lies on it."""
    if module.codebook_dtype != "int8":
        return None
    scale = int8_scale(module.centroids)
    rounded = round_codebook(module.centroids.detach(), "int8")
    return scale if scale > 0 and torch.equal(rounded, module.centroids) else None


def _smallest(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision where that is exact."""
    if tensor.dtype in (torch.float32, torch.float64):
        half = tensor.half()
        if torch.equal(half.to(tensor.dtype), tensor):
            return half.contiguous()
    return tensor.contiguous().clone()


_PLACES = {
    "linear": (nn.Linear, PQLinear),
    "embedding": (nn.Embedding, PQEmbedding),
    "conv2d": (nn.Conv2d, PQConv2d),
}


def build_layers(
    layers: dict[str, dict[str, Any]], tensors: dict[str, torch.Tensor], model: nn.Module, path: str | Path
) -> dict[str, _PQWeight]:
    """Return the quantized layers that take the places of a model's, by name; the model may be on the meta device.

    Parameters
    ----------
    layers, tensors
        Description and tensors as `compression.quantization.files.read_tensors` returns them.
    model
        The model with its dense (or quantized) layers.
    path
        For messages.

    Raises
    ------
    CompressedFileError
        If a layer is damaged or does not fit.
    """
    built = {name: _build(name, layers, tensors, model, path) for name, layer in layers.items()}
    for name, layer in layers.items():
        if "codebook" in layer:
            built[name].centroids = built[layer["codebook"]].centroids
    return built


def _build(
    name: str, layers: dict[str, dict[str, Any]], tensors: dict[str, torch.Tensor], model: nn.Module, path: str | Path
) -> _PQWeight:
    """The quantized layer that takes the place of module `name`."""
    layer = layers[name]
    try:
        old = model.get_submodule(name)
    except AttributeError as error:
        raise CompressedFileError(f"File {str(path)!r} does not fit the model: it has no layer {name!r}.") from error
    dtype = next(old.parameters()).dtype
    biased = f"{name}.bias" in tensors
    if not isinstance(old, _PLACES[layer["kind"]]) or biased != (getattr(old, "bias", None) is not None):
        with_bias = f"{layer['kind']}, {'with' if biased else 'without'} bias"
        raise CompressedFileError(f"File {str(path)!r} does not fit the model: {name!r} is {with_bias}, not {old}.")
    rows, blocks = layer["shape"]
    try:
        owner = layer.get("codebook", name)
        if "codebook" in layers[owner]:
            raise ValueError(f"its codebook is that of layer {owner!r}, which has none")
        stored = tensors[f"{owner}.centroids"]
        centroids = stored.to(dtype) * layer["scale"] if stored.dtype == torch.int8 else stored.to(dtype)
        packed = tensors[f"{name}.codes"].numpy()
        codes = torch.from_numpy(unpack_codes(packed, layer["bits"], rows * blocks).astype(np.int32))
        if layer["kind"] == "embedding":
            module: _PQWeight = PQEmbedding(centroids, codes.reshape(rows, blocks), layer["padding_idx"])
        else:
            bias = tensors.get(f"{name}.bias")
            bias = None if bias is None else bias.to(dtype)
            if layer["kind"] == "conv2d":
                module = _convolution(old, layer, centroids, codes.reshape(rows, blocks), bias)
            else:
                module = PQLinear(centroids, codes.reshape(rows, blocks), bias)
        inputs = ActivationGrid(**layer["activations"]) if "activations" in layer else None
    except (KeyError, TypeError, ValueError) as error:
        raise CompressedFileError(f"File {str(path)!r} is damaged in layer {name!r}: {error}.") from error
    module.codebook_dtype = layer.get("codebook_dtype", "float16")
    module.activations = inputs
    if biased:
        module.get_parameter("bias").requires_grad_(old.get_parameter("bias").requires_grad)
    have, need = (rows, blocks * module.block_size), _dense_shape(old)
    if have != need:
        raise CompressedFileError(f"File {str(path)!r} does not fit the model: {name!r} is {have}, not {need}.")
    return module.train(old.training)


def _convolution(
    old: nn.Module, layer: dict[str, Any], centroids: torch.Tensor, codes: torch.Tensor, bias: torch.Tensor | None
) -> PQConv2d:
    """A quantized convolution with the stride, padding, dilation and groups of the model's own."""
    if not isinstance(old, nn.Conv2d | PQConv2d) or list(old.kernel_size) != layer["kernel_size"]:
        raise ValueError(f"it is a convolution of kernel size {layer['kernel_size']}, but the model's layer is {old}")
    return PQConv2d.like(old, centroids, codes, bias)


def _dense_shape(module: Any) -> tuple[int, int]:
    if isinstance(module, _PQWeight):
        return module.codes.shape[0], module.codes.shape[1] * module.block_size
    return len(module.weight), module.weight[0].numel()
