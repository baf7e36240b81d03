"""Magnetic dipole-dipole interaction of two spin densities: exact four-centre integrals, and by density fitting.

With T_kl = (δ_kl r² - 3 r_k r_l) / r⁵ between electrons 1 and 2, the traceless part of -∂_k ∂_l (1/r), everything here
is a derivative of the Coulomb interaction: (a|T_kl|b) = (∂_k a|∂_l b) = -(a|∂_k ∂_l b) minus a third of the trace. The
contact term of the derivative is isotropic and goes with the trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.linalg

from molecular_qubits.fields.populations import square_root

Integrals = Literal["fit", "exact"]

_Orbitals: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Occupations ``(m,)`` and orbitals ``(n_ao, m)``."""

_NEGLIGIBLE_OCCUPATION = 1e-8
"""Of a natural spin orbital, and of a product of two the product of both."""

_ORBITALS_AT_ONCE = 16
"""Orbitals that are taken with as many partners as the first of them needs."""

_Products: TypeAlias = tuple[int, slice, int]
"""Number of a pair of densities, orbitals of the first, how many of the second."""


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
        Fitting basis; ``None``: AutoAux functions, made for the basis, and functions of higher angular momentum of
        def2-universal-jkfit.
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
        """Return direct and exchange parts; each group of orbital pairs that fits in memory takes one pass."""
        orbitals = [_spin_orbitals(density, self.mole) for density in densities]
        dipolar = np.zeros((len(densities), 3, 3, self.aux.nao))
        exchange = [np.zeros((3, 3)) for _ in pairs]
        for pass_number, group in enumerate(self._groups(orbitals, pairs)):
            weights = [
                np.outer(orbitals[pairs[number][0]][0][part], orbitals[pairs[number][1]][0][:width])
                for number, part, width in group
            ]
            fitted = self._fitted(orbitals, pairs, group)
            for columns, block in self._blocks("int3c2e_ipip2", 9):
                if pass_number == 0:
                    dipolar[..., columns] = -np.einsum("dij,cpij,cxy->dxyp", densities, block, _PATTERNS, optimize=True)
                for row, pattern in zip(block, _PATTERNS, strict=True):
                    halves = _half_transformed(row, orbitals, pairs, group)
                    for (number, part, width), c, weight in zip(group, fitted, weights, strict=True):
                        first, second = pairs[number]
                        products = np.matmul(orbitals[first][1][:, part].T, halves[second][..., :width])
                        exchange[number] -= 2 * np.vdot(products, c[columns] * weight) * pattern
            for (number, _, _), c, weight in zip(group, fitted, weights, strict=True):
                flat = c.reshape(self.aux.nao, -1)
                of_fits = (flat * weight.ravel()) @ flat.T
                exchange[number] -= np.einsum("xypq,pq->xy", self.dipolar, of_fits, optimize=True)
        direct = self._direct(densities, dipolar, pairs)
        return [DipolarPair(_traceless(j), _traceless(k)) for j, k in zip(direct, exchange, strict=True)]

    def _direct(self, densities: np.ndarray, dipolar: np.ndarray, pairs: list[tuple[int, int]]) -> list[np.ndarray]:
        """Return the direct parts; ``dipolar`` is the field (P|T|ρ) of each density."""
        coulomb = np.zeros((len(densities), self.aux.nao))
        for columns, block in self._blocks("int3c2e", 1):
            coulomb[:, columns] = np.einsum("dij,pij->dp", densities, block[0], optimize=True)
        fitted = self.inverse.solve(coulomb.T).T
        return [
            dipolar[a] @ fitted[b]
            + dipolar[b] @ fitted[a]
            - np.einsum("p,xypq,q->xy", fitted[a], self.dipolar, fitted[b], optimize=True)
            for a, b in pairs
        ]

    def _groups(self, orbitals: list[_Orbitals], pairs: list[tuple[int, int]]) -> Iterator[list[_Products]]:
        """Yield lists of products of orbitals that fit in memory; negligible ones are left out."""
        allowed = self.max_bytes / 4 / (2 * 8 * self.aux.nao)  # products, twice for the solver
        group: list[_Products] = []
        used = 0
        for number, (a, b) in enumerate(pairs):
            n_a, n_b = (np.abs(orbitals[k][0]) for k in (a, b))
            first = 0
            while first < len(n_a):
                width = int(np.searchsorted(-n_b * n_a[first], -_NEGLIGIBLE_OCCUPATION))
                if width == 0:
                    break
                last = min(first + max(1, min(_ORBITALS_AT_ONCE, int(allowed / width))), len(n_a))
                size = (last - first) * width
                if group and used + size > allowed:
                    yield group
                    group, used = [], 0
                group.append((number, slice(first, last), width))
                used += size
                first = last
        if group:
            yield group

    def _fitted(
        self, orbitals: list[_Orbitals], pairs: list[tuple[int, int]], group: list[_Products]
    ) -> list[np.ndarray]:
        """Return the fits ``(n_aux, a, b)`` of the products of orbitals of a group."""
        products = [np.empty((self.aux.nao, part.stop - part.start, width)) for _, part, width in group]
        for columns, block in self._blocks("int3c2e", 1):
            halves = _half_transformed(block[0], orbitals, pairs, group)
            for (number, part, width), target in zip(group, products, strict=True):
                first, second = pairs[number]
                np.matmul(orbitals[first][1][:, part].T, halves[second][..., :width], out=target[columns])
        return [self.inverse.solve(target.reshape(self.aux.nao, -1)).reshape(target.shape) for target in products]

    def _blocks(self, name: str, components: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield ``(fitting functions, integrals (1 or 5, block, n_ao, n_ao))``.

        Of nine second derivatives the five of `_PATTERNS` are kept, which say all about the traceless part.
        """
        from pyscf import lib
        from pyscf.df import incore

        n, offsets = self.mole.nao, self.aux.ao_loc_nr()
        size = max(1, int(self.max_bytes / 4 / (8 * 2 * components * n * n)))
        shell = 0
        while shell < self.aux.nbas:
            last = shell + 1
            while last < self.aux.nbas and offsets[last + 1] - offsets[shell] <= size:
                last += 1
            slices = (0, self.mole.nbas, 0, self.mole.nbas, shell, last)
            packed = incore.aux_e2(self.mole, self.aux, name, aosym="s2ij", comp=components, shls_slice=slices)
            if components == 9:
                packed = np.array([packed[0] - packed[8], packed[4] - packed[8], packed[1], packed[2], packed[5]])
            else:
                packed = packed[None]
            columns = slice(int(offsets[shell]), int(offsets[last]))
            yield columns, np.array([lib.unpack_tril(np.ascontiguousarray(part.T)) for part in packed])
            shell = last


_PATTERNS = np.zeros((5, 3, 3))
"""Traceless tensors that belong to the derivatives xx - zz, yy - zz, xy, xz and yz."""
_PATTERNS[0] = np.diag([2, -1, -1]) / 3
_PATTERNS[1] = np.diag([-1, 2, -1]) / 3
for _row, (_i, _j) in enumerate(((0, 1), (0, 2), (1, 2)), start=2):
    _PATTERNS[_row, _i, _j] = _PATTERNS[_row, _j, _i] = 1


def _half_transformed(
    block: np.ndarray, orbitals: list[_Orbitals], pairs: list[tuple[int, int]], group: list[_Products]
) -> dict[int, np.ndarray]:
    """Return (μb|P) ``(block, n_ao, b)`` of integrals ``(block, n_ao, n_ao)`` for each second density of a group."""
    widths: dict[int, int] = {}
    for number, _, width in group:
        second = pairs[number][1]
        widths[second] = max(width, widths.get(second, 0))
    flat = block.reshape(-1, block.shape[-1])
    return {k: (flat @ orbitals[k][1][:, :width]).reshape(*block.shape[:2], width) for k, width in widths.items()}


def _fitting_molecule(mole: Any, auxbasis: str | None) -> Any:
    """Return the PySCF molecule with the fitting functions as its basis."""
    from pyscf import df

    if auxbasis is None:
        return df.addons.make_auxmol(mole, _complete_fitting_basis(mole))
    try:
        return df.addons.make_auxmol(mole, auxbasis)
    except Exception:  # PySCF raises several types for an unknown name
        raise ValueError(
            f"Argument `auxbasis` must be a fitting basis of PySCF for {sorted(set(mole.elements))}, such as "
            f"'def2-universal-jkfit', but is {auxbasis!r}."
        ) from None


def _complete_fitting_basis(mole: Any) -> dict[str, list[Any]]:
    """Return AutoAux functions with those of def2-universal-jkfit of higher angular momentum, by element.

    AutoAux stops at s functions on hydrogen with s orbitals only, which leaves 6 % of D of triplet H2 at 1 Å out (with
    p and d functions 0.03 %); the ready-made set alone misses 0.04 % at 10 Å, where AutoAux is right to 1e-8.
    """
    from pyscf import df, gto

    fitting: dict[str, list[Any]] = {}
    for label, shells in df.autoaux(mole).items():
        highest = max(shell[0] for shell in shells)
        try:
            ready = gto.basis.load("def2-universal-jkfit", label)
        except Exception:  # PySCF raises several types for an element without the set
            ready = []
        fitting[label] = [*shells, *(shell for shell in ready if shell[0] > highest)]
    return fitting


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


def _spin_orbitals(density: np.ndarray, mole: Any) -> _Orbitals:
    """Return occupations ``(m,)`` and orbitals ``(n_ao, m)`` with P = C diag(n) C^T: natural orbitals of spin, those
    with the most spin first.
    """
    root = square_root(mole.intor_symmetric("int1e_ovlp"))
    inverse = np.linalg.inv(root)
    values, vectors = np.linalg.eigh(root @ density @ root)
    order = np.argsort(-np.abs(values), kind="stable")
    order = order[np.abs(values[order]) > _NEGLIGIBLE_OCCUPATION]
    return values[order], inverse @ vectors[:, order]


def _traceless(tensor: np.ndarray) -> np.ndarray:
    symmetric = (tensor + tensor.T) / 2
    return symmetric - np.trace(symmetric) / 3 * np.eye(3)
