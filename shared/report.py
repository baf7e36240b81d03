"""One self-contained HTML page from the results of both packages: ``python -m shared.report results``."""

import argparse
import base64
import csv
import html
import json
import re
import sys
from pathlib import Path
from typing import Any

from shared.artifacts import write_text
from shared.plotting import FIGURE_DPI
from shared.results import format_cell

_PIXELS_PER_INCH = 130
"""Size of figures on the page: a journal column becomes 440 pixels wide."""

_STYLE = """
:root { --ink: #1a1a1a; --paper: #ffffff; --faint: #5f6670; --line: #d9d9d9; --accent: #00548a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181d; --faint: #a3abb8; --line: #3a3f4a; --accent: #7cc4f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; } h2 { margin-top: 3rem; border-bottom: 2px solid var(--accent); padding-bottom: .2rem; }
h3 { margin-top: 2rem; } a { color: var(--accent); } nav li { margin: .15rem 0; }
figure { margin: 1.25rem 0; } figure img { max-width: 100%; height: auto; display: block; }
figcaption, caption { color: var(--faint); font-size: .9rem; text-align: left; padding: .35rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { border-bottom: 1.5px solid var(--ink); } td { min-width: 6rem; }
td.number, th.number { text-align: right; min-width: 0; } td.number { white-space: nowrap; }
details { margin-top: 1.5rem; }
pre { overflow-x: auto; font-size: .8rem; border: 1px solid var(--line); padding: .8rem; }
"""


def build_report(root: str | Path) -> Path:
    """Write ``root/report.html`` from every ``root/*/summary.json``.

    Parameters
    ----------
    root
        Folder of results.

    Returns
    -------
    Path
        The page: one file that needs nothing beside it, with light and dark pictures.

    Raises
    ------
    FileNotFoundError
        If there is no summary under `root`.
    """
    root = Path(root)
    summaries = [
        (path.parent, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(root.glob("*/summary.json"))
    ]
    if not summaries:
        raise FileNotFoundError(f"No results under {str(root)!r}: run `make reproduce` first.")
    body, contents = [], []
    for folder, summary in summaries:
        package = summary["package"]
        body.append(f'<h2 id="{package}"><code>{package}</code></h2>')
        contents.append(f'<li><a href="#{package}"><code>{package}</code></a><ul>')
        for number, section in enumerate(summary["sections"]):
            anchor = f"{package}-{number}"
            contents.append(f'<li><a href="#{anchor}">{html.escape(section["title"])}</a></li>')
            body.append(f'<section><h3 id="{anchor}">{html.escape(section["title"])}</h3>')
            body += [f"<p>{_prose(part)}</p>" for part in section["text"].split("\n\n") if part.strip()]
            body += [_item(folder, item) for item in section["items"]]
            body.append("</section>")
        contents.append("</ul></li>")
        record = html.escape(json.dumps(summary["provenance"], indent=2))
        body.append(f"<details><summary>Provenance of <code>{package}</code></summary><pre>{record}</pre></details>")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Reproduction report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>Reproduction report</h1>"
        f"<nav><ul>{''.join(contents)}</ul></nav>{''.join(body)}</body></html>\n"
    )
    path = root / "report.html"
    write_text(path, page)
    return path


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _item(folder: Path, item: dict[str, Any]) -> str:
    return _figure(folder, item) if item["kind"] == "figure" else _table(folder, item)


def _figure(folder: Path, item: dict[str, Any]) -> str:
    light, dark = ((folder / f"{item['name']}{ending}.png").read_bytes() for ending in ("", "_dark"))
    caption = html.escape(item["caption"])
    width = round(_PIXELS_PER_INCH * int.from_bytes(light[16:20]) / FIGURE_DPI)  # bytes 16-19 of a PNG are its width
    return (
        f'<figure><picture><source srcset="{_data_uri(dark)}" media="(prefers-color-scheme: dark)">'
        f'<img src="{_data_uri(light)}" width="{width}" alt="{caption}"></picture>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _table(folder: Path, item: dict[str, Any]) -> str:
    with open(folder / f"{item['name']}.csv", encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    numeric = [all(_number(row[i]) is not None or not row[i] for row in rows) for i in range(len(names))]
    marks = [' class="number"' if right else "" for right in numeric]
    head = "".join(f"<th{mark}>{html.escape(name)}</th>" for name, mark in zip(names, marks, strict=True))
    lines = []
    for row in rows:
        cells = (_cell(text, item["digits"][name]) for name, text in zip(names, row, strict=True))
        lines.append("".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(cells, marks, strict=True)))
    rows_html = "".join(f"<tr>{line}</tr>" for line in lines)
    caption = html.escape(item["caption"])
    return (
        f'<div class="scroll"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows_html}</tbody></table></div>"
    )


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _cell(text: str, digits: int) -> str:
    if not text:
        return format_cell(None)
    if text in ("True", "False"):
        return format_cell(text == "True")
    number = _number(text)
    return html.escape(text if number is None else format_cell(number, digits))


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m shared.report", description=__doc__)
    parser.add_argument("root", nargs="?", default="results", help="folder of results (default: results)")
    arguments = parser.parse_args(argv)
    try:
        path = build_report(arguments.root)
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
