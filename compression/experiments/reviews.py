"""Questions of the paper's public reviews: published compressors beside ours, and other k-means in the same recipe."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compression.experiments.study_tables import DATA, gain_rows, load_study, score_rows

PUBLISHED = DATA / "published.csv"
"""Scores on development sets and sizes as their authors give them."""

STUDY = "minilm-rt-reviews"
"""The study of the k-means that reviewers asked for, in the recipe of ``minilm-rt``."""

_TASKS = ("MNLI", "QNLI", "RTE")


def published_rows(path: Path = PUBLISHED) -> list[dict[str, Any]]:
    """Return a row for each published model: how much smaller it is, and points lost against its own fp32 model.

    Where only sizes are given, the ratio is that to the size of the fp32 model; the first fp32 model counts.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    dense: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["method"] == "fp32":
            dense.setdefault(row["base model"], row)
    table = []
    for row in rows:
        base = dense[row["base model"]]
        ratio = float(row["of fp32"]) if row["of fp32"] else float(base["size (MB)"]) / float(row["size (MB)"])
        lost = {f"{task} lost": float(base[task]) - float(row[task]) if row[task] else None for task in _TASKS}
        table.append(
            {
                "method": row["method"],
                "base model": row["base model"],
                "of fp32": ratio,
                **{task: float(row[task]) if row[task] else None for task in _TASKS},
                **(dict.fromkeys(lost) if row["method"] == "fp32" else lost),
                "source": row["source"],
            }
        )
    return table


def our_rows(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the compressed models of a study as `published_rows` has them: ratio, accuracy, points lost."""
    return [
        {
            "method": row["variant"],
            "of fp32": row["of fp32"],
            "accuracy (%)": row["accuracy (%)"],
            "lost (points)": row["lost (points)"],
            "lost, 95 %": row["lost, 95 %"],
            "seeds": row["seeds"],
        }
        for row in score_rows(study["runs"])
        if row["of fp32"] > 1
    ]


def kmeans_rows() -> list[dict[str, Any]] | None:
    """Return PG against each other k-means of the committed study `STUDY`; ``None`` where it has not been run."""
    if not (DATA / f"study-{STUDY}.json").is_file():
        return None
    return gain_rows(load_study(STUDY)["runs"])
