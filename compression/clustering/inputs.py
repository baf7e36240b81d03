"""Validation of what the public clustering functions are given."""

import math
import operator
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from compression.clustering.points import FloatArray

_CHECKED_ROWS = 1 << 17

_DTYPES = ("float16", "float32", "float64")

_LARGEST = 1e100


@dataclass(frozen=True)
class Data:
    """Validated data and how to give results back in its kind.

    Attributes
    ----------
    values
        (N, d) float32 or float64, contiguous, finite.
    weights
        ``None``, (N,) or (N, d) float64, positive, finite.
    dtype
        NumPy data type of the caller's array, to which centroids are rounded.
    device
        torch device on which to search, or ``None`` for the CPU.
    like
        The caller's array.
    """

    values: FloatArray
    weights: FloatArray | None
    dtype: np.dtype
    device: Any
    like: Any

    def give_back(self, array: np.ndarray) -> Any:
        """Return `array` as NumPy array or torch tensor, as the caller's data was, on the caller's device."""
        if isinstance(self.like, np.ndarray):
            return array
        import torch

        return torch.from_numpy(array).to(self.like.device)


def check_data(x: Any, sample_weight: Any = None, device: Any = None, name: str = "x") -> Data:
    """Validate data and weights.

    Parameters
    ----------
    x
        (N, d) NumPy array or torch tensor of float16, float32 or float64.
    sample_weight
        ``None`` or positive weights, (N,) or (N, d).
    device
        torch device on which to search; ``None`` means where `x` is.
    name
        What messages call `x`.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument, what it must be and what it was.
    """
    array = _to_numpy(x, name)
    if str(array.dtype) not in _DTYPES:
        raise TypeError(f"Argument `{name}` must be of dtype {', '.join(_DTYPES)}, but was {array.dtype}.")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"Argument `{name}` must have shape (N, d) with N, d >= 1, but has shape {array.shape}.")
    _check_finite(array, name)
    _check_range(array, name)
    values = np.ascontiguousarray(array, np.float64 if array.dtype == np.float64 else np.float32)
    weights = None
    if sample_weight is not None:
        weights = _to_numpy(sample_weight, "sample_weight")
        if weights.dtype.kind not in "fiu":
            raise TypeError(f"Argument `sample_weight` must hold real numbers, but has dtype {weights.dtype}.")
        if weights.shape not in (array.shape[:1], array.shape):
            raise ValueError(
                f"Argument `sample_weight` must have shape {array.shape[:1]} or {array.shape}, but has {weights.shape}."
            )
        weights = np.ascontiguousarray(weights, np.float64)
        _check_finite(weights, "sample_weight")
        if weights.min() <= 0:
            raise ValueError(f"Argument `sample_weight` must be positive, but its least value was {weights.min():g}.")
        _check_range(weights, "sample_weight")
    if device is None and not isinstance(x, np.ndarray) and x.device.type != "cpu":
        device = x.device
    return Data(values, weights, array.dtype, _check_device(device), x)


def check_integer(value: Any, name: str, low: int, high: int | None = None, high_name: str = "") -> int:
    """Return `value` as an `int` within bounds, or raise an error that names the argument."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"Argument `{name}` must be an integer, but was {value!r}.") from None
    if number < low:
        raise ValueError(f"Argument `{name}` must be at least {low}, but was {number}.")
    if high is not None and number > high:
        raise ValueError(f"Argument `{name}` must be at most {high_name}{high}, but was {number}.")
    return number


def check_number(value: Any, name: str, positive: bool = False) -> float:
    """Return `value` as a finite, non-negative `float`, or raise an error that names the argument."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"Argument `{name}` must be a number, but was {value!r}.") from None
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"Argument `{name}` must be finite and {'> 0' if positive else '>= 0'}, but was {number}.")
    return number


def _to_numpy(x: Any, name: str) -> np.ndarray:
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ValueError(f"Argument `{name}` must have no masked entries, but has {int(x.mask.sum())}.")
    if isinstance(x, np.ndarray):
        return np.asarray(x)
    torch = sys.modules.get("torch")  # without torch loaded, nothing can be a tensor
    if torch is not None and isinstance(x, torch.Tensor):
        try:
            return x.detach().cpu().numpy()
        except (TypeError, RuntimeError):  # bfloat16, float8, sparse, without data
            kind = f"{str(x.dtype).removeprefix('torch.')}, {x.layout}, on {x.device.type}"
            raise TypeError(
                f"Argument `{name}` must be a dense tensor of dtype {', '.join(_DTYPES)}, but was {kind}."
            ) from None
    raise TypeError(f"Argument `{name}` must be a NumPy array or a torch tensor, but was {type(x).__name__}.")


def _check_finite(array: np.ndarray, name: str) -> None:
    pieces = (array[start : start + _CHECKED_ROWS] for start in range(0, len(array), _CHECKED_ROWS))
    if not all(np.isfinite(piece).all() for piece in pieces):
        kinds = [kind for kind, test in (("NaN", np.isnan), ("infinity", np.isinf)) if test(array).any()]
        raise ValueError(f"Argument `{name}` must be finite, but holds {' and '.join(kinds)}.")


def _check_range(array: np.ndarray, name: str) -> None:
    """Refuse float64 values whose squares, or products with their like, leave its range."""
    largest = float(np.maximum(array.max(), -array.min()))
    if array.dtype == np.float64 and largest and not 1 / _LARGEST <= largest <= _LARGEST:
        raise ValueError(
            f"Argument `{name}` must have a largest magnitude from {1 / _LARGEST:g} to {_LARGEST:g} (or 0), so that "
            f"squares can be summed, but has {largest:g}. Multiply it by a constant."
        )


def _check_device(device: Any) -> Any:
    if device is None or str(device) == "cpu":
        return None
    import torch

    try:
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(f"Argument `device` must name a usable torch device, but was {device!r}: {error}") from None
    return torch.device(device)
