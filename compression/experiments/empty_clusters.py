"""Empty clusters: how many each k-means rule meets, what it spends on them, and what it leaves."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from compression.clustering.lloyd import Iteration, KMeansResult, kmeans, pg_kmeans
from shared.config import FrozenConfig
from shared.progress import track
from shared.results import ResultsWriter

Share = Annotated[float, Field(ge=0, lt=1)]
"""A part of the blocks or entries of a weight that is set to zero."""

METHODS = ("released", "PG")
"""The released iPQ's k-means, and PG k-means."""

OPTIONS: dict[str, dict[str, Any]] = {
    "released": {"init": "random", "empty": "perturb"},
    "released, batched": {"init": "random", "empty": "perturb-batched"},
    "random, faiss's rule": {"init": "random", "empty": "faiss"},
    "k-means++": {"init": "k-means++", "empty": "keep"},
    "k-means++, farthest": {"init": "k-means++", "empty": "farthest"},
    "pre-assignment only": {"init": "partition", "empty": "keep"},
    "pre-assignment, released rule": {"init": "partition", "empty": "perturb"},
    "fine-tuning only": {"init": "random", "empty": "partition"},
    "PG": {"init": "partition", "empty": "partition"},
    "PG, consolidated": {"init": "partition", "empty": "partition", "consolidate": 0.1},
}
"""Options of all methods by name: peers, PG k-means, and its components alone and with the optional third.

The k-means of faiss, and of scikit-learn (``"k-means++, farthest"``), are these rules on our search.
"""


class EmptyClustersConfig(FrozenConfig):
    """Which blocks to cluster.

    Attributes
    ----------
    n_blocks, block_size, n_centroids, max_iter
        Sizes of the clustering.
    zero_shares
        Shares of blocks that are exactly zero in the stress sets.
    pruned_shares
        Shares of entries pruned by magnitude in the stress sets made from a real layer.
    degrees_of_freedom, scale
        Student t distribution of the other blocks' entries (heavy tails, the size of real weights).
    seeds
        One run of each method for each.
    """

    n_blocks: int = Field(18_432, ge=1)
    block_size: int = Field(8, ge=1)
    n_centroids: int = Field(256, ge=1)
    max_iter: int = Field(15, ge=1)
    zero_shares: tuple[Share, ...] = (0.0, 0.1, 0.2, 0.3, 0.5)
    pruned_shares: tuple[Share, ...] = (0.5, 0.9)
    degrees_of_freedom: float = Field(4.0, gt=2)
    scale: float = Field(0.04, gt=0)
    seeds: tuple[int, ...] = (0, 1, 2)


def percent(share: float) -> str:
    """Return a share as the per cents of a name; shares that differ have names that differ."""
    return f"{100 * share:.12g}%"


def student_blocks(config: EmptyClustersConfig, zero_share: float, seed: int) -> np.ndarray:
    """Return Student t blocks (n_blocks, block_size), float32, a share of which is exactly zero."""
    rng = np.random.default_rng((seed, 1))
    blocks = config.scale * rng.standard_t(config.degrees_of_freedom, (config.n_blocks, config.block_size))
    blocks[rng.random(config.n_blocks) < zero_share] = 0.0
    return blocks.astype(np.float32)


def pruned_blocks(weight: np.ndarray, block_size: int, share: float) -> np.ndarray:
    """Return the blocks of a weight whose `share` of entries of least magnitude is set to zero."""
    weight = weight.copy()
    weight[np.abs(weight) <= np.quantile(np.abs(weight), share)] = 0.0
    return weight.reshape(-1, block_size)


def cluster(blocks: np.ndarray, method: str, config: EmptyClustersConfig, seed: int) -> KMeansResult:
    """Cluster with a method of `OPTIONS` for the same number of iterations."""
    options: dict[str, Any] = {"tol": 0.0, "max_iter": config.max_iter, "seed": seed}
    if OPTIONS[method]["init"] == OPTIONS[method]["empty"] == "partition":
        return pg_kmeans(blocks, config.n_centroids, consolidate=OPTIONS[method].get("consolidate"), **options)
    return kmeans(blocks, config.n_centroids, **OPTIONS[method], **options)


def totals(history: Iterable[Iteration]) -> dict[str, int]:
    """Return the work on empty clusters, summed over iterations, and what was found first and left last."""
    rows = list(history)
    return {
        "empty at first": rows[0].empty if rows else 0,
        "rounds": sum(row.rounds for row in rows),
        "donor splits": sum(row.splits for row in rows),
        "full reassignments": sum(row.reassignments for row in rows),
        "left empty": rows[-1].left if rows else 0,
    }


def stress_sets(config: EmptyClustersConfig, layer: np.ndarray | None) -> dict[str, list[np.ndarray]]:
    """Return the stress sets by name, one array of blocks for each seed.

    Parameters
    ----------
    config
        What to make.
    layer
        A real weight (rows, features) for the pruned sets; ``None`` leaves them out.
    """
    sets = {
        f"Student t, {percent(share)} zero": [student_blocks(config, share, seed) for seed in config.seeds]
        for share in config.zero_shares
    }
    if layer is not None:
        for share in config.pruned_shares:
            sets[f"MiniLM layer, {percent(share)} pruned"] = [pruned_blocks(layer, config.block_size, share)] * len(
                config.seeds
            )
    return sets


def run_stress(
    config: EmptyClustersConfig,
    layer: np.ndarray | None,
    methods: Sequence[str] = METHODS,
    clustering: Callable[[np.ndarray, str, EmptyClustersConfig, int], Any] | None = None,
) -> list[dict[str, Any]]:
    """Cluster every stress set with every method and seed.

    Parameters
    ----------
    config, layer
        See `stress_sets`.
    methods
        Some of `METHODS`.
    clustering
        What clusters, with the arguments of `cluster` and a history and inertia in its result; `cluster` if ``None``.

    Returns
    -------
    list of dict
        A row for each set, method and seed: the set's share of equal blocks, `totals` and the inertia.
    """
    jobs = [
        (name, method, seed, blocks)
        for name, sets in stress_sets(config, layer).items()
        for method in methods
        for seed, blocks in zip(config.seeds, sets, strict=True)
    ]
    rows = []
    for name, method, seed, blocks in track(jobs, "Clustering stress sets"):
        result = (clustering or cluster)(blocks, method, config, seed)
        rows.append({"set": name, "method": method, "seed": seed, **totals(result.history), "inertia": result.inertia})
    return rows


def summarise(rows: Sequence[Mapping[str, Any]], keys: tuple[str, ...] = ("set", "method")) -> list[dict[str, Any]]:
    """Return one row for each combination of `keys`: counts as totals over seeds, inertia as their mean."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    summary = []
    for values, group in groups.items():
        counts = {
            name: sum(row[name] for row in group)
            for name in ("empty at first", "rounds", "donor splits", "full reassignments", "left empty")
        }
        inertia = float(np.mean([row["inertia"] for row in group]))
        summary.append(dict(zip(keys, values, strict=True)) | {"runs": len(group), **counts, "mean inertia": inertia})
    return summary


def write_stress(writer: ResultsWriter, config: EmptyClustersConfig, layer: np.ndarray | None) -> list[dict[str, Any]]:
    """Run the stress sets and write their section; return the rows of `run_stress`."""
    rows = run_stress(config, layer)
    released, ours = ([row for row in rows if row["method"] == method] for method in METHODS)
    work = {key: [sum(row[key] for row in side) for side in (released, ours)] for key in ("rounds", "left empty")}
    writer.section(
        "Empty clusters on stress weights",
        f"{config.n_blocks:,} blocks of {config.block_size} weights and {config.n_centroids} codewords, "
        f"{config.max_iter} iterations, {len(config.seeds)} seeds. Blocks that are exactly equal (zeroed or pruned) "
        "break the released rule: it perturbs one copied codeword at a time, reassigns everything, and gives up after "
        f"100 tries. Over all sets it spent {work['rounds'][0]:,} rounds and left {work['left empty'][0]:,} codewords "
        f"empty; PG k-means spent {work['rounds'][1]:,} rounds and left {work['left empty'][1]:,}. Counts are totals "
        "over seeds.",
    )
    writer.figure(
        lambda: draw_stress(rows, config),
        "empty_clusters_stress",
        "Empty codewords at the first assignment and after the last, and rounds spent on them, against the share of "
        "zero blocks (mean over seeds; bars from least to most).",
    )
    writer.table(
        summarise(rows), "empty_clusters_stress", "Work on empty clusters on stress weights, totals over seeds."
    )
    return rows


def draw_stress(rows: Sequence[Mapping[str, Any]], config: EmptyClustersConfig) -> Any:
    """Draw empty codewords and rounds against the share of zero blocks."""
    from shared.plotting import COLOURS, new_figure

    figure, (left, right) = new_figure("page", aspect=0.36, ncols=2)
    shares = 100 * np.array(config.zero_shares)

    def draw(axes: Any, method: str, key: str, label: str, colour: str, marker: str) -> None:
        names = [f"Student t, {percent(share)} zero" for share in config.zero_shares]
        values = np.array([[row[key] for row in rows if row["set"] == n and row["method"] == method] for n in names])
        mean = values.mean(axis=1)
        spread = np.abs(np.stack([values.min(axis=1), values.max(axis=1)]) - mean)
        axes.errorbar(shares, mean, spread, label=label, color=colour, marker=marker, clip_on=False)

    draw(left, "released", "empty at first", "released, first assignment", COLOURS[1], "o")
    draw(left, "released", "left empty", "released, at the end", COLOURS[4], "s")
    draw(left, "PG", "empty at first", "PG, first assignment", COLOURS[0], "^")
    draw(left, "PG", "left empty", "PG, at the end", COLOURS[2], "v")
    left.set(xlabel="zero blocks (%)", ylabel=f"empty codewords of {config.n_centroids}", ylim=(0, None))
    left.legend()
    draw(right, "released", "rounds", "released", COLOURS[1], "o")
    draw(right, "PG", "rounds", "PG", COLOURS[0], "^")
    right.axhline(100, color="0.5", linewidth=0.8, linestyle=":")
    right.annotate("gives up", (shares[0], 100), xytext=(0, 2), textcoords="offset points", fontsize=7)
    right.set(xlabel="zero blocks (%)", ylabel="resolution rounds", ylim=(0, 112))
    right.legend(loc="center left")
    return figure
