"""Folders that transformers loads and saves, and their model cards."""

import copy
import json
import pickle
import re
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    CLIPConfig,
    EsmConfig,
    EsmForSequenceClassification,
    MarianConfig,
    MarianMTModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    T5Config,
    T5ForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from compression import PQConfig, compress, load_compressed_, preset_rules, quantize_, save_compressed
from compression.quantization.configuration import check_configuration, computing_keys
from compression.quantization.files import CompressedFileError, read_header, read_tensors, write_tensors
from compression.quantization.folder import Source, load_folder, save_folder
from compression.quantization.hf import PGIPQConfig, architecture, attach_quantizer_
from compression.quantization.layers import decode_, pq_modules
from compression.quantization.placing import placed
from compression.quantization.rules import Rule
from compression.quantization.storage import dense_bytes, file_bytes, layer_bytes, round_
from shared.results import format_cell

IDS = torch.randint(3, 120, (4, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny_roberta):
    """Return a tiny classifier with all layers quantized, one codebook in int8, at the values that are stored."""
    model = tiny_roberta(0)
    model.config._name_or_path = "/somewhere/private"
    quantize_(model, preset_rules("roberta", block_size=4, n_centroids=24))
    round_(model)
    model.get_submodule("classifier.dense").codebook_dtype = "int8"
    round_(model)
    return model


def load(folder, **options):
    """Return the model of a folder as transformers loads it."""
    return AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, **options)


def logits(model):
    """Return the logits of fixed sentences."""
    with torch.no_grad():
        return model(input_ids=IDS).logits


def same_state(one, two):
    """Return whether two models hold the same bits."""
    left, right = one.state_dict(), two.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("limit", [None, 2000])
def test_from_pretrained_is_bit_identical(model, tmp_path, limit):
    size = save_folder(model, tmp_path, max_shard_bytes=limit)
    assert size == sum(path.stat().st_size for path in tmp_path.glob("model*"))
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (limit is not None)
    loaded = load(tmp_path)
    assert not loaded.training
    assert pq_modules(loaded).keys() == pq_modules(model).keys()
    assert same_state(loaded, model)
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("limit", ["50GB", "5KB"])
def test_save_pretrained_writes_packed_codes_again(model, tmp_path, limit):
    first = save_folder(model, tmp_path / "first")
    load(tmp_path / "first").save_pretrained(tmp_path / "second", max_shard_size=limit)
    files = list((tmp_path / "second").glob("*.safetensors"))
    assert (len(files) > 1) == (limit == "5KB")
    again = load(tmp_path / "second")
    assert same_state(again, model)
    if limit == "50GB":
        assert files[0].stat().st_size <= first


@pytest.mark.parametrize("limit", ["50GB", "5KB"])
def test_files_of_a_variant(model, tmp_path, limit):
    model.save_pretrained(tmp_path, variant="fp16", max_shard_size=limit)
    assert (tmp_path / "model.safetensors.index.fp16.json").is_file() == (limit == "5KB")
    assert same_state(load(tmp_path, variant="fp16"), model)
    first = min(tmp_path.glob("*.safetensors"))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    with pytest.raises(CompressedFileError, match=re.escape(f"{str(first)!r} is damaged: tensor")):
        load(tmp_path, variant="fp16")


def test_a_model_just_quantized_saves_codes(model, tmp_path):
    model.save_pretrained(tmp_path / "whole")
    assert same_state(load(tmp_path / "whole"), model)
    assert same_state(load(tmp_path / "whole", config=model.config), model)
    assert same_state(load(tmp_path / "whole", config=load(tmp_path / "whole").config), model)
    assert (tmp_path / "whole" / "model.safetensors").stat().st_size < 1.2 * save_folder(model, tmp_path / "folder")
    for number, part in enumerate((copy.deepcopy(model), pickle.loads(pickle.dumps(model)), load(tmp_path / "whole"))):
        part.roberta.save_pretrained(tmp_path / f"part{number}")
        encoder = RobertaModel.from_pretrained(tmp_path / f"part{number}", add_pooling_layer=False)
        assert same_state(encoder, model.roberta)


def test_codes_are_saved_whether_or_not_values_are_rounded(tiny_roberta, tmp_path):
    model = tiny_roberta(0)
    dense = type(model)(model.config)
    quantize_(model, {r".*(query|key)": PQConfig(block_size=4, n_centroids=16)})
    model.save_pretrained(tmp_path / "exact")
    assert same_state(load(tmp_path / "exact"), model)
    round_(model)
    model.save_pretrained(tmp_path / "rounded")
    assert same_state(load(tmp_path / "rounded"), model)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("exact", "rounded")]
    assert sizes[1] < 0.7 * sizes[0]
    dense.save_pretrained(tmp_path / "dense")  # made from the same configuration
    assert same_state(load(tmp_path / "dense"), dense)
    decode_(model).save_pretrained(tmp_path / "decoded")
    assert same_state(load(tmp_path / "decoded"), model)
    assert not pq_modules(load(tmp_path / "decoded"))


def test_shared_codebooks_are_saved_once(tiny_roberta, tmp_path):
    model = tiny_roberta(0)
    rule = Rule(pattern=r".*\.(query|key)", config=PQConfig(block_size=4, n_centroids=16), shared=True)
    quantize_(model, [rule])
    round_(model)
    model.save_pretrained(tmp_path / "first")
    loaded = load(tmp_path / "first")
    assert same_state(loaded, model)
    assert len({id(layer.centroids) for layer in pq_modules(loaded).values()}) == 1
    fresh = tiny_roberta(1)
    save_compressed(model, tmp_path / "model.safetensors")
    load_compressed_(fresh, tmp_path / "model.safetensors").save_pretrained(tmp_path / "second")
    assert same_state(load(tmp_path / "second"), model)


def test_compress_gives_a_model_that_saves(tiny_roberta, tmp_path):
    result = compress(tiny_roberta(0), "5x", calibration=[{"input_ids": IDS}], sizes=((8, 16), (4, 16)))
    result.model.save_pretrained(tmp_path)
    assert torch.equal(logits(load(tmp_path)), logits(result.model))


def trainer(model, folder, **options):
    """Return a trainer of 4 steps that saves after each second."""
    rows = [{"input_ids": ids, "labels": torch.tensor(number % 2)} for number, ids in enumerate(IDS)]
    arguments = TrainingArguments(
        str(folder),
        max_steps=4,
        save_steps=2,
        learning_rate=1e-3,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
    return Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)


@pytest.fixture(params=[(), ("ffn", "attention")], ids=["codebooks apart", "shared codebooks"])
def unrounded(tiny_roberta, request):
    """Return a function that makes a tiny quantized classifier; codes have 4 and 9 bits."""

    def make():
        model, sizes = tiny_roberta(0), {"ffn": 300, "attention": 16}
        rules = preset_rules("roberta", block_size=2, n_centroids=sizes, stages=tuple(sizes), shared=request.param)
        quantize_(model, rules)
        return model

    return make


def test_a_checkpoint_of_the_trainer_is_the_model(unrounded, tmp_path):
    model = unrounded()
    before = logits(model)
    trainer(model, tmp_path).train()
    loaded = load(tmp_path / "checkpoint-4")
    assert same_state(loaded, model)
    assert torch.equal(logits(loaded), logits(model.eval()))
    assert not torch.equal(logits(loaded), before)


def test_a_training_is_resumed_from_its_checkpoint(unrounded, tmp_path):
    model, other = unrounded(), unrounded()
    trainer(model, tmp_path).train()
    for fresh in (other, load(tmp_path / "checkpoint-2")):
        trainer(fresh, tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        assert same_state(fresh, model)


def test_the_best_checkpoint_of_a_training_is_loaded(unrounded, tmp_path):
    model = unrounded()
    most = {"metric_for_best_model": "loss", "greater_is_better": True}  # the loss falls: not the last
    best = trainer(model, tmp_path, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True, **most)
    best.train()
    assert best.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert same_state(load(tmp_path / "checkpoint-2"), model)
    assert not same_state(load(tmp_path / "checkpoint-4"), model)


def test_packed_codes_that_do_not_fit_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    before = copy.deepcopy(model.state_dict())
    name = "roberta.encoder.layer.0.output.dense"
    state[f"{name}.codes"] = state[f"{name}.codes"][1:]
    with pytest.raises(RuntimeError, match=rf"Layer '{name}' cannot be read: .* must hold 320 bytes") as caught:
        model.load_state_dict(state, strict=False)
    assert "Layer 'classifier.dense' cannot be read: its codebook is torch.int8, whose scale" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


SIZES = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}


def test_tensors_of_a_checkpoint_with_old_names_are_verified(tmp_path):
    BertForSequenceClassification(BertConfig(**SIZES)).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {re.sub(r"LayerNorm\.\w+", lambda m: old[m[0]], name): tensor for name, tensor in load_file(path).items()}
    assert any("gamma" in name for name in tensors)
    save_file(tensors, path, {"format": "pt"})
    saves_to_the_bit(load(tmp_path), tmp_path)


def test_names_that_transformers_changes_are_its_own_for_dense_weights_only(tmp_path):
    model = EsmForSequenceClassification(EsmConfig(**SIZES, mask_token_id=32)).eval()
    model.save_pretrained(tmp_path / "dense")
    loaded = saves_to_the_bit(model, tmp_path)
    for one in (model, loaded):
        decode_(one).save_pretrained(tmp_path / "decoded")
        dense, decoded = (load_file(tmp_path / folder / "model.safetensors") for folder in ("dense", "decoded"))
        assert dense.keys() == decoded.keys() != one.state_dict().keys()


def test_tables_that_transformers_would_leave_out_are_saved(tmp_path):
    config = MarianConfig(vocab_size=120, d_model=32, encoder_layers=1, decoder_layers=1, pad_token_id=0)
    model = MarianMTModel(config)
    assert "model.encoder.embed_positions.weight" in model._keys_to_ignore_on_save
    quantize_(model, {r".*fc1": PQConfig(block_size=4, n_centroids=16)})
    round_(model)
    model.save_pretrained(tmp_path)
    assert same_state(MarianMTModel.from_pretrained(tmp_path), model)


def modern_bert():
    """Return a tiny random ModernBERT, which draws the weights of a layer's parts together."""
    special = {f"{name}_token_id": 1 for name in ("bos", "eos", "cls", "sep")}
    return ModernBertForSequenceClassification(ModernBertConfig(**SIZES | special)).eval()


def tiny_t5():
    """Return a tiny random T5, which does, too."""
    return T5ForSequenceClassification(T5Config(vocab_size=120, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4))


@pytest.mark.parametrize("make", [modern_bert, tiny_t5])
def test_models_that_draw_weights_of_their_parts_are_loaded(make, tmp_path):
    model = make()
    quantize_(model, {r".*\.(Wi|Wo|Wqkv|wi|wo|dense|tok_embeddings)": PQConfig(block_size=4, n_centroids=16)})
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert pq_modules(loaded).keys() == pq_modules(model).keys()
    assert same_state(loaded, model)


def test_rotary_frequencies_which_the_file_lacks_are_not_rounded(tmp_path):
    model = modern_bert()
    before = copy.deepcopy(dict(model.named_buffers()))
    loaded = saves_to_the_bit(model, tmp_path, r".*\.(Wqkv|Wi)")
    for one in (model, loaded):
        buffers = dict(one.named_buffers())
        assert all(torch.equal(buffer, buffers[name]) for name, buffer in before.items())
    assert any("inv_freq" in name for name in before.keys() - model.state_dict().keys())


def saves_to_the_bit(model, folder, pattern=r".*\.(query|dense)"):
    """Return what a model is after it was quantized and twice saved and loaded, whole and in parts."""
    quantize_(model, {pattern: PQConfig(block_size=4, n_centroids=16)})
    round_(model)
    loaded = model
    for name, limit in (("whole", "50GB"), ("parts", "5KB")):
        loaded.save_pretrained(folder / name, max_shard_size=limit)
        loaded = load(folder / name)
        assert same_state(loaded, model)
        assert torch.equal(logits(loaded), logits(model))
    return loaded


def test_a_quantizer_is_attached_by_hand(tiny_roberta, tmp_path):
    model = tiny_roberta(0)
    quantize_(model.roberta.encoder, {r".*query": PQConfig(block_size=4, n_centroids=16)})
    attach_quantizer_(model).save_pretrained(tmp_path)
    assert same_state(load(tmp_path), model)


def test_a_quantizer_needs_quantized_layers(tiny_roberta):
    with pytest.raises(ValueError, match="call `quantize_` first"):
        attach_quantizer_(tiny_roberta(0))


def test_damage_is_refused_by_from_pretrained(model, tmp_path):
    save_folder(model, tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    for name in ("classifier.dense.codes", "classifier.out_proj.bias"):
        damaged = bytearray(content)
        damaged[start + entries[name]["data_offsets"][0]] ^= 64
        path.write_bytes(damaged)
        with pytest.raises(CompressedFileError, match=name):
            load(tmp_path)
    path.write_bytes(content[:-1])
    with pytest.raises(CompressedFileError, match="truncated"):
        load(tmp_path)


def without_configuration(folder):
    """Write the file of a folder again as releases did that kept no configuration in it."""
    header, tensors = read_tensors(folder)
    kept = {key: value for key, value in header.items() if key != "checksums"}
    write_tensors(tensors, kept | {"extra": {}}, folder / "model.safetensors")


@pytest.mark.parametrize("whole", [True, False])
def test_a_foreign_file_is_refused(model, tmp_path, whole):
    save_folder(model if whole else model.roberta, tmp_path)
    without_configuration(tmp_path)
    config = BertConfig(vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    with pytest.raises(CompressedFileError, match=r"does not fit .*: (it has no layer|'bert\.embeddings)"):
        BertForSequenceClassification.from_pretrained(tmp_path, config=with_format(config), local_files_only=True)
    short = copy.deepcopy(model.config)
    short.num_hidden_layers = 1
    for kind in (RobertaModel, RobertaForSequenceClassification):
        with pytest.raises(CompressedFileError, match=r"it has no layer '.*layer\.1\."):
            kind.from_pretrained(tmp_path, config=with_format(short), local_files_only=True)


NEW_VALUES = {
    "model_type": "xlm-roberta",
    "vocab_size": 121,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "hidden_act": "relu",
    "max_position_embeddings": 41,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-3,
    "pad_token_id": 1,
    "bos_token_id": 3,
    "eos_token_id": 3,
    "is_decoder": True,
    "is_encoder_decoder": True,
    "tie_word_embeddings": False,
    "sliding_window": 2,  # of no RoBERTa, but general code of transformers asks for it
}
"""Another value of each key of a tiny RoBERTa that may enter the computation of a model."""

FREE_VALUES = {
    "_name_or_path": "elsewhere",
    "transformers_version": "5.0.0",
    "architectures": ["RobertaForMaskedLM"],
    "hidden_dropout_prob": 0.5,
    "attention_probs_dropout_prob": 0.5,
    "classifier_dropout": 0.5,
    "initializer_range": 0.5,
    "use_cache": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "return_dict": False,
    "chunk_size_feed_forward": 4,
    "problem_type": "multi_label_classification",
    "id2label": {"0": "bad", "1": "good"},
    "label2id": {"bad": 0, "good": 1},
    "tokenizer_class": "RobertaTokenizer",
}
"""The same of each key that does not, the type of the weights aside."""


@pytest.fixture(params=["save_folder", "save_pretrained", "parts"])
def saved(model, tmp_path, request):
    """Return the folder of a model, and a function that writes another value into its config.json."""
    if request.param == "save_folder":
        save_folder(model, tmp_path)
    else:
        model.save_pretrained(tmp_path, max_shard_size="5KB" if request.param == "parts" else "50GB")
    before = json.loads((tmp_path / "config.json").read_text())

    def edit(key, value):
        (tmp_path / "config.json").write_text(json.dumps(before | {key: value}))

    return tmp_path, edit


def test_an_edited_configuration_is_refused(model, saved):
    folder, edit = saved
    for key, value in NEW_VALUES.items():
        edit(key, value)
        was = model.config.to_dict().get(key)
        message = (
            f"key `{key}` of its configuration must be {was!r}, as when the file was saved, but was {value!r}. Take"
        )
        with pytest.raises(CompressedFileError, match=re.escape(message)):
            load(folder)
        if key != "model_type":
            with pytest.raises(CompressedFileError, match=f"key `{key}`"):
                AutoModel.from_pretrained(folder)
        with pytest.raises(CompressedFileError, match=f"key `{key}`"):
            load_folder(folder)


def test_keys_that_do_not_enter_the_computation_are_free(model, saved):
    folder, edit = saved
    for key, value in FREE_VALUES.items():
        edit(key, value)
        with torch.no_grad():
            found = load(folder)(input_ids=IDS)  # a tuple without `return_dict`
        assert torch.equal((found if isinstance(found, tuple) else found.to_tuple())[0], logits(model)), key
    for dtype in ("float32", "bfloat16"):
        edit("dtype", dtype)
        assert str(load(folder).dtype) == f"torch.{dtype}"
    known = {"dtype", "quantization_config"} | NEW_VALUES.keys() | FREE_VALUES.keys()
    known.add("add_cross_attention")  # which transformers refuses itself
    assert model.config.to_dict().keys() <= known


def test_options_of_from_pretrained(model, saved):
    folder, _ = saved
    assert load(folder, num_labels=3, ignore_mismatched_sizes=True).num_labels == 3
    assert load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    eager = load(folder, attn_implementation="eager", hidden_dropout_prob=0.0)
    assert torch.allclose(logits(eager), logits(model), rtol=0, atol=1e-5)
    with pytest.raises(CompressedFileError, match=r"`hidden_act` of its configuration must be 'gelu'.*was 'relu'"):
        load(folder, hidden_act="relu")


def test_a_model_with_another_configuration_is_not_loaded_into(model, saved):
    folder, edit = saved
    edit("num_attention_heads", 4)
    other = RobertaForSequenceClassification(RobertaConfig.from_pretrained(folder))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(CompressedFileError, match=r"`num_attention_heads` .* must be 2, .* but was 4"):
        load_compressed_(other, folder)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    edit("hidden_dropout_prob", 0.5)
    same = load_compressed_(RobertaForSequenceClassification(RobertaConfig.from_pretrained(folder)).eval(), folder)
    assert torch.equal(logits(same), logits(model))


def test_a_file_without_a_configuration_is_read_as_before(model, tmp_path):
    save_folder(model, tmp_path)
    without_configuration(tmp_path)
    assert "architecture" not in read_header(tmp_path)["extra"]
    assert same_state(load(tmp_path), model)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    assert same_state(load(tmp_path), model)


def test_keys_of_nested_configurations():
    model = nn.Linear(2, 2)
    assert computing_keys(model) == {}
    model.config = CLIPConfig()
    header = json.loads(json.dumps({"extra": computing_keys(model)}))
    check_configuration(header, model, "file")
    model.config.text_config.attention_dropout = 0.5
    check_configuration(header, model, "file")
    model.config.text_config.hidden_act = "relu"
    with pytest.raises(CompressedFileError, match=r"`text_config\.hidden_act` .* must be 'quick_gelu'"):
        check_configuration(header, model, "file")
    check_configuration({"extra": {"architecture": "made by hand"}}, model, "file")


def test_the_size_counted_is_that_of_both_ways_to_save(model, tmp_path):
    size = file_bytes(model)
    assert save_compressed(model, tmp_path / "model.safetensors") == size
    model.save_pretrained(tmp_path / "whole")
    assert (tmp_path / "whole" / "model.safetensors").stat().st_size <= size


def with_format(config):
    """Return a configuration that says how the weights are stored."""
    config.quantization_config = PGIPQConfig().to_dict()
    return config


def test_the_encoder_of_a_classifier_is_loaded(model, tmp_path):
    save_folder(model, tmp_path)
    encoder, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(encoder) is RobertaModel
    assert {name: encoder.state_dict()[name].tolist() for name in model.roberta.state_dict()} == {
        name: tensor.tolist() for name, tensor in model.roberta.state_dict().items()
    }
    assert info["missing_keys"] == {"pooler.dense.weight", "pooler.dense.bias"}
    unused = {f"classifier.dense.{leaf}" for leaf in ("codes", "centroids", "bias")}
    assert info["unexpected_keys"] == unused | {"classifier.out_proj.weight", "classifier.out_proj.bias"}


def test_a_classifier_is_made_on_an_encoder(tiny_roberta, tmp_path):
    encoder = RobertaModel(tiny_roberta(0).config).eval()
    rules = preset_rules("roberta", block_size=4, n_centroids=16)  # the pooler, which the classifier lacks, too
    quantize_(encoder, rules)
    round_(encoder)
    save_folder(encoder, tmp_path)
    classifier, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    part = encoder.state_dict()
    assert all(torch.equal(tensor, part[name]) for name, tensor in classifier.roberta.state_dict().items())
    assert len(pq_modules(classifier)) == len(pq_modules(encoder)) - 1
    assert all(name.startswith("classifier.") for name in info["missing_keys"])
    assert len(info["missing_keys"]) == 4
    assert info["unexpected_keys"] == {f"pooler.dense.{leaf}" for leaf in ("codes", "centroids", "bias")}
    with pytest.raises(ValueError, match=r"must hold a compressed classifier.*'classifier\.dense\.bias'"):
        load_folder(tmp_path)


def test_a_codebook_that_head_and_encoder_share(tiny_roberta, tmp_path):
    model = tiny_roberta(0)
    pattern = r"classifier\.dense|.*layer\.1\.output\.dense|.*query"
    rules = [Rule(pattern=pattern, config=PQConfig(block_size=4, n_centroids=16, codebook_dtype="int8"), shared=True)]
    quantize_(model, rules)
    round_(model)
    save_folder(model, tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert same_state(encoder, model.roberta)
    assert len({id(layer.centroids) for layer in pq_modules(encoder).values()}) == 1


def test_a_codebook_goes_to_the_next_layer_if_its_first_has_no_place():
    layers = {"head": {"scale": 0.5}, "m.a": {"codebook": "head", "scale": 0.5}, "m.b": {"codebook": "head"}}
    tensors = {name: torch.tensor(number) for number, name in enumerate(("head.centroids", "m.a.codes", "m.b.bias"))}
    described, moved = placed(layers, tensors, {"m.a": "a", "m.b": "b"})
    assert described == {"a": {"scale": 0.5}, "b": {"codebook": "a"}}
    assert moved == {"a.centroids": 0, "a.codes": 1, "b.bias": 2}


def test_decoded_model_computes_the_same_with_dense_layers(model, tmp_path):
    save_folder(model, tmp_path)
    loaded, before = load(tmp_path), logits(model)
    loaded.save_pretrained(tmp_path / "again")  # which leaves the name of the type in the configuration
    weights = {name: module.weight.detach() for name, module in pq_modules(model).items()}
    loaded.dequantize()
    assert not pq_modules(loaded)
    assert all(torch.equal(loaded.get_submodule(name).weight, weight) for name, weight in weights.items())
    assert torch.allclose(logits(loaded), before, rtol=0, atol=1e-5)  # sums in another order
    assert not pq_modules(decode_(model))
    assert torch.equal(logits(model), logits(loaded))
    assert 4 * sum(p.numel() for p in model.parameters()) == dense_bytes(model)


def test_nothing_tells_where_the_model_came_from(model, tmp_path):
    save_folder(model, tmp_path, extra={"architecture": architecture(model.config)})
    for path in tmp_path.iterdir():
        assert b"private" not in path.read_bytes(), path.name
    assert read_header(tmp_path)["extra"]["architecture"]["hidden_size"] == 32
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "pg-ipq", "version": 2}
    assert config["architectures"] == ["RobertaForSequenceClassification"]


def test_model_card(model, tmp_path):
    rows = [{"model": "compressed", "accuracy": 81.25}]
    size = save_folder(
        model, tmp_path, data="Made-up sentences.", licence="CC0-1.0", results=rows, method="Trained long."
    )
    card = (tmp_path / "README.md").read_text()
    dense = dense_bytes(model)
    for number in (size, dense, dense // 2):
        assert f" {number:,} |" in card
    for ratio in (dense / size, dense / 2 / size):
        assert f"| {format_cell(ratio)} |" in card
    for row in layer_bytes(tmp_path):
        assert f"| {row['name']} | {row['stored']} |" in card
    assert "## Method\n\nProduct quantization of 16 layers (codewords x block size: 16 x 4, 24 x 4; codebooks: " in card
    assert " Trained long.\n" in card
    for text in ("## Data\n\nMade-up sentences.", "## Licence\n\nCC0-1.0", "81.25", "torch ", "library_name:"):
        assert text in card
    assert "## Source\n\nNot stated.\n" in card
    assert "base_model" not in card


def test_model_card_names_the_source(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pg-ipq", "run", "--model=/home/me/a b/rob", "--set", 'data="/home/me/glue"'])
    weights = {"model.safetensors": "ab12"}
    source = Source("org/rob", on_hub=True, revision="f00d", task="rte", seeds={"fine-tuning": 3})
    save_folder(model, tmp_path, source=source)
    card = (tmp_path / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {
        "library_name": "transformers",
        "base_model": "org/rob",
        "tags": ["pg-ipq", "product-quantization"],
    }
    lines = "- model: `org/rob` on the hub\n- revision: `f00d`\n- task: `rte`\n- seed of the fine-tuning: 3\n"
    assert f"## Source\n\n{lines}\n## " in card
    assert "--model=rob" in card
    assert 'data="glue"' in card
    for folder in ("/home/me/rob", "/home/me/rob/", "there/rob"):
        save_folder(model, tmp_path, source=Source(folder, sha256=weights))
        card = (tmp_path / "README.md").read_text()
        assert "## Source\n\n- model: `rob`\n- SHA-256 of model.safetensors: `ab12`\n\n## " in card
        assert not any(word in card for word in ("base_model", "/home", "there"))
