"""Density matrices as matrix-product states over the Paulis (quimb): deterministic, with a truncation error.

The state is the tensor of the expectation values of all Pauli products, real, four values a site. Noise keeps its bonds
small. Errors of the truncated weights are relative to the norm of that tensor, whose square is 2^n times the purity.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from molecular_qubits.network import result as outcome
from molecular_qubits.network.program import Program
from molecular_qubits.network.transfer import PAULIS
from molecular_qubits.spins.operators import FloatArray
from shared.progress import progress

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductState

CUTOFF = 1e-14
"""Default weight that each splitting may lose, relative to the squared norm."""

MAX_BOND = 512
"""Default largest bond dimension."""

_SPLIT = np.array([[0.5, 0, 0, 0.5], [0.5, 0, 0, -0.5]])


def memory_gib(n_sites: int, max_bond: int = MAX_BOND) -> float:
    """Return what the simulation takes at most: all tensors at the largest bond, and the work space of one split."""
    bond = min(float(max_bond), 4.0 ** (n_sites // 2))
    return 8 * (n_sites * 4 * bond**2 + 4 * 16 * bond**2) / 2**30


def chain_order(program: Program) -> list[int]:
    """Return an order of the sites in which those that steps join are near: reverse Cuthill-McKee."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    pairs = [step.sites for step in program.steps if len(step.sites) == 2]
    if not pairs:
        return list(range(program.n_sites))
    rows, columns = np.array([*pairs, *((b, a) for a, b in pairs)]).T
    graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(program.n_sites,) * 2)
    return [int(site) for site in reverse_cuthill_mckee(csr_array(graph), symmetric_mode=True)]


def evolve(
    program: Program, order: list[int], *, max_bond: int = MAX_BOND, cutoff: float = CUTOFF, pauli: bool = True
) -> MatrixProductState:
    """Run the steps on a chain of sites.

    Parameters
    ----------
    program
        What to run.
    order
        Which site is at each place of the chain.
    max_bond, cutoff
        Largest bond dimension, and weight that each splitting may lose.
    pauli
        Expectation values of Paulis under the channels; otherwise the ket of the ideal circuit.

    Returns
    -------
    quimb.tensor.MatrixProductState
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quimb warns of optional packages that are not needed here
        import quimb.tensor as tensors

        place = {site: position for position, site in enumerate(order)}
        initial = program.initial if pauli else np.tile(np.array([1.0, 0.0], dtype=complex), (program.n_sites, 1))
        state = tensors.MPS_product_state([initial[site] for site in order])
        info: dict[str, Any] = {"cur_orthog": (0, 0)}
        state.canonicalize_(0)
        with progress("matrix-product state", len(program.fused.steps)) as tick:
            for step in program.fused.steps:
                gate = step.channel if pauli else step.ideal
                where = tuple(place[site] for site in step.sites)
                if len(where) == 1:
                    state.gate_(gate, where, contract=True)
                else:
                    state.gate_with_auto_swap_(
                        gate, where, info=info, max_bond=max_bond, cutoff=cutoff, cutoff_mode="rsum2"
                    )
                tick(1, f"bond {state.max_bond()}")
    return state


def chain_tensors(state: MatrixProductState) -> list[np.ndarray]:
    """Return the tensors (left, physical, right), with ends of dimension 1."""
    n = state.L
    found = []
    for position in range(n):
        tensor = state[position]
        left = [state.bond(position - 1, position)] if position > 0 else []
        right = [state.bond(position, position + 1)] if position < n - 1 else []
        data = tensor.transpose(*left, state.site_ind(position), *right).data
        shape = (data.shape[0] if left else 1, data.shape[len(left)], data.shape[-1] if right else 1)
        found.append(np.asarray(data).reshape(shape))
    return found


def logical_table(tensors: list[FloatArray], order: list[int], read: tuple[int, ...]) -> FloatArray:
    """Return the probabilities (2^m,) of the logical qubits' bit strings, in their order."""
    found, axes = np.ones((1, 1)), []
    for tensor, site in zip(tensors, order, strict=True):
        if site in read:
            found = np.tensordot(found, np.einsum("bp,lpr->lbr", _SPLIT, tensor), axes=(-1, 0))
            found = found.reshape(-1, found.shape[-1])
            axes.append(read.index(site))
        else:
            found = found @ tensor[:, 0]
    table = found[:, 0].reshape((2,) * len(axes))
    return np.asarray(table.transpose(np.argsort(axes)).reshape(-1))


def logical_z(tensors: list[FloatArray], order: list[int], read: tuple[int, ...]) -> FloatArray:
    """Return <Z> (m,) of the logical qubits."""
    right = _right_environments([tensor[:, 0] for tensor in tensors])
    left, found = np.ones(1), np.zeros(len(read))
    for position, (tensor, site) in enumerate(zip(tensors, order, strict=True)):
        if site in read:
            found[read.index(site)] = left @ tensor[:, 3] @ right[position + 1]
        left = left @ tensor[:, 0]
    return found


def pure_fidelity(tensors: list[FloatArray], kets: list[np.ndarray], order: list[int], read: tuple[int, ...]) -> float:
    """Return <psi|rho|psi> of the logical qubits, of a chain of Pauli values and one of a ket, (left, 2, right)."""
    left: Any = np.ones((1, 1, 1), dtype=complex)
    for tensor, ket, site in zip(tensors, kets, order, strict=True):
        part = np.tensordot(left, tensor if site in read else tensor[:, :1], axes=(0, 0))  # k b p r
        paulis = PAULIS / 2 if site in read else PAULIS[:1]
        part = np.tensordot(part, ket, axes=(0, 0))  # b p r s k
        part = np.einsum("bprsk,pcs->brckp", part, paulis, optimize=True).sum(axis=-1)
        part = np.tensordot(part, ket.conj(), axes=((0, 2), (0, 1)))  # r k b
        left = part
    return float(left[0, 0, 0].real)


def draw(
    tensors: list[FloatArray], order: list[int], read: tuple[int, ...], shots: int, rng: np.random.Generator
) -> np.ndarray:
    """Return bit strings (shots, m) drawn site by site, each conditioned on those before it."""
    right = _right_environments([tensor[:, 0] for tensor in tensors])
    samples = np.zeros((shots, len(read)), dtype=bool)
    left = np.ones((shots, 1))
    for position, (tensor, site) in enumerate(zip(tensors, order, strict=True)):
        if site not in read:
            left = left @ tensor[:, 0]
            continue
        both = np.einsum("sl,bp,lpr->bsr", left, _SPLIT, tensor, optimize=True)
        weights = np.clip(both @ right[position + 1], 0, None)
        one = rng.random(shots) * weights.sum(axis=0) >= weights[0]
        samples[:, read.index(site)] = one
        chosen = np.where(one, 1, 0)
        left = both[chosen, np.arange(shots)] / np.maximum(weights[chosen, np.arange(shots)], 1e-300)[:, None]
    return samples


def _right_environments(matrices: list[FloatArray]) -> list[FloatArray]:
    found = [np.ones(1)]
    for matrix in reversed(matrices):
        found.append(matrix @ found[-1])
    return found[::-1]


def simulate(
    program: Program, shots: int, seed: int, *, max_bond: int = MAX_BOND, cutoff: float = CUTOFF
) -> outcome.CircuitResult:
    """Run a program as a matrix-product state."""
    order, read = chain_order(program), program.read
    state = evolve(program, order, max_bond=max_bond, cutoff=cutoff)
    tensors = chain_tensors(state)
    trace = float(_right_environments([tensor[:, 0] for tensor in tensors])[0][0])
    tensors[0] = tensors[0] / trace
    ket = evolve(program, order, max_bond=max_bond, cutoff=cutoff, pauli=False)
    kets = chain_tensors(ket)
    fidelity = pure_fidelity(tensors, kets, order, read)
    m, confusion = len(read), program.confusion[list(read)]
    small = m <= outcome.LARGEST_TABLE
    rng = np.random.default_rng(seed)
    details = {
        "largest bond": int(state.max_bond() or 1), "bond limit": max_bond, "cutoff": cutoff,
        "trace before it was set to 1": trace, "largest bond of the ideal state": int(ket.max_bond() or 1),
    }  # fmt: skip
    return outcome.CircuitResult(
        "mps", m, program.n_sites, shots, seed, outcome.read_z(logical_z(tensors, order, read), confusion), np.zeros(m),
        fidelity, 0.0, outcome.read_table(logical_table(tensors, order, read), confusion) if small else None,
        np.abs(_ideal_amplitudes(kets, order, read)) ** 2 if m == program.n_sites and small else None,
        outcome.misread(draw(tensors, order, read, shots, rng), confusion, rng), details,
    )  # fmt: skip


def _ideal_amplitudes(kets: list[np.ndarray], order: list[int], read: tuple[int, ...]) -> np.ndarray:
    found: Any = np.ones((1, 1), dtype=complex)
    for ket in kets:
        found = np.tensordot(found, ket, axes=(-1, 0)).reshape(-1, ket.shape[-1])
    axes = [read.index(site) for site in order]
    return np.asarray(found[:, 0].reshape((2,) * len(axes)).transpose(np.argsort(axes)).reshape(-1))
