"""From an exchange coupling to the fidelity of the optically switched gate, with the error of J carried through."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from molecular_qubits.control.switched_gate import GateConditions
from molecular_qubits.electronic.uncertainty import radical_triplet_exchange
from shared.config import FrozenConfig

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from molecular_qubits.electronic.exchange import ExchangeResult

MONO_EXCHANGE = Path(__file__).resolve().parent / "data" / "mono_exchange.json"


class GateConfig(FrozenConfig):
    """The gate of one molecule.

    Parameters
    ----------
    molecule, exchange_options
        Library name, XYZ file or SMILES, and options of ``molecular-qubits exchange`` as at the prompt.
    exchange
        Result file of ``molecular-qubits exchange``; a relative path starts from the folder of the configuration.
    j_on_cm1, j_on_error_cm1
        Radical-triplet exchange, H = -2 J S_R.S_T, and its standard error. One of `molecule`, `exchange` and
        `j_on_cm1` must be given.
    j_off_cm1, j_off_error_cm1
        Exchange of the radicals through the dark coupler. The default error is 5 MHz, the bound measured in
        ground-state C60 bis-nitroxides.
    conditions
        What the gate is judged under.
    map_j_cm1, map_t2_ns, map_lifetime_ns
        Axes of the maps of fidelities: J against T2, and J against the triplet's own lifetime.
    """

    molecule: str | None = None
    exchange_options: tuple[str, ...] = ()
    exchange: str | None = None
    j_on_cm1: float | None = None
    j_on_error_cm1: float = Field(0.0, ge=0)
    j_off_cm1: float = 0.0
    j_off_error_cm1: float = Field(1.7e-4, ge=0)
    conditions: GateConditions = GateConditions()
    map_j_cm1: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    map_t2_ns: tuple[float, ...] = (1.0, 10.0, 1e2, 1e3)
    map_lifetime_ns: tuple[float, ...] = (1.0, 10.0, 1e2, 1e3)

    @model_validator(mode="after")
    def _one_source(self) -> GateConfig:
        if sum(value is not None for value in (self.molecule, self.exchange, self.j_on_cm1)) != 1:
            raise ValueError("give exactly one of molecule, exchange or j_on_cm1")
        for name in ("map_j_cm1", "map_t2_ns", "map_lifetime_ns"):
            axis = getattr(self, name)
            if len(axis) < 2 or axis[0] <= 0 or np.any(np.diff(axis) <= 0):
                raise ValueError(f"{name} must hold at least 2 ascending numbers above 0, but was {axis}")
        return self


def run(config: GateConfig, folder: Path, exchange: ExchangeResult | None = None) -> dict[str, Any]:
    """Predict the gate and write ``gate.json``, ``gate.nc``, ``gate.png`` and ``gate.pdf``.

    Parameters
    ----------
    config
        The configuration.
    folder
        Where the files go.
    exchange
        The exchange result, unless `config` states J.

    Returns
    -------
    dict
        What ``gate.json`` holds: fidelity and its standard deviation over the errors of J, best hold, what local
        rotations alone reach, the bound from the decay rates.
    """
    from molecular_qubits.control.fidelity import decay_bound
    from molecular_qubits.control.switched_gate import predict_gate
    from shared.artifacts import atomic_path, provenance, write_json
    from shared.plotting import save_figure, style

    start = time.monotonic()
    coupling: dict[str, Any] = {"j_on_cm1": config.j_on_cm1, "j_on_error_cm1": config.j_on_error_cm1}
    if exchange is not None:
        coupling = radical_triplet_exchange(exchange)
    conditions = config.conditions
    gate = predict_gate(
        coupling["j_on_cm1"],
        config.j_off_cm1,
        on_error_cm1=coupling["j_on_error_cm1"],
        off_error_cm1=config.j_off_error_cm1,
        conditions=conditions,
    )
    record = coupling | {
        "j_off_cm1": config.j_off_cm1,
        "j_off_error_cm1": config.j_off_error_cm1,
        "target": conditions.target,
        "fidelity": gate.fidelity,
        "fidelity_error": gate.error,
        "hold_ns": gate.hold_ns,
        "local_rotations_alone": gate.floor,
        "decay_bound": decay_bound(2 * gate.hold_ns, conditions.t1_ns, conditions.t2_ns),
    }
    data = fidelity_data(coupling["j_on_cm1"], gate.hold_ns, config)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "gate.nc") as temporary:
        data.to_netcdf(temporary, engine="h5netcdf")
    with style():
        save_figure(draw(record, data), folder / "gate")
    write_json(folder / "gate.json", record | {"provenance": provenance(config, time.monotonic() - start)})
    return record


def fidelity_data(j_on_cm1: float, hold_ns: float, config: GateConfig) -> xarray.Dataset:
    """Return the fidelity against the hold around the best one, and its best value against J and T2.

    Returns
    -------
    xarray.Dataset
        ``fidelity`` and ``decay_bound`` along ``hold_ns``; ``fidelity_t2`` along ``j_on_cm1`` and ``t2_ns``,
        ``fidelity_lifetime`` along ``j_on_cm1`` and ``triplet_lifetime_ns``.
    """
    import xarray

    from molecular_qubits.control.fidelity import best_local_fidelity, decay_bound, target_gate
    from molecular_qubits.control.switched_gate import best_hold, exchange_period_ns, gate_channels
    from shared.progress import track

    conditions = config.conditions
    target = target_gate(conditions.target)
    reach = 3 * exchange_period_ns(j_on_cm1)
    holds = np.linspace(max(hold_ns - reach, hold_ns / 50), hold_ns + reach, 121)
    channels = gate_channels(j_on_cm1, config.j_off_cm1, holds, conditions)
    curve = [best_local_fidelity(channel, target, restarts=2)[0] for channel in channels]
    maps = {"t2_ns": config.map_t2_ns, "triplet_lifetime_ns": config.map_lifetime_ns}
    cells = [(name, value, j) for name, axis in maps.items() for value in axis for j in config.map_j_cm1]
    found: dict[str, list[float]] = {name: [] for name in maps}
    for name, value, j in track(cells, "maps of fidelities"):
        update = {name: value} | ({"t1_ns": max(conditions.t1_ns, value / 2)} if name == "t2_ns" else {})
        found[name].append(best_hold(j, config.j_off_cm1, conditions.model_copy(update=update))[0])
    shape = (-1, len(config.map_j_cm1))
    return xarray.Dataset(
        {
            "fidelity": ("hold_ns", np.array(curve)),
            "decay_bound": ("hold_ns", decay_bound(2 * holds, conditions.t1_ns, conditions.t2_ns)),
            "fidelity_t2": (("t2_ns", "j_on_cm1"), np.reshape(found["t2_ns"], shape)),
            "fidelity_lifetime": (
                ("triplet_lifetime_ns", "j_on_cm1"),
                np.reshape(found["triplet_lifetime_ns"], shape),
            ),
        },
        {"hold_ns": holds, "j_on_cm1": list(config.map_j_cm1)} | {name: list(axis) for name, axis in maps.items()},
    )


def draw(record: dict[str, Any], data: xarray.Dataset) -> Figure:
    """Draw the fidelity against the hold, and the map of infidelities with the molecule on it."""
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure("page", aspect=0.36, ncols=3)
    scale, unit = (1e3, "ps") if record["hold_ns"] < 0.1 else (1.0, "ns")
    axes[0].plot(scale * data.hold_ns, data.fidelity, label="switched gate")
    axes[0].plot(scale * data.hold_ns, data.decay_bound, "--", color="grey", label="bound from T1 and T2")
    axes[0].axhline(record["local_rotations_alone"], color=COLOURS[1], linewidth=0.8, label="local rotations alone")
    axes[0].errorbar(
        scale * record["hold_ns"], record["fidelity"], record["fidelity_error"], fmt="o", color=COLOURS[2],
        markersize=4, capsize=2, label="best hold, error of J",
    )  # fmt: skip
    axes[0].set(xlabel=f"hold of the triplet ({unit})", ylabel=f"average gate fidelity ({record['target']})")
    axes[0].set_ylim(None, 1.55 - 0.55 * float(data.fidelity.min()))
    axes[0].legend(loc="upper left", fontsize="x-small")
    levels = [0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4]
    j = abs(record["j_on_cm1"])
    for axis, name, label in (
        (axes[1], "t2", "T2 of the radicals (ns)"),
        (axes[2], "lifetime", "lifetime of the triplet (ns)"),
    ):
        values = 1 - data[f"fidelity_{name}"]
        second = values[values.dims[0]]
        drawn = axis.contourf(data.j_on_cm1, second, values, levels, cmap="viridis_r", extend="both")
        axis.contour(data.j_on_cm1, second, values, levels, colors="white", linewidths=0.5)
        axis.axvspan(max(j - record["j_on_error_cm1"], 1e-6), j + record["j_on_error_cm1"], color="white", alpha=0.4)
        axis.axvline(j, color=COLOURS[1], linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="|J|, lit (cm$^{-1}$)", ylabel=label)
        axis.set_xlim(float(data.j_on_cm1[0]), float(data.j_on_cm1[-1]))
    figure.colorbar(drawn, ax=axes[2], label="1 - fidelity at the best hold")
    return figure
