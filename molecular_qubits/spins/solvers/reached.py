"""Which elements of the density matrix can become nonzero, for all systems of a sweep at once.

The eigenvectors of all Hamiltonians stay within common blocks of states, so that an operator with zeros between two
blocks in the product basis has them in every eigenbasis. What does not depend on the Hamiltonian is followed block by
block; Davies' baths link elements of equal frequency only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from molecular_qubits.spins.channels.davies import FREQUENCY_TOLERANCE_RAD_PER_NS
from molecular_qubits.spins.solvers.local_generator import LocalGenerator
from molecular_qubits.spins.solvers.real_generator import Elements


@dataclass(frozen=True)
class Reached:
    """What is reached.

    Attributes
    ----------
    inner
        In the eigenbases.
    outer
        In the product basis: all elements of the blocks that hold any of `inner`.
    alike
        Rows and columns (k,) of `inner.indices` that have the same frequency in any system: what baths can link.
    bathed
        States (m,) in the blocks on which any bath acts.
    """

    inner: Elements
    outer: Elements
    alike: tuple[np.ndarray, np.ndarray]
    bathed: np.ndarray


def reached_elements(
    initial: np.ndarray, energies: np.ndarray, labels: np.ndarray, generators: Sequence[LocalGenerator]
) -> Reached:
    """Return what is reached from the initial states.

    Parameters
    ----------
    initial
        Where any initial state is not 0 in its eigenbasis, bool (D, D).
    energies
        Of all systems, (n, D) in rad/ns.
    labels
        Number of the block of each state, (D,).
    generators
        All that act in any piece of any system.
    """
    blocks = np.eye(int(labels.max()) + 1, dtype=bool)[labels]
    links = np.any([each.links(blocks) for each in generators], axis=0)
    bath_links = np.any([each.bath_links(blocks) for each in generators], axis=0)
    frequencies = energies[:, :, None] - energies[:, None, :]
    reached = initial | initial.T
    while True:
        here = blocks.T @ reached @ blocks
        grown = reached | blocks @ np.any(links & here, axis=(2, 3)) @ blocks.T
        linked = blocks @ np.any(bath_links & here, axis=(2, 3)) @ blocks.T
        grown |= _of_equal_frequency(frequencies, reached, linked & ~grown)
        grown |= grown.T
        if np.array_equal(grown, reached):
            break
        reached = grown
    inner, outer = _elements(reached), _elements(blocks @ (blocks.T @ reached @ blocks) @ blocks.T)
    coupled = np.any([np.any(each.couplings, axis=0) for each in generators], axis=0)
    bathed = np.flatnonzero(blocks @ (blocks.T @ (coupled.any(axis=0) | coupled.any(axis=1))))
    return Reached(inner, outer, _alike(inner, frequencies, labels, bath_links), bathed)


def _of_equal_frequency(frequencies: np.ndarray, reached: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the candidates (D, D) whose frequency is that of a reached element in any system."""
    found = np.zeros_like(candidates)
    places = np.nonzero(candidates)
    if len(places[0]):
        for frequency in frequencies:
            known, wanted = np.sort(frequency[reached]), frequency[places]
            above = np.searchsorted(known, wanted)
            gap = np.minimum(
                np.abs(known[np.minimum(above, len(known) - 1)] - wanted),
                np.abs(known[np.maximum(above - 1, 0)] - wanted),
            )
            found[places] |= gap < FREQUENCY_TOLERANCE_RAD_PER_NS
    return found


def _alike(
    inner: Elements, frequencies: np.ndarray, labels: np.ndarray, bath_links: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, e = inner.indices
    possible = bath_links[labels[a], labels[b], labels[c], labels[e]]
    alike = np.zeros_like(possible)
    for frequency in frequencies:
        alike |= np.abs(frequency[a, b] - frequency[c, e]) < FREQUENCY_TOLERANCE_RAD_PER_NS
    rows, columns = np.nonzero(alike & possible)
    return rows, columns


def _elements(reached: np.ndarray) -> Elements:
    rows, columns = np.nonzero(np.triu(reached, 1))
    return Elements(len(reached), np.flatnonzero(reached.diagonal()), rows, columns)
