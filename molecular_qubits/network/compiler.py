"""From a circuit to a schedule of light and microwaves on a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.network.addressing import not_alone
from molecular_qubits.network.blocks import collect_blocks
from molecular_qubits.network.circuits import Instruction, read_circuit
from molecular_qubits.network.decompose import pulse_angles, unroll
from molecular_qubits.network.routing import Costs, Couplings, Routed, embedding, route
from molecular_qubits.network.schedule import Operation, Schedule, frame_change
from molecular_qubits.network.scheduling import Barrier, Step, frame_rule, schedule_steps
from molecular_qubits.network.synthesis import synthesise
from molecular_qubits.spins.operators import ComplexArray, FloatArray, IntArray

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork


def compile_circuit(
    circuit: Any,
    network: MolecularNetwork,
    *,
    layout: Sequence[int] | None = None,
    trials: int = 32,
    seed: int = 0,
) -> Schedule:
    """Compile a circuit: native gates, routing over living couplers, and the times of all pulses.

    Parameters
    ----------
    circuit
        OpenQASM 2 or 3 (text, or the `Path` of a file), a `qutip_qip.circuit.QubitCircuit`, or a
        `molecular_qubits.network.circuits.Circuit`.
    network
        Where it runs.
    layout
        Site of each qubit at the start; found if not given.
    trials
        First layouts tried; fewer in circuits on hundreds of qubits, where each takes seconds.
    seed
        Of the layouts and of ties.

    Returns
    -------
    Schedule
        Up to a phase the product of its operations is the circuit, qubit k at ``initial_sites[k]`` before and at
        ``final_sites[k]`` after it.

    Raises
    ------
    ValueError
        If the circuit cannot be read, has more qubits than the network has connected sites, or needs pulses that the
        network cannot do.
    """
    source = read_circuit(circuit)
    if trials < 1:
        raise ValueError(f"Argument `trials` must be at least 1, but was {trials}.")
    instructions = collect_blocks(step for gate in source.instructions for step in _unrolled(gate))
    routed = route_circuit(instructions, source.n_qubits, network, layout=layout, trials=trials, seed=seed)
    read = [Instruction("measure", (routed.final[step.qubits[0]],)) for step in source.instructions if _is_read(step)]
    steps = native_steps([*collect_blocks(routed.instructions), *read], network)
    used = sorted({*routed.initial, *(site for step in steps for site in step.sites)})
    return Schedule(
        n_sites=network.n_sites,
        operations=tuple(schedule_steps(network, steps, used)),
        initial_sites=tuple(routed.initial),
        final_sites=tuple(routed.final),
        entangler=network.entangler_matrix,
    )


def _unrolled(step: Instruction) -> Iterable[Instruction]:
    """Return gates on one and two qubits and barriers; readouts wait for the end, as no gate may follow them."""
    if _is_read(step):
        return ()
    return (step,) if step.matrix is None else unroll(step)


def _is_read(step: Instruction) -> bool:
    return step.name == "measure"


def route_circuit(
    instructions: Sequence[Instruction],
    n_qubits: int,
    network: MolecularNetwork,
    *,
    layout: Sequence[int] | None = None,
    trials: int = 32,
    seed: int = 0,
) -> Routed:
    """Return instructions on sites that only use couplers which live and can be lit alone; see `compile_circuit`."""
    couplings, component = usable_couplings(network, n_qubits)
    pairs = sorted({tuple(sorted(i.qubits)) for i in instructions if i.matrix is not None and len(i.qubits) == 2})
    costs = Costs.of(instructions, network.entangler)
    if layout is not None:
        starts = [_checked_layout(layout, n_qubits, network.n_sites, couplings, pairs)]
        return route(instructions, couplings, starts, costs, seed=seed, sweeps=0)
    fitting = embedding([(a, b) for a, b in pairs], n_qubits, couplings, component)
    if fitting is not None:
        return route(instructions, couplings, [fitting], costs, seed=seed, sweeps=0)
    rng = np.random.default_rng(seed)
    starts = [_region(couplings, component, n_qubits, rng, shuffled=trial > 0) for trial in range(trials)]
    return route(instructions, couplings, starts, costs, seed=seed)


def usable_couplings(network: MolecularNetwork, n_qubits: int) -> tuple[Couplings, list[int]]:
    """Return the couplers that live and can be lit alone as a graph, and the sites of its largest connected part.

    Raises
    ------
    ValueError
        If no connected part has enough sites.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, shortest_path

    n = network.n_sites
    if n_qubits > n:
        raise ValueError(f"Argument `circuit` must have at most {n} qubits, one a site, but has {n_qubits}.")
    blocked = {meant for meant, _, _ in not_alone(network)}
    bonds = [bond.sites for k, bond in enumerate(network.bonds) if bond.alive and k not in blocked]
    ends: IntArray = np.array(bonds, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n)).tocsr()
    _, part = connected_components(graph, directed=False)
    largest = int(np.argmax(np.bincount(part)))
    component = [int(site) for site in np.flatnonzero(part == largest)]
    if n_qubits > len(component):
        dead = sum(not bond.alive for bond in network.bonds)
        raise ValueError(
            f"Argument `circuit` has {n_qubits} qubits, but the largest connected part of the network has "
            f"{len(component)} of {n} sites: {dead} couplers are dead, and {len(blocked)} cannot be lit without others."
        )
    near: list[list[int]] = [[] for _ in range(n)]
    for a, b in bonds:
        near[a].append(b)
        near[b].append(a)
    distance: FloatArray = shortest_path(graph, directed=False, unweighted=True)
    return Couplings(tuple(tuple(sorted(others)) for others in near), distance), component


def _checked_layout(
    layout: Sequence[int], n_qubits: int, n_sites: int, couplings: Couplings, pairs: Iterable[tuple[int, ...]]
) -> list[int]:
    sites = [int(site) for site in layout]
    if len(sites) != n_qubits or len(set(sites)) != n_qubits or any(not 0 <= site < n_sites for site in sites):
        raise ValueError(f"Argument `layout` must hold {n_qubits} different sites of {n_sites}, but was {sites}.")
    for a, b in pairs:
        if not np.isfinite(couplings.distance[sites[a], sites[b]]):
            raise ValueError(f"Argument `layout` puts the qubits {a} and {b} on parts that no couplers join.")
    return sites


def _region(
    couplings: Couplings, component: Sequence[int], n_qubits: int, rng: np.random.Generator, *, shuffled: bool
) -> list[int]:
    """Return a compact connected set of sites: from the middle and in order, or from anywhere and shuffled."""
    inside = couplings.distance[np.ix_(component, component)]
    first = component[int(rng.integers(len(component)) if shuffled else np.argmin(inside.sum(axis=1)))]
    order = sorted(component, key=lambda site: (couplings.distance[first, site], rng.random()))
    chosen = order[:n_qubits]
    return [int(site) for site in rng.permutation(chosen)] if shuffled else chosen


def native_steps(instructions: Sequence[Instruction], network: MolecularNetwork) -> list[Step]:
    """Return routed blocks as rotations, frame changes, coupler gates, readouts and barriers, without times.

    Frame changes go through couplers where the gate lets them, so that a rotation takes one pulse at most.
    """
    entangler = network.entangler_matrix
    rule = frame_rule(entangler)
    waiting: dict[int, ComplexArray] = {}
    steps: list[Step] = []

    def turn(site: int, *, keep_frame: bool) -> None:
        """Make what waits on a site; leave a frame change waiting if it may."""
        if site not in waiting:
            return
        theta, phi, lam = pulse_angles(waiting.pop(site))
        if theta:
            steps.append(Operation("rotation", (site,), (theta, phi)))
        if abs(np.angle(np.exp(1j * lam))) < 1e-12:
            return
        if keep_frame:
            waiting[site] = frame_change(lam)
        else:
            steps.append(Operation("rz", (site,), (lam,)))

    for instruction in instructions:
        sites, matrix = instruction.qubits, instruction.matrix
        if instruction.name == "measure":
            turn(sites[0], keep_frame=False)
            steps.append(Operation("measure", sites))
        elif instruction.name == "barrier":
            for site in sites:
                turn(site, keep_frame=True)
            steps.append(Barrier(sites))
        elif len(sites) == 1:
            waiting[sites[0]] = np.asarray(matrix) @ waiting.get(sites[0], np.eye(2))
        else:
            assert matrix is not None
            made = synthesise(matrix, network.entangler)
            for number, layer in enumerate(made.layers):
                if number:
                    for site in sites:
                        turn(site, keep_frame=rule != "mixes")
                    steps.append(Operation("coupler", (sites[0], sites[1])))
                    if rule == "exchanges":
                        _exchange(waiting, sites[0], sites[1])
                for site, gate in zip(sites, layer, strict=True):
                    waiting[site] = gate @ waiting.get(site, np.eye(2))
    for site in list(waiting):
        turn(site, keep_frame=False)
    return steps


def _exchange(waiting: dict[int, ComplexArray], a: int, b: int) -> None:
    first, second = waiting.pop(a, None), waiting.pop(b, None)
    for site, moved in ((a, second), (b, first)):
        if moved is not None:
            waiting[site] = moved
