"""Overhead of a task and throughput of two workers against one, with local processes and with Parsl.

Overhead: time per task of many empty tasks that each write a cache entry, start-up taken out as the difference of two
numbers of tasks. Throughput: the same tasks with one worker and with two, one thread each, with start-up and without;
pure-Python work, and GFN2-xTB relaxations of molecules of the shipped library.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.screening.tasks import busy_task, empty_task, geometry_task
from shared.artifacts import provenance, write_json
from shared.results import markdown_table
from shared.tasks import parallel_config, run_tasks

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def seconds(function: Callable[[Any], Any], items: Sequence[Any], n_workers: int) -> float:
    """Return the wall time of a run, all of whose tasks must succeed."""
    start = time.perf_counter()
    outcomes = run_tasks(function, items, n_workers=n_workers)
    wall = time.perf_counter() - start
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failed:
        raise failed[0]
    return wall


def overhead_ms(repeats: int, few: int = 20, many: int = 220) -> list[float]:
    """Return the overhead per task in ms, once for each repeat, with one worker."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            short = seconds(empty_task, [(folder, k) for k in range(few)], 1)
            long = seconds(empty_task, [(folder, few + k) for k in range(many)], 1)
        found.append(1e3 * (long - short) / (many - few))
    return found


def scaling(function: Callable[[Any], Any], items: Sequence[Any], repeats: int) -> dict[str, float]:
    """Return median times with one and two workers, alternating, and their ratios with and without start-up.

    Without: the difference between all items and every fourth one, so that a start of any length drops out.
    """
    walls: dict[tuple[int, str], list[float]] = {}
    for _ in range(repeats):
        for n_workers in (1, 2):
            for name, part in (("some", items[::4]), ("all", items)):
                walls.setdefault((n_workers, name), []).append(seconds(function, part, n_workers))
    wall = {key: statistics.median(values) for key, values in walls.items()}
    return {
        "one worker (s)": wall[1, "all"],
        "two workers (s)": wall[2, "all"],
        "ratio": wall[1, "all"] / wall[2, "all"],
        "lowest ratio": min(one / two for one, two in zip(walls[1, "all"], walls[2, "all"], strict=True)),
        "ratio without start-up": (wall[1, "all"] - wall[1, "some"]) / (wall[2, "all"] - wall[2, "some"]),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print the tables and write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screening", description=__doc__)
    parser.add_argument("--executor", nargs="+", choices=("processes", "parsl"), default=["processes", "parsl"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=32, help="busy tasks and geometries (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=10_000_000, help="length of a busy task (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/screening"), help="folder (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    start = time.monotonic()
    settings = {name: getattr(arguments, name) for name in ("executor", "repeats", "tasks", "turns")}
    from molecular_qubits.screening.library import SHIPPED, read_library
    from molecular_qubits.screening.stages import n_atoms

    os.environ.update(dict.fromkeys(ONE_THREAD, "1"), PROGRESS="0")
    arms = [candidate.on.smiles for candidate in read_library(SHIPPED).candidates if candidate.parts]
    arms = sorted(arms, key=n_atoms, reverse=True)[-arguments.tasks :]  # the smallest, the longest ones first
    overheads, ratios = [], []
    for executor in arguments.executor:
        with parallel_config(executor):
            values = overhead_ms(arguments.repeats)
            overheads.append(
                {"executor": executor, "median (ms)": statistics.median(values), "worst (ms)": max(values)}
            )
            busy = scaling(busy_task, [arguments.turns] * arguments.tasks, arguments.repeats)
            ratios.append({"executor": executor, "tasks": f"{arguments.tasks} x pure Python", **busy})
            found = scaling(geometry_task, arms, arguments.repeats)
            ratios.append({"executor": executor, "tasks": f"{arguments.tasks} x GFN2-xTB geometry", **found})
    print(f"Overhead per task (target: at most 50 ms)\n\n{markdown_table(overheads, 3)}")
    print(f"Throughput from one to two workers (target: at least 1.8 times)\n\n{markdown_table(ratios, 3)}")
    record = {"overhead": overheads, "scaling": ratios}
    write_json(arguments.out / "workers.json", record | {"provenance": provenance(settings, time.monotonic() - start)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
