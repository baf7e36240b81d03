"""The command line, tried as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from compression import PQConfig, quantize_, quantize_activations_, save_compressed
from compression.cli import main
from compression.experiments.presets import reproduce_file, run_file
from compression.experiments.reproduce import ReproduceConfig
from compression.experiments.run_config import RunConfig
from shared.config import load_config


def test_presets_are_valid_and_round_trip():
    for fast in (True, False):
        config = load_config(ReproduceConfig, reproduce_file(fast))
        assert ReproduceConfig.from_json(config.to_json()) == config


def test_unknown_key_is_refused_before_any_work(tmp_path, capsys):
    assert main(["reproduce", "--fast", "--out", str(tmp_path / "r"), "--set", "accuracy.block_size=4"]) == 2
    assert "Unknown key 'accuracy.block_size': did you mean 'block_sizes'?" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--preset", "foo"], "must be one of minilm-rt, minilm-boolq, mpnet-rt, but was 'foo'."),
        (["run", "--model", "minilm", "--task", "foo"], "rt, boolq, but was 'foo'."),
        (["study", "minilm-tr"], "Did you mean 'minilm-rt'?"),
        (["run", "--preset", "minilm-rt", "--set", "foo"], "must read key=value, but was 'foo'."),
        (["noise", "--measure", "--config", "nowhere.yaml"], "'nowhere.yaml' cannot be read: no such file"),
        (["reproduce", "--fast", "--config", os.devnull], "Options `--config` and `--fast` exclude each other: give"),
        (["accuracy", "--budget", "--config", os.devnull], "Options `--config` and `--budget` exclude each other: "),
        (["run", "--preset", "minilm-rt", "--config", os.devnull], "Options `--config` and `--preset` exclude each "),
        (["reproduce", "--out", f"{os.devnull}/x"], "Option `--out` must name a folder"),
    ],
)
def test_what_can_be_refused_without_torch_does_not_load_it(arguments, words):
    code = f"import sys\nfrom compression.cli import main\nsys.exit(main({arguments}) != 2 or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--preset", "minilm-rt", "--set", "pq.block_size=7"], "Key `pq.block_size` must be left out (set "),
        (["run", "--preset", "minilm-rt", "--set", "pq.block_size=8"], "Key `pq.block_size` must be left out (set "),
        (["run", "--preset", "minilm-rt", "--set", "pq.n_centroids=3"], "Key `pq.n_centroids` must be left out (set "),
        (
            ["run", "--preset", "minilm-rt", "--set", "budget=15x", "--set", "pq.codebook_dtype=int8"],
            "Key `pq.codebook_dtype` must be left out (a budget chooses it), but was 'int8'.",
        ),
        (["study", "minilm-rt", "--set", "run.ipq.seed=3"], "Key `run.ipq.seed` must be left out (set `seeds`), but "),
        (["accuracy", "--set", "accuracy.ipq.seed=3"], "Key `ipq.seed` must be left out (set `seeds`), but was 3."),
        (["accuracy", "--set", "accuracy.block_sizes=[7]"], "Key `block_sizes` must divide the 384 input features"),
        (["accuracy", "--set", "accuracy.budgets=[1kB]"], "Key `budgets` must be at least"),
        (["accuracy", "--set", "accuracy.ipq.stages=[foo]"], "must be the stage of a rule"),
        (["noise", "--measure", "--set", "block_sizes=[7]"], "Key `block_sizes` must divide the 384 input features"),
        (["claims", "--measure", "--set", "block_size=7"], "Key `block_size` must divide the 384 input features"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_work(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--folder", str(tmp_path / "cache")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not JSON", ""),
        (b"[1]", ""),
        (b'{"runs": [1], "provenance": {"config": {"run": {"task": "rt"}}}}', ""),
        (b'{"runs": [], "provenance": []}', ""),
        (b"\xff", ": byte 0 is not UTF-8 text"),
        (None, ": no such file or directory"),
    ],
)
def test_a_file_that_no_study_wrote_is_refused_in_one_line(content, why, tmp_path, capsys):
    path = tmp_path / "known.json"
    if content is not None:
        path.write_bytes(content)
    assert main(["study", "minilm-rt", "--out", str(tmp_path / "out"), "--known", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: Option `--known` must be a file that `pg-ipq study --json` wrote, but was {str(path)!r}{why}.\n"
    )


def test_settings_are_shown_and_give_the_same_run_again(tmp_path, capsys):
    assert main(["run", "--preset", "minilm-rt", "--set", "ipq.lr=1e-5", "--show-config"]) == 0
    path = tmp_path / "shown.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_config(RunConfig, path) == load_config(RunConfig, run_file("minilm-rt"), ["ipq.lr=1e-5"])
    assert main(["claims", "--show-config"]) == 0
    assert "zero_shares: [0.0, 0.1, 0.2]" in capsys.readouterr().out


def test_missing_data_names_the_remedy_and_writes_nothing(tmp_path, capsys):
    assert main(["reproduce", "--fast", "--out", str(tmp_path / "r"), "--folder", str(tmp_path / "empty")]) == 1
    assert "pg-ipq fetch-data" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_unknown_data_name(capsys):
    assert main(["fetch-data", "vadr"]) == 2
    assert "vader" in capsys.readouterr().err


def test_no_network_is_one_sentence_and_leaves_nothing(tmp_path):
    """pip is pointed at a closed port of this machine."""
    environment = os.environ | {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
        "no_proxy": "*",
    }
    command = [sys.executable, "-m", "compression", "fetch-data", "rt", "--folder", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "network" in error
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".whl", ".gz")]


def test_inspect_adds_up_to_the_file(tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(32, 16, generator=generator))
    quantize_(model, {"0": PQConfig(n_centroids=16, block_size=4)})
    quantize_(model, {"2": PQConfig(n_centroids=4, block_size=4, codebook_dtype="int8")})
    path = tmp_path / "model.safetensors"
    inputs = [torch.randn(8, 16, generator=generator)]
    quantize_activations_(model, inputs, names=["2"])
    size = save_compressed(model, path)
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["total", f"{size:,}"]
    (row,) = [line.split() for line in lines if line.startswith("0.weight")]
    assert lines[0].split() == ["tensor", "stored", "codebook", "inputs", "dense", "shape", "bits/weight", "bytes"]
    assert row[1:] == ["PQ", "16x4", "float16", "32x16", f"{8 * (64 + 128) / 512:.3f}", f"{64 + 128:,}"]
    (row,) = [line.split() for line in lines if line.startswith("2.weight")]
    assert row[1:] == ["PQ", "4x4", "int8", "int8", "4x32", f"{8 * (8 + 16) / 128:.3f}", "24"]
    assert len({len(line) for line in lines}) == 1
    path.write_bytes(path.read_bytes()[:50])
    assert main(["inspect", str(path)]) == 2
    assert "truncated" in capsys.readouterr().err


def test_module_and_script_are_the_same():
    outputs = [
        subprocess.check_output([*command, "--help"], text=True)
        for command in ([sys.executable, "-m", "compression"], [Path(sys.executable).with_name("pg-ipq")])
    ]
    assert outputs[0] == outputs[1]


@pytest.mark.data
@pytest.mark.slow
def test_fast_reproduction_end_to_end(tmp_path):
    """Real weights and text: fine-tune, quantize by both rules, write, read back, evaluate, report."""
    from shared.report import build_report

    assert main(["reproduce", "--fast", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "compression" / "summary.json").read_text())
    assert [section["title"] for section in summary["sections"]] == [
        "Empty clusters on stress weights",
        "Accuracy against file size",
        "Accuracy over 5 seeds",
        "Empty clusters on healthy weights",
    ]
    table = (tmp_path / "compression" / "accuracy_against_size.csv").read_text().splitlines()
    assert len(table) == 4
    assert build_report(tmp_path).stat().st_size > 100_000
