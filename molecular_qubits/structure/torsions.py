"""Torsion angles: measure them, set them, find those between rings."""

from collections.abc import Sequence

import numpy as np

from molecular_qubits.structure.bonds import Bonds, neighbours, ring_bonds, side_of_bond

Torsion = tuple[int, int, int, int]

LEAST_SINE = 1e-2
"""Sine of a bond angle below which three atoms count as a line (0.6 degrees)."""


def torsion_degrees(positions: np.ndarray, atoms: Sequence[int]) -> float:
    """Return the torsion angle of four atoms.

    Parameters
    ----------
    positions
        ``(n, 3)`` in any unit.
    atoms
        Four indices.

    Returns
    -------
    float
        Degrees, between -180 and 180, positive clockwise seen along the middle bond (IUPAC).

    Raises
    ------
    ValueError
        If `atoms` does not name four different atoms, or the first or the last three lie in a line, about which there
        is no angle.
    """
    _check_four(atoms, len(positions))
    a, b, c, d = (positions[k] for k in atoms)
    axis = (c - b) / np.linalg.norm(c - b)
    left = (a - b) - np.dot(a - b, axis) * axis
    right = (d - c) - np.dot(d - c, axis) * axis
    for three, across, along in ((atoms[:3], left, a - b), (atoms[1:], right, d - c)):
        if np.linalg.norm(across) < LEAST_SINE * np.linalg.norm(along):
            raise ValueError(
                f"Argument `atoms` must not have three atoms in a line, but {', '.join(map(str, three))} are: there is "
                "no torsion about them. Take the atoms at the ends of the straight part."
            )
    return float(np.degrees(np.arctan2(np.dot(np.cross(axis, left), right), np.dot(left, right))))


def _check_four(atoms: Sequence[int], n_atoms: int) -> None:
    if len(atoms) != 4 or len(set(atoms)) != 4 or not all(k in range(n_atoms) for k in atoms):
        raise ValueError(f"Argument `atoms` must name four different atoms below {n_atoms}, but is {tuple(atoms)}.")


def rotate_torsion(positions: np.ndarray, bonds: Bonds, atoms: Sequence[int], degrees: float) -> np.ndarray:
    """Return coordinates with one torsion set; bond lengths and angles are kept.

    Parameters
    ----------
    positions
        ``(n, 3)`` in Å.
    bonds
        Bonded pairs; the middle bond must be one of them and not part of a ring.
    atoms
        Four indices; the part behind the third atom turns, with the fourth atom and without the first.
    degrees
        New torsion angle.

    Returns
    -------
    ndarray
        New coordinates ``(n, 3)`` in Å.

    Raises
    ------
    ValueError
        If `atoms` does not name four different atoms, the middle bond does not exist or is part of a ring, the outer
        atoms are not on either side of it, or three atoms lie in a line.
    """
    n_atoms = len(positions)
    _check_four(atoms, n_atoms)
    i, j = atoms[1], atoms[2]
    if (min(i, j), max(i, j)) not in bonds:
        raise ValueError(f"Argument `atoms` must have bonded atoms in the middle, but {i} and {j} are not bonded.")
    moving = side_of_bond(n_atoms, bonds, i, j)
    if i in moving:
        raise ValueError(f"Argument `atoms` must turn about a bond outside rings, but {i}-{j} is part of a ring.")
    if atoms[0] in moving or atoms[3] not in moving:
        raise ValueError(
            f"Argument `atoms` must have its first atom on the side of {i} and its last on that of {j}, but is "
            f"{tuple(atoms)}."
        )
    angle = np.radians(degrees - torsion_degrees(positions, atoms))
    axis = (positions[j] - positions[i]) / np.linalg.norm(positions[j] - positions[i])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    turned = positions.copy()
    rows = sorted(moving)
    turned[rows] = (positions[rows] - positions[j]) @ rotation.T + positions[j]
    return turned


def ring_ring_torsions(n_atoms: int, bonds: Bonds) -> tuple[Torsion, ...]:
    """Return one torsion (smallest neighbour indices) for each bond outside rings that joins two ring atoms."""
    in_rings = ring_bonds(n_atoms, bonds)
    ring_atoms = {atom for pair in in_rings for atom in pair}
    table = neighbours(n_atoms, bonds)
    found = []
    for i, j in bonds:
        if (i, j) not in in_rings and i in ring_atoms and j in ring_atoms:
            a = next(k for k in table[i] if k != j)
            d = next(k for k in table[j] if k != i)
            found.append((a, i, j, d))
    return tuple(found)


def off_symmetric(degrees: float, offset: float = 30.0) -> float:
    """Return an angle at least `offset` degrees away from the symmetric values 0, 90 and 180.

    A torsion at a symmetric value is a stationary point, from which a relaxation cannot leave even where it is a
    maximum. Angles that are far enough from the symmetric values are returned as they are.
    """
    nearest = 90.0 * round(degrees / 90.0)
    if abs(degrees - nearest) >= offset:
        return degrees
    return nearest - offset if nearest > 0 else nearest + offset
