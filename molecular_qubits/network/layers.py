"""A schedule cut into moments: what is lit, turned and read, and which dark couplers get light besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.network.addressing import crosstalk
from molecular_qubits.network.schedule import Operation, Schedule

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork

FAINTEST = 1e-5
"""Stray probabilities below this are not listed."""


@dataclass(frozen=True)
class Layer:
    """What goes on from one moment at which something starts to the next.

    Attributes
    ----------
    start_ns, end_ns
        Begin of the layer, and of the next one.
    operations
        What starts at the begin or still goes on then.
    lit
        Couplers that are lit.
    stray
        Dark living couplers with the probability that the light of this moment puts them into their triplet, largest
        first.
    """

    start_ns: float
    end_ns: float
    operations: tuple[Operation, ...]
    lit: tuple[int, ...]
    stray: tuple[tuple[int, float], ...]


def cut_layers(schedule: Schedule, network: MolecularNetwork) -> list[Layer]:
    """Return the layers of a schedule in order of time.

    Raises
    ------
    ValueError
        If the schedule is not one of this network.
    """
    schedule.check_network(network.n_sites)
    timed = [operation for operation in schedule.operations if operation.duration_ns > 0]
    number = {frozenset(bond.sites): k for k, bond in enumerate(network.bonds)}
    starts = sorted({operation.start_ns for operation in timed})
    ends = [*starts[1:], schedule.duration_ns] if starts else []
    used = sorted({number[frozenset(o.sites)] for o in timed if o.name == "coupler"})
    rows = dict(zip(used, crosstalk(network, used), strict=True))
    layers = []
    going: list[Operation] = []
    waiting = iter(timed)
    following = next(waiting, None)
    for start, end in zip(starts, ends, strict=True):
        going = [operation for operation in going if operation.end_ns > start]
        while following is not None and following.start_ns <= start:
            going.append(following)
            following = next(waiting, None)
        lit = tuple(sorted(number[frozenset(o.sites)] for o in going if o.name == "coupler"))
        stray = np.sum([rows[bond] for bond in lit], axis=0) if lit else np.zeros(len(network.bonds))
        dark = [(k, float(p)) for k, p in enumerate(stray) if p > FAINTEST and k not in lit]
        layers.append(Layer(start, end, tuple(going), lit, tuple(sorted(dark, key=lambda pair: -pair[1]))))
    return layers
