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
from jaxtyping import Float

from ..densities import base_measure, conjugate, gaussian, passes, quadratic
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Arrays, Conjugate
from . import _cavi_weights


class Statistics(NamedTuple):
    """``counts (K,)``, ``sums (K, D)`` and ``squares (K, B, d, d)`` as in `dpgmm.conjugate.log_marginal`."""

    counts: Float[Array, " K"]
    sums: Float[Array, "K D"]
    squares: Float[Array, "K B d d"]


class CAVIState(NamedTuple):
    """The statistics that q(components) and q(weights) are made of, and the logarithm of the mean of a, ``()``."""

    statistics: Statistics
    log_mean: Float[Array, ""]


def step(state: CAVIState, data: Arrays, prior: Conjugate) -> tuple[CAVIState, Float[Array, ""]]:
    """One pass: new responsibilities, everything else given them; and the bound of the state BEFORE, nats.

    The bound with the best responsibilities, constants included: a lower bound of the log evidence. It never falls.
    """
    log_density, statistics = _allocated(state, data, prior)
    value = log_density + _cavi_weights.bound(state.statistics.counts, state.log_mean, prior)
    value -= divergence(components(state, prior), prior)
    return CAVIState(statistics, _cavi_weights.fitted(statistics.counts, state.log_mean, prior)), value


def elbo(state: CAVIState, data: Arrays, prior: Conjugate) -> Float[Array, ""]:
    """The bound of a state, ``()``, nats."""
    return step(state, data, prior)[1]


def from_statistics(statistics: Statistics, prior: Conjugate) -> CAVIState:
    """The state of given statistics: q(weights) and q(a) are the best for the counts."""
    start = jnp.log(jnp.asarray(_prior_mean(prior), statistics.counts.dtype))
    return CAVIState(statistics, _cavi_weights.fitted(statistics.counts, start, prior, 3 * _cavi_weights.SECANTS))


def components(state: CAVIState, prior: Conjugate) -> BaseMeasure:
    """q(mu_k, Sigma_k), normal-inverse-Wishart with leading axes as `dpgmm.conjugate.update` has them."""
    return conjugate.update(*state.statistics, prior.base, tied=base_measure.is_tied(prior.covariance))


def divergence(q: BaseMeasure, prior: Conjugate) -> Float[Array, ""]:
    """Kullback-Leibler divergence of all components' q(mu, Sigma) from the base measure, ``()``, nats.

    ``1/2 (D (kappa/kappa_k - 1 - log kappa/kappa_k) + kappa |mu_k - m|^2_{E Sigma^-1})`` for the means, and for a block
    ``log c(df_n, Psi_n) - log c(df, Psi) - (df_n - df)/2 E log|Sigma| - df_n/2 (d - tr Psi Psi_n^{-1})`` with c the
    inverse-Wishart's normaliser.
    """
    base, size = prior.base, prior.base.scale_tril.shape[-1]
    df, log_det, precision = q.df[..., None], gaussian.log_determinant(q.scale_tril), _precision(q)
    shrunk = base.kappa / q.kappa
    away = conjugate.product(q.mean - base.mean, q.mean - base.mean, base)
    means_term = 0.5 * (
        base.mean.shape[-1] * (shrunk - 1 - jnp.log(shrunk)) + base.kappa * jnp.sum(precision * away, (-3, -2, -1))
    )
    prior_scale = base.scale_tril @ jnp.swapaxes(base.scale_tril, -1, -2)
    trace = jnp.sum(precision * prior_scale, axis=(-2, -1))
    blocks_term = (
        df * log_det
        - base.df * gaussian.log_determinant(base.scale_tril)
        - 0.5 * (df - base.df) * size * jnp.log(2.0)
        - multigammaln(0.5 * df, size)
        + multigammaln(0.5 * base.df, size)
        + 0.5 * (df - base.df) * _log_precision(q)
        - 0.5 * (df * size - trace)
    )
    return jnp.sum(means_term) + jnp.sum(blocks_term)


def coefficients(q: BaseMeasure, log_weights: Float[Array, " K"], base: BaseMeasure) -> Float[Array, "K F"]:
    """``(K, F)``, for ``E log w_k + E log N(x_n | mu_k, Sigma_k) = coefficients @ features``."""
    dim, repeats = base.mean.shape[-1], conjugate.shape_of(base)[2]
    precision, centre = _precision(q), conjugate.in_blocks(q.mean - base.mean, base)
    linear = quadratic.times(precision, centre)
    constant = log_weights + 0.5 * repeats * _log_precision(q).sum(-1)
    constant -= 0.5 * (dim * gaussian.LOG_2PI + dim / q.kappa + jnp.sum(linear * centre, axis=(-3, -2, -1)))
    return quadratic.coefficients(constant, linear.reshape(-1, dim), precision)


def features(points: Float[Array, "N D"], base: BaseMeasure) -> Float[Array, "F N"]:
    """`dpgmm.densities.quadratic.features` of x measured from the base's mean, ``(N, D)`` to ``(F, N)``."""
    return quadratic.features((points - base.mean).T, conjugate.shape_of(base))


def _allocated(state: CAVIState, data: Arrays, prior: Conjugate) -> tuple[Float[Array, ""], Statistics]:
    """``sum_n omega_n log sum_k exp(..)``, and the statistics of the responsibilities behind it."""
    rule, counts = _cavi_weights.WEIGHTS[prior.weights], state.statistics.counts
    log_weights = rule.log_weights(counts, jnp.exp(state.log_mean))
    by = coefficients(components(state, prior), log_weights, prior.base)

    def some(by, points, omega):
        x = features(points, prior.base)
        log_density, likelihood, shares = passes.summed(quadratic.joint(by, x), omega)
        return log_density, quadratic.sums(by, x, likelihood, shares)

    log_density, sums = passes.accumulate(some, by, len(by), *data)
    return log_density, Statistics(*quadratic.moments(sums, prior.base.mean.shape[-1], conjugate.shape_of(prior.base)))


def _precision(q: BaseMeasure) -> Float[Array, "*K B d d"]:
    """``E Sigma^{-1} = df Psi^{-1}``, block by block."""
    return q.df[..., None, None, None] * gaussian.precision(gaussian.inverse(q.scale_tril))


def _log_precision(q: BaseMeasure) -> Float[Array, "*K B"]:
    """``E log|Sigma^{-1}| = sum_i digamma((df + 1 - i)/2) + d log 2 - log|Psi|``, of every block."""
    size = q.scale_tril.shape[-1]
    df_term = jnp.sum(digamma(0.5 * (q.df[..., None] - jnp.arange(size))), axis=-1)
    return df_term[..., None] + size * jnp.log(2.0) - 2 * gaussian.log_determinant(q.scale_tril)


def _prior_mean(prior: Conjugate) -> float:
    held = prior.concentration
    return held.shape / held.rate if isinstance(held, _cavi_weights.Concentration) else held
