"""Tables of the dynamics experiment: laws against computed values, parameters, and the figures' key numbers."""

import json
from typing import Any

import numpy as np

from molecular_qubits.experiments.dynamics import (
    REFERENCE,
    DynamicsConfig,
    measured_populations,
    resolve_j_rt_cm1,
    rotated_concurrence,
)
from molecular_qubits.spins.channels.relaxation import ThermalRelaxation
from molecular_qubits.spins.evolution import evolve
from molecular_qubits.spins.multiplets import DIMS, radical_triplet_radical_multiplets
from molecular_qubits.spins.observables import concurrence, reduced_state
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import axial_coupling_tensor, d_and_e, zfs_tensor
from molecular_qubits.spins.trajectory import Trajectory
from molecular_qubits.spins.zfs import multiplet_zfs_tensor, zfs_quartet, zfs_quintet
from molecular_qubits.units import MU_B_CM1_PER_T

CASES = {
    "lit": "pulse, selective intersystem crossing",
    "unselective": "pulse, equal sublevels",
    "dark": "no pulse",
    "measured": "quintet with measured populations at t = 0",
    "mixed": "pulse, M changed as fast as the multiplets relax",
}
QUINTETS = {
    "iminonitroxide": "9,10-bis(4-iminonitroxide-phenyl)anthracene",
    "verdazyl": "9,10-bis(4-verdazyl-phenyl)anthracene",
}


def parameter_rows(config: DynamicsConfig) -> list[dict[str, Any]]:
    """Return name, value and source of every parameter; the unit is the end of the name."""
    rows = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        text = field.description or ""
        if name == "j_rt_cm1":
            value, source = resolve_j_rt_cm1(config)
            text = f"radical-triplet exchange; {source}"
        if name not in ("fast", "temperatures_k"):
            shown = ", ".join(f"{entry:g}" for entry in np.atleast_1d(value))
            rows.append({"parameter": name, "value": shown, "meaning; source": text})
    return rows


def switching_rows(trajectories: dict[str, Trajectory]) -> list[dict[str, Any]]:
    """Return the largest concurrence, when it is reached and when the last is seen, for each case."""
    rows = []
    for name, found in trajectories.items():
        values = found.concurrence()
        entangled = found.times_ns[values > 0]
        rows.append(
            {
                "case": CASES[name],
                "largest concurrence": float(values.max()),
                "reached at (ns)": float(found.times_ns[values.argmax()]) if entangled.size else None,
                "last seen at (ns)": float(entangled[-1]) if entangled.size else None,
            }
        )
    return rows


def multiplet_rows() -> list[dict[str, Any]]:
    """Return the radical-radical concurrence of each multiplet state, computed and by the law."""
    laws = json.loads((REFERENCE / "spin_laws.json").read_text(encoding="utf-8"))
    laws = laws["radical_radical_concurrence_after_tracing_out_the_triplet"]
    multiplets = radical_triplet_radical_multiplets()

    def found(ket: Any) -> float:
        return concurrence(reduced_state(ket, DIMS, (0, 2)))

    quintet = multiplets["quintet"].kets
    computed = {
        "quintet M=0": found(quintet[2]),
        "quintet |M|=1": found(quintet[1]),
        "singlet S=0": found(multiplets["singlet"].kets[0]),
        "S=1 from radicals in triplet, M=0": found(multiplets["triplet_t"].kets[1]),
        "S=1 from radicals in triplet, |M|=1": found(multiplets["triplet_t"].kets[0]),
        "S=1 from radicals in singlet": found(multiplets["triplet_s"].kets[1]),
        "diagonal quintet with equal populations": found(quintet.T @ quintet.conj() / 5),
    }
    return [{"state": name, "law": float(law), "computed": computed[name]} for name, law in laws.items()]


def thermal_rows() -> list[dict[str, Any]]:
    """Return the long-time quartet share of a radical-triplet pair under local baths and Davies' baths."""
    law = json.loads((REFERENCE / "spin_laws.json").read_text(encoding="utf-8"))["local_T1_is_not_thermal"]
    pair = SpinSystem((0.5, 1), exchange_cm1={(0, 1): law["J_cm1"]}, names=("radical", "triplet"))
    quartet = np.linalg.eigh(pair.hamiltonian_matrix())[1][:, :4]
    projector = quartet @ quartet.conj().T
    gibbs = pair.thermal_state(law["T_K"])
    start = np.eye(6)[0]
    rows = [_thermal_row("exp(-H/kT)/Z", law["radical_triplet_quartet_share_gibbs"], gibbs, projector, gibbs)]
    for label, basis, known in (
        ("baths on each spin alone (local)", "local", law["local_channels"]),
        ("baths in the eigenbasis (Davies)", "eigen", law["radical_triplet_quartet_share_gibbs"]),
    ):
        bath = ThermalRelaxation(pair.names, 0.1, law["T_K"], basis="local" if basis == "local" else "eigen")
        final = evolve(pair, start, [0.0, 1e4], channels=[bath], solver="expm").states[-1]
        rows.append(_thermal_row(label, known, final, projector, gibbs))
    return rows


def _thermal_row(label: str, known: float, state: Any, projector: Any, gibbs: Any) -> dict[str, Any]:
    return {
        "long-time state": label,
        "quartet share, known": float(known),
        "quartet share, computed": float(np.trace(projector @ state).real),
        "largest deviation from Gibbs": float(np.abs(state - gibbs).max()),
    }


def zfs_rows(config: DynamicsConfig) -> list[dict[str, Any]]:
    """Return D of quartets and quintets: full Hamiltonian, projection and experiment."""
    entries = json.loads((REFERENCE / "molecular_experiments.json").read_text(encoding="utf-8"))
    measured = {entry["molecule"]: entry["D"] for entry in entries["high_spin_excited_states"]}
    j_rt = resolve_j_rt_cm1(config)[0]
    verdazyl = 3 * measured["9-(4-verdazyl-phenyl)anthracene"] - config.d_t_cm1
    rows = []
    for radical, coupling, spin, role in (
        ("iminonitroxide", config.d_rt_cm1, 1.5, "used for D_T, D_RT"),
        ("iminonitroxide", config.d_rt_cm1, 2.0, "used for D_T, D_RT"),
        ("verdazyl", verdazyl, 1.5, "used for D_RT"),
        ("verdazyl", verdazyl, 2.0, "predicted"),
    ):
        radicals = round(2 * spin) - 2
        molecule = QUINTETS[radical] if radicals == 2 else f"9-(4-{radical}-phenyl)anthracene"
        tensor = axial_coupling_tensor(coupling)
        system = SpinSystem(
            (1, *(0.5,) * radicals),
            exchange_cm1={(0, index): j_rt for index in range(1, radicals + 1)},
            zfs={0: zfs_tensor(config.d_t_cm1)},
            dipolar={(0, index): tensor for index in range(1, radicals + 1)},
        )
        projected = (
            zfs_quartet(config.d_t_cm1, coupling) if radicals == 1 else zfs_quintet(config.d_t_cm1, coupling, coupling)
        )
        rows.append(
            {
                "multiplet": f"{radical} {'quartet' if radicals == 1 else 'quintet'}",
                "D full Hamiltonian (cm^-1)": d_and_e(multiplet_zfs_tensor(system, spin))[0],
                "D projected (cm^-1)": projected,
                "D measured (cm^-1)": measured[molecule],
                "measured value": role,
            }
        )
    return rows


def angle_rows(config: DynamicsConfig) -> list[dict[str, Any]]:
    """Return the concurrence of the measured quintets at chosen field angles."""
    ratio = quintet_over_zeeman(config)
    populations = {radical: measured_populations(molecule) for radical, molecule in QUINTETS.items()}
    return [
        {
            "angle (deg)": angle,
            "iminonitroxide, strong field": rotated_concurrence(populations["iminonitroxide"], angle),
            f"iminonitroxide, {config.field_tesla:g} T": rotated_concurrence(
                populations["iminonitroxide"], angle, ratio
            ),
            "verdazyl, strong field": rotated_concurrence(populations["verdazyl"], angle),
        }
        for angle in (0, 5, 10, 15, 20, 25, 30, 60, 90)
    ]


def quintet_over_zeeman(config: DynamicsConfig) -> float:
    """Return D of the quintet over its Zeeman energy in the configured field, which must not be 0."""
    if config.field_tesla == 0:
        raise ValueError("Argument `field_tesla` must not be 0 where the quintet's D is compared with it, but was 0.")
    return zfs_quintet(config.d_t_cm1, config.d_rt_cm1, config.d_rt_cm1) / (
        config.g * MU_B_CM1_PER_T * abs(config.field_tesla)
    )
