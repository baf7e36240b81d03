"""A table over seeds: one task, several file sizes, and what each part of the recipe adds."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from compression.experiments.empty_clusters import totals
from compression.experiments.task_run import RunConfig, run_task
from compression.training.evaluate import matthews_correlation, paired_bootstrap
from compression.training.ipq import StageReport
from compression.training.tasks import find_task
from shared.artifacts import content_hash, provenance
from shared.config import FrozenConfig, changed
from shared.progress import say

DATA = Path(__file__).parent / "data"
"""Committed results: ``study_NAME.json``, made by ``pg-ipq study NAME``."""

STUDIES = ("minilm-rt", "minilm-boolq")
"""Studies whose settings are part of the package."""


class Variant(FrozenConfig):
    """One way to go about it.

    Attributes
    ----------
    change
        Keys of `RunConfig` that differ, nested as in YAML.
    sizes, seeds
        Only these of the study's; all if ``None``.
    """

    change: dict[str, Any] = {}
    sizes: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None


class StudyConfig(FrozenConfig):
    """What to run.

    Attributes
    ----------
    run
        The recipe.
    sizes
        Keys of `RunConfig` for each size of the file, by its name.
    variants
        By name. The first is what the others are compared with.
    seeds
        Of the head, the order of the sentences, dropout and clustering: each has its own fp32 model.
    """

    run: RunConfig
    sizes: dict[str, dict[str, Any]] = Field(min_length=1)
    variants: dict[str, Variant] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)


def study_file(name: str) -> Path:
    """Return the settings of a study of `STUDIES`."""
    return Path(str(resources.files("compression.experiments") / "configs" / f"study-{name}.yaml"))


@dataclass(frozen=True)
class Planned:
    """One run of a study."""

    variant: str
    size: str
    seed: int
    config: RunConfig

    @property
    def dense(self) -> str:
        """Name of the fp32 model, the same for runs that share it."""
        values = self.config.model_dump(mode="json")
        names = ("model", "task", "data", "new_head", "finetune", "noise", "max_train")
        # Exact noise has the blocks of the file.
        blocks = None if self.config.noise is None else [values[name] for name in ("block_size", "n_centroids", "pq")]
        return f"{self.seed}-{content_hash([[values[name] for name in names], blocks])[:8]}"


def plan(config: StudyConfig) -> list[Planned]:
    """Return all runs, those of a seed together.

    Raises
    ------
    ValueError
        If the task is a regression, or a variant names a size or seed that the study does not have, or a key that a run
        does not have.
    """
    if find_task(config.run.task).regression:
        raise ValueError(f"Key `run.task` must be a classification, but was {config.run.task!r}.")
    for name, variant in config.variants.items():
        for key, known in (("sizes", tuple(config.sizes)), ("seeds", config.seeds)):
            foreign = [value for value in getattr(variant, key) or () if value not in known]
            if foreign:
                raise ValueError(
                    f"Key `variants.{name}.{key}` must hold only {', '.join(map(str, known))}, but has {foreign[0]}."
                )
    return list(_planned(config))


def _planned(config: StudyConfig) -> Iterator[Planned]:
    for seed in config.seeds:
        for size, sizes in config.sizes.items():
            for name, variant in config.variants.items():
                if size in (variant.sizes or (size,)) and seed in (variant.seeds or (seed,)):
                    seeds: dict[str, Any] = {"ipq": {"seed": seed}}
                    run = changed(config.run, sizes, variant.change)
                    if run.finetune is not None:
                        seeds["finetune"] = {"seed": seed}
                    if run.noise is not None:
                        seeds["noise"] = {"seed": seed}
                    yield Planned(name, size, seed, changed(run, seeds))


def run_study(config: StudyConfig, out: str | Path, folder: str | Path | None = None) -> dict[str, Any]:
    """Make all runs and return the tables.

    Parameters
    ----------
    config
        What to run.
    out
        Folder for the runs; those that are finished there are read, one that was interrupted is continued.
    folder
        Cache folder of packaged models and data.

    Returns
    -------
    dict
        ``rows``, ``gains`` (see `gain_rows`), ``runs`` and ``provenance``, JSON-able.
    """
    start = time.monotonic()
    out = Path(out)
    planned = plan(config)
    runs = []
    for number, item in enumerate(planned, start=1):
        say(f"Run {number} of {len(planned)}: {item.variant}, {item.size}, seed {item.seed}")
        home = out / "dense" / item.dense
        home.parent.mkdir(parents=True, exist_ok=True)
        target = out / "runs" / f"{item.variant}-{item.size}-{item.seed}".replace(" ", "-")
        report = run_task(item.config, target, folder=folder, dense=home)
        runs.append(_record(item, report))
    n = runs[0]["sentences"]
    found = {"rows": score_rows(runs), "gains": gain_rows(runs), "runs": runs, "sentences": n}
    return found | {"provenance": provenance(config, time.monotonic() - start)}


def _record(item: Planned, report: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a run: sizes, which predictions are right, work on empty clusters, errors, seconds."""
    task = find_task(item.config.task)
    split = task.evaluation_splits[0]
    labels = np.array(report["labels"][split])
    predictions = {name: np.array(parts[split]) for name, parts in report["predictions"].items()}
    by_model = {row["model"]: row for row in report["rows"] if row["split"] == split}
    majority = next(name for name in predictions if name not in ("fp32", "iPQ"))
    layers = [layer for stage in report["compression"]["stages"] for layer in StageReport.from_dict(stage).layers]
    work = [totals(layer.history) for layer in layers]
    return {
        "variant": item.variant,
        "size": item.size,
        "seed": item.seed,
        "bytes": round(1e6 * by_model["iPQ"]["file (MB)"]),
        "of_fp32": by_model["iPQ"]["of fp32"],
        "sentences": len(labels),
        "majority": float((predictions[majority] == labels).mean()),
        "fp32": _packed(predictions["fp32"] == labels),
        "compressed": _packed(predictions["iPQ"] == labels),
        "matthews": {name: matthews_correlation(predictions[name], labels) for name in ("fp32", "iPQ")},
        "empty clusters": {key: sum(layer[key] for layer in work) for key in work[0]},
        "relative error": float(np.mean([layer.relative_error for layer in layers])),
        "seconds": {"whole": report["provenance"]["seconds"], "compression": report["compression"]["seconds"]},
    }


def score_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the fp32 model of each variant that has one of its own, and each variant at each size.

    Accuracies are means over seeds; ``lost`` is in points against the fp32 model of the first variant of the same seed.
    Intervals are of a bootstrap over seeds and sentences.
    """
    first = runs[0]["variant"]
    reference = {run["seed"]: run["fp32"] for run in runs if run["variant"] == first}
    n = runs[0]["sentences"]
    rows = []
    for (variant, size), group in _groups(runs).items():
        for state in ("fp32", "compressed"):
            own = any(run["fp32"] != reference[run["seed"]] for run in group)
            if state == "fp32" and not own and any(row["variant"] == "fp32" for row in rows):
                continue
            right = _unpacked([run[state] for run in group], n)
            base = _unpacked([reference[run["seed"]] for run in group], n)
            score = paired_bootstrap(right, np.zeros_like(right))
            lost = None if state == "fp32" and not own else paired_bootstrap(base, right)
            name = variant if state == "compressed" else f"{variant}, fp32" if own else "fp32"
            key = "fp32" if state == "fp32" else "iPQ"
            rows.append(
                {
                    "variant": name,
                    "size": "1x" if state == "fp32" else size,
                    "of fp32": 1.0 if state == "fp32" else min(run["of_fp32"] for run in group),
                    "seeds": len(group),
                    "accuracy (%)": 100 * score.difference,
                    "95 % interval": f"{100 * score.low:.1f} to {100 * score.high:.1f}",
                    "lost (points)": None if lost is None else 100 * lost.difference,
                    "lost, 95 %": None if lost is None else f"{100 * lost.low:.1f} to {100 * lost.high:.1f}",
                    "Matthews": float(np.mean([run["matthews"][key] for run in group])),
                }
            )
    return rows


def gain_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the first variant against each other one at each size, on the seeds that both have.

    ``gain`` is the accuracy of the first minus that of the other in points, with the 95 % interval of a paired
    bootstrap over seeds and sentences; ``error ratio`` the squared errors of the weights after clustering.
    """
    groups = _groups(runs)
    first, n = runs[0]["variant"], runs[0]["sentences"]
    rows = []
    for (variant, size), group in groups.items():
        others = {run["seed"]: run for run in group}
        ours = {run["seed"]: run for run in groups.get((first, size), ()) if run["seed"] in others}
        if variant == first or not ours:
            continue
        gain = paired_bootstrap(
            *(_unpacked([side[seed]["compressed"] for seed in ours], n) for side in (ours, others))
        )
        ratios = [ours[seed]["relative error"] / others[seed]["relative error"] for seed in ours]
        rows.append(
            {
                "size": size,
                "against": variant,
                "seeds": len(ours),
                "gain (points)": 100 * gain.difference,
                "gain, 95 %": f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}",
                "error ratio": float(np.exp(np.mean(np.log(ratios)))),
                "bytes ratio": float(np.mean([ours[seed]["bytes"] / others[seed]["bytes"] for seed in ours])),
            }
        )
    return rows


def _groups(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["variant"], run["size"]), []).append(run)
    return groups


def _packed(right: np.ndarray) -> str:
    return np.packbits(right).tobytes().hex()


def _unpacked(digits: Sequence[str], n: int) -> np.ndarray:
    """Whether each prediction is right, (seeds, n) bool."""
    return np.stack([np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:n].astype(bool) for text in digits])
