"""Conformers of a molecule: an ETKDG ensemble, relaxed and ranked by GFN2-xTB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from molecular_qubits.structure.embedding import check_one_molecule
from molecular_qubits.structure.interfaces import as_molecule
from molecular_qubits.structure.molecule import Molecule, check_multiplicity, whole_number
from molecular_qubits.structure.relaxation import (
    GeometryNotConvergedError,
    cached_relaxation,
    check_relaxation,
    gfn2_energy_cm1,
)
from molecular_qubits.units import KELVIN_TO_CM1
from shared.artifacts import Cache
from shared.progress import say, track

SAME_RMSD_ANGSTROM = 0.2
SAME_ENERGY_CM1 = 10.0
"""Two geometries closer than both are one conformer; symmetric atoms may be exchanged, mirror images stay apart."""


@dataclass(frozen=True)
class Conformer:
    """A relaxed geometry and its GFN2-xTB energy above the lowest conformer in cm^-1."""

    molecule: Molecule
    energy_cm1: float


def find_conformers(
    molecule: Any,
    *,
    multiplicity: int | None = None,
    n_embeddings: int = 20,
    window_cm1: float = 1000.0,
    seed: int = 42,
    fmax_ev_per_angstrom: float = 0.02,
    cache: Cache | None = None,
) -> tuple[Conformer, ...]:
    """Find the conformers of a molecule.

    Parameters
    ----------
    molecule
        A SMILES string, an RDKit ``Mol``, or a `Molecule` that was made from a SMILES. All conformers are the
        stereoisomer of its geometry; stereocentres that a SMILES leaves open are those of its `Molecule.from_smiles`.
    multiplicity
        2S + 1 of the state that is relaxed; that of the molecule if ``None``.
    n_embeddings
        Start geometries by ETKDG.
    window_cm1
        Conformers above the lowest by more are left out (1000 cm^-1 are 5 kT at room temperature).
    seed
        Seed of the embeddings.
    fmax_ev_per_angstrom
        Largest force of a relaxed geometry.
    cache
        Where relaxed geometries are kept; the user's cache folder if ``None``. An interrupted search continues.

    Returns
    -------
    tuple of Conformer
        By increasing energy, the first at 0; no two are the same.

    Raises
    ------
    ValueError
        If an argument is out of range, or the molecule has no SMILES, no multiplicity or several parts.
    GeometryNotConvergedError
        If no start geometry relaxes.
    """
    start = as_molecule(molecule, multiplicity=multiplicity)
    if start.smiles is None:
        raise ValueError("Argument `molecule` must have been made from a SMILES: bond orders are needed to embed it.")
    if start.multiplicity is None:
        raise ValueError("Argument `multiplicity` must be given: the molecule has none of its own.")
    check_multiplicity(start.n_electrons, start.multiplicity)
    for name, value in (("n_embeddings", n_embeddings), ("window_cm1", window_cm1)):
        if not value > 0:
            raise ValueError(f"Argument `{name}` must be positive, but is {value!r}.")
    check_relaxation(fmax_ev_per_angstrom=fmax_ev_per_angstrom)
    n_embeddings = whole_number(n_embeddings, "Argument `n_embeddings`")
    cache = Cache.of(cache, "geometry")
    options = {"fmax_ev_per_angstrom": fmax_ev_per_angstrom}
    found: list[tuple[float, Molecule]] = []
    failed = 0
    for positions in track(_embeddings(start, n_embeddings, seed), "conformers", n_embeddings):
        try:
            relaxed = cached_relaxation(start.with_positions(positions), "gfn2", start.multiplicity, cache, **options)
            energy = gfn2_energy_cm1(relaxed)
        except GeometryNotConvergedError:
            failed += 1
            continue
        if not any(
            abs(energy - e) < SAME_ENERGY_CM1 and _rmsd(relaxed, other) < SAME_RMSD_ANGSTROM for e, other in found
        ):
            found.append((energy, relaxed))
    if not found:
        raise GeometryNotConvergedError(
            f"None of {n_embeddings} start geometries relaxed with GFN2-xTB. Check the multiplicity and the SMILES."
        )
    if failed:
        say(f"{failed} of {n_embeddings} start geometries did not relax and were left out.")
    found.sort(key=lambda pair: pair[0])
    lowest = found[0][0]
    return tuple(Conformer(m, energy - lowest) for energy, m in found if energy - lowest <= window_cm1)


def conformer_populations(energies_cm1: Any, temperature_k: float) -> np.ndarray:
    """Return the Boltzmann populations ``(n,)`` of conformers, without the entropy of their vibrations.

    Parameters
    ----------
    energies_cm1
        ``(n,)``, from any zero.
    temperature_k
        Positive, in K.
    """
    energies = np.asarray(energies_cm1, dtype=float)
    if energies.ndim != 1 or not len(energies) or not np.all(np.isfinite(energies)):
        raise ValueError(f"Argument `energies_cm1` must be finite energies (n,), but has shape {energies.shape}.")
    if not temperature_k > 0:
        raise ValueError(f"Argument `temperature_k` must be positive, but is {temperature_k!r}.")
    weights = np.exp(-(energies - energies.min()) / (KELVIN_TO_CM1 * temperature_k))
    return weights / weights.sum()


def _embeddings(molecule: Molecule, count: int, seed: int) -> list[np.ndarray]:
    """Return up to ``count`` ETKDG geometries relaxed by MMFF94, in the order of the molecule's atoms."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDistGeom
    from rdkit.Chem import rdForceFieldHelpers as force_fields

    mol = molecule.to_rdkit()
    check_one_molecule(mol, "molecule", repr(molecule.smiles))
    Chem.AssignStereochemistryFrom3D(mol)  # the SMILES may leave centres open, which each embedding would draw anew
    with rdBase.BlockLogs():
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = seed
        numbers = list(rdDistGeom.EmbedMultipleConfs(mol, count, parameters))
        if not numbers:
            raise ValueError(
                f"Argument `molecule` must have a 3D geometry, but RDKit cannot embed {molecule.smiles!r}."
            )
        if force_fields.MMFFHasAllMoleculeParams(mol):
            force_fields.MMFFOptimizeMoleculeConfs(mol, maxIters=2000)
    return [mol.GetConformer(number).GetPositions() for number in numbers]


def _rmsd(first: Molecule, second: Molecule) -> float:
    """Return the least RMSD of all atoms but hydrogens on carbon in Å over rotations and exchanges of like atoms."""
    from rdkit import Chem
    from rdkit.Chem import rdMolAlign

    on_carbon = Chem.MolFromSmarts("[#1;$([#1][#6])]")
    skeletons = [Chem.DeleteSubstructs(molecule.to_rdkit(), on_carbon) for molecule in (first, second)]
    return float(rdMolAlign.GetBestRMS(*skeletons))
