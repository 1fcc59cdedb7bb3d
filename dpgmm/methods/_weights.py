"""How the weights of both rules move: the coordinates of the first M, orders of the components, and what is refreshed.

The weights of M components and of all that come after them are M + 1 numbers. Under ``"sticks"`` their coordinates are
``log(-log(1 - v_k))``; under ``"dirichlet"`` the logs of M independent Gamma masses, those of the others standing still.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, random
from jax.nn import log_softmax, logsumexp
from jax.scipy.special import gammaln
from jaxtyping import Bool, Float, Integer

from ..densities import concentration, sticks, transforms
from ..model.posterior import Conjugate

STICKS, DIRICHLET = "sticks", "dirichlet"


class Weights(NamedTuple):
    """`log_weights` ``(K,)``, normalised, and the log of their total mass, which only Dirichlet weights have."""

    log_weights: Float[Array, " K"]
    log_total: Float[Array, ""]


def folded(log_weights: Float[Array, " K"], num: int) -> Float[Array, " folded"]:
    """The first `num` log weights and the log of what the others have together: ``(num + 1,)``, ``(K,)`` where all are."""
    if num >= len(log_weights):
        return log_weights
    return jnp.append(log_weights[:num], logsumexp(log_weights[num:]))


def unfolded(new: Float[Array, " folded"], log_weights: Float[Array, " K"], num: int) -> Float[Array, " K"]:
    """Inverse of `folded`: the others keep their proportions."""
    if num >= len(log_weights):
        return new
    others = log_weights[num:]
    return jnp.concatenate([new[:num], new[num] + others - logsumexp(others)])


def coordinates(
    folded: Float[Array, " folded"], log_total: Float[Array, ""], rule: str, num: int
) -> Float[Array, " coordinates"]:
    """Coordinates of the first `num` weights: ``(M,)`` or ``(K - 1,)`` sticks, ``(M,)`` masses."""
    if rule == DIRICHLET:
        return log_total + folded[:num]
    return _STICKS.unconstrain(sticks.logits(folded), _SITES)


def weights_at(
    u: Float[Array, " coordinates"], log_rest_mass: Float[Array, "..."], rule: str, num: int
) -> Float[Array, " folded"]:
    """`folded` log weights at these coordinates; `log_rest_mass` is the log mass of the others, Dirichlet only."""
    if rule == DIRICHLET:
        return log_softmax(jnp.append(u, log_rest_mass)) if jnp.ndim(log_rest_mass) == 0 else log_softmax(u)
    return sticks.log_weights(_STICKS.constrain(u, _SITES)[0])


def log_density(u: Float[Array, " coordinates"], a: Float[Array, ""], rule: str, size: int) -> Float[Array, ""]:
    """Log prior density of the coordinates."""
    if rule == DIRICHLET:
        share = a / size
        return jnp.sum(share * u - jnp.exp(u) - gammaln(share))
    logits, log_jacobian = _STICKS.constrain(u, _SITES)
    return sticks.log_density_logits(logits, a) + log_jacobian


def log_density_weights(
    folded: Float[Array, " folded"], a: Float[Array, ""], rule: str, size: int, num: int
) -> Float[Array, ""]:
    """Log density of the first `num` WEIGHTS given what the others have, but for what does not change with them.

    Of stick logits, ``|dw / dlogits|`` is the product of all weights; of log masses it is that of the first.
    """
    if rule == DIRICHLET:
        return (a / size - 1) * folded[:num].sum()
    return sticks.log_density_logits(sticks.logits(folded), a) - folded.sum()


def curvature(sizes: Float[Array, " M"], a: Float[Array, ""], rule: str) -> Float[Array, " M"]:
    """About minus the second derivative of the log posterior in each coordinate, given the points of each component.

    A stick's log density in ``y = log h``, ``h = -log(1 - v)``, is ``n log(1 - e^-h) - b h + y`` for n points in the
    component and b, with a, after it: at its mean stick. `sizes` ``(M,)``.
    """
    if rule == DIRICHLET:
        return sizes
    after = a + sizes[::-1].cumsum()[::-1] - sizes
    hazard = jnp.log1p((1 + sizes) / after)
    left = jnp.exp(-hazard)
    here = jnp.where(hazard < 1e-2, 0.5, left * (hazard - 1 + left) / jnp.maximum(1 - left, 1e-3) ** 2)
    return hazard * (after + sizes * here)


def order(
    key: Array, weights: Float[Array, " K"], a: Float[Array, ""], rule: str
) -> tuple[Integer[Array, " K"], Bool[Array, ""]]:
    """A size-biased order of the components, ``(K,)``, and whether it was accepted.

    Components are drawn without replacement with probabilities ``w_k``. Under sticks, which stop at K, it is accepted with
    probability ``min(1, (w'_K / w_K)^a)``: the density of weights is ``prod_k a (1 - v_k)^(a - 1) / R_k``, the
    probability of their order ``prod_k w_k / R_k``, and what is left of the ratio of both is the last weight. Of an
    untruncated process the size-biased order is a draw from the posterior (Pitman 1996, section 3). Dirichlet weights
    are exchangeable: there the order is an auxiliary variable, see `log_order`.
    """
    key_order, key_accept = random.split(key)
    new = jnp.argsort(-(weights + random.gumbel(key_order, weights.shape, weights.dtype)))
    if rule == DIRICHLET:
        return new, jnp.ones((), bool)
    log_ratio = a * (weights[new[-1]] - weights[-1])
    accept = jnp.log(random.uniform(key_accept, dtype=weights.dtype)) < log_ratio
    return jnp.where(accept, new, jnp.arange(len(weights))), accept


def log_order(log_weights: Float[Array, " K"], first: Integer[Array, ""] | int, rule: str) -> Float[Array, ""]:
    """Log probability of the `first` places of a size-biased order, ``sum_k log w_k / R_k`` (Plackett 1975).

    What moves the first components of a drawn order moves its probability with them, which belongs to the target. Sticks
    have it in their density: nought.
    """
    if rule != DIRICHLET:
        return jnp.zeros((), log_weights.dtype)
    share = log_weights - sticks.log_remaining(log_weights)
    return jnp.sum(jnp.where(jnp.arange(len(log_weights)) < first, share, 0.0))


def refreshed(
    key: Array, now: Weights, a: Float[Array, ""], first: Integer[Array, ""] | int, prior: Conjugate
) -> tuple[Weights, Float[Array, ""]]:
    """Weights from component `first` on drawn from their prior given those before, and the concentration with them.

    Under sticks a is drawn given the first sticks alone, ``Gamma(shape + m, rate - sum log(1 - v))``; then the sticks
    after them. Dirichlet masses are drawn given a, which stays as it is.
    """
    key_a, key_new = random.split(key)
    log_weights, log_total = now
    size = len(log_weights)
    keep = jnp.arange(size) < first
    if prior.weights == DIRICHLET:
        masses = jnp.where(keep, log_total + log_weights, random.loggamma(key_new, jnp.full(size, a / size)))
        total = logsumexp(masses)
        return Weights(masses - total, total), a
    log_left = logsumexp(jnp.where(keep, -jnp.inf, log_weights))
    a = concentration.given_sticks(key_a, log_left, first, prior.concentration)
    logits = sticks.logits(log_weights)
    hazards = random.exponential(key_new, logits.shape, logits.dtype) / a
    fresh = _STICKS.constrain(jnp.log(hazards), _SITES)[0]
    return Weights(sticks.log_weights(jnp.where(keep[:-1], logits, fresh)), log_total), a


def concentration_given_weights(
    key: Array, now: Weights, a: Float[Array, ""], prior: Conjugate
) -> tuple[Weights, Float[Array, ""]]:
    """The concentration given all weights: conjugate for sticks; for masses by a slice, the total mass drawn anew."""
    key_a, key_total = random.split(key)
    size = len(now.log_weights)
    if prior.weights == STICKS:
        return now, concentration.given_sticks(key_a, now.log_weights[-1], size - 1, prior.concentration)
    shape, rate = prior.concentration
    mean_log = now.log_weights.mean()

    def log_posterior(log_a):
        a = jnp.exp(log_a)
        return shape * log_a - rate * a + gammaln(a) - size * gammaln(a / size) + a * mean_log

    a = jnp.exp(concentration.slice_step(key_a, log_posterior, jnp.log(a)))
    return now._replace(log_total=random.loggamma(key_total, a)), a


_STICKS = transforms.stick_logits(1_000_000)
"""Coordinates ``log(-log(1 - v))`` of all sticks, whatever the concentration."""
_SITES = {"concentration": jnp.ones(())}
"""What `_STICKS` asks of the other sites."""
