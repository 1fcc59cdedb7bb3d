"""How alike the components of two mixtures are, and which is which: Bhattacharyya coefficients and their assignment.

For components j and k of two mixtures, ``a_jk = sqrt(w_j w'_k) * integral sqrt(N_j N'_k)``. The assignment of one
mixture's components to the other's that maximises the sum of a_jk names them alike; one less that sum, in [0, 1], is a
distance of mixtures that knows no labels: zero for the same components under any names. No data are needed, and no
units matter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from scipy.optimize import linear_sum_assignment

from ..densities import gaussian
from .schema import expanded, spread

VISIBLE = 1e-3
"""Weight below which a component is not reported: what it does is of no consequence for the mixture."""


ALIKE = 0.5
"""Bhattacharyya coefficient below which an assigned pair is two components, one gone and one new, and not one renamed."""


ENTRIES = 1_000_000
"""Entries of covariances that pairs of components are compared at a time; large batches hang jaxlib 0.10.2 on CPUs."""


class Heaviest(NamedTuple):
    """The M heaviest components of every mixture, and their labels. Those that are not visible have weight zero.

    Shapes: ``labels (..., M)``, ``weights (..., M)``, ``means (..., M, D)``, ``covariances (..., M, D, D)``.
    """

    labels: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def at(self, index) -> "Heaviest":
        """The same of some of the mixtures: `index` goes to the leading axes."""
        return Heaviest(*(np.asarray(leaf)[index] for leaf in self))


def heaviest(dataset: xr.Dataset, min_weight: float = VISIBLE) -> Heaviest:
    """Components of a group in the schema, M the largest number of visible ones in any of its mixtures."""
    weights = dataset["weights"].values
    order = np.argsort(-weights, axis=-1, kind="stable")[..., : max(1, (weights >= min_weight).sum(-1).max())]
    take = lambda a: np.take_along_axis(
        a, order.reshape(order.shape + (1,) * (a.ndim - weights.ndim)), weights.ndim - 1
    )
    taken = take(weights)
    means, stored = take(dataset["means"].values), spread(dataset)
    stored = stored if stored.shape[weights.ndim - 1] == 1 else take(stored)
    return Heaviest(order, np.where(taken >= min_weight, taken, 0.0), means, expanded(stored, means))


@jax.jit
def affinities(weights: Array, means: Array, covariances: Array, others: tuple[Array, Array, Array]) -> Array:
    """``sqrt(w_j w'_k) exp(-d^T S^{-1} d / 8) |Sigma_j|^{1/4} |Sigma'_k|^{1/4} / |S|^{1/2}``, ``S`` the mean of the two.

    Shapes: those of `Heaviest` with one leading axis T, to ``(T, M, M')``. (Kailath 1967, for Gaussians.)
    """

    def pair(w, m, c, w_, m_, c_):
        middle = gaussian.cholesky(0.5 * (c + c_))
        z = gaussian.inverse(middle) @ (m - m_)
        log_det = lambda lower: jnp.sum(jnp.log(jnp.diagonal(lower)))
        half = 0.5 * (log_det(gaussian.cholesky(c)) + log_det(gaussian.cholesky(c_)))
        return jnp.sqrt(w * w_) * jnp.exp(half - log_det(middle) - z @ z / 8)

    against_one = jax.vmap(pair, in_axes=(None, None, None, 0, 0, 0))
    return jax.vmap(jax.vmap(against_one, in_axes=(0, 0, 0, None, None, None)))(weights, means, covariances, *others)


class Match(NamedTuple):
    """Of T pairs of mixtures: label in the second of every component of the first, -1 where none is `ALIKE`; affinity."""

    labels: np.ndarray
    """``(T, K)`` by the first mixture's labels."""
    affinity: np.ndarray
    """``(T,)``: sum of a_jk over the assigned pairs, the visible weights normalised: 1 for the same components."""


def match(one: Heaviest, other: Heaviest, num_components: int) -> Match:
    """Assign the visible components of mixtures ``one[t]`` to those of ``other[t]``."""
    entries = one.weights.shape[1] * other.weights.shape[1] * one.means.shape[-1] ** 2
    size = max(1, ENTRIES // entries)
    parts = [slice(start, start + size) for start in range(0, len(one.weights), size)]
    similar = np.concatenate([np.asarray(affinities(*one.at(part)[1:], other.at(part)[1:])) for part in parts])
    similar = np.nan_to_num(similar, nan=0.0)
    labels, total = np.full((len(similar), num_components), -1), np.zeros(len(similar))
    for t, table in enumerate(similar):
        rows, columns = linear_sum_assignment(table, maximize=True)
        total[t] = table[rows, columns].sum()
        both = table[rows, columns] > ALIKE * np.sqrt(one.weights[t, rows] * other.weights[t, columns])
        labels[t, one.labels[t, rows[both]]] = other.labels[t, columns[both]]
    mass = np.sqrt(one.weights.sum(axis=1) * other.weights.sum(axis=1))
    return Match(labels, np.divide(total, mass, out=np.zeros_like(total), where=mass > 0))
