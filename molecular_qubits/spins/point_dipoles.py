"""Dipolar tensors of all pairs of spins from their positions, as point dipoles."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from molecular_qubits.spins.operators import FloatArray
from molecular_qubits.spins.tensors import g_tensor, point_dipole_tensor
from molecular_qubits.structure.nuclei import electron_scale_g, isotope
from molecular_qubits.units import G_ELECTRON


def point_dipole_tensors(
    positions_angstrom: Sequence[Any], g: Any = G_ELECTRON, isotopes: Mapping[int, str] | None = None
) -> dict[tuple[int, int], FloatArray]:
    """Return the tensors D_ij of S_i.D_ij.S_j of spins at given positions, for `dipolar` of `SpinSystem`.

    Parameters
    ----------
    positions_angstrom
        One position (3,) for each spin, in angstrom, or None to leave a spin out (one that is spread over the others,
        say).
    g
        As in `SpinSystem`; the mean of the principal values of g is used, which makes the tensors symmetric.
    isotopes
        ``{i: symbol}`` of the nuclei, as in `SpinSystem`.

    Returns
    -------
    dict of (int, int) to ndarray, shape (3, 3)
        Symmetric and traceless, cm^-1, for every pair i < j with both positions.

    Raises
    ------
    ValueError
        If a position is not three finite numbers, or two positions coincide.
    """
    count = len(positions_angstrom)
    nuclei = dict(isotopes or {})
    entries = [g] * count if np.isscalar(g) else list(g)
    if len(entries) != count:
        raise ValueError(f"Argument `g` must be one number or {count} entries, one for each spin, but has {len(g)}.")
    moments = []
    for index, entry in enumerate(entries):
        if index in nuclei:
            nucleus = isotope(nuclei[index], f"isotopes[{index}]").g_factor
            moments.append(electron_scale_g(nucleus if entry is None or np.isscalar(g) else float(np.asarray(entry))))
        else:
            moments.append(float(np.trace(g_tensor(entry, f"g[{index}]"))) / 3)
    places = {index: _position(value, index) for index, value in enumerate(positions_angstrom) if value is not None}
    tensors = {}
    for first in places:
        for second in places:
            if first < second:
                displacement = places[second] - places[first]
                if not np.any(displacement):
                    raise ValueError(
                        f"Argument `positions_angstrom` must hold different positions, but spins {first} and {second} "
                        f"are both at {places[first].tolist()}."
                    )
                tensors[first, second] = point_dipole_tensor(displacement, moments[first], moments[second])
    return tensors


def _position(value: Any, index: int) -> FloatArray:
    place = np.asarray(value, dtype=float)
    if place.shape != (3,) or not np.all(np.isfinite(place)):
        raise ValueError(f"Argument `positions_angstrom[{index}]` must be 3 finite numbers, but was {value!r}.")
    return place
