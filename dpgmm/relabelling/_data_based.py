"""Data-based relabelling: the labelling whose components hold points close to the component's centre over all draws."""

import numpy as np

from . import assignment
from .assignment import Alignment
from .statistics import Statistics, statistics


def data_based(
    allocations: np.ndarray,
    points: np.ndarray,
    num_components: int,
    *,
    point_weights: np.ndarray | None = None,
    active: np.ndarray | None = None,
) -> Alignment:
    """Permutations that minimise ``sum_t sum_n omega_n sum_d ((x_nd - centre_kd) / spread_kd)^2``, k the component of n.

    Rodriguez & Walker (2014), JCGS 23. Centres and spreads come from a first pass over the draws in their order: each
    draw is assigned to the current ones, which then become the running means of the means and of the standard deviations
    (divisor n - 1) of the points allocated to the component. A second pass assigns all draws to the final ones; its
    cost is the objective. ``allocations (T, N)``, ``points (N, D)``, ``point_weights (N,)``, frequencies.

    With ``active (T, K)``, components whose place counts for `Alignment.ambiguity`, only as many places as the fullest
    draw needs are open to components that hold points. Otherwise these go from one unused place, whose starting spread
    is wide, to the next, and end in several places of one and the same centre.
    """
    of = statistics(allocations, points, num_components, point_weights)
    filled = of.counts > 0
    open_slots = num_components if active is None else filled.sum(axis=1).max()
    slots = np.arange(num_components) < open_slots
    centres, spreads = _running(of, points - of.centre, filled, slots)
    costs = _costs(of.counts, of.sums, _squares(of), centres, spreads)
    permutations = assignment.solve(costs, filled, slots)
    objective = float(assignment.cost(costs, permutations).sum())
    parked = assignment.parked(costs, filled, slots)
    return Alignment(permutations, objective, np.array([objective]), *assignment.measured(parked, active, slots))


def _squares(of: Statistics) -> np.ndarray:
    return np.diagonal(of.products, axis1=-2, axis2=-1)


def _costs(counts, sums, squares, centres, spreads) -> np.ndarray:
    """``sum_{n: z_n = j} sum_d ((x_nd - centre_kd) / spread_kd)^2`` from the statistics, ``(T, k, j)``."""
    precisions = spreads**-2.0
    constant = (centres**2 * precisions).sum(-1)
    linear = np.einsum("kd,tjd->tkj", centres * precisions, sums)
    return constant[:, None] * counts[:, None, :] - 2 * linear + np.einsum("kd,tjd->tkj", precisions, squares)


def _running(of: Statistics, points: np.ndarray, full: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and spreads ``(K, D)`` after the first pass. Their start is R's, and the first update replaces it."""
    num_components, dim = of.sums.shape[1:]
    low, width = points.min(axis=0), np.ptp(points, axis=0)
    width = np.where(width > 0, width, 1.0)
    centres = low + width * (np.arange(dim) + 1) / (np.arange(num_components)[:, None] + 2)
    spreads = np.tile(width / slots.sum(), (num_components, 1))
    seen, seen_twice, squares = np.zeros(num_components), np.zeros(num_components), _squares(of)
    for t in range(len(of.counts)):
        costs = _costs(of.counts[t : t + 1], of.sums[t : t + 1], squares[t : t + 1], centres, spreads)
        order = assignment.solve(costs, full[t : t + 1], slots)[0]
        counts, sums, square = of.counts[t, order], of.sums[t, order], squares[t, order]
        filled, repeated = counts > 0, counts > 1
        seen += filled
        means = sums[filled] / counts[filled, None]
        centres[filled] += (means - centres[filled]) / seen[filled, None]
        n = counts[repeated, None]
        variances = np.maximum(square[repeated] - sums[repeated] ** 2 / n, 0) / (n - 1)
        # Points of one component that all coincide have no spread, and a spread of nought no distance.
        spread = np.maximum(np.sqrt(variances), 1e-9 * width)
        seen_twice += repeated
        spreads[repeated] += (spread - spreads[repeated]) / seen_twice[repeated, None]
    return centres, spreads
