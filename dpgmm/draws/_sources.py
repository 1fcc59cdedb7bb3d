"""Arrays by name, ``(chain, draw, ...)``, from wherever draws come: files, trees, dicts, NumPyro's MCMC, CmdStan's CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ..data._source import source
from ..errors import InputError
from . import _cmdstan, _roles, schema

ORDERS = "chain draw", "draw chain", "draw"
"""Leading axes of arrays in a dict: ArviZ's, TensorFlow Probability's, and one chain or chains one after the other."""
CHAINS, TIMES = 16, 5
"""Of two leading axes the second is the chains' where it is no longer than this, and the first so many times longer."""
DIMENSIONS = {
    "chain": ("chain", "chains", "chain_id", "chain__", ".chain"),
    "draw": ("draw", "draws", "iteration", "iterations", "iter", "sample", "samples", "draw_id", "draw__", ".draw"),
}
"""What dimensions of chains and draws are called."""


class Arrays(NamedTuple):
    """Draws by name ``(chain, draw, ...)``, statistics of the sampler likewise, and what was observed.

    `notes`: what was guessed or left out; `first_label`: the number of the first component, where the source tells.
    """

    draws: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    observed: dict[str, np.ndarray]
    notes: list[str]
    first_label: int | None = None


def arrays(given: Any, order: str | None, told: Mapping[str, str], data: str | None = None) -> Arrays:
    """The arrays of a source, in a dict of which `data` names the points. Raises `InputError` for what is none."""
    if order is not None and order not in ORDERS:
        raise InputError(f"order = {order!r}: give one of {', '.join(map(repr, ORDERS))}")
    if isinstance(given, str | Path):
        return _file([Path(given)], order, told, data)
    if isinstance(given, Sequence) and given and all(isinstance(one, str | Path) for one in given):
        return _file([Path(one) for one in given], order, told, data)
    if isinstance(given, xr.DataTree):
        groups = {name: group.to_dataset() for name, group in given.children.items()}
        return _tree(groups or {"posterior": given.to_dataset()})
    if isinstance(given, xr.Dataset):
        return _tree({"posterior": given})
    if isinstance(given, Mapping):
        return _mapping(given, order, told, data)
    if callable(getattr(given, "get_samples", None)):
        return _mcmc(given)
    if isinstance(getattr(given, "posterior", None), xr.Dataset):
        names = "posterior", "sample_stats", "observed_data"
        return _tree({name: getattr(given, name) for name in names if hasattr(given, name)})
    raise InputError(
        f"draws: {type(given).__name__}; give a DataTree, InferenceData or Dataset, NumPyro's MCMC, a dict of arrays, or"
        " files of CmdStan (.csv), .nc or .npz"
    )


def _mcmc(mcmc: Any) -> Arrays:
    """What an MCMC of NumPyro has drawn."""
    try:
        draws = {name: np.asarray(a) for name, a in mcmc.get_samples(group_by_chain=True).items()}
    except (AssertionError, AttributeError, TypeError) as error:
        raise InputError(f"draws: this MCMC has drawn nothing yet ({error}); call its run() first") from error
    if not draws or any(0 in a.shape[:2] for a in draws.values()):
        raise InputError("draws: this MCMC has drawn nothing yet; call its run() first")
    fields = getattr(mcmc, "get_extra_fields", lambda **_: {})(group_by_chain=True)
    stats = {name: np.asarray(a) for name, a in fields.items() if getattr(a, "ndim", 0) == 2}
    return Arrays(draws, stats, {}, [])


def _tree(groups: Mapping[str, xr.Dataset]) -> Arrays:
    """Groups of xarray, chain and draw first; what has neither holds for all draws."""
    if "posterior" not in groups or not groups["posterior"].data_vars:
        raise InputError(f"draws: no group 'posterior' with draws (found {', '.join(groups) or 'none'})")
    notes: list[str] = []
    draws = _leading(_sampled(groups["posterior"], notes))
    stats = groups.get("sample_stats", xr.Dataset())
    told = _leading(_sampled(stats, [])) if any(_dimension(stats, d) for d in DIMENSIONS) else {}
    if "allocations" in told:  # Where our own methods keep them: they are no parameters.
        draws.setdefault("allocations", told["allocations"])
    observed = groups.get("observed_data", xr.Dataset())
    return Arrays(draws, told, {str(name): v.values for name, v in observed.data_vars.items()}, notes)


def _leading(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    found = {}
    for name, variable in dataset.data_vars.items():
        own = [d for d in ("chain", "draw") if d in variable.dims]
        if len(own) == 1:
            raise InputError(f"draws: {name} has the dimension {own[0]!r} and not the other; broadcast it")
        found[str(name)] = variable.transpose(*own, ...).values
    return found


def _dimension(dataset: xr.Dataset, role: str) -> str | None:
    """The dimension of chains, or of draws, by its name."""
    return next((str(d) for d in dataset.sizes if str(d).lower() in DIMENSIONS[role]), None)


def _sampled(dataset: xr.Dataset, notes: list[str]) -> xr.Dataset:
    """A group whose dimensions of chains and draws are called so, whether they were stacked or called otherwise."""
    dataset = _unstacked(dataset, notes)
    for role in DIMENSIONS:
        if role in dataset.sizes:
            continue
        found = _dimension(dataset, role)
        if found is not None:
            dataset = dataset.drop_vars(role, errors="ignore").rename({found: role})
            notes.append(f"the dimension {found} was taken for {role}")
        elif role == "chain":
            dataset = dataset.drop_vars(role, errors="ignore").expand_dims(role)
        else:
            raise InputError(f"draws: no dimension 'draw' (found {', '.join(map(str, dataset.sizes))}); rename one")
    return dataset


def _unstacked(dataset: xr.Dataset, notes: list[str]) -> xr.Dataset:
    """Chains and draws apart where they are one dimension, as ArviZ's `extract` leaves them, with both as coordinates."""
    if not {"chain", "draw"} <= set(dataset.coords) - set(dataset.sizes):
        return dataset
    chain, draw = dataset["chain"], dataset["draw"]
    if chain.ndim != 1 or chain.dims != draw.dims:
        return dataset
    stacked = str(chain.dims[0])
    pairs = pd.MultiIndex.from_arrays([chain.values, draw.values], names=["chain", "draw"])
    flat = dataset.drop_vars([name for name, of in dataset.coords.items() if stacked in of.dims])
    if pairs.is_unique and len(pairs) == len(np.unique(chain)) * len(np.unique(draw)):
        return flat.assign_coords(xr.Coordinates.from_pandas_multiindex(pairs, stacked)).unstack(stacked)
    notes.append(f"{stacked}: not all draws of every chain, taken for the draws of one chain")
    return flat.rename({stacked: "draw"})


def _mapping(given: Mapping[Any, Any], order: str | None, told: Mapping[str, str], data: str | None) -> Arrays:
    """Arrays by name: those that begin with the leading axes of the weights, or labels, are draws."""
    notes: list[str] = []
    found = {str(name): _rectangular(values, str(name), notes) for name, values in given.items()}
    name = data or "points"
    observed = {name: found.pop(name)} if name in found and name not in told.values() else {}
    roles = _roles.chosen(told, found, [])
    anchor = next((roles[role] for role in (*_roles.MIXING, "allocations") if role in roles), None)
    if anchor is None:
        return Arrays(found, {}, observed, notes)
    shape = found[anchor].shape
    order = order or _guessed_order(anchor, shape, notes)
    leading = shape[: len(order.split())]
    put = {"draw chain": lambda a: np.swapaxes(a, 0, 1), "draw": lambda a: a[None]}.get(order, lambda a: a)
    draws = {name: put(a) if a.shape[: len(leading)] == leading else a for name, a in found.items()}
    return Arrays(draws, {}, observed, notes)


def _guessed_order(name: str, shape: tuple[int, ...], notes: list[str]) -> str:
    """By the shape of weights or labels, which have one axis besides. Raises `InputError` where that says nothing."""
    if len(shape) == 2:
        return "draw"
    if len(shape) != 3 or shape[0] <= shape[1]:
        return "chain draw"
    if shape[1] <= CHAINS and shape[0] >= TIMES * shape[1]:
        notes.append(
            f"{name}: axes of length {shape[0]}, {shape[1]} were taken for draw, chain (order= says otherwise)"
        )
        return "draw chain"
    raise InputError(
        f"{name}: shape {shape}; are the first axes chain, draw or draw, chain? Give order='chain draw' or 'draw chain'"
    )


def _rectangular(values: Any, name: str, notes: list[str]) -> np.ndarray:
    """An array of `values`, rows of unequal length filled up with NaN: what is missing is absent."""
    try:
        array = np.asarray(values)
    except ValueError:
        array = None
    if array is not None and array.dtype != object:
        return array
    try:
        array = _padded(values)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: not an array of numbers ({error}); give numbers, the same axes in every draw"
        ) from error
    notes.append(f"{name}: rows of unequal length, filled up with NaN for what is absent")
    return array


def _padded(values: Any) -> np.ndarray:
    if not isinstance(values, list | tuple) and np.ndim(values) == 0:
        return np.asarray(values, float)
    rows = [_padded(row) for row in values]
    if len({row.ndim for row in rows}) > 1:
        raise ValueError("some rows are numbers, some are rows")
    array = np.full((len(rows), *np.max([row.shape for row in rows], axis=0, initial=0)), np.nan)
    for i, row in enumerate(rows):
        array[(i, *map(slice, row.shape))] = row
    return array


def _file(paths: list[Path], order: str | None, told: Mapping[str, str], data: str | None) -> Arrays:
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"{missing}: no such file; give a file of draws")
    content = source(paths[0]).content
    if content.startswith((b"\x89HDF", b"CDF")):
        return _netcdf(paths)
    if content.startswith(b"PK\x03\x04"):
        return _mapping(_npz(paths), order, told, data)
    notes: list[str] = []
    draws, stats = _cmdstan.read(paths, notes)
    return Arrays(draws, stats, {}, notes, first_label=1)


def _npz(paths: list[Path]) -> dict[str, np.ndarray]:
    if len(paths) > 1:
        raise InputError(f"{paths[1]}: several .npz files; give one, with all chains")
    try:
        with np.load(paths[0], allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except Exception as error:  # What a damaged archive raises is of many kinds.
        raise InputError(f"{paths[0]}: not a file of draws ({error})") from error


def _netcdf(paths: list[Path]) -> Arrays:
    if len(paths) > 1:
        raise InputError(f"{paths[1]}: several NetCDF files; give one, with all chains")
    return arrays(schema.read(paths[0]), None, {})
