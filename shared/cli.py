"""What the commands of both packages do with errors: one sentence on standard error and an exit code."""

import errno
import sys
from collections.abc import Callable

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
