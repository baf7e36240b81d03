"""The optical layer as formulas: spots, absorption lines, and how much light puts a coupler into its triplet.

Light is treated by rates (optical coherence shorter than the pulse): absorption S0 -> S1 and stimulated emission back
at the rate cross section times photon flux, intersystem crossing S1 -> T with a yield, the rest of S1 back to S0.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from molecular_qubits.spins.operators import FloatArray
from molecular_qubits.units import CM1_J, SPEED_OF_LIGHT_M_PER_S
from shared.config import FrozenConfig

AVOGADRO = 6.02214076e23
CM1_PER_INVERSE_NS = 1e9 / (100 * SPEED_OF_LIGHT_M_PER_S)
"""Wavenumber in cm^-1 of a frequency of 1 / ns."""

_LN2 = float(np.log(2))


QUENCH_DOSE = 25.0
"""Absorptions of a quenching pulse: exp(-25) = 1e-11 of the triplets survive it, which is negligible."""


class Optics(FrozenConfig):
    """Light on the network.

    A pump makes the triplet, a quench ends it. The quench is light that the triplet absorbs, which takes it to a higher
    triplet and from there to the ground state; every absorption is assumed to do so, and the light to reach the
    triplets of its own coupler only.

    Parameters
    ----------
    spot
        ``"diffraction"``: a lens focuses a Gaussian beam; ``"plasmonic"``: the near field of a tip above the network.
    numerical_aperture
        Of the lens; 0.7 gives a spot of 0.29 um at 400 nm.
    tip_radius_nm, tip_gap_nm
        Radius of the tip's apex and its distance from the plane of the couplers.
    pulse_ns
        Length of a light pulse; the default makes the birth of the triplet uncertain by 0.2 ps (singlet: 0.1 ps).
    triplet_probability
        Probability with which the pulse must put the coupler that it is meant for into its triplet.
    crosstalk_limit
        Largest probability with which pulses of one moment may put any other coupler into its triplet.
    shortest_nm, longest_nm
        Range of the wavelengths that can be made.
    beams
        How many couplers can be lit at once; ``None``: any number.
    apart_nm
        Couplers nearer than this are not lit at once; ``None``: the diameter of a tip, as tips do not overlap, 0 for a
        lens.
    retarget_ns
        Time to go on to another coupler: between the pulses of one beam, and of couplers nearer than `apart_nm`. The
        default is an idealisation; moving a tip takes microseconds.
    """

    spot: Literal["diffraction", "plasmonic"] = "plasmonic"
    numerical_aperture: float = Field(0.7, gt=0)
    tip_radius_nm: float = Field(5.0, gt=0)
    tip_gap_nm: float = Field(1.0, ge=0)
    pulse_ns: float = Field(8e-4, gt=0)
    triplet_probability: float = Field(0.98, gt=0, lt=1)
    crosstalk_limit: float = Field(0.01, gt=0, lt=1)
    shortest_nm: float = Field(350.0, gt=0)
    longest_nm: float = Field(800.0, gt=0)
    beams: int | None = Field(None, ge=1)
    apart_nm: float | None = Field(None, ge=0)
    retarget_ns: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.longest_nm < self.shortest_nm:
            raise ValueError(f"longest_nm must be at least {self.shortest_nm:g} nm, but was {self.longest_nm:g} nm")
        return self

    @property
    def least_distance_nm(self) -> float:
        """Distance of two couplers below which they are not lit at once."""
        if self.apart_nm is not None:
            return self.apart_nm
        return 2 * self.tip_radius_nm if self.spot == "plasmonic" else 0.0

    def profile(self, distance_nm: Any, wavelength_nm: Any) -> FloatArray:
        """Return the intensity at a distance from the middle of the spot, relative to the middle."""
        if self.spot == "plasmonic":
            return tip_profile(distance_nm, self.tip_radius_nm + self.tip_gap_nm)
        return gaussian_profile(distance_nm, diffraction_spot_nm(wavelength_nm, self.numerical_aperture))

    def spot_nm(self, wavelength_nm: float) -> float:
        """Return the full width at half maximum of the spot."""
        if self.spot == "plasmonic":
            return tip_spot_nm(self.tip_radius_nm + self.tip_gap_nm)
        return float(diffraction_spot_nm(wavelength_nm, self.numerical_aperture))

    def spot_area_nm2(self, wavelength_nm: float) -> float:
        """Return the integral of the profile over the plane: energy = peak fluence times this."""
        if self.spot == "plasmonic":
            return 3 * np.pi / 8 * (self.tip_radius_nm + self.tip_gap_nm) ** 2
        return float(np.pi / (4 * _LN2) * self.spot_nm(wavelength_nm) ** 2)


def diffraction_spot_nm(wavelength_nm: Any, numerical_aperture: float) -> Any:
    """Return the full width at half maximum 0.5145 lambda / NA of a focus, that of the Airy pattern.

    Source: M. Born, E. Wolf, Principles of Optics, sec. 8.5.2; scalar, so too small by some per cent beyond NA 0.8.
    """
    return 0.5145 * np.asarray(wavelength_nm, dtype=float) / numerical_aperture


def gaussian_profile(distance_nm: Any, fwhm_nm: Any) -> FloatArray:
    """Return exp(-4 ln 2 r^2 / FWHM^2), the intensity of a Gaussian beam."""
    return np.asarray(np.exp(-4 * _LN2 * (np.asarray(distance_nm, dtype=float) / fwhm_nm) ** 2))


def tip_profile(distance_nm: Any, height_nm: float) -> FloatArray:
    """Return |E|^2 in a plane at a depth below a vertical point dipole, relative to the point beneath it.

    |E|^2 is proportional to (1 + 3 cos^2) / s^6 with s^2 = r^2 + h^2, cos = h / s: a sphere driven along the axis of
    the tip, its centre a radius above the apex. Source: J. D. Jackson, Classical Electrodynamics, eq. (4.13).
    """
    ratio = height_nm**2 / (np.asarray(distance_nm, dtype=float) ** 2 + height_nm**2)
    return np.asarray(ratio**3 * (1 + 3 * ratio) / 4)


def tip_spot_nm(height_nm: float) -> float:
    """Return the full width at half maximum of `tip_profile`: 0.9035 times the height."""
    from scipy.optimize import brentq

    ratio = brentq(lambda u: u**3 * (1 + 3 * u) - 2, 0, 1, xtol=1e-15)
    return float(2 * height_nm * np.sqrt(1 / ratio - 1))


def wavenumber_cm1(wavelength_nm: Any) -> Any:
    """Return 1 / wavelength in cm^-1."""
    return 1e7 / np.asarray(wavelength_nm, dtype=float)


def pulse_bandwidth_cm1(pulse_ns: float) -> float:
    """Return the full width at half maximum of the power spectrum of a Gaussian pulse, 0.4413 / length."""
    return 2 * _LN2 / np.pi / pulse_ns * CM1_PER_INVERSE_NS


def line_shape(
    offset_cm1: Any, linewidth_cm1: Any, *, pulse_ns: float, huang_rhys: Any = 0.0, vibration_cm1: Any = 1400.0
) -> FloatArray:
    """Return the absorption of a pulse relative to that of narrow light on the origin.

    Gaussian lines at n vibrational quanta above the origin, of heights S^n / n!, folded with the spectrum of the pulse.

    Parameters
    ----------
    offset_cm1
        Wavenumber of the light minus that of the origin.
    linewidth_cm1
        Full width at half maximum of the lines.
    pulse_ns
        Length of the pulse.
    huang_rhys, vibration_cm1
        S and the quantum of the progression.
    """
    offset, width = np.asarray(offset_cm1, dtype=float), np.asarray(linewidth_cm1, dtype=float)
    strength, quantum = np.asarray(huang_rhys, dtype=float), np.asarray(vibration_cm1, dtype=float)
    folded = np.hypot(width, pulse_bandwidth_cm1(pulse_ns))
    total: Any = 0.0
    height: Any = 1.0
    for quanta in range(1 if not np.any(strength) else 13):
        total = total + height * np.exp(-4 * _LN2 * ((offset - quanta * quantum) / folded) ** 2)
        height = height * strength / (quanta + 1)
    return np.asarray(width / folded * total)


def cross_section_cm2(extinction_per_m_cm: Any) -> Any:
    """Return the absorption cross section 1000 ln(10) e / N_A of a molar extinction coefficient in L / (mol cm)."""
    return 1000 * np.log(10) / AVOGADRO * np.asarray(extinction_per_m_cm, dtype=float)


def triplet_probability(dose: Any, pulse_ns: float, isc_time_ns: Any, isc_yield: Any) -> FloatArray:
    """Return the probability that a square pulse leaves a coupler in its triplet, after S1 has decayed.

    Parameters
    ----------
    dose
        Cross section times photons per area, the mean number of absorptions that a two-level picture would give.
    pulse_ns, isc_time_ns, isc_yield
        Length of the pulse, lifetime of S1, and probability that S1 ends in T.

    Notes
    -----
    With x = (S0, S1) and the rate k = dose / pulse, dS0/dt = -k S0 + (k + (1 - y) / t) S1 and
    dS1/dt = k S0 - (k + 1 / t) S1. Few photons: P = yield * dose. A pulse much shorter than S1 lives saturates at
    yield / 2, a much longer one at 1.
    """
    dose, life, share = np.broadcast_arrays(
        np.asarray(dose, dtype=float), np.asarray(isc_time_ns, dtype=float), np.asarray(isc_yield, dtype=float)
    )
    decay = pulse_ns / life  # all rates in units of 1 / pulse
    mean = dose + decay / 2  # minus the mean of the two eigenvalues
    split = np.sqrt(dose * (dose + (1 - share) * decay) + decay**2 / 4)
    product = share * decay * dose / (mean + split)  # the slow rate, without cancellation
    slow, fast = np.exp(-product), np.exp(-(mean + split))
    # exp(M) (1, 0) from Sylvester's formula; M has the eigenvalues -product and -(mean + split).
    spread = np.maximum(2 * split, 1e-300)
    s0 = (slow * (mean + split - dose) + fast * (dose - product)) / spread
    s1 = dose * (slow - fast) / spread
    return np.asarray(np.where(dose > 0, 1 - s0 - (1 - share) * s1, 0.0))


def triplet_birth(
    dose: float, pulse_ns: float, isc_time_ns: float, isc_yield: float, points: int = 2000
) -> tuple[FloatArray, FloatArray]:
    """Return times from the begin of a square pulse, ns, and the probability that the triplet has been born by then.

    During the pulse that is 1 - S0 - S1 of the rate equations of `triplet_probability`, afterwards S1 decays alone.

    Returns
    -------
    times_ns, probability : ndarray, shape (points,)
    """
    during = np.linspace(0, pulse_ns, points // 2)
    rate, decay = dose / pulse_ns, 1 / isc_time_ns
    mean = rate + decay / 2
    split = np.sqrt(rate * (rate + (1 - isc_yield) * decay) + decay**2 / 4)
    product = isc_yield * decay * rate / (mean + split)
    slow, fast = np.exp(-product * during), np.exp(-(mean + split) * during)
    s0 = (slow * (mean + split - rate) + fast * (rate - product)) / (2 * split)
    s1 = rate * (slow - fast) / (2 * split)
    after = pulse_ns + np.linspace(0, 20 * isc_time_ns, points - points // 2 + 1)[1:]
    lost = 1 - np.exp(-(after - pulse_ns) * decay)
    return np.concatenate([during, after]), np.concatenate(
        [1 - s0 - s1, 1 - s0[-1] - s1[-1] + isc_yield * s1[-1] * lost]
    )


def largest_triplet_probability(pulse_ns: float, isc_time_ns: float, isc_yield: float) -> float:
    """Return what `triplet_probability` tends to with ever more light: 1 - (1 - y / 2) exp(-y pulse / (2 t))."""
    return float(1 - (1 - isc_yield / 2) * np.exp(-isc_yield * pulse_ns / (2 * isc_time_ns)))


def needed_dose(probability: float, pulse_ns: float, isc_time_ns: float, isc_yield: float) -> float:
    """Return the dose with which a pulse puts a coupler into its triplet with a probability.

    Raises
    ------
    ValueError
        If no light is enough, because S1 lives too long for so short a pulse.
    """
    from scipy.optimize import brentq

    most = largest_triplet_probability(pulse_ns, isc_time_ns, isc_yield)
    if probability >= most:
        raise ValueError(
            f"Argument `triplet_probability` must be below {most:.4f}, which a pulse of {pulse_ns:g} ns can reach with "
            f"a singlet that lives {isc_time_ns:g} ns and a yield of {isc_yield:g}, but was {probability:g}; a longer "
            f"pulse reaches more."
        )
    highest = 1.0
    while triplet_probability(highest, pulse_ns, isc_time_ns, isc_yield) < probability:
        highest *= 2
    return float(
        brentq(
            lambda dose: float(triplet_probability(dose, pulse_ns, isc_time_ns, isc_yield)) - probability,
            0.0, highest, xtol=1e-15, rtol=1e-13,
        )
    )  # fmt: skip


def photon_energy_j(wavelength_nm: float) -> float:
    """Return h c / wavelength."""
    return CM1_J * float(wavenumber_cm1(wavelength_nm))


def peak_fluence_j_per_cm2(
    dose: float, extinction_per_m_cm: float, wavelength_nm: float, overlap: float = 1.0
) -> float:
    """Return the energy per area in the middle of the spot that makes a dose.

    Parameters
    ----------
    dose
        See `triplet_probability`.
    extinction_per_m_cm, wavelength_nm
        Of the coupler on its origin.
    overlap
        Absorption of the pulse relative to the origin, from `line_shape`.
    """
    return dose * photon_energy_j(wavelength_nm) / (float(cross_section_cm2(extinction_per_m_cm)) * overlap)


def pulse_energy_j(fluence_j_per_cm2: float, area_nm2: float) -> float:
    """Return peak fluence times the integral of the profile (`Optics.spot_area_nm2`)."""
    return fluence_j_per_cm2 * area_nm2 * 1e-14


def temperature_rise_k(
    energy_j: float,
    distance_nm: Any,
    time_ns: Any,
    *,
    heat_capacity_j_per_cm3_k: float = 1.5,
    diffusivity_cm2_per_s: float = 1e-3,
) -> FloatArray:
    """Return how much warmer it is at a distance from a molecule that has set free an energy, after a time.

    The heat kernel Q / (c (4 pi D t)^(3/2)) exp(-r^2 / 4 D t); the defaults are about those of organic solids at room
    temperature (H. S. Carslaw, J. C. Jaeger, Conduction of Heat in Solids, sec. 10.2, for the formula).
    """
    spread = 4 * diffusivity_cm2_per_s * np.asarray(time_ns, dtype=float) * 1e-9
    squared = (np.asarray(distance_nm, dtype=float) * 1e-7) ** 2
    return np.asarray(energy_j / (heat_capacity_j_per_cm3_k * (np.pi * spread) ** 1.5) * np.exp(-squared / spread))
