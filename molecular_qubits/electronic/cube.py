"""Spin density on a box as a Gaussian cube file, for `structure.view` and other viewers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from molecular_qubits.fields.populations import checked_density
from molecular_qubits.structure.molecule import Molecule, check_positive
from molecular_qubits.structure.pyscf_input import build_mole
from molecular_qubits.units import BOHR_TO_ANGSTROM
from shared.artifacts import atomic_path
from shared.files import check_file


def write_spin_density_cube(
    path: str | Path,
    molecule: Molecule,
    basis: str,
    density: np.ndarray,
    *,
    spacing_angstrom: float = 0.2,
    margin_angstrom: float = 2.5,
) -> Path:
    """Write ρ_α - ρ_β of a determinant in e/bohr³ as a Gaussian cube file, atomically.

    Parameters
    ----------
    path
        The file.
    molecule, basis
        Of the determinant.
    density
        Density matrices of α and β ``(2, n_ao, n_ao)``.
    spacing_angstrom
        Spacing of the points; the file grows with its inverse cube.
    margin_angstrom
        Distance of the faces of the box from the outermost atoms.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the density does not fit the molecule and the basis, which must be known, or a length is not positive and
        finite.
    """
    check_positive(spacing_angstrom=spacing_angstrom, margin_angstrom=margin_angstrom)
    check_file(path, "Argument `path`")
    mole = build_mole(molecule, basis, molecule.n_electrons % 2)
    density = checked_density(density, mole, basis)
    from pyscf.tools import cubegen

    with atomic_path(path) as temporary:
        cubegen.density(
            mole,
            str(temporary),
            density[0] - density[1],
            resolution=spacing_angstrom / BOHR_TO_ANGSTROM,
            margin=margin_angstrom / BOHR_TO_ANGSTROM,
        )
        lines = temporary.read_text(encoding="ascii").splitlines(keepends=True)
        lines[:2] = ["spin density in e/bohr^3\n", f"{molecule.smiles or 'molecule'} in {basis}\n"]  # no time stamp
        temporary.write_text("".join(lines), encoding="utf-8")
    return Path(path)
