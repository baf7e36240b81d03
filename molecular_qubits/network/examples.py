"""Circuits to try a network with, as OpenQASM 2: GHZ states, QAOA for MaxCut, Trotter steps, random layers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from molecular_qubits.spins.operators import ComplexArray, FloatArray

Edges = Sequence[tuple[int, int]]


def qasm(n_qubits: int, lines: Iterable[str]) -> str:
    """Return a program of OpenQASM 2 on the register q."""
    return "\n".join(["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{n_qubits}];", *lines, ""])


def square_edges(rows: int, columns: int) -> list[tuple[int, int]]:
    """Return the pairs of neighbours on a square lattice, qubit = row * columns + column."""
    places = [(row, column) for row in range(rows) for column in range(columns)]
    return [
        (row * columns + column, other * columns + beside)
        for row, column in places
        for other, beside in ((row, column + 1), (row + 1, column))
        if other < rows and beside < columns
    ]


def ghz(n_qubits: int, edges: Edges | None = None) -> str:
    """Return the circuit of (|0...0> + |1...1>) / sqrt 2.

    Parameters
    ----------
    n_qubits
        At least 1.
    edges
        Pairs that may be joined; the CNOTs grow from the middle of this graph outwards, which takes as many rounds as
        its radius. Neighbours in a chain by default.

    Raises
    ------
    ValueError
        If the edges do not join all qubits.
    """
    near: dict[int, list[int]] = {qubit: [] for qubit in range(n_qubits)}
    for a, b in [(q, q + 1) for q in range(n_qubits - 1)] if edges is None else edges:
        near[a].append(b)
        near[b].append(a)
    trees = {start: _tree(start, near) for start in near}
    start = min(trees, key=lambda q: (len(trees[q]) < n_qubits - 1, max((d for _, _, d in trees[q]), default=0)))
    if len(trees[start]) < n_qubits - 1:
        joined = 1 + max(map(len, trees.values()))
        raise ValueError(f"Argument `edges` must join all {n_qubits} qubits, but joins {joined} at most.")
    return qasm(n_qubits, [f"h q[{start}];", *(f"cx q[{a}],q[{b}];" for a, b, _ in trees[start])])


def _tree(start: int, near: dict[int, list[int]]) -> list[tuple[int, int, int]]:
    """Return parent, child and depth of a breadth-first tree."""
    found, seen, queue = [], {start}, deque([(start, 0)])
    while queue:
        qubit, depth = queue.popleft()
        for other in near[qubit]:
            if other not in seen:
                seen.add(other)
                found.append((qubit, other, depth + 1))
                queue.append((other, depth + 1))
    return found


def qaoa(n_qubits: int, edges: Edges, gammas: Sequence[float], betas: Sequence[float]) -> str:
    """Return the circuit of the quantum approximate optimisation algorithm for MaxCut.

    Parameters
    ----------
    n_qubits, edges
        The graph.
    gammas, betas
        Angles of each round: exp(-i gamma/2 sum Z Z), then exp(-i beta sum X).

    References
    ----------
    E. Farhi, J. Goldstone, S. Gutmann, arXiv:1411.4028 (2014).
    """
    lines = [f"h q[{qubit}];" for qubit in range(n_qubits)]
    for gamma, beta in zip(gammas, betas, strict=True):
        lines += [f"rzz({gamma!r}) q[{a}],q[{b}];" for a, b in edges]
        lines += [f"rx({2 * beta!r}) q[{qubit}];" for qubit in range(n_qubits)]
    return qasm(n_qubits, lines)


def cut_sizes(n_qubits: int, edges: Edges) -> FloatArray:
    """Return the size of the cut of every bit string, (2^n,), first qubit most significant."""
    index = np.arange(2**n_qubits)
    side = [(index >> (n_qubits - 1 - qubit)) & 1 for qubit in range(n_qubits)]
    return np.sum([side[a] != side[b] for a, b in edges], axis=0).astype(float)


def best_qaoa_angles(n_qubits: int, edges: Edges, rounds: int = 1) -> tuple[list[float], list[float], float]:
    """Return the angles with the largest mean cut without noise, and that cut; local optimisation from a grid.

    Parameters
    ----------
    n_qubits, edges
        The graph, of at most some 16 qubits.
    rounds
        Pairs of angles.
    """
    gammas, betas, cut = _best_angles(n_qubits, tuple((a, b) for a, b in edges), rounds)
    return list(gammas), list(betas), cut


@lru_cache(maxsize=32)
def _best_angles(
    n_qubits: int, edges: tuple[tuple[int, int], ...], rounds: int
) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    from scipy.optimize import minimize

    cuts = cut_sizes(n_qubits, edges)
    energy = len(edges) - 2 * cuts

    def loss(angles: FloatArray) -> float:
        state: ComplexArray = np.full((2,) * n_qubits, 2 ** (-n_qubits / 2), dtype=complex)
        for gamma, beta in zip(angles[:rounds], angles[rounds:], strict=True):
            state = (state.reshape(-1) * np.exp(-0.5j * gamma * energy)).reshape((2,) * n_qubits)
            turn = np.array([[np.cos(beta), -1j * np.sin(beta)], [-1j * np.sin(beta), np.cos(beta)]])
            for qubit in range(n_qubits):
                state = np.moveaxis(np.tensordot(turn, state, axes=(1, qubit)), 0, qubit)
        return -float(np.sum(np.abs(state.reshape(-1)) ** 2 * cuts))

    ramp = (np.arange(rounds) + 0.5) / rounds
    starts = [np.concatenate([s * ramp, t * (1 - ramp)]) for s in (-1.2, -0.7, 0.7, 1.2) for t in (0.4, 0.8)]
    found = min((minimize(loss, start, method="BFGS") for start in starts), key=lambda result: float(result.fun))
    angles = [float(angle) for angle in found.x]
    return tuple(angles[:rounds]), tuple(angles[rounds:]), -float(found.fun)


def trotter_ising(n_qubits: int, edges: Edges, j: float, h: float, time: float, steps: int) -> str:
    """Return Trotter steps of exp(-i H t), H = -J sum Z Z - h sum X, second order, from |0...0>.

    Parameters
    ----------
    n_qubits, edges
        The lattice.
    j, h
        Coupling and transverse field.
    time
        Total time, in the inverse unit of `j` and `h`.
    steps
        Number of equal steps.
    """
    step = time / steps
    half = [f"rx({-h * step!r}) q[{qubit}];" for qubit in range(n_qubits)]
    zz = [f"rzz({-2 * j * step!r}) q[{a}],q[{b}];" for a, b in edges]
    return qasm(n_qubits, [*half, *zz, *half] * steps)


def ising_magnetisation(n_qubits: int, edges: Edges, j: float, h: float, times: Sequence[float]) -> FloatArray:
    """Return the mean <Z> over the qubits under exp(-i H t) from |0...0>, exactly, for times (t,)."""
    from scipy.sparse import csr_array, eye_array, kron
    from scipy.sparse.linalg import expm_multiply

    x = csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    index = np.arange(2**n_qubits)
    signs = [1 - 2 * ((index >> (n_qubits - 1 - qubit)) & 1) for qubit in range(n_qubits)]
    diagonal = -j * np.sum([signs[a] * signs[b] for a, b in edges], axis=0)
    hamiltonian = csr_array((diagonal.astype(float), (index, index)), shape=(2**n_qubits,) * 2)
    for qubit in range(n_qubits):
        hamiltonian = hamiltonian - h * kron(kron(eye_array(2**qubit), x), eye_array(2 ** (n_qubits - 1 - qubit)))
    start = np.zeros(2**n_qubits, dtype=complex)
    start[0] = 1
    mean = np.mean(signs, axis=0)
    states = [expm_multiply(-1j * time * hamiltonian, start, traceA=-1j * time * hamiltonian.trace()) for time in times]
    return np.array([np.sum(np.abs(state) ** 2 * mean) for state in states])


def random_layers(n_qubits: int, edges: Edges, depth: int, seed: int, *, clifford: bool = False) -> str:
    """Return layers of random rotations on all qubits, each followed by CZ on a random set of disjoint edges.

    Parameters
    ----------
    n_qubits, edges
        Where CZ may act.
    depth
        Number of layers.
    seed
        Of the choices.
    clifford
        Rotations from H, S and their products in place of any.
    """
    rng = np.random.default_rng(seed)
    lines: list[str] = []
    for _ in range(depth):
        for qubit in range(n_qubits):
            if clifford:
                lines += [f"{gate} q[{qubit}];" for gate in rng.choice(["h", "s", "sdg", "x"], 2)]
            else:
                angles = ",".join(repr(float(angle)) for angle in rng.uniform(0, 2 * np.pi, 3))
                lines.append(f"u3({angles}) q[{qubit}];")
        used: set[int] = set()
        for k in rng.permutation(len(edges)):
            a, b = edges[k]
            if not used & {a, b}:
                used |= {a, b}
                lines.append(f"cz q[{a}],q[{b}];")
    return qasm(n_qubits, lines)
