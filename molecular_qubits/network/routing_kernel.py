"""The compiled walk of the router through a circuit: gates done where they stand, else the SWAP of the best score."""

import numpy as np
from numba import njit

_njit = njit(nogil=True, cache=True, error_model="numpy")

AHEAD = 20
"""Gates looked at behind the front."""

_AHEAD_WEIGHT = 0.5
_ADDED_WEIGHT = 0.5
_DECAY = 0.001
_DECAY_RESET = 5
_TIE = 1e-9


@_njit
def _random(state: np.ndarray, below: int) -> int:
    """Return a whole number below a bound (xorshift64*); `state` (1,) of uint64 goes on."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return int((x * np.uint64(2685821657736338717) >> np.uint64(33)) % np.uint64(below))


@_njit
def _added(
    a: int, b: int, block: np.ndarray, other: np.ndarray, melted: np.ndarray, change: np.ndarray, swap: int
) -> int:
    """Return how many uses of the coupler a SWAP adds: few behind a block that still is the last on both sites."""
    number = block[a]
    if number < 0 or other[a] != b or block[b] != number or other[b] != a:
        return swap
    return -change[number] if melted[a] else change[number]


@_njit
def _ahead(
    front: np.ndarray, n_front: int, after_start: np.ndarray, after: np.ndarray, pair: np.ndarray, seen: np.ndarray,
    stamp: int, queue: np.ndarray, found: np.ndarray,
) -> int:  # fmt: skip
    """Write the two-qubit gates behind the front, nearest first, and return how many."""
    last = 0
    for k in range(n_front):
        seen[front[k]] = stamp
        queue[last] = front[k]
        last += 1
    n_found, place = 0, 0
    while place < last and n_found < AHEAD:
        number = queue[place]
        place += 1
        for m in range(after_start[number], after_start[number + 1]):
            later = after[m]
            if seen[later] != stamp:
                seen[later] = stamp
                queue[last] = later
                last += 1
                if pair[later, 0] >= 0 and n_found < AHEAD:
                    found[n_found] = later
                    n_found += 1
    return n_found


@_njit
def _best_swap(
    front: np.ndarray, n_front: int, found: np.ndarray, n_found: int, pair: np.ndarray, near_start: np.ndarray,
    near: np.ndarray, distance: np.ndarray, site: np.ndarray, decay: np.ndarray, blocks: tuple, change: np.ndarray,
    swap: int, work: tuple, state: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Return the SWAP on a site of the front after which the score of distances and added uses is lowest."""
    block, other, melted = blocks
    head, partner, following, weight, in_front = work  # gates that touch a site, as linked lists
    base, n_links = 0.0, 0
    for k in range(n_front + n_found):
        number = front[k] if k < n_front else found[k - n_front]
        share = 1.0 / n_front if k < n_front else _AHEAD_WEIGHT / n_found
        a, b = site[pair[number, 0]], site[pair[number, 1]]
        base += share * distance[a, b]
        for here, there in ((a, b), (b, a)):
            partner[n_links], weight[n_links], following[n_links] = there, share, head[here]
            head[here] = n_links
            n_links += 1
        if k < n_front:
            in_front[a] = in_front[b] = True
    best, ties, best_a, best_b = np.inf, 0, -1, -1
    for k in range(n_front):
        for end in range(2):
            a = site[pair[front[k], end]]
            for m in range(near_start[a], near_start[a + 1]):
                b = near[m]
                if in_front[b] and b < a:
                    continue  # looked at from the other side
                shift = 0.0
                for here, there in ((a, b), (b, a)):
                    link = head[here]
                    while link >= 0:
                        far = partner[link]
                        if far != there:
                            shift += weight[link] * (distance[there, far] - distance[here, far])
                        link = following[link]
                score = max(decay[a], decay[b]) * (base + shift)
                score += _ADDED_WEIGHT * _added(a, b, block, other, melted, change, swap) / (swap * n_front)
                if score < best - _TIE:
                    best, ties, best_a, best_b = score, 1, a, b
                elif score < best + _TIE:
                    ties += 1
                    if _random(state, ties) == 0:
                        best_a, best_b = a, b
    for k in range(n_front + n_found):
        number = front[k] if k < n_front else found[k - n_front]
        for end in range(2):
            head[site[pair[number, end]]] = -1
            in_front[site[pair[number, end]]] = False
    return best_a, best_b


@_njit
def _forced_swap(
    front: np.ndarray, n_front: int, pair: np.ndarray, near_start: np.ndarray, near: np.ndarray, distance: np.ndarray,
    site: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Return a SWAP that brings the nearest pair of the front together: leaves any cycle."""
    a = goal = -1
    least = np.inf
    for k in range(n_front):
        first, second = site[pair[front[k], 0]], site[pair[front[k], 1]]
        if distance[first, second] < least:
            least, a, goal = distance[first, second], first, second
    b = near[near_start[a]]
    for m in range(near_start[a], near_start[a + 1]):
        if distance[near[m], goal] < distance[b, goal]:
            b = near[m]
    return a, b


@_njit
def _longer(events: np.ndarray) -> np.ndarray:
    return np.concatenate((events, np.empty_like(events)))


@_njit
def walk(
    pair: np.ndarray, fence_start: np.ndarray, fence: np.ndarray, after_start: np.ndarray, after: np.ndarray,
    n_before: np.ndarray, alone: np.ndarray, change: np.ndarray, swap: int, near_start: np.ndarray, near: np.ndarray,
    distance: np.ndarray, site: np.ndarray, seed: int,
) -> tuple[np.ndarray, int, int]:  # fmt: skip
    """Walk through a circuit; `site` becomes the sites of the qubits at the end.

    Parameters
    ----------
    pair
        Qubits of each two-qubit gate, (n, 2); -1 for other instructions.
    fence_start, fence
        Qubits on which an instruction ends every block (CSR): those of barriers.
    after_start, after, n_before
        Instructions that wait for each instruction (CSR), and how many each waits for.
    alone, change, swap
        Uses of the coupler of each gate, what a SWAP behind it adds, and of a SWAP alone.
    near_start, near, distance
        Neighbours of each site (CSR), and distances (s, s).
    site
        Site of each qubit, changed in place.
    seed
        Of ties; above 0.

    Returns
    -------
    events : ndarray of int, shape (m, 2)
        (number, -1) for an instruction done, (a, b) for a SWAP of sites.
    cost : int
        Uses of the coupler.
    work : int
        Gates looked at to choose SWAPs: what the walk's time goes with.
    """
    n, n_sites = len(pair), len(near_start) - 1
    missing = n_before.copy()
    holder = np.full(n_sites, -1, np.int64)
    for qubit in range(len(site)):
        holder[site[qubit]] = qubit
    # the gate that a SWAP would melt into, its other site, and whether one did already
    block, other = np.full(n_sites, -1, np.int64), np.full(n_sites, -1, np.int64)
    melted = np.zeros(n_sites, np.bool_)
    decay = np.ones(n_sites)
    events = np.empty((n + 64, 2), np.int64)
    n_events, cost, work_done, idle, stamp = 0, 0, 0, 0, 0
    ready, front = np.empty(n, np.int64), np.empty(n, np.int64)
    n_ready = n_front = 0
    for number in range(n):
        if missing[number] == 0:
            ready[n_ready] = number
            n_ready += 1
    seen, queue, found = np.zeros(n, np.int64), np.empty(n, np.int64), np.empty(AHEAD, np.int64)
    links = 2 * (n + AHEAD)
    work = (
        np.full(n_sites, -1, np.int64), np.empty(links, np.int64), np.empty(links, np.int64), np.empty(links),
        np.zeros(n_sites, np.bool_),
    )  # fmt: skip
    state = np.array([seed], np.uint64)
    while True:
        n_front = place = 0
        progress = False
        while place < n_ready:  # do what can be done; what waits for a SWAP becomes the front
            number = ready[place]
            place += 1
            if pair[number, 0] >= 0:
                a, b = site[pair[number, 0]], site[pair[number, 1]]
                if distance[a, b] > 1.5:
                    front[n_front] = number
                    n_front += 1
                    continue
                progress = True
                cost += alone[number]
                block[a] = block[b] = number
                other[a], other[b] = b, a
                melted[a] = melted[b] = False
            for m in range(fence_start[number], fence_start[number + 1]):
                block[site[fence[m]]] = -1
            if n_events == len(events):
                events = _longer(events)
            events[n_events, 0], events[n_events, 1] = number, -1
            n_events += 1
            for m in range(after_start[number], after_start[number + 1]):
                missing[after[m]] -= 1
                if missing[after[m]] == 0:
                    ready[n_ready] = after[m]
                    n_ready += 1
        if n_front == 0:
            return events[:n_events], cost, work_done
        if progress:
            idle = 0
            decay[:] = 1.0
        if idle < 10 * n_sites + 20:
            stamp += 1
            n_found = _ahead(front, n_front, after_start, after, pair, seen, stamp, queue, found)
            work_done += n_front + n_found
            a, b = _best_swap(
                front, n_front, found, n_found, pair, near_start, near, distance, site, decay, (block, other, melted),
                change, swap, work, state,
            )  # fmt: skip
        else:
            a, b = _forced_swap(front, n_front, pair, near_start, near, distance, site)
        cost += _added(a, b, block, other, melted, change, swap)
        if block[a] >= 0 and other[a] == b and block[b] == block[a]:
            melted[a] = melted[b] = not melted[a]
        else:
            block[a] = block[b] = -1
        first, second = holder[a], holder[b]
        holder[a], holder[b] = second, first
        if first >= 0:
            site[first] = b
        if second >= 0:
            site[second] = a
        if n_events == len(events):
            events = _longer(events)
        events[n_events, 0], events[n_events, 1] = a, b
        n_events += 1
        idle += 1
        decay[a] += _DECAY
        decay[b] += _DECAY
        if idle % _DECAY_RESET == 0:
            decay[:] = 1.0
        n_ready = n_front
        ready[:n_front] = front[:n_front]
