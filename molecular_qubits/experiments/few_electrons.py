"""Couplings of H-He-H and of stretched H2 by full CI and by broken symmetry.

``python -m molecular_qubits.experiments.few_electrons`` prints the committed file ``data/few_electrons.json``;
``--measure`` makes it. The reference of H-He-H are independent values, that of H2 is full CI.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from shared.artifacts import provenance, write_json
from shared.cli import show_committed

PATH = Path(__file__).resolve().parent / "data" / "few_electrons.json"


def measure() -> list[dict[str, Any]]:
    """Return one row for each molecule, distance and quantity, by the default `exchange.ExchangeConfig`."""
    from molecular_qubits.experiments.exchange import ExchangeConfig, benchmark_rows, stretched_h2_rows

    config = ExchangeConfig()
    rows = [{"molecule": "H-He-H", "R (Å)": row.pop("R(H-He) (Å)"), **row} for row in benchmark_rows(config)]
    for row in stretched_h2_rows(config):
        exact = row["full CI (cm^-1)"]
        for method in ("full CI", "HF", "B3LYP"):
            computed = row[f"{method} (cm^-1)"]
            rows.append(
                {
                    "molecule": "H2",
                    "R (Å)": row["R(H-H) (Å)"],
                    "quantity": f"{method}, 2J (cm^-1)" if method == "full CI" else f"{method} Yamaguchi, 2J (cm^-1)",
                    "computed": computed,
                    "reference": exact,
                    "deviation (%)": 100 * (computed - exact) / abs(exact),
                }
            )
    return rows


def read() -> dict[str, Any]:
    """Return the committed measurement: ``rows`` and ``provenance``."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> int:
    """Print the committed rows, measured anew with ``--measure``."""

    def make() -> None:
        write_json(PATH, {"rows": measure(), "provenance": provenance()})

    program = "python -m molecular_qubits.experiments.few_electrons"
    return show_committed(argv, program, str(__doc__), make, lambda: read()["rows"])


if __name__ == "__main__":
    sys.exit(main())
