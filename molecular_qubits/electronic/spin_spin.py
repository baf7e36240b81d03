"""Spin-spin zero-field splitting of a determinant, and dipolar couplings between the spins of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from molecular_qubits.electronic.dipolar_integrals import DipolarPair, Integrals, dipolar_pairs
from molecular_qubits.electronic.high_spin import check_high_spin_density, is_high_spin
from molecular_qubits.fields.alignments import SPIN_SHARE, Centres, check_centres, check_spins
from molecular_qubits.fields.populations import atom_of_orbital, checked_density, square_root
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.pyscf_input import build_mole
from molecular_qubits.units import FINE_STRUCTURE, HARTREE_TO_CM1

SpinDensity = Literal["unrestricted", "natural"]

LEAST_POPULATION = 0.3
"""Least spin population of a part, as a share of 2 S, for which a dipolar coupling is given."""

MISSING_POPULATION = 0.5
"""Spin population outside the parts below which they hold all spins: one spin more would leave about 1 or more."""


@dataclass(frozen=True)
class SpinSpinZFS:
    """Spin-spin part of the zero-field splitting of one determinant, H = S.D.S.

    ``tensor_cm1`` is (3, 3), symmetric, traceless, in the frame of the coordinates; ``direct_cm1`` minus
    ``exchange_cm1`` is the tensor. ``spin`` is S; ``integrals`` and ``spin_density`` say how it was computed.
    """

    tensor_cm1: np.ndarray
    direct_cm1: np.ndarray
    exchange_cm1: np.ndarray
    spin: float
    integrals: str
    spin_density: str

    @property
    def d_cm1(self) -> float:
        """Axial parameter D = 3/2 Dz with |Dz| >= |Dy| >= |Dx|."""
        return 1.5 * float(self._principal[2])

    @property
    def e_cm1(self) -> float:
        """Rhombic parameter E = (Dx - Dy) / 2; it has the sign of D or is 0."""
        return float(self._principal[0] - self._principal[1]) / 2

    @property
    def _principal(self) -> np.ndarray:
        values = np.linalg.eigvalsh(self.tensor_cm1)
        return values[np.argsort(np.abs(values), kind="stable")]


@dataclass(frozen=True)
class PartialSpins:
    """Dipolar tensors of the parts of a molecule, in cm^-1, in the frame of the coordinates.

    ``zfs_cm1`` holds D_i of H = S_i.D_i.S_i for each part with S_i >= 1, ``dipolar_cm1`` holds D_ij of
    H = S_i.D_ij.S_j for pairs i < j: what `SpinSystem` takes as ``zfs`` and ``dipolar``. ``populations`` is the spin
    n_α - n_β of each part; what is missing from ±2 S_i lies on atoms of no part, or on other parts. ``spin_density``
    says from which it was computed.
    """

    spins: tuple[float, ...]
    populations: tuple[float, ...]
    zfs_cm1: dict[int, np.ndarray]
    dipolar_cm1: dict[tuple[int, int], np.ndarray]
    spin_density: str


def spin_spin_zfs(
    molecule: Molecule,
    basis: str,
    density: np.ndarray,
    *,
    g: float = 2.0,
    spin_density: SpinDensity = "natural",
    integrals: Integrals = "fit",
    auxbasis: str | None = None,
    max_memory_mb: float = 2000.0,
) -> SpinSpinZFS:
    """Compute the spin-spin zero-field splitting of a high-spin determinant.

    D_kl = (g² α² / 4) / (4 S (2S - 1)) [direct - exchange](P, P; T_kl), with P = P_α - P_β, S = (n_α - n_β) / 2 and
    T_kl = (δ_kl r² - 3 r_k r_l) / r⁵: first order in the dipolar interaction of the electron spins, with the
    determinant taken as a spin eigenstate. Spin-orbit coupling is not part of it.

    Parameters
    ----------
    molecule
        The molecule of the determinant.
    basis
        Its basis set.
    density
        Density matrices of α and β ``(2, n_ao, n_ao)``.
    g
        g factor of the electrons: 2 in the Breit-Pauli Hamiltonian, `units.G_ELECTRON` to be consistent with
        `spins.tensors.point_dipole_tensor`; the tensor scales with its square.
    spin_density
        ``"natural"``: P of the singly occupied natural orbitals (UNO), which leaves the spin polarisation out.
        ``"unrestricted"``: P of the determinant. By B3LYP the polarisation of aromatic triplets turns the sign of D
        (naphthalene -0.046 in place of +0.052 cm^-1, measured 0.100).
    integrals, auxbasis, max_memory_mb
        As in `dipolar_pairs`.

    Returns
    -------
    SpinSpinZFS
        Tensor in cm^-1. At a large distance two electrons give the point dipole, D = -3/2 α² / r³ (g = 2).

    Raises
    ------
    ValueError
        If the density does not fit the molecule, has fewer than two unpaired electrons, or is of a broken-symmetry
        state.

    References
    ----------
    Sinnecker, Neese, J. Phys. Chem. A 110, 12267 (2006), equations 6-8.
    """
    mole, density = _checked(molecule, basis, density, g)
    overlap = mole.intor_symmetric("int1e_ovlp")
    spin = round(float(np.einsum("ij,ji->", density[0] - density[1], overlap))) / 2
    if spin < 1:
        raise ValueError(
            f"Argument `density` must have at least two unpaired α electrons for a zero-field splitting, but has "
            f"{2 * spin:g}. Take the high-spin state."
        )
    check_high_spin_density(density, overlap, round(2 * spin))
    difference = _spin_density(density, overlap, round(2 * spin), spin_density)
    pair = dipolar_pairs(
        mole, difference[None], [(0, 0)], integrals=integrals, auxbasis=auxbasis, max_memory_mb=max_memory_mb
    )[0]
    scale = _scale(g) / (4 * spin * (2 * spin - 1))
    return SpinSpinZFS(
        scale * pair.total, scale * pair.direct, scale * pair.exchange, spin, integrals, spin_density
    )  # fmt: skip


def partial_spin_tensors(
    molecule: Molecule,
    basis: str,
    density: np.ndarray,
    parts: Sequence[Iterable[int]],
    spins: Sequence[float],
    *,
    g: float = 2.0,
    spin_density: SpinDensity | None = None,
    integrals: Integrals = "fit",
    auxbasis: str | None = None,
    max_memory_mb: float = 2000.0,
) -> PartialSpins:
    """Compute the dipolar tensors between the spins of parts of a molecule, e.g. a radical and a triplet chromophore.

    The spin-density matrix is divided among the parts in Löwdin's orthogonal orbitals, half of each block between two
    parts to either. With P_i the share of part i,

        D_ij = (g² α² / 4) / (4 S_i S_j) [direct - exchange](P_i, P_j),
        D_i = (g² α² / 4) / (4 S_i (2 S_i - 1)) [direct - exchange](P_i, P_i).

    Both are bilinear in P, so that the projection of these tensors on the high-spin multiplet (e.g. (D_T + D_RT) / 3
    for a quartet) is its zero-field splitting from `spin_spin_zfs`, as far as the parts hold all the spin and a spin
    1/2 has no interaction with itself.

    Parameters
    ----------
    molecule, basis, density
        The determinant, as in `spin_spin_zfs`. High-spin or broken-symmetry: a part with its spin down counts with a
        negative sign.
    parts
        Atom indices of each part; disjoint.
    spins
        Spin of each part.
    g, spin_density, integrals, auxbasis, max_memory_mb
        As in `spin_spin_zfs`. ``"natural"`` is for a high-spin determinant, and what ``None`` takes for one.

    Returns
    -------
    PartialSpins
        Tensors for `SpinSystem(zfs=..., dipolar=...)`; their axial parameter is 3/2 of the largest principal value.

    Raises
    ------
    ValueError
        If parts overlap or are out of range, a part holds too little or too much spin for the spin that is given, or
        the parts hold all the spin and their spins do not add up to it.
    """
    mole, density = _checked(molecule, basis, density, g)
    sets = _atom_sets(parts, molecule.n_atoms)
    values = [float(spin) for spin in check_spins(spins, len(sets))]
    overlap = mole.intor_symmetric("int1e_ovlp")
    unpaired = round(float(np.einsum("ij,ji->", density[0] - density[1], overlap)))
    if spin_density is None:
        spin_density = "natural" if unpaired > 0 and is_high_spin(density, overlap, unpaired) else "unrestricted"
    difference = _spin_density(density, overlap, unpaired, spin_density)
    root, owner = square_root(overlap), atom_of_orbital(mole)
    inverse = np.linalg.inv(root)
    orthogonal = root @ difference @ root
    shares, populations = [], []
    for number, (atoms, spin) in enumerate(zip(sets, values, strict=True)):
        inside = np.isin(owner, atoms).astype(float)
        share = orthogonal * (inside[:, None] + inside[None, :]) / 2
        populations.append(float(np.trace(share)))
        if not LEAST_POPULATION <= abs(populations[-1]) / (2 * spin) <= SPIN_SHARE[1]:
            raise ValueError(
                f"Argument `parts` must hold spin, but part {number} has the spin population {populations[-1]:+.3f} "
                f"where ±{2 * spin:g} was expected. Give the atoms that carry the spin, its value, or another state."
            )
        shares.append(inverse @ share @ inverse * np.sign(populations[-1]))
    _check_sum(values, populations, unpaired)
    local = [i for i, spin in enumerate(values) if spin >= 1]
    coupled = [(i, j) for i in range(len(sets)) for j in range(i + 1, len(sets))]
    tensors = dipolar_pairs(
        mole, np.array(shares), [(i, i) for i in local] + coupled, integrals=integrals, auxbasis=auxbasis,
        max_memory_mb=max_memory_mb,
    )  # fmt: skip
    zfs = {
        i: _scale(g) / (4 * values[i] * (2 * values[i] - 1)) * pair.total
        for i, pair in zip(local, tensors[: len(local)], strict=True)
    }
    dipolar = {
        (i, j): _scale(g) / (4 * values[i] * values[j]) * pair.total
        for (i, j), pair in zip(coupled, tensors[len(local) :], strict=True)
    }
    return PartialSpins(tuple(values), tuple(populations), zfs, dipolar, spin_density)


def _scale(g: float) -> float:
    return g**2 / 4 * FINE_STRUCTURE**2 * HARTREE_TO_CM1


def _checked(molecule: Molecule, basis: str, density: np.ndarray, g: float) -> tuple[Any, np.ndarray]:
    if not np.isfinite(g) or g <= 0:
        raise ValueError(f"Argument `g` must be a positive number, but is {g!r}.")
    mole = build_mole(molecule, basis, molecule.n_electrons % 2)
    return mole, checked_density(density, mole, basis)


def _spin_density(density: np.ndarray, overlap: np.ndarray, n_unpaired: int, kind: str) -> np.ndarray:
    """Return P_α - P_β, or that of the singly occupied natural orbitals, ``(n_ao, n_ao)``."""
    if kind == "unrestricted":
        return density[0] - density[1]
    if kind != "natural":
        raise ValueError(f"Argument `spin_density` must be 'unrestricted' or 'natural', but is {kind!r}.")
    if n_unpaired < 1:
        raise ValueError("Argument `spin_density` must be 'unrestricted' for a state without more α than β electrons.")
    check_high_spin_density(density, overlap, n_unpaired)
    root = square_root(overlap)
    occupations, orbitals = np.linalg.eigh(root @ (density[0] + density[1]) @ root)
    single = np.argsort(np.abs(occupations - 1))[:n_unpaired]
    natural = np.linalg.inv(root) @ orbitals[:, single]
    return natural @ natural.T


def _atom_sets(parts: Sequence[Iterable[int]], n_atoms: int) -> Centres:
    try:
        return check_centres(parts, n_atoms)
    except ValueError as error:
        raise ValueError(str(error).replace("`centres`", "`parts`")) from None


def _check_sum(spins: Sequence[float], populations: Sequence[float], n_unpaired: int) -> None:
    """Raise a `ValueError` if the parts hold all the spin, and the sum of ±2 S is not the number of unpaired electrons.

    A spin that is on no part, or that turns one of theirs, takes at least one unpaired electron from the populations.
    """
    total = float(sum(2 * np.copysign(spin, found) for spin, found in zip(spins, populations, strict=True)))
    if abs(sum(populations) - n_unpaired) < MISSING_POPULATION and total != n_unpaired:
        found = ", ".join(f"{population:+.3f}" for population in populations)
        raise ValueError(
            f"Argument `spins` must add up to {n_unpaired} unpaired electrons, each with the sign of its part, but "
            f"{tuple(spins)} give {total:g}. The spin populations of the parts are {found}."
        )


__all__ = ["DipolarPair", "PartialSpins", "SpinSpinZFS", "partial_spin_tensors", "spin_spin_zfs"]
