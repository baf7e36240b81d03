import math
import os
import signal

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


def test_the_place_of_an_error_in_the_worker_is_kept():
    with pytest.raises(ZeroDivisionError) as caught:
        parallel_map(_divides, [1, 0, 2], n_workers=2)
    assert "in _divides" in caught.value.__notes__[0]


def _divides(number):
    return 1 / number


def test_a_killed_worker_costs_no_result(tmp_path):
    items = [(number, str(tmp_path / "killed")) for number in range(5)]
    assert parallel_map(_kills_itself_once, items, n_workers=2) == [0, 1, 4, 9, 16]


def _kills_itself_once(item):
    number, flag = item
    if number == 1 and not os.path.exists(flag):
        open(flag, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def test_no_workers_is_refused():
    with pytest.raises(ValueError, match="n_workers"):
        parallel_map(math.sqrt, [1.0], n_workers=0)


def test_seeds_are_distinct_repeatable_and_nested():
    assert seeds_for(1, 5) == seeds_for(1, 7)[:5]
    assert len(set(seeds_for(1, 1000))) == 1000
    assert seeds_for(1, 2) != seeds_for(2, 2)
