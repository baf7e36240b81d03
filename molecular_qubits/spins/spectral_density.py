"""Spectral densities of baths: S(w) in 1/ns, the rate at which a bath takes up the energy h-bar w from the spins.

Both obey detailed balance, S(-w) = S(w) exp(-w / kT), which makes the thermal state stationary.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from molecular_qubits.spins.checks import non_negative, positive, thermal_frequency
from molecular_qubits.spins.operators import FloatArray


class SpectralDensity(Protocol):
    """A function of angular frequencies."""

    def __call__(self, frequency_rad_per_ns: FloatArray) -> FloatArray:
        """Return S(w) >= 0 in 1/ns at frequencies of any shape."""


@dataclass(frozen=True)
class LorentzianBath:
    """Fluctuations of a field with an exponential correlation: S(w) = 2 rate / (1 + exp(-w/kT)) / (1 + w^2 tau^2).

    Parameters
    ----------
    rate_per_ns
        S(0), half of what a slow spin sees at both signs together: the mean square of the fluctuating coupling times
        2 tau.
    temperature_k
        Temperature, above 0.
    correlation_time_ns
        tau; 0 for white noise, the rates of `ThermalRelaxation`.
    """

    rate_per_ns: float
    temperature_k: float
    correlation_time_ns: float = 0.0

    def __post_init__(self) -> None:
        non_negative(self.rate_per_ns, "rate_per_ns")
        thermal_frequency(self.temperature_k)
        non_negative(self.correlation_time_ns, "correlation_time_ns")

    def __call__(self, frequency_rad_per_ns: FloatArray) -> FloatArray:
        """Return S(w) in 1/ns."""
        w = np.asarray(frequency_rad_per_ns, dtype=float)
        occupation = 0.5 * (1 + np.tanh(w / (2 * thermal_frequency(self.temperature_k))))
        return 2 * self.rate_per_ns * occupation / (1 + (w * self.correlation_time_ns) ** 2)


@dataclass(frozen=True)
class OhmicBath:
    """Harmonic bath (phonons in one dimension): S(w) = 2 J(w) (n(w) + 1) with J(w) = coupling w exp(-|w| / cutoff).

    Parameters
    ----------
    coupling
        Dimensionless strength.
    cutoff_rad_per_ns
        Frequency above which the bath has no modes.
    temperature_k
        Temperature, above 0.
    """

    coupling: float
    cutoff_rad_per_ns: float
    temperature_k: float

    def __post_init__(self) -> None:
        non_negative(self.coupling, "coupling")
        positive(self.cutoff_rad_per_ns, "cutoff_rad_per_ns")
        thermal_frequency(self.temperature_k)

    def __call__(self, frequency_rad_per_ns: FloatArray) -> FloatArray:
        """Return S(w) in 1/ns."""
        w = np.asarray(frequency_rad_per_ns, dtype=float)
        thermal = thermal_frequency(self.temperature_k)
        ratio = np.abs(w) / thermal
        # w (n(w) + 1) for w > 0 and |w| n(|w|) for w < 0: the larger one is |w| / (1 - exp(-|w|/kT)), kT at w = 0
        with np.errstate(invalid="ignore", divide="ignore"):
            larger = np.where(ratio > 1e-12, np.abs(w) / -np.expm1(-ratio), thermal)
        emitted = np.where(w < 0, larger * np.exp(-ratio), larger)
        return 2 * self.coupling * emitted * np.exp(-np.abs(w) / self.cutoff_rad_per_ns)
