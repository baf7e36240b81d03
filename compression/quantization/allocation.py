"""One option for each layer so that the total loss is least within a number of bytes: multiple-choice knapsack."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_CELLS = 1 << 18
"""Sizes that the dynamic program tells apart."""


@dataclass(frozen=True)
class Frontier:
    """The least total loss for every number of bytes.

    Attributes
    ----------
    least
        Bytes of the cheapest choice.
    unit
        Bytes of a cell. Each option's excess over its layer's cheapest is rounded up to whole units, so that a choice
        never takes more bytes than asked for, and is optimal among those that keep ``(layers - 1) * unit`` bytes free;
        with ``unit == 1`` it is optimal.
    losses
        (cells,) least loss with ``least + cell * unit`` bytes; never rises.
    """

    least: int
    unit: int
    losses: np.ndarray
    _units: tuple[np.ndarray, ...]
    _picks: tuple[np.ndarray, ...]

    def choose(self, n_bytes: int) -> tuple[int, ...]:
        """Return the number of the option of each layer for at most `n_bytes` bytes.

        Raises
        ------
        ValueError
            If even the cheapest options take more.
        """
        if n_bytes < self.least:
            raise ValueError(f"Argument `n_bytes` must be at least {self.least}, but was {n_bytes}.")
        cell = min((n_bytes - self.least) // self.unit, len(self.losses) - 1)
        chosen = []
        for units, picks in zip(reversed(self._units), reversed(self._picks), strict=True):
            chosen.append(int(picks[cell]))
            cell -= int(units[chosen[-1]])
        return tuple(reversed(chosen))

    def steps(self) -> np.ndarray:
        """Return the numbers of bytes at which the least loss falls, ascending, the first one the cheapest choice's."""
        falls = np.flatnonzero(np.diff(self.losses, prepend=np.inf) < 0)
        return self.least + falls * self.unit


def frontier(sizes: Sequence[np.ndarray], losses: Sequence[np.ndarray], max_cells: int = MAX_CELLS) -> Frontier:
    """Solve the multiple-choice knapsack problem for all capacities by dynamic programming.

    Parameters
    ----------
    sizes, losses
        For each layer the bytes (integers) and the losses (finite) of its options, both (options,).
    max_cells
        Most sizes told apart; time and memory are proportional to it.

    Returns
    -------
    Frontier
        Source: Kellerer, Pferschy and Pisinger, Knapsack Problems (2004), section 11.5.
    """
    for name, arrays in (("sizes", sizes), ("losses", losses)):
        if not arrays or any(len(array) == 0 for array in arrays):
            raise ValueError(f"Argument `{name}` must hold at least one layer, each with at least one option.")
    if [len(size) for size in sizes] != [len(loss) for loss in losses]:
        raise ValueError("Arguments `sizes` and `losses` must have the same number of options for each layer.")
    least = sum(int(size.min()) for size in sizes)
    spread = sum(int(size.max()) for size in sizes) - least
    unit = max(1, -(-spread // max_cells))
    units = tuple(-(-(size.astype(np.int64) - size.min()) // unit) for size in sizes)
    best = np.zeros(1 + sum(int(unit_.max()) for unit_ in units))
    picks = []
    for excess, loss in zip(units, losses, strict=True):
        total = np.full_like(best, np.inf)
        pick = np.zeros(len(best), np.uint16)
        for number in np.argsort(excess, kind="stable"):
            start = int(excess[number])
            candidate = best[: len(best) - start] + loss[number]
            better = candidate < total[start:]
            total[start:][better] = candidate[better]
            pick[start:][better] = number
        best = total
        picks.append(pick)
    return Frontier(least, unit, best, units, tuple(picks))
