"""Assignment of data to given centroids."""

from typing import Any

import numpy as np

from compression.clustering.inputs import check_data
from compression.clustering.kernels import Searcher
from compression.clustering.points import FloatArray, IntArray, Points

_FAR = 1000.0
"""Largest magnitude of centroids around the points' centre, in that of the points, for the search by products."""


def nearest_centroids(x: Any, centroids: Any, *, sample_weight: Any = None, device: Any = None) -> Any:
    """Return the nearest centroid of each row.

    Parameters
    ----------
    x
        (N, d) NumPy array or torch tensor, float16, float32 or float64.
    centroids
        (K, d) of the same kind.
    sample_weight
        (N, d) positive weights of the entries in the squared distance; (N,) weights do not matter.
    device
        torch device for the search; where `x` is if ``None``.

    Returns
    -------
    array or tensor
        (N,) int64, of the kind of `x`. Ties within the rounding of the search may go to either centroid.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.
    """
    data, table = check_data(x, sample_weight, device), check_data(centroids, name="centroids")
    if table.values.shape[1] != data.values.shape[1]:
        raise ValueError(
            f"Argument `centroids` must have d={data.values.shape[1]} columns like `x`, "
            f"but has {table.values.shape[1]}."
        )
    weights = data.weights if data.weights is not None and data.weights.ndim == 2 else None
    points = Points(data.values, np.broadcast_to(np.ones(1), len(data.values)) if weights is None else weights)
    found = table.values.astype(np.float64)
    centre, size = points.extent
    reach = np.abs(found - centre).max()
    codes = _by_difference(points, found) if reach > _FAR * size else Searcher(points, data.device).nearest(found)
    return data.give_back(codes.astype(np.int64))


def _by_difference(points: Points, centroids: FloatArray) -> IntArray:
    """Search by direct differences in float64: `Searcher` has no digits left for points beside far centroids."""
    codes, least = np.zeros(len(points.values), np.int32), np.full(len(points.values), np.inf)
    for number in range(len(centroids)):
        distances = points.squared_distances(centroids, np.full(len(codes), number, np.int32))
        nearer = distances < least
        codes[nearer], least[nearer] = number, distances[nearer]
    return codes
