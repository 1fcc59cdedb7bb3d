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

from ..densities.concentration import Concentration, nodes
from ..model.posterior import Conjugate, Parameters

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

    log_weights: Callable[[Array, Array], Array]
    tilt: Callable[[Array, Array], Array]
    rest: Callable[[Array, Array], Array]
    normaliser: Callable[[Array, int, Concentration | float], tuple[Array, Array]]
    centre: Callable[[Array, Array], Parameters]
    sample: Callable[[Array, Array, Array, Conjugate], Parameters]
    log_density: Callable[[Parameters, Array, Array, Conjugate], Array]


def fitted(counts: Array, log_mean: Array, prior: Conjugate, secants: int = SECANTS) -> Array:
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


def bound(counts: Array, log_mean: Array, prior: Conjugate) -> Array:
    """``E[log p(weights, a) - log q(weights, a)]``, minus a divergence, ``()``."""
    rule, mean = WEIGHTS[prior.weights], jnp.exp(log_mean)
    log_z, _ = rule.normaliser(rule.tilt(counts, mean), len(counts), prior.concentration)
    return log_z + rule.rest(counts, mean)


def of_allocations(counts: Array, log_mean: Array, prior: Conjugate) -> Array:
    """`bound` plus ``E log p(allocations | weights)``: all that the order of components matters to."""
    return bound(counts, log_mean, prior) + counts @ WEIGHTS[prior.weights].log_weights(counts, jnp.exp(log_mean))


def _betas(counts: Array, mean: Array) -> tuple[Array, Array]:
    """Parameters of the K - 1 sticks."""
    after = counts[::-1].cumsum()[::-1] - counts
    return 1 + counts[:-1], mean + after[:-1]


def _log_sticks(counts: Array, mean: Array) -> tuple[Array, Array]:
    """``E log v_k`` and ``E log(1 - v_k)``."""
    here, after = _betas(counts, mean)
    both = digamma(here + after)
    return digamma(here) - both, digamma(after) - both


def _stick_weights(counts: Array, mean: Array) -> Array:
    log_v, log_rest = _log_sticks(counts, mean)
    end = jnp.zeros_like(log_v[:1])
    return jnp.concatenate([log_v, end]) + jnp.concatenate([end, jnp.cumsum(log_rest)])


def _stick_rest(counts: Array, mean: Array) -> Array:
    """``p(v | a) = a (1 - v)^(a - 1)``, hence minus t; and the entropy of beta distributions."""
    (here, after), (log_v, log_rest) = _betas(counts, mean), _log_sticks(counts, mean)
    return jnp.sum(betaln(here, after) - (here - 1) * log_v - after * log_rest)


def _stick_normaliser(tilt: Array, size: int, prior: Concentration | float) -> tuple[Array, Array]:
    """``Gamma(shape + K - 1, rate - t)``."""
    if not isinstance(prior, Concentration):
        return (size - 1) * jnp.log(prior) + prior * tilt, jnp.full_like(tilt, prior)
    shape, rate = prior.shape + size - 1, prior.rate - tilt
    log_z = prior.shape * jnp.log(prior.rate) - gammaln(prior.shape) + gammaln(shape) - shape * jnp.log(rate)
    return log_z, shape / rate


def _stick_centre(counts: Array, mean: Array) -> Parameters:
    here, after = _betas(counts, mean)
    return {"concentration": mean, "stick_logits": jnp.log(here) - jnp.log(after)}


def _sample_sticks(key: Array, counts: Array, mean: Array, prior: Conjugate) -> Parameters:
    key_a, key_here, key_after = random.split(key, 3)
    here, after = _betas(counts, mean)
    logits = random.loggamma(key_here, here) - random.loggamma(key_after, after)
    if not isinstance(prior.concentration, Concentration):
        return {"concentration": jnp.full_like(mean, prior.concentration), "stick_logits": logits}
    shape, rate = _gamma(counts, mean, prior.concentration)
    return {"concentration": random.gamma(key_a, shape) / rate, "stick_logits": logits}


def _log_density_sticks(parameters: Parameters, counts: Array, mean: Array, prior: Conjugate) -> Array:
    logits, (here, after) = parameters["stick_logits"], _betas(counts, mean)
    of_sticks = jnp.sum(here * log_sigmoid(logits) + after * log_sigmoid(-logits) - betaln(here, after))
    if not isinstance(prior.concentration, Concentration):
        return of_sticks
    shape, rate = _gamma(counts, mean, prior.concentration)
    return of_sticks + gamma.logpdf(parameters["concentration"], shape, scale=1 / rate)


def _gamma(counts: Array, mean: Array, prior: Concentration) -> tuple[float, Array]:
    return prior.shape + len(counts) - 1, prior.rate - _log_sticks(counts, mean)[1].sum()


def _dirichlet_weights(counts: Array, mean: Array) -> Array:
    alpha = mean / len(counts) + counts
    return digamma(alpha) - digamma(alpha.sum())


def _dirichlet_rest(counts: Array, mean: Array) -> Array:
    """``-sum_k E log w_k``, and the entropy of a Dirichlet distribution."""
    alpha = mean / len(counts) + counts
    return jnp.sum(gammaln(alpha)) - gammaln(alpha.sum()) - jnp.sum(alpha * _dirichlet_weights(counts, mean))


def _dirichlet_normaliser(tilt: Array, size: int, prior: Concentration | float) -> tuple[Array, Array]:
    a, log_density = _on_grid(tilt, size, prior, size)
    log_z = logsumexp(log_density)
    return log_z, jnp.exp(log_density - log_z) @ a


def _on_grid(tilt: Array, size: int, prior: Concentration | float, num_points: int) -> tuple[Array, Array]:
    """Nodes of a, and the log of what q(a) is proportional to, times the weight of the node, ``(Q,)`` each."""
    a, log_weights = (jnp.asarray(x, tilt.dtype) for x in nodes(prior, num_points))
    return a, log_weights + gammaln(a) - size * gammaln(a / size) + a * tilt


def _dirichlet_centre(counts: Array, mean: Array) -> Parameters:
    alpha = mean / len(counts) + counts
    return {"concentration": mean, "log_masses": jnp.log(alpha / alpha.sum()) + jnp.log(mean)}


def _sample_dirichlet(key: Array, counts: Array, mean: Array, prior: Conjugate) -> Parameters:
    """Weights and a, independent; and the total mass given a, Gamma(a, 1) as it is a priori: no data speak of it."""
    key_a, key_weights, key_total = random.split(key, 3)
    log_masses = jax.nn.log_softmax(random.loggamma(key_weights, mean / len(counts) + counts))
    held = not isinstance(prior.concentration, Concentration)
    a = jnp.asarray(prior.concentration) if held else _sample_grid(key_a, *_grid(counts, mean, prior))
    return {"concentration": a, "log_masses": log_masses + random.loggamma(key_total, a)}


def _log_density_dirichlet(parameters: Parameters, counts: Array, mean: Array, prior: Conjugate) -> Array:
    """With T the total mass: ``Dirichlet(w) prod_k w_k`` times ``Gamma(T | a, 1) T`` times q(a).

    The Jacobian of masses ``T w_k`` is ``T^(K - 1)``, that of their logs another ``prod_k 1 / (T w_k)``.
    """
    a, log_total = parameters["concentration"], logsumexp(parameters["log_masses"])
    alpha = mean / len(counts) + counts
    of_weights = alpha @ (parameters["log_masses"] - log_total) + gammaln(alpha.sum()) - gammaln(alpha).sum()
    of_total = a * log_total - jnp.exp(log_total) - gammaln(a)
    if not isinstance(prior.concentration, Concentration):
        return of_weights + of_total
    return of_weights + of_total + _log_density_grid(jnp.log(a), *_grid(counts, mean, prior)) - jnp.log(a)


def _grid(counts: Array, mean: Array, prior: Conjugate) -> tuple[Array, Array]:
    """Equidistant log a, and the density of log a there: what draws of a free q(a) come from, linear in between."""
    size = len(counts)
    tilt = jnp.mean(_dirichlet_weights(counts, mean))
    a, log_density = _on_grid(tilt, size, prior.concentration, FINER * size)
    log_a = jnp.log(a)
    density = jnp.exp(log_density - jnp.max(log_density)).at[jnp.array([0, -1])].set(0.0)
    return log_a, density / (density.sum() * (log_a[1] - log_a[0]))


def _sample_grid(key: Array, log_a: Array, density: Array) -> Array:
    """A draw of a: a node by its share, and beside it a triangle, of which linear interpolation is the sum."""
    key_node, key_beside = random.split(key)
    node = random.categorical(key_node, jnp.log(density))
    beside = random.triangular(key_beside, -1.0, 0.0, 1.0, dtype=log_a.dtype)
    return jnp.exp(log_a[node] + beside * (log_a[1] - log_a[0]))


def _log_density_grid(at: Array, log_a: Array, density: Array) -> Array:
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
