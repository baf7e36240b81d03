"""Conformers and torsion scans by GFN2-xTB on molecules whose wells are known."""

import numpy as np
import pytest
from rdkit import Chem

from molecular_qubits.electronic.thermal_average import boltzmann_average
from molecular_qubits.structure import conformers, relaxation, scans
from molecular_qubits.structure.conformers import conformer_populations, find_conformers
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.relaxation import GeometryNotConvergedError, relax_gfn2
from molecular_qubits.structure.scans import relax_at_torsions, scan_torsion
from shared.artifacts import Cache

BUTANE = (0, 1, 2, 3)


@pytest.fixture(autouse=True)
def users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLECULAR_COMPRESSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_butane_has_an_anti_and_two_gauche_conformers(tmp_path):
    """Anti is lowest; gauche, at about 65°, lies 0.5 to 1 kcal/mol above; mirror images are two conformers."""
    found = find_conformers("CCCC", multiplicity=1, n_embeddings=8, seed=3)
    torsions = [conformer.molecule.torsion(BUTANE) for conformer in found]
    assert abs(torsions[0]) == pytest.approx(180, abs=3)
    assert sorted(round(abs(t) / 60) for t in torsions[1:]) == [1] * (len(found) - 1)
    assert len(found) in (2, 3)
    assert found[0].energy_cm1 == 0
    assert all(100 < conformer.energy_cm1 < 500 for conformer in found[1:])
    again = find_conformers("CCCC", multiplicity=1, n_embeddings=8, seed=3, cache=Cache(tmp_path, name="other"))
    for first, second in zip(found, again, strict=True):  # the sums of xTB differ in the last digits with alignment
        np.testing.assert_allclose(second.molecule.coordinates, first.molecule.coordinates, atol=1e-7)


def test_rotamers_of_a_hydroxyl_are_conformers(tmp_path):
    """Ethanol has two gauche forms, mirror images, and a trans form; they differ in a hydrogen atom only."""
    found = find_conformers("CCO", multiplicity=1, n_embeddings=8, cache=Cache(tmp_path))
    angles = sorted(round(abs(conformer.molecule.torsion((0, 1, 2, 8)))) for conformer in found)
    assert len(angles) == 3
    assert angles[0] == pytest.approx(angles[1], abs=2)
    assert angles[2] == pytest.approx(180, abs=2)


def test_a_field_of_gfn2_that_does_not_converge_is_said():
    apart = Molecule(("Na", "Cl"), ((0, 0, 0), (0, 0, 12.0)), multiplicity=1)
    with pytest.raises(GeometryNotConvergedError, match="The field of GFN2-xTB did not converge"):
        apart.optimize("gfn2")


def test_an_interrupted_search_of_conformers_continues(tmp_path, users_cache, monkeypatch):
    ran = []

    def stop_at_third(molecule, **options):
        ran.append(molecule)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return relax_gfn2(molecule, **options)

    monkeypatch.setattr(relaxation, "relax_gfn2", stop_at_third)

    def find(**options):
        return find_conformers("CCCC", multiplicity=1, n_embeddings=5, cache=Cache(tmp_path, name="named"), **options)

    with pytest.raises(KeyboardInterrupt):
        find()
    found = find()
    assert len(ran) == 3 + 3  # the interrupted one and the last two of five
    again = find()
    assert len(ran) == 6
    assert [conformer.molecule for conformer in again] == [conformer.molecule for conformer in found]
    find(fmax_ev_per_angstrom=0.05)
    assert len(ran) == 11
    assert not users_cache.exists()  # another one was named


@pytest.mark.parametrize("smiles", ["CC=CC", "CC(F)C(C)F"])
def test_conformers_are_one_stereoisomer_that_of_the_molecule(smiles, monkeypatch):
    monkeypatch.setattr(conformers, "cached_relaxation", lambda molecule, *_, **options: molecule)
    start = Molecule.from_smiles(smiles, multiplicity=1)
    found = find_conformers(start, n_embeddings=8, window_cm1=1e5)
    assert {_stereo(conformer.molecule) for conformer in found} == {_stereo(start)}


def _stereo(molecule):
    mol = molecule.to_rdkit()
    Chem.AssignStereochemistryFrom3D(mol)
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


def test_conformers_of_several_molecules_are_refused():
    pair = Molecule(("He", "He"), ((0, 0, 0), (0, 0, 3)), multiplicity=1, smiles="[He].[He]")
    with pytest.raises(ValueError, match="`molecule` must be one molecule"):
        find_conformers(pair)


def test_populations_follow_boltzmann():
    assert conformer_populations([0.0, 0.695034800 * 300 * np.log(2)], 300.0) == pytest.approx([2 / 3, 1 / 3], rel=1e-6)
    assert conformer_populations([5e5, 5e5], 1.0).tolist() == [0.5, 0.5]


def test_relaxed_scan_lies_below_the_rigid_one_and_has_the_known_wells():
    molecule = Molecule.from_smiles("CCCC", multiplicity=1).set_torsion(BUTANE, 180.0).optimize("gfn2")
    angles = [180.0, 120.0, 60.0, 0.0]
    rigid, relaxed = (scan_torsion(molecule, BUTANE, angles, relaxed=flag) for flag in (False, True))
    for scan in (rigid, relaxed):
        found = [geometry.torsion(BUTANE) for geometry in scan.molecules]
        assert np.abs(np.exp(1j * np.radians(found)) - np.exp(1j * np.radians(angles))).max() < 1e-3
        assert scan.failed_degrees == ()
    assert np.all(relaxed.energies_cm1 <= rigid.energies_cm1 + 1)
    anti, eclipsed, gauche, syn = relaxed.energies_cm1
    assert anti == 0
    assert gauche < eclipsed < syn
    lengths = [np.linalg.norm(m.positions[1] - m.positions[2]) for m in rigid.molecules]
    assert np.ptp(lengths) < 1e-9
    average = boltzmann_average(angles[::-1], relaxed.energies_cm1[::-1], np.ones(4), 300.0, period_degrees=None)
    assert average.mean_cm1 == pytest.approx(1)


def test_failed_angles_are_left_out_and_listed(monkeypatch):
    molecule = Molecule.from_smiles("CCCC", multiplicity=1)

    def fail_at_60(geometry, torsions, *_):
        if torsions == {BUTANE: 60}:
            raise GeometryNotConvergedError("no")
        return geometry

    monkeypatch.setattr(scans, "relax_at_torsions", fail_at_60)
    scan = scan_torsion(molecule, BUTANE, [180.0, 60.0])
    assert scan.angles_degrees.tolist() == [180.0]
    assert scan.failed_degrees == (60.0,)
    with pytest.raises(GeometryNotConvergedError, match=r"No angle of the torsion \(0, 1, 2, 3\)"):
        scan_torsion(molecule, BUTANE, [60.0])


def test_an_interrupted_scan_continues(tmp_path, users_cache, monkeypatch):
    molecule = Molecule.from_smiles("CCCC", multiplicity=1)
    ran = []

    def stop_at_third(geometry, torsions, *limits):
        ran.extend(torsions.values())
        if len(ran) == 3:
            raise KeyboardInterrupt
        return relax_at_torsions(geometry, torsions, *limits)

    def scan(angles, **options):
        return scan_torsion(molecule, BUTANE, angles, cache=Cache(tmp_path, name="named"), **options)

    monkeypatch.setattr(scans, "relax_at_torsions", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        scan([180.0, 150.0, 120.0])
    found = scan([180.0, 150.0, 120.0])
    assert ran == [180.0, 150.0, 120.0, 120.0]
    whole = scan_torsion(molecule, BUTANE, [180.0, 150.0, 120.0])
    assert found.energies_cm1 == pytest.approx(whole.energies_cm1, abs=1e-3)
    assert len(ran) == 7
    assert users_cache.exists()
    assert scan([180.0, 150.0, 120.0, 90.0], max_steps=400).molecules[:3] == found.molecules
    assert ran[7:] == [90.0]
    scan([180.0], fmax_ev_per_angstrom=0.05)
    assert ran[8:] == [180.0]
    scan([150.0])  # not from the same start
    assert ran[9:] == [150.0]


def test_a_scan_takes_whatever_stands_for_a_molecule(tmp_path):
    molecule = Molecule.from_smiles("CCCC", multiplicity=1)
    (tmp_path / "butane.xyz").write_text(molecule.to_xyz(), encoding="utf-8")
    for source in ("CCCC", tmp_path / "butane.xyz", molecule.to_ase(), molecule.to_rdkit(), molecule):
        found = scan_torsion(source, BUTANE, [180.0, 120.0], multiplicity=1, relaxed=False)
        assert found.energies_cm1[0] == 0
        assert found.energies_cm1[1] > 500
    triplet = scan_torsion("C[CH][CH]C", BUTANE, [180.0], multiplicity=3, relaxed=False)
    assert triplet.molecules[0].multiplicity == 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: scan_torsion(m, BUTANE, [0.0, 0.0]), "each once"),
        (lambda m: scan_torsion(m, BUTANE, []), "must hold finite angles, one at least"),
        (lambda m: scan_torsion(m.with_multiplicity(None), BUTANE, [0.0]), "`multiplicity` must be given"),
        (lambda m: scan_torsion("CCCC", BUTANE, [0.0]), "`multiplicity` must be given"),
        (lambda m: scan_torsion(m, BUTANE, [0.0], multiplicity=2), "`multiplicity` must be"),
        (lambda m: scan_torsion(m, (0, 1, 3, 2), [0.0]), "bonded atoms in the middle"),
        (lambda m: find_conformers(m, multiplicity=2), "`multiplicity` must be"),
        (lambda m: find_conformers(m, n_embeddings=0), "`n_embeddings` must be positive"),
        (lambda m: find_conformers(m, n_embeddings=2.5), "`n_embeddings` must be a whole number, but is 2.5"),
        (lambda m: find_conformers(m.with_multiplicity(None)), "`multiplicity` must be given"),
        (lambda m: find_conformers(Molecule.from_xyz_text(m.to_xyz()), multiplicity=1), "made from a SMILES"),
        (lambda m: conformer_populations([0.0], 0.0), "`temperature_k` must be positive"),
        (lambda m: conformer_populations([np.nan], 1.0), "`energies_cm1` must be finite"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(Molecule.from_smiles("CCCC", multiplicity=1))


def test_too_few_steps_are_an_error():
    molecule = Molecule.from_smiles("CCCC", multiplicity=1)
    with pytest.raises(GeometryNotConvergedError, match="at the torsion 100° in 1 steps"):
        relax_at_torsions(molecule, {BUTANE: 100.0}, max_steps=1)
