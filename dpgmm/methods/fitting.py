"""fit(): a method by name, on compressed data where that helps and is certified, with everything recorded."""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax import Array

from .. import draws
from ..data import Dataset
from ..data.compression import compress, default_bin_width
from ..errors import InputError, at_least
from ..model.posterior import Posterior
from . import certificate
from ._method import Method
from ._run import Progress
from .registry import find, returned

WORTHWHILE = 0.5
"""Compression must leave less than this share of the points, or the full data are used."""


def fit(
    posterior: Posterior,
    method: str | Path | Method,
    *,
    seed: int = 0,
    compression: bool = True,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
    **options: Any,
) -> xr.DataTree:
    """Draws of `posterior` by `method`: a name, the path of a method file, or a `Method`; `options` are its own.

    Where D = 1 and it saves at least half of the points, the method runs on a compressed data set, and the exact log
    likelihood is then evaluated at draws it produced. If the difference exceeds `tolerance` (nats), the bins are halved and
    the method runs again, at the limit on the full data. The attribute `compression` records what was achieved. Methods
    that allocate points always see the full data: a point cannot be half in one cluster.
    Same seed, same machine: bit-identical draws. Raises `InputError` for an unknown method or option, and where a
    method's file fails or returns no draws.
    """
    if not isinstance(posterior, Posterior):
        raise InputError(f'fit takes a posterior, not {type(posterior).__name__}: load_model("stick_breaking")(data)')
    at_least("fit", 0, seed=seed)
    found = find(method, options)
    found.checked(posterior)
    key = jax.random.PRNGKey(seed)
    for smaller, record in _candidates(posterior.data, compression and not found.allocates):
        tree = run(found, posterior.on(smaller), key, progress, **options)
        if smaller is not posterior.data:
            record["max_error"] = certificate.largest_error(tree, posterior.data, smaller)
            record["tolerance"] = tolerance
            if not record["max_error"] <= tolerance:
                continue
        tree["observed_data"] = xr.DataTree(draws.with_coordinates(draws.observed(posterior.data)))
        tree.attrs |= {"seed": seed, "data": posterior.data.name, "compression": json.dumps(record)}
        return tree
    raise AssertionError("the full data are the last candidate")


def run(
    method: Method, posterior: Posterior, key: Array, progress: Progress | None = None, **given: Any
) -> xr.DataTree:
    """Draws by `method` of exactly this posterior, and where they come from: the method and the options that it ran with."""
    begun = time.perf_counter()
    tree = returned(method.run(posterior, key, progress=progress, **given), method)
    if not tree.attrs["run_seconds"]:  # It did not say.
        tree.attrs["run_seconds"] = time.perf_counter() - begun - tree.attrs["compile_seconds"]
    if method.kind == "guide" and "elbo" not in tree.attrs:
        tree.attrs["elbo"] = np.asarray(tree["sample_stats"]["log_weight"]).mean(axis=1)
    options = json.loads(tree.attrs["options"])
    options["method"] = method.bound(given) | options["method"]
    tree.attrs |= {
        "method": method.name,
        "kind": method.kind,
        "point_estimate": int(method.kind == "point"),
        "untruncated": int(method.target == "process"),
        "options": json.dumps(options, default=str),
        "columns": json.dumps(posterior.data.columns),
    }
    return tree


def _candidates(data: Dataset, compression: bool):
    """Ever finer compressions while they are worthwhile, then the data themselves, each with its record."""
    width = default_bin_width(data) if data.dim == 1 else 0.0
    for refinements in range(12 if compression and data.dim == 1 else 0):
        smaller = compress(data, width)
        if smaller.size > WORTHWHILE * data.size:
            break
        yield smaller, {"points": smaller.size, "bin_width": width, "nodes": 3, "refinements": refinements}
        width /= 2
    yield data, {}
