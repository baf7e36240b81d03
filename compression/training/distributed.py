"""Data-parallel training in several processes, as ``torchrun`` and ``accelerate launch`` start them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

_LONGEST_WAIT = timedelta(days=2)  # of the others, while process 0 measures or evaluates alone


@contextmanager
def process_group() -> Iterator[None]:
    """Join the group of processes that ``torchrun`` or ``accelerate launch`` started; nothing without them.

    GPUs talk through NCCL, which has not been tried on several, processors through gloo. A group that exists already is
    used and left as it is.

    Notes
    -----
    On processors, too, it is ``accelerate launch --multi_gpu --num_processes=2`` that starts two processes as
    ``torchrun --nproc-per-node=2`` does; with ``--cpu`` it starts a single one, or several through MPI, which are not
    found here.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def world_size() -> int:
    """Return the number of processes that train together; 1 without a group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process in its group, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


def shard(rows: Sequence[int]) -> tuple[list[int], float]:
    """Return this process's rows of a batch, and the factor of its mean loss in the mean over the batch.

    Every process gets at least one row, with factor 0 if there are fewer rows than processes; the mean of
    factor times loss over the processes is the mean over the batch.
    """
    n = world_size()
    mine = list(rows[rank() :: n])
    return (mine, len(mine) * n / len(rows)) if mine else (list(rows[:1]), 0.0)


def average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Replace the gradients by their means over all processes. Call it in every process, with the same parameters."""
    n = world_size()
    if n == 1:
        return
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.reshape(-1).float() for parameter in parameters if parameter.grad is not None])
    distributed.all_reduce(flat)
    flat /= n
    start = 0
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Return the mean of a scalar over all processes."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / world_size()


def broadcast_(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite tensors by those of process 0."""
    if world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.data, 0)


def from_first(value: Any) -> Any:
    """Return the value of process 0, pickled for the others; their own are not looked at."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, 0)
    return values[0]


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        distributed.barrier()
