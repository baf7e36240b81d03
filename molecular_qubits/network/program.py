"""From a schedule to a list of noisy channels in order of time: what every simulator but the Lindblad one runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from molecular_qubits.network import transfer
from molecular_qubits.network.noise import GateChannels, parts_needed
from molecular_qubits.network.schedule import Operation, Schedule, ideal_matrix
from molecular_qubits.spins.operators import ComplexArray, FloatArray

TOLERANCE = 2e-3
"""How far a pulse, done in parts with the dark exchange between them, may leave the state from where it should be."""

_ONE: ComplexArray = np.eye(2, dtype=complex)
_TWO: ComplexArray = np.eye(4, dtype=complex)


@dataclass(frozen=True)
class Step:
    """One channel on one or two sites.

    Attributes
    ----------
    sites
        The sites, the first being the first factor.
    channel
        Transfer matrix (4, 4) or (16, 16).
    ideal
        What was wanted, unitary (2, 2) or (4, 4).
    """

    sites: tuple[int, ...]
    channel: FloatArray = field(repr=False)
    ideal: ComplexArray = field(repr=False)


@dataclass(frozen=True)
class Program:
    """Channels to be applied one after another.

    Attributes
    ----------
    n_sites
        Sites simulated, numbered from 0.
    initial
        1, <X>, <Y>, <Z> of each site at the start, (n, 4).
    steps
        The channels.
    confusion
        (n, 2, 2): probability to report a (row) of b (column).
    read
        Site that is read for each logical qubit.
    labels
        Number in the network of each site.
    """

    n_sites: int
    initial: FloatArray
    steps: tuple[Step, ...]
    confusion: FloatArray
    read: tuple[int, ...]
    labels: tuple[int, ...]

    @cached_property
    def fused(self) -> Program:
        """The same with the steps on one site put into those on two, and neighbours on the same pair into one."""
        return replace(self, steps=_fuse(self.steps))

    @cached_property
    def blocks(self) -> Program:
        """The same with pure noise on pairs, between two gates of another pair, put off until these are one step.

        A gate of the circuit that takes several couplers is then one step, whatever light for it does to others.
        """
        return replace(self, steps=_fuse(self.steps, put_off=True))

    def ideal(self) -> Program:
        """Return the program without noise, from |0> on every site."""
        steps = tuple(Step(step.sites, transfer.from_unitary(step.ideal), step.ideal) for step in self.steps)
        initial = np.tile([1.0, 0.0, 0.0, 1.0], (self.n_sites, 1))
        return replace(self, steps=steps, initial=initial, confusion=np.tile(np.eye(2), (self.n_sites, 1, 1)))

    def components(self) -> list[tuple[int, ...]]:
        """Return the sets of sites that steps join."""
        parent = list(range(self.n_sites))

        def root(site: int) -> int:
            while parent[site] != site:
                parent[site] = parent[parent[site]]
                site = parent[site]
            return site

        for step in self.steps:
            if len(step.sites) == 2:
                parent[root(step.sites[0])] = root(step.sites[1])
        groups: dict[int, list[int]] = {}
        for site in range(self.n_sites):
            groups.setdefault(root(site), []).append(site)
        return [tuple(group) for group in groups.values()]


def build_program(schedule: Schedule, channels: GateChannels, *, split: bool = True) -> Program:
    """Return the channels of a schedule.

    Radicals that no operation touches and that hold no qubit are left out, with what light and exchange would do to
    them. Each radical idles between its operations; the exchange through dark couplers and stray light act on a pair
    when either of its radicals is next touched, for the time since. A pulse on a radical with such an exchange is done
    in parts, so many that the exchange acts during it, too, to about `TOLERANCE`; it acts in the middle of each part.

    Parameters
    ----------
    schedule
        What to do.
    channels
        What each operation really does.
    split
        False: pulses are not done in parts. Where noise is turned into Paulis step by step, parts would lose what they
        do together.

    Raises
    ------
    ValueError
        If the schedule and the channels differ in their number of sites or in the ideal gate, if an operation begins
        before its site is free, or if a coupler is missing.
    """
    if schedule.n_sites != channels.n_sites:
        raise ValueError(
            f"Argument `schedule` must have as many sites as the network, {channels.n_sites}, but has "
            f"{schedule.n_sites}."
        )
    if not np.allclose(schedule.entangler, channels.entangler, rtol=0, atol=1e-9):
        raise ValueError("Argument `schedule` must be made for the network's entangling gate, but has another one.")
    return _Builder(schedule, channels, split).program()


class _Builder:
    """Walks through the operations with a clock for each site and each pair with a dark exchange.

    What pulses for other radicals do to a site since it was last touched is one factor of Z and one of X and Y; what
    light for other couplers does to a pair is one probability of its triplet. It acts after the gate whose light it
    was: exact for couplers that share no radical; where they share one, the loss of fidelity is 0.6 to 1.6 times that
    of both triplets at once.
    """

    def __init__(self, schedule: Schedule, channels: GateChannels, split: bool) -> None:
        used = {site for operation in schedule.operations for site in operation.sites}
        used |= {*schedule.initial_sites, *schedule.final_sites}
        self._labels = tuple(sorted(used))
        self._place = {label: place for place, label in enumerate(self._labels)}
        self._schedule, self._channels, self._split = schedule, channels, split
        self._steps: list[Step] = []
        self._clock = dict.fromkeys(self._labels, 0.0)
        self._pair_clock: dict[tuple[int, int], float] = {}
        self._lit: dict[tuple[int, int], tuple[float, float, float]] = {}
        self._lit_at: dict[int, set[tuple[int, int]]] = {}
        self._together: dict[tuple[float, tuple[float, ...]], list[int]] = {}
        for operation in schedule.operations:  # radicals turned alike at one moment: one pulse where they look alike
            if operation.name == "rotation":
                self._together.setdefault((operation.start_ns, operation.angles), []).append(operation.sites[0])
        self._along, self._across = np.ones(channels.n_sites), np.ones(channels.n_sites)

    def program(self) -> Program:
        schedule = self._schedule
        for operation, whole, parts in self._parts():
            self._apply(operation, whole, parts)
        measured = {operation.sites[0] for operation in schedule.operations if operation.name == "measure"}
        end = schedule.duration_ns
        for site in self._labels:
            if site not in measured:
                self._wait(site, end)
                self._exchange(site, end)
        labels = list(self._labels)
        return Program(
            len(labels),
            self._channels.initial[labels],
            tuple(self._steps),
            self._channels.confusion[labels],
            tuple(self._place[site] for site in schedule.final_sites),
            self._labels,
        )

    def _parts(self) -> list[tuple[Operation, Operation | None, int]]:
        """Return operations in the order in which they act, what each ends, and the number of its like.

        Without dark exchange they are those of the schedule; with it they are ordered by their middle.
        """
        channels, found = self._channels, []
        if not channels.dark_neighbours:
            return [(operation, operation, 1) for operation in self._schedule.operations]
        for whole in self._schedule.operations:
            n = 1
            if whole.name == "rotation" and self._split:
                turned = channels.dark_angle(whole.sites[0], whole.duration_ns)
                n = parts_needed(abs(whole.angles[0]), turned, TOLERANCE)
            angles = (whole.angles[0] / n, whole.angles[1]) if n > 1 else whole.angles
            for k in range(n):
                start, length = whole.start_ns + k * whole.duration_ns / n, whole.duration_ns / n
                part = replace(whole, angles=angles, start_ns=start, duration_ns=length)
                found.append((part, whole if k == n - 1 else None, n))
        return sorted(found, key=lambda part: part[0].start_ns + part[0].duration_ns / 2)

    def _apply(self, operation: Operation, whole: Operation | None, parts: int) -> None:
        """Apply an operation; `whole` is the one that it ends."""
        for site in operation.sites:
            if operation.start_ns < self._clock[site] - 1e-9:
                raise ValueError(
                    f"Argument `schedule` must not begin {operation.name} on site {site} at {operation.start_ns:g} ns, "
                    f"where it is busy until {self._clock[site]:g} ns."
                )
            self._wait(site, operation.start_ns)
            middle = operation.duration_ns / 2 if operation.name == "rotation" else 0.0
            self._exchange(site, operation.start_ns + middle)
        channels, sites = self._channels, operation.sites
        if operation.name == "measure":
            return
        ideal = ideal_matrix(operation, self._schedule.entangler)
        if operation.name == "rz":
            self._add(sites, transfer.from_unitary(ideal), ideal)
            return
        if operation.name == "rotation":
            theta, phi = operation.angles
            self._add(sites, channels.rotation(sites[0], theta, phi, operation.duration_ns, parts), ideal)
            if whole is not None:
                self._turn_others(whole)
        else:
            pair = (sites[0], sites[1])
            self._add(pair, channels.coupler(*pair, operation.duration_ns), ideal)
            for other, probability in channels.lit_by_accident(*pair).items():
                if other[0] in self._place and other[1] in self._place:
                    before, *_ = self._lit.get(other, (0.0,))
                    hold = channels.gate(*pair).hold_ns
                    self._lit[other] = (before + probability - before * probability, hold, operation.start_ns)
                    for site in other:
                        self._lit_at.setdefault(site, set()).add(other)
            self._pair_clock[(min(pair), max(pair))] = operation.end_ns
        for site in sites:
            self._clock[site] = operation.end_ns

    def _turn_others(self, pulse: Operation) -> None:
        """Let a pulse turn the radicals beside its own."""
        theta = pulse.angles[0]
        flips = self._channels.bystander_flips(pulse.sites[0], theta, pulse.duration_ns)
        if flips is None:
            return
        together = self._together[pulse.start_ns, pulse.angles]
        if len(together) > 1:
            same = [site for site in together if flips[site] > np.sin(theta / 2) ** 2 / 2]
            flips = flips.copy()
            flips[same] = 0
        self._along *= 1 - 2 * flips
        self._across *= 1 - flips

    def _wait(self, site: int, until_ns: float) -> None:
        """Let a site idle up to a time, and what pulses and light for others did to it act."""
        gap = until_ns - self._clock[site]
        if gap > 0:
            self._add((site,), self._channels.idle(site, gap), _ONE)
            self._clock[site] = until_ns
        for pair in sorted(self._lit_at.pop(site, ())):
            if pair in self._lit:
                self._add(pair, self._channels.lit(pair, *self._lit.pop(pair)), _TWO)
        along, across = self._along[site], self._across[site]
        if along != 1 or across != 1:
            self._add((site,), np.diag([1.0, across, across, along]), _ONE)
            self._along[site] = self._across[site] = 1.0

    def _exchange(self, site: int, until_ns: float) -> None:
        """Let the dark couplers of a site act up to a time."""
        for other in self._channels.dark_neighbours.get(site, ()):
            key = (min(site, other), max(site, other))
            since = self._pair_clock.get(key, 0.0)
            if since < until_ns and other in self._place:
                self._add((site, other), self._channels.dark(site, other, since, until_ns), _TWO)
                self._pair_clock[key] = until_ns

    def _add(self, sites: Sequence[int], channel: FloatArray, ideal: ComplexArray) -> None:
        if all(site in self._place for site in sites):
            self._steps.append(Step(tuple(self._place[site] for site in sites), channel, ideal))


def _fuse(steps: Sequence[Step], put_off: bool = False) -> tuple[Step, ...]:
    waiting: dict[int, Step] = {}
    done: list[Step] = []
    last: dict[int, int] = {}
    late = _between_gates(steps) if put_off else set()
    for number, step in enumerate(steps):
        if len(step.sites) == 1:
            (site,) = step.sites
            before = waiting.get(site)
            waiting[site] = step if before is None else _after(before, step)
            continue
        first, second = step.sites
        place = last.get(first, -1)
        same = place >= 0 and place == last.get(second, -1)
        if number in late and not same:
            done.append(step)
            continue
        for position, site in enumerate(step.sites):
            if site in waiting:
                step = _after(_widened(waiting.pop(site), step.sites, position), step)
        if same:
            done[place] = _after(done[place], _ordered(step, done[place].sites))
        else:
            last[first] = last[second] = len(done)
            done.append(step)
    for site, step in waiting.items():
        place = last.get(site, -1)
        if place >= 0:
            done[place] = _after(done[place], _widened(step, done[place].sites, done[place].sites.index(site)))
        else:
            done.append(step)
    return tuple(done)


def _between_gates(steps: Sequence[Step]) -> set[int]:
    """Return the numbers of pure noise on pairs that has a radical between two gates of another pair."""
    last: dict[int, int] = {}
    waiting: dict[int, list[int]] = {}
    found: set[int] = set()
    for number, step in enumerate(steps):
        if len(step.sites) == 1:
            continue
        if step.ideal is _TWO:
            for site in step.sites:
                waiting.setdefault(site, []).append(number)
            continue
        before = [last.get(site) for site in step.sites]
        between = [waiting.pop(site, []) for site in step.sites]
        if before[0] == before[1] is not None:
            found.update(*between)
        for site in step.sites:
            last[site] = number
    return found


def _after(first: Step, second: Step) -> Step:
    return Step(first.sites, second.channel @ first.channel, second.ideal @ first.ideal)


def _ordered(step: Step, sites: tuple[int, ...]) -> Step:
    if step.sites == sites:
        return step
    ideal = step.ideal.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)
    return Step(sites, transfer.swap_sites(step.channel), ideal)


def _widened(step: Step, sites: tuple[int, ...], position: int) -> Step:
    nothing = transfer.identity(1)
    if position == 0:
        return Step(sites, transfer.on_both(step.channel, nothing), np.asarray(np.kron(step.ideal, _ONE), complex))
    return Step(sites, transfer.on_both(nothing, step.channel), np.asarray(np.kron(_ONE, step.ideal), complex))
