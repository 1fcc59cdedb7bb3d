"""Whether a tree keeps the schema: names, dimensions, types and ranges, looked at once, when it is loaded."""

import json

import numpy as np
import xarray as xr

from ..data.dataset import LARGEST, ROWS
from ..errors import InputError
from . import prior, spreads

DIMENSIONS = {
    "weights": ("component",),
    "means": ("component", "dim"),
    "concentration": (),
}
SPREADS = {
    "full": ("covariances", ("component", "dim", "dim_")),
    "tied": ("covariances", ("dim", "dim_")),
    "diagonal": ("variances", ("component", "dim")),
    "spherical": ("variances", ("component",)),
}
"""How covariances are stored: in the smallest form of their type."""
OFF = 1e-3
"""How far the weights of a draw may be from a sum of one."""
STATS = (
    *("log_joint", "total_log_likelihood", "log_weight", "active_components", "expected_clusters", "occupied_clusters"),
    *("label_moves", "diverging"),
)
"""Statistics that are read later on: one number a draw."""
RECORDS = {"options": dict, "versions": dict, "compression": dict, "columns": list}
"""Attributes that are JSON, and of which kind."""
FLAGS = "exchangeable_labels", "moves_labels", "untruncated", "point_estimate", "compile_seconds", "run_seconds"
POINTS = "give the points that were fitted, by points= of dpgmm.from_draws or of --names"
KINDS = "point", "guide", "sampler"


def check(draws: xr.DataTree, where: str = "draws") -> xr.DataTree:
    """The same tree, or an `InputError` that names the first thing that the schema misses, with its place."""
    if "posterior" in draws.children and {"means", "allocations"} & set(draws["posterior"].data_vars) == {
        "allocations"
    }:
        raise InputError(f"{where}: labels alone, no components; they serve dpgmm.partition and relabelling by labels")
    for group, remedy in (("posterior", "take draws from elsewhere by dpgmm.from_draws"), ("observed_data", POINTS)):
        if group not in draws.children:
            found = ", ".join(draws.children) or "none"
            raise InputError(f"{where}: no group {group!r} (found {found}); see docs/schema.md, or {remedy}")
    posterior = draws["posterior"].to_dataset()
    stored = "covariances" if "covariances" in posterior or "variances" not in posterior else "variances"
    for name in ("weights", "means", stored):
        known = [d for n, d in SPREADS.values() if n == name] or [DIMENSIONS[name]]
        _check_dimensions(posterior, name, known, where)
        _check_numbers(posterior[name], f"{where}: posterior/{name}", "remove or refit the broken chain")
    _check_weights(posterior["weights"].values, where)
    _check_spread(posterior[stored], f"{where}: posterior/{stored}")
    if "concentration" in posterior:
        _check_dimensions(posterior, "concentration", [()], where)
        _check_numbers(posterior["concentration"], f"{where}: posterior/concentration", "refit the broken chain")
        if not (posterior["concentration"].values > 0).all():
            raise InputError(f"{where}: posterior/concentration is not positive everywhere; refit the broken chain")
    _check_observed(draws["observed_data"].to_dataset(), posterior, where)
    for group in ("posterior", "sample_stats"):
        if group in draws.children and "allocations" in draws[group].data_vars:
            _check_allocations(draws[group].to_dataset()["allocations"], draws, f"{where}: {group}/allocations")
    if "sample_stats" in draws.children:
        _check_stats(draws["sample_stats"].to_dataset(), posterior, where)
    _check_attributes(draws, where)
    return draws


def _check_dimensions(dataset: xr.Dataset, name: str, known: list[tuple[str, ...]], where: str) -> None:
    found, wanted = dataset[name].dims if name in dataset else None, [("chain", "draw", *d) for d in known]
    if found not in wanted:
        expected = " or ".join(map(str, wanted))
        raise InputError(f"{where}: posterior/{name} has dimensions {found}, expected {expected}; see docs/schema.md")
    if 0 in dataset[name].shape:
        empty = dataset[name].dims[dataset[name].shape.index(0)]
        raise InputError(f"{where}: posterior/{name} has no {empty}; give at least one")


def _check_numbers(variable: xr.DataArray, what: str, remedy: str) -> None:
    if variable.dtype.kind not in "iuf":
        raise InputError(f"{what} holds {variable.dtype}, not numbers; {remedy}")
    for start in range(0, len(variable), ROWS):
        values = variable.values[start : start + ROWS]
        if not np.isfinite(values).all():
            raise InputError(f"{what} is not finite everywhere; {remedy}")
        if np.abs(values.astype(float)).max(initial=0) > LARGEST:
            raise InputError(f"{what} holds numbers beyond {LARGEST:g}; {remedy}")


def _check_weights(weights: np.ndarray, where: str) -> None:
    if (weights < 0).any():
        chain, draw, k = np.argwhere(weights < 0)[0]
        raise InputError(
            f"{where}: posterior/weights of chain {chain}, draw {draw}, component {k} is {weights[chain, draw, k]:.4g};"
            " weights are shares, and log weights are taken by dpgmm.from_draws(..., log_weights=...)"
        )
    total = weights.sum(axis=-1)
    if (np.abs(total - 1) > OFF).any():
        chain, draw = np.argwhere(np.abs(total - 1) > OFF)[0]
        raise InputError(
            f"{where}: posterior/weights of chain {chain}, draw {draw} sum to {total[chain, draw]:.4g}, not to one; divide"
            " them by their sum, or take them by dpgmm.from_draws"
        )


def _check_spread(stored: xr.DataArray, what: str) -> None:
    values = stored.values
    if stored.dims[-1] != "dim_":
        if not (values > 0).all():
            raise InputError(f"{what} holds {values.min():.4g}; variances must be positive")
        return
    if values.shape[-1] != values.shape[-2]:
        raise InputError(f"{what} are {values.shape[-2]} x {values.shape[-1]} matrices; covariances are square")
    variances = np.diagonal(values, axis1=-2, axis2=-1)
    if not (variances > 0).all():
        raise InputError(f"{what} has variances of {variances.min():.4g}; they must be positive")
    for remedy, right in (("symmetric", spreads.are_symmetric), ("positive definite", spreads.are_positive_definite)):
        if not right(values):
            raise InputError(f"{what} are not all {remedy}, as covariances are; refit the broken chain")


def _check_observed(observed: xr.Dataset, posterior: xr.Dataset, where: str) -> None:
    if "points" not in observed or observed["points"].dims != ("obs", "dim"):
        raise InputError(f"{where}: observed_data/points must have dimensions ('obs', 'dim'); see docs/schema.md")
    _check_numbers(observed["points"], f"{where}: observed_data/points", "give the points as they were fitted")
    if 0 in observed["points"].shape:
        raise InputError(f"{where}: observed_data/points has shape {observed['points'].shape}; give at least one point")
    if observed.sizes["dim"] != posterior.sizes["dim"]:
        raise InputError(
            f"{where}: points of {observed.sizes['dim']} dimensions and means of {posterior.sizes['dim']}; they must agree"
        )
    if "point_weights" in observed:
        omega = observed["point_weights"]
        if omega.dims != ("obs",):
            raise InputError(f"{where}: observed_data/point_weights has dimensions {omega.dims}, expected ('obs',)")
        _check_numbers(omega, f"{where}: observed_data/point_weights", "give a weight for each point")
        if (omega.values < 0).any() or not omega.values.any():
            raise InputError(f"{where}: observed_data/point_weights must be 0 or more, and not all 0")


def _check_allocations(labels: xr.DataArray, draws: xr.DataTree, what: str) -> None:
    sizes = draws["posterior"].sizes
    if labels.dims != ("chain", "draw", "obs") or labels.shape[:2] != (sizes["chain"], sizes["draw"]):
        raise InputError(f"{what} has dimensions {dict(labels.sizes)}, expected chain, draw, obs as the posterior has")
    if labels.sizes["obs"] != draws["observed_data"].sizes["obs"]:
        raise InputError(
            f"{what} has {labels.sizes['obs']} observations; there are {draws['observed_data'].sizes['obs']}"
        )
    _check_numbers(labels, what, "give whole numbers")
    values = labels.values
    if (values != np.floor(values)).any() or values.min() < 0 or values.max() >= sizes["component"]:
        raise InputError(
            f"{what} holds {values.min():g} to {values.max():g}; expected whole numbers from 0 to {sizes['component'] - 1}"
        )


def _check_stats(stats: xr.Dataset, posterior: xr.Dataset, where: str) -> None:
    sample, shape = ("chain", "draw"), posterior["weights"].shape[:2]
    for name, variable in stats.data_vars.items():
        if name in STATS and variable.dims != sample:
            raise InputError(
                f"{where}: sample_stats/{name} has dimensions {variable.dims}, expected {sample}; see docs/schema.md"
            )
        if variable.dims[:2] == sample and variable.shape[:2] != shape:
            raise InputError(f"{where}: sample_stats/{name} has shape {variable.shape}, and there are {shape} draws")
        if variable.dtype.kind not in "biufc":
            raise InputError(f"{where}: sample_stats/{name} holds {variable.dtype}, not numbers; leave it out")


def _check_attributes(draws: xr.DataTree, where: str) -> None:
    for name, kind in RECORDS.items():
        told = draws.attrs.get(name) or json.dumps(kind())
        try:
            right = isinstance(json.loads(told), kind)
        except (TypeError, ValueError):
            right = False
        if not right:
            raise InputError(f"{where}: attribute {name} is {str(told)[:40]!r}, not a JSON {kind.__name__}; remove it")
    try:
        prior.of(draws)
    except Exception as error:  # A record may be wrong in many ways.
        raise InputError(
            f"{where}: attribute prior is not the record of one ({type(error).__name__}); remove it"
        ) from error
    if draws.attrs.get("kind", "sampler") not in KINDS:
        raise InputError(f"{where}: attribute kind is {draws.attrs['kind']!r}; it is one of {', '.join(KINDS)}")
    for name in FLAGS:
        value = np.asarray(draws.attrs.get(name, 0))
        if value.dtype.kind not in "biuf" or value.ndim:
            raise InputError(f"{where}: attribute {name} is {draws.attrs[name]!r}, not a number; remove it")
    elbo, chains = np.atleast_1d(draws.attrs.get("elbo", 0.0)), draws["posterior"].sizes["chain"]
    if elbo.dtype.kind not in "iuf" or ("elbo" in draws.attrs and len(elbo) != chains):
        raise InputError(f"{where}: attribute elbo has {elbo.size} entries, and there are {chains} chains; remove it")
