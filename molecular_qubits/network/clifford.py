"""Steps of a program as Clifford gates with Pauli noise: what a stabiliser simulator needs.

A circuit of Clifford gates need not be one step by step: compilers move changes of frame about. Each fused step is
turned by local rotations after it until it is a Clifford gate, and the rotations are undone before the next steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from molecular_qubits.network.program import Program, Step
from molecular_qubits.network.transfer import from_unitary, on_both, pauli_signs, to_kraus, twirled
from molecular_qubits.spins.operators import FloatArray

TOLERANCE = 1e-6


class NotCliffordError(ValueError):
    """A circuit that a stabiliser simulator cannot run."""


@dataclass(frozen=True)
class CliffordStep:
    """A Clifford gate and the Paulis that follow it.

    Attributes
    ----------
    sites
        One or two.
    transfer
        Transfer matrix of the gate, entries 0, 1, -1.
    probabilities
        Of the Pauli products after it, (4,) or (16,).
    """

    sites: tuple[int, ...]
    transfer: FloatArray
    probabilities: FloatArray


def clifford_steps(steps: Iterable[Step]) -> Iterator[CliffordStep]:
    """Yield the steps as Clifford gates with twirled noise; at the end, what is left of local rotations.

    Raises
    ------
    NotCliffordError
        If a step is no Clifford gate whatever local rotations follow it, or if local rotations are left at the end that
        are none.
    """
    carried: dict[int, FloatArray] = {}
    made: dict[bytes, tuple[FloatArray, FloatArray, list[FloatArray]]] = {}
    for number, step in enumerate(steps):
        before = [carried.pop(site, None) for site in step.sites]
        key = b"|".join(
            [step.ideal.tobytes(), step.channel.tobytes(), *(b"-" if b is None else b.tobytes() for b in before)]
        )
        if key not in made:
            made[key] = _one(step, before, number)
        gate, probabilities, after = made[key]
        for site, rotation in zip(step.sites, after, strict=True):
            if not np.allclose(rotation, np.eye(4), rtol=0, atol=1e-9):
                carried[site] = rotation
        yield CliffordStep(step.sites, gate, probabilities)
    for site in sorted(carried):
        last = _but_for_z(carried[site])
        if last is None:
            raise NotCliffordError(
                f"The circuit must be Clifford for method 'stim', but site {site} ends in a rotation that is not."
            )
        yield CliffordStep((site,), last, np.array([1.0, 0.0, 0.0, 0.0]))


def _but_for_z(rotation: FloatArray) -> FloatArray | None:
    """Return the Clifford gate that a rotation (4, 4) is but for a turn about z after it, which nothing reads."""
    exact = _rounded(rotation)
    if exact is not None:
        return exact
    axis = np.round(rotation[3, 1:])
    if not np.allclose(rotation[3, 1:], axis, rtol=0, atol=TOLERANCE):
        return None
    found = np.eye(4)
    found[3, 1:] = axis
    found[1, 1:] = np.roll(np.abs(axis), 1)
    found[2, 1:] = np.cross(axis, found[1, 1:])
    return found + 0.0


def twirled_program(program: Program) -> Program:
    """Return a Clifford program with every channel turned into its gate and Pauli noise: what a stabiliser run samples.

    The last changes of frame, which nothing reads, are left out.
    """
    steps = []
    for step in clifford_steps(program.blocks.steps):
        noise = pauli_signs(len(step.sites)) @ step.probabilities
        steps.append(Step(step.sites, noise[:, None] * step.transfer, to_kraus(step.transfer)[0]))
    return replace(program, steps=tuple(steps))


def _one(step: Step, before: list[FloatArray | None], number: int) -> tuple[FloatArray, FloatArray, list[FloatArray]]:
    """Return gate, Pauli probabilities and the local rotations that are left for later."""
    start = [np.eye(4) if rotation is None else rotation for rotation in before]
    both = start[0] if len(start) == 1 else on_both(start[0], start[1])
    ideal = from_unitary(step.ideal) @ both
    found = step.channel @ both
    turns = [_axes(ideal, position) for position in range(len(step.sites))]
    local = turns[0] if len(turns) == 1 else on_both(turns[0], turns[1])
    gate = _rounded(local @ ideal)
    if gate is None:
        raise NotCliffordError(
            f"The circuit must be Clifford for method 'stim', but step {number} on sites {step.sites} is not, whatever "
            f"local rotations follow it; use another method, or a circuit of H, S, Paulis, CX, CZ, SWAP and iSWAP."
        )
    return gate, twirled(local @ found @ gate.T), [turn.T for turn in turns]


def _axes(ideal: FloatArray, position: int) -> FloatArray:
    """Return the rotation (4, 4) of one site after which its images of Paulis lie along the axes.

    For a gate that is Clifford but for local rotations, the images of Paulis are products, and their factors on a site
    are, up to sign, three axes at right angles. Axes that lie along x, y or z already are left as they are.
    """
    if len(ideal) == 4:
        return ideal.T
    tensor = ideal.reshape(4, 4, 16)
    if position == 1:
        tensor = tensor.transpose(1, 0, 2)
    axes: list[FloatArray] = []
    for column in range(1, 16):
        image = tensor[1:, :, column]
        left, values, _ = np.linalg.svd(image)
        if values[0] < 0.9:
            continue
        axis = left[:, 0]
        if all(abs(axis @ other) < 0.5 for other in axes):
            axes.append(axis)
        if len(axes) == 3:
            break
    found = np.eye(4)
    if not axes:
        return found
    matrix = np.zeros((3, 3))
    free = [0, 1, 2]
    for axis in axes:
        nearest = max(free, key=lambda k: abs(axis[k]))
        free.remove(nearest)
        matrix[nearest] = axis * np.sign(axis[nearest])
    if len(axes) == 2:
        matrix[free[0]] = np.cross(matrix[(free[0] + 1) % 3], matrix[(free[0] + 2) % 3])
    elif len(axes) == 1:
        rest = np.linalg.svd(matrix[[k for k in range(3) if k not in free]])[2][1:]
        matrix[free] = rest
    if np.linalg.det(matrix) < 0:
        matrix[free[0] if free else 0] *= -1
    found[1:, 1:] = matrix
    return found


def _rounded(transfer: FloatArray) -> FloatArray | None:
    rounded = np.round(transfer) + 0.0
    return rounded if np.allclose(transfer, rounded, rtol=0, atol=TOLERANCE) else None
