"""Files and folders that a user names: checked before any work, and what is wrong with them in words."""

import os
from pathlib import Path


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Return why a file cannot be read or written, without its path: the message around it has named it."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8 text"
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]


def check_folder(path: str | Path, name: str = "Argument `out`") -> None:
    """Refuse a folder for results that cannot be made or written to; nothing is made yet.

    Parameters
    ----------
    path
        The folder.
    name
        What the message calls it.

    Raises
    ------
    ValueError
        If it, or a folder above it, is a file, or no file can be written there.
    """
    path = Path(path)
    there = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
    if not there.is_dir():
        where = "it" if there == path else repr(str(there))
        raise ValueError(f"{name} must name a folder, but was {str(path)!r}: {where} is a file.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{name} must be a folder to write to, but was {str(path)!r}: {str(there)!r} is read-only.")


def check_file(path: str | Path, name: str) -> None:
    """Refuse a file for results that is a folder, or that lies where `check_folder` refuses; nothing is made yet."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{name} must name a file, but {str(path)!r} is a folder.")
    check_folder(path.absolute().parent, f"The folder of {name[:1].lower() + name[1:]}")
