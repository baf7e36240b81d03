"""Bonds of a geometry and the graph they form."""

from collections.abc import Iterable, Sequence

import numpy as np

from molecular_qubits.structure.elements import COVALENT_RADII_ANGSTROM

Bonds = tuple[tuple[int, int], ...]


def from_distances(symbols: Sequence[str], positions: np.ndarray, scale: float = 1.25) -> Bonds:
    """Return the pairs of atoms closer than `scale` times the sum of their covalent radii.

    Parameters
    ----------
    symbols
        Element symbols, ``n`` of them.
    positions
        ``(n, 3)`` in Å.
    scale
        Factor on the sum of the radii.

    Returns
    -------
    tuple of (int, int)
        Bonds with the smaller index first. Atoms of unknown elements have no bonds.
    """
    radii = np.array([COVALENT_RADII_ANGSTROM.get(symbol, 0.0) for symbol in symbols])
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    close = np.triu(distances < scale * (radii[:, None] + radii[None]), k=1)
    return tuple((int(i), int(j)) for i, j in np.argwhere(close))


def ordered(bonds: Iterable[Sequence[int]], n_atoms: int) -> Bonds:
    """Return bonds with the smaller index first; a `ValueError` if one is not between two of ``n_atoms`` atoms."""
    found = []
    for bond in bonds:
        pair = sorted(bond)
        if len(pair) != 2 or not 0 <= pair[0] < pair[1] < n_atoms or any(int(atom) != atom for atom in pair):
            raise ValueError(
                f"Argument `bonds` must hold pairs of two different atom indices from 0 to {n_atoms - 1}, but holds "
                f"{tuple(bond)}."
            )
        found.append((int(pair[0]), int(pair[1])))
    if len(set(found)) != len(found):
        raise ValueError(f"Argument `bonds` must hold each bond once, but is {tuple(found)}.")
    return tuple(found)


def neighbours(n_atoms: int, bonds: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the sorted bonded neighbours of each of ``n_atoms`` atoms."""
    table: list[list[int]] = [[] for _ in range(n_atoms)]
    for i, j in bonds:
        table[i].append(j)
        table[j].append(i)
    return [sorted(row) for row in table]


def side_of_bond(n_atoms: int, bonds: Iterable[tuple[int, int]], i: int, j: int) -> set[int]:
    """Return the atoms reached from ``j`` without passing the bond ``i-j``; they include ``i`` in a ring."""
    table = neighbours(n_atoms, bonds)
    seen, waiting = {j}, [j]
    while waiting:
        atom = waiting.pop()
        for other in table[atom]:
            if {atom, other} != {i, j} and other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def ring_bonds(n_atoms: int, bonds: Bonds) -> set[tuple[int, int]]:
    """Return the bonds that are part of a ring."""
    return {(i, j) for i, j in bonds if i in side_of_bond(n_atoms, bonds, i, j)}
