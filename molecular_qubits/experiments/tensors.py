"""Spin-spin and hyperfine tensors against their laws: point dipoles, projection on a quartet, the hydrogen atom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.electronic.hyperfine import PROTON_ELECTRON_MASS_RATIO, hyperfine_couplings
from molecular_qubits.electronic.scf import SCFSettings, Workspace, run_scf
from molecular_qubits.electronic.spin_spin import partial_spin_tensors, spin_spin_zfs
from molecular_qubits.spins.zfs import zfs_quartet
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.nuclei import ISOTOPES
from molecular_qubits.units import BOHR_TO_ANGSTROM, CM1_TO_GHZ, FINE_STRUCTURE, G_ELECTRON, HARTREE_TO_CM1
from shared.plotting import COLOURS, COLUMN_WIDTH_IN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def high_spin_density(molecule: Molecule, n_unpaired: int, basis: str, xc: str = "hf") -> np.ndarray:
    """Return the density matrices ``(2, n_ao, n_ao)`` of a high-spin determinant, tightly converged."""
    workspace = Workspace(molecule, SCFSettings(xc=xc, basis=basis, conv_tol=1e-11))
    return run_scf(workspace, n_unpaired, None, label="high-spin state", guess="minao").density


def point_dipole_d_cm1(distance_angstrom: float) -> float:
    """Return D = -3/2 α² / r³ of two electrons (g = 2) in cm^-1."""
    return -1.5 * FINE_STRUCTURE**2 / (distance_angstrom / BOHR_TO_ANGSTROM) ** 3 * HARTREE_TO_CM1


def point_dipole_rows(distances_angstrom: Sequence[float], basis: str = "6-31g") -> list[dict[str, Any]]:
    """Return D of triplet H2 at each distance, by exact integrals, by density fitting and from the point-dipole law."""
    rows = []
    for distance in distances_angstrom:
        molecule = Molecule(("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, float(distance))))
        density = high_spin_density(molecule, 2, basis)
        exact, fit = (spin_spin_zfs(molecule, basis, density, integrals=kind).d_cm1 for kind in ("exact", "fit"))
        law = point_dipole_d_cm1(distance)
        rows.append(
            {
                "distance (Å)": float(distance),
                "D exact (cm^-1)": exact,
                "D fitted (cm^-1)": fit,
                "D point dipoles (cm^-1)": law,
                "fitted / law - 1": fit / law - 1,
                "fitted / exact - 1": fit / exact - 1,
            }
        )
    return rows


def quartet_rows(distances_angstrom: Sequence[float], basis: str = "6-31g") -> list[dict[str, Any]]:
    """Return D of the quartet of triplet CH2 and a hydrogen atom above it, and that projected from its two parts."""
    methylene = ((0.0, 0.0, 0.0), (0.9887, 0.0, 0.4349), (-0.9887, 0.0, 0.4349))
    rows = []
    for distance in distances_angstrom:
        molecule = Molecule(("C", "H", "H", "H"), (*methylene, (0.0, float(distance), 0.0)))
        density = high_spin_density(molecule, 3, basis)
        whole = spin_spin_zfs(molecule, basis, density)
        parts = partial_spin_tensors(molecule, basis, density, [[3], [0, 1, 2]], [0.5, 1.0])
        projected = zfs_quartet(parts.zfs_cm1[1], parts.dipolar_cm1[0, 1])
        rows.append(
            {
                "distance (Å)": float(distance),
                "D of the quartet (cm^-1)": whole.d_cm1,
                "largest difference to (D_T + D_RT)/3 (cm^-1)": float(np.abs(whole.tensor_cm1 - projected).max()),
                "radical population": parts.populations[0],
            }
        )
    return rows


def hydrogen_rows(steepest_exponents: Sequence[float]) -> list[dict[str, Any]]:
    """Return the contact coupling of the hydrogen atom in even-tempered s bases, and its analytic limit in MHz."""
    from pyscf import scf

    from molecular_qubits.structure.pyscf_input import build_mole, without_checkpoint_file

    scale = G_ELECTRON * ISOTOPES["1H"].g_factor * FINE_STRUCTURE**2 / 4 / PROTON_ELECTRON_MASS_RATIO
    limit = scale * 8 / 3 * HARTREE_TO_CM1 * CM1_TO_GHZ * 1e3
    molecule = Molecule(("H",), ((0.0, 0.0, 0.0),))
    rows = []
    for steepest in steepest_exponents:
        count = int(np.floor(np.log(steepest / 0.05) / np.log(2.2))) + 1
        basis: Any = {"H": [[0, [0.05 * 2.2**k, 1.0]] for k in range(count)]}
        field = without_checkpoint_file(scf.UHF(build_mole(molecule, basis, 1)))
        field.conv_tol = 1e-12
        field.kernel()
        (coupling,) = hyperfine_couplings(molecule, basis, field.make_rdm1())
        rows.append({"s functions": count, "A (MHz)": coupling.isotropic_mhz, "limit (MHz)": limit})
    return rows


def draw_point_dipole(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw |D| of triplet H2 against the distance with the point-dipole law."""
    from matplotlib import pyplot

    distances = np.array([row["distance (Å)"] for row in rows])
    line = np.linspace(distances.min(), distances.max(), 200)
    figure, axes = pyplot.subplots(figsize=(COLUMN_WIDTH_IN, 2.6))
    axes.plot(line, [-point_dipole_d_cm1(x) for x in line], color=COLOURS[0], label="point dipoles, 3α²/2r³")
    fitted = [abs(row["D fitted (cm^-1)"]) for row in rows]
    axes.plot(distances, fitted, "o", color=COLOURS[1], linestyle="none", label="density fitting")
    exact = [abs(row["D exact (cm^-1)"]) for row in rows]
    axes.plot(distances, exact, "+", color="black", linestyle="none", label="exact integrals")
    axes.set(xlabel="H–H distance (Å)", ylabel="|D| of triplet H₂ (cm⁻¹)", xscale="log", yscale="log")
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.minorticks_off()
    axes.legend()
    return figure
