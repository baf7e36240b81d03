"""Molecules, torsions, relaxation and the library."""

from dataclasses import FrozenInstanceError
from math import dist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molecular_qubits import Molecule, as_molecule, cli
from molecular_qubits.cli_exchange import read_molecule
from molecular_qubits.structure.bonds import from_distances
from molecular_qubits.structure.centres import radical_centres
from molecular_qubits.structure.library import LIBRARY, library_entry, start_geometry
from molecular_qubits.structure.relaxation import (
    GeometryNotConvergedError,
    cached_relaxation,
    changed_bonds,
    relax_gfn2,
)
from molecular_qubits.structure.torsions import off_symmetric, torsion_degrees
from shared.artifacts import Cache

BIPHENYL = Molecule.from_smiles("c1ccc(cc1)-c1ccccc1", multiplicity=1)
WATER = Molecule.from_smiles("O", multiplicity=1)


def test_smiles_give_the_same_geometry_every_time():
    again = Molecule.from_smiles("c1ccc(cc1)-c1ccccc1", multiplicity=1)
    assert again == BIPHENYL
    assert hash(again) == hash(BIPHENYL)
    assert BIPHENYL.n_atoms == 22
    assert BIPHENYL.n_heavy_atoms == 12
    assert BIPHENYL.n_electrons == 12 * 6 + 10


def test_rdkit_bonds_agree_with_covalent_radii():
    assert set(from_distances(BIPHENYL.symbols, BIPHENYL.positions)) == set(BIPHENYL.bonds)


def test_formal_charges_become_the_total_charge():
    ammonium = Molecule.from_smiles("[NH4+]")
    assert ammonium.charge == 1
    with pytest.raises(ValueError, match=r"`charge` must agree with the formal charges of '\[NH4\+\]', \+1, but is 0"):
        Molecule.from_smiles("[NH4+]", charge=0)
    assert ammonium.n_electrons == 10


def test_molecule_is_immutable():
    with pytest.raises(FrozenInstanceError):
        WATER.charge = 1


def test_xyz_keeps_charge_and_multiplicity(tmp_path):
    ion = Molecule(("He", "H"), ((0, 0, 0), (0, 0, 0.77)), charge=1, multiplicity=1)
    path = tmp_path / "ion.xyz"
    path.write_text(ion.to_xyz(), encoding="utf-8")
    for read in (Molecule.from_xyz(path), as_molecule(path), read_molecule(str(path))[0]):
        assert (read.charge, read.multiplicity, read.n_electrons) == (1, 1, 2)
    assert Molecule.from_xyz(path, charge=1, multiplicity=1) == Molecule.from_xyz(path)
    with pytest.raises(ValueError, match=r"`charge` must agree .*charge=1, but is 0"):
        Molecule.from_xyz(path, charge=0)
    assert Molecule.from_xyz(path, multiplicity=3).multiplicity == 3
    assert cli.main(["exchange", str(path), "--centres", "0", "1", "--charge", "0"]) == 2
    free = Molecule.from_xyz_text(
        "1\nrecharge=3 multiplicity=None Properties=species:S:1:pos:R:3:charge:R:1\nH 0 0 0 1\n"
    )
    assert (free.charge, free.multiplicity) == (0, None)


@pytest.mark.parametrize(
    "comment", ["charge=2", "charge=2.0", "charge=2, 300 K", "charge = 2", "Charge: +2", "q=2; charge=2;", 'charge="2"']
)
def test_a_charge_in_the_comment_is_read_however_it_is_written(comment):
    assert Molecule.from_xyz_text(f"1\n{comment} multiplicity=3.0\nC 0 0 0\n").charge == 2
    assert Molecule.from_xyz_text(f"1\n{comment} multiplicity=3.0\nC 0 0 0\n").multiplicity == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\ncharge=0.5\nC 0 0 0\n", r"`charge=` in the comment .* must be a whole number, but is '0\.5'"),
        ("1\ncharge=\nC 0 0 0\n", "`charge=` in the comment"),
        ("1\nmultiplicity: triplet\nC 0 0 0\n", "`multiplicity=` in the comment .* 'triplet'"),
        ("2\na\nH 0 0 0\nH 0 0 1\n\n2\nb\nH 0 0 0\nH 0 0 2\n", "one geometry of the 2 atoms .* in line 6"),
        ('1\nLattice="3 0 0 0 3 0 0 0 3"\nC 0 0 0\n', "must not be periodic"),
        ('1\nLattice="3 0 0 0 3 0 0 0 3" pbc="F F T"\nC 0 0 0\n', "must not be periodic"),
    ],
)
def test_what_an_xyz_file_has_besides_one_molecule_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        Molecule.from_xyz_text(text)


def test_an_xyz_file_may_say_that_it_is_not_periodic_and_end_in_empty_lines():
    read = Molecule.from_xyz_text('1\nLattice="3 0 0 0 3 0 0 0 3" charge=2 pbc="F F F"\nC 0 0 0\n\n \n')
    assert (read.symbols, read.charge) == (("C",), 2)


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ("species:S:1:pos:R:3:forces:R:3", "H 1 2 {z} 7 8 9"),
        ("species:S:1:forces:R:3:pos:R:3", "H 7 8 9 1 2 {z}"),
        ("id:I:1:species:S:1:pos:R:3", "5 H 1 2 {z}"),
        ("pos:R:3:species:S:1", "1 2 {z} H"),
    ],
)
def test_the_columns_of_an_extended_xyz_file_are_those_it_names(columns, row):
    rows = "\n".join(row.format(z=z) for z in (3.0, 3.7))
    read = Molecule.from_xyz_text(f"2\nProperties={columns} energy=-1.0\n{rows}\n")
    assert read.symbols == ("H", "H")
    assert read.coordinates == ((1, 2, 3.0), (1, 2, 3.7))


@pytest.mark.parametrize(
    "columns", ["species:S:1:forces:R:3", "Z:I:1:pos:R:3", "species:S:1:tag:R:x:pos:R:3", "species:S:1:pos:R:2", ""]
)
def test_an_extended_xyz_file_without_a_column_of_symbols_or_places_is_refused(columns):
    with pytest.raises(ValueError, match=r"`Properties` in the comment .* must name the columns species:S:1 and pos"):
        Molecule.from_xyz_text(f"1\nProperties={columns}\nH 0 0 0\n")


def test_several_molecules_in_a_smiles_are_refused():
    with pytest.raises(ValueError, match=r"`smiles` must be one molecule.*'O\.O' has 2 parts.*XYZ file"):
        Molecule.from_smiles("O.O")


def test_a_relaxation_that_changes_the_molecule_says_so(tmp_path, capsys):
    apart = Molecule(WATER.symbols, ((0, 0, 0), (0, 0.76, 0.59), (0, -1.3, 0.2)), multiplicity=1)
    cache = Cache(tmp_path)
    assert changed_bonds(apart, cached_relaxation(apart, "gfn2", 1, cache)) == ["O0-H2 formed"]
    cached_relaxation(apart, "gfn2", 1, cache)
    assert capsys.readouterr().err.count("changed the molecule: O0-H2 formed") == 2
    apart.optimize("gfn2")
    assert "with gfn2 at multiplicity 1 changed the molecule: O0-H2 formed" in capsys.readouterr().err
    cached_relaxation(WATER, "gfn2", 1, cache)
    assert "changed" not in capsys.readouterr().err


def test_xyz_round_trip(tmp_path):
    path = tmp_path / "water.xyz"
    path.write_text(WATER.to_xyz(), encoding="utf-8")
    read = Molecule.from_xyz(path, multiplicity=1)
    assert read.symbols == WATER.symbols
    assert np.allclose(read.positions, WATER.positions, atol=1e-9)
    assert set(read.bonds) == set(WATER.bonds)


def test_record_round_trip():
    assert Molecule.from_dict(BIPHENYL.to_dict()) == BIPHENYL


@given(st.floats(-179, 179))
@settings(max_examples=30, deadline=None)
def test_setting_a_torsion_moves_nothing_else(degrees):
    (atoms,) = BIPHENYL.ring_torsions()
    turned = BIPHENYL.set_torsion(atoms, degrees)
    assert turned.torsion(atoms) == pytest.approx(degrees, abs=1e-8)
    for i, j in BIPHENYL.bonds:
        before = dist(BIPHENYL.coordinates[i], BIPHENYL.coordinates[j])
        assert dist(turned.coordinates[i], turned.coordinates[j]) == pytest.approx(before, abs=1e-10)


def test_torsion_sign_follows_iupac():
    positions = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.0], [0, 1.0, 1.0]])
    # Seen from atom 1 towards atom 2 the turn from x to y is clockwise.
    assert torsion_degrees(positions, (0, 1, 2, 3)) == pytest.approx(90.0)


@pytest.mark.parametrize("degrees", [-180.0, -91.0, -12.0, 0.0, 3.0, 45.0, 89.0, 90.0, 120.0, 180.0])
def test_start_torsions_are_off_the_symmetric_values(degrees):
    moved = off_symmetric(degrees)
    assert min(abs(moved - value) for value in (-180, -90, 0, 90, 180)) >= 30 - 1e-12
    assert abs(moved - degrees) <= 60


def test_start_geometry_turns_every_ring_ring_bond():
    flat = BIPHENYL.set_torsion(BIPHENYL.ring_torsions()[0], 0.0)
    started = start_geometry(flat)
    assert abs(started.torsion(started.ring_torsions()[0])) == pytest.approx(30.0)


def test_torsion_in_a_ring_is_refused():
    with pytest.raises(ValueError, match="part of a ring"):
        BIPHENYL.set_torsion((0, 1, 2, 3), 10.0)
    with pytest.raises(ValueError, match="not bonded"):
        BIPHENYL.set_torsion((1, 0, 6, 7), 10.0)
    with pytest.raises(ValueError, match="four different atoms"):
        BIPHENYL.set_torsion((0, 1, 1, 2), 10.0)


def test_outer_atoms_of_a_torsion_lie_on_either_side_of_its_bond():
    butane = Molecule.from_smiles("CCCC")
    for atoms in ((3, 1, 2, 0), (3, 1, 2, 9), (0, 1, 2, 7)):
        with pytest.raises(ValueError, match=r"`atoms` must have its first atom on the side of 1"):
            butane.set_torsion(atoms, 50.0)
    assert butane.set_torsion((0, 1, 2, 3), 50.0).torsion((0, 1, 2, 3)) == pytest.approx(50)


def test_a_torsion_about_a_line_is_refused():
    ethyne = Molecule(("H", "C", "C", "H"), ((0, 0, 0), (0, 0, 1.06), (0, 0, 2.27), (0.2, 0, 3.3)), bonds=((1, 2),))
    with pytest.raises(ValueError, match="three atoms in a line, but 0, 1, 2 are"):
        ethyne.torsion((0, 1, 2, 3))
    with pytest.raises(ValueError, match="three atoms in a line, but 2, 1, 0 are"):
        ethyne.torsion((3, 2, 1, 0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((), ()), "at least one atom"),
        ((("H",), ((0, 0),)), r"shape \(1, 3\)"),
        ((("Xx",), ((0, 0, 0),)), "elements up to krypton"),
        ((("H", "H"), ((0, 0, 0), (0, 0, 0.01))), "coincide"),
        ((("H",), ((0, 0, float("nan")),)), "finite"),
        ((("H",), ((0, 0, 0),), 0.9), "`charge` must be a whole number, but is 0.9"),
        ((("H",), ((0, 0, 0),), 0, 1), "must be even"),
        ((("H", "H"), ((0, 0, 0), (0, 0, 1)), 0, 5), "at most 3"),
        ((("H", "H"), ((0, 0, 0), (0, 0, 1)), 0, 0), "at least 1"),
    ],
)
def test_impossible_molecules_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Molecule(*arguments)


def test_bonds_are_kept_with_the_smaller_index_first():
    reversed_bonds = tuple((j, i) for i, j in BIPHENYL.bonds)
    turned = Molecule(BIPHENYL.symbols, BIPHENYL.coordinates, 0, 1, BIPHENYL.smiles, reversed_bonds)
    assert turned == BIPHENYL
    assert turned.set_torsion(turned.ring_torsions()[0], 40.0).n_atoms == 22


@pytest.mark.parametrize("bonds", [((0, 5),), ((-1, 1),), ((1, 1),), ((0, 0.5),), ((0, 1, 1),), ((0, 1), (1, 0))])
def test_bonds_of_what_are_no_two_atoms_are_refused(bonds):
    with pytest.raises(ValueError, match="`bonds` must hold"):
        Molecule(("H", "H"), ((0, 0, 0), (0, 0, 0.74)), bonds=bonds)


def test_unreadable_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot read 'C1CC'"):
        Molecule.from_smiles("C1CC")
    with pytest.raises(ValueError, match="SMILES"):
        Molecule.from_smiles("  ")
    with pytest.raises(FileNotFoundError, match="no XYZ file"):
        Molecule.from_xyz(tmp_path / "absent.xyz")
    with pytest.raises(ValueError, match="XYZ file"):
        Molecule.from_xyz_text("two\n\nH 0 0 0\n")
    with pytest.raises(ValueError, match="announces 3"):
        Molecule.from_xyz_text("3\n\nH 0 0 0\nH 0 0 1\n")
    (tmp_path / "one.xyz").write_text("3\n\nO 0 0 0\nH 0 0 1\nH 0 0 1.02\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"one.xyz': Lines 4 and 5 must hold atoms in different places"):
        Molecule.from_xyz(tmp_path / "one.xyz")


def test_gfn2_relaxes_water_to_its_known_geometry(tmp_path):
    cache = Cache(tmp_path, name="geometry")
    relaxed = cached_relaxation(WATER, "gfn2", 1, cache)
    oxygen, first, second = relaxed.positions
    bond = np.linalg.norm(first - oxygen)
    angle = np.degrees(np.arccos(np.dot(first - oxygen, second - oxygen) / bond / np.linalg.norm(second - oxygen)))
    assert bond == pytest.approx(0.959, abs=0.005)
    assert angle == pytest.approx(107.2, abs=1.5)
    assert relaxed.multiplicity == 1
    assert cached_relaxation(WATER, "gfn2", 1, cache) == relaxed


def test_gfn2_geometry_depends_on_the_spin_state():
    ethene = Molecule.from_smiles("C=C")
    singlet = ethene.optimize("gfn2", 1)
    triplet = ethene.optimize("gfn2", 3)
    lengths = [dist(m.coordinates[0], m.coordinates[1]) for m in (singlet, triplet)]
    assert lengths[1] - lengths[0] > 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_steps": 0}, "`max_steps` must be at least 1, but is 0"),
        ({"fmax_ev_per_angstrom": float("nan")}, "`fmax_ev_per_angstrom` must be positive and finite, but is nan"),
        ({"fmax_ev_per_angstrom": -1.0}, "`fmax_ev_per_angstrom` must be positive and finite, but is -1.0"),
    ],
)
def test_a_relaxation_that_cannot_end_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        relax_gfn2(WATER, **options)


def test_torsions_of_other_than_four_atoms_are_refused():
    for atoms in ((-1, 0, 1, 2), (0, 0, 1, 2), (0, 1, 2, 99), (0, 1, 2)):
        with pytest.raises(ValueError, match="`atoms` must name four different atoms below 22"):
            BIPHENYL.torsion(atoms)


def test_no_more_electrons_can_be_taken_than_there_are():
    with pytest.raises(ValueError, match=r"`charge` must be at most \+10, the number of electrons, but is \+11"):
        Molecule.from_smiles("O", charge=11)


def test_relaxation_that_needs_more_steps_is_an_error():
    with pytest.raises(GeometryNotConvergedError, match="max_steps"):
        relax_gfn2(WATER, max_steps=1)


def test_optimise_refuses_bad_arguments():
    with pytest.raises(ValueError, match="'gfn2' or 'uks'"):
        WATER.optimize("mm")
    with pytest.raises(ValueError, match="must be odd"):
        WATER.optimize("gfn2", 2)
    with pytest.raises(ValueError, match="multiplicity"):
        WATER.with_multiplicity(None).optimize()
    for wrong in ("abc", float("nan"), [3]):
        with pytest.raises(ValueError, match="Argument `multiplicity` must be a whole number"):
            WATER.with_multiplicity(wrong)
    assert repr(WATER.with_multiplicity(3.0).multiplicity) == "3"


@pytest.mark.parametrize("entry", LIBRARY.values(), ids=lambda entry: entry.name)
def test_library_centres_are_radicals_and_chromophores(entry):
    molecule = Molecule.from_smiles(entry.smiles, multiplicity=entry.multiplicity)
    radicals = radical_centres(molecule)
    assert entry.spins.count(0.5) == len(radicals)
    atoms = [atom for centre in entry.centres for atom in centre]
    assert len(atoms) == len(set(atoms))
    for centre, spin in zip(entry.centres, entry.spins, strict=True):
        symbols = [molecule.symbols[atom] for atom in centre]
        if spin == 0.5:
            assert len([group for group in radicals if set(group) & set(centre)]) == 1
        else:
            assert set(symbols) <= {"C", "O"}
            assert "N" not in symbols
        inside = [pair for pair in molecule.bonds if set(pair) <= set(centre)]
        assert len(inside) >= len(centre) - 1  # each centre is one connected piece


def test_library_molecules_have_the_published_sizes():
    assert Molecule.from_smiles(library_entry("mono").smiles).n_atoms == 55
    assert Molecule.from_smiles(library_entry("bi").smiles).n_atoms == 86
    with pytest.raises(ValueError, match="Did you mean 'mono'"):
        library_entry("momo")
