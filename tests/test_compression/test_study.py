"""The table over seeds: its runs, its arithmetic on made-up runs, and a tiny study from the command line."""

import json
import shutil

import numpy as np
import pytest
import yaml

from compression.cli import main
from compression.experiments import study
from compression.experiments.presets import MORE_SEEDS, REVIEWS, STUDIES, run_file, study_file
from compression.experiments.run_config import RunConfig
from compression.experiments.study import StudyConfig, plan, run_study
from compression.experiments.study_tables import (
    beats_majority,
    draw_gains,
    draw_study,
    gain_rows,
    load_study,
    score_rows,
)
from compression.quantization.layer_clustering import cluster_layers
from compression.training.distillation import teach
from shared.artifacts import git_commit, versions, write_json
from shared.config import load_config
from tests.test_compression.hub_files import write_hub_glue, write_model

N = 1000


def made_up(variant, seed, fp32, compressed, size="15x"):
    """Return a run whose first predictions are right."""
    bits = {name: np.packbits(np.arange(N) < right).tobytes().hex() for name, right in (("a", fp32), ("b", compressed))}
    return {
        "variant": variant,
        "size": size,
        "seed": seed,
        "bytes": 1000 + seed,
        "of_fp32": 15.0,
        "sentences": N,
        "fp32": bits["a"],
        "compressed": bits["b"],
        "matthews": {"fp32": 0.5, "iPQ": 0.25},
        "relative error": 0.1 if variant == "PG" else 0.2,
    }


def test_rows_are_means_over_seeds_and_losses_against_the_plain_model():
    runs = [
        made_up("PG", 0, 850, 840),
        made_up("PG", 1, 870, 850),
        made_up("released", 0, 850, 830),
        made_up("noise", 0, 860, 845),
    ]
    rows = {row["variant"]: row for row in score_rows(runs)}
    assert list(rows) == ["fp32", "PG", "released", "noise, fp32", "noise"]
    assert rows["fp32"]["accuracy (%)"] == pytest.approx(86.0)
    assert rows["PG"]["accuracy (%)"] == pytest.approx(84.5)
    assert rows["PG"]["lost (points)"] == pytest.approx(1.5)
    assert rows["noise"]["lost (points)"] == pytest.approx(0.5)  # against the model without noise
    assert rows["noise, fp32"]["lost (points)"] == pytest.approx(-1.0)
    assert (rows["fp32"]["Matthews"], rows["PG"]["Matthews"]) == (0.5, 0.25)


def test_gains_are_paired_by_seed():
    runs = [made_up("PG", 0, 850, 840), made_up("PG", 1, 870, 900), made_up("released", 0, 850, 830)]
    (row,) = gain_rows(runs)
    assert (row["against"], row["seeds"]) == ("released", 1)
    assert row["gain (points)"] == pytest.approx(1.0)
    assert row["error ratio"] == pytest.approx(0.5)
    low, high = map(float, row["gain, 95 %"].split(" to "))
    assert low <= 1.0 <= high


def test_gains_of_another_variant_than_the_first():
    runs = [made_up("PG", 0, 850, 840), made_up("plain", 0, 850, 800), made_up("plain, released", 0, 850, 820)]
    rows = {row["against"]: row["gain (points)"] for row in gain_rows(runs, "plain")}
    assert rows == {"PG": pytest.approx(-4.0), "plain, released": pytest.approx(-2.0)}


@pytest.mark.parametrize(("majority", "counts"), [(0.5, True), (0.79, True), (0.82, False), (0.9, False)])
def test_a_task_counts_only_well_above_the_majority_rate(majority, counts):
    runs = [made_up("PG", seed, 850, 840) | {"majority": majority} for seed in (0, 1)]  # interval: 85 +- 2.2
    found, words = beats_majority(runs)
    assert found == counts
    assert f"{100 * majority:.1f} %" in words
    assert ("does not count" in words) != counts


def test_figure_has_a_point_for_each_size_of_a_variant():
    runs = [made_up(name, 0, 850, right, size) for name, size, right in (("PG", "a", 840), ("PG", "b", 800))]
    runs[1]["of_fp32"] = 30.0
    axes = draw_study(score_rows(runs), {"PG": "PG k-means", "other": "not there"}).axes[0]
    (line,) = [container.lines[0] for container in axes.containers]
    assert line.get_ydata() == pytest.approx([84, 80])
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"fp32", "PG k-means"}


def test_figure_has_the_gain_over_each_other_variant_at_each_size():
    places = (("PG", "a", 840), ("PG", "b", 800), ("released", "a", 830), ("released", "b", 805), ("other", "b", 790))
    runs = [made_up(name, 0, 850, right, size) for name, size, right in places]
    axes = draw_gains(gain_rows(runs), "PG").axes[0]
    points = {container.get_label(): container.lines[0] for container in axes.containers}
    assert points["a"].get_xdata() == pytest.approx([1.0])
    assert points["b"].get_xdata() == pytest.approx([-0.5, 1.0])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["released", "other"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory, datasets_cache):
    """Return the settings of a tiny study and the folder for it."""
    folder = tmp_path_factory.mktemp("study")
    write_model(folder / "model", "roberta")
    run = {
        "model": str(folder / "model"),
        "task": "rte",
        "data": str(write_hub_glue(folder / "glue")),
        "n_centroids": 8,
        "n_distil": 16,
        "finetune": {"epochs": 1, "batch_size": 16, "max_length": 32},
        "ipq": {"stages": ["ffn+embeddings+attention+head"], "steps_per_stage": 2},
    }
    values = {
        "run": run,
        "sizes": {"large": {"block_size": 4}, "small": {"block_size": 8}},
        "variants": {
            "PG": {},
            "released": {"change": {"pq": {"init": "random", "empty": "perturb"}}, "sizes": ["small"]},
            "noise": {"change": {"noise": {"kind": "proxy", "p": 0.2}}, "sizes": ["small"], "seeds": [1]},
        },
        "seeds": [0, 1],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_each_run_says_what_made_it_and_workers_are_passed_on(settings, tmp_path, monkeypatch):
    values = yaml.safe_load(settings.read_text())
    config = StudyConfig.build(values | {"seeds": [0], "variants": {"PG": {"sizes": ["small"]}}})
    asked = []

    def counted(jobs, groups, *, n_workers=1, **_):
        asked.append(n_workers)
        return cluster_layers(jobs, groups)

    monkeypatch.setattr("compression.quantization.rules.cluster_layers", counted)
    (run,) = run_study(config, tmp_path, n_workers=2)["runs"]
    assert set(asked) == {2}
    assert run["made"] == {"git_commit": git_commit(), "versions": versions()}


def test_runs_share_the_model_of_their_seed(settings):
    planned = plan(load_config(StudyConfig, settings))
    assert [(item.variant, item.size, item.seed) for item in planned] == [
        ("PG", "large", 0),
        ("PG", "small", 0),
        ("released", "small", 0),
        ("PG", "large", 1),
        ("PG", "small", 1),
        ("released", "small", 1),
        ("noise", "small", 1),
    ]
    assert len({item.dense for item in planned if item.seed == 0}) == 1
    assert len({item.dense for item in planned}) == 3
    assert all(item.config.finetune.seed == item.config.ipq.seed == item.seed for item in planned)
    assert planned[-1].config.noise.seed == 1
    assert planned[2].config.pq.empty == "perturb"
    assert planned[2].config.block_size == 8


@pytest.mark.slow
def test_the_command_makes_the_table_once(settings, tmp_path, capsys, monkeypatch):
    taught = []

    def counted(teacher, data, **options):
        taught.append(data.sha256)
        return teach(teacher, data, **options)

    def refuse(config, *_, **__):
        raise ValueError(f"asked for seed {config.ipq.seed}")

    monkeypatch.setattr("compression.training.distillation.teach", counted)
    out, result = tmp_path / "runs", tmp_path / "study.json"
    assert main(["study", "--config", str(settings), "--out", str(out), "--json", str(result)]) == 0
    table = capsys.readouterr().out
    assert "released" in table
    assert "majority rate" in table
    found = json.loads(result.read_text())
    assert (out / "accuracy_against_size.png").stat().st_size > 10_000
    assert len(found["runs"]) == 7
    assert len(taught) == 3  # each fp32 model teaches once
    assert len(list((out / "dense").iterdir())) == 3
    assert len(list((out / "dense").glob("*/predictions-*.json"))) == 3  # each fp32 model is evaluated once
    reports = {path: path.stat().st_mtime_ns for path in out.rglob("report.json")}
    again = run_study(load_config(StudyConfig, settings), out)
    assert again["rows"] == found["rows"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("report.json")} == reports
    # What a stopped study has so far: its last run is not finished.
    (out / "runs" / "noise-small-1" / "report.json").unlink()
    assert main(["study", "--config", str(settings), "--out", str(out), "--finished", "--json", str(result)]) == 0
    assert "6 of 7 runs" in capsys.readouterr().out
    partial = json.loads(result.read_text())
    assert partial["runs"] == found["runs"][:-1]
    assert not (out / "runs" / "noise-small-1" / "report.json").exists()
    assert main(["study", "--config", str(settings), "--set", "run.n_distil=8", "--out", str(out), "--finished"]) == 2
    assert "n_distil" in capsys.readouterr().err
    # Another machine takes the seed of which all runs are there, and for the tables so far the other's, too.
    elsewhere, arguments = tmp_path / "elsewhere", ["study", "--config", str(settings), "--known", str(result)]
    with monkeypatch.context() as patch:
        patch.setattr("compression.experiments.study.run_task", refuse)
        assert main([*arguments, "--out", str(elsewhere)]) == 2
    assert "error: asked for seed 1" in capsys.readouterr().err
    assert main([*arguments, "--out", str(elsewhere), "--finished"]) == 0
    assert "6 of 7 runs" in capsys.readouterr().out
    assert not (elsewhere / "runs").exists()
    assert main([*arguments, "--out", str(elsewhere), "--set", "run.n_distil=8"]) == 2
    assert "with the same settings, but ('PG', 'large', 0) differs in 'n_distil'" in capsys.readouterr().err
    # Runs of a seed must be of one fp32 model.
    shutil.copytree(out / "runs" / "PG-large-1", elsewhere / "runs" / "PG-large-1")
    assert main([*arguments, "--out", str(elsewhere), "--finished"]) == 0
    assert "6 of 7 runs" in capsys.readouterr().out
    bits = partial["runs"][-1]["fp32"]
    partial["runs"][-1]["fp32"] = f"{int(bits, 16) ^ (1 << 4 * len(bits) - 1):0{len(bits)}x}"
    result.write_text(json.dumps(partial))
    assert main([*arguments, "--out", str(elsewhere), "--finished"]) == 2
    assert "`known` must hold runs of the fp32 models in `out`" in capsys.readouterr().err
    # A seed without the variant that the others are compared with has no losses.
    for size in ("large", "small"):
        (out / "runs" / f"PG-{size}-1" / "report.json").unlink()
    assert main(["study", "--config", str(settings), "--out", str(out), "--finished"]) == 2
    assert "finished run of 'PG' for each seed" in capsys.readouterr().err


def test_what_is_chosen_for_a_budget_is_chosen_as_the_first_variant_does_and_travels(tmp_path, monkeypatch):
    values = {
        "run": {"model": "minilm", "task": "rt", "weighting": "activation"},
        "sizes": {"x": {"budget": "12x"}},
        "variants": {"PG": {}, "Fisher": {"change": {"weighting": "fisher"}}},
        "seeds": [0],
    }
    config = StudyConfig.build(values)
    asked, checked, layers = [], [], {"PG": "a", "Fisher": "a"}
    monkeypatch.setattr(study, "check_settings", lambda config, *_: checked.append(config.weighting))

    def run_task(config, out, *, plan, plan_settings, **_):
        asked.append((config.weighting, plan_settings.weighting))
        if not plan.is_file():
            write_json(plan, {"budget": "12x", "rules": [{"pattern": "made here"}], "curve": []})
        return {}

    def record(item, report):
        seconds = {"seconds": {"whole": 1.0}}
        return made_up(item.variant, item.seed, 850, 840, item.size) | {"layers": layers[item.variant]} | seconds

    monkeypatch.setattr(study, "run_task", run_task)
    monkeypatch.setattr(study, "_record", record)
    found = run_study(config, tmp_path / "here")
    assert asked == [("activation", "activation"), ("fisher", "activation")]
    assert checked == ["activation", "fisher"]
    assert found["plans"] == {"x": {"budget": "12x", "rules": [{"pattern": "made here"}]}}
    there = run_study(StudyConfig.build(values | {"seeds": [1]}), tmp_path / "there", known=found)
    assert there["plans"] == found["plans"]
    asked.clear()
    values["variants"].pop("Fisher")
    part = run_study(StudyConfig.build(values), tmp_path / "part", known=found)
    assert part["runs"] == found["runs"][:1]
    assert not asked
    values["variants"]["Fisher"] = {"change": {"weighting": "fisher"}}
    layers["Fisher"] = "b"
    with pytest.raises(ValueError, match=r"that were chosen for 'x', but \('Fisher', 'x', 0\) has others"):
        run_study(config, tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"`known` must hold the sizes .* for 'x' \(`plans`\), as runs such as 'PG-x-1'"
    ):
        older = [{key: value for key, value in run.items() if key != "layers"} for run in found["runs"]]
        longer = StudyConfig.build(values | {"seeds": [0, 1]})
        run_study(longer, tmp_path / "new", known=found | {"plans": {}, "runs": older})


@pytest.mark.data
@pytest.mark.parametrize("name", STUDIES + REVIEWS + MORE_SEEDS)
def test_shipped_studies_begin_in_an_empty_folder(name, real_data, tmp_path, monkeypatch):
    def begin(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "run_task", begin)
    with pytest.raises(KeyboardInterrupt):
        run_study(load_config(StudyConfig, study_file(name)), tmp_path)


def test_a_folder_of_other_settings_is_refused_before_any_run(settings, tmp_path, monkeypatch):
    config = load_config(StudyConfig, settings)
    last = plan(config)[-1]
    write_json(tmp_path / "runs" / last.folder / "run.json", {"config": {}})
    monkeypatch.setattr(study, "run_task", None)
    with pytest.raises(ValueError, match="noise-small-1' holds a run with another `block_size`"):
        run_study(config, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sizes": {"x": {"budget": "20x"}}, "variants": {"PG": {}, "big": {"change": {"budget": "10x"}}}},
            "Key `variants.big.change.budget` must be left out, .* but was '10x': make it a size",
        ),
        (
            {"variants": {"PG": {"seeds": [0]}, "released": {}}},
            "Key `variants.PG.seeds` must hold the seeds of all variants, .* lacks 1: .* `variants.released.seeds`",
        ),
        (
            {"variants": {"a b": {}, "a-b": {"sizes": ["small"]}}},
            r"Keys `variants`, .* \('a b', 'small', 0\) and \('a-b', 'small', 0\) both have 'a-b-small-0': rename",
        ),
        ({"sizes": {"a b": {}, "a-b": {}}, "variants": {"PG": {}}}, "both have 'PG-a-b-0': rename"),
    ],
)
def test_a_plan_whose_tables_or_folders_would_fail_is_refused(settings, changes, message):
    config = StudyConfig.build(yaml.safe_load(settings.read_text()) | changes)
    with pytest.raises(ValueError, match=message):
        plan(config)


def test_a_variant_after_the_first_may_have_fewer_seeds_and_shipped_studies_are_planned():
    for name in STUDIES + REVIEWS + MORE_SEEDS:
        config = load_config(StudyConfig, study_file(name))
        assert {item.seed for item in plan(config)} == set(config.seeds)


def test_nothing_finished_is_an_error(settings, tmp_path, capsys):
    assert main(["study", "--config", str(settings), "--out", str(tmp_path / "runs"), "--finished"]) == 2
    assert "`out` must hold a finished run, but" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("variants.PG.sizes=[huge]", "huge"),
        ("variants.noise.seeds=[7]", "7"),
        ("variants.noise.change={nois: 1}", "nois"),
        ("run.task=stsb", "classification"),
        ("variants.PG.change={block_size: 7}", "7"),
        ("variants.noise.change={ipq: {stages: [nix]}}", "Run 'noise-"),
        ("sizes={tiny: {budget: 1kB}}", "budget"),
    ],
)
def test_bad_settings_are_refused_before_any_work(settings, tmp_path, capsys, change, message):
    out = tmp_path / "runs"
    assert main(["study", "--config", str(settings), "--set", change, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_study_is_named_or_given(capsys):
    assert main(["study"]) == 2
    assert main(["study", "minilm-tr"]) == 2
    assert "minilm-rt" in capsys.readouterr().err


@pytest.mark.parametrize("name", REVIEWS)
def test_studies_for_reviews_share_the_runs_of_their_study(name):
    theirs, ours = (plan(load_config(StudyConfig, study_file(one))) for one in (name.removesuffix("-reviews"), name))
    assert [item for item in ours if item.variant == "PG"] == [
        item for item in theirs if item.variant == "PG" and item.size == "28x"
    ]
    configs = {item.variant: item.config for item in ours}
    assert len({config.to_json() for config in configs.values()}) == len(configs) == 7
    assert {config.pq.init for config in configs.values()} == {"partition", "random", "k-means++"}
    assert all(config.budget is not None or config.pq.codebook_dtype == "int8" for config in configs.values())


@pytest.mark.parametrize("name", MORE_SEEDS)
def test_studies_of_more_seeds_differ_from_theirs_in_nothing_else(name):
    theirs, ours = (load_config(StudyConfig, study_file(one)) for one in (name.removesuffix("-seeds"), name))
    assert not set(theirs.seeds) & set(ours.seeds)
    same = StudyConfig.build(theirs.model_dump(mode="json") | {"seeds": ours.seeds})
    planned = plan(same)
    assert all(item in planned for item in plan(ours))
    study = load_study(name)
    assert {(run["variant"], run["size"], run["seed"]) for run in study["runs"]} == {item.name for item in plan(ours)}
    (gain,) = gain_rows(study["runs"])
    assert gain["bytes ratio"] == pytest.approx(1, abs=1e-4)
    assert gain["gain (points)"] == pytest.approx(0.207, abs=1e-3)  # no loss to the released rule at 1/28


@pytest.mark.parametrize("name", STUDIES)
def test_shipped_settings_are_valid(name):
    config = load_config(StudyConfig, study_file(name))
    planned = plan(config)
    assert f"{config.run.model}-{config.run.task}" == name
    assert planned[0].config == load_config(RunConfig, run_file(name), ["budget=15x", "block_size=8"])
    assert {(item.variant, item.seed) for item in planned} >= {(v, s) for v in ("PG", "released") for s in config.seeds}
    assert all(item.config.pq.as_baseline() == item.config.pq for item in planned if "released" in item.variant)


def test_runs_whose_noise_is_on_other_layers_have_fp32_models_of_their_own():
    rules = [{"pattern": ".*query", "config": {"block_size": 4, "n_centroids": 16}}]
    variants = {"all": {}, "rules": {"change": {"rules": rules}}, "stages": {"change": {"ipq": {"stages": ["ffn"]}}}}
    values = {"sizes": {"x": {}}, "variants": variants, "seeds": [0]}
    noisy = StudyConfig.build(values | {"run": {"model": "minilm", "task": "rt", "noise": {"kind": "pq", "p": 0.1}}})
    assert len({item.dense for item in plan(noisy)}) == 3
    plain = StudyConfig.build(values | {"run": {"model": "minilm", "task": "rt"}})
    assert len({item.dense for item in plan(plain)}) == 1
