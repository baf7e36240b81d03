"""Solvers of a PySCF field, from the fast one to the robust one."""

from __future__ import annotations

from typing import Any

LADDER: tuple[str, ...] = ("diis", "level shift", "newton")
"""Solvers, tried in this order: Pulay's DIIS; DIIS with level shift and damping; second order (co-iterative AH)."""


def with_solver(mean_field: Any, solver: str) -> Any:
    """Return a PySCF field, not yet run, with one of the solvers of `LADDER`."""
    if solver == "level shift":
        mean_field.level_shift = 0.3
        mean_field.damp = 0.3
        mean_field.diis_start_cycle = 4
    elif solver == "newton":
        return mean_field.newton()
    return mean_field
