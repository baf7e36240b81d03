"""Stability of a field, by the cheap field's linear response too, against PySCF's whole orbital Hessian."""

import numpy as np
import pytest
from pyscf.soscf.newton_ah import gen_g_hop_uhf

from molecular_qubits.electronic.scf import SCFSettings, Workspace, is_stable, orbital_hessian, run_scf
from molecular_qubits.fields.stability import (
    OrbitalHessian,
    StabilityNotDecidedError,
    is_minimum,
    lowest_mode,
    pyscf_hessian,
    rotated,
)
from molecular_qubits.structure.molecule import Molecule


def field(symbols, coordinates, n_unpaired, xc):
    settings = SCFSettings(xc, "6-31g*", grid_level=1, density_fit=True, ramp=True, conv_tol=1e-9)
    workspace = Workspace(Molecule(symbols, np.array(coordinates)), settings)
    solution = run_scf(workspace, n_unpaired, None, label="field", guess="minao")
    return workspace, solution


@pytest.mark.parametrize("xc", ["lda,vwn", "pbe", "b3lyp", "cam-b3lyp", "hse06", "r2scan"])
def test_products_are_those_of_pyscf(xc):
    workspace, solution = field(("O", "H"), [[0, 0, 0], [0, 0.2, 0.95]], 1, xc)
    hessian = orbital_hessian(workspace, solution)
    assert sum(hessian.sizes) == len(hessian.diagonal)
    theirs = gen_g_hop_uhf(workspace.mean_field(1), solution.mo_coeff, solution.mo_occ, with_symmetry=False)
    vector = np.random.default_rng(0).normal(size=len(hessian.diagonal))
    wanted = 2.0 * theirs[1](vector)
    np.testing.assert_allclose(hessian.product(vector), wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(hessian.diagonal, 2.0 * theirs[2], atol=1e-3)


@pytest.mark.parametrize("ours", [True, False])
def test_the_lowest_mode_is_that_of_the_whole_hessian(ours):
    workspace, solution = field(("O", "H"), [[0, 0, 0], [0, 0.2, 0.95]], 1, "b3lyp")
    orbitals = (solution.mo_coeff, solution.mo_occ)
    hessian = orbital_hessian(workspace, solution) if ours else pyscf_hessian(workspace.mean_field(1), *orbitals)
    whole = np.array([hessian.product(row) for row in np.eye(len(hessian.diagonal))])
    np.testing.assert_allclose(whole, whole.T, atol=1e-5)
    values, vectors = np.linalg.eigh(whole)
    curvature, mode = lowest_mode(hessian)
    assert curvature == pytest.approx(values[0], abs=1e-3)
    assert abs(mode @ vectors[:, 0]) == pytest.approx(1, abs=1e-3)
    assert is_stable(workspace, solution)  # the zero mode of its two degenerate states


def test_a_turn_of_the_orbitals_keeps_them_orthonormal_and_costs_half_the_curvature():
    workspace, solution = field(("O", "H"), [[0, 0, 0], [0, 0.2, 0.95]], 1, "b3lyp")
    hessian = pyscf_hessian(workspace.mean_field(1), solution.mo_coeff, solution.mo_occ)
    direction = np.random.default_rng(1).normal(size=len(hessian.diagonal))
    direction /= np.linalg.norm(direction)
    energies, angle = [], 0.02
    mean_field, overlap = workspace.mean_field(1), workspace.mole.intor_symmetric("int1e_ovlp")
    for factor in (-angle, 0.0, angle):
        turned = rotated(solution.mo_coeff, solution.mo_occ, factor * direction)
        for orbitals in turned:
            np.testing.assert_allclose(orbitals.T @ overlap @ orbitals, np.eye(orbitals.shape[1]), atol=1e-10)
        energies.append(mean_field.energy_tot(np.array([orbitals @ orbitals.T for orbitals in turned])))
    second = (energies[0] - 2 * energies[1] + energies[2]) / angle**2
    assert second == pytest.approx(direction @ hessian.product(direction), rel=0.02)


@pytest.mark.parametrize(("distance", "stable"), [(1.0, True), (3.0, False)])
def test_a_stretched_bond_breaks_the_symmetry_of_the_spins(distance, stable):
    workspace, solution = field(("H", "H"), [[0, 0, 0], [0, 0, distance]], 0, "b3lyp")
    assert is_stable(workspace, solution) is stable
    assert (lowest_mode(orbital_hessian(workspace, solution))[0] > 0.1) is stable
    assert is_minimum(pyscf_hessian(workspace.mean_field(0), solution.mo_coeff, solution.mo_occ)) is stable


def stiff_hessian(lowest, n=3000):
    """A Hessian whose lowest mode is spread over all excitations, which its diagonal does not tell."""
    diagonal = np.geomspace(1.0, 1e4, n)
    hidden = np.random.default_rng(1).choice([-1.0, 1.0], n) * np.sqrt(diagonal - lowest)
    scale = 1 / np.sum(hidden**2 / (diagonal - lowest))  # D - scale h h^T has the eigenvalue that is asked for
    return OrbitalHessian(lambda v: diagonal * v - scale * hidden * (hidden @ v), diagonal, (n // 2, n - n // 2))


def test_a_search_that_ends_early_decides_nothing(monkeypatch):
    monkeypatch.setattr("molecular_qubits.fields.stability.MAX_PRODUCTS", 10)
    with pytest.raises(StabilityNotDecidedError, match=r"after 10 products .* at most [0-9.]+ hartree"):
        is_minimum(stiff_hessian(-0.05))
    monkeypatch.setattr("molecular_qubits.electronic.scf.orbital_hessian", lambda *_: stiff_hessian(-0.05))
    assert is_stable(None, None) is None


def test_a_field_without_rotations_has_no_curvature():
    settings = SCFSettings("b3lyp", "sto-3g", grid_level=1, density_fit=True, ramp=True, conv_tol=1e-9)
    workspace = Workspace(Molecule(("H", "H"), np.array([[0, 0, 0], [0, 0, 3.0]])), settings)
    assert is_stable(workspace, run_scf(workspace, 2, None, label="triplet", guess="minao"))
