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

Sites = dict[str, Array]


class Transform(NamedTuple):
    """``constrain(u, sites) -> (value, log |d value / d u|)`` and its inverse ``unconstrain(value, sites) -> u``.

    `sites` holds the constrained values of the sites before this one; most maps do not look at them.
    """

    constrain: Callable[[Array, Sites], tuple[Array, Array]]
    unconstrain: Callable[[Array, Sites], Array]


def real(location: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> Transform:
    """``value = location + scale u``. `location` and `scale` broadcast against u."""

    def constrain(u, _):
        return location + scale * u, jnp.sum(jnp.broadcast_to(jnp.log(scale), u.shape))

    return Transform(constrain, lambda value, _: (value - location) / scale)


def positive() -> Transform:
    """``value = exp(u)``: scaling the value only shifts u."""
    return Transform(lambda u, _: (jnp.exp(u), jnp.sum(u)), lambda value, _: jnp.log(value))


def stick_logits(num_centred: int = 10) -> Transform:
    """Stick logits from ``u_k = log(-s_k log(1 - v_k))``, s_k = 1 for the first `num_centred` sticks, then a.

    Given ``v_k ~ Beta(1, a)``, ``-a log(1 - v_k)`` is exponential with rate one: the coordinates of the later sticks,
    which see few data or none, do not depend on the concentration a at all, and no funnel joins them to it. Those of
    the first, which the data determine, must not move when a does. Shapes: ``(K - 1,)`` both ways; site
    ``concentration ()``. (Papaspiliopoulos, Roberts & Sköld 2007 on centring.)
    """

    def log_scale(u, sites):
        return jnp.where(jnp.arange(u.shape[-1]) < num_centred, 0.0, jnp.log(sites["concentration"]))

    def constrain(u, sites):
        # Capped where exp would leave float32; the prior's density is nil long before.
        log_hazard = jnp.minimum(u - log_scale(u, sites), 80.0)
        hazard = jnp.exp(log_hazard)
        tiny = log_hazard < -15
        log_v = jnp.where(tiny, log_hazard - hazard / 2, jnp.log(-jnp.expm1(-jnp.where(tiny, 1.0, hazard))))
        return hazard + log_v, jnp.sum(log_hazard - log_v)

    def unconstrain(value, sites):
        tiny = value < -30
        return jnp.where(tiny, value, jnp.log(jax.nn.softplus(jnp.where(tiny, 0.0, value)))) + log_scale(value, sites)

    return Transform(constrain, unconstrain)


def cholesky(scale: ArrayLike) -> Transform:
    """Lower Cholesky factors with rows in units of `scale` ``(D,)``: off-diagonals linear, diagonals exponential.

    Shapes: ``u (..., D (D + 1) / 2)``, the lower triangle row by row, to ``(..., D, D)``.
    """
    scale = jnp.asarray(scale)
    rows, columns = jnp.tril_indices(scale.shape[0])
    on_diagonal = rows == columns

    def constrain(u, _):
        # The double `where` keeps exp(off-diagonal) out of value and gradient.
        lower = jnp.where(on_diagonal, jnp.exp(jnp.where(on_diagonal, u, 0.0)), u) * scale[rows]
        shape = (*u.shape[:-1], *2 * scale.shape)
        value = jnp.zeros(shape, u.dtype).at[..., rows, columns].set(lower)
        return value, jnp.sum(jnp.where(on_diagonal, u, 0.0) + jnp.log(scale[rows]))

    def unconstrain(value, _):
        lower = value[..., rows, columns] / scale[rows]
        return jnp.where(on_diagonal, jnp.log(jnp.where(on_diagonal, lower, 1.0)), lower)

    return Transform(constrain, unconstrain)
