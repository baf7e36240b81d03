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


_CURVE_POINTS = 601


_SOURCES = "molecule, exchange, j_on_cm1 (e.g. `--set j_on_cm1=0.25`)"


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
        Axes of the maps of fidelities: J against T2, and J against the triplet's own lifetime. The molecule's own J, T2
        and lifetime are added to them.
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
        given = [name for name in ("molecule", "exchange", "j_on_cm1") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"Give exactly one of the keys {_SOURCES}, but {' and '.join(given)} were given.")
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

    if exchange is None and config.j_on_cm1 is None:
        raise ValueError(f"Give exactly one of the keys {_SOURCES}, but none was given.")
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
        save_figure(draw(record, data, conditions), folder / "gate")
    write_json(folder / "gate.json", record | {"provenance": provenance(config, time.monotonic() - start)})
    return record


def fidelity_data(j_on_cm1: float, hold_ns: float, config: GateConfig) -> xarray.Dataset:
    """Return the fidelity against the hold around the best one, and its best value against J and T2.

    Returns
    -------
    xarray.Dataset
        ``fidelity`` and ``decay_bound`` along ``hold_ns``; ``fidelity_t2`` along ``j_on_cm1`` (its magnitude; the sign
        is that given) and ``t2_ns``, ``fidelity_lifetime`` along ``j_on_cm1`` and ``triplet_lifetime_ns``.
    """
    import xarray

    from molecular_qubits.control.fidelity import decay_bound, target_gate
    from molecular_qubits.control.switched_gate import best_fidelities, best_hold, exchange_period_ns, gate_channels
    from shared.progress import track

    conditions = config.conditions
    reach = 3 * exchange_period_ns(j_on_cm1)
    holds = np.append(np.linspace(max(hold_ns - reach, hold_ns / 50), hold_ns + reach, _CURVE_POINTS), hold_ns)
    holds = np.unique(holds)
    channels = gate_channels(j_on_cm1, config.j_off_cm1, holds, conditions)
    axes = {
        "t2_ns": _with(config.map_t2_ns, conditions.t2_ns),
        "triplet_lifetime_ns": _with(config.map_lifetime_ns, conditions.triplet_lifetime_ns),
    }
    couplings, sign = _with(config.map_j_cm1, abs(j_on_cm1)), -1 if j_on_cm1 < 0 else 1
    cells = [(name, value, j) for name, axis in axes.items() for value in axis for j in couplings]
    found: dict[str, list[float]] = {name: [] for name in axes}
    for name, value, j in track(cells, "maps of fidelities"):
        update = {name: value} | ({"t1_ns": max(conditions.t1_ns, value / 2)} if name == "t2_ns" else {})
        found[name].append(best_hold(sign * j, config.j_off_cm1, conditions.model_copy(update=update))[0])
    shape = (-1, len(couplings))
    return xarray.Dataset(
        {
            "fidelity": ("hold_ns", best_fidelities(channels, target_gate(conditions.target))),
            "decay_bound": ("hold_ns", decay_bound(2 * holds, conditions.t1_ns, conditions.t2_ns)),
            "fidelity_t2": (("t2_ns", "j_on_cm1"), np.reshape(found["t2_ns"], shape)),
            "fidelity_lifetime": (
                ("triplet_lifetime_ns", "j_on_cm1"),
                np.reshape(found["triplet_lifetime_ns"], shape),
            ),
        },
        {"hold_ns": holds, "j_on_cm1": couplings} | axes,
    )


def _with(axis: tuple[float, ...], value: float | None) -> list[float]:
    """Return an ascending axis with one more positive value, unless there is none or it is there."""
    return sorted({*axis} if not value else {*axis, value})


def draw(record: dict[str, Any], data: xarray.Dataset, conditions: GateConditions) -> Figure:
    """Draw the fidelity against the hold, and the maps of infidelities with the molecule on them."""
    from matplotlib.colors import BoundaryNorm
    from matplotlib.patheffects import withStroke

    from shared.plotting import COLOURS, cell_edges, new_figure

    figure, axes = new_figure("page", aspect=0.42, ncols=3)
    scale, unit = (1e3, "ps") if record["hold_ns"] < 0.1 else (1.0, "ns")
    axes[0].plot(scale * data.hold_ns, data.fidelity, linewidth=0.9, label="switched gate")
    axes[0].plot(scale * data.hold_ns, data.decay_bound, "--", color="grey", label="bound from T1 and T2")
    axes[0].axhline(
        record["local_rotations_alone"], color=COLOURS[1], linewidth=0.8, linestyle="-.", label="local rotations alone"
    )
    axes[0].errorbar(
        scale * record["hold_ns"], record["fidelity"], record["fidelity_error"], fmt="o", color=COLOURS[2],
        markersize=4, capsize=2, label="best hold, error of J",
    )  # fmt: skip
    axes[0].set(
        xlabel=f"hold of the triplet ({unit})", ylabel=f"average gate fidelity ({record['target']})", ylim=(None, 1.01)
    )
    axes[0].set_title("a", loc="left", fontweight="bold")
    levels = [0.003, 0.01, 0.03, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5]
    norm = BoundaryNorm(levels, 256, extend="both")
    j, error = abs(record["j_on_cm1"]), record["j_on_error_cm1"]
    lifetime = conditions.triplet_lifetime_ns
    lasting = "triplet until switched off" if lifetime is None else f"triplet lives {lifetime:,g} ns"
    given = f"given J = {record['j_on_cm1']:.3g}" + (f" ± {error:.2g}" if error else "") + " cm$^{-1}$"
    for axis, letter, name, label, own, held in (
        (axes[1], "b", "t2", "T2 of the radicals (ns)", conditions.t2_ns, lasting),
        (axes[2], "c", "lifetime", "lifetime of the triplet (ns)", lifetime, f"T2 = {conditions.t2_ns:,g} ns"),
    ):
        values = 1 - data[f"fidelity_{name}"]
        x, y = cell_edges(data.j_on_cm1.values), cell_edges(values[values.dims[0]].values)
        drawn = axis.pcolormesh(x, y, values, norm=norm, cmap="viridis_r")
        if j > 0:
            axis.axvspan(max(j - error, 1e-9), j + error, facecolor="white", edgecolor="none", alpha=0.35)
            outline = [withStroke(linewidth=2.4, foreground="black")]
            axis.axvline(j, color="white", linewidth=1.2, linestyle="-", path_effects=outline, label=given)
        if own is not None and j > 0:
            axis.plot(j, own, "o", markersize=5, color="white", markeredgecolor="black", linestyle="",
                      label="given J, T2 and lifetime")  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="|J|, lit (cm$^{-1}$)", ylabel=label)
        axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        axis.set_title(held, loc="right", fontsize="x-small")
        axis.set_title(letter, loc="left", fontweight="bold")
    figure.colorbar(drawn, ax=axes[2], label="1 - fidelity at the best hold", ticks=levels)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure
