"""Compiled kernels of the reallocation: the best cut of a cluster in two, and the cheapest merge of each cluster."""

import numpy as np
from numba import njit

_njit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_njit
def _two_means(centred, weights, side, means, totals):
    """Write the means (2, d) and weights (2, d) of both sides."""
    n, d = centred.shape
    means[:], totals[:] = 0.0, 0.0
    shared = weights.shape[1] == 1
    for i in range(n):
        s = side[i]
        for j in range(d):
            weight = weights[i, 0] if shared else weights[i, j]
            totals[s, j] += weight
            means[s, j] += weight * centred[i, j]
    for s in range(2):
        for j in range(d):
            means[s, j] = means[s, j] / totals[s, j] if totals[s, j] > 0 else 0.0


@_njit
def _two_errors(centred, weights, side, means, nearer):
    """Errors (2,) of both sides, and in `nearer` the side whose mean is nearer."""
    n, d = centred.shape
    shared = weights.shape[1] == 1
    errors = np.zeros(2)
    for i in range(n):
        first = second = 0.0
        for j in range(d):
            weight = weights[i, 0] if shared else weights[i, j]
            first += weight * (centred[i, j] - means[0, j]) ** 2
            second += weight * (centred[i, j] - means[1, j]) ** 2
        errors[side[i]] += second if side[i] else first
        nearer[i] = 1 if second < first else 0
    return errors


@_njit
def _along(centred, weights, axis, total, spare):
    """Best cut along an axis: its gain, the order of the points along it, and how many are on the first side."""
    n, d = centred.shape
    shared = weights.shape[1] == 1
    for i in range(n):
        spare[i] = 0.0
        for j in range(d):
            spare[i] += centred[i, j] * axis[j]
    order = np.argsort(spare, kind="mergesort")
    sums, left = np.zeros(d), np.zeros(d)
    gain, place = -np.inf, 0
    for i in range(n - 1):
        row = order[i]
        found = 0.0
        for j in range(d):
            weight = weights[row, 0] if shared else weights[row, j]
            sums[j] += weight * centred[row, j]
            left[j] += weight
            found += sums[j] ** 2 * (1.0 / left[j] + 1.0 / (total[j] - left[j]))
        if found > gain:
            gain, place = found, i + 1
    return gain, order, place


@_njit
def cut_in_two(values, weights):
    """Cut at least two distinct points in two, as `reallocation.best_cut` says.

    Parameters
    ----------
    values
        (n, d).
    weights
        (n, 1), or (n, d) for weights per coordinate.

    Returns
    -------
    gain : float
    side : (n,) int32
    means : (2, d) float64
    errors : (2,) float64
    """
    n, d = values.shape
    shared = weights.shape[1] == 1
    mean, total = np.zeros(d), np.zeros(d)
    for i in range(n):
        for j in range(d):
            weight = weights[i, 0] if shared else weights[i, j]
            total[j] += weight
            mean[j] += weight * values[i, j]
    mean /= total
    centred = np.empty((n, d))
    scatter = np.zeros((d, d))
    before, farthest, largest = 0.0, 0, -1.0
    for i in range(n):
        distance = 0.0
        for j in range(d):
            centred[i, j] = values[i, j] - mean[j]
            distance += centred[i, j] ** 2
        if distance > largest:
            farthest, largest = i, distance
        for j in range(d):
            weight = weights[i, 0] if shared else weights[i, j]
            weighted = weight * centred[i, j]
            before += weighted * centred[i, j]
            for k in range(j + 1):
                scatter[j, k] += weighted * centred[i, k]
    for j in range(d):
        for k in range(j):
            scatter[k, j] = scatter[j, k]
    principal = np.ascontiguousarray(np.linalg.eigh(scatter)[1][:, d - 1])
    spare = np.empty(n)
    gain, order, place = _along(centred, weights, principal, total, spare)
    other, other_order, other_place = _along(centred, weights, centred[farthest].copy(), total, spare)
    if other > gain:
        order, place = other_order, other_place
    side, nearer = np.ones(n, np.int32), np.empty(n, np.int32)
    for i in range(place):
        side[order[i]] = 0
    means, totals = np.empty((2, d)), np.empty((2, d))
    _two_means(centred, weights, side, means, totals)
    errors = _two_errors(centred, weights, side, means, nearer)
    second = nearer.sum()
    if 0 < second < n:
        side[:] = nearer
        _two_means(centred, weights, side, means, totals)
        errors = _two_errors(centred, weights, side, means, nearer)
    return before - errors.sum(), side, means + mean, errors


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def _least(values):
    """Return the smallest of values without NaN."""
    least = values[0]
    for i in range(len(values)):
        least = min(least, values[i])
    return least


@_njit
def _added(columns, totals, dims, i, j):
    """Error that a merge of clusters i and j adds."""
    added = 0.0
    for c in range(len(dims)):
        weights = totals[c if totals.shape[0] > 1 else 0]
        both = weights[i] + weights[j]
        if both > 0:
            added += weights[i] * weights[j] / both * (columns[c, i] - columns[c, j]) ** 2
    return added


@_njit
def cheapest_merges(columns, totals, coarse, coarse_totals, dims, partner, price, start, stop):
    """Write for clusters `start` to `stop` with which other one a merge adds least to the error, and how much.

    Parameters
    ----------
    columns
        (d, K) float64 means, a row for each coordinate.
    totals
        (1, K) float64 weights or, for each coordinate, (d, K).
    coarse, coarse_totals
        The same in float32, means shifted and scaled to magnitudes of about 1, weights to at most 1: the partner is
        chosen by these.
    dims
        A tuple of length d.
    partner, price
        (K,) written to; the price is that in float64. Of equal ones the first partner is taken.
    """
    k, d = coarse.shape[1], len(dims)
    added, here, one = np.empty(k, np.float32), np.empty(d, np.float32), np.float32(1)
    for i in range(start, stop):
        for c in range(d):
            here[c] = coarse[c, i]
        if coarse_totals.shape[0] == 1:
            weights, weight = coarse_totals[0], coarse_totals[0, i]
            for j in range(k):
                square = np.float32(0)
                for c in range(len(dims)):
                    difference = coarse[c, j] - here[c]
                    square += difference * difference
                both = weight + weights[j]
                added[j] = square * (weight * weights[j] / (both if both > 0 else one))
        else:
            added[:] = 0
            for c in range(d):
                weights, weight, row = coarse_totals[c], coarse_totals[c, i], coarse[c]
                for j in range(k):
                    both = weight + weights[j]
                    factor = weight * weights[j] / (both if both > 0 else one)
                    added[j] += factor * (row[j] - here[c]) * (row[j] - here[c])
        added[i] = np.inf
        least = _least(added)
        partner[i] = i
        for j in range(k):
            if added[j] == least and j != i:
                partner[i] = j
                break
        price[i] = np.inf if partner[i] == i else _added(columns, totals, dims, i, partner[i])
