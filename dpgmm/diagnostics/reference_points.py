"""A fixed sample of the observations, and what draws say of their partition: numbers in which no label occurs."""

from functools import partial
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from .. import partitions
from ..densities import base_measure, conjugate
from ..densities.gaussian import BaseMeasure
from ..draws import allocations, log_joint_of, prior
from ..draws.components import Components
from ..draws.thinning import evenly

SIZE = 100
"""Observations in the reference points, evenly spaced in the order of their first coordinate."""
PAIRS = 8
"""Pairs of observations, an eighth of the reference points apart, whose co-clustering is followed."""


class ReferencePoints(NamedTuple):
    """What all draws say of the reference points's observations.

    - `positions` (n,): which observations; `pairs` (P, 2): which of the reference points.
    - `together` (chain, draw, P): probability that the two of a pair come from one component, given the draw.
    - `variation` (chain, draw): variation of information, bits, between the partition of the likeliest components and
      that of the draw of highest log joint.
    - `log_partition` (chain, draw): log joint density of the reference points and that partition of it given the draw's
      concentration, weights (of the untruncated process) and components integrated out, nats; None but for the
      stick-breaking model, whose base measure the attributes record.
    - `similarity` (chain, half, n, n): mean probability of each pair to be together, in both halves of every chain.
    """

    positions: np.ndarray
    pairs: np.ndarray
    together: np.ndarray
    variation: np.ndarray
    log_partition: np.ndarray | None
    similarity: np.ndarray

    def distances(self) -> tuple[float, float]:
        """Mean absolute difference of similarity entries: largest between two chains, largest between halves of one."""
        chains = self.similarity.mean(axis=1)
        between = max((float(np.abs(a - b).mean()) for a, b in combinations(chains, 2)), default=0.0)
        return between, float(np.abs(np.diff(self.similarity, axis=1)).mean(axis=(1, 2, 3)).max())


def read(draws: xr.DataTree) -> ReferencePoints:
    """The `ReferencePoints` of draws in the schema, streamed: nothing of size draws x n x components is held."""
    posterior = draws["posterior"].to_dataset()
    components = Components.of(posterior).sorted().flatten()
    points = draws["observed_data"].to_dataset()["points"].values
    order = np.argsort(points[:, 0], kind="stable")
    positions = order[evenly(len(points), SIZE)]
    first = evenly(len(positions), PAIRS + 1)
    pairs = np.stack([first[:-1], first[1:]], axis=1) if len(first) > 1 else np.zeros((1, 2), int)
    chains, length = posterior["weights"].shape[:2]
    half = 2 * (np.arange(chains * length) // length) + (np.arange(chains * length) % length >= length // 2)
    base, tied = _base(draws)
    concentration = posterior["concentration"].values.ravel() if base is not None else np.zeros(chains * length)
    together, hard, log_partition, sums = [], [], [], np.zeros((2 * chains, len(positions), len(positions)))
    for part in allocations.chunks(chains * length, len(positions), components.weights.shape[1]):
        p = allocations.probabilities(*components.at(part), points[positions])
        labels, shared = _summaries(p, pairs)
        together.append(shared)
        hard.append(np.asarray(labels))
        for h in np.unique(half[part]):
            of = np.asarray(p)[half[part] == h].swapaxes(0, 1).reshape(len(positions), -1)
            sums[h] += of @ of.T
        if base is not None:
            log_partition.append(
                _log_partition(labels, concentration[part], points[positions], base, p.shape[-1], tied=tied)
            )
    hard, best = np.concatenate(hard), int(np.argmax(log_joint_of(draws)))
    by_draw = lambda parts: np.concatenate(parts).reshape(chains, length, *parts[0].shape[1:])
    return ReferencePoints(
        positions,
        pairs,
        by_draw(together),
        partitions.vi(hard, hard[best]).reshape(chains, length),
        by_draw(log_partition) if log_partition else None,
        (sums / np.maximum(np.bincount(half, minlength=2 * chains), 1)[:, None, None]).reshape(
            chains, 2, *sums.shape[1:]
        ),
    )


def _base(draws: xr.DataTree) -> tuple[BaseMeasure | None, bool]:
    """The base measure that the draws record, where it is fixed, under sticks with a concentration; whether it is tied."""
    found = prior.of(draws)
    if found is None or found.weights != "sticks" or found.hyperprior is not None:
        return None, False
    if "concentration" not in draws["posterior"].data_vars:
        return None, False
    return found.base, base_measure.is_tied(found.covariance)


@jax.jit
def _summaries(p: Array, pairs: np.ndarray) -> tuple[Array, Array]:
    return jnp.argmax(p, axis=-1), jnp.sum(p[:, pairs[:, 0]] * p[:, pairs[:, 1]], axis=-1)


@partial(jax.jit, static_argnames=("num", "tied"))
def _log_partition(
    labels: Array, concentration: Array, points: Array, base: BaseMeasure, num: int, *, tied: bool
) -> Array:
    """`conjugate.log_posterior` of every draw's partition into at most `num` clusters, ``(T, n)`` to ``(T,)``."""
    one = lambda z, a: conjugate.log_posterior(jax.nn.one_hot(z, num, dtype=points.dtype), points, a, base, tied=tied)
    return jax.lax.map(lambda za: one(*za), (labels, concentration), batch_size=256)
