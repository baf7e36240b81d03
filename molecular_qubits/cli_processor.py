"""Commands that run circuits on a network with noise, and its figures of merit."""

from __future__ import annotations

import argparse
from pathlib import Path

from shared.cli import add_set, add_settings, shown

METHODS = ("auto", "lindblad", "channels", "trajectories", "mps", "stim")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands ``run-circuit`` and ``processor``."""
    run = commands.add_parser(
        "run-circuit",
        help="a circuit on a network with the noise of its chemistry: readings, fidelity, error budget",
        description="OpenQASM 2 or 3, compiled for the network and simulated by the master equation of all levels (two "
        "to four radicals), gate channels (to 12), trajectories (to 20), matrix-product states or, for Clifford "
        "circuits, twirled in stim (thousands). What needs too much memory is refused with the method to use.",
    )
    run.add_argument("circuit", type=Path, help="OpenQASM file")
    run.add_argument(
        "--network", type=Path, default=None, metavar="CONFIG", help="YAML file (default: the shipped one)"
    )
    add_set(run, "of the network, e.g. rows=4")
    run.add_argument("--method", choices=METHODS, default="auto", help="(default: %(default)s)")
    run.add_argument("--shots", type=int, default=1000, help="(default: %(default)s)")
    run.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    run.add_argument("--max-bond", type=int, default=None, help="of matrix-product states (default: 512)")
    run.add_argument("--memory-limit", type=float, default=4.0, metavar="GIB", help="(default: %(default)s)")
    run.add_argument(
        "--without", nargs="*", default=[], metavar="SOURCE", help="sources of error left out; a wrong name lists them"
    )
    run.add_argument("--budget", action="store_true", help="attribute the error to its sources (to 10 radicals)")
    run.add_argument("--out", type=Path, default=Path("results/run_circuit"), help="folder (default: %(default)s)")
    run.set_defaults(action=run_circuit)

    merits = commands.add_parser(
        "processor",
        help="figures of merit of a network: GHZ, QAOA, Trotter, error budget, operating region, error correction",
        description="The committed result is shown if the configuration is that of it; otherwise (or with --again) all "
        "is computed, which takes a quarter of an hour for the defaults and continues after an interruption.",
    )
    add_settings(merits, "results/processor", example="e.g. network.spacing_nm=3", cache="finished parts")
    merits.add_argument("--again", action="store_true", help="compute even if the result is committed")
    merits.set_defaults(action=run_processor)


def run_circuit(arguments: argparse.Namespace) -> None:
    """Compile and run a circuit; print readings, fidelity and, if asked for, the error budget."""
    from molecular_qubits.experiments.circuit import run, unknown_sources
    from molecular_qubits.experiments.network import CONFIGS, NetworkConfig
    from shared.config import load_config
    from shared.results import titled_table

    unknown_sources(arguments.without)
    path = arguments.network or CONFIGS / "network.yaml"
    config = shown(arguments, load_config(NetworkConfig, path, arguments.set))
    found = run(
        config, arguments.circuit.resolve(), arguments.out, path.parent, method=arguments.method, shots=arguments.shots,
        seed=arguments.seed, max_bond=arguments.max_bond, memory_limit_gib=arguments.memory_limit,
        without=arguments.without, budget=arguments.budget,
    )  # fmt: skip
    fidelity = "not known" if found["fidelity"] is None else f"{found['fidelity']:.4g}"
    error = f" ± {found['fidelity_error']:.2g}" if found["fidelity_error"] else ""
    readout = f" and {found['readout_ns']:.4g} ns of readout" if found["readout_ns"] else ""
    print(
        f"{found['method']}: {found['n_sites']} radicals, {found['couplers']} coupler gates, "
        f"{found['circuit_ns']:.4g} ns{readout}"
    )
    print(f"fidelity before readout {fidelity}{error}, {found['seconds']:.3g} s")
    for reading, count in list(found["counts"].items())[:8]:
        print(f"  {reading}  {count}")
    if "budget" in found:
        print(titled_table("Error budget", found["budget"]))
    print(arguments.out / "circuit.json")


def run_processor(arguments: argparse.Namespace) -> None:
    """Compute or read the figures of merit and print their tables."""
    from molecular_qubits.experiments import processor
    from shared.artifacts import Cache
    from shared.config import load_config
    from shared.results import titled_table

    study = shown(arguments, load_config(processor.ProcessorStudy, arguments.config, arguments.set))
    committed = None if arguments.again else processor.COMMITTED
    found = processor.write(study, arguments.out, Cache(arguments.cache, name="processor"), committed)
    for title, rows in processor.tables(found).items():
        print(titled_table(title, rows))
    print(arguments.out / "processor.json")
