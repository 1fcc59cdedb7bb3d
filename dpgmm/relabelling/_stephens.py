"""Stephens' relabelling: the labelling whose allocation probabilities lie closest to their own mean."""

from collections.abc import Sequence

import numpy as np

from . import alternation, assignment
from .alternation import Stage
from .assignment import Alignment
from .probabilities import FLOOR, Block, Blocks, Gaussians


def stephens(
    probabilities: np.ndarray | Gaussians,
    *,
    point_weights: np.ndarray | None = None,
    starts: int = alternation.STARTS,
    max_iterations: int = alternation.MAX_ITERATIONS,
    floor: float = FLOOR,
    active: np.ndarray | None = None,
) -> Alignment:
    """Permutations that minimise the Kullback-Leibler divergence of the allocation probabilities from their mean.

    The objective, in nats, is ``sum_t sum_nk omega_n p[t, n, perm_t[k]] log(p[t, n, perm_t[k]] / q[n, k])`` with q the
    mean over draws of the relabelled p (Stephens 2000, JRSS B 62, section 5.1, algorithm 2). Given q every draw is a
    linear assignment, and given the permutations their mean is the best q, so the objective falls in every iteration.

    Parameters
    ----------
    probabilities
        ``(T, N, K)``, or `Gaussians` from which they are computed a block of draws at a time, in every pass anew, so
        that memory does not grow with T. Raised to at least `floor` and normalised again.
    point_weights
        ``omega (N,)``, ones by default.
    starts
        The identity and ``starts - 1`` draws spread over the chain.
    active
        ``(T, K)`` bool: components whose place counts for `Alignment.ambiguity`. By default all.

    """
    blocks = Blocks(probabilities, point_weights, floor)
    draws = alternation.pivots(blocks.shape[0], starts)
    # All sweeps have as many references as the first, whatever paths are still going: one shape, one compilation.
    step = lambda references: _sweep(blocks, references, 1 + len(draws))
    pivots = list(np.log(blocks.at(draws)))
    stage, history = alternation.best(step, pivots, sense=-1, max_iterations=max_iterations)
    gaps = []
    for block in blocks:
        costs = _costs(block, [stage.reference], blocks.point_weights)[0]
        gaps.append(assignment.measured(costs, None if active is None else active[block.part]))
    ambiguity, tied = (np.concatenate(a) for a in zip(*gaps, strict=True))
    return Alignment(stage.permutations, stage.objective, history, ambiguity, tied)


def _sweep(blocks: Blocks, references: Sequence[np.ndarray | None], width: int) -> list[Stage]:
    """One pass over the draws for several paths: assign to ``log q (K, N)`` and add up the relabelled probabilities."""
    num_draws, num_points, num_components = blocks.shape
    blank = np.zeros((num_components, num_points))
    filled = [blank if reference is None else reference for reference in references]
    filled += [blank] * (width - len(filled))
    permutations = np.empty((width, num_draws, num_components), np.int64)
    permutations[:] = np.arange(num_components)
    totals, negentropy = np.zeros((width, num_components, num_points)), 0.0
    for block in blocks:
        costs = _costs(block, filled, blocks.point_weights)
        for s, reference in enumerate(references):
            if reference is not None:
                permutations[s, block.part] = assignment.solve(costs[s])
        totals += block.sums(permutations[:, block.part])
        negentropy += float(block.negentropies.sum())
    means = totals[: len(references)] / num_draws
    logs = np.log(means)
    cross = num_draws * np.einsum("skn,skn,n->s", means, logs, blocks.point_weights)
    return [Stage(p, log, negentropy - float(c)) for p, log, c in zip(permutations, logs, cross, strict=False)]


def _costs(block: Block, references: Sequence[np.ndarray], point_weights: np.ndarray) -> np.ndarray:
    """``-sum_n omega_n p[t, j, n] log q[k, n]`` as ``(S, t, k, j)``: one matrix product for all paths."""
    products = block.products(np.concatenate(references) * point_weights)
    return -products.reshape(*products.shape[:2], len(references), -1).transpose(2, 0, 3, 1)
