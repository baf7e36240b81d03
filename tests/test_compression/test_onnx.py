"""ONNX files: as small as ours, the same outputs in ONNX Runtime, rows of embeddings looked up before decoding."""

import copy
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from compression import PQConfig, PQEmbedding, PQLinear, preset_rules, quantize_
from compression.cli import main
from compression.quantization import onnx_export
from compression.quantization.activations import quantize_activations_
from compression.quantization.folder import load_folder, save_folder
from compression.quantization.layers import pq_modules
from compression.quantization.storage import file_bytes, round_, save_compressed
from compression.training.models import load_minilm_roberta

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIZES = {
    "vocab_size": 90,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
DISTIL = {"vocab_size": 90, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40}
FAMILIES = {
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES)),
    "xlm-roberta": lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**SIZES)),
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZES)),
    "mpnet": lambda: MPNetForSequenceClassification(MPNetConfig(**SIZES)),
    "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(**DISTIL)),
}


def make(family, **options):
    """Return a tiny classifier with all layers quantized, at the values that are stored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = FAMILIES[family]().eval()
    quantize_(model, preset_rules(family, block_size=4, n_centroids=24, base=PQConfig(**options)))
    round_(model)
    return model


def run(path, inputs):
    """Return the first output of a file in ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_the_same_and_is_small(family, tmp_path):
    model = make(family, codebook_dtype="int8" if family == "bert" else "float16")
    names = ["input_ids", "attention_mask", "token_type_ids"][: 3 if family == "bert" else 2]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = onnx_export.export_onnx(model, tmp_path / "model.onnx", inputs=names)
    assert report.difference < 1e-5
    assert report.bytes == report.path.stat().st_size
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    graph = onnx.load(report.path).graph
    assert [value.name for value in graph.input] == list(report.inputs) == names
    stored = {tensor.name: len(tensor.raw_data) for tensor in graph.initializer}
    # What is stored for layers and weights is what our own file holds, the rows of codes in groups of eight.
    assert sum(size for name, size in stored.items() if "position_ids" not in name and "token_type_ids" not in name) < (
        1.15 * file_bytes(model)
    )
    for name, layer in pq_modules(model).items():
        users = [node.op_type for node in graph.node if f"{name}.decoder.packed" in node.input]
        assert users == ["Gather" if isinstance(layer, PQEmbedding) else "Cast"], name
    for shape in ((1, 1), (5, 11), (2, 38)):
        ids = torch.randint(3, 90, shape, generator=torch.Generator().manual_seed(1))
        mask = torch.ones_like(ids)
        mask[-1, 1 + shape[1] // 2 :] = 0
        values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids % 2}
        inputs = {name: values[name] for name in names}
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
        assert np.allclose(run(report.path, inputs), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 200, 257, 3000, 40_000])
def test_codes_of_any_width(k, tmp_path):
    generator = torch.Generator().manual_seed(k)
    codes = torch.randint(0, k, (7, 5), generator=generator)
    codes[0] = k - 1
    net = nn.Sequential(
        PQEmbedding(torch.randn(k, 2, generator=generator), codes),
        PQLinear(torch.randn(k, 2, generator=generator), codes, torch.randn(7, generator=generator)),
    )
    ids = torch.tensor([[0, 6, 3], [2, 2, 1]])
    report = onnx_export.export_onnx(net, tmp_path / "net.onnx", inputs={"input": ids})
    assert report.difference < 1e-6
    with torch.no_grad():
        assert np.allclose(run(report.path, {"input": ids[1:]}), net(ids[1:]).numpy(), rtol=1e-5, atol=1e-6)


def test_convolutions_and_rounded_inputs(tmp_path):
    net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    quantize_(net, {"0": PQConfig(n_centroids=16, block_size=9), "3": PQConfig(n_centroids=16, codebook_dtype="int8")})
    round_(net)
    x = torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    quantize_activations_(net, [x])
    report = onnx_export.export_onnx(net, tmp_path / "net.onnx", inputs={"input": x[:2]})
    assert report.difference < 1e-5
    with torch.no_grad():
        assert np.allclose(run(report.path, {"input": x}), net(x).numpy(), rtol=1e-4, atol=1e-5)


class Pooled(nn.Module):
    """A model without a configuration: embeddings with positions, averaged where a mask says so, or side by side."""

    def __init__(self, fixed):
        super().__init__()
        self.fixed = fixed
        self.embed, self.places, self.head = nn.Embedding(50, 8), nn.Embedding(7, 8), nn.Linear(56 if fixed else 8, 3)

    def forward(self, ids, mask, shift):
        x = self.embed(ids) + self.places(torch.arange(ids.shape[1]))
        x = x * mask.unsqueeze(-1)
        return self.head(x.flatten(1) if self.fixed else x.sum(1)) + shift


@pytest.mark.parametrize("fixed", [True, False])
def test_a_model_without_a_configuration_takes_any_number_of_tokens(fixed, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = Pooled(fixed)
    quantize_(net, {"embed": PQConfig(n_centroids=16, block_size=4)})
    seen = []
    monkeypatch.setattr(onnx_export, "logits_of", lambda model, given: seen.append(given) or model(**given).float())

    def inputs(n, length):
        ids = torch.randint(0, 50, (n, length), generator=generator)
        return {"ids": ids, "mask": ids % 3, "shift": torch.randn(n, 3, generator=generator)}

    report = onnx_export.export_onnx(net, tmp_path / "net.onnx", inputs=inputs(2, 7))
    assert [tuple(given["ids"].shape) for given in seen] == [(2, 7), (3, 7 if fixed else 6)]
    assert report.difference < 1e-6
    for shape in ((1, 7), (4, 7)) if fixed else ((1, 1), (4, 3), (5, 7)):
        given = inputs(*shape)
        with torch.no_grad():
            assert np.allclose(run(report.path, given), net(**given).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_command(tmp_path, capsys):
    model = make("roberta")
    save_folder(model, tmp_path / "compressed")
    loaded, names = load_folder(tmp_path / "compressed")
    assert names == ("input_ids", "attention_mask")
    assert pq_modules(loaded).keys() == pq_modules(model).keys()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["export-onnx", str(tmp_path / "compressed"), str(tmp_path / "model.onnx")]) == 0
    printed = capsys.readouterr()
    assert f"{(tmp_path / 'model.onnx').stat().st_size:,} bytes" in printed.out
    assert "torch.onnx" not in printed.out + printed.err
    (tmp_path / "plain").mkdir()
    for folder in ("plain", "nowhere"):
        assert main(["export-onnx", str(tmp_path / folder), str(tmp_path / "x.onnx")]) == 2
        assert "must hold a compressed model with its config.json" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()


def test_bad_input(tmp_path, monkeypatch):
    net = nn.Sequential(PQLinear(torch.ones(2, 2), torch.zeros(3, 1, dtype=torch.uint8)))
    with pytest.raises(ValueError, match="`model` must have product-quantized layers"):
        onnx_export.export_onnx(nn.Sequential(nn.Linear(2, 2)), tmp_path / "x.onnx")
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        with pytest.raises(ValueError, match=rf"`model` must compute in float32, but layer '0' is {dtype}"):
            onnx_export.export_onnx(
                copy.deepcopy(net).to(dtype), tmp_path / "x.onnx", inputs={"input": torch.ones(2, 2)}
            )
    with pytest.raises(ValueError, match="`inputs` must hold example tensors"):
        onnx_export.export_onnx(net, tmp_path / "x.onnx")
    with pytest.raises(ValueError, match=r"`inputs` must hold tensors .* \(input\), but 'x' is none"):
        onnx_export.export_onnx(net, tmp_path / "x.onnx", inputs={"x": torch.ones(2, 2)})
    with pytest.raises(ValueError, match=r"`inputs` must hold tensors of at least 2 rows"):
        onnx_export.export_onnx(net, tmp_path / "x.onnx", inputs={"input": torch.ones(1, 2)})
    with pytest.raises(ValueError, match="`inputs` must hold 'input_ids'"):
        onnx_export.export_onnx(make("distilbert"), tmp_path / "x.onnx", inputs=["input_ids", "token_type_ids"])
    with pytest.raises(ValueError, match="`path` must name a file"):
        onnx_export.export_onnx(net, tmp_path, inputs={"input": torch.ones(2, 2)})
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1)
    with pytest.raises(onnx_export.OnnxExportError, match=r"differ from the model's .* not written"):
        onnx_export.export_onnx(net, tmp_path / "x.onnx", inputs={"input": torch.ones(2, 2)})
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'molecular-compression\[onnx\]'"):
        onnx_export.export_onnx(net, tmp_path / "x.onnx", inputs={"input": torch.ones(2, 2)})


@pytest.mark.slow
@pytest.mark.data
def test_minilm(real_data, tmp_path):
    model = load_minilm_roberta()
    quantize_(model, preset_rules("roberta", block_size=8, base=PQConfig(max_iter=1)))
    round_(model)
    size = save_compressed(model, tmp_path / "model.safetensors")
    report = onnx_export.export_onnx(model, tmp_path / "model.onnx")
    assert report.bytes < 1.03 * size
    assert report.difference < 1e-5
