"""Hyperfine couplings: hydrogen atom, point dipoles, rotations, the methyl radical and the spin system."""

import math
from functools import cache

import numpy as np
import pytest
from pyscf.data import nucprop
from rdkit import Chem
from scipy.spatial.transform import Rotation

from molecular_qubits.electronic.hyperfine import (
    PROTON_ELECTRON_MASS_RATIO,
    hyperfine_couplings,
    mhz_to_mt,
)
from molecular_qubits.electronic.scf import SCFSettings, Workspace, run_scf
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import point_dipole_tensor
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.nuclei import DEFAULT_ISOTOPES, ISOTOPES
from molecular_qubits.structure.pyscf_input import build_mole
from molecular_qubits.units import CM1_TO_GHZ, FINE_STRUCTURE, G_ELECTRON, HARTREE_TO_CM1

H = Molecule(("H",), ((0.0, 0.0, 0.0),))
_ANGLES = np.radians([0, 120, 240])
CH3 = Molecule(
    ("C", "H", "H", "H"), ((0.0, 0.0, 0.0), *((1.079 * math.cos(a), 1.079 * math.sin(a), 0.0) for a in _ANGLES))
)


@cache
def radical_density(molecule, basis, xc="hf"):
    workspace = Workspace(molecule, SCFSettings(xc=xc, basis=basis, conv_tol=1e-11))
    return run_scf(workspace, 1, None, label="state", guess="minao").density


def hydrogen_atom_mhz():
    """Contact coupling of a 1s orbital at an infinitely heavy proton, ρ = 1/π per bohr³."""
    scale = G_ELECTRON * ISOTOPES["1H"].g_factor * FINE_STRUCTURE**2 / 4 / PROTON_ELECTRON_MASS_RATIO
    return scale * 8 / 3 * HARTREE_TO_CM1 * CM1_TO_GHZ * 1e3


def test_the_hydrogen_atom_goes_to_its_analytic_value_with_the_basis():
    """1422.8 MHz; with the reduced mass of the proton, (1 + m_e/m_p)^-3, the measured 1420.4 MHz to 1e-4."""
    limit = hydrogen_atom_mhz()
    assert limit * (1 + 1 / PROTON_ELECTRON_MASS_RATIO) ** -3 == pytest.approx(1420.405752, rel=1e-4)
    errors = []
    for steepest in (10.0, 1e3, 1e7):
        exponents = [float(0.05 * 2.2**k) for k in range(40) if 0.05 * 2.2**k < steepest]
        basis = {"H": [[0, [exponent, 1.0]] for exponent in exponents]}
        density = radical_density_of_basis(basis)
        errors.append(abs(hyperfine_with(basis, density) / limit - 1))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 5e-4


def radical_density_of_basis(basis):
    from pyscf import scf

    field = scf.UHF(build_mole(H, basis, 1))
    field.conv_tol = 1e-12
    field.chkfile = None
    field.kernel()
    field._chkfile.close()
    return field.make_rdm1()


def hyperfine_with(basis, density):
    (coupling,) = hyperfine_couplings(H, basis, density)
    assert np.abs(coupling.dipolar_mhz).max() < 1e-6  # a sphere
    assert coupling.isotropic_mt == pytest.approx(mhz_to_mt(coupling.isotropic_mhz))
    return coupling.isotropic_mhz


def test_a_distant_nucleus_feels_a_point_dipole():
    """The electron of a hydrogen atom far from a helium nucleus, whose closed shell adds nothing."""
    molecule = Molecule(("H", "He"), ((0.0, 0.0, 0.0), (3.0, -4.0, 12.0)))
    density = radical_density(molecule, "6-31g")
    coupling = hyperfine_couplings(molecule, "6-31g", density)[1]
    assert coupling.isotope == "3He"
    # in S_i.D.S_j with the g factors of the electron and of the site; the electron's Zeeman sign is that of the site g
    law = point_dipole_tensor(molecule.positions[1], G_ELECTRON, coupling.site_g) * CM1_TO_GHZ * 1e3
    assert np.allclose(coupling.dipolar_mhz, law, atol=1e-6 * np.abs(law).max())
    assert np.abs(law).max() > 1e-3


def test_the_tensor_turns_with_the_molecule():
    rotation = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    density = radical_density(CH3, "6-31g")
    turned = CH3.with_positions(CH3.positions @ rotation.T + 2.0)
    blocks = np.eye(density.shape[1])
    labels = build_mole(CH3, "6-31g", 1).ao_labels()
    for first in (i for i, label in enumerate(labels) if label.rstrip().endswith("px")):
        blocks[first : first + 3, first : first + 3] = rotation
    pairs = zip(
        hyperfine_couplings(CH3, "6-31g", density),
        hyperfine_couplings(turned, "6-31g", blocks @ density @ blocks.T),
        strict=True,
    )
    for before, after in pairs:
        assert np.allclose(after.tensor_mhz, rotation @ before.tensor_mhz @ rotation.T, atol=1e-6)


def test_dipolar_integrals_agree_with_a_quadrature_on_a_becke_grid():
    from pyscf.dft import gen_grid, numint

    density = radical_density(CH3, "6-31g")
    mole = build_mole(CH3, "6-31g", 1)
    grid = gen_grid.Grids(mole)
    grid.level = 5
    grid.build()
    values = numint.eval_ao(mole, grid.coords)
    weight = numint.eval_rho(mole, values, density[0] - density[1]) * grid.weights
    proton = hyperfine_couplings(CH3, "6-31g", density)[1]
    r = grid.coords - mole.atom_coord(1)
    distance = np.linalg.norm(r, axis=1)
    kernel = 3 * r[:, :, None] * r[:, None, :] / distance[:, None, None] ** 5 - np.eye(3) / distance[:, None, None] ** 3
    far = distance > 1e-4  # inside, the l = 2 part of the density vanishes as r²
    expected = np.einsum("p,pxy->xy", weight[far], kernel[far])
    expected *= hydrogen_atom_mhz() * 3 / 8
    assert np.allclose(proton.dipolar_mhz, expected, atol=0.05)


def test_methyl_has_the_measured_signs_and_sizes():
    """ESR of CH3: a(H) = -2.3 mT, a(13C) = +3.8 mT, 1 mT of it from the out-of-plane motion; here CH3 is flat."""
    couplings = hyperfine_couplings(CH3, "iglo3", radical_density(CH3, "iglo3", "b3lyp"))
    carbon, *protons = couplings
    assert 2.5 < carbon.isotropic_mt < 3.5
    assert [proton.isotropic_mt for proton in protons] == pytest.approx([protons[0].isotropic_mt] * 3, abs=1e-3)
    assert -2.6 < protons[0].isotropic_mt < -1.9
    axis = np.linalg.eigh(carbon.dipolar_mhz)[1][:, 2]  # largest along the p orbital
    assert abs(axis[2]) == pytest.approx(1, abs=1e-6)


def test_a_coupling_feeds_the_spin_system():
    """Zero field: singlet-triplet splitting A of an isotropic electron-proton pair."""
    (coupling,) = hyperfine_couplings(H, "6-31g", radical_density(H, "6-31g"))
    system = SpinSystem((0.5, 0.5), g=(G_ELECTRON, coupling.site_g), dipolar={(0, 1): coupling.tensor_cm1})
    levels = np.linalg.eigvalsh(system.hamiltonian_matrix(0.0)) / (2 * math.pi) * 1e3  # rad/ns to MHz
    assert levels[1:] - levels[0] == pytest.approx([coupling.isotropic_mhz] * 3, rel=1e-9)


def test_the_coupling_to_one_spin_of_several_is_that_of_the_lone_centre():
    """Two hydrogen atoms 12 Å apart, as a triplet."""
    pair = Molecule(("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 12.0)))
    workspace = Workspace(pair, SCFSettings(xc="hf", basis="6-31g", conv_tol=1e-11))
    triplet = run_scf(workspace, 2, None, label="triplet", guess="minao").density
    (alone,) = hyperfine_couplings(H, "6-31g", radical_density(H, "6-31g"))
    of_total = hyperfine_couplings(pair, "6-31g", triplet)[0]
    assert of_total.isotropic_mhz == pytest.approx(alone.isotropic_mhz / 2, rel=1e-6)
    assert of_total.of_site(0.5, 1.0).isotropic_mhz == pytest.approx(alone.isotropic_mhz, rel=1e-6)
    with pytest.raises(ValueError, match=r"Argument `spin` must be above 0 and at most 1, .* but is 1\.5"):
        of_total.of_site(1.5, 1.0)


def test_bromine_has_its_coupling():
    bromine = Molecule(("Br",), ((0.0, 0.0, 0.0),))
    (coupling,) = hyperfine_couplings(bromine, "def2-svp", radical_density(bromine, "def2-svp"))
    assert (coupling.isotope, coupling.nuclear_spin) == ("79Br", 1.5)


def test_nuclear_g_factors_agree_with_another_table():
    """The table that comes with PySCF."""
    for symbol, isotope in DEFAULT_ISOTOPES.items():
        assert isotope.endswith(symbol)
        found = nucprop.get_nuc_g_factor(symbol, int(isotope[: -len(symbol)]))
        assert ISOTOPES[isotope].g_factor == pytest.approx(found, rel=2e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"isotopes": {0: "12C"}}, r"such as '15N', but holds '12C'\. Did you mean"),
        ({"isotopes": {0: "1H"}}, "atom 0 is C, not 1H"),
        ({"isotopes": {9: "1H"}}, "from 0 to 3, but has 9"),
        ({"basis": "sto-3g"}, "`density` must have shape"),
        ({"density": np.zeros((2, 15, 15))}, "`density` must hold the 9 electrons of the molecule, but holds 0.00"),
        ({"density": radical_density(CH3, "6-31g")[::-1]}, "more α than β"),
    ],
)
def test_bad_input_names_the_argument(change, message):
    arguments = {"basis": "6-31g", "density": radical_density(CH3, "6-31g")} | change
    with pytest.raises(ValueError, match=message):
        hyperfine_couplings(CH3, **arguments)


def test_isotopes_can_be_chosen():
    density = radical_density(CH3, "6-31g")
    light, heavy = (hyperfine_couplings(CH3, "6-31g", density, isotopes={1: name})[1] for name in ("1H", "2H"))
    assert heavy.nuclear_spin == 1
    assert heavy.isotropic_mhz / light.isotropic_mhz == pytest.approx(0.1535060, rel=1e-5)  # γ(D)/γ(H)


def test_isotopes_of_a_smiles_are_taken():
    labelled = Molecule.from_smiles("[2H][12CH2]")
    density = radical_density(labelled, "sto-3g")
    assert [coupling.isotope for coupling in hyperfine_couplings(labelled, "sto-3g", density)] == ["2H", "1H", "1H"]
    chosen = hyperfine_couplings(labelled, "sto-3g", density, isotopes={0: "3H", 1: "13C"})
    assert [coupling.isotope for coupling in chosen] == ["3H", "13C", "1H", "1H"]
    order = [1, 2, 0, 3]
    mol = Chem.RenumberAtoms(labelled.to_rdkit(), order)
    shuffled = Molecule.from_rdkit(mol)
    with pytest.raises(ValueError, match=r"`isotopes` must be given: the SMILES .* labels some"):
        hyperfine_couplings(shuffled, "sto-3g", radical_density(shuffled, "sto-3g"))
    unknown = Molecule.from_smiles("[15CH3]")
    with pytest.raises(ValueError, match="for atom 0: the moment of its 15C is not known"):
        hyperfine_couplings(unknown, "sto-3g", radical_density(unknown, "sto-3g"))
