"""Field directions that average a powder, over no more of the sphere than the symmetry of the spins asks for.

A rotation R that leaves the tensors as they are takes the levels in the field B to those in R B; time reversal, to
those in -B. A state need not have these symmetries: since a spectrum is linear in the populations, its powder is that
of the state averaged over them, on the same few directions.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.spins.system import SpinSystem

Symmetry = Literal["isotropic", "axial", "rhombic", "none"]
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Orientations:
    """Directions of the field in the frame of the molecule.

    Attributes
    ----------
    directions
        Unit vectors, shape (n, 3).
    weights
        Share of the sphere that each stands for, shape (n,), sum 1.
    symmetry
        What the average assumes of the spins.
    """

    directions: FloatArray
    weights: FloatArray
    symmetry: Symmetry


def powder_orientations(system: SpinSystem, n_orientations: int) -> Orientations:
    """Return directions for the powder average of a spin system.

    Where all tensors share their axes one octant is enough, where they are axial about one axis a quarter of a
    meridian; for all others half the sphere, since B and -B give the same spectrum. That is so of thermal states, and
    of others after `powder_states`.

    Parameters
    ----------
    system
        The spins.
    n_orientations
        Number of directions, at least 1; on an octant or half the sphere nearly as many (rings of equal spacing).

    Raises
    ------
    ValueError
        If the number is below 1.
    """
    if int(n_orientations) != n_orientations or n_orientations < 1:
        raise ValueError(f"Argument `n_orientations` must be an integer of at least 1, but was {n_orientations!r}.")
    symmetry, axes = tensor_symmetry(system)
    if symmetry == "isotropic":
        return Orientations(axes[:, 2:].T, np.ones(1), symmetry)
    if symmetry == "axial":
        edges = np.linspace(0, np.pi / 2, n_orientations + 1)
        theta = (edges[:-1] + edges[1:]) / 2
        local = np.stack([np.sin(theta), np.zeros_like(theta), np.cos(theta)], axis=1)
        return Orientations(local @ axes.T, -np.diff(np.cos(edges)), symmetry)
    turn = np.pi / 2 if symmetry == "rhombic" else 2 * np.pi
    local, weights = _rings(n_orientations, turn)
    return Orientations(local @ axes.T, weights, symmetry)


def powder_states(system: SpinSystem, states: ComplexArray) -> ComplexArray:
    """Return states averaged over the rotations and the time reversal that `powder_orientations` takes as symmetries.

    Parameters
    ----------
    system
        The spins.
    states
        Density matrices (..., D, D) in the frame of the molecule.

    Returns
    -------
    ndarray of complex, shape (..., D, D)
        States whose mean spectrum over the directions of `powder_orientations` is that of the given ones over the whole
        sphere. States of the levels at zero field stay as they are.
    """
    symmetry, axes = tensor_symmetry(system)
    spin = system.total_spin()

    def turned(states: ComplexArray, axis: FloatArray, angle: float) -> ComplexArray:
        m, kets = np.linalg.eigh(np.einsum("a,aij->ij", axis, spin))
        turn = (kets * np.exp(-1j * angle * m)) @ kets.conj().T
        return turn @ states @ turn.conj().T

    def about(states: ComplexArray, axis: FloatArray, order: int) -> ComplexArray:
        return np.mean([turned(states, axis, 2 * np.pi * k / order) for k in range(order)], axis=0)

    x, y, z = axes.T
    every = round(2 * sum(system.spins)) + 1  # as many steps as any angle, since no coherence turns faster than 2 S
    if symmetry == "rhombic":
        states = about(about(states, z, 2), x, 2)
    elif symmetry in ("axial", "isotropic"):
        states = about(states, z, every)
    if symmetry == "isotropic":  # Gauss's rule is exact for the Legendre polynomials up to degree 2 S
        cosines, weights = np.polynomial.legendre.leggauss(every)
        tilted = np.array([turned(states, y, angle) for angle in np.arccos(cosines)])
        states = about(np.tensordot(weights / 2, tilted, 1), z, every)
    return np.asarray(states + turned(states.conj(), np.array([0.0, 1.0, 0.0]), np.pi)) / 2


def tensor_symmetry(system: SpinSystem) -> tuple[Symmetry, FloatArray]:
    """Return the symmetry of the tensors of a system and its axes as columns (3, 3), z being that of an axial system.

    Two axes count as equal if no tensor differs between them by more than 1e-9 of its largest element.
    """
    tensors = list(_normalised(system))
    anisotropic = [tensor for tensor in tensors if np.max(np.abs(tensor - np.trace(tensor) / 3 * np.eye(3))) > 1e-9]
    if not anisotropic:
        return "isotropic", np.eye(3)
    if any(np.max(np.abs(tensor - tensor.T)) > _TOLERANCE for tensor in anisotropic):
        return "none", np.eye(3)
    weights = np.sqrt(np.arange(2, 2 + len(anisotropic)))  # a mixture in which no two different axes coincide by chance
    axes = np.linalg.eigh(np.einsum("n,nab->ab", weights, np.array(anisotropic)))[1]
    principal = np.array([axes.T @ tensor @ axes for tensor in anisotropic])
    diagonal = np.einsum("naa->na", principal)
    if np.max(np.abs(principal - np.einsum("na,ab->nab", diagonal, np.eye(3)))) > _TOLERANCE:
        return "none", np.eye(3)
    for z, x, y in ((2, 0, 1), (0, 1, 2), (1, 2, 0)):
        if np.max(np.abs(diagonal[:, x] - diagonal[:, y])) <= _TOLERANCE:
            return "axial", axes[:, [x, y, z]]
    return "rhombic", axes


def _normalised(system: SpinSystem) -> Any:
    for group in (dict(enumerate(system.g)), system.zfs, system.dipolar, system.hyperfine):
        for tensor in group.values():
            size = float(np.max(np.abs(tensor)))
            if size > 0:
                yield np.asarray(tensor) / size


def _rings(count: int, turn: float) -> tuple[FloatArray, FloatArray]:
    """Rings of one polar angle each from pole to equator over an azimuth of `turn`, spaced evenly in both angles."""
    spacing = np.sqrt(turn / count)
    edges = np.linspace(0, np.pi / 2, max(1, round(np.pi / 2 / spacing)) + 1)
    directions, weights = [], []
    for low, high in pairwise(edges):
        theta = (low + high) / 2
        points = max(1, round(turn * np.sin(theta) / spacing))
        phi = (np.arange(points) + 0.5) / points * turn
        ring = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.full(points, np.cos(theta))], 1)
        directions.append(ring)
        weights.append(np.full(points, (np.cos(low) - np.cos(high)) / points))
    return np.concatenate(directions), np.concatenate(weights)
