"""Populations, guesses and broken-symmetry determinants on systems small enough to know the answer."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pyscf import gto, scf

from molecular_qubits import Molecule, exchange_couplings
from molecular_qubits.electronic import broken_symmetry
from molecular_qubits.electronic import scf as scf_module
from molecular_qubits.electronic.broken_symmetry import StateResult, StateRunner
from molecular_qubits.electronic.errors import SCFNotConvergedError, UnmatchedStatesError, WrongStateError
from molecular_qubits.electronic.full_ci import full_ci_gap
from molecular_qubits.electronic.scf import HELD, SCFSettings, Workspace, is_stable, run_scf
from molecular_qubits.fields import guesses
from molecular_qubits.fields.alignments import state_label
from molecular_qubits.fields.guesses import density_of
from molecular_qubits.fields.populations import (
    atom_of_orbital,
    local_spin_products,
    lowdin_spins,
    mulliken_spins,
    occupation_changes,
    promotion,
    spin_polarisation,
    spin_squared,
)
from molecular_qubits.structure.library import library_entry
from molecular_qubits.structure.pyscf_input import build_mole, without_checkpoint_file
from molecular_qubits.units import HARTREE_TO_CM1
from shared.artifacts import Cache


def h2(distance):
    return Molecule(("H", "H"), ((0, 0, 0), (0, 0, distance)))


def h_he_h(distance):
    return Molecule(("H", "He", "H"), ((0, 0, -distance), (0, 0, 0), (0, 0, distance)))


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path, name="scf")


@pytest.fixture(scope="module")
def triplet():
    mole = gto.M(atom="H 0 0 0; H 0 0 1.5", basis="6-31g", spin=2, verbose=0)
    field = without_checkpoint_file(scf.UHF(mole))
    field.kernel()
    return mole, field, mole.intor_symmetric("int1e_ovlp")


def test_spin_squared_agrees_with_pyscf(triplet):
    _, field, overlap = triplet
    assert spin_squared(field.make_rdm1(), overlap) == pytest.approx(field.spin_square()[0], abs=1e-10)


def test_spin_populations_add_up_to_the_unpaired_electrons(triplet):
    mole, field, overlap = triplet
    owner = atom_of_orbital(mole)
    for populations in (mulliken_spins, lowdin_spins):
        assert populations(field.make_rdm1(), overlap, owner) == pytest.approx([1.0, 1.0], abs=1e-8)


def test_local_spin_product_of_a_closed_shell_bond_is_minus_three_eighths():
    mole = gto.M(atom="H 0 0 0; H 0 0 0.74", basis="sto-3g", verbose=0)
    field = without_checkpoint_file(scf.UHF(mole))
    field.kernel()
    products = local_spin_products(
        field.make_rdm1(), mole.intor_symmetric("int1e_ovlp"), atom_of_orbital(mole), [[0], [1]]
    )
    assert products == pytest.approx(np.array([[0, -3 / 8], [-3 / 8, 0]]), abs=1e-10)


def test_local_spin_products_of_distant_spins_are_ising_products(cache):
    result = exchange_couplings(h2(6.0), [[0], [1]], xc="hf", basis="6-31g", cache=cache)
    high, broken = result.states
    assert high.spin_products[0][1] == pytest.approx(1 / 4, abs=1e-4)
    assert broken.spin_products[0][1] == pytest.approx(-1 / 4, abs=1e-4)


def test_guesses_keep_electrons_and_flip_spins(triplet):
    mole, field, overlap = triplet
    owner = atom_of_orbital(mole)
    flipped = owner == 1
    density = guesses.fragment_density(field.mo_coeff, field.mo_occ, overlap, flipped, 1)
    n_alpha, n_beta = (np.trace(part @ overlap) for part in density)
    assert (n_alpha, n_beta) == pytest.approx((1, 1), abs=1e-8)
    for part in density:  # each spin is a proper determinant: P S P = P
        assert np.allclose(part @ overlap @ part, part, atol=1e-8)
    swapped = guesses.swap_density(field.make_rdm1(), flipped)
    assert np.allclose(swapped.sum(axis=0), np.sum(field.make_rdm1(), axis=0))
    for guess in (density, swapped):
        first, second = lowdin_spins(guess, overlap, owner)
        assert first > 0.7
        assert second < -0.7


def test_swapping_twice_restores_the_diagonal_blocks(triplet):
    mole, field, _ = triplet
    flipped = atom_of_orbital(mole) == 1
    twice = guesses.swap_density(guesses.swap_density(field.make_rdm1(), flipped), flipped)
    block = np.ix_([0, 1], np.flatnonzero(flipped), np.flatnonzero(flipped))
    assert np.allclose(twice[block], np.asarray(field.make_rdm1())[block])


def test_projected_density_has_the_electrons_of_the_small_basis():
    molecule = h_he_h(1.5)
    small = Workspace(molecule, SCFSettings("hf", "sto-3g"))
    large = Workspace(molecule, SCFSettings("hf", "6-31g"))
    solution = run_scf(small, 2, None, label="triplet", guess="minao")
    density = guesses.project_density(solution.mo_coeff, solution.mo_occ, small.mole, large.mole)
    overlap = large.mole.intor_symmetric("int1e_ovlp")
    assert [np.trace(part @ overlap) for part in density] == pytest.approx([3, 1], abs=1e-8)


def test_stretched_h2_is_found_where_the_default_stays_closed_shell(cache):
    molecule = h2(3.0)
    mole = gto.M(atom=[("H", row) for row in molecule.coordinates], basis="6-31g", verbose=0)
    plain = without_checkpoint_file(scf.UHF(mole))
    plain.kernel()
    assert plain.spin_square()[0] < 1e-3  # the closed-shell solution, silently
    high, broken = exchange_couplings(molecule, [[0], [1]], xc="hf", basis="6-31g", cache=cache).states
    assert broken.energy_hartree < plain.e_tot - 0.1
    assert broken.s2 == pytest.approx(1.0, abs=0.01)
    assert broken.stable is True
    assert high.s2 == pytest.approx(2.0, abs=1e-6)


def test_exchange_of_distant_hydrogens_is_full_ci(cache):
    molecule = h2(3.0)
    result = exchange_couplings(molecule, [[0], [1]], xc="hf", basis="6-31g", cache=cache)
    exact = full_ci_gap(molecule, "6-31g")
    assert exact.s2_singlet == pytest.approx(0, abs=1e-8)
    assert exact.s2_triplet == pytest.approx(2, abs=1e-8)
    assert exact.j_cm1 < 0
    assert result.j_yamaguchi_cm1[0, 1] == pytest.approx(exact.j_cm1, rel=0.15)


def test_collapsed_swap_guess_is_an_error_that_names_the_state(cache):
    with pytest.raises(WrongStateError, match=r"broken-symmetry state ↑↓ .*'swap'.*<S\^2> = 0\.000.*Try other"):
        exchange_couplings(h_he_h(1.25), [[0], [2]], basis="6-311g**", grid_level=2, guesses=("swap",), cache=cache)


def test_next_guess_is_tried_when_one_collapses(cache):
    result = exchange_couplings(
        h_he_h(1.25), [[0], [2]], basis="6-311g**", grid_level=2, guesses=("swap", "fragment"), cache=cache
    )
    assert result.states[1].guess == "fragment"
    assert result.states[1].lowdin_spins == pytest.approx((0.78, -0.78), abs=0.06)


@pytest.fixture(scope="module")
def carbonyl():
    """Methyl(formylmethyl)nitroxide: a radical and a carbonyl triplet, which falls to the ground doublet."""
    entry = library_entry("formylmethyl-nitroxide")
    return Molecule.from_smiles(entry.smiles), entry.centres, entry.spins


def test_a_collapsing_triplet_is_held(carbonyl, cache, capsys):
    molecule, centres, spins = carbonyl
    options = {"spins": spins, "basis": "sto-3g", "grid_level": 0, "conv_tol": 1e-7, "stability": False, "cache": cache}
    result = exchange_couplings(molecule, centres, xc="pbe", **options)
    high, broken = result.states
    assert "<S^2> = 0.75" in capsys.readouterr().err  # the usual guesses end in the ground doublet
    assert (broken.guess, broken.solver) == ("fragment", "maximum overlap")
    assert broken.s2 == pytest.approx(1.70, abs=0.02)
    assert broken.lowdin_spins == pytest.approx((-0.81, 1.67), abs=0.03)
    assert result.j_yamaguchi_cm1[0, 1] == pytest.approx(
        (broken.energy_hartree - high.energy_hartree) * HARTREE_TO_CM1 / (high.s2 - broken.s2)
    )


def test_a_held_state_that_does_not_converge_is_said(tmp_path, monkeypatch):
    def stop(workspace, n_unpaired, density, **options):
        if options["solvers"] is HELD:
            raise SCFNotConvergedError("State: not converged. Raise `max_cycle`.")
        return run_scf(workspace, n_unpaired, density, **options)

    monkeypatch.setattr(broken_symmetry, "run_scf", stop)
    workspace = Workspace(h_he_h(1.5), SCFSettings("hf", "6-31g"))
    runner = _Picky(workspace, ((0,), (2,)), (0.5, 0.5), Cache(tmp_path), stability=False)
    with pytest.raises(WrongStateError, match=r"collapsed. Held .*, it did not converge: .* Raise `max_cycle`"):
        runner.run((1, -1))


def test_a_held_state_that_slides_away_is_refused(carbonyl, cache, monkeypatch):
    molecule, centres, spins = carbonyl
    monkeypatch.setattr(broken_symmetry, "HELD_LIMIT", 0.2)
    settings = SCFSettings("pbe", "sto-3g", grid_level=0, conv_tol=1.1e-7)
    runner = StateRunner(Workspace(molecule, settings), centres, spins, cache, stability=False)
    with pytest.raises(WrongStateError, match=r"ends 0\.\d\d electrons away from the high-spin state \(at most 0\.2 "):
        runner.run((-1, 1))


def test_a_held_state_that_does_not_collapse_is_the_usual_one(carbonyl, cache):
    molecule, centres, spins = carbonyl
    settings = SCFSettings("b3lyp", "sto-3g", grid_level=0, conv_tol=1e-8)
    runner = StateRunner(Workspace(molecule, settings), centres, spins, cache, stability=False)
    runner.run((1, 1))
    usual, _ = runner.run((-1, 1))
    assert usual.solver == "diis"
    guess = runner._guess("fragment", (-1, 1), 1)
    for solver in HELD:
        held = run_scf(
            runner.workspace, 1, guess, label="held", guess="fragment", solvers=(solver,)
        )  # fmt: skip
        assert held.solver == solver
        assert held.energy_hartree == pytest.approx(usual.energy_hartree, abs=1e-6)


def test_a_state_is_held_in_a_basis_of_which_functions_drop_out(cache):
    chain = Molecule(("H",) * 6, tuple((0.0, 0.0, 0.8 * k) for k in range(6)))
    workspace = Workspace(chain, SCFSettings("hf", "6-311++g**", conv_tol=1e-7))
    runner = StateRunner(workspace, ((0, 1, 2), (3, 4, 5)), (0.5, 0.5), cache, stability=False)
    _, solution = runner.run((1, 1))
    assert solution.mo_coeff.shape[2] < solution.mo_coeff.shape[1]
    for solver in HELD:
        guess = density_of(*scf_module.occupied_orbitals(solution.mo_coeff, solution.mo_occ))
        held = run_scf(workspace, 2, guess, label="held", guess="minao", solvers=(solver,))
        assert held.energy_hartree == pytest.approx(solution.energy_hartree, abs=1e-6)


class _TurnedHole(StateRunner):
    """Flips the first centre from a guess in which the hole of the last atom lies in another p orbital."""

    def _guess(self, name, determinant, n_unpaired):
        density = super()._guess(name, determinant, n_unpaired)
        if determinant != (-1, 1, 1, 1):
            return density
        labels = self.workspace.mole.ao_labels(fmt=None)
        places = [i for i, (atom, _, shell, _) in enumerate(labels) if (atom, shell) == (3, "2p")]
        spins = np.diag(self.high_spin.density[0] - self.high_spin.density[1])[places]
        hole, other = places[int(spins.argmax())], places[int(spins.argmin())]
        order = np.arange(self.workspace.mole.nao)
        order[[hole, other]] = other, hole
        return density_of(*(found[order] for found in scf_module.occupied_orbitals(density.mo_coeff, density.mo_occ)))


def test_one_electron_in_another_orbital_is_refused_among_four_centres(cache):
    row = Molecule(("F",) * 4, tuple((2.6 * k, 0.0, 0.0) for k in range(4)))
    centres, spins = tuple((k,) for k in range(4)), (0.5,) * 4
    runner = _TurnedHole(
        Workspace(row, SCFSettings("hf", "sto-3g")), centres, spins, cache, stability=False, guesses=("fragment",)
    )
    runner.run((1, 1, 1, 1))
    with pytest.raises(UnmatchedStatesError, match=r"(0\.9|1\.0)\d of an electron in one orbital \(at most 0\.8\)"):
        runner.run((-1, 1, 1, 1))


def test_a_chain_of_close_hydrogen_atoms_is_a_flip_of_spins(cache):
    chain = Molecule(("H",) * 4, tuple((0.0, 0.0, 1.6 * k) for k in range(4)))
    found = exchange_couplings(chain, [[k] for k in range(4)], xc="hf", basis="6-31g", stability=False, cache=cache)
    assert max(state.promoted_electrons for state in found.states[1:]) > 1.2
    overlap = build_mole(chain, "6-31g", 0).intor_symmetric("int1e_ovlp")
    high, *others = (solution.density for solution in found.solutions)
    assert max(np.abs(occupation_changes(high, other, overlap)).max() for other in others) < 0.78
    assert found.j_yamaguchi_cm1[0, 1] < 0


def test_fields_of_other_basis_files_and_of_another_configuration_are_others(cache, tmp_path, monkeypatch):
    lines = ["BASIS", "H S", " {} 1.0", "H S", " 0.1 1.0", "END"]
    path = tmp_path / "h.nw"
    energies = []
    for exponent in (0.4, 1.2, 1.2):
        path.write_text("\n".join(lines).format(exponent), encoding="utf-8")
        found = exchange_couplings(h2(2.0), [[0], [1]], xc="hf", basis=str(path), stability=False, cache=cache)
        energies.append(found.states[0].energy_hartree)
    assert abs(energies[1] - energies[0]) > 0.01
    assert energies[2] == energies[1]
    runner = StateRunner(Workspace(h2(2.0), SCFSettings("hf", "sto-3g")), ((0,), (1,)), (0.5, 0.5), cache)
    usual = runner.key((1, 1))
    assert "files" not in usual
    configuration = tmp_path / "configuration.py"
    configuration.write_text("B3LYP_WITH_VWN5 = True", encoding="utf-8")
    monkeypatch.setattr("pyscf.__config__.conf_file", str(configuration))
    assert runner.key((1, 1))["files"].keys() == {str(configuration)}


def test_a_held_state_continues_from_its_checkpoint(carbonyl, cache, monkeypatch):
    molecule, centres, spins = carbonyl
    settings = SCFSettings("pbe", "sto-3g", grid_level=0, conv_tol=1e-7)
    runner = StateRunner(Workspace(molecule, settings), centres, spins, cache, stability=False)
    record = scf_module._Recorder.__call__

    def stop(self, variables):
        record(self, variables)
        if self.solver == "maximum overlap" and self.cycles == 4:
            raise KeyboardInterrupt

    runner.run((1, 1))
    monkeypatch.setattr(scf_module._Recorder, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        runner.run((-1, 1))
    monkeypatch.setattr(scf_module._Recorder, "__call__", record)
    state, _ = runner.run((-1, 1))
    assert state.solver == "maximum overlap"
    assert state.s2 == pytest.approx(1.70, abs=0.02)
    assert state.cycles > 4


class _Picky(StateRunner):
    """Takes only a held state: the fragment guess is unmatched or collapses, the swapped one collapses."""

    fragment: type[WrongStateError] = WrongStateError

    def failure(self, state, solution):
        if state.determinant == (1, 1) or state.solver in HELD:
            return None
        if state.guess == "fragment" and self.fragment is UnmatchedStatesError:
            return UnmatchedStatesError("unmatched", state.determinant, solution)
        return WrongStateError("collapsed.")


@pytest.mark.parametrize("fragment", [WrongStateError, UnmatchedStatesError])
def test_an_interruption_does_not_change_what_a_run_ends_with(fragment, tmp_path, monkeypatch):
    ran = []

    def stop(workspace, n_unpaired, density, **options):
        solution = run_scf(workspace, n_unpaired, density, **options)
        ran.append(options["guess"])
        if options["guess"] == stopped:
            raise KeyboardInterrupt
        return solution

    monkeypatch.setattr(broken_symmetry, "run_scf", stop)
    monkeypatch.setattr(_Picky, "fragment", fragment)
    ends = []
    for stopped in (None, "fragment", "swap"):
        cache = Cache(tmp_path / str(stopped))
        for _ in range(2):
            runner = _Picky(
                Workspace(h_he_h(1.5), SCFSettings("hf", "6-31g")), ((0,), (2,)), (0.5, 0.5), cache, stability=False
            )
            ran.clear()
            try:
                ends.append(runner.run((1, -1))[0].solver)
            except UnmatchedStatesError as error:
                ends.append((str(error), error.determinant, np.round(np.abs(error.solution.density).sum(), 5)))
            except KeyboardInterrupt:
                stopped = None
    assert len(ends) == 4  # the first run twice
    assert all(end == ends[0] for end in ends)
    assert ends[0] == "maximum overlap" if fragment is WrongStateError else ends[0][:2] == ("unmatched", (1, -1))
    assert "fragment" not in ran or fragment is WrongStateError  # known from before the interruption


def test_failed_guesses_are_tried_again_with_other_solvers(tmp_path):
    for solvers in (("diis",), ("newton",)):
        settings = SCFSettings("hf", "6-31g")
        runner = _Picky(
            Workspace(h_he_h(1.5), settings), ((0,), (2,)), (0.5, 0.5), Cache(tmp_path), stability=False,
            solvers=solvers, guesses=("swap",),
        )  # fmt: skip
        for _ in range(2):
            with pytest.raises(WrongStateError, match="collapsed"):
                runner.run((1, -1))
        kept = json.loads((runner.cache.work_folder(runner.key((1, -1))) / "failed.json").read_text())
        assert kept["conditions"]["solvers"] == list(solvers)


def test_a_checkpoint_behind_all_solvers_left_is_run_by_all_of_them(tmp_path):
    options = {"label": "state", "guess": "minao", "checkpoint": tmp_path / "orbitals.npz"}
    workspace = Workspace(h2(1.5), SCFSettings("hf", "6-31g"))
    first = run_scf(workspace, 2, None, solvers=("newton",), **options)
    again = run_scf(workspace, 2, None, solvers=("diis",), **options)
    assert again.solver == "diis"
    assert again.energy_hartree == pytest.approx(first.energy_hartree, abs=1e-8)


def test_mirror_image_of_a_singlet_determinant_is_turned_back(cache):
    states = [
        exchange_couplings(
            h_he_h(2.0), [[0], [2]], basis="6-311g**", grid_level=1, guesses=(guess,), cache=cache
        ).states[1]
        for guess in ("swap", "fragment")  # the first converges with all spins turned
    ]
    for state in states:
        assert state.lowdin_spins[0] > 0.7
        assert state.lowdin_spins[1] < -0.7
    assert states[0].energy_hartree == pytest.approx(states[1].energy_hartree, abs=1e-8)


def test_spin_on_the_wrong_atoms_is_an_error(cache):
    said = r"spin population .* on centre 1.* Its spin is on H\d \([+-][01]\.\d+\), H\d .*Try other atom sets"
    with pytest.raises(WrongStateError, match=said):
        exchange_couplings(h_he_h(2.0), [[0], [1]], basis="6-31g", grid_level=1, cache=cache)


def test_unconverged_field_is_an_error_that_names_the_state(cache):
    with pytest.raises(SCFNotConvergedError, match=r"high-spin state ↑↑ .*diis, level shift, newton.*max_cycle"):
        exchange_couplings(h_he_h(1.25), [[0], [2]], basis="6-31g", grid_level=0, max_cycle=1, cache=cache)
    with pytest.raises(SCFNotConvergedError, match=r"with any of diis \(1 cycles"):  # goes on behind the checkpoint
        exchange_couplings(
            h_he_h(1.25), [[0], [2]], basis="6-31g", grid_level=0, max_cycle=1, solvers=["diis"], cache=cache
        )


@pytest.mark.parametrize("solver", ["diis", "level shift", "newton"])
def test_every_solver_of_the_ladder_reaches_the_same_energy(solver):
    workspace = Workspace(h_he_h(1.5), SCFSettings("b3lyp", "6-31g", grid_level=1, conv_tol=1e-10))
    solution = run_scf(workspace, 2, None, label="triplet", guess="minao", solvers=(solver,))
    assert solution.solver == solver
    assert is_stable(workspace, solution)
    plain = workspace.mean_field(2)
    plain.kernel()
    assert solution.energy_hartree == pytest.approx(plain.e_tot, abs=1e-8)


def test_instability_is_reported_and_not_followed():
    workspace = Workspace(h2(3.0), SCFSettings("hf", "6-31g"))
    closed = run_scf(workspace, 0, None, label="closed shell", guess="minao")
    assert not is_stable(workspace, closed)
    assert spin_squared(closed.density, workspace.mole.intor_symmetric("int1e_ovlp")) < 1e-3


def test_a_field_without_rotations_is_stable(cache):
    high, broken = exchange_couplings(h2(3.0), [[0], [1]], xc="hf", basis="sto-3g", cache=cache).states
    assert (high.stable, broken.stable) == (True, True)  # both orbitals are full in the triplet


def test_a_solvent_takes_part_in_the_stability():
    settings = SCFSettings("hf", "6-31g", solvent_epsilon=80.0, conv_tol=1e-11)
    for distance, stable in ((1.0, True), (3.0, False)):
        workspace = Workspace(h2(distance), settings)
        assert is_stable(workspace, run_scf(workspace, 0, None, label="closed shell", guess="minao")) is stable


def test_finished_states_are_kept_whatever_cycles_and_analysis_were_asked_for(cache, capsys):
    options = {"xc": "hf", "basis": "6-31g", "solvers": ["diis"], "cache": cache}
    with pytest.raises(SCFNotConvergedError, match="Raise `max_cycle`"):
        exchange_couplings(h2(3.0), [[0], [1]], max_cycle=4, stability=False, **options)
    assert "continues after cycle" not in capsys.readouterr().err
    first = exchange_couplings(h2(3.0), [[0], [1]], max_cycle=50, stability=False, **options)
    assert "continues after cycle 4" in capsys.readouterr().err
    again = exchange_couplings(h2(3.0), [[0], [1]], max_cycle=60, stability=True, **options)
    assert [state.cycles for state in again.states] == [state.cycles for state in first.states]
    assert [state.stable for state in first.states] == [None, None]
    assert [state.stable for state in again.states] == [True, True]
    assert "cycle" not in capsys.readouterr().err


def test_small_basis_guess_gives_the_same_state(cache):
    settings = SCFSettings("b3lyp", "6-31g", grid_level=1)
    energies = []
    for guess_basis in (None, "sto-3g"):
        runner = StateRunner(
            Workspace(h_he_h(1.5), settings), ((0,), (2,)), (0.5, 0.5), cache, guess_basis=guess_basis, stability=False
        )
        state, _ = runner.run((1, 1))
        energies.append(state.energy_hartree)
        assert state.guess == ("small basis" if guess_basis else "minao")
    assert energies[0] == pytest.approx(energies[1], abs=1e-8)


def test_labels_show_the_alignment():
    assert state_label((1, 1)) == "high-spin state ↑↑"
    assert state_label((1, -1, 1)) == "broken-symmetry state ↑↓↑"


def test_promotion_counts_moved_electrons_and_no_turned_spins():
    orbitals = np.linalg.qr(np.random.default_rng(5).standard_normal((6, 6)))[0]
    overlap = np.eye(6)
    ground = density_of(orbitals[:, :3], orbitals[:, :1])
    turned = density_of(orbitals[:, :2], orbitals[:, [0, 2]])
    excited = density_of(orbitals[:, [0, 1, 4]], orbitals[:, :1])
    assert promotion(ground, ground, overlap) == pytest.approx(0, abs=1e-12)
    assert promotion(ground, turned, overlap) == pytest.approx(0, abs=1e-12)
    assert promotion(ground, excited, overlap) == pytest.approx(1)
    assert promotion(turned, density_of(orbitals[:, :2], orbitals[:, [3, 4]]), overlap) == pytest.approx(2)


def test_aligning_undoes_a_flip():
    orbitals = np.linalg.qr(np.random.default_rng(6).standard_normal((8, 8)))[0]
    high_spin = density_of(orbitals[:, :4], orbitals[:, :2])
    flipped = density_of(orbitals[:, :3], orbitals[:, [0, 1, 3]])
    coefficients = np.array([flipped.mo_coeff[0], flipped.mo_coeff[1]])
    again = guesses.aligned_density(coefficients, np.asarray(flipped.mo_occ), np.eye(8), 1)
    assert np.asarray(again) == pytest.approx(np.asarray(high_spin))


def test_states_of_other_occupation_are_refused_and_a_lower_high_spin_state_takes_over(tmp_path, monkeypatch):
    workspace = Workspace(h2(3.0), SCFSettings(xc="hf", basis="6-31g"))
    runner = StateRunner(workspace, ((0,), (1,)), (0.5, 0.5), Cache(tmp_path), stability=False)
    _, high = runner.run((1, 1))
    _, broken = runner.run((1, -1))
    monkeypatch.setattr(broken_symmetry, "PROMOTION_LIMIT", -1.0)
    state = runner.describe("broken-symmetry state ↑↓", (1, -1), broken)
    error = runner.failure(state, broken)
    assert isinstance(error, UnmatchedStatesError)
    assert "electrons move" in str(error)
    assert not runner.restart(error)  # the same high-spin state again: not lower
    runner.aligned_from, runner.high_spin = None, replace(high, energy_hartree=high.energy_hartree + 1.0)
    assert runner.restart(error)
    assert runner.high_spin.guess == "aligned"
    assert runner.high_spin.energy_hartree == pytest.approx(high.energy_hartree, abs=1e-7)
    assert runner.key((1, 1))["aligned_from"] == [1, -1]
    with pytest.raises(UnmatchedStatesError):
        exchange_couplings(h2(3.0), [[0], [1]], xc="hf", basis="6-31g", cache=Cache(tmp_path / "other"))


def test_polarisation_of_a_high_spin_determinant_is_its_contamination():
    field = scf.UHF(gto.M(atom="O 0 0 0; O 0 0 1.2", basis="sto-3g", spin=2, verbose=0)).run()
    found = spin_polarisation(np.asarray(field.mo_coeff), np.asarray(field.mo_occ), field.get_ovlp(), 0)
    assert found == pytest.approx(field.spin_square()[0] - 2, abs=1e-10)
    assert found > 1e-3


@pytest.mark.parametrize("polarised", ["high-spin", "broken-symmetry"])
def test_a_pair_polarised_in_different_ways_is_refused(cache, polarised):
    workspace = Workspace(h_he_h(2.0), SCFSettings(xc="hf", basis="6-31g"))
    runner = StateRunner(workspace, ((0,), (2,)), (0.5, 0.5), cache, stability=False)
    _, high = runner.run((1, 1))
    state, broken = runner.run((1, -1))
    assert runner.failure(state, broken) is None
    assert state.promoted_electrons == pytest.approx(promotion(high.density, broken.density, runner.overlap))
    (aligned, _), old = runner.run((1, 1)), state.to_dict()
    assert aligned.promoted_electrons is None
    assert aligned.polarisation == pytest.approx(aligned.s2 - 2)
    del old["promoted_electrons"], old["polarisation"]  # a file of before they were kept
    assert StateResult.from_dict(old) == replace(state, promoted_electrons=None, polarisation=None)

    def turned(solution, angle):  # the α electron of helium towards an empty orbital
        orbitals = solution.mo_coeff.copy()
        full, empty = orbitals[0, :, 0].copy(), orbitals[0, :, -1].copy()
        orbitals[0, :, 0], orbitals[0, :, -1] = (
            np.cos(angle) * full + np.sin(angle) * empty, np.cos(angle) * empty - np.sin(angle) * full,
        )  # fmt: skip
        return replace(solution, mo_coeff=orbitals)

    for angle, gap_cm1, refused in ((0.25, 28.0, True), (0.1, 28.0, False), (0.25, -28.0, True), (0.25, 200.0, False)):
        state = replace(state, energy_hartree=high.energy_hartree + gap_cm1 / HARTREE_TO_CM1)
        runner.high_spin = turned(high, angle) if polarised == "high-spin" else high
        error = runner.failure(state, broken if polarised == "high-spin" else turned(broken, angle))
        assert isinstance(error, UnmatchedStatesError) is refused
        if refused:
            assert f"the energies differ by only {gap_cm1:+.1f} cm^-1" in str(error)


def test_a_finished_state_is_checked_by_what_holds_now(cache, monkeypatch):
    def make():
        workspace = Workspace(h_he_h(1.5), SCFSettings("hf", "6-31g"))
        return StateRunner(workspace, ((0,), (2,)), (0.5, 0.5), cache, stability=False)

    state, _ = make().run((1, -1))
    assert make().run((1, -1))[0] == state
    monkeypatch.setattr(broken_symmetry, "PROMOTION_LIMIT", 0.001)
    for _ in range(2):
        with pytest.raises(UnmatchedStatesError, match="electrons move"):
            make().run((1, -1))
    monkeypatch.undo()
    assert make().run((1, -1))[0].energy_hartree == pytest.approx(state.energy_hartree, abs=1e-8)


def test_a_wrong_end_is_nothing_to_go_on_with(cache):
    """Other solvers start from the guess, not from the closed shell that the first ones found."""
    workspace = Workspace(h2(1.3), SCFSettings("hf", "6-31g"))
    for solvers in (("diis",), ("newton",)):
        runner = StateRunner(
            workspace, ((0,), (1,)), (0.5, 0.5), cache, guesses=("swap",), solvers=solvers, stability=False
        )
        with pytest.raises(WrongStateError):
            runner.run((1, -1))
        assert not (cache.work_folder(runner.key((1, -1))) / "orbitals.npz").exists()


@pytest.mark.parametrize(("n_centres", "distance"), [(3, 1.25), (4, 1.35)])
def test_overlap_with_every_neighbour_is_no_wrong_state(n_centres, distance, cache):
    n = 2 * n_centres - 1
    chain = Molecule(("H", "He") * (n_centres - 1) + ("H",), [(0.0, 0.0, distance * i) for i in range(n)])
    centres = [[2 * i] for i in range(n_centres)]
    found = exchange_couplings(chain, centres, basis="6-31g", stability=False, cache=cache)
    neighbours = np.diag(found.j_yamaguchi_cm1, 1)
    assert np.all(neighbours < -100)
    assert neighbours == pytest.approx(np.full(n_centres - 1, neighbours.mean()), rel=0.2)


def test_full_ci_in_a_basis_without_room_for_a_triplet_is_refused():
    helium = Molecule(("He",), ((0.0, 0.0, 0.0),))
    with pytest.raises(
        ValueError, match="`basis` must have a function for each of the 2 α electrons of multiplicity 3"
    ):
        full_ci_gap(helium, "sto-3g")
