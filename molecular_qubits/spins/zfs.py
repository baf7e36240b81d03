"""Zero-field splitting of the multiplets: by projection under strong exchange, and from the full Hamiltonian."""

from typing import Any

import numpy as np

from molecular_qubits.spins.operators import ComplexArray, FloatArray, spin_dimension
from molecular_qubits.spins.system import SpinSystem
from molecular_qubits.units import CM1_TO_RAD_PER_NS


def zfs_quartet(d_t_cm1: Any, d_rt_cm1: Any = 0.0) -> Any:
    """Return D of the quartet of a radical and a triplet under strong exchange, (D_T + D_RT) / 3.

    The projection is linear, so that it takes axial parameters of collinear tensors or full tensors alike.

    Parameters
    ----------
    d_t_cm1
        Zero-field splitting of the triplet: D, or the (3, 3) tensor, in cm^-1.
    d_rt_cm1
        Radical-triplet coupling S_R.D_RT.S_T: its axial parameter 3/2 D_zz, or the (3, 3) tensor.

    Returns
    -------
    float or ndarray, shape (3, 3)
        In cm^-1.

    References
    ----------
    A. Bencini and D. Gatteschi, EPR of Exchange Coupled Systems (Springer, 1990), chapter 3.
    """
    d_t, d_rt = _alike(d_t_cm1=d_t_cm1, d_rt_cm1=d_rt_cm1)
    return _plain((d_t + d_rt) / 3)


def zfs_quintet(d_t_cm1: Any, d_r1t_cm1: Any = 0.0, d_r2t_cm1: Any = 0.0, d_rr_cm1: Any = 0.0) -> Any:
    """Return D of the quintet of two radicals and a triplet, (D_T + D_R1T + D_R2T) / 6 + D_RR / 12.

    Parameters
    ----------
    d_t_cm1
        Zero-field splitting of the triplet: D, or the (3, 3) tensor, in cm^-1.
    d_r1t_cm1, d_r2t_cm1, d_rr_cm1
        Couplings S_i.D_ij.S_j of the pairs: axial parameters 3/2 D_zz, or (3, 3) tensors.

    Returns
    -------
    float or ndarray, shape (3, 3)
        In cm^-1, under strong exchange.
    """
    d_t, d_r1t, d_r2t, d_rr = _alike(d_t_cm1=d_t_cm1, d_r1t_cm1=d_r1t_cm1, d_r2t_cm1=d_r2t_cm1, d_rr_cm1=d_rr_cm1)
    return _plain((d_t + d_r1t + d_r2t) / 6 + d_rr / 12)


def zfs_triplet(
    d_t_cm1: Any, d_r1t_cm1: Any = 0.0, d_r2t_cm1: Any = 0.0, d_rr_cm1: Any = 0.0, *, radical_spin: int = 1
) -> Any:
    """Return D of an S = 1 multiplet of two radicals and a triplet under strong exchange.

    -D_T/2 + (D_R1T + D_R2T)/2 - D_RR/4 with the radicals in their triplet, D_T with the radicals in their singlet.

    Parameters
    ----------
    d_t_cm1, d_r1t_cm1, d_r2t_cm1, d_rr_cm1
        As in `zfs_quintet`.
    radical_spin
        Spin of the two radicals together: 1 or 0.

    Returns
    -------
    float or ndarray, shape (3, 3)
        In cm^-1.
    """
    if radical_spin not in (0, 1):
        raise ValueError(f"Argument `radical_spin` must be 0 or 1, but was {radical_spin}.")
    d_t, d_r1t, d_r2t, d_rr = _alike(d_t_cm1=d_t_cm1, d_r1t_cm1=d_r1t_cm1, d_r2t_cm1=d_r2t_cm1, d_rr_cm1=d_rr_cm1)
    return _plain(d_t if radical_spin == 0 else -d_t / 2 + (d_r1t + d_r2t) / 2 - d_rr / 4)


def multiplet_zfs_tensor(system: SpinSystem, spin: float, number: int = 0) -> FloatArray:
    """Return the zero-field splitting tensor of one multiplet of the full Hamiltonian.

    The levels of the multiplet at zero field are fitted by S.D.S with the total spin projected on them. Under strong
    exchange it is the projection of the tensors; its deviation from that is of second order in them over the exchange.

    Parameters
    ----------
    system
        The spins; their exchange must separate the multiplets.
    spin
        Total spin S of the multiplet, 1 or more.
    number
        Which of the multiplets of this spin, in order of energy, from 0.

    Returns
    -------
    ndarray, shape (3, 3)
        Symmetric and traceless, cm^-1.

    Raises
    ------
    ValueError
        If there is no such multiplet, or mixing leaves it without a definite spin (S(S+1) off by more than 0.05).
    """
    if spin < 1:
        raise ValueError(f"Argument `spin` must be 1 or more for a zero-field splitting, but was {spin}.")
    size = spin_dimension(spin)
    total = system.total_spin()
    square = np.einsum("aij,ajk->ik", total, total)
    energies, vectors = np.linalg.eigh(system.hamiltonian_matrix(0.0))
    found = np.einsum("ia,ij,ja->a", vectors.conj(), square, vectors).real
    members = np.flatnonzero(np.abs(found - spin * (spin + 1)) < 0.05)[number * size : (number + 1) * size]
    if len(members) < size or np.ptp(members) != size - 1:
        raise ValueError(
            f"Argument `spin` must name a multiplet that the exchange separates, but {len(members)} neighbouring "
            f"levels of multiplet {number} have S = {spin}."
        )
    basis = vectors[:, members]
    operators = np.array([basis.conj().T @ component @ basis for component in total])
    return _fit_tensor(operators, np.diag(energies[members] - energies[members].mean())) / CM1_TO_RAD_PER_NS


def _fit_tensor(spin: ComplexArray, hamiltonian: ComplexArray) -> FloatArray:
    """Least-squares traceless D with H = S.D.S, from five independent symmetric tensors."""
    patterns = np.zeros((5, 3, 3))
    for index, (row, column) in enumerate(((0, 1), (0, 2), (1, 2))):
        patterns[index, row, column] = patterns[index, column, row] = 1
    patterns[3] = np.diag([1, -1, 0])
    patterns[4] = np.diag([-1, -1, 2])
    matrices = np.einsum("nab,aij,bjk->nik", patterns, spin, spin)
    flat = matrices.reshape(5, -1).T
    design = np.concatenate([flat.real, flat.imag])
    target = np.concatenate([hamiltonian.ravel().real, hamiltonian.ravel().imag])
    weights = np.linalg.lstsq(design, target, rcond=None)[0]
    return np.einsum("n,nab->ab", weights, patterns)


def _alike(**values: Any) -> list[FloatArray]:
    arrays = {name: np.asarray(value, dtype=float) for name, value in values.items()}
    tensors = any(array.ndim for array in arrays.values())
    for name, array in arrays.items():
        if array.shape not in ((), (3, 3)) or not np.all(np.isfinite(array)):
            raise ValueError(f"Argument `{name}` must be finite, a number or (3, 3), but has shape {array.shape}.")
        if tensors and array.ndim == 0 and array != 0:
            raise ValueError(
                f"Argument `{name}` must be a (3, 3) tensor as the others are, but was the number {float(array)}."
            )
    return list(arrays.values())


def _plain(value: FloatArray) -> Any:
    return float(value) if np.ndim(value) == 0 else value
