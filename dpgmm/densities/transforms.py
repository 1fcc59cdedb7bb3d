"""Maps from unconstrained coordinates to a model's sites, with their log Jacobians, in plain JAX.

The coordinates are scaled to the data, so that a step of one means about as much in every direction: an optimiser or a
sampler of any library can walk on them as they are. A map may use the sites that stand before its own in the model.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from . import gaussian

Sites = dict[str, Array]


class Transform(NamedTuple):
    """``constrain(u, sites) -> (value, log |d value / d u|)`` and its inverse ``unconstrain(value, sites) -> u``.

    `sites` holds the constrained values of the sites before this one; most maps do not look at them.
    """

    constrain: Callable[[Float[Array, "..."], Sites], tuple[Float[Array, "..."], Float[Array, ""]]]
    unconstrain: Callable[[Float[Array, "..."], Sites], Float[Array, "..."]]


def real(location: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> Transform:
    """``value = location + scale u``. `location` and `scale` broadcast against u."""

    def constrain(u: Float[Array, "*shape"], _: Sites) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
        return jnp.asarray(location + scale * u), jnp.sum(jnp.broadcast_to(jnp.log(scale), u.shape))

    return Transform(constrain, lambda value, _: (value - location) / scale)


def positive(scale: ArrayLike = 1.0) -> Transform:
    """``value = scale exp(u)``: scaling the value only shifts u. `scale` broadcasts against u."""

    def constrain(u: Float[Array, "*shape"], _: Sites) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
        return jnp.asarray(scale * jnp.exp(u)), jnp.sum(u + jnp.log(scale))

    return Transform(constrain, lambda value, _: jnp.log(value / scale))


def stick_logits(num_centred: int = 10) -> Transform:
    """Stick logits from ``u_k = log(-s_k log(1 - v_k))``, s_k = 1 for the first `num_centred` sticks, then a.

    Given ``v_k ~ Beta(1, a)``, ``-a log(1 - v_k)`` is exponential with rate one: the coordinates of the later sticks,
    which see few data or none, do not depend on the concentration a at all, and no funnel joins them to it. Those of
    the first, which the data determine, must not move when a does. Shapes: ``(K - 1,)`` both ways; site
    ``concentration ()``. (Papaspiliopoulos, Roberts & Sköld 2007 on centring.)
    """

    def log_scale(u, sites):
        return jnp.where(jnp.arange(u.shape[-1]) < num_centred, 0.0, jnp.log(sites["concentration"]))

    def constrain(u: Float[Array, " sticks"], sites: Sites) -> tuple[Float[Array, " sticks"], Float[Array, ""]]:
        # Capped where exp would leave float32; the prior's density is nil long before.
        log_hazard = jnp.minimum(u - log_scale(u, sites), 80.0)
        hazard = jnp.exp(log_hazard)
        tiny = log_hazard < -15
        log_v = jnp.where(tiny, log_hazard - hazard / 2, jnp.log(-jnp.expm1(-jnp.where(tiny, 1.0, hazard))))
        return hazard + log_v, jnp.sum(log_hazard - log_v)

    def unconstrain(value: Float[Array, " sticks"], sites: Sites) -> Float[Array, " sticks"]:
        tiny = value < -30
        return jnp.where(tiny, value, jnp.log(jax.nn.softplus(jnp.where(tiny, 0.0, value)))) + log_scale(value, sites)

    return Transform(constrain, unconstrain)


def bartlett(prior_tril: ArrayLike, scale: ArrayLike) -> Transform:
    """Lower Cholesky factors ``L = T B^{-1}`` from the factor B of the precision in units of T = `prior_tril`.

    Under ``Sigma ~ InverseWishart(df, T T^T)`` the entries of the lower triangular B are independent, normal off the
    diagonal (Bartlett 1933): components that no data hold see no funnel and no constraint. ``B_ii = exp(-u_ii) / scale``
    and ``B_ij = u_ij``, so that for D = 1 ``L = T scale exp(u)``. The Jacobian of ``B -> T B^{-1}`` is
    ``prod_i L_ii^i / prod_i B_ii^(D - i + 1)``, i from 1.
    Shapes: ``prior_tril (D, D)`` or a batch of them, ``u (..., D (D + 1) / 2)``, the lower triangle row by row, to
    ``(..., D, D)``.
    """
    prior_tril, scale = jnp.asarray(prior_tril), jnp.asarray(scale)
    dim = prior_tril.shape[-1]
    rows, columns = jnp.tril_indices(dim)
    on_diagonal = rows == columns
    powers = jnp.arange(1, dim + 1)

    def constrain(u: Float[Array, "*K entries"], _: Sites) -> tuple[Float[Array, "*K D D"], Float[Array, ""]]:
        # The double `where` keeps exp(off-diagonal) out of value and gradient.
        log_diagonal = -u - jnp.log(scale)
        lower = jnp.where(on_diagonal, jnp.exp(jnp.where(on_diagonal, log_diagonal, 0.0)), u)
        b = jnp.zeros((*u.shape[:-1], dim, dim), u.dtype).at[..., rows, columns].set(lower)
        value = jnp.broadcast_to(prior_tril, b.shape) @ gaussian.inverse(b)
        log_b, log_l = jnp.log(gaussian.diagonal(b)), jnp.log(gaussian.diagonal(value))
        log_jacobian = jnp.sum(powers * log_l) - jnp.sum(powers[::-1] * log_b)
        return value, log_jacobian + jnp.sum(jnp.where(on_diagonal, log_diagonal, 0.0))

    def unconstrain(value: Float[Array, "*K D D"], _: Sites) -> Float[Array, "*K entries"]:
        lower = (gaussian.inverse(value) @ jnp.broadcast_to(prior_tril, value.shape))[..., rows, columns]
        return jnp.where(on_diagonal, -jnp.log(jnp.where(on_diagonal, lower, 1.0) * scale), lower)

    return Transform(constrain, unconstrain)
