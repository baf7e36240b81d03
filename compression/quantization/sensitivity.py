"""How much each layer matters: its options with their bytes, errors and predicted losses."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from compression.clustering.assignment import nearest_centroids
from compression.quantization.blocks import PQConfig, code_bits, codebook_bytes, round_codebook, to_blocks
from compression.quantization.calibration import Batch, all_logits, divergence
from compression.quantization.layer_clustering import ClusterJob, joined, parted, run_job
from shared.parallel import parallel_map
from shared.progress import progress

SIZES = tuple(
    (d, 1 << bits)
    for d, all_bits in {
        2: (5, 6, 7, 8),
        3: (7, 8, 9),
        4: (6, 7, 8, 9, 10),
        6: (8, 9, 10),
        8: (6, 8, 10),
        9: (8, 10),
        12: (8, 10, 12),
        16: (8, 10, 12),
        18: (8, 10),
        24: (8, 12),
    }.items()
    for bits in all_bits
)
"""Pairs of block size d and codewords K that `compress` tries, where they fit the layer: 0.33 to 4 bits a weight.

Blocks of 9 and 18 are one and two kernels of a 3 x 3 convolution.
"""

_CODEBOOKS = ("float16", "int8")
_MAX_ITER = 5  # of the clusterings that only measure errors
_SAMPLED = 1 << 22  # entries of a weight on which they measure


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
    shared
        Further options, which all layers of its group take together or none: its codes for a codebook that they share.
        The first of the group has the bytes of the codebook.
    """

    name: str
    shape: tuple[int, int]
    sensitivity: float
    options: tuple[Option, ...]
    shared: tuple[Option, ...] = ()

    def option(self, number: int) -> Option:
        """Return an option by its number; those of `shared` come after the others."""
        return (*self.options, *self.shared)[number]


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
        configs = [
            common.model_copy(update={"block_size": d, "n_centroids": k})
            for d, k in fitting_sizes(shape_of(model, name), sizes)
        ]
        probe = min(configs, key=lambda config: abs(np.log2(_bits(config)) - np.log2(target_bits)))
        job = ClusterJob.of(weight_of(model, name), configs[0], seed, weights.get(name))
        jobs.append((job, configs, configs.index(probe)))
    measured = parallel_map(_errors, jobs, n_workers=n_workers, description="Measuring errors of the layers")
    layers = []
    with progress("Measuring sensitivities", len(names)) as step:
        for name, (job, configs, probe_number), (errors, probe_weight) in zip(names, jobs, measured, strict=True):
            scale = 1.0
            if sensitivity == "loss":
                loss = _loss_with(model, name, probe_weight, calibration, reference)
                scale = loss / max(errors[probe_number]["float32"], 1e-30)
            layers.append(_layer_options(name, job, configs, errors, max(scale, 0.0), base))
            step()
    return tuple(layers)


def measure_shared(
    model: nn.Module,
    layers: Sequence[LayerOptions],
    groups: Sequence[Sequence[str]],
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    weights: Mapping[str, torch.Tensor] | None = None,
    base: PQConfig | None = None,
    seed: int = 0,
    n_workers: int | None = 1,
) -> tuple[LayerOptions, ...]:
    """Return the layers with the options that groups of them have with one codebook.

    Parameters
    ----------
    layers
        From `measure_layers`, which has measured how much each layer matters.
    groups
        Names of the layers that could share a codebook; none is in two groups.
    model, sizes, weights, base, seed, n_workers
        As in `measure_layers`.
    """
    base = base or PQConfig()
    weights = weights or {}
    by_name = {layer.name: layer for layer in layers}
    work = []
    for group in groups:
        fitting = shared_sizes([by_name[name].shape for name in group], sizes)
        common = base.model_copy(update={"max_iter": _MAX_ITER, "codebook_dtype": "float32"})
        configs = [common.model_copy(update={"block_size": d, "n_centroids": k}) for d, k in fitting]
        if configs:
            jobs = [ClusterJob.of(weight_of(model, name), configs[0], seed, weights.get(name)) for name in group]
            work.append((group, configs, jobs))
    measured = parallel_map(
        _shared_errors,
        [(jobs, configs) for _, configs, jobs in work],
        n_workers=n_workers,
        description="Measuring errors of shared codebooks",
    )
    for (group, configs, _), errors in zip(work, measured, strict=True):
        for place, name in enumerate(group):
            layer, options = by_name[name], []
            for config, row in zip(configs, errors, strict=True):
                d, k = config.block_size, config.n_centroids
                for dtype in _CODEBOOKS:
                    chosen = base.model_copy(update={"block_size": d, "n_centroids": k, "codebook_dtype": dtype})
                    size = option_bytes(layer.shape, d, k, dtype)
                    size -= codebook_bytes(k, d, dtype) if place else 0
                    options.append(Option(chosen, size, row[place][dtype], layer.sensitivity * row[place][dtype]))
            by_name[name] = dataclasses.replace(layer, shared=tuple(options))
    return tuple(by_name.values())


def weight_of(model: nn.Module, name: str) -> torch.Tensor:
    """Return the weight of a layer by its name."""
    return model.get_parameter(f"{name}.weight")


def shape_of(model: nn.Module, name: str) -> tuple[int, int]:
    """Return (rows, features) of a layer's weight; all dimensions after the first are features."""
    weight = weight_of(model, name)
    return len(weight), weight[0].numel()


def fitting_sizes(shape: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the sizes whose block size divides and whose codewords have at least four blocks each."""
    rows, features = shape
    return [(d, k) for d, k in sizes if features % d == 0 and rows * (features // d) >= 4 * k]


def shared_sizes(shapes: Sequence[Sequence[int]], sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the sizes that fit some layers together and whose codebooks, one for each layer, would count.

    What counts is 2 % of the codes: it is not worth a larger error to save less.
    """
    found = []
    for d, k in sizes:
        n_blocks = sum(rows * (features // d) for rows, features in shapes)
        saved = (len(shapes) - 1) * codebook_bytes(k, d, "float16")
        fits = all(features % d == 0 for _, features in shapes) and n_blocks >= 4 * k
        if fits and saved >= 0.02 * n_blocks * code_bits(k) / 8:
            found.append((d, k))
    return found


def shared_bytes(shapes: Sequence[Sequence[int]], d: int, k: int, codebook_dtype: str = "float16") -> int:
    """Return the bytes of the codes of some layers and of the codebook that they share."""
    codes = sum(option_bytes(shape, d, k, codebook_dtype) for shape in shapes)
    return codes - (len(shapes) - 1) * codebook_bytes(k, d, codebook_dtype)


def option_bytes(shape: Sequence[int], d: int, k: int, codebook_dtype: str = "float16") -> int:
    """Return the bytes of the codes and the codebook of a layer."""
    rows, features = shape
    return -(-rows * (features // d) * code_bits(k) // 8) + codebook_bytes(k, d, codebook_dtype)


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


def _shared_errors(job: tuple[Sequence[ClusterJob], Sequence[PQConfig]]) -> list[list[dict[str, float]]]:
    """For each configuration the relative weighted error of each layer, by type of codebook."""
    whole, configs = job
    sampled = [_sample(layer, _SAMPLED // len(whole)) for layer in whole]
    weights = [np.ones(1) if layer.sample_weight is None else layer.sample_weight for layer in sampled]
    norms = [
        float((weight * layer.weight**2).sum(dtype=np.float64)) or 1.0
        for weight, layer in zip(weights, sampled, strict=True)
    ]
    rows = []
    for config in configs:
        jobs = [dataclasses.replace(layer, config=config) for layer in sampled]
        parts = parted(run_job(joined(jobs)), jobs)
        books = {dtype: round_codebook(torch.from_numpy(parts[0].centroids), dtype).numpy() for dtype in _CODEBOOKS}
        row = []
        for part, layer, weight, norm in zip(parts, sampled, weights, norms, strict=True):
            decoded = {dtype: book[part.codes].reshape(layer.weight.shape) for dtype, book in books.items()}
            row.append(
                {
                    dtype: float((weight * (values - layer.weight) ** 2).sum(dtype=np.float64)) / norm
                    for dtype, values in decoded.items()
                }
            )
        rows.append(row)
    return rows


def _sample(job: ClusterJob, n_entries: int = _SAMPLED) -> ClusterJob:
    """The job on at most so many entries: the rows of largest weight, and some of the others for all of them."""
    n_rows, n_features = job.weight.shape
    n_kept = max(n_entries // n_features, 1)
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
    parameter = weight_of(model, name)
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(weight).reshape(parameter.shape))
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
    element = 2 if np.abs(job.weight).max() <= np.finfo(np.float16).max else 4  # as `round_` leaves it
    options = [Option(None, element * job.weight.size, 0.0)]
    for config, row in zip(configs, errors, strict=True):
        d, k = config.block_size, config.n_centroids
        for dtype in _CODEBOOKS:
            chosen = base.model_copy(update={"block_size": d, "n_centroids": k, "codebook_dtype": dtype})
            size = option_bytes(shape, d, k, dtype)
            options.append(Option(chosen, size, row[dtype], sensitivity * row[dtype]))
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: (option.bytes, option.error)):
        if not kept or option.error < kept[-1].error:
            kept.append(option)
    return LayerOptions(name, shape, sensitivity, tuple(kept))


def _bits(config: PQConfig) -> float:
    return code_bits(config.n_centroids) / config.block_size
