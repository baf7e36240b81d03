"""Triplet energy of anthracene by Delta-SCF against the measured one.

``python -m molecular_qubits.experiments.triplet_energy`` computes the functionals that the committed file
``data/triplet_energy.json`` lacks, writes each at once, and prints the table; ``--again`` computes all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from molecular_qubits.electronic.scf import SCFSettings, SCFSolution, Workspace, run_scf
from molecular_qubits.fields.populations import spin_squared
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.relaxation import cached_relaxation
from molecular_qubits.units import HARTREE_TO_CM1
from shared.artifacts import Cache, provenance, write_json
from shared.cli import run_command
from shared.progress import say
from shared.results import markdown_table

PATH = Path(__file__).resolve().parent / "data" / "triplet_energy.json"
REFERENCE = Path(__file__).resolve().parents[1] / "reference" / "molecular_experiments.json"
ANTHRACENE = "c1ccc2cc3ccccc3cc2c1"
FUNCTIONALS = ("pbe", "b3lyp", "pbe0", "cam-b3lyp", "bhandhlyp", "r2scan")


def measured_cm1() -> float:
    """Return the measured energy of the lowest triplet of anthracene."""
    rows = json.loads(REFERENCE.read_text(encoding="utf-8"))["chromophore_triplets"]
    return float(next(row["T1_cm1"] for row in rows if row["molecule"] == "anthracene"))


def triplet_row(
    singlet: Molecule, triplet: Molecule, xc: str, basis: str = "6-31g*", *, conv_tol: float = 1e-8
) -> dict[str, Any]:
    """Return vertical and adiabatic triplet energies of one functional.

    Parameters
    ----------
    singlet, triplet
        The molecule at the geometry of each state.
    xc, basis
        Method.
    conv_tol
        See `SCFSettings`.

    Returns
    -------
    dict
        Energies in cm^-1 without zero-point energies, and <S^2> of the triplet.
    """

    def field(molecule: Molecule, n_unpaired: int) -> tuple[SCFSolution, Workspace]:
        settings = SCFSettings(xc=xc, basis=basis, density_fit=True, conv_tol=conv_tol, ramp=True)
        workspace = Workspace(molecule, settings)
        label = f"{'triplet' if n_unpaired else 'singlet'} of anthracene"
        return run_scf(workspace, n_unpaired, None, label=label, guess="minao"), workspace

    ground, _ = field(singlet, 0)
    relaxed, workspace = field(triplet, 2)
    overlap = workspace.mole.intor_symmetric("int1e_ovlp")
    energies = {
        "adiabatic (cm^-1)": relaxed.energy_hartree - ground.energy_hartree,
        "vertical (cm^-1)": field(singlet, 2)[0].energy_hartree - ground.energy_hartree,
    }
    row: dict[str, Any] = {"functional": xc, "basis": basis}
    row |= {name: energy * HARTREE_TO_CM1 for name, energy in energies.items()}
    return row | {"<S²>": spin_squared(relaxed.density, overlap)}


def read() -> dict[str, Any]:
    """Return the committed file: ``rows``, the measured energy and ``runs`` (provenance of each that added rows)."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def run(*, again: bool = False) -> dict[str, Any]:
    """Compute the missing rows at the UKS geometries of both states and write the committed file after each of them.

    Parameters
    ----------
    again
        Compute rows that are there, too; each takes the place of the old one.

    Returns
    -------
    dict
        As `read`.
    """
    done = [row["functional"] for row in _record()["rows"]]
    missing = [xc for xc in FUNCTIONALS if again or xc not in done]
    if not missing:
        return _record()
    cache = Cache(name="geometry")
    start = Molecule.from_smiles(ANTHRACENE)
    singlet, triplet = (
        cached_relaxation(cached_relaxation(start, "gfn2", multiplicity, cache), "uks", multiplicity, cache)
        for multiplicity in (1, 3)
    )
    started, info = time.monotonic(), provenance()
    for xc in missing:
        say(f"Triplet of anthracene: {xc}")
        row = triplet_row(singlet, triplet, xc)
        record = _record()  # again: another process may have added rows
        rows = {known["functional"]: known for known in record["rows"]} | {xc: row}
        runs = [made for made in record["runs"] if made["time_utc"] != info["time_utc"]]
        seconds = round(time.monotonic() - started, 1)
        write_json(PATH, record | {"rows": list(rows.values()), "runs": [*runs, info | {"seconds": seconds}]})
    return _record()


def _record() -> dict[str, Any]:
    if PATH.exists():
        return read()
    about = {"molecule": "anthracene", "geometry": "UKS B3LYP/6-31G* of each state", "measured_cm1": measured_cm1()}
    return about | {"rows": [], "runs": []}


def main(argv: list[str] | None = None) -> int:
    """Compute what is missing and print the committed table."""
    parser = argparse.ArgumentParser(prog="python -m molecular_qubits.experiments.triplet_energy", description=__doc__)
    parser.add_argument("--again", action="store_true", help="compute rows that are there, too")
    arguments = parser.parse_args(argv)

    def show() -> None:
        record = run(again=arguments.again)
        print(markdown_table(record["rows"], digits=5))
        print(f"measured: {record['measured_cm1']:,.0f} cm^-1")

    return run_command(show)


if __name__ == "__main__":
    raise SystemExit(main())
