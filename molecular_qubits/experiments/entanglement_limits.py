"""Up to which temperature entanglement and a useful gate survive, and which control raises the entanglement."""

from __future__ import annotations

from typing import Any

import numpy as np

from molecular_qubits.experiments.dynamics import DynamicsConfig, resolve_j_rt_cm1
from molecular_qubits.experiments.entanglement_maps import entanglement_of
from shared.progress import track

RAMAN_EXPONENT = 2.0
"""Rates of spin-lattice relaxation go with T to this power: assumed, Raman processes above the Debye temperature."""

CONTROLS: dict[str, tuple[Any, Any]] = {
    "share of Tz in the crossing": ((0.2, 0.2, 0.6), (0.0, 0.0, 1.0)),
    "angle of the field (degrees)": (30.0, 0.0),
    "field (T)": (0.1, 1.2),
    "temperature (K)": (60.0, 10.0),
    "J of radical and triplet (cm^-1)": (20.0, 300.0),
    "D of the triplet (cm^-1)": (0.02, 0.2),
    "length of the light pulse (ns)": (1.0, 20.0),
    "rate of the light (1/ns)": (0.05, 50.0),
    "crossing S1 to T (1/ns)": (0.1, 10.0),
    "relaxation between multiplets (1/ns)": (0.1, 10.0),
    "relaxation of M (1/ns)": (1e-2, 1e-6),
    "lifetime of the triplet (ns)": (1e3, 1e5),
}
"""A lower and a higher setting of each control, the others as configured."""

_FIELDS = {
    "share of Tz in the crossing": "isc_populations_xyz",
    "angle of the field (degrees)": "angle_deg",
    "field (T)": "field_tesla",
    "temperature (K)": "temperature_k",
    "J of radical and triplet (cm^-1)": "j_rt_cm1",
    "D of the triplet (cm^-1)": "d_t_cm1",
    "length of the light pulse (ns)": "pulse_duration_ns",
    "rate of the light (1/ns)": "pump_rate_per_ns",
    "crossing S1 to T (1/ns)": "isc_rate_per_ns",
    "relaxation between multiplets (1/ns)": "multiplet_rate_per_ns",
    "relaxation of M (1/ns)": "lattice_rate_per_ns",
    "lifetime of the triplet (ns)": "triplet_lifetime_ns",
}


def at_temperature(config: DynamicsConfig, temperature_k: float, *, rates_follow: bool) -> dict[str, Any]:
    """Return the changes that a temperature makes: detailed balance alone, or spin-lattice relaxation as well."""
    changes: dict[str, Any] = {"temperature_k": temperature_k}
    if rates_follow:
        factor = (temperature_k / config.temperature_k) ** RAMAN_EXPONENT
        t1 = config.radical_t1_ns / factor
        pure = max(1 / config.radical_t2_ns - 1 / (2 * config.radical_t1_ns), 0.0)
        changes |= {
            "lattice_rate_per_ns": config.lattice_rate_per_ns * factor,
            "radical_t1_ns": t1,
            "radical_t2_ns": 1 / (pure + 1 / (2 * t1)),
        }
    return changes


def highest_temperature_k(
    config: DynamicsConfig, *, rates_follow: bool, low: float = 2.0, high: float = 400.0
) -> float:
    """Return the highest temperature at which the pulse entangles the radicals, to 2 %; 0 if not even at `low`."""

    def largest(temperatures: np.ndarray) -> np.ndarray:
        points = [at_temperature(config, float(t), rates_follow=rates_follow) for t in temperatures]
        return entanglement_of(config, points)["concurrence"]

    grid = np.geomspace(low, high, 12)
    for _ in range(3):
        entangled = np.flatnonzero(largest(grid) > 1e-6)
        if not entangled.size:
            return 0.0
        last = int(entangled[-1])
        if last == len(grid) - 1:
            return float(grid[-1])
        grid = np.geomspace(grid[last], grid[last + 1], 6)
    return float(grid[0])


def temperature_rows(config: DynamicsConfig) -> list[dict[str, Any]]:
    """Return the highest temperature of entanglement for some couplings, rates kept or following: table rows."""
    here = resolve_j_rt_cm1(config)[0]
    cases = [
        ("as configured", here),
        ("|J|/k = 200 K, order of the literature", 139.0),
        ("ten times weaker", here / 10),
    ]
    rows = []
    for label, j_cm1 in track(cases[:1] if config.fast else cases, "highest temperature"):
        changed = config.model_copy(update={"j_rt_cm1": j_cm1})
        rows.append(
            {
                "J of radical and triplet": label,
                "J (cm^-1)": j_cm1,
                "rates kept (K)": highest_temperature_k(changed, rates_follow=False),
                f"relaxation as T^{RAMAN_EXPONENT:g} (K)": highest_temperature_k(changed, rates_follow=True),
            }
        )
    return rows


def control_rows(config: DynamicsConfig) -> list[dict[str, Any]]:
    """Return the largest concurrence with each control at a lower and a higher setting: table rows, best first."""
    points: list[dict[str, Any]] = [{}]
    for name, settings in CONTROLS.items():
        points += [{_FIELDS[name]: setting} for setting in settings]
    values = entanglement_of(config, points)["concurrence"]
    rows = [
        {
            "control": name,
            "first setting": _shown(settings[0]),
            "concurrence": float(values[1 + 2 * number]),
            "second setting": _shown(settings[1]),
            "concurrence ": float(values[2 + 2 * number]),
            "as configured": float(values[0]),
        }
        for number, (name, settings) in enumerate(CONTROLS.items())
    ]
    return sorted(rows, key=lambda row: -max(row["concurrence"], row["concurrence "]))


def _shown(setting: Any) -> str:
    return f"{setting[2]:g}" if isinstance(setting, tuple) else f"{setting:g}"
