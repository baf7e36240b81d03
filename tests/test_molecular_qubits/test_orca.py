"""Import of ORCA outputs: values, conventions and units; whatever leaves one open or contradicts itself is refused."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from molecular_qubits.electronic.orca import OrcaFormatError, read_orca
from molecular_qubits.electronic.projection import map_yamaguchi, project_j
from molecular_qubits.structure.nuclei import ISOTOPES
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
"""Written by us in the layout of ORCA 4 and 5, with round numbers."""

FORMALDEHYDE = """
-------------------
ELECTRONIC G-MATRIX
-------------------

Method             : SCF
Multiplicity       :   3
The g-matrix:
              2.0051422    0.0003780    0.0002741
              0.0006061    2.0052240    0.0004249
              0.0003157    0.0003996    2.0034366

Breakdown of the contributions
 gel          2.0023193    2.0023193    2.0023193
             ----------   ----------   ----------
 g(tot)       2.0033261    2.0046919    2.0057848 iso=  2.0046009
 Delta-g      0.0010068    0.0023726    0.0034655 iso=  0.0022817

-----------------------------------------
ELECTRIC AND MAGNETIC HYPERFINE STRUCTURE (4 nuclei)
-----------------------------------------

Number of nuclei to compute A(iso)       :     4
 -----------------------------------------------------------
 Nucleus   1C : A  : Isotope=   13 I=  0.5 P=134.1903 MHz/au**3
                Q  : Isotope=   13 I=  0.5 Q=  0.0000 barn
                HFC: iso  =YES dip=YES orb=YES gauge=YES
                EFG: fgrad=YES rho=YES
 -----------------------------------------------------------

 Total HFC matrix (all values in MHz):
 ----------------------------------------------------------------
                61.2676              -1.0208              -0.2779
                -1.0569             143.5740              15.2479
                -0.2846              15.2519              64.8586

 A(FC)          89.8955              89.8955              89.8955
             ----------           ----------           ----------
 A(Tot)         61.2445              62.0170             146.4386    A(iso)=   89.9001

 -----------------------------------------------------------
 Nucleus   3O : A  : Isotope=   17 I=  2.5 P=-72.3588 MHz/au**3
                Q  : Isotope=   17 I=  2.5 Q= -0.0256 barn
                HFC: iso  =YES dip=YES orb=YES gauge=YES
                EFG: fgrad=YES rho=YES
 -----------------------------------------------------------

 Total HFC matrix (all values in MHz):
 ----------------------------------------------------------------
                45.4214               4.5331              20.9042
                 4.5203             -20.5517              21.9813
                20.9018              21.9827            -128.1773

 A(FC)         -33.9113             -33.9113             -33.9113
             ----------           ----------           ----------
 A(Tot)        -17.3205              48.6560            -134.6431    A(iso)=  -34.4359
 Orientation:
  X           0.1271754            0.9858970           -0.1087820
  Y          -0.9772368            0.1057664           -0.1839066
  Z          -0.1698075            0.1296942            0.9769057

 Raw EFG matrix (all values in a.u.**-3):
 ------------------------------------------------------
              0.0015400       0.5563000      -0.0726372
"""
"""Lines of an ORCA 6.1.0 output: github.com/StollLab/EasySpin (MIT), tests/orca/v6.1.0/tripletformaldehyde.out."""

QUINOLINE = """
 Hartree-Fock type      HFTyp           .... UHF
 Total Charge           Charge          ....    0
 Multiplicity           Mult            ....    3

Warning: in a DFT calculation there is little theoretical justification to
         calculate <S**2> as in Hartree-Fock theory. We will do it anyways
         but you should keep in mind that the values have only limited relevance

Expectation value of <S**2>     :     2.031696

--------------------------   --------------------
FINAL SINGLE POINT ENERGY      -401.522690564163
--------------------------   --------------------

-----------------------------------------
ELECTRIC AND MAGNETIC HYPERFINE STRUCTURE
-----------------------------------------

 -----------------------------------------------------------
 Nucleus   0N : A:ISTP=   14 I=  1.0 P= 38.5677 MHz/au**3
                Q:ISTP=   14 I=  1.0 Q=  0.0204 barn
 -----------------------------------------------------------
 Solving for nuclear perturbation:
Forming RHS of the CP-SCF equations         ...

 Raw HFC matrix (all values in MHz):
 -----------------------------------
                -1.3570               0.0429               0.0000
                 0.0381              -1.7535              -0.0000
                 0.0000              -0.0000              22.3594

 A(FC)           6.4037               6.4037               6.4037
             ----------           ----------           ----------
 A(Tot)         -1.3530              -1.7576              22.3594    A(iso)=    6.4163
"""
"""Lines of an ORCA 5.0.4 output: the same source, tests/orca/quinoline_triplet.out."""

CALCIUM = """
ELECTRIC AND MAGNETIC HYPERFINE STRUCTURE (15 nuclei)
 Nucleus   0Ca: A  : Isotope=   43 I=  3.5 P=-35.9513 MHz/au**3

 Total HFC matrix (all values in MHz):
                 1.1000              -0.1000               0.0000
                -0.1000               1.3000               0.0000
                 0.0000               0.0000               1.2000
"""
"""Written by us in the layout of ORCA 6; P is that of the moment, -1.3173 nuclear magnetons (Stone 2005)."""

SILVER = """
ELECTRIC AND MAGNETIC HYPERFINE STRUCTURE
 Nucleus   0Ag: A:ISTP=  109 I=  0.5 P=-24.9680 MHz/au**3
 Raw HFC matrix (all values in MHz):
             -80.0000               0.0000               0.0000
               0.0000             -80.0000               0.0000
               0.0000               0.0000            -600.0000
 Nucleus   2N : A:ISTP=   14 I=  1.0 P= 38.5677 MHz/au**3
 Raw HFC matrix (all values in MHz):
              30.0000               0.0000               0.0000
               0.0000              40.0000               0.0000
               0.0000               0.0000              30.0000
"""
"""Written by us in the layout of ORCA 4 and 5."""
END = "\n                             ****ORCA TERMINATED NORMALLY****\n"


def test_a_coupling_is_read_with_its_convention_and_projected():
    found = read_orca(COPPER + END).exchange
    collapsed = replace(found, s2_broken_symmetry=0.0)
    with pytest.raises(ValueError, match=r"<S\^2> near 1\.00, .* but has 0\.0000: it collapsed"):
        collapsed.project()
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
        (COPPER, ("0.9478", "2.0054"), "a lower <S"),
        (COPPER, ("=   1.0\n", "=   0.0\n"), "or there is none"),
        (COPPER, ("J(2) =", "J(x) ="), r"J\(2\)"),
        (COPPER, ("cm**-1 (ANTI", "K (ANTI"), "in eV and cm"),
        (COPPER, ("<S**2>(BrokenSym)", "<S2>"), "BrokenSym"),
        (TRIPLET, ("D   =     0.780187  cm**-1", "D = 23389 MHz"), "has no unit"),
        (TRIPLET, ("D   =     0.780187", "D   =     0.5"), "another unit or damaged"),
        (TRIPLET, ("   0.000000    0.520000    0.010000\n", ""), "3 by 3"),
        (TRIPLET, ("(all values in MHz)", "(all values in Gauss)"), "state its unit"),
        (TRIPLET, ("A(iso)=  250.0000", "A(iso)=  25.0000"), r"A\(iso\)"),
        (TRIPLET, ("ISTP=   13 I=  0.5 P", "ISTP=   13 I=  1.5 P"), "I = 1.5"),
        (TRIPLET, ("A:ISTP=   13", "A:ISTP=   12"), "12C cannot"),
        (TRIPLET, ("P=134.1903", "P=533.5514"), "13C has 1.40482"),
        (TRIPLET, (" : A:ISTP=   13", " : A;13"), "0C : A;13"),
        (FORMALDEHYDE, ("iso=  2.0046009", "iso=  2.0023193"), "g-matrix prints iso"),
        (FORMALDEHYDE, ("Total HFC matrix (all values in MHz)", "HFC tensor, MHz"), "1C : A  : Iso.* layout"),
        (QUINOLINE, ("-401.522690564163", "-401.52 (SCF not fully converged!)"), "must converge"),
        (QUINOLINE, ("-401.522690564163", "none"), "must be a number"),
    ],
)
def test_what_leaves_a_convention_open_or_contradicts_itself_is_refused(text, change, words):
    assert change[0] in text
    with pytest.raises(OrcaFormatError, match=words):
        read_orca(text.replace(*change) + END)


def test_orca_6_prints_the_same_in_other_words():
    found = read_orca(FORMALDEHYDE + END)
    carbon, oxygen = found.hyperfine
    assert (carbon.atom, carbon.isotope, oxygen.atom, oxygen.isotope) == (1, "13C", 3, "17O")
    assert np.linalg.eigvalsh(carbon.tensor_mhz) == pytest.approx([61.2445, 62.0170, 146.4386], abs=1e-3)  # A(Tot)
    assert np.linalg.eigvalsh(oxygen.tensor_mhz) == pytest.approx([-134.6431, -17.3205, 48.6560], abs=1e-3)
    assert oxygen.isotropic_mhz == pytest.approx(-34.4359, abs=1e-4)
    older = FORMALDEHYDE.replace("A  : Isotope=", "A:ISTP=").replace("Total HFC", "Raw HFC")
    for one, other in zip(read_orca(older + END).hyperfine, found.hyperfine, strict=True):
        assert np.array_equal(one.tensor_mhz, other.tensor_mhz)


def test_the_g_matrix_has_the_principal_values_that_are_printed():
    found = read_orca(FORMALDEHYDE + END)
    g = found.g_matrix
    assert g[0, 1] == 0.0003780  # rows and columns as printed
    assert g[1, 0] == 0.0006061
    assert np.sqrt(np.linalg.eigvalsh(g @ g.T)) == pytest.approx([2.0033261, 2.0046919, 2.0057848], abs=2e-7)
    assert found.g_isotropic == pytest.approx(2.0046009, abs=1e-7)
    assert read_orca(QUINOLINE + END).g_isotropic is None


def test_energy_spin_and_multiplicity_are_the_last_ones():
    first = QUINOLINE.replace("-401.5", "-401.4").replace("2.031696", "2.5").replace("....    3", "....    5")
    found = read_orca(first + QUINOLINE + END)
    assert (found.energy_hartree, found.s2, found.multiplicity) == (-401.522690564163, 2.031696, 3)
    assert found.hyperfine[0].isotope == "14N"
    assert found.hyperfine[0].isotropic_mhz == pytest.approx(6.4163, abs=1e-4)
    assert read_orca(QUINOLINE.replace("-401.522690564163", "0.000000000000") + END).energy_hartree is None


@pytest.mark.parametrize("between", ["O   R   C   A\n", "$$$$$$$$$$$$$$$$  JOB NUMBER  2 $$$$$$$$$$$$$$\n"])
def test_everything_is_of_the_last_job(between):
    """No tensor of one geometry beside another one, no <S^2> of one state beside the energy of another."""
    found = read_orca(TRIPLET + QUINOLINE + END + between + COPPER + END)
    assert (found.energy_hartree, found.s2, found.multiplicity, found.molecule) == (None,) * 4
    assert found.zfs_cm1 is None
    assert found.hyperfine == ()
    assert found.exchange == read_orca(COPPER + END).exchange


def test_the_geometry_has_the_multiplicity_of_its_state():
    assert read_orca(TRIPLET + END).molecule.multiplicity is None
    found = read_orca(TRIPLET + "\n Multiplicity           Mult            ....    3\n" + END)
    assert found.molecule.multiplicity == found.multiplicity == 3


def test_two_runs_give_the_coupling_that_orca_prints():
    line = "FINAL SINGLE POINT ENERGY     {}\nExpectation value of <S**2>     :     {}\n"
    states = (("-3947.379193", 2.0054), ("-3947.384041", 0.9478))  # E and <S**2> of COPPER
    runs = [read_orca(line.format(*state) + END) for state in states]
    energies_cm1 = [(run.energy_hartree - runs[0].energy_hartree) * HARTREE_TO_CM1 for run in runs]
    j_cm1 = map_yamaguchi(energies_cm1, [run.s2 for run in runs], (0.5, 0.5), [(1, 1), (1, -1)]).j_cm1[0, 1]
    assert j_cm1 == pytest.approx(read_orca(COPPER + END).exchange.printed_cm1[2], abs=0.3)  # 1e-6 Eh is 0.2 cm^-1


def test_a_nucleus_outside_the_table_takes_its_g_factor_from_p():
    (calcium,) = read_orca(CALCIUM + END).hyperfine
    assert (calcium.isotope, calcium.nuclear_spin) == ("43Ca", 3.5)
    assert calcium.nuclear_g == ISOTOPES["43Ca"].g_factor == pytest.approx(-1.3173 / 3.5, rel=1e-4)
    assert "109Ag" not in ISOTOPES
    silver, nitrogen = read_orca(SILVER + END).hyperfine
    assert silver.nuclear_g == pytest.approx(-0.13069 / 0.5, rel=1e-3)  # μ = -0.13069 μ_N, Stone 2005
    assert (nitrogen.isotope, nitrogen.nuclear_g) == ("14N", ISOTOPES["14N"].g_factor)


def test_elements_that_molecules_do_not_have_cost_only_the_geometry():
    assert read_orca(TRIPLET + END).molecule is not None
    ruthenium = re.sub(r"(?m)^  C ", "  Ru", TRIPLET, count=1)
    assert ruthenium != TRIPLET
    with pytest.warns(UserWarning, match="holds Ru, beyond krypton"):
        found = read_orca(ruthenium + END)
    assert found.molecule is None
    assert np.array_equal(found.zfs_cm1, read_orca(TRIPLET + END).zfs_cm1)


def test_a_geometry_is_not_cut_at_a_row_that_cannot_be_read():
    damaged = re.sub(r"(?m)^  C ", "  C:", TRIPLET, count=1)
    with pytest.raises(OrcaFormatError, match="A row of the geometry must be an element and x, y, z, but is 'C: "):
        read_orca(damaged + END)


@pytest.mark.parametrize("change", [("P=-24.9680 MHz/au**3", ""), ("I=  0.5 P=-24.9", "I=  0.0 P=  0.0")])
def test_a_nucleus_without_a_g_factor_is_left_out_and_named_and_the_rest_is_read(change):
    assert change[0] in SILVER
    with pytest.warns(UserWarning, match="0Ag .109Ag. is left out"):
        found = read_orca(COPPER + SILVER.replace(*change) + END)
    assert found.exchange.gap_cm1 == -1063.881
    assert [coupling.isotope for coupling in found.hyperfine] == ["14N"]


def test_a_hyperfine_section_that_cannot_be_read_is_not_passed_over():
    heading = "ELECTRIC AND MAGNETIC HYPERFINE STRUCTURE\n"
    with pytest.raises(OrcaFormatError, match="none is found"):
        read_orca(heading + " Nucleus   0C : A in some other words\n" + END)
    nucleus = " Nucleus   1H : A:ISTP=    1 I=  0.5 P=533.5514 MHz/au**3\n"
    assert read_orca(heading + nucleus + " Raw EFG matrix (all values in a.u.**-3):\n" + END).hyperfine == ()


def test_a_string_of_one_line_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("job.out").write_text(COPPER + END, encoding="utf-8")
    assert read_orca("job.out").exchange == read_orca(COPPER + END).exchange
    with pytest.raises(FileNotFoundError, match=r"no ORCA output 'jop\.out'"):
        read_orca("jop.out")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_from_windows_is_read(tmp_path, encoding):
    path = tmp_path / "job.out"
    path.write_bytes((TRIPLET + END).replace("\n", "\r\n").encode(encoding))
    found, wanted = read_orca(path), read_orca(TRIPLET + END)
    np.testing.assert_array_equal(found.zfs_cm1, wanted.zfs_cm1)
    np.testing.assert_array_equal(found.molecule.coordinates, wanted.molecule.coordinates)


def test_other_texts_and_broken_runs_are_refused():
    with pytest.raises(OrcaFormatError, match="must be an ORCA output"):
        read_orca("Gaussian 16\n")
    with pytest.raises(OrcaFormatError, match="terminate normally"):
        read_orca("O   R   C   A" + COPPER)
    banner, failed = "O   R   C   A\n", "ORCA finished by error termination in SCF\n"
    good = banner + COPPER + END
    for text in (good + banner + COPPER, good + failed, failed + good):
        with pytest.raises(OrcaFormatError, match="Every ORCA run of an output must terminate normally"):
            read_orca(text)
    assert read_orca(good + good).exchange == read_orca(good).exchange
    empty = read_orca(END)
    assert empty.exchange is empty.zfs_cm1 is empty.molecule is None
    assert empty.hyperfine == ()
