"""The No-U-Turn sampler of NumPyro on the unconstrained coordinates, chains from dispersed starts, each at its own pace."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.infer.hmc import hmc

from .. import draws
from ..errors import InputError, at_least
from ..posterior import Posterior
from . import _permute
from ._run import Progress, constrained, dispersed, run_chains, stack

CHUNK = 25
"""Transitions between two looks at the progress bar and at Ctrl-C."""


def run(
    posterior: Posterior,
    key: Array,
    *,
    chains: int = 4,
    warmup: int = 1_000,
    draws_per_chain: int = 1_000,
    target_accept: float = 0.9,
    max_tree_depth: int = 10,
    dense_mass: bool = False,
    permute: bool = False,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Draws of `chains` independent chains after `warmup` adaptive transitions (Hoffman & Gelman 2014).

    `sample_stats` keeps `diverging`, `n_steps`, `tree_depth`, `energy`, `acceptance_rate`, `step_size`, of the kept
    draws. With `permute`, every transition is followed by K proposals to swap two labels (`_permute.swap`): chains then
    draw from the labelled posterior, and labels switch as often as they may. Deterministic given `key`. Raises
    `InputError` for options out of range, where a start has no finite density, and with `permute` where a model's components
    cannot be swapped.
    """
    at_least("nuts", 1, chains=chains, draws_per_chain=draws_per_chain, max_tree_depth=max_tree_depth)
    at_least("nuts", 0, warmup=warmup)
    key_start, key_chain = random.split(key)
    starts = dispersed(posterior, key_start, chains)
    # One flat vector of coordinates: the sampler's own work is per array, and outweighs that of a small model.
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], starts))[1]
    flat, data = jax.vmap(lambda u: ravel_pytree(u)[0])(starts), posterior.arrays()
    potential = lambda data: lambda u: -posterior.on(data).log_density(unravel(u))
    first, _ = posterior.compile("nuts, starts", lambda flat, data: jax.lax.map(potential(data), flat), flat, data)
    if not np.isfinite(first(flat, data)).all():
        raise InputError(f"model {posterior.name}: the log density of a start is not finite; mend its initial(key)")
    if permute:
        _permute.check(posterior, jax.tree.map(lambda leaf: leaf[0], starts))
    static = "nuts", warmup, target_accept, max_tree_depth, dense_mass, permute
    # The sampler's second function knows what the first was given: the pair is kept, as their programs are.
    begin, transition = posterior.keep(static, lambda: hmc(potential_fn_gen=potential, algo="NUTS"))

    def initialise(key, start, data):
        adaptation = {"target_accept_prob": target_accept, "dense_mass": dense_mass, "max_tree_depth": max_tree_depth}
        return begin(start, warmup, **adaptation, model_args=(data,), rng_key=key)

    def swapped(state, data):
        key, key_labels = random.split(state.rng_key)
        parameters = posterior.constrain(unravel(state.z))[0]
        new, accepted = _permute.swap(key_labels, parameters, posterior)
        z = jnp.where(accepted > 0, ravel_pytree(posterior.unconstrain(new))[0], state.z)
        energy, gradient = jax.value_and_grad(potential(data))(z)
        return state._replace(z=z, potential_energy=energy, z_grad=gradient, rng_key=key)

    def step(state, data):
        state = transition(state, (data,), {})
        state = swapped(state, data) if permute else state
        return state, _kept(state)

    def chunk(state, data):
        return jax.lax.scan(lambda s, _: step(s, data), state, length=CHUNK)

    keys = random.split(key_chain, chains)
    init, init_seconds = posterior.compile((*static, "init"), initialise, keys[0], flat[0], data)
    states = [init(keys[i], flat[i], data) for i in range(chains)]
    compiled, compile_seconds = posterior.compile((*static, CHUNK), chunk, states[0], data)
    total = warmup + draws_per_chain

    def chain(index, advance):
        state, kept = states[index], []
        for start in range(0, total, CHUNK):
            state, out = compiled(state, data)
            out = jax.device_get(out)
            kept.append(out)
            phase = "warm-up" if start < warmup else "sampling"
            advance(
                min(CHUNK, total - start),
                f"chain {index + 1} {phase}, {int(np.median(out[1]['n_steps']))} steps a draw",
            )
        return jax.tree.map(lambda *parts: np.concatenate(parts)[warmup:total], *kept)

    results, run_seconds = run_chains(chain, chains, total, progress)
    unconstrained, stats = stack(results)
    return draws.build(
        posterior,
        constrained(posterior, unconstrained, 2, unravel),
        method="nuts",
        options={
            "chains": chains,
            "warmup": warmup,
            "draws_per_chain": draws_per_chain,
            "target_accept": target_accept,
            "max_tree_depth": max_tree_depth,
            "dense_mass": dense_mass,
            "permute": permute,
        },
        compile_seconds=init_seconds + compile_seconds,
        run_seconds=run_seconds,
        sample_stats=stats,
    )


def _kept(state):
    """What is kept of one transition: the position, and its sampler statistics."""
    return state.z, {
        "diverging": state.diverging,
        "n_steps": state.num_steps,
        "tree_depth": jnp.ceil(jnp.log2(state.num_steps + 1)).astype(int),
        "energy": state.energy,
        "acceptance_rate": state.accept_prob,
        "step_size": state.adapt_state.step_size,
    }
