"""Maps from unconstrained coordinates to a model's sites, with their log Jacobians, in plain JAX.

The coordinates are scaled to the data, so that a step of one means about as much in every direction: an optimiser or a
sampler of any library can walk on them as they are.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


class Transform(NamedTuple):
    """`constrain(u) -> (value, log |d value / d u|)` and its inverse `unconstrain(value) -> u`."""

    constrain: Callable[[Array], tuple[Array, Array]]
    unconstrain: Callable[[Array], Array]


def real(location: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> Transform:
    """``value = location + scale u``. `location` and `scale` broadcast against u."""

    def constrain(u):
        return location + scale * u, jnp.sum(jnp.broadcast_to(jnp.log(scale), u.shape))

    return Transform(constrain, lambda value: (value - location) / scale)


def positive() -> Transform:
    """``value = exp(u)``: scaling the value only shifts u."""
    return Transform(lambda u: (jnp.exp(u), jnp.sum(u)), jnp.log)


def cholesky(scale: ArrayLike) -> Transform:
    """Lower Cholesky factors with rows in units of `scale` ``(D,)``: off-diagonals linear, diagonals exponential.

    Shapes: ``u (..., D (D + 1) / 2)``, the lower triangle row by row, to ``(..., D, D)``.
    """
    scale = jnp.asarray(scale)
    rows, columns = jnp.tril_indices(scale.shape[0])
    on_diagonal = rows == columns

    def constrain(u):
        # The double `where` keeps exp(off-diagonal) out of value and gradient.
        lower = jnp.where(on_diagonal, jnp.exp(jnp.where(on_diagonal, u, 0.0)), u) * scale[rows]
        shape = (*u.shape[:-1], *2 * scale.shape)
        value = jnp.zeros(shape, u.dtype).at[..., rows, columns].set(lower)
        return value, jnp.sum(jnp.where(on_diagonal, u, 0.0) + jnp.log(scale[rows]))

    def unconstrain(value):
        lower = value[..., rows, columns] / scale[rows]
        return jnp.where(on_diagonal, jnp.log(jnp.where(on_diagonal, lower, 1.0)), lower)

    return Transform(constrain, unconstrain)
