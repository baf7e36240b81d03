"""One circuit on a network of a configuration: what is read, how far it is from the ideal, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from molecular_qubits.experiments.network import NetworkConfig, check_fits, make_network

LISTED = 64
"""Most readings that are written."""


def unknown_sources(names: Sequence[str]) -> None:
    """Refuse names that are no sources of error, with the nearest one.

    Raises
    ------
    ValueError
        As described.
    """
    from molecular_qubits.network.noise import SOURCES
    from molecular_qubits.spins.checks import known_name

    for name in names:
        known_name(name, SOURCES, "without")


def run(
    config: NetworkConfig,
    circuit: Path,
    out: Path,
    folder: Path = Path(),
    *,
    method: Any = "auto",
    shots: int = 1000,
    seed: int = 0,
    max_bond: int | None = None,
    memory_limit_gib: float = 4.0,
    without: Sequence[Any] = (),
    budget: bool = False,
) -> dict[str, Any]:
    """Compile a circuit, run it, and write ``circuit.json`` and, with a budget, ``budget.png`` and ``budget.pdf``.

    Parameters
    ----------
    config, folder
        The network, and where its relative paths start.
    circuit
        OpenQASM file.
    out
        Folder.
    method, shots, seed, max_bond, memory_limit_gib
        As in `molecular_qubits.run_circuit`.
    without
        Sources of error that are left out.
    budget
        Attribute the error to its sources.

    Returns
    -------
    dict
        What ``circuit.json`` holds.
    """
    from molecular_qubits.experiments.processor_figures import draw_budget
    from molecular_qubits.network.circuits import read_circuit
    from molecular_qubits.network.compiler import compile_circuit
    from molecular_qubits.network.merits import error_budget
    from molecular_qubits.network.noise import NoiseSettings
    from molecular_qubits.network.simulate import run_circuit
    from shared.artifacts import provenance, write_json
    from shared.plotting import save_figure, style

    unknown_sources(without)
    program = read_circuit(circuit)
    network = make_network(config, folder)
    check_fits(config, network.n_sites, program.n_qubits)
    noise = NoiseSettings(off=tuple(without))
    schedule = compile_circuit(program, network, layout=config.layout, trials=config.trials, seed=config.circuit_seed)
    result = run_circuit(
        network, schedule, method=method, shots=shots, seed=seed, noise=noise, max_bond=max_bond,
        memory_limit_gib=memory_limit_gib,
    )  # fmt: skip
    counts = result.counts
    found: dict[str, Any] = {
        "circuit": circuit.name, "method": result.method, "n_qubits": result.n_qubits, "n_sites": result.n_sites,
        "couplers": schedule.n_couplers, "ns": schedule.duration_ns, "circuit_ns": schedule.circuit_ns,
        "readout_ns": schedule.duration_ns - schedule.circuit_ns, "shots": shots, "seed": seed,
        "without": list(without), "fidelity": result.fidelity, "fidelity_error": result.fidelity_error,
        "hellinger_fidelity": result.hellinger_fidelity(), "z": result.z.tolist(), "z_error": result.z_error.tolist(),
        "counts": dict(list(counts.items())[:LISTED]), "different_readings": len(counts), "details": result.details,
        "seconds": result.seconds,
    }  # fmt: skip
    if budget:
        rows = error_budget(network, schedule, noise).to_rows()
        found["budget"] = rows
        with style():
            save_figure(draw_budget({"budget": {circuit.stem.replace("_", " "): rows}}), out / "budget")
    write_json(out / "circuit.json", found | {"provenance": provenance(config, result.seconds)})
    return found
