"""Weighted distinct points: what every clustering rule of this package works on.

Equal rows of the data are merged, with their weights summed, before any clustering. This changes no
objective and no mean, and it makes "distinct" a property of the data structure.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compression.clustering.compiled import distance_chunk, range_chunk, spread_chunk, sum_chunk, total_chunk
from compression.clustering.compiled_rows import first_equal_rows, hash_rows
from compression.clustering.threads import chunks, run_all

FloatArray = np.ndarray
IntArray = np.ndarray

_CHUNK, _MOST = 1 << 15, 64
_SUM_ENTRIES = 1 << 22
"""Points of a chunk; chunks and entries of all partial sums together at most. Few and fixed chunks keep the sums the
same for any number of threads."""

_SAMPLE = 4096
"""Points from which the median is taken."""

_DRAWN_AWAY = 16.0
"""Distance of mean and median, in that of a typical point from the median, from which the median is the centre."""

_CANCELLED = 1e-10
"""Share of the spread below which an inertia from sums has lost too many digits."""

_HASH_PARTS = 4
_NO_SUBSET = np.empty(0, np.int64)


@dataclass(frozen=True)
class Points:
    """Distinct weighted points.

    Attributes
    ----------
    values
        (D, d) float32 or float64, no two rows equal (-0.0 counts as 0.0).
    weights
        (D,) or (D, d) float64, positive: summed sample weights, one per point or one per coordinate. A broadcast 1
        if every point weighs 1.
    group
        (N,) the point of each row of the data; ``None`` if each row is a point of its own.
    """

    values: FloatArray
    weights: FloatArray
    group: IntArray | None = None

    @property
    def n_rows(self) -> int:
        """Rows N of the data."""
        return len(self.values) if self.group is None else len(self.group)

    def of_rows(self, of_points: np.ndarray) -> np.ndarray:
        """Return for each row what is given for each point."""
        return of_points if self.group is None else of_points[self.group]

    @property
    def mass(self) -> FloatArray:
        """(D,) float64: weight of each point, averaged over coordinates where they have weights of their own."""
        return self.weights if self.weights.ndim == 1 else self.weights.mean(axis=1)

    @property
    def columns(self) -> FloatArray:
        """Weights as the compiled kernels take them: (0, 1) where all are 1, (D, 1), or (D, d)."""
        if self.weights.strides[0] == 0:
            return np.empty((0, 1))
        return self.weights[:, None] if self.weights.ndim == 1 else self.weights

    @property
    def full_columns(self) -> FloatArray:
        """Weights, contiguous, (D, 1) or (D, d)."""
        columns = self.columns if self.columns.size else np.ones((len(self.values), 1))
        return np.ascontiguousarray(columns)

    def take(self, members: IntArray) -> "Points":
        """Return some of the points."""
        return Points(self.values[members], self.weights[members])

    def squared_distances(self, centroids: FloatArray, codes: IntArray, subset: IntArray | None = None) -> FloatArray:
        """Weighted squared distances to the assigned centroids, by direct difference in float64.

        Parameters
        ----------
        centroids
            (K, d).
        codes
            (n,) centroid of each point.
        subset
            (n,) indices of the points; all of them if ``None``.

        Returns
        -------
        numpy.ndarray
            (n,) float64; exactly 0 where a point equals its centroid.
        """
        distances = np.empty(len(codes))
        common = (self.values, self.columns, np.ascontiguousarray(centroids, np.float64), _int32(codes))
        rows = _NO_SUBSET if subset is None else np.ascontiguousarray(subset, np.int64)
        run_all(distance_chunk, [(*common, rows, distances, *part) for part in chunks(len(codes), _CHUNK)])
        return distances

    def inertia(self, centroids: FloatArray, codes: IntArray) -> float:
        """Weighted sum of squared distances to the assigned centroids, by direct difference in float64."""
        total = 0.0
        for start in range(0, len(codes), 8 * _CHUNK):
            rows = np.arange(start, min(start + 8 * _CHUNK, len(codes)))
            total += float(self.squared_distances(centroids, codes[start : rows[-1] + 1], rows).sum())
        return total

    def weighted_sums(self, codes: IntArray, n_clusters: int) -> tuple[FloatArray, FloatArray]:
        """Sums of weight times value, and of weight, by cluster.

        Parameters
        ----------
        codes
            (D,) cluster of each point.
        n_clusters
            Number of clusters K.

        Returns
        -------
        sums : numpy.ndarray
            (K, d) float64.
        totals : numpy.ndarray
            (K, 1) or (K, d) float64: what to divide `sums` by for the weighted mean; 0 where a cluster is empty.
        """
        columns, codes = self.columns, _int32(codes)
        common = (self.values, columns, codes, n_clusters)
        return add_pairs(run_all(sum_chunk, [(*common, *part) for part in self.sum_chunks(n_clusters)]))

    def sum_chunks(self, n_clusters: int) -> list[tuple[int, int]]:
        """Chunks of points whose sums by cluster are added up: few, and the same for any number of threads."""
        entries = n_clusters * (self.values.shape[1] + self.columns.shape[1])
        count = min(_MOST, max(4, _SUM_ENTRIES // entries))
        return chunks(len(self.values), _CHUNK, count)

    def means(self, codes: IntArray, n_clusters: int, otherwise: FloatArray) -> FloatArray:
        """Weighted mean of each cluster, (K, d) float64; the row of `otherwise` where a cluster is empty."""
        sums, totals = self.weighted_sums(codes, n_clusters)
        filled = totals > 0
        return np.where(filled, sums / np.where(filled, totals, 1.0), otherwise)

    def mean_step(
        self, sums: FloatArray, totals: FloatArray, centroids: FloatArray, codes: IntArray
    ) -> tuple[FloatArray, float]:
        """Weighted means of the clusters, and the inertia that the assignment has with `centroids`.

        Parameters
        ----------
        sums, totals
            Of the assignment, from `weighted_sums`.
        centroids
            (K, d) float64: the present centroids, kept where a cluster is empty.
        codes
            (D,) the assignment.

        Returns
        -------
        means : numpy.ndarray
            (K, d) float64.
        inertia : float
            From the sums, without another pass over the points, exact to float64 rounding relative to the spread of
            the points around their mean; by direct difference where it is a tiny part of that spread.
        """
        filled = totals > 0
        means = np.where(filled, sums / np.where(filled, totals, 1.0), centroids)
        shift, spread = self.spread
        moved = centroids - shift  # sum w (x - c)^2 = sum w (x - s)^2 + sum W (c - s)^2 - 2 (c - s) (S - W s)
        inertia = spread + float((totals * moved**2 - 2 * moved * (sums - totals * shift)).sum())
        return means, inertia if inertia > _CANCELLED * spread else self.inertia(centroids, codes)

    @cached_property
    def spread(self) -> tuple[FloatArray, float]:
        """Weighted mean of all points, (d,), and the weighted sum of squared distances to it."""
        shared = self.columns.shape[1] == 1
        parts = chunks(len(self.values), _CHUNK, _MOST)
        common = (self.values, self.columns)
        sums, totals = add_pairs(run_all(total_chunk, [(*common, *part) for part in parts]))
        centre = sums / (totals[0] if shared else totals)
        return centre, float(sum(run_all(spread_chunk, [(*common, centre, *part) for part in parts])))

    @cached_property
    def extent(self) -> tuple[FloatArray, float]:
        """A centre of the points, (d,) float64, and the largest magnitude of a coordinate around it (or 1).

        The centre is the unweighted mean, or the median where outliers draw the mean away from most points: relative to
        it those would lose their digits.
        """
        parts = chunks(len(self.values), _CHUNK, _MOST)
        low, high, sums = zip(*run_all(range_chunk, [(self.values, *part) for part in parts]), strict=True)
        centre = sum(sums) / len(self.values)
        some = self.values[:: -(-len(self.values) // _SAMPLE)].astype(np.float64)
        median = np.median(some, axis=0)
        if np.abs(centre - median).max() > _DRAWN_AWAY * np.median(np.abs(some - median).max(axis=1)):
            centre = median
        return centre, float(max(np.max(high - centre), np.max(centre - low))) or 1.0


def distinct_points(x: FloatArray, sample_weight: FloatArray | None = None) -> Points:
    """Merge equal rows.

    Parameters
    ----------
    x
        (N, d) float32 or float64, finite.
    sample_weight
        (N,) or (N, d) positive weights; 1 if ``None``.

    Returns
    -------
    Points
        The distinct rows, in the order of their first appearance; `x` itself if all are distinct.
    """
    x = np.ascontiguousarray(x)
    first, n_repeated = _first_equal(x)
    if n_repeated == 0:
        return Points(x, np.broadcast_to(np.ones(1), len(x)) if sample_weight is None else sample_weight.astype(float))
    own = first == np.arange(len(x), dtype=np.int32)
    group = (np.cumsum(own, dtype=np.int32) - 1)[first]
    n_points = len(x) - n_repeated
    weights: FloatArray
    if sample_weight is None:
        weights = np.bincount(group, minlength=n_points).astype(np.float64)
    elif sample_weight.ndim == 1:
        weights = np.bincount(group, sample_weight.astype(np.float64))
    else:
        columns = sample_weight.astype(np.float64).T
        weights = np.stack([np.bincount(group, column) for column in columns], axis=1)
    return Points(x[own], weights, group)


def _first_equal(x: FloatArray) -> tuple[IntArray, int]:
    """(N,) int32: the first row that equals each row; and how many rows equal an earlier one."""
    first, hashes = np.empty(len(x), np.int32), np.empty(len(x), np.uint32)
    run_all(hash_rows, [(x, hashes, *part) for part in chunks(len(x), _CHUNK)])
    tables = np.full((_HASH_PARTS, int(1.5 * len(x) / _HASH_PARTS) + 64, 2), 0xFFFFFFFF, np.uint32)
    found = run_all(first_equal_rows, [(x, hashes, tables[p], first, p, _HASH_PARTS) for p in range(_HASH_PARTS)])
    del tables, hashes
    if min(found) >= 0:
        return first, sum(found)
    order = np.lexsort(x.T[::-1])  # hashes that crowd in one part: sort the rows themselves
    new = np.concatenate(([True], (x[order[1:]] != x[order[:-1]]).any(axis=1)))
    first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return first, int(len(x) - new.sum())


def add_pairs(pairs: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Add up pairs of arrays in their order."""
    first, second = pairs[0]
    for one, other in pairs[1:]:
        first += one
        second += other
    return first, second


def _int32(codes: IntArray) -> IntArray:
    return np.ascontiguousarray(codes, np.int32)
