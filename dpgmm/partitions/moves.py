"""A partition under search: one observation is taken out or put in, and the expected loss of every choice is known.

The sums A and S of `losses` change by one look-up a draw when an observation moves, so that a move costs O(T K) and not a
new contingency table. `Tables` keeps the overlaps with every distinct cluster of the draws; `Pairs` needs the similarity
matrix alone, O(K) a move, and so does `Bound`, O(n).
"""

import numpy as np
import scipy.sparse

from .losses import Loss
from .similarity import DistinctClusters, Draws, draws_of

TOLERANCE = 1e-12
"""A smaller decrease of the expected loss, relative to 1 + loss, is rounding and no reason to move."""


def slack(loss):
    """What two equal expected losses may differ by."""
    return TOLERANCE * (1 + np.abs(loss))


class Evidence:
    """What all searches under the same draws read, made once.

    draws: in canonical form. clusters: their distinct clusters. similarity: ``(n, n)``. distinct: for every observation,
    the distinct clusters that hold it and the share of draws that have each; weighted: the same, sparse ``(n, U)``.
    of_observation: ``(n, T)``, the distinct cluster that holds it.
    """

    def __init__(self, allocations: np.ndarray | Draws):
        self.draws = draws_of(allocations)
        self.clusters, self.size, self.similarity = DistinctClusters(self.draws), self.draws.size, self.draws.similarity
        columns = [np.flatnonzero(column) for column in self.clusters.members.T]
        self.distinct = [(c, self.clusters.weights[c]) for c in columns]
        index, ends = np.concatenate(columns), np.cumsum([0, *map(len, columns)])
        self.weighted = scipy.sparse.csr_array(
            (self.clusters.weights[index], index, ends), shape=(self.size, len(self.clusters.weights))
        )
        self.of_observation = np.ascontiguousarray(self.clusters.index.T.astype(np.intp))


class SearchState:
    """DistinctClusters 0 ... K - 1 of the observations that are in; cluster K is the empty one, where a new cluster begins.

    labels: ``(n,)``, -1 for an observation that is out. sizes: of the clusters. a, b, s: the sums A, B and S, where B and S
    are one number a draw or their averages. seen: how many observations the draws are compared on.
    """

    def __init__(self, evidence: Evidence, loss: Loss):
        self.evidence, self.loss = evidence, loss
        self.steps = np.diff(loss.table(evidence.size + 1))
        self.labels = np.full(evidence.size, -1)
        self.sizes = np.zeros(8, np.intp)
        self.num = self.seen = 0
        self.a, self.b, self.s = 0.0, 0.0, 0.0

    def observe(self, i: int) -> None:
        """From now on the loss is over observation i too."""
        self.seen += 1
        self._see(i, 1)

    def forget(self, i: int) -> None:
        """From now on the loss is over the others only; i must be out."""
        self.seen -= 1
        self._see(i, -1)

    def take(self, i: int) -> tuple[int, np.ndarray]:
        """Take i out. Returns where it came from, the empty cluster if it was alone, and the `gains` of putting it back."""
        k = self.labels[i]
        self.labels[i] = -1
        self.sizes[k] -= 1
        self.a -= self.steps[self.sizes[k]]
        self._shift(i, k, -1)
        if not self.sizes[k]:
            self._close(k)
            k = self.num
        gains = self.gains(i)
        self.s = self.s - gains[k]
        return k, gains

    def costs(self, gains: np.ndarray) -> np.ndarray:
        """Expected loss where the observation is put into each cluster, the empty one last: ``(K + 1,)``."""
        a = self.a + self.steps.take(self.sizes[: self.num + 1])
        return self._mean_value(a, self.s + gains)

    def put(self, i: int, k: int, gains: np.ndarray) -> None:
        """Put i into cluster k; `gains` are those of i."""
        if k == self.num:
            self.num += 1
            if self.num == len(self.sizes):
                self._grow()
        self.s = self.s + gains[k]
        self.a += self.steps[self.sizes[k]]
        self.sizes[k] += 1
        self.labels[i] = k
        self._shift(i, k, 1)

    def movable(self, limit: int) -> np.ndarray:
        """Observations that lower the loss by moving from the partition as it stands, all in; or all, where that is cheaper.

        A move of one may make others movable, or keep them from it: they are asked again.
        """
        gains = self.all_gains()
        if gains is None:
            return np.arange(len(self.labels))
        everyone, own = np.arange(len(self.labels)), self.labels
        a = self.a - self.steps[self.sizes[own] - 1][:, None] + self.steps[self.sizes[: self.num + 1]]
        a[everyone, own] = self.a
        costs = self.loss.value(a, self.b, self.s + gains - gains[everyone, own][:, None], self.seen)
        here = costs[everyone, own]
        return np.flatnonzero(costs[:, :limit].min(axis=1) < here - slack(here))

    def all_gains(self) -> np.ndarray | None:
        """`gains` of every observation as if it alone were out, ``(n, K + 1)``; None where there is no fast way."""
        return None

    def value(self) -> float:
        """Expected loss of the partition as it stands."""
        return float(self._mean_value(np.array([self.a]), np.asarray(self.s)[None])[0])

    def gains(self, i: int) -> np.ndarray:
        """What S gains where i, which is out, is put into each cluster, the empty one last."""
        raise NotImplementedError

    def _mean_value(self, a: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Mean over draws; `a` is (K,), `s` (K,) or (K, T)."""
        if self.loss.expectation in ("all", "bound"):
            return self.loss.value(a, self.b, s, self.seen)
        values = self.loss.value(a[:, None], self.b, s.reshape(len(a), -1), self.seen)
        return values.sum(axis=1) / values.shape[1]

    def _close(self, k: int) -> None:
        """The last cluster takes the place of the emptied one."""
        self.num -= 1
        last = self.num
        self.labels[self.labels == last] = k
        for rows in (self.sizes, *self._rows()):
            rows[k] = rows[last]
            rows[last] = 0

    def _grow(self) -> None:
        self.sizes = np.concatenate([self.sizes, np.zeros_like(self.sizes)])

    def _rows(self) -> tuple[np.ndarray, ...]:
        """Arrays with one row a cluster; the rows of empty clusters are zero."""
        raise NotImplementedError

    def _shift(self, i: int, k: int, sign: int) -> None:
        raise NotImplementedError

    def _see(self, i: int, sign: int) -> None:
        raise NotImplementedError


class Tables(SearchState):
    """For every loss that sums over the draws' own clusters.

    counts: ``(K, U)``, overlaps of the clusters here with the distinct clusters of the draws. ahead: ``f(m + 1) - f(m)`` of
    those, so that a gain is one look-up. seen_counts: ``(U,)``, how much of the distinct clusters has been seen.
    """

    def __init__(self, evidence: Evidence, loss: Loss):
        super().__init__(evidence, loss)
        clusters = evidence.clusters
        self.counts = np.zeros((len(self.sizes), len(clusters.weights)), np.intp)
        self.ahead = np.zeros(self.counts.shape)
        self.seen_counts = np.zeros(len(clusters.weights), np.intp)
        self.by_draw = loss.expectation == "draws"
        if loss.expectation != "all":
            self.b = np.zeros(len(clusters.index))
        if self.by_draw:
            self.s = np.zeros(len(clusters.index))

    def gains(self, i: int) -> np.ndarray:
        """``(K + 1, T)`` where every draw counts by itself, otherwise the mean over draws ``(K + 1,)``."""
        rows = self.ahead[: self.num + 1]
        if self.by_draw:
            return rows.take(self.evidence.of_observation[i], axis=1)
        columns, weights = self.evidence.distinct[i]
        # Not a matrix product: its threads would fight with those of the search.
        return np.einsum("ku,u->k", rows.take(columns, axis=1), weights)

    def all_gains(self) -> np.ndarray | None:
        """By two sparse products: with the look-ups of all clusters, and with those that look back from one's own."""
        if self.loss.expectation != "all":
            return None
        of, own = self.evidence.weighted, self.labels
        found = of @ np.ascontiguousarray(self.ahead[: self.num + 1].T)
        for k in range(self.num):
            members = np.flatnonzero(own == k)
            found[members, k] = of[members] @ self.steps.take(np.maximum(self.counts[k] - 1, 0))
        return found

    def _shift(self, i: int, k: int, sign: int) -> None:
        columns, _ = self.evidence.distinct[i]
        counts = self.counts[k].take(columns) + sign
        self.counts[k][columns] = counts
        self.ahead[k][columns] = self.steps.take(counts)

    def _see(self, i: int, sign: int) -> None:
        columns, weights = self.evidence.distinct[i]
        if sign < 0:
            self.seen_counts[columns] -= 1
        if self.loss.expectation == "all":
            gain = (weights * self.steps.take(self.seen_counts.take(columns))).sum()
        else:
            gain = self.steps.take(self.seen_counts.take(self.evidence.of_observation[i]))
        self.b = self.b + sign * gain
        if sign > 0:
            self.seen_counts[columns] += 1

    def _rows(self) -> tuple[np.ndarray, ...]:
        return self.counts, self.ahead

    def _grow(self) -> None:
        super()._grow()
        self.counts = np.concatenate([self.counts, np.zeros_like(self.counts)])
        self.ahead = np.concatenate([self.ahead, np.zeros_like(self.ahead)])


class Pairs(SearchState):
    """For losses on pairs that are exact, or approximated, from the similarity matrix p.

    sums: ``(K, n)``, ``sum_{j in k} p_ij`` of every observation i and cluster k.
    """

    def __init__(self, evidence: Evidence, loss: Loss):
        super().__init__(evidence, loss)
        self.similarity = evidence.similarity
        self.sums = np.zeros((len(self.sizes), evidence.size))
        self.observed = np.zeros(evidence.size, bool)

    def gains(self, i: int) -> np.ndarray:
        """Expected number of members of each cluster that share one with i, ``(K + 1,)``."""
        return self.sums[: self.num + 1, i].copy()

    def all_gains(self) -> np.ndarray:
        """The sums as they are, less the observation itself."""
        found = self.sums[: self.num + 1].T.copy()
        found[np.arange(len(found)), self.labels] -= 1
        return found

    def _shift(self, i: int, k: int, sign: int) -> None:
        if sign > 0:
            self.sums[k] += self.similarity[i]
        elif self.sizes[k]:
            self.sums[k] -= self.similarity[i]
        else:
            self.sums[k] = 0.0  # to the last bit, as the row of an empty cluster must be

    def _see(self, i: int, sign: int) -> None:
        self.observed[i] = False
        self.b += sign * float(self.similarity[i] @ self.observed)
        self.observed[i] = sign > 0

    def _rows(self) -> tuple[np.ndarray, ...]:
        return (self.sums,)

    def _grow(self) -> None:
        super()._grow()
        self.sums = np.concatenate([self.sums, np.zeros_like(self.sums)])


class Bound(Pairs):
    """For the lower bound of the variation of information, where ``S = sum_i log2 sum_{j in k(i)} p_ij``."""

    def __init__(self, evidence: Evidence, loss: Loss):
        super().__init__(evidence, loss)
        self.b = float(np.log2(self.similarity.sum(axis=1)).sum())

    def gains(self, i: int) -> np.ndarray:
        """The members' terms grow, and that of i comes in: ``(K + 1,)``."""
        inside = np.flatnonzero(self.labels >= 0)
        inside = inside[inside != i]
        of = self.labels[inside]
        grown = np.log2(1 + self.similarity[i, inside] / self.sums[of, inside])
        own = np.log2(self.sums[: self.num + 1, i] + 1.0)
        return np.bincount(of, grown, minlength=self.num + 1) + own

    def all_gains(self) -> np.ndarray:
        """As `gains`; in one's own cluster, how much the others' terms shrink without one."""
        everyone, own = np.arange(len(self.labels)), self.labels
        terms = self.sums[own, everyone]
        same = own[:, None] == own
        np.fill_diagonal(same, False)
        others = self.similarity / np.where(same, terms - self.similarity, terms)
        np.fill_diagonal(others, 0)
        found = np.log2(1 + others) @ (own[:, None] == np.arange(self.num + 1))
        sums = self.sums[: self.num + 1].T.copy()
        sums[everyone, own] -= 1
        return found + np.log2(1 + np.maximum(sums, 0))

    def _see(self, i: int, sign: int) -> None:
        pass


def state(evidence: Evidence, loss: Loss) -> SearchState:
    """The cheapest state that is right for the loss."""
    if loss.expectation == "bound":
        return Bound(evidence, loss)
    return (Pairs if loss.kernel == "pairs" and loss.expectation == "all" else Tables)(evidence, loss)
