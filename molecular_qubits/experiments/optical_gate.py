"""The optically switched gate optimised: best sequence, maps over J, T2 and lifetime, robustness, what limits it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from molecular_qubits.control.fidelity import best_local_fidelity, decay_bound, local_only_fidelity, target_gate
from molecular_qubits.control.optical_gate import (
    GateSequence,
    Member,
    OpticalGate,
    OpticalGateConditions,
    optimise_sequence,
)
from molecular_qubits.experiments.code_hash import code_hash
from molecular_qubits.experiments.entanglement_limits import RAMAN_EXPONENT
from shared.config import FrozenConfig
from shared.progress import track

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shared.artifacts import Cache

COMMITTED = Path(__file__).resolve().parent / "data" / "optical_gate.json"


class OpticalGateStudy(FrozenConfig):
    """What is optimised.

    Parameters
    ----------
    conditions
        Molecule, relaxation and limits; J, T2 and the lifetime are replaced along the axes of the maps.
    j_cm1, t2_ns, lifetime_ns
        Axes of the two maps, (J, T2) and (J, lifetime).
    starts, iterations, follow_iterations
        Of each J from random starts, and of each other cell from the optimum of its J.
    j_spread, area_spread
        Relative standard deviations of J and of the pulse area over the sample, for the robust sequence.
    seed
        Of the random starts.
    """

    conditions: OpticalGateConditions = OpticalGateConditions(
        target="sqrt-iswap", j_on_cm1=0.003, max_hold_ns=20.0, max_light_ns=0.01, slices=4
    )
    j_cm1: tuple[float, ...] = (0.001, 0.002, 0.003, 0.005, 0.01, 0.03, 0.1, 0.3)
    t2_ns: tuple[float, ...] = (10.0, 100.0, 1000.0, 3000.0)
    lifetime_ns: tuple[float, ...] = (3.0, 30.0, 300.0, 10000.0)
    starts: int = Field(2, ge=1)
    iterations: int = Field(24, ge=1)
    follow_iterations: int = Field(15, ge=1)
    j_spread: float = Field(0.05, ge=0)
    area_spread: float = Field(0.05, ge=0)
    seed: int = 0


def run(study: OpticalGateStudy, cache: Cache | None = None) -> dict[str, Any]:
    """Optimise all of a study; finished optimisations are kept in the cache.

    Returns
    -------
    dict
        ``best`` (sequence at the best J), ``along_j`` (sequences), ``map_t2``, ``map_lifetime`` (fidelities, rows along
        J), ``budget`` and ``temperature`` (rows), ``robustness`` (fidelities of the nominal and the robust sequence),
        ``local_only``.
    """
    base = study.conditions
    along = []
    for j in track(study.j_cm1, "optimum of each J"):
        conditions = base.model_copy(update={"j_on_cm1": j})
        along.append(_kept(cache, conditions, study, starts=study.starts, iterations=study.iterations))
    cells: dict[str, list[list[float]]] = {"t2_ns": [], "triplet_lifetime_ns": []}
    for j, known in track(list(zip(study.j_cm1, along, strict=True)), "maps"):
        for name, axis in (("t2_ns", study.t2_ns), ("triplet_lifetime_ns", study.lifetime_ns)):
            row = []
            for value in axis:
                update = {"j_on_cm1": j, name: value}
                found = _kept(
                    cache, base.model_copy(update=update), study, iterations=study.follow_iterations,
                    start=known["variables"],
                )  # fmt: skip
                row.append(found["fidelity"])
            cells[name].append(row)
    best = max(along, key=lambda one: one["fidelity"])
    chosen = base.model_copy(update={"j_on_cm1": best["conditions"]["j_on_cm1"]})
    return {
        "best": best,
        "along_j": along,
        "map_t2": cells["t2_ns"],
        "map_lifetime": cells["triplet_lifetime_ns"],
        "budget": budget_rows(chosen, best, study, cache),
        "robustness": robustness(chosen, best, study, cache),
        "temperature": temperature_rows(chosen, best),
        "local_only": local_only_fidelity(target_gate(base.target)),
        "study": study.model_dump(mode="json"),
    }


def budget_rows(
    conditions: OpticalGateConditions, best: dict[str, Any], study: OpticalGateStudy, cache: Cache | None
) -> list[dict[str, Any]]:
    """Return the optimum with one imperfection at a time taken away: table rows."""
    ideal = {
        "all of Tz": {"share_z": 1.0},
        "radicals without relaxation": {"t1_ns": 1e9, "t2_ns": 1e9},
        "triplet without decay and relaxation": {"triplet_lifetime_ns": 1e9, "triplet_t1_ns": 1e9},
        "crossing and return in 0.1 ps": {"isc_rate_per_ns": 1e4, "max_dump_per_ns": 1e4},
        "no microwaves": {"max_rad_per_ns": 0.0},
    }
    rows = [{"changed": "nothing", "fidelity": best["fidelity"], "infidelity": 1 - best["fidelity"]}]
    for name, update in track(list(ideal.items()), "budget"):
        found = _kept(
            cache, conditions.model_copy(update=update), study, starts=study.starts, iterations=study.iterations // 2,
            start=best["variables"],
        )  # fmt: skip
        rows.append({"changed": name, "fidelity": found["fidelity"], "infidelity": 1 - found["fidelity"]})
    return rows


def temperature_rows(
    conditions: OpticalGateConditions,
    best: dict[str, Any],
    temperatures_k: Sequence[float] = (30.0, 77.0, 150.0, 300.0),
) -> list[dict[str, Any]]:
    """Return the fidelity of the best sequence where spin-lattice relaxation follows the temperature: table rows.

    The conditions hold at 30 K; 1/T1 of radicals and triplet goes with the power `RAMAN_EXPONENT` of the temperature,
    what T2 has beyond it is kept.
    """
    rows = []
    pure = 1 / conditions.t2_ns - 1 / (2 * conditions.t1_ns)
    for kelvin in temperatures_k:
        factor = (kelvin / 30.0) ** RAMAN_EXPONENT
        t1 = conditions.t1_ns / factor
        update = {
            "t1_ns": t1, "t2_ns": 1 / (pure + 1 / (2 * t1)), "triplet_t1_ns": conditions.triplet_t1_ns / factor
        }  # fmt: skip
        gate = OpticalGate(conditions.model_copy(update=update))
        fidelity = best_local_fidelity(gate.mean_channel(np.array(best["variables"])), gate.gate)[0]
        rows.append({"temperature (K)": kelvin, "T1 (ns)": t1, "T2 (ns)": update["t2_ns"], "fidelity": fidelity})
    return rows


def robustness(
    conditions: OpticalGateConditions, best: dict[str, Any], study: OpticalGateStudy, cache: Cache | None
) -> dict[str, Any]:
    """Return fidelities against relative deviations of J and of the pulse area, of the best and a robust sequence.

    The robust one is optimised over five members, at one standard deviation times sqrt(3/2) of each (exact for the
    variance of two independent normal distributions).
    """
    reach = np.sqrt(3 / 2)
    ensemble = (
        Member(weight=1 / 3),
        *(Member(j_factor=1 + sign * reach * study.j_spread, weight=1 / 6) for sign in (-1, 1)),
        *(Member(area_factor=1 + sign * reach * study.area_spread, weight=1 / 6) for sign in (-1, 1)),
    )
    robust = _kept(
        cache, conditions, study, iterations=study.iterations, start=best["variables"], ensemble=ensemble
    )  # fmt: skip
    deviations = np.linspace(-0.15, 0.15, 7)
    found: dict[str, Any] = {"deviation": deviations.tolist()}
    for axis in ("j_factor", "area_factor"):
        members = tuple(Member(**{axis: 1 + float(d)}) for d in deviations)
        gate = OpticalGate(conditions, members)
        for name, one in (("nominal", best), ("robust", robust)):
            target = np.array(one["target"])
            channels = gate.channels(np.array(one["variables"]))
            process = (channels * target).sum(axis=(1, 2)) / 16
            found[f"{name} {axis}"] = ((4 * process + channels[:, 0, 0]) / 5).tolist()
    return found


def _kept(
    cache: Cache | None,
    conditions: OpticalGateConditions,
    study: OpticalGateStudy,
    *,
    iterations: int,
    starts: int = 1,
    start: Sequence[float] | None = None,
    ensemble: tuple[Member, ...] = (Member(),),
) -> dict[str, Any]:
    """Return an optimised sequence as JSON-able values, from the cache if it is there."""
    from shared.artifacts import versions

    members = [(one.j_factor, one.area_factor, one.weight) for one in ensemble]
    key = {
        "optical gate": 1, "conditions": conditions.model_dump(mode="json"), "iterations": iterations, "starts": starts,
        "start": None if start is None else list(start), "ensemble": members, "seed": study.seed,
        "packages": versions(("numpy", "scipy", "jax")), "code": code_hash(__file__),
    }  # fmt: skip

    def make() -> dict[str, Any]:
        given = None if start is None else np.array(start)
        gate = OpticalGate(conditions, ensemble)
        found = optimise_sequence(gate, starts=starts, iterations=iterations, seed=study.seed, start=given)
        return _record(found, conditions)

    if cache is None:
        return dict(json.loads(json.dumps(make(), allow_nan=False)))
    return dict(cache.record("sequence.json", key, make))


def _record(found: GateSequence, conditions: OpticalGateConditions) -> dict[str, Any]:
    return {
        "conditions": conditions.model_dump(mode="json"),
        "fidelity": found.fidelity,
        "leakage": found.leakage,
        "pump_ns": found.pump_ns,
        "hold_ns": found.hold_ns,
        "dump_ns": found.dump_ns,
        "pump_per_ns": found.pump_per_ns,
        "dump_per_ns": found.dump_per_ns,
        "microwaves_rad_per_ns": found.microwaves_rad_per_ns.tolist(),
        "bound_t1_t2": decay_bound(found.duration_ns, conditions.t1_ns, conditions.t2_ns),
        "history": list(found.history),
        "target": found.target.tolist(),
        "variables": found.variables.tolist(),
    }


def write(
    study: OpticalGateStudy, folder: Path, cache: Cache | None = None, committed: Path | None = None
) -> dict[str, Any]:
    """Run a study, or read the committed one if it is the same; write ``optical_gate.json``, ``.png`` and ``.pdf``."""
    from shared.artifacts import committed_result, provenance, write_json
    from shared.plotting import save_figure, style

    start = time.monotonic()
    found = committed_result(committed, "study", study.model_dump(mode="json"))
    if found is None:
        found = run(study, cache) | {"provenance": provenance(study, time.monotonic() - start)}
    write_json(folder / "optical_gate.json", found)
    with style():
        save_figure(draw(found), folder / "optical_gate")
    return found


def along_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the optimum of each J: table rows."""
    return [
        {
            "J (cm^-1)": one["conditions"]["j_on_cm1"],
            "fidelity": one["fidelity"],
            "bound from T1 and T2": one["bound_t1_t2"],
            "local rotations alone": found["local_only"],
            "left in S1 or T": one["leakage"],
            "hold (ns)": one["hold_ns"],
            "pump (ps)": 1e3 * one["pump_ns"],
            "dump (ps)": 1e3 * one["dump_ns"],
        }
        for one in found["along_j"]
    ]


def draw(found: dict[str, Any]) -> Figure:
    """Draw the best sequence and its convergence, the two maps and the robustness."""
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure("page", aspect=0.76, ncols=3, nrows=2)
    best = found["best"]
    _draw_sequence(axes[0, 0], best)
    axes[0, 1].semilogy(1 - np.array(best["history"]), label="optimiser")
    axes[0, 1].axhline(1 - best["bound_t1_t2"], color=COLOURS[1], linestyle="--", label="bound, T1 and T2")
    axes[0, 1].axhline(1 - found["local_only"], color="grey", linestyle=":", label="local rotations alone")
    axes[0, 1].set(xlabel="iteration", ylabel="1 - average gate fidelity")
    axes[0, 1].legend(fontsize="x-small")
    robust = found["robustness"]
    for axis, colour, label in (("j_factor", COLOURS[0], "J"), ("area_factor", COLOURS[1], "pulse area")):
        for name, looks in (("robust", {"linewidth": 5, "alpha": 0.3}), ("nominal", {"linewidth": 1.2})):
            axes[0, 2].plot(
                100 * np.array(robust["deviation"]), robust[f"{name} {axis}"], color=colour, linestyle="-",
                label=f"{label}, {name}", **looks,
            )  # fmt: skip
    axes[0, 2].set(xlabel="deviation (%)", ylabel="average gate fidelity")
    axes[0, 2].legend(fontsize="x-small", loc="lower center")
    _draw_maps(figure, axes[1], found)
    _draw_budget(axes[1, 2], found["budget"])
    return figure


def _draw_sequence(axis: Axes, best: dict[str, Any]) -> None:
    """Draw the microwaves between the two pulses of light."""
    from shared.plotting import COLOURS

    waves = np.array(best["microwaves_rad_per_ns"])
    edges = np.linspace(0, best["hold_ns"], len(waves) + 1)
    for column, label in enumerate(("along x", "along y")):
        axis.stairs(1e3 * waves[:, column], edges, baseline=None, label=label, linewidth=1.3)
    for place, name, side in ((0.0, "pump", "left"), (best["hold_ns"], "dump", "right")):
        label = f"{name}, {1e3 * best[f'{name}_ns']:.1f} ps"
        axis.axvline(place, color=COLOURS[3], linewidth=1.5)
        axis.text(place, 1.01, label, transform=axis.get_xaxis_transform(), ha=side, va="bottom", fontsize="x-small")
    limit = 1e3 * best["conditions"]["max_rad_per_ns"]
    reach = 1e3 * float(np.abs(waves).max()) or max(limit, 1.0)
    axis.set(xlabel="time (ns)", ylabel="microwaves (rad/µs)", ylim=(-1.3 * reach, 1.3 * reach))
    axis.legend(loc="lower center", fontsize="x-small", title=f"limit ±{limit:g} rad/µs", title_fontsize="x-small")


def _draw_maps(figure: Figure, axes: Sequence[Axes], found: dict[str, Any]) -> None:
    """Draw the infidelity over J and T2 and over J and the lifetime, one cell for each optimisation."""
    from matplotlib.colors import BoundaryNorm

    from shared.plotting import COLOURS, cell_edges

    best, study = found["best"], found["study"]
    levels = [0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4]
    norm = BoundaryNorm(levels, 256, extend="both")
    base = best["conditions"]
    for axis, name, values, label, held in (
        (axes[0], "t2_ns", found["map_t2"], "T2 of the radicals (ns)",
         f"triplet lives {base['triplet_lifetime_ns']:,g} ns"),
        (axes[1], "lifetime_ns", found["map_lifetime"], "lifetime of the triplet (ns)",
         f"T2 = {base['t2_ns']:,g} ns"),
    ):  # fmt: skip
        infidelity = 1 - np.array(values).T
        x, y = cell_edges(study["j_cm1"]), cell_edges(study[name])
        drawn = axis.pcolormesh(x, y, infidelity, norm=norm, cmap="viridis_r")
        rows, columns = np.nonzero(infidelity >= 1 - found["local_only"])
        axis.plot(
            np.array(study["j_cm1"])[columns], np.array(study[name])[rows], "X", color="white", markersize=5,
            markeredgecolor="black", markeredgewidth=0.6,
            linestyle="", label="no better than local rotations alone",
        )  # fmt: skip
        here = base["t2_ns" if name == "t2_ns" else "triplet_lifetime_ns"]
        axis.plot(base["j_on_cm1"], here, "o", color=COLOURS[1], markeredgecolor="white", linestyle="",
                  label="best sequence")  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="J, lit (cm$^{-1}$)", ylabel=label)
        axis.set(xlim=(x[0], x[-1]), ylim=(y[0], max(y[-1], 1.5 * here)))
        axis.set_title(held, fontsize="x-small")
    bar = figure.colorbar(drawn, ax=list(axes[:2]), location="bottom", label="1 - fidelity", ticks=levels, aspect=35)
    bar.ax.set_xticklabels([f"{level:g}" for level in levels])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2)


def _draw_budget(axis: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw the infidelity with one imperfection at a time taken away, each bar below its name."""
    from shared.plotting import COLOURS

    for place, row in enumerate(rows):
        name = "nothing changed" if row["changed"] == "nothing" else row["changed"]
        axis.barh(place + 0.2, row["infidelity"], height=0.38, color=COLOURS[0])
        axis.text(0, place - 0.04, f" {name}", va="bottom", fontsize="x-small")
    axis.set(xlabel="1 - fidelity", yticks=[], ylim=(len(rows) - 0.4, -0.6))
