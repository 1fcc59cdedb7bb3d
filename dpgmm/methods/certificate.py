"""The certificate of a compression: the exact log likelihood beside the compressed one, at draws the method produced.

Of many points a finer compression takes the place of the exact log likelihood, and a bound on its own error is added. On a
bin of weight m both the points and their Gauss quadrature of q nodes give polynomials of degree 2q - 1 the same sum, so
that their sums of the log density differ by at most ``2 m sum_{j >= 2q} |c_j|``, c_j its Chebyshev coefficients on the bin
(Trefethen 2013, Approximation Theory and Approximation Practice, chapters 4 and 8).
"""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from jaxtyping import Float, Int

from ..data import Dataset
from ..data.compression import NODES, Binned
from ..densities import mixture
from ..draws.components import Components
from ..draws.thinning import evenly

SPREAD, NARROWEST = 48, 16
"""Draws looked at: evenly spaced over chains and draws, and those with the narrowest components that carry data."""
DEGREE = 2 * NODES + 6
"""Chebyshev coefficients of a bin, those that matter and as many beyond: smooth functions have none by then."""
ANGLES = np.pi * (np.arange(DEGREE) + 0.5) / DEGREE
TO_COEFFICIENTS = 2 / DEGREE * np.cos(np.outer(np.arange(DEGREE), ANGLES))
"""From values at ``cos ANGLES`` to coefficients; the first would be half of what this gives."""


def largest_error(draws: xr.DataTree, full: Dataset | Binned, compressed: Dataset) -> float:
    """Largest ``|log p(full) - log p(compressed)|``, nats, over a spread of the draws and those likeliest to be worst.

    `full`: all points; or a finer compression of them, whose `bound` is added.
    """
    exactly = full.data if isinstance(full, Binned) else full
    components = Components.of(draws["posterior"].to_dataset()).flatten()
    chosen = components.at(_worst_and_spread(components, exactly))
    exact, approximate = (
        _log_likelihoods(chosen, jnp.asarray(data.points), jnp.asarray(data.weights)) for data in (exactly, compressed)
    )
    beyond = bound(chosen, full) if isinstance(full, Binned) else 0.0
    return float(jnp.max(jnp.abs(exact - approximate) + beyond))


def bound(components: Components, binned: Binned) -> Float[Array, " T"]:
    """What the log likelihood of T draws is off by, at most, where bins stand for points, nats: ``(T,)``."""
    middles, masses = binned.replaced()
    if not len(middles):  # Every point is still there.
        return jnp.zeros(len(components.weights))
    points = middles[:, None] + binned.width / 2 * np.cos(ANGLES)
    return 2 * _tails(components, jnp.asarray(points), jnp.asarray(masses))


@jax.jit
def _tails(components: Components, points: Float[Array, "B J"], masses: Float[Array, " B"]) -> Float[Array, " T"]:
    """``sum_b m_b sum_{j >= 2q} |c_bj|`` of every draw."""

    def one(draw):
        values = mixture.log_density(*mixture.factored(*draw), points.reshape(-1, 1)).reshape(points.shape)
        return masses @ jnp.sum(jnp.abs(values @ TO_COEFFICIENTS[2 * NODES :].T), axis=1)

    return jax.lax.map(one, components)


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
