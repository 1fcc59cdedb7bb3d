"""`from_draws`: one tree of our schema from draws of any sampler, named or guessed, checked, and said what was done."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..errors import InputError
from ..model.posterior import Posterior
from . import _mixing, _roles, _suspicion, schema, spreads
from ._check import check
from ._roles import NAMES as NAMES
from ._sources import Arrays, arrays

Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]
SAMPLE = "chain", "draw"


def from_draws(
    draws: Any,
    *,
    points: str | np.ndarray | None = None,
    point_weights: np.ndarray | None = None,
    first_label: int | None = None,
    order: str | None = None,
    posterior: Posterior | None = None,
    **names: str | None,
) -> xr.DataTree:
    """A tree in the schema (docs/schema.md), which every function of this package takes.

    `draws`: a DataTree, InferenceData or Dataset (PyMC, NumPyro, blackjax, nutpie), NumPyro's `MCMC`, a dict of arrays, or
    files: CmdStan's CSV, one a chain, packed or not, .nc or .npz. `order` of the leading axes of a dict's arrays: "chain
    draw", "draw chain" (TensorFlow Probability), "draw" (chains one after the other); where it is not given it is guessed
    from the shape of weights or labels, and refused where that says nothing. `names`: ``weights=``, ``log_weights=`` or
    ``stick_logits=``, ``means=``, one of ``scales=``, ``variances=``, ``covariances=``, ``precisions=``, ``scale_trils=``
    (square, or packed lower triangles), ``allocations=``, ``concentration=``; what is not named is looked for under usual
    names (`NAMES`). `points`: ``(N, D)``, or the name of an observed variable, or of one in the dict. `first_label`: the
    number of the first component in allocations, 0 or 1; found out by default. `posterior`: of this package, where its
    program was sampled; an `MCMC` of ``posterior.program`` tells. The tree then has all that our own methods record.

    Weights must sum to one. Counts of the points and logarithms are recognised by their sums; NaN and -1 are absent
    components. What was guessed, done or left out is told in the attribute `notes`, and scales under which the points are
    much less likely than under another reading of the same numbers earn a warning that names it. Raises `InputError`, in a
    line, for what cannot be read.

    Examples:
        >>> mine = {"w": np.full((2, 50, 2), 0.5), "mu": np.zeros((2, 50, 2)), "sigma": np.ones((2, 50, 2))}
        >>> dict(dpgmm.from_draws(mine, weights="w", means="mu", scales="sigma")["posterior/means"].sizes)
        {'chain': 2, 'draw': 50, 'component': 2, 'dim': 1}
    """
    told = {role: name for role, name in names.items() if name is not None}
    held = arrays(draws, order, told, points if isinstance(points, str) else None)
    owner = _owner(draws) if posterior is None and not told and points is None else posterior
    if owner is not None:
        return _of_program(owner, held)
    notes = held.notes
    chosen = _roles.chosen(told, held.draws, notes)
    x = _points(held, points)
    omega = _point_weights(held, point_weights, x)
    first = held.first_label if first_label is None else first_label
    variables = _variables(held, chosen, x, omega, first, notes)
    if "concentration" in chosen:
        values = _mixing.real(held.draws[chosen["concentration"]], chosen["concentration"])
        if values.shape == next(iter(variables.values()))[1].shape[:2]:
            variables["concentration"] = SAMPLE, values
        elif "concentration" in told:
            raise InputError(f"{chosen['concentration']}: shape {values.shape}; a concentration is one number a draw")
    return _tree(variables, held, x, omega)


def _owner(draws: Any) -> Posterior | None:
    """The posterior whose program an MCMC ran."""
    model = getattr(getattr(draws, "sampler", None), "model", None)
    owner = getattr(model, "__self__", None)
    return owner if isinstance(owner, Posterior) else None


def _of_program(posterior: Posterior, held: Arrays) -> xr.DataTree:
    """Draws of the program of a posterior, as a method of ours returns them."""
    shapes = {site: leaf.shape for site, leaf in jax.eval_shape(posterior.initial, jax.random.PRNGKey(0)).items()}
    for site, shape in shapes.items():
        found = held.draws[site].shape if site in held.draws else None
        if found is None or found[2:] != shape or len(found) != 2 + len(shape):
            wanted = ", ".join(("chain", "draw", *map(str, shape)))
            raise InputError(
                f"posterior: site {site} of model {posterior.name} is ({wanted}) and the draws have {found or 'none'};"
                " give draws of posterior.program, and the posterior with the same data and options"
            )
        if not np.isfinite(_mixing.real(held.draws[site], site)).all():
            raise InputError(f"{site} is not finite everywhere; remove or refit the broken chain")
    stats = {name: a for name, a in held.stats.items() if a.ndim == 2 and a.dtype.kind in "biuf"}
    tree = schema.build(posterior, {site: jnp.asarray(held.draws[site]) for site in shapes}, sample_stats=stats)
    notes = [*held.notes, f"the sites of model {posterior.name} were taken for its components"]
    tree.attrs |= {"method": "draws", "kind": "sampler", "notes": "; ".join(notes)}
    return check(tree)


def _variables(
    held: Arrays,
    chosen: dict[str, str],
    x: np.ndarray | None,
    omega: np.ndarray | None,
    first: int | None,
    notes: list[str],
) -> Variables:
    """Weights, means, covariances and allocations, as far as they are there, in the schema."""
    variables: Variables = {}
    labels = held.draws[chosen["allocations"]] if "allocations" in chosen else None
    mixing = next((role for role in _roles.MIXING if role in chosen), None)
    weights = None
    if mixing is not None:
        number = omega.sum() if omega is not None else labels.shape[-1] if labels is not None and labels.ndim else None
        name = chosen[mixing]
        weights, absent = _mixing.weights(held.draws[name], mixing, name, number, notes)
        variables["weights"] = (*SAMPLE, "component"), weights
        if "means" in chosen:
            variables |= _components(held.draws, chosen, weights, absent, x)
    if labels is not None:
        found = _mixing.allocations(labels, chosen["allocations"], weights, first, notes)
        if found is not None:
            variables["allocations"] = (*SAMPLE, "obs"), found
        if found is not None and weights is None:
            notes.append("labels alone: weights are their shares of the points")
            variables["weights"] = (*SAMPLE, "component"), _mixing.shares(found, found.max() + 1)
        _check_labels(found, chosen["allocations"], weights, x)
    if not variables:
        raise InputError(
            f"draws: neither weights nor allocations among {', '.join(held.draws) or 'no variables'}; name them, as in"
            " weights='theta', means='mu', scales='sigma', allocations='z'"
        )
    return variables


def _check_labels(labels: np.ndarray | None, name: str, weights: np.ndarray | None, x: np.ndarray | None) -> None:
    if labels is None:
        return
    if weights is not None and labels.shape[:2] != weights.shape[:2]:
        raise InputError(f"{name}: draws {labels.shape[:2]}, and weights have {weights.shape[:2]}; they must agree")
    if x is not None and labels.shape[2] != len(x):
        raise InputError(f"{name}: labels of {labels.shape[2]} observations, and {len(x)} points; they must agree")


def _components(
    found: dict[str, np.ndarray],
    chosen: dict[str, str],
    weights: np.ndarray,
    absent: np.ndarray,
    x: np.ndarray | None,
) -> Variables:
    """Means and covariances in the schema, from whichever form the latter have."""
    shape, name = weights.shape, chosen["means"]
    means = _mixing.real(found[name], name)
    if means.shape[:3] != shape or means.ndim > 4 or 0 in means.shape:
        raise InputError(f"{name}: shape {means.shape}; means of {shape[2]} components are {shape} or {(*shape, 'D')}")
    means = means.reshape(*shape, -1)
    broken = ~np.isfinite(means).all(axis=-1)
    if (broken & (weights > 0)).any():
        raise InputError(f"{name}: not finite where components have weight; remove or refit the broken chain")
    means = _filled(means, absent | broken)
    if x is not None and x.shape[1] != means.shape[-1]:
        turned = "; transpose them" if x.shape[0] == means.shape[-1] else ""
        raise InputError(f"points have {x.shape[1]} columns and {name} {means.shape[-1]}; they must agree{turned}")
    role = next((form for form in _roles.FORMS if form in chosen), None)
    if role is None:
        raise InputError(f"draws: no scales among {', '.join(found)}; name them by one of {', '.join(_roles.FORMS)}")
    values = spreads.arranged(_mixing.real(found[chosen[role]], chosen[role]), chosen[role], role, means.shape)
    if values.shape[2] == shape[2]:
        broken = ~np.isfinite(values.reshape(*shape, -1)).all(axis=-1)
        values = _filled(values, absent | (broken & (weights == 0)))
    if not np.isfinite(values).all():
        raise InputError(f"{chosen[role]}: not finite where components have weight; remove or refit the broken chain")
    matrix = values.ndim == 5
    stored = spreads.covariances(values, role, chosen[role])
    wrong = None if x is None else _suspicion.suspicion(weights, means, values, role, chosen[role], x)
    if wrong is not None:
        warnings.warn(wrong, UserWarning, stacklevel=4)
    dims: tuple[str, ...] = (*SAMPLE, "component", "dim")
    if matrix:
        full = np.broadcast_to(stored, (*means.shape, means.shape[-1]))
        return {"means": (dims, means), "covariances": ((*dims, "dim_"), full)}
    return {"means": (dims, means), "variances": (dims, np.broadcast_to(stored, means.shape))}


def _filled(values: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """``(chain, draw, K, ...)`` with the mean of all others in the place of absent components ``(chain, draw, K)``."""
    if not absent.any() or absent.all():
        return values
    return np.where(absent.reshape(*absent.shape, *[1] * (values.ndim - 3)), values[~absent].mean(axis=0), values)


def _points(held: Arrays, points: str | np.ndarray | None) -> np.ndarray | None:
    if isinstance(points, str):
        if points not in held.observed:
            there = ", ".join(held.observed) or "nothing"
            raise InputError(f"points = {points!r}: not among what was observed: {there}; give a name or an array")
        points = held.observed[points]
    if points is None and "points" in held.observed:
        points = held.observed["points"]
    if points is None and len(held.observed) == 1:
        points = next(iter(held.observed.values()))
    if points is None:
        return None
    try:
        found = np.asarray(points, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"points are not an array of numbers ({error}); give finite numbers (N, D)") from error
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or 0 in found.shape or not np.isfinite(found).all():
        raise InputError(f"points: shape {found.shape}, and finite numbers (N, D) are wanted")
    return found


def _point_weights(held: Arrays, given: np.ndarray | None, x: np.ndarray | None) -> np.ndarray | None:
    """Weights ``(N,)`` of the points, ones where none are told."""
    given = held.observed.get("point_weights") if given is None else given
    if x is None:
        return None
    found = np.ones(len(x)) if given is None else np.asarray(given, float)
    if found.shape != (len(x),) or not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise InputError(f"point_weights: shape {found.shape}; give {len(x)} finite numbers of 0 or more, not all 0")
    return found


def _tree(variables: Variables, held: Arrays, x: np.ndarray | None, omega: np.ndarray | None) -> xr.DataTree:
    """The tree, with the sampler's log density, the points and the notes."""
    stats = {}
    for role, usual in (("log_joint", ("log_joint", "lp", "log_posterior")), ("diverging", ("diverging", "divergent"))):
        name = next((n for n in usual if n in held.stats and held.stats[n].ndim == 2), None)
        if name is not None:
            stats[role] = SAMPLE, held.stats[name].astype(bool if role == "diverging" else float)
    groups = {"posterior": xr.Dataset(variables), "sample_stats": xr.Dataset(stats)}
    if x is not None:
        groups["observed_data"] = xr.Dataset({"points": (("obs", "dim"), x), "point_weights": ("obs", omega)})
    tree = xr.DataTree.from_dict({name: schema.with_coordinates(group) for name, group in groups.items()})
    tree.attrs = {"method": "draws", "kind": "sampler", "notes": "; ".join(held.notes)}
    return check(tree) if x is not None and "means" in variables else tree
