"""Moving codewords from clusters that are hardly missed to clusters of large error: merge two, cut another in two.

The pre-assignment shares codewords evenly in size and spread. Where a few points carry much of the squared error (heavy
tails, outliers, pruned weights, copies) that is too coarse. With n the weights and m the means of clusters i and j,
merging them raises the error by ``n_i n_j / (n_i + n_j) |m_i - m_j|^2`` (Ward 1963); what a cut gains is computed on
the members of the cluster. Both are exact, so that every move is known to lower the objective before it is made, and no
point is searched again.
"""

import heapq
from typing import Any

import numpy as np

from compression.clustering.compiled_cut import cheapest_merges, cut_in_two
from compression.clustering.empty_clusters import State
from compression.clustering.points import FloatArray, IntArray, Points
from compression.clustering.threads import chunks, run_all

_FAILURES, _MOVES_A_FAILURE = 10, 8
"""Cuts without gain, one after another in the order of the clusters' errors, after which nothing more is tried, and for
how many codewords moved one more is allowed."""

_VAIN = 8
"""Nor is anything more tried after cuts without gain of clusters that together hold one of so many points."""

_AHEAD = 8
"""Cuts computed side by side: those of the next clusters in the order of their errors are likely to be needed."""

_WORTHWHILE = 1e-3
"""Least gain of a move, as a share of the error of the cluster that is cut."""

_LOOKUPS = 16
"""Clusters whose members are looked up by a pass over all codes; for more, the codes are sorted."""


Cut = tuple[float, IntArray, FloatArray, FloatArray]
"""Gain, side of each member, means and errors of the two sides."""


def reallocate(state: State) -> int:
    """Merge pairs of clusters and cut as many others in two, as long as that lowers the objective.

    Changes `state.codes`, and `state.centroids` of the clusters touched, to their means. No cluster becomes empty.

    Returns
    -------
    int
        Codewords moved, at most K.
    """
    clusters = _Clusters(state)
    donors = [(-error, number) for number, error in enumerate(clusters.error) if error > 0]
    heapq.heapify(donors)
    cuts: dict[int, Cut] = {}
    moved = failures = vain = 0
    while donors and moved < len(clusters.error):
        if failures >= _FAILURES + moved // _MOVES_A_FAILURE or _VAIN * vain >= len(state.codes):
            break
        error, donor = heapq.heappop(donors)
        if -error != clusters.error[donor] or len(clusters.members(donor)) < 2:
            continue
        found = clusters.cheapest_without(donor)
        if found is None or found[0] >= -error:
            break
        price, freed, other = found
        if donor not in cuts:
            top = donors[: 2 ** (_AHEAD - 1) - 1]  # where a heap holds its least ones
            following = sorted(top)[: _AHEAD - 1]
            coming = [donor, *(number for _, number in following if number not in cuts)]
            cuts.update(zip(coming, clusters.best_cuts(coming), strict=True))
        if cuts[donor][0] - price <= _WORTHWHILE * -error:
            failures, vain = failures + 1, vain + len(clusters.members(donor))
            continue
        failures = vain = 0
        clusters.merge(freed, other, price)
        clusters.cut(donor, freed, *cuts.pop(donor)[1:])
        for touched in (donor, freed, other):
            cuts.pop(touched, None)
            clusters.price(touched)
            heapq.heappush(donors, (-clusters.error[touched], touched))
        moved += 1
    if moved:
        clusters.write(state)
    return moved


def best_cut(points: Points) -> Cut:
    """Cut at least two distinct points in two where the squared error falls most, along one of two directions.

    The directions are that of largest variance and that from the mean to the farthest point, which splits off outliers.
    All cuts along a direction are compared (Wu 1991), and one step of 2-means follows.

    Returns
    -------
    gain : float
        By how much the weighted sum of squared distances to the mean falls.
    labels : numpy.ndarray
        (n,) side 0 or 1 of each point.
    means : numpy.ndarray
        (2, d) float64.
    errors : numpy.ndarray
        (2,) weighted sums of squared distances to them.
    """
    return best_cuts([points])[0]


def best_cuts(clusters: list[Points]) -> list[Cut]:
    """Return `best_cut` of each cluster, side by side; of a single point, a cut without gain."""
    return run_all(cut_in_two, [(points.values, points.full_columns) for points in clusters])


class _Clusters:
    """Means, weights, errors and members of the clusters of a state, and for each the cheapest merge."""

    def __init__(self, state: State) -> None:
        self._points, self._codes, k = state.points, state.codes, len(state.centroids)
        if state.sums is None:
            state.sums = state.points.weighted_sums(state.codes, k)
        means, _ = state.mean_step()
        self._columns = (np.ascontiguousarray(means.T), np.ascontiguousarray(state.sums[1].T))
        self.means, self.totals = (columns.T for columns in self._columns)  # views
        self._scales = (*state.points.extent, self._columns[1].max())
        self._coarse = tuple(np.ascontiguousarray(some, np.float32) for some in self._scaled(self.means, self.totals))
        self.error = np.bincount(state.codes, state.points.squared_distances(means, state.codes), k)
        self._members: dict[int, IntArray] = {}
        self._touched: set[int] = set()
        self._order: tuple[IntArray, IntArray] | None = None
        self._partner, self._price = np.empty(k, np.int64), np.empty(k)
        self._version = np.zeros(k, np.int64)
        self._seen = np.zeros(k, np.int64)
        self._merges: tuple[Any, ...] = (
            *self._columns,
            *self._coarse,
            (0,) * means.shape[1],
            self._partner,
            self._price,
        )
        run_all(cheapest_merges, [(*self._merges, *part) for part in chunks(k, 128)])
        self._heap = [(price, number) for number, price in enumerate(self._price)]
        heapq.heapify(self._heap)

    def members(self, cluster: int) -> IntArray:
        """Return the indices of the points of a cluster."""
        if cluster not in self._members:
            if self._order is None and len(self._members) < _LOOKUPS:
                self._members[cluster] = np.flatnonzero(self._codes == cluster)
                return self._members[cluster]
            if self._order is None:
                k = len(self.error)
                codes = self._codes.astype(np.uint16) if k <= 1 << 16 else self._codes  # 16 bits are sorted by radix
                ends = np.cumsum(np.bincount(self._codes, minlength=k))
                self._order = (np.argsort(codes, kind="stable"), np.concatenate(([0], ends)))
            order, ends = self._order
            self._members[cluster] = order[ends[cluster] : ends[cluster + 1]]
        return self._members[cluster]

    def best_cuts(self, numbers: list[int]) -> list[Cut]:
        """Return the best cut of each of some clusters."""
        return best_cuts([self._points.take(self.members(number)) for number in numbers])

    def cheapest_without(self, cluster: int) -> tuple[float, int, int] | None:
        """Return the price and the two clusters of the cheapest merge that leaves `cluster` alone."""
        aside = []
        found = None
        while self._heap and found is None:
            price, one = self._heap[0]
            other = int(self._partner[one])
            if price != self._price[one]:
                heapq.heappop(self._heap)
            elif self._seen[one] != self._version[other]:
                self._find(one)
                heapq.heapreplace(self._heap, (self._price[one], one))
            elif cluster in (one, other):
                aside.append(heapq.heappop(self._heap))
            else:
                found = (price, one, other)
        for entry in aside:
            heapq.heappush(self._heap, entry)
        return found

    def price(self, cluster: int) -> None:
        """Find the cheapest merge of a cluster that has changed."""
        self._find(cluster)
        heapq.heappush(self._heap, (self._price[cluster], cluster))

    def merge(self, freed: int, other: int, price: float) -> None:
        """Give the members of `freed` to `other`."""
        members = np.concatenate([self.members(other), self.members(freed)])
        totals = self.totals[other] + self.totals[freed]
        share = np.divide(self.totals[freed], totals, out=np.zeros_like(totals), where=totals > 0)
        self._set(other, self.means[other] + share * (self.means[freed] - self.means[other]), totals, members)
        self.error[other] += self.error[freed] + price

    def cut(self, donor: int, freed: int, labels: IntArray, means: FloatArray, errors: FloatArray) -> None:
        """Give the members of `donor` with label 1 to `freed`."""
        members, totals = self.members(donor), self.totals[donor].copy()
        weights = self._weights_of(members[labels == 1])
        for side, cluster, weight in ((0, donor, totals - weights), (1, freed, weights)):
            self._set(cluster, means[side], weight, members[labels == side])
            self.error[cluster] = errors[side]

    def write(self, state: State) -> None:
        """Write the clusters that have changed to the state."""
        for cluster in self._touched:
            state.codes[self._members[cluster]] = cluster
            state.centroids[cluster] = self.means[cluster]
        state.sums = None

    def _set(self, cluster: int, mean: FloatArray, totals: FloatArray, members: IntArray) -> None:
        self.means[cluster], self.totals[cluster], self._members[cluster] = mean, totals, members
        for coarse, column in zip(self._coarse, self._scaled(mean, totals), strict=True):
            coarse[:, cluster] = column
        self._version[cluster] += 1
        self._touched.add(cluster)

    def _scaled(self, means: FloatArray, totals: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Means (..., d) and weights (..., 1 or d) at magnitudes of about 1, transposed."""
        shift, size, heaviest = self._scales
        return ((means - shift) / size).T, (totals / heaviest).T

    def _weights_of(self, members: IntArray) -> FloatArray:
        weights = self._points.weights[members]
        return weights.sum(axis=0, keepdims=weights.ndim == 1)

    def _find(self, cluster: int) -> None:
        cheapest_merges(*self._merges, cluster, cluster + 1)  # type: ignore[call-arg]
        self._seen[cluster] = self._version[self._partner[cluster]]
