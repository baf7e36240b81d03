"""One option for each layer so that the total loss is least within a number of bytes: multiple-choice knapsack."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

MAX_CELLS = 1 << 18
"""Sizes that the dynamic program tells apart."""


@dataclass(frozen=True)
class Joint:
    """Options that some layers can take together, in place of one for each.

    Attributes
    ----------
    members
        Numbers of the layers; none is in two groups.
    sizes, losses
        (options,) bytes (integers) and losses of all members together.
    """

    members: tuple[int, ...]
    sizes: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class _Item:
    """Layers whose options are chosen one by one, or (`joint`) together; all in units above the item's cheapest."""

    members: tuple[int, ...]
    offset: int
    units: tuple[np.ndarray, ...]
    joint: np.ndarray | None
    counts: tuple[int, ...]
    picks: tuple[np.ndarray, ...] = ()
    together: np.ndarray | None = None
    joint_pick: np.ndarray | None = None

    @property
    def most(self) -> int:
        """Units of the dearest choice."""
        apart = self.offset + sum(int(units.max()) for units in self.units)
        return apart if self.joint is None else max(apart, int(self.joint.max()))


@dataclass(frozen=True)
class Frontier:
    """The least total loss for every number of bytes.

    Attributes
    ----------
    least
        Bytes of the cheapest choice.
    unit
        Bytes of a cell. Each option's excess over its layer's cheapest is rounded up to whole units, so that a choice
        never takes more bytes than asked for, and is optimal among those that keep ``(layers + groups - 1) * unit``
        bytes free; with ``unit == 1`` it is optimal.
    losses
        (cells,) least loss with ``least + cell * unit`` bytes; never rises.
    """

    least: int
    unit: int
    losses: np.ndarray
    _items: tuple[_Item, ...]

    def choose(self, n_bytes: int) -> tuple[int, ...]:
        """Return the number of the option of each layer for at most `n_bytes` bytes.

        Numbers from the number of a layer's options on are those of its group's joint options.

        Raises
        ------
        ValueError
            If even the cheapest options take more.
        """
        if n_bytes < self.least:
            raise ValueError(f"Argument `n_bytes` must be at least {self.least}, but was {n_bytes}.")
        cell = min((n_bytes - self.least) // self.unit, len(self.losses) - 1)
        chosen: dict[int, int] = {}
        for item in reversed(self._items):
            if item.together is not None and item.together[cell]:
                assert item.joint is not None
                assert item.joint_pick is not None
                number = int(item.joint_pick[cell])
                cell -= int(item.joint[number])
                chosen |= {member: count + number for member, count in zip(item.members, item.counts, strict=True)}
                continue
            cell -= item.offset
            for member, units, pick in zip(*map(reversed, (item.members, item.units, item.picks)), strict=True):
                chosen[member] = int(pick[cell])
                cell -= int(units[chosen[member]])
        return tuple(chosen[number] for number in range(len(chosen)))

    def steps(self) -> np.ndarray:
        """Return the numbers of bytes at which the least loss falls, ascending, the first one the cheapest choice's."""
        falls = np.flatnonzero(np.diff(self.losses, prepend=np.inf) < 0)
        return self.least + falls * self.unit


def frontier(
    sizes: Sequence[np.ndarray],
    losses: Sequence[np.ndarray],
    max_cells: int = MAX_CELLS,
    joint: Sequence[Joint] = (),
) -> Frontier:
    """Solve the multiple-choice knapsack problem for all capacities by dynamic programming.

    Parameters
    ----------
    sizes, losses
        For each layer the bytes (integers) and the losses (finite) of its options, both (options,).
    max_cells
        Most sizes told apart; time and memory are proportional to it.
    joint
        Options of groups of layers in place of those of their members.

    Returns
    -------
    Frontier
        Source: Kellerer, Pferschy and Pisinger, Knapsack Problems (2004), section 11.5. A group is solved twice on
        what the layers before it leave, once member by member and once as a single layer with the joint options.
    """
    _check(sizes, losses, joint)
    in_group = {member for group in joint for member in group.members}
    groups: list[tuple[tuple[int, ...], Joint | None]] = [
        ((number,), None) for number in range(len(sizes)) if number not in in_group
    ]
    groups += [(group.members, group) for group in joint]
    least = sum(_least(sizes, *group) for group in groups)
    unit = max(1, -(-(_most(sizes, joint, in_group) - least) // max_cells))
    items = [_item(sizes, members, group, unit) for members, group in groups]
    best = np.zeros(1 + sum(item.most for item in items))
    solved = []
    for item, (_, group) in zip(items, groups, strict=True):
        apart, picks = best, []
        for member, units in zip(item.members, item.units, strict=True):
            apart, pick = _add(apart, units, losses[member])
            picks.append(pick)
        if item.offset:
            apart = np.concatenate([np.full(item.offset, np.inf), apart[: -item.offset]])
        together, joint_pick = None, None
        if group is not None and item.joint is not None:
            best, joint_pick = _add(best, item.joint, group.losses)
            together = best < apart
            best = np.where(together, best, apart)
        else:
            best = apart
        solved.append(replace(item, picks=tuple(picks), together=together, joint_pick=joint_pick))
    return Frontier(least, unit, best, tuple(solved))


def _check(sizes: Sequence[np.ndarray], losses: Sequence[np.ndarray], joint: Sequence[Joint]) -> None:
    for name, arrays in (("sizes", sizes), ("losses", losses)):
        if not arrays or any(len(array) == 0 for array in arrays):
            raise ValueError(f"Argument `{name}` must hold at least one layer, each with at least one option.")
    if [len(size) for size in sizes] != [len(loss) for loss in losses]:
        raise ValueError("Arguments `sizes` and `losses` must have the same number of options for each layer.")
    members = [member for group in joint for member in group.members]
    if len(set(members)) < len(members) or not set(members) <= set(range(len(sizes))):
        raise ValueError(f"Argument `joint` must hold each of the {len(sizes)} layers at most once, but has {members}.")
    if any(len(group.sizes) == 0 or len(group.sizes) != len(group.losses) for group in joint):
        raise ValueError("Argument `joint` must hold groups with at least one option, each with its size and loss.")


def _least(sizes: Sequence[np.ndarray], members: Sequence[int], group: Joint | None) -> int:
    apart = sum(int(sizes[member].min()) for member in members)
    return apart if group is None else min(apart, int(group.sizes.min()))


def _most(sizes: Sequence[np.ndarray], joint: Sequence[Joint], in_group: set[int]) -> int:
    most = [int(size.max()) for size in sizes]
    alone = sum(size for number, size in enumerate(most) if number not in in_group)
    return alone + sum(max(sum(most[m] for m in group.members), int(group.sizes.max())) for group in joint)


def _item(sizes: Sequence[np.ndarray], members: tuple[int, ...], group: Joint | None, unit: int) -> _Item:
    least = _least(sizes, members, group)
    cheapest = [int(sizes[member].min()) for member in members]
    units = tuple(
        -(-(sizes[member].astype(np.int64) - size) // unit) for member, size in zip(members, cheapest, strict=True)
    )
    joint = None if group is None else -(-(group.sizes.astype(np.int64) - least) // unit)
    return _Item(members, -(-(sum(cheapest) - least) // unit), units, joint, tuple(len(sizes[m]) for m in members))


def _add(best: np.ndarray, excess: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least losses with one more choice, and the number of the option that gives each."""
    total = np.full_like(best, np.inf)
    pick = np.zeros(len(best), np.uint16)
    for number in np.argsort(excess, kind="stable"):
        start = int(excess[number])
        candidate = best[: len(best) - start] + losses[number]
        better = candidate < total[start:]
        total[start:][better] = candidate[better]
        pick[start:][better] = number
    return total, pick
