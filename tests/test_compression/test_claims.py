"""The paper's claims beside what was measured: arithmetic on made-up counts, zeroed blocks, and a tiny measurement."""

import json
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from compression.cli import main
from compression.experiments import ablation, claims
from compression.experiments.claims import (
    ClaimsConfig,
    Interval,
    accuracy_rows,
    answers,
    count_rows,
    measure,
    pooled_rows,
    ratio,
    zero_least_blocks_,
)
from compression.experiments.empty_clusters import EmptyClustersConfig, stress_sets
from compression.experiments.presets import STUDIES
from compression.experiments.study_tables import load_study, packed, unpacked
from compression.training.finetune import FinetunedModel
from shared.config import ConfigError
from tests.test_compression.conftest import interrupted_once, make_tiny_data, make_tiny_roberta

KEYS = ("empty at first", "left empty", "rounds", "donor splits", "full reassignments")
SMALL = (
    "stress.n_blocks=600",
    "stress.n_centroids=16",
    "stress.zero_shares=[0.5]",
    "stress.pruned_shares=[]",
    "stress.seeds=[0]",
    "zero_shares=[0.0, 0.5]",
    "distilled_shares=[0.5]",
    "steps=2",
    "distillation={hidden_weight: 1.0, hidden_layers: [1]}",
    "n_distil=8",
    "n_centroids=16",
    "seeds=[0, 1]",
)


def counts(method, *values):
    """Return the counts of a run."""
    return {"method": method, **dict(zip(KEYS, values, strict=True))}


def study_run(variant, seed, right, empty, n=1000):
    """Return a run of a study whose first predictions are right."""
    return {
        "variant": variant,
        "size": "15x",
        "seed": seed,
        "bytes": 1000,
        "sentences": n,
        "fp32": packed(np.arange(n) < 850),
        "compressed": packed(np.arange(n) < right),
        "relative error": 0.1,
        "empty clusters": counts(variant, *empty),
    }


STUDY = {
    "sentences": 1000,
    "runs": [
        study_run("PG", 0, 840, (0, 0, 0, 0, 0)),
        study_run("PG", 1, 830, (0, 0, 0, 0, 0)),
        study_run("released", 0, 810, (7, 0, 3, 7, 3)),
    ],
}

EARLIER = {
    "accuracy": [
        {"model": "fp32", "block size": None, "accuracy (%)": 85.0},
        {"model": "iPQ, released k-means", "block size": 4, "accuracy (%)": 82.0},
        {"model": "iPQ, PG k-means", "block size": 4, "accuracy (%)": 82.5},
    ],
    "gain": [{"block size": 4, "seeds": 2, "gain (points)": 0.5, "gain, 95 %": "-1.0 to +2.0"}],
    "runs": [
        {"k-means": method, **counts(method, *values)}
        for method, values in (
            ("released", (2, 0, 2, 2, 2)),
            ("released", (3, 0, 4, 4, 4)),
            ("PG", (0,) * 5),
            ("PG", (0,) * 5),
        )
    ],
}


def test_counts_are_totals_and_zero_is_no_divisor():
    rows = count_rows(
        [
            counts("released", 100, 50, 80, 80, 80),
            counts("released", 120, 60, 90, 90, 90),
            counts("released, batched", 220, 0, 6, 220, 6),
            counts("PG", 2, 0, 2, 2, 0),
        ],
        {"name": STUDY},
        EARLIER,
    )
    found = {(row["weights"].split(":")[0], row["total"]): row for row in rows}
    assert found["stress sets", "empty at first"]["released / PG"] == "110.0"
    assert found["stress sets", "rounds"]["released, batched"] == 6
    assert found["stress sets", "left empty"]["released / PG"] == "110 to 0"
    assert found["healthy", "empty at first"]["released"] == 7  # of the seed that both have
    assert found["healthy", "left empty"]["released / PG"] == "0/0"
    assert "1 runs" in rows[-1]["weights"]
    assert found["healthy", "rounds"]["released"] == 3  # the study stands last
    assert [row["released"] for row in rows if row["weights"] == "healthy: d = 4, 2 runs of each"] == [5, 0, 6, 6, 6]
    assert ratio(5, 2) == "2.5"
    lines = answers(rows, [])
    assert [line.split(": ")[-1].split(" (")[0] for line in lines if "stress" in line] == ["met", "met", "met"]
    healthy = [line for line in lines if "healthy: name" in line]
    assert "too few to tell (7 against 0)" in healthy[0]
    assert "too few to tell (0 against 0)" in healthy[1]


def test_gains_in_accuracy_are_those_of_pairs():
    same_size, row = accuracy_rows({"accuracy": [], "sentences": 1000}, {"name": STUDY}, EARLIER)
    assert (same_size["PG (%)"], same_size["gain, 95 %"]) == (82.5, (-1.0, 2.0))
    assert (row["fp32 (%)"], row["PG (%)"], row["released (%)"]) == pytest.approx((85, 84, 81))
    assert (row["gain (points)"], row["seeds"]) == (pytest.approx(3), 1)
    (line,) = answers([], [row])
    assert "a gain (+3.0" in line
    (line,) = answers([], [row | {"gain, 95 %": Interval(-0.5, 6.0)}])
    assert "no difference" in line
    (line,) = answers([], [row | {"gain (points)": -3.0, "gain, 95 %": Interval(-4.0, -2.0)}])
    assert "a loss" in line
    (line,) = answers([], [row | {"gain (points)": 0.2, "gain, 95 %": Interval(0.04, 0.4)}])
    assert "a gain (+0.2, 95 %: +0.04 to +0.4, 1 seeds on 1 fine-tuned model)" in line  # an end is not rounded to 0


def test_studies_are_pooled_as_the_mean_of_their_gains():
    other = {
        "sentences": 500,
        "runs": [
            study_run(rule, seed, right - seed, (0,) * 5, n=500)
            | {"size": size, "fp32": packed(np.arange(500) < 400 + seed)}
            for rule, right in (("PG", 390), ("released", 400))
            for seed in (0, 1)
            for size in ("15x", "28x")
        ],
    }
    assert pooled_rows({"one": STUDY}) == []
    (row,) = pooled_rows({"one": STUDY, "other": other})  # the first has no 28x
    assert row["weights"] == "healthy: one and other together, 15x, distilled"
    assert (row["seeds"], row["fine-tuned models"]) == (1 + 2, 1 + 2)
    assert row["gain (points)"] == pytest.approx((3.0 - 2.0) / 2)
    assert row["PG (%)"] == pytest.approx((84 + (390 + 389) / 10) / 2)
    assert row["fp32 (%)"] == pytest.approx((85 + (400 + 401) / 10) / 2)
    assert row["gain, 95 %"].low < 0.5 < row["gain, 95 %"].high
    assert row in accuracy_rows({"accuracy": [], "sentences": 1}, {"one": STUDY, "other": other}, EARLIER)


def test_further_seeds_are_seeds_of_the_task_that_they_continue(monkeypatch):
    def runs(seeds, right, sizes=("15x", "28x")):
        return {
            "sentences": 1000,
            "runs": [
                study_run(rule, seed, n_right, (0,) * 5) | {"size": size, "fp32": packed(np.arange(1000) < 900 + seed)}
                for rule, n_right in (("PG", right), ("released", 800))
                for seed in seeds
                for size in sizes
            ],
        }

    monkeypatch.setattr(claims, "MORE_SEEDS", ("one-seeds",))
    studies = {"one": runs((0, 1), 810), "other": runs((0, 1), 820), "one-seeds": runs((2, 3, 4, 5), 840, ("28x",))}
    rows = {row["weights"].removeprefix("healthy: ").removesuffix(", distilled"): row for row in pooled_rows(studies)}
    assert {label: (row["seeds"], row["fine-tuned models"]) for label, row in rows.items()} == {
        "one and one-seeds together, 28x": (6, 6),
        "one and other together, 15x": (4, 4),
        "one and one-seeds and other together, 28x": (8, 8),
    }
    gains = [row["gain (points)"] for row in rows.values()]
    assert gains == pytest.approx([3.0, 1.5, 2.5])


def test_the_committed_studies_together_have_a_loss_at_28x_whose_interval_ends_next_to_0():
    studies = {name: load_study(name) for name in STUDIES}
    rows = {row["weights"].split(", ")[1]: row for row in pooled_rows(studies)}
    assert list(rows) == ["15x", "28x"]
    for size, row in rows.items():
        single = []
        for study in studies.values():
            runs = [run for run in study["runs"] if run["size"] == size]
            ours, theirs = ([r for r in runs if r["variant"] == rule] for rule in ("PG", "released"))
            assert len(ours) == len(theirs) == 5
            assert all(
                abs(a["bytes"] / b["bytes"] - 1) < 1e-4 for a, b in zip(ours, theirs, strict=True)
            )  # equal sizes
            right = [
                unpacked([run["compressed"] for run in part], study["sentences"]).mean() for part in (ours, theirs)
            ]
            single.append(right[0] - right[1])
        assert row["gain (points)"] == pytest.approx(100 * np.mean(single))
        assert (row["seeds"], row["fine-tuned models"]) == (10, 10)
    assert rows["28x"]["gain (points)"] == pytest.approx(-0.673, abs=1e-3)
    assert rows["28x"]["gain, 95 %"] == pytest.approx((-1.34, -0.005), abs=0.015)
    assert rows["15x"]["gain, 95 %"] == pytest.approx((-0.74, 0.51), abs=0.015)


def test_an_interval_is_not_rounded_to_zero():
    assert str(Interval(-1.345, -0.0061)) == "-1.3 to -0.006"
    assert str(Interval(-0.06, 0.0)) == "-0.1 to +0.0"


@pytest.mark.parametrize(
    ("model", "key"),
    [(ClaimsConfig, "zero_shares"), (EmptyClustersConfig, "zero_shares"), (EmptyClustersConfig, "pruned_shares")],
)
def test_shares_are_from_0_to_below_1(model, key):
    for share, words in ((-0.1, "at least 0, but was -0.1"), (1.0, "less than 1, but was 1.0")):
        with pytest.raises(ConfigError, match=f"Key `{key}.1` must be {words}"):
            model.build({key: [0.0, share]})


def test_each_share_has_a_stress_set_of_its_own():
    shares = (0.0, 0.001, 0.004, 0.1, 0.29)
    config = EmptyClustersConfig(n_blocks=100, zero_shares=shares, pruned_shares=(0.905, 0.9), seeds=(0,))
    assert list(stress_sets(config, np.arange(80.0).reshape(8, 10).repeat(8, axis=1))) == [
        *(f"Student t, {words} zero" for words in ("0%", "0.1%", "0.4%", "10%", "29%")),
        *(f"MiniLM layer, {words} pruned" for words in ("90.5%", "90%")),
    ]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_blocks_of_least_norm_become_zero(share):
    model, before = make_tiny_roberta(0), make_tiny_roberta(0)
    zero_least_blocks_(model, 8, share)
    name = "roberta.encoder.layer.0.intermediate.dense.weight"
    norms = before.get_parameter(name).view(-1, 8).norm(dim=1)
    zero = (model.get_parameter(name).view(-1, 8) == 0).all(dim=1)
    assert int(zero.sum()) == round(share * len(norms))
    if 0 < share < 1:
        assert norms[zero].max() <= norms[~zero].min()
    for kept in ("roberta.embeddings.word_embeddings.weight", "roberta.encoder.layer.0.intermediate.dense.bias"):
        assert torch.equal(model.get_parameter(kept), before.get_parameter(kept))


@pytest.fixture
def tiny_dense(monkeypatch, tmp_path):
    """Put a tiny random model in place of the fine-tuned one."""
    model, data = make_tiny_roberta(0), make_tiny_data()
    dense = FinetunedModel(model, None, data, data, tmp_path, {})
    monkeypatch.setattr(claims, "finetuned_minilm", lambda *_, **__: dense)
    return dense


def test_command_measures_and_prints_the_claims(tiny_dense, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(claims, "_POOLED_RESAMPLES", 100)
    before = {name: value.clone() for name, value in tiny_dense.model.state_dict().items()}
    path = tmp_path / "claims.json"
    options = [part for setting in SMALL for part in ("--set", setting)]
    assert main(["claims", "--measure", "--json", str(path), "--folder", str(tmp_path), *options]) == 0
    printed = capsys.readouterr().out
    assert "100 times fewer empty clusters, stress sets" in printed
    assert "50% of the blocks zero" in printed
    assert all(torch.equal(value, before[name]) for name, value in tiny_dense.model.state_dict().items())
    found = json.loads(path.read_text())
    assert {row["method"] for row in found["counts"]} == {"released", "released, batched", "PG"}
    assert len(found["accuracy"]) == 2 * (1 + 3 * 2) + 3 * 2
    assert "50% of the blocks zero, 2 steps of distillation" in printed
    zeroed = [row for row in found["accuracy"] if row["zero"] == 0.5 and row["method"] != "fp32"]
    assert sorted(row["steps"] for row in zeroed) == [0] * 6 + [2] * 6
    assert all(row["left empty"] == 0 for row in zeroed if row["method"] == "PG")
    assert sum(row["rounds"] for row in zeroed if row["method"] == "released") > 0


def tiny_config(**changes):
    """Return settings of one stress set and one share of zeroed blocks."""
    stress = {"n_blocks": 400, "n_centroids": 8, "zero_shares": [0.3], "pruned_shares": [], "seeds": [0]}
    values = {"stress": stress, "zero_shares": [0.3], "distilled_shares": [], "n_centroids": 8, "seeds": [0]}
    return ClaimsConfig.build(values | changes)


def results(measured):
    """Return what was measured, without provenance."""
    return measured["counts"], measured["accuracy"]


def test_measurement_is_a_function_of_its_settings(tiny_dense, tmp_path):
    first, second = (measure(tiny_config(), tmp_path / name) for name in ("first", "second"))
    assert results(first) == results(second)


@pytest.mark.parametrize(
    ("module", "name", "n", "calls"),
    [(ablation, "cluster", 2, 3), (claims, "quantize_", 2, 3), (claims, "evaluate", 3, 4)],
)
def test_an_interrupted_measurement_continues_with_the_same_rows(
    tiny_dense, monkeypatch, tmp_path, module, name, n, calls
):
    """One stress set and one share with three rules, and fp32: what is done is not done again."""
    whole = measure(tiny_config(), tmp_path / "whole")
    found, n_calls = interrupted_once(monkeypatch, module, name, n, lambda: measure(tiny_config(), tmp_path))
    assert n_calls == calls + 1  # the interrupted call is made again
    assert results(found) == results(whole)
    monkeypatch.setattr(module, name, None)
    assert results(measure(tiny_config(), tmp_path)) == results(whole)


def test_rows_of_other_settings_weights_data_or_code_are_not_taken_from_the_cache(tiny_dense, monkeypatch, tmp_path):
    measure(tiny_config(), tmp_path)
    quantized = Mock(wraps=claims.quantize_)
    monkeypatch.setattr(claims, "quantize_", quantized)
    for changes in (
        {"zero_shares": [0.2]},
        {"n_centroids": 4},
        {"block_size": 4},
        {"seeds": [1]},
        {"max_validation": 8},
    ):
        measure(tiny_config(**changes), tmp_path)
        assert quantized.call_count == 3, changes
        quantized.reset_mock()
    monkeypatch.setattr(claims, "code_hash", lambda: "other")
    measure(tiny_config(), tmp_path)
    with torch.no_grad():
        tiny_dense.model.classifier.out_proj.bias += 1.0
    measure(tiny_config(), tmp_path)
    assert quantized.call_count == 6


def test_fine_tuned_shares_are_among_those_that_are_zeroed():
    with pytest.raises(ConfigError, match=r"Key `distilled_shares` must hold shares of `zero_shares` \[0.3\], but was"):
        tiny_config(distilled_shares=[0.2])


def test_hidden_states_that_the_model_lacks_are_refused_before_any_work(capsys, monkeypatch):
    monkeypatch.setattr(claims, "finetuned_minilm", None)
    assert main(["claims", "--measure", "--set", "distillation={hidden_weight: 1.0, hidden_layers: [9]}"]) == 2
    assert "Key `distillation.hidden_layers` must hold numbers from -7 to 6" in capsys.readouterr().err


def test_settings_without_a_measurement_are_refused(capsys):
    assert main(["claims", "--set", "n_centroids=8"]) == 2
    assert "--measure" in capsys.readouterr().err


def test_committed_claims_are_printed(capsys):
    assert main(["claims"]) == 0
    printed = capsys.readouterr().out
    assert "8 times fewer rounds, stress sets" in printed
    assert "healthy: d = 4" in printed
    assert (
        "10% of the blocks zero, no fine-tuning: a gain (+14.8, 95 %: +10.2 to +19.2, 5 seeds on 1 fine-tuned"
        in printed
    )
    for share in ("10%", "20%"):
        assert f"{share} of the blocks zero, 200 steps of distillation: no difference" in printed
    assert "minilm-rt-seeds, 28x, distilled: no difference beyond the interval (+0.2, 95 %: -0.8 to +1.3" in printed
    together = (
        "minilm-rt and minilm-rt-seeds and minilm-boolq together, 28x, distilled: no difference beyond the interval"
    )
    assert together in printed
