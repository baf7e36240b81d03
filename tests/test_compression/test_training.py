"""The training loop and fine-tuning: schedule, determinism, checkpoints."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from compression.quantization.quant_noise import NoiseConfig, add_quant_noise
from compression.quantization.rules import preset_rules
from compression.training.classifiers import find_trained
from compression.training.evaluate import evaluate
from compression.training.finetune import (
    FinetuneConfig,
    RunningAverage,
    finetune,
    finetuned_minilm,
    load_classifier,
    save_classifier,
)
from compression.training.loop import Schedule, run_steps
from compression.training.losses import label_loss
from compression.training.precision import autocast, multiplies_bfloat16
from shared.config import ConfigError

SETTINGS = FinetuneConfig(epochs=2, batch_size=16, lr=2e-3, checkpoint_every=3, seed=4)


def state_of(model):
    """Return a copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(first, second):
    """Return whether two states are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_schedule_rises_to_one_and_falls_to_zero():
    schedule = Schedule(20, 0.25)
    factors = [schedule(step) for step in range(20)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5:] == pytest.approx([(20 - step) / 15 for step in range(5, 20)])
    assert schedule(20) == 0


def test_loop_is_adamw_computed_by_hand():
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    losses = run_steps({"w": weight}, lambda step: (3 * weight).sum(), 2, lr=0.1, warmup_fraction=0, max_grad_norm=99)
    # A constant gradient makes every Adam step -lr * schedule: 0.1 * 1 and 0.1 * 1/2.
    assert weight.item() == pytest.approx(2.0 - 0.1 - 0.05, abs=1e-7)
    assert losses == pytest.approx([6.0, 5.7])


def test_own_rates_apply_to_their_parameters_only():
    slow, fast = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    run_steps({"slow": slow, "fast": fast}, lambda step: (slow + fast).sum(), 1, lr=0.1, rates={"slow": 0.01})
    assert fast.item() == pytest.approx(-0.1)
    assert slow.item() == pytest.approx(-0.01)


def test_weight_decay_acts_on_matrices_only():
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    loss = lambda step: 0 * (matrix.sum() + vector.sum())  # noqa: E731
    run_steps({"m": matrix, "v": vector}, loss, 1, lr=0.1, weight_decay=0.5, warmup_fraction=0)
    assert matrix.detach().numpy() == pytest.approx(0.95)
    assert vector.detach().numpy() == pytest.approx(1.0)


def test_infinite_loss_stops_with_the_step():
    weight = nn.Parameter(torch.ones(1))
    with pytest.raises(FloatingPointError, match="step 2"):
        run_steps({"w": weight}, lambda step: weight.sum() / (2 - step), 5, lr=1e-3)


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="parameters"):
        run_steps({}, lambda step: torch.zeros(()), 1, lr=1e-3)


def test_finetuning_learns_and_leaves_the_global_random_state(tiny_roberta, tiny_data):
    model = tiny_roberta(0)
    before = torch.random.get_rng_state()
    rows = tiny_data.subset(range(32))
    losses = finetune(model, rows, SETTINGS.model_copy(update={"epochs": 40, "lr": 3e-3}))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.training
    assert len(losses) == 40 * 2
    assert sum(losses[-8:]) < 0.2 * sum(losses[:8])
    assert evaluate(model, rows).accuracy == 1.0


@pytest.mark.parametrize(
    ("labels", "message"), [([0, 7], "labels from 0 to 1, .* but has 7"), ([-1, 0], "-1"), ([0.5, 0.5], "2 outputs")]
)
def test_labels_without_an_output_are_refused_before_any_step(tiny_roberta, tiny_data, labels, message):
    data = replace(tiny_data.subset([0, 1]), labels=torch.tensor(labels))
    with pytest.raises(ValueError, match=f"Argument `data` must hold .*{message}"):
        finetune(tiny_roberta(0), data, SETTINGS)


def test_finetuning_is_a_function_of_its_arguments(tiny_roberta, tiny_data):
    results = []
    for seed in (4, 4, 5):
        model = tiny_roberta(0)
        torch.rand(seed)  # the global random state must not matter
        finetune(model, tiny_data, SETTINGS.model_copy(update={"seed": seed}))
        results.append(state_of(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


@pytest.mark.parametrize("average_from", [0.0, 1.0])
@pytest.mark.parametrize("stop_at", [2, 4, 11])
def test_resumed_finetuning_equals_an_uninterrupted_one(
    tiny_roberta, tiny_data, interrupt, tmp_path, stop_at, average_from
):
    settings = SETTINGS.model_copy(update={"average_from": average_from})
    whole = tiny_roberta(0)
    losses = finetune(whole, tiny_data, settings)
    checkpoint = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        finetune(interrupt(tiny_roberta(0), stop_at), tiny_data, settings, checkpoint=checkpoint)
    assert checkpoint.exists() == (stop_at > 3)
    resumed = tiny_roberta(0)
    calls = []
    resumed.register_forward_pre_hook(lambda *_: calls.append(1))
    assert finetune(resumed, tiny_data, settings, checkpoint=checkpoint) == losses
    assert same(state_of(resumed), state_of(whole))
    assert len(calls) == len(losses) - 3 * ((stop_at - 1) // 3)


def test_a_run_of_another_model_or_noise_is_not_continued(tiny_roberta, tiny_data, interrupt, tmp_path):
    def run(seed, path, block_size=None, stop_at=None):
        model = tiny_roberta(seed)
        noise = None
        if block_size is not None:
            rules = preset_rules("roberta", block_size=block_size, n_centroids=8)
            noise = add_quant_noise(model, rules, NoiseConfig(kind="proxy", p=0.5))
        if stop_at is None:
            return finetune(model, tiny_data, SETTINGS, noise=noise, checkpoint=path)
        with pytest.raises(KeyboardInterrupt):
            finetune(interrupt(model, stop_at), tiny_data, SETTINGS, noise=noise, checkpoint=path)
        return None

    for number, (one, other) in enumerate([((0,), (1,)), ((0, 8), (0, 4))]):
        path = tmp_path / f"{number}.safetensors"
        run(one[0], path, *one[1:], stop_at=8)
        assert path.exists()
        assert run(other[0], path, *other[1:]) == run(other[0], None, *other[1:])


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_a_resumed_run_knows_how_often_each_parameter_got_a_gradient(names, tmp_path):
    checkpoint = tmp_path / "state.safetensors"

    def trained(stop_at=None, **options):
        weights = {name: nn.Parameter(torch.zeros(3)) for name in names}

        def loss(step):
            if step == stop_at:
                raise KeyboardInterrupt
            return (weights["a" if step % 3 else "b"] - torch.arange(3.0)).square().sum()

        losses = run_steps(weights, loss, 20, lr=0.1, checkpoint_every=5, **options)
        return losses, {name: weight.detach() for name, weight in weights.items()}

    losses, whole = trained()
    with pytest.raises(KeyboardInterrupt):
        trained(stop_at=12, checkpoint=checkpoint)
    resumed_losses, resumed = trained(checkpoint=checkpoint)
    assert resumed_losses == losses
    assert same(resumed, whole)


def test_a_checkpoint_with_one_number_of_steps_for_all_parameters_is_read(tmp_path):
    checkpoint = tmp_path / "state.safetensors"

    def trained(**options):
        weight = nn.Parameter(torch.zeros(3))
        losses = run_steps(
            {"w": weight},
            lambda step: (weight - torch.arange(3.0)).square().sum(),
            4,
            lr=0.1,
            checkpoint_every=3,
            **options,
        )
        return losses, weight.detach()

    losses, whole = trained(checkpoint=checkpoint)
    with safe_open(checkpoint, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["steps"]) == {"w": 3}
    save_file(load_file(checkpoint), checkpoint, metadata | {"steps": "3.0"})
    resumed_losses, resumed = trained(checkpoint=checkpoint)
    assert resumed_losses == losses
    assert torch.equal(resumed, whole)


@pytest.mark.parametrize(("average_from", "expected"), [(1.0, 25.0), (0.9, 25.0), (0.5, 20.0), (0.0, 15.0)])
def test_average_is_the_mean_of_the_weights_that_it_takes(average_from, expected):
    # After k steps the weight is k; every tenth step counted back from the last of 25 is taken: 5, 15, 25.
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average = RunningAverage({"w": weight}, average_from, 25)
    for step in range(25):
        average.take(step)
        weight.data += 1
    average.finish()
    assert weight.item() == pytest.approx(expected)


def test_an_average_of_all_steps_has_no_untrained_weights():
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average = RunningAverage({"w": weight}, 0.0, 20)
    for step in range(20):
        average.take(step)
        weight.data += 1
    average.finish()
    assert weight.item() == pytest.approx(15.0)  # of 10 and 20


def test_bfloat16_is_near_float32_and_leaves_the_parameters_in_it(tiny_roberta, tiny_data):
    gradients = {}
    for precision in ("float32", "bfloat16"):
        model = tiny_roberta(0)
        with autocast(precision, torch.device("cpu")):
            logits = model(**tiny_data.batch(range(16))).logits
        assert logits.dtype == getattr(torch, precision)
        label_loss(logits.float(), tiny_data.labels[:16]).backward()
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        gradients[precision] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    error = (gradients["bfloat16"] - gradients["float32"]).norm() / gradients["float32"].norm()
    assert 0 < error < 0.05


def test_auto_precision_is_one_of_the_two(tiny_roberta, tiny_data):
    found = {}
    for precision in ("float32", "bfloat16", "auto"):
        with autocast(precision, torch.device("cpu")), torch.no_grad():
            found[precision] = tiny_roberta(0)(**tiny_data.batch(range(4))).logits
    same_as = "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"
    assert torch.equal(found["auto"], found[same_as])


def test_checkpoint_of_other_work_or_a_damaged_one_is_not_used(tiny_roberta, tiny_data, interrupt, tmp_path):
    checkpoint = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        finetune(interrupt(tiny_roberta(0), 5), tiny_data, SETTINGS, checkpoint=checkpoint)
    other = SETTINGS.model_copy(update={"lr": 1e-3})
    expected = tiny_roberta(0)
    losses = finetune(expected, tiny_data, other)
    for content in (checkpoint.read_bytes(), checkpoint.read_bytes()[:200]):
        checkpoint.write_bytes(content)
        model = tiny_roberta(0)
        assert finetune(model, tiny_data, other, checkpoint=checkpoint) == losses
        assert same(state_of(model), state_of(expected))


def test_saved_classifier_is_read_by_transformers_too(tiny_roberta, tmp_path):
    model = tiny_roberta(3)
    model.config.architectures = ["RobertaForMaskedLM"]  # as of ``roberta-base``
    save_classifier(model, tmp_path)
    assert not find_trained(str(tmp_path)).new_head
    before = torch.random.get_rng_state()
    assert same(state_of(load_classifier(tmp_path)), state_of(model))
    assert torch.equal(torch.random.get_rng_state(), before)
    loaded = type(model).from_pretrained(tmp_path, local_files_only=True)
    assert same(state_of(loaded), state_of(model))


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_tied_weights_are_saved_once(kind, tmp_path):
    config = AutoConfig.for_model(kind, vocab_size=60, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2)
    config.update({"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16})
    model = AutoModelForSequenceClassification.from_config(config).eval()
    save_classifier(model, tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert 0 < size - 4 * sum(tensor.numel() for tensor in model.parameters()) < 20_000
    transformers_own = type(model).from_pretrained(tmp_path, local_files_only=True)
    for loaded in (load_classifier(tmp_path), transformers_own):
        assert same(state_of(loaded), state_of(model))
        assert loaded.state_dict().keys() == model.state_dict().keys()
    tensors = load_file(tmp_path / "model.safetensors")
    for changed in (dict(list(tensors.items())[1:]), tensors | {"more": torch.zeros(1)}):
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(RuntimeError, match="key"):
            load_classifier(tmp_path)


def test_unknown_or_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="batch_size"):
        FinetuneConfig.build({"batchsize": 8})
    with pytest.raises(ConfigError, match="lr"):
        FinetuneConfig.build({"lr": 0})


@pytest.mark.data
@pytest.mark.slow
def test_finetuned_minilm_classifies_sentiment(real_data):
    """The model is the one of the experiments: it is trained here only if the cache does not hold it (minutes)."""
    found = finetuned_minilm()
    assert (len(found.train), len(found.validation)) == (8514, 2128)
    assert found.evaluate().accuracy > 0.83
