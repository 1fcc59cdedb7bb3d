"""Log permanents: a sum over K! permutations in 2^K steps."""

import numpy as np

LARGEST = 10
"""K up to which the sum is made."""


def log_permanent(log_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``log sum_p exp(sum_k L[t, k, p[k]])`` over all permutations p, ``(T,)``, and the share of each entry, ``(T, K, K)``.

    The share of (k, j) is the probability that ``p[k] = j`` when p is drawn in proportion to its term: doubly
    stochastic. A forward pass over the sets of columns that the first rows use, a backward pass over those that the
    others use, as in Held & Karp (1962).
    """
    num_components = log_values.shape[-1]
    levels = _sets(num_components)
    shape = (*log_values.shape[:-2], 2**num_components)
    forward, backward = np.zeros(shape), np.zeros(shape)
    for row in range(num_components):
        sets, columns = _members(levels[row + 1], num_components, inside=True)
        forward[..., levels[row + 1]] = _logsumexp(forward[..., sets ^ (1 << columns)] + log_values[..., row, columns])
    for row in reversed(range(num_components)):
        sets, columns = _members(levels[row], num_components, inside=False)
        backward[..., levels[row]] = _logsumexp(backward[..., sets | (1 << columns)] + log_values[..., row, columns])
    total = forward[..., -1]
    shares = np.empty_like(log_values)
    for row in range(num_components):
        for column in range(num_components):
            sets = levels[row][(levels[row] >> column) & 1 == 0]
            paths = forward[..., sets] + backward[..., sets | (1 << column)]
            shares[..., row, column] = _logsumexp(paths) + log_values[..., row, column] - total
    return total, np.exp(shares)


def _sets(num_components: int) -> list[np.ndarray]:
    """Sets of columns as bits, by their size."""
    sizes = np.array([s.bit_count() for s in range(2**num_components)])
    return [np.flatnonzero(sizes == size) for size in range(num_components + 1)]


def _members(sets: np.ndarray, num_components: int, *, inside: bool) -> tuple[np.ndarray, np.ndarray]:
    """Every set repeated, beside the columns that lie in it, or outside: two arrays ``(sets, columns)``."""
    bits = (sets[:, None] >> np.arange(num_components)) & 1
    columns = np.nonzero(bits == inside)[1].reshape(len(sets), -1)
    return np.broadcast_to(sets[:, None], columns.shape), columns


def _logsumexp(values: np.ndarray) -> np.ndarray:
    """Over the last axis; all values are finite."""
    peak = values.max(axis=-1)
    return peak + np.log(np.exp(values - peak[..., None]).sum(axis=-1))
