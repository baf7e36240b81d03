"""The two-qubit unit: radical x coupler x radical, the coupler having the levels S0, S1 and T."""

from collections.abc import Hashable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.spins.checks import finite_number, known_name, one_number, symmetric_tensor, thermal_frequency
from molecular_qubits.spins.operators import (
    ComplexArray,
    FloatArray,
    embed,
    thermal_density,
    triplet_kets,
)
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.spins.tensors import g_tensor, rotation_frame, zfs_tensor
from molecular_qubits.units import G_ELECTRON

if TYPE_CHECKING:
    import qutip

LEVELS: dict[str, slice] = {"S0": slice(0, 1), "S1": slice(1, 2), "T": slice(2, 5)}
"""Coupler states of each electronic level; the triplet in the order M = 1, 0, -1."""


class TwoQubitUnit:
    """Two spin-1/2 radicals joined by a coupler that light brings from S0 through S1 to its triplet T.

    In each electronic level of the coupler the spins are a `SpinSystem`: two radicals in S0 and S1, radical, triplet
    and radical in T. Electronic energies are left out: every level is in its own rotating frame, so that a resonant
    optical drive is static, and the rates between levels are those of the channels.

    Parameters
    ----------
    j_rt_cm1
        Exchange of each radical with the triplet, one number for both or two; H = -2 J S_i.S_j.
    j_rr_ground_cm1, j_rr_s1_cm1, j_rr_triplet_cm1
        Radical-radical exchange in S0, S1 and T.
    d_t_cm1, e_t_cm1
        Zero-field splitting of the triplet.
    triplet_frame
        Rotation matrix (3, 3) whose columns are the axes of the triplet's tensor; identity by default.
    g_radical
        One entry for both radicals or a list of two, each a number, three numbers (diagonal) or a (3, 3) tensor.
    g_triplet
        A number, three numbers or a (3, 3) tensor.
    dipolar_rt
        Symmetric (3, 3) tensor in cm^-1 of S_R.D.S_T: one for both radicals, or a stack of two (2, 3, 3).
    dipolar_rr
        Symmetric (3, 3) tensor in cm^-1 of the two radicals, present in every level.

    Raises
    ------
    ValueError
        If a number is not finite or a tensor not as required.
    """

    names: tuple[str, ...] = ("radical_1", "coupler", "radical_2")
    dims: tuple[int, ...] = (2, 5, 2)

    def __init__(
        self,
        j_rt_cm1: float | Sequence[float],
        *,
        j_rr_ground_cm1: float = 0.0,
        j_rr_s1_cm1: float = 0.0,
        j_rr_triplet_cm1: float = 0.0,
        d_t_cm1: float = 0.0,
        e_t_cm1: float = 0.0,
        triplet_frame: Any = None,
        g_radical: Any = G_ELECTRON,
        g_triplet: Any = G_ELECTRON,
        dipolar_rt: Any = None,
        dipolar_rr: Any = None,
    ) -> None:
        j_rt = np.atleast_1d(np.asarray(j_rt_cm1, dtype=float))
        if j_rt.shape not in ((1,), (2,)):
            raise ValueError(f"Argument `j_rt_cm1` must be one number or two, but was {j_rt_cm1!r}.")
        first, second = (finite_number(j, "j_rt_cm1") for j in np.broadcast_to(j_rt, 2))
        self.triplet_frame = rotation_frame(triplet_frame, "triplet_frame")
        g_pair = list(g_radical) if not one_number(g_radical) and len(g_radical) == 2 else [g_radical, g_radical]
        g = (g_tensor(g_pair[0], "g_radical"), g_tensor(g_triplet, "g_triplet"), g_tensor(g_pair[1], "g_radical"))
        radicals = {} if dipolar_rr is None else {(0, 2): symmetric_tensor(dipolar_rr, "dipolar_rr", traceless=False)}
        triplet_tensor = zfs_tensor(d_t_cm1, e_t_cm1, self.triplet_frame)

        def dark(j_rr: float, name: str) -> SpinSystem:
            j = finite_number(j_rr, name)
            return SpinSystem((0.5, 0, 0.5), g, exchange_cm1={(0, 2): j}, dipolar=radicals, names=self.names)

        self.levels: dict[str, SpinSystem] = {
            "S0": dark(j_rr_ground_cm1, "j_rr_ground_cm1"),
            "S1": dark(j_rr_s1_cm1, "j_rr_s1_cm1"),
            "T": SpinSystem(
                (0.5, 1, 0.5),
                g,
                exchange_cm1={
                    (0, 1): first,
                    (1, 2): second,
                    (0, 2): finite_number(j_rr_triplet_cm1, "j_rr_triplet_cm1"),
                },
                zfs={1: triplet_tensor},
                dipolar={**radicals, **_radical_triplet(dipolar_rt)},
                names=self.names,
            ),
        }
        self.local_key: Hashable = (self.levels["T"].local_key, self.triplet_frame.tobytes())

    @property
    def dimension(self) -> int:
        """Dimension of the whole space, 20."""
        return 20

    def level_embedding(self, level: str) -> ComplexArray:
        """Return the isometry (20, n) from the spin space of one electronic level into the unit; n is 4 or 12."""
        return _embedding(known_name(level, list(LEVELS), "level")).copy()

    def level_projector(self, level: str) -> ComplexArray:
        """Return the projector (20, 20) on one electronic level."""
        isometry = self.level_embedding(level)
        return isometry @ isometry.conj().T

    def coupler_ket(self, label: str) -> ComplexArray:
        """Return a ket (5,) of the coupler: ``S0``, ``S1``, ``Tx``, ``Ty`` or ``Tz`` (zero-field kets)."""
        known_name(label, ("S0", "S1", "Tx", "Ty", "Tz"), "label")
        ket = np.zeros(5, dtype=complex)
        if label in LEVELS:
            ket[LEVELS[label]] = 1
        else:
            ket[LEVELS["T"]] = triplet_kets(self.triplet_frame)["xyz".index(label[1])]
        return ket

    def site_spin(self, name: str) -> ComplexArray:
        """Return Sx, Sy, Sz of one site, shape (3, d, d); those of the coupler vanish on S0 and S1."""
        spin = self.levels["T"].site_spin(name)
        return _on_triplet(spin) if name == "coupler" else spin

    def site_hamiltonian(self, name: str, field_tesla: Any = 0.0) -> ComplexArray:
        """Return Zeeman and zero-field splitting of one site in its own space, (d, d) in rad/ns."""
        matrix = self.levels["T"].site_hamiltonian(name, field_tesla)
        return _on_triplet(matrix) if name == "coupler" else matrix

    def hamiltonian_matrix(self, field_tesla: Any = 0.0) -> ComplexArray:
        """Return the Hamiltonian as an array (20, 20) in rad/ns; see `hamiltonian`."""
        matrix = np.zeros((20, 20), dtype=complex)
        for level, spins in self.levels.items():
            matrix[_block(level)] = spins.hamiltonian_matrix(field_tesla)
        return matrix

    def hamiltonian(self, field_tesla: Any = 0.0) -> "qutip.Qobj":
        """Return the Hamiltonian in rad/ns.

        Parameters
        ----------
        field_tesla
            Field along z (a number) or a vector of three, in tesla.

        Returns
        -------
        qutip.Qobj
            With the dimensions (2, 5, 2).
        """
        from qutip import Qobj

        return Qobj(self.hamiltonian_matrix(field_tesla), dims=[list(self.dims), list(self.dims)])

    def thermal_state(self, temperature_k: float, field_tesla: Any = 0.0, level: str = "S0") -> ComplexArray:
        """Return the state (20, 20) with the coupler in one level and the spins of that level thermal.

        Parameters
        ----------
        temperature_k
            Above 0 K.
        field_tesla
            Field as in `hamiltonian`.
        level
            ``"S0"``, ``"S1"`` or ``"T"``.
        """
        thermal = thermal_frequency(temperature_k)
        isometry = self.level_embedding(level)
        inner = thermal_density(self.levels[level].hamiltonian_matrix(field_tesla), thermal)
        return isometry @ inner @ isometry.conj().T

    def site_operator(self, operator: ComplexArray, name: str) -> ComplexArray:
        """Return the operator (d, d) of one site in the whole space, (20, 20)."""
        return embed(operator, self.names.index(known_name(name, self.names, "name")), self.dims)


@cache
def _embedding(level: str) -> ComplexArray:
    radical = np.eye(2)
    return np.kron(np.kron(radical, np.eye(5)[:, LEVELS[level]]), radical).astype(complex)


@cache
def _block(level: str) -> tuple[Any, Any]:
    """Return the indices of one electronic level in the unit, in the order of its spin space."""
    states = np.argmax(_embedding(level).real, axis=0)
    return np.ix_(states, states)


def _on_triplet(matrix: ComplexArray) -> ComplexArray:
    placed = np.zeros((*matrix.shape[:-2], 5, 5), dtype=complex)
    placed[..., LEVELS["T"], LEVELS["T"]] = matrix
    return placed


def _radical_triplet(tensor: Any) -> dict[tuple[int, int], FloatArray]:
    if tensor is None:
        return {}
    stack = np.asarray(tensor, dtype=float)
    if stack.shape == (3, 3):
        stack = np.array([stack, stack])
    if stack.shape != (2, 3, 3):
        raise ValueError(f"Argument `dipolar_rt` must have shape (3, 3) or (2, 3, 3), but has shape {stack.shape}.")
    return {
        (0, 1): symmetric_tensor(stack[0], "dipolar_rt[0]", traceless=False),
        (1, 2): symmetric_tensor(stack[1], "dipolar_rt[1]", traceless=False),
    }
