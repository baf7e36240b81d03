"""The network as data: radicals on sites, couplers on bonds, the field, the light, and what is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from molecular_qubits.control.fidelity import TARGETS, target_gate
from molecular_qubits.control.switched_gate import GateConditions
from molecular_qubits.network import geometry
from molecular_qubits.network.coupler_gate import EXCHANGE_SPREAD, CouplerNoise, calibrate
from molecular_qubits.network.disorder import Disorder, draw
from molecular_qubits.network.molecules import Coupler, Microwaves, Preparation, Radical, Readout
from molecular_qubits.network.optics import Optics
from molecular_qubits.spins.operators import ComplexArray, FloatArray
from molecular_qubits.units import BOHR_MAGNETON_J_PER_T, BOLTZMANN_J_PER_K, PLANCK_J_S
from shared.artifacts import write_text
from shared.config import FrozenConfig
from shared.files import reason

if TYPE_CHECKING:
    import networkx as nx

UNCOLOURED_NM = 400.0
"""Absorption of couplers to which none was given."""

GHZ_PER_TESLA = BOHR_MAGNETON_J_PER_T / PLANCK_J_S * 1e-9
"""Resonance frequency of g = 1 in 1 T."""


class Site(Radical):
    """A radical at a place.

    Parameters
    ----------
    position_nm
        x and y.
    offset_mhz
        Shift of its resonance from g mu_B B, e.g. by nuclei that do not move during a circuit.
    """

    position_nm: tuple[float, float]
    offset_mhz: float = 0.0


class Bond(Coupler):
    """A coupler between two sites.

    Parameters
    ----------
    sites
        Numbers of the two radicals.
    alive
        Whether it can be lit.
    wavelength_class
        Number of its class: couplers of one class absorb the same wavelength.
    """

    absorption_nm: float = Field(UNCOLOURED_NM, gt=0)
    sites: tuple[int, int]
    alive: bool = True
    wavelength_class: int = Field(0, ge=0)


class MolecularNetwork(FrozenConfig):
    """Radicals and the couplers between them, with all that a compiler or a simulator needs to know.

    `square`, `honeycomb`, `chain` and `from_graph` make one; ``model_copy(update=...)`` changes one.

    Parameters
    ----------
    sites, bonds
        The radicals and the couplers.
    entangler
        Gate of a lit coupler, up to local rotations (`molecular_qubits.control.fidelity.TARGETS`).
    temperature_k
        Of everything.
    field_tesla
        Static field in the middle (the mean of all places).
    gradient_tesla_per_m
        Its change along x and y. `place` turns it to where the sites differ most; 3 T/um is what the magnets of
        magnetic resonance force microscopes reach (H. J. Mamin et al., Nano Lett. 12, 2012: 4.2 T/um).
    max_hold_ns
        Longest time for which a triplet is kept in a gate.
    microwaves, optics, preparation, readout
        What is done to them.

    Raises
    ------
    ValueError
        If a bond names a site that there is not, the same site twice or the same pair as another bond, two sites are
        at the same place, or a field has a value that is not possible.
    """

    sites: tuple[Site, ...] = Field(min_length=1)
    bonds: tuple[Bond, ...] = ()
    entangler: str = "cz"
    temperature_k: float = Field(5.0, gt=0)
    field_tesla: float = Field(0.34, gt=0)
    gradient_tesla_per_m: tuple[float, float] = (3e6, 0.0)
    max_hold_ns: float = Field(20.0, gt=0)
    microwaves: Microwaves = Microwaves()
    optics: Optics = Optics()
    preparation: Preparation = Preparation()
    readout: Readout = Readout()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.entangler not in TARGETS:
            raise ValueError(f"entangler must be one of {list(TARGETS)}, but was {self.entangler!r}")
        places: dict[tuple[float, float], int] = {}
        for number, site in enumerate(self.sites):
            other = places.setdefault(site.position_nm, number)
            if other != number:
                raise ValueError(f"sites {other} and {number} are both at {site.position_nm} nm")
        seen: dict[tuple[int, int], int] = {}
        for number, bond in enumerate(self.bonds):
            first, second = sorted(bond.sites)
            if first < 0 or second >= len(self.sites) or first == second:
                raise ValueError(f"bond {number} must join two of {len(self.sites)} sites, but joins {bond.sites}")
            other = seen.setdefault((first, second), number)
            if other != number:
                raise ValueError(f"bonds {other} and {number} both join the sites {first} and {second}")
        if np.any(self.frequencies_ghz <= 0):
            raise ValueError(
                f"field_tesla and gradient_tesla_per_m leave no field at site {self.frequencies_ghz.argmin()}"
            )
        return self

    @classmethod
    def square(cls, rows: int, columns: int, spacing_nm: float = 2.0, **settings: Any) -> MolecularNetwork:
        """Return a square lattice; site = row * columns + column. `settings` as in `place`."""
        return cls.place(*geometry.square(rows, columns, spacing_nm), **settings)

    @classmethod
    def honeycomb(cls, rows: int, columns: int, spacing_nm: float = 2.0, **settings: Any) -> MolecularNetwork:
        """Return rows x columns hexagons. `settings` as in `place`."""
        return cls.place(*geometry.honeycomb(rows, columns, spacing_nm), **settings)

    @classmethod
    def chain(cls, n_sites: int, spacing_nm: float = 2.0, **settings: Any) -> MolecularNetwork:
        """Return a chain along x. `settings` as in `place`."""
        return cls.place(*geometry.chain(n_sites, spacing_nm), **settings)

    @classmethod
    def from_graph(
        cls,
        graph: nx.Graph,
        spacing_nm: float = 2.0,
        positions_nm: Mapping[Any, Sequence[float]] | None = None,
        **settings: Any,
    ) -> MolecularNetwork:
        """Return the network of a graph, sites in the order of its nodes; see `molecular_qubits.network.geometry.free`.

        `settings` as in `place`.
        """
        return cls.place(*geometry.free(graph, spacing_nm, positions_nm), **settings)

    @classmethod
    def place(
        cls,
        positions_nm: Any,
        pairs: Sequence[tuple[int, int]],
        *,
        radicals: Radical | Sequence[Radical] = (),
        couplers: Coupler | Sequence[Coupler] = (),
        colour: bool = True,
        **settings: Any,
    ) -> MolecularNetwork:
        """Return a network of molecules at given places.

        Parameters
        ----------
        positions_nm
            (n, 2), an array or anything that becomes one.
        pairs
            Sites of each bond.
        radicals, couplers
            Kinds of molecules; several are spread so that near ones differ. The defaults of `Radical`, `Coupler` if
            none is given.
        colour
            Whether couplers whose `Coupler.absorption_nm` is not given get wavelengths by which light can tell them
            apart (`molecular_qubits.network.addressing.assign_wavelengths`).
        **settings
            Fields of `MolecularNetwork`. Without `gradient_tesla_per_m` it is 3 T/um (less if that changed the field
            by more than a quarter) along the direction in which the smallest difference of two sites is the largest.
        """
        positions_nm = np.asarray(positions_nm, dtype=float)
        kinds = [radicals] if isinstance(radicals, Radical) else list(radicals) or [Radical()]
        bridges = [couplers] if isinstance(couplers, Coupler) else list(couplers) or [Coupler()]
        which = geometry.alternate(list(pairs), len(positions_nm), len(kinds))
        touching = [
            (a, b) for a in range(len(pairs)) for b in range(a) if len(bridges) > 1 and {*pairs[a]} & {*pairs[b]}
        ]
        bridge = geometry.alternate(touching, len(pairs), len(bridges))
        sites = [
            kinds[kind].model_dump() | {"position_nm": tuple(float(x) for x in place)}
            for kind, place in zip(which, positions_nm, strict=True)
        ]
        bonds = [
            bridges[kind].model_dump(exclude_none=True) | {"sites": tuple(int(s) for s in pair)}
            for kind, pair in zip(bridge, pairs, strict=True)
        ]
        if "gradient_tesla_per_m" not in settings:
            away = float(np.linalg.norm(positions_nm - positions_nm.mean(axis=0), axis=1).max())
            field = settings.get("field_tesla", cls.model_fields["field_tesla"].default)
            steep = min(3e6, 0.25e9 * field / away) if away else 3e6
            settings["gradient_tesla_per_m"] = geometry.telling_direction(positions_nm, steep)
        network = cls.build({"sites": sites, "bonds": bonds} | settings)
        if colour and network.bonds:
            from molecular_qubits.network.addressing import assign_wavelengths

            return assign_wavelengths(
                network, [bond for bond, kind in enumerate(bridge) if bridges[kind].absorption_nm is not None]
            )
        return network

    @property
    def n_sites(self) -> int:
        """Number of radicals."""
        return len(self.sites)

    @property
    def positions_nm(self) -> FloatArray:
        """Places of the radicals, (n, 2)."""
        return np.array([site.position_nm for site in self.sites])

    @property
    def bond_positions_nm(self) -> FloatArray:
        """Places of the couplers, the middles of their bonds, (m, 2)."""
        if not self.bonds:
            return np.zeros((0, 2))
        places = self.positions_nm[np.array([bond.sites for bond in self.bonds])]
        return np.asarray(places.mean(axis=1))

    @property
    def frequencies_ghz(self) -> FloatArray:
        """Resonance frequency of every radical, (n,): g mu_B (B + gradient . (r - middle)) / h + offset."""
        places = self.positions_nm
        change = 1e-9 * (places - places.mean(axis=0)) @ np.array(self.gradient_tesla_per_m)
        g = np.array([site.g for site in self.sites])
        offsets = np.array([site.offset_mhz for site in self.sites])
        return np.asarray(GHZ_PER_TESLA * g * (self.field_tesla + change) + 1e-3 * offsets)

    @property
    def t1_ns(self) -> FloatArray:
        """T1 of every radical, (n,)."""
        return np.array([site.t1_ns for site in self.sites])

    @property
    def t2_ns(self) -> FloatArray:
        """T2 of every radical, (n,)."""
        return np.array([site.t2_ns for site in self.sites])

    @property
    def equilibrium_polarisation(self) -> FloatArray:
        """Return p0 - p1 = tanh(h f / 2 k T) of every radical in equilibrium, (n,); |0> is the lower level."""
        quantum = PLANCK_J_S * 1e9 * self.frequencies_ghz
        return np.asarray(np.tanh(quantum / (2 * BOLTZMANN_J_PER_K * self.temperature_k)))

    @property
    def initial_polarisation(self) -> FloatArray:
        """Return p0 - p1 of every radical at the start of a circuit, (n,)."""
        if self.preparation.method == "thermal":
            return self.equilibrium_polarisation
        return np.full(self.n_sites, self.preparation.polarisation)

    @property
    def entangler_matrix(self) -> ComplexArray:
        """The ideal gate (4, 4) of a lit coupler."""
        return target_gate(self.entangler)

    def bond_between(self, first: int, second: int) -> int | None:
        """Return the number of the bond between two sites, dead or alive, or ``None``."""
        pair = {first, second}
        return next((number for number, bond in enumerate(self.bonds) if set(bond.sites) == pair), None)

    def graph(self, *, dead: bool = False) -> nx.Graph:
        """Return the graph of the sites with the bonds that live as edges of attribute ``bond``; `dead`: all bonds."""
        import networkx as nx

        graph = nx.Graph()
        graph.add_nodes_from(range(self.n_sites))
        graph.add_edges_from(
            (*bond.sites, {"bond": number}) for number, bond in enumerate(self.bonds) if bond.alive or dead
        )
        return graph

    def gate_conditions(self, bond: int) -> GateConditions:
        """Return what the gate of a bond is judged under; the rates of its two radicals are averaged."""
        coupler = self.bonds[bond]
        first, second = (self.sites[site] for site in coupler.sites)
        return GateConditions(
            target=self.entangler,
            d_t_cm1=coupler.d_t_cm1,
            share_z=coupler.share_z,
            jitter_ns=coupler.jitter_ns,
            max_hold_ns=self.max_hold_ns,
            triplet_lifetime_ns=coupler.triplet_lifetime_ns,
            t1_ns=2 / (1 / first.t1_ns + 1 / second.t1_ns),
            t2_ns=2 / (1 / first.t2_ns + 1 / second.t2_ns),
        )

    def hold_ns(self, bond: int) -> float:
        """Return the time for which the triplet of a bond is present in a gate: its own, or the best one."""
        coupler = self.bonds[bond]
        if coupler.hold_ns is not None:
            return coupler.hold_ns
        return _best_hold(coupler.j_on_cm1, coupler.j_off_cm1, self.gate_conditions(bond))

    def coupler_ns(self, bond: int) -> float:
        """Return how long the gate of a bond takes: its hold and the light pulses that make and quench the triplet."""
        return self.hold_ns(bond) + 2 * self.optics.pulse_ns

    def with_disorder(self, disorder: Disorder, seed: int) -> MolecularNetwork:
        """Return a network of molecules that differ, see `molecular_qubits.network.disorder.draw`."""
        return draw(self, disorder, seed)

    def save(self, path: str | Path) -> None:
        """Write the network as JSON."""
        write_text(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> MolecularNetwork:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If there is no such file or it is not a network.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"Argument `path` must name a network file, but {str(path)!r} cannot be read: {reason(error)}."
            ) from error
        return cls.from_json(text)


@lru_cache(maxsize=4096)
def _best_hold(j_on_cm1: float, j_off_cm1: float, conditions: GateConditions) -> float:
    coupler = CouplerNoise(
        j_on_cm1=(j_on_cm1, j_on_cm1), j_off_cm1=j_off_cm1, d_t_cm1=conditions.d_t_cm1, share_z=conditions.share_z,
        jitter_ns=conditions.jitter_ns, triplet_lifetime_ns=conditions.triplet_lifetime_ns,
        max_hold_ns=conditions.max_hold_ns, j_spread=EXCHANGE_SPREAD,
    )  # fmt: skip
    return calibrate(coupler, target_gate(conditions.target), ((conditions.t1_ns, conditions.t2_ns),) * 2).hold_ns
