"""Weights that several layers have in common, and layers that compute something else than those of PyTorch."""

import pytest
import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers import (
    AutoModelForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from compression import PQConfig, add_quant_noise, compress, load_compressed_, preset_rules, quantize_, save_compressed
from compression.quantization.files import CompressedFileError, read_tensors
from compression.quantization.folder import save_folder
from compression.quantization.layers import pq_modules
from compression.quantization.rules import Rule
from compression.quantization.storage import dense_bytes, file_bytes, round_
from compression.training.ipq import IPQConfig, check_stages

IDS = torch.randint(3, 200, (4, 12), generator=torch.Generator().manual_seed(0))
MODELS = {
    "roberta": lambda: RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=200,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=40,
        )
    ),
    "distilbert": lambda: DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=200, dim=32, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=40)
    ),
}


class Tied(nn.Module):
    """An embedding whose table is the output projection, and a layer that has two names."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.table = nn.Embedding(256, 32)
            self.inner = self.again = nn.Linear(32, 32)
            self.other = nn.Linear(32, 32)
            self.out = nn.Linear(32, 256, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids):
        return self.out(self.other(self.again(self.inner(self.table(ids)))))


@pytest.mark.parametrize("pattern", ["table", "out", "inner", "table|out|other"])
def test_a_rule_on_a_shared_weight_is_refused(pattern):
    model = Tied()
    owner, others = ("inner", "'again.weight'") if pattern == "inner" else ("table", "'out.weight'")
    if pattern == "out":
        owner, others = "out", "'table.weight'"
    rules = {pattern: PQConfig(block_size=4, n_centroids=16)}
    with pytest.raises(ValueError, match=f"must not match layer '{owner}'.*because it shares its weight with {others}"):
        quantize_(model, rules)
    assert not pq_modules(model)
    assert model.out.weight is model.table.weight


def test_an_embedding_that_shortens_its_rows_is_refused():
    model = nn.Sequential(nn.Embedding(100, 16, max_norm=0.5), nn.Linear(16, 64))
    with pytest.raises(ValueError, match=r"must not match layer '0'.*`max_norm` 0\.5"):
        quantize_(model, {".*": PQConfig(block_size=4, n_centroids=16)})
    result = compress(model, "1.9x", calibration=[IDS % 100], sizes=((4, 16),))
    assert pq_modules(result.model).keys() <= {"1"}


class Doubled(nn.Linear):
    """A linear layer that doubles its output."""

    def forward(self, x):
        return 2 * super().forward(x)


class Centred(nn.Conv2d):
    """A convolution of centred filters."""

    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


@pytest.mark.parametrize(
    "layer", [Doubled(16, 16), Centred(16, 16, 1), Gemma3TextScaledWordEmbedding(100, 16, 0, embed_scale=4.0)]
)
def test_a_class_that_computes_in_its_own_way_is_refused(layer):
    model = nn.ModuleDict({"own": layer, "plain": NonDynamicallyQuantizableLinear(16, 16)})
    reason = f"must not match layer 'own'.* its class {type(layer).__name__} has a `forward` of its own"
    everything = [Rule(pattern=".*", config=PQConfig(block_size=4, n_centroids=8))]
    for act in (quantize_, add_quant_noise, lambda *them: check_stages(*them, IPQConfig(stages=("all",)))):
        with pytest.raises(ValueError, match=reason):
            act(model, everything)
    assert model["own"] is layer
    quantize_(model, {"plain": everything[0].config})
    assert pq_modules(model).keys() == {"plain"}


def test_compress_leaves_such_a_class_as_it_is():
    model = nn.Sequential(Gemma3TextScaledWordEmbedding(100, 16, 0, embed_scale=4.0), Doubled(16, 64))
    model.append(nn.Linear(64, 64))
    result = compress(model, "1.9x", calibration=[IDS % 100], sizes=((4, 16),))
    assert pq_modules(result.model).keys() == {"2"}
    assert torch.allclose(result.model[:2](IDS % 100), model[:2](IDS % 100), atol=1e-2)


def test_a_shared_weight_counts_once_and_is_stored_once(tmp_path):
    model = Tied()
    assert dense_bytes(model) == 4 * sum(parameter.numel() for parameter in model.parameters())
    quantize_(model, {"other": PQConfig(block_size=4, n_centroids=16)})
    assert dense_bytes(model) == dense_bytes(Tied())
    round_(model)
    path = tmp_path / "model.safetensors"
    assert save_compressed(model, path) == file_bytes(model) < 0.51 * dense_bytes(model)
    assert {"table.weight", "out.weight"} & read_tensors(path)[1].keys() == {"table.weight"}
    loaded = load_compressed_(Tied(1), path)
    assert loaded.out.weight is loaded.table.weight
    assert torch.equal(loaded(IDS), model(IDS))
    apart = Tied(1)
    apart.out.weight = nn.Parameter(apart.out.weight.detach().clone())
    save_compressed(apart, path)
    apart = load_compressed_(apart, path)
    load_compressed_(Tied(2), path)
    with torch.no_grad():
        apart.out.weight.zero_()
    save_compressed(apart, path)
    with pytest.raises(CompressedFileError, match=r"'out\.weight' differs from 'table\.weight', to which it is tied"):
        load_compressed_(Tied(), path)


def test_compress_leaves_shared_weights_as_they_are():
    result = compress(Tied(), "2.05x", calibration=[IDS], sizes=((4, 16), (4, 8)))
    assert pq_modules(result.model).keys() == {"other"}
    assert result.model.out.weight is result.model.table.weight
    assert result.file_bytes <= result.budget_bytes == int(dense_bytes(Tied()) / 2.05)


@pytest.mark.parametrize("family", MODELS)
def test_a_masked_language_model_is_loaded_with_its_tied_table(family, tmp_path):
    model = MODELS[family]().eval()
    model.save_pretrained(tmp_path / "dense")
    size = (tmp_path / "dense" / "model.safetensors").stat().st_size
    assert size - 20_000 < dense_bytes(model) < size
    everything = preset_rules(family, block_size=8, n_centroids=16, stages=("ffn", "embeddings", "attention"))
    with pytest.raises(ValueError, match=r"embeddings\.word_embeddings'.*shares its weight with"):
        quantize_(model, everything)
    with pytest.raises(ValueError, match=r"embeddings\.word_embeddings'.*shares its weight with"):
        check_stages(model, everything, IPQConfig())
    quantize_(model, preset_rules(family, block_size=8, n_centroids=16, stages=("ffn", "attention")))
    round_(model)
    save_folder(model, tmp_path / "folder")
    model.save_pretrained(tmp_path / "saved")
    for name in ("folder", "saved"):
        loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / name)
        assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
        with torch.no_grad():
            assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_codes_where_the_model_ties_are_refused(tmp_path):
    model = RobertaForSequenceClassification(MODELS["roberta"]().config)
    quantize_(model, preset_rules("roberta", block_size=8, n_centroids=16))
    model.save_pretrained(tmp_path)
    with pytest.raises(CompressedFileError, match=r"word_embeddings\.weight' as codes, but the model shares"):
        AutoModelForMaskedLM.from_pretrained(tmp_path)
