"""One error bar for a computed exchange coupling, with the parts that it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.electronic.thermal_average import ThermalAverage

if TYPE_CHECKING:
    from molecular_qubits.electronic.exchange import ExchangeResult

PARTS = ("projection", "functional", "basis", "grid", "geometry", "convergence")
"""Sources of error, in the order of reports."""


@dataclass(frozen=True)
class ErrorBar:
    """A coupling with its error in cm^-1.

    Attributes
    ----------
    value_cm1
        The coupling that the error belongs to.
    parts_cm1
        Standard uncertainty by source, of those sources that were looked at.
    missing
        Sources that were not looked at: the error bar is a lower bound as long as there are any.
    thermal_spread_cm1
        Spread of the coupling among thermally moving molecules; a property of the sample, not an error of the mean, and
        not part of the total. ``None`` without a torsion average.
    """

    value_cm1: float
    parts_cm1: dict[str, float]
    missing: tuple[str, ...]
    thermal_spread_cm1: float | None = None

    @property
    def total_cm1(self) -> float:
        """Root of the sum of squares of the parts."""
        return float(np.sqrt(sum(part**2 for part in self.parts_cm1.values())))

    @property
    def resolved(self) -> bool:
        """Whether the coupling differs from zero by more than twice the error."""
        return abs(self.value_cm1) > 2 * self.total_cm1

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record with the total."""
        return {
            "value_cm1": self.value_cm1,
            "error_cm1": self.total_cm1,
            "parts_cm1": dict(self.parts_cm1),
            "missing": list(self.missing),
            "thermal_spread_cm1": self.thermal_spread_cm1,
            "resolved": self.resolved,
        }

    def __str__(self) -> str:
        """E.g. ``+68.4 ± 12.1 cm^-1 (projection 3.0, functional 11.7; without basis, grid, geometry)``."""
        parts = ", ".join(f"{name} {value:.2g}" for name, value in self.parts_cm1.items())
        rest = f"; without {', '.join(self.missing)}" if self.missing else ""
        return f"{self.value_cm1:+.4g} ± {self.total_cm1:.2g} cm^-1 ({parts or 'no part'}{rest})"


def combine_errors(
    value_cm1: float,
    *,
    projections_cm1: Sequence[float] | None = None,
    functionals_cm1: Mapping[str, float] | None = None,
    bases_cm1: Sequence[float] | None = None,
    grids_cm1: Sequence[float] | None = None,
    geometries_cm1: Sequence[float] | None = None,
    convergence_cm1: float | None = None,
    thermal: ThermalAverage | None = None,
) -> ErrorBar:
    """Combine the spreads of a coupling along each axis of the method into one error bar.

    Parameters
    ----------
    value_cm1
        The coupling, e.g. the Yamaguchi value, or the mean of `thermal`.
    projections_cm1
        The coupling by Yamaguchi, Noodleman and unprojected: any value between the extremes is equally likely, so that
        the part is their range over √12.
    functionals_cm1
        The coupling by each functional, at least 2: their sample standard deviation.
    bases_cm1, grids_cm1
        The coupling in a series of growing basis sets or finer grids, at least 2: the last step of the series, which
        bounds what is left of a series that converges.
    geometries_cm1
        The coupling at geometries of different methods or conformers that compete: sample standard deviation.
    convergence_cm1
        What is left by the convergence of the energies, see `molecular_qubits.electronic.projection.convergence_error`.
    thermal
        Torsion average; its spread is reported beside the error, not added to it.

    Returns
    -------
    ErrorBar
        The parts are taken as independent.

    Raises
    ------
    ValueError
        If a series is too short or a number is not finite.
    """
    given: dict[str, tuple[str, list[float]]] = {}
    series = {
        "projection": ("projections_cm1", projections_cm1),
        "functional": ("functionals_cm1", None if functionals_cm1 is None else list(functionals_cm1.values())),
        "basis": ("bases_cm1", bases_cm1),
        "grid": ("grids_cm1", grids_cm1),
        "geometry": ("geometries_cm1", geometries_cm1),
    }
    for part, (name, values) in series.items():
        if values is None:
            continue
        numbers = [float(value) for value in values]
        if len(numbers) < 2 or not np.all(np.isfinite(numbers)):
            raise ValueError(f"Argument `{name}` must hold at least 2 finite couplings, but is {values!r}.")
        given[part] = (name, numbers)
    if not np.isfinite(value_cm1):
        raise ValueError(f"Argument `value_cm1` must be finite, but is {value_cm1!r}.")
    if convergence_cm1 is not None and not 0 <= convergence_cm1 < np.inf:
        raise ValueError(f"Argument `convergence_cm1` must be finite and not negative, but is {convergence_cm1!r}.")
    rules = {
        "projection": lambda x: float(np.ptp(x) / np.sqrt(12)),
        "functional": lambda x: float(np.std(x, ddof=1)),
        "basis": lambda x: abs(x[-1] - x[-2]),
        "grid": lambda x: abs(x[-1] - x[-2]),
        "geometry": lambda x: float(np.std(x, ddof=1)),
    }
    parts = {part: rules[part](given[part][1]) for part in PARTS if part in given}
    if convergence_cm1 is not None:
        parts["convergence"] = float(convergence_cm1)
    spread = None if thermal is None else thermal.standard_deviation_cm1
    return ErrorBar(float(value_cm1), parts, tuple(part for part in PARTS if part not in parts), spread)


def ratio_or_bound(
    on_cm1: float, on_error_cm1: float, off_cm1: float, off_error_cm1: float
) -> tuple[float, float | None]:
    """Return |J_on / J_off|, or a lower bound where J_off is not resolved.

    Parameters
    ----------
    on_cm1, on_error_cm1
        Coupling in the excited state and its error.
    off_cm1, off_error_cm1
        Coupling in the ground state and its error; the error is at least the resolution of the method.

    Returns
    -------
    ratio, error
        Ratio with its relative errors combined; or, if |J_off| is at most twice its error, the lower bound
        (|J_on| - 2 error) / (|J_off| + 2 error), not below 0, with the error ``None``.

    Raises
    ------
    ValueError
        If a number is not finite or an error is negative, or ground coupling and error are both 0.
    """
    numbers = (on_cm1, on_error_cm1, off_cm1, off_error_cm1)
    if not np.all(np.isfinite(numbers)) or on_error_cm1 < 0 or off_error_cm1 < 0:
        raise ValueError(f"Couplings and errors must be finite and errors not negative, but are {numbers}.")
    if off_cm1 == 0 and off_error_cm1 == 0:
        raise ValueError("Argument `off_error_cm1` must be positive where `off_cm1` is 0: state the resolution.")
    if abs(off_cm1) <= 2 * off_error_cm1:
        return least_ratio(on_cm1, on_error_cm1, off_cm1, off_error_cm1), None
    ratio = abs(on_cm1 / off_cm1)
    relative = off_error_cm1 / abs(off_cm1)
    return ratio, float(np.hypot(on_error_cm1 / abs(off_cm1), ratio * relative))


def least_ratio(on_cm1: float, on_error_cm1: float, off_cm1: float, off_error_cm1: float) -> float:
    """Return (|J_on| - 2 error) / (|J_off| + 2 error), not below 0; arguments as for `ratio_or_bound`."""
    return max(0.0, (abs(on_cm1) - 2 * on_error_cm1) / (abs(off_cm1) + 2 * off_error_cm1))


def radical_triplet_exchange(result: ExchangeResult) -> dict[str, Any]:
    """Return the radical-triplet coupling of a result with its error bar.

    Returns
    -------
    dict
        ``j_on_cm1`` (Yamaguchi, mean over the pairs of a radical and a triplet), ``j_on_error_cm1``, ``projection``
        (Yamaguchi, Noodleman, unprojected) and ``not_in_the_error`` (sources of error that were not looked at; looked
        at are projection and convergence).

    Raises
    ------
    ValueError
        If the result has no pair of spins 1/2 and 1.
    """
    spins = result.spins
    pairs = [(i, j) for i in range(len(spins)) for j in range(len(spins)) if (spins[i], spins[j]) == (0.5, 1.0)]
    if not pairs:
        raise ValueError(f"The exchange result must have a radical (1/2) and a triplet (1), but has spins {spins}.")
    rows, columns = np.array(pairs).T
    projections = [
        float(np.mean(matrix[rows, columns]))
        for matrix in (result.j_yamaguchi_cm1, result.j_noodleman_cm1, result.j_unprojected_cm1)
    ]
    convergence = float(result.convergence_cm1[rows, columns].max())
    bar = combine_errors(projections[0], projections_cm1=projections, convergence_cm1=convergence)
    return {
        "j_on_cm1": projections[0],
        "j_on_error_cm1": bar.total_cm1,
        "projection": projections,
        "not_in_the_error": list(bar.missing),
    }
