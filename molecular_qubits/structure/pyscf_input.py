"""The molecule as PySCF wants it, and checks of functional and basis names."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molecular_qubits.structure.molecule import Molecule


def check_method(molecule: Molecule, xc: str, basis: str) -> None:
    """Raise a `ValueError` if PySCF does not know the functional, or the basis for one of the elements."""
    from pyscf import gto
    from pyscf.dft import libxc

    if xc.lower() != "hf":
        try:
            libxc.parse_xc(xc)
        except (KeyError, ValueError):
            raise ValueError(
                f"Argument `xc` must be 'hf' or a functional known to PySCF such as 'b3lyp', but is {xc!r}."
            ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for symbol in sorted(set(molecule.symbols)):
            try:
                known = bool(gto.basis.load(basis, symbol))
            except Exception:  # PySCF raises several types for an unknown name
                known = False
            if not known:
                raise ValueError(
                    f"Argument `basis` must be a PySCF basis set for {symbol}, such as '6-31g*', but is {basis!r}."
                )


def build_mole(molecule: Molecule, basis: str, n_unpaired: int | None = None) -> Any:
    """Return the PySCF ``Mole`` with ``n_unpaired`` α electrons more than β (from the multiplicity if ``None``)."""
    from pyscf import gto

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
