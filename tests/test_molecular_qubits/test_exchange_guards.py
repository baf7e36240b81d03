"""What a coupling is guarded by: clashes, memory, names, a poor Heisenberg fit, a state that fails after another."""

import json
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from molecular_qubits import cli_exchange
from molecular_qubits.electronic.errors import WrongStateError
from molecular_qubits.electronic.exchange import ExchangeResult, exchange_couplings, prepare_settings
from molecular_qubits.fields.alignments import enumerate_determinants
from molecular_qubits.structure import memory
from molecular_qubits.structure.clashes import check_clashes, closest_contact
from molecular_qubits.structure.memory import InsufficientMemoryError
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.pyscf_input import (
    COMMON_BASES,
    COMMON_FUNCTIONALS,
    build_mole,
    check_method,
    fitting_basis,
    make_uks,
)
from molecular_qubits.units import HARTREE_TO_CM1
from shared.artifacts import Cache

H_HE_H = Molecule(("H", "He", "H"), ((0.0, 0.0, -1.5), (0.0, 0.0, 0.0), (0.0, 0.0, 1.5)))
H4 = Molecule(("H",) * 4, tuple((0.0, 0.0, 2.6 * k) for k in range(4)))
FAST = {"xc": "hf", "basis": "sto-3g", "stability": False}


def test_clashing_atoms_are_named_before_any_field(tmp_path):
    clash = H_HE_H.with_positions([[0, 0, -1.5], [0, 0, 0], [0, 0, 0.3]])
    assert closest_contact(clash)[:2] == (1, 2)
    with pytest.raises(ValueError, match=r"He1 and H2 are 0\.30 Å apart. Correct the coordinates or their unit"):
        exchange_couplings(clash, [[0], [2]], cache=Cache(tmp_path), **FAST)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"He1 and H2 are 0\.30 Å apart"):
        clash.optimize("gfn2", 3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"conv_tol": "1e-8"}, "`conv_tol` must be a number, but is '1e-8'"),
        ({"conv_tol": "1e-8", "density_fit": True}, "`conv_tol` must be a number, but is '1e-8'"),
        ({"solvent_epsilon": "2"}, "`solvent_epsilon` must be a number, but is '2'"),
        ({"ramp": "yes"}, "`ramp` must be True or False, but is 'yes'"),
        ({"stability": "no"}, "`stability` must be True or False, but is 'no'"),
    ],
)
def test_text_is_no_number_and_no_truth_value(wrong, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        exchange_couplings(H_HE_H, [[0], [2]], cache=Cache(tmp_path), **(FAST | wrong))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("smiles", "fault"),
    [
        ("C1CC", "it is not well formed"),
        ("[Xx]", "it is not well formed"),
        ("", "it is not well formed"),
        ("C(C)(C)(C)(C)C", "atom # 0 C, 5, is greater than permitted"),
        ("c1cccc1", "Can't kekulize mol"),
    ],
)
def test_what_is_wrong_with_a_smiles_is_said(smiles, fault):
    with pytest.raises(ValueError, match=f"`smiles` must be a valid SMILES string, .*: .*{fault}"):
        Molecule.from_smiles(smiles)


@pytest.mark.parametrize("bond", [("H", "H", 0.74), ("H", "F", 0.92), ("N", "N", 1.10), ("C", "O", 1.13)])
def test_the_shortest_bonds_are_no_clash(bond):
    first, second, length = bond
    check_clashes(Molecule((first, second), ((0.0, 0.0, 0.0), (0.0, 0.0, length))))
    check_clashes(Molecule(("H",), ((0.0, 0.0, 0.0),)))


def test_too_little_memory_is_said_before_the_fit(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 0.001)
    with pytest.raises(
        InsufficientMemoryError, match=r"3 atoms in sto-3g \(3 orbitals\) needs about .* smaller `basis`"
    ):
        exchange_couplings(H_HE_H, [[0], [2]], density_fit=True, cache=Cache(tmp_path), **FAST)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("xc", ["b3lyp", "cam-b3lyp"])
@pytest.mark.parametrize("used_mb", [0.0, 1e6])
def test_the_estimate_of_the_file_is_what_pyscf_writes(xc, used_mb, monkeypatch, tmp_path):
    monkeypatch.setattr("pyscf.lib.current_memory", lambda: (used_mb, used_mb))
    monkeypatch.setattr("pyscf.lib.param.TMPDIR", str(tmp_path))
    mole = build_mole(H4, "cc-pvdz", 0)
    field = make_uks(mole, xc, 0, True)
    field.max_cycle = 0
    field.kernel()
    fits = [field.with_df, *field.with_df._rsh_df.values()]
    files = {fit._cderi for fit in fits if not isinstance(fit._cderi, np.ndarray)}
    written = sum(Path(file.name).stat().st_size for file in files) / 1e6
    for file in files:
        file.close()
    assert bool(written) == bool(used_mb)
    assert memory.fit_file_mb(mole, xc) == pytest.approx(written, rel=0.1)


def test_a_set_of_integrals_is_kept_where_half_of_the_free_memory_holds_it(monkeypatch):
    monkeypatch.setattr("pyscf.lib.current_memory", lambda: (0.0, 0.0))
    mole = build_mole(H4, "cc-pvdz", 0)
    mole.max_memory = 0
    monkeypatch.setattr(memory, "available_memory_mb", lambda: 0.0)
    one = memory.fit_file_mb(mole, "b3lyp")
    for sets, written in ((0.5, 2), (1.5, 1), (2.5, 0)):
        monkeypatch.setattr(memory, "available_memory_mb", lambda sets=sets: 2 * sets * one)
        assert memory.fit_file_mb(mole, "cam-b3lyp") == pytest.approx(written * one)
    assert memory.fit_limit_mb(build_mole(H4, "cc-pvdz", 0)) == 8000


def test_a_folder_without_room_for_the_integrals_is_named_before_the_fit(monkeypatch, tmp_path):
    monkeypatch.setattr("pyscf.lib.current_memory", lambda: (1e6, 1e6))
    monkeypatch.setattr("pyscf.lib.param.TMPDIR", "/scratch")
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(folder == "/scratch")))
    options = FAST | {"density_fit": True, "device": "cpu", "cache": Cache(tmp_path)}
    words = (
        r"3 atoms in sto-3g \(3 orbitals\) writes 0 MB of integrals, .* to the folder '/scratch', but 0 MB are free "
        r"there: name another folder in the environment variable PYSCF_TMPDIR, or take a smaller `basis`"
    )
    with pytest.raises(InsufficientMemoryError, match=words):
        exchange_couplings(H_HE_H, [[0], [2]], **options)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    prepare_settings(H_HE_H, 3, xc="hf", basis="sto-3g", density_fit=True)


def test_exact_integrals_stay_within_the_memory(monkeypatch):
    from molecular_qubits.electronic import scf

    monkeypatch.setattr(scf, "available_memory_mb", lambda: 0.001)
    field = scf.Workspace(H_HE_H, scf.SCFSettings("hf", "6-31g")).mean_field(2)
    field.kernel()
    assert field.converged
    assert field._eri is None  # computed in each cycle


def test_fitted_integrals_are_in_memory_where_there_is_room(monkeypatch):
    from molecular_qubits.electronic import scf

    for available, limit in ((1e5, 5e4), (1e3, build_mole(H4, "6-31g", 0).max_memory)):
        monkeypatch.setattr(memory, "available_memory_mb", lambda available=available: available)
        assert scf.Workspace(H_HE_H, scf.SCFSettings(basis="6-31g", density_fit=True)).mole.max_memory == limit


def test_the_estimate_is_the_size_of_the_integrals():
    from pyscf import df

    mole = build_mole(H4, "cc-pvdz", 0)
    fit = df.DF(mole)
    fit.build()
    needed = memory.fit_memory_mb(mole, "b3lyp")
    assert fit._cderi.nbytes / 1e6 < needed < 2 * fit._cderi.nbytes / 1e6 + 0.2
    assert memory.fit_memory_mb(mole, "b3lyp", ramp=True) > needed + 2 * fit._cderi.nbytes / 1e6  # a batch of all
    assert 100 < memory.available_memory_mb() < 1e9
    with pytest.raises(ValueError, match="`auxbasis` must be a fitting basis"):
        memory.fit_memory_mb(mole, "b3lyp", "no-such-fit")


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used"),
    [("0::/job/step", "job", "memory.max", "memory.current"),
     ("4:cpu,memory:/job/step", "memory/job", "memory.limit_in_bytes", "memory.usage_in_bytes")],
)  # fmt: skip
def test_the_limit_of_a_group_above_the_process_counts(line, folder, limit, used, tmp_path, monkeypatch):
    (tmp_path / "groups").write_text(f"3:cpuset:/else\n{line}\n", encoding="utf-8")
    place = tmp_path / "root" / folder
    place.mkdir(parents=True)
    (place / limit).write_text("90000000\n", encoding="utf-8")
    (place / used).write_text("20000000\n", encoding="utf-8")
    files = memory._group_files
    monkeypatch.setattr(memory, "_group_files", lambda: files(tmp_path / "groups", tmp_path / "root"))
    assert memory.available_memory_mb() == 70
    (place / limit).write_text("max\n", encoding="utf-8")
    assert memory.available_memory_mb() > 100


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no size of the process")
def test_the_limit_of_the_address_space_counts(monkeypatch):
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used + 90_000_000, -1))
    assert 0 < memory.available_memory_mb() < 150  # what is used can change meanwhile
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, -1))
    assert memory.available_memory_mb() > 100


def test_a_range_separated_functional_has_the_integrals_twice():
    mole = build_mole(H4, "cc-pvdz", 0)
    field = make_uks(mole, "cam-b3lyp", 0, True)
    field.kernel()
    kept = [fit._cderi.nbytes / 1e6 for fit in (field.with_df, *field.with_df._rsh_df.values())]
    assert len(kept) == 2
    assert memory.fit_memory_mb(mole, "cam-b3lyp") - memory.fit_memory_mb(mole, "b3lyp") == pytest.approx(kept[1])


@pytest.mark.parametrize("xc", ["hf", "pbe"])
def test_an_element_that_the_fitting_basis_lacks_is_fitted_by_even_tempered_functions(xc):
    molecule = Molecule(("Na", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 1.89)))
    mole = build_mole(molecule, "6-31g", 0)
    assert fitting_basis(build_mole(H4, "6-31g", 0), "hf") == "cc-pvdz-jkfit"
    energies = [make_uks(mole, xc, 3, fitted).kernel() for fitted in (True, False)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-3)
    assert memory.fit_memory_mb(mole, xc) > 0


def test_a_basis_without_room_for_the_electrons_is_refused_or_not_chosen(tmp_path):
    helium = Molecule(("He", "He"), ((0.0, 0.0, 0.0), (0.0, 0.0, 3.0)))
    options = {"xc": "b3lyp", "spins": [1, 1], "density_fit": True, "stability": False, "cache": Cache(tmp_path)}
    words = r"must have a function for each of the 4 α electrons of multiplicity 5, but 'sto-3g' has 2"
    with pytest.raises(ValueError, match=f"`basis` {words}"):
        exchange_couplings(helium, [[0], [1]], basis="sto-3g", **options)
    with pytest.raises(ValueError, match=f"`guess_basis` {words}"):
        exchange_couplings(helium, [[0], [1]], basis="6-31g", guess_basis="sto-3g", **options)
    found = exchange_couplings(helium, [[0], [1]], basis="6-31g", **options)  # four functions: one quintet
    assert found.settings.ramp
    assert found.states[0].guess == "minao"
    assert found.states[0].s2 == pytest.approx(6)


@pytest.mark.parametrize(
    ("xc", "basis", "words"),
    [
        ("b3lypp", "sto-3g", "Did you mean 'b3lyp'"),
        ("cam_b3lyb", "sto-3g", "Did you mean 'cam-b3lyp'"),
        (" ", "sto-3g", "`xc` must be"),
        (None, "sto-3g", "`xc` must be .* but is None"),
        ("scanl", "sto-3g", "`xc` must be a functional without the Laplacian .* 'scanl'"),
        ("m06-2", "sto-3g", "known to PySCF .* but is 'm06-2'. Did you mean 'm06-2x'"),
        ("wb97x-2", "sto-3g", "known to PySCF"),
        ("b3lyp, 2", "sto-3g", "known to PySCF"),
        ("406", "sto-3g", "known to PySCF"),
        ("lda_k_tf", "sto-3g", "known to PySCF"),
        ("GGA_X_LB", "sto-3g", "`xc` must be a functional that has an energy, but 'GGA_X_LB' is a potential only"),
        ("hf", None, "`basis` must be the name .* but is None"),
        ("hf", "def2-spv", "Did you mean 'def2-svp'"),
        ("hf", "6-31gg", "Did you mean '6-31g'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(xc, basis, words):
    with pytest.raises(ValueError, match=words):
        check_method(H_HE_H, xc, basis)


@pytest.mark.parametrize("xc", ["b97-1", "hcth-407", "0.1*HF + 0.9*MGGA_X_R2SCAN, MGGA_C_R2SCAN", "pbe,p86"])
def test_names_and_mixtures_of_pyscf_are_accepted(xc):
    check_method(H_HE_H, xc, "sto-3g")


def test_four_centres_use_all_eight_determinants_and_report_the_residual(tmp_path):
    result = exchange_couplings(H4, [[0], [1], [2], [3]], cache=Cache(tmp_path), **FAST)
    assert [state.determinant for state in result.states] == enumerate_determinants((0.5,) * 4)
    assert len(result.states) == 8
    neighbour, far = result.j_noodleman_cm1[0, 1], result.j_noodleman_cm1[0, 3]
    assert neighbour < -50  # antiferromagnetic
    assert abs(far) < 0.05 * abs(neighbour)
    assert 0 < np.abs(result.residual_cm1).max() < 0.1 * abs(neighbour)
    assert result.overdetermined
    assert result.poor_fit is False
    assert 0 < np.abs(result.residual_s2).max() < 0.1
    assert "Largest residual" in cli_exchange.describe(result)
    assert np.array_equal(ExchangeResult.from_json(result.to_json()).residual_cm1, result.residual_cm1)
    assert "does not describe" not in cli_exchange.describe(result)


def test_a_fit_that_cannot_fail_has_no_residual(tmp_path):
    places = ((0, 0, 0), (0, 0, 2.6), (0, 0, 5.8))
    result = exchange_couplings(Molecule(("H",) * 3, places), [[0], [1], [2]], cache=Cache(tmp_path), **FAST)
    assert not result.overdetermined
    assert result.poor_fit is None
    record = json.loads(result.to_json())
    assert record["residual_cm1"] is record["residual_s2"] is record["poor_fit"] is None
    assert ExchangeResult.from_json(result.to_json()).states == result.states
    assert "not overdetermined" in cli_exchange.describe(result)
    assert "seconds  stable" in cli_exchange.describe(result)


def test_results_are_equal_where_what_they_hold_is(tmp_path):
    options = FAST | {"cache": Cache(tmp_path)}
    pair = exchange_couplings(H_HE_H, [[0], [2]], **options)
    again = exchange_couplings(H_HE_H, [[0], [2]], **options)
    assert again == pair == ExchangeResult.from_json(pair.to_json())
    assert replace(pair, provenance={}, solutions=()) == pair
    assert replace(pair, j_yamaguchi_cm1=2 * pair.j_yamaguchi_cm1) != pair
    assert exchange_couplings(H_HE_H, [[2], [0]], **options) != pair
    assert pair != "pair"
    four = exchange_couplings(H4, [[0], [1], [2], [3]], **options)
    assert ExchangeResult.from_json(four.to_json()) == four
    assert replace(four, residual_cm1=four.residual_cm1 + 1) != four


def test_a_poor_fit_is_reported(tmp_path):
    good = exchange_couplings(H4, [[0], [1], [2], [3]], cache=Cache(tmp_path), **FAST)
    poor = replace(good, residual_cm1=np.full(8, 0.3) * np.ptp([s.energy_hartree for s in good.states]) * 219474.6)
    assert poor.poor_fit
    assert "does not describe these determinants" in cli_exchange.describe(poor)
    assert "Not stable" not in cli_exchange.describe(good)
    unstable = replace(good, states=(replace(good.states[0], stable=False), *good.states[1:]))
    assert "Not stable: high-spin state ↑↑↑↑. Another determinant lies lower." in cli_exchange.describe(unstable)
    assert "Held" not in cli_exchange.describe(good)
    held = replace(good, states=(good.states[0], replace(good.states[1], solver="maximum overlap"), *good.states[2:]))
    assert f"Held at the orbitals of their guess: {good.states[1].label}. " in cli_exchange.describe(held)
    for pair in ((0, 0), (0, 4), (-1, 1)):
        with pytest.raises(ValueError, match="`i` and `j` must be two of 4 centres"):
            good.error_bar(*pair)
    assert json.loads(poor.to_json())["poor_fit"] is True
    assert ExchangeResult.from_json(poor.to_json()).poor_fit


def test_a_centre_without_spin_is_an_error_and_the_finished_state_is_kept(tmp_path):
    """O2 beside helium: no spin on helium. H-He-H: the high-spin state is kept when the broken one fails."""
    oxygen = Molecule(("O", "O", "He"), ((0.0, 0.0, 0.0), (0.0, 0.0, 1.2), (0.0, 0.0, 5.0)))
    with pytest.raises(WrongStateError, match=r"on centre 1, but about \+1 was expected.*Try other atom sets"):
        exchange_couplings(oxygen, [[0, 1], [2]], cache=Cache(tmp_path), **FAST)
    close = H_HE_H.with_positions([[0, 0, -0.8], [0, 0, 0], [0, 0, 0.8]])
    options = FAST | {"basis": "6-31g"}
    with pytest.raises(WrongStateError, match="broken-symmetry state"):
        exchange_couplings(close, [[0], [2]], cache=Cache(tmp_path), **options)
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("cache/*/state.json")]
    assert [state["label"] for state in kept] == ["high-spin state ↑↑"]


def test_an_unconverged_energy_is_in_the_error(tmp_path):
    options = FAST | {"stability": False, "cache": Cache(tmp_path)}
    far = exchange_couplings(Molecule(("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 12.0))), [[0], [1]], **options)
    bar = far.error_bar(0, 1)
    # J = (E_BS - E_HS) / (2 - 1), each energy within 1e-9 hartree; it is too small for errors of <S^2> to count
    assert bar.parts_cm1["convergence"] == pytest.approx(2**0.5 * 1e-9 * HARTREE_TO_CM1, rel=1e-6)
    assert not bar.resolved
    near = exchange_couplings(H_HE_H, [[0], [2]], **options)
    assert near.error_bar(0, 1).resolved
    drop = near.states[0].s2 - near.states[1].s2
    j_cm1 = near.j_yamaguchi_cm1[0, 1]
    parts = np.array([1e-9 * HARTREE_TO_CM1, j_cm1 * 1e-9**0.5]) / drop  # of an energy, of an <S^2>
    assert near.error_bar(0, 1).parts_cm1["convergence"] == pytest.approx(2**0.5 * np.linalg.norm(parts), rel=1e-3)


@pytest.mark.parametrize("xc", ["b3lyp-d3bj", "wb97x-d3bj", "wb97x-d3", "pbe0-d4"])
def test_dispersion_within_a_functional_is_refused(xc):
    with pytest.raises(ValueError, match=r"without dispersion, but is .*by its own argument, `dispersion`"):
        check_method(H_HE_H, xc, "sto-3g")


@pytest.mark.parametrize(
    ("symbol", "basis"),
    [
        ("Cu", "lanl2dz"), ("C", "stuttgart"), ("C", "gth-dzvp"), ("O", "ccECP-cc-pVDZ"), ("Fe", "ccecp_cc_pvtz"),
        ("N", "bfd-vdz"), ("C", "q-avg-vszps"),
    ],
)  # fmt: skip
def test_a_basis_that_lacks_the_inner_electrons_is_refused(symbol, basis):
    atom = Molecule((symbol,), ((0.0, 0.0, 0.0),))
    with pytest.raises(ValueError, match=f"replaces the inner ones of {symbol} by a potential"):
        check_method(atom, "b3lyp", basis)
    check_method(atom, "b3lyp", "def2-svp")


@pytest.mark.parametrize("basis", ["def2-universal-jkfit", "cc-pVDZ-ri", "sap_grasp_large", "aug-cc-pvdz-optri"])
def test_an_auxiliary_basis_is_not_taken_for_orbitals(basis):
    with pytest.raises(ValueError, match="must be a basis set for orbitals"):
        check_method(H_HE_H, "b3lyp", basis)


@pytest.mark.parametrize(("symbol", "basis"), [("K", "cc-pvdz"), ("Zn", "6-311g")])
def test_a_basis_that_lacks_an_element_is_not_suggested_again(symbol, basis):
    atom = Molecule((symbol,), ((0.0, 0.0, 0.0),))
    with pytest.raises(ValueError, match=f"but is '{basis}', which has none for this element") as error:
        check_method(atom, "b3lyp", basis)
    assert f"mean {basis!r}" not in str(error.value)


def test_every_suggested_name_is_accepted():
    for xc in COMMON_FUNCTIONALS:
        if xc not in ("wb97x-v", "wb97m-v", "b97-d"):
            check_method(H_HE_H, xc, "sto-3g")
    methylidyne = Molecule(("C", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 1.12)))
    for basis in COMMON_BASES:
        check_method(methylidyne, "hf", basis)


@pytest.mark.parametrize(
    ("xc", "dispersion", "others"), [("bhandhlyp", "d4", "'d3bj'"), ("r2scan", "d3zero", "'d3bj'")]
)
def test_a_dispersion_without_parameters_for_the_functional_is_refused(xc, dispersion, others):
    pytest.importorskip("pyscf.dispersion")
    with pytest.raises(ValueError, match=f"must have parameters for the functional '{xc}'.* 'd3bj'"):
        prepare_settings(H_HE_H, 3, xc=xc, dispersion=dispersion)
    prepare_settings(H_HE_H, 3, xc=xc, dispersion="d3bj")
