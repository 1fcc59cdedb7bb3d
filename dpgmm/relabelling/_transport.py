"""Optimal-transport relabelling: the labelling whose Gaussian components lie closest to a barycentre of all draws."""

from collections.abc import Sequence

import numpy as np

from ..draws.components import along
from . import alternation, assignment
from .alternation import Stage
from .assignment import Alignment

ROUNDS = 100
"""Fixed-point iterations of a barycentre of covariances, at most."""
SETTLED = 1e-10


def transport(
    means: np.ndarray,
    covariances: np.ndarray,
    *,
    starts: int = alternation.STARTS,
    max_iterations: int = alternation.MAX_ITERATIONS,
    active: np.ndarray | None = None,
) -> Alignment:
    """Permutations that minimise the squared Wasserstein-2 distance of the components to their barycentres.

    Monteiller et al. (2019), NeurIPS 32: the barycentre of the draws modulo permutation. The objective,
    ``sum_t sum_k W2^2(N(mean, covariance)[t, perm_t[k]], barycentre_k)``, is in squared units of the data. Draws are
    assigned to the barycentres, and these then made anew; both lower the objective. Weights do not enter.

    Shapes: ``means (T, K, D)``, ``covariances (T, K, D, D)``. With ``active (T, K)`` empty components are parked: they
    neither cost anything nor enter a barycentre, and as many components are occupied as the fullest draw has.
    """
    active = np.ones(means.shape[:2], bool) if active is None else active
    # Active components first: then a start from any labelling occupies the same places, and no more than are needed.
    order = np.argsort(~active, axis=1, kind="stable")
    means, covariances = along(means, order), along(covariances, order)
    sorted_active = np.take_along_axis(active, order, axis=1)
    slots = np.arange(means.shape[1]) < sorted_active.sum(axis=1).max()

    def one(reference) -> Stage:
        if reference is None:
            permutations = np.tile(np.arange(len(slots)), (len(means), 1))
        else:
            permutations = assignment.solve(_costs(means, covariances, *reference), sorted_active, slots)
        moved = along(means, permutations), along(covariances, permutations)
        weights = np.take_along_axis(sorted_active, permutations, axis=1).astype(float)
        start = moved[1].mean(axis=0) if reference is None else reference[1]
        new = barycentres(*moved, weights, start)
        return Stage(permutations, new, float((weights * wasserstein(*moved, *new)).sum()))

    def step(references: Sequence) -> list[Stage]:
        return [one(reference) for reference in references]

    full = np.flatnonzero(sorted_active.sum(axis=1) == slots.sum())
    pivots = [(means[t], covariances[t]) for t in full[alternation.pivots(len(full), starts)]]
    stage, history = alternation.best(step, pivots, sense=-1, max_iterations=max_iterations)
    costs = assignment.parked(_costs(means, covariances, *stage.reference), sorted_active, slots)
    gap, tied = assignment.measured(costs, sorted_active, slots)
    permutations = np.take_along_axis(order, stage.permutations, axis=1)
    return Alignment(permutations, stage.objective, history, gap, tied)


def wasserstein(means: np.ndarray, covariances: np.ndarray, others: np.ndarray, other_covariances: np.ndarray):
    """Squared W2 distance of Gaussians, ``|m - m'|^2 + tr(S + S' - 2 (S^{1/2} S' S^{1/2})^{1/2})``, batched.

    Dowson & Landau (1982). Shapes broadcast: ``means (..., D)``, ``covariances (..., D, D)`` to ``(...)``.
    """
    traces = np.trace(covariances, axis1=-2, axis2=-1) + np.trace(other_covariances, axis1=-2, axis2=-1)
    squared = ((means - others) ** 2).sum(axis=-1)
    return squared + np.maximum(traces - 2 * _trace_of_root(covariances, other_covariances), 0.0)


def barycentres(
    means: np.ndarray, covariances: np.ndarray, weights: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Wasserstein-2 barycentre of the Gaussians of every component, means ``(K, D)`` and covariances ``(K, D, D)``.

    The mean of the means, and the fixed point of ``S <- S^{-1/2} (sum_t w_t (S^{1/2} S_t S^{1/2})^{1/2})^2 S^{-1/2}``
    from `start`, each round of which lowers the sum of distances (Alvarez-Esteban et al. 2016, JMAA 441, theorem 4.2).
    Shapes: ``means (T, K, D)``, ``covariances (T, K, D, D)``, ``weights (T, K)``, ``start (K, D, D)``. A component of no
    weight keeps its start.
    """
    total = weights.sum(axis=0)
    shares = weights / np.where(total > 0, total, 1.0)
    centre = np.einsum("tk,tkd->kd", shares, means)
    current = start
    for _ in range(ROUNDS):
        root, inverse = _roots(current)
        mean = np.einsum("tk,tkde->kde", shares, _roots(root @ covariances @ root)[0])
        new = np.where((total > 0)[:, None, None], inverse @ mean @ mean @ inverse, start)
        change = np.abs(new - current).max()
        current = new
        if change <= SETTLED * np.abs(current).max():
            break
    return centre, current


def _costs(means, covariances, centres, centre_covariances) -> np.ndarray:
    """Squared distances ``(T, k, j)`` of component j of every draw to barycentre k."""
    num_components, dim = centres.shape
    result = np.empty((len(means), num_components, num_components))
    for part in assignment.blocks(len(means), num_components**2 * dim**2):
        here = means[part, None], covariances[part, None]
        result[part] = wasserstein(*here, centres[:, None], centre_covariances[:, None])
    return result


def _trace_of_root(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``tr (A^{1/2} B A^{1/2})^{1/2}``: the sum of the square roots of the eigenvalues of A B."""
    if a.shape[-1] == 1:
        return np.sqrt(a * b)[..., 0, 0]
    if a.shape[-1] == 2:  # tr sqrt(M) = sqrt(tr M + 2 sqrt(det M))
        trace = (a * b).sum(axis=(-2, -1))
        return np.sqrt(trace + 2 * np.sqrt(np.maximum(_determinant(a) * _determinant(b), 0)))
    lower = np.linalg.cholesky(a)
    values = np.linalg.eigvalsh(np.swapaxes(lower, -1, -2) @ b @ lower)
    return np.sqrt(np.maximum(values, 0)).sum(axis=-1)


def _determinant(a: np.ndarray) -> np.ndarray:
    return a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] * a[..., 1, 0]


def _roots(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric square roots and their inverses, ``(..., D, D)``."""
    if matrices.shape[-1] == 1:
        root = np.sqrt(matrices)
        return root, 1 / root
    values, vectors = np.linalg.eigh(matrices)
    scales = np.sqrt(np.maximum(values, np.finfo(float).tiny))
    build = lambda s: (vectors * s[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return build(scales), build(1 / scales)
