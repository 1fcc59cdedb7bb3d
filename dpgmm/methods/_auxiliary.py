"""Sweeps over the points that look at the clusters' parameters: algorithms 2 and 8 of Neal (2000).

Parameters are drawn given the partition, every point takes a seat given them, and they are forgotten: the partition is all
that a state holds, as in algorithm 3. Algorithm 8 needs draws from the base measure and densities, no integrals, and so
serves where nothing is conjugate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Bool, Float, Integer

from ..densities import conjugate, gaussian, quadratic
from ..densities.gaussian import BaseMeasure
from . import _clusters

AUXILIARY = 3
"""Clusters without points among which a point of algorithm 8 may choose."""


class Family(NamedTuple):
    """What a sweep knows of components. Parameters are any tree of arrays with a leading axis of components.

    ``given(key, labels)`` draws the parameters of all slots given their points, empty ones from the base measure, or leaves
    that distribution as it is; ``fresh(key, count, parameters)`` draws `count` from the base measure, `parameters` holding
    what components share; ``log_density(x, parameters)`` is that of one point in each of them.
    """

    given: Callable[[Array, Integer[Array, " N"]], Any]
    fresh: Callable[[Array, int, Any], Any]
    log_density: Callable[[Float[Array, " D"], Any], Float[Array, " K"]]


class Component(NamedTuple):
    """A Gaussian: ``means (K, D)``, factors ``blocks (K, B, d, d)`` and their inverses; ``(1, ..)`` where all share one."""

    means: Float[Array, "K D"]
    blocks: Float[Array, "#K B d d"]
    whiteners: Float[Array, "#K B d d"]


def conjugate_family(points: Float[Array, "N D"], base: BaseMeasure, capacity: int, *, tied: bool) -> Family:
    """Normal-inverse-Wishart components, ``points (N, D)`` measured from ``base.mean``, which is zero."""

    def component(means, blocks):
        return Component(means, blocks, gaussian.inverse(blocks))

    def given(key, labels):
        seen = _clusters.statistics(points, labels, capacity, base)
        return component(*conjugate.sample(key, conjugate.update(*seen, base, tied=tied)))

    def fresh(key, count, parameters):
        many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), base)
        means, blocks = conjugate.sample(key, many)
        if not tied:
            return component(means, blocks)
        noise = random.normal(key, means.shape, means.dtype) / jnp.sqrt(base.kappa)
        return parameters._replace(means=base.mean + conjugate.coloured(parameters.blocks, noise, base))

    def log_density(x, parameters):
        residual = conjugate.in_blocks(x - parameters.means, base)
        white = quadratic.times(parameters.whiteners, residual)
        repeats = conjugate.shape_of(base)[2]
        log_det = repeats * gaussian.log_determinant(parameters.blocks).sum(-1)
        return -0.5 * jnp.sum(white**2, axis=(-1, -2, -3)) - log_det - 0.5 * base.mean.shape[-1] * gaussian.LOG_2PI

    return Family(given, fresh, log_density)


def sweep(
    key: Array,
    labels: Integer[Array, " N"],
    points: Float[Array, "N D"],
    a: Float[Array, ""],
    base: BaseMeasure,
    capacity: int,
    *,
    tied: bool,
    algorithm: int,
) -> tuple[Integer[Array, " N"], Bool[Array, ""]]:
    """As `_collapsed.sweep`, by algorithm 2 or 8."""
    centred = points - base.mean
    base = base._replace(mean=jnp.zeros_like(base.mean))
    family = conjugate_family(centred, base, capacity, tied=tied)
    if algorithm == 8:
        return seats_8(key, labels, centred, a, family, capacity)
    return seats_2(key, labels, centred, a, family, base, capacity, tied=tied)


def seats_8(
    key: Array,
    labels: Integer[Array, " N"],
    points: Float[Array, "N D"],
    a: Float[Array, ""],
    family: Family,
    capacity: int,
) -> tuple[Integer[Array, " N"], Bool[Array, ""]]:
    """Algorithm 8: ``p(z_n = c | others) ~ n_c f(x_n | c)``, and ``a/m f(x_n | .)`` for each of m auxiliary components.

    They are fresh draws from the base measure; where the point leaves a cluster empty, that is the first of them.
    """
    share = a / AUXILIARY

    def choose(key, x, counts, parameters, k):
        key_fresh, key_seat = random.split(key)
        fresh = family.fresh(key_fresh, AUXILIARY, parameters)
        left = counts[k] == 0
        old = lambda new, leaf: new.at[0].set(jnp.where(left, leaf[k], new[0])) if len(leaf) == capacity else new
        fresh = jax.tree.map(old, fresh, parameters)
        log_p = jnp.concatenate([
            jnp.log(share) + family.log_density(x, fresh),
            jnp.log(counts) + family.log_density(x, parameters),
        ])  # fmt: skip
        seat = random.categorical(key_seat, log_p)
        return seat - AUXILIARY, fresh, jnp.minimum(seat, AUXILIARY - 1)

    return _seated(key, labels, points, family, capacity, choose)


def seats_2(
    key: Array,
    labels: Integer[Array, " N"],
    points: Float[Array, "N D"],
    a: Float[Array, ""],
    family: Family,
    base: BaseMeasure,
    capacity: int,
    *,
    tied: bool,
) -> tuple[Integer[Array, " N"], Bool[Array, ""]]:
    """Algorithm 2: ``n_c f(x_n | c)``, and ``a t_0(x_n)`` for a new cluster, whose parameters are drawn given x_n."""

    def choose(key, x, counts, parameters, _):
        key_new, key_seat = random.split(key)
        one = jnp.ones((1,), x.dtype), x[None], conjugate.product(x, x, base)[None]
        if tied:
            covariance = parameters.blocks[0] @ jnp.swapaxes(parameters.blocks[0], -1, -2)
            wide = gaussian.cholesky(covariance * (1 + 1 / base.kappa))[None]
            log_new = family.log_density(x, Component(base.mean[None], wide, gaussian.inverse(wide)))[0]
            fresh = family.fresh(key_new, 1, parameters)
            shrunk = jnp.sqrt(base.kappa / (base.kappa + 1))
            fresh = fresh._replace(means=x / (base.kappa + 1) + shrunk * fresh.means)
        else:
            log_new = conjugate.log_marginal(*one, base)[0]
            means, blocks = conjugate.sample(key_new, conjugate.update(*one, base))
            fresh = Component(means, blocks, gaussian.inverse(blocks))
        log_p = jnp.append(jnp.log(a) + log_new, jnp.log(counts) + family.log_density(x, parameters))
        return random.categorical(key_seat, log_p) - 1, fresh, 0

    return _seated(key, labels, points, family, capacity, choose)


def _seated(
    key: Array,
    labels: Integer[Array, " N"],
    points: Float[Array, "N D"],
    family: Family,
    capacity: int,
    choose: Callable[..., tuple[Integer[Array, ""], Any, Any]],
) -> tuple[Integer[Array, " N"], Bool[Array, ""]]:
    """Every point in turn leaves its cluster for the seat that `choose` gives it; labels, and whether slots ran out.

    A seat below zero is a new cluster's: new ones come first among the seats that a random number decides between, so that
    the same key takes the same path when it runs again with more slots.
    """
    key_given, key_points = random.split(key)
    counts = jnp.zeros(capacity, points.dtype).at[labels].add(1)

    def seat(carry, xs):
        counts, parameters, full = carry
        x, k, key = xs
        counts = counts.at[k].add(-1)
        chosen, fresh, which = choose(key, x, counts, parameters, k)
        new, free = chosen < 0, jnp.argmin(counts)
        z = jnp.where(new, free, chosen)

        def put(leaf, row):
            return leaf.at[free].set(jnp.where(new, row[which], leaf[free])) if len(leaf) == capacity else leaf

        return (counts.at[z].add(1), jax.tree.map(put, parameters, fresh), full | (counts[free] > 0)), z

    start = counts, family.given(key_given, labels), jnp.zeros((), bool)
    (counts, _, full), labels = jax.lax.scan(seat, start, (points, labels, random.split(key_points, len(labels))))
    return labels, full | (counts > 0).all()
