"""Recursive binary partition of weighted points into parts that are never empty and even in weight.

A part that must still yield k leaves is cut in two, along its projection on a direction, so that the sides get
floor(k/2) and ceil(k/2) leaves and weight in proportion, and each keeps at least as many points as leaves.

Bound: with W the total weight, w_max the heaviest single point and K leaves, every leaf weighs at most
``W / K + 1.5 * w_max`` (each cut misses its target by at most w_max / 2, and a side gets at most 2/3 of what the cuts
above it missed). Where no cut is moved to keep enough points on a side, every leaf also weighs at least
``W / K - 1.5 * w_max``; with equal weights no cut ever is.
"""

import numpy as np

from compression.clustering import compiled_partition as compiled
from compression.clustering.points import FloatArray, IntArray
from compression.clustering.threads import chunks, run_all

SPLITS = {"principal": compiled.PRINCIPAL, "farthest": compiled.FARTHEST, "widest": compiled.WIDEST}
"""Strategies for the direction of a cut: largest variance, from the mean to the farthest point, widest coordinate."""

_TASKS = 32
"""Parts after which each is partitioned to the end by one thread."""


def partition(values: FloatArray, mass: FloatArray, n_parts: int, split: str = "principal") -> IntArray:
    """Partition distinct points.

    Parameters
    ----------
    values
        (n, d) points, no two equal.
    mass
        (n,) positive weights that the parts share evenly, to single precision.
    n_parts
        Number of parts, 1 to n.
    split
        Direction of each cut: a key of `SPLITS`.

    Returns
    -------
    numpy.ndarray
        (n,) int32: the part of each point, 0 to n_parts - 1, none empty. Independent of any random state.

    Raises
    ------
    ValueError
        If `n_parts` or `split` is out of range.
    """
    n = len(values)
    if not 1 <= n_parts <= n:
        raise ValueError(f"Argument `n_parts` must be from 1 to the number of points {n}, but was {n_parts}.")
    direction = direction_of(split)
    share = (mass / mass.max()).astype(np.float32, copy=False)
    np.maximum(share, _LEAST, out=share)
    del mass  # with no reference left in the caller, 20 bytes a point are in use at the most
    order, key = np.arange(n, dtype=np.int32), np.empty(n, np.float32)
    spare = (np.empty(n, np.int32), np.empty(n, np.float32))
    begins = np.full(n_parts + 1, n)
    common = (values, share, order, key, spare)
    parts = [(0, n, n_parts, 0)]
    while len(parts) < _TASKS:  # level by level, the cuts of a level side by side
        wide = [part for part in parts if part[2] > 1 and part[1] - part[0] > part[2]]
        if not wide:
            break
        tasks = [(*common, start, stop, leaves // 2, leaves, direction) for start, stop, leaves, _ in wide]
        middles = dict(zip(wide, run_all(compiled.cut, tasks), strict=True))
        parts = [side for part in parts for side in _sides(part, middles.get(part))]
    run_all(compiled.partition_part, [(*common, begins, *part, direction) for part in parts])
    del common, key, spare, share
    labels = np.empty(n, np.int32)
    run_all(compiled.write_labels, [(order, begins, labels, *some) for some in chunks(n_parts, -(-n_parts // _TASKS))])
    return labels


_LEAST = np.float32(1e-30)
"""Least mass relative to the largest; it keeps every sum of masses positive in single precision."""


def _sides(part: tuple[int, int, int, int], middle: int | None) -> list[tuple[int, int, int, int]]:
    if middle is None:
        return [part]
    start, stop, leaves, label = part
    half = leaves // 2
    return [(start, middle, half, label), (middle, stop, leaves - half, label + half)]


def direction_of(split: str) -> int:
    """Return the number of the strategy of that name, or raise a `ValueError` that lists the names."""
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(f"Argument `split` must be one of {', '.join(map(repr, SPLITS))}, but was {split!r}.")
    return SPLITS[split]
