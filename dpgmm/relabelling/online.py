"""Relabelling draw by draw, for draws that do not fit in memory: a state that holds the reference, init and step.

    state = online.stephens_init(first)                       # (N, K) probabilities of one draw
    for p in stream:
        state, permutation = online.stephens_step(state, p)

A step costs O(N K^2) and the state O(N K), however many draws went by. The first draw names the components: take a good
one. Early draws are compared with a reference made of few: a second pass with `stephens_assign` or `ecr_assign` against
the final state corrects them.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import xlogy

from . import assignment
from ._ecr import agreements
from .probabilities import FLOOR


class StephensState(NamedTuple):
    """``total (N, K)``, the sum of the relabelled probabilities of `draws` draws."""

    total: np.ndarray
    draws: int


class EcrState(NamedTuple):
    """``votes (N, K)``: how many draws put a point in a component, after relabelling."""

    votes: np.ndarray


def stephens_init(probabilities: np.ndarray) -> StephensState:
    """State whose reference is the draw with ``probabilities (N, K)``; it counts as the first draw, unpermuted."""
    return StephensState(_raised(probabilities), 1)


def stephens_assign(state: StephensState, probabilities: np.ndarray) -> tuple[np.ndarray, float]:
    """Permutation ``(K,)`` of the draw against the state's mean q, and its divergence ``sum_nk p log(p / q)``, nats."""
    p = _raised(probabilities)
    costs = -(np.log(state.total / state.draws).T @ p)[None]
    permutation = assignment.solve(costs)
    return permutation[0], float(assignment.cost(costs, permutation)[0] + xlogy(p, p).sum())


def stephens_step(state: StephensState, probabilities: np.ndarray) -> tuple[StephensState, np.ndarray]:
    """Assign one draw and take it into the mean: Stephens (2000), section 5.2. ``(N, K)`` to state and ``(K,)``."""
    permutation, _ = stephens_assign(state, probabilities)
    return StephensState(state.total + _raised(probabilities)[:, permutation], state.draws + 1), permutation


def ecr_init(allocations: np.ndarray, num_components: int) -> EcrState:
    """State whose pivot is the draw with ``allocations (N,)``; it counts as the first draw, unpermuted."""
    return EcrState(_one_hot(allocations, num_components))


def ecr_assign(state: EcrState, allocations: np.ndarray) -> tuple[np.ndarray, float]:
    """Permutation ``(K,)`` of the draw against the most voted allocation of every point, and the agreement, points."""
    costs = -agreements(allocations[None], state.votes.argmax(axis=1), state.votes.shape[1])
    permutation = assignment.solve(costs)
    return permutation[0], -float(assignment.cost(costs, permutation)[0])


def ecr_step(state: EcrState, allocations: np.ndarray) -> tuple[EcrState, np.ndarray]:
    """Assign one draw and count its votes: ECR-ITERATIVE-1 in one pass. ``(N,)`` to state and ``(K,)``."""
    permutation, _ = ecr_assign(state, allocations)
    relabelled = np.argsort(permutation)[allocations]
    return EcrState(state.votes + _one_hot(relabelled, state.votes.shape[1])), permutation


def _raised(probabilities: np.ndarray) -> np.ndarray:
    raised = np.maximum(np.asarray(probabilities, float), FLOOR)
    return raised / raised.sum(axis=-1, keepdims=True)


def _one_hot(allocations: np.ndarray, num_components: int) -> np.ndarray:
    return (allocations[:, None] == np.arange(num_components)).astype(np.int64)
