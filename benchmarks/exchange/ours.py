"""The same pair by this package, in a process of its own and with an empty cache.

python -m benchmarks.exchange.ours JOB.json RESULT.json
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from molecular_qubits import Molecule, exchange_couplings
from shared.artifacts import Cache


def main(job_path: str, result_path: str) -> None:
    """Run the pair that the job describes and write energies, <S^2>, cycles and seconds."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = exchange_couplings(
            Molecule.from_dict(job["molecule"]),
            job["centres"],
            spins=job["spins"],
            xc=job["xc"],
            basis=job["basis"],
            cache=Cache(folder),
            **job["options"],
        )
    states = [
        {"energy_hartree": state.energy_hartree, "s2": state.s2, "cycles": state.cycles, "converged": True}
        for state in result.states
    ]
    record = {"states": states, "seconds": time.perf_counter() - start}
    Path(result_path).write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
