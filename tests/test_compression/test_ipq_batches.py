"""iPQ of any module: convolutional networks, token tasks and own losses, on batches in place of encoded sentences."""

import copy
import doctest
import importlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from compression import (
    DistillationConfig,
    EncodedData,
    IPQConfig,
    PQConfig,
    Rule,
    compress,
    ipq,
    load_compressed_,
    preset_rules,
    quantize_,
    save_compressed,
)
from compression.quantization.calibration import activation_weights, all_logits
from compression.quantization.layers import pq_modules
from compression.quantization.storage import dense_bytes, file_bytes, round_
from compression.training.distillation import logit_loss, teach
from compression.training.objectives import BatchDistillation, _step_identity, objective_of
from tests.test_compression.digits import RULES, STAGES, accuracy, digits, network, trained_network
from tests.test_compression.two_processes import run_by_two

TRAIN, TEST = digits()
BATCHES = TRAIN[0].split(32)
SHORT = IPQConfig(stages=STAGES, steps_per_stage=4, checkpoint_every=2, lr=3e-3)
RUNNING = ("3.running_mean", "3.running_var", "3.num_batches_tracked")


@pytest.fixture(scope="module")
def teacher():
    """Return the trained network."""
    return trained_network(*TRAIN)


def step(model, batch):
    """Return the cross entropy of a batch of images and labels."""
    images, labels = batch
    return functional.cross_entropy(model(images), labels)


def equal(first, second):
    """Return whether two models have the same state, bit for bit."""
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_convolutional_network_keeps_its_accuracy_at_a_small_fraction_of_its_bytes(teacher, tmp_path):
    before = copy.deepcopy(teacher)
    plain, model = copy.deepcopy(teacher), copy.deepcopy(teacher)
    quantize_(plain, RULES)
    config = IPQConfig(stages=STAGES, steps_per_stage=60, lr=1e-2)
    weights = activation_weights(teacher, BATCHES)
    report = ipq(model, RULES, train_data=BATCHES, teacher=teacher, config=config, sample_weights=weights)
    assert equal(teacher, before)
    round_(model)
    reached = {name: accuracy(net, *TEST) for name, net in (("fp32", teacher), ("plain", plain), ("iPQ", model))}
    assert reached["fp32"] > 0.95
    assert reached["iPQ"] > reached["fp32"] - 0.08
    assert reached["iPQ"] > reached["plain"] + 0.1
    assert [stage.stage for stage in report.stages] == list(STAGES)
    assert {layer.name for layer in report.layers} == set(pq_modules(model)) == {"2", "5", "9", "11"}
    assert all(torch.equal(model.state_dict()[name], teacher.half().float().state_dict()[name]) for name in RUNNING)
    path = tmp_path / "digits.safetensors"
    assert save_compressed(model, path) == file_bytes(model) == path.stat().st_size < dense_bytes(teacher) / 25
    loaded = load_compressed_(network(5), path).eval()
    assert torch.equal(loaded(TEST[0]), model(TEST[0]))


def test_a_step_of_ones_own_minimises_what_it_returns(teacher):
    labelled = list(zip(BATCHES, TRAIN[1].split(32), strict=True))
    data = torch.utils.data.TensorDataset(*TRAIN)
    first, second = copy.deepcopy(teacher), copy.deepcopy(teacher)
    config = IPQConfig(stages=STAGES, steps_per_stage=60, lr=1e-2)
    ipq(first, RULES, train_data=labelled, train_step=step, config=config)
    assert accuracy(first, *TEST) > 0.85
    ipq(second, RULES, train_data=torch.utils.data.DataLoader(data, batch_size=32), train_step=step, config=config)
    assert equal(first, second)
    teaching = BatchDistillation(teacher, DistillationConfig())
    a, b = copy.deepcopy(teacher), copy.deepcopy(teacher)
    ipq(a, RULES, train_data=BATCHES, teacher=teacher, config=SHORT)
    ipq(b, RULES, train_data=BATCHES, train_step=lambda model, batch: teaching(model, batch), config=SHORT)
    assert equal(a, b)


def test_every_epoch_takes_each_batch_once_in_an_order_of_the_seed(teacher):
    seen = []

    def remember(model, batch):
        seen.append(int(batch[0, 0]))
        return model(TRAIN[0][:4]).square().mean()

    orders = []
    for seed in (0, 0, 1):
        seen.clear()
        config = SHORT.model_copy(update={"seed": seed, "steps_per_stage": 7})
        batches = torch.arange(10.0).reshape(5, 2, 1)
        ipq(copy.deepcopy(teacher), RULES, train_data=batches.unbind(), train_step=remember, config=config)
        orders.append(seen[1:])  # the first one is the check of the loss
    assert orders[0] == orders[1] != orders[2]
    for order in orders:
        assert sorted(order[:5]) == sorted(order[7:12]) == [0, 2, 4, 6, 8]
        assert len(order) == 14


def test_regression_is_taught_by_squared_differences():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 8, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        teacher = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    plain, model = copy.deepcopy(teacher), copy.deepcopy(teacher)
    rules = {"0|2": PQConfig(block_size=4, n_centroids=4)}
    quantize_(plain, rules)
    config = IPQConfig(stages=("all",), steps_per_stage=80, lr=1e-2)
    report = ipq(model, rules, train_data=x.split(16), teacher=teacher, config=config)
    errors = [(net(x) - teacher(x)).square().mean().item() for net in (plain, model)]
    assert errors[1] < 0.3 * errors[0]
    unfitted = IPQConfig(stages=("all",), steps_per_stage=1)
    report = ipq(copy.deepcopy(teacher), rules, train_data=[x], teacher=teacher, config=unfitted)
    assert report.stages[0].losses[0] == pytest.approx(errors[0], rel=1e-5)


def test_batches_of_a_transformer_teach_as_its_encoded_sentences_do(tiny_roberta, tiny_data):
    data = tiny_data.subset(range(16))
    batch = data.batch(range(16))
    hidden = DistillationConfig(hidden_weight=0.7, hidden_layers=(1, 2))
    rules = preset_rules("roberta", block_size=8, n_centroids=4)
    config = IPQConfig(stages=("ffn",), steps_per_stage=5, batch_size=16, distillation=hidden)
    first, second = tiny_roberta(0), tiny_roberta(0)
    a = ipq(first, rules, train_data=data, teacher=teach(tiny_roberta(0), data, hidden_layers=(1, 2)), config=config)
    b = ipq(second, rules, train_data=[batch], teacher=tiny_roberta(0), config=config)
    # The same loss but for the order of the sentences and the half precision in which hidden states are kept.
    assert b.stages[0].losses == pytest.approx(a.stages[0].losses, rel=1e-2)


def test_padding_of_token_tasks_does_not_count():
    embed, head = nn.Embedding(20, 8), nn.Linear(8, 3)

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = copy.deepcopy(embed), copy.deepcopy(head)

        def forward(self, input_ids, attention_mask):
            return self.head(self.embed(input_ids))

    ids = torch.tensor([[3, 4, 0], [5, 0, 0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    teacher, student = Tagger(), Tagger()
    with torch.no_grad():
        student.head.weight.mul_(0.5)
        found = BatchDistillation(teacher, DistillationConfig())(student, {"input_ids": ids, "attention_mask": mask})
        rows = torch.tensor([3, 4, 5])
        expected = [net.head(net.embed(rows)) for net in (student, teacher)]
    assert found.item() == pytest.approx(logit_loss(*expected, 2.0).item(), rel=1e-6)


def test_the_trainer_of_transformers_gives_step_and_batches(tiny_roberta, tiny_data, tmp_path):
    pytest.importorskip("accelerate", reason="transformers.Trainer needs the extra `trainer`")
    from transformers import Trainer, TrainingArguments

    rows = [
        {name: tensor[0] for name, tensor in tiny_data.batch([i]).items()} | {"labels": tiny_data.labels[i]}
        for i in range(len(tiny_data))
        if tiny_data.lengths[i] == tiny_data.lengths[0]
    ]
    model = tiny_roberta(0)
    options = {"use_cpu": True, "report_to": [], "dataloader_pin_memory": False, "disable_tqdm": True}
    arguments = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=4, **options)
    trainer = Trainer(model, arguments, train_dataset=rows)
    config = IPQConfig(stages=("ffn",), steps_per_stage=30, lr=1e-2)
    rules = preset_rules("roberta", n_centroids=4)
    run = {"train_data": list(trainer.get_train_dataloader()), "train_step": trainer.compute_loss, "config": config}
    report = ipq(model, rules, checkpoints=tmp_path / "checkpoints", **run)
    (losses,) = (stage.losses for stage in report.stages)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    again = tiny_roberta(0)
    ipq(again, rules, checkpoints=tmp_path / "checkpoints", **run)
    assert equal(again, model)


def test_rules_of_a_budget_and_inputs_in_8_bits(teacher):
    planned = compress(teacher, "12x", calibration=BATCHES[:4], sizes=((4, 8), (8, 16), (9, 16)))
    model = copy.deepcopy(teacher)
    config = IPQConfig(stages=("all",), steps_per_stage=20, lr=3e-3, activations="int8")
    run = {"train_data": BATCHES, "teacher": teacher, "config": config, "sample_weights": planned.weights}
    ipq(model, planned.rules, **run)
    assert all(layer.activations is not None for name, layer in pq_modules(model).items())
    reference = torch.cat(all_logits(teacher, TEST[0].split(50)))
    distances = [
        logit_loss(torch.cat(all_logits(net, TEST[0].split(50))), reference, 1.0) for net in (planned.model, model)
    ]
    assert distances[1] < distances[0]


@pytest.mark.parametrize("reassign", ["never", "stage", "steps"])
@pytest.mark.parametrize("stop_at", [3, 7])
def test_resumed_run_equals_an_uninterrupted_one(teacher, interrupt, tmp_path, reassign, stop_at):
    config = SHORT.model_copy(update={"reassign": reassign, "reassign_every": 1, "latent_lr": 1e-3})
    run = {"train_data": BATCHES, "teacher": teacher, "config": config}
    whole = copy.deepcopy(teacher)
    expected = ipq(whole, RULES, **run)
    with pytest.raises(KeyboardInterrupt):
        ipq(interrupt(copy.deepcopy(teacher), 1 + stop_at), RULES, checkpoints=tmp_path, **run)
    resumed = copy.deepcopy(teacher)
    report = ipq(resumed, RULES, checkpoints=tmp_path, **run)
    assert equal(resumed, whole)
    assert [stage.losses for stage in report.stages] == [stage.losses for stage in expected.stages]


def test_a_frozen_bias_stays_frozen_in_a_resumed_run(teacher, interrupt, tmp_path):
    start = copy.deepcopy(teacher)
    frozen = [name for name, bias in start.named_parameters() if name.endswith("bias")]
    for name in frozen:
        start.get_parameter(name).requires_grad_(False)
    run = {"train_data": BATCHES, "teacher": teacher, "config": SHORT}
    whole, resumed = copy.deepcopy(start), copy.deepcopy(start)
    ipq(whole, RULES, **run)
    with pytest.raises(KeyboardInterrupt):
        ipq(interrupt(copy.deepcopy(start), 8), RULES, checkpoints=tmp_path, **run)
    ipq(resumed, RULES, checkpoints=tmp_path, **run)
    assert equal(resumed, whole)
    assert all(torch.equal(resumed.get_parameter(name), start.get_parameter(name)) for name in frozen)


def test_codebooks_of_a_frozen_model_are_trained(teacher):
    model = copy.deepcopy(teacher).requires_grad_(False)
    report = ipq(model, RULES, train_data=BATCHES, teacher=teacher, config=SHORT)
    assert report.stages[-1].losses[-1] < report.stages[-1].losses[0]
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "centroids" not in name)


def test_a_step_is_known_alike_in_every_process():
    """Sets of texts have another order in each, and dictionaries made of them."""
    script = (
        "import torch\n"
        "from functools import partial\n"
        "from compression.training.objectives import _step_identity\n"
        "names = {'a', 'b', 'c', ('d', 'e')}\n"
        "def make(*captured):\n"
        "    def step(model, batch, kind=object(), *, options=dict.fromkeys(names, torch.ones(2))):\n"
        "        return captured, step if batch in {'a', 'b', 'c', ('d', 'e')} else lambda: 'f'\n"
        "    return step\n"
        "step = make(names, [b'x', None, {1.5: True}], len, torch.nn.ReLU())\n"
        "print(_step_identity(partial(step, kind=frozenset(names))))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1


class Scaled:
    """A loss with a factor of its own."""

    def __init__(self, factor):
        self.factor = factor

    def step(self, model, batch):
        """Return the loss."""
        return self.factor * model(batch).square().mean()


def with_factor(model, batch, factor):
    """Return the loss times a factor."""
    return factor * model(batch).square().mean()


def scaled(factor):
    """Return a step that captures a factor."""

    def step(model, batch):
        return factor * model(batch).square().mean()

    return step


def with_default(factor):
    """Return a step with a factor as the default of an argument."""

    def step(model, batch, factor=factor):
        return factor * model(batch).square().mean()

    return step


def with_option(factor):
    """Return a step with a factor as the default of an argument that is given by name."""

    def step(model, batch, *, factor=factor):
        return factor * model(batch).square().mean()

    return step


def calling_itself(factor):
    """Return a step that captures itself beside a factor."""

    def step(model, batch):
        return factor * (model(batch).square().mean() if factor > 0 else step(model, batch))

    return step


VALUES = [
    *(1, 2, 1.0, True, 1j, "1", b"1", None, torch.float16, len, abs, int),
    *((1,), [1], {1}, frozenset({1}), {1: 2}, {1: [2]}, (1, (2,))),
    *(np.arange(3), np.arange(3.0), np.float32(1), torch.arange(3), torch.ones(3), torch.ones(3, 1)),
    *(Scaled(1), Scaled(1).step, step, partial(step, batch=1), partial(step, batch=2), scaled(1), scaled(2)),
]


@pytest.mark.parametrize("make", [scaled, with_default, with_option, lambda value: partial(step, value)])
def test_a_step_is_known_by_the_plain_values_that_it_captured(make):
    known = [_step_identity(make(value)) for value in VALUES]
    assert len(set(known)) == len(known)
    assert known == [_step_identity(make(copy.copy(value))) for value in VALUES]
    assert _step_identity(make({"a": 1, "b": 2})) == _step_identity(make({"b": 2, "a": 1}))
    for one, other in ((Scaled(1), Scaled(2)), (nn.Linear(1, 1), nn.Linear(1, 1)), (Scaled(1).step, Scaled(2).step)):
        assert _step_identity(make(one)) == _step_identity(make(other))  # of objects only what they are
    itself = [1]
    itself.append(itself)
    assert _step_identity(make(itself)) != _step_identity(make([1]))


def test_a_step_with_other_captured_values_is_refused(teacher, tmp_path):
    config = SHORT.model_copy(update={"steps_per_stage": 1})
    run = {"train_data": BATCHES, "config": config}

    def losses(folder, train_step):
        report = ipq(copy.deepcopy(teacher), RULES, train_step=train_step, checkpoints=tmp_path / folder, **run)
        return [stage.losses for stage in report.stages]

    makers = (scaled, with_default, with_option, calling_itself, lambda factor: partial(with_factor, factor=factor))
    for number, make in enumerate(makers):
        first = losses(str(number), make(1.0))
        assert losses(str(number), make(1.0)) == first
        with pytest.raises(ValueError, match="`train_step` must be that of the run"):
            losses(str(number), make(5.0))


def test_a_gradient_that_is_not_finite_is_an_error(teacher):
    def step(model, batch):
        x = model(batch)
        return x.mean() + (x - x.detach()).square().sum().sqrt()  # 0, of which the gradient is 0/0

    with pytest.raises(FloatingPointError, match="gradient of step 0 is nan"):
        ipq(copy.deepcopy(teacher), RULES, train_data=BATCHES, train_step=step, config=SHORT)


@pytest.mark.parametrize("reassign", ["stage", "steps"])
def test_codes_of_a_bfloat16_model_are_reassigned(teacher, reassign):
    model = copy.deepcopy(teacher).bfloat16()
    inputs = [batch.bfloat16() if batch.is_floating_point() else batch for batch in BATCHES]
    config = SHORT.model_copy(update={"reassign": reassign, "reassign_every": 1, "latent_lr": 1e-3})
    ipq(model, RULES, train_data=inputs, teacher=copy.deepcopy(model), config=config)
    assert all(layer.centroids.dtype == torch.bfloat16 for layer in pq_modules(model).values())


def test_another_run_is_refused_in_the_same_folder(teacher, tmp_path):
    config = SHORT.model_copy(update={"steps_per_stage": 1})
    run = {"train_data": BATCHES, "teacher": teacher, "config": config, "checkpoints": tmp_path}
    ipq(copy.deepcopy(teacher), RULES, **run)
    labelled = list(zip(BATCHES, TRAIN[1].split(32), strict=True))
    for name, other in (
        ("train_data", {"train_data": BATCHES[1:]}),
        ("teacher", {"teacher": network(3).eval()}),
        ("train_step", {"teacher": None, "train_step": lambda model, batch: model(batch).square().mean()}),
        ("train_data", {"teacher": None, "train_step": step, "train_data": labelled}),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be that of the run"):
            ipq(copy.deepcopy(teacher), RULES, **run | other)
    with pytest.raises(ValueError, match="`model` must be that of the run"):
        ipq(copy.deepcopy(teacher).requires_grad_(False), RULES, **run)
    steps = [lambda model, batch: model(batch).square().mean(), lambda model, batch: model(batch).square().sum()]
    own = [run | {"teacher": None, "train_step": step, "checkpoints": tmp_path / "own"} for step in steps]
    ipq(copy.deepcopy(teacher), RULES, **own[0])
    with pytest.raises(ValueError, match="`train_step` must be that of the run"):
        ipq(copy.deepcopy(teacher), RULES, **own[1])
    for before, after in (("float32", "int8"), ("int8", "float32")):
        folder = {"checkpoints": tmp_path / before}
        settings = [config.model_copy(update={"activations": value}) for value in (before, after)]
        ipq(copy.deepcopy(teacher), RULES, **run | folder | {"config": settings[0]})
        with pytest.raises(ValueError, match=f"`activations` must be '{before}' .* but is '{after}'"):
            ipq(copy.deepcopy(teacher), RULES, **run | folder | {"config": settings[1]})
    strange = [object()]
    own = {"train_step": lambda model, _: model(BATCHES[0]).square().mean(), "teacher": None, "train_data": strange}
    with pytest.raises(ValueError, match=r"with `checkpoints`.* holds object"):
        ipq(copy.deepcopy(teacher), RULES, **run | own)
    ipq(copy.deepcopy(teacher), RULES, **run | own | {"checkpoints": None})


def one(model, batch):
    """Return a loss that depends on the parameters."""
    return model(batch).mean()


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("`teacher`.* and `train_step`.* neither was", {"teacher": None}),
        ("`teacher`.* and `train_step`.* both were", {"train_step": one}),
        ("at least one batch, but was empty", {"train_data": []}),
        ("but was Tensor", {"train_data": TRAIN[0]}),
        ("but was dict", {"train_data": {"input": TRAIN[0]}}),
        ("but was int", {"train_data": 3}),
        ("but held tuple. Give a `train_step`", {"train_data": [(TRAIN[0], TRAIN[1])]}),
        ("not empty", {"train_data": [TRAIN[0][:0]]}),
        ("logits as `model` does", {"teacher": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))}),
        ("must return logits", {"teacher": nn.Identity(), "train_data": [TRAIN[1][:5]], "model": nn.Identity()}),
        ("`label_weight`", {"config": SHORT.model_copy(update={"distillation": DistillationConfig(label_weight=1.0)})}),
        ("scalar tensor .* shape", {"train_step": lambda m, b: m(b).mean(0), "teacher": None}),
        ("scalar tensor .* float", {"train_step": lambda m, b: m(b).mean().item(), "teacher": None}),
        ("depends on none of them", {"train_step": lambda m, b: m(b).mean().detach(), "teacher": None}),
        ("must be finite, but is nan", {"train_step": lambda m, b: m(b).mean() * torch.nan, "teacher": None}),
        ("evaluation mode", {"train_step": lambda m, b: m.train()(b).mean(), "teacher": None}),
        (
            "`distillation` must be the default",
            {
                "train_step": one,
                "teacher": None,
                "config": SHORT.model_copy(update={"distillation": DistillationConfig(temperature=1.0)}),
            },
        ),
        (
            "cannot calibrate `activations`",
            {
                "train_step": step,
                "teacher": None,
                "train_data": [(TRAIN[0][:9], TRAIN[1][:9])],
                "config": SHORT.model_copy(update={"activations": "int8"}),
            },
        ),
        ("matches no", {"rules": (Rule(pattern="conv", config=PQConfig(), stage="kernels"), *RULES[1:])}),
    ],
)
def test_what_cannot_work_is_refused_before_any_clustering(teacher, tmp_path, monkeypatch, message, changes):
    def clustering(*_, **__):
        raise AssertionError("it clusters")

    monkeypatch.setattr("compression.training.ipq.quantize_", clustering)
    if "model" in changes:  # an object without logits
        teacher = WithoutLogits(teacher)
        changes = {"rules": {"net.2": PQConfig(block_size=9)}, "config": IPQConfig(stages=("all",))}
    model = copy.deepcopy(teacher)
    run = {"rules": RULES, "train_data": BATCHES, "teacher": teacher, "config": SHORT, "checkpoints": tmp_path / "run"}
    with pytest.raises(ValueError, match=message):
        ipq(model, **run | changes)
    assert not any(tmp_path.iterdir())
    assert pq_modules(model) == {}


class WithoutLogits(nn.Module):
    """A module that returns a dictionary."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return {"output": self.net(x)}


def test_encoded_sentences_take_no_step(tiny_roberta, tiny_data):
    assert isinstance(tiny_data, EncodedData)
    with pytest.raises(ValueError, match="`train_data` must be batches"):
        ipq(
            tiny_roberta(0),
            {".*query": PQConfig()},
            train_data=tiny_data,
            train_step=one,
            config=IPQConfig(stages=("all",)),
        )
    outputs = teach(tiny_roberta(0), tiny_data)
    batches = [tiny_data.batch(range(9))]
    with pytest.raises(ValueError, match="`teacher` must be a module"):
        ipq(
            tiny_roberta(0),
            {".*query": PQConfig()},
            train_data=batches,
            teacher=outputs,
            config=IPQConfig(stages=("all",)),
        )


def test_the_example_of_the_documentation_runs():
    with torch.random.fork_rng(devices=[]):
        failed, tried = doctest.testmod(importlib.import_module("compression.training.ipq"))
    assert (failed, tried) == (0, 8)


KILLED = r"""
import copy, json, os, sys
from pathlib import Path

import torch
from tests.test_compression.digits import RULES, STAGES, digits, network
from compression import IPQConfig, ipq
from shared.artifacts import write_text
from tests.test_compression.killing import killed_at_renaming

folder = Path(sys.argv[1])
config = IPQConfig(
    stages=STAGES, steps_per_stage=4, checkpoint_every=2, reassign="steps", reassign_every=1, latent_lr=1e-3
)
batches = digits()[0][0][:128].split(16)


def noisy(model, batch):
    # A loss that draws random numbers, of a teacher of its own.
    return (model(batch + 0.1 * torch.randn(batch.shape)) - TEACHER(batch)).square().mean()


TEACHER = network().eval().requires_grad_(False)


def result(checkpoints, kill_at=None, after=False):
    model = network()
    with killed_at_renaming(kill_at, after=after):
        report = ipq(model, RULES, train_data=batches, train_step=noisy, config=config, checkpoints=checkpoints)
    state = {name: tensor.numpy().tobytes().hex() for name, tensor in model.state_dict().items()}
    return json.dumps([state, [stage.losses for stage in report.stages]])


def run(checkpoints, out, *kill):
    child = os.fork()
    if child == 0:
        write_text(out, result(checkpoints, *kill))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


whole, points = result(folder / "whole"), 0
for after in (False, True):
    for kill_at in range(1, 20):
        checkpoints, out = folder / f"{after}-{kill_at}", folder / f"{after}-{kill_at}.json"
        if run(checkpoints, out, kill_at, after) == 0:
            break
        points += 1
        assert run(checkpoints, out) == 0
        assert out.read_text() == whole, (after, kill_at)
print(points)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test kills forked processes")
def test_killed_runs_end_with_the_same_numbers(tmp_path):
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "PROGRESS": "0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        int(done.stdout) >= 12
    )  # run.json; two checkpoints, latent weights and a model in each stage; before and after


PARALLEL = r"""
import json, sys
from pathlib import Path

from tests.test_compression.digits import RULES, STAGES, digits, network
from compression import IPQConfig, ipq
from compression.training.distributed import process_group, rank

with process_group():
    net = network()
    config = IPQConfig(stages=STAGES, steps_per_stage=3)
    report = ipq(net, RULES, train_data=digits()[0][0].split(32), teacher=network(), config=config)
    state = {name: tensor.tolist() for name, tensor in net.state_dict().items()}
    (Path(sys.argv[1]) / f"{rank()}.json").write_text(json.dumps([state, [s.losses for s in report.stages]]))

    def step(model, batch, number=rank()):  # known by what is another value in each process
        return model(batch + number).square().mean()

    run = {"train_data": digits()[0][0].split(32), "train_step": step, "checkpoints": Path(sys.argv[1], "own")}
    first, again = (ipq(network(), RULES, config=config, **run).stages for _ in range(2))
    assert [stage.losses for stage in first] == [stage.losses for stage in again]
"""


@pytest.mark.slow
def test_two_processes_take_two_batches_a_step(tmp_path):
    run_by_two(PARALLEL, tmp_path)
    first, second = (json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1))
    assert first == second
    whole = network().eval()
    config = IPQConfig(stages=STAGES, steps_per_stage=3)
    one_process = objective_of(
        BATCHES, network(), None, distillation=config.distillation, precision="float32", batch_size=32
    )
    quantize_(whole, RULES, stage=STAGES[0], seed=0)
    single = one_process.losses(whole, 6, 0)
    with torch.no_grad():
        assert first[1][0][0] == pytest.approx((single(0) + single(1)).item() / 2, rel=1e-4)
