"""Figure: spin densities of high-spin and broken-symmetry states side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from molecular_qubits.electronic.broken_symmetry import StateResult
from molecular_qubits.electronic.exchange import ExchangeResult
from molecular_qubits.electronic.spin_density import SpinDensityMap, spin_density_map
from molecular_qubits.structure.molecule import Molecule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def map_spin_densities(result: ExchangeResult, spacing_angstrom: float = 0.15) -> list[SpinDensityMap]:
    """Integrate the spin density of every determinant of a result along the normal of the mean plane.

    Parameters
    ----------
    result
        An exchange result that holds its orbitals.
    spacing_angstrom
        Spacing of the grid.

    Returns
    -------
    list of SpinDensityMap
        One for each state.

    Raises
    ------
    ValueError
        If the result was read from JSON and has no orbitals.
    """
    if len(result.solutions) != len(result.states):
        raise ValueError("Argument `result` must hold its orbitals, but was read from JSON: compute it again.")
    return [
        spin_density_map(
            result.molecule,
            result.settings.basis,
            solution.density,
            spacing_angstrom=spacing_angstrom,
            margin_angstrom=1.8,
        )
        for solution in result.solutions
    ]


class HasStates(Protocol):
    """What the figure reads of a result: the molecule and its determinants."""

    @property
    def molecule(self) -> Molecule:
        """The molecule of the maps."""

    @property
    def states(self) -> tuple[StateResult, ...]:
        """One determinant for each map."""


def draw_spin_densities(result: HasStates, maps: list[SpinDensityMap]) -> Figure:
    """Draw spin-density maps side by side, with bonds and heteroatoms over them.

    Parameters
    ----------
    result
        The exchange result of the maps.
    maps
        One map for each state, from `map_spin_densities`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel for each state, two in a row, with a common colour scale in e/Å², symmetric about zero, linear below
        a tenth of the maximum and logarithmic above.
    """
    from matplotlib import rcParams
    from matplotlib.colors import LinearSegmentedColormap, SymLogNorm

    from shared.plotting import new_figure

    limit = max(float(np.abs(found.values).max()) for found in maps)
    x, y = maps[0].x_angstrom, maps[0].y_angstrom
    n_columns = min(len(maps), 2)
    n_rows = -(-len(maps) // n_columns)
    aspect = n_rows * (0.43 * (y[-1] - y[0]) / (x[-1] - x[0]) + 0.08)
    figure, grid = new_figure(
        width="page", aspect=aspect, nrows=n_rows, ncols=n_columns, sharex=True, sharey=True, squeeze=False
    )
    axes = grid.ravel()
    paper = rcParams["axes.facecolor"]
    colours = LinearSegmentedColormap.from_list("spin", ["#2166ac", "#67a9cf", paper, "#ef8a62", "#b2182b"])
    norm = SymLogNorm(linthresh=limit / 10, vmin=-limit, vmax=limit)
    for axis in axes[len(maps) :]:
        axis.set_visible(False)
    for axis, found, state in zip(axes, maps, result.states, strict=False):
        axis.pcolormesh(
            found.x_angstrom, found.y_angstrom, found.values, cmap=colours, norm=norm, shading="gouraud",
            rasterized=True,
        )  # fmt: skip
        draw_skeleton(axis, result.molecule, found)
        axis.set_title(f"{state.label},  $\\langle S^2\\rangle$ = {state.s2:.2f}")
        axis.set_aspect("equal")
    figure.supxlabel("x (Å)", fontsize=rcParams["axes.labelsize"])
    figure.supylabel("y (Å)", fontsize=rcParams["axes.labelsize"])
    bar = figure.colorbar(axes[0].collections[0], ax=list(axes), shrink=0.9, pad=0.01)
    ticks = [-limit, -limit / 10, 0.0, limit / 10, limit]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    bar.set_label("column spin density (e Å$^{-2}$)")
    return figure


def draw_skeleton(axis: Axes, molecule: Molecule, found: SpinDensityMap) -> None:
    """Draw bonds as lines and atoms other than carbon and hydrogen as letters."""
    from matplotlib import rcParams

    ink, places = rcParams["text.color"], found.atoms_angstrom
    for i, j in molecule.bonds:
        light = "H" in (molecule.symbols[i], molecule.symbols[j])
        axis.plot(*places[[i, j]].T, color=ink, linewidth=0.5 if light else 0.9, linestyle="-", alpha=0.8, zorder=3)
    for symbol, place in zip(molecule.symbols, places, strict=True):
        if symbol not in ("C", "H"):
            axis.text(place[0], place[1], symbol, ha="center", va="center", fontsize=7, fontweight="bold", zorder=4)
