"""Compiled kernels of the recursive binary partition: the direction of a cut, and the weighted selection along it."""

import numpy as np
from numba import njit

_njit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})

PRINCIPAL, FARTHEST, WIDEST = 0, 1, 2

_SAMPLE = 256
"""The direction of a cut is found from at least so many of its points, evenly spaced (all, if there are fewer)."""

_BINS = 2048

_LARGEST = 1e30
"""Keys are clipped to it, so that their differences stay finite."""

_POWER_STEPS, _FEW_STEPS = 64, 12
"""Steps of the power iteration towards the direction of largest variance, and of parts that are not sampled: there are
many of those, and 64 steps lead to objectives within 0.2 % of those of 12."""


@_njit
def _size(vector):
    """Largest magnitude of an entry."""
    size = 0.0
    for j in range(len(vector)):
        size = max(size, abs(vector[j]))
    return size


@_njit
def _centre(values, mass, order, start, stop, step):
    """Weighted mean of the sampled points, and the largest magnitude of a coordinate around it."""
    d = values.shape[1]
    mean = np.zeros(d)
    total = scale = 0.0
    for i in range(start, stop, step):
        total += mass[i]
        row = order[i]
        for j in range(d):
            mean[j] += mass[i] * values[row, j]
    for j in range(d):
        mean[j] /= total
    for i in range(start, stop, step):
        row = order[i]
        for j in range(d):
            scale = max(scale, abs(values[row, j] - mean[j]))
    return mean, (scale if scale > 0 else 1.0)


@_njit
def _principal(values, mass, order, start, stop, step, mean, scale):
    """Direction of largest variance, by power iteration on the covariance (in many dimensions, on the points)."""
    d = len(mean)
    axis = np.zeros(d)
    row = np.empty(d)
    steps = _POWER_STEPS if stop - start >= _SAMPLE else _FEW_STEPS
    if d > 64:
        axis[:] = 1.0
        for _ in range(steps):
            image = np.zeros(d)
            for i in range(start, stop, step):
                along = 0.0
                for j in range(d):
                    row[j] = (values[order[i], j] - mean[j]) / scale
                    along += row[j] * axis[j]
                for j in range(d):
                    image[j] += mass[i] * along * row[j]
            norm = _size(image)
            if norm == 0:
                break
            for j in range(d):
                axis[j] = image[j] / norm
    else:
        covariance = np.zeros((d, d))
        for i in range(start, stop, step):
            number = order[i]
            for j in range(d):
                row[j] = (values[number, j] - mean[j]) / scale
            for j in range(d):
                weighted = mass[i] * row[j]
                for k in range(d):
                    covariance[j, k] += weighted * row[k]
        longest = 0
        for j in range(d):
            if covariance[j, j] > covariance[longest, longest]:
                longest = j
        axis[:] = covariance[longest]
        image = np.empty(d)
        for _ in range(steps):
            largest = _size(axis)
            if largest == 0:
                break
            image[:] = 0.0
            for j in range(d):
                factor = axis[j] / largest
                for k in range(d):
                    image[k] += factor * covariance[j, k]
            axis, image = image, axis
    return axis


@_njit
def _farthest(values, order, start, stop, step, mean, scale):
    """From the mean to the farthest sampled point."""
    d = len(mean)
    farthest, largest = start, -1.0
    for i in range(start, stop, step):
        total = 0.0
        for j in range(d):
            total += ((values[order[i], j] - mean[j]) / scale) ** 2
        if total > largest:
            farthest, largest = i, total
    axis = np.empty(d)
    for j in range(d):
        axis[j] = (values[order[farthest], j] - mean[j]) / scale
    return axis


@_njit
def _widest(values, mass, order, start, stop, step, mean, scale):
    """Coordinate of largest variance."""
    d = len(mean)
    variance = np.zeros(d)
    for i in range(start, stop, step):
        for j in range(d):
            variance[j] += mass[i] * ((values[order[i], j] - mean[j]) / scale) ** 2
    axis = np.zeros(d)
    axis[np.argmax(variance)] = 1.0
    return axis


@_njit
def _before(values, key, order, i, pivot_key, pivot):
    """Whether entry `i` sorts before the pivot: by key, and where keys are equal by the coordinates in turn."""
    if key[i] != pivot_key:
        return key[i] < pivot_key
    row = order[i]
    if row != pivot:
        for j in range(values.shape[1]):
            if values[row, j] != values[pivot, j]:
                return values[row, j] < values[pivot, j]
    return False


@_njit
def _swap(key, order, mass, i, j):
    key[i], key[j] = key[j], key[i]
    order[i], order[j] = order[j], order[i]
    mass[i], mass[j] = mass[j], mass[i]


@_njit
def _select(values, key, order, mass, start, stop, share, by_count):
    """Reorder entries so that the first of them weigh `share` (or number `share`) as nearly as whole points allow.

    Returns
    -------
    int
        Where the second side begins.
    """
    low, high = start, stop
    below = 0.0
    total = 0.0
    for i in range(start, stop):
        total += 1.0 if by_count else mass[i]
    sample = np.empty(31, key.dtype)
    while high - low > 1:
        n = high - low
        middle = low + n // 2
        if n > 256:  # a pivot about where the cut is expected
            for s in range(31):
                value, place = key[low + (n * (2 * s + 1)) // 62], s
                while place > 0 and sample[place - 1] > value:
                    sample[place] = sample[place - 1]
                    place -= 1
                sample[place] = value
            wanted = sample[min(30, max(0, int(31 * (share - below) / total)))]
            for s in range(31):
                if key[low + (n * (2 * s + 1)) // 62] == wanted:
                    middle = low + (n * (2 * s + 1)) // 62
        _swap(key, order, mass, low, middle)
        pivot_key, pivot = key[low], order[low]
        edge = low + 1
        left = 0.0
        for i in range(low + 1, high):
            if _before(values, key, order, i, pivot_key, pivot):
                left += 1.0 if by_count else mass[i]
                _swap(key, order, mass, edge, i)
                edge += 1
        _swap(key, order, mass, low, edge - 1)  # the pivot is now at its place
        weight = 1.0 if by_count else mass[edge - 1]
        if share <= below + left:
            high, total = edge - 1, left
        elif share <= below + left + weight:
            low, high = edge - 1, edge
            below += left
            total = weight
        else:
            low = edge
            below += left + weight
            total -= left + weight
        if high <= low:
            return low
    weight = 1.0 if by_count else mass[low]
    return low + 1 if share - below > below + weight - share else low


@_njit
def _project(values, mass, order, key, start, stop, mean, direction):
    """Write the keys of entries `start` to `stop`; return the least, the largest and the sum of the masses."""
    d, low, high, total, bias = values.shape[1], np.inf, -np.inf, 0.0, 0.0
    for j in range(d):
        bias += mean[j] * direction[j]
    for i in range(start, stop):
        along = -bias
        row = order[i]
        for j in range(d):
            along += values[row, j] * direction[j]
        along = min(max(along, -_LARGEST), _LARGEST)
        key[i] = along
        low, high = min(low, key[i]), max(high, key[i])
        total += mass[i]
    return low, high, total


@_njit
def _split(values, mass, order, key, spare, start, stop, share, low, high, mean, direction):
    """Reorder entries so that the first weigh about `share`, keeping the order on each side; return the boundary.

    A histogram finds the bin of the boundary; only the entries in it are ordered.
    """
    n = stop - start
    if n < 64 or not high > low:  # few, or equal along the direction
        return _select(values, key, order, mass, start, stop, share, 0)
    bins = np.zeros(_BINS)
    factor = (_BINS - 1) / (high - low)
    for i in range(start, stop):
        bins[int((key[i] - low) * factor)] += mass[i]
    below, edge = 0.0, 0
    while edge < _BINS - 1 and below + bins[edge] < share:
        below += bins[edge]
        edge += 1
    left, right, within = start, 0, 0
    spare_order, spare_mass = spare[0], spare[1]
    end = n  # entries of the bin itself are kept at the end of the spare space
    for i in range(start, stop):
        place = int((key[i] - low) * factor)
        o, m = order[i], mass[i]
        if place == edge:
            end -= 1
            spare_order[start + end], spare_mass[start + end] = o, m
        else:
            goes_left = place < edge
            order[left], mass[left] = o, m
            spare_order[start + right], spare_mass[start + right] = o, m
            left += goes_left
            right += not goes_left
    within = n - end
    for i in range(within):  # the bin between the two sides
        source = start + n - 1 - i
        order[left + i], mass[left + i] = spare_order[source], spare_mass[source]
    _project(values, mass, order, key, left, left + within, mean, direction)
    middle = _select(values, key, order, mass, left, left + within, share - below, 0)
    behind = left + within
    for i in range(right):
        order[behind + i], mass[behind + i] = spare_order[start + i], spare_mass[start + i]
    return middle


@_njit
def cut(values, mass, order, key, spare, start, stop, left_leaves, leaves, split):
    """Reorder a part, entries `start` to `stop`, into its two sides and return where the second begins."""
    n, d = stop - start, values.shape[1]
    step = max(1, n // _SAMPLE)
    mean, scale = _centre(values, mass, order, start, stop, step)
    if split == PRINCIPAL:
        axis = _principal(values, mass, order, start, stop, step, mean, scale)
    elif split == FARTHEST:
        axis = _farthest(values, order, start, stop, step, mean, scale)
    else:
        axis = _widest(values, mass, order, start, stop, step, mean, scale)
    norm, direction = _size(axis), np.zeros(d)
    if norm > 0:
        for j in range(d):
            direction[j] = axis[j] / norm / scale
    low, high, total = _project(values, mass, order, key, start, stop, mean, direction)
    middle = _split(
        values, mass, order, key, spare, start, stop, total * left_leaves / leaves, low, high, mean, direction
    )
    least, most = start + left_leaves, stop - (leaves - left_leaves)
    if middle < least or middle > most:  # too few points on a side: rank them instead
        _project(values, mass, order, key, start, stop, mean, direction)
        count = left_leaves if middle < least else n - (leaves - left_leaves)
        middle = _select(values, key, order, mass, start, stop, float(count), 1)
    return middle


@_njit
def partition_part(values, mass, order, key, spare, begins, start, stop, leaves, label, split):
    """Partition entries `start` to `stop` into `leaves` parts and write where each begins, from `label` on."""
    stack = np.empty((128, 4), np.int64)
    stack[0] = (start, stop, leaves, label)
    depth = 1
    while depth:
        depth -= 1
        start, stop, leaves, label = stack[depth]
        if leaves == 1 or leaves == stop - start:
            for i in range(leaves):
                begins[label + i] = start + i
        else:
            left_leaves = leaves // 2
            middle = cut(values, mass, order, key, spare, start, stop, left_leaves, leaves, split)
            stack[depth] = (middle, stop, leaves - left_leaves, label + left_leaves)
            stack[depth + 1] = (start, middle, left_leaves, label)
            depth += 2


@_njit
def write_labels(order, begins, labels, first, last):
    """Write the labels `first` to `last` of the entries between their beginnings."""
    for label in range(first, last):
        for i in range(begins[label], begins[label + 1]):
            labels[order[i]] = label
