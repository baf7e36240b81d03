"""The folder of a run: one process at a time, continued with the same settings only."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from compression.training.distributed import rank, wait_for_all
from shared.artifacts import remove


def check_same(out: Path, identity: Mapping[str, Any]) -> None:
    """Raise `ValueError` if `out` holds a run that differs in any of the keys of `identity`."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"Argument `out` must be a folder, but {str(out)!r} is a file.")
    if not (out / "run.json").is_file():
        return
    before = json.loads((out / "run.json").read_text(encoding="utf-8"))
    old, new = (dict(_flat({key: values.get(key) or {} for key in identity})) for values in (before, identity))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if changed:
        key = changed[0].removeprefix("config.")
        was, now = (json.dumps(values.get(changed[0])) for values in (old, new))
        more = f" ({len(changed) - 1} more differ)" if len(changed) > 1 else ""
        raise ValueError(
            f"Folder {str(out)!r} holds a run with another `{key}`: {was} there, {now} now{more}. Give the same "
            "settings to continue it, or another folder (--out)."
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder; of a group of processes the first does so for all."""
    if rank() != 0:
        wait_for_all()
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            for leftover in out.glob(".*.tmp"):  # of a killed process: the lock is ours
                remove(leftover)
            wait_for_all()
            yield
    except Timeout as error:
        raise RuntimeError(f"Another process works in {str(out)!r}: wait for it, or take another folder.") from error
