"""Radicals and couplers with all their levels: the exact master equation on the elements that light leaves.

Light and decay move couplers between S0, S1 and T by rates, so that there are no coherences between their electronic
levels: the density matrix is one block for each set of levels, 7,744 elements for three radicals and two couplers in
place of 40,000. Everything is in the frames of the radicals, with the triplet's axis along the field. The exchange
through a coupler that gets no light turns in these frames: `LevelModel.turn_pair` takes what it does in an interval.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array, kron
from scipy.sparse import eye_array as eye

from molecular_qubits.network.coupler_gate import CouplerNoise
from molecular_qubits.spins.operators import ComplexArray, FloatArray, embed, spin_matrices
from molecular_qubits.units import cm1_to_rad_per_ns

SIZES = {"S0": 1, "S1": 1, "T": 3}
DENSE = 200
"""Most elements for which the exponential of the generator is a matrix that is kept."""

NEGLIGIBLE = 1e-10
"""Levels of the couplers that are less probable than this are left out of larger models, interval by interval."""

KEPT = 4
"""Most generators that are kept of larger models."""


@dataclass(frozen=True)
class LightSwitch:
    """How light moves a coupler between its levels.

    Attributes
    ----------
    pump_rate_per_ns
        Rate S0 -> S1, and back, while the pump is on.
    quench_rate_per_ns
        Rate T -> S0 while the quenching light is on.
    pulse_ns
        Length of both pulses.
    isc_time_ns, isc_yield
        Lifetime of S1, and the share of it that goes to T; the rest goes back to S0.
    """

    pump_rate_per_ns: float = 60_000.0
    quench_rate_per_ns: float = 12_000.0
    pulse_ns: float = 1e-3
    isc_time_ns: float = 1e-4
    isc_yield: float = 1.0


@dataclass(frozen=True)
class Segment:
    """What is on during an interval.

    Attributes
    ----------
    duration_ns
        Its length.
    drives
        For each radical that is driven its Rabi frequency (rad/ns) and phase.
    light
        For each coupler in its gate ``"pump"``, ``"hold"`` (no light, triplet there) or ``"quench"``. Its two radicals
        are in one frame then, with the difference of their resonances; the exchange of those of others is left out.
    """

    duration_ns: float
    drives: tuple[tuple[int, float, float], ...] = ()
    light: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class LevelModel:
    """Radicals with couplers between them.

    Attributes
    ----------
    relaxation_ns
        (T1, T2, equilibrium polarisation) of each radical.
    couplers
        For each coupler its two radicals, its chemistry (of which yield, jitter and spread are not used: they follow
        from the light) and its light.
    """

    relaxation_ns: tuple[tuple[float, float, float], ...]
    couplers: tuple[tuple[tuple[int, int], CouplerNoise, LightSwitch], ...]
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def n_radicals(self) -> int:
        """Number of radicals."""
        return len(self.relaxation_ns)

    @cached_property
    def configurations(self) -> list[tuple[str, ...]]:
        """Electronic levels of the couplers, one entry for each block."""
        return list(itertools.product(SIZES, repeat=len(self.couplers)))

    @cached_property
    def sizes(self) -> list[int]:
        """Number of states of each block."""
        spins = 2**self.n_radicals
        return [spins * int(np.prod([SIZES[level] for level in c], initial=1)) for c in self.configurations]

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where the elements of each block begin, and their number at the end."""
        return np.concatenate([[0], np.cumsum([size**2 for size in self.sizes])])

    @property
    def n_elements(self) -> int:
        """Number of elements of the density matrix that can be nonzero."""
        return int(self.offsets[-1])

    def _dims(self, configuration: tuple[str, ...]) -> tuple[int, ...]:
        return (2,) * self.n_radicals + tuple(SIZES[level] for level in configuration)

    def start(self, radicals: ComplexArray) -> ComplexArray:
        """Return the elements of states with all couplers dark, (..., n), from those of the radicals (..., d, d)."""
        radicals = np.asarray(radicals, dtype=complex)
        found = np.zeros((*radicals.shape[:-2], self.n_elements), dtype=complex)
        found[..., : self.sizes[0] ** 2] = radicals.reshape(*radicals.shape[:-2], -1)
        return found

    def radicals(self, elements: ComplexArray) -> ComplexArray:
        """Return the state of the radicals (..., d, d), the couplers traced out."""
        d = 2**self.n_radicals
        found = np.zeros((*elements.shape[:-1], d, d), dtype=complex)
        for block, size in enumerate(self.sizes):
            inner = size // d
            part = elements[..., self.offsets[block] : self.offsets[block + 1]]
            found += np.einsum("...aibi->...ab", part.reshape(*elements.shape[:-1], d, inner, d, inner))
        return found

    def dark_probability(self, elements: ComplexArray) -> FloatArray:
        """Return the probability (..., m) that each coupler is in S0."""
        found = np.zeros((*elements.shape[:-1], len(self.couplers)))
        for block, (size, configuration) in enumerate(zip(self.sizes, self.configurations, strict=True)):
            part = elements[..., self.offsets[block] : self.offsets[block + 1]]
            weight = np.einsum("...ii->...", part.reshape(*elements.shape[:-1], size, size)).real
            for number, level in enumerate(configuration):
                if level == "S0":
                    found[..., number] += weight
        return found

    def turn_frames(self, elements: ComplexArray, angles: Mapping[int, float]) -> ComplexArray:
        """Return the elements (..., n) after exp(-i angle S_z) on some radicals."""
        if not any(angles.values()):
            return elements
        found = elements.copy()
        z = np.zeros(2**self.n_radicals)
        for radical, angle in angles.items():
            z += angle * embed(np.diag([0.5, -0.5]), radical, (2,) * self.n_radicals).diagonal().real
        for block, size in enumerate(self.sizes):
            phases = np.exp(-1j * np.repeat(z, size // len(z)))
            factor = np.outer(phases, phases.conj()).ravel()
            found[..., self.offsets[block] : self.offsets[block + 1]] *= factor
        return found

    def turn_pair(self, elements: ComplexArray, pair: tuple[int, int], unitary: ComplexArray) -> ComplexArray:
        """Return the elements (..., n) after a unitary (4, 4) on two radicals."""
        n = self.n_radicals
        whole = np.kron(unitary, np.eye(2 ** (n - 2))).reshape((2,) * (2 * n))
        order = [*pair, *(site for site in range(n) if site not in pair)]
        place = np.argsort(order)
        whole = whole.transpose(*place, *(n + place)).reshape(2**n, 2**n)
        found = np.empty_like(elements)
        for block, size in enumerate(self.sizes):
            part = slice(self.offsets[block], self.offsets[block + 1])
            inner = size // 2**n
            tensor = elements[..., part].reshape(-1, 2**n, inner * 2**n * inner)
            turned = (whole @ tensor).reshape(-1, 2**n * inner, 2**n, inner)
            turned = np.einsum("kabi,cb->kaci", turned, whole.conj(), optimize=True)
            found[..., part] = turned.reshape(*elements.shape[:-1], size**2)
        return found

    def propagate(self, elements: ComplexArray, segment: Segment) -> ComplexArray:
        """Return the elements (n,) or (k, n) after a segment."""
        if segment.duration_ns <= 0:
            return elements
        if self.n_elements <= DENSE:
            from scipy.linalg import expm

            if segment not in self._kept:
                self._kept[segment] = expm(self.generator(segment).toarray() * segment.duration_ns)
            return np.asarray(elements @ self._kept[segment].T)
        for part in self._parts(elements, segment):
            elements = self._step(elements, part)
        return elements

    def _parts(self, elements: ComplexArray, segment: Segment) -> list[Segment]:
        """Return an interval in two where excited singlets are left: until they are gone, and the rest without them."""
        if any(light == "pump" for _, light in segment.light):
            return [segment]
        weights = self._weights(elements)
        excited = [
            switch.isc_time_ns
            for number, (_, _, switch) in enumerate(self.couplers)
            if any(w > NEGLIGIBLE and c[number] == "S1" for w, c in zip(weights, self.configurations, strict=True))
        ]
        first = 30 * max(excited, default=0.0)
        if not 0 < first < segment.duration_ns:
            return [segment]
        return [replace(segment, duration_ns=first), replace(segment, duration_ns=segment.duration_ns - first)]

    def _step(self, elements: ComplexArray, segment: Segment) -> ComplexArray:
        """Propagate the blocks that are not negligible and those that they go to."""
        from scipy.sparse.linalg import expm_multiply

        active = {block for block, weight in enumerate(self._weights(elements)) if weight > NEGLIGIBLE}
        light, waiting = dict(segment.light), sorted(active)
        while waiting:
            for _, target, _ in self._leaving(waiting.pop(), light):
                if target not in active:
                    active.add(target)
                    waiting.append(target)
        blocks = tuple(sorted(active))
        where = np.concatenate([np.arange(self.offsets[block], self.offsets[block + 1]) for block in blocks])
        generator = self.generator(segment, blocks)
        found = np.zeros_like(elements)
        found[..., where] = expm_multiply(
            generator * segment.duration_ns, elements[..., where].T, traceA=generator.trace() * segment.duration_ns
        ).T
        return found

    def _weights(self, elements: ComplexArray) -> list[float]:
        """Return for each block the largest of the traces and, where states are no states, elements."""
        return [
            float(np.abs(elements[..., self.offsets[block] : self.offsets[block + 1]]).max(initial=0.0)) * size
            for block, size in enumerate(self.sizes)
        ]

    def _leaving(self, block: int, light: dict[int, str]) -> Iterator[tuple[int, int, list[FloatArray]]]:
        """Yield coupler, block reached and jump operators of all transitions from a block."""
        configuration = self.configurations[block]
        for number, (_, noise, switch) in enumerate(self.couplers):
            for final, jumps in _transitions(configuration[number], noise, switch, light.get(number)):
                target = (*configuration[:number], final, *configuration[number + 1 :])
                yield number, self.configurations.index(target), jumps

    def generator(self, segment: Segment, blocks: tuple[int, ...] | None = None) -> csr_array:
        """Return the generator in 1/ns on row-major blocks, of all or of some that no transition leaves."""
        chosen = tuple(range(len(self.sizes))) if blocks is None else blocks
        key = (segment.drives, segment.light, chosen)
        if key not in self._kept:
            if len(self._kept) >= KEPT and self.n_elements > DENSE:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = self._generator(dict(segment.light), segment.drives, chosen)
        return self._kept[key]

    def _generator(
        self, light: dict[int, str], drives: Iterable[tuple[int, float, float]], blocks: tuple[int, ...]
    ) -> csr_array:
        drives = list(drives)
        rows: list[np.ndarray] = []
        columns: list[np.ndarray] = []
        values: list[np.ndarray] = []
        begins = np.concatenate([[0], np.cumsum([self.sizes[block] ** 2 for block in blocks])])
        place = dict(zip(blocks, begins.tolist(), strict=False))

        def put(block_to: int, block_from: int, matrix: Any) -> None:
            entry = coo_array(matrix)
            rows.append(entry.coords[0] + place[block_to])
            columns.append(entry.coords[1] + place[block_from])
            values.append(entry.data)

        for block in blocks:
            size, configuration = self.sizes[block], self.configurations[block]
            dims = self._dims(configuration)
            effective = csr_array(-1j * self._hamiltonian(configuration, light, drives))
            gains: list[csr_array] = []
            for radical, (t1, t2, equilibrium) in enumerate(self.relaxation_ns):
                for local in _relaxation_jumps(t1, t2, equilibrium):
                    jump = csr_array(embed(local, radical, dims))
                    gains.append(kron(jump, jump.conj()))
                    effective = effective - 0.5 * (jump.conj().T @ jump)
            for number, target, jumps in self._leaving(block, light):
                for transition in jumps:
                    jump = _on_coupler(transition, self.n_radicals, number, configuration)
                    put(target, block, kron(jump, jump.conj()))
                    effective = effective - 0.5 * (jump.conj().T @ jump)
            one = eye(size, format="csr")
            put(block, block, sum(gains, kron(effective, one) + kron(one, effective.conj())))
        data, places = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        return csr_array(coo_array((data, places), shape=(int(begins[-1]),) * 2))

    def _hamiltonian(
        self, configuration: tuple[str, ...], light: dict[int, str], drives: list[tuple[int, float, float]]
    ) -> ComplexArray:
        dims, n = self._dims(configuration), self.n_radicals
        found = np.zeros((int(np.prod(dims)),) * 2, dtype=complex)
        half, one = spin_matrices(0.5), spin_matrices(1)
        for number, ((first, second), noise, _) in enumerate(self.couplers):
            spins = [embed(half, site, dims) for site in (first, second)]
            coupling = cm1_to_rad_per_ns(1.0)
            if configuration[number] == "T":
                triplet = embed(one, n + number, dims)
                for spin, j in zip(spins, noise.j_on_cm1, strict=True):
                    found -= 2 * coupling * j * np.einsum("aij,ajk->ik", spin, triplet, optimize=True)
                found += coupling * noise.d_t_cm1 * (triplet[2] @ triplet[2] - 2 / 3 * np.eye(len(found)))
            if number in light:
                found -= 2 * coupling * noise.j_off_cm1 * np.einsum("aij,ajk->ik", *spins, optimize=True)
                found += 1e-3 * np.pi * noise.difference_mhz * (spins[0][2] - spins[1][2])
        for site, rabi, phase in drives:
            spin = embed(half, site, dims)
            found += rabi * (np.cos(phase) * spin[0] + np.sin(phase) * spin[1])
        return found


def _relaxation_jumps(t1_ns: float, t2_ns: float, equilibrium: float) -> list[ComplexArray]:
    down = np.array([[0, 1], [0, 0]], dtype=complex)
    pure = max(1 / t2_ns - 1 / (2 * t1_ns), 0.0)
    return [
        np.sqrt((1 + equilibrium) / (2 * t1_ns)) * down,
        np.sqrt((1 - equilibrium) / (2 * t1_ns)) * down.T,
        np.sqrt(pure / 2) * np.diag([1.0, -1.0]).astype(complex),
    ]


def _transitions(
    level: str, noise: CouplerNoise, switch: LightSwitch, light: str | None
) -> list[tuple[str, list[FloatArray]]]:
    """Return the levels that a coupler goes to, with its jump operators (final states, initial states)."""
    pump = switch.pump_rate_per_ns if light == "pump" else 0.0
    if level == "S0":
        return [("S1", [np.sqrt([[pump]])])] if pump else []
    if level == "S1":
        back = pump + (1 - switch.isc_yield) / switch.isc_time_ns
        crossing = switch.isc_yield / switch.isc_time_ns
        side = (1 - noise.share_z) / 2
        shares = np.array([side, noise.share_z, side])
        up = [np.sqrt(crossing * share) * np.eye(3)[:, [m]] for m, share in enumerate(shares) if share]
        return [("S0", [np.sqrt([[back]])])] * bool(back) + [("T", up)]
    decay = 0.0 if noise.triplet_lifetime_ns is None else 1 / noise.triplet_lifetime_ns
    decay += switch.quench_rate_per_ns if light == "quench" else 0.0
    return [("S0", [np.sqrt(decay) * np.eye(3)[[m]] for m in range(3)])] if decay else []


def _on_coupler(local: FloatArray, n_radicals: int, number: int, configuration: tuple[str, ...]) -> csr_array:
    """Return a jump of one coupler, (final, initial), on the whole block."""
    before = 2**n_radicals * int(np.prod([SIZES[level] for level in configuration[:number]], initial=1))
    after = int(np.prod([SIZES[level] for level in configuration[number + 1 :]], initial=1))
    return csr_array(kron(kron(eye(before), csr_array(local)), eye(after)))
