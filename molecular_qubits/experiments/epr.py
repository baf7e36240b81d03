"""EPR spectra from a configuration, and the measured quartets and quintets drawn from their published parameters."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from shared.config import FrozenConfig

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

    from molecular_qubits.spins.system import SpinSystem

REFERENCE = Path(__file__).resolve().parent.parent / "reference" / "molecular_experiments.json"
CONFIGS = Path(__file__).resolve().parent / "configs"


class EprConfig(FrozenConfig):
    """A field-swept spectrum.

    Parameters
    ----------
    system
        Spin-system file (JSON); a relative path starts from the folder of the configuration.
    frequency_ghz, field_tesla, points
        Microwave frequency, first and last field, number of fields.
    temperature_k
        Of thermal populations. Give this or `populations`.
    populations
        Of the zero-field levels in order of energy, as intersystem crossing leaves them.
    linewidth_pp_mt, shape, harmonic, n_orientations
        See `molecular_qubits.epr_spectrum`.
    """

    system: str
    frequency_ghz: float = Field(9.5, gt=0)
    field_tesla: tuple[float, float] = (0.28, 0.40)
    points: int = Field(1201, ge=2, le=1_000_000)
    temperature_k: float | None = Field(None, gt=0)
    populations: tuple[float, ...] | None = None
    linewidth_pp_mt: float = Field(0.7, gt=0)
    shape: Literal["gaussian", "lorentzian"] = "gaussian"
    harmonic: Literal[0, 1] = 0
    n_orientations: int = Field(5000, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _one_state(self) -> "EprConfig":
        if (self.temperature_k is None) == (self.populations is None):
            raise ValueError("give temperature_k or populations, and not both")
        if not 0 <= self.field_tesla[0] < self.field_tesla[1]:
            raise ValueError(f"field_tesla must ascend from 0 or more, but was {self.field_tesla}")
        return self


def spectrum(config: EprConfig, folder: Path) -> "xarray.DataArray":
    """Return the spectrum of a configuration whose relative paths start from `folder`."""
    from molecular_qubits.spins.epr.spectrum import epr_spectrum, zero_field_state
    from molecular_qubits.spins.spin_system_file import load_spin_system

    system = load_spin_system(folder / config.system).system
    state = None if config.populations is None else zero_field_state(system, config.populations)
    return epr_spectrum(
        system,
        np.linspace(*config.field_tesla, config.points),
        config.frequency_ghz,
        temperature_k=config.temperature_k,
        states=state,
        linewidth_pp_mt=config.linewidth_pp_mt,
        shape=config.shape,
        harmonic=config.harmonic,
        n_orientations=config.n_orientations,
    )


def line_rows(config: EprConfig, folder: Path, weakest: float = 1e-3) -> list[dict[str, Any]]:
    """Return the lines with the field along the x, y and z axes of the molecule: table rows.

    Lines whose squared moment is below `weakest` times that of the strongest are left out.
    """
    from molecular_qubits.spins.epr.resonances import find_resonances
    from molecular_qubits.spins.epr.spectrum import level_populations, zero_field_state
    from molecular_qubits.spins.spin_system_file import load_spin_system

    system = load_spin_system(folder / config.system).system
    state = None if config.populations is None else zero_field_state(system, config.populations)
    populations = level_populations(system, config.temperature_k, state)
    lines = find_resonances(system, config.frequency_ghz, config.field_tesla, np.eye(3), populations)
    kept = np.flatnonzero(lines.moment > weakest * np.max(lines.moment, initial=0))
    return [
        {
            "field along": "xyz"[lines.direction[n]],
            "field (mT)": 1e3 * float(lines.field_tesla[n]),
            "levels": f"{lines.lower[n]} - {lines.upper[n]}",
            "polarisation": float(lines.polarisation[n]),
            "nutation / free electron": float(lines.nutation[n]),
        }
        for n in sorted(kept, key=lambda n: (lines.direction[n], lines.field_tesla[n]))
    ]


def draw_spectrum(result: "xarray.DataArray") -> "Figure":
    """Draw one spectrum."""
    from shared.plotting import new_figure

    figure, axes = new_figure()
    axes.plot(1e3 * result.field_tesla, result / float(np.max(np.abs(result))))
    axes.axhline(0, color="grey", linewidth=0.6)
    label = "signal (emission < 0)" if result.attrs["harmonic"] == 0 else "derivative of the signal"
    axes.set(xlabel="field (mT)", ylabel=label)
    return figure


def measured_multiplets() -> list[dict[str, Any]]:
    """Return the measured quartets and quintets, each with ``molecule``, ``S``, ``g``, ``D``, ``E``, ``source`` and the
    populations of ``levels`` in order of energy for D > 0 (each |M| > 0 is a pair), sum 1.
    """
    rows = []
    for entry in json.loads(REFERENCE.read_text(encoding="utf-8"))["high_spin_excited_states"]:
        shares = {_fraction(key): value for key, value in entry["populations"].items()}
        levels = np.array([shares[m] for m in sorted(shares) for _ in range(1 if m == 0 else 2)])
        rows.append(entry | {"levels": levels / levels.sum()})
    return rows


def multiplet_system(row: dict[str, Any]) -> "SpinSystem":
    """Return the single spin S with the g, D and E of a measured multiplet."""
    from molecular_qubits.spins.system import SpinSystem
    from molecular_qubits.spins.tensors import zfs_tensor

    return SpinSystem((row["S"],), g=row["g"], zfs={0: zfs_tensor(row["D"], row["E"])})


def unit_system(row: dict[str, Any], j_rt_cm1: float) -> "SpinSystem":
    """Return radicals and triplet under exchange whose lowest multiplet is to be the measured one.

    D_T and D_RT are those inverted from the measured D of the iminonitroxide quartet and quintet; axes are collinear.
    """
    from molecular_qubits.spins.system import SpinSystem
    from molecular_qubits.spins.tensors import axial_coupling_tensor, zfs_tensor

    d_rt = 0.0075 if row["S"] == 2 else 3 * row["D"] - 0.063
    radicals = (1,) if row["S"] == 1.5 else (1, 2)
    return SpinSystem(
        (1, *[0.5] * len(radicals)),
        g=row["g"],
        exchange_cm1={(0, radical): j_rt_cm1 for radical in radicals},
        zfs={0: zfs_tensor(0.063)},
        dipolar={(0, radical): axial_coupling_tensor(d_rt) for radical in radicals},
    )


def measured_spectra(n_orientations: int = 5000) -> "dict[str, xarray.DataArray]":
    """Return time-resolved spectra under the published conditions (9.5 GHz, 0.7 mT), by molecule."""
    from molecular_qubits.spins.epr.spectrum import epr_spectrum, zero_field_state

    found = {}
    for row in measured_multiplets():
        system = multiplet_system(row)
        found[row["molecule"]] = epr_spectrum(
            system,
            np.linspace(0.25, 0.43, 1801),
            9.5,
            states=zero_field_state(system, row["levels"]),
            linewidth_pp_mt=0.7,
            n_orientations=n_orientations,
        )
    return found


def turning_point_rows() -> list[dict[str, Any]]:
    """Return for each measured multiplet the fields along its axis: of S, of the exchange-coupled unit, and by law.

    h nu = g mu_B B + D (2M - 1) for M to M - 1; polarisation as computed from the published populations.
    """
    from molecular_qubits.spins.epr.resonances import find_resonances
    from molecular_qubits.spins.epr.spectrum import level_populations, zero_field_state
    from molecular_qubits.units import CM1_TO_RAD_PER_NS, MU_B_RAD_PER_NS_PER_T

    rows = []
    for row in measured_multiplets():
        single, unit = multiplet_system(row), unit_system(row, 300.0)
        size = round(2 * row["S"] + 1)
        found = []
        for system in (single, unit):
            levels = np.concatenate([row["levels"], np.zeros(system.dimension - size)])
            populations = level_populations(system, None, zero_field_state(system, levels.tolist()))
            lines = find_resonances(system, 9.5, (0.25, 0.43), np.eye(3)[2:], populations)
            inside = np.flatnonzero((lines.upper < size) & (lines.moment > 1e-3))
            found.append((lines, inside[np.argsort(lines.field_tesla[inside])]))
        for place in range(size - 1):
            m = row["S"] - place
            (lines, order), (coupled, other) = found
            energy = 2 * np.pi * 9.5 - CM1_TO_RAD_PER_NS * row["D"] * (2 * m - 1)
            rows.append(
                {
                    "molecule": row["molecule"],
                    "line": f"{m:g} - {m - 1:g}",
                    "law (mT)": 1e3 * energy / (row["g"] * MU_B_RAD_PER_NS_PER_T),
                    "S alone (mT)": 1e3 * float(lines.field_tesla[order[place]]),
                    "radicals and triplet, J = 300 cm^-1 (mT)": 1e3 * float(coupled.field_tesla[other[place]]),
                    "polarisation": float(lines.polarisation[order[place]]),
                    "nutation / free electron": float(lines.nutation[order[place]]),
                }
            )
    return rows


def draw_measured(spectra: "dict[str, xarray.DataArray]") -> "Figure":
    """Draw the four time-resolved spectra over each other, turning points along the axis marked."""
    from shared.plotting import COLOURS, new_figure

    figure, axes = new_figure(aspect=1.3, nrows=len(spectra), sharex=True)
    rows = turning_point_rows()
    for axis, (molecule, result) in zip(axes, spectra.items(), strict=True):
        axis.plot(1e3 * result.field_tesla, result / float(np.max(np.abs(result))), color=COLOURS[0])
        axis.axhline(0, color="grey", linewidth=0.6)
        for row in rows:
            if row["molecule"] == molecule:
                axis.axvline(row["law (mT)"], color=COLOURS[1], linestyle=":", linewidth=0.8)
        axis.text(0.01, 0.92, molecule, transform=axis.transAxes, va="top", fontsize="x-small")
        axis.set_ylim(-1.25, 1.6)
    axes[-1].set_xlabel("field (mT)")
    figure.supylabel("signal (emission < 0)", fontsize="small")
    return figure


def draw_nutation(n_orientations: int = 1000) -> "Figure":
    """Draw the measured quartet and quintet resolved by nutation frequency, the multiplicities' values marked."""
    from molecular_qubits.spins.epr.nutation import nutation_map
    from molecular_qubits.spins.epr.spectrum import zero_field_state
    from shared.plotting import new_figure

    figure, axes = new_figure("page", aspect=0.42, ncols=2, sharey=True)
    for axis, row in zip(axes, measured_multiplets()[:2], strict=True):
        system = multiplet_system(row)
        state = zero_field_state(system, row["levels"])
        fields, ratios = np.linspace(0.27, 0.41, 281), np.linspace(1.4, 2.8, 281)
        found = nutation_map(system, fields, 9.5, ratios, states=state, n_orientations=n_orientations)
        size = float(np.abs(found).max()) / 3
        drawn = axis.pcolormesh(1e3 * fields, ratios, found / size, cmap="RdBu_r", vmin=-1, vmax=1, rasterized=True)
        spin = row["S"]
        for m in np.arange(spin, 0, -1):
            ratio = np.sqrt(spin * (spin + 1) - m * (m - 1))
            axis.axhline(ratio, color="grey", linestyle=":", linewidth=0.8)
            axis.text(1e3 * fields[-1], ratio, f"{m:g} - {m - 1:g}", ha="right", va="bottom", fontsize="x-small")
        axis.set(xlabel="field (mT)")
        axis.set_title(f"{row['molecule']}, S = {spin:g}", fontsize="xx-small")
    axes[0].set_ylabel("nutation / free electron")
    figure.colorbar(drawn, ax=axes.tolist(), label="signal (emission < 0, clipped)")
    return figure


def run(config_path: Path, overrides: list[str], folder: Path) -> list[dict[str, Any]]:
    """Compute a spectrum and write it: ``spectrum.nc``, ``spectrum.csv``, ``spectrum.png`` and ``.pdf``, ``epr.json``.

    Returns
    -------
    list of dict
        Rows of `line_rows`.
    """
    import time

    from shared.artifacts import atomic_path, provenance, write_json
    from shared.config import load_config
    from shared.plotting import save_figure, style
    from shared.results import write_table

    config = load_config(EprConfig, config_path, overrides)
    start = time.monotonic()
    result = spectrum(config, config_path.parent)
    rows = line_rows(config, config_path.parent)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "spectrum.nc") as temporary:
        result.to_netcdf(temporary, engine="h5netcdf")
    fields, values = result.field_tesla.values, result.values
    write_table(
        [{"field (T)": float(b), "intensity": float(v)} for b, v in zip(fields, values, strict=True)],
        folder / "spectrum",
        digits=7,
    )
    with style():
        save_figure(draw_spectrum(result), folder / "spectrum")
    write_json(folder / "epr.json", {"lines": rows, "provenance": provenance(config, time.monotonic() - start)})
    return rows


def _fraction(text: str) -> float:
    top, _, bottom = text.partition("/")
    return float(top) / float(bottom or 1)
