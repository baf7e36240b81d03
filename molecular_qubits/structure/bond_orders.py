"""Bond orders, radicals and formal charges of a geometry, also of open-shell molecules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from molecular_qubits.structure.bonds import Bonds, neighbours
from molecular_qubits.structure.elements import COVALENT_RADII_ANGSTROM

VALENCES: dict[str, tuple[int, ...]] = {
    "H": (1,), "B": (3,), "C": (4,), "N": (3,), "O": (2,), "F": (1,), "Si": (4,), "P": (3, 5), "S": (2, 4, 6),
    "Cl": (1,), "Se": (2, 4, 6), "Br": (1,), "I": (1,),
}  # fmt: skip
"""Bonds that an atom without a charge has; the others have single bonds only."""

_LINEAR_DEGREES = 150.0
"""Angle at an atom of two neighbours from which on it may have two double bonds or a triple one."""

_POSITIVE, _NEGATIVE = ("N", "P", "S", "Se", "O", "C"), ("O", "S", "Se", "N", "P", "C", "B")
"""Elements that take a charge that the molecule has, the likeliest first."""

_RADICAL, _CHARGE, _PAIR, _EXPANSION = 1000.0, 100.0, 30.0, 10.0
"""Costs of an unpaired electron, a charge, the two charges of an oxide N+-O- and of two more valences of S or P."""


@dataclass(frozen=True)
class BondOrders:
    """Order of each bond, unpaired electrons and formal charge of each atom, a valence structure of least cost."""

    orders: tuple[int, ...]
    radicals: tuple[int, ...]
    charges: tuple[int, ...]


def bond_orders(symbols: Sequence[str], positions: np.ndarray, bonds: Bonds, charge: int = 0) -> BondOrders:
    """Find the valence structure with the fewest unpaired electrons, then charges, and double bonds where they fit.

    Parameters
    ----------
    symbols
        Element symbols, ``n`` of them.
    positions
        ``(n, 3)`` in Å.
    bonds
        Pairs of bonded atoms.
    charge
        Total charge.

    Returns
    -------
    BondOrders
        Of charges that no structure has, the least are missing. Of resonance structures it is one.

    Notes
    -----
    An integer program: an atom with n neighbours and v valences shares v - n electrons with its neighbours or keeps
    them unpaired; a charge of N, P, O or S gives it one more bond, of others one less. Nitrones, nitro groups and
    nitronyl nitroxides have an oxide N+-O-. Perception that pairs all electrons, such as that of Kim and Kim (Bull.
    Korean Chem. Soc. 36, 1769 (2015)), gives radicals charges or leaves double bonds out.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    n_atoms, near = len(symbols), neighbours(len(symbols), bonds)
    bent = [
        atom
        for atom in range(n_atoms)
        if len(near[atom]) == 2 and _angle(positions, atom, near[atom]) < _LINEAR_DEGREES
    ]
    right, fixed = np.zeros(n_atoms + 1 + len(bent)), np.zeros(n_atoms, int)
    # Of each unknown: its entries by row, its cost and its largest value. Rows: atoms, the charge, bent atoms.
    columns: list[tuple[dict[int, float], float, float]] = []
    for i, j in bonds:  # electrons beyond a single bond
        rows = {i: 1.0, j: 1.0} | {n_atoms + 1 + bent.index(atom): 1.0 for atom in (i, j) if atom in bent}
        radii = (COVALENT_RADII_ANGSTROM.get(symbols[atom], 0.7) for atom in (i, j))
        columns.append((rows, float(np.linalg.norm(positions[i] - positions[j])) - sum(radii), 2))
    columns += [({atom: 1.0}, _RADICAL, np.inf) for atom in range(n_atoms)]
    for atom, symbol in enumerate(symbols):
        n, known = len(near[atom]), VALENCES.get(symbol, ())
        if known and n > known[-1]:
            fixed[atom] = {"B": -1, "N": 1, "O": 1}.get(symbol, 0)  # borate, ammonium, oxonium
        elif known:
            valence = min(v for v in known if v >= n)
            right[atom] = valence - n
    oxides = [pair for a, b in bonds for pair in ((a, b), (b, a)) if _is_oxide(*pair, symbols, near, bent)]
    columns += [({nitrogen: -1.0, other: 1.0}, _PAIR, 1) for nitrogen, other in oxides]
    expandable = [atom for atom in range(n_atoms) if len(VALENCES.get(symbols[atom], ())) > 1 and not fixed[atom]]
    for atom in expandable:
        valences = VALENCES[symbols[atom]]
        columns.append(({atom: -2.0}, _EXPANSION, (valences[-1] - right[atom] - len(near[atom])) / 2))
    left = charge - int(fixed.sum())
    sign, order = (1, _POSITIVE) if left > 0 else (-1, _NEGATIVE)
    charged = [atom for atom in range(n_atoms) if left and symbols[atom] in order and not fixed[atom]]
    for atom in charged:
        more = symbols[atom] != "C" and (sign > 0) == (symbols[atom] != "B")  # bonds than without the charge
        columns.append(({atom: -1.0 if more else 1.0, n_atoms: 1.0}, _CHARGE + order.index(symbols[atom]), 1))
    columns.append(({n_atoms: 1.0}, 1e5, np.inf))  # charges that no atom has
    right[n_atoms] = abs(left)

    entries = [(row, column, value) for column, (rows, _, _) in enumerate(columns) for row, value in rows.items()]
    row_numbers, column_numbers, values = zip(*entries, strict=True)
    lower = np.where(np.arange(len(right)) > n_atoms, -np.inf, right)
    right[n_atoms + 1 :] = 1
    found = milp(
        [cost for _, cost, _ in columns],
        integrality=np.ones(len(columns)),
        bounds=Bounds(0, [most for _, _, most in columns]),
        constraints=LinearConstraint(coo_array((values, (row_numbers, column_numbers))).tocsr(), lower, right),
    )
    ends = np.cumsum([len(bonds), n_atoms, len(oxides), len(expandable), len(charged)])
    extra, unpaired, taken, _, single, _ = np.split(np.rint(found.x).astype(int), ends)
    charges = fixed.copy()
    for (nitrogen, other), present in zip(oxides, taken, strict=True):
        charges[nitrogen] += present
        charges[other] -= present
    charges[charged] += sign * single
    return BondOrders(tuple((1 + extra).tolist()), tuple(unpaired.tolist()), tuple(charges.tolist()))


def _is_oxide(i: int, j: int, symbols: Sequence[str], near: Sequence[Sequence[int]], bent: Sequence[int]) -> bool:
    """Return whether two atoms may be N+ and O- of an oxide or nitro group, or N+ and N- of an azide or the like."""
    if symbols[i] != "N" or len(near[j]) != 1:
        return False
    return symbols[j] in ("O", "S") if len(near[i]) == 3 else len(near[i]) == 2 and i not in bent and symbols[j] != "H"


def _angle(positions: np.ndarray, atom: int, pair: Sequence[int]) -> float:
    """Return the angle at an atom between two others in degrees."""
    first, second = (positions[other] - positions[atom] for other in pair)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
