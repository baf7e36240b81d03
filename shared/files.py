"""Files and folders that a user names: checked before any work, and what is wrong with them in words."""

import errno
import os
import tempfile
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk or a used-up quota."""


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Return why a file cannot be read or written, without its path: the message around it has named it."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8 text"
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]


def check_folder(path: str | Path, name: str = "Argument `out`") -> None:
    """Refuse a folder for results that cannot be made or written to; nothing is left behind yet.

    Parameters
    ----------
    path
        The folder.
    name
        What the message calls it.

    Raises
    ------
    ValueError
        If it, or a folder above it, is a file, or nothing can be made there.
    OSError
        If the disk is full.
    """
    path, there = Path(path), check_no_file(path, name)
    try:  # permissions do not tell: a superuser has them all, and yet nothing can be made in /proc
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=there))
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise ValueError(
            f"{name} must be a folder to write to, but was {str(path)!r}: nothing can be made in {str(there)!r} "
            f"({reason(error)})."
        ) from error


def check_no_file(path: str | Path, name: str) -> Path:
    """Refuse a folder that is a file, or lies below one; return it, or what there is above it."""
    path = Path(path)
    there = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
    if not there.is_dir():
        where = "it" if there == path else repr(str(there))
        raise ValueError(f"{name} must name a folder, but was {str(path)!r}: {where} is a file.")
    return there


def check_file(path: str | Path, name: str) -> None:
    """Refuse a file for results that is a folder or a device, or lies where `check_folder` refuses; nothing is left."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{name} must name a file, but {str(path)!r} is a folder.")
    if path.exists() and not path.is_file():
        raise ValueError(f"{name} must name a file, but {str(path)!r} is a device or a pipe.")
    check_folder(path.absolute().parent, f"The folder of {name[:1].lower() + name[1:]}")
