"""k-means and PG k-means: the public functions and the iteration they share."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from compression.clustering.consolidation import consolidate_points
from compression.clustering.empty_clusters import RULES, Resolution, State, perturb_copies, resolve
from compression.clustering.inputs import Data, check_data, check_integer, check_number
from compression.clustering.kernels import Searcher
from compression.clustering.partition import direction_of
from compression.clustering.points import FloatArray, Points, distinct_points
from compression.clustering.reallocation import reallocate
from compression.clustering.seeding import SEEDINGS, seed_centroids

DEFAULT_SPLIT = "principal"

RELAXATION = 1.85
"""How far PG k-means moves each centroid: this many times the way to the mean of its cluster."""


@dataclass(frozen=True)
class Iteration:
    """One row of a k-means history.

    Attributes
    ----------
    inertia
        Weighted sum of squared distances after the assignment and the resolution of empty clusters.
    empty, rounds, splits, reassignments, left
        Empty clusters found after the assignment, the passes, cluster splits and full reassignments used to resolve
        them, and the empty clusters left over.
    seconds
        Wall time of the iteration.
    """

    inertia: float
    empty: int
    rounds: int
    splits: int
    reassignments: int
    left: int
    seconds: float


@dataclass(frozen=True)
class KMeansResult:
    """Result of `kmeans` and `pg_kmeans`, in the kind (NumPy or torch) and on the device of the data.

    Attributes
    ----------
    centroids
        (K, d) of the data's dtype.
    assignments
        (N,) int64: the nearest centroid of each row.
    inertia
        Weighted sum of squared distances of the assignment to the returned centroids.
    n_iter
        Iterations done.
    n_effective
        Clusters that are not empty.
    history
        One `Iteration` for each iteration.
    n_moved
        Codewords moved onto a block after the last iteration because they were empty (``empty="partition"`` only).
    """

    centroids: Any
    assignments: Any
    inertia: float
    n_iter: int
    n_effective: int
    history: tuple[Iteration, ...]
    n_moved: int = 0


def pg_kmeans(
    x: Any,
    n_clusters: int,
    *,
    sample_weight: Any = None,
    max_iter: int = 15,
    tol: float = 1e-4,
    consolidate: float | None = None,
    split: str = DEFAULT_SPLIT,
    seed: int = 0,
    device: Any = None,
) -> KMeansResult:
    """Partitioning-Guided k-means (arXiv:2306.14031): k-means without empty clusters.

    The distinct rows are partitioned into `n_clusters` parts, even in their share of size and spread, whose means are
    the first centroids. After the first assignment, codewords move from clusters that are cheaply merged to those of
    large error, where that lowers the objective. A cluster found empty receives part of a large cluster; centroids move
    1.85 times the way to the mean, which for any factor up to 2 does not raise the objective and converges in fewer
    iterations; and after the last one any codeword still empty is moved onto a row. The result is nearest-consistent
    (within the rounding of the search), and no cluster is empty if there are at least `n_clusters` distinct rows.

    Parameters
    ----------
    x
        (N, d) NumPy array or torch tensor, float16, float32 or float64. float16 is clustered in float32 and the
        centroids are rounded to float16 before the last assignment.
    n_clusters
        Number of clusters K, 1 to N.
    sample_weight
        Positive weights, (N,) for each row or (N, d) for each entry; 1 if ``None``.
    max_iter
        Most iterations, at least 1.
    tol
        Stop when an iteration lowers the inertia by less than this share of it.
    consolidate
        Merge groups of rows of at most this diameter, in units of the rows' root mean square norm, before clustering.
        The guarantees then hold for the merged rows. ``None`` merges equal rows only, which changes no result.
    split
        Direction of the cuts: ``"principal"``, ``"farthest"`` or ``"widest"``.
    seed
        Kept for symmetry with `kmeans`; nothing in this function is random.
    device
        torch device for the nearest-centroid search; where `x` is if ``None``.

    Returns
    -------
    KMeansResult
        With fewer than K distinct rows: each is a centroid, ``inertia`` is 0 and ``n_effective`` is their number.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from compression import pg_kmeans
    >>> blocks = np.random.default_rng(0).standard_normal((10_000, 8)).astype(np.float32)
    >>> pg_kmeans(blocks, 256).n_effective
    256
    """
    if consolidate is not None:
        consolidate = check_number(consolidate, "consolidate", positive=True)
    rules = ("partition", "partition", RELAXATION)
    return _run(x, n_clusters, rules, sample_weight, max_iter, tol, seed, device, split, consolidate)


def kmeans(
    x: Any,
    n_clusters: int,
    *,
    init: str = "k-means++",
    empty: str = "farthest",
    sample_weight: Any = None,
    max_iter: int = 15,
    tol: float = 1e-4,
    relaxation: float = 1.0,
    split: str = DEFAULT_SPLIT,
    seed: int = 0,
    device: Any = None,
) -> KMeansResult:
    """k-means with a choice of seeding and of empty-cluster rule: PG k-means' peers and the parts of it.

    Parameters
    ----------
    x, n_clusters, sample_weight, max_iter, tol, split, seed, device
        As in `pg_kmeans`; here `seed` seeds the generator for random choices.
    init
        ``"random"`` (rows drawn with replacement), ``"k-means++"``, ``"k-means||"``, ``"bisecting"`` or
        ``"partition"``.
    empty
        ``"keep"``: nothing. ``"perturb"``: the released iPQ rule; with ``init="random"`` and ``tol=0`` this is its
        k-means, which stops early if 100 tries leave clusters empty; ``"perturb-batched"``: the same for all empty
        clusters at once. ``"faiss"``, ``"farthest"``: the rules of faiss
        and scikit-learn. ``"partition"``: the rule of `pg_kmeans`, with its guarantee.
    relaxation
        Centroids move so many times the way to the mean, 1 (Lloyd) to 2; the last move is to the mean itself.

    Returns
    -------
    KMeansResult

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.
    """
    if init not in SEEDINGS:
        raise ValueError(f"Argument `init` must be one of {', '.join(map(repr, SEEDINGS))}, but was {init!r}.")
    if empty not in RULES:
        raise ValueError(f"Argument `empty` must be one of {', '.join(map(repr, RULES))}, but was {empty!r}.")
    relaxation = check_number(relaxation, "relaxation")
    if not 1 <= relaxation <= 2:
        raise ValueError(f"Argument `relaxation` must be from 1 to 2, but was {relaxation}.")
    rules = (init, empty, relaxation)
    return _run(x, n_clusters, rules, sample_weight, max_iter, tol, seed, device, split, None)


def _run(
    x: Any,
    n_clusters: int,
    rules: tuple[str, str, float],
    sample_weight: Any,
    max_iter: int,
    tol: float,
    seed: int,
    device: Any,
    split: str,
    consolidate: float | None,
) -> KMeansResult:
    init, empty, relaxation = rules
    direction_of(split)
    max_iter = check_integer(max_iter, "max_iter", 1)
    tol = check_number(tol, "tol")
    rng = np.random.default_rng(check_integer(seed, "seed", 0))
    data = check_data(x, sample_weight, device)
    k = check_integer(n_clusters, "n_clusters", 1, len(data.values), "the number of rows ")
    points = distinct_points(data.values, data.weights)
    if len(points.values) <= k:
        return _one_each(points, k, data)
    if consolidate is not None:
        points = consolidate_points(points, consolidate, at_least=k)
        if len(points.values) == k:
            return _one_each(points, k, data)
    search = Searcher(points, data.device)
    state = State(points, search, *seed_centroids(points, k, init, rng, split), rng, split)
    history = _iterate(state, empty, relaxation, max_iter, tol)
    return _finish(state, history, empty, data)


def _iterate(state: State, rule: str, relaxation: float, max_iter: int, tol: float) -> tuple[Iteration, ...]:
    """Lloyd's iteration: assign, resolve empty clusters, take means; stop on no change, small gain or `max_iter`.

    With m the mean of a cluster of weight n, moving its centroid c to c + f (m - c) changes the objective by
    ((f - 1)^2 - 1) n |m - c|^2, which is not positive for 0 <= f <= 2.
    """
    history: list[Iteration] = []
    for number in range(max_iter):
        start = time.perf_counter()
        previous = state.codes
        state.assign()
        unchanged = np.array_equal(previous, state.codes)
        resolution = resolve(state, rule)
        if number == 0 and rule == "partition" and reallocate(state):
            unchanged = False
        means, inertia = state.mean_step()
        gave_up = rule.startswith("perturb") and resolution.left > 0
        settled = number > 0 and history[-1].inertia - inertia <= tol * inertia and not resolution.found
        last = gave_up or unchanged or settled or number == max_iter - 1
        if not gave_up:  # the released rule skips the mean step of the iteration in which it gives up
            state.centroids = means if last else state.centroids + relaxation * (means - state.centroids)
            if rule == "faiss":
                resolution = perturb_copies(state)
        history.append(_record(resolution, inertia, time.perf_counter() - start))
        if last:
            break
    return tuple(history)


def _record(resolution: Resolution, inertia: float, seconds: float) -> Iteration:
    return Iteration(
        inertia,
        resolution.found,
        resolution.rounds,
        resolution.splits,
        resolution.reassignments,
        resolution.left,
        seconds,
    )


def _finish(state: State, history: tuple[Iteration, ...], rule: str, data: Data) -> KMeansResult:
    """Freeze the centroids at the returned dtype, assign, and under the partitioning rule leave no codeword empty."""
    centroids = _rounded(state.centroids, data.dtype)
    state.centroids = centroids.astype(np.float64)
    state.assign()
    n_moved = _move_empty(state) if rule == "partition" else 0
    centroids = _rounded(state.centroids, data.dtype)
    n_effective = len(state.centroids) - len(state.empty())
    codes = state.points.of_rows(state.codes).astype(np.int64)
    inertia = _inertia(data, centroids, codes)
    return KMeansResult(
        data.give_back(centroids), data.give_back(codes), inertia, len(history), n_effective, history, n_moved
    )


def _move_empty(state: State) -> int:
    """Move empty codewords onto points that are not at distance 0 from their centroid; return how many moves.

    A codeword moved onto a point is at distance exactly 0 from it and from no other, so it is never empty again: at
    most K moves. Every point keeps its centroid unless another is strictly nearer, so the objective never rises.
    """
    owners = np.full(len(state.centroids), -1)
    n_moved = 0
    empty = state.empty()
    if not len(empty):
        return 0
    state.sums = None
    distances = state.points.squared_distances(state.centroids, state.codes)
    while len(empty):
        far = np.argsort(-distances, kind="stable")[: len(empty)]
        far = far[distances[far] > 0]
        if not len(far):
            break
        receivers = empty[: len(far)]
        state.centroids[receivers] = state.points.values[far]
        owners[receivers] = far
        n_moved += len(far)
        codes = state.search.nearest(state.centroids)
        anchored = np.flatnonzero(owners >= 0)
        codes[owners[anchored]] = anchored
        candidates = state.points.squared_distances(state.centroids, codes)
        nearer = candidates < distances
        state.codes = np.where(nearer, codes, state.codes)
        distances = np.where(nearer, candidates, distances)
        empty = state.empty()
    return n_moved


def _one_each(points: Points, k: int, data: Data) -> KMeansResult:
    """Result for at most K distinct points: each is a centroid; the last is repeated to fill up."""
    n = len(points.values)
    rows = np.minimum(np.arange(k), n - 1)
    centroids = _rounded(points.values[rows], data.dtype)
    codes = points.of_rows(np.arange(n))
    return KMeansResult(data.give_back(centroids), data.give_back(codes), _inertia(data, centroids, codes), 0, n, ())


def _inertia(data: Data, centroids: FloatArray, codes: np.ndarray) -> float:
    weights = np.broadcast_to(np.ones(1), len(codes)) if data.weights is None else data.weights
    return Points(data.values, weights).inertia(centroids.astype(np.float64), codes)


def _rounded(centroids: FloatArray, dtype: np.dtype) -> FloatArray:
    """Centroids at the dtype that is returned; a mean that would overflow float16 is clipped to its range."""
    limit = np.finfo(dtype).max
    return np.clip(centroids, -limit, limit).astype(dtype)
