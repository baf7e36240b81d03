"""Import of ORCA outputs: exchange, zero-field splitting, hyperfine couplings and the geometry that they belong to.

The layout is that of ORCA 4 to 6. A number is taken only if its convention and unit are printed beside it and it agrees
with what else is printed: a coupling without its Hamiltonian or a tensor without its unit is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from molecular_qubits.electronic.hyperfine import NUCLEI, HyperfineCoupling
from molecular_qubits.electronic.projection import ProjectedJ, check_spins
from molecular_qubits.structure.molecule import Molecule

_NUMBER = r"([-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)"
_HAMILTONIAN = "-2J*SA*SB"


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
            If the spins do not add to that of the high-spin state.
        """
        s1, s2 = check_spins(spins, 2)
        if s1 + s2 != self.spin_high:
            raise ValueError(f"Argument `spins` must add to {self.spin_high:g}, the high-spin state, but is {spins!r}.")
        return ProjectedJ(
            self.gap_cm1 / (self.s2_high_spin - self.s2_broken_symmetry),
            self.gap_cm1 / (4 * s1 * s2),
            self.gap_cm1 / (4 * s1 * s2 + 2 * min(s1, s2)),
        )


@dataclass(frozen=True)
class OrcaOutput:
    """What an output holds; ``None`` or empty where it holds nothing of the kind.

    ``zfs_cm1`` (3, 3), traceless, and the tensors of ``hyperfine`` are in the frame of ``molecule``.
    """

    molecule: Molecule | None
    exchange: OrcaExchange | None
    zfs_cm1: np.ndarray | None
    hyperfine: tuple[HyperfineCoupling, ...]


def read_orca(source: str | Path) -> OrcaOutput:
    """Read an ORCA output.

    Parameters
    ----------
    source
        File (a `Path`) or text (a `str`). Of several analyses in one output the last is taken.

    Returns
    -------
    OrcaOutput
        Exchange, zero-field splitting, hyperfine couplings and geometry.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OrcaFormatError
        If the text is not an ORCA output, did not end normally, or a value has no stated convention or unit or
        disagrees with another value printed for the same thing.
    """
    if isinstance(source, Path):
        if not source.is_file():
            raise FileNotFoundError(f"There is no ORCA output {str(source)!r}.")
        text = source.read_text(encoding="utf-8", errors="replace")
    else:
        text = source
    if "O   R   C   A" not in text and "ORCA TERMINATED" not in text:
        raise OrcaFormatError("Argument `source` must be an ORCA output, but it holds neither its banner nor its end.")
    if "ORCA TERMINATED NORMALLY" not in text:
        raise OrcaFormatError("The ORCA run did not terminate normally: run it to its end, or cut the output before.")
    return OrcaOutput(_molecule(text), _exchange(text), _zfs(text), _hyperfine(text))


def _molecule(text: str) -> Molecule | None:
    row = rf"\s*[A-Z][a-z]?\s+{_NUMBER}\s+{_NUMBER}\s+{_NUMBER}\s*\n"
    blocks = re.findall(rf"CARTESIAN COORDINATES \(ANGSTROEM\)\s*\n\s*-+\s*\n((?:{row})+)", text)
    if not blocks:
        return None
    rows = [line.split() for line in blocks[-1][0].splitlines() if line.strip()]
    body = "\n".join(" ".join(row) for row in rows)
    charges = re.findall(r"Total Charge\s+Charge\s+\.*\s*(-?\d+)", text)
    return Molecule.from_xyz_text(f"{len(rows)}\n\n{body}\n", charge=int(charges[-1]) if charges else 0)


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
    parts = re.split(r"^\s*Nucleus\s+", text[start:], flags=re.MULTILINE)[1:]
    found = []
    for part in parts:
        head = re.match(rf"(\d+)\s*([A-Z][a-z]?)\s*:\s*A:ISTP=\s*(\d+)\s+I=\s*{_NUMBER}", part)
        if head is None or "Raw HFC matrix" not in part:
            continue
        block = part[part.index("Raw HFC matrix") :]
        if "(all values in MHz)" not in block.splitlines()[0]:
            raise OrcaFormatError(f"The hyperfine matrix of nucleus {head[1]}{head[2]} must state its unit, MHz.")
        tensor = _matrix(block, f"hyperfine coupling of nucleus {head[1]}{head[2]}")
        printed = re.search(rf"A\(iso\)\s*=\s*{_NUMBER}", block)
        if printed is not None and abs(np.trace(tensor) / 3 - float(printed[1])) > 2e-3 + 1e-4 * abs(float(printed[1])):
            raise OrcaFormatError(
                f"Nucleus {head[1]}{head[2]} prints A(iso) = {printed[1]} MHz, but its matrix gives "
                f"{np.trace(tensor) / 3:.4f}: the output is damaged."
            )
        isotope = f"{head[3]}{head[2]}"
        if isotope not in NUCLEI:
            raise OrcaFormatError(
                f"Nucleus {head[1]}{head[2]} is {isotope}, which has no spin or no entry in the table."
            )
        spin, g = NUCLEI[isotope]
        if spin != float(head[4]):
            raise OrcaFormatError(f"Nucleus {head[1]}{head[2]} prints I = {head[4]}, but {isotope} has I = {spin:g}.")
        found.append(HyperfineCoupling(int(head[1]), isotope, spin, g, float("nan"), (tensor + tensor.T) / 2))
    return tuple(found)


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
