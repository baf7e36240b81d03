"""Guesses of a state that failed, kept beside its checkpoint: a killed run goes on as it would have without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from molecular_qubits.electronic.errors import SCFNotConvergedError, UnmatchedStatesError, WrongStateError
from molecular_qubits.electronic.scf import read_checkpoint, write_checkpoint
from shared.artifacts import write_json

Failure = SCFNotConvergedError | WrongStateError


class FailedAttempts:
    """The failed attempts of one state in a folder, ``failed.json`` and the orbitals of unmatched states.

    Parameters
    ----------
    folder
        That of the checkpoint.
    conditions
        JSON-able: what an attempt depends on besides the state. Attempts under other conditions do not count.
    """

    def __init__(self, folder: Path, conditions: dict[str, Any]) -> None:
        self.folder, self.path, self.conditions = folder, folder / "failed.json", conditions
        saved = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        self.attempts: dict[str, dict[str, Any]] = saved["attempts"] if saved.get("conditions") == conditions else {}

    def find(self, attempt: str) -> Failure | None:
        """Return why an attempt failed, or ``None`` if it has not."""
        if attempt not in self.attempts:
            return None
        record = self.attempts[attempt]
        if record["kind"] == UnmatchedStatesError.__name__:
            return UnmatchedStatesError(
                record["message"], tuple(record["determinant"]), read_checkpoint(self._orbitals(attempt))
            )
        return (WrongStateError if record["kind"] == WrongStateError.__name__ else SCFNotConvergedError)(
            record["message"]
        )

    def keep(self, attempt: str, failure: Failure) -> None:
        """Keep why an attempt failed."""
        record: dict[str, Any] = {"kind": type(failure).__name__, "message": str(failure)}
        if isinstance(failure, UnmatchedStatesError):
            record["determinant"] = list(failure.determinant)
            write_checkpoint(self._orbitals(attempt), failure.solution)
        self.attempts[attempt] = record
        self._write()

    def forget(self, attempt: str) -> None:
        """Let an attempt count as not made."""
        self.attempts.pop(attempt, None)
        self._write()

    def _orbitals(self, attempt: str) -> Path:
        return self.folder / f"failed {attempt}.npz"

    def _write(self) -> None:
        write_json(self.path, {"conditions": self.conditions, "attempts": self.attempts})
