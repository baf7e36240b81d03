"""Figures of merit: the error budget of a circuit, and what the chemistry must reach for a given error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.control.fidelity import target_gate
from molecular_qubits.network import transfer
from molecular_qubits.network.coupler_gate import CouplerNoise, calibrate
from molecular_qubits.network.noise import OF_THE_COUPLER, SOURCES, GateChannels, NoiseSettings, Source
from molecular_qubits.network.program import build_program
from molecular_qubits.network.simulate import compiled
from molecular_qubits.spins.operators import FloatArray
from shared.progress import track

if TYPE_CHECKING:
    import xarray

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


def cycle_error(
    coupler: CouplerNoise, target: str, t1_ns: float, t2_ns: float, rotation_ns: float
) -> tuple[float, float]:
    """Return the error of the best coupler gate, and of a cycle: the gate, then a rotation by pi/2 on both radicals.

    Parameters
    ----------
    coupler
        The chemistry of the bond.
    target
        Entangling gate (`molecular_qubits.control.fidelity.TARGETS`).
    t1_ns, t2_ns
        Relaxation of both radicals.
    rotation_ns
        Length of the rotation.

    Returns
    -------
    gate, cycle : float
        1 minus the average gate fidelity.
    """
    entangler = target_gate(target)
    gate = calibrate(coupler, entangler, ((t1_ns, t2_ns),) * 2)
    turn = transfer.driven(np.pi / 2, 0.0, rotation_ns, t1_ns, t2_ns)
    ideal = transfer.driven(np.pi / 2, 0.0, rotation_ns, 1e30, 1e30)
    both, wanted = transfer.on_both(turn, turn), transfer.on_both(ideal, ideal)
    cycle = transfer.average_fidelity(both @ gate.transfer, wanted @ transfer.from_unitary(entangler))
    return 1 - gate.fidelity, 1 - cycle


def operating_region(
    coupler: CouplerNoise,
    target: str,
    *,
    j_cm1: Sequence[float],
    t2_ns: Sequence[float],
    lifetime_ns: Sequence[float],
    rotation_ns: float = 20.0,
    longest_hold: float | None = None,
) -> xarray.Dataset:
    """Return the errors of gate and cycle over J and T2, and over J and the triplet's lifetime.

    Parameters
    ----------
    coupler
        All else of the chemistry.
    target
        Entangling gate.
    j_cm1
        Exchange with the triplet, both radicals alike.
    t2_ns
        T2 of the radicals, with a lifetime of the triplet without end; T1 is 50 times it, or 100 us if that is more.
    lifetime_ns
        Lifetimes of the triplet, with the largest T2.
    rotation_ns
        Length of the rotations in a cycle.
    longest_hold
        Longest hold tried, times 1 / J (ns cm^-1); ``None``: that of the coupler, whatever J is.

    Returns
    -------
    xarray.Dataset
        ``gate_t2``, ``cycle_t2`` along ``t2_ns`` and ``j_cm1``; ``gate_lifetime``, ``cycle_lifetime`` along
        ``lifetime_ns`` and ``j_cm1``.
    """
    import xarray

    cells = [("t2", t2, j) for t2 in t2_ns for j in j_cm1] + [("lifetime", t, j) for t in lifetime_ns for j in j_cm1]
    found: dict[str, list[tuple[float, float]]] = {"t2": [], "lifetime": []}
    for name, value, j in track(cells, "operating region"):
        lifetime = None if name == "t2" else value
        t2 = value if name == "t2" else max(t2_ns)
        changed = coupler.model_copy(update={"j_on_cm1": (j, j), "triplet_lifetime_ns": lifetime})
        if longest_hold is not None:
            changed = changed.model_copy(update={"max_hold_ns": longest_hold / j})
        found[name].append(cycle_error(changed, target, max(1e5, 50 * t2), t2, rotation_ns))
    shape = (-1, len(j_cm1), 2)
    maps = {name: np.array(values).reshape(shape) for name, values in found.items()}
    return xarray.Dataset(
        {
            f"{kind}_{name}": ((f"{name}_ns", "j_cm1"), maps[name][..., place])
            for name in maps
            for place, kind in enumerate(("gate", "cycle"))
        },
        {"j_cm1": list(j_cm1), "t2_ns": list(t2_ns), "lifetime_ns": list(lifetime_ns)},
    )


def smallest(values: FloatArray, axis: Sequence[float], limit: float) -> float | None:
    """Return the smallest value on an axis from which on an error (n,) stays at or below a limit, interpolated.

    ``None`` if it does not at the end of the axis. Between the points the logarithms are linear.
    """
    above = np.flatnonzero(np.asarray(values) > limit)
    if not above.size:
        return float(axis[0])
    last = int(above[-1])
    if last + 1 == len(axis):
        return None
    x, y = np.log([axis[last], axis[last + 1]]), np.log([values[last], max(values[last + 1], 1e-300)])
    return float(np.exp(x[0] + (np.log(limit) - y[0]) / (y[1] - y[0]) * (x[1] - x[0])))
