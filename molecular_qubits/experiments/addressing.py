"""How two radicals with the same g are told apart: field gradient, directions of their g tensors, lit coupler."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.control.fidelity import decay_bound
from molecular_qubits.control.pulses import ControlProblem, optimise_pulse
from molecular_qubits.experiments.code_hash import code_hash
from molecular_qubits.experiments.pulses import MAX_RAD_PER_NS, T1_NS, T2_NS, addressing_rows
from molecular_qubits.spins.operators import FloatArray
from molecular_qubits.units import CM1_TO_RAD_PER_NS, MU_B_RAD_PER_NS_PER_T
from shared.progress import track

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shared.artifacts import Cache

COMMITTED = Path(__file__).resolve().parent / "data" / "addressing.json"

DIFFERENCES_MHZ = (0.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 80.0)
DURATIONS_NS = (25.0, 50.0, 100.0)
"""Differences of frequencies and durations of the NOT that are optimised."""

LIT_COUPLINGS_CM1 = (0.0, 1e-4, 3e-4, 1e-3)
LIT_DURATION_NS = 50.0
"""Exchange of radical 1 with the lit triplet, and the duration of the NOT on it."""

G_PRINCIPAL = (2.0085, 2.0050, 2.0020)
"""Principal g values of each radical: assumed, of the size found in nitroxides."""

TWIST_DEG = 114.0
"""Angle between the planes of the two radicals about their common axis: twice a torsion of 57 degrees."""

DISTANCE_NM = 1.8
"""Distance of the radicals along the gradient: assumed, of the size of 9,10-bis(4-iminonitroxide-phenyl)anthracene."""

X_BAND_TESLA, W_BAND_TESLA = 0.34, 3.35


def gradient_difference_mhz(gradient_tesla_per_m: float, distance_nm: float = DISTANCE_NM, g: float = 2.0043) -> float:
    """Return the difference of two radicals' frequencies in a field gradient, g mu_B G r / h."""
    return g * MU_B_RAD_PER_NS_PER_T * gradient_tesla_per_m * distance_nm * 1e-9 / (2 * np.pi) * 1e3


def orientation_differences_mhz(
    directions: FloatArray, field_tesla: float, twist_deg: float = TWIST_DEG, g: Sequence[float] = G_PRINCIPAL
) -> FloatArray:
    """Return the difference of the radicals' frequencies for directions (..., 3) of the field.

    The radicals' tensors are turned against each other by `twist_deg` about x, the axis that joins them.
    """
    half = np.radians(twist_deg) / 2
    values = []
    for angle in (half, -half):
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        tensor = turn @ np.diag(g) @ turn.T
        values.append(np.linalg.norm(directions @ tensor, axis=-1))
    return np.asarray((values[0] - values[1]) * MU_B_RAD_PER_NS_PER_T * field_tesla / (2 * np.pi) * 1e3)


def lit_problem(j_1_cm1: float, j_2_cm1: float, triplet: Sequence[float], d_t_cm1: float = 0.063) -> ControlProblem:
    """Return two radicals of one frequency around a lit triplet with populations of M = 1, 0, -1 along the field."""
    from molecular_qubits.spins.channels.relaxation import RadicalRelaxation
    from molecular_qubits.spins.system import SpinSystem
    from molecular_qubits.spins.tensors import zfs_tensor

    names = ("radical_1", "triplet", "radical_2")
    system = SpinSystem(
        (0.5, 1, 0.5), names=names, exchange_cm1={(0, 1): j_1_cm1, (1, 2): j_2_cm1}, zfs={1: zfs_tensor(d_t_cm1)}
    )
    jumps = [RadicalRelaxation(name, T1_NS, 300.0, T2_NS).jumps(system, 0.34) for name in names if name != "triplet"]
    radicals = system.spin(0) + system.spin(2)  # the triplet is off resonance by D: the field is taken not to reach it
    return ControlProblem(
        system.hamiltonian_matrix()[None], radicals[:2], (2, 3, 2), (0, 2), np.diag(triplet).astype(complex),
        np.concatenate(jumps),
    )  # fmt: skip


LIT = {"M = 1": (1.0, 0.0, 0.0), "90 % M = 0": (0.05, 0.9, 0.05)}
"""Populations of M = 1, 0, -1 along the field: a polarised triplet, and what crossing to Tz leaves."""


def lit_rows(
    couplings_cm1: Sequence[float] = LIT_COUPLINGS_CM1,
    duration_ns: float = LIT_DURATION_NS,
    triplets: Mapping[str, Sequence[float]] = MappingProxyType(LIT),
    iterations: int = 60,
    cache: Cache | None = None,
) -> list[dict[str, Any]]:
    """Return the fidelity of a NOT on radical 1 alone where only it couples to the lit triplet: table rows."""
    flip = np.kron([[0, 1], [1, 0]], np.eye(2)).astype(complex)

    def row(name: str, coupling: float) -> dict[str, Any]:
        problem = lit_problem(coupling, 0.0, triplets[name])
        pulse = optimise_pulse(
            problem, flip, duration_ns, 25, max_rad_per_ns=MAX_RAD_PER_NS, iterations=iterations
        )  # fmt: skip
        return {
            "triplet": name,
            "J of radical 1 (cm^-1)": coupling,
            "2 J (MHz)": 2 * coupling * CM1_TO_RAD_PER_NS / (2 * np.pi) * 1e3,
            "fidelity": pulse.fidelity,
            "bound from T1 and T2": decay_bound(duration_ns, T1_NS, T2_NS),
        }

    cells = [(name, coupling) for name in triplets for coupling in couplings_cm1]
    rows = []
    for name, coupling in track(cells, "NOT beside a lit coupler"):
        key = {"lit": list(triplets[name]), "name": name, "j_cm1": coupling, "ns": duration_ns, "steps": iterations}
        rows.append(_kept(cache, key, lambda name=name, coupling=coupling: row(name, coupling)))  # type: ignore[misc]
    return rows


def fidelity_rows(
    differences_mhz: Sequence[float] = DIFFERENCES_MHZ,
    durations_ns: Sequence[float] = DURATIONS_NS,
    cache: Cache | None = None,
) -> list[dict[str, Any]]:
    """Return the fidelity of a NOT on one radical alone against the difference of frequencies: table rows."""
    rows = []
    for duration, difference in track([(t, d) for t in durations_ns for d in differences_mhz], "NOT on one radical"):
        key = {"difference_mhz": difference, "ns": duration}
        rows.append(_kept(cache, key, lambda d=difference, t=duration: addressing_rows((d,), t)[0]))  # type: ignore[misc]
    return rows


def _kept(cache: Cache | None, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a table row, from the cache if it is there."""
    from shared.artifacts import versions

    if cache is None:
        return make()
    limits = {"t1_ns": T1_NS, "t2_ns": T2_NS, "max_rad_per_ns": MAX_RAD_PER_NS}
    full = {"addressing": 1, **limits, "packages": versions(("numpy", "scipy")), "code": code_hash(__file__), **key}
    return dict(cache.record("row.json", full, make))


def settings() -> dict[str, Any]:
    """Return all that the result depends on."""
    return {
        "differences_mhz": list(DIFFERENCES_MHZ), "durations_ns": list(DURATIONS_NS),
        "lit_couplings_cm1": list(LIT_COUPLINGS_CM1), "lit_duration_ns": LIT_DURATION_NS,
        "lit_triplets": {name: list(values) for name, values in LIT.items()},
        "t1_ns": T1_NS, "t2_ns": T2_NS, "max_rad_per_ns": MAX_RAD_PER_NS,
        "g_principal": list(G_PRINCIPAL), "twist_deg": TWIST_DEG, "distance_nm": DISTANCE_NM,
        "fields_tesla": [X_BAND_TESLA, W_BAND_TESLA],
    }  # fmt: skip


def ways_rows(fidelities: list[dict[str, Any]], duration_ns: float = 50.0) -> list[dict[str, Any]]:
    """Return what each way of addressing gives: difference of frequencies, and the fidelity of a NOT at it."""
    directions = _sphere()
    known = [row for row in fidelities if row["duration (ns)"] == duration_ns]
    axis = [row["difference (MHz)"] for row in known]

    def row(way: str, setting: str, difference: float) -> dict[str, Any]:
        fidelity = float(np.interp(difference, axis, [one["fidelity"] for one in known]))
        return {"way": way, "setting": setting, "difference (MHz)": difference, "fidelity of a NOT": fidelity}

    rows = [row("none", "equal g", 0.0)]
    for gradient in (1e5, 5e5, 1e6):
        shown = f"{gradient / 1e6:g} MT/m over {DISTANCE_NM:g} nm"
        rows.append(row("field gradient", shown, gradient_difference_mhz(gradient)))
    for field in (X_BAND_TESLA, W_BAND_TESLA):
        found = np.abs(orientation_differences_mhz(directions, field))
        rows.append(row("g anisotropy, best direction", f"{field:g} T", float(found.max())))
        rows.append(row("g anisotropy, median direction", f"{field:g} T", float(np.median(found))))
    return rows


def least_difference_mhz(fidelities: list[dict[str, Any]], share: float = 0.99) -> dict[float, float | None]:
    """Return for each duration the least difference computed whose fidelity is `share` of the bound, or None."""
    found: dict[float, float | None] = {}
    for row in fidelities:
        duration = row["duration (ns)"]
        found.setdefault(duration, None)
        if found[duration] is None and row["fidelity"] >= share * row["bound from T1 and T2"]:
            found[duration] = row["difference (MHz)"]
    return found


def draw(fidelities: list[dict[str, Any]], lit: list[dict[str, Any]]) -> Figure:
    """Draw the fidelity against the difference of frequencies, that difference over field directions, and lit NOTs."""
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure("page", aspect=0.36, ncols=3)
    durations = sorted({row["duration (ns)"] for row in fidelities})
    for duration, colour in zip(durations, COLOURS, strict=False):
        rows = [row for row in fidelities if row["duration (ns)"] == duration]
        x = [row["difference (MHz)"] for row in rows]
        axes[0].plot(x, [row["fidelity"] for row in rows], "o-", markersize=3, color=colour, label=f"{duration:g} ns")
        axes[0].axhline(rows[0]["bound from T1 and T2"], color=colour, linestyle=":", linewidth=0.8)
    axes[0].set(xlabel="difference of frequencies (MHz)", ylabel="fidelity of NOT on one radical", ylim=(0.3, 1.02))
    axes[0].legend(loc="lower right", title="duration", fontsize="x-small")
    polar, azimuth = np.radians(np.linspace(0, 90, 46)), np.radians(np.linspace(0, 180, 61))
    grid = np.stack(
        [
            np.outer(np.sin(polar), np.cos(azimuth)), np.outer(np.sin(polar), np.sin(azimuth)),
            np.outer(np.cos(polar), np.ones_like(azimuth)),
        ],
        axis=-1,
    )  # fmt: skip
    values = np.abs(orientation_differences_mhz(grid, X_BAND_TESLA))
    drawn = axes[1].contourf(np.degrees(azimuth), np.degrees(polar), values, 8, cmap="viridis")
    axes[1].set(xlabel="azimuth of the field (degrees)", ylabel="polar angle (degrees)")
    figure.colorbar(drawn, ax=axes[1], label=f"difference at {X_BAND_TESLA:g} T (MHz)")
    for name, colour in zip(dict.fromkeys(row["triplet"] for row in lit), COLOURS, strict=False):
        rows = [row for row in lit if row["triplet"] == name]
        axes[2].plot(
            [row["2 J (MHz)"] for row in rows], [row["fidelity"] for row in rows], "o-", markersize=3, color=colour,
            label=f"triplet: {name}",
        )  # fmt: skip
    axes[2].axhline(
        lit[0]["bound from T1 and T2"], color="grey", linestyle=":", linewidth=0.8, label="bound, T1 and T2"
    )
    axes[2].set(xlabel="2 J of radical 1 alone (MHz)", ylabel="fidelity of NOT on radical 1", ylim=(0.3, 1.02))
    axes[2].legend(loc="center right", fontsize="x-small")
    return figure


def write(folder: Path, cache: Cache | None = None, committed: Path | None = None) -> dict[str, Any]:
    """Compute all ways of addressing, or read the committed ones; write ``addressing.json``, ``.png`` and ``.pdf``.

    Parameters
    ----------
    folder
        Of the results.
    cache
        Finished optimisations, so that an interrupted run continues.
    committed
        Result of an earlier run, shown if its settings are those of now.

    Returns
    -------
    dict
        ``ways``, ``fidelities`` and ``lit``: table rows.
    """
    from shared.artifacts import committed_result, provenance, write_json
    from shared.plotting import save_figure, style

    start = time.monotonic()
    found = committed_result(committed, "settings", settings())
    if found is None:
        fidelities, lit = fidelity_rows(cache=cache), lit_rows(cache=cache)
        found = {"ways": ways_rows(fidelities), "fidelities": fidelities, "lit": lit, "settings": settings()}
        found |= {"provenance": provenance(None, time.monotonic() - start)}
    write_json(folder / "addressing.json", found)
    with style():
        save_figure(draw(found["fidelities"], found["lit"]), folder / "addressing")
    return found


def _sphere(count: int = 4000) -> FloatArray:
    """Return directions spread evenly over the sphere (Fibonacci)."""
    index = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    return np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=1)
