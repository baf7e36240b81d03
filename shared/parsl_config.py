"""Parsl's high-throughput executor from a small YAML file: local processes, or jobs of a Slurm cluster."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from shared.config import FrozenConfig, load_config

_LOCAL_PERIOD_SECONDS = 0.1
"""Parsl starts its first workers one such period after itself; the default of 5 s suits the queue of a cluster."""


class ParslConfig(FrozenConfig):
    """Where Parsl starts its workers.

    Parameters
    ----------
    provider
        ``"local"``: this machine. ``"slurm"``: jobs submitted with ``sbatch``, from a machine that can.
    nodes_per_block, max_blocks
        Nodes of one Slurm job, and the number of jobs at a time.
    cores_per_node, memory_gb_per_node
        Asked from Slurm for each node; ``None`` leaves it to the cluster.
    partition, account, walltime
        Of the Slurm jobs.
    scheduler_options
        Further ``#SBATCH`` lines.
    worker_init
        Shell lines before the workers start, such as ``module load``.
    address
        Name or IP address under which the workers reach this machine; ``None``: 127.0.0.1 for the local provider, else
        its full name.
    heartbeat_seconds
        Between signs of life; a manager silent four times as long is taken for dead and its tasks run again.
    run_folder
        Folder for Parsl's logs and, on a cluster, job scripts: one that every node sees. ``None``: a temporary folder
        for the local provider, ``parsl-runs`` in the working directory for Slurm.
    """

    provider: Literal["local", "slurm"] = "local"
    nodes_per_block: int = Field(1, ge=1)
    max_blocks: int = Field(1, ge=1)
    cores_per_node: int | None = Field(None, ge=1)
    memory_gb_per_node: int | None = Field(None, ge=1)
    partition: str | None = None
    account: str | None = None
    walltime: str = Field("04:00:00", pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")
    scheduler_options: str = ""
    worker_init: str = ""
    address: str | None = None
    heartbeat_seconds: int = Field(10, ge=1)
    run_folder: str | None = None

    @model_validator(mode="after")
    def _default_folder(self) -> ParslConfig:
        if self.provider == "slurm" and self.run_folder is None:
            object.__setattr__(self, "run_folder", "parsl-runs")
        return self


def read_parsl_config(path: str | Path | None) -> ParslConfig | None:
    """Read a YAML file; ``None`` for ``None``. `ConfigError` if a key is unknown or a value is not valid."""
    return None if path is None else load_config(ParslConfig, path)


def check_installed() -> None:
    """Raise a `ModuleNotFoundError` with the remedy if Parsl is missing."""
    if importlib.util.find_spec("parsl") is None:
        raise ModuleNotFoundError(
            "The executor 'parsl' needs the package parsl: python -m pip install -c constraints.txt -e '.[hpc]'."
        )


class _Kernel:
    """Parsl's data-flow kernel, as far as it is used here."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        return self._kernel.submit(
            function, arguments, executors=["workers"], cache=False, ignore_for_cache=[], app_kwargs={}
        )

    def attempts(self, future: Any) -> int:
        return int(future.task_record["try_id"]) + 1

    def explain(self, error: BaseException, attempts: int) -> BaseException:
        from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

        from shared.tasks import _died

        return _died(attempts) if isinstance(error, ManagerLost | WorkerLost) else error


@contextmanager
def data_flow_kernel(config: ParslConfig, n_workers: int, retries: int, folder: Path) -> Iterator[_Kernel]:
    """Start Parsl with one high-throughput executor and stop it at the end of the block."""
    from parsl.config import Config
    from parsl.dataflow.dflow import DataFlowKernel

    local = config.provider == "local"
    kernel = DataFlowKernel(
        Config(
            executors=[make_executor(config, n_workers, folder)],
            retries=retries,
            run_dir=str(folder / "runinfo"),
            strategy="none" if local else "simple",
            strategy_period=_LOCAL_PERIOD_SECONDS if local else 5,
            initialize_logging=False,
            exit_mode="skip",
        )
    )
    try:
        yield _Kernel(kernel)
    finally:
        kernel.cleanup()


def make_executor(config: ParslConfig, n_workers: int, folder: Path) -> Any:
    """Return Parsl's high-throughput executor for a configuration, not yet started."""
    from parsl.executors import HighThroughputExecutor
    from parsl.launchers import SimpleLauncher, SrunLauncher
    from parsl.providers import LocalProvider, SlurmProvider

    from shared.tasks import limit_threads

    lines = [f"export PATH={Path(sys.executable).parent}:$PATH", f"export PYTHONPATH={_python_path()}"]
    if config.provider == "local":
        lines += [f"export {name}={value}" for name, value in limit_threads(n_workers).items()]
    worker_init = "; ".join([*lines, *filter(None, [config.worker_init.strip().replace("\n", "; ")])])
    provider: Any
    if config.provider == "local":
        provider = LocalProvider(init_blocks=1, max_blocks=1, launcher=SimpleLauncher(), worker_init=worker_init)
    else:
        provider = SlurmProvider(
            partition=config.partition,
            account=config.account,
            nodes_per_block=config.nodes_per_block,
            cores_per_node=config.cores_per_node,
            mem_per_node=config.memory_gb_per_node,
            init_blocks=1,
            max_blocks=config.max_blocks,
            walltime=config.walltime,
            scheduler_options=config.scheduler_options,
            worker_init=worker_init,
            launcher=SrunLauncher(),
        )
    return HighThroughputExecutor(
        label="workers",
        address=config.address or ("127.0.0.1" if config.provider == "local" else socket.getfqdn()),
        max_workers_per_node=n_workers,
        cores_per_worker=1e-3,  # the number of workers is given; their threads are set by the environment
        provider=provider,
        working_dir=str(folder),
        worker_logdir_root=str(folder),
        interchange_launch_cmd=[sys.executable, str(Path(sys.executable).parent / "interchange.py")],
        heartbeat_period=config.heartbeat_seconds,
        heartbeat_threshold=4 * config.heartbeat_seconds,
        encrypted=False,
    )


def _python_path() -> str:
    """Return the import path of this process, so that workers find the same modules."""
    folders = (Path(entry).resolve() for entry in sys.path if Path(entry or ".").is_dir())
    return os.pathsep.join(dict.fromkeys(map(str, folders)))
