"""Gradient MAP: Adam on many restarts at once, in one compiled scan, in plain JAX.

The mode is that of the log joint density of the CONSTRAINED parameters (no Jacobian), walked to on unconstrained
coordinates. A mode depends on the parametrisation: it is one of the density of stick logits, log concentration's
exponential, means and Cholesky factors, as the model states them. It is a point estimate and no posterior.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array, random
from jaxtyping import Float

from .. import draws
from ..errors import InputError, above, at_least
from ..model.posterior import Arrays, Parameters, Posterior
from . import _batches
from ._method import Method
from ._run import Progress, constrained, dispersed, expired, run_chains


class MAPState(NamedTuple):
    """Unconstrained coordinates, and what the optimiser remembers."""

    position: Parameters
    memory: Any


def run(
    posterior: Posterior,
    key: Array,
    *,
    restarts: int = 16,
    steps: int = 3_000,
    learning_rate: float = 0.05,
    snapshots: int = 100,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Maximise the log joint from dispersed starts; chain = restart, one draw each.

    Options:
        `restarts`: dispersed starts, of which the best is the answer.
        `steps`: of Adam, rounded up to whole strides between snapshots.
        `learning_rate`: of Adam to begin with; it falls to zero along a cosine.
        `snapshots`: of the components along each path, about so many.
        `batch_size`: random points that a step takes its gradient from; by default all, 10,000 of more than 50,000.

    `optimisation` holds the loss (-log joint, nats) at every step, of batches an unbiased estimate, and the snapshots.
    Deterministic given `key`. Raises `InputError` for options out of range.
    """
    at_least("map", 1, restarts=restarts, steps=steps, snapshots=snapshots)
    above(0, learning_rate=learning_rate)
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    stride = max(1, steps // snapshots)
    num_strides = -(-steps // stride)
    size, key_batches = _batches.size_of("map", posterior, batch_size), random.fold_in(key, 1)

    def advance_all(states, keys, data):
        """One stride of every restart: the snapshot is taken before it."""
        some = lambda s, key: step(s, _batches.drawn(key, data, size), posterior, optimiser)
        return *jax.lax.map(lambda pair: jax.lax.scan(some, *pair), (states, keys)), states.position

    starts, data = dispersed(posterior, key, restarts), posterior.arrays()
    states = jax.vmap(lambda position: init(position, optimiser))(starts)
    keys = random.split(key_batches, (num_strides, restarts, stride))
    name = "map", steps, learning_rate, stride, size
    compiled, compile_seconds = posterior.compile(name, advance_all, states, keys[0], data)

    def all_restarts(_, advance):
        state, losses, path = states, [], []
        for of_stride in keys:
            if losses and expired():
                break
            state, values, before = compiled(state, of_stride, data)
            losses.append(np.asarray(values))
            path.append(before)
            advance(stride, f"best log joint {-np.min(losses[-1][:, -1]):.1f}")
        return state.position, np.concatenate(losses, axis=1), [*path, state.position]

    [(final, losses, path)], run_seconds = run_chains(all_restarts, 1, steps, progress)
    if not np.isfinite(losses[:, -1]).any():
        raise InputError(
            f"map: no restart of model {posterior.name} ends at a finite density; correct its prior or data"
        )
    modes = jax.tree.map(lambda leaf: leaf[:, None], constrained(posterior, final, 1))
    history = constrained(posterior, jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *path), 2)
    return draws.build(
        posterior,
        modes,
        chosen={"steps": losses.shape[1], "mode_of": "density of the constrained parameters"},
        compile_seconds=compile_seconds,
        run_seconds=run_seconds,
        optimisation=draws.paths(posterior, losses, history, np.arange(len(path)) * stride),
    )


def init(position: Parameters, optimiser: optax.GradientTransformation) -> MAPState:
    """The state at unconstrained coordinates."""
    return MAPState(position, optimiser.init(position))


def step(
    state: MAPState, data: Arrays, posterior: Posterior, optimiser: optax.GradientTransformation
) -> tuple[MAPState, Float[Array, ""]]:
    """One step down the gradient of minus the log joint in the unconstrained coordinates, and its value before, nats.

    The density is that of the constrained parameters: without a Jacobian, so that the mode is that of the model as stated.
    """
    loss = lambda u: -posterior.on(data).log_joint(posterior.constrain(u)[0])
    value, gradient = jax.value_and_grad(loss)(state.position)
    update, memory = optimiser.update(gradient, state.memory)
    position: Any = optax.apply_updates(state.position, update)
    return MAPState(position, memory), value


METHOD = Method("map", run, kind="point", quick={"restarts": 4, "steps": 600}, colour="#0072B2", usual=True)
