"""Nearest-centroid search without an N x K matrix: a compiled kernel on the CPU, torch elsewhere."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from compression.clustering.compiled import MAX_FEATURES, filled_table, nearest_and_sum_chunk, nearest_chunk, tile_width
from compression.clustering.compiled_pruning import farthest_members, group, nearest_near_chunk
from compression.clustering.near_lists import NearLists
from compression.clustering.points import FloatArray, IntArray, Points, add_pairs
from compression.clustering.threads import chunks, run_all

if TYPE_CHECKING:
    import torch

_CHUNK_ENTRIES = 1 << 22
"""Entries of the distance matrix held at one time by the torch search."""

_CHUNK_WORK = 1 << 28
"""Multiply-adds of one chunk of the compiled search at most, some milliseconds."""

_CHUNK_ROWS = 1 << 15

_NEAR_CHUNKS = 64
_POINT_COST, _CLUSTER_COST = 4000, 12
"""Cost of a search near the previous centroids beside the distances that it evaluates, as measured: multiply-adds a
point, and distances to all centroids a cluster."""

_VANISHING = 1e-20
"""Weights of a row, relative to the largest of all, below which products with them leave the range of float32."""

_WORTHWHILE = 0.85
"""Share of the cost of a search over all centroids below which that is done."""


class Searcher:
    """Nearest-centroid search over fixed points.

    The points are shifted by their centre and divided by their largest magnitude on the way, so that the expansion of
    the squared distance neither overflows nor loses its digits to a common offset.

    Parameters
    ----------
    points
        The points.
    device
        ``None`` for the CPU, else the torch device on which to search.
    """

    def __init__(self, points: Points, device: "torch.device | str | None" = None) -> None:
        self._points = points
        on_cpu = device is None or str(device).startswith("cpu")
        n_features = points.values.shape[1] * points.weights.ndim
        single = points.values.dtype == np.float32
        in_range = 1e-30 < points.extent[1] < (1e37 if single else 1e300)  # so that 1 / size and differences are finite
        if on_cpu and in_range and n_features <= MAX_FEATURES:
            self._engine: _CompiledEngine | _TorchEngine = _CompiledEngine(points)
        else:
            self._engine = _TorchEngine(points, "cpu" if on_cpu or device is None else device)

    def nearest(self, centroids: FloatArray, subset: IntArray | None = None) -> IntArray:
        """Return the index of the nearest centroid of each point.

        Parameters
        ----------
        centroids
            (K, d) float64.
        subset
            (n,) indices of the points to search for; all D if ``None``.

        Returns
        -------
        numpy.ndarray
            (n,) int32. Ties within the rounding of the search may go to either centroid.
        """
        return self._engine.nearest(centroids, subset)

    def nearest_and_sums(
        self, centroids: FloatArray, previous: IntArray | None = None
    ) -> tuple[IntArray, tuple[FloatArray, FloatArray]]:
        """Return the nearest centroid of each point, and the sums of `Points.weighted_sums` for that assignment.

        `previous` is a centroid of each point that is likely to be near, such as the nearest one before the centroids
        moved; it saves time and does not change the result.
        """
        if isinstance(self._engine, _CompiledEngine):
            return self._engine.nearest_and_sums(centroids, previous)
        codes = self.nearest(centroids)
        return codes, self._points.weighted_sums(codes, len(centroids))


class _CompiledEngine:
    """Tiles of points in vector registers against all centroids."""

    def __init__(self, points: Points) -> None:
        dtype = points.values.dtype
        shift, size = points.extent
        self._points, self._values = points, points.values
        self._shift, self._scale = shift.astype(dtype), dtype.type(1 / size)
        self._weights = np.empty((0, points.values.shape[1]), dtype)
        if points.weights.ndim == 2:
            self._weights = _relative(points.weights).astype(dtype)
        self._near_pays = True
        self._lists = None if self._weights.size else NearLists(points.values)

    def nearest(self, centroids: FloatArray, subset: IntArray | None) -> IntArray:
        values, weights = self._values, self._weights
        if subset is not None:
            values, weights = values[subset], (weights[subset] if weights.size else weights)
        return self._dense(self._table(centroids), values, weights)

    def _dense(self, table: tuple[Any, ...], values: np.ndarray, weights: np.ndarray) -> IntArray:
        """Search over all centroids."""
        codes = np.empty(len(values), np.int32)
        rows = min(_CHUNK_ROWS, max(1024, _CHUNK_WORK // table[2].size))
        common = (values, weights, *table, codes)
        run_all(nearest_chunk, [(*common, *part) for part in chunks(len(values), rows)])
        return codes

    def nearest_and_sums(
        self, centroids: FloatArray, previous: IntArray | None
    ) -> tuple[IntArray, tuple[FloatArray, FloatArray]]:
        table = self._table(centroids)
        if previous is not None:
            found = self._near(table, previous, len(centroids))
            if found is None:
                found = self._listed(table, centroids, previous)
            if found is not None:
                return found, self._points.weighted_sums(found, len(centroids))
        codes = np.empty(len(self._values), np.int32)
        dims = (0,) * self._values.shape[1]
        common = (self._values, self._weights, *table, codes, self._points.columns, dims)
        parts = self._points.sum_chunks(len(centroids))
        sums, totals = add_pairs(run_all(nearest_and_sum_chunk, [(*common, *part) for part in parts]))
        return codes, (sums[: len(centroids)], totals[: len(centroids)])

    def _near(self, table: tuple[Any, ...], previous: IntArray, k: int, always: bool = False) -> IntArray | None:
        """Search near the previous centroids only, or return ``None`` where that does not pay.

        Whether it does is tried on four of 64 groups of clusters. Once it does not, it is not tried again.
        """
        n, d = self._values.shape
        fixed = _POINT_COST + _CLUSTER_COST * k * k * d / n
        if not always and (self._weights.size or not self._near_pays or fixed > _WORTHWHILE * k * d):
            return None
        order, starts = np.empty(n, np.int32), np.empty(k + 1, np.int64)
        run_all(group, [(previous, k, order, starts)])
        shift, scale, features = table[0], table[1], table[4]
        columns, parts = np.ascontiguousarray(-table[2][:k].T), chunks(n, _CHUNK_ROWS, 16)
        farthest = np.zeros((len(parts), k), self._values.dtype)
        common = (self._values, shift, scale, columns, features, previous)
        run_all(farthest_members, [(*common, most, *part) for most, part in zip(farthest, parts, strict=True)])
        codes = np.empty(n, np.int32)
        common = (self._values, *table, columns, farthest.max(axis=0), order, starts, codes)
        ends = np.searchsorted(starts, np.arange(_NEAR_CHUNKS + 1) * (n / _NEAR_CHUNKS))
        groups = list(itertools.pairwise(ends))
        tried = groups[:: _NEAR_CHUNKS // 4]
        evaluated = sum(run_all(nearest_near_chunk, [(*common, *some) for some in tried]))
        n_tried = sum(starts[last] - starts[first] for first, last in tried)
        self._near_pays = bool(evaluated * d + fixed * n_tried < _WORTHWHILE * k * d * n_tried)
        if not (always or self._near_pays):
            return None
        run_all(nearest_near_chunk, [(*common, *some) for some in groups if some not in tried])
        return codes

    def _listed(self, table: tuple[Any, ...], centroids: FloatArray, previous: IntArray) -> IntArray | None:
        """Search lists of near centroids, and all for the points for which they do not tell, or return ``None``."""
        if self._lists is None:
            return None
        codes = self._lists.nearest(table, self._scaled(centroids), previous)
        if codes is not None and len(rest := np.flatnonzero(codes < 0)):
            codes[rest] = self._dense(table, self._values[rest], self._weights)
        return codes

    def _scaled(self, centroids: FloatArray) -> FloatArray:
        return (centroids - self._shift.astype(np.float64)) * float(self._scale)

    def _table(self, centroids: FloatArray) -> tuple[Any, ...]:
        """Arguments of the kernel that depend on the centroids: shift, scale, table, offsets, features, tile width."""
        dtype = self._values.dtype
        centroids = self._scaled(centroids)
        table, offsets = -centroids, np.square(centroids).sum(axis=1) / 2
        if self._weights.size:  # sum_j w_j (x_j - c_j)^2 / 2 = const - sum_j [w x]_j c_j + w_j c_j^2 / 2
            table, offsets = np.hstack([-centroids, np.square(centroids) / 2]), np.zeros(len(centroids))
        table, offsets = filled_table(table.astype(dtype), offsets.astype(dtype))
        features = (0,) * table.shape[1]
        return self._shift, self._scale, table, offsets, features, tile_width(len(features), dtype)


class _TorchEngine:
    """Matrix product and argmin in chunks; for many features and other devices."""

    def __init__(self, points: Points, device: "torch.device | str") -> None:
        import torch

        self._device = torch.device(device)
        self._shift, self._size = points.extent
        values = ((points.values - self._shift) / self._size).astype(points.values.dtype)
        features = torch.from_numpy(values)
        weights = points.weights if points.weights.ndim == 2 else None
        if weights is not None:  # sum_j w_j (x_j - c_j)^2 = const + [w x, w] . [-2 c, c^2]
            w = torch.from_numpy(np.ascontiguousarray(_relative(weights), dtype=values.dtype))
            features = torch.cat([features * w, w], dim=1)
        self._features = features.to(self._device)
        self._weighted = weights is not None

    def nearest(self, centroids: FloatArray, subset: IntArray | None) -> IntArray:
        import torch

        centroids = (centroids - self._shift) / self._size
        table = torch.from_numpy(np.ascontiguousarray(centroids)).to(self._features.dtype).to(self._device)
        square = table.square()
        features = self._features
        if subset is not None:
            features = features[torch.from_numpy(subset).to(self._device)]
        if self._weighted:
            matrix, offset = torch.cat([-2.0 * table, square], dim=1).T, None
        else:
            matrix, offset = -2.0 * table.T, square.sum(dim=1)
        rows = max(1, _CHUNK_ENTRIES // len(centroids))
        codes = []
        with torch.autocast(self._device.type, enabled=False):
            for chunk in features.split(rows):
                scores = chunk @ matrix if offset is None else torch.addmm(offset, chunk, matrix)
                codes.append(scores.argmin(dim=1))
        return torch.cat(codes).int().cpu().numpy()


def _relative(weights: FloatArray) -> FloatArray:
    """Weights over the largest of all; over that of their row where a row would vanish beside it in float32."""
    of_rows = weights.max(axis=1, keepdims=True)
    largest = of_rows.max()
    return weights / (of_rows if of_rows.min() < _VANISHING * largest else largest)
