"""Split-merge moves of partitions: whole clusters at once, where moving point by point would take ages.

A proposal looks at every point once and independently of the others, so that it is one vectorised pass over any number of
points, and its probability is a product. What it needs to deal the points well, two clusters fitted to them, is found by a
launch that knows the two points and the set to be divided, and nothing of how it is divided at present: it cancels from
the odds, whatever it does. The same moves serve partitions without labels and allocations to labelled components, which
differ in the prior of where a new cluster stands alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.nn import log_sigmoid
from jax.scipy.special import gammaln
from jaxtyping import Bool, Float, Integer

from ..densities import conjugate
from ..densities.gaussian import BaseMeasure
from . import _clusters
from ._clusters import Statistics

SCANS, MORE_SCANS = 4, 20
"""Steps of expectation-maximisation in a launch; more where it looks at a sample, and they cost little beside the deal."""
LAUNCH = 8_192
"""Points that a launch looks at, at most. Their number limits splits: two clusters found from n of N points lose about
N / 2n nats a parameter beside the best two."""
NUMBERS = 262_144
"""Numbers of outer products held at a time while points are dealt."""

Places = Callable[[Float[Array, " K"], Array, Float[Array, ""], Float[Array, ""]], Float[Array, " K"]]
"""``places(counts (K,), c, n_1, n_2) -> (K,)``: for every slot, the log prior of allocations with n_1 points in slot c and
n_2 in this one, above that of all of them in slot c, as `counts` has them; minus infinity for slots that are taken."""


class Partition(NamedTuple):
    """Labels ``(N,)``; the clusters' statistics, ``(K,)``, ``(K, D)`` and ``(K, B, d, d)``, about the base mean; how many
    moves were accepted; and whether a move found no empty slot."""

    labels: Integer[Array, " N"]
    statistics: Statistics
    accepted: Integer[Array, ""]
    full: Bool[Array, ""]


def moves(
    key: Array,
    number: int,
    labels: Integer[Array, " N"],
    statistics: tuple,  # `Statistics`, or nothing where no moves are proposed.
    points: Float[Array, "N D"],
    base: BaseMeasure,
    *,
    tied: bool,
    places: Places,
    within: float = 0.0,
) -> Partition:
    """`number` proposals of `split_merge`, one after the other; `points` and `statistics` are about ``base.mean``."""
    base = base._replace(mean=jnp.zeros_like(base.mean))
    start = Partition(labels, statistics, jnp.zeros((), int), jnp.zeros((), bool))
    if number == 0 or len(points) < 2:
        return start

    def body(i, now):
        return split_merge(random.fold_in(key, i), now, points, base, tied=tied, places=places, within=within)

    return jax.lax.fori_loop(0, number, body, start)


def split_merge(
    key: Array,
    now: Partition,
    points: Float[Array, "N D"],
    base: BaseMeasure,
    *,
    tied: bool,
    places: Places,
    within: float = 0.0,
) -> Partition:
    """One Metropolis-Hastings proposal: two random points' common cluster is split, or their two clusters are merged.

    Points i and j are the first of the two sides: i is any point, j any other one, or with probability `within` another
    one of the cluster of i, which weighs in the odds (`_log_choice`). Every other point n of their clusters goes to the
    side of j with probability ``p_n``, independently, which the `_launch` has found. With q the probability of the
    sides, a split is accepted with odds ``sum_e p(z_e) m(x_1) m(x_2) / (p(z) m(x) q)``, and a merge with the inverse: m is a
    cluster's evidence, z the allocations with all points in one slot, z_e those with the side of j in the empty slot e,
    which is drawn from ``p(z_e)``. For clusters that share one covariance (`tied`) evidences are given the other clusters.
    As ``q <= 1``, a merge that would be rejected even with ``q = 1`` is rejected before any point is looked at. Source:
    Jain & Neal (2004), section 3.1, with independent allocations; a launch by Gibbs scans is theirs.
    """
    key_i, key_j, key_launch, key_sides, key_place, key_accept = random.split(key, 6)
    labels, statistics = now.labels, now.statistics
    size = labels.shape[0]
    i = random.randint(key_i, (), 0, size)
    j = _second(key_j, i, labels, statistics[0], within)
    c, d = labels[i], labels[j]
    together = c == d
    log_u = jnp.log(random.uniform(key_accept, dtype=points.dtype))
    pair = jax.tree.map(lambda leaf: jnp.stack([leaf[c], jnp.where(together, 0.0, leaf[d])]), statistics)
    whole: Statistics = jax.tree.map(lambda leaf: leaf.sum(0), pair)
    without = jax.tree.map(lambda leaf: leaf.at[c].set(0.0).at[d].set(0.0), statistics)
    if tied:
        base = _given_others(without, base)
    merged = jax.tree.map(lambda leaf, one: leaf.at[c].set(one), without, whole)

    def log_gain(sides: Statistics):
        """Log odds of the two sides against the whole, and the log prior of every place of the second."""
        of_each = conjugate.log_evidence if tied else conjugate.log_marginal
        log_prior = places(merged[0], c, sides[0][0], sides[0][1])
        log_odds = jax.nn.logsumexp(log_prior) + of_each(*sides, base).sum() - conjugate.log_marginal(*whole, base)
        log_odds += _log_choice(sides[0][0], size, together=False, within=within) - _log_choice(
            whole[0], size, together=True, within=within
        )
        return log_odds, log_prior

    def propose(_):
        member = (labels == c) | (labels == d)
        launched = _launch(key_launch, i, j, member, points, base, tied=tied)
        uniforms = random.uniform(key_sides, labels.shape, points.dtype)
        sides, log_q, of_sides = _deal(launched, i, j, together, labels == d, member, uniforms, points, base)
        log_odds, log_prior = log_gain(of_sides)
        accept = log_u < jnp.where(together, log_odds - log_q, log_q - log_odds)
        e = random.categorical(key_place, log_prior)
        split = jax.tree.map(lambda m, s: m.at[c].set(s[0]).at[e].set(s[1]), merged, of_sides)
        new = jnp.where(together, jnp.where(sides, e, labels), jnp.where(member, c, labels))
        pick = lambda a, b: jnp.where(accept, a, b)
        return Partition(
            pick(new, labels),
            jax.tree.map(lambda s, m, old: pick(jnp.where(together, s, m), old), split, merged, statistics),
            now.accepted + accept,
            now.full | (accept & together & (merged[0][e] > 0)),
        )

    # The sides that are, where they are two.
    hopeless = ~together & (log_u >= -log_gain(pair)[0])
    return jax.lax.cond(hopeless, lambda _: now, propose, None)


def _second(
    key: Array, i: Integer[Array, ""], labels: Integer[Array, " N"], counts: Float[Array, " K"], within: float
) -> Integer[Array, ""]:
    """The second point of a pair, ``()``: any other one, or with probability `within` another one of the first's cluster."""
    size = len(labels)
    j = (i + random.randint(key, (), 1, size)) % size
    if within == 0:
        return j
    key_which, key_rank = random.split(random.fold_in(key, 1))
    mates = counts[labels[i]].astype(int) - 1
    same = jnp.cumsum((labels == labels[i]) & (jnp.arange(size) != i))
    mate = jnp.searchsorted(same, random.randint(key_rank, (), 0, jnp.maximum(mates, 1)), side="right")
    return jnp.where((mates > 0) & (random.uniform(key_which) < within), mate, j)


def _log_choice(count: Float[Array, ""], size: int, *, together: bool, within: float) -> Float[Array, ""]:
    """Log probability of a second point given the first, whose cluster has `count` points, above that of any other one."""
    mates = jnp.maximum(count - 1, 1)
    of_mates = within * (size - 1) / mates if together else 0.0
    return jnp.where(count > 1, jnp.log1p(of_mates - within), 0.0)


def partition_places(a: Float[Array, ""] | float) -> Places:
    """`Places` of the Chinese restaurant process: slots mean nothing, and the first empty one is taken.

    ``log a + log Gamma(n_1) + log Gamma(n_2) - log Gamma(n_1 + n_2)``. Where no slot is empty some slot has it all the same.
    """

    def places(counts, c, n_1, n_2):
        value = jnp.log(a) + gammaln(n_1) + gammaln(n_2) - gammaln(n_1 + n_2)
        return jnp.where(jnp.arange(len(counts)) == jnp.argmin(counts), value, -jnp.inf)

    return places


def allocation_places(log_prior: Callable[[Float[Array, " K"]], Float[Array, ""]]) -> Places:
    """`Places` of labelled components, `log_prior` of their counts ``(K,)``, weights integrated out, being ``()``."""

    def places(counts, c, n_1, n_2):
        at = lambda e: log_prior(counts.at[c].set(n_1).at[e].set(n_2))
        value = jax.vmap(at)(jnp.arange(len(counts))) - log_prior(counts)
        return jnp.where(counts > 0, -jnp.inf, value)

    return places


def _given_others(others: Statistics, base: BaseMeasure) -> BaseMeasure:
    """The base measure of clusters with one covariance, once it has seen the scatter of the others."""
    seen = conjugate.update(*others, base, tied=True)
    return base._replace(df=seen.df[0], scale_tril=seen.scale_tril[0])


def _launch(
    key: Array,
    i: Integer[Array, ""] | int,
    j: Integer[Array, ""] | int,
    member: Bool[Array, " N"],
    points: Float[Array, "N D"],
    base: BaseMeasure,
    *,
    tied: bool,
) -> _clusters.Clusters:
    """Two clusters of the members, found by `SCANS` soft allocations that set out from points i and j alone.

    Where there are more than `LAUNCH` points it looks at that many members, drawn at random with replacement.
    """
    rows, weights, scans = points, member.astype(points.dtype), SCANS
    if len(points) > LAUNCH:
        rank = jnp.cumsum(member)
        drawn = jnp.searchsorted(rank, random.randint(key, (LAUNCH,), 0, rank[-1]), side="right")
        rows, weights, scans = points[drawn], jnp.ones(LAUNCH, points.dtype), MORE_SCANS
    ends = jnp.stack([points[i], points[j]])
    table = _clusters.build(jnp.ones(2, points.dtype), ends, conjugate.product(ends, ends, base), base, tied=tied)

    def scan(_, table):
        second = jax.nn.sigmoid(_log_odds(table, rows, base))
        seen = _clusters.soft_statistics(rows, weights[:, None] * jnp.stack([1 - second, second], axis=1), base)
        return _clusters.build(*seen, base, tied=tied)

    return jax.lax.fori_loop(0, scans, scan, table)


def _log_odds(table: _clusters.Clusters, points: Float[Array, "N D"], base: BaseMeasure) -> Float[Array, " N"]:
    """Log odds of the second of two clusters, for every point: ``(N,)``."""
    log_p = jax.vmap(_clusters.log_predictive, (None, 0, None))(table, points, base) + jnp.log1p(table.counts)
    return log_p[:, 1] - log_p[:, 0]


def _deal(
    table: _clusters.Clusters,
    i: Integer[Array, ""] | int,
    j: Integer[Array, ""] | int,
    free: Bool[Array, ""],
    present: Bool[Array, " N"],
    member: Bool[Array, " N"],
    uniforms: Float[Array, " N"],
    points: Float[Array, "N D"],
    base: BaseMeasure,
) -> tuple[Bool[Array, " N"], Float[Array, ""], Statistics]:
    """Sides of the members, drawn where `free`, else the `present` ones; the log probability q; the sides' statistics."""
    size, (blocks, block, _) = len(points), conjugate.shape_of(base)
    chunk = max(1, min(size, NUMBERS // (2 * blocks * block * block)))
    rows = jnp.arange(size), points, member, present, uniforms
    rows = tuple(jnp.pad(r, ((0, -size % chunk), *((0, 0),) * (r.ndim - 1))) for r in rows)
    rows = tuple(r.reshape(-1, chunk, *r.shape[1:]) for r in rows)

    def some(total, row):
        n, x, member, present, u = row
        log_odds = _log_odds(table, x, base)
        second = jnp.where(free, jnp.log(u) < log_sigmoid(log_odds), present)
        dealt = member & (n != i) & (n != j)
        second = member & ((second & (n != i)) | (n == j))
        log_q = jnp.sum(jnp.where(dealt, log_sigmoid(jnp.where(second, log_odds, -log_odds)), 0.0))
        members = jnp.stack([member & ~second, second], axis=1).astype(x.dtype)
        new = log_q, _clusters.soft_statistics(x, members, base)
        return jax.tree.map(jnp.add, total, new), second

    zeros = jnp.zeros((2, points.shape[1]), points.dtype)
    total = jnp.zeros((), points.dtype), (zeros[:, 0], zeros, conjugate.product(zeros, zeros, base))
    (log_q, of_sides), second = jax.lax.scan(some, total, rows)
    return second.reshape(-1)[:size], log_q, of_sides
