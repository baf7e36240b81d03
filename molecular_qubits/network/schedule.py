"""What the processor does and when: native operations with start, length and place.

Compilers write a `Schedule`, simulators and drawings read it; nothing here knows of molecules or of noise.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molecular_qubits.spins.operators import ComplexArray

NATIVE = ("rotation", "rz", "coupler", "measure")
"""Names of native operations: microwave rotation, frame change, switched coupler, readout."""


@dataclass(frozen=True)
class Operation:
    """One native operation.

    Attributes
    ----------
    name
        One of `NATIVE`. ``"rotation"``: exp(-i theta/2 (cos(phi) X + sin(phi) Y)) by a microwave pulse;
        ``"rz"``: exp(-i theta/2 Z), a change of the frame that takes no time and makes no error; ``"coupler"``: the
        network's entangling gate on the two sites of a bond, light on; ``"measure"``: readout in the Z basis.
    sites
        Site numbers, one or (coupler) two.
    angles
        (theta, phi) in rad for a rotation, (theta,) for ``rz``, else empty.
    start_ns, duration_ns
        When it begins and how long it takes.
    """

    name: str
    sites: tuple[int, ...]
    angles: tuple[float, ...] = ()
    start_ns: float = 0.0
    duration_ns: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in NATIVE:
            raise ValueError(f"Argument `name` must be one of {', '.join(NATIVE)}, but was {self.name!r}.")
        n_sites, n_angles = {"rotation": (1, 2), "rz": (1, 1), "coupler": (2, 0), "measure": (1, 0)}[self.name]
        if len(self.sites) != n_sites or len(set(self.sites)) != n_sites:
            raise ValueError(f"Argument `sites` of {self.name} must hold {n_sites} sites, but was {self.sites}.")
        if len(self.angles) != n_angles or not np.all(np.isfinite(self.angles)):
            raise ValueError(f"Argument `angles` of {self.name} must hold {n_angles} numbers, but was {self.angles}.")
        if not (np.isfinite([self.start_ns, self.duration_ns]).all() and self.duration_ns >= 0):
            raise ValueError(
                f"Arguments `start_ns` and `duration_ns` must be finite and the latter not negative, but were "
                f"{self.start_ns} and {self.duration_ns}."
            )

    @property
    def end_ns(self) -> float:
        """When it is over."""
        return self.start_ns + self.duration_ns


@dataclass(frozen=True)
class Schedule:
    """Operations on the sites of a network, in an order in which they may be applied one after another.

    Attributes
    ----------
    n_sites
        Sites of the network.
    operations
        Ordered by start; operations that share a site do not overlap.
    initial_sites
        Site that holds each logical qubit at the start.
    final_sites
        Site that holds it at the end, after routing.
    entangler
        The ideal coupler gate, (4, 4), the first site of an operation being the first factor.
    """

    n_sites: int
    operations: tuple[Operation, ...]
    initial_sites: tuple[int, ...]
    final_sites: tuple[int, ...]
    entangler: ComplexArray = field(repr=False)

    @property
    def duration_ns(self) -> float:
        """When the last operation is over."""
        return max((operation.end_ns for operation in self.operations), default=0.0)

    @property
    def circuit_ns(self) -> float:
        """When the last operation that is not a readout is over."""
        return max((operation.end_ns for operation in self.operations if operation.name != "measure"), default=0.0)

    @property
    def n_couplers(self) -> int:
        """How often a coupler is lit."""
        return sum(operation.name == "coupler" for operation in self.operations)

    def check_network(self, n_sites: int) -> None:
        """Raise a `ValueError` if the schedule is not one of a network of so many sites."""
        if self.n_sites != n_sites:
            raise ValueError(f"Argument `schedule` must be one of {n_sites} sites, but has {self.n_sites} sites.")

    def to_record(self) -> dict[str, Any]:
        """Return the schedule as a JSON-able record."""
        return asdict(self) | {"entangler": [[[v.real, v.imag] for v in row] for row in self.entangler.tolist()]}

    def to_json(self) -> str:
        """Return the schedule as JSON text; `from_json` reads it."""
        return json.dumps(self.to_record(), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """Read what `to_json` wrote, or the text of `molecular_qubits.network.pulse_list.schedule_record`.

        Raises
        ------
        ValueError
            If the text is not a schedule.
        """
        try:
            record = json.loads(text)
            operations = tuple(
                Operation(**(step | {"sites": tuple(step["sites"]), "angles": tuple(step["angles"])}))
                for step in record.pop("operations")
            )
            parts: NDArray[np.float64] = np.array(record.pop("entangler"), dtype=float)
            return cls(
                n_sites=int(record.pop("n_sites")),
                operations=operations,
                initial_sites=tuple(record.pop("initial_sites")),
                final_sites=tuple(record.pop("final_sites")),
                entangler=parts[..., 0] + 1j * parts[..., 1],
            )
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(f"Argument `text` must be the JSON of a schedule, but is not: {error!r}.") from error


def rotation(theta: float, phi: float) -> ComplexArray:
    """Return exp(-i theta/2 (cos(phi) X + sin(phi) Y)), shape (2, 2)."""
    cos, sin = np.cos(theta / 2), np.sin(theta / 2)
    return np.array([[cos, -1j * np.exp(-1j * phi) * sin], [-1j * np.exp(1j * phi) * sin, cos]])


def frame_change(theta: float) -> ComplexArray:
    """Return exp(-i theta/2 Z), shape (2, 2)."""
    return np.diag(np.exp([-0.5j * theta, 0.5j * theta]))


def ideal_matrix(operation: Operation, entangler: ComplexArray) -> ComplexArray:
    """Return the ideal matrix, (2, 2) or (4, 4), of an operation that is not a readout."""
    if operation.name == "rotation":
        return rotation(*operation.angles)
    if operation.name == "rz":
        return frame_change(*operation.angles)
    if operation.name == "coupler":
        return np.asarray(entangler, dtype=complex)
    raise ValueError("A readout has no matrix.")
