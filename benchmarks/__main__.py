"""Print what the benchmarks measured, with the command, day and machine: ``python -m benchmarks [NAME ...]``."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.clustering.tables import read_rows
from shared.cli import run_command
from shared.results import markdown_table

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.parent.name for path in HERE.glob("*/data")))
"""Benchmarks with committed rows."""


def main(argv: list[str] | None = None) -> int:
    """Print the committed tables of the benchmarks named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    names = parser.parse_args(argv).names
    unknown = sorted({*names} - {*NAMES})
    if unknown:
        parser.error(f"NAME must be of {', '.join(NAMES)}, but is {unknown[0]!r}")
    return run_command(lambda: print("\n".join(text for name in names or NAMES for text in _texts(name))))


def tables(name: str) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """Yield title, rows and provenance of each committed table of a benchmark.

    Values that are tables themselves, such as the states of a field, are left out.
    """
    for path in sorted((HERE / name / "data").glob("*.csv")):
        record = path.with_stem(path.stem.removesuffix("_rounds")).with_suffix(".json")
        made = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        yield path.stem, read_rows(path), made
    for path in sorted((HERE / name / "data").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for key, rows in record.items():
            if isinstance(rows, list) and rows and isinstance(rows[0], dict):
                title = path.stem if key == "rows" else f"{path.stem}, {key}"
                flat = [{column: value for column, value in row.items() if _is_cell(value)} for row in rows]
                columns = dict.fromkeys(column for row in flat for column in row)
                yield title, [{column: row.get(column) for column in columns} for row in flat], record["provenance"]


def _is_cell(value: Any) -> bool:
    return not isinstance(value, Mapping | list)


def _texts(name: str) -> Iterator[str]:
    for title, rows, made in tables(name):
        machine = made.get("machine", {})
        by = [made.get("command"), made.get("time_utc", "")[:10], machine.get("processor")]
        yield f"## {name}: {title}\n\n{', '.join(filter(None, by))}\n\n{markdown_table(rows)}"


if __name__ == "__main__":
    sys.exit(main())
