"""Compressed models as ONNX files that are small too: codes and codebooks are stored, weights decoded in the graph."""

import copy
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compression.quantization.calibration import evaluating, logits_of
from compression.quantization.layers import pq_modules
from shared.artifacts import atomic_path, provenance

TOLERANCE = 1e-4
"""Most by which an output of the graph may differ from that of PyTorch, as a part of the largest output."""

_EXTRA = "run `pip install 'molecular-compression[onnx]'`"
_FEW = 16  # numbers of a tensor that is not worth a cast


class OnnxExportError(RuntimeError):
    """A graph that does not compute what the model computes."""


@dataclass(frozen=True)
class OnnxReport:
    """What was exported.

    Attributes
    ----------
    path, bytes
        The file and its size.
    inputs
        Names of its inputs.
    nodes
        Operations of the graph.
    difference
        Largest difference from PyTorch, over the largest output; ``None`` if it was not checked.
    """

    path: Path
    bytes: int
    inputs: tuple[str, ...]
    nodes: int
    difference: float | None


def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    inputs: Mapping[str, torch.Tensor] | Sequence[str] | None = None,
    check: bool = True,
) -> OnnxReport:
    """Write a model with product-quantized layers as one ONNX file.

    Codes are stored in the bits they need, codebooks as in `compression.save_compressed`, and other weights in half
    precision where that is exact; standard operations (opset 20) decode them in the graph. An embedding looks up codes
    and decodes those rows only. ONNX Runtime decodes the other layers once, when it loads the file, and then takes the
    time and the memory of a dense model; with its optimizer ``ConstantFolding`` switched off it decodes them in each
    run.

    Parameters
    ----------
    model
        The model, on the CPU; it is left as it is.
    path
        The file, replaced atomically.
    inputs
        Example inputs by name: their first dimension is the batch, and the second of integers the tokens; any size of
        these can be run (of tokens where the model takes any). For an encoder of `transformers` names are enough, and
        by default ``input_ids`` and ``attention_mask``.
    check
        Run the file with ONNX Runtime on inputs of other sizes and compare with PyTorch.

    Returns
    -------
    OnnxReport
        Size, inputs, and the largest difference of the outputs.

    Raises
    ------
    ValueError
        If the model has no product-quantized layer, one of them does not compute in float32, or its inputs cannot be
        made.
    OnnxExportError
        If an output differs by more than `TOLERANCE`; the file is not written then.
    ModuleNotFoundError
        If the extra ``onnx`` is not installed.
    """
    _check_installed()
    if not pq_modules(model):
        raise ValueError("Argument `model` must have product-quantized layers, but has none: call `quantize_` first.")
    for name, layer in pq_modules(model).items():
        if layer.centroids.dtype != torch.float32:
            raise ValueError(
                f"Argument `model` must compute in float32, but layer {name!r} is {layer.centroids.dtype}: call "
                "`model.float()` first."
            )
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"Argument `path` must name a file, but {str(path)!r} is a folder.")
    example = _example(model, inputs)
    with evaluating(model):
        graph = _graph(model, example)
        with atomic_path(path) as temporary:
            temporary.write_bytes(graph.SerializeToString())
            difference = _difference(model, temporary, example, path) if check else None
    return OnnxReport(path, path.stat().st_size, tuple(example), len(graph.graph.node), difference)


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The package `{error.name}`, which the export to ONNX needs, is not installed: {_EXTRA}."
        ) from error


def _example(model: nn.Module, inputs: Mapping[str, torch.Tensor] | Sequence[str] | None) -> dict[str, torch.Tensor]:
    """Small inputs, more than one sentence and token: of sizes 1 a tracer would think that they are always 1."""
    if isinstance(inputs, Mapping):
        known = inspect.signature(model.forward).parameters
        for name, value in inputs.items():
            if name not in known or not isinstance(value, torch.Tensor) or len(value) < 2:
                raise ValueError(
                    f"Argument `inputs` must hold tensors of at least 2 rows for arguments of the model "
                    f"({', '.join(known)}), but {name!r} is none."
                )
        return dict(inputs)
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "vocab_size"):
        raise ValueError("Argument `inputs` must hold example tensors: the model is no encoder of `transformers`.")
    names = ("input_ids", "attention_mask") if inputs is None else tuple(inputs)
    made = _sentences(config, 2, min(8, _longest(config)), 0)
    unknown = [name for name in names if name not in made or name not in inspect.signature(model.forward).parameters]
    if unknown or "input_ids" not in names:
        raise ValueError(
            f"Argument `inputs` must hold 'input_ids' and may hold 'attention_mask' and 'token_type_ids' as far as the "
            f"model takes them, but was {', '.join(map(repr, names))}."
        )
    return {name: made[name] for name in names}


def _sentences(config: Any, n: int, length: int, seed: int) -> dict[str, torch.Tensor]:
    """Random sentences, the last one padded if there are several."""
    generator = torch.Generator().manual_seed(seed)
    pad = getattr(config, "pad_token_id", None) or 0
    ids = torch.randint(0, config.vocab_size, (n, length), generator=generator)
    ids[ids == pad] = (pad + 1) % config.vocab_size
    mask = torch.ones_like(ids)
    if n > 1 and length > 2:
        mask[-1, length // 2 :] = 0
        ids[-1, length // 2 :] = pad
    types = torch.zeros_like(ids)
    types[:, length // 3 :] = min(1, max(1, getattr(config, "type_vocab_size", 1)) - 1)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def _longest(config: Any) -> int:
    from compression.quantization.hf import longest_input

    return longest_input(config)


def _graph(model: nn.Module, example: dict[str, torch.Tensor]) -> Any:
    from compression.quantization.onnx_layers import TRANSLATIONS, in_operations

    exported = copy.deepcopy(model)
    for name, layer in pq_modules(exported).items():
        exported.set_submodule(name, in_operations(layer))
    config = getattr(model, "config", None)
    batch = torch.export.Dim("batch")
    encodes = hasattr(config, "vocab_size")
    # Of a model that tells nothing the tokens are fixed where it needs that.
    tokens: Any = torch.export.Dim("tokens", max=_longest(config)) if encodes else torch.export.Dim.AUTO
    rows = [name for name, x in example.items() if x.ndim == 2 and (encodes or not x.is_floating_point())]
    shapes = {name: {0: batch} | ({1: tokens} if name in rows else {}) for name in example}
    with _quiet():
        # Not left to the exporter, which would let sizes vary that the model needs as they are.
        recorded = torch.export.export(exported.eval(), (), example, dynamic_shapes=shapes, strict=False)
        program = torch.onnx.export(
            recorded,
            dynamo=True,
            dynamic_shapes=shapes,  # for their names
            output_names=["logits"] if hasattr(model, "config") else None,
            custom_translation_table=TRANSLATIONS,
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise OnnxExportError("The exporter of PyTorch gave no program.")
    graph = program.model_proto
    _strip(graph)
    _number_sizes(graph)
    _merge_codebooks(graph)
    _halve(graph)
    made = provenance()
    for key, value in (("format", "pg-ipq"), ("commit", made["git_commit"]), ("made", made["time_utc"])):
        graph.metadata_props.add(key=key, value=str(value))
    return graph


def _strip(model: Any) -> None:
    """Take out where in the code each operation came from, and the shapes between operations."""
    for part in (model.graph, *model.functions):
        for node in part.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
        part.ClearField("value_info")
        part.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")


def _number_sizes(model: Any) -> None:
    """Write sizes that turned out to be fixed as numbers: the exporter gives them as names of sizes that vary."""
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param.isdecimal():
                size.dim_value = int(size.dim_param)


def _merge_codebooks(model: Any) -> None:
    """Store a codebook that several layers share once."""
    first: dict[Any, str] = {}
    names = {}
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".book"):
            key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
            names[tensor.name] = first.setdefault(key, tensor.name)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    kept = [tensor for tensor in model.graph.initializer if names.get(tensor.name, tensor.name) == tensor.name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _halve(model: Any) -> None:
    """Store weights in half precision where that is exact."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) <= _FEW:
            continue
        values = numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT, name=f"{name}.cast"))
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def _difference(model: nn.Module, file: Path, example: dict[str, torch.Tensor], path: Path) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    config = getattr(model, "config", None)
    trials = [example]
    if hasattr(config, "vocab_size"):
        sizes = ((1, 1), (3, min(13, _longest(config))))
        trials += [_sentences(config, *size, seed) for seed, size in enumerate(sizes, start=1)]
    else:
        fixed = {value.name for value in session.get_inputs() if all(isinstance(n, int) for n in value.shape[1:])}
        longer = {name: torch.cat([x, x[:1]]) for name, x in example.items()}
        trials.append({name: x if name in fixed else x[:, :-1] for name, x in longer.items()})
    worst = 0.0
    for trial in trials:
        given = {name: trial[name] for name in example}
        with torch.inference_mode():
            expected = logits_of(model, given).numpy()
        found = session.run(None, {name: value.numpy() for name, value in given.items()})[0]
        found = found.reshape(expected.shape)
        worst = max(worst, float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)))
    if not worst <= TOLERANCE:
        raise OnnxExportError(
            f"The graph for {str(path)!r} gives outputs that differ from the model's by {worst:.2g} of the largest, "
            f"more than {TOLERANCE:g}: it was not written."
        )
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's exporter says of its own code: uses that it has deprecated, packages that are absent."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
