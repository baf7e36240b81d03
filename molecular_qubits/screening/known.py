"""Couplings of an earlier run as a file: what was computed on one machine need not be on another."""

from __future__ import annotations

import json
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
        If the file cannot be read, or a line is not a coupling; the message names the line.
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
            [float(record["j_cm1"]), float(record["resolution_cm1"]), *map(float, record["projections_cm1"])]
            found[identity(entry["key"])] = KnownCoupling(entry["name"], entry["state"], entry["key"], record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = "is no JSON" if isinstance(error, json.JSONDecodeError) else "is none"
            why = f"lacks {error}" if isinstance(error, KeyError) else why
            raise ValueError(
                f"Argument `known` must name a file of couplings with {', '.join(_FIELDS)} in each line, but line "
                f"{number} of {str(path)!r} {why}."
            ) from error
    return found
