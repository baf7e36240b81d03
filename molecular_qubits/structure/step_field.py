"""The field of each step of a relaxation: converged by the fallback ladder, of the spin asked for, stable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.fields.alignments import (
    S2_TOLERANCE,
    Centres,
    alignment_of,
    check_centres,
    check_spins,
    misalignment,
)
from molecular_qubits.fields.guesses import density_of, fragment_density, swap_density
from molecular_qubits.fields.populations import atom_of_orbital, lowdin_spins, spin_squared
from molecular_qubits.fields.solvers import LADDER, with_solver
from molecular_qubits.fields.stability import (
    NEGATIVE_HARTREE,
    StabilityNotDecidedError,
    lowest_mode,
    pyscf_hessian,
    rotated,
)
from molecular_qubits.structure.environment import to_host
from molecular_qubits.structure.relaxation import GeometryNotConvergedError
from shared.progress import say

if TYPE_CHECKING:
    from molecular_qubits.structure.molecule import Molecule


MAX_DESCENTS = 3
"""Saddle points that are left, one after the other, before a field counts as unstable."""

MIN_DESCENT_HARTREE = 1e-6
"""Energy that a way down from a saddle point must gain."""


class SpinContaminationError(RuntimeError):
    """The field converged, but to a state of another spin than that of the molecule."""


class UnstableFieldError(RuntimeError):
    """The field converged, but to a saddle point, or whether it is one was not decided."""


@dataclass(frozen=True)
class Alignment:
    """Spin centres of a relaxation, their spins and the sign of each."""

    centres: Centres
    spins: tuple[float, ...]
    signs: tuple[int, ...]


def read_alignment(
    molecule: Molecule,
    centres: Sequence[Iterable[int]] | None,
    spins: Sequence[float] | None,
    alignment: Sequence[int] | None,
) -> Alignment | None:
    """Return the alignment that the arguments of `relax_uks` stand for, checked; ``None`` without centres."""
    if centres is None:
        for name, value in (("spins", spins), ("alignment", alignment)):
            if value is not None:
                raise ValueError(f"Argument `{name}` goes with `centres`, but there are none: give them, or leave it.")
        return None
    sets = check_centres(centres, molecule.n_atoms)
    values = tuple(float(x) for x in check_spins([0.5] * len(sets) if spins is None else spins, len(sets)))
    return Alignment(sets, values, alignment_of(molecule.multiplicity or 1, values, alignment))


def release_fit(field: Any) -> None:
    """Free the fitted integrals of a PySCF field; it makes them anew where it needs them."""
    fit = getattr(field, "with_df", None)
    if fit is not None:
        fit.reset()


class StepField:
    """Converges and checks the field at one geometry after the other, each from the density of the one before.

    Parameters
    ----------
    make
        Makes the PySCF field of a ``Mole``, not run.
    multiplicity
        2S + 1.
    alignment
        Alignment of spin centres. The first field then starts from the high-spin one with its magnetic orbitals
        localised and turned, or else with the density swapped on the turned centres.
    """

    def __init__(self, make: Callable[[Any], Any], multiplicity: int, alignment: Alignment | None) -> None:
        self.make, self.multiplicity, self.alignment = make, multiplicity, alignment
        self.last: Any = None

    def converge(self, mole: Any, step: str) -> Any:
        """Return the converged PySCF field at a geometry.

        Raises
        ------
        GeometryNotConvergedError
            If no solver converged.
        SpinContaminationError
            If the field is of another spin, or without the spin on a centre.
        """
        wrong = None
        for density in self._starts(mole, step):
            field = self._ladder(mole, density, step)
            wrong = self._wrong(field)
            if wrong is None:
                self.last = field
                return field
        advice = "Relax another multiplicity, or take another functional."
        if self.alignment is not None:
            advice = "Try other atom sets in `centres`, another functional, or relax without them if they form a bond."
        raise SpinContaminationError(f"The field of {step} of the relaxation converged {wrong}. {advice}")

    def settle(self, step: str) -> bool:
        """Follow the instabilities of the last field to a minimum of its spin; return whether there were any.

        Raises
        ------
        UnstableFieldError
            If a closed shell or a broken-symmetry state is a saddle point: what is below it is another state. Or if no
            way down keeps the spin, or the analysis does not decide.
        """
        for descents in range(MAX_DESCENTS + 1):
            orbitals = (to_host(self.last.mo_coeff), to_host(self.last.mo_occ))
            release_fit(self.last)  # the field below makes its own
            try:
                curvature, mode = lowest_mode(pyscf_hessian(self.make(self.last.mol), *orbitals))
            except StabilityNotDecidedError as error:
                raise UnstableFieldError(
                    f"The field of {step} of the relaxation may be a saddle point. {error} Take another functional, or "
                    "relax this field all the same (`stability=False`)."
                ) from error
            if curvature > NEGATIVE_HARTREE:
                return descents > 0
            broken = self.alignment is not None and min(self.alignment.signs) < 0
            if broken or self.multiplicity == 1 or descents == MAX_DESCENTS:
                break
            say(f"The field of {step} is a saddle point (curvature {curvature:.4f} hartree): going down from it.")
            field = self._ladder(self.last.mol, density_of(*rotated(*orbitals, mode)), step)
            if self._wrong(field) is not None or field.e_tot > self.last.e_tot - MIN_DESCENT_HARTREE:
                break
            self.last = field
        remedy = "Take other `centres` or another functional"
        if self.alignment is None:
            remedy = "If the molecule has spin centres, as a diradical has, give them (`centres`) for its "
            remedy += "broken-symmetry state; else take another functional"
        raise UnstableFieldError(
            f"The field of {step} of the relaxation in multiplicity {self.multiplicity} is not stable: a rotation of "
            f"its orbitals lowers the energy. {remedy}, or relax this field all the same (`stability=False`)."
        )

    def _starts(self, mole: Any, step: str) -> Iterable[Any]:
        """Yield start densities; ``None`` is PySCF's guess."""
        if self.last is not None:
            yield self.last.make_rdm1()
        elif self.alignment is None or min(self.alignment.signs) > 0:
            yield None
        else:
            spins, signs = np.array(self.alignment.spins), np.array(self.alignment.signs)
            aligned = mole.copy()
            aligned.spin = round(2 * spins.sum())
            high = self._ladder(aligned, None, f"the high-spin guess of {step}")
            atoms = [
                atom for sign, atoms in zip(signs, self.alignment.centres, strict=True) if sign < 0 for atom in atoms
            ]
            flipped = np.isin(atom_of_orbital(mole), atoms)
            orbitals = (to_host(high.mo_coeff), to_host(high.mo_occ))
            n_flipped = round(2 * spins[signs < 0].sum())
            yield fragment_density(*orbitals, mole.intor_symmetric("int1e_ovlp"), flipped, n_flipped)
            yield swap_density(to_host(high.make_rdm1()), flipped)

    def _ladder(self, mole: Any, density: Any, step: str) -> Any:
        for solver in LADDER:
            field = with_solver(self.make(mole), solver)
            field.kernel(dm0=density)
            if field.converged:
                return field.undo_newton() if solver == "newton" else field
            density = field.make_rdm1()
            say(f"The field of {step} did not converge by {solver}.")
        raise GeometryNotConvergedError(
            f"The field of multiplicity {mole.spin + 1} did not converge in {step} of the relaxation by any of "
            f"{', '.join(LADDER)}. Raise `max_cycle`, relax `conv_tol`, or relax with GFN2 first."
        )

    def _wrong(self, field: Any) -> str | None:
        """Return in which way the spin of a field is not the one asked for."""
        density, overlap = to_host(field.make_rdm1()), field.mol.intor_symmetric("int1e_ovlp")
        s2 = spin_squared(density, overlap)
        if self.alignment is None:
            spin = (self.multiplicity - 1) / 2
            expected = spin * (spin + 1)
            return (
                None if abs(s2 - expected) <= S2_TOLERANCE else f"has <S^2> = {s2:.3f}, but {expected:.2f} was expected"
            )
        atomic = lowdin_spins(density, overlap, atom_of_orbital(field.mol))
        populations = [float(atomic[list(atoms)].sum()) for atoms in self.alignment.centres]
        if self.multiplicity == 1 and populations[0] * self.alignment.signs[0] < 0:  # the same with all spins turned
            populations = [-population for population in populations]
        return misalignment(self.alignment.signs, self.alignment.spins, s2, populations)
