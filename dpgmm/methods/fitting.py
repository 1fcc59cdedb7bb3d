"""fit(): a method by name, on compressed data where that helps and is certified, with everything recorded."""

import hashlib
import json
import math
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax import Array

from .. import draws
from ..data import Dataset
from ..data.compression import NODES, Binned, compress, default_bin_width
from ..data.dataset import ROWS
from ..densities import passes
from ..errors import InputError, above, at_least
from ..model.posterior import Posterior
from . import certificate
from ._blocks import Blocks, kept_in
from ._method import Method
from ._run import Deadline, Progress, until
from .registry import find, returned

WORTHWHILE = 0.5
"""Compression must leave less than this share of the points, or the full data are used."""
EXACTLY = 2**17
"""Points up to which the certificate evaluates the exact log likelihood, which of more would take longer than the method."""
FINER = 16
"""How many times narrower the bins of the compression are that takes their place, but for the bound on its own error."""
MOST_NODES = 5
"""Nodes a bin has at most: where they do not do, components are as narrow as bins."""
_FINER: "weakref.WeakKeyDictionary[Dataset, Binned]" = weakref.WeakKeyDictionary()
"""It takes a pass over all points, and serves every method."""


def fit(
    posterior: Posterior,
    method: str | Path | Method,
    *,
    seed: int = 0,
    compression: bool = True,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
    blocks: str | Path | None = None,
    time_budget: float | None = None,
    single_precision: bool = False,
    **options: Any,
) -> xr.DataTree:
    """Draws of `posterior` by `method`: a name, the path of a method file, or a `Method`; `options` are its own.

    Where D = 1 and it saves at least half of the points, the method runs on a compressed data set, and the exact log
    likelihood is then evaluated at draws it produced, of more than `EXACTLY` points that of a finer compression with a bound
    on its error (`dpgmm.certificate`). If the difference exceeds `tolerance` (nats), bins get more nodes, then become
    narrower, and the method runs again, at the limit on the full data. The attribute `compression` records what was
    achieved. Methods that allocate points always see the full data: a point cannot be half in one cluster.
    Same seed, same machine: bit-identical draws.

    `blocks`: a folder in which samplers keep their draws while they run. Called again with the same folder, a fit that
    was cut off goes on where its blocks end, to the same draws; they are removed once it is done. `time_budget`: seconds,
    compilation among them, after which a method ends with what it has, which the attribute `stopped` says; a sampler
    that is still warming up by then has nothing. `single_precision`: pairs of points and components are evaluated in
    float32, which is faster, and moves the log likelihood by about 1e-7 to 1e-6 nats a point (docs/scaling.md); for `map`,
    `svi`, `nuts` with moves "none" or "swaps", and the allocations of `blocked_gibbs`. Other methods and moves, and what
    draws tell of themselves, stay in float64. The attribute `single_precision` says that it was asked for.
    Raises `InputError` for an unknown method or option, and where a
    method's file fails or returns no draws, where the time is over in warm-up, and for blocks of another fit.

    Examples:
        >>> mode = dpgmm.fit(posterior, "map", restarts=1, steps=50)
        >>> dict(mode["posterior/means"].sizes)
        {'chain': 1, 'draw': 1, 'component': 3, 'dim': 1}
    """
    if not isinstance(posterior, Posterior):
        raise InputError(f'fit takes a posterior, not {type(posterior).__name__}: load_model("stick_breaking")(data)')
    at_least("fit", 0, seed=seed)
    if seed >= 2**32:
        raise InputError(f"fit option seed = {seed}: it must be below 2^32")
    above(0, tolerance=tolerance)
    above(0, **({} if time_budget is None else {"time_budget": time_budget}))
    found = find(method, options)
    found.checked(posterior)
    key = jax.random.PRNGKey(seed)
    deadline = Deadline(math.inf if time_budget is None else time_budget)
    for smaller, record, full in _candidates(posterior.data, compression=compression and not found.allocates):
        with passes.single_precision(on=single_precision), until(deadline):
            held = None if blocks is None else _blocks_of(blocks, found, posterior.on(smaller), seed, options)
            with kept_in(held):
                tree = run(found, posterior.on(smaller), key, progress, **options)
        if held is not None:
            held.remove()
        if smaller is not posterior.data:
            record["max_error"] = certificate.largest_error(tree, full, smaller)
            record["tolerance"] = tolerance
            if not record["max_error"] <= tolerance:
                continue
        seen = draws.observed(posterior.data, whole="allocations" in tree["sample_stats"])
        seen = draws.with_coordinates(seen, posterior.data.columns).assign_attrs(draws.made_by() | seen.attrs)
        tree["observed_data"] = xr.DataTree(seen)
        if deadline.met:
            tree.attrs["stopped"] = f"after {time_budget:g} s, the time that it had"
        if single_precision:
            tree.attrs["single_precision"] = 1
        tree.attrs |= {"seed": seed, "data": posterior.data.name, "compression": json.dumps(record)}
        return tree
    raise AssertionError("the full data are the last candidate")


def _blocks_of(folder: str | Path, method: Method, posterior: Posterior, seed: int, options: dict[str, Any]) -> Blocks:
    """Where this fit to these data keeps its blocks."""
    data = posterior.data
    told = hashlib.sha256()
    for array in (data.points, data.weights):
        for start in range(0, data.size, ROWS):  # A copy of all of them may find no room.
            told.update(array[start : start + ROWS].tobytes())
    record = {
        "method": method.name,
        "method_options": method.bound(options),
        "seed": seed,
        "model": posterior.name,
        "model_options": posterior.options,
        "data": told.hexdigest(),
        "versions": draws.versions(),
        "precision": str(jax.dtypes.canonicalize_dtype(float)) + passes.in_single_precision() * ", pairs in float32",
    }
    return Blocks(Path(folder) / f"{method.name}-{data.size}", record)


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
    told = {"sampling_time": tree.attrs["run_seconds"]}
    if "warmup" in options["method"]:
        told["tuning_steps"] = options["method"]["warmup"]
    tree["posterior"].attrs |= told
    tree["sample_stats"].attrs |= told
    tree.attrs |= {
        "method": method.name,
        "kind": method.kind,
        "point_estimate": int(method.kind == "point"),
        "untruncated": int(method.target == "process"),
        "options": json.dumps(options, default=str),
        "columns": json.dumps(posterior.data.columns),
    }
    return tree


def _candidates(data: Dataset, *, compression: bool) -> Iterator[tuple[Dataset, dict[str, Any], Dataset | Binned]]:
    """Ever finer compressions while they are worthwhile, then the data, each with its record and what certifies it."""
    if compression and data.dim == 1:
        finer = None if data.size <= EXACTLY else _finer(data)
        width, nodes = default_bin_width(data) if finer is None else finer.width * FINER, NODES
        full = data if finer is None or finer.data.size > WORTHWHILE * data.size else finer
        source = full.data if isinstance(full, Binned) else full
        for refinements in range(12):
            smaller = compress(source, width, nodes)
            if smaller.size > WORTHWHILE * source.size:
                break
            record = {"points": smaller.size, "bin_width": width, "nodes": nodes, "refinements": refinements}
            yield smaller, record | ({} if full is data else {"beside_points": source.size}), full
            # The error falls with the width to the power 2 q: another node of each bin does more than half as wide bins.
            width, nodes = (width, nodes + 1) if nodes < MOST_NODES else (width / 2, nodes)
    yield data, {}, data


def _finer(data: Dataset) -> Binned:
    """The compression that certifies others, by bins of a `FINER`th of the default width, made once for a data set."""
    if data not in _FINER:
        _FINER[data] = Binned.of(data, default_bin_width(data) / FINER)
    return _FINER[data]
