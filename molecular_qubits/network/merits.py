"""The error budget of a circuit: what each source of noise takes from its fidelity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.network.noise import OF_THE_COUPLER, SOURCES, GateChannels, NoiseSettings, Source
from molecular_qubits.network.program import build_program
from molecular_qubits.network.simulate import compiled
from shared.progress import track

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork


@dataclass(frozen=True)
class ErrorBudget:
    """What each source takes from the fidelity of a circuit's state.

    Attributes
    ----------
    fidelity
        With all sources.
    alone
        -ln of the fidelity with this source alone; for those of the coupler beyond what the hold takes.
    removed
        How much -ln of the fidelity falls when this source is removed from the whole; ``nan`` for the hold, which the
        others need.
    readout
        -ln of the probability that all qubits are read right, which is not part of the state's fidelity.
    """

    fidelity: float
    alone: dict[Source, float]
    removed: dict[Source, float]
    readout: float

    @property
    def total(self) -> float:
        """-ln of the fidelity."""
        return float(-np.log(self.fidelity))

    @property
    def unexplained(self) -> float:
        """What the sum of `alone` leaves of the total: errors that undo or help each other."""
        return self.total - sum(self.alone.values())

    def to_rows(self) -> list[dict[str, Any]]:
        """Return table rows, the largest share first."""
        rows: list[dict[str, Any]] = [
            {"source": name, "-ln F alone": value, "-ln F gained without": self.removed[name]}
            for name, value in sorted(self.alone.items(), key=lambda item: -item[1])
        ]
        rows += [
            {"source": "together minus the sum", "-ln F alone": self.unexplained, "-ln F gained without": None},
            {"source": "all", "-ln F alone": self.total, "-ln F gained without": None},
            {"source": "readout (not in F)", "-ln F alone": self.readout, "-ln F gained without": None},
        ]
        return [
            {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
            for row in rows
        ]


def error_budget(network: MolecularNetwork, circuit: Any, noise: NoiseSettings | None = None) -> ErrorBudget:
    """Attribute the loss of a circuit's fidelity to the sources of error, by exact gate channels.

    Parameters
    ----------
    network, circuit, noise
        As in `molecular_qubits.run_circuit`; up to about 10 radicals.

    Returns
    -------
    ErrorBudget
        The shares add up to the total in first order; the rest is given.
    """
    settings = NoiseSettings() if noise is None else noise
    schedule = compiled(network, circuit)

    def loss(chosen: NoiseSettings) -> float:
        from molecular_qubits.network.simulate import run_circuit

        found = run_circuit(network, schedule, method="channels", shots=1, noise=chosen)
        assert found.fidelity is not None
        return float(-np.log(max(found.fidelity, 1e-300)))

    total = loss(settings)
    on = [name for name in SOURCES if name not in settings.off and name != "readout"]
    hold = loss(settings.only("hold")) if "hold" in on else 0.0
    alone: dict[Source, float] = {}
    removed: dict[Source, float] = {}
    for name in track(on, "error budget"):
        if name == "hold":
            alone[name], removed[name] = hold, float("nan")
            continue
        alone[name] = loss(settings.only(name, "hold")) - hold if name in OF_THE_COUPLER else loss(settings.only(name))
        removed[name] = total - loss(settings.without(name))
    channels = GateChannels.from_network(network, settings)
    right = build_program(schedule, channels).confusion[:, [0, 1], [0, 1]].mean(axis=1)
    return ErrorBudget(float(np.exp(-total)), alone, removed, float(-np.log(right).sum()))
