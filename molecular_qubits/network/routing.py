"""Qubits moved by SWAPs so that gates fall on living couplers: SABRE, with swaps that cost what they add.

A SWAP behind a block on the same pair melts into it: exp(i(x XX + y YY + z ZZ)) times SWAP needs hardly more uses of
the coupler. Candidates are scored by the distances that they leave, near and ahead, and by what they add.

G. Li, Y. Ding, Y. Xie, ASPLOS 2019, arXiv:1809.02573; mirrored gates: E. McKinney et al., HPCA 2024, arXiv:2308.03874.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from molecular_qubits.network import routing_kernel
from molecular_qubits.network.circuits import Instruction
from molecular_qubits.network.synthesis import SWAP, Coordinates, coupler_count
from molecular_qubits.network.weyl import EIGHTH, canonical
from molecular_qubits.spins.operators import FloatArray, IntArray

WORK_LIMIT = 20_000_000
"""Gates looked at in all, a second or more, after which no other first layout is tried."""


@dataclass(frozen=True)
class Couplings:
    """The graph that gates may use.

    Attributes
    ----------
    near
        Neighbours of each site.
    distance
        Fewest bonds between sites, (n, n).
    """

    near: tuple[tuple[int, ...], ...]
    distance: FloatArray


@dataclass
class Routed:
    """Instructions on sites.

    Attributes
    ----------
    instructions
        With ``"swap"`` where qubits move.
    initial, final
        Site of each qubit at the start and at the end.
    cost
        Uses of the coupler, SWAPs included.
    """

    instructions: list[Instruction]
    initial: list[int]
    final: list[int]
    cost: int


def mirrored(coordinates: Coordinates) -> Coordinates:
    """Return the place in the Weyl chamber of a gate times SWAP."""
    x, y, z = coordinates
    if z >= 0:
        return (EIGHTH - z, EIGHTH - y, x - EIGHTH)
    return (EIGHTH + z, EIGHTH - y, EIGHTH - x)


@dataclass
class Costs:
    """Uses of the coupler for each instruction, alone and with a SWAP behind it."""

    entangler: str
    alone: list[int]
    with_swap: list[int]
    swap: int

    @classmethod
    def of(cls, instructions: Sequence[Instruction], entangler: str) -> Costs:
        """Look at all two-qubit gates."""
        alone, with_swap = [], []
        known: dict[bytes, tuple[int, int]] = {}
        for instruction in instructions:
            if instruction.matrix is None or len(instruction.qubits) != 2:
                alone.append(0)
                with_swap.append(0)
                continue
            key = instruction.matrix.tobytes()
            if key not in known:
                place = canonical(instruction.matrix).coordinates
                known[key] = coupler_count(place, entangler), coupler_count(mirrored(place), entangler)
            alone.append(known[key][0])
            with_swap.append(known[key][1])
        return cls(entangler, alone, with_swap, coupler_count(mirrored((0.0, 0.0, 0.0)), entangler))


@dataclass(frozen=True)
class _Walker:
    """A circuit and a graph as the arrays of `molecular_qubits.network.routing_kernel.walk`."""

    arrays: tuple[IntArray, ...]
    graph: tuple[IntArray | FloatArray, ...]
    swap: int

    @classmethod
    def of(cls, instructions: Sequence[Instruction], couplings: Couplings, costs: Costs) -> _Walker:
        """Find what each instruction waits for."""
        last: dict[int, int] = {}
        after: list[list[int]] = [[] for _ in instructions]
        before = np.zeros(len(instructions), dtype=np.int64)
        pair = np.full((len(instructions), 2), -1, dtype=np.int64)
        for number, instruction in enumerate(instructions):
            for earlier in {last[qubit] for qubit in instruction.qubits if qubit in last}:
                after[earlier].append(number)
                before[number] += 1
            last.update(dict.fromkeys(instruction.qubits, number))
            if instruction.matrix is not None and len(instruction.qubits) == 2:
                pair[number] = instruction.qubits
        alone: IntArray = np.array(costs.alone, dtype=np.int64)
        change: IntArray = np.array(costs.with_swap, dtype=np.int64) - alone
        graph = (*_packed(couplings.near), np.ascontiguousarray(couplings.distance))
        fences = [step.qubits if step.matrix is None else () for step in instructions]
        return cls((pair, *_packed(fences), *_packed(after), before, alone, change), graph, costs.swap)

    def walk(self, sites: IntArray, seed: int) -> tuple[IntArray, IntArray, int, int]:
        """Return the sites at the end, the events, the cost and the work of a walk from a layout."""
        final = sites.copy()
        walk: Callable[..., tuple[IntArray, int, int]] = routing_kernel.walk
        events, cost, work = walk(*self.arrays, self.swap, *self.graph, final, seed)
        return final, events, cost, work


def _packed(lists: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Return lists of numbers as starts (n + 1,) and one array."""
    starts: IntArray = np.concatenate([[0], np.cumsum([len(part) for part in lists])]).astype(np.int64)
    return starts, np.array([number for part in lists for number in part], dtype=np.int64)


def route(
    instructions: Sequence[Instruction],
    couplings: Couplings,
    starts: Sequence[Sequence[int]],
    costs: Costs,
    *,
    seed: int = 0,
    sweeps: int = 2,
) -> Routed:
    """Return the cheapest routing found from several first layouts.

    Parameters
    ----------
    instructions
        Gates on one and two qubits, readouts, barriers.
    couplings
        The graph; all sites that layouts and paths may use are connected.
    starts
        First layouts, a site for each qubit; no further one is begun after `WORK_LIMIT`.
    costs
        Of `instructions`.
    seed
        Of ties.
    sweeps
        Walks there and back through the circuit that improve each layout first.
    """
    order = [k for k, step in enumerate(instructions) if step.matrix is not None and len(step.qubits) == 2][::-1]
    costs_back = replace(costs, alone=[costs.alone[k] for k in order], with_swap=[costs.with_swap[k] for k in order])
    there = _Walker.of(instructions, couplings, costs)
    back = _Walker.of([instructions[k] for k in order], couplings, costs_back)
    best: tuple[int, IntArray, IntArray, IntArray] | None = None
    done = 0
    for number, start in enumerate(starts):
        if done > WORK_LIMIT:
            break
        rng = np.random.default_rng([seed, number])
        first: IntArray = np.array(start, dtype=np.int64)
        layout = first
        candidates = [first]
        for _ in range(sweeps):
            for walker in (there, back):
                layout, _, _, work = walker.walk(layout, int(rng.integers(1, 2**62)))
                done += work
            candidates.append(layout)
        for candidate in candidates:
            final, events, cost, work = there.walk(candidate, int(rng.integers(1, 2**62)))
            done += work
            if best is None or cost < best[0]:
                best = (cost, candidate, final, events)
    assert best is not None
    cost, initial, final, events = best
    routed = _replay(instructions, events, initial, len(couplings.near))
    return Routed(routed, initial.tolist(), final.tolist(), cost)


def _replay(
    instructions: Sequence[Instruction], events: IntArray, initial: IntArray, n_sites: int
) -> list[Instruction]:
    """Return the instructions on sites in the order of a walk."""
    site = initial.tolist()
    holder = [-1] * n_sites
    for qubit, place in enumerate(site):
        holder[place] = qubit
    done = []
    for number, other in events.tolist():
        if other < 0:
            step = instructions[number]
            done.append(Instruction(step.name, tuple(site[qubit] for qubit in step.qubits), step.matrix))
            continue
        done.append(Instruction("swap", (number, other), SWAP))
        holder[number], holder[other] = holder[other], holder[number]
        for place in (number, other):
            if holder[place] >= 0:
                site[holder[place]] = place
    return done


def embedding(
    pairs: Sequence[tuple[int, int]], n_qubits: int, couplings: Couplings, sites: Sequence[int], *, steps: int = 20_000
) -> list[int] | None:
    """Return a layout in which all pairs of qubits are neighbours, if a search of limited length finds one.

    The layout in which qubits and `sites` are in the same order is tried first.
    """
    wanted: list[set[int]] = [set() for _ in range(n_qubits)]
    for a, b in pairs:
        wanted[a].add(b)
        wanted[b].add(a)
    allowed = set(sites)
    near = [set(others) & allowed for others in couplings.near]
    if max((len(w) for w in wanted), default=0) > max(len(near[s]) for s in allowed):
        return None
    if all(sites[b] in near[sites[a]] for a, b in pairs):
        return [int(site) for site in sites[:n_qubits]]
    order: list[int] = []
    left = set(range(n_qubits))
    placed = [0] * n_qubits
    while left:  # next the qubit with most neighbours placed, then of highest degree
        qubit = max(left, key=lambda q: (placed[q], len(wanted[q]), -q))
        order.append(qubit)
        left.remove(qubit)
        for other in wanted[qubit]:
            placed[other] += 1
    place: dict[int, int] = {}
    taken: set[int] = set()

    def candidates(qubit: int) -> list[int]:
        done = [place[other] for other in wanted[qubit] if other in place]
        options = set.intersection(*(near[site] for site in done)) if done else allowed
        free = [site for site in options if site not in taken and len(near[site]) >= len(wanted[qubit])]
        return sorted(free, key=lambda site: (len(near[site]), site))

    stack = [iter(candidates(order[0]))]
    while stack and steps > 0:
        steps -= 1
        qubit = order[len(stack) - 1]
        if qubit in place:
            taken.discard(place.pop(qubit))
        site = next(stack[-1], None)
        if site is None:
            stack.pop()
            continue
        place[qubit] = site
        taken.add(site)
        if len(stack) == n_qubits:
            return [place[q] for q in range(n_qubits)]
        stack.append(iter(candidates(order[len(stack)])))
    return None
