"""Figures of the benchmark, from its CSV files."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clustering.tables import read_rows
from compression import kmeans, pg_kmeans
from compression.experiments.empty_clusters import EmptyClustersConfig, student_blocks
from shared.plotting import COLOURS, new_figure, save_figure, style


def draw(folder: Path) -> None:
    """Draw what the folder's files allow: growth against the arithmetic floor, convergence, empties by iteration."""
    with style():
        if rows := read_rows(folder / "grid.csv"):
            save_figure(growth(rows), folder / "growth")
        if rows := read_rows(folder / "convergence.csv"):
            save_figure(convergence(rows), folder / "convergence")
        if (folder / "stress.csv").exists():
            save_figure(empties(), folder / "empties")


def growth(rows: list[dict[str, Any]]) -> Any:
    """Time of a call per iteration over N, for each d and K, with the time of the matrix product alone."""
    sizes = sorted({(row["d"], row["K"]) for row in rows})
    columns = sorted({k for _, k in sizes})
    figure, axes = new_figure("page", 0.42, 1, len(columns), sharey=True, squeeze=False)
    dims = sorted({d for d, _ in sizes})
    for ax, k in zip(axes[0], columns, strict=True):
        for d, colour in zip(dims, COLOURS, strict=False):
            for method, line in (("faiss", "--"), ("PG k-means", "-")):
                here = sorted(
                    (r for r in rows if r["d"] == d and r["K"] == k and r["method"] == method), key=lambda r: r["N"]
                )
                times = [1e3 * r["seconds"] / r["iterations"] for r in here]
                ax.plot([r["N"] for r in here], times, line, color=colour, marker="o", markersize=3)
                if method == "faiss":
                    floor = [1e3 * r["sgemm floor"] / r["iterations"] for r in here]
                    ax.plot([r["N"] for r in here], floor, ":", color=colour)
        ax.set(xscale="log", yscale="log", xlabel="blocks N", title=f"K = {k}")
    axes[0][0].set_ylabel("whole call / iterations (ms)")
    for d, colour in zip(dims, COLOURS, strict=False):
        axes[0][0].plot([], [], "-", color=colour, label=f"d = {d}")
    for label, line in (("PG k-means", "-"), ("faiss", "--"), ("matrix product alone", ":")):
        axes[0][0].plot([], [], line, color="0.4", label=label)
    axes[0][0].legend(fontsize="x-small")
    return figure


def convergence(rows: list[dict[str, Any]]) -> Any:
    """Objective against the time of the call."""
    figure, ax = new_figure(aspect=0.8)
    best = min(row["objective"] for row in rows)
    for method, colour in zip(dict.fromkeys(row["method"] for row in rows), COLOURS, strict=False):
        here = [row for row in rows if row["method"] == method]
        ax.plot([r["seconds"] for r in here], [r["objective"] / best for r in here], "o-", color=colour, label=method)
    ax.set(xscale="log", xlabel="time of the call (s)", ylabel="objective / best")
    ax.legend(fontsize="small")
    return figure


def empties() -> Any:
    """Empty clusters met in each iteration on blocks of which 30 % are zero."""
    x = student_blocks(EmptyClustersConfig(), 0.3, 0)
    runs = {
        "no rule": kmeans(x, 256, init="random", empty="keep", tol=0),
        "faiss's rule": kmeans(x, 256, init="random", empty="faiss", tol=0),
        "scikit-learn's": kmeans(x, 256, init="k-means++", empty="farthest", tol=0),
        "PG k-means": pg_kmeans(x, 256, tol=0),
    }
    figure, ax = new_figure(aspect=0.8)
    for (name, result), colour in zip(runs.items(), COLOURS, strict=False):
        met = [row.empty for row in result.history]
        ax.plot(np.arange(1, len(met) + 1), met, "o-", color=colour, markersize=3, label=name)
    failed = kmeans(x, 256, init="random", empty="perturb", tol=0).history
    ax.plot([1], [failed[0].empty], "s", color="0.3", label=f"released: gives up, {failed[-1].left} left")
    ax.set(xlabel="iteration", ylabel="empty clusters met", yscale="symlog")
    ax.legend(fontsize="x-small")
    return figure
