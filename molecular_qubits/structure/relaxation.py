"""Geometry relaxation in a given spin state: GFN2-xTB and unrestricted Kohn-Sham."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.units import BOHR_TO_ANGSTROM, EV_TO_CM1
from shared.artifacts import Cache, versions

if TYPE_CHECKING:
    from molecular_qubits.structure.molecule import Molecule


_QUIET_LOG = """[loggers]
keys=root
[handlers]
keys=none
[formatters]
keys=
[logger_root]
level=ERROR
handlers=none
[handler_none]
class=NullHandler
args=()
"""


class GeometryNotConvergedError(RuntimeError):
    """The forces did not fall below the threshold within the allowed steps."""


def relax_gfn2(molecule: Molecule, *, fmax_ev_per_angstrom: float = 0.01, max_steps: int = 500) -> Molecule:
    """Relax with GFN2-xTB (tblite through ASE, BFGS) in the spin state of the molecule.

    Parameters
    ----------
    molecule
        Start geometry, charge and multiplicity.
    fmax_ev_per_angstrom
        Largest force allowed at the end, in eV/Å.
    max_steps
        Largest number of steps.

    Returns
    -------
    Molecule
        The relaxed molecule.

    Raises
    ------
    GeometryNotConvergedError
        If the steps did not suffice.

    References
    ----------
    Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019). The open-shell state follows from the
    occupation only: GFN2 has no spin polarisation.
    """
    from ase.optimize import BFGS

    from shared.progress import progress

    atoms = gfn2_atoms(molecule)
    with progress("GFN2-xTB geometry", total=None) as step:
        optimiser = BFGS(atoms, logfile=None)
        optimiser.attach(step)
        converged = optimiser.run(fmax=fmax_ev_per_angstrom, steps=max_steps)
    if not converged:
        force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        raise GeometryNotConvergedError(
            f"GFN2-xTB did not relax the geometry in {max_steps} steps: the largest force is {force:.3g} eV/Å, and "
            f"{fmax_ev_per_angstrom:.3g} was wanted. Raise `max_steps` or start from another geometry."
        )
    return molecule.with_positions(atoms.get_positions())


def gfn2_atoms(molecule: Molecule) -> Any:
    """Return ASE ``Atoms`` with a GFN2-xTB calculator for the charge and the multiplicity of the molecule."""
    from tblite.ase import TBLite

    atoms = molecule.to_ase()
    atoms.calc = TBLite(
        method="GFN2-xTB", charge=molecule.charge, multiplicity=molecule.multiplicity, verbosity=0, max_iterations=500
    )
    return atoms


def gfn2_energy_cm1(molecule: Molecule) -> float:
    """Return the GFN2-xTB energy in cm^-1 in the spin state of the molecule."""
    return float(gfn2_atoms(molecule).get_potential_energy()) * EV_TO_CM1


def relax_uks(
    molecule: Molecule, *, xc: str = "b3lyp", basis: str = "6-31g*", grid_level: int = 3, max_steps: int = 100
) -> Molecule:
    """Relax with unrestricted Kohn-Sham (PySCF) and geomeTRIC in the spin state of the molecule.

    Parameters
    ----------
    molecule
        Start geometry, charge and multiplicity.
    xc, basis
        Functional and basis set, by their PySCF names.
    grid_level
        PySCF integration grid, 0 (coarse) to 9.
    max_steps
        Largest number of steps.

    Returns
    -------
    Molecule
        The relaxed molecule (geomeTRIC's default convergence criteria).

    Raises
    ------
    GeometryNotConvergedError
        If the steps did not suffice.
    """
    from pyscf import dft
    from pyscf.geomopt import geometric_solver

    from molecular_qubits.structure.pyscf_input import build_mole, check_method, without_checkpoint_file

    check_method(molecule, xc, basis)
    mean_field = without_checkpoint_file(dft.UKS(build_mole(molecule, basis)))
    mean_field.xc = xc
    mean_field.grids.level = grid_level
    with tempfile.TemporaryDirectory() as folder:
        log_settings = Path(folder) / "log.ini"
        log_settings.write_text(_QUIET_LOG, encoding="utf-8")
        converged, relaxed = geometric_solver.kernel(
            mean_field, maxsteps=max_steps, assert_convergence=False, logIni=str(log_settings)
        )
    if not converged:
        raise GeometryNotConvergedError(
            f"geomeTRIC did not relax the geometry with {xc}/{basis} in {max_steps} steps. Raise `max_steps` or relax "
            "with GFN2 first."
        )
    return molecule.with_positions(relaxed.atom_coords() * BOHR_TO_ANGSTROM)


def cached_relaxation(molecule: Molecule, level: str, multiplicity: int, cache: Cache | None = None) -> Molecule:
    """Return the relaxed molecule, from the cache if the same relaxation was done before.

    Parameters
    ----------
    molecule
        Start geometry.
    level
        ``"gfn2"`` or ``"uks"``, as in `Molecule.optimize`.
    multiplicity
        2S + 1 of the state.
    cache
        The user's cache folder if ``None``.

    Returns
    -------
    Molecule
        The relaxed molecule.
    """
    key = {
        "kind": "geometry",
        "molecule": molecule.to_dict(),
        "level": level,
        "multiplicity": multiplicity,
        "versions": versions(("tblite", "ase", "pyscf", "geometric")),
    }
    cache = Cache(name="geometry") if cache is None else cache
    made = cache.record("molecule.json", key, lambda: molecule.optimize(level, multiplicity).to_dict())
    return type(molecule).from_dict(made)
