"""Quant-Noise: a network is trained with a random part of its weights quantized, so that it tolerates the rest."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn.utils import parametrize

from compression.quantization.blocks import PQConfig, code_dtype, to_blocks
from compression.quantization.layer_clustering import ClusterJob, cluster_layers, layer_seed
from compression.quantization.rules import Rule, as_rules, match_rules
from compression.quantization.straight_through import straight_through
from shared.config import FrozenConfig


class NoiseConfig(FrozenConfig):
    """Kind, strength and course of the noise.

    Attributes
    ----------
    kind
        ``"proxy"``: blocks are set to zero and the others scaled by 1 / (1 - p), as in the released code. ``"pq"``:
        blocks are replaced by their codewords (exact noise). ``"int8"``: entries, each on its own, are rounded to 8
        bits with one symmetric scale for each row.
    p
        Probability with which a block (or entry) is noised; 1 is quantization-aware training.
    schedule
        ``"constant"``, or a linear or half-cosine rise from 0 to `p`.
    ramp_fraction
        Part of the training in which a rising schedule reaches `p`.
    refresh_every
        Steps between two clusterings of the weights, for ``"pq"``.
    seed
        Of the noise and of the clusterings.
    """

    kind: Literal["proxy", "pq", "int8"] = "proxy"
    p: float = Field(0.1, ge=0, le=1)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    ramp_fraction: float = Field(1.0, gt=0, le=1)
    refresh_every: int = Field(100, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _not_everything_zero(self) -> "NoiseConfig":
        if self.kind == "proxy" and self.p == 1:
            raise ValueError("key `p` must be below 1 for kind 'proxy', which would set every weight to zero")
        return self

    def probability(self, step: int, n_steps: int) -> float:
        """Return the probability in step `step` (from 0) of `n_steps`."""
        if self.schedule == "constant":
            return self.p
        done = min(1.0, (step + 1) / (self.ramp_fraction * n_steps))
        return self.p * (done if self.schedule == "linear" else (1 - math.cos(math.pi * done)) / 2)


class _Noise(nn.Module):
    """Parametrization of a weight; the weight itself in evaluation mode and where ``p == 0``.

    Which blocks are noised is a function of seed, layer and step, so that the recomputation of gradient checkpointing
    and the second use of a tied weight see the same values.
    """

    def __init__(self, config: NoiseConfig, number: int, block_size: int) -> None:
        super().__init__()
        self.block_size = block_size
        self.p = 0.0
        self.step: int | None = -1
        self.handles: list[Any] = []
        self.number = number
        self._seed = config.seed

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return weight
        if self.step is None:
            raise RuntimeError("Call the method `step` of the Quant-Noise before the first training step.")
        return weight if self.p == 0 else straight_through(weight, self.noised(weight.detach()))

    def noised(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a new tensor with noise."""
        raise NotImplementedError

    def chosen(self, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """Return what is noised in this step, bool."""
        entropy = (self._seed, self.number, int(self.step or 0))
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        generator = torch.Generator(device).manual_seed(seed)
        return torch.rand(shape, generator=generator, device=device) < self.p


class _ProxyNoise(_Noise):
    def noised(self, weight: torch.Tensor) -> torch.Tensor:
        blocks = to_blocks(weight, self.block_size)
        kept = ~self.chosen((len(blocks), 1), weight.device)
        return (blocks * (kept / (1 - self.p)).to(weight.dtype)).view_as(weight)


class _PQNoise(_Noise):
    """The codebook and codes are those of the last clustering; no part of the state dict."""

    centroids: torch.Tensor
    codes: torch.Tensor

    def __init__(self, config: NoiseConfig, number: int, rule: Rule, weight: torch.Tensor) -> None:
        pq = rule.config
        super().__init__(config, number, pq.block_size)
        n = weight.numel() // pq.block_size
        k = pq.n_centroids if rule.shared else min(pq.n_centroids, n)
        codes = torch.zeros(n, dtype=code_dtype(k), device=weight.device)
        self.register_buffer("centroids", weight.new_zeros(k, pq.block_size, dtype=torch.float32), persistent=False)
        self.register_buffer("codes", codes, persistent=False)

    def noised(self, weight: torch.Tensor) -> torch.Tensor:
        blocks = to_blocks(weight, self.block_size).clone()
        chosen = self.chosen((len(blocks),), weight.device)
        blocks[chosen] = self.centroids.to(weight.dtype)[self.codes[chosen].to(torch.int32)]
        return blocks.view_as(weight)


class _Int8Noise(_Noise):
    def noised(self, weight: torch.Tensor) -> torch.Tensor:
        rows = weight.flatten(1).float()
        scale = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        rounded = ((rows / scale).round() * scale).to(weight.dtype)
        chosen = self.chosen(tuple(rows.shape), weight.device)
        return torch.where(chosen, rounded, weight.flatten(1)).view_as(weight)


class QuantNoise:
    """Noise on some layers of a model, made by `add_quant_noise`; as a context manager it is removed at the end.

    Attributes
    ----------
    config
        Kind, strength and course.
    layers
        Names of the layers, tied ones included.
    """

    def __init__(self, model: nn.Module, config: NoiseConfig, pairs: Sequence[tuple[str, Rule]]) -> None:
        self.config = config
        self._model = model
        self._refreshed = torch.tensor(-1)
        self._noises: dict[str, tuple[_Noise, Rule]] = {}
        names: list[str] = []
        users: dict[int, list[str]] = {}
        for name, module in model.named_modules():
            if (weight := module._parameters.get("weight")) is not None:
                users.setdefault(id(weight), []).append(name)
        for number, (name, rule) in enumerate(pairs):
            if name in names:  # tied to one that has its noise
                continue
            weight = model.get_parameter(f"{name}.weight")
            noise = _make(config, number, rule, weight)
            for user in users[id(weight)]:
                module = model.get_submodule(user)
                _register(module, noise)
                noise.handles.append(module.register_state_dict_post_hook(_plain_names))
                noise.handles.append(module.register_load_state_dict_pre_hook(_parametrized_names))
            noise.step = None
            self._noises[name] = noise, rule
            names += users[id(weight)]
        self.layers = tuple(names)

    @property
    def identity(self) -> list[Any]:
        """What the noise depends on, JSON-able: its configuration, and the rule of each layer."""
        rules = [[name, json.loads(rule.to_json())] for name, (_, rule) in self._noises.items()]
        return [json.loads(self.config.to_json()), rules]

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Codebooks, codes and the step of the last clustering: with them in a checkpoint a run can be continued."""
        found = {
            f"{name}.{key}": tensor
            for name, (noise, _) in self._noises.items()
            for key, tensor in noise.named_buffers(recurse=False)
        }
        return found | {"refreshed": self._refreshed}

    def step(self, number: int, n_steps: int) -> None:
        """Draw the noise of step `number` (from 0) of `n_steps`; call it before the step.

        All forward passes until the next call see the same noise, also those of gradient accumulation.
        """
        if not 0 <= number < n_steps:
            raise ValueError(f"Argument `number` must be from 0 to {n_steps - 1} in {n_steps} steps, but was {number}.")
        p = self.config.probability(number, n_steps)
        if self.config.kind == "pq" and p > 0:
            last, every = int(self._refreshed), self.config.refresh_every
            if last < 0 or number // every > last // every:
                self.refresh(number)
        for noise, _ in self._noises.values():
            noise.p, noise.step = p, number

    @torch.no_grad()
    def refresh(self, number: int = 0) -> None:
        """Cluster the weights as they are now, in step `number`, as `compression.quantize_` would."""
        jobs, noises, groups = [], [], []
        for name, (noise, rule) in self._noises.items():
            if isinstance(noise, _PQNoise):
                seed = layer_seed(self.config.seed, noise.number)
                jobs.append(ClusterJob.of(self._latent(name), rule.config, seed, None))
                noises.append(noise)
                groups.append(id(rule) if rule.shared else None)
        results = cluster_layers(jobs, groups, description="Clustering for Quant-Noise")
        for noise, result in zip(noises, results, strict=True):
            noise.centroids.zero_()
            noise.centroids[: len(result.centroids)] = torch.from_numpy(result.centroids).to(noise.centroids)
            noise.codes.copy_(torch.from_numpy(result.codes).flatten())
        self._refreshed.fill_(number)

    def expire(self) -> None:
        """Let the next step cluster anew, so that what follows depends on the weights alone."""
        self._refreshed.fill_(-1)

    def remove(self) -> None:
        """See `remove_quant_noise`."""
        remove_quant_noise(self._model)

    def __enter__(self) -> "QuantNoise":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _latent(self, name: str) -> torch.Tensor:
        module: Any = self._model.get_submodule(name)
        return module.parametrizations.weight.original


def add_quant_noise(
    model: nn.Module, rules: Sequence[Rule] | Mapping[str, PQConfig], config: NoiseConfig | None = None
) -> QuantNoise:
    """Put training noise on the weights of layers.

    The weights themselves are never overwritten: the noise is a parametrization (`torch.nn.utils.parametrize`), active
    in training mode only. The parameters stay the objects that they were, so that an optimizer may exist already, and
    the state dict keeps its names and holds the weights without noise.

    Parameters
    ----------
    model
        Any module with linear layers, embeddings and convolutions.
    rules
        Which layers, as for `compression.quantize_`; blocks are those of the quantized layer. A layer that shares its
        parameter with one that matches gets the same noise.
    config
        Kind, strength and course; the defaults if ``None``.

    Returns
    -------
    QuantNoise
        Its method `QuantNoise.step` must be called before each training step.

    Raises
    ------
    ValueError
        If a rule matches nothing or a layer that cannot be held as codes (one that shares its weight can be noised), a
        block size does not divide, or the model has Quant-Noise already.

    Notes
    -----
    The gradient goes straight through to the weights. Source: Fan et al., arXiv:2004.07320; the released code wrote the
    proxy noise into the weights for good.
    """
    config = NoiseConfig.of(config)
    if _noisy(model):
        raise ValueError("Argument `model` has Quant-Noise already: call `remove_quant_noise` first.")
    return QuantNoise(model, config, match_rules(model, as_rules(rules)))


def remove_quant_noise(model: nn.Module) -> None:
    """Take Quant-Noise off a model again; nothing happens if it has none. The parameters stay the same objects."""
    for module in _noisy(model):
        parametrizations: Any = module.parametrizations
        for handle in parametrizations.weight[0].handles:
            handle.remove()
        shared = type(module)  # with copies of the module: its property stays theirs
        attributes = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, attributes)
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


def _register(module: nn.Module, noise: _Noise) -> None:
    """Parametrize the weight of a module without touching the parameter.

    PyTorch sets its storage anew, which parts it from the hooks by which `DistributedDataParallel` averages gradients.
    """
    weight = module._parameters["weight"]
    assert weight is not None
    module._parameters["weight"] = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    parametrize.register_parametrization(module, "weight", noise)
    parametrizations: Any = module.parametrizations
    parametrizations.weight.original = weight


def _make(config: NoiseConfig, number: int, rule: Rule, weight: torch.Tensor) -> _Noise:
    if config.kind == "pq":
        return _PQNoise(config, number, rule, weight)
    return (_ProxyNoise if config.kind == "proxy" else _Int8Noise)(config, number, rule.config.block_size)


def _noisy(model: nn.Module) -> list[nn.Module]:
    return [
        module
        for module in model.modules()
        if parametrize.is_parametrized(module, "weight") and isinstance(module.parametrizations.weight[0], _Noise)  # type: ignore[union-attr, index]
    ]


def _plain_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state[f"{prefix}weight"] = state.pop(f"{prefix}{_ORIGINAL}")


def _parametrized_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    if f"{prefix}weight" in state:
        state[f"{prefix}{_ORIGINAL}"] = state.pop(f"{prefix}weight")


_ORIGINAL = "parametrizations.weight.original"
