"""What surrounds a field: implicit solvent, dispersion, and the processor that it runs on."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import numpy as np

from molecular_qubits.structure.molecule import real_number

SOLVENT_MODEL = "C-PCM"
"""Conductor-like polarisable continuum: the molecule in a cavity of a medium with a dielectric constant."""

DISPERSIONS = ("d3bj", "d3zero", "d4")
"""Empirical dispersion corrections by their PySCF names."""

DEVICES = ("cpu", "gpu")


def check_environment(solvent_epsilon: float | None, dispersion: str | None, device: str) -> None:
    """Raise a `ValueError` if the dielectric constant is not above 1, or dispersion or device are unknown."""
    if solvent_epsilon is not None and not 1 < real_number(solvent_epsilon, "Argument `solvent_epsilon`") < np.inf:
        raise ValueError(
            "Argument `solvent_epsilon` must be a dielectric constant above 1, such as 2.37 for toluene, but is "
            f"{solvent_epsilon!r}."
        )
    if dispersion is not None and dispersion not in DISPERSIONS:
        raise ValueError(f"Argument `dispersion` must be one of {DISPERSIONS} or None, but is {dispersion!r}.")
    if device not in DEVICES:
        raise ValueError(f"Argument `device` must be one of {DEVICES}, but is {device!r}.")


def check_available(dispersion: str | None, device: str, xc: str) -> None:
    """Raise an error if this machine cannot run an environment, before any field is run.

    Raises
    ------
    ValueError
        If the dispersion has no parameters for the functional.
    ModuleNotFoundError
        If the package or the device that they need is not there.
    """
    if dispersion is not None and importlib.util.find_spec("pyscf.dispersion") is None:
        raise ModuleNotFoundError(
            f"Argument `dispersion` is {dispersion!r}, which needs the package pyscf-dispersion: "
            "pip install pyscf-dispersion. It shifts all states of a geometry alike: couplings change only with a "
            "geometry relaxed by it."
        )
    if dispersion is not None and not _has_parameters(dispersion, xc):
        others = [name for name in DISPERSIONS if _has_parameters(name, xc)]
        raise ValueError(
            f"Argument `dispersion` must have parameters for the functional {xc!r}, but {dispersion!r} has none. "
            + (f"There are for {', '.join(map(repr, others))}." if others else "No dispersion has: take None.")
        )
    if device == "gpu" and not gpu_available():
        raise ModuleNotFoundError(
            "Argument `device` is 'gpu', which needs a CUDA device and the package gpu4pyscf-cuda12x. Leave it "
            "out to run on the processor."
        )


@cache
def _has_parameters(dispersion: str, xc: str) -> bool:
    from pyscf import dft, gto
    from pyscf.scf.dispersion import get_dispersion

    field = dft.UKS(gto.M(atom="H 0 0 0; H 0 0 1", verbose=0))
    field.xc = xc
    try:
        get_dispersion(field, dispersion)
    except Exception:  # the two packages raise several types
        return False
    return True


@cache
def gpu_available() -> bool:
    """Return whether gpu4pyscf is installed and sees a device."""
    if importlib.util.find_spec("gpu4pyscf") is None or importlib.util.find_spec("cupy") is None:
        return False
    try:
        import cupy
    except ImportError:  # installed, but without the libraries of CUDA
        return False
    try:
        return int(cupy.cuda.runtime.getDeviceCount()) > 0
    except cupy.cuda.runtime.CUDARuntimeError:
        return False


def surrounded(mean_field: Any, solvent_epsilon: float | None, dispersion: str | None) -> Any:
    """Return a PySCF field in a solvent (`SOLVENT_MODEL`) with a dispersion energy."""
    if dispersion is not None:
        mean_field.disp = dispersion
    if solvent_epsilon is None:
        return mean_field
    mean_field = mean_field.PCM()
    mean_field.with_solvent.method = SOLVENT_MODEL
    mean_field.with_solvent.eps = float(solvent_epsilon)
    return mean_field


def to_host(array: Any) -> np.ndarray:
    """Return an array of the graphics processor, or a plain one, as NumPy array."""
    return np.asarray(array.get() if hasattr(array, "get") else array)
