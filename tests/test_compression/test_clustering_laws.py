"""Laws of PG k-means and its parts, on random data with duplicates, ties, zeros and heavy tails."""

import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compression import kmeans, pg_kmeans
from compression.clustering import near_lists, threads
from compression.clustering import points as points_module
from compression.clustering.consolidation import consolidate_points
from compression.clustering.empty_clusters import State, resolve
from compression.clustering.kernels import Searcher, _CompiledEngine, _TorchEngine
from compression.clustering.partition import SPLITS, partition
from compression.clustering.points import distinct_points
from compression.clustering.seeding import spread_mass

WIDTHS = st.sampled_from([1, 2, 4])
"""Block sizes: what runs for each of them is compiled by itself, in seconds."""

FAST = settings(max_examples=60, deadline=None)


@st.composite
def blocks(draw, dtypes=(np.float32, np.float64, np.float16)):
    """(N, d) with many equal rows, ties and zeros, or heavy tails."""
    dtype = draw(st.sampled_from(dtypes))
    n, d = draw(st.integers(1, 60)), draw(WIDTHS)
    kind = draw(st.sampled_from(["grid", "tails", "any"]))
    if kind == "any":
        values = st.floats(-100, 100, width=16, allow_subnormal=False)
        return draw(arrays(dtype, (n, d), elements=values))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "grid":
        return rng.integers(-1, 2, (n, d)).astype(dtype) * draw(st.sampled_from([0.5, 1.0, 64.0]))
    x = rng.standard_t(2, (n, d)).clip(-1e4, 1e4)
    x[rng.random(n) < draw(st.floats(0, 0.9))] = 0
    return x.astype(dtype)


def _n_distinct(x):
    return len(np.unique(x + 0.0, axis=0))


def _all_distances(x, centroids):
    return np.square(x.astype(np.float64)[:, None] - centroids.astype(np.float64)).sum(-1)


@FAST
@given(x=blocks(), data=st.data())
def test_final_state_theorem(x, data):
    """Nearest-consistent; no empty cluster iff there are K distinct rows; D < K gives D clusters at no cost."""
    k = data.draw(st.integers(1, len(x)))
    split = data.draw(st.sampled_from(sorted(SPLITS)))
    result = pg_kmeans(x, k, split=split, max_iter=data.draw(st.integers(1, 8)))
    distinct = _n_distinct(x)
    used = np.unique(result.assignments)
    assert result.n_effective == len(used) == min(k, distinct)
    assert result.centroids.shape == (k, x.shape[1])
    assert result.centroids.dtype == x.dtype
    distances = _all_distances(x, result.centroids)
    own = distances[np.arange(len(x)), result.assignments]
    scale = np.square(x.astype(np.float64)).sum(1).max() + 1e-30
    assert (own <= distances.min(1) + 4e-6 * scale).all()
    assert result.inertia == pytest.approx(own.sum(), rel=1e-9, abs=1e-12 * scale)
    if distinct <= k:
        assert result.inertia == 0


@FAST
@given(x=blocks(dtypes=(np.float32, np.float64)), data=st.data())
def test_objective_never_rises(x, data):
    k = data.draw(st.integers(1, len(x)))
    result = pg_kmeans(x, k, tol=0, max_iter=12)
    objective = np.array([row.inertia for row in result.history] + [result.inertia])
    scale = np.square(x.astype(np.float64)).sum()
    assert (np.diff(objective) <= 1e-5 * scale + 1e-12).all()


@FAST
@given(x=blocks(dtypes=(np.float32, np.float64)), data=st.data())
def test_partition_bound_and_minimum(x, data):
    """Every part is non-empty and weighs at most W/K + 1.5 w_max; with equal weights also at least W/K - 1.5."""
    points = distinct_points(x)
    n = len(points.values)
    k = data.draw(st.integers(1, n))
    split = data.draw(st.sampled_from(sorted(SPLITS)))
    parts = partition(points.values, points.mass, k, split)
    sizes = np.bincount(parts, points.mass, minlength=k)
    assert len(sizes) == k
    assert np.bincount(parts, minlength=k).min() >= 1
    assert sizes.max() <= points.mass.sum() / k + 1.5 * points.mass.max() + 1e-9
    even = partition(points.values, np.ones(n), k, split)
    counts = np.bincount(even, minlength=k)
    assert np.abs(counts - n / k).max() <= 1.5


@FAST
@given(x=blocks(dtypes=(np.float32,)), seed=st.integers(0, 100))
def test_partition_ignores_the_order_of_rows(x, seed):
    """On a line the parts are intervals of the sorted points, whatever order the rows came in."""
    x = np.round(x[:, :1])
    order = np.random.default_rng(seed).permutation(len(x))
    k = min(5, _n_distinct(x))
    line = np.argsort(x[:, 0], kind="stable")
    points, shuffled = distinct_points(x), distinct_points(x[order])
    parts = points.of_rows(partition(points.values, points.mass, k))[line]
    again = shuffled.of_rows(partition(shuffled.values, shuffled.mass, k))[np.argsort(order)[line]]
    for labels in (parts, again):
        assert np.count_nonzero(np.diff(labels)) == k - 1
    assert np.array_equal(np.diff(parts) != 0, np.diff(again) != 0)


@FAST
@given(x=blocks(dtypes=(np.float32, np.float64)), data=st.data())
def test_pre_assignment_bound(x, data):
    """Parts even in spread hold at most 11 W/K + 15 u_max of the weight."""
    points = distinct_points(x)
    k = data.draw(st.integers(1, len(points.values)))
    mass = spread_mass(points)
    assert (mass > 0).all()
    sizes = np.bincount(partition(points.values, mass, k), points.mass, minlength=k)
    assert sizes.max() <= (11 * points.mass.sum() / k + 15 * mass.max() * points.mass.max()) * (1 + 1e-5)


@FAST
@given(x=blocks(dtypes=(np.float32, np.float64)), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_round_fills_all_empties_and_empties_no_other(x, seed, data):
    points = distinct_points(x)
    n = len(points.values)
    k = data.draw(st.integers(1, n))
    rng = np.random.default_rng(seed)
    occupied = rng.choice(k, rng.integers(1, k + 1), replace=False)
    codes = rng.choice(occupied, n)
    before = np.unique(codes)
    state = State(points, Searcher(points), rng.standard_normal((k, x.shape[1])), codes, rng, "principal")
    state.centroids = points.means(codes, k, state.centroids)
    error = points.squared_distances(state.centroids, state.codes).sum()
    work = resolve(state, "partition")
    assert work.found == k - len(before)
    assert work.left == 0
    assert work.rounds <= 1
    assert work.reassignments == 0
    assert work.splits <= work.found
    assert len(np.unique(state.codes)) == k
    after = points.squared_distances(state.centroids, state.codes).sum()
    assert after < error if work.found else after == error


@FAST
@given(x=blocks(dtypes=(np.float32, np.float64)), relaxation=st.floats(1, 2), data=st.data())
def test_no_relaxation_up_to_2_raises_the_objective(x, relaxation, data):
    k = data.draw(st.integers(1, len(x)))
    init, empty = data.draw(st.sampled_from([("random", "keep"), ("k-means++", "partition")]))
    result = kmeans(x, k, init=init, empty=empty, relaxation=relaxation, tol=0, max_iter=8)
    objective = np.array([row.inertia for row in result.history] + [result.inertia])
    assert (np.diff(objective) <= 1e-5 * np.square(x.astype(np.float64)).sum() + 1e-12).all()


def test_relaxation_converges_in_fewer_iterations():
    """The objective that Lloyd's iteration has after 30 steps is reached in at most 18."""
    x = np.random.default_rng(0).standard_normal((20_000, 8)).astype(np.float32)
    plain = kmeans(x, 64, init="partition", empty="partition", max_iter=30, tol=0)
    relaxed = kmeans(x, 64, init="partition", empty="partition", relaxation=1.85, max_iter=18, tol=0)
    assert relaxed.inertia < plain.inertia


@FAST
@given(x=blocks(), data=st.data())
def test_equal_rows_weigh_as_much_as_weights(x, data):
    """Repeating a row is the same as giving it a larger weight."""
    repeats = np.array(data.draw(st.lists(st.integers(1, 3), min_size=len(x), max_size=len(x))))
    k = data.draw(st.integers(1, len(x)))
    repeated = pg_kmeans(np.repeat(x, repeats, axis=0), k)
    weighted = pg_kmeans(x, k, sample_weight=repeats)
    assert repeated.inertia == pytest.approx(weighted.inertia, rel=1e-6, abs=1e-9)
    assert repeated.n_effective == weighted.n_effective


@FAST
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 200), d=WIDTHS, data=st.data())
def test_equal_weights_per_coordinate_change_nothing(seed, n, d, data):
    """Up to ties, which rows without structure do not have."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    k = data.draw(st.integers(1, n))
    weight = data.draw(st.sampled_from([0.25, 1.0, 8.0]))
    plain = pg_kmeans(x, k)
    weighted = pg_kmeans(x, k, sample_weight=np.full(x.shape, weight))
    assert weighted.inertia == pytest.approx(plain.inertia * weight, rel=1e-6, abs=1e-12)
    assert weighted.n_effective == plain.n_effective


@FAST
@given(x=blocks(dtypes=(np.float32, np.float64)), radius=st.floats(1e-3, 3), data=st.data())
def test_consolidated_groups_stay_within_the_radius_and_keep_the_mean(x, radius, data):
    points = distinct_points(x)
    k = data.draw(st.integers(1, len(points.values)))
    merged = consolidate_points(points, radius, at_least=k)
    assert k <= len(merged.values) <= len(points.values)
    assert merged.mass.sum() == pytest.approx(len(x))
    values = x.astype(np.float64)
    rms = np.sqrt(np.square(values).sum(1).mean())
    for group in range(len(merged.values)):
        rows = values[merged.of_rows(np.arange(len(merged.values))) == group]
        assert np.sqrt(_all_distances(rows, rows).max()) <= radius * rms * (1 + 1e-6)
        assert np.allclose(rows.mean(0), merged.values[group], atol=1e-5 * (rms + 1e-30))
    assert pg_kmeans(x, k, consolidate=radius).n_effective == k


def test_same_seed_same_bits_for_any_thread_count(monkeypatch):
    """Weighted or not, with each split and with the released rule, in a pool of one, two and five threads."""
    x = np.random.default_rng(0).standard_normal((100_000, 8)).astype(np.float32)
    weights = np.random.default_rng(1).uniform(0.1, 1, x.shape)
    results = []
    for count in (1, 2, 5):
        monkeypatch.setattr(threads, "n_threads", lambda count=count: count)
        threads._pool.cache_clear()
        runs = [pg_kmeans(x, 64, split=split) for split in sorted(SPLITS)]
        runs += [pg_kmeans(x, 64, sample_weight=weights), pg_kmeans(x.astype(np.float64), 64)]
        runs += [kmeans(x, 64, init="random", empty="perturb", seed=3)]
        results.append(runs)
    threads._pool.cache_clear()
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert np.array_equal(first.centroids, second.centroids)
            assert np.array_equal(first.assignments, second.assignments)
            assert first.inertia == second.inertia


def test_interrupt_is_answered_long_before_the_end():
    """Some ten seconds of work, stopped after half a second; the answer takes a second at most on an idle machine."""
    x = np.random.default_rng(0).standard_normal((600_000, 16), dtype=np.float32)
    pg_kmeans(x[:100], 4)
    sent = []

    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.5, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pg_kmeans(x, 4096, tol=0, max_iter=50)
    assert time.perf_counter() - sent[0] < 4


def test_rows_are_merged_alike_when_hashes_crowd(monkeypatch):
    x = np.random.default_rng(0).integers(-2, 3, (500, 3)).astype(np.float32)
    hashed = distinct_points(x)
    monkeypatch.setattr(points_module, "first_equal_rows", lambda *_: -1)
    sorted_rows = distinct_points(x)
    assert np.array_equal(hashed.values, sorted_rows.values)
    assert np.array_equal(hashed.group, sorted_rows.group)
    assert np.array_equal(hashed.weights, sorted_rows.weights)


def test_numpy_and_torch_give_the_same():
    x = np.random.default_rng(1).standard_normal((3000, 4)).astype(np.float32)
    from_numpy, from_torch = pg_kmeans(x, 50), pg_kmeans(torch.from_numpy(x), 50)
    assert isinstance(from_torch.centroids, torch.Tensor)
    assert np.array_equal(from_numpy.centroids, from_torch.centroids.numpy())
    assert np.array_equal(from_numpy.assignments, from_torch.assignments.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("d", [1, 4, 7, 12])
def test_torch_search_agrees_with_the_compiled_one(dtype, weighted, d):
    rng = np.random.default_rng(d)
    x = (3 + rng.standard_normal((5003, d))).astype(dtype)
    points = distinct_points(x, rng.uniform(0.1, 1, x.shape) if weighted else None)
    centroids = points.values[::50].astype(np.float64) + 0.01
    one = Searcher(points).nearest(centroids)
    two = _TorchEngine(points, "cpu").nearest(centroids, None)
    distances = [points.squared_distances(centroids, codes) for codes in (one, two)]
    assert (one != two).mean() < 2e-3
    assert np.abs(distances[0] - distances[1]).max() < 1e-4
    some = rng.choice(len(x), 100, replace=False)
    assert np.array_equal(Searcher(points).nearest(centroids, some), one[some])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 400),
    d=st.sampled_from([1, 4, 8, 9]),
    k=st.integers(1, 60),
    dtype=st.sampled_from([np.float32, np.float64]),
    hint=st.sampled_from(["nearest", "any", "one"]),
    tails=st.booleans(),
)
def test_search_near_any_centroid_leaves_out_no_nearest_one(seed, n, d, k, dtype, hint, tails):
    rng = np.random.default_rng(seed)
    x = (5 + (rng.standard_t(1.2, (n, d)) if tails else rng.standard_normal((n, d)))).astype(dtype)
    points = distinct_points(x)
    centroids = points.values[rng.integers(0, len(points.values), k)] + 0.3 * rng.standard_normal((k, d))
    engine = _CompiledEngine(points)
    full = engine.nearest(centroids, None)
    previous = {"nearest": full, "any": rng.integers(0, k, len(full)), "one": np.zeros(len(full))}[hint]
    table = engine._table(centroids + 0.01 * rng.standard_normal((k, d)) if hint == "nearest" else centroids)
    moved = -table[2][:k].T / engine._scale + engine._shift[:, None]
    near = engine._near(table, previous.astype(np.int32), k, always=True)
    distances = _all_distances(points.values, moved.T)
    found, least = distances[np.arange(len(near)), near], distances.min(axis=1)
    size = np.square(points.extent[1]) * d
    assert np.all(found - least <= (1e-5 if dtype == np.float32 else 1e-13) * size)


def test_search_near_the_previous_centroids_is_used_and_changes_nothing():
    x = np.random.default_rng(0).standard_normal((120_000, 4)).astype(np.float32)
    points = distinct_points(x)
    centroids = points.values[:2048].astype(np.float64)
    search = Searcher(points)
    codes, _ = search.nearest_and_sums(centroids)
    centroids += 0.01 * np.random.default_rng(1).standard_normal(centroids.shape)
    full, near = Searcher(points).nearest_and_sums(centroids), search.nearest_and_sums(centroids, codes)
    assert search._engine._near_pays
    assert search._engine._near(search._engine._table(centroids), codes, 2048) is not None
    distances = [points.squared_distances(centroids, found) for found, _ in (full, near)]
    assert np.abs(distances[0] - distances[1]).max() < 1e-5
    assert np.allclose(full[1][0], near[1][0], atol=1e-3)


@FAST
@given(
    data=st.data(),
    d=st.sampled_from([1, 2, 4, 8, 9, 16]),
    dtype=st.sampled_from([np.float32, np.float64]),
    n=st.integers(40, 400),
    jump=st.sampled_from([0.0, 0.05, 3.0]),
)
def test_search_of_lists_is_exact(data, d, dtype, n, jump):
    """Lists find a nearest centroid, or say that they cannot tell, wherever the centroids go."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = (rng.standard_normal((n, d)) * 10.0 ** data.draw(st.integers(-3, 3))).astype(dtype)
    points = distinct_points(x)
    k = data.draw(st.integers(2, len(points.values)))
    engine = Searcher(points)._engine
    centroids = points.values[:k] + 0.3 * points.extent[1] * rng.standard_normal((k, d))
    codes = engine.nearest(centroids, None)
    tolerance = (1e-5 if dtype == np.float32 else 1e-13) * np.square(points.extent[1]) * d
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_lists, "_LEAST_WORK", 0)
        patch.setattr(near_lists, "_STILL", np.inf)
        patch.setattr(near_lists, "_CAPACITY", data.draw(st.sampled_from([3, 48])))
        lists = near_lists.NearLists(points.values)
        for _ in range(5):
            centroids = centroids + 0.02 * points.extent[1] * rng.standard_normal((k, d))
            centroids[rng.integers(k)] += jump * points.extent[1]
            found = lists.nearest(engine._table(centroids), engine._scaled(centroids), codes)
            distances = _all_distances(points.values, centroids)
            if found is not None:
                known = np.flatnonzero(found >= 0)
                assert np.all(distances[known, found[known]] - distances[known].min(axis=1) <= tolerance)
            codes = distances.argmin(axis=1).astype(np.int32)


def test_lists_are_used_and_change_nothing(monkeypatch):
    """On Gaussian blocks most points are found in their lists, and k-means ends where it does without lists."""
    x = np.random.default_rng(0).standard_normal((30_000, 8)).astype(np.float32)
    shares = []
    search = near_lists.NearLists.nearest

    def spy(self, *arguments):
        found = search(self, *arguments)
        shares.extend([] if found is None else [np.mean(found >= 0)])
        return found

    monkeypatch.setattr(near_lists.NearLists, "nearest", spy)
    listed = pg_kmeans(x, 2048, tol=0)
    assert len(shares) > 6
    assert np.mean(shares) > 0.6
    monkeypatch.setattr(near_lists, "_LEAST_WORK", 1 << 40)
    plain = pg_kmeans(x, 2048, tol=0)
    assert listed.inertia == pytest.approx(plain.inertia, rel=1e-6)
    assert np.mean(listed.assignments == plain.assignments) > 0.999


@pytest.mark.parametrize("d", [3, 9, 32, 33, 70])
def test_search_is_right_in_any_dimension(d):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((700, d)).astype(np.float32)
    centroids = rng.standard_normal((37, d))
    nearest = np.argmin(_all_distances(x, centroids), axis=1)
    assert np.array_equal(Searcher(distinct_points(x)).nearest(centroids), nearest)
    result = pg_kmeans(x, 20)
    assert result.n_effective == 20
