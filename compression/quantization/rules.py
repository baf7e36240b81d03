"""Which layers of a model are quantized, how, and in which stage; and `quantize_`, which does it."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import nn

from compression.clustering.inputs import check_integer
from compression.clustering.lloyd import Iteration
from compression.quantization.blocks import PQConfig, check_divides, code_bits, codebook_bytes
from compression.quantization.convolution import PQConv2d
from compression.quantization.layer_clustering import Clustering, ClusterJob, cluster_layers, layer_seed
from compression.quantization.layers import DENSE, PQEmbedding, PQLinear, _PQWeight, unfit_layer, unfit_layers
from compression.quantization.saving import follow_layers_
from shared.config import FrozenConfig

STAGES = ("ffn", "embeddings", "attention", "head")
"""Stages of iPQ in their usual order."""


class Rule(FrozenConfig):
    """Quantize every linear layer, embedding and convolution whose full name matches.

    Attributes
    ----------
    pattern
        Regular expression for the whole module name.
    config
        How to quantize.
    stage
        Stage of iPQ that the layers belong to.
    shared
        All layers that match have one codebook, which is stored and trained once; each counts by its relative error in
        the clustering.
    """

    pattern: str
    config: PQConfig
    stage: str = "all"
    # Left out of what runs are known by where it is the default, so that runs of before it can be continued.
    shared: bool = Field(False, exclude_if=lambda value: value is False)

    @field_validator("pattern")
    @classmethod
    def _pattern_is_a_regular_expression(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"must be a regular expression ({error})") from error
        return pattern


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer.

    Attributes
    ----------
    name, stage
        Module name and stage of the rule.
    shape
        (rows, features) of the weight.
    block_size, n_centroids, n_requested
        Block size d, codewords kept, and codewords asked for (more, where clusters were empty).
    relative_error
        Squared error of the weight over its squared norm.
    bits
        Bits of the packed codes and, in the first of the layers that share it, the codebook.
    history
        History of the clustering; empty but in the first of the layers that share a codebook.
    seconds
        Wall time, likewise.
    shares_with
        The first layer with which this one shares its codebook, if it is another one.
    """

    name: str
    stage: str
    shape: tuple[int, int]
    block_size: int
    n_centroids: int
    n_requested: int
    relative_error: float
    bits: int
    history: tuple[Iteration, ...]
    seconds: float
    shares_with: str | None = None


def preset_rules(
    family: str,
    *,
    block_size: int | Mapping[str, int] = 8,
    n_centroids: int | Mapping[str, int] = 256,
    base: PQConfig | None = None,
    stages: Sequence[str] = STAGES,
    shared: Sequence[str] = (),
) -> tuple[Rule, ...]:
    """Return rules for a family of encoders.

    Parameters
    ----------
    family
        One of `FAMILIES`, the ``model_type`` of a `transformers` configuration.
    block_size, n_centroids
        One value, or one for each stage.
    base
        Other options.
    stages
        Stages to quantize, of `STAGES`.
    shared
        Those of them whose layers share one codebook.

    Returns
    -------
    tuple of Rule
        One for each stage, in order. The last projection onto the labels is left as it is.

    Raises
    ------
    ValueError
        If the family or a stage is unknown, or a shared stage is not quantized.
    """
    if family not in _PATTERNS:
        raise ValueError(
            f"Argument `family` must be one of {', '.join(map(repr, _PATTERNS))}, but was {family!r}. "
            "Other models need rules of their own: patterns of layer names, each with its configuration."
        )
    patterns = _PATTERNS[family]
    unknown = [stage for stage in stages if stage not in patterns]
    if unknown:
        raise ValueError(f"Argument `stages` must hold only {', '.join(map(repr, patterns))}, but has {unknown[0]!r}.")
    absent = [stage for stage in shared if stage not in stages]
    if absent:
        raise ValueError(f"Argument `shared` must hold only stages of `stages`, but has {absent[0]!r}.")
    for name, value in (("block_size", block_size), ("n_centroids", n_centroids)):
        lacking = [stage for stage in stages if stage not in value] if isinstance(value, Mapping) else []
        if lacking:
            raise ValueError(f"Argument `{name}` must have a value for each stage, but has none for {lacking[0]!r}.")
    rules = []
    for stage in stages:
        sizes = {
            "block_size": block_size[stage] if isinstance(block_size, Mapping) else block_size,
            "n_centroids": n_centroids[stage] if isinstance(n_centroids, Mapping) else n_centroids,
        }
        options = (base or PQConfig()).model_dump() | sizes
        config = PQConfig.build(options)
        rules.append(Rule(pattern=patterns[stage], config=config, stage=stage, shared=stage in shared))
    return tuple(rules)


_BERT = {
    "ffn": r"(.*\.)?layer\.\d+\.(intermediate|output)\.dense",
    "embeddings": r"(.*\.)?embeddings\.(word|position|token_type)_embeddings",
    "attention": r"(.*\.)?layer\.\d+\.attention\.(self\.(query|key|value)|output\.dense)",
    "head": r"(classifier|pooler|.*\.pooler)\.dense",
}
_PATTERNS = {
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "bert": _BERT,
    "mpnet": _BERT | {"attention": r"(.*\.)?layer\.\d+\.attention\.attn\.[qkvo]"},
    "distilbert": {
        "ffn": r"(.*\.)?layer\.\d+\.ffn\.lin[12]",
        "embeddings": r"(.*\.)?embeddings\.(word|position)_embeddings",
        "attention": r"(.*\.)?layer\.\d+\.attention\.(q|k|v|out)_lin",
        "head": r"pre_classifier",
    },
}
FAMILIES = tuple(_PATTERNS)
"""Families of encoders that have preset rules, by the ``model_type`` of their configuration."""


def as_rules(rules: Sequence[Rule] | Mapping[str, PQConfig]) -> tuple[Rule, ...]:
    """Return rules in order; of a mapping from patterns to configurations those that it stands for.

    Raises
    ------
    TypeError, ValueError
        If they are neither, or there is none.
    """
    if isinstance(rules, Mapping):
        rules = [Rule(pattern=pattern, config=config) for pattern, config in rules.items()]
    wanted = "Argument `rules` must be a list of `Rule`, or a mapping from patterns to `PQConfig`, but"
    if not isinstance(rules, Sequence):
        raise TypeError(f"{wanted} was a {type(rules).__name__}.")
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(f"{wanted} holds a {type(rule).__name__}.")
    if not rules:
        raise ValueError("Argument `rules` must hold at least one rule, but is empty.")
    return tuple(rules)


def match_rules(model: nn.Module, rules: Sequence[Rule], *, stage: str | None = None) -> list[tuple[str, Rule]]:
    """Pair each layer with the first rule that matches it.

    Parameters
    ----------
    model
        The model; layers that are already quantized are passed over.
    rules
        Rules in order.
    stage
        Only layers whose rule has this stage; all if ``None``.

    Returns
    -------
    list of (str, Rule)
        In the order of the model's modules.

    Raises
    ------
    ValueError
        If a rule is the first for no layer (near names are listed), no rule has the stage, a block size does not
        divide, or a layer is an embedding with `max_norm` or of a class with a ``forward`` of its own.
    """
    chosen = [number for number, rule in enumerate(rules) if stage in (None, rule.stage)]
    if not chosen:
        known = ", ".join(repr(name) for name in dict.fromkeys(rule.stage for rule in rules))
        raise ValueError(f"Argument `stage` must be the stage of a rule ({known}), but was {stage!r}.")
    kinds = (*DENSE, PQLinear, PQEmbedding, PQConv2d)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    matched: set[int] = set()
    pairs = []
    for name, module in layers.items():
        first = next((number for number, rule in enumerate(rules) if re.fullmatch(rule.pattern, name)), -1)
        if first not in chosen:
            continue
        matched.add(first)
        if isinstance(module, DENSE):
            _check_fit(name, rules[first], unfit_layer(module))
            check_divides(rules[first].config.block_size, module.weight[0].numel(), f"layer {name!r}")
            pairs.append((name, rules[first]))
    for number in chosen:
        if number not in matched:
            pattern = rules[number].pattern
            near = difflib.get_close_matches(pattern.replace("\\", ""), layers, n=3, cutoff=0.0)
            raise ValueError(
                f"The rule {pattern!r} matches no linear layer, embedding or convolution that the rules before it "
                f"leave; near names are {', '.join(map(repr, near)) or 'none: the model has no such layer'}."
            )
    return pairs


def quantizable(model: nn.Module, rules: Sequence[Rule], *, stage: str | None = None) -> list[tuple[str, Rule]]:
    """Return what `match_rules` does, for rules by which layers are to be quantized.

    Raises
    ------
    ValueError
        As `match_rules`; if a layer that matches shares its weight with another, or is the model itself.
    """
    pairs = match_rules(model, rules, stage=stage)
    if any(name == "" for name, _ in pairs):
        raise ValueError(
            f"Argument `model` must hold the layers to be quantized, but is one ({type(model).__name__}) itself: wrap "
            "it, as in `nn.Sequential(layer)`."
        )
    unfit = unfit_layers(model)
    for name, rule in pairs:
        _check_fit(name, rule, unfit.get(name))
    return pairs


def _check_fit(name: str, rule: Rule, reason: str | None) -> None:
    """Refuse a layer that cannot be held as codes."""
    if reason is not None:
        raise ValueError(
            f"Rules must not match layer {name!r}, as {rule.pattern!r} does, because {reason}. Leave it (or its stage) "
            "out, and it stays in float16."
        )


def quantize_(
    model: nn.Module,
    rules: Sequence[Rule] | Mapping[str, PQConfig],
    *,
    stage: str | None = None,
    seed: int = 0,
    sample_weights: Mapping[str, torch.Tensor] | None = None,
    n_workers: int | None = 1,
) -> list[LayerReport]:
    """Replace layers by product-quantized ones, in place.

    Parameters
    ----------
    model
        Any module. Hooks of the layers are kept. From now on ``save_pretrained`` of a `transformers` model writes
        packed codes, from which ``from_pretrained`` gives the same model to the bit. Values that are not exact in the
        types of the file (see `compression.quantization.storage.round_`) are written as they are, in float32: the file
        is larger until then.
    rules
        Rules in order, or a mapping from patterns to configurations; the first that matches a layer's full name counts.
    stage
        Only layers whose rule has this stage; all if ``None``.
    seed
        Seed of the clustering; every layer gets its own, derived from this and its position.
    sample_weights
        For some layers, positive weights of the entries of the weight, of its shape.
    n_workers
        Processes that cluster, see `shared.parallel.parallel_map`; all usable processors if ``None``. The result is the
        same for any number.

    Returns
    -------
    list of LayerReport
        One for each layer, in the order of the model's modules.

    Raises
    ------
    ValueError
        Before any clustering, if a rule matches nothing, a block size does not divide, or a layer shares its weight
        with another, is an embedding with `max_norm`, is of a class with a ``forward`` of its own or has a weight that
        is computed from other tensors (pruning, a parametrization); or if `sample_weights` has an unknown layer or
        another shape.
    """
    seed = check_integer(seed, "seed", 0)
    pairs = quantizable(model, as_rules(rules), stage=stage)
    groups = _groups(model, pairs)
    sample_weights = sample_weights or {}
    known = {name for name, _ in model.named_modules()}
    if unknown := [name for name in sample_weights if name not in known]:
        raise ValueError(f"Argument `sample_weights` must hold names of layers of the model, but has {unknown[0]!r}.")
    jobs = []
    for number, (name, rule) in enumerate(pairs):
        weights = sample_weights.get(name)
        weight = model.get_parameter(f"{name}.weight")
        if weights is not None and not isinstance(weights, torch.Tensor):
            raise TypeError(
                f"Argument `sample_weights` must hold tensors, but holds a {type(weights).__name__} for layer {name!r}."
            )
        if weights is not None and weights.shape != weight.shape:
            raise ValueError(
                f"Argument `sample_weights` must have the shape {tuple(weight.shape)} of the weight for layer "
                f"{name!r}, but has {tuple(weights.shape)}."
            )
        if not bool(weight.isfinite().all()):
            raise ValueError(f"The weight of layer {name!r} must be finite, but holds NaN or infinity.")
        if weights is not None and not bool(((weights > 0) & weights.isfinite()).all()):
            raise ValueError(f"Argument `sample_weights` must be positive and finite, but is not for layer {name!r}.")
        jobs.append(ClusterJob.of(weight, rule.config, layer_seed(seed, number), weights))
    clusterings = cluster_layers(jobs, groups, n_workers=n_workers)
    reports = []
    owners: dict[int, tuple[str, nn.Parameter]] = {}
    for (name, rule), group, clustering in zip(pairs, groups, clusterings, strict=True):
        module, report = _quantized(model.get_submodule(name), name, rule, clustering)
        if group is not None:
            owner, module.centroids = owners.setdefault(group, (name, module.centroids))
            if owner != name:
                book = 8 * codebook_bytes(report.n_centroids, report.block_size, rule.config.codebook_dtype)
                report = replace(report, bits=report.bits - book, shares_with=owner)
        model.set_submodule(name, module)
        reports.append(report)
    follow_layers_(model)
    return reports


def _groups(model: nn.Module, pairs: Sequence[tuple[str, Rule]]) -> list[int | None]:
    """For each layer the group that shares a codebook with it; a `ValueError` if its weights cannot."""
    kinds: dict[int, tuple[str, torch.dtype, torch.device]] = {}
    for name, rule in pairs:
        if rule.shared:
            weight = model.get_parameter(f"{name}.weight")
            first, *kind = kinds.setdefault(id(rule), (name, weight.dtype, weight.device))
            if kind != [weight.dtype, weight.device]:
                raise ValueError(
                    f"The layers of a shared rule must have one data type and device, but {first!r} has "
                    f"{kind[0]} on {kind[1]} and {name!r} {weight.dtype} on {weight.device}."
                )
    return [id(rule) if rule.shared else None for _, rule in pairs]


def coded_layer(layer: Any, centroids: torch.Tensor, codes: torch.Tensor) -> PQLinear | PQEmbedding | PQConv2d:
    """Return the product-quantized layer that takes the place of a linear layer, an embedding or a convolution."""
    if isinstance(layer, nn.Embedding):
        return PQEmbedding(centroids, codes, layer.padding_idx)
    if isinstance(layer, nn.Conv2d):
        return PQConv2d.like(layer, centroids, codes, layer.bias)
    return PQLinear(centroids, codes, layer.bias)


_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip
"""Where a module keeps its hooks; with the dictionaries themselves the handles by which they are removed stay good."""


def _quantized(module: Any, name: str, rule: Rule, clustering: Clustering) -> tuple[_PQWeight, LayerReport]:
    config = rule.config
    weight = module.weight.detach()
    centroids = torch.from_numpy(clustering.centroids).to(weight)
    codes = torch.from_numpy(clustering.codes).to(weight.device)
    quantized = coded_layer(module, centroids, codes)
    quantized.codebook_dtype = config.codebook_dtype
    quantized.train(module.training)
    for hooks in _HOOKS:
        setattr(quantized, hooks, getattr(module, hooks))
    if (bias := getattr(module, "bias", None)) is not None:
        quantized.get_parameter("bias").requires_grad_(bias.requires_grad)
    exact = weight.float()  # squares of float16 overflow
    error = (quantized.weight.detach().float() - exact).square().sum() / exact.square().sum().clamp(min=1e-38)
    book = 8 * codebook_bytes(len(centroids), config.block_size, config.codebook_dtype)
    report = LayerReport(
        name=name,
        stage=rule.stage,
        shape=(len(weight), weight[0].numel()),
        block_size=config.block_size,
        n_centroids=len(centroids),
        n_requested=config.n_centroids,
        relative_error=float(error),
        bits=codes.numel() * code_bits(len(centroids)) + book,
        history=clustering.history,
        seconds=clustering.seconds,
    )
    return quantized, report
