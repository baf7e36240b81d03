"""Figures of merit of a network: example circuits, error budget, what the chemistry must reach, codes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from molecular_qubits.experiments.code_hash import code_hash
from molecular_qubits.experiments.disorder import SWEEPS, Sweep
from molecular_qubits.experiments.network import NetworkConfig, make_network
from molecular_qubits.network.molecules import Coupler
from molecular_qubits.network.noise import Source
from shared.config import FrozenConfig
from shared.progress import track

if TYPE_CHECKING:
    from molecular_qubits.network.lattice import MolecularNetwork
    from molecular_qubits.network.operating_region import Cycles
    from shared.artifacts import Cache

COMMITTED = Path(__file__).resolve().parent / "data" / "processor.json"
PARTS = ("circuits", "budget", "region", "exchange", "disorder", "codes")
DRAWN = ("circuits", "budget", "region", "disorder", "codes")


class CodeStudy(FrozenConfig):
    """One code.

    Parameters
    ----------
    code, distance
        See `molecular_qubits.network.codes.code_memory`; the distance is odd, the rounds are as many.
    shots
        For each scale.
    """

    code: Literal["repetition", "surface"]
    distance: int = Field(3, ge=3)
    shots: int = Field(2000, ge=1)

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.distance % 2 == 0:
            raise ValueError(f"distance must be odd, but was {self.distance}")
        return self


Positive = Annotated[float, Field(gt=0)]
Whole = Annotated[int, Field(ge=1)]
Shape = tuple[Whole, Whole]


class ProcessorStudy(FrozenConfig):
    """What is computed.

    Parameters
    ----------
    network
        Kinds of molecules, spacing and settings; its rows, columns and circuit are replaced.
    ghz_shapes
        Rows and columns of the lattices whose radicals are all entangled.
    shots
        Of the larger ones, which are sampled.
    shape
        Lattice of QAOA and of the Trotter steps.
    qaoa_rounds
        Numbers of rounds of MaxCut on the lattice's own graph.
    trotter_steps, trotter_time, field
        Steps of the Ising model with J = 1, its time and its transverse field.
    budget_shape
        Lattice of the error budgets.
    target
        Entangling gate of the operating region.
    j_cm1, t2_ns, lifetime_ns
        Axes of the region, each rising.
    j_points
        Values of J between the first and the last of the axis at which the fine structure is looked at.
    longest_hold
        Longest hold tried, times 1 / J (ns cm^-1).
    region_without
        Sources of error that are left out of the region: those that no J, T2 or lifetime mends.
    error_rates
        For which the J, T2 and lifetime needed are given.
    disorder, disorder_shape, disorder_seeds
        How molecules differ (`molecular_qubits.experiments.disorder.Sweep`), on which lattice, and how many networks
        are drawn for each.
    codes, scales
        Memories, and factors on the probability of every error of the network.
    seed
        Of everything random.
    """

    network: NetworkConfig = NetworkConfig(
        spacing_nm=4.0, couplers=(Coupler(linewidth_cm1=60.0),), settings={"microwaves": {"addressing": "local"}}
    )
    ghz_shapes: tuple[Shape, ...] = Field(
        ((1, 2), (1, 3), (2, 2), (2, 3), (2, 4), (3, 3), (3, 4), (4, 4), (5, 5)), min_length=1
    )
    shots: int = Field(1000, ge=1)
    shape: Shape = (2, 3)
    qaoa_rounds: tuple[Whole, ...] = Field((1, 2, 3, 4), min_length=1)
    trotter_steps: tuple[Whole, ...] = Field((1, 2, 3, 4, 6, 8, 12), min_length=1)
    trotter_time: float = Field(1.0, gt=0)
    field: float = 1.0
    budget_shape: Shape = (3, 3)
    target: str = "cz"
    j_cm1: tuple[Positive, ...] = Field(
        (0.002, 0.0026, 0.0036, 0.005, 0.0064, 0.01, 0.018, 0.033, 0.06, 0.1, 0.15, 0.19, 0.24, 0.3, 0.42, 0.7),
        min_length=2,
    )
    t2_ns: tuple[Positive, ...] = Field((300.0, 1e3, 2.1e3, 5e3, 1.5e4, 1e5), min_length=2)
    lifetime_ns: tuple[Positive, ...] = Field((10.0, 30.0, 100.0, 300.0, 3e3, 1e5), min_length=2)
    j_points: int = Field(100, ge=2)
    longest_hold: float = Field(2.7, gt=0)
    region_without: tuple[Source, ...] = ("triplet yield",)
    error_rates: tuple[Positive, ...] = Field((0.03, 0.02, 0.01, 0.005), min_length=1)
    disorder: tuple[Sweep, ...] = Field(SWEEPS, min_length=1)
    disorder_shape: Shape = (3, 3)
    disorder_seeds: int = Field(8, ge=2)
    codes: tuple[CodeStudy, ...] = Field(
        (CodeStudy(code="repetition", distance=3, shots=40_000),
        CodeStudy(code="repetition", distance=5, shots=10_000),
        CodeStudy(code="repetition", distance=7, shots=4000),
        CodeStudy(code="surface", distance=3, shots=10_000),
        CodeStudy(code="surface", distance=5, shots=1000)), min_length=1
    )  # fmt: skip
    scales: tuple[Positive, ...] = Field((1.0, 0.5, 0.3, 0.2, 0.1, 0.05), min_length=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        from molecular_qubits.control.fidelity import TARGETS

        if self.target not in TARGETS:
            raise ValueError(f"target must be one of {list(TARGETS)}, but was {self.target!r}")
        for name in ("j_cm1", "t2_ns", "lifetime_ns"):
            values = getattr(self, name)
            if any(second <= first for first, second in itertools.pairwise(values)):
                raise ValueError(f"{name} must rise, but was {list(values)}")
        return self


def network_of(study: ProcessorStudy, shape: tuple[int, int], folder: Path = Path()) -> MolecularNetwork:
    """Return the study's network with other numbers of rows and columns; one row is a chain."""
    lattice: Any = "chain" if shape[0] == 1 else "square"
    return make_network(
        study.network.model_copy(update={"rows": shape[0], "columns": shape[1], "lattice": lattice}), folder
    )


def circuits(study: ProcessorStudy) -> dict[str, Any]:
    """Run GHZ states of many sizes, QAOA and Trotter steps, with noise and without.

    Returns
    -------
    dict
        ``"ghz"``, ``"qaoa"`` and ``"trotter"``: table rows.
    """
    from molecular_qubits import run_circuit
    from molecular_qubits.network import examples
    from molecular_qubits.network.noise import NoiseSettings
    from molecular_qubits.network.result import z_of_table
    from molecular_qubits.network.simulate import compiled

    ghz, started = [], NoiseSettings(off=("initialisation",))
    for shape in track(study.ghz_shapes, "GHZ states"):
        network, n = network_of(study, shape), shape[0] * shape[1]
        schedule = compiled(network, examples.ghz(n, examples.square_edges(*shape)))
        found = run_circuit(network, schedule, shots=study.shots, seed=study.seed)
        pure = run_circuit(network, schedule, shots=study.shots, seed=study.seed, noise=started)
        ghz.append({
            "radicals": n, "method": found.method, "couplers": schedule.n_couplers, "ns": schedule.duration_ns,
            "fidelity": found.fidelity, "error": found.fidelity_error,
            "fidelity, perfect start": pure.fidelity, "error, perfect start": pure.fidelity_error,
        })  # fmt: skip
    network, n = network_of(study, study.shape), study.shape[0] * study.shape[1]
    edges = examples.square_edges(*study.shape)
    cuts = examples.cut_sizes(n, edges)
    qaoa = []
    for rounds in track(study.qaoa_rounds, "QAOA"):
        gammas, betas, best = examples.best_qaoa_angles(n, edges, rounds)
        schedule = compiled(network, examples.qaoa(n, edges, gammas, betas))
        found = run_circuit(network, schedule, method="channels", seed=study.seed)
        assert found.probabilities is not None
        qaoa.append({
            "rounds": rounds, "couplers": schedule.n_couplers, "ns": schedule.duration_ns, "fidelity": found.fidelity,
            "mean cut without noise": best, "mean cut": float(found.probabilities @ cuts),
            "largest cut": float(cuts.max()), "guessing": float(cuts.mean()),
        })  # fmt: skip
    exact = float(examples.ising_magnetisation(n, edges, 1.0, study.field, [study.trotter_time])[0])
    trotter = []
    for steps in track(study.trotter_steps, "Trotter steps"):
        program = examples.trotter_ising(n, edges, 1.0, study.field, study.trotter_time, steps)
        schedule = compiled(network, program)
        found = run_circuit(network, schedule, method="channels", seed=study.seed)
        assert found.ideal_probabilities is not None
        trotter.append({
            "steps": steps, "couplers": schedule.n_couplers, "ns": schedule.duration_ns, "fidelity": found.fidelity,
            "<Z>": float(found.z.mean()), "<Z> without noise": float(z_of_table(found.ideal_probabilities).mean()),
            "<Z> exact": exact,
        })  # fmt: skip
    return {"ghz": ghz, "qaoa": qaoa, "trotter": trotter}


def budget(study: ProcessorStudy) -> dict[str, Any]:
    """Attribute the loss of a GHZ state and of a Trotter step to the sources of error: table rows for each."""
    from molecular_qubits.network import examples
    from molecular_qubits.network.merits import error_budget

    network, n = network_of(study, study.budget_shape), study.budget_shape[0] * study.budget_shape[1]
    edges = examples.square_edges(*study.budget_shape)
    programs = {
        f"GHZ, {n} radicals": examples.ghz(n, edges),
        f"Trotter step, {n} radicals": examples.trotter_ising(n, edges, 1.0, study.field, 0.5, 1),
    }
    return {name: error_budget(network, program).to_rows() for name, program in programs.items()}


def cycles_of(study: ProcessorStudy) -> Cycles:
    """Return the cycles of two neighbours of the network, without the sources in `region_without`.

    The rotations are as long as on that network.
    """
    from molecular_qubits.network.noise import GateChannels, NoiseSettings
    from molecular_qubits.network.operating_region import Cycles
    from molecular_qubits.network.pulses import rotation_times

    network = network_of(study, (1, 2))
    channels = GateChannels.from_network(network, NoiseSettings(off=study.region_without))
    rotation = float(rotation_times(network, range(network.n_sites))[0].max())
    return Cycles(channels.couplers[0, 1], study.target, rotation, study.longest_hold)


def region(study: ProcessorStudy) -> dict[str, Any]:
    """Return the errors of gate and cycle over T2, lifetime and J, and the smallest of them together.

    Returns
    -------
    dict
        ``"rotation (ns)"``; ``"gate"`` and ``"cycle"``: nested lists (T2, lifetime, J); ``"smallest"``: table rows,
        one for each error rate, with the point of
        `molecular_qubits.network.operating_region.smallest_together`, ``None`` if out of reach.
    """
    from molecular_qubits.network.operating_region import operating_region, smallest_together

    cycles = cycles_of(study)
    found = operating_region(cycles, j_cm1=study.j_cm1, t2_ns=study.t2_ns, lifetime_ns=study.lifetime_ns)
    rows: list[dict[str, Any]] = []
    for rate in study.error_rates:
        point = smallest_together(cycles, found, rate)
        values = (None,) * 4 if point is None else (point.j_cm1, point.t2_ns, point.lifetime_ns, point.error)
        names = ("J", "T2 (ns)", "lifetime (ns)", "error there")
        rows.append({"error rate": rate, **dict(zip(names, values, strict=True))})
    maps = {str(name): value.values.tolist() for name, value in found.data_vars.items()}
    return {"rotation (ns)": cycles.rotation_ns, **maps, "smallest": rows}


def exchange(study: ProcessorStudy) -> dict[str, Any]:
    """Return the error of a cycle over J in fine steps, at the network's own T2 and the largest, longest lifetime.

    The errors jump with J, as the gate must beat with the triplet's splitting: a coarse axis hides where they do.
    """
    cycles, own = cycles_of(study), network_of(study, (1, 2)).sites[0].t2_ns
    j_cm1 = np.geomspace(study.j_cm1[0], study.j_cm1[-1], study.j_points).tolist()
    t2_ns = [own, study.t2_ns[-1]]
    cells = track([(j, t2) for j in j_cm1 for t2 in t2_ns], "exchange")
    found = np.array([cycles.errors(j, t2, study.lifetime_ns[-1])[1] for j, t2 in cells])
    return {"j_cm1": j_cm1, "t2_ns": t2_ns, "cycle": found.reshape(-1, 2).T.tolist()}


def kept(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return which J keep each error rate, and what is needed together: table rows."""
    from molecular_qubits.network.operating_region import kept_intervals

    scan, rows = found["exchange"], []
    for row in found["region"]["smallest"]:
        intervals = {
            f"J at T2 = {t2:g} ns": _spans(kept_intervals(np.array(errors), scan["j_cm1"], row["error rate"]))
            for t2, errors in zip(scan["t2_ns"], scan["cycle"], strict=True)
        }
        together = {f"{name}, together" if name != "error rate" else name: value for name, value in row.items()}
        rows.append(together | intervals)
    return rows


def boundary(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the smallest lifetime of the triplet for each T2 and error rate, at the best J: table rows."""
    from molecular_qubits.network.operating_region import smallest

    study, cycle = found["study"], np.array(found["region"]["cycle"])
    rows = []
    for t2, errors in zip(study["t2_ns"], cycle, strict=True):
        row: dict[str, Any] = {"T2 (ns)": t2}
        for rate in study["error_rates"]:
            pairs = [
                (least, j)
                for j, column in zip(study["j_cm1"], errors.T, strict=True)
                if (least := smallest(column, study["lifetime_ns"], rate)) is not None
            ]
            row[f"error {rate:g}: lifetime (ns)"], row[f"J for {rate:g}"] = min(pairs, default=(None, None))
        rows.append(row)
    return rows


def disorder(study: ProcessorStudy) -> list[dict[str, Any]]:
    """Return the fidelity of a GHZ state over networks whose molecules differ: table rows."""
    from molecular_qubits.experiments.disorder import sweep_rows
    from molecular_qubits.network import examples

    rows, columns = study.disorder_shape
    circuit = examples.ghz(rows * columns, examples.square_edges(rows, columns))
    return sweep_rows(network_of(study, study.disorder_shape), circuit, study.disorder, study.disorder_seeds)


def codes(study: ProcessorStudy) -> list[dict[str, Any]]:
    """Return logical errors of each code against the scale of all errors, with 95 % intervals: table rows."""
    from molecular_qubits.network.codes import code_memory, code_network
    from molecular_qubits.network.decode import logical_error

    options = {"couplers": study.network.couplers, "radicals": study.network.radicals, **study.network.settings}
    rows = []
    for one in study.codes:
        network = code_network(one.code, one.distance, study.network.spacing_nm, **options)
        t1, t2 = network.sites[0].t1_ns, network.sites[0].t2_ns
        for scale in track(study.scales, f"{one.code} {one.distance}"):
            memory = code_memory(one.code, one.distance, network=network, scale=scale)
            found = logical_error(memory.circuit, memory.rounds, one.shots, study.seed)
            low, high = found.interval
            rows.append({
                "code": one.code, "distance": one.distance, "radicals": network.n_sites, "scale": scale,
                "cycle (ns)": memory.cycle_ns, "shots": found.shots, "failures": found.failures,
                "error per round": found.per_round, "95 % low": low, "95 % high": high,
                "flip of one radical left alone": scale * float(-np.expm1(-memory.cycle_ns / t1)) / 2,
                "phase flip of one radical left alone": scale * float(-np.expm1(-memory.cycle_ns / t2)) / 2,
            })  # fmt: skip
    return rows


_MAKE: dict[str, Callable[[ProcessorStudy], Any]] = {
    "circuits": circuits, "budget": budget, "region": region, "exchange": exchange,
    "disorder": disorder, "codes": codes,
}  # fmt: skip
_FIELDS = {
    "circuits": {"network", "ghz_shapes", "shots", "shape", "qaoa_rounds", "trotter_steps", "trotter_time", "field",
                 "seed"},
    "budget": {"network", "budget_shape", "field"},
    "region": {"network", "target", "j_cm1", "t2_ns", "lifetime_ns", "longest_hold", "region_without", "error_rates"},
    "exchange": {"network", "target", "j_cm1", "j_points", "t2_ns", "lifetime_ns", "longest_hold", "region_without"},
    "disorder": {"network", "disorder", "disorder_shape", "disorder_seeds"},
    "codes": {"network", "codes", "scales", "seed"},
}  # fmt: skip
"""What of the study each part depends on."""


def write(
    study: ProcessorStudy, folder: Path, cache: Cache | None = None, committed: Path | None = None
) -> dict[str, Any]:
    """Compute the parts, or read the committed ones if the study is the same; write ``processor.json`` and figures.

    Parameters
    ----------
    study
        What to compute.
    folder
        Of the results.
    cache
        Finished parts, so that an interrupted run continues.
    committed
        Results of an earlier run.

    Returns
    -------
    dict
        The parts by name.
    """
    from molecular_qubits.experiments import processor_figures
    from shared.artifacts import committed_result, provenance, write_json
    from shared.plotting import save_figure, style

    start = time.monotonic()
    plain = json.loads(study.to_json())
    found = committed_result(committed, "study", plain)
    if found is None:
        found = {"study": plain} | {part: _part(part, study, cache) for part in PARTS}
        found |= {"provenance": provenance(study, time.monotonic() - start)}
    write_json(folder / "processor.json", found)
    with style():
        for part in DRAWN:
            save_figure(getattr(processor_figures, f"draw_{part}")(found), folder / part)
    return found


def tables(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of a result by their titles."""
    rows, columns = found["study"]["shape"]
    lattice = f"{rows} x {columns} radicals"
    parts = found["circuits"]
    return {
        "GHZ states": parts["ghz"],
        f"QAOA, MaxCut of {lattice}": parts["qaoa"],
        f"Trotter steps of the Ising model, {lattice}": parts["trotter"],
        **{f"Error budget: {name}": part for name, part in found["budget"].items()},
        "J (cm^-1), T2 and lifetime that keep the error of a cycle": kept(found),
        "Smallest lifetime of the triplet for each T2, at the best J (cm^-1)": boundary(found),
        "Networks whose molecules differ: fidelity of a GHZ state": found["disorder"],
        "Logical error of the codes against the scale of all errors": found["codes"],
    }


def _spans(intervals: list[tuple[float | None, float | None]]) -> str:
    """Return intervals as text; an end of the axis is said to be one."""
    parts = []
    for low, high in intervals:
        if low is None and high is None:
            parts.append("the whole axis")
        elif low is None or high is None:
            parts.append(f"start of the axis to {high:.2g}" if low is None else f"{low:.2g} to the end of the axis")
        else:
            parts.append(f"{low:.2g} to {high:.2g}")
    return "; ".join(parts) or "none"


def _part(name: str, study: ProcessorStudy, cache: Cache | None) -> Any:
    from shared.artifacts import versions

    if cache is None:
        return _MAKE[name](study)
    chosen = study.model_dump(mode="json", include=_FIELDS[name])
    key = {"part": name, "study": chosen, "packages": versions(("numpy", "stim", "numba")), "code": code_hash(__file__)}
    return cache.record("part.json", key, lambda: {"part": _MAKE[name](study)})["part"]
