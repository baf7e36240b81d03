"""A process that kills itself at a renaming of a file, for the tests of resuming."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def killed_at_renaming(kill_at: int | None, *, after: bool) -> Iterator[list[int]]:
    """Kill this process at its `kill_at`-th renaming of a file, before or `after` it; the list holds their number.

    Only files of `shared.artifacts.atomic_path` count: how many compiled kernels numba renames hangs on its cache.
    """
    replace, count = os.replace, [0]

    def counted(*arguments: Any) -> None:
        if not str(arguments[0]).endswith(".tmp"):
            replace(*arguments)
            return
        count[0] += 1
        if count[0] == kill_at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*arguments)
        if count[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted
    try:
        yield count
    finally:
        os.replace = replace
