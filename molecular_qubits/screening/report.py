"""Tables, JSON and one self-contained HTML page with structures of a screening."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

from molecular_qubits.screening.figures import MOST_ROWS, draw_ranking
from molecular_qubits.screening.known import write_known
from molecular_qubits.screening.run import Coupling, ScreenedCandidate, ScreeningResult
from shared.artifacts import write_json, write_text
from shared.plotting import save_figure, style
from shared.results import format_cell, write_table

_STYLE = """
:root { --ink: #1a1a1a; --paper: #ffffff; --faint: #5f6670; --line: #d9d9d9; --accent: #00548a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181d; --faint: #a3abb8; --line: #3a3f4a; --accent: #7cc4f0; } }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.5rem; border-bottom: 2px solid var(--accent); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: middle; }
td.number, th.number { text-align: right; white-space: nowrap; }
img { max-width: 100%; } td.structure { background: #ffffff; } td.structure svg { display: block; }
.smiles { color: var(--faint); font: .75rem/1.3 ui-monospace, monospace; overflow-wrap: anywhere; max-width: 22rem; }
pre { overflow-x: auto; font-size: .8rem; border: 1px solid var(--line); padding: .8rem; }
"""

STEM = "ranking"


def write_results(result: ScreeningResult, out: str | Path) -> Path:
    """Write the table, JSON, couplings, figure (``ranking.png``, ``.pdf``) and ``report.html``, each atomically.

    Parameters
    ----------
    result
        What `screen` found.
    out
        Folder.

    Returns
    -------
    Path
        The page.
    """
    out = Path(out)
    write_table([row.to_row() for row in result.candidates], out / STEM)
    write_json(out / f"{STEM}.json", result.to_dict())
    write_known(result.couplings, out / "couplings.jsonl")
    picture = None
    if any(row.rank is not None for row in result.candidates):
        with style():
            picture, _ = save_figure(draw_ranking(result.candidates), out / STEM)
    page = out / "report.html"
    write_text(page, html_report(result, picture))
    return page


def check_drawing() -> None:
    """Refuse to work without what the drawings of structures need.

    Raises
    ------
    ModuleNotFoundError
        If RDKit cannot load its drawing code: its packages take some libraries from the system.
    """
    try:
        from rdkit.Chem.Draw import rdMolDraw2D  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError(
            f"RDKit cannot draw structures here ({error}): install the library, on Debian and Ubuntu with "
            "`apt-get install libxrender1 libxext6`."
        ) from error


def structure_svg(smiles: str, width: int = 260, height: int = 170) -> str:
    """Return the drawing of a SMILES as an SVG element without an XML header."""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    options: Any = drawer.drawOptions()
    options.clearBackground = False
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, Chem.MolFromSmiles(smiles))
    drawer.FinishDrawing()
    text = drawer.GetDrawingText()
    return str(text[text.index("<svg") :])


def html_report(result: ScreeningResult, picture: Path | None = None) -> str:
    """Return the page: ranked candidates with structures, those without a prediction, unusable rows, provenance.

    `picture` is a PNG of the ranking that the page then holds.
    """
    ranked = [row for row in result.candidates if row.rank is not None]
    others = [row for row in result.candidates if row.rank is None]
    gate = result.config.gate
    body = [
        "<h1>Screening</h1>",
        f"<p>{len(ranked)} of {len(result.candidates)} candidates have both couplings. The fidelity is that of one "
        f"{html.escape(gate.target)} gate and one idle slot as long, up to local rotations, under the conditions at "
        "the end of the page; its error carries the errors of both couplings, which leave out what the levels column "
        "does not vary (functional, geometry). "
        f"{sum(row.gains for row in ranked)} are above {ranked[0].fidelity_floor if ranked else 0:.3g}, which local "
        "rotations reach without any coupling: below it there is no gate. "
        "H = -2 J S<sub>i</sub>·S<sub>j</sub>, J in cm<sup>-1</sup>.</p>",
        _table(ranked, structures=True),
    ]
    if picture is not None:
        data = base64.b64encode(picture.read_bytes()).decode("ascii")
        text = f"|J| and predicted fidelity of the best {min(len(ranked), MOST_ROWS)} candidates, with error bars"
        body.insert(2, f'<p><img alt="{text}" src="data:image/png;base64,{data}"></p>')
    if others:
        body += ["<h2>Without a prediction</h2>", _table(others, structures=False)]
    if result.faults:
        rows = "".join(f"<tr><td>{f.line}</td><td>{html.escape(f.reason)}</td></tr>" for f in result.faults)
        body.append(f"<h2>Rows that could not be used</h2><table><tr><th>line</th><th>reason</th></tr>{rows}</table>")
    record = html.escape(json.dumps(result.provenance, indent=2))
    body.append(f"<h2>Conditions and provenance</h2><pre>{record}</pre>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Screening</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _table(rows: list[ScreenedCandidate], *, structures: bool) -> str:
    heads = ["rank", *(["structure"] if structures else []), "candidate", "fidelity", "J_on", "J_off", "J_on/J_off"]
    heads += ["hold (ns)", "level", "atoms", *([] if structures else ["status"])]
    lines = []
    for row in rows:
        ratio = format_cell(row.on_off_ratio, 3)
        cells = [f'<td class="number">{format_cell(row.rank)}</td>']
        if structures:
            cells.append(f'<td class="structure">{structure_svg(row.candidate.off.smiles)}</td>')
        name, smiles = html.escape(row.candidate.name), html.escape(row.candidate.off.smiles)
        cells.append(f'<td>{name}<div class="smiles">{smiles}</div></td>')
        numbers = [
            _with_error(row.fidelity, row.fidelity_error),
            _coupling(row.on),
            _coupling(row.off),
            f"&gt; {ratio}" if row.ratio_is_bound else ratio,
            format_cell(row.hold_ns, 3),
        ]
        cells += [f'<td class="number">{text}</td>' for text in numbers]
        level = row.on.level if row.on else row.off.level if row.off else None
        cells.append(f"<td>{html.escape(format_cell(level))}</td>")
        cells.append(f'<td class="number">{row.n_atoms}</td>')
        if not structures:
            cells.append(f"<td>{html.escape(row.status)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _coupling(found: Coupling | None) -> str:
    """Return the coupling by its last level, and below it those by the levels before."""
    if found is None:
        return format_cell(None)
    earlier = [f"{html.escape(level)}: {j_cm1:.4g}" for level, j_cm1 in found.earlier_cm1.items()]
    return _with_error(found.j_cm1, found.error_cm1) + "".join(f'<div class="smiles">{text}</div>' for text in earlier)


def _with_error(value: float | None, error: float | None) -> str:
    return format_cell(None) if value is None else f"{value:.4g} ± {0 if error is None else error:.2g}"
