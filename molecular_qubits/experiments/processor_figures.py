"""Figures of merit drawn: example circuits, error budget, operating region, logical errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shared.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_circuits(found: dict[str, Any]) -> Figure:
    """Draw the fidelity of GHZ states, the cut of QAOA, and the magnetisation after Trotter steps."""
    circuits = found["circuits"]
    figure, (first, second, third) = new_figure("page", 0.36, 1, 3)
    sizes = [row["radicals"] for row in circuits["ghz"]]
    for label, name, error in (
        ("as started", "fidelity", "error"), ("perfect start", "fidelity, perfect start", "error, perfect start")
    ):  # fmt: skip
        values, bars = ([row[key] for row in circuits["ghz"]] for key in (name, error))
        first.errorbar(sizes, values, bars, marker="o", label=label)
    first.axhline(0.5, color="0.5", linewidth=0.7, linestyle=":")
    first.text(sizes[-1], 0.52, "entangled above", ha="right", va="bottom", fontsize="x-small")
    first.set(xlabel="radicals", ylabel="fidelity of the GHZ state", ylim=(0, 1))
    first.legend()
    rows = circuits["qaoa"]
    rounds = [row["rounds"] for row in rows]
    best = rows[0]["largest cut"]
    second.plot(rounds, [row["mean cut without noise"] / best for row in rows], marker="o", label="without noise")
    second.plot(rounds, [row["mean cut"] / best for row in rows], marker="s", label="with noise")
    second.axhline(rows[0]["guessing"] / best, color="0.5", linewidth=0.7, linestyle=":", label="guessing")
    second.set(xlabel="QAOA rounds", ylabel="mean cut / largest cut", ylim=(0.25, 1.0), xticks=rounds)
    second.legend(loc="lower right")
    rows = circuits["trotter"]
    steps = [row["steps"] for row in rows]
    third.plot(steps, [row["<Z> without noise"] for row in rows], marker="o", label="without noise")
    third.plot(steps, [row["<Z>"] for row in rows], marker="s", label="with noise")
    third.axhline(rows[0]["<Z> exact"], color="0.5", linewidth=0.7, linestyle=":", label="exact")
    third.set(xlabel="Trotter steps", ylabel="mean <Z>, Ising model")
    third.legend()
    return figure


def draw_budget(found: dict[str, Any]) -> Figure:
    """Draw what each source takes from the fidelity, for each circuit."""
    budgets = found["budget"]
    figure, ax = new_figure("page", 0.42)
    (one, *_) = budgets.values()
    skipped = {"together minus the sum", "all"}
    names = [row["source"] for row in one if row["source"] not in skipped]
    height = 0.8 / len(budgets)
    for number, (circuit, rows) in enumerate(budgets.items()):
        values = {row["source"]: row["-ln F alone"] for row in rows}
        fidelity = np.exp(-values["all"])
        places = np.arange(len(names)) + number * height
        ax.barh(
            places, [max(values[name], 0.0) for name in names], height * 0.95, color=COLOURS[number],
            label=f"{circuit}: F = {fidelity:.2f}",
        )  # fmt: skip
    ax.set_yticks(np.arange(len(names)) + height * (len(budgets) - 1) / 2, names)
    ax.invert_yaxis()
    ax.set(xscale="log", xlim=(1e-4, 1.0), xlabel="-ln F with this source alone (coupler: beyond the hold)")
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.2))
    ax.grid(True, axis="x", alpha=0.4)
    return figure


def draw_region(found: dict[str, Any]) -> Figure:
    """Draw the error of a cycle over J and T2, and over J and the triplet's lifetime, with lines of equal error."""
    from matplotlib.colors import LogNorm

    study, maps = found["study"], found["region"]
    figure, axes = new_figure("page", 0.42, 1, 2, sharex=True)
    norm = LogNorm(1e-3, 1.0)
    for ax, name, label in (
        (axes[0], "t2", "T2 of the radicals (ns)"), (axes[1], "lifetime", "lifetime of the triplet (ns)"),
    ):  # fmt: skip
        values = np.array(maps[f"cycle_{name}"])
        mesh = ax.pcolormesh(
            study["j_cm1"], study[f"{name}_ns"], values, norm=norm, cmap="cividis_r", shading="nearest"
        )
        lines = ax.contour(
            study["j_cm1"], study[f"{name}_ns"], np.log10(values), levels=np.log10(sorted(study["error_rates"])),
            colors="black", linewidths=1.0, linestyles="solid",
        )  # fmt: skip
        ax.clabel(lines, fmt=lambda level: f"{10**level:.2g}", fontsize=6)
        ax.set(xscale="log", yscale="log", xlabel="exchange with the triplet J (cm$^{-1}$)", ylabel=label)
    figure.colorbar(mesh, ax=axes, label="error of a cycle (gate and rotations)")
    return figure


def draw_codes(found: dict[str, Any]) -> Figure:
    """Draw the logical error per round of each code against the scale of all errors, with 95 % intervals."""
    rows = found["codes"]
    figure, axes = new_figure("page", 0.45, 1, 2, sharey=True)
    for ax, code, bare, label in (
        (axes[0], "repetition", "flip of one radical left alone", "one radical, T1 alone"),
        (axes[1], "surface", "phase flip of one radical left alone", "one radical, T2 alone"),
    ):
        here = [row for row in rows if row["code"] == code]
        for distance, colour, marker in zip(sorted({row["distance"] for row in here}), COLOURS, "osD^v", strict=False):
            points = [row for row in here if row["distance"] == distance]
            seen = [row for row in points if row["failures"]]
            none = [row for row in points if not row["failures"]]
            middle = np.array([row["error per round"] for row in seen])
            low, high = (np.array([row[f"95 % {side}"] for row in seen]) for side in ("low", "high"))
            bars = [np.maximum(middle - low, 0), np.maximum(high - middle, 0)]
            scales = [row["scale"] for row in seen]
            ax.errorbar(scales, middle, bars, color=colour, marker=marker, linestyle="-", label=f"distance {distance}")
            limits = [row["95 % high"] for row in none]
            ax.plot(
                [row["scale"] for row in none], limits, color=colour, marker="$\\downarrow$", markersize=7, linestyle=""
            )
        ax.plot([row["scale"] for row in here], [row[bare] for row in here], color="0.5", linestyle=":", label=label)
        ax.set(
            xscale="log", yscale="log", xlabel="errors of the network, times", title=f"{code} code",
            ylim=(1e-6, 0.7),
        )  # fmt: skip
        ax.grid(True, alpha=0.4)
        ax.legend(loc="upper left")
    axes[0].set_ylabel("logical error per round")
    return figure
