"""Few weighted points that stand for many, for one-dimensional data.

Every bin of points is replaced by the Gauss quadrature of its own empirical measure: q nodes, inside the bin, that give
every polynomial up to degree 2q - 1 the same sum as the bin's points. The log density of a mixture whose components are
wider than a bin is nearly such a polynomial there, so its sum over all points hardly changes: see `dpgmm.certificate`.

Many points are compressed piece by piece, in one pass, by the same bins, and what is left of the pieces once more: the
sums of a bin are the sums of its pieces'.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .dataset import ROWS, Dataset

BINS_PER_SCALE = 30
THREADS = 8
SOME = 2**20
"""Points that tell quartiles."""
NODES = 3
NEGLIGIBLE = 1e-16
"""A quadrature stops short of q nodes where one more changes no sum by more than this part of the bin's weight."""


def compress(data: Dataset, bin_width: float | None = None, nodes: int = NODES) -> Dataset:
    """At most `nodes` weighted points, ascending, for every bin of width `bin_width` (default `default_bin_width`).

    Over each bin, sums of ``weight * x^k`` are those of its points for k < 2 nodes; weights are positive, points lie
    between the bin's own. Bins of at most `nodes` distinct values keep them. Time O(N log N + N nodes), in one pass;
    memory beside the data that of `dataset.ROWS` points and of what is left. Raises `InputError` unless D = 1, and for a
    width that is not positive and finite, or fewer than one node.

    Source: Gautschi (2004), Orthogonal Polynomials: sections 2.2.3 (discretised Stieltjes) and 3.1.1 (Golub-Welsch).
    """
    if data.dim != 1:
        raise InputError(f"{data.name}: {data.dim} columns, and compression is for one; choose one column")
    if isinstance(nodes, bool) or nodes != int(nodes) or nodes < 1:
        raise InputError(f"nodes is {nodes}; give a whole number of 1 or more")
    width = default_bin_width(data) if bin_width is None else bin_width
    if not 0 < width < np.inf:
        raise InputError(f"bin_width is {width}; give a positive, finite number")
    return _compressed(data, width, int(nodes), middle(data))


def _compressed(data: Dataset, width: float, nodes: int, center: float) -> Dataset:
    """`compress` by bins laid out from `center`."""

    def of_piece(piece: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        points, weights = _distinct(*piece)
        return quadrature(points, weights, _bin_starts(points, width, center), nodes)

    if data.size <= ROWS:
        return Dataset(*of_piece((data.points, data.weights)), data.name)
    # The sorting and the sums are numpy's, which threads share the cores for.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, THREADS)) as pool:
        points, weights = map(np.concatenate, zip(*pool.map(of_piece, data.pieces()), strict=True))
    return Dataset(*of_piece((points[:, None], weights)), data.name)


class Binned(NamedTuple):
    """A compression with its bins: `data`, the `width` of the bins, and where they are laid out from, the `center`."""

    data: Dataset
    width: float
    center: float

    @classmethod
    def of(cls, data: Dataset, width: float) -> "Binned":
        """`compress` by bins of this width."""
        center = middle(data)
        return cls(_compressed(data, width, NODES, center), width, center)

    def replaced(self) -> tuple[np.ndarray, np.ndarray]:
        """Middles ``(B,)`` and weights ``(B,)`` of the bins whose nodes may stand for more points than they are."""
        points, weights = self.data.points[:, 0], self.data.weights
        starts = _bin_starts(points, self.width, self.center)
        full = np.diff(starts, append=len(points)) == NODES
        numbers = np.floor((points[starts[full]] - self.center) / self.width + 0.5)
        return self.center + self.width * numbers, np.add.reduceat(weights, starts)[full]


def default_bin_width(data: Dataset) -> float:
    """A 30th of the standard deviation, or of interquartile range / 1.349 if smaller, so that outliers do not matter.

    Of more than `SOME` points, quartiles are those of so many random ones. Where half of the weight sits on one value, the
    range is that of the distinct values. Positive for any data.
    """
    some = data.sample(SOME)
    points, weights = _distinct(some.points, some.weights)
    range_of = lambda w: _quantile(points, w, 0.75) - _quantile(points, w, 0.25)
    range_ = range_of(weights) or range_of(np.ones_like(weights))
    scale = min(s for s in (range_ / 1.349, float(data.scale[0])) if s > 0)
    return max(scale / BINS_PER_SCALE, float(np.finfo(float).tiny))


def middle(data: Dataset) -> float:
    """The median, of `SOME` random points where there are more: bins are laid out from it."""
    some = data.sample(SOME)
    return _quantile(*_distinct(some.points, some.weights), 0.5)


def _distinct(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct points that carry weight, ascending, and the sum of weights of each, of ``points (n, 1)``."""
    carries = np.flatnonzero(weights)
    order = carries[np.argsort(points[carries, 0])]
    points, weights = points[order, 0], weights[order]
    starts = np.flatnonzero(np.diff(points, prepend=-np.inf))
    return points[starts], np.add.reduceat(weights, starts)


def _quantile(points: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Smallest point with at least this share of the weight at or below it; points ascending."""
    cumulative = np.cumsum(weights)
    return float(points[np.searchsorted(cumulative, level * cumulative[-1])])


def _bin_starts(points: np.ndarray, width: float, center: float) -> np.ndarray:
    """Where each bin begins. Bins are laid out from the median: from an outlier's distance they would blur."""
    with np.errstate(over="ignore", invalid="ignore"):
        bins = np.floor((points - center) / width + 0.5)
        return np.flatnonzero(
            ~(np.diff(bins, prepend=-np.inf) == 0)
        )  # inf - inf: bins too narrow to number, so a new one


def quadrature(
    points: np.ndarray, weights: np.ndarray, starts: np.ndarray, nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss quadratures of all bins, ascending. Bins of few points are their own quadrature.

    ``points (N,)`` ascending and distinct, ``weights (N,)`` positive, ``starts (B,)`` where each bin begins.
    """
    counts = np.diff(starts, append=len(points))
    full = counts > nodes
    inside = np.repeat(full, counts)
    parts = [(points[~inside], weights[~inside])]
    if full.any():
        counts = counts[full]
        parts.append(_gauss(points[inside], weights[inside], np.cumsum(counts) - counts, counts, nodes))
    points, weights = map(np.concatenate, zip(*parts, strict=True))
    order = np.argsort(points, kind="stable")
    order = order[weights[order] > 0]
    return points[order], weights[order]


def _gauss(
    points: np.ndarray, weights: np.ndarray, starts: np.ndarray, counts: np.ndarray, nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature of every bin, all bins at once, each scaled to [-1, 1]."""
    lowest, highest = points[starts], points[starts + counts - 1]
    middle, half = lowest + (highest - lowest) / 2, (highest - lowest) / 2
    scaled = (points - np.repeat(middle, counts)) / np.repeat(half, counts)
    mass = np.add.reduceat(weights, starts)
    diagonal, off_diagonal = _recurrence(scaled, weights / np.repeat(mass, counts), starts, counts, nodes)
    # ||p_k||^2 / ||p_0||^2, the change that node k + 1 can make to a sum of degree 2k.
    needed = 1 + np.sum(np.cumprod(off_diagonal**2, axis=1) > NEGLIGIBLE, axis=1)
    parts = []
    for size in np.unique(needed):
        of = needed == size
        roots, shares = _golub_welsch(diagonal[of, :size], off_diagonal[of, : size - 1])
        located = middle[of, None] + half[of, None] * roots
        located = np.clip(located, lowest[of, None], highest[of, None])
        parts.append((located.ravel(), (mass[of, None] * shares).ravel()))
    points, weights = map(np.concatenate, zip(*parts, strict=True))
    return points, weights


def _recurrence(
    points: np.ndarray, shares: np.ndarray, starts: np.ndarray, counts: np.ndarray, nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Jacobi matrix of every bin's measure: diagonal ``(B, q)`` and off-diagonal ``(B, q - 1)``.

    ``b_{k+1} p_{k+1}(x) = (x - a_k) p_k(x) - b_k p_{k-1}(x)`` with orthonormal p, carried as ``sqrt(share) * p``, which
    stays within [-1, 1] however uneven the weights. Past the last polynomial that the points can tell apart, zeros.
    """
    total = lambda values: np.add.reduceat(values, starts)
    spread = lambda values: np.repeat(values, counts)
    before, current, norm = np.zeros_like(points), np.sqrt(shares), np.zeros(len(starts))
    diagonal, off_diagonal = [], []
    for _ in range(nodes):
        diagonal.append(total(points * current**2))
        rest = (points - spread(diagonal[-1])) * current - spread(norm) * before
        norm = np.sqrt(total(rest**2))
        off_diagonal.append(norm)
        before, current = current, rest / spread(np.where(norm > 0, norm, 1.0))
    return np.stack(diagonal, axis=1), np.stack(off_diagonal[:-1] or [norm[:0]], axis=1).reshape(len(starts), nodes - 1)


def _golub_welsch(diagonal: np.ndarray, off_diagonal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights ``(B, m)``, summing to one, of Jacobi matrices: eigenvalues, first components squared."""
    size = diagonal.shape[1]
    jacobi = np.zeros((len(diagonal), size, size))
    jacobi[:, range(size), range(size)] = diagonal
    jacobi[:, range(1, size), range(size - 1)] = off_diagonal  # eigh reads the lower triangle
    roots, vectors = np.linalg.eigh(jacobi)
    shares = vectors[:, 0, :] ** 2
    return roots, shares / shares.sum(axis=1, keepdims=True)
