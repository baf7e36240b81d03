"""Convolutions as codes: block layouts, the dense layer that they decode to, rules, iPQ's latent weights, the file."""

import copy

import pytest
import torch
from torch import nn

from compression import PQConfig, PQConv2d, compress, load_compressed_, quantize_, save_compressed
from compression.quantization.blocks import to_blocks
from compression.quantization.calibration import activation_weights, all_logits, divergence
from compression.quantization.layers import pq_modules
from compression.quantization.storage import CompressedFileError, file_bytes, layer_bytes, round_
from compression.training.reassignment import Latents


class Net(nn.Module):
    """A small convolutional network with 1 x 1, 3 x 3 and grouped convolutions."""

    def __init__(self, seed=0, kernel=3):
        super().__init__()
        self.first = nn.Conv2d(4, 8, kernel, padding=kernel // 2, padding_mode="circular")
        self.point = nn.Conv2d(8, 16, 1, bias=False)
        self.groups = nn.Conv2d(16, 8, 3, stride=2, groups=2, dilation=(1, 2))
        self.head = nn.Linear(8, 3)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))

    def forward(self, x):
        x = torch.relu(self.groups(torch.relu(self.point(torch.relu(self.first(x))))))
        return self.head(x.mean((2, 3)))


RULES = {
    "first|groups": PQConfig(n_centroids=16, block_size=9),
    "point": PQConfig(n_centroids=16, block_size=4),
}
X = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(1))


def test_blocks_are_kernels_or_groups_of_channels():
    kernels = torch.arange(2 * 3 * 9.0).reshape(2, 3, 3, 3)
    blocks = to_blocks(kernels, 9)
    assert torch.equal(blocks, kernels.reshape(6, 9))
    assert torch.equal(blocks[4], kernels[1, 1].flatten())
    points = torch.arange(2 * 8.0).reshape(2, 8, 1, 1)
    assert to_blocks(points, 4)[3].tolist() == points[1, 4:, 0, 0].tolist()
    with pytest.raises(ValueError, match="must divide the 27 input features"):
        to_blocks(kernels, 4)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": (2, 1), "stride": (1, 2)},
        {"padding": "same", "dilation": 2},
        {"padding": "valid", "groups": 2},
    ],
)
def test_equals_the_dense_layer_it_decodes_to(mode, options):
    dense = nn.Conv2d(4, 6, (3, 2), padding_mode=mode, **options)
    per_row = dense.weight[0].numel()
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 7, (6, per_row // 6), generator=generator)
    layer = PQConv2d.like(dense, torch.randn(7, 6, generator=generator), codes, torch.randn(6, generator=generator))
    with torch.no_grad():
        dense.weight.copy_(layer.centroids[codes].reshape(dense.weight.shape))
        dense.bias.copy_(layer.bias)
    x = torch.randn(2, 4, 8, 9, generator=generator)
    assert torch.equal(layer(x), dense(x))


def test_gradient_of_a_codeword_is_the_mean_over_its_uses():
    dense = nn.Conv2d(2, 3, 1, bias=False)
    codes = torch.tensor([[0], [0], [2]])
    layer = PQConv2d.like(dense, torch.zeros(3, 2), codes)
    gradient = torch.arange(6.0).reshape(3, 2, 1, 1)
    layer.weight.backward(gradient)
    assert layer.centroids.grad.tolist() == [[1.0, 2.0], [0.0, 0.0], [4.0, 5.0]]


def test_bad_kernel_size():
    with pytest.raises(ValueError, match=r"`kernel_size` must divide the 8 features of a filter, but is 3 x 3"):
        PQConv2d(torch.zeros(2, 4), torch.zeros(3, 2, dtype=torch.long), kernel_size=3)
    with pytest.raises(ValueError, match="`bias`"):
        PQConv2d(torch.zeros(2, 4), torch.zeros(3, 2, dtype=torch.long), torch.zeros(2), kernel_size=2)


def test_quantize_and_file_round_trip(tmp_path):
    net = Net()
    dense = copy.deepcopy(net)
    reports = quantize_(net, RULES)
    assert set(pq_modules(net)) == {"first", "point", "groups"}
    for report in reports:
        weight = dense.get_submodule(report.name).weight
        assert report.shape == (len(weight), weight[0].numel())
        error = (net.get_submodule(report.name).weight - weight).square().sum() / weight.square().sum()
        assert 0 < report.relative_error < 0.7
        assert report.relative_error == pytest.approx(error.item(), rel=1e-4)
    round_(net)
    path = tmp_path / "model.safetensors"
    assert save_compressed(net, path) == file_bytes(net) == path.stat().st_size
    loaded = load_compressed_(Net(1), path)
    with torch.no_grad():
        assert torch.equal(loaded(X), net(X))
    assert {row["name"]: row["shape"] for row in layer_bytes(path)}["groups.weight"] == (8, 72)
    with pytest.raises(CompressedFileError, match=r"kernel size \[3, 3\]"):
        load_compressed_(Net(1, kernel=5), path)


def test_enough_codewords_reproduce_the_rounded_weight():
    net, reference = Net(), Net()
    quantize_(net, {"point": PQConfig(n_centroids=64, block_size=4, codebook_dtype="float32")})
    assert torch.equal(net.point.weight, reference.point.weight)


def test_latent_weights_get_the_gradient_of_the_weight():
    net = Net()
    latents = Latents()
    latents.add({name: net.get_parameter(f"{name}.weight") for name in ("first", "point", "groups")})
    quantize_(net, RULES)
    moving = latents.attach(net)
    net(X).square().sum().backward()
    twin = Net()
    with torch.no_grad():
        for name in ("first", "point", "groups"):
            twin.get_parameter(f"{name}.weight").copy_(net.get_submodule(name).weight)
    twin(X).square().sum().backward()
    for name in ("first", "point", "groups"):
        assert torch.allclose(moving[f"{name}.latent"].grad, twin.get_parameter(f"{name}.weight").grad, atol=1e-5)
    latents.detach(net)
    assert latents.reassign(net) < 0.2  # the codes are those of the clustering, up to the rounded codebooks


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("options", [{"padding": 1, "stride": 2}, {"padding": "same", "dilation": 2}, {"groups": 2}])
def test_activation_weights_are_second_moments_of_the_patches(mode, options):
    net = nn.Sequential(nn.Conv2d(4, 6, (3, 2), padding_mode=mode, **options), nn.Flatten())
    weights = activation_weights(net, [X, 2 * X])["0"]
    # The derivative of a sum of outputs by an entry of a filter is the sum of the inputs that it meets.
    squares = nn.Conv2d(4, 6, (3, 2), padding_mode=mode, bias=False, **options)
    squares(X.square()).sum().backward()
    assert torch.allclose(weights, squares.weight.grad / squares.weight.grad.mean(), rtol=1e-4)


@pytest.mark.parametrize("weighting", ["activation", "fisher"])
def test_a_budget_chooses_for_convolutions_too(weighting, tmp_path):
    net = Net().to(memory_format=torch.channels_last)
    before = copy.deepcopy(net.state_dict())
    sizes = ((2, 4), (4, 4), (4, 8), (9, 4), (9, 8))
    result = compress(net, 2100, calibration=[X, 2 * X], sizes=sizes, weighting=weighting)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    layers = {layer.name: layer for layer in result.layers}
    assert set(layers) == {"first", "point", "groups"}  # the head has too few blocks
    assert all(layer.sensitivity > 0 for layer in layers.values())
    assert isinstance(result.model.first, PQConv2d)
    outputs = [all_logits(model, [X, 2 * X]) for model in (net, result.model)]
    assert result.measured_loss == pytest.approx(divergence(*outputs))
    assert save_compressed(result.model, tmp_path / "net.safetensors") == result.file_bytes <= 2100
    loaded = Net(1)
    load_compressed_(loaded, tmp_path / "net.safetensors")
    assert torch.equal(loaded.eval()(X), result.model(X))
