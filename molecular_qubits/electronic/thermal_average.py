"""Exchange coupling of a flexible molecule: Boltzmann average over a torsion profile J(θ), E(θ)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline

from molecular_qubits.units import KELVIN_TO_CM1

_FINE_STEPS = 3600
_PERIOD_TOLERANCE_DEGREES = 1e-6

END_SHARE = 0.01
"""Largest difference of the two ends of a period, as a share of the range of the values and of the largest of J."""

END_CM1 = 0.1
"""Difference of the energies at the two ends that is allowed besides: geometries are not relaxed any better."""


@dataclass(frozen=True)
class ThermalAverage:
    """Boltzmann average of a coupling over a torsion.

    ``mean_cm1`` is <J>, ``standard_deviation_cm1`` the thermal spread of J among the molecules (not an error of the
    mean), ``mean_angle_cosine2`` is <cos² θ>. ``grid_degrees`` and ``population_per_degree`` hold the distribution.
    """

    mean_cm1: float
    standard_deviation_cm1: float
    temperature_k: float
    mean_angle_cosine2: float
    grid_degrees: np.ndarray
    population_per_degree: np.ndarray


def boltzmann_average(
    angles_degrees: ArrayLike,
    energies_cm1: ArrayLike,
    j_cm1: ArrayLike,
    temperature_k: float,
    *,
    period_degrees: float | None = 360.0,
) -> ThermalAverage:
    """Average a coupling over a classical, uncoupled torsion.

    Energy and coupling are interpolated by cubic splines before the Boltzmann factor is taken, because that factor is
    much narrower than the steps of an affordable scan.

    Parameters
    ----------
    angles_degrees
        Torsion angles of the scan ``(n,)``, increasing, at least 4.
    energies_cm1
        Energy of the conformation at each angle ``(n,)``, from any zero.
    j_cm1
        Coupling at each angle ``(n,)``.
    temperature_k
        Temperature in K; 0 takes the minimum of the interpolated energy.
    period_degrees
        Period of the profile: the scan then covers one period, without its end point or with one equal to the start
        (`END_SHARE`), which is left out.
        ``None``: no period; the average runs over the scanned range.

    Returns
    -------
    ThermalAverage
        <J> = ∫ J exp(-E/kT) dθ / ∫ exp(-E/kT) dθ and its thermal spread.

    Raises
    ------
    ValueError
        If shapes disagree, a number is not finite, angles do not increase, the temperature is negative, the scan leaves
        more than a tenth of the period, and twice its largest step, uncovered, or ends a period later with other
        values.
    """
    angles, energies, couplings = (np.asarray(x, dtype=float) for x in (angles_degrees, energies_cm1, j_cm1))
    if angles.ndim != 1 or len(angles) < 4 or energies.shape != angles.shape or couplings.shape != angles.shape:
        raise ValueError(
            "Arguments `angles_degrees`, `energies_cm1` and `j_cm1` must have one common shape (n,) with n of at least "
            f"4, but have {angles.shape}, {energies.shape} and {couplings.shape}."
        )
    if not all(np.all(np.isfinite(x)) for x in (angles, energies, couplings)):
        raise ValueError(
            "Arguments `angles_degrees`, `energies_cm1` and `j_cm1` must be finite. Leave out the angles whose "
            "calculation failed."
        )
    if np.any(np.diff(angles) <= 0):
        raise ValueError("Argument `angles_degrees` must increase from entry to entry.")
    if not (np.isfinite(temperature_k) and temperature_k >= 0):
        raise ValueError(f"Argument `temperature_k` must be 0 or more, but is {temperature_k!r}.")
    ends = "not-a-knot"
    if period_degrees is not None:
        angles, energies, couplings = _closed(angles, energies, couplings, period_degrees)
        ends = "periodic"
    energy, coupling = (CubicSpline(angles, values, bc_type=ends) for values in (energies, couplings))
    edges = np.linspace(angles[0], angles[-1], _FINE_STEPS + 1)
    fine = (edges[1:] + edges[:-1]) / 2  # midpoints: spectrally accurate over a period, second order otherwise
    profile, values = energy(fine), coupling(fine)
    if temperature_k == 0:
        weights = (np.arange(len(fine)) == profile.argmin()).astype(float)
    else:
        weights = np.exp(-(profile - profile.min()) / (KELVIN_TO_CM1 * temperature_k))
    weights /= weights.sum()
    mean = float(weights @ values)
    return ThermalAverage(
        mean_cm1=mean,
        standard_deviation_cm1=float(np.sqrt(max(weights @ (values - mean) ** 2, 0.0))),
        temperature_k=float(temperature_k),
        mean_angle_cosine2=float(weights @ np.cos(np.radians(fine)) ** 2),
        grid_degrees=fine,
        population_per_degree=weights / (edges[1] - edges[0]),
    )


def _closed(
    angles: np.ndarray, energies: np.ndarray, couplings: np.ndarray, period: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a scan that ends one period after its start, with equal values there."""
    if not period > 0:
        raise ValueError(f"Argument `period_degrees` must be positive or None, but is {period!r}.")
    gap = period - (angles[-1] - angles[0])
    if gap < -_PERIOD_TOLERANCE_DEGREES:
        raise ValueError(
            f"Argument `period_degrees` must be at least the scanned {angles[-1] - angles[0]:g} degrees, but is "
            f"{period:g}."
        )
    if gap > max(0.1 * period, 2 * np.diff(angles).max()):
        raise ValueError(
            f"Argument `angles_degrees` must cover the period of {period:g} degrees, but leaves {gap:g} out. Extend "
            "the scan by symmetry, or set `period_degrees` to None."
        )
    if gap <= _PERIOD_TOLERANCE_DEGREES:  # the end point repeats the start
        for name, values, allowed in (
            ("energies_cm1", energies, END_SHARE * np.ptp(energies) + END_CM1),
            ("j_cm1", couplings, END_SHARE * np.abs(couplings).max()),
        ):
            if abs(values[-1] - values[0]) > allowed:
                raise ValueError(
                    f"Argument `period_degrees` must be a period of the scan, but `{name}` is {values[0]:g} at its "
                    f"start and {values[-1]:g} after {period:g} degrees. Give the true period, or None."
                )
        return angles, np.append(energies[:-1], energies[0]), np.append(couplings[:-1], couplings[0])
    return np.append(angles, angles[0] + period), np.append(energies, energies[0]), np.append(couplings, couplings[0])
