"""One pass over the points, in chunks: what everything that sums over points has in common."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int, Integer, Shaped

POINTS = "points"
"""The axis of a mesh of devices along which points are dealt out."""
PAIRS = 131_072
"""Point-component pairs evaluated at a time: small enough for a CPU's cache, large enough to hide the loop."""
UNROLLED = 32
"""Components that are looked at in one piece where one is drawn."""

_SINGLE = ContextVar("whether pairs are evaluated in float32", default=False)


@contextlib.contextmanager
def single_precision(*, on: bool = True) -> Iterator[None]:
    """Within this, point-component pairs are evaluated in float32, and chunks added up in float64: see `dpgmm.fit`.

    A component more than 14 of its standard deviations from the mixture's mean, of which the expanded square would lose more
    than 2e-5 nats a point, takes the whole pass back to float64.
    """
    token = _SINGLE.set(on)
    try:
        yield
    finally:
        _SINGLE.reset(token)


def in_single_precision() -> bool:
    """Whether pairs are evaluated in float32 here; programs are kept apart by it."""
    return _SINGLE.get()


def accumulate(
    function: Callable[..., Any],
    components: Any,
    num_components: int,
    points: Float[Array, "N D"],
    weights: Float[Array, " N"],
    key: Array | None = None,
) -> Any:
    """Sum of ``function(components, points, weights)`` over chunks of the points; no loop where there is one.

    Chunks are read where the points lie, which may be a mapped file that is larger than memory, and only then taken as
    numbers of the type of the components. Under a mesh with an axis `POINTS` every device takes its share of the chunks.
    What they find is added up in the order of the chunks, so that the sum is the same to the last bit on any number of
    devices. With a `key`, the function takes as its last argument one for each chunk, whichever device has it.
    """
    count, size = _division(len(points), num_components)
    dtype = jnp.result_type(*jax.tree.leaves(components))

    def some(operands: tuple, i: Integer[Array, ""]) -> Any:
        components, points, weights, *keys = operands
        x, omega = (_chunk(of_points, i, size).astype(dtype) for of_points in (points, weights))
        # The last chunk begins among the points of the one before, which must not count twice.
        omega = jnp.where(jnp.arange(size) >= (i + 1) * size - len(points), omega, 0)
        return function(components, x, omega, *(random.fold_in(key, i) for key in keys))

    operands = components, points, weights, *([] if key is None else [key])
    if count == 1:
        return function(components, points.astype(dtype), weights.astype(dtype), *operands[3:])
    shapes = jax.eval_shape(some, operands, 0)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    add = lambda total, one: (jax.tree.map(jnp.add, total, one), None)
    if _num_devices() > 1:
        return jax.lax.scan(add, zeros, _each(some, operands, count))[0]
    return jax.lax.scan(lambda total, i: add(total, some(operands, i)), zeros, jnp.arange(count))[0]


def each(
    function: Callable[..., Any], components: Any, num_components: int, points: Float[Array, "N D"], key: Array
) -> Shaped[Array, " N"]:
    """``function(components, points, key)``, a number of every point, in chunks like those of `accumulate`."""
    count, size = _division(len(points), num_components)
    if count == 1:
        return function(components, points, key)

    def some(operands: tuple, i: Integer[Array, ""]) -> Any:
        components, points, key = operands
        return function(components, _chunk(points, i, size), random.fold_in(key, i))

    every = _each(some, (components, points, key), count)
    return jnp.concatenate([every[:-1].reshape(-1), every[-1, count * size - len(points) :]])


def _division(num_points: int, num_components: int) -> tuple[int, int]:
    """How many chunks, and how many points each has; the last one begins earlier where they do not come out even."""
    count = -(-num_points // max(1, PAIRS // num_components))
    return count, -(-num_points // count)


def _chunk(of_points: Array, i: Integer[Array, ""], size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(of_points, jnp.minimum(i * size, len(of_points) - size), size)


def _each(function: Callable[..., Any], operands: Any, count: int) -> Any:
    """``function(operands, i)`` for i from 0 to count - 1, along a new first axis; known to every device of a mesh."""
    num = _num_devices()
    every = lambda operands, indices: jax.lax.map(lambda i: function(operands, i), indices)
    if num == 1:
        return every(operands, jnp.arange(count))
    share = -(-count // num)

    def shared(operands):
        # What fills up the last share is the last chunk once more: it is cut off.
        mine = jnp.minimum(jax.lax.axis_index(POINTS) * share + jnp.arange(share), count - 1)
        return jax.lax.all_gather(every(operands, mine), POINTS, tiled=True)

    # Everything else is on all devices, so that XLA has nothing to divide by itself: it miscounts what has no equal shares.
    everywhere = PartitionSpec()
    found = jax.shard_map(shared, in_specs=everywhere, out_specs=everywhere, check_vma=False)(operands)
    return jax.tree.map(lambda leaf: leaf[:count], found)


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
