"""What leads coordinate ascent faster and further: extrapolation, the order of components, merge, split and delete.

Each is accepted by the bound, so that it never falls. Moves are made of the statistics alone, without the points: passes
that follow put right what a proposal got wrong, before it is judged.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.scipy.stats import norm
from jaxtyping import Bool, Float, Integer

from ..densities import conjugate, quadratic
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Arrays, Conjugate
from . import _cavi_weights
from ._cavi_passes import CAVIState, Statistics, components, from_statistics, step

FURTHEST = 4.0
"""Factor by which the longest extrapolation grows where it was of use, and shrinks where it was not."""
OCCUPIED = 0.5
"""Expected points above which a component takes part in moves."""
RANKS = 2.0
"""Merges are tried with a probability that falls by e over so many ranks."""


class Climb(NamedTuple):
    """A state under way, the longest extrapolation that it trusts, and a bound that it has reached."""

    state: CAVIState
    reach: Float[Array, ""]
    bound: Float[Array, ""]


def begin(state: CAVIState) -> Climb:
    """A climb from a state of unknown bound."""
    return Climb(state, jnp.ones_like(state.log_mean), jnp.full_like(state.log_mean, -jnp.inf))


def cycle(climb: Climb, data: Arrays, prior: Conjugate) -> Climb:
    """Two passes, an extrapolation of them and a third from there, then the best order of the components.

    With ``r = S_1 - S_0`` and ``v = S_2 - S_1 - r`` the third starts at ``S_0 - 2 l r + l^2 v``, ``l = -|r|/|v|``
    (SQUAREM, Varadhan & Roland 2008, scheme S3); if the bound there is below that of S_1, S_2 stands instead. Norms are in
    units of a typical component.
    """

    def extrapolated(start: CAVIState, first: CAVIState, second: CAVIState) -> tuple[CAVIState, Float[Array, ""]]:
        r = jax.tree.map(jnp.subtract, first.statistics, start.statistics)
        v = jax.tree.map(lambda s, f, r: s - f - r, second.statistics, first.statistics, r)
        length = jnp.clip(_norm(r, prior.base) / jnp.maximum(_norm(v, prior.base), 1e-300), 1.0, climb.reach)
        ahead = jax.tree.map(lambda s, r, v: s + 2 * length * r + length**2 * v, start.statistics, r, v)
        ahead = ahead._replace(counts=jnp.maximum(ahead.counts, 0.0))
        return CAVIState(ahead, _cavi_weights.fitted(ahead.counts, second.log_mean, prior)), length

    def one(last: tuple[CAVIState, CAVIState, CAVIState], third: Bool[Array, ""]):
        here, length = jax.lax.cond(third, extrapolated, lambda _, __, now: (now, jnp.ones_like(climb.reach)), *last)
        after, bound = step(here, data, prior)
        return (*last[1:], after), (bound, length)

    # A loop, so that there is one pass to compile and not three.
    (_, second, third), (bounds, lengths) = jax.lax.scan(
        one, (climb.state, climb.state, climb.state), jnp.arange(3) == 2
    )
    reached, further, length = bounds[1], bounds[2], lengths[2]
    fine = further >= reached
    reach = jnp.where(fine, jnp.where(length >= climb.reach, FURTHEST, 1.0), 1 / FURTHEST) * climb.reach
    state = jax.tree.map(lambda a, b: jnp.where(fine, a, b), third, second)
    return Climb(ordered(state, prior), jnp.maximum(reach, 1.0), jnp.where(fine, further, reached))


def ordered(state: CAVIState, prior: Conjugate) -> CAVIState:
    """The state, or the same with components by falling counts, where that lifts the bound: sticks are not exchangeable."""
    if prior.weights == "dirichlet":
        return state
    candidates = state, from_order(state, jnp.argsort(-state.statistics.counts), prior)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *candidates)
    values = jax.vmap(lambda s: _cavi_weights.bound_with_allocations(s.statistics.counts, s.log_mean, prior))(both)
    return jax.tree.map(lambda old, new: jnp.where(values[1] > values[0], new, old), *candidates)


def from_order(state: CAVIState, order: Integer[Array, " K"], prior: Conjugate) -> CAVIState:
    """The state of components in another order: ``order[k]`` becomes k."""
    statistics = jax.tree.map(lambda leaf: leaf[order], state.statistics)
    return CAVIState(statistics, _cavi_weights.fitted(statistics.counts, state.log_mean, prior))


def advance(
    key: Array, climb: Climb, data: Arrays, prior: Conjugate, cycles: int, moving: Bool[Array, ""]
) -> tuple[Climb, Bool[Array, ""]]:
    """A cycle; or, where `moving`, a proposal and `cycles` cycles from it, if they end at a higher bound.

    Returns where that leads, and whether a proposal was taken. One function of both, since a cycle takes long to compile.
    """
    begun = jax.lax.cond(moving, lambda: begin(propose(key, climb.state, prior)), lambda: climb)
    count = jnp.where(moving, cycles, 1)
    ended = jax.lax.fori_loop(0, count, lambda _, c: cycle(c, data, prior), begun)
    taken = moving & (ended.bound > climb.bound)
    return jax.tree.map(lambda a, b: jnp.where(taken | ~moving, a, b), ended, climb), taken


def propose(key: Array, state: CAVIState, prior: Conjugate) -> CAVIState:
    """Merge, split in place, split in scale, or delete, each with one chance in four."""
    key_kind, key_move = random.split(key)
    kind = random.randint(key_kind, (), 0, 4)
    moves = [partial(move, prior=prior) for move in (merged, cut, cut_in_scale, deleted)]
    statistics = jax.lax.switch(kind, moves, key_move, state)
    return from_statistics(statistics, prior)


def merged(key: Array, state: CAVIState, prior: Conjugate) -> Statistics:
    """A component takes over another whose points it explains nearly as well, by their marginal likelihoods.

    ``log m(i and j) - log m(j)`` ranks the others. What the merge gains in weights it loses in entropy of the
    allocations, where the two overlap.
    """
    key_one, key_other = random.split(key)
    old = state.statistics
    i = _occupied(key_one, old.counts, 0.0)
    together = jax.tree.map(lambda leaf: leaf + leaf[i], old)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), together, old)
    score = jnp.subtract(*conjugate.log_marginal(both.counts, both.sums, both.squares, prior.base))
    here = jnp.arange(len(score))
    score = jnp.where((old.counts > OCCUPIED) & (here != i), score, -jnp.inf)
    rank = jnp.argsort(jnp.argsort(-score))
    j = jnp.argmax(jnp.where(jnp.isfinite(score), random.gumbel(key_other, score.shape) - rank / RANKS, -jnp.inf))
    return jax.tree.map(
        lambda leaf: jnp.where(_at(here, i, leaf), leaf[i] + leaf[j], jnp.where(_at(here, j, leaf), 0, leaf)), old
    )


def deleted(key: Array, state: CAVIState, prior: Conjugate) -> Statistics:
    """A component loses its points; the next pass gives them to the others."""
    del prior
    i = _occupied(key, state.statistics.counts, 0.0)
    here = jnp.arange(len(state.statistics.counts))
    return jax.tree.map(lambda leaf: jnp.where(_at(here, i, leaf), 0, leaf), state.statistics)


def cut(key: Array, state: CAVIState, prior: Conjugate) -> Statistics:
    """A component cut in two across a random direction of its own shape, as a normal distribution would be."""
    key_one, key_place, key_direction = random.split(key, 3)
    i, e, second, mean, q = _chosen(key_one, state, prior)
    place = random.uniform(key_place, (), mean.dtype, -1.0, 1.0)
    noise = conjugate.in_blocks(random.normal(key_direction, mean.shape, mean.dtype), prior.base)
    noise /= jnp.sqrt(jnp.sum(noise**2))
    tril = q.scale_tril[i if len(q.scale_tril) > 1 else 0] / jnp.sqrt(q.df[i if len(q.df) > 1 else 0])
    along = quadratic.times(tril, noise).reshape(mean.shape)

    def part(side):
        """Share, mean and second moment less one of what a cut leaves of a standard normal on one side."""
        share = norm.cdf(side * place)
        shift = -side * norm.pdf(place) / share
        return share, shift, place * shift

    def statistics(side):
        share, shift, excess = part(side)
        count, product = share * state.statistics.counts[i], lambda x, y: conjugate.product(x, y, prior.base)
        both = product(mean, along)
        squares = second + shift * (both + jnp.swapaxes(both, -1, -2)) + excess * product(along, along)
        return Statistics(count, count * (mean + shift * along), count * squares)

    return _placed(state.statistics, i, e, statistics(1.0), statistics(-1.0))


def cut_in_scale(key: Array, state: CAVIState, prior: Conjugate) -> Statistics:
    """A component's points for a narrow and a wide one about the same mean: for tails heavier than normal."""
    i, e, second, mean, _ = _chosen(key, state, prior)
    spread = second - conjugate.product(mean, mean, prior.base)

    def statistics(sign):
        count = 0.5 * state.statistics.counts[i]
        return Statistics(count, count * mean, count * (second + sign * 0.75 * spread))

    return _placed(state.statistics, i, e, statistics(-1.0), statistics(1.0))


def _chosen(
    key: Array, state: CAVIState, prior: Conjugate
) -> tuple[Integer[Array, ""], Integer[Array, ""], Float[Array, "B d d"], Float[Array, " D"], BaseMeasure]:
    """A component, the slot with the fewest points, the component's second moment and mean, and q of all."""
    counts, sums, squares = state.statistics
    i = _occupied(key, counts, 0.5)
    count = jnp.maximum(counts[i], 1e-3)
    e = jnp.argmin(jnp.where(jnp.arange(len(counts)) == i, jnp.inf, counts))
    return i, e, squares[i] / count, sums[i] / count, components(state, prior)


def _occupied(key: Array, counts: Float[Array, " K"], power: float) -> Integer[Array, ""]:
    """A component that holds points, with probability in proportion to a power of how many."""
    log_shares = jnp.where(counts > OCCUPIED, power * jnp.log(jnp.maximum(counts, OCCUPIED)), -jnp.inf)
    return jnp.argmax(log_shares + random.gumbel(key, counts.shape))


def _placed(
    old: Statistics, i: Integer[Array, ""], e: Integer[Array, ""], one: Statistics, other: Statistics
) -> Statistics:
    here = jnp.arange(len(old.counts))
    return jax.tree.map(
        lambda leaf, a, b: jnp.where(_at(here, i, leaf), a, jnp.where(_at(here, e, leaf), b, leaf)), old, one, other
    )


def _at(here: Integer[Array, " K"], i: Integer[Array, ""], leaf: Float[Array, "K ..."]) -> Bool[Array, "K ..."]:
    return (here == i).reshape(-1, *[1] * (leaf.ndim - 1))


def _norm(statistics: Statistics, base: BaseMeasure) -> Float[Array, ""]:
    """Length, squares and sums measured in scales of the base measure."""
    scale = jnp.sqrt(jnp.sum(base.scale_tril**2, axis=-1))
    sums = conjugate.in_blocks(statistics.sums, base) / scale[..., None]
    squares = statistics.squares / (scale[..., None] * scale[..., None, :])
    return jnp.sqrt(jnp.sum(statistics.counts**2) + jnp.sum(sums**2) + jnp.sum(squares**2))
