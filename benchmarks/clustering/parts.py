"""The parts of the benchmark: each yields rows, one group of methods at a time, for keys not yet done."""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clustering.methods import METHODS, sgemm_rate, side_by_side, work
from compression import kmeans, pg_kmeans
from compression.clustering.consolidation import consolidate_points
from compression.clustering.partition import SPLITS
from compression.clustering.points import distinct_points
from compression.experiments.empty_clusters import EmptyClustersConfig, pruned_blocks, student_blocks

Rows = list[dict[str, Any]]
Group = tuple[str, Callable[[], Rows]]
"""A key, and what computes the rows of that key."""

ITERATIONS = 15


def grid(fast: bool, rounds: int) -> Iterator[Group]:
    """Normal blocks: N, d and K crossed."""
    sizes = [4_000] if fast else [10_000, 100_000, 294_912, 1_000_000, 10_000_000, 20_000_000]
    for n in sizes:
        for d in (4, 8, 16):
            for k in (16, 256) if fast else (16, 256, 4096):
                if k < n and n * d * k <= 1.4e12:
                    yield f"N={n} d={d} K={k}", partial(_grid_rows, n, d, k, rounds)


def _grid_rows(n: int, d: int, k: int, rounds: int) -> Rows:
    x = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    per_iteration = float(n) * d * k
    methods = ["faiss", "PG k-means"]
    if per_iteration <= 1e9 and k <= 256:
        methods += ["scikit-learn k-means++", "released rule (ours)"]
    floor = 2 * per_iteration * (ITERATIONS + 1) / sgemm_rate(k, d)
    long_call = per_iteration * ITERATIONS >= 5e10
    repeats = (1 if n > 1_000_000 else min(rounds, 3)) if long_call else rounds
    return [
        {"N": n, "d": d, "K": k, "iterations": ITERATIONS, "rounds": repeats, "sgemm floor": floor, **row}
        for row in side_by_side(x, k, ITERATIONS, repeats, tuple(methods))
    ]


def stress_sets(fast: bool) -> dict[str, Callable[[int], tuple[np.ndarray, int]]]:
    """Blocks (N, 8) and K for a seed, by name: healthy first."""
    config = EmptyClustersConfig(n_blocks=2_048 if fast else 18_432)
    k = 64 if fast else 256
    sets: dict[str, Callable[[int], tuple[np.ndarray, int]]] = {}

    def with_zeros(share: float, seed: int) -> tuple[np.ndarray, int]:
        return student_blocks(config, share, seed), k

    def healthy(seed: int) -> np.ndarray:
        return student_blocks(config, 0.0, seed)

    def duplicates(seed: int) -> np.ndarray:
        rng = np.random.default_rng((seed, 2))
        return healthy(seed)[rng.integers(0, 2 * k, config.n_blocks)]

    def pruned(share: float) -> Callable[[int], tuple[np.ndarray, int]]:
        return lambda seed: (pruned_blocks(healthy(seed), config.block_size, share), k)

    def constant(seed: int) -> np.ndarray:
        x = healthy(seed)
        x[:, 2:] = 0.04
        return x

    for share in (0.0, 0.1, 0.3, 0.5):
        sets[f"{share:.0%} zero blocks"] = partial(with_zeros, share)
    sets["duplicates: 2 K distinct"] = lambda seed: (duplicates(seed), k)
    sets["rounded to 1/64, as float16 does at 16"] = lambda seed: (np.round(healthy(seed) * 64) / 64, k)
    sets["pruned 50%"] = pruned(0.5)
    sets["pruned 90%"] = pruned(0.9)
    sets["K close to N"] = lambda seed: (healthy(seed)[: k + k // 8], k)
    sets["heavy tails (t, 1.5 degrees of freedom)"] = lambda seed: (
        np.random.default_rng((seed, 3)).standard_t(1.5, (config.n_blocks, 8)).astype(np.float32), k,
    )  # fmt: skip
    sets["constant columns"] = lambda seed: (constant(seed), k)
    return sets


STRESS_METHODS: dict[str, Callable[..., Any]] = {
    "released rule": lambda x, k, seed: kmeans(x, k, init="random", empty="perturb", tol=0, seed=seed),
    "released rule, batched": lambda x, k, seed: kmeans(x, k, init="random", empty="perturb-batched", tol=0, seed=seed),
    "faiss's rule": lambda x, k, seed: kmeans(x, k, init="random", empty="faiss", tol=0, seed=seed),
    "scikit-learn's rule": lambda x, k, seed: kmeans(x, k, init="k-means++", empty="farthest", tol=0, seed=seed),
    "PG k-means": lambda x, k, seed: pg_kmeans(x, k, tol=0, seed=seed),
}


def stress(fast: bool, rounds: int) -> Iterator[Group]:
    """What each rule spends on empty clusters, in total over seeds."""
    for name, make in stress_sets(fast).items():
        yield name, partial(_stress_rows, name, make, 1 if fast else 3)


def _stress_rows(name: str, make: Callable[[int], tuple[np.ndarray, int]], seeds: int) -> Rows:
    rows: Rows = []
    for method, run in STRESS_METHODS.items():
        totals: dict[str, float] = {}
        for seed in range(seeds):
            x, k = make(seed)
            x = np.ascontiguousarray(x, np.float32)
            result = run(x, k, seed)
            possible = min(k, len(np.unique(x + 0.0, axis=0)))
            for key, value in {**work(result), "left empty": possible - result.n_effective}.items():
                totals[key] = totals.get(key, 0) + value
            totals["objective"] = totals.get("objective", 0.0) + result.inertia
        rows.append({"blocks": name, "method": method, "seeds": seeds, **totals})
    best = min(row["objective"] for row in rows)
    return [{**row, "objective / best": row["objective"] / best if best > 0 else 1.0} for row in rows]


def model(fast: bool, rounds: int) -> Iterator[Group]:
    """All layers of the 12-layer MPNet, or of the 6-layer MiniLM if that is what there is: K=256, 15 iterations."""
    from compression.training.models import load_minilm_roberta, load_mpnet
    from compression.training.packages import DataError

    try:
        name, encoder = ("MiniLM", load_minilm_roberta()) if fast else ("MPNet", load_mpnet())
    except DataError as error:
        print(f"The part `model` is left out: {error}", file=sys.stderr)
        return
    weights = {key: value for key, value in encoder.state_dict().items() if value.ndim == 2 and value.numel() > 8 * 256}
    for layer, value in list(weights.items())[: 2 if fast else None]:
        x = np.ascontiguousarray(value.numpy().reshape(-1, 8))
        yield f"{name} {layer}", partial(_layer_rows, name, layer, x, rounds)


def _layer_rows(model_name: str, layer: str, x: np.ndarray, rounds: int) -> Rows:
    return [
        {"model": model_name, "layer": layer, "N": len(x), "d": 8, "K": 256, "rounds": rounds, **row}
        for row in side_by_side(x, 256, ITERATIONS, rounds, ("faiss", "PG k-means", "scikit-learn k-means++"))
    ]


def memory(fast: bool, rounds: int) -> Iterator[Group]:
    """Peak resident memory of one call, in a process of its own."""
    for n, d, k in (
        [(20_000, 8, 16)]
        if fast
        else [(294_912, 8, 4096), (1_000_000, 8, 256), (1_000_000, 16, 4096), (10_000_000, 4, 256)]
    ):
        yield f"N={n} d={d} K={k}", partial(_memory_rows, n, d, k)


def _memory_rows(n: int, d: int, k: int) -> Rows:
    return [_memory_row(method, n, d, k) for method in ("faiss", "PG k-means")]


def _memory_row(method: str, n: int, d: int, k: int) -> dict[str, Any]:
    script = f"from benchmarks.clustering.parts import extra_memory as f; print(f({method!r}, {n}, {d}, {k}))"
    extra = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    limit = 24 * n + 64 * 10**6
    return {
        "N": n, "d": d, "K": k, "method": method, "MB above the data": extra / 1e6, "bytes a point": extra / n,
        "share of 24 bytes a point + 64 MB": extra / limit,
    }  # fmt: skip


def extra_memory(method: str, n: int, d: int, k: int) -> int:
    """Bytes by which one call raises the peak of resident memory; to be run in a fresh process."""
    METHODS[method](np.random.default_rng(1).standard_normal((2_000, d), dtype=np.float32), 16, 2, 0)
    x = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    before = _peak_memory(reset=True)
    METHODS[method](x, k, 3, 0)
    return _peak_memory() - before


def _peak_memory(reset: bool = False) -> int:
    """Peak resident memory in bytes; on Linux since it was last set back to what is resident now."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


def convergence(fast: bool, rounds: int) -> Iterator[Group]:
    """Objective against time: each method with more and more iterations."""
    n = 20_000 if fast else 294_912
    for iterations in (2, 4) if fast else (1, 2, 4, 8, 15, 30):
        yield f"iterations={iterations}", partial(_convergence_rows, n, iterations, rounds)


def _convergence_rows(n: int, iterations: int, rounds: int) -> Rows:
    x = np.random.default_rng(0).standard_normal((n, 8), dtype=np.float32)
    methods = ("faiss", "PG k-means", "scikit-learn k-means++")
    return [{"N": n, "iterations": iterations, **row} for row in side_by_side(x, 256, iterations, rounds, methods)]


def splits(fast: bool, rounds: int) -> Iterator[Group]:
    """The directions of the cuts: objective after the pre-assignment and at the end, and time of the call."""
    for name, x in _healthy_blocks(fast).items():
        yield name, partial(_option_rows, name, x, [{"split": split} for split in SPLITS], rounds)


def consolidation(fast: bool, rounds: int) -> Iterator[Group]:
    """Merging of dense blocks by radius: objective, time, and how many distinct blocks are left to share codes."""
    for name, x in _healthy_blocks(fast).items():
        radii = (None, 0.05, 0.1, 0.2, 0.4)
        yield name, partial(_option_rows, name, x, [{"consolidate": radius} for radius in radii], rounds)


def _healthy_blocks(fast: bool) -> dict[str, np.ndarray]:
    n = 5_000 if fast else 294_912
    rng = np.random.default_rng(0)
    return {
        "normal": rng.standard_normal((n, 8), dtype=np.float32),
        "Student t, 4 degrees of freedom": rng.standard_t(4, (n, 8)).astype(np.float32),
        "heavy tails (t, 1.5 degrees of freedom)": rng.standard_t(1.5, (n, 8)).astype(np.float32),
        "normal, d=4": rng.standard_normal((n, 4), dtype=np.float32),
    }


def _option_rows(name: str, x: np.ndarray, options: list[dict[str, Any]], rounds: int) -> Rows:
    rows: Rows = []
    for option in options:
        seconds = []
        for _ in range(rounds + 1):  # the first is not counted
            start = time.perf_counter()
            result = pg_kmeans(x, 256, tol=0, **option)
            seconds.append(time.perf_counter() - start)
        row = {"blocks": name, "N": len(x), **{key: str(value) for key, value in option.items()}}
        if "consolidate" in option:
            points = distinct_points(x)
            if option["consolidate"]:
                points = consolidate_points(points, option["consolidate"], 256)
            row["blocks left"] = len(points.values)
        else:
            row["first objective"] = result.history[0].inertia
        rows.append({**row, "objective": result.inertia, "seconds": statistics.median(seconds[1:])})
    return [
        {**row, "objective / first row": row["objective"] / rows[0]["objective"], "seconds / first row":
         row["seconds"] / rows[0]["seconds"]}
        for row in rows
    ]  # fmt: skip


PARTS: dict[str, Callable[[bool, int], Iterator[Group]]] = {
    "grid": grid,
    "stress": stress,
    "convergence": convergence,
    "memory": memory,
    "splits": splits,
    "consolidation": consolidation,
    "model": model,
}


def summary(part: str, rows: Rows) -> str:
    """One sentence on a part."""
    if part == "stress":
        columns = ("rounds", "full reassignments", "left empty")
        totals = {method: [row for row in rows if row["method"] == method] for method in STRESS_METHODS}
        return "Rounds, full reassignments and empty clusters left, all sets: " + "; ".join(
            f"{method} {', '.join(f'{int(sum(row[column] for row in some)):,}' for column in columns)}"
            for method, some in totals.items()
        )
    if part in ("splits", "consolidation"):
        return ""
    ours = [row for row in rows if row["method"] == "PG k-means"]
    if part == "memory":
        return f"PG k-means: at most {max(r['share of 24 bytes a point + 64 MB'] for r in ours):.2f} of the bound."
    ratios = [row["objective / best peer"] for row in ours]
    text = f"PG k-means: at most {max(r['seconds / faiss'] for r in ours):.2f} of faiss's time; objective "
    text += f"{statistics.geometric_mean(ratios):.4f} of the better of faiss and scikit-learn in the geometric mean, "
    text += f"at most {max(ratios):.4f}; {int(sum(r['empty'] for r in ours))} empty clusters."
    if part == "model":
        theirs = sum(row["seconds"] for row in rows if row["method"] == "faiss")
        text += f" Whole model: {sum(row['seconds'] for row in ours):.2f} s beside {theirs:.2f} s."
    return text


def data_folder() -> Path:
    """Where the results that took long are committed."""
    return Path(__file__).parent / "data"
