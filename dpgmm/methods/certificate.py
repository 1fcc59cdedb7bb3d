"""The certificate of a compression: the exact log likelihood beside the compressed one, at draws the method produced."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from jaxtyping import Float, Int

from ..data import Dataset
from ..densities import mixture
from ..draws.components import Components
from ..draws.thinning import evenly

SPREAD, NARROWEST = 48, 16
"""Draws looked at: evenly spaced over chains and draws, and those with the narrowest components that carry data."""


def largest_error(draws: xr.DataTree, full: Dataset, compressed: Dataset) -> float:
    """Largest ``|log p(full) - log p(compressed)|``, nats, over a spread of the draws and those likeliest to be worst."""
    components = Components.of(draws["posterior"].to_dataset()).flatten()
    chosen = components.at(_worst_and_spread(components, full))
    exact, approximate = (
        _log_likelihoods(chosen, jnp.asarray(data.points), jnp.asarray(data.weights)) for data in (full, compressed)
    )
    return float(jnp.max(jnp.abs(exact - approximate)))


@jax.jit
def _log_likelihoods(
    components: Components, points: Float[Array, "N D"], weights: Float[Array, " N"]
) -> Float[Array, " T"]:
    """Of every draw, ``(T,)``."""
    return jax.lax.map(lambda c: mixture.log_likelihood(*mixture.factored(*c), points, weights), components)


def _worst_and_spread(components: Components, full: Dataset) -> Int[np.ndarray, " chosen"]:
    weights, _, covariances = components
    # One dimension: the variance, stored as a number or as a matrix of one entry.
    smallest = covariances.reshape(*covariances.shape[:2], -1)[..., 0]
    narrowest = np.where(weights * full.total_weight >= 1, smallest, np.inf).min(axis=1)
    return np.unique(np.concatenate([evenly(len(weights), SPREAD), np.argsort(narrowest)[:NARROWEST]]))
