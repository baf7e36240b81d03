"""Compiled kernels: nearest centroids, sums by cluster, distances; each releases the interpreter lock.

They take chunks of points, so that a pool of threads can share the work and Ctrl-C is answered between chunks. The
search keeps a tile of points in vector registers and runs over the centroids with one fused multiply-add for each
coordinate (written as LLVM vectors of 64 bytes, which narrower machines split).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTES = 64
MAX_FEATURES = 32
"""Most features of a point for which the search is compiled: blocks of up to 32 values, or of 16 weighted ones."""

_njit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


BLOCK = 4
"""Centroids that the search takes at a time; tables are filled up to a multiple of it, with offsets of infinity."""

MARGIN, LEAST = 1e-4, 4e-6
"""By how much a bound is widened, relative and absolute (the points have extent 1), against rounding."""

_IN_REGISTERS = 8
"""Most features of a point for which the points themselves stay in registers; else partial scores of a block do."""


def tile_groups(n_features: int) -> int:
    """Vectors of points in one tile: enough to hide the latency of a multiply-add, few enough for 32 registers."""
    return min(4, 26 // (n_features + 3)) if n_features <= _IN_REGISTERS else 4


def tile_width(n_features: int, dtype: np.dtype) -> int:
    """Points in one tile of the search."""
    return tile_groups(n_features) * _BYTES // dtype.itemsize


class _Scan:
    """Emits the loop over the centroids that all searches of a tile share: the scores of each block, in registers.

    The arguments are those of the intrinsic, of which the first three are the tile (features, groups * lanes), the
    table (K, features) and the offsets (K,) of the centroids; K must be a multiple of `BLOCK`.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any, n_features: int) -> None:
        self.builder, self.n_features, self.groups = builder, n_features, tile_groups(n_features)
        self.double = signature.args[0].dtype == types.float64
        self.scalar = ir.DoubleType() if self.double else ir.FloatType()
        self.integer = ir.IntType(64 if self.double else 32)
        self.lanes = _BYTES // (8 if self.double else 4)
        self.vector, self.indices = ir.VectorType(self.scalar, self.lanes), ir.VectorType(self.integer, self.lanes)
        arrays = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:-1], args, strict=False)
        ]
        self.pointers = [array.data for array in arrays]
        self._n_clusters = builder.extract_value(arrays[2].shape, 0)
        self._in_registers = n_features <= _IN_REGISTERS
        name = f"llvm.fma.v{self.lanes}f{64 if self.double else 32}"
        self._fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.vector, [self.vector] * 3), name
        )
        self._points = [self._point(j) for j in range(n_features)] if self._in_registers else []

    def size(self, value: int) -> Any:
        """A constant offset."""
        return ir.Constant(ir.IntType(64), value)

    def spread(self, value: Any, kind: Any) -> Any:
        """A vector with one value in all lanes."""
        lane = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(lane, ir.Constant(kind, ir.Undefined), zeros)

    def at(self, pointer: Any, offset: Any, kind: Any) -> Any:
        """The address of a vector that begins at an entry."""
        return self.builder.bitcast(self.builder.gep(pointer, [offset]), kind.as_pointer())

    def load(self, pointer: Any) -> Any:
        """Load a value or a vector that is aligned to its entries only."""
        value = self.builder.load(pointer)
        value.align = 8 if self.double else 4
        return value

    def rows(self, pointer: Any) -> list[Any]:
        """The vectors of one row of a tile."""
        return [self.load(self.at(pointer, self.size(g * self.lanes), self.vector)) for g in range(self.groups)]

    def each_centroid(self, use: Any) -> None:
        """Emit the loop; `use` (number, vectors of scores) emits what is done with each centroid."""
        builder = self.builder
        blocks = builder.udiv(self._n_clusters, ir.Constant(self._n_clusters.type, BLOCK))
        with cgutils.for_range(builder, blocks) as loop:
            start = builder.mul(loop.index, ir.Constant(loop.index.type, BLOCK))
            numbers = [builder.add(start, ir.Constant(start.type, c)) for c in range(BLOCK)]
            if self._in_registers:
                scores = [self._scores([number])[0] for number in numbers]
            else:
                scores = self._scores(numbers)
            for number, score in zip(numbers, scores, strict=True):
                use(number, score)

    def _point(self, j: int) -> list[Any]:
        start = self.builder.gep(self.pointers[0], [self.size(j * self.groups * self.lanes)])
        return self.rows(start)

    def _scores(self, numbers: list[Any]) -> list[list[Any]]:
        """Scores of a block of centroids, feature by feature."""
        builder = self.builder
        _, centroids, halves = self.pointers[:3]
        rows = [builder.mul(number, self.size(self.n_features)) for number in numbers]
        score = [
            [self.spread(self.load(builder.gep(halves, [number])), self.vector)] * self.groups for number in numbers
        ]
        for j in range(self.n_features):
            column = self._points[j] if self._in_registers else self._point(j)
            for c, row in enumerate(rows):
                entry = self.load(builder.gep(centroids, [builder.add(row, self.size(j))]))
                entry = self.spread(entry, self.vector)
                score[c] = [builder.call(self._fma, [column[g], entry, score[c][g]]) for g in range(self.groups)]
        return score


def filled_table(table: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the table (K, features) and offsets (K,) of centroids, filled up to a multiple of `BLOCK`."""
    rest = -len(table) % BLOCK
    filled = np.ascontiguousarray(np.pad(table, ((0, rest), (0, 0))))
    return filled, np.pad(offsets, (0, rest), constant_values=np.inf)


@intrinsic
def nearest_in_tile(typingctx: Any, tile: Any, table: Any, offsets: Any, codes: Any, features: Any) -> Any:
    """Write argmin_k offsets[k] + tile . table[k] for the points of a tile (features, groups * lanes).

    The number of centroids must be a multiple of `BLOCK`.
    """
    signature = types.void(tile, table, offsets, codes, features)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scan = _Scan(context, builder, sig, args, features.count)
        groups, lanes = range(scan.groups), scan.lanes
        infinite = ir.Constant(scan.vector, [float("inf")] * lanes)
        best = [cgutils.alloca_once_value(builder, infinite) for _ in groups]
        index = [cgutils.alloca_once_value(builder, ir.Constant(scan.indices, [0] * lanes)) for _ in groups]

        def keep_best(number: Any, score: list[Any]) -> None:
            label = scan.spread(number if scan.double else builder.trunc(number, scan.integer), scan.indices)
            for g in groups:
                so_far = builder.load(best[g])
                nearer = builder.fcmp_ordered("<", score[g], so_far)
                builder.store(builder.select(nearer, score[g], so_far), best[g])
                builder.store(builder.select(nearer, label, builder.load(index[g])), index[g])

        scan.each_centroid(keep_best)
        for g in groups:
            values = builder.load(index[g])
            if scan.double:
                values = builder.trunc(values, ir.VectorType(ir.IntType(32), lanes))
            store = builder.store(values, scan.at(scan.pointers[3], scan.size(g * lanes), values.type))
            store.align = 4
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def below_in_tile(typingctx: Any, tile: Any, table: Any, offsets: Any, limits: Any, masks: Any, features: Any) -> Any:
    """Write for each centroid the points of a tile with offsets[k] + tile . table[k] < limits, as bits of (K,) uint64.

    The number of centroids must be a multiple of `BLOCK`.
    """
    signature = types.void(tile, table, offsets, limits, masks, features)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        scan = _Scan(context, builder, sig, args, features.count)
        limit = scan.rows(scan.pointers[3])
        word, bits = ir.IntType(64), ir.IntType(scan.lanes)

        def write_mask(number: Any, score: list[Any]) -> None:
            mask = ir.Constant(word, 0)
            for g in range(scan.groups):
                below = builder.bitcast(builder.fcmp_ordered("<", score[g], limit[g]), bits)
                mask = builder.or_(mask, builder.shl(builder.zext(below, word), ir.Constant(word, g * scan.lanes)))
            builder.store(mask, builder.gep(scan.pointers[4], [number]))

        scan.each_centroid(write_mask)
        return context.get_dummy_value()

    return signature, generate


@_njit
def nearest_chunk(x, weights, shift, scale, table, offsets, features, width, codes, start, stop):
    """Write the nearest centroid of points `start` to `stop` into `codes`.

    The features of a point are (x - shift) * scale; with weights per coordinate, w * (x - shift) * scale and w.
    """
    n_features = len(features)
    tile = np.zeros(n_features * width, x.dtype)
    found = np.empty(width, np.int32)
    for begin in range(start, stop, width):
        n = min(width, stop - begin)
        if weights.size:
            d = n_features // 2
            for p in range(n):
                for j in range(d):
                    weight = weights[begin + p, j]
                    tile[j * width + p] = weight * ((x[begin + p, j] - shift[j]) * scale)
                    tile[(d + j) * width + p] = weight
        else:
            for p in range(n):
                for j in range(n_features):
                    tile[j * width + p] = (x[begin + p, j] - shift[j]) * scale
        nearest_in_tile(tile, table, offsets, found, features)  # type: ignore[call-arg]
        for p in range(n):
            codes[begin + p] = found[p]


@_njit
def _add(x, weights, codes, dims, sums, totals, start, stop):
    """Add to the sums of each cluster; `dims` is as long as a point, of a length that is compiled if it is a tuple."""
    d = len(dims)
    if not weights.size:
        for i in range(start, stop):
            k = codes[i]
            totals[k, 0] += 1.0
            for j in range(d):
                sums[k, j] += x[i, j]
    elif weights.shape[1] == 1:
        for i in range(start, stop):
            k = codes[i]
            weight = weights[i, 0]
            totals[k, 0] += weight
            for j in range(d):
                sums[k, j] += weight * x[i, j]
    else:
        for i in range(start, stop):
            k = codes[i]
            for j in range(d):
                totals[k, j] += weights[i, j]
                sums[k, j] += weights[i, j] * x[i, j]


@_njit
def sum_chunk(x, weights, codes, n_clusters, start, stop):
    """Sums of weight times value, and of weight, by cluster, of points `start` to `stop`.

    `weights` is (N, 1), (N, d) or empty for 1; the totals have as many columns as `weights`.
    """
    sums, totals = np.zeros((n_clusters, x.shape[1])), np.zeros((n_clusters, weights.shape[1]))
    _add(x, weights, codes, sums[0], sums, totals, start, stop)
    return sums, totals


@_njit
def nearest_and_sum_chunk(x, weights, shift, scale, table, offsets, features, width, codes, columns, dims, start, stop):
    """Do `nearest_chunk` and `sum_chunk` by stretches of points that stay in the cache."""
    sums, totals = np.zeros((len(table), len(dims))), np.zeros((len(table), columns.shape[1]))
    for begin in range(start, stop, 8 * width):
        end = min(begin + 8 * width, stop)
        nearest_chunk(x, weights, shift, scale, table, offsets, features, width, codes, begin, end)
        _add(x, columns, codes, dims, sums, totals, begin, end)
    return sums, totals


@_njit
def distance_chunk(x, weights, centroids, codes, subset, distances, start, stop):
    """Write weighted squared distances to the assigned centroids, by direct difference in double precision."""
    d = x.shape[1]
    for i in range(start, stop):
        row = subset[i] if subset.size else i
        k = codes[i]
        total = 0.0
        if weights.size and weights.shape[1] > 1:
            for j in range(d):
                difference = x[row, j] - centroids[k, j]
                total += weights[row, j] * difference * difference
        else:
            for j in range(d):
                difference = x[row, j] - centroids[k, j]
                total += difference * difference
            if weights.size:
                total *= weights[row, 0]
        distances[i] = total


@_njit
def range_chunk(x, start, stop):
    """Return the least and largest value and the sum of each column of rows `start` to `stop`."""
    d = x.shape[1]
    low, high, sums = x[start].copy(), x[start].copy(), np.zeros(d)
    for i in range(start, stop):
        for j in range(d):
            value = x[i, j]
            low[j] = value if value < low[j] else low[j]
            high[j] = value if value > high[j] else high[j]
            sums[j] += value
    return low, high, sums


@_njit
def total_chunk(x, weights, start, stop):
    """Return the sums of weight times value, (d,), and of weight, (d,) or (1,), of rows `start` to `stop`."""
    d = x.shape[1]
    sums, totals = np.zeros(d), np.zeros(weights.shape[1])
    if not weights.size:
        totals[0] = stop - start
        for i in range(start, stop):
            for j in range(d):
                sums[j] += x[i, j]
    elif weights.shape[1] == 1:
        for i in range(start, stop):
            totals[0] += weights[i, 0]
            for j in range(d):
                sums[j] += weights[i, 0] * x[i, j]
    else:
        for i in range(start, stop):
            for j in range(d):
                totals[j] += weights[i, j]
                sums[j] += weights[i, j] * x[i, j]
    return sums, totals


@_njit
def spread_chunk(x, weights, centre, start, stop):
    """Return the weighted sum of squared distances of rows `start` to `stop` to `centre`."""
    d = x.shape[1]
    total = np.zeros(d)
    for i in range(start, stop):
        weight = weights[i, 0] if weights.size else 1.0
        for j in range(d):
            if weights.shape[1] > 1:
                weight = weights[i, j]
            total[j] += weight * (x[i, j] - centre[j]) ** 2
    return total.sum()
