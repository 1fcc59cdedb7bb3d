"""`predict` and `assign`: new points, and all old ones, beside the clusters of one partition that stands for the draws.

Sharing a cluster is all that is spoken of, so that no label of any draw matters. Given a draw t with components
``w_k N(mu_k, Sigma_k)``, of density ``f_t``, let ``r_tk(x) = w_tk N(x | mu_tk, Sigma_tk) / f_t(x)`` and let ``s_tkc`` be the
share of the members of cluster c that are in component k: by the draw's allocations where they are kept, else expected.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jax import Array

from .. import draws as schema
from ..densities import mixture
from ..draws import allocations as allocating
from ..draws.monte_carlo import mcse_of_each
from ..draws.prediction import checked_points, same_size
from ._partition import LIMIT, Partition, partition

NONE = -1
"""Cluster of a new point that is likelier to be in none of those that there are."""


class Prediction(NamedTuple):
    """What draws say of M points, beside the C clusters of `partition`. Monte Carlo standard errors end in `_mcse`.

    - `log_density`, `log_density_mcse` (M,): log posterior predictive density, nats.
    - `probabilities` (M, C): to share a cluster with a member of each cluster of the estimate, drawn at random. Where draws
      merge what the estimate keeps apart, a point is with both: rows need not sum to one.
    - `new_cluster`, `new_cluster_mcse` (M,): probability to share a cluster with no observation of the estimate.
    - `cluster` (M,): the likeliest, `NONE` where a new one is likelier still; `probability`, `probability_mcse`: of it.
    """

    log_density: np.ndarray
    log_density_mcse: np.ndarray
    probabilities: np.ndarray
    new_cluster: np.ndarray
    new_cluster_mcse: np.ndarray
    cluster: np.ndarray
    probability: np.ndarray
    probability_mcse: np.ndarray
    partition: Partition

    def table(self) -> pd.DataFrame:
        """One row a point: cluster, its probability, that of a new cluster, log density, standard errors."""
        columns = {
            "cluster": self.cluster,
            "probability": self.probability,
            "probability_mcse": self.probability_mcse,
            "new_cluster_probability": self.new_cluster,
            "log_density": self.log_density,
            "mcse": self.log_density_mcse,
        }
        return pd.DataFrame(columns)


class Assignment(NamedTuple):
    """The cluster of every observation, ``(N,)``, its `uncertainty` and that number's Monte Carlo standard error.

    Uncertainty: one less the probability to share a cluster with a member of it drawn at random, oneself apart.
    """

    cluster: np.ndarray
    uncertainty: np.ndarray
    mcse: np.ndarray
    partition: Partition

    def table(self) -> pd.DataFrame:
        """One row an observation."""
        return pd.DataFrame({"cluster": self.cluster, "uncertainty": self.uncertainty, "mcse": self.mcse})


def predict(
    draws: xr.DataTree,
    new_points: Any,
    *,
    estimate: Partition | None = None,
    loss: str = "vi",
    limit: int = LIMIT,
    seed: int = 0,
) -> Prediction:
    """Log predictive density of new points ``(M, D)``, and which cluster of the point estimate each would join.

    The new point x counts as one more observation, so a draw weighs as much as it makes x likely:

        p(x | data)                       = mean_t f_t(x)
        p(x shares a cluster with C_c | x) = mean_t f_t(x) sum_k r_tk(x) s_tkc / mean_t f_t(x)
        p(x shares one with nobody | x)    = mean_t f_t(x) sum_k r_tk(x) e_tk / mean_t f_t(x)

    with ``s`` as above and ``e_tk`` the probability that component k holds none of the estimate's observations. The first
    is the mean similarity of x with the members of c, the last row of the similarity matrix of data and x. Standard
    errors: of the mean of ``f_t``, autocorrelation and disagreement of chains included, over that mean; of the ratio with
    mean q, of the mean of ``f_t (q_t - q)``, over the same (delta method). NaN of one draw: a point estimate has none.

    `estimate` is ``dpgmm.partition(draws)``, made here by `loss`, `limit` and `seed` where it is not given; of a guide or a
    point estimate the best restart is taken. Draws and points are streamed. Raises `InputError` for points of another
    dimension or that are not finite.

    Examples:
        >>> prediction = dpgmm.predict(tree, [[10.0], [20.0]])
        >>> list(prediction.table().columns[:2]), prediction.log_density.shape
        (['cluster', 'probability'], (2,))
    """
    tree = schema.answer(draws)
    points = checked_points(tree, new_points)
    found = partition(tree, loss, limit=limit, seed=seed) if estimate is None else estimate
    shares, empty = _members(tree, found)
    parts = [_beside(tree, points[part], shares, empty) for part in _blocks(len(points), shares)]
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Prediction(*joined, partition=found)


def assign(
    draws: xr.DataTree, *, estimate: Partition | None = None, loss: str = "vi", limit: int = LIMIT, seed: int = 0
) -> Assignment:
    """The cluster of the point estimate that every observation is in, and how sure the draws are of it.

    Observations that the estimate is of keep the cluster it gives them; the others, of more than `limit`, go to the cluster
    with whose members they share one most often. The probability is that of `predict`, but that an observation is data
    already: ``mean_t sum_k r_tk(x_i) s_tkc``, with its own allocation in place of r where it is kept, and itself left out
    of the members. One that is alone in its cluster: `Partition.uncertainty`, without a standard error.

    Examples:
        >>> dpgmm.assign(tree).table().shape  # of eleven points: cluster, uncertainty, its standard error
        (11, 3)
    """
    tree = schema.answer(draws)
    found = partition(tree, loss, limit=limit, seed=seed) if estimate is None else estimate
    shares, _ = _members(tree, found)
    points = schema.data_of(tree).points
    sizes = np.bincount(found.partition.values)
    own = np.full(len(points), NONE)
    own[found.observations[::-1]] = found.partition.values[::-1]
    parts = [_among(tree, part, points[part], own[part], shares, sizes) for part in _blocks(len(points), shares)]
    cluster, uncertainty, error = (np.concatenate(column) for column in zip(*parts, strict=True))
    alone = sizes[found.partition.values] == 1
    uncertainty[found.observations[alone]] = found.uncertainty.values[alone]
    error[found.observations[alone]] = np.nan
    return Assignment(cluster, uncertainty, error, found)


def _blocks(num_points: int, shares: np.ndarray) -> list[slice]:
    """Slices of points, so few that the numbers of every draw, point and cluster can be held."""
    num_draws, _, num_clusters = shares.shape
    size = max(1, allocating.PAIRS // (num_draws * (num_clusters + 2)))
    return [slice(start, start + size) for start in range(0, num_points, size)]


def _components(tree: xr.DataTree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    posterior = tree["posterior"].to_dataset()
    flat = [posterior["weights"].values, posterior["means"].values, schema.spread(posterior)]
    weights, means, covariances = (a.reshape(-1, *a.shape[2:]) for a in flat)
    return weights, means, covariances


def _kept(tree: xr.DataTree) -> np.ndarray | None:
    """Allocations ``(T, N)`` in terms of the draw's components, where they are kept."""
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else {}
    return stats["allocations"].values.reshape(-1, stats["allocations"].shape[-1]) if "allocations" in stats else None


def _members(tree: xr.DataTree, found: Partition) -> tuple[np.ndarray, np.ndarray]:
    """``s (T, K, C)`` and ``e (T, K)``."""
    weights, means, covariances = _components(tree)
    labels, rows, kept = found.partition.values, found.observations, _kept(tree)
    member = np.eye(found.num_clusters)[labels] / np.bincount(labels)[labels, None]
    num_draws, num_components = weights.shape
    shares = np.empty((num_draws, num_components, found.num_clusters))
    empty = np.empty((num_draws, num_components))
    points = schema.data_of(tree).points[rows]
    for part in same_size(num_draws, len(rows), num_components):
        if kept is None:
            r = allocating.probabilities(weights[part], means[part], covariances[part], points)
        else:
            r = jax.nn.one_hot(kept[part][:, rows], num_components, dtype=float)
        shares[part], empty[part] = _shares(r, member)
    return shares, empty


@jax.jit
def _shares(r: Array, member: Array) -> tuple[Array, Array]:
    return jnp.einsum("tnk,nc->tkc", r, member), jnp.exp(jnp.sum(jnp.log1p(-jnp.minimum(r, 1.0)), axis=1))


def _beside(tree: xr.DataTree, points: np.ndarray, shares: np.ndarray, empty: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays of `Prediction` for some points."""
    log_f, together, alone = _per_draw(tree, points, shares, empty)
    peak = log_f.max(axis=0)
    f = np.exp(log_f - peak)
    by_chain = lambda a: a.reshape(*tree["posterior"]["weights"].shape[:2], *a.shape[1:])
    mean = f.mean(axis=0)

    def ratio(values: np.ndarray) -> np.ndarray:
        return np.minimum((f * values).mean(axis=0) / mean, 1.0)  # It may be above by a rounding.

    def error(values: np.ndarray, q: np.ndarray) -> np.ndarray:
        return mcse_of_each(by_chain(f * (values - q))) / mean

    of_each = np.stack([ratio(together[..., c]) for c in range(together.shape[-1])], axis=1)
    best, none = of_each.argmax(axis=1), ratio(alone)
    of_best = np.take_along_axis(together, best[None, :, None], axis=-1)[..., 0]
    new, probability = none > of_each.max(axis=1), of_each.max(axis=1)
    alone_error, best_error = error(alone, none), error(of_best, probability)
    return (
        np.log(mean) + peak,
        mcse_of_each(by_chain(f)) / mean,
        of_each,
        none,
        alone_error,
        np.where(new, NONE, best),
        np.where(new, none, probability),
        np.where(new, alone_error, best_error),
    )


def _among(tree, part: slice, points, own, shares, sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cluster, uncertainty and its standard error of some observations, `own` being the estimate's cluster or `NONE`."""
    kept = _kept(tree)
    if kept is None:
        _, together, itself = _per_draw(tree, points, shares, None)
    else:
        together = np.take_along_axis(shares, kept[:, part, None].astype(int), axis=1)
        itself = np.ones(together.shape[:2])
    counted = own != NONE
    cluster = np.where(counted, own, together.mean(axis=0).argmax(axis=1))
    q = np.take_along_axis(together, cluster[None, :, None], axis=-1)[..., 0]
    size = sizes[cluster]
    others = np.maximum(size - 1, 1)
    q = np.where(counted, (size * q - itself) / others, q)
    by_chain = q.reshape(*tree["posterior"]["weights"].shape[:2], -1)
    return cluster, np.clip(1 - q.mean(axis=0), 0, 1), mcse_of_each(by_chain)


def _per_draw(tree: xr.DataTree, points, shares, empty) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``log f (T, M)``, ``sum_k r_k s_kc (T, M, C)``, and ``sum_k r_k e_k`` or, without e, ``sum_k r_k^2 (T, M)``."""
    components = _components(tree)
    num_draws, num_components = components[0].shape
    log_f, alone = np.empty((2, num_draws, len(points)))
    together = np.empty((num_draws, len(points), shares.shape[-1]))
    for part in same_size(num_draws, len(points), num_components + shares.shape[-1]):
        of_empty = None if empty is None else empty[part]
        log_f[part], together[part], alone[part] = _some(
            *(leaf[part] for leaf in components), points, shares[part], of_empty
        )
    return log_f, together, alone


@jax.jit
def _some(weights: Array, means: Array, covariances: Array, points: Array, shares: Array, empty: Array | None):
    joint = mixture.of_draws(mixture.log_joint_density, mixture.factored(weights, means, covariances), points)
    log_f = jax.nn.logsumexp(joint, axis=-1)
    r = jnp.exp(joint - log_f[..., None])
    alone = jnp.sum(r**2, axis=-1) if empty is None else jnp.einsum("tmk,tk->tm", r, empty)
    return log_f, jnp.einsum("tmk,tkc->tmc", r, shares), alone
