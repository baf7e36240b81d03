"""Dephasing of several spins by fluctuations of the field that they share in part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from molecular_qubits.spins.channels.base import Channel
from molecular_qubits.spins.checks import finite_number, known_name, non_negative
from molecular_qubits.spins.operators import ComplexArray, FloatArray, embed
from molecular_qubits.spins.system import QuantumSystem


@dataclass(frozen=True)
class CorrelatedDephasing(Channel):
    """Pure dephasing by a field whose fluctuations at the spins are correlated.

    The field at spin i fluctuates along one axis with white noise; the noise at i and j has the correlation coefficient
    c_ij. The generator is sum_ij G_ij (S_i rho S_j - (S_j S_i rho + rho S_j S_i) / 2) with
    G_ij = 2 c_ij sqrt(rate_i rate_j) and S the spin component along the axis. Two spins 1/2 with equal rates lose the
    coherence of |ud> and |du> at 2 rate (1 - c), that of |uu> and |dd> at 2 rate (1 + c); with c = 0 it is
    `PureDephasing` of each, with c = 1 the first is protected.

    Parameters
    ----------
    sites
        Names of the spins, two or more.
    rates_per_ns
        Dephasing rate of each spin on its own, 1/T2*.
    correlation
        One coefficient from -1 to 1 for all pairs, or a symmetric matrix (n, n) with unit diagonal.
    axis
        Direction in the laboratory, z by default; it is normalised.

    Raises
    ------
    ValueError
        If a rate is negative, or no fluctuations can have these correlations (the matrix is not positive).
    """

    sites: Sequence[str]
    rates_per_ns: Sequence[float]
    correlation: Any = 1.0
    axis: Sequence[float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if isinstance(self.sites, str) or len(set(self.sites)) != len(self.sites) or len(self.sites) < 2:
            raise ValueError(f"Argument `sites` must be a list of two or more different sites, but was {self.sites!r}.")
        if len(self.rates_per_ns) != len(self.sites):
            raise ValueError(
                f"Argument `rates_per_ns` must hold {len(self.sites)} rates, one for each site, but holds "
                f"{len(self.rates_per_ns)}."
            )
        for number, rate in enumerate(self.rates_per_ns):
            non_negative(rate, f"rates_per_ns[{number}]")
        axis = np.asarray(self.axis, dtype=float)
        if axis.shape != (3,) or not np.all(np.isfinite(axis)) or not np.any(axis):
            raise ValueError(f"Argument `axis` must be 3 finite numbers, not all 0, but was {self.axis!r}.")
        self.correlation_matrix()

    def correlation_matrix(self) -> FloatArray:
        """Return the checked correlation matrix, shape (n, n)."""
        count = len(self.sites)
        if np.ndim(self.correlation) == 0:
            coefficient = finite_number(self.correlation, "correlation")
            matrix = np.full((count, count), coefficient)
            np.fill_diagonal(matrix, 1.0)
        else:
            matrix = np.asarray(self.correlation, dtype=float)
        if matrix.shape != (count, count) or not np.all(np.isfinite(matrix)):
            raise ValueError(f"Argument `correlation` must be a number or ({count}, {count}), but was {matrix.shape}.")
        if np.max(np.abs(matrix - matrix.T)) > 1e-12 or np.max(np.abs(np.diag(matrix) - 1)) > 1e-12:
            raise ValueError("Argument `correlation` must be symmetric with 1 on the diagonal, but is not.")
        lowest = float(np.linalg.eigvalsh(matrix)[0])
        if lowest < -1e-12:
            raise ValueError(
                f"Argument `correlation` must be positive, but has the eigenvalue {lowest:.3g}; {count} fluctuations "
                f"with one coefficient for all pairs need one from {-1 / (count - 1):.3g} to 1."
            )
        return matrix

    def jumps(self, system: QuantumSystem, field_tesla: Any) -> ComplexArray:
        """Return one jump operator for each independent fluctuation, shape (k, D, D)."""
        axis = np.asarray(self.axis, dtype=float) / np.linalg.norm(self.axis)
        spins = []
        for site in self.sites:
            component = np.einsum("a,aij->ij", axis, system.site_spin(known_name(site, system.names, "sites")))
            spins.append(embed(component, system.names.index(site), system.dims))
        roots = np.sqrt(2 * np.asarray(self.rates_per_ns, dtype=float))
        weights, modes = np.linalg.eigh(self.correlation_matrix() * np.outer(roots, roots))
        kept = weights > 1e-14 * max(float(weights[-1]), 1e-300)
        return np.einsum("ik,iab->kab", modes[:, kept] * np.sqrt(weights[kept]), np.array(spins))
