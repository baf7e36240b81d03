"""Merge and cut: every move lowers the objective, no cluster becomes empty, and the prices are exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression import kmeans, pg_kmeans
from compression.clustering.compiled_cut import cheapest_merges
from compression.clustering.empty_clusters import State
from compression.clustering.kernels import Searcher
from compression.clustering.points import distinct_points
from compression.clustering.reallocation import best_cut, reallocate


def heavy_points(seed, n, d, weights):
    rng = np.random.default_rng(seed)
    x = rng.standard_t(1.5, (n, d)).astype(np.float32)
    shape = {"one": None, "rows": (n,), "entries": (n, d)}[weights]
    return distinct_points(x, None if shape is None else rng.uniform(0.1, 3, shape))


def error_of(points, labels):
    k = labels.max() + 1
    return points.inertia(points.means(labels, k, np.zeros((k, points.values.shape[1]))), labels)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    n=st.integers(20, 300),
    d=st.sampled_from([1, 2, 4]),
    k=st.integers(2, 18),
    weights=st.sampled_from(["one", "rows", "entries"]),
)
def test_the_objective_falls_and_no_cluster_empties(seed, n, d, k, weights):
    points = heavy_points(seed, n, d, weights)
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(k), rng.integers(0, k, n - k)]).astype(np.int32)
    state = State(points, Searcher(points), points.means(codes, k, np.zeros((k, d))), codes.copy(), rng, "principal")
    before = error_of(points, codes)
    moved = reallocate(state)
    after = error_of(points, state.codes)
    assert len(np.unique(state.codes)) == k
    assert after < before if moved else np.array_equal(state.codes, codes)
    means = points.means(state.codes, k, np.zeros((k, d)))
    changed = (state.codes != codes).any()
    assert bool(moved) == changed
    np.testing.assert_allclose(state.centroids, means, atol=1e-9 * np.abs(points.values).max())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), d=st.sampled_from([1, 2, 4]), weights=st.sampled_from(["one", "rows", "entries"]))
def test_price_of_a_merge_is_what_it_adds_to_the_error(seed, d, weights):
    points = heavy_points(seed, 60, d, weights)
    codes = (np.arange(60) % 5).astype(np.int32)
    sums, totals = points.weighted_sums(codes, 5)
    partner, price = np.empty(5, np.int64), np.empty(5)
    columns = [np.ascontiguousarray(some.T) for some in (sums / totals, totals)]
    coarse = [some.astype(np.float32) for some in columns]
    cheapest_merges(*columns, *coarse, (0,) * d, partner, price, 0, 5)
    added = {}
    for i in range(5):
        for j in set(range(5)) - {i}:
            added[i, j] = error_of(points, np.where(codes == i, j, codes)[codes != 9]) - error_of(points, codes)
    for i in range(5):
        assert added[i, partner[i]] == pytest.approx(price[i], rel=1e-6, abs=1e-9 * error_of(points, codes))
        assert price[i] <= min(added[i, j] for j in range(5) if j != i) * (1 + 1e-6) + 1e-9 * error_of(points, codes)


def test_the_cut_of_points_on_a_line_is_the_best_of_all():
    rng = np.random.default_rng(0)
    points = distinct_points(rng.standard_t(1.5, (40, 1)), rng.uniform(0.5, 2, 40))
    gain, labels, _, errors = best_cut(points)
    order = np.argsort(points.values[:, 0])
    best = min(error_of(points, np.isin(np.arange(40), order[:n]).astype(np.int32)) for n in range(1, 40))
    assert errors.sum() == pytest.approx(best)
    assert gain == pytest.approx(error_of(points, np.zeros(40, np.int32)) - best)
    assert set(labels) == {0, 1}


def test_outliers_get_codewords_of_their_own():
    """40 clusters far away with one point each: an even share of codewords would leave most of them together."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.standard_normal((20_000, 4)), 30 * rng.standard_normal((40, 4))]).astype(np.float32)
    ours = pg_kmeans(x, 128, tol=0)
    others = [kmeans(x, 128, empty="farthest", tol=0, seed=seed).inertia for seed in range(3)]
    assert ours.inertia < 1.01 * np.median(others)
