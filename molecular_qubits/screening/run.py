"""From a library to a ranked list: couplings stage by stage in worker processes, then the predicted gate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from molecular_qubits.control.switched_gate import GateConditions, predict_gate
from molecular_qubits.screening.assembly import Candidate
from molecular_qubits.screening.known import KnownCoupling, identity, read_known
from molecular_qubits.screening.library import LibraryFault, read_library
from molecular_qubits.screening.stages import Job, Stage, finished, n_atoms, run_job
from molecular_qubits.units import EXCHANGE_CONVENTION
from shared.artifacts import provenance
from shared.config import FrozenConfig
from shared.files import check_folder
from shared.parallel import cpu_count
from shared.progress import say, track
from shared.tasks import Outcome, parallel_config, run_tasks

if TYPE_CHECKING:
    from shared.parsl_config import ParslConfig

COMPUTED = "computed"


class ScreeningConfig(FrozenConfig):
    """How a library is screened.

    Parameters
    ----------
    stages
        Levels of theory in order; each computes the best of the one before.
    gate
        Conditions under which the gate is judged.
    retries
        How often a task is started again after its worker died.
    """

    stages: tuple[Stage, ...] = Field(
        (Stage(), Stage(basis="6-31g*", grid_level=1, conv_tol=1e-7, keep=5)), min_length=1
    )
    gate: GateConditions = GateConditions()
    retries: int = Field(2, ge=0)


@dataclass(frozen=True)
class Coupling:
    """A coupling by the last level that was computed, in cm^-1, with its error and what the error leaves out.

    ``earlier_cm1`` are those of the levels before, by level. ``pair_spread_cm1``, part of the error, is half the range
    of the couplings of the radicals of a whole molecule, of which ``j_cm1`` is the mean.
    """

    j_cm1: float
    error_cm1: float
    level: str
    missing: tuple[str, ...]
    earlier_cm1: dict[str, float] = field(default_factory=dict)
    pair_spread_cm1: float = 0.0


def _earlier(coupling: Coupling) -> str | None:
    return "; ".join(f"{level}: {j_cm1:.6g}" for level, j_cm1 in coupling.earlier_cm1.items()) or None


@dataclass(frozen=True)
class ScreenedCandidate:
    """One row of the ranking.

    Attributes
    ----------
    candidate
        The molecule.
    rank
        From 1, the highest predicted fidelity first; ``None`` for a candidate without a prediction.
    status
        ``"computed"``, with what failed by a later level behind it; or why there is no prediction.
    n_atoms
        Of the whole molecule.
    on, off
        Exchange with lit and with dark coupler, as far as computed.
    fidelity, fidelity_error, hold_ns, fidelity_floor
        See `GatePrediction`.
    on_off_ratio, ratio_is_bound
        |J_on / J_off|, or a lower bound of it where J_off is not resolved.
    """

    candidate: Candidate
    status: str
    n_atoms: int
    rank: int | None = None
    on: Coupling | None = None
    off: Coupling | None = None
    fidelity: float | None = None
    fidelity_error: float | None = None
    hold_ns: float | None = None
    fidelity_floor: float | None = None
    on_off_ratio: float | None = None
    ratio_is_bound: bool | None = None

    @property
    def gains(self) -> bool:
        """Whether the predicted fidelity is above what local rotations reach without any coupling."""
        return self.fidelity is not None and self.fidelity_floor is not None and self.fidelity > self.fidelity_floor

    def to_row(self) -> dict[str, Any]:
        """Return the row of the CSV."""
        return {
            "rank": self.rank,
            "name": self.candidate.name,
            "fidelity": self.fidelity,
            "fidelity error": self.fidelity_error,
            "above local rotations": None if self.fidelity is None else self.gains,
            "J_on (cm^-1)": None if self.on is None else self.on.j_cm1,
            "J_on error (cm^-1)": None if self.on is None else self.on.error_cm1,
            "J_off (cm^-1)": None if self.off is None else self.off.j_cm1,
            "J_off error (cm^-1)": None if self.off is None else self.off.error_cm1,
            "J_on/J_off": self.on_off_ratio,
            "ratio is a lower bound": self.ratio_is_bound,
            "hold (ns)": self.hold_ns,
            "level of J_on": None if self.on is None else self.on.level,
            "level of J_off": None if self.off is None else self.off.level,
            "J_on by earlier levels (cm^-1)": None if self.on is None else _earlier(self.on),
            "J_off by earlier levels (cm^-1)": None if self.off is None else _earlier(self.off),
            "atoms": self.n_atoms,
            "status": self.status,
            "smiles": self.candidate.off.smiles,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        record = asdict(replace(self, candidate=None))  # type: ignore[arg-type]
        return {**record, "candidate": self.candidate.to_dict()}


@dataclass(frozen=True)
class ScreeningResult:
    """Candidates by rank, those without a prediction behind them; rows of the library that could not be used.

    ``couplings`` are all that were computed or known, of every level.
    """

    candidates: tuple[ScreenedCandidate, ...]
    faults: tuple[LibraryFault, ...]
    config: ScreeningConfig
    provenance: dict[str, Any] = field(default_factory=dict, compare=False)
    couplings: tuple[KnownCoupling, ...] = field(default=(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        return {
            "convention": EXCHANGE_CONVENTION,
            "config": self.config.model_dump(mode="json"),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "faults": [asdict(fault) for fault in self.faults],
            "provenance": self.provenance,
        }


def screen(
    library: str | Path,
    out: str | Path | None = None,
    *,
    config: ScreeningConfig | None = None,
    n_workers: int | None = None,
    executor: str = "processes",
    parsl: ParslConfig | None = None,
    cache: str | Path | None = None,
    known: str | Path | None = None,
    finished_only: bool = False,
) -> ScreeningResult:
    """Screen a library of molecules for the switched two-qubit gate.

    Parameters
    ----------
    library
        CSV file, see `read_library`.
    out
        Folder for ``ranking.csv``, ``ranking.md``, ``ranking.json``, ``couplings.jsonl``, ``report.html`` and the
        figure ``ranking.png``; nothing is written if ``None``.
    config
        Levels of theory and gate conditions; the defaults if ``None``.
    n_workers
        Worker processes; all usable processors if ``None``.
    executor, parsl
        What runs the tasks, see `shared.tasks.parallel_config`.
    cache
        Folder of finished results and checkpoints; the user's cache folder if ``None``.
    known
        ``couplings.jsonl`` of an earlier run, perhaps on another machine: couplings of the same structure, level and
        versions are taken from it; those of other levels go on into the ``couplings.jsonl`` of `out`.
    finished_only
        Compute no coupling: rank what the cache and `known` hold.

    Returns
    -------
    ScreeningResult
        A candidate that fails says why in its status and stops no other.

    Raises
    ------
    FileNotFoundError, ValueError
        If the library cannot be read or gives no candidate, or an argument is out of range.
    ModuleNotFoundError
        If structures cannot be drawn for `out`.
    OSError
        If the disk is full. Finished results are kept.
    KeyboardInterrupt
        After what has finished was written to `out`.
    """
    config = config or ScreeningConfig()
    if n_workers is not None and n_workers < 1:
        raise ValueError(f"Argument `n_workers` must be at least 1, but was {n_workers}.")
    found = read_library(library)
    before = {} if known is None else read_known(known)
    for fault in found.faults:
        say(f"{Path(library).name}, {fault}; the row is left out.")
    if out is not None:
        from molecular_qubits.screening.report import check_drawing

        check_folder(out)
        check_drawing()
    if cache is not None:
        check_folder(cache, "Argument `cache`")
    screening = _Screening(found.candidates, config, None if cache is None else str(cache), before)
    interruption: BaseException | None = None
    with parallel_config(executor, parsl):
        try:
            for number in range(len(config.stages)):
                screening.run_stage(number, cpu_count() if n_workers is None else n_workers, finished_only)
        except KeyboardInterrupt as error:
            interruption = error
    if before:
        say(f"{screening.n_known} couplings were taken from {Path(known or '').name}.")
    result = ScreeningResult(screening.ranked(), found.faults, config, provenance(config), screening.all_couplings())
    if out is not None:
        from molecular_qubits.screening.report import write_results

        write_results(result, out)
    if interruption is not None:
        raise interruption
    return result


class _Screening:
    """Records of the jobs of all stages so far."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        config: ScreeningConfig,
        cache: str | None,
        known: Mapping[str, KnownCoupling],
    ) -> None:
        self.candidates, self.config, self.cache, self.known = candidates, config, cache, known
        self.couplings: dict[tuple[str, str, int], KnownCoupling] = {}
        self.n_known = 0
        self.records: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.faults: dict[str, str] = {}
        self.sizes = {candidate.name: n_atoms(candidate.off.smiles) for candidate in candidates}
        self._predictions: dict[str, tuple[Any, dict[str, Any]]] = {}

    def run_stage(self, number: int, n_workers: int, finished_only: bool) -> None:
        stage = self.config.stages[number]
        chosen = list(self.candidates)
        if number > 0:
            chosen = [row.candidate for row in self.ranked() if row.rank is not None]
        if stage.max_atoms is not None:
            for candidate in chosen if number == 0 else ():  # later ones have a result that says of which level it is
                if (size := self.sizes[candidate.name]) > stage.max_atoms:
                    self.faults[candidate.name] = f"not computed: {size} atoms, more than the {stage.max_atoms} allowed"
            chosen = [candidate for candidate in chosen if self.sizes[candidate.name] <= stage.max_atoms]
        jobs: list[tuple[int, Job]] = []
        for candidate in chosen[: stage.keep]:
            for state, structure in (("on", candidate.on), ("off", candidate.off)):
                job = Job(candidate.name, structure, state, stage, self.cache)
                if (record := self._found(job)) is not None:
                    self._keep(job, number, record)
                else:
                    jobs.append((self.sizes[candidate.name], job))
        jobs.sort(key=lambda entry: entry[0])  # whole rows early: both states of the smallest molecules first
        if finished_only or stage.finished_only or not jobs:
            return

        def done(index: int, outcome: Outcome[dict[str, Any]]) -> None:
            _, job = jobs[index]
            if outcome.error is not None:
                level = f" by {_level(stage)}" if number > 0 else ""
                self.faults[job.name] = f"failed: J_{job.state}{level}: {outcome.error}"
            elif outcome.value is not None:
                self._keep(job, number, outcome.value)

        run_tasks(
            run_job,
            [job for _, job in jobs],
            n_workers=n_workers,
            retries=self.config.retries,
            description=f"Screening, {stage.xc}/{stage.basis}",
            on_done=done,
        )

    def _found(self, job: Job) -> dict[str, Any] | None:
        """Return the record of a job from the cache or the couplings that are known."""
        record = finished(job)
        if record is None and (known := self.known.get(identity(job.key))) is not None:
            self.n_known += 1
            return known.record
        return record

    def _keep(self, job: Job, number: int, record: dict[str, Any]) -> None:
        self.records[job.name, job.state, number] = record
        self.couplings[job.name, job.state, number] = KnownCoupling.of(job, record)

    def all_couplings(self) -> tuple[KnownCoupling, ...]:
        """Return what was computed or taken, then what else is known of the candidates, such as other levels."""
        taken = {identity(coupling.key) for coupling in self.couplings.values()}
        names = {candidate.name for candidate in self.candidates}
        rest = [known for key, known in self.known.items() if key not in taken and known.name in names]
        return (*self.couplings.values(), *rest)

    def ranked(self) -> tuple[ScreenedCandidate, ...]:
        rows = [self._judge(candidate) for candidate in track(self.candidates, "Predicting gates")]
        # Where predictions agree to 0.001, the larger switching ratio wins.
        rows.sort(key=lambda row: (row.fidelity is None, -round(row.fidelity or 0, 3), -(row.on_off_ratio or 0)))
        with_prediction = sum(row.fidelity is not None for row in rows)
        return tuple(
            replace(row, rank=number + 1) if number < with_prediction else row for number, row in enumerate(rows)
        )

    def _judge(self, candidate: Candidate) -> ScreenedCandidate:
        from molecular_qubits.electronic.uncertainty import ratio_or_bound

        on, off = self._coupling(candidate.name, "on"), self._coupling(candidate.name, "off")
        missing = " and ".join(f"J_{state}" for state, found in (("on", on), ("off", off)) if found is None)
        fault = self.faults.get(candidate.name)
        if missing:
            status = fault or f"{missing} not computed"
        else:
            status = COMPUTED if fault is None else f"{COMPUTED}; {fault}"  # by an earlier level
        row = ScreenedCandidate(candidate, status, self.sizes[candidate.name], on=on, off=off)
        if on is None or off is None:
            return row
        state = (on, off)
        if self._predictions.get(candidate.name, (None,))[0] != state:
            gate = predict_gate(
                on.j_cm1, off.j_cm1, on_error_cm1=on.error_cm1, off_error_cm1=off.error_cm1, conditions=self.config.gate
            )
            ratio, error = ratio_or_bound(on.j_cm1, on.error_cm1, off.j_cm1, off.error_cm1)
            self._predictions[candidate.name] = (
                state,
                {
                    "fidelity": gate.fidelity,
                    "fidelity_error": gate.error,
                    "hold_ns": gate.hold_ns,
                    "fidelity_floor": gate.floor,
                    "on_off_ratio": ratio,
                    "ratio_is_bound": error is None,
                },
            )
        return replace(row, **self._predictions[candidate.name][1])

    def _coupling(self, name: str, state: str) -> Coupling | None:
        from molecular_qubits.electronic.uncertainty import combine_errors

        series = [
            (stage, self.records[name, state, number])
            for number, stage in enumerate(self.config.stages)
            if (name, state, number) in self.records
        ]
        if not series:
            return None
        stage, record = series[-1]
        values = [entry["j_cm1"] for _, entry in series]
        bar = combine_errors(
            record["j_cm1"],
            projections_cm1=record["projections_cm1"],
            bases_cm1=values if len(values) > 1 else None,
            convergence_cm1=record["resolution_cm1"],
        )
        earlier = {_level(stage): record["j_cm1"] for stage, record in series[:-1]}
        pairs = record.get("pairs_cm1", [record["j_cm1"]])
        spread = (max(pairs) - min(pairs)) / 2
        return Coupling(record["j_cm1"], math.hypot(bar.total_cm1, spread), _level(stage), bar.missing, earlier, spread)


def _level(stage: Stage) -> str:
    return f"{stage.xc}/{stage.basis}"
