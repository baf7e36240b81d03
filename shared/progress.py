"""Progress on standard error: bars at a terminal, one line now and then elsewhere, nothing on request.

``PROGRESS=0`` in the environment silences bars and messages.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 30.0


def say(message: str) -> None:
    """Print one line on standard error."""
    if os.environ.get("PROGRESS") != "0":
        print(message, file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show the progress of a block of work.

    Parameters
    ----------
    description
        What is being done.
    total
        Number of steps; ``None`` if it is not known.

    Yields
    ------
    callable
        ``step(n=1, note="")``: advances by `n` steps and shows `note` behind the description.
    """
    if os.environ.get("PROGRESS") == "0":
        yield lambda n=1, note="": None
    elif sys.stderr.isatty():
        with _bar(description, total) as step:
            yield step
    else:
        yield _lines(description, total)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items of an iterable while showing how many are done."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total) as step:
        for item in items:
            yield item
            step()


@contextmanager
def _bar(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)

        def step(n: int = 1, note: str = "") -> None:
            bar.update(task, advance=n, description=f"{description} {note}" if note else description)

        yield step


def _lines(description: str, total: int | None) -> Callable[..., None]:
    start = last = time.monotonic()
    done = 0

    def step(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            of = f"/{total}" if total is not None else ""
            say(f"{description}: {done}{of}, {now - start:.0f} s{', ' + note if note else ''}")

    return step
