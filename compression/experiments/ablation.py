"""Empty clusters iteration by iteration: PG k-means, its components alone, and its peers."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from torch import nn

from compression.clustering.lloyd import Iteration
from compression.experiments.code_hash import PACKAGES, code_hash
from compression.experiments.empty_clusters import OPTIONS, EmptyClustersConfig, cluster, stress_sets, totals
from compression.experiments.reproduce import stressed_layer_of
from compression.quantization.rules import match_rules, preset_rules
from compression.training.finetune import FinetuneConfig, finetuned_minilm
from shared.artifacts import Cache, hash_code, provenance, versions
from shared.config import FrozenConfig
from shared.progress import track

COMMITTED = Path(__file__).parent / "data" / "ablation.json"
"""What ``pg-ipq ablation --measure --json`` wrote."""

STRESS, HEALTHY = "stress sets", "healthy layers"
"""The two kinds of weights: those of `stress_sets`, and the encoder and head of a fine-tuned classifier as they are."""

_SHOWN = (1, 2, 3, 5, 10)
_COUNTS = ("rounds", "donor splits", "full reassignments", "left empty")


class AblationConfig(FrozenConfig):
    """What to cluster.

    Attributes
    ----------
    stress
        Stress sets, and the sizes and iterations of all clusterings.
    finetune
        The fp32 model whose layers are the healthy ones.
    healthy_seeds
        Seeds on healthy layers (k-means++ takes seconds for each).
    """

    stress: EmptyClustersConfig = EmptyClustersConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    healthy_seeds: tuple[int, ...] = Field((0,), min_length=1)


def measure(config: AblationConfig, folder: str | Path | None = None) -> dict[str, Any]:
    """Return ``rows`` of `run_ablation` for the packaged MiniLM, and ``provenance``; JSON-able."""
    start = time.monotonic()
    model = finetuned_minilm(config.finetune, folder=folder).model
    layer = stressed_layer_of(model)
    rows = run_ablation(config.stress, model, layer, healthy_seeds=config.healthy_seeds, folder=folder)
    return {"rows": rows, "provenance": provenance(config, time.monotonic() - start)}


def run_ablation(
    config: EmptyClustersConfig,
    model: nn.Module,
    layer: np.ndarray | None,
    methods: Sequence[str] = tuple(OPTIONS),
    *,
    healthy_seeds: Sequence[int] = (0,),
    folder: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Cluster stress sets and healthy layers with every method and seed, each kept by `kept_clustering`.

    Parameters
    ----------
    config
        Sizes, stress sets and seeds.
    model
        A RoBERTa classifier; all linear layers of its encoder and head whose width the block size divides are healthy
        layers.
    layer
        See `stress_sets`.
    methods
        Of `OPTIONS`.
    healthy_seeds
        Seeds on healthy layers.
    folder
        Cache folder; `shared.artifacts.default_cache_dir` if ``None``.

    Returns
    -------
    list of dict
        A row for each kind of weights, set, method and seed, the layers of a model as one set: the empty codewords
        found by each iteration (``"by iteration"``; after the last they stay as they were left), `totals` with
        ``"left empty"`` of the result that is returned, and the inertia, in total over the layers.
    """
    jobs = [
        (weights, name, method, seed, blocks)
        for weights, name, by_seed in _sets(config, model, layer, healthy_seeds)
        for method in methods
        for seed, blocks in by_seed.items()
    ]
    rows: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for weights, name, method, seed, blocks in track(jobs, "Clustering for the ablation"):
        result = kept_clustering(blocks, method, config, seed, folder)
        left = min(config.n_centroids, len(np.unique(blocks + 0.0, axis=0))) - result.n_effective
        found = [row.empty for row in result.history] or [0]
        found += [result.history[-1].left if result.history else 0] * (config.max_iter - len(found))
        counts = totals(result.history) | {"left empty": left}
        key = (weights, weights if weights == HEALTHY else name, method, seed)
        head = dict(zip(("weights", "set", "method", "seed"), key, strict=True))
        row = rows.setdefault(
            key, head | dict.fromkeys(counts, 0) | {"by iteration": [0] * config.max_iter, "inertia": 0.0}
        )
        row["by iteration"] = [a + b for a, b in zip(row["by iteration"], found, strict=True)]
        row["inertia"] += result.inertia
        for count, value in counts.items():
            row[count] += value
    return list(rows.values())


@dataclass(frozen=True)
class KeptClustering:
    """What is kept of a clustering: inertia, clusters that are not empty and history of its `KMeansResult`."""

    inertia: float
    n_effective: int
    history: tuple[Iteration, ...]


def kept_clustering(
    blocks: np.ndarray, method: str, config: EmptyClustersConfig, seed: int, folder: str | Path | None = None
) -> KeptClustering:
    """Cluster as `cluster` does, once: what is kept of it is then read from the cache in `folder`."""
    key = {
        "blocks": [str(blocks.dtype), list(blocks.shape), sha256(blocks.tobytes()).hexdigest()],
        "options": OPTIONS[method],
        "n_centroids": config.n_centroids,
        "max_iter": config.max_iter,
        "seed": seed,
        "code": [code_hash(), hash_code(Path(__file__).with_name("empty_clusters.py"))],
        "versions": versions(PACKAGES),
    }

    def make() -> dict[str, Any]:
        result = cluster(blocks, method, config, seed)
        history = [asdict(row) for row in result.history]
        return {"inertia": float(result.inertia), "n_effective": int(result.n_effective), "history": history}

    kept = Cache(folder, name="clusterings").record("clustering.json", key, make)
    return KeptClustering(kept["inertia"], kept["n_effective"], tuple(Iteration(**row) for row in kept["history"]))


def _sets(
    config: EmptyClustersConfig, model: nn.Module, layer: np.ndarray | None, healthy_seeds: Sequence[int]
) -> Iterator[tuple[str, str, dict[int, np.ndarray]]]:
    for name, by_seed in stress_sets(config, layer).items():
        yield STRESS, name, dict(zip(config.seeds, by_seed, strict=True))
    rules = preset_rules("roberta", block_size=1, stages=("ffn", "attention", "head"))
    for name, _ in match_rules(model, rules):
        weight = model.get_parameter(f"{name}.weight").detach().float().numpy()
        if weight.shape[1] % config.block_size == 0 and weight.size // config.block_size >= config.n_centroids:
            yield HEALTHY, name, dict.fromkeys(healthy_seeds, weight.reshape(-1, config.block_size))


def ablation_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each kind of weights and method: totals over sets, layers and seeds.

    ``inertia / PG`` is the geometric mean over sets and seeds.
    """
    table = []
    for weights, method, some in _groups(rows):
        iterations = np.sum([row["by iteration"] for row in some], axis=0)
        ours = {(row["set"], row["seed"]): row["inertia"] for row in _of(rows, weights, "PG")}
        ratios = [row["inertia"] / ours[row["set"], row["seed"]] for row in some]
        table.append(
            {
                "weights": weights,
                "method": method,
                "runs": len(some),
                **{
                    f"empty, iteration {number}": int(iterations[number - 1])
                    for number in _SHOWN
                    if number <= len(iterations)
                },
                **{key: sum(int(row[key]) for row in some) for key in _COUNTS},
                "inertia / PG": float(np.exp(np.mean(np.log(ratios)))),
            }
        )
    return table


def _groups(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, list[Mapping[str, Any]]]]:
    for weights, method in dict.fromkeys((row["weights"], row["method"]) for row in rows):
        yield weights, method, _of(rows, weights, method)


def _of(rows: Sequence[Mapping[str, Any]], weights: str, method: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["weights"], row["method"]) == (weights, method)]


def draw_ablation(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Draw the empty codewords that each iteration finds, totals over sets, layers and seeds."""
    from shared.plotting import COLOURS, new_figure

    figure, panels = new_figure("page", aspect=0.5, ncols=2)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for axes, weights in zip(panels, (STRESS, HEALTHY), strict=True):
        for number, method in enumerate(methods):
            some = _of(rows, weights, method)
            if not some:
                continue
            values = np.sum([row["by iteration"] for row in some], axis=0)
            dashed = "--" if number >= len(COLOURS) else "-"
            marker = "osv^D<>pXP"[number % 10]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(
                range(1, len(values) + 1), values, dashed, marker=marker, markersize=3, color=colour, label=method
            )
        axes.set_yscale("symlog", linthresh=1)
        axes.set(xlabel="iteration", xticks=(1, 5, 10, 15), ylim=(-0.1, None), title=weights)
    panels[0].set_ylabel("empty codewords found")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure
