"""`partition`: one partition that stands for the draws, and how far they are from it. The labelled layer on top."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from .. import draws as schema
from ..draws import allocations as gaussian_allocations
from ..draws.components import Components
from ..errors import InputError
from ._credible_ball import METRICS, CredibleBall, credible_ball
from .losses import Loss, contributions, resolve
from .search import PointEstimate, point_estimate
from .similarity import Draws, draws_of, labels_of
from .uncertainty import allocation_uncertainty

LIMIT = 1_000
"""Observations that a similarity matrix is made for; of more, a random sample is taken, and the result says which."""


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
    """What `partition` found.

    partition: labels by first appearance, over `obs`, whose coordinate is the row of the data.
    expected_loss, units, loss, num_clusters: of the partition, under the draws.
    similarity: posterior probability that two observations share a cluster, `obs` by `obs_`.
    credible_ball: around the partition; its own `loss` is the nearest one that is a metric.
    uncertainty: `allocation_uncertainty` of every observation. contribution: what it adds to the expected loss (to that of
    vi or omari, where the loss is an approximation of it).
    cluster_counts: posterior probability of every number of clusters, over `clusters`.
    observations: rows of the data that the partition is of; all, a sample, or some repeated as their weights say.
    estimate: of the search, with its history. notes: what was done to get the labels, in words.
    """

    partition: xr.DataArray
    expected_loss: float
    units: str
    loss: Loss
    num_clusters: int
    similarity: xr.DataArray
    credible_ball: CredibleBall
    uncertainty: xr.DataArray
    contribution: xr.DataArray
    cluster_counts: xr.DataArray
    observations: np.ndarray
    estimate: PointEstimate
    notes: tuple[str, ...]


class _Labels(NamedTuple):
    draws: Draws
    rows: np.ndarray
    notes: tuple[str, ...]


def partition(
    draws: xr.DataTree | xr.Dataset,
    loss: str | Loss = "vi",
    *,
    allocations: str = "allocations",
    group: str = "posterior",
    sample_dims: Sequence[str] = ("chain", "draw"),
    limit: int = LIMIT,
    level: float = 0.95,
    starts: int = 16,
    max_clusters: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Partition:
    """The partition of smallest expected loss under the draws, its credible ball, and who is sure of what.

    `draws` is a DataTree, or a Dataset of its `group`. The variable `allocations`, of that group or of `sample_stats`, where
    our samplers leave it, holds labels over those of `sample_dims` that it has and one more dimension, the observations:
    labels of any sampler, permuted as they may be. Where a DataTree of our schema has no such variable, one allocation of
    every point is drawn in every draw from the Gaussian components, with `seed`. Of more than `limit` observations a random
    sample without replacement is used, also by `seed`. Points that carry weights are repeated by them, or, beyond `limit`
    or with weights that are not whole, sampled by them.
    Losses: `LOSSES`; the other options: `point_estimate` and `credible_ball`.

    Raises `InputError` where neither allocations nor components are found, and for options out of range.

    Examples:
        >>> found = dpgmm.partition(tree, "vi")
        >>> found.partition.shape, found.similarity.shape, found.units
        ((11,), (11, 11), 'bits')
    """
    loss = resolve(loss)
    for name, value, least in (("limit", limit, 1), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} is {value!r}; give a whole number of {least} or more")
    found = _labels(draws, allocations, group, tuple(sample_dims), int(limit), seed)
    estimate = point_estimate(found.draws, loss, starts=starts, max_clusters=max_clusters, seed=seed, workers=workers)
    similarity = estimate.similarity
    over = lambda values: xr.DataArray(values, dims="obs", coords={"obs": found.rows})
    counts, share = np.unique(found.draws.num_clusters, return_counts=True)
    mean_over_draws = {"vi_lb": "vi", "omari_approx": "omari"}.get(loss.name, loss)
    return Partition(
        partition=over(estimate.partition),
        expected_loss=estimate.expected_loss,
        units=loss.units,
        loss=loss,
        num_clusters=estimate.num_clusters,
        similarity=xr.DataArray(similarity, dims=("obs", "obs_"), coords={"obs": found.rows, "obs_": found.rows}),
        credible_ball=credible_ball(found.draws, estimate.partition, _metric(loss), level),
        uncertainty=over(allocation_uncertainty(similarity, estimate.partition)),
        contribution=over(contributions(found.draws, estimate.partition, mean_over_draws)),
        cluster_counts=xr.DataArray(share / share.sum(), dims="clusters", coords={"clusters": counts}),
        observations=found.rows,
        estimate=estimate,
        notes=found.notes,
    )


def _metric(loss: Loss) -> str:
    """The loss itself where it is a metric, otherwise the plain metric on the same sums."""
    if loss.name in METRICS:
        return loss.name
    return "vi" if loss.kernel == "entropy" else "binder"


def _labels(
    draws: xr.DataTree | xr.Dataset, name: str, group: str, sample_dims: tuple[str, ...], limit: int, seed: int
) -> _Labels:
    if isinstance(draws, xr.DataTree):
        if group not in draws.children:
            raise InputError(
                f"draws: no group {group!r} (found {', '.join(draws.children) or 'none'}); name it in `group`"
            )
        dataset = draws[group].to_dataset()
    else:
        dataset = draws
    rng = np.random.default_rng(seed)
    stats = draws["sample_stats"].to_dataset() if isinstance(draws, xr.DataTree) and "sample_stats" in draws else {}
    for where in (dataset, stats):
        if name in where:
            return _given(where[name], sample_dims, limit, rng)
    if isinstance(draws, xr.DataTree) and group == "posterior" and "weights" in dataset:
        return _drawn(schema.check(draws), limit, seed, rng)
    raise InputError(
        f"draws: no variable {name!r} (found {', '.join(map(str, dataset.data_vars)) or 'none'}); name the one that holds "
        "the allocations, or give a DataTree of Gaussian components (docs/schema.md)"
    )


def _given(variable: xr.DataArray, sample_dims: tuple[str, ...], limit: int, rng: np.random.Generator) -> _Labels:
    """Labels from a variable of allocations; the one dimension that is no sample dimension is the observations."""
    samples = [d for d in sample_dims if d in variable.dims]
    others = [d for d in variable.dims if d not in samples]
    if len(others) != 1 or not samples:
        raise InputError(
            f"{variable.name} has dimensions {variable.dims}; it needs one of {sample_dims} and exactly one more, the "
            "observations: name the former in `sample_dims`"
        )
    rows, note = _observations(np.ones(variable.sizes[others[0]]), limit, rng)
    values = variable.transpose(*samples, others[0]).isel({others[0]: rows}).values
    labels = labels_of(values.reshape(-1, len(rows)), str(variable.name))
    return _Labels(draws_of(labels), rows, (f"allocations are the variable {variable.name!r}", note))


def _drawn(tree: xr.DataTree, limit: int, seed: int, rng: np.random.Generator) -> _Labels:
    """Labels drawn from the Gaussian components, for some of the observations."""
    posterior, observed = tree["posterior"].to_dataset(), tree["observed_data"].to_dataset()
    points = observed["points"].values
    weights = observed["point_weights"].values if "point_weights" in observed else np.ones(len(points))
    rows, note = _observations(weights, limit, rng)
    components = Components.of(posterior).flatten()
    labels = gaussian_allocations.draw(jax.random.key(seed), *components, points[rows])
    return _Labels(draws_of(labels), rows, (f"allocations are drawn from the Gaussian components, seed {seed}", note))


def _observations(weights: np.ndarray, limit: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Rows to use, ascending, and what they are, in words."""
    size, total = len(weights), float(weights.sum())
    plain = bool(np.all(weights == 1))
    if plain and size <= limit:
        return np.arange(size), f"all {size} observations"
    if plain:
        rows = rng.choice(size, limit, replace=False)
        return np.sort(rows), f"{limit} of {size} observations, at random without replacement"
    if np.all(weights == np.floor(weights)) and total <= limit:
        return np.repeat(np.arange(size), weights.astype(int)), f"{size} points, each as often as its weight says"
    rows = rng.choice(size, min(limit, max(1, round(total))), p=weights / total)
    return np.sort(rows), f"{len(rows)} observations, sampled by their weights from {size} points of total {total:g}"
