"""Candidates from fragments: radical - linker - coupler - linker - radical, joined at attachment points ``[*]``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

ATTACHMENTS = {"radical": 1, "linker": 2, "coupler": 2}
"""Attachment points of each kind of fragment."""

Centres = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Structure:
    """A molecule with its spin centres.

    ``radicals`` holds the atoms of each radical and ``coupler`` those of the chromophore, as positions in the SMILES.
    """

    smiles: str
    radicals: Centres
    coupler: tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """One two-qubit unit to be judged.

    Attributes
    ----------
    name
        Unique in its library.
    on
        What the exchange with the lit coupler is computed in: one arm, radical - linker - coupler, of an assembled
        candidate (the other radical changes J_RT little and the cost fourfold), or the whole molecule.
    off
        The whole molecule with two radicals, in which the exchange through the dark coupler is computed.
    parts
        Names of radical, linker and coupler; empty for a molecule given as a whole.
    line
        Line of the library that the candidate, or its coupler, comes from.
    """

    name: str
    on: Structure
    off: Structure
    parts: tuple[str, ...] = ()
    line: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        return {
            "name": self.name,
            "parts": list(self.parts),
            "line": self.line,
            "smiles": self.off.smiles,
            "smiles_one_arm": self.on.smiles if self.on != self.off else None,
        }


def check_fragment(kind: str, smiles: str) -> None:
    """Refuse a fragment that cannot be joined.

    Raises
    ------
    ValueError
        If RDKit cannot read the SMILES, it has the wrong number of attachment points, it has unpaired electrons where
        there may be none (or none where there must be one), or the attachment points of a coupler are not alike: of two
        unequal arms one exchange would stand for both.
    """
    from rdkit import Chem

    mol = read_smiles(smiles)
    dummies = [atom for atom in mol.GetAtoms() if atom.GetAtomicNum() == 0]
    if len(dummies) != ATTACHMENTS[kind] or any(atom.GetDegree() != 1 for atom in dummies):
        raise ValueError(
            f"a {kind} must have {ATTACHMENTS[kind]} attachment point{'s' if ATTACHMENTS[kind] > 1 else ''} [*] with "
            f"one bond each, but {smiles!r} has {len(dummies)}"
        )
    if len(Chem.GetMolFrags(mol)) > 1:
        raise ValueError(f"a {kind} must be one piece, but {smiles!r} has several")
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())
    if unpaired != (1 if kind == "radical" else 0):
        wanted = "one unpaired electron" if kind == "radical" else "no unpaired electron"
        raise ValueError(f"a {kind} must have {wanted}, but {smiles!r} has {unpaired}")
    if kind == "coupler" and len({_one_sided(smiles, number) for number in (0, 1)}) > 1:
        raise ValueError(
            f"a coupler must have two attachment points that are alike, but with one arm on the first or on the second "
            f"{smiles!r} gives different molecules; give its candidates as whole molecules (kind molecule), which have "
            "the exchange of both arms"
        )


def _one_sided(coupler: str, number: int) -> str:
    """Return the canonical SMILES of a coupler with one of its attachment points, and hydrogen at the other."""
    from rdkit import Chem

    mol = _marked(coupler, "coupler")
    points = [atom for atom in mol.GetAtoms() if atom.GetAtomicNum() == 0]
    points[number].SetIsotope(0)
    _cap(points[1 - number])
    return str(Chem.MolToSmiles(Chem.RemoveHs(mol)))


def read_smiles(smiles: str) -> Any:
    """Return the RDKit molecule of a SMILES; `ValueError` if RDKit cannot read it."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles.strip() else None
    if mol is None:
        raise ValueError(f"RDKit cannot read the SMILES {smiles!r}")
    return mol


@cache
def assemble(radical: str, linker: str, coupler: str, arms: int) -> Structure:
    """Join fragments to a molecule with one or two arms.

    Parameters
    ----------
    radical, linker, coupler
        SMILES with 1, 2 and 2 attachment points ``[*]``; a linker ``[*][*]`` is a direct bond. The first attachment
        point of a linker is at the radical, in both arms; those of a coupler must be alike.
    arms
        1: radical - linker - coupler - H. 2: radical - linker - coupler - linker - radical.

    Returns
    -------
    Structure
        The whole fragments are the spin centres.

    Raises
    ------
    ValueError
        If a fragment cannot be joined, see `check_fragment`, or the result breaks a rule of valence.
    """
    from rdkit import Chem, rdBase

    if arms not in (1, 2):
        raise ValueError(f"Argument `arms` must be 1 or 2, but was {arms!r}.")
    for kind, smiles in (("radical", radical), ("linker", linker), ("coupler", coupler)):
        check_fragment(kind, smiles)
    whole = _marked(coupler, "coupler")
    for arm in range(arms):
        whole = _join(whole, _join(_marked(radical, f"radical {arm}"), _marked(linker, "linker")))
    if arms == 1:
        _cap(next(atom for atom in whole.GetAtoms() if atom.GetAtomicNum() == 0))
    mol = whole.GetMol()
    with rdBase.BlockLogs():
        Chem.SanitizeMol(mol)
        mol = Chem.RemoveHs(mol)
        smiles = Chem.MolToSmiles(mol)
    order = list(mol.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"])
    origin = [mol.GetAtomWithIdx(index).GetProp("origin") for index in order]

    def places(name: str) -> tuple[int, ...]:
        return tuple(place for place, found in enumerate(origin) if found == name)

    return Structure(smiles, tuple(places(f"radical {arm}") for arm in range(arms)), places("coupler"))


def whole_molecule(smiles: str) -> Structure:
    """Return the structure of a molecule given as one SMILES with two radicals and a largest aromatic system.

    Raises
    ------
    ValueError
        If RDKit cannot read or embed the SMILES, it has not exactly two radicals, or no largest aromatic system.
    """
    from molecular_qubits.structure.centres import chromophore_centre, radical_centres
    from molecular_qubits.structure.molecule import Molecule

    read_smiles(smiles)
    molecule = Molecule.from_smiles(smiles)
    radicals = radical_centres(molecule)
    if len(radicals) != 2:
        raise ValueError(f"a molecule must have 2 radicals, but {smiles!r} has {len(radicals)}")
    return Structure(smiles, radicals, chromophore_centre(molecule))


def _marked(smiles: str, origin: str) -> Any:
    from rdkit import Chem

    mol = Chem.RWMol(read_smiles(smiles))
    for atom in mol.GetAtoms():
        atom.SetProp("origin", origin)
        atom.SetAtomMapNum(0)
    return mol


def _join(left: Any, right: Any) -> Any:
    """Bond the neighbours of the first attachment points of two molecules and drop these points."""
    from rdkit import Chem

    shift = left.GetNumAtoms()
    mol = Chem.RWMol(Chem.CombineMols(left, right))
    points = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() == 0]
    ends = (next(p for p in points if p < shift), next(p for p in points if p >= shift))
    neighbours = [mol.GetAtomWithIdx(end).GetNeighbors()[0].GetIdx() for end in ends]
    mol.AddBond(neighbours[0], neighbours[1], Chem.BondType.SINGLE)
    for index in sorted(ends, reverse=True):
        mol.RemoveAtom(index)
    return mol


def _cap(point: Any) -> None:
    """Make an attachment point a hydrogen: without one, a neighbour in brackets would have an unpaired electron."""
    point.SetAtomicNum(1)
    point.SetIsotope(0)
