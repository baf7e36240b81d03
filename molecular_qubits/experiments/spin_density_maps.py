"""Committed spin-density maps of the paper's molecules and of a verdazyl analogue.

``python -m molecular_qubits.experiments.spin_density_maps`` writes ``data/exchange/maps/*.npz`` from states that the
exchange studies left in the cache; what is missing is computed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from molecular_qubits.electronic.broken_symmetry import StateResult
from molecular_qubits.electronic.spin_density import SpinDensityMap
from molecular_qubits.experiments.exchange_rows import Calculation, compute
from molecular_qubits.experiments.exchange_studies import DATA, STUDIES
from molecular_qubits.experiments.spin_density_figure import map_spin_densities
from molecular_qubits.structure.molecule import Molecule
from shared.artifacts import atomic_path, provenance

MAPS: dict[str, Calculation] = {
    "mono-excited": STUDIES["mono-torsion"][0],
    "bi-excited": STUDIES["bi"][0],
    "bi-ground": STUDIES["bi"][1],
    "verdazyl-excited": STUDIES["verdazyl-torsion"][0],
}


@dataclass(frozen=True)
class StoredMaps:
    """States of a molecule with the spin density of each, integrated along the normal of the mean plane."""

    molecule: Molecule
    states: tuple[StateResult, ...]
    maps: list[SpinDensityMap]


def path_of(name: str) -> Path:
    """Return the committed file of a map."""
    return DATA / "maps" / f"{name}.npz"


def save(name: str, spacing_angstrom: float = 0.2) -> None:
    """Compute the maps of an entry of `MAPS` and write its file."""
    result = compute(MAPS[name])
    maps = map_spin_densities(result, spacing_angstrom)
    record = {
        "molecule": result.molecule.to_dict(),
        "states": [state.to_dict() for state in result.states],
        "provenance": provenance(MAPS[name].key()),
    }
    with atomic_path(path_of(name)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            record=json.dumps(record),
            x=maps[0].x_angstrom,
            y=maps[0].y_angstrom,
            atoms=maps[0].atoms_angstrom,
            values=np.array([found.values for found in maps], dtype=np.float16),
        )


def load(name: str) -> StoredMaps:
    """Return the committed maps of an entry of `MAPS`."""
    with np.load(path_of(name)) as saved:
        record = json.loads(str(saved["record"]))
        maps = [
            SpinDensityMap(saved["x"], saved["y"], values.astype(float), saved["atoms"]) for values in saved["values"]
        ]
    return StoredMaps(
        Molecule.from_dict(record["molecule"]), tuple(StateResult.from_dict(s) for s in record["states"]), maps
    )


def main() -> None:
    """Write the maps named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m molecular_qubits.experiments.spin_density_maps", description=__doc__
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(MAPS)} (default: all)")
    names = parser.parse_args().names
    if foreign := [name for name in names if name not in MAPS]:
        parser.error(f"NAME must be one of {', '.join(MAPS)}, but was {foreign[0]!r}")
    for name in names or MAPS:
        save(name)


if __name__ == "__main__":
    main()
