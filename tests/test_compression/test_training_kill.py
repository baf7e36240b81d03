"""A run killed at any moment and started again ends as one that was never killed: real processes, real SIGKILL."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the test kills forked processes")

SCRIPT = r'''
import json, os, signal, sys, time
from pathlib import Path

import torch
from conftest import make_tiny_data, make_tiny_roberta
from compression.quantization.blocks import PQConfig
from compression.quantization.layers import pq_modules
from compression.quantization.rules import preset_rules
from compression.training.ipq import IPQConfig, ipq
from shared.artifacts import write_text
from tests.test_compression.killing import killed_at_renaming

folder, reassign, n_timed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
CONFIG = IPQConfig(
    stages=("ffn+embeddings", "attention"), steps_per_stage=6, batch_size=8, checkpoint_every=2, reassign=reassign,
    reassign_every=2, latent_lr=1e-3,
)
rules = preset_rules("roberta", n_centroids=8, base=PQConfig(codebook_dtype="int8"))[:3]
data = make_tiny_data(32)


def result(checkpoints):
    """Run and return everything that must be the same, as text."""
    model, teacher = make_tiny_roberta(0), make_tiny_roberta(0)
    report = ipq(model, rules, train_data=data, teacher=teacher, config=CONFIG, checkpoints=checkpoints)
    state = {name: tensor.numpy().tobytes().hex() for name, tensor in model.state_dict().items()}
    dtypes = [module.codebook_dtype for module in pq_modules(model).values()]
    return json.dumps([state, dtypes, [stage.losses for stage in report.stages]])


def run(out, checkpoints, kill_at=None, kill_after=False):
    """Run in a process of its own, which kills itself at its `kill_at`-th renaming of a file, before or after it."""
    child = os.fork()
    if child == 0:
        with killed_at_renaming(kill_at, after=kill_after):
            text = result(checkpoints)
        write_text(out, text)
        os._exit(0)
    return child


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


result(folder / "first")  # loads what the children then have
started = time.monotonic()
whole = result(folder / "whole")
seconds = time.monotonic() - started

kills = 0
for number in range(n_timed):  # the parent kills a run again and again, at moments spread over the time that it takes
    fraction, killed, attempt = (number + 1) / (n_timed + 1), 0, 0
    while not killed:  # a run that ended before its first kill shows nothing: another one, killed earlier
        checkpoints, out = folder / f"timed-{number}-{attempt}", folder / f"timed-{number}-{attempt}.json"
        delay = fraction * seconds / 2**attempt
        while not out.exists():
            child = run(out, checkpoints)
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            killed += wait(child) == -signal.SIGKILL
            delay += 0.4 * seconds
        assert out.read_text() == whole, number
        attempt += 1
    kills += killed

points = 0
for after in (False, True):  # and it kills itself at every writing of a file, before and after the file takes its name
    for kill_at in range(1, 20):
        checkpoints, out = folder / f"point-{after}-{kill_at}", folder / f"point-{after}-{kill_at}.json"
        child = run(out, checkpoints, kill_at, after)
        if wait(child) == 0:
            break
        points += 1
        child = run(out, checkpoints)
        assert wait(child) == 0
        assert out.read_text() == whole, (after, kill_at)
        assert not list(checkpoints.glob(".*.tmp")), "half-written files stay"
print(json.dumps({"kills": kills, "points": points, "seconds": seconds}))
'''


@pytest.mark.parametrize(
    ("reassign", "n_timed"),
    [("steps", 2), pytest.param("stage", 6, marks=pytest.mark.slow), pytest.param("never", 6, marks=pytest.mark.slow)],
)
def test_killed_runs_end_with_the_same_numbers(tmp_path, reassign, n_timed):
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "PROGRESS": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), reassign, str(n_timed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["kills"] >= n_timed
    assert counts["points"] >= 12
