"""Inputs of layers in 8 bits: grids, calibration, integers against their simulation, and the file."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForSequenceClassification

from compression import PQConfig, PQLinear, preset_rules, quantize_
from compression.quantization import compiled_decode, integers
from compression.quantization.activations import ActivationGrid, quantize_activations_
from compression.quantization.blocks import round_codebook
from compression.quantization.calibration import all_logits
from compression.quantization.files import CompressedFileError, write_tensors
from compression.quantization.folder import save_folder
from compression.quantization.integers import linear_in_integers
from compression.quantization.layers import pq_modules
from compression.quantization.storage import load_compressed_, packed_state, round_, save_compressed


@pytest.fixture(scope="module")
def batches(tiny_data):
    """Return calibration batches of the tiny data, with padding."""
    return [tiny_data.batch(range(start, start + 16)) for start in (0, 16, 32)]


def quantized(tiny_roberta, codebook_dtype="int8"):
    """Return a tiny classifier with all its layers quantized, at the values that are stored."""
    model = tiny_roberta(0)
    base = PQConfig(codebook_dtype=codebook_dtype)
    quantize_(model, preset_rules("roberta", block_size=4, n_centroids=32, base=base))
    round_(model)
    return model


spans = st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)).map(sorted)


@settings(max_examples=200, deadline=None)
@given(span=spans, seed=st.integers(0, 2**32 - 1))
def test_grid_holds_zero_spans_what_it_should_and_rounds_to_the_nearest(span, seed):
    low, high = span
    grid = ActivationGrid.spanning(low, high)
    assert grid.low <= min(low, 0) + 0.51 * grid.scale
    assert grid.high >= max(high, 0) - 0.51 * grid.scale
    x = torch.empty(50).uniform_(min(low, 0), max(high, 0), generator=torch.Generator().manual_seed(seed))
    rounded = grid.simulate(x)
    assert grid.simulate(torch.zeros(1)) == 0
    assert ((rounded - x).abs() <= 0.502 * grid.scale + 1e-5 * x.abs()).all()
    assert torch.equal(grid.simulate(rounded), rounded)
    numbers = grid.numbers(x)
    assert torch.equal(numbers, numbers.round())
    assert numbers.min() >= -128
    assert numbers.max() <= 127


def test_gradient_goes_straight_through_within_the_grid():
    grid = ActivationGrid.spanning(-1, 1)
    x = torch.tensor([-2.0, -0.5, 0.0, 0.7, 3.0], requires_grad=True)
    (grid.simulate(x) * torch.arange(1.0, 6)).sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 2, 3, 4, 0]))


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 6, 8, 13, 16, 24])
@pytest.mark.parametrize("k", [7, 256, 300])
@pytest.mark.parametrize(("n_tokens", "n_threads"), [(0, 1), (1, 3), (37, 7)])
def test_integers_give_what_their_simulation_gives(d, k, n_tokens, n_threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    monkeypatch.setattr(compiled_decode, "_SHARE", 10)
    generator = torch.Generator().manual_seed(d * k + n_tokens)
    centroids = round_codebook(torch.randn(k, d, generator=generator), "int8")
    layer = PQLinear(centroids, torch.randint(0, k, (33, 5), generator=generator), torch.randn(33, generator=generator))
    x = 3 * torch.randn(n_tokens, 5 * d, generator=generator)
    grid = ActivationGrid.spanning(-5, 9)
    with torch.no_grad():
        found = linear_in_integers(x, grid, layer.centroids, layer.codes, layer.bias)
        expected = grid.simulate(x).double() @ layer.weight.double().T + layer.bias.double()
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=2e-5)
        without = linear_in_integers(x[None], grid, layer.centroids, layer.codes, None)
        assert torch.allclose(without[0], found - layer.bias, rtol=1e-4, atol=1e-4)
        assert torch.equal(linear_in_integers(x, grid, layer.centroids, layer.codes.long(), layer.bias), found)
        assert linear_in_integers(x, grid, layer.centroids * 1.01 + 1e-3, layer.codes, None) is None


def test_integers_and_simulation_classify_alike(tiny_roberta, batches, monkeypatch):
    model = quantized(tiny_roberta)
    quantize_activations_(model, batches)
    calls, original = [], integers.linear_in_integers
    monkeypatch.setattr(integers, "linear_in_integers", lambda *a: calls.append(1) or original(*a))
    monkeypatch.setattr(integers, "multiplies_int8", lambda: True)
    real = torch.cat(all_logits(model, batches))
    assert calls
    monkeypatch.setattr(integers, "multiplies_int8", lambda: False)
    n_calls = len(calls)
    simulated = torch.cat(all_logits(model, batches))
    assert len(calls) == n_calls
    # A sum that differs in its last bit may round the input of the next layer to the next number.
    assert (real - simulated).abs().max() < 0.02 * simulated.std()
    with torch.enable_grad():
        assert model(**batches[0]).logits.requires_grad
    assert len(calls) == n_calls


def test_calibration_leaves_padding_out_and_sees_what_layers_are_given(tiny_roberta, batches):
    model = quantized(tiny_roberta)
    reference = torch.cat(all_logits(model, batches))
    inputs = {}

    def keep(name):
        return lambda module, arguments: inputs.setdefault(name, []).append(arguments[0].detach())

    layers = {name: module for name, module in pq_modules(model).items() if isinstance(module, PQLinear)}
    handles = [module.register_forward_pre_hook(keep(name)) for name, module in layers.items()]
    all_logits(model, batches)
    for handle in handles:
        handle.remove()
    reports = quantize_activations_(model, batches, method="range")
    assert [report.name for report in reports] == list(layers)
    masks = [batch["attention_mask"].bool() for batch in batches]
    assert not all(bool(mask.all()) for mask in masks)
    for report in reports:
        real = [x[mask] if x.ndim == 3 else x for x, mask in zip(inputs[report.name], masks, strict=True)]
        seen = torch.cat([x.reshape(-1, x.shape[-1]) for x in real])
        assert (report.low, report.high) == (float(seen.min()), float(seen.max()))
        grid = layers[report.name].activations
        assert (grid.scale, grid.zero_point) == (report.scale, report.zero_point)
        error = float((grid.simulate(seen) - seen).square().sum() / seen.square().sum())
        assert report.relative_error == pytest.approx(error, rel=0.05)
        assert error < 1e-3
    assert (torch.cat(all_logits(model, batches)) - reference).abs().max() < 0.2 * reference.std()
    for by_range, by_error in zip(reports, quantize_activations_(model, batches), strict=True):
        assert by_error.relative_error <= by_range.relative_error


def test_outliers_make_the_range_coarse_and_the_least_squares_grid_not():
    x = torch.randn(50_000, 8, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 12
    layer = nn.Sequential(PQLinear(torch.randn(4, 4), torch.randint(0, 4, (3, 2))))
    (by_range,) = quantize_activations_(layer, [x], method="range")
    (by_error,) = quantize_activations_(layer, [x])
    assert by_error.scale < 0.75 * by_range.scale
    assert by_error.relative_error < by_range.relative_error


def test_grids_are_stored(tiny_roberta, batches, tmp_path):
    model = quantized(tiny_roberta)
    plain = save_compressed(model, tmp_path / "plain.safetensors")
    quantize_activations_(model, batches)
    logits = all_logits(model, batches)
    size = save_folder(model, tmp_path / "folder")
    assert plain < size < plain + 100 * len(pq_modules(model))
    same = load_compressed_(tiny_roberta(1), tmp_path / "folder")
    hub = AutoModelForSequenceClassification.from_pretrained(tmp_path / "folder", local_files_only=True)
    hub.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again", local_files_only=True)
    for other in (same, hub, again, copy.deepcopy(model)):
        assert all(torch.equal(a, b) for a, b in zip(all_logits(other, batches), logits, strict=True))
    tensors, header = packed_state(model)
    layer = next(layer for layer in header["layers"].values() if "activations" in layer)
    for damage in ({"scale": -1.0, "zero_point": 0}, {"scale": 1.0}, {"scale": 1.0, "zero_point": 500}, 3):
        layer["activations"] = damage
        write_tensors(tensors, header, tmp_path / "damaged.safetensors")
        with pytest.raises(CompressedFileError, match="damaged in layer"):
            load_compressed_(tiny_roberta(1), tmp_path / "damaged.safetensors")


def test_convolutions_are_simulated():
    net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 25, 3))
    x = torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    quantize_(net, {"0": PQConfig(n_centroids=16, block_size=9, codebook_dtype="int8"), "2": PQConfig(n_centroids=16)})
    with torch.no_grad():
        before = net(x)
        reports = quantize_activations_(net, [x])
        assert [report.name for report in reports] == ["0", "2"]
        assert (reports[0].low, reports[0].high) == (float(x.min()), float(x.max()))
        assert not torch.equal(net(x), before)
        assert torch.allclose(net(x), before, atol=0.05 * float(before.std()))
        assert torch.equal(net[0](x), net[0](net[0].activations.simulate(x)))


def test_bad_input(tiny_roberta, batches):
    with pytest.raises(ValueError, match=r"`model` must have product-quantized .* call `quantize_` first"):
        quantize_activations_(tiny_roberta(0), batches)
    model = quantized(tiny_roberta)
    with pytest.raises(ValueError, match=r"`names` must hold names of .* but has 'nowhere'"):
        quantize_activations_(model, batches, names=["nowhere"])
    with pytest.raises(ValueError, match="`method` must be 'mse' or 'range', but was 'max'"):
        quantize_activations_(model, batches, method="max")
    with pytest.raises(ValueError, match="`calibration` must hold at least one batch"):
        quantize_activations_(model, [])
    with pytest.raises(ValueError, match="finite"):
        quantize_activations_(
            nn.Sequential(PQLinear(torch.ones(1, 2), torch.zeros(3, 1, dtype=torch.uint8))),
            [torch.full((2, 2), float("inf"))],
        )
    for scale, zero_point in ((0.0, 0), (float("nan"), 0), (1.0, 128), (1.0, 0.5)):
        with pytest.raises(ValueError, match="must be"):
            ActivationGrid(scale, zero_point)


def test_transformer_layers_of_pytorch_round_their_inputs_in_inference_too():
    """They pass over the forward of their linear layers there, unless these have hooks."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    quantize_(model, {r"linear[12]": PQConfig(block_size=4, n_centroids=16, codebook_dtype="int8")})
    round_(model)
    x = torch.randn(4, 6, 16)
    plain = model(x).detach()
    quantize_activations_(model, [x])
    copied = copy.deepcopy(model)
    with torch.no_grad():
        rounded = model(x)
        assert torch.allclose(rounded, model.requires_grad_(True)(x).detach(), atol=1e-5)
        assert torch.equal(copied(x), rounded)
    assert not torch.allclose(rounded, plain, atol=1e-5)
    with torch.enable_grad():
        assert torch.allclose(model(x), rounded, atol=1e-5)
