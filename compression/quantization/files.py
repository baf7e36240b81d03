"""Named tensors with a description in safetensors files, one or several, each tensor with its checksum."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from safetensors.torch import save_file

from shared.artifacts import atomic_path, write_json

FORMAT = "pg-ipq"
VERSION = 2
SHARING = 3
"""Version of a file in which layers share a codebook."""

READABLE = (1, VERSION, SHARING)
"""Versions that are read; files of version 1 have no checksums."""

SINGLE = "model.safetensors"
"""Name of the file in a folder, where all tensors are in one; with several files there is an index in its place."""

_DIGEST = f"{FORMAT}-sha256"
_CHECKSUM_DIGITS = 16
_KINDS = ("linear", "embedding", "conv2d")
_PART = re.compile(r"-\d{5}-of-\d{5}")


class CompressedFileError(ValueError):
    """A file that is not a complete, unchanged compressed model, or does not fit the model it is loaded into."""


def checksum(name: str, tensor: torch.Tensor) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a tensor's name, data type, shape and bytes."""
    tensor = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()[:_CHECKSUM_DIGITS]


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of named tensors, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def sealed(tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a file: the description with a checksum of each tensor, and the SHA-256 of all that.

    Parameters
    ----------
    tensors
        Tensors as stored. Their checksums are listed in the order of their names.
    header
        JSON-able description.
    """
    checksums = [checksum(name, tensors[name]) for name in sorted(tensors)]
    text = json.dumps({"format": FORMAT, "version": VERSION, "checksums": checksums, **header}, sort_keys=True)
    return {"format": "pt", FORMAT: text, _DIGEST: hashlib.sha256(text.encode()).hexdigest()}


def serialized_bytes(tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> int:
    """Return the size of the single file that `write_tensors` would write."""
    return len(serialize(dict(tensors), metadata=sealed(tensors, header)))


def write_tensors(
    tensors: Mapping[str, torch.Tensor],
    header: Mapping[str, Any],
    path: str | Path,
    max_shard_bytes: int | None = None,
) -> int:
    """Write tensors and their description.

    Parameters
    ----------
    tensors, header
        See `sealed`.
    path
        The file ``NAME.safetensors``; replaced atomically.
    max_shard_bytes
        Most bytes of tensors in a file, a tensor that is larger alone excepted. If there are more, they are written to
        ``NAME-00001-of-0000N.safetensors`` and so on, each with the whole description, and the index
        ``NAME.safetensors.index.json`` comes last: files of different models, as an interruption would leave them, are
        refused by `read_tensors`.

    Returns
    -------
    int
        Size of all files in bytes.

    Raises
    ------
    ValueError
        If `max_shard_bytes` is not positive.
    """
    if max_shard_bytes is not None and max_shard_bytes < 1:
        raise ValueError(f"Argument `max_shard_bytes` must be at least 1 or None, but was {max_shard_bytes}.")
    path = Path(path)
    shards = _split(tensors, max_shard_bytes)
    metadata = sealed(tensors, header)
    if len(shards) == 1:
        files = {path: dict(tensors)}
    else:
        files = {_shard_path(path, i + 1, len(shards)): shard for i, shard in enumerate(shards)}
    for file, part in files.items():
        with atomic_path(file) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(part, temporary, metadata=metadata)
            temporary.chmod(mode)  # safetensors lets nobody else read it
            _sort_metadata(temporary)
    size = sum(file.stat().st_size for file in files)
    index = _index_path(path)
    if len(shards) == 1:
        index.unlink(missing_ok=True)
    else:
        weight_map = {name: file.name for file, part in files.items() for name in part}
        write_json(index, {"metadata": {"total_size": _total(tensors)}, "weight_map": weight_map})
        path.unlink(missing_ok=True)
        size += index.stat().st_size
    for other in path.parent.glob("*.safetensors"):
        if re.fullmatch(rf"{re.escape(path.stem)}-\d{{5}}-of-\d{{5}}", other.stem) and other not in files:
            other.unlink()
    return size


def _sort_metadata(path: Path) -> None:
    """Put the metadata in the order of its keys, which safetensors leaves to chance: the same model, the same bytes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        if len(text) == length:
            file.seek(8)
            file.write(text)


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the description of a compressed file: ``format``, ``version``, ``layers``, ``extra``, ``checksums``.

    Raises
    ------
    CompressedFileError
        If the file is truncated, not safetensors, not of this format, or its description was changed. The tensors are
        not read.
    """
    files, _ = _locate(path)
    with _opened(files[0]) as file:
        return _header(file, files[0])


def read_tensors(path: str | Path | Sequence[str | Path]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the description and all tensors.

    Parameters
    ----------
    path
        The file; its folder; or the index, or the name of the file in whose place there is one, if there are several;
        or a list of all files, where the index has another name.

    Raises
    ------
    CompressedFileError
        As `read_header`; if a tensor does not have its checksum (it is named), is missing, the file is one part of
        several, or files and index do not belong together. No code in the file is ever run.
    """
    if isinstance(path, str | Path):
        files, index = _locate(path)
    else:
        files, index = [Path(file) for file in path], None
        path = files[0]
    header: dict[str, Any] = {}
    tensors: dict[str, torch.Tensor] = {}
    places: dict[str, str] = {}
    for number, file in enumerate(files):
        with _opened(file) as content:
            found = _header(content, file)
            if number and found != header:
                raise CompressedFileError(f"Files {files[0].name!r} and {file.name!r} are parts of different models.")
            header = found
            for name in content.keys():  # noqa: SIM118 (not a mapping)
                try:
                    tensors[name] = content.get_tensor(name)
                except (SafetensorError, ValueError, KeyError) as error:
                    raise CompressedFileError(f"File {str(file)!r} is damaged in tensor {name!r}: {error}.") from error
                places[name] = file.name
    if index is not None:
        _check_index(index, tensors, places, path)
    if header["version"] > 1:
        if len(files) == 1 and len(tensors) < len(header["checksums"]) and _PART.search(files[0].name):
            raise CompressedFileError(
                f"File {str(path)!r} is one part of several, which are read together: name their folder, "
                f"{str(files[0].parent)!r}, or their index."
            )
        _check(tensors, header["checksums"], path)
    for name, layer in header["layers"].items():
        for needed in (f"{name}.codes", f"{layer.get('codebook', name)}.centroids"):
            if needed not in tensors:
                raise CompressedFileError(
                    f"File {str(path)!r} is damaged in layer {name!r}: it lacks the tensor {needed!r}."
                )
    return header, tensors


def file_sizes(path: str | Path) -> int:
    """Return the bytes of a compressed file, or of all its parts and their index."""
    files, index = _locate(path)
    size = sum(file.stat().st_size for file in files)
    return size if index is None else size + index["path"].stat().st_size


def _check(tensors: Mapping[str, torch.Tensor], checksums: list[str], path: str | Path) -> None:
    if len(checksums) != len(tensors):
        raise CompressedFileError(
            f"File {str(path)!r} is damaged: it has {len(tensors)} tensors, but {len(checksums)} checksums."
        )
    for name, expected in zip(sorted(tensors), checksums, strict=True):
        if checksum(name, tensors[name]) != expected:
            raise CompressedFileError(
                f"File {str(path)!r} is damaged: tensor {name!r} does not have the checksum with which it was saved. "
                "Get the file again."
            )


def _check_index(
    index: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], places: Mapping[str, str], path: str | Path
) -> None:
    wrong = sorted(dict(index["weight_map"].items() ^ places.items()))
    if wrong:
        raise CompressedFileError(f"Index of {str(path)!r} is damaged: tensor {wrong[0]!r} is not where it says.")
    if index["total_size"] != _total(tensors):
        raise CompressedFileError(
            f"Index of {str(path)!r} is damaged: it says {index['total_size']} bytes, not {_total(tensors)}."
        )


def _locate(path: str | Path) -> tuple[list[Path], dict[str, Any] | None]:
    """The files of a model, and the content of their index if there are several."""
    path = Path(path)
    if path.is_dir():
        path = path / SINGLE
    index = path if path.name.endswith(".index.json") else _index_path(path)
    if path.is_file() and path != index:
        return [path], None
    if not index.is_file():
        raise CompressedFileError(f"File {str(path)!r} does not exist.")
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        places, total = content["weight_map"], content["metadata"]["total_size"]
        names = sorted(set(places.values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("names of files are expected in it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CompressedFileError(f"File {str(index)!r} is damaged or no index of parts: {error}.") from error
    return [index.parent / name for name in names], {"weight_map": places, "total_size": total, "path": index}


def _index_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.index.json")


def _shard_path(path: Path, number: int, count: int) -> Path:
    return path.with_name(f"{path.stem}-{number:05d}-of-{count:05d}{path.suffix or '.safetensors'}")


def _total(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _split(tensors: Mapping[str, torch.Tensor], max_bytes: int | None) -> list[dict[str, torch.Tensor]]:
    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in tensors.items():
        if max_bytes is not None and shards[-1] and _total(shards[-1]) + _total({name: tensor}) > max_bytes:
            shards.append({})
        shards[-1][name] = tensor
    return shards


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise CompressedFileError(f"File {str(path)!r} does not exist.") from error
    except (SafetensorError, OSError) as error:
        raise CompressedFileError(f"File {str(path)!r} is truncated or not a safetensors file: {error}.") from error


def _header(file: Any, path: Path) -> dict[str, Any]:
    metadata = file.metadata() or {}
    text = metadata.get(FORMAT)
    if text is None:
        raise CompressedFileError(f"File {str(path)!r} is safetensors, but holds no {FORMAT} model.")
    try:
        header = json.loads(text)
        version = header["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CompressedFileError(f"File {str(path)!r} is damaged: its description cannot be read.") from error
    sound = metadata.keys() == {"format", FORMAT, _DIGEST} and metadata["format"] == "pt"
    unsealed = version == 1 and _DIGEST not in metadata  # a seal that is there counts, whatever the version says
    if not unsealed and not (sound and metadata[_DIGEST] == hashlib.sha256(text.encode()).hexdigest()):
        raise CompressedFileError(
            f"File {str(path)!r} is damaged: its description does not have the checksum with which it was saved."
        )
    if version not in READABLE:
        raise CompressedFileError(
            f"File {str(path)!r} has version {version}, but this reads {', '.join(map(str, READABLE))}: get a newer "
            "release of this package."
        )
    if not _describes_layers(header, version):
        raise CompressedFileError(
            f"File {str(path)!r} is damaged or foreign: its description does not say how its layers are stored."
        )
    return header


def _describes_layers(header: Mapping[str, Any], version: int) -> bool:
    layers = header.get("layers")
    if not isinstance(layers, dict) or not (version == 1 or isinstance(header.get("checksums"), list)):
        return False
    return all(
        isinstance(layer, dict)
        and layer.get("kind") in _KINDS
        and isinstance(layer.get("bits"), int)
        and isinstance(layer.get("shape"), list)
        and len(layer["shape"]) == 2
        and all(isinstance(n, int) and n > 0 for n in layer["shape"])
        and isinstance(layer.get("codebook", ""), str)
        for layer in layers.values()
    )
