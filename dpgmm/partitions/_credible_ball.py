"""Credible balls: which partitions are still plausible, around an estimate."""

import dataclasses

import numpy as np

from ..errors import InputError
from .losses import Loss, distances, resolve
from .similarity import Draws, draws_of

METRICS = ("vi", "binder", "binder_pairs", "nvi", "id", "nid")
"""Losses that are metrics on partitions, so that a ball is a ball. omari breaks the triangle inequality."""


@dataclasses.dataclass(frozen=True, eq=False)
class CredibleBall:
    """The smallest ball around the estimate that holds `level` of the draws, and its extremes, in the units of `loss`.

    radius, horizontal: the horizontal distance, and the distinct draws ``(., n)`` that far away.
    upper_distance, upper: of the draws in the ball with the fewest clusters, the farthest.
    lower_distance, lower: of the draws in the ball with the most clusters, the farthest.
    share: share of draws in the ball, `level` or more. Labels are by first appearance.
    """

    loss: Loss
    level: float
    share: float
    radius: float
    horizontal: np.ndarray
    upper_distance: float
    upper: np.ndarray
    lower_distance: float
    lower: np.ndarray


def credible_ball(
    allocations: np.ndarray | Draws, partition: np.ndarray, loss: str | Loss = "vi", level: float = 0.95
) -> CredibleBall:
    """Credible ball around `partition` ``(n,)`` from draws ``(T, n)``: all draws up to the smallest sufficient radius.

    Source: Wade & Ghahramani (2018), Bayesian cluster analysis: point estimation and credible balls, section 4. Ties at the
    radius are inside, to a relative 1e-12. Raises `InputError` for a loss that is no metric and a level outside (0, 1].
    """
    loss = resolve(loss)
    if loss.name not in METRICS:
        raise InputError(f"{loss.name} is no metric, so it has no balls; choose one of {', '.join(METRICS)}")
    if not 0 < level <= 1:
        raise InputError(f"level is {level}; give a number in (0, 1]")
    draws = draws_of(allocations)
    distance = distances(draws, partition, loss)
    needed = int(np.ceil(level * len(distance) - 1e-9))
    radius = float(np.sort(distance)[max(needed, 1) - 1])
    inside = distance <= radius + _slack(radius)
    clusters, distance, labels = draws.num_clusters[inside], distance[inside], draws.labels[inside]

    def farthest(among: np.ndarray) -> tuple[float, np.ndarray]:
        most = float(distance[among].max())
        return most, np.unique(labels[among & (distance >= most - _slack(most))], axis=0)

    upper_distance, upper = farthest(clusters == clusters.min())
    lower_distance, lower = farthest(clusters == clusters.max())
    _, horizontal = farthest(np.ones(len(labels), bool))
    share = float(inside.mean())
    return CredibleBall(loss, level, share, radius, horizontal, upper_distance, upper, lower_distance, lower)


def _slack(distance: float) -> float:
    return 1e-12 * (1 + distance)
