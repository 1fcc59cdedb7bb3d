"""Coordinate-ascent variational inference for conjugate models, with moves between its many fixed points.

q factorises over allocations, weights, concentration and components, each factor the best for the others (Blei & Jordan
2006; with a gamma prior of the concentration inside). Passes are extrapolated, components put in the best order, and
merges, splits and deletions tried, all accepted by the bound: see `_cavi_passes`, `_cavi_weights` and `_cavi_moves`. It is a
guide and no posterior. Every draw carries its importance weight, ``log p(theta, x) - log q(theta)``, of which the labels of
points are summed out: its mean is a higher bound than the one climbed, and its tail tells how far the guide can be trusted.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random
from jaxtyping import Float, Int

from .. import draws
from ..data import Dataset
from ..densities import base_measure, conjugate, gaussian
from ..errors import InputError, above, at_least
from ..model.posterior import Arrays, Conjugate, Parameters, Posterior
from . import _cavi_moves
from ._cavi_moves import Climb
from ._cavi_passes import CAVIState, Statistics, components, elbo, from_statistics, step
from ._cavi_weights import WEIGHTS
from ._method import Method, conjugate_prior
from ._run import Progress, expired, guide_draws, run_chains

__all__ = ["CAVIState", "checked", "elbo", "init", "log_density", "run", "sample", "starts", "step"]

CHUNK = 10
"""Cycles, of three passes each, or moves tried, between two looks at the stopping rule, the progress bar and Ctrl-C."""
PATIENCE = 10
"""Cycles in a row that lift the bound by less than the tolerance before a restart is settled: plateaus are long."""
AFTERWARDS = 2
"""Both of them on all points, after a climb on a sample."""
BEFORE = 50
"""Steps before moves, at most: moves start from any plateau, and shorten it."""
TRIAL = 4
"""Cycles that a proposal gets before it is judged."""
SNAPSHOTS = 30
"""Components kept along the way."""
SAMPLE = 50_000
"""Random points on which restarts climb first, where there are more."""


def run(
    posterior: Posterior,
    key: Array,
    *,
    restarts: int = 4,
    max_steps: int = 2_000,
    relative_tolerance: float = 1e-9,
    moves: int = 100,
    draws_per_restart: int | None = None,
    sample_size: int | None = SAMPLE,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Climb the evidence lower bound, all restarts in one program; chain = restart, draws from each q.

    Options:
        `restarts`: starts, of which the best is the answer.
        `max_steps`: cycles of three passes over the points (`_cavi_moves.cycle`), at most.
        `relative_tolerance`: share of the bound by which a step must lift it, or it counts as settled.
        `moves`: merges, splits and deletions tried, after `BEFORE` steps.
        `draws_per_restart`: draws of each fitted q; by default 1,000, fewer of millions of points: each is a pass over them.
        `sample_size`: of more points, restarts climb and try moves on so many random ones, then climb on all; none: on all.

    A restart is settled after `PATIENCE` steps in a row that lift the bound by less than the tolerance (`AFTERWARDS` where
    a sample went before). `optimisation`
    holds minus the bound (nats, never rising, labels among what is approximated) and the components at the means of q
    along the way. `sample_stats/log_weight` (chain, draw) is each draw's log importance weight, nats, a ratio of densities
    of the model's sites; attribute `elbo` their mean, one a restart. Deterministic given `key`. Raises `InputError` for
    models without a conjugate prior, for those that learn their base measure, and for options out of range.
    """
    at_least("cavi", 1, restarts=restarts, max_steps=max_steps)
    at_least("cavi", 0, moves=moves)
    at_least("cavi", 1, **({} if sample_size is None else {"sample_size": sample_size}))
    above(0, relative_tolerance=relative_tolerance)
    prior = checked(posterior)
    if draws_per_restart is None:
        draws_per_restart = guide_draws(posterior, restarts)
    at_least("cavi", 1, draws_per_restart=draws_per_restart)
    key_climb, key_draw = random.split(key)
    how = _How(restarts, max_steps, relative_tolerance, moves)
    path, compile_seconds, run_seconds = _in_stages(posterior, prior, key_climb, how, sample_size, progress)
    keys = random.split(key_draw, (restarts, draws_per_restart))

    def every(keys, states):
        of_restart = lambda pair: jax.lax.map(lambda key: _with_density(key, pair[1], prior), pair[0])
        return jax.lax.map(of_restart, (keys, states))

    draw, draw_seconds = posterior.compile("cavi, draws", every, keys, path.states)
    parameters, log_q = jax.device_get(draw(keys, path.states))
    tree = draws.build(
        posterior,
        parameters,
        compile_seconds=compile_seconds + draw_seconds,
        run_seconds=run_seconds,
        chosen={"draws_per_restart": draws_per_restart},
        optimisation=draws.paths(posterior, path.loss, path.history, path.steps),
    )
    log_weight = tree["sample_stats"]["log_joint"] - log_q
    tree["sample_stats"]["log_weight"] = log_weight
    tree.attrs["elbo"] = np.asarray(log_weight).mean(axis=1)
    tree.attrs["moves_accepted"] = path.accepted
    return tree


def starts(posterior: Posterior, key: Array, count: int, *, restarts: int = 4, moves: int = 100) -> Parameters:
    """`count` draws from the best q of `restarts` restarts, as parameters with a leading axis: starts for other methods.

    Unlike dispersed starts they all lie in one mode, up to what q leaves open.
    """
    at_least("cavi", 1, count=count, restarts=restarts)
    prior = checked(posterior)
    key_climb, key_draw = random.split(key)
    path = _in_stages(posterior, prior, key_climb, _How(restarts, 2_000, 1e-9, moves), SAMPLE, None)[0]
    state = jax.tree.map(lambda leaf: leaf[int(np.nanargmin(path.loss[:, -1]))], path.states)
    keys = random.split(key_draw, count)
    every = lambda keys, state: jax.lax.map(lambda key: sample(key, state, prior), keys)
    return posterior.compile("cavi, starts", every, keys, state)[0](keys, state)


def checked(posterior: Posterior) -> Conjugate:
    """The conjugate prior of a posterior. Raises `InputError` without one, or where its base measure is learnt."""
    prior = conjugate_prior(posterior, "cavi")
    if prior.hyperprior is not None:
        raise InputError(
            f"cavi: model {posterior.name} learns the mean and kappa of its base measure, which q does not hold;"
            " choose svi, or a model with a fixed base measure"
        )
    return prior


def init(key: Array, data: Arrays, prior: Conjugate, num_components: int) -> CAVIState:
    """A start of J components, log J uniform up to K, at random points, of a typical covariance and equal counts.

    The other components are as they are a priori, and wait for points.
    """
    key_count, key_rows = random.split(key)
    rows = random.choice(key_rows, len(data.points), (num_components,), p=data.weights / data.weights.sum())
    held = num_components ** random.uniform(key_count, dtype=data.points.dtype)
    mask = jnp.where(jnp.arange(num_components) < held, 1.0, 0.0)
    counts = mask / mask.sum() * data.weights.sum()
    x, base = data.points[rows] - prior.base.mean, prior.base
    typical = base.scale_tril @ jnp.swapaxes(base.scale_tril, -1, -2) / base.df
    # A block of R dimensions sums over them.
    squares = conjugate.product(x, x, base) + conjugate.shape_of(base)[2] * typical
    return from_statistics(Statistics(counts, counts[:, None] * x, counts[:, None, None, None] * squares), prior)


def sample(key: Array, state: CAVIState, prior: Conjugate) -> Parameters:
    """A draw of q: the sites of the model."""
    key_weights, key_components = random.split(key)
    means, blocks = conjugate.sample(key_components, components(state, prior))
    scale_trils = base_measure.in_smallest_form(blocks, prior.covariance)
    counts, mean = state.statistics.counts, jnp.exp(state.log_mean)
    weights_term = WEIGHTS[prior.weights].sample(key_weights, counts, mean, prior)
    return weights_term | {"means": means, "scale_trils": scale_trils}


def log_density(parameters: Parameters, state: CAVIState, prior: Conjugate) -> Float[Array, ""]:
    """Log density of q at the sites of the model, ``()``: with respect to those, as `Posterior.log_joint` is."""
    q, (means, scale_trils) = components(state, prior), (parameters["means"], parameters["scale_trils"])
    kappa = jnp.sqrt(q.kappa).reshape(-1, *[1] * (scale_trils.ndim - 1))
    means_term = gaussian.log_density(means, q.mean, scale_trils / kappa)
    blocks = base_measure.in_blocks(scale_trils, prior.covariance)
    factors_term = gaussian.log_inverse_wishart(blocks, q.df[:, None], q.scale_tril)
    counts, mean = state.statistics.counts, jnp.exp(state.log_mean)
    weights_term = WEIGHTS[prior.weights].log_density(parameters, counts, mean, prior)
    return weights_term + jnp.sum(means_term) + jnp.sum(factors_term)


def centre(state: CAVIState, prior: Conjugate) -> Parameters:
    """Sites at the means of q's masses, means and precisions: what a snapshot shows."""
    q = components(state, prior)
    blocks = q.scale_tril / jnp.sqrt(q.df)[:, None, None, None]
    weights_term = WEIGHTS[prior.weights].centre(state.statistics.counts, jnp.exp(state.log_mean))
    return weights_term | {"means": q.mean, "scale_trils": base_measure.in_smallest_form(blocks, prior.covariance)}


class _Path(NamedTuple):
    """Where restarts ended, and the way there: loss ``(R, steps)``, snapshots ``(R, S, ...)`` at `steps`."""

    states: CAVIState
    loss: Float[np.ndarray, "R steps"]
    history: Parameters
    steps: Int[np.ndarray, " S"]
    accepted: int


class _How(NamedTuple):
    """Options of a climb, as `run` has them, and how often and how long it looks whether it has settled."""

    restarts: int
    max_steps: int
    tolerance: float
    moves: int
    chunk: int = CHUNK
    patience: int = PATIENCE


def _in_stages(
    posterior: Posterior, prior: Conjugate, key: Array, how: _How, sample_size: int | None, progress: Progress | None
) -> tuple[_Path, float, float]:
    """`_climbed`; of more than `sample_size` points, first on a sample, whose statistics are scaled up to those of all.

    Points of the sample count as they are: if they stood for all, components would be made of chance.
    """
    few = posterior.data if sample_size is None else posterior.data.sample(sample_size)
    if few is posterior.data:
        return _climbed(posterior, prior, key, how, progress)
    share = few.size / posterior.data.size
    few = Dataset(few.points, few.weights * share)
    first, *before = _climbed(posterior.on(few), prior, key, how, progress)
    states = jax.vmap(lambda s: from_statistics(jax.tree.map(lambda leaf: leaf / share, s), prior))(
        first.states.statistics
    )
    rest = how._replace(moves=0, chunk=AFTERWARDS, patience=AFTERWARDS)
    path, *after = _climbed(posterior, prior, key, rest, progress, states)
    path = path._replace(accepted=first.accepted)
    return path, before[0] + after[0], before[1] + after[1]


def _climbed(
    posterior: Posterior,
    prior: Conjugate,
    key: Array,
    how: _How,
    progress: Progress | None,
    states: CAVIState | None = None,
) -> tuple[_Path, float, float]:
    """Climb, try moves, climb again, from `states` or from `init`; and the seconds of compilation and of running."""
    restarts, max_steps, tolerance, moves, length, patience = how
    data = posterior.arrays()
    num_components = int(posterior.options["truncation"])
    key_start, key_moves = random.split(key)
    keys = random.split(key_start, restarts)

    def begin(keys, data):
        return jax.vmap(lambda k: init(k, data, prior, num_components))(keys)

    climbing, moving = jnp.zeros((), bool), jnp.ones((), bool)

    def some(keys, climbs, data, moving):
        def one(climb, key):
            # Without moves their branch is a constant one, and not compiled.
            after, taken = _cavi_moves.advance(key, climb, data, prior, TRIAL, moving if moves else climbing)
            return after, (after.bound, taken)

        return jax.vmap(lambda keys, c: jax.lax.scan(one, c, keys))(keys, climbs)

    def snapshot(states):
        return jax.vmap(lambda s: centre(s, prior))(states)

    seconds = 0.0
    if states is None:
        begun, seconds = posterior.compile("cavi, begin", begin, keys, data)
        states = begun(keys, data)
    climbs = jax.vmap(lambda state: _cavi_moves.begin(state))(states)
    keys = random.split(key_moves, (restarts, length))
    climb, more = posterior.compile(("cavi, climb", length, moves > 0), some, keys, climbs, data, climbing)
    centred, least = posterior.compile("cavi, centre", snapshot, climbs.state)
    floor = 8 * float(jnp.finfo(data.points.dtype).eps)
    rounds = -(-moves // length)

    def all_restarts(_, advance):
        state, bounds, seen, accepted = climbs, [], [(0, climbs.state)], 0

        def upwards(state: Climb, until: float, budget: int) -> Climb:
            begun = len(bounds)
            for _ in range(0, budget, length):
                state, (values, _) = climb(keys, state, data, climbing)
                bounds.append(np.asarray(values))
                seen.append((sum(b.shape[1] for b in bounds), state.state))
                advance(length, f"best bound {bounds[-1][:, -1].max():.2f}")
                if _settled(np.concatenate(bounds[begun:], axis=1), max(until, floor), patience) or expired():
                    break
            return state

        state = upwards(state, tolerance, min(BEFORE, max_steps)) if moves else state
        for i in range(rounds):
            if expired():
                break
            of_round = random.split(random.fold_in(key_moves, i), (restarts, length))
            state, (values, taken) = climb(of_round, state, data, moving)
            bounds.append(np.asarray(values))
            accepted += int(np.asarray(taken).sum())
            seen.append((sum(b.shape[1] for b in bounds), state.state))
            advance(0, f"moves, best bound {bounds[-1][:, -1].max():.2f}")
        return upwards(state, tolerance, max_steps), bounds, seen, accepted

    [(last, bounds, seen, accepted)], run_seconds = run_chains(all_restarts, 1, 2 * max_steps, progress)
    shown = [seen[i] for i in np.linspace(0, len(seen) - 1, SNAPSHOTS).round().astype(int)]
    history = [centred(state) for _, state in shown]
    history = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *history)
    path = _Path(last.state, -np.concatenate(bounds, axis=1), history, np.array([i for i, _ in shown]), accepted)
    return path, seconds + more + least, run_seconds


def _settled(bounds: Float[np.ndarray, "R steps"], tolerance: float, patience: int) -> bool:
    """Whether the last `patience` steps of every restart each lifted its bound by less than `tolerance` of it."""
    last = bounds[:, -patience - 1 :]
    return last.shape[1] > patience and bool((np.diff(last) <= tolerance * np.abs(last[:, 1:])).all())


def _with_density(key: Array, state: CAVIState, prior: Conjugate) -> tuple[Parameters, Float[Array, ""]]:
    parameters = sample(key, state, prior)
    return parameters, log_density(parameters, state, prior)


METHOD = Method(
    "cavi",
    run,
    kind="guide",
    conjugate=True,
    check=checked,
    quick={"restarts": 2, "moves": 20, "draws_per_restart": 250},
    colour="#56B4E9",
    usual=True,
)
