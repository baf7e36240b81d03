"""The ablation of PG k-means: counts are those of the clusterings; the command on a tiny model, and committed data."""

import json
from functools import partial

import pytest

from compression import kmeans, pg_kmeans
from compression.cli import main
from compression.experiments import ablation
from compression.experiments.ablation import HEALTHY, STRESS, ablation_rows, draw_ablation, measure, run_ablation
from compression.experiments.empty_clusters import OPTIONS, EmptyClustersConfig, student_blocks
from compression.training.finetune import FinetunedModel
from tests.test_compression.conftest import interrupted_once, make_tiny_data, make_tiny_roberta


def test_ablation_counts_are_those_of_the_clusterings(tmp_path):
    layer = make_tiny_roberta(0).get_parameter("roberta.encoder.layer.0.intermediate.dense.weight").detach().numpy()
    config = EmptyClustersConfig(
        n_blocks=400, block_size=4, n_centroids=32, zero_shares=(0.6,), pruned_shares=(0.5,), seeds=(0, 1), max_iter=6
    )
    rows = run_ablation(config, make_tiny_roberta(0), layer, healthy_seeds=(0, 3), folder=tmp_path)
    assert len(rows) == len(OPTIONS) * 3 * 2  # two stress sets and the healthy layers, two seeds
    by_key = {(row["set"], row["method"], row["seed"]): row for row in rows}
    blocks = student_blocks(config, 0.6, 1)
    for method, options in OPTIONS.items():
        row = by_key["Student t, 60% zero", method, 1]
        if "consolidate" not in options:
            peer = pg_kmeans if method == "PG" else partial(kmeans, **options)
            result = peer(blocks, 32, max_iter=6, tol=0.0, seed=1)
            assert row["inertia"] == result.inertia
            found = [step.empty for step in result.history]
            assert row["by iteration"][: len(found)] == found
            assert row["left empty"] == 32 - result.n_effective
        assert len(row["by iteration"]) == 6
        if options["empty"] == "partition":
            assert row["left empty"] == 0
    assert by_key["Student t, 60% zero", "released", 1]["by iteration"][0] > 5
    table = {(row["weights"], row["method"]): row for row in ablation_rows(rows)}
    assert table[HEALTHY, "PG"]["inertia / PG"] == 1
    assert table[STRESS, "released"]["empty, iteration 1"] == sum(
        row["by iteration"][0] for row in rows if row["weights"] == STRESS and row["method"] == "released"
    )
    axes = draw_ablation(rows).axes[0]
    assert [line.get_label() for line in axes.lines] == list(OPTIONS)


SMALL = ("n_blocks=300", "n_centroids=16", "zero_shares=[0.5]", "pruned_shares=[]", "seeds=[0]", "max_iter=4")


@pytest.fixture
def tiny_dense(monkeypatch, tmp_path):
    """Put a tiny random model in place of the fine-tuned one."""
    data = make_tiny_data()
    dense = FinetunedModel(make_tiny_roberta(0), None, data, data, tmp_path, {})
    monkeypatch.setattr(ablation, "finetuned_minilm", lambda *_, **__: dense)


def test_command_measures_draws_and_reads(tiny_dense, monkeypatch, tmp_path, capsys):
    options = ["--folder", str(tmp_path), *(part for setting in SMALL for part in ("--set", f"stress.{setting}"))]
    path, plots = tmp_path / "ablation.json", tmp_path / "plots"
    assert main(["ablation", "--measure", "--json", str(path), "--plots", str(plots), *options]) == 0
    assert "fine-tuning only" in capsys.readouterr().out
    assert (plots / "empty_by_iteration.png").stat().st_size > 10_000
    assert {row["weights"] for row in json.loads(path.read_text())["rows"]} == {STRESS, HEALTHY}
    assert main(["ablation", "--json", str(path)]) == 2
    assert "`--measure`" in capsys.readouterr().err
    monkeypatch.setattr(ablation, "COMMITTED", path)
    assert main(["ablation"]) == 0
    assert "pre-assignment only" in capsys.readouterr().out


def test_an_interrupted_ablation_continues_with_the_same_rows(tiny_dense, monkeypatch, tmp_path):
    stress = {
        "n_blocks": 300,
        "n_centroids": 16,
        "zero_shares": [0.5],
        "pruned_shares": [],
        "seeds": [0],
        "max_iter": 4,
    }
    config = ablation.AblationConfig.build({"stress": stress})
    whole = measure(config, tmp_path / "whole")
    found, n_clusterings = interrupted_once(monkeypatch, ablation, "cluster", 17, lambda: measure(config, tmp_path))
    assert found["rows"] == whole["rows"]
    n_layers = len(list((tmp_path / "whole" / "clusterings").glob("*/clustering.json"))) // len(OPTIONS) - 1
    assert n_layers > 5
    assert n_clusterings == (1 + n_layers) * len(OPTIONS) + 1  # the interrupted one is made again
    monkeypatch.setattr(ablation, "cluster", None)
    assert measure(config, tmp_path)["rows"] == whole["rows"]
    for changed in ({"stress": stress | {"max_iter": 3}}, {"stress": stress, "healthy_seeds": [1]}):
        with pytest.raises(TypeError, match="not callable"):
            measure(ablation.AblationConfig.build(changed), tmp_path)
    monkeypatch.setattr(ablation, "code_hash", lambda: "other")
    with pytest.raises(TypeError, match="not callable"):
        measure(config, tmp_path)


def test_committed_ablation_is_that_of_the_shipped_settings(capsys):
    assert main(["ablation"]) == 0
    printed = capsys.readouterr().out
    found = json.loads(ablation.COMMITTED.read_text())
    assert found["provenance"]["config"] == json.loads(ablation.AblationConfig().to_json())
    table = {(row["weights"], row["method"]): row for row in ablation_rows(found["rows"])}
    assert {method for _, method in table} == set(OPTIONS)
    assert table[STRESS, "PG"]["left empty"] == table[STRESS, "PG, consolidated"]["left empty"] == 0
    assert table[STRESS, "released"]["left empty"] > 500
    assert f"| {table[STRESS, 'released']['left empty']:,} |" in printed
