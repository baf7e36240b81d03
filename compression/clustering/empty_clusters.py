"""What to do with clusters that no point is assigned to: the partitioning-guided rule and its peers."""

import heapq
from dataclasses import dataclass

import numpy as np

from compression.clustering.kernels import Searcher
from compression.clustering.partition import partition
from compression.clustering.points import FloatArray, IntArray, Points

RULES = ("keep", "perturb", "perturb-batched", "faiss", "farthest", "partition")
"""Names of the rules."""

PERTURB_TRIES = 100
"""Tries of the released rule before it gives up."""


@dataclass
class State:
    """What a k-means iteration works on; rules change `centroids` and `codes` in place."""

    points: Points
    search: Searcher
    centroids: FloatArray
    codes: IntArray
    rng: np.random.Generator
    split: str
    sums: tuple[FloatArray, FloatArray] | None = None
    """`Points.weighted_sums` of `codes`, if known."""

    def sizes(self) -> FloatArray:
        """(K,) weight of each cluster: its number of rows, if rows have no weights of their own."""
        return np.bincount(self.codes, self.points.mass, len(self.centroids))

    def empty(self) -> IntArray:
        """Indices of the empty clusters."""
        if self.sums is not None:
            return np.flatnonzero(self.sums[1][:, 0] == 0)
        return np.flatnonzero(np.bincount(self.codes, minlength=len(self.centroids)) == 0)

    def assign(self) -> None:
        """Assign every point to its nearest centroid."""
        previous = self.codes if len(self.codes) else None
        self.codes, self.sums = self.search.nearest_and_sums(self.centroids, previous)

    def mean_step(self) -> tuple[FloatArray, float]:
        """`Points.mean_step` of the present assignment."""
        if self.sums is None:
            self.sums = self.points.weighted_sums(self.codes, len(self.centroids))
        return self.points.mean_step(*self.sums, self.centroids, self.codes)


@dataclass(frozen=True)
class Resolution:
    """Work done to fill the empty clusters of one iteration.

    Attributes
    ----------
    found
        Empty clusters before.
    rounds
        Passes of the rule: tries of the released rule, batches of the others.
    splits
        Clusters that gave up points or were copied.
    reassignments
        Searches over all points against all centroids.
    left
        Empty clusters after.
    """

    found: int
    rounds: int = 0
    splits: int = 0
    reassignments: int = 0
    left: int = 0


def resolve(state: State, rule: str) -> Resolution:
    """Apply a rule that acts between the assignment and the mean step (all but ``"faiss"``)."""
    found = len(state.empty())
    if not found or rule in ("keep", "faiss"):
        return Resolution(found, left=found)
    if rule in ("farthest", "partition"):  # these change the assignment themselves
        state.sums = None
    return _RULES[rule](state, found)


def _perturb(state: State, found: int) -> Resolution:
    """Released iPQ: copy the most populated cluster's centroid, move both by 1e-6 noise, reassign all points."""
    return _perturb_in_rounds(state, found, batched=False)


def _perturb_batched(state: State, found: int) -> Resolution:
    """The released rule for all empty clusters at once: as many of the most populated clusters are copied."""
    return _perturb_in_rounds(state, found, batched=True)


def _perturb_in_rounds(state: State, found: int, batched: bool) -> Resolution:
    tries = splits = 0
    empty = state.empty()
    while len(empty) and tries < PERTURB_TRIES:
        if batched:
            by_size = np.argsort(-state.sizes(), kind="stable")[: len(state.centroids) - len(empty)]
            pairs = list(zip(empty, np.resize(by_size, len(empty)), strict=True))
        else:
            pairs = [(state.rng.choice(empty), np.argmax(state.sizes()))]
        for receiver, donor in pairs:
            noise = 1e-6 * state.rng.standard_normal(state.centroids.shape[1])
            state.centroids[receiver] = state.centroids[donor] + noise
            state.centroids[donor] -= noise
        splits += len(pairs)
        state.assign()
        empty = state.empty()
        tries += 1
    return Resolution(found, tries, splits, tries, len(empty))


def _farthest(state: State, found: int) -> Resolution:
    """scikit-learn: the points farthest from their centroids go to the empty clusters, equal rows together."""
    distances = state.points.squared_distances(state.centroids, state.codes)
    empty = state.empty()
    movers = np.argsort(-distances, kind="stable")[: len(empty)]
    state.codes[movers] = empty[: len(movers)]
    state.centroids[empty[: len(movers)]] = state.points.values[movers]
    return Resolution(found, 1, len(movers), 0, len(state.empty()))


def perturb_copies(state: State) -> Resolution:
    """Apply faiss's rule, after the mean step: copies of clusters drawn in proportion to size, moved apart by 1/1024.

    Sizes are updated as faiss does; no point is reassigned before the next iteration.
    """
    sizes = state.sizes()
    empty = np.flatnonzero(sizes == 0)
    n, k = sizes.sum(), len(sizes)
    signs = np.where(np.arange(state.centroids.shape[1]) % 2 == 0, 1.0, -1.0) / 1024
    for receiver in empty:
        chances = np.maximum(sizes - 1, 0) / max(n - k, 1)
        if chances.sum() == 0:
            break
        donor = int(state.rng.choice(k, p=chances / chances.sum()))
        centroid = state.centroids[donor].copy()
        state.centroids[receiver] = centroid * (1 + signs)
        state.centroids[donor] = centroid * (1 - signs)
        sizes[receiver] = sizes[donor] / 2
        sizes[donor] -= sizes[receiver]
    return Resolution(len(empty), int(len(empty) > 0), len(empty), 0, 0)


def _partition(state: State, found: int) -> Resolution:
    """PG k-means: partition large clusters' members; all empty clusters are filled in one round.

    A donor's members are the only points reassigned, so no other cluster is emptied; a split is kept only if it lowers
    the donor's own error.
    """
    k = len(state.centroids)
    rounds = splits = 0
    barred = np.zeros(k, bool)
    empty = state.empty()
    while len(empty):
        order = np.argsort(state.codes, kind="stable")
        ends = np.cumsum(np.bincount(state.codes, minlength=k))
        capacity = np.diff(ends, prepend=0)
        capacity[barred] = 1
        parts = _share_out(len(empty), state.sizes(), capacity)
        donors = np.flatnonzero(parts > 1)
        if not len(donors):
            break
        rounds += 1
        for donor in donors:
            members = order[ends[donor - 1] if donor else 0 : ends[donor]]
            received = empty[: parts[donor] - 1]
            if _split(state, members, np.concatenate(([donor], received))):
                empty = empty[len(received) :]
                splits += 1
            else:
                barred[donor] = True
    return Resolution(found, rounds, splits, 0, len(empty))


def _share_out(n_empty: int, sizes: FloatArray, capacity: IntArray) -> IntArray:
    """Number of codewords each cluster ends with: one at a time to the heaviest per codeword.

    Parameters
    ----------
    n_empty
        Codewords to give.
    sizes, capacity
        (K,) weight, and most codewords, of each cluster.

    Returns
    -------
    numpy.ndarray
        (K,) int64; 1 for clusters that receive none.
    """
    parts = np.ones(len(sizes), np.int64)
    queue = [(-float(sizes[i]), int(i)) for i in np.flatnonzero(capacity > 1)]
    heapq.heapify(queue)
    while n_empty and queue:
        _, cluster = heapq.heappop(queue)
        parts[cluster] += 1
        n_empty -= 1
        if parts[cluster] < capacity[cluster]:
            heapq.heappush(queue, (-float(sizes[cluster]) / parts[cluster], cluster))
    return parts


def _split(state: State, members: IntArray, targets: IntArray) -> bool:
    """Partition `members` among the clusters `targets` if that lowers their error; say whether it did."""
    points = state.points
    some = points.take(members)
    labels = partition(some.values, some.mass, len(targets), state.split)
    means = some.means(labels, len(targets), np.zeros((len(targets), some.values.shape[1])))
    before = some.squared_distances(state.centroids, state.codes[members]).sum()
    if not some.squared_distances(means, labels).sum() < before:
        return False
    state.codes[members] = targets[labels]
    state.centroids[targets] = means
    return True


_RULES = {
    "perturb": _perturb,
    "perturb-batched": _perturb_batched,
    "farthest": _farthest,
    "partition": _partition,
}
