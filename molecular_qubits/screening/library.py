"""Library files: fragments and whole molecules in a CSV, faults by line, good rows kept."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from molecular_qubits.screening.assembly import ATTACHMENTS, Candidate, assemble, check_fragment, whole_molecule

COLUMNS = ("kind", "name", "smiles")
KINDS = (*ATTACHMENTS, "molecule")
SHIPPED = Path(__file__).parent / "data" / "library.csv"
"""The library that comes with the package."""


@dataclass(frozen=True)
class LibraryFault:
    """A row that cannot be used: its line in the file (from 1, the header included) and why."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True)
class Library:
    """Candidates of a library file, and the rows that gave none."""

    candidates: tuple[Candidate, ...]
    faults: tuple[LibraryFault, ...]


def read_library(path: str | Path) -> Library:
    """Read a library: every radical with every linker and every coupler, then the whole molecules.

    Parameters
    ----------
    path
        CSV (UTF-8) with the columns ``kind`` (radical, linker, coupler or molecule), ``name`` and ``smiles``; other
        columns are ignored, and so are empty lines and lines that begin with ``#``. Fragments have attachment points
        ``[*]``: one for a radical, two for a linker (the first is at the radical; ``[*][*]`` is a direct bond) and for
        a coupler, where they must be alike.

    Returns
    -------
    Library
        Candidates of the good rows, with a name each; faults of the others.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not UTF-8 text, lacks a column, or no row gives a candidate.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no library file {str(path)!r}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"The library {str(path)!r} must be UTF-8 text, but byte {error.start} is not.") from None
    rows, faults = _rows(text, path)
    fragments: dict[str, list[tuple[int, str, str]]] = {kind: [] for kind in ATTACHMENTS}
    molecules: list[Candidate] = []
    names: dict[tuple[str, str], int] = {}
    for line, kind, name, smiles in rows:
        try:
            if kind not in KINDS:
                raise ValueError(f"column `kind` must be one of {', '.join(KINDS)}, but is {kind!r}")
            if not name:
                raise ValueError("column `name` must not be empty")
            if (kind, name) in names:
                raise ValueError(f"the {kind} {name!r} is already on line {names[kind, name]}")
            if kind == "molecule":
                structure = whole_molecule(smiles)
                molecules.append(Candidate(name, structure, structure, line=line))
            else:
                check_fragment(kind, smiles)
                fragments[kind].append((line, name, smiles))
            names[kind, name] = line
        except ValueError as error:
            faults.append(LibraryFault(line, str(error).rstrip(".")))
    candidates: list[Candidate] = []
    for radical, linker, coupler in product(*(fragments[kind] for kind in ATTACHMENTS)):
        names_of_parts = (radical[1], linker[1], coupler[1])
        smiles_of_parts = (radical[2], linker[2], coupler[2])
        try:
            on, off = (assemble(*smiles_of_parts, arms=arms) for arms in (1, 2))
        except ValueError as error:
            faults.append(LibraryFault(coupler[0], f"{' - '.join(names_of_parts)} cannot be joined: {error}"))
            continue
        candidates.append(Candidate(" - ".join(names_of_parts), on, off, names_of_parts, coupler[0]))
    candidates, repeated = _named_once([*candidates, *molecules])
    faults += repeated
    if not candidates:
        shown = "; ".join(str(fault) for fault in faults[:5]) or "it needs a molecule, or a radical, linker and coupler"
        raise ValueError(f"The library {str(path)!r} gives no candidate: {shown}.")
    return Library(tuple(candidates), tuple(sorted(faults, key=lambda fault: fault.line)))


def _named_once(candidates: list[Candidate]) -> tuple[list[Candidate], list[LibraryFault]]:
    """Return the first candidate of each name, and faults of the others: results are kept by name."""
    first: dict[str, Candidate] = {}
    faults: list[LibraryFault] = []
    for candidate in candidates:
        other = first.setdefault(candidate.name, candidate)
        if other is not candidate:
            same = f"{_origin(candidate)} has the name {candidate.name!r} of {_origin(other)}"
            reason = f"{same}; rename one of them, or a part of it"
            faults.append(LibraryFault(candidate.line, reason))
    return list(first.values()), faults


def _origin(candidate: Candidate) -> str:
    if not candidate.parts:
        return f"the molecule on line {candidate.line}"
    return " with ".join(f"{kind} {part!r}" for kind, part in zip(ATTACHMENTS, candidate.parts, strict=True))


def _rows(text: str, path: Path) -> tuple[list[tuple[int, str, str, str]], list[LibraryFault]]:
    """Return the lines with the three columns, and faults of lines that lack one."""
    header: list[str] | None = None
    rows: list[tuple[int, str, str, str]] = []
    faults: list[LibraryFault] = []
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip() or content.lstrip().startswith("#"):
            continue
        cells = [cell.strip() for cell in next(csv.reader(io.StringIO(content)), [])]
        if header is None:
            header = [cell.lower() for cell in cells]
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise ValueError(
                    f"The library {str(path)!r} must have the columns {', '.join(COLUMNS)} in line {line}, but lacks "
                    f"{', '.join(missing)}."
                )
        elif len(cells) != len(header):
            faults.append(LibraryFault(line, f"{len(header)} cells were expected, but there are {len(cells)}"))
        else:
            kind, name, smiles = (cells[header.index(column)] for column in COLUMNS)
            rows.append((line, kind.lower(), name, smiles))
    return rows, faults
