"""Two processes, as torchrun starts them, train as one; clustering in processes gives the serial bits."""

import json

import pytest
import torch

from compression.quantization.rules import preset_rules, quantize_
from compression.training.distributed import shard
from compression.training.ipq import IPQConfig, ipq
from compression.training.reassignment import Latents
from tests.test_compression.two_processes import run_by_two

SCRIPT = r"""
import hashlib, json, os, sys
from pathlib import Path

import torch
from conftest import make_tiny_data, make_tiny_roberta
from compression.quantization.rules import preset_rules
from compression.training import ipq as ipq_module
from compression.training.distributed import process_group, rank, world_size
from compression.training.ipq import IPQConfig, ipq

folder = Path(sys.argv[1])
with process_group():
    assert world_size() == 2
    if rank() == 1:
        ipq_module.quantize_ = None  # the first process clusters for both
    model = make_tiny_roberta(0)
    config = IPQConfig(stages=("ffn", "attention"), steps_per_stage=4, batch_size=9, checkpoint_every=2)
    rules = (preset_rules("roberta", n_centroids=8, shared=("ffn",))[i] for i in (0, 2))
    report = ipq(
        model, tuple(rules), train_data=make_tiny_data().subset(range(40)), teacher=make_tiny_roberta(0), config=config,
        checkpoints=folder / "checkpoints",
    )
    state = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    (folder / f"{rank()}.json").write_text(json.dumps([state, [stage.losses for stage in report.stages]]))
"""


@pytest.mark.slow
def test_two_processes_train_like_one(tiny_roberta, tiny_data, tmp_path):
    run_by_two(SCRIPT, tmp_path)
    first, second = (json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1))
    assert first == second
    model = tiny_roberta(0)
    config = IPQConfig(stages=("ffn", "attention"), steps_per_stage=4, batch_size=9)
    rules = tuple(preset_rules("roberta", n_centroids=8, shared=("ffn",))[number] for number in (0, 2))
    report = ipq(model, rules, train_data=tiny_data.subset(range(40)), teacher=tiny_roberta(0), config=config)
    losses = [stage.losses for stage in report.stages]
    assert torch.allclose(torch.tensor(first[1]), torch.tensor(losses), rtol=1e-3)
    for name, tensor in model.state_dict().items():
        assert torch.allclose(torch.tensor(first[0][name], dtype=tensor.dtype), tensor, atol=2e-3), name
    names = sorted(path.name.split("-")[-1] for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["run.json", "stages.safetensors"]


def test_shards_are_a_partition_whose_factors_give_the_mean(monkeypatch):
    for n in (1, 2, 3, 5):
        monkeypatch.setattr("compression.training.distributed.world_size", lambda n=n: n)
        for size in (1, 2, 7, 10):
            rows = list(range(100, 100 + size))
            values = {row: float(row**2) for row in rows}
            total, seen = 0.0, []
            for number in range(n):
                monkeypatch.setattr("compression.training.distributed.rank", lambda number=number: number)
                mine, factor = shard(rows)
                total += factor * sum(values[row] for row in mine) / len(mine) / n
                seen += mine if factor else []
            assert sorted(seen) == rows
            assert total == pytest.approx(sum(values.values()) / size)


def test_clustering_in_processes_gives_the_serial_bits(tiny_roberta):
    serial, parallel = tiny_roberta(0), tiny_roberta(0)
    rules = preset_rules("roberta", n_centroids=8)
    generator = torch.Generator().manual_seed(0)
    name = "classifier.dense"
    weights = {name: torch.rand(32, 32, generator=generator) + 0.1}
    first = quantize_(serial, rules, sample_weights=weights)
    second = quantize_(parallel, rules, sample_weights=weights, n_workers=2)
    assert all(torch.equal(tensor, parallel.state_dict()[key]) for key, tensor in serial.state_dict().items())
    assert [report.relative_error for report in first] == [report.relative_error for report in second]
    unweighted = tiny_roberta(0)
    quantize_(unweighted, rules)
    weighted = serial.state_dict()
    changed = {key for key, tensor in unweighted.state_dict().items() if not torch.equal(tensor, weighted[key])}
    assert changed == {f"{name}.centroids", f"{name}.codes"}


def test_reassignment_takes_the_nearest_codeword_of_the_latent_weight(tiny_roberta):
    model = tiny_roberta(0)
    name = "roberta.encoder.layer.0.intermediate.dense"
    dense = model.get_parameter(f"{name}.weight").detach().clone()
    entries = torch.rand(dense.shape, generator=torch.Generator().manual_seed(1)) + 0.1
    for weights in (None, {name: entries}):
        model = tiny_roberta(0)
        latents = Latents(weights)
        latents.add({name: dense})
        quantize_(model, preset_rules("roberta", n_centroids=8)[:1])
        module = model.get_submodule(name)
        with torch.no_grad():
            module.centroids += 0.1 * torch.randn(8, 8, generator=torch.Generator().manual_seed(2))
        assert latents.reassign(model) > 0
        blocks, w = dense.reshape(-1, 1, 8), (entries if weights else torch.ones_like(dense)).reshape(-1, 1, 8)
        expected = (w * (blocks - module.centroids.detach()[None]) ** 2).sum(2).argmin(1)
        assert torch.equal(module.codes.long().flatten(), expected)
        assert latents.reassign(model) == 0


def test_latent_weights_get_the_gradient_of_the_weight_and_change_no_value(tiny_roberta, tiny_data):
    model = tiny_roberta(0)
    names = ["roberta.encoder.layer.1.output.dense", "roberta.embeddings.word_embeddings"]
    latents = Latents()
    latents.add({name: model.get_parameter(f"{name}.weight") for name in names})
    rules = {name.replace(".", r"\."): preset_rules("roberta", n_centroids=8)[0].config for name in names}
    quantize_(model, rules)
    batch = tiny_data.batch(range(8))
    plain = model(**batch).logits
    dense = tiny_roberta(0)
    with torch.no_grad():
        for name in names:
            dense.get_parameter(f"{name}.weight").copy_(model.get_submodule(name).weight)
    dense(**batch).logits.square().sum().backward()
    trained = latents.attach(model)
    logits = model(**batch).logits
    assert torch.equal(logits, plain)
    logits.square().sum().backward()
    for name in names:
        gradient = trained[f"{name}.latent"].grad
        assert torch.allclose(gradient, dense.get_parameter(f"{name}.weight").grad, rtol=1e-3, atol=1e-5)
    latents.detach(model)
    assert set(model.state_dict()) >= {f"{name}.codes" for name in names}
    assert not any("latent" in name for name in model.state_dict())


@pytest.mark.parametrize("reassign", ["stage", "steps"])
def test_reassigned_codes_stand_for_the_fine_tuned_centroids(tiny_roberta, tiny_data, reassign):
    model, kept = tiny_roberta(0), tiny_roberta(0)
    rules = preset_rules("roberta", n_centroids=8, stages=("ffn", "attention"))
    config = IPQConfig(
        stages=("ffn", "attention"), steps_per_stage=8, lr=1e-2, reassign=reassign, reassign_every=2, latent_lr=1e-3
    )
    ipq(model, rules, train_data=tiny_data, teacher=tiny_roberta(0), config=config)
    never = config.model_copy(update={"reassign": "never"})
    ipq(kept, rules, train_data=tiny_data, teacher=tiny_roberta(0), config=never)
    name = "roberta.encoder.layer.0.output.dense"
    assert not torch.equal(model.get_submodule(name).codes, kept.get_submodule(name).codes)
    assert all(module.latent is None for module in model.modules() if hasattr(module, "latent"))
