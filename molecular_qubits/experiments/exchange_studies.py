"""Studies of exchange couplings that take hours: committed row by row, resumable.

``python -m molecular_qubits.experiments.exchange_studies mono-torsion`` computes what is missing of a study and writes
``data/exchange/mono-torsion.json``. Every cycle is checkpointed and every state cached: a killed run continues.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from molecular_qubits.experiments.exchange_rows import Calculation, row
from shared.artifacts import Cache, provenance, write_json
from shared.cli import run_command
from shared.progress import say

DATA = Path(__file__).resolve().parent / "data" / "exchange"
FUNCTIONALS = ("pbe", "b3lyp", "pbe0", "cam-b3lyp", "bhandhlyp", "r2scan")
BASES = ("6-31g*", "def2-svp", "def2-tzvp")
MONO_DEGREES = (50.0, 70.0, 90.0, 40.0, 60.0, 80.0, 30.0)

STUDIES: dict[str, tuple[Calculation, ...]] = {
    "mono-torsion": tuple(Calculation("mono", torsion_degrees=degrees) for degrees in MONO_DEGREES),
    "mono-functional": tuple(Calculation("mono", xc=xc, torsion_degrees=50.0) for xc in FUNCTIONALS),
}
"""Calculations of each study, the most telling ones first."""


def path_of(study: str) -> Path:
    """Return the committed file of a study."""
    return DATA / f"{study}.json"


def read(study: str) -> dict[str, Any]:
    """Return a committed study: ``rows`` and ``runs`` (provenance of each run that added rows)."""
    return json.loads(path_of(study).read_text(encoding="utf-8"))


def run(study: str, calculations: Sequence[Calculation] | None = None, *, cache: Cache | None = None) -> dict[str, Any]:
    """Compute the missing rows of a study and write its file after each of them.

    Parameters
    ----------
    study
        Name of the file, and of an entry of `STUDIES` if `calculations` is ``None``.
    calculations
        What the rows compute.
    cache
        Cache of determinants; the user's cache folder if ``None``.

    Returns
    -------
    dict
        As `read`.
    """
    path = path_of(study)
    record: dict[str, Any] = read(study) if path.exists() else {"study": study, "rows": [], "runs": []}
    wanted = STUDIES[study] if calculations is None else calculations
    done = {json.dumps({name: r[name] for name in Calculation("mono").key()}, sort_keys=True) for r in record["rows"]}
    started, info = time.monotonic(), provenance()
    for number, calculation in enumerate(wanted, 1):
        if json.dumps(calculation.key(), sort_keys=True) in done:
            continue
        say(f"{study}: {number} of {len(wanted)}: {calculation}")
        record["rows"].append(row(calculation, cache))
        runs = [made for made in record["runs"] if made["time_utc"] != info["time_utc"]]
        record["runs"] = [*runs, info | {"seconds": round(time.monotonic() - started, 1)}]
        write_json(path, record)
    return record


def main(argv: list[str] | None = None) -> int:
    """Compute the studies named."""
    parser = argparse.ArgumentParser(
        prog="python -m molecular_qubits.experiments.exchange_studies", description=__doc__
    )
    parser.add_argument("studies", nargs="+", choices=tuple(STUDIES))
    parser.add_argument("--cache", type=Path, default=None, metavar="FOLDER", help="cache and checkpoints")
    arguments = parser.parse_args(argv)

    def compute() -> None:
        for study in arguments.studies:
            run(study, cache=None if arguments.cache is None else Cache(arguments.cache, name="scf"))

    return run_command(compute)


if __name__ == "__main__":
    raise SystemExit(main())
