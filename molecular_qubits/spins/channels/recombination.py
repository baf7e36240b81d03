"""Spin-selective recombination of a pair of electrons: to product levels, or Haberkorn's loss."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from molecular_qubits.spins.channels.base import Channel
from molecular_qubits.spins.checks import non_negative
from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.radical_pair import PRODUCTS, RadicalPair, pair_indices, singlet_projector
from molecular_qubits.spins.system import QuantumSystem, SpinSystem


@dataclass(frozen=True)
class Recombination(Channel):
    """Recombination of a `RadicalPair` to its singlet and triplet products, of Lindblad form.

    The jump operators are sqrt(k_S) |singlet product><pair| P_S and sqrt(k_T) |triplet product><pair| P_T, so that the
    other spins keep their state and coherences. The trace is conserved, and the living pair obeys `Haberkorn` exactly.

    Parameters
    ----------
    singlet_rate_per_ns, triplet_rate_per_ns
        Rates k_S and k_T at which a pair in its singlet or triplet recombines.
    """

    singlet_rate_per_ns: float
    triplet_rate_per_ns: float

    def __post_init__(self) -> None:
        non_negative(self.singlet_rate_per_ns, "singlet_rate_per_ns")
        non_negative(self.triplet_rate_per_ns, "triplet_rate_per_ns")

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the jump operators to the two products, shape (2, D, D)."""
        if not isinstance(system, RadicalPair):
            raise TypeError(
                f"Argument `system` must be a RadicalPair, which has levels for the products, but was a "
                f"{type(system).__name__}; Haberkorn acts on a SpinSystem and loses the trace."
            )
        singlet = singlet_projector(system.spins, system.pair)
        triplet = np.eye(len(singlet)) - singlet
        jumps = []
        for rate, projector, product in (
            (self.singlet_rate_per_ns, singlet, "singlet_product"),
            (self.triplet_rate_per_ns, triplet, "triplet_product"),
        ):
            transfer = np.zeros((3, 3))
            transfer[PRODUCTS[product], PRODUCTS["pair"]] = 1
            jumps.append(np.sqrt(rate) * np.kron(projector, transfer))
        return np.array(jumps, dtype=complex)


@dataclass(frozen=True)
class Haberkorn(Channel):
    """Recombination of two spins of a `SpinSystem` without product levels.

    rho' = -(k_S {P_S, rho} + k_T {P_T, rho}) / 2.

    The trace is then the share of pairs still alive, and is not conserved.

    Parameters
    ----------
    pair
        Names of the two electrons of spin 1/2.
    singlet_rate_per_ns, triplet_rate_per_ns
        Rates k_S and k_T.

    References
    ----------
    R. Haberkorn, Mol. Phys. 32, 1491 (1976).
    """

    pair: tuple[str, str]
    singlet_rate_per_ns: float
    triplet_rate_per_ns: float

    def __post_init__(self) -> None:
        non_negative(self.singlet_rate_per_ns, "singlet_rate_per_ns")
        non_negative(self.triplet_rate_per_ns, "triplet_rate_per_ns")

    def superoperator(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return the generator (D^2, D^2) in 1/ns."""
        if not isinstance(system, SpinSystem):
            raise TypeError(f"Argument `system` must be a SpinSystem, but was a {type(system).__name__}.")
        singlet = singlet_projector(system, pair_indices(system, self.pair))
        identity = np.eye(len(singlet))
        loss = self.singlet_rate_per_ns * singlet + self.triplet_rate_per_ns * (identity - singlet)
        return np.asarray(-0.5 * (np.kron(loss, identity) + np.kron(identity, loss.T)), dtype=complex)
