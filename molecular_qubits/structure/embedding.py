"""Three-dimensional start geometries from SMILES with RDKit."""

from typing import Any

import numpy as np

from molecular_qubits.structure.bonds import Bonds


def embed(smiles: str, seed: int = 42) -> tuple[tuple[str, ...], np.ndarray, Bonds, int]:
    """Embed a SMILES with ETKDG (version 3) and relax it with MMFF94, or with UFF where MMFF94 has no parameters.

    Parameters
    ----------
    smiles
        SMILES string.
    seed
        Seed of the embedding.

    Returns
    -------
    symbols, positions, bonds, charge
        Element symbols, coordinates ``(n, 3)`` in Å, bonded pairs and the sum of the formal charges.

    Raises
    ------
    ValueError
        If RDKit cannot read the SMILES, it has several molecules, or no geometry is found for it.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():  # RDKit's own messages are replaced by the error below
        bare = Chem.MolFromSmiles(smiles) if smiles.strip() else None
    if bare is None:
        raise ValueError(
            f"Argument `smiles` must be a valid SMILES string, but RDKit cannot read {smiles!r}: {_fault(smiles)}."
        )
    return embed_mol(bare, seed, repr(smiles))


def _fault(smiles: str) -> str:
    """Return what is wrong with a SMILES that RDKit does not read."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles, sanitize=False) if smiles.strip() else None
        problems = [] if mol is None else [problem.Message() for problem in Chem.DetectChemistryProblems(mol)]
    found = "; ".join(problems) or "it is not well formed: check symbols, brackets and the numbers that close rings"
    return found.rstrip(".")


def check_one_molecule(mol: Any, argument: str, name: str) -> None:
    """Raise a `ValueError` if an RDKit molecule is several ones, which would be placed one within the other."""
    from rdkit import Chem

    count = len(Chem.GetMolFrags(mol))
    if count > 1:
        raise ValueError(
            f"Argument `{argument}` must be one molecule, all of it bonded, but {name} has {count} parts, whose places "
            "do not follow from it. Give coordinates instead: an XYZ file with all parts where they belong."
        )


def embed_mol(bare: Any, seed: int, name: str) -> tuple[tuple[str, ...], np.ndarray, Bonds, int]:
    """Embed an RDKit molecule without conformers; see `embed`. ``name`` stands for it in errors."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDistGeom
    from rdkit.Chem import rdForceFieldHelpers as force_fields

    check_one_molecule(bare, "smiles", name)
    with rdBase.BlockLogs():
        molecule = Chem.AddHs(bare)
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = seed
        if rdDistGeom.EmbedMolecule(molecule, parameters) != 0:
            parameters.useRandomCoords = True
            if rdDistGeom.EmbedMolecule(molecule, parameters) != 0:
                raise ValueError(f"Argument `smiles` must have a 3D geometry, but RDKit cannot embed {name}.")
        if force_fields.MMFFHasAllMoleculeParams(molecule):
            force_fields.MMFFOptimizeMolecule(molecule, maxIters=2000)
        elif force_fields.UFFHasAllMoleculeParams(molecule):
            force_fields.UFFOptimizeMolecule(molecule, maxIters=2000)
    symbols = tuple(atom.GetSymbol() for atom in molecule.GetAtoms())
    bonds = tuple(
        (min(b.GetBeginAtomIdx(), b.GetEndAtomIdx()), max(b.GetBeginAtomIdx(), b.GetEndAtomIdx()))
        for b in molecule.GetBonds()
    )
    return symbols, molecule.GetConformer().GetPositions(), bonds, Chem.GetFormalCharge(molecule)
