"""Time of the whole offline pipeline: fine-tuning, choice of sizes, clustering, distillation and scores of both models.

Runs ``pg-ipq run --preset PRESET --set budget=BUDGET`` in a process of its own, with an empty cache but for the fetched
packages (``pg-ipq fetch-data``). Nothing else may run meanwhile.
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
    parser.add_argument("--budget", default="15x", help="size of the file (default: 15x)")
    parser.add_argument("--folder", type=Path, help="cache folder with the packages")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    rows = measure(arguments.preset, arguments.budget, packages_folder(arguments.folder))
    about = {"preset": arguments.preset, "budget": arguments.budget}
    record = {"rows": rows, "provenance": provenance(about, rows[-1]["seconds"])}
    write_json(arguments.out / f"{arguments.preset}-{arguments.budget}.json", record)
    print(f"{machine()['processor']}, {machine()['cores']} cores\n\n{markdown_table(rows)}")


def measure(preset: str, budget: str, packages: Path) -> list[dict[str, Any]]:
    """Return a row for each model of the run; that of the compressed one has the seconds of the whole command.

    Raises
    ------
    RuntimeError
        If the command fails; its messages are printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache, out = Path(folder, "cache"), Path(folder, "run")
        cache.mkdir()
        (cache / "packages").symlink_to(packages.resolve())
        command = [sys.executable, "-m", "compression", "run", "--preset", preset, "--set", f"budget={budget}"]
        start = time.monotonic()
        done = subprocess.run([*command, "--folder", str(cache), "--out", str(out)], stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        if done.returncode:
            raise RuntimeError(f"`{' '.join(command)}` failed with exit code {done.returncode}.")
        rows = json.loads((out / "report.json").read_text(encoding="utf-8"))["rows"]
    return [row | {"seconds": round(seconds, 1) if row is rows[-1] else None} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
