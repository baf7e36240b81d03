"""Memories of error-correcting codes on a network: repetition and rotated surface code, round by round, for stim.

The checks run as stim's own circuits do, with each CNOT as a CZ between two pulses by pi/2 on its target (those that
meet cancel). What pulses, couplers, waiting, readout and reset do wrong is the network's channel, turned into Paulis.
The dark exchange of a pair acts when either of its radicals is next touched, for all the time since, also that of
pulses and readout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from molecular_qubits.control.fidelity import TARGETS
from molecular_qubits.network import transfer
from molecular_qubits.network.noise import GateChannels, NoiseSettings
from molecular_qubits.spins.operators import FloatArray

if TYPE_CHECKING:
    import stim

    from molecular_qubits.network.lattice import MolecularNetwork

Code = Literal["repetition", "surface"]


@dataclass(frozen=True)
class CodeMemory:
    """A code, the network under it, and its noisy circuit.

    Attributes
    ----------
    code, distance, rounds
        ``"repetition"`` keeps a bit against flips, ``"surface"`` a qubit against all errors (of which the memory of |0>
        is watched).
    network
        One site for each data and check qubit, one bond for each pair that a check joins.
    cycle_ns
        Length of one round.
    circuit
        With detectors and the observable.
    """

    code: Code
    distance: int
    rounds: int
    network: MolecularNetwork
    cycle_ns: float
    circuit: stim.Circuit


def template(code: Code, distance: int, rounds: int) -> stim.Circuit:
    """Return stim's circuit of a memory without noise, loops written out.

    Raises
    ------
    ValueError
        If the code is unknown, the distance is not 3, 5, 7, ... or there are no rounds.
    """
    import stim

    names = {"repetition": "repetition_code:memory", "surface": "surface_code:rotated_memory_z"}
    if code not in names:
        raise ValueError(f"Argument `code` must be one of {', '.join(names)}, but was {code!r}.")
    if distance < 3 or distance % 2 == 0:
        raise ValueError(f"Argument `distance` must be odd and at least 3, but was {distance}.")
    if rounds < 1:
        raise ValueError(f"Argument `rounds` must be at least 1, but was {rounds}.")
    return stim.Circuit.generated(names[code], distance=distance, rounds=rounds).flattened()


def code_network(code: Code, distance: int, spacing_nm: float = 4.0, **settings: Any) -> MolecularNetwork:
    """Return a network for a code: neighbours of the code's lattice `spacing_nm` apart.

    Parameters
    ----------
    code, distance
        As in `template`.
    spacing_nm
        Between a data qubit and a check that reads it.
    **settings
        As in `MolecularNetwork.place`.
    """
    import networkx as nx

    from molecular_qubits.network.lattice import MolecularNetwork

    circuit = template(code, distance, 1)
    number = _numbers(circuit)
    graph = nx.Graph()
    graph.add_nodes_from(range(len(number)))
    for instruction in circuit:
        if instruction.name == "CX":
            graph.add_edges_from((number[a], number[b]) for a, b in _pairs(instruction))
    coordinates = circuit.get_final_qubit_coordinates()
    turn = np.array([[1, -1], [1, 1]]) / 2 if code == "surface" else np.eye(2)  # checks lie along the diagonals
    places = {
        place: tuple(spacing_nm * turn @ np.array([*coordinates.get(qubit, [qubit]), 0.0])[:2])
        for qubit, place in number.items()
    }
    return MolecularNetwork.from_graph(graph, spacing_nm, places, **settings)


def code_memory(
    code: Code,
    distance: int,
    *,
    rounds: int | None = None,
    network: MolecularNetwork | None = None,
    noise: NoiseSettings | None = None,
    scale: float = 1.0,
) -> CodeMemory:
    """Return a memory with the noise of a network.

    Parameters
    ----------
    code, distance
        As in `template`.
    rounds
        As many as the distance by default.
    network
        From `code_network`; its defaults if not given. Its entangling gate must be CZ.
    noise
        As in `molecular_qubits.run_circuit`.
    scale
        Factor on the probability of every error: 1 is the network as it is, 0.1 one ten times better in all respects.

    Raises
    ------
    ValueError
        If the network does not fit the code or `scale` is negative.
    """
    rounds = distance if rounds is None else rounds
    ideal = template(code, distance, rounds)
    if network is None:
        network = code_network(code, distance)
    if not 0 <= scale < np.inf:
        raise ValueError(f"Argument `scale` must not be negative, but was {scale}.")
    if network.entangler != "cz":
        raise ValueError(f"Argument `network` must have the entangler 'cz' for a code, but has {network.entangler!r}.")
    numbers = _numbers(ideal)
    if network.n_sites != len(numbers):
        raise ValueError(f"Argument `network` must have {len(numbers)} sites, but has {network.n_sites}.")
    writer = _Writer(network, GateChannels.from_network(network, noise), numbers, scale)
    circuit, total = writer.write(ideal)
    return CodeMemory(code, distance, rounds, network, total / rounds, circuit)


def _numbers(circuit: stim.Circuit) -> dict[int, int]:
    used = sorted(
        {
            target.value
            for instruction in circuit
            if instruction.name in ("R", "RX", "M", "MX", "MR", "CX", "H")
            for target in instruction.targets_copy()
        }
    )
    return {qubit: number for number, qubit in enumerate(used)}


def _pairs(instruction: Any) -> list[tuple[int, int]]:
    values = [target.value for target in instruction.targets_copy()]
    return list(zip(values[::2], values[1::2], strict=True))


class _Writer:
    """Writes a memory step by step, all sites waiting for the longest operation of a step."""

    def __init__(
        self, network: MolecularNetwork, channels: GateChannels, numbers: dict[int, int], scale: float
    ) -> None:
        from molecular_qubits.network.pulses import rotation_times

        self.network, self.channels, self.numbers, self.scale = network, channels, numbers, scale
        turns, _ = rotation_times(network, range(network.n_sites))
        self.turn_ns = np.asarray(turns, dtype=float)
        self.read_ns = network.readout.duration_ns
        right = channels.confusion[:, [0, 1], [0, 1]].mean(axis=1)
        self.misread = np.clip(scale * (1 - right), 0, 0.5)
        self.misset = np.clip(scale * (1 - channels.initial[:, 3]) / 2, 0, 0.5)
        self.lines: list[str] = []
        self.waiting: set[int] = set()
        self.total_ns = 0.0
        self._since = {
            (site, other): 0.0 for site, others in channels.dark_neighbours.items() for other in others if site < other
        }
        self._kept: dict[tuple[Any, ...], FloatArray] = {}

    def write(self, ideal: stim.Circuit) -> tuple[stim.Circuit, float]:
        """Return the noisy circuit and its length."""
        import stim

        for instruction in ideal:
            name = instruction.name
            sites = [self.numbers[t.value] for t in instruction.targets_copy()] if name in _ACTING else []
            if name == "CX":
                self._entangle([(self.numbers[a], self.numbers[b]) for a, b in _pairs(instruction)])
            elif name == "H":
                self.waiting ^= set(sites)
            elif name == "R":
                self.lines.append(f"R {_join(sites)}")
                self._flip(sites, self.misset)
            elif name in ("M", "MR"):
                self._turn(sorted(self.waiting & set(sites)))
                self._exchange(sites)
                self.lines += [f"{name}({float(self.misread[site])!r}) {site}" for site in sites]
                if name == "MR":
                    self._flip(sites, self.misset)
                    self._idle([site for site in range(self.network.n_sites) if site not in sites], self.read_ns)
                    self.total_ns += self.read_ns
            elif name == "TICK":
                self.lines.append("TICK")
            elif name == "QUBIT_COORDS":
                where = ", ".join(str(value) for value in instruction.gate_args_copy())
                targets = [t.value for t in instruction.targets_copy()]
                self.lines += [f"QUBIT_COORDS({where}) {self.numbers[q]}" for q in targets if q in self.numbers]
            elif name in ("DETECTOR", "OBSERVABLE_INCLUDE", "SHIFT_COORDS"):
                self.lines.append(str(instruction))
            else:
                raise ValueError(f"The template must not hold {name}.")
        return stim.Circuit("\n".join(self.lines)), self.total_ns

    def _entangle(self, pairs: list[tuple[int, int]]) -> None:
        """CNOTs: what the targets wait for meets the pulse before the CZ, the pulse after it waits."""
        targets = {second for _, second in pairs}
        controls = {first for first, _ in pairs}
        self._turn(sorted((controls & self.waiting) | (targets - self.waiting)))
        self.waiting -= targets
        self._exchange({site for pair in pairs for site in pair})
        longest = max(self.network.coupler_ns(self._bond(pair)) for pair in pairs)
        stray: dict[tuple[int, int], float] = {}
        for first, second in pairs:
            self.lines.append(f"CZ {first} {second}")
            self._pauli((first, second), ("cz", first, second), lambda a=first, b=second: self._cz(a, b, longest))
            for other, probability in self.channels.lit_by_accident(first, second).items():
                stray[other] = stray.get(other, 0.0) + probability
        hold = self.channels.gate(*pairs[0]).hold_ns
        for other, probability in stray.items():
            key = ("lit", *other, probability)
            self._pauli(other, key, lambda o=other, p=probability: self.channels.lit(o, min(p, 1.0), hold))
        active = {site for pair in pairs for site in pair}
        self._idle([site for site in range(self.network.n_sites) if site not in active], longest)
        self.total_ns += longest
        lit = {(min(pair), max(pair)) for pair in pairs}
        self._since |= dict.fromkeys(lit & self._since.keys(), self.total_ns)
        self.waiting |= targets

    def _bond(self, pair: tuple[int, int]) -> int:
        bond = self.network.bond_between(*pair)
        if bond is None or not self.network.bonds[bond].alive:
            raise ValueError(f"Argument `network` must have a living coupler between sites {pair}, but has none.")
        return bond

    def _cz(self, first: int, second: int, longest_ns: float) -> FloatArray:
        """Return what is wrong with a CZ: the channel after undoing the ideal gate."""
        ideal = transfer.from_unitary(TARGETS["cz"])
        return np.asarray(self.channels.coupler(first, second, longest_ns) @ ideal.T)

    def _turn(self, sites: list[int]) -> None:
        """Pulses by pi/2 on some sites at once; the others wait."""
        if not sites:
            return
        self._exchange(sites)
        self.lines.append(f"H {_join(sites)}")
        self.waiting -= set(sites)
        longest = float(self.turn_ns[sites].max())
        along, across = np.ones(self.network.n_sites), np.ones(self.network.n_sites)
        for site in sites:
            self._pauli((site,), ("turn", site, longest), lambda s=site: self._wrong_turn(s, longest))
            flips = self.channels.bystander_flips(site, np.pi / 2, float(self.turn_ns[site]))
            if flips is not None:
                flips = np.where(np.isin(np.arange(len(flips)), sites) & (flips > 0.25), 0.0, flips)
                along, across = along * (1 - 2 * flips), across * (1 - flips)
        for site in range(self.network.n_sites):
            if along[site] < 1 - 1e-9:
                found = np.diag([1.0, across[site], across[site], along[site]])
                self._pauli((site,), None, lambda f=found: f)
        self._idle([site for site in range(self.network.n_sites) if site not in sites], longest)
        self.total_ns += longest

    def _wrong_turn(self, site: int, longest_ns: float) -> FloatArray:
        own = float(self.turn_ns[site])
        found = self.channels.rotation(site, np.pi / 2, np.pi / 2, own)
        ideal = transfer.driven(np.pi / 2, np.pi / 2, own, 1e30, 1e30)
        return np.asarray(self.channels.idle(site, longest_ns - own) @ found @ ideal.T)

    def _exchange(self, sites: Iterable[int]) -> None:
        """Let the dark exchange of some sites act for the time since it last did."""
        touched = set(sites)
        for (first, second), since in self._since.items():
            time = round(self.total_ns - since, 9)
            if time > 0 and touched & {first, second}:
                key = ("dark", first, second, time)
                self._pauli((first, second), key, lambda a=first, b=second, t=time: self.channels.dark(a, b, 0.0, t))
                self._since[first, second] = self.total_ns

    def _idle(self, sites: Iterable[int], time_ns: float) -> None:
        for site in sites:
            self._pauli((site,), ("idle", site, time_ns), lambda s=site: self.channels.idle(s, time_ns))

    def _flip(self, sites: Iterable[int], probabilities: FloatArray) -> None:
        self.lines += [f"X_ERROR({float(probabilities[s])!r}) {s}" for s in sites if probabilities[s] > 0]

    def _pauli(self, sites: tuple[int, ...], key: tuple[Any, ...] | None, make: Any) -> None:
        if key is None or key not in self._kept:
            errors = self.scale * transfer.twirled(make())[1:]
            errors /= max(1.0, errors.sum() / 0.999)
            if key is not None:
                self._kept[key] = errors
        else:
            errors = self._kept[key]
        if errors.sum() > 1e-12:
            numbers = ",".join(repr(float(p)) for p in errors)
            self.lines.append(f"PAULI_CHANNEL_{len(sites)}({numbers}) {_join(sites)}")


_ACTING = ("R", "M", "MR", "CX", "H")


def _join(sites: Iterable[int]) -> str:
    return " ".join(map(str, sites))
