"""Memory and disk space that a density-fitted field will need, estimated before any of it is taken."""

from __future__ import annotations

import os
import resource
import shutil
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from molecular_qubits.structure.pyscf_input import fitting_basis

BATCH_BYTES = 2**27
"""Memory of the fitted integrals that PySCF hands out at a time; it reads the next ones meanwhile."""

SHARE_BYTES = 2**25
"""Memory of the integrals that one thread unpacks at a time in single precision; twice that in double."""

_WORK_MATRICES = 40
"""Square matrices of an unrestricted field with DIIS: 8 error and 8 Fock pairs, densities, orbitals, work arrays."""

_ORBITAL_VALUES_SHARE = 1 / 6
"""Orbital values that a ramped field keeps, in fitted integrals, with 55 atoms and a coarse grid; what is more is kept
only where memory has room for it (`molecular_qubits.electronic.ramp.KEPT_SHARE`)."""

_REMEDY = "take a smaller `basis` or `auxbasis`, exact integrals (`density_fit=False`, slower), or a larger machine."


class InsufficientMemoryError(RuntimeError):
    """The estimated memory of a calculation exceeds what is available."""


def fit_memory_mb(mole: Any, xc: str, auxbasis: str | None = None, *, ramp: bool = False) -> float:
    """Return the size of the fitted integrals (naux, n_ao (n_ao + 1) / 2) and the matrices of the field, in MB.

    The estimate is of what is in memory: the integrals, or as much as ``mole.max_memory`` for those that PySCF writes
    to a scratch file (`fit_file_mb`). Range-separated functionals have the integrals twice. A ramped field keeps
    orbital values besides, and integrals that are read ahead and unpacked.

    Parameters
    ----------
    mole
        PySCF molecule.
    xc
        Functional by its PySCF name.
    auxbasis
        Fitting basis; ``None`` as `make_uks` chooses.
    ramp
        Whether the field is ramped.

    Raises
    ------
    ValueError
        If the fitting basis is unknown for an element.
    """
    from pyscf import lib

    integrals, kept, written = _fitted_integrals(mole, xc, auxbasis)
    work = 8 * _WORK_MATRICES * mole.nao**2 / 1e6
    batches = 2 * (BATCH_BYTES + 2 * lib.num_threads() * SHARE_BYTES) / 1e6
    ramped = min(batches, 2 * integrals) + _ORBITAL_VALUES_SHARE * integrals if ramp else 0.0
    return kept * integrals + written * min(integrals, mole.max_memory) + work + ramped


def fit_file_mb(mole: Any, xc: str, auxbasis: str | None = None) -> float:
    """Return the size of the fitted integrals that PySCF writes to scratch files, in MB; 0 where memory holds them all.

    Parameters
    ----------
    mole, xc, auxbasis
        As for `fit_memory_mb`, which raises the same error.
    """
    integrals, _, written = _fitted_integrals(mole, xc, auxbasis)
    return written * integrals


def fit_limit_mb(mole: Any) -> float:
    """Return the ``max_memory`` of PySCF for a fitted field, in MB: half of what is available, or that of `mole`."""
    return float(max(mole.max_memory, available_memory_mb() / 2))


def _fitted_integrals(mole: Any, xc: str, auxbasis: str | None) -> tuple[float, int, int]:
    """Return the size of one set of fitted integrals in MB, how many sets are kept in memory, and how many in files.

    As ``pyscf.df.DF.build`` decides it: a set is kept if nine tenths of the memory that is left hold it.
    """
    from pyscf import df, lib
    from pyscf.dft import libxc

    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):  # PySCF says at length what to do in its own terms
            warnings.simplefilter("ignore")
            n_aux = df.addons.make_auxmol(mole, fitting_basis(mole, xc, auxbasis)).nao
    except Exception:  # PySCF raises several types for an unknown name
        raise ValueError(
            f"Argument `auxbasis` must be a fitting basis of PySCF for {sorted(set(mole.elements))}, such as "
            f"'def2-universal-jkfit', but is {auxbasis!r}."
        ) from None
    integrals = 8 * n_aux * mole.nao * (mole.nao + 1) / 2 / 1e6
    sets = 2 if xc.lower() != "hf" and libxc.rsh_coeff(xc)[0] else 1
    left, kept = fit_limit_mb(mole) - lib.current_memory()[0], 0
    while kept < sets and integrals < 0.9 * (left - kept * integrals):
        kept += 1
    return integrals, kept, sets - kept


def available_memory_mb() -> float:
    """Return the memory that a new allocation can use, in MB: free memory, and what the limits of this process
    (``ulimit -v``) and of its control groups leave.
    """
    found = [_address_space_mb()]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = [line.split() for line in meminfo.read_text(encoding="ascii").splitlines()]
        found += [float(row[1]) * 1024 / 1e6 for row in rows if row[0] == "MemAvailable:"]
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6)
    for limit, used in _group_files():
        if limit.is_file() and used.is_file():
            text = limit.read_text(encoding="ascii").strip()
            if text != "max":
                found.append((float(text) - float(used.read_text(encoding="ascii"))) / 1e6)
    return min(found)


def _address_space_mb() -> float:
    """Return what the limit of this process's address space leaves, in MB."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = Path("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not used.is_file():
        return float("inf")
    return (limit - int(used.read_text(encoding="ascii").split()[0]) * resource.getpagesize()) / 1e6


def _group_files(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[tuple[Path, Path]]:
    """Yield the files of limit and use of memory of this process's control group and of those above it, v2 or v1."""
    for line in groups.read_text(encoding="utf-8").splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, names = root, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts), -1, -1):
            folder = base.joinpath(*parts[:depth])
            yield folder / names[0], folder / names[1]


def check_fit(
    mole: Any, basis: str, xc: str, auxbasis: str | None = None, *, ramp: bool = False, device: str = "cpu"
) -> None:
    """Raise an `InsufficientMemoryError` if a fitted field needs more memory, or room for a file, than there is.

    Parameters as for `check_fit_memory`; fields on a graphics card write no file.
    """
    check_fit_memory(mole, basis, xc, auxbasis, ramp=ramp)
    if device == "cpu":
        check_fit_file(mole, basis, xc, auxbasis)


def check_fit_memory(mole: Any, basis: str, xc: str, auxbasis: str | None = None, *, ramp: bool = False) -> None:
    """Raise an `InsufficientMemoryError` if density fitting needs more memory than there is.

    Parameters
    ----------
    mole
        PySCF molecule.
    basis
        Name of its basis, for the message.
    xc, auxbasis, ramp
        As for `fit_memory_mb`.
    """
    needed, available = fit_memory_mb(mole, xc, auxbasis, ramp=ramp), available_memory_mb()
    if needed > available:
        raise InsufficientMemoryError(
            f"{_what(mole, basis)} needs about {needed:,.0f} MB, but {available:,.0f} MB are available: {_REMEDY}"
        )


def check_fit_file(mole: Any, basis: str, xc: str, auxbasis: str | None = None) -> None:
    """Raise an `InsufficientMemoryError` if fitted integrals go to a file in a folder that has no room for it.

    The folder is PySCF's, ``pyscf.lib.param.TMPDIR``. Parameters as for `check_fit_memory`.
    """
    from pyscf import lib

    needed = fit_file_mb(mole, xc, auxbasis)
    if not needed:
        return
    free = shutil.disk_usage(lib.param.TMPDIR).free / 1e6
    if needed > free:
        raise InsufficientMemoryError(
            f"{_what(mole, basis)} writes {needed:,.0f} MB of integrals, more than memory holds, to the folder "
            f"{lib.param.TMPDIR!r}, but {free:,.0f} MB are free there: name another folder in the environment variable "
            f"PYSCF_TMPDIR, or {_REMEDY}"
        )


def _what(mole: Any, basis: str) -> str:
    return f"Density fitting of {mole.natm} atoms in {basis} ({mole.nao} orbitals)"
