"""Spin centres and the alignments of their spins: which determinants there are, and whether a field is one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

Centres = tuple[tuple[int, ...], ...]

S2_TOLERANCE = 0.4
"""Largest deviation of <S^2> from the value of separate spins; below it, for each neighbour in a chain of centres.
Overlap lowers the value of a broken-symmetry state (H-He-H at 1.25 Å: 0.74 instead of 1), and does so for each pair of
neighbours; a collapse to the next spin state changes it by 1 or more."""

SPIN_SHARE = (0.5, 1.6)
"""Allowed range of the Löwdin spin population of a centre, as a share of 2 S."""

POLARISATION_DIFFERENCE = (0.02, 5e-4)
"""Largest difference in spin polarisation of two matching determinants, and how much more is allowed for each cm^-1
between their energies. Computed pairs differ by up to 1.5e-4 for each cm^-1 from 50 cm^-1 on, and else by less than
0.015."""


def check_centres(centres: Sequence[Iterable[int]], n_atoms: int) -> Centres:
    """Return `centres` as sorted tuples after checking that they are disjoint, non-empty and in range."""
    sets = tuple(_atom_set(atoms, number) for number, atoms in enumerate(centres))
    if len(sets) < 2:
        raise ValueError(f"Argument `centres` must hold at least 2 sets of atoms, but holds {len(sets)}.")
    owner: dict[int, int] = {}
    for number, atoms in enumerate(sets):
        if not atoms:
            raise ValueError(f"Argument `centres` must hold non-empty sets of atoms, but set {number} is empty.")
        for atom in atoms:
            if not 0 <= atom < n_atoms:
                raise ValueError(
                    f"Argument `centres` must hold atom indices from 0 to {n_atoms - 1}, but set {number} holds {atom}."
                )
            if atom in owner:
                raise ValueError(
                    f"Argument `centres` must hold disjoint sets, but atom {atom} is in sets {owner[atom]} and "
                    f"{number}."
                )
            owner[atom] = number
    return sets


def _atom_set(atoms: Iterable[int], number: int) -> tuple[int, ...]:
    try:
        found = list(atoms)
        indices = tuple(sorted(int(atom) for atom in found))
        whole = indices == tuple(sorted(found))
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(
            f"Argument `centres` must hold sets of whole atom indices such as [[0], [2, 3]], but set {number} is "
            f"{atoms!r}."
        )
    return indices


def check_spins(spins: Sequence[float], n_centres: int) -> np.ndarray:
    """Return `spins` as an array after checking that they are ``n_centres`` positive multiples of 1/2."""
    try:
        values = np.asarray(spins, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"Argument `spins` must hold positive multiples of 1/2, but is {spins!r}.") from None
    if values.shape != (n_centres,):
        raise ValueError(f"Argument `spins` must hold one spin for each of {n_centres} centres, but is {spins!r}.")
    if not np.all(np.isfinite(values) & (values > 0)) or not np.all(2 * values == np.round(2 * values)):
        raise ValueError(f"Argument `spins` must hold positive multiples of 1/2, but is {spins!r}.")
    return values


def enumerate_determinants(spins: Sequence[float]) -> list[tuple[int, ...]]:
    """Return every distinct alignment of the centres: 2^(n-1) of them.

    Parameters
    ----------
    spins
        Spin of each centre.

    Returns
    -------
    list of tuple of int
        +1 or -1 for each centre; the high-spin determinant first, then by the number of flips. Determinants that differ
        by turning all spins are listed once, in the form with the larger number of α electrons.
    """
    n_centres = len(spins)
    found = [(1,) * n_centres]
    for size in range(1, n_centres // 2 + 1):  # more flips are fewer flips of the others
        for flips in combinations(range(n_centres), size):
            signs = tuple(-1 if centre in flips else 1 for centre in range(n_centres))
            total = sum(sign * spin for sign, spin in zip(signs, spins, strict=True))
            if total < 0 or (total == 0 and signs[0] < 0):
                signs = tuple(-sign for sign in signs)
            if signs not in found:
                found.append(signs)
    return found


def state_label(determinant: Sequence[int]) -> str:
    """Return e.g. ``high-spin state`` or ``broken-symmetry state ↓↑``."""
    arrows = "".join("↑" if sign > 0 else "↓" for sign in determinant)
    return f"high-spin state {arrows}" if all(sign > 0 for sign in determinant) else f"broken-symmetry state {arrows}"


def separate_spin_s2(determinant: Sequence[int], spins: Sequence[float]) -> float:
    """Return <S^2> of a determinant of separate spins: (sum ±S_i)^2 + sum S_i."""
    total = sum(sign * spin for sign, spin in zip(determinant, spins, strict=True))
    return total**2 + sum(spins)


def alignment_of(multiplicity: int, spins: Sequence[float], alignment: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return the alignment of the centres that has 2S + 1 = `multiplicity` with S the sum of ±`spins`.

    Raises
    ------
    ValueError
        If there is none, or there are several and `alignment` does not name one of them.
    """
    found = [
        signs
        for signs in enumerate_determinants(spins)
        if 2 * sum(sign * spin for sign, spin in zip(signs, spins, strict=True)) + 1 == multiplicity
    ]
    if not found:
        raise ValueError(
            f"Argument `spins` must give the multiplicity {multiplicity} with some of them turned, but is "
            f"{tuple(spins)}. Check `spins` and `multiplicity`."
        )
    wanted = None if alignment is None else tuple(alignment)
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted not in found:
        raise ValueError(f"Argument `alignment` must be one of {found}, the signs of the spins, but is {wanted}.")
    return wanted


def misalignment(
    determinant: Sequence[int], spins: Sequence[float], s2: float, populations: Sequence[float]
) -> str | None:
    """Return in which way a field is not the determinant asked for, or ``None`` if it is.

    Parameters
    ----------
    determinant, spins
        +1 or -1, and the spin, of each centre.
    s2
        <S^2> of the field.
    populations
        Löwdin spin population n_α - n_β of each centre.

    Returns
    -------
    str or None
        The rest of a sentence that begins with "The field converged".
    """
    expected_s2 = separate_spin_s2(determinant, spins)
    neighbours = 1 if len(set(determinant)) == 1 else len(determinant) - 1
    tolerance = S2_TOLERANCE * (neighbours if s2 < expected_s2 else 1)
    if abs(s2 - expected_s2) > tolerance:
        return f"to <S^2> = {s2:.3f}, but {expected_s2:.2f} was expected for separate spins (tolerance {tolerance:g})"
    shares = [sign * found / (2 * spin) for sign, spin, found in zip(determinant, spins, populations, strict=True)]
    for centre in np.argsort(shares):  # a centre without spin before one that has too much in its place
        if not SPIN_SHARE[0] <= shares[centre] <= SPIN_SHARE[1]:
            expected = 2 * determinant[centre] * spins[centre]
            return (
                f"with spin population {populations[centre]:+.3f} on centre {centre}, but about {expected:+.0f} was "
                "expected"
            )
    return None


def polarised_alike(difference: float, gap_cm1: float) -> bool:
    """Return whether the spins of two determinants polarise their surroundings in the same way.

    Parameters
    ----------
    difference
        Difference of their `populations.spin_polarisation`.
    gap_cm1
        Difference of their energies.

    Returns
    -------
    bool
        Whether `POLARISATION_DIFFERENCE` allows the difference: where one state is polarised more, it gains energy by
        it; where the energies are nearly the same and the polarisations are not, there is another solution for one.
    """
    floor, slope = POLARISATION_DIFFERENCE
    return abs(difference) <= floor + slope * abs(gap_cm1)
