"""Initial centroids."""

import heapq

import numpy as np

from compression.clustering.compiled_seeding import closest_chunk, potentials_chunk
from compression.clustering.partition import partition
from compression.clustering.points import FloatArray, IntArray, Points
from compression.clustering.threads import chunks, run_all

SEEDINGS = ("random", "k-means++", "k-means||", "bisecting", "partition")
"""Names of the seeding rules."""

_SCALABLE_ROUNDS = 5

_BISECTING_STEPS = 10

_CHUNK = 1 << 17

_EVEN_SHARE = 0.1
"""What a point counts for in the pre-assignment beside its share of the spread."""


def seed_centroids(
    points: Points, n_clusters: int, init: str, rng: np.random.Generator, split: str
) -> tuple[FloatArray, IntArray]:
    """Choose initial centroids.

    Parameters
    ----------
    points
        At least `n_clusters` distinct points.
    n_clusters
        Number of centroids K.
    init
        ``"random"``: rows drawn uniformly with replacement, as in the released iPQ. ``"k-means++"``: Arthur and
        Vassilvitskii 2007 with greedy trials as in scikit-learn. ``"k-means||"``: Bahmani et al. 2012, 5 rounds of 2 K
        candidates, then weighted k-means++ among them. ``"bisecting"``: the cluster of largest error is cut in two by
        2-means, again and again, as in scikit-learn. ``"partition"``: means of the parts of `partition`, even in
        `spread_mass`.
    rng
        Source of randomness; ``"partition"`` uses none.
    split
        Direction of the cuts of ``"partition"``.

    Returns
    -------
    centroids : numpy.ndarray
        (K, d) float64.
    parts : numpy.ndarray
        (D,) int32: the part of each point if the centroids are means of parts; else empty.
    """
    if init == "partition":
        parts = partition(points.values, spread_mass(points), n_clusters, split)
        return points.means(parts, n_clusters, np.zeros((n_clusters, points.values.shape[1]))), parts
    return _drawn(points, n_clusters, init, rng, split), np.empty(0, np.int32)


def _drawn(points: Points, n_clusters: int, init: str, rng: np.random.Generator, split: str) -> FloatArray:
    if init == "random":
        rows = rng.integers(points.n_rows, size=n_clusters)
        return points.values[rows if points.group is None else points.group[rows]].astype(np.float64)
    if init == "bisecting":
        return _bisecting(points, n_clusters, split)
    if init == "k-means++":
        return points.values[_plus_plus(points, points.mass, n_clusters, rng)].astype(np.float64)
    if init == "k-means||":
        return points.values[_scalable(points, n_clusters, rng)].astype(np.float64)
    raise ValueError(f"Argument `init` must be one of {', '.join(map(repr, SEEDINGS))}, but was {init!r}.")


def spread_mass(points: Points) -> FloatArray:
    """Mass that a pre-assignment shares evenly: weight times (0.1 + squared distance to the mean / its mean).

    Parts even in weight alone would give dense regions more centroids than the squared error asks for. With W the total
    weight and u_max the largest of these masses, a part weighs at most ``11 W / K + 15 u_max``.

    Returns
    -------
    numpy.ndarray
        (D,) float32, positive, in units of the largest weight.
    """
    centre, total = points.spread
    mass = np.empty(len(points.values), np.float32)
    factor = points.mass.sum() / total if total else 0.0
    heaviest = float(points.mass.max())
    for start in range(0, len(mass), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(mass)))
        squares = points.squared_distances(centre[None], np.zeros(len(rows), np.int32), rows)
        weights = points.weights[rows] if points.weights.ndim == 1 else points.weights[rows].mean(axis=1)
        mass[rows] = (factor * squares + _EVEN_SHARE * weights) / heaviest
    return mass


def _bisecting(points: Points, n_clusters: int, split: str) -> FloatArray:
    """Centroids of bisecting k-means (Steinbach, Karypis and Kumar 2000), each 2-means started from the two parts."""
    everything = np.arange(len(points.values))
    centre, error = points.spread
    clusters = [(-error, 0, everything, centre)]
    for number in range(1, n_clusters):
        _, _, members, _ = heapq.heappop(clusters)
        some = points.take(members)
        labels = partition(some.values, some.mass, 2, split)
        for _ in range(_BISECTING_STEPS):
            means = some.means(labels, 2, np.zeros((2, some.values.shape[1])))
            left, right = (some.squared_distances(means, np.full(len(members), side)) for side in (0, 1))
            nearer = (right < left).astype(np.int32)
            if nearer.all() or not nearer.any() or np.array_equal(nearer, labels):
                break
            labels = nearer
        means = some.means(labels, 2, means)
        errors = np.bincount(labels, some.squared_distances(means, labels), 2)
        for side in (0, 1):
            part = members[labels == side]  # a single point has no error: it is cut last, and never (D >= K)
            heapq.heappush(clusters, (-errors[side] if len(part) > 1 else np.inf, 2 * number + side, part, means[side]))
    return np.array([centroid for *_, centroid in clusters])


def _plus_plus(points: Points, mass: FloatArray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Greedy k-means++ among points with weights `mass`; returns their indices."""
    n_trials, nearest = 2 + int(np.log(n_clusters)), _Nearest(points)
    chosen = [int(rng.choice(len(mass), p=mass / mass.sum()))]
    while len(chosen) < n_clusters:
        nearest.add(chosen[-1:])
        potential = np.cumsum(nearest.distances * mass)
        drawn = np.searchsorted(potential, rng.random(n_trials) * potential[-1], side="right")
        left = nearest.potentials(drawn, mass)
        chosen.append(int(drawn[np.argmin(left)]))
    return np.array(chosen)


def _scalable(points: Points, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """k-means||: oversampled rounds, then k-means++ among the candidates weighted by their clusters' mass."""
    n, nearest = len(points.values), _Nearest(points)
    candidates = rng.choice(n, 1, p=points.mass / points.mass.sum())
    nearest.add(candidates)
    for _ in range(_SCALABLE_ROUNDS):
        cost = nearest.distances * points.mass
        drawn = np.flatnonzero(rng.random(n) < 2 * n_clusters * cost / max(cost.sum(), np.finfo(float).tiny))
        nearest.add(drawn)
        candidates = np.concatenate((candidates, drawn))
    if len(candidates) < n_clusters:  # few candidates: the farthest points not yet among them join
        others = np.argsort(-nearest.distances * points.mass, kind="stable")
        others = others[~np.isin(others, candidates)]
        candidates = np.concatenate((candidates, others[: n_clusters - len(candidates)]))
    mass = np.maximum(np.bincount(nearest.owner, points.mass, len(candidates)), points.mass[candidates])
    return candidates[_plus_plus(points.take(candidates), mass, n_clusters, rng)]


class _Nearest:
    """The closest of the points that were added, for each point, in distances without its mass."""

    def __init__(self, points: Points) -> None:
        n = len(points.values)
        self.distances, self.owner = np.full(n, np.inf), np.zeros(n, np.int32)
        self._values, self._shares, self._n_added = points.values, np.empty((0, 1)), 0
        if points.weights.ndim == 2:
            self._shares = points.weights / points.mass[:, None]
        self._parts = chunks(n, _CHUNK, 64)

    def add(self, indices: IntArray | list[int]) -> None:
        """Add points; `owner` is the number of the closest one in the order of adding."""
        added = self._values[indices].astype(np.float64)
        common = (self._values, self._shares, added, self._n_added, self.distances, self.owner)
        run_all(closest_chunk, [(*common, *part) for part in self._parts])
        self._n_added += len(added)

    def potentials(self, trials: IntArray, mass: FloatArray) -> FloatArray:
        """Return the sum of mass times squared distance that each of some points would leave, were it added."""
        positions = self._values[trials].astype(np.float64)
        common = (self._values, self._shares, mass, self.distances, positions)
        return np.sum(run_all(potentials_chunk, [(*common, *part) for part in self._parts]), axis=0)
