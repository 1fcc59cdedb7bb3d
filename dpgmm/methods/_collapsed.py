"""The kernel of the collapsed Gibbs sampler: one sweep over the points, and the steps for what partitions depend on."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Bool, Float, Integer, Num

from ..densities import base_measure, concentration, conjugate
from ..densities.gaussian import BaseMeasure
from ..model.posterior import Conjugate
from . import _auxiliary, _clusters, _split_merge


class GibbsState(NamedTuple):
    """A partition, labels ``(N,)`` by first appearance, and the hyperparameters; `full` once a sweep ran out of slots.

    `accepted`: split-merge moves of the last step.
    """

    labels: Integer[Array, " N"]
    concentration: Float[Array, ""]
    base_mean: Float[Array, " D"]
    kappa: Float[Array, ""]
    full: Bool[Array, ""]
    accepted: Integer[Array, ""] | int = 0


class Kept(NamedTuple):
    """What is kept of a draw: its clusters' statistics about the prior's mean, padded with empty ones, and the rest."""

    statistics: _clusters.Statistics
    concentration: Float[Array, ""]
    base_mean: Float[Array, " D"]
    kappa: Float[Array, ""]


@runtime_checkable
class _HasBase(Protocol):
    """Any state with the mean and kappa of the base measure."""

    @property
    def base_mean(self) -> Float[Array, " D"]: ...
    @property
    def kappa(self) -> Float[Array, ""]: ...


def start(key: Array, points: Float[Array, "N D"], prior: Conjugate, most: int) -> GibbsState:
    """Dispersed start: the points nearest to each of 1 to `most` randomly chosen points are a cluster."""
    key_number, key_rows, key_a = random.split(key, 3)
    number = random.randint(key_number, (), 1, most + 1)
    centres = points[random.choice(key_rows, points.shape[0], (most,))]
    scale = jnp.std(points, axis=0)
    scaled = jnp.where(scale > 0, scale, 1.0)
    distance = jax.lax.map(lambda c: jnp.sum(((points - c) / scaled) ** 2, axis=-1), centres)
    labels = jnp.argmin(jnp.where(jnp.arange(most)[:, None] < number, distance, jnp.inf), axis=0)
    a = random.gamma(key_a, prior.concentration.shape + 1, dtype=points.dtype) / prior.concentration.rate
    mean, kappa = (jnp.asarray(leaf, points.dtype) for leaf in (prior.base.mean, prior.base.kappa))
    return GibbsState(by_appearance(labels, most), a, mean, kappa, jnp.zeros((), bool), jnp.zeros((), int))


def step(
    key: Array,
    state: GibbsState,
    points: Float[Array, "N D"],
    prior: Conjugate,
    capacity: int,
    moves: int = 0,
    algorithm: int = 3,
) -> GibbsState:
    """A sweep, `moves` split-merge proposals, then the concentration, then the base measure where it has a prior.

    The sweep is `algorithm` 2, 3 or 8 of Neal (2000). Labels stay below `capacity`.
    """
    key_sweep, key_moves, key_a, key_base = random.split(key, 4)
    base = base_of(state, prior)
    tied = base_measure.is_tied(prior.covariance)
    given = key_sweep, state.labels, points, state.concentration, base, capacity
    labels, full = (
        sweep(*given, tied=tied) if algorithm == 3 else _auxiliary.sweep(*given, tied=tied, algorithm=algorithm)
    )
    centred = points - base.mean
    statistics = _clusters.statistics(centred, labels, capacity, base) if moves else ()
    places = _split_merge.partition_places(state.concentration)
    moved = _split_merge.moves(key_moves, moves, labels, statistics, centred, base, tied=tied, places=places)
    labels = by_appearance(moved.labels, capacity)
    a = concentration.given_clusters(key_a, state.concentration, labels.max() + 1, points.shape[0], prior.concentration)
    full = state.full | full | moved.full
    state = GibbsState(labels, a, state.base_mean, state.kappa, full, moved.accepted)
    return state if prior.hyperprior is None else _sample_base(key_base, state, points, prior, capacity)


def sweep(
    key: Array,
    labels: Integer[Array, " N"],
    points: Float[Array, "N D"],
    a: Float[Array, ""],
    base: BaseMeasure,
    capacity: int,
    *,
    tied: bool = False,
) -> tuple[Integer[Array, " N"], Bool[Array, ""]]:
    """Every point in turn leaves its cluster and takes a seat: algorithm 3 of Neal (2000).

    ``p(z_n = c | others) ~ n_c t_c(x_n)``, or ``a t_0(x_n)`` for a new cluster, in an empty slot. `tied`: clusters share one
    covariance. Returns labels, and whether at any time no slot was empty: then the draws are void, and more slots are
    needed.
    """
    centred = points - base.mean
    base = base._replace(mean=jnp.zeros_like(base.mean))
    table = _clusters.build(*_clusters.statistics(centred, labels, capacity, base), base, tied=tied)
    uniforms = random.uniform(key, labels.shape, points.dtype)
    (table, full), labels = _seats(table, jnp.log(a), base, _clusters.empty(base), centred, labels, uniforms)
    return labels, full | (table.counts > 0).all()


def _seats(
    table: _clusters.Clusters,
    log_a: Float[Array, ""],
    base: BaseMeasure,
    empty_cluster: _clusters.Clusters,
    *rows: Num[Array, "N ..."],
) -> tuple[tuple[_clusters.Clusters, Bool[Array, ""]], Integer[Array, " N"]]:
    """The sweep's loop over points, labels and uniform numbers: ``(clusters, whether slots ran out), labels``."""
    places = jnp.arange(len(table.counts))

    def seat(carry, row):
        table, full = carry
        x, z, u = row
        table = _clusters.change(table, z, x, -1, base, empty_cluster)
        free = jnp.argmin(table.counts)
        log_seats = jnp.where(places == free, log_a, jnp.log(table.counts))
        log_p = log_seats + _clusters.log_predictive(table, x, base)
        p = _summed(jnp.exp(log_p - log_p.max()))
        z = jnp.minimum(jnp.sum(p < u * p[-1]), len(places) - 1)
        full |= jnp.min(table.counts) > 0
        return (_clusters.change(table, z, x, 1, base, empty_cluster), full), z

    return jax.lax.scan(seat, (table, jnp.zeros((), bool)), rows)


def _summed(p: Float[Array, " K"]) -> Float[Array, " K"]:
    """Cumulative sums by doubling steps: `jnp.cumsum` is slow on a few numbers."""
    places, step = jnp.arange(len(p)), 1
    while step < len(p):
        p = p + jnp.where(places >= step, jnp.roll(p, step), 0.0)
        step *= 2
    return p


def base_of(state: _HasBase, prior: Conjugate) -> BaseMeasure:
    """The base measure with the state's mean and kappa."""
    return prior.base._replace(mean=state.base_mean, kappa=state.kappa)


def kept(state: GibbsState, points: Float[Array, "N D"], prior: Conjugate, capacity: int) -> Kept:
    """`Kept` of a state."""
    statistics = _clusters.statistics(points - prior.base.mean, state.labels, capacity, prior.base)
    return Kept(statistics, state.concentration, state.base_mean, state.kappa)


def parameters(key: Array, draw: Kept, prior: Conjugate) -> dict[str, Array]:
    """Weights, means and covariances given the partition, as sites of the stick-breaking model; empty ones from the prior.

    In order of first appearance the clusters' sticks are ``v_c ~ Beta(n_c, a + sum_{d>c} n_d)``, those of the empty ones
    ``Beta(1, a)``, and the last component takes what is left. Source: Pitman (1996), section 4.
    """
    key_sticks, key_rest, key_components = random.split(key, 3)
    counts, sums, squares = conjugate.recentre(*draw.statistics, draw.base_mean - prior.base.mean, prior.base)
    after = counts[::-1].cumsum()[::-1] - counts
    here = jnp.where(counts > 0, counts, 1.0)
    logits = random.loggamma(key_sticks, here) - random.loggamma(key_rest, draw.concentration + after)
    means, scale_trils = sample_components(key_components, (counts, sums, squares), base_of(draw, prior), prior)
    sites = {
        "concentration": draw.concentration,
        "stick_logits": logits[:-1],
        "means": means,
        "scale_trils": scale_trils,
    }
    return sites if prior.hyperprior is None else sites | {"base_mean": draw.base_mean, "kappa": draw.kappa}


def sample_components(
    key: Array, statistics: _clusters.Statistics, base: BaseMeasure, prior: Conjugate
) -> tuple[Float[Array, "K D"], Float[Array, "#K ..."]]:
    """Means ``(K, D)`` and Cholesky factors, in the smallest form, of clusters of these statistics."""
    counts, sums, squares = statistics
    of_clusters = conjugate.update(counts, sums, squares, base, tied=base_measure.is_tied(prior.covariance))
    means, blocks = conjugate.sample(key, of_clusters)
    return means, base_measure.in_smallest_form(blocks, prior.covariance)


def by_appearance(labels: Integer[Array, " N"], capacity: int) -> Integer[Array, " N"]:
    """Labels 0, 1, ... by first appearance: ``(N,)``."""
    size = labels.shape[0]
    first = jnp.full(capacity, size).at[labels].min(jnp.arange(size))
    return jnp.argsort(jnp.argsort(first))[labels]


def _sample_base(
    key: Array, state: GibbsState, points: Float[Array, "N D"], prior: Conjugate, capacity: int
) -> GibbsState:
    """Mean and kappa of the base measure given components drawn for the clusters, which are then forgotten."""
    key_components, key_base = random.split(key)
    statistics = _clusters.statistics(points - state.base_mean, state.labels, capacity, prior.base)
    means, scale_trils = sample_components(key_components, statistics, base_of(state, prior), prior)
    mean, kappa = conjugate.sample_base(key_base, means, scale_trils, statistics[0] > 0, state.kappa, prior.hyperprior)
    return state._replace(base_mean=mean, kappa=kappa)
