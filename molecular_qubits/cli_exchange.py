"""Commands that compute exchange couplings, and the named molecules."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molecular_qubits.electronic.exchange import ExchangeResult
    from molecular_qubits.structure.library import LibraryEntry
    from molecular_qubits.structure.molecule import Molecule


MONO_ARGUMENTS = (
    "mono", "--basis", "6-31g", "--grid-level", "1", "--conv-tol", "1e-7", "--guess-basis", "sto-3g", "--no-stability",
)  # fmt: skip
"""Arguments of ``exchange`` for the committed result of the mono-radical."""

_SAME_NAME = (
    "auxbasis", "basis", "centres", "charge", "conv_tol", "device", "dispersion", "grid_level", "guess_basis",
    "guesses", "max_cycle", "max_steps", "multiplicity", "solvers", "spins", "xc",
)  # fmt: skip

OPTIONS = {name: f"--{name.replace('_', '-')}" for name in _SAME_NAME} | {
    "solvent_epsilon": "--solvent",
    "density_fit=False": "--exact-integrals",
    "stability=False": "--no-stability",
}
"""Options of ``exchange`` for the arguments that errors of the package name."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands ``exchange``, ``mono`` and ``molecules``."""
    exchange = commands.add_parser(
        "exchange",
        help="exchange couplings of one molecule from broken-symmetry DFT",
        description="Geometry in the high-spin state, high-spin and broken-symmetry determinants, exchange couplings. "
        "Every cycle is checkpointed: a killed run continues when the same command is given again.",
    )
    exchange.add_argument("molecule", help="a name of the library (e.g. mono), an XYZ file, or a SMILES string")
    exchange.add_argument(
        "--centres", nargs="+", metavar="ATOMS", help="atom sets of the spin centres from 0, e.g. 0,1 3-12; or the "
        "words radicals (each radical of the SMILES, or of the bonds in the file) and chromophore (the largest "
        "aromatic system, spin 1); or density alone (from the spin density of --multiplicity); required unless the "
        "molecule is from the library",
    )  # fmt: skip
    exchange.add_argument(
        "--multiplicity", type=int, default=None, help="of all spins up, for --centres density (default: that of the "
        "comment of the XYZ file)",
    )  # fmt: skip
    exchange.add_argument("--spins", nargs="+", type=float, help="spin of each centre (default: 0.5 each, or library)")
    exchange.add_argument(
        "--charge",
        type=int,
        default=None,
        help="total charge (default: that of the SMILES or XYZ comment, or 0)",
    )
    exchange.add_argument("--xc", default="b3lyp", help="functional (default: %(default)s)")
    exchange.add_argument("--basis", default="6-31g*", help="basis set (default: %(default)s)")
    exchange.add_argument("--grid-level", type=int, default=3, help="integration grid 0-9 (default: %(default)s)")
    exchange.add_argument("--conv-tol", type=float, default=None, help="hartree (default: 1e-9)")
    exchange.add_argument(
        "--max-cycle", type=int, default=None, help="cycles of each solver (default: 60; 100 in a relaxation with uks)"
    )
    exchange.add_argument(
        "--max-steps", type=int, default=None, help="steps of the relaxation (default: 500 with gfn2, 100 with uks)"
    )
    exchange.add_argument("--guess-basis", default=None, help="converge the high-spin state in this small basis first")
    exchange.add_argument(
        "--guesses", nargs="+", default=None, help="of the broken-symmetry states, in the order in which they are "
        "tried (default: fragment swap)",
    )  # fmt: skip
    exchange.add_argument(
        "--solvers", nargs="+", default=None, help="of the states, in the order in which they are tried "
        "(default: diis 'level shift' newton)",
    )  # fmt: skip
    exchange.add_argument(
        "--geometry", choices=("gfn2", "uks", "as-is"), default=None, help="relaxation in the high-spin state, "
        "uks with --xc, --basis, --grid-level, --conv-tol, --max-cycle, --solvent and --dispersion (default: gfn2; "
        "as-is for an XYZ file)",
    )  # fmt: skip
    exchange.add_argument(
        "--solvent", type=float, default=None, metavar="EPSILON", help="dielectric constant of an implicit solvent"
    )
    exchange.add_argument("--dispersion", choices=("d3bj", "d3zero", "d4"), default=None, help="dispersion energy")
    exchange.add_argument(
        "--device", choices=("cpu", "gpu"), default=None, help="of the states (default: a GPU if there is one); a "
        "relaxation with uks is on the cpu if this is left out",
    )  # fmt: skip
    exchange.add_argument("--auxbasis", default=None, help="fit the states, whatever the size, in this fitting basis")
    exchange.add_argument("--exact-integrals", action="store_true", help="no density fitting, whatever the size")
    exchange.add_argument(
        "--no-stability", action="store_true", help="skip the internal stability analysis, also in a relaxation"
    )
    exchange.add_argument("--cache", type=Path, default=None, metavar="FOLDER", help="cache and checkpoints")
    exchange.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result with provenance")
    exchange.add_argument(
        "--plots", type=Path, default=None, metavar="FOLDER", help="write convergence.png and spin_density.png"
    )
    exchange.set_defaults(action=run_exchange)

    mono = commands.add_parser(
        "mono",
        help="the 55-atom mono-radical with the settings of the committed result (10 to 30 minutes, resumable)",
        description=f"The same as: molecular-qubits exchange {' '.join(MONO_ARGUMENTS)}",
    )
    mono.add_argument("--cache", type=Path, default=None, metavar="FOLDER", help="cache and checkpoints")
    mono.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result with provenance")
    mono.set_defaults(action=run_mono)

    molecules = commands.add_parser("molecules", help="list the named molecules with their spin centres")
    molecules.set_defaults(action=list_molecules)


def parse_exchange(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of ``exchange`` that some words stand for."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    return parser.parse_args(["exchange", *words])


def run_exchange(arguments: argparse.Namespace) -> None:
    """Compute and print the exchange couplings of one molecule."""
    files = (arguments.json or "", arguments.molecule)
    if all(map(os.path.isfile, files)) and os.path.samefile(*files):
        raise ValueError(f"Option `--json` must name another file than the molecule, but is {str(arguments.json)!r}.")
    result = compute_exchange(arguments)
    if arguments.json is not None:
        result.to_json(arguments.json)
    if arguments.plots is not None:
        write_plots(result, arguments.plots)
    print(describe(result))


def write_plots(result: ExchangeResult, folder: Path) -> None:
    """Write the convergence of all states and their spin densities."""
    from matplotlib import pyplot

    from molecular_qubits.experiments.convergence_figure import draw_convergence
    from molecular_qubits.experiments.spin_density_figure import draw_spin_densities, map_spin_densities
    from shared.plotting import save_figure, style

    with style():
        for name, draw in (
            ("convergence", lambda: draw_convergence(result)),
            ("spin_density", lambda: draw_spin_densities(result, map_spin_densities(result, 0.2))),
        ):
            figure = draw()
            save_figure(figure, folder / name)
            pyplot.close(figure)


def name_options(message: str) -> str:
    """Return a message with the options of ``exchange`` in place of the arguments that it names."""

    def option(found: re.Match[str]) -> str:
        return f"{'Option ' if found[1] else ''}`{OPTIONS[found[2]]}`"

    return re.sub(f"(Argument )?`({'|'.join(OPTIONS)})`", option, message)


@contextmanager
def option_names() -> Iterator[None]:
    """Let errors name the options of ``exchange`` in place of the arguments."""
    try:
        yield
    except Exception as error:
        if error.args and isinstance(error.args[0], str):
            error.args = (name_options(error.args[0]), *error.args[1:])
            if isinstance(error, ImportError):  # is shown by this, not by its arguments
                error.msg = error.args[0]
        raise


@option_names()
def compute_exchange(arguments: argparse.Namespace) -> ExchangeResult:
    """Return the exchange couplings that the arguments of ``exchange`` ask for."""
    from molecular_qubits.electronic.exchange import (
        check_attempts,
        check_high_spin,
        exchange_couplings,
        prepare_settings,
    )
    from molecular_qubits.fields.alignments import check_centres, check_spins
    from molecular_qubits.structure.library import start_geometry
    from molecular_qubits.structure.relaxation import cached_relaxation, check_relaxation
    from shared.artifacts import Cache
    from shared.progress import say

    molecule, entry = read_molecule(arguments.molecule, arguments.charge)
    if arguments.centres is None and entry is None:
        raise ValueError("Option `--centres` must be given for a molecule that is not in the library.")
    from_density = arguments.centres == ["density"]
    if from_density:
        multiplicity = density_multiplicity(molecule, arguments)
    else:
        if arguments.multiplicity is not None:
            raise ValueError("Option `--multiplicity` goes with `--centres density`: else it follows from the spins.")
        if arguments.centres is None and entry:
            centres, spins = list(entry.centres), list(entry.spins)
        else:
            centres, spins = read_centres(molecule, arguments.centres)
        spins = spins if arguments.spins is None else arguments.spins
        check_centres(centres, molecule.n_atoms)
        check_spins(spins, len(centres))
        multiplicity = check_high_spin(molecule, spins)
    geometry = arguments.geometry or ("as-is" if molecule.smiles is None else "gfn2")
    steps = given(arguments, "max_steps")
    if steps and geometry == "as-is":
        raise ValueError("Option `--max-steps` goes with a relaxation: give `--geometry gfn2` or `--geometry uks`.")
    if arguments.auxbasis is not None and arguments.exact_integrals:
        raise ValueError("Option `--auxbasis` must be left out with `--exact-integrals`: nothing is fitted then.")
    method = {
        **given(arguments, "conv_tol", "max_cycle"),
        "xc": arguments.xc,
        "basis": arguments.basis,
        "grid_level": arguments.grid_level,
        "density_fit": False if arguments.exact_integrals else None,
        "solvent_epsilon": arguments.solvent,
        "dispersion": arguments.dispersion,
    }
    options: dict[str, Any] = {
        **method,
        **({} if arguments.auxbasis is None else {"auxbasis": arguments.auxbasis, "density_fit": True}),
        "guess_basis": arguments.guess_basis,
        "device": arguments.device,
    }
    attempts = given(arguments, "guesses", "solvers")
    check_attempts(**attempts)  # refuses before the geometry is relaxed, as do the next lines
    check_relaxation(**steps)
    prepare_settings(molecule, multiplicity, **options)
    if geometry != "as-is":
        say(f"Relaxing the geometry with {geometry} at multiplicity {multiplicity}.")
        cache = Cache(arguments.cache, name="geometry")
        if molecule.smiles is not None:  # a file's conformer is kept
            molecule = start_geometry(molecule)
            if geometry == "uks":
                molecule = cached_relaxation(molecule, "gfn2", multiplicity, cache)
        chosen: dict[str, Any] = {}
        if geometry == "uks":
            chosen = {**method, "device": arguments.device or "cpu"}
            if arguments.no_stability:
                chosen["stability"] = False
            if not from_density:  # each step is checked for the spins of these
                chosen |= {"centres": centres, "spins": spins}
        molecule = cached_relaxation(molecule, geometry, multiplicity, cache, **chosen, **steps)
    options["cache"] = Cache(arguments.cache, name="scf")
    if from_density:
        from molecular_qubits.electronic.density_centres import centres_from_density

        found = centres_from_density(molecule, multiplicity, **options)
        centres, spins = [centre.atoms for centre in found], [centre.spin for centre in found]
        say("Centres: " + "; ".join(f"{','.join(map(str, c.atoms))} (S = {c.spin:g})" for c in found))
    stability = not arguments.no_stability
    return exchange_couplings(molecule, centres, spins=spins, stability=stability, **attempts, **options)


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of the arguments that have a value, for functions whose defaults differ."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def density_multiplicity(molecule: Molecule, arguments: argparse.Namespace) -> int:
    """Return the multiplicity in which ``--centres density`` looks for the centres."""
    from molecular_qubits.structure.molecule import check_multiplicity

    multiplicity = molecule.multiplicity if arguments.multiplicity is None else arguments.multiplicity
    if multiplicity is None:
        raise ValueError("Option `--multiplicity` must be given with `--centres density`: that of all spins up.")
    if arguments.spins is not None:
        raise ValueError("Option `--spins` must be left out with `--centres density`: they follow from the density.")
    check_multiplicity(molecule.n_electrons, multiplicity)
    if multiplicity < 3:
        raise ValueError(
            f"Option `--multiplicity` must be 3 or more with `--centres density`: two spins up; but is {multiplicity}."
        )
    return int(multiplicity)


def list_molecules(arguments: argparse.Namespace) -> None:
    """Print every molecule of the library: name, description, spins and SMILES."""
    from molecular_qubits.structure.library import LIBRARY

    for entry in LIBRARY.values():
        spins = ", ".join("1/2" if spin == 0.5 else f"{spin:g}" for spin in entry.spins)
        print(f"{entry.name}\n    {entry.description}\n    spins {spins}; {entry.smiles}")


def run_mono(arguments: argparse.Namespace) -> None:
    """Compute and print the radical-triplet exchange of the 55-atom mono-radical."""
    chosen = parse_exchange(MONO_ARGUMENTS)
    chosen.cache, chosen.json, chosen.plots = arguments.cache, arguments.json, None
    run_exchange(chosen)


def read_molecule(text: str, charge: int | None = None) -> tuple[Molecule, LibraryEntry | None]:
    """Return the molecule that a library name, an XYZ file or a SMILES string stands for."""
    from molecular_qubits.structure.library import LIBRARY, library_entry
    from molecular_qubits.structure.molecule import Molecule
    from shared.config import suggestion

    if text in LIBRARY:
        entry = library_entry(text)
        return Molecule.from_smiles(entry.smiles, charge=charge), entry
    if text.lower().endswith(".xyz"):
        return Molecule.from_xyz(text, charge=charge), None
    if os.path.isfile(text):  # as `Path.is_file`, which takes no SMILES of more than 255 characters
        raise ValueError(f"Argument `molecule` must end in .xyz where it is an XYZ file, but is {text!r}.")
    try:
        return Molecule.from_smiles(text, charge=charge), None
    except ValueError as error:
        raise ValueError(
            "Argument `molecule` must be a library name (`molecular-qubits molecules` lists them), an XYZ file or a "
            f"SMILES string, but is {text!r}: {error}{suggestion(text, LIBRARY)}"
        ) from None


def read_centres(molecule: Molecule, words: list[str]) -> tuple[list[tuple[int, ...]], list[float]]:
    """Return the atom sets and spins that the words of ``--centres`` stand for."""
    from molecular_qubits.structure.centres import chromophore_centre, radical_centres

    centres: list[tuple[int, ...]] = []
    spins: list[float] = []
    for word in words:
        if word == "radicals":
            found, spin = list(radical_centres(molecule)), 0.5
        elif word == "chromophore":
            found, spin = [chromophore_centre(molecule)], 1.0
        else:
            found, spin = [parse_atoms(word)], 0.5
        centres += found
        spins += [spin] * len(found)
    return centres, spins


def parse_atoms(text: str) -> tuple[int, ...]:
    """Return the atom indices of e.g. ``0,1,3-5``."""
    atoms: list[int] = []
    reversed_ranges: list[str] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            found = range(int(first), int(last) + 1) if dash else [int(first)]
            if not found:
                reversed_ranges.append(part)
            atoms.extend(found)
    except ValueError:
        raise ValueError(
            f"Option `--centres` must hold atom sets such as 0,1 or 3-12, radicals or chromophore, but holds {text!r}."
        ) from None
    if reversed_ranges:
        raise ValueError(
            f"Option `--centres` must hold ranges from the smaller to the larger index, such as 3-12, but holds "
            f"{reversed_ranges[0]!r}, which is reversed."
        )
    return tuple(atoms)


def describe(result: ExchangeResult) -> str:
    """Return a result as text: one line for each determinant and each coupling."""
    lines = [
        "state                          E / hartree       <S^2>  spin on centres (Löwdin)  cycles  seconds  stable"
    ]
    for state in result.states:
        spins = " ".join(f"{x:+.3f}" for x in state.lowdin_spins)
        lines.append(
            f"{state.label:<28s} {state.energy_hartree:16.8f} {state.s2:9.4f}  {spins:<24s} {state.cycles:6d}"
            f"  {state.seconds:7.1f}  {state.stability}"
        )
    unstable = [state.label for state in result.states if state.stable is False]
    if unstable:
        lines.append(
            f"Not stable: {', '.join(unstable)}. Another determinant lies lower. The couplings are those of the states "
            "that were asked for; check whether they are the ones of interest (centres, charge, functional)."
        )
    held = [state.label for state in result.states if state.held]
    if held:
        lines.append(
            f"Held at the orbitals of their guess: {', '.join(held)}. Without that the field ends in another "
            "determinant, so that these states depend on the functional more than others do: compare several."
        )
    several = len(result.spins) > 2
    lines.append("J in cm^-1, H = -2 J Si.Sj   Yamaguchi  Noodleman  unprojected" + several * " local <Si.Sj>")
    for i in range(len(result.spins)):
        for j in range(i + 1, len(result.spins)):
            values = (result.j_yamaguchi_cm1[i, j], result.j_noodleman_cm1[i, j], result.j_unprojected_cm1[i, j])
            values += (result.j_local_cm1[i, j],) if several else ()
            lines.append(f"centres {i} and {j:<14d} " + " ".join(f"{x:+12.3f}" for x in values))
            lines.append(f"  J = {result.error_bar(i, j)}: a lower bound of the error while sources are missing")
    if result.overdetermined:
        residual, of_s2 = (max(abs(x) for x in found) for found in (result.residual_cm1, result.residual_s2))
        lines.append(f"Largest residual of the Heisenberg fit: {residual:.3g} cm^-1; of <S^2>: {of_s2:.2g}.")
    elif several:
        lines.append("As many determinants as unknowns: the Heisenberg fit has no residual (not overdetermined).")
    if result.poor_fit:
        lines.append(
            "The Heisenberg model does not describe these determinants: more than a tenth of their energy range is "
            "left. Do not use the couplings; check the centres, or whether the spins are local at all."
        )
    return "\n".join(lines)
