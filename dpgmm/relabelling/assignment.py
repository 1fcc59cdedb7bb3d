"""Linear assignment, batched over draws: the optimum, how far off the second best is, and ties.

``costs[t, k, j]`` is the cost of original component j becoming component k in draw t; a permutation p of draw t costs
``sum_k costs[t, k, p[k]]``. One convention everywhere: ``new = old[permutation]`` and
``new_allocations = argsort(permutation)[allocations]``.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

ENTRIES = 1_000_000
"""Entries of a temporary array: 8 MB of float64."""
TIE = 1e-12
"""A difference below this share of the largest cost is rounding: two such assignments count as tied."""


class Alignment(NamedTuple):
    """What every relabelling function returns.

    ``permutations (T, K)``; ``objective`` in the method's own unit and sense; ``history``, the objective after every
    accepted iteration of the winning start, monotone, its last entry the objective; ``ambiguity (T,)``, by how much the
    second-best permutation of a draw is worse than the best (infinite where there is none); ``tied (T,)``, where
    that difference is nought.
    """

    permutations: np.ndarray
    objective: float
    history: np.ndarray
    ambiguity: np.ndarray
    tied: np.ndarray


def solve(costs: np.ndarray, active: np.ndarray | None = None, slots: np.ndarray | None = None) -> np.ndarray:
    """Permutations ``(T, K)`` of least cost ``sum_k costs[t, k, p[k]]``, for ``costs (T, K, K)``.

    Where row minima lie in different columns they are the optimum; the other draws go to
    `scipy.optimize.linear_sum_assignment`. With ``active (T, K)``, components that carry no data are parked: the active
    ones are matched, as many as there are ``slots (K,)`` open to them, and the rest goes, in its original order and
    active ones first, to the places that are left.
    """
    if active is None:
        return _solve(costs)
    slots = np.ones(costs.shape[-1], bool) if slots is None else slots
    permutations = _solve(parked(costs, active, slots))
    return _tidy(permutations, active, slots)


def parked(costs: np.ndarray, active: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Costs where inactive components are free anywhere and a closed slot is dearer than any matching."""
    closed = 1 + 2 * costs.shape[-1] * np.abs(costs).max(initial=0)
    return np.where(active[:, None, :], np.where(slots[:, None], costs, closed), 0.0)


def cost(costs: np.ndarray, permutations: np.ndarray) -> np.ndarray:
    """``sum_k costs[t, k, p[k]]``, ``(T, K, K)`` and ``(T, K)`` to ``(T,)``."""
    return np.take_along_axis(costs, permutations[..., None], axis=-1).sum(axis=(-2, -1))


def ambiguity(
    costs: np.ndarray, permutations: np.ndarray, active: np.ndarray | None = None, slots: np.ndarray | None = None
) -> np.ndarray:
    """Cost of the second-best permutation minus that of the best, ``(T,)``; infinite for K = 1.

    Two permutations differ by cycles, and moving slot k's component out for slot l's costs
    ``costs[k, p[l]] - costs[k, p[k]]``; since p is optimal no cycle is negative, so the second best differs from it by
    the cheapest cycle, which Floyd and Warshall's shortest paths find in K^3 steps. With ``active (T, K)`` and
    ``slots (K,)`` only permutations that change which active component an open slot has count.
    """
    num_components = costs.shape[-1]
    result = np.empty(len(costs))
    for part in blocks(len(costs), num_components**2):
        p = permutations[part]
        moves = np.take_along_axis(costs[part], p[:, None, :], axis=-1)
        moves = moves - np.diagonal(moves, axis1=1, axis2=2)[..., None]
        moves[:, range(num_components), range(num_components)] = np.inf
        for via in range(num_components):
            np.minimum(moves, moves[:, :, via, None] + moves[:, None, via, :], out=moves)
        cycles = np.diagonal(moves, axis1=1, axis2=2)
        if active is not None:
            matched = np.take_along_axis(active[part], p, axis=-1) & (True if slots is None else slots)
            cycles = np.where(matched, cycles, np.inf)
        result[part] = cycles.min(axis=-1)
    return np.maximum(result, 0.0)


def measured(
    costs: np.ndarray, active: np.ndarray | None = None, slots: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`ambiguity` of the optimum of every draw, ``(T,)``, and whether it is tied, ``(T,)`` bool."""
    gap = ambiguity(costs, _solve(costs), active, slots)
    return gap, gap <= TIE * np.abs(costs).max(axis=(1, 2), initial=0)


def common(permutations: np.ndarray, others: np.ndarray, matched: np.ndarray | None = None) -> np.ndarray:
    """The one permutation g ``(K,)`` that makes ``permutations[t, g]`` most often equal to ``others[t]``.

    ``matched (T, K)`` tells which ORIGINAL components count, by default all of them.
    """
    num_components = permutations.shape[-1]
    places, other_places = np.argsort(permutations, axis=-1), np.argsort(others, axis=-1)
    pairs = other_places * num_components + places
    pairs = pairs.ravel() if matched is None else pairs[matched]
    counts = np.bincount(pairs, minlength=num_components**2).reshape(1, num_components, num_components)
    return _solve(-counts.astype(float))[0]


def blocks(length: int, entries: int) -> Iterator[slice]:
    """Slices of `length` rows of so many `entries` each, at most `ENTRIES` in one slice and at least one row."""
    size = max(1, ENTRIES // max(1, entries))
    return (slice(start, start + size) for start in range(0, length, size))


def _solve(costs: np.ndarray) -> np.ndarray:
    permutations = np.argmin(costs, axis=-1)
    distinct = (np.sort(permutations, axis=-1) == np.arange(costs.shape[-1])).all(axis=-1)
    for t in np.flatnonzero(~distinct):
        permutations[t] = linear_sum_assignment(costs[t])[1]
    return permutations


def _tidy(permutations: np.ndarray, active: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Components outside the matching in their original order, active ones first, on the slots that it leaves."""
    num_components = permutations.shape[-1]
    idle = ~np.take_along_axis(active, permutations, axis=-1)
    unassigned = idle | ~slots
    keys = np.where(unassigned, permutations + num_components * idle, 2 * num_components)
    ordered = np.sort(keys, axis=-1) % num_components
    places = np.argsort(~unassigned, axis=-1, kind="stable")
    kept = np.take_along_axis(permutations, places, axis=-1)
    is_unassigned = np.arange(num_components) < unassigned.sum(axis=-1, keepdims=True)
    result = np.empty_like(permutations)
    np.put_along_axis(result, places, np.where(is_unassigned, ordered, kept), axis=-1)
    return result
