"""Exchange couplings from energies of determinants: two-centre projections and the least-squares Heisenberg map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from molecular_qubits.fields.alignments import check_spins
from molecular_qubits.units import HARTREE_TO_CM1


@dataclass(frozen=True)
class ProjectedJ:
    """Exchange coupling J of two centres in cm^-1 by three projections (H = -2 J S1.S2, J > 0 ferromagnetic)."""

    yamaguchi_cm1: float
    noodleman_cm1: float
    unprojected_cm1: float


@dataclass(frozen=True)
class HeisenbergFit:
    """Couplings ``j_cm1`` ``(n, n)`` (symmetric, zero diagonal), offset and residuals ``(n_states,)``, all in cm^-1."""

    j_cm1: np.ndarray
    offset_cm1: float
    residual_cm1: np.ndarray


def project_j(
    e_hs_hartree: float,
    e_bs_hartree: float,
    s2_hs: float,
    s2_bs: float,
    *,
    spins: Sequence[float] = (0.5, 0.5),
) -> ProjectedJ:
    """Project the energies of a high-spin and a broken-symmetry determinant on the exchange coupling of two centres.

    Parameters
    ----------
    e_hs_hartree, e_bs_hartree
        Energies of the high-spin and the broken-symmetry determinant in hartree.
    s2_hs, s2_bs
        Their <S^2>.
    spins
        Spins of the two centres, multiples of 1/2.

    Returns
    -------
    ProjectedJ
        With dE = E_BS - E_HS: Yamaguchi dE/(<S^2>_HS - <S^2>_BS), Noodleman dE/(4 S1 S2), and unprojected
        dE/(4 S1 S2 + 2 min(S1, S2)), in cm^-1. H = -2 J S1.S2; J > 0 ferromagnetic.

    Raises
    ------
    ValueError
        If a number is not finite, the two <S^2> do not fall from high spin to broken symmetry, or `spins` are not two
        positive multiples of 1/2.

    References
    ----------
    Yamaguchi, Takahara, Fueno, in Applied Quantum Chemistry (1986) 155. Noodleman, J. Chem. Phys. 74, 5737 (1981).
    Ruiz, Cano, Alvarez, Alemany, J. Comput. Chem. 20, 1391 (1999).
    """
    numbers = {"e_hs_hartree": e_hs_hartree, "e_bs_hartree": e_bs_hartree, "s2_hs": s2_hs, "s2_bs": s2_bs}
    for name, value in numbers.items():
        if not np.isfinite(value):
            raise ValueError(f"Argument `{name}` must be finite, but is {value!r}.")
    if len(spins) != 2:
        raise ValueError(f"Argument `spins` must hold two spins, but holds {len(spins)}.")
    s1, s2 = check_spins(spins, 2)
    _check_falling_spin(s2_hs, s2_bs)
    difference = (e_bs_hartree - e_hs_hartree) * HARTREE_TO_CM1
    return ProjectedJ(
        yamaguchi_cm1=float(difference / (s2_hs - s2_bs)),
        noodleman_cm1=float(difference / (4 * s1 * s2)),
        unprojected_cm1=float(difference / (4 * s1 * s2 + 2 * min(s1, s2))),
    )


def _check_falling_spin(s2_hs: float, s2_bs: float) -> None:
    if s2_hs - s2_bs <= 1e-6:
        raise ValueError(
            f"Argument `s2_hs` must exceed `s2_bs`, but they are {s2_hs:.6f} and {s2_bs:.6f}: "
            "the two determinants do not differ in spin alignment."
        )


def map_heisenberg(energies_cm1: ArrayLike, spins: Sequence[float], determinants: ArrayLike) -> HeisenbergFit:
    """Fit exchange couplings to the energies of determinants of a Heisenberg model, by least squares with an offset.

    Parameters
    ----------
    energies_cm1
        Energies of the determinants ``(n_states,)`` in cm^-1, from any common zero.
    spins
        Spin of each of the ``n`` centres, multiples of 1/2.
    determinants
        Rows of +1 and -1 ``(n_states, n)``: alignment of each centre. A determinant has <S_i.S_j> = ±S_i S_j (Ising
        product).

    Returns
    -------
    HeisenbergFit
        For E = offset - 2 sum_{i<j} J_ij <S_i.S_j>; J > 0 ferromagnetic.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not ±1, or the determinants do not fix all couplings and the offset.
    """
    signs = np.asarray(determinants, dtype=float)
    if signs.ndim != 2:
        raise ValueError(f"Argument `determinants` must be a matrix (n_states, n), but has {signs.ndim} dimension(s).")
    values = check_spins(spins, signs.shape[1])
    if not np.all(np.abs(signs) == 1):
        raise ValueError("Argument `determinants` must hold +1 and -1 only.")
    moments = signs * values
    return fit_products(energies_cm1, moments[:, :, None] * moments[:, None, :])


def map_yamaguchi(
    energies_cm1: ArrayLike, s2: ArrayLike, spins: Sequence[float], determinants: ArrayLike
) -> HeisenbergFit:
    """Fit exchange couplings to the energies and the <S^2> of determinants: Yamaguchi's projection for any centres.

    Parameters
    ----------
    energies_cm1
        Energies of the determinants ``(n_states,)`` in cm^-1, from any common zero; the high-spin one first.
    s2
        <S^2> of each ``(n_states,)``.
    spins, determinants
        As for `map_heisenberg`.

    Returns
    -------
    HeisenbergFit
        <S^2> is fitted as the energies are: <S^2> = const + 2 sum_{i<j} k_ij (±S_i S_j). k_ij is 1 for separate spins
        and differs by the overlap of the magnetic orbitals of the pair; J_ij = (Noodleman J_ij) / k_ij, so that
        E = offset - 2 sum_{i<j} J_ij P_ij with P_ij = k_ij (±S_i S_j), and the P_ij add up to <S^2>/2 but for a
        constant. For two centres this is dE/(<S^2>_HS - <S^2>_BS). The residuals are those of the Noodleman fit.

    Raises
    ------
    ValueError
        As `map_heisenberg`; and if <S^2> does not fall from the high-spin state to each of the others, or for a pair.

    Notes
    -----
    <S_i.S_j> of the determinants, spins taken on the atoms of each centre, is no substitute: it loses what lies on
    other atoms, and overlap lowers not only <S_i.S_j> but also <S_i^2>, which belongs to no pair where a centre has two
    neighbours. In H-He-H-He-H at 1.5 Å (UHF/6-31G) it makes J of neighbours 8 % larger than Noodleman's, where <S^2> of
    the whole makes it 1 % smaller, as in H-He-H.

    References
    ----------
    Yamaguchi, Takahara, Fueno, in Applied Quantum Chemistry (1986) 155, for two centres.
    """
    noodleman = map_heisenberg(energies_cm1, spins, determinants)
    values = np.asarray(s2, dtype=float)
    if values.shape != (len(noodleman.residual_cm1),):
        raise ValueError(
            f"Argument `s2` must hold a value for each of {len(noodleman.residual_cm1)} determinants, but has shape "
            f"{values.shape}."
        )
    for value in values[1:]:
        _check_falling_spin(values[0], value)
    overlap = -map_heisenberg(values, spins, determinants).j_cm1
    for i, j in combinations(range(len(spins)), 2):
        if overlap[i, j] <= 1e-6:
            raise ValueError(
                f"Argument `s2` must fall where centres {i} and {j} turn against each other, but they contribute "
                f"{overlap[i, j]:.3f} of what separate spins do. The determinants are no states of separate spins."
            )
    np.fill_diagonal(overlap, 1.0)
    return HeisenbergFit(noodleman.j_cm1 / overlap, noodleman.offset_cm1, noodleman.residual_cm1)


def convergence_error(
    conv_tol: float, energies_cm1: ArrayLike, s2: ArrayLike, spins: Sequence[float], determinants: ArrayLike
) -> np.ndarray:
    """Return the errors of the couplings of `map_yamaguchi` ``(n, n)`` in cm^-1 that the convergence of fields leaves.

    Parameters
    ----------
    conv_tol
        Of the fields, hartree: error of each energy. Orbitals are converged to a gradient of its square root, and
        <S^2>, which is of first order in them, to about as much. All errors are independent.
    energies_cm1, s2, spins, determinants
        As for `map_yamaguchi`.
    """
    energies, squares = np.asarray(energies_cm1, dtype=float), np.asarray(s2, dtype=float)
    states = np.eye(len(energies))
    away = np.sqrt(conv_tol) * np.where(np.arange(len(energies)) == 0, 1.0, -1.0)  # so that no pair's <S^2> vanishes
    here = map_yamaguchi(energies, squares, spins, determinants).j_cm1
    moved = [map_yamaguchi(conv_tol * HARTREE_TO_CM1 * row, squares, spins, determinants).j_cm1 for row in states]
    moved += [map_yamaguchi(energies, squares + away * row, spins, determinants).j_cm1 - here for row in states]
    return np.sqrt(np.sum(np.square(moved), axis=0))


def fit_products(energies_cm1: ArrayLike, products: ArrayLike) -> HeisenbergFit:
    """Fit exchange couplings to energies and the values of <S_i.S_j> in each state.

    Parameters
    ----------
    energies_cm1
        ``(n_states,)`` in cm^-1.
    products
        <S_i.S_j> ``(n_states, n, n)``; only the part above the diagonal is read.

    Returns
    -------
    HeisenbergFit
        As for `map_heisenberg`, which takes Ising products.

    Raises
    ------
    ValueError
        If shapes disagree or the states do not fix all couplings and the offset.
    """
    energies = np.asarray(energies_cm1, dtype=float)
    table = np.asarray(products, dtype=float)
    if energies.ndim != 1 or table.ndim != 3 or len(energies) != len(table) or table.shape[1] != table.shape[2]:
        raise ValueError(
            f"Argument `energies_cm1` must have one entry for each state, but has shape {energies.shape} for states of "
            f"shape {table.shape}."
        )
    if not (np.all(np.isfinite(energies)) and np.all(np.isfinite(table))):
        raise ValueError("Argument `energies_cm1` and the spin products must be finite, but hold NaN or infinity.")
    n_centres = table.shape[1]
    if n_centres < 2:
        raise ValueError(f"Argument `spins` must name at least 2 centres, but names {n_centres}.")
    pairs = list(combinations(range(n_centres), 2))
    design = np.column_stack([np.ones(len(energies)), *(-2 * table[:, i, j] for i, j in pairs)])
    rank = int(np.linalg.matrix_rank(design))
    if rank < design.shape[1]:
        raise ValueError(
            f"Argument `determinants` must fix {len(pairs)} coupling(s) and the offset ({design.shape[1]} unknowns), "
            f"but the {len(energies)} given have rank {rank}. Add determinants with other relative alignments."
        )
    zero = energies.mean()  # keeps the precision of small couplings beside large total energies
    solution = np.linalg.lstsq(design, energies - zero, rcond=None)[0]
    j_cm1 = np.zeros((n_centres, n_centres))
    for (i, j), value in zip(pairs, solution[1:], strict=True):
        j_cm1[i, j] = j_cm1[j, i] = value
    return HeisenbergFit(j_cm1, float(solution[0] + zero), energies - zero - design @ solution)


def unprojected_factor(spins: Sequence[float]) -> np.ndarray:
    """Return the matrix ``(n, n)`` that turns Noodleman couplings into unprojected ones.

    Both take the energy of an antiparallel pair as -S_i S_j + const; unprojected (Ruiz) takes the spin eigenvalue
    -S_i S_j - min(S_i, S_j) instead, so that J is smaller by 2 S_i S_j / (2 S_i S_j + min(S_i, S_j)).
    """
    values = check_spins(spins, len(spins))
    product, smaller = np.outer(values, values), np.minimum.outer(values, values)
    return 2 * product / (2 * product + smaller)
