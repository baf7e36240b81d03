"""What the committed exchange studies say: averages, error bars with their parts, on/off ratios, errors of methods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from molecular_qubits.electronic.projection import convergence_error, fit_products
from molecular_qubits.electronic.scf import HELD
from molecular_qubits.electronic.thermal_average import ThermalAverage, boltzmann_average
from molecular_qubits.electronic.uncertainty import PARTS, ErrorBar, combine_errors, least_ratio, ratio_or_bound
from molecular_qubits.experiments import numerical_error, spin_density_maps
from molecular_qubits.experiments.exchange_rows import Calculation
from molecular_qubits.experiments.exchange_studies import (
    BASES,
    FUNCTIONALS,
    PAPER,
    PUBLISHED,
    SHARES,
    STUDIES,
    mixed_r2scan,
    path_of,
    read,
)
from molecular_qubits.fields.alignments import enumerate_determinants, state_label
from molecular_qubits.structure.library import library_entry
from molecular_qubits.units import EV_TO_CM1, HARTREE_TO_CM1, KCAL_PER_MOL_TO_CM1, KELVIN_TO_CM1

ADIABATIC = "b3lyp, adiabatic"
"""Column of the gaps between the minima of both states."""

GAPS = (*FUNCTIONALS, ADIABATIC)
"""Columns of computed gaps."""

PROJECTIONS = ("yamaguchi", "noodleman", "unprojected")
ROOM_TEMPERATURE_K = 298.15
TO_CM1 = {
    "cm^-1": 1.0, "kcal/mol": KCAL_PER_MOL_TO_CM1, "eV": EV_TO_CM1, "meV": 1e-3 * EV_TO_CM1, "K": KELVIN_TO_CM1,
}  # fmt: skip

EXPERIMENTS = Path(__file__).resolve().parents[1] / "reference" / "molecular_experiments.json"
"""Measured values of the molecules."""

SIMULATIONS: dict[str, Any] = json.loads(
    EXPERIMENTS.with_name("radical_triplet_simulations.json").read_text(encoding="utf-8")
)
"""Published computed couplings of a radical and a triplet, each with its source."""

RESOLUTION_CM1 = 0.1
"""Smallest coupling that a difference of two fields means: grid, fit and convergence change J by up to this."""


def rows_of(study: str, **wanted: Any) -> list[dict[str, Any]]:
    """Return the rows of a committed study that have couplings and the wanted values; none if it is not there."""
    if not path_of(study).exists():
        return []
    return [
        row
        for row in read(study)["rows"]
        if "error" not in row and all(row.get(name) == value for name, value in wanted.items())
    ]


def refused_functionals(study: str) -> set[str]:
    """Return the functionals of the rows of a study that were refused."""
    return {row["xc"] for row in read(study)["rows"] if "error" in row} if path_of(study).exists() else set()


def coupling(row: dict[str, Any], i: int = 0, j: int = 1, projection: str = "yamaguchi") -> float:
    """Return the coupling of two centres of a row in cm^-1."""
    return float(row[f"j_{projection}_cm1"][i][j])


def mean_coupling(row: dict[str, Any], projection: str = "yamaguchi") -> float:
    """Return the coupling of radical and triplet in cm^-1, the mean over two radicals; of two radicals in the dark."""
    return float(np.mean([coupling(row, *pair, projection) for pair in _pairs(row)]))


def mean_local_coupling(row: dict[str, Any]) -> float | None:
    """Return the mean of `local_couplings` over the radicals; ``None`` for two centres, or where it is not known."""
    local = local_couplings(row) if len(row["j_yamaguchi_cm1"]) > 2 else None
    return None if local is None else float(np.mean([local[pair] for pair in _pairs(row)]))


def _pairs(row: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """Return radical and triplet of each half of a lit bi-radical, or the only pair."""
    return ((0, 1), (1, 2)) if len(row["j_yamaguchi_cm1"]) == 3 else ((0, 1),)


def torsion_profile(
    study: str = "mono-torsion", projection: str = "yamaguchi", energy: str = "uks"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return angles in degrees, energies of the high-spin state and couplings in cm^-1 along the torsion of a study.

    Parameters
    ----------
    study
        A study with rows at several torsions.
    projection
        One of `PROJECTIONS`.
    energy
        ``"uks"``: of the high-spin determinant; ``"gfn2"``: of the relaxation.

    Returns
    -------
    angles, energies, couplings
        By increasing angle, mirrored at 90° (anthracene is its own mirror image): from the smallest angle to 180° minus
        it.
    """
    rows = sorted(rows_of(study), key=lambda row: row["torsion_degrees"])
    angles = np.array([row["torsion_degrees"] for row in rows])
    if energy == "uks":
        energies = np.array([row["states"][0]["energy_hartree"] for row in rows]) * HARTREE_TO_CM1
    else:
        energies = np.array([row["gfn2_energy_cm1"] for row in rows])
    couplings = np.array([coupling(row, projection=projection) for row in rows])
    return _mirrored(angles, energies - energies.min(), couplings)


def _mirrored(
    angles: np.ndarray, energies: np.ndarray, couplings: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a profile of increasing angles up to 90° continued by its mirror image."""
    below = angles < 90
    return (
        np.concatenate([angles, 180 - angles[below][::-1]]),
        np.concatenate([energies, energies[below][::-1]]),
        np.concatenate([couplings, couplings[below][::-1]]),
    )


def torsion_rows(study: str = "mono-torsion") -> list[dict[str, Any]]:
    """Return one table row for each torsion: quartet energies by UKS and GFN2 above their lowest, J by projection."""
    rows = sorted(rows_of(study), key=lambda row: row["torsion_degrees"])
    uks = [row["states"][0]["energy_hartree"] * HARTREE_TO_CM1 for row in rows]
    gfn2 = [row["gfn2_energy_cm1"] for row in rows]
    return [
        {
            "torsion (°)": row["torsion_degrees"],
            "E B3LYP (cm^-1)": uks[number] - min(uks),
            "E GFN2 (cm^-1)": gfn2[number] - min(gfn2),
            **{f"J {name} (cm^-1)": coupling(row, projection=name) for name in PROJECTIONS},
        }
        for number, row in enumerate(rows)
    ]


def grid_rows(study: str = "small-grid") -> list[dict[str, Any]]:
    """Return one table row for each basis and torsion of the small radical-chromophore: J by functional, and of which
    functionals a state is held (`is_held`).
    """
    found = {(row["basis"], row["torsion_degrees"], row["xc"]): row for row in rows_of(study)}
    places = sorted({key[:2] for key in found}, key=lambda place: (BASES.index(place[0]), place[1]))
    table = []
    for place in places:
        here = {xc: row for xc in FUNCTIONALS if (row := found.get((*place, xc))) is not None}
        table.append(
            {
                "basis": place[0],
                "torsion (°)": place[1],
                **{xc: coupling(here[xc]) if xc in here else None for xc in FUNCTIONALS},
                "held": ", ".join(xc for xc, row in here.items() if is_held(row)),
            }
        )
    return table


def is_held(row: dict[str, Any]) -> bool:
    """Return whether a state of a row is held by its overlap with the guess, or known to be a saddle point: it is not
    the lowest of its kind, and its coupling is that of a state which the field alone would leave.
    """
    return any(state["solver"] in HELD or state["stable"] is False for state in row["states"])


def share_rows(study: str = "small-exchange") -> list[dict[str, Any]]:
    """Return J and the broken-symmetry state of the small radical-chromophore by the exact exchange mixed into r2SCAN.

    A row without J is one that was refused; none for shares that were not computed.
    """
    if not path_of(study).exists():
        return []
    known = {row["xc"]: row for row in read(study)["rows"]}
    columns = ("J (cm^-1)", "<S^2>, broken symmetry", "spin of the radical, broken symmetry", "solver")
    table = []
    for share in SHARES:
        if (row := known.get(mixed_r2scan(share))) is not None:
            values: dict[str, Any] = dict.fromkeys(columns)
            if "error" not in row:
                state = row["states"][1]
                found = (coupling(row), state["s2"], state["lowdin_spins"][0], state["solver"])
                values = dict(zip(columns, found, strict=True))
            table.append({"exact exchange (%)": 100 * share} | values)
    return table


def torsion_average(temperature_k: float = ROOM_TEMPERATURE_K, **options: Any) -> ThermalAverage:
    """Return the Boltzmann average of J over the torsion of the mono-radical; options as for `torsion_profile`."""
    return boltzmann_average(*torsion_profile(**options), temperature_k, period_degrees=None)


def bi_torsion_average(temperature_k: float = ROOM_TEMPERATURE_K) -> ThermalAverage | None:
    """Return the Boltzmann average of the lit J_RT of the bi-radical, the mean over its radicals, over their torsions.

    Both torsions are alike in each row (of the relaxed one, their mean is taken), and each is averaged by itself: half
    of the energy is its own. ``None`` with fewer than four rows.
    """
    rows = [*rows_of("bi", state="excited"), *rows_of("bi-torsion", state="excited")]
    if len(rows) < 4:
        return None

    def angle(row: dict[str, Any]) -> float:
        turned = row["torsion_degrees"]
        return float(np.mean(np.abs(row["held_torsions_degrees"]))) if turned is None else float(turned)

    rows.sort(key=angle)
    energies = np.array([row["states"][0]["energy_hartree"] for row in rows]) * HARTREE_TO_CM1 / 2
    angles, couplings = (np.array([value(row) for row in rows]) for value in (angle, mean_coupling))
    profile = _mirrored(angles, energies - energies.min(), couplings)
    return boltzmann_average(*profile, temperature_k, period_degrees=None)


def radical_torsion_factor(temperature_k: float = ROOM_TEMPERATURE_K) -> float | None:
    """Return J averaged over the torsion of iminonitroxide and phenylene over J at its lowest energy.

    The other torsion is relaxed at each angle. The profile is symmetric about 0 and 90°: phenylene can be turned over.
    ``None`` with fewer than four angles.
    """
    if len(rows_of("mono-second-torsion")) < 4:
        return None
    angles, energies, couplings = torsion_profile("mono-second-torsion")
    average = boltzmann_average(angles, energies, couplings, temperature_k, period_degrees=180.0)
    return average.mean_cm1 / float(couplings[np.argmin(energies)])


def mono_error_bar(temperature_k: float = ROOM_TEMPERATURE_K) -> ErrorBar:
    """Return J_RT of the mono-radical, averaged over its torsion, with its error and its parts.

    Functional, basis and grid were varied at one torsion; their relative spread is taken for the average. Grid: the
    last step and the fitted density, whatever their signs. Geometry: the average over the profile of GFN2-xTB, over
    that of UKS, J at the minimum of the latter, and the average times `radical_torsion_factor`.
    """
    average, turned = torsion_average(temperature_k), radical_torsion_factor(temperature_k)
    (here,) = rows_of("mono-torsion", torsion_degrees=50.0, xc="b3lyp", basis="6-31g*", grid_level=2)
    scale = average.mean_cm1 / coupling(here)

    def at(rows: Sequence[dict[str, Any]]) -> list[float]:
        return [scale * coupling(row) for row in rows]

    functionals = {row["xc"]: scale * coupling(row) for row in rows_of("mono-functional")}
    bases = _by_basis([here, *rows_of("mono-basis")])
    grids = sorted([*rows_of("mono-grid"), *rows_of("mono-basis", basis="6-31g")], key=lambda row: row["grid_level"])
    fitted = [row["J Yamaguchi (cm^-1)"] for row in numerical_error.read()["rows"]]
    fit_error = abs(scale * coupling(here) * (fitted[1] / fitted[0] - 1))
    steps = at(grids)
    grid_error = fit_error + (abs(steps[-1] - steps[-2]) if len(steps) > 1 else 0.0)
    _, energies, couplings = torsion_profile()
    return combine_errors(
        average.mean_cm1,
        projections_cm1=[torsion_average(temperature_k, projection=name).mean_cm1 for name in PROJECTIONS],
        functionals_cm1=functionals if len(functionals) > 1 else None,
        bases_cm1=at(bases) if len(bases) > 1 else None,
        grids_cm1=[0.0, grid_error] if len(steps) > 1 else None,
        geometries_cm1=[
            average.mean_cm1,
            torsion_average(temperature_k, energy="gfn2").mean_cm1,
            float(couplings[np.argmin(energies)]),
            *([] if turned is None else [turned * average.mean_cm1]),
        ],
        convergence_cm1=scale * row_convergence(here),
        thermal=average,
    )


def row_convergence(row: dict[str, Any], i: int = 0, j: int = 1) -> float:
    """Return the error of a coupling of a row in cm^-1 that the convergence of its fields leaves."""
    states, spins = row["states"], library_entry(row["molecule"]).spins
    if row["state"] == "ground":
        spins = spins[:: len(spins) - 1]
    determinants = [state["determinant"] for state in states]
    energies_cm1 = np.array([state["energy_hartree"] for state in states]) * HARTREE_TO_CM1
    s2 = [state["s2"] for state in states]
    return float(convergence_error(row["conv_tol"], energies_cm1, s2, spins, determinants)[i, j])


def published_order() -> dict[str, Any]:
    """Return the published estimate of J_RT: its sign and order in kelvin; whether J or 2J is meant is not known."""
    record = json.loads(EXPERIMENTS.read_text(encoding="utf-8"))
    return next(row for row in record["exchange_switching"] if "J_over_kB_K_order" in row)


def simulation_rows() -> list[dict[str, Any]]:
    """Return one table row for each published simulation of J_RT and ours as J/k and 2J/k, or that it is missing."""
    ours = {row["molecule"]: row for study in ("bi", "pyrimidinyl") for row in rows_of(study, state="excited")}
    table = []
    for reference in SIMULATIONS["rows"]:
        row = ours.get(reference["library"])
        kelvin = None if row is None else mean_coupling(row) / KELVIN_TO_CM1
        table.append(
            {
                "molecule": reference["molecule"],
                "quantity": f"{reference['quantity']} ({reference['unit']})",
                "published": reference["printed"],
                "ours, J/k and 2J/k (K)": "not computed" if kelvin is None else f"{kelvin:+.0f}, {2 * kelvin:+.0f}",
                "method": reference["method"],
                "doi": reference["doi"],
            }
        )
    return table


def bi_rows() -> list[dict[str, Any]]:
    """Return one table row for each committed calculation of the bi-radicals: ground J_RR, excited J_RT and J_RR.

    Three centres have J_RT by `local_couplings` besides, where it is known.
    """
    table = []
    for study in ("bi", "bi-torsion", "verdazyl", "verdazyl-dark"):
        for row in rows_of(study):
            excited, pairs = row["state"] == "excited", _pairs(row)
            values: dict[str, float | None] = {
                "J_RT (cm^-1)": None,
                "J_RR excited (cm^-1)": None,
                "J_RR ground (cm^-1)": None,
            }
            if excited:
                values["J_RT (cm^-1)"] = mean_coupling(row)
                values["J_RR excited (cm^-1)"] = coupling(row, 0, 2) if len(pairs) > 1 else None
            else:
                values["J_RR ground (cm^-1)"] = coupling(row)
            for name in PROJECTIONS[1:]:
                values[f"{name} (cm^-1)"] = mean_coupling(row, name)
            values["local (cm^-1)"] = mean_local_coupling(row)
            table.append(
                {
                    "molecule": row["molecule"],
                    "state": row["state"],
                    "geometry relaxed in": row.get("geometry") or row["state"],
                    "torsions (°)": ", ".join(f"{abs(angle):.0f}" for angle in row["held_torsions_degrees"]),
                    **values,
                    "J_RT of each radical (cm^-1)": (
                        ", ".join(f"{coupling(row, *pair):.1f}" for pair in pairs) if excited else None
                    ),
                    "stable": stability_of(row),
                    "largest residual (cm^-1)": largest_residual(row),
                }
            )
    return table


def method_rows() -> list[dict[str, Any]]:
    """Return one table row for each calculation of the studies `PAPER`: its coupling, or that it was not computed."""
    table = []
    files = [study for study in ("mono-torsion", *PAPER) if path_of(study).exists()]
    known = {Calculation.from_row(row): row for study in files for row in read(study)["rows"]}
    for study in PAPER:
        for calculation in STUDIES[study]:
            torsion, relaxed = calculation.torsion_degrees, calculation.geometry or calculation.state
            table.append(
                {
                    "study": study,
                    "molecule": calculation.molecule,
                    "state": calculation.state,
                    "functional": calculation.xc,
                    "basis": calculation.basis,
                    "grid": calculation.grid_level,
                    "torsion (°)": f"relaxed, {relaxed}" if torsion is None else f"{torsion:g}",
                    "J (cm^-1)": _j_or_reason(known.get(calculation)),
                }
            )
    return table


def _j_or_reason(row: dict[str, Any] | None) -> str:
    """Return the coupling of radical and triplet (mean over the radicals), or of the radicals in the dark, as text."""
    if row is None:
        return "not computed"
    if "error" in row:
        return "refused"
    return f"{mean_coupling(row):+.3g}"


def stability_of(row: dict[str, Any]) -> str:
    """Return whether all states of a row are internally stable, or that this is not known."""
    found = [state["stable"] for state in row["states"]]
    return "not known" if not found or None in found else "yes" if all(found) else "no"


def largest_residual(row: dict[str, Any]) -> float | str | None:
    """Return the largest residual of the Heisenberg fit of a row in cm^-1, or that there are no more states than
    unknowns: a residual would then say nothing; ``None`` for two centres, where nothing is fitted.
    """
    n_centres = len(row["j_yamaguchi_cm1"])
    if n_centres == 2:
        return None
    return "not overdetermined" if row["residual_cm1"] is None else max(abs(x) for x in row["residual_cm1"])


def bi_error_bar() -> ErrorBar:
    """Return the lit J_RT of the bi-radical, the mean over its radicals, with its error and its parts.

    Projection (`local_couplings` among them), functional and basis are its own, as far as it has rows of them; the
    other parts are the relative ones of the mono-radical (`mono_error_bar`). Half the difference of the couplings of
    the halves, which are equivalent, is added to the geometry, as squares.
    """
    mono = mono_error_bar()
    (lit,) = rows_of("bi", state="excited")
    first, second = (coupling(lit, *pair) for pair in _pairs(lit))
    projections = [mean_coupling(lit, name) for name in PROJECTIONS]
    if (local := mean_local_coupling(lit)) is not None:
        projections.append(local)
    functionals = {row["xc"]: mean_coupling(row) for row in (lit, *rows_of("bi-functional"))}
    bases = [mean_coupling(row) for row in _by_basis([lit, *rows_of("bi-basis")])]
    own = combine_errors(
        mean_coupling(lit),
        projections_cm1=projections,
        functionals_cm1=functionals if len(functionals) > 1 else None,
        bases_cm1=bases if len(bases) > 1 else None,
    )
    scale = abs(own.value_cm1 / mono.value_cm1)
    found = {name: scale * part for name, part in mono.parts_cm1.items()} | own.parts_cm1
    found["geometry"] = float(np.hypot(found["geometry"], (second - first) / 2))
    parts = {name: found[name] for name in PARTS if name in found}
    return replace(own, parts_cm1=parts, missing=tuple(name for name in PARTS if name not in parts))


def switching() -> dict[str, Any]:
    """Return |J_RT (lit) / J_RR (dark)| of the bi-radical, or its lower bound, at the geometry of each state.

    The lit coupling has the error of `bi_error_bar` but for the functional; the dark one the relative error of the
    mono-radical (`mono_error_bar`) but for functional and projection, its own projection, and at least
    `RESOLUTION_CM1`. A functional changes the lit coupling and its error by its own factor (``bi-functional``), or else
    by that of the mono-radical; one whose lit state is refused is left out. The dark coupling is its own one
    (``bi-dark-functional``), or else that of B3LYP, with its error, times the factor of the functional at the other
    geometry. The ratio is then a lower bound: the lowest of all functionals that have a dark coupling
    (``least_ratios``); the others are named in ``without_dark``.
    """
    bar, relative = bi_error_bar(), _shared_error()
    on = bar.value_cm1
    on_error = float(np.linalg.norm([part for name, part in bar.parts_cm1.items() if name != "functional"]))
    ground = {_geometry(row): row for row in rows_of("bi", state="ground")}
    own = {(_geometry(row), row["xc"]): row for row in rows_of("bi-dark-functional")}
    down = {
        xc: coupling(row) / coupling(ground[place])
        for (place, xc), row in own.items()
        if place == "excited" and place in ground
    }
    refused = refused_functionals("bi-functional")
    up = {xc: factor for xc, factor in functional_factors().items() if xc not in refused}
    up |= {row["xc"]: mean_coupling(row) / on for row in rows_of("bi-functional")}
    found: dict[str, Any] = {"j_on_cm1": on, "j_on_error_cm1": on_error, "lit_factors": up, "ratios": {}}
    for geometry, row in ground.items():
        off, error = _dark_coupling(row, relative)
        darks = {"b3lyp": (off, error)}
        for xc in up:
            if (geometry, xc) in own:
                darks[xc] = _dark_coupling(own[geometry, xc], relative)
            elif xc in down:
                darks[xc] = (down[xc] * off, max(RESOLUTION_CM1, abs(down[xc]) * error))
        ratio, ratio_error = ratio_or_bound(on, on_error, off, error)
        least = {xc: least_ratio(up[xc] * on, up[xc] * on_error, *darks[xc]) for xc in darks}
        if len(darks) > 1:
            ratio, ratio_error = min(least.values()), None
        found["ratios"][geometry] = {
            "j_off_cm1": off,
            "j_off_error_cm1": error,
            "dark_cm1": darks,
            "least_ratios": least,
            "without_dark": [xc for xc in up if xc not in darks],
            "ratio": ratio,
            "ratio_error": ratio_error,
            "lower_bound": ratio_error is None,
        }
    return found


def verdazyl_ratio() -> float:
    """Return the least |J_RT (lit) / J_RR (dark)| of the bi-radical of verdazyls by B3LYP, each at its own geometry.

    The relative errors are those of `switching` for the bi-radical of iminonitroxides.
    """
    (lit,), (dark,) = rows_of("verdazyl", molecule="verdazyl-bi"), rows_of("verdazyl-dark")
    found = switching()
    on = mean_coupling(lit)
    on_error = found["j_on_error_cm1"] * on / found["j_on_cm1"]
    return least_ratio(on, on_error, *_dark_coupling(dark, _shared_error()))


def _shared_error() -> float:
    """Return the relative error of the mono-radical but for functional and projection."""
    mono = mono_error_bar()
    others = [part for name, part in mono.parts_cm1.items() if name not in ("functional", "projection")]
    return float(np.linalg.norm(others)) / abs(mono.value_cm1)


def _dark_coupling(row: dict[str, Any], relative: float) -> tuple[float, float]:
    """Return J_RR of a dark bi-radical and its error: a relative one, the projection, at least `RESOLUTION_CM1`."""
    j_cm1 = coupling(row)
    projection = np.ptp([coupling(row, projection=name) for name in PROJECTIONS]) / np.sqrt(12)
    return j_cm1, max(RESOLUTION_CM1, float(np.hypot(relative * j_cm1, projection)))


def _by_basis(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    order = ("6-31g", *BASES)
    return sorted(rows, key=lambda row: order.index(row["basis"]))


def _geometry(row: dict[str, Any]) -> str:
    """Return the state in which the geometry of a row was relaxed."""
    return str(row.get("geometry") or row["state"])


def local_couplings(row: dict[str, Any]) -> np.ndarray | None:
    """Return the couplings of a row of three centres by <S_i.S_j> on their atoms (`ExchangeResult.j_local_cm1`).

    Rows of before they were kept have them in the states of their spin-density map, if there is one.
    """
    if row.get("j_local_cm1") is not None:
        return np.array(row["j_local_cm1"])
    for name, calculation in spin_density_maps.MAPS.items():
        if calculation == Calculation.from_row(row) and spin_density_maps.path_of(name).exists():
            states = spin_density_maps.load(name).states
            energies_cm1 = [state.energy_hartree * HARTREE_TO_CM1 for state in states]
            return fit_products(energies_cm1, [state.spin_products for state in states]).j_cm1
    return None


def functional_factors() -> dict[str, float]:
    """Return J_RT of the mono-radical by each functional over that by B3LYP, which is 1."""
    rows = {row["xc"]: coupling(row) for row in rows_of("mono-functional")}
    return {"b3lyp": 1.0} | {xc: value / rows["b3lyp"] for xc, value in rows.items() if "b3lyp" in rows}


def diradical_rows() -> list[dict[str, Any]]:
    """Return one row for each published gap: the published one and ours by functional, E(S) - E(T) in cm^-1.

    Vertical at the geometry of the triplet; `ADIABATIC` between the minima of both states.
    """
    computed = {(row["molecule"], row["xc"]): row for row in rows_of("diradicals")}
    relaxed = {row["molecule"]: row for row in rows_of("diradicals-adiabatic")}
    table = []
    for reference in PUBLISHED["rows"]:
        row: dict[str, Any] = {
            "molecule": reference["molecule"],
            "published (cm^-1)": reference["gap"] * TO_CM1[reference["unit"]],
            "kind": reference["kind"],
            "source": "second hand" if reference.get("second_hand") else "opened",
            "doi": reference["doi"],
        }
        for xc in FUNCTIONALS:
            found = computed.get((reference["molecule"], xc))
            row[xc] = None if found is None else 2 * coupling(found)
        triplet, singlet = computed.get((reference["molecule"], "b3lyp")), relaxed.get(reference["molecule"])
        row[ADIABATIC] = None if triplet is None or singlet is None else adiabatic_gap(triplet, singlet)
        table.append(row)
    return table


def adiabatic_gap(triplet: dict[str, Any], singlet: dict[str, Any]) -> float:
    """Return E(S) - E(T) in cm^-1 of two radicals, each state at its own geometry, without zero-point energies.

    Parameters
    ----------
    triplet, singlet
        Rows at the geometry of the triplet and at that of the broken-symmetry state, by the same method. The singlet
        lies 2J (Yamaguchi) above the triplet at its geometry, what is left of the triplet in the broken-symmetry state
        projected out.
    """
    below, above = (row["states"][0]["energy_hartree"] for row in (triplet, singlet))
    return (above - below) * HARTREE_TO_CM1 + 2 * coupling(singlet)


def errors_by_functional(rows: Sequence[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Return mean and mean absolute error of each functional over the published gaps, in cm^-1, and right signs."""
    rows = diradical_rows() if rows is None else rows
    table = []
    for xc in GAPS:
        pairs = [(row[xc], row["published (cm^-1)"]) for row in rows if row.get(xc) is not None]
        if not pairs:
            continue
        errors = np.array([ours - published for ours, published in pairs])
        table.append(
            {
                "functional": xc,
                "rows": len(pairs),
                "mean error (cm^-1)": float(errors.mean()),
                "mean absolute error (cm^-1)": float(np.abs(errors).mean()),
                "median absolute error (cm^-1)": float(np.median(np.abs(errors))),
                "right sign": sum(ours * published > 0 for ours, published in pairs),
            }
        )
    return table


def by_all_functionals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `diradical_rows` that every functional has: only over these are their errors comparable."""
    return [row for row in rows if all(row[xc] is not None for xc in FUNCTIONALS)]


def _n_before(error: str, determinants: Sequence[tuple[int, ...]]) -> int:
    """Return how many determinants come before the one that an error names; none if it names no state."""
    named = (error.startswith(f"The {state_label(determinant)} ") for determinant in determinants)
    return next((number for number, found in enumerate(named) if found), 0)


def convergence(*studies: str, **wanted: Any) -> dict[str, int]:
    """Return how many calculations and states of studies, or of rows with some values, reached the checked states.

    A calculation of several studies counts once. Of one that was refused, the states before the one that the error
    names were found; those after it were not tried.
    """
    found = [row for study in studies if path_of(study).exists() for row in read(study)["rows"]]
    rows = list(
        {
            Calculation.from_row(row): row
            for row in found
            if all(row.get(name) == value for name, value in wanted.items())
        }.values()
    )
    determinants = [enumerate_determinants(Calculation.from_row(row).spins) for row in rows]
    sizes, good = [len(found) for found in determinants], ["error" not in row for row in rows]
    reached = [
        len(found) if "error" not in row else _n_before(row["error"], found)
        for row, found in zip(rows, determinants, strict=True)
    ]
    return {
        "calculations": len(rows),
        "converged": sum(good),
        "refused": len(rows) - sum(good),
        "states": sum(sizes),
        "states converged": sum(reached),
    }
