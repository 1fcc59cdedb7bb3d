"""relabel(): one labelling for all draws of a DataTree or Dataset, and how far the methods agree."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..draws.components import along
from ..errors import InputError
from . import assignment
from ._data_based import data_based
from ._ecr import ecr, ecr_iterative_1, ecr_iterative_2
from ._pra import pra
from ._sjw import sjw
from ._stephens import stephens
from ._transport import transport
from ._user import user
from .assignment import Alignment
from .inputs import SAMPLE, Inputs, gather, group
from .ordering import aic

GROUPS = ("posterior", "sample_stats", "posterior_predictive", "log_likelihood")
"""Groups of a tree that are relabelled. The rest, `optimisation` and the prior among it, has draws of its own."""


@dataclasses.dataclass(frozen=True, eq=False)
class Relabelling:
    """Aligned draws and how they came about.

    - `method`, and `draws`: the same tree or Dataset, every variable with a component dimension permuted.
    - `permutations` (chain, draw, component): the ORIGINAL component that becomes component k, ``new = old[permutation]``.
    - `objective` and its `history` over the iterations of the winning start, monotone, in the method's own sense (see
      its function): agreement, inner product and log likelihood rise; divergence and distance fall.
    - `ambiguity` (chain, draw): by how much the second-best permutation is worse than the best, in the objective's unit.
    - `ties`: the number of draws where that difference is nought and the choice therefore arbitrary.
    - `active`, `parked` (chain, draw): components that carry data, and empty ones.
    - `matched` (chain, draw, component): the ORIGINAL components whose places mean something: all, unless parked.
    """

    method: str
    draws: Any
    permutations: xr.DataArray
    objective: float
    history: np.ndarray
    ambiguity: xr.DataArray
    ties: int
    active: xr.DataArray
    parked: xr.DataArray
    matched: xr.DataArray


def relabel(
    draws: xr.DataTree | xr.Dataset,
    method: str = "stephens",
    *,
    component: str | Sequence[str] = "component",
    weights: str | None = None,
    means: str | None = None,
    covariances: str | None = None,
    variances: str | None = None,
    scales: str | None = None,
    precisions: str | None = None,
    allocations: str | None = None,
    probabilities: str | None = None,
    points: str | np.ndarray | xr.DataArray | None = None,
    point_weights: str | np.ndarray | xr.DataArray | None = None,
    log_density: str | None = None,
    first_label: int = 0,
    park: bool | None = None,
    seed: int = 0,
    **options: Any,
) -> Relabelling:
    """Give the components of all draws one labelling.

    Draws of our schema need nothing but the method. Others say what their dimensions and variables are called::

        # PyMC: w, mu, sigma with dims (chain, draw, cluster), data in observed_data/y
        result = dpgmm.relabel(idata, "stephens", component="cluster", weights="w", means="mu", scales="sigma", points="y")

        # Stan: each variable has its own anonymous dimension for the same components
        result = dpgmm.relabel(
            posterior, "ecr_iterative_1", component=("theta_dim_0", "mu_dim_0", "sigma_dim_0"),
            weights="theta", means="mu", scales="sigma", allocations="z", first_label=1, points=y,
        )
        result.draws["mu"].mean(("chain", "draw"))

    Parameters
    ----------
    draws
        A Dataset, or a DataTree with a group ``posterior``; dimensions ``chain`` and ``draw``. In a tree, variables of
        ``sample_stats``, ``posterior_predictive`` and ``log_likelihood`` that have the component dimension are permuted
        too. The snapshots of a group ``optimisation`` are NOT relabelled: they are no draws.
    method
        ``stephens``, ``ecr``, ``ecr_iterative_1``, ``ecr_iterative_2``, ``pra``, ``aic``, ``data_based``, ``sjw``,
        ``transport`` or ``user``: the functions of `dpgmm.relabelling`, which say what each does.
    component
        Name of the component dimension, or names, where variables have it under different ones.
    weights, means, covariances
        Variables of the posterior, by default called so. ``means`` has at most one further dimension, D.
    variances, scales, precisions
        In place of ``covariances``. For each component a number, the D numbers of a diagonal, or a matrix, which for
        ``scales`` is a lower Cholesky factor. A variable without component dimension holds for all components.
    allocations
        Integer variable with one dimension beside chain and draw; drawn from the probabilities where not given.
    probabilities
        Variable of allocation probabilities; computed from the Gaussian components and the points where not given, a
        block of draws at a time.
    points, point_weights
        Observations ``(N,)`` or ``(N, D)`` and their weights ``(N,)``: names in ``observed_data``, or arrays. By
        default ours, or else the only observed variable; weights are one. Every pass evaluates all components of all
        draws at all points: where these are very many, a few weighted ones (`dpgmm.compression`) do as well.
    log_density
        Variable (chain, draw) whose maximum is the pivot of ``ecr`` and ``pra``. By default the first there is of
        ``total_log_likelihood``, ``log_likelihood``, ``log_joint``, ``lp`` and ``lp__``.
    first_label
        The first component's number in ``allocations``: 1 for Stan.
    park
        Whether components that carry no data are left out of the matching (``aic``, ``pra``, ``data_based``,
        ``transport``; in the other methods they hardly weigh) and of ``ambiguity``, ``ties`` and agreement. By default
        where no draw uses all K components, so that K is a truncation and not the number of components. They are
        counted either way.
    seed
        For allocations that are drawn.
    **options
        The method's own: ``pivot=(chain, draw)`` (`ecr`, `pra`), ``by="variable"`` or ``by=("variable", entry)`` (`aic`,
        by default the first coordinate of the means), ``starts=``, ``max_iterations=`` (iterative ones), ``exact=``
        (`sjw`), ``permutations=`` (chain, draw, component) (`user`).

    Raises
    ------
    InputError
        Unknown method or option, a name that the draws lack, values that cannot be what they are said to be.

    Examples:
        >>> dpgmm.relabel(tree, "ecr").permutations.shape
        (4, 20, 3)
    """
    key = method.lower().replace("-", "_")
    if key not in METHODS:
        raise InputError(f"no relabelling method {method!r}; there are {', '.join(METHODS)}")
    unknown = set(options) - set(_options(METHODS[key]))
    if unknown:
        known = ", ".join(_options(METHODS[key])) or "none"
        raise InputError(f"{method}: no option {min(unknown)!r}; there are {known}")
    names = {
        "weights": weights,
        "means": means,
        "covariances": covariances,
        "variances": variances,
        "scales": scales,
        "precisions": precisions,
        "allocations": allocations,
        "probabilities": probabilities,
        "log_density": log_density,
    }
    inputs = gather(draws, component, names, points, point_weights, first_label, seed)
    active = inputs.active
    full = int(active.sum(axis=1).max())
    leave_out = full < inputs.num_components if park is None else park
    alignment = METHODS[key](inputs, active if leave_out else None, **options)
    return _labelled(draws, key, inputs, alignment, active, leave_out=leave_out)


def agreement(results: Mapping[str, Relabelling] | Mapping[str, Any]) -> xr.DataArray:
    """Share of draws in which two methods give the same labelling, ``(result, other)``.

    Two labellings are the same if they differ by one permutation for all draws, which is found by one assignment. Parked
    components do not count. `results` holds `Relabelling`s, or permutations ``(..., K)``, by name.
    """
    permutations, matched = {}, {}
    for name, result in results.items():
        own = result.permutations if isinstance(result, Relabelling) else result
        permutations[name] = np.asarray(own).reshape(-1, np.shape(own)[-1])
        took_part = result.matched if isinstance(result, Relabelling) else np.ones(np.shape(own), bool)
        matched[name] = np.asarray(took_part).reshape(permutations[name].shape)
    if len({p.shape for p in permutations.values()}) > 1:
        raise InputError(f"agreement: results of different shapes {[p.shape for p in permutations.values()]}")
    shares = np.eye(len(results))
    for i, a in enumerate(permutations):
        for j, b in enumerate(permutations):
            if i < j:
                both = matched[a] & matched[b]
                shares[i, j] = shares[j, i] = _share(permutations[a], permutations[b], both)
    names = list(results)
    return xr.DataArray(shares, coords={"result": names, "other": names}, dims=("result", "other"), name="agreement")


def _share(permutations: np.ndarray, others: np.ndarray, matched: np.ndarray) -> float:
    renamed = permutations[:, assignment.common(permutations, others, matched)]
    places, other_places = np.argsort(renamed, axis=1), np.argsort(others, axis=1)
    return float(((places == other_places) | ~matched).all(axis=1).mean())


def _ecr(inputs: Inputs, active, *, pivot=None) -> Alignment:
    reference = inputs.allocations[_pivot(inputs, pivot)]
    return ecr(inputs.allocations, reference, inputs.num_components, point_weights=inputs.point_weights, active=active)


def _ecr_iterative_1(inputs: Inputs, active, **options) -> Alignment:
    fixed = {"point_weights": inputs.point_weights, "active": active}
    return ecr_iterative_1(inputs.allocations, inputs.num_components, **fixed, **options)


def _ecr_iterative_2(inputs: Inputs, active, **options) -> Alignment:
    fixed = {"point_weights": inputs.point_weights, "active": active}
    return ecr_iterative_2(inputs.allocations, inputs.probabilities, **fixed, **options)


def _stephens(inputs: Inputs, active, **options) -> Alignment:
    return stephens(inputs.probabilities, point_weights=inputs.point_weights, active=active, **options)


def _pra(inputs: Inputs, active, *, pivot=None) -> Alignment:
    rows, columns = np.tril_indices(inputs.means.shape[-1])
    distinct = inputs.covariances[..., rows, columns]
    parameters = np.concatenate([inputs.means, distinct, inputs.weights[..., None]], axis=-1)
    t = _pivot(inputs, pivot)
    return pra(parameters, parameters[t], active=active, slots=None if active is None else active[t])


def _aic(inputs: Inputs, active, *, by=None) -> Alignment:
    if by is None:
        return aic(inputs.means[..., 0], active=active)
    name, entry = (by, 0) if isinstance(by, str) else by
    return aic(inputs.column(name, entry), active=active)


def _data_based(inputs: Inputs, active) -> Alignment:
    fixed = {"point_weights": inputs.point_weights, "active": active}
    return data_based(inputs.allocations, inputs.points, inputs.num_components, **fixed)


def _sjw(inputs: Inputs, active, **options) -> Alignment:
    return sjw(inputs.allocations, *inputs.gaussians, point_weights=inputs.point_weights, active=active, **options)


def _transport(inputs: Inputs, active, **options) -> Alignment:
    return transport(inputs.means, inputs.covariances, active=active, **options)


def _user(inputs: Inputs, active, *, permutations=None) -> Alignment:
    shape = inputs.num_draws, inputs.num_components
    given = np.empty(0) if permutations is None else np.asarray(permutations)
    if given.size != shape[0] * shape[1] or given.shape[-1] != shape[1]:
        raise InputError(
            f"user: permutations of shape {given.shape}; give permutations= of shape (chain, draw, component), "
            f"{(inputs.posterior.sizes['chain'], inputs.posterior.sizes['draw'], shape[1])}"
        )
    return user(given.reshape(shape))


METHODS: dict[str, Callable[..., Alignment]] = {
    "stephens": _stephens,
    "ecr": _ecr,
    "ecr_iterative_1": _ecr_iterative_1,
    "ecr_iterative_2": _ecr_iterative_2,
    "pra": _pra,
    "aic": _aic,
    "data_based": _data_based,
    "sjw": _sjw,
    "transport": _transport,
    "user": _user,
}
_ARRAY_FUNCTIONS = {f.__name__: f for f in (ecr_iterative_1, ecr_iterative_2, stephens, sjw, transport)}


def _options(method: Callable) -> list[str]:
    """Options that a user may give: those of the wrapper, or, where it passes them on, of the array function."""
    own = inspect.signature(method).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in own):
        own = inspect.signature(_ARRAY_FUNCTIONS[method.__name__.removeprefix("_")]).parameters.values()
    return [p.name for p in own if p.kind is p.KEYWORD_ONLY and p.name not in ("active", "point_weights")]


def _pivot(inputs: Inputs, pivot: tuple[int, int] | None) -> int:
    """Number of the pivot draw among the draws of all chains."""
    if pivot is None:
        return int(np.argmax(inputs.log_density))
    sizes = tuple(inputs.posterior.sizes[d] for d in SAMPLE)
    if np.shape(pivot) != (2,) or not all(0 <= p < size for p, size in zip(pivot, sizes, strict=True)):
        raise InputError(f"pivot = {pivot}: give (chain, draw), positions below {sizes}")
    return int(np.ravel_multi_index(pivot, sizes))


def _labelled(draws, method, inputs: Inputs, alignment: Alignment, active, *, leave_out: bool) -> Relabelling:
    posterior, chains = inputs.posterior, inputs.posterior.sizes["chain"]
    coords = {d: posterior.coords[d] for d in SAMPLE if d in posterior.coords}

    def array(values: np.ndarray, name: str) -> xr.DataArray:
        values = values.reshape(chains, -1, *values.shape[1:])
        return xr.DataArray(values, coords=coords, dims=(*SAMPLE, "component")[: values.ndim], name=name)

    permutations = array(alignment.permutations, "permutations")
    count = active.sum(axis=1)
    return Relabelling(
        method=method,
        draws=_relabelled(draws, method, inputs, permutations.values),
        permutations=permutations,
        objective=alignment.objective,
        history=alignment.history,
        ambiguity=array(alignment.ambiguity, "ambiguity"),
        ties=int(alignment.tied.sum()),
        active=array(count, "active"),
        parked=array(inputs.num_components - count, "parked"),
        matched=array(active if leave_out else np.ones_like(active), "matched"),
    )


def _relabelled(draws, method: str, inputs: Inputs, permutations: np.ndarray):
    """The same draws in the new labelling. What has no component dimension is handed over as it is."""
    if isinstance(draws, xr.Dataset):
        return _permuted(draws, inputs, permutations).assign_attrs(relabelled=method)
    tree = draws.copy()
    for name in GROUPS:
        if name in tree.children:
            tree[name].dataset = _permuted(group(draws, name), inputs, permutations)
    tree.attrs = {**draws.attrs, "relabelled": method}
    return tree


def _permuted(dataset: xr.Dataset, inputs: Inputs, permutations: np.ndarray) -> xr.Dataset:
    new = {}
    for name, variable in dataset.data_vars.items():
        own = [d for d in variable.dims if d in inputs.components]
        if set(SAMPLE) <= set(variable.dims) and own:
            new[name] = _take(variable, own, permutations)
        elif name == inputs.names.get("allocations"):
            labels = inputs.labels(variable)
            places = np.argsort(permutations, axis=-1)
            relabelled = np.take_along_axis(places, labels.reshape(*labels.shape[:2], -1).astype(np.int64), axis=-1)
            values = (relabelled.reshape(labels.shape) + inputs.first_label).astype(variable.dtype)
            ordered = variable.transpose(*SAMPLE, ...)
            new[name] = ordered.copy(data=values).transpose(*variable.dims)
    return dataset.assign(new)


def _take(variable: xr.DataArray, own: list, permutations: np.ndarray) -> xr.DataArray:
    """The variable with the component dimension permuted, every one of them where it has more than one."""
    for dimension in own:
        ordered = variable.transpose(*SAMPLE, dimension, ...)
        variable = ordered.copy(data=along(ordered.values, permutations)).transpose(*variable.dims)
    return variable
