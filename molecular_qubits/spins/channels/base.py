"""What a channel is: jump operators, a Hamiltonian of its own, and the times when it acts."""

from typing import Any

import numpy as np

from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.system import QuantumSystem


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

    def segments(self) -> tuple[tuple[float, float, float], ...]:
        """Return when the channel acts: (start_ns, stop_ns, factor).

        The factor scales the rates (and the Hamiltonian by its square root) during the segment, so that a shaped
        pulse is a list of segments. By default the channel always acts.
        """
        return ((-np.inf, np.inf, 1.0),)
