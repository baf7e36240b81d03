"""Pulsed nutation: how fast a microwave pulse turns each line, which tells the spin multiplicity of a spectrum.

A line between two levels turns at w = 2 |m| g_e mu_B B1 with m = <upper|g.S.b1|lower> / g_e, that is at
sqrt(S(S+1) - M(M-1)) times the frequency of a free electron for M to M - 1. Pulses are taken as selective: B1 small
against the splitting of the lines, and each line on resonance.

A. V. Astashkin and A. Schweiger, Chem. Phys. Lett. 174, 595 (1990).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.spins.checks import non_negative, positive
from molecular_qubits.spins.epr.resonances import ELECTRON_RAD_PER_NS_PER_T, Resonances, find_resonances
from molecular_qubits.spins.epr.spectrum import sample
from molecular_qubits.spins.operators import FloatArray
from molecular_qubits.spins.system import SpinSystem

if TYPE_CHECKING:
    import xarray


def nutation_trace(
    system: SpinSystem,
    field_tesla: float,
    frequency_ghz: float,
    times_ns: Any,
    *,
    microwave_mt: float,
    temperature_k: float | None = None,
    states: Any = None,
    linewidth_pp_mt: float = 0.5,
    microwave_spread: float = 0.05,
    n_orientations: int = 2000,
    directions: Any = None,
) -> "xarray.DataArray":
    """Return the signal in quadrature against the length of the pulse, at one field.

    Parameters
    ----------
    system, frequency_ghz, temperature_k, states, n_orientations, directions
        As in `epr_spectrum`; one state.
    field_tesla
        Where the experiment is done; lines count by a Gaussian of `linewidth_pp_mt` around it.
    times_ns
        Lengths of the pulse, (n,).
    microwave_mt
        Amplitude B1 of the rotating field.
    microwave_spread
        Relative standard deviation of B1 over the sample, which damps the oscillation.

    Returns
    -------
    xarray.DataArray
        Sum over lines of polarisation |m| sin(w t), dimension ``time_ns``.

    Raises
    ------
    ValueError
        If an argument is not as described.
    """
    import xarray

    times = np.asarray(times_ns, dtype=float)
    if times.ndim != 1 or not times.size or not np.all(np.isfinite(times)) or np.min(times) < 0:
        raise ValueError(f"Argument `times_ns` must hold finite times, none negative, but has shape {times.shape}.")
    turn = 1e-3 * positive(microwave_mt, "microwave_mt") * ELECTRON_RAD_PER_NS_PER_T
    spread = non_negative(microwave_spread, "microwave_spread")
    sigma = 1e-3 * positive(linewidth_pp_mt, "linewidth_pp_mt") / 2
    centre = positive(field_tesla, "field_tesla")
    window = (max(0.0, centre - 5 * sigma), centre + 5 * sigma)
    lines, weights = _lines(system, window, frequency_ghz, temperature_k, states, n_orientations, directions)
    near = np.exp(-0.5 * ((lines.field_tesla - centre) / sigma) ** 2)
    strength = weights * near * lines.polarisation * np.sqrt(lines.moment) / lines.slope
    phase = np.outer(times, lines.nutation * turn)
    signal = (np.sin(phase) * np.exp(-0.5 * (spread * phase) ** 2)) @ strength
    attributes = {"frequency_ghz": frequency_ghz, "field_tesla": centre, "microwave_mt": microwave_mt}
    return xarray.DataArray(signal, {"time_ns": times}, ["time_ns"], "signal", attributes)


def nutation_map(
    system: SpinSystem,
    fields_tesla: Any,
    frequency_ghz: float,
    relative_frequencies: Any,
    *,
    temperature_k: float | None = None,
    states: Any = None,
    linewidth_pp_mt: float = 0.7,
    microwave_spread: float = 0.03,
    n_orientations: int = 2000,
    directions: Any = None,
) -> "xarray.DataArray":
    """Return the spectrum resolved by nutation frequency, as a two-dimensional experiment gives it.

    Parameters
    ----------
    system, frequency_ghz, temperature_k, states, n_orientations, directions
        As in `epr_spectrum`; one state.
    fields_tesla
        Fields in ascending order, (n,).
    relative_frequencies
        Nutation frequency over that of a free electron in the same microwave field, (m,).
    linewidth_pp_mt, microwave_spread
        Widths: Gaussian in the field, and relative standard deviation in the nutation frequency.

    Returns
    -------
    xarray.DataArray
        Intensity (negative: emission), dimensions ``relative_frequency`` and ``field_tesla``. Summed over the first it
        is the spectrum.
    """
    import xarray

    fields, axis = np.asarray(fields_tesla, dtype=float), np.asarray(relative_frequencies, dtype=float)
    for name, values in (("fields_tesla", fields), ("relative_frequencies", axis)):
        if values.ndim != 1 or len(values) < 2 or not np.all(np.isfinite(values)) or np.any(np.diff(values) <= 0):
            raise ValueError(f"Argument `{name}` must hold at least 2 ascending numbers, but has shape {values.shape}.")
    sigma = 1e-3 * positive(linewidth_pp_mt, "linewidth_pp_mt") / 2
    spread = positive(microwave_spread, "microwave_spread")
    window = (max(0.0, fields[0] - 5 * sigma), fields[-1] + 5 * sigma)
    lines, weights = _lines(system, window, frequency_ghz, temperature_k, states, n_orientations, directions)
    across = np.exp(-0.5 * ((fields[:, None] - lines.field_tesla) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    width = spread * lines.nutation
    along = np.exp(-0.5 * ((axis[:, None] - lines.nutation) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    values = (along * (weights * lines.intensity)) @ across.T
    coordinates = {"relative_frequency": axis, "field_tesla": fields}
    return xarray.DataArray(values, coordinates, list(coordinates), "intensity", {"frequency_ghz": frequency_ghz})


def _lines(
    system: SpinSystem,
    window: tuple[float, float],
    frequency_ghz: float,
    temperature_k: float | None,
    states: Any,
    n_orientations: int,
    directions: Any,
) -> tuple[Resonances, FloatArray]:
    """Return the lines in a range of fields and the weight of each."""
    directions, shares, populations = sample(system, temperature_k, states, n_orientations, directions)
    lines = find_resonances(system, frequency_ghz, window, directions, populations)
    if lines.polarisation.ndim > 1:
        raise ValueError("Argument `states` must be one state, but was several.")
    return lines, np.asarray(shares[lines.direction])
