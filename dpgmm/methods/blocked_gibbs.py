"""Blocked Gibbs sampling of truncated and finite mixtures: every component in every draw, all points at once.

Ishwaran & James (2001), section 5.2, with moves that permute labels. The posterior is exactly that of the other methods,
labels included; components stand as the sampler left them.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random
from jax.scipy.special import gammaln
from jaxtyping import Float, Integer

from .. import draws
from ..densities import base_measure, concentration, conjugate, mixture
from ..densities.gaussian import BaseMeasure
from ..errors import at_least
from ..model.posterior import Arrays, Conjugate, Mixture, Parameters, Posterior
from . import _active, _clusters, _collapsed, _density, _moves, _pairs, _so_far, _split_merge, _state, _sweeps
from ._collapsed import sample_components
from ._method import Method
from ._run import Progress, stack
from .gibbs import keeps, of_whole_points, with_allocations

WORK = 20_000_000
"""Point-component pairs between two looks at the progress bar and at Ctrl-C, at most 100 draws."""
ROWS = 32_000_000
"""Point-component densities that are held while components are parted anew."""
FEWEST, LARGEST = 8, 32
"""Components among which pairs are parted anew, at least and at most."""
MANY = 20_000
"""Points that all take part in the start."""
STAGES, EARLY_MOVES = {4_000: 300, 16_000: 150, 64_000: 50, 256_000: 15}, (20, 8)
"""Of more, random points and sweeps of them, stage after stage, with so many `split_merges` and `pair_moves`."""
WITHIN = 0.5
"""Probability that both points of a split-merge proposal come from one cluster: else small ones are hardly ever split."""
MOST = 3
"""Components that a start occupies, at most. Splits find what is missing, however many points there are; two components
that share one Gaussian's points take ages to become one where there are many."""


class BlockedGibbsState(NamedTuple):
    """Sites of the model, and the allocations ``(N,)`` that they were drawn given. `accepted`: moves of the last step."""

    parameters: Parameters
    labels: Integer[Array, " N"]
    accepted: Integer[Array, ""] | int = 0


def run(
    posterior: Posterior,
    key: Array,
    *,
    chains: int = 4,
    warmup: int = 500,
    draws_per_chain: int = 1_000,
    thin: int = 1,
    split_merges: int = 3,
    pair_moves: int = 4,
    keep_allocations: bool | None = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Draws of chains from dispersed starts.

    Options:
        `chains`: independent chains from dispersed starts.
        `warmup`: sweeps before the draws that are kept.
        `draws_per_chain`: draws that are kept of each chain.
        `thin`: sweeps a draw.
        `split_merges`: proposals to split or merge whole components after the allocations of each sweep.
        `pair_moves`: proposals to part two components anew before the allocations of each sweep.
        `keep_allocations`: keep every draw's allocations; by default up to 256 million labels.

    `sample_stats/allocations` (chain, draw, obs), in the smallest integer type, are those that the draw's components were
    drawn given. `occupied_clusters` is the number of components that they occupy. Splits and mergers integrate weights
    and components out; `sample_stats/accepted_moves` counts those accepted since the last draw. Pairs are parted with
    allocations summed out: two components that share one Gaussian's points become one. Deterministic given `key`. Raises
    `InputError` for models without a conjugate prior and for weighted points.
    """
    at_least("blocked_gibbs", 1, chains=chains, draws_per_chain=draws_per_chain, thin=thin)
    at_least("blocked_gibbs", 0, warmup=warmup, split_merges=split_merges, pair_moves=pair_moves)
    prior = checked(posterior)
    num_components = int(posterior.options["truncation"])
    points = jnp.asarray(posterior.data.points, jax.dtypes.canonicalize_dtype(float))
    size = points.shape[0]
    length = int(np.clip(WORK // (size * num_components * thin), 1, 100))
    keep = keeps(asked=keep_allocations, number=chains * draws_per_chain * size)
    key_start, key_chain = random.split(key)
    begin = lambda key, points: start(key, points, prior, posterior)
    initial, start_seconds = posterior.compile("blocked_gibbs, start", begin, key_start, points)
    starts = [partial(initial, k, points) for k in random.split(key_start, chains)]
    like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(begin, key_start, points))
    label_type = np.min_scalar_type(num_components - 1)

    sweep = lambda key, state, points: step(key, state, points, prior, posterior, split_merges, pair_moves)

    def look(state, points):
        occupied = (jnp.zeros(num_components, int).at[state.labels].add(1) > 0).sum()
        return state.parameters, occupied, state.labels.astype(label_type) if keep else jnp.zeros(0, label_type)

    plan = _sweeps.schedule(key_chain, chains, warmup, draws_per_chain, thin, length)
    name = "blocked_gibbs", thin, split_merges, pair_moves, keep
    compiled, compile_seconds = posterior.compile(
        name, _sweeps.chunk(sweep, look, thin), like, random.split(key_chain, length), points
    )
    one = lambda state, keys: compiled(state, keys, points)
    note = lambda some: f"{int(np.median(some[0][1]))} components occupied"

    def invariants(some):
        sites, occupied = some[0][:2]
        mixtures = _so_far.mixtures(posterior, sites)
        return _so_far.invariants(*mixtures, occupied=occupied, concentration=sites["concentration"])

    results, run_seconds = _sweeps.run(plan, starts, lambda _: one, note, invariants, progress)
    joined = [plan.kept(parts) for parts in results]
    parameters, occupied, accepted = stack([(*looks[:2], accepted) for looks, accepted in joined])
    tree = draws.build(
        posterior,
        parameters,
        chosen={"keep_allocations": keep},
        compile_seconds=start_seconds + compile_seconds,
        run_seconds=run_seconds,
        moves_labels=True,
        sample_stats={"occupied_clusters": np.asarray(occupied)}
        | ({"accepted_moves": np.asarray(accepted)} if split_merges else {}),
    )
    return with_allocations(tree, np.stack([looks[2] for looks, _ in joined]), num_components) if keep else tree


def checked(posterior: Posterior) -> Conjugate:
    """The conjugate prior of a posterior of whole points. Raises `InputError` without one, or for weighted points."""
    return of_whole_points(posterior, "blocked_gibbs")


def start(key: Array, points: Float[Array, "N D"], prior: Conjugate, posterior: Posterior) -> BlockedGibbsState:
    """Dispersed start: the points nearest to each of 1 to `MOST` randomly chosen points are those of a component.

    Of more than `MANY` points, sweeps on ever larger random subsets (`STAGES`) come first, all of each chain's own: what
    a few thousand points cannot tell apart the next stage does, at a tenth of the price of sweeps of all points.
    Allocations are then those of no point yet: nought.
    """
    if len(points) <= MANY:
        return _at_random(key, points, prior, posterior)
    key_start, *keys = random.split(key, 1 + len(STAGES))
    subset = lambda key, size: points[random.randint(key, (size,), 0, len(points))]
    state = _at_random(key_start, subset(keys[0], min(STAGES)), prior, posterior)
    for key, (size, sweeps) in zip(keys, STAGES.items(), strict=True):
        if size < len(points):
            state = _swept(key, state, subset(key, size), sweeps, prior, posterior)
    return BlockedGibbsState(state.parameters, jnp.zeros(len(points), int), jnp.zeros((), int))


def _swept(
    key: Array, state: BlockedGibbsState, points: Array, times: int, prior: Conjugate, posterior: Posterior
) -> BlockedGibbsState:
    """`times` sweeps with `EARLY_MOVES`; allocations of other points than these are forgotten."""
    state = BlockedGibbsState(state.parameters, jnp.zeros(len(points), int), jnp.zeros((), int))
    sweep = lambda i, now: step(random.fold_in(key, i + 1), now, points, prior, posterior, *EARLY_MOVES)
    return jax.lax.fori_loop(0, times, sweep, state)


def _at_random(key: Array, points: Float[Array, "N D"], prior: Conjugate, posterior: Posterior) -> BlockedGibbsState:
    key_sites, key_labels, key_rest = random.split(key, 3)
    sites = posterior.initial(key_sites)
    labels = _collapsed.start(key_labels, points, prior, min(MOST, len(sites["means"]))).labels
    statistics = _clusters.statistics(points - prior.base.mean, labels, len(sites["means"]), prior.base)
    about = conjugate.recentre(*statistics, _base(sites, prior).mean - prior.base.mean, prior.base)
    return BlockedGibbsState(_sites(key_rest, about, sites, prior), labels, jnp.zeros((), int))


def step(
    key: Array,
    state: BlockedGibbsState,
    points: Float[Array, "N D"],
    prior: Conjugate,
    posterior: Posterior,
    moves: int = 0,
    pair_moves: int = 0,
) -> BlockedGibbsState:
    """One sweep: `pair_moves` proposals of `part_pairs`, allocations being summed out; allocations; `moves` split-merge
    proposals and then the order of the components, weights and components being integrated out; then everything given
    them.

    ``w, mu, Sigma``; ``z | w, mu, Sigma``; ``z | a``; ``labels | a``; ``a, w | z``; ``mu, Sigma | z``; mean and kappa of
    the base measure. What is drawn with z summed out is followed by z (van Dyk & Park 2008, on partially collapsed Gibbs).
    """
    key_points, key_labels, key_sites = random.split(key, 3)
    old, tied = state.parameters, base_measure.is_tied(prior.covariance)
    if pair_moves:
        old = part_pairs(random.fold_in(key, 2), old, points, prior, posterior, pair_moves)
    labels, statistics = allocate(key_points, posterior.mixture(old), points, prior.base)
    base = _base(old, prior)
    statistics = conjugate.recentre(*statistics, base.mean - prior.base.mean, base)
    places = _split_merge.allocation_places(lambda counts: LOG_ALLOCATIONS[prior.weights](counts, old["concentration"]))
    key_moves, about = random.fold_in(key, 1), points - base.mean
    moved = _split_merge.moves(
        key_moves, moves, labels, statistics, about, base, tied=tied, places=places, within=WITHIN
    )
    order = permute(key_labels, moved.statistics[0], old["concentration"], prior.weights)
    counts, sums, squares = (leaf[order] for leaf in moved.statistics)
    labels = jnp.argsort(order)[moved.labels]
    return BlockedGibbsState(_sites(key_sites, (counts, sums, squares), old, prior), labels, moved.accepted)


def part_pairs(
    key: Array, sites: Parameters, points: Float[Array, "N D"], prior: Conjugate, posterior: Posterior, times: int
) -> Parameters:
    """`times` proposals to part two components anew with all allocations summed out (`_pairs.split_merge`).

    Two components that share one Gaussian's points become one with a single look at the likelihood, however many points
    there are: as sets of points they could only be told apart at the price of every point's side. The components come in a
    size-biased order, so that the ones that are looked at are the large ones.
    """
    key_order, key_moves, key_labels = random.split(key, 3)
    state, size = _state.state_of(sites, posterior), len(sites["means"])
    base = _base(sites, prior)
    state, _ = _moves.reorder(key_order, state, prior)
    num = min(size, int(np.clip(ROWS // len(points), FEWEST, LARGEST)))
    diagonal = conjugate.shape_of(base)[1] == 1
    seen = _active.points_of(Arrays(points, jnp.ones(len(points), points.dtype)), diagonal=diagonal)
    density = _density.log_density(state.components, base, seen)
    state, _, _ = _pairs.split_merge(key_moves, state, base, prior, seen, density, num, times, near=True)
    return _state.parameters_of(_moves.any_order(key_labels, state, prior), posterior)


def _base(sites: Parameters, prior: Conjugate) -> BaseMeasure:
    """The base measure with the sites' mean and kappa, where they have them."""
    if prior.hyperprior is None:
        return prior.base
    return prior.base._replace(mean=sites["base_mean"], kappa=sites["kappa"])


def _sites(key: Array, statistics: _clusters.Statistics, old: Parameters, prior: Conjugate) -> Parameters:
    """Sites of the model given the allocations, whose statistics are about the base mean of the `old` sites."""
    key_weights, key_components, key_base = random.split(key, 3)
    base, counts = _base(old, prior), statistics[0]
    means, scale_trils = sample_components(key_components, statistics, base, prior)
    new = WEIGHTS[prior.weights](key_weights, counts, old["concentration"], prior)
    new |= {"means": means, "scale_trils": scale_trils}
    if prior.hyperprior is None:
        return new
    all_components = jnp.ones(len(counts), bool)
    mean, kappa = conjugate.sample_base(key_base, means, scale_trils, all_components, base.kappa, prior.hyperprior)
    return new | {"base_mean": mean, "kappa": kappa}


def allocate(
    key: Array, components: Mixture, points: Float[Array, "N D"], base: BaseMeasure
) -> tuple[Integer[Array, " N"], _clusters.Statistics]:
    """A component for every point, ``(N,)``, from its probabilities; and the components' statistics about the base mean."""
    labels = mixture.allocations(key, *components, points)
    return labels, _clusters.statistics(points - base.mean, labels, len(components.means), base)


def permute(key: Array, counts: Float[Array, " K"], a: Float[Array, ""], weights: str) -> Integer[Array, " K"]:
    """An order of the components: K proposals to swap two labels, weights and components being integrated out.

    What the points say does not depend on labels, so a swap is accepted by the ratio of `log_allocations` alone. Under a
    Dirichlet prior, where the ratio is one, the order is uniform. Source: Papaspiliopoulos & Roberts (2008), section 3.4,
    with sticks in place of their integral. ``order[k]`` is the component that becomes k, ``(K,)``.
    """
    size = len(counts)
    if weights == "dirichlet":
        return random.permutation(key, size)
    key_pairs, key_accept = random.split(key)
    pairs = jnp.stack([random.randint(key_pairs, (size,), 0, size), jnp.roll(jnp.arange(size), 1)], axis=1)
    log_uniforms = jnp.log(random.uniform(key_accept, (size,), counts.dtype))

    def propose(i, carry):
        order, value = carry
        j, k = pairs[i]
        swapped = order.at[j].set(order[k]).at[k].set(order[j])
        proposed = log_allocations(counts[swapped], a)
        accept = log_uniforms[i] < proposed - value
        return jnp.where(accept, swapped, order), jnp.where(accept, proposed, value)

    return jax.lax.fori_loop(0, size, propose, (jnp.arange(size), log_allocations(counts, a)))[0]


def log_allocations(counts: Float[Array, " K"], a: Float[Array, ""]) -> Float[Array, ""]:
    """Log prior of allocations with these counts ``(K,)`` under truncated sticks, which are integrated out, ``()``.

    ``sum_{k<K} log B(1 + n_k, a + sum_{j>k} n_j) - log B(1, a)``.
    """
    after = counts[::-1].cumsum()[::-1] - counts
    n, m = counts[:-1], after[:-1]
    return jnp.sum(jnp.log(a) + gammaln(1 + n) + gammaln(a + m) - gammaln(1 + a + n + m))


def log_dirichlet_allocations(counts: Float[Array, " K"], a: Float[Array, ""]) -> Float[Array, ""]:
    """`log_allocations` under ``Dirichlet(a/K, .., a/K)``, up to what depends on a and N alone: ``()``.

    ``sum_k log Gamma(n_k + a/K) - log Gamma(a/K)``.
    """
    share = a / len(counts)
    return jnp.sum(gammaln(counts + share) - gammaln(share))


def _sticks(key: Array, counts: Float[Array, " K"], a: Float[Array, ""], prior: Conjugate) -> Parameters:
    """Sticks ``v_k | z ~ Beta(1 + n_k, a + sum_{j>k} n_j)``, then the concentration given them."""
    key_here, key_after, key_a = random.split(key, 3)
    after = counts[::-1].cumsum()[::-1] - counts
    here, rest = random.loggamma(key_here, 1 + counts[:-1]), random.loggamma(key_after, a + after[:-1])
    log_last = jnp.sum(rest - jnp.logaddexp(here, rest))
    a = concentration.given_sticks(key_a, log_last, len(counts) - 1, prior.concentration)
    return {"concentration": a, "stick_logits": here - rest}


def _dirichlet(key: Array, counts: Float[Array, " K"], a: Float[Array, ""], prior: Conjugate) -> Parameters:
    """The concentration with the weights integrated out, by a slice; the weights; and the total mass, Gamma(a, 1)."""
    key_a, key_weights, key_total = random.split(key, 3)
    size, (shape, rate) = len(counts), prior.concentration

    def log_density(log_a):
        a = jnp.exp(log_a)
        of_components = log_dirichlet_allocations(counts, a)
        return shape * log_a - rate * a + gammaln(a) - gammaln(a + counts.sum()) + of_components

    a = jnp.exp(concentration.slice_step(key_a, log_density, jnp.log(a)))
    log_masses = random.loggamma(key_weights, counts + a / size)
    return {"concentration": a, "log_masses": jax.nn.log_softmax(log_masses) + random.loggamma(key_total, a)}


WEIGHTS = {"sticks": _sticks, "dirichlet": _dirichlet}
LOG_ALLOCATIONS = {"sticks": log_allocations, "dirichlet": log_dirichlet_allocations}


METHOD = Method(
    "blocked_gibbs",
    run,
    conjugate=True,
    allocates=True,
    check=checked,
    quick={"chains": 2, "warmup": 20, "draws_per_chain": 50},
    colour="#E69F00",
)
