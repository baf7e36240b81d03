"""Spin centres of a molecule from the spin density of its high-spin field, which the couplings then start from."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from molecular_qubits.electronic.broken_symmetry import StateRunner
from molecular_qubits.electronic.exchange import prepare_settings
from molecular_qubits.electronic.scf import SCFSettings, Workspace
from molecular_qubits.electronic.spin_centres import SpinCentre, find_spin_centres
from molecular_qubits.structure.clashes import check_clashes
from molecular_qubits.structure.interfaces import as_molecule
from molecular_qubits.structure.molecule import check_multiplicity, check_positive
from shared.artifacts import Cache

METHOD = ("guess_basis", *(field.name for field in fields(SCFSettings)))
"""Arguments of `exchange_couplings` that the high-spin field depends on."""


def centres_from_density(
    molecule: Any,
    multiplicity: int,
    *,
    threshold: float = 0.1,
    cache: Cache | None = None,
    **method: Any,
) -> tuple[SpinCentre, ...]:
    """Find the spin centres in the spin density of the high-spin field.

    Parameters
    ----------
    molecule
        As for `exchange_couplings`; the SMILES is not used.
    multiplicity
        2S + 1 with all spins up.
    threshold
        See `find_spin_centres`.
    cache, method
        As for `exchange_couplings`, which with the same values takes the field from the cache: `METHOD`, what the field
        depends on.

    Returns
    -------
    tuple of SpinCentre
        By their first atom; their spins add up to that of the multiplicity.

    Raises
    ------
    ValueError
        If the multiplicity is impossible or below 3, the threshold is not positive, the method holds anything else than
        `METHOD`, or the density does not hold two centres or more whose spins add up to the multiplicity.
    InsufficientMemoryError
        If the fit needs more memory than there is.
    SCFNotConvergedError
        If the field does not converge.
    """
    molecule = as_molecule(molecule)
    check_multiplicity(molecule.n_electrons, multiplicity)
    for name in method:
        if name not in METHOD:
            raise ValueError(
                f"Argument `method` must hold some of {', '.join(METHOD)}, but holds {name!r}. What else "
                "`exchange_couplings` takes does not change the high-spin field: leave it out."
            )
    if multiplicity < 3:
        raise ValueError(
            f"Argument `multiplicity` must be at least 3, that of two parallel radicals, but is {multiplicity}."
        )
    check_positive(threshold=threshold)
    check_clashes(molecule)
    settings, guess_basis = prepare_settings(molecule, multiplicity, **method)
    everything = tuple(range(molecule.n_atoms))
    runner = StateRunner(
        Workspace(molecule, settings), (everything,), ((multiplicity - 1) / 2,),
        Cache.of(cache, "scf"), guess_basis=guess_basis,
    )  # fmt: skip
    found = find_spin_centres(molecule, runner.high_spin_atomic_spins(), threshold=threshold)
    total = sum(centre.spin for centre in found)
    if len(found) < 2 or total != (multiplicity - 1) / 2:
        seen = "; ".join(f"atoms {','.join(map(str, centre.atoms))} with {centre.population:+.2f}" for centre in found)
        raise ValueError(
            f"The spin density of multiplicity {multiplicity} must hold two centres or more whose spins add up to "
            f"{(multiplicity - 1) / 2:g}, but holds {seen}. Give the centres as atom sets, or another multiplicity."
        )
    return found
