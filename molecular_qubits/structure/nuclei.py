"""Nuclear spins and g-factors of the isotopes up to krypton that have a spin.

Nuclei couple to the field as -mu_N g_n B.I, electrons as +mu_B B.g.S.

Source of the moments: N. J. Stone, Table of Nuclear Magnetic Dipole and Electric Quadrupole Moments, IAEA report
INDC(NDS)-0658 (2014), https://www-nds.iaea.org/publications/indc/indc-nds-0658.pdf; g_n is the moment in nuclear
magnetons divided by the spin.
"""

from dataclasses import dataclass

from molecular_qubits.units import BOHR_MAGNETON_J_PER_T, NUCLEAR_MAGNETON_J_PER_T
from shared.config import nearest


@dataclass(frozen=True)
class Isotope:
    """A nucleus with a magnetic moment.

    Attributes
    ----------
    symbol
        Mass number and element, ``"14N"``.
    spin
        Nuclear spin quantum number I.
    g_factor
        Nuclear g-factor: magnetic moment over the spin, in nuclear magnetons.
    """

    symbol: str
    spin: float
    g_factor: float


_TABLE = {
    "1H": (0.5, 5.58569468), "2H": (1, 0.8574382), "3H": (0.5, 5.95799369), "3He": (0.5, -4.25499544),
    "6Li": (1, 0.8220473), "7Li": (1.5, 2.170951), "9Be": (1.5, -0.78495), "10B": (3, 0.600215),
    "11B": (1.5, 1.7924326), "13C": (0.5, 1.4048236), "14N": (1, 0.40376100), "15N": (0.5, -0.56637768),
    "17O": (2.5, -0.757516), "19F": (0.5, 5.257736), "21Ne": (1.5, -0.441198), "23Na": (1.5, 1.478348),
    "25Mg": (2.5, -0.34218), "27Al": (2.5, 1.4566028), "29Si": (0.5, -1.11058), "31P": (0.5, 2.26320),
    "33S": (1.5, 0.429214), "35Cl": (1.5, 0.5479162), "37Cl": (1.5, 0.4560824), "39K": (1.5, 0.26098),
    "40K": (4, -0.324525), "41K": (1.5, 0.1432467), "43Ca": (3.5, -0.37637), "45Sc": (3.5, 1.35899),
    "47Ti": (2.5, -0.31539), "49Ti": (3.5, -0.315477), "50V": (6, 0.5576148), "51V": (3.5, 1.47106),
    "53Cr": (1.5, -0.31636), "55Mn": (2.5, 1.3813), "57Fe": (0.5, 0.1809), "59Co": (3.5, 1.322),
    "61Ni": (1.5, -0.50001), "63Cu": (1.5, 1.4824), "65Cu": (1.5, 1.5878), "67Zn": (2.5, 0.350192),
    "69Ga": (1.5, 1.34439), "71Ga": (1.5, 1.70818), "73Ge": (4.5, -0.1954373), "75As": (1.5, 0.95965),
    "77Se": (0.5, 1.07008), "79Br": (1.5, 1.404267), "81Br": (1.5, 1.513708), "83Kr": (4.5, -0.215704),
}  # fmt: skip

ISOTOPES: dict[str, Isotope] = {symbol: Isotope(symbol, *values) for symbol, values in _TABLE.items()}
"""Isotopes by symbol, ``"14N"``."""

DEFAULT_ISOTOPES: dict[str, str] = {
    "H": "1H", "He": "3He", "Li": "7Li", "Be": "9Be", "B": "11B", "C": "13C", "N": "14N", "O": "17O", "F": "19F",
    "Ne": "21Ne", "Na": "23Na", "Mg": "25Mg", "Al": "27Al", "Si": "29Si", "P": "31P", "S": "33S", "Cl": "35Cl",
    "K": "39K", "Ca": "43Ca", "Sc": "45Sc", "Ti": "47Ti", "V": "51V", "Cr": "53Cr", "Mn": "55Mn", "Fe": "57Fe",
    "Co": "59Co", "Ni": "61Ni", "Cu": "63Cu", "Zn": "67Zn", "Ga": "69Ga", "Ge": "73Ge", "As": "75As", "Se": "77Se",
    "Br": "79Br", "Kr": "83Kr",
}  # fmt: skip
"""The isotope taken for an element: the most abundant one that has a spin. Argon has none."""


def isotope(symbol: str, name: str = "isotope") -> Isotope:
    """Return the isotope of a symbol such as ``"14N"``.

    Raises
    ------
    ValueError
        If the table has no such isotope with a spin; the nearest symbol is named.
    """
    if symbol not in ISOTOPES:
        raise ValueError(
            f"Argument `{name}` must be an isotope with a nuclear spin, up to krypton, such as '14N', but was "
            f"{symbol!r}; {nearest(str(symbol), ISOTOPES)}"
        )
    return ISOTOPES[symbol]


def electron_scale_g(g_nuclear: float) -> float:
    """Return the g with which a nucleus enters mu_B B.g.I: -g_n mu_N / mu_B."""
    return -g_nuclear * NUCLEAR_MAGNETON_J_PER_T / BOHR_MAGNETON_J_PER_T
