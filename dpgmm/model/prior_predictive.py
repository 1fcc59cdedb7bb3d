"""Parameters drawn from a posterior's prior, by its NumPyro program, and points from their mixture."""

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, random
from jaxtyping import Float

from ..densities.distributions import GaussianMixture
from ..errors import InputError
from .posterior import Parameters, Posterior


def prior_draw(posterior: Posterior, key: Array) -> tuple[Parameters, Float[Array, "N D"]]:
    """Parameters from the prior and points ``(N, D)`` from their mixture, to be traced by `jax`; checks nothing."""
    key_parameters, key_points = random.split(key)
    program = numpyro.handlers.substitute(posterior.prior_program, held(posterior))
    trace = numpyro.handlers.trace(numpyro.handlers.seed(program, key_parameters)).get_trace()
    parameters = {site: jnp.asarray(trace[site]["value"]) for site in posterior.transforms}
    ones = jnp.ones(posterior.data.size, jnp.result_type(float))
    return parameters, GaussianMixture(*posterior.mixture(parameters), ones).sample(key_points)


def held(posterior: Posterior) -> dict[str, Float[Array, " D"]]:
    """Where the base measure's mean, if it has a flat prior, is held."""
    prior = posterior.conjugate
    return {} if prior is None or prior.hyperprior is None else {"base_mean": jnp.asarray(prior.base.mean)}


def check_proper(posterior: Posterior, where: str) -> None:
    """Raise `InputError` where the prior is improper, but for a flat prior of the base measure's mean, which is `held`."""

    def check(key):
        program = numpyro.handlers.substitute(posterior.prior_program, posterior.initial(key))
        trace = numpyro.handlers.trace(numpyro.handlers.seed(program, key)).get_trace()
        for name, site in trace.items():
            improper = isinstance(site.get("fn"), numpyro.distributions.ImproperUniform)
            if improper and name not in held(posterior):
                raise InputError(
                    f"{where}: the prior of {name!r} in model {posterior.name} is improper, so that no truth can be"
                    " drawn from it; give it a proper prior"
                )

    jax.eval_shape(check, random.PRNGKey(0))  # Which sites there are is known without a number.
