"""The predicted gate fidelity against the exchange with the lit coupler, for several jitters, with candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.control.switched_gate import GateConditions, best_hold, predict_gate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
