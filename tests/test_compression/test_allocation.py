"""Multiple-choice knapsack: against brute force, and its laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.quantization.allocation import frontier

layers = st.lists(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1000)), min_size=1, max_size=5), min_size=1, max_size=5
)


def problem(tables):
    """Return sizes and losses of drawn tables; losses are multiples of 1/1024, so that their sums are exact."""
    sizes = [np.array([size for size, _ in table]) for table in tables]
    return sizes, [np.array([loss for _, loss in table]) / 1024 for table in tables]


def totals(sizes, losses, choice):
    """Return bytes and loss of a choice."""
    picked = list(enumerate(choice))
    return sum(int(sizes[i][j]) for i, j in picked), sum(float(losses[i][j]) for i, j in picked)


@settings(max_examples=80, deadline=None)
@given(tables=layers)
def test_every_budget_equals_brute_force(tables):
    sizes, losses = problem(tables)
    every = [totals(sizes, losses, choice) for choice in itertools.product(*(range(len(size)) for size in sizes))]
    front = frontier(sizes, losses)
    assert front.unit == 1
    assert front.least == min(size for size, _ in every)
    for budget in range(front.least, max(size for size, _ in every) + 2):
        size, loss = totals(sizes, losses, front.choose(budget))
        assert size <= budget
        assert loss == min(other for bytes_, other in every if bytes_ <= budget)
    falls = front.steps()
    best = [min(loss for size, loss in every if size <= step) for step in falls]
    assert np.all(np.diff(best) < 0)
    assert best[-1] == min(loss for _, loss in every)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cells=st.sampled_from([50, 500, 5000]))
def test_coarse_cells_keep_the_budget_and_bound_the_loss(seed, cells):
    rng = np.random.default_rng(seed)
    sizes = [rng.integers(1, 100_000, 6) for _ in range(12)]
    losses = [np.sort(rng.random(6))[::-1][np.argsort(np.argsort(size))] for size in sizes]
    exact, coarse = frontier(sizes, losses, 2_000_000), frontier(sizes, losses, cells)
    assert exact.unit == 1
    assert np.all(np.diff(coarse.losses) <= 0)
    most = sum(int(size.max()) for size in sizes)
    for budget in np.linspace(exact.least, most, 23).astype(int):
        size, loss = totals(sizes, losses, coarse.choose(budget))
        assert size <= budget
        best = totals(sizes, losses, exact.choose(budget))[1]
        slack = max(exact.least, budget - len(sizes) * coarse.unit)
        assert best - 1e-12 <= loss <= totals(sizes, losses, exact.choose(slack))[1] + 1e-12


def test_bad_input():
    sizes, losses = [np.array([3, 5])], [np.array([1.0, 0.5])]
    with pytest.raises(ValueError, match="at least 3"):
        frontier(sizes, losses).choose(2)
    with pytest.raises(ValueError, match="`sizes`"):
        frontier([], [])
    with pytest.raises(ValueError, match="same number"):
        frontier(sizes, [np.array([1.0])])
