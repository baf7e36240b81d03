"""Geometry relaxation in a given spin state by unrestricted Kohn-Sham and geomeTRIC, step by step resumable."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.structure.environment import check_environment, surrounded, to_host
from molecular_qubits.structure.pyscf_input import build_mole, check_method, is_fitted, make_uks
from molecular_qubits.structure.relaxation import GeometryNotConvergedError
from molecular_qubits.units import BOHR_TO_ANGSTROM
from shared.artifacts import write_json
from shared.progress import progress, say

if TYPE_CHECKING:
    from molecular_qubits.structure.molecule import Molecule

S2_TOLERANCE = 0.4
"""Largest deviation of <S^2> from S(S + 1) at any step."""

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


class SpinContaminationError(RuntimeError):
    """The field converged, but to a state of another spin than that of the molecule."""


def relax_uks(
    molecule: Molecule,
    *,
    xc: str = "b3lyp",
    basis: str = "6-31g*",
    grid_level: int = 3,
    density_fit: bool | None = None,
    conv_tol: float = 1e-9,
    max_cycle: int = 100,
    solvent_epsilon: float | None = None,
    dispersion: str | None = None,
    device: str = "cpu",
    max_steps: int = 100,
    checkpoint: Path | None = None,
) -> Molecule:
    """Relax with unrestricted Kohn-Sham (PySCF) and geomeTRIC in the spin state of the molecule.

    Parameters
    ----------
    molecule
        Start geometry, charge and multiplicity.
    xc, basis
        Functional and basis set, by their PySCF names; ``xc="hf"`` is Hartree-Fock.
    grid_level
        PySCF integration grid, 0 (coarse) to 9.
    density_fit
        Fit the density; ``None``: from 20 atoms on.
    conv_tol
        Energy change at convergence of each field, hartree.
    max_cycle
        Cycles for each field.
    solvent_epsilon, dispersion, device
        As in `exchange_couplings`.
    max_steps
        Largest number of steps.
    checkpoint
        File that keeps the geometry after each step. If it exists and belongs to the same start and method, the
        relaxation continues from it.

    Returns
    -------
    Molecule
        The relaxed molecule (geomeTRIC's default convergence criteria).

    Raises
    ------
    ValueError
        If functional, basis or environment are unknown.
    GeometryNotConvergedError
        If the field of a step did not converge, or the steps did not suffice.
    SpinContaminationError
        If <S^2> of a step is not near S(S + 1).
    """
    from pyscf.geomopt import geometric_solver

    check_method(molecule, xc, basis)
    check_environment(solvent_epsilon, dispersion, device)
    fit = is_fitted(molecule.n_atoms, density_fit)
    method = {
        "xc": xc, "basis": basis, "grid_level": grid_level, "density_fit": fit,
        "conv_tol": conv_tol, "solvent_epsilon": solvent_epsilon, "dispersion": dispersion,
    }  # fmt: skip
    steps = _Steps(molecule, method, checkpoint)
    mole = build_mole(molecule.with_positions(steps.positions), basis)
    mean_field = surrounded(make_uks(mole, xc, grid_level, fit), solvent_epsilon, dispersion)
    mean_field.conv_tol, mean_field.max_cycle = conv_tol, max_cycle
    if device == "gpu":
        mean_field = mean_field.to_gpu()
    with (
        tempfile.TemporaryDirectory() as folder,
        progress(f"{xc.upper()}/{basis.upper()} geometry", total=None) as show,
    ):
        log_settings = Path(folder) / "log.ini"
        log_settings.write_text(_QUIET_LOG, encoding="utf-8")

        def finish_step(variables: dict[str, Any]) -> None:
            gradients = np.asarray(to_host(variables["gradients"]))
            steps.check(variables["g_scanner"])
            steps.keep(np.asarray(variables["coords"]) * BOHR_TO_ANGSTROM)
            show(1, f"E = {variables['energy']:.6f}, largest gradient {np.abs(gradients).max():.1e}")

        converged, relaxed = geometric_solver.kernel(
            mean_field,
            maxsteps=max(1, max_steps - steps.count),
            assert_convergence=False,  # checked after each step, with a message that says what to do
            callback=finish_step,
            logIni=str(log_settings),
        )
    if not converged:
        raise GeometryNotConvergedError(
            f"geomeTRIC did not relax the geometry with {xc}/{basis} in {max_steps} steps. Raise `max_steps` or relax "
            "with GFN2 first."
        )
    return molecule.with_positions(relaxed.atom_coords() * BOHR_TO_ANGSTROM)


class _Steps:
    """Checks and keeps the steps of one relaxation."""

    def __init__(self, molecule: Molecule, method: dict[str, Any], path: Path | None) -> None:
        self.molecule, self.path, self.count, self.positions = molecule, path, 0, molecule.positions
        self.spin = (molecule.multiplicity or 1) / 2 - 0.5
        self.key = {"molecule": molecule.to_dict(), "method": method}
        if path is not None and path.is_file():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["key"] == json.loads(json.dumps(self.key)):
                self.count, self.positions = saved["steps"], np.array(saved["coordinates_angstrom"])
                say(f"The relaxation continues after step {self.count}.")

    def check(self, scanner: Any) -> None:
        """Raise an error if the field of a step did not converge or has another spin than the molecule."""
        step = f"step {self.count + 1}"
        if not scanner.converged:
            raise GeometryNotConvergedError(
                f"The field of multiplicity {self.molecule.multiplicity} did not converge in {step} of the relaxation. "
                "Raise `max_cycle`, relax `conv_tol`, or relax with GFN2 first."
            )
        s2, expected = float(scanner.base.spin_square()[0]), self.spin * (self.spin + 1)
        if abs(s2 - expected) > S2_TOLERANCE:
            raise SpinContaminationError(
                f"The field of {step} of the relaxation has <S^2> = {s2:.3f}, but {expected:.2f} was expected for the "
                f"multiplicity {self.molecule.multiplicity} (tolerance {S2_TOLERANCE}). Relax another multiplicity, or "
                "take another functional."
            )

    def keep(self, positions: np.ndarray) -> None:
        """Write the geometry of a finished step ``(n, 3)`` in Å."""
        self.count += 1
        if self.path is not None:
            places = [[float(x) for x in place] for place in positions]
            write_json(self.path, {"key": self.key, "steps": self.count, "coordinates_angstrom": places})
