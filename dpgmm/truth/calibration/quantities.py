"""What is ranked: functions of one mixture, its concentration and the data that do not depend on how labels are called."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import entr

from ...densities import mixture


class Draw(NamedTuple):
    """One draw, or the truth, beside the data: what a `Quantity` may look at.

    Shapes: ``weights (K,)``, ``means (K, D)``, ``covariances (K, D, D)``, ``concentration ()``, ``log_joint ()``,
    ``labels (N,)`` the components of the points, ``points (N, D)``, ``at (G, D)`` places that do not depend on the points.
    """

    weights: Array
    means: Array
    covariances: Array
    concentration: Array
    log_joint: Array
    labels: Array
    points: Array
    at: Array

    def log_components(self, points: Array) -> Array:
        """``log w_k N(x_n | mu_k, Sigma_k)``, ``(N, K)``."""
        return mixture.log_joint_density(*mixture.factored(self.weights, self.means, self.covariances), points)

    def log_density(self, points: Array) -> Array:
        """``log sum_k w_k N(x_n | mu_k, Sigma_k)``, ``(N,)``."""
        return jax.nn.logsumexp(self.log_components(points), axis=-1)


class Quantity(NamedTuple):
    """A function ``of(draw) -> ()``. `placed`: it changes when truth and data are shifted together. `joint`: it is the
    model's own log joint density, an invariant only of models whose labels are exchangeable."""

    of: Callable[[Draw], Array]
    placed: bool = False
    joint: bool = False


def _spread(d: Draw) -> Array:
    """Variance of the mixture summed over dimensions, ``sum_k w_k (tr Sigma_k + |mu_k - m|^2)``."""
    centre = d.weights @ d.means
    return d.weights @ (jnp.trace(d.covariances, axis1=-2, axis2=-1) + jnp.sum((d.means - centre) ** 2, axis=-1))


def _together(d: Draw) -> Array:
    """Probability that the first two points come from the same component, ``sum_k r_1k r_2k``."""
    return jnp.prod(jax.nn.softmax(d.log_components(d.points[:2]), axis=-1), axis=0).sum()


def _sizes(d: Draw) -> Array:
    """Points of every component, ``(K,)``."""
    return jnp.zeros(d.weights.shape).at[d.labels].add(1.0)


QUANTITIES: dict[str, Quantity] = {
    "log likelihood": Quantity(lambda d: d.log_density(d.points).sum()),
    "log joint": Quantity(lambda d: d.log_joint, joint=True),
    "concentration": Quantity(lambda d: d.concentration),
    "largest weight": Quantity(lambda d: jnp.sort(d.weights)[-1]),
    "second largest weight": Quantity(lambda d: jnp.sort(d.weights)[-2]),
    "entropy of weights": Quantity(lambda d: entr(d.weights).sum()),
    "occupied components": Quantity(lambda d: (_sizes(d) > 0).sum().astype(d.weights.dtype)),
    "points in the largest": Quantity(lambda d: _sizes(d).max()),
    "first two points together": Quantity(_together),
    "log mixture variance": Quantity(lambda d: jnp.log(_spread(d))),
    "log variance within": Quantity(
        lambda d: jnp.log(d.weights @ jnp.trace(d.covariances, axis1=-2, axis2=-1)),
    ),
    "log variance of the heaviest": Quantity(
        lambda d: jnp.linalg.slogdet(d.covariances[jnp.argmax(d.weights)])[1],
    ),
    "log density of the points' mean": Quantity(lambda d: d.log_density(d.points.mean(0, keepdims=True))[0]),
    "mixture mean": Quantity(lambda d: (d.weights @ d.means)[0], placed=True),
    "log density below": Quantity(lambda d: d.log_density(d.at)[0], placed=True),
    "log density at the centre": Quantity(lambda d: d.log_density(d.at)[1], placed=True),
    "log density above": Quantity(lambda d: d.log_density(d.at)[2], placed=True),
}
"""The table of quantities. Those that look at the points are the sharpest (Modrák et al. 2023)."""


@jax.jit
def values(draws: Draw) -> dict[str, Array]:
    """All quantities of T draws, ``(T,)`` each; `points` and `at` are common, other leaves have a leading axis."""
    own = lambda d: {name: quantity.of(d) for name, quantity in QUANTITIES.items()}
    varying = draws._replace(points=None, at=None)  # pyright: ignore[reportArgumentType]  # filled in below
    # One draw after the other: batched products of many axes hang jaxlib 0.10.2 on CPUs (jax issue 39257).
    return jax.lax.map(lambda d: own(d._replace(points=draws.points, at=draws.at)), varying)
