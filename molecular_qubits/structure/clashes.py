"""Atoms that are too close for any molecule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.structure.elements import COVALENT_RADII_ANGSTROM

if TYPE_CHECKING:
    from molecular_qubits.structure.molecule import Molecule

CLASH_SHARE = 0.6
"""Least distance of two atoms, as a share of the sum of their covalent radii: 0.37 Å for H-H, 0.91 Å for C-C. The
shortest bonds known are above 0.75."""


def check_clashes(molecule: Molecule) -> None:
    """Raise a `ValueError` that names the closest pair if two atoms are nearer than any bond."""
    worst = closest_contact(molecule)
    if worst is not None and worst[2] < CLASH_SHARE:
        i, j, share = worst
        distance = share * (_radius(molecule.symbols[i]) + _radius(molecule.symbols[j]))
        raise ValueError(
            f"Argument `molecule` must not have clashing atoms, but {molecule.symbols[i]}{i} and "
            f"{molecule.symbols[j]}{j} are {distance:.2f} Å apart. Correct the coordinates or their unit (Å), or "
            "begin with a SMILES, which is embedded."
        )


def closest_contact(molecule: Molecule) -> tuple[int, int, float] | None:
    """Return the closest pair of atoms in units of its covalent radii, and that share; ``None`` for one atom."""
    if molecule.n_atoms < 2:
        return None
    radii = np.array([_radius(symbol) for symbol in molecule.symbols])
    positions = molecule.positions
    shares = np.linalg.norm(positions[:, None] - positions[None], axis=2) / (radii[:, None] + radii[None])
    np.fill_diagonal(shares, np.inf)
    i, j = (int(k) for k in np.unravel_index(int(shares.argmin()), shares.shape))
    return min(i, j), max(i, j), float(shares[i, j])


def _radius(symbol: str) -> float:
    return COVALENT_RADII_ANGSTROM[symbol]
