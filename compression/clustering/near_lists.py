"""Search among the centroids that were near a point some iterations ago.

Once centroids move little, the nearest centroid of a point is one of the few that were near it before. With r the
distance within which all centroids are listed for a point, and s the longest way that a centroid has come since, a
centroid that is not listed is farther than r - s (triangle inequality). The few that came farther than the others are
compared with every point; points for which the bound does not decide are searched again among all. (Bounds of a list of
near centroids: Drake and Hamerly 2012.)
"""

from typing import Any

import numpy as np

from compression.clustering.compiled import filled_table
from compression.clustering.compiled_lists import list_chunk, nearest_listed_chunk
from compression.clustering.compiled_pruning import group
from compression.clustering.points import FloatArray, IntArray
from compression.clustering.threads import chunks, run_all

_CAPACITY = 48
"""Centroids listed for a point at most."""

_RANK = 10
"""The gap is such that about so many are listed for a typical point."""

_MOST_BYTES = 32 << 20
"""Memory of the lists at most."""

_LEAST_WORK = 1 << 14
"""Centroids times features from which lists are shorter work."""

_SAMPLE = 32
"""Points from which the gap is taken."""

_STILL = 0.75
"""Lists are made when nine in ten centroids have moved by less than so much of the gap."""

_FAR = 0.9
"""Quantile of the ways that centroids have come, above which they are compared with every point."""

_FAILED = 1.0
"""Lists are made anew once so many times the number of points have been searched again among all centroids."""

_ROWS = 4096


class NearLists:
    """Lists of near centroids for fixed points, made when centroids have become slow.

    Parameters
    ----------
    values
        (N, d) the points.
    """

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self._fits = len(values) * (2 * _CAPACITY + 1 + values.itemsize) <= _MOST_BYTES
        self._last: FloatArray | None = None
        self._made_for: FloatArray | None = None
        self._gap = 0.0
        self._failed = 0
        self._lists: tuple[np.ndarray, ...] = ()

    def nearest(self, table: tuple[Any, ...], centroids: FloatArray, previous: IntArray) -> IntArray | None:
        """Return the nearest centroid of each point, -1 where the lists cannot tell, or ``None`` without lists.

        Parameters
        ----------
        table
            Arguments of the kernels that depend on the centroids: shift, scale, table, offsets, features, tile width.
        centroids
            (K, d) float64, shifted and scaled.
        previous
            (N,) int32 a centroid of each point.
        """
        k, d = centroids.shape
        if not self._fits or k * d < _LEAST_WORK or k > 1 << 16:
            return None
        last, self._last = self._last, centroids
        if self._made_for is not None and len(self._made_for) == k:
            return self._search(table, np.linalg.norm(centroids - self._made_for, axis=1))
        if last is None or len(last) != k:
            return None
        self._gap = self._typical_gap(table, centroids, previous)
        if not np.quantile(np.linalg.norm(centroids - last, axis=1), _FAR) < _STILL * self._gap:
            return None
        self._make(table, k, previous)
        self._made_for, self._failed = centroids, 0
        return self._search(table, np.zeros(k))

    def _typical_gap(self, table: tuple[Any, ...], centroids: FloatArray, previous: IntArray) -> float:
        """How much farther than the previous centroid the `_RANK`-th nearest one is, median over some points."""
        rows = np.arange(_SAMPLE) * len(self._values) // _SAMPLE
        points = (self._values[rows] - table[0]) * table[1]
        k = len(centroids)
        rank = min(_RANK, k) - 1
        products = np.einsum("ij,kj->ik", points, table[2][:k])  # not by BLAS, whose threads would linger on the cores
        distances = np.square(points).sum(axis=1, keepdims=True) + 2 * (products + table[3][:k])
        near = np.sqrt(np.maximum(np.partition(distances, rank, axis=1)[:, rank], 0))
        own = np.linalg.norm(points - centroids[previous[rows]], axis=1)
        return float(np.median(near - own))

    def _make(self, table: tuple[Any, ...], k: int, previous: IntArray) -> None:
        n, dtype = len(self._values), self._values.dtype
        if not self._lists:
            self._lists = np.empty((n, _CAPACITY), np.uint16), np.empty(n, np.uint8), np.empty(n, dtype)
        order = np.empty(n, np.int32)
        run_all(group, [(previous, k, order, np.empty(k + 1, np.int64))])
        common = (self._values, *table, order, previous, dtype.type(self._gap), *self._lists)
        run_all(list_chunk, [(*common, *part) for part in chunks(n, _ROWS)])

    def _search(self, table: tuple[Any, ...], way: FloatArray) -> IntArray:
        """Search the lists, centroids having come so far since they were made, and drop them if they fail often."""
        n, dtype = len(self._values), self._values.dtype
        slack = max(np.quantile(way, _FAR), min(way.max(), self._gap / 4))
        far = np.flatnonzero(way > slack).astype(np.int32)
        codes = np.empty(n, np.int32)
        among = (far, *filled_table(table[2][far], table[3][far]))
        common = (self._values, *table, *among, *self._lists, dtype.type(slack), codes)
        failed = sum(run_all(nearest_listed_chunk, [(*common, *part) for part in chunks(n, _ROWS)]))
        self._failed += failed
        if self._failed > _FAILED * n:
            self._made_for = None
        return codes
