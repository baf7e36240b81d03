"""Units and constants of the package, defined once.

Energies are stored in cm^-1, fields in tesla, times in ns; Hamiltonians handed to the dynamics are angular frequencies
in rad/ns. The exchange convention is H = -2 J S_i.S_j with J > 0 ferromagnetic.

Source of the constants: CODATA 2022, https://physics.nist.gov/cuu/Constants (through ``math`` only, so that importing
this module costs nothing).
"""

import math

PLANCK_J_S = 6.62607015e-34
BOLTZMANN_J_PER_K = 1.380649e-23
SPEED_OF_LIGHT_M_PER_S = 299792458.0
ELEMENTARY_CHARGE_C = 1.602176634e-19
BOHR_MAGNETON_J_PER_T = 9.2740100657e-24
NUCLEAR_MAGNETON_J_PER_T = 5.0507837393e-27
AVOGADRO_PER_MOL = 6.02214076e23
HARTREE_J = 4.3597447222060e-18
BOHR_TO_ANGSTROM = 0.529177210544
FINE_STRUCTURE = 7.2973525643e-3
G_ELECTRON = 2.00231930436092
"""Magnitude of the free-electron g factor; spins couple to the field as +mu_B B.g.S."""

EXCHANGE_CONVENTION = "H = -2 J S_i.S_j, J > 0 ferromagnetic, cm^-1"
"""Stated in every file of couplings."""

CM1_J = PLANCK_J_S * SPEED_OF_LIGHT_M_PER_S * 100.0
"""Energy of 1 cm^-1 in joule."""

HARTREE_TO_CM1 = HARTREE_J / CM1_J
EV_TO_CM1 = ELEMENTARY_CHARGE_C / CM1_J
KCAL_PER_MOL_TO_CM1 = 4184.0 / AVOGADRO_PER_MOL / CM1_J
KELVIN_TO_CM1 = BOLTZMANN_J_PER_K / CM1_J
"""Boltzmann constant in cm^-1 per kelvin."""

CM1_TO_GHZ = SPEED_OF_LIGHT_M_PER_S * 100.0 * 1e-9
CM1_TO_RAD_PER_NS = 2.0 * math.pi * CM1_TO_GHZ
"""Angular frequency (rad/ns) of an energy of 1 cm^-1."""

MU_B_CM1_PER_T = BOHR_MAGNETON_J_PER_T / CM1_J
MU_B_RAD_PER_NS_PER_T = MU_B_CM1_PER_T * CM1_TO_RAD_PER_NS
"""Bohr magneton over h-bar: rad/ns per tesla and unit g."""

MHZ_TO_CM1 = 1e-3 / CM1_TO_GHZ
"""Energy in cm^-1 of a frequency of 1 MHz."""

MILLITESLA_TO_CM1 = 1e-3 * G_ELECTRON * MU_B_CM1_PER_T
"""Energy in cm^-1 of a coupling of 1 mT, the splitting of a free electron in a field of 1 mT."""


def cm1_to_mev(energy_cm1: float) -> float:
    """Convert an energy from cm^-1 to meV."""
    return energy_cm1 / EV_TO_CM1 * 1e3


def cm1_to_kelvin(energy_cm1: float) -> float:
    """Convert an energy from cm^-1 to the temperature E / k_B in K."""
    return energy_cm1 / KELVIN_TO_CM1


def cm1_to_ghz(energy_cm1: float) -> float:
    """Convert an energy from cm^-1 to the frequency E / h in GHz."""
    return energy_cm1 * CM1_TO_GHZ


def cm1_to_rad_per_ns(energy_cm1: float) -> float:
    """Convert an energy from cm^-1 to the angular frequency E / h-bar in rad/ns."""
    return energy_cm1 * CM1_TO_RAD_PER_NS
