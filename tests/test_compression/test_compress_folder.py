"""``pg-ipq compress``: a folder of transformers becomes a small one, end to end on a tiny model."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)

from compression.cli import main
from compression.quantization.folder import load_folder
from compression.quantization.layers import pq_modules
from compression.quantization.storage import load_compressed_, read_header
from compression.training.batches import encode
from compression.training.data import TextData
from compression.training.evaluate import evaluate, predict_logits
from compression.training.finetune import FinetunedModel
from shared.artifacts import sha256_file
from shared.results import format_cell
from tests.test_compression.hub_files import write_model

WORDS = [f"w{number}" for number in range(115)]


@pytest.fixture
def folder(tiny_roberta, tmp_path):
    """Return a folder with a tiny classifier and a word tokenizer, and a text file beside it."""
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    target = tmp_path / "model"
    tiny_roberta(0).save_pretrained(target)
    tokenizer.save_pretrained(target)
    generator = torch.Generator().manual_seed(0)
    lines = [" ".join(WORDS[i] for i in torch.randint(0, 115, (9,), generator=generator).tolist()) for _ in range(60)]
    lines.append(" ".join(WORDS))  # more tokens than the model has positions for
    (tmp_path / "text.txt").write_text("\n".join(lines))
    return target


def command(folder, out, *more):
    """Return the command line for a budget of a fifth."""
    text = str(folder.parent / "text.txt")
    return ["compress", str(folder), "--budget", "4x", "--out", str(out), "--calibration", text, *more]


@pytest.mark.parametrize("steps", [0, 12])
def test_folder_is_within_the_budget_and_loads(folder, tmp_path, capsys, tiny_roberta, steps):
    out = tmp_path / "out"
    assert main(command(folder, out, "--steps", str(steps), "--sentences", "48")) == 0
    printed = capsys.readouterr().out
    assert ("distilled" in printed) == (steps > 0)
    size = (out / "model.safetensors").stat().st_size
    assert f"{size:,}" in printed
    dense = 4 * sum(parameter.numel() for parameter in tiny_roberta(0).parameters())
    assert 0.9 * dense / 4 < size <= dense / 4
    model = RobertaForSequenceClassification(RobertaConfig.from_pretrained(out)).eval()
    load_compressed_(model, out / "model.safetensors")
    assert len(pq_modules(model)) > 5
    tokenizer = AutoTokenizer.from_pretrained(out)
    texts = tuple((tmp_path / "text.txt").read_text().splitlines())
    data = encode(TextData("text", texts, (0,) * len(texts)), tokenizer, 16)
    original, compressed = predict_logits(tiny_roberta(0), data), predict_logits(model, data)
    agree = (original.argmax(1) == compressed.argmax(1)).float().mean()
    assert agree > 0.75
    assert read_header(out / "model.safetensors")["extra"]["architecture"]["hidden_size"] == 32
    with open(out / "pareto.csv", newline="") as file:
        curve = [(int(row["file_bytes"]), float(row["predicted_loss"])) for row in csv.DictReader(file)]
    assert sorted(curve) == curve == sorted(curve, key=lambda pair: -pair[1])
    assert (out / "pareto.png").stat().st_size > 5000
    assert not (out / "work").exists()
    method = (out / "README.md").read_text().partition("## Method\n\n")[2].partition("\n\n")[0]
    assert f"a budget of {dense // 4:,} bytes" in method
    assert ("12 steps of distillation" in method) == (steps > 0)
    assert "codewords x block size:" in method
    assert "the metric of the task was not measured" in method
    assert json.loads((out / "provenance.json").read_text())["config"]["budget"] == "4x"


def test_the_card_names_the_source(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = command(folder, out, "--sentences", "8")
    monkeypatch.setattr(sys, "argv", ["pg-ipq", *arguments])
    assert main(arguments) == 0
    card = (out / "README.md").read_text()
    weights = sha256_file(folder / "model.safetensors")
    lines = f"- model: `model`\n- SHA-256 of model.safetensors: `{weights}`\n- seed of the compression: 0\n"
    assert f"## Source\n\n{lines}\n## " in card
    assert str(tmp_path) not in card
    assert "base_model" not in card


def test_a_changed_configuration_is_refused(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(folder, out, "--sentences", "8")) == 0
    assert load_folder(out)
    config = json.loads((out / "config.json").read_text())
    assert config["num_attention_heads"] == 2
    (out / "config.json").write_text(json.dumps(config | {"num_attention_heads": 4}))
    assert main(["export-onnx", str(out), str(tmp_path / "model.onnx")]) == 2
    error = capsys.readouterr().err
    assert "key `num_attention_heads` of its configuration must be 2, as when the file was saved, but was 4" in error


def test_unfinished_work_with_other_settings_is_refused(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:

        def stop(*_, **__):
            raise KeyboardInterrupt

        patch.setattr("compression.experiments.compress.carry_out", stop)
        assert main(command(folder, out, "--sentences", "8")) == 130
    (unfinished,) = (path for path in (out / "work").iterdir() if path.name not in {".lock", "run.json"})
    assert {path.name for path in unfinished.iterdir()} == {"plan.json"}
    assert main(command(folder, out, "--sentences", "9")) == 2
    assert "`n_calibration`: 8 there, 9 now" in capsys.readouterr().err
    monkeypatch.setattr("compression.experiments.compress.plan", None)  # what was measured is read
    assert main(command(folder, out, "--sentences", "8")) == 0


def test_the_plan_of_another_budget_is_not_taken(folder, tmp_path, monkeypatch):
    """A run that is killed while its work is removed may leave a plan without the settings that it belongs to."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            main(command(folder, out, "--sentences", "8", "--budget", "3x"))
    (out / "work" / "run.json").unlink()
    assert main(command(folder, out, "--sentences", "8", "--budget", "4x")) == 0
    whole = tmp_path / "whole"
    assert main(command(folder, whole, "--sentences", "8", "--budget", "4x")) == 0
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_preset_is_evaluated_on_its_labels(folder, tmp_path, tiny_roberta, tiny_data, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = FinetunedModel(tiny_roberta(0), tokenizer, tiny_data, tiny_data, folder, {})
    monkeypatch.setattr("compression.experiments.compress.finetuned_minilm", lambda **_: found)
    out = tmp_path / "out"
    assert main(["compress", "minilm-rt", "--budget", "4x", "--out", str(out), "--sentences", "8"]) == 0
    card = (out / "README.md").read_text()
    assert f"- model: `minilm-rt`\n- SHA-256 of the fp32 weights: `{sha256_file(folder / 'model.safetensors')}`" in card
    right = 100 * evaluate(AutoModelForSequenceClassification.from_pretrained(out), tiny_data).accuracy
    row = next(line for line in card.splitlines() if line.startswith("| compressed"))
    assert row.endswith(f"| {format_cell(right)} |")
    assert "not measured" not in card


def test_bad_input_is_one_sentence_and_leaves_nothing(folder, tmp_path, capsys):
    out = tmp_path / "out"
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    for change, message in (
        (("--budget", "1kB"), "at least"),
        (("--budget", "six"), "`budget`"),
        (("--calibration", str(tmp_path / "none.txt")), "`calibration`"),
        (("--calibration", str(empty)), "`calibration`"),
    ):
        assert main([*command(folder, out), *change]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "`sizes`" not in error  # there is no such option
    assert main(["compress", str(tmp_path), *command(folder, out)[2:]]) == 2
    assert "minilm-rt" in capsys.readouterr().err
    assert not out.exists()


def test_a_tab_separates_the_sentences_of_a_pair(folder, tmp_path, capsys, monkeypatch):
    text, seen = tmp_path / "text.txt", []
    write_model(folder, "bert", head=True, num_labels=2)

    def measured(_, batches, *__):
        seen.append(batches)
        raise KeyboardInterrupt

    monkeypatch.setattr("compression.experiments.compress._planned", measured)
    text.write_text("the day\tgrim\n\nfine\t dull cruel \n")
    assert main(command(folder, tmp_path / "out")) == 130
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = [tokenizer(first, second) for first, second in (("the day", "grim"), ("fine", "dull cruel"))]
    ((batch,),) = seen
    for name in ("input_ids", "token_type_ids"):
        assert sorted(batch[name].tolist()) == sorted(pair[name] for pair in pairs)
    for lines, message in (("w1\tw2\n\nw3\n", "line 3 "), ("w1\nw3\tw1\n", "line 2 "), ("w1\tw2\tw3", "line 1 ")):
        text.write_text(lines)
        assert main(command(folder, tmp_path / "other")) == 2
        error = capsys.readouterr().err
        assert "`calibration` must hold one sentence in each line, or in each a pair" in error
        assert message in error


def test_a_model_without_a_head_is_refused(folder, tmp_path, capsys, tiny_roberta):
    """A head would be drawn at random: one that is not in the file, and one that the configuration claims."""
    out = tmp_path / "out"
    RobertaModel(tiny_roberta(0).config).save_pretrained(folder)
    assert main(command(folder, out)) == 2
    assert (
        "must be a fine-tuned sequence classifier, but its configuration names RobertaModel" in capsys.readouterr().err
    )
    tiny_roberta(0).config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["RobertaForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(config))
    assert main(command(folder, out)) == 2
    assert "lack 'classifier." in capsys.readouterr().err
    assert not out.exists()


def test_nothing_but_the_tables_is_printed(folder, tmp_path, capsys):
    assert main(command(folder, tmp_path / "out", "--sentences", "8")) == 0
    assert "Loading weights" not in capsys.readouterr().err


@pytest.mark.parametrize("model", ["no-such-model", "some/one"])
def test_a_name_is_looked_up_on_the_hub(folder, tmp_path, model, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["compress", model, *command(folder, tmp_path / "out")[2:]]) == 1
    assert f"The hub could not be reached for the model '{model}'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
def test_workers_of_parsl_write_the_file_of_one_process(folder, tmp_path, capsys):
    pytest.importorskip("parsl")
    files = []
    for number, more in enumerate(([], ["--workers", "2", "--executor", "parsl"])):
        out = tmp_path / str(number)
        assert main(command(folder, out, "--steps", "0", "--sentences", "16", *more)) == 0, capsys.readouterr().err
        files.append((out / "model.safetensors").read_bytes())
    assert files[0] == files[1]
