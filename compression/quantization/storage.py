"""The compressed file: packed codes and half-precision codebooks in safetensors, written, sized and read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from safetensors.torch import save_file
from torch import nn

from compression.quantization.blocks import code_bits, int8_scale, pack_codes, round_codebook, unpack_codes
from compression.quantization.convolution import PQConv2d
from compression.quantization.layers import PQEmbedding, PQLinear, _PQWeight, pq_modules
from shared.artifacts import atomic_path

FORMAT = "pg-ipq"
VERSION = 1


class CompressedFileError(ValueError):
    """A file that is not a complete, unchanged compressed model, or does not fit the model it is loaded into."""


def round_(model: nn.Module, *, codebooks: str | None = None, remainder: torch.dtype = torch.float16) -> None:
    """Round parameters in place to the types in which they will be stored, so that the file equals the model.

    Parameters
    ----------
    model
        A model with product-quantized layers.
    codebooks
        Type of all codebooks: ``"float16"``, ``"float32"`` or ``"int8"``; each layer's own (`PQConfig`) if ``None``.
    remainder
        Type of all other floating-point parameters and buffers.
    """
    books = {id(module.centroids): module for module in pq_modules(model).values()}
    with torch.no_grad():
        for module in books.values():
            module.codebook_dtype = codebooks or module.codebook_dtype
            module.centroids.copy_(round_codebook(module.centroids, module.codebook_dtype))
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and id(tensor) not in books:
                tensor.copy_(tensor.to(remainder))


def save_compressed(model: nn.Module, path: str | Path, *, extra: dict[str, Any] | None = None) -> int:
    """Write a model's state with packed codes.

    Parameters
    ----------
    model
        A model; tensors that are exact in float16 (codebooks: in the type they are meant for) are stored so, others in
        their own type. Call `round_` first to make all of them exact.
    path
        The file; written atomically.
    extra
        JSON-able description kept in the header, such as a model configuration.

    Returns
    -------
    int
        Size of the file in bytes.
    """
    tensors, metadata = _content(model, extra)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    return Path(path).stat().st_size


def file_bytes(model: nn.Module, *, extra: dict[str, Any] | None = None) -> int:
    """Return the size of the file that `save_compressed` would write with the same arguments."""
    tensors, metadata = _content(model, extra)
    return len(serialize(tensors, metadata=metadata))


def _content(model: nn.Module, extra: dict[str, Any] | None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of the file."""
    tensors, layers = _compressed_state(model)
    header = {"format": FORMAT, "version": VERSION, "layers": layers, "extra": extra or {}}
    return tensors, {FORMAT: json.dumps(header, sort_keys=True)}


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
    """Return the bytes of the same model without quantization, at 4 (fp32) or 2 (fp16) bytes a value."""
    layers = pq_modules(model)
    values = sum(tensor.numel() for tensor in _state(model).values() if tensor.is_floating_point())
    for module in layers.values():
        values += module.codes.numel() * module.block_size - module.centroids.numel()
    return values * bytes_per_value


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the description of a compressed file: ``format``, ``version``, ``layers``, ``extra``.

    Raises
    ------
    CompressedFileError
        If the file is truncated, not safetensors, or not of this format.
    """
    with _opened(path) as file:
        return _header(file, path)


def load_compressed_(model: nn.Module, path: str | Path) -> nn.Module:
    """Read a compressed file into a model, in place.

    Parameters
    ----------
    model
        The same architecture; layers stored as codes are replaced by `PQLinear` or `PQEmbedding`.
    path
        File that `save_compressed` wrote.

    Returns
    -------
    torch.nn.Module
        `model`. It is changed only after the whole file has been read and checked.

    Raises
    ------
    CompressedFileError
        If the file is truncated, foreign or does not fit the model. No code in the file is ever run.
    """
    with _opened(path) as file:
        header = _header(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    state = _state(model)
    replaced = {name: _build(name, layer, tensors, model, path) for name, layer in header["layers"].items()}
    owned = tuple(f"{name}." for name in replaced)
    expected = {name: tensor for name, tensor in state.items() if not name.startswith(owned)}
    stored = {name: tensor for name, tensor in tensors.items() if not name.startswith(owned)}
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
            model.set_submodule(name, module)
        for name, tensor in expected.items():
            tensor.copy_(stored[name])
    return model


def layer_bytes(path: str | Path) -> list[dict[str, Any]]:
    """Return what each part of a compressed file takes.

    Parameters
    ----------
    path
        File that `save_compressed` wrote.

    Returns
    -------
    list of dict
        ``name``, ``stored`` (how), dense ``shape``, ``bits`` a weight and ``bytes``: a row for each quantized layer
        (codes and codebook), one for each other tensor and one for the header.

    Raises
    ------
    CompressedFileError
        As `read_header`.
    """
    with _opened(path) as file:
        layers = _header(file, path)["layers"]
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        sizes = {name: _BYTES[part.get_dtype()] * int(np.prod(shapes[name])) for name, part in slices.items()}
        kinds = {name: part.get_dtype() for name, part in slices.items()}
    rows = []
    for name, layer in layers.items():
        k, d = shapes[f"{name}.centroids"]
        shape = (layer["shape"][0], layer["shape"][1] * d)
        size = sizes.pop(f"{name}.codes") + sizes.pop(f"{name}.centroids")
        rows.append(_size_row(f"{name}.weight", f"PQ {k}x{d}", shape, size))
    rows += [_size_row(name, kinds[name], shapes[name], size) for name, size in sizes.items()]
    header = Path(path).stat().st_size - sum(row["bytes"] for row in rows)
    return [*sorted(rows, key=lambda row: -row["bytes"]), _size_row("(header)", "JSON", (), header)]


_BYTES = {"U8": 1, "I8": 1, "BOOL": 1, "F16": 2, "BF16": 2, "I16": 2, "F32": 4, "I32": 4, "F64": 8, "I64": 8}


def _size_row(name: str, stored: str, shape: tuple[int, ...], size: int) -> dict[str, Any]:
    return {
        "name": name,
        "stored": stored,
        "shape": shape,
        "bits": 8 * size / max(int(np.prod(shape)), 1),
        "bytes": size,
    }


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}


def _compressed_state(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """Tensors as stored, and the description of each quantized layer."""
    layers: dict[str, dict[str, Any]] = {}
    modules = pq_modules(model)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in _state(model).items():
        owner, _, leaf = name.rpartition(".")
        tensor = tensor.detach().cpu()
        if owner in modules and leaf == "codes":
            bits = code_bits(modules[owner].n_centroids)
            tensors[name] = torch.from_numpy(pack_codes(tensor.numpy(), bits))
            layers[owner] = {"shape": list(tensor.shape), "bits": bits, **_kind(modules[owner])}
            if modules[owner].codebook_dtype != "float16":
                layers[owner]["codebook_dtype"] = modules[owner].codebook_dtype
            if (scale := _grid(modules[owner])) is not None:
                layers[owner]["scale"] = scale
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


def _opened(path: str | Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise CompressedFileError(f"File {str(path)!r} does not exist.") from error
    except (SafetensorError, OSError) as error:
        raise CompressedFileError(f"File {str(path)!r} is truncated or not a safetensors file: {error}.") from error


def _header(file: Any, path: str | Path) -> dict[str, Any]:
    text = (file.metadata() or {}).get(FORMAT)
    if text is None:
        raise CompressedFileError(f"File {str(path)!r} is safetensors, but holds no {FORMAT} model.")
    header = json.loads(text)
    if header.get("version") != VERSION:
        raise CompressedFileError(f"File {str(path)!r} has version {header.get('version')}, but this reads {VERSION}.")
    return header


def _build(
    name: str, layer: dict[str, Any], tensors: dict[str, torch.Tensor], model: nn.Module, path: str | Path
) -> _PQWeight:
    """The quantized layer that takes the place of module `name`."""
    try:
        old = model.get_submodule(name)
    except AttributeError as error:
        raise CompressedFileError(f"File {str(path)!r} does not fit the model: it has no layer {name!r}.") from error
    dtype = next(old.parameters()).dtype
    rows, blocks = layer["shape"]
    try:
        stored = tensors[f"{name}.centroids"]
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
    except (KeyError, ValueError) as error:
        raise CompressedFileError(f"File {str(path)!r} is damaged in layer {name!r}: {error}.") from error
    module.codebook_dtype = layer.get("codebook_dtype", "float16")
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
