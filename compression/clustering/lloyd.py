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
from compression.clustering.relocation import relocate
from compression.clustering.seeding import SEEDINGS, seed_centroids

DEFAULT_SPLIT = "principal"

MAX_RELOCATIONS = 10
"""Iterations, from the second on, that relocate codewords, as long as each finds some to move."""


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
    relocated
        Codewords moved from clusters of least error to clusters of most (``empty="partition"`` only).
    """

    inertia: float
    empty: int
    rounds: int
    splits: int
    reassignments: int
    left: int
    seconds: float
    relocated: int = 0


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

    The distinct rows are partitioned into `n_clusters` parts of even weight, whose means are the first centroids; a
    cluster found empty receives part of a large cluster; codewords of least use move to clusters of largest error; and
    after the last iteration any codeword still empty is moved onto a row. The result is nearest-consistent (within the
    rounding of the search), and no cluster is empty if there are at least `n_clusters` distinct rows.

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
    return _run(x, n_clusters, "partition", "partition", sample_weight, max_iter, tol, seed, device, split, consolidate)


def kmeans(
    x: Any,
    n_clusters: int,
    *,
    init: str = "k-means++",
    empty: str = "farthest",
    sample_weight: Any = None,
    max_iter: int = 15,
    tol: float = 1e-4,
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
        ``"random"`` (rows drawn with replacement), ``"k-means++"``, ``"k-means||"`` or ``"partition"``.
    empty
        ``"keep"``: nothing. ``"perturb"``: the released iPQ rule; with ``init="random"`` and ``tol=0`` this is its
        k-means, which stops early if 100 tries leave clusters empty. ``"faiss"``, ``"farthest"``: the rules of faiss
        and scikit-learn. ``"partition"``: the rule of `pg_kmeans`, with its guarantee.

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
    return _run(x, n_clusters, init, empty, sample_weight, max_iter, tol, seed, device, split, None)


def _run(
    x: Any,
    n_clusters: int,
    init: str,
    empty: str,
    sample_weight: Any,
    max_iter: int,
    tol: float,
    seed: int,
    device: Any,
    split: str,
    consolidate: float | None,
) -> KMeansResult:
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
    centroids = seed_centroids(points, k, init, rng, split)
    state = State(points, search, centroids, np.empty(0, np.int64), rng, split)
    history = _iterate(state, empty, max_iter, tol)
    return _finish(state, history, empty, data)


def _iterate(state: State, rule: str, max_iter: int, tol: float) -> tuple[Iteration, ...]:
    """Lloyd's iteration: assign, resolve empty clusters, take means; stop on no change, small gain or `max_iter`."""
    history: list[Iteration] = []
    relocating = rule == "partition"
    for number in range(max_iter):
        start = time.perf_counter()
        previous = state.codes
        state.assign()
        unchanged = np.array_equal(previous, state.codes)
        resolution = resolve(state, rule)
        relocated = relocate(state) if relocating and number > 0 else 0
        relocating = relocating and (number == 0 or relocated > 0) and number < MAX_RELOCATIONS
        means, inertia = state.points.mean_step(state.codes, state.centroids)
        gave_up = rule == "perturb" and resolution.left > 0
        if not gave_up:  # the released rule skips the mean step of the iteration in which it gives up
            state.centroids = means
            if rule == "faiss":
                resolution = perturb_copies(state)
        seconds = time.perf_counter() - start
        history.append(_record(resolution, inertia, seconds, relocated))
        settled = len(history) > 1 and history[-2].inertia - inertia <= tol * inertia and not resolution.found
        if gave_up or (unchanged and not relocated) or settled:
            break
    return tuple(history)


def _record(resolution: Resolution, inertia: float, seconds: float, relocated: int) -> Iteration:
    return Iteration(
        inertia,
        resolution.found,
        resolution.rounds,
        resolution.splits,
        resolution.reassignments,
        resolution.left,
        seconds,
        relocated,
    )


def _finish(state: State, history: tuple[Iteration, ...], rule: str, data: Data) -> KMeansResult:
    """Freeze the centroids at the returned dtype, assign, and under the partitioning rule leave no codeword empty."""
    centroids = _rounded(state.centroids, data.dtype)
    state.centroids = centroids.astype(np.float64)
    state.assign()
    n_moved = _move_empty(state) if rule == "partition" else 0
    centroids = _rounded(state.centroids, data.dtype)
    n_effective = len(state.centroids) - len(state.empty())
    codes = state.codes[state.points.inverse]
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
    inertia = _inertia(data, centroids, points.inverse)
    return KMeansResult(data.give_back(centroids), data.give_back(points.inverse), inertia, 0, n, ())


def _inertia(data: Data, centroids: FloatArray, codes: np.ndarray) -> float:
    weights = np.ones(len(codes)) if data.weights is None else data.weights
    everything = Points(data.values, weights, np.arange(len(codes)))
    return float(everything.squared_distances(centroids.astype(np.float64), codes).sum())


def _rounded(centroids: FloatArray, dtype: np.dtype) -> FloatArray:
    """Centroids at the dtype that is returned; a mean that would overflow float16 is clipped to its range."""
    limit = np.finfo(dtype).max
    return np.clip(centroids, -limit, limit).astype(dtype)
