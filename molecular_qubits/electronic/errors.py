"""Errors of electronic-structure runs; each message names the state and what to try."""


class SCFNotConvergedError(RuntimeError):
    """No solver of the fallback ladder converged the state."""


class WrongStateError(RuntimeError):
    """The field converged, but to another state than the one asked for."""


class InsufficientMemoryError(RuntimeError):
    """The estimated memory of a calculation exceeds what is available."""
