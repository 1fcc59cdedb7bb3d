"""NumPyro's No-U-Turn transition on one flat vector of a model's coordinates, with or without swaps of labels."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Integer, Shaped
from numpyro.infer.hmc import HMCState, hmc

from ..model.posterior import Arrays, Parameters, Posterior
from . import _permute


class Settings(NamedTuple):
    """Transitions that adapt, acceptance rate aimed at, doublings of a tree, form of the metric, whether labels swap.

    `step_size`: a fixed one, in a unit metric, in place of adaptation: for tests of the transition itself.
    """

    adapt: int
    target_accept: float
    max_tree_depth: int
    dense_mass: bool
    swaps: bool
    step_size: float | None = None


class Kernel(NamedTuple):
    """NumPyro's pair of functions, ``-log density (u; data)``, and the coordinates of a flat vector u."""

    begin: Callable
    transition: Callable
    potential: Callable[[Arrays], Callable[[Float[Array, " coordinates"]], Float[Array, ""]]]
    unravel: Callable[[Float[Array, " coordinates"]], Parameters]


def kernel(posterior: Posterior, unravel: Callable[[Float[Array, " coordinates"]], Parameters]) -> Kernel:
    """The kernel of a posterior. NumPyro's second function knows what the first was given: one pair, one program."""
    potential = lambda data: lambda u: -posterior.on(data).log_density(unravel(u))
    return Kernel(*hmc(potential_fn_gen=potential, algo="NUTS"), potential, unravel)


def init(key: Array, start: Float[Array, " coordinates"], data: Arrays, kernel: Kernel, settings: Settings) -> HMCState:
    """The state at a flat vector of coordinates."""
    options = {
        "target_accept_prob": settings.target_accept,
        "dense_mass": settings.dense_mass,
        "max_tree_depth": settings.max_tree_depth,
    }
    if settings.step_size is not None:
        fixed = {"adapt_step_size": False, "adapt_mass_matrix": False}
        options |= {"step_size": settings.step_size, **fixed}
    return kernel.begin(start, settings.adapt, **options, model_args=(data,), rng_key=key)


def step(
    state: HMCState, data: Arrays, posterior: Posterior, kernel: Kernel, settings: Settings
) -> tuple[HMCState, dict[str, Shaped[Array, ""]]]:
    """One transition, K proposals to swap labels if these are among the settings, and the statistics of both."""
    state = kernel.transition(state, (data,), {})
    stats = {
        "diverging": state.diverging,
        "n_steps": state.num_steps,
        "energy": state.energy,
        "acceptance_rate": state.accept_prob,
        "step_size": state.adapt_state.step_size,
    }
    if settings.swaps:
        state, stats["label_moves"] = swapped(state, data, posterior, kernel)
    return state, stats


def swapped(state: HMCState, data: Arrays, posterior: Posterior, kernel: Kernel) -> tuple[HMCState, Integer[Array, ""]]:
    """The state after K proposals to swap two labels (`_permute.swap`), and how many were accepted."""
    key, key_labels = random.split(state.rng_key)
    parameters = posterior.constrain(kernel.unravel(state.z))[0]
    new, accepted = _permute.swap(key_labels, parameters, posterior)
    z = jnp.where(accepted > 0, ravel_pytree(posterior.unconstrain(new))[0], state.z)
    energy, gradient = jax.value_and_grad(kernel.potential(data))(z)
    return state._replace(z=z, potential_energy=energy, z_grad=gradient, rng_key=key), accepted
