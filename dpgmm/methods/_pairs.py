"""Two components as one, parted anew: splits and mergers of components with all allocations summed out."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.scipy.stats import norm
from jaxtyping import Bool, Float, Integer

from ..densities import base_measure, conjugate, gaussian
from ..densities.distributions import bartlett, inverse_wishart_factor
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Conjugate
from . import _active, _density, _weights
from ._active import Components, Points
from ._state import MixtureState

PART_DF, PART_SCALE = 5.0, 0.7
"""Of a proposed part: degrees of freedom beyond its dimension, and its typical scale beside that of the whole."""


class Pair(NamedTuple):
    """Two components as one: what both have together, and the share, mean and factor of the second.

    `mean` ``(D,)`` and `blocks` ``(B, d, d)`` are the mean and the covariance of both together, a mixture of two; `share` of
    the second is the logit of ``w_k / (w_j + w_k)``.
    """

    mean: Float[Array, " D"]
    blocks: Float[Array, "B d d"]
    share: Float[Array, ""]
    second_mean: Float[Array, " D"]
    second_blocks: Float[Array, "B d d"]


def joined(
    log_weights: Float[Array, "2"],
    means: Float[Array, "2 D"],
    blocks: Float[Array, "2 B d d"],
    base: BaseMeasure,
    *,
    tied: bool,
) -> Pair:
    """The pair of two components, leading axis 2: ``m = (1-u) m_j + u m_k``, ``S = (1-u) S_j + u S_k + u(1-u) d d^T``."""
    share = log_weights[1] - log_weights[0]
    u, rest = jax.nn.sigmoid(share), jax.nn.sigmoid(-share)
    apart = means[1] - means[0]
    mean = means[0] + u * apart
    if tied:
        return Pair(mean, blocks[0], share, means[1], blocks[0])
    squares = blocks @ jnp.swapaxes(blocks, -1, -2)
    together = rest * squares[0] + u * squares[1] + u * rest * _outer(apart, base)
    return Pair(mean, gaussian.cholesky(together), share, means[1], blocks[1])


def parted(
    pair: Pair, base: BaseMeasure, *, tied: bool
) -> tuple[Float[Array, " D"], Float[Array, "B d d"], Float[Array, ""]]:
    """Inverse of `joined`, without the weights: mean and blocks of the first, and ``log |d(first) / d(together)|``.

    The Jacobian is that of means and of triangular factors. Where no covariance is left for the first, NaN.
    """
    u, rest = jax.nn.sigmoid(pair.share), jax.nn.sigmoid(-pair.share)
    apart = (pair.second_mean - pair.mean) / rest
    mean = pair.second_mean - apart
    dim, log_rest = pair.mean.shape[-1], jax.nn.log_sigmoid(-pair.share)
    if tied:
        return mean, pair.blocks, -dim * log_rest
    square = lambda blocks: blocks @ jnp.swapaxes(blocks, -1, -2)
    left = (square(pair.blocks) - u * square(pair.second_blocks)) / rest - u * _outer(apart, base)
    blocks = gaussian.cholesky(left)
    number, size = pair.blocks.shape[0], pair.blocks.shape[-1]
    log_jacobian = -(dim + number * size * (size + 1) / 2) * log_rest + _of_factor(pair.blocks) - _of_factor(blocks)
    return mean, blocks, log_jacobian


def _outer(x: Float[Array, " D"], base: BaseMeasure) -> Float[Array, "B d d"]:
    """``x x^T`` by blocks, the mean over dimensions that share an entry."""
    return conjugate.product(x, x, base) / conjugate.shape_of(base)[2]


def _of_factor(blocks: Float[Array, "B d d"]) -> Float[Array, ""]:
    """``log |d(L L^T) / dL|`` but for a constant, ``sum_i (d - i + 1) log L_ii``."""
    return jnp.sum(jnp.arange(blocks.shape[-1], 0, -1) * jnp.log(gaussian.diagonal(blocks)))


class Proposal(NamedTuple):
    """Of a pair's second component: an empty one from the prior, or a part of the whole, with probability a half each."""

    empty: BaseMeasure
    part: BaseMeasure
    share_empty: tuple[Float[Array, ""], Float[Array, ""]]
    share_part: tuple[Float[Array, ""], Float[Array, ""]]


def proposal(pair: Pair, log_both: Float[Array, ""], base: BaseMeasure, total: Float[Array, ""] | float) -> Proposal:
    """What may be proposed given the whole: it does not depend on how the whole is parted now."""
    size = base.scale_tril.shape[-1]
    df = size + PART_DF
    scale = math.sqrt(df - size - 1) * PART_SCALE * pair.blocks
    part = BaseMeasure(pair.mean, jnp.asarray(1.0, pair.mean.dtype), jnp.asarray(df, pair.mean.dtype), scale)
    two = lambda x, y: (jnp.asarray(x, pair.mean.dtype), jnp.asarray(y, pair.mean.dtype))
    return Proposal(base, part, two(-jnp.log1p(total * jnp.exp(log_both)) - 1.0, 2.0), two(-2.5, 1.5))


class Noise(NamedTuple):
    """All that is random in proposals to part pairs, drawn at once: many small draws would take most of the time.

    `places` two uniforms for the pair, `empty` which proposal, `share` and `mean` standard normals, `bartlett` of either
    proposal's factor, `log_uniform` to accept.
    """

    places: Float[Array, "*times 2"]
    empty: Bool[Array, "*times"]
    share: Float[Array, "*times"]
    mean: Float[Array, "*times D"]
    bartlett: Float[Array, "*times 2 B d d"]
    log_uniform: Float[Array, "*times"]


def noise_of(key: Array, times: int, base: BaseMeasure) -> Noise:
    """`Noise` of so many proposals, along a leading axis."""
    keys = random.split(key, 4)
    dtype, shape, dim = base.mean.dtype, base.scale_tril.shape, base.mean.shape[-1]
    uniforms = random.uniform(keys[0], (times, 4), dtype)
    normals = random.normal(keys[1], (times, 1 + dim), dtype)
    empty = bartlett(keys[2], base.df, (times, *shape), dtype)
    part = bartlett(keys[3], jnp.asarray(shape[-1] + PART_DF), (times, *shape), dtype)
    factors = jnp.stack([empty, part], axis=1)
    return Noise(uniforms[:, :2], uniforms[:, 2] < 0.5, normals[:, 0], normals[:, 1:], factors, jnp.log(uniforms[:, 3]))


def propose(noise: Noise, pair: Pair, given: Proposal, *, tied: bool) -> Pair:
    """Another second component for the same whole."""
    choose = lambda x, y: jax.tree.map(lambda a, b: jnp.where(noise.empty, a, b), x, y)
    mean, sd = choose(given.share_empty, given.share_part)
    measure = choose(given.empty, given.part)
    factor = jnp.where(noise.empty, noise.bartlett[0], noise.bartlett[1])
    blocks = pair.blocks if tied else inverse_wishart_factor(factor, measure.scale_tril)
    apart = conjugate.coloured(blocks[None], noise.mean[None] / jnp.sqrt(measure.kappa), measure)[0]
    return pair._replace(share=mean + sd * noise.share, second_mean=measure.mean + apart, second_blocks=blocks)


def log_proposal(pair: Pair, given: Proposal, covariance: str) -> Float[Array, ""]:
    """Log density of `propose` at the pair's second component: of the logit of its share, its mean and its factor."""

    def of(measure, share):
        share_term = norm.logpdf(pair.share, *share)
        sites = pair.second_mean[None], pair.second_blocks[None]
        if base_measure.is_tied(covariance):
            factor = base_measure.in_smallest_form(sites[1], covariance) / jnp.sqrt(measure.kappa)
            return share_term + gaussian.log_density(measure.mean, sites[0], factor).sum()
        return share_term + _active.log_prior_components(*sites, measure, covariance)

    return jnp.logaddexp(of(given.empty, given.share_empty), of(given.part, given.share_part)) - jnp.log(2.0)


def log_overlap(
    means: Float[Array, "M D"], blocks: Float[Array, "#M B d d"], k: Integer[Array, ""] | int, base: BaseMeasure
) -> Float[Array, " M"]:
    """Log Bhattacharyya coefficient of every component with component k: nought where both are one Gaussian, ``(M,)``.

    ``-|d|^2_S / 8 - log(|S| / sqrt(|S_j| |S_k|)) / 2`` with ``S = (S_j + S_k) / 2`` (Bhattacharyya 1943).
    """
    squares = blocks @ jnp.swapaxes(blocks, -1, -2)
    of_k = squares if len(squares) == 1 else squares[k]
    whiteners, offsets = _active._whitened_form(gaussian.cholesky(0.5 * (squares + of_k)), base)
    own = _active._whitened_form(blocks, base)[1]
    own_of_k = own if len(own) == 1 else own[k]
    distances = _active._distances(means, whiteners, means[k][:, None])[:, 0]
    return -0.125 * distances + offsets - 0.5 * (own + own_of_k)


def log_choices(
    log_weights: Float[Array, " M"],
    means: Float[Array, "M D"],
    blocks: Float[Array, "#M B d d"],
    k: Integer[Array, ""] | int,
    base: BaseMeasure,
    *,
    near: bool,
) -> Float[Array, " M"]:
    """Of every component, that it is the first of a pair whose second is k, ``(M,)``: see `split_merge`."""
    others = jnp.where(jnp.arange(len(log_weights)) == k, -jnp.inf, log_weights)
    by_weight = others - jax.nn.logsumexp(others)
    if not near:
        return by_weight
    nearer = by_weight + log_overlap(means, blocks, k, base)
    return jnp.logaddexp(by_weight, nearer - jax.nn.logsumexp(nearer)) - jnp.log(2.0)


def split_merge(
    key: Array,
    state: MixtureState,
    base: BaseMeasure,
    prior: Conjugate,
    points: Points,
    density: Float[Array, " N"],
    num: int,
    times: int,
    *,
    near: bool = False,
) -> tuple[MixtureState, Float[Array, " N"], Integer[Array, ""]]:
    """`times` proposals to part two of the first `num` components anew, the whole keeping weight, mean and covariance.

    The second of a pair is chosen uniformly, the first by weight; if `near`, half the time by weight and `log_overlap` with
    the second, which finds the few that share its points. Where the second was next to nothing and becomes a part this is
    a split, the other way round a merger. With ``u = w_k / (w_j + w_k)`` accepted with probability
    ``min(1, p(theta') |d theta' / d pair'| q(pair) P'(j) / (p(theta) |d theta / d pair| q(pair') P(j)))``: reversible jump
    without a change of dimension (Richardson & Green 1997, section 3.2; Dellaportas & Papageorgiou 2006). Returns the
    state, the log density of the points, and the number accepted.
    """
    covariance, rule = prior.covariance, prior.weights
    tied, size = base_measure.is_tied(covariance), len(state.components.log_weights)
    total = points.weights.sum()
    if num < 2 or times == 0:
        return state, density, jnp.zeros((), int)
    head = _density.cut(state.components, num)
    rows = jnp.exp(_active.log_joint_density(head, base, points) - density)
    rest = _density.tail_density(state.components, jnp.asarray(num), base, points, density)
    folded = _weights.folded(state.components.log_weights, num)

    every = noise_of(key, times, base)

    def log_target(folded, means, blocks):
        weights_term = _weights.log_density_weights(folded, state.concentration, rule, size, num)
        weights_term += _weights.log_order(folded, num, rule)
        return weights_term + _active.log_prior_components(means, blocks, base, covariance)

    def attempt(i, carry):
        folded, means, blocks, rows, value, accepted = carry
        noise = jax.tree.map(lambda leaf: leaf[i], every)
        k = jnp.minimum((noise.places[0] * num).astype(int), num - 1)
        log_choice = log_choices(folded[:num], means, blocks, k, base, near=near)
        chances = jnp.cumsum(jnp.exp(log_choice))
        j = jnp.minimum(jnp.sum(chances <= noise.places[1] * chances[-1]), num - 1)
        which = jnp.stack([j, k])
        both = jnp.logaddexp(folded[j], folded[k])
        blocks_now = jnp.broadcast_to(blocks, (2, *blocks.shape[1:])) if tied else blocks[which]
        old = joined(folded[which], means[which], blocks_now, base, tied=tied)
        given = proposal(old, both, base, total)
        new = propose(noise, old, given, tied=tied)
        mean, block, log_jacobian = parted(new, base, tied=tied)
        log_jacobian_old = parted(old, base, tied=tied)[2]
        parts = both + jax.nn.log_sigmoid(jnp.stack([-new.share, new.share]))
        new_folded = folded.at[which].set(parts)
        pair_means = jnp.stack([mean, new.second_mean])
        pair_blocks = blocks_now if tied else jnp.stack([block, new.second_blocks])
        pair = Components(parts, pair_means, blocks if tied else pair_blocks)
        new_rows = jnp.exp(_active.log_joint_density(pair, base, points) - density)
        others = jnp.ones(num, rows.dtype).at[which].set(0.0)
        new_value = points.weights @ jnp.log(others @ rows + new_rows[0] + new_rows[1] + rest)
        old_pair = log_target(folded, means[which], blocks if tied else blocks_now)
        new_pair = log_target(new_folded, pair_means, blocks if tied else pair_blocks)
        # Of the logit of the share: du / dlogit = u (1 - u).
        of_share = lambda share: jax.nn.log_sigmoid(share) + jax.nn.log_sigmoid(-share)
        ratio = new_value - value + new_pair - old_pair + log_jacobian - log_jacobian_old
        ratio += of_share(new.share) - of_share(old.share)
        ratio += log_proposal(old, given, covariance) - log_proposal(new, given, covariance)
        all_means, all_blocks = means.at[which].set(pair_means), blocks if tied else blocks.at[which].set(pair_blocks)
        ratio += log_choices(new_folded[:num], all_means, all_blocks, k, base, near=near)[j] - log_choice[j]
        # A covariance that is not one leaves NaN, and is refused.
        accept = jnp.isfinite(ratio) & (j != k) & (noise.log_uniform < ratio)
        put = lambda new, old: jnp.where(accept, new, old)
        # Two rows, in place: a choice between two arrays of all rows would copy both.
        rows = rows.at[which].set(put(new_rows, rows[which]))
        means, blocks = put(all_means, means), put(all_blocks, blocks)
        return put(new_folded, folded), means, blocks, rows, put(new_value, value), accepted + accept

    start = folded, head.means, head.blocks, rows, points.weights @ jnp.log(rows.sum(0) + rest), jnp.zeros((), int)
    folded, means, blocks, rows, _, accepted = jax.lax.fori_loop(0, times, attempt, start)
    components = Components(
        _weights.unfolded(folded, state.components.log_weights, num),
        state.components.means.at[:num].set(means),
        blocks if tied else state.components.blocks.at[:num].set(blocks),
    )
    return state._replace(components=components), density + jnp.log(rows.sum(0) + rest), accepted
