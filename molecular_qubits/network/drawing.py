"""Figures of a network, its light and its schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.network import addressing
from molecular_qubits.network.optics import line_shape, triplet_probability, wavenumber_cm1
from molecular_qubits.network.schedule import Schedule
from molecular_qubits.spins.operators import FloatArray
from shared.plotting import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

    from molecular_qubits.network.lattice import MolecularNetwork

_MARKERS = "os^DvPX"
_NICE = np.array([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
_FAINTEST = 1e-8  # probability of stray light below which nothing is drawn


_LONGEST_NUMBERED = 10.5  # extent over the shortest bond; beyond it there is no room for the numbers of the radicals


def _wavelength_scale(network: MolecularNetwork) -> tuple[Colormap, Normalize]:
    """Return the colours of the wavelengths of the living couplers, without turbo's ends, which are almost black."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, Normalize

    nm = [bond.absorption_nm for bond in network.bonds if bond.alive] or [0.0]
    low, high = min(nm), max(nm)
    return ListedColormap(colormaps["turbo"](np.linspace(0.07, 0.95, 256))), Normalize(
        low, high if high > low else low + 1
    )


def wavelength_colours(network: MolecularNetwork) -> list[str]:
    """Return the colour of each coupler's wavelength, ``#rrggbb``; the same in every picture of the network."""
    from matplotlib.colors import to_hex

    colours, norm = _wavelength_scale(network)
    return [to_hex(colours(norm(bond.absorption_nm))) for bond in network.bonds]


def draw_network(network: MolecularNetwork, lit: Sequence[int] = (), spot_on: int | None = None) -> Figure:
    """Draw the network with its wavelengths and a spot to scale, the absorption lines, and the crosstalk.

    Parameters
    ----------
    network
        The network; it needs couplers.
    lit
        Couplers drawn bright.
    spot_on
        Coupler on which the spot is drawn; that nearest to the middle by default.
    """
    if not network.bonds:
        raise ValueError("Argument `network` must have couplers, but has none.")
    figure, axes = new_figure("page", aspect=0.42, ncols=3, width_ratios=[1.5, 1, 1])
    draw_map(axes[0], network, lit, spot_on)
    axes[0].set_title("a", loc="left", fontweight="bold")
    _draw_lines(axes[1], network)
    _draw_crosstalk(axes[2], network)
    return figure


def draw_map(axes: Axes, network: MolecularNetwork, lit: Sequence[int] = (), spot_on: int | None = None) -> None:
    """Draw radicals by molecule, couplers by wavelength, dead ones dotted, the spot and a scale bar."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    places, middles = network.positions_nm, network.bond_positions_nm
    ends = places[np.array([bond.sites for bond in network.bonds])]
    alive = np.array([bond.alive for bond in network.bonds])
    nm = np.array([bond.absorption_nm for bond in network.bonds])
    width = np.where(np.isin(np.arange(len(nm)), list(lit)), 4.0, 1.8)
    colours, norm = _wavelength_scale(network)
    lines = LineCollection(
        list(ends[alive]), array=nm[alive], cmap=colours, norm=norm, linewidths=width[alive], zorder=2
    )  # fmt: skip
    drawn = axes.add_collection(lines)
    dead = LineCollection(
        list(ends[~alive]), colors="0.6", linewidths=1.2, linestyles=":", zorder=1, label="dead coupler"
    )
    if np.any(~alive):
        axes.add_collection(dead)
    kinds = list(dict.fromkeys(site.molecule for site in network.sites))
    extent = float(np.ptp(places, axis=0).max())
    numbered = extent <= _LONGEST_NUMBERED * np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).min()
    size = 85.0 if numbered else float(np.clip(2600 / network.n_sites, 6, 60))
    for kind, marker, colour in zip(kinds, cycle(_MARKERS), cycle(("white", *COLOURS[:5])), strict=False):
        chosen = np.array([site.molecule == kind for site in network.sites])
        axes.scatter(places[chosen, 0], places[chosen, 1], s=size, marker=marker, facecolor=colour, edgecolor="black",
                     linewidth=0.7, zorder=3, label=kind)  # fmt: skip
        for site in np.flatnonzero(chosen) if numbered else ():
            ink, (x, y) = "black" if colour == "white" else "white", places[site]
            axes.text(x, y, str(site), ha="center", va="center_baseline", fontsize=5.5, color=ink, zorder=4)
    if spot_on is None:
        spot_on = int(np.argmin(np.linalg.norm(middles - places.mean(axis=0), axis=1) + 1e9 * ~alive))
    spot = network.optics.spot_nm(network.bonds[spot_on].absorption_nm)
    axes.set_aspect("equal")
    margin = 0.12 * extent + 0.3 * float(np.linalg.norm(ends[0, 0] - ends[0, 1]))
    low, high = places.min(axis=0) - margin, places.max(axis=0) + margin
    label = f"spot, {spot:.3g} nm wide"
    if spot / 2 < 1.5 * extent:
        drawing = {"facecolor": "0.5", "alpha": 0.18, "edgecolor": "black", "linestyle": "--", "linewidth": 0.8}
        axes.add_patch(Circle(middles[spot_on], spot / 2, zorder=0, label=label, **drawing))
    else:
        axes.text(0.5, 1.0, f"the spot ({spot:.3g} nm) covers everything", transform=axes.transAxes, ha="center",
                  va="top", fontsize="x-small")  # fmt: skip
    bar = float(_NICE[max(extent / 3, _NICE[0]) >= _NICE][-1])
    left, bottom = low[0], low[1] - 0.05 * extent
    axes.plot([left, left + bar], [bottom] * 2, color="black", linewidth=2, linestyle="-", solid_capstyle="butt")
    axes.text(left + bar / 2, bottom - 0.02 * extent, f"{bar:g} nm", ha="center", va="top", fontsize="small")
    axes.set(xlim=(low[0], high[0]), ylim=(bottom - 0.14 * extent - 0.2 * margin, high[1]))
    axes.axis("off")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, fontsize="x-small", handletextpad=0.3)
    figure = axes.get_figure()
    assert figure is not None
    bar_axes = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.01)
    bar_axes.set_label("absorption of the coupler (nm)")


def _draw_lines(axes: Axes, network: MolecularNetwork) -> None:
    """Draw the absorption of each class for a pulse of the network's length."""
    colours = dict(zip(network.bonds, wavelength_colours(network), strict=True))
    classes = {bond.wavelength_class: bond for bond in network.bonds if bond.alive}
    nm = np.array([bond.absorption_nm for bond in classes.values()])
    span = float(np.ptp(nm)) or 50.0
    grid = np.linspace(nm.min() - 0.15 * span, nm.max() + 0.15 * span, 4000)
    for bond in classes.values():
        shape = line_shape(
            wavenumber_cm1(grid) - wavenumber_cm1(bond.absorption_nm),
            bond.linewidth_cm1,
            pulse_ns=network.optics.pulse_ns,
            huang_rhys=bond.huang_rhys,
            vibration_cm1=bond.vibration_cm1,
        )
        axes.plot(grid, shape / shape.max(), color=colours[bond], linewidth=0.9, linestyle="-")
    axes.set(xlabel="wavelength (nm)", ylabel="absorption of a pulse (arb. units)", ylim=(0, 1.18))
    axes.text(0.5, 0.98, f"{len(classes)} classes, {addressing.available_classes(network)} fit the range",
              transform=axes.transAxes, ha="center", va="top", fontsize="x-small")  # fmt: skip
    axes.set_title("b", loc="left", fontweight="bold")


def _draw_crosstalk(axes: Axes, network: MolecularNetwork) -> None:
    """Draw the crosstalk of all pairs against their distance, and what one wavelength for all would give."""
    found = addressing.crosstalk(network)
    middles = network.bond_positions_nm
    distance = np.linalg.norm(middles[:, None] - middles[None, :], axis=-1)
    kinds = np.array([bond.wavelength_class for bond in network.bonds])
    same = kinds[:, None] == kinds[None, :]
    apart = ~np.eye(len(kinds), dtype=bool) & np.array([bond.alive for bond in network.bonds])[None, :]
    reach = np.linspace(0.0, 1.05 * float(distance.max()), 200)
    first, optics = network.bonds[0], network.optics
    dose = addressing.doses(network)[0] * optics.profile(reach, first.absorption_nm)
    alike = triplet_probability(dose, optics.pulse_ns, first.isc_time_ns, first.isc_yield)
    axes.plot(reach, alike, color="0.55", linewidth=0.9, linestyle="-", label="one wavelength for all")
    lowest = optics.crosstalk_limit
    for chosen, label, marker, colour in (
        (apart & ~same, "other class", ".", COLOURS[0]),
        (apart & same, "same class", "x", COLOURS[1]),
    ):
        chosen = chosen & (found > _FAINTEST)
        if np.any(chosen):
            axes.scatter(distance[chosen], found[chosen], s=9, marker=marker, linewidth=0.7, color=colour, label=label)
            lowest = min(lowest, float(found[chosen].min()))
    axes.axhline(optics.crosstalk_limit, color="black", linewidth=0.8, linestyle="--", label="limit")
    axes.set(yscale="log", ylim=(lowest / 3, 3), xlabel="distance (nm)", ylabel="stray triplet probability")
    axes.legend(fontsize="x-small", loc="upper right", bbox_to_anchor=(1.0, 0.85), frameon=True, edgecolor="none")
    axes.set_title("c", loc="left", fontweight="bold")


def draw_schedule(schedule: Schedule, network: MolecularNetwork) -> Figure:
    """Draw when each site that is used is turned, coupled and read."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Patch, Rectangle

    used = sorted({site for operation in schedule.operations for site in operation.sites} | {*schedule.initial_sites})
    row = {site: k for k, site in enumerate(used)}
    figure, axes = new_figure("page", aspect=float(np.clip(0.1 + 0.03 * len(used), 0.2, 0.7)))
    styles = {"rotation": ("microwave rotation", COLOURS[0]), "coupler": ("lit coupler", COLOURS[1]),
              "measure": ("readout", "0.7")}  # fmt: skip
    total = schedule.duration_ns or 1.0
    boxes: dict[str, list[Any]] = {name: [] for name in styles}
    for operation in schedule.operations:
        if operation.name not in styles:
            continue
        length = max(operation.duration_ns, total / 500)
        for site in operation.sites:
            boxes[operation.name].append(Rectangle((operation.start_ns, row[site] - 0.38), length, 0.76))
        if operation.name == "coupler":
            ends = [row[site] for site in operation.sites]
            axes.plot([operation.start_ns + length / 2] * 2, ends, color=COLOURS[1], linewidth=1.0, linestyle="-")
    for name, (_, colour) in styles.items():
        axes.add_collection(PatchCollection(boxes[name], facecolor=colour, edgecolor="white", linewidth=0.2))
    handles = [Patch(color=colour, label=label) for name, (label, colour) in styles.items() if boxes[name]]
    axes.set(xlim=(0, total), ylim=(len(used) - 0.4, -0.6), xlabel="time (ns)", ylabel="site")
    step = 1 + len(used) // 25
    axes.set_yticks(range(0, len(used), step), [str(site) for site in used[::step]])
    axes.legend(handles=handles, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def draw_classes(
    spacings_nm: FloatArray, needed: Mapping[str, Sequence[int]], available: int, n_couplers: int
) -> Figure:
    """Draw how many wavelengths a lattice needs against its spacing, for several kinds of spots.

    Parameters
    ----------
    spacings_nm
        (k,).
    needed
        Number of classes for each spacing, by the label of the spot.
    available
        How many wavelengths there are.
    n_couplers
        Couplers of the lattice: no more classes can be needed.
    """
    figure, axes = new_figure("column", aspect=0.75)
    for (label, counts), marker in zip(needed.items(), "os^D", strict=False):
        axes.plot(spacings_nm, counts, marker=marker, label=label)
    axes.axhline(available, color="grey", linewidth=0.8, linestyle="--", label=f"{available} lines fit the range")
    axes.axhline(n_couplers, color="grey", linewidth=0.8, linestyle=":", label=f"all {n_couplers} couplers")
    axes.set(xscale="log", yscale="log", xlabel="spacing of the radicals (nm)", ylabel="wavelength classes needed")
    axes.legend(fontsize="x-small")
    return figure
