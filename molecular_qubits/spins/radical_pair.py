"""Spins of which one pair of electrons recombines: the spin system beside the levels of its products."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from molecular_qubits.spins.checks import known_name
from molecular_qubits.spins.operators import ComplexArray, embed
from molecular_qubits.spins.system import SpinSystem

if TYPE_CHECKING:
    import qutip

PRODUCTS: dict[str, int] = {"pair": 0, "singlet_product": 1, "triplet_product": 2}
"""States of the site ``reaction``: the pair as it is, and what it recombines to."""


class RadicalPair:
    """A spin system with one more site, ``reaction``, which says whether the pair lives or what it has become.

    The pair keeps the Hamiltonian of the spins. In the products its two electrons are paired or lost and have none;
    the other spins keep theirs and their couplings among each other. Keeping the products as levels conserves the
    trace, and the yields are populations.

    Parameters
    ----------
    spins
        The spins; no site may be called ``reaction``.
    pair
        Names of the two electrons of spin 1/2 that recombine.

    Raises
    ------
    ValueError
        If the pair is not two different spins 1/2 that are electrons.
    """

    def __init__(self, spins: SpinSystem, pair: tuple[str, str]) -> None:
        if "reaction" in spins.names:
            raise ValueError("Argument `spins` must not have a site called 'reaction'; rename it.")
        self.spins = spins
        self.pair = pair_indices(spins, pair)
        self.names: tuple[str, ...] = (*spins.names, "reaction")
        self.dims: tuple[int, ...] = (*spins.dims, 3)
        self._rest = _without(spins, self.pair)
        self.local_key: Hashable = (spins.local_key, self.pair)

    @property
    def dimension(self) -> int:
        """Dimension of the whole space."""
        return 3 * self.spins.dimension

    def site_spin(self, name: str) -> ComplexArray:
        """Return Sx, Sy, Sz of one site, shape (3, d, d); those of ``reaction`` vanish."""
        return np.zeros((3, 3, 3), dtype=complex) if name == "reaction" else self.spins.site_spin(name)

    def site_hamiltonian(self, name: str, field_tesla: Any = 0.0) -> ComplexArray:
        """Return Zeeman and zero-field splitting of one site in its own space, (d, d) in rad/ns."""
        if name == "reaction":
            return np.zeros((3, 3), dtype=complex)
        return self.spins.site_hamiltonian(name, field_tesla)

    def hamiltonian_matrix(self, field_tesla: Any = 0.0) -> ComplexArray:
        """Return the Hamiltonian as an array (D, D) in rad/ns."""
        alive = np.kron(self.spins.hamiltonian_matrix(field_tesla), np.diag([1, 0, 0]))
        return alive + np.kron(self._rest.hamiltonian_matrix(field_tesla), np.diag([0, 1, 1]))

    def hamiltonian(self, field_tesla: Any = 0.0) -> "qutip.Qobj":
        """Return the Hamiltonian in rad/ns as a `qutip.Qobj` with the dimensions of the sites."""
        from qutip import Qobj

        return Qobj(self.hamiltonian_matrix(field_tesla), dims=[list(self.dims), list(self.dims)])

    def initial_state(self, born: Literal["singlet", "triplet"]) -> ComplexArray:
        """Return the state (D, D) of a pair born in its singlet or (mixed) triplet, all other spins unpolarised."""
        known_name(born, ("singlet", "triplet"), "born")
        projector = singlet_projector(self.spins, self.pair)
        if born == "triplet":
            projector = np.eye(self.spins.dimension) - projector
        return self.lift(projector / np.trace(projector).real)

    def lift(self, state: ComplexArray) -> ComplexArray:
        """Return a state (d, d) of the spins as that of the living pair, (D, D)."""
        return np.kron(state, np.diag([1, 0, 0])).astype(complex)

    def product_projector(self, product: str) -> ComplexArray:
        """Return the projector (D, D) on ``pair``, ``singlet_product`` or ``triplet_product``."""
        index = PRODUCTS[known_name(product, list(PRODUCTS), "product")]
        return embed(np.diag(np.eye(3)[index]), len(self.dims) - 1, self.dims)


def pair_indices(spins: SpinSystem, pair: Any) -> tuple[int, int]:
    """Return the indices of two named electrons of spin 1/2, checked."""
    if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1]:
        raise ValueError(f"Argument `pair` must be the names of two different sites, but was {pair!r}.")
    first, second = (spins.names.index(known_name(name, spins.names, "pair")) for name in pair)
    for index in (first, second):
        if spins.spins[index] != 0.5 or index in spins.isotopes:
            raise ValueError(f"Argument `pair` must name electrons of spin 1/2, but {spins.names[index]!r} is not one.")
    return first, second


def singlet_projector(spins: SpinSystem, pair: tuple[int, int]) -> ComplexArray:
    """Return 1/4 - S_a.S_b, the projector (d, d) on the singlet of two spins 1/2."""
    first, second = spins.spin(pair[0]), spins.spin(pair[1])
    return np.eye(spins.dimension) / 4 - np.einsum("aij,ajk->ik", first, second)


def _without(spins: SpinSystem, pair: tuple[int, int]) -> SpinSystem:
    """Return the system with the Zeeman term and all couplings of two electrons taken away."""
    entries: list[Any] = []
    for index in range(len(spins.spins)):
        if index in spins.isotopes:
            entries.append(spins.nuclear_g(index))
        else:
            entries.append(0.0 if index in pair else spins.g[index])

    def left(couplings: Any) -> dict[tuple[int, int], Any]:
        return {key: value for key, value in couplings.items() if not set(key) & set(pair)}

    return SpinSystem(
        spins.spins,
        entries,
        exchange_cm1=left(spins.exchange_cm1),
        zfs=spins.zfs,
        dipolar=left(spins.dipolar),
        names=spins.names,
        isotopes=spins.isotopes,
        hyperfine=left(spins.hyperfine),
    )
