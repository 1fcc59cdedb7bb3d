"""Fits that cost nothing: independent draws of the prior, as if a method had found them in ten seconds."""

import jax
import numpy as np
import xarray as xr
from jax import random

from dpgmm import draws, methods


def from_the_prior(
    posterior, method, seed=0, progress=None, warmup=20, draws_per_chain=80, chains=4, thin=1, restarts=None, **options
):
    """A tree in the schema, with what the studies read of the method's own: allocations, steps, a trace of the loss."""
    point = methods.find(method).kind == "point"
    shape = (restarts or chains, 1) if point else (chains, draws_per_chain)
    keys = random.split(random.PRNGKey(seed + len(method)), shape)
    parameters = posterior.compile("made up", jax.vmap(jax.vmap(posterior.initial)), keys)[0](keys)
    told = {} if point else {"warmup": warmup, "draws_per_chain": draws_per_chain, "thin": thin}
    stats = {"n_steps": np.full(shape, 7), "diverging": np.arange(np.prod(shape)).reshape(shape) == 0}
    tree = draws.build(
        posterior,
        parameters,
        chosen=told,
        compile_seconds=1.0,
        run_seconds=10.0,
        sample_stats=stats if method == "nuts" else {},
        moves_labels=True,
    )
    tree.attrs |= {"method": method, "point_estimate": int(point)}
    if point:
        tree["optimisation"] = xr.DataTree(xr.Dataset({"loss": (("chain", "step"), np.zeros((shape[0], 2)))}))
    if options.get("keep_allocations"):
        labels = np.random.default_rng(seed).integers(0, 3, (*shape, posterior.data.size)).astype(np.uint8)
        labels = xr.Dataset({"allocations": (("chain", "draw", "obs"), labels)})
        tree["sample_stats"] = xr.DataTree(tree["sample_stats"].to_dataset().merge(labels))
    return tree
