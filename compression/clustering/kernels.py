"""Nearest-centroid search without an N x K matrix, on faiss for float32 on the CPU and on torch elsewhere."""

from typing import TYPE_CHECKING

import numpy as np

from compression.clustering.points import FloatArray, IntArray, Points

if TYPE_CHECKING:
    import torch

_CHUNK_ENTRIES = 1 << 22
"""Entries of the distance matrix held at one time by the torch search."""


class Searcher:
    """Nearest-centroid search over fixed points.

    The points are shifted by their mean and divided by their largest magnitude, so that the expansion of the squared
    distance neither overflows nor loses its digits to a common offset.

    Parameters
    ----------
    points
        The points.
    device
        ``None`` for the CPU, else the torch device on which to search.
    """

    def __init__(self, points: Points, device: "torch.device | str | None" = None) -> None:
        values = points.values
        self._shift = values.mean(axis=0, dtype=np.float64)
        self._scale = float(np.abs(values - self._shift).max()) or 1.0
        normalised = ((values - self._shift) / self._scale).astype(values.dtype)
        on_cpu = device is None or str(device).startswith("cpu")
        if points.weights.ndim == 1 and on_cpu and values.dtype == np.float32:
            self._engine: _FaissEngine | _TorchEngine = _FaissEngine(normalised)
        else:
            weights = points.weights if points.weights.ndim == 2 else None
            self._engine = _TorchEngine(normalised, weights, "cpu" if on_cpu else device)

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
            (n,) int64. Ties within the rounding of the search may go to either centroid.
        """
        return self._engine.nearest((centroids - self._shift) / self._scale, subset)


class _FaissEngine:
    """faiss's fused search for the single nearest neighbour (https://github.com/facebookresearch/faiss)."""

    def __init__(self, values: FloatArray) -> None:
        self._values = values

    def nearest(self, centroids: FloatArray, subset: IntArray | None) -> IntArray:
        import faiss

        queries = self._values if subset is None else self._values[subset]
        table = np.ascontiguousarray(centroids, dtype=np.float32)
        codes = np.empty(len(queries), np.int64)
        for start in range(0, len(queries), _FAISS_ROWS):  # in pieces, so that Ctrl-C is answered between them
            part = slice(start, start + _FAISS_ROWS)
            codes[part] = faiss.knn(queries[part], table, 1)[1][:, 0]
        return codes


_FAISS_ROWS = 1 << 20


class _TorchEngine:
    """Matrix product and argmin in chunks; the only engine for float64, weights per coordinate and other devices."""

    def __init__(self, values: FloatArray, weights: FloatArray | None, device: "torch.device | str | None") -> None:
        import torch

        self._device = torch.device(device if device is not None else "cpu")
        features = torch.from_numpy(values)
        if weights is not None:  # sum_j w_j (x_j - c_j)^2 = const + [w x, w] . [-2 c, c^2]
            w = torch.from_numpy(np.ascontiguousarray(weights / weights.max(), dtype=values.dtype))
            features = torch.cat([features * w, w], dim=1)
        self._features = features.to(self._device)
        self._weighted = weights is not None

    def nearest(self, centroids: FloatArray, subset: IntArray | None) -> IntArray:
        import torch

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
        for chunk in features.split(rows):
            scores = chunk @ matrix if offset is None else torch.addmm(offset, chunk, matrix)
            codes.append(scores.argmin(dim=1))
        return torch.cat(codes).cpu().numpy()
