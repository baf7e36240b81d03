"""Exchange couplings: H-He-H against full CI, a radical and a triplet chromophore, a diradical, the 55-atom radical."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from molecular_qubits.electronic.exchange import ExchangeResult, exchange_couplings
from molecular_qubits.electronic.full_ci import full_ci_gap
from molecular_qubits.experiments import numerical_error
from molecular_qubits.experiments.exchange_sections import write_studies
from molecular_qubits.experiments.spin_density_figure import draw_spin_densities, map_spin_densities
from molecular_qubits.structure.library import library_entry, start_geometry
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.relaxation import cached_relaxation
from molecular_qubits.units import HARTREE_TO_CM1
from shared.artifacts import Cache
from shared.config import FrozenConfig
from shared.results import ResultsWriter

_PACKAGE = Path(__file__).resolve().parent.parent
REFERENCE = _PACKAGE / "reference"
DATA = _PACKAGE / "experiments" / "data"
STATE_DIGITS = {"E (hartree)": 11}


class ExchangeConfig(FrozenConfig):
    """What the exchange experiment computes, and how."""

    xc: str = "b3lyp"
    basis: str = "6-31g*"
    grid_level: int = Field(1, ge=0, le=9)
    conv_tol: float = Field(1e-7, gt=0, le=1e-3)
    density_fit: bool = True
    stability: bool = Field(False, description="internal stability of each state; doubles the time")
    radical_triplet: str = "naphthylmethyl-nitroxide"
    diradical: str = "phenylene-bis-nitroxide"
    benchmark_distances_angstrom: tuple[float, ...] = (1.25, 1.5, 1.75, 2.0)
    stretched_h2_angstrom: tuple[float, ...] = (2.0, 2.5, 3.0, 4.0)
    benchmark_basis: str = "6-311g**"
    benchmark_grid_level: int = Field(5, ge=0, le=9)
    benchmark_conv_tol: float = Field(1e-11, gt=0, le=1e-3)
    map_spacing_angstrom: float = Field(0.15, gt=0, le=0.5)
    cache_folder: str | None = None

    @field_validator("radical_triplet", "diradical")
    @classmethod
    def _known_molecule(cls, name: str) -> str:
        library_entry(name)
        return name


def run(writer: ResultsWriter, config: ExchangeConfig) -> dict[str, Any]:
    """Compute the exchange couplings and write sections, tables and figures.

    Parameters
    ----------
    writer
        Where the results go.
    config
        Method, molecules and numerical settings.

    Returns
    -------
    dict
        ``benchmark`` (rows), ``radical_triplet``, ``diradical`` and ``mono`` (`ExchangeResult`).
    """
    benchmark = write_benchmark(writer, config)
    radical_triplet = write_radical_triplet(writer, config)
    diradical = write_diradical(writer, config)
    write_numerical_error(writer)
    mono = write_mono(writer)
    write_studies(writer)
    return {"benchmark": benchmark, "radical_triplet": radical_triplet, "diradical": diradical, "mono": mono}


def hydrogen_helium_hydrogen(distance_angstrom: float) -> Molecule:
    """Return linear H-He-H with the given H-He distance in Å."""
    d = distance_angstrom
    return Molecule(("H", "He", "H"), ((0.0, 0.0, -d), (0.0, 0.0, 0.0), (0.0, 0.0, d)))


def benchmark_rows(config: ExchangeConfig) -> list[dict[str, Any]]:
    """Return one row for each method and distance: 2J of H-He-H, the reference and the deviation in percent."""
    reference = json.loads((REFERENCE / "h_he_h.json").read_text(encoding="utf-8"))
    rows = []
    for distance in config.benchmark_distances_angstrom:
        molecule = hydrogen_helium_hydrogen(distance)
        result = exchange_couplings(
            molecule,
            [[0], [2]],
            xc="b3lyp",
            basis=config.benchmark_basis,
            grid_level=config.benchmark_grid_level,
            conv_tol=config.benchmark_conv_tol,
            cache=_cache(config, "scf"),
        )
        high, broken = result.states
        values = {
            "full_ci_E_S_minus_E_T": full_ci_gap(molecule, config.benchmark_basis).gap_cm1,
            "b3lyp_unprojected_E_BS_minus_E_HS": (broken.energy_hartree - high.energy_hartree) * HARTREE_TO_CM1,
            "b3lyp_noodleman_2_times_dE": 2 * float(result.j_noodleman_cm1[0, 1]),
            "b3lyp_yamaguchi": 2 * float(result.j_yamaguchi_cm1[0, 1]),
            "b3lyp_S2_of_BS": broken.s2,
        }
        known = dict(zip(reference["R_H_He_angstrom"], range(len(reference["R_H_He_angstrom"])), strict=True))
        for name, value in values.items():
            expected = reference[name][known[distance]] if distance in known else None
            deviation = None if expected is None else 100 * (value - expected) / abs(expected)
            rows.append(
                {
                    "R(H-He) (Å)": distance,
                    "quantity": _QUANTITIES[name],
                    "computed": value,
                    "reference": expected,
                    "deviation (%)": deviation,
                }
            )
    return rows


_QUANTITIES = {
    "full_ci_E_S_minus_E_T": "full CI, 2J = E(S) - E(T) (cm^-1)",
    "b3lyp_unprojected_E_BS_minus_E_HS": "B3LYP unprojected, 2J = E(BS) - E(HS) (cm^-1)",
    "b3lyp_noodleman_2_times_dE": "B3LYP Noodleman, 2J (cm^-1)",
    "b3lyp_yamaguchi": "B3LYP Yamaguchi, 2J (cm^-1)",
    "b3lyp_S2_of_BS": "B3LYP <S²> of the broken-symmetry state",
}


def write_benchmark(writer: ResultsWriter, config: ExchangeConfig) -> list[dict[str, Any]]:
    """Write the section on H-He-H and return its rows."""
    rows = benchmark_rows(config)
    writer.section(
        "Benchmark: H–He–H",
        f"Two hydrogen spins coupled through helium, {config.benchmark_basis}. Full CI gives the exact gap of the "
        "basis; broken-symmetry B3LYP gives one determinant, and the projections turn its energy into 2J "
        "(H = -2 J S1·S2). The reference values were calculated independently.\n\n"
        + " ".join(_against_full_ci(rows, distance) for distance in config.benchmark_distances_angstrom),
    )
    writer.table(rows, "h_he_h", "H–He–H: computed values against the reference.", digits=5)
    writer.table(
        stretched_h2_rows(config),
        "stretched_h2",
        f"Stretched H2, {config.benchmark_basis}: 2J by full CI, and by broken symmetry (Yamaguchi) with its ratio to "
        "full CI.",
        digits=5,
    )
    return rows


def stretched_h2_rows(config: ExchangeConfig) -> list[dict[str, Any]]:
    """Return one row for each distance of H2: 2J by full CI, by Hartree-Fock and by B3LYP, and <S²> of the latter."""
    rows = []
    for distance in config.stretched_h2_angstrom:
        molecule = Molecule(("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, distance)))
        exact = full_ci_gap(molecule, config.benchmark_basis).gap_cm1
        row: dict[str, Any] = {"R(H-H) (Å)": distance, "full CI (cm^-1)": exact}
        for xc in ("hf", "b3lyp"):
            result = exchange_couplings(
                molecule,
                [[0], [1]],
                xc=xc,
                basis=config.benchmark_basis,
                grid_level=config.benchmark_grid_level,
                conv_tol=config.benchmark_conv_tol,
                cache=_cache(config, "scf"),
            )
            found = 2 * float(result.j_yamaguchi_cm1[0, 1])
            name = xc.upper()
            row |= {f"{name} (cm^-1)": found, f"{name}, ratio": found / exact, f"{name}, <S²>": result.states[1].s2}
        rows.append(row)
    return rows


def _against_full_ci(rows: list[dict[str, Any]], distance: float) -> str:
    found = {row["quantity"]: row["computed"] for row in rows if row["R(H-He) (Å)"] == distance}
    exact, unprojected, noodleman, yamaguchi, s2 = (found[label] for label in _QUANTITIES.values())
    ratios = f"{unprojected / exact:.2f} (unprojected), {yamaguchi / exact:.2f} (Yamaguchi), {noodleman / exact:.2f}"
    return (
        f"At {distance:g} Å the determinant has <S²> = {s2:.2f}, and B3LYP gives {ratios} (Noodleman) times the "
        "full-CI gap."
    )


def compute(name: str, config: ExchangeConfig) -> ExchangeResult:
    """Return the exchange couplings of a library molecule at the geometry relaxed by GFN2 in its high-spin state."""
    entry = library_entry(name)
    molecule = start_geometry(Molecule.from_smiles(entry.smiles))
    molecule = cached_relaxation(molecule, "gfn2", entry.multiplicity, _cache(config, "geometry"))
    return exchange_couplings(
        molecule,
        entry.centres,
        spins=entry.spins,
        xc=config.xc,
        basis=config.basis,
        grid_level=config.grid_level,
        conv_tol=config.conv_tol,
        density_fit=config.density_fit,
        stability=config.stability,
        cache=_cache(config, "scf"),
    )


def write_radical_triplet(writer: ResultsWriter, config: ExchangeConfig) -> ExchangeResult:
    """Write the section on the small radical with a triplet chromophore and return the result."""
    entry = library_entry(config.radical_triplet)
    result = compute(config.radical_triplet, config)
    writer.section(
        f"Radical–triplet exchange: {entry.description}",
        f"{_method(result)} Spin centres: the radical (S = 1/2) and the triplet chromophore (S = 1). The quartet has "
        "all spins up; in the broken-symmetry doublet the radical is flipped. <S²> of separate spins is 3.75 and 1.75.",
    )
    writer.table(
        state_rows(result),
        "radical_triplet_states",
        "The two determinants; spin populations n_α - n_β.",
        digits=STATE_DIGITS,
    )
    writer.table(coupling_rows(result, entry.description), "radical_triplet_j", "Radical–triplet exchange J_RT.")
    maps = map_spin_densities(result, config.map_spacing_angstrom)
    writer.figure(
        lambda: draw_spin_densities(result, maps),
        "radical_triplet_spin_density",
        "Spin density of the quartet (left) and of the broken-symmetry doublet (right), integrated along the normal of "
        "the mean plane of the heavy atoms. Red: α (up), blue: β (down); the colour scale is linear below a tenth of "
        "its maximum and logarithmic above.",
    )
    return result


def write_diradical(writer: ResultsWriter, config: ExchangeConfig) -> ExchangeResult:
    """Write the section on the small diradical in its ground state and return the result."""
    entry = library_entry(config.diradical)
    result = compute(config.diradical, config)
    writer.section(
        f"Ground-state exchange of a diradical: {entry.description}",
        f"{_method(result)} Spin centres: the two radicals (S = 1/2 each); the bridge has a closed shell. <S²> of "
        "separate spins is 2 and 1. This is another molecule than the one above: the ratio of excited to ground "
        "exchange needs both in the same molecule, and is not given here.",
    )
    writer.table(
        state_rows(result), "diradical_states", "The two determinants; spin populations n_α - n_β.", digits=STATE_DIGITS
    )
    writer.table(coupling_rows(result, entry.description), "diradical_j", "Radical–radical exchange J_RR.")
    return result


def write_numerical_error(writer: ResultsWriter) -> None:
    """Write the section on the committed measurement of grid and density-fitting errors."""
    measured = numerical_error.read()
    worst = max(abs(row["deviation (cm^-1)"]) for row in measured["rows"])
    writer.section(
        "Numerical error of J",
        f"Committed measurement (`python -m molecular_qubits.experiments.numerical_error`, "
        f"{measured['provenance']['time_utc'][:10]}) on {library_entry(measured['molecule']).description}, "
        f"B3LYP/6-31G*: the integration grid and the fitted density change J by at most {worst:.2g} cm^-1. The error "
        "of the functional is far larger, as H–He–H shows.",
    )
    writer.table(measured["rows"], "numerical_error", "J against grid level and integrals (committed).")


def write_mono(writer: ResultsWriter) -> ExchangeResult:
    """Write the section on the committed result of the 55-atom mono-radical and return it."""
    path = DATA / "mono_exchange.json"
    result = ExchangeResult.from_json(path)
    entry = library_entry("mono")
    reference = json.loads((REFERENCE / "mono_radical.json").read_text(encoding="utf-8"))
    record = result.provenance
    torsion = phenyl_anthracene_degrees(result.molecule)
    writer.section(
        f"The mono-radical: {entry.description}",
        f"Committed result, not computed in this run: `{record['command']}` on {record['time_utc'][:10]}, "
        f"PySCF {record['versions']['pyscf']}; `molecular-qubits mono` computes it again. {_method(result)} The "
        "internal stability was not analysed.\n\n"
        f"The coupling follows the torsion between phenyl and anthracene, which is {torsion:.0f}° here. The other rows "
        "of the last table are an independent calculation at the same level on other geometries. One geometry is not "
        "the thermal average over the torsion.",
    )
    writer.table(
        state_rows(result),
        "mono_states",
        "The two determinants (committed); spin populations n_α - n_β.",
        digits=STATE_DIGITS,
    )
    writer.table(coupling_rows(result, entry.description), "mono_j", "Radical–triplet exchange J_RT (committed).")
    rows = [
        {
            "phenyl-anthracene torsion (°)": float(row["phenyl_anthracene_torsion_degrees"]),
            "J_RT (cm^-1)": row["j_rt_cm1"],
            "geometry": row["geometry"],
            "source": "independent calculation",
        }
        for row in reference["rows"]
    ]
    rows.append(
        {
            "phenyl-anthracene torsion (°)": torsion,
            "J_RT (cm^-1)": float(result.j_yamaguchi_cm1[0, 1]),
            "geometry": "GFN2 quartet, started 30 degrees off the symmetric torsion, largest force 0.01 eV/Å",
            "source": "committed result, Yamaguchi",
        }
    )
    writer.table(rows, "mono_torsion", "J_RT of the mono-radical against the torsion, B3LYP/6-31G.")
    return result


def phenyl_anthracene_degrees(molecule: Molecule) -> float:
    """Return the torsion of the mono-radical's phenyl-anthracene bond, folded to 0 to 90 degrees."""
    degrees = abs(molecule.torsion(molecule.ring_torsions()[1]))
    return min(degrees, 180 - degrees)


def state_rows(result: ExchangeResult) -> list[dict[str, Any]]:
    """Return one table row for each determinant."""
    rows = []
    for state in result.states:
        row: dict[str, Any] = {
            "state": state.label,
            "E (hartree)": state.energy_hartree,
            "<S²>": round(state.s2, 4),
            "<S²> separate": state.s2_separate_spins,
        }
        for centre, (lowdin, mulliken) in enumerate(zip(state.lowdin_spins, state.mulliken_spins, strict=True)):
            row[f"spin {centre} Löwdin"] = round(lowdin, 3)
            row[f"spin {centre} Mulliken"] = round(mulliken, 3)
        rows.append(
            row | {"cycles": state.cycles, "solver": state.solver, "guess": state.guess, "stable": state.stability}
        )
    return rows


def coupling_rows(result: ExchangeResult, system: str) -> list[dict[str, Any]]:
    """Return one table row for each pair of centres, with the three projections."""
    rows = []
    for i in range(len(result.spins)):
        for j in range(i + 1, len(result.spins)):
            rows.append(
                {
                    "molecule": system,
                    "S": f"{result.spins[i]:g}, {result.spins[j]:g}",
                    "J Yamaguchi (cm^-1)": float(result.j_yamaguchi_cm1[i, j]),
                    "J Noodleman (cm^-1)": float(result.j_noodleman_cm1[i, j]),
                    "J unprojected (cm^-1)": float(result.j_unprojected_cm1[i, j]),
                }
            )
    return rows


def _method(result: ExchangeResult) -> str:
    s = result.settings
    integrals = "density fitting" if s.density_fit else "exact integrals"
    return (
        f"{s.xc.upper()}/{s.basis.upper()}, {integrals}, grid level {s.grid_level}, at the geometry relaxed by "
        f"GFN2-xTB with multiplicity {result.molecule.multiplicity}."
    )


def _cache(config: ExchangeConfig, name: str) -> Cache:
    return Cache(config.cache_folder, name=name)
