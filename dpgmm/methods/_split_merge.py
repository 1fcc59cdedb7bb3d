"""Split-merge moves of partitions: whole clusters at once, where moving point by point would take ages."""

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.nn import log_sigmoid
from jax.scipy.special import gammaln

from .. import clusters, conjugate
from ..gaussian import BaseMeasure

SCANS = 2
"""Restricted Gibbs scans before the one that proposes."""


def split_merge(
    key: Array, labels: Array, points: Array, a: Array, base: BaseMeasure, capacity: int, tied: bool = False
) -> tuple[Array, Array]:
    """One Metropolis-Hastings proposal: two random points' common cluster is split, or their two clusters are merged.

    Points of those clusters are dealt to two sides at random, improved by `SCANS` restricted Gibbs scans (the launch state),
    and one more scan, of probability q, proposes the split; a merge is weighed against the same scan forced back to the
    present sides. A split is accepted with odds ``a Gamma(n_1) Gamma(n_2) m(x_1) m(x_2) / (Gamma(n) m(x) q)``, m being a
    cluster's evidence; for clusters that share one covariance (`tied`), given the other clusters. Returns labels, and
    whether no slot was empty. Source: Jain & Neal (2004), section 3.2.
    """
    key_pair, key_deal, key_scan, key_accept = random.split(key, 4)
    centred = points - base.mean
    base = base._replace(mean=jnp.zeros_like(base.mean))
    size = labels.shape[0]
    i = random.randint(key_pair, (), 0, size)
    j = (i + random.randint(random.fold_in(key_pair, 1), (), 1, size)) % size
    together = labels[i] == labels[j]
    member = (labels == labels[i]) | (labels == labels[j])
    loose = member.at[i].set(False).at[j].set(False)
    if tied:
        base = _given_others(jnp.where(member, -1, labels), centred, base, capacity)
    fixed = lambda sides: jnp.where(member, sides, -1).at[i].set(0).at[j].set(1)
    sides = fixed(random.bernoulli(key_deal, shape=(size,)).astype(labels.dtype))
    # For a split the present sides mean nothing, and none is forced.
    present = fixed((labels == labels[j]).astype(labels.dtype))
    for scan in range(SCANS):
        sides, _ = _restricted(random.fold_in(key_scan, scan), sides, sides, False, loose, centred, base, tied)
    sides, log_q = _restricted(key_scan, sides, present, ~together, loose, centred, base, tied)
    counts, sums, squares = clusters.statistics(centred, sides, 2, base)
    of_each = conjugate.log_evidence if tied else conjugate.log_marginal
    evidence = of_each(counts, sums, squares, base).sum()
    whole = conjugate.log_marginal(counts.sum(), sums.sum(0), squares.sum(0), base)
    log_split = jnp.log(a) + gammaln(counts).sum() - gammaln(counts.sum()) + evidence - whole - log_q
    occupied = jnp.zeros(capacity, bool).at[labels].set(True)
    apart = jnp.where(sides == 1, jnp.argmin(occupied), labels)
    proposal = jnp.where(together, apart, jnp.where(member, labels[i], labels))
    accept = jnp.log(random.uniform(key_accept, dtype=a.dtype)) < jnp.where(together, log_split, -log_split)
    return jnp.where(accept, proposal, labels), accept & together & occupied.all()


def _given_others(labels: Array, points: Array, base: BaseMeasure, capacity: int) -> BaseMeasure:
    """The base measure of clusters with one covariance, once it has seen the scatter of those labelled 0 or more."""
    others = conjugate.update(*clusters.statistics(points, labels, capacity, base), base, tied=True)
    return base._replace(df=others.df[0], scale_tril=others.scale_tril[0])


def _restricted(key, sides, present, forced, loose, points, base, tied) -> tuple[Array, Array]:
    """One scan of the `loose` points over two clusters: new sides, sampled or `forced` to the present ones, and log q."""
    nobody = clusters.empty(base)

    def seat(carry, xs):
        table, log_q = carry
        x, side, now, free, u = xs
        without = clusters.change(table, side, x, -1, base, nobody)
        log_p = jnp.log(without.counts) + clusters.log_predictive(without, x, base)
        log_odds = log_p[1] - log_p[0]
        new = jnp.where(forced, now, jnp.log(u) < log_sigmoid(log_odds))
        moved = clusters.change(without, new, x, 1, base, nobody)
        table = jax.tree.map(lambda m, t: jnp.where(free, m, t), moved, table)
        chosen = log_sigmoid(jnp.where(new == 1, log_odds, -log_odds))
        return (table, log_q + jnp.where(free, chosen, 0.0)), jnp.where(free, new, side)

    table = clusters.build(*clusters.statistics(points, sides, 2, base), base, tied)
    uniforms = random.uniform(key, sides.shape, points.dtype)
    (_, log_q), sides = jax.lax.scan(
        seat, (table, jnp.zeros((), points.dtype)), (points, sides, present, loose, uniforms)
    )
    return sides, log_q
