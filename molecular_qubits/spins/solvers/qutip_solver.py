"""The ODE solver of QuTiP, restarted where the generator changes. The reference on short windows."""

from typing import TYPE_CHECKING

import numpy as np

from molecular_qubits.spins.operators import ComplexArray
from molecular_qubits.spins.problem import Problem

if TYPE_CHECKING:
    from qutip import Qobj

LONGEST_PHASE_RAD = 1e7
"""Phase of the fastest coherence beyond which an ODE solver is refused."""


def solve(problem: Problem) -> ComplexArray:
    """Integrate the master equation with `qutip.mesolve`.

    Parameters
    ----------
    problem
        The checked problem.

    Returns
    -------
    ndarray of complex, shape (n, D, D)

    Raises
    ------
    ValueError
        If the fastest coherence turns by more than 1e7 rad.
    """
    from qutip import Qobj, liouvillian, mesolve

    for piece in problem.pieces:
        energies = np.linalg.eigvalsh(piece.hamiltonian)
        phase = float(energies[-1] - energies[0]) * (piece.stop_ns - piece.start_ns)
        if phase > LONGEST_PHASE_RAD:
            raise ValueError(
                f"Argument `solver` must be 'expm' or 'jax' here, but was 'qutip': between {piece.start_ns:g} and "
                f"{piece.stop_ns:g} ns the fastest coherence turns by {phase:.2g} rad, more than the "
                f"{LONGEST_PHASE_RAD:.0e} rad an ODE solver can follow."
            )
    dims = [list(problem.dims), list(problem.dims)]
    options = {
        "method": "vern9",
        "atol": 1e-13,
        "rtol": 1e-11,
        "nsteps": 10_000_000,
        "progress_bar": "",
        "store_states": True,
        "normalize_output": False,
    }
    state = Qobj(problem.initial, dims=dims)
    states = [problem.initial]
    for piece in problem.pieces:
        generator = liouvillian(_sparse(piece.hamiltonian, dims), [_sparse(jump, dims) for jump in piece.jumps])
        if piece.superoperator is not None:
            generator = generator + _column_major(piece.superoperator, dims)
        times = np.unique(np.concatenate([[piece.start_ns], piece.times_ns, [piece.stop_ns]]))
        result = mesolve(generator, state, times, options=options)
        wanted = set(piece.times_ns.tolist())
        states += [found.full() for time, found in zip(times, result.states, strict=True) if time in wanted]
        state = result.states[-1]
    return np.array(states)


def _sparse(matrix: ComplexArray, dims: list[list[int]]) -> "Qobj":
    from qutip import Qobj

    noise = 1e-14 * np.abs(matrix).max(initial=0.0)
    return Qobj(np.where(np.abs(matrix) > noise, matrix, 0), dims=dims).to("CSR")


def _column_major(superoperator: ComplexArray, dims: list[list[int]]) -> "Qobj":
    from qutip import Qobj

    d = int(np.sqrt(len(superoperator)))
    turned = superoperator.reshape(d, d, d, d).transpose(1, 0, 3, 2).reshape(d * d, d * d)
    return Qobj(turned, dims=[dims, dims]).to("CSR")
