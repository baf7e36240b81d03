"""Torsion scans: rigid, or relaxed by GFN2-xTB with the torsion held; relaxed geometries are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from molecular_qubits.structure.clashes import CLASH_SHARE, closest_contact
from molecular_qubits.structure.interfaces import as_molecule
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.relaxation import GeometryNotConvergedError, check_relaxation, gfn2_energy_cm1
from molecular_qubits.structure.torsions import Torsion
from shared.artifacts import Cache, versions
from shared.progress import say, track

FMAX_EV_PER_ANGSTROM = 0.02
"""Largest force of a relaxed geometry unless said otherwise."""


@dataclass(frozen=True)
class TorsionScan:
    """Geometries along a torsion: ``angles_degrees`` ``(n,)``, their molecules, GFN2-xTB energies above the lowest.

    Angles whose geometry clashes or did not relax are left out and listed in ``failed_degrees``.
    """

    atoms: Torsion
    relaxed: bool
    angles_degrees: np.ndarray
    molecules: tuple[Molecule, ...]
    energies_cm1: np.ndarray
    failed_degrees: tuple[float, ...]


def scan_torsion(
    molecule: Any,
    atoms: Torsion,
    angles_degrees: ArrayLike,
    *,
    multiplicity: int | None = None,
    relaxed: bool = True,
    fmax_ev_per_angstrom: float = FMAX_EV_PER_ANGSTROM,
    max_steps: int = 300,
    cache: Cache | None = None,
) -> TorsionScan:
    """Scan a torsion of a molecule in its spin state, by GFN2-xTB only.

    Parameters
    ----------
    molecule
        Start geometry: a `Molecule`, ASE ``Atoms``, an RDKit ``Mol``, an XYZ file or a SMILES string, as in
        `as_molecule`.
    atoms
        Four atom indices; the bond between the middle ones must be outside rings.
    angles_degrees
        Torsion angles, all different.
    multiplicity
        2S + 1 of the state; that of the molecule if ``None``.
    relaxed
        Relax everything else with GFN2-xTB; otherwise only the torsion changes. Each relaxation starts from the
        relaxed geometry of the angle before, turned on.
    fmax_ev_per_angstrom, max_steps
        Of the relaxation.
    cache
        Where relaxed geometries are kept; the user's cache folder if ``None``. An interrupted scan continues.

    Returns
    -------
    TorsionScan
        In the order of the angles.

    Raises
    ------
    TypeError
        If the molecule is of another type.
    ValueError
        If the molecule cannot be read or has no multiplicity, the torsion cannot be turned, an angle is not finite or
        is repeated, or there is none, or steps or force are not positive.
    GeometryNotConvergedError
        If no angle gives a geometry.
    """
    angles = np.atleast_1d(np.asarray(angles_degrees, dtype=float))
    if angles.ndim != 1 or not np.all(np.isfinite(angles)) or not 0 < len(set(angles.tolist())) == len(angles):
        raise ValueError("Argument `angles_degrees` must hold finite angles, one at least and each once.")
    max_steps = check_relaxation(max_steps, fmax_ev_per_angstrom)
    molecule = as_molecule(molecule, multiplicity=multiplicity)
    if molecule.multiplicity is None:
        raise ValueError("Argument `multiplicity` must be given: the molecule has none of its own.")
    cache, start = Cache.of(cache, "geometry"), molecule
    kept: list[tuple[float, Molecule, float]] = []
    failed: list[float] = []
    for angle in track([float(x) for x in angles], "torsion scan"):
        geometry = start.set_torsion(atoms, angle)
        contact = closest_contact(geometry)
        if contact is not None and contact[2] < CLASH_SHARE:
            say(f"Torsion {angle:g}°: atoms {contact[0]} and {contact[1]} clash; left out.")
            failed.append(angle)
            continue
        try:
            if relaxed:
                held = {(atoms[0], atoms[1], atoms[2], atoms[3]): angle}
                geometry = cached_at_torsions(start, held, cache, fmax_ev_per_angstrom, max_steps)
            kept.append((angle, geometry, gfn2_energy_cm1(geometry)))
        except GeometryNotConvergedError as error:
            say(f"Torsion {angle:g}°: {error}")
            failed.append(angle)
            continue
        start = geometry if relaxed else start
    if not kept:
        raise GeometryNotConvergedError(
            f"No angle of the torsion {tuple(atoms)} gave a geometry. Relax the molecule first, or raise `max_steps`."
        )
    energies = np.array([energy for _, _, energy in kept])
    return TorsionScan(
        atoms=atoms,
        relaxed=relaxed,
        angles_degrees=np.array([angle for angle, _, _ in kept]),
        molecules=tuple(geometry for _, geometry, _ in kept),
        energies_cm1=energies - energies.min(),
        failed_degrees=tuple(failed),
    )


def cached_at_torsions(
    molecule: Molecule,
    torsions: Mapping[Torsion, float],
    cache: Cache,
    fmax_ev_per_angstrom: float = FMAX_EV_PER_ANGSTROM,
    max_steps: int = 300,
) -> Molecule:
    """Return `relax_at_torsions`, from the cache if the same was done before, whatever number of steps was allowed."""
    changed = fmax_ev_per_angstrom != FMAX_EV_PER_ANGSTROM
    key = {
        "kind": "geometry at torsions",
        "molecule": molecule.to_dict(),
        "torsions": [[[int(atom) for atom in atoms], degrees] for atoms, degrees in torsions.items()],
        **({"fmax_ev_per_angstrom": fmax_ev_per_angstrom} if changed else {}),
        "versions": versions(("tblite", "ase")),
    }

    def make() -> dict[str, Any]:
        return relax_at_torsions(molecule, torsions, fmax_ev_per_angstrom, max_steps).to_dict()

    return Molecule.from_dict(cache.record("molecule.json", key, make))


def relax_at_torsions(
    molecule: Molecule,
    torsions: Mapping[Torsion, float],
    fmax_ev_per_angstrom: float = FMAX_EV_PER_ANGSTROM,
    max_steps: int = 300,
) -> Molecule:
    """Relax with GFN2-xTB while torsions are held.

    Parameters
    ----------
    molecule
        Start geometry, charge and multiplicity; its torsions are set first.
    torsions
        Degrees for each torsion, named by its four atom indices.
    fmax_ev_per_angstrom, max_steps
        Largest force at the end, without that along the torsions, and largest number of steps.

    Raises
    ------
    GeometryNotConvergedError
        If the steps did not suffice, or the constraint was lost.
    """
    from ase.constraints import FixInternals
    from ase.optimize import BFGS

    from molecular_qubits.structure.relaxation import gfn2_atoms, gfn2_errors

    for atoms, degrees in torsions.items():
        molecule = molecule.set_torsion(atoms, degrees)
    held = gfn2_atoms(molecule)
    fixed = [[degrees % 360.0, list(atoms)] for atoms, degrees in torsions.items()]
    angles = " and ".join(f"{degrees:g}°" for degrees in torsions.values())
    held.set_constraint(FixInternals(dihedrals_deg=fixed, epsilon=1e-6))
    try:
        with gfn2_errors():
            converged = BFGS(held, logfile=None).run(fmax=fmax_ev_per_angstrom, steps=max_steps)
    except ValueError as error:  # ASE's way to say that the constraint cannot be met
        raise GeometryNotConvergedError(f"The torsion could not be held at {angles}: {error}.") from None
    if not converged:
        raise GeometryNotConvergedError(
            f"GFN2-xTB did not relax the geometry at the torsion {angles} in {max_steps} steps. Raise `max_steps`."
        )
    return molecule.with_positions(held.get_positions())
