"""The truth for a handful of points: every partition, or every labelled allocation, with its posterior probability.

A cluster's parameters are integrated out by conjugacy, so that its evidence depends on the set of its points alone: the
2^n sets are evaluated once, and a partition or an allocation is a sum of table entries. (Where clusters share one
covariance, what is summed is their scatter.) The concentration is fixed or
integrated out by quadrature. All numbers are float64 by numpy's own arithmetic.
"""

import dataclasses
import math

import numpy as np
from scipy.special import gammaln, multigammaln  # pyright: ignore[reportAttributeAccessIssue]  # not annotated
from scipy.special import logsumexp as scipy_logsumexp

from ..densities import concentration as prior_of
from ..densities import conjugate
from ..densities.base_measure import is_tied
from ..densities.concentration import Concentration
from ..densities.gaussian import BaseMeasure
from ..errors import InputError, above
from ..model.posterior import Conjugate, Posterior

LARGEST = 10
"""Points of which all partitions are taken: Bell(10) = 115,975."""
ALLOCATIONS = 2_000_000
"""Largest number K^n of labelled allocations."""
COUNTS = 2_000_000
"""Largest number of different counts ``(n_1, .., n_K)``, times K."""
AT_A_TIME = 10_000_000
"""Numbers held at a time, over counts, components and nodes of the concentration."""


@dataclasses.dataclass(frozen=True, eq=False)
class Partitions:
    """Posterior over all partitions of n points under the untruncated Dirichlet process.

    labels: ``(P, n)``, by first appearance. log_prior, log_posterior: ``(P,)``, normalised, nats. log_evidence: of the
    data, nats. num_clusters: ``(n + 1,)``, probability of k clusters at entry k. similarity: ``(n, n)``, probability of
    sharing a cluster. predictive: ``(G,)``, density of the next point at each of the points `at`, ``(G, D)``.
    """

    labels: np.ndarray
    log_prior: np.ndarray
    log_posterior: np.ndarray
    log_evidence: float
    num_clusters: np.ndarray
    similarity: np.ndarray
    at: np.ndarray
    predictive: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Allocations:
    """Posterior over all K^n labelled allocations of a truncated or finite mixture.

    labels: ``(K^n, n)``. component: ``(n, K)``, probability that point i is in component k. partitions: the same posterior
    with labels forgotten, over all partitions of n points, those of more than K clusters having probability zero.
    Everything else as in `Partitions`.
    """

    labels: np.ndarray
    log_prior: np.ndarray
    log_posterior: np.ndarray
    log_evidence: float
    component: np.ndarray
    partitions: Partitions


@dataclasses.dataclass(frozen=True)
class Truncation:
    """Truncated against full process, over partitions. Distances are total variations, ``sum |p - q| / 2``.

    bound: ``4 N exp(-(K - 1) / a)``, averaged over the prior of a (Ishwaran & James 2001, theorem 2): it bounds, to
    leading order, the L1 distance between the two densities of the DATA, not that between posteriors.
    """

    prior_distance: float
    posterior_distance: float
    bound: float


def partitions(posterior: Posterior, *, concentration: float | None = None, at: np.ndarray | None = None) -> Partitions:
    """Exact posterior of every partition, under the Chinese restaurant process and the posterior's base measure.

    ``p(partition | x) ~ E_a[Gamma(a) / Gamma(a + n) a^k] prod_c Gamma(n_c) m(x_c)``, with ``m`` a cluster's evidence and
    the expectation over the posterior's prior of a, or at the value `concentration`. The truncation plays no role.
    Sources: Antoniak (1974); Escobar & West (1995). Raises `InputError` for more than 10 points, weighted points, a model
    without a conjugate prior, or one whose weights are not those of a Dirichlet process.
    """
    points, prior = _checked(posterior)
    if prior.weights != "sticks":
        raise InputError(
            f"model {posterior.name}: no Dirichlet process, but a finite mixture; give exact.allocations it"
        )
    n, at = len(points), _at(posterior, at)
    labels = all_partitions(n)
    sets = Sets(points, prior, at)
    members = sets.of(labels, n)
    full = members > 0
    k = full.sum(axis=1)
    log_crp = _log_crp(_prior(prior, concentration), n)
    log_prior = log_crp[n][k] + np.where(full, gammaln(np.maximum(sets.sizes, 1))[members], 0.0).sum(axis=1)
    # A seat at a table is a ratio of priors, of n + 1 points to n: the concentration is integrated out of both.
    beside = np.where(full, sets.sizes[members] * np.exp(log_crp[n + 1][k] - log_crp[n][k])[:, None], 0.0)
    alone = np.exp(log_crp[n + 1][k + 1] - log_crp[n][k])
    return _partitions(labels, log_prior, sets, members, beside, alone)


def allocations(
    posterior: Posterior, *, concentration: float | None = None, at: np.ndarray | None = None
) -> Allocations:
    """Exact posterior of every labelled allocation of a mixture with ``truncation`` = K components.

    The prior of an allocation with counts ``n_k``, given a, is ``prod_{k<K} B(1 + n_k, a + sum_{j>k} n_j) / B(1, a)`` under
    sticks and ``Gamma(a) / Gamma(a + n) prod_k Gamma(n_k + a/K) / Gamma(a/K)`` under a symmetric Dirichlet; a is integrated
    out, or fixed at `concentration`. Raises `InputError` for more than 10 points, weighted points, a model without a
    conjugate prior, and where K^n exceeds 2,000,000 or K times the number of different counts does.
    """
    points, prior = _checked(posterior)
    n, num_components, at = len(points), int(posterior.options["truncation"]), _at(posterior, at)
    if num_components**n > ALLOCATIONS or num_components * math.comb(n + num_components - 1, n) > COUNTS:
        raise InputError(
            f"{num_components}^{n} labelled allocations are too many: at most {ALLOCATIONS:,} are enumerated, and fewer of"
            " few points in many components; give fewer points or a smaller truncation"
        )
    labels = np.stack(np.unravel_index(np.arange(num_components**n), (num_components,) * n), axis=1)
    labels = labels.astype(np.min_scalar_type(num_components - 1))
    sets = Sets(points, prior, at)
    members = sets.of(labels, num_components)
    log_prior, seats = _labelled_prior(sets.sizes[members], prior.weights, _prior(prior, concentration))
    log_joint = log_prior + sets.log_evidence(members)
    log_evidence = float(logsumexp(log_joint))
    probability = np.exp(log_joint - log_evidence)
    component = np.stack([probability @ (labels == k) for k in range(num_components)], axis=1)
    return Allocations(
        labels, log_prior, log_joint - log_evidence, log_evidence, component,
        _forget_labels(labels, log_prior, sets, members, seats),
    )  # fmt: skip


def truncation(posterior: Posterior, *, concentration: float | None = None) -> Truncation:
    """How far the truncated posterior of partitions is from that of the full process.

    Raises `InputError` as `partitions` and `allocations` do.
    """
    full = partitions(posterior, concentration=concentration)
    short = allocations(posterior, concentration=concentration).partitions
    prior = _prior(_checked(posterior)[1], concentration)
    distance = lambda p, q: float(0.5 * np.abs(np.exp(p) - np.exp(q)).sum())
    n, num_components = full.labels.shape[1], int(posterior.options["truncation"])
    return Truncation(
        distance(full.log_prior, short.log_prior),
        distance(full.log_posterior, short.log_posterior),
        ishwaran_james_bound(n, num_components, prior),
    )


def ishwaran_james_bound(num_points: int, num_components: int, concentration: Concentration | float) -> float:
    """``E_a[4 N exp(-(K - 1) / a)]``, a fixed or under its prior. Source: Ishwaran & James (2001), theorem 2."""
    a, log_weights = prior_of.nodes(concentration, num_points)
    return float(4 * num_points * np.exp(log_weights - (num_components - 1) / a).sum())


def all_partitions(n: int) -> np.ndarray:
    """All partitions of n points, labels by first appearance (restricted growth strings), ``(Bell(n), n)`` int8."""
    labels = np.zeros((1, 1), np.int8)
    for _ in range(n - 1):
        choices = labels.max(axis=1) + 2
        rows = np.repeat(np.arange(len(labels)), choices)
        new = np.arange(len(rows)) - np.repeat(np.cumsum(choices) - choices, choices)
        labels = np.column_stack([labels[rows], new.astype(np.int8)])
    return labels


class Sets:
    """All 2^n sets of the points, a set being a bit mask, and what each brings to the evidence of a partition.

    sizes: ``(2^n,)``; scatter: ``(2^n, B, d, d)``, what a set adds to Psi (`conjugate.scatter`); of_mean: ``(2^n,)``, what
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
        self.scatter, self.of_mean = self._seen(counts, sums, squares)
        more = counts[:, None] + 1, sums[:, None] + y, squares[:, None] + self._product(y)
        self.scatter_with, self.of_mean_with = self._seen(*more)
        self.log_marginals = self._of_covariance(counts, self.scatter) + self.of_mean
        self.predictive = np.exp(
            self._of_covariance(more[0], self.scatter_with) + self.of_mean_with - self.log_marginals[:, None]
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
        return self._of_covariance(self.sizes[members].sum(axis=1), total) + self.of_mean[members].sum(axis=1)

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
            more = self._of_covariance(n[:, None] + 1, with_point) + self.of_mean_with[column]
            now = self._of_covariance(n, total) + self.of_mean[column]
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
        of_mean = 0.5 * sums.shape[-1] * (np.log(self.base.kappa / kappa) - counts * np.log(np.pi))
        return squares - outer / kappa[..., None, None, None], of_mean

    def _of_covariance(self, counts: np.ndarray, scatter: np.ndarray) -> np.ndarray:
        """What the covariance brings: `conjugate.log_evidence` in numpy, by determinants, as a second statement."""
        blocks, size, repeats = conjugate.shape_of(self.base)
        df, lower = self.base.df, self.base.scale_tril
        more, prior = df + repeats * counts, lower @ np.swapaxes(lower, -1, -2)
        log_det = lambda matrix: np.linalg.slogdet(matrix)[1].sum(axis=-1)
        of_gammas = multigammaln(0.5 * more, size) - multigammaln(0.5 * df, size)
        return blocks * of_gammas + 0.5 * (df * log_det(prior) - more * log_det(prior + scatter))


def logsumexp(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """scipy's, whose annotation allows for a pair that is only returned with signs."""
    return np.asarray(scipy_logsumexp(values, axis=axis))


def _log_crp(prior: Concentration | float, n: int) -> dict[int, np.ndarray]:
    """``log E_a[a^k Gamma(a) / Gamma(a + m)]`` at entry k = 0 .. n + 1, for m = n and m = n + 1."""
    a, log_weights = prior_of.nodes(prior, n)
    k = np.arange(n + 2)[:, None]
    return {m: logsumexp(log_weights + k * np.log(a) + gammaln(a) - gammaln(a + m), axis=1) for m in (n, n + 1)}


def _labelled_prior(counts: np.ndarray, weights: str, prior: Concentration | float) -> tuple[np.ndarray, np.ndarray]:
    """Log prior of allocations with these counts, ``(Z,)``, and the weights they let expect, ``(Z, K)``."""
    different, which = np.unique(counts, axis=0, return_inverse=True)
    a, log_nodes = prior_of.nodes(prior, int(counts[0].sum()))
    given, log_prior, expected = {"sticks": _sticks, "dirichlet": _dirichlet}[weights], [], []
    for some in np.array_split(different, -(-different.size * len(a) // AT_A_TIME)):
        log_given, mean = given(some, a)
        log_prior.append(logsumexp(log_nodes + log_given, axis=1))
        of_a = np.exp(log_nodes + log_given - log_prior[-1][:, None])
        expected.append((mean @ of_a[:, :, None])[:, :, 0])
    return np.concatenate(log_prior)[which], np.concatenate(expected)[which]


def _sticks(counts: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log prior of allocations with counts ``(U, K)`` under truncated sticks, at every a, ``(U, Q)``, and mean weights.

    A product of Beta functions. Given counts and a, sticks are ``Beta(1 + n_k, a + sum_{j>k} n_j)``, and the mean weights,
    ``(U, K, Q)``, products of their means.
    """
    here, after = counts[:, :-1], (counts[:, ::-1].cumsum(axis=1)[:, ::-1] - counts)[:, :-1]
    log_gamma = gammaln(a + np.arange(counts[0].sum() + 2)[:, None])
    of_beta = np.log(a) + log_gamma[after] - log_gamma[1 + here + after]
    log_prior = of_beta.sum(axis=1) + gammaln(1 + here).sum(axis=1, keepdims=True)
    v = (1 + here)[:, :, None] / (1 + a + (here + after)[:, :, None])
    one = np.ones((len(counts), 1, len(a)))
    return log_prior, np.concatenate([v, one], axis=1) * np.concatenate([one, np.cumprod(1 - v, axis=1)], axis=1)


def _dirichlet(counts: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same under ``Dirichlet(a/K, .., a/K)`` weights."""
    share, n = a / counts.shape[1], counts[0].sum()
    log_gamma = gammaln(share + np.arange(n + 1)[:, None])
    log_prior = gammaln(a) - gammaln(a + n) + (log_gamma[counts] - log_gamma[0]).sum(axis=1)
    return log_prior, (counts[:, :, None] + share) / (n + a)


def _forget_labels(labels, log_prior, sets: Sets, members, seats) -> Partitions:
    """Sums over the labellings of every partition. Seats: expected weights of the components, ``(Z, K)``."""
    n = labels.shape[1]
    every = all_partitions(n)
    code = lambda rows: rows.astype(int) @ n ** np.arange(n)
    order = np.argsort(code(every))
    which = order[np.searchsorted(code(every)[order], code(_by_appearance(labels)))]
    total = lambda values: np.bincount(which, values, len(every))
    prior = total(np.exp(log_prior))
    occupied = sets.of(every, n)
    beside = np.zeros(occupied.shape)
    safe = np.where(prior > 0, prior, 1.0)
    for c in range(n):
        here = (members == occupied[which, c][:, None]) & (members > 0)
        beside[:, c] = total(np.exp(log_prior) * (seats * here).sum(axis=1)) / safe
    with np.errstate(divide="ignore"):
        return _partitions(every, np.log(prior), sets, occupied, beside, 1 - beside.sum(axis=1))


def _by_appearance(labels: np.ndarray) -> np.ndarray:
    """Labels 0, 1, ... by first appearance in each row."""
    same = labels[:, :, None] == labels[:, None, :]
    first = same.argmax(axis=2)
    fresh = first == np.arange(labels.shape[1])
    return np.take_along_axis(fresh.cumsum(axis=1) - 1, first, axis=1)


def _partitions(labels, log_prior, sets: Sets, members, beside, alone) -> Partitions:
    """Everything that follows from the prior: `beside` and `alone` are the probabilities of the next point's seats."""
    log_joint = log_prior + sets.log_evidence(members)
    log_evidence = float(logsumexp(log_joint))
    probability = np.exp(log_joint - log_evidence)
    n = labels.shape[1]
    # One column more for the new cluster: a set that is empty so far.
    sets_and_none = np.pad(members, ((0, 0), (0, 1)))
    seats = np.column_stack([beside * (members > 0), alone])
    similarity = np.array([[probability @ (labels[:, i] == labels[:, j]) for j in range(n)] for i in range(n)])
    return Partitions(
        labels=labels,
        log_prior=log_prior,
        log_posterior=log_joint - log_evidence,
        log_evidence=log_evidence,
        num_clusters=np.bincount(labels.max(axis=1) + 1, probability, n + 1),
        similarity=similarity,
        at=sets.at,
        predictive=sets.density(sets_and_none, seats, probability),
    )


def _checked(posterior: Posterior) -> tuple[np.ndarray, Conjugate]:
    """Points and conjugate prior, or an `InputError`."""
    prior, data = posterior.conjugate, posterior.data
    if prior is None or prior.hyperprior is not None:
        raise InputError(f"model {posterior.name}: exact answers need a conjugate prior with a fixed base measure")
    if data.size > LARGEST:
        raise InputError(f"{data.name}: {data.size} points are too many to enumerate; give at most {LARGEST}")
    if (data.weights != 1).any():
        raise InputError(f"{data.name}: exact answers need points of weight 1; repeat points instead of weighting them")
    return data.points, prior


def _prior(prior: Conjugate, concentration: float | None) -> Concentration | float:
    if concentration is not None:
        above(0, concentration=concentration)
    return prior.concentration if concentration is None else float(concentration)


def _at(posterior: Posterior, at: np.ndarray | None) -> np.ndarray:
    """Points of the predictive density, ``(G, D)``; by default the data themselves."""
    data = posterior.data
    points = data.points if at is None else np.asarray(at, float)
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2 or points.shape[1] != data.dim:
        raise InputError(f"at has shape {points.shape}; give points of shape (G, {data.dim})")
    return points
