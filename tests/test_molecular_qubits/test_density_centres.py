"""Centres found in the spin density, and the high-spin field that they and all other centres share."""

import numpy as np
import pytest

from molecular_qubits import Molecule, centres_from_density, cli, exchange_couplings
from molecular_qubits.electronic import broken_symmetry
from molecular_qubits.electronic.errors import WrongStateError
from molecular_qubits.electronic.spin_centres import find_spin_centres
from molecular_qubits.structure.library import library_entry
from shared.artifacts import Cache

H_HE_H = Molecule(("H", "He", "H"), ((0, 0, -1.5), (0, 0, 0), (0, 0, 1.5)))
FAST = {"xc": "hf", "basis": "sto-3g"}


@pytest.fixture
def fields(monkeypatch):
    """Labels of the fields that were run."""
    labels, run = [], broken_symmetry.run_scf

    def counted(*arguments, **options):
        labels.append(options["label"])
        return run(*arguments, **options)

    monkeypatch.setattr(broken_symmetry, "run_scf", counted)
    return labels


def test_nitroxides_are_found_and_their_field_is_used_again(tmp_path, fields):
    entry = library_entry("methylene-bis-nitroxide")
    molecule, cache = Molecule.from_smiles(entry.smiles), Cache(tmp_path)
    found = centres_from_density(molecule, 3, cache=cache, **FAST)
    assert [centre.spin for centre in found] == [0.5, 0.5]
    for named, centre in zip(entry.centres, found, strict=True):
        assert set(named) & set(centre.atoms), found
    result = exchange_couplings(molecule, [centre.atoms for centre in found], cache=cache, stability=False, **FAST)
    assert fields == ["high-spin state ↑", "broken-symmetry state ↑↓"]
    assert result.states[0].cycles > 0
    named = exchange_couplings(molecule, entry.centres, cache=cache, stability=False, **FAST)
    assert named.j_yamaguchi_cm1 == pytest.approx(result.j_yamaguchi_cm1, rel=1e-4)


def test_wrong_centres_do_not_cost_the_high_spin_field_again(tmp_path, fields):
    with pytest.raises(WrongStateError, match="centre 1"):
        exchange_couplings(H_HE_H, [[0], [1]], cache=Cache(tmp_path), stability=False, **FAST)
    exchange_couplings(H_HE_H, [[0], [2]], cache=Cache(tmp_path), stability=False, **FAST)
    assert [label[:9] for label in fields] == ["high-spin", "broken-sy"]


def test_the_command_finds_centres_of_a_file(tmp_path, capsys):
    path = tmp_path / "pair.xyz"
    path.write_text(H_HE_H.with_multiplicity(3).to_xyz(), encoding="utf-8")
    arguments = ["exchange", str(path), "--centres", "density", "--xc", "hf", "--basis", "sto-3g", "--no-stability"]
    assert cli.main([*arguments, "--cache", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "Centres: 0 (S = 0.5); 2 (S = 0.5)" in printed.err
    assert "centres 0 and 1" in printed.out


def test_a_density_without_two_centres_is_refused(tmp_path):
    oxygen = Molecule(("O", "O"), ((0, 0, 0), (0, 0, 1.2)), bonds=((0, 1),))
    with pytest.raises(ValueError, match="must hold two centres or more"):
        centres_from_density(oxygen, 3, cache=Cache(tmp_path), **FAST)
    with pytest.raises(ValueError, match="must be odd"):
        centres_from_density(oxygen, 2, cache=Cache(tmp_path), **FAST)


@pytest.mark.parametrize(
    ("multiplicity", "threshold", "words"),
    [
        (1, 0.1, "`multiplicity` must be at least 3, .* but is 1"),
        (3, -1.0, "`threshold` must be positive and finite, but is -1.0"),
        (3, float("nan"), "`threshold` must be positive and finite, but is nan"),
    ],
)
def test_impossible_input_is_refused_before_any_field(multiplicity, threshold, words, tmp_path, monkeypatch):
    monkeypatch.setattr(broken_symmetry, "run_scf", None)
    with pytest.raises(ValueError, match=words):
        centres_from_density(H_HE_H, multiplicity, threshold=threshold, cache=Cache(tmp_path), **FAST)


def test_coordinates_without_bonds_find_the_same_centres_as_an_xyz_file():
    nitroxide = Molecule.from_smiles("[O]N(C)C")
    bare = Molecule(nitroxide.symbols, nitroxide.coordinates)
    assert bare.bonds == Molecule.from_xyz_text(nitroxide.to_xyz()).bonds == nitroxide.bonds
    assert Molecule(nitroxide.symbols, nitroxide.coordinates, bonds=()).bonds == ()
    spins = np.zeros(bare.n_atoms)
    spins[:2] = 0.6, 0.4
    assert [centre.atoms for centre in find_spin_centres(bare, spins)] == [(0, 1)]


@pytest.mark.parametrize("other", [{"stability": False}, {"guesses": ("swap",)}, {"solvers": ("diis",)}])
def test_what_the_field_does_not_depend_on_is_refused_by_name(other, tmp_path):
    (name,) = other
    with pytest.raises(ValueError, match=rf"`method` must hold some of guess_basis, xc, .* but holds '{name}'"):
        centres_from_density(H_HE_H, 3, cache=Cache(tmp_path), **FAST, **other)
