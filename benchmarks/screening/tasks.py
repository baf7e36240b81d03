"""The tasks of the benchmark, in a module that worker processes can import."""

from shared.artifacts import Cache, write_json


def empty_task(item: tuple[str, int]) -> int:
    """Write a cache entry, as every screening task does, and return the number."""
    folder, number = item
    entry = Cache(folder, name="empty").get_or_make(
        {"number": number}, lambda path: write_json(path / "x.json", number)
    )
    return number if entry.is_dir() else -1


def busy_task(turns: int) -> int:
    """Count in pure Python: work that needs a processor and no memory."""
    total = 0
    for number in range(turns):
        total += number * number % 7
    return total


def geometry_task(smiles: str) -> int:
    """Relax an arm of a candidate in its quartet state with GFN2-xTB and return its number of atoms."""
    from molecular_qubits.structure.library import start_geometry
    from molecular_qubits.structure.molecule import Molecule

    start = start_geometry(Molecule.from_smiles(smiles))
    return start.optimize("gfn2", 4, fmax_ev_per_angstrom=0.05).n_atoms
