"""High-spin and broken-symmetry determinants of a molecule with spin centres: enumerate, converge, check."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits.electronic.errors import SCFNotConvergedError, UnmatchedStatesError, WrongStateError
from molecular_qubits.electronic.failed_attempts import FailedAttempts, Failure
from molecular_qubits.electronic.scf import HELD, SCFSolution, Workspace, is_stable, read_checkpoint, run_scf
from molecular_qubits.fields import guesses as _guesses
from molecular_qubits.fields.alignments import (
    POLARISATION_DIFFERENCE,
    S2_TOLERANCE,
    SPIN_SHARE,
    Centres,
    misalignment,
    polarised_alike,
    separate_spin_s2,
    state_label,
)
from molecular_qubits.fields.populations import (
    atom_of_orbital,
    local_spin_products,
    lowdin_spins,
    mulliken_spins,
    occupation_changes,
    promotion,
    spin_polarisation,
    spin_squared,
)
from molecular_qubits.fields.solvers import LADDER
from molecular_qubits.structure.pyscf_input import outside_files
from molecular_qubits.units import HARTREE_TO_CM1
from shared.artifacts import Cache, remove, versions, write_json
from shared.progress import say

_ADVICE = "Try other atom sets in `centres`, another entry of `guesses`, another functional, or check the geometry."

RESTART_GAIN_HARTREE = 1e-5
"""A high-spin state must be lower than the one before by this to replace it."""

GUESSES = ("fragment", "swap")
"""Broken-symmetry guesses: localised magnetic orbitals flipped as a determinant; density exchanged on the centre."""

PROMOTION_LIMIT = 0.8
"""Most electrons by which the total densities of high-spin and broken-symmetry state may differ (`promotion`). Pairs
that differ in their alignment stay below 0.6 (H-He-H at 1.25 Å: 0.52), those that differ in the occupation of orbitals
lie above 1.2. Of more centres each inner one may add as much, but no single orbital may gain or lose more: spin flips
of chains of H and He stay below 0.78 (`occupation_changes`; four H at 1.6 Å: 0.77), an electron in another orbital is
1."""

HELD_LIMIT = 0.35
"""Most electrons by which the total densities of a held state and of the high-spin state may differ (`promotion`).
States that relax differ by 0.06 (a naphthalene and a nitroxide, PBE) to 0.29 (a carbonyl beside a nitroxide); with
r2SCAN the first one does by 0.45, a mixture with a charge transfer between the two, into which less and less exact
exchange in r2SCAN leads."""


@dataclass(frozen=True)
class StateResult:
    """One converged and checked determinant.

    ``determinant`` holds +1 or -1 for each centre. Spin populations are n_α - n_β for each centre, Mulliken and Löwdin.
    ``spin_products`` is <S_i.S_j> ``(n, n)`` between the atoms of the centres. ``stable`` is ``None`` if the internal
    stability was not analysed, or the analysis did not decide.
    ``history`` holds energy in hartree and norm of the gradient after each cycle. ``promoted_electrons`` is how far the
    state is from the high-spin one (`promotion`; of at most `PROMOTION_LIMIT`, or `HELD_LIMIT` for a held one), and
    ``polarisation`` the <S^2> of all electrons but the magnetic ones (`spin_polarisation`); both are ``None`` where
    they are not known, as in files of before they were kept.
    """

    label: str
    determinant: tuple[int, ...]
    energy_hartree: float
    s2: float
    s2_separate_spins: float
    mulliken_spins: tuple[float, ...]
    lowdin_spins: tuple[float, ...]
    spin_products: tuple[tuple[float, ...], ...]
    guess: str
    solver: str
    cycles: int
    seconds: float
    stable: bool | None
    history: tuple[tuple[float, float], ...] = ()
    promoted_electrons: float | None = None
    polarisation: float | None = None

    @property
    def held(self) -> bool:
        """Whether the state is held at the orbitals of its guess, for the field alone ends in another one."""
        return self.solver in HELD

    @property
    def stability(self) -> str:
        """``stable`` in a word or two."""
        return {True: "yes", False: "no", None: "not known"}[self.stable]

    def to_dict(self) -> dict[str, Any]:
        """Return the state as a JSON-able record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> StateResult:
        """Make a state from the record of `to_dict`."""
        tuples = ("determinant", "mulliken_spins", "lowdin_spins")
        fields = {**record, **{name: tuple(record[name]) for name in tuples}}
        fields["history"] = tuple((energy, gradient) for energy, gradient in record.get("history", ()))
        fields["spin_products"] = tuple(tuple(row) for row in record["spin_products"])
        return cls(**fields)


def _limits() -> list[Any]:
    """Return what states are checked by: guesses that failed by other limits are tried again."""
    return [S2_TOLERANCE, list(SPIN_SHARE), PROMOTION_LIMIT, HELD_LIMIT, list(POLARISATION_DIFFERENCE)]


def _collapsed(failures: Sequence[Exception]) -> bool:
    """Return whether a state must be held: all guesses failed, some by a collapse to another spin state."""
    return any(isinstance(failure, WrongStateError) for failure in failures) and not any(
        isinstance(failure, UnmatchedStatesError) for failure in failures
    )


class StateRunner:
    """Converges and checks the determinants of one molecule; finished and unfinished runs are kept in a cache.

    Failed guesses are kept as well, for the same solvers and cycles: what a run ends with does not depend on
    interruptions.

    A broken-symmetry state that collapses from every guess is held: from the fragment guess with the solvers `HELD`,
    which PySCF has for processors only, not for graphics cards.

    Parameters
    ----------
    workspace
        Molecule, settings and shared integrals.
    centres
        Atom indices of each spin centre.
    spins
        Spin of each centre.
    cache
        Where finished determinants and checkpoints are kept.
    guesses
        Broken-symmetry guesses in the order in which they are tried.
    solvers
        Solvers of the field in the order in which they are tried. A state that one of them found counts as finished
        whatever the others are, and whatever number of cycles they were allowed.
    stability
        Analyse the internal stability of each state, also of one that is finished.
    guess_basis
        Basis in which the high-spin state is converged first; its projection is the start density.
    """

    def __init__(
        self,
        workspace: Workspace,
        centres: Centres,
        spins: Sequence[float],
        cache: Cache,
        *,
        guesses: Sequence[str] = GUESSES,
        solvers: Sequence[str] = LADDER,
        stability: bool = True,
        guess_basis: str | None = None,
    ) -> None:
        self.workspace, self.centres, self.spins, self.cache = workspace, centres, tuple(spins), cache
        self.guesses, self.stability, self.guess_basis = tuple(guesses), stability, guess_basis
        self.solvers = tuple(solvers)
        self.overlap = workspace.mole.intor_symmetric("int1e_ovlp")
        self.owner = atom_of_orbital(workspace.mole)
        self.high_spin: SCFSolution | None = None
        self.aligned_from: tuple[tuple[int, ...], SCFSolution] | None = None

    def run(self, determinant: tuple[int, ...]) -> tuple[StateResult, SCFSolution]:
        """Return the determinant with the given alignment, from the cache if it is there.

        Raises
        ------
        SCFNotConvergedError
            If no guess and no solver converged.
        WrongStateError
            If every guess converged to another state.
        """
        key, high_spin = self.key(determinant), all(sign > 0 for sign in determinant)
        if not high_spin and self.high_spin is None:
            self.run((1,) * len(self.spins))
        path, analysed = self.cache.path(key), {**key, "kind": "stability"}
        known = path.is_dir()
        state, solution = self._finished(determinant, key)
        if known and self.failure(state, solution) is not None:  # finished when there were fewer checks
            remove(self.cache.path(analysed))
            remove(path)
            state, solution = self._finished(determinant, key)
        elif known:  # described when there were fewer measures
            state = self.describe(state.label, determinant, solution)
        if self.stability:
            stable = self.cache.record("stable.json", analysed, lambda: is_stable(self.workspace, solution))
            state = replace(state, stable=stable)
        if high_spin:
            self.high_spin = solution
        return state, solution

    def _finished(self, determinant: tuple[int, ...], key: dict[str, Any]) -> tuple[StateResult, SCFSolution]:
        folder = self.cache.get_or_make(key, lambda path: self._make(determinant, key, path))
        state = StateResult.from_dict(json.loads((folder / "state.json").read_text(encoding="utf-8")))
        with np.load(folder / "orbitals.npz") as saved:
            return state, SCFSolution(
                state.energy_hartree, saved["mo_coeff"], saved["mo_occ"], state.solver, state.cycles, state.seconds,
                state.guess, state.history,
            )  # fmt: skip

    def key(self, determinant: tuple[int, ...]) -> dict[str, Any]:
        """Return everything that the result depends on."""
        return {
            **self._field_key("determinant", self.workspace),
            "centres": [list(atoms) for atoms in self.centres],
            "spins": list(self.spins),
            "determinant": list(determinant),
            "guesses": list(self.guesses),
            "guess_basis": self.guess_basis,
            **({} if self.aligned_from is None else {"aligned_from": list(self.aligned_from[0])}),
        }

    @staticmethod
    def _field_key(kind: str, workspace: Workspace) -> dict[str, Any]:
        molecule, settings = workspace.molecule, workspace.settings.to_dict()
        return {
            "kind": kind,
            "symbols": list(molecule.symbols),
            "coordinates_angstrom": [[round(x, 8) for x in row] for row in molecule.coordinates],
            "charge": molecule.charge,
            "settings": {name: value for name, value in settings.items() if name != "max_cycle"},
            "versions": versions(("pyscf",)),
            **outside_files(settings["basis"], settings["auxbasis"]),
        }

    def _make(self, determinant: tuple[int, ...], key: dict[str, Any], folder: Path) -> None:
        work = self.cache.work_folder(key)
        conditions = {"solvers": list(self.solvers), "max_cycle": self.workspace.settings.max_cycle}
        failed = FailedAttempts(work, conditions | {"limits": _limits()})
        high_spin = all(sign > 0 for sign in determinant)
        start = ("small basis", "minao") if self.guess_basis else ("minao",)
        start = start if self.aligned_from is None else ("aligned",)
        attempts = [(name, self.solvers) for name in (start if high_spin else self.guesses)]
        if not high_spin and "fragment" in self.guesses and self.workspace.settings.device == "cpu":
            attempts.append(("fragment", HELD))
        failures: dict[str, Failure] = {}
        for name, solvers in attempts:
            if solvers is HELD and not _collapsed(list(failures.values())):
                continue
            attempt = f"held {name}" if solvers is HELD else name
            known = failed.find(attempt)
            if known is not None:  # before an interruption
                failures[attempt] = known
                continue
            if failures:  # why the last guess failed is said by the error
                reason = str(list(failures.values())[-1]).split(". ")[0]
                say(f"{reason}. Next guess: {attempt!r}.")
            try:
                state, solution = self._attempt(name, solvers, determinant, work / "orbitals.npz")
            except (SCFNotConvergedError, WrongStateError) as failure:
                failed.keep(attempt, failure)
                failures[attempt] = failure
                if isinstance(failure, WrongStateError):
                    remove(work / "orbitals.npz")  # there is nothing to go on with
                continue
            np.savez(folder / "orbitals.npz", mo_coeff=solution.mo_coeff, mo_occ=solution.mo_occ)
            write_json(folder / "state.json", state.to_dict())
            return
        last, reasons = next(reversed(failures)), list(failures.values())
        if isinstance(failures[last], SCFNotConvergedError):
            failed.forget(last)  # asked again, it goes on from its checkpoint
        wrong = [failure for failure in reasons if isinstance(failure, WrongStateError)]
        unmatched = [failure for failure in wrong if isinstance(failure, UnmatchedStatesError)]
        found = (*unmatched, *wrong[::-1], *reasons[::-1])[0]
        held = failures.get("held fragment")
        if type(found) is WrongStateError and isinstance(held, SCFNotConvergedError):
            raise WrongStateError(f"{found} Held by maximum overlap, it did not converge: {held}")
        raise found

    def _attempt(
        self, guess: str, solvers: Sequence[str], determinant: tuple[int, ...], checkpoint: Path
    ) -> tuple[StateResult, SCFSolution]:
        """Return the determinant from one guess, continued from the checkpoint if that belongs to it.

        Raises `SCFNotConvergedError`, or `WrongStateError` if it is another one.
        """
        label = state_label(determinant)
        n_unpaired = round(2 * sum(sign * spin for sign, spin in zip(determinant, self.spins, strict=True)))
        saved, density = read_checkpoint(checkpoint), None
        if all(sign > 0 for sign in determinant) and self.aligned_from is None and saved is None:
            solution = self._high_spin_field(guess, n_unpaired, label)
        else:
            resumed = saved is not None and saved.guess == guess and saved.solver not in HELD
            if solvers is HELD or not resumed:
                density = self._guess(guess, determinant, n_unpaired)
            solution = run_scf(
                self.workspace, n_unpaired, density, label=label, guess=guess, checkpoint=checkpoint, solvers=solvers
            )  # fmt: skip
        state = self.describe(label, determinant, solution)
        if n_unpaired == 0 and state.lowdin_spins[0] * determinant[0] < 0:  # the same state with all spins turned
            solution = replace(solution, mo_coeff=solution.mo_coeff[::-1], mo_occ=solution.mo_occ[::-1])
            state = self.describe(label, determinant, solution)
        failure = self.failure(state, solution)
        if failure is not None:
            raise failure
        return state, solution

    def _high_spin_field(self, guess: str, n_unpaired: int, label: str) -> SCFSolution:
        """Return the field with all spins up from the cache, where it does not depend on the centres, or run it."""
        key = {
            **self._field_key("high-spin field", self.workspace),
            "n_unpaired": n_unpaired,
            "guess": [guess, self.guess_basis] if guess == "small basis" else guess,
        }

        def start() -> np.ndarray | None:
            return self._guess(guess, (1,) * len(self.spins), n_unpaired)

        return self._cached_field(key, self.workspace, start, label=label, guess=guess, solvers=self.solvers)

    def _cached_field(
        self, key: dict[str, Any], workspace: Workspace, start: Callable[[], np.ndarray | None], **options: Any
    ) -> SCFSolution:
        """Return a field from the cache, or run it from its checkpoint or else from the density that `start` makes."""

        def make(folder: Path) -> None:
            checkpoint = self.cache.work_folder(key) / "orbitals.npz"
            density = None if checkpoint.is_file() else start()
            found = run_scf(workspace, key["n_unpaired"], density, checkpoint=checkpoint, **options)
            np.savez(folder / "orbitals.npz", mo_coeff=found.mo_coeff, mo_occ=found.mo_occ)
            record = asdict(replace(found, mo_coeff=np.empty(0), mo_occ=np.empty(0)))
            write_json(folder / "field.json", {name: record[name] for name in record if not name.startswith("mo_")})

        folder = self.cache.get_or_make(key, make)
        record = json.loads((folder / "field.json").read_text(encoding="utf-8"))
        history = tuple((energy, gradient) for energy, gradient in record.pop("history"))
        with np.load(folder / "orbitals.npz") as saved:
            return SCFSolution(mo_coeff=saved["mo_coeff"], mo_occ=saved["mo_occ"], history=history, **record)

    def high_spin_atomic_spins(self) -> np.ndarray:
        """Return the Löwdin spin population of each atom ``(n_atoms,)`` with all spins up; the centres do not count."""
        n_unpaired = round(2 * sum(self.spins))
        failures: list[SCFNotConvergedError] = []
        for name in ("small basis", "minao") if self.guess_basis else ("minao",):
            try:
                solution = self._high_spin_field(name, n_unpaired, state_label((1,)))
            except SCFNotConvergedError as error:
                failures.append(error)
                continue
            return lowdin_spins(solution.density, self.overlap, self.owner)
        raise failures[-1]

    def restart(self, error: UnmatchedStatesError) -> bool:
        """Seek a lower high-spin state from a broken-symmetry state that does not match the one found.

        Returns
        -------
        bool
            Whether there is one. It then takes the place of the high-spin state, and all determinants start from it.
        """
        old = self.high_spin
        if old is None or self.aligned_from is not None:
            return False
        self.aligned_from, self.high_spin = (error.determinant, error.solution), None
        say("The high-spin state is sought again from the broken-symmetry state, whose spins are aligned.")
        try:
            state, _ = self.run((1,) * len(self.spins))
        except (SCFNotConvergedError, WrongStateError):
            return False
        return state.energy_hartree < old.energy_hartree - RESTART_GAIN_HARTREE

    def _guess(self, name: str, determinant: tuple[int, ...], n_unpaired: int) -> np.ndarray | None:
        if name == "minao":
            return None
        if name == "aligned" and self.aligned_from is not None:
            signs, solution = self.aligned_from
            n_down = round(2 * sum(spin for sign, spin in zip(signs, self.spins, strict=True) if sign < 0))
            return _guesses.aligned_density(solution.mo_coeff, solution.mo_occ, self.overlap, n_down)
        if name == "small basis" and self.guess_basis is not None:
            return self._small_basis_density(self.guess_basis, n_unpaired)
        high_spin = self.high_spin
        if high_spin is None:
            raise RuntimeError("The high-spin state was not kept.")
        down = [centre for centre, sign in enumerate(determinant) if sign < 0]
        flipped = np.isin(self.owner, [atom for centre in down for atom in self.centres[centre]])
        if name == "swap":
            return _guesses.swap_density(high_spin.density, flipped)
        n_flipped = round(2 * sum(self.spins[centre] for centre in down))
        return _guesses.fragment_density(high_spin.mo_coeff, high_spin.mo_occ, self.overlap, flipped, n_flipped)

    def _small_basis_density(self, basis: str, n_unpaired: int) -> np.ndarray:
        settings = replace(
            self.workspace.settings,
            basis=basis,
            grid_level=0,
            conv_tol=1e-5,
            auxbasis=None,
            density_fit=True,
        )
        small = Workspace(self.workspace.molecule, settings)
        key = {**self._field_key("guess field", small), "n_unpaired": n_unpaired}
        label = f"high-spin guess in {basis}"
        solution = self._cached_field(key, small, lambda: None, label=label, guess="minao")
        return _guesses.project_density(solution.mo_coeff, solution.mo_occ, small.mole, self.workspace.mole)

    def describe(self, label: str, determinant: tuple[int, ...], solution: SCFSolution) -> StateResult:
        """Return energy, <S^2> and spin populations of a converged determinant."""
        density = solution.density
        mulliken = mulliken_spins(density, self.overlap, self.owner)
        lowdin = lowdin_spins(density, self.overlap, self.owner)
        products = local_spin_products(density, self.overlap, self.owner, self.centres)
        reference = None if all(sign > 0 for sign in determinant) else self.high_spin
        return StateResult(
            label=label,
            determinant=determinant,
            energy_hartree=solution.energy_hartree,
            s2=spin_squared(density, self.overlap),
            s2_separate_spins=separate_spin_s2(determinant, self.spins),
            mulliken_spins=tuple(float(mulliken[list(atoms)].sum()) for atoms in self.centres),
            lowdin_spins=tuple(float(lowdin[list(atoms)].sum()) for atoms in self.centres),
            spin_products=tuple(tuple(float(x) for x in row) for row in products),
            guess=solution.guess,
            solver=solution.solver,
            cycles=solution.cycles,
            seconds=round(solution.seconds, 2),
            stable=None,
            history=solution.history,
            promoted_electrons=None if reference is None else promotion(reference.density, density, self.overlap),
            polarisation=self._polarisation(determinant, solution),
        )

    def _polarisation(self, determinant: tuple[int, ...], solution: SCFSolution) -> float:
        n_down = round(2 * sum(spin for spin, sign in zip(self.spins, determinant, strict=True) if sign < 0))
        return spin_polarisation(solution.mo_coeff, solution.mo_occ, self.overlap, n_down)

    def failure(self, state: StateResult, solution: SCFSolution) -> WrongStateError | None:
        """Return why a state is not the one asked for, with what to try, or ``None`` if it is."""
        wrong = misalignment(state.determinant, self.spins, state.s2, state.lowdin_spins)
        start = "held by overlap with" if state.held else "from"
        converged = f"The {state.label} converged {start} the guess {state.guess!r}"
        if wrong is not None:
            return WrongStateError(f"{converged} {wrong}. {self._where_the_spin_is(solution)} {_ADVICE}")
        if self.high_spin is None or all(sign > 0 for sign in state.determinant):
            return None
        changes = np.abs(occupation_changes(self.high_spin.density, solution.density, self.overlap))
        moved, most = float(changes.sum() / 2), float(changes.max())
        allowed = PROMOTION_LIMIT * max(1, len(self.spins) - 2)  # overlap with both neighbours in a chain
        if moved > allowed or most > PROMOTION_LIMIT:
            return UnmatchedStatesError(
                f"{converged} to another occupation of orbitals than the high-spin state: {moved:.2f} electrons move "
                f"between them (at most {allowed:g} for a flip of spins), {most:.2f} of an electron in one orbital (at "
                f"most {PROMOTION_LIMIT:g}). Their energies say nothing about exchange. {_ADVICE}",
                state.determinant,
                solution,
            )
        gap = (state.energy_hartree - self.high_spin.energy_hartree) * HARTREE_TO_CM1
        polarised = self._polarisation(state.determinant, solution)
        reference = self._polarisation((1,) * len(self.spins), self.high_spin)
        if not polarised_alike(polarised - reference, gap):
            return UnmatchedStatesError(
                f"{converged} with another spin polarisation than the high-spin state: {polarised:.3f} of <S^2>, not "
                f"{reference:.3f}, where the energies differ by only {gap:+.1f} cm^-1. They say nothing about "
                f"exchange. {_ADVICE}",
                state.determinant,
                solution,
            )
        if state.held and moved > HELD_LIMIT:
            return WrongStateError(
                f"The {state.label} collapses from every guess, and held by overlap with the guess {state.guess!r} it "
                f"ends {moved:.2f} electrons away from the high-spin state (at most {HELD_LIMIT} for a flip of "
                f"spins), in a mixture with another state. {_ADVICE}"
            )
        return None

    def _where_the_spin_is(self, solution: SCFSolution) -> str:
        """Say which atoms hold spin: with other `centres` the state may be the one that was sought."""
        spins = lowdin_spins(solution.density, self.overlap, self.owner)
        largest = sorted(np.flatnonzero(np.abs(spins) >= 0.2), key=lambda atom: -abs(spins[atom]))[:8]
        if not largest:
            return "No atom holds spin."
        symbols = self.workspace.molecule.symbols
        return f"Its spin is on {', '.join(f'{symbols[atom]}{atom} ({spins[atom]:+.2f})' for atom in largest)}."
