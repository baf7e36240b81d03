"""Tasks in worker processes that may die: local processes, or Parsl's for a cluster, behind one function."""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shared.files import FULL_DISK
from shared.progress import progress

if TYPE_CHECKING:
    from shared.parsl_config import ParslConfig

Item = TypeVar("Item")
Result = TypeVar("Result")

EXECUTORS = ("processes", "parsl")


class WorkerDiedError(RuntimeError):
    """A worker process ended while it worked on a task, as often as retries allow."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of one task: ``value``, or ``error`` (the exception) with the worker's ``trace``."""

    value: Result | None = None
    error: BaseException | None = None
    trace: str = ""
    attempts: int = 1


@dataclass(frozen=True)
class _Chosen:
    executor: str = "processes"
    parsl: ParslConfig | None = None


_CHOSEN: ContextVar[_Chosen] = ContextVar("executor", default=_Chosen())  # noqa: B039 - frozen


@contextmanager
def parallel_config(executor: str = "processes", parsl: ParslConfig | None = None) -> Iterator[None]:
    """Choose what runs the parallel work of a block.

    Parameters
    ----------
    executor
        ``"processes"``: processes of this machine. ``"parsl"``: Parsl's high-throughput executor (extra ``hpc``).
    parsl
        Where Parsl starts its workers; processes of this machine if ``None``.

    Raises
    ------
    ValueError
        If the executor is unknown or `parsl` is given with another one.
    ModuleNotFoundError
        If Parsl is not installed.
    """
    if executor not in EXECUTORS:
        raise ValueError(f"Argument `executor` must be one of {', '.join(EXECUTORS)}, but was {executor!r}.")
    if executor != "parsl" and parsl is not None:
        raise ValueError("Argument `parsl` must not be given unless `executor` is 'parsl'.")
    if executor == "parsl":
        from shared.parsl_config import check_installed

        check_installed()
    token = _CHOSEN.set(_Chosen(executor, parsl))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def chosen_executor() -> str:
    """Return the name of the executor of the enclosing `parallel_config`."""
    return _CHOSEN.get().executor


def run_tasks(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    n_workers: int,
    retries: int = 2,
    description: str = "Working",
    on_done: Callable[[int, Outcome[Result]], None] | None = None,
) -> list[Outcome[Result]]:
    """Apply a function to items in worker processes; a failure or a dead worker costs one task, not the others.

    Parameters
    ----------
    function
        A module-level function of one argument.
    items
        The arguments; each must be picklable, and so must the results.
    n_workers
        Number of worker processes (of one node, with Parsl on a cluster).
    retries
        How often a task is started again after its worker died. It is given up only when that happened while no other
        task was in hand: with 0, one that was in hand beside others is started once more, alone. An exception that the
        function raises is a result, and not tried again.
    description
        Label of the progress bar.
    on_done
        Called in this process with the position and the outcome of each task as it ends.

    Returns
    -------
    list of Outcome
        In the order of `items`.

    Raises
    ------
    ValueError
        If `n_workers` is below 1 or `retries` below 0.
    OSError
        If a task met a full disk: the rest would meet it too.
    KeyboardInterrupt
        The workers are ended first.
    """
    if n_workers < 1:
        raise ValueError(f"Argument `n_workers` must be at least 1, but was {n_workers}.")
    if retries < 0:
        raise ValueError(f"Argument `retries` must be at least 0, but was {retries}.")
    todo = list(items)
    outcomes: list[Outcome[Result]] = [Outcome() for _ in todo]
    chosen = _CHOSEN.get()
    with progress(description, len(todo)) as step:

        def done(index: int, outcome: Outcome[Result]) -> None:
            if isinstance(outcome.error, OSError) and outcome.error.errno in FULL_DISK:
                raise outcome.error
            outcomes[index] = outcome
            if on_done is not None:
                on_done(index, outcome)
            step()

        if not todo:
            return []
        if chosen.executor == "parsl":
            _run_with_parsl(function, todo, n_workers, retries, chosen.parsl, done)
        else:
            _run_in_processes(function, todo, min(n_workers, len(todo)), retries, done)
    return outcomes


def limit_threads(n_workers: int) -> dict[str, str]:
    """Return the environment that shares the processors among workers; a smaller number that is set already stays."""
    from shared.parallel import cpu_count

    share = max(1, cpu_count() // n_workers)
    found = {name: os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return {name: str(min(share, int(text)) if text.isdigit() else share) for name, text in found.items()}


def _guarded(function: Callable[[Any], Any], item: Any) -> Outcome[Any]:
    """Run one task in a worker; what it raises is a result."""
    try:
        return Outcome(function(item))
    except Exception as error:
        return Outcome(error=_portable(error), trace=traceback.format_exc())


def _portable(error: Exception) -> Exception:
    """Return an exception that survives pickling: some take other arguments than their message."""
    import pickle

    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # any fault of a foreign class's pickling
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


def _start_worker(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers when it is interrupted


def _run_in_processes(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    n_workers: int,
    retries: int,
    done: Callable[[int, Outcome[Any]], None],
) -> None:
    """Keep one task with each worker: when a worker dies, only tasks in hand can have been its end."""
    waiting = deque(range(len(items)))
    strikes = [0] * len(items)
    pool = _pool(n_workers)
    running: dict[Future[Outcome[Any]], int] = {}
    try:
        while waiting or running:
            idle_died = False
            while waiting and len(running) < n_workers:
                # On its last attempt a task runs alone, so that it is not given up for what another one did.
                if running and (strikes[waiting[0]] >= max(retries, 1) or _alone(running, strikes, retries)):
                    break
                index = waiting.popleft()
                try:
                    running[pool.submit(_guarded, function, items[index])] = index
                except BrokenProcessPool:
                    waiting.appendleft(index)
                    idle_died = True
                    break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            struck = []
            for future in finished:
                index = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    struck.append(index)
                else:
                    done(index, Outcome(outcome.value, outcome.error, outcome.trace, strikes[index] + 1))
            if struck or idle_died:
                wait(running)
                for future, index in running.items():
                    if future.exception() is None:
                        outcome = future.result()
                        done(index, Outcome(outcome.value, outcome.error, outcome.trace, strikes[index] + 1))
                    else:
                        struck.append(index)
                running.clear()
                for index in struck:
                    strikes[index] += 1
                    if strikes[index] > retries and len(struck) == 1:
                        done(index, Outcome(error=_died(strikes[index]), attempts=strikes[index]))
                    else:
                        waiting.append(index)
                pool.shutdown(wait=True, cancel_futures=True)
                pool = _pool(n_workers)
    except BaseException:
        for process in list(getattr(pool, "_processes", None) or {}):
            os.kill(process, signal.SIGTERM)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(n_workers: int) -> ProcessPoolExecutor:
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_workers, context, initializer=_start_worker, initargs=(limit_threads(n_workers),))


def _alone(running: dict[Future[Any], int], strikes: list[int], retries: int) -> bool:
    return any(strikes[index] >= max(retries, 1) for index in running.values())


def _died(attempts: int) -> WorkerDiedError:
    return WorkerDiedError(
        f"The worker process died while it worked on this task ({attempts} attempt{'s' if attempts > 1 else ''}): "
        "killed, or out of memory. Use fewer workers, or a smaller task."
    )


def _run_with_parsl(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    n_workers: int,
    retries: int,
    config: ParslConfig | None,
    done: Callable[[int, Outcome[Any]], None],
) -> None:
    import tempfile
    from pathlib import Path

    from shared.parsl_config import ParslConfig, data_flow_kernel

    config = config or ParslConfig()
    with tempfile.TemporaryDirectory(prefix="parsl-") as scratch:
        folder = Path(config.run_folder or scratch)
        with data_flow_kernel(config, n_workers, retries, folder) as kernel:
            futures = {kernel.submit(_guarded, (function, item)): index for index, item in enumerate(items)}
            left = set(futures)
            while left:
                finished, left = wait(left, return_when=FIRST_COMPLETED)
                for future in finished:
                    attempts = kernel.attempts(future)
                    if (error := future.exception()) is None:
                        outcome = future.result()
                        done(futures[future], Outcome(outcome.value, outcome.error, outcome.trace, attempts))
                    else:
                        done(futures[future], Outcome(error=kernel.explain(error, attempts), attempts=attempts))
