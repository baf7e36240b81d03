"""Linear layers computed from codes: from the codewords and by tables, against the dense product."""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.nn import functional

from compression import PQLinear
from compression.quantization import compiled_decode, compiled_product, lookup, torch_threads
from compression.quantization.blocks import code_dtype
from compression.quantization.lookup import (
    linear_by_codewords,
    linear_by_tables,
    tables_pay,
)
from compression.quantization.packed_codes import PackedCodes


def make(n_tokens, n_rows, n_blocks, d, k, bias=True, seed=0):
    """Return inputs, centroids, codes and bias, random."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n_tokens, n_blocks * d, generator=generator),
        torch.randn(k, d, generator=generator),
        torch.randint(0, k, (n_rows, n_blocks), generator=generator).to(code_dtype(k)),
        torch.randn(n_rows, generator=generator) if bias else None,
    )


def dense(x, centroids, codes, bias):
    """Return the product in double precision, and a bound of the error of any order of single-precision sums."""
    weight = centroids.double()[codes.long()].flatten(1)
    out = functional.linear(x.double(), weight, None if bias is None else bias.double())
    size = functional.linear(x.double().abs(), weight.abs(), None if bias is None else bias.double().abs())
    return out, (weight.shape[1] + 1) * 2.0**-24 * size


@settings(max_examples=120, deadline=None)
@given(
    n_tokens=st.integers(0, 150),
    n_rows=st.integers(1, 110),
    n_blocks=st.integers(1, 11),
    d=st.integers(1, 18),
    k=st.integers(1, 256) | st.integers(257, 1100),
    bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(n_tokens=16, n_rows=16, n_blocks=4, d=4, k=256, bias=True, seed=0)
@example(n_tokens=33, n_rows=1, n_blocks=1, d=1, k=1, bias=False, seed=1)
@example(n_tokens=17, n_rows=70, n_blocks=11, d=3, k=1024, bias=True, seed=2)
def test_both_ways_give_the_dense_product(n_tokens, n_rows, n_blocks, d, k, bias, seed):
    x, centroids, codes, added = make(n_tokens, n_rows, n_blocks, d, k, bias, seed)
    expected, bound = dense(x, centroids, codes, added)
    with torch.no_grad():
        for linear in (linear_by_tables, linear_by_codewords):
            found = linear(x, centroids, codes, added)
            assert found.dtype == torch.float32
            assert ((found.double() - expected).abs() <= bound).all()
            if k > 256:
                assert torch.equal(linear(x, centroids, PackedCodes.of(codes, k), added), found)


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(1, 300),
    n_blocks=st.integers(1, 90),
    d=st.integers(1, 40),
    k=st.sampled_from([1, 3, 256, 257, 600, 1500, 4096, 20_000, 40_000]),
    seed=st.integers(0, 2**32 - 1),
    n_threads=st.integers(1, 3),
)
@example(n_rows=200, n_blocks=90, d=1, k=1500, seed=0, n_threads=3)
@example(n_rows=200, n_blocks=90, d=17, k=256, seed=0, n_threads=3)
def test_decoding_in_threads_gives_the_bits_of_a_gather(n_rows, n_blocks, d, k, seed, n_threads):
    _, centroids, codes, _ = make(1, n_rows, n_blocks, d, k, seed=seed)
    expected = centroids[codes.long()].flatten(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: n_threads)
        patch.setattr(compiled_decode, "_SHARE", 10)
        assert torch.equal(compiled_decode.decode(centroids, codes), expected)
        if 256 < k <= 32_768:
            packed = PackedCodes.of(codes, k)
            assert torch.equal(packed.unpacked(), codes)
            assert torch.equal(compiled_decode.decode(centroids, packed), expected)
            ids = torch.tensor([[0, n_rows - 1], [n_rows // 2, 0]])
            assert torch.equal(packed.rows(ids), codes[ids])


@pytest.mark.parametrize("linear", [linear_by_tables, linear_by_codewords])
@pytest.mark.parametrize("k", [200, 700])
def test_a_token_has_the_same_bits_in_any_batch_and_with_any_number_of_threads(monkeypatch, linear, k):
    x, *layer = make(75, 100, 12, 8, k)
    whole = linear(x, *layer)
    for start, stop in ((40, 41), (0, 17), (3, 50), (10, 74)):
        assert torch.equal(linear(x[start:stop], *layer), whole[start:stop])
    assert torch.equal(linear(x.reshape(5, 15, -1), *layer), whole.reshape(5, 15, -1))
    assert torch.equal(linear(x.T.contiguous().T, *layer), whole)
    for n_threads in (1, 2, 3, 7):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        assert torch.equal(linear(x, *layer), whole)
        with monkeypatch.context() as patch:  # where the library of torch's threads is not found
            patch.setattr(torch_threads, "_torch_threads", lambda: None)
            assert torch.equal(linear(x, *layer), whole)


@pytest.mark.parametrize("n_tokens", [1, 16, 48, 128, 300])
def test_the_work_is_shared_out_among_all_threads(monkeypatch, n_tokens):
    x, *layer = make(n_tokens, 250, 6, 3, 40)
    tickets, run = [], lookup.in_threads

    def counted(kernel, about, n_threads):
        tickets.append((about[compiled_product.PANELS] * about[compiled_product.PARTS], n_threads))
        run(kernel, about, n_threads)

    monkeypatch.setattr(lookup, "in_threads", counted)
    for n_threads in range(1, 9):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        linear_by_codewords(x, *layer)
    assert all(used <= n_tickets for n_tickets, used in tickets)
    assert [used for _, used in tickets] == ([1, 2, 3, 4, 5, 6, 6, 6] if n_tokens < 17 else list(range(1, 9)))


GUARD = 4096


@settings(max_examples=80, deadline=None)
@given(
    n_tokens=st.integers(1, 150),
    n_rows=st.integers(1, 110),
    n_blocks=st.integers(1, 9),
    d=st.integers(1, 9),
    k=st.sampled_from([1, 5, 256, 300, 1000]),
    n_threads=st.integers(1, 5),
)
@example(n_tokens=128, n_rows=96, n_blocks=9, d=8, k=256, n_threads=5)
def test_every_number_is_written_and_no_other_memory(n_tokens, n_rows, n_blocks, d, k, n_threads):
    x, centroids, codes, bias = make(n_tokens, n_rows, n_blocks, d, k)
    expected, bound = dense(x, centroids, codes, bias)
    kept = [codes] if k <= 256 else [codes, PackedCodes.of(codes, k)]
    memory = []

    def guarded(size):
        memory.append(np.full(size + 2 * GUARD + 64, 255, np.uint8))  # numbers that are none
        start = GUARD - (memory[-1].ctypes.data + GUARD) % 64 + 64
        return memory[-1][start : start + size]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: n_threads)
        patch.setattr(lookup, "scratch", guarded)
        patch.setattr(torch, "empty", lambda *shape, **options: torch.full(*shape, torch.nan, **options))
        for linear in (linear_by_tables, linear_by_codewords):
            for numbers in kept:
                found = linear(x, centroids, numbers, bias)
                assert ((found.double() - expected).abs() <= bound).all()
    for block in memory:
        assert (block[:GUARD] == 255).all()
        assert (block[-GUARD:] == 255).all()


@pytest.mark.parametrize("linear", [linear_by_tables, linear_by_codewords])
def test_layers_of_several_shapes_in_several_threads(linear):
    cases = [make(n, rows, 8, 4, 256, seed=n) for n, rows in ((20, 64), (130, 32), (1, 200), (64, 64))]
    expected = [linear(*case) for case in cases]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(20):
            for found, right in zip(pool.map(lambda case: linear(*case), cases), expected, strict=True):
                assert torch.equal(found, right)


@pytest.mark.parametrize("fast", [True, False])
def test_the_choice_is_by_the_shape(monkeypatch, fast):
    monkeypatch.setattr(lookup, "_SUM_COST", 3.0 if fast else 1.6)  # with AVX-512 and without
    assert tables_pay(256, 8, 1536)
    assert tables_pay(256, 4, 1536) != fast
    assert tables_pay(512, 8, 3072)  # codes of two bytes
    assert not tables_pay(256, 8, 100)  # as many codewords as make tables dearer than the product
    assert not tables_pay(256, 1, 4096)  # as many sums as products
    assert not tables_pay(512, 8, 384)
    assert not tables_pay(1025, 16, 65_536)  # tables larger than caches


@pytest.mark.parametrize("k", [200, 20_000, 32_768, 70_000])
def test_codes_of_any_integers(k):
    x, centroids, codes, bias = make(33, 50, 5, 2, k)
    expected, bound = dense(x, centroids, codes, bias)
    numbers = [codes, codes.int(), codes.long(), *([PackedCodes.of(codes, k)] if 256 < k <= 32_768 else [])]
    ways = (linear_by_tables, linear_by_codewords) if k <= 32_768 else (linear_by_codewords,)
    for linear in ways:
        for kept in numbers:
            assert ((linear(x, centroids, kept, bias).double() - expected).abs() <= bound).all()


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # PyTorch's own
@pytest.mark.parametrize("n_rows", [64, 512])  # by codewords and by tables
def test_derivatives_that_are_carried_forward_are_those_of_the_dense_layer(n_rows):
    x, centroids, codes, bias = make(6, n_rows, 5, 8, 100)
    layer = PQLinear(centroids, codes, bias).requires_grad_(False)
    with forward_ad.dual_level(), torch.no_grad():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        tangents = [forward_ad.unpack_dual(module(dual)).tangent for module in (layer, layer.dense())]
    assert torch.allclose(*tangents, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX is switched off")
def test_without_avx_512_a_panel_takes_several_steps(tmp_path):
    environment = os.environ | {"NUMBA_ENABLE_AVX": "0", "NUMBA_CACHE_DIR": str(tmp_path)}
    script = """
import torch
from compression.quantization import compiled_product, compiled_vectors
from compression.quantization.lookup import linear_by_codewords, linear_by_tables
assert not compiled_vectors.HAS_AVX512 and compiled_product.VECTORS == 1
generator = torch.Generator().manual_seed(0)
for n_tokens in (1, 17, 100, 300):
    x, centroids = torch.randn(n_tokens, 60, generator=generator), torch.randn(50, 5, generator=generator)
    codes, bias = torch.randint(50, (101, 12), generator=generator).byte(), torch.randn(101, generator=generator)
    expected = x.double() @ centroids[codes.long()].flatten(1).double().T + bias
    for linear in (linear_by_codewords, linear_by_tables):
        whole = linear(x, centroids, codes, bias)
        assert torch.allclose(whole.double(), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(linear(x[-1:], centroids, codes, bias), whole[-1:])
"""
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, cwd=tmp_path)


@pytest.mark.parametrize(("d", "n_rows", "chosen"), [(8, 512, "linear_by_tables"), (1, 64, "linear_by_codewords")])
def test_a_layer_computes_from_codes_only_where_values_alone_are_asked_for(monkeypatch, d, n_rows, chosen):
    x, centroids, codes, bias = make(6, n_rows, 5, d, 100)
    layer = PQLinear(centroids, codes, bias)
    calls = []
    for name in ("linear_by_tables", "linear_by_codewords"):
        original = getattr(lookup, name)
        monkeypatch.setattr(lookup, name, lambda *a, n=name, f=original: calls.append(n) or f(*a))
    with torch.no_grad():
        plain = layer(x)
        assert calls == [chosen]
        assert layer(x.double().float()[:0]).shape == (0, n_rows)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            layer(x[:, :-1])
    assert calls == [chosen] * 2
    assert torch.allclose(layer(x), plain, rtol=1e-5, atol=1e-5)
    layer.requires_grad_(False)
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert calls == [chosen] * 2
    with torch.no_grad():
        frozen = torch.func.vmap(layer)(x[:, None])
    assert torch.allclose(frozen[:, 0], plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 4), (16, 3), (300, 4)])
def test_the_defaults_of_pytorch_change_nothing(shape):
    generator = torch.Generator().manual_seed(0)
    layer = PQLinear(torch.randn(shape, generator=generator), torch.randint(shape[0], (8, 5), generator=generator))
    x = torch.randn(3, layer.in_features, generator=generator)
    with torch.no_grad():
        expected, weight = layer(x), layer.weight
        torch.set_default_dtype(torch.float64)
        try:
            found = layer(x), layer.weight
        finally:
            torch.set_default_dtype(torch.float32)
        with torch.device("meta"):
            on_meta = layer(x), layer.weight
    for one in (found, on_meta):
        assert torch.equal(one[0], expected)
        assert torch.equal(one[1], weight)
