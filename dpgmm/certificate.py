"""The certificate of a compression: the exact log likelihood beside the compressed one, at draws the method produced."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from . import mixture
from .data import Dataset

SPREAD, NARROWEST = 48, 16
"""Draws looked at: evenly spaced over chains and draws, and those with the narrowest components that carry data."""


def largest_error(draws: xr.DataTree, full: Dataset, compressed: Dataset) -> float:
    """Largest ``|log p(full) - log p(compressed)|``, nats, over a spread of the draws and those likeliest to be worst."""
    chosen = jax.tree.map(lambda a: a[_worst_and_spread(draws, full)], _components(draws))
    data = [(jnp.asarray(d.points), jnp.asarray(d.weights)) for d in (full, compressed)]

    def error(components: tuple[Array, Array, Array]) -> Array:
        weights, means, covariances = components
        mixed = jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny)), means, jnp.linalg.cholesky(covariances)
        exact, approximate = (mixture.log_likelihood(*mixed, *d) for d in data)
        return jnp.abs(exact - approximate)

    return float(jnp.max(jax.jit(lambda c: jax.lax.map(error, c))(chosen)))


def _components(draws: xr.DataTree) -> tuple[Array, Array, Array]:
    """Components of all draws, in one row."""
    flat = draws["posterior"].to_dataset().stack(row=("chain", "draw")).transpose("row", ...)
    weights, means, covariances = (jnp.asarray(flat[name].values) for name in ("weights", "means", "covariances"))
    return weights, means, covariances


def _worst_and_spread(draws: xr.DataTree, full: Dataset) -> np.ndarray:
    weights, _, covariances = (np.asarray(a) for a in _components(draws))
    smallest = np.linalg.eigvalsh(covariances)[..., 0]
    narrowest = np.where(weights * full.total_weight >= 1, smallest, np.inf).min(axis=1)
    evenly = np.linspace(0, len(weights) - 1, min(SPREAD, len(weights))).astype(int)
    return np.unique(np.concatenate([evenly, np.argsort(narrowest)[:NARROWEST]]))
