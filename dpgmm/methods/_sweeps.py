"""The loop of samplers, in chunks that show progress and stop; and the chunk of those that allocate points by sweeps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ..errors import InputError, TimeIsOver
from ._blocks import BLOCKS, Blocks
from ._run import Progress, expired, run_chains
from ._so_far import Scalars, SoFar

Chunk = Callable[[Any, Array], tuple[Any, Any]]
"""``chunk(state, keys) -> (state, what is looked at in every draw)``, one draw a key; keys are None where there are none."""


class Schedule(NamedTuple):
    """Draws of a chain: `warm` thrown away, `total` with them, `length` a chunk; `keys` (chain, chunk, length).

    No `keys` where the state of a chain holds its own.
    """

    warm: int
    total: int
    length: int
    keys: Array | None = None

    def kept(self, parts: Sequence[Any]) -> Any:
        """The draws of a chain that are kept, of chunks with the warm-up."""
        return jax.tree.map(lambda *some: np.concatenate(some)[self.warm : self.total], *parts)


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
    begin: Callable[[Any], Chunk],
    note: Callable[[Any], str],
    invariants: Callable[[Any], Scalars],
    progress: Progress | None,
) -> tuple[list[list[Any]], float]:
    """Chunks of every chain, on the host, warm-up and all, and the seconds.

    `begin` makes the chunk function of a chain, given the last chunk that there is, None at first. `starts`: what makes
    the state that a chain starts from, on the chain's own thread, as it may take a while. `note`: what the progress bar
    says of a chunk, after the smallest ESS so far of its `invariants` (`_so_far`). Blocks are kept, and gone on from,
    where the fit says so (`_blocks`).
    """

    blocks, length = BLOCKS.get(), plan.length
    keys = [[None] * -(-plan.total // length)] * len(starts) if plan.keys is None else plan.keys

    so_far = SoFar(invariants, len(starts), plan.warm)
    told = (lambda index, out: "") if progress is None else so_far.note

    def chain(index, advance):
        advance(0, f"chain {index + 1} start")
        state, out, one = _continued(blocks, index, starts[index], begin, keys[index])
        if out:
            advance(min(length * len(out), plan.total), f"chain {index + 1}")
        for number in range(len(out), len(keys[index])):
            if out and expired():
                break
            state, some = one(state, keys[index][number])
            out.append(jax.device_get(some))
            if blocks is not None:
                blocks.save(index, number, out[-1], state)
            done = number * length
            phase = "warm-up" if done < plan.warm else "sampling"
            words = f"{told(index, out)}chain {index + 1} {phase}, {note(out[-1])}"
            advance(min(length, plan.total - done), words)
        return out

    results, seconds = run_chains(chain, len(starts), plan.total, progress)
    return _of_one_length(results, plan), seconds


def _continued(
    blocks: Blocks | None, index: int, start: Callable, begin: Callable, keys: Any
) -> tuple[Any, list, Chunk]:
    """State, chunks so far and chunk function of a chain: as it starts, or where its blocks on disk end.

    Its first block is run again and must be the same, to the bit: another machine or version would go on otherwise.
    """
    state, one = jax.block_until_ready(start()), begin(None)
    if blocks is None or not (number := blocks.length(index)):
        return state, [], one
    after, first = one(state, keys[0])
    first = jax.device_get(first)
    out = [blocks.load(index, n, first) for n in range(number)]
    same = jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), out[0], first)
    if not all(jax.tree.leaves(same)):
        raise InputError(
            f"{blocks.folder}: the first block of chain {index} comes out otherwise here, on this machine or with these"
            " versions; continue where it began, or remove the folder to begin anew"
        )
    return blocks.state(index, after), out, begin(out[-1])


def _of_one_length(results: list[list[Any]], plan: Schedule) -> list[list[Any]]:
    """Chains that a deadline has ended, cut to the shortest. Raises `TimeIsOver` where that is in warm-up."""
    least = min(map(len, results))
    if least * plan.length <= plan.warm < plan.total:
        raise TimeIsOver(
            f"the time is over in warm-up, after {least * plan.length:,} of {plan.warm:,} draws: give more of it, or"
            " less --warmup"
        )
    return [chain[:least] for chain in results]
