"""Compiled kernels of the search among the centroids that were near a point some iterations ago."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from compression.clustering.compiled import BLOCK, LEAST, MARGIN, below_in_tile, nearest_in_tile

_njit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@intrinsic
def _lowest_bit(typingctx: Any, mask: Any) -> Any:
    """Position of the lowest bit that is set in a uint64 which is not 0."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word, flag = ir.IntType(64), ir.IntType(1)
        count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(word, [word, flag]), "llvm.cttz.i64")
        return builder.call(count, [args[0], ir.Constant(flag, 1)])

    return types.int64(types.uint64), generate


@_njit
def _distance(x, i, shift, scale, table, features, k):
    """Distance of a point to a centroid, whose negative is in the table, by direct difference."""
    square = x.dtype.type(0)
    for j in range(len(features)):
        difference = (x[i, j] - shift[j]) * scale + table[k, j]
        square += difference * difference
    return np.sqrt(square)


@_njit
def list_chunk(
    x, shift, scale, table, offsets, features, width, order, previous, gap, lists, counts, reach, start, stop
):
    """List for each point the centroids nearer than its previous one and a gap; for those that have too many, none.

    Parameters
    ----------
    x, shift, scale, table, offsets, features, width
        As for `compiled.nearest_chunk`.
    order
        (N,) the points, neighbours together, of which `start` to `stop` are taken.
    previous
        (N,) int32 a centroid of each point.
    gap
        Distance.
    lists, counts, reach
        (N, C) uint16, (N,) uint8 and (N,) written to: the listed centroids, their number, and the distance within which
        every centroid is listed, 0 for points with more than C.
    """
    n_features = len(features)
    tile, limits = np.zeros(n_features * width, x.dtype), np.empty(width, x.dtype)
    masks = np.empty(len(table), np.uint64)
    dtype, capacity = x.dtype.type, lists.shape[1]
    found, n_found = np.empty((width, capacity + 1), np.uint16), np.zeros(width, np.int64)
    one, none = np.uint64(1), np.uint64(0)
    for begin in range(start, stop, width):
        n = min(width, stop - begin)
        limits[:] = -np.inf
        for p in range(n):
            i = order[begin + p]
            square = dtype(0)
            for j in range(n_features):
                value = (x[i, j] - shift[j]) * scale
                tile[j * width + p] = value
                square += value * value
            reach[i] = _distance(x, i, shift, scale, table, features, previous[i]) + gap
            limits[p] = (reach[i] * reach[i] * dtype(1 + MARGIN) - square) / 2 + dtype(LEAST)
        n_found[:] = 0
        below_in_tile(tile, table, offsets, limits, masks, features)  # type: ignore[call-arg]
        for block in range(0, len(table), BLOCK):
            if masks[block] | masks[block + 1] | masks[block + 2] | masks[block + 3] == none:
                continue
            for k in range(block, block + BLOCK):
                mask = masks[k]
                while mask != none:
                    p = _lowest_bit(mask)
                    mask &= mask - one
                    found[p, min(n_found[p], capacity)] = k
                    n_found[p] += 1
        for p in range(n):
            i = order[begin + p]
            counts[i] = min(n_found[p], capacity)
            for c in range(counts[i]):
                lists[i, c] = found[p, c]
            if n_found[p] > capacity:
                reach[i] = 0


@_njit
def nearest_listed_chunk(
    x,
    shift,
    scale,
    table,
    offsets,
    features,
    width,
    far,
    far_table,
    far_offsets,
    lists,
    counts,
    reach,
    slack,
    codes,
    start,
    stop,
):
    """Write the nearest centroid of points `start` to `stop` into `codes`, -1 where the lists cannot tell.

    Parameters
    ----------
    x, shift, scale, table, offsets, features, width
        As for `compiled.nearest_chunk`.
    far, far_table, far_offsets
        The numbers, table and offsets of centroids that are compared with all points.
    lists, counts, reach
        From `list_chunk`.
    slack
        How far any other centroid has come at most since the lists were made.
    codes
        (N,) int32, written to.

    Returns
    -------
    int
        Number of -1 written.
    """
    n_features, failed = len(features), 0
    tile, found = np.zeros(n_features * width, x.dtype), np.zeros(width, np.int32)
    dtype = x.dtype.type
    for begin in range(start, stop, width):
        n = min(width, stop - begin)
        for p in range(n):
            for j in range(n_features):
                tile[j * width + p] = (x[begin + p, j] - shift[j]) * scale
        if len(far):
            nearest_in_tile(tile, far_table, far_offsets, found, features)  # type: ignore[call-arg]
        for p in range(n):
            i = begin + p
            best, least = np.int64(-1), dtype(np.inf)
            if len(far):
                best = far[found[p]]
                least = far_offsets[found[p]]
                for j in range(n_features):
                    least += tile[j * width + p] * far_table[found[p], j]
            for c in range(counts[i]):
                k = lists[i, c]
                score = offsets[k]
                for j in range(n_features):
                    score += tile[j * width + p] * table[k, j]
                if score < least:
                    best, least = np.int64(k), score
            if best >= 0:
                distance = _distance(x, i, shift, scale, table, features, best)
                if distance * dtype(1 + MARGIN) + dtype(LEAST) > reach[i] - slack:
                    best = np.int64(-1)
            codes[i] = best
            failed += int(best < 0)
    return failed
