"""Which couplers light can tell apart: crosstalk, wavelength classes, pulse energies."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from molecular_qubits.network import optics as light
from molecular_qubits.spins.operators import FloatArray, IntArray

if TYPE_CHECKING:
    import networkx as nx

    from molecular_qubits.network.lattice import Bond, MolecularNetwork


_CHUNK = 1_000_000
"""Pairs of couplers looked at at once."""

_LINE_FIELDS = (
    "absorption_nm", "linewidth_cm1", "extinction_per_m_cm", "isc_time_ns", "isc_yield", "huang_rhys", "vibration_cm1",
)  # fmt: skip


_NEARLY = 0.995
"""Share of the largest probability for which light is enough where the probability wanted is out of reach."""


@lru_cache(maxsize=4096)
def _dose(probability: float, pulse_ns: float, isc_time_ns: float, isc_yield: float) -> float:
    most = light.largest_triplet_probability(pulse_ns, isc_time_ns, isc_yield)
    return light.needed_dose(min(probability, _NEARLY * most), pulse_ns, isc_time_ns, isc_yield)


def _dose_of(bond: Bond, optics: light.Optics) -> float:
    if bond.dose is not None:
        return bond.dose
    return float(_dose(optics.triplet_probability, optics.pulse_ns, bond.isc_time_ns, bond.isc_yield))


def doses(network: MolecularNetwork) -> FloatArray:
    """Return the dose (m,) of each coupler's pulse: its own, or what the probability wanted takes.

    A coupler that cannot reach `Optics.triplet_probability` gets light for 99.5 % of what it can reach.
    """
    return np.array([_dose_of(bond, network.optics) for bond in network.bonds])


def triplets_made(network: MolecularNetwork) -> FloatArray:
    """Return the probability (m,) with which each coupler's own pulse leaves it in its triplet, dead or alive."""
    lines = _lines(network)
    return light.triplet_probability(doses(network), network.optics.pulse_ns, lines["isc_time_ns"], lines["isc_yield"])


def crosstalk(network: MolecularNetwork, lit: list[int] | None = None) -> FloatArray:
    """Return the probability that the pulse for one coupler puts another one into its triplet.

    The pulse is on the origin of the coupler that it is meant for, its spot over it, with the dose of `doses` there.

    Parameters
    ----------
    network
        The network.
    lit
        Couplers whose pulses are wanted; all by default.

    Returns
    -------
    ndarray, shape (len(lit), m)
        Row: coupler that the pulse is meant for. Dead couplers are not excited.
    """
    rows = np.arange(len(network.bonds)) if lit is None else np.asarray(lit, dtype=int)
    if not len(network.bonds) or not len(rows):
        return np.zeros((len(rows), len(network.bonds)))
    chunk = max(1, _CHUNK // len(network.bonds))
    columns = np.arange(len(network.bonds))
    blocks = [
        _crosstalk(network, rows[start : start + chunk, None], columns[None, :]) for start in range(0, len(rows), chunk)
    ]
    return np.concatenate(blocks)


def _crosstalk(network: MolecularNetwork, lit: IntArray, other: IntArray) -> FloatArray:
    """Return the crosstalk from couplers to others, index arrays that broadcast."""
    optics, lines = network.optics, _lines(network)
    origin = light.wavenumber_cm1(lines["absorption_nm"])

    def absorbed(coupler: IntArray, by: IntArray) -> FloatArray:
        overlap = light.line_shape(
            origin[by] - origin[coupler],
            lines["linewidth_cm1"][coupler],
            pulse_ns=optics.pulse_ns,
            huang_rhys=lines["huang_rhys"][coupler],
            vibration_cm1=lines["vibration_cm1"][coupler],
        )
        return np.asarray(lines["extinction_per_m_cm"][coupler] * overlap)

    places = network.bond_positions_nm
    distance = np.linalg.norm(places[lit] - places[other], axis=-1)
    intensity = optics.profile(distance, lines["absorption_nm"][lit])
    dose = doses(network)[lit] * intensity * absorbed(other, lit) / absorbed(lit, lit)
    found = light.triplet_probability(dose, optics.pulse_ns, lines["isc_time_ns"][other], lines["isc_yield"][other])
    return np.asarray(found * np.array([bond.alive for bond in network.bonds])[other])


def _lines(network: MolecularNetwork) -> dict[str, FloatArray]:
    return {name: np.array([getattr(bond, name) for bond in network.bonds]) for name in _LINE_FIELDS}


@dataclass(frozen=True)
class CouplerLight:
    """The pulse of one coupler.

    Attributes
    ----------
    spot_nm
        Full width at half maximum of the spot.
    dose
        Mean number of absorptions that the coupler would have if it could not be used up.
    fluence_j_per_cm2, energy_j
        Energy per area in the middle of the spot, and in all.
    quench_energy_j
        Energy of the pulse that quenches the triplet, see `molecular_qubits.network.optics.QUENCH_DOSE`.
    switching_ns
        When the triplet is there with all but a hundredth of the probability wanted, from the begin of the pulse.
    birth_spread_ns
        Standard deviation of the time at which the triplet is born: it must be below the jitter of the gate.
    warming_k
        Rise of temperature 1 nm away 10 ps later, if the whole photon becomes heat.
    """

    spot_nm: float
    dose: float
    fluence_j_per_cm2: float
    energy_j: float
    quench_energy_j: float
    switching_ns: float
    birth_spread_ns: float
    warming_k: float


def light_of(network: MolecularNetwork, bond: int) -> CouplerLight:
    """Return what it takes to light a coupler."""
    coupler, optics = network.bonds[bond], network.optics
    dose = _dose_of(coupler, optics)
    overlap = float(
        light.line_shape(
            0.0,
            coupler.linewidth_cm1,
            pulse_ns=optics.pulse_ns,
            huang_rhys=coupler.huang_rhys,
            vibration_cm1=coupler.vibration_cm1,
        )
    )
    fluence = light.peak_fluence_j_per_cm2(dose, coupler.extinction_per_m_cm, coupler.absorption_nm, overlap)
    quench = light.peak_fluence_j_per_cm2(light.QUENCH_DOSE, coupler.quench_extinction_per_m_cm, coupler.quench_nm)
    times, born = light.triplet_birth(dose, optics.pulse_ns, coupler.isc_time_ns, coupler.isc_yield)
    weights = np.diff(born) / born[-1]
    middles = (times[1:] + times[:-1]) / 2
    mean = float(weights @ middles)
    return CouplerLight(
        spot_nm=optics.spot_nm(coupler.absorption_nm),
        dose=dose,
        fluence_j_per_cm2=fluence,
        energy_j=light.pulse_energy_j(fluence, optics.spot_area_nm2(coupler.absorption_nm)),
        quench_energy_j=light.pulse_energy_j(quench, optics.spot_area_nm2(coupler.quench_nm)),
        switching_ns=float(np.interp(0.99 * born[-1], born, times)),
        birth_spread_ns=float(np.sqrt(weights @ (middles - mean) ** 2)),
        warming_k=float(light.temperature_rise_k(light.photon_energy_j(coupler.absorption_nm), 1.0, 1e-2)),
    )


def conflict_graph(network: MolecularNetwork) -> nx.Graph:
    """Return the graph of the couplers that one wavelength could not light apart.

    Two couplers are joined if a pulse for one, at a wavelength that both absorb as their own, would put the other into
    its triplet with more than a quarter of the crosstalk limit (so that some pulses may go on at once).
    """
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(len(network.bonds)))
    if len(network.bonds) < 2:
        return graph
    optics, lines = network.optics, _lines(network)
    widest = optics.longest_nm  # the spot is the largest there
    allowed = optics.crosstalk_limit / 4
    harmless = (
        np.array([_dose(allowed, optics.pulse_ns, bond.isc_time_ns, bond.isc_yield) for bond in network.bonds])
        / lines["extinction_per_m_cm"]
    )
    strength = doses(network) / lines["extinction_per_m_cm"]
    ratio = float(harmless.min() / strength.max())
    if ratio >= 1:
        return graph
    reach = 1.0
    while optics.profile(reach, widest) > ratio:
        reach *= 1.1
    pairs = cKDTree(network.bond_positions_nm).query_pairs(reach, output_type="ndarray")
    distance = np.linalg.norm(np.diff(network.bond_positions_nm[pairs], axis=1)[:, 0], axis=-1)
    intensity = optics.profile(distance, widest)
    first, second = pairs.T
    joined = (intensity * strength[first] > harmless[second]) | (intensity * strength[second] > harmless[first])
    graph.add_edges_from(pairs[joined].tolist())
    return graph


def available_classes(network: MolecularNetwork) -> int:
    """Return how many wavelengths the range holds without crosstalk beyond an eighth of the limit on one spot."""
    return len(wavelengths_nm(network))


def wavelengths_nm(network: MolecularNetwork) -> FloatArray:
    """Return the wavelengths of the classes, as many as the range holds, the longest first.

    Neighbours are spaced so that the tail of the broadest line, folded with the pulse, stays below the limit. The
    vibrational progression is not looked at: `crosstalk` shows what it does.
    """
    optics = network.optics
    width = max(bond.linewidth_cm1 for bond in network.bonds)
    folded = float(np.hypot(width, light.pulse_bandwidth_cm1(optics.pulse_ns)))
    allowed = optics.crosstalk_limit / 8 / float(np.max(doses(network)))
    spacing = folded * np.sqrt(np.log(1 / allowed) / (4 * np.log(2)))
    low, high = (float(light.wavenumber_cm1(value)) for value in (optics.longest_nm, optics.shortest_nm))
    return np.asarray(1e7 / (low + spacing * np.arange(int((high - low) / spacing) + 1)))


def colour_classes(network: MolecularNetwork, taken: Sequence[set[int]] | None = None) -> list[int]:
    """Return a class for every coupler such that couplers in conflict differ: DSATUR on the conflict graph.

    D. Brelaz, Commun. ACM 22, 251 (1979).

    Parameters
    ----------
    network
        The network.
    taken
        For each coupler the classes that it may not have; none by default.
    """
    near = conflict_graph(network).adj
    free = set(range(len(network.bonds)))
    seen: list[set[int]] = [set() for _ in network.bonds] if taken is None else [set(classes) for classes in taken]
    colours = [-1] * len(network.bonds)
    heap = [(-len(seen[bond]), -len(near[bond]), bond) for bond in free]
    heapq.heapify(heap)
    while free:
        saturation, _, bond = heapq.heappop(heap)
        if bond not in free or -saturation != len(seen[bond]):
            continue
        free.remove(bond)
        colours[bond] = next(colour for colour in itertools.count() if colour not in seen[bond])
        for other in near[bond]:
            if other in free and colours[bond] not in seen[other]:
                seen[other].add(colours[bond])
                heapq.heappush(heap, (-len(seen[other]), -len(near[other]), other))
    return colours


def assign_wavelengths(network: MolecularNetwork, fixed: Sequence[int] = ()) -> MolecularNetwork:
    """Return the network with wavelength classes, and so absorption lines, given to its couplers.

    If more classes are needed than the range holds, classes share wavelengths: then some couplers cannot be lit alone,
    which `crosstalk` shows and the compiler refuses.

    Parameters
    ----------
    network
        The network.
    fixed
        Couplers that keep their lines: each line is a class of its own, after those that are given. Couplers in
        conflict with them do not get lines that are as near as neighbouring classes are to each other.
    """
    lines, kept = wavelengths_nm(network), set(fixed)
    own = sorted({network.bonds[bond].absorption_nm for bond in kept}, reverse=True)
    taken: list[set[int]] = [set() for _ in network.bonds]
    if kept and len(kept) < len(network.bonds):
        near, origins = conflict_graph(network).adj, light.wavenumber_cm1(lines)
        spacing = float(origins[1] - origins[0]) if len(lines) > 1 else np.inf
        for one in kept:
            apart = np.abs(origins - light.wavenumber_cm1(network.bonds[one].absorption_nm))
            for other in near[one]:
                taken[other].update(np.flatnonzero(apart < spacing).tolist())
    classes = colour_classes(network, taken)
    update: list[dict[str, float]] = []
    for number, bond in enumerate(network.bonds):
        if number in kept:
            update.append({"wavelength_class": len(lines) + own.index(bond.absorption_nm)})
        else:
            kind = classes[number] % len(lines)
            update.append({"wavelength_class": kind, "absorption_nm": float(lines[kind])})
    if len(kept) == len(network.bonds):
        update = [{"wavelength_class": own.index(bond.absorption_nm)} for bond in network.bonds]
    bonds = tuple(bond.model_copy(update=new) for bond, new in zip(network.bonds, update, strict=True))
    return network.model_copy(update={"bonds": bonds})


def not_alone(network: MolecularNetwork) -> list[tuple[int, int, float]]:
    """Return the pairs (meant, also lit, probability) of living couplers beyond the crosstalk limit."""
    found = crosstalk(network)
    np.fill_diagonal(found, 0.0)
    found[[not bond.alive for bond in network.bonds]] = 0.0
    beyond = np.argwhere(found > network.optics.crosstalk_limit)
    return [(int(a), int(b), float(found[a, b])) for a, b in beyond]
