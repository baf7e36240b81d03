"""`pg-ipq run` and `pg-ipq compress`, killed by SIGKILL and given again: the files are those of a whole command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_compression.hub_files import byte_level_bpe, sentence, write_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the test kills forked processes"),
]

SCRIPT = r'''
import json, os, signal, sys
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer, RobertaForSequenceClassification

import compression.experiments.compress
import compression.experiments.task_run
from compression.cli import main
from tests.test_compression.killing import killed_at_renaming

folder, command, files = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])


def run(out, kill_at=None, kill_after=False):
    """Give the command in a process of its own, which kills itself at its `kill_at`-th renaming of a file."""
    child = os.fork()
    if child == 0:
        with killed_at_renaming(kill_at, after=kill_after):
            os._exit(main([*command, "--out", str(out)]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(out):
    return {name: (out / name).read_bytes() for name in files}


with killed_at_renaming(None, after=False) as count:  # here, so that its compiled kernels are loaded for the others
    assert main([*command, "--out", str(folder / "whole")]) == 0
whole, n = result(folder / "whole"), count[0]
points = sorted({*range(1, n, max(1, n // int(sys.argv[4]))), n})
for number, kill_at in enumerate(points):
    out = folder / f"killed-{kill_at}"
    assert run(out, kill_at, kill_after=bool(number % 2) or kill_at == n) == -signal.SIGKILL
    assert run(out) == 0
    assert result(out) == whole, kill_at
    assert not list(out.rglob(".*.tmp")), kill_at
    assert not (out / "work").exists()
print(json.dumps({"points": len(points), "of": n}))
'''


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return a folder with a tiny model, RTE as original files, a finished classifier, and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "model", "roberta")
    write_model(folder / "classifier", "roberta", head=True)
    byte_level_bpe().save_pretrained(folder / "classifier")
    (folder / "glue" / "RTE").mkdir(parents=True)
    for split, n in (("train", 32), ("dev", 8)):
        rows = [(i, sentence(i, 3 * (i % 2)), sentence(500 + i, 3 * (i % 2))) for i in range(n)]
        lines = [f"{i}\t{a}\t{b}\t{('entailment', 'not_entailment')[i % 2]}" for i, a, b in rows]
        text = "\n".join(["index\tsentence1\tsentence2\tlabel", *lines, ""])
        (folder / "glue" / "RTE" / f"{split}.tsv").write_text(text, encoding="utf-8")
    (folder / "text.txt").write_text("\n".join(sentence(i, i % 4) for i in range(24)), encoding="utf-8")
    return folder


def commands(inputs):
    """Return each command with the files that must be the same."""
    settings = ("finetune.epochs=1", "finetune.batch_size=8", "finetune.checkpoint_every=2", "finetune.max_length=32")
    settings += ("ipq.steps_per_stage=3", "ipq.checkpoint_every=1", "ipq.stages=[ffn+embeddings,attention+head]")
    settings += ("budget=5x", "n_plan=8", "weighting=activation", "n_calibration=8", "n_distil=16")
    run = ["run", "--model", str(inputs / "model"), "--task", "rte", "--data", str(inputs / "glue")]
    run += [part for setting in settings for part in ("--set", setting)]
    compress = ["compress", str(inputs / "classifier"), "--budget", "5x", "--calibration", str(inputs / "text.txt")]
    compress += ["--sentences", "8", "--steps", "60"]
    return {
        "run": (run, ["dense/model.safetensors", "compressed/model.safetensors", "compressed/config.json"]),
        "compress": (compress, ["model.safetensors", "config.json", "layers.csv", "pareto.csv"]),
    }


def environment():
    """Return the environment of the processes."""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"PROGRESS": "0", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | quiet | {"PYTHONPATH": paths}


@pytest.mark.parametrize(("name", "n_points"), [("run", 5), ("compress", 4)])
def test_killed_at_the_writing_of_a_file(inputs, tmp_path, name, n_points):
    command, files = commands(inputs)[name]
    arguments = [str(tmp_path), json.dumps(command), json.dumps(files), str(n_points)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], env=environment(), capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["points"] >= n_points


@pytest.mark.parametrize(("name", "moment"), [("run", "ipq/*-steps-0.safetensors"), ("compress", "*/ipq/*-steps-0.*")])
def test_killed_from_outside_while_it_trains(inputs, tmp_path, name, moment):
    """Processes as a user starts them, one killed as soon as its checkpoint is there."""
    command, files = commands(inputs)[name]
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(out):
        line = [sys.executable, "-m", "compression", *command, "--out", str(out)]
        with (tmp_path / "errors.txt").open("a") as errors:
            return subprocess.Popen(line, env=environment(), stdout=subprocess.DEVNULL, stderr=errors)

    def ends_well(process):
        assert process.wait(600) == 0, (tmp_path / "errors.txt").read_text()

    ends_well(start(whole))
    process = start(killed)
    while process.poll() is None and not list((killed / "work").glob(moment)):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL, "it ended before its checkpoint was seen"
    assert (killed / "work").is_dir()
    ends_well(start(killed))
    for file in files:
        assert (killed / file).read_bytes() == (whole / file).read_bytes(), file
