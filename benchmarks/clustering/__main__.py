"""PG k-means beside faiss, scikit-learn and the released iPQ's rule: whole calls on the same blocks, in one run.

The methods take turns, round by round, so that a drift of the machine's speed meets all of them; tables give medians.
Every finished row is kept: the same command continues where it was stopped. A part that other code, other packages or
another number of rounds measured is measured again, so that all rows of a file have its provenance.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.clustering import methods, parts
from benchmarks.clustering.figures import draw
from benchmarks.clustering.parts import PARTS, summary
from benchmarks.clustering.tables import read_rows, write_rows
from compression import clustering
from shared.artifacts import committed_result, hash_code, provenance, versions, write_json
from shared.cli import run_command
from shared.progress import say
from shared.results import markdown_table

PEERS = ("faiss-cpu", "scikit-learn", "numba")
"""Packages that the times depend on."""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print its tables and write them with provenance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clustering", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of results")
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", default=list(PARTS), help="parts to run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each method (default 5)")
    parser.add_argument("--max-points", type=int, default=1_000_000, help="largest N of the grid (default 1,000,000)")
    parser.add_argument("--again", action="store_true", help="measure rows again that are there already")
    parser.add_argument("--fast", action="store_true", help="small data, to try the benchmark itself")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, but was {arguments.rounds}")
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    code = hash_code(Path(clustering.__file__).parent, methods.__file__, parts.__file__)
    folder = arguments.out / ("clustering-fast" if arguments.fast else "clustering")
    for part in arguments.only:
        path = folder / f"{part}.csv"
        options = {"part": part, "rounds": arguments.rounds, "peers": versions(PEERS), "code": code}
        known = None if arguments.again else committed_result(path.with_suffix(".json"), "config", options)
        rows = [] if known is None else read_rows(path)
        seconds = 0.0 if known is None else known["seconds"]
        done = {row["key"] for row in rows}
        for key, compute in PARTS[part](arguments.fast, arguments.rounds):
            if key in done or (part == "grid" and int(key.split()[0][2:]) > arguments.max_points):
                continue
            start = time.perf_counter()
            rows += [{"key": key, **row} for row in compute()]
            taken = time.perf_counter() - start
            seconds += taken
            write_rows(path, rows)
            write_json(path.with_suffix(".json"), provenance(options, seconds))
            say(f"{part}: {key} ({taken:.1f} s)")
        if rows:
            print(f"\n{markdown_table([{k: v for k, v in row.items() if k != 'key'} for row in rows])}\n")
            print(summary(part, rows))
    draw(folder)


if __name__ == "__main__":
    sys.exit(main())
