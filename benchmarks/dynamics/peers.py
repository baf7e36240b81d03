"""The same equations in dynamiqs and RadicalPy: largest difference of states and of singlet probabilities.

Neither is in the pinned environment (RadicalPy needs MDAnalysis, dynamiqs its own JAX): install them into another one
beside this package, ``python -m pip install dynamiqs radicalpy``, and run this module there. A package that is missing
is left out, and said so.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits import SpinSystem, evolve
from molecular_qubits.spins.channels.recombination import Haberkorn
from molecular_qubits.spins.channels.relaxation import PureDephasing, RadicalRelaxation, ThermalRelaxation
from molecular_qubits.spins.operators import embed, spin_matrices
from molecular_qubits.spins.problem import build_problem
from molecular_qubits.spins.tensors import zfs_tensor
from molecular_qubits.units import MILLITESLA_TO_CM1
from shared.artifacts import provenance, write_json
from shared.cli import run_command
from shared.results import markdown_table


def against_dynamiqs() -> dict[str, Any]:
    """Radical and triplet with exchange, zero-field splitting, relaxation and dephasing: all elements of the states."""
    import dynamiqs

    dynamiqs.set_precision("double")
    system = SpinSystem(
        (0.5, 1), g=(2.0, 2.01), exchange_cm1={(0, 1): 0.02}, zfs={1: zfs_tensor(0.01, 0.002)}, names=("r", "t")
    )
    channels = [
        RadicalRelaxation("r", 60.0, 10.0, 40.0),
        ThermalRelaxation(("t",), 0.02, 10.0),
        PureDephasing("t", 0.01),
    ]
    ket = np.array([1, 1j, 0.5, -0.2, 0.3, 0.1])
    state = np.outer(ket, ket.conj()) / np.vdot(ket, ket)
    times, field = np.linspace(0, 20, 11), (0.01, 0.02, 0.05)
    ours = evolve(system, state, times, channels=channels, solver="expm", field_tesla=field).states
    (piece,) = build_problem(system, state, times, channels, field).pieces
    found = dynamiqs.mesolve(
        dynamiqs.asqarray(piece.hamiltonian, dims=(2, 3)),
        [dynamiqs.asqarray(jump, dims=(2, 3)) for jump in piece.jumps],
        dynamiqs.asqarray(state, dims=(2, 3)),
        times,
        method=dynamiqs.method.Tsit5(rtol=1e-11, atol=1e-11, max_steps=10**6),
        progress_meter=False,
    )
    theirs = np.asarray(found.states.to_jax())
    return {"problem": "radical and triplet, relaxing", "largest difference": float(np.max(np.abs(ours - theirs)))}


def against_radicalpy() -> dict[str, Any]:
    """Radical pair with a proton, exchange, field and Haberkorn recombination: the singlet probability."""
    from radicalpy.data import Molecule
    from radicalpy.kinetics import Haberkorn as TheirHaberkorn
    from radicalpy.simulation import LiouvilleSimulation, State

    hyperfine_mt, exchange_mt, field_mt, singlet_rate, triplet_rate = 0.7, 0.2, 1.3, 3e6, 1e6
    system = SpinSystem(
        (0.5, 0.5, 0.5), isotopes={2: "1H"}, hyperfine={(0, 2): hyperfine_mt * MILLITESLA_TO_CM1},
        exchange_cm1={(0, 1): exchange_mt * MILLITESLA_TO_CM1}, names=("a", "b", "proton"),
    )  # fmt: skip
    half = spin_matrices(0.5)
    product = np.einsum("aij,ajk->ik", embed(half, 0, (2, 2, 2)), embed(half, 1, (2, 2, 2)))
    singlet = np.eye(8) / 4 - product
    times = np.linspace(0, 200, 201)
    channel = Haberkorn(("a", "b"), singlet_rate * 1e-9, triplet_rate * 1e-9)
    run = evolve(
        system, singlet / np.trace(singlet).real, times, channels=[channel], solver="expm", field_tesla=field_mt * 1e-3
    )
    ours = run.expectation(singlet).real
    molecules = [Molecule.fromisotopes(isotopes=["1H"], hfcs=[hyperfine_mt]), Molecule("empty")]
    simulation = LiouvilleSimulation(molecules)
    hamiltonian = simulation.total_hamiltonian(B0=field_mt, J=exchange_mt, D=0)
    kinetics = [TheirHaberkorn(singlet_rate, State.SINGLET), TheirHaberkorn(triplet_rate, State.TRIPLET)]
    simulation.apply_liouville_hamiltonian_modifiers(hamiltonian, kinetics)
    states = simulation.time_evolution(State.SINGLET, times * 1e-9, hamiltonian)
    theirs = simulation.product_probability(State.SINGLET, states)
    return {
        "problem": "radical pair with a proton, recombining",
        "largest difference": float(np.max(np.abs(ours - np.ravel(theirs)))),
    }


PEERS: dict[str, Callable[[], dict[str, Any]]] = {"dynamiqs": against_dynamiqs, "radicalpy": against_radicalpy}


def main(argv: list[str] | None = None) -> int:
    """Compare with the packages that are installed, print a table and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dynamics.peers", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("results/benchmarks/dynamics_peers.json"), help="results")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments.json))


def _run(path: Path) -> None:
    from importlib.metadata import version

    rows = []
    for name, compare in PEERS.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: left out", file=sys.stderr)
            continue
        rows.append({"package": f"{name} {version(name)}"} | compare())
    if not rows:
        raise ModuleNotFoundError(
            "Neither dynamiqs nor radicalpy is installed: python -m pip install dynamiqs radicalpy."
        )
    print(markdown_table(rows))
    write_json(path, {"rows": rows, "provenance": provenance()})


if __name__ == "__main__":
    sys.exit(main())
