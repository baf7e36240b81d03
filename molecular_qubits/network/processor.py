"""The network as a processor of qutip-qip, with relaxation at a finite temperature.

Controls are the resonant x and y drives of every radical and the parts of every coupler's effective Hamiltonian, in
rad/ns. Changes of frame take no time: they turn the phases of later pulses, and what is left of them at the end is
undone by `NetworkProcessor.get_final_circuit_state`.

qutip-qip's own ``t1`` means decay to |0>, its limit of zero temperature; radicals at a few kelvin relax to an almost
even mixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qutip import Qobj, basis, expect, ket2dm, qeye, sigmam, sigmap, sigmax, sigmay, sigmaz, tensor
from qutip_qip.device import Model, ModelProcessor
from qutip_qip.noise import Noise
from qutip_qip.pulse import Pulse

from molecular_qubits.network.compiler import compile_circuit
from molecular_qubits.network.schedule import Operation, Schedule, frame_change
from molecular_qubits.network.weyl import canonical
from molecular_qubits.spins.operators import FloatArray

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork


class ThermalRelaxation(Noise):
    """T1 and T2 of every radical towards its equilibrium polarisation.

    Parameters
    ----------
    t1_ns, t2_ns, polarisation
        (n,) each; the polarisation is p0 - p1 in equilibrium. Rates: down (1 + p) / 2 T1, up (1 - p) / 2 T1, pure
        dephasing 1 / T2 - 1 / 2 T1.
    """

    def __init__(self, t1_ns: FloatArray, t2_ns: FloatArray, polarisation: FloatArray) -> None:
        self.t1_ns, self.t2_ns, self.polarisation = t1_ns, t2_ns, polarisation

    def get_noisy_pulses(
        self, dims: Any = None, pulses: Any = None, systematic_noise: Pulse | None = None
    ) -> tuple[Any, Pulse]:
        """Add the jump operators; called by qutip-qip."""
        noise = Pulse(None, None, label="system") if systematic_noise is None else systematic_noise
        for site, (t1, t2, p) in enumerate(zip(self.t1_ns, self.t2_ns, self.polarisation, strict=True)):
            dephasing = max(1 / t2 - 1 / (2 * t1), 0.0)
            for rate, operator in (
                ((1 + p) / (2 * t1), sigmap()),  # qutip's sigmap is |0><1|
                ((1 - p) / (2 * t1), sigmam()),
                (dephasing / 2, sigmaz()),
            ):
                if rate > 0:
                    noise.add_lindblad_noise(np.sqrt(rate) * operator, site, coeff=True)
        return pulses, noise


class NetworkModel(Model):
    """Controls and noise of a network.

    Parameters
    ----------
    network
        The network.

    Notes
    -----
    ``x{site}``, ``y{site}``: sigma / 2. ``zz{bond}``, ``xy{bond}``, ``dm{bond}``: Z Z, (X X + Y Y) / 2 and
    (X Y - Y X) / 2, of which a coupler gate whose frames have turned against each other is made.
    """

    def __init__(self, network: MolecularNetwork) -> None:
        super().__init__(network.n_sites)
        self.network = network
        x, y, z = sigmax(), sigmay(), sigmaz()
        for site in range(network.n_sites):
            self._add_control(f"x{site}", x / 2, [site])
            self._add_control(f"y{site}", y / 2, [site])
        for number, bond in enumerate(network.bonds):
            pair = list(bond.sites)
            self._add_control(f"zz{number}", tensor(z, z), pair)
            self._add_control(f"xy{number}", (tensor(x, x) + tensor(y, y)) / 2, pair)
            self._add_control(f"dm{number}", (tensor(x, y) - tensor(y, x)) / 2, pair)
        self._add_noise(ThermalRelaxation(network.t1_ns, network.t2_ns, network.equilibrium_polarisation))

    def get_control_latex(self) -> list[dict[str, str]]:
        """Return the labels of plots."""
        sites, bonds = range(self.network.n_sites), range(len(self.network.bonds))
        return [
            {f"x{k}": rf"$\sigma_x^{{{k}}}$" for k in sites} | {f"y{k}": rf"$\sigma_y^{{{k}}}$" for k in sites},
            {f"{kind}{k}": rf"${kind}^{{{k}}}$" for kind in ("zz", "xy", "dm") for k in bonds},
        ]


class NetworkProcessor(ModelProcessor):
    """A `qutip_qip` processor for a molecular network.

    Parameters
    ----------
    network
        The network; density matrices of all its sites are evolved, so some eight at most.

    Examples
    --------
    >>> from qutip import basis
    >>> from qutip_qip.circuit import QubitCircuit
    >>> from molecular_qubits import MolecularNetwork
    >>> from molecular_qubits.network.processor import NetworkProcessor
    >>> circuit = QubitCircuit(2)
    >>> circuit.add_gate("SNOT", 0)
    >>> circuit.add_gate("CNOT", 1, 0)
    >>> processor = NetworkProcessor(MolecularNetwork.chain(2))
    >>> _ = processor.load_circuit(circuit)
    >>> start = processor.generate_init_processor_state(basis([2, 2], [0, 0]))
    >>> result = processor.run_state(start)
    >>> bell = (basis([2, 2], [0, 0]) + basis([2, 2], [1, 1])).unit()
    >>> final = processor.get_final_circuit_state(result.states[-1])
    >>> bool(0.9 < (bell.dag() * final * bell).real < 1.0)
    True
    """

    def __init__(self, network: MolecularNetwork) -> None:
        super().__init__(model=NetworkModel(network))
        self.network = network
        self.schedule: Schedule | None = None
        self._frames = np.zeros(network.n_sites)

    def load_circuit(
        self, qc: Any, schedule_mode: str = "ASAP", compiler: Any = None
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Compile a circuit and set its pulses.

        Parameters
        ----------
        qc
            A `QubitCircuit`, or anything else that `molecular_qubits.compile_circuit` reads.
        schedule_mode, compiler
            Kept for qutip-qip; only ``"ASAP"`` and ``None`` are possible.

        Returns
        -------
        tlist, coeffs : dict
            Times in ns and step functions in rad/ns by the label of the control.
        """
        if schedule_mode != "ASAP" or compiler is not None:
            raise ValueError("Arguments `schedule_mode` and `compiler` must be 'ASAP' and None.")
        return self.load_schedule(compile_circuit(qc, self.network))

    def load_schedule(self, schedule: Schedule) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Set the pulses of a schedule of this network; returns as `load_circuit`."""
        if schedule.n_sites != self.network.n_sites:
            raise ValueError(
                f"Argument `schedule` must be one of {self.network.n_sites} sites, but has {schedule.n_sites}."
            )
        self.schedule = schedule
        self._frames = np.zeros(self.network.n_sites)
        pieces: dict[str, list[tuple[float, float, float]]] = {}
        for operation in schedule.operations:
            for label, area in self._areas(operation).items():
                if area:
                    span = (operation.start_ns, operation.end_ns, area / operation.duration_ns)
                    pieces.setdefault(label, []).append(span)
        tlist, coeffs = {}, {}
        for label, spans in pieces.items():
            times, values = [0.0], []
            for start, end, value in spans:
                if start > times[-1]:
                    times.append(start)
                    values.append(0.0)
                times.append(end)
                values.append(value)
            tlist[label], coeffs[label] = np.array(times), np.array(values)
        self.clear_pulses()
        self.set_coeffs(coeffs)
        self.set_tlist(tlist)
        self.global_phase = 0.0
        return tlist, coeffs

    def _areas(self, operation: Operation) -> dict[str, float]:
        """Return the angle by which each control turns in an operation, in the frames as they have turned by then."""
        sites = operation.sites
        if operation.name == "rz":
            self._frames[sites[0]] += operation.angles[0]
        if operation.name == "rotation":
            theta, phi = operation.angles
            phase = phi - self._frames[sites[0]]
            return {f"x{sites[0]}": theta * np.cos(phase), f"y{sites[0]}": theta * np.sin(phase)}
        if operation.name == "coupler":
            bond = self.network.bond_between(*sites)
            assert bond is not None
            x, y, z = canonical(self.network.entangler_matrix).coordinates
            apart = self._frames[sites[0]] - self._frames[sites[1]]
            if self.network.bonds[bond].sites != sites:
                apart = -apart
            if self.network.entangler == "cz":  # pi/4 of Z Z; the chamber has it along x
                return {f"zz{bond}": -np.pi / 4}
            assert abs(x - y) < 1e-12
            return {f"zz{bond}": -z, f"xy{bond}": -2 * x * np.cos(apart), f"dm{bond}": -2 * x * np.sin(apart)}
        return {}

    def _get_max_step(self) -> float:
        """Return a step that no pulse slips through; called by qutip-qip."""
        if self.schedule is None:
            return 0.0
        return min((o.duration_ns / 2 for o in self.schedule.operations if o.duration_ns > 0), default=0.0)

    def generate_init_processor_state(self, init_circuit_state: Qobj | None = None) -> Qobj:
        """Return the state of all radicals at the start.

        Parameters
        ----------
        init_circuit_state
            State of the qubits, put on their sites, other sites in |0>. By default every radical has the polarisation
            of the network's preparation.
        """
        if init_circuit_state is None:
            polarisation = self.network.initial_polarisation
            return tensor([Qobj(np.diag([(1 + p) / 2, (1 - p) / 2])) for p in polarisation])
        initial = list(range(self.num_qubits)) if self.schedule is None else list(self.schedule.initial_sites)
        if init_circuit_state.dims[0] != [2] * len(initial):
            raise ValueError(
                f"Argument `init_circuit_state` must be a state of {len(initial)} qubits, but has the dimensions "
                f"{init_circuit_state.dims}."
            )
        rest = [site for site in range(self.num_qubits) if site not in initial]
        zero = basis(2, 0) if init_circuit_state.isket else ket2dm(basis(2, 0))
        whole = tensor([init_circuit_state, *[zero] * len(rest)])
        return whole.permute([int(k) for k in np.argsort([*initial, *rest])])

    def get_final_circuit_state(self, final_processor_state: Qobj) -> Qobj:
        """Return the density matrix of the qubits from the state of all radicals at the end of the schedule."""
        frames = tensor([Qobj(frame_change(angle)) for angle in self._frames])
        state = final_processor_state
        state = ket2dm(state) if state.isket else state
        state = frames * state * frames.dag()
        final = list(range(self.num_qubits)) if self.schedule is None else list(self.schedule.final_sites)
        kept = state.ptrace(sorted(final))
        return kept.permute([int(k) for k in np.argsort(np.argsort(final))]) if len(final) > 1 else kept

    def populations(self, final_processor_state: Qobj) -> FloatArray:
        """Return the probability of |1> of every qubit at the end, (n_qubits,), without errors of readout."""
        state = self.get_final_circuit_state(final_processor_state)
        n = len(state.dims[0])
        one = ket2dm(basis(2, 1))
        return np.array([expect(tensor([one if k == q else qeye(2) for k in range(n)]), state) for q in range(n)])
