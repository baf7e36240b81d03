"""What the commands of both packages share: errors as one sentence and an exit code; common options."""

import argparse
import errno
import sys
from collections.abc import Callable
from pathlib import Path

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: an argument that cannot be used; work that failed; interrupted from the keyboard."""


def run_command(command: Callable[[], object]) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    command
        What to do; its result is ignored.

    Returns
    -------
    int
        0, or one of `BAD_INPUT` (`ValueError`, `TypeError`, a missing file or module), `FAILED` (`RuntimeError`,
        `OSError`) and `INTERRUPTED`. The message of the error is printed on standard error, with a remedy for a full
        disk. Other exceptions are faults of the program and pass through.
    """
    try:
        command()
    except KeyboardInterrupt:
        print("Interrupted; the same command continues from the last checkpoint.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except (RuntimeError, OSError) as error:
        remedy = ""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = ". Free some space and run the same command again; nothing was left half-written."
        print(f"error: {error}{remedy}", file=sys.stderr)
        return FAILED
    return 0


def add_settings(
    command: argparse.ArgumentParser, out: str, *, example: str = "override one key", cache: str | None = None
) -> None:
    """Add ``config``, ``--set``, ``--out`` and, with the help `cache`, ``--cache``.

    Parameters
    ----------
    command
        Parser of one command.
    out
        Default folder of its results.
    example
        Help of ``--set``.
    cache
        Help of ``--cache``; no such option if ``None``.
    """
    command.add_argument("config", type=Path, nargs="?", default=None, help="YAML file (default: built-in values)")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=example)
    command.add_argument("--out", type=Path, default=Path(out), help="folder (default: %(default)s)")
    if cache is not None:
        command.add_argument("--cache", type=Path, default=None, metavar="FOLDER", help=cache)
