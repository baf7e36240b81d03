"""The tables and the figures of a study, from what is kept of its runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compression.training.evaluate import paired_bootstrap

DATA = Path(__file__).parent / "data"
"""Committed results: ``study-NAME.json``, made by ``pg-ipq study NAME``."""


SHOWN = {
    "PG": "PG, distilled",
    "released": "released, distilled",
    "no distillation": "PG, clustered",
    "released, no distillation": "released, clustered",
}
"""Variants of a figure with their labels."""


def load_study(name: str) -> dict[str, Any]:
    """Return the committed result of a study."""
    return json.loads((DATA / f"study-{name}.json").read_text(encoding="utf-8"))


def score_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the fp32 model of each variant that has one of its own, and each variant at each size.

    Accuracies are means over seeds; ``lost`` is in points against the fp32 model of the first variant of the same seed.
    Intervals are of a bootstrap over seeds and sentences.
    """
    first = runs[0]["variant"]
    reference = {run["seed"]: run["fp32"] for run in runs if run["variant"] == first}
    n = runs[0]["sentences"]
    rows: list[dict[str, Any]] = []
    for (variant, size), group in _groups(runs).items():
        for state in ("fp32", "compressed"):
            own = any(run["fp32"] != reference[run["seed"]] for run in group)
            if state == "fp32" and not own and any(row["variant"] == "fp32" for row in rows):
                continue
            right = unpacked([run[state] for run in group], n)
            base = unpacked([reference[run["seed"]] for run in group], n)
            score = paired_bootstrap(right, np.zeros_like(right))
            lost = None if state == "fp32" and not own else paired_bootstrap(base, right)
            name = variant if state == "compressed" else f"{variant}, fp32" if own else "fp32"
            key = "fp32" if state == "fp32" else "iPQ"
            rows.append(
                {
                    "variant": name,
                    "size": "1x" if state == "fp32" else size,
                    "of fp32": (ratio := 1.0 if state == "fp32" else min(run["of_fp32"] for run in group)),
                    "of fp16": ratio / 2,
                    "seeds": len(group),
                    "accuracy (%)": 100 * score.difference,
                    "95 % interval": f"{100 * score.low:.1f} to {100 * score.high:.1f}",
                    "lost (points)": None if lost is None else 100 * lost.difference,
                    "lost, 95 %": None if lost is None else f"{100 * lost.low:.1f} to {100 * lost.high:.1f}",
                    "Matthews": float(np.mean([run["matthews"][key] for run in group])),
                }
            )
    return rows


def gain_rows(runs: Sequence[Mapping[str, Any]], first: str | None = None) -> list[dict[str, Any]]:
    """Return one variant, the first if not named, against each other one at each size, on the seeds that both have.

    ``gain`` is the accuracy of the first minus that of the other in points, with the 95 % interval of a paired
    bootstrap over seeds and sentences; ``error ratio`` the squared errors of the weights after clustering.
    """
    groups = _groups(runs)
    first, n = first or runs[0]["variant"], runs[0]["sentences"]
    rows = []
    for (variant, size), group in groups.items():
        others = {run["seed"]: run for run in group}
        ours = {run["seed"]: run for run in groups.get((first, size), ()) if run["seed"] in others}
        if variant == first or not ours:
            continue
        gain = paired_bootstrap(*(unpacked([side[seed]["compressed"] for seed in ours], n) for side in (ours, others)))
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


def beats_majority(runs: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """Return whether the fp32 model is above the majority rate by more than twice its interval, and that in words.

    An accuracy near that of always giving the more frequent answer says nothing about compression. Twice the interval
    is the whole width of the 95 % interval of the fp32 row of `score_rows`.
    """
    (dense,) = [row for row in score_rows(runs) if row["variant"] == "fp32"]
    low, high = _bounds(dense)
    majority = 100 * runs[0]["majority"]
    above = dense["accuracy (%)"] - majority
    beats = above > high - low
    return beats, (
        f"fp32 is {above:.1f} points above the majority rate of {majority:.1f} %, {'' if beats else 'not '}more than "
        f"twice its interval of ±{(high - low) / 2:.1f}: the task {'counts' if beats else 'does not count'}."
    )


def _groups(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["variant"], run["size"]), []).append(run)
    return groups


def packed(right: np.ndarray) -> str:
    """Return whether each of n predictions is right as hexadecimal digits of packed bits."""
    return np.packbits(right).tobytes().hex()


def unpacked(digits: Sequence[str], n: int) -> np.ndarray:
    """Return (runs, n) bool from the digits that `packed` gave for each run."""
    return np.stack([np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:n].astype(bool) for text in digits])


def draw_study(rows: Sequence[Mapping[str, Any]], variants: Mapping[str, str]) -> Any:
    """Draw accuracy with its interval against the size of the file.

    Parameters
    ----------
    rows
        Of `score_rows`.
    variants
        The variants to show, with their labels; those without rows are left out.
    """
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure("column", aspect=0.8)
    (dense,) = [row for row in rows if row["variant"] == "fp32"]
    axes.axhspan(*_bounds(dense), color="0.5", alpha=0.15, linewidth=0)
    axes.axhline(dense["accuracy (%)"], color="0.5", linewidth=1, label="fp32")
    shown = [name for name in variants if any(row["variant"] == name for row in rows)]
    for number, (name, label) in enumerate(variants.items()):
        if name not in shown:
            continue
        some = sorted((row for row in rows if row["variant"] == name), key=lambda row: row["of fp32"])
        accuracy, spread = _with_spread(some, "accuracy (%)", "95 % interval")
        size = np.array([row["of fp32"] for row in some]) * (1 + 0.012 * (shown.index(name) - (len(shown) - 1) / 2))
        look = {"color": COLOURS[number], "marker": "o^sDv"[number % 5], "linewidth": 1}
        axes.errorbar(size, accuracy, spread, label=label, **look)
    axes.set_xscale("log")
    ticks = sorted({round(row["of fp32"]) for row in rows if row["variant"] in variants and row["of fp32"] > 1})
    axes.set_xticks(ticks, [f"{tick}×" for tick in ticks])
    axes.set_xlim(ticks[0] / 1.1, ticks[-1] * 1.1)  # of one size, too, whose points lie a hundredth beside each other
    axes.minorticks_off()
    axes.set(xlabel="fp32 file / compressed file", ylabel="accuracy (%)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def draw_gains(gains: Sequence[Mapping[str, Any]], first: str) -> Any:
    """Draw what one variant gains over each other one, with 95 % intervals.

    Parameters
    ----------
    gains
        Of `gain_rows`.
    first
        The variant that gains.
    """
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure("column", aspect=0.25 + 0.09 * len(gains))
    sizes = list(dict.fromkeys(row["size"] for row in gains))
    names = list(dict.fromkeys(row["against"] for row in gains))
    axes.axvline(0, color="0.5", linewidth=1)
    for number, size in enumerate(sizes):
        some = [row for row in gains if row["size"] == size]
        gain, spread = _with_spread(some, "gain (points)", "gain, 95 %")
        place = np.array([names.index(row["against"]) for row in some]) + 0.2 * (number - (len(sizes) - 1) / 2)
        look = {"color": COLOURS[number % len(COLOURS)], "marker": "o^sDv"[number % 5], "linestyle": "none"}
        axes.errorbar(gain, place, xerr=spread, label=size.replace("x", "×"), **look)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=f"gain of {first} (points)")
    if len(sizes) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(sizes))
    return figure


def _with_spread(rows: Sequence[Mapping[str, Any]], value: str, interval: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (n,) of a column, and how far below and above them (2, n) their intervals reach."""
    values = np.array([row[value] for row in rows])
    return values, np.abs(np.array([_bounds(row, interval) for row in rows]).T - values)


def _bounds(row: Mapping[str, Any], key: str = "95 % interval") -> tuple[float, float]:
    low, high = row[key].split(" to ")
    return float(low), float(high)
