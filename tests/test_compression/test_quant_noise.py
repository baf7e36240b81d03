"""Quant-Noise: weights that come back bit for bit, blocks of the quantized layers, steps that decide the noise."""

import copy
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from compression import NoiseConfig, PQConfig, add_quant_noise, preset_rules, quantize_, remove_quant_noise
from compression.quantization.calibration import fisher_weights
from compression.quantization.quant_noise import QuantNoise, _Noise
from compression.training import loop
from compression.training.finetune import FinetuneConfig, finetune
from shared.config import ConfigError

KINDS = ("proxy", "pq", "int8")
RULES = preset_rules("roberta", block_size=4, n_centroids=16)
CONV = {"0": PQConfig(n_centroids=8, block_size=9), "2": PQConfig(n_centroids=8, block_size=4)}


def conv_net():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1))


def latents(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_evaluation_leave_the_weights_bit_identical(kind, tiny_roberta, tiny_data):
    """Forward and backward passes in both modes change no weight: the released code zeroed two thirds of them."""
    model, reference = tiny_roberta(0), tiny_roberta(0)
    before, batch = latents(model), tiny_data.batch(range(8))
    parameters = {id(parameter) for parameter in model.parameters()}
    noise = add_quant_noise(model, RULES, NoiseConfig(kind=kind, p=0.5))
    for step in range(5):
        noise.step(step, 5)
        model.train()
        noisy = model(**batch).logits
        noisy.sum().backward()
        model.eval()
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, reference(**batch).logits)
    reference.train()
    with torch.random.fork_rng(devices=[]):
        assert not torch.allclose(noisy, reference(**batch).logits)
    assert same(latents(model), before)
    noise.remove()
    assert same(latents(model), before)
    assert {id(parameter) for parameter in model.parameters()} == parameters
    dense = model.roberta.encoder.layer[0].output.dense
    assert type(dense) is nn.Linear
    assert not dense._state_dict_hooks
    assert not dense._load_state_dict_pre_hooks
    remove_quant_noise(model)  # nothing happens


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_come_back_bit_identical(kind):
    model, reference = conv_net(), conv_net()
    before, x = latents(model), torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    noise = add_quant_noise(model, CONV, NoiseConfig(kind=kind, p=0.5))
    for step in range(3):
        model.train()
        noise.step(step, 3)
        noisy = model(x)
        noisy.square().mean().backward()
        assert not torch.equal(noisy, reference(x))
        assert torch.equal(model.eval()(x), reference(x))
    noise.remove()
    assert same(latents(model), before)
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("make", [None, conv_net])
def test_exact_noise_on_every_block_is_the_quantized_layer(make, tiny_roberta):
    """With p = 1 a weight with exact noise is that of `quantize_`: same blocks, seeds, codewords, rounding."""
    model, quantized = (tiny_roberta(0), tiny_roberta(0)) if make is None else (make(), make())
    rules = RULES if make is None else CONV
    noise = add_quant_noise(model, rules, NoiseConfig(kind="pq", p=1.0, seed=3))
    model.train()
    noise.step(0, 1)
    reports = quantize_(quantized, rules, seed=3)
    assert {report.name for report in reports} == set(noise.layers)
    for report in reports:
        assert torch.equal(model.get_submodule(report.name).weight, quantized.get_submodule(report.name).weight)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), p=st.floats(0.02, 0.98), kind=st.sampled_from(KINDS), conv=st.booleans())
def test_blocks_are_noised_whole_or_not_at_all(seed, p, kind, conv):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layer = nn.Sequential(nn.Conv2d(4, 30, 3) if conv else nn.Linear(36, 30))
    block = 9 if conv else 4
    dense = layer[0].weight.detach().clone()
    rules = {"0": PQConfig(n_centroids=4, block_size=block)}
    noise = add_quant_noise(layer, rules, NoiseConfig(kind=kind, p=p, seed=seed))
    noise.step(0, 1)
    noisy = layer[0].weight.detach()
    scale = 1 / (1 - p) if kind == "proxy" else 1.0
    changed = ~torch.isclose(noisy, scale * dense, rtol=1e-6, atol=0).reshape(-1, block)
    n = len(changed)
    if kind == "int8":
        grid = dense.flatten(1).abs().amax(1, keepdim=True) / 127
        rounded = ((dense.flatten(1) / grid).round() * grid).view_as(dense)
        movable = (~torch.isclose(rounded, dense, rtol=1e-6, atol=0)).reshape(-1, block)  # a row's largest is not
        n = int(movable.sum())
        assert n < changed.numel()
        assert not (changed & ~movable).any()
        assert torch.allclose(noisy.reshape(-1, block)[changed], rounded.reshape(-1, block)[changed])
    else:
        assert torch.equal(changed.any(1), changed.all(1)) or kind == "pq"  # a codeword can share an entry's value
    if kind == "proxy":
        assert (noisy.reshape(-1, block)[changed.any(1)] == 0).all()
    count = int(changed.sum()) if kind == "int8" else int(changed.any(1).sum())
    assert abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p)) + 3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_go_straight_through(kind):
    layer = nn.Sequential(nn.Linear(8, 6))
    noise = add_quant_noise(layer, {"0": PQConfig(n_centroids=4, block_size=2)}, NoiseConfig(kind=kind, p=0.6))
    noise.step(2, 5)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    value = layer[0].weight.detach().clone()
    layer(x).square().sum().backward()
    plain = nn.Linear(8, 6)
    with torch.no_grad():
        plain.weight.copy_(value)
        plain.bias.copy_(layer[0].bias)
    plain(x).square().sum().backward()
    original = dict(layer.named_parameters())["0.parametrizations.weight.original"]
    assert torch.allclose(original.grad, plain.weight.grad, atol=1e-6)
    assert (original.grad != 0).all()


def test_noise_is_a_function_of_seed_layer_and_step(tiny_roberta):
    def drawn(seed, step):
        model = tiny_roberta(0).train()
        add_quant_noise(model, RULES, NoiseConfig(p=0.5, seed=seed)).step(step, 10)
        layers = [layer.intermediate.dense.weight for layer in model.roberta.encoder.layer]
        assert torch.equal(layers[0], model.roberta.encoder.layer[0].intermediate.dense.weight)
        return [weight == 0 for weight in layers]

    first, again, later, other = (drawn(*key) for key in ((0, 1), (0, 1), (0, 2), (1, 1)))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], later[0])
    assert not torch.equal(first[0], other[0])


def test_the_global_random_state_is_left_alone(tiny_roberta):
    before = torch.random.get_rng_state()
    model = tiny_roberta(0).train()
    for kind in KINDS:
        with add_quant_noise(model, RULES, NoiseConfig(kind=kind, p=0.5)) as noise:
            noise.step(0, 1)
            model.roberta.embeddings.word_embeddings.weight.sum()
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_sees_the_same_noise(kind, reentrant, tiny_roberta, tiny_data):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_roberta(0)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        with add_quant_noise(model, RULES, NoiseConfig(kind=kind, p=0.5)) as noise:
            model.train()
            noise.step(3, 5)
            model(**tiny_data.batch(range(8))).logits.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert same(*gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_and_autocast(kind, tiny_roberta, tiny_data):
    batch = tiny_data.batch(range(8))
    half = tiny_roberta(0).to(torch.bfloat16)
    before = latents(half)
    with add_quant_noise(half, RULES, NoiseConfig(kind=kind, p=0.5)) as noise:
        half.train()
        noise.step(0, 1)
        half(**batch).logits.sum().backward()
        weight = half.roberta.encoder.layer[0].output.dense.weight
        assert weight.dtype == torch.bfloat16
    assert same(latents(half), before)
    model = tiny_roberta(0)
    with add_quant_noise(model, RULES, NoiseConfig(kind=kind, p=0.5)) as noise:
        model.train()
        noise.step(0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).logits.float().square().sum()
        loss.backward()
    gradient = model.roberta.encoder.layer[0].output.dense.weight.grad
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_tied_weights_have_the_same_noise_and_stay_tied(kind):
    from transformers import RobertaConfig, RobertaForMaskedLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = RobertaForMaskedLM(RobertaConfig(vocab_size=60, pad_token_id=0, **sizes))
    embeddings, decoder = model.roberta.embeddings.word_embeddings, model.lm_head.decoder
    assert embeddings.weight is decoder.weight
    rules = {r"roberta\.embeddings\.word_embeddings": PQConfig(n_centroids=8, block_size=4)}
    before = latents(model)
    noise = add_quant_noise(model, rules, NoiseConfig(kind=kind, p=0.5))
    assert noise.layers == ("roberta.embeddings.word_embeddings", "lm_head.decoder")
    model.train()
    noise.step(0, 2)
    assert torch.equal(embeddings.weight, decoder.weight)
    assert not torch.equal(embeddings.weight, before["lm_head.decoder.weight"])
    model(torch.arange(3, 20)[None]).logits.sum().backward()
    assert same(latents(model), before)
    noise.remove()
    assert embeddings.weight is decoder.weight
    assert embeddings.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_is_that_of_the_dense_model(kind, tiny_roberta, tmp_path):
    noisy, plain = tiny_roberta(0), tiny_roberta(1)
    with add_quant_noise(noisy, RULES, NoiseConfig(kind=kind, p=0.5)) as noise:
        noisy.train()
        noise.step(0, 1)
        assert same(latents(noisy), latents(tiny_roberta(0)))
        save_file(noisy.state_dict(), tmp_path / "model.safetensors")
        plain.load_state_dict(load_file(tmp_path / "model.safetensors"))  # strict
        assert same(latents(plain), latents(tiny_roberta(0)))
        noisy.load_state_dict(tiny_roberta(2).state_dict())
        with pytest.raises(RuntimeError, match="Missing key"):
            noisy.load_state_dict({})
    assert same(latents(noisy), latents(tiny_roberta(2)))
    copied = tiny_roberta(0)
    add_quant_noise(copied, RULES, NoiseConfig(kind=kind, p=0.5))
    twin = copy.deepcopy(copied)
    remove_quant_noise(twin)
    assert same(latents(twin), latents(copied))
    assert not any(isinstance(module, _Noise) for module in twin.modules())
    assert any(isinstance(module, _Noise) for module in copied.modules())


def test_the_gradient_of_a_parameter_still_arrives_at_its_node():
    """The node that accumulates it is where `DistributedDataParallel` has its hooks."""
    model = nn.Sequential(nn.Linear(8, 8))
    node, arrived = model[0].weight.view_as(model[0].weight).grad_fn.next_functions[0][0], []
    node.register_hook(lambda *_: arrived.append("weight"))
    noise = add_quant_noise(model, {"0": PQConfig(n_centroids=4, block_size=4)}, NoiseConfig(p=0.5))
    noise.step(0, 1)
    model(torch.ones(2, 8)).sum().backward()
    assert arrived == ["weight"]
    noise.remove()
    model(torch.ones(2, 8)).sum().backward()
    assert arrived == ["weight", "weight"]


@pytest.mark.parametrize("first", [0, 1])
def test_a_copy_and_the_original_lose_their_noise_separately(first):
    model = conv_net()
    noise = add_quant_noise(model, CONV, NoiseConfig(p=0.5))
    noise.step(0, 2)
    pair = [model, copy.deepcopy(model)]
    names = latents(model).keys()
    remove_quant_noise(pair[first])
    assert isinstance(pair[first][0].weight, nn.Parameter)
    assert type(pair[first][0]) is nn.Conv2d
    x, other = torch.ones(1, 4, 5, 5), pair[1 - first]
    assert not torch.equal(other.train()(x), other.eval()(x))
    remove_quant_noise(other)
    assert torch.equal(other.train()(x), pair[first](x))
    assert pair[0].state_dict().keys() == pair[1].state_dict().keys() == names


def test_schedules():
    linear = NoiseConfig(p=0.4, schedule="linear", ramp_fraction=0.5)
    assert [linear.probability(step, 8) for step in range(8)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4])
    cosine = NoiseConfig(p=0.4, schedule="cosine")
    found = [cosine.probability(step, 10) for step in range(10)]
    assert found == sorted(found)
    assert found[4] == pytest.approx(0.2)
    assert found[-1] == pytest.approx(0.4)
    assert NoiseConfig(p=0.4).probability(0, 10) == 0.4


def test_codebooks_follow_the_weights_on_schedule():
    layer = nn.Sequential(nn.Linear(8, 6, bias=False))
    config = NoiseConfig(kind="pq", p=1.0, refresh_every=3)
    noise = add_quant_noise(layer, {"0": PQConfig(n_centroids=64, block_size=2, codebook_dtype="float32")}, config)
    original = dict(layer.named_parameters())["0.parametrizations.weight.original"]
    for step in range(7):
        noise.step(step, 7)
        fresh = torch.equal(layer[0].weight, original)  # enough codewords for every block
        assert fresh == (step % 3 == 0)
        with torch.no_grad():
            original.mul_(1.5)
    noise.expire()
    noise.step(7, 8)
    assert torch.equal(layer[0].weight, original)


def test_steps_and_configuration_are_checked(tiny_roberta):
    with pytest.raises(TypeError, match="`config` must be a NoiseConfig or None, but was a dict"):
        add_quant_noise(tiny_roberta(0), RULES, {"kind": "pq"})
    noise = add_quant_noise(tiny_roberta(0), RULES, NoiseConfig(schedule="linear"))
    for number, n_steps in ((0, 0), (3, 3), (-1, 3)):
        with pytest.raises(ValueError, match="`number` must be from 0 to"):
            noise.step(number, n_steps)


def test_bad_input(tiny_roberta):
    with pytest.raises(ConfigError, match="`p` must be below 1 for kind 'proxy'"):
        NoiseConfig.build({"kind": "proxy", "p": 1.0})
    with pytest.raises(ConfigError, match="Key `kind` must be 'proxy', 'pq' or 'int8'"):
        NoiseConfig.build({"kind": "gauss"})
    model = tiny_roberta(0)
    with pytest.raises(ValueError, match="matches no linear layer"):
        add_quant_noise(model, {"nothing": PQConfig()})
    with pytest.raises(ValueError, match="must divide the 32"):
        add_quant_noise(model, {r".*query": PQConfig(block_size=5)})
    noise = add_quant_noise(model, RULES)
    with pytest.raises(ValueError, match="has Quant-Noise already"):
        add_quant_noise(model, RULES)
    model.train()
    with pytest.raises(RuntimeError, match="Call the method `step`"):
        model(torch.tensor([[1, 2]]))
    assert isinstance(noise, QuantNoise)


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_fine_tuning_ends_with_the_same_weights(kind, tiny_roberta, tiny_data, tmp_path, interrupt):
    settings_ = FinetuneConfig(batch_size=16, epochs=2, lr=3e-3, checkpoint_every=2)
    noise = NoiseConfig(kind=kind, p=0.3, refresh_every=3, schedule="linear")

    def train(model, checkpoint=None):
        with add_quant_noise(model, RULES, noise) as active:
            return finetune(model, tiny_data, settings_, noise=active, checkpoint=checkpoint)

    whole, parts = tiny_roberta(0), tiny_roberta(0)
    losses = train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(interrupt(tiny_roberta(0), 6), tmp_path / "state.safetensors")
    assert train(parts, tmp_path / "state.safetensors") == losses
    assert same(latents(parts), latents(whole))
    plain = tiny_roberta(0)
    assert finetune(plain, tiny_data, settings_, checkpoint=tmp_path / "state.safetensors") != losses  # other work


def test_no_noise_is_no_change(tiny_roberta, tiny_data):
    # Parametrized weights come after biases, so that the gradient's norm has other rounding: not clipped.
    settings_ = FinetuneConfig(batch_size=16, lr=3e-3, max_grad_norm=1e9)
    plain, noisy = tiny_roberta(0), tiny_roberta(0)
    finetune(plain, tiny_data, settings_)
    with add_quant_noise(noisy, RULES, NoiseConfig(kind="pq", p=0.0)) as noise:
        finetune(noisy, tiny_data, settings_, noise=noise)
    assert same(latents(plain), latents(noisy))


def test_training_with_exact_noise_lowers_the_loss_of_quantization():
    """The claim of Quant-Noise on a tiny regression: nearer to its targets once its weights are quantized."""
    rules = {"0|2": PQConfig(n_centroids=16, block_size=4)}
    losses = {0.0: 0.0, 0.2: 0.0}
    for seed in range(3):
        for p in losses:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                x, teacher = torch.randn(512, 16), nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
                model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 4)).train()
            y = teacher(x).detach()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            with add_quant_noise(model, rules, NoiseConfig(kind="pq", p=p, refresh_every=25, seed=seed)) as noise:
                for step in range(300):
                    noise.step(step, 300)
                    loss = nn.functional.mse_loss(model(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            quantize_(model, rules)
            losses[p] += float(nn.functional.mse_loss(model(x).detach(), y)) / 3
    assert losses[0.2] < 0.75 * losses[0.0]


def test_checkpoints_hold_codebooks(tiny_roberta, tiny_data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "save_checkpoint", lambda path, key, parameters, buffers, *_: seen.append(set(buffers)))
    model = tiny_roberta(0)
    with add_quant_noise(model, RULES, NoiseConfig(kind="pq")) as noise:
        config = FinetuneConfig(batch_size=32, checkpoint_every=1)
        finetune(model, tiny_data, config, noise=noise, checkpoint=tmp_path / "state")
    assert {"refreshed", "classifier.dense.codes", "classifier.dense.centroids"} <= seen[0]
    assert json.loads(NoiseConfig().to_json())["kind"] == "proxy"


def test_noise_does_not_hide_the_fisher_weights(tiny_roberta, tiny_data):
    batches = [tiny_data.batch(range(16))]
    name = "roberta.encoder.layer.0.intermediate.dense"
    expected = fisher_weights(tiny_roberta(0), batches, [name])
    noisy = tiny_roberta(0)
    with add_quant_noise(noisy, preset_rules("roberta", n_centroids=8), NoiseConfig(kind="proxy", p=0.5)):
        found = fisher_weights(noisy.train(), batches, [name])
    assert float(expected[name].std()) > 0.1
    assert torch.allclose(found[name], expected[name])
