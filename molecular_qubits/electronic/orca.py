"""Import of ORCA outputs: energy and <S^2>, exchange, zero-field splitting, g-matrix, hyperfine couplings, geometry.

The layout is that of ORCA 3 to 6. A number is taken only if its convention and unit are printed beside it and it agrees
with what else is printed: a coupling without its Hamiltonian or a tensor without its unit is refused.
"""

from __future__ import annotations

import codecs
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from molecular_qubits.electronic.hyperfine import PROTON_ELECTRON_MASS_RATIO, HyperfineCoupling
from molecular_qubits.electronic.projection import ProjectedJ, project_j
from molecular_qubits.fields.alignments import S2_TOLERANCE, check_spins, separate_spin_s2
from molecular_qubits.structure.elements import ELEMENTS
from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.nuclei import ISOTOPES
from molecular_qubits.units import CM1_TO_GHZ, FINE_STRUCTURE, G_ELECTRON, HARTREE_TO_CM1

_NUMBER = r"([-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)"
_HAMILTONIAN = "-2J*SA*SB"
_P_OF_G = G_ELECTRON * FINE_STRUCTURE**2 / 4 / PROTON_ELECTRON_MASS_RATIO * HARTREE_TO_CM1 * CM1_TO_GHZ * 1e3
"""ORCA prints P = g_e g_N β_e β_N of each nucleus in MHz bohr^3: this times g_N."""


class OrcaFormatError(ValueError):
    """The output does not hold what is wanted, or not in a convention that is stated."""


@dataclass(frozen=True)
class OrcaExchange:
    """Broken-symmetry analysis of two centres: E(BS) - E(HS) in cm^-1, <S^2> of both, spin of the high-spin state.

    ``printed_cm1`` holds J(1), J(2) and J(3) as printed, H = -2 J S_A.S_B. J(1) and J(2) divide by S_max^2 and
    S_max (S_max + 1), which for unequal spins are not the projections of this package: use `project`.
    """

    gap_cm1: float
    s2_high_spin: float
    s2_broken_symmetry: float
    spin_high: float
    printed_cm1: tuple[float, float, float]

    def project(self, spins: Sequence[float] = (0.5, 0.5)) -> ProjectedJ:
        """Return the three projections as `project_j` does.

        Raises
        ------
        ValueError
            If the spins do not add to that of the high-spin state, or <S^2> of the broken-symmetry one is not near that
            of separate spins.
        """
        s1, s2 = check_spins(spins, 2)
        if s1 + s2 != self.spin_high:
            raise ValueError(f"Argument `spins` must add to {self.spin_high:g}, the high-spin state, but is {spins!r}.")
        separate = separate_spin_s2((1, -1), (s1, s2))
        if abs(self.s2_broken_symmetry - separate) > S2_TOLERANCE:
            raise ValueError(
                f"The broken-symmetry state must have <S^2> near {separate:.2f}, that of separate spins {spins!r} "
                f"(tolerance {S2_TOLERANCE}), but has {self.s2_broken_symmetry:.4f}: it collapsed to another state."
            )
        gap_hartree = self.gap_cm1 / HARTREE_TO_CM1
        return project_j(0.0, gap_hartree, self.s2_high_spin, self.s2_broken_symmetry, spins=(s1, s2))


@dataclass(frozen=True)
class OrcaOutput:
    """What an output holds; ``None`` or empty where it holds nothing of the kind.

    Attributes
    ----------
    molecule, exchange
        Last geometry; broken-symmetry analysis.
    zfs_cm1
        Zero-field splitting (3, 3) in cm^-1, traceless, in the frame of ``molecule`` as all tensors here.
    hyperfine
        Couplings in MHz, H = S.A.I.
    energy_hartree, s2
        Final single-point energy in hartree and the last <S^2> of an unrestricted determinant: after %scf BrokenSym or
        FlipSpin those of the broken-symmetry one.
    multiplicity
        2S + 1, the last that is printed with the SCF settings.
    g_matrix
        (3, 3), not symmetric in general, H = μ_B B.g.S.

    Examples
    --------
    J of two centres of spin 1/2 from a high-spin run and a broken-symmetry run; more centres take more runs and rows::

        runs = [read_orca("high_spin.out"), read_orca("broken_symmetry.out")]
        energies_cm1 = [(run.energy_hartree - runs[0].energy_hartree) * HARTREE_TO_CM1 for run in runs]
        map_yamaguchi(energies_cm1, [run.s2 for run in runs], (0.5, 0.5), [(1, 1), (1, -1)]).j_cm1[0, 1]
    """

    molecule: Molecule | None
    exchange: OrcaExchange | None
    zfs_cm1: np.ndarray | None
    hyperfine: tuple[HyperfineCoupling, ...]
    energy_hartree: float | None = None
    s2: float | None = None
    multiplicity: int | None = None
    g_matrix: np.ndarray | None = None

    @property
    def g_isotropic(self) -> float | None:
        """Mean of the principal values of the g-matrix, the roots of the eigenvalues of g.g^T."""
        return None if self.g_matrix is None else float(np.linalg.svd(self.g_matrix, compute_uv=False).mean())


def read_orca(source: str | os.PathLike[str]) -> OrcaOutput:
    """Read an ORCA output.

    Parameters
    ----------
    source
        Path (of one line, if it is a `str`) or text of an output (several lines). Of several jobs in one output
        everything is of the last, and of several geometries or analyses in that the last.

    Returns
    -------
    OrcaOutput
        Energy, <S^2>, exchange, tensors and geometry; a geometry with elements beyond krypton is left out with a
        warning. A nucleus that is not in `ISOTOPES` takes its g factor from the P
        that ORCA prints; one that has no spin or no P is left out with a warning.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OrcaFormatError
        If the text is not an ORCA output, did not end normally or converge, has hyperfine couplings in another layout,
        or a value has no stated convention or unit or disagrees with another value printed for the same thing.
    """
    if isinstance(source, str) and "\n" in source:
        text = source
    else:
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"There is no ORCA output {str(path)!r}.")
        content = path.read_bytes()
        marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # from PowerShell
        text = content.decode("utf-16" if marked else "utf-8", errors="replace").replace("\r\n", "\n")
    if "O   R   C   A" not in text and "ORCA TERMINATED" not in text:
        raise OrcaFormatError("Argument `source` must be an ORCA output, but it holds neither its banner nor its end.")
    if "ORCA TERMINATED NORMALLY" not in text:
        raise OrcaFormatError("The ORCA run did not terminate normally: run it to its end, or cut the output before.")
    if "O   R   C   A" in text.rpartition("ORCA TERMINATED NORMALLY")[2] or "finished by error termination" in text:
        raise OrcaFormatError(
            "Every ORCA run of an output must terminate normally, but one did not. Cut it from the output."
        )
    text = re.split(r"O   R   C   A|^[^\w\n]*JOB NUMBER +\d+[^\w\n]*$", text, flags=re.MULTILINE)[-1]
    s2 = re.findall(rf"^\s*Expectation value of <S\*\*2>\s*:\s*{_NUMBER}", text, re.MULTILINE)
    multiplicities = re.findall(r"^\s*Multiplicity\s+Mult\s+\.+\s*(\d+)", text, re.MULTILINE)
    multiplicity = int(multiplicities[-1]) if multiplicities else None
    return OrcaOutput(
        molecule=_molecule(text, multiplicity),
        exchange=_exchange(text),
        zfs_cm1=_zfs(text),
        hyperfine=_hyperfine(text),
        energy_hartree=_energy(text),
        s2=float(s2[-1]) if s2 else None,
        multiplicity=multiplicity,
        g_matrix=_g_matrix(text),
    )


def _energy(text: str) -> float | None:
    lines = re.findall(r"^\s*FINAL SINGLE POINT ENERGY\s*(.*)$", text, re.MULTILINE)
    if not lines:
        return None
    if "not fully converged" in lines[-1]:
        raise OrcaFormatError(f"The final SCF must converge, but ORCA prints {lines[-1].strip()!r} as its energy.")
    match = re.search(rf"{_NUMBER}\s*$", lines[-1])
    if match is None:
        raise OrcaFormatError(f"The final single point energy must be a number, but is {lines[-1].strip()!r}.")
    return float(match[1]) or None  # 0 where only properties were computed


def _g_matrix(text: str) -> np.ndarray | None:
    starts = [match.end() for match in re.finditer(r"^\s*ELECTRONIC G-MATRIX\s*$", text, re.MULTILINE)]
    if not starts:
        return None
    block = text[starts[-1] : starts[-1] + 3000]
    matrix = _matrix(block[block.find("The g-matrix:") :], "g-matrix")
    printed = re.search(rf"g\(tot\).*iso=\s*{_NUMBER}", block)
    isotropic = float(np.linalg.svd(matrix, compute_uv=False).mean())
    if printed is None or abs(isotropic - float(printed[1])) > 1e-6:
        raise OrcaFormatError(
            f"The g-matrix prints iso = {printed[1] if printed else 'nothing'}, but its matrix gives {isotropic:.7f}: "
            "the output is damaged."
        )
    return matrix


def _molecule(text: str, multiplicity: int | None) -> Molecule | None:
    """Return the last geometry, or ``None``, with a warning where it has elements that `Molecule` does not."""
    blocks = re.findall(r"CARTESIAN COORDINATES \(ANGSTROEM\)\s*\n\s*-+\s*\n((?:.*\S.*\n)+)", text)
    if not blocks:
        return None
    lines = blocks[-1].splitlines()
    for line in lines:
        if not re.fullmatch(rf"\s*[A-Z][a-z]?\s+{_NUMBER}\s+{_NUMBER}\s+{_NUMBER}\s*", line):
            raise OrcaFormatError(f"A row of the geometry must be an element and x, y, z, but is {line.strip()!r}.")
    rows = [line.split() for line in lines]
    unknown = sorted({row[0] for row in rows} - set(ELEMENTS))
    if unknown:
        warnings.warn(f"The geometry is left out: it holds {', '.join(unknown)}, beyond krypton.", stacklevel=3)
        return None
    body = "\n".join(" ".join(row) for row in rows)
    charges = re.findall(r"Total Charge\s+Charge\s+\.*\s*(-?\d+)", text)
    charge = int(charges[-1]) if charges else 0
    return Molecule.from_xyz_text(f"{len(rows)}\n\n{body}\n", charge=charge, multiplicity=multiplicity)


def _exchange(text: str) -> OrcaExchange | None:
    start = text.rfind("BROKEN SYMMETRY MAGNETIC COUPLING ANALYSIS")
    if start < 0:
        return None
    block = text[start : start + 3000]
    if _HAMILTONIAN not in block.replace(" ", ""):
        raise OrcaFormatError(
            f"The coupling analysis must state its Hamiltonian, H = {_HAMILTONIAN}, but does not: J has no meaning "
            "without it. Keep the whole analysis of the output."
        )
    spin = _value(block, r"S\(High-Spin\)\s*=\s*", "S(High-Spin)")
    s2_high = _value(block, r"<S\*\*2>\(High-Spin\)\s*=\s*", "<S**2>(High-Spin)")
    s2_broken = _value(block, r"<S\*\*2>\(BrokenSym\)\s*=\s*", "<S**2>(BrokenSym)")
    match = re.search(rf"E\(High-Spin\)-E\(BrokenSym\)\s*=\s*{_NUMBER}\s*eV\s+{_NUMBER}\s*cm\*\*-1", block)
    if match is None:
        raise OrcaFormatError("The coupling analysis must print E(High-Spin)-E(BrokenSym) in eV and cm**-1.")
    if spin <= 0 or s2_high <= s2_broken:
        raise OrcaFormatError(
            f"The coupling analysis must be of a broken-symmetry state with a lower <S**2> than the high-spin one, but "
            f"prints S(High-Spin) = {spin:g} and <S**2> = {s2_high:g} and {s2_broken:g}: the broken-symmetry run "
            "converged to the high-spin state, or there is none."
        )
    gap = -float(match[2])
    printed = []
    for number in (1, 2, 3):
        found = re.search(rf"J\({number}\)\s*=\s*{_NUMBER}\s*cm\*\*-1", block)
        if found is None:
            raise OrcaFormatError(f"The coupling analysis must print J({number}) in cm**-1.")
        printed.append(float(found[1]))
    expected = (gap / spin**2, gap / (spin * (spin + 1)), gap / (s2_high - s2_broken))
    for number, (value, wanted) in enumerate(zip(printed, expected, strict=True), 1):
        if abs(value - wanted) > 0.01 + 2e-4 * abs(wanted):  # <S^2> is printed with four decimals
            raise OrcaFormatError(
                f"J({number}) = {value} cm**-1 does not follow from the energies and <S**2> printed ({wanted:.2f}): "
                "the output is damaged or of another convention."
            )
    return OrcaExchange(gap, s2_high, s2_broken, spin, (printed[0], printed[1], printed[2]))


def _zfs(text: str) -> np.ndarray | None:
    start = text.rfind("ZERO-FIELD-SPLITTING TENSOR")
    if start < 0:
        return None
    block = text[start : start + 4000]
    tensor = _matrix(block, "zero-field splitting")
    match = re.search(rf"^\s*D\s*=\s*{_NUMBER}\s*cm\*\*-1", block, re.MULTILINE)
    if match is None:
        raise OrcaFormatError(
            "The zero-field splitting must print its D in cm**-1 beside the matrix, but does not: the matrix has "
            "no unit."
        )
    tensor = (tensor + tensor.T) / 2
    tensor = tensor - np.eye(3) * np.trace(tensor) / 3
    values = np.linalg.eigvalsh(tensor)
    d_cm1 = 1.5 * values[np.argmax(np.abs(values))]
    if abs(d_cm1 - float(match[1])) > 1e-5 + 1e-3 * abs(d_cm1):
        raise OrcaFormatError(
            f"The zero-field splitting prints D = {match[1]} cm**-1, but its matrix gives {d_cm1:.6f}: the matrix is "
            "in another unit or damaged."
        )
    return tensor


def _hyperfine(text: str) -> tuple[HyperfineCoupling, ...]:
    start = text.rfind("ELECTRIC AND MAGNETIC HYPERFINE STRUCTURE")
    if start < 0:
        return ()
    section = text[start:]
    found, left_out = [], False
    for part in re.split(r"^\s*Nucleus\s+", section, flags=re.MULTILINE)[1:]:
        matrix = re.search(r"^\s*(?:Raw|Total) HFC matrix", part, re.MULTILINE)  # ORCA 5 and before, ORCA 6
        if matrix is None and "A(Tot)" not in part:
            continue  # of another section, or only an electric field gradient
        head = re.match(
            rf"(\d+)\s*([A-Z][a-z]?)\s*:\s*A\s*:\s*(?:ISTP|Isotope)=\s*(\d+)\s+I=\s*{_NUMBER}"
            rf"(?:\s+P=\s*{_NUMBER}\s*MHz/au\*\*3)?",
            part,
        )
        if matrix is None or head is None:
            raise OrcaFormatError(
                f"The hyperfine coupling of nucleus {part.splitlines()[0].strip()!r} is in a layout that is not known."
            )
        coupling = _coupling(head, part[matrix.start() :].lstrip())
        if coupling is None:
            left_out = True
        else:
            found.append(coupling)
    if not found and not left_out and not re.search(r"EFG matrix|RHO\(0\)", section):
        raise OrcaFormatError(
            "The hyperfine section must hold nuclei with a raw or total HFC matrix, but none is found: its layout is "
            "not known."
        )
    return tuple(found)


def _coupling(head: re.Match[str], block: str) -> HyperfineCoupling | None:
    """Return the coupling of a nucleus, or ``None`` with a warning if it has no known g factor."""
    nucleus, isotope, spin = f"{head[1]}{head[2]}", f"{head[3]}{head[2]}", float(head[4])
    if "(all values in MHz)" not in block.splitlines()[0]:
        raise OrcaFormatError(f"The hyperfine matrix of nucleus {nucleus} must state its unit, MHz.")
    tensor = _matrix(block, f"hyperfine coupling of nucleus {nucleus}")
    printed = re.search(rf"A\(iso\)\s*=\s*{_NUMBER}", block)
    if printed is not None and abs(np.trace(tensor) / 3 - float(printed[1])) > 2e-3 + 1e-4 * abs(float(printed[1])):
        raise OrcaFormatError(
            f"Nucleus {nucleus} prints A(iso) = {printed[1]} MHz, but its matrix gives {np.trace(tensor) / 3:.4f}: "
            "the output is damaged."
        )
    g_printed = float(head[5] or 0) / _P_OF_G
    if isotope in ISOTOPES:
        wanted, g = ISOTOPES[isotope].spin, ISOTOPES[isotope].g_factor
        if spin != wanted:
            raise OrcaFormatError(f"Nucleus {nucleus} prints I = {head[4]}, but {isotope} has I = {wanted:g}.")
        if g_printed and abs(g_printed - g) > 0.01 * abs(g):
            raise OrcaFormatError(
                f"Nucleus {nucleus} prints P = {head[5]} MHz/au**3, g_N = {g_printed:.5f}, but {isotope} has {g:.5f}."
            )
    elif not spin or not g_printed:
        warnings.warn(
            f"Nucleus {nucleus} ({isotope}) is left out: the output prints no spin or no P for it.", stacklevel=4
        )
        return None
    elif (2 * spin - int(head[3])) % 2:
        raise OrcaFormatError(
            f"Nucleus {nucleus} prints I = {head[4]}, but {isotope} cannot have it: 2I is odd where the mass number is."
        )
    else:
        g = g_printed
    return HyperfineCoupling(int(head[1]), isotope, spin, g, float("nan"), (tensor + tensor.T) / 2)


def _value(block: str, start: str, name: str) -> float:
    match = re.search(start + _NUMBER, block)
    if match is None:
        raise OrcaFormatError(f"The coupling analysis must print {name}, but does not.")
    return float(match[1])


def _matrix(block: str, name: str) -> np.ndarray:
    """Return the first three rows of three numbers that follow each other."""
    rows: list[list[float]] = []
    for line in block.splitlines()[1:12]:
        words = line.split()
        if len(words) == 3 and all(re.fullmatch(_NUMBER, word) for word in words):
            rows.append([float(word) for word in words])
            if len(rows) == 3:
                return np.array(rows)
        else:
            rows = []
    raise OrcaFormatError(f"The {name} must be a matrix of 3 by 3 numbers, but none follows its heading.")
