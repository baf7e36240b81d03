"""Any number of any spins with full tensors: H = Zeeman - 2 J S_i.S_j + S_i.D_i.S_i + S_i.D_ij.S_j + S_i.A_ij.I_j."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from molecular_qubits.spins.checks import (
    field_vector,
    finite_number,
    known_name,
    one_number,
    symmetric_tensor,
    thermal_frequency,
)
from molecular_qubits.spins.operators import (
    ComplexArray,
    FloatArray,
    bilinear,
    embedded_spin,
    spin_dimension,
    spin_matrices,
    thermal_density,
)
from molecular_qubits.spins.tensors import g_tensor
from molecular_qubits.structure.nuclei import electron_scale_g, isotope
from molecular_qubits.units import CM1_TO_RAD_PER_NS, G_ELECTRON, MU_B_RAD_PER_NS_PER_T

if TYPE_CHECKING:
    import qutip


class QuantumSystem(Protocol):
    """What the channels and the solvers need of a system."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sites."""

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimension of each site, the first varying slowest."""

    @property
    def local_key(self) -> Hashable:
        """What the operators of the sites depend on: equal for systems that differ in their couplings only."""

    def hamiltonian_matrix(self, field_tesla: Any = 0.0) -> ComplexArray:
        """Hamiltonian (D, D) in rad/ns."""

    def site_spin(self, name: str) -> ComplexArray:
        """Spin operators (3, d, d) of one site in its own space."""

    def site_hamiltonian(self, name: str, field_tesla: Any = 0.0) -> ComplexArray:
        """Hamiltonian (d, d) in rad/ns of one site on its own."""


class SpinSystem:
    """Spins of electrons and nuclei coupled to a field and to each other.

    H = mu_B B.g_i.S_i - 2 J_ij S_i.S_j + S_i.D_i.S_i + S_i.D_ij.S_j - mu_N g_k B.I_k + S_i.A_ik.I_k, with J > 0
    ferromagnetic.

    Parameters
    ----------
    spins
        Spin quantum numbers: 0, 1/2, 1, ...; a spin 0 is a site of dimension 1.
    g
        One number for all electron spins, or one entry for each spin: a number, three numbers (diagonal) or a (3, 3)
        tensor. The free-electron value by default. The entry of a nucleus is None (its g-factor from the table) or its
        nuclear g-factor in nuclear magnetons.
    exchange_cm1
        ``{(i, j): J}`` in cm^-1 for pairs i != j, each pair once.
    zfs
        ``{i: tensor}``: symmetric, traceless (3, 3) tensors in cm^-1, for spins of 1 or more; of a nucleus, its
        quadrupole coupling I.P.I.
    dipolar
        ``{(i, j): tensor}``: symmetric (3, 3) tensors in cm^-1 of S_i.D_ij.S_j.
    names
        Names of the sites; ``spin_0``, ``spin_1``, ... by default.
    isotopes
        ``{i: symbol}``: which spins are nuclei, ``{2: "14N"}``; their spin must be that of the isotope.
    hyperfine
        ``{(i, k): A}`` in cm^-1 for an electron and a nucleus: a number (isotropic) or a symmetric (3, 3) tensor of
        S_i.A.I_k. `MHZ_TO_CM1` and `MILLITESLA_TO_CM1` of `molecular_qubits.units` convert.

    Attributes
    ----------
    g
        Tensor with which each spin enters mu_B B.g.S; of a nucleus -g_n mu_N / mu_B.

    Raises
    ------
    ValueError
        If a spin, an index, a shape or a tensor is not as required.

    Examples
    --------
    >>> system = SpinSystem(spins=(0.5, 1.0), exchange_cm1={(0, 1): 68.0})
    >>> system.dims
    (2, 3)
    >>> nitroxide = SpinSystem((0.5, 1), isotopes={1: "14N"}, hyperfine={(0, 1): 1.5e-3})
    >>> nitroxide.nuclear_g(1)
    0.403761
    """

    def __init__(
        self,
        spins: Sequence[float],
        g: Any = G_ELECTRON,
        exchange_cm1: Mapping[tuple[int, int], float] | None = None,
        zfs: Mapping[int, Any] | None = None,
        dipolar: Mapping[tuple[int, int], Any] | None = None,
        names: Sequence[str] | None = None,
        *,
        isotopes: Mapping[int, str] | None = None,
        hyperfine: Mapping[tuple[int, int], Any] | None = None,
    ) -> None:
        if len(spins) == 0:
            raise ValueError("Argument `spins` must hold at least one spin, but was empty.")
        self.spins = tuple(float(spin) for spin in spins)
        self.dims: tuple[int, ...] = tuple(spin_dimension(spin) for spin in self.spins)
        self.names: tuple[str, ...] = _site_names(names, len(self.spins))
        self.isotopes: dict[int, str] = _isotopes(isotopes, self.spins)
        self._nuclear_g: dict[int, float] = {}
        self.g = self._g_tensors(g)
        self.exchange_cm1 = {
            pair: finite_number(j, f"exchange_cm1[{pair}]")
            for pair, j in _pairs(exchange_cm1, len(self.spins), "exchange_cm1").items()
        }
        self.dipolar = {
            pair: symmetric_tensor(tensor, f"dipolar[{pair}]", traceless=False)
            for pair, tensor in _pairs(dipolar, len(self.spins), "dipolar").items()
        }
        self.hyperfine = {
            pair: _coupling_tensor(value, f"hyperfine[{pair}]")
            for pair, value in _pairs(hyperfine, len(self.spins), "hyperfine").items()
        }
        for pair in self.hyperfine:
            if sum(index in self.isotopes for index in pair) != 1:
                raise ValueError(
                    f"Argument `hyperfine` must couple an electron and a nucleus, but {pair} does not; name nuclei in "
                    f"`isotopes` and give other couplings as `dipolar`."
                )
        self.zfs = self._zero_field_tensors(zfs)
        self.local_key: Hashable = (
            self.spins, self.names, tuple(self.isotopes.items()), np.array(self.g).tobytes(),
            tuple((index, tensor.tobytes()) for index, tensor in self.zfs.items()),
        )  # fmt: skip

    def _g_tensors(self, g: Any) -> tuple[FloatArray, ...]:
        count = len(self.spins)
        entries = [None if index in self.isotopes else g for index in range(count)] if one_number(g) else list(g)
        if len(entries) != count:
            raise ValueError(
                f"Argument `g` must be one number or {count} entries, one for each spin, but has {len(entries)}."
            )
        tensors = []
        for index, entry in enumerate(entries):
            if index in self.isotopes:
                table = isotope(self.isotopes[index]).g_factor
                self._nuclear_g[index] = table if entry is None else finite_number(entry, f"g[{index}]")
                tensors.append(electron_scale_g(self._nuclear_g[index]) * np.eye(3))
            else:
                tensors.append(g_tensor(entry, f"g[{index}]"))
        return tuple(tensors)

    def _zero_field_tensors(self, zfs: Mapping[int, Any] | None) -> dict[int, FloatArray]:
        tensors = {}
        for index, tensor in (zfs or {}).items():
            if not _is_index(index, len(self.spins)):
                raise ValueError(f"Argument `zfs` must have keys from 0 to {len(self.spins) - 1}, but has {index}.")
            if self.spins[index] < 1:
                raise ValueError(
                    f"Argument `zfs` must be given for spins of 1 or more, but spin {index} is {self.spins[index]}."
                )
            tensors[index] = symmetric_tensor(tensor, f"zfs[{index}]", traceless=True)
        return tensors

    @property
    def dimension(self) -> int:
        """Dimension of the whole space."""
        return math.prod(self.dims)

    @property
    def electrons(self) -> tuple[int, ...]:
        """Indices of the spins that are not nuclei."""
        return tuple(index for index in range(len(self.spins)) if index not in self.isotopes)

    def nuclear_g(self, index: int) -> float:
        """Return the nuclear g-factor of a nucleus, in nuclear magnetons."""
        if index not in self._nuclear_g:
            raise ValueError(
                f"Argument `index` must be that of a nucleus, of {sorted(self.isotopes)}, but was {index}."
            )
        return self._nuclear_g[index]

    def spin(self, index: int) -> ComplexArray:
        """Return Sx, Sy, Sz of one spin in the whole space, shape (3, D, D)."""
        return embedded_spin(self.dims, index).copy()

    def total_spin(self) -> ComplexArray:
        """Return the components of the total spin, shape (3, D, D)."""
        total = np.zeros((3, self.dimension, self.dimension), dtype=complex)
        for index in range(len(self.spins)):
            total += self.spin(index)
        return total

    def site_spin(self, name: str) -> ComplexArray:
        """Return Sx, Sy, Sz of the named site in its own space, shape (3, d, d)."""
        return spin_matrices(self.spins[self._index(name)])

    def site_hamiltonian(self, name: str, field_tesla: Any = 0.0) -> ComplexArray:
        """Return Zeeman and zero-field splitting of the named site in its own space, (d, d) in rad/ns."""
        index = self._index(name)
        spin = spin_matrices(self.spins[index])
        strength = MU_B_RAD_PER_NS_PER_T * (field_vector(field_tesla) @ self.g[index])
        matrix = np.einsum("a,aij->ij", strength, spin)
        if index in self.zfs:
            matrix = matrix + CM1_TO_RAD_PER_NS * _bilinear(spin, self.zfs[index], spin)
        return matrix

    def hamiltonian_matrix(self, field_tesla: Any = 0.0) -> ComplexArray:
        """Return the Hamiltonian as an array (D, D) in rad/ns; see `hamiltonian`."""
        field = field_vector(field_tesla)
        size = self.dimension
        matrix = np.zeros(size**2, dtype=complex)
        for index, g in enumerate(self.g):
            if self.spins[index] == 0 or not np.any(field):
                continue
            matrix += (MU_B_RAD_PER_NS_PER_T * (field @ g)) @ embedded_spin(self.dims, index).reshape(3, size**2)
        tensors = [((index, index), tensor) for index, tensor in self.zfs.items()]
        for pair, tensor in (*tensors, *self._couplings().items()):
            matrix += CM1_TO_RAD_PER_NS * bilinear(self.dims, pair[0], tensor, pair[1])
        square = matrix.reshape(size, size)
        return np.asarray((square + square.conj().T) / 2, dtype=complex)

    def hamiltonian(self, field_tesla: Any = 0.0) -> "qutip.Qobj":
        """Return the Hamiltonian in rad/ns.

        Parameters
        ----------
        field_tesla
            Field along z (a number) or a vector of three, in tesla.

        Returns
        -------
        qutip.Qobj
            With the dimensions of the sites.
        """
        from qutip import Qobj

        return Qobj(self.hamiltonian_matrix(field_tesla), dims=[list(self.dims), list(self.dims)])

    def thermal_state(self, temperature_k: float, field_tesla: Any = 0.0) -> ComplexArray:
        """Return exp(-H / kT) / Z, shape (D, D)."""
        thermal = thermal_frequency(temperature_k)
        return thermal_density(self.hamiltonian_matrix(field_tesla), thermal)

    def _couplings(self) -> dict[tuple[int, int], FloatArray]:
        tensors = {pair: -2.0 * j * _IDENTITY for pair, j in self.exchange_cm1.items()}
        for pair, tensor in (*self.dipolar.items(), *self.hyperfine.items()):
            tensors[pair] = tensors.get(pair, 0.0) + tensor
        return tensors

    def _index(self, name: str) -> int:
        return self.names.index(known_name(name, self.names, "site"))


_IDENTITY = np.eye(3)


def _bilinear(left: ComplexArray, tensor: FloatArray, right: ComplexArray) -> ComplexArray:
    return np.einsum("aij,ajk->ik", left, np.einsum("ab,bjk->ajk", tensor, right))


def _site_names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"spin_{index}" for index in range(count))
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"Argument `names` must hold {count} different names, but was {list(names)}.")
    return tuple(names)


def _isotopes(isotopes: Mapping[int, str] | None, spins: tuple[float, ...]) -> dict[int, str]:
    found = {}
    for index, symbol in (isotopes or {}).items():
        if not _is_index(index, len(spins)):
            raise ValueError(f"Argument `isotopes` must have keys from 0 to {len(spins) - 1}, but has {index}.")
        nucleus = isotope(symbol, f"isotopes[{index}]")
        if nucleus.spin != spins[index]:
            raise ValueError(
                f"Argument `spins` must hold the nuclear spin {nucleus.spin} of {symbol} at index {index}, but holds "
                f"{spins[index]}."
            )
        found[index] = symbol
    return found


def _is_index(value: Any, count: int) -> bool:
    return isinstance(value, int | np.integer) and bool(0 <= value < count)


def _coupling_tensor(value: Any, name: str) -> FloatArray:
    if np.ndim(value) == 0:
        return finite_number(value, name) * np.eye(3)
    return symmetric_tensor(value, name, traceless=False)


def _pairs(values: Mapping[tuple[int, int], Any] | None, count: int, name: str) -> dict[tuple[int, int], Any]:
    pairs: dict[tuple[int, int], Any] = {}
    for key, value in (values or {}).items():
        pair_of_spins = isinstance(key, tuple) and len(key) == 2 and all(_is_index(index, count) for index in key)
        if not pair_of_spins or key[0] == key[1]:
            raise ValueError(
                f"Argument `{name}` must have keys (i, j) of two different spins from 0 to {count - 1}, but has {key}."
            )
        pair = (min(key), max(key))
        if pair in pairs:
            raise ValueError(f"Argument `{name}` must hold each pair once, but holds {pair} twice.")
        pairs[pair] = value
    return pairs
