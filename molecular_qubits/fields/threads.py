"""Threads that share work out, each with products of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Threads, as many as PySCF uses; matrix products inside of them do not start more."""
    from pyscf import lib
    from threadpoolctl import threadpool_limits

    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(lib.num_threads(), initializer=lib.num_threads, initargs=(1,)) as pool,
    ):
        yield pool
