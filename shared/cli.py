"""What the commands of both packages share: errors as one sentence and an exit code; common options."""

import argparse
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from shared.files import FULL_DISK, check_file, check_folder, check_no_file, reason
from shared.results import markdown_table

if TYPE_CHECKING:
    from shared.config import FrozenConfig

BAD_INPUT, FAILED, INTERRUPTED, UNREAD, TERMINATED = 2, 1, 130, 141, 143
"""Exit codes: an argument that cannot be used; work that failed; interrupted from the keyboard; nobody reads the
output any more, as behind ``head``; terminated, as by a batch system (the last two are the codes that a shell gives to
a program ended by SIGPIPE and SIGTERM)."""

Config = TypeVar("Config", bound="FrozenConfig")


class _Shown(Exception):
    """The settings were printed, and nothing else was asked for."""


class _Terminated(KeyboardInterrupt):
    """The process got SIGTERM."""


def show_committed(
    argv: Sequence[str] | None,
    program: str,
    description: str,
    measure: Callable[[], object],
    rows: Callable[[], Sequence[Mapping[str, Any]]],
) -> int:
    """Print the table of a committed measurement, made anew with ``--measure``, and return the exit code.

    Parameters
    ----------
    argv
        Arguments; those of the process if ``None``.
    program, description
        For the help.
    measure
        Makes the committed file.
    rows
        Reads it.
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--measure", action="store_true", help="measure again (minutes) and write the committed file")
    again = parser.parse_args(argv).measure

    def show() -> None:
        if again:
            measure()
        print(markdown_table(rows()))

    return run_command(show)


def run_command(command: Callable[[], object], arguments: argparse.Namespace | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    command
        What to do; its result is ignored.
    arguments
        Its options, of which ``--out``, ``--plots``, ``--cache`` and ``--json`` are checked first: they must be
        writable.

    Returns
    -------
    int
        0, or one of `BAD_INPUT` (`ValueError`, `TypeError`, a missing file or module), `FAILED` (`RuntimeError`,
        `OSError`), `INTERRUPTED`, `TERMINATED` and, without a message, `UNREAD`. The message of the error is printed on
        standard error, with a remedy for a full disk. Other exceptions are faults of the program and pass through.
    """
    try:
        code = _exit_code(command, arguments)
        for stream in _streams():
            stream.flush()
        return code
    except BrokenPipeError as error:
        if _readers_left():
            return UNREAD
        print(f"error: {_words(error)}", file=sys.stderr)
        return FAILED


@contextmanager
def _interrupted_by_termination() -> Iterator[None]:
    """Let SIGTERM end what is run as the keyboard does: its scratch files are removed and its workers ended."""

    def end(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _exit_code(command: Callable[[], object], arguments: argparse.Namespace | None) -> int:
    try:
        if arguments is not None:
            _check_outputs(arguments)
        with _interrupted_by_termination():
            command()
    except _Shown:
        return 0
    except KeyboardInterrupt as interrupt:
        print("Interrupted; the same command continues from the last checkpoint.", file=sys.stderr)
        return TERMINATED if isinstance(interrupt, _Terminated) else INTERRUPTED
    except (ValueError, TypeError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f"error: {_words(error)}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        raise
    except MemoryError as error:
        print(f"error: There is too little memory for this{f': {error}' if str(error) else ''}.", file=sys.stderr)
        return FAILED
    except (RuntimeError, OSError) as error:
        remedy = ""
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            remedy = " Free some space and run the same command again; nothing was left half-written."
        print(f"error: {_words(error)}{remedy}", file=sys.stderr)
        return FAILED
    return 0


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line; `SystemExit` for a wrong one and, with 0 or `UNREAD`, after its help."""
    try:
        return parser.parse_args(argv)
    except SystemExit:
        if _readers_left():
            raise SystemExit(UNREAD) from None
        raise


def _readers_left() -> bool:
    """Return whether nobody reads standard output or error any more; what is still to be written there then goes."""
    left = False
    for stream in _streams():
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):  # replaced by an object in memory
            continue
        poll = select.poll()
        poll.register(descriptor, 0)
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            left = True
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
    return left


def _streams() -> list[TextIO]:
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]  # None: closed from the start


def shown(arguments: argparse.Namespace, config: Config, folder: Path | None = None, *files: str) -> Config:
    """Return the settings of a command; with ``--show-config`` print them as YAML and end it.

    The keys `files` hold paths from `folder`, which are printed from the root, so that the output is valid anywhere.
    """
    if arguments.show_config:
        given = {name: value for name in files if (value := getattr(config, name)) is not None}
        paths = {name: str(((folder or Path()) / value).resolve()) for name, value in given.items()}
        print(config.model_copy(update=paths).to_yaml(), end="")
        raise _Shown
    return config


def add_set(command: argparse.ArgumentParser, example: str = "override one key") -> None:
    """Add ``--set`` with the help `example`, and ``--show-config``."""
    text = f"{example}; may be given several times, --show-config lists the keys"
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    text = "print all keys with their values, as a YAML file, and do nothing else"
    command.add_argument("--show-config", action="store_true", help=text)


def add_settings(
    command: argparse.ArgumentParser,
    out: str,
    *,
    example: str = "override one key",
    default: str = "built-in values",
    cache: str | None = None,
) -> None:
    """Add ``config``, ``--set``, ``--show-config``, ``--out`` and, with the help `cache`, ``--cache``.

    Parameters
    ----------
    command
        Parser of one command.
    out
        Default folder of its results.
    example
        Help of ``--set``.
    default
        What is taken without a configuration file, for the help.
    cache
        Help of ``--cache``; no such option if ``None``.
    """
    command.add_argument("config", type=Path, nargs="?", default=None, help=f"YAML file (default: {default})")
    add_set(command, example)
    command.add_argument("--out", type=Path, default=Path(out), help="folder (default: %(default)s)")
    if cache is not None:
        command.add_argument("--cache", type=Path, default=None, metavar="FOLDER", help=cache)


def _check_outputs(arguments: argparse.Namespace) -> None:
    checks = {"out": check_folder, "plots": check_folder, "cache": check_folder, "json": check_file}
    for name, check in (checks | {"folder": check_no_file}).items():  # the last is read only, where all is fetched
        path = getattr(arguments, name, None)
        if path is not None:
            check(path, f"Option `--{name}`")


def _words(error: Exception) -> str:
    """Return the message of an error; that of the system without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    if error.filename is None:
        return f"{error.strerror.rstrip('.')}."
    return f"{str(error.filename)!r}: {reason(error).rstrip('.')}."
