"""Blocks, packed codes, layers, rules and the compressed file."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune

from compression import (
    PQConfig,
    PQEmbedding,
    PQLinear,
    QuantNoiseCallback,
    add_quant_noise,
    ipq,
    load_compressed_,
    preset_rules,
    quantize_,
    save_compressed,
)
from compression.quantization.blocks import code_bits, code_dtype, pack_codes, to_blocks, unpack_codes
from compression.quantization.calibration import activation_weights
from compression.quantization.layers import gather_codewords, pq_modules
from compression.quantization.rules import Rule, match_rules
from compression.quantization.storage import CompressedFileError, dense_bytes, read_header, round_, size_report


class Net(nn.Module):
    """A small module with what an encoder has: an embedding with padding, linear layers, a norm, a head."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Embedding(50, 16, padding_idx=1)
        self.layer = nn.ModuleDict({"up": nn.Linear(16, 32), "down": nn.Linear(32, 16, bias=False)})
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)

    def forward(self, ids):
        x = self.embed(ids)
        return self.head(self.norm(x + self.layer["down"](torch.relu(self.layer["up"](x)))).mean(1))


RULES = {
    r"embed": PQConfig(n_centroids=12, block_size=4),
    r"layer\.(up|down)": PQConfig(n_centroids=32, block_size=2),
}
IDS = torch.arange(40).reshape(4, 10)


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(0, 16), count=st.integers(0, 300), seed=st.integers(0, 2**32 - 1))
def test_packing_round_trip_and_size(bits, count, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, count)
    packed = pack_codes(codes, bits)
    assert packed.dtype == np.uint8
    assert len(packed) == -(-count * bits // 8)
    assert np.array_equal(unpack_codes(packed, bits, count), codes)


def test_packing_across_chunks():
    codes = np.random.default_rng(0).integers(0, 2**5, 200_003)
    assert np.array_equal(unpack_codes(pack_codes(codes, 5), 5, len(codes)), codes)


def test_packed_bits_by_hand():
    assert pack_codes(np.array([1, 2, 3, 0]), 2).tolist() == [0b01101100]
    assert [code_bits(k) for k in (1, 2, 3, 16, 17, 256, 65_536)] == [0, 1, 2, 4, 5, 8, 16]
    assert [code_dtype(k) for k in (256, 257, 65_536)] == [torch.uint8, torch.int16, torch.int32]
    with pytest.raises(ValueError, match=r"5 bytes for 10 codes of 4 bits"):
        unpack_codes(np.zeros(4, np.uint8), 4, 10)


def test_blocks_are_consecutive_features_row_by_row():
    weight = torch.arange(12.0).reshape(2, 6)
    assert to_blocks(weight, 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    with pytest.raises(ValueError, match=r"`block_size` must divide the 6 .* was 4; near divisors are 2, 3, 6"):
        to_blocks(weight, 4)


def test_linear_equals_the_dense_layer_it_decodes_to():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 7, (5, 3), generator=generator)
    layer = PQLinear(torch.randn(7, 4, generator=generator), codes, torch.randn(5, generator=generator))
    dense = nn.Linear(12, 5)
    with torch.no_grad():
        dense.weight.copy_(torch.cat([layer.centroids[codes[:, j]] for j in range(3)], dim=1))
        dense.bias.copy_(layer.bias)
    x = torch.randn(2, 9, 12, generator=generator)
    assert torch.equal(layer(x), dense(x))
    assert layer.codes.dtype == torch.uint8
    assert (layer.in_features, layer.out_features) == (12, 5)


def test_gradient_of_a_codeword_is_the_mean_over_its_uses():
    centroids = torch.zeros(3, 2, requires_grad=True)
    codes = torch.tensor([[0, 0], [0, 2]])
    gradient = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    gather_codewords(centroids, codes).backward(gradient)
    assert centroids.grad.tolist() == [[3.0, 4.0], [0.0, 0.0], [7.0, 8.0]]


@pytest.mark.parametrize(("k", "d"), [(256, 8), (300, 3), (5, 1), (33_000, 2)])
def test_compiled_gather_is_that_of_torch_in_both_directions(k, d):
    generator = torch.Generator().manual_seed(k)
    codes = torch.randint(k // 2, (7, 400), generator=generator).to(code_dtype(k))
    upstream = torch.randn(7, 400, d, generator=generator)
    found = []
    for dtype in (torch.float32, torch.float64):  # only single precision is compiled
        centroids = torch.randn(k, d, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_(True)
        rows = gather_codewords(centroids, codes)
        rows.backward(upstream.to(dtype))
        found.append((rows.detach(), centroids.grad))
    assert torch.equal(found[0][0], found[1][0].float())
    assert found[0][1].numpy() == pytest.approx(found[1][1].numpy(), rel=1e-6, abs=1e-7)


def test_embedding_gathers_rows_and_padding_gives_no_gradient():
    generator = torch.Generator().manual_seed(0)
    codes = torch.tensor([[0, 1], [2, 2], [1, 0]])
    layer = PQEmbedding(torch.randn(3, 2, generator=generator), codes, padding_idx=-2)
    ids = torch.tensor([[0, 1], [1, 2]])
    assert torch.equal(layer(ids), layer.weight[ids])
    layer(ids).sum().backward()
    assert layer.padding_idx == 1
    assert torch.equal(layer.centroids.grad[2], torch.zeros(2))
    assert torch.equal(layer.centroids.grad[:2], torch.ones(2, 2))


@pytest.mark.parametrize(
    ("centroids", "codes", "message"),
    [
        (torch.zeros(3), torch.zeros(2, 2, dtype=torch.long), "`centroids`"),
        (torch.zeros(3, 2), torch.zeros(2, 2), "`codes`"),
        (torch.zeros(3, 2), torch.full((2, 2), 3), r"0\.\.2"),
        (torch.zeros(3, 2), torch.full((2, 2), -1), r"0\.\.2"),
    ],
)
def test_bad_layers(centroids, codes, message):
    with pytest.raises(ValueError, match=message):
        PQLinear(centroids, codes)


def test_padding_does_not_thin_the_gradient_of_a_codeword():
    layer = PQEmbedding(torch.randn(2, 4), torch.zeros(5, 3, dtype=torch.int64), padding_idx=0)
    found = []
    for ids in ([[1, 2]], [[1, 2, 0, 0, 0, 0]]):
        layer.centroids.grad = None
        rows = layer(torch.tensor(ids))
        rows.sum().backward()
        found.append(layer.centroids.grad.clone())
        assert torch.equal(rows.detach(), layer.weight.detach()[torch.tensor(ids)])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], torch.tensor([[1.0] * 4, [0.0] * 4]))
    only_padding = layer(torch.tensor([0, 0]))
    assert not only_padding.requires_grad or torch.autograd.grad(only_padding.sum(), layer.centroids)[0].eq(0).all()


def test_quantize_replaces_what_matches_and_reports_it():
    net = Net()
    dense = copy.deepcopy(net)
    reports = quantize_(net, RULES)
    assert set(pq_modules(net)) == {"embed", "layer.up", "layer.down"} == {report.name for report in reports}
    assert isinstance(net.head, nn.Linear)
    assert net.embed.padding_idx == 1
    for report in reports:
        error = (net.get_submodule(report.name).weight - dense.get_submodule(report.name).weight).square().sum()
        norm = dense.get_submodule(report.name).weight.square().sum()
        assert report.relative_error == pytest.approx((error / norm).item(), rel=1e-4)
        assert 0 < report.relative_error < 0.5
        assert sum(row.left for row in report.history) == 0
    half = net.layer["up"].centroids
    assert torch.equal(half, half.half().float())


def test_enough_codewords_reproduce_the_rounded_weight():
    net, reference = Net(), Net()
    quantize_(net, {"layer.up": PQConfig(n_centroids=512, block_size=2, codebook_dtype="float32")})
    assert torch.equal(net.layer["up"].weight, reference.layer["up"].weight)


def test_fewer_distinct_blocks_than_codewords():
    net = Net()
    with torch.no_grad():
        net.layer["up"].weight.fill_(0.25)
    (report,) = quantize_(net, {"layer.up": PQConfig(n_centroids=16, block_size=2)})
    assert (report.n_requested, report.n_centroids, report.relative_error) == (16, 1, 0.0)


def test_stages_and_rules_that_match_nothing():
    rules = [Rule(pattern=pattern, config=config, stage=pattern[0]) for pattern, config in RULES.items()]
    net = Net()
    assert [name for name, _ in match_rules(net, rules, stage="e")] == ["embed"]
    with pytest.raises(ValueError, match=r"'layer\.upp' matches no .* near names are 'layer\.up'"):
        quantize_(net, {"layer.upp": PQConfig()})
    with pytest.raises(ValueError, match=r"`stage`.*'e', 'l'"):
        quantize_(net, rules, stage="x")
    with pytest.raises(ValueError, match=r"layer 'layer\.up'.*was 3; near divisors are 1, 2, 4"):
        quantize_(net, {"layer.up": PQConfig(block_size=3)})
    assert not pq_modules(net)


def test_the_first_rule_that_matches_counts_in_every_stage():
    up = PQConfig(n_centroids=16, block_size=2)
    rules = [
        Rule(pattern=r"layer\.up", config=up, stage="late"),
        Rule(pattern=r"layer\..*", config=PQConfig(n_centroids=8, block_size=8), stage="early"),
    ]
    nets = [Net(), Net()]
    quantize_(nets[0], rules)
    early, late = (quantize_(nets[1], rules, stage=stage) for stage in ("early", "late"))
    assert [[report.name for report in reports] for reports in (early, late)] == [["layer.down"], ["layer.up"]]
    for net in nets:
        assert [module.block_size for module in pq_modules(net).values()] == [2, 8]
    with pytest.raises(ValueError, match=r"layer.*up' matches no .* that the rules before it leave"):
        quantize_(Net(), rules[::-1], stage="late")


def test_preset_rules_name_the_stages():
    rules = preset_rules("roberta", block_size={"ffn": 8, "embeddings": 4, "attention": 4, "head": 8}, n_centroids=64)
    assert [rule.stage for rule in rules] == ["ffn", "embeddings", "attention", "head"]
    assert [rule.config.block_size for rule in rules] == [8, 4, 4, 8]
    with pytest.raises(ValueError, match=r"`family`.*'mpnet'"):
        preset_rules("gpt")
    with pytest.raises(ValueError, match=r"`stages`.*'attn'"):
        preset_rules("bert", stages=["attn"])


@pytest.mark.parametrize("remainder", [torch.float16, torch.float32])
def test_file_round_trip_is_bit_identical_and_as_small_as_reported(tmp_path, remainder):
    net = Net()
    quantize_(net, RULES)
    round_(net, remainder=remainder)
    size = save_compressed(net, tmp_path / "net.safetensors", extra={"note": "a"})
    other = load_compressed_(Net(seed=9), tmp_path / "net.safetensors")
    assert torch.equal(net(IDS), other(IDS))
    for (name, one), two in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    header = json.dumps(read_header(tmp_path / "net.safetensors"))
    assert size == (tmp_path / "net.safetensors").stat().st_size
    assert size - 2 * len(header) - 1500 < size_report(net)["total"] < size
    assert read_header(tmp_path / "net.safetensors")["extra"] == {"note": "a"}


def test_sizes_by_hand():
    net = Net()
    dense = dense_bytes(net)
    assert dense == 4 * sum(parameter.numel() for parameter in net.parameters())
    quantize_(net, RULES)
    round_(net)
    assert dense_bytes(net) == dense
    size = size_report(net)
    assert size["codes"] == 50 * 4 * 4 // 8 + 32 * 8 * 5 // 8 + 16 * 16 * 5 // 8
    assert size["codebooks"] == 2 * (12 * 4 + 32 * 2 + 32 * 2)
    assert size["remainder"] == 2 * (32 + 16 + 16 + 2 * 16 + 2)


def test_bad_files(tmp_path):
    net = Net()
    quantize_(net, RULES)
    path = tmp_path / "net.safetensors"
    save_compressed(net, path)
    data = path.read_bytes()
    (tmp_path / "short").write_bytes(data[:-100])
    (tmp_path / "text").write_bytes(b"no safetensors at all")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    for name, message in [
        ("short", "truncated"),
        ("text", "truncated"),
        ("foreign", "holds no"),
        ("none", "not exist"),
    ]:
        before = copy.deepcopy(net.state_dict())
        with pytest.raises(CompressedFileError, match=message):
            load_compressed_(net, tmp_path / name)
        assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())
    small = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(CompressedFileError, match="does not fit the model"):
        load_compressed_(small, path)
    wide = Net()
    wide.layer["up"] = nn.Linear(16, 64)
    with pytest.raises(CompressedFileError, match=r"'layer\.up' is"):
        load_compressed_(wide, path)
    assert isinstance(wide.layer["up"], nn.Linear)


def test_saving_over_a_file_that_cannot_be_written_keeps_it(tmp_path, monkeypatch):
    net = Net()
    path = tmp_path / "net.safetensors"
    save_compressed(net, path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("compression.quantization.files.save_file", fail)
    with pytest.raises(OSError, match="No space"):
        save_compressed(net, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.safetensors"]


def test_same_seed_same_codes():
    one, two, other = Net(), Net(), Net()
    baseline = {pattern: config.as_baseline() for pattern, config in RULES.items()}
    quantize_(one, baseline, seed=1)
    quantize_(two, baseline, seed=1)
    quantize_(other, baseline, seed=2)
    assert torch.equal(one(IDS), two(IDS))
    assert not torch.equal(one(IDS), other(IDS))


def test_the_error_of_a_half_precision_layer_is_a_number():
    """The squares of its weights add up to more than float16 holds."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5000, 64)).to(torch.float16)
    (half,) = quantize_(copy.deepcopy(net), [Rule(pattern="0", config=PQConfig(n_centroids=16, block_size=4))])
    (single,) = quantize_(net.float(), [Rule(pattern="0", config=PQConfig(n_centroids=16, block_size=4))])
    assert half.relative_error == pytest.approx(single.relative_error, rel=1e-2)


def test_a_model_without_memory_is_not_loaded_into(tmp_path):
    net = Net()
    quantize_(net, [Rule(pattern=pattern, config=config) for pattern, config in RULES.items()])
    save_compressed(net, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="must have its weights in memory, but has some on the `meta` device"):
        load_compressed_(Net().to("meta"), tmp_path / "model.safetensors")


def test_weights_of_the_clustering_must_fit(tiny_roberta):
    rules = preset_rules("roberta", n_centroids=8)
    name = "roberta.encoder.layer.0.intermediate.dense"
    shape = tiny_roberta(0).get_parameter(f"{name}.weight").shape
    with pytest.raises(ValueError, match=rf"`sample_weights` must have the shape .* for layer '{name}'"):
        quantize_(tiny_roberta(0), rules, sample_weights={name: torch.ones(shape).T})
    with pytest.raises(ValueError, match=r"`sample_weights` must hold names of layers .* has 'robert.encoder'"):
        quantize_(tiny_roberta(0), rules, sample_weights={"robert.encoder": torch.ones(3)})
    with pytest.raises(ValueError, match=f"must be positive and finite, but is not for layer '{name}'"):
        quantize_(tiny_roberta(0), rules, sample_weights={name: torch.zeros(shape)})
    broken = tiny_roberta(0)
    broken.get_parameter(f"{name}.weight").data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=f"weight of layer '{name}' must be finite, but holds NaN"):
        quantize_(broken, rules)


@pytest.mark.parametrize(
    ("rules", "error", "words"),
    [
        ([], ValueError, "at least one rule, but is empty"),
        ({}, ValueError, "at least one rule, but is empty"),
        ([3], TypeError, "holds a int"),
        (Rule(pattern=".*", config=PQConfig()), TypeError, "was a Rule"),
        (None, TypeError, "was a NoneType"),
    ],
)
def test_rules_must_be_rules(rules, error, words):
    for use in (
        lambda: quantize_(Net(), rules),
        lambda: add_quant_noise(Net(), rules),
        lambda: QuantNoiseCallback(rules),
        lambda: ipq(Net(), rules, train_data=[torch.zeros(1)], teacher=Net()),
    ):
        with pytest.raises(error, match=f"`rules` must .*{words}"):
            use()
    with pytest.raises(TypeError, match="`config` must be a NoiseConfig or None, but was a str"):
        QuantNoiseCallback({".*": PQConfig()}, "pq")
    with pytest.raises(TypeError, match="`config` must be an IPQConfig or None, but was a str"):
        ipq(Net(), {".*": PQConfig()}, train_data=[torch.zeros(1)], teacher=Net(), config="x")


def test_what_is_written_is_checked_first(tmp_path):
    for path, options, words in (
        (tmp_path, {}, "`path` must name a file, but .* is a folder"),
        (tmp_path / "x", {"extra": 3}, "`extra` must be a dict or None, but was a int"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            save_compressed(Net(), path, **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`checkpoints` must name a folder"):
        ipq(Net(), RULES, train_data=[], teacher=Net(), checkpoints=tmp_path / "file")


def test_weights_that_are_computed_from_others_are_refused():
    pruned = nn.Sequential(nn.Linear(16, 16))
    prune.l1_unstructured(pruned[0], "weight", 0.5)
    normed = nn.Sequential(parametrizations.weight_norm(nn.Linear(16, 16)))
    for model in (pruned, normed):
        with pytest.raises(ValueError, match="its weight is computed from other tensors"):
            quantize_(model, {"0": PQConfig(n_centroids=4)})
    prune.remove(pruned[0], "weight")
    quantize_(pruned, {"0": PQConfig(n_centroids=4)})


def test_a_convolution_of_ones_own_is_refused():
    class Standardised(nn.Conv2d):
        def _conv_forward(self, x, weight, bias):
            return super()._conv_forward(x, weight - weight.mean(), bias)

    with pytest.raises(ValueError, match="Standardised has a `forward` of its own"):
        quantize_(nn.Sequential(Standardised(4, 4, 3)), {"0": PQConfig(n_centroids=4, block_size=9)})


def test_frozen_biases_stay_frozen():
    model = nn.Sequential(nn.Linear(16, 16), nn.Conv2d(4, 4, 2), nn.Linear(16, 16))
    model[:2].requires_grad_(False)
    quantize_(model, {r"\d": PQConfig(n_centroids=4, block_size=4)})
    assert [layer.bias.requires_grad for layer in model] == [False, False, True]


def test_hooks_of_a_layer_are_kept_and_can_be_removed():
    model, seen = nn.Sequential(nn.Linear(32, 32)), []
    handle = model[0].register_forward_hook(lambda *_: seen.append(1))
    quantize_(model, {"0": PQConfig(n_centroids=8)})
    model(torch.ones(1, 32))
    handle.remove()
    model(torch.ones(1, 32))
    assert seen == [1]


def test_layers_called_by_keyword_are_calibrated_and_quantized():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.hidden, self.out = nn.Embedding(64, 32), nn.Linear(32, 32), nn.Linear(32, 4)

        def forward(self, ids):
            return self.out(input=self.hidden(input=self.table(input=ids)))

    model, ids = ByName(), torch.arange(64)[None]
    weights = activation_weights(model, [ids])
    assert weights.keys() == {"table", "hidden", "out"}
    quantize_(model, {"table|hidden|out": PQConfig(n_centroids=8)}, sample_weights=weights)
    assert model(ids).shape == (1, 64, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize_(nn.Linear(32, 32), {".*": PQConfig(n_centroids=8)}), "`model` must hold the layers"),
        (lambda: preset_rules("roberta", block_size={"ffn": 8}), "`block_size` must have a value for each stage"),
        (lambda: preset_rules("roberta", n_centroids=256.5), "n_centroids"),
        (lambda: round_(nn.Sequential(), codebooks="int4"), "`codebooks` must be None or one of"),
    ],
)
def test_what_cannot_be_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
