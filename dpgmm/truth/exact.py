"""The truth for a handful of points: every partition, or every labelled allocation, with its posterior probability.

A cluster's parameters are integrated out by conjugacy, so that its evidence depends on the set of its points alone: the
2^n sets are evaluated once, and a partition or an allocation is a sum of table entries. (Where clusters share one
covariance, what is summed is their scatter.) The concentration is fixed or
integrated out by quadrature. All numbers are float64 by numpy's own arithmetic.
"""

import dataclasses
import math

import numpy as np
from scipy.special import gammaln  # pyright: ignore[reportAttributeAccessIssue]  # not annotated
from scipy.special import logsumexp as scipy_logsumexp

from ..densities import concentration as prior_of
from ..densities.concentration import Concentration
from ..errors import InputError, above
from ..model.posterior import Conjugate, Posterior
from .sets import Sets

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
        concentration_term = np.exp(log_nodes + log_given - log_prior[-1][:, None])
        expected.append((mean @ concentration_term[:, :, None])[:, :, 0])
    return np.concatenate(log_prior)[which], np.concatenate(expected)[which]


def _sticks(counts: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log prior of allocations with counts ``(U, K)`` under truncated sticks, at every a, ``(U, Q)``, and mean weights.

    A product of Beta functions. Given counts and a, sticks are ``Beta(1 + n_k, a + sum_{j>k} n_j)``, and the mean weights,
    ``(U, K, Q)``, products of their means.
    """
    here, after = counts[:, :-1], (counts[:, ::-1].cumsum(axis=1)[:, ::-1] - counts)[:, :-1]
    log_gamma = gammaln(a + np.arange(counts[0].sum() + 2)[:, None])
    beta_term = np.log(a) + log_gamma[after] - log_gamma[1 + here + after]
    log_prior = beta_term.sum(axis=1) + gammaln(1 + here).sum(axis=1, keepdims=True)
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
