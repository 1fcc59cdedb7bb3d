"""Equivalence-classes relabelling: the labelling whose allocations agree best with those of a pivot."""

from collections.abc import Iterator, Sequence

import numpy as np

from . import alternation, assignment
from .alternation import Stage
from .assignment import Alignment
from .probabilities import Blocks, Gaussians


def ecr(
    allocations: np.ndarray,
    pivot: np.ndarray,
    num_components: int,
    *,
    point_weights: np.ndarray | None = None,
    active: np.ndarray | None = None,
) -> Alignment:
    """Permutations that maximise agreement with a pivot, ``sum_tn omega_n [argsort(perm_t)[z_tn] = pivot_n]``.

    Papastamoulis & Iliopoulos (2010), JCGS 19. ``allocations (T, N)`` and ``pivot (N,)``, integers from 0 to
    `num_components` - 1; ``point_weights (N,)``, ones by default. The objective is the agreement, a number of points.
    ``active (T, K)``: components whose place counts for `Alignment.ambiguity`.
    """
    permutations, objectives, *measured = _aligned(allocations, pivot, num_components, point_weights, active)
    objective = float(objectives.sum())
    return Alignment(permutations, objective, np.array([objective]), *measured)


def ecr_iterative_1(
    allocations: np.ndarray,
    num_components: int,
    *,
    point_weights: np.ndarray | None = None,
    starts: int = alternation.STARTS,
    max_iterations: int = alternation.MAX_ITERATIONS,
    active: np.ndarray | None = None,
) -> Alignment:
    """`ecr` whose pivot is the most frequent relabelled allocation of every point, until that no longer changes.

    Papastamoulis (2014), JSS code snippets 69, ECR-ITERATIVE-1. The objective is the agreement with the pivot that the
    permutations themselves give: it rises in every iteration, since each half maximises it. Starts are the identity
    and ``starts - 1`` draws spread over the chain; shapes as in `ecr`.
    """

    def pivot(permutations: np.ndarray, votes: np.ndarray) -> np.ndarray:
        return votes.argmax(axis=1)

    return _iterative(allocations, num_components, pivot, point_weights, starts, max_iterations, active)


def ecr_iterative_2(
    allocations: np.ndarray,
    probabilities: np.ndarray | Gaussians,
    *,
    point_weights: np.ndarray | None = None,
    starts: int = alternation.STARTS,
    max_iterations: int = alternation.MAX_ITERATIONS,
    active: np.ndarray | None = None,
) -> Alignment:
    """`ecr` whose pivot is the most probable component of every point under the mean of the relabelled probabilities.

    Papastamoulis (2014), JSS code snippets 69, ECR-ITERATIVE-2. The objective is the agreement with the pivot that the
    permutations themselves give. The two halves do not maximise one and the same thing, so a path stops before an
    iteration that would lower it. ``allocations (T, N)``; ``probabilities (T, N, K)`` or `Gaussians`, streamed.
    """
    blocks = Blocks(probabilities, point_weights, floor=0.0)

    def pivot(permutations: np.ndarray, votes: np.ndarray) -> np.ndarray:
        total = sum(block.sums(permutations[None, block.part])[0] for block in blocks)
        return np.argmax(total, axis=0)

    return _iterative(allocations, blocks.shape[2], pivot, point_weights, starts, max_iterations, active)


def agreements(
    allocations: np.ndarray, pivot: np.ndarray, num_components: int, point_weights: np.ndarray | None = None
) -> np.ndarray:
    """``a[t, k, j] = sum_n omega_n [pivot_n = k] [z_tn = j]``, ``(T, K, K)`` float."""
    result = np.empty((len(allocations), num_components, num_components))
    rows = np.asarray(pivot, np.int64) * num_components
    for part in assignment.blocks(len(allocations), allocations.shape[1]):
        size = min(part.stop, len(allocations)) - part.start
        cells = allocations[part] + rows + num_components**2 * np.arange(size)[:, None]
        weights = None if point_weights is None else np.tile(point_weights, size)
        sums = np.bincount(cells.ravel(), weights, minlength=size * num_components**2)
        result[part] = sums.reshape(size, num_components, num_components)
    return result


def _costs(allocations, pivot, num_components, point_weights) -> Iterator[tuple[slice, np.ndarray]]:
    """Minus `agreements` of some draws at a time: of all of them they would be T K^2 numbers."""
    for part in assignment.blocks(len(allocations), max(allocations.shape[1], num_components**2)):
        yield part, -agreements(allocations[part], pivot, num_components, point_weights)


def _aligned(allocations, pivot, num_components, point_weights, active) -> list[np.ndarray]:
    """Permutations, the agreement of each draw, ambiguity and ties of the alignment with a pivot."""
    found = []
    for part, costs in _costs(allocations, pivot, num_components, point_weights):
        permutations = assignment.solve(costs)
        of_part = None if active is None else active[part]
        found.append((permutations, -assignment.cost(costs, permutations), *assignment.measured(costs, of_part)))
    return [np.concatenate(leaf) for leaf in zip(*found, strict=True)]


def votes(allocations: np.ndarray, permutations: np.ndarray) -> np.ndarray:
    """How many draws put every point in every component after relabelling, ``(N, K)``."""
    num_points, num_components = allocations.shape[1], permutations.shape[1]
    places, result = np.argsort(permutations, axis=1), np.zeros(num_points * num_components, np.int64)
    rows = np.arange(num_points) * num_components
    for part in assignment.blocks(len(allocations), num_points):
        cells = np.take_along_axis(places[part], allocations[part].astype(np.int64), axis=1) + rows
        result += np.bincount(cells.ravel(), minlength=len(result))
    return result.reshape(num_points, num_components)


def _iterative(allocations, num_components, pivot, point_weights, starts, max_iterations, active) -> Alignment:
    omega = np.ones(allocations.shape[1]) if point_weights is None else point_weights
    costs = lambda reference: _costs(allocations, reference, num_components, point_weights)
    solved = lambda reference: np.concatenate([assignment.solve(of_part) for _, of_part in costs(reference)])

    def one(reference: np.ndarray | None) -> Stage:
        identity = np.broadcast_to(np.arange(num_components), (len(allocations), num_components))
        permutations = identity if reference is None else solved(reference)
        counts = votes(allocations, permutations)
        new = pivot(permutations, counts)
        return Stage(permutations, new, float(omega @ counts[np.arange(len(new)), new]))

    def step(references: Sequence[np.ndarray | None]) -> list[Stage]:
        return [one(reference) for reference in references]

    pivots = list(allocations[alternation.pivots(len(allocations), starts)])
    stage, history = alternation.best(step, pivots, sense=1, max_iterations=max_iterations)
    *_, gap, tied = _aligned(allocations, stage.reference, num_components, point_weights, active)
    return Alignment(stage.permutations, stage.objective, history, gap, tied)
