"""Quantum trajectories by QuTiP's Monte Carlo solver: kets in place of matrices, errors of 1/sqrt(n)."""

from typing import Any

import numpy as np

from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.problem import Problem


def solve(problem: Problem, n_trajectories: int = 500, seed: int = 0) -> ComplexArray:
    """Propagate by quantum jumps.

    Parameters
    ----------
    problem
        The checked problem.
    n_trajectories
        Number of trajectories; pieces and initial state share them.
    seed
        Of the jumps.

    Returns
    -------
    ndarray of complex, shape (n, D, D)
        Means over the trajectories.

    Raises
    ------
    ValueError
        If a channel is not of Lindblad form, or the number is below 1.
    """
    from qutip import Qobj, QobjEvo, mcsolve

    if n_trajectories < 1:
        raise ValueError(f"Argument `n_trajectories` must be at least 1, but was {n_trajectories}.")
    if any(piece.superoperator is not None for piece in problem.pieces):
        raise ValueError(
            "Argument `solver` must not be 'trajectories' with a channel that is not of Lindblad form (Redfield, "
            "Haberkorn); use 'expm'."
        )
    if not problem.pieces:
        return problem.initial[None]
    dims = [list(problem.dims), list(problem.dims)]

    def switched(matrix: ComplexArray, start: float, stop: float) -> Any:
        last = stop == problem.pieces[-1].stop_ns

        def on(t: float) -> float:
            return float(start <= t < stop or (last and t >= stop))

        return QobjEvo([[Qobj(matrix, dims=dims), on]])

    hamiltonian = sum(
        (switched(piece.hamiltonian, piece.start_ns, piece.stop_ns) for piece in problem.pieces),
        QobjEvo(Qobj(np.zeros_like(problem.initial), dims=dims)),
    )
    jumps = [switched(jump, piece.start_ns, piece.stop_ns) for piece in problem.pieces for jump in piece.jumps]
    values, vectors = np.linalg.eigh(problem.initial)
    kept = values > 1e-12
    weights = values[kept] / values[kept].sum()
    kets = [Qobj(column, dims=[list(problem.dims), [1] * len(problem.dims)]) for column in vectors.T[kept]]
    options = {"store_states": True, "progress_bar": "", "atol": 1e-9, "rtol": 1e-7, "nsteps": 10**6}
    options["max_step"] = min(piece.stop_ns - piece.start_ns for piece in problem.pieces) / 4
    if not jumps:
        jumps = [Qobj(np.zeros_like(problem.initial), dims=dims)]
    found = np.zeros((len(problem.times_ns), problem.dimension, problem.dimension), dtype=complex)
    counts = np.maximum(1, np.round(weights * n_trajectories)).astype(int)
    for number, (ket, weight, count) in enumerate(zip(kets, weights, counts, strict=True)):
        seeds = np.random.SeedSequence((seed, number))
        result = mcsolve(hamiltonian, ket, problem.times_ns, jumps, ntraj=int(count), seeds=seeds, options=options)
        found += weight * np.array([state.full() for state in result.average_states])
    return found
