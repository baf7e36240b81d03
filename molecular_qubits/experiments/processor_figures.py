"""Figures of merit drawn: example circuits, error budget, operating region, logical errors."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.plotting import COLOURS, cell_edges, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from molecular_qubits.network.lattice import MolecularNetwork


_LEAST_LOSS = 1e-4
"""Where the axis of the error budget begins."""

_SHIFT = 1.2
"""Factor by which upper limits of neighbouring distances are drawn apart."""


def _network(found: dict[str, Any]) -> MolecularNetwork:
    from molecular_qubits.experiments.processor import ProcessorStudy, network_of

    return network_of(ProcessorStudy.build(found["study"]), (1, 2))


def _alone(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(row["source"], row["-ln F alone"]) for row in rows]


def draw_circuits(found: dict[str, Any]) -> Figure:
    """Draw the fidelity of GHZ states, the cut of QAOA, and the magnetisation after Trotter steps."""
    circuits = found["circuits"]
    polarisation = _network(found).initial_polarisation.mean()
    figure, (first, second, third) = new_figure("page", 0.36, 1, 3)
    sizes = [row["radicals"] for row in circuits["ghz"]]
    for label, name, error in (
        (f"polarisation {polarisation:.3g} at the start", "fidelity", "error"),
        ("perfect start", "fidelity, perfect start", "error, perfect start"),
    ):
        values, bars = ([row[key] for row in circuits["ghz"]] for key in (name, error))
        first.errorbar(sizes, values, bars, marker="o", label=label)
    first.axhline(0.5, color="0.5", linewidth=0.7, linestyle=":")
    first.text(sizes[-1], 0.52, "entangled above", ha="right", va="bottom", fontsize="x-small")
    first.set(xlabel="radicals", ylabel="fidelity of the GHZ state", ylim=(0, 1.03))
    first.legend(loc="upper right", fontsize="x-small")
    rows = circuits["qaoa"]
    rounds = [row["rounds"] for row in rows]
    best = rows[0]["largest cut"]
    second.plot(rounds, [row["mean cut without noise"] / best for row in rows], marker="o", label="without noise")
    second.plot(rounds, [row["mean cut"] / best for row in rows], marker="s", label="with noise")
    second.axhline(rows[0]["guessing"] / best, color="0.5", linewidth=0.7, linestyle=":", label="guessing")
    second.set(xlabel="QAOA rounds", ylabel="mean cut / largest cut", ylim=(0.25, 1.03), xticks=rounds)
    second.legend(loc="lower right")
    rows = circuits["trotter"]
    steps = [row["steps"] for row in rows]
    third.plot(steps, [row["<Z> without noise"] for row in rows], marker="o", label="without noise")
    third.plot(steps, [row["<Z>"] for row in rows], marker="s", label="with noise")
    third.axhline(rows[0]["<Z> exact"], color="0.5", linewidth=0.7, linestyle=":", label="exact")
    third.set(xlabel="Trotter steps", ylabel="mean <Z>, Ising model", xticks=steps)
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
        values = dict(_alone(rows))
        fidelity = np.exp(-values["all"])
        places = np.arange(len(names)) + number * height
        ax.barh(
            places, [max(values[name], 0.0) for name in names], height * 0.95, color=COLOURS[number],
            label=f"{circuit}: F = {fidelity:.2f}",
        )  # fmt: skip
    ax.set_yticks(np.arange(len(names)) + height * (len(budgets) - 1) / 2, names)
    ax.invert_yaxis()
    largest = [max(dict(_alone(rows))[name] for rows in budgets.values()) for name in names]
    for place, value in enumerate(largest):
        if value < _LEAST_LOSS:
            middle = place + height * (len(budgets) - 1) / 2
            ax.text(1.1 * _LEAST_LOSS, middle, f"below {_LEAST_LOSS:g}", va="center", fontsize="x-small")
    ax.set(xscale="log", xlim=(_LEAST_LOSS, 1.0))
    ax.set_xlabel(
        "loss of fidelity, -ln F, by one source of error alone\n"
        "(triplet, switching and exchange spread: what each adds to the bar of the hold)"
    )
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.2))
    ax.grid(True, axis="x", alpha=0.4)
    return figure


def draw_region(found: dict[str, Any]) -> Figure:
    """Draw the error of a cycle over J, and over T2 and the triplet's lifetime at the best J, with what is needed."""
    from matplotlib.colors import LogNorm
    from matplotlib.lines import Line2D

    study, scan = found["study"], found["exchange"]
    rates, t2, lifetime = sorted(study["error_rates"]), study["t2_ns"], study["lifetime_ns"]
    looks = dict(zip(rates, itertools.cycle(("solid", "dashed", "dotted", "dashdot")), strict=False))
    figure, (first, second) = new_figure("page", 0.45, 1, 2)
    for own, errors, marker in zip(scan["t2_ns"], scan["cycle"], "os", strict=True):
        first.plot(scan["j_cm1"], errors, marker=marker, markersize=2.2, linewidth=0.8, label=f"T2 = {1e-3 * own:g} µs")
    for rate in rates:
        first.axhline(rate, color="black", linewidth=1.0, linestyle=looks[rate])
    first.set(xscale="log", yscale="log", xlabel="exchange with the triplet J (cm$^{-1}$)",
              ylabel="error of a cycle (gate and rotations)")  # fmt: skip
    first.set_title(f"lifetime {1e-3 * lifetime[-1]:g} µs", fontsize="small")
    first.legend(loc="upper right")
    values = np.array(found["region"]["cycle"]).min(axis=-1).T  # lifetime, T2
    norm = LogNorm(float(values.min()), float(values.max()))
    mesh = second.pcolormesh(cell_edges(t2), cell_edges(lifetime), values, norm=norm, cmap="cividis_r")
    for level, line in looks.items():
        if values.min() < level < values.max():
            second.contour(t2, lifetime, np.log10(values), levels=[np.log10(level)], colors="black", linewidths=1.0,
                           linestyles=line)  # fmt: skip
    points = [row for row in found["region"]["smallest"] if row["J"] is not None]
    for row in points:
        place = row["T2 (ns)"], row["lifetime (ns)"]
        second.plot(*place, marker="o", color="white", markeredgecolor="black", markersize=4.5, linestyle="")
        second.annotate(f"J = {row['J']:g}", place, (-5, 3), textcoords="offset points", fontsize="x-small", ha="right",
                        bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.8, "linewidth": 0})  # fmt: skip
    second.set(xscale="log", yscale="log", xlabel="T2 of the radicals (ns)", ylabel="lifetime of the triplet (ns)")
    second.set_title("best J of the axis", fontsize="small")
    figure.colorbar(mesh, ax=second, label="error of a cycle")
    handles = [
        Line2D([], [], color="black", linestyle=looks[rate], linewidth=1.1, label=f"error {rate:g}") for rate in rates
    ]
    if points:
        handles.append(Line2D([], [], color="white", marker="o", markeredgecolor="black", markersize=4.5,
                              linestyle="", label="needed together"))  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


_SWEPT = {
    "j_relative": "spread of J (relative)",
    "g": "spread of g",
    "offset_mhz": "spread of the resonance (MHz)",
    "isc_logit": "spread of ln(y / (1 - y)), y: yield",
    "dead": "share of dead couplers",
}


def draw_disorder(found: dict[str, Any]) -> Figure:
    """Draw the mean fidelity of a GHZ state with the spread over networks, against the size of each disorder."""
    rows, shape = found["disorder"], found["study"]["disorder_shape"]
    quantities = list(dict.fromkeys(row["disorder"] for row in rows))
    figure, axes = new_figure("page", 0.3 * -(-len(quantities) // 2), -(-len(quantities) // 2), 2, sharey=True)
    for ax, quantity in zip(np.ravel(axes), quantities, strict=False):
        here = [row for row in rows if row["disorder"] == quantity]
        kinds = list(dict.fromkeys((row["calibrated"], row["by frequency"]) for row in here))
        for (calibrated, by_frequency), marker in zip(kinds, "osD^", strict=False):
            kind = (calibrated, by_frequency)
            points = [row for row in here if (row["calibrated"], row["by frequency"]) == kind and row["fidelity"]]
            sizes, values, bars = (
                [row[key] for row in points if row["size"]] for key in ("size", "fidelity", "spread")
            )  # fmt: skip
            ax.errorbar(sizes, values, bars, marker=marker, label=_kind(quantity, calibrated, by_frequency))
        ax.axhline(here[0]["fidelity"], color="0.5", linewidth=0.7, linestyle=":", label="molecules alike")
        for row in here:
            if row["not possible"]:
                reason = "cut apart" if quantity == "dead" else "too near"
                text = f"{row['not possible']} of {row['networks']}\n{reason}"
                ax.annotate(text, (row["size"], 0.02), ha="center", va="bottom", fontsize="x-small")
        if quantity == "dead":
            ax.set_xlim(0, 1.15 * max(row["size"] for row in here))
        else:
            ticks = sorted({row["size"] for row in here if row["size"]})
            ax.set_xscale("log")
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
        ax.set(xlabel=_SWEPT[quantity], ylim=(0, 1.45 * max(row["fidelity"] or 0.0 for row in rows)))
        ax.legend(loc="upper right", fontsize="x-small", ncols=2)
    for ax in np.ravel(axes)[len(quantities) :]:
        ax.axis("off")
    for ax in np.reshape(axes, (-1, 2))[:, 0]:
        ax.set_ylabel(f"fidelity of the GHZ state, {shape[0] * shape[1]} radicals", fontsize="small")
    return figure


def _kind(quantity: str, calibrated: bool, by_frequency: bool) -> str:
    if by_frequency:
        return "radicals told apart by frequency"
    own = {"j_relative": "hold", "isc_logit": "light"}.get(quantity)
    if own is None:
        return "drawn networks"
    return f"{own} of each coupler its own" if calibrated else f"{own} as without disorder"


def draw_codes(found: dict[str, Any]) -> Figure:
    """Draw the logical error per round of each code against the scale of all errors, with 95 % intervals."""
    rows = found["codes"]
    figure, axes = new_figure("page", 0.45, 1, 2, sharey=True)
    for ax, code, bare, label in (
        (axes[0], "repetition", "flip of one radical left alone", "one radical, T1 alone"),
        (axes[1], "surface", "phase flip of one radical left alone", "one radical, T2 alone"),
    ):
        here = [row for row in rows if row["code"] == code]
        limited = sorted({row["distance"] for row in here if not row["failures"]})
        distances = sorted({row["distance"] for row in here})
        for distance, colour, marker in zip(distances, COLOURS, "osD^v", strict=False):
            points = [row for row in here if row["distance"] == distance]
            seen = [row for row in points if row["failures"]]
            none = [row for row in points if not row["failures"]]
            middle = np.array([row["error per round"] for row in seen])
            low, high = (np.array([row[f"95 % {side}"] for row in seen]) for side in ("low", "high"))
            bars = [np.maximum(middle - low, 0), np.maximum(high - middle, 0)]
            scales = [row["scale"] for row in seen]
            ax.errorbar(scales, middle, bars, color=colour, marker=marker, linestyle="-", label=f"distance {distance}")
            if none:
                place = limited.index(distance) - (len(limited) - 1) / 2
                shift = _SHIFT ** (place or 0.5)  # never on the points of another distance
                limits = np.array([row["95 % high"] for row in none])
                places = [shift * row["scale"] for row in none]
                ax.errorbar(places, limits, 0.45 * limits, uplims=True, color=colour, marker="", linestyle="")
        alone = {row["scale"]: row[bare] for row in here}
        ax.plot([*alone], [*alone.values()], color="0.5", linestyle=":", label=label)
        if any(not row["failures"] for row in here):
            ax.plot([], [], color="black", marker="$\\downarrow$", markersize=7, linestyle="",
                    label="no failure seen: 95 % limit")  # fmt: skip
        ax.set(
            xscale="log", yscale="log", xlabel="errors relative to those assumed", title=f"{code} code",
            ylim=(1e-6, 3.0),
        )  # fmt: skip
        ax.grid(True, alpha=0.4)
        ax.legend(loc="upper left")
    axes[0].set_ylabel("logical error per round")
    return figure
