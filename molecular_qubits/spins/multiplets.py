"""Coupled states |S12, S; M> of radical, triplet and radical: the eigenstates under strong exchange."""

from dataclasses import dataclass

import numpy as np

from molecular_qubits.spins.operators import ComplexArray, embed, spin_matrices

DIMS = (2, 3, 2)


@dataclass(frozen=True)
class Multiplet:
    """One multiplet of the radical-triplet-radical system.

    Attributes
    ----------
    name
        ``"quintet"``, ``"triplet_t"``, ``"triplet_s"`` (radicals in their triplet or singlet) or ``"singlet"``.
    spin
        Total spin S.
    radical_spin
        Spin of the two radicals together.
    kets
        Kets as rows (2S+1, 12), M = S, ..., -S, in the product basis radical x triplet x radical.
    """

    name: str
    spin: int
    radical_spin: int
    kets: ComplexArray

    def energy_cm1(self, j_rt_cm1: float, j_rr_cm1: float = 0.0) -> float:
        """Return the energy under H = -2 J_RT S_T.(S_1 + S_2) - 2 J_RR S_1.S_2, in cm^-1."""
        total = self.spin * (self.spin + 1)
        radical = self.radical_spin * (self.radical_spin + 1)
        return -j_rt_cm1 * (total - 2 - radical) - j_rr_cm1 * (radical - 1.5)


def radical_triplet_radical_multiplets() -> dict[str, Multiplet]:
    """Return the four multiplets of spins 1/2, 1, 1/2.

    They are found as joint eigenstates of the total spin, of the spin of the two radicals and of M, with phases such
    that each ket of lower M is S- of the one above (Condon and Shortley).

    Returns
    -------
    dict of str to Multiplet
        Keys ``quintet``, ``triplet_t``, ``triplet_s``, ``singlet``.
    """
    sites = [embed(spin_matrices(spin), index, DIMS) for index, spin in enumerate((0.5, 1, 0.5))]
    radicals = sites[0] + sites[2]
    total = radicals + sites[1]
    total_square = np.einsum("aij,ajk->ik", total, total)
    radical_square = np.einsum("aij,ajk->ik", radicals, radicals)
    lowering = total[0] - 1j * total[1]
    found = {}
    for name, spin, radical_spin in (("quintet", 2, 1), ("triplet_t", 1, 1), ("triplet_s", 1, 0), ("singlet", 0, 1)):
        wanted = spin * (spin + 1) + 0.3 * radical_spin * (radical_spin + 1) + 20 * spin
        labels = total_square + 0.3 * radical_square + 20 * total[2]
        values, vectors = np.linalg.eigh(labels)
        top = vectors[:, int(np.argmin(np.abs(values - wanted)))]
        top = top / top[int(np.argmax(np.abs(top) > 1e-6))]
        kets = [top / np.linalg.norm(top)]
        for _ in range(2 * spin):
            lower = lowering @ kets[-1]
            kets.append(lower / np.linalg.norm(lower))
        found[name] = Multiplet(name, spin, radical_spin, np.array(kets))
    return found
