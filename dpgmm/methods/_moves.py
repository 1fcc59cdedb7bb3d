"""Exact moves between transitions of NUTS, for what is not smooth: orders, empty components, splits and mergers.

All leave the posterior of the truncated model alone, labels and all. Allocations are summed out throughout.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Bool, Float, Integer

from ..densities import base_measure, conjugate
from ..densities.distributions import bartlett, inverse_wishart_factor
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Arrays, Conjugate, Posterior
from . import _active, _collapsed, _density, _pairs, _weights
from ._active import Components, Points
from ._state import MixtureState, conjugate_of, in_order


class Settings(NamedTuple):
    """What a transition is made of: components that move at a time, proposals of either kind, doublings of a tree."""

    active: int
    split_merges: int
    refreshes: int
    max_tree_depth: int


class Info(NamedTuple):
    """Of a transition: that of NUTS, and which of its moves were accepted."""

    nuts: _active.Info
    label_moves: Bool[Array, ""]
    tail_moves: Integer[Array, ""]
    split_merges: Integer[Array, ""]


def step(
    key: Array,
    state: MixtureState,
    data: Arrays,
    step_size: Float[Array, ""] | float,
    posterior: Posterior,
    settings: Settings,
) -> tuple[MixtureState, Info]:
    """One transition: an order, NUTS on the first components, the others anew, splits and mergers, hyperparameters."""
    keys = random.split(key, 6)
    prior, size = conjugate_of(posterior), len(state.components.log_weights)
    num, base = min(settings.active, size), _collapsed.base_of(state, prior)
    points = _active.points_of(data, diagonal=conjugate.shape_of(base)[1] == 1)
    state, reordered = reorder(keys[0], state, prior)
    rest = _density.rest_of(state.components, num, base, points)
    components, log_total, of_nuts = _active.transition(
        keys[1], state.components, state.log_total, state.concentration, base, points, rest, step_size,
        num=num, rule=prior.weights, covariance=prior.covariance, max_tree_depth=settings.max_tree_depth,
    )  # fmt: skip
    state = state._replace(components=components, log_total=log_total)
    head, tail = _density.head_and_tail(components, num, base, points)
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
    state, _, split = _pairs.split_merge(keys[3], state, base, prior, points, density, num, times)
    now = _weights.Weights(state.components.log_weights, state.log_total)
    weights, a = _weights.concentration_given_weights(keys[4], now, state.concentration, prior)
    state = state._replace(log_total=weights.log_total, concentration=a)
    if prior.hyperprior is not None:
        state = _sample_base(keys[5], state, prior)
    state = any_order(random.fold_in(keys[0], 2), state, prior)
    return state, Info(of_nuts, reordered, refreshed, split)


def _sample_base(key: Array, state: MixtureState, prior: Conjugate) -> MixtureState:
    """Mean and kappa of the base measure given all components, empty ones among them."""
    means = state.components.means
    scale_trils = base_measure.in_smallest_form(state.components.blocks, prior.covariance)
    everyone = jnp.ones(len(means), bool)
    mean, kappa = conjugate.sample_base(key, means, scale_trils, everyone, state.kappa, prior.hyperprior)
    return state._replace(base_mean=mean, kappa=kappa)


def reorder(key: Array, state: MixtureState, prior: Conjugate) -> tuple[MixtureState, Bool[Array, ""]]:
    """Components in a size-biased order (`_weights.order`), and whether it was accepted."""
    new, accepted = _weights.order(key, state.components.log_weights, state.concentration, prior.weights)
    return in_order(state, new), accepted


def any_order(key: Array, state: MixtureState, prior: Conjugate) -> MixtureState:
    """Labels in a uniform order under Dirichlet weights, which do not tell them apart; others stay."""
    if prior.weights != _weights.DIRICHLET:
        return state
    return in_order(state, random.permutation(key, len(state.components.log_weights)))


def refresh(
    key: Array,
    state: MixtureState,
    base: BaseMeasure,
    prior: Conjugate,
    points: Points,
    density: Float[Array, " N"],
    num: int,
) -> tuple[MixtureState, Float[Array, " N"], Bool[Array, ""]]:
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
    head = _density.cut(new, num)
    head = head._replace(log_weights=jnp.where(keep[:num], head.log_weights, -jnp.inf))
    of_head = _active.log_joint_density(head, base, points)
    total = jnp.exp(of_head - density).sum(axis=0) + _density.tail_density(new, first, base, points, density)
    change = points.weights @ jnp.log(total)
    change += _weights.log_order(new.log_weights, first, prior.weights)
    change -= _weights.log_order(components.log_weights, first, prior.weights)
    # Growth beyond what numbers hold is refused: its way back has probability zero.
    accept = jnp.isfinite(change) & (jnp.log(random.uniform(key_accept, dtype=change.dtype)) < change)
    proposed = state._replace(components=new, log_total=weights.log_total, concentration=a)
    state = jax.tree.map(lambda new, old: jnp.where(accept, new, old), proposed, state)
    return state, jnp.where(accept, density + jnp.log(total), density), accept


def fresh(
    key: Array, components: Components, base: BaseMeasure
) -> tuple[Float[Array, "K D"], Float[Array, "#K B d d"]]:
    """As many components from the base measure: means ``(K, D)`` and blocks, those that stand where all share them."""
    key_factor, key_mean = random.split(key)
    noise = random.normal(key_mean, components.means.shape, components.means.dtype) / jnp.sqrt(base.kappa)
    if len(components.blocks) == 1:
        return base.mean + conjugate.coloured(components.blocks, noise, base), components.blocks
    shape = len(noise), *base.scale_tril.shape
    blocks = inverse_wishart_factor(bartlett(key_factor, base.df, shape, noise.dtype), base.scale_tril)
    return base.mean + conjugate.coloured(blocks, noise, base), blocks
