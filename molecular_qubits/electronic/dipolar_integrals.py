"""Magnetic dipole-dipole interaction of two spin densities: exact four-centre integrals, and by density fitting.

With T_kl = (δ_kl r² - 3 r_k r_l) / r⁵ between electrons 1 and 2, the traceless part of -∂_k ∂_l (1/r), everything here
is a derivative of the Coulomb interaction: (a|T_kl|b) = (∂_k a|∂_l b) = -(a|∂_k ∂_l b) minus a third of the trace. The
contact term of the derivative is isotropic and goes with the trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.linalg

from molecular_qubits.electronic.populations import square_root

Integrals = Literal["fit", "exact"]

_NEGLIGIBLE_OCCUPATION = 1e-8


@dataclass(frozen=True)
class DipolarPair:
    """Direct and exchange part of the dipolar interaction of two spin densities, (3, 3), traceless, hartree/α².

    ``direct`` is ∬ ρ_A(1) T ρ_B(2); ``exchange`` the same with the second coordinate of the density matrices exchanged.
    """

    direct: np.ndarray
    exchange: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Direct minus exchange part."""
        return self.direct - self.exchange


def dipolar_pairs(
    mole: Any,
    densities: np.ndarray,
    pairs: list[tuple[int, int]],
    *,
    integrals: Integrals = "fit",
    auxbasis: str | None = None,
    max_memory_mb: float = 2000.0,
) -> list[DipolarPair]:
    """Return the dipolar interaction of pairs of spin densities.

    Parameters
    ----------
    mole
        PySCF molecule.
    densities
        Symmetric spin-density matrices ``(n, n_ao, n_ao)``.
    pairs
        Which of them interact.
    integrals
        ``"fit"``: the products of orbitals are fitted in the Coulomb metric and the energy is corrected to second order
        in the error of the fit. ``"exact"``: all four-centre integrals, for a few dozen orbitals.
    auxbasis
        Fitting basis; ``None``: AutoAux functions made for the basis, several times more accurate at a distance than
        the ready-made sets (H2 at 10 Å: 1e-8 instead of 1e-5 to 4e-4).
    max_memory_mb
        Bound on the work arrays of the fit; smaller blocks take longer.

    Returns
    -------
    list of DipolarPair
        One for each pair.

    Raises
    ------
    ValueError
        If shapes disagree, the fit does not fit in the memory, or there are too many orbitals for exact integrals.

    References
    ----------
    McWeeny, Mizuno, Proc. R. Soc. A 259, 554 (1961). Sinnecker, Neese, J. Phys. Chem. A 110, 12267 (2006). Density
    fitting: Ganyushin, Gilka, Taylor, Marian, Neese, J. Chem. Phys. 132, 144111 (2010); here with the robust
    expression of Dunlap, Phys. Chem. Chem. Phys. 2, 2113 (2000). AutoAux: Stoychev, Auer, Neese, J. Chem. Theory
    Comput. 13, 554 (2017).
    """
    densities = np.asarray(densities, dtype=float)
    if densities.ndim != 3 or densities.shape[1:] != (mole.nao, mole.nao):
        raise ValueError(
            f"Argument `densities` must have shape (n, {mole.nao}, {mole.nao}), but has {densities.shape}."
        )
    if integrals == "exact":
        return _exact(mole, densities, pairs)
    if integrals == "fit":
        return _Fit(mole, auxbasis, max_memory_mb).pairs(densities, pairs)
    raise ValueError(f"Argument `integrals` must be 'fit' or 'exact', but is {integrals!r}.")


MAX_EXACT_ORBITALS = 80
"""Largest basis for exact four-centre integrals: nine components of n_ao⁴ integrals are formed."""


def _exact(mole: Any, densities: np.ndarray, pairs: list[tuple[int, int]]) -> list[DipolarPair]:
    n = mole.nao
    if n > MAX_EXACT_ORBITALS:
        raise ValueError(
            f"Argument `integrals` must be 'fit' for {n} orbitals: exact integrals are allowed up to "
            f"{MAX_EXACT_ORBITALS}."
        )
    direct, exchange = np.zeros((len(pairs), 3, 3)), np.zeros((len(pairs), 3, 3))
    offsets = mole.ao_loc_nr()
    for shell in range(mole.nbas):  # one shell of the first index at a time bounds the memory
        first, last = offsets[shell], offsets[shell + 1]
        slices = (shell, shell + 1, 0, mole.nbas, 0, mole.nbas, 0, mole.nbas)
        block = mole.intor("int2e_ip1ip2", comp=9, shls_slice=slices).reshape(3, 3, last - first, n, n, n)
        for row, (a, b) in enumerate(pairs):
            left, right = densities[a], densities[b]
            direct[row] += 4 * np.einsum("xyijkl,ij,kl->xy", block, left[first:last], right, optimize=True)
            for p, q in ((left, right), (right, left)):
                exchange[row] += np.einsum("xyijkl,ik,jl->xy", block, p[first:last], q, optimize=True)
                exchange[row] += np.einsum("xyijkl,il,jk->xy", block, p[first:last], q, optimize=True)
    return [DipolarPair(_traceless(j), _traceless(k)) for j, k in zip(direct, exchange, strict=True)]


class _Fit:
    """Three-centre dipolar integrals (μν|T|P), fitted with (P|Q) in the Coulomb metric."""

    def __init__(self, mole: Any, auxbasis: str | None, max_memory_mb: float) -> None:
        self.mole, self.max_bytes = mole, max_memory_mb * 2**20
        self.aux = _fitting_molecule(mole, auxbasis)
        needed = 40 * 8 * self.aux.nao**2  # (P|Q), its factor and (P|T|Q) take half of the allowance
        if needed > self.max_bytes:
            raise ValueError(
                f"Argument `max_memory_mb` must be at least {math.ceil(needed / 2**20)} for {self.aux.nao} fitting "
                f"functions, but is {max_memory_mb:g}. Raise it or take a smaller `auxbasis`."
            )
        self.inverse = _Inverse(self.aux.intor("int2c2e"))
        # (P|T_kl|Q) up to its trace, which is removed at the end
        self.dipolar = -self.aux.intor("int2c2e_ipip1", comp=9).reshape(3, 3, self.aux.nao, self.aux.nao)

    def pairs(self, densities: np.ndarray, pairs: list[tuple[int, int]]) -> list[DipolarPair]:
        orbitals = [_spin_orbitals(density, self.mole) for density in densities]
        direct = self._direct(densities, pairs)
        exchange = [self._exchange(orbitals[a], orbitals[b]) for a, b in pairs]
        return [DipolarPair(_traceless(j), _traceless(k)) for j, k in zip(direct, exchange, strict=True)]

    def _blocks(self, name: str, components: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield ``(fitting functions, integrals (components, n_ao, n_ao, block))``."""
        from pyscf.df import incore

        n, offsets = self.mole.nao, self.aux.ao_loc_nr()
        size = max(1, int(self.max_bytes / 4 / (8 * components * n * n)))
        shell = 0
        while shell < self.aux.nbas:
            last = shell + 1
            while last < self.aux.nbas and offsets[last + 1] - offsets[shell] <= size:
                last += 1
            slices = (0, self.mole.nbas, 0, self.mole.nbas, shell, last)
            block = incore.aux_e2(self.mole, self.aux, name, aosym="s1", comp=components, shls_slice=slices)
            columns = slice(int(offsets[shell]), int(offsets[last]))
            yield columns, block.reshape(components, n, n, columns.stop - columns.start)
            shell = last

    def _direct(self, densities: np.ndarray, pairs: list[tuple[int, int]]) -> list[np.ndarray]:
        coulomb = np.zeros((len(densities), self.aux.nao))
        dipolar = np.zeros((len(densities), 9, self.aux.nao))
        for columns, block in self._blocks("int3c2e", 1):
            coulomb[:, columns] = np.einsum("dij,ijp->dp", densities, block[0], optimize=True)
        for columns, block in self._blocks("int3c2e_ipip2", 9):
            dipolar[:, :, columns] = -np.einsum("dij,cijp->dcp", densities, block, optimize=True)
        fitted = self.inverse.solve(coulomb.T).T
        dipolar = dipolar.reshape(len(densities), 3, 3, -1)
        return [
            np.einsum("xyp,p->xy", dipolar[a], fitted[b])
            + np.einsum("xyp,p->xy", dipolar[b], fitted[a])
            - np.einsum("p,xypq,q->xy", fitted[a], self.dipolar, fitted[b], optimize=True)
            for a, b in pairs
        ]

    def _exchange(self, left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return sum_ab n_a n_b (ab|T|ab), a chunk of the orbitals a at a time."""
        (n_a, c_a), (n_b, c_b) = left, right
        total = np.zeros((3, 3))
        if not len(n_a) or not len(n_b):
            return total
        chunk = max(1, int(self.max_bytes / 4 / (2 * 8 * len(n_b) * self.aux.nao)))
        for first in range(0, len(n_a), chunk):
            part = slice(first, first + chunk)
            weights = np.outer(n_a[part], n_b).ravel()
            products = np.empty((self.aux.nao, len(weights)))
            for columns, block in self._blocks("int3c2e", 1):
                products[columns] = self._transform(block, c_a[:, part], c_b)[0].T
            fitted = self.inverse.solve(products)
            weighted = fitted * weights
            for columns, block in self._blocks("int3c2e_ipip2", 9):
                mixed = self._transform(block, c_a[:, part], c_b)
                total -= 2 * np.einsum("cwp,pw->c", mixed, weighted[columns], optimize=True).reshape(3, 3)
            total -= np.einsum("xypq,pq->xy", self.dipolar, weighted @ fitted.T, optimize=True)
        return total

    @staticmethod
    def _transform(block: np.ndarray, c_a: np.ndarray, c_b: np.ndarray) -> np.ndarray:
        """Return (ab|P) ``(components, pairs ab, block)`` of atomic-orbital integrals."""
        half = np.einsum("ia,cijp->cajp", c_a, block, optimize=True)
        full = np.einsum("cajp,jb->cabp", half, c_b, optimize=True)
        return full.reshape(len(block), -1, block.shape[-1])


def _fitting_molecule(mole: Any, auxbasis: str | None) -> Any:
    """Return the PySCF molecule with the fitting functions as its basis."""
    from pyscf import df

    if auxbasis is None:
        return df.addons.make_auxmol(mole, df.autoaux(mole))
    try:
        return df.addons.make_auxmol(mole, auxbasis)
    except Exception:  # PySCF raises several types for an unknown name
        raise ValueError(
            f"Argument `auxbasis` must be a fitting basis of PySCF for {sorted(set(mole.elements))}, such as "
            f"'def2-universal-jkfit', but is {auxbasis!r}."
        ) from None


class _Inverse:
    """Solves with the Coulomb metric of the fitting basis, without linearly dependent functions if there are any."""

    def __init__(self, metric: np.ndarray) -> None:
        try:
            self._factor: Any = scipy.linalg.cho_factor(metric, lower=True)
            self._pseudo = None
        except scipy.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(metric)
            kept = values > 1e-12 * values[-1]
            self._pseudo = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T

    def solve(self, right: np.ndarray) -> np.ndarray:
        return scipy.linalg.cho_solve(self._factor, right) if self._pseudo is None else self._pseudo @ right


def _spin_orbitals(density: np.ndarray, mole: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return occupations ``(m,)`` and orbitals ``(n_ao, m)`` with P = C diag(n) C^T: natural orbitals of spin."""
    root = square_root(mole.intor_symmetric("int1e_ovlp"))
    inverse = np.linalg.inv(root)
    values, vectors = np.linalg.eigh(root @ density @ root)
    kept = np.abs(values) > _NEGLIGIBLE_OCCUPATION
    return values[kept], inverse @ vectors[:, kept]


def _traceless(tensor: np.ndarray) -> np.ndarray:
    symmetric = (tensor + tensor.T) / 2
    return symmetric - np.trace(symmetric) / 3 * np.eye(3)
