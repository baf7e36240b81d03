"""Numerical error of J from grid and density fitting, measured on a small radical with a triplet carbonyl.

``python -m molecular_qubits.experiments.numerical_error`` prints the committed file ``data/numerical_error.json``;
``--measure`` makes it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from shared.artifacts import Cache, provenance, write_json
from shared.cli import show_committed

PATH = Path(__file__).resolve().parent / "data" / "numerical_error.json"
MOLECULE = "formylmethyl-nitroxide"
VARIANTS = ((4, False), (4, True), (2, True), (1, True))
"""Grid level and density fitting; the first is the most exact."""


def measure(cache: Cache | None = None) -> list[dict[str, Any]]:
    """Return J (Yamaguchi, cm^-1) for each variant at B3LYP/6-31G*, and its deviation from the most exact one.

    Parameters
    ----------
    cache
        Cache of fields; the user's cache folder if ``None``.

    Returns
    -------
    list of dict
        One row for each of `VARIANTS`.
    """
    from molecular_qubits.electronic.exchange import exchange_couplings
    from molecular_qubits.structure.library import library_entry, start_geometry
    from molecular_qubits.structure.molecule import Molecule
    from molecular_qubits.structure.relaxation import cached_relaxation

    entry = library_entry(MOLECULE)
    molecule = cached_relaxation(start_geometry(Molecule.from_smiles(entry.smiles)), "gfn2", entry.multiplicity)
    rows: list[dict[str, Any]] = []
    for grid_level, density_fit in VARIANTS:
        result = exchange_couplings(
            molecule,
            entry.centres,
            spins=entry.spins,
            grid_level=grid_level,
            density_fit=density_fit,
            conv_tol=1e-8,
            stability=False,
            cache=cache,
        )
        j_cm1 = float(result.j_yamaguchi_cm1[0, 1])
        rows.append(
            {
                "grid level": grid_level,
                "integrals": "density fitting" if density_fit else "exact",
                "J Yamaguchi (cm^-1)": j_cm1,
                "deviation (cm^-1)": j_cm1 - rows[0]["J Yamaguchi (cm^-1)"] if rows else 0.0,
            }
        )
    return rows


def read() -> dict[str, Any]:
    """Return the committed measurement: ``molecule``, ``rows`` and ``provenance``."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> int:
    """Print the committed rows, measured anew with ``--measure``."""

    def make() -> None:
        write_json(PATH, {"molecule": MOLECULE, "rows": measure(), "provenance": provenance()})

    program = "python -m molecular_qubits.experiments.numerical_error"
    return show_committed(argv, program, str(__doc__), make, lambda: read()["rows"])


if __name__ == "__main__":
    sys.exit(main())
