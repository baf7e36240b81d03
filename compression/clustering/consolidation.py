"""Consolidation of dense weights: points that lie close together become one weighted representative."""

import numpy as np

from compression.clustering.points import Points, distinct_points


def consolidate_points(points: Points, radius: float, at_least: int) -> Points:
    """Merge the points that share a cell of a grid.

    A cell is a cube with diagonal `radius` times the root mean square norm of the points, so no two merged points are
    farther apart than that and groups do not chain. One pass of hashing: O(D d) time and memory.

    Parameters
    ----------
    points
        The distinct points.
    radius
        Largest diameter of a group, in units of the root mean square norm; positive.
    at_least
        Number of representatives to keep: the radius is halved until there are so many (needs D >= `at_least`).

    Returns
    -------
    Points
        The representatives (weighted means) with summed weights; ``group`` maps the rows of the
        data to them.
    """
    values = points.values.astype(np.float64)
    d = values.shape[1]
    share = points.mass / points.mass.sum()
    scale = np.abs(values).max() or 1.0
    rms = scale * np.sqrt(share @ np.square(values / scale).sum(axis=1))
    side = radius * rms / np.sqrt(d)
    while True:
        cells = distinct_points(np.floor(values / side) if side > 0 else values)
        if cells.group is None:
            return points
        if len(cells.values) >= at_least:
            break
        side /= 2
    group, n_groups = cells.group, len(cells.values)
    per_coordinate = points.weights.ndim == 2
    columns = points.weights.T if per_coordinate else [points.weights]
    weights = np.stack([np.bincount(group, column, n_groups) for column in columns], axis=-1)
    means = points.means(group, n_groups, np.zeros((n_groups, d))).astype(points.values.dtype)
    merged = Points(means, weights if per_coordinate else weights[:, 0], group)
    again = distinct_points(means, merged.weights)  # means of different cells can round to the same value
    if again.group is not None:
        group = again.group[group]
        merged = Points(again.values, again.weights, group)
    return Points(merged.values, merged.weights, points.of_rows(group))
