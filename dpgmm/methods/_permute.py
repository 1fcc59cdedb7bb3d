"""Swaps of two labels within a chain: what lets a sampler that never leaves a labelling visit the labelled posterior."""

import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Integer

from ..model.posterior import Parameters, Posterior
from ..model.reordering import reordered


def swap(
    key: Array, parameters: Parameters, posterior: Posterior, proposals: int | None = None
) -> tuple[Parameters, Integer[Array, ""]]:
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
