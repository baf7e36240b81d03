"""The clusterings of a model's layers, each with a codebook of its own or several with one that they share."""

import dataclasses
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from compression.clustering.lloyd import Iteration
from compression.quantization.blocks import PQConfig, round_codebook, to_blocks
from shared.parallel import parallel_map


def layer_seed(seed: int, number: int) -> int:
    """Return the seed of the clustering of the layer at place `number`, derived from that of the model."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


@dataclass(frozen=True)
class ClusterJob:
    """The clustering of one layer, as values that another process can be given.

    Attributes
    ----------
    weight
        (rows, features) float32.
    config
        How to quantize.
    seed
        Of the clustering.
    sample_weight
        ``None`` or (rows, features), positive.
    device
        torch device of the search.
    """

    weight: np.ndarray
    config: PQConfig
    seed: int
    sample_weight: np.ndarray | None
    device: str = "cpu"

    @classmethod
    def of(cls, weight: torch.Tensor, config: PQConfig, seed: int, sample_weight: torch.Tensor | None) -> "ClusterJob":
        """Return the job for a layer's weight; all dimensions after the first are features."""
        weights = None if sample_weight is None else sample_weight.detach().flatten(1).cpu().numpy()
        return cls(weight.detach().flatten(1).float().cpu().numpy(), config, seed, weights, str(weight.device))


@dataclass(frozen=True)
class Clustering:
    """The result of a `ClusterJob`.

    Attributes
    ----------
    centroids
        (K, d) float32, those in use, at the values in which they are stored.
    codes
        (rows, features / d) int64.
    history
        History of the clustering; of layers that share a codebook the first has it.
    seconds
        Wall time, likewise.
    """

    centroids: np.ndarray
    codes: np.ndarray
    history: tuple[Iteration, ...]
    seconds: float

    @property
    def weight(self) -> np.ndarray:
        """The decoded weight, (rows, features)."""
        return self.centroids[self.codes].reshape(len(self.codes), -1)


def run_job(job: ClusterJob) -> Clustering:
    """Cluster the blocks of a layer and keep the codewords that are used."""
    start = time.perf_counter()
    blocks = to_blocks(job.weight, job.config.block_size)
    weights = None if job.sample_weight is None else to_blocks(job.sample_weight, job.config.block_size)
    if weights is not None and (weights == weights[:, :1]).all():
        weights = weights[:, 0]  # one weight a block, as an embedding's rows have, is much the faster search
    result = job.config.cluster(blocks, job.seed, weights, job.device)
    used, codes = np.unique(result.assignments, return_inverse=True)
    centroids = round_codebook(torch.from_numpy(result.centroids[used]), job.config.codebook_dtype).numpy()
    codes = codes.reshape(len(job.weight), -1)
    return Clustering(centroids, codes, result.history, time.perf_counter() - start)


def joined(jobs: Sequence[ClusterJob]) -> ClusterJob:
    """Return the job of all blocks of some layers, (blocks, d), with the options and the seed of the first.

    Each layer counts by its error over its own (weighted) squared norm: layers of small weights matter no less.
    """
    d = jobs[0].config.block_size
    blocks, weights = [], []
    for job in jobs:
        values = to_blocks(job.weight, d)
        weight = np.ones((1, 1), np.float32) if job.sample_weight is None else to_blocks(job.sample_weight, d)
        norm = float((weight * np.square(values)).sum(dtype=np.float64)) / values.size
        scaled = (weight / norm if norm > 0 else weight).astype(np.float32)
        blocks.append(values)
        weights.append(np.broadcast_to(scaled, values.shape))
    return dataclasses.replace(jobs[0], weight=np.concatenate(blocks), sample_weight=np.concatenate(weights))


def parted(clustering: Clustering, jobs: Sequence[ClusterJob]) -> list[Clustering]:
    """Return the clustering of each layer from that of their `joined` job; ``centroids`` is the same object in all."""
    d = jobs[0].config.block_size
    ends = np.cumsum([job.weight.size // d for job in jobs])
    codes = np.split(clustering.codes.reshape(-1), ends[:-1])
    parts = [
        Clustering(clustering.centroids, part.reshape(len(job.weight), -1), (), 0.0)
        for part, job in zip(codes, jobs, strict=True)
    ]
    return [dataclasses.replace(parts[0], history=clustering.history, seconds=clustering.seconds), *parts[1:]]


def cluster_layers(
    jobs: Sequence[ClusterJob],
    groups: Sequence[Hashable | None],
    *,
    n_workers: int | None = 1,
    description: str = "Quantizing layers",
) -> list[Clustering]:
    """Cluster layers, in parallel processes if asked.

    Parameters
    ----------
    jobs
        One for each layer.
    groups
        For each layer the group with which it shares a codebook, or ``None``; jobs of a group have the same options.
    n_workers, description
        See `shared.parallel.parallel_map`. The result is the same for any number of workers.

    Returns
    -------
    list of Clustering
        In the order of `jobs`.
    """
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(("alone", number) if group is None else ("group", group), []).append(number)
    work = [
        jobs[numbers[0]] if len(numbers) == 1 else joined([jobs[number] for number in numbers])
        for numbers in members.values()
    ]
    found: dict[int, Clustering] = {}
    results = parallel_map(run_job, work, n_workers=n_workers, description=description)
    for numbers, result in zip(members.values(), results, strict=True):
        parts = [result] if len(numbers) == 1 else parted(result, [jobs[number] for number in numbers])
        found |= dict(zip(numbers, parts, strict=True))
    return [found[number] for number in range(len(jobs))]
