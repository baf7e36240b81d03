"""Microwave pulses for two-qubit gates under relaxation: piecewise constant, optimised by gradients (GRAPE).

The generator of slice s is A_0 + sum_k u_sk A_k, real on the elements of the density matrix; the exponentials of the
slices are multiplied on the 16 Pauli inputs, and JAX differentiates the average gate fidelity of what comes out. The
amplitudes are u = F x with a low-pass filter F of positive rows of sum 1, so that bounds on x bound u as well.

N. Khaneja et al., J. Magnetic Resonance 172, 296 (2005); bandwidth limits: F. Motzoi et al., Phys. Rev. A 84, 022307
(2011).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import minimize

from molecular_qubits.control.fidelity import (
    PAULI_PRODUCTS,
    average_gate_fidelity,
    best_local_fidelity,
    transfer_matrix,
)
from molecular_qubits.spins.checks import density_matrix, positive
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from shared.progress import progress


@dataclass(frozen=True)
class ControlProblem:
    """What the pulse acts on.

    Attributes
    ----------
    static
        Hamiltonians without pulse of all members of the ensemble, (m, D, D) in rad/ns, in a frame in which they do not
        depend on time.
    controls
        Operators (k, D, D) that the pulse multiplies, e.g. S_x and S_y of the spins that it reaches.
    dims, qubits
        Dimensions of the sites, and the two sites of dimension 2 that are the qubits.
    rest_state
        State (d, d) of all other sites together at the start, of trace 1; they are traced out at the end. ``None`` if
        there are none.
    jumps
        Jump operators (q, D, D) in ns^-1/2.
    weights, scales
        Of the members: their weight in the mean, and the factor by which the pulse's amplitude differs, (m,) each; 1 by
        default.

    Raises
    ------
    ValueError
        If the shapes do not fit, a matrix is not Hermitian or `rest_state` is no state.
    """

    static: ComplexArray
    controls: ComplexArray
    dims: tuple[int, ...]
    qubits: tuple[int, int] = (0, 1)
    rest_state: ComplexArray | None = None
    jumps: ComplexArray | None = None
    weights: Sequence[float] | None = None
    scales: Sequence[float] | None = None

    def __post_init__(self) -> None:
        dimension = int(np.prod(self.dims))
        for name in ("static", "controls"):
            stack = np.asarray(getattr(self, name), dtype=complex)
            if stack.ndim != 3 or stack.shape[1:] != (dimension, dimension) or not len(stack):
                raise ValueError(
                    f"Argument `{name}` must have shape (n, {dimension}, {dimension}), but has {stack.shape}."
                )
            if not np.allclose(stack, stack.conj().swapaxes(1, 2), rtol=0, atol=1e-9 * (1 + np.abs(stack).max())):
                raise ValueError(f"Argument `{name}` must hold Hermitian matrices.")
        first, second = self.qubits
        if first == second or any(not 0 <= q < len(self.dims) or self.dims[q] != 2 for q in self.qubits):
            raise ValueError(f"Argument `qubits` must name two sites of dimension 2, but was {self.qubits}.")
        rest = dimension // 4
        if (rest > 1) != (self.rest_state is not None) or (
            self.rest_state is not None and np.shape(self.rest_state) != (rest, rest)
        ):
            raise ValueError(
                f"Argument `rest_state` must be a state ({rest}, {rest}) of the other sites, or None for 1."
            )
        if self.rest_state is not None:
            density_matrix(self.rest_state, rest, "rest_state")
        for name in ("weights", "scales"):
            given = getattr(self, name)
            if given is not None and (len(given) != len(self.static) or np.min(given) < 0 or np.sum(given) <= 0):
                raise ValueError(
                    f"Argument `{name}` must hold {len(self.static)} numbers, not negative, but was {given}."
                )

    def embedded(self, operator: ComplexArray, rest: Any) -> ComplexArray:
        """Return an operator (4, 4) of the qubits times one of the other sites, in the order of the sites."""
        others = [site for site in range(len(self.dims)) if site not in self.qubits]
        order = [*self.qubits, *others]
        shape = [self.dims[site] for site in order]
        tensor = np.kron(operator, rest).reshape(shape + shape)
        back = np.argsort(order)
        dimension = int(np.prod(self.dims))
        return tensor.transpose([*back, *(back + len(order))]).reshape(dimension, dimension)


@dataclass(frozen=True)
class OptimisedPulse:
    """A pulse and what it reaches.

    Attributes
    ----------
    amplitudes_rad_per_ns
        (n_slices, k).
    duration_ns
        Of the whole pulse.
    fidelity
        Mean over the ensemble.
    fidelities
        Of each member, (m,).
    history
        Mean fidelity after each iteration of the optimiser.
    target
        Pauli transfer matrix (16, 16) of the gate that is reached, with the best local rotations if they were free.
    """

    amplitudes_rad_per_ns: FloatArray
    duration_ns: float
    fidelity: float
    fidelities: FloatArray
    history: tuple[float, ...]
    target: FloatArray


def optimise_pulse(
    problem: ControlProblem,
    target: Any,
    duration_ns: float,
    n_slices: int,
    *,
    max_rad_per_ns: float,
    bandwidth_ghz: float | None = None,
    up_to_local: bool = False,
    iterations: int = 200,
    seed: int = 0,
) -> OptimisedPulse:
    """Maximise the average gate fidelity over the slices' amplitudes.

    Parameters
    ----------
    problem
        The spins, their relaxation and the ensemble.
    target
        The gate wanted, unitary (4, 4).
    duration_ns, n_slices
        Of the pulse; slices are equal.
    max_rad_per_ns
        Largest amplitude of each control (power limit).
    bandwidth_ghz
        The filter passes half the amplitude at this frequency; ``None``: no filter.
    up_to_local
        Whether any gate will do that differs from `target` by local rotations before and after.
    iterations
        Of L-BFGS, at most.
    seed
        Of the random start.

    Returns
    -------
    OptimisedPulse

    Raises
    ------
    ValueError
        If an argument is not as described.
    """
    duration, limit = positive(duration_ns, "duration_ns"), positive(max_rad_per_ns, "max_rad_per_ns")
    if n_slices < 1 or iterations < 1:
        raise ValueError(f"Arguments `n_slices`, `iterations` must be at least 1, but were {n_slices}, {iterations}.")
    gate = np.asarray(target, dtype=complex)
    if gate.shape != (4, 4) or not np.allclose(gate @ gate.conj().T, np.eye(4), rtol=0, atol=1e-9):
        raise ValueError(f"Argument `target` must be a unitary matrix (4, 4), but has shape {gate.shape}.")
    evaluate = PulseFidelity(problem, duration, n_slices, limit, bandwidth_ghz)
    shape = (n_slices, len(problem.controls))
    start = np.random.default_rng(seed).uniform(-limit / 2, limit / 2, shape)
    history: list[float] = []
    last = 0.0

    def wanted(x: FloatArray) -> FloatArray:
        if up_to_local:  # the best rotations change, but add nothing to the gradient there (envelope theorem)
            return best_local_fidelity(evaluate.mean_channel(x), gate, restarts=1, seed=seed)[1]
        return np.asarray(transfer_matrix(gate))

    with progress("pulse", total=iterations) as step:

        def loss(flat: FloatArray) -> Any:
            nonlocal last
            variables = flat.reshape(shape)
            last, slope = evaluate.value_and_gradient(variables, wanted(variables))
            return 1 - last, -slope.ravel()

        def note(_: Any) -> None:
            history.append(last)
            step(1, f"fidelity {last:.6f}")

        found = minimize(
            loss, start.ravel(), jac=True, method="L-BFGS-B", bounds=[(-limit, limit)] * start.size, callback=note,
            options={"maxiter": iterations, "ftol": 1e-12, "gtol": 1e-9},
        )  # fmt: skip
    x = found.x.reshape(shape)
    reached = wanted(x)
    channels = evaluate.channels(x)
    fidelities = np.array([average_gate_fidelity(channel, reached) for channel in channels])
    return OptimisedPulse(
        evaluate.filter @ x, duration, float(evaluate.weights @ fidelities), fidelities, tuple(history), reached
    )


class PulseFidelity:
    """The average gate fidelity of a pulse and its gradient, compiled once.

    Parameters
    ----------
    problem, duration_ns, n_slices, max_rad_per_ns, bandwidth_ghz
        As in `optimise_pulse`.
    rest_effect
        Operator (d, d) of the other sites that is measured at the end; the identity by default. A projector leaves out
        what ends elsewhere, so that the channels lose trace.

    Attributes
    ----------
    filter
        Low-pass filter (n_slices, n_slices) from the optimiser's variables to amplitudes.
    weights
        Of the members, sum 1.
    """

    def __init__(
        self,
        problem: ControlProblem,
        duration_ns: float,
        n_slices: int,
        max_rad_per_ns: float,
        bandwidth_ghz: float | None = None,
        rest_effect: ComplexArray | None = None,
    ) -> None:
        import jax

        members = len(problem.static)
        self.filter = low_pass(n_slices, duration_ns, bandwidth_ghz)
        weights = np.ones(members) if problem.weights is None else np.asarray(problem.weights, dtype=float)
        self.weights = weights / weights.sum()
        scales = np.ones(members) if problem.scales is None else np.asarray(problem.scales, dtype=float)
        step = duration_ns / n_slices
        with jax.enable_x64(True):
            fixed, driven, before, after = _generators(problem, rest_effect)
        largest = (
            np.abs(fixed).sum(axis=2).max() + scales.max() * max_rad_per_ns * np.abs(driven).sum(axis=2).max(1).sum()
        )
        doublings = max(0, int(np.ceil(np.log2(max(largest * step / 0.35, 1e-300)))))
        self._program = _program(doublings)
        self._data = (self.filter, fixed * step, driven * step, scales, before, after, self.weights)

    def channels(self, x: FloatArray) -> FloatArray:
        """Return the Pauli transfer matrices (m, 16, 16) of variables (n_slices, k)."""
        import jax

        with jax.enable_x64(True):
            return np.array(self._program["channels"](x, *self._data[:-1]))

    def mean_channel(self, x: FloatArray) -> FloatArray:
        """Return the mean over the ensemble, (16, 16)."""
        return np.einsum("m,mab->ab", self.weights, self.channels(x))

    def value(self, x: FloatArray, target: FloatArray) -> float:
        """Return the mean fidelity to a gate given as its Pauli transfer matrix (16, 16)."""
        import jax

        with jax.enable_x64(True):
            return float(self._program["value"](x, target, *self._data))

    def value_and_gradient(self, x: FloatArray, target: FloatArray) -> tuple[float, FloatArray]:
        """Return the mean fidelity and its derivative by the variables (n_slices, k)."""
        import jax

        with jax.enable_x64(True):
            value, slope = self._program["gradient"](x, target, *self._data)
            return float(value), np.array(slope)


def pulse_channels(
    problem: ControlProblem, pulse: OptimisedPulse, rest_effect: ComplexArray | None = None
) -> FloatArray:
    """Return what a pulse does to the qubits of each member of the ensemble, Pauli transfer matrices (m, 16, 16).

    Parameters
    ----------
    problem, pulse
        What `optimise_pulse` took and returned; the problem may have other relaxation or another ensemble.
    rest_effect
        As in `PulseFidelity`.
    """
    amplitudes = np.asarray(pulse.amplitudes_rad_per_ns, dtype=float)
    limit = max(float(np.abs(amplitudes).max()), 1e-12)
    evaluate = PulseFidelity(problem, pulse.duration_ns, len(amplitudes), limit, rest_effect=rest_effect)
    return evaluate.channels(amplitudes)


def low_pass(n_slices: int, duration_ns: float, bandwidth_ghz: float | None) -> FloatArray:
    """Return a Gaussian filter (n, n) with positive rows of sum 1 that passes half the amplitude at `bandwidth_ghz`.

    Beyond the ends of the pulse the amplitude counts as that of the end slices.
    """
    if bandwidth_ghz is None:
        return np.eye(n_slices)
    return np.asarray(filter_rows(n_slices, duration_ns, positive(bandwidth_ghz, "bandwidth_ghz")))


def filter_rows(n_slices: int, duration_ns: Any, bandwidth_ghz: float, xp: Any = np) -> Any:
    """Return the filter of `low_pass` unchecked, for a duration that NumPy or JAX may trace."""
    width = np.sqrt(2 * np.log(2)) / (2 * np.pi * bandwidth_ghz)
    times = (np.arange(n_slices) + 0.5) * duration_ns / n_slices
    rows = xp.exp(-((times[:, None] - times) ** 2) / (2 * width**2))
    return rows / rows.sum(axis=1, keepdims=True)


def _generators(
    problem: ControlProblem, rest_effect: ComplexArray | None = None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Real generators (m, n, n) and (k, n, n), Pauli inputs (n, 16) and readouts (16, n)."""
    from molecular_qubits.spins.solvers.real_generator import all_elements, assemble

    dimension = int(np.prod(problem.dims))
    elements = all_elements(dimension)
    jumps = np.zeros((0, dimension, dimension), complex) if problem.jumps is None else np.asarray(problem.jumps)
    loss = np.einsum("qba,qbc->ac", jumps.conj(), jumps)
    places = np.arange(dimension**2)
    flat = jumps.reshape(len(jumps), dimension**2)
    gain = flat.T @ flat.conj()
    fixed = np.array([assemble(h - 0.5j * loss, gain, places, elements) for h in np.asarray(problem.static)])
    nothing = np.zeros_like(gain)
    driven = np.array([assemble(np.asarray(h) + 0j, nothing, places, elements) for h in problem.controls])
    rest = dimension // 4
    state = np.ones((1, 1)) if problem.rest_state is None else np.asarray(problem.rest_state)
    before = elements.vector(np.array([problem.embedded(pauli, state) for pauli in PAULI_PRODUCTS]))
    effect = np.eye(rest) if rest_effect is None else np.asarray(rest_effect)
    if effect.shape != (rest, rest):
        raise ValueError(f"Argument `rest_effect` must have shape ({rest}, {rest}), but has {effect.shape}.")
    after = elements.vector(np.array([problem.embedded(pauli, effect) for pauli in PAULI_PRODUCTS]))
    return fixed, driven, before.T, after / 4


@lru_cache(maxsize=16)
def _program(doublings: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from molecular_qubits.spins.solvers.real_generator import expm1_fixed

    def channels(x: Any, low_pass: Any, fixed: Any, driven: Any, scales: Any, before: Any, after: Any) -> Any:
        amplitudes = low_pass @ x

        def member(generator: Any, scale: Any) -> Any:
            def advance(vectors: Any, amplitude: Any) -> tuple[Any, None]:
                matrix = generator + scale * jnp.tensordot(amplitude, driven, 1)
                return vectors + expm1_fixed(matrix, doublings) @ vectors, None

            return after @ jax.lax.scan(jax.checkpoint(advance), before, amplitudes)[0]

        return jax.lax.map(lambda each: member(*each), (fixed, scales))

    def value(x: Any, target: Any, *data: Any) -> Any:
        return data[-1] @ average_gate_fidelity(channels(x, *data[:-1]), target)

    return {
        "channels": jax.jit(channels),
        "value": jax.jit(value),
        "gradient": jax.jit(jax.value_and_grad(value)),
    }
