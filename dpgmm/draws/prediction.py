"""Prediction from draws: densities of points, new data, and the groups that ArviZ has names for. Streamed over draws.

A point of weight omega stands for omega points; what is said of it here is said of one of them.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random
from jaxtyping import Float, Key, UInt32

from ..densities import mixture
from ..densities.distributions import GaussianMixture
from ..errors import InputError, at_least
from ..model.posterior import Posterior
from ..model.prior_predictive import check_proper, prior_draw
from . import schema
from .allocations import PAIRS

GROUPS = "log_likelihood", "posterior_predictive", "log_prior", "prior", "prior_predictive"
"""What `with_groups` adds, in ArviZ's words."""
OF_A_POSTERIOR = "log_likelihood", "log_prior", "prior"
"""Of these, what a point estimate has no use for: leave-one-out, sensitivity to the prior, prior beside posterior."""


def with_groups(
    draws: xr.DataTree, *groups: str, posterior: Posterior | None = None, seed: int = 0, num_draws: int = 1_000
) -> xr.DataTree:
    """The same draws with these groups besides, under the names and in the forms that ArviZ's functions take.

    - `log_likelihood`: ``points (chain, draw, obs)``, log density of every point under every draw, nats. Point weights are
      not multiplied in: leaving one out leaves out one of the points that a row stands for.
    - `posterior_predictive`: ``points (chain, draw, obs, dim)``, as many new points from every draw's mixture, by `seed`.
    - `log_prior`: ``prior (chain, draw)``, log prior density of the model's parameters, ``log joint - log likelihood``.
    - `prior`: `num_draws` draws of weights, means, covariances and concentration from the prior of `posterior`, by `seed`.
    - `prior_predictive`: ``points (chain, draw, obs, dim)``, points from each of those.

    Of a variational guide the best restart alone is kept, as restarts are no chains. `point_weights` move from
    `observed_data` to `constant_data`, for ArviZ pairs observed with predicted variables. ArviZ's functions of one
    coordinate take ``tree.isel(dim=0)``. Raises `InputError` for other names, for a point estimate where the group would
    mean nothing, and without the posterior that `prior` and `prior_predictive` need.

    Examples:
        >>> more = dpgmm.with_groups(tree, "log_likelihood")
        >>> more["log_likelihood/points"].dims
        ('chain', 'draw', 'obs')
    """
    unknown = [name for name in groups if name not in GROUPS]
    if unknown or not groups:
        raise InputError(f"with_groups: no group {unknown[0] if unknown else None!r}; there are {', '.join(GROUPS)}")
    at_least("with_groups", 0, seed=seed)
    at_least("with_groups", 1, num_draws=num_draws)
    if schema.kind(draws) == "point":
        for name in OF_A_POSTERIOR:
            if name in groups:
                refuse_point(draws, name)
        tree = draws.copy()
    else:
        tree = schema.answer(draws).copy()
    points = schema.data_of(tree).points
    added: dict[str, xr.Dataset] = {}
    if "log_likelihood" in groups:
        added["log_likelihood"] = xr.Dataset({"points": (("chain", "draw", "obs"), log_density(tree, points))})
    if "posterior_predictive" in groups:
        replicated = replicates(tree, len(points), seed)
        added["posterior_predictive"] = xr.Dataset({"points": (("chain", "draw", "obs", "dim"), replicated)})
    if "log_prior" in groups:
        added["log_prior"] = xr.Dataset({"prior": (("chain", "draw"), log_prior(tree))})
    if "prior" in groups or "prior_predictive" in groups:
        of_prior = _of_prior(posterior, points.shape[1], seed, num_draws)
        added |= {name: group for name, group in of_prior.items() if name in groups}
    for name, group in added.items():
        # The prior's draws are other ones: those of the posterior lend coordinates only where sizes are the same.
        own = {} if name.startswith("prior") else tree["posterior"].coords
        coords = {d: own[d] if d in own else tree["observed_data"].coords.get(d) for d in group.dims}
        with_own = group.assign_coords({d: c for d, c in coords.items() if c is not None and c.size == group.sizes[d]})
        tree[name] = xr.DataTree(schema.with_coordinates(with_own).assign_attrs(schema.made_by()))
    return _weights_apart(tree)


def refuse_point(draws: xr.DataTree, what: str) -> None:
    """Raise `InputError` where draws are of a point estimate, of which `what` means nothing."""
    if schema.kind(draws) == "point":
        method = draws.attrs.get("method", "these draws")
        raise InputError(
            f"{what}: {method} is a point estimate and no posterior, so that leaving a point out, or weighing the prior,"
            " says nothing; give draws of a sampler or a guide, or hold points out (dpgmm compare --holdout 0.1)"
        )


def log_density(draws: xr.DataTree, points: Any) -> Float[np.ndarray, "chain draw M"]:
    """``log sum_k w_tk N(x_m | mu_tk, Sigma_tk)`` of every draw t and point m, ``(M, D)`` to ``(chain, draw, M)``, nats."""
    components, points = _flat(draws), checked_points(draws, points)
    out = np.empty((len(components[0]), len(points)))
    for part in same_size(*out.shape, components[0].shape[1]):
        out[part] = log_densities(*(leaf[part] for leaf in components), points)
    return out.reshape(*draws["posterior"]["weights"].shape[:2], len(points))


def replicates(draws: xr.DataTree, num: int, seed: int = 0) -> Float[np.ndarray, "chain draw {num} D"]:
    """`num` points from the mixture of every draw, independent given the draw: ``(chain, draw, num, D)``."""
    components = _flat(draws)
    total, dim = len(components[0]), components[1].shape[-1]
    keys, out = random.split(random.PRNGKey(seed), total), np.empty((total, num, dim))
    for part in same_size(total, num, dim * dim):
        out[part] = _replicates(keys[part], *(leaf[part] for leaf in components), num)
    return out.reshape(*draws["posterior"]["weights"].shape[:2], num, dim)


def log_prior(draws: xr.DataTree) -> Float[np.ndarray, "chain draw"]:
    """Log prior density of the model's parameters, ``(chain, draw)``: log joint less log likelihood, which draws record."""
    stats = draws["sample_stats"].to_dataset() if "sample_stats" in draws.children else {}
    missing = [name for name in ("log_joint", "total_log_likelihood") if name not in stats]
    if missing:
        raise InputError(f"log_prior: these draws record no sample_stats/{missing[0]}; make them by dpgmm.fit")
    return stats["log_joint"].values - stats["total_log_likelihood"].values


def checked_points(draws: xr.DataTree, points: Any) -> Float[np.ndarray, "M D"]:
    """Points ``(M, D)`` of the dimension of the draws, from ``(M,)`` where D = 1. Raises `InputError` for others."""
    dim = draws["posterior"].sizes["dim"]
    try:
        array = np.asarray(getattr(points, "points", points), float)
    except (TypeError, ValueError) as error:
        raise InputError(f"points are not an array of numbers ({error}); give numbers only") from error
    array = array[:, None] if array.ndim == 1 and dim == 1 else array
    if array.ndim != 2 or array.shape[1] != dim or not len(array):
        raise InputError(
            f"points have shape {array.shape}; these draws are of dimension {dim}: give ({dim} numbers) a row"
        )
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise InputError(f"points, row {row}: {array[row].tolist()} is not finite; leave the row out")
    return array


def same_size(num_draws: int, num_points: int, width: int) -> Iterator[slice]:
    """Slices of draws of at most `PAIRS` numbers each, all of one size, the last reaching back: nothing recompiles."""
    size = min(num_draws, max(1, PAIRS // max(1, num_points * width)))
    starts = [*range(0, num_draws - size, size), num_draws - size]
    return (slice(start, start + size) for start in starts)


def _flat(
    draws: xr.DataTree,
) -> tuple[Float[np.ndarray, "T K"], Float[np.ndarray, "T K D"], Float[np.ndarray, "T ..."]]:
    """Weights, means and `spread`, chains one after the other."""
    posterior = draws["posterior"].to_dataset()
    arrays = posterior["weights"].values, posterior["means"].values, schema.spread(posterior)
    return tuple(a.reshape(-1, *a.shape[2:]) for a in arrays)  # pyright: ignore[reportReturnType]  # three of them


@jax.jit
def log_densities(
    weights: Float[Array, "T K"],
    means: Float[Array, "T K D"],
    covariances: Float[Array, "T ..."],
    points: Float[Array, "M D"],
) -> Float[Array, "T M"]:
    """`log_density` of arrays, ``(T, M)``; covariances as `schema.spread` has them."""
    return mixture.of_draws(mixture.log_density, mixture.factored(weights, means, covariances), points)


@partial(jax.jit, static_argnames="num")
def _replicates(
    keys: Key[Array, " T"] | UInt32[Array, "T 2"],
    weights: Float[Array, "T K"],
    means: Float[Array, "T K D"],
    covariances: Float[Array, "T ..."],
    num: int,
) -> Float[Array, "T {num} D"]:
    ones = jnp.ones(num, means.dtype)
    one: Callable = lambda key, *components: GaussianMixture(*components, ones).sample(key)
    return jax.vmap(one)(keys, *mixture.factored(weights, means, covariances))


def _of_prior(posterior: Posterior | None, dim: int, seed: int, num: int) -> dict[str, xr.Dataset]:
    """The groups `prior` and `prior_predictive`, one chain of independent draws."""
    if posterior is None:
        raise InputError("with_groups: draws do not hold the model; give the posterior that they are of, posterior=...")
    if posterior.data.dim != dim:
        raise InputError(f"with_groups: the posterior is of {posterior.data.dim} coordinates, the draws of {dim}")
    check_proper(posterior, "with_groups")
    keys = random.split(random.PRNGKey(seed), (1, num))
    draw = jax.jit(lambda rows: jax.lax.map(lambda row: jax.lax.map(lambda k: prior_draw(posterior, k), row), rows))
    parameters, points = draw(keys)
    return {
        "prior": schema.components_dataset(posterior, parameters, ("chain", "draw")),
        "prior_predictive": xr.Dataset({"points": (("chain", "draw", "obs", "dim"), np.asarray(points))}),
    }


def _weights_apart(tree: xr.DataTree) -> xr.DataTree:
    observed = tree["observed_data"].to_dataset()
    if "point_weights" in observed:
        tree["observed_data"].dataset = observed.drop_vars("point_weights")
        tree["constant_data"] = xr.DataTree(observed[["point_weights"]])
    return tree
