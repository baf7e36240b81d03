"""Clifford circuits with the noise turned into Paulis (twirled), on thousands of radicals, by stim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.network import result as outcome
from molecular_qubits.network.clifford import clifford_steps
from molecular_qubits.network.program import Program
from molecular_qubits.spins.operators import FloatArray

if TYPE_CHECKING:
    import stim

SMALLEST = 1e-12
"""Pauli channels that do less than this are left out."""

CHECKED = 64
"""Runs without noise that find logical qubits entangled with other sites: each finds them with 1/2 at least."""

SMALL = 12
"""Most qubits for which a table of readings is made."""


def memory_gib(n_sites: int, shots: int) -> float:
    """Return what the simulation takes, about: frames of all shots, bit by bit."""
    return 3 * n_sites * shots / 8 / 2**30


@dataclass(frozen=True)
class StimCircuits:
    """A program for stim.

    Attributes
    ----------
    noisy
        The circuit with its noise, without measurements.
    ideal
        The gates alone.
    read
        Sites of the logical qubits.
    """

    noisy: stim.Circuit
    ideal: stim.Circuit
    read: tuple[int, ...]

    @property
    def rest(self) -> list[int]:
        """Sites that hold no logical qubit."""
        return sorted(set(range(self.noisy.num_qubits)) - set(self.read))

    def measured(self) -> stim.Circuit:
        """Return the noisy circuit with the measurement of the logical qubits at its end."""
        found = self.noisy.copy()
        found.append("M", self.read)
        return found

    def undone(self) -> stim.Circuit:
        """Return the noisy circuit with the ideal one undone: to read 0 on all sites has the fidelity's probability.

        Before that, sites that hold no logical qubit are exchanged for those of a second register, which the ideal
        circuit alone has acted on: what became of them does not count.
        """
        n = self.noisy.num_qubits
        found = self.noisy.copy()
        if self.rest:
            for step in self.ideal:
                found.append(step.name, [n + target.value for target in step.targets_copy()])
            for site in self.rest:
                found.append("SWAP", [site, n + site])
        found += self.ideal.inverse()
        found.append("M", range(n))
        return found


def build_circuits(program: Program) -> StimCircuits:
    """Return a Clifford program as stim circuits.

    Raises
    ------
    molecular_qubits.network.clifford.NotCliffordError
        If it is not Clifford.
    """
    import stim

    noisy = [f"R {' '.join(map(str, range(program.n_sites)))}"]
    for site, (_, _, _, z) in enumerate(program.initial):
        if z < 1:
            noisy.append(f"X_ERROR({float(1 - z) / 2!r}) {site}")
    ideal: list[str] = []
    named: dict[bytes, list[tuple[str, tuple[int, ...]]]] = {}
    for step in clifford_steps(program.blocks.steps):
        key = step.transfer.tobytes()
        if key not in named:
            named[key] = _named(step.transfer)
        gates = [" ".join([name, *(str(step.sites[place]) for place in places)]) for name, places in named[key]]
        ideal += gates
        noisy += gates
        errors = step.probabilities[1:]
        if errors.sum() > SMALLEST:
            numbers = ",".join(repr(float(p)) for p in errors)
            noisy.append(f"PAULI_CHANNEL_{len(step.sites)}({numbers}) {' '.join(map(str, step.sites))}")
    return StimCircuits(stim.Circuit("\n".join(noisy)), stim.Circuit("\n".join(ideal)), program.read)


def _named(transfer: FloatArray) -> list[tuple[str, tuple[int, ...]]]:
    """Return a Clifford gate as stim's gates on places 0 and 1."""
    import stim

    n = 1 if len(transfer) == 4 else 2

    def image(column: int) -> stim.PauliString:
        row = int(np.flatnonzero(transfer[:, column])[0])
        letters = "_XYZ"[row] if n == 1 else "_XYZ"[row // 4] + "_XYZ"[row % 4]
        return stim.PauliString(("+" if transfer[row, column] > 0 else "-") + letters)

    places = (1,) if n == 1 else (4, 1)
    tableau = stim.Tableau.from_conjugated_generators(
        xs=[image(place) for place in places], zs=[image(3 * place) for place in places]
    )
    found = []
    for instruction in tableau.to_circuit("elimination"):
        for group in instruction.target_groups():
            found.append((instruction.name, tuple(int(target.value) for target in group)))
    return found


def sample(circuit: stim.Circuit, shots: int, seed: int) -> np.ndarray:
    """Return the measured bits, bool (shots, m)."""
    return circuit.compile_sampler(seed=seed).sample(shots)


def simulate(program: Program, shots: int, seed: int) -> outcome.CircuitResult:
    """Run a Clifford program with twirled noise; the fidelity comes from as many other shots."""
    circuits = build_circuits(program)
    undone = circuits.undone()
    if circuits.rest and sample(undone.without_noise(), CHECKED, seed).any():
        raise ValueError(outcome.ENTANGLED)
    confusion = program.confusion[list(program.read)]
    rng = np.random.default_rng(seed)
    samples = outcome.misread(sample(circuits.measured(), shots, seed), confusion, rng)
    z = 1 - 2 * samples.mean(axis=0)
    fidelity = float((~sample(undone, shots, seed + 1).any(axis=1)).mean())
    m, n = len(program.read), program.n_sites
    probabilities = None
    if m <= SMALL:
        probabilities = np.bincount(samples @ (1 << np.arange(m - 1, -1, -1)), minlength=2**m) / shots
    return outcome.CircuitResult(
        "stim", m, n, shots, seed, z, _proportion_error((1 - z) / 2, shots) * 2, fidelity,
        float(_proportion_error(fidelity, shots)), probabilities,
        np.abs(outcome.ideal_logical_ket(program)) ** 2 if n <= SMALL else None, samples,
        {"steps": len(program.blocks.steps), "instructions": len(circuits.noisy)},
    )  # fmt: skip


def _proportion_error(proportion: Any, shots: int) -> Any:
    """Return the standard error of a proportion, with Laplace's estimate, so that it is not 0 at 0 and 1."""
    smoothed = (np.asarray(proportion) * shots + 1) / (shots + 2)
    return np.sqrt(smoothed * (1 - smoothed) / shots)
