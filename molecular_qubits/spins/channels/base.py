"""What a channel is: jump operators, a Hamiltonian of its own, and the times when it acts."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from molecular_qubits.spins.channels.davies import Davies
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
    davies
        Baths whose jump operators follow from the Hamiltonian of the system.
    frame
        What a rotating frame adds to the Hamiltonian, (D, D) in rad/ns, or None: once, however many channels act in
        that frame. Channels that act at a time must share it.
    """

    start_ns: float
    stop_ns: float
    jumps: ComplexArray
    hamiltonian: ComplexArray | None = None
    superoperator: ComplexArray | None = None
    davies: tuple[Davies, ...] = ()
    frame: ComplexArray | None = None


class Channel:
    """Base of all channels.

    A channel adds sum_k D[L_k] with D[L] rho = L rho L^+ - (L^+ L rho + rho L^+ L) / 2 to the master equation, and
    its own Hamiltonian, both while it acts.

    Attributes
    ----------
    local
        Whether `pieces` depends on the sites of the system only (its ``local_key`` and the field) and not on their
        couplings, so that systems of a sweep that differ in these share it.
    """

    local: ClassVar[bool] = True

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operators, shape (k, D, D), in ns^-1/2; by default those of `davies`."""
        dimension = int(np.prod(system.dims))
        none = np.zeros((0, dimension, dimension), dtype=complex)
        baths = self.davies(system, field_tesla)
        if not baths:
            return none
        hamiltonian = system.hamiltonian_matrix(field_tesla)
        return np.concatenate([none, *(bath.jumps(hamiltonian) for bath in baths)])

    def davies(self, system: QuantumSystem, field_tesla: Any) -> tuple[Davies, ...]:
        """Return the baths that thermalise the whole system; a channel with any has no other jump operators."""
        return ()

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
        baths = self.davies(system, field_tesla)
        dimension = int(np.prod(system.dims))
        jumps = np.zeros((0, dimension, dimension), complex) if baths else self.jumps(system, field_tesla)
        drive = self.hamiltonian(system, field_tesla)
        generator = self.superoperator(system, field_tesla)
        return tuple(
            ChannelPiece(
                start,
                stop,
                np.sqrt(factor) * jumps,
                None if drive is None else np.sqrt(factor) * drive,
                None if generator is None else factor * generator,
                tuple(Davies(bath.couplings, factor * bath.rate_per_ns, bath.thermal_rad_ns) for bath in baths),
            )
            for start, stop, factor in self.segments()
        )
