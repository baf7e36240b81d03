"""Parallel runs in local processes, with ordered results and one seed per item."""

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from shared.progress import progress
from shared.tasks import Outcome, chosen_executor, run_tasks

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


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
        Number of processes; all usable processors if ``None``. With 1 the work is done in this process.
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
        The first exception that `function` raises; work not yet started is then cancelled.
    """
    todo = list(items)
    workers = min(cpu_count() if n_workers is None else n_workers, max(len(todo), 1))
    if n_workers is not None and n_workers < 1:
        raise ValueError(f"Argument `n_workers` must be at least 1, but was {n_workers}.")
    if chosen_executor() == "parsl":
        return _values(run_tasks(function, todo, n_workers=workers, description=description, on_done=_raise_error))
    with progress(description, len(todo)) as step:
        if workers == 1:
            results = []
            for item in todo:
                results.append(function(item))
                step()
            return results
        threads = str(max(1, cpu_count() // workers))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_limit_threads, initargs=(threads,)) as pool:
            futures = [pool.submit(function, item) for item in todo]
            try:
                for future in futures:
                    future.result()
                    step()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [future.result() for future in futures]


def _raise_error(index: int, outcome: Outcome[Result]) -> None:
    if outcome.error is not None:
        raise outcome.error


def _values(outcomes: list[Outcome[Result]]) -> list[Result]:
    return [outcome.value for outcome in outcomes]  # type: ignore[misc]


def _limit_threads(threads: str) -> None:
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = threads
