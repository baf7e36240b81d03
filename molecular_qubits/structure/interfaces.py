"""Molecules from and to ASE and RDKit objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.structure.bond_orders import VALENCES, bond_orders
from molecular_qubits.structure.molecule import Molecule, whole_number

if TYPE_CHECKING:
    from ase import Atoms
    from rdkit.Chem import Mol

CHARGE_PROPERTY = "molecular_qubits_charge"
"""Property of an RDKit ``Mol`` for a total charge that is not the sum of the formal ones."""

_ASE_CHARGE = "The charge of `atoms` (`info['charge']`, else the sum of the initial charges; give `charge` instead)"


def as_molecule(source: Any, *, multiplicity: int | None = None, charge: int | None = None) -> Molecule:
    """Return what stands for a molecule as a `Molecule`.

    Parameters
    ----------
    source
        A `Molecule`, ASE ``Atoms``, an RDKit ``Mol``, the path of an XYZ file (a `Path`, or a string that ends in
        ``.xyz``) or a SMILES string.
    multiplicity
        2S + 1; ``None`` keeps that of the source, if it has one.
    charge
        Total charge; ``None`` takes that of the source.

    Raises
    ------
    TypeError
        If the source is of another type.
    ValueError
        If it cannot be read; see `Molecule`.
    """
    if isinstance(source, Molecule):
        new_charge = source.charge if charge is None else charge
        new_multiplicity = source.multiplicity if multiplicity is None else multiplicity
        return replace(source, charge=new_charge, multiplicity=new_multiplicity)
    if isinstance(source, Path) or (isinstance(source, str) and source.lower().endswith(".xyz")):
        return Molecule.from_xyz(source, multiplicity=multiplicity, charge=charge)
    if isinstance(source, str):
        return Molecule.from_smiles(source, multiplicity=multiplicity, charge=charge)
    package = type(source).__module__.partition(".")[0]  # neither package is loaded to find out
    if package == "ase" and hasattr(source, "get_chemical_symbols"):
        return from_ase(source, multiplicity=multiplicity, charge=charge)
    if package == "rdkit" and hasattr(source, "GetAtoms"):
        return from_rdkit(source, multiplicity=multiplicity, charge=charge)
    raise TypeError(
        "Argument `molecule` must be a Molecule, ASE Atoms, an RDKit Mol, an XYZ file or a SMILES string, but is of "
        f"type {type(source).__name__}."
    )


def from_ase(atoms: Atoms, *, multiplicity: int | None = None, charge: int | None = None) -> Molecule:
    """Make a molecule from ASE ``Atoms``.

    Parameters
    ----------
    atoms
        Not periodic. ``atoms.info`` may hold ``charge`` and ``multiplicity``, as `to_ase` writes them; without
        ``charge`` it is the sum of the initial charges.
    multiplicity, charge
        Given values win over those of ``atoms.info``.

    Raises
    ------
    ValueError
        If the atoms are periodic, their charge or multiplicity is not a whole number, or as for `Molecule`.
    """
    if np.any(atoms.pbc):
        raise ValueError(f"Argument `atoms` must not be periodic, but has pbc = {atoms.pbc.tolist()}.")
    symbols, positions = tuple(atoms.get_chemical_symbols()), atoms.get_positions()
    if charge is None:
        initial = round(float(atoms.get_initial_charges().sum()), 6)  # fractions add up to their total nearly
        charge = whole_number(atoms.info.get("charge", initial), _ASE_CHARGE)
    spin = atoms.info.get("multiplicity") if multiplicity is None else multiplicity
    spin = None if spin is None else whole_number(spin, "Argument `multiplicity`")
    return Molecule(symbols, positions, charge, spin)


def to_ase(molecule: Molecule) -> Atoms:
    """Return ASE ``Atoms`` with charge and multiplicity in ``info``."""
    from ase import Atoms

    info = {"charge": molecule.charge, "multiplicity": molecule.multiplicity}
    return Atoms(molecule.symbols, positions=molecule.positions, info={k: v for k, v in info.items() if v is not None})


def from_rdkit(mol: Mol, *, multiplicity: int | None = None, charge: int | None = None, seed: int = 42) -> Molecule:
    """Make a molecule from an RDKit ``Mol``.

    Parameters
    ----------
    mol
        With a three-dimensional conformer and all hydrogens, it is taken as it is. Without a conformer it is embedded
        from its SMILES, in the order of its atoms.
    multiplicity, charge
        ``None``: no multiplicity, and the sum of the formal charges, or the charge that `to_rdkit` has kept.
    seed
        Seed of the embedding.

    Raises
    ------
    ValueError
        If there is a conformer but hydrogens are missing, or as for `Molecule`.
    """
    from rdkit import Chem

    from molecular_qubits.structure.embedding import embed_mol

    if mol.GetNumConformers() == 0:
        symbols, positions, bonds, formal = embed_mol(mol, seed, repr(Chem.MolToSmiles(mol)))
    else:
        if not mol.GetConformer().Is3D():
            raise ValueError(
                "Argument `mol` must have three-dimensional coordinates or none, but its conformer is flat. Remove it "
                "(`mol.RemoveAllConformers()`) or embed the molecule."
            )
        missing = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
        if missing:
            raise ValueError(
                f"Argument `mol` must hold its hydrogens as atoms, but {missing} of them are implicit. Add them with "
                "`Chem.AddHs(mol, addCoords=True)`."
            )
        symbols = tuple(atom.GetSymbol() for atom in mol.GetAtoms())
        positions = mol.GetConformer().GetPositions()
        pairs = ((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds())
        bonds = tuple((min(i, j), max(i, j)) for i, j in pairs)
        formal = Chem.GetFormalCharge(mol)
    if charge is None:
        charge = mol.GetIntProp(CHARGE_PROPERTY) if mol.HasProp(CHARGE_PROPERTY) else formal
    rows = tuple((float(x), float(y), float(z)) for x, y, z in positions)
    return Molecule(symbols, rows, charge, multiplicity, Chem.MolToSmiles(Chem.RemoveHs(mol)), bonds)


def to_rdkit(molecule: Molecule) -> Mol:
    """Return an RDKit ``Mol`` with the geometry as its conformer and the atoms in the order of the molecule.

    A molecule made from a SMILES keeps bond orders, charges and radicals of it; otherwise they are those of
    `molecular_qubits.structure.bond_orders`. A total charge that the formal charges do not give is kept as a property,
    for `from_rdkit`.

    Raises
    ------
    ValueError
        If the atoms are not those of the SMILES.
    """
    from rdkit import Chem
    from rdkit.Chem import rdchem
    from rdkit.Geometry import Point3D

    mol = _from_geometry(molecule) if molecule.smiles is None else _template(molecule)
    conformer = rdchem.Conformer(molecule.n_atoms)
    for index, row in enumerate(molecule.coordinates):
        conformer.SetAtomPosition(index, Point3D(*row))
    mol.RemoveAllConformers()
    mol.AddConformer(conformer, assignId=True)
    if Chem.GetFormalCharge(mol) != molecule.charge:
        mol.SetIntProp(CHARGE_PROPERTY, molecule.charge)
    return mol


def to_smiles(molecule: Molecule) -> str:
    """Return the SMILES of a molecule: its own, or that of the bond orders, charges and radicals of its geometry, with
    the stereochemistry that this has.

    Raises
    ------
    ValueError
        If no atoms can have the charge, the SMILES that the molecule was made from has another one, or RDKit knows no
        such valence.
    """
    from rdkit import Chem

    if molecule.smiles is not None:
        written = Chem.GetFormalCharge(Chem.MolFromSmiles(molecule.smiles, sanitize=False))
        if written != molecule.charge:
            raise ValueError(
                f"Argument `molecule` must have the charge of its SMILES {molecule.smiles!r}, {written:+d}, but has "
                f"{molecule.charge:+d}: write the ion that is meant."
            )
        return molecule.smiles
    mol = to_rdkit(molecule)
    if mol.HasProp(CHARGE_PROPERTY):
        raise ValueError(
            f"Argument `molecule` must have atoms for its charge of {molecule.charge:+d}, but they have "
            f"{Chem.GetFormalCharge(mol):+d}."
        )
    try:
        Chem.AssignStereochemistryFrom3D(mol)
        return Chem.MolToSmiles(Chem.RemoveHs(mol))
    except ValueError as error:
        raise ValueError(f"Argument `molecule` must have bonds of common valences, but: {error}") from error


def _from_geometry(molecule: Molecule) -> Any:
    """Return an RDKit molecule with the bond orders, charges and radicals of `bond_orders`."""
    from rdkit import Chem, rdBase

    found = bond_orders(molecule.symbols, molecule.positions, molecule.bonds, molecule.charge)
    mol: Any = Chem.RWMol()
    for symbol, unpaired, charge in zip(molecule.symbols, found.radicals, found.charges, strict=True):
        atom = Chem.Atom(symbol)
        atom.SetNoImplicit(True)
        atom.SetNumRadicalElectrons(unpaired)
        atom.SetFormalCharge(charge)
        mol.AddAtom(atom)
    kinds = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
    for (i, j), order in zip(molecule.bonds, found.orders, strict=True):
        metals = [atom for atom in (i, j) if molecule.symbols[atom] not in VALENCES]
        if len(metals) == 1:
            mol.AddBond(i + j - metals[0], metals[0], Chem.BondType.DATIVE)
        else:
            mol.AddBond(i, j, kinds[order])
    with rdBase.BlockLogs():
        Chem.SanitizeMol(mol, catchErrors=True)  # aromatic bonds; unusual valences stay as they are
    return mol.GetMol()


def isotope_labels(molecule: Molecule) -> dict[int, int] | None:
    """Return the mass numbers of the atoms that the SMILES labels, such as ``[2H]``; ``None`` if the atoms are not in
    its order, so that equal elements cannot be told apart.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        bare = None if molecule.smiles is None else Chem.MolFromSmiles(molecule.smiles)
    if bare is None:
        return {}
    mol = Chem.AddHs(bare)
    labels = {atom.GetIdx(): atom.GetIsotope() for atom in mol.GetAtoms() if atom.GetIsotope()}
    return labels if not labels or _in_order(molecule, mol) else None


def _in_order(molecule: Molecule, mol: Any) -> bool:
    pairs = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in mol.GetBonds()}
    return tuple(atom.GetSymbol() for atom in mol.GetAtoms()) == molecule.symbols and pairs == set(molecule.bonds)


def _template(molecule: Molecule) -> Any:
    """Return the RDKit molecule of the SMILES, its atoms renumbered to those of the molecule."""
    from rdkit import Chem

    mol = Chem.AddHs(Chem.MolFromSmiles(str(molecule.smiles)))
    if _in_order(molecule, mol):
        return mol
    order = _graph_match(molecule, mol) if mol.GetNumAtoms() == molecule.n_atoms else ()
    if not order:
        raise ValueError(
            f"Argument `molecule` must have the atoms and bonds of its SMILES {molecule.smiles!r}, but has "
            f"{molecule.n_atoms} other ones."
        )
    return Chem.RenumberAtoms(mol, list(order))


def _graph_match(molecule: Molecule, mol: Any) -> tuple[int, ...]:
    """Return the atom of ``mol`` for each atom of the molecule, by elements and bonds only; empty if there is none."""
    from rdkit import Chem
    from rdkit.Chem import rdqueries

    query: Any = Chem.RWMol()
    for symbol in molecule.symbols:
        query.AddAtom(rdqueries.AtomNumEqualsQueryAtom(Chem.GetPeriodicTable().GetAtomicNumber(symbol)))
    for i, j in molecule.bonds:
        query.AddBond(i, j, Chem.BondType.ZERO)
        query.ReplaceBond(query.GetBondBetweenAtoms(i, j).GetIdx(), Chem.BondFromSmarts("~"))
    return tuple(mol.GetSubstructMatch(query.GetMol()))
