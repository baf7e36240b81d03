"""Named molecules with their spin centres."""

from __future__ import annotations

from dataclasses import dataclass

from molecular_qubits.structure.molecule import Molecule
from molecular_qubits.structure.torsions import off_symmetric
from shared.config import check_name


@dataclass(frozen=True)
class LibraryEntry:
    """A molecule of the library.

    ``centres`` are atom indices (heavy atoms in the order of the SMILES) and ``spins`` their spins in the state whose
    geometry is wanted: 1 for a chromophore in its triplet state.
    """

    name: str
    description: str
    smiles: str
    centres: tuple[tuple[int, ...], ...]
    spins: tuple[float, ...]

    @property
    def multiplicity(self) -> int:
        """High-spin multiplicity 2S + 1."""
        return round(2 * sum(self.spins)) + 1


_ENTRIES = (
    LibraryEntry(
        name="mono",
        description="9-(4-iminonitroxide-phenyl)anthracene: radical and anthracene triplet",
        smiles="[O]N1C(c2ccc(cc2)-c2c3ccccc3cc3ccccc23)=NC(C)(C)C1(C)C",
        centres=((0, 1, 2, 23, 24, 27), tuple(range(9, 23))),
        spins=(0.5, 1.0),
    ),
    LibraryEntry(
        name="bi",
        description="9,10-bis(4-iminonitroxide-phenyl)anthracene: two radicals and anthracene triplet",
        smiles="[O]N1C(=NC(C)(C)C1(C)C)c1ccc(cc1)-c1c2ccccc2c(c2ccccc12)-c1ccc(cc1)C1=NC(C)(C)C(C)(C)N1[O]",
        centres=((0, 1, 2, 3, 4, 7), tuple(range(16, 30)), (36, 37, 38, 41, 44, 45)),
        spins=(0.5, 1.0, 0.5),
    ),
    LibraryEntry(
        name="naphthylmethyl-nitroxide",
        description="methyl(1-naphthylmethyl)nitroxide: radical and naphthalene triplet",
        smiles="[O]N(C)Cc1cccc2ccccc12",
        centres=((0, 1, 2, 3), tuple(range(4, 14))),
        spins=(0.5, 1.0),
    ),
    LibraryEntry(
        name="phenylene-bis-nitroxide",
        description="m-phenylene bis(methylnitroxide): two radicals, ground state",
        smiles="[O]N(C)c1cccc(N(C)[O])c1",
        centres=((0, 1, 2), (8, 9, 10)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="formylmethyl-nitroxide",
        description="methyl(formylmethyl)nitroxide: radical and carbonyl triplet",
        smiles="[O]N(C)CC=O",
        centres=((0, 1, 2), (4, 5)),
        spins=(0.5, 1.0),
    ),
    LibraryEntry(
        name="methylene-bis-nitroxide",
        description="methylene bis(nitroxide): two radicals, ground state",
        smiles="[O]NCN[O]",
        centres=((0, 1), (3, 4)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="verdazyl-mono",
        description="9-[4-(dimethyl-oxoverdazyl)phenyl]anthracene: radical and anthracene triplet",
        smiles="CN1N=C(c2ccc(cc2)-c2c3ccccc3cc3ccccc23)[N]N(C)C1=O",
        centres=((1, 2, 3, 24, 25, 27, 28), tuple(range(10, 24))),
        spins=(0.5, 1.0),
    ),
    LibraryEntry(
        name="verdazyl-bi",
        description="9,10-bis[4-(dimethyl-oxoverdazyl)phenyl]anthracene: two radicals and anthracene triplet",
        smiles="CN1N=C([N]N(C)C1=O)c1ccc(cc1)-c1c2ccccc2c(c2ccccc12)-c1ccc(cc1)C1=NN(C)C(=O)N(C)[N]1",
        centres=((1, 2, 3, 4, 5, 7, 8), tuple(range(15, 29)), (35, 36, 37, 39, 40, 41, 43)),
        spins=(0.5, 1.0, 0.5),
    ),
    LibraryEntry(
        name="mono-meta",
        description="9-(3-iminonitroxide-phenyl)anthracene: radical and anthracene triplet",
        smiles="[O]N1C(c2cccc(c2)-c2c3ccccc3cc3ccccc23)=NC(C)(C)C1(C)C",
        centres=((0, 1, 2, 23), tuple(range(9, 23))),
        spins=(0.5, 1.0),
    ),
    LibraryEntry(
        name="bi-meta",
        description="9,10-bis(3-iminonitroxide-phenyl)anthracene: two radicals and anthracene triplet",
        smiles="[O]N1C(=NC(C)(C)C1(C)C)c1cccc(c1)-c1c2ccccc2c(c2ccccc12)-c1cccc(c1)C1=NC(C)(C)C(C)(C)N1[O]",
        centres=((0, 1, 2, 3), tuple(range(16, 30)), (36, 37, 44, 45)),
        spins=(0.5, 1.0, 0.5),
    ),
    LibraryEntry(
        name="bi-pyrimidinyl",
        description="9,10-bis(5-iminonitroxide-pyrimidin-2-yl)anthracene: two radicals and anthracene triplet",
        smiles="[O]N1C(=NC(C)(C)C1(C)C)c1cnc(nc1)-c1c2ccccc2c(c2ccccc12)-c1ncc(cn1)C1=NC(C)(C)C(C)(C)N1[O]",
        centres=((0, 1, 2, 3, 4, 7), tuple(range(16, 30)), (36, 37, 38, 41, 44, 45)),
        spins=(0.5, 1.0, 0.5),
    ),
    LibraryEntry(
        name="trimethylenemethane",
        description="trimethylenemethane: two of its three methylene groups, ground triplet",
        smiles="[CH2]C(=C)[CH2]",
        centres=((0,), (3,)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="m-xylylene",
        description="m-xylylene: two benzylic radicals, ground triplet",
        smiles="[CH2]c1cccc([CH2])c1",
        centres=((0,), (6,)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="p-benzyne",
        description="p-benzyne: two dehydro carbon atoms, ground singlet",
        smiles="[c]1cc[c]cc1",
        centres=((0,), (3,)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="oxyallyl",
        description="oxyallyl: two methylene groups beside a carbonyl group, ground singlet",
        smiles="[CH2]C(=O)[CH2]",
        centres=((0,), (3,)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="m-benzoquinone",
        description="m-benzoquinone: two carbonyl groups with CH between them, and an allyl radical; ground triplet",
        smiles="O=C1C=C[CH]C(=O)[CH]1",
        centres=((0, 1, 5, 6, 7), (2, 3, 4)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="tetramethyleneethane",
        description="tetramethyleneethane: two allyl radicals",
        smiles="C=C([CH2])C(=C)[CH2]",
        centres=((0, 1, 2), (3, 4, 5)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="tetramethylenebenzene",
        description="1,2,4,5-tetramethylenebenzene: two pentadienyl radicals, ground singlet",
        smiles="[CH2]C1=CC(=C)C(=C)C=C1[CH2]",
        centres=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="tetraoxatetramethylenebenzene",
        description="1,2,4,5-tetraoxatetramethylenebenzene: two semiquinone-like halves, ground singlet",
        smiles="[O]C1=CC(=O)C(=O)C=C1[O]",
        centres=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="methylene-bis-oxoverdazyl",
        description="methylene bis(1,5-dimethyl-6-oxoverdazyl): two radicals, ground singlet",
        smiles="CN1N=C(CC2=NN(C)C(=O)N(C)[N]2)[N]N(C)C1=O",
        centres=((1, 2, 3, 14, 15, 17, 18), (5, 6, 7, 9, 10, 11, 13)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="bis-nitronyl-nitroxide",
        description="2,2'-bis(nitronyl nitroxide): two radicals, ground state",
        smiles="[O]N1C(=[N+]([O-])C(C)(C)C1(C)C)C1=[N+]([O-])C(C)(C)C(C)(C)N1[O]",
        centres=((0, 1, 2, 3, 4), (11, 12, 13, 20, 21)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="m-phenylene-bis-nitronyl-nitroxide",
        description="m-phenylene bis(nitronyl nitroxide): two radicals, ground state",
        smiles="[O]N1C(=[N+]([O-])C(C)(C)C1(C)C)c1cccc(c1)C1=[N+]([O-])C(C)(C)C(C)(C)N1[O]",
        centres=((0, 1, 2, 3, 4), (17, 18, 19, 26, 27)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="p-phenylene-bis-nitronyl-nitroxide",
        description="p-phenylene bis(nitronyl nitroxide): two radicals, ground state",
        smiles="[O]N1C(=[N+]([O-])C(C)(C)C1(C)C)c1ccc(cc1)C1=[N+]([O-])C(C)(C)C(C)(C)N1[O]",
        centres=((0, 1, 2, 3, 4), (17, 18, 19, 26, 27)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="vinylene-bis-nitronyl-nitroxide",
        description="(E)-vinylene bis(nitronyl nitroxide): two radicals, ground singlet",
        smiles="[O]N1C(=[N+]([O-])C(C)(C)C1(C)C)/C=C/C1=[N+]([O-])C(C)(C)C(C)(C)N1[O]",
        centres=((0, 1, 2, 3, 4), (13, 14, 15, 22, 23)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="phenol-2,4-bis-nitronyl-nitroxide",
        description="phenol-2,4-diyl bis(nitronyl nitroxide): two radicals, ground triplet",
        smiles="[O]N1C(=[N+]([O-])C(C)(C)C1(C)C)c1ccc(O)c(c1)C1=[N+]([O-])C(C)(C)C(C)(C)N1[O]",
        centres=((0, 1, 2, 3, 4), (18, 19, 20, 27, 28)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="4-methylphenol-2,6-bis-nitronyl-nitroxide",
        description="4-methylphenol-2,6-diyl bis(nitronyl nitroxide): two radicals, ground triplet",
        smiles="[O]N1C(=[N+]([O-])C(C)(C)C1(C)C)c1cc(C)cc(c1O)C1=[N+]([O-])C(C)(C)C(C)(C)N1[O]",
        centres=((0, 1, 2, 3, 4), (19, 20, 21, 28, 29)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="biphenalenyl",
        description="2,2'-biphenalenyl: two phenalenyl radicals, ground singlet",
        smiles="[CH]1C=Cc2cc(cc3cccc1c23)-c1cc2cccc3[CH]C=Cc(c1)c23",
        centres=(tuple(range(13)), tuple(range(13, 26))),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="m-phenylene-bis-tert-butylnitroxide",
        description="m-phenylene bis(tert-butylnitroxide): two radicals, ground state",
        smiles="[O]N(C(C)(C)C)c1cccc(c1)N([O])C(C)(C)C",
        centres=((0, 1), (12, 13)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="bis-oxoverdazyl",
        description="1,1',5,5'-tetramethyl-6,6'-dioxo-3,3'-biverdazyl: two radicals, ground state",
        smiles="CN1N=C([N]N(C)C1=O)C1=NN(C)C(=O)N(C)[N]1",
        centres=((1, 2, 3, 4, 5, 7, 8), (9, 10, 11, 13, 14, 15, 17)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="m-phenylene-bis-oxoverdazyl",
        description="m-phenylene bis(1,5-dimethyl-6-oxoverdazyl): two radicals, ground state",
        smiles="CN1N=C([N]N(C)C1=O)c1cccc(c1)C1=NN(C)C(=O)N(C)[N]1",
        centres=((1, 2, 3, 4, 5, 7, 8), (15, 16, 17, 19, 20, 21, 23)),
        spins=(0.5, 0.5),
    ),
    LibraryEntry(
        name="p-phenylene-bis-oxoverdazyl",
        description="p-phenylene bis(1,5-dimethyl-6-oxoverdazyl): two radicals, ground state",
        smiles="CN1N=C([N]N(C)C1=O)c1ccc(cc1)C1=NN(C)C(=O)N(C)[N]1",
        centres=((1, 2, 3, 4, 5, 7, 8), (15, 16, 17, 19, 20, 21, 23)),
        spins=(0.5, 0.5),
    ),
)

LIBRARY: dict[str, LibraryEntry] = {entry.name: entry for entry in _ENTRIES}
"""Entries by name."""


def library_entry(name: str) -> LibraryEntry:
    """Return an entry of the library.

    Raises
    ------
    ValueError
        If there is no such entry; the message holds the nearest name.
    """
    return LIBRARY[check_name(name, sorted(LIBRARY), "Argument `name`")]


def start_geometry(molecule: Molecule, offset_degrees: float = 30.0) -> Molecule:
    """Return the molecule with every ring-ring torsion turned at least `offset_degrees` off its symmetric values.

    Without this a relaxation can end at a saddle point: phenyl-anthracene at 90° is stationary.
    """
    for atoms in molecule.ring_torsions():
        molecule = molecule.set_torsion(atoms, off_symmetric(molecule.torsion(atoms), offset_degrees))
    return molecule
