"""How long a microwave pulse must be to turn one radical and leave those beside it in frequency: Gaussian pulses.

A Gaussian pulse of area theta and standard deviation s flips a radical that is off by d with the probability
(theta / 2)^2 exp(-(2 pi d s)^2) as long as that is small (first order in the pulse). Source: R. Freeman, Spin
Choreography, ch. 5; the law is tested against the Bloch equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.spins.operators import FloatArray

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork

CUT = 2.5
"""A pulse is cut this many standard deviations from its middle."""


def shortest_sigma_ns(rabi_mhz: float) -> float:
    """Return the standard deviation of the shortest pulse that turns by pi with a largest Rabi frequency."""
    return float(np.pi / (np.sqrt(2 * np.pi) * 2 * np.pi * 1e-3 * rabi_mhz))


def selective_sigma_ns(separation_mhz: float, limit: float) -> float:
    """Return the standard deviation of the pulse by pi that flips a radical so far off with at most a probability."""
    return float(np.sqrt(max(np.log(np.pi**2 / 4 / limit), 0.0)) / (2 * np.pi * 1e-3 * separation_mhz))


def flip_probability(sigma_ns: float, separation_mhz: float) -> float:
    """Return the probability that a pulse by pi flips a radical that is off by a frequency, first order."""
    return float(np.pi**2 / 4 * np.exp(-((2 * np.pi * 1e-3 * separation_mhz * sigma_ns) ** 2)))


def rotation_times(network: MolecularNetwork, used: Sequence[int]) -> tuple[FloatArray, list[list[int]]]:
    """Return how long rotations take, and which radicals cannot be told apart.

    Parameters
    ----------
    network
        The network.
    used
        Sites that hold qubits: others may be flipped at will.

    Returns
    -------
    duration_ns : ndarray, shape (n_sites,)
        NaN for sites that are not used.
    classes : list of list of int
        The used sites, those together that no pulse within `Microwaves.slowest_mhz` tells apart.
    """
    microwaves = network.microwaves
    duration = np.full(network.n_sites, np.nan)
    shortest, longest = shortest_sigma_ns(microwaves.rabi_mhz), shortest_sigma_ns(microwaves.slowest_mhz)
    if microwaves.addressing == "local":
        duration[list(used)] = 2 * CUT * shortest
        return duration, [[site] for site in sorted(used)]
    order = sorted(used, key=lambda site: network.frequencies_ghz[site])
    frequency = 1e3 * network.frequencies_ghz[order]
    classes: list[list[int]] = []
    for k, site in enumerate(order):
        gap = np.inf if k == 0 else frequency[k] - frequency[k - 1]
        apart = gap > 0 and selective_sigma_ns(gap, microwaves.crosstalk_limit) <= longest
        if classes and not apart:
            classes[-1].append(site)
        else:
            classes.append([site])
    number = {site: c for c, members in enumerate(classes) for site in members}
    for k, site in enumerate(order):
        gaps = [abs(frequency[k] - frequency[j]) for j in _others(order, number, k)]
        sigma = max([shortest, *(selective_sigma_ns(gap, microwaves.crosstalk_limit) for gap in gaps)])
        duration[site] = 2 * CUT * sigma
    for members in classes:  # one pulse for all of them
        duration[members] = duration[members].max()
    return duration, classes


def _others(order: Sequence[int], number: dict[int, int], k: int) -> list[int]:
    """Return the places in `order` of the nearest sites of other classes below and above."""
    found = []
    for step in (-1, 1):
        j = k + step
        while 0 <= j < len(order) and number[order[j]] == number[order[k]]:
            j += step
        if 0 <= j < len(order):
            found.append(j)
    return found
