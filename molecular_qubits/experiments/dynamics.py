"""Does the lit triplet entangle the radicals? Dynamics of the two-qubit unit, with its laws and limits as tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from shared.config import FrozenConfig

if TYPE_CHECKING:
    import numpy as np

    from molecular_qubits.spins.channels.base import Channel
    from molecular_qubits.spins.trajectory import Trajectory
    from molecular_qubits.spins.unit import TwoQubitUnit
    from shared.results import ResultsWriter

_PACKAGE = Path(__file__).resolve().parent.parent
REFERENCE = _PACKAGE / "reference"
MONO_EXCHANGE = _PACKAGE / "experiments" / "data" / "mono_exchange.json"
STATED_J_RT_CM1 = 68.0
SITES = ("radical_1", "coupler", "radical_2")
_TEKI = "Teki et al., JACS 2000, 122, 984"


class DynamicsConfig(FrozenConfig):
    """Parameters of the unit; the description of each ends with its source."""

    fast: bool = Field(False, description="fewer times, temperatures and angles")
    j_rt_cm1: float | None = Field(
        None, description="radical-triplet exchange; none: the committed DFT value of the mono-radical, else 68 cm^-1"
    )
    j_rr_ground_cm1: float = Field(
        1.7e-4, description="radical-radical exchange in S0; 5 MHz, the upper bound in ground-state C60 bis-nitroxides"
    )
    d_t_cm1: float = Field(0.063, description=f"D of the triplet; inverted from the measured D_Q and D_Qu of {_TEKI}")
    d_rt_cm1: float = Field(
        0.0075, description=f"axial radical-triplet dipolar coupling 3/2 D_zz; inverted from {_TEKI}"
    )
    g: float = Field(2.0043, gt=0, description=f"isotropic g of radicals and triplet; {_TEKI}")
    field_tesla: float = Field(0.34, description="field along the triplet's z axis; X-band EPR")
    temperature_k: float = Field(30.0, gt=0, description="assumed")
    pulse_duration_ns: float = Field(5.0, gt=0, description="square light pulse from t = 0; assumed, a ns laser")
    pump_rate_per_ns: float = Field(5.0, ge=0, description="S0 <-> S1 in the pulse; assumed, saturating")
    emission_rate_per_ns: float = Field(0.1, ge=0, description="S1 -> S0; assumed")
    isc_rate_per_ns: float = Field(1.0, ge=0, description="S1 -> T; assumed")
    isc_populations_xyz: tuple[float, float, float] = Field(
        (0.05, 0.05, 0.9), description="share of T_x, T_y, T_z; assumed, chosen so that |M| = 2 stays nearly empty"
    )
    triplet_decay_rates_per_ns_xyz: tuple[float, float, float] = Field(
        (1e-4, 1e-4, 1e-4), description="T_x, T_y, T_z -> S0; assumed"
    )
    multiplet_rate_per_ns: float = Field(
        1.0, ge=0, description="baths on S_z of each spin in T (Davies), between multiplets, M kept; assumed"
    )
    lattice_rate_per_ns: float = Field(
        1e-4, ge=0, description="baths on S_x and S_y of each spin in T (Davies), M changed; assumed"
    )
    radical_t1_ns: float = Field(1e5, gt=0, description="T1 of each radical (local); assumed")
    radical_t2_ns: float = Field(
        2.1e3, gt=0, description="T2 of each radical (local); Tm of the tpPDI-BDPA quartet, 2.1 us"
    )
    temperatures_k: tuple[float, ...] = Field(
        (5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 80.0, 100.0, 150.0, 200.0, 300.0), description="scan, rates kept"
    )


def resolve_j_rt_cm1(config: DynamicsConfig) -> tuple[float, str]:
    """Return J_RT in cm^-1 and where it comes from: the configuration, the committed result, or the stated value."""
    if config.j_rt_cm1 is not None:
        return config.j_rt_cm1, "configuration"
    if MONO_EXCHANGE.exists():
        record = json.loads(MONO_EXCHANGE.read_text(encoding="utf-8"))
        return float(record["j_yamaguchi_cm1"][0][1]), "committed DFT result of the mono-radical (Yamaguchi)"
    return STATED_J_RT_CM1, "stated value, of the size found for the mono-radical at a torsion of 57 degrees"


def build_unit(config: DynamicsConfig) -> "TwoQubitUnit":
    """Return the two-qubit unit of a configuration."""
    from molecular_qubits.spins.tensors import axial_coupling_tensor
    from molecular_qubits.spins.unit import TwoQubitUnit

    return TwoQubitUnit(
        resolve_j_rt_cm1(config)[0],
        j_rr_ground_cm1=config.j_rr_ground_cm1,
        d_t_cm1=config.d_t_cm1,
        dipolar_rt=axial_coupling_tensor(config.d_rt_cm1),
        g_radical=config.g,
        g_triplet=config.g,
    )


def build_channels(
    config: DynamicsConfig,
    *,
    light: bool = True,
    populations_xyz: Sequence[float] | None = None,
    temperature_k: float | None = None,
) -> "list[Channel]":
    """Return the channels of a configuration.

    Parameters
    ----------
    config
        Rates and temperature.
    light
        Whether the pulse is there.
    populations_xyz
        Shares of the sublevels in intersystem crossing, in place of the configuration's.
    temperature_k
        Temperature in place of the configuration's.
    """
    from molecular_qubits.spins.channels.optical import OpticalPulse
    from molecular_qubits.spins.channels.relaxation import RadicalRelaxation, ThermalRelaxation
    from molecular_qubits.spins.channels.transfer import Emission, IntersystemCrossing, TripletDecay

    kelvin = config.temperature_k if temperature_k is None else temperature_k
    shares = config.isc_populations_xyz if populations_xyz is None else populations_xyz
    channels: list[Channel] = [
        Emission(config.emission_rate_per_ns),
        IntersystemCrossing(config.isc_rate_per_ns, shares),
        TripletDecay(config.triplet_decay_rates_per_ns_xyz),
        ThermalRelaxation(SITES, config.multiplet_rate_per_ns, kelvin, axes="z", level="T"),
        ThermalRelaxation(SITES, config.lattice_rate_per_ns, kelvin, axes="xy", level="T"),
        RadicalRelaxation("radical_1", config.radical_t1_ns, kelvin, config.radical_t2_ns),
        RadicalRelaxation("radical_2", config.radical_t1_ns, kelvin, config.radical_t2_ns),
    ]
    if light:
        channels.append(OpticalPulse(0.0, config.pulse_duration_ns, config.pump_rate_per_ns))
    return channels


def switching(config: DynamicsConfig) -> "dict[str, Trajectory]":
    """Evolve the unit in the dark and after the pulse.

    Returns
    -------
    dict of str to Trajectory
        ``lit``; ``unselective``: lit with equal sublevel populations; ``dark``: no pulse; ``measured``: the triplet
        switched on with the quintet in its measured populations at t = 0; ``mixed``: lit with M changed as fast as the
        multiplets relax. All but ``measured`` start with thermal radicals in the dark; the times are in ns after the
        start of the pulse.
    """
    import numpy as np

    from molecular_qubits.spins.evolution import evolve
    from shared.progress import track

    unit = build_unit(config)
    times = np.concatenate([[0.0], np.geomspace(0.05, 1e5, 40 if config.fast else 160)])
    thermal = unit.thermal_state(config.temperature_k, config.field_tesla)
    equal = (1 / 3, 1 / 3, 1 / 3)
    cases = {
        "lit": (thermal, build_channels(config)),
        "unselective": (thermal, build_channels(config, populations_xyz=equal)),
        "dark": (thermal, build_channels(config, light=False)),
        "measured": (measured_quintet_state(unit), build_channels(config, light=False)),
        "mixed": (
            thermal,
            build_channels(config.model_copy(update={"lattice_rate_per_ns": config.multiplet_rate_per_ns})),
        ),
    }
    found = {}
    for name, (state, channels) in track(list(cases.items()), "Two-qubit unit, dark and lit"):
        found[name] = evolve(unit, state, times, channels=channels, solver="expm", field_tesla=config.field_tesla)
    return found


def measured_populations(molecule: str = "9,10-bis(4-iminonitroxide-phenyl)anthracene") -> "np.ndarray":
    """Return the measured quintet populations of M = 2, 1, 0, -1, -2, normalised to 1, shape (5,)."""
    import numpy as np

    entries = json.loads((REFERENCE / "molecular_experiments.json").read_text(encoding="utf-8"))
    rows = {entry["molecule"]: entry["populations"] for entry in entries["high_spin_excited_states"] if entry["S"] == 2}
    values = np.array([rows[molecule][key] for key in ("2", "1", "0", "1", "2")])
    return values / values.sum()


def measured_quintet_state(unit: "TwoQubitUnit") -> "np.ndarray":
    """Return the state (20, 20) of the lit unit with the measured quintet populations and nothing else."""
    kets = quintet_kets(unit)
    return (kets.T * measured_populations()) @ kets.conj()


def quintet_kets(unit: "TwoQubitUnit") -> "np.ndarray":
    """Return the kets of the quintet in the unit as rows (5, 20), M = 2, ..., -2 along the triplet's z axis."""
    from molecular_qubits.spins.multiplets import radical_triplet_radical_multiplets

    return radical_triplet_radical_multiplets()["quintet"].kets @ unit.level_embedding("T").T


def rotated_concurrence(populations: Any, angle_deg: float, d_over_zeeman: float = 0.0) -> float:
    """Return the radical-radical concurrence of a quintet dephased in a field at an angle to its axis.

    Parameters
    ----------
    populations
        Populations (5,) of M = 2, ..., -2 along the axis of the zero-field tensor.
    angle_deg
        Angle between field and axis.
    d_over_zeeman
        D of the quintet over g mu_B B; 0 is the limit of a strong field.

    Returns
    -------
    float
    """
    import numpy as np

    from molecular_qubits.spins.multiplets import DIMS, radical_triplet_radical_multiplets
    from molecular_qubits.spins.observables import concurrence, reduced_state
    from molecular_qubits.spins.operators import spin_matrices

    x, _, z = spin_matrices(2)
    angle = np.radians(angle_deg)
    _, vectors = np.linalg.eigh(np.cos(angle) * z + np.sin(angle) * x + d_over_zeeman * (z @ z))
    kept = np.abs(vectors.T) ** 2 @ np.asarray(populations, dtype=float)
    state = (vectors * kept) @ vectors.conj().T
    kets = radical_triplet_radical_multiplets()["quintet"].kets
    return concurrence(reduced_state(kets.T @ state @ kets.conj(), DIMS, (0, 2)))


def temperature_scan(config: DynamicsConfig) -> "dict[str, np.ndarray]":
    """Return the largest concurrence after the pulse against temperature, all rates kept.

    Returns
    -------
    dict of str to ndarray
        ``temperature_k``, ``largest`` concurrence, ``quintet_share`` of the lit unit at that time (or at the end of the
        multiplet relaxation, 30 ns, where there is no entanglement).
    """
    import numpy as np

    from molecular_qubits.spins.evolution import evolve_sweep

    kelvin = config.temperatures_k[:: 3 if config.fast else 1]
    unit = build_unit(config)
    times = np.concatenate([[0.0, config.pulse_duration_ns], config.pulse_duration_ns + np.geomspace(1, 300, 12)])
    found = evolve_sweep(
        [unit] * len(kelvin),
        lambda index: unit.thermal_state(kelvin[index], config.field_tesla),
        times,
        channels=lambda index: build_channels(config, temperature_k=kelvin[index]),
        field_tesla=config.field_tesla,
    )
    concurrences = np.array([run.concurrence() for run in found])
    best = np.where(concurrences.max(axis=1) > 0, concurrences.argmax(axis=1), np.searchsorted(times, 30.0))
    quintet = np.array([run.populations(quintet_kets(unit)).sum(axis=1) for run in found])
    lit = np.array([run.expectation(unit.level_projector("T")) for run in found])
    rows = np.arange(len(kelvin))
    return {
        "temperature_k": np.array(kelvin),
        "largest": concurrences.max(axis=1),
        "quintet_share": quintet[rows, best] / lit[rows, best],
    }


def run(writer: "ResultsWriter", config: DynamicsConfig) -> dict[str, Any]:
    """Compute the spin dynamics and write sections, tables and figures.

    Parameters
    ----------
    writer
        Where the results go.
    config
        Parameters of the unit.

    Returns
    -------
    dict
        ``trajectories`` (see `switching`), ``temperature`` (see `temperature_scan`), ``multiplets``, ``thermal`` and
        ``zfs`` (table rows), ``maps`` (see `entanglement_maps.maps`), ``temperature_limits`` and ``controls`` (see
        `entanglement_limits`).
    """
    from molecular_qubits.experiments import dynamics_figures as figures
    from molecular_qubits.experiments import dynamics_tables as tables
    from molecular_qubits.experiments import entanglement_limits, entanglement_maps

    angles = tables.angle_rows(config)  # refuses a field of 0 before the long work
    trajectories = switching(config)
    temperature = temperature_scan(config)
    maps = entanglement_maps.maps(config)
    results: dict[str, Any] = {
        "trajectories": trajectories,
        "temperature": temperature,
        "multiplets": tables.multiplet_rows(),
        "thermal": tables.thermal_rows(),
        "zfs": tables.zfs_rows(config),
        "maps": maps,
        "temperature_limits": entanglement_limits.temperature_rows(config),
        "controls": entanglement_limits.control_rows(config),
    }
    largest = {name: float(found.concurrence().max()) for name, found in trajectories.items()}
    writer.section("Entanglement of two radicals, switched by light", _switching_text(config, trajectories, largest))
    writer.figure(
        lambda: figures.draw_switching(config, trajectories),
        "concurrence_against_time",
        "Two radicals and their coupler after a light pulse (grey). (a) Electronic levels of the coupler and the share "
        "of the quintet in the whole unit. (b) Sublevels of the quintet, normalised to the quintet, along the field; "
        "dotted: measured. (c) Radical–radical concurrence after tracing out the coupler. Measured quintet: only "
        "the quintet, with its measured populations at t = 0, and no pulse. Equal sublevels: unselective crossing.",
    )
    writer.table(
        tables.switching_rows(trajectories), "concurrence_switching", "Radical–radical concurrence, on and off."
    )
    writer.table(tables.parameter_rows(config), "dynamics_parameters", "Parameters and where they come from.")
    writer.section("Where the entanglement ends: field angle and temperature", _limits_text(temperature))
    writer.figure(
        lambda: figures.draw_angle(config),
        "concurrence_against_angle",
        "Radical–radical concurrence of the quintet with measured sublevel populations, dephased in the eigenbasis of "
        "the field, against the angle between the field and the axis of the zero-field tensor.",
    )
    writer.figure(
        lambda: figures.draw_temperature(temperature),
        "concurrence_against_temperature",
        "Largest radical–radical concurrence after the pulse, and the share of the quintet in the lit unit. All rates "
        "are kept; only the detailed balance and the thermal start follow the temperature.",
    )
    writer.table(angles, "concurrence_angle", "Concurrence at chosen angles.")
    writer.figure(
        lambda: entanglement_maps.draw_maps(maps, config),
        "concurrence_maps",
        "Above: largest radical–radical concurrence within 3 µs after the pulse over pairs of parameters, all others "
        "as in the table above; inside the dashed line spin correlators alone prove it. Below: largest log-negativity "
        "of a radical against the coupler. Dot: these parameters, with J of the mono-radical by DFT; dotted: measured "
        "values.",
    )
    writer.table(
        entanglement_maps.summary_rows(maps),
        "concurrence_maps_summary",
        "How much of each map is entangled, how much of that spin correlators alone prove, and what is left of it when "
        "seven lifetimes of the triplet have passed.",
    )
    writer.table(
        entanglement_maps.powder_rows(maps["field and its angle"]),
        "concurrence_powder",
        "Concurrence with the field along the axis, and the mean over a powder.",
    )
    writer.table(
        results["temperature_limits"],
        "entanglement_temperatures",
        "Highest temperature at which the pulse entangles the radicals (to 2 %).",
    )
    writer.table(results["controls"], "concurrence_controls", "Largest concurrence with one control changed at a time.")
    writer.section(
        "Laws the dynamics is held to",
        "Three checks with known answers. The concurrence that each multiplet of radical, triplet and radical leaves "
        "on the radicals. The quartet share of a radical–triplet pair (J = 100 cm^-1, 300 K) after a long time: baths "
        "on each spin alone do not lead to exp(-H/kT)/Z, those in the eigenbasis of the pair do. The zero-field "
        "splitting of the multiplets, from the full Hamiltonian and by projection; D_T and D_RT were inverted from the "
        "first two measured values, so only the verdazyl quintet, with D_RT from its quartet, is a prediction.",
    )
    writer.table(results["multiplets"], "multiplet_concurrence", "Concurrence of the radicals in each multiplet.", 10)
    writer.table(results["thermal"], "thermal_law", "Quartet share of a radical–triplet pair in the long-time limit.")
    writer.table(results["zfs"], "zero_field_splitting", "D of the multiplets under the exchange of the unit.")
    return results


def _switching_text(config: DynamicsConfig, trajectories: "dict[str, Trajectory]", largest: dict[str, float]) -> str:
    j_rt, source = resolve_j_rt_cm1(config)
    lit = trajectories["lit"]
    values = lit.concurrence()
    if values.max() > 0:
        entangled = lit.times_ns[values > 0]
        course = (
            f"The concurrence rises after {entangled[0]:.1f} ns, reaches {values.max():.3f} at "
            f"{lit.times_ns[values.argmax()]:.0f} ns and is gone after {entangled[-1] / 1000:.1f} µs"
        )
    else:
        course = "No concurrence arises"
    return (
        f"The unit (radical, coupler with S0, S1 and T, radical; J_RT = {j_rt:.1f} cm^-1, {source}) starts in the dark "
        f"with thermal radicals at {config.temperature_k:g} K and {config.field_tesla:g} T. Light excites the coupler, "
        "intersystem crossing fills its triplet unevenly, and relaxation between the multiplets collects the "
        f"population in the lowest one with the M of the triplet kept. {course}; without the pulse the largest value "
        f"is {largest['dark']:.3f}, and with equal sublevels {largest['unselective']:.3f}: in this model it is the "
        f"polarisation of the triplet that entangles.\n\n"
        "Assumed, not computed: every rate, the sublevel shares of the intersystem crossing, and that the fast "
        "relaxation between multiplets keeps M; with baths that change M as fast the largest concurrence is "
        f"{largest['mixed']:.3f}. Time-resolved EPR fixes differences of populations; the measured set takes |M| = 2 "
        "as empty, which gives the largest concurrence compatible with it."
    )


def _limits_text(temperature: "dict[str, np.ndarray]") -> str:
    entangled = temperature["temperature_k"][temperature["largest"] > 0]
    limit = f"up to {entangled.max():g} K" if entangled.size else "at none"
    return (
        "A quintet with unequal sublevels carries concurrence only while its axis lies near the field. With the "
        "parameters of the first section entanglement arises "
        f"{limit} of the temperatures computed: in the cold, nearly all population relaxes into the quintet; in "
        "the warm, the other multiplets dilute it. The rates are kept at their values, which favours high temperatures."
    )
