"""Pivotal reordering: the labelling whose parameters have the largest inner product with those of a pivot."""

import numpy as np

from . import assignment
from .assignment import Alignment


def pra(
    parameters: np.ndarray,
    pivot: np.ndarray,
    *,
    active: np.ndarray | None = None,
    slots: np.ndarray | None = None,
) -> Alignment:
    """Permutations that maximise ``sum_kc pivot[k, c] parameters[t, perm_t[k], c]``: K! orders, one linear assignment.

    Marin, Mengersen & Robert (2005), Handbook of Statistics 25. ``parameters (T, K, C)`` holds all parameters of a
    component side by side, in their own units, and ``pivot (K, C)`` those of one draw. The objective is the sum of the
    inner products over draws.

    With ``active (T, K)`` and ``slots (K,)``, the pivot's active components, empty components are parked. Then the
    squared distance takes the inner product's place in the assignment: the two have the same optimum where all
    components take part, but only a distance can leave some out.
    """
    products = lambda: -np.einsum("kc,tjc->tkj", pivot, parameters)
    costs = products() if active is None else _squared_distances(parameters, pivot)
    permutations = assignment.solve(costs, active, slots)
    relabelled = np.take_along_axis(parameters, permutations[..., None], axis=1)
    objective = float(np.einsum("kc,tkc->", pivot, relabelled))
    if active is not None:
        costs = assignment.parked(costs, active, np.ones(len(pivot), bool) if slots is None else slots)
    return Alignment(permutations, objective, np.array([objective]), *assignment.measured(costs, active, slots))


def _squared_distances(parameters: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    centre = pivot.mean(axis=0)  # less cancellation below
    a, b = parameters - centre, pivot - centre
    return (a**2).sum(-1)[:, None, :] + (b**2).sum(-1)[:, None] - 2 * np.einsum("kc,tjc->tkj", b, a)
