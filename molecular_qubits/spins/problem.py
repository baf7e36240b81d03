"""A checked problem for the solvers: initial state, times, and pieces in which the generator is constant."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from molecular_qubits.spins.channels.base import Channel
from molecular_qubits.spins.checks import density_matrix, field_vector, time_grid
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.spins.system import QuantumSystem


@dataclass(frozen=True)
class Piece:
    """An interval with a constant generator.

    Attributes
    ----------
    start_ns, stop_ns
        The interval.
    hamiltonian
        (D, D) in rad/ns.
    jumps
        (k, D, D) in ns^-1/2.
    times_ns
        Output times after `start_ns` and up to `stop_ns`.
    """

    start_ns: float
    stop_ns: float
    hamiltonian: ComplexArray
    jumps: ComplexArray
    times_ns: FloatArray


@dataclass(frozen=True)
class Problem:
    """Initial state at the first time, and the pieces up to the last time."""

    initial: ComplexArray
    times_ns: FloatArray
    pieces: tuple[Piece, ...]
    dims: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def dimension(self) -> int:
        """Dimension D of the state space."""
        return len(self.initial)


def build_problem(
    system: QuantumSystem,
    initial_state: Any,
    times_ns: Any,
    channels: Sequence[Channel] = (),
    field_tesla: Any = 0.0,
) -> Problem:
    """Check the input and cut the time axis where a channel starts or stops.

    Parameters
    ----------
    system, initial_state, times_ns, channels, field_tesla
        As in `molecular_qubits.spins.evolution.evolve`.

    Raises
    ------
    ValueError
        If the state or the times are not as required.
    TypeError
        If an entry of `channels` is no `Channel`.
    """
    times = time_grid(times_ns)
    field = field_vector(field_tesla)
    dimension = int(np.prod(system.dims))
    initial = density_matrix(initial_state, dimension)
    for number, channel in enumerate(channels):
        if not isinstance(channel, Channel):
            raise TypeError(f"Argument `channels` must hold channels, but entry {number} was {channel!r}.")
    hamiltonian = system.hamiltonian_matrix(field)
    parts = [(c.segments(), c.jumps(system, field), c.hamiltonian(system, field)) for c in channels]
    edges = {times[0], times[-1]}
    edges.update(edge for segments, _, _ in parts for start, stop, _ in segments for edge in (start, stop))
    inside = np.array(sorted(edge for edge in edges if times[0] <= edge <= times[-1]))
    pieces = []
    for start, stop in itertools.pairwise(inside):
        middle = (start + stop) / 2
        piece_hamiltonian, jumps = hamiltonian.copy(), [np.zeros((0, dimension, dimension), dtype=complex)]
        for segments, operators, drive in parts:
            for begin, end, factor in segments:
                if begin <= middle < end:
                    jumps.append(np.sqrt(factor) * operators)
                    if drive is not None:
                        piece_hamiltonian += np.sqrt(factor) * drive
        here = times[(times > start) & (times <= stop)]
        pieces.append(Piece(float(start), float(stop), piece_hamiltonian, np.concatenate(jumps), here))
    return Problem(initial, times, tuple(pieces), tuple(system.dims), tuple(system.names))
