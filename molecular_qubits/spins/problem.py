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
    superoperator
        Generator (D^2, D^2) in 1/ns of what is not of Lindblad form, on row-major vec(rho), or None.
    """

    start_ns: float
    stop_ns: float
    hamiltonian: ComplexArray
    jumps: ComplexArray
    times_ns: FloatArray
    superoperator: ComplexArray | None = None


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
    parts = [part for channel in channels for part in channel.pieces(system, field)]
    edges = {times[0], times[-1]}
    edges.update(edge for part in parts for edge in (part.start_ns, part.stop_ns))
    inside = np.array(sorted(edge for edge in edges if times[0] <= edge <= times[-1]))
    pieces = []
    for start, stop in itertools.pairwise(inside):
        middle = (start + stop) / 2
        active = [part for part in parts if part.start_ns <= middle < part.stop_ns]
        drives = [part.hamiltonian for part in active if part.hamiltonian is not None]
        generators = [part.superoperator for part in active if part.superoperator is not None]
        pieces.append(
            Piece(
                float(start),
                float(stop),
                sum(drives, hamiltonian.copy()),
                np.concatenate([np.zeros((0, dimension, dimension), dtype=complex), *(part.jumps for part in active)]),
                times[(times > start) & (times <= stop)],
                sum(generators[1:], generators[0]) if generators else None,
            )
        )
    return Problem(initial, times, tuple(pieces), tuple(system.dims), tuple(system.names))
