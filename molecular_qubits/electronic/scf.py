"""One self-consistent field: settings, fallback ladder, checkpoint after every cycle, internal stability."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits.electronic import ramp
from molecular_qubits.electronic.cheap_hessian import cheap_hessian, newton_terms
from molecular_qubits.electronic.errors import SCFNotConvergedError
from molecular_qubits.electronic.fitted_exchange import one_pass
from molecular_qubits.electronic.ramp import CheapField
from molecular_qubits.fields.guesses import density_of, occupied_orbitals
from molecular_qubits.fields.solvers import LADDER, with_solver
from molecular_qubits.fields.stability import OrbitalHessian, StabilityNotDecidedError, is_minimum, pyscf_hessian
from molecular_qubits.fields.xc_blocks import blocked_numint
from molecular_qubits.structure.environment import check_environment, surrounded, to_host
from molecular_qubits.structure.memory import available_memory_mb, fit_limit_mb
from molecular_qubits.structure.molecule import Molecule, real_number
from molecular_qubits.structure.pyscf_input import build_mole, check_accuracy, make_uks
from shared.artifacts import atomic_path
from shared.progress import progress, say

CHEAP_GRID_LEVEL = 1
"""Integration grid of the cheap cycles of a ramped field with its integrals in memory. Those that are in a file make
each cycle, and each exact field more so, take longer than any grid: they have the grid that is wanted."""

HELD: tuple[str, ...] = ("maximum overlap", "shifted maximum overlap")
"""Solvers that hold a state: in every cycle the orbitals that overlap most with those of the guess are occupied, not
the lowest ones. Plain DIIS also ends at a saddle point; with a level shift it is steadier, but may leave one. Each
starts from the guess, also after an interruption: DIIS goes a long way round."""

HELD_LEVEL_SHIFT = 0.1
"""Level shift of the second one, hartree."""

RAMP_CONV_TOL = 1e-10
"""Smallest ``conv_tol`` that single precision can serve."""


def can_ramp(xc: str, density_fit: bool, conv_tol: float) -> bool:
    """Return whether cheap fields can lead to the field wanted."""
    from molecular_qubits.fields.xc_blocks import supports

    noise_allowed = real_number(conv_tol, "Argument `conv_tol`") >= RAMP_CONV_TOL
    return density_fit and xc.lower() != "hf" and noise_allowed and supports(xc)


@dataclass(frozen=True)
class SCFSettings:
    """What a Kohn-Sham field depends on besides the molecule and its state, whether this machine can run it or not.

    Parameters
    ----------
    xc, basis
        Functional and basis set by their PySCF names; ``xc="hf"`` is Hartree-Fock.
    grid_level
        PySCF integration grid, 0 (coarse) to 9.
    density_fit
        Fit the density (resolution of the identity) for Coulomb and exchange; exact integrals otherwise.
    auxbasis
        Fitting basis; ``None`` lets PySCF choose one for the basis.
    conv_tol
        Energy change at convergence in hartree; the orbital gradient must fall below its square root.
    max_cycle
        Cycles allowed for each solver of the ladder.
    ramp
        Converge cheap fields, corrected by exact ones (see `ramp`): the same end, several times sooner. Needs density
        fitting, a functional that `xc_blocks.supports`, and ``conv_tol`` of 1e-10 at least.
    solvent_epsilon
        Dielectric constant of an implicit solvent (`environment.SOLVENT_MODEL`); ``None``: vacuum.
    dispersion
        Empirical dispersion energy, one of `environment.DISPERSIONS`; it shifts all states of a geometry alike.
    device
        ``"cpu"``, or ``"gpu"`` for gpu4pyscf (never ramped; not tested on a card so far).
    """

    xc: str = "b3lyp"
    basis: str = "6-31g*"
    grid_level: int = 3
    density_fit: bool = False
    auxbasis: str | None = None
    conv_tol: float = 1e-9
    max_cycle: int = 60
    ramp: bool = False
    solvent_epsilon: float | None = None
    dispersion: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        grid_level, max_cycle = check_accuracy(self.grid_level, self.conv_tol, self.max_cycle)
        object.__setattr__(self, "grid_level", grid_level)
        object.__setattr__(self, "max_cycle", max_cycle)
        if self.auxbasis is not None and not self.density_fit:
            raise ValueError(
                f"Argument `auxbasis` must be left out without density fitting, but is {self.auxbasis!r}: set "
                "`density_fit=True`."
            )
        check_environment(self.solvent_epsilon, self.dispersion, self.device)
        if self.ramp and (self.device == "gpu" or not can_ramp(self.xc, self.density_fit, self.conv_tol)):
            raise ValueError(
                "Argument `ramp` must be False without density fitting, on a GPU, for Hartree-Fock, for functionals "
                f"with non-local correlation and for `conv_tol` below {RAMP_CONV_TOL:g}, but is True for {self.xc!r} "
                f"with `density_fit` {self.density_fit} and `conv_tol` {self.conv_tol:g}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a JSON-able record; an environment only where there is one."""
        defaults = {"solvent_epsilon": None, "dispersion": None, "device": "cpu"}
        return {name: value for name, value in asdict(self).items() if defaults.get(name, ...) != value}


@dataclass(frozen=True)
class SCFSolution:
    """A converged determinant and how it was reached.

    ``mo_coeff`` has shape ``(2, n_ao, n_mo)``, ``mo_occ`` ``(2, n_mo)``; first index α, then β. ``history`` holds
    energy (hartree) and norm of the gradient after each cycle; of the cheap field where it was ramped.
    """

    energy_hartree: float
    mo_coeff: np.ndarray
    mo_occ: np.ndarray
    solver: str
    cycles: int
    seconds: float
    guess: str = ""
    history: tuple[tuple[float, float], ...] = ()

    @property
    def density(self) -> np.ndarray:
        """Density matrices of both spins ``(2, n_ao, n_ao)``."""
        occupied = self.mo_coeff * self.mo_occ[:, None, :]
        return np.einsum("sui,svi->suv", occupied, self.mo_coeff)


def make_grids(mole: Any, level: int) -> Any:
    """Return PySCF's integration grid of a level, built."""
    from pyscf.dft import gen_grid

    grids = gen_grid.Grids(mole)
    grids.level = level
    return grids.build()


@dataclass
class Workspace:
    """Integrals and grids shared by the states of one molecule: only the numbers of α and β electrons differ."""

    molecule: Molecule
    settings: SCFSettings
    mole: Any = None
    _fit: Any = field(default=None, repr=False)
    _grids: Any = field(default=None, repr=False)
    _eri: Any = field(default=None, repr=False)
    _numint: Any = field(default=None, repr=False)
    _cheap: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.mole is None:
            self.mole = build_mole(self.molecule, self.settings.basis, self.molecule.n_electrons % 2)
        if self.settings.density_fit:  # integrals that do not fit in memory are read from a file in each cycle
            self.mole.max_memory = fit_limit_mb(self.mole)
        else:  # ... are computed in each cycle
            self.mole.max_memory = min(self.mole.max_memory, available_memory_mb())
        if self.settings.ramp:
            self._grids, self._numint = make_grids(self.mole, self.settings.grid_level), blocked_numint()

    def mean_field(self, n_unpaired: int, *, bare: bool = False) -> Any:
        """Return a fresh field with ``n_unpaired`` more α than β electrons, on the shared integrals and grid.

        ``bare``: without solvent and dispersion.
        """
        s = self.settings
        mole = self.mole.copy()
        mole.spin = n_unpaired
        mean_field = make_uks(mole, s.xc, s.grid_level, s.density_fit, s.auxbasis)
        if s.density_fit:
            self._fit = self._fit or (one_pass(mean_field.with_df) if s.ramp else mean_field.with_df)
            mean_field.with_df = self._fit
        else:
            mean_field._eri = self._eri
        if self._grids is not None:
            mean_field.grids = self._grids
        if self._numint is not None:
            mean_field._numint = self._numint
        if not bare:
            mean_field = surrounded(mean_field, s.solvent_epsilon, s.dispersion)
        mean_field.conv_tol = s.conv_tol
        mean_field.max_cycle = s.max_cycle
        return mean_field.to_gpu() if s.device == "gpu" else mean_field

    def cheap(self) -> CheapField:
        """Return the cheap field of the molecule; made at the first call."""
        if self._cheap is None:
            self.mean_field(self.mole.spin, bare=True)
            if self._fit._cderi is None:
                self._fit.build()
            level = self.settings.grid_level
            if isinstance(self._fit._cderi, np.ndarray):  # in memory
                level = min(level, CHEAP_GRID_LEVEL)
            coarse, grids = level < self.settings.grid_level, make_grids(self.mole, level)
            self._cheap = CheapField(self.mole, self.settings.xc, self._fit, grids, coarse=coarse)
        return self._cheap

    def keep(self, mean_field: Any) -> None:
        """Keep the integrals and the grid that a finished field has built; those of a GPU are made anew."""
        if self.settings.device == "cpu":
            self._grids = getattr(mean_field, "grids", None)
            if not self.settings.density_fit:
                self._eri = mean_field._eri


class _Recorder:
    """Callback of an SCF: writes the orbitals after each cycle, counts cycles and seconds, shows the energy."""

    def __init__(self, path: Path | None, guess: str, solver: str, cycles: int, seconds: float, step: Any) -> None:
        self.path, self.guess, self.solver, self.cycles, self.before, self.step = (
            path, guess, solver, cycles, seconds, step,
        )  # fmt: skip
        self.start = time.monotonic()
        self.history: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def __call__(self, variables: dict[str, Any]) -> None:
        self.cycles += 1
        energy, gradient = variables.get("e_tot"), variables.get("norm_gorb")
        if energy is not None and gradient is not None:
            self.history.append((float(energy), float(gradient)))
        note = f"E = {energy:.8f}" if energy is not None else ""
        self.step(1, note + (f", gradient {gradient:.1e}" if gradient is not None else ""))
        coefficients, occupations = variables.get("mo_coeff"), variables.get("mo_occ")
        if self.path is not None and coefficients is not None and occupations is not None:
            found = SCFSolution(
                float("nan"), to_host(coefficients), to_host(occupations), self.solver, self.cycles, self.seconds,
                self.guess, tuple(self.history),
            )  # fmt: skip
            write_checkpoint(self.path, found)


def write_checkpoint(path: Path, solution: SCFSolution) -> None:
    """Write orbitals and how they were reached, without the energy, for `read_checkpoint`."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            mo_coeff=solution.mo_coeff,
            mo_occ=solution.mo_occ,
            guess=solution.guess,
            solver=solution.solver,
            cycles=solution.cycles,
            seconds=solution.seconds,
            history=np.array(solution.history).reshape(-1, 2),
        )


def _pairs(array: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple((float(energy), float(gradient)) for energy, gradient in array)


def read_checkpoint(path: Path | None) -> SCFSolution | None:
    """Return the orbitals of an unfinished run, or ``None``; the energy is NaN."""
    if path is None or not path.is_file():
        return None
    with np.load(path) as saved:
        return SCFSolution(
            energy_hartree=float("nan"),
            mo_coeff=saved["mo_coeff"],
            mo_occ=saved["mo_occ"],
            solver=str(saved["solver"]),
            cycles=int(saved["cycles"]),
            seconds=float(saved["seconds"]),
            guess=str(saved["guess"]),
            history=_pairs(saved["history"]) if "history" in saved else (),
        )


def run_scf(
    workspace: Workspace,
    n_unpaired: int,
    density: np.ndarray | None,
    *,
    label: str,
    guess: str,
    checkpoint: Path | None = None,
    solvers: Sequence[str] = LADDER,
) -> SCFSolution:
    """Converge one field, with each solver in turn.

    Parameters
    ----------
    workspace
        Molecule, settings, shared integrals.
    n_unpaired
        Number of α minus number of β electrons.
    density
        Start density ``(2, n_ao, n_ao)``; PySCF's ``minao`` guess if ``None``. A checkpoint of the same guess wins. For
        `HELD` with its orbitals (`guesses.density_of`), which are those that are held.
    label
        Name of the state in messages.
    guess
        Name of the guess, kept with the solution.
    checkpoint
        File for the orbitals after each cycle. If it exists and belongs to `guess`, the run continues from it.
    solvers
        Of `LADDER` or of `HELD`, in its order. A checkpoint continues with its solver or the first one behind it,
        or with all of them if none of them is.

    Returns
    -------
    SCFSolution
        The converged determinant.

    Raises
    ------
    SCFNotConvergedError
        If no solver converged.
    """
    saved, held = read_checkpoint(checkpoint), density
    cycles, seconds, ladder = 0, 0.0, tuple(solvers)
    history: tuple[tuple[float, float], ...] = ()
    order = HELD if solvers[0] in HELD else LADDER
    if saved is not None and saved.guess == guess and saved.solver in order:
        if saved.solver in LADDER:
            density = density_of(*occupied_orbitals(saved.mo_coeff, saved.mo_occ))
        cycles, seconds = saved.cycles, saved.seconds
        history = saved.history
        ladder = tuple(name for name in solvers if order.index(name) >= order.index(saved.solver)) or ladder
        say(f"{label}: continues after cycle {cycles} from its checkpoint.")
    for solver in ladder:
        with progress(f"{label} [{workspace.settings.xc}/{workspace.settings.basis}, {solver}]") as step:
            recorder = _Recorder(checkpoint, guess, solver, cycles, seconds, step)
            recorder.history += history
            mean_field = _converge(workspace, n_unpaired, solver, density, recorder, held)
        workspace.keep(mean_field)
        cycles, seconds, history = recorder.cycles, recorder.seconds, tuple(recorder.history)
        if mean_field.converged:
            return SCFSolution(
                float(mean_field.e_tot),
                to_host(mean_field.mo_coeff),
                to_host(mean_field.mo_occ),
                solver,
                cycles,
                seconds,
                guess,
                history=history,
            )
        density = held if solver in HELD else mean_field.make_rdm1()
    raise SCFNotConvergedError(
        f"The {label} did not converge from the guess {guess!r} with any of {', '.join(solvers)} "
        f"({workspace.settings.max_cycle} cycles each). Raise `max_cycle`, relax `conv_tol`, start from a smaller "
        "basis or check the geometry."
    )


def _converge(workspace: Workspace, n_unpaired: int, solver: str, density: Any, recorder: _Recorder, held: Any) -> Any:
    """Return the PySCF field of a state after running it with one solver; `HELD` hold the orbitals of ``held``."""
    mean_field = workspace.mean_field(n_unpaired)
    if workspace.settings.ramp:

        def inner() -> Any:
            cheap = _with_solver(workspace.mean_field(n_unpaired, bare=True), solver, held)
            cheap.callback = recorder
            if solver == "newton":
                cheap.gen_g_hop = partial(newton_terms, workspace.cheap())
            return cheap

        found = ramp.converge(mean_field, inner, workspace.cheap(), density, workspace.settings.conv_tol**0.5)
        mean_field.converged, mean_field.e_tot = found.converged, found.energy_hartree
        mean_field.mo_coeff, mean_field.mo_occ, mean_field.mo_energy = found.mo_coeff, found.mo_occ, found.mo_energy
        if found.converged or solver != "newton":
            return mean_field
        density = found.density  # the last resort: no cheap field
    mean_field = _with_solver(mean_field, solver, held)
    mean_field.callback = recorder
    mean_field.kernel(dm0=density)
    return mean_field


def _with_solver(mean_field: Any, solver: str, held: Any) -> Any:
    if solver in HELD:
        from pyscf.scf import addons

        mean_field.level_shift = HELD_LEVEL_SHIFT if solver == HELD[1] else 0.0
        orbitals, occupations = np.asarray(held.mo_coeff), np.asarray(held.mo_occ)
        n_orbitals = mean_field.check_linear_dependency(mean_field.get_ovlp()).shape[1]  # PySCF wants as many
        empty = n_orbitals - orbitals.shape[2]
        orbitals = np.pad(orbitals, ((0, 0), (0, 0), (0, empty)))
        return addons.mom_occ(mean_field, orbitals, np.pad(occupations, ((0, 0), (0, empty))))
    return with_solver(mean_field, solver)


def orbital_hessian(workspace: Workspace, solution: SCFSolution) -> OrbitalHessian:
    """Return the orbital Hessian of a solution: of a ramped field in vacuum by its cheap field, else by PySCF."""
    n_alpha, n_beta = (solution.mo_occ > 0).sum(axis=1)
    orbitals = (solution.mo_coeff, solution.mo_occ)
    if workspace.settings.ramp and workspace.settings.solvent_epsilon is None:
        cheap = workspace.cheap()
        core = workspace.mean_field(int(n_alpha - n_beta), bare=True).get_hcore()
        return cheap_hessian(cheap, core + cheap(density_of(*occupied_orbitals(*orbitals))).potential, *orbitals)
    return pyscf_hessian(workspace.mean_field(int(n_alpha - n_beta)), *orbitals)


def is_stable(workspace: Workspace, solution: SCFSolution) -> bool | None:
    """Return whether a solution is a minimum against real unrestricted orbital rotations (`orbital_hessian`).

    ``None``, with a message, where the analysis does not decide it.
    """
    try:
        return is_minimum(orbital_hessian(workspace, solution))
    except StabilityNotDecidedError as error:
        say(str(error))
        return None
