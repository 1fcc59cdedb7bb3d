"""The DataTree of draws, the same for every method: build, check, save, load. The schema stands in docs/schema.md."""

import contextlib
import datetime
import functools
import importlib.metadata
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array, random

from ..data import Dataset
from ..densities import mixture
from ..errors import InputError
from ..model import reordering
from ..model.posterior import Arrays, Parameters, Posterior
from . import prior
from ._check import DIMENSIONS, SPREADS, check

_PACKAGES = ("dpgmm-suite", "jax", "numpyro", "optax", "numpy", "scipy", "arviz-stats", "xarray")
_version = functools.cache(importlib.metadata.version)  # A millisecond each, which every fit asks for several times.
LARGE, SHOWN = 1_000_000, 100_000
"""Points above which draws keep a random sample of them, of this size, for diagnoses, pictures and predictions."""


def build(
    posterior: Posterior,
    parameters: Parameters,
    *,
    compile_seconds: float = 0.0,
    run_seconds: float = 0.0,
    moves_labels: bool = False,
    chosen: Mapping[str, Any] | None = None,
    sample_stats: Mapping[str, np.ndarray] | None = None,
    optimisation: xr.Dataset | None = None,
) -> xr.DataTree:
    """DataTree of draws. `parameters` are arrays with leading axes (chain, draw); `sample_stats` are (chain, draw).

    Components, log joint, log likelihood and three counts are computed here, for every method alike, from the
    responsibilities r_nk of the draw's components for the points that the method saw, of weights omega_n:

    - `active_components`: those expected to hold at least one point, ``sum_n omega_n r_nk >= 1``;
    - `expected_clusters`: the expected number of components that hold a point, ``sum_k 1 - prod_n (1 - r_nk)^omega_n``;
    - `occupied_clusters`: that number in one allocation of the points drawn from r_nk, so that its distribution over
      draws is the posterior of the number of clusters. A method that allocates points itself hands in its own. Points of
      weights other than one stand for many: then each component is occupied with the probability above, independently of
      the others, as it would be for a Poisson number of points.

    `moves_labels`: the method draws the labels from their posterior, by moves or by a rule, such as order of appearance.
    `chosen`: options that the method chose itself, as its defaults do not say what they became. Which method it was, its
    options and its seed are recorded by `dpgmm.fit`.
    """
    summaries = _summaries(posterior, parameters)
    stats = {name: (("chain", "draw"), np.asarray(v)) for name, v in (summaries | dict(sample_stats or {})).items()}
    groups = {
        "posterior": components_dataset(posterior, parameters, ("chain", "draw")),
        "sample_stats": xr.Dataset(stats),
        "observed_data": observed(posterior.data),
    }
    if optimisation is not None:
        groups["optimisation"] = optimisation
    columns = posterior.data.columns
    tree = xr.DataTree.from_dict({name: with_coordinates(group, columns) for name, group in groups.items()})
    for name in ("posterior", "sample_stats", "observed_data"):
        tree[name].attrs |= made_by()
    tree.attrs = {
        "model": posterior.name,
        "data": posterior.data.name,
        "options": json.dumps({"model": posterior.options, "method": dict(chosen or {})}),
        "prior": prior.serialised(posterior.conjugate),
        "versions": json.dumps(versions()),
        "device": jax.devices()[0].device_kind,
        "compile_seconds": compile_seconds,
        "run_seconds": run_seconds,
        "exchangeable_labels": int(exchangeable_labels(posterior, parameters)),
        "moves_labels": int(moves_labels),
    }
    return tree


def components_dataset(posterior: Posterior, parameters: Parameters, leading: tuple[str, ...]) -> xr.Dataset:
    """Weights, means, covariances as in `SPREADS`, and the concentration where the model has one, under `leading`."""
    shape = jax.tree.leaves(parameters)[0].shape[: len(leading)]
    # Not -1: the sticks of one component are no numbers, which could be any number of draws.
    flat = jax.tree.map(lambda a: a.reshape(math.prod(shape), *a.shape[len(leading) :]), parameters)
    every = lambda p: jax.lax.map(posterior.smallest_components, p)
    components = posterior.compile("components", every, flat)[0](flat)
    weights, means, spread = (np.asarray(a).reshape(*shape, *a.shape[1:]) for a in components)
    arrays = {"weights": weights, "means": means}
    if "concentration" in parameters:
        arrays["concentration"] = np.asarray(parameters["concentration"])
    dataset = xr.Dataset({name: ((*leading, *DIMENSIONS[name]), array) for name, array in arrays.items()})
    form = _form(weights, means, spread)
    name, dimensions = SPREADS[form]
    stored = spread[..., 0, :, :] if form == "tied" else spread[..., 0] if form == "spherical" else spread
    return dataset.assign({name: ((*leading, *dimensions), stored)})


def spread(dataset: xr.Dataset) -> np.ndarray:
    """Covariances of a group in the schema as stored, with the axis of components: a view, nothing is expanded.

    Shape of the weights ``(..., K)`` and then ``(D, D)``, full; ``(D,)``, variances; or nothing, one variance for all
    dimensions. Where all components share a covariance it is ``(..., 1, D, D)``.
    """
    if "covariances" not in dataset:
        return dataset["variances"].values
    values = dataset["covariances"].values
    return values if "component" in dataset["covariances"].dims else values[..., None, :, :]


def covariances(dataset: xr.Dataset) -> np.ndarray:
    """Covariances of a group in the schema, ``(..., K, D, D)``, however they are stored; expanded, so ask for few."""
    return expanded(spread(dataset), dataset["means"].values)


def expanded(stored: np.ndarray, means: np.ndarray) -> np.ndarray:
    """`spread` of components with these means ``(..., K, D)`` as matrices, ``(..., K, D, D)``."""
    dim = means.shape[-1]
    if stored.ndim > means.ndim:
        return np.broadcast_to(stored, (*means.shape, dim))
    variances = stored if stored.ndim == means.ndim else stored[..., None]
    return np.broadcast_to(variances, means.shape)[..., None] * np.eye(dim)


def _form(weights: np.ndarray, means: np.ndarray, spread: np.ndarray) -> str:
    """Type of covariance, from shapes."""
    if spread.ndim > means.ndim:
        return "tied" if spread.shape[-3] == 1 < weights.shape[-1] else "full"
    return "spherical" if spread.shape[-1] == 1 else "diagonal"


def paths(posterior: Posterior, loss: np.ndarray, history: Parameters, steps: np.ndarray) -> xr.Dataset:
    """The `optimisation` group: `loss` (chain, step), NaN after a path has stopped, and components at some `steps`."""
    snapshots = components_dataset(posterior, history, ("chain", "snapshot"))
    return snapshots.assign(loss=(("chain", "step"), loss)).assign_coords(snapshot_step=("snapshot", steps))


def observed(data: Dataset, *, whole: bool = True) -> xr.Dataset:
    """The `observed_data` group: points and point weights; of very many, unless `whole`, of a sample of the `rows`."""
    shown = data if whole or data.size <= LARGE else data.sample(SHOWN)
    group = xr.Dataset({"points": (("obs", "dim"), shown.points), "point_weights": ("obs", shown.weights)})
    return group if shown is data else group.assign_attrs(rows=data.size)


def save(draws: xr.DataTree, path: str | Path) -> Path:
    """Write NetCDF, whole or not at all. Returns the path. Raises `InputError` where there is no room or no right to."""
    path = Path(path)
    # In memory first: HDF5 ends the process where a disk is full.
    content = io.BytesIO()
    draws.to_netcdf(content, engine="h5netcdf")  # pyright: ignore[reportArgumentType]  # takes files, too
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.getvalue())
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); make room, or choose another place") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> xr.DataTree:
    """Read and check a file written by `save`, or by anybody who keeps the schema. Raises `InputError`."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .nc file, such as `dpgmm compare` leaves in its run folder")
    return check(_renamed(read(path, "h5netcdf")), str(path))


def read(path: Path, engine: str | None = None) -> xr.DataTree:
    """What a NetCDF file holds, by xarray's `engine`. Raises `InputError` for other files."""
    try:
        with xr.open_datatree(path, engine=engine) as tree:
            return tree.load()
    except Exception as error:
        raise InputError(f"{path}: not a NetCDF file of draws ({type(error).__name__}: {error})") from error


def _renamed(draws: xr.DataTree) -> xr.DataTree:
    """Draws of the schema's first version in today's names: what ArviZ would have taken for pointwise or for parameters."""
    posterior, stats = (draws[n].to_dataset() if n in draws.children else None for n in ("posterior", "sample_stats"))
    if posterior is not None and "allocations" in posterior and posterior["allocations"].dims[-1:] == ("obs",):
        stats = (xr.Dataset() if stats is None else stats).assign(allocations=posterior["allocations"])
        draws["posterior"].dataset = posterior.drop_vars("allocations")
    if stats is None:
        return draws
    if "log_likelihood" in stats and set(stats["log_likelihood"].dims) <= {"chain", "draw"}:
        stats = stats.rename(log_likelihood="total_log_likelihood")
    if "sample_stats" in draws.children:
        draws["sample_stats"].dataset = stats
    else:
        draws["sample_stats"] = xr.DataTree(stats)
    return draws


def best_chain(draws: xr.DataTree) -> int:
    """The chain with the highest evidence lower bound, where a method has one, else with the highest log joint."""
    if "elbo" in draws.attrs:
        return int(np.argmax(np.nan_to_num(np.atleast_1d(draws.attrs["elbo"]), nan=-np.inf)))
    return int(log_joint_of(draws).max(axis=1).argmax())


def log_joint_of(draws: xr.DataTree) -> np.ndarray:
    """Log joint ``(chain, draw)``, minus infinity where it is no number; zeros where the draws do not record it."""
    stats = draws["sample_stats"].to_dataset() if "sample_stats" in draws.children else {}
    if "log_joint" in stats:
        return np.nan_to_num(stats["log_joint"].values, nan=-np.inf, neginf=-np.inf, posinf=np.inf)
    return np.zeros(draws["posterior"].to_dataset()["weights"].shape[:2])


def data_of(draws: xr.DataTree) -> Dataset:
    """The observed points with their weights, one each where none are recorded."""
    observed = draws["observed_data"].to_dataset()
    weights = observed["point_weights"].values if "point_weights" in observed else None
    return Dataset(observed["points"].values, weights)  # pyright: ignore[reportArgumentType]


def kind(draws: xr.DataTree) -> str:
    """``"point"``, ``"guide"`` or ``"sampler"``: as recorded, else by what the draws carry."""
    if "kind" in draws.attrs:
        return draws.attrs["kind"]
    if draws.attrs.get("point_estimate", 0):
        return "point"
    weighed = "sample_stats" in draws.children and "log_weight" in draws["sample_stats"].data_vars
    return "guide" if weighed else "sampler"


def are_restarts(draws: xr.DataTree) -> bool:
    """Whether chains are restarts of an optimiser, each with an answer of its own: of a point estimate or a guide."""
    return "optimisation" in draws.children or kind(draws) != "sampler"


def answer(draws: xr.DataTree) -> xr.DataTree:
    """What a user would take from the draws: all chains of a sampler, the best restart of an optimiser."""
    if not are_restarts(draws):
        return draws
    best = best_chain(draws)
    groups = {name: g.to_dataset() for name, g in draws.children.items()}
    tree = xr.DataTree.from_dict({n: g.isel(chain=[best]) if "chain" in g.dims else g for n, g in groups.items()})
    tree.attrs = dict(draws.attrs)
    if "elbo" in draws.attrs:
        tree.attrs["elbo"] = np.atleast_1d(draws.attrs["elbo"])[[best]]
    return tree


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    return {name: _version(name) for name in _PACKAGES}


def exchangeable_labels(posterior: Posterior, parameters: Parameters) -> bool:
    """Whether the prior is the same under every order of the components.

    Known where the prior is conjugate: Dirichlet weights are exchangeable, sticks are not. Otherwise the log prior of the
    first draw, `parameters` having leading axes (chain, draw), is compared with that of two reorderings, where the sites are
    of names that can be reordered; False where they are not.
    """
    if posterior.conjugate is not None:
        return posterior.conjugate.weights == "dirichlet"
    first = jax.tree.map(lambda leaf: leaf[0, 0], parameters)
    try:
        reordering.check(posterior, posterior.unconstrain(first))
    except InputError:
        return False
    size = posterior.mixture(first).log_weights.shape[0]
    value = float(posterior.log_prior(first))
    others = [
        float(posterior.log_prior(reordering.reordered(first, order, posterior)))
        for order in (jnp.arange(size)[::-1], jnp.roll(jnp.arange(size), 1))
    ]
    return bool(np.allclose(others, value, rtol=1e-5, atol=1e-3))


def _summaries(posterior: Posterior, parameters: Parameters) -> dict[str, np.ndarray]:
    """Log joint, log likelihood and the three counts of every draw, streamed over draws."""
    whole = bool((posterior.data.weights == 1).all())

    def one(key: Array, draw: Parameters, data: Arrays) -> dict[str, Array]:
        key_points, key_components = random.split(key)
        found = mixture.occupancy(key_points, *posterior.mixture(draw), *data)
        held = -jnp.expm1(found.log_empty)
        occupied = found.drawn > 0 if whole else random.uniform(key_components, held.shape, held.dtype) < held
        return {
            "log_joint": posterior.log_prior(draw) + found.log_likelihood,
            "total_log_likelihood": found.log_likelihood,
            "active_components": jnp.sum(found.counts >= 1),
            "expected_clusters": jnp.sum(held),
            "occupied_clusters": jnp.sum(occupied),
        }

    of_chain = lambda chain, data: jax.lax.map(lambda draw: one(draw[0], draw[1], data), chain)
    every = lambda keys, p, data: jax.lax.map(lambda chain: of_chain(chain, data), (keys, p))
    keys = random.split(random.PRNGKey(0), jax.tree.leaves(parameters)[0].shape[:2])
    arguments = keys, parameters, posterior.arrays()
    return jax.device_get(posterior.compile(("summaries", whole), every, *arguments)[0](*arguments))


def with_coordinates(group: xr.Dataset, columns: Sequence[str] = ()) -> xr.Dataset:
    """The same group with coordinates on every dimension: counted, but for the data's own `columns`, where they have any.

    More than `LARGE` rows are not counted: their numbers would take as much memory as one of the columns.
    """
    missing = [d for d in group.dims if d not in group.coords and not (d == "obs" and group.sizes[d] > LARGE)]
    named = lambda d: columns and d in ("dim", "dim_")
    return group.assign_coords({d: list(columns) if named(d) else np.arange(group.sizes[d]) for d in missing})


def made_by() -> dict[str, str]:
    """The attributes by which ArviZ tells where a group comes from."""
    library = {"inference_library": "dpgmm", "inference_library_version": versions()["dpgmm-suite"]}
    return {"created_at": datetime.datetime.now(datetime.UTC).isoformat(), **library}
