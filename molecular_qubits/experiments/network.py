"""A network and a circuit on it from a configuration: figures, the page, the schedule."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from molecular_qubits.network.disorder import Disorder
from molecular_qubits.network.molecules import Coupler, Radical
from shared.config import FrozenConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from molecular_qubits.network.lattice import MolecularNetwork

CONFIGS = Path(__file__).resolve().parent / "configs"


MOST_SITES = 10_000
"""The crosstalk of all couplers takes some gigabytes then."""

SiteNumber = Annotated[int, Field(ge=0, lt=MOST_SITES)]


class NetworkConfig(FrozenConfig):
    """A network and a circuit.

    Parameters
    ----------
    lattice
        ``"square"`` (`rows` x `columns` radicals), ``"honeycomb"`` (hexagons), ``"chain"`` (`rows` times `columns`
        radicals) or ``"graph"`` (`edges`).
    rows, columns, spacing_nm
        Size of the lattice and length of a bond.
    edges, positions_nm
        Bonds of a graph as pairs of sites from 0, and the place of each site; drawn if not given. A network has at most
        10,000 sites.
    radicals, couplers
        Kinds of molecules.
    exchange
        Result file of ``molecular-qubits exchange`` whose J the couplers get; a relative path starts from the
        folder of the configuration.
    settings
        Other fields of `molecular_qubits.MolecularNetwork`.
    disorder, seed
        How much the molecules differ, and the seed of the draw.
    network
        JSON file of a network in place of all of the above.
    circuit
        OpenQASM file.
    layout, trials, circuit_seed
        See `molecular_qubits.compile_circuit`.
    """

    lattice: Literal["square", "honeycomb", "chain", "graph"] = "square"
    rows: int = Field(3, ge=1)
    columns: int = Field(3, ge=1)
    spacing_nm: float = Field(2.0, gt=0)
    edges: tuple[tuple[SiteNumber, SiteNumber], ...] = ()
    positions_nm: tuple[tuple[float, float], ...] | None = None
    radicals: tuple[Radical, ...] = ()
    couplers: tuple[Coupler, ...] = ()
    exchange: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    disorder: Disorder | None = None
    seed: int = Field(0, ge=0)
    network: str | None = None
    circuit: str | None = None
    layout: tuple[int, ...] | None = None
    trials: int = Field(32, ge=1)
    circuit_seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _graph_has_edges(self) -> NetworkConfig:
        if (self.lattice == "graph") != bool(self.edges):
            raise ValueError("edges must be given with lattice: graph, and only then")
        if self.positions_nm is not None and not self.edges:
            raise ValueError("positions_nm must be given with lattice: graph only")
        sites = self.rows * self.columns * (2 if self.lattice == "honeycomb" else 1)
        if self.lattice != "graph" and sites > MOST_SITES:
            raise ValueError(f"rows and columns must make at most {MOST_SITES:,} sites, but make {sites:,}")
        return self


def make_network(config: NetworkConfig, folder: Path = Path()) -> MolecularNetwork:
    """Return the network of a configuration whose relative paths start from `folder`."""
    from molecular_qubits.network.lattice import MolecularNetwork

    if config.network is not None:
        return MolecularNetwork.load(folder / config.network)
    couplers = list(config.couplers)
    if config.exchange is not None:
        found = Coupler.from_exchange(folder / config.exchange)
        couplers = [coupler.model_copy(update={"j_on_cm1": found.j_on_cm1}) for coupler in couplers or [Coupler()]]
    options: dict[str, Any] = {"radicals": config.radicals, "couplers": couplers, **config.settings}
    if config.lattice == "square":
        network = MolecularNetwork.square(config.rows, config.columns, config.spacing_nm, **options)
    elif config.lattice == "honeycomb":
        network = MolecularNetwork.honeycomb(config.rows, config.columns, config.spacing_nm, **options)
    elif config.lattice == "chain":
        network = MolecularNetwork.chain(config.rows * config.columns, config.spacing_nm, **options)
    else:
        import networkx as nx

        graph = nx.Graph()
        graph.add_nodes_from(range(1 + max(max(edge) for edge in config.edges)))
        graph.add_edges_from(config.edges)
        places = None if config.positions_nm is None else dict(enumerate(config.positions_nm))
        network = MolecularNetwork.from_graph(graph, config.spacing_nm, places, **options)
    return network if config.disorder is None else network.with_disorder(config.disorder, config.seed)


def check_fits(config: NetworkConfig, n_sites: int, n_qubits: int) -> None:
    """Refuse a circuit with more qubits than the network has sites, with keys that give enough of them."""
    if n_qubits > n_sites:
        more = ""
        if config.network is None and config.lattice != "graph":
            side = math.isqrt(n_qubits - 1) + 1
            more = f" More sites: `--set rows={-(-n_qubits // side)} --set columns={side}`."
        raise ValueError(f"The circuit must have at most {n_sites} qubits, one a site, but has {n_qubits}.{more}")


def run(
    config: NetworkConfig, out: Path, folder: Path = Path(), screenshot: int | None = None
) -> dict[str, Any]:  # fmt: skip
    """Make the network, compile the circuit and write everything.

    Parameters
    ----------
    config
        The configuration.
    out
        Folder of ``network.json``, ``network.png``, ``network.pdf`` and, with a circuit, ``schedule.json`` (operations
        and the list of pulses), ``schedule.png``, ``schedule.pdf`` and ``page.html``; ``summary.json`` has the numbers
        with provenance.
    folder
        Where relative paths of the configuration start.
    screenshot
        Layer, from 1, of which the browser writes ``page.png``.

    Returns
    -------
    dict
        What ``summary.json`` holds.

    Raises
    ------
    ValueError
        If there is no such layer; nothing is written then.
    """
    from molecular_qubits.network.circuits import read_circuit
    from molecular_qubits.network.compiler import compile_circuit
    from molecular_qubits.network.drawing import draw_network, draw_schedule
    from molecular_qubits.network.layers import cut_layers
    from molecular_qubits.network.page import take_screenshot, write_page
    from molecular_qubits.network.pulse_list import schedule_record
    from shared.artifacts import provenance, write_json
    from shared.plotting import save_figure, style

    start = time.monotonic()
    if screenshot is not None and config.circuit is None:
        raise ValueError("Option `--screenshot` needs a circuit: give `--circuit` or the key `circuit`.")
    circuit = None if config.circuit is None else read_circuit(folder / config.circuit)
    network = make_network(config, folder)
    schedule, layers = None, 0
    if circuit is not None:
        check_fits(config, network.n_sites, circuit.n_qubits)
        schedule = compile_circuit(
            circuit, network, layout=config.layout, trials=config.trials, seed=config.circuit_seed
        )
        layers = len(cut_layers(schedule, network))
    if screenshot is not None and not 1 <= screenshot <= layers:
        raise ValueError(f"Option `--screenshot` must be a layer from 1 to {layers}, but was {screenshot}.")
    summary = describe(network)
    network.save(out / "network.json")
    with style():
        if network.bonds:
            save_figure(draw_network(network), out / "network")
        if schedule is not None:
            save_figure(draw_schedule(schedule, network), out / "schedule")
    if schedule is not None and circuit is not None:
        write_json(out / "schedule.json", schedule_record(schedule, network))
        write_page(out / "page.html", network, schedule, title=Path(config.circuit or "").stem.replace("_", " "))
        summary |= {
            "qubits": circuit.n_qubits,
            "gates of the circuit": len(circuit.gates),
            "coupler gates": schedule.n_couplers,
            "rotations": sum(operation.name == "rotation" for operation in schedule.operations),
            "circuit (ns)": schedule.circuit_ns,
            "readout after it (ns)": schedule.duration_ns - schedule.circuit_ns,
            "layers": layers,
        }
    write_json(out / "summary.json", summary | {"provenance": provenance(config, time.monotonic() - start)})
    if screenshot is not None:
        take_screenshot(out / "page.html", out / "page.png", screenshot)
    return summary


def describe(network: MolecularNetwork) -> dict[str, Any]:
    """Return numbers about a network and its light: a table row."""
    from molecular_qubits.network import addressing
    from molecular_qubits.network.pulses import rotation_times

    rotation, classes = rotation_times(network, range(network.n_sites))
    row: dict[str, Any] = {
        "sites": network.n_sites,
        "couplers": len(network.bonds),
        "dead couplers": sum(not bond.alive for bond in network.bonds),
        "rotation (ns)": float(rotation.max()),
        "radicals told apart": len(classes),
        "polarisation at the start": float(network.initial_polarisation.mean()),
        "fidelity of readout": network.readout.fidelity,
    }
    if network.bonds:
        living = [number for number, bond in enumerate(network.bonds) if bond.alive]
        light = [addressing.light_of(network, number) for number in living]

        row |= {
            "wavelength classes": len({network.bonds[number].wavelength_class for number in living}),
            "classes that fit": addressing.available_classes(network),
            "couplers not lit alone": len({meant for meant, _, _ in addressing.not_alone(network)}),
            **_range("coupler gate (ns)", [network.coupler_ns(number) for number in living]),
            **_range("triplet probability", addressing.triplets_made(network)[living].tolist()),
            **_range("spot (nm)", [one.spot_nm for one in light]),
            **_range("fluence (mJ/cm^2)", [1e3 * one.fluence_j_per_cm2 for one in light]),
            **_range("pulse energy (pJ)", [1e12 * one.energy_j for one in light]),
            **_range("quenching pulse energy (pJ)", [1e12 * one.quench_energy_j for one in light]),
            **_range("triplet switched on within (ps)", [1e3 * one.switching_ns for one in light]),
            **_range("birth of triplet, spread (ps)", [1e3 * one.birth_spread_ns for one in light]),
            **_range("warming at 1 nm after 10 ps (K)", [one.warming_k for one in light]),
        }
    return row


def _range(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return one number for all, or the least and the most."""
    if not values or math.isclose(min(values), max(values), rel_tol=1e-9):
        return {name: values[0]} if values else {}
    return {f"{name}, least": min(values), f"{name}, most": max(values)}


def draw_needed_classes(
    spacings_nm: tuple[float, ...] = (2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0), size: int = 12
) -> tuple[Figure, dict[str, list[int]]]:
    """Return the figure of wavelength classes against spacing on a size x size lattice, and its numbers by spot."""
    import numpy as np

    from molecular_qubits.network import addressing
    from molecular_qubits.network.drawing import draw_classes
    from molecular_qubits.network.lattice import MolecularNetwork
    from molecular_qubits.network.optics import Optics
    from shared.progress import track

    spots = {
        "lens, NA 0.7": Optics(spot="diffraction"),
        "tip, 20 nm": Optics(tip_radius_nm=20.0),
        "tip, 5 nm": Optics(tip_radius_nm=5.0),
    }
    needed: dict[str, list[int]] = {label: [] for label in spots}
    for spacing in track(list(spacings_nm), "wavelength classes"):
        for label, optics in spots.items():
            network = MolecularNetwork.square(size, size, spacing, optics=optics, colour=False)
            needed[label].append(1 + max(addressing.colour_classes(network)))
    labelled = {f"{label} ({optics.spot_nm(400.0):.3g} nm)": needed[label] for label, optics in spots.items()}
    available = addressing.available_classes(network)
    return draw_classes(np.array(spacings_nm), labelled, available, len(network.bonds)), needed
