"""A pool of threads over chunks of points; the chunks depend on the data only, so results do not depend on threads."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any


def n_threads() -> int:
    """Threads to use: the cores this process may run on, or fewer if `OMP_NUM_THREADS` says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(limit))) if limit.isdigit() else cores


def run_all(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call `function` on the arguments of each task, in the pool, and return the results in order.

    An exception, Ctrl-C among them, cancels the tasks that have not begun. Even a single task runs in the pool: Ctrl-C
    then meets the waiting main thread, not the inside of a compiled call, which would turn it into a `SystemError`.
    """
    futures = [_pool(os.getpid()).submit(function, *task) for task in tasks]
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def chunks(n: int, size: int, most: int | None = None) -> list[tuple[int, int]]:
    """Return the (start, stop) of even chunks that cover `n` points.

    They have at most `size` points, or more where there would be over `most` chunks.
    """
    count = min(max(1, -(-n // size)), most or n + 1)
    return [(n * i // count, n * (i + 1) // count) for i in range(count)]


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool for each process: threads do not survive a fork."""
    return ThreadPoolExecutor(n_threads(), thread_name_prefix="clustering")
