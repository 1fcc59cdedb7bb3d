"""Stochastic variational inference: NumPyro's automatic guides on the unconstrained coordinates, several restarts.

The guide q is a normal distribution of the coordinates u, which are scaled to the data: guides in data units would depend
on the units. Every draw carries its importance weight, ``log p(u, x) - log q(u)``: their mean is the evidence lower bound,
and their tail says whether the guide can stand in for the posterior (PSIS k-hat; Yao et al. 2018).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import xarray as xr
from jax import Array, random
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpyro.infer import SVI, Trace_ELBO, autoguide
from numpyro.infer.svi import SVIState

from .. import draws
from ..errors import InputError, above, at_least
from ..model.posterior import Arrays, Parameters, Posterior
from . import _batches
from ._method import Method
from ._run import Progress, constrained, dispersed, expired, guide_draws, run_chains, stack

GUIDES = {
    "normal": autoguide.AutoDiagonalNormal,
    "lowrank": autoguide.AutoLowRankMultivariateNormal,
    "multivariate": autoguide.AutoMultivariateNormal,
}
CHUNK = 500
"""Steps between two looks at the stopping rule, at the progress bar and at Ctrl-C."""
FALLS = 4
"""Of the learning rate, where batches hide whether one has helped."""
PATIENCE = 3
"""Looks in a row without progress before the learning rate falls, or a restart stops."""
DECAY = 4.0
"""Factor by which the learning rate falls: a rate far above the posterior's standard deviations goes past all of them."""


def run(
    posterior: Posterior,
    key: Array,
    *,
    guide: str = "lowrank",
    restarts: int = 4,
    candidates: int = 16,
    max_steps: int = 20_000,
    learning_rate: float = 0.02,
    particles: int = 1,
    draws_per_restart: int | None = None,
    init_scale: float = 0.01,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Maximise the evidence lower bound from dispersed starts; chain = restart, draws from each guide.

    Options:
        `guide`: normal, independent coordinates; lowrank or multivariate, correlated ones.
        `restarts`: dispersed starts, of which the best is the answer.
        `candidates`: dispersed points for each restart, which begins at the one of the highest density.
        `max_steps`: of Adam, at most; a restart stops before if it is settled.
        `learning_rate`: of Adam to begin with.
        `particles`: draws of the guide from which a step takes its gradient.
        `draws_per_restart`: draws of each fitted guide; by default 1,000, fewer of millions of points.
        `init_scale`: standard deviation of the guide's coordinates to begin with.
        `batch_size`: random points that a step takes its gradient from; by default all, 10,000 of more than 50,000.

    Once the mean loss of the last `CHUNK` steps has not fallen below the best so far by two standard errors, `PATIENCE`
    times in a row, the learning rate falls by `DECAY`; once that has not helped, by as much, a restart stops. With batches
    it falls `FALLS` times: their noise hides what helps.
    `optimisation` holds the negative ELBO (nats, noisy, NaN after the stop) and the components at the guide's median along
    the way. `sample_stats/log_weight` (chain, draw) is each draw's log importance weight, nats; attribute `elbo` their mean,
    one a restart, over the default number of draws at least. Deterministic given `key`. Raises `InputError` for an unknown
    guide or options out of range.
    """
    if guide not in GUIDES:
        raise InputError(f"svi: no guide {guide!r}; there are {', '.join(GUIDES)}")
    sizes = {"restarts": restarts, "candidates": candidates, "max_steps": max_steps, "particles": particles}
    at_least("svi", 1, **sizes)
    fresh = guide_draws(posterior, restarts)
    draws_per_restart = fresh if draws_per_restart is None else draws_per_restart
    at_least("svi", 1, draws_per_restart=draws_per_restart)
    above(0, learning_rate=learning_rate, init_scale=init_scale)
    size = _batches.size_of("svi", posterior, batch_size)
    key_start, key_run, key_draw = random.split(key, 3)
    starts, data = _starts(posterior, key_start, restarts, candidates, size), posterior.arrays()
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], starts))[1]
    flat = jax.vmap(lambda u: ravel_pytree(u)[0])(starts)
    log_density = lambda u, data: posterior.on(data).log_density(unravel(u))
    static = "svi", guide, learning_rate, particles, init_scale
    family, svi, params = posterior.keep(static, lambda: _set_up(log_density, flat[0], data, *static[1:]))
    keys = random.split(key_run, restarts)
    states = [SVIState(svi.optim.init(params | {"auto_loc": u}), None, k) for u, k in zip(flat, keys, strict=True)]

    def chunk(state, key, data, rate):
        some = lambda s, key: svi.update(s, _batches.drawn(key, data, size))
        state, losses = jax.lax.scan(some, _at_rate(state, rate), random.split(key, CHUNK))
        return state, losses, svi.get_params(state)

    batches = random.split(random.fold_in(key_run, 1), (restarts, -(-max_steps // CHUNK)))
    compiled, compile_seconds = posterior.compile(
        (*static, CHUNK, size), chunk, states[0], batches[0, 0], data, learning_rate
    )

    def restart(index, advance):
        state, losses, falls, since = states[index], [], 0, 0
        path, params = [flat[index]], {}
        for done in range(0, max_steps, CHUNK):
            state, values, params = compiled(state, batches[index, len(losses)], data, learning_rate * DECAY**-falls)
            losses.append(np.asarray(values))
            path.append(params["auto_loc"])
            settled = _settled(losses[since:])
            on = not settled or (_fallen(losses, since) if size is None else falls < FALLS)
            last = not on or expired()
            falls, since = (falls + 1, len(losses)) if settled else (falls, since)
            advance(max_steps - done if last else CHUNK, f"restart {index + 1}, ELBO {-losses[-1].mean():.1f}")
            if last:
                break
        return params, np.concatenate(losses), path

    results, run_seconds = run_chains(restart, restarts, max_steps, progress)
    count = max(fresh, draws_per_restart)
    one = lambda data: lambda of_restart: _weighted_draws(family, log_density, count, of_restart, data)
    every = lambda restarts, data: jax.lax.map(one(data), restarts)
    fitted = random.split(key_draw, restarts), stack([r[0] for r in results])
    unconstrained, log_weights = posterior.compile((*static, count), every, fitted, data)[0](fitted, data)
    tree = draws.build(
        posterior,
        constrained(posterior, unconstrained[:, :draws_per_restart], 2, unravel),
        compile_seconds=compile_seconds,
        run_seconds=run_seconds,
        sample_stats={"log_weight": np.asarray(log_weights)[:, :draws_per_restart]},
        optimisation=_paths(posterior, unravel, [r[1] for r in results], [r[2] for r in results]),
    )
    tree.attrs["elbo"] = np.asarray(log_weights).mean(axis=1)
    return tree


def _starts(posterior: Posterior, key: Array, restarts: int, candidates: int, size: int | None) -> Parameters:
    """The best of so many dispersed points for each restart: Adam leaves few of the optima that it comes into."""
    every = dispersed(posterior, key, restarts * candidates)
    log_densities = lambda every, data: jax.lax.map(posterior.on(data).log_density, every)
    arguments = every, _batches.drawn(random.fold_in(key, 1), posterior.arrays(), size)
    density = posterior.compile("svi, starts", log_densities, *arguments)[0](*arguments)
    density = jnp.where(jnp.isnan(density), -jnp.inf, density).reshape(restarts, candidates)
    best = jnp.argmax(density, axis=1) + candidates * jnp.arange(restarts)
    return jax.tree.map(lambda leaf: leaf[best], every)


def _set_up(
    log_density: Callable[[Float[Array, " P"], Arrays], Float[Array, ""]],
    start: Float[Array, " P"],
    data: Arrays,
    guide: str,
    learning_rate: float,
    particles: int,
    init_scale: float,
) -> tuple[autoguide.AutoContinuous, SVI, dict[str, Array]]:
    """Guide, optimisation, and the parameters that it starts from but for the location."""

    def program(data, density=log_density):
        u = numpyro.sample("u", dist.ImproperUniform(dist.constraints.real_vector, (), start.shape))
        numpyro.factor("log_density", density(u, data))

    family = GUIDES[guide](program, init_scale=init_scale)
    svi = SVI(program, family, optax.inject_hyperparams(optax.adam)(learning_rate), Trace_ELBO(num_particles=particles))
    # The set-up wants the shape of things alone: any density does, and this one costs nothing op by op.
    anything = lambda u, data: jnp.zeros(())
    state = svi.init(random.PRNGKey(0), data, anything, init_params={"auto_loc": start})
    return family, svi, svi.optim.get_params(state.optim_state)


def _weighted_draws(
    family: autoguide.AutoContinuous,
    log_density: Callable[[Float[Array, " P"], Arrays], Float[Array, ""]],
    count: int,
    of_restart: tuple[Array, dict[str, Array]],
    data: Arrays,
) -> tuple[Float[Array, "{count} P"], Float[Array, " {count}"]]:
    """Draws of one guide ``(count, P)`` and their log importance weights ``(count,)``.

    One after the other: arrays of many draws are large, and products of six axes hang jaxlib 0.10.2 on CPUs (jax issue
    39257).
    """
    key, params = of_restart
    q = family.get_posterior(params)
    q = q.to_event(1 - q.event_dim)
    u = q.sample(key, (count,))
    return u, jax.lax.map(lambda u: log_density(u, data) - q.log_prob(u), u)


def _at_rate(state: SVIState, rate: Float[Array, ""]) -> SVIState:
    """The state with another learning rate."""
    step, (params, memory) = state.optim_state
    memory = memory._replace(hyperparams=memory.hyperparams | {"learning_rate": rate})
    return state._replace(optim_state=(step, (params, memory)))


def _settled(losses: list[Float[np.ndarray, " steps"]]) -> bool:
    """Whether the last `PATIENCE` chunks all failed to fall below the best earlier mean by two standard errors."""
    if len(losses) <= PATIENCE:
        return False
    means, errors = _means(losses)
    best = np.minimum.accumulate(means)[-PATIENCE - 1]
    return bool((means[-PATIENCE:] > best - 2 * errors[-PATIENCE:]).all())


def _fallen(losses: list[Float[np.ndarray, " steps"]], since: int) -> bool:
    """Whether the best mean of the chunks from `since` on lies two standard errors below that of those before."""
    means, errors = _means(losses)
    last = since + np.argmin(means[since:])
    return since == 0 or bool(means[last] < means[:since].min() - 2 * errors[last])


def _means(
    losses: list[Float[np.ndarray, " steps"]],
) -> tuple[Float[np.ndarray, " chunks"], Float[np.ndarray, " chunks"]]:
    """Mean of every chunk, and its standard error, as if steps were independent."""
    return np.mean(losses, axis=1), np.std(losses, axis=1) / math.sqrt(CHUNK)


def _paths(
    posterior: Posterior,
    unravel: Callable[[Float[Array, " P"]], Parameters],
    losses: list[Float[np.ndarray, "..."]],
    paths: list[list[Float[Array, " P"]]],
) -> xr.Dataset:
    """Paths of unequal lengths in one group: losses end in NaN, components stay where they stopped."""
    longest = max(len(path) for path in paths)
    padded = stack([stack(path + [path[-1]] * (longest - len(path))) for path in paths])
    loss = np.full((len(losses), (longest - 1) * CHUNK), np.nan)
    for row, values in zip(loss, losses, strict=True):
        row[: len(values)] = values
    history = constrained(posterior, padded, 2, unravel)
    return draws.paths(posterior, loss, history, np.arange(longest) * CHUNK)


METHOD = Method(
    "svi",
    run,
    kind="guide",
    quick={"restarts": 2, "max_steps": 3_000, "draws_per_restart": 250},
    colour="#D55E00",
    usual=True,
)
