"""Spin density of a determinant, integrated along the normal of the molecular plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from molecular_qubits.fields.populations import checked_density
from molecular_qubits.structure.molecule import Molecule, check_positive
from molecular_qubits.structure.pyscf_input import build_mole
from molecular_qubits.units import BOHR_TO_ANGSTROM


@dataclass(frozen=True)
class SpinDensityMap:
    """Column density of spin in the molecular plane.

    ``x_angstrom`` ``(n_x,)`` and ``y_angstrom`` ``(n_y,)`` span the plane; ``values`` ``(n_y, n_x)`` is the integral of
    ρ_α - ρ_β along its normal in e/Å²; ``atoms_angstrom`` ``(n_atoms, 2)`` are the projected atoms.
    """

    x_angstrom: np.ndarray
    y_angstrom: np.ndarray
    values: np.ndarray
    atoms_angstrom: np.ndarray

    @property
    def integral(self) -> float:
        """Integral over the map: the number of unpaired electrons inside it, n_α - n_β."""
        dx, dy = self.x_angstrom[1] - self.x_angstrom[0], self.y_angstrom[1] - self.y_angstrom[0]
        return float(self.values.sum() * dx * dy)


def plane_frame(positions: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the axes of the plane nearest to a set of points.

    Parameters
    ----------
    positions
        ``(n, 3)``.
    weights
        ``(n,)``; equal if ``None``.

    Returns
    -------
    ndarray
        ``(3, 3)`` rows: long axis, short axis, normal; right-handed.
    """
    weights = np.ones(len(positions)) if weights is None else weights
    centred = positions - np.average(positions, axis=0, weights=weights)
    _, _, axes = np.linalg.svd(centred * np.sqrt(weights)[:, None], full_matrices=True)
    if np.linalg.det(axes) < 0:
        axes[2] = -axes[2]
    return axes


def spin_density_map(
    molecule: Molecule,
    basis: str,
    density: np.ndarray,
    *,
    plane_atoms: Sequence[int] | None = None,
    spacing_angstrom: float = 0.1,
    margin_angstrom: float = 2.5,
) -> SpinDensityMap:
    """Integrate the spin density of a determinant along the normal of a molecular plane.

    Parameters
    ----------
    molecule
        The molecule of the determinant.
    basis
        Its basis set.
    density
        Density matrices of α and β ``(2, n_ao, n_ao)``.
    plane_atoms
        Atoms whose best plane is used; all heavy atoms if ``None``.
    spacing_angstrom
        Spacing of the grid in the plane and along the normal.
    margin_angstrom
        Distance of the edges from the outermost atoms.

    Returns
    -------
    SpinDensityMap
        Column density in e/Å².

    Raises
    ------
    ValueError
        If the density does not fit the molecule and the basis, which must be known, a length is not positive and
        finite, or the atoms of the plane are not some of the molecule.
    """
    check_positive(spacing_angstrom=spacing_angstrom, margin_angstrom=margin_angstrom)
    heavy = [atom for atom, symbol in enumerate(molecule.symbols) if symbol != "H"] or list(range(molecule.n_atoms))
    chosen = heavy if plane_atoms is None else list(plane_atoms)
    if not chosen or not set(chosen) <= set(range(molecule.n_atoms)):
        raise ValueError(
            f"Argument `plane_atoms` must hold atom indices from 0 to {molecule.n_atoms - 1}, but is {chosen}."
        )
    mole = build_mole(molecule, basis, molecule.n_electrons % 2)
    density = checked_density(density, mole, basis)
    from pyscf.dft import numint

    origin = molecule.positions[chosen].mean(axis=0)
    axes = plane_frame(molecule.positions[chosen])
    local = (molecule.positions - origin) @ axes.T
    low, high = local.min(axis=0) - margin_angstrom, local.max(axis=0) + margin_angstrom
    x, y, z = (np.arange(low[k], high[k] + spacing_angstrom, spacing_angstrom) for k in range(3))
    spin = density[0] - density[1]
    values = np.zeros((len(y), len(x)))
    for row, y_value in enumerate(y):  # one row at a time bounds the memory
        grid = np.stack(np.meshgrid(x, [y_value], z, indexing="ij"), axis=-1).reshape(-1, 3)
        orbitals = mole.eval_gto("GTOval", (grid @ axes + origin) / BOHR_TO_ANGSTROM)
        column = numint.eval_rho(mole, orbitals, spin, xctype="LDA", hermi=1).reshape(len(x), len(z))
        values[row] = column.sum(axis=1) * spacing_angstrom / BOHR_TO_ANGSTROM**3
    return SpinDensityMap(x, y, values, local[:, :2])
