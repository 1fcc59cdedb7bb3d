"""Partitions as arrays of labels: one form for each, and how often two observations share a cluster."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.sparse

from ..errors import InputError

CELLS = 8_000_000
"""Numbers held at a time where draws are streamed: 64 MB of float64."""
SMALL = 10**9
"""Multiplications below which a sparse product is used: threads of a dense one cost more than they save there."""


def labels_of(allocations: np.ndarray, name: str = "allocations", dims: int = 2) -> np.ndarray:
    """The same labels as integers, ``(T, n)``, or ``(n,)`` where `dims` is 1. Whole floats, as Stan gives, are taken.

    Raises `InputError` for another number of dimensions, no draws, no observations, or labels that are not whole.
    """
    array = np.asarray(allocations)
    if array.ndim != dims or 0 in array.shape:
        wanted = "(draws, observations)" if dims == 2 else "(observations,)"
        raise InputError(f"{name} has shape {array.shape}; give labels of shape {wanted}, at least one of each")
    if array.dtype.kind not in "biu":
        if array.dtype.kind != "f" or not np.all(np.isfinite(array) & (array == np.floor(array))):
            raise InputError(f"{name} holds {array.dtype} values that are not whole numbers; give integer labels")
        array = array.astype(np.int64)
    return array


def canonical(allocations: np.ndarray) -> np.ndarray:
    """Labels 0, 1, ... by first appearance, ``(n,)`` or ``(T, n)``, int32: equal rows are equal partitions."""
    array = np.asarray(allocations)
    rows = labels_of(np.atleast_2d(array))
    new, step = np.empty(rows.shape, np.int32), max(1, CELLS // (8 * rows.shape[1]))
    for start in range(0, len(rows), step):
        new[start : start + step] = _by_first_appearance(rows[start : start + step])
    return new.reshape(array.shape)


def _by_first_appearance(rows: np.ndarray) -> np.ndarray:
    places = np.arange(rows.shape[1])
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    begins = np.pad(ordered[:, 1:] != ordered[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    # Where the label of each observation was first seen; those places, counted along the row, are the new labels.
    first_ordered = np.take_along_axis(order, np.maximum.accumulate(np.where(begins, places, 0), axis=1), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, first_ordered, axis=1)
    rank = np.cumsum(first == places, axis=1) - 1
    return np.take_along_axis(rank, first, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """Draws of partitions in canonical form, made once: what is asked of them more than once is kept."""

    labels: np.ndarray
    """``(T, n)`` int32, as `canonical` gives them."""

    @functools.cached_property
    def num_clusters(self) -> np.ndarray:
        """Number of clusters of every draw, ``(T,)``."""
        return self.labels.max(axis=1) + 1

    @functools.cached_property
    def similarity(self) -> np.ndarray:
        """`similarity_matrix` of the draws."""
        return _mean_together(self.labels[part] for part in _chunks(self.labels))

    @property
    def size(self) -> int:
        """Number n of observations."""
        return self.labels.shape[1]

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """The labels, `size` draws at a time."""
        return (self.labels[start : start + size] for start in range(0, len(self.labels), size))


def draws_of(allocations: np.ndarray | Draws) -> Draws:
    """Labels ``(T, n)`` in canonical form; `Draws` as they are. Raises `InputError` as `labels_of` does."""
    return allocations if isinstance(allocations, Draws) else Draws(canonical(labels_of(allocations)))


def num_clusters(allocations: np.ndarray) -> np.ndarray:
    """Number of clusters of every draw, ``(T,)``."""
    return canonical(allocations).max(axis=-1) + 1


def similarity_matrix(allocations: np.ndarray | Draws | Iterable[np.ndarray]) -> np.ndarray:
    """Share of draws in which i and j are in one cluster, ``p_ij = mean_t 1[z_ti = z_tj]``: ``(n, n)`` float64.

    `allocations` are draws ``(T, n)``, or an iterable of such arrays, a chunk of draws each, that need not fit in memory
    together. Memory beyond the result stays at `CELLS` numbers. Raises `InputError` for labels that are not whole numbers.
    """
    if isinstance(allocations, Draws):
        return allocations.similarity
    parts = map(labels_of, [allocations] if isinstance(allocations, np.ndarray) else allocations)
    return _mean_together(canonical(part[some]) for part in parts for some in _chunks(part))


def _chunks(labels: np.ndarray) -> Iterator[slice]:
    """Draws whose indicators `CELLS` numbers hold, of 64 clusters or fewer each."""
    size = max(1, CELLS // (labels.shape[1] * min(labels.shape[1], 64)))
    return (slice(start, start + size) for start in range(0, len(labels), size))


def _mean_together(chunks: Iterable[np.ndarray]) -> np.ndarray:
    """Share of the draws, a chunk of canonical ones at a time, in which each pair shares a cluster, ``(n, n)``."""
    together, num_draws = None, 0
    for labels in chunks:
        counts = _together(labels)
        together = counts if together is None else together + counts
        num_draws += len(labels)
    if together is None:
        raise InputError("allocations holds no draws; give at least one")
    return together / num_draws


def _together(labels: np.ndarray) -> np.ndarray:
    """In how many draws each pair shares a cluster: ``X X^T`` of the indicators ``X (n, clusters of all draws)``."""
    occupied = labels.max(axis=1) + 1
    columns = (labels + (np.cumsum(occupied) - occupied)[:, None]).T
    size, width = labels.shape[1], int(occupied.sum())
    if size * size * width < SMALL:
        ones = np.ones(columns.size, np.int32), columns.ravel(), np.arange(size + 1) * len(labels)
        indicators = scipy.sparse.csr_array(ones, shape=(size, width))
        return (indicators @ indicators.T).toarray().astype(np.float64)
    indicators = np.zeros((size, width), np.float32)  # counts exactly up to 2^24 draws
    indicators[np.arange(size)[:, None], columns] = 1
    return (indicators @ indicators.T).astype(np.float64)


class DistinctClusters:
    """The distinct clusters that occur in many draws, each kept once: what sums over draws are taken from.

    members: ``(U, n)`` bool, the observations of each distinct cluster.
    index: ``(T, n)`` int32, the distinct cluster that observation i is in, in draw t.
    draws: ``(T, U)`` sparse, one where the draw has the cluster.
    weights: ``(U,)``, the share of draws that have the cluster.

    Clusters are told apart by a 64-bit sum of random numbers, one an observation: two of 10^5 different clusters get the
    same one with probability 3e-10.
    """

    def __init__(self, allocations: np.ndarray | Draws):
        labels = allocations.labels if isinstance(allocations, Draws) else canonical(np.atleast_2d(allocations))
        num_draws, self.size = labels.shape
        occupied = labels.max(axis=1) + 1
        starts = np.cumsum(occupied) - occupied
        places = labels + starts[:, None]
        keys = np.zeros(int(occupied.sum()), np.uint64)
        marks = np.random.default_rng(0).integers(0, 2**64, self.size, dtype=np.uint64)
        np.add.at(keys, places, np.broadcast_to(marks, places.shape))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        draw = np.searchsorted(starts, first, side="right") - 1
        self.members = labels[draw] == (first - starts[draw])[:, None]
        self.index = inverse[places].astype(np.int32)
        indices, ends = inverse.astype(np.int32), np.append(starts, len(inverse)).astype(np.int32)
        shape = num_draws, len(first)
        self.draws = scipy.sparse.csr_array((np.ones(len(inverse)), indices, ends), shape=shape)
        self.weights = np.bincount(inverse, minlength=len(first)) / num_draws
