"""One function for all simulators: a circuit on a network with the noise its chemistry gives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

from molecular_qubits.network.noise import GateChannels, NoiseSettings
from molecular_qubits.network.result import CircuitResult
from molecular_qubits.network.schedule import Schedule
from molecular_qubits.spins.checks import known_name, positive

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork
    from molecular_qubits.network.program import Program

Method = Literal["auto", "lindblad", "channels", "trajectories", "mps", "stim"]
METHODS: tuple[str, ...] = ("auto", "lindblad", "channels", "trajectories", "mps", "stim")

MEMORY_LIMIT_GIB = 4.0
"""Default limit of what a simulation may need."""


def run_circuit(
    network: MolecularNetwork | GateChannels,
    circuit: Any,
    *,
    method: Method = "auto",
    shots: int = 1000,
    seed: int = 0,
    noise: NoiseSettings | None = None,
    max_bond: int | None = None,
    cutoff: float | None = None,
    memory_limit_gib: float = MEMORY_LIMIT_GIB,
    compiler: Mapping[str, Any] | None = None,
) -> CircuitResult:
    """Run a circuit on a network of molecules, with noise.

    Parameters
    ----------
    network
        A `MolecularNetwork`, or the `GateChannels` of one.
    circuit
        OpenQASM 2 or 3, a `qutip_qip.circuit.QubitCircuit`, or a `Schedule`.
    method
        ``"lindblad"``: the exact master equation of radicals and couplers with all levels, for two to four radicals,
        without crosstalk and spreads. ``"channels"``: exact density matrix with one channel for each operation, to
        about 12 radicals. ``"trajectories"``: the same by random kets, to about 20 radicals, with an error that `shots`
        bring down. ``"mps"``: the same as a matrix-product density matrix, deterministic, for circuits that are noisy
        or entangle little. ``"stim"``: Clifford circuits with the noise turned into Paulis, thousands of radicals; what
        dark exchange does from pulse to pulse adds up as probabilities there, not as angles.
        ``"auto"``: channels to 10 sites, trajectories to 16, then stim for Clifford circuits, else mps.
    shots
        Readings; for trajectories and stim also the number of runs.
    seed
        Of all random numbers.
    noise
        What the network does not say, and what is left out.
    max_bond, cutoff
        Of ``"mps"``: largest bond dimension, and weight that each splitting may lose.
    memory_limit_gib
        A simulation that would need more is refused.
    compiler
        Options of `molecular_qubits.network.compiler.compile_circuit`.

    Returns
    -------
    CircuitResult

    Raises
    ------
    ValueError
        If an argument is not as described, the circuit does not fit the network, or the method cannot run it: too many
        radicals (with the memory it would take and what to use instead), or a circuit that is not Clifford for stim.
    """
    known_name(method, METHODS, "method")
    if isinstance(shots, bool) or not isinstance(shots, Integral) or shots < 1:
        raise ValueError(f"Argument `shots` must be a whole number of at least 1, but was {shots!r}.")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"Argument `seed` must be a whole number, not negative, but was {seed!r}.")
    if max_bond is not None and max_bond < 1:
        raise ValueError(f"Argument `max_bond` must be at least 1, but was {max_bond}.")
    if cutoff is not None and not 0 <= cutoff < 1:
        raise ValueError(f"Argument `cutoff` must be from 0 to below 1, but was {cutoff}.")
    shots, seed = int(shots), int(seed)
    limit = positive(memory_limit_gib, "memory_limit_gib")
    schedule = compiled(network, circuit, compiler)
    start = time.monotonic()
    sites = {site for operation in schedule.operations for site in operation.sites} | {*schedule.initial_sites}
    bonds = {frozenset(o.sites) for o in schedule.operations if o.name == "coupler"}
    chosen = _automatic(len(sites)) if method == "auto" else method
    check_size(chosen, len(sites), len(bonds), shots, limit, max_bond)
    if chosen == "lindblad":
        found = _lindblad(network, schedule, shots, seed, noise)
    else:
        channels = channels_of(network, noise)
        options = {key: value for key, value in (("max_bond", max_bond), ("cutoff", cutoff)) if value is not None}
        found = _run(schedule, channels, chosen, method == "auto", shots, seed, limit, options)
    return replace(found, seconds=time.monotonic() - start)


def program_of(
    network: MolecularNetwork | GateChannels,
    circuit: Any,
    noise: NoiseSettings | None = None,
    compiler: Mapping[str, Any] | None = None,
) -> Program:
    """Return the noisy channels of a circuit on a network, in order of time.

    Parameters
    ----------
    network, circuit, noise, compiler
        As in `run_circuit`.
    """
    from molecular_qubits.network.program import build_program

    schedule = compiled(network, circuit, compiler)
    return build_program(schedule, channels_of(network, noise))


def channels_of(network: MolecularNetwork | GateChannels, noise: NoiseSettings | None = None) -> GateChannels:
    """Return the gate channels of a network; those that are given are returned as they are."""
    if isinstance(network, GateChannels):
        if noise is not None:
            raise ValueError("Argument `noise` must be None with gate channels, which have their own settings.")
        return network
    return GateChannels.from_network(network, noise)


def check_size(
    method: str, n_sites: int, n_bonds: int, shots: int, limit_gib: float, max_bond: int | None = None
) -> None:
    """Refuse a simulation that would need more memory than allowed, with the rung to use instead.

    Raises
    ------
    ValueError
        As described.
    """
    needed = memory_needed(method, n_sites, n_bonds, shots, max_bond)
    if needed <= limit_gib:
        return
    ladder = ("lindblad", "channels", "trajectories", "mps", "stim")
    fits = [
        other
        for other in ladder[ladder.index(method) + 1 :]
        if memory_needed(other, n_sites, n_bonds, shots, max_bond) <= limit_gib
    ]
    others = " or ".join(repr(other) + (" (Clifford circuits)" if other == "stim" else "") for other in fits[:2])
    advice = f"use {others}" if fits else "use fewer shots or a larger limit"
    raise ValueError(
        f"Argument `method` was {method!r}, which needs about {needed:.3g} GiB for {n_sites} radicals"
        f"{f' and {n_bonds} couplers' if method == 'lindblad' else ''}, more than `memory_limit_gib` = {limit_gib:g}; "
        f"{advice}."
    )


def memory_needed(method: str, n_sites: int, n_bonds: int, shots: int, max_bond: int | None = None) -> float:
    """Return about how much memory a simulation needs, in GiB."""
    from molecular_qubits.network import (
        simulate_channels,
        simulate_levels,
        simulate_mps,
        simulate_stim,
        simulate_trajectories,
    )

    if method == "lindblad":
        return simulate_levels.memory_gib(n_sites, n_bonds)
    if method == "channels":
        return simulate_channels.memory_gib(n_sites)
    if method == "trajectories":
        return simulate_trajectories.memory_gib(n_sites)
    if method == "mps":
        return simulate_mps.memory_gib(n_sites, simulate_mps.MAX_BOND if max_bond is None else max_bond)
    return simulate_stim.memory_gib(n_sites, shots)


def _automatic(n_sites: int) -> str:
    return "channels" if n_sites <= 10 else "trajectories" if n_sites <= 16 else "stim"


def _run(
    schedule: Schedule, channels: GateChannels, method: str, automatic: bool, shots: int, seed: int, limit: float,
    options: dict[str, Any],
) -> CircuitResult:  # fmt: skip
    from molecular_qubits.network import simulate_channels, simulate_mps, simulate_stim, simulate_trajectories
    from molecular_qubits.network.clifford import NotCliffordError
    from molecular_qubits.network.program import build_program

    program = build_program(schedule, channels, split=method != "stim")
    if method == "channels":
        return simulate_channels.simulate(program, shots, seed)
    if method == "trajectories":
        return simulate_trajectories.simulate(program, shots, seed)
    if method == "stim":
        try:
            return simulate_stim.simulate(program, shots, seed)
        except NotCliffordError:
            if not automatic:
                raise
            check_size("mps", program.n_sites, 0, shots, limit, options.get("max_bond"))
            program = build_program(schedule, channels)
    return simulate_mps.simulate(program, shots, seed, **options)


def _lindblad(
    network: MolecularNetwork | GateChannels, schedule: Schedule, shots: int, seed: int, noise: NoiseSettings | None
) -> CircuitResult:
    from molecular_qubits.network import simulate_levels

    if isinstance(network, GateChannels):
        raise ValueError("Argument `network` must be a MolecularNetwork for method 'lindblad', but was GateChannels.")
    settings = NoiseSettings() if noise is None else noise
    channels = GateChannels.from_network(network, settings.without(*simulate_levels.NOT_IN_LEVELS))
    return simulate_levels.simulate(schedule, channels, simulate_levels.switches(network), shots, seed)


def compiled(
    network: MolecularNetwork | GateChannels, circuit: Any, options: Mapping[str, Any] | None = None
) -> Schedule:
    """Return the schedule of a circuit on a network; a schedule is returned as it is."""
    if isinstance(circuit, Schedule):
        return circuit
    if isinstance(network, GateChannels):
        raise ValueError("Argument `circuit` must be a Schedule where the network is given as GateChannels.")
    from molecular_qubits.network.compiler import compile_circuit

    return compile_circuit(circuit, network, **(options or {}))
