"""PG k-means beside faiss, scikit-learn and the released iPQ's rule: whole calls on the same blocks, in one run.

The methods take turns, round by round, so that a drift of the machine's speed meets all of them; the table gives the
median time of each and its ratio to faiss's.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compression import kmeans, pg_kmeans
from compression.experiments.empty_clusters import EmptyClustersConfig, student_blocks
from shared.artifacts import provenance, write_json
from shared.progress import progress
from shared.results import markdown_table, write_table

MAX_ITER = 15
N_CENTROIDS = 256


def _pg(x: np.ndarray, seed: int) -> np.ndarray:
    return pg_kmeans(x, N_CENTROIDS, max_iter=MAX_ITER, tol=0.0, seed=seed).centroids


def _released(x: np.ndarray, seed: int) -> np.ndarray:
    return kmeans(x, N_CENTROIDS, init="random", empty="perturb", max_iter=MAX_ITER, tol=0.0, seed=seed).centroids


def _faiss(x: np.ndarray, seed: int) -> np.ndarray:
    import faiss

    trainer = faiss.Kmeans(x.shape[1], N_CENTROIDS, niter=MAX_ITER, seed=seed + 1, max_points_per_centroid=len(x))
    trainer.train(x)
    trainer.index.search(x, 1)  # the assignment, which the other methods return too
    return np.asarray(trainer.centroids)


def _scikit_learn(x: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(N_CENTROIDS, n_init=1, max_iter=MAX_ITER, tol=0.0, random_state=seed).fit(x).cluster_centers_


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "faiss": _faiss,
    "scikit-learn k-means++": _scikit_learn,
    "released rule (ours)": _released,
    "PG k-means": _pg,
}


def data_sets(fast: bool) -> dict[str, np.ndarray]:
    """Return the blocks to cluster, (N, 8) float32, by name."""
    rng = np.random.default_rng(0)
    n = 20_000 if fast else 294_912
    stress = EmptyClustersConfig(n_blocks=18_432)
    return {
        f"normal, N={n:,}": rng.standard_normal((n, 8)).astype(np.float32),
        "Student t, N=18,432": student_blocks(stress, 0.0, 0),
        "Student t, 30% zero, N=18,432": student_blocks(stress, 0.3, 0),
    }


def measure(x: np.ndarray, name: str, rounds: int, step: Callable[[], None]) -> list[dict[str, Any]]:
    """Run every method on `x`, `rounds` times in turn, and return a row for each."""
    from compression.clustering.kernels import Searcher
    from compression.clustering.points import distinct_points

    points = distinct_points(x)
    search = Searcher(points)
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    inertia: dict[str, list[float]] = {method: [] for method in METHODS}
    empty: dict[str, list[int]] = {method: [] for method in METHODS}
    for number in range(rounds):
        for method, function in METHODS.items():
            start = time.perf_counter()
            centroids = function(x, number)
            seconds[method].append(time.perf_counter() - start)
            table = centroids.astype(np.float64)
            codes = search.nearest(table)
            inertia[method].append(float(points.squared_distances(table, codes).sum()))
            empty[method].append(N_CENTROIDS - len(np.unique(codes)))
            step()
    reference = statistics.median(seconds["faiss"])
    best = min(statistics.median(inertia[method]) for method in ("faiss", "scikit-learn k-means++"))
    return [
        {
            "blocks": name,
            "method": method,
            "seconds": statistics.median(seconds[method]),
            "seconds / faiss": statistics.median(seconds[method]) / reference,
            "objective / best peer": statistics.median(inertia[method]) / best,
            "empty at the end": statistics.median(empty[method]),
        }
        for method in METHODS
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print its table and write it with provenance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clustering", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of results")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each method (default 5)")
    parser.add_argument("--fast", action="store_true", help="small data, to try the benchmark itself")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, but was {arguments.rounds}")
    start = time.perf_counter()
    sets = data_sets(arguments.fast)
    rows: list[dict[str, Any]] = []
    with progress("Benchmarking", len(sets) * len(METHODS) * arguments.rounds) as step:
        for name, x in sets.items():
            rows += measure(x, name, arguments.rounds, step)
    write_table(rows, arguments.out / "clustering")
    write_json(arguments.out / "clustering.json", provenance({"rounds": arguments.rounds}, time.perf_counter() - start))
    print(markdown_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
