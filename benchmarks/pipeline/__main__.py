"""Time of the whole offline pipeline: fine-tuning, choice of sizes, clustering, distillation and scores of both models.

Runs ``pg-ipq run --preset PRESET --set budget=BUDGET`` in a process of its own, with an empty cache but for the fetched
packages (``pg-ipq fetch-data``). Nothing else may run meanwhile. With ``--run FOLDER`` the run stays there and is
continued after an interruption; the seconds are then those of its last part.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compression.experiments.presets import RUNS
from compression.training.packages import packages_folder
from shared.artifacts import machine, provenance, write_json
from shared.cli import run_command
from shared.results import markdown_table


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline, print its seconds and scores and write them with provenance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/pipeline"), help="folder of results")
    parser.add_argument("--preset", choices=RUNS, default="minilm-rt", help="default: minilm-rt")
    parser.add_argument(
        "--budget", default="15x", help="size of the file, or none: with the blocks of the preset (default: 15x)"
    )
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="keep the run; one that is finished is read")
    parser.add_argument("--folder", type=Path, help="cache folder with the packages")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    budget = None if arguments.budget == "none" else arguments.budget
    record = measure(arguments.preset, budget, packages_folder(arguments.folder), arguments.run)
    rows = record["rows"]
    write_json(arguments.out / f"{arguments.preset}{'' if budget is None else f'-{budget}'}.json", record)
    print(f"{machine()['processor']}, {machine()['cores']} cores\n\n{markdown_table(rows)}")


def measure(preset: str, budget: str | None, packages: Path, run: Path | None = None) -> dict[str, Any]:
    """Return ``rows``, one for each model, that of the compressed one with the seconds, and ``provenance``.

    Parameters
    ----------
    preset
        One of `RUNS`.
    budget
        Size of the file; with the preset's own blocks if ``None``.
    packages
        Folder of the fetched packages.
    run
        Folder of the run, finished or not; a temporary one if ``None``.

    Raises
    ------
    RuntimeError
        If the command fails; its messages are printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache, out = Path(folder, "cache"), Path(folder, "run") if run is None else run
        cache.mkdir()
        (cache / "packages").symlink_to(packages.resolve())
        command = [sys.executable, "-m", "compression", "run", "--preset", preset]
        command += [] if budget is None else ["--set", f"budget={budget}"]
        start = time.monotonic()
        done = subprocess.run([*command, "--folder", str(cache), "--out", str(out)], stdout=subprocess.DEVNULL)
        seconds = round(time.monotonic() - start, 1)
        if done.returncode:
            raise RuntimeError(f"`{' '.join(command)}` failed with exit code {done.returncode}.")
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    made = provenance({"preset": preset, "budget": budget}, seconds)
    if run is not None:  # perhaps finished before, by another version
        made = report["provenance"] | {"command": made["command"]}
        seconds = round(made["seconds"], 1)
    rows = report["rows"]
    rows = [row | {"seconds": seconds if row is rows[-1] else None} for row in rows]
    return {"rows": rows, "provenance": made}


if __name__ == "__main__":
    sys.exit(main())
