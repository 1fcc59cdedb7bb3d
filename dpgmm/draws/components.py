"""Components of many mixtures on the host, one container for all that is asked of them."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Integer, Shaped

from .schema import expanded, spread


class Components(NamedTuple):
    """Gaussian mixtures: ``weights (..., K)``, ``means (..., K, D)``, and covariances as `spread` gives them.

    Those are ``(..., K, D, D)`` or ``(..., 1, D, D)``, ``(..., K, D)`` variances, or ``(..., K)``, one variance for all
    dimensions.
    """

    weights: Float[np.ndarray, "*batch K"]
    means: Float[np.ndarray, "*batch K D"]
    covariances: Float[np.ndarray, "..."]

    @property
    def are_matrices(self) -> bool:
        """Whether covariances are stored as matrices, and not as variances."""
        return self.covariances.ndim > self.means.ndim

    def variances(self) -> Float[np.ndarray, "*batch K D"]:
        """Variances of every component in every dimension, ``(..., K, D)``, from whichever form is stored."""
        stored = np.diagonal(self.covariances, axis1=-2, axis2=-1) if self.are_matrices else self.covariances
        return np.broadcast_to(stored if stored.ndim == self.means.ndim else stored[..., None], self.means.shape)

    @staticmethod
    def of(dataset: xr.Dataset) -> "Components":
        """Those of a group in the schema: views, nothing is expanded."""
        return Components(dataset["weights"].values, dataset["means"].values, spread(dataset))

    def at(self, index) -> "Components":
        """Some of the mixtures: `index` goes to the leading axes."""
        return Components(*(np.asarray(leaf)[index] for leaf in self))

    def flatten(self) -> "Components":
        """All leading axes in one, ``(T, K)`` and so on."""
        axes = self.weights.ndim - 1
        return Components(*(leaf.reshape(-1, *leaf.shape[axes:]) for leaf in self))

    def take(self, order: Integer[np.ndarray, "*batch M"]) -> "Components":
        """``order (..., M)``: the components that become 0, ..., M - 1; a covariance that all share stays."""
        return Components(*(along(leaf, order) for leaf in self))

    def order(self) -> Integer[np.ndarray, "*batch K"]:
        """An order that is the same for any labels, ``(..., K)``: by weight, then mean."""
        return np.lexsort((self.means[..., 0], self.weights), axis=-1)

    def sorted(self) -> "Components":
        """In that `order`: sums over the components are then the same for any labels."""
        return self.take(self.order())

    def full(self) -> "Components":
        """The same with covariances ``(..., K, D, D)``; expanded, so ask for few."""
        return self._replace(covariances=expanded(self.covariances, self.means))


def along(array: Shaped[np.ndarray, "..."], order: Integer[np.ndarray, "*batch M"]) -> Shaped[np.ndarray, "..."]:
    """Entries ``(..., K, ...)`` in the order ``(..., M)`` of their components; a single one, which all share, stays."""
    axis = order.ndim - 1
    if array.shape[axis] == 1:
        return array
    return np.take_along_axis(array, order.reshape(order.shape + (1,) * (array.ndim - order.ndim)), axis)
