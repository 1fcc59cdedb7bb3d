"""Credible sub-partitions: the most observations whose clustering the draws agree on, with probability gamma (CHIPS)."""

import dataclasses

import numpy as np

from ..errors import InputError, at_least
from .similarity import Draws, canonical, draws_of, labels_of

OUT = -1
"""Label of an observation that a sub-partition leaves out."""
NEW = 0
"""Column of the counts for a cluster that the sub-partition does not have yet."""


@dataclasses.dataclass(frozen=True, eq=False)
class SubPartition:
    """A partition of some of the observations.

    partition: ``(n,)`` labels by first appearance, `OUT` for observations left out. probability: share of draws in which
    those inside are clustered exactly so, `gamma` or more. holds: ``(T,)`` bool, those draws.
    """

    partition: np.ndarray
    probability: float
    gamma: float
    holds: np.ndarray

    @property
    def size(self) -> int:
        """Number of observations inside."""
        return int((self.partition != OUT).sum())

    @property
    def num_clusters(self) -> int:
        return int(self.partition.max()) + 1


def holds(allocations: np.ndarray | Draws, partition: np.ndarray) -> np.ndarray:
    """In which draws ``(T, n)`` the observations inside the sub-partition ``(n,)`` are clustered exactly so: ``(T,)`` bool.

    Negative labels are outside. Raises `InputError` for labels that are not whole numbers or of another number.
    """
    draws, partition = draws_of(allocations), labels_of(partition, "partition", 1)
    if draws.size != len(partition):
        raise InputError(
            f"the sub-partition is of {len(partition)} observations and the draws are of {draws.size}; give the same ones"
        )
    inside = partition >= 0
    if not inside.any():
        return np.ones(len(draws.labels), bool)
    return (canonical(draws.labels[:, inside]) == canonical(partition[inside])).all(axis=1)


def subpartition(
    allocations: np.ndarray | Draws, gamma: float = 0.95, *, starts: int = 64, rounds: int = 64, seed: int = 0
) -> SubPartition:
    """The largest sub-partition that holds with probability `gamma` or more, as far as the search finds, for ``(T, n)``.

    A sub-partition is a subset S of the observations and a partition of it. Among those with

        share of draws whose restriction to S is that partition >= gamma

    the one with the most observations is taken, and of those the one with the largest probability. All partitions that
    extend it are a credible set of that probability. One observation alone always holds, with probability one.

    The search is greedy, as the paper's is (conditional high inclusion probability subsets): from one observation, it adds
    the observation, to one of its clusters or to a new one, that leaves the most draws, until none leaves enough. Of
    `starts` such runs, from different observations, the best goes through `rounds` of repair: some observations are
    dropped, one from outside may come in, and it grows again. Each run costs O(T n C) for C clusters.

    The largest of many probabilities, each a mean over draws, is an optimistic one where the draws are few.

    Source: Page, Barrientos, Dahl & Dunson 2025, Uncertainty Quantification in Bayesian Clustering, arXiv 2511.16040; the
    definition as in the manual of `chips` in R's salso. Repairs and ties are our own. Raises `InputError` for labels that
    are not whole numbers and options out of range.
    """
    draws = draws_of(allocations)
    if not 0 < gamma <= 1:
        raise InputError(f"gamma is {gamma!r}; give a probability in (0, 1]")
    at_least("subpartition", 1, starts=starts)
    at_least("subpartition", 0, rounds=rounds, seed=seed)
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(draws.labels, axis=0, return_counts=True)
    needed = int(np.ceil(gamma * len(draws.labels) - 1e-9))
    firsts = np.resize(rng.permutation(draws.size), starts)
    best = max((_grown(distinct, counts, needed, [int(i)], rng) for i in firsts), key=_Growth.value)
    for _ in range(rounds):
        best = max(best, _repaired(best, needed, rng), key=_Growth.value)
    partition = np.full(draws.size, OUT, np.int32)
    inside = best.cluster != OUT
    partition[inside] = canonical(best.cluster[inside])
    found = holds(draws, partition)
    return SubPartition(partition, float(found.mean()), float(gamma), found)


class _Growth:
    """A sub-partition that grows, the draws in which it holds so far, and what each further step would leave of them.

    cluster: ``(n,)``, 1, 2, ... in order of appearance, or `OUT`. alive: ``(R,)``, of the distinct draws.
    counts: ``(n, C + 1)``, draws left if i joined cluster c; in column `NEW`, a new one.
    """

    def __init__(self, labels: np.ndarray, weight: np.ndarray):
        self.labels, self.weight = labels, weight
        self.alive = np.ones(len(labels), bool)
        self.cluster = np.full(labels.shape[1], OUT)
        self.num = 0
        # The sub-partition's cluster that each label of each draw is: NEW while it has none.
        self.known = np.zeros((len(labels), int(labels.max()) + 1), np.int64)
        self.counts = np.zeros((labels.shape[1], self.known.shape[1] + 1), np.int64)
        self.counts[:, NEW] = weight.sum()

    def value(self) -> tuple[int, int]:
        """Observations inside, then draws in which it holds."""
        return int((self.cluster != OUT).sum()), int(self.weight[self.alive].sum())

    def best(self, among: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int]:
        """The step, one of `among`, that leaves the most draws, at random where several do: draws left, i, cluster."""
        options = self.counts[among]
        most = int(options.max(initial=0))
        rows, columns = np.nonzero(options == most)
        pick = rng.integers(len(rows))
        return most, int(among[rows[pick]]), int(columns[pick])

    def add(self, i: int, c: int) -> None:
        """Put i into cluster c, or into a new one, and let go the draws in which it is not there."""
        joins = np.take_along_axis(self.known, self.labels[:, i, None], axis=1)[:, 0]
        gone = np.flatnonzero(self.alive & (joins != c))
        self.alive[gone] = False
        left = np.take_along_axis(self.known[gone], self.labels[gone], axis=1)
        cells = np.arange(len(self.cluster)) * self.counts.shape[1] + left
        lost = np.bincount(cells.ravel(), np.repeat(self.weight[gone], len(self.cluster)), self.counts.size)
        self.counts -= lost.astype(np.int64).reshape(self.counts.shape)
        if c == NEW:
            self.num += 1
            c, of = self.num, np.flatnonzero(self.alive)
            own = self.labels[of, i]
            self.known[of, own] = c
            self.counts[:, c] = self.weight[of] @ (self.labels[of] == own[:, None])
            self.counts[:, NEW] -= self.counts[:, c]
        self.cluster[i] = c


def _grown(labels: np.ndarray, weight: np.ndarray, needed: int, first: list[int], rng: np.random.Generator) -> _Growth:
    """Greedy growth: the observations `first`, in that order where enough draws are left, then all others."""
    at = _Growth(labels, weight)
    for i in first:
        left, _, c = at.best(np.array([i]), rng)
        if left >= needed:
            at.add(i, c)
    while True:
        outside = np.flatnonzero(at.cluster == OUT)
        if not len(outside):
            return at
        left, i, c = at.best(outside, rng)
        if left < needed:
            return at
        at.add(i, c)


def _repaired(best: _Growth, needed: int, rng: np.random.Generator) -> _Growth:
    """None or one observation from outside first, then a random part of those inside, then greedy growth."""
    inside, outside = np.flatnonzero(best.cluster != OUT), np.flatnonzero(best.cluster == OUT)
    comes = rng.permutation(outside)[: rng.integers(2)]
    kept = rng.permutation(inside)[: rng.integers(len(inside))]
    return _grown(best.labels, best.weight, needed, [*map(int, comes), *map(int, kept)], rng)
