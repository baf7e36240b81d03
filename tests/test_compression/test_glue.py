"""GLUE: every task's columns, labels and metrics, read from files in the hub's layout and from the original ones."""

import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from compression.training.data import TextData, check_disjoint
from compression.training.glue import check_labelled, load_glue
from compression.training.metrics import METRICS, score_difference
from compression.training.packages import DataError
from compression.training.sources import hub_error
from compression.training.tasks import GLUE, TASKS, Task, find_task, model_label_order
from tests.test_compression.hub_files import N_TRAIN, N_VALIDATION, rows, write_hub_glue

ALL = sorted(GLUE)


@pytest.fixture(scope="module")
def hub(tmp_path_factory, datasets_cache):
    """Return a folder that is a copy of the hub's data set with tiny parquet files."""
    return write_hub_glue(tmp_path_factory.mktemp("glue"))


def test_there_are_nine_glue_tasks_with_the_published_metrics():
    assert ALL == ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]
    by_metric = {name: {task.name for task in GLUE.values() if name in task.metrics} for name in METRICS}
    assert by_metric["matthews"] == {"cola"}
    assert by_metric["f1"] == {"mrpc", "qqp"}
    assert by_metric["pearson"] == by_metric["spearman"] == {"stsb"}
    assert by_metric["accuracy"] == set(ALL) - {"cola", "stsb"}
    predictions, labels = np.array([1, 0, 0, 1]), np.array([1, 1, 0, 1])
    assert TASKS["boolq"].main_score(predictions, labels) == 0.75  # its Matthews coefficient is reported beside
    assert set(TASKS["boolq"].score(predictions, labels)) == {"accuracy", "matthews"}


@pytest.mark.parametrize("name", ALL)
def test_hub_layout_gives_each_task_its_rows(hub, name):
    task = GLUE[name]
    for split in task.splits:
        data, expected = load_glue(task, split, hub), rows(task, split)
        pairs = (data.texts, data.second_texts)
        assert [list(texts) for texts in pairs if texts is not None] == [expected[key] for key in task.sentence_keys]
        assert list(data.labels) == expected["label"]
        assert data.hidden == split.startswith("test")
        assert data.label_names == task.label_names
    assert len(load_glue(task, "train", hub)) == N_TRAIN
    assert len(load_glue(task, task.evaluation_splits[-1], hub)) == N_VALIDATION


def test_mnli_has_two_different_validation_splits(hub):
    matched, mismatched = (load_glue(GLUE["mnli"], f"validation_{kind}", hub) for kind in ("matched", "mismatched"))
    assert matched.texts != mismatched.texts
    assert (matched.name, mismatched.name) == ("glue/mnli/validation_matched", "glue/mnli/validation_mismatched")


@pytest.mark.parametrize("layout", ["no readme", "task folder", "saved", "saved task"])
def test_other_local_layouts_hold_the_same(hub, tmp_path, datasets_cache, layout):
    from datasets import load_dataset

    expected = load_glue(GLUE["rte"], "validation", hub)
    if layout in ("no readme", "task folder"):
        write_hub_glue(tmp_path, ["rte"], readme=False)
        found = load_glue(GLUE["rte"], "validation", tmp_path / ("rte" if layout == "task folder" else ""))
    else:
        target = tmp_path / "rte" if layout == "saved" else tmp_path
        load_dataset(str(hub), "rte").save_to_disk(str(target))
        found = load_glue(GLUE["rte"], "validation", tmp_path)
    assert found == expected


_ORIGINAL = {  # file content of one training row in the original layout, and what it says
    "cola": ("CoLA", 'gj04\t0\t*\tHe said "no.\n', ('He said "no.',), 0),
    "sst2": ("SST-2", "sentence\tlabel\nfine film \t1\n", ("fine film ",), 1),
    "mrpc": ("MRPC", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta\tb\n", ("a", "b"), 1),
    "qqp": ("QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta?\tb?\t0\n5\t6\n", ("a?", "b?"), 0),
    "stsb": ("STS-B", "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t3.800\n", ("a", "b"), 3.8),
    "mnli": ("MNLI", "sentence1\tsentence2\tlabel1\tgold_label\na\tb\tneutral\tcontradiction\n", ("a", "b"), 2),
    "qnli": ("QNLI", "index\tquestion\tsentence\tlabel\n0\ta?\tb\tnot_entailment\n", ("a?", "b"), 1),
    "rte": ("RTE", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n", ("a", "b"), 0),
    "wnli": ("WNLI", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n", ("a", "b"), 1),
}


@pytest.mark.parametrize("name", ALL)
def test_original_files_need_no_other_package(tmp_path, monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    folder, content, texts, label = _ORIGINAL[name]
    task = GLUE[name]
    (tmp_path / folder).mkdir()
    for split in ("train", *(s.replace("validation", "dev") for s in task.evaluation_splits)):
        (tmp_path / folder / f"{split}.tsv").write_text(content, encoding="utf-8")
    for split in ("train", *task.evaluation_splits):
        data = load_glue(task, split, tmp_path)
        assert tuple(part[0] for part in (data.texts, data.second_texts) if part) == texts
        assert data.labels == (label,)


def test_original_test_file_has_hidden_labels(tmp_path):
    (tmp_path / "train.tsv").write_text("gj04\t1\t\tHe left.\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tBill whistled.\n")
    data = load_glue(GLUE["cola"], "test", tmp_path)
    assert (data.texts, data.labels, data.hidden) == (("Bill whistled.",), (-1,), True)
    with pytest.raises(ValueError, match=r"glue/cola/test are hidden"):
        check_labelled(data)


def write_split(folder, columns, features=None, name="rte"):
    """Write one tiny data set whose splits all have these columns."""
    from datasets import Dataset

    (folder / name).mkdir()
    for split in GLUE[name].splits:
        Dataset.from_dict(columns, features=features).to_parquet(folder / name / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("score", [5.5, -1.0, float("inf"), 1e30])
def test_a_score_off_the_scale_is_refused(tmp_path, datasets_cache, score):
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [2.5, score]}
    write_split(tmp_path, columns, name="stsb")
    with pytest.raises(ValueError, match=rf"must hold numbers from 0 to 5, but row 1 has {re.escape(str(score))}"):
        load_glue(GLUE["stsb"], "train", tmp_path)


def test_labels_are_mapped_by_name_where_the_order_differs(tmp_path, datasets_cache):
    from datasets import ClassLabel, Features, Value

    names = ["not_entailment", "entailment"]
    features = Features({"sentence1": Value("string"), "sentence2": Value("string"), "label": ClassLabel(names=names)})
    columns = {"sentence1": ["a", "b", "c"], "sentence2": ["d", "e", "f"], "label": [0, 1, 0]}
    write_split(tmp_path, columns, features)
    assert load_glue(GLUE["rte"], "train", tmp_path).labels == (1, 0, 1)


@pytest.mark.parametrize("readme", [True, False])
def test_changed_files_are_read_again(tmp_path, datasets_cache, readme):
    folder = write_hub_glue(tmp_path / "glue", ["rte", "wnli"], readme=readme)
    assert load_glue(GLUE["rte"], "train", folder).labels[:3] == (0, 1, 0)
    shutil.rmtree(folder / "rte")
    shutil.copytree(folder / "wnli", folder / "rte")  # the same columns, names of the labels in the other order
    assert load_glue(GLUE["rte"], "train", folder).labels[:3] == (1, 0, 1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sentence1": ["a"], "label": [0]}, "lack 'sentence2'; they have 'sentence1', 'label'"),
        ({"sentence1": ["a"], "sentence2": ["b"]}, "lack 'label'"),
        ({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1, 7]}, r"0\.\.1 .* is 7 in row 1"),
        ({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [-1, 1]}, "is -1 in row 0"),
        ({"sentence1": ["a"], "sentence2": ["b"], "label": ["maybe"]}, "row 0 has 'maybe'"),
        ({"sentence1": ["a"], "sentence2": [None], "label": [0]}, "'sentence2' .* must hold text, but holds None"),
        ({"sentence1": ["a"], "sentence2": ["b"], "label": [None]}, "row 0 has None"),
        ({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1.0, 0.7]}, r"row 1 has 0\.7"),
        ({"sentence1": ["a"], "sentence2": ["b"], "label": [float("inf")]}, "row 0 has inf"),
    ],
)
def test_bad_rows_are_named(tmp_path, datasets_cache, columns, message):
    with pytest.raises(ValueError, match=message):
        load_glue(GLUE["rte"], "train", write_split(tmp_path, columns))


def test_places_that_hold_no_glue_are_named(tmp_path, hub, datasets_cache):
    with pytest.raises(ValueError, match=r"rte/train-\*\.parquet .* RTE/train\.tsv"):
        load_glue(GLUE["rte"], "train", tmp_path)
    with pytest.raises(ValueError, match="'/no/such/folder' does not exist"):
        load_glue(GLUE["rte"], "train", "/no/such/folder")
    with pytest.raises(ValueError, match="must be one of train, validation, test"):
        load_glue(GLUE["rte"], "dev", hub)
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: ax\n  data_files: ax.parquet\n---\n")
    with pytest.raises(ValueError, match="no readable task 'rte'"):
        load_glue(GLUE["rte"], "train", tmp_path)


def test_hub_without_network_names_the_offline_preset(monkeypatch, datasets_cache):
    """The real client library, told that there is no network, so that it does not retry for half a minute."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="pg-ipq run --preset minilm-rt"):
        load_glue(GLUE["rte"], "train")


def test_a_silent_hub_is_asked_once(monkeypatch, datasets_cache, caplog):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(DataError, match="could not be reached for the data set 'nyu-mll/glue'"):
        load_glue(GLUE["rte"], "train")
    assert not caplog.records
    from datasets import config
    from huggingface_hub import constants

    assert not constants.HF_HUB_OFFLINE  # as before
    assert not config.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("cause", "kind", "message"),
    [
        ("RepositoryNotFoundError", ValueError, r"no model 'robertta' .* Correct `model`"),
        ("ConnectError", DataError, "could not be reached for the model 'robertta'"),
        ("EntryNotFoundError", ValueError, r"'robertta' cannot be used \(no model\.safetensors\)"),
    ],
)
def test_what_the_hub_answered_is_told_from_no_answer(cause, kind, message):
    error = OSError("no model.safetensors")
    error.__cause__ = type(cause, (Exception,), {})()
    found = hub_error("model", "robertta", error, "`model`")
    assert type(found) is kind
    assert re.search(message, str(found))


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"molecular-compression\[glue\]"):
        load_glue(GLUE["rte"], "train", tmp_path)


def test_unknown_task_gets_the_nearest_name():
    with pytest.raises(ValueError, match=r"Did you mean 'mnli'\?"):
        find_task("mnil")
    assert set(TASKS) == {*GLUE, "rt", "boolq"}


def test_label_order_of_a_finished_model():
    names = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    assert model_label_order(GLUE["mnli"], names) == (2, 1, 0)
    assert model_label_order(GLUE["mnli"], ("LABEL_0", "LABEL_1", "LABEL_2")) is None
    assert model_label_order(GLUE["rte"], ("not-entailment", "Entailment")) == (1, 0)


def test_disjoint_pairs_are_those_without_a_common_passage():
    train = TextData("train", ("who", "what"), (0, 1), ("Passage one.", "Passage two."))
    check_disjoint(train, TextData("dev", ("who",), (0,), ("Passage three.",)))
    with pytest.raises(DataError, match="1 sentences are in both train and dev"):
        check_disjoint(train, TextData("dev", ("why",), (0,), ("passage TWO",)))


_LABELS = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 1), min_size=n, max_size=n) for _ in range(2)))
)


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning:sklearn")
@given(_LABELS)
def test_classification_metrics_are_those_of_scikit_learn(pair):
    predictions, labels = map(np.array, pair)
    assert METRICS["accuracy"](predictions, labels) == pytest.approx(reference.accuracy_score(labels, predictions))
    expected = reference.f1_score(labels, predictions, zero_division=0)
    assert METRICS["f1"](predictions, labels) == pytest.approx(expected)
    expected = reference.matthews_corrcoef(labels, predictions)
    assert METRICS["matthews"](predictions, labels) == pytest.approx(expected, abs=1e-12)


def test_correlations_by_hand():
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 9.0, 16.0])
    assert METRICS["spearman"](x, y) == pytest.approx(1)  # monotonic
    assert METRICS["pearson"](x, y) == pytest.approx(25 / np.sqrt(5 * 129))
    assert METRICS["spearman"](-x, y) == pytest.approx(-1)
    assert METRICS["pearson"](np.ones(4), y) == METRICS["spearman"](np.ones(4), y) == 0


def test_the_majority_says_nothing():
    task, labels = GLUE["cola"], np.array([1, 1, 0, 1])
    assert task.score(task.majority(labels, 4), labels) == {"matthews": 0}
    assert GLUE["rte"].score(GLUE["rte"].majority(labels, 4), labels) == {"accuracy": 0.75}
    scale = np.array([1.0, 2.0, 4.5])
    assert GLUE["stsb"].majority(scale, 2) == pytest.approx([2.5, 2.5])
    assert GLUE["stsb"].main_score(scale, scale) == pytest.approx(1)


def test_difference_of_scores_is_paired():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    a = np.where(rng.random(400) < 0.9, labels, 1 - labels)
    b = np.where(rng.random(400) < 0.6, labels, 1 - labels)
    task: Task = GLUE["mrpc"]
    found = score_difference(task.main_score, a, b, labels, n_resamples=300)
    assert found.difference == pytest.approx(task.main_score(a, labels) - task.main_score(b, labels))
    assert 0.15 < found.low < found.difference < found.high < 0.45
    same = score_difference(task.main_score, a, a, labels, n_resamples=50)
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    alone = score_difference(METRICS["accuracy"], a, None, labels, n_resamples=300)
    assert alone.low < METRICS["accuracy"](a, labels) < alone.high
