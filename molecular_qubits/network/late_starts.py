"""First pulses as late as they may come: a radical that has not been turned yet has no phase to lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from molecular_qubits.network.schedule import Operation


def start_late(
    operations: Sequence[Operation],
    classmates: Mapping[int, Sequence[int]],
    barriers: Mapping[int, Sequence[float]],
    tones: int | None,
) -> list[Operation]:
    """Return a schedule whose first rotations end where the first coupler or readout of their site begins.

    Parameters
    ----------
    operations
        Ordered by start.
    classmates
        Sites that turn together with each site, itself included; those with others stay where they are.
    barriers
        Times of the barriers of each site: none is crossed.
    tones
        How many frequencies can be driven at once; ``None``: any number.

    Returns
    -------
    list of Operation
        Ordered by start.
    """
    firsts: dict[int, list[int]] = {}  # pulses and frame changes of a site before anything else happens there
    until: dict[int, float] = {}
    for number, operation in enumerate(operations):
        for site in operation.sites:
            if site in until:
                continue
            if operation.name in ("rotation", "rz"):
                firsts.setdefault(site, []).append(number)
            else:
                until[site] = operation.start_ns
    done = list(operations)
    pulses = [number for number, operation in enumerate(operations) if operation.name == "rotation"]
    for site in sorted(firsts.keys() & until.keys(), key=lambda s: (-until[s], s)):  # the last first: they leave tones
        if len(classmates.get(site, (site,))) > 1:
            continue
        begin, end = done[firsts[site][0]].start_ns, done[firsts[site][-1]].end_ns
        latest = min([until[site], *(time for time in barriers.get(site, ()) if time > begin)])
        if latest - end < 1e-9:
            continue
        before = {number: done[number] for number in firsts[site]}
        for number, operation in before.items():
            done[number] = replace(operation, start_ns=min(operation.start_ns + latest - end, latest))
        if tones is not None and _together([done[number] for number in pulses], classmates) > tones:
            for number, operation in before.items():
                done[number] = operation
    order = sorted(range(len(done)), key=lambda k: (done[k].start_ns, done[k].end_ns, k))
    return [done[k] for k in order]


def _together(rotations: Sequence[Operation], classmates: Mapping[int, Sequence[int]]) -> int:
    """Return how many frequencies are driven at once at most; radicals that turn together have one."""
    pulses = {(o.start_ns, o.end_ns, min(classmates.get(o.sites[0], o.sites))) for o in rotations}
    changes = sorted([(start, 1) for start, _, _ in pulses] + [(end, -1) for _, end, _ in pulses])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
