"""Command line: ``molecular-qubits``."""

from __future__ import annotations

import argparse
from pathlib import Path

from molecular_qubits import cli_exchange, cli_processor
from shared.cli import add_set, add_settings, parse, run_command, shown


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process if ``None``.

    Returns
    -------
    int
        0 on success, 2 for bad input, 1 for a failed calculation, 130 if interrupted, 141 if nobody reads the output
        any more. Errors are one sentence on standard error.
    """
    arguments = parse(build_parser(), argv)
    return run_command(lambda: arguments.action(arguments), arguments)


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser; it loads nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="molecular-qubits",
        description="Molecular qubits: exchange couplings, spin dynamics, EPR, gates, networks and their circuits.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    cli_exchange.add_commands(commands)
    add_screen(commands)

    epr = commands.add_parser(
        "epr",
        help="field-swept EPR spectrum of a spin system: thermal or spin-polarised, powder average",
        description="Resonance fields, intensities and polarisation of all lines of the full Hamiltonian. Example: "
        "molecular_qubits/experiments/configs/epr_quintet.yaml",
    )
    epr.add_argument("config", type=Path, help="YAML file")
    add_set(epr, "e.g. frequency_ghz=34")
    epr.add_argument("--out", type=Path, default=Path("results/epr"), help="folder (default: %(default)s)")
    epr.set_defaults(action=run_epr)

    gate = commands.add_parser(
        "gate",
        help="fidelity of the optically switched two-qubit gate, from a molecule, an exchange result or a coupling",
        description="One of three keys is needed. SMILES -> geometry -> J -> fidelity: --set molecule=SMILES; from a "
        "result of the command exchange: --set exchange=RESULT.json; from a coupling: --set j_on_cm1=0.25.",
    )
    evolution = commands.add_parser(
        "evolve",
        help="spin dynamics of radical, coupler and radical after light: populations and entanglement",
        description="Populations, concurrence and log-negativity of the two-qubit unit, as netCDF and a figure.",
    )
    add_settings(gate, "results/gate", example="e.g. j_on_cm1=0.25", cache="cache and checkpoints of DFT")
    gate.set_defaults(action=run_gate)
    add_settings(evolution, "results/evolve")
    evolution.set_defaults(action=run_evolve)

    control = commands.add_parser(
        "control",
        help="addressing of equal radicals, and the optically switched gate optimised: sequence, maps, robustness",
        description="The committed results are shown if the configuration is that of them; otherwise (or with --again) "
        "all is optimised, which takes half an hour for the defaults and continues after an interruption.",
    )
    add_settings(control, "results/control", cache="finished optimisations")
    control.add_argument("--again", action="store_true", help="optimise even if the result is committed")
    control.add_argument("--no-addressing", action="store_true", help="leave out the addressing of equal radicals")
    control.set_defaults(action=run_control)

    network = commands.add_parser(
        "network",
        help="a network of radicals and couplers, a circuit compiled for it: figures, schedule, interactive page",
        description="Lattice or graph with its light and wavelengths; OpenQASM to native gates, routing and schedule.",
    )
    shipped = "molecular_qubits/experiments/configs/network.yaml"
    add_settings(network, "results/network", example="e.g. rows=4", default=shipped)
    network.add_argument("--circuit", type=Path, default=None, metavar="FILE", help="OpenQASM file to compile")
    network.add_argument(
        "--screenshot", type=int, default=None, metavar="LAYER", help="page.png of a layer, from 1 (Chromium)"
    )
    network.set_defaults(action=run_network)

    cli_processor.add_commands(commands)

    reproduce = commands.add_parser("reproduce", help="compute all results: exchange couplings and spin dynamics")
    reproduce.add_argument("--out", type=Path, default=Path("results"), help="folder (default: %(default)s)")
    reproduce.add_argument("--fast", action="store_true", help="smaller molecules and grids: seconds, not minutes")
    reproduce.add_argument("--config", type=Path, default=None, help="YAML file")
    add_set(reproduce, "override one key, e.g. exchange.xc=pbe0")
    reproduce.add_argument("--only", choices=("exchange", "dynamics"), default=None, help="one part")
    reproduce.set_defaults(action=run_reproduce)
    return parser


def add_screen(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``screen``."""
    screen = commands.add_parser(
        "screen",
        help="rank molecules of a library by the predicted fidelity of their switched gate",
        description="Every radical with every linker and coupler of the library: geometry, exchange with lit and dark "
        "coupler level by level, predicted gate. Results are kept as they come: the same command continues.",
    )
    screen.add_argument("library", help="CSV with the columns kind, name, smiles; or the word shipped")
    screen.add_argument("--out", type=Path, default=Path("results/screening"), help="folder (default: %(default)s)")
    screen.add_argument("--config", type=Path, default=None, help="YAML file, or the word cheap or two-levels")
    add_set(screen, "e.g. gate.jitter_ns=1e-3")
    screen.add_argument("--workers", type=int, default=None, help="processes (default: all processors)")
    screen.add_argument(
        "--executor", choices=("processes", "parsl"), default="processes", help="(default: %(default)s)"
    )
    screen.add_argument("--parsl-config", type=Path, default=None, help="YAML file, see shared/configs/slurm.yaml")
    screen.add_argument("--cache", type=Path, default=None, metavar="FOLDER", help="finished results and checkpoints")
    screen.add_argument(
        "--known", default=None, metavar="FILE", help="couplings.jsonl of an earlier run; or the word shipped"
    )
    screen.add_argument("--finished-only", action="store_true", help="compute nothing: rank what is finished or known")
    screen.set_defaults(action=run_screen)


def run_screen(arguments: argparse.Namespace) -> None:
    """Screen a library and print the best candidates."""
    from molecular_qubits.screening.known import SHIPPED_COUPLINGS
    from molecular_qubits.screening.library import SHIPPED
    from molecular_qubits.screening.run import ScreeningConfig, screen
    from shared.config import load_config
    from shared.parsl_config import read_parsl_config
    from shared.results import markdown_table

    config_file = arguments.config
    if str(config_file) in ("cheap", "two-levels"):
        config_file = SHIPPED.parent / f"{config_file}.yaml"
    result = screen(
        SHIPPED if arguments.library == "shipped" else arguments.library,
        arguments.out,
        config=shown(arguments, load_config(ScreeningConfig, config_file, arguments.set)),
        n_workers=arguments.workers,
        executor=arguments.executor,
        parsl=read_parsl_config(arguments.parsl_config),
        cache=arguments.cache,
        known=SHIPPED_COUPLINGS if arguments.known == "shipped" else arguments.known,
        finished_only=arguments.finished_only,
    )
    columns = ("rank", "name", "fidelity", "fidelity error", "J_on (cm^-1)", "J_off (cm^-1)")
    rows = [candidate.to_row() for candidate in result.candidates if candidate.rank is not None][:10]
    if rows:
        print(markdown_table([{name: row[name] for name in columns} for row in rows]))
    computed = sum(candidate.rank is not None for candidate in result.candidates)
    failed = [candidate for candidate in result.candidates if candidate.status.startswith("failed")]
    if failed and not computed:
        raise RuntimeError(
            f"No candidate could be ranked, {len(failed)} of {len(result.candidates)} failed, such as "
            f"{failed[0].candidate.name}: {failed[0].status}"
        )
    print(f"{computed} of {len(result.candidates)} candidates ranked; {arguments.out / 'report.html'}")


def run_epr(arguments: argparse.Namespace) -> None:
    """Compute a spectrum and print its lines along the axes of the molecule."""
    from molecular_qubits.experiments.epr import EprConfig, run
    from shared.config import load_config
    from shared.results import markdown_table

    shown(arguments, load_config(EprConfig, arguments.config, arguments.set), arguments.config.parent, "system")
    rows = run(arguments.config, arguments.set, arguments.out)
    print(markdown_table(rows, digits=6) if rows else "No lines between these fields along x, y and z.")
    print(f"{arguments.out / 'spectrum.nc'}")


def run_gate(arguments: argparse.Namespace) -> None:
    """Predict the switched gate and print its fidelity with the error that J leaves."""
    from molecular_qubits.electronic.exchange import ExchangeResult
    from molecular_qubits.experiments.gate import GateConfig, run
    from shared.config import load_config

    folder = arguments.config.parent if arguments.config else Path()
    config = shown(arguments, load_config(GateConfig, arguments.config, arguments.set), folder, "exchange")
    exchange = None
    if config.exchange is not None:
        path = folder / config.exchange
        if not path.is_file():
            raise ValueError(f"Key `exchange` must name a result file, but there is no file {str(path)!r}.")
        exchange = ExchangeResult.from_json(path)
    elif config.molecule is not None:
        chosen = cli_exchange.parse_exchange([*config.exchange_options, "--", config.molecule])
        chosen.cache = arguments.cache
        exchange = cli_exchange.compute_exchange(chosen)
        exchange.to_json(arguments.out / "exchange.json")
        print(cli_exchange.describe(exchange))
    found = run(config, arguments.out, exchange)
    missing = f" (without {', '.join(found['not_in_the_error'])})" if "not_in_the_error" in found else ""
    print(f"J_on = {found['j_on_cm1']:+.4g} ± {found['j_on_error_cm1']:.2g} cm^-1{missing}")
    print(
        f"{found['target']}: fidelity {found['fidelity']:.4f} ± {found['fidelity_error']:.4f} at a hold of "
        f"{found['hold_ns']:.4g} ns; bound from T1 and T2 {found['decay_bound']:.4f}, local rotations alone "
        f"{found['local_rotations_alone']:.4f}"
    )
    print(arguments.out / "gate.json")


def run_control(arguments: argparse.Namespace) -> None:
    """Address equal radicals and optimise the switched gate; print both."""
    from molecular_qubits.experiments import addressing, optical_gate
    from shared.artifacts import Cache
    from shared.config import load_config
    from shared.results import titled_table

    study = shown(arguments, load_config(optical_gate.OpticalGateStudy, arguments.config, arguments.set))
    if not arguments.no_addressing:
        known = None if arguments.again else addressing.COMMITTED
        ways = addressing.write(arguments.out, Cache(arguments.cache, name="addressing"), known)["ways"]
        print(titled_table("Ways of addressing one of two equal radicals", ways))
    committed = None if arguments.again else optical_gate.COMMITTED
    found = optical_gate.write(study, arguments.out, Cache(arguments.cache, name="optical-gate"), committed)
    print(titled_table("Optically switched gate, best sequence of each J", optical_gate.along_rows(found)))
    print(titled_table("What limits the best gate: one imperfection at a time taken away", found["budget"]))
    print(titled_table("The best sequence at other temperatures", found["temperature"]))
    print(arguments.out / "optical_gate.json")


def run_network(arguments: argparse.Namespace) -> None:
    """Make a network, compile a circuit for it, and print the numbers."""
    from molecular_qubits.experiments.network import CONFIGS, NetworkConfig, run
    from shared.config import load_config

    path = arguments.config or CONFIGS / "network.yaml"
    config = load_config(NetworkConfig, path, arguments.set)
    if arguments.circuit is not None:
        config = config.model_copy(update={"circuit": str(arguments.circuit.resolve())})
    shown(arguments, config, path.parent, "circuit")
    for name, value in run(config, arguments.out, path.parent, arguments.screenshot).items():
        print(f"{name:<34s}{value:.4g}" if isinstance(value, float) else f"{name:<34s}{value}")
    if arguments.screenshot is not None:
        print(arguments.out / "page.png")
    print(arguments.out / ("network.png" if config.circuit is None else "page.html"))


def run_evolve(arguments: argparse.Namespace) -> None:
    """Evolve the two-qubit unit and print its entanglement."""
    from molecular_qubits.experiments.evolve import EvolveConfig, run, summary
    from shared.config import load_config

    config = shown(arguments, load_config(EvolveConfig, arguments.config, arguments.set))
    found = summary(run(config, arguments.out))
    when = "at no time" if found["at_ns"] is None else f"at {found['at_ns']:.4g} ns"
    print(f"largest concurrence of the radicals: {found['largest_concurrence']:.4f} ({when})")
    print(f"largest population of the triplet: {found['largest_triplet_population']:.4f}")
    print(arguments.out / "observables.nc")


def run_reproduce(arguments: argparse.Namespace) -> None:
    """Compute all results of the package and write them to a folder."""
    from molecular_qubits.experiments.reproduce import load_reproduce_config, reproduce

    config = shown(arguments, load_reproduce_config(arguments.config, arguments.set, fast=arguments.fast))
    print(reproduce(arguments.out, config, only=arguments.only))
