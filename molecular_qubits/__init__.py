"""Radical-triplet exchange couplings from broken-symmetry DFT and open-system spin dynamics of molecular qubits.

Importing the package loads neither pyscf nor qutip nor jax: public names are resolved on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "structure.molecule": ["Molecule"],
        "structure.memory": ["InsufficientMemoryError"],
        "structure.interfaces": ["as_molecule"],
        "structure.centres": ["chromophore_centre", "radical_centres"],
        "structure.conformers": ["find_conformers"],
        "structure.scans": ["scan_torsion"],
        "structure.view": ["view"],
        "control.fidelity": ["average_gate_fidelity", "best_local_fidelity", "decay_bound"],
        "control.pulses": ["ControlProblem", "optimise_pulse"],
        "control.switched_gate": ["GateConditions", "predict_gate"],
        "electronic.density_centres": ["centres_from_density"],
        "electronic.cube": ["write_spin_density_cube"],
        "electronic.errors": ["SCFNotConvergedError", "WrongStateError"],
        "electronic.exchange": ["ExchangeResult", "exchange_couplings", "map_heisenberg", "map_yamaguchi", "project_j"],
        "electronic.full_ci": ["full_ci_gap"],
        "electronic.hyperfine": ["hyperfine_couplings"],
        "electronic.orca": ["read_orca"],
        "electronic.spin_centres": ["find_spin_centres"],
        "electronic.spin_spin": ["partial_spin_tensors", "spin_spin_zfs"],
        "electronic.thermal_average": ["boltzmann_average"],
        "electronic.uncertainty": ["combine_errors", "ratio_or_bound"],
        "network.circuits": ["Circuit", "read_circuit"],
        "network.compiler": ["compile_circuit"],
        "network.disorder": ["Disorder"],
        "network.lattice": ["MolecularNetwork"],
        "network.molecules": ["Coupler", "Microwaves", "Preparation", "Radical", "Readout"],
        "network.optics": ["Optics"],
        "network.noise": ["GateChannels", "NoiseSettings"],
        "network.simulate": ["run_circuit"],
        "screening.run": ["ScreeningConfig", "screen"],
        "spins.system": ["SpinSystem"],
        "spins.unit": ["TwoQubitUnit"],
        "spins.evolution": ["evolve", "evolve_sweep"],
        "spins.trajectory": ["Trajectory", "sweep_dataset"],
        "spins.observables": ["concurrence", "correlator_witness", "fidelity", "log_negativity", "purity"],
        "spins.epr.spectrum": ["epr_spectrum", "zero_field_state"],
        "spins.zfs": ["zfs_quartet", "zfs_quintet"],
    },
)
