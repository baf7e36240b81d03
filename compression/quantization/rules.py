"""Which layers of a model are quantized, how, and in which stage; and `quantize_`, which does it."""

import difflib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from compression.clustering.lloyd import Iteration, KMeansResult
from compression.quantization.blocks import PQConfig, check_divides, code_bits, to_blocks
from compression.quantization.layers import PQEmbedding, PQLinear
from shared.config import FrozenConfig
from shared.progress import progress

STAGES = ("ffn", "embeddings", "attention", "head")
"""Stages of iPQ in their usual order."""


class Rule(FrozenConfig):
    """Quantize every linear layer and embedding whose full name matches.

    Attributes
    ----------
    pattern
        Regular expression for the whole module name.
    config
        How to quantize.
    stage
        Stage of iPQ that the layers belong to.
    """

    pattern: str
    config: PQConfig
    stage: str = "all"


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
        Bits of the packed codes and the codebook.
    history
        History of the clustering.
    seconds
        Wall time.
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


def preset_rules(
    family: str,
    *,
    block_size: int | Mapping[str, int] = 8,
    n_centroids: int | Mapping[str, int] = 256,
    base: PQConfig | None = None,
    stages: Sequence[str] = STAGES,
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

    Returns
    -------
    tuple of Rule
        One for each stage, in order. The last projection onto the labels is left as it is.

    Raises
    ------
    ValueError
        If the family or a stage is unknown.
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
    rules = []
    for stage in stages:
        sizes = {
            "block_size": block_size if isinstance(block_size, int) else block_size[stage],
            "n_centroids": n_centroids if isinstance(n_centroids, int) else n_centroids[stage],
        }
        options = (base or PQConfig()).model_dump() | sizes
        rules.append(Rule(pattern=patterns[stage], config=PQConfig.build(options), stage=stage))
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


def match_rules(model: nn.Module, rules: Sequence[Rule], *, stage: str | None = None) -> list[tuple[str, Rule]]:
    """Pair each layer with the first rule that matches it.

    Parameters
    ----------
    model
        The model; layers that are already quantized are passed over.
    rules
        Rules in order.
    stage
        Only rules of this stage; all if ``None``.

    Returns
    -------
    list of (str, Rule)
        In the order of the model's modules.

    Raises
    ------
    ValueError
        If a rule matches no layer (near names are listed), no rule has the stage, or a block size does not divide.
    """
    chosen = [rule for rule in rules if stage in (None, rule.stage)]
    if not chosen:
        known = ", ".join(repr(name) for name in dict.fromkeys(rule.stage for rule in rules))
        raise ValueError(f"Argument `stage` must be the stage of a rule ({known}), but was {stage!r}.")
    kinds = (nn.Linear, nn.Embedding, PQLinear, PQEmbedding)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    matched: set[int] = set()
    pairs = []
    for name, module in layers.items():
        for number, rule in enumerate(chosen):
            if re.fullmatch(rule.pattern, name):
                matched.add(number)
                if isinstance(module, nn.Linear | nn.Embedding):
                    check_divides(rule.config.block_size, module.weight.shape[1], f"layer {name!r}")
                    pairs.append((name, rule))
                break
    for number, rule in enumerate(chosen):
        if number not in matched:
            near = difflib.get_close_matches(rule.pattern.replace("\\", ""), layers, n=3, cutoff=0.0)
            raise ValueError(
                f"The rule {rule.pattern!r} matches no linear layer or embedding; near names are "
                f"{', '.join(map(repr, near)) or 'none: the model has no such layer'}."
            )
    return pairs


def quantize_(
    model: nn.Module,
    rules: Sequence[Rule] | Mapping[str, PQConfig],
    *,
    stage: str | None = None,
    seed: int = 0,
    sample_weights: Mapping[str, torch.Tensor] | None = None,
) -> list[LayerReport]:
    """Replace layers by product-quantized ones, in place.

    Parameters
    ----------
    model
        Any module.
    rules
        Rules in order, or a mapping from patterns to configurations; the first that matches a layer's full name counts.
    stage
        Only the rules of this stage; all if ``None``.
    seed
        Seed of the clustering; every layer gets its own, derived from this and its position.
    sample_weights
        For some layers, positive weights of the entries of the weight, of its shape.

    Returns
    -------
    list of LayerReport
        One for each layer, in the order of the model's modules.

    Raises
    ------
    ValueError
        Before any clustering, if a rule matches nothing or a block size does not divide.
    """
    if isinstance(rules, Mapping):
        rules = [Rule(pattern=pattern, config=config) for pattern, config in rules.items()]
    pairs = match_rules(model, rules, stage=stage)
    reports = []
    with progress("Quantizing layers", len(pairs)) as step:
        for number, (name, rule) in enumerate(pairs):
            layer_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
            weights = None if sample_weights is None else sample_weights.get(name)
            module, report = _quantized(model.get_submodule(name), name, rule, layer_seed, weights)
            model.set_submodule(name, module)
            reports.append(report)
            step()
    return reports


def _quantized(
    module: Any, name: str, rule: Rule, seed: int, weights: torch.Tensor | None
) -> tuple[nn.Module, LayerReport]:
    start = time.perf_counter()
    config = rule.config
    weight = module.weight.detach()
    blocks = to_blocks(weight.float(), config.block_size)
    sample_weight = None if weights is None else to_blocks(weights, config.block_size)
    result = config.cluster(blocks, seed, sample_weight)
    centroids, codes = _used(result, len(weight))
    centroids = centroids.to(getattr(torch, config.codebook_dtype)).to(weight.dtype)
    if isinstance(module, nn.Embedding):
        quantized: PQLinear | PQEmbedding = PQEmbedding(centroids, codes, module.padding_idx)
    else:
        quantized = PQLinear(centroids, codes, module.bias)
    quantized.train(module.training)
    error = (quantized.weight.detach() - weight).square().sum() / weight.square().sum().clamp(min=1e-38)
    bits = codes.numel() * code_bits(len(centroids)) + centroids.numel() * (16 if "16" in config.codebook_dtype else 32)
    report = LayerReport(
        name=name,
        stage=rule.stage,
        shape=(weight.shape[0], weight.shape[1]),
        block_size=config.block_size,
        n_centroids=len(centroids),
        n_requested=config.n_centroids,
        relative_error=float(error),
        bits=bits,
        history=result.history,
        seconds=time.perf_counter() - start,
    )
    return quantized, report


def _used(result: KMeansResult, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codewords that are used, and codes (rows, blocks) into them."""
    used, codes = torch.unique(result.assignments, return_inverse=True)
    return result.centroids[used], codes.reshape(rows, -1)
