"""ASE and RDKit objects in and out, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from rdkit import Chem
from rdkit.Chem import AllChem

from molecular_qubits.electronic.exchange import exchange_couplings
from molecular_qubits.structure.interfaces import as_molecule, to_rdkit
from molecular_qubits.structure.library import LIBRARY
from molecular_qubits.structure.molecule import Molecule
from shared.artifacts import Cache

SMILES = "[O]N(C)CC=O"


@pytest.fixture(scope="module")
def molecule():
    return Molecule.from_smiles(SMILES, multiplicity=4)


def test_ase_round_trip(molecule):
    atoms = molecule.to_ase()
    assert isinstance(atoms, Atoms)
    back = Molecule.from_ase(atoms)
    assert (back.symbols, back.coordinates, back.charge, back.multiplicity) == (
        molecule.symbols, molecule.coordinates, 0, 4,
    )  # fmt: skip
    assert back.bonds == tuple(sorted(molecule.bonds))
    assert Molecule.from_ase(atoms, multiplicity=2).multiplicity == 2


def test_rdkit_round_trip_keeps_radicals_bonds_and_coordinates(molecule):
    mol = molecule.to_rdkit()
    assert mol.GetAtomWithIdx(0).GetNumRadicalElectrons() == 1
    assert mol.GetBondBetweenAtoms(4, 5).GetBondType() == Chem.BondType.DOUBLE
    back = Molecule.from_rdkit(mol, multiplicity=4)
    assert back.symbols == molecule.symbols
    assert np.allclose(back.positions, molecule.positions)
    assert set(back.bonds) == set(molecule.bonds)


def test_rdkit_atoms_keep_their_order_even_where_the_smiles_has_another():
    mol = Chem.AddHs(Chem.MolFromSmiles("O=CCN(C)[O]"))
    AllChem.EmbedMolecule(mol, randomSeed=7)
    shuffled = Chem.RenumberAtoms(mol, list(np.random.default_rng(5).permutation(mol.GetNumAtoms()).tolist()))
    molecule = Molecule.from_rdkit(shuffled)
    again = to_rdkit(molecule)
    assert [a.GetSymbol() for a in again.GetAtoms()] == [a.GetSymbol() for a in shuffled.GetAtoms()]
    orders = {frozenset((b.GetBeginAtomIdx(), b.GetEndAtomIdx())): b.GetBondType() for b in shuffled.GetBonds()}
    for bond in again.GetBonds():
        assert orders[frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))] == bond.GetBondType()
    assert np.allclose(again.GetConformer().GetPositions(), molecule.positions)


@pytest.mark.parametrize("smiles", ["[O]N(C)C", None])
def test_rdkit_round_trip_keeps_a_charge_that_is_not_a_formal_one(smiles):
    neutral = Molecule.from_smiles("[O]N(C)C")
    ion = replace(neutral, charge=1, smiles=smiles)
    assert Molecule.from_rdkit(ion.to_rdkit()).charge == 1
    assert Molecule.from_rdkit(ion.to_rdkit(), charge=0).charge == 0
    assert Molecule.from_rdkit(neutral.to_rdkit()).charge == 0


def test_initial_charges_are_the_charge_of_ase_atoms():
    atoms = Atoms("OH3", [[0, 0, 0], [0.9, 0, 0.3], [-0.5, 0.8, 0.3], [-0.5, -0.8, 0.3]], charges=[1, 0, 0, 0])
    assert Molecule.from_ase(atoms).charge == 1
    atoms.set_initial_charges([0.1, 0.3, 0.3, 0.3])
    assert Molecule.from_ase(atoms).charge == 1
    assert Molecule.from_ase(atoms, charge=-1).charge == -1
    atoms.info["charge"] = 3.0
    assert Molecule.from_ase(atoms).charge == 3
    atoms.info["charge"] = 0.6
    with pytest.raises(ValueError, match=r"charge of `atoms` .* whole number, but is 0\.6"):
        Molecule.from_ase(atoms)


def test_rdkit_without_conformer_is_embedded_like_its_smiles(molecule):
    assert Molecule.from_rdkit(Chem.MolFromSmiles(SMILES)).coordinates == molecule.coordinates


CHARGED_AND_OTHERS = (
    "C[N+](C)(C)C", "CC(=O)[O-]", "c1cc[nH+]cc1", "C[N+](=O)[O-]", "c1cc[n+]([O-])cc1", "CC#N", "C#C", "CS(=O)(=O)C",
    "O=C=O", "[NH3+]CC(=O)[O-]", "c1ccsc1", "c1cc[nH]c1", "CP(=O)(O)O", "[O-]c1ccccc1", "CN=[N+]=[N-]", "[CH3+]",
    "C[C-]C", "FB(F)F", "F[B-](F)(F)F", "N#N", "O=C1C=CC(=O)C=C1", "CC(C)=[O+]C", "[He]", "C[Si](C)(C)Cl",
    "C[n+]1cccc(C(=O)[O-])c1", "C[N+](C)(C)CC(=O)[O-]", "CS(C)=O", "O=S=O", "[O-][O+]=O", "[O-]Cl(=O)(=O)=O", "C=S=O",
    "C[P+](C)(C)C", "CP(C)(C)=O", "NC(N)=[NH2+]", "[Cl-]", "[Na+]", "[N-]=[N+]=[N-]", "C[S+](C)C", "[H+]", "[H][H]",
    "CC1(C)CC(C(=O)[O-])C(C)(C)N1[O]", "CN([O])CC[S-]", "CN([O])C[P+](C)(C)C", "CN([O])C[S+](C)C", "C[S+](C)(C)=O",
    "C[P+](c1ccccc1)(c1ccccc1)c1ccccc1", "C[N+](C)(C)CN(C)[O]", "CN([O])CS(=O)(=O)[O-]",
    "[O-]C(=O)C(=O)[O-]", "C[n+]1ccc(-c2cc[n+](C)cc2)cc1", "C[C@H](N)C(=O)O", "C/C=C/C", "C/C=C\\C",
)  # fmt: skip


@pytest.mark.parametrize("smiles", [*(entry.smiles for entry in LIBRARY.values()), *CHARGED_AND_OTHERS])
def test_a_geometry_has_the_smiles_that_it_was_made_from(smiles):
    """Radicals, diradicals, ions and nitronyl nitroxides; double bonds may lie as in another resonance structure."""
    start = Molecule.from_smiles(smiles)
    plain = Molecule.from_xyz_text(start.to_xyz())
    assert (plain.smiles, start.to_smiles()) == (None, smiles)
    found, expected = (Chem.MolFromSmiles(text) for text in (plain.to_smiles(), smiles))
    if not {"@", "/"} & {*smiles}:  # the geometry has one all the same
        Chem.RemoveStereochemistry(found)
    assert Chem.MolToSmiles(found) == Chem.MolToSmiles(expected)


def test_bonds_to_a_metal_are_dative():
    axes = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    chlorides = Molecule(
        ("Zn", *["Cl"] * 4), ((0, 0, 0), *(2.2 * axes).tolist()), -2, bonds=((0, 1), (0, 2), (0, 3), (0, 4))
    )
    assert chlorides.to_smiles().count("[Cl-]") == 4
    assert "[Zn+2]" in chlorides.to_smiles()


def test_charges_that_no_atoms_have_are_kept_but_are_in_no_smiles():
    ion = Molecule(("F", "H", "F"), ((0, 0, -1.1), (0, 0, 0), (0, 0, 1.1)), -1, bonds=((0, 1), (1, 2)))
    assert (
        Molecule.from_rdkit(Molecule(("H", "H"), ((0, 0, 0), (0, 0, 1.0)), 1, bonds=((0, 1),)).to_rdkit()).charge == 1
    )
    assert ion.to_rdkit().GetNumBonds() == 2
    with pytest.raises(ValueError, match=r"`molecule` must have atoms for its charge of -1, but they have \+0"):
        ion.to_smiles()


def test_a_smiles_of_another_charge_is_not_given():
    cation = Molecule.from_smiles("[O]N(C)C", charge=1)
    with pytest.raises(ValueError, match=r"must have the charge of its SMILES .*, \+0, but has \+1"):
        cation.to_smiles()
    assert Molecule.from_smiles("C[N+](C)(C)C").to_smiles() == "C[N+](C)(C)C"


def test_bonds_and_atoms_of_a_geometry_are_those_of_its_rdkit_molecule(molecule):
    plain = Molecule.from_xyz_text(molecule.to_xyz())
    mol = plain.to_rdkit()
    assert {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in mol.GetBonds()} == set(plain.bonds)
    assert [atom.GetSymbol() for atom in mol.GetAtoms()] == list(plain.symbols)
    assert mol.GetAtomWithIdx(0).GetNumRadicalElectrons() == 1
    places = ((0, 0, 0), *np.vstack([np.eye(3), -np.eye(3)])[:5].tolist())
    crowded = Molecule(("C", *"HHHHH"), places, bonds=tuple((0, atom) for atom in range(1, 6)))
    assert crowded.to_rdkit().GetNumBonds() == 5  # no common valence: its bonds as they are
    with pytest.raises(ValueError, match="`molecule` must have bonds of common valences"):
        crowded.to_smiles()


def test_exchange_takes_ase_atoms(tmp_path):
    atoms = Atoms("HHeH", positions=[[0, 0, -1.5], [0, 0, 0], [0, 0, 1.5]])
    options = {"xc": "hf", "basis": "sto-3g", "stability": False, "cache": Cache(tmp_path)}
    found = exchange_couplings(atoms, [[0], [2]], **options).j_yamaguchi_cm1
    assert np.array_equal(found, exchange_couplings(as_molecule(atoms), [[0], [2]], **options).j_yamaguchi_cm1)
    assert found[0, 1] < 0


def test_every_kind_of_source_is_one_molecule(molecule, tmp_path):
    path = tmp_path / "molecule.xyz"
    path.write_text(molecule.to_xyz(), encoding="utf-8")
    for source in (SMILES, path, str(path), molecule.to_ase(), molecule.to_rdkit(), molecule):
        found = as_molecule(source, multiplicity=2)
        assert found.symbols == molecule.symbols
        assert found.multiplicity == 2
        assert np.allclose(found.positions, molecule.positions, atol=1e-9)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (7, TypeError, "but is of type int"),
        ("not a molecule", ValueError, "cannot read 'not a molecule'"),
        ("absent.xyz", FileNotFoundError, "absent.xyz"),
        (Atoms("H", pbc=True, cell=[5, 5, 5]), ValueError, "must not be periodic"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.01]]), ValueError, "atoms 0 and 1 coincide"),
    ],
)
def test_other_sources_are_refused(source, error, words):
    with pytest.raises(error, match=words):
        as_molecule(source)


def test_flat_and_incomplete_rdkit_molecules_are_refused():
    flat = Chem.MolFromSmiles("CC")
    AllChem.Compute2DCoords(flat)
    with pytest.raises(ValueError, match="conformer is flat"):
        as_molecule(flat)
    bare = Chem.AddHs(Chem.MolFromSmiles("CC"))
    AllChem.EmbedMolecule(bare, randomSeed=1)
    with pytest.raises(ValueError, match=r"6 of them are implicit.*AddHs"):
        as_molecule(Chem.RemoveHs(bare))


def test_another_smiles_than_the_atoms_is_refused(molecule):
    with pytest.raises(ValueError, match="must have the atoms and bonds of its SMILES 'CC'"):
        replace(molecule, smiles="CC").to_rdkit()
