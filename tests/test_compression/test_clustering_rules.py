"""Hand-computed cases, peers' rules against their libraries, and bad input."""

import warnings

import numpy as np
import pytest
import torch

from compression import kmeans, pg_kmeans
from compression.clustering.assignment import nearest_centroids
from compression.clustering.empty_clusters import PERTURB_TRIES, State, perturb_copies, resolve
from compression.clustering.kernels import Searcher
from compression.clustering.partition import partition
from compression.clustering.points import distinct_points


def stress_blocks(zero_share, seed=0, n=18_432):
    rng = np.random.default_rng(seed)
    x = (0.04 * rng.standard_t(4, (n, 8))).astype(np.float32)
    x[rng.random(n) < zero_share] = 0
    return x


def test_four_points_on_a_line():
    x = np.array([[0.0], [1.0], [10.0], [12.0]])
    result = pg_kmeans(x, 2)
    assert sorted(result.centroids.ravel()) == [0.5, 11.0]
    assert result.inertia == 2.5
    assert result.assignments[0] == result.assignments[1] != result.assignments[2] == result.assignments[3]


def test_weights_move_the_mean():
    x = np.array([[0.0], [1.0], [10.0], [12.0]])
    result = pg_kmeans(x, 2, sample_weight=np.array([3.0, 1.0, 1.0, 1.0]))
    assert sorted(result.centroids.ravel()) == [0.25, 11.0]


def test_weights_per_coordinate_move_each_mean_by_itself():
    x = np.array([[0.0, 0.0], [4.0, 8.0]])
    weight = np.array([[3.0, 1.0], [1.0, 1.0]])
    result = pg_kmeans(np.vstack([x, [[100.0, 100.0]]]), 2, sample_weight=np.vstack([weight, [[1.0, 1.0]]]))
    assert sorted(map(tuple, result.centroids)) == [(1.0, 4.0), (100.0, 100.0)]
    assert result.inertia == 3 * 1 + 9 + 16 + 16


def test_partition_shares_leaves_in_proportion():
    parts = partition(np.arange(10.0)[:, None], np.ones(10), 5, "widest")
    assert np.array_equal(parts, np.repeat(np.arange(5), 2))


def test_heavy_point_gets_a_part_of_its_own():
    mass = np.array([1.0, 1.0, 100.0, 1.0])
    parts = partition(np.arange(4.0)[:, None], mass, 4, "principal")
    assert sorted(parts) == [0, 1, 2, 3]


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_negative_zero_is_zero(zero):
    x = np.array([[0.0, 1.0], [zero, 1.0], [2.0, 3.0]], np.float32)
    result = pg_kmeans(x, 3)
    assert result.n_effective == 2
    assert result.inertia == 0


def test_float16_centroids_that_round_together_are_parted_again():
    """Means that differ by less than float16 resolves would leave a codeword empty after rounding."""
    step = np.float16(2.0**-10)
    x = (np.float16(1.0) + step * np.arange(8, dtype=np.float16)[:, None]).astype(np.float16)
    result = pg_kmeans(np.repeat(x, 3, axis=0), 7)
    assert result.n_effective == 7
    assert len(np.unique(result.centroids[np.unique(result.assignments)])) == 7


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_offset_and_scale_do_not_spoil_the_search(offset, scale):
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    x = ((centres[np.arange(300) % 3] + rng.standard_normal((300, 2)) + offset) * scale).astype(np.float32)
    codes = pg_kmeans(x, 3).assignments
    assert all(len(set(codes[group::3])) == 1 for group in range(3))


@pytest.mark.parametrize("size", [1e6, 1e8, 1e12])
def test_an_outlier_does_not_spoil_the_search_of_the_others(size):
    x = np.random.default_rng(0).standard_normal((2000, 4)).astype(np.float32)
    outlier = np.full((1, 4), size, np.float32)
    alone, result = pg_kmeans(x, 32), pg_kmeans(np.vstack([x, outlier]), 33)
    assert result.inertia < 1.02 * alone.inertia
    assert len(result.history) > 1
    assert [row.inertia for row in result.history] == sorted((row.inertia for row in result.history), reverse=True)
    distances = np.square(x[:, None] - result.centroids[None].astype(np.float64)).sum(axis=2)
    assert np.allclose(distances[np.arange(2000), result.assignments[:-1]], distances.min(axis=1), rtol=1e-4, atol=1e-5)


def test_a_codeword_that_has_moved_is_no_end_of_the_iteration():
    x = np.array([-22.07, -4.87, -2.64, -2.01, -1.8, -0.53, -0.38, -0.35, 0.35, 0.79, 2.82, 3.87], np.float32)[:, None]
    result = pg_kmeans(x, 5, tol=0)
    means = np.array([x[result.assignments == number].mean() for number in range(5)])
    assert np.array_equal(np.abs(x - means).argmin(axis=1), result.assignments)
    assert result.inertia < 2.3


def test_far_centroids_are_told_apart():
    x = np.zeros((3, 2), np.float32)
    for scale in (1e2, 1e10, 1e20):
        far = np.array([[2 * scale, 0], [scale, 0], [1.001 * scale, 0]], np.float32)
        assert nearest_centroids(x, far).tolist() == [1, 1, 1]
        both = np.vstack([far, [[0.5, 0], [0.25, 0]]]).astype(np.float32)
        assert nearest_centroids(x, both).tolist() == [4, 4, 4]


def test_rows_of_tiny_weights_go_to_their_nearest_centroid():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3)).astype(np.float32)
    weights = rng.uniform(0.5, 1.5, (200, 3))
    centroids = rng.standard_normal((16, 3)).astype(np.float32)
    expected = nearest_centroids(x, centroids, sample_weight=weights)
    weights[::2] *= 1e-50
    assert np.array_equal(nearest_centroids(x, centroids, sample_weight=weights), expected)


def test_autocasting_does_not_change_the_search():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2000, 48)).astype(np.float32))
    plain = pg_kmeans(x, 16)
    with torch.autocast("cpu", torch.bfloat16):
        cast = pg_kmeans(x, 16)
    assert torch.equal(plain.centroids, cast.centroids)


def test_released_rule_fails_on_many_equal_blocks_and_pg_does_not():
    x = stress_blocks(0.5)
    baseline = kmeans(x, 256, init="random", empty="perturb", tol=0)
    assert baseline.history[0].empty > 100
    assert baseline.history[-1].rounds == PERTURB_TRIES
    assert baseline.history[-1].left > 30
    assert baseline.n_effective < 256
    ours = pg_kmeans(x, 256)
    assert ours.n_effective == 256
    assert ours.inertia < 0.8 * baseline.inertia


def test_released_rule_recovers_where_blocks_differ():
    baseline = kmeans(stress_blocks(0.1), 256, init="random", empty="perturb", tol=0)
    assert baseline.history[0].empty > 10
    assert 5 < sum(row.rounds for row in baseline.history) < PERTURB_TRIES
    assert baseline.n_effective == 256
    assert baseline.n_iter == 15


def _state(x, centroids, seed=0):
    points = distinct_points(x)
    state = State(points, Searcher(points), centroids, np.empty(0), np.random.default_rng(seed), "principal")
    state.assign()
    return state


def test_farthest_rule_is_scikit_learns():
    """One iteration from the same centroids, two of them empty, gives scikit-learn's centroids."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(5)
    x = rng.standard_normal((400, 3)).astype(np.float32)
    start = np.vstack([x[:6], np.full((2, 3), 50.0), np.full((2, 3), 60.0)]).astype(np.float32)
    state = _state(x, start.astype(np.float64))
    work = resolve(state, "farthest")
    assert (work.found, work.left) == (4, 0)
    ours, _ = state.mean_step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = KMeans(10, init=start, n_init=1, max_iter=1, algorithm="lloyd").fit(x).cluster_centers_
    assert np.allclose(np.sort(ours, 0), np.sort(theirs, 0), atol=1e-5)


def test_faiss_rule_copies_by_1_over_1024():
    x = np.vstack([np.zeros((50, 2)), np.ones((3, 2))]).astype(np.float32)
    x[:50, 0] = np.arange(50) / 1000
    state = _state(x, np.array([[0.02, 1e-6], [1.0, 1.0], [90.0, 90.0]]))
    work = perturb_copies(state)
    assert (work.found, work.splits) == (1, 1)
    donor = int(np.argmin(np.abs(state.centroids[:2, 0] - state.centroids[2, 0])))
    centre = [0.02, 1e-6] if donor == 0 else [1.0, 1.0]
    assert np.allclose(state.centroids[2], np.multiply(centre, [1 + 1 / 1024, 1 - 1 / 1024]))
    assert np.allclose(state.centroids[donor], np.multiply(centre, [1 - 1 / 1024, 1 + 1 / 1024]))


def test_faiss_rule_is_the_librarys():
    """One iteration from two centroids, one of them without points: the copies are faiss's own."""
    from faiss import Kmeans

    x = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    start = np.vstack([x[0], np.full(4, 90.0)]).astype(np.float32)
    theirs = Kmeans(4, 2, niter=1, min_points_per_centroid=1)
    theirs.train(x, init_centroids=start)
    state = _state(x, start.astype(np.float64))
    state.centroids, _ = state.mean_step()
    perturb_copies(state)
    assert np.allclose(np.sort(state.centroids, 0), np.sort(theirs.centroids, 0), rtol=1e-5)


def test_lloyd_is_faiss_and_scikit_learns_where_nothing_is_empty():
    """Ten iterations from the same centroids."""
    from faiss import Kmeans
    from sklearn.cluster import KMeans

    x = np.random.default_rng(0).standard_normal((3000, 4)).astype(np.float32)
    state = _state(x, x[:20].astype(np.float64))
    for _ in range(10):
        state.assign()
        assert not len(state.empty())
        state.centroids, _ = state.mean_step()
    faiss = Kmeans(4, 20, niter=10, min_points_per_centroid=1)
    faiss.train(x, init_centroids=x[:20].copy())
    assert np.allclose(state.centroids, faiss.centroids, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scikit = KMeans(20, init=x[:20], n_init=1, max_iter=10, tol=0, algorithm="lloyd").fit(x)
    assert np.allclose(state.centroids, scikit.cluster_centers_, atol=1e-4)


def test_bisecting_is_scikit_learns():
    """Bisecting k-means is as good as scikit-learn's; the pre-assignment, one pass of cuts, nearly so."""
    from sklearn.cluster import BisectingKMeans

    x = np.random.default_rng(0).standard_normal((20_000, 8)).astype(np.float32)
    found = [BisectingKMeans(64, random_state=seed).fit(x).cluster_centers_ for seed in range(5)]
    theirs = [np.square(x[:, None] - centres).sum(-1).min(1).sum() for centres in found]
    ours, parts = (
        kmeans(x, 64, init=init, empty="partition", max_iter=1).history[0].inertia
        for init in ("bisecting", "partition")
    )
    assert 0.99 * min(theirs) < ours < 1.002 * max(theirs)
    assert parts < 1.01 * max(theirs)


@pytest.mark.parametrize("init", ["k-means++", "k-means||"])
def test_seeding_is_as_good_as_scikit_learns(init):
    from sklearn.cluster import kmeans_plusplus

    x = np.random.default_rng(0).standard_t(4, (4000, 4)).astype(np.float64)
    ours = np.median([kmeans(x, 40, init=init, max_iter=1, seed=s).history[0].inertia for s in range(9)])
    potentials = []
    for seed in range(9):
        centres, _ = kmeans_plusplus(x, 40, random_state=seed)
        potentials.append(np.square(x[:, None] - centres).sum(-1).min(1).sum())
    assert ours <= 1.05 * np.median(potentials)


@pytest.mark.parametrize("empty", ["keep", "perturb", "perturb-batched", "faiss", "farthest", "partition"])
@pytest.mark.parametrize("init", ["random", "k-means++", "k-means||", "bisecting", "partition"])
def test_every_combination_runs_on_stress_blocks(init, empty):
    x = stress_blocks(0.4, n=2000)
    result = kmeans(x, 64, init=init, empty=empty)
    assert result.inertia < np.square(x).sum()
    assert result.n_effective == len(np.unique(result.assignments))
    if empty == "partition":
        assert result.n_effective == 64


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.array([[np.nan, 1.0]]), ValueError, "`x` must be finite, but holds NaN"),
        (np.array([[np.inf, 1.0]]), ValueError, "infinity"),
        (np.empty((0, 3)), ValueError, r"shape \(N, d\)"),
        (np.empty((3, 0)), ValueError, r"shape \(N, d\)"),
        (np.array(3.0), ValueError, r"has shape \(\)"),
        (np.zeros(5), ValueError, r"has shape \(5,\)"),
        (np.zeros((5, 2), np.int64), TypeError, "dtype"),
        (np.zeros((5, 2), complex), TypeError, "dtype"),
        (torch.zeros(5, 2, dtype=torch.bfloat16), TypeError, "bfloat16"),
        (torch.zeros(5, 2, dtype=torch.float8_e4m3fn), TypeError, "`x` must be a dense tensor.*float8"),
        (torch.zeros(5, 2, device="meta"), TypeError, "`x` must be a dense tensor.*on meta"),
        (torch.eye(5).to_sparse(), TypeError, "`x` must be a dense tensor.*sparse"),
        (np.ma.masked_equal(np.eye(3), 1.0), ValueError, "`x` must have no masked entries, but has 3"),
        (np.eye(3) * 1e200, ValueError, "`x` must have a largest magnitude from 1e-100 to 1e\\+100"),
        (np.eye(3) * 1e-200, ValueError, "`x` must have a largest magnitude"),
        ([[1.0, 2.0]], TypeError, "list"),
    ],
)
def test_bad_data(x, error, message):
    with pytest.raises(error, match=message):
        pg_kmeans(x, 1)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"n_clusters": 0}, ValueError, "n_clusters"),
        ({"n_clusters": 6}, ValueError, "n_clusters"),
        ({"n_clusters": 2.0}, TypeError, "n_clusters"),
        ({"n_clusters": True}, TypeError, "n_clusters"),
        ({"max_iter": 0}, ValueError, "max_iter"),
        ({"tol": -1.0}, ValueError, "tol"),
        ({"tol": float("nan")}, ValueError, "tol"),
        ({"consolidate": 0.0}, ValueError, "consolidate"),
        ({"split": "widset"}, ValueError, "split"),
        ({"seed": -1}, ValueError, "seed"),
        ({"sample_weight": np.zeros(5)}, ValueError, "sample_weight"),
        ({"sample_weight": -np.ones(5)}, ValueError, "sample_weight"),
        ({"sample_weight": np.ones(4)}, ValueError, "sample_weight"),
        ({"sample_weight": np.full(5, np.nan)}, ValueError, "sample_weight"),
        ({"sample_weight": "ones"}, TypeError, "sample_weight"),
        ({"sample_weight": np.full(5, 1e300)}, ValueError, "sample_weight"),
        ({"device": "cuda:77"}, ValueError, "device"),
        ({"device": "meta"}, ValueError, "device"),
        ({"device": 3.5}, ValueError, "device"),
        ({"split": ["principal"]}, ValueError, "split"),
    ],
)
def test_bad_options(options, error, name):
    arguments = {"n_clusters": 2} | options
    with pytest.raises(error, match=f"`{name}`"):
        pg_kmeans(np.arange(10.0).reshape(5, 2), **arguments)


def test_centroids_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match="`centroids` must be finite, but holds NaN"):
        nearest_centroids(np.eye(3), np.full((2, 3), np.nan))


def test_bad_names_of_rules():
    with pytest.raises(ValueError, match=r"`init`.*'k-means\+\+'"):
        kmeans(np.eye(3), 2, init="kmeans++")
    with pytest.raises(ValueError, match=r"`empty`.*'farthest'"):
        kmeans(np.eye(3), 2, empty="far")


@pytest.mark.parametrize("relaxation", [0.9, 2.1, float("nan")])
def test_bad_relaxation(relaxation):
    with pytest.raises(ValueError, match="`relaxation`"):
        kmeans(np.eye(3), 2, relaxation=relaxation)


def test_strided_read_only_and_reversed_arrays_work():
    base = np.random.default_rng(0).standard_normal((200, 12)).astype(np.float32)
    expected = pg_kmeans(np.ascontiguousarray(base[::2, ::3]), 10)
    view = base[::2, ::3]
    view.flags.writeable = False
    assert np.array_equal(pg_kmeans(view, 10).assignments, expected.assignments)
    before = base.copy()
    pg_kmeans(torch.from_numpy(base).T, 5)
    assert np.array_equal(base, before)


def test_one_row_and_constant_rows():
    assert pg_kmeans(np.ones((1, 1)), 1).inertia == 0
    result = pg_kmeans(np.ones((9, 3), np.float32), 4)
    assert result.n_effective == 1
    assert not result.history
    assert np.array_equal(result.centroids, np.ones((4, 3)))
