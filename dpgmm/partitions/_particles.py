"""Several partitions that stand for the draws together, with weights: a Wasserstein approximation (WASABI)."""

import dataclasses

import numpy as np

from ..errors import InputError, at_least
from ._credible_ball import METRICS
from .losses import Loss, pairwise, resolve
from .search import PointEstimate, point_estimate
from .similarity import Draws, draws_of

MEDOIDS = 1_000
"""Draws among which the first particles are looked for, all distances being held; of more, a random sample."""
MAX_ITERATIONS = 30
REFINED = 3
"""Different results of k-medoids that are refined, the best ones."""


@dataclasses.dataclass(frozen=True, eq=False)
class Particles:
    """Partitions of decreasing weight, and which draws each stands for.

    partitions: ``(L, n)`` labels by first appearance. weights: ``(L,)``, shares of the draws, those nearest.
    expected_losses: ``(L,)``, mean loss of those draws. nearest: ``(T,)``, the particle of each draw.
    distance: the Wasserstein distance to the draws, the mean of the loss to the nearest particle, in the units of `loss`.
    """

    partitions: np.ndarray
    weights: np.ndarray
    expected_losses: np.ndarray
    nearest: np.ndarray
    distance: float
    loss: Loss

    @property
    def num_clusters(self) -> np.ndarray:
        """Of every particle, ``(L,)``."""
        return self.partitions.max(axis=1) + 1


def particles(
    allocations: np.ndarray | Draws,
    num_particles: int = 4,
    loss: str | Loss = "vi",
    *,
    restarts: int = 16,
    starts: int = 16,
    seed: int = 0,
    workers: int | None = None,
) -> Particles:
    """L partitions with weights nearest to the draws ``(T, n)`` in Wasserstein distance, as far as the search finds.

    With the best weights that distance, of order one with a metric d as its cost, is

        W = min over c_1 ... c_L of  (1/T) sum_t min_l d(z_t, c_l),

    so that the weight of a particle is the share of draws nearest to it, and the particle the partition of least
    expected loss of those draws. Found in turns, as k-means is: draws go to their nearest particle, and a particle becomes
    the `point_estimate` of its draws where that is better, until nothing changes. It begins at the best of `restarts` runs
    on draws alone (k-medoids), each from draws chosen in turn with probability proportional to the distance from those
    chosen before (k-means++). W never grows on the way. The last updates search from `starts` starts.

    Fewer particles come back where there are fewer distinct draws. One particle is the point estimate and W its expected
    loss; W against L has an elbow where more particles no longer help. Source: Balocchi & Wade 2025, arXiv 2506.16295.
    Raises `InputError` for a loss that is no metric and options out of range.
    """
    draws, loss = draws_of(allocations), resolve(loss)
    if loss.name not in METRICS:
        raise InputError(
            f"{loss.name} is no metric, so it has no Wasserstein distance; choose one of {', '.join(METRICS)}"
        )
    at_least("particles", 1, num_particles=num_particles, restarts=restarts)
    at_least("particles", 0, starts=starts, seed=seed)
    rng = np.random.default_rng(seed)
    turns = _Turns(draws, loss, seed, workers)
    refined = [turns.refined(some, 0) for some in _medoids(draws, num_particles, loss, restarts, rng)]
    centres = turns.refined(min(refined, key=turns.wasserstein), starts)
    distance = pairwise(centres, draws, loss)
    nearest = distance.argmin(axis=0)
    sizes = np.bincount(nearest, minlength=len(centres))
    order = np.lexsort((*centres.T[::-1], -sizes))
    nearest = np.argsort(order)[nearest]
    least = distance.min(axis=0)
    return Particles(
        partitions=centres[order],
        weights=sizes[order] / len(nearest),
        expected_losses=np.bincount(nearest, least) / sizes[order],
        nearest=nearest,
        distance=float(least.mean()),
        loss=loss,
    )


def _medoids(draws: Draws, num: int, loss: Loss, restarts: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The best choices of L draws, ``(L, n)`` each: k-medoids on a sample of the draws."""
    labels = draws.labels
    if len(labels) > MEDOIDS:
        labels = labels[rng.choice(len(labels), MEDOIDS, replace=False)]
    labels, weight = np.unique(labels, axis=0, return_counts=True)
    distance = pairwise(labels, labels, loss)
    found = {tuple(np.sort(_k_medoids(distance, weight, min(num, len(labels)), rng))) for _ in range(restarts)}
    value = lambda some: float(weight @ distance[list(some)].min(axis=0))
    return [labels[list(some)] for some in sorted(found, key=lambda some: (value(some), some))[:REFINED]]


def _k_medoids(distance: np.ndarray, weight: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of the medoids, from a k-means++ start: assign, take each group's best member, until nothing changes."""
    some = [int(rng.choice(len(weight), p=weight / weight.sum()))]
    while len(some) < num:
        chance = weight * distance[some].min(axis=0)
        some.append(int(rng.choice(len(weight), p=chance / chance.sum())))
    some = np.array(some)
    for _ in range(MAX_ITERATIONS):
        nearest = distance[some].argmin(axis=0)
        groups = [np.flatnonzero(nearest == k) for k in range(num)]
        new = np.array([g[(distance[np.ix_(g, g)] @ weight[g]).argmin()] for g in groups])
        if np.array_equal(new, some):
            break
        some = new
    return some


class _Turns:
    """Assignments of draws and updates of particles, in turns. A group of draws is searched for once."""

    def __init__(self, draws: Draws, loss: Loss, seed: int, workers: int | None):
        self.draws, self.loss = draws, loss
        self.options = {"seed": seed, "workers": workers}
        self.known: dict[tuple[bytes, int], PointEstimate] = {}

    def wasserstein(self, centres: np.ndarray) -> float:
        return float(pairwise(centres, self.draws, self.loss).min(axis=0).mean())

    def refined(self, centres: np.ndarray, starts: int) -> np.ndarray:
        """Turns until no particle gets better; those that no draw is nearest to are left out."""
        for _ in range(MAX_ITERATIONS):
            distance = pairwise(centres, self.draws, self.loss)
            nearest = distance.argmin(axis=0)
            kept = np.unique(nearest)
            better = np.stack([self.update(centres[k], nearest == k, distance[k], starts) for k in kept])
            if np.array_equal(better, centres):
                break
            centres = better
        return centres

    def update(self, centre: np.ndarray, mine: np.ndarray, distance: np.ndarray, starts: int) -> np.ndarray:
        """The partition of least expected loss of the draws `mine`, where it beats the particle that they have."""
        key = mine.tobytes(), starts
        if key not in self.known:
            self.known[key] = point_estimate(self.draws.labels[mine], self.loss, starts=starts, **self.options)
        found = self.known[key]
        return found.partition if found.expected_loss < distance[mine].mean() - 1e-12 else centre
