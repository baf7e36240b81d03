"""Which block size, codewords and codebook type each layer gets, for a file of at most so many bytes."""

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import nn

from compression.quantization.allocation import Frontier, Joint, frontier
from compression.quantization.blocks import PQConfig
from compression.quantization.calibration import (
    Batch,
    activation_weights,
    all_logits,
    check_batches,
    fisher_weights,
)
from compression.quantization.layers import DENSE, pq_modules, unfit_layers
from compression.quantization.rules import Rule, coded_layer
from compression.quantization.sensitivity import (
    SIZES,
    LayerOptions,
    Option,
    fitting_sizes,
    measure_layers,
    measure_shared,
    option_bytes,
    shape_of,
    shared_bytes,
    shared_sizes,
)
from compression.quantization.storage import dense_bytes, file_bytes, round_

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_MAX_CURVE = 200


@dataclass(frozen=True)
class Plan:
    """What is to become of each layer.

    Attributes
    ----------
    rules
        One rule for each layer that is quantized, or for each group of layers with a codebook that they share, for
        `compression.quantize_` and `compression.ipq`.
    layers, chosen
        What could be done with each layer, and the number of the option that was chosen, see `LayerOptions.option`.
    weights
        Weights of the clusterings.
    budget_bytes, dense_bytes
        The budget, and the size of the weights in fp32.
    curve
        Rows ``file_bytes``, ``of_fp32``, ``predicted_loss``: the least predicted loss for each size of file.
    """

    rules: tuple[Rule, ...]
    layers: tuple[LayerOptions, ...]
    chosen: tuple[int, ...]
    weights: dict[str, torch.Tensor]
    budget_bytes: int
    dense_bytes: int
    curve: tuple[dict[str, float], ...]

    @property
    def predicted_loss(self) -> float:
        """Sum of the predictions of the single layers."""
        return sum(layer.option(number).loss for layer, number in zip(self.layers, self.chosen, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return all but the weights of the clusterings as JSON-able values."""

        def options(some: Sequence[Option]) -> list[Any]:
            return [vars(o) | {"config": o.config and o.config.model_dump(mode="json")} for o in some]

        layers = [
            vars(layer) | {"options": options(layer.options), "shared": options(layer.shared)} for layer in self.layers
        ]
        rules = [json.loads(rule.to_json()) for rule in self.rules]
        rest = ("chosen", "budget_bytes", "dense_bytes", "curve")
        return {"rules": rules, "layers": layers} | {name: getattr(self, name) for name in rest}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], weights: dict[str, torch.Tensor]) -> "Plan":
        """Read what `to_dict` wrote, the weights of the clusterings beside it."""

        def options(some: Sequence[Mapping[str, Any]]) -> tuple[Option, ...]:
            return tuple(Option(**{**o, "config": o["config"] and PQConfig.build(o["config"])}) for o in some)

        layers = tuple(
            LayerOptions(
                layer["name"],
                (layer["shape"][0], layer["shape"][1]),
                layer["sensitivity"],
                options(layer["options"]),
                options(layer["shared"]),
            )
            for layer in values["layers"]
        )
        return Plan(
            tuple(Rule.build(rule) for rule in values["rules"]),
            layers,
            tuple(values["chosen"]),
            weights,
            values["budget_bytes"],
            values["dense_bytes"],
            tuple(values["curve"]),
        )

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each layer: what was chosen, its bytes, bits a weight, error and predicted loss."""
        rows = []
        for layer, number in zip(self.layers, self.chosen, strict=True):
            option = layer.option(number)
            config = option.config
            shared = number >= len(layer.options)
            rows.append(
                {
                    "layer": layer.name,
                    "shape": f"{layer.shape[0]} x {layer.shape[1]}",
                    "block size": None if config is None else config.block_size,
                    "codewords": None if config is None else config.n_centroids,
                    "codebook": None if config is None else config.codebook_dtype + (", shared" if shared else ""),
                    "bytes": option.bytes,
                    "bits a weight": 8 * option.bytes / (layer.shape[0] * layer.shape[1]),
                    "relative error": option.error,
                    "predicted loss": option.loss,
                }
            )
        return rows


def plan(
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
    share: bool = True,
) -> Plan:
    """Choose for each layer how to quantize it, by measured sensitivity; the model is not changed.

    Arguments and errors are those of `compression.compress`.
    """
    size = dense_bytes(model)
    budget_bytes = parse_budget(budget, size)
    if sensitivity not in ("loss", "output"):
        raise ValueError(f"Argument `sensitivity` must be 'loss' or 'output', but was {sensitivity!r}.")
    _check_choice(sizes, exclude)
    batches = check_batches(calibration)
    names = _quantizable(model, exclude, sizes)
    base = base or PQConfig()
    groups = _groups(names) if share else []
    fixed = _check_possible(model, names, sizes, budget_bytes, extra, groups)
    model = copy.deepcopy(model).eval()
    weights = _weights(model, batches, names, weighting, seed)
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
        reference=all_logits(model, batches),
        target_bits=32 * budget_bytes / size,
    )
    layers = measure_shared(
        model, layers, groups, sizes=sizes, weights=weights, base=base, seed=seed, n_workers=n_workers
    )
    joint = [_joint(layers, group) for group in groups]
    front = frontier(
        [np.array([option.bytes for option in layer.options]) for layer in layers],
        [np.array([option.loss for option in layer.options]) for layer in layers],
        joint=[group for group in joint if len(group.sizes)],
    )
    chosen = front.choose(budget_bytes - fixed)
    return Plan(_rules(layers, chosen, groups), layers, chosen, weights, budget_bytes, size, _curve(front, fixed, size))


def check_budget(
    model: nn.Module, budget: str | int, extra: dict[str, Any] | None = None, *, share: bool = True
) -> int:
    """Return a budget in bytes, or raise a `ValueError` if no choice of `plan` meets it with its sizes.

    Values of weights play no part: the model may be on the ``meta`` device.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        model = copy.deepcopy(model).to_empty(device="cpu")
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                tensor.zero_()  # what the memory held before may not be exact in float16
    budget_bytes = parse_budget(budget, dense_bytes(model))
    names = _quantizable(model, (), SIZES)
    _check_possible(model, names, SIZES, budget_bytes, extra, _groups(names) if share else [], fixed_sizes=True)
    return budget_bytes


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
    if isinstance(budget, Integral) and not isinstance(budget, bool):
        number, unit = float(budget), ""
    elif isinstance(budget, str) and (match := re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zA-Z]*)\s*", budget)):
        number, unit = float(match[1]), match[2].lower()
    else:
        raise ValueError(message)
    if number <= 0 or unit not in (*_UNITS, "x"):
        raise ValueError(message)
    return int(fp32_bytes / number) if unit == "x" else int(number * _UNITS[unit])


def fixed_bytes(model: nn.Module, names: Sequence[str], sizes: Sequence[tuple[int, int]], extra: Any = None) -> int:
    """Return the bytes of the file that no choice changes: all other tensors in float16 and the longest header."""
    skeleton = copy.deepcopy(model)
    counted = 0
    for name in names:
        shape = rows, features = shape_of(model, name)
        d, k = max((option_bytes(shape, d, k), d, k) for d, k in fitting_sizes(shape, sizes))[1:]
        codes, centroids = torch.zeros((rows, features // d), dtype=torch.int32), torch.zeros(k, d)
        skeleton.set_submodule(name, coded_layer(model.get_submodule(name), centroids, codes))
        counted += option_bytes(shape, d, k)
    round_(skeleton)
    return file_bytes(skeleton, extra=extra) - counted + _HEADER_SLACK * len(names)


_HEADER_SLACK = 96  # for a layer: the scale of an int8 codebook, and longer numbers where a weight is kept


def _check_choice(sizes: Sequence[tuple[int, int]], exclude: Sequence[str]) -> None:
    """Refuse `sizes` that are not pairs of integers, and `exclude` that are not regular expressions."""
    for size in sizes:
        pair = size if isinstance(size, Sequence) and len(size) == 2 else (0, 0)
        if not (all(isinstance(n, Integral) for n in pair) and pair[0] >= 1 and 2 <= pair[1] <= 65_536):
            raise ValueError(
                "Argument `sizes` must hold pairs of a block size of at least 1 and 2 to 65,536 codewords, but holds "
                f"{size!r}."
            )
    if isinstance(exclude, str):
        raise ValueError(f"Argument `exclude` must be a list of patterns, but was the text {exclude!r}.")
    for pattern in exclude:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"Argument `exclude` must hold regular expressions, but holds {pattern!r}: {error}."
            ) from None


def _quantizable(model: nn.Module, exclude: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Names of the layers that some size fits and that can be held as codes."""
    if pq_modules(model):
        raise ValueError("Argument `model` must not be quantized yet, but has product-quantized layers.")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, DENSE)}
    for pattern in exclude:
        if not any(re.fullmatch(pattern, name) for name in layers):
            raise ValueError(f"Argument `exclude` must hold patterns that match a layer, but {pattern!r} matches none.")
    unfit = unfit_layers(model)
    names = [
        name
        for name in layers
        if not any(re.fullmatch(pattern, name) for pattern in exclude)
        and name not in unfit
        and fitting_sizes(shape_of(model, name), sizes)
    ]
    if not names:
        raise ValueError(
            "Argument `model` must have a linear layer, embedding or convolution that one of the `sizes` fits."
        )
    return names


def _groups(names: Sequence[str]) -> list[list[str]]:
    """Layers whose names differ in numbers only, such as all queries of an encoder: they could share a codebook."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    return [group for group in found.values() if len(group) > 1]


def _check_possible(
    model: nn.Module,
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    budget: int,
    extra: Any,
    groups: Sequence[Sequence[str]],
    *,
    fixed_sizes: bool = False,
) -> int:
    shapes = {name: shape_of(model, name) for name in names}
    least = {
        name: min(option_bytes(shape, d, k, "int8") for d, k in fitting_sizes(shape, sizes))
        for name, shape in shapes.items()
    }
    fixed = fixed_bytes(model, names, sizes, extra)
    smallest = fixed + sum(least.values())
    for group in groups:
        members = [shapes[name] for name in group]
        together = [shared_bytes(members, d, k, "int8") for d, k in shared_sizes(members, sizes)]
        apart = sum(least[name] for name in group)
        smallest += min([apart, *together]) - apart
    if smallest > budget:
        what = "that the settings allow" if fixed_sizes else "that `sizes` and `exclude` allow"
        advice = "" if fixed_sizes else " Raise it, or allow larger block sizes or fewer codewords in `sizes`."
        raise ValueError(
            f"Argument `budget` must be at least {smallest:,} bytes, the smallest file {what}, but was "
            f"{budget:,}.{advice}"
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


def _joint(layers: Sequence[LayerOptions], group: Sequence[str]) -> Joint:
    """The options that a group of layers has together."""
    numbers = {layer.name: number for number, layer in enumerate(layers)}
    members = tuple(numbers[name] for name in group)
    options = list(zip(*(layers[member].shared for member in members), strict=True))
    sizes = np.array([sum(option.bytes for option in row) for row in options])
    return Joint(members, sizes, np.array([sum(option.loss for option in row) for row in options]))


def _rules(layers: Sequence[LayerOptions], chosen: Sequence[int], groups: Sequence[Sequence[str]]) -> tuple[Rule, ...]:
    group_of = {name: tuple(group) for group in groups for name in group}
    rules: dict[tuple[str, ...], Rule] = {}
    for layer, number in zip(layers, chosen, strict=True):
        shared = number >= len(layer.options)
        names, config = group_of[layer.name] if shared else (layer.name,), layer.option(number).config
        if config is not None:
            rules[names] = Rule(pattern="|".join(map(re.escape, names)), config=config, shared=shared)
    return tuple(rules.values())


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
