"""A checked problem for the solvers: initial state, times, and pieces in which the generator is constant."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from molecular_qubits.spins.channels.base import Channel, ChannelPiece
from molecular_qubits.spins.channels.davies import Davies
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
    system_hamiltonian
        (D, D) in rad/ns, without what the channels add to it.
    parts
        What each channel adds; systems of a sweep may share these objects.
    times_ns
        Output times after `start_ns` and up to `stop_ns`.
    """

    start_ns: float
    stop_ns: float
    system_hamiltonian: ComplexArray
    parts: tuple[ChannelPiece, ...]
    times_ns: FloatArray

    @cached_property
    def hamiltonian(self) -> ComplexArray:
        """Whole Hamiltonian (D, D) in rad/ns."""
        drive = self.drive
        return self.system_hamiltonian if drive is None else self.system_hamiltonian + drive

    @cached_property
    def drive(self) -> ComplexArray | None:
        """What the channels add to the Hamiltonian, (D, D) in rad/ns, or None."""
        drives = [part.hamiltonian for part in self.parts if part.hamiltonian is not None]
        drives += [part.frame for part in self.parts if part.frame is not None][:1]
        return sum(drives[1:], drives[0]) if drives else None

    @cached_property
    def own_jumps(self) -> tuple[ComplexArray, ...]:
        """Jump operators (k, D, D) in ns^-1/2 of each channel, without those of Davies' baths; at least one stack."""
        return (np.zeros((0, *self.system_hamiltonian.shape), dtype=complex), *(part.jumps for part in self.parts))

    @cached_property
    def baths(self) -> tuple[Davies, ...]:
        """Davies' baths."""
        return tuple(bath for part in self.parts for bath in part.davies)

    @cached_property
    def all_jumps(self) -> tuple[ComplexArray, ...]:
        """Jump operators (k, D, D) in ns^-1/2 of each channel and of each of Davies' baths."""
        return (*self.own_jumps, *(bath.jumps(self.system_hamiltonian) for bath in self.baths))

    @cached_property
    def jumps(self) -> ComplexArray:
        """All jump operators (k, D, D) in ns^-1/2."""
        return np.concatenate(self.all_jumps)

    @cached_property
    def superoperators(self) -> tuple[ComplexArray, ...]:
        """Generators (D^2, D^2) in 1/ns of the channels that are not of Lindblad form, on row-major vec(rho)."""
        return tuple(part.superoperator for part in self.parts if part.superoperator is not None)

    @cached_property
    def superoperator(self) -> ComplexArray | None:
        """Sum of `superoperators`, or None."""
        return sum(self.superoperators[1:], self.superoperators[0]) if self.superoperators else None


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
    shared: dict[Any, tuple[ChannelPiece, ...]] | None = None,
) -> Problem:
    """Check the input and cut the time axis where a channel starts or stops.

    Parameters
    ----------
    system, initial_state, times_ns, channels, field_tesla
        As in `molecular_qubits.spins.evolution.evolve`.
    shared
        What local channels were found to add, by channel, sites and field: filled here, to be given again for the next
        system of a sweep.

    Raises
    ------
    ValueError
        If the state or the times are not as required, or light of different frequencies acts at a time.
    TypeError
        If an entry of `channels` is no `Channel`.
    """
    dimension = int(np.prod(system.dims))
    return problem_of(
        system, density_matrix(initial_state, dimension), time_grid(times_ns), checked_channels(channels),
        field_vector(field_tesla), {} if shared is None else shared,
    )  # fmt: skip


def checked_channels(channels: Any) -> tuple[Channel, ...]:
    """Return the channels as a tuple, or raise a `TypeError` that names the first that is none."""
    channels = tuple(channels)
    for number, channel in enumerate(channels):
        if not isinstance(channel, Channel):
            raise TypeError(f"Argument `channels` must hold channels, but entry {number} was {channel!r}.")
    return channels


def problem_of(
    system: QuantumSystem,
    initial: ComplexArray,
    times: FloatArray,
    channels: Sequence[Channel],
    field: FloatArray,
    memory: dict[Any, tuple[ChannelPiece, ...]],
) -> Problem:
    """Return the problem of checked arguments; see `build_problem`."""
    hamiltonian = system.hamiltonian_matrix(field)
    place = (system.local_key, field.tobytes())
    parts = [part for channel in channels for part in _channel_pieces(channel, system, field, place, memory)]
    edges = {times[0], times[-1]}
    edges.update(edge for part in parts for edge in (part.start_ns, part.stop_ns))
    inside = _merged(np.array(sorted(edge for edge in edges if times[0] <= edge <= times[-1])))
    pieces = []
    for start, stop in itertools.pairwise(inside):
        middle = (start + stop) / 2
        active = tuple(part for part in parts if part.start_ns <= middle < part.stop_ns)
        _check_frames(active, float(start), float(stop))
        within = times[(times > start) & (times <= stop)]
        pieces.append(Piece(float(start), float(stop), hamiltonian, active, within))
    return Problem(initial, times, tuple(pieces), tuple(system.dims), tuple(system.names))


def _merged(edges: FloatArray) -> FloatArray:
    """Return ascending edges, those that differ by rounding as one; the first and the last are kept."""
    kept = edges[np.append(np.diff(edges) > 64 * np.spacing(np.abs(edges).max()), True)]
    kept[0] = edges[0]
    return kept


def _check_frames(parts: Sequence[ChannelPiece], start: float, stop: float) -> None:
    frames = [part.frame for part in parts if part.frame is not None]
    if any(not np.array_equal(frame, frames[0]) for frame in frames[1:]):
        raise ValueError(
            f"Argument `channels` must not hold coherent pulses that overlap with different detunings or chirps, but "
            f"does from {start:g} to {stop:g} ns: they have no common rotating frame."
        )


def _channel_pieces(
    channel: Channel, system: QuantumSystem, field: FloatArray, place: Any, memory: dict[Any, tuple[ChannelPiece, ...]]
) -> tuple[ChannelPiece, ...]:
    """Return what a channel adds, from memory if it is local and was met at the same sites before."""
    if not channel.local:
        return channel.pieces(system, field)
    try:
        known = memory.get((channel, place))
    except TypeError:  # a channel with an array or a list in it has no hash
        return channel.pieces(system, field)
    if known is None:
        known = memory[channel, place] = channel.pieces(system, field)
    return known
