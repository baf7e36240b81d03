"""Where the lit triplet entangles the radicals: maps of the largest concurrence over pairs of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.experiments.dynamics import DynamicsConfig, build_channels, build_unit, resolve_j_rt_cm1
from shared.progress import track

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

AXES: dict[str, tuple[tuple[str, Any], tuple[str, Any]]] = {
    "temperature and exchange": (
        ("j_rt_cm1", np.geomspace(1, 300, 9)),
        ("temperature_k", np.geomspace(4, 300, 9)),
    ),
    "field and its angle": (
        ("angle_deg", np.array([0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 13.0, 17.0, 22.0, 35.0, 50.0, 70.0, 90.0])),
        ("field_tesla", np.geomspace(0.003, 3, 9)),
    ),
    "zero-field splitting and lifetime": (
        ("d_t_cm1", np.geomspace(0.003, 0.3, 9)),
        ("triplet_lifetime_ns", np.geomspace(10, 1e5, 9)),
    ),
}
"""Pairs of parameters; all others are those of the configuration."""

LABELS = {
    "j_rt_cm1": "J of radical and triplet (cm$^{-1}$)",
    "temperature_k": "temperature (K)",
    "angle_deg": "field angle to z (degrees)",
    "field_tesla": "field (T)",
    "d_t_cm1": "D of the triplet (cm$^{-1}$)",
    "triplet_lifetime_ns": "lifetime of the triplet (ns)",
}


def entanglement_map(
    config: DynamicsConfig, first: tuple[str, Sequence[float]], second: tuple[str, Sequence[float]]
) -> xarray.Dataset:
    """Return the entanglement of the radicals after the light pulse over two parameters.

    Parameters
    ----------
    config
        All other parameters.
    first, second
        Name and values: a field of `DynamicsConfig`, ``angle_deg`` (of the field to the triplet's z axis) or
        ``triplet_lifetime_ns`` (of all three sublevels).

    Returns
    -------
    xarray.Dataset
        ``concurrence`` (largest up to 3 us after the pulse), ``witness`` (what spin correlators prove of it at that
        time), ``log_negativity`` (at that time), ``radical_triplet`` (largest log-negativity of radical 1 against the
        coupler), ``left`` (concurrence when seven lifetimes have passed and the triplet is gone; NaN if a sublevel does
        not decay).
    """
    import xarray

    (name_1, values_1), (name_2, values_2) = first, second
    points = [{name_1: float(a), name_2: float(b)} for a in values_1 for b in values_2]
    found = entanglement_of(config, points)
    shape = (len(values_1), len(values_2))
    return xarray.Dataset(
        {name: ((name_1, name_2), np.reshape(column, shape)) for name, column in found.items()},
        {name_1: np.asarray(values_1, dtype=float), name_2: np.asarray(values_2, dtype=float)},
    )


def entanglement_of(config: DynamicsConfig, points: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return the entanglement after the light pulse for changes of a configuration; see `entanglement_map`.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        As the variables of `entanglement_map`, and ``at_ns``, the time of the largest concurrence.
    """
    from molecular_qubits.spins.evolution import evolve_sweep
    from molecular_qubits.spins.observables import (
        concurrence,
        correlator_witness,
        log_negativity,
        reduced_state,
        spin_correlators,
    )

    changed = [_changed(config, point) for point in points]
    groups: dict[tuple[tuple[float, ...], tuple[float, ...]], list[int]] = {}
    for number, (each, _) in enumerate(changed):
        groups.setdefault(_times(each), []).append(number)
    names = ("concurrence", "witness", "log_negativity", "radical_triplet", "left", "at_ns")
    found = {name: np.zeros(len(points)) for name in names}
    for (early_ns, late_ns), members in track(list(groups.items()), "entanglement"):
        chosen = [changed[number] for number in members]
        units = [build_unit(each) for each, _ in chosen]
        thermal = [u.thermal_state(each.temperature_k, field) for u, (each, field) in zip(units, chosen, strict=True)]
        baths = [build_channels(each) for each, _ in chosen]
        fields = [field for _, field in chosen]
        runs = evolve_sweep(
            units, thermal.__getitem__, early_ns + late_ns, channels=baths.__getitem__, field_tesla=fields.__getitem__
        )
        for number, run in zip(members, runs, strict=True):
            radicals = run.reduced(("radical_1", "radical_2"))
            values = concurrence(radicals)
            best = int(np.argmax(values[: len(early_ns)]))
            found["concurrence"][number] = values[best]
            found["at_ns"][number] = early_ns[best]
            found["witness"][number] = correlator_witness(spin_correlators(radicals[best]))
            found["log_negativity"][number] = log_negativity(radicals[best])
            pairs = reduced_state(run.states, (2, 5, 2), (0, 1))
            found["radical_triplet"][number] = np.max(log_negativity(pairs, (2, 5), (0,)))
            found["left"][number] = values[-1] if late_ns else np.nan
    return found


def _times(config: DynamicsConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the times looked at: up to 3 us after the pulse, and when seven lifetimes have passed, if ever."""
    pulse = config.pulse_duration_ns
    early = np.unique([0.0, pulse, *(pulse + np.geomspace(1, 3e3, 16))])
    lifetime = _lifetime_ns(config)
    late = (max(pulse + 7 * lifetime, float(early[-1]) + 1.0),) if np.isfinite(lifetime) else ()
    return tuple(early.tolist()), late


def _lifetime_ns(config: DynamicsConfig) -> float:
    """Return the lifetime of the sublevel of the triplet that decays last; infinite without decay."""
    rate = min(config.triplet_decay_rates_per_ns_xyz)
    return 1 / rate if rate else np.inf


def _changed(config: DynamicsConfig, point: dict[str, float]) -> tuple[DynamicsConfig, np.ndarray]:
    point = dict(point)
    angle = np.radians(point.pop("angle_deg", 0.0))
    if "triplet_lifetime_ns" in point:
        rate = 1 / point.pop("triplet_lifetime_ns")
        point["triplet_decay_rates_per_ns_xyz"] = (rate, rate, rate)  # type: ignore[assignment]
    changed = config.model_copy(update=point)
    return changed, changed.field_tesla * np.array([np.sin(angle), 0.0, np.cos(angle)])


def maps(config: DynamicsConfig) -> dict[str, xarray.Dataset]:
    """Return the maps of `AXES`; a fast configuration takes every fourth value of each axis."""
    step = 4 if config.fast else 1
    return {
        title: entanglement_map(config, (first[0], first[1][::step]), (second[0], second[1][::step]))
        for title, (first, second) in AXES.items()
    }


POINTS: dict[str, tuple[tuple[float, str], ...]] = {
    "j_rt_cm1": ((139.0, "|J|/k = 200 K"),),
    "temperature_k": ((77.0, "77 K"),),
    "field_tesla": ((0.34, "X band"),),
    "d_t_cm1": ((0.0114, "C60"), (0.063, "anthracene"), (0.1003, "naphthalene")),
}
"""Measured values of `molecular_qubits/reference/molecular_experiments.json`: the order of |J| in phenylene-linked
excited quartets, the temperature of the EPA glass, the field at 9.5 GHz, |D| of triplets (anthracene: inverted)."""


def draw_maps(found: dict[str, xarray.Dataset], config: DynamicsConfig) -> Figure:
    """Draw each map with contours and measured values: radicals above, radical and triplet below.

    Dashed: the border of what spin correlators alone prove. Dot: the configuration. White lines: measured values.
    """
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure("page", aspect=0.68, ncols=len(found), nrows=2)
    here = {
        "j_rt_cm1": resolve_j_rt_cm1(config)[0], "temperature_k": config.temperature_k, "angle_deg": 0.0,
        "field_tesla": config.field_tesla, "d_t_cm1": config.d_t_cm1,
        "triplet_lifetime_ns": _lifetime_ns(config),
    }  # fmt: skip
    for row, (name, levels, label) in enumerate(
        (
            ("concurrence", [0.005, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12], "largest concurrence, radicals"),
            ("radical_triplet", [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5], "largest log-negativity, radical and triplet"),
        )
    ):
        for axis, data in zip(axes[row], found.values(), strict=True):
            first, second = (str(dim) for dim in data.concurrence.dims)
            x, y, values = data[first], data[second], data[name].T
            drawn = axis.contourf(x, y, values, levels, extend="max", cmap="viridis")
            axis.contour(x, y, values, levels, colors="white", linewidths=0.4)
            if row == 0 and float(data.witness.max()) > 1e-3:
                axis.contour(x, y, data.witness.T, [1e-3], colors=COLOURS[3], linestyles="--", linewidths=1)
            axis.set_ylim(float(y.min()), float(y.max()))
            axis.plot(here[first], here[second], "o", color=COLOURS[1], markersize=4, clip_on=False)
            axis.set(xlabel=LABELS[first] if row else "", ylabel=LABELS[second], yscale="log")
            if first != "angle_deg":
                axis.set_xscale("log")
            for value, text in POINTS.get(first, ()):
                axis.axvline(value, color="grey", linewidth=0.8, linestyle=":")
                place = {"x": value, "y": 0.97, "s": text, "transform": axis.get_xaxis_transform()}
                axis.text(**place, rotation=90, ha="right", va="top", fontsize="xx-small", color="grey")
            for value, text in POINTS.get(second, ()):
                axis.axhline(value, color="grey", linewidth=0.8, linestyle=":")
                place = {"x": 0.98, "y": value, "s": text, "transform": axis.get_yaxis_transform()}
                axis.text(**place, ha="right", va="bottom", fontsize="xx-small", color="grey")
        figure.colorbar(drawn, ax=axes[row].tolist(), label=label)
    return figure


def powder_rows(data: xarray.Dataset) -> list[dict[str, Any]]:
    """Return for each field of the map over field and angle the concurrence along the axis and of a powder: table rows.

    The powder mean is that of the largest concurrences, each at its own time, over directions spread evenly.
    """
    angle = np.radians(data.angle_deg.values)
    weights = np.sin(angle)
    rows = []
    for field in data.field_tesla.values:
        values = data.concurrence.sel(field_tesla=field).values
        mean = float(np.trapezoid(values * weights, angle) / np.trapezoid(weights, angle))
        entangled = np.degrees(angle[values > 1e-9])
        rows.append(
            {
                "field (T)": float(field),
                "concurrence, field along the axis": float(values[0]),
                "powder mean": mean,
                "last angle with any (degrees)": float(entangled[-1]) if entangled.size else None,
            }
        )
    return rows


def summary_rows(found: dict[str, xarray.Dataset]) -> list[dict[str, Any]]:
    """Return for each map the largest values, and the share of it that is entangled: table rows."""
    return [
        {
            "map": title,
            "points": data.concurrence.size,
            "entangled": int((data.concurrence > 1e-9).sum()),
            "proved by correlators": int((data.witness > 1e-9).sum()),
            "largest concurrence": float(data.concurrence.max()),
            "largest log-negativity, radical and triplet": float(data.radical_triplet.max()),
            "largest concurrence left when the triplet is gone": float(data.left.max()),
        }
        for title, data in found.items()
    ]
