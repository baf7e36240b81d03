"""Studies of exchange couplings that take hours: committed row by row, resumable.

``python -m molecular_qubits.experiments.exchange_studies mono-torsion`` computes what is missing of a study and writes
``data/exchange/mono-torsion.json``; ``--where xc=b3lyp`` computes some of its rows, ``--again`` those that are there,
too. Every cycle is checkpointed and every state cached: a killed run continues.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from molecular_qubits.experiments.exchange_rows import Calculation
from molecular_qubits.experiments.exchange_rows import row as compute_row
from shared.artifacts import Cache, provenance, write_json
from shared.cli import run_command
from shared.progress import say

DATA = Path(__file__).resolve().parent / "data" / "exchange"
FUNCTIONALS = ("pbe", "b3lyp", "pbe0", "cam-b3lyp", "bhandhlyp", "r2scan")
OTHER_FUNCTIONALS = tuple(xc for xc in FUNCTIONALS if xc != "b3lyp")
BASES = ("6-31g*", "def2-svp", "def2-tzvp")
PUBLISHED: dict[str, Any] = json.loads((DATA.parents[2] / "reference" / "diradicals.json").read_text(encoding="utf-8"))
"""Published gaps of diradicals, each with its source."""

RELAXED_BY_UKS = (
    "p-benzyne", "m-xylylene", "tetraoxatetramethylenebenzene", "tetramethylenebenzene", "oxyallyl", "m-benzoquinone",
)  # fmt: skip
"""Small hydrocarbons and their like, for which a relaxation by UKS takes minutes to an hour; it resumes."""

MONO_DEGREES = (50.0, 70.0, 90.0, 40.0, 60.0, 80.0, 30.0)

RADICAL_TORSION = (1, 2, 3, 4)
"""Torsion of the mono-radical between iminonitroxide and phenylene."""

SMALL = "naphthylmethyl-nitroxide"
SMALL_TORSION = (1, 3, 4, 5)
"""Torsion between nitroxide and naphthalene about the bond of methylene and ring."""

SHARES = (0.5, 0.25, 0.1, 0.05, 0.02)
"""Shares of exact exchange mixed into r2SCAN; with 0.25 and 0.1 these are the hybrids r2SCAN0 and r2SCANh."""


def mixed_r2scan(share: float) -> str:
    """Return PySCF's name of r2SCAN with a share of exact exchange."""
    return f"{share:g}*HF + {1 - share:g}*MGGA_X_R2SCAN, MGGA_C_R2SCAN"


STUDIES: dict[str, tuple[Calculation, ...]] = {
    "mono-torsion": tuple(Calculation("mono", torsion_degrees=degrees) for degrees in MONO_DEGREES),
    "mono-second-torsion": tuple(
        Calculation("mono", basis="6-31g", torsion_degrees=degrees, torsion_atoms=RADICAL_TORSION)
        for degrees in (30.0, 0.0, 60.0, 90.0, 45.0, 15.0, 75.0)
    ),
    "bi": (
        Calculation("bi", basis="6-31g"),
        Calculation("bi", "ground", basis="6-31g"),
        Calculation("bi", "ground", basis="6-31g", geometry="excited"),
    ),
    "bi-torsion": tuple(Calculation("bi", basis="6-31g", torsion_degrees=degrees) for degrees in (70.0, 40.0, 90.0)),
    "verdazyl": (Calculation("verdazyl-mono", basis="6-31g"), Calculation("verdazyl-bi", basis="6-31g")),
    "verdazyl-torsion": tuple(
        Calculation("verdazyl-mono", basis="6-31g", torsion_degrees=degrees) for degrees in (50.0, 70.0, 90.0, 40.0)
    ),
    "pyrimidinyl": (Calculation("bi-pyrimidinyl", basis="6-31g"),),
    "verdazyl-dark": (Calculation("verdazyl-bi", "ground", basis="6-31g"),),
    "mono-functional": tuple(Calculation("mono", xc=xc, torsion_degrees=50.0) for xc in FUNCTIONALS),
    "mono-basis": tuple(
        Calculation("mono", basis=basis, torsion_degrees=50.0) for basis in ("6-31g", "def2-svp", "def2-tzvp")
    ),
    "mono-grid": tuple(Calculation("mono", basis="6-31g", grid_level=level, torsion_degrees=50.0) for level in (1, 3)),
    "bi-functional": tuple(Calculation("bi", xc=xc, basis="6-31g") for xc in OTHER_FUNCTIONALS),
    "bi-dark-functional": tuple(
        Calculation("bi", "ground", xc=xc, basis="6-31g", geometry=geometry)
        for geometry in ("excited", None)
        for xc in OTHER_FUNCTIONALS
    ),
    "bi-basis": tuple(Calculation("bi", basis=basis) for basis in BASES),
    "bi-grid": tuple(Calculation("bi", basis="6-31g", grid_level=level) for level in (1, 3)),
    "small-grid": tuple(
        Calculation(SMALL, xc=xc, basis=basis, torsion_degrees=degrees, torsion_atoms=SMALL_TORSION)
        for basis in BASES
        for degrees in (90.0, 60.0, 30.0)
        for xc in FUNCTIONALS
    ),
    "small-exchange": tuple(
        Calculation(SMALL, xc=mixed_r2scan(share), torsion_degrees=90.0, torsion_atoms=SMALL_TORSION)
        for share in SHARES
    ),
    "diradicals": tuple(
        Calculation(
            reference["molecule"],
            "ground",
            xc=xc,
            torsion_degrees=reference.get("torsion_degrees"),
            torsion_atoms=(0, 1, 3, 4) if "torsion_degrees" in reference else None,
            level="uks" if reference["molecule"] in RELAXED_BY_UKS else "gfn2",
        )
        for xc in ("b3lyp", *OTHER_FUNCTIONALS)
        for reference in PUBLISHED["rows"]
    ),
    "diradicals-adiabatic": tuple(
        Calculation(name, "ground", geometry="antiparallel", level="uks") for name in RELAXED_BY_UKS
    ),
}
"""Calculations of each study, the most telling ones first."""

PAPER = (
    "mono-functional", "mono-basis", "mono-grid", "bi", "bi-torsion", "bi-functional",
    "bi-dark-functional", "bi-basis", "bi-grid", "verdazyl", "verdazyl-torsion", "verdazyl-dark",
)  # fmt: skip
"""Studies of the paper's molecules and their analogues that vary one thing at a time."""


def path_of(study: str) -> Path:
    """Return the committed file of a study."""
    return DATA / f"{study}.json"


def read(study: str) -> dict[str, Any]:
    """Return a committed study: ``rows`` and ``runs`` (provenance of each run that added rows)."""
    return json.loads(path_of(study).read_text(encoding="utf-8"))


def run(
    study: str,
    calculations: Sequence[Calculation] | None = None,
    *,
    cache: Cache | None = None,
    again: bool = False,
    stability: bool = True,
) -> dict[str, Any]:
    """Compute the missing rows of a study and write its file after each of them.

    Parameters
    ----------
    study
        Name of the file, and of an entry of `STUDIES` if `calculations` is ``None``.
    calculations
        What the rows compute.
    cache
        Cache of determinants; the user's cache folder if ``None``.
    again
        Compute rows that are there, too (states in the cache are not run again); each takes the place of the old one.
    stability
        Analyse the stability of each state, also of cached ones; takes about half as long as the state.

    Returns
    -------
    dict
        As `read`.
    """
    path = path_of(study)
    wanted = STUDIES[study] if calculations is None else calculations
    started, info = time.monotonic(), provenance()
    for number, calculation in enumerate(wanted, 1):
        key = _key(calculation)
        if not again and key in map(_row_key, _record(study)["rows"]):
            continue
        say(f"{study}: {number} of {len(wanted)}: {calculation}")
        row = compute_row(calculation, cache, stability=stability) | {"time_utc": info["time_utc"]}  # that of its run
        record = _record(study)  # again: another process may have added rows
        places = [place for place, known in enumerate(record["rows"]) if _row_key(known) == key]
        place = places[0] if places else len(record["rows"])
        record["rows"][place : place + 1] = [row]
        runs = [made for made in record["runs"] if made["time_utc"] != info["time_utc"]]
        record["runs"] = [*runs, info | {"seconds": round(time.monotonic() - started, 1)}]
        write_json(path, record)
    return _record(study)


def _record(study: str) -> dict[str, Any]:
    return read(study) if path_of(study).exists() else {"study": study, "rows": [], "runs": []}


def _key(calculation: Calculation) -> str:
    return json.dumps(calculation.key(), sort_keys=True)


def _row_key(row: dict[str, Any]) -> str:
    return _key(Calculation.from_row(row))


def select(study: str, conditions: Sequence[str] = ()) -> tuple[Calculation, ...]:
    """Return the calculations of a study that meet all conditions such as ``"xc=b3lyp"``.

    Raises
    ------
    ValueError
        If a condition names no field of `Calculation`, or none of the calculations meets them.
    """
    chosen = STUDIES[study]
    for condition in conditions:
        name, equals, value = condition.partition("=")
        known = [field.name for field in fields(Calculation)]
        if not equals or name not in known:
            raise ValueError(f"Option `--where` must be NAME=VALUE with one of {known}, but is {condition!r}.")
        chosen = tuple(found for found in chosen if _is(getattr(found, name), value))
    if not chosen:
        raise ValueError(f"Option `--where` must leave calculations of {study!r}, but leaves none.")
    return chosen


def _is(value: Any, text: str) -> bool:
    """Return whether a text is a value: ``90`` is 90.0."""
    try:
        return str(value) == text or (isinstance(value, float) and value == float(text))
    except ValueError:
        return False


def main(argv: list[str] | None = None) -> int:
    """Compute the studies named."""
    parser = argparse.ArgumentParser(
        prog="python -m molecular_qubits.experiments.exchange_studies", description=__doc__
    )
    parser.add_argument("studies", nargs="+", choices=tuple(STUDIES))
    parser.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="rows, e.g. xc=b3lyp"
    )
    parser.add_argument("--again", action="store_true", help="compute rows that are there, too, from cached states")
    parser.add_argument("--no-stability", action="store_true", help="skip the internal stability analysis")
    parser.add_argument("--cache", type=Path, default=None, metavar="FOLDER", help="cache and checkpoints")
    arguments = parser.parse_args(argv)

    def compute() -> None:
        chosen = {study: select(study, arguments.where) for study in arguments.studies}
        cache = None if arguments.cache is None else Cache(arguments.cache, name="scf")
        for study, calculations in chosen.items():
            run(study, calculations, cache=cache, again=arguments.again, stability=not arguments.no_stability)

    return run_command(compute)


if __name__ == "__main__":
    raise SystemExit(main())
