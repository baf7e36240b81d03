"""What entropy coding of the codes would save: their empirical entropy beside the packed bits, on real weights.

The entropy of the codes of a layer is the least that an ideal order-0 coder (arithmetic coding) with the layer's
own frequencies can reach; its table of frequencies (12 bits a codeword) counts too. zlib and LZMA work on the packed
bytes. With ``--files`` the codes are those of compressed models, for instance of the mixes of block sizes and codewords
that a budget chose: ``--files results/study/minilm-rt/runs/PG-15x-0/compressed``.
"""

import argparse
import lzma
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from compression.quantization.blocks import code_bits, pack_codes, unpack_codes
from compression.quantization.files import file_sizes, read_tensors
from compression.quantization.layers import pq_modules
from compression.quantization.rules import preset_rules, quantize_
from compression.quantization.storage import file_bytes, round_
from compression.training.models import load_minilm_roberta
from shared.artifacts import provenance, write_json
from shared.cli import run_command
from shared.progress import say
from shared.results import markdown_table, write_table

TABLE_BITS = 12


def main(argv: list[str] | None = None) -> int:
    """Run the measurement, print its table and write it with provenance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/storage"), help="folder of results")
    parser.add_argument("--block-sizes", type=int, nargs="+", default=[4, 8], help="d (default: 4 8)")
    parser.add_argument("--centroids", type=int, nargs="+", default=[256], help="K (default: 256)")
    text = "compressed models, files or folders, in place of none"
    parser.add_argument("--files", type=Path, nargs="+", default=[], help=text)
    parser.add_argument("--folder", type=Path, help="cache folder")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    rows = []
    for d in arguments.block_sizes:
        for k in arguments.centroids:
            rows.append(measure(d, k, arguments.folder))
            say(f"d = {d}, K = {k}")
    for path in arguments.files:
        rows.append(measure_file(path))
        say(rows[-1]["weights"])
    write_table(rows, arguments.out / "entropy")
    settings = {"block_sizes": arguments.block_sizes, "centroids": arguments.centroids}
    write_json(arguments.out / "entropy.json", provenance(settings | {"files": [row["weights"] for row in rows]}))
    print(markdown_table(rows))


def measure(d: int, k: int, folder: Path | None = None) -> dict[str, Any]:
    """Return the row of the packaged MiniLM, all layers quantized with blocks of d and K codewords."""
    model = load_minilm_roberta(folder=folder)
    quantize_(model, preset_rules("roberta", block_size=d, n_centroids=k))
    round_(model)
    size = file_bytes(model)
    codes = ((module.codes.numpy(), module.n_centroids) for module in pq_modules(model).values())
    return _row(f"MiniLM, d = {d}, K = {k}", size, codes)


def measure_file(path: Path) -> dict[str, Any]:
    """Return the row of a compressed model; it is called by the two folders above its file."""
    header, tensors = read_tensors(path / "model.safetensors" if path.is_dir() else path)
    layers = header["layers"]
    codes = (
        (
            unpack_codes(tensors[f"{name}.codes"].numpy(), layer["bits"], layer["shape"][0] * layer["shape"][1]),
            len(tensors[f"{layer.get('codebook', name)}.centroids"]),
        )
        for name, layer in layers.items()
    )
    folder = (path if path.is_dir() else path.parent).resolve()
    return _row(f"{folder.parent.name}/{folder.name}", file_sizes(path), codes)


def _row(weights: str, size: int, layers: Iterable[tuple[np.ndarray, int]]) -> dict[str, Any]:
    """The row of a file of so many bytes, from the codes and the codewords of each of its layers."""
    totals = {"packed": 0, "entropy": 0.0, "zlib": 0, "lzma": 0}
    n_codes = 0
    for array, n_centroids in layers:
        codes = array.ravel().astype(np.int64)
        packed = pack_codes(codes, code_bits(n_centroids)).tobytes()
        n_codes += len(codes)
        totals["packed"] += len(packed)
        totals["entropy"] += entropy_bytes(codes, n_centroids)
        totals["zlib"] += min(len(packed), len(zlib.compress(packed, 9)))
        totals["lzma"] += min(len(packed), len(lzma.compress(packed, preset=9)))
    gains = {name: 100 * (totals["packed"] - totals[name]) / size for name in ("entropy", "zlib", "lzma")}
    return {
        "weights": weights,
        "file (bytes)": size,
        "codes (bytes)": totals["packed"],
        "bits a code": 8 * totals["packed"] / n_codes,
        "entropy, bits a code": 8 * totals["entropy"] / n_codes,
        "ideal coder saves (% of file)": gains["entropy"],
        "zlib saves (%)": gains["zlib"],
        "LZMA saves (%)": gains["lzma"],
    }


def entropy_bytes(codes: np.ndarray, n_centroids: int) -> float:
    """Return the bytes of codes at their empirical entropy, with the table of frequencies; no more than packed.

    Parameters
    ----------
    codes
        (n,) integers below `n_centroids`.
    n_centroids
        K.
    """
    counts = np.bincount(codes, minlength=n_centroids)
    share = counts[counts > 0] / len(codes)
    coded = (-(share * np.log2(share)).sum() * len(codes) + TABLE_BITS * n_centroids) / 8
    return float(min(coded, -(-len(codes) * code_bits(n_centroids) // 8)))


if __name__ == "__main__":
    sys.exit(main())
