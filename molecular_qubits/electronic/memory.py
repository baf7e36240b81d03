"""Memory that a density-fitted field will need, estimated before any of it is allocated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from molecular_qubits.electronic.errors import InsufficientMemoryError
from molecular_qubits.electronic.fitted_exchange import BATCH_BYTES, SHARE_BYTES
from molecular_qubits.structure.pyscf_input import fitting_basis

_WORK_MATRICES = 40
"""Square matrices of an unrestricted field with DIIS: 8 error and 8 Fock pairs, densities, orbitals, work arrays."""

_ORBITAL_VALUES_SHARE = 1 / 6
"""Orbital values that a ramped field keeps, in fitted integrals, with 55 atoms."""


def fit_memory_mb(mole: Any, xc: str, auxbasis: str | None = None, *, ramp: bool = False) -> float:
    """Return the size of the fitted integrals (naux, n_ao (n_ao + 1) / 2) and the matrices of the field, in MB.

    PySCF keeps the integrals in memory up to ``mole.max_memory`` and in a scratch file beyond; the estimate is of what
    is in memory. Range-separated functionals have the integrals twice. A ramped field keeps orbital values besides, and
    integrals that are read ahead and unpacked.

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
    from pyscf import df, lib
    from pyscf.dft import libxc

    try:
        n_aux = df.addons.make_auxmol(mole, fitting_basis(mole, xc, auxbasis)).nao
    except Exception:  # PySCF raises several types for an unknown name
        raise ValueError(
            f"Argument `auxbasis` must be a fitting basis of PySCF for {sorted(set(mole.elements))}, such as "
            f"'def2-universal-jkfit', but is {auxbasis!r}."
        ) from None
    n = mole.nao
    integrals = 8 * n_aux * n * (n + 1) / 2 / 1e6
    tensors = 2 if xc.lower() != "hf" and libxc.rsh_coeff(xc)[0] else 1
    work = 8 * _WORK_MATRICES * n**2 / 1e6
    batches = 2 * (BATCH_BYTES + lib.num_threads() * SHARE_BYTES) / 1e6
    ramped = min(batches, 2 * integrals) + _ORBITAL_VALUES_SHARE * integrals if ramp else 0.0
    return tensors * min(integrals, mole.max_memory) + work + ramped


def available_memory_mb() -> float:
    """Return the memory that a new allocation can use, in MB: free memory and the limit of the control group."""
    found = [float("inf")]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = [line.split() for line in meminfo.read_text(encoding="ascii").splitlines()]
        found += [float(row[1]) * 1024 / 1e6 for row in rows if row[0] == "MemAvailable:"]
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists():
        text = limit.read_text(encoding="ascii").strip()
        if text != "max":
            found.append((float(text) - float(used.read_text(encoding="ascii"))) / 1e6)
    return min(found)


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
            f"Density fitting of {mole.natm} atoms in {basis} ({mole.nao} orbitals) needs about {needed:,.0f} MB, but "
            f"{available:,.0f} MB are available. Take a smaller `basis` or `auxbasis`, exact integrals "
            "(`density_fit=False`, slower), or a machine with more memory."
        )
