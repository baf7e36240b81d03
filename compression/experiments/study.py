"""A table over seeds: one task, several file sizes, and what each part of the recipe adds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from compression.experiments.empty_clusters import totals
from compression.experiments.run_config import RunConfig, check_settings
from compression.experiments.study_tables import gain_rows, packed, score_rows
from compression.experiments.task_run import finished_report, run_task
from compression.quantization.rules import STAGES
from compression.training.distillation import LastTeacher
from compression.training.evaluate import matthews_correlation
from compression.training.ipq import StageReport
from compression.training.tasks import find_task
from shared.artifacts import content_hash, provenance, write_json
from shared.config import FrozenConfig, changed, check_left_out
from shared.progress import say


class Variant(FrozenConfig):
    """One way to go about it.

    Attributes
    ----------
    change
        Keys of `RunConfig` that differ, nested as in YAML.
    sizes, seeds
        Only these of the study's; all if ``None``.
    """

    change: dict[str, Any] = Field(default_factory=dict)
    sizes: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None


class StudyConfig(FrozenConfig):
    """What to run.

    Attributes
    ----------
    run
        The recipe.
    sizes
        Keys of `RunConfig` for each size of the file, by its name. What is chosen for a budget is chosen once, with the
        settings of the first variant and the fp32 model of the first run, and the same for all variants and seeds.
    variants
        By name. The first is what the others are compared with.
    seeds
        Of the head, the order of the sentences, dropout and clustering: each has its own fp32 model.
    """

    run: RunConfig
    sizes: dict[str, dict[str, Any]] = Field(min_length=1)
    variants: dict[str, Variant] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1)

    @model_validator(mode="after")
    def _seeds_are_given_once(self) -> "StudyConfig":
        check_left_out(self, {"run.ipq.seed": "seeds", "run.finetune.seed": "seeds", "run.noise.seed": "seeds"})
        return self


@dataclass(frozen=True)
class Planned:
    """One run of a study."""

    variant: str
    size: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> tuple[str, str, int]:
        """Variant, size and seed."""
        return self.variant, self.size, self.seed

    @property
    def folder(self) -> str:
        """Name of the folder of the run."""
        return f"{self.variant}-{self.size}-{self.seed}".replace(" ", "-")

    @property
    def dense(self) -> str:
        """Name of the fp32 model, the same for runs that share it."""
        values = self.config.model_dump(mode="json")
        names: tuple[str, ...] = ("model", "task", "data", "new_head", "finetune", "noise", "max_train")
        blocks = None
        if self.config.noise is not None:  # it is on the layers of the file, and exact noise has its blocks
            blocks = [values[name] for name in ("budget", "block_size", "n_centroids", "pq")]
            stages = sorted(self.config.ipq.parts)
            if values["rules"] is not None or stages != sorted(STAGES):
                blocks += [values["rules"], stages]
        return f"{self.seed}-{content_hash([[values[name] for name in names], blocks])[:8]}"


def plan(config: StudyConfig) -> list[Planned]:
    """Return all runs, seed by seed and variant by variant.

    Raises
    ------
    ValueError
        If the task is a regression, a variant names a size or seed that the study does not have, or a key that a run
        does not have or that is of the choice for a budget, the first variant lacks a seed that another one has, or two
        runs have the same folder.
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
    planned = list(_planned(config))
    for item in planned:
        wanted = changed(config.run, config.sizes[item.size])
        for key in ("budget", "n_plan", "share"):
            value = getattr(item.config, key)
            if item.config.budget is not None and value != getattr(wanted, key):
                raise ValueError(
                    f"Key `variants.{item.variant}.change.{key}` must be left out, as what is chosen for a budget is "
                    f"the same for all variants, but was {value!r}: make it a size of its own in `sizes`."
                )
    (first, reference), *others = config.variants.items()
    for name, variant in others:
        for seed in variant.seeds or config.seeds:
            if seed not in (reference.seeds or config.seeds):
                raise ValueError(
                    f"Key `variants.{first}.seeds` must hold the seeds of all variants, as their losses are against "
                    f"this one, but lacks {seed}: add it, or leave it out of `variants.{name}.seeds`."
                )
    by_folder: dict[str, Planned] = {}
    for item in planned:
        other = by_folder.setdefault(item.folder, item)
        if other is not item:
            raise ValueError(
                f"Keys `variants`, `sizes` and `seeds` must give each run a folder of its own, but {other.name} and "
                f"{item.name} both have {item.folder!r}: rename one of them."
            )
    return planned


def _planned(config: StudyConfig) -> Iterator[Planned]:
    for seed in config.seeds:  # runs in a row share the fp32 model
        for name, variant in config.variants.items():
            for size, sizes in config.sizes.items():
                if size in (variant.sizes or (size,)) and seed in (variant.seeds or (seed,)):
                    seeds: dict[str, Any] = {"ipq": {"seed": seed}}
                    run = changed(config.run, sizes, variant.change)
                    if run.finetune is not None:
                        seeds["finetune"] = {"seed": seed}
                    if run.noise is not None:
                        seeds["noise"] = {"seed": seed}
                    yield Planned(name, size, seed, changed(run, seeds))


def run_study(
    config: StudyConfig,
    out: str | Path,
    folder: str | Path | None = None,
    *,
    finished: bool = False,
    known: Mapping[str, Any] | None = None,
    n_workers: int | None = 1,
) -> dict[str, Any]:
    """Make all runs and return the tables.

    Parameters
    ----------
    config
        What to run.
    out
        Folder for the runs; those that are finished there are read, one that was interrupted is continued.
    folder
        Cache folder of packaged models and data.
    finished
        Take only the runs that are finished in `out`, and compute nothing.
    known
        What this returned on another machine, perhaps for other seeds, sizes or variants. Seeds of which it has all
        runs are taken from there, and with `finished` every run that `out` lacks. Runs of the same name must have the
        same settings, and those of a seed one fp32 model. What it chose for a budget is chosen here, too.
    n_workers
        Processes that cluster, see `compression.quantize_`; the result is the same for any number.

    Returns
    -------
    dict
        ``rows`` and ``gains`` (see `compression.experiments.study_tables`), ``runs``, ``planned`` (how many runs there
        are when all are finished), ``plans`` (the rules chosen for each budget) and ``provenance`` with the seconds of
        the runs, JSON-able.

    Raises
    ------
    ValueError
        Before any run, see `plan` and `compression.experiments.run_config.prepare`; if `out` holds runs with other
        settings, or with `finished` none of the first variant for a seed of another one; if `known` is of other
        settings, has another fp32 model for a seed than `out`, or lacks the sizes chosen for a budget where runs are
        added to its own; if runs of one budget have other block sizes or numbers of codewords.
    """
    out = Path(out)
    planned = plan(config)
    taken = {} if known is None else _known_runs(planned, known)
    incomplete = {item.seed for item in planned if item.name not in taken}
    plans = _plans(config, out, known)
    todo = [item for item in planned if item.name not in taken or item.seed in incomplete]
    added = todo
    if finished:
        added = [item for item in todo if finished_report(item.config, out / "runs" / item.folder) is not None]
    _check_sizes_known(planned, added, taken, {} if known is None else known.get("plans", {}))
    if not finished:
        _check_first(todo, out, folder, plans)
        for size, chosen in plans.items():
            if not (path := out / "plans" / f"{size}.json").is_file():
                write_json(path, chosen)
    first = planned[0].variant
    settings = {item.size: item.config for item in planned if item.variant == first}
    runs, shared, teach_last = [], dict[tuple[Any, ...], str](), LastTeacher()
    for number, item in enumerate(planned, start=1):
        run = taken.get(item.name)
        if run is None or item.seed in incomplete:
            target = out / "runs" / item.folder
            report = finished_report(item.config, target)
            if report is None and not finished:
                say(f"Run {number} of {len(planned)}: {item.variant}, {item.size}, seed {item.seed}")
                home = out / "dense" / item.dense
                home.parent.mkdir(parents=True, exist_ok=True)
                report = run_task(
                    item.config,
                    target,
                    folder=folder,
                    dense=home,
                    plan=out / "plans" / f"{item.size}.json",
                    plan_settings=settings.get(item.size),
                    n_workers=n_workers,
                    teach_last=teach_last,
                )
            if report is not None:
                run = _record(item, report)
        if run is None:
            continue
        _check_shared(item, run, shared)
        runs.append(run)
    if not runs:
        raise ValueError(
            f"Argument `out` must hold a finished run, but {str(out)!r} has none: leave `finished` out to make it, or "
            "give in `known` what another machine found."
        )
    if {run["seed"] for run in runs} != {run["seed"] for run in runs if run["variant"] == first}:
        raise ValueError(
            f"Argument `out` must hold a finished run of {first!r} for each seed of another one, but was {str(out)!r}."
        )
    found = {"rows": score_rows(runs), "gains": gain_rows(runs), "runs": runs, "planned": len(planned)}
    seconds = sum(run["seconds"]["whole"] for run in runs)
    return found | {
        "sentences": runs[0]["sentences"],
        "plans": _plans(config, out, known),
        "provenance": provenance(config, seconds),
    }


def _check_sizes_known(
    planned: Sequence[Planned],
    added: Sequence[Planned],
    taken: Mapping[tuple[str, str, int], Mapping[str, Any]],
    plans: Mapping[str, Any],
) -> None:
    """Refuse to put other runs of a budget beside known ones that do not say what was chosen for it."""
    new = {item.name for item in added}
    beside = [item for item in planned if item.config.budget and item.name in taken and item.name not in new]
    unknown = {item.size for item in beside if "layers" not in taken[item.name] and item.size not in plans}
    for item in added:
        if item.config.budget and item.size in unknown:
            raise ValueError(
                f"Argument `known` must hold the sizes of layers that were chosen for {item.size!r} (`plans`), as runs "
                f"such as {item.folder!r} are added to its own, but is of before they were kept."
            )


def _check_first(items: Sequence[Planned], out: Path, folder: str | Path | None, plans: Mapping[str, Any]) -> None:
    """Refuse, before any of them, what one of the runs would refuse: its folder, or settings that do not fit."""
    checked, chosen = set[str](), set(plans)
    for item in items:
        config = item.config
        if config.budget and item.size in chosen:  # by then its layers and blocks are known, which noise needs
            config = config.model_copy(update={"noise": None})
        chosen.add(item.size)
        if finished_report(item.config, out / "runs" / item.folder) is not None:
            continue
        values = config.model_dump(mode="json")
        same = {part: values[part] and values[part] | {"seed": 0} for part in ("finetune", "noise", "ipq")}
        key = content_hash([item.size, values | same])
        if key not in checked:
            checked.add(key)
            try:
                check_settings(config, folder, out / "plans" / f"{item.size}.json")
            except ValueError as error:
                raise ValueError(f"Run {item.folder!r}: {error}") from error


def _check_shared(item: Planned, run: Mapping[str, Any], shared: dict[tuple[Any, ...], str]) -> None:
    """Refuse a run of another fp32 model, or with other sizes of layers, than the runs before it, kept in `shared`."""
    if run["fp32"] != shared.setdefault(("fp32", item.dense), run["fp32"]):
        raise ValueError(
            f"Argument `known` must hold runs of the fp32 models in `out`, but that of {item.name} predicts otherwise: "
            "take the runs of a seed from one machine."
        )
    if item.config.budget is None or "layers" not in run:  # runs of before they were kept
        return
    if run["layers"] != shared.setdefault(("layers", item.size, *item.config.ipq.parts), run["layers"]):
        raise ValueError(
            f"Argument `out` must hold runs with the sizes of layers that were chosen for {item.size!r}, but "
            f"{item.name} has others: make it again in a folder with the same `plans`."
        )


def _plans(config: StudyConfig, out: Path, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return budget and rules of each size for which they were chosen, in `out` or else where `known` is from."""
    found = {} if known is None else dict(known.get("plans", {}))
    for size in config.sizes:
        if (path := out / "plans" / f"{size}.json").is_file():
            chosen = json.loads(path.read_text(encoding="utf-8"))
            found[size] = {key: chosen[key] for key in ("budget", "rules")}
    return found


def _known_runs(planned: Sequence[Planned], known: Mapping[str, Any]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the known ones of the planned runs, by name."""
    try:
        theirs = {item.name: item.config for item in plan(StudyConfig.build(known["provenance"]["config"]))}
    except ValueError as error:
        raise ValueError(f"Argument `known` must have the settings of a study, but: {error}") from error
    runs = {(run["variant"], run["size"], run["seed"]): run for run in known["runs"]}
    taken = {}
    for item in planned:
        if item.name not in runs or item.name not in theirs:
            continue
        ours, other = (config.model_dump(mode="json") for config in (item.config, theirs[item.name]))
        different = next((key for key in ours if ours[key] != other[key]), None)
        if different is not None:
            raise ValueError(
                f"Argument `known` must hold runs with the same settings, but {item.name} differs in {different!r}."
            )
        taken[item.name] = runs[item.name]
    return taken


def _record(item: Planned, report: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a run: sizes, which predictions are right, work on empty clusters, errors, seconds.

    ``layers`` stands for the block size and the number of codewords asked for of each layer.
    """
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
        "fp32": packed(predictions["fp32"] == labels),
        "compressed": packed(predictions["iPQ"] == labels),
        "matthews": {name: matthews_correlation(predictions[name], labels) for name in ("fp32", "iPQ")},
        "empty clusters": {key: sum(layer[key] for layer in work) for key in work[0]},
        "relative error": float(np.mean([layer.relative_error for layer in layers])),
        "layers": content_hash([[layer.name, layer.block_size, layer.n_requested] for layer in layers])[:8],
        "made": {key: report["provenance"].get(key) for key in ("git_commit", "versions")},
        "seconds": {"whole": report["provenance"]["seconds"], "compression": report["compression"]["seconds"]},
    }
