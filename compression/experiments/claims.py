"""The paper's three claims beside what was measured: empty clusters, rounds to resolve them, accuracy."""

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, model_validator
from torch import nn

from compression.experiments.ablation import kept_clustering
from compression.experiments.code_hash import PACKAGES, code_hash
from compression.experiments.empty_clusters import EmptyClustersConfig, Share, percent, run_stress, totals
from compression.experiments.minilm_sizes import check_sizes
from compression.experiments.presets import MORE_SEEDS
from compression.experiments.reproduce import stressed_layer_of
from compression.experiments.study_tables import packed, unpacked
from compression.quantization.blocks import PQConfig
from compression.quantization.files import state_digest
from compression.quantization.rules import LayerReport, Rule, match_rules, preset_rules, quantize_
from compression.quantization.storage import round_
from compression.training.batches import EncodedData
from compression.training.distillation import DistillationConfig, LastTeacher, check_layers
from compression.training.evaluate import PairedDifference, evaluate, paired_bootstrap, pooled_bootstrap
from compression.training.finetune import FinetuneConfig, finetuned_minilm
from compression.training.ipq import IPQConfig, ipq
from compression.training.models import minilm_skeleton
from shared.artifacts import Cache, provenance, versions
from shared.config import FrozenConfig
from shared.progress import say

COMMITTED = Path(__file__).parent / "data" / "claims.json"
"""What ``pg-ipq claims --json`` wrote."""

RULES = ("released", "released, batched", "PG")
"""Whose empty clusters are counted: the released rule, the same with all empty clusters in one round, PG."""

_STAGES = ("ffn", "attention", "head")

_POOLED_RESAMPLES = 100_000
"""One end of an interval is next to 0; with these it is known to 0.003 points."""


class Interval(NamedTuple):
    """A 95 % interval in points, with its ends as they are; only its text is rounded, never to 0."""

    low: float
    high: float

    def __str__(self) -> str:
        return " to ".join(f"{end:+.1f}" if abs(end) >= 0.05 or end == 0 else f"{end:+.1g}" for end in self)

    @classmethod
    def of(cls, gain: PairedDifference) -> "Interval":
        """Return the interval of a difference of accuracies."""
        return cls(100 * gain.low, 100 * gain.high)


class ClaimsConfig(FrozenConfig):
    """What to measure.

    Attributes
    ----------
    stress
        Stress sets on which empty clusters and rounds are counted.
    finetune
        The fp32 model whose weights are stressed for the accuracy.
    zero_shares
        Shares of the blocks of every layer, those of least norm, that are set to zero before the layer is quantized.
    block_size, n_centroids
        Of every layer of the encoder and of the head; embeddings stay as they are.
    seeds
        Of the clustering, and of the order of the sentences in the fine-tuning.
    distilled_shares
        For which of `zero_shares` the centroids are fine-tuned afterwards, too.
    steps, distillation
        Steps and loss of that fine-tuning, from the model with zeroed blocks as the teacher. Codes stay.
    n_distil
        Training sentences of it.
    max_validation
        Use only so many sentences; all if ``None``.
    """

    stress: EmptyClustersConfig = EmptyClustersConfig(seeds=(0, 1, 2, 3, 4))
    finetune: FinetuneConfig = FinetuneConfig()
    zero_shares: tuple[Share, ...] = (0.0, 0.1, 0.2)
    block_size: int = Field(8, ge=1)
    n_centroids: int = Field(256, ge=2)
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)
    distilled_shares: tuple[Share, ...] = (0.1, 0.2)
    steps: int = Field(200, ge=1)
    distillation: DistillationConfig = DistillationConfig(hidden_weight=1.0, hidden_layers=(1, 2, 3, 4, 5, 6))
    n_distil: int = Field(6400, ge=8)
    max_validation: int | None = Field(None, ge=8)

    @model_validator(mode="after")
    def _fine_tuned_are_some_of_the_shares(self) -> "ClaimsConfig":
        if not set(self.distilled_shares) <= set(self.zero_shares):
            raise ValueError(
                f"Key `distilled_shares` must hold shares of `zero_shares` {list(self.zero_shares)}, but was "
                f"{list(self.distilled_shares)}."
            )
        return self


def measure(config: ClaimsConfig, folder: str | Path | None = None) -> dict[str, Any]:
    """Count empty clusters on stress sets, and quantize a model with zeroed blocks, with distillation and without.

    Parameters
    ----------
    config
        What to measure.
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Returns
    -------
    dict
        ``counts``: rows of `run_stress`; ``accuracy``: a row for each share of zeroed blocks, rule, seed and number of
        steps of distillation with the right predictions; ``sentences``; ``provenance``. JSON-able. Every row is kept in
        the cache when it is done.
    """
    start = time.monotonic()
    check_sizes([config.block_size], config.n_centroids, stages=_STAGES, key="block_size")
    check_layers(config.distillation, minilm_skeleton())
    dense = finetuned_minilm(config.finetune, folder=folder)
    validation = dense.validation
    if config.max_validation is not None:
        validation = validation.sample(min(config.max_validation, len(validation)))
    kept = partial(kept_clustering, folder=folder)
    counts = run_stress(config.stress, stressed_layer_of(dense.model), RULES, kept)
    rows: list[dict[str, Any]] = []
    settings = IPQConfig(stages=("+".join(_STAGES),), steps_per_stage=config.steps, distillation=config.distillation)
    distillation = _Distillation(settings, dense.train.sample(config.n_distil), LastTeacher())
    for share in config.zero_shares:
        zeroed = copy.deepcopy(dense.model)
        zero_least_blocks_(zeroed, config.block_size, share)
        evaluated = partial(_evaluated, zeroed, validation=validation, folder=folder)
        rows.append({"zero": share, "method": "fp32", "seed": 0, "steps": 0} | evaluated((), 0))
        for method in RULES:
            for seed in config.seeds:
                say(f"{percent(share)} of the blocks zero, {method}, seed {seed}")
                rules, run = _rules_of(method, config), {"zero": share, "method": method, "seed": seed}
                rows.append(run | {"steps": 0} | evaluated(rules, seed))
                if share in config.distilled_shares:
                    rows.append(run | {"steps": config.steps} | evaluated(rules, seed, distillation=distillation))
    measured = {"counts": counts, "accuracy": rows, "sentences": len(validation)}
    return measured | {"provenance": provenance(config, time.monotonic() - start)}


def zero_least_blocks_(model: nn.Module, block_size: int, share: float) -> None:
    """Set the blocks of least norm of every layer of the encoder and the head to zero, in place."""
    for name, _ in match_rules(model, _rules(block_size, PQConfig())):
        weight = model.get_parameter(f"{name}.weight").data
        blocks = weight.view(-1, block_size)
        order = blocks.norm(dim=1).argsort(stable=True)
        blocks[order[: round(share * len(blocks))]] = 0.0


def _rules(block_size: int, base: PQConfig, n_centroids: int = 256) -> tuple[Rule, ...]:
    return preset_rules("roberta", block_size=block_size, n_centroids=n_centroids, base=base, stages=_STAGES)


def _rules_of(method: str, config: ClaimsConfig) -> tuple[Rule, ...]:
    base = PQConfig(tol=0.0)
    base = base if method == "PG" else base.as_baseline()
    if method == "released, batched":
        base = base.model_copy(update={"empty": "perturb-batched"})
    return _rules(config.block_size, base, config.n_centroids)


class _Distillation(NamedTuple):
    """How a quantized model is fine-tuned, on which sentences, and what gives the outputs of its teacher on them."""

    config: IPQConfig
    data: EncodedData
    teach: LastTeacher


def _evaluated(
    dense: nn.Module,
    rules: Sequence[Rule],
    seed: int,
    *,
    validation: EncodedData,
    folder: str | Path | None,
    distillation: _Distillation | None = None,
) -> dict[str, Any]:
    """Right predictions of a model with the layers of some rules quantized, with errors and `totals`; kept."""
    key: dict[str, Any] = {
        "weights": state_digest(dense.state_dict()),
        "rules": [json.loads(rule.to_json()) for rule in rules],
        "seed": seed,
        "data": validation.sha256,
        "code": code_hash(),
        "versions": versions(PACKAGES),
    }
    if distillation is not None:
        key |= {"ipq": json.loads(distillation.config.to_json()), "train": distillation.data.sha256}

    def make() -> dict[str, Any]:
        model = copy.deepcopy(dense)
        layers: Sequence[LayerReport] = ()
        if distillation is not None:
            config, data, teach = distillation
            teacher = teach(dense, data, config.distillation.needed_layers, config.precision)
            config = config.model_copy(update={"seed": seed})
            layers = ipq(model, rules, train_data=data, teacher=teacher, config=config).layers
            round_(model)
        elif rules:
            layers = quantize_(model, rules, seed=seed)
        right = {"right": packed(evaluate(model, validation).correct)}
        if not layers:
            return right
        work = [totals(layer.history) for layer in layers]
        return {
            **right,
            "relative error": float(np.mean([layer.relative_error for layer in layers])),
            **{name: sum(layer[name] for layer in work) for name in work[0]},
        }

    return dict(Cache(folder, name="claims").record("run.json", key, make))


def count_rows(
    counts: Sequence[Mapping[str, Any]], studies: Mapping[str, Mapping[str, Any]], earlier: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the first two claims: counts of each rule as totals, on stress sets and on the healthy weights of studies.

    Parameters
    ----------
    counts
        ``counts`` of `measure`.
    studies
        Results of studies by name; runs of PG and released k-means with the same size and seed are counted.
    earlier
        What ``pg-ipq accuracy --json`` wrote: every layer with the same block size.
    """
    rows = []
    sets: dict[str, dict[str, list[Mapping[str, Any]]]] = {
        "stress sets": {method: [row for row in counts if row["method"] == method] for method in RULES},
        f"healthy: d = {_sizes(earlier)}, {len(earlier['runs']) // 2} runs of each": {
            method: [row for row in earlier["runs"] if row["k-means"] == method] for method in ("released", "PG")
        },
    }
    for name, study in studies.items():
        pairs = _pairs(study["runs"], "PG", "released")
        if pairs:
            ours, theirs = zip(*pairs, strict=True)
            sets[f"healthy: {name}, {len(pairs)} runs of each"] = {
                "released": [run["empty clusters"] for run in theirs],
                "PG": [run["empty clusters"] for run in ours],
            }
    for weights, by_method in sets.items():
        for key in ("empty at first", "left empty", "rounds", "donor splits", "full reassignments"):
            found = {method: sum(int(row[key]) for row in part) for method, part in by_method.items()}
            rows.append(
                {
                    "weights": weights,
                    "total": key,
                    **{method: found.get(method) for method in RULES},
                    "released / PG": ratio(found["released"], found["PG"]),
                }
            )
    return rows


def _sizes(earlier: Mapping[str, Any]) -> str:
    return " and ".join(str(gain["block size"]) for gain in earlier["gain"])


def ratio(released: int, ours: int) -> str:
    """Return how many times fewer, or that there is no such number."""
    if ours == 0:
        return "0/0" if released == 0 else f"{released} to 0"
    return f"{released / ours:.1f}"


def accuracy_rows(
    measured: Mapping[str, Any], studies: Mapping[str, Mapping[str, Any]], earlier: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the third claim: accuracy of PG minus that of the released rule, in points, with 95 % intervals.

    On weights with zeroed blocks of `measure` and on the healthy weights of the other two (see `count_rows`), at equal
    sizes, of several studies also together, see `pooled_rows`. Each interval is an `Interval`.

    ``fine-tuned models`` says of how many fp32 models the seeds are. Where it is 1, as on weights with zeroed blocks,
    they are seeds of the clustering, and the interval says nothing of another fine-tuning; in a study each seed has a
    model of its own.
    """
    rows = []
    for steps, share in sorted({(row["steps"], row["zero"]) for row in measured["accuracy"]}):
        runs = [
            row
            for row in measured["accuracy"]
            if row["zero"] == share and (row["steps"] == steps or row["method"] == "fp32")
        ]
        right = {
            method: unpacked([row["right"] for row in runs if row["method"] == method], measured["sentences"])
            for method in ("fp32", *RULES)
            if any(row["method"] == method for row in runs)
        }
        to_released = paired_bootstrap(right["PG"], right["released"])
        batched = right.get("released, batched")
        to_batched = None if batched is None else paired_bootstrap(right["PG"], batched)
        after = f"{steps} steps of distillation" if steps else "no fine-tuning"
        rows.append(
            {
                "weights": f"{percent(share)} of the blocks zero, {after}",
                "seeds": len(right["PG"]),
                "fine-tuned models": 1,
                **{
                    f"{method} (%)": 100 * float(right[method].mean()) if method in right else None
                    for method in ("fp32", *RULES)
                },
                "gain (points)": 100 * to_released.difference,
                "gain, 95 %": Interval.of(to_released),
                "over batched, 95 %": to_batched and Interval.of(to_batched),
            }
        )
    found = {(row["model"], row["block size"]): row["accuracy (%)"] for row in earlier["accuracy"]}
    for gain in earlier["gain"]:
        size = gain["block size"]
        rows.append(
            {
                "weights": f"healthy: d = {size}, distilled",
                "seeds": gain["seeds"],
                "fine-tuned models": 1,
                "fp32 (%)": found["fp32", None],
                "released (%)": found["iPQ, released k-means", size],
                "released, batched (%)": None,
                "PG (%)": found["iPQ, PG k-means", size],
                "gain (points)": gain["gain (points)"],
                "gain, 95 %": Interval(*map(float, gain["gain, 95 %"].split(" to "))),  # committed as text only
                "over batched, 95 %": None,
            }
        )
    for name, study in studies.items():
        for first, other in (("no distillation", "released, no distillation"), ("PG", "released")):
            pairs = _pairs(study["runs"], first, other)
            how = "clustered" if first == "no distillation" else "distilled"
            for size in dict.fromkeys(ours["size"] for ours, _ in pairs):
                label = f"healthy: {name}, {size}, {how}"
                right = _right([pair for pair in pairs if pair[0]["size"] == size], study["sentences"])
                rows.append(_study_row(label, [right], paired_bootstrap(right["PG"], right["released"])))
    return rows + pooled_rows(studies)


def pooled_rows(studies: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of `accuracy_rows` for several studies together, at each size that all of them have.

    One for each study that another one of `MORE_SEEDS` continues, with the seeds of both, and one for all tasks, if
    there are several. Accuracies and their difference are means over the tasks, so that each counts alike; the interval
    is that of `pooled_bootstrap`. Percentile intervals of few seeds are a little narrow: one whose end is next to 0
    decides nothing.
    """
    tasks: dict[str, list[str]] = {}
    for name in studies:
        tasks.setdefault(name.removesuffix("-seeds") if name in MORE_SEEDS else name, []).append(name)
    together: list[tuple[list[str], ...]] = [(names,) for names in tasks.values() if len(names) > 1]
    if len(tasks) > 1:
        together.append(tuple(tasks.values()))
    pairs = {name: _pairs(study["runs"], "PG", "released") for name, study in studies.items()}
    sizes = dict.fromkeys(ours["size"] for some in pairs.values() for ours, _ in some)
    rows = []
    for groups in together:
        for size in sizes:
            found = {
                name: [pair for pair in pairs[name] if pair[0]["size"] == size] for names in groups for name in names
            }
            names = [name for name, some in found.items() if some]
            if len(names) < 2 or not all(any(found[name] for name in group) for group in groups):
                continue
            right = [
                _right([pair for name in group for pair in found[name]], studies[group[0]]["sentences"])
                for group in groups
            ]
            gain = pooled_bootstrap([(one["PG"], one["released"]) for one in right], n_resamples=_POOLED_RESAMPLES)
            rows.append(_study_row(f"healthy: {' and '.join(names)} together, {size}, distilled", right, gain))
    return rows


def _right(pairs: Sequence[tuple[Any, Any]], sentences: int) -> dict[str, np.ndarray]:
    """Right predictions (seeds, sentences) of fp32 and of both rules in pairs of runs."""
    states: dict[str, Callable[[tuple[Any, Any]], str]] = {
        "fp32": lambda pair: pair[0]["fp32"],
        "released": lambda pair: pair[1]["compressed"],
        "PG": lambda pair: pair[0]["compressed"],
    }
    return {state: unpacked([of(pair) for pair in pairs], sentences) for state, of in states.items()}


def _study_row(label: str, right: Sequence[Mapping[str, np.ndarray]], gain: PairedDifference) -> dict[str, Any]:
    """Row of one study or of several, from what is right in each."""
    means = {state: 100 * float(np.mean([one[state].mean() for one in right])) for state in right[0]}
    return {
        "weights": label,
        "seeds": sum(len(one["PG"]) for one in right),
        "fine-tuned models": sum(len(np.unique(one["fp32"], axis=0)) for one in right),
        **{f"{state} (%)": means.get(state) for state in ("fp32", *RULES)},
        "gain (points)": 100 * gain.difference,
        "gain, 95 %": Interval.of(gain),
        "over batched, 95 %": None,
    }


def _pairs(
    runs: Sequence[Mapping[str, Any]], first: str, other: str
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Runs of two variants with the same size and seed."""
    theirs = {(run["size"], run["seed"]): run for run in runs if run["variant"] == other}
    ours = [run for run in runs if run["variant"] == first and (run["size"], run["seed"]) in theirs]
    return [(run, theirs[run["size"], run["seed"]]) for run in ours]


def answers(counts: Sequence[Mapping[str, Any]], accuracies: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the claims with what was found, one line each, from the rows of `count_rows` and `accuracy_rows`."""
    lines = []
    for claim, keys, factor in (
        ("100 times fewer empty clusters", ("empty at first", "left empty"), 100),
        ("8 times fewer rounds", ("rounds",), 8),
    ):
        for row in counts:
            if row["total"] not in keys:
                continue
            # Without any in PG the number is met if the released rule has at least so many.
            met = row["released"] >= factor * max(row["PG"], 1)
            verdict = "met" if met else "too few to tell" if row["PG"] == 0 else "not met"
            lines.append(
                f"{claim}, {row['weights']}, {row['total']}: {verdict} ({row['released']} against {row['PG']})."
            )
    for row in accuracies:
        low, high = row["gain, 95 %"]
        verdict = "a gain" if low > 0 else "a loss" if high < 0 else "no difference beyond the interval"
        batched, models = row["over batched, 95 %"], row["fine-tuned models"]
        beside = "" if batched is None else f"; over the rule batched {batched}"
        lines.append(
            f"Up to 12 points of accuracy, {row['weights']}: {verdict} ({row['gain (points)']:+.1f}, 95 %: "
            f"{row['gain, 95 %']}, {row['seeds']} seeds on {models} fine-tuned model{'s' * (models > 1)}){beside}."
        )
    return lines
