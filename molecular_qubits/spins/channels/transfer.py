"""Decay between the electronic levels of the coupler, selective in the sublevels of the triplet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from molecular_qubits.spins.channels.base import Channel
from molecular_qubits.spins.checks import finite_number, non_negative
from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.system import QuantumSystem
from molecular_qubits.spins.unit import TwoQubitUnit


def coupler_transition(system: QuantumSystem, final: str, initial: str) -> ComplexArray:
    """Return |final><initial| of the coupler times the identity on the radicals, (20, 20).

    Parameters
    ----------
    system
        A `TwoQubitUnit`.
    final, initial
        ``S0``, ``S1``, ``Tx``, ``Ty`` or ``Tz``.

    Raises
    ------
    TypeError
        If the system has no coupler with electronic levels.
    """
    unit = _unit(system)
    operator = np.outer(unit.coupler_ket(final), unit.coupler_ket(initial).conj())
    return unit.site_operator(operator, "coupler")


def coupler_level(system: QuantumSystem, level: str) -> ComplexArray:
    """Return the projector (20, 20) on one electronic level of a `TwoQubitUnit`; a `TypeError` for other systems."""
    return _unit(system).level_projector(level)


@dataclass(frozen=True)
class IntersystemCrossing(Channel):
    """S1 -> T at a rate shared among the zero-field sublevels; the radicals keep their state.

    Parameters
    ----------
    rate_per_ns
        Total rate.
    populations_xyz
        Shares of Tx, Ty and Tz, which must sum to 1.
    """

    rate_per_ns: float
    populations_xyz: Sequence[float] = (1 / 3, 1 / 3, 1 / 3)

    def __post_init__(self) -> None:
        non_negative(self.rate_per_ns, "rate_per_ns")
        shares = _three(self.populations_xyz, "populations_xyz")
        if abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"Argument `populations_xyz` must sum to 1, but sums to {sum(shares):.12g}.")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return one jump operator for each sublevel, shape (3, D, D)."""
        return np.array(
            [
                np.sqrt(self.rate_per_ns * share) * coupler_transition(system, final, "S1")
                for share, final in zip(self.populations_xyz, ("Tx", "Ty", "Tz"), strict=True)
            ]
        )


@dataclass(frozen=True)
class Emission(Channel):
    """S1 -> S0, radiative and not, at one rate.

    Parameters
    ----------
    rate_per_ns
        Inverse lifetime of S1 without intersystem crossing.
    """

    rate_per_ns: float

    def __post_init__(self) -> None:
        non_negative(self.rate_per_ns, "rate_per_ns")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operator, shape (1, D, D)."""
        return np.sqrt(self.rate_per_ns) * coupler_transition(system, "S0", "S1")[None]


@dataclass(frozen=True)
class TripletDecay(Channel):
    """T -> S0, at its own rate from each zero-field sublevel; the radicals keep their state.

    Parameters
    ----------
    rates_per_ns_xyz
        Rates from Tx, Ty and Tz.
    """

    rates_per_ns_xyz: Sequence[float]

    def __post_init__(self) -> None:
        _three(self.rates_per_ns_xyz, "rates_per_ns_xyz")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return one jump operator for each sublevel, shape (3, D, D)."""
        return np.array(
            [
                np.sqrt(rate) * coupler_transition(system, "S0", initial)
                for rate, initial in zip(self.rates_per_ns_xyz, ("Tx", "Ty", "Tz"), strict=True)
            ]
        )


def _three(values: Sequence[float], name: str) -> tuple[float, ...]:
    if len(values) != 3:
        raise ValueError(f"Argument `{name}` must hold 3 numbers (x, y, z), but holds {len(values)}.")
    return tuple(non_negative(finite_number(value, name), name) for value in values)


def _unit(system: QuantumSystem) -> TwoQubitUnit:
    if not isinstance(system, TwoQubitUnit):
        raise TypeError(
            f"Argument `system` must be a TwoQubitUnit for a channel that refers to the electronic levels of the "
            f"coupler, but was a {type(system).__name__}."
        )
    return system
