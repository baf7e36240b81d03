"""Atomic numbers and covalent radii of the elements up to krypton."""

_ORDER = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar",
    "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr",
)  # fmt: skip

ELEMENTS: dict[str, int] = {symbol: number for number, symbol in enumerate(_ORDER, start=1)}
"""Atomic number of each element symbol."""

_RADII = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06,
    2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16,
)  # fmt: skip

COVALENT_RADII_ANGSTROM: dict[str, float] = dict(zip(_ORDER, _RADII, strict=True))
"""Covalent radii in Å. Source: Cordero et al., Dalton Trans. 2008, 2832 (sp3 carbon; low-spin Mn, Fe, Co)."""
