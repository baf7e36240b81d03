"""Spin centres found from the graph of a molecule: radical groups and the largest chromophore."""

from __future__ import annotations

from typing import Any

from molecular_qubits.structure.molecule import Molecule

OTHERWISE = (
    "Give the centres as atom sets, or find them from the spin density (`centres_from_density`, `--centres density`)."
)


def radical_centres(molecule: Molecule) -> tuple[tuple[int, ...], ...]:
    """Return the atoms of each radical group.

    A group grows from an atom with an unpaired electron through double and conjugated bonds and to neighbouring N, O
    and S, and ends at benzenoid rings and saturated carbon: N and O of a nitroxide, O-N-C=N of an iminonitroxide, all
    ring atoms of an oxoverdazyl but substituents, CH2 of a benzyl radical. An atom within reach of several groups
    belongs to the nearest one, or to none if two are equally near. Adjacent unpaired electrons make one group.

    Parameters
    ----------
    molecule
        Made from a SMILES that writes the radicals, e.g. ``[O]N(C)C``; of a geometry alone, bond orders and radicals
        are those of `molecular_qubits.structure.bond_orders`, whatever its multiplicity.

    Returns
    -------
    tuple of tuple of int
        Atom indices, by the position of the radical atom in the molecule. Each group has spin 1/2.

    Raises
    ------
    ValueError
        If the molecule has no radical, or a group has more than one unpaired electron.
    """
    mol = molecule.to_rdkit()
    seeds = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetNumRadicalElectrons()]
    if not seeds:
        raise ValueError(
            f"Argument `molecule` must have a radical, such as [O]N in its SMILES, but {_name(molecule)} has none. "
            f"{OTHERWISE}"
        )
    for seed in seeds:
        electrons = mol.GetAtomWithIdx(seed).GetNumRadicalElectrons()
        close = [a.GetIdx() for a in mol.GetAtomWithIdx(seed).GetNeighbors() if a.GetNumRadicalElectrons()]
        if electrons > 1 or close:
            raise ValueError(
                f"Argument `molecule` must have one unpaired electron in each radical group, but atom {seed} has "
                f"{electrons + len(close)} with its neighbours. Give the centres as atom sets."
            )
    distances = {seed: _reach(mol, seed) for seed in seeds}
    groups: dict[int, list[int]] = {seed: [] for seed in seeds}
    for index in range(molecule.n_atoms):
        near = sorted((found[index], seed) for seed, found in distances.items() if index in found)
        if len(near) == 1 or (len(near) > 1 and near[0][0] < near[1][0]):
            groups[near[0][1]].append(index)
    return tuple(tuple(groups[seed]) for seed in seeds)


def chromophore_centre(molecule: Molecule) -> tuple[int, ...]:
    """Return the atoms of the largest system of fused aromatic rings, e.g. the 14 carbon atoms of anthracene.

    Parameters
    ----------
    molecule
        Of a geometry alone, the bond orders are those of `molecular_qubits.structure.bond_orders`.

    Raises
    ------
    ValueError
        If the molecule has no aromatic ring, or two systems are equally large.
    """
    mol = molecule.to_rdkit()
    systems: list[set[int]] = []
    for ring in mol.GetRingInfo().AtomRings():
        if not all(mol.GetAtomWithIdx(index).GetIsAromatic() for index in ring):
            continue
        joined = set(ring)
        apart = []
        for system in systems:
            if len(system & joined) >= 2:
                joined |= system
            else:
                apart.append(system)
        systems = [*apart, joined]
    if not systems:
        raise ValueError(f"Argument `molecule` must have an aromatic ring, but {_name(molecule)} has none. {OTHERWISE}")
    systems.sort(key=len, reverse=True)
    if len(systems) > 1 and len(systems[0]) == len(systems[1]):
        raise ValueError(
            f"Argument `molecule` must have one largest aromatic system, but {_name(molecule)} has several of "
            f"{len(systems[0])} atoms. Give the centre as an atom set."
        )
    return tuple(sorted(systems[0]))


def _name(molecule: Molecule) -> str:
    return "its geometry" if molecule.smiles is None else repr(molecule.smiles)


def _reach(mol: Any, seed: int) -> dict[int, int]:
    """Return the atoms of the group around a radical atom with their distance from it in bonds."""
    found, waiting = {seed: 0}, [seed]
    while waiting:
        atom = mol.GetAtomWithIdx(waiting.pop(0))
        for bond in atom.GetBonds():
            other = bond.GetOtherAtom(atom)
            index = other.GetIdx()
            if index not in found and _belongs(bond, atom, other):
                found[index] = found[atom.GetIdx()] + 1
                waiting.append(index)
    return found


def _belongs(bond: Any, atom: Any, other: Any) -> bool:
    from rdkit import Chem

    if other.GetIsAromatic() or other.GetAtomicNum() == 1:
        return False
    if other.GetSymbol() in ("N", "O", "S"):
        return True
    unsaturated = other.GetNumRadicalElectrons() > 0 or any(
        b.GetBondType() != Chem.BondType.SINGLE for b in other.GetBonds()
    )
    return unsaturated or bond.GetIsConjugated()
