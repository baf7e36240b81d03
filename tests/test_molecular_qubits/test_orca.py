"""Import of ORCA outputs: values, conventions and units; whatever leaves one open or contradicts itself is refused."""

import numpy as np
import pytest

from molecular_qubits.electronic.orca import OrcaFormatError, read_orca
from molecular_qubits.electronic.projection import project_j
from molecular_qubits.units import HARTREE_TO_CM1

COPPER = """
------------------------------------------
BROKEN SYMMETRY MAGNETIC COUPLING ANALYSIS
------------------------------------------

S(High-Spin)      =   1.0
<S**2>(High-Spin) =   2.0054
<S**2>(BrokenSym) =   0.9478
E(High-Spin)      = -3947.379193 Eh
E(BrokenSym)      = -3947.384041 Eh
E(High-Spin)-E(BrokenSym)= 0.1319 eV   1063.881 cm**-1 (ANTIFERROMAGNETIC coupling)

          ---------------------------------------------------------
          | Spin-Hamiltonian Analysis based on H(HDvV)= -2J*SA*SB |
    -------                                                       -----------
    | J(1) =   -1063.88 cm**-1    (from -(E[HS]-E[BS])/Smax**2)             |
    | J(2) =    -531.94 cm**-1    (from -(E[HS]-E[BS])/(Smax*(Smax+1))      |
    | J(3) =   -1005.96 cm**-1    (from -(E[HS]-E[BS])/(<S**2>HS-<S**2>BS)) |
    -------------------------------------------------------------------------
"""
"""As printed in the public documentation of the ioChem-BD import templates."""

TRIPLET = """
---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  C      0.000000    0.000000   -0.108700
  H      0.990000    0.000000    0.326100
  H     -0.990000    0.000000    0.326100

 Total Charge           Charge          ....    0

---------------------------
ZERO-FIELD-SPLITTING TENSOR
---------------------------

raw-matrix :
  -0.240000    0.000000    0.000000
   0.000000    0.520000    0.010000
   0.000000    0.010000   -0.280000
diagonalized D matrix :
  -0.280125   -0.240000    0.520125

D   =     0.780187  cm**-1
E/D =     0.025700

-----------------------------------------
ELECTRIC AND MAGNETIC HYPERFINE STRUCTURE
-----------------------------------------

-----------------------------------------------------------
 Nucleus   0C : A:ISTP=   13 I=  0.5 P=134.1903 MHz/au**3
                Q:ISTP=   13 I=  0.5 Q=  0.0000 barn
-----------------------------------------------------------
 Raw HFC matrix (all values in MHz):
 ------------------------------
             200.0000               0.0000               0.0000
               0.0000             320.0000               4.0000
               0.0000               6.0000             230.0000

 A(FC)         250.0000           250.0000           250.0000
 A(SD)         -50.0000           -20.0000            70.0000
               ----------         ----------         ----------
 A(Tot)        200.0000           230.0000           320.0000    A(iso)=  250.0000
-----------------------------------------------------------
 Nucleus   1H : A:ISTP=    1 I=  0.5 P=533.5514 MHz/au**3
                Q:ISTP=    2 I=  1.0 Q=  0.0029 barn
-----------------------------------------------------------
 Raw HFC matrix (all values in MHz):
 ------------------------------
             -30.0000               5.0000               0.0000
               5.0000             -10.0000               0.0000
               0.0000               0.0000             -20.0000
"""
END = "\n                             ****ORCA TERMINATED NORMALLY****\n"


def test_a_coupling_is_read_with_its_convention_and_projected():
    found = read_orca(COPPER + END).exchange
    assert found.gap_cm1 == -1063.881
    assert found.printed_cm1 == (-1063.88, -531.94, -1005.96)
    values = found.project((0.5, 0.5))
    assert values.noodleman_cm1 == pytest.approx(found.printed_cm1[0], abs=0.01)
    assert values.unprojected_cm1 == pytest.approx(found.printed_cm1[1], abs=0.01)
    assert values.yamaguchi_cm1 == pytest.approx(found.printed_cm1[2], abs=0.05)
    ours = project_j(0.0, found.gap_cm1 / HARTREE_TO_CM1, 2.0054, 0.9478)
    assert values.yamaguchi_cm1 == pytest.approx(ours.yamaguchi_cm1, rel=1e-10)
    with pytest.raises(ValueError, match="must add to 1"):
        found.project((0.5, 1.0))


def test_tensors_come_in_the_frame_of_the_printed_geometry():
    found = read_orca(TRIPLET + END)
    assert found.molecule.symbols == ("C", "H", "H")
    assert found.molecule.coordinates[1] == (0.99, 0.0, 0.3261)
    assert found.exchange is None
    assert np.trace(found.zfs_cm1) == pytest.approx(0, abs=1e-12)
    assert found.zfs_cm1[1, 2] == found.zfs_cm1[2, 1] == 0.01
    carbon, hydrogen = found.hyperfine
    assert (carbon.atom, carbon.isotope, carbon.isotropic_mhz) == (0, "13C", 250.0)
    assert carbon.tensor_mhz[1, 2] == 5.0  # symmetric part
    assert hydrogen.isotope == "1H"
    assert hydrogen.isotropic_mhz == pytest.approx(-20)


def test_a_file_of_one_system_feeds_the_spin_system(tmp_path):
    from molecular_qubits import SpinSystem

    path = tmp_path / "triplet.out"
    path.write_text(TRIPLET + END, encoding="utf-8")
    found = read_orca(path)
    system = SpinSystem([1.0], zfs={0: found.zfs_cm1})
    levels = np.sort(system.hamiltonian(0.0).eigenenergies())
    assert len(levels) == 3
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_orca(tmp_path / "nothing.out")


@pytest.mark.parametrize(
    ("text", "change", "words"),
    [
        (COPPER, ("H(HDvV)= -2J*SA*SB", "H"), "state its Hamiltonian"),
        (COPPER, ("-1005.96", "-2011.92"), "does not follow"),
        (COPPER, ("J(2) =", "J(x) ="), r"J\(2\)"),
        (COPPER, ("cm**-1 (ANTI", "K (ANTI"), "in eV and cm"),
        (COPPER, ("<S**2>(BrokenSym)", "<S2>"), "BrokenSym"),
        (TRIPLET, ("D   =     0.780187  cm**-1", "D = 23389 MHz"), "has no unit"),
        (TRIPLET, ("D   =     0.780187", "D   =     0.5"), "another unit or damaged"),
        (TRIPLET, ("   0.000000    0.520000    0.010000\n", ""), "3 by 3"),
        (TRIPLET, ("(all values in MHz)", "(all values in Gauss)"), "state its unit"),
        (TRIPLET, ("A(iso)=  250.0000", "A(iso)=  25.0000"), r"A\(iso\)"),
        (TRIPLET, ("ISTP=   13 I=  0.5 P", "ISTP=   13 I=  1.5 P"), "I = 1.5"),
        (TRIPLET, ("A:ISTP=   13", "A:ISTP=   12"), "12C"),
    ],
)
def test_what_leaves_a_convention_open_or_contradicts_itself_is_refused(text, change, words):
    assert change[0] in text
    with pytest.raises(OrcaFormatError, match=words):
        read_orca(text.replace(*change) + END)


def test_other_texts_and_broken_runs_are_refused():
    with pytest.raises(OrcaFormatError, match="must be an ORCA output"):
        read_orca("Gaussian 16")
    with pytest.raises(OrcaFormatError, match="terminate normally"):
        read_orca("O   R   C   A" + COPPER)
    empty = read_orca(END)
    assert empty.exchange is empty.zfs_cm1 is empty.molecule is None
    assert empty.hyperfine == ()
