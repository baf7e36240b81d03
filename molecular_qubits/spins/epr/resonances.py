"""Fields at which a microwave frequency is in resonance, with the moment, slope and states of each line.

Energies and their slopes on a few fields give cubic Hermite interpolants of every transition energy (Stoll and
Schweiger, J. Magnetic Resonance 179, 42, 2006); their roots are refined by Newton's method on the exact Hamiltonian.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from molecular_qubits.spins.checks import non_negative, positive
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.units import G_ELECTRON, MU_B_RAD_PER_NS_PER_T
from shared.parallel import cpu_count
from shared.progress import progress

ELECTRON_RAD_PER_NS_PER_T = G_ELECTRON * MU_B_RAD_PER_NS_PER_T
INTERVALS = 12
"""Intervals of the field range on which transition energies are interpolated."""

_PARTS = 4  # of an interval, searched for a change of sign each
_CHUNK_BYTES = 32 * 2**20
_TOLERANCE_TESLA = 1e-9
_STEPS = 8
_LEAST_SLOPE = 1e-4  # of g_e mu_B: flatter transitions turn there, and have no width of their own in the field
_WEAKEST = 1e-8  # squared moment of a line that is kept, in units of g_e^2 mu_B^2

Populations = Callable[[FloatArray, ComplexArray], FloatArray]
"""From energies (n, D) in rad/ns and states (n, D, D) as columns to populations (..., n, D)."""


@dataclass(frozen=True)
class Resonances:
    """Lines in order of the direction; all arrays have one entry for each line.

    Attributes
    ----------
    direction
        Index of the field's direction.
    field_tesla
        Resonance field.
    lower, upper
        Numbers of the two levels in order of energy, from 0.
    moment
        Mean of |<upper| (B1.g.S) |lower>|^2 over directions of B1 normal to the field, in units of g_e^2: 1/4 for a
        free electron.
    slope
        |d(E_upper - E_lower)/dB| in units of g_e mu_B: 1 for a free electron.
    polarisation
        Population of the lower level minus that of the upper, shape (..., n); positive lines absorb.
    """

    direction: Any
    field_tesla: FloatArray
    lower: Any
    upper: Any
    moment: FloatArray
    slope: FloatArray
    polarisation: FloatArray

    @property
    def nutation(self) -> FloatArray:
        """Nutation frequency over that of a free electron in the same microwave field (root mean square over B1)."""
        return 2 * np.sqrt(self.moment)

    @property
    def intensity(self) -> FloatArray:
        """Integral over the field of each line: polarisation times moment over slope (Aasa and Vänngård's factor)."""
        return self.polarisation * self.moment / self.slope


def find_resonances(
    system: SpinSystem,
    frequency_ghz: float,
    field_range_tesla: tuple[float, float],
    directions: Any,
    populations: Populations,
) -> Resonances:
    """Return all lines between two fields.

    Parameters
    ----------
    system
        The spins.
    frequency_ghz
        Microwave frequency.
    field_range_tesla
        First and last field, from 0 on.
    directions
        Unit vectors of the field, shape (n, 3).
    populations
        Populations of the levels at a resonance.

    Returns
    -------
    Resonances
        Two resonances of one pair of levels that lie closer than about 1/50 of the range may be missed.

    Raises
    ------
    ValueError
        If the frequency is not above 0, or the range is not one.
    """
    omega = 2 * np.pi * positive(frequency_ghz, "frequency_ghz")
    low, high = (non_negative(field, "field_range_tesla") for field in field_range_tesla)
    if not low < high:
        raise ValueError(f"Argument `field_range_tesla` must be in ascending order, but was {(low, high)}.")
    directions = np.asarray(directions, dtype=float)
    if directions.ndim != 2 or directions.shape[1] != 3 or not len(directions):
        raise ValueError(f"Argument `directions` must have shape (n, 3), but has shape {directions.shape}.")
    search = _Search(system, omega, np.linspace(low, high, INTERVALS + 1), populations)
    dimension = system.dimension
    size = max(1, int(_CHUNK_BYTES / (16 * (INTERVALS + 1) * (3 * dimension**2 + _PARTS * dimension**2))))
    starts = range(0, len(directions), size)
    with ThreadPoolExecutor(cpu_count()) as pool, progress("orientations", total=len(directions)) as step:
        pieces = []
        for start, piece in zip(starts, pool.map(lambda s: search(directions[s : s + size], s), starts), strict=True):
            pieces.append(piece)
            step(min(size, len(directions) - start))
    return Resonances(
        *(np.concatenate([getattr(piece, field.name) for piece in pieces], axis=-1) for field in fields(Resonances))
    )


class _Search:
    """Lines of some directions of the field."""

    def __init__(self, system: SpinSystem, omega: float, knots: FloatArray, populations: Populations) -> None:
        self._zero = system.hamiltonian_matrix(0.0)
        self._slopes = np.array([system.hamiltonian_matrix(axis) - self._zero for axis in np.eye(3)])
        self._omega, self._knots, self._populations = omega, knots, populations
        self._pairs = np.triu_indices(system.dimension, 1)

    def __call__(self, directions: FloatArray, first: int) -> Resonances:
        slopes = np.einsum("na,aij->nij", directions, self._slopes)
        direction, lower, upper, field = self._interpolated(slopes)
        direction, lower, upper, field, energies, states = self._refined(slopes, direction, lower, upper, field)
        slope = _slope(states, slopes[direction], lower, upper) / ELECTRON_RAD_PER_NS_PER_T
        moment = self._moments(directions[direction], states, lower, upper)
        population = self._populations(energies, states)
        rows = np.arange(len(direction))
        polarisation = population[..., rows, lower] - population[..., rows, upper]
        kept = (moment > _WEAKEST) & (np.abs(slope) > _LEAST_SLOPE)
        return Resonances(
            direction[kept] + first, field[kept], lower[kept], upper[kept], moment[kept], np.abs(slope[kept]),
            polarisation[..., kept],
        )  # fmt: skip

    def _interpolated(self, slopes: ComplexArray) -> tuple[Any, Any, Any, FloatArray]:
        """Direction, levels and field of every root of the interpolated transition energies."""
        hamiltonians = self._zero + self._knots[:, None, None] * slopes[:, None]
        energies, states = np.linalg.eigh(hamiltonians)
        rates = np.einsum("nkia,nkia->nka", states.conj(), slopes[:, None] @ states).real
        low, high = self._pairs
        step = self._knots[1] - self._knots[0]
        gap = energies[..., high] - energies[..., low] - self._omega
        rate = (rates[..., high] - rates[..., low]) * step
        cubic = _hermite(gap[:, :-1], gap[:, 1:], rate[:, :-1], rate[:, 1:])
        ends = np.linspace(0, 1, _PARTS + 1)
        values = [_cubic(cubic, end) for end in ends]
        values[0], values[-1] = gap[:, :-1], gap[:, 1:]  # the same at both sides of a knot: no root is lost or doubled
        found = []
        for part in range(_PARTS):
            direction, interval, pair = np.nonzero((values[part] < 0) != (values[part + 1] < 0))
            here = [coefficient[direction, interval, pair] for coefficient in cubic]
            position = _bisect(here, ends[part], ends[part + 1], values[part][direction, interval, pair] < 0)
            found.append((direction, low[pair], high[pair], self._knots[interval] + position * step))
        direction, lower, upper, field = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((field, upper, lower, direction))
        return direction[order], lower[order], upper[order], field[order]

    def _refined(self, slopes: ComplexArray, direction: Any, lower: Any, upper: Any, field: FloatArray) -> Any:
        """Newton's steps on the exact gap; roots that the interpolation made up are dropped."""
        rows = np.arange(len(field))
        step = self._knots[1] - self._knots[0]
        start = field
        for _ in range(_STEPS):
            energies, states = np.linalg.eigh(self._zero + field[:, None, None] * slopes[direction])
            miss = energies[rows, upper] - energies[rows, lower] - self._omega
            slope = _slope(states, slopes[direction], lower, upper)
            safe = np.where(np.abs(slope) > _LEAST_SLOPE * ELECTRON_RAD_PER_NS_PER_T, slope, np.inf)
            change = np.clip(-miss / safe, -step / 2, step / 2)
            done = np.abs(miss) <= np.abs(slope) * _TOLERANCE_TESLA
            field = np.clip(field + change, start - step, start + step)
            if np.all(done):
                break
        inside = done & (field >= self._knots[0]) & (field <= self._knots[-1])
        return direction[inside], lower[inside], upper[inside], field[inside], energies[inside], states[inside]

    def _moments(self, directions: FloatArray, states: ComplexArray, lower: Any, upper: Any) -> FloatArray:
        """Mean over B1 normal to the field: what the field's own direction leaves of the sum over three axes."""
        rows = np.arange(len(directions))
        bra, ket = states[rows, :, upper].conj(), states[rows, :, lower]
        elements = np.einsum("ni,aij,nj->na", bra, self._slopes, ket) / ELECTRON_RAD_PER_NS_PER_T
        along = np.einsum("na,na->n", elements, directions)
        return (np.sum(np.abs(elements) ** 2, axis=1) - np.abs(along) ** 2) / 2


def _slope(states: ComplexArray, slopes: ComplexArray, lower: Any, upper: Any) -> FloatArray:
    """Derivative of the transition energy by the field (Hellmann and Feynman), rad/ns per tesla."""
    rows = np.arange(len(states))
    rates = []
    for level in (upper, lower):
        ket = states[rows, :, level]
        rates.append(np.einsum("ni,nij,nj->n", ket.conj(), slopes, ket).real)
    return rates[0] - rates[1]


def _hermite(first: FloatArray, last: FloatArray, rate_first: FloatArray, rate_last: FloatArray) -> list[FloatArray]:
    """Coefficients, constant first, of the cubic on [0, 1] with these values and derivatives at its ends."""
    change = last - first
    return [first, rate_first, 3 * change - 2 * rate_first - rate_last, rate_first + rate_last - 2 * change]


def _cubic(coefficients: list[FloatArray], position: Any) -> FloatArray:
    constant, linear, square, cube = coefficients
    return constant + position * (linear + position * (square + position * cube))


def _bisect(coefficients: list[FloatArray], first: float, last: float, negative: Any) -> FloatArray:
    """Root in [first, last] of cubics that are negative (or not) at `first` and of the other sign at `last`."""
    low, high = np.full(negative.shape, first), np.full(negative.shape, last)
    for _ in range(20):
        middle = (low + high) / 2
        same = (_cubic(coefficients, middle) < 0) == negative
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return (low + high) / 2
