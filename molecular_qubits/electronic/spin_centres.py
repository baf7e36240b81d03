"""Spin centres found from the spin density of a determinant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from molecular_qubits.structure.bonds import neighbours
from molecular_qubits.structure.molecule import Molecule, check_positive


@dataclass(frozen=True)
class SpinCentre:
    """Bonded atoms that carry spin: indices, n_α - n_β, and the spin quantum number that this stands for."""

    atoms: tuple[int, ...]
    population: float
    spin: float


def find_spin_centres(molecule: Molecule, atomic_spins: ArrayLike, *, threshold: float = 0.1) -> tuple[SpinCentre, ...]:
    """Group the atoms that carry spin into centres.

    Parameters
    ----------
    molecule
        Its bonds join the atoms.
    atomic_spins
        Spin population n_α - n_β of each atom ``(n_atoms,)``, e.g. `populations.lowdin_spins` of the high-spin state.
    threshold
        Least absolute population of an atom of a centre. Atoms below it part the centres.

    Returns
    -------
    tuple of SpinCentre
        Bonded sets whose population is half an electron or more, by their first atom. Two magnetic groups that share a
        bond, as in m-xylylene, come out as one centre of higher spin.

    Raises
    ------
    ValueError
        If the populations do not fit the molecule, the threshold is not positive, or no centre is found.
    """
    spins = np.asarray(atomic_spins, dtype=float)
    if spins.shape != (molecule.n_atoms,) or not np.all(np.isfinite(spins)):
        raise ValueError(
            f"Argument `atomic_spins` must hold a finite population for each of {molecule.n_atoms} atoms, but has "
            f"shape {spins.shape}."
        )
    check_positive(threshold=threshold)
    table = neighbours(molecule.n_atoms, molecule.bonds)
    left = {int(atom) for atom in np.flatnonzero(np.abs(spins) >= threshold)}
    centres = []
    while left:
        waiting = [min(left)]
        group: set[int] = set()
        while waiting:
            atom = waiting.pop()
            if atom in left:
                left.remove(atom)
                group.add(atom)
                waiting.extend(table[atom])
        population = float(spins[sorted(group)].sum())
        if abs(population) >= 0.5:
            centres.append(SpinCentre(tuple(sorted(group)), population, max(1, round(abs(population))) / 2))
    if not centres:
        raise ValueError(
            f"Argument `atomic_spins` must hold a centre with spin, but the largest population is "
            f"{np.abs(spins).max():.2f}. Take a state with unpaired electrons, or lower `threshold`."
        )
    return tuple(centres)
