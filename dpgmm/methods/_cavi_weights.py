"""q of the weights and of the concentration in coordinate ascent: truncated sticks, and symmetric Dirichlet weights.

Both priors of weights are, given the concentration a, of the form ``log p(weights | a) = c(a) + a T(weights) + rest``. So
the best q(a) is ``p(a) exp(c(a) + a t) / Z(t)`` with the tilt ``t = E T``, whatever q(weights) is:

- sticks, ``T = sum_{k<K} log(1 - v_k)``, ``c = (K - 1) log a``: a Gamma distribution (Blei & Jordan 2006);
- Dirichlet, ``T = mean_k log w_k``, ``c = log Gamma(a) - K log Gamma(a/K)``: no family has it, and it stays free, a density
  on a grid of log a. Its normaliser and mean are trapezoid sums.

q(weights) is the conjugate one, given the counts and ``E a``: of sticks ``Beta(1 + n_k, E a + sum_{j>k} n_j)``, or
``Dirichlet(E a / K + n)``. A concentration that is a number, not a `Concentration`, is held there.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.nn import log_sigmoid, logsumexp
from jax.scipy.special import betaln, digamma, gammaln
from jax.scipy.stats import gamma
from jaxtyping import Float

from ..densities.concentration import Concentration, nodes
from ..model.posterior import Conjugate, Parameters

Counts = Float[Array, " K"]
Scalar = Float[Array, ""]

SECANTS = 4
"""Secant steps a pass towards the joint optimum of q(weights) and q(a); the first is an alternation."""
FINER = 64
"""Draws of a free q(a) take a grid of ``sqrt(FINER)`` times as many nodes as its moments."""


class Rule(NamedTuple):
    """What a rule for weights says, at counts ``(K,)`` and at ``E a``, the number that q(weights) is made with.

    log_weights: ``E log w_k``, ``(K,)``. tilt: t. rest: expected log prior of weights without ``c(a) + a t``, plus the
    entropy of q(weights). normaliser: ``(tilt, K, prior) -> log Z(t), E_q a``. centre, sample, log_density: sites of the
    model at the means of masses, their draws, and the log density of those.
    """

    log_weights: Callable[[Counts, Scalar], Float[Array, " K"]]
    tilt: Callable[[Counts, Scalar], Scalar]
    rest: Callable[[Counts, Scalar], Scalar]
    normaliser: Callable[[Scalar, int, Concentration | float], tuple[Scalar, Scalar]]
    centre: Callable[[Counts, Scalar], Parameters]
    sample: Callable[[Array, Counts, Scalar, Conjugate], Parameters]
    log_density: Callable[[Parameters, Counts, Scalar, Conjugate], Scalar]


def fitted(counts: Counts, log_mean: Scalar, prior: Conjugate, secants: int = SECANTS) -> Scalar:
    """``log E a`` at which q(weights) and q(a) agree, sought from `log_mean`: ``(K,)``, ``()`` to ``()``.

    The root in ``t = log E a`` of ``g(t) = log E_q[a] - t``, q(a) being the best for the weights made with t. The bound
    rises towards it from either side, as ``-1 < g' < 0``; alternating the two updates takes the step g, which nears the
    root by a part in K at a time where most sticks are empty. So secants.
    """
    if not isinstance(prior.concentration, Concentration):
        return jnp.full_like(log_mean, jnp.log(prior.concentration))
    rule = WEIGHTS[prior.weights]

    def excess(log_a):
        mean = rule.normaliser(rule.tilt(counts, jnp.exp(log_a)), len(counts), prior.concentration)[1]
        return jnp.log(mean) - log_a

    def secant(_, trail):
        before, last, now = trail
        here, moved = excess(now), now - before
        still = jnp.abs(moved) < 1e-12
        slope = jnp.where(still, -1.0, jnp.clip((here - last) / jnp.where(still, 1.0, moved), -1.0, -1e-4))
        return now, here, now + jnp.clip(-here / slope, -2.0, 2.0)

    return jax.lax.fori_loop(0, secants, secant, (log_mean, jnp.zeros_like(log_mean), log_mean))[2]


def bound(counts: Counts, log_mean: Scalar, prior: Conjugate) -> Scalar:
    """``E[log p(weights, a) - log q(weights, a)]``, minus a divergence, ``()``."""
    rule, mean = WEIGHTS[prior.weights], jnp.exp(log_mean)
    log_z, _ = rule.normaliser(rule.tilt(counts, mean), len(counts), prior.concentration)
    return log_z + rule.rest(counts, mean)


def bound_with_allocations(counts: Counts, log_mean: Scalar, prior: Conjugate) -> Scalar:
    """`bound` plus ``E log p(allocations | weights)``: all that the order of components matters to."""
    return bound(counts, log_mean, prior) + counts @ WEIGHTS[prior.weights].log_weights(counts, jnp.exp(log_mean))


def _betas(counts: Counts, mean: Scalar) -> tuple[Float[Array, " sticks"], Float[Array, " sticks"]]:
    """Parameters of the K - 1 sticks."""
    after = counts[::-1].cumsum()[::-1] - counts
    return 1 + counts[:-1], mean + after[:-1]


def _log_sticks(counts: Counts, mean: Scalar) -> tuple[Float[Array, " sticks"], Float[Array, " sticks"]]:
    """``E log v_k`` and ``E log(1 - v_k)``."""
    here, after = _betas(counts, mean)
    both = digamma(here + after)
    return digamma(here) - both, digamma(after) - both


def _stick_weights(counts: Counts, mean: Scalar) -> Float[Array, " K"]:
    log_v, log_rest = _log_sticks(counts, mean)
    end = jnp.zeros(1, log_v.dtype)  # Of one component there are no sticks.
    return jnp.concatenate([log_v, end]) + jnp.concatenate([end, jnp.cumsum(log_rest)])


def _stick_rest(counts: Counts, mean: Scalar) -> Scalar:
    """``p(v | a) = a (1 - v)^(a - 1)``, hence minus t; and the entropy of beta distributions."""
    (here, after), (log_v, log_rest) = _betas(counts, mean), _log_sticks(counts, mean)
    return jnp.sum(betaln(here, after) - (here - 1) * log_v - after * log_rest)


def _stick_normaliser(tilt: Scalar, size: int, prior: Concentration | float) -> tuple[Scalar, Scalar]:
    """``Gamma(shape + K - 1, rate - t)``."""
    if not isinstance(prior, Concentration):
        return (size - 1) * jnp.log(prior) + prior * tilt, jnp.full_like(tilt, prior)
    shape, rate = prior.shape + size - 1, prior.rate - tilt
    log_z = prior.shape * jnp.log(prior.rate) - gammaln(prior.shape) + gammaln(shape) - shape * jnp.log(rate)
    return log_z, shape / rate


def _stick_centre(counts: Counts, mean: Scalar) -> Parameters:
    here, after = _betas(counts, mean)
    return {"concentration": mean, "stick_logits": jnp.log(here) - jnp.log(after)}


def _sample_sticks(key: Array, counts: Counts, mean: Scalar, prior: Conjugate) -> Parameters:
    here, after = _betas(counts, mean)
    free = isinstance(prior.concentration, Concentration)
    shape, rate = _gamma(counts, mean, prior.concentration) if free else (1.0, 1.0)
    # All gamma variates at once: each call takes seconds to compile.
    shapes = jnp.concatenate([here, after, jnp.full_like(here, shape, shape=1)])
    log_here, log_after, log_a = jnp.split(random.loggamma(key, shapes), (len(here), 2 * len(here)))
    a = jnp.exp(log_a[0]) / rate if free else jnp.asarray(prior.concentration, mean.dtype)
    return {"concentration": a, "stick_logits": log_here - log_after}


def _log_density_sticks(parameters: Parameters, counts: Counts, mean: Scalar, prior: Conjugate) -> Scalar:
    logits, (here, after) = parameters["stick_logits"], _betas(counts, mean)
    sticks_term = jnp.sum(here * log_sigmoid(logits) + after * log_sigmoid(-logits) - betaln(here, after))
    if not isinstance(prior.concentration, Concentration):
        return sticks_term
    shape, rate = _gamma(counts, mean, prior.concentration)
    return sticks_term + gamma.logpdf(parameters["concentration"], shape, scale=1 / rate)


def _gamma(counts: Counts, mean: Scalar, prior: Concentration) -> tuple[float, Scalar]:
    return prior.shape + len(counts) - 1, prior.rate - _log_sticks(counts, mean)[1].sum()


def _dirichlet_weights(counts: Counts, mean: Scalar) -> Float[Array, " K"]:
    alpha = mean / len(counts) + counts
    return digamma(alpha) - digamma(alpha.sum())


def _dirichlet_rest(counts: Counts, mean: Scalar) -> Scalar:
    """``-sum_k E log w_k``, and the entropy of a Dirichlet distribution."""
    alpha = mean / len(counts) + counts
    return jnp.sum(gammaln(alpha)) - gammaln(alpha.sum()) - jnp.sum(alpha * _dirichlet_weights(counts, mean))


def _dirichlet_normaliser(tilt: Scalar, size: int, prior: Concentration | float) -> tuple[Scalar, Scalar]:
    a, log_density = _on_grid(tilt, size, prior, size)
    log_z = logsumexp(log_density)
    return log_z, jnp.exp(log_density - log_z) @ a


def _on_grid(
    tilt: Scalar, size: int, prior: Concentration | float, num_points: int
) -> tuple[Float[Array, " Q"], Float[Array, " Q"]]:
    """Nodes of a, and the log of what q(a) is proportional to, times the weight of the node, ``(Q,)`` each."""
    a, log_weights = (jnp.asarray(x, tilt.dtype) for x in nodes(prior, num_points))
    return a, log_weights + gammaln(a) - size * gammaln(a / size) + a * tilt


def _dirichlet_centre(counts: Counts, mean: Scalar) -> Parameters:
    alpha = mean / len(counts) + counts
    return {"concentration": mean, "log_masses": jnp.log(alpha / alpha.sum()) + jnp.log(mean)}


def _sample_dirichlet(key: Array, counts: Counts, mean: Scalar, prior: Conjugate) -> Parameters:
    """Weights and a, independent; and the total mass given a, Gamma(a, 1) as it is a priori: no data speak of it."""
    key_a, key_weights, key_total = random.split(key, 3)
    log_masses = jax.nn.log_softmax(random.loggamma(key_weights, mean / len(counts) + counts))
    held = not isinstance(prior.concentration, Concentration)
    a = jnp.asarray(prior.concentration) if held else _sample_grid(key_a, *_grid(counts, mean, prior))
    return {"concentration": a, "log_masses": log_masses + random.loggamma(key_total, a)}


def _log_density_dirichlet(parameters: Parameters, counts: Counts, mean: Scalar, prior: Conjugate) -> Scalar:
    """With T the total mass: ``Dirichlet(w) prod_k w_k`` times ``Gamma(T | a, 1) T`` times q(a).

    The Jacobian of masses ``T w_k`` is ``T^(K - 1)``, that of their logs another ``prod_k 1 / (T w_k)``.
    """
    a, log_total = parameters["concentration"], logsumexp(parameters["log_masses"])
    alpha = mean / len(counts) + counts
    weights_term = alpha @ (parameters["log_masses"] - log_total) + gammaln(alpha.sum()) - gammaln(alpha).sum()
    total_term = a * log_total - jnp.exp(log_total) - gammaln(a)
    if not isinstance(prior.concentration, Concentration):
        return weights_term + total_term
    return weights_term + total_term + _log_density_grid(jnp.log(a), *_grid(counts, mean, prior)) - jnp.log(a)


def _grid(counts: Counts, mean: Scalar, prior: Conjugate) -> tuple[Float[Array, " Q"], Float[Array, " Q"]]:
    """Equidistant log a, and the density of log a there: what draws of a free q(a) come from, linear in between."""
    size = len(counts)
    tilt = jnp.mean(_dirichlet_weights(counts, mean))
    a, log_density = _on_grid(tilt, size, prior.concentration, FINER * size)
    log_a = jnp.log(a)
    density = jnp.exp(log_density - jnp.max(log_density)).at[jnp.array([0, -1])].set(0.0)
    return log_a, density / (density.sum() * (log_a[1] - log_a[0]))


def _sample_grid(key: Array, log_a: Float[Array, " Q"], density: Float[Array, " Q"]) -> Scalar:
    """A draw of a: a node by its share, and beside it a triangle, of which linear interpolation is the sum."""
    key_node, key_beside = random.split(key)
    node = random.categorical(key_node, jnp.log(density))
    beside = random.triangular(key_beside, -1.0, 0.0, 1.0, dtype=log_a.dtype)
    return jnp.exp(log_a[node] + beside * (log_a[1] - log_a[0]))


def _log_density_grid(at: Scalar, log_a: Float[Array, " Q"], density: Float[Array, " Q"]) -> Scalar:
    return jnp.log(jnp.interp(at, log_a, density))


WEIGHTS = {
    "sticks": Rule(
        _stick_weights,
        lambda counts, mean: _log_sticks(counts, mean)[1].sum(),
        _stick_rest,
        _stick_normaliser,
        _stick_centre,
        _sample_sticks,
        _log_density_sticks,
    ),
    "dirichlet": Rule(
        _dirichlet_weights,
        lambda counts, mean: _dirichlet_weights(counts, mean).mean(),
        _dirichlet_rest,
        _dirichlet_normaliser,
        _dirichlet_centre,
        _sample_dirichlet,
        _log_density_dirichlet,
    ),
}
