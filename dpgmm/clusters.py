"""Clusters with their parameters integrated out, changed by one point at a time.

Adding (s = 1) or removing (s = -1) a point x changes the normal-inverse-Wishart posterior by a matrix of rank one, and its
inverse by Sherman & Morrison's formula. With ``d = x - m_n``, ``kappa' = kappa_n + s``, ``c = s kappa_n / kappa'``:

    m' = m_n + s d / kappa',  Psi' = Psi_n + c d d^T,  P' = P - c (P d)(P d)^T / (1 + c d^T P d),  P = Psi_n^{-1}

and ``log|Psi'| = log|Psi_n| + log(1 + c d^T P d)``. A change takes O(D^2), the density of a point in all clusters O(K D^2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln

from . import conjugate
from .gaussian import BaseMeasure, inverse, log_determinant

CHUNK = 65_536
"""Numbers of outer products held at a time where statistics are summed over points."""


class Clusters(NamedTuple):
    """K clusters, some of them empty. ``offsets``: what of a point's log density does not depend on the point.

    Shapes: ``counts (K,)``, ``means (K, D)``, ``precisions (K, D, D)``, ``log_dets (K,)``, ``offsets (K,)``.
    """

    counts: Array
    means: Array
    precisions: Array
    log_dets: Array
    offsets: Array


def statistics(points: Array, labels: Array, num_clusters: int) -> tuple[Array, Array, Array]:
    """Counts ``(K,)``, sums ``(K, D)`` and sums of ``x x^T`` ``(K, D, D)``; points labelled -1 are in no cluster."""
    size, dim = points.shape
    chunk = max(1, min(size, CHUNK // dim**2))
    pad = -size % chunk
    rows = jnp.pad(points, ((0, pad), (0, 0))).reshape(-1, chunk, dim)
    # Out of range: dropped by the scatter.
    places = jnp.pad(jnp.where(labels < 0, num_clusters, labels), (0, pad), constant_values=num_clusters)

    def add(total, some):
        x, z = some
        counts, sums, squares = (t.at[z].add(s, mode="drop") for t, s in zip(total, (1.0, x, _outer(x)), strict=True))
        return (counts, sums, squares), None

    empty = jnp.zeros((num_clusters, dim), points.dtype)
    zeros = empty[:, 0], empty, _outer(empty)
    return jax.lax.scan(add, zeros, (rows, places.reshape(-1, chunk)))[0]


def _outer(x: Array) -> Array:
    """``x x^T``: ``(..., D)`` to ``(..., D, D)``."""
    return x[..., :, None] * x[..., None, :]


def build(counts: Array, sums: Array, squares: Array, base: BaseMeasure) -> Clusters:
    """Clusters of these statistics, with x measured from ``base.mean``, as everything here."""
    of_cluster = conjugate.update(counts, sums, squares, base)
    whitener = inverse(of_cluster.scale_tril)
    log_dets = 2 * log_determinant(of_cluster.scale_tril)
    precisions = jnp.swapaxes(whitener, -1, -2) @ whitener
    offsets = _offset(counts, log_dets, base, sums.shape[-1])
    return Clusters(counts, of_cluster.mean - base.mean, precisions, log_dets, offsets)


def empty(base: BaseMeasure) -> Clusters:
    """One empty cluster, without the leading axis."""
    dim = base.mean.shape[-1]
    dtype = base.scale_tril.dtype
    return build(jnp.zeros((), dtype), jnp.zeros(dim, dtype), jnp.zeros((dim, dim), dtype), base)


def change(clusters: Clusters, k: Array, x: Array, sign: float, base: BaseMeasure, nobody: Clusters) -> Clusters:
    """The clusters with point x added to cluster k (`sign` 1) or removed from it (-1). `nobody` is `empty(base)`."""
    one = jax.tree.map(lambda leaf: leaf[k], clusters)
    kappa = base.kappa + one.counts
    new_kappa, counts = kappa + sign, one.counts + sign
    c = sign * kappa / new_kappa
    residual = x - one.means
    image = one.precisions @ residual
    growth = 1 + c * (residual @ image)
    means = one.means + sign * residual / new_kappa
    precisions = one.precisions - (c / growth) * image[:, None] * image[None, :]
    log_dets = one.log_dets + jnp.log(growth)
    changed = Clusters(counts, means, precisions, log_dets, _offset(counts, log_dets, base, x.shape[-1]))
    if sign < 0:
        # The last point to leave takes its rounding errors with it.
        changed = jax.tree.map(lambda a, b: jnp.where(counts > 0, a, b), changed, nobody)
    return jax.tree.map(lambda leaf, row: leaf.at[k].set(row), clusters, changed)


def log_predictive(clusters: Clusters, x: Array, base: BaseMeasure) -> Array:
    """Log density of the next point of each cluster at x, ``(K,)``: a multivariate t.

    ``offset - (df_n + 1)/2 log(1 + kappa_n / (kappa_n + 1) d^T P d)``. Source: Murphy (2007), eq. 258.
    """
    residual = x - clusters.means
    kappa = base.kappa + clusters.counts
    distance = jnp.sum(jnp.sum(clusters.precisions * residual[:, None, :], axis=-1) * residual, axis=-1)
    return clusters.offsets - 0.5 * (base.df + clusters.counts + 1) * jnp.log1p(kappa / (kappa + 1) * distance)


def _offset(counts: Array, log_dets: Array, base: BaseMeasure, dim: int) -> Array:
    """``log Gamma((df_n + 1)/2) - log Gamma((df_n + 1 - D)/2) - (D log pi + D log(1 + 1/kappa_n) + log|Psi_n|) / 2``."""
    df, kappa = base.df + counts, base.kappa + counts
    of_gammas = gammaln(0.5 * (df + 1)) - gammaln(0.5 * (df + 1 - dim))
    return of_gammas - 0.5 * (dim * (jnp.log(jnp.pi) + jnp.log1p(1 / kappa)) + log_dets)
