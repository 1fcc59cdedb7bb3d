"""Probabilistic relabelling of Sperrin, Jaki and Wit: a mixture over the permutations of every draw."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import alternation, assignment, permanent
from .alternation import Stage
from .assignment import Alignment
from .statistics import Statistics, statistics

LOG_2PI = 1.8378770664093453


class Components(NamedTuple):
    """``weights (..., K)``, ``means (..., K, D)``, ``covariances (..., K, D, D)``."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def sjw(
    allocations: np.ndarray,
    weights: np.ndarray,
    means: np.ndarray,
    covariances: np.ndarray,
    points: np.ndarray,
    *,
    point_weights: np.ndarray | None = None,
    starts: int = alternation.STARTS,
    max_iterations: int = alternation.MAX_ITERATIONS,
    exact: bool | None = None,
    active: np.ndarray | None = None,
) -> Alignment:
    """Most probable permutations under ``sum_t log sum_p p(x, z_t | theta permuted by p)``, nats, which is maximised.

    Sperrin, Jaki & Wit (2010), Statistics and Computing 20. E-step: the probability that component j of draw t is
    component k, over all permutations; M-step: theta, the mean over draws and permutations, so weighted, of the
    permuted parameters, both in the one convention ``new = old[permutation]``. That mean is not quite the maximiser
    that the theory of EM asks for, so a path stops before an iteration that would lower the objective.

    Shapes: ``allocations (T, N)``, ``weights (T, K)``, ``means (T, K, D)``, ``covariances (T, K, D, D)``,
    ``points (N, D)``, ``point_weights (N,)``. `exact`: the E-step sums over all permutations (in 2^K steps), by default
    for K up to `permanent.LARGEST`; otherwise it takes the best one, a linear assignment, and the objective has the
    largest term in place of the sum. The ambiguity is in nats: log odds of the best permutation to the second best.
    """
    parameters = Components(*(np.asarray(a, float) for a in (weights, means, covariances)))
    num_components = parameters.weights.shape[1]
    summed = num_components <= permanent.LARGEST if exact is None else exact
    of = statistics(allocations, points, num_components, point_weights)
    costs = lambda theta: -log_likelihoods(of, theta)

    def one(theta: Components | None) -> Stage:
        theta = Components(*(a.mean(axis=0) for a in parameters)) if theta is None else theta
        now = costs(theta)
        permutations = assignment.solve(now)
        value, shares = _e_step(now, permutations, exact=summed)
        # The objective is that of the parameters these permutations were found with, the reference the next ones.
        return Stage(permutations, (_m_step(parameters, shares), theta), value)

    def step(references: Sequence) -> list[Stage]:
        return [one(None if reference is None else reference[0]) for reference in references]

    pivots = [(Components(*(a[t] for a in parameters)), None) for t in alternation.pivots(len(allocations), starts)]
    stage, history = alternation.best(step, pivots, sense=1, max_iterations=max_iterations)
    measured = assignment.measured(costs(stage.reference[1]), active)
    return Alignment(stage.permutations, stage.objective, history, *measured)


def log_likelihoods(of: Statistics, theta: Components) -> np.ndarray:
    """``log p`` of the points and the label of component j under component k of theta, ``(T, k, j)``, nats."""
    precisions = np.linalg.inv(theta.covariances)
    means = theta.means - of.centre
    log_weights = np.log(np.maximum(theta.weights, np.finfo(float).tiny))
    offsets = log_weights - 0.5 * (np.linalg.slogdet(theta.covariances)[1] + means.shape[-1] * LOG_2PI)
    linear = np.einsum("kde,ke->kd", precisions, means)
    constant = offsets - 0.5 * np.einsum("kd,kd->k", linear, means)
    quadratic = np.einsum("kde,tjde->tkj", precisions, of.products)
    return constant[:, None] * of.counts[:, None] + np.einsum("kd,tjd->tkj", linear, of.sums) - 0.5 * quadratic


def _e_step(costs: np.ndarray, permutations: np.ndarray, *, exact: bool) -> tuple[float, np.ndarray]:
    """Objective, and the probability ``(T, K, K)`` that component j becomes component k."""
    if not exact:
        chosen = permutations[..., None] == np.arange(costs.shape[-1])
        return -float(assignment.cost(costs, permutations).sum()), chosen.astype(float)
    value, shares = 0.0, np.empty_like(costs)
    for part in assignment.blocks(len(costs), 4 * 2 ** costs.shape[-1]):
        logs, shares[part] = permanent.log_permanent(-costs[part])
        value += float(logs.sum())
    return value, shares


def _m_step(parameters: Components, shares: np.ndarray) -> Components:
    means = (np.einsum("tkj,tj...->k...", shares, a) / len(a) for a in parameters)
    return Components(*means)
