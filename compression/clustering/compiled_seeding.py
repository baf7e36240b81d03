"""Compiled kernels of the seeding: the potentials that trial centroids would leave, and the closest of some."""

import numpy as np
from numba import njit

_njit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})

_TILE = 256


@_njit
def _columns(x, begin, n, columns):
    """Write rows of points as columns (d, tile)."""
    for j in range(x.shape[1]):
        for p in range(n):
            columns[j, p] = x[begin + p, j]


@_njit
def _nearer(columns, shares, begin, n, centre, closest, distances):
    """Write the squared distances of a tile of points to a centre, or the closest so far where that is less."""
    distances[:n] = 0.0
    for j in range(len(columns)):
        if shares.size:
            for p in range(n):
                distances[p] += shares[begin + p, j] * (columns[j, p] - centre[j]) ** 2
        else:
            for p in range(n):
                distances[p] += (columns[j, p] - centre[j]) ** 2
    for p in range(n):
        distances[p] = min(distances[p], closest[begin + p])


@_njit
def potentials_chunk(x, shares, mass, closest, trials, start, stop):
    """Return the sum of mass times squared distance to the closest centroid that each trial would leave.

    Parameters
    ----------
    x
        (N, d) points, of which `start` to `stop` are taken.
    shares
        (N, d) weights of the coordinates of each point, of mean 1; empty where all are 1.
    mass
        (N,) weights of the points.
    closest
        (N,) squared distances to the closest centroid so far.
    trials
        (T, d) float64 positions.

    Returns
    -------
    numpy.ndarray
        (T,) float64.
    """
    columns, distances = np.empty((x.shape[1], _TILE)), np.empty(_TILE)
    sums = np.zeros((len(trials), _TILE))
    for begin in range(start, stop, _TILE):
        n = min(_TILE, stop - begin)
        _columns(x, begin, n, columns)
        for t in range(len(trials)):
            _nearer(columns, shares, begin, n, trials[t], closest, distances)
            for p in range(n):
                sums[t, p] += mass[begin + p] * distances[p]
    totals = np.zeros(len(trials))
    for t in range(len(trials)):
        for p in range(_TILE):
            totals[t] += sums[t, p]
    return totals


@_njit
def closest_chunk(x, shares, centres, first, closest, owner, start, stop):
    """Lower `closest` to the squared distances to the nearest of more centres, of points `start` to `stop`.

    Parameters
    ----------
    x, shares, closest
        As in `potentials_chunk`.
    centres
        (T, d) float64.
    first
        Number of the first of them.
    owner
        (N,) int32: the number of the closest centroid so far, the earlier one of equals.
    start, stop
        Points to take.
    """
    columns, distances = np.empty((x.shape[1], _TILE)), np.empty(_TILE)
    for begin in range(start, stop, _TILE):
        n = min(_TILE, stop - begin)
        _columns(x, begin, n, columns)
        for t in range(len(centres)):
            _nearer(columns, shares, begin, n, centres[t], closest, distances)
            for p in range(n):
                i = begin + p
                owner[i] = first + t if distances[p] < closest[i] else owner[i]
                closest[i] = distances[p]
