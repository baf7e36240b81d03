"""Compiled kernels that find equal rows: hashes of rows, and a table of the first row of each hash."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_njit = njit(nogil=True, cache=True, error_model="numpy")

_BATCH = 64
"""Rows hashed, or looked up, together: their chains of arithmetic and their reads of memory overlap."""


@intrinsic
def _bits(typingctx: Any, value: Any) -> Any:
    """Bits of a float as an unsigned integer of its size."""
    integer = types.uint64 if value == types.float64 else types.uint32

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(integer))

    return integer(value), generate


@intrinsic
def _prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of a row of a contiguous array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        stored = context.make_array(sig.args[0])(context, builder, args[0])
        pointer = builder.gep(stored.data, [builder.mul(args[1], builder.extract_value(stored.shape, 1))])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(call, [builder.bitcast(pointer, byte), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


@_njit
def hash_rows(x, hashes, start, stop):
    """Write a hash of 32 bits of rows `start` to `stop`; -0.0 counts as 0.0."""
    d = x.shape[1]
    h = np.empty(_BATCH, np.uint64)
    for begin in range(start, stop, _BATCH):
        n = min(_BATCH, stop - begin)
        h[:] = np.uint64(0x9E3779B97F4A7C15)
        for column in range(d):
            for i in range(n):
                value = x[begin + i, column] + x.dtype.type(0)
                mixed = (h[i] ^ np.uint64(_bits(value))) * np.uint64(0xBF58476D1CE4E5B9)  # type: ignore[call-arg]
                h[i] = mixed ^ (mixed >> np.uint64(29))
        for i in range(n):
            hashes[begin + i] = np.uint32((h[i] * np.uint64(0x94D049BB133111EB)) >> np.uint64(32))


@_njit
def _same_row(x, i, j):
    same = True
    for column in range(x.shape[1]):
        same &= x[i, column] == x[j, column]
    return same


@_njit
def first_equal_rows(x, hashes, table, first, part, parts):
    """Write into `first` the first row that equals each row, for the rows whose hash falls into `part`.

    Parameters
    ----------
    x
        (N, d) rows.
    hashes
        (N,) uint32, from `hash_rows`.
    table
        (size, 2) uint32 work space, filled with the largest number: a row, and its hash.
    first
        (N,) int32, written to.
    part, parts
        Rows are shared out by the low bits of their hash; `parts` is a power of two.

    Returns
    -------
    int
        Number of rows equal to an earlier one; -1 if the work space was too small.
    """
    size, free = np.uint64(len(table)), np.uint32(0xFFFFFFFF)
    left = len(table) - 1
    repeated = 0
    batch, slots = np.empty(_BATCH, np.int64), np.empty(_BATCH, np.uint64)
    mask, wanted = np.uint32(parts - 1), np.uint32(part)
    n, row = len(hashes), 0
    while row < n:
        m = 0
        while m < _BATCH and row < n:
            h = hashes[row]
            if (h & mask) == wanted:
                slot = (np.uint64(h) * size) >> np.uint64(32)
                _prefetch(table, np.int64(slot))  # type: ignore[call-arg]
                batch[m], slots[m] = row, slot
                m += 1
            row += 1
        for i in range(m):
            here, slot = batch[i], slots[i]
            h = hashes[here]
            while True:
                other = table[slot, 0]
                if other == free:
                    if left == 0:
                        return -1
                    left -= 1
                    table[slot, 0], table[slot, 1] = np.uint32(here), h
                    first[here] = here
                    break
                if table[slot, 1] == h and _same_row(x, np.int64(other), here):
                    first[here] = np.int32(other)
                    repeated += 1
                    break
                slot += np.uint64(1)
                if slot == size:
                    slot = np.uint64(0)
    return repeated
