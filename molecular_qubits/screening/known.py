"""Couplings of an earlier run as a file: what was computed on one machine need not be on another."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molecular_qubits.screening.library import SHIPPED
from molecular_qubits.screening.stages import Job
from shared.artifacts import content_hash, write_text
from shared.files import reason

SHIPPED_COUPLINGS = SHIPPED.parent / "couplings.jsonl"
"""Couplings of the shipped library, by the levels that were computed."""

_FIELDS = ("j_cm1", "projections_cm1", "resolution_cm1")


@dataclass(frozen=True)
class KnownCoupling:
    """A computed coupling: what it depends on, versions included, and the record of `run_job`."""

    name: str
    state: str
    key: dict[str, Any]
    record: dict[str, Any]

    @classmethod
    def of(cls, job: Job, record: dict[str, Any]) -> KnownCoupling:
        """Return the coupling that a job gave."""
        return cls(job.name, job.state, job.key, record)


def identity(key: Mapping[str, Any]) -> str:
    """Return the hash of what a coupling depends on: structure, level and versions of the packages, not of Python."""
    packages = {name: version for name, version in key["versions"].items() if name != "python"}
    return content_hash({**key, "versions": packages})


def write_known(couplings: Iterable[KnownCoupling], path: str | Path) -> None:
    """Write couplings, one JSON object a line."""
    lines = [json.dumps(vars(coupling), allow_nan=False, separators=(",", ":")) for coupling in couplings]
    write_text(path, "".join(line + "\n" for line in lines))


def read_known(path: str | Path) -> dict[str, KnownCoupling]:
    """Read what `write_known` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        Couplings by the `identity` of what they depend on.

    Raises
    ------
    ValueError
        If the file cannot be read, or a line is not a coupling: a field is missing, or one is no finite number, or the
        resolution is negative. The message names the line and the field.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Argument `known` must name a file of couplings, but {str(path)!r} cannot be read: {reason(error)}."
        ) from error
    found: dict[str, KnownCoupling] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = json.loads(line)
            record = {**entry["record"]}
            fault = _fault(record)
            found[identity(entry["key"])] = KnownCoupling(entry["name"], entry["state"], entry["key"], record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fault = "is no JSON" if isinstance(error, json.JSONDecodeError) else "is none"
            fault = f"lacks {error}" if isinstance(error, KeyError) else fault
        if fault:
            raise ValueError(
                f"Argument `known` must name a file of couplings with {', '.join(_FIELDS)} in each line, but line "
                f"{number} of {str(path)!r} {fault}."
            )
    return found


def _fault(record: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the numbers of a coupling, or ``None``."""
    for name in ("j_cm1", "resolution_cm1"):
        if not _is_finite(record[name]):
            return f"has {name} {record[name]!r}, which must be a finite number"
    if record["resolution_cm1"] < 0:
        return f"has resolution_cm1 {record['resolution_cm1']!r}, which must not be negative"
    for name in ("projections_cm1", *(["pairs_cm1"] if "pairs_cm1" in record else [])):
        numbers = record[name]
        if not isinstance(numbers, list) or len(numbers) < 2 or not all(map(_is_finite, numbers)):
            return f"has {name} {numbers!r}, which must be a list of at least 2 finite numbers"
    return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
