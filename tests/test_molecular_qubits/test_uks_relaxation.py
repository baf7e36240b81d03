"""Relaxation by unrestricted Kohn-Sham: triplets, refused fields, steps that are kept and continued."""

import json
from functools import partial
from math import dist

import numpy as np
import pytest

from molecular_qubits import Molecule, exchange_couplings
from molecular_qubits.fields.stability import StabilityNotDecidedError
from molecular_qubits.structure import memory, relaxation, step_field, uks_relaxation
from molecular_qubits.structure.memory import InsufficientMemoryError
from molecular_qubits.structure.pyscf_input import build_mole, make_uks
from molecular_qubits.structure.relaxation import GeometryNotConvergedError, cached_relaxation
from molecular_qubits.structure.step_field import SpinContaminationError, UnstableFieldError
from molecular_qubits.structure.uks_relaxation import relax_uks
from shared.artifacts import Cache, content_hash

H2 = Molecule(("H", "H"), ((0, 0, 0), (0, 0, 0.9)), multiplicity=1, bonds=((0, 1),))
DIRADICAL = Molecule.from_smiles("[NH]C[NH]")
CHEAP = {"xc": "hf", "basis": "sto-3g"}
METHYLENE = Molecule(("C", "H", "H"), ((0, 0, 0), (0.9, 0.6, 0), (-0.9, 0.6, 0)), multiplicity=3)


def angle(molecule):
    first, second = (molecule.positions[atom] - molecule.positions[0] for atom in (1, 2))
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    return float(np.degrees(np.arccos(cosine)))


def test_methylene_is_wide_as_a_triplet_and_bent_as_a_singlet():
    triplet = METHYLENE.optimize("uks", basis="6-31g", grid_level=1)
    singlet = METHYLENE.optimize("uks", 1, basis="6-31g", grid_level=1, stability=False)  # the closed shell
    assert angle(triplet) == pytest.approx(134, abs=3)  # measured: 133.9 and 102.4 degrees
    assert angle(singlet) == pytest.approx(102, abs=3)
    assert triplet.multiplicity == 3
    assert dist(*triplet.coordinates[:2]) == pytest.approx(1.08, abs=0.02)


def test_one_atom_has_nothing_to_relax():
    atom = Molecule(("H",), ((0, 0, 1),), multiplicity=2)
    assert atom.optimize("uks", **CHEAP) == atom


def test_a_fitted_density_in_a_solvent_hardly_moves_the_atoms():
    plain = relax_uks(H2, basis="6-31g", grid_level=1)
    fitted = relax_uks(H2, basis="6-31g", grid_level=1, density_fit=True, solvent_epsilon=2.4)
    assert dist(*plain.coordinates) == pytest.approx(0.743, abs=0.005)
    assert dist(*fitted.coordinates) == pytest.approx(dist(*plain.coordinates), abs=2e-3)


def test_too_little_memory_for_the_fit_is_said_before_any_field(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 0.001)
    monkeypatch.setattr(uks_relaxation, "make_uks", None)
    with pytest.raises(
        InsufficientMemoryError, match=r"2 atoms in 6-31g \(4 orbitals\) needs about .* smaller `basis`"
    ):
        relax_uks(H2, basis="6-31g", density_fit=True)


def test_a_field_that_does_not_converge_is_an_error():
    with pytest.raises(GeometryNotConvergedError, match=r"multiplicity 1 did not converge in step 1.*max_cycle"):
        relax_uks(H2, basis="6-31g", grid_level=1, max_cycle=1)
    with pytest.raises(GeometryNotConvergedError, match="in 1 steps"):
        relax_uks(METHYLENE, basis="6-31g", grid_level=1, max_steps=1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"grid_level": 12}, "`grid_level` must be an integer from 0 to 9, but is 12"),
        ({"grid_level": -1}, "`grid_level` must be an integer from 0 to 9, but is -1"),
        ({"conv_tol": 0}, "`conv_tol` must be between 1e-13 and 1e-3 hartree, but is 0"),
        ({"max_cycle": 0}, "`max_cycle` must be at least 1, but is 0"),
        ({"max_steps": 0}, "`max_steps` must be at least 1, but is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        relax_uks(H2, **CHEAP, **wrong)


def test_a_field_of_another_spin_is_an_error(monkeypatch):
    monkeypatch.setattr(step_field, "S2_TOLERANCE", 1e-4)  # a triplet field is contaminated by more
    with pytest.raises(SpinContaminationError, match=r"<S\^2> = 2\.00\d, but 2\.00 was expected"):
        relax_uks(METHYLENE, basis="6-31g", grid_level=1)


def test_the_closed_shell_of_a_diradical_is_refused_and_its_broken_symmetry_state_relaxed(tmp_path):
    with pytest.raises(UnstableFieldError, match=r"step 1 of .* multiplicity 1 is not stable.*`centres`"):
        DIRADICAL.optimize("uks", 1, **CHEAP)
    closed = DIRADICAL.optimize("uks", 1, **CHEAP, stability=False)
    singlet = DIRADICAL.optimize("uks", 1, **CHEAP, centres=[(0,), (2,)])
    triplet = DIRADICAL.optimize("uks", 3, **CHEAP, centres=[(0,), (2,)])
    assert singlet.multiplicity == 1
    energies = {}
    for name, molecule in (("closed", closed), ("singlet", singlet), ("triplet", triplet)):
        high, low = exchange_couplings(molecule, [(0,), (2,)], **CHEAP, cache=Cache(tmp_path)).states
        energies[name] = (low.energy_hartree, high.energy_hartree)
    assert min(energies, key=lambda name: energies[name][0]) == "singlet"  # each is the minimum of its own state
    assert min(energies, key=lambda name: energies[name][1]) == "triplet"
    assert energies["closed"][0] > energies["singlet"][0] + 5e-3  # the closed shell is far from both


def test_a_last_field_that_is_not_stable_is_refused(monkeypatch):
    answers = [0.1, -0.1]
    monkeypatch.setattr(step_field, "lowest_mode", lambda hessian: (answers.pop(0), None))
    with pytest.raises(UnstableFieldError, match="the last step"):
        relax_uks(H2, **CHEAP)
    assert not answers
    relax_uks(H2, **CHEAP, stability=False)

    def undecided(hessian):
        raise StabilityNotDecidedError("The stability is not decided.")

    monkeypatch.setattr(step_field, "lowest_mode", undecided)
    with pytest.raises(UnstableFieldError, match=r"may be a saddle point.* is not decided"):
        relax_uks(H2, **CHEAP)


def test_a_saddle_point_is_left_for_the_minimum_of_its_spin(capsys):
    ozone = Molecule(("O", "O", "O"), np.array([[0, 0, 0], [0, 0, 1.3], [0, 1.2, 1.8]]), multiplicity=3)
    make = partial(make_uks, xc="b3lyp", grid_level=1, density_fit=True)
    fields = step_field.StepField(make, 3, None)
    mole = build_mole(ozone, "6-31g", 2)
    first = fields.converge(mole, "step 1").e_tot  # PySCF's guess leads to a saddle point
    assert fields.settle("step 1")
    assert "is a saddle point (curvature -0.0" in capsys.readouterr().err
    assert fields.last.e_tot < first - 1e-3
    assert not fields.settle("step 1")


@pytest.mark.parametrize(("signs", "steps"), [((1, 1), 1), ((1, -1), 0)])
def test_only_broken_symmetry_is_not_followed_down(signs, steps, monkeypatch, capsys):
    modes = [(-0.1, np.zeros(1)), (1.0, None)]
    monkeypatch.setattr(step_field, "lowest_mode", lambda hessian: modes.pop(0))
    monkeypatch.setattr(step_field, "rotated", lambda coefficients, occupations, mode: (coefficients, occupations))
    monkeypatch.setattr(step_field, "density_of", lambda *orbitals: None)
    monkeypatch.setattr(step_field, "MIN_DESCENT_HARTREE", -1.0)
    pair = Molecule(("H", "He", "H"), ((0, 0, -1.5), (0, 0, 0), (0, 0, 1.5)), multiplicity=1 + sum(signs))
    alignment = step_field.read_alignment(pair, [[0], [2]], None, signs)
    fields = step_field.StepField(
        partial(make_uks, xc="hf", grid_level=1, density_fit=False), pair.multiplicity, alignment
    )
    fields.converge(build_mole(pair, "6-31g"), "step 1")
    if steps:
        assert fields.settle("step 1")
    else:
        with pytest.raises(UnstableFieldError):
            fields.settle("step 1")
    assert capsys.readouterr().err.count("going down from it") == steps


def test_fitted_integrals_of_one_step_are_freed_before_the_next(monkeypatch):
    fields = []

    def kept(*arguments):
        fields.append(make_uks(*arguments))
        return fields[-1]

    monkeypatch.setattr(uks_relaxation, "make_uks", kept)
    relax_uks(H2, basis="6-31g", grid_level=1, density_fit=True, stability=False)
    assert len(fields) > 2
    assert all(field.with_df._cderi is None for field in fields)


def test_a_degenerate_state_is_no_saddle_point():
    hydroxyl = Molecule(("O", "H"), np.array([[0, 0, 0], [0, 0.3, 0.9]]), multiplicity=2)
    fields = step_field.StepField(partial(make_uks, xc="b3lyp", grid_level=1, density_fit=False), 2, None)
    fields.converge(build_mole(hydroxyl, "6-31g", 1), "step 1")
    assert not fields.settle("step 1")


def test_a_relaxation_goes_on_below_a_saddle_point(monkeypatch):
    answers = [False, True, False]
    monkeypatch.setattr(step_field.StepField, "settle", lambda self, step: answers.pop(0))
    steps = []
    keep = uks_relaxation._Steps.keep
    monkeypatch.setattr(uks_relaxation._Steps, "keep", lambda self, at: (steps.append(at), keep(self, at)))
    relaxed = relax_uks(H2, **CHEAP)
    assert not answers
    np.testing.assert_allclose(relaxed.positions, steps[-1])


def test_a_broken_symmetry_that_is_lost_on_the_way_is_an_error():
    apart = H2.with_positions([[0, 0, 0], [0, 0, 2.0]])
    with pytest.raises(SpinContaminationError, match=r"step [2-9] .* to <S\^2> = 0\.5\d*, but 1\.00 .* form a bond"):
        relax_uks(apart, **CHEAP, centres=[(0,), (1,)])  # they bond
    with pytest.raises(SpinContaminationError, match=r"step 1 .* spin population .* on centre"):
        relax_uks(DIRADICAL.with_multiplicity(3), **CHEAP, centres=[(0,), (1,)])  # the middle atom has none
    for wrong, word in (({"spins": [0.5, 1]}, "`spins`"), ({"alignment": [1, 1]}, "`alignment`")):
        with pytest.raises(ValueError, match=word):
            relax_uks(apart, **CHEAP, centres=[(0,), (1,)], **wrong)
    with pytest.raises(ValueError, match="goes with `centres`"):
        relax_uks(apart, **CHEAP, spins=[0.5, 0.5])


def test_a_field_that_diis_does_not_converge_is_left_to_the_next_solver(capsys):
    method = {"xc": "b3lyp", "basis": "sto-3g", "grid_level": 1, "stability": False}
    with pytest.raises(GeometryNotConvergedError, match="in 1 steps"):  # the field of the step is there
        DIRADICAL.optimize("uks", 1, **method, max_steps=1)
    assert "The field of step 1 did not converge by diis" in capsys.readouterr().err


def test_a_stopped_relaxation_continues_from_its_last_step(tmp_path, monkeypatch, capsys):
    cache = Cache(tmp_path)
    keep, fast = uks_relaxation._Steps.keep, {"basis": "6-31g", "grid_level": 1}
    real = relax_uks
    monkeypatch.setattr(uks_relaxation, "relax_uks", lambda molecule, **options: real(molecule, **fast, **options))

    def stop(self, positions):
        keep(self, positions)
        if self.count == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(uks_relaxation._Steps, "keep", stop)
    with pytest.raises(KeyboardInterrupt):
        cached_relaxation(METHYLENE, "uks", 3, cache)
    (path,) = cache.folder.glob("*.work/step.json")
    assert json.loads(path.read_text(encoding="utf-8"))["steps"] == 2
    monkeypatch.setattr(uks_relaxation._Steps, "keep", keep)
    relaxed = cached_relaxation(METHYLENE, "uks", 3, cache)
    assert "continues after step 2" in capsys.readouterr().err
    assert angle(relaxed) == pytest.approx(angle(real(METHYLENE, **fast)), abs=0.3)
    assert not list(cache.folder.glob("*.work"))
    monkeypatch.setattr(uks_relaxation, "relax_uks", lambda *a, **o: pytest.fail("relaxed again"))
    assert cached_relaxation(METHYLENE, "uks", 3, cache) == relaxed
    assert not list(cache.folder.glob("*.work"))


def test_a_relaxation_of_too_few_steps_continues_with_more(tmp_path, capsys):
    cache, method = Cache(tmp_path), {**CHEAP, "stability": False}
    with pytest.raises(GeometryNotConvergedError, match=r"in 2 steps\. Raise `max_steps`"):
        cached_relaxation(METHYLENE, "uks", 3, cache, **method, max_steps=2)
    relaxed = cached_relaxation(METHYLENE, "uks", 3, cache, **method, max_steps=50, max_cycle=80)
    assert "continues after step 3" in capsys.readouterr().err  # the start is one of them
    assert cached_relaxation(METHYLENE, "uks", 3, cache, **method) == relaxed
    assert len(list(cache.folder.glob("*/molecule.json"))) == 1


def test_a_relaxation_of_the_defaults_keeps_its_key_and_other_options_get_their_own(tmp_path, monkeypatch):
    keys = []

    class Recorded(Cache):
        def record(self, file, key, make):
            keys.append(key)
            return H2.to_dict()

    monkeypatch.setattr(relaxation, "versions", lambda packages: {})
    cache = Recorded(tmp_path)
    cached_relaxation(H2, "uks", 1, cache)
    cached_relaxation(H2, "uks", 1, cache, xc="b3lyp", basis="6-31g*", grid_level=3, dispersion=None, device="cpu")
    cached_relaxation(H2, "uks", 1, cache, max_cycle=9, max_steps=9)
    cached_relaxation(H2, "gfn2", 3, cache, max_steps=50)
    assert [content_hash(key) for key in keys] == [  # as of the caches that there are
        "8465af927d847db53b6a1e2b954e4eb83727cffaa0f53a05f7cd865426208b66",
        "8465af927d847db53b6a1e2b954e4eb83727cffaa0f53a05f7cd865426208b66",
        "8465af927d847db53b6a1e2b954e4eb83727cffaa0f53a05f7cd865426208b66",
        "f61df1cfa0c5236c1842acd0e945c38cce3ac16f5235a38ba13d623ad68217ea",
    ]
    keys.clear()
    for options in ({"xc": "pbe"}, {"basis": "sto-3g"}, {"dispersion": "d3bj"}, {"solvent_epsilon": 2.4}):
        cached_relaxation(H2, "uks", 1, cache, **options)
        assert keys[-1]["options"] == options
    assert len({content_hash(key) for key in keys}) == 4
    for centres in ([(0,), (1,)], (range(1), np.array([1]))):
        cached_relaxation(H2, "uks", 1, cache, centres=centres)
        assert keys[-1]["options"] == {"centres": [[0], [1]]}
