"""A linear layer in all its ways, by shape: dense, decoded, codewords, tables of partial products, and integers.

By these times a layer chooses between tables and codewords (`compression.quantization.lookup.estimate`). The ways take
turns, round by round.
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from torch.nn import functional

from compression.quantization.activations import ActivationGrid
from compression.quantization.blocks import code_dtype, round_codebook
from compression.quantization.compiled_decode import decode
from compression.quantization.integers import linear_in_integers
from compression.quantization.lookup import (
    LIMIT,
    estimate,
    linear_by_codewords,
    linear_by_tables,
    tables_pay,
)
from compression.quantization.packed_codes import PackedCodes
from shared.artifacts import provenance, write_json
from shared.cli import run_command
from shared.plotting import COLOURS, new_figure, save_figure, style
from shared.results import markdown_table, write_table

DATA = Path(__file__).resolve().parent / "data"

LAYERS = ((384, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072))
"""Output and input features: those of a 384-wide and a 768-wide encoder."""

CODES = ((16, 8), (64, 8), (256, 2), (256, 4), (256, 8), (256, 16), (512, 6), (512, 8), (1024, 8), (1024, 16))
"""Codewords and features in a block."""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print its table and write it with provenance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference.shapes", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/inference"), help="folder of results")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 128, 2048], help="rows (default: 1 128 2048)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds (default: 9)")
    parser.add_argument("--committed", action="store_true", help="show the committed rows in place of a run")
    arguments = parser.parse_args(argv)
    if arguments.committed:
        return run_command(lambda: _show(committed(), arguments.out), arguments)
    if min(arguments.rounds, *arguments.tokens) < 1:
        parser.error("--rounds and --tokens must be at least 1")
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    rows = []
    with torch.inference_mode():
        for n_tokens in arguments.tokens:
            for n_out, n_in in LAYERS:
                for k, d in CODES:
                    times = _times(n_tokens, n_out, n_in, k, d, arguments.rounds)
                    shape = {"tokens": n_tokens, "out": n_out, "in": n_in, "K": k, "d": d}
                    rows.append(shape | _row(times, k, d, n_out))
    write_table(rows, arguments.out / "shapes")
    record = provenance({"rounds": arguments.rounds, "threads": torch.get_num_threads()})
    write_json(arguments.out / "shapes.json", record)
    print(markdown_table(rows, digits=3))
    print(markdown_table(summary(rows), digits=3))


def _show(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    print(markdown_table(summary(rows), digits=3))
    with style():
        print(save_figure(draw(rows), out / "shapes")[0])


def committed() -> list[dict[str, str]]:
    """Return the committed rows."""
    with (DATA / "shapes.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the figure of the ways against the estimate by which layers choose; call it inside `style`.

    On the line tables take what is estimated; left of the dotted one they are chosen.
    """
    shown = [tokens for tokens in sorted({int(row["tokens"]) for row in rows}) if tokens > 1]
    figure, grid = new_figure("page", 0.42, 1, len(shown), sharey=True, squeeze=False)
    for axes, tokens in zip(grid[0], shown, strict=True):
        of_tokens = [row for row in rows if int(row["tokens"]) == tokens]
        places = [float(row["estimate of tables"]) for row in of_tokens]
        for number, (way, marker) in enumerate({"decoded": "s", "codewords": "o", "tables": "^"}.items()):
            times = [float(row[f"{way} / dense"]) for row in of_tokens]
            axes.plot(places, times, marker, color=COLOURS[number], markersize=3.5, mfc="none", label=way)
        axes.axvline(LIMIT, color="0.5", linewidth=0.8, linestyle=":")
        axes.plot(sorted(places), sorted(places), color=COLOURS[2], linewidth=0.6)
        axes.set(xscale="log", yscale="log", title=f"{tokens:,} tokens", xlabel="tables / dense product, estimated")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
    grid[0, 0].set_ylabel("time / dense product")
    grid[0, 0].legend(loc="upper left")
    return figure


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the times over the dense product's by tokens and way, over all shapes that it computes."""
    found = []
    for tokens in sorted({int(row["tokens"]) for row in rows}):
        for way in ("decoded", "codewords", "tables", "integers", "chosen"):
            ratios = [float(row[f"{way} / dense"]) for row in rows if int(row["tokens"]) == tokens]
            spread = {"least": min(ratios), "geometric mean": statistics.geometric_mean(ratios), "most": max(ratios)}
            found.append({"tokens": tokens, "way": way} | spread)
    return found


def _row(times: dict[str, float], k: int, d: int, n_out: int) -> dict[str, Any]:
    ratios = {f"{way} / dense": seconds / times["dense"] for way, seconds in times.items() if way != "dense"}
    by_tables = tables_pay(k, d, n_out)
    chosen = ratios[f"{'tables' if by_tables else 'codewords'} / dense"]
    choice = {"estimate of tables": estimate(k, d, n_out), "tables are chosen": by_tables, "chosen / dense": chosen}
    return {"dense (ms)": 1e3 * times["dense"], **ratios, **choice}


def _times(n_tokens: int, n_out: int, n_in: int, k: int, d: int, rounds: int) -> dict[str, float]:
    """Median seconds of each way."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_tokens, n_in, generator=generator)
    centroids = round_codebook(torch.randn(k, d, generator=generator), "int8")
    codes = torch.randint(0, k, (n_out, n_in // d), generator=generator).to(code_dtype(k))
    bias = torch.randn(n_out, generator=generator)
    weight, grid = centroids[codes.long()].flatten(1), ActivationGrid.spanning(-4, 4)
    # Decoded to memory that is there: the system takes as long to give the pages of new memory as the decoding takes.
    memory = torch.empty(n_out, n_in)
    kept = PackedCodes.of(codes, k) if k > 256 else codes  # as a loaded model has them
    ways: dict[str, Callable[[], torch.Tensor | None]] = {
        "dense": lambda: functional.linear(x, weight, bias),
        "decoded": lambda: functional.linear(x, decode(centroids, kept, memory), bias),
        "codewords": lambda: linear_by_codewords(x, centroids, kept, bias),
        "tables": lambda: linear_by_tables(x, centroids, kept, bias),
        "integers": lambda: linear_in_integers(x, grid, centroids, codes, bias),
    }
    for compute in ways.values():
        compute()
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, compute in ways.items():
            start = time.perf_counter()
            for _ in range(max(1, 512 // n_tokens)):
                compute()
            found[way].append((time.perf_counter() - start) / max(1, 512 // n_tokens))
    return {way: statistics.median(seconds) for way, seconds in found.items()}


if __name__ == "__main__":
    sys.exit(main())
