"""How much molecules that differ cost: the fidelity of a GHZ state over networks drawn from seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from molecular_qubits.network.disorder import Disorder
from shared.config import FrozenConfig
from shared.progress import track

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork
    from molecular_qubits.network.schedule import Schedule

Quantity = Literal["j_relative", "g", "offset_mhz", "isc_logit", "dead"]


class Sweep(FrozenConfig):
    """One quantity in which molecules differ.

    Parameters
    ----------
    quantity, sizes
        Field of `molecular_qubits.network.disorder.Disorder`, and its values.
    calibrated
        See there.
    by_frequency
        Whether the radicals are told apart by their resonance, whatever the network says.
    """

    quantity: Quantity
    sizes: tuple[float, ...] = Field(min_length=1)
    calibrated: bool = False
    by_frequency: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for size in self.sizes:
            Disorder(**{self.quantity: size})
        return self


SWEEPS = (
    Sweep(quantity="j_relative", sizes=(0.001, 0.003, 0.01, 0.03)),
    Sweep(quantity="j_relative", sizes=(0.03,), calibrated=True),
    Sweep(quantity="g", sizes=(1e-5, 1e-4, 1e-3, 1e-2)),
    Sweep(quantity="g", sizes=(1e-5, 1e-4, 1e-3, 1e-2), by_frequency=True),
    Sweep(quantity="isc_logit", sizes=(0.2, 0.5, 1.0, 2.0)),
    Sweep(quantity="isc_logit", sizes=(0.2, 0.5, 1.0, 2.0), calibrated=True),
    Sweep(quantity="dead", sizes=(0.03, 0.1, 0.2, 0.3)),
)


def sweep_rows(network: MolecularNetwork, circuit: Any, sweeps: tuple[Sweep, ...], seeds: int) -> list[dict[str, Any]]:
    """Return the fidelity of a circuit over drawn networks, for each sweep and size: table rows, size 0 first.

    Parameters
    ----------
    network
        Without disorder.
    circuit
        As in `molecular_qubits.run_circuit`; it is run by exact gate channels.
    sweeps
        What differs.
    seeds
        Networks for each size.

    Returns
    -------
    list of dict
        ``"fidelity"``, ``"spread"`` and ``"lowest"``: mean, standard deviation and minimum over the networks that can
        run the circuit; ``"not possible"``: those that cannot, as dead couplers cut them apart or radicals lie too near
        in frequency; ``"gate"``: mean average gate fidelity of the living couplers.
    """
    from molecular_qubits.network.simulate import compiled

    compiled(network, circuit)  # what it refuses here is no matter of disorder
    rows = []
    for sweep in sweeps:
        settings = {"microwaves": network.microwaves.model_copy(update={"addressing": "frequency"})}
        start = network.model_copy(update=settings) if sweep.by_frequency else network
        for size in track((0.0, *sweep.sizes), sweep.quantity):
            disorder = Disorder(**{sweep.quantity: size, "calibrated": sweep.calibrated})
            drawn = [start.with_disorder(disorder, seed) for seed in range(seeds if size else 1)]
            rows.append({
                "disorder": sweep.quantity, "calibrated": sweep.calibrated, "by frequency": sweep.by_frequency,
                "size": size, **_over(drawn, circuit),
            })  # fmt: skip
    return rows


def _over(networks: list[MolecularNetwork], circuit: Any) -> dict[str, Any]:
    """Return mean, spread and lowest of the fidelity over networks."""
    from molecular_qubits import run_circuit
    from molecular_qubits.network.noise import GateChannels
    from molecular_qubits.network.simulate import compiled

    found: list[float] = []
    gates: list[float] = []
    schedules: dict[tuple[Any, ...], Schedule | None] = {}
    for network in networks:
        channels = GateChannels.from_network(network)
        gates += [channels.gate(*bond.sites).fidelity for bond in network.bonds if bond.alive]
        key = _timing(network)
        if key not in schedules:
            try:
                schedules[key] = compiled(network, circuit)
            except ValueError:  # the compiler's word that this network cannot run it
                schedules[key] = None
        if schedules[key] is None:
            continue
        found.append(float(run_circuit(channels, schedules[key], method="channels", shots=1).fidelity or 0.0))
    values = np.array(found)
    return {
        "networks": len(networks), "not possible": len(networks) - len(found),
        "fidelity": float(values.mean()) if found else None,
        "spread": float(values.std(ddof=1)) if len(found) > 1 else 0.0,
        "lowest": float(values.min()) if found else None, "gate": float(np.mean(gates)) if gates else None,
    }  # fmt: skip


def _timing(network: MolecularNetwork) -> tuple[Any, ...]:
    """Return what a schedule depends on."""
    living = [k for k, bond in enumerate(network.bonds) if bond.alive]
    return (
        tuple(living), tuple(network.coupler_ns(k) for k in living), tuple(network.frequencies_ghz.tolist()),
        tuple(bond.isc_yield for bond in network.bonds), tuple(bond.dose for bond in network.bonds),
    )  # fmt: skip
