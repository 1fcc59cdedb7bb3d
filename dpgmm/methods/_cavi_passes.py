"""Passes of coordinate ascent over the points, and the bound that they climb.

q(allocations) q(weights) q(a) prod_k q(mu_k, Sigma_k), every factor the best for the others (Bishop 2006, section 10.2;
Blei & Jordan 2006). All of it follows from few numbers, which are the state: the components' expected counts, sums and
squares ``S_k = sum_n omega_n r_nk (1, x_n, x_n x_n^T)``, x measured from the base measure's mean, and ``log E a``. One pass
is one product of features ``(1, x, x x^T)`` with coefficients and one of the responsibilities back.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import digamma, multigammaln

from ..densities import base_measure, conjugate, gaussian, mixture
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Arrays, Conjugate
from . import _cavi_weights as weights


class Statistics(NamedTuple):
    """``counts (K,)``, ``sums (K, D)`` and ``squares (K, B, d, d)`` as in `dpgmm.conjugate.log_marginal`."""

    counts: Array
    sums: Array
    squares: Array


class State(NamedTuple):
    """The statistics that q(components) and q(weights) are made of, and the logarithm of the mean of a, ``()``."""

    statistics: Statistics
    log_mean: Array


def step(state: State, data: Arrays, prior: Conjugate) -> tuple[State, Array]:
    """One pass: new responsibilities, everything else given them; and the bound of the state BEFORE, nats.

    The bound with the best responsibilities, constants included: a lower bound of the log evidence. It never falls.
    """
    log_density, statistics = _allocated(state, data, prior)
    value = log_density + weights.bound(state.statistics.counts, state.log_mean, prior)
    value -= divergence(components(state, prior), prior)
    return State(statistics, weights.fitted(statistics.counts, state.log_mean, prior)), value


def elbo(state: State, data: Arrays, prior: Conjugate) -> Array:
    """The bound of a state, ``()``, nats."""
    return step(state, data, prior)[1]


def from_statistics(statistics: Statistics, prior: Conjugate) -> State:
    """The state of given statistics: q(weights) and q(a) are the best for the counts."""
    start = jnp.log(jnp.asarray(_prior_mean(prior), statistics.counts.dtype))
    return State(statistics, weights.fitted(statistics.counts, start, prior, 3 * weights.SECANTS))


def components(state: State, prior: Conjugate) -> BaseMeasure:
    """q(mu_k, Sigma_k), normal-inverse-Wishart with leading axes as `dpgmm.conjugate.update` has them."""
    return conjugate.update(*state.statistics, prior.base, base_measure.is_tied(prior.covariance))


def divergence(q: BaseMeasure, prior: Conjugate) -> Array:
    """Kullback-Leibler divergence of all components' q(mu, Sigma) from the base measure, ``()``, nats.

    ``1/2 (D (kappa/kappa_k - 1 - log kappa/kappa_k) + kappa |mu_k - m|^2_{E Sigma^-1})`` for the means, and for a block
    ``log c(df_n, Psi_n) - log c(df, Psi) - (df_n - df)/2 E log|Sigma| - df_n/2 (d - tr Psi Psi_n^{-1})`` with c the
    inverse-Wishart's normaliser.
    """
    base, size = prior.base, prior.base.scale_tril.shape[-1]
    df, log_det, precision = q.df[..., None], gaussian.log_determinant(q.scale_tril), _precision(q)
    shrunk = base.kappa / q.kappa
    away = conjugate.product(q.mean - base.mean, q.mean - base.mean, base)
    of_means = 0.5 * (
        base.mean.shape[-1] * (shrunk - 1 - jnp.log(shrunk)) + base.kappa * jnp.sum(precision * away, (-3, -2, -1))
    )
    prior_scale = base.scale_tril @ jnp.swapaxes(base.scale_tril, -1, -2)
    trace = jnp.sum(precision * prior_scale, axis=(-2, -1))
    of_blocks = (
        df * log_det
        - base.df * gaussian.log_determinant(base.scale_tril)
        - 0.5 * (df - base.df) * size * jnp.log(2.0)
        - multigammaln(0.5 * df, size)
        + multigammaln(0.5 * base.df, size)
        + 0.5 * (df - base.df) * _log_precision(q)
        - 0.5 * (df * size - trace)
    )
    return jnp.sum(of_means) + jnp.sum(of_blocks)


def coefficients(q: BaseMeasure, log_weights: Array, base: BaseMeasure) -> Array:
    """``(K, F)``, for ``E log w_k + E log N(x_n | mu_k, Sigma_k) = coefficients @ features``."""
    size, dim, repeats = base.scale_tril.shape[-1], base.mean.shape[-1], conjugate.shape_of(base)[2]
    precision, centre = _precision(q), conjugate.in_blocks(q.mean - base.mean, base)
    linear = conjugate.times(precision, centre)
    constant = log_weights + 0.5 * repeats * _log_precision(q).sum(-1)
    constant -= 0.5 * (dim * gaussian.LOG_2PI + dim / q.kappa + jnp.sum(linear * centre, axis=(-3, -2, -1)))
    rows, columns = jnp.tril_indices(size)
    squares = precision[..., rows, columns] * jnp.where(rows == columns, -0.5, -1.0)
    count = len(log_weights)
    squares = jnp.broadcast_to(squares, (count, *squares.shape[1:]))
    return jnp.concatenate([constant[:, None], linear.reshape(count, -1), squares.reshape(count, -1)], axis=1)


def features(points: Array, base: BaseMeasure) -> Array:
    """One, x, and the lower triangles of the blocks of ``x x^T``, x measured from the base's mean: ``(N, D)`` to ``(F, N)``.

    Measured from elsewhere, what two large squares leave of each other would lose digits.
    """
    x = points - base.mean
    rows, columns = jnp.tril_indices(base.scale_tril.shape[-1])
    squares = conjugate.product(x, x, base)[..., rows, columns]
    return jnp.concatenate([jnp.ones_like(x[:, :1]), x, squares.reshape(len(x), -1)], axis=1).T


def _allocated(state: State, data: Arrays, prior: Conjugate) -> tuple[Array, Statistics]:
    """``sum_n omega_n log sum_k exp(..)``, and the statistics of the responsibilities behind it."""
    rule, counts = weights.WEIGHTS[prior.weights], state.statistics.counts
    log_weights = rule.log_weights(counts, jnp.exp(state.log_mean))
    by = coefficients(components(state, prior), log_weights, prior.base)

    def some(by, points, omega):
        x = features(points, prior.base)
        joint = by @ x
        peak = jnp.max(joint, axis=0)
        likelihood = jnp.exp(joint - peak)
        total = jnp.sum(likelihood, axis=0)
        return omega @ (jnp.log(total) + peak), (likelihood * (omega / total)) @ x.T

    chunks = mixture._chunks(data.points, data.weights, len(counts))
    log_density, sums = mixture._accumulate(some, (by,), chunks)
    return log_density, _unpacked(sums, prior.base)


def _unpacked(sums: Array, base: BaseMeasure) -> Statistics:
    """Sums of `features`, ``(K, F)``, as statistics."""
    dim, (blocks, size, _) = base.mean.shape[-1], base.scale_tril.shape
    rows, columns = jnp.tril_indices(size)
    triangles = sums[:, 1 + dim :].reshape(len(sums), blocks, -1)
    squares = jnp.zeros((len(sums), blocks, size, size), sums.dtype)
    squares = squares.at[..., rows, columns].set(triangles).at[..., columns, rows].set(triangles)
    return Statistics(sums[:, 0], sums[:, 1 : 1 + dim], squares)


def _precision(q: BaseMeasure) -> Array:
    """``E Sigma^{-1} = df Psi^{-1}``, block by block."""
    inverse = gaussian.inverse(q.scale_tril)
    # No matrix product: under `vmap` it would have many batched axes.
    return q.df[..., None, None, None] * jnp.sum(inverse[..., :, None] * inverse[..., None, :], axis=-3)


def _log_precision(q: BaseMeasure) -> Array:
    """``E log|Sigma^{-1}| = sum_i digamma((df + 1 - i)/2) + d log 2 - log|Psi|``, of every block."""
    size = q.scale_tril.shape[-1]
    of_df = jnp.sum(digamma(0.5 * (q.df[..., None] - jnp.arange(size))), axis=-1)
    return of_df[..., None] + size * jnp.log(2.0) - 2 * gaussian.log_determinant(q.scale_tril)


def _prior_mean(prior: Conjugate) -> float:
    held = prior.concentration
    return held.shape / held.rate if isinstance(held, weights.Concentration) else held
