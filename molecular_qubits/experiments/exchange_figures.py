"""Figures of the committed exchange studies: J against torsion, published against computed gaps, method dependence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.experiments import exchange_report as report
from molecular_qubits.experiments.exchange_studies import BASES, FUNCTIONALS
from shared.plotting import COLOURS, COLUMN_WIDTH_IN, PAGE_WIDTH_IN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "*")


def draw_torsion() -> Figure:
    """Draw J_RT of the mono-radical, its thermal mean with the error, and the quartet's energy against the torsion."""
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(COLUMN_WIDTH_IN, 3.8), sharex=True, height_ratios=(3, 2))
    average = report.torsion_average()
    for number, projection in enumerate(report.PROJECTIONS):
        angles, _, couplings = report.torsion_profile(projection=projection)
        keep = angles <= 90
        above.plot(
            angles[keep],
            couplings[keep],
            marker=MARKERS[number],
            markersize=4,
            linewidth=0.9,
            label=projection.capitalize(),
        )
    mean, error = average.mean_cm1, report.mono_error_bar().total_cm1
    above.axhspan(mean - error, mean + error, color="0.5", alpha=0.2, linewidth=0)
    above.axhline(mean, color="0.5", linewidth=0.8, linestyle=":", label=f"mean at 298 K, ±{error:.0f}")
    above.set(ylabel="$J_{RT}$ (cm$^{-1}$)")
    above.legend(loc="upper right")
    for number, (name, label) in enumerate((("uks", "B3LYP/6-31G*"), ("gfn2", "GFN2-xTB"))):
        angles, energies, _ = report.torsion_profile(energy=name)
        keep = angles <= 90
        below.plot(
            angles[keep], energies[keep], marker=MARKERS[number], markersize=4, linewidth=0.9, color=COLOURS[number +
            3], label=label,
        )  # fmt: skip
    below.set(xlabel="torsion of phenyl and anthracene (°)", ylabel="quartet energy (cm$^{-1}$)")
    below.set_ylim(-30, 1200)
    below.legend(loc="upper center")
    return figure


def draw_published(rows: Sequence[dict[str, Any]] | None = None) -> Figure:
    """Draw computed against published gaps of the diradicals, one marker for each functional."""
    from matplotlib import pyplot

    rows = report.diradical_rows() if rows is None else rows
    figure, axes = pyplot.subplots(figsize=(COLUMN_WIDTH_IN, 3.3))
    limit = 0.0
    for number, (xc, colour) in enumerate(zip(report.GAPS, (*COLOURS, "0.5"), strict=True)):
        pairs = np.array([(row["published (cm^-1)"], row[xc]) for row in rows if row[xc] is not None])
        if len(pairs):
            axes.plot(
                pairs[:, 0], pairs[:, 1], marker=MARKERS[number], linestyle="none", markersize=4, label=xc,
                color=colour, markerfacecolor="none" if number % 2 else colour,
            )  # fmt: skip
            limit = max(limit, float(np.abs(pairs).max()))
    limit *= 1.4
    line = np.array([-limit, limit])
    axes.plot(line, line, color="0.5", linewidth=0.8, linestyle="-", zorder=0)
    axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.6, zorder=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.axes.set_xscale("symlog", linthresh=100)
        axis.axes.set_yscale("symlog", linthresh=100)
    axes.set(
        xlabel="published E(singlet) - E(triplet) (cm$^{-1}$)", ylabel="computed, 2J Yamaguchi (cm$^{-1}$)",
        xlim=line, ylim=line,
    )  # fmt: skip
    ticks = [-10000, -1000, -100, 0, 100, 1000, 10000]
    axes.set_xticks(ticks, [_power(x) for x in ticks])
    axes.set_yticks(ticks, [_power(x) for x in ticks])
    axes.set(xlim=line, ylim=line)
    axes.minorticks_off()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)  # inside, its markers look like points
    return figure


def _power(value: float) -> str:
    return "0" if value == 0 else f"{'-' if value < 0 else ''}$10^{{{round(np.log10(abs(value)))}}}$"


def draw_method_grid(study: str = "small-grid") -> Figure:
    """Draw J of the small radical-chromophore by functional, a panel for each torsion, a line for each basis.

    Open markers: a state is held (`exchange_report.is_held`).
    """
    from matplotlib import pyplot

    rows = report.rows_of(study)
    torsions = sorted({row["torsion_degrees"] for row in rows})
    figure, panels = pyplot.subplots(1, len(torsions), figsize=(PAGE_WIDTH_IN, 2.4), sharey=True, squeeze=False)
    for axes, torsion in zip(panels[0], torsions, strict=True):
        for number, basis in enumerate(BASES):
            found = {row["xc"]: row for row in rows if (row["torsion_degrees"], row["basis"]) == (torsion, basis)}
            if not found:
                continue
            values = [report.coupling(found[xc]) if xc in found else np.nan for xc in FUNCTIONALS]
            marker = MARKERS[number]
            (line,) = axes.plot(values, marker=marker, markersize=4, linewidth=0.9, label=basis)
            held = [place for place, xc in enumerate(FUNCTIONALS) if xc in found and report.is_held(found[xc])]
            colours = {"facecolors": "white", "edgecolors": line.get_color()}
            axes.scatter(held, [values[place] for place in held], s=16, marker=marker, zorder=3, **colours)
        axes.set_xticks(range(len(FUNCTIONALS)), FUNCTIONALS, rotation=45, ha="right")
        axes.set_xlim(-0.4, len(FUNCTIONALS) - 0.6)
        axes.set_title(f"torsion {torsion:g}°")
        axes.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    panels[0][0].set_ylabel("$J_{RT}$ (cm$^{-1}$), Yamaguchi")
    panels[0][-1].legend()
    return figure
