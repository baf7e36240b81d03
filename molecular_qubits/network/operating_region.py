"""What the chemistry must reach for a given error rate: J, T2 and the lifetime of the triplet, all at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.control.fidelity import target_gate
from molecular_qubits.network import transfer
from molecular_qubits.network.coupler_gate import CouplerNoise, calibrate
from molecular_qubits.spins.operators import FloatArray
from shared.progress import track

if TYPE_CHECKING:
    import xarray

LARGEST_FACTOR = 64.0
"""T2 and lifetime are raised together to at most so many times what each needs alone."""


def cycle_error(
    coupler: CouplerNoise, target: str, t1_ns: float, t2_ns: float, rotation_ns: float
) -> tuple[float, float]:
    """Return the error of the best coupler gate, and of a cycle: the gate, then a rotation by pi/2 on both radicals.

    Parameters
    ----------
    coupler
        The chemistry of the bond.
    target
        Entangling gate (`molecular_qubits.control.fidelity.TARGETS`).
    t1_ns, t2_ns
        Relaxation of both radicals.
    rotation_ns
        Length of the rotation.

    Returns
    -------
    gate, cycle : float
        1 minus the average gate fidelity.
    """
    entangler = target_gate(target)
    gate = calibrate(coupler, entangler, ((t1_ns, t2_ns),) * 2)
    turn = transfer.driven(np.pi / 2, 0.0, rotation_ns, t1_ns, t2_ns)
    ideal = transfer.driven(np.pi / 2, 0.0, rotation_ns, 1e30, 1e30)
    both, wanted = transfer.on_both(turn, turn), transfer.on_both(ideal, ideal)
    cycle = transfer.average_fidelity(both @ gate.transfer, wanted @ transfer.from_unitary(entangler))
    return 1 - gate.fidelity, 1 - cycle


@dataclass(frozen=True)
class Cycles:
    """Cycles of a coupler's gate and rotations, all of their chemistry fixed but J, T2 and the triplet's lifetime.

    Attributes
    ----------
    coupler
        All else of the chemistry.
    target
        Entangling gate.
    rotation_ns
        Length of the rotations; see `molecular_qubits.network.pulses.rotation_times`.
    longest_hold
        Longest hold tried, times 1 / J (ns cm^-1); ``None``: that of the coupler, whatever J is.
    """

    coupler: CouplerNoise
    target: str
    rotation_ns: float
    longest_hold: float | None = None

    def errors(self, j_cm1: float, t2_ns: float, lifetime_ns: float) -> tuple[float, float]:
        """Return the errors of gate and cycle, both radicals alike.

        T1 is 50 times T2, or 100 us if that is more.
        """
        changed = self.coupler.model_copy(update={"j_on_cm1": (j_cm1, j_cm1), "triplet_lifetime_ns": lifetime_ns})
        if self.longest_hold is not None:
            changed = changed.model_copy(update={"max_hold_ns": self.longest_hold / j_cm1})
        return cycle_error(changed, self.target, max(1e5, 50 * t2_ns), t2_ns, self.rotation_ns)


def operating_region(
    cycles: Cycles, *, j_cm1: Sequence[float], t2_ns: Sequence[float], lifetime_ns: Sequence[float]
) -> xarray.Dataset:
    """Return the errors of gate and cycle for all J, T2 and lifetimes of the triplet.

    Parameters
    ----------
    cycles
        What is fixed.
    j_cm1, t2_ns, lifetime_ns
        The axes.

    Returns
    -------
    xarray.Dataset
        ``gate`` and ``cycle`` along ``t2_ns``, ``lifetime_ns`` and ``j_cm1``.
    """
    import xarray

    cells = [(j, t2, lifetime) for lifetime in lifetime_ns for j in j_cm1 for t2 in t2_ns]
    found = np.array([cycles.errors(*cell) for cell in track(cells, "operating region")])
    found = found.reshape(len(lifetime_ns), len(j_cm1), len(t2_ns), 2).transpose(2, 0, 1, 3)
    axes = ("t2_ns", "lifetime_ns", "j_cm1")
    return xarray.Dataset(
        {kind: (axes, found[..., place]) for place, kind in enumerate(("gate", "cycle"))},
        dict(zip(axes, (list(t2_ns), list(lifetime_ns), list(j_cm1)), strict=True)),
    )


def smallest(values: FloatArray, axis: Sequence[float], limit: float) -> float | None:
    """Return the smallest value on an axis from which on an error (n,) stays at or below a limit, interpolated.

    ``None`` if it does not at the end of the axis. Between the points the logarithms are linear.
    """
    above = np.flatnonzero(np.asarray(values) > limit)
    if not above.size:
        return float(axis[0])
    last = int(above[-1])
    return None if last + 1 == len(axis) else _crossing(values, axis, last, limit)


def kept_intervals(values: FloatArray, axis: Sequence[float], limit: float) -> list[tuple[float | None, float | None]]:
    """Return where on an axis an error (n,) is at or below a limit, interpolated as in `smallest`.

    ``None`` stands for an end of the axis: how far the interval goes beyond it is not known. Between two points of the
    axis nothing is known but what they interpolate.
    """
    inside = np.concatenate([[False], np.asarray(values) <= limit, [False]])
    begins = np.flatnonzero(inside[1:] & ~inside[:-1])
    ends = np.flatnonzero(~inside[1:] & inside[:-1]) - 1
    found: list[tuple[float | None, float | None]] = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        low = None if begin == 0 else _crossing(values, axis, begin - 1, limit)
        high = None if end == len(axis) - 1 else _crossing(values, axis, end, limit)
        found.append((low, high))
    return found


@dataclass(frozen=True)
class Chemistry:
    """A point at which a cycle keeps an error rate.

    Attributes
    ----------
    j_cm1, t2_ns, lifetime_ns
        The point; T2 and lifetime rounded up to two digits.
    error
        Of a cycle there, computed with all three at once.
    """

    j_cm1: float
    t2_ns: float
    lifetime_ns: float
    error: float


def smallest_together(cycles: Cycles, region: xarray.Dataset, limit: float) -> Chemistry | None:
    """Return the J, T2 and lifetime that keep an error rate together, with the smallest product of T2 and lifetime.

    For each J of the region T2 and lifetime are raised by the same factor above what each would need with the largest
    of the other: as the errors add, that is where their product is smallest. J is chosen on the region, the factor
    found by computing cycles.

    Parameters
    ----------
    cycles
        What is fixed.
    region
        Of these cycles, from `operating_region`.
    limit
        Of the error of a cycle.

    Returns
    -------
    Chemistry or None
        ``None`` if no J of the region keeps the limit with the largest T2 and lifetime.
    """
    t2, lifetime = (region[name].values.tolist() for name in ("t2_ns", "lifetime_ns"))
    starts = []
    for k, j in enumerate(region["j_cm1"].values.tolist()):
        errors = region["cycle"].values[..., k]
        least_t2, least_lifetime = smallest(errors[:, -1], t2, limit), smallest(errors[-1], lifetime, limit)
        if least_t2 is None or least_lifetime is None:
            continue
        factors = np.geomspace(1, LARGEST_FACTOR, 121)
        along = _interpolated(errors, t2, lifetime, factors * least_t2, factors * least_lifetime)
        factor = smallest(along, factors.tolist(), limit)
        if factor is not None:
            starts.append((factor**2 * least_t2 * least_lifetime, j, (least_t2, least_lifetime), factor))
    for _, j, alone, factor in sorted(starts):
        found = _raised(cycles, j, alone, factor, limit)
        if found is not None:
            return found
    return None


def _raised(cycles: Cycles, j_cm1: float, alone: tuple[float, float], guess: float, limit: float) -> Chemistry | None:
    """Return the point with the smallest factor on T2 and lifetime, to one per cent."""

    def error(factor: float) -> float:
        return cycles.errors(j_cm1, factor * alone[0], factor * alone[1])[1]

    low, high = guess / 1.05, guess
    while error(high) > limit:
        low, high = high, 1.1 * high
        if high > LARGEST_FACTOR:
            return None
    while low > 1 and error(low) <= limit:
        low, high = max(low / 1.1, 1.0), low
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if error(middle) <= limit else (middle, high)
    t2, lifetime = (_two_digits_up(high * value) for value in alone)
    return Chemistry(j_cm1, t2, lifetime, cycles.errors(j_cm1, t2, lifetime)[1])


def _two_digits_up(value: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit * (1 - 1e-12)) * unit:.6g}")


def _crossing(values: FloatArray, axis: Sequence[float], place: int, limit: float) -> float:
    """Return where the line through two neighbouring points crosses the limit, both axes logarithmic."""
    x, y = np.log([axis[place], axis[place + 1]]), np.log(np.maximum([values[place], values[place + 1]], 1e-300))
    return float(np.exp(x[0] + (np.log(limit) - y[0]) / (y[1] - y[0]) * (x[1] - x[0])))


def _interpolated(
    errors: FloatArray, t2_ns: Sequence[float], lifetime_ns: Sequence[float], at_t2: FloatArray, at_lifetime: FloatArray
) -> FloatArray:
    """Return the error (k,) at points inside the axes (clipped to them), linear in the logarithms."""
    from scipy.interpolate import RegularGridInterpolator

    grid = RegularGridInterpolator((np.log(t2_ns), np.log(lifetime_ns)), np.log(errors))
    places = [np.log(np.clip(at, axis[0], axis[-1])) for at, axis in ((at_t2, t2_ns), (at_lifetime, lifetime_ns))]
    return np.asarray(np.exp(grid(np.stack(places, axis=-1))))
