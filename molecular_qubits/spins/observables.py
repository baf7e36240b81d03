"""What is read off density matrices: entanglement, purity, fidelity and reduced states."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from molecular_qubits.spins.operators import ComplexArray, FloatArray

_SPIN_FLIP = np.array([[0, 0, 0, -1], [0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0]], dtype=complex)


def concurrence(rho: Any) -> Any:
    """Return Wootters' concurrence of two qubits.

    The singular values of W^T (sy x sy) W, with rho = W W^+, are the square roots in Wootters' formula; taking them
    in place of the eigenvalues of rho rho~ keeps full precision on pure states.

    Parameters
    ----------
    rho
        `qutip.Qobj` or array: a ket (4,) or density matrices (..., 4, 4) in the product basis.

    Returns
    -------
    float or ndarray, shape (...)
        From 0 (separable) to 1.

    Raises
    ------
    ValueError
        If the states are not of two qubits, Hermitian, positive and of trace 1 (to 1e-6).

    References
    ----------
    W. K. Wootters, Phys. Rev. Lett. 80, 2245 (1998).
    """
    states = _states(rho, 4)
    values, vectors = np.linalg.eigh(states)
    values = np.where(values > 4 * np.finfo(float).eps, values, 0)
    roots = vectors * np.sqrt(values)[..., None, :]
    flipped = np.swapaxes(roots, -1, -2) @ _SPIN_FLIP @ roots
    singular = np.linalg.svd(flipped, compute_uv=False)
    result = np.clip(singular[..., 0] - singular[..., 1:].sum(axis=-1), 0, None)
    return float(result) if result.ndim == 0 else result


def correlator_witness(correlators: Any) -> Any:
    """Return a lower bound of the concurrence of two spins 1/2 from measurable spin correlators alone.

    Local rotations bring the correlators t_kl = 4 <S_k S_l> to diagonal form, and a random choice of common half turns,
    which no entanglement survives better than before, leaves the Bell-diagonal state with these correlators, whose
    concurrence is (s_1 + s_2 - sign(det t) s_3 - 1) / 2 with the singular values s_1 >= s_2 >= s_3. It is the
    concurrence itself for Bell-diagonal states. Above 0 it proves entanglement.

    Parameters
    ----------
    correlators
        t_kl = <sigma_k x sigma_l>, shape (..., 3, 3), from -1 to 1; `spin_correlators` computes them from a state.

    Returns
    -------
    float or ndarray, shape (...)

    References
    ----------
    R. Horodecki and M. Horodecki, Phys. Rev. A 54, 1838 (1996).
    """
    found = np.asarray(correlators, dtype=float)
    if found.ndim < 2 or found.shape[-2:] != (3, 3) or not np.all(np.isfinite(found)):
        raise ValueError(f"Argument `correlators` must be finite, shape (..., 3, 3), but has shape {found.shape}.")
    if np.max(np.abs(found), initial=0.0) > 1 + 1e-6:
        raise ValueError(
            f"Argument `correlators` must be from -1 to 1 (of Pauli matrices), but holds {np.max(np.abs(found)):.4g}."
        )
    singular = np.linalg.svd(found, compute_uv=False)
    total = singular[..., 0] + singular[..., 1] - np.sign(np.linalg.det(found)) * singular[..., 2]
    result = np.maximum((total - 1) / 2, 0.0)
    return float(result) if result.ndim == 0 else result


def spin_correlators(rho: Any) -> FloatArray:
    """Return <sigma_k x sigma_l> of states of two spins 1/2 (..., 4, 4), shape (..., 3, 3)."""
    states = _states(rho, 4)
    pauli = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    products = np.einsum("kab,lcd->klacbd", pauli, pauli).reshape(3, 3, 4, 4)
    return np.asarray(np.einsum("...ij,klji->...kl", states, products).real)


def log_negativity(rho: Any, dims: Sequence[int] = (2, 2), partition: Sequence[int] = (0,)) -> Any:
    """Return the logarithmic negativity log2 || rho^T_A ||_1.

    Parameters
    ----------
    rho
        `qutip.Qobj` or array: a ket (D,) or density matrices (..., D, D).
    dims
        Dimension of each subsystem; their product is D.
    partition
        Indices of the subsystems on one side A of the cut.

    Returns
    -------
    float or ndarray, shape (...)
        0 if the partial transpose is positive; 1 for a Bell pair.

    Raises
    ------
    ValueError
        If a dimension or an index does not fit.
    """
    states = _states(rho, math.prod(dims))
    side = _indices(partition, len(dims), "partition")
    lead, count = states.ndim - 2, len(dims)
    tensor = states.reshape(*states.shape[:-2], *dims, *dims)
    axes = list(range(tensor.ndim))
    for index in side:
        axes[lead + index], axes[lead + count + index] = axes[lead + count + index], axes[lead + index]
    transposed = tensor.transpose(axes).reshape(states.shape)
    result = np.maximum(np.log2(np.abs(np.linalg.eigvalsh(transposed)).sum(axis=-1)), 0.0)
    return float(result) if result.ndim == 0 else result


def purity(rho: Any) -> Any:
    """Return Tr rho^2 of density matrices (..., D, D); 1 for pure states."""
    states = _states(rho)
    result = np.einsum("...ij,...ji->...", states, states).real
    return float(result) if result.ndim == 0 else result


def fidelity(rho: Any, sigma: Any) -> Any:
    """Return the fidelity (Tr sqrt(sqrt(rho) sigma sqrt(rho)))^2, which is <psi|rho|psi> if one state is pure.

    Parameters
    ----------
    rho, sigma
        `qutip.Qobj` or array: kets (D,) or density matrices (..., D, D) that broadcast.

    Returns
    -------
    float or ndarray, shape (...)
    """
    first = _states(rho)
    second = _states(sigma, first.shape[-1])
    product = _root(first) @ _root(second)
    result = np.linalg.svd(product, compute_uv=False).sum(axis=-1) ** 2
    return float(result) if result.ndim == 0 else result


def reduced_state(rho: Any, dims: Sequence[int], keep: Sequence[int]) -> ComplexArray:
    """Return the partial trace over the subsystems not kept.

    Parameters
    ----------
    rho
        `qutip.Qobj` or array: a ket (D,) or density matrices (..., D, D).
    dims
        Dimension of each subsystem.
    keep
        Indices to keep; the result has them in ascending order.

    Returns
    -------
    ndarray of complex, shape (..., d, d)
    """
    states = _states(rho, math.prod(dims), check=False)
    kept = sorted(_indices(keep, len(dims), "keep"))
    lead, count = states.ndim - 2, len(dims)
    tensor = states.reshape(*states.shape[:-2], *dims, *dims)
    rest = [index for index in range(count) if index not in kept]
    order = [*range(lead)]
    order += [lead + index for index in (*kept, *rest)] + [lead + count + index for index in (*kept, *rest)]
    inner = math.prod(dims[index] for index in kept)
    outer = math.prod(dims[index] for index in rest)
    tensor = tensor.transpose(order).reshape(*states.shape[:-2], inner, outer, inner, outer)
    return np.einsum("...iaja->...ij", tensor)


def _root(states: ComplexArray) -> ComplexArray:
    values, vectors = np.linalg.eigh(states)
    values = np.where(values > 4 * np.finfo(float).eps, values, 0)
    return (vectors * np.sqrt(values)[..., None, :]) @ np.swapaxes(vectors.conj(), -1, -2)


def _states(rho: Any, dimension: int | None = None, check: bool = True) -> ComplexArray:
    array = np.asarray(rho.full() if hasattr(rho, "full") else rho, dtype=complex)
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1 != array.shape[0]):
        ket = array.reshape(-1)
        array = np.outer(ket, ket.conj())
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or dimension not in (None, array.shape[-1]):
        size = "D" if dimension is None else dimension
        raise ValueError(
            f"Argument `rho` must be a ket ({size},) or density matrices (..., {size}, {size}), but has shape "
            f"{array.shape}."
        )
    if check:
        _check_density(array)
    return array


def _check_density(states: ComplexArray) -> None:
    if not np.all(np.isfinite(states)):
        raise ValueError("Argument `rho` must be finite, but holds NaN or infinity.")
    off = float(np.max(np.abs(states - np.swapaxes(states.conj(), -1, -2)), initial=0.0))
    if off > 1e-6:
        raise ValueError(f"Argument `rho` must be Hermitian, but is off by {off:.3g}.")
    trace: FloatArray = np.abs(np.einsum("...ii->...", states) - 1)
    if np.max(trace, initial=0.0) > 1e-6:
        raise ValueError(f"Argument `rho` must have trace 1, but is off by {np.max(trace):.3g}.")
    lowest = float(np.min(np.linalg.eigvalsh(states), initial=0.0))
    if lowest < -1e-6:
        raise ValueError(f"Argument `rho` must be positive, but has the eigenvalue {lowest:.3g}.")


def _indices(values: Sequence[int], count: int, name: str) -> list[int]:
    indices = list(values)
    if not indices or len(set(indices)) != len(indices) or not all(0 <= index < count for index in indices):
        raise ValueError(
            f"Argument `{name}` must hold different indices from 0 to {count - 1}, at least one, but was {indices}."
        )
    return indices
