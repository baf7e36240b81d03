"""Numbers with their unit, as files and command lines give them: ``"350 mT"``, ``"68 cm^-1"``."""

import math
import re
from decimal import Decimal
from typing import Any

from molecular_qubits.units import (
    BOLTZMANN_J_PER_K,
    CM1_J,
    CM1_TO_GHZ,
    EV_TO_CM1,
    MHZ_TO_CM1,
    MILLITESLA_TO_CM1,
)
from shared.config import nearest

UNITS: dict[str, dict[str, float]] = {
    "field": {"T": 1.0, "mT": 1e-3, "uT": 1e-6, "G": 1e-4, "kG": 0.1},
    "energy": {
        "cm^-1": 1.0,
        "MHz": MHZ_TO_CM1,
        "GHz": 1 / CM1_TO_GHZ,
        "meV": 1e-3 * EV_TO_CM1,
        "eV": EV_TO_CM1,
        "K": BOLTZMANN_J_PER_K / CM1_J,
        "mT": MILLITESLA_TO_CM1,
        "G": 0.1 * MILLITESLA_TO_CM1,
    },
    "time": {"ns": 1.0, "ps": 1e-3, "fs": 1e-6, "us": 1e3, "ms": 1e6, "s": 1e9},
    "temperature": {"K": 1.0, "mK": 1e-3},
    "length": {"angstrom": 1.0, "nm": 10.0, "pm": 0.01},
    "angle": {"deg": 1.0, "rad": 180.0 / math.pi},
}
"""Units of each kind in the package's own: tesla, cm^-1, ns, K, angstrom, degrees. An energy in mT has g = g_e."""

_OWN = {kind: next(iter(units)) for kind, units in UNITS.items()}
_PATTERN = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s].*?)?\s*")


def unit_factor(unit: Any, kind: str, name: str) -> float:
    """Return the factor from a unit to the package's own unit of that kind.

    Raises
    ------
    ValueError
        If the unit is missing or unknown; the message names the argument and the units.
    """
    units = UNITS[kind]
    if not isinstance(unit, str) or not unit:
        raise ValueError(f"Argument `{name}` must state its unit ({', '.join(units)}), but had none.")
    if unit not in units:
        raise ValueError(f"Argument `{name}` must have a unit of {kind}, but had {unit!r}; {nearest(unit, units)}")
    return units[unit]


def parse_quantity(text: Any, kind: str, name: str = "text") -> float:
    """Return a number with a unit in the package's own unit of that kind.

    Parameters
    ----------
    text
        Such as ``"350 mT"``; a bare number is refused.
    kind
        ``"field"`` (tesla), ``"energy"`` (cm^-1), ``"time"`` (ns), ``"temperature"`` (K), ``"length"`` (angstrom) or
        ``"angle"`` (degrees).
    name
        Name of the argument in error messages.

    Raises
    ------
    ValueError
        If it is no number with a unit of that kind.

    Examples
    --------
    >>> parse_quantity("350 mT", "field")
    0.35
    """
    example = f"'1 {_OWN[kind]}'"
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueError(
            f"Argument `{name}` must state its unit ({', '.join(UNITS[kind])}), but was the bare number {text}; write "
            f"'{text} {_OWN[kind]}' if that is meant."
        )
    found = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"Argument `{name}` must be a number with a unit, such as {example}, but was {text!r}.")
    factor = unit_factor(found[2], kind, name)
    value = float(Decimal(found[1]) * Decimal(repr(factor)))  # decimal, so that 350 mT is 0.35 T exactly
    if not math.isfinite(value):
        raise ValueError(f"Argument `{name}` must be finite, but was {text!r}.")
    return value


def parse_field_tesla(text: Any, name: str = "field") -> float:
    """Return a magnetic field such as ``"350 mT"`` or ``"3400 G"`` in tesla; a bare number is refused."""
    return parse_quantity(text, "field", name)
