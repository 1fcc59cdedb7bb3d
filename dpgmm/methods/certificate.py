"""The certificate of a compression: the exact log likelihood beside the compressed one, at draws the method produced."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from ..data import Dataset
from ..densities import mixture
from ..draws import spread
from ..draws.thinning import evenly

SPREAD, NARROWEST = 48, 16
"""Draws looked at: evenly spaced over chains and draws, and those with the narrowest components that carry data."""


def largest_error(draws: xr.DataTree, full: Dataset, compressed: Dataset) -> float:
    """Largest ``|log p(full) - log p(compressed)|``, nats, over a spread of the draws and those likeliest to be worst."""
    chosen = jax.tree.map(lambda a: a[_worst_and_spread(draws, full)], _components(draws))
    data = [(jnp.asarray(d.points), jnp.asarray(d.weights)) for d in (full, compressed)]

    def error(components: tuple[Array, Array, Array]) -> Array:
        exact, approximate = (mixture.log_likelihood(*mixture.factored(*components), *d) for d in data)
        return jnp.abs(exact - approximate)

    return float(jnp.max(jax.jit(lambda c: jax.lax.map(error, c))(chosen)))


def _components(draws: xr.DataTree) -> tuple[Array, Array, Array]:
    """Components of all draws, in one row."""
    posterior = draws["posterior"].to_dataset()
    arrays = posterior["weights"].values, posterior["means"].values, spread(posterior)
    weights, means, covariances = (jnp.asarray(a.reshape(-1, *a.shape[2:])) for a in arrays)
    return weights, means, covariances


def _worst_and_spread(draws: xr.DataTree, full: Dataset) -> np.ndarray:
    weights, _, covariances = (np.asarray(a) for a in _components(draws))
    # One dimension: the variance, stored as a number or as a matrix of one entry.
    smallest = covariances.reshape(*covariances.shape[:2], -1)[..., 0]
    narrowest = np.where(weights * full.total_weight >= 1, smallest, np.inf).min(axis=1)
    return np.unique(np.concatenate([evenly(len(weights), SPREAD), np.argsort(narrowest)[:NARROWEST]]))
