"""One mixture with its components in another order, in a model's own sites."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer

from ..densities import sticks
from ..errors import InputError
from .posterior import Parameters, Posterior

COMPONENTS = ("log_masses", "means", "scale_trils")
"""Sites with one row for each component; `stick_logits` are computed anew from the weights."""


def reordered(parameters: Parameters, order: Integer[Array, " K"], posterior: Posterior) -> Parameters:
    """The same mixture with its components in another order: ``order[k]`` is the one that becomes k, ``(K,)``."""
    new = {site: _rows(leaf, order) if site in COMPONENTS else leaf for site, leaf in parameters.items()}
    if "stick_logits" in parameters:
        new["stick_logits"] = sticks.logits(posterior.mixture(parameters).log_weights[order])
    return new


def check(posterior: Posterior, unconstrained: Parameters) -> None:
    """Raise `InputError` unless `reordered` reorders this model's mixture: its sites may have names of their own."""

    def both(unconstrained):
        parameters, _ = posterior.constrain(unconstrained)
        order = jnp.arange(posterior.mixture(parameters).log_weights.shape[0])[::-1]
        found = posterior.mixture(reordered(parameters, order, posterior))
        return found, jax.tree.map(lambda leaf: _rows(leaf, order), posterior.mixture(parameters))

    found, wanted = posterior.compile("reordered", both, unconstrained)[0](unconstrained)
    for of_mixture, one, other in zip(found._fields, found, wanted, strict=True):
        # In units of what tells components apart: data may lie far from zero, and have any scale.
        apart, rounding = jnp.ptp(other, axis=0), 100 * jnp.finfo(other.dtype).eps * jnp.abs(other).max(axis=0)
        if not (jnp.abs(one - other) <= 1e-3 * apart + rounding).all():
            raise InputError(
                f"model {posterior.name}: its components cannot be reordered, {of_mixture} stay behind; moves = swaps needs"
                f" sites stick_logits or {', '.join(COMPONENTS)}"
            )


def _rows(leaf: Float[Array, "#K *shape"], order: Integer[Array, " K"]) -> Float[Array, "#K *shape"]:
    """Rows in another order; a single row, of a covariance that all components share, stays where it is."""
    return leaf[order] if leaf.shape[0] == order.shape[0] else leaf
