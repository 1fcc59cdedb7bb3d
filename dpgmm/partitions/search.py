"""Point estimates: the partition that loses least under the draws, by greedy search from many starts.

After Dahl, Johnson & Mueller (2022), Search algorithms and loss functions for Bayesian clustering, JCGS 31: sequential
allocation in random order, sweeps that reallocate one observation at a time, and zealous updates that destroy a cluster and
reallocate its members. Started as well from the cuts of a hierarchical clustering and from the best draw.
"""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

from ..errors import InputError
from .losses import FROM_SIMILARITY, Loss, expected_loss, expected_losses, losses_at_similarity, resolve
from .moves import Evidence, SearchState, slack, state
from .similarity import Draws, canonical, draws_of

MAX_SWEEPS = 200
SYSTEMATIC = ("draws", "average", "complete")
CANDIDATES, CANDIDATE_WORK = 50, 2e9
"""Draws or cuts whose expected loss is computed to find the best: so many multiplications allow, or so many if that is more.

Of more, the loss at the similarity matrix, which costs little, chooses.
"""


class Run(NamedTuple):
    """One start of the search: its name, the expected loss there, after sweeps and at the end, the number of clusters."""

    method: str
    initial_loss: float
    swept_loss: float
    final_loss: float
    num_clusters: int


@dataclasses.dataclass(frozen=True, eq=False)
class PointEstimate:
    """The best partition found.

    partition: ``(n,)`` labels by first appearance. expected_loss: in the units of `loss`, `Loss.units`. method: the start
    that won, the first of those that tie. history: every start. similarity: of the draws, ``(n, n)``.
    """

    partition: np.ndarray
    expected_loss: float
    loss: Loss
    method: str
    num_clusters: int
    history: tuple[Run, ...]
    similarity: np.ndarray


def point_estimate(
    allocations: np.ndarray | Draws,
    loss: str | Loss = "vi",
    *,
    starts: int = 16,
    max_clusters: int | None = None,
    seed: int = 0,
    zealous: int = 10,
    workers: int | None = None,
) -> PointEstimate:
    """The partition of smallest expected loss that the search finds, for draws of labels ``(T, n)``.

    `starts` searches begin at random, half of them from the empty partition and half from a random one; two more begin at
    the best cut of a hierarchical clustering of 1 - similarity (average, complete linkage), one at the best draw; of very
    many cuts or draws, those that are best at the similarity matrix are evaluated. Each search sweeps until no single move
    helps; those that meet go on as one, which tries to destroy up to `zealous` clusters. `max_clusters` bounds
    the number of clusters (None: no bound). Starts run on `workers` threads (None: one a core); the result depends on
    `seed` and not on `workers`.

    Costs O(T K) for every observation looked at, O(K) for binder, O(n) for vi_lb. Raises `InputError` for labels that
    are not whole numbers, an unknown loss, and options out of range.
    """
    draws, loss = draws_of(allocations), resolve(loss)
    limit = draws.size if max_clusters is None else max_clusters
    for name, value, least in (
        ("starts", starts, 0),
        ("max_clusters", limit, 1),
        ("zealous", zealous, 0),
        ("seed", seed, 0),
    ):
        if not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} is {value!r}; give a whole number of {least} or more")
    search = _Search(Evidence(draws), loss, min(int(limit), draws.size), zealous, seed)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = list(pool.map(search.descend, range(-len(SYSTEMATIC), starts)))
        # Starts that met in one partition go on as one.
        forms = [canonical(at.labels).tobytes() for at, _ in found]
        first = {form: number for number, form in reversed(list(enumerate(forms)))}
        improved = dict(zip(first, pool.map(lambda k: search.improve(found[k][0], k), first.values()), strict=True))
    states = [improved[form] for form in forms]
    history = tuple(
        run._replace(final_loss=at.value(), num_clusters=at.num) for at, (_, run) in zip(states, found, strict=True)
    )
    losses = np.array([run.final_loss for run in history])
    best = int(np.flatnonzero(losses <= losses.min() + slack(losses.min()))[0])
    partition = canonical(states[best].labels)
    return PointEstimate(
        partition=partition,
        expected_loss=expected_loss(draws, partition, loss),
        loss=loss,
        method=history[best].method,
        num_clusters=int(partition.max()) + 1,
        history=history,
        similarity=search.evidence.similarity,
    )


@dataclasses.dataclass(frozen=True)
class _Search:
    evidence: Evidence
    loss: Loss
    limit: int
    zealous: int
    seed: int

    def descend(self, start: int) -> tuple[SearchState, Run]:
        """Sweep until nothing moves, from random start 0, 1, ..., or from a systematic one, -3 to -1."""
        rng = np.random.default_rng([self.seed, start + len(SYSTEMATIC)])
        at = state(self.evidence, self.loss)
        if start >= 0:
            method = self._at_random(at, rng, start)
        else:
            labels, method = self._best_draw() if SYSTEMATIC[start] == "draws" else self._best_cut(SYSTEMATIC[start])
            _fill(at, labels)
        run = Run(method, at.value(), np.nan, at.value(), at.num)
        _descend(at, self.limit, rng)
        return at, run._replace(swept_loss=at.value())

    def improve(self, at: SearchState, number: int) -> SearchState:
        """Zealous updates, and sweeps after each that helps, until none does."""
        rng = np.random.default_rng([self.seed, number, 1])
        for _ in range(MAX_SWEEPS):
            if not _zealous(at, self.limit, self.zealous, rng):
                break
            _descend(at, self.limit, rng)
        return at

    def _at_random(self, at: SearchState, rng: np.random.Generator, number: int) -> str:
        size = self.evidence.size
        if number % 2 == 0:
            _allocate(at, rng.permutation(size), self.limit)
            return f"sequential {number // 2}"
        most = int(self.evidence.clusters.draws.sum(axis=1).max())
        _fill(at, canonical(rng.integers(0, rng.integers(1, min(self.limit, most) + 1), size)))
        return f"random {number // 2}"

    def _best_draw(self) -> tuple[np.ndarray, str]:
        """The best draw; the one cluster of all, where every draw has more clusters than are wanted."""
        draws = np.unique(self.evidence.draws.labels, axis=0)
        draws = draws[draws.max(axis=1) < self.limit]
        if not len(draws):
            return np.zeros(self.evidence.size, int), "one cluster"
        return self._best(draws, "draws")

    def _best_cut(self, method: str) -> tuple[np.ndarray, str]:
        dissimilarity = np.clip(1 - self.evidence.similarity, 0, 1)
        np.fill_diagonal(dissimilarity, 0)
        if len(dissimilarity) == 1:
            return np.zeros(1, int), method
        cuts = canonical(cut_tree(linkage(squareform(dissimilarity, checks=False), method)).T)
        return self._best(cuts[cuts.max(axis=1) < self.limit], method)

    def _best(self, partitions: np.ndarray, method: str) -> tuple[np.ndarray, str]:
        """The partition of least expected loss; of many, among those that are best at the similarity matrix."""
        at_similarity = losses_at_similarity(self.evidence.similarity, partitions, self.loss)
        if self.loss.name in FROM_SIMILARITY or (self.loss.kernel, self.loss.expectation) == ("pairs", "all"):
            return partitions[np.argmin(at_similarity)], method
        clusters = self.evidence.clusters
        most = CANDIDATE_WORK / (clusters.members.size * (1 + partitions.max(axis=1).mean()))
        ranked = partitions[np.argsort(at_similarity, kind="stable")[: max(CANDIDATES, int(most))]]
        return ranked[np.argmin(expected_losses(clusters, ranked, self.loss))], method


def _fill(at: SearchState, labels: np.ndarray) -> None:
    """Put every observation where the canonical `labels` say."""
    for i, k in enumerate(labels):
        at.observe(i)
        at.put(i, int(k), at.gains(i))


def _allocate(at: SearchState, order: np.ndarray, limit: int) -> None:
    """Put observations that are out where they cost least, one after the other."""
    for i in order:
        at.observe(i)
        gains = at.gains(i)
        at.put(i, int(np.argmin(at.costs(gains)[:limit])), gains)


def _sweep(at: SearchState, order: np.ndarray, limit: int) -> bool:
    """Reallocate the observations, one after the other. True where one has moved, which lowers the expected loss."""
    moved = False
    for i in order:
        own, gains = at.take(i)
        costs = at.costs(gains)
        best = int(np.argmin(costs[:limit]))
        if costs[best] < costs[own] - slack(costs[own]):
            moved = True
        else:
            best = own
        at.put(i, best, gains)
    return moved


def _descend(at: SearchState, limit: int, rng: np.random.Generator) -> None:
    """Sweep until nothing moves."""
    for _ in range(MAX_SWEEPS):
        if not _sweep(at, rng.permutation(at.movable(limit)), limit):
            break


def _zealous(at: SearchState, limit: int, attempts: int, rng: np.random.Generator) -> bool:
    """Destroy a cluster and allocate its members anew; undo it where that does not help. True at the first success."""
    _, first = np.unique(at.labels, return_index=True)
    value = at.value()
    for of in rng.permutation(first)[:attempts]:
        members = rng.permutation(np.flatnonzero(at.labels == at.labels[of]))
        for i in members:
            at.take(i)
            at.forget(i)
        _allocate(at, members, limit)
        if at.value() < value - slack(value):
            return True
        _gather(at, members)
    return False


def _gather(at: SearchState, members: np.ndarray) -> None:
    """Make `members` one cluster again."""
    for i in members:
        at.take(i)
    k = at.num
    for i in members:
        at.put(i, k, at.gains(i))
