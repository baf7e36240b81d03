"""A compressed model's forward pass beside the dense one's: time and resident memory, in one run.

The methods take turns, round by round, so that a drift of the machine's speed meets all of them; tables give medians of
the ratio within a round. Memory is that of a fresh process for each method: resident bytes after the model has been
made, and their peak during forward passes, both above the process before the model. What weights take at the peak, all
buffers included, is that peak less the activations, which are those of the dense model: its peak less its weights (or
what is resident before, if that is more: the dense products need memory too that these do not). Compressed files hold
what is not quantized in fp32, as the dense one does.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.inference.models import CONFIGS, METHODS, available, disk_bytes, make, sentence_batch, weight_bytes
from compression.quantization.torch_threads import release_scratch
from shared.artifacts import provenance, versions, write_json
from shared.cli import run_command
from shared.progress import say
from shared.results import markdown_table, write_table

LENGTH = 128


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print its table and write it with provenance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/inference"), help="folder of results")
    parser.add_argument("--model", choices=tuple(CONFIGS), default="minilm", help="architecture (default: minilm)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 32], help="batch sizes (default: 1 16 32)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: 7)")
    parser.add_argument("--length", type=int, default=LENGTH, help=f"tokens of a sentence (default: {LENGTH})")
    names = tuple(METHODS)
    text = f"of {', '.join(map(repr, names))} (default: all)"
    parser.add_argument("--only", nargs="+", choices=names, default=list(names), metavar="NAME", help=text)
    parser.add_argument("--memory-of", choices=tuple(METHODS), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1 or min(arguments.batches) < 1 or not 1 <= arguments.length <= 512:
        parser.error("--rounds and --batches must be at least 1, and --length must lie in 1..512")
    if arguments.memory_of is not None:
        print(json.dumps(_memory(arguments.memory_of, arguments)))
        return 0
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    first = next(iter(METHODS))
    names = available([first, *(name for name in arguments.only if name != first)], arguments.model)
    for missing in set(arguments.only) - set(names):
        say(f"{missing}: its package is not installed, or there is no plan for the model.")
    times = _times(names, arguments)
    memory = {name: _memory_in_child(name, arguments) for name in names}
    rows = [_row(name, batch, first, times, memory) for batch in arguments.batches for name in names]
    rounds = [
        {"method": name, "batch": batch, "round": number, "ms": 1e3 * seconds}
        for (name, batch), found in times.items()
        for number, seconds in enumerate(found)
    ]
    write_table(rows, arguments.out / arguments.model)
    write_table(rounds, arguments.out / f"{arguments.model}_rounds")
    options = {key: value for key, value in vars(arguments).items() if key not in ("out", "memory_of")}
    peers = versions(("torchao", "optimum-quanto", "numba"))
    record = provenance(options | {"threads": torch.get_num_threads(), "peers": peers})
    write_json(arguments.out / f"{arguments.model}.json", record)
    print(markdown_table(rows, digits=3))


def _row(
    name: str,
    batch: int,
    first: str,
    times: dict[tuple[str, int], list[float]],
    memory: dict[str, dict[str, int]],
) -> dict[str, Any]:
    mine, dense = memory[name], memory[first]
    activations = dense[f"peak {batch}"] - dense["resident"]
    weights = max(mine[f"peak {batch}"] - activations, mine["resident"])
    ratios = [ours / theirs for ours, theirs in zip(times[name, batch], times[first, batch], strict=True)]
    return {
        "method": name,
        "batch": batch,
        "ms": 1e3 * statistics.median(times[name, batch]),
        "time / dense": statistics.median(ratios),
        "file (MB)": mine["file"] / 1e6,
        "weights (MB)": mine["weights"] / 1e6,
        "resident (MB)": mine["resident"] / 1e6,
        "peak (MB)": mine[f"peak {batch}"] / 1e6,
        "peak / dense": mine[f"peak {batch}"] / dense[f"peak {batch}"],
        "weights at the peak (MB)": weights / 1e6,
        "weights at the peak / dense": weights / dense["resident"],
    }


def _times(names: list[str], arguments: argparse.Namespace) -> dict[tuple[str, int], list[float]]:
    """Seconds of a forward pass, one number for each round."""
    models = {name: make(name, arguments.model) for name in names}
    found: dict[tuple[str, int], list[float]] = {}
    for batch in arguments.batches:
        inputs = sentence_batch(batch, arguments.length)
        repeats = max(1, 16 // batch)
        with torch.inference_mode():
            for model in models.values():
                model(**inputs)
            for _ in range(arguments.rounds):
                for name, model in models.items():
                    start = time.perf_counter()
                    for _ in range(repeats):
                        model(**inputs)
                    found.setdefault((name, batch), []).append((time.perf_counter() - start) / repeats)
        say(f"batch {batch}: {arguments.rounds} rounds")
    return found


def _memory_in_child(name: str, arguments: argparse.Namespace) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.inference", "--model", arguments.model, "--memory-of", name]
    command += ["--length", str(arguments.length), "--batches", *map(str, arguments.batches)]
    # Large tensors in pages of their own, which go back when they are freed: the peak is of what is alive.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return json.loads(printed.splitlines()[-1])


def _memory(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Bytes above the process before the model, which has loaded every library and run a small model of the kind."""
    _forward(make(name, "minilm"), 1, 8)
    release_scratch()
    before = _settled()
    model = make(name, arguments.model)
    found = {"weights": weight_bytes(model), "resident": _settled() - before}
    for batch in arguments.batches:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from now
        _forward(model, batch, arguments.length)
        found[f"peak {batch}"] = _status("VmHWM") - before
    return found | {"file": disk_bytes(model)}


def _forward(model: torch.nn.Module, batch: int, length: int) -> None:
    with torch.inference_mode():
        model(**sentence_batch(batch, length))


def _settled() -> int:
    """Resident bytes after freed memory has gone back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


if __name__ == "__main__":
    sys.exit(main())
