"""How alike the components of two mixtures are, and which is which: Bhattacharyya coefficients and their assignment.

For components j and k of two mixtures, ``a_jk = sqrt(w_j w'_k) * integral sqrt(N_j N'_k)``. The assignment of one
mixture's components to the other's that maximises the sum of a_jk names them alike; one less that sum, in [0, 1], is a
distance of mixtures that knows no labels: zero for the same components under any names. No data are needed, and no
units matter. Diagonal covariances take O(D) a pair; full ones O(D^3), so that beyond `LARGEST` dimensions components are
compared by their variances alone: zero still for the same components, and for those that differ in correlations only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from jaxtyping import Float, Integer
from scipy.optimize import linear_sum_assignment

from ..densities import gaussian
from .components import Components

VISIBLE = 1e-3
"""Weight below which a component is not reported: what it does is of no consequence for the mixture."""


ALIKE = 0.5
"""Bhattacharyya coefficient below which an assigned pair is two components, one gone and one new, and not one renamed."""


LARGEST = 50
"""Dimensions up to which full covariances are compared with their correlations."""


ENTRIES = 1_000_000
"""Entries of covariances that pairs of components are compared at a time; large batches hang jaxlib 0.10.2 on CPUs."""


class Heaviest(NamedTuple):
    """The M heaviest components of every mixture, and their labels ``(..., M)``. Weights that are not visible are zero.

    Covariances are matrices, ``(..., M, D, D)``, or variances, ``(..., M, D)``, where they are diagonal or D > `LARGEST`.
    """

    labels: Integer[np.ndarray, "*batch M"]
    components: Components

    @property
    def weights(self) -> Float[np.ndarray, "*batch M"]:
        """Their weights, ``(..., M)``."""
        return self.components.weights

    def at(self, index) -> "Heaviest":
        """The same of some of the mixtures: `index` goes to the leading axes."""
        return Heaviest(self.labels[index], self.components.at(index))

    def flatten(self) -> "Heaviest":
        """All leading axes in one."""
        return Heaviest(self.labels.reshape(-1, self.labels.shape[-1]), self.components.flatten())

    def repeat(self, count: int) -> "Heaviest":
        """One mixture, `count` times along a leading axis."""
        return self.at(None).at(np.zeros(count, int))


def heaviest(dataset: xr.Dataset, min_weight: float = VISIBLE) -> Heaviest:
    """Components of a group in the schema, M the largest number of visible ones in any of its mixtures."""
    found = _compared(Components.of(dataset))
    weights = found.weights
    order = np.argsort(-weights, axis=-1, kind="stable")[..., : max(1, (weights >= min_weight).sum(-1).max())]
    taken = found.take(order)
    visible = np.where(taken.weights >= min_weight, taken.weights, 0.0)
    taken = taken._replace(weights=visible)
    return Heaviest(order, taken.full() if taken.are_matrices else taken)


def by_variances(dataset: xr.Dataset) -> str | None:
    """What to say where full covariances are compared by their variances alone, in one line; None where they are not."""
    dim, found = dataset.sizes["dim"], Components.of(dataset)
    if dim <= LARGEST or not found.are_matrices:
        return None
    return f"Labels: components are told apart by means and variances; {dim} dimensions are too many for correlations."


def _compared(found: Components) -> Components:
    """What is compared: matrices as they are stored, or variances ``(..., K, D)`` where those are all that counts."""
    if found.are_matrices and found.means.shape[-1] <= LARGEST:
        return found
    return found._replace(covariances=found.variances())


@jax.jit
def affinities(one: Components, other: Components) -> Float[Array, "T M M_"]:
    """``sqrt(w_j w'_k) exp(-d^T S^{-1} d / 8) |Sigma_j|^{1/4} |Sigma'_k|^{1/4} / |S|^{1/2}``, ``S`` the mean of the two.

    Shapes: those of `Heaviest` with one leading axis T, to ``(T, M, M')``. (Kailath 1967, for Gaussians.)
    """

    def pair(w, m, c, w_, m_, c_):
        middle = gaussian.factor(0.5 * (c + c_), m)
        z = (m - m_) / middle if gaussian.is_diagonal(middle, m) else gaussian.inverse(middle) @ (m - m_)
        log_det = lambda lower: gaussian.log_determinant(lower, m)
        half = 0.5 * (log_det(gaussian.factor(c, m)) + log_det(gaussian.factor(c_, m)))
        return jnp.sqrt(w * w_) * jnp.exp(half - log_det(middle) - z @ z / 8)

    against_one = jax.vmap(pair, in_axes=(None, None, None, 0, 0, 0))
    return jax.vmap(jax.vmap(against_one, in_axes=(0, 0, 0, None, None, None)))(*one, *other)


class Match(NamedTuple):
    """Of T pairs of mixtures: label in the second of every component of the first, -1 where none is `ALIKE`; affinity."""

    labels: Integer[np.ndarray, "T K"]
    """``(T, K)`` by the first mixture's labels."""
    affinity: Float[np.ndarray, " T"]
    """``(T,)``: sum of a_jk over the assigned pairs, the visible weights normalised: 1 for the same components."""


def match(one: Heaviest, other: Heaviest, num_components: int) -> Match:
    """Assign the visible components of mixtures ``one[t]`` to those of ``other[t]``."""
    entries = one.weights.shape[1] * other.weights.shape[1] * int(np.prod(one.components.covariances.shape[2:]))
    size = max(1, ENTRIES // entries)
    parts = [slice(start, start + size) for start in range(0, len(one.weights), size)]
    similar = np.concatenate(
        [np.asarray(affinities(one.components.at(part), other.components.at(part))) for part in parts]
    )
    similar = np.nan_to_num(similar, nan=0.0)
    labels, total = np.full((len(similar), num_components), -1), np.zeros(len(similar))
    for t, table in enumerate(similar):
        rows, columns = linear_sum_assignment(table, maximize=True)
        total[t] = table[rows, columns].sum()
        both = table[rows, columns] > ALIKE * np.sqrt(one.weights[t, rows] * other.weights[t, columns])
        labels[t, one.labels[t, rows[both]]] = other.labels[t, columns[both]]
    mass = np.sqrt(one.weights.sum(axis=1) * other.weights.sum(axis=1))
    return Match(labels, np.divide(total, mass, out=np.zeros_like(total), where=mass > 0))
