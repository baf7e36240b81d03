"""Parallel runs in worker processes, with ordered results and one seed per item."""

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

from shared.progress import track
from shared.tasks import Outcome, chosen_executor, run_tasks

Item = TypeVar("Item")
Result = TypeVar("Result")


def cpu_count() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seeds_for(seed: int, count: int) -> list[int]:
    """Return `count` independent 63-bit seeds derived from `seed` (NumPy's ``SeedSequence``)."""
    import numpy as np

    return [int(child.generate_state(1, np.uint64)[0] >> 1) for child in np.random.SeedSequence(seed).spawn(count)]


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    n_workers: int | None = None,
    description: str = "Working",
) -> list[Result]:
    """Apply a function to items in worker processes.

    Parameters
    ----------
    function
        A module-level function of one argument.
    items
        The arguments; each must be picklable.
    n_workers
        Number of processes; all usable processors if ``None``. With 1 local process the work is done in this one.
    description
        Label of the progress bar.

    Returns
    -------
    list
        Results in the order of `items`, whatever the number of workers and the executor (see `parallel_config`).

    Raises
    ------
    ValueError
        If `n_workers` is below 1.
    Exception
        The first exception that `function` raises; the other work is then ended.
    WorkerDiedError
        If a worker dies over a task as often as `run_tasks` tries it.
    """
    todo = list(items)
    workers = min(cpu_count() if n_workers is None else n_workers, max(len(todo), 1))
    if n_workers is not None and n_workers < 1:
        raise ValueError(f"Argument `n_workers` must be at least 1, but was {n_workers}.")
    if workers == 1 and chosen_executor() == "processes":
        return [function(item) for item in track(todo, description)]
    outcomes = run_tasks(function, todo, n_workers=workers, description=description, on_done=_raise_error)
    return [outcome.value for outcome in outcomes]  # type: ignore[misc]


def _raise_error(index: int, outcome: Outcome[Result]) -> None:
    if outcome.error is not None:
        if outcome.trace:
            outcome.error.add_note(f"In the worker:\n{outcome.trace}")
        raise outcome.error
