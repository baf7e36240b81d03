"""A spin system as a JSON file in which every number states its unit, and J, D and E state their convention.

    {
      "format": "spin system",
      "version": 1,
      "conventions": {"exchange": "-2 J S1.S2", "zfs": "D (Sz^2 - S(S+1)/3) + E (Sx^2 - Sy^2)"},
      "spins": [
        {"name": "radical", "spin": 0.5, "g": 2.0057},
        {"name": "triplet", "spin": 1, "zfs": {"d": "0.071 cm^-1", "e": "-0.008 cm^-1", "frame": {"euler_zyz": ...}}},
        {"name": "nitrogen", "isotope": "14N"}
      ],
      "couplings": [
        {"between": ["radical", "triplet"], "exchange": "68 cm^-1"},
        {"between": ["radical", "nitrogen"], "hyperfine": "1.4 mT"}
      ],
      "field": "350 mT"
    }

`molecular_qubits.spins.spin_system_schema.SCHEMA` describes it as JSON Schema.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits.spins.checks import field_vector
from molecular_qubits.spins.frames import euler_frame, oriented
from molecular_qubits.spins.operators import FloatArray
from molecular_qubits.spins.point_dipoles import point_dipole_tensors
from molecular_qubits.spins.quantities import parse_quantity, unit_factor
from molecular_qubits.spins.spin_system_schema import (
    COUPLING_KEYS,
    EXCHANGE_CONVENTIONS,
    FORMAT,
    SPIN_KEYS,
    TOP_KEYS,
    VERSION,
    ZFS_CONVENTIONS,
)
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import rotation_frame
from molecular_qubits.structure.nuclei import isotope
from molecular_qubits.units import G_ELECTRON
from shared.artifacts import write_json
from shared.config import nearest
from shared.files import reason


class SpinSystemFileError(ValueError):
    """A spin-system file that cannot be read; the message says where and what to write."""


@dataclass(frozen=True)
class SpinSystemFile:
    """What a file holds.

    Attributes
    ----------
    system
        The spins.
    field_tesla
        The field, shape (3,), or None if the file states none.
    """

    system: SpinSystem
    field_tesla: FloatArray | None = None


def load_spin_system(path: str | Path) -> SpinSystemFile:
    """Read a spin-system file.

    Parameters
    ----------
    path
        JSON file as described in this module.

    Raises
    ------
    SpinSystemFileError
        If it is not JSON, a key is unknown (the nearest valid one is named), a number has no unit, or J, D or E has no
        convention (the message says what to add).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpinSystemFileError(f"The spin-system file {str(path)!r} cannot be read: {reason(error)}.") from error
    return parse_spin_system(text)


def parse_spin_system(text: str) -> SpinSystemFile:
    """Read the text of a spin-system file; see `load_spin_system`."""
    try:
        data = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise SpinSystemFileError(f"The spin-system file is not valid JSON: {error}.") from error
    try:
        return _read(data)
    except SpinSystemFileError:
        raise
    except ValueError as error:  # the checks of the tensors and of SpinSystem, which name the argument
        raise SpinSystemFileError(str(error)) from error


def save_spin_system(path: str | Path, system: SpinSystem, field_tesla: Any = None) -> None:
    """Write a spin system; reading it back gives the same numbers to the last bit.

    Parameters
    ----------
    path
        File to write; it appears only when complete.
    system
        The spins.
    field_tesla
        A field to keep with it: along z, or a vector of three.
    """
    write_json(path, spin_system_to_dict(system, field_tesla))


def spin_system_to_dict(system: SpinSystem, field_tesla: Any = None) -> dict[str, Any]:
    """Return the content of the file of a spin system, in cm^-1 and with -2 J S1.S2."""
    spins: list[dict[str, Any]] = []
    for index, name in enumerate(system.names):
        entry: dict[str, Any] = {"name": name}
        if index in system.isotopes:
            entry["isotope"] = system.isotopes[index]
            entry["g"] = system.nuclear_g(index)
        else:
            entry["spin"] = system.spins[index]
            entry["g"] = {"matrix": system.g[index].tolist()}
        if index in system.zfs:
            entry["zfs"] = {"matrix": system.zfs[index].tolist(), "unit": "cm^-1"}
        spins.append(entry)
    couplings = [
        {"between": [system.names[i], system.names[j]], kind: value}
        for kind, values in (
            ("exchange", {pair: f"{j!r} cm^-1" for pair, j in system.exchange_cm1.items()}),
            ("dipolar", {p: {"matrix": t.tolist(), "unit": "cm^-1"} for p, t in system.dipolar.items()}),
            ("hyperfine", {p: {"matrix": t.tolist(), "unit": "cm^-1"} for p, t in system.hyperfine.items()}),
        )
        for (i, j), value in values.items()
    ]
    data: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if system.exchange_cm1:
        data["conventions"] = {"exchange": "-2 J S1.S2"}
    data |= {"spins": spins, "couplings": couplings}
    if field_tesla is not None:
        data["field"] = [f"{component!r} T" for component in field_vector(field_tesla).tolist()]
    return data


def _read(data: Any) -> SpinSystemFile:
    _keys(data, TOP_KEYS, "file")
    if data.get("format") != FORMAT or data.get("version") != VERSION:
        raise SpinSystemFileError(
            f'The file must start with "format": "{FORMAT}", "version": {VERSION}, but has format '
            f"{data.get('format')!r}, version {data.get('version')!r}."
        )
    conventions = data.get("conventions", {})
    _keys(conventions, ("exchange", "zfs"), "conventions")
    spins = data.get("spins")
    if not isinstance(spins, list) or not spins:
        raise SpinSystemFileError('The file must have "spins", a list of at least one spin.')
    names: list[str] = []
    values: list[float] = []
    g: list[Any] = []
    isotopes: dict[int, str] = {}
    zfs: dict[int, FloatArray] = {}
    positions: list[Any] = []
    for index, entry in enumerate(spins):
        where = f"spins[{index}]"
        _keys(entry, SPIN_KEYS, where)
        if not isinstance(entry.get("name"), str):
            raise SpinSystemFileError(f'{where} must have a "name", a text.')
        if entry["name"] in names:
            raise SpinSystemFileError(
                f"{where}: spins must have different names, but {entry['name']!r} is given twice."
            )
        names.append(entry["name"])
        if ("spin" in entry) == ("isotope" in entry):
            raise SpinSystemFileError(f'{where} must have "spin" (an electron) or "isotope" (a nucleus), one of them.')
        if "isotope" in entry:
            isotopes[index] = entry["isotope"]
            values.append(isotope(entry["isotope"], f"{where}.isotope").spin)
            g.append(None if "g" not in entry else _number(entry["g"], f"{where}.g"))
        else:
            values.append(_number(entry["spin"], f"{where}.spin"))
            g.append(_g(entry.get("g", G_ELECTRON), f"{where}.g"))
        if "zfs" in entry:
            zfs[index] = _zfs(entry["zfs"], conventions, f"{where}.zfs")
        positions.append(_position(entry["position"], f"{where}.position") if "position" in entry else None)
    exchange, dipolar, hyperfine = _couplings(data.get("couplings", []), names, conventions, (positions, g, isotopes))
    system = SpinSystem(
        values,
        g,
        exchange_cm1=exchange,
        zfs=zfs,
        dipolar=dipolar,
        names=names,
        isotopes=isotopes,
        hyperfine=hyperfine,
    )
    return SpinSystemFile(system, _field(data["field"]) if "field" in data else None)


def _couplings(entries: Any, names: list[str], conventions: dict[str, Any], sites: tuple[Any, Any, Any]) -> Any:
    if not isinstance(entries, list):
        raise SpinSystemFileError('"couplings" must be a list.')
    exchange: dict[tuple[int, int], float] = {}
    dipolar: dict[tuple[int, int], Any] = {}
    hyperfine: dict[tuple[int, int], Any] = {}
    for number, entry in enumerate(entries):
        where = f"couplings[{number}]"
        _keys(entry, COUPLING_KEYS, where)
        between = entry.get("between")
        if not isinstance(between, list) or len(between) != 2 or between[0] == between[1]:
            raise SpinSystemFileError(f'{where} must have "between", the names of two different spins.')
        for name in between:
            if name not in names:
                raise SpinSystemFileError(f"{where} names no spin {name!r}: {nearest(str(name), names)}")
        first, second = sorted(names.index(name) for name in between)
        pair = (first, second)
        for key, found in (("exchange", exchange), ("dipolar", dipolar), ("hyperfine", hyperfine)):
            if key in entry and pair in found:
                raise SpinSystemFileError(f"{where} gives {key} of {between[0]!r} and {between[1]!r} a second time.")
        if "exchange" in entry:
            factor = _convention(conventions, "exchange", EXCHANGE_CONVENTIONS, f"the J of {where}")
            exchange[pair] = factor * parse_quantity(entry["exchange"], "energy", f"{where}.exchange")
        if entry.get("dipolar") == "from positions":
            dipolar[pair] = _from_positions(pair, names, sites, where)
        elif "dipolar" in entry:
            dipolar[pair] = _tensor(entry["dipolar"], f"{where}.dipolar")
        if "hyperfine" in entry:
            hyperfine[pair] = _tensor(entry["hyperfine"], f"{where}.hyperfine")
    return exchange, dipolar, hyperfine


def _convention(conventions: dict[str, Any], kind: str, known: dict[str, float], what: str) -> float:
    if kind not in conventions:
        choices = " or ".join(f'"{name}"' for name in known)
        raise SpinSystemFileError(
            f'The convention of {what} is not stated; add "conventions": {{"{kind}": ...}} with {choices}.'
        )
    if conventions[kind] not in known:
        raise SpinSystemFileError(
            f"conventions.{kind} is {conventions[kind]!r}, which is not known: {nearest(str(conventions[kind]), known)}"
        )
    return known[conventions[kind]]


def _zfs(entry: Any, conventions: dict[str, Any], where: str) -> FloatArray:
    if isinstance(entry, dict) and ("matrix" in entry or "principal" in entry):
        return _tensor(entry, where)
    _keys(entry, ("d", "e", "frame", "matrix", "principal", "unit"), where)
    if "d" not in entry:
        raise SpinSystemFileError(f'{where} must have "d" (and "e"), or "matrix" or "principal" with "unit".')
    sign = _convention(conventions, "zfs", ZFS_CONVENTIONS, f"the D and E of {where}")
    d = parse_quantity(entry["d"], "energy", f"{where}.d")
    e = sign * parse_quantity(entry["e"], "energy", f"{where}.e") if "e" in entry else 0.0
    return oriented((e - d / 3, -e - d / 3, 2 * d / 3), _frame(entry.get("frame"), f"{where}.frame"))


def _tensor(entry: Any, where: str) -> FloatArray:
    if not isinstance(entry, dict):
        return parse_quantity(entry, "energy", where) * np.eye(3)
    _keys(entry, ("matrix", "principal", "unit", "frame"), where)
    return unit_factor(entry.get("unit"), "energy", f"{where}.unit") * _shape(entry, where)


def _g(entry: Any, where: str) -> Any:
    if isinstance(entry, dict):
        _keys(entry, ("matrix", "principal", "frame"), where)
        return _shape(entry, where)
    return _number(entry, where)


def _shape(entry: dict[str, Any], where: str) -> FloatArray:
    """Return the numbers of ``matrix``, or of ``principal`` in ``frame``, without unit."""
    if ("matrix" in entry) == ("principal" in entry):
        raise SpinSystemFileError(f'{where} must have "matrix" (3 rows) or "principal" (3 values), one of them.')
    if "principal" in entry:
        return oriented(entry["principal"], _frame(entry.get("frame"), f"{where}.frame"))
    if "frame" in entry:
        raise SpinSystemFileError(f'{where} must not have "frame" beside "matrix", which is in the laboratory frame.')
    try:
        matrix = np.array(entry["matrix"], dtype=float)
    except (TypeError, ValueError) as error:
        raise SpinSystemFileError(f"{where}.matrix must be 3 rows of 3 numbers.") from error
    if matrix.shape != (3, 3) or not np.all(np.isfinite(matrix)):
        raise SpinSystemFileError(f"{where}.matrix must be 3 rows of 3 finite numbers, but has shape {matrix.shape}.")
    return matrix


def _frame(entry: Any, where: str) -> FloatArray:
    if entry is None:
        return np.eye(3)
    _keys(entry, ("euler_zyz", "axes"), where)
    if ("euler_zyz" in entry) == ("axes" in entry):
        raise SpinSystemFileError(f'{where} must have "euler_zyz" (3 angles) or "axes" (rotation matrix), one of them.')
    if "axes" in entry:
        return rotation_frame(entry["axes"], f"{where}.axes")
    angles = entry["euler_zyz"]
    if not isinstance(angles, list) or len(angles) != 3:
        raise SpinSystemFileError(f"{where}.euler_zyz must be a list of 3 angles, such as '30 deg'.")
    return euler_frame([parse_quantity(angle, "angle", f"{where}.euler_zyz") for angle in angles])


def _position(entry: Any, where: str) -> FloatArray:
    if not isinstance(entry, list) or len(entry) != 3:
        raise SpinSystemFileError(f"{where} must be a list of 3 lengths, such as '5.1 angstrom'.")
    return np.array([parse_quantity(length, "length", where) for length in entry])


def _from_positions(pair: tuple[int, int], names: list[str], sites: tuple[Any, Any, Any], where: str) -> FloatArray:
    positions, g, isotopes = sites
    for index in pair:
        if positions[index] is None:
            raise SpinSystemFileError(f'{where}.dipolar is "from positions", but {names[index]!r} has no "position".')
    only = [positions[index] if index in pair else None for index in range(len(positions))]
    return point_dipole_tensors(only, g, isotopes)[pair]


def _field(entry: Any) -> FloatArray:
    if isinstance(entry, list):
        if len(entry) != 3:
            raise SpinSystemFileError(f"field must be one field (along z) or a list of 3, but has {len(entry)}.")
        return np.array([parse_quantity(component, "field", "field") for component in entry])
    return np.array([0.0, 0.0, parse_quantity(entry, "field", "field")])


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpinSystemFileError(f"{where} must be a number, but was {value!r}.")
    return float(value)


def _keys(value: Any, valid: tuple[str, ...], where: str) -> None:
    if not isinstance(value, dict):
        raise SpinSystemFileError(f"{where} must be an object with keys, but was {value!r}.")
    for key in value:
        if key not in valid:
            raise SpinSystemFileError(f"Unknown key {key!r} in {where}: {nearest(key, valid)}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise SpinSystemFileError(f"Key {next(key for key in keys if keys.count(key) > 1)!r} is given twice.")
    return found


def _no_constant(name: str) -> Any:
    raise SpinSystemFileError(f"The file holds {name}; numbers must be finite.")
