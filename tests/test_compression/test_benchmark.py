"""Benchmarks of k-means and of inference: they run, and their committed rows hold the claims."""

import copy
import csv
import json
import statistics
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

import benchmarks.compressors
import benchmarks.inference
import benchmarks.pipeline.__main__ as pipeline
from benchmarks.clustering.__main__ import main
from benchmarks.clustering.parts import ITERATIONS, data_folder, stress_sets
from benchmarks.clustering.tables import read_rows, write_rows
from benchmarks.compressors.methods import compress_
from benchmarks.inference import shapes
from benchmarks.inference.models import dense as dense_model
from benchmarks.inference.models import planned, weight_bytes
from compression.experiments.presets import run_file
from compression.experiments.run_config import RunConfig
from compression.experiments.study_tables import load_study, score_rows
from compression.quantization.storage import file_bytes
from shared.artifacts import write_json
from shared.config import load_config


def test_fast_run_and_resume(tmp_path, capsys):
    arguments = ["--fast", "--rounds", "1", "--only", "stress", "--out", str(tmp_path)]
    assert main(arguments) == 0
    path = tmp_path / "clustering-fast" / "stress.csv"
    rows = read_rows(path)
    assert {row["blocks"] for row in rows} == set(stress_sets(True))
    assert all(row["left empty"] == 0 for row in rows if row["method"] == "PG k-means")
    assert "Rounds, full reassignments" in capsys.readouterr().out
    marked = [{**row, "objective": -1.0} for row in rows if row["blocks"] != "pruned 90%"]
    write_rows(path, marked)
    assert main(arguments) == 0
    again = read_rows(path)
    assert again[: len(marked)] == marked  # not measured again
    assert again[len(marked) :] == [row for row in rows if row["blocks"] == "pruned 90%"]
    record = path.with_suffix(".json")
    write_json(record, json.loads(record.read_text()) | {"seconds": 1000.0})
    write_rows(path, marked)
    assert main(arguments) == 0
    assert json.loads(record.read_text())["seconds"] > 1000.0  # of all commands


@pytest.mark.parametrize("change", ["rounds", "code"])
def test_rows_of_other_rounds_or_code_are_measured_again(change, tmp_path, monkeypatch):
    arguments = ["--fast", "--rounds", "1", "--only", "convergence", "--out", str(tmp_path)]
    assert main(arguments) == 0
    path = tmp_path / "clustering-fast" / "convergence.csv"
    write_rows(path, [{**row, "objective": -1.0} for row in read_rows(path)])
    if change == "rounds":
        arguments[2] = "2"
    else:
        monkeypatch.setattr("benchmarks.clustering.__main__.hash_code", lambda *paths: "other")
    assert main(arguments) == 0
    assert all(row["objective"] > 0 for row in read_rows(path))


def test_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "grit"])
    assert "invalid choice: 'grit' (choose from" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["grid", "stress", "convergence", "memory", "splits", "consolidation", "model"])
def test_committed_rows_have_their_provenance(part):
    assert read_rows(data_folder() / f"{part}.csv")
    provenance = json.loads((data_folder() / f"{part}.json").read_text())
    assert {"machine", "versions", "git_commit", "command"} <= set(provenance)


def test_committed_rows_hold_the_claims():
    grid = [row for row in read_rows(data_folder() / "grid.csv") if row["method"] == "PG k-means"]
    large = [row for row in grid if row["N"] >= 100_000]
    assert len(large) == 45
    assert all(row["seconds / faiss"] <= 1.05 for row in large)
    (row,) = (row for row in grid if (row["N"], row["d"], row["K"]) == (294_912, 8, 256))
    assert row["seconds / faiss"] <= 0.55
    assert row["seconds"] <= 2 * row["sgemm floor"]
    assert all(row["iterations"] == ITERATIONS for row in grid)
    assert all(row["empty"] == 0 for row in grid)
    memory = [row for row in read_rows(data_folder() / "memory.csv") if row["method"] == "PG k-means"]
    assert all(row["share of 24 bytes a point + 64 MB"] <= 1 for row in memory)
    stress = read_rows(data_folder() / "stress.csv")
    totals = {
        method: [sum(row[key] for row in stress if row["method"] == method) for key in ("rounds", "left empty")]
        for method in ("released rule", "PG k-means")
    }
    assert totals["released rule"][0] >= 8 * totals["PG k-means"][0]
    assert totals["released rule"][1] >= 100
    assert totals["PG k-means"][1] == 0


def inference_rows():
    """Return the committed rows of inference by method and batch."""
    path = Path(benchmarks.inference.__file__).parent / "data" / "minilm.csv"
    with open(path, newline="") as file:
        return {(row["method"], int(row["batch"])): row for row in csv.DictReader(file)}


@pytest.mark.parametrize("method", ["PQ d=8", "PQ d=4", "PQ at 1/15", "PQ at 1/28"])
@pytest.mark.parametrize("batch", [1, 16])
def test_committed_inference_is_as_fast_in_a_tenth_of_the_memory(method, batch):
    row = inference_rows()[method, batch]
    assert float(row["time / dense"]) <= 1.15
    assert float(row["weights at the peak / dense"]) <= 0.1
    assert float(row["file (MB)"]) <= 90.81 / 15


def test_committed_shapes_hold_what_the_choice_of_layers_rests_on():
    rows = [row for row in shapes.committed() if int(row["tokens"]) >= 128]
    assert len(rows) == 2 * len(shapes.LAYERS) * len(shapes.CODES)
    assert max(float(row["chosen / dense"]) for row in rows) < 1.2
    best = [min(float(row["codewords / dense"]), float(row["tables / dense"])) for row in rows]
    lost = [float(row["chosen / dense"]) / least for row, least in zip(rows, best, strict=True)]
    assert statistics.geometric_mean(lost) < 1.02


def test_committed_inference_has_its_provenance():
    path = Path(benchmarks.inference.__file__).parent / "data" / "minilm.json"
    provenance = json.loads(path.read_text())
    assert {"machine", "versions", "git_commit"} <= set(provenance)
    assert provenance["command"].startswith("python -m benchmarks.inference")


@pytest.mark.parametrize(("ratio", "times"), [("15x", 15), ("28x", 28)])
def test_planned_models_have_the_planned_size(ratio, times):
    model = planned("minilm", ratio)
    size, dense = file_bytes(model), 4 * sum(parameter.numel() for parameter in dense_model("minilm").parameters())
    assert 0.99 * times < dense / size < 1.06 * times
    assert weight_bytes(model) < dense / 10


@pytest.mark.parametrize("embeddings", [False, True])
def test_other_compressors_replace_matrices_and_count_all_bytes(embeddings):
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    nn.init.constant_(model[1].bias, 1 / 3)
    before = copy.deepcopy(model)
    size = compress_(model, lambda weight: (0.5 * weight, weight.numel()), embeddings)
    assert size == (20 if embeddings else 40) + 12 + 2 * (3 + 3 + 3)
    factor = 0.5 if embeddings else 1
    torch.testing.assert_close(model[0].weight, factor * before[0].weight, rtol=1e-3, atol=1e-6)
    assert torch.equal(model[1].weight, 0.5 * before[1].weight)
    assert torch.equal(model[1].bias, before[1].bias.half().float())


def test_committed_other_compressors_lose_more_in_larger_files():
    path = Path(benchmarks.compressors.__file__).parent / "data" / "compressors.json"
    record = json.loads(path.read_text())
    assert {"hqq", "optimum-quanto", "torchao"} <= set(record["provenance"]["versions"])
    others = [row for row in record["rows"] if row["variant"] != "fp32"]
    assert max(row["of fp32"] for row in others if row["size"] == "linear layers") < 4  # embeddings stay
    (ours,) = [
        row
        for row in score_rows(load_study("minilm-rt")["runs"])
        if (row["variant"], row["size"]) == ("no distillation", "15x")
    ]
    for row in others:
        assert row["of fp32"] < 9 or row["lost (points)"] > ours["lost (points)"] + 3, row


def test_the_pipeline_is_timed_from_an_empty_cache(tmp_path, monkeypatch, capsys):
    commands, real_run = [], subprocess.run

    def run(command, **options):
        if "compression" not in command:  # git
            return real_run(command, **options)
        commands.append(command)
        cache, out = (Path(command[command.index(option) + 1]) for option in ("--folder", "--out"))
        assert [path.name for path in cache.iterdir()] == ["packages"]
        assert (cache / "packages" / "text.whl").is_file()
        write_json(out / "report.json", {"rows": [{"model": "fp32"}, {"model": "compressed"}]})
        return subprocess.CompletedProcess(command, len(commands) - 1)

    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "text.whl").touch()
    monkeypatch.setattr(subprocess, "run", run)
    arguments = ["--budget", "28x", "--folder", str(tmp_path), "--out", str(tmp_path / "out")]
    assert pipeline.main(arguments) == 0
    assert commands[0][3:8] == ["run", "--preset", "minilm-rt", "--set", "budget=28x"]
    record = json.loads((tmp_path / "out" / "minilm-rt-28x.json").read_text(encoding="utf-8"))
    assert [row["seconds"] is None for row in record["rows"]] == [True, False]
    assert record["provenance"]["seconds"] == record["rows"][1]["seconds"]
    assert "| compressed |" in capsys.readouterr().out
    assert pipeline.main(arguments) == 1
    assert "failed with exit code 1" in capsys.readouterr().err


def test_a_kept_run_has_the_blocks_of_its_preset_and_its_own_seconds(tmp_path, monkeypatch):
    real_run = subprocess.run

    def run(command, **options):
        if "compression" not in command:  # git
            return real_run(command, **options)
        assert command[3:6] == ["run", "--preset", "mpnet-rt"]
        assert "--set" not in command
        assert command[-2:] == ["--out", str(tmp_path / "run")]
        write_json(tmp_path / "run" / "report.json", {"rows": [{"model": "iPQ"}], "provenance": {"seconds": 5000.0}})
        return subprocess.CompletedProcess(command, 0)

    (tmp_path / "packages").mkdir()
    monkeypatch.setattr(subprocess, "run", run)
    arguments = ["--preset", "mpnet-rt", "--budget", "none", "--run", str(tmp_path / "run")]
    assert pipeline.main([*arguments, "--folder", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    (row,) = json.loads((tmp_path / "out" / "mpnet-rt.json").read_text(encoding="utf-8"))["rows"]
    assert row["seconds"] == 5000.0


def test_the_committed_run_of_mpnet_has_the_shipped_settings_and_loses_at_most_two_points():
    record = json.loads((Path(pipeline.__file__).parent / "data" / "mpnet-rt.json").read_text(encoding="utf-8"))
    config = load_config(RunConfig, run_file("mpnet-rt"))
    assert record["provenance"]["config"] == json.loads(config.to_json())
    (found,) = (row for row in record["rows"] if row["model"] == "iPQ")
    assert found["of fp32"] > 15
    assert found["lost (points)"] <= 2.0


def test_the_committed_pipeline_takes_less_than_45_minutes_and_loses_at_most_two_points():
    folder = Path(pipeline.__file__).parent / "data"
    record = json.loads((folder / "minilm-rt-15x.json").read_text(encoding="utf-8"))
    (found,) = (row for row in record["rows"] if row["model"] == "iPQ")
    assert record["provenance"]["machine"]["cores"] == 2
    assert found["seconds"] < 45 * 60
    assert found["of fp32"] > 15
    assert found["lost (points)"] <= 2.0
