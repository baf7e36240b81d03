"""What other compressors make of the fp32 models of `pg-ipq study minilm-rt`: file size and accuracy.

torchao, quanto and HQQ compress linear layers and leave embeddings; here also with their codes on the embeddings.
Nothing is fine-tuned afterwards: of ours, the rows without distillation are the ones to compare with. A method whose
package is not installed is left out. Interrupted, it continues with the next model.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compressors import methods as compressors
from benchmarks.compressors.methods import PACKAGES, Compressor, available, compress_
from compression.experiments.presets import study_file
from compression.experiments.run_config import prepare
from compression.experiments.study import StudyConfig, plan
from compression.experiments.study_tables import load_study, packed, score_rows
from compression.experiments.task_run import predict
from compression.training.batches import EncodedData
from compression.training.evaluate import matthews_correlation
from compression.training.finetune import load_classifier
from shared.artifacts import Cache, hash_code, provenance, sha256_file, versions, write_json
from shared.cli import run_command
from shared.config import load_config
from shared.progress import progress
from shared.results import markdown_table

STUDY = "minilm-rt"
OUR_ROWS = ("fp32", "no distillation", "PG")
DIGITS = {"of fp32": 3, "accuracy (%)": 3, "lost (points)": 3, "Matthews": 3}


def main(argv: list[str] | None = None) -> int:
    """Run the measurement, print its table and write it with provenance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compressors", description=__doc__)
    parser.add_argument("--study", type=Path, default=Path("results/study", STUDY), help="folder of the study's runs")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/compressors"), help="folder of results")
    parser.add_argument("--folder", type=Path, help="cache folder of packaged models and data")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    methods = available()
    if not methods:
        raise ValueError(f"None of {', '.join(PACKAGES)} is installed.")
    config = load_config(StudyConfig, study_file(STUDY))
    first = next(iter(config.variants))
    homes = {run.seed: arguments.study / "dense" / run.dense for run in plan(config) if run.variant == first}
    for home in homes.values():
        if not (home / "model.safetensors").is_file():
            raise ValueError(f"{home} must hold a fine-tuned model, but does not: run `pg-ipq study {STUDY}` first.")
    prepared = prepare(config.run, arguments.folder)
    data = prepared.evaluation[prepared.task.evaluation_splits[0]]
    cache = Cache(arguments.folder, "compressors")
    runs, seconds = [], 0.0
    with progress("Models", total=len(homes) * (1 + 2 * len(methods))) as step:
        for seed, home in homes.items():
            key = {
                "model": sha256_file(home / "model.safetensors"),
                "data": data.sha256,
                "code": hash_code(compressors.__file__, __file__),
                "versions": versions((*PACKAGES, "torch", "transformers")),
            }
            dense = cache.record("found.json", key, partial(_measure, home, data))
            seconds += dense["seconds"]
            step()
            for name, method in methods.items():
                for place in ("linear layers", "all matrices"):
                    make = partial(_measure, home, data, method, embeddings=place == "all matrices")
                    found = cache.record("found.json", key | {"method": name, "place": place}, make)
                    seconds += found["seconds"]
                    runs.append(_as_run(name, place, seed, data.labels.numpy(), dense, found))
                    step()
    rows = score_rows(runs)
    ours = [row for row in score_rows(load_study(STUDY)["runs"]) if row["variant"] in OUR_ROWS]
    made = provenance({"study": STUDY, "methods": list(methods)}, seconds)
    made["versions"] |= versions(PACKAGES)
    write_json(arguments.out / "compressors.json", {"rows": rows, "provenance": made})
    print(markdown_table(rows, DIGITS))
    print(f"\nOurs (`pg-ipq study {STUDY}`):\n\n{markdown_table(ours, DIGITS)}")


def _measure(
    home: Path, data: EncodedData, method: Compressor | None = None, *, embeddings: bool = False
) -> dict[str, Any]:
    """Bytes and predictions of a fine-tuned model, compressed or not, and the seconds that they took."""
    start = time.monotonic()
    model = load_classifier(home)
    size = (home / "model.safetensors").stat().st_size if method is None else compress_(model, method, embeddings)
    found = predict(model, data).tolist()
    return {"bytes": size, "found": found, "seconds": time.monotonic() - start}


def _as_run(
    name: str, place: str, seed: int, labels: np.ndarray, dense: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """What the tables of a study need of a run."""
    predictions = {"fp32": np.array(dense["found"]), "iPQ": np.array(found["found"])}
    return {
        "variant": name,
        "size": place,
        "seed": seed,
        "of_fp32": dense["bytes"] / found["bytes"],
        "sentences": len(labels),
        "fp32": packed(predictions["fp32"] == labels),
        "compressed": packed(predictions["iPQ"] == labels),
        "matthews": {key: matthews_correlation(classes, labels) for key, classes in predictions.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
