"""A compressed model as an ONNX file, in ONNX Runtime: size, time and memory, with the weights decoded once or always.

ONNX Runtime decodes the weights when it loads the file, and takes a dense model's memory, unless its optimizer
``ConstantFolding`` is switched off: then they are decoded in each run. Each way in a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.inference.__main__ import LENGTH, _settled, _status
from benchmarks.inference.models import CONFIGS, dense, quantized, sentence_batch
from compression.quantization.onnx_export import export_onnx
from shared.artifacts import provenance, versions, write_json
from shared.cli import run_command
from shared.results import markdown_table, write_table

WAYS = ("PyTorch, dense", "PyTorch, PQ", "ONNX Runtime, decoded once", "ONNX Runtime, decoded always")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print its table and write it with provenance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference.onnx", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/inference"), help="folder of results")
    parser.add_argument("--model", choices=tuple(CONFIGS), default="minilm", help="architecture (default: minilm)")
    parser.add_argument("--block-size", type=int, default=8, help="features in a block (default: 8)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="batch sizes (default: 1 16)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: 7)")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure is not None:
        print(json.dumps(_measured(arguments.measure[0], arguments.measure[1], arguments)))
        return 0
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        report = export_onnx(quantized(arguments.model, arguments.block_size), file)
        found = {way: _in_child(way, file, arguments) for way in WAYS}
    rows = [
        {
            "way": way,
            "batch": batch,
            "ms": 1e3 * values[f"seconds {batch}"],
            "time / dense": values[f"seconds {batch}"] / found[WAYS[0]][f"seconds {batch}"],
            "resident (MB)": values["resident"] / 1e6,
            "peak (MB)": values[f"peak {batch}"] / 1e6,
        }
        for batch in arguments.batches
        for way, values in found.items()
    ]
    write_table(rows, arguments.out / "onnx")
    options = {"model": arguments.model, "block_size": arguments.block_size, "rounds": arguments.rounds}
    options |= {"threads": torch.get_num_threads(), "file_bytes": report.bytes, "difference": report.difference}
    write_json(arguments.out / "onnx.json", provenance(options | versions(("onnxruntime", "onnx"))))
    print(f"File: {report.bytes:,} bytes; outputs differ by at most {report.difference:.1e} of the largest.")
    print(markdown_table(rows, digits=3))


def _in_child(way: str, file: Path, arguments: argparse.Namespace) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.inference.onnx",
        "--model",
        arguments.model,
        "--measure",
        way,
        str(file),
    ]
    command += ["--rounds", str(arguments.rounds), "--block-size", str(arguments.block_size)]
    command += ["--batches", *map(str, arguments.batches)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def _measured(way: str, file: str, arguments: argparse.Namespace) -> dict[str, float]:
    import onnxruntime

    sentence_batch(1, 8)
    before = _settled()
    compute: Any
    if way.startswith("PyTorch"):
        model = (dense if way.endswith("dense") else lambda name: quantized(name, arguments.block_size))(
            arguments.model
        )
        compute = torch.inference_mode()(lambda inputs: model(**inputs))
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        disabled = ["ConstantFolding"] if way.endswith("always") else []
        session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
        compute = lambda inputs: session.run(None, {name: value.numpy() for name, value in inputs.items()})  # noqa: E731
    found: dict[str, float] = {"resident": _settled() - before}
    for batch in arguments.batches:
        inputs = sentence_batch(batch, LENGTH)
        Path("/proc/self/clear_refs").write_text("5")
        compute(inputs)
        times = []
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            for _ in range(max(1, 16 // batch)):
                compute(inputs)
            times.append((time.perf_counter() - start) / max(1, 16 // batch))
        found[f"peak {batch}"] = _status("VmHWM") - before
        found[f"seconds {batch}"] = statistics.median(times)
    return found


if __name__ == "__main__":
    sys.exit(main())
