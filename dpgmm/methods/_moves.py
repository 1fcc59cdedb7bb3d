"""Exact moves between transitions of NUTS, for what is not smooth: orders, empty components, splits and mergers.

All leave the posterior of the truncated model alone, labels and all. Allocations are summed out throughout.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.core import Tracer
from jax.scipy.stats import norm

from ..densities import base_measure, conjugate, gaussian, sticks
from ..densities.distributions import inverse_wishart_factor
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Arrays, Conjugate, Parameters, Posterior
from . import _active, _collapsed, _weights
from ._active import Components, Points, Rest

PART = 8
"""Components beyond the first that are evaluated at a time."""
MOST_SQUARES = 32
"""Degrees of freedom up to which chi variables are drawn as sums of squares."""
PART_DF, PART_SCALE = 5.0, 0.7
"""Of a proposed part: degrees of freedom beyond its dimension, and its typical scale beside that of the whole."""
NEGLIGIBLE = -45.0
"""Log of a density beside that of the data which is lost in rounding."""


class State(NamedTuple):
    """Components in their order; the log total mass of Dirichlet weights; concentration; mean and kappa of the base."""

    components: Components
    log_total: Array
    concentration: Array
    base_mean: Array
    kappa: Array


class Settings(NamedTuple):
    """What a transition is made of: components that move at a time, proposals of either kind, doublings of a tree."""

    active: int
    split_merges: int
    refreshes: int
    max_tree_depth: int


class Info(NamedTuple):
    """Of a transition: that of NUTS, and which of its moves were accepted."""

    nuts: _active.Info
    label_moves: Array
    tail_moves: Array
    split_merges: Array


def state_of(parameters: Parameters, posterior: Posterior) -> State:
    """The state of a model's sites."""
    prior = conjugate_of(posterior)
    log_weights, means, scale_trils = posterior.mixture(parameters)
    masses = parameters.get("log_masses")
    dtype = means.dtype
    return State(
        Components(log_weights, means, base_measure.in_blocks(scale_trils, prior.covariance)),
        jnp.zeros((), dtype) if masses is None else jax.nn.logsumexp(masses),
        parameters["concentration"],
        parameters.get("base_mean", jnp.asarray(prior.base.mean, dtype)),
        parameters.get("kappa", jnp.asarray(prior.base.kappa, dtype)),
    )


def parameters_of(state: State, posterior: Posterior) -> Parameters:
    """The model's sites of a state, inverse of `state_of`."""
    prior = conjugate_of(posterior)
    log_weights, means, blocks = state.components
    sites = {"concentration": state.concentration, "means": means}
    sites["scale_trils"] = base_measure.in_smallest_form(blocks, prior.covariance)
    if prior.weights == _weights.STICKS:
        sites["stick_logits"] = sticks.logits(log_weights)
    else:
        sites["log_masses"] = log_weights + state.log_total
    return sites if prior.hyperprior is None else sites | {"base_mean": state.base_mean, "kappa": state.kappa}


def conjugate_of(posterior: Posterior) -> Conjugate:
    """The posterior's conjugate prior, which there must be."""
    assert posterior.conjugate is not None
    return posterior.conjugate


def step(
    key: Array, state: State, data: Arrays, step_size: Array, posterior: Posterior, settings: Settings
) -> tuple[State, Info]:
    """One transition: an order, NUTS on the first components, the others anew, splits and mergers, hyperparameters."""
    keys = random.split(key, 6)
    prior, size = conjugate_of(posterior), len(state.components.log_weights)
    num, base = min(settings.active, size), _collapsed.base_of(state, prior)
    points = _active.points_of(data, conjugate.shape_of(base)[1] == 1)
    state, reordered = reorder(keys[0], state, prior)
    rest = rest_of(state.components, num, base, points)
    components, log_total, of_nuts = _active.transition(
        keys[1], state.components, state.log_total, state.concentration, base, points, rest, step_size,
        num=num, rule=prior.weights, covariance=prior.covariance, max_tree_depth=settings.max_tree_depth,
    )  # fmt: skip
    state = state._replace(components=components, log_total=log_total)
    head, tail = _head(components, num, base, points)
    density = head + jnp.log1p(tail)

    def again(i, carry):
        state, density, count = carry
        state = reorder(random.fold_in(keys[5], i), state, prior)[0] if prior.weights == _weights.DIRICHLET else state
        state, density, accepted = refresh(random.fold_in(keys[2], i), state, base, prior, points, density, num)
        return state, density, count + accepted

    start = state, density, jnp.zeros((), int)
    state, density, refreshed = jax.lax.fori_loop(0, settings.refreshes, again, start)
    state, _ = reorder(random.fold_in(keys[0], 1), state, prior)
    times = settings.split_merges
    state, _, split = split_merge(keys[3], state, base, prior, points, density, num, times)
    now = _weights.Weights(state.components.log_weights, state.log_total)
    weights, a = _weights.concentration_given_weights(keys[4], now, state.concentration, prior)
    state = state._replace(log_total=weights.log_total, concentration=a)
    if prior.hyperprior is not None:
        state = _sample_base(keys[5], state, prior)
    state = any_order(random.fold_in(keys[0], 2), state, prior)
    return state, Info(of_nuts, reordered, refreshed, split)


def rest_of(components: Components, num: int, base: BaseMeasure, points: Points) -> Rest:
    """What stands still while the first `num` components move; all of them now are the reference."""
    head, tail = _head(components, num, base, points)
    # The log of a density of zero is cut where it cannot be seen.
    seen = jnp.log(jnp.maximum(tail, jnp.finfo(tail.dtype).tiny))
    log_beyond = jax.nn.logsumexp(components.log_weights[num:]) if num < len(components.log_weights) else 0.0
    return Rest(head + seen - log_beyond, head + jnp.log1p(tail))


def _head(components: Components, num: int, base: BaseMeasure, points: Points) -> tuple[Array, Array]:
    """Log density of the first `num` components at the points, and that of the others in units of it, both ``(N,)``."""
    head = log_density(_cut(components, num), base, points)
    if num >= len(components.log_weights):
        return head, jnp.zeros_like(head)
    return head, tail_density(components, jnp.asarray(num), base, points, head)


def _cut(components: Components, num: int) -> Components:
    """The first `num` components; a covariance that all share stays."""
    return jax.tree.map(lambda leaf: leaf[:num], components)


def _sample_base(key: Array, state: State, prior: Conjugate) -> State:
    """Mean and kappa of the base measure given all components, empty ones among them."""
    means = state.components.means
    scale_trils = base_measure.in_smallest_form(state.components.blocks, prior.covariance)
    everyone = jnp.ones(len(means), bool)
    mean, kappa = conjugate.sample_base(key, means, scale_trils, everyone, state.kappa, prior.hyperprior)
    return state._replace(base_mean=mean, kappa=kappa)


def tail_density(components: Components, first: Array, base: BaseMeasure, points: Points, reference: Array) -> Array:
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
        cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, PART)
        part = Components(cut(log_weights), cut(means), blocks if len(blocks) == 1 else cut(blocks))
        joint = _active.log_joint_density(part, base, points)
        return start + PART, total + jnp.ones(PART, joint.dtype) @ jnp.exp(joint - reference)

    start = PART * (first // PART)
    return jax.lax.while_loop(more, add, (start, jnp.zeros_like(reference)))[1]


def log_density(components: Components, base: BaseMeasure, points: Points) -> Array:
    """Log density of every point, ``(N,)``."""
    return jax.nn.logsumexp(_active.log_joint_density(components, base, points), axis=0)


def reorder(key: Array, state: State, prior: Conjugate) -> tuple[State, Array]:
    """Components in a size-biased order (`_weights.order`), and whether it was accepted."""
    new, accepted = _weights.order(key, state.components.log_weights, state.concentration, prior.weights)
    return _in_order(state, new), accepted


def any_order(key: Array, state: State, prior: Conjugate) -> State:
    """Labels in a uniform order under Dirichlet weights, which do not tell them apart; others stay."""
    if prior.weights != _weights.DIRICHLET:
        return state
    return _in_order(state, random.permutation(key, len(state.components.log_weights)))


def _in_order(state: State, order: Array) -> State:
    """Component ``order[k]`` becomes k; a covariance that all share stays."""
    log_weights, means, blocks = state.components
    moved = Components(log_weights[order], means[order], blocks if len(blocks) == 1 else blocks[order])
    return state._replace(components=moved)


def refresh(
    key: Array, state: State, base: BaseMeasure, prior: Conjugate, points: Points, density: Array, num: int
) -> tuple[State, Array, Array]:
    """Components from a random place in the first `num` on drawn from their prior given those before, and the concentration.

    Accepted by the ratio of likelihoods: a proposal from the prior of what changes, given what stays. `density` ``(N,)`` is
    the log density of the points now. Returns the state, its `density`, and whether it was accepted.
    """
    key_first, key_weights, key_components, key_accept = random.split(key, 4)
    components, size = state.components, len(state.components.log_weights)
    first = random.randint(key_first, (), 1, min(num, size - 1) + 1)
    now = _weights.Weights(components.log_weights, state.log_total)
    weights, a = _weights.refreshed(key_weights, now, state.concentration, first, prior)
    means, blocks = fresh(key_components, components, base)
    keep = jnp.arange(size) < first
    new = Components(
        weights.log_weights,
        jnp.where(keep[:, None], components.means, means),
        blocks if len(blocks) == 1 else jnp.where(keep[:, None, None, None], components.blocks, blocks),
    )
    head = _cut(new, num)
    head = head._replace(log_weights=jnp.where(keep[:num], head.log_weights, -jnp.inf))
    of_head = _active.log_joint_density(head, base, points)
    total = jnp.exp(of_head - density).sum(axis=0) + tail_density(new, first, base, points, density)
    change = points.weights @ jnp.log(total)
    change += _weights.log_order(new.log_weights, first, prior.weights)
    change -= _weights.log_order(components.log_weights, first, prior.weights)
    # Growth beyond what numbers hold is refused: its way back has probability zero.
    accept = jnp.isfinite(change) & (jnp.log(random.uniform(key_accept, dtype=change.dtype)) < change)
    proposed = state._replace(components=new, log_total=weights.log_total, concentration=a)
    state = jax.tree.map(lambda new, old: jnp.where(accept, new, old), proposed, state)
    return state, jnp.where(accept, density + jnp.log(total), density), accept


def fresh(key: Array, components: Components, base: BaseMeasure) -> tuple[Array, Array]:
    """As many components from the base measure: means ``(K, D)`` and blocks, those that stand where all share them."""
    key_factor, key_mean = random.split(key)
    noise = random.normal(key_mean, components.means.shape, components.means.dtype) / jnp.sqrt(base.kappa)
    if len(components.blocks) == 1:
        return base.mean + conjugate.coloured(components.blocks, noise, base), components.blocks
    shape = len(noise), *base.scale_tril.shape
    blocks = inverse_wishart_factor(bartlett(key_factor, base.df, shape, noise.dtype), base.scale_tril)
    return base.mean + conjugate.coloured(blocks, noise, base), blocks


def bartlett(key: Array, df: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Lower factors A of ``A A^T ~ Wishart(df, I)``, ``shape (..., d, d)``: chi variables on the diagonal (Bartlett 1933).

    A whole number of degrees of freedom is a sum of so many squares, which takes a tenth of the time of a gamma variable.
    """
    key_below, key_diagonal = random.split(key)
    size = shape[-1]
    whole = not isinstance(df, Tracer) and float(df) == round(float(df)) <= MOST_SQUARES
    if whole:
        squares = random.normal(key_diagonal, (*shape[:-1], round(float(df))), dtype) ** 2
        used = jnp.arange(squares.shape[-1]) < squares.shape[-1] - jnp.arange(size)[:, None]
        diagonal = jnp.sqrt(jnp.sum(jnp.where(used, squares, 0.0), axis=-1))
    else:
        halves = jnp.broadcast_to(0.5 * (df - jnp.arange(size)), shape[:-1]).astype(dtype)
        diagonal = jnp.sqrt(2 * random.gamma(key_diagonal, halves, dtype=dtype))
    if size == 1:
        return diagonal[..., None]
    below = jnp.tril(random.normal(key_below, shape, dtype), -1)
    return below + diagonal[..., None] * jnp.eye(size, dtype=dtype)


class Pair(NamedTuple):
    """Two components as one: what both have together, and the share, mean and factor of the second.

    `mean` ``(D,)`` and `blocks` ``(B, d, d)`` are the mean and the covariance of both together, a mixture of two; `share` of
    the second is the logit of ``w_k / (w_j + w_k)``.
    """

    mean: Array
    blocks: Array
    share: Array
    second_mean: Array
    second_blocks: Array


def joined(log_weights: Array, means: Array, blocks: Array, base: BaseMeasure, tied: bool) -> Pair:
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


def parted(pair: Pair, base: BaseMeasure, tied: bool) -> tuple[Array, Array, Array]:
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


def _outer(x: Array, base: BaseMeasure) -> Array:
    """``x x^T`` by blocks, the mean over dimensions that share an entry."""
    return conjugate.product(x, x, base) / conjugate.shape_of(base)[2]


def _of_factor(blocks: Array) -> Array:
    """``log |d(L L^T) / dL|`` but for a constant, ``sum_i (d - i + 1) log L_ii``."""
    return jnp.sum(jnp.arange(blocks.shape[-1], 0, -1) * jnp.log(gaussian.diagonal(blocks)))


class Proposal(NamedTuple):
    """Of a pair's second component: an empty one from the prior, or a part of the whole, with probability a half each."""

    empty: BaseMeasure
    part: BaseMeasure
    share_empty: tuple[Array, Array]
    share_part: tuple[Array, Array]


def proposal(pair: Pair, log_both: Array, base: BaseMeasure, total: Array) -> Proposal:
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

    places: Array
    empty: Array
    share: Array
    mean: Array
    bartlett: Array
    log_uniform: Array


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


def propose(noise: Noise, pair: Pair, given: Proposal, tied: bool) -> Pair:
    """Another second component for the same whole."""
    choose = lambda x, y: jax.tree.map(lambda a, b: jnp.where(noise.empty, a, b), x, y)
    mean, sd = choose(given.share_empty, given.share_part)
    measure = choose(given.empty, given.part)
    factor = jnp.where(noise.empty, noise.bartlett[0], noise.bartlett[1])
    blocks = pair.blocks if tied else inverse_wishart_factor(factor, measure.scale_tril)
    apart = conjugate.coloured(blocks[None], noise.mean[None] / jnp.sqrt(measure.kappa), measure)[0]
    return pair._replace(share=mean + sd * noise.share, second_mean=measure.mean + apart, second_blocks=blocks)


def log_proposal(pair: Pair, given: Proposal, covariance: str) -> Array:
    """Log density of `propose` at the pair's second component: of the logit of its share, its mean and its factor."""

    def of(measure, share):
        of_share = norm.logpdf(pair.share, *share)
        sites = pair.second_mean[None], pair.second_blocks[None]
        if base_measure.is_tied(covariance):
            factor = base_measure.in_smallest_form(sites[1], covariance) / jnp.sqrt(measure.kappa)
            return of_share + gaussian.log_density(measure.mean, sites[0], factor).sum()
        return of_share + _active.log_prior_components(*sites, measure, covariance)

    return jnp.logaddexp(of(given.empty, given.share_empty), of(given.part, given.share_part)) - jnp.log(2.0)


def log_overlap(means: Array, blocks: Array, k: Array, base: BaseMeasure) -> Array:
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


def log_choices(log_weights: Array, means: Array, blocks: Array, k: Array, base: BaseMeasure, near: bool) -> Array:
    """Of every component, that it is the first of a pair whose second is k, ``(M,)``: see `split_merge`."""
    others = jnp.where(jnp.arange(len(log_weights)) == k, -jnp.inf, log_weights)
    by_weight = others - jax.nn.logsumexp(others)
    if not near:
        return by_weight
    nearer = by_weight + log_overlap(means, blocks, k, base)
    return jnp.logaddexp(by_weight, nearer - jax.nn.logsumexp(nearer)) - jnp.log(2.0)


def split_merge(
    key: Array,
    state: State,
    base: BaseMeasure,
    prior: Conjugate,
    points: Points,
    density: Array,
    num: int,
    times: int,
    near: bool = False,
) -> tuple[State, Array, Array]:
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
    head = _cut(state.components, num)
    rows = jnp.exp(_active.log_joint_density(head, base, points) - density)
    rest = tail_density(state.components, jnp.asarray(num), base, points, density)
    folded = _weights.folded(state.components.log_weights, num)

    every = noise_of(key, times, base)

    def log_target(folded, means, blocks):
        of_weights = _weights.log_density_weights(folded, state.concentration, rule, size, num)
        of_weights += _weights.log_order(folded, num, rule)
        return of_weights + _active.log_prior_components(means, blocks, base, covariance)

    def attempt(i, carry):
        folded, means, blocks, rows, value, accepted = carry
        noise = jax.tree.map(lambda leaf: leaf[i], every)
        k = jnp.minimum((noise.places[0] * num).astype(int), num - 1)
        log_choice = log_choices(folded[:num], means, blocks, k, base, near)
        chances = jnp.cumsum(jnp.exp(log_choice))
        j = jnp.minimum(jnp.sum(chances <= noise.places[1] * chances[-1]), num - 1)
        which = jnp.stack([j, k])
        both = jnp.logaddexp(folded[j], folded[k])
        blocks_now = jnp.broadcast_to(blocks, (2, *blocks.shape[1:])) if tied else blocks[which]
        old = joined(folded[which], means[which], blocks_now, base, tied)
        given = proposal(old, both, base, total)
        new = propose(noise, old, given, tied)
        mean, block, log_jacobian = parted(new, base, tied)
        log_jacobian_old = parted(old, base, tied)[2]
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
        ratio += log_choices(new_folded[:num], all_means, all_blocks, k, base, near)[j] - log_choice[j]
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
