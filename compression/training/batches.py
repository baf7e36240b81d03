"""Token sequences, length-bucketed training batches and padding no longer than the batch needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from compression.training.data import TextData
from shared.artifacts import content_hash

BATCHES_PER_BUCKET = 32
"""Batches whose sentences are sorted together by length: sentences of a batch have similar, batches random, lengths."""


@dataclass(frozen=True)
class EncodedData:
    """Token sequences of n sentences (or pairs) with their labels.

    Parameters
    ----------
    name
        Which data.
    input_ids
        n lists of token numbers, not padded.
    labels
        The labels, shape (n,): int64 classes, or float32 for regression.
    token_type_ids
        n lists of segment numbers, or ``None`` for single sentences and for models without segments.
    pad_token_id
        Token that fills shorter sequences of a batch.
    """

    name: str
    input_ids: tuple[tuple[int, ...], ...]
    labels: torch.Tensor
    token_type_ids: tuple[tuple[int, ...], ...] | None = None
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        n = len(self.input_ids)
        if self.labels.shape != (n,):
            raise ValueError(
                f"Argument `labels` must have shape ({n},), one for each of `input_ids`, but has "
                f"{tuple(self.labels.shape)}."
            )
        if self.token_type_ids is not None and len(self.token_type_ids) != n:
            raise ValueError(
                f"Argument `token_type_ids` must hold {n} rows as `input_ids`, but holds {len(self.token_type_ids)}."
            )

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def lengths(self) -> torch.Tensor:
        """Number of tokens of each sequence, int64, shape (n,)."""
        return torch.tensor([len(ids) for ids in self.input_ids], dtype=torch.int64)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of tokens, segments and labels."""
        return content_hash([self.input_ids, self.token_type_ids, self.labels.tolist(), self.pad_token_id])

    def subset(self, indices: Sequence[int]) -> "EncodedData":
        """Return the rows `indices`, in that order."""
        types = None if self.token_type_ids is None else tuple(self.token_type_ids[i] for i in indices)
        ids = tuple(self.input_ids[i] for i in indices)
        return EncodedData(self.name, ids, self.labels[torch.as_tensor(indices)], types, self.pad_token_id)

    def sample(self, n: int, seed: int = 0) -> "EncodedData":
        """Return `n` random rows (all, if there are no more), a function of the arguments alone."""
        if n < 1:
            raise ValueError(f"Argument `n` must be at least 1, but was {n}.")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[:n].tolist())

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """Return the inputs of a model for some rows, padded on the right to the longest of them.

        Returns
        -------
        dict
            ``input_ids`` and ``attention_mask``, int64, shape (len(indices), longest), and ``token_type_ids`` for
            pairs.
        """
        longest = max(len(self.input_ids[i]) for i in indices)
        ids = torch.full((len(indices), longest), self.pad_token_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        types = torch.zeros_like(ids)
        for row, index in enumerate(indices):
            sequence = self.input_ids[index]
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
            if self.token_type_ids is not None:
                types[row, : len(sequence)] = torch.tensor(self.token_type_ids[index])
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        if self.token_type_ids is not None:
            inputs["token_type_ids"] = types.to(device)
        return inputs


def encode(data: TextData, tokenizer: Any, max_length: int = 64) -> EncodedData:
    """Turn sentences into token sequences of at most `max_length` tokens.

    Parameters
    ----------
    data
        Sentences or pairs.
    tokenizer
        A `transformers` tokenizer with a pad token. Segments of pairs are kept if it makes them.
    max_length
        Longest sequence, special tokens included; the longer sentence of a pair is cut first.
    """
    if max_length < 4:
        raise ValueError(f"Argument `max_length` must be at least 4, but was {max_length}.")
    pairs = () if data.second_texts is None else (list(data.second_texts),)
    encoded = tokenizer(list(data.texts), *pairs, truncation=True, padding=False, max_length=max_length)
    segments = None if data.second_texts is None else encoded.get("token_type_ids")
    types = None if segments is None else tuple(map(tuple, segments))
    labels = torch.tensor(data.labels, dtype=torch.int64 if data.label_names else torch.float32)
    return EncodedData(data.name, tuple(map(tuple, encoded["input_ids"])), labels, types, int(tokenizer.pad_token_id))


def training_batches(lengths: torch.Tensor, batch_size: int, n_steps: int, seed: int) -> list[list[int]]:
    """Return the rows of each of `n_steps` batches, a pure function of the arguments.

    Every epoch visits each row once, in random order except that `BATCHES_PER_BUCKET` consecutive batches are sorted
    by length together, which removes most of the padding. The last batch of an epoch may be smaller.

    Parameters
    ----------
    lengths
        Number of tokens of each row, shape (n,).
    batch_size
        Rows in a batch.
    n_steps
        Number of batches.
    seed
        Seed of the order.
    """
    for name, value in (("batch_size", batch_size), ("n_steps", n_steps), ("lengths", len(lengths))):
        if value < 1:
            raise ValueError(f"Argument `{name}` must be (or have length) at least 1, but was {value}.")
    generator = torch.Generator().manual_seed(seed)
    batches: list[list[int]] = []
    while len(batches) < n_steps:
        order = torch.randperm(len(lengths), generator=generator)
        epoch: list[list[int]] = []
        for bucket in order.split(batch_size * BATCHES_PER_BUCKET):
            by_length = bucket[torch.argsort(lengths[bucket], stable=True)]
            epoch += [rows.tolist() for rows in by_length.split(batch_size)]
        batches += [epoch[i] for i in torch.randperm(len(epoch), generator=generator).tolist()]
    return batches[:n_steps]


def evaluation_batches(lengths: torch.Tensor, batch_size: int) -> list[list[int]]:
    """Return all rows once, sorted by length, in batches."""
    order = torch.argsort(lengths, stable=True)
    return [rows.tolist() for rows in order.split(batch_size)]


def calibration_batches(
    data: EncodedData, n: int, *, batch_size: int = 64, seed: int = 0
) -> list[dict[str, torch.Tensor]]:
    """Return the inputs of a model for `n` random rows, sorted by length, in batches, without labels."""
    sample = data.sample(min(n, len(data)), seed)
    return [sample.batch(rows) for rows in evaluation_batches(sample.lengths, batch_size)]
