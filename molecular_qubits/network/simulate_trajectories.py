"""Quantum trajectories at the level of gate channels: kets in place of matrices, an error that shots bring down."""

from __future__ import annotations

import numpy as np

from molecular_qubits.network import result as outcome
from molecular_qubits.network.program import Program
from molecular_qubits.network.transfer import to_kraus
from molecular_qubits.spins.operators import ComplexArray
from shared.progress import progress

_BLOCK = 64
"""Shots between two signs of progress."""


def memory_gib(n_sites: int) -> float:
    """Return what the simulation takes: a ket for each thread, two tables of indices, the ideal ket."""
    import numba

    return (16 * (numba.get_num_threads() + 2) + 16) * 2.0**n_sites / 2**30


def kraus_table(program: Program) -> tuple[np.ndarray, np.ndarray, ComplexArray]:
    """Return the sites (s, 2) of each step, where its Kraus operators begin (s + 1,), and all of them (k, 4, 4).

    One-site steps are written as two-site ones with a neighbour.
    """
    sites, offsets, kraus = [], [0], []
    made: dict[bytes, ComplexArray] = {}
    for step in program.fused.steps:
        key = step.channel.tobytes()
        if key not in made:
            made[key] = to_kraus(step.channel)
        operators = made[key]
        if len(step.sites) == 1:
            partner = step.sites[0] + 1 if step.sites[0] + 1 < program.n_sites else step.sites[0] - 1
            sites.append((step.sites[0], partner))
            operators = np.einsum("kab,cd->kacbd", operators, np.eye(2)).reshape(-1, 4, 4)
        else:
            sites.append((step.sites[0], step.sites[1]))
        kraus.append(operators)
        offsets.append(offsets[-1] + len(operators))
    table = np.concatenate(kraus) if kraus else np.zeros((0, 4, 4), dtype=complex)
    return np.array(sites, dtype=np.int64).reshape(-1, 2), np.array(offsets, dtype=np.int64), table


def simulate(program: Program, shots: int, seed: int) -> outcome.CircuitResult:
    """Run a program `shots` times; every trajectory gives one reading."""
    if program.n_sites == 1:  # the kernel knows pairs only: a second site that nothing touches
        program = _with_spectator(program)
    from molecular_qubits.network.trajectory_kernel import run

    n, m = program.n_sites, len(program.read)
    sites, offsets, kraus = kraus_table(program)
    values = 1 << (n - 1 - sites)
    effects = kraus.conj().swapaxes(1, 2) @ kraus
    index = outcome.bits(np.arange(2**n), n)
    rest = [site for site in range(n) if site not in program.read]
    logical, other = _number(index[:, list(program.read)]), _number(index[:, rest])
    del index
    ideal = np.ascontiguousarray(outcome.ideal_logical_ket(program), dtype=complex)
    start = (1 + program.initial[:, 3]) / 2
    rng = np.random.default_rng(seed)
    z, overlaps, samples = np.empty((shots, m)), np.empty(shots), np.empty(shots, dtype=np.int64)
    total = np.zeros(2**m if m <= outcome.LARGEST_TABLE else 0)
    with progress("trajectories", shots) as step:
        for begin in range(0, shots, _BLOCK):
            part = slice(begin, min(begin + _BLOCK, shots))
            count = part.stop - begin
            table = np.zeros((min(8, count), len(total)))
            run(
                start, values, offsets, kraus, effects, rng.random((count, n + len(sites) + 1)), logical, other, ideal,
                z[part], overlaps[part], samples[part], table,
            )  # fmt: skip
            total += table.sum(axis=0)
            step(count)
    confusion = program.confusion[list(program.read)]
    read = outcome.read_z(z, confusion)
    error = 1 / np.sqrt(max(shots - 1, 1))
    return outcome.CircuitResult(
        "trajectories", m, n, shots, seed, read.mean(axis=0), read.std(axis=0) * error,
        float(overlaps.mean()), float(overlaps.std() * error),
        outcome.read_table(total / shots, confusion) if len(total) else None,
        np.abs(ideal) ** 2 if len(total) else None,
        outcome.misread(outcome.bits(samples, m), confusion, rng), {"steps": len(sites), "operators": len(kraus)},
    )  # fmt: skip


def _number(rows: np.ndarray) -> np.ndarray:
    weights = 1 << np.arange(rows.shape[1] - 1, -1, -1, dtype=np.int64)
    return np.asarray(rows @ weights, dtype=np.int64) if rows.shape[1] else np.zeros(len(rows), dtype=np.int64)


def _with_spectator(program: Program) -> Program:
    from dataclasses import replace

    return replace(
        program,
        n_sites=2,
        initial=np.concatenate([program.initial, [[1.0, 0.0, 0.0, 1.0]]]),
        confusion=np.concatenate([program.confusion, np.eye(2)[None]]),
        labels=(*program.labels, -1),
    )
