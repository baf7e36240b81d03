"""Accuracy, intervals, paired comparison and distillation losses against hand-computed values."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from compression.quantization.calibration import evaluating
from compression.training.distillation import DistillationConfig, distillation_loss, hidden_loss, logit_loss, teach
from compression.training.evaluate import (
    Evaluation,
    evaluate,
    matthews_correlation,
    paired_bootstrap,
    pooled_bootstrap,
    predict_logits,
    wilson_interval,
)


def test_wilson_interval_of_a_textbook_case():
    # 8 of 10 at 95 %: Brown, Cai and DasGupta, Statist. Sci. 16, 101 (2001), formula (4).
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=5e-5)


def test_wilson_interval_refuses_impossible_counts():
    with pytest.raises(ValueError, match="n_right=3"):
        wilson_interval(3, 2)


def test_matthews_correlation_of_two_classes_is_the_usual_formula():
    predictions, labels = np.array([1, 1, 1, 0, 0, 0, 0, 1]), np.array([1, 1, 0, 0, 0, 0, 1, 1])
    tp, fp, tn, fn = 3, 1, 3, 1
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert matthews_correlation(predictions, labels) == pytest.approx(expected)
    assert matthews_correlation(labels, labels) == pytest.approx(1)
    assert matthews_correlation(1 - labels, labels) == pytest.approx(-1)
    assert matthews_correlation(np.zeros(8, int), labels) == 0


def test_evaluation_summary():
    found = Evaluation(np.array([1, 0, 1, 1]), np.array([1, 0, 0, 1]))
    assert found.accuracy == 0.75
    assert found.correct.tolist() == [True, True, False, True]
    low, high = found.interval
    assert low < 0.75 < high
    assert found.summary()["sentences"] == 4


def test_logits_keep_the_order_of_the_data_and_the_mode_of_the_model(tiny_roberta, tiny_data):
    model = tiny_roberta(0).train()
    logits = predict_logits(model, tiny_data, batch_size=7)
    assert model.training
    model.eval()
    for row in (0, 13, 95):
        with torch.inference_mode():
            alone = model(**tiny_data.batch([row])).logits[0]
        assert torch.allclose(logits[row], alone, atol=1e-5)
    assert torch.equal(torch.from_numpy(evaluate(model, tiny_data).predictions), logits.argmax(1))


def test_each_module_is_put_back_into_its_mode(tiny_roberta, tiny_data):
    model = tiny_roberta(0).train()
    model.roberta.encoder.layer[0].eval()
    modes = [module.training for module in model.modules()]
    predict_logits(model, tiny_data)
    teach(model, tiny_data)
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes


def test_bootstrap_spread_is_the_standard_error():
    rng = np.random.default_rng(0)
    a, b = rng.random(2000) < 0.9, rng.random(2000) < 0.8
    found = paired_bootstrap(a, b, n_resamples=4000)
    gain = a.astype(float) - b.astype(float)
    assert found.difference == pytest.approx(gain.mean())
    half_width = 1.96 * gain.std() / math.sqrt(2000)
    assert (found.high - found.low) / 2 == pytest.approx(half_width, rel=0.05)
    assert found.p_value < 0.01


def test_bootstrap_of_equal_models_and_its_sign():
    a, b = np.array([1, 1, 0, 1, 0, 1, 1, 0]), np.array([0, 1, 1, 1, 0, 0, 1, 0])
    forth, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert forth.difference == -back.difference == pytest.approx(1 / 8)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    same = paired_bootstrap(a, a)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_bootstrap_over_seeds_is_wider_than_over_sentences():
    rng = np.random.default_rng(1)
    skill = np.array([0.5, 0.6, 0.9, 0.95])  # runs that differ a lot
    a = rng.random((4, 3000)) < skill[:, None]
    b = rng.random((4, 3000)) < 0.5
    both = paired_bootstrap(a, b, n_resamples=2000)
    one = paired_bootstrap(a.reshape(-1), b.reshape(-1), n_resamples=2000)
    assert both.difference == pytest.approx(one.difference)
    assert both.high - both.low > 3 * (one.high - one.low)


def test_bootstrap_is_that_of_single_seeds_and_sentences():
    rng = np.random.default_rng(2)
    a, b = rng.random((3, 400)) < np.array([[0.8], [0.85], [0.9]]), rng.random((3, 400)) < 0.8
    found = paired_bootstrap(a, b, n_resamples=20_000)
    gain = a.astype(float) - b.astype(float)
    drawn = [gain[np.ix_(rng.integers(3, size=3), rng.integers(400, size=400))].mean() for _ in range(4000)]
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)


def test_pooled_bootstrap_is_the_mean_of_tasks_resampled_apart():
    rng = np.random.default_rng(3)
    pairs = [(rng.random((3, n)) < skill, rng.random((3, n)) < 0.8) for n, skill in ((300, 0.9), (500, 0.7))]
    found = pooled_bootstrap(pairs, n_resamples=20_000)
    gains = [a.astype(float) - b.astype(float) for a, b in pairs]
    assert found.difference == pytest.approx((gains[0].mean() + gains[1].mean()) / 2)  # not by sentences

    def drawn(gain):
        n_seeds, n = gain.shape
        return gain[np.ix_(rng.integers(n_seeds, size=n_seeds), rng.integers(n, size=n))].mean()

    means = [np.mean([drawn(gain) for gain in gains]) for _ in range(4000)]
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.004)
    assert pooled_bootstrap(pairs[:1]) == paired_bootstrap(*pairs[0])
    opposite = [pairs[0], pairs[0][::-1]]
    assert pooled_bootstrap(opposite).difference == pytest.approx(0)


def test_bootstrap_refuses_unpaired_data():
    with pytest.raises(ValueError, match="`pairs` must hold at least one task"):
        pooled_bootstrap([])
    with pytest.raises(ValueError, match="`n_resamples` must be at least 1, but was 0"):
        pooled_bootstrap([(np.ones(3), np.ones(3))], n_resamples=0)
    with pytest.raises(ValueError, match="correct_b"):
        paired_bootstrap(np.ones(3), np.ones(4))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logit_loss_is_the_divergence_and_zero_for_equals(temperature):
    student, teacher = torch.tensor([[1.0, -1.0], [0.5, 2.0]]), torch.tensor([[2.0, 0.0], [3.0, -1.0]])
    p, q = (torch.softmax(x / temperature, 1) for x in (teacher, student))
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert logit_loss(student, teacher, temperature).item() == pytest.approx(expected.item(), rel=1e-5)
    assert logit_loss(student, student + 3, temperature).item() == pytest.approx(0, abs=1e-6)  # shifts do not matter


def test_hidden_loss_is_relative():
    teacher = torch.tensor([[3.0, 4.0]])
    assert hidden_loss(torch.zeros(1, 2), teacher).item() == pytest.approx(1)
    assert hidden_loss(10 * teacher, 10 * teacher).item() == 0


def test_teacher_outputs_do_not_depend_on_padding(tiny_roberta, tiny_data):
    teacher = tiny_roberta(0)
    outputs = teach(teacher, tiny_data, hidden_layers=(-1, 1), batch_size=5)
    assert outputs.logits.shape == (96, 2)
    assert outputs.hidden[-1].shape == (int(tiny_data.lengths.sum()), 32)
    with torch.inference_mode():
        alone = teacher(**tiny_data.batch([17]), output_hidden_states=True)
    assert torch.allclose(outputs.hidden_of(-1, [17]), alone.hidden_states[-1][0], rtol=1e-3, atol=1e-5)
    assert torch.allclose(outputs.hidden_of(1, [17]), alone.hidden_states[1][0], rtol=1e-3, atol=1e-5)


def test_a_model_has_no_distillation_loss_to_itself(tiny_roberta, tiny_data):
    model = tiny_roberta(0)
    config = DistillationConfig(hidden_weight=1.0, hidden_layers=(0, 1, -1))
    outputs = teach(model, tiny_data, hidden_layers=config.needed_layers)
    rows = [5, 80, 3, 41]
    assert distillation_loss(model, tiny_data, rows, outputs, config).item() == pytest.approx(0, abs=1e-6)
    other = distillation_loss(tiny_roberta(1), tiny_data, rows, outputs, config)
    assert other.item() > 0.1
    labelled = distillation_loss(model, tiny_data, rows, outputs, DistillationConfig(label_weight=2.0))
    with torch.inference_mode():
        logits = model(**tiny_data.batch(rows)).logits
    expected = 2 * nn.functional.cross_entropy(logits, tiny_data.labels[rows])
    assert labelled.item() == pytest.approx(expected.item(), rel=1e-4)
