"""A No-U-Turn transition of the stick-breaking model: right as it is, and wrong with each planted bug."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from joint import (
    Check,
    components,
    concentrations,
    kernel_tests,
    labels_of,
    points_of,
    stick_weights,
)

from dpgmm import Dataset, load_model
from dpgmm.densities import mixture, sticks
from dpgmm.methods import _plain
from dpgmm.model.posterior import Arrays, Posterior

POSTERIOR = load_model("stick_breaking")(Dataset(np.array([-1.0, 0.4, 2.0])), truncation=2, shape=2.0, rate=1.0)
STEP_SIZE, DEPTH = 0.2, 4
to_coordinates = jax.jit(jax.vmap(POSTERIOR.unconstrain))


def of_model(rng):
    """Coordinates of a model of two components, from parameters by numpy, with three points."""
    a = concentrations(rng)
    logits, weights = stick_weights(rng, a, 2)
    means, trils = components(rng, 2, POSTERIOR.conjugate.base)
    points = points_of(rng, labels_of(rng, weights, 3), means, trils)
    sites = {"concentration": a, "stick_logits": logits, "means": means, "scale_trils": trils}
    return {"u": jax.device_get(to_coordinates(sites)), "points": points}


START = jax.tree.map(jnp.asarray, POSTERIOR.unconstrain(POSTERIOR.initial(jax.random.PRNGKey(0))))
SETTINGS = _plain.Settings(0, 0.8, DEPTH, dense_mass=False, swaps=False, step_size=STEP_SIZE)


def nuts_step(key, s):
    """One transition of fixed step size: the method's own functions, but for adaptation."""
    data = Arrays(s["points"], jnp.ones(len(s["points"])))
    kernel = _plain.kernel(POSTERIOR, ravel_pytree(START)[1])
    state = _plain.init(key, ravel_pytree(s["u"])[0], data, kernel, SETTINGS)
    return {"u": kernel.unravel(_plain.step(state, data, POSTERIOR, kernel, SETTINGS)[0].z)}


def look_at_coordinates(s):
    u, x = s["u"], s["points"][..., 0]
    mean, spread = x.mean(axis=1), np.log(x.std(axis=1))
    return {
        "a": u["concentration"],
        "logit": u["stick_logits"][:, 0],
        "logit and a": u["stick_logits"][:, 0] - u["concentration"],
        "mean": u["means"][:, 0, 0],
        "mean from the points": u["means"][:, 0, 0] - mean,
        "log sd": u["scale_trils"][:, 0, 0],
        "log sd from the points": u["scale_trils"][:, 0, 0] - spread,
        "distance": np.abs(u["means"][:, 0, 0] - u["means"][:, 1, 0]),
    }


def no_jacobian(f, on):
    def wrong(self, u):
        parameters, log_jacobian = f(self, u)
        return parameters, jnp.where(on, 0.0, log_jacobian)

    return wrong


def likelihood_too_weak(f, on):
    return lambda *args: f(*args) * jnp.where(on, 0.1, 1.0)


def log_a_dropped(f, on):
    return lambda logits, a: f(logits, a) - on * logits.shape[-1] * jnp.log(a)


NUTS = Check(
    of_model,
    nuts_step,
    look_at_coordinates,
    [
        (Posterior, "constrain", no_jacobian),
        (mixture, "log_likelihood", likelihood_too_weak),
        (sticks, "log_density_logits", log_a_dropped),
    ],
    steps=3,
    slow=True,
)

test_a_kernel_leaves_the_joint_distribution_alone, test_a_planted_bug_changes_it = kernel_tests(
    {
        "No-U-Turn transition": NUTS,
    }
)
