"""Singlet-triplet gap by full configuration interaction, the exact benchmark of small two-spin models."""

from __future__ import annotations

from dataclasses import dataclass

from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.pyscf_input import build_mole, check_method, check_room, without_checkpoint_file
from molecular_qubits.units import HARTREE_TO_CM1

MAX_DETERMINANTS = 2_000_000
"""Largest number of determinants for which full CI is run (about 16 MB for each vector)."""


@dataclass(frozen=True)
class FullCIGap:
    """Lowest singlet and triplet energies in hartree by full CI, and their <S^2>."""

    singlet_hartree: float
    triplet_hartree: float
    s2_singlet: float
    s2_triplet: float

    @property
    def gap_cm1(self) -> float:
        """E(singlet) - E(triplet) in cm^-1; equals 2 J for H = -2 J S1.S2."""
        return (self.singlet_hartree - self.triplet_hartree) * HARTREE_TO_CM1

    @property
    def j_cm1(self) -> float:
        """Exchange coupling of two spins 1/2 in cm^-1."""
        return self.gap_cm1 / 2


def full_ci_gap(molecule: Molecule, basis: str) -> FullCIGap:
    """Compute the lowest singlet and triplet by full configuration interaction.

    Parameters
    ----------
    molecule
        An even number of electrons; small, since the cost grows with the number of determinants.
    basis
        PySCF basis set.

    Returns
    -------
    FullCIGap
        Energies of the two states.

    Raises
    ------
    ValueError
        If the number of electrons is odd, the basis has no room for a triplet, or there are more than
        `MAX_DETERMINANTS` determinants.
    RuntimeError
        If the diagonalisation does not converge or ends in another spin state.
    """
    from math import comb

    from pyscf import ao2mo, fci, scf

    if molecule.n_electrons % 2:
        raise ValueError(f"Argument `molecule` must have an even number of electrons, but has {molecule.n_electrons}.")
    check_method(molecule, "hf", basis)
    check_room(molecule, 3, basis)
    mole = build_mole(molecule, basis, 0)
    n_pairs = molecule.n_electrons // 2
    n_determinants = comb(mole.nao, n_pairs) ** 2
    if n_determinants > MAX_DETERMINANTS:
        raise ValueError(
            f"Argument `molecule` must have at most {MAX_DETERMINANTS:,} determinants for full CI, but has "
            f"{n_determinants:,} in {basis}."
        )
    orbitals = without_checkpoint_file(scf.RHF(mole))
    orbitals.kernel()  # any orthonormal orbitals serve: full CI does not depend on them
    one_electron = orbitals.mo_coeff.T @ orbitals.get_hcore() @ orbitals.mo_coeff
    two_electron = ao2mo.kernel(mole, orbitals.mo_coeff)
    energies, squares = [], []
    for two_s in (0, 2):
        solver = fci.addons.fix_spin_(fci.direct_spin1.FCI(), ss=two_s / 2 * (two_s / 2 + 1), shift=0.5)
        solver.conv_tol, solver.max_cycle = 1e-12, 300
        n_electrons = (n_pairs + two_s // 2, n_pairs - two_s // 2)
        energy, vector = solver.kernel(
            one_electron, two_electron, mole.nao, n_electrons, ecore=mole.energy_nuc(), nroots=1
        )
        square = float(fci.spin_op.spin_square(vector, mole.nao, n_electrons)[0])
        if not solver.converged or abs(square - two_s / 2 * (two_s / 2 + 1)) > 1e-4:
            raise RuntimeError(
                f"Full CI did not converge to the state with 2S = {two_s} (<S^2> = {square:.4f}). Use a smaller basis."
            )
        energies.append(float(energy))
        squares.append(square)
    return FullCIGap(energies[0], energies[1], squares[0], squares[1])
