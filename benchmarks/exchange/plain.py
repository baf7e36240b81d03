"""The plain script of a PySCF user for one high-spin and broken-symmetry pair: every setting is PySCF's default.

It imports nothing of this project. The broken-symmetry guess is the recipe of PySCF's own example: α and β density
exchanged on the flipped atoms.

    python benchmarks/exchange/plain.py JOB.json RESULT.json
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from pyscf import dft, gto


def main(job_path: str, result_path: str) -> None:
    """Run the pair that the job describes and write energies, <S^2>, cycles and seconds."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    start = time.perf_counter()
    states = []
    density = None
    for n_unpaired in (job["n_unpaired_hs"], job["n_unpaired_bs"]):
        mole = gto.M(atom=job["atoms"], basis=job["basis"], charge=job["charge"], spin=n_unpaired, verbose=0)
        field = dft.UKS(mole)
        field.xc = job["xc"]
        cycles: list[float] = []
        field.callback = lambda variables, seen=cycles: seen.append(variables["e_tot"])
        field.kernel(dm0=density)
        states.append(
            {
                "energy_hartree": float(field.e_tot),
                "s2": float(field.spin_square()[0]),
                "cycles": len(cycles),
                "converged": bool(field.converged),
            }
        )
        density = np.array(field.make_rdm1())
        for atom in job["flipped_atoms"]:
            first, last = mole.aoslice_by_atom()[atom, 2:]
            density[:, first:last, first:last] = density[::-1, first:last, first:last].copy()
    record = {"states": states, "seconds": time.perf_counter() - start}
    Path(result_path).write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
