"""The result of a time evolution: states at the times asked for, with what is read off them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.spins import observables
from molecular_qubits.spins.checks import known_name
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from shared.artifacts import atomic_path

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Trajectory:
    """Density matrices along time.

    Attributes
    ----------
    times_ns
        Times (n,).
    states
        Density matrices (n, D, D).
    dims
        Dimension of each site, the first varying slowest.
    names
        Name of each site.
    solver
        Name of the solver.
    """

    times_ns: FloatArray
    states: ComplexArray
    dims: tuple[int, ...]
    names: tuple[str, ...]
    solver: str

    def expectation(self, operator: Any) -> ComplexArray:
        """Return Tr(rho A) at each time, shape (n,), real if A is Hermitian.

        Parameters
        ----------
        operator
            `qutip.Qobj` or array (D, D).

        Raises
        ------
        ValueError
            If the shape is not (D, D).
        """
        matrix = np.asarray(operator.full() if hasattr(operator, "full") else operator)
        if matrix.shape != self.states.shape[1:]:
            raise ValueError(
                f"Argument `operator` must have shape {self.states.shape[1:]}, but has shape {matrix.shape}."
            )
        values = np.einsum("tij,ji->t", self.states, matrix)
        return values.real if np.allclose(matrix, matrix.conj().T, rtol=0, atol=1e-12) else values

    def populations(self, kets: Any = None) -> FloatArray:
        """Return the populations of states at each time.

        Parameters
        ----------
        kets
            Kets as rows (m, D); the product basis by default.

        Returns
        -------
        ndarray, shape (n, m)
        """
        if kets is None:
            return np.einsum("tii->ti", self.states).real
        rows = np.atleast_2d(np.asarray(kets))
        if rows.shape[1] != self.states.shape[1]:
            raise ValueError(f"Argument `kets` must have rows of {self.states.shape[1]}, but has {rows.shape[1]}.")
        return np.einsum("mi,tij,mj->tm", rows.conj(), self.states, rows).real

    def reduced(self, names: str | Sequence[str]) -> ComplexArray:
        """Return the reduced states of one or more named sites, shape (n, d, d), in the order of the system."""
        keep = [names] if isinstance(names, str) else list(names)
        indices = [self.names.index(known_name(name, self.names, "names")) for name in keep]
        return observables.reduced_state(self.states, self.dims, indices)

    def concurrence(self, names: Sequence[str] = ("radical_1", "radical_2")) -> FloatArray:
        """Return the concurrence of two named spins 1/2 after tracing out the rest, shape (n,)."""
        return observables.concurrence(self.reduced(names))

    def to_xarray(self) -> "xarray.Dataset":
        """Return the trajectory as labelled data, real and imaginary parts in two variables."""
        import xarray

        coordinates = {"time_ns": ("time", self.times_ns, {"units": "ns"})}
        data = {
            "state_real": (("time", "row", "column"), self.states.real),
            "state_imag": (("time", "row", "column"), self.states.imag),
        }
        attributes = {"dims": list(self.dims), "names": json.dumps(self.names), "solver": self.solver}
        return xarray.Dataset(data, coordinates, attributes)

    def save(self, path: str | Path) -> None:
        """Write the trajectory as netCDF; the file appears only when complete."""
        with atomic_path(path) as temporary:
            self.to_xarray().to_netcdf(temporary, engine="h5netcdf")

    @classmethod
    def load(cls, path: str | Path) -> "Trajectory":
        """Read what `save` wrote."""
        import xarray

        with xarray.open_dataset(path, engine="h5netcdf") as data:
            return cls(
                times_ns=data["time_ns"].values,
                states=data["state_real"].values + 1j * data["state_imag"].values,
                dims=tuple(int(d) for d in np.atleast_1d(data.attrs["dims"])),
                names=tuple(json.loads(data.attrs["names"])),
                solver=str(data.attrs["solver"]),
            )


def sweep_dataset(
    trajectories: Sequence[Trajectory],
    coordinates: Mapping[str, Sequence[Any]],
    observables: Mapping[str, Callable[[Trajectory], Any]],
) -> "xarray.Dataset":
    """Return observables of a sweep over a grid of parameters as labelled data; ``to_netcdf`` saves them.

    Parameters
    ----------
    trajectories
        One for each point of the grid, the last parameter varying fastest, with the same times.
    coordinates
        Values of each parameter, by name.
    observables
        Functions of a trajectory that return an array (n,) along its times, by name.

    Returns
    -------
    xarray.Dataset
        Dimensions: the parameters, then ``time_ns``.

    Raises
    ------
    ValueError
        If the number of trajectories is not that of the grid, or their times differ.

    Examples
    --------
    >>> from molecular_qubits import SpinSystem, evolve_sweep
    >>> fields = [0.1, 0.2, 0.3]
    >>> spin = SpinSystem((0.5,), names=("radical",))
    >>> runs = evolve_sweep([spin] * 3, [1, 0], [0.0, 1.0], field_tesla=lambda index: fields[index])
    >>> sweep_dataset(runs, {"field_tesla": fields}, {"up": lambda run: run.populations()[:, 0]}).up.shape
    (3, 2)
    """
    import xarray

    shape = tuple(len(values) for values in coordinates.values())
    if len(trajectories) != int(np.prod(shape)) or not trajectories:
        raise ValueError(
            f"Argument `trajectories` must hold {int(np.prod(shape))} runs, one for each point of the grid {shape}, "
            f"but holds {len(trajectories)}."
        )
    times = trajectories[0].times_ns
    for number, run in enumerate(trajectories):
        if not np.array_equal(run.times_ns, times):
            raise ValueError(f"Argument `trajectories` must share their times, but number {number} differs.")
    dims = (*coordinates, "time_ns")
    data = {
        name: (dims, np.array([np.asarray(read(run)) for run in trajectories]).reshape(*shape, len(times)))
        for name, read in observables.items()
    }
    return xarray.Dataset(data, {name: list(values) for name, values in coordinates.items()} | {"time_ns": times})
