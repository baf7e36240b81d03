"""Spin centres from graph and spin density, geometries of the library, and the notebook view."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from molecular_qubits.electronic.cube import write_spin_density_cube
from molecular_qubits.electronic.scf import SCFSettings, Workspace, run_scf
from molecular_qubits.electronic.spin_centres import find_spin_centres
from molecular_qubits.fields.populations import atom_of_orbital, lowdin_spins
from molecular_qubits.structure import bonds
from molecular_qubits.structure.centres import chromophore_centre, radical_centres
from molecular_qubits.structure.clashes import check_clashes, closest_contact
from molecular_qubits.structure.library import LIBRARY, start_geometry
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.view import SPIN_COLOURS, view


@pytest.mark.parametrize(
    ("smiles", "groups"),
    [
        ("[O]N(C)C", [(0, 1)]),
        ("[O]N1C(C)=NC(C)(C)C1(C)C", [(0, 1, 2, 4)]),
        ("[CH2]c1ccccc1", [(0,)]),
        ("CN1N=C[N]N(C)C1=O", [(1, 2, 3, 4, 5, 7, 8)]),
        ("[CH2]C(=C)[CH2]", [(0,), (3,)]),  # the centre and the third CH2 are equally near to both
        ("[O]NCN[O]", [(0, 1), (3, 4)]),
    ],
)
def test_radical_groups_of_known_radicals(smiles, groups):
    assert list(radical_centres(Molecule.from_smiles(smiles))) == groups


def test_the_chromophore_is_the_largest_fused_system():
    assert chromophore_centre(Molecule.from_smiles(LIBRARY["mono"].smiles)) == tuple(range(9, 23))
    assert len(chromophore_centre(Molecule.from_smiles("c1ccc(cc1)-c1cccc2ccccc12"))) == 10
    with pytest.raises(ValueError, match="several of 6 atoms"):
        chromophore_centre(Molecule.from_smiles("c1ccccc1-c1ccccc1"))
    with pytest.raises(ValueError, match="aromatic ring"):
        chromophore_centre(Molecule.from_smiles("CC"))


@pytest.mark.parametrize(
    ("smiles", "words"),
    [("CC", "'CC' has none"), ("[CH2][CH2]", "atom 0 has 2"), ("[CH]C", "atom 0 has 2")],
)
def test_molecules_without_clear_radicals_are_refused(smiles, words):
    with pytest.raises(ValueError, match=words):
        radical_centres(Molecule.from_smiles(smiles))


def test_a_geometry_alone_has_the_centres_of_its_smiles():
    known = Molecule.from_smiles(LIBRARY["mono"].smiles, multiplicity=4)
    plain = Molecule.from_xyz_text(known.to_xyz())
    assert plain.smiles is None
    assert radical_centres(plain) == radical_centres(known) != ()
    assert chromophore_centre(plain) == chromophore_centre(known)
    water = Molecule.from_xyz_text(Molecule.from_smiles("O").to_xyz())
    with pytest.raises(ValueError, match=r"its geometry has none\. .* or find them from the spin density"):
        radical_centres(water)
    with pytest.raises(ValueError, match=r"aromatic ring, but its geometry has none\. Give the centres as atom sets"):
        chromophore_centre(water)


def test_spin_density_finds_the_nitroxides_that_the_graph_finds():
    molecule = Molecule.from_smiles(LIBRARY["methylene-bis-nitroxide"].smiles)
    workspace = Workspace(
        molecule, SCFSettings(xc="b3lyp", basis="6-31g", grid_level=0, conv_tol=1e-6, density_fit=True)
    )
    density = run_scf(workspace, 2, None, label="triplet", guess="minao").density
    overlap = workspace.mole.intor_symmetric("int1e_ovlp")
    found = find_spin_centres(molecule, lowdin_spins(density, overlap, atom_of_orbital(workspace.mole)))
    assert tuple(centre.atoms for centre in found) == radical_centres(molecule)
    assert [centre.spin for centre in found] == [0.5, 0.5]
    assert sum(centre.population for centre in found) == pytest.approx(2, abs=0.15)


def test_spin_centres_keep_signs_and_join_neighbours():
    molecule = Molecule.from_smiles("CCCCC")
    spins = np.zeros(molecule.n_atoms)
    spins[:5] = [1.2, -0.2, 0.05, -1.4, -0.6]
    up, down = find_spin_centres(molecule, spins)
    assert (up.atoms, up.spin, down.atoms, down.spin) == ((0, 1), 0.5, (3, 4), 1.0)
    assert up.population == pytest.approx(1.0)
    assert down.population == pytest.approx(-2.0)
    assert len(find_spin_centres(molecule, spins, threshold=0.01)) == 1  # the weak atom joins them: net -0.95
    with pytest.raises(ValueError, match=r"largest population is 0\.00"):
        find_spin_centres(molecule, np.zeros(molecule.n_atoms))
    with pytest.raises(ValueError, match="for each of 17 atoms"):
        find_spin_centres(molecule, [1.0])


@pytest.mark.parametrize("entry", LIBRARY.values(), ids=lambda entry: entry.name)
def test_library_geometries_are_molecules(entry):
    """Bonds by distance are those of the SMILES, nothing clashes, and ring torsions are off their symmetric values."""
    molecule = start_geometry(Molecule.from_smiles(entry.smiles, multiplicity=entry.multiplicity))
    check_clashes(molecule)
    found = set(bonds.from_distances(molecule.symbols, molecule.positions))
    assert set(molecule.bonds) <= found
    extra = found - set(molecule.bonds)
    assert len(extra) <= 2, extra  # a turned ring can bring two hydrogens near each other
    assert closest_contact(molecule)[2] > 0.75
    for atoms in molecule.ring_torsions():
        angle = molecule.torsion(atoms)
        assert abs(angle - 90 * round(angle / 90)) >= 30 - 1e-6


class _Recorder:
    """Stands for py3Dmol.view: records what is drawn."""

    def __init__(self, **size):
        self.size, self.calls = size, []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


def test_view_shows_centres_and_both_signs_of_the_spin_density(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "py3Dmol", SimpleNamespace(view=_Recorder))
    cube = tmp_path / "spin.cube"
    cube.write_text("a cube file", encoding="utf-8")
    scene = view("[O]NCN[O]", centres=[[0, 1], [3, 4]], spin_density_cube=cube, isovalue=0.01)
    assert next(call for call in scene.calls if call[0] == "addModel")[2] == "xyz"
    assert [call[1] for call in scene.calls if call[0] == "addStyle"] == [{"index": [0, 1]}, {"index": [3, 4]}]
    surfaces = [call[3] for call in scene.calls if call[0] == "addVolumetricData"]
    assert [(s["isoval"], s["color"]) for s in surfaces] == [(0.01, SPIN_COLOURS["up"]), (-0.01, SPIN_COLOURS["down"])]


def test_view_refuses_bad_input_and_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3Dmol", None)
    with pytest.raises(ModuleNotFoundError, match="pip install py3Dmol"):
        view("[O]N")
    with pytest.raises(ValueError, match="`centres` must hold atom indices"):
        view("[O]N", centres=[[99]])
    with pytest.raises(ValueError, match="`isovalue`"):
        view("[O]N", isovalue=-1.0)
    with pytest.raises(FileNotFoundError, match=r"absent\.cube"):
        view("[O]N", spin_density_cube="absent.cube")


def test_a_cube_file_holds_the_unpaired_electrons(tmp_path):
    molecule = Molecule(("O", "O"), ((0.0, 0.0, 0.0), (0.0, 0.0, 1.2)))
    density = run_scf(
        Workspace(molecule, SCFSettings(xc="hf", basis="sto-3g")), 2, None, label="O2", guess="minao"
    ).density
    path = write_spin_density_cube(tmp_path / "o2.cube", molecule, "sto-3g", density, spacing_angstrom=0.15)
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    voxel = np.array([[float(x) for x in row[1:4]] for row in rows[3:6]])
    values = np.array([float(x) for row in rows[6 + molecule.n_atoms :] for x in row])
    assert len(values) == np.prod([int(row[0]) for row in rows[3:6]])
    volume = np.linalg.det(voxel)
    assert values.sum() * volume == pytest.approx(2, rel=0.02)
    again = write_spin_density_cube(tmp_path / "again.cube", molecule, "sto-3g", density, spacing_angstrom=0.15)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="`spacing_angstrom` must be positive"):
        write_spin_density_cube(path, molecule, "sto-3g", density, spacing_angstrom=0.0)
    with pytest.raises(ValueError, match="`density` must have shape"):
        write_spin_density_cube(path, molecule, "6-31g", density)
