"""Compiled kernels of the search that leaves out centroids which cannot be the nearest.

With a a point's previous centroid and u its distance to it, the nearest centroid c has
|c - a| <= |c - x| + |x - a| <= 2 u (triangle inequality; the annuli are those of Newling and Fleuret 2016). Points are
taken cluster by cluster: the centroids near enough for the farthest member are put in order of their distance to a, in
`_LEVELS` annuli, the members in order of u, and each tile of members is searched against the annuli that its farthest
member needs.
"""

import numpy as np
from numba import njit

from compression.clustering.compiled import BLOCK, LEAST, MARGIN, nearest_in_tile

_njit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})

_LEVELS = 17
_SIDE = 16
"""Clusters of consecutive numbers, neighbours if they come from the partition, that share a first selection."""


@_njit
def group(codes, n_clusters, order, starts):
    """Write the points in the order of their clusters, and where each cluster begins, (K + 1,)."""
    starts[:] = 0
    for code in codes:
        starts[code + 1] += 1
    for k in range(n_clusters):
        starts[k + 1] += starts[k]
    place = starts[:-1].copy()
    for i in range(len(codes)):
        code = codes[i]
        order[place[code]] = i
        place[code] += 1


@_njit
def farthest_members(x, shift, scale, columns, features, codes, farthest, start, stop):
    """Raise `farthest` (K,) to the largest squared distance of points `start` to `stop` to their previous centroids."""
    for i in range(start, stop):
        code = codes[i]
        square = x.dtype.type(0)
        for j in range(len(features)):
            difference = (x[i, j] - shift[j]) * scale - columns[j, code]
            square += difference * difference
        farthest[code] = max(farthest[code], square)


@_njit
def _squares(columns, features, centre, n, squares):
    """Write the squared distances of the first n columns of `columns` (d, m) to `centre` (d,)."""
    for k in range(n):
        square = columns[0, k] * 0
        for j in range(len(features)):
            difference = columns[j, k] - centre[j]
            square += difference * difference
        squares[k] = square


@_njit
def _levels(squares, n, inverse, levels):
    """Write the annuli of squared distances, `inverse` being one over their width."""
    for k in range(n):
        levels[k] = np.int32(np.sqrt(squares[k]) * inverse)


@_njit
def _gather(x, features, order, begin, n, values):
    """Write the rows of a cluster's members as columns."""
    for p in range(n):
        row = order[begin + p]
        for j in range(len(features)):
            values[j, p] = x[row, j]


@_njit
def _sort(levels, n, starts, place):
    """Write the numbers 0 to n - 1 in the order of their levels, and where each level ends."""
    starts[:] = 0
    for c in range(n):
        starts[levels[c] + 1] += 1
    for b in range(_LEVELS):
        starts[b + 1] += starts[b]
    for c in range(n):
        place[starts[levels[c]]] = c
        starts[levels[c]] += 1


@_njit
def _within(squares, n, bound, found):
    """Write the indices of the first n entries that are at most `bound` and return their number."""
    count = np.int32(0)
    for k in range(np.int32(n)):
        found[count] = np.int32(k)
        count += np.int32(squares[k] <= bound)
    return count


@_njit
def nearest_near_chunk(
    x, shift, scale, table, offsets, features, width, columns, farthest, order, starts, codes, first, last
):
    """Write the nearest centroid of the members of clusters `first` to `last` into `codes`.

    Parameters
    ----------
    x, shift, scale, table, offsets, features, width
        As for `compiled.nearest_chunk`.
    columns
        (d, K) the centroids themselves, shifted and scaled.
    farthest
        (K,) from `farthest_members`.
    order, starts
        From `group`.
    codes
        (N,) int32, written to.

    Returns
    -------
    int
        Distances evaluated, those of tiles that are not full counted in full.
    """
    d, k = len(features), columns.shape[1]
    dtype = x.dtype.type
    most = 0
    for a in range(first, last):
        most = max(most, starts[a + 1] - starts[a])
    values, reach, reach_level = np.empty((d, most), x.dtype), np.empty(most, x.dtype), np.empty(most, np.int32)
    squares, near_level = np.empty(k, x.dtype), np.empty(k, np.int32)
    around, around_columns = np.empty(k + 1, np.int32), np.empty((d, k), x.dtype)
    near, near_squares = np.empty(k + 1, np.int32), np.empty(k, x.dtype)
    by_level, member = np.empty(k, np.int32), np.empty(most, np.int32)
    near_table, near_offsets = np.zeros((k + BLOCK, d), x.dtype), np.empty(k + BLOCK, x.dtype)
    tile, found = np.zeros(d * width, x.dtype), np.empty(width, np.int32)
    upto, needed = np.empty(_LEVELS + 1, np.int64), np.empty(_LEVELS + 1, np.int64)
    centre = np.empty(d, x.dtype)
    wide, least = dtype(2 * (1 + MARGIN)), dtype(LEAST)
    evaluated = n_around = 0
    for a in range(first, last):
        if (a - first) % _SIDE == 0:  # the centroids near enough for any of the next clusters
            stop = min(a + _SIDE, last)
            for j in range(d):
                centre[j] = columns[j, a + (stop - a) // 2]
            _squares(columns[:, a:stop], features, centre, stop - a, squares)
            bound = dtype(0)
            for b in range(a, stop):
                if starts[b + 1] > starts[b]:
                    bound = max(bound, np.sqrt(squares[b - a]) + np.sqrt(farthest[b]) * wide + least)
            _squares(columns, features, centre, k, squares)
            n_around = _within(squares, k, bound * bound * (1 + dtype(MARGIN)), around)
            for j in range(d):
                for c in range(n_around):
                    around_columns[j, c] = columns[j, around[c]]
        begin, n = starts[a], starts[a + 1] - starts[a]
        if n == 0:
            continue
        _gather(x, features, order, begin, n, values)
        for j in range(d):
            centre[j] = columns[j, a]
            for p in range(n):
                values[j, p] = (values[j, p] - shift[j]) * scale
        _squares(values, features, centre, n, reach)
        for p in range(n):
            reach[p] = np.sqrt(reach[p]) * wide + least
        bound = (np.sqrt(farthest[a]) * wide + least) * (1 + dtype(MARGIN))
        _squares(around_columns, features, centre, n_around, squares)
        count = _within(squares, n_around, bound * bound, near)
        for c in range(count):
            near_squares[c] = squares[near[c]]
        inverse = dtype(_LEVELS - 1) / bound
        _levels(near_squares, count, inverse, near_level)
        _sort(near_level, count, upto, by_level)
        for c in range(count):
            number = around[near[by_level[c]]]
            by_level[c] = number
            near_offsets[c] = offsets[number]
            for j in range(d):
                near_table[c, j] = table[number, j]
        near_offsets[count : count + BLOCK] = np.inf
        for p in range(n):
            reach_level[p] = np.int32(reach[p] * inverse)
        _sort(reach_level, n, needed, member)
        for start in range(0, n, width):
            m = min(width, n - start)
            for j in range(d):
                for i in range(m):
                    tile[j * width + i] = values[j, member[start + i]]
            limit = (upto[reach_level[member[start + m - 1]]] + BLOCK - 1) // BLOCK * BLOCK
            nearest_in_tile(tile, near_table[:limit], near_offsets[:limit], found, features)  # type: ignore[call-arg]
            for i in range(m):
                codes[order[begin + member[start + i]]] = by_level[found[i]]
            evaluated += limit * width
    return evaluated
