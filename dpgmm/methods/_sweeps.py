"""The loop of samplers that allocate points: sweeps, one in `thin` a draw, in chunks that show progress and stop."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random

from ._run import Progress, run_chains

Chunk = Callable[[Any, Array], tuple[Any, Any]]
"""``chunk(state, keys) -> (state, what is looked at in every draw)``, one draw a key."""


class Schedule(NamedTuple):
    """Draws of a chain: `warm` thrown away, `total` with them, `length` a chunk; `keys` (chain, chunk, length)."""

    warm: int
    total: int
    length: int
    keys: Array


def schedule(key: Array, chains: int, warmup: int, draws: int, thin: int, length: int) -> Schedule:
    """`draws` draws a chain, of `thin` sweeps each, after `warmup` sweeps, rounded up to whole draws."""
    warm = -(-warmup // thin)
    total = warm + draws
    return Schedule(warm, total, length, random.split(key, (chains, -(-total // length), length)))


def chunk(step: Callable, look: Callable, thin: int) -> Callable:
    """``(state, keys, points) -> (state, (looks, accepted))``: a draw a key, of `thin` steps, the moves accepted in them.

    ``step(key, state, points) -> state``, whose `accepted` counts its moves; ``look(state, points)`` is what a draw keeps.
    """

    def draw(state, key, points):
        def body(i, carry):
            state, accepted = carry
            state = step(random.fold_in(key, i), state, points)
            return state, accepted + state.accepted

        state, accepted = jax.lax.fori_loop(0, thin, body, (state, jnp.zeros((), int)))
        return state, (look(state, points), accepted)

    return lambda state, keys, points: jax.lax.scan(lambda s, key: draw(s, key, points), state, keys)


def run(
    plan: Schedule,
    starts: Sequence[Callable[[], Any]],
    begin: Callable[[], Chunk],
    note: Callable[[Any], str],
    progress: Progress | None,
) -> tuple[list[list[Any]], float]:
    """Chunks of every chain, on the host, warm-up and all, and the seconds. `begin` makes the chunk function of a chain.

    `starts`: what makes the state that a chain starts from, on the chain's own thread, as it may take a while. `note`: what
    the progress bar says of a chunk.
    """

    def chain(index, advance):
        advance(0, f"chain {index + 1} start")
        state, out, one = jax.block_until_ready(starts[index]()), [], begin()
        for done, keys in zip(range(0, plan.total, plan.length), plan.keys[index], strict=True):
            state, some = one(state, keys)
            out.append(jax.device_get(some))
            phase = "warm-up" if done < plan.warm else "sampling"
            advance(min(plan.length, plan.total - done), f"chain {index + 1} {phase}, {note(out[-1])}")
        return out

    return run_chains(chain, len(starts), plan.total, progress)
