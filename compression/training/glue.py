"""GLUE from the hub, from local files in the hub's own layout, or from the original TSV files."""

import csv
import math
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from compression.training.data import TextData
from compression.training.sources import hub_error, hub_or_cache, local_folder
from compression.training.tasks import Task
from shared.progress import say

HUB_DATASET = "nyu-mll/glue"
"""The data set on the hub."""

_COLUMN_OF_LABELS = "label"

# Of the original files: folder, columns of the sentences and of the label (numbers where there is no header).
_TSV: dict[str, tuple[str, tuple[str | int, ...], str | int]] = {
    "cola": ("CoLA", (3,), 1),
    "sst2": ("SST-2", ("sentence",), "label"),
    "mrpc": ("MRPC", ("#1 String", "#2 String"), "Quality"),
    "qqp": ("QQP", ("question1", "question2"), "is_duplicate"),
    "stsb": ("STS-B", ("sentence1", "sentence2"), "score"),
    "mnli": ("MNLI", ("sentence1", "sentence2"), "gold_label"),
    "qnli": ("QNLI", ("question", "sentence"), "label"),
    "rte": ("RTE", ("sentence1", "sentence2"), "label"),
    "wnli": ("WNLI", ("sentence1", "sentence2"), "label"),
}


def load_glue(task: Task, split: str, source: str | Path | None = None) -> TextData:
    """Return one split of a GLUE task.

    Parameters
    ----------
    task
        One of `compression.training.tasks.GLUE`.
    split
        One of ``task.splits``. The labels of test splits are hidden: all -1.
    source
        A name on the hub (`HUB_DATASET` if ``None``), or a folder that holds

        - a copy of the hub's data set: ``README.md`` and ``<task>/<split>-*.parquet`` (the former may be missing, and
          the folder may be that of the task itself);
        - what ``Dataset.save_to_disk`` wrote, for the task or for each task in a sub-folder;
        - the original files, ``RTE/train.tsv`` and so on (only these are read without the package ``datasets``).

    Returns
    -------
    TextData
        Labels in the order of ``task.label_names``, whatever order the source has.

    Raises
    ------
    ValueError
        If the split or a column is missing, or a sentence or a label is not what the task needs; the message names
        the row.
    compression.training.packages.DataError
        If the hub cannot be reached.
    ModuleNotFoundError
        If the package ``datasets`` is needed and not installed.
    """
    if split not in task.splits:
        raise ValueError(f"Argument `split` must be one of {', '.join(task.splits)}, but was {split!r}.")
    folder = None if source is None else local_folder(source, "data")
    where = f"{task.name}/{split} of {HUB_DATASET if source is None else source}"
    file = None if folder is None else _tsv_file(folder, task, split)
    if file is not None:
        columns, names = _read_tsv(file, task), None
        where = f"{file}"
    else:
        columns, names = _read_dataset(str(source or HUB_DATASET), folder, task, split)
    return _text_data(f"glue/{task.name}/{split}", columns, names, task, where)


def _read_dataset(
    source: str, folder: Path | None, task: Task, split: str
) -> tuple[dict[str, Sequence[Any]], tuple[str, ...] | None]:
    """Return the columns of a split and the names of its labels, if it has any."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "GLUE in the hub's layout is read by the package `datasets`, which is not installed. Run "
            "`pip install 'molecular-compression[glue]'`, or let `data` name a folder with the original TSV files."
        ) from error
    if not sys.stderr.isatty() or os.environ.get("PROGRESS") == "0":
        datasets.disable_progress_bars()
    saved = None if folder is None else _first(folder, task, "dataset_dict.json")
    arguments: dict[str, Any] = {"path": source, "name": task.name}
    if folder is not None and saved is None:
        # The cache of `datasets` knows a local copy of the hub by its name alone and would go on giving what the files
        # held before a change: local files are read into a folder that lasts as long as this function.
        arguments = {"path": str(folder), "name": task.name}
        if not (folder / "README.md").is_file():
            arguments = {"path": "parquet", "data_files": _parquet_files(folder, task)}
    with nullcontext() if folder is None else tempfile.TemporaryDirectory() as cache_dir:
        try:
            with hub_or_cache() if folder is None else nullcontext():
                data = (
                    datasets.load_from_disk(saved) if saved else datasets.load_dataset(**arguments, cache_dir=cache_dir)
                )
        except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
            if isinstance(error, OSError) and folder is None:  # no answer, or no such data set
                raise hub_error("data set", source, error, "`data`") from error
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise ValueError(f"Data {source!r} hold no readable task {task.name!r}: {reason}") from error
        if split not in data:
            raise ValueError(f"Data {source!r} have no split {split!r} of {task.name}; they have {', '.join(data)}.")
        rows = data[split]
        feature = rows.features.get(_COLUMN_OF_LABELS)
        names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
        wanted = {*task.sentence_keys, _COLUMN_OF_LABELS}
        return {name: rows[name][:] if name in wanted else () for name in rows.column_names}, names


def _first(folder: Path, task: Task, name: str) -> str | None:
    """Return the task's sub-folder, or the folder itself, whichever holds the file `name`."""
    return next((str(parent) for parent in (folder / task.name, folder) if (parent / name).is_file()), None)


def _parquet_files(folder: Path, task: Task) -> dict[str, list[str]]:
    for parent in (folder / task.name, folder):
        files = {split: sorted(map(str, parent.glob(f"{split}-*.parquet"))) for split in task.splits}
        files = {split: paths for split, paths in files.items() if paths}
        if files:
            return files
    raise ValueError(
        f"Key `data` must name a data set on the hub or a folder with {task.name}/train-*.parquet (the hub's layout) "
        f"or {_TSV[task.name][0]}/train.tsv (the original one), but {str(folder)!r} has neither."
    )


def _tsv_file(folder: Path, task: Task, split: str) -> Path | None:
    """Return the original file of a split, or ``None`` if the folder has none of the task."""
    name = split.replace("validation", "dev") + ".tsv"
    for parent in (folder / _TSV[task.name][0], folder):
        if (parent / "train.tsv").is_file():
            if not (parent / name).is_file():
                raise ValueError(f"Folder {str(parent)!r} must hold {name} beside train.tsv, but does not.")
            return parent / name
    return None


def _read_tsv(path: Path, task: Task) -> dict[str, Sequence[Any]]:
    """Return the sentence columns and the labels (-1 in test files) of an original file under the hub's names."""
    _, sources, label = _TSV[task.name]
    keys = dict(zip(task.sentence_keys, sources, strict=True))
    test = path.name.startswith("test")
    if test and task.name == "cola":  # the only file of this task with a header: index, sentence
        keys = {"sentence": "sentence"}
    if not test:
        keys[_COLUMN_OF_LABELS] = label
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if any(isinstance(key, str) for key in keys.values()):
        header = [name.strip() for name in rows[0]] if rows else []
        _check_columns([str(key) for key in keys.values()], header, str(path))
        places = {name: header.index(str(key)) for name, key in keys.items()}
        rows = rows[1:]
    else:
        places = {name: int(key) for name, key in keys.items()}
    whole = [row for row in rows if len(row) > max(places.values())]
    if len(whole) < len(rows):  # so in the published QQP; the hub's copy lacks these rows too
        say(f"{path}: {len(rows) - len(whole)} of {len(rows)} rows lack a column and are left out.")
    columns: dict[str, Sequence[Any]] = {name: [row[place] for row in whole] for name, place in places.items()}
    return columns | ({_COLUMN_OF_LABELS: [-1] * len(whole)} if test else {})


def _text_data(
    name: str, columns: Mapping[str, Sequence[Any]], label_names: Sequence[str] | None, task: Task, where: str
) -> TextData:
    """Check the columns and put the labels in the order of the task."""
    _check_columns([*task.sentence_keys, _COLUMN_OF_LABELS], columns, where)
    texts = []
    for key in task.sentence_keys:
        bad = next((row for row, text in enumerate(columns[key]) if not isinstance(text, str)), None)
        if bad is not None:
            raise ValueError(f"Column {key!r} of {where} must hold text, but holds {columns[key][bad]!r} in row {bad}.")
        texts.append(tuple(columns[key]))
    if not texts[0]:
        raise ValueError(f"Data {where} must have at least one row, but are empty.")
    labels = _labels(columns[_COLUMN_OF_LABELS], label_names, task, where)
    return TextData(name, texts[0], labels, texts[1] if len(texts) == 2 else None, task.label_names)


def _labels(
    values: Sequence[Any], names: Sequence[str] | None, task: Task, where: str
) -> tuple[int, ...] | tuple[float, ...]:
    order: dict[Any, int] = {name: label for label, name in enumerate(task.label_names)}
    if names is not None and not task.regression:
        if sorted(names) != sorted(task.label_names):
            raise ValueError(
                f"The labels of {where} must be {', '.join(task.label_names)}, but are {', '.join(names)}."
            )
        order |= {number: order[name] for number, name in enumerate(names)} | {-1: -1}
    (low, high), hidden = task.label_range, all(value == -1 for value in values)
    labels = []
    for row, value in enumerate(values):
        try:
            label = float(value) if task.regression else int(order.get(value, value))
            if not task.regression and isinstance(value, float) and label != value:
                label = float("nan")  # no class
        except (TypeError, ValueError, OverflowError):
            label = float("nan")
        if task.regression and not ((low <= label <= high and math.isfinite(label)) or hidden):
            label = float("nan")
        if label != label:
            kind = f"0..{task.num_labels - 1} or one of {', '.join(task.label_names)}"
            if task.regression:
                kind = f"numbers from {low:g} to {high:g}"
            raise ValueError(f"Column {_COLUMN_OF_LABELS!r} of {where} must hold {kind}, but row {row} has {value!r}.")
        labels.append(label)
    return tuple(labels)


def _check_columns(needed: Sequence[str], present: Iterable[str], where: str) -> None:
    missing = [name for name in needed if name not in present]
    if missing:
        raise ValueError(
            f"Data {where} must have the columns {', '.join(map(repr, needed))}, but lack {missing[0]!r}; they have "
            f"{', '.join(map(repr, present)) or 'none'}."
        )


def check_labelled(data: TextData) -> None:
    """Raise `ValueError` if the labels are hidden, so that nothing can be trained or evaluated on them."""
    if data.hidden:
        raise ValueError(f"The labels of {data.name} are hidden (all -1): take a labelled split.")
