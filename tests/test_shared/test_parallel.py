import math
import os

import pytest

from shared.parallel import parallel_map, seeds_for


def test_results_keep_the_order_of_items():
    numbers = [9.0, 4.0, 1.0, 16.0]
    assert (
        parallel_map(math.sqrt, numbers, n_workers=2) == parallel_map(math.sqrt, numbers, n_workers=1) == [3, 2, 1, 4]
    )


def test_workers_are_other_processes():
    assert os.getpid() not in parallel_map(_pid, [0, 1], n_workers=2)


def _pid(_):
    return os.getpid()


def test_the_first_error_is_raised():
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        parallel_map(math.sqrt, [1.0, -1.0], n_workers=2)


def test_no_workers_is_refused():
    with pytest.raises(ValueError, match="n_workers"):
        parallel_map(math.sqrt, [1.0], n_workers=0)


def test_seeds_are_distinct_repeatable_and_nested():
    assert seeds_for(1, 5) == seeds_for(1, 7)[:5]
    assert len(set(seeds_for(1, 1000))) == 1000
    assert seeds_for(1, 2) != seeds_for(2, 2)
