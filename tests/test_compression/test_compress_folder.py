"""``pg-ipq compress``: a folder of transformers becomes a small one, end to end on a tiny model."""

import csv
import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

from compression.cli import main
from compression.quantization.layers import pq_modules
from compression.quantization.storage import load_compressed_, read_header
from compression.training.batches import encode
from compression.training.data import TextData
from compression.training.evaluate import predict_logits

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
    assert json.loads((out / "provenance.json").read_text())["config"]["budget"] == "4x"


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
        assert message in capsys.readouterr().err
    assert main(["compress", str(tmp_path), *command(folder, out)[2:]]) == 2
    assert "minilm-rt" in capsys.readouterr().err
    assert not out.exists()


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
