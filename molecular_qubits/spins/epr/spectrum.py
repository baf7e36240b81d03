"""Field-swept powder spectra: continuous wave at thermal equilibrium, and time-resolved of spin-polarised states."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.signal import fftconvolve

from molecular_qubits.spins.checks import density_matrix, positive, thermal_frequency
from molecular_qubits.spins.epr.orientations import powder_orientations, powder_states
from molecular_qubits.spins.epr.resonances import Populations, find_resonances
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.spins.system import SpinSystem

if TYPE_CHECKING:
    import xarray

Shape = Literal["gaussian", "lorentzian"]
_BINS_PER_WIDTH = 10
_SHAPES = ("gaussian", "lorentzian")
_REACH = 5  # of a Gaussian to each side, in peak-to-peak widths; a Lorentzian reaches over the whole sweep


def epr_spectrum(
    system: SpinSystem,
    fields_tesla: Any,
    frequency_ghz: float,
    *,
    temperature_k: float | None = None,
    states: Any = None,
    linewidth_pp_mt: float = 0.5,
    shape: Shape = "gaussian",
    harmonic: int = 0,
    n_orientations: int = 5000,
    directions: Any = None,
) -> "xarray.DataArray":
    """Return a field-swept spectrum of a powder, or of a crystal in one or some orientations.

    Every line between all pairs of levels of the full Hamiltonian is taken, with the microwave field normal to the
    static one, the populations of the levels at resonance, and one width.

    Parameters
    ----------
    system
        The spins, in the frame of the molecule.
    fields_tesla
        Fields in equal steps, ascending, shape (n,).
    frequency_ghz
        Microwave frequency.
    temperature_k
        Of thermal populations at each resonance. Give this or `states`.
    states
        A spin-polarised state as a ket or density matrix (D, D), or states at several times (m, D, D), in the frame of
        the molecule; arrays or `qutip.Qobj`. The populations of the levels in the field are its diagonal elements there
        (sudden approximation), see `zero_field_state`. It need not have the symmetry of the spins.
    linewidth_pp_mt
        Width between the peaks of the derivative, in mT.
    shape
        ``"gaussian"`` or ``"lorentzian"``.
    harmonic
        0: absorption (negative: emission), as in direct detection; 1: its derivative by the field.
    n_orientations
        Of the powder; see `powder_orientations`.
    directions
        Unit vectors of the field (n, 3) in place of a powder, of equal weight.

    Returns
    -------
    xarray.DataArray
        Intensity per tesla (per tesla squared for the derivative), dimension ``field_tesla``, and ``state`` before it
        for several states. A free-electron line of full polarisation integrates to 1/4.

    Raises
    ------
    ValueError
        If an argument is not as described.
    """
    import xarray

    fields = _sweep(fields_tesla)
    width = 1e-3 * positive(linewidth_pp_mt, "linewidth_pp_mt")
    if shape not in _SHAPES:
        raise ValueError(f"Argument `shape` must be one of {list(_SHAPES)}, but was {shape!r}.")
    if harmonic not in (0, 1):
        raise ValueError(f"Argument `harmonic` must be 0 or 1, but was {harmonic!r}.")
    directions, weights, populations = sample(system, temperature_k, states, n_orientations, directions)
    step = fields[1] - fields[0]
    fine = max(1, math.ceil(step * _BINS_PER_WIDTH / width))
    reach = _REACH * width + (fields[-1] - fields[0] if shape == "lorentzian" else 0.0)
    bins = math.ceil(reach / (step / fine))
    grid = fields[0] + step / fine * np.arange(-bins, (len(fields) - 1) * fine + bins + 1)
    lines = find_resonances(system, frequency_ghz, (max(0.0, float(grid[0])), float(grid[-1])), directions, populations)
    intensity = lines.intensity * weights[lines.direction]
    sticks = [_deposit(lines.field_tesla, row, grid) for row in intensity.reshape(-1, intensity.shape[-1])]
    line = _line_shape(step / fine * np.arange(-bins, bins + 1), width, shape, harmonic)
    values = fftconvolve(np.array(sticks), line[None, :], mode="valid", axes=1)[:, ::fine]
    coordinates = {"field_tesla": fields}
    attributes = {
        "frequency_ghz": frequency_ghz, "linewidth_pp_mt": linewidth_pp_mt, "shape": shape, "harmonic": harmonic,
        "n_orientations": len(directions),
    }  # fmt: skip
    if intensity.ndim == 1:
        return xarray.DataArray(values[0], coordinates, ["field_tesla"], "intensity", attributes)
    return xarray.DataArray(values, coordinates, ["state", "field_tesla"], "intensity", attributes)


def zero_field_state(system: SpinSystem, populations: Sequence[float]) -> ComplexArray:
    """Return the state with given populations of the levels at zero field, as intersystem crossing leaves it.

    Parameters
    ----------
    system
        The spins.
    populations
        One for each level in order of energy, the lowest first, not negative, sum 1. Levels of equal energy (to 1e-9
        of the spread) must have equal populations, since their states are not defined singly.

    Returns
    -------
    ndarray of complex, shape (D, D)

    Raises
    ------
    ValueError
        If the populations are not as described.
    """
    shares = np.asarray(populations, dtype=float)
    dimension = system.dimension
    if shares.shape != (dimension,) or not np.all(np.isfinite(shares)) or np.any(shares < 0):
        raise ValueError(
            f"Argument `populations` must hold {dimension} numbers, not negative, but was {np.ravel(shares).tolist()}."
        )
    if abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"Argument `populations` must have the sum 1, but has {shares.sum():.12g}.")
    energies, vectors = np.linalg.eigh(system.hamiltonian_matrix(0.0))
    equal = np.diff(energies) <= 1e-9 * np.ptp(energies) + 1e-15
    for level in np.flatnonzero(equal & (np.abs(np.diff(shares)) > 1e-12)):
        raise ValueError(
            f"Argument `populations` must be the same for levels of equal energy, but levels {level} and {level + 1} "
            f"have {shares[level]} and {shares[level + 1]}."
        )
    return np.asarray((vectors * shares) @ vectors.conj().T, dtype=complex)


def sample(
    system: SpinSystem, temperature_k: float | None, states: Any, n_orientations: int, directions: Any
) -> tuple[FloatArray, FloatArray, Populations]:
    """Return the directions of the field (n, 3), their weights and the populations there; see `epr_spectrum`."""
    if directions is None:
        powder = powder_orientations(system, n_orientations)
        populations = level_populations(system, temperature_k, states, powder=True)
        return powder.directions, powder.weights, populations
    vectors = _unit_vectors(directions)
    return vectors, np.full(len(vectors), 1 / len(vectors)), level_populations(system, temperature_k, states)


def level_populations(
    system: SpinSystem, temperature_k: float | None = None, states: Any = None, *, powder: bool = False
) -> Populations:
    """Return what gives `find_resonances` its populations: Boltzmann's, or those of states; see `epr_spectrum`.

    With `powder` they are those on the directions of `powder_orientations`, which stand for the whole sphere.
    """
    if (temperature_k is None) == (states is None):
        raise ValueError("Argument `temperature_k` or `states` must be given, and not both.")
    if temperature_k is not None:
        thermal = thermal_frequency(temperature_k)

        def boltzmann(energies: FloatArray, vectors: ComplexArray) -> FloatArray:
            weights = np.exp(-(energies - energies[:, :1]) / thermal)
            return np.asarray(weights / weights.sum(axis=1, keepdims=True))

        return boltzmann
    if isinstance(states, list | tuple):
        states = [state.full() if hasattr(state, "full") else state for state in states]
    array = np.asarray(states.full() if hasattr(states, "full") else states, dtype=complex)
    several = array.ndim == 3
    checked = [density_matrix(state, system.dimension) for state in (array if several else [array])]
    stack = np.array(checked) if several else checked[0]
    if powder:
        stack = powder_states(system, stack)

    def projected(energies: FloatArray, vectors: ComplexArray) -> FloatArray:
        half = np.einsum("...ij,nja->...nia", stack, vectors)
        return np.einsum("nia,...nia->...na", vectors.conj(), half).real

    return projected


def _sweep(fields_tesla: Any) -> FloatArray:
    fields = np.asarray(fields_tesla, dtype=float)
    if fields.ndim != 1 or len(fields) < 2 or not np.all(np.isfinite(fields)) or fields[0] < 0:
        raise ValueError(
            f"Argument `fields_tesla` must hold at least 2 finite fields, none negative, but has shape {fields.shape}."
        )
    steps = np.diff(fields)
    if steps[0] <= 0 or np.max(np.abs(steps - steps.mean())) > 1e-6 * steps.mean():
        raise ValueError("Argument `fields_tesla` must ascend in equal steps.")
    return fields


def _unit_vectors(directions: Any) -> FloatArray:
    vectors = np.atleast_2d(np.asarray(directions, dtype=float))
    if vectors.ndim != 2 or vectors.shape[1] != 3 or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-9):
        raise ValueError(f"Argument `directions` must hold unit vectors, shape (n, 3); shape was {vectors.shape}.")
    return vectors


def _deposit(positions: FloatArray, weights: FloatArray, grid: FloatArray) -> FloatArray:
    """Density on a grid of equal steps: each line is shared by its two neighbours, which keeps its mean."""
    step = grid[1] - grid[0]
    place = (positions - grid[0]) / step
    left = np.clip(np.floor(place).astype(np.intp), 0, len(grid) - 2)
    right_share = place - left
    counts = np.bincount(left, weights * (1 - right_share), len(grid))
    return np.asarray(counts + np.bincount(left + 1, weights * right_share, len(grid))) / step


def _line_shape(offsets: FloatArray, width: float, shape: Shape, harmonic: int) -> FloatArray:
    """Line of unit area, or its derivative, times the step; `width` lies between the peaks of the derivative."""
    step = offsets[1] - offsets[0]
    if shape == "gaussian":
        sigma = width / 2
        line = np.exp(-0.5 * (offsets / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
        return step * (line if harmonic == 0 else -offsets / sigma**2 * line)
    half = width * math.sqrt(3) / 2
    line = half / math.pi / (offsets**2 + half**2)
    return step * (line if harmonic == 0 else -2 * offsets * line / (offsets**2 + half**2))
