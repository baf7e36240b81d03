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
        ("angle_deg", np.linspace(0, 90, 10)),
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
    "angle_deg": "angle of the field to the triplet's z (degrees)",
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
        coupler), ``left`` (concurrence when seven lifetimes have passed and the triplet is gone).
    """
    import xarray

    from molecular_qubits.spins.evolution import evolve_sweep
    from molecular_qubits.spins.observables import (
        concurrence,
        correlator_witness,
        log_negativity,
        reduced_state,
        spin_correlators,
    )

    (name_1, values_1), (name_2, values_2) = first, second
    points = [{name_1: float(a), name_2: float(b)} for a in values_1 for b in values_2]
    found: dict[str, list[float]] = {
        name: [] for name in ("concurrence", "witness", "log_negativity", "radical_triplet", "left")
    }
    for point in track(points, f"{name_1} x {name_2}"):
        changed, field = _changed(config, point)
        unit = build_unit(changed)
        lifetime = 1 / min(changed.triplet_decay_rates_per_ns_xyz)
        pulse = changed.pulse_duration_ns
        times = np.unique([0.0, pulse, *(pulse + np.geomspace(1, 3e3, 16)), pulse + 7 * lifetime])
        (run,) = evolve_sweep(
            [unit],
            unit.thermal_state(changed.temperature_k, field),
            times,
            channels=build_channels(changed),
            field_tesla=field,
        )
        radicals = run.reduced(("radical_1", "radical_2"))
        values = concurrence(radicals)
        early = values[times <= pulse + 3e3]
        best = int(np.argmax(early))
        found["concurrence"].append(float(early[best]))
        found["witness"].append(float(correlator_witness(spin_correlators(radicals[best]))))
        found["log_negativity"].append(float(log_negativity(radicals[best])))
        pairs = reduced_state(run.states, (2, 5, 2), (0, 1))
        found["radical_triplet"].append(float(np.max(log_negativity(pairs, (2, 5), (0,)))))
        found["left"].append(float(values[-1]))
    shape = (len(values_1), len(values_2))
    return xarray.Dataset(
        {name: ((name_1, name_2), np.reshape(column, shape)) for name, column in found.items()},
        {name_1: np.asarray(values_1, dtype=float), name_2: np.asarray(values_2, dtype=float)},
    )


def _changed(config: DynamicsConfig, point: dict[str, float]) -> tuple[DynamicsConfig, np.ndarray]:
    point = dict(point)
    angle = np.radians(point.pop("angle_deg", 0.0))
    if "triplet_lifetime_ns" in point:
        rate = 1 / point.pop("triplet_lifetime_ns")
        point["triplet_decay_rates_per_ns_xyz"] = (rate, rate, rate)  # type: ignore[assignment]
    changed = config.model_copy(update=point)
    return changed, changed.field_tesla * np.array([np.sin(angle), 0.0, np.cos(angle)])


def maps(config: DynamicsConfig) -> dict[str, xarray.Dataset]:
    """Return the maps of `AXES`; a fast configuration takes every other value of each axis."""
    step = 2 if config.fast else 1
    return {
        title: entanglement_map(config, (first[0], first[1][::step]), (second[0], second[1][::step]))
        for title, (first, second) in AXES.items()
    }


def draw_maps(found: dict[str, xarray.Dataset], config: DynamicsConfig) -> Figure:
    """Draw the largest concurrence of each map with contours, and the point of the configuration."""
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure("page", aspect=0.36, ncols=len(found))
    here = {
        "j_rt_cm1": resolve_j_rt_cm1(config)[0], "temperature_k": config.temperature_k, "angle_deg": 0.0,
        "field_tesla": config.field_tesla, "d_t_cm1": config.d_t_cm1,
        "triplet_lifetime_ns": 1 / min(config.triplet_decay_rates_per_ns_xyz),
    }  # fmt: skip
    levels = [0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12]
    for axis, data in zip(axes, found.values(), strict=True):
        first, second = data.concurrence.dims
        drawn = axis.contourf(data[first], data[second], data.concurrence.T, levels, extend="max", cmap="viridis")
        axis.contour(data[first], data[second], data.concurrence.T, levels, colors="white", linewidths=0.5)
        axis.plot(here[str(first)], here[str(second)], "o", color=COLOURS[1], markersize=4, clip_on=False)
        axis.set(xlabel=LABELS[str(first)], ylabel=LABELS[str(second)], yscale="log")
        if first != "angle_deg":
            axis.set_xscale("log")
    figure.colorbar(drawn, ax=axes[-1], label="largest concurrence")
    return figure


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
