"""Codebooks that several layers share: clustering, training, file, transformers, noise and ONNX."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from compression import NoiseConfig, PQConfig, add_quant_noise, load_compressed_, preset_rules, quantize_
from compression.quantization.files import CompressedFileError, read_header, read_tensors, write_tensors
from compression.quantization.folder import save_folder
from compression.quantization.layer_clustering import ClusterJob, cluster_layers
from compression.quantization.layers import pq_modules
from compression.quantization.rules import Rule
from compression.quantization.storage import (
    dense_bytes,
    file_bytes,
    layer_bytes,
    packed_state,
    round_,
    save_compressed,
    size_report,
)
from compression.training.ipq import IPQConfig, ipq

ATTENTION = r".*attention\..*(query|key|value|dense)"


def shared_rule(n_centroids=32, block_size=4, **options):
    """Return the rule by which all attention layers have one codebook."""
    config = PQConfig(n_centroids=n_centroids, block_size=block_size, **options)
    return Rule(pattern=ATTENTION, config=config, shared=True)


@pytest.fixture
def model(tiny_roberta):
    """Return a tiny classifier whose attention layers share a codebook, at the values that are stored."""
    model = tiny_roberta(0)
    quantize_(model, [shared_rule(), Rule(pattern=r".*word_embeddings", config=PQConfig(block_size=4))])
    round_(model)
    return model


def books(model):
    """Return the different codebooks of a model."""
    return list({id(module.centroids): module.centroids for module in pq_modules(model).values()}.values())


def test_the_layers_of_a_shared_rule_have_one_codebook_that_is_reported_once(tiny_roberta):
    model = tiny_roberta(0)
    dense = {name.removesuffix(".weight"): tensor.clone() for name, tensor in model.state_dict().items()}
    reports = quantize_(model, [shared_rule()], n_workers=1)
    (book,) = books(model)
    assert len(reports) == len(pq_modules(model)) == 8
    first = reports[0].name
    assert [report.shares_with for report in reports] == [None, *[first] * 7]
    assert reports[0].history
    assert not any(report.history for report in reports[1:])
    codes = sum(module.codes.numel() for module in pq_modules(model).values())
    assert sum(report.bits for report in reports) == 5 * codes + 16 * book.numel()
    for report in reports:
        layer = pq_modules(model)[report.name]
        blocks = dense[report.name].reshape(-1, 4)
        nearest = torch.cdist(blocks.double(), book.detach().double()).argmin(1)
        # Ties aside every block has its nearest codeword, whatever the layer's weight in the clustering.
        assert (nearest == layer.codes.reshape(-1)).float().mean() > 0.99
        error = (layer.weight.detach() - dense[report.name]).square().sum() / dense[report.name].square().sum()
        assert report.relative_error == pytest.approx(float(error), rel=1e-5)


def test_a_layer_counts_by_its_relative_error():
    """A layer a thousand times smaller gets its share of the codewords; without that it would get one."""
    generator = np.random.default_rng(0)
    large, small = generator.standard_normal((64, 16)), 1e-3 * generator.standard_normal((64, 16))
    config = PQConfig(n_centroids=32, block_size=4)
    jobs = [ClusterJob(weight.astype(np.float32), config, 0, None) for weight in (large, small)]
    clusterings = cluster_layers(jobs, ["one", "one"])
    assert clusterings[0].centroids is clusterings[1].centroids
    errors = [
        np.square(clustering.weight - job.weight).sum() / np.square(job.weight).sum()
        for clustering, job in zip(clusterings, jobs, strict=True)
    ]
    assert max(errors) < 0.7
    assert errors[1] == pytest.approx(errors[0], rel=0.5)


def test_layers_alone_and_a_group_of_one_are_clustered_as_ever(tiny_roberta):
    plain, shared = tiny_roberta(0), tiny_roberta(0)
    pattern, config = r"classifier\.dense", PQConfig(n_centroids=8, block_size=4)
    quantize_(plain, {pattern: config})
    quantize_(shared, [Rule(pattern=pattern, config=config, shared=True)])
    assert torch.equal(plain.classifier.dense.weight, shared.classifier.dense.weight)
    assert file_bytes(plain) == file_bytes(shared)


def test_processes_give_the_serial_bits(tiny_roberta):
    one, two = tiny_roberta(0), tiny_roberta(0)
    rules = preset_rules("roberta", block_size=4, n_centroids=16, shared=("ffn", "attention"))
    quantize_(one, rules)
    quantize_(two, rules, n_workers=2)
    assert all(torch.equal(tensor, two.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert len(books(one)) == len(books(two)) == 1 + 3 + 1 + 1


def test_weights_of_the_clustering_are_joined(tiny_roberta):
    model = tiny_roberta(0)
    rule = shared_rule(n_centroids=16)
    name = "roberta.encoder.layer.0.attention.self.query"
    weight = model.get_parameter(f"{name}.weight").detach()
    heavy = torch.ones_like(weight)
    heavy[:2] = 1e4
    quantize_(model, [rule], sample_weights={name: heavy})
    error = (model.get_submodule(name).weight - weight).detach().square().mean(1)
    assert error[:2].mean() < 0.7 * error[2:].mean()
    plain = tiny_roberta(0)
    quantize_(plain, [rule])
    assert error[:2].mean() < 0.7 * (plain.get_submodule(name).weight - weight).detach().square().mean(1)[:2].mean()


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_file_holds_the_codebook_once(tiny_roberta, tmp_path, dtype):
    model = tiny_roberta(0)
    quantize_(model, [shared_rule(codebook_dtype=dtype)])
    round_(model)
    path = tmp_path / "model.safetensors"
    size = save_compressed(model, path)
    assert size == path.stat().st_size == file_bytes(model)
    assert read_header(path)["version"] == 3
    rows = layer_bytes(path)
    assert sum(row["bytes"] for row in rows) == size
    assert sum(row["stored"].startswith("shared 32x4") for row in rows) == 7
    assert size_report(model)["codebooks"] == 32 * 4 * (1 if dtype == "int8" else 2)
    assert dense_bytes(model) == dense_bytes(tiny_roberta(0))
    loaded = load_compressed_(tiny_roberta(5), path)
    assert len(books(loaded)) == 1
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    again = tmp_path / "again.safetensors"
    save_compressed(copy.deepcopy(loaded), again)
    assert again.read_bytes() == path.read_bytes()


def test_files_without_sharing_keep_their_version(tiny_roberta, tmp_path):
    model = tiny_roberta(0)
    quantize_(model, {ATTENTION: PQConfig(n_centroids=8, block_size=4)})
    round_(model)
    save_compressed(model, tmp_path / "model.safetensors")
    assert read_header(tmp_path / "model.safetensors")["version"] == 2


@pytest.mark.parametrize("owner", ["nowhere", "the last"])
def test_a_codebook_that_is_not_there_is_refused(model, tiny_roberta, tmp_path, owner):
    path = tmp_path / "model.safetensors"
    save_compressed(model, path)
    header, tensors = read_tensors(path)
    sharing = [name for name, layer in header["layers"].items() if "codebook" in layer]
    header["layers"][sharing[0]]["codebook"] = sharing[-1] if owner == "the last" else owner
    write_tensors(tensors, {key: header[key] for key in ("layers", "extra", "version")}, path)
    with pytest.raises(CompressedFileError, match="damaged in layer"):
        load_compressed_(tiny_roberta(0), path)


@pytest.mark.parametrize("limit", ["50GB", "4KB"])
def test_transformers_loads_and_saves_it(model, tmp_path, limit):
    save_folder(model, tmp_path / "one")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "one", local_files_only=True)
    assert len(books(loaded)) == 2
    loaded.save_pretrained(tmp_path / "two", max_shard_size=limit)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "two", local_files_only=True)
    assert len(books(again)) == 2
    ids = torch.randint(3, 120, (4, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert torch.equal(loaded(input_ids=ids).logits, expected)
        assert torch.equal(again(input_ids=ids).logits, expected)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


@pytest.mark.parametrize("stop_at", [3, 9])
def test_the_codebook_is_trained_once_and_a_run_is_resumed(tiny_roberta, tiny_data, interrupt, tmp_path, stop_at):
    rules = preset_rules(
        "roberta", block_size=4, n_centroids=16, stages=("ffn", "attention"), shared=("ffn", "attention")
    )
    config = IPQConfig(
        stages=("ffn", "attention"), steps_per_stage=6, batch_size=16, checkpoint_every=2, reassign="stage"
    )
    run = {"train_data": tiny_data, "teacher": tiny_roberta(0), "config": config}
    whole = tiny_roberta(0)
    ipq(whole, rules, **run)
    assert len(books(whole)) == 2
    untrained = tiny_roberta(0)
    quantize_(untrained, rules)
    assert not any(torch.equal(*pair) for pair in zip(books(whole), books(untrained), strict=True))
    with pytest.raises(KeyboardInterrupt):
        ipq(interrupt(tiny_roberta(0), stop_at), rules, checkpoints=tmp_path, **run)
    resumed = tiny_roberta(0)
    ipq(resumed, rules, checkpoints=tmp_path, **run)
    assert len(books(resumed)) == 2
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in resumed.state_dict().items())


def test_the_gradient_is_the_sum_of_the_averages():
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 4, bias=False))
    quantize_(net, [Rule(pattern="[01]", config=PQConfig(n_centroids=4, block_size=4), shared=True)])
    one, two = net[0], net[1]
    separate = copy.deepcopy(net)
    separate[1].centroids = nn.Parameter(separate[0].centroids.detach().clone())
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert one.centroids is two.centroids
    net(x).square().sum().backward()
    separate(x).square().sum().backward()
    total = separate[0].centroids.grad + separate[1].centroids.grad
    assert torch.allclose(one.centroids.grad, total, rtol=1e-5, atol=1e-6)


def test_exact_noise_has_the_shared_codebook(tiny_roberta):
    model = tiny_roberta(0)
    rule = shared_rule(n_centroids=100)  # more than a layer alone could have blocks of its own kind for
    noise = add_quant_noise(model, [rule], NoiseConfig(kind="pq", p=1.0))
    noise.step(0, 1)
    model.train()
    noisy = {name: model.get_submodule(name).weight.detach().clone() for name in noise.layers}
    noise.remove()
    quantize_(model, [rule])
    for name, weight in noisy.items():
        assert torch.allclose(weight, model.get_submodule(name).weight, rtol=2e-3, atol=1e-4)


def test_onnx_stores_it_once(model, tmp_path):
    onnx = pytest.importorskip("onnx")
    from compression import export_onnx

    report = export_onnx(model, tmp_path / "model.onnx")
    assert report.difference < 1e-5
    stored = onnx.load(report.path).graph.initializer
    assert sum(tensor.name.endswith(".book") for tensor in stored) == 2


def test_bad_input(tiny_roberta):
    with pytest.raises(ValueError, match="`shared`"):
        preset_rules("roberta", stages=("ffn",), shared=("attention",))
    model = tiny_roberta(0)
    model.roberta.encoder.layer[1].attention.half()
    with pytest.raises(ValueError, match="one data type and device"):
        quantize_(model, [shared_rule()])
    assert not pq_modules(model)


def test_a_rule_that_is_not_shared_is_known_as_before():
    rule = Rule(pattern="a", config=PQConfig())
    assert "shared" not in rule.to_json()
    assert Rule.from_json(shared_rule().to_json()).shared


def test_all_layers_of_a_shared_codebook_are_rounded_to_one_type():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    config = PQConfig(block_size=4, n_centroids=16)
    quantize_(model, [Rule(pattern=r"\d", config=config, shared=True)])
    round_(model, codebooks="int8")
    assert {module.codebook_dtype for module in pq_modules(model).values()} == {"int8"}
    stored = [tensor for name, tensor in packed_state(model)[0].items() if name.endswith("centroids")]
    assert [tensor.dtype for tensor in stored] == [torch.int8]
