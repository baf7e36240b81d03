"""Errors of electronic-structure runs; each message names the state and what to try."""

from typing import Any


class SCFNotConvergedError(RuntimeError):
    """No solver of the fallback ladder converged the state."""


class WrongStateError(RuntimeError):
    """The field converged, but to another state than the one asked for."""


class UnmatchedStatesError(WrongStateError):
    """A broken-symmetry state differs from the high-spin state by more than the alignment of its spins.

    ``determinant`` and ``solution`` are those of the broken-symmetry state.
    """

    def __init__(self, message: str, determinant: tuple[int, ...], solution: Any) -> None:
        super().__init__(message)
        self.determinant, self.solution = determinant, solution
