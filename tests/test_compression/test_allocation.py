"""Multiple-choice knapsack: against brute force, and its laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.quantization.allocation import Joint, frontier

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


@settings(max_examples=80, deadline=None)
@given(tables=layers, data=st.data())
def test_joint_options_equal_brute_force(tables, data):
    """Layers 0 and 2 (or as many as there are), and the rest of more than three, may take options together."""
    sizes, losses = problem(tables)
    members = [part for part in ((2, 0), (3, 4)) if max(part) < len(tables)]
    joint = []
    for part in members:
        table = data.draw(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 2000)), min_size=1, max_size=4))
        joint.append(Joint(part, *(values[0] for values in problem([table]))))
    front = frontier(sizes, losses, joint=joint)
    assert front.unit == 1
    every = list(_every_choice(sizes, losses, joint))
    assert front.least == min(size for size, _ in every)
    for budget in range(front.least, max(size for size, _ in every) + 2):
        choice = front.choose(budget)
        assert len(choice) == len(tables)
        size, loss = _joint_totals(sizes, losses, joint, choice)
        assert size <= budget
        assert loss == min(other for bytes_, other in every if bytes_ <= budget)


def _every_choice(sizes, losses, joint):
    """Yield bytes and loss of all choices, each group together or not."""
    for flags in itertools.product((False, True), repeat=len(joint)):
        taken = [group for group, flag in zip(joint, flags, strict=True) if flag]
        alone = [i for i in range(len(sizes)) if not any(i in group.members for group in taken)]
        tables = [(sizes[i], losses[i]) for i in alone] + [(group.sizes, group.losses) for group in taken]
        for choice in itertools.product(*(range(len(size)) for size, _ in tables)):
            yield totals([size for size, _ in tables], [loss for _, loss in tables], choice)


def _joint_totals(sizes, losses, joint, choice):
    """Return bytes and loss of a choice with joint options, whose members must agree."""
    picked, alone = [], set(range(len(sizes)))
    for group in joint:
        numbers = {choice[member] - len(sizes[member]) for member in group.members}
        if max(numbers) >= 0:
            (number,) = numbers
            picked.append((int(group.sizes[number]), float(group.losses[number])))
            alone -= set(group.members)
    picked += [(int(sizes[i][choice[i]]), float(losses[i][choice[i]])) for i in alone]
    return sum(size for size, _ in picked), sum(loss for _, loss in picked)


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
    one = np.array([1])
    for joint in ([Joint((0, 0), one, one)], [Joint((1,), one, one)], [Joint((0,), one, np.array([1, 2]))]):
        with pytest.raises(ValueError, match="`joint`"):
            frontier(sizes, losses, joint=joint)
