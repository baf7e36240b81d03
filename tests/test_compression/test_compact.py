"""Codes in as many bits in memory as in the file: same values, same files, less memory."""

import copy

import pytest
import torch

from compression import PQConfig, compact_, load_compressed_, preset_rules, quantize_, save_compressed
from compression.quantization.activations import quantize_activations_
from compression.quantization.blocks import code_bits
from compression.quantization.compact import CompactEmbedding, CompactLinear
from compression.quantization.folder import save_folder
from compression.quantization.layers import PQEmbedding, PQLinear, pq_modules
from compression.quantization.rules import Rule
from compression.quantization.storage import file_bytes, round_

IDS = torch.randint(3, 120, (4, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["float16", "int8"])
def model(tiny_roberta, request):
    """Return a tiny classifier with layers of 300 codewords, some shared, and others of 16."""
    model = tiny_roberta(0)
    base = PQConfig(block_size=2, n_centroids=300, codebook_dtype=request.param)
    rules = [
        Rule(pattern=r".*\.(query|key)", config=base, shared=True),
        Rule(pattern=r".*(word_embeddings|dense)", config=base),
        Rule(pattern=r".*value", config=base.model_copy(update={"n_centroids": 16})),
    ]
    quantize_(model, rules)
    round_(model)
    return model


def memory(model):
    """Return the bytes of codes."""
    return sum(
        buffer.numel() * buffer.element_size() for layer in pq_modules(model).values() for buffer in layer.buffers()
    )


def logits(model):
    """Return the logits of fixed sentences."""
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_values_and_files_are_the_same_and_memory_is_less(model, tmp_path):
    compacted = compact_(copy.deepcopy(model))
    kinds = {type(layer) for layer in pq_modules(compacted).values()}
    assert kinds == {CompactLinear, CompactEmbedding, PQLinear}
    assert torch.equal(logits(compacted), logits(model))
    wide = [layer for layer in pq_modules(model).values() if layer.n_centroids > 256]
    saved = sum(layer.codes.numel() for layer in wide) * 7 // 8
    assert memory(model) - memory(compacted) == pytest.approx(saved, abs=2 * len(wide))
    assert file_bytes(compacted) == file_bytes(model)
    for number, one in enumerate((model, compacted)):
        save_compressed(one, tmp_path / f"{number}.safetensors")
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    state, other = model.state_dict(), compacted.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_weights_dense_layers_and_gradients(model):
    compacted = compact_(copy.deepcopy(model))
    for name, layer in pq_modules(model).items():
        other = pq_modules(compacted)[name]
        assert torch.equal(other.weight, layer.weight)
        assert torch.equal(other.dense().weight, layer.dense().weight)
        assert repr(other) == repr(layer).replace("PQ", "Compact" if layer.n_centroids > 256 else "PQ", 1)
    for one in (model, compacted):
        one(input_ids=IDS).logits.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in compacted.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], rtol=1e-5, atol=1e-7), name
    books = [len({id(layer.centroids) for layer in pq_modules(one).values()}) for one in (model, compacted)]
    assert books[0] == books[1] < len(pq_modules(model))


def test_state_is_loaded_into_it(model, tiny_roberta, tmp_path):
    compacted = compact_(copy.deepcopy(model))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = next(name for name, layer in pq_modules(compacted).items() if isinstance(layer, CompactLinear))
    state[f"{name}.codes"] = state[f"{name}.codes"].flip(0)
    compacted.load_state_dict(state)
    assert torch.equal(pq_modules(compacted)[name].codes, state[f"{name}.codes"])
    save_compressed(compacted, tmp_path / "model.safetensors")
    loaded = compact_(load_compressed_(tiny_roberta(3), tmp_path / "model.safetensors"))
    assert torch.equal(logits(loaded), logits(compacted))


def test_a_loaded_folder_takes_the_memory_of_its_file(model, tmp_path):
    from transformers import AutoModelForSequenceClassification

    save_folder(model, tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True)
    bits = [max(8, code_bits(layer.n_centroids)) * layer.codes.numel() for layer in pq_modules(model).values()]
    packed = sum(-(-n // 8) for n in bits)
    assert memory(loaded) == pytest.approx(packed, rel=0.02, abs=2 * len(pq_modules(model)))
    assert memory(loaded) < 0.75 * memory(model)
    assert torch.equal(logits(loaded), logits(model))


def test_training_and_other_devices_unpack_the_codes(model):
    compacted = compact_(copy.deepcopy(model))
    before = {type(layer) for layer in pq_modules(model).values()}
    assert {type(layer) for layer in pq_modules(compacted.train().eval()).values()} == before
    assert torch.equal(logits(compacted), logits(model))
    assert memory(compacted) == memory(model)
    names = list(dict(compacted.named_buffers()))
    assert names == list(dict(model.named_buffers()))
    moved = compact_(copy.deepcopy(model)).to("meta")
    assert {type(layer) for layer in pq_modules(moved).values()} == before
    assert {type(layer) for layer in pq_modules(compact_(copy.deepcopy(model).train())).values()} == before
    kept = compact_(copy.deepcopy(model)).to(torch.float32)
    assert CompactLinear in {type(layer) for layer in pq_modules(kept).values()}


def test_layers_that_compute_in_integers_keep_plain_codes(model):
    quantize_activations_(model, [{"input_ids": IDS}])
    kinds = {type(layer) for layer in pq_modules(compact_(copy.deepcopy(model))).values()}
    integers = {layer.codebook_dtype for layer in pq_modules(model).values()} == {"int8"}
    assert (CompactLinear in kinds) == (not integers)
    assert CompactEmbedding in kinds


def test_layers_of_few_codewords_stay_and_it_can_be_done_twice(tiny_roberta):
    model = tiny_roberta(0)
    quantize_(model, preset_rules("roberta", block_size=4, n_centroids=16))
    before = pq_modules(model)
    assert pq_modules(compact_(compact_(model))) == before
    assert {type(layer) for layer in before.values()} == {PQLinear, PQEmbedding}
