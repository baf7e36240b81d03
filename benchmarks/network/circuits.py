"""Circuits of the benchmark as OpenQASM 2, which all three compilers read (qutip-qip those without own gates)."""

from collections.abc import Callable

import numpy as np

HEAD = 'OPENQASM 2.0;\ninclude "qelib1.inc";\n'


def qft(n: int, *, plain: bool = False) -> str:
    """Quantum Fourier transform without the last SWAPs; `plain`: controlled phases written as CX and rz."""
    lines = [f"qreg q[{n}];"]
    for k in range(n):
        lines.append(f"h q[{k}];")
        for j in range(k + 1, n):
            half = f"pi/{2 ** (j - k + 1)}"
            if plain:
                lines += [f"rz({half}) q[{j}];", f"cx q[{j}],q[{k}];", f"rz(-{half}) q[{k}];", f"cx q[{j}],q[{k}];"]
                lines.append(f"rz({half}) q[{k}];")
            else:
                lines.append(f"cu1(2*{half}) q[{j}],q[{k}];")
    return HEAD + "\n".join(lines) + "\n"


def qaoa(n: int, seed: int = 0, layers: int = 2) -> str:
    """MaxCut on a random graph of mean degree 3."""
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for a in range(n) for b in range(a)]
    edges = [pairs[k] for k in rng.permutation(len(pairs))[: 3 * n // 2]]
    lines = [f"qreg q[{n}];", *(f"h q[{k}];" for k in range(n))]
    for layer in range(layers):
        for a, b in edges:
            lines += [f"cx q[{a}],q[{b}];", f"rz({0.3 + 0.2 * layer}) q[{b}];", f"cx q[{a}],q[{b}];"]
        lines += [f"rx({0.7 - 0.1 * layer}) q[{k}];" for k in range(n)]
    return HEAD + "\n".join(lines) + "\n"


def trotter(rows: int, columns: int, steps: int = 4) -> str:
    """Transverse-field Ising model on a square lattice, whose bonds are those of the network."""
    n = rows * columns
    bonds = [(s, s + 1) for s in range(n) if (s + 1) % columns] + [(s, s + columns) for s in range(n - columns)]
    lines = [f"qreg q[{n}];"]
    for _ in range(steps):
        lines += [f"rx(0.4) q[{k}];" for k in range(n)]
        for a, b in bonds:
            lines += [f"cx q[{a}],q[{b}];", f"rz(0.25) q[{b}];", f"cx q[{a}],q[{b}];"]
    return HEAD + "\n".join(lines) + "\n"


def adder(bits: int) -> str:
    """Ripple-carry adder of two numbers (Cuccaro), 2 bits + 2 qubits."""
    n = 2 * bits + 2
    lines = [f"qreg q[{n}];", "x q[1];", *(f"x q[{2 * k + 2}];" for k in range(bits))]
    triples = [(2 * k, 2 * k + 1, 2 * k + 2) for k in range(bits)]
    for c, b, a in triples:
        lines += [f"cx q[{a}],q[{b}];", f"cx q[{a}],q[{c}];", f"ccx q[{c}],q[{b}],q[{a}];"]
    lines.append(f"cx q[{n - 2}],q[{n - 1}];")
    for c, b, a in reversed(triples):
        lines += [f"ccx q[{c}],q[{b}],q[{a}];", f"cx q[{a}],q[{c}];", f"cx q[{c}],q[{b}];"]
    return HEAD + "\n".join(lines) + "\n"


def volume(n: int, seed: int = 0) -> str:
    """Layers of random pairs under random gates of three CX, as many layers as qubits (quantum volume)."""
    rng = np.random.default_rng(seed)
    lines = [f"qreg q[{n}];"]

    def turn(qubit: int) -> str:
        return f"u3({','.join(f'{angle:.12f}' for angle in rng.uniform(0, 2 * np.pi, 3))}) q[{qubit}];"

    for _ in range(n):
        order = rng.permutation(n)
        for a, b in zip(order[::2], order[1::2], strict=False):
            for first, second in ((a, b), (b, a), (a, b)):
                lines += [turn(a), turn(b), f"cx q[{first}],q[{second}];"]
            lines += [turn(a), turn(b)]
    return HEAD + "\n".join(lines) + "\n"


def ghz(n: int) -> str:
    """A chain of CX."""
    return HEAD + "\n".join([f"qreg q[{n}];", "h q[0];", *(f"cx q[{k}],q[{k + 1}];" for k in range(n - 1))]) + "\n"


ON_LATTICE: dict[str, tuple[int, Callable[[], str]]] = {
    "ghz, 9": (3, lambda: ghz(9)),
    "qft, 5": (3, lambda: qft(5)),
    "qft, 9": (3, lambda: qft(9)),
    "qaoa, 9": (3, lambda: qaoa(9)),
    "trotter, 3 x 3": (3, lambda: trotter(3, 3)),
    "adder, 8": (3, lambda: adder(3)),
    "volume, 9": (3, lambda: volume(9)),
    "qft, 16": (4, lambda: qft(16)),
    "qaoa, 16": (4, lambda: qaoa(16)),
    "adder, 16": (4, lambda: adder(7)),
    "volume, 16": (4, lambda: volume(16)),
}
"""Name, rows of the square lattice, program."""

ON_CHAIN: dict[str, tuple[int, Callable[[], str]]] = {
    "qft, 5": (5, lambda: qft(5, plain=True)),
    "qft, 9": (9, lambda: qft(9, plain=True)),
    "qaoa, 9": (9, lambda: qaoa(9)),
    "ghz, 9": (9, lambda: ghz(9)),
}
"""Name, sites of the chain, program: what qutip-qip's spin chain runs."""
