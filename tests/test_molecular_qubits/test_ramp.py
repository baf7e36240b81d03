"""Fields by defect correction: their parts equal PySCF's, their end is that of the plain field."""

import numpy as np
import pytest
from pyscf.dft import numint

from molecular_qubits.electronic import fitted_exchange
from molecular_qubits.electronic import scf as scf_module
from molecular_qubits.electronic.exchange import exchange_couplings
from molecular_qubits.electronic.fitted_exchange import coulomb_and_exchange, one_pass
from molecular_qubits.electronic.ramp import CheapField
from molecular_qubits.electronic.scf import SCFSettings, Workspace, make_grids, run_scf
from molecular_qubits.fields.guesses import density_of
from molecular_qubits.fields.xc_blocks import BlockedXC, shell_reach, supports
from molecular_qubits.structure.molecule import Molecule
from shared.artifacts import Cache

NITROXIDE = Molecule(
    ("O", "N", "H", "C", "H", "H", "H"),
    (
        (0.0, 1.18, 0.1), (0.0, -0.08, 0.0), (0.9, -0.62, 0.1), (-1.25, -0.75, -0.05), (-1.2, -1.5, 0.75),
        (-1.35, -1.25, -1.0), (-2.1, -0.08, 0.08),
    ),
)  # fmt: skip
"""Methylnitroxide, near its geometry."""


@pytest.fixture(scope="module")
def workspace():
    return Workspace(NITROXIDE, SCFSettings(basis="6-31g*", grid_level=1, density_fit=True, conv_tol=1e-8, ramp=True))


@pytest.fixture(scope="module")
def orbitals(workspace):
    field = workspace.mean_field(1)
    field.max_cycle = 3
    field.kernel()
    return [field.mo_coeff[spin][:, field.mo_occ[spin] > 0] for spin in (0, 1)]


@pytest.mark.parametrize("xc", ["lda,vwn", "pbe", "b3lyp", "r2scan", "cam-b3lyp"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-8), (np.float32, 1e-5)])
def test_blocks_give_the_energy_and_potential_of_pyscf(workspace, orbitals, xc, dtype, tolerance):
    from pyscf import dft

    mole, density = workspace.mole, np.asarray(density_of(*orbitals))
    grids = make_grids(mole, 1)
    electrons, energy, potential = BlockedXC(mole, xc, grids, dtype=dtype).potential(density)
    expected = dft.numint.NumInt().nr_uks(mole, grids, xc, density)
    assert electrons == pytest.approx(expected[0], abs=tolerance)
    assert energy == pytest.approx(expected[1], abs=tolerance)
    assert potential == pytest.approx(expected[2], abs=tolerance)


@pytest.mark.parametrize("xc", ["pbe", "r2scan"])
def test_potential_is_the_derivative_of_the_energy(workspace, orbitals, xc):
    blocks = BlockedXC(workspace.mole, xc, make_grids(workspace.mole, 0))
    density = np.asarray(density_of(*orbitals))
    change = np.random.default_rng(3).standard_normal(density.shape)
    change = (change + change.transpose(0, 2, 1)) * 1e-3
    potential = blocks.potential(density)[2]
    step = 1e-3
    up, down = (blocks.potential(density + sign * step * change, matrix=False)[1] for sign in (1, -1))
    assert (up - down) / (2 * step) == pytest.approx(float(np.sum(potential * change)), rel=1e-6)


def test_every_point_is_in_one_block_and_far_shells_are_left_out(workspace):
    chain = Workspace(Molecule(("H",) * 6, [(0.0, 0.0, 4.0 * i) for i in range(6)]), SCFSettings(basis="6-31g"))
    blocks = BlockedXC(chain.mole, "pbe", make_grids(chain.mole, 0))
    assert np.array_equal(np.concatenate([range(b.first, b.last) for b in blocks.blocks]), range(len(blocks.weights)))
    assert min(len(block.orbitals) for block in blocks.blocks) < chain.mole.nao
    assert sorted(map(tuple, blocks.coords)) == sorted(map(tuple, make_grids(chain.mole, 0).coords))
    tight, loose = shell_reach(chain.mole, 1e-9), shell_reach(chain.mole, 1e-4)
    assert np.all(tight > loose)


def test_kept_orbitals_give_the_same_result(workspace, orbitals):
    blocks = BlockedXC(workspace.mole, "pbe", make_grids(workspace.mole, 0), dtype=np.float32, keep_bytes=np.inf)
    density = np.asarray(density_of(*orbitals))
    first, again = blocks.potential(density), blocks.potential(density)
    assert np.array_equal(first[2], again[2])
    assert sum(value.nbytes for group in blocks._kept for value in group) == blocks.n_bytes


def test_coulomb_and_exchange_in_single_precision_are_those_of_pyscf(workspace, orbitals, monkeypatch):
    from pyscf import df, lib

    fit, density = df.DF(workspace.mole).build(), density_of(*orbitals)
    total = np.asarray(density[0] + density[1])
    expected_coulomb, expected = fit.get_jk(density)[0].sum(axis=0), fit.get_jk(density, with_j=False)[1]
    coulomb, exchange = coulomb_and_exchange(fit, total, orbitals)
    assert exchange == pytest.approx(expected, abs=1e-5)
    assert coulomb == pytest.approx(expected_coulomb, abs=1e-10)
    monkeypatch.setattr(fitted_exchange, "BATCH_BYTES", 100_000)  # several of them, each in several shares
    monkeypatch.setattr(fitted_exchange, "SHARE_BYTES", 30_000)
    coulomb, found = coulomb_and_exchange(fit, total, orbitals)
    assert found == pytest.approx(expected, abs=1e-5)
    assert coulomb == pytest.approx(expected_coulomb, abs=1e-10)
    threads = lib.num_threads()
    with lib.with_omp_threads(threads + 1):
        for one, other in zip(coulomb_and_exchange(fit, total, orbitals), (coulomb, found), strict=True):
            assert np.array_equal(one, other)
    for nothing in coulomb_and_exchange(fit, None, [np.zeros((workspace.mole.nao, 0))] * 2):
        assert not nothing.any()


def test_exchange_without_that_among_unoccupied_orbitals_has_the_same_gradient(workspace, orbitals):
    from pyscf import df

    fit, overlap = df.DF(workspace.mole).build(), workspace.mole.intor_symmetric("int1e_ovlp")
    whole = coulomb_and_exchange(fit, None, orbitals, dtype=np.float64)[1]
    found = coulomb_and_exchange(fit, None, orbitals, dtype=np.float64, overlap=overlap)[1]
    for occupied, one, other in zip(orbitals, whole, found, strict=True):
        assert other == pytest.approx(other.T, abs=1e-12)
        assert other @ occupied == pytest.approx(one @ occupied, abs=1e-10)
        empty = np.eye(len(overlap)) - occupied @ occupied.T @ overlap
        assert empty.T @ other @ empty == pytest.approx(0.0, abs=1e-10)
        assert np.abs(empty.T @ one @ empty).max() > 0.1


def test_fields_of_one_pass_are_those_of_pyscf(workspace, orbitals):
    from pyscf import df, lib

    fit, density = df.DF(workspace.mole).build(), density_of(*orbitals)
    for omega in (None, 0.3, -0.3):
        ours = one_pass(df.DF(workspace.mole).build())  # PySCF's would share its range-separated part
        for expected, found in zip(fit.get_jk(density, omega=omega), ours.get_jk(density, omega=omega), strict=True):
            assert found == pytest.approx(expected, abs=1e-11)
    halves = lib.tag_array(np.asarray(density) / 2, mo_coeff=density.mo_coeff, mo_occ=density.mo_occ / 2)
    for expected, found in zip(fit.get_jk(halves), one_pass(fit).get_jk(halves), strict=True):
        assert found == pytest.approx(expected, abs=1e-11)
    assert one_pass(fit).get_jk(density, with_j=False)[0] is None
    for plain in (np.asarray(density), np.asarray(density[0])):  # without orbitals
        for expected, found in zip(fit.get_jk(plain), one_pass(fit).get_jk(plain), strict=True):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("xc", ["b3lyp", "cam-b3lyp", "hse06", "lrc-wpbe", "pbe"])
def test_the_cheap_field_is_close_to_that_of_pyscf(workspace, orbitals, xc):
    fields = Workspace(NITROXIDE, SCFSettings(xc=xc, grid_level=1, density_fit=True, conv_tol=1e-8, ramp=True))
    density = density_of(*orbitals)
    exact = fields.mean_field(1).get_veff(fields.mole, density)
    cheap = fields.cheap()(density)
    assert cheap.potential == pytest.approx(np.asarray(exact), abs=2e-5)
    assert cheap.coulomb == pytest.approx(float(exact.ecoul), abs=1e-4)
    assert cheap.exchange_correlation == pytest.approx(float(exact.exc), abs=1e-4)


@pytest.mark.parametrize("xc", ["b3lyp", "r2scan", "cam-b3lyp"])
@pytest.mark.parametrize("n_unpaired", [1, 3])
def test_the_end_is_that_of_the_plain_field(xc, n_unpaired):
    ends = []
    for ramp in (True, False):
        settings = SCFSettings(xc=xc, basis="6-31g", grid_level=3, density_fit=True, conv_tol=1e-9, ramp=ramp)
        ends.append(run_scf(Workspace(NITROXIDE, settings), n_unpaired, None, label="state", guess="minao"))
    assert ends[0].energy_hartree == pytest.approx(ends[1].energy_hartree, abs=2e-8)
    assert ends[0].density == pytest.approx(ends[1].density, abs=1e-3)


@pytest.mark.parametrize("xc", ["b3lyp", "r2scan", "cam-b3lyp"])
def test_second_order_steps_of_the_cheap_field_end_there_too(xc, monkeypatch):
    settings = SCFSettings(xc=xc, basis="6-31g", grid_level=3, density_fit=True, conv_tol=1e-9, ramp=True)
    usual = run_scf(Workspace(NITROXIDE, settings), 1, None, label="state", guess="minao")
    workspace = Workspace(NITROXIDE, settings)
    monkeypatch.setattr(numint.NumInt, "nr_uks_fxc", None)  # PySCF's own response
    found = run_scf(workspace, 1, None, label="state", guess="minao", solvers=("newton",))
    assert found.energy_hartree == pytest.approx(usual.energy_hartree, abs=2e-8)
    assert found.density == pytest.approx(usual.density, abs=1e-3)
    assert len(found.history) < len(usual.history)


def test_few_exact_fields_are_computed(monkeypatch):
    settings = SCFSettings(basis="6-31g", grid_level=3, density_fit=True, conv_tol=1e-8, ramp=True)
    workspace = Workspace(NITROXIDE, settings)
    calls = []
    potential = BlockedXC.potential
    monkeypatch.setattr(
        BlockedXC, "potential", lambda self, *a, **k: calls.append(self.dtype.itemsize) or potential(self, *a, **k)
    )
    solution = run_scf(workspace, 1, None, label="state", guess="minao")
    assert calls.count(8) <= 4  # the guess and one for each correction
    assert calls.count(4) >= solution.cycles


@pytest.mark.parametrize("xc", ["b3lyp", "cam-b3lyp"])
def test_integrals_in_a_file_have_the_grid_that_is_wanted_and_one_exact_field(xc, monkeypatch):
    settings = SCFSettings(xc=xc, basis="6-31g", grid_level=3, density_fit=True, conv_tol=1e-8, ramp=True)
    expected = run_scf(Workspace(NITROXIDE, settings), 1, None, label="state", guess="minao")
    monkeypatch.setattr(scf_module, "fit_limit_mb", lambda mole: 1.0)
    turns, converge = [], scf_module.ramp.converge
    monkeypatch.setattr(scf_module.ramp, "converge", lambda *a: turns.append(found := converge(*a)) or found)
    passes, once = [], fitted_exchange.coulomb_and_exchange

    def spied(fit, density, occupied, changes=None, *, dtype=np.float32, overlap=None):
        passes.append((np.dtype(dtype).itemsize, overlap is not None))
        return once(fit, density, occupied, changes, dtype=dtype, overlap=overlap)

    for module in (fitted_exchange, scf_module.ramp):
        monkeypatch.setattr(module, "coulomb_and_exchange", spied)
    in_file = Workspace(NITROXIDE, settings)
    found = run_scf(in_file, 1, None, label="state", guess="minao")
    assert in_file.cheap().coarse is False
    assert [end.turns for end in turns] == [1]
    assert found.energy_hartree == pytest.approx(expected.energy_hartree, abs=2e-8)
    sets = 1 if xc == "b3lyp" else 2
    assert passes.count((8, False)) == sets  # the exact field at the end; the guess has no orbitals
    assert passes.count((4, True)) == len(passes) - sets > 5


def test_orbitals_of_a_fine_grid_are_followed_further(monkeypatch):
    """`FINE_REACH`; its effect on the gradient shows in molecules too large for a test only."""
    pair = Molecule(("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 5.0)))
    settings = SCFSettings(basis="6-31g", grid_level=2, density_fit=True, conv_tol=1e-8, ramp=True)
    coarse = Workspace(pair, settings).cheap().xc_blocks
    monkeypatch.setattr(scf_module, "fit_limit_mb", lambda mole: 1e-3)
    workspace = Workspace(pair, settings)
    fine = workspace.cheap().xc_blocks
    short = BlockedXC(workspace.mole, "b3lyp", make_grids(workspace.mole, 2), dtype=np.float32)
    assert len(coarse.coords) < len(fine.coords) == len(short.coords)
    assert fine.n_bytes > 1.1 * short.n_bytes


def test_integrals_in_a_file_and_a_solvent_need_no_other_solver(monkeypatch):
    """Exact fields correct the cheap one in turns, without what it leaves out among unoccupied orbitals."""
    options = {"basis": "6-31g", "grid_level": 1, "density_fit": True, "conv_tol": 1e-8, "solvent_epsilon": 37.5}
    plain = Workspace(NITROXIDE, SCFSettings(**options))
    expected = run_scf(plain, 1, None, label="state", guess="minao")
    monkeypatch.setattr(scf_module, "fit_limit_mb", lambda mole: 1.0)
    found = run_scf(Workspace(NITROXIDE, SCFSettings(**options, ramp=True)), 1, None, label="state", guess="minao")
    assert found.solver == "diis"
    assert found.energy_hartree == pytest.approx(expected.energy_hartree, abs=2e-8)


def test_orbital_values_are_kept_only_where_there_is_room(workspace, orbitals, monkeypatch):
    grids, fit = make_grids(workspace.mole, 1), workspace.cheap().fit
    kept = CheapField(workspace.mole, "b3lyp", fit, grids, coarse=True)
    monkeypatch.setattr(scf_module.ramp, "available_memory_mb", lambda: 4 * kept.xc_blocks.n_bytes / 1e6)
    computed = CheapField(workspace.mole, "b3lyp", fit, grids, coarse=True)
    density = density_of(*orbitals)
    assert np.array_equal(kept(density).potential, computed(density).potential)
    assert kept.xc_blocks._kept
    assert not computed.xc_blocks._kept


def test_a_cheap_field_that_does_not_converge_leaves_the_ladder_to_go_on(monkeypatch):
    settings = SCFSettings(basis="sto-3g", grid_level=0, density_fit=True, conv_tol=1e-7, ramp=True)

    def without_exchange(self, density, occupied, changes=None, overlap=None):
        return self._coulomb(density), np.zeros((2, *density.shape))

    monkeypatch.setattr(CheapField, "_coulomb_and_exchange", without_exchange)
    monkeypatch.setattr(scf_module.ramp, "MAX_TURNS", 1)
    found = run_scf(Workspace(NITROXIDE, settings), 1, None, label="state", guess="minao")
    assert found.solver == "newton"


@pytest.mark.parametrize("settings", [{"density_fit": False}, {"xc": "hf"}, {"xc": "wb97x-v"}, {"conv_tol": 1e-12}])
def test_a_ramp_that_cannot_be_is_refused(settings):
    with pytest.raises(ValueError, match="ramp"):
        SCFSettings(**{"density_fit": True, "ramp": True, **settings})
    assert not supports("wb97x-v")
    assert supports("b3lyp")


@pytest.mark.parametrize(("basis", "guess"), [("sto-3g", "minao"), ("6-31g", "small basis")])
def test_ramped_fields_start_in_a_smaller_basis(basis, guess, tmp_path):
    stretched = Molecule(("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 3.0)))
    cache = Cache(tmp_path, name="scf")
    result = exchange_couplings(
        stretched, [[0], [1]], basis=basis, density_fit=True, ramp=True, stability=False, cache=cache
    )
    assert result.states[0].guess == guess
