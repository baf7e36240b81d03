"""Bond orders, radicals and formal charges of a geometry, also of open-shell molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from molecular_qubits.structure.bonds import Bonds, neighbours
from molecular_qubits.structure.elements import COVALENT_RADII_ANGSTROM

VALENCES: dict[str, tuple[int, ...]] = {
    "H": (1,), "B": (3,), "C": (4,), "N": (3,), "O": (2,), "F": (1,), "Si": (4,), "P": (3, 5), "S": (2, 4, 6),
    "Cl": (1, 3, 5, 7), "Se": (2, 4, 6), "Br": (1, 3, 5, 7), "I": (1, 3, 5, 7),
}  # fmt: skip
"""Bonds that an atom without a charge has. Other elements are taken for metals: bonds to them are dative."""

_SATURATED_CHARGE = {"B": -1, "N": 1, "O": 1, "P": -1, "Si": -1}
"""Charge of an atom with a bond more than its largest valence, as in borate, ammonium and oxonium ions."""

_LINEAR_DEGREES = 150.0
"""Angle at an atom of two neighbours from which on it may have two double bonds or a triple one."""

_POSITIVE = ("N", "P", "S", "Se", "O", "C", "H")
_NEGATIVE = ("O", "S", "Se", "F", "Cl", "Br", "I", "N", "P", "C", "B", "H")
"""Elements that take a charge that the molecule has, the likeliest first."""

_RADICAL, _CHARGE, _OXIDE, _EXPANSION, _METAL = 1000.0, 100.0, 30.0, 10.0, 1.0
"""Costs of an unpaired electron, a charge that the molecule has, the two charges of an oxide N+-O-, two more valences,
and a charge of a metal."""

_ON_NITROGEN = 2.5
"""Cost of a negative charge beside a nitrogen: of carboxylate or thiolate and nitroxide, the latter has the radical."""

_ZWITTERION = 750.0
"""Cost of a charge beyond those: two of them are less than two unpaired electrons. Only a nitrogen of three neighbours
and the terminal oxygen or sulfur of a carbon may have them, as in betaines; not the radical centres of a diradical."""


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
        One of the resonance structures. Charges that none has are missing from their sum.

    Notes
    -----
    An integer program: an atom with n neighbours and v valences shares v - n electrons with its neighbours or keeps
    them unpaired; a positive charge of N, O, and of P or S but in phosphonium and sulfonium, gives it one more bond,
    other charges one less. Nitrones, nitro groups and nitronyl nitroxides have an oxide N+-O-. Perception that pairs
    all electrons, such as that of Kim and Kim (Bull. Korean Chem. Soc. 36, 1769 (2015)), gives radicals charges or
    leaves double bonds out. The multiplicity is not asked: triplet oxygen has a double bond, and a chromophore in its
    triplet state those of its ground state.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    n_atoms = len(symbols)
    known = [symbol in VALENCES for symbol in symbols]
    bonds_between = [pair for pair in bonds if known[pair[0]] and known[pair[1]]]
    near = neighbours(n_atoms, bonds_between)
    bent = {
        atom
        for atom in range(n_atoms)
        if symbols[atom] in ("C", "N", "B")
        and len(near[atom]) == 2
        and _angle(positions, atom, near[atom]) < _LINEAR_DEGREES
    }
    right, fixed = np.zeros(n_atoms + 1), np.zeros(n_atoms, int)
    for atom, symbol in enumerate(symbols):
        n, valences = len(near[atom]), VALENCES.get(symbol, ())
        if valences and n > valences[-1]:
            fixed[atom] = _SATURATED_CHARGE.get(symbol, 0)
        elif valences:
            right[atom] = min(valence for valence in valences if valence >= n) - n
    right[n_atoms] = left = charge - int(fixed.sum())

    # Of each unknown: its entries by row, its cost and its largest value. Rows: atoms, the charge, then limits.
    columns: list[tuple[Mapping[int, float], float, float]] = []
    for i, j in bonds_between:  # electrons beyond a single bond
        radii = (COVALENT_RADII_ANGSTROM.get(symbols[atom], 0.7) for atom in (i, j))
        columns.append(({i: 1.0, j: 1.0}, float(np.linalg.norm(positions[i] - positions[j])) - sum(radii), 2))
    columns += [({atom: 1}, _RADICAL, np.inf) for atom in range(n_atoms)]
    first_radical, first_oxide = len(bonds_between), len(columns)
    oxides = [pair for a, b in bonds_between for pair in ((a, b), (b, a)) if _is_oxide(*pair, symbols, near, bent)]
    columns += [({first: -1, second: 1}, _OXIDE, 1) for first, second in oxides]
    for atom, symbol in enumerate(symbols):
        if known[atom] and not fixed[atom]:
            most = (VALENCES[symbol][-1] - right[atom] - len(near[atom])) / 2
            columns.append(({atom: -2}, _EXPANSION, max(0.0, most)))
    without_metals = all(known)
    charged = [
        (atom, sign, cost)
        for atom in range(n_atoms)
        if not fixed[atom]
        for sign in (1, -1)
        if (cost := _charge_cost(atom, sign, left, symbols, near, without_metals)) is not None
    ]
    first_charge = len(columns)
    for atom, sign, cost in charged:
        less = symbols[atom] in ("C", "H") or (sign > 0 and _is_onium(symbols[atom], len(near[atom])))
        more = not less and (sign > 0) == (symbols[atom] != "B")  # bonds than without the charge
        columns.append(
            ({n_atoms: sign} | ({atom: -1 if more else 1} if known[atom] else {}), cost, 1 if known[atom] else 8)
        )
    columns += [({n_atoms: sign}, 1e5, np.inf) for sign in (1, -1)]  # charges that no atom has

    limits = [[number for number, pair in enumerate(bonds_between) if atom in pair] for atom in sorted(bent)]
    for atom in {second for _, second in oxides}:  # one charge at most
        limits.append(
            [first_oxide + number for number, pair in enumerate(oxides) if atom in pair]
            + [first_charge + number for number, (other, _, _) in enumerate(charged) if other == atom]
        )
    entries = [(row, column, value) for column, (rows, _, _) in enumerate(columns) for row, value in rows.items()]
    entries += [(n_atoms + 1 + row, column, 1) for row, limited in enumerate(limits) for column in limited]
    row_numbers, column_numbers, values = zip(*entries, strict=True)
    shape = (n_atoms + 1 + len(limits), len(columns))
    found = milp(
        [cost for _, cost, _ in columns],
        integrality=np.ones(len(columns)),
        bounds=Bounds(0, [most for _, _, most in columns]),
        constraints=LinearConstraint(
            coo_array((values, (row_numbers, column_numbers)), shape=shape).tocsr(),
            np.append(right, np.full(len(limits), -np.inf)),
            np.append(right, np.ones(len(limits))),
        ),
    )
    if found.x is None:  # pragma: no cover
        raise RuntimeError(f"The valence structure of {n_atoms} atoms was not found: {found.message}")
    x = np.rint(found.x).astype(int)
    charges = fixed.copy()
    for (first, second), present in zip(oxides, x[first_oxide:], strict=False):
        charges[first] += present
        charges[second] -= present
    for (atom, sign, _), present in zip(charged, x[first_charge:], strict=False):
        charges[atom] += sign * present
    extra = dict(zip(bonds_between, x.tolist(), strict=False))
    return BondOrders(
        tuple(1 + extra.get(pair, 0) for pair in bonds),
        tuple(x[first_radical:first_oxide].tolist()),
        tuple(charges.tolist()),
    )


def _charge_cost(
    atom: int, sign: int, left: int, symbols: Sequence[str], near: Sequence[Sequence[int]], without_metals: bool
) -> float | None:
    """Return what a charge of an atom costs; ``None`` if it cannot have it."""
    symbol = symbols[atom]
    if symbol not in VALENCES:
        return _METAL if sign > 0 else None
    order, around = _POSITIVE if sign > 0 else _NEGATIVE, [symbols[other] for other in near[atom]]
    if symbol not in order:
        return None
    if left > 0 and sign > 0 and _is_onium(symbol, len(around)):
        return _CHARGE - 1
    if left * sign > 0 or (sign < 0 and not without_metals):
        return _CHARGE + order.index(symbol) + (_ON_NITROGEN if sign < 0 and "N" in around else 0.0)
    if sign > 0:
        return _ZWITTERION if symbol == "N" and len(around) == 3 else None
    return _ZWITTERION if symbol in ("O", "S") and around == ["C"] else None


def _is_onium(symbol: str, n_neighbours: int) -> bool:
    """Return whether an atom with a positive charge is that of a phosphonium or sulfonium, with a bond less for it."""
    return symbol in ("P", "S", "Se") and n_neighbours - 1 in VALENCES[symbol]


def _is_oxide(i: int, j: int, symbols: Sequence[str], near: Sequence[Sequence[int]], bent: set[int]) -> bool:
    """Return whether two atoms may be N+ and O- of an oxide, N+ and N- of an azide, or O+ and O- of ozone."""
    pair, n_neighbours = (symbols[i], symbols[j]), len(near[i])
    if len(near[j]) != 1:
        return False
    if pair in (("N", "O"), ("N", "S")) and n_neighbours == 3:
        return True
    return (pair == ("O", "O") and n_neighbours == 2) or (pair[0] == "N" and n_neighbours == 2 and i not in bent)


def _angle(positions: np.ndarray, atom: int, pair: Sequence[int]) -> float:
    """Return the angle at an atom between two others in degrees."""
    first, second = (positions[other] - positions[atom] for other in pair)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
