"""Logical errors of a code's memory: minimum-weight perfect matching on the graph of its errors.

Matching by blossoms (networkx) is exact; PyMatching, where it is installed, does the same faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from molecular_qubits.spins.operators import FloatArray
from shared.progress import track

if TYPE_CHECKING:
    import stim

Decoder = Literal["auto", "networkx", "pymatching"]


@dataclass(frozen=True)
class LogicalError:
    """How often a memory fails.

    Attributes
    ----------
    shots, failures
        Of the samples.
    rounds
        Of each.
    """

    shots: int
    failures: int
    rounds: int

    @property
    def per_shot(self) -> float:
        """Share of the shots in which the logical bit is wrong after decoding."""
        return self.failures / self.shots

    @property
    def per_round(self) -> float:
        """Probability e of a logical flip in a round, (1 - 2 e)^rounds = 1 - 2 per_shot; 1/2 where nothing is kept."""
        return self._rate(self.per_shot)

    @property
    def interval(self) -> tuple[float, float]:
        """Interval (Wilson, 95 %) of `per_round`."""
        z, n, p = 1.959963984540054, self.shots, self.per_shot
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        return self._rate(middle - half), self._rate(middle + half)

    def _rate(self, probability: float) -> float:
        left = max(1 - 2 * probability, 0.0)
        return float((1 - left ** (1 / self.rounds)) / 2)


def logical_error(
    circuit: stim.Circuit, rounds: int, shots: int, seed: int = 0, decoder: Decoder = "auto"
) -> LogicalError:
    """Sample a memory, decode, and count the failures.

    Parameters
    ----------
    circuit
        With detectors and one observable (`molecular_qubits.network.codes.CodeMemory.circuit`).
    rounds, shots, seed
        Of the memory and of the sampling.
    decoder
        ``"auto"``: PyMatching where it is installed, else networkx.

    Raises
    ------
    ValueError
        If PyMatching is asked for and not installed.
    """
    import importlib.util

    if shots < 1:
        raise ValueError(f"Argument `shots` must be at least 1, but was {shots}.")
    there = importlib.util.find_spec("pymatching") is not None
    if decoder not in ("auto", "networkx", "pymatching"):
        raise ValueError(f"Argument `decoder` must be auto, networkx or pymatching, but was {decoder!r}.")
    if decoder == "pymatching" and not there:
        raise ValueError("Argument `decoder` must not be 'pymatching' where it is not installed; use 'networkx'.")
    model = circuit.detector_error_model(decompose_errors=True, approximate_disjoint_errors=True)
    events, flips = circuit.compile_detector_sampler(seed=seed).sample(shots, separate_observables=True)
    if decoder != "networkx" and there:
        import pymatching

        guesses = pymatching.Matching.from_detector_error_model(model).decode_batch(events)[:, 0]
    else:
        guesses = MatchingGraph.from_model(model).decode(events)
    return LogicalError(shots, int(np.sum(guesses.astype(bool) != flips[:, 0])), rounds)


@dataclass(frozen=True)
class MatchingGraph:
    """Detectors joined by errors, each pair by its cheapest chain of them.

    Attributes
    ----------
    distance
        Weight of the cheapest chain between two detectors, the last being the boundary, (n + 1, n + 1).
    parity
        Whether that chain flips the observable, bool (n + 1, n + 1).
    """

    distance: FloatArray
    parity: np.ndarray

    @classmethod
    def from_model(cls, model: stim.DetectorErrorModel) -> MatchingGraph:
        """Return the graph of an error model whose errors are decomposed into edges."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import dijkstra

        n = model.num_detectors
        chances: dict[tuple[int, int, bool], float] = {}
        for instruction in model.flattened():
            if instruction.type != "error":
                continue
            p = instruction.args_copy()[0]
            for part in _parts(instruction.targets_copy()):
                ends = [t.val for t in part if t.is_relative_detector_id()]
                flips = sum(t.is_logical_observable_id() for t in part) % 2 == 1
                if not 1 <= len(ends) <= 2:
                    continue
                key = (min(ends), max(ends) if len(ends) == 2 else n, flips)
                before = chances.get(key, 0.0)
                chances[key] = before * (1 - p) + p * (1 - before)
        best: dict[tuple[int, int], tuple[float, bool]] = {}
        for (a, b, flips), p in chances.items():
            weight = float(np.log((1 - min(p, 0.4999)) / max(min(p, 0.4999), 1e-15)))
            if weight < best.get((a, b), (np.inf, False))[0]:
                best[a, b] = (weight, flips)
        rows, columns = np.array(list(best), dtype=int).reshape(-1, 2).T
        weights = np.array([weight for weight, _ in best.values()])
        # in a graph of two layers, one for each parity, a chain is a path from one copy to the other
        flips_ = np.array([flips for _, flips in best.values()], dtype=bool)
        size = n + 1
        doubled = csr_array(
            (
                np.concatenate([weights, weights]),
                (
                    np.concatenate([rows, rows + size]),
                    np.concatenate([columns + size * flips_, columns + size * ~flips_]),
                ),
            ),
            shape=(2 * size, 2 * size),
        )
        found = dijkstra(doubled, directed=False, indices=np.arange(size))
        straight, crossed = found[:, :size], found[:, size:]
        return cls(np.minimum(straight, crossed), crossed < straight)

    def decode(self, events: np.ndarray) -> np.ndarray:
        """Return whether the observable is likely flipped, bool (shots,), from detection events (shots, n)."""
        rows, place = np.unique(events, axis=0, return_inverse=True)
        guesses = np.array([self._one(np.flatnonzero(row)) for row in track(rows, "decoding")], dtype=bool)
        return guesses[place.reshape(-1)]

    def _one(self, defects: np.ndarray) -> bool:
        """Return the parity of the cheapest chains that end at the defects.

        All defects at the boundary cost the sum of their ways there; joining two gains what that saves. So the cheapest
        set of chains is the matching of the largest gain, in each part of the graph of positive gains on its own.
        """
        import networkx as nx

        boundary = len(self.distance) - 1
        alone = self.distance[defects, boundary]
        gain = alone[:, None] + alone[None, :] - self.distance[np.ix_(defects, defects)]
        graph = nx.Graph()
        graph.add_weighted_edges_from((int(i), int(j), gain[i, j]) for i, j in np.argwhere(np.triu(gain > 0, 1)))
        guess = bool(self.parity[defects, boundary].sum() % 2)
        for part in nx.connected_components(graph):
            for i, j in nx.max_weight_matching(graph.subgraph(part)):
                a, b = defects[i], defects[j]
                guess ^= bool(self.parity[a, b]) ^ bool(self.parity[a, boundary]) ^ bool(self.parity[b, boundary])
        return guess


def _parts(targets: Sequence[Any]) -> list[list[Any]]:
    parts: list[list[Any]] = [[]]
    for target in targets:
        if target.is_separator():
            parts.append([])
        else:
            parts[-1].append(target)
    return parts
