"""A schedule as a list of pulses: kind, time, wavelength or frequency, strength, energy and place of each."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from molecular_qubits.network.addressing import light_of
from molecular_qubits.network.pulses import CUT
from molecular_qubits.network.schedule import Operation, Schedule

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork


@dataclass(frozen=True)
class Pulse:
    """One pulse; what does not apply to its kind is ``None``.

    Attributes
    ----------
    kind
        ``"pump"`` (light that makes a coupler's triplet), ``"quench"`` (light that ends it), ``"microwave"`` or
        ``"readout"``.
    start_ns, duration_ns
        When it begins and its whole length. Light pulses are square, microwaves Gaussian, cut 2.5 standard deviations
        from their middle.
    sites
        Radicals that are turned or read; the two beside a lit coupler.
    position_nm
        Middle of the spot of light; of the radical for microwaves that reach one alone.
    wavelength_nm, energy_j
        Of light.
    frequency_ghz, rabi_mhz, phase_rad
        Of microwaves: carrier, Rabi frequency at the peak, and phase in the frame that turns with the carrier from
        time 0. The schedule's changes of frame are in the phase; those that belong to a coupler's own gate
        (`molecular_qubits.network.coupler_gate.CouplerGate.frames`) are not.
    """

    kind: str
    start_ns: float
    duration_ns: float
    sites: tuple[int, ...]
    position_nm: tuple[float, float] | None = None
    wavelength_nm: float | None = None
    energy_j: float | None = None
    frequency_ghz: float | None = None
    rabi_mhz: float | None = None
    phase_rad: float | None = None


def pulse_list(schedule: Schedule, network: MolecularNetwork) -> list[Pulse]:
    """Return all pulses of a schedule by their start.

    A coupler's gate is a pump, the hold without light, and a quench. Radicals that are turned alike at one moment and
    cannot be told apart by their frequency get one pulse, at their mean frequency.

    Parameters
    ----------
    schedule, network
        What is done, and on what.

    Raises
    ------
    ValueError
        If the schedule is not one of this network.
    """
    schedule.check_network(network.n_sites)
    found: list[Pulse] = []
    together: dict[tuple[float, float, float, float, int], list[int]] = {}
    frames = [0.0] * network.n_sites
    classes = _alike(schedule, network)
    for operation in schedule.operations:
        if operation.name == "rz":
            frames[operation.sites[0]] += operation.angles[0]
        elif operation.name == "coupler":
            found += _light(operation, network)
        elif operation.name == "measure":
            found.append(Pulse("readout", operation.start_ns, operation.duration_ns, operation.sites))
        elif operation.duration_ns:
            (site,), (theta, phi) = operation.sites, operation.angles
            phase = round((phi - frames[site]) % (2 * math.pi), 9)
            key = (operation.start_ns, operation.duration_ns, theta, phase, classes.get(site, site))
            together.setdefault(key, []).append(site)
    for (start, duration, theta, phase, _), sites in together.items():
        carrier = float(network.frequencies_ghz[sites].mean())
        place = network.sites[sites[0]].position_nm if network.microwaves.addressing == "local" else None
        found.append(
            Pulse("microwave", start, duration, tuple(sites), place, frequency_ghz=carrier,
                  rabi_mhz=peak_rabi_mhz(theta, duration), phase_rad=phase)
        )  # fmt: skip
    return sorted(found, key=lambda pulse: (pulse.start_ns, pulse.sites, pulse.kind))


def peak_rabi_mhz(theta: float, duration_ns: float) -> float:
    """Return the Rabi frequency at the middle of a Gaussian pulse, cut 2.5 standard deviations from it, of area theta.

    The part that is cut off is made up for, so that the area is right: the shortest pulse has a peak 1.3 % above
    `Microwaves.rabi_mhz`.
    """
    sigma = duration_ns / (2 * CUT)
    area = math.sqrt(2 * math.pi) * sigma * math.erf(CUT / math.sqrt(2))
    return 1e3 * abs(theta) / (2 * math.pi * area)


def schedule_record(schedule: Schedule, network: MolecularNetwork) -> dict[str, Any]:
    """Return the schedule with its pulses as a JSON-able record; `Schedule.from_json` reads its text."""
    pulses = [
        {name: value for name, value in asdict(pulse).items() if value is not None}
        for pulse in pulse_list(schedule, network)
    ]
    return schedule.to_record() | {"pulses": pulses}


def _light(operation: Operation, network: MolecularNetwork) -> list[Pulse]:
    bond = network.bond_between(*operation.sites)
    if bond is None:
        raise ValueError(f"Argument `schedule` must light couplers of the network, but lights {operation.sites}.")
    coupler, light, length = network.bonds[bond], light_of(network, bond), network.optics.pulse_ns
    x, y = (float(value) for value in network.bond_positions_nm[bond])
    return [
        Pulse("pump", operation.start_ns, length, coupler.sites, (x, y), coupler.absorption_nm, light.energy_j),
        Pulse("quench", operation.end_ns - length, length, coupler.sites, (x, y), coupler.quench_nm,
              light.quench_energy_j),
    ]  # fmt: skip


def _alike(schedule: Schedule, network: MolecularNetwork) -> dict[int, int]:
    """Return the first site of the class of each site that is used: radicals of one class turn together."""
    from molecular_qubits.network.pulses import rotation_times

    used = {site for operation in schedule.operations for site in operation.sites} | {*schedule.initial_sites}
    _, classes = rotation_times(network, sorted(used))
    return {site: min(members) for members in classes for site in members}
