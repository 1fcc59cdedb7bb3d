"""One pass over the points, in chunks: what everything that sums over points has in common."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int

POINTS = "points"
"""The axis of a mesh of devices along which points are dealt out."""
PAIRS = 131_072
"""Point-component pairs evaluated at a time: small enough for a CPU's cache, large enough to hide the loop."""
UNROLLED = 32
"""Components that are looked at in one piece where one is drawn."""


def chunks(num_components: int, points: Float[Array, "N D"], *of_points: Float[Array, " N"]) -> tuple[Array, ...]:
    """Points ``(C, n, D)``, and numbers of the points, ``(C, n)``: weights, say.

    The last chunk is padded with the first point and with noughts, which must be weights of it that do not count.
    """
    size = max(1, min(points.shape[0], PAIRS // num_components))
    pad = -points.shape[0] % size
    padded = jnp.concatenate([points, jnp.broadcast_to(points[:1], (pad, points.shape[1]))])
    return padded.reshape(-1, size, points.shape[1]), *(jnp.pad(x, (0, pad)).reshape(-1, size) for x in of_points)


def accumulate(function: Callable[..., Any], components: Any, chunks: tuple[Array, ...]) -> Any:
    """Sum of ``function(components, *chunk)`` over the chunks; no loop where there is one chunk.

    Under a mesh with an axis `POINTS` every device takes its share of the chunks. What they find is added up in the order of
    the chunks, so that the sum is the same to the last bit on any number of devices.
    """
    if chunks[0].shape[0] == 1:
        return function(components, *(c[0] for c in chunks))
    shapes = jax.eval_shape(function, components, *(c[0] for c in chunks))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    add = lambda total, one: (jax.tree.map(jnp.add, total, one), None)
    if _num_devices() > 1:
        return jax.lax.scan(add, zeros, map_chunks(function, components, chunks))[0]
    return jax.lax.scan(lambda total, chunk: add(total, function(components, *chunk)), zeros, chunks)[0]


def map_chunks(function: Callable[..., Any], components: Any, chunks: tuple[Array, ...]) -> Any:
    """``function(components, *chunk)`` of every chunk, along a new first axis; known to every device of a mesh."""
    count, num = chunks[0].shape[0], _num_devices()
    each = lambda components, chunks: jax.lax.map(lambda chunk: function(components, *chunk), chunks)
    if num == 1:
        return each(components, chunks)
    share = -(-count // num)
    # Chunks that fill up the last share are the first one once more: they are cut off.
    whole = tuple(jnp.concatenate([c, *[c[:1]] * (num * share - count)]) for c in chunks)

    def shared(components, whole):
        start = jax.lax.axis_index(POINTS) * share
        mine = tuple(jax.lax.dynamic_slice_in_dim(c, start, share) for c in whole)
        return jax.lax.all_gather(each(components, mine), POINTS, tiled=True)

    # Everything else is on all devices, so that XLA has nothing to divide by itself: it miscounts what has no equal shares.
    everywhere = PartitionSpec()
    every = jax.shard_map(shared, in_specs=everywhere, out_specs=everywhere, check_vma=False)(components, whole)
    return jax.tree.map(lambda leaf: leaf[:count], every)


def _num_devices() -> int:
    return jax.sharding.get_abstract_mesh().shape.get(POINTS, 1)


def relative(joint: Float[Array, "K N"]) -> tuple[Float[Array, "K N"], Float[Array, " N"]]:
    """Joint densities over the largest of each point, ``(K, N)``, and the logarithm of that, ``(N,)``."""
    peak = jnp.max(joint, axis=0)
    return jnp.exp(joint - peak), peak


def normalised(joint: Float[Array, "K N"]) -> tuple[Float[Array, " N"], Float[Array, "K N"]]:
    """Log density ``log sum_k exp joint_kn``, ``(N,)``, and the responsibilities, ``(K, N)``, for one exponential a pair."""
    likelihood, peak = relative(joint)
    total = jnp.sum(likelihood, axis=0)
    return jnp.log(total) + peak, likelihood / total


def summed(
    joint: Float[Array, "K N"], omega: Float[Array, " N"]
) -> tuple[Float[Array, ""], Float[Array, "K N"], Float[Array, " N"]]:
    """``sum_n omega_n log sum_k exp joint_kn``; likelihoods ``(K, N)`` and shares ``(N,)``, whose product is ``omega r``.

    For sums over points, which take the shares into the fewer numbers of the points and leave the pairs as they are.
    """
    likelihood, peak = relative(joint)
    total = jnp.ones_like(joint[:, 0]) @ likelihood  # A product is twice as fast as a sum over the first axis.
    return omega @ (jnp.log(total) + peak), likelihood, omega / total


def drawn(r: Float[Array, "K N"], uniforms: Float[Array, " N"]) -> Int[Array, " N"]:
    """A component for every point, ``(N,)``, with probabilities proportional to r: where the cumulative sum passes u."""
    goal = uniforms * jnp.sum(r, axis=0)

    def pass_by(carry, of_component):
        below, chosen = carry
        below += of_component
        return (below, chosen + (below < goal)), None

    # Row by row: a cumulative sum of all rows takes twice as long, and a loop that writes both numbers after each as well.
    nobody = jnp.zeros_like(goal), jnp.zeros(goal.shape, jnp.int32)
    return jax.lax.scan(pass_by, nobody, r[:-1], unroll=max(1, min(len(r) - 1, UNROLLED)))[0][1].astype(int)
