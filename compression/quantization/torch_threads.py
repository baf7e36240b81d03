"""Compiled kernels in the threads of torch, and memory that each of its callers keeps."""

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compression.clustering.threads import run_all


def in_threads(kernel: Any, about: Any, n_threads: int) -> None:
    """Run a kernel in the threads of torch, which wait for it anyway; others would have to share cores with them.

    Parameters
    ----------
    kernel
        A numba ``cfunc`` of one address, which shares out its work by itself.
    about
        A `ctypes` array, what it is given.
    n_threads
        How many run it.
    """
    place = ctypes.addressof(about)
    if n_threads == 1:
        _function(kernel)(place)
    elif (parallel := _torch_threads()) is not None:
        parallel(kernel.address, place, n_threads, 0)
    else:
        run_all(_function(kernel), [(place,)] * n_threads)


@cache
def _function(kernel: Any) -> Callable[[int], None]:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel.address)


@cache
def _torch_threads() -> Callable[[int, int, int, int], None] | None:
    """The function of OpenMP's library by which torch runs loops in threads, or ``None`` without that library."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            function = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        function.restype = None
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        return function
    return None


_local = threading.local()


def scratch(size: int) -> np.ndarray:
    """Memory of `size` bytes from the start of a cache line on, of this thread and kept for its next call."""
    if getattr(_local, "size", 0) < size:
        _local.memory, _local.size = np.empty(size + 64, np.uint8), size
    start = -_local.memory.ctypes.data % 64
    return _local.memory[start : start + size]


def release_scratch() -> None:
    """Give back the memory that this thread keeps."""
    _local.__dict__.clear()
