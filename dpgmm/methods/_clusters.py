"""Clusters with their parameters integrated out, changed by one point at a time.

Adding (s = 1) or removing (s = -1) a point x changes the normal-inverse-Wishart posterior by a matrix of rank one, and its
inverse by Sherman & Morrison's formula. With ``d = x - m_n``, ``kappa' = kappa_n + s``, ``c = s kappa_n / kappa'``:

    m' = m_n + s d / kappa',  Psi' = Psi_n + c d d^T,  P' = P - c (P d)(P d)^T / (1 + c d^T P d),  P = Psi_n^{-1}

and ``log|Psi'| = log|Psi_n| + log(1 + c d^T P d)``. A change takes O(D^2), the density of a point in all clusters O(K D^2).
Where a block's variance holds for R dimensions on end, d = 1 and ``d^T P d`` is the sum over them. Clusters that share one
covariance have one Psi, P and df, to which every change of every cluster is made.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import dynamic_index_in_dim, dynamic_update_index_in_dim
from jax.scipy.special import gammaln
from jaxtyping import Float, Integer

from ..densities import conjugate, quadratic
from ..densities.gaussian import BaseMeasure, inverse, log_determinant

Statistics = tuple[Float[Array, " K"], Float[Array, "K D"], Float[Array, "K B d d"]]

CHUNK = 65_536
"""Numbers of outer products held at a time where statistics are summed over points."""


class Clusters(NamedTuple):
    """K clusters, some of them empty. ``offsets``: what of a point's log density does not depend on the point.

    Shapes: ``counts (K,)``, ``means (K, D)``, ``dfs (K,)``, ``precisions (K, B, d, d)``, ``log_dets (K, B)``,
    ``offsets (K,)``; the axis of `dfs`, `precisions` and `log_dets` has length 1 where all share one covariance.
    """

    counts: Float[Array, "*K"]
    means: Float[Array, "*K D"]
    dfs: Float[Array, "*#K"]
    precisions: Float[Array, "*#K B d d"]
    log_dets: Float[Array, "*#K B"]
    offsets: Float[Array, "*K"]


def statistics(
    points: Float[Array, "N D"], labels: Integer[Array, " N"], num_clusters: int, base: BaseMeasure
) -> Statistics:
    """Counts, sums and sums of ``x x^T``; points labelled -1 are in no cluster."""
    size, dim = points.shape
    zeros = jnp.zeros((num_clusters, dim), points.dtype)
    totals = zeros[:, 0], zeros, conjugate.product(zeros, zeros, base)
    chunk = max(1, min(size, CHUNK // totals[2][0].size))
    pad = -size % chunk
    rows = jnp.pad(points, ((0, pad), (0, 0))).reshape(-1, chunk, dim)
    # Out of range: dropped by the scatter.
    places = jnp.pad(jnp.where(labels < 0, num_clusters, labels), (0, pad), constant_values=num_clusters)

    def add(total, some):
        x, z = some
        new = 1.0, x, conjugate.product(x, x, base)
        return tuple(t.at[z].add(s, mode="drop") for t, s in zip(total, new, strict=True)), None

    return jax.lax.scan(add, totals, (rows, places.reshape(-1, chunk)))[0]


def soft_statistics(points: Float[Array, "N D"], members: Float[Array, "N K"], base: BaseMeasure) -> Statistics:
    """`statistics` of points that belong to K clusters to the degrees `members`, all at once."""
    squares = jnp.tensordot(members, conjugate.product(points, points, base), axes=(0, 0))
    return members.sum(0), members.T @ points, squares


def build(
    counts: Float[Array, "*K"],
    sums: Float[Array, "*K D"],
    squares: Float[Array, "*K B d d"],
    base: BaseMeasure,
    *,
    tied: bool = False,
) -> Clusters:
    """Clusters of these statistics, with x measured from ``base.mean``, as everything here. `tied`: one covariance."""
    of_cluster = conjugate.update(counts, sums, squares, base, tied=tied)
    whitener = inverse(of_cluster.scale_tril)
    log_dets = 2 * log_determinant(of_cluster.scale_tril)
    precisions = jnp.swapaxes(whitener, -1, -2) @ whitener
    offsets = _offset(of_cluster.df, of_cluster.kappa, log_dets, base)
    return Clusters(counts, of_cluster.mean - base.mean, of_cluster.df, precisions, log_dets, offsets)


def empty(base: BaseMeasure) -> Clusters:
    """One empty cluster, without the leading axis."""
    nothing = jnp.zeros_like(base.mean)
    return build(jnp.zeros((), base.mean.dtype), nothing, conjugate.product(nothing, nothing, base), base)


def change(
    clusters: Clusters,
    k: Integer[Array, ""] | int,
    x: Float[Array, " D"],
    sign: int | float,
    base: BaseMeasure,
    empty_cluster: Clusters,
) -> Clusters:
    """The clusters with point x added to cluster k (`sign` 1) or removed from it (-1). `empty_cluster` is `empty(base)`."""
    at = lambda leaf: k if len(leaf) == len(clusters.counts) else 0
    one = jax.tree.map(lambda leaf: dynamic_index_in_dim(leaf, at(leaf), keepdims=False), clusters)
    kappa = base.kappa + one.counts
    new_kappa, counts = kappa + sign, one.counts + sign
    c = sign * kappa / new_kappa
    residual = x - one.means
    in_blocks = conjugate.in_blocks(residual, base)
    image = quadratic.times(one.precisions, in_blocks)
    growth = 1 + c * jnp.sum(in_blocks * image, axis=(-1, -2))
    means = one.means + sign * residual / new_kappa
    outer = jnp.sum(image[..., :, None, :] * image[..., None, :, :], axis=-1)
    precisions = one.precisions - (c / growth)[..., None, None] * outer
    log_dets = one.log_dets + jnp.log(growth)
    dfs = one.dfs + sign * conjugate.shape_of(base)[2]
    changed = Clusters(counts, means, dfs, precisions, log_dets, _offset(dfs, new_kappa, log_dets, base))
    if sign < 0:
        # The last point to leave takes its rounding errors with it, but for what others share.
        own = lambda a, b, leaf: jnp.where((counts > 0) | (len(leaf) != len(clusters.counts)), a, b)
        changed = jax.tree.map(own, changed, empty_cluster, clusters)
    table = jax.tree.map(lambda leaf, row: dynamic_update_index_in_dim(leaf, row, at(leaf), 0), clusters, changed)
    if len(clusters.dfs) == len(clusters.counts):
        return table
    return table._replace(offsets=_offset(table.dfs, base.kappa + table.counts, table.log_dets, base))


def log_predictive(clusters: Clusters, x: Float[Array, " D"], base: BaseMeasure) -> Float[Array, " K"]:
    """Log density of the next point of each cluster at x: a product over blocks of multivariate t.

    ``offset - (df_n + R)/2 log(1 + kappa_n / (kappa_n + 1) d^T P d)``. Source: Murphy (2007), eq. 258.
    """
    residual = conjugate.in_blocks(x - clusters.means, base)
    kappa = (base.kappa + clusters.counts)[:, None]
    image = quadratic.times(clusters.precisions, residual)
    distance = jnp.sum(image * residual, axis=(-1, -2))
    exponent = 0.5 * (clusters.dfs + conjugate.shape_of(base)[2])
    return clusters.offsets - exponent * jnp.sum(jnp.log1p(kappa / (kappa + 1) * distance), axis=-1)


def _offset(
    df: Float[Array, "*#K"], kappa: Float[Array, "*K"], log_dets: Float[Array, "*#K B"], base: BaseMeasure
) -> Float[Array, "*K"]:
    """``log Gamma((df_n + R)/2) - log Gamma((df_n + 1 - d)/2) - (d R log pi + d R log(1 + 1/kappa_n) + R log|Psi_n|) / 2``.

    Summed over blocks. One of d and R is 1. Shapes: ``df (...)``, ``kappa (...)``, ``log_dets (..., B)`` to ``(...)``.
    """
    blocks, size, repeats = conjugate.shape_of(base)
    gammas_term = gammaln(0.5 * (df + repeats)) - gammaln(0.5 * (df + 1 - size))
    points_term = base.mean.shape[-1] * (jnp.log(jnp.pi) + jnp.log1p(1 / kappa))
    return blocks * gammas_term - 0.5 * (points_term + repeats * log_dets.sum(-1))
