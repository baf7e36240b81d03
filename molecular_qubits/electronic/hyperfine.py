"""Hyperfine couplings of a determinant: Fermi contact and dipolar part for every nucleus with a spin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from molecular_qubits.electronic.high_spin import check_high_spin_density
from molecular_qubits.fields.populations import checked_density
from molecular_qubits.structure.elements import ELEMENTS
from molecular_qubits.structure.interfaces import isotope_labels
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.nuclei import DEFAULT_ISOTOPES, ISOTOPES, electron_scale_g
from molecular_qubits.structure.pyscf_input import build_mole
from molecular_qubits.units import CM1_TO_GHZ, FINE_STRUCTURE, G_ELECTRON, HARTREE_TO_CM1, MU_B_CM1_PER_T
from shared.config import suggestion

PROTON_ELECTRON_MASS_RATIO = 1836.152673426
"""CODATA 2022."""


@dataclass(frozen=True)
class HyperfineCoupling:
    """Hyperfine tensor of one nucleus, H = S.A.I, with S the total spin of the determinant: see `of_site`.

    ``tensor_mhz`` is (3, 3), symmetric, in the frame of the coordinates; its isotropic part is the Fermi contact term.
    ``spin_density_per_bohr3`` is ρ_α - ρ_β at the nucleus.
    """

    atom: int
    isotope: str
    nuclear_spin: float
    nuclear_g: float
    spin_density_per_bohr3: float
    tensor_mhz: np.ndarray

    @property
    def isotropic_mhz(self) -> float:
        """Fermi contact coupling, a third of the trace."""
        return float(np.trace(self.tensor_mhz)) / 3

    @property
    def dipolar_mhz(self) -> np.ndarray:
        """Traceless part of the tensor (3, 3)."""
        return self.tensor_mhz - self.isotropic_mhz * np.eye(3)

    @property
    def isotropic_mt(self) -> float:
        """Fermi contact coupling as a field, A / (g_e μ_B), in mT."""
        return mhz_to_mt(self.isotropic_mhz)

    @property
    def tensor_cm1(self) -> np.ndarray:
        """Tensor in cm^-1: what `SpinSystem` takes as ``dipolar`` between an electron spin and the nuclear spin, where
        the electron spin is the only one of the determinant; `of_site` gives that of one spin of several.
        """
        return self.tensor_mhz / (1e3 * CM1_TO_GHZ)

    def of_site(self, spin: float, total_spin: float) -> HyperfineCoupling:
        """Return the coupling to the spin of one centre, where this is that to the total spin of several.

        The centres' spins are all up, and the spin at the nucleus is that of the one centre. In their multiplet
        S_i = S S_i/S_total, so that the tensor of the centre is that of the total spin times S_total/S_i.

        Parameters
        ----------
        spin, total_spin
            Spin of the centre that the nucleus belongs to, and the sum of all.

        Raises
        ------
        ValueError
            If a spin is not positive, or that of the centre is larger than the total one.
        """
        if not 0 < spin <= total_spin:
            raise ValueError(f"Argument `spin` must be above 0 and at most {total_spin:g}, the total, but is {spin}.")
        return replace(self, tensor_mhz=self.tensor_mhz * (total_spin / spin))

    @property
    def site_g(self) -> float:
        """Return the g factor of the nuclear spin as a site of `SpinSystem`, with +μ_B B.g.S: -g_N m_e/m_p."""
        return electron_scale_g(self.nuclear_g)


def mhz_to_mt(coupling_mhz: float, g: float = G_ELECTRON) -> float:
    """Convert a hyperfine coupling from MHz to mT, A h / (g μ_B)."""
    return coupling_mhz / (g * MU_B_CM1_PER_T * CM1_TO_GHZ)  # MHz / (GHz/T) = mT


def hyperfine_couplings(
    molecule: Molecule, basis: str, density: np.ndarray, *, isotopes: Mapping[int, str] | None = None
) -> tuple[HyperfineCoupling, ...]:
    """Compute the hyperfine tensors of an unrestricted high-spin determinant.

    In first order, with S = (n_α - n_β) / 2 and P = P_α - P_β,

        A_kl = (g_e μ_B g_N μ_N / 2S) [ (8π/3) ρ_s(R_N) δ_kl + sum P_μν <μ| (3 r_k r_l - δ_kl r²) / r⁵ |ν> ].

    Spin-orbit coupling and the finite mass of the nucleus are left out (a hydrogen atom has 1422.8 MHz so; 1420.4 is
    measured). The contact term needs a basis with steep s functions.

    Parameters
    ----------
    molecule
        The molecule of the determinant.
    basis
        Its basis set.
    density
        Density matrices of α and β ``(2, n_ao, n_ao)`` with n_α > n_β.
    isotopes
        Isotope of single atoms, e.g. ``{0: "15N"}``; for the others that of the SMILES (``[2H]``), else
        `DEFAULT_ISOTOPES`.

    Returns
    -------
    tuple of HyperfineCoupling
        One for each atom with a nuclear spin (all but argon and labels such as ``[12C]``), in the order of the atoms; S
        is the total spin.

    Raises
    ------
    ValueError
        If the density does not fit the molecule, has no unpaired electron or is of a broken-symmetry state, an isotope
        is unknown or of another element, or the SMILES labels isotopes of a molecule that has its atoms in another
        order.

    References
    ----------
    Abragam, Bleaney, Electron Paramagnetic Resonance of Transition Ions (1970), chapter 17. For UKS: Neese, J. Chem.
    Phys. 118, 3939 (2003).
    """
    mole = build_mole(molecule, basis, molecule.n_electrons % 2)
    density = checked_density(density, mole, basis)
    difference = density[0] - density[1]
    overlap = mole.intor_symmetric("int1e_ovlp")
    unpaired = round(float(np.einsum("ij,ji->", difference, overlap)))
    if unpaired < 1:
        raise ValueError(f"Argument `density` must have more α than β electrons, but has {unpaired} more.")
    check_high_spin_density(density, overlap, unpaired)
    chosen = _isotopes(molecule, isotopes or {})
    couplings = []
    for atom, isotope in chosen.items():
        spin, g_nuclear = ISOTOPES[isotope].spin, ISOTOPES[isotope].g_factor
        values = mole.eval_gto("GTOval_sph", mole.atom_coord(atom)[None])[0]
        at_nucleus = float(values @ difference @ values)
        gradient = _field_gradient(mole, atom, difference)
        scale = G_ELECTRON * g_nuclear * FINE_STRUCTURE**2 / 4 / PROTON_ELECTRON_MASS_RATIO / unpaired
        tensor = scale * (8 * math.pi / 3 * at_nucleus * np.eye(3) + gradient) * HARTREE_TO_CM1 * CM1_TO_GHZ * 1e3
        couplings.append(HyperfineCoupling(atom, isotope, spin, g_nuclear, at_nucleus, tensor))
    return tuple(couplings)


def _field_gradient(mole: object, atom: int, difference: np.ndarray) -> np.ndarray:
    """Return sum P_μν <μ|(3 r_k r_l - δ_kl r²)/r⁵|ν> about a nucleus, (3, 3), in bohr^-3.

    It is the traceless part of <μ|∂_k ∂_l (1/r)|ν>, with the derivatives moved to the orbitals by parts.
    """
    with mole.with_rinv_at_nucleus(atom):  # type: ignore[attr-defined]
        both = mole.intor("int1e_ipiprinv", comp=9).reshape(3, 3, *difference.shape)  # type: ignore[attr-defined]
        each = mole.intor("int1e_iprinvip", comp=9).reshape(3, 3, *difference.shape)  # type: ignore[attr-defined]
    tensor = 2 * np.einsum("xyij,ij->xy", both, difference) + 2 * np.einsum("xyij,ij->xy", each, difference)
    tensor = (tensor + tensor.T) / 2
    return tensor - np.trace(tensor) / 3 * np.eye(3)


def _isotopes(molecule: Molecule, given: Mapping[int, str]) -> dict[int, str]:
    chosen = {
        atom: DEFAULT_ISOTOPES[symbol] for atom, symbol in enumerate(molecule.symbols) if symbol in DEFAULT_ISOTOPES
    }
    labels = isotope_labels(molecule)
    if labels is None and not given:
        raise ValueError(
            f"Argument `isotopes` must be given: the SMILES {molecule.smiles!r} labels some, but the molecule has its "
            "atoms in another order."
        )
    for atom, mass in (labels or {}).items():
        symbol = molecule.symbols[atom]
        if f"{mass}{symbol}" in ISOTOPES:
            chosen[atom] = f"{mass}{symbol}"
        elif mass % 2 == 0 and ELEMENTS[symbol] % 2 == 0:  # no nuclear spin
            chosen.pop(atom, None)
        elif atom not in given:
            raise ValueError(
                f"Argument `isotopes` must be given for atom {atom}: the moment of its {mass}{symbol} is not known."
            )
    for atom, isotope in given.items():
        if not 0 <= atom < molecule.n_atoms:
            raise ValueError(
                f"Argument `isotopes` must have atom indices from 0 to {molecule.n_atoms - 1}, but has {atom}."
            )
        if isotope not in ISOTOPES:
            raise ValueError(
                f"Argument `isotopes` must hold nuclei with a spin such as '15N', but holds {isotope!r}."
                f"{suggestion(isotope, ISOTOPES)}"
            )
        if isotope.lstrip("0123456789") != molecule.symbols[atom]:
            raise ValueError(
                f"Argument `isotopes` must fit the elements, but atom {atom} is {molecule.symbols[atom]}, "
                f"not {isotope}."
            )
        chosen[atom] = isotope
    return dict(sorted(chosen.items()))
