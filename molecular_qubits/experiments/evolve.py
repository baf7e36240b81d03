"""Evolution of the two-qubit unit from a configuration: what is read off it, as labelled data and a figure."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from molecular_qubits.experiments.dynamics import SITES, DynamicsConfig, build_channels, build_unit
from shared.config import FrozenConfig

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from molecular_qubits.spins.trajectory import Trajectory


class EvolveConfig(FrozenConfig):
    """One evolution.

    Parameters
    ----------
    unit
        Couplings, rates and conditions of radical, coupler and radical.
    times_ns
        Strictly ascending, the pulse starts at 0; by default 160 times from 0.05 ns to 100 us, even in the logarithm.
    light
        Whether the pulse is there.
    solver
        ``"expm"``, ``"jax"``, or ``"qutip"`` for short windows.
    """

    unit: DynamicsConfig = DynamicsConfig()
    times_ns: tuple[float, ...] = Field(default=(0.0, *np.geomspace(0.05, 1e5, 160).tolist()))
    light: bool = True
    solver: Literal["expm", "jax", "qutip"] = "expm"


def run(config: EvolveConfig, folder: Path) -> xarray.Dataset:
    """Evolve from the thermal dark state; write ``states.nc``, ``observables.nc``, ``evolve.png``, ``.pdf``, ``.json``.

    Returns
    -------
    xarray.Dataset
        See `observables`.
    """
    from molecular_qubits.spins.evolution import evolve
    from shared.artifacts import atomic_path, provenance, write_json
    from shared.plotting import save_figure, style

    start = time.monotonic()
    unit = build_unit(config.unit)
    trajectory = evolve(
        unit,
        unit.thermal_state(config.unit.temperature_k, config.unit.field_tesla),
        config.times_ns,
        channels=build_channels(config.unit, light=config.light),
        solver=config.solver,
        field_tesla=config.unit.field_tesla,
    )
    data = observables(trajectory, config.unit)
    folder.mkdir(parents=True, exist_ok=True)
    trajectory.save(folder / "states.nc")
    with atomic_path(folder / "observables.nc") as temporary:
        data.to_netcdf(temporary, engine="h5netcdf")
    with style():
        save_figure(draw(data), folder / "evolve")
    write_json(folder / "evolve.json", summary(data) | {"provenance": provenance(config, time.monotonic() - start)})
    return data


def observables(trajectory: Trajectory, unit_config: DynamicsConfig) -> xarray.Dataset:
    """Return what is read off a trajectory of the unit, along ``time_ns``.

    Returns
    -------
    xarray.Dataset
        ``level`` (population of S0, S1, T), ``concurrence`` and ``log_negativity`` of the radicals, ``spin_z`` of each
        site, ``purity`` and ``trace``.
    """
    import xarray

    from molecular_qubits.spins.observables import log_negativity, purity

    unit = build_unit(unit_config)
    names = ("S0", "S1", "T")
    radicals = trajectory.reduced((SITES[0], SITES[2]))
    spins = [trajectory.expectation(unit.site_operator(unit.site_spin(site)[2], site)) for site in SITES]
    return xarray.Dataset(
        {
            "level": (
                ("electronic_level", "time_ns"),
                np.array([trajectory.expectation(unit.level_projector(name)) for name in names]),
            ),
            "concurrence": ("time_ns", trajectory.concurrence()),
            "log_negativity": ("time_ns", np.asarray(log_negativity(radicals))),
            "spin_z": (("site", "time_ns"), np.array(spins)),
            "purity": ("time_ns", np.asarray(purity(trajectory.states))),
            "trace": ("time_ns", np.einsum("tii->t", trajectory.states).real),
        },
        {"time_ns": trajectory.times_ns, "electronic_level": list(names), "site": list(SITES)},
    )


def summary(data: xarray.Dataset) -> dict[str, Any]:
    """Return the largest concurrence, when it is reached and how long any is there."""
    values, times = data.concurrence.values, data.time_ns.values
    entangled = times[values > 0]
    return {
        "largest_concurrence": float(values.max()),
        "at_ns": float(times[values.argmax()]) if len(entangled) else None,
        "entangled_from_to_ns": [float(entangled[0]), float(entangled[-1])] if len(entangled) else None,
        "largest_triplet_population": float(data.level.sel(electronic_level="T").max()),
        "largest_trace_error": float(np.max(np.abs(data.trace.values - 1))),
    }


def draw(data: xarray.Dataset) -> Figure:
    """Draw the levels of the coupler, and the entanglement of the radicals."""
    from shared.plotting import new_figure

    figure, axes = new_figure("column", aspect=1.1, nrows=2, sharex=True)
    after = data.isel(time_ns=data.time_ns.values > 0)
    for name in after.electronic_level.values:
        axes[0].plot(after.time_ns, after.level.sel(electronic_level=name), label=str(name))
    axes[0].set(xscale="log", ylabel="population", ylim=(-0.02, 1.05))
    axes[0].legend()
    axes[1].plot(after.time_ns, after.concurrence, label="concurrence")
    axes[1].plot(after.time_ns, after.log_negativity, "--", label="log-negativity")
    axes[1].set(xlabel="time after the start of the pulse (ns)", ylabel="entanglement of the radicals")
    axes[1].legend()
    return figure
