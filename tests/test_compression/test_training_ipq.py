"""Staged quantization with distillation: what it trains, what it gains, and that it resumes."""

from dataclasses import replace

import pytest
import torch

from compression.quantization.blocks import PQConfig
from compression.quantization.layers import PQEmbedding, PQLinear, pq_modules
from compression.quantization.rules import preset_rules, quantize_
from compression.training.distillation import DistillationConfig, logit_loss, teach
from compression.training.evaluate import predict_logits
from compression.training.ipq import IPQConfig, ipq
from shared.config import ConfigError

STAGES = ("ffn", "embeddings", "attention")
SETTINGS = IPQConfig(steps_per_stage=6, batch_size=16, lr=3e-3, remainder_lr=3e-4, checkpoint_every=2, seed=2)


def rules(n_centroids=8):
    """Return coarse rules, so that quantization hurts."""
    return preset_rules("roberta", block_size=8, n_centroids=n_centroids, stages=STAGES)


def tensors(model):
    """Return all parameters and codes."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first, second):
    """Return whether two states are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def teacher(tiny_roberta, tiny_data):
    """Return a tiny teacher with its outputs."""
    return teach(tiny_roberta(0), tiny_data, hidden_layers=(1, 2))


def divergence(model, data, teacher):
    """Return how far a model is from the teacher."""
    return logit_loss(predict_logits(model, data), teacher.logits, 1.0).item()


def test_distillation_brings_the_model_back_to_its_teacher(tiny_roberta, tiny_data, teacher):
    plain = tiny_roberta(0)
    quantize_(plain, rules(2), seed=0)
    trained = tiny_roberta(0)
    config = SETTINGS.model_copy(update={"steps_per_stage": 40})
    report = ipq(trained, rules(2), train_data=tiny_data, teacher=teacher, config=config)
    assert divergence(trained, tiny_data, teacher) < 0.5 * divergence(plain, tiny_data, teacher)
    assert [stage.stage for stage in report.stages] == ["ffn", "embeddings", "attention"]
    assert [len(stage.losses) for stage in report.stages] == [40, 40, 40]
    assert {layer.name for layer in report.layers} == set(pq_modules(trained))


def test_every_stage_replaces_its_layers(tiny_roberta, tiny_data, teacher):
    model = tiny_roberta(0)
    seen = []
    after = lambda m: seen.append(len(pq_modules(m))) or 0.25  # noqa: E731
    report = ipq(model, rules(), train_data=tiny_data, teacher=teacher, config=SETTINGS, after_stage=after)
    assert seen == [4, 7, 15]  # 2 layers: 2 feed-forward each, 3 tables, 4 attention matrices each
    assert [stage.accuracy for stage in report.stages] == [0.25] * 3
    assert isinstance(model.roberta.embeddings.word_embeddings, PQEmbedding)
    assert isinstance(model.roberta.encoder.layer[1].attention.self.query, PQLinear)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_distillation_in_bfloat16_ends_near_that_in_float32(tiny_roberta, tiny_data):
    distances, hidden = {}, DistillationConfig(hidden_weight=1.0, hidden_layers=(1, 2))
    for precision in ("float32", "bfloat16"):
        config = SETTINGS.model_copy(update={"precision": precision, "distillation": hidden})
        model = tiny_roberta(0)
        ipq(model, rules(2), train_data=tiny_data, teacher=tiny_roberta(0), config=config)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        reference = predict_logits(tiny_roberta(0), tiny_data)
        distances[precision] = logit_loss(predict_logits(model, tiny_data), reference, 1.0).item()
    assert distances["bfloat16"] != distances["float32"]
    assert distances["bfloat16"] == pytest.approx(distances["float32"], rel=0.1)  # untrained: 0.169, trained: 0.067


def test_remainder_rate_zero_trains_centroids_only(tiny_roberta, tiny_data, teacher):
    before = tensors(tiny_roberta(0))
    for rate in (0.0, 1e-3):
        model = tiny_roberta(0)
        config = SETTINGS.model_copy(update={"remainder_lr": rate})
        ipq(model, rules(), train_data=tiny_data, teacher=teacher, config=config)
        kept = {name: tensor for name, tensor in tensors(model).items() if name in before}
        unchanged = {name for name, tensor in kept.items() if torch.equal(tensor, before[name])}
        assert (unchanged == set(kept)) == (rate == 0)
        assert {"classifier.out_proj.weight", "roberta.encoder.layer.0.output.LayerNorm.weight"} <= set(kept)


def test_codes_are_those_of_the_clustering(tiny_roberta, tiny_data, teacher):
    untrained, trained = tiny_roberta(0), tiny_roberta(0)
    stages = ("ffn+embeddings+attention",)
    config = SETTINGS.model_copy(update={"stages": stages, "steps_per_stage": 0})
    ipq(untrained, rules(), train_data=tiny_data, teacher=teacher, config=config)
    config = SETTINGS.model_copy(update={"stages": stages})
    ipq(trained, rules(), train_data=tiny_data, teacher=teacher, config=config)
    for name, module in pq_modules(untrained).items():
        assert torch.equal(module.codes, pq_modules(trained)[name].codes)
        assert not torch.equal(module.centroids, pq_modules(trained)[name].centroids)


def test_hidden_states_and_a_teacher_module(tiny_roberta, tiny_data, teacher):
    config = SETTINGS.model_copy(
        update={"distillation": DistillationConfig(hidden_weight=1.0, hidden_layers=(1, 2)), "stages": ("attention",)}
    )
    first, second = tiny_roberta(0), tiny_roberta(0)
    a = ipq(first, rules(), train_data=tiny_data, teacher=teacher, config=config)
    b = ipq(second, rules(), train_data=tiny_data, teacher=tiny_roberta(0), config=config)
    assert a.stages[0].losses == b.stages[0].losses
    assert equal(tensors(first), tensors(second))


@pytest.mark.parametrize("stop_at", [2, 5, 8, 17])
def test_resumed_run_equals_an_uninterrupted_one(tiny_roberta, tiny_data, teacher, interrupt, tmp_path, stop_at):
    whole = tiny_roberta(0)
    expected = ipq(whole, rules(), train_data=tiny_data, teacher=teacher, config=SETTINGS)
    run = {"train_data": tiny_data, "teacher": teacher, "config": SETTINGS, "checkpoints": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        ipq(interrupt(tiny_roberta(0), stop_at), rules(), **run)
    resumed = tiny_roberta(0)
    calls = []
    resumed.register_forward_pre_hook(lambda *_: calls.append(1))
    report = ipq(resumed, rules(), **run)
    assert equal(tensors(resumed), tensors(whole))
    assert [stage.losses for stage in report.stages] == [stage.losses for stage in expected.stages]
    assert [layer.relative_error for layer in report.layers] == [layer.relative_error for layer in expected.layers]
    inertias = [[row.inertia for row in layer.history] for layer in report.layers]
    assert inertias == [[row.inertia for row in layer.history] for layer in expected.layers]
    assert len(calls) == 18 - 2 * ((stop_at - 1) // 2)


@pytest.mark.parametrize("stop_at", [7, 30])
def test_inputs_in_8_bits_are_trained_for_and_resumed(tiny_roberta, tiny_data, teacher, interrupt, tmp_path, stop_at):
    config = SETTINGS.model_copy(update={"activations": "int8"})
    coded = preset_rules("roberta", block_size=4, n_centroids=16, base=PQConfig(codebook_dtype="int8"), stages=STAGES)
    arguments = {"train_data": tiny_data, "teacher": teacher, "config": config}
    whole = tiny_roberta(0)
    ipq(whole, coded, **arguments)
    grids = {name: layer.activations for name, layer in pq_modules(whole).items()}
    assert all((grid is not None) == isinstance(pq_modules(whole)[name], PQLinear) for name, grid in grids.items())
    with pytest.raises(KeyboardInterrupt):
        ipq(interrupt(tiny_roberta(0), stop_at), coded, checkpoints=tmp_path, **arguments)
    resumed = tiny_roberta(0)
    ipq(resumed, coded, checkpoints=tmp_path, **arguments)
    assert equal(tensors(resumed), tensors(whole))
    assert {name: layer.activations for name, layer in pq_modules(resumed).items()} == grids
    again = tiny_roberta(0)  # from the checkpoint of the last stage alone
    ipq(again, coded, checkpoints=tmp_path, **arguments)
    assert {name: layer.activations for name, layer in pq_modules(again).items()} == grids
    plain = tiny_roberta(0)
    quantize_(plain, coded)
    assert divergence(whole, tiny_data, teacher) < divergence(plain, tiny_data, teacher)


def test_a_setting_that_came_later_leaves_the_identity_of_older_runs():
    assert "activations" not in SETTINGS.to_json()
    assert IPQConfig.from_json(SETTINGS.to_json()) == SETTINGS
    later = SETTINGS.model_copy(update={"activations": "int8"})
    assert IPQConfig.from_json(later.to_json()) == later != SETTINGS


def test_finished_run_is_read_and_other_work_is_refused(tiny_roberta, tiny_data, teacher, tmp_path):
    run = {"train_data": tiny_data, "teacher": teacher, "checkpoints": tmp_path}
    first = tiny_roberta(0)
    ipq(first, rules(), config=SETTINGS, **run)
    again = tiny_roberta(0)
    calls = []
    again.register_forward_pre_hook(lambda *_: calls.append(1))
    ipq(again, rules(), config=SETTINGS, **run)
    assert calls == []
    assert equal(tensors(again), tensors(first))
    calls = []
    with pytest.raises(ValueError, match=r"`seed` must be 2 .* but is 9"):
        ipq(tiny_roberta(0), rules(), config=SETTINGS.model_copy(update={"seed": 9}), **run)
    for name, arguments in (("rules", (tiny_roberta(0), rules(4))), ("model", (tiny_roberta(1), rules()))):
        with pytest.raises(ValueError, match=f"`{name}` must be that of the run"):
            ipq(*arguments, config=SETTINGS, **run)


def test_bad_arguments_come_before_any_work(tiny_roberta, tiny_data, teacher):
    model = tiny_roberta(0)
    before = tensors(model)
    with pytest.raises(ValueError, match="another object"):
        ipq(model, rules(), train_data=tiny_data, teacher=model)
    with pytest.raises(ValueError, match="'ffm'"):
        ipq(model, rules(), train_data=tiny_data, teacher=teacher, config=IPQConfig(stages=("ffn", "ffm")))
    with pytest.raises(ConfigError, match=r"`stages`.* names 'ffn' more than once"):
        IPQConfig(stages=("ffn+attention", "ffn"))
    with pytest.raises(ValueError, match="96"):
        ipq(model, rules(), train_data=tiny_data.subset([1, 2]), teacher=teacher)
    hidden = IPQConfig(distillation=DistillationConfig(hidden_weight=1.0, hidden_layers=(0,)))
    with pytest.raises(ValueError, match="hidden states"):
        ipq(model, rules(), train_data=tiny_data, teacher=teacher, config=hidden)
    with pytest.raises(ConfigError, match="`hidden_layers` must name a layer where `hidden_weight` is 1"):
        DistillationConfig(hidden_weight=1.0, hidden_layers=())
    for layer in (3, -4):
        hidden = IPQConfig(distillation=DistillationConfig(hidden_weight=1.0, hidden_layers=(-1, layer)))
        with pytest.raises(ValueError, match=f"`distillation.hidden_layers` .* from -3 to 2 .* but holds {layer}"):
            ipq(model, rules(), train_data=tiny_data, teacher=tiny_roberta(0), config=hidden)
    labels = IPQConfig(distillation=DistillationConfig(label_weight=1.0))
    outside = replace(tiny_data, labels=tiny_data.labels.index_fill(0, torch.tensor([5]), 7))
    for one in (teacher, tiny_roberta(0)):
        with pytest.raises(ValueError, match=r"`train_data` must hold labels from 0 to 1, .* but has 7: give"):
            ipq(model, rules(), train_data=outside, teacher=one, config=labels)
    assert equal(tensors(model), before)
    with pytest.raises(ConfigError, match="steps_per_stage"):
        IPQConfig.build({"steps_per_stages": 3})


@pytest.mark.parametrize("config", [None, SETTINGS, SETTINGS.model_copy(update={"stages": ("all",)})])
def test_mapping_of_patterns_is_one_stage(tiny_roberta, tiny_data, teacher, config):
    model = tiny_roberta(0)
    pattern = r".*\.intermediate\.dense"
    report = ipq(model, {pattern: PQConfig(n_centroids=4)}, train_data=tiny_data, teacher=teacher, config=config)
    assert len(pq_modules(model)) == 2
    assert [stage.stage for stage in report.stages] == ["all"]


def test_stages_that_are_not_given_are_those_of_the_rules(tiny_roberta, tiny_data, teacher):
    model = tiny_roberta(0)
    some = preset_rules("roberta", n_centroids=8, stages=("attention", "head"))
    report = ipq(model, some, train_data=tiny_data, teacher=teacher, config=IPQConfig(steps_per_stage=1))
    assert [stage.stage for stage in report.stages] == ["attention", "head"]
    assert {layer.name for layer in report.layers} == set(pq_modules(model))
