"""The statements of one prior, held against each other: plain JAX, NumPyro, and the conjugate prior where there is one."""

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.infer.util import log_density

from ..densities import base_measure, sticks
from ..densities.concentration import Concentration
from ..densities.distributions import LogGammas
from ..errors import InputError
from .posterior import Parameters, Posterior

RELATIVE = 1e-4
"""Share of a log density by which two statements of it may differ, and nats: roundings of float32 stay below."""


def check(posterior: Posterior, where: str) -> None:
    """Raise `InputError` where the statements of a prior differ beside a start of the model, or are no finite numbers.

    Gradient methods walk on `log_prior`, NumPyro on `prior_program`, Gibbs and CAVI rest on `conjugate`: were these
    different priors, methods would be compared on different models.
    """
    # Beside the start, which may be where two priors happen to agree, such as the mean of one of them.
    start = posterior.unconstrain(posterior.initial(random.PRNGKey(0)))
    noise = lambda leaf: leaf + 0.3 * random.normal(random.PRNGKey(1), jnp.shape(leaf), jnp.result_type(leaf))
    parameters = posterior.constrain(jax.tree.map(noise, start))[0]
    values = jax.device_get(jax.jit(lambda p: _values(posterior, p))(parameters))
    plain = values["log_prior"]
    for name, value in values.items():
        if value.shape != ():
            raise InputError(
                f"{where}: {name} of model {posterior.name} has shape {value.shape}; it must be one number"
            )
        if not jnp.isfinite(value):
            raise InputError(
                f"{where}: {name} of model {posterior.name} is {value} beside initial(key); correct either"
            )
        if abs(value - plain) > RELATIVE * (1 + abs(plain)):
            raise InputError(
                f"{where}: the prior of model {posterior.name} is stated in two ways that differ: log_prior gives"
                f" {plain:.6g} beside initial(key), {name} {value:.6g}; correct one of them"
            )


def _values(posterior: Posterior, p: Parameters) -> dict[str, Array]:
    """The log density of the prior at p by every statement of it."""
    found = {"log_prior": jnp.asarray(posterior.log_prior(p))}
    found["prior_program"] = jnp.asarray(log_density(posterior.prior_program, (), {}, p)[0])
    conjugate = _of_conjugate(posterior, p)
    return found if conjugate is None else found | {"conjugate": conjugate}


def _of_conjugate(posterior: Posterior, p: Parameters) -> Array | None:
    """Log density of the conjugate prior, where it is one of the usual sites and learns no base measure."""
    prior, weights = posterior.conjugate, {"stick_logits", "log_masses"} & set(p)
    others = set(p) - weights - {"concentration", "means", "scale_trils"}
    if prior is None or prior.hyperprior is not None or not weights or others:
        return None
    value = base_measure.log_prior(p, prior.base, prior.covariance)
    known = prior.concentration
    a = p["concentration"] if isinstance(known, Concentration) else jnp.asarray(known)
    value += known.log_density(a) if isinstance(known, Concentration) else 0.0
    if "stick_logits" in p:
        return value + sticks.log_density_logits(p["stick_logits"], a)
    size = p["log_masses"].shape[-1]
    return value + LogGammas(a / size, size).log_prob(p["log_masses"])
