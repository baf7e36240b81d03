"""Stability by the cheap field's linear response, against PySCF's orbital Hessian."""

import numpy as np
import pytest
from pyscf.soscf.newton_ah import gen_g_hop_uhf

from molecular_qubits.electronic.scf import SCFSettings, Workspace, is_stable, run_scf
from molecular_qubits.electronic.stability import lowest_curvature, orbital_hessian
from molecular_qubits.structure.molecule import Molecule


def field(symbols, coordinates, n_unpaired, xc):
    settings = SCFSettings(xc, "6-31g*", grid_level=1, density_fit=True, ramp=True, conv_tol=1e-9)
    workspace = Workspace(Molecule(symbols, np.array(coordinates)), settings)
    solution = run_scf(workspace, n_unpaired, None, label="field", guess="minao")
    core = workspace.mean_field(n_unpaired, bare=True).get_hcore()
    return workspace, solution, (workspace.cheap(), core, solution.mo_coeff, solution.mo_occ)


@pytest.mark.parametrize("xc", ["lda,vwn", "pbe", "b3lyp", "cam-b3lyp", "hse06", "r2scan"])
def test_products_are_those_of_pyscf(xc):
    workspace, solution, arguments = field(("O", "H"), [[0, 0, 0], [0, 0.2, 0.95]], 1, xc)
    product, diagonal, sizes = orbital_hessian(*arguments)
    assert sum(sizes) == len(diagonal)
    theirs = gen_g_hop_uhf(workspace.mean_field(1), solution.mo_coeff, solution.mo_occ, with_symmetry=False)
    vector = np.random.default_rng(0).normal(size=len(diagonal))
    wanted = 2.0 * theirs[1](vector)
    np.testing.assert_allclose(product(vector), wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(diagonal, 2.0 * theirs[2], atol=1e-3)


def test_the_lowest_curvature_is_that_of_the_whole_hessian():
    workspace, solution, arguments = field(("O", "H"), [[0, 0, 0], [0, 0.2, 0.95]], 1, "b3lyp")
    product, diagonal, _ = orbital_hessian(*arguments)
    hessian = np.array([product(row) for row in np.eye(len(diagonal))])
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-5)
    assert lowest_curvature(*arguments) == pytest.approx(np.linalg.eigvalsh(hessian)[0], abs=1e-3)
    assert is_stable(workspace, solution)


@pytest.mark.parametrize(("distance", "stable"), [(1.0, True), (3.0, False)])
def test_a_stretched_bond_breaks_the_symmetry_of_the_spins(distance, stable):
    workspace, solution, arguments = field(("H", "H"), [[0, 0, 0], [0, 0, distance]], 0, "b3lyp")
    assert is_stable(workspace, solution) is stable
    assert (lowest_curvature(*arguments) > 0.1) is stable


def test_a_field_without_rotations_has_no_curvature():
    settings = SCFSettings("b3lyp", "sto-3g", grid_level=1, density_fit=True, ramp=True, conv_tol=1e-9)
    workspace = Workspace(Molecule(("H", "H"), np.array([[0, 0, 0], [0, 0, 3.0]])), settings)
    assert is_stable(workspace, run_scf(workspace, 2, None, label="triplet", guess="minao"))
