"""When everything happens: as soon as possible, under what microwaves and light can do at once; first pulses late.

- Operations that share a site do not overlap.
- Radicals whose frequencies cannot be told apart turn together: the same pulse at the same moment, or none.
- Couplers lit at once put no dark coupler beside a used site into its triplet with more than the crosstalk limit.
- There are only so many tones and so many beams. Tips do not overlap, and take time to go on to another coupler.
- The frames of two radicals of different frequency turn against each other. A coupler gate that does not commute with
  that starts when the frames agree with the changes of frame made so far; where waiting for it takes too long, two
  pulses by pi turn one of the frames.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from molecular_qubits.network.addressing import crosstalk
from molecular_qubits.network.late_starts import start_late
from molecular_qubits.network.pulses import rotation_times
from molecular_qubits.network.schedule import Operation, frame_change
from molecular_qubits.spins.operators import ComplexArray

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork

_FAINT = 1e-7
"""Crosstalk below this is not added up."""

_PATIENCE = 4.0
"""A coupler waits at most this many rotations for its frames."""


@dataclass(frozen=True)
class Barrier:
    """Sites that wait for each other."""

    sites: tuple[int, ...]


Step = Operation | Barrier


class Unschedulable(ValueError):
    """Operations that the network cannot do at all."""


def frame_rule(entangler: ComplexArray) -> str:
    """Return what a coupler gate does with opposite frame changes: ``"commutes"``, ``"exchanges"`` or ``"mixes"``."""
    turn = np.kron(frame_change(0.7), frame_change(-0.7))
    back = entangler @ turn @ entangler.conj().T
    if np.allclose(back, turn, rtol=0, atol=1e-12):
        return "commutes"
    return "exchanges" if np.allclose(back, turn.conj(), rtol=0, atol=1e-12) else "mixes"


def schedule_steps(network: MolecularNetwork, steps: Sequence[Step], used: Sequence[int]) -> list[Operation]:
    """Return operations with their start and length, ordered by start.

    Parameters
    ----------
    network
        The network.
    steps
        Operations in an order in which they may be done one after another, and barriers. Starts and lengths are set
        here.
    used
        Sites that hold qubits.

    Raises
    ------
    Unschedulable
        If radicals that cannot be told apart are to turn differently, or a coupler cannot be lit alone.
    """
    return _Scheduler(network, steps, used).run()


class _Scheduler:
    def __init__(self, network: MolecularNetwork, steps: Sequence[Step], used: Sequence[int]) -> None:
        self.network = network
        self.steps = list(steps)
        self.bonds = {frozenset(bond.sites): k for k, bond in enumerate(network.bonds)}
        self.coupler_ns: dict[int, float] = {}
        self.turn_ns, classes = rotation_times(network, used)
        self.classmates = {site: list(members) for members in classes for site in members}
        self.rule = frame_rule(network.entangler_matrix)
        self.ghz = network.frequencies_ghz
        self.queues: dict[int, deque[int]] = defaultdict(deque)
        for number, step in enumerate(self.steps):
            for site in step.sites:
                self.queues[site].append(number)
        self.free = dict.fromkeys(self.queues, 0.0)
        self.frame: dict[int, float] = defaultdict(float)
        self.lit: list[tuple[float, float, int]] = []
        self.tones: list[tuple[float, float, frozenset[int]]] = []
        self.barriers: dict[int, list[float]] = defaultdict(list)
        self.done: list[Operation] = []
        self._light(used)

    def _light(self, used: Sequence[int]) -> None:
        """Look at the crosstalk of the couplers that are needed, on those beside used sites."""
        bonds, limit = self.network.bonds, self.network.optics.crosstalk_limit
        needed = sorted({self._bond(step) for step in self.steps if isinstance(step, Operation) and _is_lit(step)})
        beside = np.array([bond.alive and bool({*bond.sites} & {*used}) for bond in bonds], dtype=bool)
        near = needed and self.network.optics.least_distance_nm
        self.crowded: dict[int, set[int]] = {}
        if near:
            middles = self.network.bond_positions_nm[needed]
            around = cKDTree(middles).query_ball_point(middles, near * (1 - 1e-9))
            self.crowded = {bond: {needed[k] for k in row} - {bond} for bond, row in zip(needed, around, strict=True)}
        self.stray: dict[int, dict[int, float]] = {}
        self.reaching: dict[int, dict[int, float]] = defaultdict(dict)  # dark coupler -> lit one -> probability
        for row, bond in zip(crosstalk(self.network, needed), needed, strict=True):
            found = np.flatnonzero((row > _FAINT) & beside)
            self.stray[bond] = {int(k): float(row[k]) for k in found if k != bond}
            for other, probability in self.stray[bond].items():
                self.reaching[other][bond] = probability
                if probability > limit:
                    raise Unschedulable(
                        f"Coupler {bond} {bonds[bond].sites} cannot be lit without coupler {other} "
                        f"{bonds[other].sites}, which ends in its triplet with the probability {probability:.3g} "
                        f"(limit {limit:g}): more wavelengths, narrower lines or a smaller spot are needed."
                    )

    def _bond(self, step: Operation) -> int:
        bond = self.bonds.get(frozenset(step.sites))
        if bond is None or not self.network.bonds[bond].alive:
            raise Unschedulable(f"The sites {step.sites} must be joined by a living coupler, but are not.")
        return bond

    def run(self) -> list[Operation]:
        heap: list[tuple[float, int]] = []
        waiting = set(self.queues)
        queued: set[int] = set()
        while True:
            for site in waiting:
                self._offer(site, heap, queued)
            waiting = set()
            if not heap:
                break
            _, number = heapq.heappop(heap)
            waiting = self._do(number)
        if any(self.queues.values()):
            self._refuse()
        done = sorted(self.done, key=lambda operation: (operation.start_ns, operation.end_ns))
        return start_late(done, self.classmates, self.barriers, self.network.microwaves.tones)

    def _offer(self, site: int, heap: list[tuple[float, int]], queued: set[int]) -> None:
        """Put the next step of a site on the heap if it is next on all its sites."""
        if not self.queues[site]:
            return
        number = self.queues[site][0]
        group = self._group(number)
        if group is None or number in queued:
            return
        queued.update(group)
        heapq.heappush(heap, (max(self.free[s] for k in group for s in self.steps[k].sites), number))

    def _group(self, number: int) -> list[int] | None:
        """Return the steps that happen with a step, itself included, or ``None`` if one of them is not next."""
        step = self.steps[number]
        if any(self.queues[site][0] != number for site in step.sites):
            return None
        if not isinstance(step, Operation) or step.name != "rotation":
            return [number]
        group = []
        for other in self.classmates[step.sites[0]]:
            if not self.queues.get(other):
                return None
            head = self.queues[other][0]
            mate = self.steps[head]
            if not isinstance(mate, Operation) or mate.name != "rotation" or not _alike(mate, step):
                return None
            group.append(head)
        return group

    def _refuse(self) -> None:
        """Raise the error that says which radicals block each other."""
        for site, queue in self.queues.items():
            step = self.steps[queue[0]] if queue else None
            if isinstance(step, Operation) and step.name == "rotation" and len(self.classmates[site]) > 1:
                mates = self.classmates[site]
                spread = 1e3 * float(np.ptp(self.network.frequencies_ghz[mates]))
                raise Unschedulable(
                    f"The radicals {mates} lie within {spread:.3g} MHz and turn together, but the circuit turns "
                    f"{site} alone: a steeper gradient, other radicals, or microwaves with addressing='local' are "
                    f"needed."
                )
        raise Unschedulable("The steps wait for each other in a circle.")

    def _do(self, number: int) -> set[int]:
        """Set the time of a step and of those that go with it; return the sites whose next step may be free now."""
        group = self._group(number)
        assert group is not None
        steps = [self.steps[k] for k in group]
        sites = [site for step in steps for site in step.sites]
        ready = max(self.free[site] for site in sites)
        step = steps[0]
        if isinstance(step, Barrier):
            self.free.update(dict.fromkeys(sites, ready))
            for site in sites:
                self.barriers[site].append(ready)
        elif step.name == "rz":
            self.frame[sites[0]] += step.angles[0]
            self.done.append(replace(step, start_ns=ready, duration_ns=0.0))
        elif step.name == "rotation":
            self._rotate([s for s in steps if isinstance(s, Operation)], ready)
        elif step.name == "coupler":
            self._couple(step, ready)
        else:
            self._place(step, ready, self.network.readout.duration_ns)
        touched = set(sites)
        for k, one in zip(group, steps, strict=True):
            for site in one.sites:
                assert self.queues[site].popleft() == k
        for site in sites:
            touched.update(self.classmates.get(site, ()))
        return touched | {s for site in touched if self.queues[site] for s in self.steps[self.queues[site][0]].sites}

    def _place(self, step: Operation, start: float, duration: float) -> None:
        self.done.append(replace(step, start_ns=start, duration_ns=duration))
        for site in step.sites:
            self.free[site] = start + duration

    def _rotate(self, steps: Sequence[Operation], ready: float) -> None:
        """Turn radicals by one pulse, when a tone is free."""
        members = frozenset(step.sites[0] for step in steps)
        duration = float(max(self.turn_ns[list(members)]))
        start, most = ready, self.network.microwaves.tones
        if most is not None:
            ends = sorted(end for _, end, _ in self.tones)
            for moment in [ready, *(end for end in ends if end > ready)]:
                busy = [t for t in self.tones if t[0] < moment + duration and t[1] > moment]
                if _deepest(busy) < most:
                    start = moment
                    break
            self.tones.append((start, start + duration, members))
        for step in steps:
            self._place(step, start, duration)

    def _couple(self, step: Operation, ready: float) -> None:
        """Light a coupler when frames agree, a beam is free, and no dark coupler gets too much light."""
        bond = self._bond(step)
        if bond not in self.coupler_ns:
            self.coupler_ns[bond] = self.network.coupler_ns(bond)
        duration = self.coupler_ns[bond]
        rest = self.network.optics.retarget_ns
        self.lit = [pulse for pulse in self.lit if pulse[1] + rest > ready]  # steps come in the order of their `ready`
        start = ready
        if self.rule == "mixes":
            start = self._turn_frame(step.sites, start)
        moments = iter(sorted({t for _, end, _ in self.lit for t in (end, end + rest) if t > start}))
        while not self._free(bond, start, start + duration) or not self._dark_enough(bond, start, start + duration):
            start = max(start, next(moments))
            if self.rule == "mixes":
                start = self._agree(step.sites, start)
        self.lit.append((start, start + duration, bond))
        self._place(step, start, duration)

    def _free(self, bond: int, start: float, end: float) -> bool:
        """Return whether a beam is free and no tip in the way; a beam is busy until it can be at another coupler."""
        beams, rest = self.network.optics.beams, self.network.optics.retarget_ns
        crowded = self.crowded.get(bond, ())
        if beams is None and not crowded:
            return True
        others = [(a, b + rest, k) for a, b, k in self.lit if k != bond and a < end + rest and b + rest > start]
        return (beams is None or _deepest(others) < beams) and not any(k in crowded for _, _, k in others)

    def _dark_enough(self, bond: int, start: float, end: float) -> bool:
        """Return whether dark couplers get little light whenever a pulse begins in this time."""
        others = [(a, b, k) for a, b, k in self.lit if a < end and b > start]
        limit = self.network.optics.crosstalk_limit
        for moment in {start, *(a for a, _, _ in others if a > start)}:
            now = {k for a, b, k in others if a <= moment < b}
            for dark, probability in self.stray[bond].items():
                if dark not in now:
                    rows = self.reaching[dark]
                    near = now & rows.keys() if len(rows) < len(now) else [k for k in now if k in rows]
                    if probability + sum(rows[k] for k in near) > limit:
                        return False
        return True

    def _apart_mhz(self, sites: Sequence[int]) -> float:
        return 1e3 * float(self.ghz[sites[0]] - self.ghz[sites[1]])

    def _agree(self, sites: Sequence[int], start: float) -> float:
        """Return the first moment at which (f_i - f_j) t = -(a_i - a_j) / 2 pi up to whole turns; a: frame changes."""
        apart = 1e-3 * self._apart_mhz(sites)
        wanted = -(self.frame[sites[0]] - self.frame[sites[1]]) / (2 * np.pi)
        if apart == 0:
            return start
        return start + float(((wanted - apart * start) / apart) % (1 / abs(apart)))

    def _turn_frame(self, sites: tuple[int, ...], start: float) -> float:
        """Return when the coupler may start; turns a frame by two pulses if the wait would be too long."""
        apart = abs(self._apart_mhz(sites))
        turned = (self.frame[sites[0]] - self.frame[sites[1]]) % (2 * np.pi)
        if apart == 0 and min(turned, 2 * np.pi - turned) < 1e-9:
            return start
        alone = min(sites, key=lambda site: (len(self.classmates[site]), self.turn_ns[site]))
        if apart > 0 and 1e3 / apart <= _PATIENCE * self.turn_ns[alone]:
            return self._agree(sites, start)
        if len(self.classmates[alone]) > 1:
            raise Unschedulable(
                f"The radicals {sites} lie within {apart:.3g} MHz: their frames cannot be turned against each other, "
                f"as the gate {self.network.entangler} needs."
            )
        for _ in range(2):
            self._rotate([Operation("rotation", (alone,), (np.pi, 0.0))], self.free[alone])
        begin = max(start, self.free[alone])
        other = sites[0] if alone == sites[1] else sites[1]
        sign = 1 if alone == sites[0] else -1
        phase = -2 * np.pi * 1e-3 * sign * self._apart_mhz(sites) * begin
        needed = self.frame[alone] - self.frame[other] - phase  # the real turn that makes the frames agree
        self.done[-1] = replace(self.done[-1], angles=(np.pi, float(needed / 2)))
        self.done.append(Operation("rz", (alone,), (float(-needed),), start_ns=self.free[alone]))
        self.frame[alone] -= needed
        return begin


def _alike(first: Operation, second: Operation) -> bool:
    """Whether two rotations are the same pulse."""
    turned = (first.angles[1] - second.angles[1]) % (2 * np.pi)
    return abs(first.angles[0] - second.angles[0]) < 1e-9 and min(turned, 2 * np.pi - turned) < 1e-9


def _is_lit(step: Operation) -> bool:
    return step.name == "coupler"


def _deepest(spans: Sequence[tuple[float, float, object]]) -> int:
    """Return how many spans overlap at most."""
    marks = sorted([(a, 1) for a, _, _ in spans] + [(b, -1) for _, b, _ in spans])
    return max(np.cumsum([step for _, step in marks]), default=0)
