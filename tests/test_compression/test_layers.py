"""Layers among the tools of PyTorch: derivatives, transforms, recorded graphs, states, and ids that are refused."""

import warnings

import pytest
import torch
from torch import nn

from compression import PQEmbedding, PQLinear, compact_
from compression.quantization.blocks import code_dtype
from compression.quantization.layers import gather_codewords
from compression.quantization.storage import round_


def plain_gather(centroids, codes):
    """Return codewords by index, with the mean as the gradient, in operations that PyTorch differentiates itself."""
    uses = torch.bincount(codes.flatten(), minlength=len(centroids)).clamp(min=1)[:, None]
    scaled = centroids / uses
    return (scaled + (centroids - scaled).detach())[codes]


def test_second_derivatives_of_codewords():
    generator = torch.Generator().manual_seed(0)
    centroids = torch.randn(5, 2, generator=generator)
    codes = torch.randint(0, 4, (3, 6), generator=generator)  # one codeword has no uses

    def second(gather, gradient):
        return gradient(lambda c: gradient(lambda b: gather(b, codes).pow(3).sum())(c).square().sum())(centroids)

    def by_graph(loss):
        def gradient(value):
            value = value if value.requires_grad else value.clone().requires_grad_()
            return torch.autograd.grad(loss(value), value, create_graph=True)[0]

        return gradient

    expected = second(plain_gather, torch.func.grad)
    assert expected[0].abs().min() > 0
    for kind in (torch.uint8, torch.int64):
        for gradient in (torch.func.grad, by_graph):
            found = second(lambda book, numbers, kind=kind: gather_codewords(book, numbers.to(kind)), gradient)
            assert torch.allclose(found, expected, rtol=1e-5)


def test_layers_in_vmap_and_gradients_of_each_sample():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (8, 4), generator=generator)
    linear = PQLinear(torch.randn(16, 4, generator=generator), codes)
    table = PQEmbedding(torch.randn(16, 4, generator=generator), codes, padding_idx=1)
    batches = torch.randn(3, 2, 16, generator=generator), torch.randint(0, 8, (3, 5), generator=generator)
    for layer, batch in zip((linear, table), batches, strict=True):
        for recorded in (True, False):
            with torch.set_grad_enabled(recorded):
                assert torch.allclose(torch.vmap(layer)(batch), layer(batch), atol=1e-5)

        def loss(centroids, x, layer=layer):
            return torch.func.functional_call(layer, {"centroids": centroids}, (x,)).square().sum()

        found = torch.vmap(torch.func.grad(loss), (None, 0))(layer.centroids.detach(), batch)
        expected = [torch.autograd.grad(layer(x).square().sum(), layer.centroids)[0] for x in batch]
        assert torch.allclose(found, torch.stack(expected), rtol=1e-5, atol=1e-5)
        books = torch.stack([layer.centroids.detach(), 2 * layer.centroids.detach()])
        with torch.no_grad():
            call = torch.vmap(torch.func.functional_call, (None, 0, None))
            both = call(layer, {"centroids": books}, (batch,))
            assert torch.allclose(both, torch.stack([layer(batch), 2 * layer(batch)]), atol=1e-5)


@pytest.mark.parametrize("k", [16, 300, 33_000])
@pytest.mark.parametrize("assign", [True, False])
def test_codes_of_another_type_are_loaded_as_the_layer_needs_them(k, assign):
    generator = torch.Generator().manual_seed(0)
    layer = PQLinear(torch.randn(k, 4, generator=generator), torch.randint(0, k, (64, 16), generator=generator))
    other = PQLinear(torch.zeros(k, 4), torch.zeros(64, 16, dtype=torch.int64))
    state = layer.state_dict() | {"codes": layer.codes.long()}
    other.load_state_dict(state, assign=assign)
    assert other.codes.dtype == code_dtype(k)
    x = torch.randn(5, 64, generator=generator)
    with torch.no_grad():
        assert torch.equal(other(x), layer(x))
    for wrong in (-1, k):
        state["codes"][0, 0] = wrong
        with pytest.raises(RuntimeError, match=rf"cannot be read: .*`codes` must lie in 0\.\.{k - 1}"):
            other.load_state_dict(state, assign=assign)
    assert torch.equal(other.codes, layer.codes)


@pytest.mark.parametrize("compact", [True, False])
def test_ids_that_an_embedding_of_pytorch_refuses(compact):
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(PQEmbedding(torch.randn(400, 2), torch.randint(0, 400, (30, 4), generator=generator))).eval()
    layer = (compact_(net) if compact else net)[0]
    for wrong, error in ((-1, IndexError), (30, IndexError), (1.0, RuntimeError), (True, RuntimeError)):
        with pytest.raises(error):
            nn.Embedding(30, 8)(torch.tensor([wrong]))
        with pytest.raises(error, match="out of range" if error is IndexError else "scalar types: Long, Int"):
            layer(torch.tensor([wrong]))
    with pytest.raises(RuntimeError, match="scalar types: Long, Int"):
        layer(torch.tensor([1, 0], dtype=torch.uint8))
    assert torch.equal(layer(torch.tensor([[3, 29]], dtype=torch.int32)), layer.weight[None, [3, 29]])


@pytest.mark.parametrize(("k", "compact"), [(16, False), (300, False), (300, True)])
@pytest.mark.parametrize("codebook_dtype", ["float16", "int8"])
def test_graphs_that_pytorch_records(k, compact, codebook_dtype):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, k, (40, 8), generator=generator)
    layers = (kind(torch.randn(k, 2, generator=generator), codes) for kind in (PQEmbedding, PQLinear))
    net = nn.Sequential(*layers).eval()
    for layer in net:
        layer.codebook_dtype = codebook_dtype
    round_(net)
    net = compact_(net) if compact else net
    ids, others = torch.randint(0, 40, (2, 3, 5), generator=generator)
    for recorded in (True, False):
        with torch.set_grad_enabled(recorded):
            assert torch.allclose(torch.export.export(net, (ids,)).module()(others), net(others), atol=1e-5)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of tracing itself
        traced = torch.jit.trace(net, (ids,))
        assert torch.allclose(traced(others[:, :4]), net(others[:, :4]), atol=1e-5)
