"""Exchange couplings of a molecule with two or more spin centres from broken-symmetry Kohn-Sham calculations."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits.electronic.broken_symmetry import (
    GUESSES,
    StateResult,
    StateRunner,
)
from molecular_qubits.electronic.errors import UnmatchedStatesError
from molecular_qubits.electronic.projection import (
    HeisenbergFit,
    ProjectedJ,
    convergence_error,
    fit_products,
    map_heisenberg,
    map_yamaguchi,
    project_j,
    unprojected_factor,
)
from molecular_qubits.electronic.scf import SCFSettings, SCFSolution, Workspace, can_ramp
from molecular_qubits.electronic.uncertainty import ErrorBar, combine_errors
from molecular_qubits.fields.alignments import Centres, check_centres, check_spins, enumerate_determinants
from molecular_qubits.fields.solvers import LADDER
from molecular_qubits.structure.clashes import check_clashes
from molecular_qubits.structure.environment import check_available, gpu_available
from molecular_qubits.structure.interfaces import as_molecule
from molecular_qubits.structure.memory import check_fit
from molecular_qubits.structure.molecule import Molecule, check_multiplicity, check_truth
from molecular_qubits.structure.pyscf_input import build_mole, check_method, check_room, is_fitted
from molecular_qubits.units import EXCHANGE_CONVENTION, HARTREE_TO_CM1
from shared.artifacts import Cache, provenance, write_text
from shared.files import check_file

__all__ = [
    "ExchangeResult",
    "HeisenbergFit",
    "ProjectedJ",
    "exchange_couplings",
    "map_heisenberg",
    "map_yamaguchi",
    "project_j",
]


GUESS_BASIS = "sto-3g"
"""Basis in which the high-spin state of a ramped calculation is converged first."""

POOR_FIT_SHARE = 0.1
"""Largest residual of a good Heisenberg fit, as a share of the energy range of the determinants."""


@dataclass(frozen=True, eq=False)
class ExchangeResult:
    """Exchange couplings of a molecule (H = -2 sum_{i<j} J_ij S_i.S_j, J > 0 ferromagnetic, cm^-1) and their states.

    Results are equal if `to_json` writes the same but for the provenance.

    Attributes
    ----------
    molecule, centres, spins, settings
        What was computed.
    states
        The determinants, high spin first.
    j_yamaguchi_cm1, j_noodleman_cm1, j_unprojected_cm1
        Couplings ``(n, n)``, symmetric, zero diagonal.
    residual_cm1
        Energy of each determinant minus that of the fitted model ``(n_states,)``. It means something only where there
        are more determinants than unknowns, see `overdetermined`: from four centres on.
    provenance
        Versions, commit, command, machine, and the seconds spent on the fields of all states, resumed parts included.
    solutions
        Orbitals of each state; not written to JSON.
    """

    molecule: Molecule
    centres: Centres
    spins: tuple[float, ...]
    settings: SCFSettings
    states: tuple[StateResult, ...]
    j_yamaguchi_cm1: np.ndarray
    j_noodleman_cm1: np.ndarray
    j_unprojected_cm1: np.ndarray
    residual_cm1: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)
    solutions: tuple[SCFSolution, ...] = field(default=(), repr=False)

    @property
    def overdetermined(self) -> bool:
        """Whether there are more determinants than unknowns (couplings and offset), so that a fit can fail."""
        n_centres = len(self.spins)
        return len(self.states) > n_centres * (n_centres - 1) // 2 + 1

    @property
    def _energies_cm1(self) -> np.ndarray:
        return np.array([state.energy_hartree for state in self.states]) * HARTREE_TO_CM1

    @property
    def convergence_cm1(self) -> np.ndarray:
        """Error of each Yamaguchi coupling ``(n, n)`` that ``conv_tol`` leaves, see `convergence_error`."""
        s2, determinants = [state.s2 for state in self.states], [state.determinant for state in self.states]
        return convergence_error(self.settings.conv_tol, self._energies_cm1, s2, self.spins, determinants)

    @property
    def j_local_cm1(self) -> np.ndarray:
        """Couplings ``(n, n)`` by <S_i.S_j> between the atoms of the centres in each determinant, in place of <S^2> of
        the whole; see the notes of `map_yamaguchi` for where they go wrong.
        """
        return fit_products(self._energies_cm1, [state.spin_products for state in self.states]).j_cm1

    @property
    def residual_s2(self) -> np.ndarray:
        """<S^2> of each determinant minus that of the fitted overlaps of the Yamaguchi map ``(n_states,)``."""
        determinants = [state.determinant for state in self.states]
        return map_heisenberg([state.s2 for state in self.states], self.spins, determinants).residual_cm1

    @property
    def poor_fit(self) -> bool | None:
        """Whether the Heisenberg model misses an energy, or the Yamaguchi map an <S^2>, by more than a tenth of what
        the flips of spins change; ``None`` if the determinants are as many as the unknowns: the fit cannot fail then.
        """
        if not self.overdetermined:
            return None
        found = ((self.residual_cm1, self._energies_cm1), (self.residual_s2, [state.s2 for state in self.states]))
        return any(bool(np.abs(residual).max() > POOR_FIT_SHARE * np.ptp(values)) for residual, values in found)

    def error_bar(self, i: int, j: int) -> ErrorBar:
        """Return the Yamaguchi coupling of centres `i` and `j` with the errors of projection and convergence, the parts
        that one functional, basis, grid and geometry can show; the others are listed as missing. The projections of
        three and more centres include `j_local_cm1`.
        """
        if i == j or not {i, j} <= set(range(len(self.spins))):
            raise ValueError(f"Arguments `i` and `j` must be two of {len(self.spins)} centres, but are {i} and {j}.")
        values = [float(j_cm1[i, j]) for j_cm1 in (self.j_yamaguchi_cm1, self.j_noodleman_cm1, self.j_unprojected_cm1)]
        if len(self.spins) > 2:
            values.append(float(self.j_local_cm1[i, j]))
        convergence = float(self.convergence_cm1[i, j])
        return combine_errors(values[0], projections_cm1=values, convergence_cm1=convergence)

    def __eq__(self, other: object) -> bool:
        return self._record() == other._record() if isinstance(other, ExchangeResult) else NotImplemented

    def _record(self) -> dict[str, Any]:
        return {
            "convention": EXCHANGE_CONVENTION,
            "molecule": self.molecule.to_dict(),
            "centres": [list(atoms) for atoms in self.centres],
            "spins": list(self.spins),
            "settings": self.settings.to_dict(),
            "states": [state.to_dict() for state in self.states],
            "j_yamaguchi_cm1": self.j_yamaguchi_cm1.tolist(),
            "j_noodleman_cm1": self.j_noodleman_cm1.tolist(),
            "j_unprojected_cm1": self.j_unprojected_cm1.tolist(),
            "j_local_cm1": self.j_local_cm1.tolist() if len(self.spins) > 2 else None,
            "residual_cm1": self.residual_cm1.tolist() if self.overdetermined else None,
            "residual_s2": self.residual_s2.tolist() if self.overdetermined else None,
            "poor_fit": self.poor_fit,
            "error_bars": [
                {"centres": [i, j]} | self.error_bar(i, j).to_dict() for i, j in combinations(range(len(self.spins)), 2)
            ],
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the result as JSON text, and write it to `path` if one is given (atomically)."""
        record = self._record() | {"provenance": self.provenance}
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        if path is not None:
            check_file(path, "Argument `path`")
            write_text(path, text)
        return text

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> ExchangeResult:
        """Read a result from the text of `to_json` (it starts with ``{``) or from a file, named by anything else.

        Raises
        ------
        ValueError
            If it is not a result of `to_json`: another convention, or couplings that do not follow from its states.
        """
        is_text = isinstance(source, str) and source.lstrip().startswith("{")
        name = "the text" if is_text else repr(str(source))
        try:
            return cls._from_record(json.loads(str(source) if is_text else Path(source).read_text(encoding="utf-8")))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            why = f"key {error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(
                f"Argument `source` must be what `to_json` or `molecular-qubits exchange --json` wrote, but {name} is "
                f"not: {why}."
            ) from error

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> ExchangeResult:
        molecule = Molecule.from_dict(record["molecule"])
        centres = check_centres(record["centres"], molecule.n_atoms)
        spins = tuple(float(x) for x in check_spins(record["spins"], len(centres)))
        states = tuple(StateResult.from_dict(state) for state in record["states"])
        if [state.determinant for state in states] != enumerate_determinants(spins):
            raise ValueError("`states` must hold one state for each alignment of the spins, high spin first")
        if record["convention"] != EXCHANGE_CONVENTION:
            raise ValueError(f"`convention` must be {EXCHANGE_CONVENTION!r}, but is {record['convention']!r}")
        yamaguchi, noodleman = (fit.j_cm1 for fit in couplings_of_states(states, spins))
        unprojected = noodleman * unprojected_factor(spins)
        return cls(
            molecule=molecule,
            centres=centres,
            spins=spins,
            settings=SCFSettings(**record["settings"]),
            states=states,
            j_yamaguchi_cm1=_read_couplings(record, "j_yamaguchi_cm1", yamaguchi),
            j_noodleman_cm1=_read_couplings(record, "j_noodleman_cm1", noodleman),
            j_unprojected_cm1=_read_couplings(record, "j_unprojected_cm1", unprojected),
            residual_cm1=_read_numbers(record["residual_cm1"] or [0.0] * len(states), "residual_cm1", (len(states),)),
            provenance=record["provenance"],
        )


def _read_couplings(record: dict[str, Any], name: str, expected: np.ndarray) -> np.ndarray:
    matrix = _read_numbers(record[name], name, expected.shape)
    if not np.allclose(matrix, expected, rtol=1e-6, atol=1e-4):
        raise ValueError(
            f"`{name}` must follow from the energies and <S^2> of `states`, {expected.tolist()}, but is "
            f"{matrix.tolist()}"
        )
    return matrix


def _read_numbers(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    found = np.array(value, dtype=float)
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"`{name}` must be finite numbers of shape {shape}, but is {found.tolist()}")
    return found


def exchange_couplings(
    molecule: Any,
    centres: Sequence[Iterable[int]],
    *,
    spins: Sequence[float] | None = None,
    xc: str = "b3lyp",
    basis: str = "6-31g*",
    grid_level: int = 3,
    density_fit: bool | None = None,
    auxbasis: str | None = None,
    conv_tol: float = 1e-9,
    max_cycle: int = 60,
    solvers: Sequence[str] = LADDER,
    guesses: Sequence[str] = GUESSES,
    guess_basis: str | None = None,
    ramp: bool | None = None,
    solvent_epsilon: float | None = None,
    dispersion: str | None = None,
    device: str | None = None,
    stability: bool = True,
    cache: Cache | None = None,
) -> ExchangeResult:
    """Compute the exchange couplings between spin centres from broken-symmetry Kohn-Sham determinants.

    Parameters
    ----------
    molecule
        The `Molecule`, or ASE ``Atoms`` or an RDKit ``Mol`` (see `as_molecule`). Its multiplicity is not used: the
        high-spin state follows from `spins`.
    centres
        Atom indices of each spin centre: ``n`` disjoint sets.
    spins
        Spin of each centre; 1/2 each if ``None``. A triplet chromophore has spin 1.
    xc, basis
        Functional and basis set by their PySCF names. PySCF's ``"b3lyp"`` has the VWN3 correlation of Gaussian's, which
        ORCA calls ``B3LYP/G``; ORCA's own ``B3LYP`` is ``"b3lyp5"``.
    grid_level
        PySCF integration grid, 0 (coarse) to 9.
    density_fit
        Fit the density; ``None``: from 20 atoms on.
    auxbasis
        Fitting basis; ``None`` lets PySCF choose.
    conv_tol
        Energy change at convergence, hartree.
    max_cycle
        Cycles for each solver.
    solvers
        The fallback ladder: ``"diis"``, ``"level shift"``, ``"newton"`` (second order: a cycle takes as long as tens of
        the others), or some of them.
    guesses
        Broken-symmetry guesses in the order in which they are tried: ``"fragment"`` (localised magnetic orbitals
        flipped), ``"swap"`` (density exchanged on the flipped centre).
    guess_basis
        Small basis in which the high-spin state is converged first; ``None``: STO-3G where the fields are ramped in
        another basis, else PySCF's guess.
    ramp
        Converge cheap fields (single precision, coarse grid) corrected by exact ones: the same end, several times
        sooner. ``None``: wherever it is possible, see `SCFSettings`.
    solvent_epsilon
        Dielectric constant of an implicit solvent (`environment.SOLVENT_MODEL`); ``None``: vacuum.
    dispersion
        Empirical dispersion energy, one of `environment.DISPERSIONS`; it shifts all states of a geometry alike, so that
        couplings change only with a geometry relaxed by it. ``None``: without.
    device
        ``"cpu"``, or ``"gpu"`` for gpu4pyscf; ``None``: a GPU if there is one.
    stability
        Analyse the internal stability of every state; it is reported, and an unstable state is not left.
    cache
        Where finished determinants and checkpoints are kept; the user's cache folder if ``None``. A killed run
        continues when it is called again.

    Returns
    -------
    ExchangeResult
        Yamaguchi, Noodleman and unprojected couplings in cm^-1, and all determinants with energy, <S^2> and spin
        populations. Least squares over every distinct determinant: Noodleman through Ising products (`map_heisenberg`),
        Yamaguchi through <S^2> of each determinant (`map_yamaguchi`); for two centres as `project_j`.

    Raises
    ------
    ValueError
        If centres overlap, are empty or out of range, the spins do not fit the number of electrons, atoms clash, or the
        functional, a basis or a guess is unknown. All this is checked before any field is run.
    InsufficientMemoryError
        If the fit needs more memory than there is, or more room for a scratch file; estimated before any field is run.
    ModuleNotFoundError
        If dispersion or a GPU is asked for and what they need is not installed.
    SCFNotConvergedError
        If a state does not converge.
    WrongStateError
        If a state converges to another one than asked for (<S^2>, spin populations), or to another occupation of
        orbitals than the high-spin state (`UnmatchedStatesError`).
    """
    molecule = as_molecule(molecule)
    sets = check_centres(centres, molecule.n_atoms)
    values = tuple(float(x) for x in check_spins([0.5] * len(sets) if spins is None else spins, len(sets)))
    high_spin_multiplicity = check_high_spin(molecule, values)
    check_attempts(guesses, solvers)
    check_truth(stability=stability)
    check_clashes(molecule)
    settings, guess_basis = prepare_settings(
        molecule, high_spin_multiplicity, xc=xc, basis=basis, grid_level=grid_level, density_fit=density_fit,
        auxbasis=auxbasis, conv_tol=conv_tol, max_cycle=max_cycle, guess_basis=guess_basis, ramp=ramp,
        solvent_epsilon=solvent_epsilon, dispersion=dispersion, device=device,
    )  # fmt: skip
    runner = StateRunner(
        Workspace(molecule, settings), sets, values, Cache.of(cache, "scf"),
        solvers=solvers, guesses=guesses, guess_basis=guess_basis, stability=stability,
    )  # fmt: skip
    found = _run_states(runner, enumerate_determinants(values))
    states, solutions = tuple(state for state, _ in found), tuple(solution for _, solution in found)
    yamaguchi, noodleman = couplings_of_states(states, values)
    config = settings.to_dict() | {
        "solvers": list(solvers), "guesses": list(guesses), "guess_basis": guess_basis, "stability": stability,
    }  # fmt: skip
    return ExchangeResult(
        molecule=molecule.with_multiplicity(high_spin_multiplicity),
        centres=sets,
        spins=values,
        settings=settings,
        states=states,
        j_yamaguchi_cm1=yamaguchi.j_cm1,
        j_noodleman_cm1=noodleman.j_cm1,
        j_unprojected_cm1=noodleman.j_cm1 * unprojected_factor(values),
        residual_cm1=noodleman.residual_cm1,
        provenance=provenance(config, sum(state.seconds for state in states)),
        solutions=solutions,
    )


def check_attempts(guesses: Sequence[str] = GUESSES, solvers: Sequence[str] = LADDER) -> None:
    """Raise a `ValueError` if the guesses or the solvers are not those that `exchange_couplings` takes."""
    for guess in guesses:
        if guess not in GUESSES:
            raise ValueError(f"Argument `guesses` must hold some of {GUESSES}, but holds {guess!r}.")
    if not guesses:
        raise ValueError(f"Argument `guesses` must hold some of {GUESSES}, but is empty.")
    if not solvers or tuple(solvers) != tuple(name for name in LADDER if name in solvers):
        raise ValueError(f"Argument `solvers` must hold some of {LADDER} in this order, but was {tuple(solvers)}.")


def prepare_settings(
    molecule: Molecule,
    multiplicity: int,
    *,
    xc: str = "b3lyp",
    basis: str = "6-31g*",
    density_fit: bool | None = None,
    conv_tol: float = 1e-9,
    guess_basis: str | None = None,
    ramp: bool | None = None,
    device: str | None = None,
    **others: Any,
) -> tuple[SCFSettings, str | None]:
    """Return the settings of the fields and the guess basis for the arguments of `exchange_couplings`, checked.

    ``multiplicity`` is that of the high-spin state.
    """
    if ramp is not None:
        check_truth(ramp=ramp)
    check_method(molecule, xc, basis)
    check_room(molecule, multiplicity, basis)
    where = ("gpu" if gpu_available() else "cpu") if device is None else device
    fit = is_fitted(molecule.n_atoms, density_fit)
    ramped = (where == "cpu" and can_ramp(xc, fit, conv_tol)) if ramp is None else ramp
    settings = SCFSettings(
        xc=xc, basis=basis, density_fit=fit, conv_tol=conv_tol, ramp=ramped, device=where, **others
    )  # fmt: skip
    check_available(settings.dispersion, settings.device, xc)
    if guess_basis is not None:
        check_method(molecule, xc, guess_basis, name="guess_basis")
        check_room(molecule, multiplicity, guess_basis, name="guess_basis")
    elif settings.ramp and settings.basis.lower() != GUESS_BASIS:
        with suppress(ValueError):  # an element that it lacks, or more electrons than functions
            check_method(molecule, xc, GUESS_BASIS)
            check_room(molecule, multiplicity, GUESS_BASIS)
            guess_basis = GUESS_BASIS
    if settings.density_fit:
        mole = build_mole(molecule, basis, molecule.n_electrons % 2)
        check_fit(mole, basis, xc, settings.auxbasis, ramp=ramped, device=where)
    return settings, guess_basis


def _run_states(runner: StateRunner, determinants: Sequence[tuple[int, ...]]) -> list[tuple[StateResult, SCFSolution]]:
    """Run all determinants; once again from another high-spin state if the first does not match the others."""
    try:
        return [runner.run(determinant) for determinant in determinants]
    except UnmatchedStatesError as error:
        if not runner.restart(error):
            raise
        return [runner.run(determinant) for determinant in determinants]


def couplings_of_states(states: Sequence[StateResult], spins: Sequence[float]) -> tuple[HeisenbergFit, HeisenbergFit]:
    """Return the Yamaguchi and the Noodleman fit of a set of determinants, high spin first."""
    energies = np.array([state.energy_hartree for state in states])
    energies_cm1 = (energies - energies[0]) * HARTREE_TO_CM1
    determinants = [state.determinant for state in states]
    yamaguchi = map_yamaguchi(energies_cm1, [state.s2 for state in states], spins, determinants)
    return yamaguchi, map_heisenberg(energies_cm1, spins, determinants)


def check_high_spin(molecule: Molecule, spins: Sequence[float]) -> int:
    """Return the multiplicity of all spins up after checking that the electrons of the molecule can have it."""
    multiplicity = round(2 * sum(spins)) + 1
    try:
        check_multiplicity(molecule.n_electrons, multiplicity)
    except ValueError:
        raise ValueError(
            f"Argument `spins` must fit the number of electrons, but {tuple(spins)} give the high-spin multiplicity "
            f"{multiplicity}, which {molecule.n_electrons} electrons cannot have. Check `spins`, `charge` and the "
            "hydrogen atoms."
        ) from None
    return multiplicity
