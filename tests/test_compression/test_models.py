"""MiniLM in the RoBERTa architecture."""

import pytest
import torch

from compression.training.models import (
    load_minilm_bert,
    load_minilm_roberta,
    load_minilm_tokenizer,
    minilm_roberta_config,
)

SENTENCES = [
    "A gripping, funny and humane film.",
    "No.",
    "the plot is thin , but the acting alone is worth the price .",
]


@pytest.mark.data
def test_encoder_equals_bert_exactly(real_data):
    tokens = load_minilm_tokenizer()(SENTENCES, padding=True, return_tensors="pt", return_token_type_ids=False)
    real = tokens["attention_mask"].bool()
    assert not real.all()  # some sentences are padded
    with torch.inference_mode():
        bert = load_minilm_bert()(**tokens).last_hidden_state[real]
        roberta = load_minilm_roberta().roberta(**tokens).last_hidden_state[real]
    assert (bert - roberta).abs().max().item() == 0.0
    assert bert.abs().max() > 1


@pytest.mark.data
def test_encoder_equals_bert_on_pairs(real_data):
    tokens = load_minilm_tokenizer()([SENTENCES[0]], [SENTENCES[2]], return_tensors="pt")
    assert set(tokens["token_type_ids"][0].tolist()) == {0, 1}
    with torch.inference_mode():
        bert = load_minilm_bert()(**tokens).last_hidden_state
        roberta = load_minilm_roberta().roberta(**tokens).last_hidden_state
    assert (bert - roberta).abs().max().item() == 0.0


@pytest.mark.data
def test_head_comes_from_the_seed_alone(real_data):
    before = torch.random.get_rng_state()
    first, again, other = (load_minilm_roberta(3, seed).classifier.out_proj.weight for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.shape == (3, 384)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.data
def test_tokenizer_is_wordpiece_without_fixed_padding(real_data):
    tokenizer = load_minilm_tokenizer()
    assert tokenizer("Unbelievable!")["input_ids"] == [101, 23653, 999, 102]
    assert tokenizer.pad_token_id == 0
    assert [len(ids) for ids in tokenizer(SENTENCES, truncation=False)["input_ids"]] == [10, 4, 16]


def test_no_labels_is_refused():
    with pytest.raises(ValueError, match="num_labels"):
        minilm_roberta_config(0)
