"""The same fields and spectra by EasySpin's algorithms: largest differences beside EPReasy, their port to Python.

EPReasy (package ``easyspyn``) is not in the pinned environment: install it into another one, beside ``numpy scipy
xarray rich pydantic lazy_loader filelock pyyaml``, and run this module there: ``python -m benchmarks.epr.peers``.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits import epr_spectrum, zero_field_state
from molecular_qubits.experiments.epr import measured_multiplets, multiplet_system, unit_system
from molecular_qubits.spins.epr.resonances import find_resonances
from shared.artifacts import provenance, write_json
from shared.cli import run_command
from shared.results import markdown_table

FREQUENCY_GHZ = 9.5
RANGE_TESLA = (0.25, 0.43)
CM1_TO_MHZ = 29979.2458


def spin_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return a measured multiplet in EasySpin's fields."""
    return {"S": row["S"], "g": row["g"], "D": [row["D"] * CM1_TO_MHZ, row["E"] * CM1_TO_MHZ]}


def unit_of(row: dict[str, Any], j_rt_cm1: float) -> dict[str, Any]:
    """Return radicals and triplet in EasySpin's fields: exchange +J S.S (here -2 J); order of `unit_system`."""
    radicals = 1 if row["S"] == 1.5 else 2
    d_rt = 0.0075 if row["S"] == 2 else 3 * row["D"] - 0.063
    coupling = np.diag([-1 / 3, -1 / 3, 2 / 3]) * d_rt * CM1_TO_MHZ
    pairs = [coupling - 2 * j_rt_cm1 * CM1_TO_MHZ * np.eye(3)] * radicals
    if radicals == 2:
        pairs.append(np.zeros((3, 3)))
    return {
        "S": [1.0] + [0.5] * radicals,
        "g": [row["g"]] * (1 + radicals),
        "D": [0.063 * CM1_TO_MHZ] + [0.0] * radicals,
        "ee": np.concatenate(pairs),
    }


def field_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return the largest difference of the fields of allowed lines over random directions: table rows."""
    from epreasy.resfields import resfields_oriented

    rng = np.random.default_rng(seed)
    phi, theta = rng.uniform(0, 2 * np.pi, count), np.arccos(rng.uniform(-1, 1, count))
    directions = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    experiment = {"mwFreq": FREQUENCY_GHZ, "Range": [1e3 * field for field in RANGE_TESLA]}
    rows = []
    for row in measured_multiplets():
        for name, system, peer in (
            ("S alone", multiplet_system(row), spin_of(row)),
            ("radicals and triplet", unit_system(row, 300.0), unit_of(row, 300.0)),
        ):
            lines = find_resonances(
                system, FREQUENCY_GHZ, RANGE_TESLA, directions, lambda energies, _: np.zeros_like(energies)
            )
            worst, compared = 0.0, 0
            for number in range(count):
                angles = np.array([[phi[number], theta[number], 0.0]])
                theirs = np.ravel(resfields_oriented(peer, experiment, None, angles, True).pos) / 1e3
                theirs = theirs[np.isfinite(theirs)]
                strong = (lines.direction == number) & (lines.moment > 0.05)
                for field in lines.field_tesla[strong]:
                    worst = max(worst, float(np.min(np.abs(theirs - field), initial=1.0)))
                    compared += 1
            rows.append(
                {"molecule": row["molecule"], "system": name, "lines": compared, "largest difference (T)": worst}
            )
    return rows


def spectrum_rows() -> list[dict[str, Any]]:
    """Return the largest difference of polarised powder spectra, each scaled to its largest value: table rows."""
    from epreasy import pepper

    rows = []
    fields = np.linspace(*RANGE_TESLA, 18001)  # fine: EPReasy's bins begin at the points of its axis
    for row in measured_multiplets():
        system = multiplet_system(row)
        begin = time.perf_counter()
        ours = epr_spectrum(
            system, fields, FREQUENCY_GHZ, states=zero_field_state(system, row["levels"]), linewidth_pp_mt=0.7
        ).values
        middle = time.perf_counter()
        limits = [1e3 * field for field in RANGE_TESLA]
        experiment = {"mwFreq": FREQUENCY_GHZ, "Range": limits, "nPoints": len(fields), "Harmonic": 0}
        state = zero_field_state(system, row["levels"])
        peer = spin_of(row) | {"lwpp": 0.7, "initState": (state, "uncoupled")}
        theirs = np.ravel(pepper(peer, experiment, {"GridSize": [91, 4]}).spec)
        last = time.perf_counter()
        ours, theirs = ours / np.abs(ours).max(), theirs / np.abs(theirs).max()
        rows.append(
            {
                "molecule": row["molecule"],
                "largest difference (of the maximum)": float(np.abs(ours - theirs).max()),
                "correlation": float(np.corrcoef(ours, theirs)[0, 1]),
                "ours (s)": middle - begin,
                "EPReasy (s)": last - middle,
            }
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    """Compare with EPReasy, print the differences and write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epr.peers", description=__doc__)
    parser.add_argument("--directions", type=int, default=20, help="random directions of the field (default 20)")
    parser.add_argument("--json", type=Path, default=Path("results/benchmarks/epr_peers.json"), help="results")
    arguments = parser.parse_args(argv)
    if arguments.directions < 1:
        parser.error(f"--directions must be at least 1, but was {arguments.directions}")
    if importlib.util.find_spec("epreasy") is None:
        parser.error("the package easyspyn is not installed here (python -m pip install easyspyn)")
    return run_command(lambda: _run(arguments), arguments)


def _run(arguments: argparse.Namespace) -> None:
    start = time.perf_counter()
    fields, spectra = field_rows(arguments.directions), spectrum_rows()
    print(f"{markdown_table(fields)}\n\n{markdown_table(spectra)}")
    record = {"fields": fields, "spectra": spectra, "provenance": provenance(None, time.perf_counter() - start)}
    write_json(arguments.json, record)


if __name__ == "__main__":
    sys.exit(main())
