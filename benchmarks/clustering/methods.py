"""The methods compared, and what is measured of a call."""

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from compression import KMeansResult, kmeans, pg_kmeans
from compression.clustering.kernels import Searcher
from compression.clustering.points import Points

Method = Callable[[np.ndarray, int, int, int], np.ndarray]
"""Takes blocks (N, d), number of centroids, iterations and seed; returns centroids (K, d)."""


def pg(x: np.ndarray, k: int, iterations: int, seed: int) -> np.ndarray:
    """PG k-means."""
    return np.asarray(pg_kmeans(x, k, max_iter=iterations, tol=0.0, seed=seed).centroids)


def faiss(x: np.ndarray, k: int, iterations: int, seed: int) -> np.ndarray:
    """k-means of faiss on all points, and its search for the assignment, which the other methods return too."""
    from faiss import Kmeans

    trainer = Kmeans(
        x.shape[1], k, niter=iterations, seed=seed + 1, min_points_per_centroid=1, max_points_per_centroid=len(x)
    )
    trainer.train(x)
    trainer.index.search(x, 1)
    return np.asarray(trainer.centroids)


def scikit_learn(x: np.ndarray, k: int, iterations: int, seed: int) -> np.ndarray:
    """scikit-learn's k-means with its k-means++."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(k, n_init=1, max_iter=iterations, tol=0.0, random_state=seed).fit(x)
    return np.asarray(fitted.cluster_centers_)


def released(x: np.ndarray, k: int, iterations: int, seed: int) -> np.ndarray:
    """The released iPQ's k-means, its rule on our search."""
    return np.asarray(kmeans(x, k, init="random", empty="perturb", max_iter=iterations, tol=0.0, seed=seed).centroids)


METHODS: dict[str, Method] = {
    "faiss": faiss,
    "PG k-means": pg,
    "scikit-learn k-means++": scikit_learn,
    "released rule (ours)": released,
}


def quality(x: np.ndarray, centroids: np.ndarray) -> tuple[float, int]:
    """Objective of the centroids with every point at its nearest, and how many of them no point has."""
    points = Points(x, np.broadcast_to(np.ones(1), len(x)))
    table = centroids.astype(np.float64)
    codes = Searcher(points).nearest(table)
    return points.inertia(table, codes), len(table) - len(np.unique(codes))


def side_by_side(
    x: np.ndarray, k: int, iterations: int, rounds: int, methods: tuple[str, ...] = tuple(METHODS)
) -> list[dict[str, Any]]:
    """Run the methods in turn, `rounds` times, and return a row for each: median time, objective, empty clusters.

    A first call on few points, not timed, compiles and loads what a method needs.
    """
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    found: dict[str, list[tuple[float, int]]] = {method: [] for method in methods}
    for method in methods:
        METHODS[method](x[: 40 * min(k, 16)], min(k, 16), 2, 0)
    for number in range(rounds):
        for method in methods:
            start = time.perf_counter()
            centroids = METHODS[method](x, k, iterations, number)
            seconds[method].append(time.perf_counter() - start)
            found[method].append(quality(x, centroids))
    best = min(statistics.median(o for o, _ in found[m]) for m in methods if m in ("faiss", "scikit-learn k-means++"))
    return [
        {
            "method": method,
            "seconds": statistics.median(seconds[method]),
            "seconds / faiss": statistics.median(seconds[method]) / statistics.median(seconds["faiss"]),
            "objective": statistics.median(o for o, _ in found[method]),
            "objective / best peer": statistics.median(o for o, _ in found[method]) / best if best else float("nan"),
            "empty": statistics.median(e for _, e in found[method]),
        }
        for method in methods
    ]


def sgemm_rate(k: int, d: int) -> float:
    """Floating-point operations per second of a float32 matrix product of the shape of the search, best of 5."""
    import torch

    n = 1 << 16
    x, c = torch.randn(n, d), torch.randn(d, k)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        x @ c
        times.append(time.perf_counter() - start)
    large = torch.randn(2048, 2048)
    for _ in range(5):
        start = time.perf_counter()
        large @ large
        times.append((time.perf_counter() - start) * (n * k * d) / 2048**3)
    return 2 * n * k * d / min(times)


def work(result: KMeansResult) -> dict[str, int]:
    """What a call spent on empty clusters, over all iterations."""
    return {
        "empty met": sum(row.empty for row in result.history),
        "rounds": sum(row.rounds for row in result.history),
        "splits": sum(row.splits for row in result.history),
        "full reassignments": sum(row.reassignments for row in result.history),
    }
