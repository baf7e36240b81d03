"""All results of the package: exchange couplings and spin dynamics in one folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from molecular_qubits.experiments.dynamics import DynamicsConfig
from molecular_qubits.experiments.exchange import ExchangeConfig
from shared.config import FrozenConfig, load_config

CONFIGS = Path(__file__).parent / "configs"


class ReproduceConfig(FrozenConfig):
    """Configuration of both parts."""

    exchange: ExchangeConfig = ExchangeConfig()
    dynamics: DynamicsConfig = DynamicsConfig()


def load_reproduce_config(
    path: str | Path | None = None, overrides: Iterable[str] = (), *, fast: bool = False
) -> ReproduceConfig:
    """Return the configuration from defaults (or the fast values), a YAML file and ``key=value`` overrides."""
    base = load_config(ReproduceConfig, CONFIGS / "fast.yaml") if fast else None
    return load_config(ReproduceConfig, path, tuple(overrides), base=base)


def reproduce(
    folder: str | Path, config: ReproduceConfig, *, only: Literal["exchange", "dynamics"] | None = None
) -> Path:
    """Compute the results of the package.

    Parameters
    ----------
    folder
        Root of all results; this package writes into ``molecular_qubits`` below it.
    config
        Resolved configuration.
    only
        One of the two parts; both if ``None``.

    Returns
    -------
    Path
        The summary file.
    """
    from molecular_qubits.experiments import dynamics, exchange
    from shared.results import ResultsWriter

    writer = ResultsWriter(Path(folder), package="molecular_qubits", config=config)
    if only in (None, "exchange"):
        exchange.run(writer, config.exchange)
    if only in (None, "dynamics"):
        dynamics.run(writer, config.dynamics)
    return writer.finish()
