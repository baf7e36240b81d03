"""int8 codebooks: the grid, the file, and training at the rounded values."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.clustering.assignment import nearest_centroids
from compression.quantization.blocks import PQConfig, codebook_bytes, int8_scale, round_codebook
from compression.quantization.layers import PQLinear, pq_modules
from compression.quantization.rules import quantize_
from compression.quantization.storage import (
    file_bytes,
    load_compressed_,
    read_header,
    round_,
    save_compressed,
    size_report,
)
from compression.training.distillation import teach
from compression.training.ipq import IPQConfig, ipq

RULES = {r".*\.(intermediate|output)\.dense": PQConfig(n_centroids=8, block_size=4, codebook_dtype="int8")}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-20, 1e20), k=st.integers(1, 40), d=st.integers(1, 9))
def test_int8_grid(seed, scale, k, d):
    centroids = scale * torch.randn(k, d, generator=torch.Generator().manual_seed(seed))
    rounded = round_codebook(centroids, "int8")
    step = int8_scale(rounded)
    assert torch.equal(round_codebook(rounded, "int8"), rounded)
    assert step == int8_scale(centroids) == pytest.approx(float(centroids.abs().max()) / 127, rel=5e-4)
    assert (
        rounded - centroids
    ).abs().max() <= 0.57 * step  # half a step, and what the step's rounding takes at the ends
    whole = rounded / step
    assert torch.equal(whole, whole.round())
    assert whole.abs().max() == 127


def test_codebook_of_zeros_has_no_scale():
    assert torch.equal(round_codebook(torch.zeros(4, 2), "int8"), torch.zeros(4, 2))


def test_int8_file_is_bit_identical_and_smaller(tiny_roberta, tiny_data, tmp_path):
    sizes = {}
    for dtype in ("int8", "float16"):
        model = tiny_roberta(0)
        rules = {pattern: config.model_copy(update={"codebook_dtype": dtype}) for pattern, config in RULES.items()}
        reports = quantize_(model, rules)
        round_(model)
        path = tmp_path / f"{dtype}.safetensors"
        assert save_compressed(model, path) == file_bytes(model)
        loaded = load_compressed_(tiny_roberta(1), path)
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
        assert {module.codebook_dtype for module in pq_modules(loaded).values()} == {dtype}
        again = tmp_path / "again.safetensors"
        save_compressed(loaded, again)
        assert again.read_bytes() == path.read_bytes()
        sizes[dtype] = size_report(model)
        books = sum(codebook_bytes(report.n_centroids, 4, dtype) for report in reports)
        assert sizes[dtype]["codebooks"] == books
        assert sizes[dtype]["codes"] + books == sum(report.bits for report in reports) / 8
    assert 2 * sizes["int8"]["codebooks"] == sizes["float16"]["codebooks"]


def test_unrounded_codebook_keeps_its_values_and_its_purpose(tiny_roberta, tmp_path):
    model = tiny_roberta(0)
    quantize_(model, RULES)
    with torch.no_grad():
        for module in pq_modules(model).values():
            module.centroids += 1e-3
    save_compressed(model, tmp_path / "model.safetensors")
    assert not any("scale" in layer for layer in read_header(tmp_path / "model.safetensors")["layers"].values())
    loaded = load_compressed_(tiny_roberta(0), tmp_path / "model.safetensors")
    for name, module in pq_modules(model).items():
        assert torch.equal(pq_modules(loaded)[name].centroids, module.centroids)
        assert pq_modules(loaded)[name].codebook_dtype == "int8"


def test_training_sees_the_rounded_codebook():
    generator = torch.Generator().manual_seed(0)
    layer = PQLinear(torch.randn(6, 2, generator=generator), torch.arange(12).reshape(3, 4) % 6)
    layer.codebook_dtype = "int8"
    rounded = copy.deepcopy(layer)
    with torch.no_grad():
        rounded.centroids.copy_(round_codebook(layer.centroids, "int8"))
    x = torch.randn(5, 8, generator=generator)
    outputs = [module(x) for module in (layer, rounded)]
    assert torch.allclose(*outputs, atol=1e-6)
    for module, output in zip((layer, rounded), outputs, strict=True):
        output.square().sum().backward()
        assert module.centroids.grad.abs().min() > 0
    assert torch.allclose(layer.centroids.grad, rounded.centroids.grad, atol=1e-5)


def test_distilled_int8_model_loses_nothing_by_rounding(tiny_roberta, tiny_data):
    model = tiny_roberta(0)
    config = IPQConfig(stages=("all",), steps_per_stage=20, lr=3e-2, remainder_lr=0.0)
    teacher = teach(tiny_roberta(0), tiny_data)
    ipq(model, RULES, train_data=tiny_data, teacher=teacher, config=config)
    batch = tiny_data.batch(range(32))
    seen = model(**batch).logits.detach()  # with gradients: as in training
    round_(model, remainder=torch.float32)
    with torch.no_grad():
        assert torch.allclose(model(**batch).logits, seen, atol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_nearest_centroids_against_all_distances(weighted):
    generator = torch.Generator().manual_seed(3)
    x, c = torch.randn(500, 5, generator=generator), torch.randn(17, 5, generator=generator)
    w = torch.rand(500, 5, generator=generator) + 0.1 if weighted else None
    distances = ((x[:, None] - c) ** 2 * (1 if w is None else w[:, None])).sum(2)
    found = nearest_centroids(x, c, sample_weight=w)
    assert torch.equal(found, distances.argmin(1))
    numpy = nearest_centroids(x.numpy(), c.numpy(), sample_weight=None if w is None else w.numpy())
    assert numpy.tolist() == found.tolist()
    with pytest.raises(ValueError, match="`centroids`"):
        nearest_centroids(x, c[:, :4])
