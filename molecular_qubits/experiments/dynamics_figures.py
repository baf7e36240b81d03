"""Figures of the dynamics experiment; each function returns a matplotlib figure and is called inside a style."""

from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.experiments.dynamics import (
    DynamicsConfig,
    build_unit,
    measured_populations,
    quintet_kets,
    rotated_concurrence,
)
from molecular_qubits.experiments.dynamics_tables import QUINTETS, quintet_over_zeeman
from molecular_qubits.spins.trajectory import Trajectory
from shared.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAST_NS = 3e4


def draw_switching(config: DynamicsConfig, trajectories: dict[str, Trajectory]) -> "Figure":
    """Draw the levels of the coupler, the sublevels of the quintet and the concurrence against time."""
    figure, axes = new_figure(width="column", aspect=1.55, nrows=3, sharex=True)
    unit = build_unit(config)
    lit = trajectories["lit"]
    shown = (lit.times_ns > 0) & (lit.times_ns <= LAST_NS)
    times = lit.times_ns[shown]
    for axis, letter in zip(axes, "abc", strict=True):
        axis.axvspan(times[0], config.pulse_duration_ns, color="grey", alpha=0.25, linewidth=0)
        axis.text(-0.17, 1.0, f"({letter})", transform=axis.transAxes, va="top")
    for level, label in (("S0", "$S_0$"), ("S1", "$S_1$"), ("T", "$T$")):
        axes[0].plot(times, lit.expectation(unit.level_projector(level))[shown], label=label)
    sublevels = lit.populations(quintet_kets(unit))[shown]
    axes[0].plot(times, sublevels.sum(axis=1), label="quintet")
    axes[0].set(ylabel="population", ylim=(0, 1.05))
    axes[0].legend(loc="center", bbox_to_anchor=(0.57, 0.5))
    share = sublevels / sublevels.sum(axis=1, keepdims=True)
    measured = measured_populations()
    for magnetic, index, colour in ((0, 2, COLOURS[0]), (1, 1, COLOURS[1]), (2, 0, COLOURS[2])):
        mean = (share[:, index] + share[:, 4 - index]) / 2
        axes[1].plot(times, mean, color=colour, label=f"|$M$| = {magnetic}" if magnetic else "$M$ = 0")
        axes[1].axhline(measured[index], color=colour, linestyle=":", linewidth=0.9)
    axes[1].set(ylabel="share of the quintet", ylim=(-0.02, 0.58))
    axes[1].legend(loc="upper right", ncols=3, columnspacing=1.0, handlelength=1.6)
    labels = {"lit": "lit", "measured": "measured\nquintet", "unselective": "equal\nsublevels", "dark": "dark"}
    for (name, label), width in zip(labels.items(), (1.6, 1.3, 1.9, 1.3), strict=True):
        axes[2].plot(times, trajectories[name].concurrence()[shown], label=label, linewidth=width, clip_on=False)
    top = max(0.1, *(float(found.concurrence().max()) for found in trajectories.values()))
    axes[2].set(ylabel="concurrence", xlabel="time after the start of the pulse (ns)")
    axes[2].set(xscale="log", xlim=(times[0], LAST_NS), ylim=(-0.05 * top, 1.2 * top))
    axes[2].legend(loc="center left", bbox_to_anchor=(0.0, 0.42), handlelength=2.2)
    return figure


def draw_angle(config: DynamicsConfig) -> "Figure":
    """Draw the concurrence of the measured quintets against the field angle."""
    figure, axis = new_figure(width="column", aspect=0.65)
    angles = np.linspace(0, 90, 46 if config.fast else 181)
    ratio = quintet_over_zeeman(config)
    for radical, d_over_zeeman, label in (
        ("iminonitroxide", 0.0, "iminonitroxides, strong field"),
        ("iminonitroxide", ratio, f"iminonitroxides, {config.field_tesla:g} T"),
        ("verdazyl", 0.0, "verdazyls, strong field"),
    ):
        populations = measured_populations(QUINTETS[radical])
        axis.plot(angles, [rotated_concurrence(populations, angle, d_over_zeeman) for angle in angles], label=label)
    axis.set(xlabel="angle between field and zero-field axis (degrees)", ylabel="concurrence of the radicals")
    axis.set(xlim=(0, 90), ylim=(-0.003, 0.11), xticks=range(0, 91, 15))
    axis.legend(loc="upper right")
    return figure


def draw_temperature(scan: "dict[str, np.ndarray]") -> "Figure":
    """Draw the largest concurrence and the quintet's share against temperature."""
    figure, axes = new_figure(width="column", aspect=0.95, nrows=2, sharex=True)
    axes[0].plot(scan["temperature_k"], scan["largest"], marker="o", color=COLOURS[0], linestyle="-")
    axes[0].set(ylabel="largest concurrence", ylim=(-0.05 * max(scan["largest"].max(), 0.01), None))
    axes[1].plot(scan["temperature_k"], scan["quintet_share"], marker="o", color=COLOURS[1], linestyle="-")
    axes[1].set(ylabel="quintet share when lit", xlabel="temperature (K)", ylim=(0, 1.08), xscale="log")
    ticks = [5, 10, 20, 50, 100, 200, 300]
    axes[1].set_xticks(ticks, [str(tick) for tick in ticks])
    axes[1].minorticks_off()
    return figure
