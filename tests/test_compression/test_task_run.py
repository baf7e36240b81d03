"""The pipeline on tiny models and GLUE in the hub's layout, through the entry point as a user would run it."""

import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as reference
from torch import nn

from compression.cli import main
from compression.experiments.origin import origin
from compression.experiments.presets import RUNS, run_file
from compression.experiments.run_config import RunConfig, prepare
from compression.experiments.run_plan import planned_rules
from compression.experiments.task_run import predict, run_task
from compression.quantization.blocks import PQConfig
from compression.quantization.folder import Source, load_folder
from compression.quantization.layers import PQLinear, pq_modules
from compression.quantization.quant_noise import NoiseConfig
from compression.quantization.rules import FAMILIES, STAGES, match_rules, preset_rules
from compression.quantization.storage import load_compressed_
from compression.training import loop
from compression.training.classifiers import ModelSource, find_model
from compression.training.data import TextData
from compression.training.distillation import logit_loss
from compression.training.finetune import FinetuneConfig, load_classifier
from compression.training.ipq import IPQConfig
from compression.training.packages import PACKAGES, have_data
from compression.training.tasks import GLUE, find_task
from shared.artifacts import content_hash, sha256_file
from shared.config import load_config
from tests.test_compression import hub_files
from tests.test_compression.hub_files import N_VALIDATION, write_hub_glue, write_model

IPQ = IPQConfig(stages=("ffn", "embeddings", "attention", "head"), steps_per_stage=2, batch_size=16, checkpoint_every=1)
FINETUNE = FinetuneConfig(epochs=1, batch_size=16, lr=1e-3, max_length=32, checkpoint_every=1)
QUICK = ["finetune.max_length=32", "finetune.epochs=1", "n_centroids=8", "n_distil=32", "ipq.steps_per_stage=2"]


@pytest.fixture(scope="module")
def glue(tmp_path_factory, datasets_cache):
    """Return a folder that is a copy of the hub's data set with tiny parquet files."""
    return write_hub_glue(tmp_path_factory.mktemp("hub") / "glue")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a folder with a tiny model of each family in the hub's layout."""
    folder = tmp_path_factory.mktemp("models")
    for family in hub_files.FAMILIES:
        write_model(folder / family, family)
    return folder


def settings(models, glue, task="rte", family="roberta", **changes) -> RunConfig:
    """Return quick settings."""
    values = {"finetune": FINETUNE, "ipq": IPQ, "n_centroids": 8, "n_distil": 32}
    return RunConfig(model=str(models / family), task=task, data=str(glue), **(values | changes))


def command(models, glue, out, *more, task="rte", model="roberta"):
    """Return the arguments of a quick run."""
    base = ["run", "--model", str(models / model), "--task", task, "--data", str(glue), "--out", str(out)]
    return [*base, *(part for setting in QUICK for part in ("--set", setting)), *more]


def test_the_command_runs_whole(models, glue, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(models, glue, out, task="mnli")) == 0
    table = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert [(row["model"], row["split"]) for row in report["rows"]] == [
        (model, f"validation_{kind}")
        for kind in ("matched", "mismatched")
        for model in ("majority class", "fp32", "iPQ")
    ]
    assert not (out / "work").exists()
    # What is said is what the file gives, computed here anew.
    config = load_config(RunConfig, run_file(), [f'model="{models}/roberta"', "task=mnli", f'data="{glue}"', *QUICK])
    prepared = prepare(config)
    model = load_compressed_(load_classifier(out / "dense"), out / "compressed" / "model.safetensors")
    for row in report["rows"][2::3]:
        data = prepared.evaluation[row["split"]]
        with torch.inference_mode():
            logits = torch.cat([model(**data.batch([i])).logits for i in range(len(data))])
        right = float((logits.argmax(1) == data.labels).float().mean())
        assert row["accuracy"] == pytest.approx(100 * right)
        assert f"{row['accuracy']:.2f}" in table
        assert row["file (MB)"] == (out / "compressed" / "model.safetensors").stat().st_size / 1e6
        assert row["of fp32"] > 4
    assert {row["sentences"] for row in report["rows"]} == {N_VALIDATION}
    assert main(["inspect", str(out / "compressed" / "model.safetensors")]) == 0
    assert "PQ 8x8" in capsys.readouterr().out
    card = (out / "compressed" / "README.md").read_text()
    assert table.splitlines()[2] in card  # the scores
    for text in ("seeding: partition", "stages ffn, embeddings, attention, head", "Distilled on 32 of the 64"):
        assert text in card
    given, trained = (sha256_file(folder / "model.safetensors") for folder in (models / "roberta", out / "dense"))
    lines = ["model: `roberta`", f"SHA-256 of model.safetensors: `{given}`"]
    lines += [f"SHA-256 of the fp32 weights that were compressed: `{trained}`", "task: `mnli`"]
    lines += ["seed of the fine-tuning: 0", "seed of the compression: 0"]
    assert "## Source\n\n- " + "\n- ".join(lines) + "\n\n## " in card
    assert str(models) not in card
    assert not list(out.glob("pareto*"))  # without a budget


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
ACCELERATE += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_several_processes_run_it_together(glue, tmp_path, launcher):
    """The result is that of one but for rounding."""
    if launcher is ACCELERATE:
        pytest.importorskip("accelerate", reason="accelerate is in the extra `trainer`")
    models, out, alone = tmp_path / "models", tmp_path / "two", tmp_path / "one"
    write_model(models / "roberta", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    more = ["--set", "budget=5x", "--set", "n_plan=16"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "compression", *command(models, glue, out, *more)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("| fp32 | validation |") == 1
    assert done.stderr.count("Fine-tuning") == 1
    assert main(command(models, glue, alone, *more)) == 0
    one, two = (json.loads((folder / "report.json").read_text()) for folder in (alone, out))
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
    sizes = [{row["model"]: row["of fp32"] for row in report["rows"]} for report in (one, two)]
    assert sizes[1]["iPQ"] == pytest.approx(sizes[0]["iPQ"], rel=0.02)
    assert not list(out.glob(".*.tmp"))
    assert not (out / "work").exists()


@pytest.mark.slow
def test_clustering_in_several_processes_gives_the_same_file(models, glue, tmp_path):
    files = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        more = ["--set", "budget=5x", "--set", "n_plan=16", "--workers", workers]
        assert main(command(models, glue, out, *more)) == 0
        files.append((out / "compressed" / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_regression_learns_and_survives_compression(models, glue, tmp_path):
    finetune = FINETUNE.model_copy(update={"epochs": 30, "lr": 4e-3, "checkpoint_every": 500})
    ipq = IPQ.model_copy(
        update={"stages": ("+".join(STAGES),), "steps_per_stage": 40, "lr": 3e-3, "checkpoint_every": 500}
    )
    config = settings(models, glue, "stsb", finetune=finetune, ipq=ipq, n_centroids=32, block_size=4, n_distil=64)
    report = run_task(config, tmp_path)
    rows = {row["model"]: row for row in report["rows"]}
    assert rows["mean"]["pearson"] == rows["mean"]["spearman"] == 0
    assert rows["fp32"]["pearson"] > 60  # the labels can be told from the words
    assert rows["iPQ"]["spearman"] > rows["fp32"]["spearman"] - 25
    assert np.array(report["predictions"]["iPQ"]["validation"]).dtype.kind == "f"
    losses = report["losses"]
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:8])


TASKS = [("roberta", name) for name in sorted(GLUE)]
TASKS += zip(itertools.cycle(hub_files.FAMILIES[1:]), sorted(GLUE))  # the other families in turn


@pytest.mark.parametrize(("family", "name"), TASKS)
def test_every_task_runs_whole(models, glue, tmp_path, family, name):
    """One epoch and two steps of distillation; the scores are those of the predictions by the published metrics."""
    task = GLUE[name]
    ipq = IPQ.model_copy(update={"stages": ("+".join(STAGES),)})
    report = run_task(settings(models, glue, name, family, ipq=ipq), tmp_path)
    assert {row["split"] for row in report["rows"]} == set(task.evaluation_splits)
    columns = list(report["rows"][0])
    before, after = columns.index("of fp16"), columns.index("score, 95 %")
    assert tuple(columns[before + 1 : after]) == task.metrics
    for row in report["rows"]:
        predictions, labels = (
            np.array(values)
            for values in (report["predictions"][row["model"]][row["split"]], report["labels"][row["split"]])
        )
        found = {metric: row[metric] / 100 for metric in task.metrics}
        assert found == pytest.approx(_reference_scores(name, predictions, labels), abs=1e-6)
    assert report["rows"][-1]["of fp32"] > 3
    names = {layer["name"] for stage in report["compression"]["stages"] for layer in stage["layers"]}
    assert len(names) >= 15


def _reference_scores(name, predictions, labels):
    """The metrics that GLUE publishes for a task, by scikit-learn and SciPy."""
    if name == "stsb":
        if np.ptp(predictions) == 0:
            return {"pearson": 0, "spearman": 0}
        return {"pearson": pearsonr(predictions, labels)[0], "spearman": spearmanr(predictions, labels)[0]}
    if name == "cola":
        return {"matthews": reference.matthews_corrcoef(labels, predictions)}
    scores = {"accuracy": reference.accuracy_score(labels, predictions)}
    if name in ("mrpc", "qqp"):
        scores["f1"] = reference.f1_score(labels, predictions, zero_division=0)
    return scores


@pytest.mark.parametrize("weighting", ["activation", "fisher"])
def test_the_weighting_reaches_the_clustering(models, glue, tmp_path, weighting):
    config = settings(models, glue, weighting=weighting, n_calibration=16, n_centroids=6)
    files = {}
    for name, one in (("weighted", config), ("plain", config.model_copy(update={"weighting": None}))):
        report = run_task(one, tmp_path / name)
        files[name] = load_file(tmp_path / name / "compressed" / "model.safetensors")
        assert np.isfinite([loss for stage in report["compression"]["stages"] for loss in stage["losses"]]).all()
    codes = [name for name in files["plain"] if name.endswith("dense.codes")]
    assert any(not torch.equal(files["plain"][name], files["weighted"][name]) for name in codes)
    card = (tmp_path / "weighted" / "compressed" / "README.md").read_text()
    assert f"weights: {weighting}, from 16 sentences" in card


def test_codebooks_and_inputs_in_int8_run_whole(models, glue, tmp_path):
    ipq = IPQ.model_copy(update={"activations": "int8"})
    report = run_task(settings(models, glue, ipq=ipq, pq={"codebook_dtype": "int8"}), tmp_path)
    tensors = load_file(tmp_path / "compressed" / "model.safetensors")
    assert {tensor.dtype for name, tensor in tensors.items() if name.endswith(".centroids")} == {torch.int8}
    model, _ = load_folder(tmp_path / "compressed")
    linear = [layer for layer in pq_modules(model).values() if isinstance(layer, PQLinear)]
    assert len(linear) == 13
    assert all(layer.activations is not None for layer in linear)
    prepared = prepare(settings(models, glue))
    assert predict(model, prepared.evaluation["validation"]).tolist() == report["predictions"]["iPQ"]["validation"]
    card = (tmp_path / "compressed" / "README.md").read_text()
    assert "Inputs of linear layers: int8" in card


@pytest.mark.parametrize("name", sorted(GLUE))
def test_every_task_is_prepared_for_every_family(models, glue, name):
    task = GLUE[name]
    for family in hub_files.FAMILIES:
        prepared = prepare(settings(models, glue, name, family))
        assert set(prepared.evaluation) == set(task.evaluation_splits)
        pairs = len(task.sentence_keys) == 2
        assert (prepared.train.token_type_ids is not None) == (pairs and family == "bert")
        assert prepared.train.labels.dtype == (torch.float32 if task.regression else torch.int64)
        model = prepared.source.load(seed=0)
        with torch.inference_mode():
            logits = model(**prepared.train.batch([0, 1, 2])).logits
        assert logits.shape == (3, task.num_labels)
        assert logits.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_preset_rules_cover_every_layer_but_the_last(family):
    tokenizer = hub_files.TOKENIZERS[family]()
    config = hub_files.tiny_config(family, tokenizer)
    with torch.device("meta"):
        model = hub_files.AutoModelForSequenceClassification.from_config(config)
    rules = preset_rules(family, block_size=4, n_centroids=4)
    found = {stage: [name for name, _ in match_rules(model, rules, stage=stage)] for stage in STAGES}
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)}
    left = layers - {name for names in found.values() for name in names}
    last = "classifier" if family in ("bert", "distilbert") else "classifier.out_proj"
    assert left == {last} | ({"mpnet.encoder.relative_attention_bias"} if family == "mpnet" else set())
    assert len(found["ffn"]) == 2 * 2
    assert len(found["attention"]) == 2 * 4
    assert len(found["embeddings"]) == (2 if family in ("mpnet", "distilbert") else 3)
    assert len(found["head"]) == 1


def test_tokenizers_are_those_of_the_families(models):
    classes = {family: type(find_model(str(models / family), GLUE["rte"]).tokenizer()).__name__ for family in FAMILIES}
    assert classes["roberta"] == "RobertaTokenizer"
    assert classes["xlm-roberta"] == "XLMRobertaTokenizer"
    assert classes["mpnet"] == "MPNetTokenizer"
    assert classes["bert"] == "BertTokenizer"
    tokenizer = find_model(str(models / "roberta"), GLUE["rte"]).tokenizer()
    text = "the café was 数 warm"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text  # bytes: nothing is unknown
    pair = tokenizer("fine", "grim")["input_ids"]
    assert pair[0] == 0
    assert pair.count(2) == 3  # <s> A </s></s> B </s>


def test_vocabulary_and_merges_are_the_tokenizer_where_there_is_no_json(models, tmp_path):
    """As in repositories of RoBERTa from before ``tokenizer.json``, which ``roberta-base`` has besides."""
    folder = shutil.copytree(models / "roberta", tmp_path / "older")
    expected = find_model(str(models / "roberta"), GLUE["rte"]).tokenizer()
    expected.backend_tokenizer.model.save(str(folder))
    (folder / "tokenizer.json").unlink()
    assert {"vocab.json", "merges.txt"} <= {path.name for path in folder.iterdir()}
    found = find_model(str(folder), GLUE["rte"]).tokenizer()
    for pair in (("A film, dull.", "Naïve?"), ("  two spaces", " ")):
        assert found(*pair)["input_ids"] == expected(*pair)["input_ids"]
    assert found.pad_token_id == expected.pad_token_id == 1


def test_a_head_is_drawn_from_its_seed_and_a_trained_one_is_kept(models, tmp_path):
    source = find_model(str(models / "roberta"), GLUE["mnli"])
    before = torch.random.get_rng_state()
    first, again, other = (source.load(seed).classifier.out_proj.weight for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    labels = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
    write_model(tmp_path, head=True, id2label=labels, label2id={name: i for i, name in labels.items()})
    trained = find_model(str(tmp_path), GLUE["mnli"])
    assert trained.label_order == (2, 1, 0)
    kept, saved = trained.load(3), load_classifier(tmp_path)
    assert torch.equal(kept.classifier.out_proj.weight, saved.classifier.out_proj.weight)
    fresh = find_model(str(tmp_path), GLUE["rte"], new_head=True).load(3)
    assert fresh.classifier.out_proj.weight.shape == (2, 32)
    encoder, theirs = fresh.roberta.state_dict(), saved.roberta.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in encoder.items())


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_the_encoder_of_a_masked_language_model_is_read(models, family):
    """As ``roberta-base`` is on the hub: with the head of its own task and a buffer, without a pooler."""
    tensors = load_file(models / family / "model.safetensors")
    assert {"lm_head.dense.weight", "lm_head.bias", "roberta.embeddings.position_ids"} < set(tensors)
    assert not any("pooler" in name for name in tensors)
    source = find_model(str(models / family), GLUE["rte"])
    assert source.new_head
    state = source.load(0).state_dict()
    encoder = {name for name in tensors if name.startswith("roberta.") and not name.endswith("position_ids")}
    assert encoder == {name for name in state if not name.startswith("classifier.")}
    assert all(torch.equal(state[name], tensors[name]) for name in encoder)


def test_a_new_head_with_a_norm_depends_on_its_input(tmp_path):
    write_model(tmp_path, "modernbert")
    model = find_model(str(tmp_path), GLUE["mnli"]).load(0)
    assert model.head.norm.weight.unique().tolist() == [1]
    assert model.classifier.bias.unique().tolist() == [0]
    with torch.inference_mode():
        logits = model(torch.tensor([[0, 7, 8, 2], [0, 9, 5, 2]])).logits
    assert (logits[0] - logits[1]).abs().min() > 1e-3


@pytest.mark.parametrize("task", ["mnli", "mrpc"])
def test_a_finished_model_is_evaluated_in_its_own_label_order(models, glue, tmp_path, task):
    first, second = (tmp_path / name for name in ("first", "second"))
    names = GLUE[task].label_names
    same = tuple(range(len(names)))
    for folder, order in ((first, same), (second, same[::-1])):
        labels = dict(enumerate(names[i] for i in order))
        write_model(folder, head=True, id2label=labels, label2id={name: i for i, name in labels.items()})
    tensors = load_file(second / "model.safetensors")
    for part in ("weight", "bias"):
        tensors[f"classifier.out_proj.{part}"] = tensors[f"classifier.out_proj.{part}"].flip(0).contiguous()
    save_file(tensors, second / "model.safetensors", metadata={"format": "pt"})
    reports = [run_task(settings(tmp_path, glue, task, f.name, finetune=None), f / "run") for f in (first, second)]
    metrics = GLUE[task].metrics
    scores = [[[row[name] for name in metrics] for row in r["rows"] if row["model"] != "iPQ"] for r in reports]
    assert scores[0] == scores[1]  # the same model under another numbering
    assert reports[0]["labels"] == reports[1]["labels"]
    assert reports[0]["predictions"]["fp32"] == reports[1]["predictions"]["fp32"]


def test_interrupted_run_continues_with_the_same_result(models, glue, tmp_path, monkeypatch):
    config = settings(models, glue)
    expected = run_task(config, tmp_path / "whole")
    save, calls = loop.save_checkpoint, []

    def stop_at_the_sixth(*arguments):
        save(*arguments)
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        run_task(config, tmp_path / "parts")
    assert (tmp_path / "parts" / "dense").is_dir()
    assert not (tmp_path / "parts" / "compressed").exists()
    found = run_task(config, tmp_path / "parts")
    assert found["predictions"] == expected["predictions"]
    assert found["rows"] == expected["rows"]
    file = "compressed/model.safetensors"
    assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_another_config_or_other_data_are_not_continued(models, glue, tmp_path, capsys, datasets_cache):
    out = tmp_path / "run"
    copy = shutil.copytree(glue, tmp_path / "glue")
    assert main(command(models, copy, out)) == 0
    first = (out / "report.json").read_bytes()
    assert main(command(models, copy, out)) == 0
    assert (out / "report.json").read_bytes() == first
    assert "this run is finished" in capsys.readouterr().err
    assert main(command(models, copy, out, "--set", "ipq.lr=0.5")) == 2
    error = capsys.readouterr().err
    assert "`ipq.lr`: 0.001 there, 0.5 now" in error
    assert "--out" in error
    shutil.rmtree(copy / "rte")
    shutil.copytree(copy / "wnli", copy / "rte")  # the same columns, label names in another order
    assert main(command(models, copy, out)) == 2
    assert "another `data." in capsys.readouterr().err


def test_a_model_with_other_weights_is_not_continued(glue, tmp_path):
    model, out = tmp_path / "model", tmp_path / "run"
    write_model(model, head=True, num_labels=2)
    config = settings(tmp_path, glue, family="model", finetune=None)
    report = run_task(config, out)
    assert run_task(config, out) == report
    tensors = load_file(model / "model.safetensors")
    changed = {name: -tensor if name.startswith("classifier") else tensor for name, tensor in tensors.items()}
    save_file(changed, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"another `weights\.model\.safetensors`"):
        run_task(config, out)
    identity = json.loads((out / "run.json").read_text())
    del identity["weights"]
    (out / "run.json").write_text(json.dumps(identity))
    with pytest.raises(ValueError, match="null there"):  # a run of before they were written down
        run_task(config, out)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("minilm-rt", "c95582db7cd28dfb87a06a736c9be422706a1d332badb45453ea7d42b5e7806e"),
        ("minilm-boolq", "5e2825e0bc2087036e839afba0d1c09a1900c6ee3f2421213cf7f69da6bf493b"),
        ("mpnet-rt", "7921f848ae390287aa085827ba79fe975a2098570c1f0a7c69c6b58d3e5284cd"),
    ],
)
def test_packaged_runs_keep_their_identity(name, sha256, real_data):
    """Hours of results are known by it: where it must change, they are to be made again."""
    config = load_config(RunConfig, run_file(name))
    if not have_data([config.model, config.task]):
        pytest.skip(f"not in the cache: run `pg-ipq fetch-data {config.model} {config.task}` first")
    assert content_hash(prepare(config).identity) == sha256


def test_noise_is_active_in_fine_tuning_only(models, glue, tmp_path):
    seen = []

    class Noise:
        def __init__(self, model, rules):
            self.model, self.rules = model, rules

        def __enter__(self):
            seen.append(("on", self.model.training, len(self.rules)))

        def __exit__(self, *_):
            seen.append(("off", (tmp_path / "dense").exists()))

    run_task(settings(models, glue), tmp_path, noise=Noise)
    assert seen == [("on", False, 4), ("off", False)]


def test_noise_by_settings_changes_the_model_and_survives_an_interruption(models, glue, tmp_path, capsys, monkeypatch):
    noisy = ("--set", "noise.kind=pq", "--set", "noise.p=0.5", "--set", "noise.schedule=linear")
    for name, more in (("plain", ()), ("noisy", noisy)):
        assert main(command(models, glue, tmp_path / name, *more, "--set", "finetune.checkpoint_every=1")) == 0
    files = {name: load_file(tmp_path / name / "dense" / "model.safetensors") for name in ("plain", "noisy")}
    assert files["plain"].keys() == files["noisy"].keys()
    assert not all(torch.equal(tensor, files["noisy"][name]) for name, tensor in files["plain"].items())
    save, calls = loop.save_checkpoint, []

    def stop_at_the_first(*arguments):
        save(*arguments)
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", stop_at_the_first)
        arguments = command(models, glue, tmp_path / "parts", *noisy, "--set", "finetune.checkpoint_every=1")
        assert main(arguments) == 130
    assert main(arguments) == 0
    found = load_file(tmp_path / "parts" / "dense" / "model.safetensors")
    assert all(torch.equal(tensor, files["noisy"][name]) for name, tensor in found.items())
    capsys.readouterr()
    out = tmp_path / "none"
    assert "must be below 1" in refused(capsys, command(models, glue, out, "--set", "noise.p=1.0"), out)
    error = refused(capsys, command(models, glue, out, "--set", "noise.kid=pq"), out)
    assert "did you mean 'kind'" in error
    write_model(tmp_path / "done", head=True, num_labels=2)
    config = settings(tmp_path, glue, family="done", finetune=None, noise={"kind": "pq"})
    with pytest.raises(ValueError, match="`noise` must be null where `finetune` is"):
        prepare(config)


def refused(capsys, arguments, out):
    """Run a command that must be refused before any training; return what it said."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "Fine-tuning" not in error
    assert not (out / "dense").exists()
    return error


def test_bad_input_is_refused_before_training(models, glue, tmp_path, capsys):
    out = tmp_path / "run"
    assert "Did you mean 'mnli'?" in refused(capsys, command(models, glue, out, task="mnil"), out)
    error = refused(capsys, command(models, glue, out, '--set=rules=[{pattern: "(", config: {}}]'), out)
    assert error.startswith("error: Key `rules.0.pattern`: must be a regular expression (missing ), unterminated")
    assert error.count("\n") == 1
    rule = '--set=rules=[{pattern: "roberta.encoder.layer.0.intermediary.dense", stage: ffn, config: {}}]'
    error = refused(capsys, command(models, glue, out, rule, "--set", "ipq.stages=[ffn]"), out)
    assert "matches no linear layer" in error
    assert "'roberta.encoder.layer.0.intermediate.dense'" in error
    for rule, message in (
        ("{pattern: 'nothing.at.all', stage: extra, config: {}}", "'nothing.at.all' matches no linear layer"),
        ("{pattern: '.*query', stage: extra, config: {block_size: 7}}", "must divide the 32 input features"),
    ):
        rules = f"--set=rules=[{{pattern: '.*intermediate.dense', stage: ffn, config: {{}}}}, {rule}]"
        assert message in refused(capsys, command(models, glue, out, rules, "--set", "ipq.stages=[ffn]"), out)
    assert "has 'more'" in refused(capsys, command(models, glue, out, rules, "--set", "ipq.stages=[ffn, more]"), out)
    error = refused(capsys, command(models, glue, out, "--set", "ipq.stages=[ffn, ffn]"), out)
    assert "`ipq.stages`: must name each stage once, but names 'ffn' more than once" in error
    for family, layer in (("roberta", 3), ("distilbert", -4)):
        more = ("--set", f"ipq.distillation.hidden_layers=[{layer}]")
        error = refused(capsys, command(models, glue, out, *more, model=family), out)
        assert "`ipq.distillation.hidden_layers` must hold numbers from -3 to 2" in error
        assert f"but holds {layer}" in error
    error = refused(capsys, command(models, glue, out, "--set", "block_size=7"), out)
    assert "must divide the 32 input features" in error
    assert "near divisors are 2, 4, 8" in error
    error = refused(capsys, command(models, glue, out, "--set", "block_size={ffn: 8, head: 8}"), out)
    assert "`block_size` must be a number or have the stages ffn, embeddings, attention, head" in error
    error = refused(capsys, command(models, glue, out, "--set", "ipq.stages=[ffn, heads]"), out)
    assert "`ipq.stages` must hold only ffn, embeddings, attention, head, but has 'heads'" in error
    error = refused(capsys, command(models, glue, out, "--set", "finetune.max_length=63"), out)
    assert "at most 62" in error
    error = refused(capsys, command(models, glue, out, "--set", "finetune.epoch=2"), out)
    assert "did you mean 'epochs'" in error
    error = refused(capsys, command(models, glue, out, "--set", "finetune=null"), out)
    assert "`finetune` must not be null" in error
    error = refused(capsys, command(models, tmp_path / "nothing", out), out)
    assert "does not exist" in error
    error = refused(capsys, command(models, glue, out, model="no-such"), out)
    assert "`model`" in error
    error = refused(capsys, command(models, glue, out, "--workers", "0"), out)
    assert "`--workers` must be at least 1" in error
    error = refused(capsys, ["run", "--task", "rte"], out)
    assert "minilm-boolq" in error
    error = refused(capsys, ["run", "--preset", "minilm_rt"], out)
    assert "Did you mean 'minilm-rt'?" in error
    error = refused(capsys, ["run", "--preset", "minilm-rt", "--data", str(glue)], out)
    assert "`data` must be null" in error or "fetch-data" in error


def test_a_model_without_preset_takes_rules(glue, tmp_path, capsys):
    write_model(tmp_path / "electra", "electra", embedding_size=32)
    out = tmp_path / "run"
    error = refused(capsys, command(tmp_path, glue, out, model="electra"), out)
    assert "`rules` must be given" in error
    assert "'electra' has no preset" in error
    assert "distilbert" in error
    rules = r"""rules=[{pattern: '.*layer\.\d+\.(intermediate|output)\.dense', config: {n_centroids: 8, block_size: 4}},
                     {pattern: '.*word_embeddings', config: {n_centroids: 16, block_size: 8}}]"""
    assert main(command(tmp_path, glue, out, "--set", rules, model="electra")) == 0
    layers = json.loads((out / "compressed" / "stages.json").read_text())["stages"][0]["layers"]
    assert [layer["block_size"] for layer in layers] == [8, 4, 4, 4, 4]


def test_a_budget_is_kept_and_its_plan_can_be_shared(models, glue, tmp_path, monkeypatch):
    config = settings(models, glue, budget="5x", n_plan=16, weighting="activation", n_calibration=16)
    report = run_task(config, tmp_path / "first")
    dense, compressed = (tmp_path / "first" / name / "model.safetensors" for name in ("dense", "compressed"))
    weights = sum(tensor.numel() for tensor in load_file(dense).values() if tensor.is_floating_point())
    assert compressed.stat().st_size <= 4 * weights / 5
    plan = json.loads((tmp_path / "first" / "plan.json").read_text())
    with open(tmp_path / "first" / "pareto.csv", newline="") as file:
        curve = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert curve == plan["curve"]
    assert (tmp_path / "first" / "pareto.png").stat().st_size > 5000
    assert [stage["stage"] for stage in report["compression"]["stages"]] == [
        stage for stage in STAGES if stage in {rule["stage"] for rule in plan["rules"]}
    ]
    sizes = {row["layer"]: (row["block size"], row["codewords"]) for row in plan["layers"] if row["codewords"]}
    layers = [layer for stage in report["compression"]["stages"] for layer in stage["layers"]]
    assert {layer["name"]: (layer["block_size"], layer["n_requested"]) for layer in layers} == sizes
    # With the plan at hand nothing is measured, other options of the k-means are free, and noise knows its layers.
    monkeypatch.setattr("compression.experiments.run_plan.plan", None)
    other = config.model_copy(update={"pq": PQConfig().as_baseline(), "noise": NoiseConfig(kind="proxy", p=0.5)})
    again = run_task(other, tmp_path / "second", plan=tmp_path / "first" / "plan.json")
    layers = [layer for stage in again["compression"]["stages"] for layer in stage["layers"]]
    assert {layer["name"]: (layer["block_size"], layer["n_requested"]) for layer in layers} == sizes
    assert not (tmp_path / "second" / "plan.json").exists()
    curves = [(tmp_path / folder / "pareto.csv").read_bytes() for folder in ("first", "second")]
    assert curves[0] == curves[1]
    # What a study takes from another machine has no curve.
    (tmp_path / "known.json").write_text(json.dumps({key: plan[key] for key in ("budget", "rules")}))
    run_task(config, tmp_path / "third", plan=tmp_path / "known.json")
    assert not list((tmp_path / "third").glob("pareto*"))


def test_the_card_of_a_model_of_the_hub_or_a_package(models):
    config = find_model(str(models / "roberta"), find_task("rte")).config
    config._commit_hash = "f00d"
    hub = origin(ModelSource("org/model", config, True), task="rte", seeds={"compression": 1})
    assert hub == Source("org/model", on_hub=True, revision="f00d", task="rte", seeds={"compression": 1})
    packaged = origin(ModelSource("minilm", config, True))
    assert not packaged.on_hub
    assert packaged.sha256 == {file.filename: file.sha256 for file in PACKAGES["minilm"]}


def test_budgets_that_cannot_be_are_refused_before_training(models, glue, tmp_path, capsys):
    out = tmp_path / "run"
    error = refused(capsys, command(models, glue, out, "--set", "budget=1kB"), out)
    assert "Key `budget` must be at least" in error
    assert "6MB" in refused(capsys, command(models, glue, out, "--set", "budget=much"), out)
    error = refused(capsys, command(models, glue, out, "--set", "budget=6x", "--set", "noise={kind: proxy}"), out)
    assert "`noise` must be null with a budget" in error
    error = refused(capsys, command(models, glue, out, "--set", "share=true"), out)
    assert "`share` must be left out without a `budget`" in error
    consolidated = "pq={init: random, empty: perturb, consolidate: 0.1}"
    error = refused(capsys, command(models, glue, out, "--set", consolidated), out)
    assert "`consolidate` must be null unless `init` and `empty` are both 'partition', but was 0.1" in error
    rule = "--set=rules=[{pattern: '.*dense', config: {}}]"
    error = refused(capsys, command(models, glue, out, "--set", "budget=6x", rule), out)
    assert "`budget` must be null where `rules` are given, but was '6x'" in error


def test_the_least_budget_that_is_accepted_is_enough_afterwards(models, glue, tmp_path):
    with pytest.raises(ValueError, match="must be at least") as error:
        prepare(settings(models, glue, budget="1kB"))
    least = int(re.search(r"at least ([\d,]+) bytes", str(error.value))[1].replace(",", ""))
    with pytest.raises(ValueError, match="must be at least"):
        prepare(settings(models, glue, budget=str(least - 1)))
    prepared = prepare(settings(models, glue, budget=str(least), n_plan=16))
    rules = planned_rules(prepared, prepared.source.load(0), tmp_path / "plan.json")
    assert {rule.config.codebook_dtype for rule in rules} == {"int8"}


def test_leftovers_of_a_killed_run_are_removed(models, glue, tmp_path):
    (tmp_path / ".dense.1.abc.tmp").mkdir()
    run_task(settings(models, glue), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {"run.json", "report.json", "dense", "compressed"}


def test_a_head_with_other_labels_is_refused(models, glue, tmp_path, capsys):
    write_model(tmp_path / "two", head=True, num_labels=2)
    out = tmp_path / "run"
    error = refused(capsys, command(tmp_path, glue, out, task="mnli", model="two"), out)
    assert "has 2 labels, but task 'mnli' needs 3" in error
    assert "new_head=true" in error
    assert main(command(tmp_path, glue, out, "--set", "new_head=true", task="mnli", model="two")) == 0


def test_labels_out_of_range_and_missing_columns(models, tmp_path, capsys, datasets_cache):
    from datasets import Dataset

    for number, (columns, message) in enumerate(
        [
            ({"sentence1": ["a"], "sentence2": ["b"], "label": [5]}, "is 5 in row 0"),
            ({"sentence1": ["a"], "label": [0]}, "lack 'sentence2'"),
            ({"sentence1": ["a"], "sentence2": ["b"], "label": [-1]}, "are hidden"),
        ]
    ):
        folder = tmp_path / str(number)
        (folder / "rte").mkdir(parents=True)
        for split in ("train", "validation"):
            Dataset.from_dict(columns).to_parquet(folder / "rte" / f"{split}-00000-of-00001.parquet")
        out = tmp_path / "run"
        assert message in refused(capsys, command(models, folder, out), out)


def test_a_foreign_tokenizer_or_weights_are_refused(models, glue, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(models / "mpnet", tmp_path / "bad")
    hub_files.wordpiece().backend_tokenizer.save(str(tmp_path / "bad" / "tokenizer.json"))
    assert "do not belong together" in refused(capsys, command(tmp_path, glue, out, model="bad"), out)
    shutil.copytree(models / "roberta", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert main(command(tmp_path, glue, out, model="cut")) == 2
    error = capsys.readouterr().err
    assert "weights of model" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("silent", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_unreachable_hub_is_one_sentence_and_writes_nothing(tmp_path, silent):
    """The client library is told that there is no network, or finds nobody at the hub's address."""
    environment = os.environ | {"HF_HOME": str(tmp_path / "hub"), "NO_PROXY": "*"} | silent
    arguments = ["run", "--model", "roberta-base", "--task", "rte", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "compression", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: The hub could not be reached for the model 'roberta-base'")
    assert "pg-ipq run --preset minilm-rt" in done.stderr
    assert not (tmp_path / "out").exists()


def test_presets_are_valid(tmp_path):
    for name in RUNS:
        config = load_config(RunConfig, run_file(name))
        assert f"{config.model}-{config.task}" == name
        assert RunConfig.from_json(config.to_json()) == config
        assert find_task(config.task).packaged
        if not have_data([config.model], tmp_path):
            with pytest.raises(RuntimeError, match="pg-ipq fetch-data"):
                run_task(config.model_copy(update={"model": "mpnet"}), tmp_path / name, folder=tmp_path)


def test_the_preset_of_mpnet_runs_whole_with_a_tiny_one(tmp_path, monkeypatch, capsys):
    """All of its settings but the number of codewords and steps, with as many layers, read as the package is."""
    package, out = tmp_path / "package", tmp_path / "run"
    write_model(package, "mpnet", num_hidden_layers=12, max_position_embeddings=514)
    (package / "special_tokens_map.json").write_text(json.dumps(hub_files.mpnet_wordpiece().special_tokens_map))
    monkeypatch.setattr("compression.training.models.model_folder", lambda name, folder: {"mpnet": package}[name])
    parts = [
        TextData(
            name, tuple(hub_files.sentence(start + i, 3 * (i % 2)) for i in range(n)), tuple(i % 2 for i in range(n))
        )
        for name, start, n in (("train", 0, 64), ("validation", 1000, 24))
    ]
    monkeypatch.setattr("compression.experiments.run_config.load_sentiment", lambda folder: parts)
    small = ("n_centroids=8", "ipq.steps_per_stage=2")
    more = [part for setting in small for part in ("--set", setting)]
    assert main(["run", "--preset", "mpnet-rt", "--out", str(out), *more]) == 0
    report = json.loads((out / "report.json").read_text())
    (stage,) = report["compression"]["stages"]
    assert stage["stage"] == "ffn+embeddings+attention+head"
    assert len(stage["layers"]) == 2 * 12 + 2 + 4 * 12 + 1
    assert all(np.isfinite(stage["losses"]).all() for stage in report["compression"]["stages"])
    config = load_config(RunConfig, run_file("mpnet-rt"))
    assert report["provenance"]["config"]["finetune"] == json.loads(config.to_json())["finetune"]
    model, _ = load_folder(out / "compressed")
    assert type(model).__name__ == "MPNetForSequenceClassification"
    data = prepare(config).evaluation["validation"]
    assert predict(model, data).tolist() == report["predictions"]["iPQ"]["validation"]
    assert capsys.readouterr().out.count("| iPQ | validation |") == 1


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_of_a_single_output_is_the_squared_difference(temperature):
    student, teacher = torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [1.0]])
    assert logit_loss(student, teacher, temperature).item() == pytest.approx((1 + 9) / 2)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm-rt", "minilm-boolq"])
def test_offline_presets_run(name, tmp_path, real_data, capsys):
    if name == "minilm-boolq" and not have_data(["boolq"]):
        pytest.skip("BoolQ is not in the cache: run `pg-ipq fetch-data boolq` first")
    small = ["max_train=64", "max_validation=300", "n_distil=32", "ipq.steps_per_stage=1", "finetune.max_length=48"]
    small += ["finetune.epochs=1"]
    more = [part for setting in small for part in ("--set", setting)]
    assert main(["run", "--preset", name, "--out", str(tmp_path), *more]) == 0
    rows = {row["model"]: row for row in json.loads((tmp_path / "report.json").read_text())["rows"]}
    assert rows["majority class"]["matthews"] == 0
    assert rows["majority class"]["accuracy"] == pytest.approx(62 if name == "minilm-boolq" else 50, abs=8)
    assert rows["iPQ"]["of fp32"] > 12
