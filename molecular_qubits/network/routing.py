"""Qubits moved by SWAPs so that gates fall on living couplers: SABRE, with swaps that cost what they add.

A SWAP behind a block on the same pair melts into it: exp(i(x XX + y YY + z ZZ)) times SWAP needs hardly more uses of
the coupler. Candidates are scored by the distances that they leave, near and ahead, and by what they add.

G. Li, Y. Ding, Y. Xie, ASPLOS 2019, arXiv:1809.02573; mirrored gates: E. McKinney et al., HPCA 2024, arXiv:2308.03874.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from molecular_qubits.network.circuits import Instruction
from molecular_qubits.network.synthesis import SWAP, Coordinates, coupler_count
from molecular_qubits.network.weyl import EIGHTH, canonical
from molecular_qubits.spins.operators import FloatArray

_AHEAD = 20
"""Gates looked at behind the front."""

_AHEAD_WEIGHT = 0.5
_DECAY = 0.001
_DECAY_RESET = 5


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

    @cached_property
    def steps(self) -> list[list[float]]:
        """The distances as lists, which are faster to look up one by one."""
        return self.distance.tolist()


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


@dataclass
class _State:
    """A walk through the circuit under one layout."""

    instructions: Sequence[Instruction]
    couplings: Couplings
    costs: Costs
    site: list[int]
    rng: np.random.Generator
    record: bool
    done: list[Instruction] = field(default_factory=list)
    cost: int = 0

    def __post_init__(self) -> None:
        n_sites = len(self.couplings.near)
        self.holder = [-1] * n_sites
        for qubit, site in enumerate(self.site):
            self.holder[site] = qubit
        queues: dict[int, list[int]] = {}
        self.missing = [0] * len(self.instructions)
        self.after: list[list[int]] = [[] for _ in self.instructions]
        for number, instruction in enumerate(self.instructions):
            for qubit in instruction.qubits:
                queue = queues.setdefault(qubit, [])
                if queue:
                    self.after[queue[-1]].append(number)
                    self.missing[number] += 1
                queue.append(number)
        self.front: list[int] = []
        self.open: dict[int, tuple[int, int, bool]] = {}  # site -> (block, its other site, swapped already)
        self.decay = [1.0] * n_sites

    def run(self) -> None:
        ready = deque(number for number, missing in enumerate(self.missing) if not missing)
        idle = 0
        limit = 10 * len(self.couplings.near) + 20
        while True:
            idle = 0 if self._execute(ready) else idle
            if not self.front:
                return
            pair = self._best_swap() if idle < limit else self._forced_swap()
            self._swap(*pair)
            idle += 1
            for site in pair:
                self.decay[site] += _DECAY
            if idle % _DECAY_RESET == 0:
                self.decay = [1.0] * len(self.decay)
            ready.extend(self.front)
            self.front = []

    def _execute(self, ready: deque[int]) -> bool:
        """Do what can be done; what waits for a SWAP becomes the front."""
        progress = False
        while ready:
            number = ready.popleft()
            instruction = self.instructions[number]
            sites = tuple(self.site[qubit] for qubit in instruction.qubits)
            two = instruction.matrix is not None and len(sites) == 2
            if two and sites[1] not in self.couplings.near[sites[0]]:
                self.front.append(number)
                continue
            progress = progress or two
            if two:
                self.cost += self.costs.alone[number]
                self.open[sites[0]] = (number, sites[1], False)
                self.open[sites[1]] = (number, sites[0], False)
            elif instruction.matrix is None:
                for site in sites:
                    self.open.pop(site, None)
            if self.record:
                self.done.append(Instruction(instruction.name, sites, instruction.matrix))
            for later in self.after[number]:
                self.missing[later] -= 1
                if not self.missing[later]:
                    ready.append(later)
        if progress:
            self.decay = [1.0] * len(self.decay)
        return progress

    def _added(self, a: int, b: int) -> int:
        """Return how many uses of the coupler a SWAP of two sites adds."""
        block = self.open.get(a)
        if block is None or block[1] != b or self.open.get(b) != (block[0], a, block[2]):
            return self.costs.swap
        number, _, swapped = block
        change = self.costs.with_swap[number] - self.costs.alone[number]
        return -change if swapped else change

    def _swap(self, a: int, b: int) -> None:
        added = self._added(a, b)
        self.cost += added
        block = self.open.get(a)
        if block is not None and block[1] == b and self.open.get(b, (None,))[0] == block[0]:
            self.open[a], self.open[b] = (block[0], b, not block[2]), (block[0], a, not block[2])
        else:
            self.open.pop(a, None)
            self.open.pop(b, None)
        first, second = self.holder[a], self.holder[b]
        self.holder[a], self.holder[b] = second, first
        if first >= 0:
            self.site[first] = b
        if second >= 0:
            self.site[second] = a
        if self.record:
            self.done.append(Instruction("swap", (a, b), SWAP))

    def _ahead(self) -> list[int]:
        """Return two-qubit gates behind the front, nearest first."""
        found: list[int] = []
        seen = set(self.front)
        queue = deque(self.front)
        while queue and len(found) < _AHEAD:
            for later in self.after[queue.popleft()]:
                if later in seen:
                    continue
                seen.add(later)
                queue.append(later)
                if self.instructions[later].matrix is not None and len(self.instructions[later].qubits) == 2:
                    found.append(later)
        return found[:_AHEAD]

    def _pairs(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        chosen = (self.instructions[number].qubits for number in numbers)
        return [(self.site[a], self.site[b]) for a, b in chosen]

    def _best_swap(self) -> tuple[int, int]:
        distance = self.couplings.steps
        near_pairs, far_pairs = self._pairs(self.front), self._pairs(self._ahead())
        weights = [(near_pairs, 1 / len(near_pairs))]
        if far_pairs:
            weights.append((far_pairs, _AHEAD_WEIGHT / len(far_pairs)))
        touching: dict[int, list[tuple[int, float]]] = {}
        for pairs, weight in weights:
            for a, b in pairs:
                touching.setdefault(a, []).append((b, weight))
                touching.setdefault(b, []).append((a, weight))
        base = sum(weight * distance[a][b] for pairs, weight in weights for a, b in pairs)
        best: list[tuple[int, int]] = []
        lowest = np.inf
        candidates = {
            (min(site, other), max(site, other))
            for pair in near_pairs
            for site in pair
            for other in self.couplings.near[site]
        }
        for a, b in sorted(candidates):
            change = 0.0
            for here, there in ((a, b), (b, a)):
                for other, weight in touching.get(here, ()):
                    if other != there:
                        change += weight * (distance[there][other] - distance[here][other])
            score = max(self.decay[a], self.decay[b]) * (base + change)
            score += 0.5 * self._added(a, b) / self.costs.swap / len(near_pairs)
            if score < lowest - 1e-12:
                best, lowest = [(a, b)], score
            elif score < lowest + 1e-12:
                best.append((a, b))
        return best[int(self.rng.integers(len(best)))]

    def _forced_swap(self) -> tuple[int, int]:
        """Return a SWAP that brings the nearest pair of the front together: leaves any cycle."""
        a, b = min(self._pairs(self.front), key=lambda pair: self.couplings.distance[pair])
        step = min(self.couplings.near[a], key=lambda site: self.couplings.distance[site, b])
        return a, step


def route(
    instructions: Sequence[Instruction],
    n_qubits: int,
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
    n_qubits
        Number of qubits.
    couplings
        The graph; all sites that layouts and paths may use are connected.
    starts
        First layouts, a site for each qubit.
    costs
        Of `instructions`.
    seed
        Of ties.
    sweeps
        Walks there and back through the circuit that improve each layout first.
    """
    backward = [step for step in reversed(instructions) if step.matrix is not None and len(step.qubits) == 2]
    order = [k for k, step in enumerate(instructions) if step.matrix is not None and len(step.qubits) == 2][::-1]
    costs_back = replace(costs, alone=[costs.alone[k] for k in order], with_swap=[costs.with_swap[k] for k in order])
    best: Routed | None = None
    for number, start in enumerate(starts):
        rng = np.random.default_rng([seed, number])
        layout = list(start)
        candidates = [list(start)]
        for _ in range(sweeps):
            for steps, price in ((instructions, costs), (backward, costs_back)):
                walk = _State(steps, couplings, price, list(layout), rng, record=False)
                walk.run()
                layout = walk.site
            candidates.append(list(layout))
        for candidate in (candidates[0], candidates[-1]):
            walk = _State(instructions, couplings, costs, list(candidate), rng, record=True)
            walk.run()
            if best is None or walk.cost < best.cost:
                best = Routed(walk.done, candidate, walk.site, walk.cost)
    assert best is not None
    return best


def embedding(
    pairs: Sequence[tuple[int, int]], n_qubits: int, couplings: Couplings, sites: Sequence[int], *, steps: int = 20_000
) -> list[int] | None:
    """Return a layout in which all pairs of qubits are neighbours, if a search of limited length finds one."""
    wanted: list[set[int]] = [set() for _ in range(n_qubits)]
    for a, b in pairs:
        wanted[a].add(b)
        wanted[b].add(a)
    allowed = set(sites)
    near = [set(others) & allowed for others in couplings.near]
    if max((len(w) for w in wanted), default=0) > max(len(near[s]) for s in allowed):
        return None
    order: list[int] = []
    left = set(range(n_qubits))
    while left:  # next the qubit with most neighbours placed, then of highest degree
        qubit = max(left, key=lambda q: (len(wanted[q] & set(order)), len(wanted[q]), -q))
        order.append(qubit)
        left.remove(qubit)
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
