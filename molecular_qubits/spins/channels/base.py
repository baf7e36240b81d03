"""What a channel is: jump operators, a Hamiltonian of its own, and the times when it acts."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.system import QuantumSystem


@dataclass(frozen=True)
class ChannelPiece:
    """What a channel adds during one interval.

    Attributes
    ----------
    start_ns, stop_ns
        The interval.
    jumps
        Jump operators (k, D, D) in ns^-1/2.
    hamiltonian
        (D, D) in rad/ns, or None.
    superoperator
        (D^2, D^2) in 1/ns, or None; see `Channel.superoperator`.
    """

    start_ns: float
    stop_ns: float
    jumps: ComplexArray
    hamiltonian: ComplexArray | None = None
    superoperator: ComplexArray | None = None


class Channel:
    """Base of all channels.

    A channel adds sum_k D[L_k] with D[L] rho = L rho L^+ - (L^+ L rho + rho L^+ L) / 2 to the master equation, and
    its own Hamiltonian, both while it acts.
    """

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operators, shape (k, D, D), in ns^-1/2."""
        dimension = int(np.prod(system.dims))
        return np.zeros((0, dimension, dimension), dtype=complex)

    def hamiltonian(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray | None:
        """Return the Hamiltonian (D, D) in rad/ns that the channel adds, or None."""
        return None

    def superoperator(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray | None:
        """Return a generator (D^2, D^2) in 1/ns that is not of Lindblad form, on row-major vec(rho), or None."""
        return None

    def segments(self) -> tuple[tuple[float, float, float], ...]:
        """Return when the channel acts: (start_ns, stop_ns, factor).

        The factor scales the rates (and the Hamiltonian by its square root) during the segment, so that a shaped
        pulse is a list of segments. By default the channel always acts.
        """
        return ((-np.inf, np.inf, 1.0),)

    def pieces(self, system: QuantumSystem, field_tesla: Any) -> tuple[ChannelPiece, ...]:
        """Return what the channel adds in each interval; by default the same in all, scaled by their factors."""
        jumps = self.jumps(system, field_tesla)
        drive = self.hamiltonian(system, field_tesla)
        generator = self.superoperator(system, field_tesla)
        return tuple(
            ChannelPiece(
                start,
                stop,
                np.sqrt(factor) * jumps,
                None if drive is None else np.sqrt(factor) * drive,
                None if generator is None else factor * generator,
            )
            for start, stop, factor in self.segments()
        )
