"""Where sites and bonds lie: square, honeycomb and chain lattices, and graphs of the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.spins.checks import finite_number, positive
from molecular_qubits.spins.operators import FloatArray

if TYPE_CHECKING:
    import networkx as nx

Bonds = list[tuple[int, int]]


def square(rows: int, columns: int, spacing_nm: float) -> tuple[FloatArray, Bonds]:
    """Return the places (n, 2) in nm and the bonds of a square lattice; site = row * columns + column.

    Raises
    ------
    ValueError
        If a size is below 1 or the spacing not above 0.
    """
    rows, columns, spacing = whole(rows, "rows"), whole(columns, "columns"), positive(spacing_nm, "spacing_nm")
    places = spacing * np.array([(column, row) for row in range(rows) for column in range(columns)], dtype=float)
    bonds = [(s, s + 1) for s in range(rows * columns) if (s + 1) % columns]
    bonds += [(s, s + columns) for s in range((rows - 1) * columns)]
    return places, sorted(bonds)


def chain(n_sites: int, spacing_nm: float) -> tuple[FloatArray, Bonds]:
    """Return the places (n, 2) in nm and the bonds of a chain along x."""
    return square(1, whole(n_sites, "n_sites"), spacing_nm)


def honeycomb(rows: int, columns: int, spacing_nm: float) -> tuple[FloatArray, Bonds]:
    """Return the places (n, 2) in nm and the bonds of rows x columns hexagons."""
    import networkx as nx

    rows, columns, spacing = whole(rows, "rows"), whole(columns, "columns"), positive(spacing_nm, "spacing_nm")
    return free(nx.hexagonal_lattice_graph(rows, columns), spacing)


def free(
    graph: nx.Graph, spacing_nm: float, positions_nm: Mapping[Any, Sequence[float]] | None = None
) -> tuple[FloatArray, Bonds]:
    """Return the places (n, 2) in nm and the bonds of a graph, sites in the order of its nodes.

    Parameters
    ----------
    graph
        Undirected, without loops and double bonds.
    spacing_nm
        Mean length of the bonds when the places are not given in nm: those of the node attribute ``pos``, else a
        drawing in which graph distances are kept as well as possible (Kamada-Kawai), are scaled to it.
    positions_nm
        Place of every node, used as it is.

    Raises
    ------
    ValueError
        If the graph is directed, has loops or no nodes, or a place is missing or not two finite numbers.
    """
    import networkx as nx

    spacing = positive(spacing_nm, "spacing_nm")
    if graph.is_directed() or graph.is_multigraph():
        raise ValueError(f"Argument `graph` must be an undirected simple graph, but was {type(graph).__name__}.")
    nodes = list(graph)
    if not nodes:
        raise ValueError("Argument `graph` must have nodes, but has none.")
    number = {node: site for site, node in enumerate(nodes)}
    loops = list(nx.selfloop_edges(graph))
    if loops:
        raise ValueError(f"Argument `graph` must have no loops, but has one at {loops[0][0]!r}.")
    bonds = sorted(tuple(sorted((number[a], number[b]))) for a, b in graph.edges)
    given: Mapping[Any, Any] | None = positions_nm
    scaled = given is None
    if given is None:
        given = nx.get_node_attributes(graph, "pos")
        if len(given) < len(nodes):
            given = nx.kamada_kawai_layout(graph)
    missing = [node for node in nodes if node not in given]
    if missing:
        raise ValueError(f"Argument `positions_nm` must place every node, but lacks {missing[0]!r}.")
    places = np.array([[finite_number(x, "positions_nm") for x in given[node]] for node in nodes])
    if places.shape != (len(nodes), 2):
        raise ValueError(f"Argument `positions_nm` must hold 2 numbers a node, but has shape {places.shape}.")
    if scaled and bonds:
        ends = places[np.array(bonds)]
        places = places * spacing / float(np.mean(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)))
    return places, bonds  # type: ignore[return-value]


def alternate(bonds: Bonds, n_sites: int, kinds: int) -> list[int]:
    """Return which of several kinds each site gets, so that near sites differ as much as the number of kinds allows.

    Sites are taken in order; each gets the kind that is rarest among its neighbours, then among theirs, then overall.
    """
    near: list[set[int]] = [set() for _ in range(n_sites)]
    for a, b in bonds:
        near[a].add(b)
        near[b].add(a)
    chosen: list[int] = []
    counts = [0] * kinds
    for site in range(n_sites):
        first = {other for other in near[site] if other < site}
        second = {far for other in near[site] for far in near[other] if far < site} - first

        def cost(kind: int, first: set[int] = first, second: set[int] = second) -> tuple[int, int, int, int]:
            return (
                sum(chosen[other] == kind for other in first),
                sum(chosen[other] == kind for other in second) if kinds > 2 else 0,
                counts[kind],
                kind,
            )

        best = min(range(kinds), key=cost)
        chosen.append(best)
        counts[best] += 1
    return chosen


def telling_direction(positions_nm: FloatArray, length: float) -> tuple[float, float]:
    """Return the vector of a length along which the two sites that are nearest in projection are the farthest apart."""
    angles = np.linspace(0, np.pi, 1440, endpoint=False)
    chunks = np.array_split(angles, 1 + len(angles) * len(positions_nm) // 1_000_000)
    gaps = [
        np.diff(np.sort(positions_nm @ np.array([np.cos(part), np.sin(part)]), axis=0), axis=0).min(
            axis=0, initial=np.inf
        )
        for part in chunks
    ]
    best = angles[int(np.argmax(np.round(np.concatenate(gaps), 9)))]
    return float(length * np.cos(best)), float(length * np.sin(best))


def whole(value: Any, name: str) -> int:
    """Return `value` as a whole number of at least 1, or raise a `ValueError` that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"Argument `{name}` must be a whole number of at least 1, but was {value!r}.")
    return int(value)
