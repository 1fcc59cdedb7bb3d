"""Collapsed Gibbs sampling of the untruncated Dirichlet-process mixture: partitions are drawn, parameters follow.

The model is the limit K to infinity of the stick-breaking model: the truncation only says how many components of a draw
are shown. Neal (2000), algorithm 3, with the concentration by Escobar & West (1995).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random
from jaxtyping import Float, Integer

from .. import draws
from ..errors import InputError, at_least
from ..model.posterior import Conjugate, Posterior
from . import _collapsed, _so_far, _sweeps
from ._method import Method, conjugate_prior
from ._run import Progress, stack

WORK = 200_000
"""Observations seated between two looks at the progress bar, at Ctrl-C and at the slots, at most 100 draws."""
SLOTS = 32
"""Slots for clusters to begin with; doubled as often as they run out."""
KEEP = 256_000_000
"""Labels that are kept unasked, over all draws and chains."""
ALGORITHMS = 2, 3, 8
"""Neal's (2000)."""
MOST = 10
"""Clusters of a start, at most."""


FEW = 3_000
"""Points up to which a comparison runs it: taking them one by one takes a minute at most."""


def run(
    posterior: Posterior,
    key: Array,
    *,
    chains: int = 4,
    warmup: int = 500,
    draws_per_chain: int = 1_000,
    thin: int = 1,
    split_merges: int = 5,
    algorithm: int = 3,
    keep_allocations: bool | None = None,
    progress: Progress | None = None,
) -> xr.DataTree:
    """Draws of chains from dispersed starts.

    Options:
        `chains`: independent chains from dispersed starts.
        `warmup`: sweeps before the draws that are kept.
        `draws_per_chain`: draws that are kept of each chain.
        `thin`: sweeps a draw.
        `split_merges`: proposals to split or merge whole clusters after each sweep.
        `algorithm`: Neal's: 3 integrates the clusters' parameters out, 2 and 8 draw them and mix more slowly.
        `keep_allocations`: keep every draw's partition; by default up to 256 million labels.

    `sample_stats/allocations` (chain, draw, obs) holds the partitions, labels by first appearance, in the smallest integer
    type. Component k of a draw is its cluster k, its weight, mean and covariance drawn given the partition; components
    beyond the clusters are draws from the prior, the last one taking the weight that is left. `occupied_clusters` is the
    number of clusters. If clusters outnumber the slots for them, slots are doubled and the chunk of draws runs again:
    nothing is cut off. Without the splits and mergers (Jain & Neal 2004, with independent allocations) modes that lie far
    away are never seen; `sample_stats/accepted_moves` counts those accepted since the last draw. The algorithms differ in
    nothing else. Deterministic given `key`. Raises `InputError` for an unknown algorithm, for models without a conjugate
    stick-breaking prior and for weighted points.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"gibbs: no algorithm {algorithm}; there are {', '.join(map(str, ALGORITHMS))} (Neal 2000)")
    at_least("gibbs", 1, chains=chains, draws_per_chain=draws_per_chain, thin=thin)
    at_least("gibbs", 0, warmup=warmup, split_merges=split_merges)
    prior = checked(posterior)
    points = jnp.asarray(posterior.data.points, jax.dtypes.canonicalize_dtype(float))
    size = points.shape[0]
    length = int(np.clip(WORK // (size * thin), 1, 100))
    keep = keeps(asked=keep_allocations, number=chains * draws_per_chain * size)
    key_start, key_chain, key_draw = random.split(key, 3)
    begin = lambda key, points: _collapsed.start(key, points, prior, MOST)
    start, start_seconds = posterior.compile("gibbs, start", begin, key_start, points)
    starts = [partial(start, k, points) for k in random.split(key_start, chains)]
    programs = _Programs(posterior, prior, points, (thin, split_merges, algorithm), length, keep=keep)
    programs.compile(SLOTS, starts[0]())
    plan = _sweeps.schedule(key_chain, chains, warmup, draws_per_chain, thin, length)
    note = lambda some: f"{int(np.median((some[0][0].statistics[0] > 0).sum(axis=-1)))} clusters"
    before = programs.seconds
    results, run_seconds = _sweeps.run(plan, starts, programs.chunks, note, _invariants, progress)
    run_seconds = max(0.0, run_seconds - (programs.seconds - before))  # Slots doubled on the way were compiled then.
    # One more than clusters: the last component takes what the others leave.
    most = 1 + max((some[0][0].statistics[0] > 0).sum(axis=-1).max() for parts in results for some in parts)
    width = max(most, int(posterior.options["truncation"]))
    joined = [plan.kept([_resized(some, width) for some in parts]) for parts in results]
    kept, labels = stack([looks[0] for looks, _ in joined]), [looks[1] for looks, _ in joined]
    accepted = np.stack([accepted for _, accepted in joined])
    keys = random.split(key_draw, (chains, draws_per_chain))[:, : accepted.shape[1]]
    sample = lambda pair: _collapsed.parameters(pair[0], pair[1], prior)
    every = lambda *pair: jax.lax.map(lambda row: jax.lax.map(sample, row), pair)
    draw, draw_seconds = posterior.compile("gibbs, parameters", every, keys, kept)
    parameters = draw(keys, kept)
    clusters = np.asarray((kept.statistics[0] > 0).sum(axis=-1))
    tree = draws.build(
        posterior,
        parameters,
        chosen={"keep_allocations": keep},
        compile_seconds=start_seconds + programs.seconds + draw_seconds,
        run_seconds=run_seconds,
        moves_labels=True,
        sample_stats={"occupied_clusters": clusters} | ({"accepted_moves": accepted} if split_merges else {}),
    )
    return with_allocations(tree, np.stack(labels), int(clusters.max())) if keep else tree


def _invariants(some: Any) -> _so_far.Scalars:
    """Of a chunk: those of the clusters' shares and means, the number of clusters, the concentration."""
    kept = some[0][0]
    counts, sums = kept.statistics[:2]
    weights, means = counts / counts.sum(axis=1, keepdims=True), sums / np.maximum(counts, 1)[..., None]
    return _so_far.invariants(weights, means, clusters=(counts > 0).sum(axis=1), concentration=kept.concentration)


def checked(posterior: Posterior) -> Conjugate:
    """The conjugate prior of a stick-breaking posterior of whole points. Raises `InputError` for others."""
    prior = of_whole_points(posterior, "gibbs")
    if prior.weights != "sticks":
        raise InputError(
            f"gibbs: it samples the untruncated Dirichlet process, which model {posterior.name} is not;"
            " choose blocked_gibbs"
        )
    return prior


def of_whole_points(posterior: Posterior, method: str) -> Conjugate:
    """The conjugate prior of a posterior of whole points. Raises `InputError` without one, or for weighted points."""
    prior, data = conjugate_prior(posterior, method), posterior.data
    if (data.weights != 1).any():
        raise InputError(
            f"{method}: {data.name} has weighted points, and it allocates points one by one;"
            " give points of weight 1, repeated where need be"
        )
    return prior


def keeps(*, asked: bool | None, number: int) -> bool:
    """Whether allocations are kept: as asked, or where there are not too many."""
    return number <= KEEP if asked is None else asked


def with_allocations(tree: xr.DataTree, labels: Integer[np.ndarray, "chain draw obs"], num_labels: int) -> xr.DataTree:
    """The tree with `sample_stats/allocations`, in the smallest integer type that holds the labels."""
    array = labels.astype(np.min_scalar_type(num_labels - 1))
    tree["sample_stats"] = xr.DataTree(
        tree["sample_stats"].to_dataset().assign(allocations=(("chain", "draw", "obs"), array))
    )
    return tree


class _Programs:
    """The compiled chunk for each number of slots, and the seconds that they took."""

    def __init__(
        self,
        posterior: Posterior,
        prior: Conjugate,
        points: Float[Array, "N D"],
        moves: tuple[int, int, int],
        length: int,
        *,
        keep: bool,
    ):
        self.posterior, self.prior, self.points, self.moves = posterior, prior, points, moves
        self.length, self.keep, self.seconds = length, keep, 0.0

    def compile(self, slots: int, state: _collapsed.GibbsState):
        keys = random.split(random.PRNGKey(0), self.length)
        name = "gibbs", slots, *self.moves, self.keep
        compiled, seconds = self.posterior.compile(name, self._chunk(slots), state, keys, self.points)
        self.seconds += seconds
        return compiled

    def chunks(self, last: Any) -> _sweeps.Chunk:
        """The chunk function of a chain, which doubles its slots where clusters outnumber them, and runs again.

        It has the slots of the `last` chunk of the chain, where there is one.
        """
        slots = SLOTS if last is None else last[0][0].statistics[0].shape[-1]

        def one(state, keys):
            nonlocal slots
            while (result := self.compile(slots, state)(state, keys, self.points))[0].full:
                slots *= 2
            return result

        return one

    def _chunk(self, slots: int):
        label_type = np.min_scalar_type(slots - 1)
        thin, split_merges, algorithm = self.moves

        def step(key, state, points):
            return _collapsed.step(key, state, points, self.prior, slots, split_merges, algorithm)

        def look(state, points):
            labels = state.labels.astype(label_type) if self.keep else jnp.zeros(0, label_type)
            return _collapsed.kept(state, points, self.prior, slots), labels

        return _sweeps.chunk(step, look, thin)


def _resized(some, width: int):
    """Draws with `width` clusters each: empty ones, which come last, are cut or added."""
    (kept, labels), accepted = some

    def resize(a):
        a = a[:, :width]
        return np.pad(a, ((0, 0), (0, width - a.shape[1]), *((0, 0),) * (a.ndim - 2)))

    return (kept._replace(statistics=tuple(map(resize, kept.statistics))), labels), accepted


METHOD = Method(
    "gibbs",
    run,
    target="process",
    conjugate=True,
    allocates=True,
    check=checked,
    quick={"chains": 2, "warmup": 20, "draws_per_chain": 50},
    colour="#CC79A7",
    usual=True,
    most=FEW,
)
