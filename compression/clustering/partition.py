"""Recursive binary partition of weighted points into parts that are never empty and even in weight.

A part that must still yield k leaves is cut in two, along its projection on a direction, so that the sides get
floor(k/2) and ceil(k/2) leaves and weight in proportion, and each keeps at least as many points as leaves.

Bound: with W the total weight, w_max the heaviest single point and K leaves, every leaf weighs at most
``W / K + 1.5 * w_max`` (each cut misses its target by at most w_max / 2, and a side gets at most 2/3 of what the cuts
above it missed). Where no cut is moved to keep enough points on a side, every leaf also weighs at least
``W / K - 1.5 * w_max``; with equal weights no cut ever is.
"""

from collections.abc import Callable

import numpy as np

from compression.clustering.points import FloatArray, IntArray

Direction = Callable[[FloatArray, FloatArray], FloatArray]

_SAMPLE = 4096
"""The direction of a cut is found from at least so many of its points, evenly spaced (all, if there are fewer)."""


def partition(values: FloatArray, mass: FloatArray, n_parts: int, split: str = "principal") -> IntArray:
    """Partition distinct points.

    Parameters
    ----------
    values
        (n, d) points, no two equal.
    mass
        (n,) positive weights that the parts share evenly.
    n_parts
        Number of parts, 1 to n.
    split
        Direction of each cut: a key of `SPLITS`.

    Returns
    -------
    numpy.ndarray
        (n,) int64: the part of each point, 0 to n_parts - 1, none empty. Independent of any random state.

    Raises
    ------
    ValueError
        If `n_parts` or `split` is out of range.
    """
    if not 1 <= n_parts <= len(values):
        raise ValueError(f"Argument `n_parts` must be from 1 to the number of points {len(values)}, but was {n_parts}.")
    direction = direction_of(split)
    values, mass = values.copy(), mass.copy()  # reordered below, so that each part is a slice
    order = np.arange(len(values))
    labels = np.empty(len(values), np.int64)
    stack = [(0, len(values), n_parts, 0)]
    while stack:
        start, stop, leaves, label = stack.pop()
        if leaves == 1:
            labels[start:stop] = label
            continue
        if leaves == stop - start:
            labels[start:stop] = label + np.arange(leaves)
            continue
        part = slice(start, stop)
        left_leaves = leaves // 2
        left = _cut(values[part], mass[part], left_leaves, leaves, direction)
        for array in (values, mass, order):
            array[part] = np.concatenate((array[part][left], array[part][~left]))
        middle = start + int(left.sum())
        stack.append((middle, stop, leaves - left_leaves, label + left_leaves))
        stack.append((start, middle, left_leaves, label))
    parts = np.empty(len(values), np.int64)
    parts[order] = labels
    return parts


def direction_of(split: str) -> Direction:
    """Return the strategy of that name, or raise a `ValueError` that lists the names."""
    if split not in SPLITS:
        raise ValueError(f"Argument `split` must be one of {', '.join(map(repr, SPLITS))}, but was {split!r}.")
    return SPLITS[split]


def _cut(values: FloatArray, mass: FloatArray, left_leaves: int, leaves: int, direction: Direction) -> np.ndarray:
    """Mask of the points on the left side."""
    n = len(values)
    sample = slice(None, None, max(1, n // _SAMPLE))
    axis = direction(values[sample], mass[sample])
    projection = values @ axis.astype(values.dtype)
    first, last = left_leaves, n - (leaves - left_leaves)
    even = mass[0] == mass.min() == mass.max()
    if even:
        size = min(max(round(n * left_leaves / leaves), first), last)
        threshold = np.partition(projection, size - 1)[size - 1]
        left = projection < threshold
    else:
        order = np.argsort(projection, kind="stable")
        below = np.cumsum(mass[order])
        target = below[-1] * left_leaves / leaves
        size = int(np.searchsorted(below, target))  # below[size - 1] < target <= below[size]
        if size < n and below[size] - target < target - (below[size - 1] if size else 0.0):
            size += 1
        size = min(max(size, first), last)
        threshold = projection[order[size - 1]]
        left = projection < threshold
    tied = np.flatnonzero(projection == threshold)
    missing = size - int(left.sum())
    if missing < len(tied):  # the cut falls among equal projections: lexicographic order decides
        tied = tied[np.lexsort(values[tied].T[::-1])[:missing]]
    left[tied] = True
    return left


def _centred(values: FloatArray, mass: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points minus their weighted mean, in float64 and divided by their largest magnitude; and the shares of weight."""
    share = mass / mass.sum()
    centred = values - share @ values.astype(np.float64)
    return centred / (np.abs(centred).max() or 1.0), share


def _principal(values: FloatArray, mass: FloatArray) -> FloatArray:
    """Direction of largest variance."""
    centred, share = _centred(values, mass)
    covariance = (centred * share[:, None]).T @ centred
    axis = np.linalg.eigh(covariance)[1][:, -1]
    return axis * np.sign(axis[np.argmax(np.abs(axis))])


def _widest(values: FloatArray, mass: FloatArray) -> FloatArray:
    """Coordinate of largest variance."""
    centred, share = _centred(values, mass)
    axis = np.zeros(values.shape[1])
    axis[np.argmax(share @ centred**2)] = 1.0
    return axis


def _farthest(values: FloatArray, mass: FloatArray) -> FloatArray:
    """From the mean to the farthest point."""
    centred, _ = _centred(values, mass)
    axis = centred[np.argmax(np.einsum("ij,ij->i", centred, centred))]
    return axis / np.linalg.norm(axis)


SPLITS: dict[str, Direction] = {"principal": _principal, "farthest": _farthest, "widest": _widest}
"""Strategies for the direction of a cut."""
