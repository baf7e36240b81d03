"""Geometry relaxation in a given spin state by GFN2-xTB, and relaxations that are kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.structure.bonds import from_distances
from molecular_qubits.structure.clashes import check_clashes
from molecular_qubits.structure.pyscf_input import outside_files
from molecular_qubits.units import EV_TO_CM1
from shared.artifacts import Cache, versions
from shared.progress import say

if TYPE_CHECKING:
    from molecular_qubits.structure.molecule import Molecule


LIMITS = ("max_steps", "max_cycle")
"""Options of a relaxation that its result does not depend on if there is one."""


class GeometryNotConvergedError(RuntimeError):
    """The forces did not fall below the threshold within the allowed steps."""


def check_relaxation(max_steps: int = 1, fmax_ev_per_angstrom: float = 1.0) -> int:
    """Return the largest number of steps of a relaxation as an integer after checking it and the largest force."""
    from molecular_qubits.structure.molecule import check_positive, whole_number

    steps = whole_number(max_steps, "Argument `max_steps`")
    if steps < 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {max_steps!r}.")
    check_positive(fmax_ev_per_angstrom=fmax_ev_per_angstrom)
    return steps


def relax_gfn2(molecule: Molecule, *, fmax_ev_per_angstrom: float = 0.01, max_steps: int = 500) -> Molecule:
    """Relax with GFN2-xTB (tblite through ASE, BFGS) in the spin state of the molecule.

    Parameters
    ----------
    molecule
        Start geometry, charge and multiplicity.
    fmax_ev_per_angstrom
        Largest force allowed at the end, in eV/Å.
    max_steps
        Largest number of steps.

    Returns
    -------
    Molecule
        The relaxed molecule.

    Raises
    ------
    ValueError
        If steps or force are not positive.
    GeometryNotConvergedError
        If the steps did not suffice, or the field of a step did not converge.

    References
    ----------
    Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019). The open-shell state follows from the
    occupation only: GFN2 has no spin polarisation.
    """
    from ase.optimize import BFGS

    from shared.progress import progress

    max_steps = check_relaxation(max_steps, fmax_ev_per_angstrom)

    atoms = gfn2_atoms(molecule)
    with progress("GFN2-xTB geometry", total=None) as step:
        optimiser = BFGS(atoms, logfile=None)
        optimiser.attach(step)
        with gfn2_errors():
            converged = optimiser.run(fmax=fmax_ev_per_angstrom, steps=max_steps)
    if not converged:
        force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        raise GeometryNotConvergedError(
            f"GFN2-xTB did not relax the geometry in {max_steps} steps: the largest force is {force:.3g} eV/Å, and "
            f"{fmax_ev_per_angstrom:.3g} was wanted. Raise `max_steps` or start from another geometry."
        )
    return molecule.with_positions(atoms.get_positions())


def gfn2_atoms(molecule: Molecule) -> Any:
    """Return ASE ``Atoms`` with a GFN2-xTB calculator for the charge and the multiplicity of the molecule."""
    from tblite.ase import TBLite

    atoms = molecule.to_ase()
    atoms.calc = TBLite(
        method="GFN2-xTB", charge=molecule.charge, multiplicity=molecule.multiplicity, verbosity=0, max_iterations=500
    )
    return atoms


def gfn2_energy_cm1(molecule: Molecule) -> float:
    """Return the GFN2-xTB energy in cm^-1 in the spin state of the molecule; as `relax_gfn2`, it may not converge."""
    with gfn2_errors():
        return float(gfn2_atoms(molecule).get_potential_energy()) * EV_TO_CM1


@contextmanager
def gfn2_errors() -> Iterator[None]:
    """Raise a `GeometryNotConvergedError` where the field of GFN2-xTB does not converge."""
    from ase.calculators.calculator import CalculationFailed

    try:
        yield
    except CalculationFailed as error:
        raise GeometryNotConvergedError(
            f"The field of GFN2-xTB did not converge ({error}). Start from another geometry, check charge and "
            "multiplicity, or relax by UKS."
        ) from error


def cached_relaxation(
    molecule: Molecule, level: str, multiplicity: int, cache: Cache | None = None, **options: Any
) -> Molecule:
    """Return the relaxed molecule, from the cache if the same relaxation was done before.

    A relaxation by UKS keeps each step there until it is done: a killed one continues. Bonds that were made or broken
    are said: the result is then another molecule.

    Parameters
    ----------
    molecule
        Start geometry.
    level
        ``"gfn2"`` or ``"uks"``, as in `Molecule.optimize`.
    multiplicity
        2S + 1 of the state.
    cache
        The user's cache folder if ``None``.
    options
        As in `Molecule.optimize`. Those that differ from their defaults are part of the key, but for `LIMITS`: raised
        after an error that asks for it, they continue from the step that was kept.

    Returns
    -------
    Molecule
        The relaxed molecule.
    """
    changed = _changed(level, options)
    optional = ("pyscf-dispersion",) if options.get("dispersion") else ()
    key = {
        "kind": "geometry",
        "molecule": molecule.to_dict(),
        "level": level,
        "multiplicity": multiplicity,
        **({"options": changed} if changed else {}),
        "versions": versions(("tblite", "ase", "pyscf", "geometric", *optional)),
        **(outside_files(options.get("basis")) if level == "uks" else {}),
    }
    check_clashes(molecule)
    cache = Cache.of(cache, "geometry")

    def make() -> dict[str, Any]:
        kept = {"checkpoint": cache.work_folder(key) / "step.json"} if level == "uks" else {}
        return relax(molecule, level, multiplicity, **options, **kept).to_dict()

    relaxed = type(molecule).from_dict(cache.record("molecule.json", key, make))
    say_changes(molecule, relaxed, level)
    return relaxed


def relax(molecule: Molecule, level: str, multiplicity: int | None, **options: Any) -> Molecule:
    """Relax as `Molecule.optimize` does, without a look at clashes before and at bonds after it."""
    from molecular_qubits.structure.molecule import check_multiplicity
    from molecular_qubits.structure.uks_relaxation import relax_uks

    methods: dict[str, Callable[..., Molecule]] = {"gfn2": relax_gfn2, "uks": relax_uks}
    if level not in methods:
        raise ValueError(f"Argument `level` must be 'gfn2' or 'uks', but is {level!r}.")
    multiplicity = molecule.multiplicity if multiplicity is None else multiplicity
    if multiplicity is None:
        raise ValueError("Argument `multiplicity` must be given: the molecule has none of its own.")
    check_multiplicity(molecule.n_electrons, multiplicity)
    return methods[level](molecule.with_multiplicity(multiplicity), **options)


def say_changes(before: Molecule, after: Molecule, level: str) -> None:
    """Say which bonds a relaxation made or broke, if any."""
    changes = changed_bonds(before, after)
    if changes:
        say(
            f"The relaxation with {level} at multiplicity {after.multiplicity} changed the molecule: "
            f"{', '.join(changes)}."
        )


def changed_bonds(before: Molecule, after: Molecule) -> list[str]:
    """Return e.g. ``["C0-H3 broken", "O1-H3 formed"]``: bonds by distance (`from_distances`) that only one has."""
    old, new = (set(from_distances(molecule.symbols, molecule.positions)) for molecule in (before, after))
    return [
        f"{before.symbols[i]}{i}-{before.symbols[j]}{j} {'formed' if (i, j) in new else 'broken'}"
        for i, j in sorted(old ^ new)
    ]


def _changed(level: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a relaxation that differ from their defaults and that its result depends on."""
    from molecular_qubits.structure.uks_relaxation import relax_uks

    known = inspect.signature(relax_uks if level == "uks" else relax_gfn2).parameters
    changed = {
        name: value
        for name, value in options.items()
        if name not in LIMITS and (name not in known or known[name].default != value)
    }
    if "centres" in changed:  # any iterables of indices
        changed["centres"] = [sorted(int(atom) for atom in atoms) for atoms in changed["centres"]]
    return changed
