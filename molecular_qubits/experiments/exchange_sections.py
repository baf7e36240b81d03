"""Tables and figures of the committed exchange studies.

``python -m molecular_qubits.experiments.exchange_sections`` writes them without computing anything;
``molecular-qubits reproduce`` writes them after what it computes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from molecular_qubits.experiments import exchange_figures as figures
from molecular_qubits.experiments import exchange_report as report
from molecular_qubits.experiments import perturbed_guesses, spin_density_maps, triplet_energy
from molecular_qubits.experiments.exchange_studies import PAPER, path_of, read
from molecular_qubits.experiments.spin_density_figure import draw_spin_densities
from molecular_qubits.structure.library import library_entry
from molecular_qubits.units import KELVIN_TO_CM1
from shared.cli import run_command
from shared.results import ResultsWriter

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_studies(writer: ResultsWriter) -> None:
    """Write a section for each study of which there are committed rows."""
    for write in (
        write_torsion,
        write_switching,
        write_simulations,
        write_methods,
        write_grid,
        write_diradicals,
        write_triplet,
        write_guesses,
    ):
        write(writer)


def origin(*studies: str) -> str:
    """Return how the committed rows of studies were made."""
    runs = [run for study in studies if path_of(study).exists() for run in read(study)["runs"]]
    days = sorted({run["time_utc"][:10] for run in runs})
    pyscf = ", ".join(sorted({run["versions"]["pyscf"] for run in runs}))
    command = f"python -m molecular_qubits.experiments.exchange_studies {' '.join(studies)}"
    return f"Committed rows (`{command}`, {' to '.join(dict.fromkeys((days[0], days[-1])))}, PySCF {pyscf})."


def write_torsion(writer: ResultsWriter) -> None:
    """Write J_RT of the mono-radical along its torsion, its thermal average and the error bar."""
    rows = report.torsion_rows()
    if not rows:
        return
    entry = library_entry("mono")
    average, bar = report.torsion_average(), report.mono_error_bar()
    published, kelvin = report.published_order(), average.mean_cm1 / KELVIN_TO_CM1
    bound = " The error is a lower bound while sources are missing." if bar.missing else ""
    writer.section(
        f"J along the torsion: {entry.description}",
        f"{origin('mono-torsion')} B3LYP/6-31G*, geometries relaxed by GFN2-xTB in the quartet with the torsion of "
        f"phenyl and anthracene held.\n\nThe Boltzmann average at {average.temperature_k:g} K is "
        f"{average.mean_cm1:+.1f} cm^-1, the thermal spread {average.standard_deviation_cm1:.1f} cm^-1. With its "
        f"error: {bar}.{bound}\n\nThe published estimate is {published['sign']} and of the order of "
        f"{published['J_over_kB_K_order']} K (J or 2J, which is not said); here J/k is {kelvin:+.0f} K, 2J/k "
        f"{2 * kelvin:+.0f} K.",
    )
    writer.table(rows, "torsion", "Energy of the quartet and J_RT by torsion (committed).")
    writer.figure(
        figures.draw_torsion,
        "torsion",
        "J_RT of the mono-radical against the torsion of phenyl and anthracene (above), energy of the quartet (below).",
    )
    _density(writer, "mono-excited")
    turned = report.radical_torsion_factor()
    if turned is not None:
        writer.section(
            "J along the torsion of iminonitroxide and phenylene",
            f"{origin('mono-second-torsion')} B3LYP/6-31G, the torsion of phenylene and anthracene relaxed at each "
            f"angle. The Boltzmann average is {turned:.2f} of J at the lowest energy.",
        )
        caption = "Energy of the quartet and J_RT by the torsion of iminonitroxide and phenylene (committed)."
        writer.table(report.torsion_rows("mono-second-torsion"), "second_torsion", caption)
    if path_of("verdazyl-torsion").exists():
        other = report.torsion_average(study="verdazyl-torsion")
        error_cm1 = bar.total_cm1 * abs(other.mean_cm1 / bar.value_cm1)
        writer.section(
            f"J along the torsion: {library_entry('verdazyl-mono').description}",
            f"{origin('verdazyl-torsion')} B3LYP/6-31G, otherwise as above. The Boltzmann average at "
            f"{other.temperature_k:g} K is {other.mean_cm1:+.1f} cm^-1, the thermal spread "
            f"{other.standard_deviation_cm1:.1f} cm^-1. With the relative error of the iminonitroxide, it is known to "
            f"± {error_cm1:.2g} cm^-1.",
        )
        caption = "Energy of the quartet and J_RT of the verdazyl by torsion (committed)."
        writer.table(report.torsion_rows("verdazyl-torsion"), "verdazyl_torsion", caption)
        _density(writer, "verdazyl-excited")


def write_switching(writer: ResultsWriter) -> None:
    """Write the couplings of the bi-radicals with the chromophore lit and dark, and their ratio."""
    rows = report.bi_rows()
    if not rows:
        return
    writer.section(
        "Exchange with the chromophore lit and dark",
        f"{origin('bi', 'bi-torsion', 'verdazyl', 'verdazyl-dark')} B3LYP/6-31G, Yamaguchi but for the columns that "
        "name another projection of J_RT, or of J_RR in the dark; other functionals by `bi-functional` and "
        "`bi-dark-functional`. " + " ".join(switching_sentences()),
    )
    writer.table(rows, "switching", "Ground J_RR, excited J_RT and J_RR (committed).")
    for name in ("bi-excited", "bi-ground"):
        _density(writer, name)


def switching_sentences() -> list[str]:
    """Return sentences for the lit coupling of the bi-radical with its error, and for its ratio to the dark one at each
    geometry; none if a state is missing.
    """
    if not report.rows_of("bi", state="excited") or not report.rows_of("bi", state="ground"):
        return []
    found = report.switching()
    sentences = [f"Lit, J_RT is {report.bi_error_bar()}."]
    if (average := report.bi_torsion_average()) is not None:
        sentences.append(
            f"Its Boltzmann average over the torsions at {average.temperature_k:g} K is {average.mean_cm1:+.1f} cm^-1, "
            f"the thermal spread {average.standard_deviation_cm1:.1f} cm^-1."
        )
    lit = found["lit_factors"].values()
    spread = f" (functionals: {min(lit):.2g} to {max(lit):.2g} times that)" if len(lit) > 1 else ""
    for geometry, ratio in found["ratios"].items():
        value = f"{ratio['ratio']:.3g}"
        darks = ", ".join(f"{j_cm1:+.2g} ± {error:.1g} {xc}" for xc, (j_cm1, error) in ratio["dark_cm1"].items())
        if ratio["lower_bound"]:
            value = f"at least {value}"
            if len(ratio["dark_cm1"]) > 1:
                without = f"; without {', '.join(ratio['without_dark'])}" if ratio["without_dark"] else ""
                each = ", ".join(f"{bound:.3g} {xc}" for xc, bound in ratio["least_ratios"].items())
                value += f" by the functional that gives least ({each}; dark: {darks} cm^-1{without})"
        error = "" if ratio["ratio_error"] is None else f" ± {ratio['ratio_error']:.2g}"
        sentences.append(
            f"With J_RT = {found['j_on_cm1']:+.1f} ± {found['j_on_error_cm1']:.2g} cm^-1 by B3LYP{spread} lit and "
            f"J_RR = {ratio['j_off_cm1']:+.3f} ± {ratio['j_off_error_cm1']:.2g} cm^-1 dark (geometry of the {geometry} "
            f"state), |J_on/J_off| is {value}{error}."
        )
    if path_of("verdazyl-dark").exists():
        sentences.append(
            f"Verdazyls in place of the iminonitroxides: at least {report.verdazyl_ratio():.3g}, by B3LYP alone, with "
            "the same relative errors, each state at its own geometry."
        )
    return sentences


def write_simulations(writer: ResultsWriter) -> None:
    """Write what others computed for a radical and a triplet beside ours."""
    writer.section(
        "Earlier simulations of radical and triplet",
        "Published couplings as printed; none of the opened sources (`molecular_qubits/reference/"
        "radical_triplet_simulations.json`) says whether J or 2J is meant, so ours are given as both. Ours: "
        "B3LYP/6-31G, Yamaguchi, mean over the radicals, `python -m molecular_qubits.experiments.exchange_studies bi "
        "pyrimidinyl`.",
    )
    writer.table(report.simulation_rows(), "simulations", "Published simulations and ours (committed).")


def write_methods(writer: ResultsWriter) -> None:
    """Write what one functional, basis, grid or torsion after the other changes, and what was not computed."""
    rows = report.method_rows()
    missing = sum(row["J (cm^-1)"] == "not computed" for row in rows)
    whole, ours = (report.convergence("mono-torsion", *PAPER, **wanted) for wanted in ({}, {"xc": "b3lyp"}))
    other = {name: count - ours[name] for name, count in whole.items()}
    writer.section(
        "The paper's molecules, one axis at a time",
        f"{len(rows) - missing} of {len(rows)} calculations are there; the others are not computed: "
        "`python -m molecular_qubits.experiments.exchange_studies STUDY` (minutes to hours each). Lit: J_RT, mean over "
        f"the radicals; ground: J_RR. Yamaguchi. Of {ours['states']} states by B3LYP {ours['states converged']} "
        f"reached the checked ones, of {other['states']} by other functionals {other['states converged']}; the others "
        "are refused or, after a refused one, not tried.",
    )
    writer.table(rows, "methods", "J of the paper's molecules by functional, basis, grid and torsion (committed).")


def write_grid(writer: ResultsWriter) -> None:
    """Write J of the small radical-chromophore by functional, basis and torsion."""
    rows = report.grid_rows()
    if not rows:
        return
    writer.section(
        f"Functional, basis and torsion: {library_entry('naphthylmethyl-nitroxide').description}",
        f"{origin('small-grid')} Yamaguchi; a dash is a calculation that was not made or was refused. The torsion is "
        "that about the bond of methylene and naphthalene.",
    )
    caption = "J_RT (cm^-1) by functional (committed). Held: a state is held by its overlap with the guess."
    writer.table(rows, "method_grid", caption)
    if shares := report.share_rows():
        caption = "J_RT at 90°, 6-31G*, by the share of exact exchange in r2SCAN (committed). A dash: refused."
        writer.table(shares, "exact_exchange", caption)
    writer.figure(
        figures.draw_method_grid,
        "method_grid",
        "J_RT of the small radical-chromophore by functional, basis, torsion. Open markers: a state is held by its "
        "overlap with the guess, not the lowest.",
    )


def write_diradicals(writer: ResultsWriter) -> None:
    """Write computed and published singlet-triplet gaps of diradicals and the errors by functional."""
    if not path_of("diradicals").exists():
        return
    counts, whole = report.convergence("diradicals", xc="b3lyp"), report.convergence("diradicals")
    writer.section(
        "Diradicals against published gaps",
        f"{origin('diradicals')} E(singlet) - E(triplet) = 2J by Yamaguchi, 6-31G*, vertical at the geometry of the "
        f"triplet ({report.ADIABATIC}: each state at its own), no zero-point energies; most published gaps are "
        "adiabatic. The sources that were opened are in `molecular_qubits/reference/diradicals.json`. "
        f"By B3LYP {counts['converged']} of {counts['calculations']} calculations and {counts['states converged']} of "
        f"{counts['states']} states reached the checked ones, by all functionals {whole['states converged']} of "
        f"{whole['states']} states; the rest were refused with an error.",
    )
    rows = report.diradical_rows()
    writer.table(rows, "diradicals", "Published and computed gaps in cm^-1 (committed).")
    writer.table(report.errors_by_functional(rows), "diradical_errors", "Errors by functional, each over its own rows.")
    opened = [row for row in rows if row["source"] == "opened"]
    writer.table(report.errors_by_functional(opened), "diradical_errors_opened", "Without gaps known at second hand.")
    shared = report.by_all_functionals(rows)
    if shared:
        about = f"Errors over the {len(shared)} molecules that all functionals have."
        writer.table(report.errors_by_functional(shared), "diradical_errors_shared", about)
    writer.figure(figures.draw_published, "diradicals", "Computed against published gaps; the line is equality.")


def write_triplet(writer: ResultsWriter) -> None:
    """Write the triplet energy of anthracene by functional."""
    record = triplet_energy.read()
    measured = record["measured_cm1"]
    writer.section(
        "Triplet energy of anthracene",
        f"Committed rows (`python -m molecular_qubits.experiments.triplet_energy`); geometry: {record['geometry']}. "
        f"Measured: {measured:,.0f} cm^-1, with zero-point energies, which the computed values do not hold.",
    )
    rows = [
        row | {"adiabatic - measured (cm^-1)": row["adiabatic (cm^-1)"] - measured, "measured (cm^-1)": measured}
        for row in record["rows"]
    ]
    writer.table(rows, "triplet_energy", "Energy difference of triplet and singlet fields (committed).", digits=5)


def write_guesses(writer: ResultsWriter) -> None:
    """Write how runs from perturbed guesses ended."""
    if not perturbed_guesses.PATH.exists():
        return
    rows = [{name: row[name] for name in perturbed_guesses.COLUMNS} for row in perturbed_guesses.read()["rows"]]
    writer.section(
        "Perturbed guesses",
        "Committed rows (`python -m molecular_qubits.experiments.perturbed_guesses`): occupied orbitals of the guess "
        "of each state turned at random into the virtual ones. *Right*: every state within 1 cm^-1 of that from the "
        "usual guess; *refused*: an error; *wrong*: another energy, and no error.",
    )
    writer.table(rows, "perturbed_guesses", "Runs by their end (committed).")


def _density(writer: ResultsWriter, name: str) -> None:
    if not spin_density_maps.path_of(name).exists():
        return
    stored = spin_density_maps.load(name)

    def draw() -> Figure:
        return draw_spin_densities(stored, stored.maps)

    writer.figure(
        draw,
        f"spin_density_{name}",
        f"Spin densities of {name} (committed), integrated along the normal of the mean plane of the heavy atoms. Red: "
        "α (up), blue: β (down); linear below a tenth of the maximum, logarithmic above.",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write tables and figures of the committed studies."""
    parser = argparse.ArgumentParser(
        prog="python -m molecular_qubits.experiments.exchange_sections", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of results (default: %(default)s)")
    arguments = parser.parse_args(argv)

    def write() -> None:
        writer = ResultsWriter(arguments.out, "exchange_studies")
        write_studies(writer)
        print(writer.finish())

    return run_command(write)


if __name__ == "__main__":
    raise SystemExit(main())
