"""Figure: how the fields of an exchange calculation converged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.electronic.exchange import ExchangeResult
from molecular_qubits.units import HARTREE_TO_CM1
from shared.plotting import COLOURS, COLUMN_WIDTH_IN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_convergence(result: ExchangeResult) -> Figure:
    """Draw energy above the end and norm of the gradient against the cycle, a line for each state.

    Raises
    ------
    ValueError
        If no state has a history.
    """
    from matplotlib import pyplot

    if not any(state.history for state in result.states):
        raise ValueError("Argument `result` must hold the history of its states, but was computed without.")
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(COLUMN_WIDTH_IN, 3.8), sharex=True)
    for number, state in enumerate(result.states):
        history = np.array(state.history).reshape(-1, 2)
        cycles = np.arange(1, len(history) + 1)
        energies = np.abs(history[:, 0] - state.energy_hartree) * HARTREE_TO_CM1
        style = {"marker": ".", "linewidth": 0.9, "color": COLOURS[number % len(COLOURS)], "label": state.label}
        above.plot(cycles, np.maximum(energies, 1e-3), **style)
        below.plot(cycles, history[:, 1], **style)
    above.set(yscale="log", ylabel="|E - E(end)| (cm$^{-1}$)")
    below.set(yscale="log", ylabel="norm of the gradient (a.u.)", xlabel="cycle")
    above.legend()
    return figure
