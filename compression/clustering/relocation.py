"""Relocation: codewords move from clusters that are hardly missed to clusters whose error is large.

A partition into parts of even weight gives dense regions more codewords than the squared error asks for. Relocation
mends that with the rule for empty clusters, applied to clusters that are as good as empty: a cluster is dissolved and
its codeword given to a donor, whose members are partitioned in two, if that lowers the error by more than dissolving
raises it. In the spirit of the ELBG algorithm (Patane and Russo, Neural Networks 14, 1219, 2001), in batches.
"""

import numpy as np

from compression.clustering.empty_clusters import State
from compression.clustering.partition import partition
from compression.clustering.points import FloatArray, IntArray, Points

_SHARE = 4
"""One in so many clusters is tried as donor, and one in so many as the one to dissolve."""

_LOCAL_STEPS = 2
"""Steps of 2-means that refine the partition of a donor."""


def relocate(state: State) -> int:
    """Move codewords where that lowers the error; no cluster is left empty.

    Parameters
    ----------
    state
        With every point assigned and no cluster empty; `codes` and `centroids` are changed in place.

    Returns
    -------
    int
        Codewords moved. The error of the assignment with the new centroids is lower than before if this is not 0.
    """
    points, k = state.points, len(state.centroids)
    n_tried = k // _SHARE
    if n_tried == 0:
        return 0
    distances = points.squared_distances(state.centroids, state.codes)
    errors = np.bincount(state.codes, distances, k)
    by_error = np.argsort(errors, kind="stable")
    least, most = by_error[:n_tried], by_error[: -n_tried - 1 : -1]
    order = np.argsort(state.codes, kind="stable")
    ends = np.cumsum(np.bincount(state.codes, minlength=k))
    members = np.split(order, ends[:-1])

    others = np.setdiff1d(np.arange(k), least)
    leaving = np.concatenate([members[cluster] for cluster in least])
    refuge = others[state.search.nearest(state.centroids[others], leaving)]
    new_distances = points.squared_distances(state.centroids, refuge, leaving)
    costs = np.bincount(state.codes[leaving], new_distances, k) - errors
    homes = np.empty(len(points.values), np.int64)
    homes[leaving] = refuge

    splits = {int(donor): _two_parts(points, members[donor], state.split) for donor in most}
    gains = {donor: errors[donor] - split[2] for donor, split in splits.items()}
    donors = sorted(gains, key=lambda donor: -gains[donor])
    dissolved = least[np.argsort(costs[least], kind="stable")]
    codes, centroids = state.codes.copy(), state.centroids.copy()
    n_moved = 0
    for donor, cluster in zip(donors, dissolved, strict=True):
        if gains[donor] <= costs[cluster]:
            break
        right, means, _ = splits[donor]
        codes[members[cluster]] = homes[members[cluster]]
        codes[members[donor][right]] = cluster
        centroids[[donor, cluster]] = means
        n_moved += 1
    # A dissolved cluster's members may have gone to a donor whose centroid moved too, so the sum is what decides.
    if not n_moved or not points.squared_distances(centroids, codes).sum() < distances.sum():
        return 0
    state.codes, state.centroids = codes, centroids
    return n_moved


def _two_parts(points: Points, members: IntArray, split: str) -> tuple[np.ndarray, FloatArray, float]:
    """Partition the members of a donor in two.

    Returns
    -------
    right : numpy.ndarray
        (n,) mask of the second part; all ``False`` if there is only one point.
    means : numpy.ndarray
        (2, d) float64.
    error : float
        Weighted sum of squared distances; infinite if there is only one point.
    """
    n = len(members)
    d = points.values.shape[1]
    if n < 2:
        return np.zeros(n, bool), np.zeros((2, d)), np.inf
    some = Points(points.values[members], points.weights[members], np.arange(n))
    labels = partition(some.values, some.mass, 2, split)
    means = some.means(labels, 2, np.zeros((2, d)))
    for _ in range(_LOCAL_STEPS):
        nearer = some.squared_distances(means, np.ones(n, int)) < some.squared_distances(means, np.zeros(n, int))
        if nearer.all() or not nearer.any():
            break
        labels = nearer.astype(np.int64)
        means = some.means(labels, 2, means)
    return labels == 1, means, float(some.squared_distances(means, labels).sum())
