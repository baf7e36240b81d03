"""A molecule: elements, coordinates, charge and spin multiplicity, immutable and hashable."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from molecular_qubits.structure import bonds as _bonds
from molecular_qubits.structure.elements import ELEMENTS
from shared.files import reason


class XYZError(ValueError):
    """Text that is not that of an XYZ file."""


@dataclass(frozen=True)
class Molecule:
    """Elements, coordinates, charge and multiplicity of one molecule.

    Parameters
    ----------
    symbols
        Element symbols, ``n`` of them.
    coordinates
        Nested tuple ``(n, 3)`` in Å.
    charge
        Total charge in units of the elementary charge.
    multiplicity
        Spin multiplicity 2S + 1, or ``None``: the high-spin value then follows from the spin centres of a calculation.
    smiles
        SMILES string from which the molecule was made, if any.
    bonds
        Pairs of bonded atoms, kept with the smaller index first. ``None`` finds them by covalent radii; ``()`` are
        none. RDKit gives those of a SMILES.

    Raises
    ------
    ValueError
        If shapes disagree, a symbol is unknown, coordinates are not finite, two atoms coincide, the charge is not a
        whole number, a bond is not one of two atoms, or the multiplicity is impossible with the number of electrons.
    """

    symbols: tuple[str, ...]
    coordinates: tuple[tuple[float, float, float], ...]
    charge: int = 0
    multiplicity: int | None = None
    smiles: str | None = None
    bonds: tuple[tuple[int, int], ...] = None  # type: ignore[assignment]  # never None afterwards

    def __post_init__(self) -> None:
        positions = np.asarray(self.coordinates, dtype=float)
        symbols = tuple(str(symbol) for symbol in self.symbols)
        if not symbols:
            raise ValueError("Argument `symbols` must name at least one atom, but is empty.")
        if positions.shape != (len(symbols), 3):
            raise ValueError(
                f"Argument `coordinates` must have shape ({len(symbols)}, 3) for {len(symbols)} symbols, "
                f"but has shape {positions.shape}."
            )
        if not np.all(np.isfinite(positions)):
            raise ValueError("Argument `coordinates` must be finite, but contains NaN or infinity.")
        for symbol in symbols:
            if symbol not in ELEMENTS:
                raise ValueError(
                    f"Argument `symbols` must hold elements up to krypton, such as 'C', but holds {symbol!r}."
                )
        if (pair := _coincident(positions)) is not None:
            i, j = pair
            raise ValueError(f"Argument `coordinates` must separate the atoms, but atoms {i} and {j} coincide.")
        object.__setattr__(self, "symbols", symbols)
        object.__setattr__(self, "coordinates", _rows(positions))
        object.__setattr__(self, "charge", whole_number(self.charge, "Argument `charge`"))
        if self.n_electrons < 0:
            raise ValueError(
                f"Argument `charge` must be at most {self.n_electrons + self.charge:+d}, the number of electrons, but "
                f"is {self.charge:+d}."
            )
        bonds = _bonds.from_distances(symbols, positions) if self.bonds is None else self.bonds
        object.__setattr__(self, "bonds", _bonds.ordered(bonds, len(symbols)))
        if self.multiplicity is not None:
            check_multiplicity(self.n_electrons, self.multiplicity)
            object.__setattr__(self, "multiplicity", int(self.multiplicity))

    @classmethod
    def from_smiles(
        cls, smiles: str, *, multiplicity: int | None = None, charge: int | None = None, seed: int = 42
    ) -> Molecule:
        """Make a molecule from a SMILES string with RDKit (ETKDG, then MMFF94).

        Parameters
        ----------
        smiles
            SMILES; radicals as bracket atoms, e.g. ``[O]N(C)C``.
        multiplicity
            2S + 1, or ``None``.
        charge
            Total charge; ``None`` takes the formal charges of the SMILES.
        seed
            Seed of the distance-geometry embedding: the same seed gives the same geometry.

        Returns
        -------
        Molecule
            Heavy atoms in the order of the SMILES, hydrogens behind them.

        Raises
        ------
        ValueError
            If RDKit cannot read or embed the SMILES, it has several molecules (a dot), or formal charges of another sum
            than `charge`.
        """
        from molecular_qubits.structure.embedding import embed

        symbols, positions, bond_list, formal_charge = embed(smiles, seed)
        if formal_charge and charge not in (None, formal_charge):
            raise ValueError(
                f"Argument `charge` must agree with the formal charges of {smiles!r}, {formal_charge:+d}, but is "
                f"{charge!r}. Write the ion that is meant, or leave `charge` out."
            )
        total_charge = formal_charge if charge is None else charge
        return cls(symbols, _rows(positions), total_charge, multiplicity, smiles, bond_list)

    @classmethod
    def from_xyz(cls, path: str | Path, *, multiplicity: int | None = None, charge: int | None = None) -> Molecule:
        """Read a molecule from an XYZ file (coordinates in Å), with ``charge=`` and ``multiplicity=`` of its comment.

        Parameters
        ----------
        path
            The file: number of atoms, comment, one ``symbol x y z`` line for each atom; other columns where the
            comment of an extended XYZ file says so (``Properties=``).
        multiplicity
            2S + 1, a state of one's choice; ``None``: that of the comment, if it holds one.
        charge
            Total charge; ``None``: that of the comment, or 0.

        Returns
        -------
        Molecule
            The atoms in the order of the file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a valid XYZ file, holds several geometries or a periodic one, or its comment has another
            charge or one that is not a whole number; the message names it.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no XYZ file {str(path)!r}.")
        try:
            return cls.from_xyz_text(path.read_text(encoding="utf-8"), multiplicity=multiplicity, charge=charge)
        except UnicodeDecodeError as error:
            raise ValueError(f"The XYZ file {str(path)!r} cannot be read: {reason(error)}.") from None
        except XYZError as error:
            raise XYZError(f"{str(path)!r}: {error}") from None

    @classmethod
    def from_xyz_text(cls, text: str, *, multiplicity: int | None = None, charge: int | None = None) -> Molecule:
        """Read a molecule from the text of an XYZ file; see `from_xyz`."""
        lines = text.removeprefix("\ufeff").splitlines()
        if len(lines) < 2 or not lines[0].strip().isdecimal():
            raise XYZError(
                "An XYZ file must begin with the number of atoms and a comment, but begins with "
                f"{lines[0] if lines else ''!r}."
            )
        n_atoms, columns = int(lines[0]), _columns(lines[1])
        rows = lines[2 : 2 + n_atoms]
        if len(rows) != n_atoms or n_atoms == 0:
            raise XYZError(f"The XYZ file announces {n_atoms} atoms, but holds {len(rows)}.")
        atoms = [_read_atom(row, *columns, number) for number, row in enumerate(rows, start=3)]
        symbols, positions = tuple(symbol for symbol, _ in atoms), np.array([position for _, position in atoms])
        more = [number for number, line in enumerate(lines, start=1) if number > n_atoms + 2 and line.strip()]
        if more:
            raise XYZError(
                f"The XYZ file must hold one geometry of the {n_atoms} atoms it announces, but goes on in line "
                f"{more[0]}. Write the geometry that is meant into a file of its own."
            )
        if _is_periodic(lines[1]):
            raise XYZError(
                "The XYZ file must not be periodic, but its comment holds a lattice. Remove `Lattice` and `pbc` if it "
                "is one molecule in a box."
            )
        unknown = [(line, symbol) for line, symbol in enumerate(symbols, start=3) if symbol not in ELEMENTS]
        if unknown:
            line, symbol = unknown[0]
            raise XYZError(f"Line {line} must name an element up to krypton, such as C, but names {symbol!r}.")
        commented = _from_comment(lines[1], "charge")
        if None not in (charge, commented) and charge != commented:
            raise XYZError(
                f"Argument `charge` must agree with the comment of the XYZ file, charge={commented}, but is {charge}. "
                "Correct the comment, or leave `charge` out."
            )
        charge = commented if charge is None else charge
        if (pair := _coincident(positions)) is not None:
            raise XYZError(
                f"Lines {pair[0] + 3} and {pair[1] + 3} must hold atoms in different places, but they coincide. "
                "Correct the coordinates or their unit (Å)."
            )
        found = cls(symbols, _rows(positions), charge or 0, multiplicity)
        if multiplicity is not None:
            return found
        try:
            return found.with_multiplicity(_from_comment(lines[1], "multiplicity"))
        except ValueError as error:
            raise XYZError(str(error).replace("Argument `multiplicity`", "The comment's multiplicity")) from None

    @classmethod
    def from_ase(cls, atoms: Any, *, multiplicity: int | None = None, charge: int | None = None) -> Molecule:
        """Make a molecule from ASE ``Atoms``; see `interfaces.from_ase`."""
        from molecular_qubits.structure import interfaces

        return interfaces.from_ase(atoms, multiplicity=multiplicity, charge=charge)

    @classmethod
    def from_rdkit(cls, mol: Any, *, multiplicity: int | None = None, charge: int | None = None) -> Molecule:
        """Make a molecule from an RDKit ``Mol``; see `interfaces.from_rdkit`."""
        from molecular_qubits.structure import interfaces

        return interfaces.from_rdkit(mol, multiplicity=multiplicity, charge=charge)

    def to_ase(self) -> Any:
        """Return ASE ``Atoms``; see `interfaces.to_ase`."""
        from molecular_qubits.structure import interfaces

        return interfaces.to_ase(self)

    def to_rdkit(self) -> Any:
        """Return an RDKit ``Mol`` with the geometry; see `interfaces.to_rdkit`."""
        from molecular_qubits.structure import interfaces

        return interfaces.to_rdkit(self)

    def to_smiles(self) -> str:
        """Return the SMILES that the molecule was made from, or one of its geometry; see `interfaces.to_smiles`."""
        from molecular_qubits.structure import interfaces

        return interfaces.to_smiles(self)

    @property
    def positions(self) -> np.ndarray:
        """Coordinates as a new array ``(n, 3)`` in Å."""
        return np.array(self.coordinates)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.symbols)

    @property
    def n_heavy_atoms(self) -> int:
        """Number of atoms other than hydrogen."""
        return sum(symbol != "H" for symbol in self.symbols)

    @property
    def n_electrons(self) -> int:
        """Number of electrons."""
        return sum(ELEMENTS[symbol] for symbol in self.symbols) - self.charge

    def with_positions(self, positions: ArrayLike) -> Molecule:
        """Return the molecule at other coordinates ``(n, 3)`` in Å."""
        return replace(self, coordinates=_rows(np.asarray(positions, dtype=float)))

    def with_multiplicity(self, multiplicity: int | None) -> Molecule:
        """Return the molecule with another multiplicity 2S + 1."""
        return replace(self, multiplicity=multiplicity)

    def torsion(self, atoms: tuple[int, int, int, int]) -> float:
        """Return a torsion angle in degrees, between -180 and 180."""
        from molecular_qubits.structure.torsions import torsion_degrees

        return torsion_degrees(self.positions, atoms)

    def set_torsion(self, atoms: tuple[int, int, int, int], degrees: float) -> Molecule:
        """Return the molecule with a torsion about the bond of the two middle atoms set to a value.

        Parameters
        ----------
        atoms
            Four atom indices; the part of the molecule behind the third atom turns.
        degrees
            New torsion angle.

        Returns
        -------
        Molecule
            The same bond lengths and angles.

        Raises
        ------
        ValueError
            As for `torsions.rotate_torsion`: the middle atoms are not bonded or in a ring, the outer ones are not on
            either side of their bond, or three lie in a line.
        """
        from molecular_qubits.structure.torsions import rotate_torsion

        return self.with_positions(rotate_torsion(self.positions, self.bonds, atoms, degrees))

    def ring_torsions(self) -> tuple[tuple[int, int, int, int], ...]:
        """Return one torsion for each bond that joins two rings (e.g. phenyl-anthracene)."""
        from molecular_qubits.structure.torsions import ring_ring_torsions

        return ring_ring_torsions(self.n_atoms, self.bonds)

    def optimize(self, level: str = "gfn2", multiplicity: int | None = None, **options: Any) -> Molecule:
        """Relax the geometry in a given spin state.

        Parameters
        ----------
        level
            ``"gfn2"``: GFN2-xTB (tblite through ASE), seconds to minutes. ``"uks"``: unrestricted Kohn-Sham with
            geomeTRIC, for small molecules.
        multiplicity
            2S + 1 of the state; ``None`` takes the molecule's own.
        options
            Passed on to `relax_gfn2` (``fmax_ev_per_angstrom``, ``max_steps``) or `relax_uks` (``xc``, ``basis``,
            ``grid_level``, ``max_steps``, ``density_fit``, ``solvent_epsilon``, ``checkpoint`` and others;
            ``centres`` for the broken-symmetry state of a diradical).

        Returns
        -------
        Molecule
            The relaxed molecule, with the multiplicity of the relaxation. Bonds that were made or broken are said: it
            is then another molecule.

        Raises
        ------
        ValueError
            If the level is unknown, no multiplicity is given, or atoms clash.
        GeometryNotConvergedError
            If the forces did not fall below the threshold, or a field of ``"uks"`` did not converge.
        SpinContaminationError
            If ``"uks"`` found a field of another spin.
        UnstableFieldError
            If ``"uks"`` found a saddle point, such as the closed shell of a diradical.
        """
        from molecular_qubits.structure.clashes import check_clashes
        from molecular_qubits.structure.relaxation import relax, say_changes

        check_clashes(self)  # a relaxation makes another molecule of them
        relaxed = relax(self, level, multiplicity, **options)
        say_changes(self, relaxed, level)
        return relaxed

    def to_xyz(self) -> str:
        """Return the text of an XYZ file; the comment holds charge and multiplicity."""
        comment = f"charge={self.charge} multiplicity={self.multiplicity}"
        rows = [
            f"{symbol:<3s}{x:16.10f}{y:16.10f}{z:16.10f}"
            for symbol, (x, y, z) in zip(self.symbols, self.coordinates, strict=True)
        ]
        return "\n".join([str(self.n_atoms), comment, *rows]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record; `from_dict` reads it."""
        return {
            "symbols": list(self.symbols),
            "coordinates_angstrom": [list(row) for row in self.coordinates],
            "charge": self.charge,
            "multiplicity": self.multiplicity,
            "smiles": self.smiles,
            "bonds": [list(pair) for pair in self.bonds],
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Molecule:
        """Make a molecule from the record of `to_dict`."""
        return cls(
            tuple(record["symbols"]),
            record["coordinates_angstrom"],
            record["charge"],
            record["multiplicity"],
            record["smiles"],
            tuple((i, j) for i, j in record["bonds"]),
        )


def _rows(positions: np.ndarray) -> tuple[tuple[float, float, float], ...]:
    """Return an array as nested tuples; a wrong shape is kept, for the check of the constructor."""
    return tuple(tuple(float(x) for x in row) for row in positions)  # type: ignore[misc]


def _coincident(positions: np.ndarray) -> tuple[int, int] | None:
    """Return the closest two atoms if they are in one place."""
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2) + np.eye(len(positions))
    i, j = np.unravel_index(int(distances.argmin()), distances.shape)
    return (int(i), int(j)) if distances[i, j] < 0.1 else None


def _read_atom(line: str, name: int, place: int, number: int) -> tuple[str, list[float]]:
    """Return symbol and coordinates of a line of an XYZ file, in the columns from `name` and `place` on."""
    words = line.split()
    try:
        position = [float(words[place + k]) for k in range(3)]
        symbol = words[name].capitalize()
    except (ValueError, IndexError):
        position, symbol = [np.nan], ""
    if not np.isfinite(position).all():
        raise XYZError(f"Line {number} must be a symbol and finite x, y, z such as 'C 0.0 0.0 1.5', but is {line!r}.")
    return symbol, position


def _from_comment(comment: str, name: str) -> int | None:
    """Return e.g. the 1 of ``charge=1`` in the comment of an XYZ file, ``None`` if it is not there, or is ``None``."""
    found = re.search(rf"(?<![\w:-]){name}\s*[=:]\s*([^\s,;]*)", comment, re.IGNORECASE)
    if found is None or found[1].lower() == "none":
        return None
    try:
        return whole_number(found[1].strip("'\""), f"`{name}=` in the comment of the XYZ file")
    except ValueError as error:
        raise XYZError(str(error)) from None


def _columns(comment: str) -> tuple[int, int]:
    """Return the columns of the symbol and of x in an XYZ file: the first two, or as ``Properties`` says."""
    found = re.search(r"(?<![\w:-])Properties\s*=\s*[\"']?([^\s\"']*)", comment, re.IGNORECASE)
    if found is None:
        return 0, 1
    words = found[1].lower().split(":")
    columns, width = {}, 0
    for name, kind, count in zip(words[::3], words[1::3], words[2::3], strict=False):
        columns[name, kind, count] = width
        if not count.isdecimal():
            break
        width += int(count)
    try:
        return columns["species", "s", "1"], columns["pos", "r", "3"]
    except KeyError:
        raise XYZError(
            "`Properties` in the comment of the XYZ file must name the columns species:S:1 and pos:R:3, but is "
            f"{found[1]!r}."
        ) from None


def _is_periodic(comment: str) -> bool:
    """Return whether the comment of an extended XYZ file says so: ``pbc`` with a T, or a lattice without ``pbc``."""
    periodic = re.search(r"(?<!\w)pbc=[\"'{\[]?([^\"'}\]]*)", comment, re.IGNORECASE)
    if periodic is not None:
        return any(word.upper() in ("T", "TRUE", "1") for word in re.split(r"[\s,]+", periodic[1])[:3])
    return re.search(r"(?<!\w)lattice=", comment, re.IGNORECASE) is not None


def whole_number(value: Any, name: str) -> int:
    """Return a number as an integer; a `ValueError` that begins with ``name`` if it is not one, or a truth value."""
    try:
        number = float("nan") if isinstance(value, bool | np.bool_) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise ValueError(f"{name} must be a whole number, but is {value!r}.")
    return int(number)


def real_number(value: Any, name: str) -> float:
    """Return a number as a float; a `ValueError` that begins with ``name`` if it is text, a truth value, an array."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, but is {value!r}.")
    return float(value)


def check_truth(**values: bool) -> None:
    """Raise a `ValueError` that names the argument if a value is not a truth value, such as the text ``"no"``."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"Argument `{name}` must be True or False, but is {value!r}.")


def check_positive(**values: float) -> None:
    """Raise a `ValueError` that names the argument if a value is not positive and finite."""
    for name, value in values.items():
        if not 0 < real_number(value, f"Argument `{name}`") < np.inf:
            raise ValueError(f"Argument `{name}` must be positive and finite, but is {value!r}.")


def check_multiplicity(n_electrons: int, multiplicity: int) -> None:
    """Raise a `ValueError` if ``n_electrons`` cannot have the multiplicity 2S + 1."""
    if whole_number(multiplicity, "Argument `multiplicity`") < 1:
        raise ValueError(f"Argument `multiplicity` must be an integer of at least 1, but is {multiplicity!r}.")
    if multiplicity - 1 > n_electrons or (n_electrons - multiplicity + 1) % 2:
        parity = "odd" if n_electrons % 2 == 0 else "even"
        raise ValueError(
            f"Argument `multiplicity` must be {parity} and at most {n_electrons + 1} for {n_electrons} electrons, "
            f"but is {multiplicity}."
        )
