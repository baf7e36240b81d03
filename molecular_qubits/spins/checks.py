"""Checks of physical input, shared by the systems, the channels and the solvers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.units import CM1_TO_RAD_PER_NS, KELVIN_TO_CM1
from shared.config import check_name


def finite_number(value: Any, name: str) -> float:
    """Return `value` as a finite float, or raise a `ValueError` that names it."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Argument `{name}` must be a number, but was {value!r}.") from error
    if not np.isfinite(number):
        raise ValueError(f"Argument `{name}` must be finite, but was {number}.")
    return number


def one_number(value: Any) -> bool:
    """Return whether `value` is a single number (or text), not a sequence: also an array without dimensions."""
    return bool(np.isscalar(value)) or getattr(value, "ndim", None) == 0


def non_negative(value: Any, name: str) -> float:
    """Return `value` as a float that is finite and not below 0."""
    number = finite_number(value, name)
    if number < 0:
        raise ValueError(f"Argument `{name}` must not be negative, but was {number}.")
    return number


def positive(value: Any, name: str) -> float:
    """Return `value` as a float that is finite and above 0."""
    number = finite_number(value, name)
    if number <= 0:
        raise ValueError(f"Argument `{name}` must be above 0, but was {number}.")
    return number


def thermal_frequency(temperature_k: Any) -> float:
    """Return k T / h-bar in rad/ns of a temperature above 0 K."""
    return positive(temperature_k, "temperature_k") * KELVIN_TO_CM1 * CM1_TO_RAD_PER_NS


def field_vector(field_tesla: Any) -> FloatArray:
    """Return the field as a vector in tesla; a single number is the field along z.

    Raises
    ------
    ValueError
        If it is neither a number nor three finite numbers.
    """
    if isinstance(field_tesla, str):
        raise ValueError(
            f"Argument `field_tesla` must be a number in tesla, but was the text {field_tesla!r}; "
            f"`molecular_qubits.spins.quantities.parse_field_tesla` reads a field with its unit."
        )
    field = np.asarray(field_tesla, dtype=float)
    if field.ndim == 0:
        field = np.array([0.0, 0.0, float(field)])
    if field.shape != (3,) or not np.all(np.isfinite(field)):
        raise ValueError(
            f"Argument `field_tesla` must be a finite number (along z) or 3 finite numbers, but was {field_tesla!r}."
        )
    return field


def symmetric_tensor(value: Any, name: str, *, traceless: bool) -> FloatArray:
    """Return `value` as a symmetric 3x3 tensor.

    Parameters
    ----------
    value
        Array-like of shape (3, 3).
    name
        Name of the argument in error messages.
    traceless
        Whether the trace must vanish (to 1e-9 of the largest element).

    Raises
    ------
    ValueError
        If the shape, the symmetry, the trace or finiteness is not as required.
    """
    if np.iscomplexobj(np.asarray(value)):
        raise ValueError(f"Argument `{name}` must be real and symmetric, but was complex.")
    tensor = np.asarray(value, dtype=float)
    if tensor.shape != (3, 3):
        raise ValueError(f"Argument `{name}` must have shape (3, 3), but has shape {tensor.shape}.")
    if not np.all(np.isfinite(tensor)):
        raise ValueError(f"Argument `{name}` must be finite, but was {tensor.tolist()}.")
    tolerance = 1e-9 * float(np.max(np.abs(tensor), initial=0.0)) + 1e-15
    asymmetry = float(np.max(np.abs(tensor - tensor.T)))
    if asymmetry > tolerance:
        raise ValueError(f"Argument `{name}` must be symmetric, but differs from its transpose by {asymmetry:.3g}.")
    if traceless and abs(np.trace(tensor)) > 3 * tolerance:
        raise ValueError(f"Argument `{name}` must be traceless, but its trace was {np.trace(tensor):.3g}.")
    return (tensor + tensor.T) / 2


def time_grid(times_ns: Any) -> FloatArray:
    """Return the times as an array, refusing unsorted, repeated, not finite or no times."""
    try:
        times = np.asarray(times_ns, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Argument `times_ns` must be a list of times, but was {times_ns!r}.") from error
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"Argument `times_ns` must be a list of times, but has shape {times.shape}.")
    if not np.all(np.isfinite(times)):
        raise ValueError("Argument `times_ns` must be finite, but holds NaN or infinity.")
    steps = np.diff(times)
    if np.any(steps <= 0):
        first = int(np.argmax(steps <= 0))
        word = "repeats" if steps[first] == 0 else "goes back"
        raise ValueError(
            f"Argument `times_ns` must be strictly increasing, but {word} at index {first + 1}: "
            f"{times[first]} then {times[first + 1]}; sort it and drop repeated times."
        )
    return times


def density_matrix(state: Any, dimension: int, name: str = "initial_state") -> ComplexArray:
    """Return a ket or a density matrix as a density matrix.

    Parameters
    ----------
    state
        `qutip.Qobj` or array: a normalised ket (D,), (D, 1) or a density matrix (D, D).
    dimension
        The D required.
    name
        Name of the argument in error messages.

    Raises
    ------
    ValueError
        If the dimension differs, or the state is not Hermitian, positive and of trace 1 (to 1e-8).
    """
    array = np.asarray(state.full() if hasattr(state, "full") else state, dtype=complex)
    if array.shape in ((dimension,), (dimension, 1)):
        ket = array.reshape(-1)
        array = np.outer(ket, ket.conj())
    if array.shape != (dimension, dimension):
        raise ValueError(
            f"Argument `{name}` must be a ket or density matrix of dimension {dimension}, but has shape {array.shape}."
        )
    if not np.all(np.isfinite(array)):
        raise ValueError(f"Argument `{name}` must be finite, but holds NaN or infinity.")
    asymmetry = float(np.max(np.abs(array - array.conj().T)))
    if asymmetry > 1e-8:
        raise ValueError(f"Argument `{name}` must be Hermitian, but is off by {asymmetry:.3g}.")
    trace = float(np.trace(array).real)
    if abs(trace - 1) > 1e-8:
        raise ValueError(f"Argument `{name}` must have trace (norm) 1, but has {trace:.12g}; normalise it.")
    lowest = float(np.linalg.eigvalsh(array)[0])
    if lowest < -1e-8:
        raise ValueError(f"Argument `{name}` must be positive, but has the eigenvalue {lowest:.3g}.")
    return (array + array.conj().T) / 2


def known_name(name: str, names: Sequence[str], argument: str) -> str:
    """Return `name` if it is one of `names`, or raise a `ValueError` that lists them."""
    return check_name(name, names, f"Argument `{argument}`")
