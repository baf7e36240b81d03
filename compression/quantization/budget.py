"""Compression to a number of bytes: block size, codewords and codebook type of each layer by measured sensitivity."""

import copy
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from compression.clustering.assignment import nearest_centroids
from compression.quantization.allocation import Frontier, frontier
from compression.quantization.blocks import PQConfig, code_bits, codebook_bytes, round_codebook, to_blocks
from compression.quantization.calibration import (
    Batch,
    activation_weights,
    all_logits,
    check_batches,
    divergence,
    fisher_weights,
)
from compression.quantization.layers import PQEmbedding, PQLinear, pq_modules
from compression.quantization.rules import ClusterJob, LayerReport, Rule, quantize_, run_job
from compression.quantization.storage import dense_bytes, file_bytes, round_
from shared.parallel import parallel_map
from shared.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = tuple(
    (d, 1 << bits)
    for d, all_bits in {
        2: (5, 6, 7, 8),
        3: (7, 8, 9),
        4: (6, 7, 8, 9, 10),
        6: (8, 9, 10),
        8: (6, 8, 10),
        12: (8, 10),
        16: (8, 10),
        24: (8,),
    }.items()
    for bits in all_bits
)
"""Pairs of block size d and codewords K that `compress` tries, where they fit the layer: 0.33 to 4 bits a weight."""

_CODEBOOKS = ("float16", "int8")
_MAX_ITER = 5  # of the clusterings that only measure errors
_SAMPLED = 1 << 22  # entries of a weight on which they measure
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_MAX_CURVE = 200


@dataclass(frozen=True)
class Option:
    """One way to store a layer's weight.

    Attributes
    ----------
    config
        How to quantize; ``None`` keeps the weight in float16.
    bytes
        Codes and codebook (or weight) in the file.
    error
        Squared error of the weight over its squared norm, both weighted as the clustering is.
    loss
        Predicted share of the whole model's loss.
    """

    config: PQConfig | None
    bytes: int
    error: float
    loss: float = 0.0


@dataclass(frozen=True)
class LayerOptions:
    """What can be done with one layer.

    Attributes
    ----------
    name
        Module name.
    shape
        (rows, features) of the weight.
    sensitivity
        Predicted loss per unit of `Option.error`.
    options
        By ascending bytes and falling loss; the last keeps the weight.
    """

    name: str
    shape: tuple[int, int]
    sensitivity: float
    options: tuple[Option, ...]


@dataclass(frozen=True)
class CompressionResult:
    """What `compress` returns.

    Attributes
    ----------
    model
        The compressed model, in evaluation mode, its values as they will be stored: `save_compressed` writes
        `file_bytes` bytes.
    rules
        One rule for each quantized layer, for `compression.quantize_` and `compression.ipq`.
    layers, chosen
        What could be done with each layer, and the number of the option that was chosen.
    reports
        Of the clusterings.
    budget_bytes, file_bytes, dense_bytes
        The budget, the size of the file, and the size of the weights in fp32.
    predicted_loss, measured_loss
        Mean Kullback-Leibler divergence from the original model's outputs on the calibration batches, in nats (with
        ``sensitivity="output"`` the prediction is a sum of relative output errors): the prediction from the single
        layers, and the measurement on the compressed model.
    curve
        Rows ``file_bytes``, ``of_fp32``, ``predicted_loss``: the least predicted loss for each size of file.
    """

    model: nn.Module
    rules: tuple[Rule, ...]
    layers: tuple[LayerOptions, ...]
    chosen: tuple[int, ...]
    reports: tuple[LayerReport, ...]
    budget_bytes: int
    file_bytes: int
    dense_bytes: int
    predicted_loss: float
    measured_loss: float
    curve: tuple[dict[str, float], ...]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each layer: what was chosen, its bytes, bits a weight, error and predicted loss."""
        rows = []
        for layer, number in zip(self.layers, self.chosen, strict=True):
            option = layer.options[number]
            config = option.config
            rows.append(
                {
                    "layer": layer.name,
                    "shape": f"{layer.shape[0]} x {layer.shape[1]}",
                    "block size": None if config is None else config.block_size,
                    "codewords": None if config is None else config.n_centroids,
                    "codebook": None if config is None else config.codebook_dtype,
                    "bytes": option.bytes,
                    "bits a weight": 8 * option.bytes / (layer.shape[0] * layer.shape[1]),
                    "relative error": option.error,
                    "predicted loss": option.loss,
                }
            )
        return rows

    def figure(self) -> "Figure":
        """Return the Pareto curve with this result on it; call it inside `shared.plotting.style`."""
        from shared.plotting import COLOURS, new_figure

        figure, axes = new_figure()
        inside = [row for row in self.curve if row["predicted_loss"] > 0]
        axes.loglog(
            [row["file_bytes"] / 1e6 for row in inside], [row["predicted_loss"] for row in inside], label="best"
        )
        marks = (("predicted", self.predicted_loss, "o"), ("measured", self.measured_loss, "s"))
        for number, (label, loss, marker) in enumerate(marks, start=1):
            axes.plot(self.file_bytes / 1e6, loss, marker, color=COLOURS[number], label=f"chosen, {label}")
        axes.set_xlabel("file (MB)")
        axes.set_ylabel("divergence on calibration (nats)")
        axes.legend()
        return figure


def compress(
    model: nn.Module,
    budget: str | int,
    *,
    calibration: Iterable[Batch],
    exclude: Sequence[str] = (),
    sizes: Sequence[tuple[int, int]] = SIZES,
    weighting: str | None = "activation",
    sensitivity: str = "loss",
    base: PQConfig | None = None,
    seed: int = 0,
    n_workers: int | None = 1,
    extra: dict[str, Any] | None = None,
) -> CompressionResult:
    """Compress a model to a file of at most so many bytes, with block size, K and codebook type chosen for each layer.

    Every linear layer and embedding is clustered in all ways that fit it. How much a layer matters is measured on the
    calibration batches; the choice that minimises the sum of the predicted losses within the budget is found by dynamic
    programming. Nothing is trained: `compression.ipq` with the result's ``rules`` does that.

    Parameters
    ----------
    model
        A module that returns logits (or an object with ``logits``). It is not changed.
    budget
        Bytes of the whole file: an integer, a text such as ``"6MB"``, ``"500 kB"`` or ``"5.7 MiB"``, or ``"12x"`` for a
        twelfth of the fp32 weights.
    calibration
        Batches, each a mapping of the model's keyword arguments or a tensor. Labels are not needed.
    exclude
        Regular expressions for the whole names of layers that are kept in float16.
    sizes
        Pairs of block size and codewords to try, besides keeping the weight in float16.
    weighting
        Weights of the clustering: ``"activation"``, ``"fisher"`` (see `compression.quantization.calibration`) or
        ``None``.
    sensitivity
        ``"loss"``: the divergence of the outputs when the layer alone is quantized, scaled by the error of the weight;
        ``"output"``: the relative squared output error of the layer.
    base
        Other options of the clustering.
    seed
        Of the clustering.
    n_workers
        Processes that cluster; all usable processors if ``None``. The result is the same for any number.
    extra
        Description kept in the file's header, see `save_compressed`; it counts.

    Returns
    -------
    CompressionResult

    Raises
    ------
    ValueError
        If an argument is not as described, or the budget is below the smallest file possible, which is named.
    """
    size = dense_bytes(model)
    budget_bytes = parse_budget(budget, size)
    if sensitivity not in ("loss", "output"):
        raise ValueError(f"Argument `sensitivity` must be 'loss' or 'output', but was {sensitivity!r}.")
    batches = check_batches(calibration)
    names = _quantizable(model, exclude, sizes)
    base = base or PQConfig()
    fixed = _check_possible(model, names, sizes, budget_bytes, extra)
    model = copy.deepcopy(model).eval()
    weights = _weights(model, batches, names, weighting, seed)
    reference = all_logits(model, batches)
    layers = measure_layers(
        model,
        batches,
        names,
        sizes=sizes,
        weights=weights,
        sensitivity=sensitivity,
        base=base,
        seed=seed,
        n_workers=n_workers,
        reference=reference,
        target_bits=32 * budget_bytes / size,
    )
    front = frontier(
        [np.array([option.bytes for option in layer.options]) for layer in layers],
        [np.array([option.loss for option in layer.options]) for layer in layers],
    )
    chosen = front.choose(budget_bytes - fixed)
    rules = _rules(layers, chosen)
    reports = quantize_(model, rules, seed=seed, sample_weights=weights, n_workers=n_workers) if rules else []
    round_(model)
    return CompressionResult(
        model=model,
        rules=rules,
        layers=layers,
        chosen=chosen,
        reports=tuple(reports),
        budget_bytes=budget_bytes,
        file_bytes=file_bytes(model, extra=extra),
        dense_bytes=size,
        predicted_loss=sum(layer.options[number].loss for layer, number in zip(layers, chosen, strict=True)),
        measured_loss=divergence(reference, all_logits(model, batches)),
        curve=_curve(front, fixed, size),
    )


def parse_budget(budget: str | int, fp32_bytes: int) -> int:
    """Return a budget in bytes.

    Parameters
    ----------
    budget
        Positive integer, a number with a unit (B, kB, MB, GB; KiB, MiB, GiB; letter case aside) or with ``x`` for a
        ratio to fp32.
    fp32_bytes
        Size of the fp32 weights.
    """
    message = (
        "Argument `budget` must be a positive number of bytes, a text such as '6MB', '500 kB' or '5.7 MiB', or a ratio "
        f"to fp32 such as '12x', but was {budget!r}."
    )
    if isinstance(budget, int) and not isinstance(budget, bool):
        number, unit = float(budget), ""
    elif isinstance(budget, str) and (match := re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zA-Z]*)\s*", budget)):
        number, unit = float(match[1]), match[2].lower()
    else:
        raise ValueError(message)
    if number <= 0 or unit not in (*_UNITS, "x"):
        raise ValueError(message)
    return int(fp32_bytes / number) if unit == "x" else int(number * _UNITS[unit])


def measure_layers(
    model: nn.Module,
    calibration: Sequence[Batch],
    names: Sequence[str],
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    weights: Mapping[str, torch.Tensor] | None = None,
    sensitivity: str = "loss",
    base: PQConfig | None = None,
    seed: int = 0,
    n_workers: int | None = 1,
    reference: Sequence[torch.Tensor] | None = None,
    target_bits: float = 2.0,
) -> tuple[LayerOptions, ...]:
    """Return size, error and predicted loss of the options of each layer; those that another beats are left out.

    Parameters
    ----------
    model
        Its weights are replaced one layer at a time and put back.
    calibration, sizes, sensitivity, base, seed, n_workers
        As in `compress`.
    names
        The layers.
    weights
        Weights of the clustering for some or all layers.
    reference
        The model's logits on the batches, computed if ``None``.
    target_bits
        Bits a weight of the option at which the loss is measured.
    """
    base = base or PQConfig()
    reference = all_logits(model, calibration) if reference is None else reference
    weights = weights or {}
    jobs = []
    for name in names:
        common = base.model_copy(update={"max_iter": _MAX_ITER, "codebook_dtype": "float32"})
        fitting = [
            common.model_copy(update={"block_size": d, "n_centroids": k})
            for d, k in _fitting(model.get_submodule(name).weight.shape, sizes)
        ]
        probe = min(fitting, key=lambda config: abs(np.log2(_bits(config)) - np.log2(target_bits)))
        job = ClusterJob.of(model.get_submodule(name).weight, fitting[0], seed, weights.get(name))
        jobs.append((job, fitting, fitting.index(probe)))
    measured = parallel_map(_errors, jobs, n_workers=n_workers, description="Measuring errors of the layers")
    layers = []
    with progress("Measuring sensitivities", len(names)) as step:
        for name, (job, fitting, probe_number), (errors, probe_weight) in zip(names, jobs, measured, strict=True):
            scale = 1.0
            if sensitivity == "loss":
                loss = _loss_with(model, name, probe_weight, calibration, reference)
                scale = loss / max(errors[probe_number]["float32"], 1e-30)
            layers.append(_layer_options(name, job, fitting, errors, max(scale, 0.0), base))
            step()
    return tuple(layers)


def fixed_bytes(model: nn.Module, names: Sequence[str], sizes: Sequence[tuple[int, int]], extra: Any = None) -> int:
    """Return the bytes of the file that no choice changes: all other tensors in float16 and the longest header."""
    skeleton = copy.deepcopy(model)
    counted = 0
    for name in names:
        layer = model.get_submodule(name)
        rows, features = layer.weight.shape
        d, k = max(_fitting(layer.weight.shape, sizes), key=lambda pair: _option_bytes(layer.weight.shape, *pair))
        codes, centroids = torch.zeros((rows, features // d), dtype=torch.int32), torch.zeros(k, d)
        quantized = (
            PQEmbedding(centroids, codes, layer.padding_idx)
            if isinstance(layer, nn.Embedding)
            else PQLinear(centroids, codes, layer.bias)
        )
        skeleton.set_submodule(name, quantized)
        counted += _option_bytes(layer.weight.shape, d, k)
    round_(skeleton)
    return file_bytes(skeleton, extra=extra) - counted + _HEADER_SLACK * len(names)


_HEADER_SLACK = 64  # for a layer: the scale of an int8 codebook, and longer numbers where a weight is kept


def _quantizable(model: nn.Module, exclude: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Names of the linear layers and embeddings that some size fits and that share their weight with no other."""
    if pq_modules(model):
        raise ValueError("Argument `model` must not be quantized yet, but has product-quantized layers.")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)}
    for pattern in exclude:
        if not any(re.fullmatch(pattern, name) for name in layers):
            raise ValueError(f"Argument `exclude` must hold patterns that match a layer, but {pattern!r} matches none.")
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    names = [
        name
        for name, module in layers.items()
        if not any(re.fullmatch(pattern, name) for pattern in exclude)
        and owners[id(module.weight)] == 1
        and _fitting(module.weight.shape, sizes)
    ]
    if not names:
        raise ValueError("Argument `model` must have a linear layer or embedding that one of the `sizes` fits.")
    return names


def _fitting(shape: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sizes whose block size divides and whose codewords have at least four blocks each."""
    rows, features = shape
    return [(d, k) for d, k in sizes if features % d == 0 and rows * (features // d) >= 4 * k]


def _option_bytes(shape: Sequence[int], d: int, k: int, codebook_dtype: str = "float16") -> int:
    rows, features = shape
    return -(-rows * (features // d) * code_bits(k) // 8) + codebook_bytes(k, d, codebook_dtype)


def _check_possible(
    model: nn.Module, names: Sequence[str], sizes: Sequence[tuple[int, int]], budget: int, extra: Any
) -> int:
    shapes = [model.get_submodule(name).weight.shape for name in names]
    least = [min(_option_bytes(shape, d, k, "int8") for d, k in _fitting(shape, sizes)) for shape in shapes]
    fixed = fixed_bytes(model, names, sizes, extra)
    smallest = fixed + sum(least)
    if smallest > budget:
        raise ValueError(
            f"Argument `budget` must be at least {smallest:,} bytes, the smallest file that `sizes` and `exclude` "
            f"allow, but was {budget:,}. Raise it, or allow larger block sizes or fewer codewords in `sizes`."
        )
    return fixed


def _weights(
    model: nn.Module, batches: Sequence[Batch], names: Sequence[str], weighting: str | None, seed: int
) -> dict[str, torch.Tensor]:
    if weighting is None:
        return {}
    if weighting == "activation":
        return activation_weights(model, batches, names)
    if weighting == "fisher":
        return fisher_weights(model, batches, names, seed)
    raise ValueError(f"Argument `weighting` must be 'activation', 'fisher' or None, but was {weighting!r}.")


def _errors(job: tuple[ClusterJob, Sequence[PQConfig], int]) -> tuple[list[dict[str, float]], np.ndarray]:
    """Relative weighted error of each configuration and type of codebook, and the weight decoded from one of them."""
    whole, configs, probe = job
    sample = _sample(whole)
    weights = np.ones(1) if sample.sample_weight is None else sample.sample_weight
    norm = float((weights * sample.weight**2).sum(dtype=np.float64)) or 1.0
    errors, decoded = [], whole.weight
    for number, config in enumerate(configs):
        result = run_job(dataclasses.replace(sample, config=config))
        row = {}
        for dtype in ("float32", *_CODEBOOKS):
            rounded = round_codebook(torch.from_numpy(result.centroids), dtype).numpy()
            weight = rounded[result.codes].reshape(sample.weight.shape)
            row[dtype] = float((weights * (weight - sample.weight) ** 2).sum(dtype=np.float64)) / norm
        errors.append(row)
        if number == probe:
            codes = nearest_centroids(to_blocks(whole.weight, config.block_size), result.centroids)
            decoded = result.centroids[codes].reshape(whole.weight.shape)
    return errors, decoded


def _sample(job: ClusterJob) -> ClusterJob:
    """The job on at most `_SAMPLED` entries: the rows of largest weight, and some of the others for all of them."""
    n_rows, n_features = job.weight.shape
    n_kept = max(_SAMPLED // n_features, 1)
    if n_rows <= n_kept:
        return job
    weights = np.ones(job.weight.shape, np.float32) if job.sample_weight is None else job.sample_weight
    by_weight = np.argsort(-weights.sum(axis=1), kind="stable")
    heavy, light = np.split(by_weight, [n_kept // 2])
    drawn = np.random.default_rng(job.seed).choice(light, n_kept - len(heavy), replace=False)
    scaled = np.concatenate([weights[heavy], weights[drawn] * (len(light) / len(drawn))])
    return dataclasses.replace(job, weight=job.weight[np.concatenate([heavy, drawn])], sample_weight=scaled)


def _loss_with(
    model: nn.Module, name: str, weight: np.ndarray, batches: Sequence[Batch], reference: Sequence[torch.Tensor]
) -> float:
    """Divergence of the model's outputs with one weight replaced; the weight is put back."""
    parameter = model.get_submodule(name).weight
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(weight))
    try:
        return divergence(reference, all_logits(model, batches))
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


def _layer_options(
    name: str,
    job: ClusterJob,
    configs: Sequence[PQConfig],
    errors: Sequence[Mapping[str, float]],
    sensitivity: float,
    base: PQConfig,
) -> LayerOptions:
    shape = (job.weight.shape[0], job.weight.shape[1])
    options = [Option(None, 2 * job.weight.size, 0.0)]
    for config, row in zip(configs, errors, strict=True):
        d, k = config.block_size, config.n_centroids
        for dtype in _CODEBOOKS:
            chosen = base.model_copy(update={"block_size": d, "n_centroids": k, "codebook_dtype": dtype})
            size = _option_bytes(shape, d, k, dtype)
            options.append(Option(chosen, size, row[dtype], sensitivity * row[dtype]))
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: (option.bytes, option.error)):
        if not kept or option.error < kept[-1].error:
            kept.append(option)
    return LayerOptions(name, shape, sensitivity, tuple(kept))


def _bits(config: PQConfig) -> float:
    return code_bits(config.n_centroids) / config.block_size


def _rules(layers: Sequence[LayerOptions], chosen: Sequence[int]) -> tuple[Rule, ...]:
    pairs = [(layer.name, layer.options[number].config) for layer, number in zip(layers, chosen, strict=True)]
    return tuple(Rule(pattern=re.escape(name), config=config) for name, config in pairs if config is not None)


def _curve(front: Frontier, fixed: int, dense: int) -> tuple[dict[str, float], ...]:
    """At most `_MAX_CURVE` points of the frontier, even in the logarithm of the size."""
    steps = front.steps()
    wanted = np.geomspace(fixed + steps[0], fixed + steps[-1], _MAX_CURVE) - fixed
    picked = np.unique(np.searchsorted(steps, wanted[1:], side="right") - 1)
    rows = []
    for size in steps[picked]:
        loss = float(front.losses[(size - front.least) // front.unit])
        rows.append({"file_bytes": int(fixed + size), "of_fp32": dense / (fixed + size), "predicted_loss": loss})
    return tuple(rows)
