"""The No-U-Turn sampler, chains from dispersed starts, each at its own pace, with exact moves for what is not smooth.

Labels of a stick-breaking model are not exchangeable, and a gradient cannot change them: chains that keep the large
components where they started do not draw label-invariant quantities rightly either. By default transitions of NUTS
therefore take turns with moves that can (`dpgmm.methods._moves`): size-biased orders of the components, empty components
and late sticks drawn anew, splits and mergers. ``moves="none"`` is plain NUTS: its failure is worth seeing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jax import Array, random
from jax.flatten_util import ravel_pytree
from jaxtyping import Shaped

from .. import draws
from ..errors import InputError, at_least
from ..model import reordering
from ..model.posterior import Arrays, Parameters, Posterior
from . import _adaptive, _moves, _plain, _so_far, _state, _sweeps
from ._method import Method
from ._run import Progress, constrained, dispersed, stack

CHUNK = 25
"""Draws between two looks at the progress bar and at Ctrl-C."""
MOVES = "all", "swaps", "none"
THIN, POINTS = 10, 1_000
"""Transitions with all moves a draw in one dimension, for up to so many points; beyond, fewer in proportion."""
SWEPT = 2_000
"""Points of weight one, at most, that a transition also allocates to components."""
REFRESHES = 1
"""Proposals a transition to draw empty components and late sticks anew."""


class Sampler(NamedTuple):
    """A Markov chain: `init(key, start, data)` a state, `step(state, data)` a state and statistics of the transition.

    `position(state)` is kept of a draw, and `parameters` are those of positions with leading axes (chain, draw);
    ``mixtures(positions)``: weights and means on the host, of those of a chunk; `name` tells the programs apart.
    """

    name: tuple
    init: Callable[[Array, Any, Arrays], Any]
    step: Callable[[Any, Arrays], tuple[Any, dict[str, Shaped[Array, ""]]]]
    position: Callable[[Any], Any]
    parameters: Callable[[Any], Parameters]
    mixtures: Callable[[Any], tuple[np.ndarray, np.ndarray]]


def run(
    posterior: Posterior,
    key: Array,
    *,
    chains: int = 4,
    warmup: int = 1_000,
    draws_per_chain: int = 1_000,
    moves: str | None = None,
    thin: int | None = None,
    target_accept: float = 0.9,
    max_tree_depth: int | None = None,
    dense_mass: bool = False,
    active: int = 6,
    split_merges: int = 16,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Draws of independent chains after adaptation (Hoffman & Gelman 2014).

    Options:
        `chains`: independent chains from dispersed starts.
        `warmup`: draws of adaptation before those that are kept.
        `draws_per_chain`: draws that are kept of each chain.
        `moves`: all, swaps or none; by default the most that the model allows.
        `thin`: transitions a draw; with all moves 10, fewer where points or dimensions are many, else 1.
        `target_accept`: mean acceptance probability that the step size is adapted to.
        `max_tree_depth`: at most 2 to this power steps a transition; by default 5 with all moves, else 10.
        `dense_mass`: a full mass matrix, for NUTS on all coordinates.
        `active`: components that NUTS moves at a time, with all moves.
        `split_merges`: proposals to split or merge components a transition, with all moves.

    ``"all"`` moves, for models with a conjugate prior: NUTS on some components at a time, in a metric made for their
    sizes, then what `_moves` has; a refreshed metric and orders do what long paths would. ``"swaps"``, for other models
    whose components can be reordered: NUTS on all coordinates, then K proposals to swap two labels (`_permute.swap`);
    ``"none"``: NUTS alone, which does not draw from the posterior of a model whose labels are not exchangeable.
    `sample_stats` keeps `diverging`, `n_steps` (over all transitions of a draw), `acceptance_rate`, `energy`, `step_size`,
    and, where there are moves, the number accepted of each since the draw before. Deterministic given `key`. Raises
    `InputError` for options out of range, where a start has no finite density, and for moves that the model does not allow.
    """
    at_least("nuts", 1, chains=chains, draws_per_chain=draws_per_chain, active=active)
    at_least("nuts", 0, warmup=warmup, split_merges=split_merges)
    key_start, key_chain = random.split(key)
    starts, data = dispersed(posterior, key_start, chains), posterior.arrays()
    moves = _chosen(posterior, moves, jax.tree.map(lambda leaf: leaf[0], starts))
    if thin is None:
        most = min(THIN // posterior.data.dim, THIN * POINTS // posterior.data.size)
        thin = max(1, most) if moves == "all" else 1
    depth = (5 if moves == "all" else 10) if max_tree_depth is None else max_tree_depth
    at_least("nuts", 1, thin=thin, max_tree_depth=depth)
    if not 0 < target_accept < 1:
        raise InputError(f"nuts option target_accept = {target_accept!r}: it must lie between 0 and 1")
    density = lambda starts, data: jax.lax.map(posterior.on(data).log_density, starts)
    if not np.isfinite(posterior.compile("nuts, starts", density, starts, data)[0](starts, data)).all():
        raise InputError(f"model {posterior.name}: the log density of a start is not finite; correct its initial(key)")
    if moves == "all":
        sweep = posterior.data.size <= SWEPT and bool((posterior.data.weights == 1).all())
        settings = _moves.Settings(active, split_merges, REFRESHES, depth)
        sampler = with_moves(posterior, settings, warmup * thin, target_accept, sweep=sweep)
    else:
        settings = _plain.Settings(warmup * thin, target_accept, depth, dense_mass, moves == "swaps")
        sampler = plain(posterior, starts, settings)
    results, compile_seconds, run_seconds = _run(
        posterior, sampler, key_chain, starts, data, warmup, draws_per_chain, thin, progress
    )
    kept, stats = stack(results)
    return draws.build(
        posterior,
        sampler.parameters(kept),
        chosen={"moves": moves, "thin": thin, "max_tree_depth": depth},
        compile_seconds=compile_seconds,
        run_seconds=run_seconds,
        sample_stats=stats,
        moves_labels=moves == "all",
    )


def _chosen(posterior: Posterior, moves: str | None, start: Parameters) -> str:
    """The moves asked for, or the most that the model allows. Raises `InputError` for those that it does not."""
    if moves is not None and moves not in MOVES:
        raise InputError(f"nuts: no moves {moves!r}; there are {', '.join(MOVES)}")
    if moves == "all" and posterior.conjugate is None:
        raise InputError(f"nuts: model {posterior.name} states no conjugate prior; choose moves = swaps or none")
    if moves == "swaps":
        reordering.check(posterior, start)
    if moves is None and posterior.conjugate is None:
        try:
            reordering.check(posterior, start)
        except InputError:
            return "none"
        return "swaps"
    return moves or "all"


def _run(
    posterior: Posterior,
    sampler: Sampler,
    key: Array,
    starts: Parameters,
    data: Arrays,
    warmup: int,
    count: int,
    thin: int,
    progress: Progress | None,
) -> tuple[list[Any], float, float]:
    """Chains on threads; `count` draws of each after the first `warmup`, and seconds of compiling and running."""
    keys = random.split(key, len(jax.tree.leaves(starts)[0]))
    start = lambda i: jax.tree.map(lambda leaf: leaf[i], starts)
    init, init_seconds = posterior.compile(
        (*sampler.name, "init", warmup * thin), sampler.init, keys[0], start(0), data
    )
    states = [partial(init, k, start(i), data) for i, k in enumerate(keys)]

    def draw(state, data):
        state, stats = jax.lax.scan(lambda s, _: sampler.step(s, data), state, length=thin)
        return state, (sampler.position(state), {name: _joined(name, of) for name, of in stats.items()})

    chunk = lambda state, data: jax.lax.scan(lambda s, _: draw(s, data), state, length=CHUNK)
    compiled, seconds = posterior.compile((*sampler.name, CHUNK, thin), chunk, states[0](), data)
    plan = _sweeps.Schedule(warmup, warmup + count, CHUNK)
    note = lambda out: f"{int(np.median(out[1]['n_steps']))} steps a draw"
    invariants = lambda out: _so_far.invariants(*sampler.mixtures(out[0]), energy=out[1]["energy"])
    chunks = lambda _: lambda state, _: compiled(state, data)
    results, run_seconds = _sweeps.run(plan, states, chunks, note, invariants, progress)
    return [plan.kept(parts) for parts in results], init_seconds + seconds, run_seconds


def _joined(name: str, every: Shaped[Array, " thin"]) -> Shaped[Array, ""]:
    """A statistic of the transitions of one draw: the last of what is a state, the mean of rates, the sum of counts."""
    if name in ("energy", "step_size"):
        return every[-1]
    if name == "acceptance_rate":
        return every.mean()
    return every.any() if every.dtype == bool else every.sum()


def with_moves(
    posterior: Posterior, settings: _moves.Settings, adapt: int, target_accept: float, *, sweep: bool
) -> Sampler:
    """NUTS with all moves (`_adaptive`)."""

    def parameters(kept):
        every = jax.vmap(jax.vmap(lambda s: _state.parameters_of(s, posterior)))
        return posterior.compile(("nuts, parameters",), every, kept)[0](kept)

    return Sampler(
        ("nuts, all moves", settings, target_accept, sweep),
        lambda key, start, _: _adaptive.init(key, start, posterior, adapt),
        lambda now, data: _adaptive.step(now, data, posterior, settings, target_accept, sweep=sweep),
        lambda now: now.state,
        parameters,
        lambda kept: (np.exp(kept.components.log_weights), kept.components.means),
    )


def plain(posterior: Posterior, starts: Parameters, settings: _plain.Settings) -> Sampler:
    """NumPyro's NUTS on all unconstrained coordinates, with or without swaps of labels (`_plain`)."""
    # One flat vector of coordinates: the sampler's own work is per array, and outweighs that of a small model.
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], starts))[1]
    name = "nuts", *settings
    # NumPyro's second function knows what the first was given: the pair is kept, as their programs are.
    kernel = posterior.keep(name, lambda: _plain.kernel(posterior, unravel))
    return Sampler(
        name,
        lambda key, start, data: _plain.init(key, ravel_pytree(start)[0], data, kernel, settings),
        lambda state, data: _plain.step(state, data, posterior, kernel, settings),
        lambda state: state.z,
        lambda kept: constrained(posterior, kept, 2, unravel),
        lambda kept: _so_far.mixtures(posterior, kept, lambda z: posterior.constrain(unravel(z))[0]),
    )


METHOD = Method(
    "nuts", run, quick={"chains": 2, "warmup": 100, "draws_per_chain": 100, "thin": 2}, colour="#009E73", usual=True
)
