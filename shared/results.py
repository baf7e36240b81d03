"""Results of a run: figures, tables and text of one package in one folder, with provenance."""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.artifacts import provenance, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ResultsWriter:
    """Write the results of one package under ``root/package``.

    Every file is written atomically; `finish` writes ``summary.json``, from which `shared.report` makes the page. That
    of an earlier run in the same folder is removed at once, as its text is not that of the new figures and tables.

    Parameters
    ----------
    root
        Folder of all results.
    package
        Name of the sub-folder.
    config
        Resolved configuration (a pydantic model), saved as ``config.json`` at once and again with the provenance.
    """

    def __init__(self, root: str | Path, package: str, config: Any = None) -> None:
        self.folder = Path(root) / package
        self.package = package
        self.config = config
        self._sections: list[dict[str, Any]] = []
        self._start = time.monotonic()
        self._summary = self.folder / "summary.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._summary.unlink(missing_ok=True)
        if config is not None:
            write_text(self.folder / "config.json", config.to_json() + "\n")

    def section(self, title: str, text: str) -> None:
        """Start a section; figures and tables that follow belong to it. Blank lines in `text` part paragraphs."""
        self._sections.append({"title": title, "text": text, "items": []})

    def figure(self, draw: Callable[[], "Figure"], name: str, caption: str) -> None:
        """Draw a figure in the light and the dark style and save ``name.png``, ``name.pdf`` and ``name_dark.png``."""
        from shared.plotting import save_figure, style

        with style():
            save_figure(draw(), self.folder / name)
        with style(dark=True):
            save_figure(draw(), self.folder / f"{name}_dark", formats=("png",))
        self._items().append({"kind": "figure", "name": name, "caption": caption})

    def table(
        self, rows: Sequence[Mapping[str, Any]], name: str, caption: str, digits: int | Mapping[str, int] = 4
    ) -> None:
        """Save rows with the same keys as ``name.csv`` and ``name.md``, see `write_table`."""
        write_table(rows, self.folder / name, digits=digits)
        columns = {column: column_digits(digits, column) for column in rows[0]}
        self._items().append({"kind": "table", "name": name, "caption": caption, "digits": columns})

    def finish(self) -> Path:
        """Write ``summary.json`` and return its path."""
        seconds = time.monotonic() - self._start
        summary = {
            "package": self.package,
            "sections": self._sections,
            "provenance": provenance(self.config, seconds),
        }
        write_json(self._summary, summary)
        return self._summary

    def _items(self) -> list[dict[str, Any]]:
        if not self._sections:
            raise RuntimeError("Call `section` before `figure` or `table`.")
        return self._sections[-1]["items"]


def column_digits(digits: int | Mapping[str, int], column: str) -> int:
    """Return the significant digits of a column; 4 for one that a mapping does not name."""
    return digits if isinstance(digits, int) else digits.get(column, 4)


def write_table(rows: Sequence[Mapping[str, Any]], stem: str | Path, digits: int | Mapping[str, int] = 4) -> None:
    """Write rows as ``stem.csv`` and ``stem.md``.

    Parameters
    ----------
    rows
        At least one mapping; all have the keys of the first, which are the column names.
    stem
        Path without ending.
    digits
        Significant digits of floats in the Markdown table, one number or one by column; the CSV keeps them all.

    Raises
    ------
    ValueError
        If there are no rows, or their keys differ.
    """
    if not rows:
        raise ValueError("Argument `rows` must hold at least one row, but was empty.")
    names = list(rows[0])
    for number, row in enumerate(rows):
        if list(row) != names:
            raise ValueError(
                f"Argument `rows` must have the columns {names} in each row, but row {number} has {list(row)}."
            )
    stem = Path(stem)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(stem.with_name(f"{stem.name}.csv"), text.getvalue())
    write_text(stem.with_name(f"{stem.name}.md"), markdown_table(rows, digits))


def markdown_table(rows: Sequence[Mapping[str, Any]], digits: int | Mapping[str, int] = 4) -> str:
    """Return rows as a GitHub Markdown table, numbers to the right."""
    names = list(rows[0])
    by_column = [column_digits(digits, name) for name in names]
    cells = [
        [format_cell(row[name], n).replace("|", "\\|") for name, n in zip(names, by_column, strict=True)]
        for row in rows
    ]
    numeric = [all(isinstance(row[name], int | float) or row[name] is None for row in rows) for name in names]
    heads = [name.replace("|", "\\|") for name in names]
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join("---:" if right else "---" for right in numeric) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def titled_table(
    title: str, rows: Sequence[Mapping[str, Any]], digits: int | Mapping[str, int] = 4, smallest: float = 1e-12
) -> str:
    """Return a title above a Markdown table in which numbers smaller than `smallest` (rounding errors) are 0."""
    tidy = [{name: 0.0 if _vanishes(value, smallest) else value for name, value in row.items()} for row in rows]
    return f"{title}\n\n{markdown_table(tidy, digits)}"


def _vanishes(value: Any, smallest: float) -> bool:
    return isinstance(value, float) and abs(value) < smallest


def format_cell(value: Any, digits: int = 4) -> str:
    """Return a value as text: floats with `digits` significant digits, whole thousands parted, ``None`` as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value) or value == 0:
            return f"{value:g}"
        if 1e-4 <= abs(value) < 1e6:
            decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
            return f"{value:,.{decimals}f}"
        return f"{value:.{digits - 1}e}"
    return str(value)
