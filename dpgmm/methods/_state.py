"""The state that moves change: components in an order of their own, and what their prior hangs on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer

from ..densities import base_measure, sticks
from ..model.posterior import Conjugate, Parameters, Posterior
from . import _weights
from ._active import Components


class MixtureState(NamedTuple):
    """Components in their order; the log total mass of Dirichlet weights; concentration; mean and kappa of the base."""

    components: Components
    log_total: Float[Array, ""]
    concentration: Float[Array, ""]
    base_mean: Float[Array, " D"]
    kappa: Float[Array, ""]


def state_of(parameters: Parameters, posterior: Posterior) -> MixtureState:
    """The state of a model's sites."""
    prior = conjugate_of(posterior)
    log_weights, means, scale_trils = posterior.mixture(parameters)
    masses = parameters.get("log_masses")
    dtype = means.dtype
    return MixtureState(
        Components(log_weights, means, base_measure.in_blocks(scale_trils, prior.covariance)),
        jnp.zeros((), dtype) if masses is None else jax.nn.logsumexp(masses),
        parameters["concentration"],
        parameters.get("base_mean", jnp.asarray(prior.base.mean, dtype)),
        parameters.get("kappa", jnp.asarray(prior.base.kappa, dtype)),
    )


def parameters_of(state: MixtureState, posterior: Posterior) -> Parameters:
    """The model's sites of a state, inverse of `state_of`."""
    prior = conjugate_of(posterior)
    log_weights, means, blocks = state.components
    sites = {"concentration": state.concentration, "means": means}
    sites["scale_trils"] = base_measure.in_smallest_form(blocks, prior.covariance)
    if prior.weights == _weights.STICKS:
        sites["stick_logits"] = sticks.logits(log_weights)
    else:
        sites["log_masses"] = log_weights + state.log_total
    return sites if prior.hyperprior is None else sites | {"base_mean": state.base_mean, "kappa": state.kappa}


def conjugate_of(posterior: Posterior) -> Conjugate:
    """The posterior's conjugate prior, which there must be."""
    assert posterior.conjugate is not None
    return posterior.conjugate


def in_order(state: MixtureState, order: Integer[Array, " K"]) -> MixtureState:
    """Component ``order[k]`` becomes k; a covariance that all share stays."""
    log_weights, means, blocks = state.components
    moved = Components(log_weights[order], means[order], blocks if len(blocks) == 1 else blocks[order])
    return state._replace(components=moved)
