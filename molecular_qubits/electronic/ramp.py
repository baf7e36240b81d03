"""Self-consistent fields by defect correction: cheap cycles, corrected at their end by the exact field.

Cheap cycles take a coarse grid and single precision. At their end the exact Fock matrix and energy are computed once;
the difference from the cheap ones, frozen, is added to the next cheap cycles. Their fixed point is that of the exact
field, for what is left out is of second order in the last change of the density times the relative error of the cheap
field. The end is judged by the gradient of the exact Fock matrix: nothing of the cheap field is in the result.

Where the integrals do not fit in memory and are read in each cycle, or a coarse grid is wanted anyway, the grid is the
exact one, and exchange among unoccupied orbitals, which changes neither energy nor gradient, is left out (not by the
second-order solver): in vacuum, one exact field is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from molecular_qubits.electronic.fitted_exchange import coulomb_and_exchange
from molecular_qubits.fields.guesses import density_of, occupied_orbitals
from molecular_qubits.fields.xc_blocks import BlockedXC
from molecular_qubits.structure.memory import available_memory_mb

MAX_TURNS = 10
"""Corrections before the solver counts as not converged; two are the rule, four to six in a solvent."""

FINE_REACH = 1e-7
"""Where the cheap grid is the exact one, the tails of orbitals that are left out are what the cheap gradient is wrong
by: with 1e-5 by 7e-5 in a molecule of 14 heavy atoms, with 1e-6 still by more than 1e-4 in one of 46."""

KEPT_SHARE = 0.25
"""Share of the available memory that orbital values may take to be kept; others are computed in each cycle."""


@dataclass(frozen=True)
class Field:
    """Fock contribution of a density: potential ``(2, n_ao, n_ao)``, Coulomb and exchange-correlation energy."""

    potential: np.ndarray
    coulomb: float
    exchange_correlation: float


@dataclass(frozen=True)
class Defect:
    """Exact minus cheap field at a density, for other densities to first order."""

    density: np.ndarray
    difference: Field


class CheapField:
    """Coulomb by density fitting, exchange and functional in single precision.

    ``coarse``: the grid is a coarser one than that of the exact field.
    """

    def __init__(self, mole: Any, xc: str, fit: Any, grids: Any, *, coarse: bool) -> None:
        self.coarse = coarse
        room, reach = KEPT_SHARE * available_memory_mb() * 1e6, None if coarse else FINE_REACH
        self.xc_blocks = BlockedXC(mole, xc, grids, dtype=np.float32, keep_bytes=room, reach=reach)
        numint = self.xc_blocks.numint
        self.fit, self.hybrid = fit, numint.libxc.is_hybrid_xc(xc)
        shares: tuple[float, float, float] = numint.rsh_and_hybrid_coeff(xc) if self.hybrid else (0.0, 0.0, 0.0)
        self.omega, self.long_range, self.short_range = shares

    def __call__(self, density: Any, overlap: np.ndarray | None = None) -> Field:
        """Return the field of a density; occupied orbitals are read from its tags as PySCF sets them.

        ``overlap`` leaves the exchange between unoccupied orbitals out, see `coulomb_and_exchange`.
        """
        exc, potential = self.xc_blocks.potential(np.asarray(density))[1:]
        total = np.asarray(density[0]) + np.asarray(density[1])
        occupied = occupied_orbitals(density.mo_coeff, density.mo_occ)
        coulomb, exchange = self._coulomb_and_exchange(total, occupied, overlap=overlap)
        potential = potential + coulomb - exchange
        exc -= 0.5 * float(np.einsum("sij,sij->", np.asarray(density), exchange))
        return Field(potential, 0.5 * float(np.einsum("ij,ij->", total, coulomb)), exc)

    def response(self, density: Any) -> Callable[[list[np.ndarray]], np.ndarray]:
        """Return the first-order potential ``(2, n_ao, n_ao)`` as a function of changes of the occupied orbitals.

        ``density`` as for a call; the changes are ``(n_ao, n_occupied)`` of α and of β.
        """
        occupied = occupied_orbitals(density.mo_coeff, density.mo_occ)
        semi_local = self.xc_blocks.response(np.asarray(density))

        def respond(changes: list[np.ndarray]) -> np.ndarray:
            half = np.array([x @ c.T for x, c in zip(changes, occupied, strict=True)])
            change = half + half.transpose(0, 2, 1)
            coulomb, exchange = self._coulomb_and_exchange(change[0] + change[1], occupied, changes)
            return semi_local(change) + coulomb - exchange

        return respond

    def _coulomb_and_exchange(
        self,
        density: np.ndarray,
        occupied: list[np.ndarray],
        changes: list[np.ndarray] | None = None,
        overlap: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the Coulomb matrix of a density and the exchange of both spins, or its change, in the functional."""
        if not self.hybrid:
            return self._coulomb(density), np.zeros((2, *density.shape))
        if self.omega == 0:
            coulomb, exchange = coulomb_and_exchange(self.fit, density, occupied, changes, overlap=overlap)
            return coulomb, self.short_range * exchange
        # as in pyscf.dft.uks.get_veff
        if self.long_range == 0:
            return self._coulomb(density), self.short_range * self._attenuated(-self.omega, occupied, changes, overlap)
        if self.short_range == 0:
            return self._coulomb(density), self.long_range * self._attenuated(self.omega, occupied, changes, overlap)
        coulomb, exchange = coulomb_and_exchange(self.fit, density, occupied, changes, overlap=overlap)
        beyond = self._attenuated(self.omega, occupied, changes, overlap)
        return coulomb, self.short_range * exchange + (self.long_range - self.short_range) * beyond

    def _coulomb(self, density: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.fit.get_jk(density, hermi=1, with_k=False)[0]
        return found

    def _attenuated(
        self,
        omega: float,
        occupied: list[np.ndarray],
        changes: list[np.ndarray] | None,
        overlap: np.ndarray | None,
    ) -> np.ndarray:
        with self.fit.range_coulomb(omega) as fit:
            return coulomb_and_exchange(fit, None, occupied, changes, overlap=overlap)[1]


@dataclass(frozen=True)
class Ramped:
    """End of a run: whether it converged, exact energy, orbitals, norm of the exact gradient, corrections made."""

    converged: bool
    energy_hartree: float
    mo_coeff: np.ndarray
    mo_occ: np.ndarray
    mo_energy: np.ndarray
    gradient: float
    turns: int

    @property
    def density(self) -> Any:
        """Density matrices with their orbitals as tags."""
        return density_of(*occupied_orbitals(self.mo_coeff, self.mo_occ))


def converge(exact: Any, inner: Callable[[], Any], cheap: CheapField, density: Any, gradient_tol: float) -> Ramped:
    """Converge a field by defect correction.

    Parameters
    ----------
    exact
        PySCF field of the state with the wanted grid and precision; not run, only evaluated.
    inner
        Makes a PySCF field of the same state with its solver, callback and number of cycles.
    cheap
        The cheap field of the molecule.
    density
        Start density ``(2, n_ao, n_ao)``, or ``None``: PySCF's guess. The field of a density without tags of its
        orbitals is exact.
    gradient_tol
        Norm of the gradient of the exact energy at the end. The energy is not looked at: single precision leaves a
        noise of 1e-6 hartree in that of the cheap cycles, and the exact one is of second order in the gradient.

    Returns
    -------
    Ramped
        Not converged if the cheap cycles or the corrections did not get there.
    """
    core, overlap = exact.get_hcore(), exact.get_ovlp()
    defect: Defect | None = None
    energy = float("nan")
    for turn in range(1, MAX_TURNS + 1):
        field = inner()
        field.conv_check = False
        evaluated = getattr(field, "_scf", field)  # by the second-order solver
        evaluated.get_hcore = lambda *args: core
        share = 0.8 if not cheap.coarse else 0.5 if defect else 10.0
        field.check_convergence = lambda found, limit=share * gradient_tol: found["norm_gorb"] < limit
        projected = evaluated is field and cheap.hybrid and not cheap.coarse
        bound = _Bound(cheap, defect, exact, overlap if projected else None)
        evaluated.get_veff = bound
        field.kernel(dm0=density)
        orbitals = (np.asarray(field.mo_coeff), np.asarray(field.mo_occ))
        density = field.make_rdm1()
        if not field.converged:
            return Ramped(False, energy, *orbitals, np.asarray(field.mo_energy), float("nan"), turn)
        potential = exact.get_veff(exact.mol, density)
        fock = exact.get_fock(core, overlap, potential, density)  # with the field of a solvent, if there is one
        energy = float(exact.energy_tot(density, core, potential))
        gradient = float(np.linalg.norm(exact.get_grad(*orbitals, fock)))
        if gradient < gradient_tol:
            break
        raw = cheap(density) if projected else bound.raw  # a defect of what is left out would be frozen in the field
        defect = Defect(
            np.asarray(density),
            Field(
                np.asarray(fock) - core - raw.potential,
                float(potential.ecoul) - raw.coulomb,
                float(potential.exc) - raw.exchange_correlation,
            ),
        )
    energies = np.einsum("sui,suv,svi->si", orbitals[0], fock, orbitals[0], optimize=True)
    return Ramped(gradient < gradient_tol, energy, *orbitals, energies, gradient, turn)


class _Bound:
    """``get_veff`` of a PySCF field; keeps the cheap field of the last density. ``overlap`` as for a `CheapField`."""

    def __init__(self, cheap: CheapField, defect: Defect | None, exact: Any, overlap: np.ndarray | None) -> None:
        self.cheap, self.defect, self.exact, self.overlap = cheap, defect, exact, overlap
        self.raw: Any = None

    def __call__(self, mol: Any = None, dm: Any = None, dm_last: Any = 0, vhf_last: Any = 0, hermi: int = 1) -> Any:
        from pyscf import lib

        if getattr(dm, "mo_coeff", None) is None:  # a guess without orbitals
            found = self.exact.get_veff(mol, dm)
            self.raw = Field(np.asarray(found), float(found.ecoul), float(found.exc))
            return found
        self.raw = field = self.cheap(dm, self.overlap)
        potential, exc = field.potential, field.exchange_correlation
        coulomb = field.coulomb
        if self.defect is not None:
            difference = self.defect.difference
            potential = potential + difference.potential
            change = np.asarray(dm) - self.defect.density
            coulomb += difference.coulomb
            exc += difference.exchange_correlation + float(np.einsum("sij,sij->", difference.potential, change))
        return lib.tag_array(potential, ecoul=coulomb, exc=exc, vj=None, vk=None)
