"""Microwave pulses on two radicals: how far they can be told apart, and an entangling gate with its pulse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.control.fidelity import decay_bound, target_gate
from molecular_qubits.control.pulses import ControlProblem, OptimisedPulse, optimise_pulse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T1_NS, T2_NS = 1e5, 2.1e3
"""Relaxation of each radical: T2 is the Tm of the tpPDI-BDPA quartet, T1 is assumed."""

MAX_RAD_PER_NS = 0.3
"""Largest amplitude: a pi/2 pulse of 5 ns."""


def two_radicals(difference_mhz: float, j_cm1: float = 0.0) -> ControlProblem:
    """Return two radicals in one microwave field, in the frame of their mean frequency.

    Parameters
    ----------
    difference_mhz
        Difference of their frequencies, from g (4.8 MHz for 1e-3 at 0.34 T), hyperfine fields or a field gradient.
    j_cm1
        Their exchange, H = -2 J S1.S2.
    """
    from molecular_qubits.spins.channels.relaxation import RadicalRelaxation
    from molecular_qubits.spins.system import SpinSystem
    from molecular_qubits.units import CM1_TO_RAD_PER_NS

    names = ("radical_1", "radical_2")
    system = SpinSystem((0.5, 0.5), names=names)
    first, second = system.spin(0), system.spin(1)
    static = 2e-3 * np.pi * difference_mhz / 2 * (first[2] - second[2])
    static = static - 2 * j_cm1 * CM1_TO_RAD_PER_NS * np.einsum("aij,ajk->ik", first, second)
    jumps = [RadicalRelaxation(name, T1_NS, 300.0, T2_NS).jumps(system, 0.34) for name in names]
    return ControlProblem(static[None], (first + second)[:2], (2, 2), jumps=np.concatenate(jumps))


def addressing_rows(
    differences_mhz: Sequence[float] = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0), duration_ns: float = 50.0
) -> list[dict[str, Any]]:
    """Return for each difference of frequencies the best fidelity of a NOT on one radical alone: table rows."""
    flip = np.kron([[0, 1], [1, 0]], np.eye(2)).astype(complex)
    rows = []
    for difference in differences_mhz:
        pulse = optimise_pulse(
            two_radicals(difference), flip, duration_ns, 50, max_rad_per_ns=MAX_RAD_PER_NS, iterations=120
        )
        rows.append(
            {
                "difference (MHz)": difference,
                "duration (ns)": duration_ns,
                "fidelity": pulse.fidelity,
                "bound from T1 and T2": decay_bound(duration_ns, T1_NS, T2_NS),
            }
        )
    return rows


def entangling_pulse(
    duration_ns: float = 60.0, difference_mhz: float = 40.0, j_cm1: float = 5e-4, bandwidth_ghz: float = 0.2
) -> OptimisedPulse:
    """Return a pulse with limited power and bandwidth for a CZ up to local rotations, under relaxation."""
    problem = two_radicals(difference_mhz, j_cm1)
    return optimise_pulse(
        problem, target_gate("cz"), duration_ns, 60, max_rad_per_ns=MAX_RAD_PER_NS, bandwidth_ghz=bandwidth_ghz,
        up_to_local=True, iterations=100,
    )  # fmt: skip


def draw_pulse(pulse: OptimisedPulse) -> Figure:
    """Draw the amplitudes of a pulse, and how the optimiser came to it, with the bound from the decay rates."""
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure("page", aspect=0.38, ncols=2)
    slices = len(pulse.amplitudes_rad_per_ns)
    edges = np.linspace(0, pulse.duration_ns, slices + 1)
    for control, label in enumerate(("x", "y")):
        axes[0].stairs(pulse.amplitudes_rad_per_ns[:, control], edges, baseline=None, label=f"along {label}")
    axes[0].set(xlabel="time (ns)", ylabel="amplitude (rad/ns)")
    axes[0].legend(loc="best")
    axes[1].plot(1 - np.array(pulse.history), label="optimiser")
    bound = 1 - decay_bound(pulse.duration_ns, T1_NS, T2_NS)
    axes[1].axhline(bound, color=COLOURS[1], linestyle="--", label="bound from T1 and T2")
    axes[1].set(xlabel="iteration", ylabel="1 - average gate fidelity", ylim=(0, None))
    axes[1].legend()
    return figure
