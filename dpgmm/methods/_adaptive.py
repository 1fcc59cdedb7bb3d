"""A transition of NUTS with all moves, its step size adapted on the way."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Integer, Shaped
from numpyro.infer.hmc_util import dual_averaging

from ..model.posterior import Arrays, Parameters, Posterior
from . import _moves, _state, blocked_gibbs

FIRST_STEP = 0.4
"""Step size to begin with, in units of a transition's own metric."""


class NUTSState(NamedTuple):
    """That of `_moves`, the key, how many transitions still adapt, and of dual averaging."""

    state: _state.MixtureState
    key: Array
    left: Integer[Array, ""]
    averaging: Any


def init(key: Array, start: Parameters, posterior: Posterior, adapt: int) -> NUTSState:
    """The state at unconstrained coordinates; the first `adapt` transitions adapt the step size."""
    begin, _ = dual_averaging()
    state = _state.state_of(posterior.constrain(start)[0], posterior)
    first = math.log(FIRST_STEP)
    # Step size, average, and average gradient so far, of nothing; it is drawn towards larger steps.
    averaging = (jnp.asarray(first), jnp.asarray(first), *begin(math.log(10 * FIRST_STEP))[2:])
    return NUTSState(state, key, jnp.asarray(adapt), averaging)


def step(
    now: NUTSState, data: Arrays, posterior: Posterior, settings: _moves.Settings, target_accept: float, *, sweep: bool
) -> tuple[NUTSState, dict[str, Shaped[Array, ""]]]:
    """A transition (`_moves.step`) and its statistics. The step size follows dual averaging (Hoffman & Gelman 2014).

    With `sweep` it ends with a sweep of blocked Gibbs sampling, for few points of weight one.
    """
    _, update = dual_averaging()
    key, key_step = random.split(now.key)
    log_step = jnp.where(now.left > 0, *now.averaging[:2])
    state, info = _moves.step(key_step, now.state, data, jnp.exp(log_step), posterior, settings)
    if sweep:
        state = swept(random.fold_in(key_step, 1), state, data, posterior)
    averaging = update(target_accept - info.nuts.acceptance_rate, now.averaging)
    averaging = jax.tree.map(lambda new, old: jnp.where(now.left > 0, new, old), averaging, now.averaging)
    stats = info.nuts._asdict() | {"step_size": jnp.exp(log_step)}
    stats |= {name: getattr(info, name).astype(int) for name in ("label_moves", "tail_moves", "split_merges")}
    return NUTSState(state, key, now.left - 1, averaging), stats


def swept(key: Array, state: _state.MixtureState, data: Arrays, posterior: Posterior) -> _state.MixtureState:
    """The state after a sweep of blocked Gibbs sampling, whose allocations are forgotten."""
    labels, sites = jnp.zeros(len(data.points), int), _state.parameters_of(state, posterior)
    prior = _state.conjugate_of(posterior)
    given = blocked_gibbs.BlockedGibbsState(sites, labels)
    return _state.state_of(blocked_gibbs.step(key, given, data.points, prior, posterior).parameters, posterior)
