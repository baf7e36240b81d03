"""The predicted gate fidelity against the exchange with the lit coupler, and the ranking with its error bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.control.switched_gate import GateConditions, best_hold, predict_gate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from molecular_qubits.screening.run import ScreenedCandidate

MOST_ROWS = 30
"""Candidates in the figure of a ranking."""

JITTERS_NS = (1e-2, 1e-3, 1e-4)


def fidelity_curves(
    j_on_cm1: np.ndarray, conditions: GateConditions, jitters_ns: Sequence[float] = JITTERS_NS
) -> dict[float, np.ndarray]:
    """Return the fidelity (n,) of each jitter at couplings (n,) with a perfectly dark coupler."""
    return {
        jitter: np.array([best_hold(j, 0.0, conditions.model_copy(update={"jitter_ns": jitter}))[0] for j in j_on_cm1])
        for jitter in jitters_ns
    }


def draw_fidelities(
    j_on_cm1: np.ndarray,
    curves: dict[float, np.ndarray],
    conditions: GateConditions,
    candidates_cm1: Sequence[float] = (),
) -> Figure:
    """Draw the curves, the value of local rotations, and |J| of candidates as ticks."""
    from shared.plotting import new_figure

    figure, axes = new_figure("column", aspect=0.75)
    for jitter, values in curves.items():
        label = f"{jitter * 1e3:g} ps" if jitter >= 1e-3 else f"{jitter * 1e6:g} fs"
        axes.plot(j_on_cm1, values, label=f"jitter {label}")
    floor = predict_gate(1.0, 0.0, on_error_cm1=0, off_error_cm1=0, conditions=conditions).floor
    axes.axhline(floor, color="0.5", linewidth=0.8, label="local rotations alone")
    if len(candidates_cm1):
        axes.plot(np.abs(candidates_cm1), np.full(len(candidates_cm1), 0.42), "|", color="0.5", label="candidates")
    axes.set(xscale="log", xlabel="|J| with the lit coupler (cm$^{-1}$)", ylabel="gate fidelity", ylim=(0.4, 1))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.06))
    return figure


def draw_ranking(candidates: Sequence[ScreenedCandidate]) -> Figure:
    """Draw |J| with lit and with dark coupler and the fidelity of the best candidates, with error bars, best on top.

    Parameters
    ----------
    candidates
        By rank; those without a prediction are left out, and so are those behind the first `MOST_ROWS`.
    """
    from shared.plotting import COLOURS, new_figure

    shown = [row for row in candidates if row.rank is not None][:MOST_ROWS]
    if not shown:
        raise ValueError("Argument `candidates` must hold at least one with a rank, but has none.")
    height = 0.9 + 0.19 * len(shown)
    figure, (left, right) = new_figure("page", aspect=height / 7.0, ncols=2, sharey=True, width_ratios=(1.15, 1.0))
    places = -np.arange(len(shown), dtype=float)
    for shift, marker, colour, label, couplings in (
        (0.14, "o", COLOURS[0], "coupler lit", [row.on for row in shown]),
        (-0.14, "s", COLOURS[1], "coupler dark", [row.off for row in shown]),
    ):
        size = np.array([abs(c.j_cm1) if c else np.nan for c in couplings])
        error = np.array([c.error_cm1 if c else np.nan for c in couplings])
        resolved = size > error  # otherwise an upper bound
        left.errorbar(size[resolved], (places + shift)[resolved], xerr=error[resolved], fmt=marker, color=colour,
                      markersize=3, linewidth=0.8, label=label)  # fmt: skip
        bounds = (size + error)[~resolved]
        left.plot(bounds, (places + shift)[~resolved], "<", color=colour, markersize=4, markerfacecolor="none",
                  label=f"{label}, upper bound" if len(bounds) else None)  # fmt: skip
    left.set(xscale="log", xlabel="|J| (cm$^{-1}$)", ylim=(places[-1] - 0.6, 0.6))
    left.set_yticks(places, [row.candidate.name for row in shown], fontsize="x-small")
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize="x-small")
    fidelity = np.array([row.fidelity for row in shown], dtype=float)
    errors = np.minimum(np.array([row.fidelity_error or 0.0 for row in shown]), np.array([fidelity, 1 - fidelity]))
    right.errorbar(fidelity, places, xerr=errors, fmt="o", color=COLOURS[2], markersize=3, linewidth=0.8)
    floor = shown[0].fidelity_floor
    if floor is not None:
        right.axvline(floor, color="0.5", linewidth=0.8, linestyle="--", label="local rotations alone")
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize="x-small")
    right.set(xlabel="predicted gate fidelity", xlim=(0, 1))
    for axes in (left, right):
        axes.grid(axis="x", linewidth=0.4)
    return figure
