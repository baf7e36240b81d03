"""The work on one candidate: geometry in the wanted spin state, then exchange; every step is kept in a cache."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from molecular_qubits.screening.assembly import Structure
from shared.artifacts import Cache, versions
from shared.config import FrozenConfig

RESOLUTION_FACTOR = 2.0
"""Energies that enter a coupling, each converged to the tolerance of the field."""


class Stage(FrozenConfig):
    """One level of theory.

    Parameters
    ----------
    xc, basis, grid_level, conv_tol
        Kohn-Sham fields, see `exchange_couplings`; fitted densities.
    max_atoms
        Larger molecules are not computed.
    keep
        Number of candidates, the best of the stage before that are not too large, that this stage computes; ``None``
        for all.
    finished_only
        Compute no coupling of this level: take what is finished or known.
    solvers
        The fallback ladder, see `exchange_couplings`; by default without second-order steps, which may take an hour.
    fmax_ev_per_angstrom
        Largest force that GFN2-xTB leaves.
    """

    xc: str = "b3lyp"
    basis: str = "sto-3g"
    grid_level: int = Field(0, ge=0, le=9)
    conv_tol: float = Field(1e-6, gt=0, le=1e-3)
    solvers: tuple[Literal["diis", "level shift", "newton"], ...] = Field(("diis", "level shift"), min_length=1)
    keep: int | None = Field(None, ge=1)
    max_atoms: int | None = Field(None, ge=1)
    finished_only: bool = False
    fmax_ev_per_angstrom: float = Field(0.05, gt=0)


@dataclass(frozen=True)
class Job:
    """One coupling of one structure at one level.

    ``state`` is ``"on"`` (coupler in its triplet state) or ``"off"`` (closed shell).
    """

    name: str
    structure: Structure
    state: str
    stage: Stage
    cache: str | None = None

    @property
    def spins(self) -> tuple[float, ...]:
        """Spin of each centre: radicals, then the coupler if it is lit."""
        return (0.5,) * len(self.structure.radicals) + ((1.0,) if self.state == "on" else ())

    @property
    def centres(self) -> tuple[tuple[int, ...], ...]:
        """Atoms of each centre."""
        return self.structure.radicals + ((self.structure.coupler,) if self.state == "on" else ())

    @property
    def key(self) -> dict[str, Any]:
        """Return everything that a finished result depends on."""
        level = self.stage.model_dump(exclude={"keep", "max_atoms", "solvers", "finished_only"})
        return {
            "kind": "screening",
            "smiles": self.structure.smiles,
            "centres": [list(atoms) for atoms in self.centres],
            "spins": list(self.spins),
            "level": level,
            "versions": versions(("tblite", "pyscf", "rdkit", "ase")),
            **({"yamaguchi": "total spin", "pairs": "each"} if len(self.spins) > 2 else {}),
        }


def n_atoms(smiles: str) -> int:
    """Return the number of atoms of a SMILES, hydrogens included."""
    from rdkit import Chem

    return int(Chem.AddHs(Chem.MolFromSmiles(smiles)).GetNumAtoms())


def finished(job: Job) -> dict[str, Any] | None:
    """Return the record of a job that was done before, or ``None``."""
    path = Cache(job.cache, name="screening").path(job.key) / "coupling.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def run_job(job: Job) -> dict[str, Any]:
    """Compute a coupling, or read it from the cache.

    Parameters
    ----------
    job
        What to compute.

    Returns
    -------
    dict
        ``j_cm1`` (Yamaguchi; the mean over the radicals of a whole molecule), ``projections_cm1`` (Yamaguchi,
        Noodleman, unprojected), ``pairs_cm1`` (Yamaguchi, of each radical of a whole molecule with the coupler; absent
        where there is one pair), ``resolution_cm1`` (what the convergence of the energies leaves), ``s2``, ``n_atoms``
        and ``seconds`` of the fields.

    Raises
    ------
    ValueError
        If the structure cannot be embedded or cannot have the spins.
    GeometryNotConvergedError, SCFNotConvergedError, WrongStateError
        If a step failed.
    """
    return dict(Cache(job.cache, name="screening").record("coupling.json", job.key, lambda: _compute(job)))


def geometry(job: Job) -> Any:
    """Return the relaxed `Molecule` of a job: ETKDG, torsions turned off the symmetric values, then GFN2-xTB."""
    from molecular_qubits.structure.library import start_geometry
    from molecular_qubits.structure.molecule import Molecule

    multiplicity = round(2 * sum(job.spins)) + 1
    fmax = job.stage.fmax_ev_per_angstrom
    key = {
        "kind": "screening geometry",
        "smiles": job.structure.smiles,
        "multiplicity": multiplicity,
        "fmax_ev_per_angstrom": fmax,
        "versions": versions(("tblite", "rdkit", "ase")),
    }

    def make() -> dict[str, Any]:
        start = start_geometry(Molecule.from_smiles(job.structure.smiles))
        return start.optimize("gfn2", multiplicity, fmax_ev_per_angstrom=fmax).to_dict()

    return Molecule.from_dict(Cache(job.cache, name="geometry").record("molecule.json", key, make))


def _compute(job: Job) -> dict[str, Any]:
    import numpy as np

    from molecular_qubits.electronic.exchange import exchange_couplings
    from molecular_qubits.units import HARTREE_TO_CM1

    molecule = geometry(job)
    result = exchange_couplings(
        molecule,
        job.centres,
        spins=job.spins,
        xc=job.stage.xc,
        basis=job.stage.basis,
        grid_level=job.stage.grid_level,
        conv_tol=job.stage.conv_tol,
        solvers=job.stage.solvers,
        density_fit=True,
        stability=False,
        cache=Cache(job.cache, name="scf"),
    )
    pairs = [(i, len(job.centres) - 1) for i in range(len(job.structure.radicals))] if job.state == "on" else [(0, 1)]
    by_projection = [
        float(np.mean([matrix[pair] for pair in pairs]))
        for matrix in (result.j_yamaguchi_cm1, result.j_noodleman_cm1, result.j_unprojected_cm1)
    ]
    gap_per_j = 4 * job.spins[0] * job.spins[-1]
    return {
        "j_cm1": by_projection[0],
        "projections_cm1": by_projection,
        **({"pairs_cm1": [float(result.j_yamaguchi_cm1[pair]) for pair in pairs]} if len(pairs) > 1 else {}),
        "resolution_cm1": RESOLUTION_FACTOR * job.stage.conv_tol * HARTREE_TO_CM1 / gap_per_j,
        "s2": [state.s2 for state in result.states],
        "n_atoms": molecule.n_atoms,
        "seconds": round(sum(state.seconds for state in result.states), 2),
    }
