"""The molecule and its field as PySCF wants them, and checks of functional and basis names."""

from __future__ import annotations

import ctypes
import os
import re
import warnings
from typing import Any

from molecular_qubits.structure.molecule import Molecule, real_number, whole_number
from shared.artifacts import sha256_file
from shared.config import suggestion

COMMON_FUNCTIONALS = (
    "b3lyp", "pbe0", "cam-b3lyp", "bhandhlyp", "pbe", "r2scan", "blyp", "bp86", "tpss", "tpssh", "m06-2x", "m06",
    "wb97x", "wb97x-v", "wb97m-v", "hse06", "scan", "b97-d", "lc_wpbe", "hf",
)  # fmt: skip
"""Names that are suggested for an unknown functional; every name of PySCF is accepted."""

COMMON_BASES = (
    "sto-3g", "3-21g", "6-31g", "6-31g*", "6-31g**", "6-31+g*", "6-311g", "6-311g*", "6-311g**", "6-311++g**",
    "def2-svp", "def2-svpd", "def2-tzvp", "def2-tzvpp", "def2-tzvpd", "def2-qzvp", "cc-pvdz", "cc-pvtz", "cc-pvqz",
    "aug-cc-pvdz", "aug-cc-pvtz", "pcseg-1", "pcseg-2", "iglo3",
)  # fmt: skip
"""Names that are suggested for an unknown basis set; every name of PySCF is accepted."""

_NO_FUNCTIONAL = re.compile(r"(?i)\b(lda|gga|mgga)_k_|(^|[,+*])\s*\d+\s*($|[,+-])")
"""What PySCF reads though it is none for exchange and correlation: kinetic energies, and bare numbers, by which it
means functionals of that number: 'm06-2' would be M06 less Wigner's correlation."""

_POTENTIALS = ("gth", "ccecp", "bfd", "qavgvszp")
"""Beginnings of the names of PySCF's basis sets whose potentials have another name than the basis."""

LEAST_CONV_TOL = 1e-13
"""Smallest change of the energy in hartree that double precision can show of a small molecule."""

FITTED_FROM_ATOMS = 20
"""Number of atoms from which on the density is fitted unless said otherwise."""


def check_method(molecule: Molecule, xc: str, basis: str, name: str = "basis") -> None:
    """Raise a `ValueError` if PySCF does not know the functional, or the basis (argument `name`) for an element, or if
    they bring what must be asked for elsewhere or is not there: dispersion, and potentials in place of inner electrons.
    """
    from pyscf.dft import libxc
    from pyscf.scf.dispersion import parse_dft

    if not isinstance(xc, str):
        raise ValueError(f"Argument `xc` must be the name of a functional such as 'b3lyp', but is {xc!r}.")
    if xc.lower() != "hf":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dispersion = parse_dft(xc)[2]
            except NotImplementedError:
                dispersion = "a dispersion"
        if dispersion is not None:
            raise ValueError(
                f"Argument `xc` must name a functional without dispersion, but is {xc!r}, which brings {dispersion}. "
                "Ask for dispersion by its own argument, `dispersion`."
            )
        try:
            if not xc.strip(" ,"):
                raise ValueError
            components = libxc.parse_xc(xc)[1]
            if _NO_FUNCTIONAL.search(xc) or any(factor < 0 for _, factor in components):
                raise ValueError
        except (KeyError, ValueError):
            raise ValueError(
                f"Argument `xc` must be 'hf' or a functional known to PySCF such as 'b3lyp', but is {xc!r}."
                f"{suggestion(xc.lower(), COMMON_FUNCTIONALS)}"
            ) from None
        if any(not _has_energy(int(number)) for number, _ in components):
            raise ValueError(
                f"Argument `xc` must be a functional that has an energy, but {xc!r} is a potential only. Take for "
                "instance 'b3lyp'."
            )
        if libxc.needs_laplacian(xc):
            raise ValueError(
                f"Argument `xc` must be a functional without the Laplacian of the density, which PySCF does not have "
                f"for open shells, but is {xc!r}. Take for instance 'scan' or 'r2scan'."
            )
    check_basis(molecule, basis, name)


def check_basis(molecule: Molecule, basis: str, name: str = "basis") -> None:
    """Raise a `ValueError` if PySCF has no basis set of this name (argument `name`) for all electrons of an element."""
    from pyscf import gto

    if not isinstance(basis, str):
        raise ValueError(f"Argument `{name}` must be the name of a basis set such as '6-31g*', but is {basis!r}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name_only = basis.lower().translate(str.maketrans("", "", "-_ "))
        if name_only.startswith("sap") or name_only.endswith(("fit", "ri")):  # atomic potentials, density fitting, RI
            raise ValueError(f"Argument `{name}` must be a basis set for orbitals, but {basis!r} is an auxiliary one.")
        for symbol in sorted(set(molecule.symbols)):
            if not _has_basis(basis, symbol):
                others = [known for known in COMMON_BASES if known != basis.lower() and _has_basis(known, symbol)]
                here = ", which has none for this element" if any(_has_basis(basis, x) for x in ("H", "C")) else ""
                raise ValueError(
                    f"Argument `{name}` must be a PySCF basis set for {symbol}, such as 'def2-svp', but is {basis!r}"
                    f"{here}.{suggestion(basis.lower(), others)}"
                )
            try:
                replaced = name_only.startswith(_POTENTIALS) or bool(gto.basis.load_ecp(basis, symbol))
            except Exception:  # the basis has no potentials at all
                replaced = False
            if replaced:
                raise ValueError(
                    f"Argument `{name}` must be a basis set for all electrons, but {basis!r} replaces the inner ones "
                    f"of {symbol} by a potential, which is not supported. Take for instance 'def2-svp'."
                )


def _has_energy(number: int) -> bool:
    """Return whether a functional of libxc has an energy; where it has none, libxc ends the process when asked."""
    from pyscf.dft import libxc

    library = libxc._itrf
    library.xc_func_alloc.restype = ctypes.c_void_p
    functional = ctypes.c_void_p(library.xc_func_alloc())
    library.xc_func_init(functional, ctypes.c_int(number), ctypes.c_int(2))
    flags = int(library.xc_func_info_get_flags(ctypes.c_void_p(library.xc_func_get_info(functional))))
    library.xc_func_end(functional)
    library.xc_func_free(functional)
    return bool(flags & 1)


def _has_basis(basis: str, symbol: str) -> bool:
    from pyscf import gto

    try:
        return bool(gto.basis.load(basis, symbol))
    except Exception:  # PySCF raises several types for an unknown name
        return False


def outside_files(*bases: str | None) -> dict[str, Any]:
    """Return names and hashes of the files that PySCF's results depend on: its configuration, basis sets from files.

    Without such files, as usual, the dictionary is empty.
    """
    from pyscf import __config__

    paths = [__config__.conf_file, *(basis for basis in bases if basis is not None and os.path.isfile(basis))]
    found = {str(path): sha256_file(path) for path in paths if path is not None}
    return {"files": found} if found else {}


def check_accuracy(grid_level: int, conv_tol: float, max_cycle: int) -> tuple[int, int]:
    """Return grid level and largest number of cycles as integers after checking them and the convergence threshold."""
    level = whole_number(grid_level, "Argument `grid_level`")
    if level not in range(10):
        raise ValueError(f"Argument `grid_level` must be an integer from 0 to 9, but is {grid_level!r}.")
    if not LEAST_CONV_TOL <= real_number(conv_tol, "Argument `conv_tol`") <= 1e-3:
        raise ValueError(
            f"Argument `conv_tol` must be between {LEAST_CONV_TOL:g} and 1e-3 hartree, but is {conv_tol!r}."
        )
    cycles = whole_number(max_cycle, "Argument `max_cycle`")
    if cycles < 1:
        raise ValueError(f"Argument `max_cycle` must be at least 1, but is {max_cycle!r}.")
    return level, cycles


def check_room(molecule: Molecule, multiplicity: int, basis: str, name: str = "basis") -> None:
    """Raise a `ValueError` if a basis (argument `name`) has fewer functions than there are α electrons."""
    n_alpha = (molecule.n_electrons + multiplicity - 1) // 2
    n_functions = build_mole(molecule, basis, molecule.n_electrons % 2).nao
    if n_functions < n_alpha:
        raise ValueError(
            f"Argument `{name}` must have a function for each of the {n_alpha} α electrons of multiplicity "
            f"{multiplicity}, but {basis!r} has {n_functions}. Take a larger one, or fewer unpaired electrons."
        )


def build_mole(molecule: Molecule, basis: str, n_unpaired: int | None = None) -> Any:
    """Return the PySCF ``Mole`` with ``n_unpaired`` α electrons more than β (from the multiplicity if ``None``)."""
    from pyscf import gto

    if isinstance(basis, str):  # not PySCF's own form, from `gto.basis`
        check_basis(molecule, basis)
    if n_unpaired is None:
        n_unpaired = 0 if molecule.multiplicity is None else molecule.multiplicity - 1
    return gto.M(
        atom=list(zip(molecule.symbols, molecule.coordinates, strict=True)),
        basis=basis,
        charge=molecule.charge,
        spin=n_unpaired,
        unit="Angstrom",
        verbose=0,
        max_memory=8000,
    )


def without_checkpoint_file(mean_field: Any) -> Any:
    """Return a PySCF field after closing and removing the temporary checkpoint file that it opens by itself."""
    handle = getattr(mean_field, "_chkfile", None)
    if handle is not None:
        handle.close()
    mean_field.chkfile = None
    return mean_field


def make_uks(mole: Any, xc: str, grid_level: int, density_fit: bool, auxbasis: str | None = None) -> Any:
    """Return an unrestricted Kohn-Sham (or, with ``xc="hf"``, Hartree-Fock) object of PySCF, not yet run."""
    from pyscf import dft, scf

    if xc.lower() == "hf":
        mean_field = without_checkpoint_file(scf.UHF(mole))
    else:
        mean_field = without_checkpoint_file(dft.UKS(mole))
        mean_field.xc = xc
        mean_field.grids.level = grid_level
    return mean_field.density_fit(auxbasis=fitting_basis(mole, xc, auxbasis)) if density_fit else mean_field


def fitting_basis(mole: Any, xc: str, auxbasis: str | None = None) -> str | dict[str, Any]:
    """Return what PySCF is to take as fitting basis: `auxbasis`, or else the one that belongs to the basis of `mole`,
    with even-tempered functions for elements that it lacks (where PySCF by itself stops).
    """
    from pyscf.df import addons

    if auxbasis is not None:
        return auxbasis
    chosen: str | None = addons.predefined_auxbasis(mole, mole.basis, xc)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySCF recommends another package where an element is not found
        if chosen is not None and all(_has_basis(chosen, symbol) for symbol in set(mole.elements)):
            return chosen
        made: dict[str, Any] = addons.make_auxbasis(mole)
    return made


def is_fitted(n_atoms: int, density_fit: bool | None, from_atoms: int = FITTED_FROM_ATOMS) -> bool:
    """Return whether the density is fitted: as asked for, or (``None``) from so many atoms on."""
    if density_fit is not None and not isinstance(density_fit, bool):
        raise ValueError(f"Argument `density_fit` must be True, False or None, but is {density_fit!r}.")
    return n_atoms >= from_atoms if density_fit is None else density_fit
