"""Swaps of two labels within a chain: what lets a sampler that never leaves a labelling visit the labelled posterior."""

import jax
import jax.numpy as jnp
from jax import Array, random

from .. import sticks
from ..errors import InputError
from ..posterior import Parameters, Posterior

COMPONENTS = ("log_masses", "means", "scale_trils")
"""Sites with one row for each component; `stick_logits` are computed anew from the weights."""


def swap(
    key: Array, parameters: Parameters, posterior: Posterior, proposals: int | None = None
) -> tuple[Parameters, Array]:
    """Metropolis proposals, K by default, to swap two components: parameters after them, and the number accepted, ``()``.

    Weights, means and covariances of components j and k change places; the likelihood does not notice, so that the swap
    s is accepted with probability ``min(1, p(s(theta)) |det s'(theta)| / p(theta))``, p being the prior density on the
    parameters' own coordinates. Of WEIGHTS a swap is an isometry, and the determinant one. Of STICKS it is not:
    ``|dw / dv| = prod_k R_k`` with the remaining masses ``R_k = sum_{j>=k} w_j``, which depend on the order. Of stick
    LOGITS, ``dv / dlogit = v (1 - v)`` and ``1 - v_k = R_{k+1} / R_k`` telescope to

        |dw / dlogits| = prod_{k<K} w_k R_{k+1} / R_k = prod_{k<=K} w_k,

    the same in every order: the determinant is one again, and the ratio of `Posterior.log_prior`, a density of stick
    logits, is the ratio of densities of weights. Under symmetric Dirichlet weights every swap is accepted.
    Sources: Frühwirth-Schnatter (2001), section 3.2, permutation sampling; Jasra, Holmes & Stephens (2005); Papaspiliopoulos
    & Roberts (2008), section 3.4, whose swaps of allocations this is without allocations.
    """
    size = posterior.mixture(parameters).log_weights.shape[0]
    if size == 1:
        return parameters, jnp.zeros((), int)

    def propose(i, carry):
        now, value, accepted = carry
        key_pair, key_accept = random.split(random.fold_in(key, i))
        j, k = random.choice(key_pair, size, (2,), replace=False)
        proposed = reordered(now, jnp.arange(size).at[j].set(k).at[k].set(j), posterior)
        of_proposed = posterior.log_prior(proposed)
        accept = jnp.log(random.uniform(key_accept, dtype=value.dtype)) < of_proposed - value
        now = jax.tree.map(lambda new, old: jnp.where(accept, new, old), proposed, now)
        return now, jnp.where(accept, of_proposed, value), accepted + accept

    start = parameters, posterior.log_prior(parameters), jnp.zeros((), int)
    parameters, _, accepted = jax.lax.fori_loop(0, size if proposals is None else proposals, propose, start)
    return parameters, accepted


def reordered(parameters: Parameters, order: Array, posterior: Posterior) -> Parameters:
    """The same mixture with its components in another order: ``order[k]`` is the one that becomes k, ``(K,)``."""
    new = {site: _rows(leaf, order) if site in COMPONENTS else leaf for site, leaf in parameters.items()}
    if "stick_logits" in parameters:
        new["stick_logits"] = sticks.logits(posterior.mixture(parameters).log_weights[order])
    return new


def check(posterior: Posterior, unconstrained: Parameters) -> None:
    """Raise `InputError` unless `reordered` reorders this model's mixture: its sites may have names of their own."""

    def both(unconstrained):
        parameters, _ = posterior.constrain(unconstrained)
        order = jnp.arange(posterior.mixture(parameters).log_weights.shape[0])[::-1]
        found = posterior.mixture(reordered(parameters, order, posterior))
        return found, jax.tree.map(lambda leaf: _rows(leaf, order), posterior.mixture(parameters))

    found, wanted = jax.jit(both)(unconstrained)
    for of_mixture, one, other in zip(found._fields, found, wanted, strict=True):
        # In units of what tells components apart: data may lie far from zero, and have any scale.
        apart, rounding = jnp.ptp(other, axis=0), 100 * jnp.finfo(other.dtype).eps * jnp.abs(other).max(axis=0)
        if not (jnp.abs(one - other) <= 1e-3 * apart + rounding).all():
            raise InputError(
                f"model {posterior.name}: its components cannot be reordered, {of_mixture} stay behind; moves = swaps needs"
                f" sites stick_logits or {', '.join(COMPONENTS)}"
            )


def _rows(leaf: Array, order: Array) -> Array:
    """Rows in another order; a single row, of a covariance that all components share, stays where it is."""
    return leaf[order] if leaf.shape[0] == order.shape[0] else leaf
