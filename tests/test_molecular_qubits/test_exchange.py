"""Exchange couplings from start to end: reference values, several centres, refused input, cache and resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from molecular_qubits import ExchangeResult, Molecule, exchange_couplings, project_j
from molecular_qubits.electronic import broken_symmetry
from molecular_qubits.electronic import scf as scf_module
from molecular_qubits.electronic.errors import WrongStateError
from molecular_qubits.electronic.spin_density import spin_density_map
from molecular_qubits.experiments.exchange import ExchangeConfig, benchmark_rows
from molecular_qubits.units import HARTREE_TO_CM1
from shared.artifacts import Cache


def hydrogens(*places):
    return Molecule(("H",) * len(places), places)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path, name="scf")


@pytest.fixture(scope="module")
def distant_pair(tmp_path_factory):
    options = {"guesses": ("swap",), "solvers": ("diis", "newton"), "stability": False}
    folder = tmp_path_factory.mktemp("pair")
    molecule = hydrogens((0, 0, 0), (0, 0, 3.0))
    return exchange_couplings(molecule, [[0], [1]], xc="hf", basis="6-31g", cache=folder, **options)


@pytest.mark.slow
def test_h_he_h_reproduces_every_reference_row_within_one_percent(tmp_path):
    rows = benchmark_rows(ExchangeConfig(cache_folder=str(tmp_path)))
    assert len(rows) == 20
    known = [row for row in rows if row["reference"] is not None]
    assert len(known) == 10
    for row in known:
        assert abs(row["deviation (%)"]) < 1.0, row
    exact = [row["computed"] for row in rows if row["quantity"].startswith("full CI")]
    assert exact == sorted(exact)  # the coupling falls with the distance


def test_three_centres_are_consistent_with_each_pair(cache):
    near, far = 2.6, 3.2
    chain = exchange_couplings(
        hydrogens((0, 0, 0), (0, 0, near), (0, 0, near + far)), [[0], [1], [2]], xc="hf", basis="6-31g", cache=cache
    )
    pair = exchange_couplings(hydrogens((0, 0, 0), (0, 0, near)), [[0], [1]], xc="hf", basis="6-31g", cache=cache)
    for matrix in (chain.j_yamaguchi_cm1, chain.j_noodleman_cm1, chain.j_unprojected_cm1):
        assert np.array_equal(matrix, matrix.T)
        assert not matrix.diagonal().any()
        assert matrix[0, 1] < matrix[1, 2] < 0
        assert abs(matrix[0, 2]) < 0.05 * abs(matrix[1, 2])
    assert len(chain.states) == 4
    assert np.abs(chain.residual_cm1).max() < 1e-6
    assert chain.j_noodleman_cm1[0, 1] == pytest.approx(pair.j_noodleman_cm1[0, 1], rel=0.05)
    assert chain.j_yamaguchi_cm1[0, 1] == pytest.approx(pair.j_yamaguchi_cm1[0, 1], rel=0.05)


def test_a_distant_third_spin_leaves_the_coupling_of_a_pair(cache):
    places = ((0, 0, -1.5), (0, 0, 0), (0, 0, 1.5))  # helium between the pair is in no centre
    pair = exchange_couplings(Molecule(("H", "He", "H"), places), [[0], [2]], xc="hf", basis="6-31g", cache=cache)
    three = exchange_couplings(
        Molecule(("H", "He", "H", "H"), (*places, (12, 0, 0))), [[0], [2], [3]], xc="hf", basis="6-31g", cache=cache
    )
    assert pair.j_yamaguchi_cm1[0, 1] == pytest.approx(-425.33, abs=0.01)
    assert three.j_yamaguchi_cm1 == pytest.approx(np.pad(pair.j_yamaguchi_cm1, (0, 1)), abs=0.01)
    assert three.j_noodleman_cm1 == pytest.approx(np.pad(pair.j_noodleman_cm1, (0, 1)), abs=0.01)


def test_a_centre_between_two_others_is_projected_like_one_of_a_pair(cache):
    def line(n_hydrogens):
        symbols = ("H", "He") * (n_hydrogens - 1) + ("H",)
        centres = [[2 * i] for i in range(n_hydrogens)]
        molecule = Molecule(symbols, tuple((0, 0, 1.5 * i) for i in range(len(symbols))))
        return exchange_couplings(molecule, centres, xc="hf", basis="6-31g", cache=cache)

    pair, chain = line(2), line(3)
    shares = [result.j_yamaguchi_cm1[0, 1] / result.j_noodleman_cm1[0, 1] for result in (pair, chain)]
    assert shares[0] == pytest.approx(0.9885, abs=0.001)
    assert shares[1] == pytest.approx(shares[0], abs=0.002)
    assert chain.j_local_cm1[0, 1] / chain.j_noodleman_cm1[0, 1] == pytest.approx(1.08, abs=0.01)
    high, *_, middle = sorted(chain.states, key=lambda state: -state.energy_hartree)
    assert middle.determinant == (1, -1, 1)
    total = (middle.energy_hartree - high.energy_hartree) * HARTREE_TO_CM1 / (high.s2 - middle.s2)
    assert chain.j_yamaguchi_cm1[0, 1] == pytest.approx(total, rel=1e-6)


def test_two_centres_are_mapped_by_the_formula_of_yamaguchi(cache):
    molecule = Molecule(("H", "He", "H"), ((0, 0, -1.4), (0, 0, 0), (0, 0.3, 1.7)))
    result = exchange_couplings(molecule, [[0], [2]], xc="hf", basis="6-31g", cache=cache)
    high, broken = result.states
    formula = project_j(high.energy_hartree, broken.energy_hartree, high.s2, broken.s2)
    assert result.j_yamaguchi_cm1[0, 1] == pytest.approx(formula.yamaguchi_cm1, rel=1e-9)
    assert result.j_noodleman_cm1[0, 1] == pytest.approx(formula.noodleman_cm1, rel=1e-9)


def test_noodleman_and_unprojected_differ_by_two_for_radicals(cache):
    result = exchange_couplings(hydrogens((0, 0, 0), (0, 0, 3.0)), [[0], [1]], xc="hf", basis="6-31g", cache=cache)
    assert result.j_unprojected_cm1[0, 1] == pytest.approx(result.j_noodleman_cm1[0, 1] / 2)
    assert result.residual_cm1 == pytest.approx([0, 0], abs=1e-6)


def test_json_round_trip_keeps_the_result(cache, tmp_path):
    result = exchange_couplings(hydrogens((0, 0, 0), (0, 0, 3.0)), [[0], [1]], xc="hf", basis="6-31g", cache=cache)
    path = tmp_path / "result.json"
    result.to_json(path)
    read = ExchangeResult.from_json(path)
    assert read.states == result.states
    assert np.array_equal(read.j_yamaguchi_cm1, result.j_yamaguchi_cm1)
    assert read.molecule == result.molecule
    assert read.provenance["versions"]["pyscf"]
    assert json.loads(path.read_text(encoding="utf-8"))["convention"].startswith("H = -2 J")
    assert ExchangeResult.from_json(path.read_text(encoding="utf-8")).settings == result.settings
    assert ExchangeResult.from_json(str(path)).settings == result.settings
    with pytest.raises(FileNotFoundError, match="other"):
        ExchangeResult.from_json(str(tmp_path / "other.json"))
    for text, why in (
        ("{}", "key 'molecule' is missing"),
        ('{"molecule": 1}', "not subscriptable"),
        ("{,}", "Expecting"),
    ):
        with pytest.raises(ValueError, match=f"`source` must be what `to_json` .* wrote, but the text is not: .*{why}"):
            ExchangeResult.from_json(text)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"centres": [[0], [2]]}, "set 1 holds 2"),
        ({"centres": [[0]]}, "at least 2 sets"),
        ({"spins": [7, -3]}, "positive multiples of 1/2"),
        ({"spins": [0.5]}, "each of 2 centres"),
        ({"states": []}, "`states` must hold one state for each alignment of the spins"),
        ({"j_noodleman_cm1": [1]}, r"`j_noodleman_cm1` must be finite numbers of shape \(2, 2\)"),
        ({"j_unprojected_cm1": [[0, float("nan")], [0, 0]]}, "`j_unprojected_cm1` must be finite"),
        (
            {"j_yamaguchi_cm1": [[0, 1], [5, 0]]},
            "`j_yamaguchi_cm1` must follow from the energies",
        ),
        ({"convention": "H = +J S_i.S_j"}, r"`convention` must be 'H = -2 J .*', but is 'H = \+J S_i.S_j'"),
        ({"convention": None}, "`convention` must be .* but is None"),
        ({"residual_cm1": [1.0]}, r"`residual_cm1` must be finite numbers of shape \(2,\)"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(change, why, distant_pair):
    record = json.loads(distant_pair.to_json())
    assert ExchangeResult.from_json(json.dumps(record)).to_json() == distant_pair.to_json()
    with pytest.raises(ValueError, match=f"`source` must be what `to_json` .*{why}"):
        ExchangeResult.from_json(json.dumps(record | change))


def test_the_provenance_holds_how_the_states_were_looked_for(distant_pair):
    config = distant_pair.provenance["config"]
    names = ("basis", "guess_basis", "guesses", "solvers", "stability")
    assert [config[name] for name in names] == ["6-31g", None, ["swap"], ["diis", "newton"], False]


def test_spin_density_map_integrates_to_the_unpaired_electrons(cache):
    molecule = hydrogens((0, 0, 0), (0, 0, 3.0))
    result = exchange_couplings(molecule, [[0], [1]], xc="hf", basis="6-31g", cache=cache)
    maps = [spin_density_map(molecule, "6-31g", found.density, margin_angstrom=4.0) for found in result.solutions]
    assert maps[0].integral == pytest.approx(2.0, abs=0.01)
    assert maps[1].integral == pytest.approx(0.0, abs=0.01)
    half = maps[1].values[:, maps[1].x_angstrom < maps[1].atoms_angstrom[:, 0].mean()]
    dx = maps[1].x_angstrom[1] - maps[1].x_angstrom[0]
    assert abs(half.sum() * dx**2) == pytest.approx(1.0, abs=0.05)
    with pytest.raises(ValueError, match="density"):
        spin_density_map(molecule, "sto-3g", result.solutions[0].density)
    for options, words in (
        ({"plane_atoms": [2]}, "`plane_atoms` must hold atom indices from 0 to 1"),
        ({"plane_atoms": []}, "`plane_atoms` must hold"),
        ({"plane_atoms": [-1]}, "`plane_atoms` must hold"),
        ({"margin_angstrom": -9.0}, "`margin_angstrom` must be positive and finite, but is -9.0"),
        ({"spacing_angstrom": float("inf")}, "`spacing_angstrom` must be positive and finite"),
        ({"basis": "6-31gg"}, "Did you mean '6-31g'"),
    ):
        with pytest.raises(ValueError, match=words):
            spin_density_map(molecule, **{"basis": "6-31g", "density": result.solutions[0].density} | options)


def test_a_cache_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Argument `cache` must name a folder, but was .*: it is a file"):
        exchange_couplings(hydrogens((0, 0, 0), (0, 0, 3.0)), [[0], [1]], cache=tmp_path / "file")


@pytest.mark.parametrize(
    ("centres", "options", "words"),
    [
        ([[0]], {}, "at least 2 sets"),
        ([[0], []], {}, "set 1 is empty"),
        ([[0], [2]], {}, "set 1 holds 2"),
        ([[0], [-1]], {}, "set 1 holds -1"),
        ([0, 1], {}, r"whole atom indices .* set 0 is 0"),
        ([[0.9], [1]], {}, r"whole atom indices .* set 0 is \[0\.9\]"),
        ([[0], ["b"]], {}, "whole atom indices .* set 1 is"),
        ([[0], [1]], {"spins": (0.5, float("inf"))}, "multiples of 1/2"),
        ([[0], [1]], {"spins": ("a", "b")}, "multiples of 1/2, but is"),
        ([[0], [1]], {"xc": None}, "`xc` must be the name"),
        ([[0, 1], [1]], {}, "atom 1 is in sets 0 and 1"),
        ([[0], [1]], {"spins": (0.5, 1.0)}, "multiplicity 4"),
        ([[0], [1]], {"spins": (0.5,)}, "each of 2 centres"),
        ([[0], [1]], {"spins": (1.5, 1.5)}, "cannot have"),
        ([[0], [1]], {"xc": "b3lypp"}, "'b3lypp'"),
        ([[0], [1]], {"basis": "6-31gg"}, "'6-31gg'"),
        ([[0], [1]], {"guesses": ("magic",)}, "'magic'"),
        ([[0], [1]], {"guesses": ()}, "is empty"),
        ([[0], [1]], {"solvers": ("newton", "diis")}, "`solvers` must hold some of .* in this order"),
        ([[0], [1]], {"grid_level": 12}, "grid_level"),
        ([[0], [1]], {"grid_level": True}, "`grid_level` must be a whole number, but is True"),
        ([[0], [1]], {"grid_level": 2.5}, "`grid_level` must be a whole number, but is 2.5"),
        ([[0], [1]], {"conv_tol": 0.0}, "conv_tol"),
        ([[0], [1]], {"max_cycle": 0}, "max_cycle"),
        ([[0], [1]], {"max_cycle": 1.5}, "`max_cycle` must be a whole number, but is 1.5"),
        ([[0], [1]], {"density_fit": "yes"}, "`density_fit` must be True, False or None, but is 'yes'"),
        ([[0], [1]], {"auxbasis": "weigend"}, "`auxbasis` must be left out without density fitting"),
    ],
)
def test_bad_input_is_refused_before_any_field_is_run(centres, options, words, cache, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("A field was run.")

    monkeypatch.setattr(scf_module.Workspace, "mean_field", refuse)
    with pytest.raises(ValueError, match=words):
        exchange_couplings(hydrogens((0, 0, 0), (0, 0, 3.0)), centres, cache=cache, **options)
    assert not cache.folder.exists()


def test_whole_numbers_may_be_floats(cache):
    found = exchange_couplings(
        hydrogens((0, 0, 0), (0, 0, 3.0)), [[0], [1]], basis="sto-3g", grid_level=1.0, max_cycle=60.0, cache=cache
    )
    assert repr((found.settings.grid_level, found.settings.max_cycle)) == "(1, 60)"


def test_a_cache_may_be_a_folder(tmp_path):
    molecule = hydrogens((0, 0, 0), (0, 0, 3.0))
    exchange_couplings(molecule, [[0], [1]], xc="hf", basis="sto-3g", cache=str(tmp_path))
    assert list((tmp_path / "scf").iterdir())
    with pytest.raises(TypeError, match="`cache` must be a Cache, a folder or None, but was a int"):
        exchange_couplings(molecule, [[0], [1]], xc="hf", basis="sto-3g", cache=3)


def test_finished_states_come_from_the_cache(cache, monkeypatch):
    molecule = hydrogens((0, 0, 0), (0, 0, 3.0))
    first = exchange_couplings(molecule, [[0], [1]], xc="hf", basis="6-31g", cache=cache)

    def refuse(*args, **kwargs):
        raise AssertionError("A field was run.")

    monkeypatch.setattr(scf_module.Workspace, "mean_field", refuse)
    again = exchange_couplings(molecule, [[0], [1]], xc="hf", basis="6-31g", cache=cache)
    assert again.states == first.states
    assert np.array_equal(again.solutions[1].mo_coeff, first.solutions[1].mo_coeff)


def test_a_state_that_is_made_again_is_analysed_again(cache, monkeypatch):
    molecule, options = hydrogens((0, 0, 0), (0, 0, 3.0)), {"xc": "hf", "basis": "6-31g", "cache": cache}
    monkeypatch.setattr(broken_symmetry, "is_stable", lambda workspace, solution: False)
    assert [state.stable for state in exchange_couplings(molecule, [[0], [1]], **options).states] == [False, False]
    new_check = iter([WrongStateError("of the first state that was kept")])
    monkeypatch.setattr(broken_symmetry.StateRunner, "failure", lambda *state: next(new_check, None))
    monkeypatch.setattr(broken_symmetry, "is_stable", lambda workspace, solution: True)
    assert [state.stable for state in exchange_couplings(molecule, [[0], [1]], **options).states] == [True, False]


SCRIPT = """
import json, sys, time
from molecular_qubits import Molecule, exchange_couplings
from molecular_qubits.electronic import scf
from shared.artifacts import Cache
pause = float(sys.argv[2])
record = scf._Recorder.__call__
def slow(self, variables):
    record(self, variables)
    time.sleep(pause)
scf._Recorder.__call__ = slow
molecule = Molecule(("H", "He", "H"), ((0, 0, -1.5), (0, 0, 0), (0, 0, 1.5)))
result = exchange_couplings(molecule, [[0], [2]], basis="6-31g", grid_level=1, stability=False,
                            cache=Cache(sys.argv[1], name="scf"), **json.loads(sys.argv[3]))
print(repr(float(result.j_yamaguchi_cm1[0, 1])), [state.cycles for state in result.states])
"""


@pytest.mark.parametrize(
    ("options", "n_finished"), [({}, 0), ({"density_fit": True, "ramp": True, "device": "cpu"}, 1)]
)
def test_killed_run_continues_from_its_checkpoint(tmp_path, options, n_finished):
    """Killed in the high-spin state; or, fitted and ramped as larger molecules are, in the broken-symmetry state."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PROGRESS": "1"}

    def command(folder, pause):
        return [sys.executable, "-c", SCRIPT, str(tmp_path / folder), pause, json.dumps(options)]

    def finished():
        return [path for path in checkpoints.iterdir() if (path / "state.json").exists()]

    killed = subprocess.Popen(command("killed", "0.5"), stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    checkpoints = tmp_path / "killed" / "scf"
    deadline = time.monotonic() + 120
    while True:
        found = [path for path in checkpoints.glob("*.work/orbitals.npz") if not path.parent.with_suffix("").exists()]
        if found and len(finished()) == n_finished:
            with np.load(found[0]) as saved:
                if int(saved["cycles"]) >= 3:
                    break
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(finished()) == n_finished  # nothing half-finished
    resumed, fresh = (
        subprocess.run(command(folder, "0"), capture_output=True, text=True, env=environment, check=True)
        for folder in ("killed", "fresh")
    )
    assert "continues after cycle" in resumed.stderr
    j_resumed, j_fresh = (float(run.stdout.split()[0]) for run in (resumed, fresh))
    assert j_resumed == pytest.approx(j_fresh, abs=0.05)  # conv_tol: 1e-8 hartree between cycles, 0.002 cm^-1
    assert not list(checkpoints.glob("*.work"))


def test_committed_mono_radical_is_a_clean_quartet_and_doublet():
    import molecular_qubits.experiments

    path = Path(molecular_qubits.experiments.__file__).parent / "data" / "mono_exchange.json"
    result = ExchangeResult.from_json(path)
    high, broken = result.states
    assert result.molecule.n_atoms == 55
    assert high.s2 == pytest.approx(3.75, abs=0.1)
    assert broken.s2 == pytest.approx(1.75, abs=0.1)
    assert high.lowdin_spins[0] > 0.7
    assert broken.lowdin_spins[0] < -0.7
    assert result.j_noodleman_cm1[0, 1] > 0  # ferromagnetic, as observed
    assert result.j_unprojected_cm1[0, 1] == pytest.approx(result.j_noodleman_cm1[0, 1] * 2 / 3)
    assert "mono" in result.provenance["command"]
