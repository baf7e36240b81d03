"""Tasks in local processes and under Parsl: order, errors, killed workers, a full disk, an interruption."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from shared import tasks
from shared.config import ConfigError, load_config
from shared.parallel import parallel_map
from shared.parsl_config import ParslConfig, make_executor, read_parsl_config
from shared.tasks import WorkerDiedError, parallel_config, run_tasks

# Parsl starts its commands by fork, of which JAX warns if another test has imported it; the child only calls exec.
by_fork = pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
SLURM = Path(__file__).parents[2] / "shared" / "configs" / "slurm.yaml"


def _square(x):
    return x * x


def _pid(_):
    time.sleep(0.3)
    return os.getpid()


def _fails_at_two(x):
    if x == 2:
        raise ValueError("two is refused")
    return x


def _kills_itself(item):
    """Return a number; with a file name, die by SIGKILL the first time, and always for a negative number."""
    number, flag = item
    if number < 0 or (flag and not os.path.exists(flag)):
        if flag:
            Path(flag).touch()
        time.sleep(1.0)  # Parsl's worker may still be sending its last result, with a lock held
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _dies_or_sleeps(seconds):
    if not seconds:
        os._exit(1)
    time.sleep(seconds)
    return seconds


def _fills_the_disk(x):
    if x == 1:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return x


class _Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def _raises_odd(x):
    raise _Odd(x, 1)


def test_results_keep_the_order_and_are_reported_as_they_come():
    seen = []
    outcomes = run_tasks(_square, range(9), n_workers=2, on_done=lambda index, outcome: seen.append(index))
    assert [outcome.value for outcome in outcomes] == [x * x for x in range(9)]
    assert sorted(seen) == list(range(9))
    assert run_tasks(_square, [], n_workers=2) == []


def test_an_error_costs_one_task():
    outcomes = run_tasks(_fails_at_two, range(4), n_workers=2)
    assert [outcome.value for outcome in outcomes] == [0, 1, None, 3]
    assert isinstance(outcomes[2].error, ValueError)
    assert "two is refused" in outcomes[2].trace
    assert outcomes[2].attempts == 1  # a fault of the function is not tried again


def test_an_error_that_cannot_be_pickled_comes_back_by_name():
    (outcome,) = run_tasks(_raises_odd, [5], n_workers=1)
    assert isinstance(outcome.error, RuntimeError)
    assert "_Odd: 5 and 1" in str(outcome.error)


def test_a_killed_worker_loses_nothing_and_its_task_runs_again(tmp_path):
    flag = str(tmp_path / "killed")
    outcomes = run_tasks(_kills_itself, [(0, ""), (1, flag), (2, ""), (3, "")], n_workers=2)
    assert [outcome.value for outcome in outcomes] == [0, 1, 2, 3]
    assert outcomes[1].attempts >= 2


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_task_that_always_kills_its_worker_is_given_up_alone(n_workers):
    items = [(number, "") for number in (0, -1, 2, 3, 4)]
    outcomes = run_tasks(_kills_itself, items, n_workers=n_workers, retries=1)
    assert [outcome.value for outcome in outcomes] == [0, None, 2, 3, 4]
    assert isinstance(outcomes[1].error, WorkerDiedError)
    assert outcomes[1].attempts == 2


def test_a_dead_worker_does_not_cost_the_task_beside_it_without_retries():
    outcomes = run_tasks(_kills_itself, [(-1, ""), (1, "")], n_workers=2, retries=0)
    assert isinstance(outcomes[0].error, WorkerDiedError)
    assert outcomes[1].value == 1
    died, sleeps = run_tasks(_dies_or_sleeps, [0, 3.0], n_workers=2, retries=0)
    assert isinstance(died.error, WorkerDiedError)
    assert sleeps.value == 3.0


@pytest.mark.timeout(60)
def test_a_worker_that_dies_idle_costs_nothing(monkeypatch):
    make, made = tasks._pool, []

    def first_is_broken(n_workers):
        made.append(make(n_workers))
        if len(made) == 1:
            with pytest.raises(BrokenProcessPool):
                made[0].submit(os._exit, 1).result()
        return made[-1]

    monkeypatch.setattr(tasks, "_pool", first_is_broken)
    assert [outcome.value for outcome in run_tasks(_square, range(3), n_workers=1)] == [0, 1, 4]


def test_a_full_disk_ends_the_run():
    with pytest.raises(OSError, match="No space left") as caught:
        run_tasks(_fills_the_disk, range(50), n_workers=2)
    assert caught.value.errno == errno.ENOSPC


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`n_workers`"):
        run_tasks(_square, [1], n_workers=0)
    with pytest.raises(ValueError, match="`retries`"):
        run_tasks(_square, [1], n_workers=1, retries=-1)
    with pytest.raises(ValueError, match="`executor`"), parallel_config("slurm"):
        pass
    with pytest.raises(ValueError, match="`parsl`"), parallel_config("processes", ParslConfig()):
        pass


_INTERRUPTED = """
import sys, time
from pathlib import Path
from shared.tasks import run_tasks
def work(path):
    Path(path).touch(); time.sleep(0.0 if path.endswith("0") else 60)
if __name__ == "__main__":
    run_tasks(work, [f"{sys.argv[1]}/{k}" for k in range(4)], n_workers=2)
"""


def test_an_interruption_ends_the_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_INTERRUPTED)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PROGRESS": "0"}
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (tmp_path / "2").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in stderr
    assert not (tmp_path / "3").exists()


@by_fork
def test_the_shipped_slurm_file_makes_a_slurm_provider():
    config = read_parsl_config(SLURM)
    assert config.provider == "slurm"
    pytest.importorskip("parsl")
    executor = make_executor(config, 4, Path("runs"))
    assert executor.provider.partition == "standard"
    assert executor.provider.walltime == "12:00:00"
    assert executor.provider.max_blocks == 4
    assert executor.max_workers_per_node == 4


def test_a_wrong_key_of_the_parsl_file_is_refused(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("provider: slurm\nwall_time: '1:00:00'\n")
    with pytest.raises(ConfigError, match="walltime"):
        load_config(ParslConfig, path)


@pytest.mark.slow
@pytest.mark.timeout(200)
@by_fork
def test_parsl_gives_the_same_results_on_two_workers():
    pytest.importorskip("parsl")
    with parallel_config("parsl"):
        assert parallel_map(_square, range(6), n_workers=2) == [x * x for x in range(6)]
        assert len(set(parallel_map(_pid, range(6), n_workers=2)) - {os.getpid()}) == 2
        outcomes = run_tasks(_fails_at_two, range(4), n_workers=2)
    assert [outcome.value for outcome in outcomes] == [0, 1, None, 3]
    assert isinstance(outcomes[2].error, ValueError)


@pytest.mark.slow
@pytest.mark.timeout(200)
@by_fork
def test_parsl_starts_the_task_of_a_killed_worker_again(tmp_path):
    pytest.importorskip("parsl")
    flag = str(tmp_path / "killed")
    with parallel_config("parsl"):
        outcomes = run_tasks(_kills_itself, [(0, ""), (1, flag), (-1, ""), (3, "")], n_workers=2, retries=1)
    assert [outcome.value for outcome in outcomes] == [0, 1, None, 3]
    assert outcomes[1].attempts == 2
    assert isinstance(outcomes[2].error, WorkerDiedError)
