"""What a piece adds to the generator whatever the Hamiltonian of the system: jump operators, drives and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from molecular_qubits.spins.liouvillian import clean, gram
from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.problem import Piece


@dataclass(frozen=True, eq=False)
class LocalGenerator:
    """The part of a generator that systems with different couplings share, in the product basis.

    Attributes
    ----------
    effective
        H_drive - i/2 sum_k L_k^+ L_k, (D, D) in rad/ns.
    gain
        sum_k vec(L_k) vec(L_k)^+ on `places`, (m, m) in 1/ns.
    places
        Flat indices (m,) at which any jump operator is not 0.
    rest
        Generator (D^2, D^2) in 1/ns of what is not of Lindblad form, or None.
    couplings
        Of Davies' baths, (k, D, D).
    rates, thermals
        gamma(0) in 1/ns and k T / h-bar in rad/ns of each coupling, (k,).
    """

    effective: ComplexArray
    gain: ComplexArray
    places: np.ndarray
    rest: ComplexArray | None
    couplings: ComplexArray
    rates: np.ndarray
    thermals: np.ndarray

    @classmethod
    def of(cls, piece: Piece) -> LocalGenerator:
        """Return that of a piece, with rounding noise set to 0."""
        stacks, baths = [clean(jumps, axis=None) for jumps in piece.own_jumps], piece.baths
        d = stacks[0].shape[-1]
        effective = -0.5j * np.sum([gram(jumps.reshape(-1, d)) for jumps in stacks], axis=0)
        if piece.drive is not None:
            effective = effective + piece.drive
        rests = [clean(each) for each in piece.superoperators]
        places = np.flatnonzero(np.any([np.any(jumps, axis=0) for jumps in stacks], axis=0))
        gain = np.sum([gram(jumps.reshape(-1, d * d)[:, places].conj()) for jumps in stacks], axis=0)
        counts = [len(bath.couplings) for bath in baths]
        return cls(
            effective,
            gain,
            places,
            sum(rests[1:], rests[0]) if rests else None,
            clean(np.concatenate([np.zeros((0, d, d), dtype=complex), *(bath.couplings for bath in baths)])),
            np.repeat([bath.rate_per_ns for bath in baths], counts),
            np.repeat([bath.thermal_rad_ns for bath in baths], counts),
        )

    @cached_property
    def baths_key(self) -> bytes:
        """Equal for pieces with the same baths."""
        return self.couplings.tobytes() + self.rates.tobytes() + self.thermals.tobytes()

    def links(self, blocks: np.ndarray) -> np.ndarray:
        """Return which blocks of rho this couples, bool (B, B, B, B): the first two from the last two, without baths.

        Parameters
        ----------
        blocks
            Whether a state belongs to a block, bool (D, B).
        """
        d = len(blocks)
        found = _on_either_side(blocks.T @ (self.effective != 0) @ blocks)
        label = blocks.argmax(axis=1)
        left, right = np.nonzero(self.gain)
        (to_row, from_row), (to_column, from_column) = (np.divmod(self.places[side], d) for side in (left, right))
        found[label[to_row], label[to_column], label[from_row], label[from_column]] = True
        if self.rest is not None:
            places = np.nonzero(self.rest.reshape(d, d, d, d))
            found[tuple(label[place] for place in places)] = True
        return found

    def bath_links(self, blocks: np.ndarray) -> np.ndarray:
        """Return which blocks of rho the baths may couple, as in `links`."""
        found = np.zeros((blocks.shape[1],) * 4, dtype=bool)
        for coupling in {pattern.tobytes(): pattern for pattern in blocks.T @ (self.couplings != 0) @ blocks}.values():
            found |= coupling[:, None, :, None] & coupling[None, :, None, :] | _on_either_side(coupling.T @ coupling)
        return found


def _on_either_side(pattern: np.ndarray) -> np.ndarray:
    """Return where A rho + rho A^+ links blocks, for the pattern of A."""
    one = np.eye(len(pattern), dtype=bool)
    return pattern[:, None, :, None] & one[None, :, None, :] | one[:, None, :, None] & pattern[None, :, None, :]


def all_baths(locals_: Sequence[LocalGenerator]) -> tuple[list[LocalGenerator], list[int]]:
    """Return those with different baths, and for each which of these has its baths."""
    found: dict[bytes, int] = {}
    chosen: list[LocalGenerator] = []
    places = []
    for each in locals_:
        if each.baths_key not in found:
            found[each.baths_key] = len(chosen)
            chosen.append(each)
        places.append(found[each.baths_key])
    return chosen, places
