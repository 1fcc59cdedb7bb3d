"""Stochastic variational inference: NumPyro's automatic guides on the unconstrained coordinates, several restarts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import xarray as xr
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.infer import SVI, Trace_ELBO, autoguide

from .. import draws
from ..errors import InputError
from ..posterior import Posterior
from ._run import Progress, compile_timed, dispersed, run_chains, stack

GUIDES = {
    "normal": autoguide.AutoNormal,
    "lowrank": autoguide.AutoLowRankMultivariateNormal,
    "multivariate": autoguide.AutoMultivariateNormal,
}
CHUNK = 500
"""Steps between two looks at the stopping rule, at the progress bar and at Ctrl-C."""
PATIENCE = 3
"""Looks in a row without progress before a restart stops."""


def run(
    posterior: Posterior,
    key: Array,
    *,
    guide: str = "lowrank",
    restarts: int = 4,
    max_steps: int = 20_000,
    learning_rate: float = 0.02,
    particles: int = 1,
    draws_per_restart: int = 1_000,
    init_scale: float = 0.01,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Maximise the evidence lower bound of `guide` from dispersed starts; chain = restart, draws from each guide.

    Adam; a restart stops once the mean loss of the last `CHUNK` steps has not fallen below the best so far by two
    standard errors, `PATIENCE` times in a row. `optimisation` holds the negative ELBO (nats, noisy, NaN after the stop) and
    the components at the guide's median along the way. Attribute `elbo`: of each restart, from 1,000 fresh particles.
    Deterministic given `key`. Raises `InputError` for an unknown guide.
    """
    if guide not in GUIDES:
        raise InputError(f"svi: no guide {guide!r}; there are {', '.join(GUIDES)}")
    key_start, key_run, key_draw, key_elbo = random.split(key, 4)
    starts = dispersed(posterior, key_start, restarts)
    program = _coordinates_program(posterior, _row(starts, 0))
    family = GUIDES[guide](program, init_scale=init_scale)
    svi = SVI(program, family, optax.adam(learning_rate), Trace_ELBO(num_particles=particles))
    keys = random.split(key_run, restarts)
    states = [svi.init(keys[i], init_params=_location(family, _row(starts, i))) for i in range(restarts)]

    def chunk(state):
        state, losses = jax.lax.scan(lambda s, _: svi.update(s), state, length=CHUNK)
        return state, losses, family.median(svi.get_params(state))

    compiled, compile_seconds = compile_timed(chunk, states[0])

    def restart(index, advance):
        state, losses = states[index], []
        path = [_row(starts, index)]
        for done in range(0, max_steps, CHUNK):
            state, values, median = compiled(state)
            losses.append(np.asarray(values))
            path.append(median)
            last = _settled(losses)
            advance(max_steps - done if last else CHUNK, f"restart {index + 1}, ELBO {-losses[-1].mean():.1f}")
            if last:
                break
        return svi.get_params(state), np.concatenate(losses), path

    results, run_seconds = run_chains(restart, restarts, max_steps, progress)
    params = stack([r[0] for r in results])
    sample = jax.vmap(lambda k, p: family.sample_posterior(k, p, sample_shape=(draws_per_restart,)))
    unconstrained = jax.jit(sample)(random.split(key_draw, restarts), params)
    # One particle after the other: arrays of 1,000 particles are large, and products of six axes hang jaxlib 0.10.2 on
    # CPUs (jax issue 39257).
    final = Trace_ELBO(num_particles=1_000, vectorize_particles=False)
    of_guide = lambda p: -jnp.asarray(final.loss(key_elbo, p, program, family))
    elbo = jax.jit(lambda all_params: jax.lax.map(of_guide, all_params))(params)
    constrain = lambda u: posterior.constrain(u)[0]
    tree = draws.build(
        posterior,
        jax.jit(jax.vmap(jax.vmap(constrain)))(unconstrained),
        method="svi",
        options={
            "guide": guide,
            "restarts": restarts,
            "max_steps": max_steps,
            "learning_rate": learning_rate,
            "particles": particles,
            "draws_per_restart": draws_per_restart,
            "init_scale": init_scale,
        },
        compile_seconds=compile_seconds,
        run_seconds=run_seconds,
        optimisation=_paths(posterior, constrain, [r[1] for r in results], [r[2] for r in results]),
    )
    tree.attrs["elbo"] = np.asarray(elbo)
    return tree


def _coordinates_program(posterior: Posterior, like):
    """The posterior on its scaled coordinates as a NumPyro program: guides in data units would depend on the units."""
    log_density = jax.jit(posterior.log_density)  # The guide's set-up runs the program op by op.

    def program():
        sites = {}
        for name, leaf in like.items():
            flat = dist.ImproperUniform(
                dist.constraints.independent(dist.constraints.real, jnp.ndim(leaf)), (), leaf.shape
            )
            sites[name] = numpyro.sample(name, flat)
        numpyro.factor("log_density", log_density(sites))

    return program


def _location(family: autoguide.AutoGuide, start) -> dict[str, Array]:
    """The guide's location parameters at a start."""
    if isinstance(family, autoguide.AutoNormal):
        return {f"{site}_auto_loc": value for site, value in start.items()}
    return {"auto_loc": ravel_pytree(start)[0]}


def _settled(losses: list[np.ndarray]) -> bool:
    """Whether the last `PATIENCE` chunks all failed to fall below the best earlier mean by two standard errors."""
    if len(losses) <= PATIENCE:
        return False
    means = np.array([chunk.mean() for chunk in losses])
    errors = np.array([chunk.std() / math.sqrt(CHUNK) for chunk in losses])
    best = np.minimum.accumulate(means)[-PATIENCE - 1]
    return bool((means[-PATIENCE:] > best - 2 * errors[-PATIENCE:]).all())


def _paths(posterior: Posterior, constrain, losses: list[np.ndarray], paths: list[list]) -> xr.Dataset:
    """Paths of unequal lengths in one group: losses end in NaN, components stay where they stopped."""
    longest = max(len(path) for path in paths)
    padded = [stack(path + [path[-1]] * (longest - len(path))) for path in paths]
    loss = np.full((len(losses), (longest - 1) * CHUNK), np.nan)
    for row, values in zip(loss, losses, strict=True):
        row[: len(values)] = values
    history = jax.jit(jax.vmap(jax.vmap(constrain)))(stack(padded))
    return draws.paths(posterior, loss, history, np.arange(longest) * CHUNK)


def _row(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)
