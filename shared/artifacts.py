"""Files that are never half-written, content hashes, provenance and a content-addressed cache."""

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from shared.files import check_no_file

PACKAGES = ("torch", "numpy", "numba", "scipy", "faiss-cpu", "transformers", "jax", "pyscf", "qutip", "rdkit", "tblite")
"""Packages whose versions are part of every provenance record."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name only when the block succeeds.

    Parameters
    ----------
    path
        The file (or folder) to write, or a link to it, which stays a link. Its parent folder is made.

    Yields
    ------
    Path
        A path that does not exist yet, in the folder of the file. If the block raises, or is interrupted, it is removed
        and `path` stays as it was.

    Raises
    ------
    ValueError
        If `path` is a device or a pipe, such as ``/dev/null``, whose place a file would take.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"A result must go to a file or a folder, but {str(path)!r} is a device or a pipe.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        yield temporary
        if temporary.is_file():
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.replace(temporary, path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing happens if it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON atomically; NaN and infinity are refused with a `ValueError`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def committed_result(path: Path | None, name: str, settings: Any) -> dict[str, Any] | None:
    """Return the JSON object in `path` if its value of `name` is the JSON-able `settings`; otherwise ``None``."""
    if path is None or not path.exists():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return dict(known) if known[name] == json.loads(json.dumps(settings)) else None


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value in canonical form (sorted keys, no spaces), as 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_code(*paths: str | Path) -> str:
    """Return the SHA-256 of Python files, and of those of folders (not below them), as 64 hexadecimal digits."""
    files = [file for path in map(Path, paths) for file in ([path] if path.is_file() else sorted(path.glob("*.py")))]
    return content_hash([sha256_file(file) for file in files])


def provenance(config: Any = None, seconds: float | None = None) -> dict[str, Any]:
    """Return what is needed to make a result again.

    Parameters
    ----------
    config
        The resolved configuration: a pydantic model or a JSON-able value.
    seconds
        Wall time of the work, in seconds.

    Returns
    -------
    dict
        Command, versions of Python and `PACKAGES`, git commit (and whether the tree was modified), machine, time in
        UTC, configuration and seconds.
    """
    import datetime

    return {
        "command": f"{_program()} {shlex.join(sys.argv[1:])}".rstrip(),
        "time_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(),
        "machine": machine(),
        "seconds": None if seconds is None else round(seconds, 3),
        "config": config.model_dump(mode="json") if hasattr(config, "model_dump") else config,
    }


def _program() -> str:
    """What was run: ``python -m MODULE``, or the name of the script."""
    module = getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", None)
    if module is not None:
        return f"python -m {module.removesuffix('.__main__')}"
    return Path(sys.argv[0]).name or "python"


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of those `packages` that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str | None:
    """Return the commit of the project's checkout, with ``+modified`` behind it, or ``None`` outside a checkout."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        modified = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+modified" if modified else "")


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@cache
def machine() -> dict[str, Any]:
    """Return processor, usable cores, memory in GiB and operating system."""
    processor = platform.processor() or platform.machine()
    memory_gib = None
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
        memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": processor, "cores": cores, "memory_gib": memory_gib, "system": platform.platform(terse=True)}


_CACHE_VARIABLE = "MOLECULAR_COMPRESSION_CACHE"


def default_cache_dir() -> Path:
    """Return ``$MOLECULAR_COMPRESSION_CACHE``, or a folder of the project in the user's cache folder."""
    if chosen := os.environ.get(_CACHE_VARIABLE):
        check_no_file(chosen, f"The variable ${_CACHE_VARIABLE}")
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "molecular-compression"


class Cache:
    """A content-addressed store of folders, safe for several processes.

    Parameters
    ----------
    root
        Folder of the cache; `default_cache_dir` if ``None``.
    name
        Sub-folder, one for each kind of content.
    """

    def __init__(self, root: str | Path | None = None, name: str = "cache") -> None:
        self.folder = Path(root if root is not None else default_cache_dir()) / name

    @classmethod
    def of(cls, cache: "Cache | str | Path | None", name: str) -> "Cache":
        """Return a cache as it is, or that of a folder (`default_cache_dir` for ``None``) and `name`.

        Raises
        ------
        TypeError
            If it is neither a cache nor a folder.
        ValueError
            If the folder is a file.
        """
        if isinstance(cache, Cache):
            return cache
        if not isinstance(cache, str | Path | None):
            raise TypeError(f"Argument `cache` must be a Cache, a folder or None, but was a {type(cache).__name__}.")
        if cache is not None:
            check_no_file(cache, "Argument `cache`")
        return cls(cache, name=name)

    def path(self, key: Mapping[str, Any]) -> Path:
        """Return where the entry of `key` lies, whether it exists or not."""
        return self.folder / content_hash(key)

    def work_folder(self, key: Mapping[str, Any]) -> Path:
        """Return a folder for the checkpoints of unfinished work on `key`; it goes when the entry is finished."""
        folder = self.folder / f"{content_hash(key)}.work"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def get_or_make(self, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """Return the folder of `key`, made first if it is missing.

        Parameters
        ----------
        key
            JSON-able description of the content: everything that it depends on.
        make
            Writes the content into the empty folder that it is given. The folder takes its place in the cache only
            when `make` returns; what a killed process left of it is removed before. Another process that asks for the
            same key meanwhile waits and does no work.

        Returns
        -------
        Path
            The finished folder, with the key beside the content in ``key.json``.
        """
        target = self.path(key)
        if target.is_dir():
            return target
        self.folder.mkdir(parents=True, exist_ok=True)
        with _patient_lock(self.folder / f"{target.name}.lock", key):
            if target.is_dir():
                return target
            for leftover in self.folder.glob(f".{target.name}.*.tmp"):  # of makers that were killed
                remove(leftover)
            work = self.folder / f"{target.name}.work"
            try:
                with atomic_path(target) as temporary:
                    temporary.mkdir()
                    make(temporary)
                    write_json(temporary / "key.json", dict(key))
            except BaseException:
                if work.is_dir() and not any(work.iterdir()):  # there is no checkpoint to continue from
                    work.rmdir()
                raise
            remove(work)
        return target

    def record(self, file: str, key: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """Return the JSON-able value that `make` returns; it is kept as `file` in the folder of `key`."""
        folder = self.get_or_make(key, lambda path: write_json(path / file, make()))
        return json.loads((folder / file).read_text(encoding="utf-8"))


@contextmanager
def _patient_lock(path: Path, key: Mapping[str, Any]) -> Iterator[None]:
    from shared.progress import say

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        say(f"Another process is making the same result ({content_hash(key)[:12]}); waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
