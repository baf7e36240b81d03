"""A high-spin and broken-symmetry pair: this package beside a plain PySCF script, same geometry and threads, in turns.

Each run is a process of its own with an empty cache. Every finished row is kept with its settings and what made it: the
same command continues where it was stopped; rows of other code, another PySCF or another processor stay, but are not
compared with its own. The claim is that of the fixed molecule (18 heavy atoms); --systems adds smaller and larger ones.
--committed shows the rows that are committed: each ratio and each line of the figure is of one code and processor.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.exchange import ours, plain, systems
from benchmarks.exchange.systems import FIXED, SYSTEMS, job
from molecular_qubits import electronic, fields
from molecular_qubits.electronic.projection import project_j
from molecular_qubits.units import HARTREE_TO_CM1
from shared.artifacts import Cache, git_commit, hash_code, machine, provenance, versions, write_json
from shared.cli import run_command
from shared.plotting import COLUMN_WIDTH_IN, save_figure, style
from shared.progress import say
from shared.results import markdown_table

COMMITTED = Path(__file__).with_name("data") / "pairs.json"
METHODS = ("plain", "ours")
LABELS = {"plain": "plain PySCF script", "ours": "this package"}
OPTIONS: dict[str, Any] = {"conv_tol": 1e-8, "stability": False}
"""What this package is given in place of its defaults; --options replaces it. The plain script has no stability
analysis either; its grid is PySCF's level 3, and so is ours."""

S2_TOLERANCE = 0.4
"""Largest deviation of <S^2> from separate spins for a state that counts as the one asked for."""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print its table and write rows, provenance and the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exchange", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of results")
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=[FIXED], help=f"default: {FIXED}")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: both")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each method (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each run (default %(default)s)")
    parser.add_argument("--xc", default="b3lyp", help="functional (default: %(default)s)")
    parser.add_argument("--basis", default="6-31g*", help="basis set (default: %(default)s)")
    parser.add_argument("--options", type=json.loads, default=OPTIONS, help=f"JSON; default: {json.dumps(OPTIONS)}")
    parser.add_argument("--cache", type=Path, default=None, help="cache of relaxed geometries")
    parser.add_argument(
        "--committed", action="store_true", help="show all committed rows in place of a run (with --out, --options)"
    )
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1 or arguments.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    return run_command(lambda: (show_committed if arguments.committed else _run)(arguments), arguments)


def show_committed(arguments: argparse.Namespace) -> None:
    """Print the table of the committed rows and draw their figure."""
    rows = of_options(json.loads(COMMITTED.read_text(encoding="utf-8"))["rows"], arguments.options)
    print(markdown_table(compare(rows)))
    draw(rows, arguments.out / "exchange" / "growth")


def _run(arguments: argparse.Namespace) -> None:
    path = arguments.out / "exchange" / "pairs.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    done = {row["key"] for row in rows}
    settings = {name: getattr(arguments, name) for name in ("xc", "basis", "threads")}
    folders = (Path(str(package.__file__)).parent for package in (electronic, fields))
    settings |= {"code": hash_code(*folders, ours.__file__, plain.__file__, systems.__file__)}
    settings |= {"packages": versions(("pyscf",)), "processor": machine()["processor"]}
    for name in arguments.systems:
        system = SYSTEMS[name]
        molecule = system.molecule(Cache(arguments.cache, name="geometry"))
        task = job(system, molecule, arguments.xc, arguments.basis, arguments.options)
        for turn in range(arguments.rounds):
            for method in arguments.methods:
                options = arguments.options if method == "ours" else None
                key = json.dumps([name, method, turn, settings, options], sort_keys=True)
                if key in done:
                    continue
                say(f"{name}: {method}, round {turn + 1}")
                row = {"key": key, "system": name, "heavy_atoms": molecule.n_heavy_atoms, "method": method}
                row |= {"round": turn, **settings, "options": options, "commit": git_commit()}
                rows.append(row | measure(method, task, arguments.threads))
                taken = sum(row["seconds"] for row in rows)
                write_json(path, {"rows": rows, "provenance": provenance({"options": arguments.options}, taken)})
    rows = [row for row in of_options(rows, arguments.options) if row.items() >= settings.items()]
    print(f"\n{markdown_table(compare([row for row in rows if row['system'] in arguments.systems]))}")
    draw(rows, path.with_name("growth"))


def measure(method: str, task: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run one method in its own process; return seconds, states and the Yamaguchi coupling.

    Raises
    ------
    RuntimeError
        If the process fails; the message holds the end of what it printed.
    """
    scripts = {
        "plain": [str(Path(__file__).with_name("plain.py"))],
        "ours": ["-m", "benchmarks.exchange.ours"],
    }
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    with tempfile.TemporaryDirectory() as folder:
        job_path, result_path = Path(folder) / "job.json", Path(folder) / "result.json"
        job_path.write_text(json.dumps(task), encoding="utf-8")
        start = time.perf_counter()
        process = subprocess.run(
            [sys.executable, *scripts[method], str(job_path), str(result_path)],
            env=os.environ | limits, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if process.returncode:
            raise RuntimeError(f"The {method} run failed: {process.stderr.strip()[-500:]}")
        record = json.loads(result_path.read_text(encoding="utf-8"))
    high, broken = record["states"]
    spins = task["spins"]
    expected = [sum(spins) ** 2 + sum(spins), (sum(spins[1:]) - spins[0]) ** 2 + sum(spins)]
    right = all(
        state["converged"] and abs(state["s2"] - value) < S2_TOLERANCE
        for state, value in zip(record["states"], expected, strict=True)
    )
    coupling = None
    if right:
        pair = project_j(high["energy_hartree"], broken["energy_hartree"], high["s2"], broken["s2"], spins=spins)
        coupling = pair.yamaguchi_cm1
    return {
        "seconds": seconds,
        "seconds_inside": record["seconds"],
        "cycles": [state["cycles"] for state in record["states"]],
        "s2": [state["s2"] for state in record["states"]],
        "gap_cm1": (broken["energy_hartree"] - high["energy_hartree"]) * HARTREE_TO_CM1,
        "right_states": right,
        "j_yamaguchi_cm1": coupling,
    }


def of_options(rows: list[dict[str, Any]], options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the plain script, and those of this package with some options."""
    return [row for row in rows if row.get("options") in (None, options)]


def origin(row: dict[str, Any]) -> tuple[str | None, ...]:
    """Return what makes seconds comparable: method, code, PySCF, processor; ``None`` where a row does not record it."""
    code = row["code"][:8] if "code" in row else None
    method = f"{row['xc']}/{row['basis']}, {row['threads']} threads"
    return method, code, row.get("packages", {}).get("pyscf"), row.get("processor")


def compare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one table row for each molecule and `origin`: median seconds of both, their ratio, both couplings."""
    table = []
    for group in dict.fromkeys((row["system"], origin(row)) for row in rows):
        of_group = [row for row in rows if (row["system"], origin(row)) == group]
        found = {method: [row for row in of_group if row["method"] == method] for method in METHODS}
        seconds = {m: statistics.median(row["seconds"] for row in found[m]) for m in METHODS if found[m]}
        j = {m: found[m][-1]["j_yamaguchi_cm1"] if found[m] else None for m in METHODS}
        agree = None
        if j["plain"] is not None and j["ours"] is not None:
            agree = abs(j["ours"] - j["plain"]) <= max(0.1, 0.01 * abs(j["plain"]))
        method, code, pyscf, processor = group[1]
        table.append(
            {
                "molecule": group[0],
                "heavy atoms": of_group[0]["heavy_atoms"],
                "method": method,
                "plain (s)": seconds.get("plain"),
                "ours (s)": seconds.get("ours"),
                "times faster": seconds["plain"] / seconds["ours"] if len(seconds) == 2 else None,
                "J plain (cm^-1)": j["plain"],
                "J ours (cm^-1)": j["ours"],
                "J equal within 1 % or 0.1 cm^-1": agree,
                "code": code,
                "PySCF": pyscf,
                "processor": processor,
            }
        )
    return table


def draw(rows: list[dict[str, Any]], stem: Path) -> None:
    """Draw seconds against the number of heavy atoms, one line for each method and `origin`."""
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    with style():
        lines = growth(rows)
        several = len(lines) > len(METHODS)
        figure, axes = pyplot.subplots(figsize=(COLUMN_WIDTH_IN, 3.4 if several else 2.6))
        for label, sizes, medians, look in lines:
            axes.plot(sizes, medians, look, label=label)
        axes.set(xlabel="heavy atoms", ylabel="seconds for the pair", yscale="log")
        axes.set_xticks(sorted({row["heavy_atoms"] for row in rows}))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        if several:
            figure.legend(loc="outside lower left")
        else:
            axes.legend()
        save_figure(figure, stem)
        pyplot.close(figure)


def growth(rows: list[dict[str, Any]]) -> list[tuple[str, list[int], list[float], str]]:
    """Return the lines of the figure: label, heavy atoms, median seconds, and the look in the words of matplotlib."""
    origins = list(dict.fromkeys(origin(row) for row in rows))
    lines = []
    for number, (_, code, _, processor) in enumerate(origins):
        short = processor and processor.replace("(R)", "").replace(" Processor", "")
        known = ", ".join(word for word in (short, code and f"code {code}") if word) or "code not recorded"
        where = f" ({known})" if len(origins) > 1 else ""
        for method, look in (("plain", "o--"), ("ours", "s-")):
            of_line = [row for row in rows if row["method"] == method and origin(row) == origins[number]]
            sizes = sorted({row["heavy_atoms"] for row in of_line})
            medians = [statistics.median(r["seconds"] for r in of_line if r["heavy_atoms"] == size) for size in sizes]
            if sizes:
                lines.append((LABELS[method] + where, sizes, medians, f"C{number}{look}"))
    return lines


if __name__ == "__main__":
    sys.exit(main())
