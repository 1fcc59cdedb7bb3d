"""All sets of a few points, and what each brings to the evidence of a partition."""

import numpy as np
from scipy.special import multigammaln  # pyright: ignore[reportAttributeAccessIssue]  # not annotated

from ..densities import conjugate
from ..densities.base_measure import is_tied
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Conjugate


class Sets:
    """All 2^n sets of the points, a set being a bit mask, and what each brings to the evidence of a partition.

    sizes: ``(2^n,)``; scatter: ``(2^n, B, d, d)``, what a set adds to Psi (`conjugate.scatter`); mean_term: ``(2^n,)``, what
    its mean brings, ``D/2 (log kappa/kappa_n - n log pi)``. The same with each of the points `at` added, ``(2^n, G, ..)``.
    """

    def __init__(self, points: np.ndarray, prior: Conjugate, at: np.ndarray):
        n = len(points)
        inside = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)
        self.base = BaseMeasure(*(np.asarray(leaf, float) for leaf in prior.base))  # pyright: ignore[reportArgumentType]
        self.tied, self.at = is_tied(prior.covariance), at
        x, y = points - self.base.mean, at - self.base.mean
        self.sizes = inside.sum(axis=1).astype(int)
        counts, sums, squares = inside.sum(axis=1), inside @ x, np.tensordot(inside, self._product(x), axes=1)
        self.scatter, self.mean_term = self._seen(counts, sums, squares)
        more = counts[:, None] + 1, sums[:, None] + y, squares[:, None] + self._product(y)
        self.scatter_with, self.mean_term_with = self._seen(*more)
        self.log_marginals = self._of_covariance(counts, self.scatter) + self.mean_term
        self.predictive = np.exp(
            self._of_covariance(more[0], self.scatter_with) + self.mean_term_with - self.log_marginals[:, None]
        )

    def of(self, labels: np.ndarray, num_labels: int) -> np.ndarray:
        """Set of every label in every row, ``(P, n)`` to ``(P, num_labels)``; set 0 is the empty one."""
        bits = 1 << np.arange(labels.shape[1])
        return np.stack([(labels == k) @ bits for k in range(num_labels)], axis=1)

    def log_evidence(self, members: np.ndarray) -> np.ndarray:
        """Log evidence of partitions into these sets, ``(P, C)`` to ``(P,)``."""
        if not self.tied:
            return self.log_marginals[members].sum(axis=1)
        total = self._total(members)
        return self._of_covariance(self.sizes[members].sum(axis=1), total) + self.mean_term[members].sum(axis=1)

    def density(self, members: np.ndarray, seats: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Density of the next point at each of the points `at`, ``(G,)``.

        seats: ``(P, C)``, probability that it joins each set of a partition, set 0 being a new cluster.
        """
        if not self.tied:
            joins = np.bincount(members.ravel(), (probability[:, None] * seats).ravel(), len(self.sizes))
            return joins @ self.predictive
        total = self._total(members)
        n, found = self.sizes[members].sum(axis=1), np.zeros(len(self.at))
        for column, seat in zip(members.T, seats.T, strict=True):
            with_point = total[:, None] - self.scatter[column][:, None] + self.scatter_with[column]
            more = self._of_covariance(n[:, None] + 1, with_point) + self.mean_term_with[column]
            now = self._of_covariance(n, total) + self.mean_term[column]
            found += (probability * seat) @ np.exp(more - now[:, None])
        return found

    def _total(self, members: np.ndarray) -> np.ndarray:
        """Scatter of all clusters of a partition, ``(P, C)`` to ``(P, B, d, d)``."""
        total = np.zeros((len(members), *self.scatter.shape[1:]))
        for column in members.T:
            total += self.scatter[column]
        return total

    def _product(self, x: np.ndarray) -> np.ndarray:
        """``sum_r x_r x_r^T`` block by block: ``(N, D)`` to ``(N, B, d, d)``."""
        blocks = x.reshape(len(x), *conjugate.shape_of(self.base))
        return blocks @ np.swapaxes(blocks, -1, -2)

    def _seen(self, counts: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scatter about the posterior mean, and what the mean brings."""
        kappa = self.base.kappa + counts
        outer = self._product(sums.reshape(-1, sums.shape[-1])).reshape(squares.shape)
        mean_term = 0.5 * sums.shape[-1] * (np.log(self.base.kappa / kappa) - counts * np.log(np.pi))
        return squares - outer / kappa[..., None, None, None], mean_term

    def _of_covariance(self, counts: np.ndarray, scatter: np.ndarray) -> np.ndarray:
        """What the covariance brings: `conjugate.log_evidence` in numpy, by determinants, as a second statement."""
        blocks, size, repeats = conjugate.shape_of(self.base)
        df, lower = self.base.df, self.base.scale_tril
        more, prior = df + repeats * counts, lower @ np.swapaxes(lower, -1, -2)
        log_det = lambda matrix: np.linalg.slogdet(matrix)[1].sum(axis=-1)
        gammas_term = multigammaln(0.5 * more, size) - multigammaln(0.5 * df, size)
        return blocks * gammas_term + 0.5 * (df * log_det(prior) - more * log_det(prior + scatter))
