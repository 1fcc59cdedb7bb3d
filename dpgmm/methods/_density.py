"""Log density of the points under many components: the first ones as they are, the others in parts and as far as seen."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer

from ..densities.gaussian import BaseMeasure
from . import _active
from ._active import Components, Points, Rest

PART = 8
"""Components beyond the first that are evaluated at a time."""
NEGLIGIBLE = -45.0
"""Log of a density beside that of the data which is lost in rounding."""


def rest_of(components: Components, num: int, base: BaseMeasure, points: Points) -> Rest:
    """What stands still while the first `num` components move; all of them now are the reference."""
    head, tail = head_and_tail(components, num, base, points)
    # The log of a density of zero is cut where it cannot be seen.
    seen = jnp.log(jnp.maximum(tail, jnp.finfo(tail.dtype).tiny))
    log_beyond = jax.nn.logsumexp(components.log_weights[num:]) if num < len(components.log_weights) else 0.0
    return Rest(head + seen - log_beyond, head + jnp.log1p(tail))


def head_and_tail(
    components: Components, num: int, base: BaseMeasure, points: Points
) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """Log density of the first `num` components at the points, and that of the others in units of it, both ``(N,)``."""
    head = log_density(cut(components, num), base, points)
    if num >= len(components.log_weights):
        return head, jnp.zeros_like(head)
    return head, tail_density(components, jnp.asarray(num), base, points, head)


def cut(components: Components, num: int) -> Components:
    """The first `num` components; a covariance that all share stays."""
    return jax.tree.map(lambda leaf: leaf[:num], components)


def tail_density(
    components: Components,
    first: Integer[Array, ""],
    base: BaseMeasure,
    points: Points,
    reference: Float[Array, " N"],
) -> Float[Array, " N"]:
    """Joint density of the components from `first` on, in units of the reference ``(N,)``, weights included.

    In parts, and no further than where nothing that follows can be seen beside the data.
    """
    log_weights, means, blocks = components
    size = len(log_weights)
    pad = -size % PART
    _, offsets = _active._whitened_form(blocks, base)
    highest = jnp.where(jnp.arange(size) < first, -jnp.inf, log_weights + offsets)
    beyond = jax.lax.cummax(highest, reverse=True)
    padded = lambda leaf, fill: jnp.pad(leaf, ((0, pad), *((0, 0),) * (leaf.ndim - 1)), constant_values=fill)
    log_weights = padded(jnp.where(jnp.arange(size) < first, -jnp.inf, log_weights), -jnp.inf)
    means, beyond = padded(means, 0.0), padded(beyond, -jnp.inf)
    blocks = blocks if len(blocks) == 1 else jnp.pad(blocks, ((0, pad), *((0, 0),) * 3), mode="edge")
    lowest = reference.min() + NEGLIGIBLE

    def more(carry):
        start, _ = carry
        return (start < size) & (beyond[jnp.minimum(start, size - 1)] > lowest)

    def add(carry):
        start, total = carry
        window = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, PART)
        part = Components(window(log_weights), window(means), blocks if len(blocks) == 1 else window(blocks))
        joint = _active.log_joint_density(part, base, points)
        return start + PART, total + jnp.ones(PART, joint.dtype) @ jnp.exp(joint - reference)

    start = PART * (first // PART)
    return jax.lax.while_loop(more, add, (start, jnp.zeros_like(reference)))[1]


def log_density(components: Components, base: BaseMeasure, points: Points) -> Float[Array, " N"]:
    """Log density of every point, ``(N,)``."""
    return jax.nn.logsumexp(_active.log_joint_density(components, base, points), axis=0)
