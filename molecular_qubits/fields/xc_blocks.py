"""Exchange-correlation energy and potential on blocks of neighbouring points, each with the orbitals that reach it.

A k-d tree makes compact blocks, so that 256 points meet a third (30 atoms) to a fifth (55 atoms) of the orbitals;
matrix products shrink with the square of that. In single precision the orbital values are kept from one call to the
next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit

from molecular_qubits.fields.threads import workers

POINTS = 256
"""Points in a block: fewer cost more calls, more meet more orbitals."""

GROUP = 64
"""Blocks between two calls of the functional."""

REACH = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-9}
"""Absolute value of an orbital and its gradient (atomic units) below which it is taken as zero, by precision."""

_N_VALUES = {"LDA": 1, "GGA": 4, "MGGA": 4}
"""Values of an orbital that are needed at a point: itself, and its gradient."""


@dataclass(frozen=True)
class Block:
    """Grid points (a slice of the sorted grid) and the orbitals and shells that reach them."""

    first: int
    last: int
    orbitals: np.ndarray
    shells: np.ndarray


class BlockedXC:
    """Semi-local part of a functional for one molecule on one grid.

    Parameters
    ----------
    mole
        PySCF molecule.
    xc
        Functional that `supports` accepts; the exact exchange of a hybrid is not part of the result.
    grids
        PySCF grid; built if it is not.
    dtype
        ``float64``, or ``float32`` for the steps before the last ones.
    keep_bytes
        Keep the orbital values between calls if they take less memory than this (`n_bytes`).
    reach
        Absolute value below which an orbital is taken as zero; ``None``: that of `REACH`.
    """

    def __init__(
        self,
        mole: Any,
        xc: str,
        grids: Any,
        *,
        dtype: Any = np.float64,
        keep_bytes: float = 0.0,
        reach: float | None = None,
    ) -> None:
        from pyscf.dft import numint

        if grids.coords is None:
            grids.build()
        self.mole, self.xc, self.dtype = mole, xc, np.dtype(dtype)
        self.numint = numint.NumInt()
        self.kind = self.numint._xc_type(xc)
        order, limits = _leaves(np.asarray(grids.coords), POINTS)
        self.coords = np.ascontiguousarray(grids.coords[order])
        self.weights = np.ascontiguousarray(grids.weights[order])
        self.blocks = _blocks(mole, self.coords, limits, REACH[self.dtype] if reach is None else reach)
        self.keep = self.n_bytes < keep_bytes
        self._kept: list[list[np.ndarray]] = []

    @property
    def n_bytes(self) -> int:
        """Memory of the orbital values of all blocks."""
        pairs = sum(len(block.orbitals) * (block.last - block.first) for block in self.blocks)
        return _N_VALUES[self.kind] * pairs * self.dtype.itemsize

    def potential(self, density: np.ndarray, *, matrix: bool = True) -> tuple[np.ndarray, float, np.ndarray]:
        """Integrate the functional.

        Parameters
        ----------
        density
            Density matrices of α and β ``(2, n_ao, n_ao)``, symmetric.
        matrix
            Make the potential, not the energy alone.

        Returns
        -------
        n_electrons, energy_hartree, potential
            Integrated electrons ``(2,)``, energy, and ``(2, n_ao, n_ao)`` (zeros without `matrix`).
        """
        density = np.asarray(density, dtype=self.dtype)
        potential = np.zeros((2, *density.shape[1:]))
        n_electrons, energy = np.zeros(2), 0.0
        with workers() as pool:
            for group, values in self._groups(pool):
                rho = self._densities(pool, density, group, values)
                weights = self.weights[group[0].first : group[-1].last]
                exc, vxc = self._functional(rho, 1)[:2]
                electrons = rho[:, 0] * weights
                n_electrons += electrons.sum(axis=1)
                energy += float(electrons.sum(axis=0) @ exc)
                if matrix:
                    self._add(pool, np.asarray(vxc).reshape(rho.shape) * weights, group, values, potential)
        return n_electrons, energy, potential + potential.transpose(0, 2, 1)

    def response(self, density: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Return the first-order potential as a function of a change of the density, both ``(2, n_ao, n_ao)``.

        ``density`` as for `potential`; the second derivatives of the functional are kept.
        """
        density = np.asarray(density, dtype=self.dtype)
        kernels: list[np.ndarray] = []
        with workers() as pool:
            for group, values in self._groups(pool):
                rho = self._densities(pool, density, group, values)
                fxc = self._functional(rho, 2)[2]
                weights = self.weights[group[0].first : group[-1].last]
                kernels.append(
                    (np.asarray(fxc).reshape(*rho.shape[:2], *rho.shape[:2], -1) * weights).astype(self.dtype)
                )

        def respond(change: np.ndarray) -> np.ndarray:
            change = np.asarray(change, dtype=self.dtype)
            potential = np.zeros((2, *change.shape[1:]))
            with workers() as pool:
                for (group, values), kernel in zip(self._groups(pool), kernels, strict=True):
                    rho = self._densities(pool, change, group, values)
                    self._add(pool, np.einsum("sxtyp,typ->sxp", kernel, rho), group, values, potential)
            return potential + potential.transpose(0, 2, 1)

        return respond

    def _functional(self, rho: np.ndarray, order: int) -> Any:
        """Return the functional and its derivatives, up to an order, at the values that `_densities` gives."""
        values = rho[:, 0] if self.kind == "LDA" else rho
        return self.numint.eval_xc_eff(self.xc, values, deriv=order, xctype=self.kind, spin=1)

    def _densities(
        self, pool: ThreadPoolExecutor, density: np.ndarray, group: Sequence[Block], values: list[np.ndarray]
    ) -> np.ndarray:
        """Return what `_density` gives for a group of blocks, in double precision."""
        found = pool.map(self._density, [density] * len(group), group, values)
        return np.concatenate(list(found), axis=2, dtype=np.float64)

    def _add(
        self,
        pool: ThreadPoolExecutor,
        weighted: np.ndarray,
        group: Sequence[Block],
        values: list[np.ndarray],
        potential: np.ndarray,
    ) -> None:
        """Add half of the potential of a group of blocks to ``potential``."""
        parts = pool.map(self._matrix, [weighted] * len(group), group, values, [group[0].first] * len(group))
        for block, part in zip(group, parts, strict=True):
            _scatter(part, block.orbitals, potential)

    def _groups(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Sequence[Block], list[np.ndarray]]]:
        """Yield `GROUP` blocks at a time with the values of their orbitals."""
        for number, start in enumerate(range(0, len(self.blocks), GROUP)):
            group = self.blocks[start : start + GROUP]
            if number < len(self._kept):
                yield group, self._kept[number]
                continue
            values = list(pool.map(self._values, group))
            if self.keep:
                self._kept.append(values)
            yield group, values

    def _values(self, block: Block) -> np.ndarray:
        """Return the orbitals of a block and their gradients ``(n_values, n_orbitals, n_points)``."""
        deriv = 0 if self.kind == "LDA" else 1
        coords = self.coords[block.first : block.last]
        tiles = np.zeros((-(-len(coords) // 56), self.mole.nbas), dtype=np.uint8)
        tiles[:, block.shells] = 100  # above every cutoff of PySCF
        found = self.mole.eval_gto(f"GTOval_{'cart' if self.mole.cart else 'sph'}_deriv{deriv}", coords, non0tab=tiles)
        found = found.reshape(_N_VALUES[self.kind], len(coords), -1).transpose(0, 2, 1)
        return np.ascontiguousarray(found[:, block.orbitals], dtype=self.dtype)

    def _density(self, density: np.ndarray, block: Block, values: np.ndarray) -> np.ndarray:
        """Return ρ, its gradient and τ of both spins ``(2, n_components, n_points)``, as PySCF orders them."""
        n = len(block.orbitals)
        part = np.empty((2, n, n), dtype=self.dtype)
        _gather(density, block.orbitals, part)
        part = part.reshape(2 * n, n)
        found = np.zeros((2, {"LDA": 1, "GGA": 4, "MGGA": 5}[self.kind], values.shape[2]), dtype=self.dtype)
        _contract((part @ values[0]).reshape(2, n, -1), values, found)
        if self.kind == "MGGA":
            for axis in (1, 2, 3):
                _contract_kinetic((part @ values[axis]).reshape(2, n, -1), values[axis], found)
        return found

    def _matrix(self, weighted: np.ndarray, block: Block, values: np.ndarray, offset: int) -> np.ndarray:
        """Return half the potential of a block ``(n_orbitals, 2, n_orbitals)``; the other half is its transpose."""
        local = weighted[:, :, block.first - offset : block.last - offset].astype(self.dtype)
        n = values.shape[1]
        scaled = np.empty((2, n, values.shape[2]), dtype=self.dtype)
        _scale(local, values, scaled)
        matrix = values[0] @ scaled.reshape(2 * n, -1).T
        if self.kind == "MGGA":
            for axis in (1, 2, 3):
                _scale_kinetic(local, values[axis], scaled)
                matrix += values[axis] @ scaled.reshape(2 * n, -1).T
        return matrix.reshape(n, 2, n)


def supports(xc: str) -> bool:
    """Return whether `BlockedXC` integrates all semi-local parts of a functional."""
    from pyscf.dft import libxc

    return libxc.xc_type(xc) in _N_VALUES and not libxc.is_nlc(xc) and not libxc.needs_laplacian(xc)


def blocked_numint() -> Any:
    """Return a PySCF ``NumInt`` whose unrestricted energies and potentials come from `BlockedXC`."""
    from pyscf.dft.numint import NumInt

    class BlockedNumInt(NumInt):
        def __init__(self) -> None:
            super().__init__()
            self.made: tuple[Any, str, BlockedXC] | None = None

        def nr_uks(self, mol: Any, grids: Any, xc_code: str, dms: Any, *args: Any, **options: Any) -> Any:
            if self.made is None or self.made[0] is not grids or self.made[1] != xc_code:
                self.made = (grids, xc_code, BlockedXC(mol, xc_code, grids))
            return self.made[2].potential(np.asarray(dms))

    return BlockedNumInt()


def _leaves(coords: np.ndarray, size: int) -> tuple[np.ndarray, list[int]]:
    """Return an order of points and the limits of its compact runs of at most `size` (k-d tree)."""
    order: list[np.ndarray] = []
    waiting = [np.arange(len(coords))]
    while waiting:
        points = waiting.pop()
        if len(points) <= size:
            order.append(points)
            continue
        places = coords[points]
        half = len(points) // 2
        split = np.argpartition(places[:, np.argmax(np.ptp(places, axis=0))], half)
        waiting += [points[split[half:]], points[split[:half]]]
    return np.concatenate(order), [0, *np.cumsum([len(points) for points in order])]


def _blocks(mole: Any, coords: np.ndarray, limits: Sequence[int], threshold: float) -> list[Block]:
    reach = shell_reach(mole, threshold)
    centres = mole.atom_coords()[[mole.bas_atom(shell) for shell in range(mole.nbas)]]
    locations = mole.ao_loc
    blocks = []
    for first, last in pairwise(limits):
        low, high = coords[first:last].min(axis=0), coords[first:last].max(axis=0)
        gap = np.maximum(np.maximum(low - centres, centres - high), 0.0)
        shells = np.flatnonzero(np.einsum("ij,ij->i", gap, gap) < reach**2)
        orbitals = np.concatenate([np.arange(locations[s], locations[s + 1]) for s in shells] or [np.arange(0)])
        blocks.append(Block(int(first), int(last), orbitals, shells))
    return blocks


def shell_reach(mole: Any, threshold: float) -> np.ndarray:
    """Return the distance in bohr beyond which a shell and its gradient are below `threshold` ``(n_shells,)``."""
    distances = np.arange(0.5, 30.0, 0.1)
    directions = np.array([[1, 0, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [1, 1, 1], [1, 2, 3]], dtype=float)
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    reach = np.empty(mole.nbas)
    known: dict[bytes, float] = {}
    for shell in range(mole.nbas):
        parts = (mole.bas_exp(shell), mole.bas_ctr_coeff(shell), np.array([mole.bas_angular(shell)], dtype=float))
        key = b"".join(part.tobytes() for part in parts)
        if key not in known:
            centre = mole.atom_coord(mole.bas_atom(shell))
            points = centre + (distances[:, None, None] * directions).reshape(-1, 3)
            name = f"GTOval_{'cart' if mole.cart else 'sph'}_deriv1"
            values = np.abs(mole.eval_gto(name, points, shls_slice=(shell, shell + 1)))
            largest = values.max(axis=(0, 2)).reshape(len(distances), -1).max(axis=1)
            above = np.flatnonzero(largest > threshold)
            known[key] = distances[above[-1]] + 0.1 if len(above) else distances[0]
        reach[shell] = known[key]
    return reach


_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})


@_compiled
def _gather(density: Any, orbitals: Any, part: Any) -> None:
    for spin in range(2):
        for i in range(len(orbitals)):
            for j in range(len(orbitals)):
                part[spin, i, j] = density[spin, orbitals[i], orbitals[j]]


@_compiled
def _scatter(part: Any, orbitals: Any, potential: Any) -> None:
    for spin in range(2):
        for i in range(len(orbitals)):
            for j in range(len(orbitals)):
                potential[spin, orbitals[i], orbitals[j]] += part[i, spin, j]


@_compiled
def _contract(products: Any, values: Any, found: Any) -> None:
    """Add ρ = Σ φ Dφ and ∇ρ = 2 Σ ∇φ Dφ."""
    for spin in range(products.shape[0]):
        for i in range(products.shape[1]):
            row = products[spin, i]
            for axis in range(values.shape[0]):
                factor = values.dtype.type(2 if axis else 1)
                for p in range(products.shape[2]):
                    found[spin, axis, p] += factor * row[p] * values[axis, i, p]


@_compiled
def _contract_kinetic(products: Any, gradients: Any, found: Any) -> None:
    """Add τ = Σ ∇φ D∇φ / 2, one axis."""
    half = gradients.dtype.type(0.5)
    for spin in range(products.shape[0]):
        for i in range(products.shape[1]):
            for p in range(products.shape[2]):
                found[spin, 4, p] += half * products[spin, i, p] * gradients[i, p]


@_compiled
def _scale(weighted: Any, values: Any, scaled: Any) -> None:
    """Write Σ_x v_x ∇_x φ with half of v_0."""
    half = values.dtype.type(0.5)
    for spin in range(scaled.shape[0]):
        for i in range(scaled.shape[1]):
            for p in range(scaled.shape[2]):
                scaled[spin, i, p] = half * weighted[spin, 0, p] * values[0, i, p]
            for axis in range(1, values.shape[0]):
                for p in range(scaled.shape[2]):
                    scaled[spin, i, p] += weighted[spin, axis, p] * values[axis, i, p]


@_compiled
def _scale_kinetic(weighted: Any, gradients: Any, scaled: Any) -> None:
    """Write a quarter of v_τ ∇φ: half of the factor 1/2 of the kinetic energy density."""
    quarter = gradients.dtype.type(0.25)
    for spin in range(scaled.shape[0]):
        for i in range(scaled.shape[1]):
            for p in range(scaled.shape[2]):
                scaled[spin, i, p] = quarter * weighted[spin, 4, p] * gradients[i, p]
