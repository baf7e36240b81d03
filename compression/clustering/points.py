"""Weighted distinct points: what every clustering rule of this package works on.

Equal rows of the data are merged, with their weights summed, before any clustering. This changes no
objective and no mean, and it makes "distinct" a property of the data structure.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csc_array

FloatArray = np.ndarray
IntArray = np.ndarray


@dataclass(frozen=True)
class Points:
    """Distinct weighted points.

    Attributes
    ----------
    values
        (D, d) float32 or float64, no two rows equal (-0.0 counts as 0.0).
    weights
        (D,) or (D, d) float64, positive: summed sample weights, one per point or one per coordinate.
    inverse
        (N,) int64: the point of each row of the data.
    """

    values: FloatArray
    weights: FloatArray
    inverse: IntArray

    @property
    def mass(self) -> FloatArray:
        """(D,) float64: weight of each point, averaged over coordinates where they have weights of their own."""
        return self.weights if self.weights.ndim == 1 else self.weights.mean(axis=1)

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
        n = len(codes)
        distances = np.empty(n)
        for start in range(0, n, _CHUNK):
            part = slice(start, min(start + _CHUNK, n))
            rows = part if subset is None else subset[part]
            difference = self.values[rows].astype(np.float64)
            difference -= centroids[codes[part]]
            if self.weights.ndim == 2:
                np.einsum("ij,ij,ij->i", difference, difference, self.weights[rows], out=distances[part])
            else:
                np.einsum("ij,ij->i", difference, difference, out=distances[part])
                distances[part] *= self.weights[rows]
        return distances

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
        per_coordinate = self.weights.ndim == 2
        d = self.values.shape[1]
        sums = np.zeros((n_clusters, d))
        totals = np.zeros((n_clusters, d if per_coordinate else 1))
        if not per_coordinate:
            totals[:, 0] = np.bincount(codes, self.weights, n_clusters)
        for start in range(0, len(codes), _CHUNK):  # times the sparse (K, n) one-hot matrix
            part = slice(start, min(start + _CHUNK, len(codes)))
            n = part.stop - start
            entries = np.ones(n) if per_coordinate else self.weights[part]
            one_hot = csc_array((entries, codes[part], np.arange(n + 1)), shape=(n_clusters, n))
            values = self.values[part].astype(np.float64)
            if per_coordinate:
                totals += one_hot @ self.weights[part]
                values *= self.weights[part]
            sums += one_hot @ values
        return sums, totals

    def means(self, codes: IntArray, n_clusters: int, otherwise: FloatArray) -> FloatArray:
        """Weighted mean of each cluster, (K, d) float64; the row of `otherwise` where a cluster is empty."""
        sums, totals = self.weighted_sums(codes, n_clusters)
        filled = totals > 0
        return np.where(filled, sums / np.where(filled, totals, 1.0), otherwise)

    def mean_step(self, codes: IntArray, centroids: FloatArray) -> tuple[FloatArray, float]:
        """Weighted means of the clusters, and the inertia that the assignment has with `centroids`.

        Parameters
        ----------
        codes
            (D,) cluster of each point.
        centroids
            (K, d) float64: the present centroids, kept where a cluster is empty.

        Returns
        -------
        means : numpy.ndarray
            (K, d) float64.
        inertia : float
            From the sums, without another pass over the points; relative to the spread of the points around their mean
            it is exact to float64 rounding.
        """
        sums, totals = self.weighted_sums(codes, len(centroids))
        filled = totals > 0
        means = np.where(filled, sums / np.where(filled, totals, 1.0), centroids)
        shift, spread = self._spread
        moved = centroids - shift  # sum w (x - c)^2 = sum w (x - s)^2 + sum W (c - s)^2 - 2 (c - s) (S - W s)
        inertia = spread + float((totals * moved**2 - 2 * moved * (sums - totals * shift)).sum())
        return means, max(inertia, 0.0)

    @cached_property
    def _spread(self) -> tuple[FloatArray, float]:
        """Weighted mean of all points, (d,), and the weighted sum of squared distances to it."""
        everything = np.zeros(len(self.values), np.int64)
        sums, totals = self.weighted_sums(everything, 1)
        shift = sums / totals
        return shift[0], float(self.squared_distances(shift, everything).sum())


_CHUNK = 1 << 16


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
        The distinct rows in an order that depends on their content only.
    """
    x = np.ascontiguousarray(x) + 0.0  # a copy in which -0.0 has become 0.0
    order, first = _group_equal_rows(x)
    group = np.cumsum(first) - 1
    inverse = np.empty(len(x), np.int64)
    inverse[order] = group
    values = x[order[first]]
    weights: FloatArray
    if sample_weight is None:
        weights = np.bincount(group).astype(np.float64)
    elif sample_weight.ndim == 1:
        weights = np.bincount(inverse, sample_weight.astype(np.float64))
    else:
        columns = sample_weight.astype(np.float64).T
        weights = np.stack([np.bincount(inverse, column) for column in columns], axis=1)
    return Points(values, weights, inverse)


def _group_equal_rows(x: FloatArray) -> tuple[IntArray, np.ndarray]:
    """Order in which equal rows are neighbours, and a mask of the rows in that order that start a new group."""
    hashes = _row_hashes(x)
    order = np.argsort(hashes, kind="stable")
    sorted_hashes = hashes[order]
    same_hash = sorted_hashes[1:] == sorted_hashes[:-1]
    pairs = np.flatnonzero(same_hash)
    differ = (x[order[pairs]] != x[order[pairs + 1]]).any(axis=1)
    if differ.any():  # two different rows share a hash: sort those rows themselves
        order = np.lexsort((*x.T[::-1], hashes))
        starts = (x[order[1:]] != x[order[:-1]]).any(axis=1)
    else:
        starts = ~same_hash
    return order, np.concatenate(([True], starts))


def _row_hashes(x: FloatArray) -> np.ndarray:
    """(N,) uint64 hashes of the rows' bits (multiply and mix, after Steele, Lea and Flood's SplitMix64)."""
    words = x.view(np.uint32 if x.dtype == np.float32 else np.uint64)
    hashes = np.full(len(x), 0x9E3779B97F4A7C15, np.uint64)
    for column in words.T:
        hashes ^= column
        hashes *= np.uint64(0xBF58476D1CE4E5B9)
        hashes ^= hashes >> np.uint64(29)
    return hashes
