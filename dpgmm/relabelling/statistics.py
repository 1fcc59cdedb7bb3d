"""Sufficient statistics of the points that every draw allocates to every component."""

from typing import NamedTuple

import numpy as np

from . import assignment


class Statistics(NamedTuple):
    """``counts (T, K)``, ``sums (T, K, D)`` and ``products (T, K, D, D)`` of ``x - centre``, ``centre (D,)``."""

    counts: np.ndarray
    sums: np.ndarray
    products: np.ndarray
    centre: np.ndarray


def statistics(
    allocations: np.ndarray, points: np.ndarray, num_components: int, point_weights: np.ndarray | None = None
) -> Statistics:
    """Weighted counts, sums and outer products of the points of every component.

    ``allocations (T, N)``, ``points (N, D)``, ``point_weights (N,)``. Points are taken relative to their mean: squares
    of large coordinates would cancel.
    """
    omega = np.ones(len(points)) if point_weights is None else np.asarray(point_weights, float)
    centre = omega @ points / omega.sum()
    x = points - centre
    num_draws, dim = len(allocations), points.shape[1]
    columns = [np.ones(len(x)), *x.T, *(x[:, :, None] * x[:, None, :]).reshape(len(x), -1).T]
    features = np.empty((num_draws, num_components, len(columns)))
    for part in assignment.blocks(num_draws, 2 * len(points)):
        size = min(part.stop, num_draws) - part.start
        cells = (allocations[part] + num_components * np.arange(size)[:, None]).ravel()
        for c, column in enumerate(columns):
            sums = np.bincount(cells, np.tile(omega * column, size), minlength=size * num_components)
            features[part, :, c] = sums.reshape(size, num_components)
    products = features[..., 1 + dim :].reshape(num_draws, num_components, dim, dim)
    return Statistics(features[..., 0], features[..., 1 : 1 + dim], products, centre)
