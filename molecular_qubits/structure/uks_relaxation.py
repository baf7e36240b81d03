"""Geometry relaxation in a given spin state by unrestricted Kohn-Sham and geomeTRIC, step by step resumable."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits.fields.xc_blocks import blocked_numint, supports
from molecular_qubits.structure.environment import check_available, check_environment, surrounded, to_host
from molecular_qubits.structure.memory import available_memory_mb, check_fit, fit_limit_mb
from molecular_qubits.structure.molecule import Molecule, check_truth
from molecular_qubits.structure.pyscf_input import (
    build_mole,
    check_accuracy,
    check_method,
    check_room,
    is_fitted,
    make_uks,
)
from molecular_qubits.structure.relaxation import GeometryNotConvergedError, check_relaxation
from molecular_qubits.structure.step_field import StepField, read_alignment, release_fit
from molecular_qubits.units import BOHR_TO_ANGSTROM
from shared.artifacts import write_json
from shared.progress import progress, say

FITTED_FROM_ATOMS = 10
"""Number of atoms from which on the density is fitted unless said otherwise: gradients gain sooner than energies."""

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
    centres: Sequence[Iterable[int]] | None = None,
    spins: Sequence[float] | None = None,
    alignment: Sequence[int] | None = None,
    stability: bool = True,
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
        Fit the density; ``None``: from `FITTED_FROM_ATOMS` on.
    conv_tol
        Energy change at convergence of each field, hartree.
    max_cycle
        Cycles for each solver of the fallback ladder (`fields.solvers.LADDER`).
    solvent_epsilon, dispersion, device
        As in `exchange_couplings`; the device must be named.
    centres
        Atom indices of each spin centre, for a broken-symmetry state such as the singlet of a diradical: every field
        must have the spin on the centres. ``None``: <S^2> must be that of the multiplicity.
    spins
        Spin of each centre; 1/2 each if ``None``.
    alignment
        +1 or -1 for each centre; ``None``: the only one that has the multiplicity.
    stability
        Refuse a first or a last field that is not stable against real unrestricted orbital rotations, such as the
        closed shell of a diradical.
    max_steps
        Largest number of steps.
    checkpoint
        File that keeps the geometry after each step. If it exists and belongs to the same start and method, the
        relaxation continues from it.

    Returns
    -------
    Molecule
        The relaxed molecule (geomeTRIC's default convergence criteria); one atom as it is, without a field.

    Raises
    ------
    ValueError
        If functional, basis or environment are unknown, a number is out of range, or the centres do not have the
        multiplicity.
    InsufficientMemoryError
        If the fit of the density needs more memory, or room for a file, than there is.
    GeometryNotConvergedError
        If the field of a step did not converge, or the steps did not suffice.
    SpinContaminationError
        If <S^2> of a step is not near S(S + 1), or the spin of a centre is not there.
    UnstableFieldError
        If the first or the last field of a closed shell or a broken-symmetry state is a saddle point. Other fields are
        followed down from it.
    """
    from pyscf.geomopt import as_pyscf_method, geometric_solver

    check_method(molecule, xc, basis)
    check_room(molecule, molecule.multiplicity or 1, basis)
    grid_level, max_cycle = check_accuracy(grid_level, conv_tol, max_cycle)
    max_steps = check_relaxation(max_steps)
    check_truth(stability=stability)
    check_environment(solvent_epsilon, dispersion, device)
    check_available(dispersion, device, xc)
    fit = is_fitted(molecule.n_atoms, density_fit, FITTED_FROM_ATOMS)
    aligned = read_alignment(molecule, centres, spins, alignment)
    method = {
        "xc": xc, "basis": basis, "grid_level": grid_level, "density_fit": fit,
        "conv_tol": conv_tol, "solvent_epsilon": solvent_epsilon, "dispersion": dispersion,
        **({} if aligned is None else asdict(aligned)),
    }  # fmt: skip

    if molecule.n_atoms == 1:
        return molecule
    blocked = device == "cpu" and supports(xc)

    def make(mole: Any) -> Any:
        field = surrounded(make_uks(mole, xc, grid_level, fit), solvent_epsilon, dispersion)
        field.conv_tol, field.max_cycle = conv_tol, max_cycle
        if blocked:
            field._numint = blocked_numint()
        return field.to_gpu() if device == "gpu" else field

    steps = _Steps(molecule, method, checkpoint)
    fields = StepField(make, molecule.multiplicity or 1, aligned)

    def energy_and_gradient(mole: Any) -> tuple[float, np.ndarray]:
        first, step = fields.last is None, f"step {steps.count + 1}"
        field = fields.converge(mole.copy(), step)
        if first and stability and fields.settle(step):
            field = fields.last
        release_fit(field)  # before the gradient takes its own memory, and the next step its integrals
        return float(field.e_tot), to_host(field.nuc_grad_method().kernel())

    mole = build_mole(molecule.with_positions(steps.positions), basis)
    if fit:
        check_fit(mole, basis, xc, device=device)
        mole.max_memory = fit_limit_mb(mole)  # as the check takes it
    else:
        mole.max_memory = min(mole.max_memory, available_memory_mb())
    with (
        tempfile.TemporaryDirectory() as folder,
        progress(f"{xc.upper()}/{basis.upper()} geometry", total=None) as show,
    ):
        log_settings = Path(folder) / "log.ini"
        log_settings.write_text(_QUIET_LOG, encoding="utf-8")

        def finish_step(variables: dict[str, Any]) -> None:
            steps.keep(np.asarray(variables["coords"]) * BOHR_TO_ANGSTROM)
            show(1, f"E = {variables['energy']:.6f}, largest gradient {np.abs(variables['gradients']).max():.1e}")

        while True:
            converged, mole = geometric_solver.kernel(
                as_pyscf_method(mole, energy_and_gradient),
                maxsteps=max(1, max_steps - steps.count),
                assert_convergence=False,  # with a message that says what to do, below
                callback=finish_step,
                logIni=str(log_settings),
            )
            if not converged:
                raise GeometryNotConvergedError(
                    f"geomeTRIC did not relax the geometry with {xc}/{basis} in {max_steps} steps. Raise `max_steps` "
                    "or relax with GFN2 first."
                )
            if not stability or not fields.settle("the last step"):
                return molecule.with_positions(mole.atom_coords() * BOHR_TO_ANGSTROM)


class _Steps:
    """Keeps the steps of one relaxation."""

    def __init__(self, molecule: Molecule, method: dict[str, Any], path: Path | None) -> None:
        self.molecule, self.path, self.count, self.positions = molecule, path, 0, molecule.positions
        self.key = {"molecule": molecule.to_dict(), "method": method}
        if path is not None and path.is_file():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["key"] == json.loads(json.dumps(self.key)):
                self.count, self.positions = saved["steps"], np.array(saved["coordinates_angstrom"])
                say(f"The relaxation continues after step {self.count}.")

    def keep(self, positions: np.ndarray) -> None:
        """Write the geometry of a finished step ``(n, 3)`` in Å."""
        self.count += 1
        if self.path is not None:
            places = [[float(x) for x in place] for place in positions]
            write_json(self.path, {"key": self.key, "steps": self.count, "coordinates_angstrom": places})
