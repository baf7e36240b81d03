"""The rules of a run with a byte budget: chosen by measured sensitivity once, then read."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from compression.experiments.run_config import Prepared, file_header, read_rules
from compression.quantization.calibration import activation_weights, fisher_weights
from compression.quantization.plan import plan
from compression.quantization.rules import Rule, match_rules, preset_rules
from compression.training.batches import calibration_batches
from compression.training.precision import autocast
from shared.artifacts import provenance, write_json


def planned_rules(
    prepared: Prepared, dense: PreTrainedModel, path: Path, n_workers: int | None = 1
) -> tuple[Rule, ...]:
    """Return the rules that keep a run's file within its budget, read from `path` or chosen and written there.

    They are sorted into the stages of the preset rules of the model's family, if it has any.
    """
    config = prepared.config
    if not path.is_file():
        assert config.budget is not None
        made = plan(
            dense,
            config.budget,
            calibration=calibration(prepared, config.n_plan),
            weighting=config.weighting,
            base=config.pq,
            extra=file_header(prepared.task, dense.config),
            share=config.share,
            n_workers=n_workers,
        )
        rules = [json.loads(rule.to_json()) for rule in _in_stages(made.rules, prepared.source.config.model_type)]
        found = {"budget": config.budget, "rules": rules, "layers": made.table(), "curve": made.curve}
        write_json(path, found | {"provenance": provenance(config)})
    return read_rules(path, config.pq)


def clustering_weights(prepared: Prepared, dense: nn.Module, rules: Sequence[Rule]) -> dict[str, torch.Tensor] | None:
    """Return the weights of the clustering for the layers of the rules, or ``None`` if there is no weighting."""
    config = prepared.config
    if config.weighting is None:
        return None
    names = [name for name, _ in match_rules(dense, rules)]
    names = [name for name in names if isinstance(dense.get_submodule(name), nn.Linear | nn.Embedding)]
    measure = activation_weights if config.weighting == "activation" else fisher_weights
    with autocast(config.ipq.precision, prepared.device):
        return measure(dense, calibration(prepared, config.n_calibration), names)


def calibration(prepared: Prepared, n: int) -> list[dict[str, torch.Tensor]]:
    """Return batches of at most `n` training sentences, without labels."""
    # Of a batch the Fisher information takes the gradient of the sum: small ones make it less noisy.
    size = 8 if prepared.config.weighting == "fisher" else 64
    batches = calibration_batches(prepared.train, n, batch_size=size)
    return [{name: values.to(prepared.device) for name, values in batch.items()} for batch in batches]


def _in_stages(rules: Sequence[Rule], family: str) -> list[Rule]:
    try:
        presets = preset_rules(family)
    except ValueError:
        return list(rules)
    found = []
    for rule in rules:
        name = re.sub(r"\\(.)", r"\1", rule.pattern.split("|")[0])  # the pattern is an escaped name, or several
        stages = (preset.stage for preset in presets if re.fullmatch(preset.pattern, name))
        found.append(rule.model_copy(update={"stage": next(stages, presets[-1].stage)}))
    return found
