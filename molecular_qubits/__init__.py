"""Radical-triplet exchange couplings from broken-symmetry DFT and open-system spin dynamics of molecular qubits.

Importing the package loads neither pyscf nor qutip nor jax: public names are resolved on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "structure.molecule": ["Molecule"],
        "electronic.errors": ["SCFNotConvergedError", "WrongStateError"],
        "electronic.exchange": ["ExchangeResult", "exchange_couplings", "map_heisenberg", "project_j"],
        "electronic.full_ci": ["full_ci_gap"],
        "spins.system": ["SpinSystem"],
        "spins.unit": ["TwoQubitUnit"],
        "spins.evolution": ["evolve", "evolve_sweep"],
        "spins.trajectory": ["Trajectory"],
        "spins.observables": ["concurrence", "fidelity", "log_negativity", "purity"],
        "spins.zfs": ["zfs_quartet", "zfs_quintet"],
    },
)
